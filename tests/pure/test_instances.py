"""What becomes of instances that end, what a job says, and what a process answers about its health."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import quixframes as qf
from quixframes.health import Health, HealthServer
from quixframes.instances import UNABLE, Backoff, Ending, Verdict, total
from quixframes.job import Job
from quixframes.model_finder import UnableError, find_model


def job(**settings: Any) -> Job:
    return Job(**{"model": "models:double", "broker": "localhost:9092", "sources": ("engine",), **settings})


def test_the_wait_before_a_restart_doubles_to_30_seconds_and_begins_anew_after_a_minute_s_run() -> None:
    backoff, deaths, pauses = Backoff(), 0, []
    for ran in [0, 1, 2, 3, 4, 5, 6, 59.9, 60, 1]:
        deaths = backoff.deaths(deaths, ran)
        pauses.append(backoff.pause(deaths))
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 1, 2]


@pytest.mark.parametrize(
    ("code", "asked", "restart", "verdict"),
    [
        (0, False, True, Verdict.Done),
        (0, True, True, Verdict.Done),
        (-15, True, True, Verdict.Done),
        (-9, True, True, Verdict.Done),
        (1, False, True, Verdict.Restart),
        (-9, False, True, Verdict.Restart),
        (-15, False, True, Verdict.Restart),
        (1, False, False, Verdict.GiveUp),
        (UNABLE, False, True, Verdict.GiveUp),
        (UNABLE, True, True, Verdict.Done),
    ],
)
def test_an_instance_that_died_is_started_again_unless_it_was_asked_to_end_or_cannot_work(
    code: int, asked: bool, restart: bool, verdict: Verdict
) -> None:
    assert Ending(code, asked).verdict(restart) is verdict


def test_summaries_add_up_but_for_the_time_which_is_the_longest() -> None:
    one = qf.Summary(rows_in=5, processed=3, held=2, rows_out=3, batches=1, commits=1, lag=2, seconds=1.0)
    two = qf.Summary(rows_in=7, processed=7, rows_out=7, batches=2, retries=1, commits=1, seconds=2.0, ended="rows")
    assert total([one, two]) == qf.Summary(
        rows_in=12, processed=10, held=2, rows_out=10, batches=3, retries=1, commits=2, lag=2, seconds=2.0,
        ended="end, rows",
    )  # fmt: skip
    assert total([]) == qf.Summary()


def test_every_count_of_a_summary_is_added() -> None:
    counts = [field.name for field in fields(qf.Summary) if field.type == "int"]
    one = qf.Summary(**dict.fromkeys(counts, 1))
    assert total([one, one]) == qf.Summary(**dict.fromkeys(counts, 2))


def test_a_job_is_the_same_after_its_way_to_a_process() -> None:
    given = job(sinks=(("good", "a"), ("bad", "b")), instance_id="engine", time_span="1s", health_port=8080)
    line = given.to_json()
    assert "\n" not in line
    assert Job.from_json(line) == given


def test_instances_have_static_names_of_their_own() -> None:
    assert [job(instance_id="a").reader(n).instance_id for n in range(2)] == ["a-0", "a-1"]
    assert job().reader(0).instance_id is None


def test_the_longest_time_between_commits_is_the_user_s_or_that_of_the_mode() -> None:
    assert job().commit_settings == qf.CommitSettings()
    assert job(commit_every="1s").commit_settings == qf.CommitSettings(every="1s")
    assert job(exactly_once=True).commit_settings.every == "200ms"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "models"}, "module:function"),
        ({"model": "models:not a name"}, "module:function"),
        ({"sources": ()}, "--source"),
        ({"source_pattern": "a.*"}, "--source"),
        ({"group": ""}, "--group"),
        ({"sinks": (("", "a"), ("b", "b"))}, "several sinks need names"),
        ({"sinks": (("a", "a"), ("a", "b"))}, "several sinks need names"),
        ({"takes": "rows"}, "takes='rows'"),
        ({"commit": "never"}, "commit='never'"),
        ({"until": "later"}, "until='later'"),
        ({"reset": "middle"}, "auto_offset_reset"),
        ({"assignment": "mine"}, "assignment='mine'"),
        ({"duration": "0s"}, "duration='0s'"),
        ({"max_rows": 0}, "max_rows=0"),
        ({"health_port": 70_000}, "--health-port 70000"),
        ({"stop_timeout": "soon"}, "stop_timeout='soon'"),
        ({"broker": "nowhere"}, "host:port"),
    ],
)
def test_a_job_that_cannot_be_says_which_setting_is_wrong(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(qf.SettingsError) as caught:
        job(**settings)
    assert says in str(caught.value)


def test_a_model_is_found_in_a_module_and_in_a_file_whose_neighbours_it_can_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "neighbour_of_model.py").write_text("factor = 2")
    (tmp_path / "found_model.py").write_text("from neighbour_of_model import factor\ndef m(f):\n    return f * factor")
    monkeypatch.setattr("sys.path", list(sys.path))
    assert find_model(f"{tmp_path / 'found_model.py'}:m")(3) == 6
    assert find_model("found_model:m")(4) == 8


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere_at_all:model", "cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("json:triple", "json has no function 'triple' (it has: JSON"),
        ("nowhere.py:model", "there is no file 'nowhere.py' in "),
        ("broken.py:model", "cannot be imported: SyntaxError"),
        ("late.py:model", "cannot be imported: ZeroDivisionError: division by zero, "),
    ],
)
def test_a_model_that_is_not_there_or_cannot_be_imported_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    (tmp_path / "broken.py").write_text("def model(:")
    (tmp_path / "late.py").write_text("\n1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(UnableError) as caught:
        find_model(name)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("health", "live", "ready"),
    [
        (Health(), 200, 200),
        (Health(unready="no broker answers"), 200, 503),
        (Health(dead="the reading has ended"), 503, 503),
    ],
)
def test_what_is_not_live_is_not_ready_either(health: Health, live: int, ready: int) -> None:
    assert (health.answer("/live")[0], health.answer("/ready")[0]) == (live, ready)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def test_the_health_server_answers_with_what_is_the_case_when_it_is_asked() -> None:
    now = [Health(facts={"rows": 1}), Health(unready="it connects", facts={"rows": 2})]
    with HealthServer("127.0.0.1", 0, lambda: now.pop(0), lambda: "rows_total 3\n") as server:
        status, body = get(server.port, "/ready")
        assert (status, json.loads(body)) == (200, {"status": "ok", "rows": 1})
        status, body = get(server.port, "/ready?verbose")
        assert (status, json.loads(body)) == (503, {"status": "unwell", "reason": "it connects", "rows": 2})
        assert get(server.port, "/metrics") == (200, "rows_total 3\n")
        assert get(server.port, "/")[0] == 404


def test_a_health_port_that_is_taken_is_an_error_that_names_it() -> None:
    with (
        HealthServer("127.0.0.1", 0, Health) as server,
        pytest.raises(qf.SettingsError, match=f"127.0.0.1:{server.port}"),
    ):
        HealthServer("127.0.0.1", server.port, Health)


def test_without_metrics_there_is_nothing_at_their_path() -> None:
    with HealthServer("127.0.0.1", 0, Health) as server:
        assert get(server.port, "/metrics")[0] == 404
