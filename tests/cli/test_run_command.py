"""``quixframes run``: several processes of one model, as a user runs them, on a real Kafka."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

import quixframes as qf
from quixframes.local_process import free_port
from tests.processes import hear_interrupts
from tests.waiting import wait_for

MODEL = """
import os, time

def double(frame):
    return frame[["n"]] * 2

def slow(frame):
    time.sleep(0.2)
    return frame[["n"]]

def dies_once(frame):
    if not os.path.exists("died"):
        open("died", "w").close()
        raise ValueError("the first batch is always bad")
    return frame[["n"]]

def hangs(frame):
    open("hangs", "w").close()
    time.sleep(60)
"""


class Running:
    """A command that runs, and the lines that it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def text(self) -> str:
        return "\n".join(self.lines)

    def pids(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"started \(process (\d+)\)", self.text())]

    def shares(self) -> dict[int, str]:
        """The partitions that each instance was last said to have; none where it waits."""
        said = re.findall(r"  (\d+)  has (.*)$", self.text(), re.MULTILINE)
        return {int(n): "" if what.startswith("no partition") else what for n, what in said}

    def wait(self, condition: Callable[[], object], seconds: float = 60) -> None:
        assert wait_for(lambda: condition() or self.process.poll() is not None, seconds), self.text()
        assert condition(), self.text()

    def end(self, seconds: float = 60) -> int:
        code = self.process.wait(seconds)
        self._thread.join(10)
        return code


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path, broker_address: str) -> Iterator[Start]:
    """Starts ``quixframes run`` in a folder that has the models."""
    (tmp_path / "models.py").write_text(MODEL)
    started: list[Running] = []

    def run(*arguments: str) -> Running:
        process = subprocess.Popen(
            [sys.executable, "-m", "quixframes.cli", "run", *arguments],
            cwd=tmp_path,
            env={**os.environ, "QUIXFRAMES_BROKER": broker_address, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=hear_interrupts,
        )
        started.append(Running(process))
        return started[-1]

    yield run
    for running in started:
        running.process.kill()
        running.process.wait()


STREAMS = [f"s{number}" for number in range(6)]  # they come to all partitions of two, and of three


def write(client: qf.StreamingClient, topic: str, frame: pd.DataFrame) -> None:
    """The same rows to each stream."""
    with client.open_output_topic(topic) as out:
        for stream in STREAMS:
            out.write(frame, stream=stream)


def rows_of(client: qf.StreamingClient, topic: str) -> dict[str, list[int]]:
    frame = client.replay(topic, progress=False).to_frame()
    return {stream: list(rows["n"]) for stream, rows in frame.groupby("stream")} if len(frame) else {}


MakeTopic = Callable[..., str]
MakeFrame = Callable[..., pd.DataFrame]


def test_of_four_instances_on_three_partitions_one_waits_and_takes_over_from_one_that_is_killed(
    start: Start, client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    source, sink = make_topic(partitions=3), make_topic(partitions=3)
    running = start(
        "models:double", "-n", "4", "--source", source, "--sink", sink, "--group", group, "--no-restart",
        "--session-timeout", "6s", "--timeout", "100ms",
    )  # fmt: skip
    running.wait(lambda: sorted(map(bool, running.shares().values())) == [False, True, True, True])
    assert "has no partition, waits" in running.text()
    write(client, source, make_frame(100))
    running.wait(lambda: len(rows_of(client, sink)) == len(STREAMS))
    (idle,) = [n for n, share in running.shares().items() if not share]
    victim = (idle + 1) % 4
    os.kill(running.pids()[victim], signal.SIGKILL)
    running.wait(lambda: running.shares()[idle])
    running.process.terminate()
    assert running.end() == 1  # one was not started again
    assert f"  {victim}  died (killed by SIGKILL)" in running.text()
    written = rows_of(client, sink)  # those that were not committed yet twice
    assert {stream: sorted(set(rows)) for stream, rows in written.items()} == {
        stream: [2 * n for n in range(100)] for stream in STREAMS
    }


def test_an_instance_with_a_static_name_has_its_partitions_back_after_a_kill_and_exactly_once_writes_no_row_twice(
    start: Start, client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    source, sink = make_topic(partitions=2), make_topic(partitions=2)
    running = start(
        "models:double", "-n", "2", "--source", source, "--sink", sink, "--group", group, "--instance-id", group,
        "--exactly-once", "--rows", "50", "--timeout", "100ms",
    )  # fmt: skip
    running.wait(lambda: len(set(running.shares().values()) - {""}) == 2)
    before = running.shares()
    said = [running.text().count(f"  {n}  has ") for n in range(2)]
    write(client, source, make_frame(2_000))
    running.wait(lambda: rows_of(client, sink))
    os.kill(running.pids()[0], signal.SIGKILL)
    running.wait(lambda: len(running.pids()) == 3)
    running.wait(lambda: running.text().count("  0  has ") > said[0] and running.shares() == before)
    running.wait(lambda: sum(map(len, rows_of(client, sink).values())) >= 2_000 * len(STREAMS))
    running.process.terminate()
    assert running.end() == 0, running.text()
    assert running.text().count("  1  has ") == said[1], "the other instance was disturbed"
    assert rows_of(client, sink) == {stream: [2 * n for n in range(2_000)] for stream in STREAMS}


def test_until_now_ends_all_of_them_with_every_row_processed_and_their_counts_added_up(
    start: Start, client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    """Also where the model dies on the way: it is started again, and told why."""
    source, sink = make_topic(partitions=3), make_topic(partitions=3)
    write(client, source, make_frame(1_000))
    running = start(
        "models.py:dies_once", "-n", "2", "--source", source, "--sink", sink, "--group", group, "--until", "now",
        "--rows", "300",
    )  # fmt: skip
    assert running.end(90) == 0, running.text()
    text = running.text()
    assert "died (exit code 1): ValueError: the first batch is always bad" in text
    assert "starts again in 1 s" in text
    assert "ValueError" in text
    written = rows_of(client, sink)
    assert {stream: sorted(set(rows)) for stream, rows in written.items()} == {
        stream: list(range(1_000)) for stream in STREAMS
    }
    together = next(line for line in running.lines if line.startswith("together"))
    counts = [int(word.replace(",", "")) for word in together.split()[1:4]]
    rows_in, processed, rows_out = counts
    assert processed == 1_000 * len(STREAMS)
    assert rows_in >= processed
    assert rows_out == sum(len(rows) for rows in written.values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_of_them_with_what_is_finished_committed(
    start: Start,
    client: qf.StreamingClient,
    make_topic: MakeTopic,
    make_frame: MakeFrame,
    group: str,
    number: signal.Signals,
) -> None:
    source, sink = make_topic(partitions=2), make_topic(partitions=2)
    write(client, source, make_frame(5_000))
    running = start(
        "models:slow", "-n", "2", "--source", source, "--sink", sink, "--group", group, "--rows", "100",
    )  # fmt: skip
    running.wait(lambda: rows_of(client, sink))
    running.process.send_signal(number)
    assert running.end() == 0, running.text()
    assert "Traceback" not in running.text()
    written = rows_of(client, sink)
    assert sum(len(rows) for rows in written.values()) < 5_000 * len(STREAMS)
    # What was written was committed: the group goes on with the row after it.
    with client.open_input_topic(source, group) as topic:
        for batch in topic.batches(until="now"):
            written[batch.stream_id] = written.get(batch.stream_id, []) + list(batch.frame["n"])
    assert written == {stream: list(range(5_000)) for stream in STREAMS}


def test_a_second_signal_stops_at_once(
    start: Start, client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str, tmp_path: Path
) -> None:
    write(client, topic, make_frame(10))
    running = start("models:hangs", "--source", topic, "--group", group)
    running.wait(lambda: (tmp_path / "hangs").exists())
    running.process.send_signal(signal.SIGINT)
    running.wait(lambda: "stopping, after SIGINT" in running.text())
    running.process.send_signal(signal.SIGINT)
    assert running.end(10) == 130


def test_one_that_does_not_stop_in_time_is_killed_and_that_is_told(
    start: Start, client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str, tmp_path: Path
) -> None:
    write(client, topic, make_frame(10))
    running = start("models:hangs", "--source", topic, "--group", group, "--stop-timeout", "500ms")
    running.wait(lambda: (tmp_path / "hangs").exists())
    running.process.terminate()
    assert running.end(10) == 1
    assert "did not stop within 500ms, and is killed" in running.text()


def test_instances_end_when_the_command_is_killed(start: Start, topic: str, group: str) -> None:
    running = start("models:double", "-n", "2", "--source", topic, "--group", group)
    running.wait(lambda: running.text().count("  has ") >= 2)
    instances = [psutil.Process(pid) for pid in running.pids()]
    running.process.kill()
    _, left = psutil.wait_procs(instances, timeout=15)
    assert not left


def test_a_model_that_cannot_be_imported_is_one_clear_line(
    start: Start, topic: str, group: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("import nowhere")
    running = start("broken.py:model", "-n", "2", "--source", topic, "--group", group)
    assert running.end() == 1
    why = f"ModuleNotFoundError: No module named 'nowhere', {tmp_path}"
    says = f"cannot work: model 'broken.py:model' cannot be imported: {why}"
    assert sum(says in line for line in running.lines) == 1, running.text()
    assert not [line for line in running.lines if "started" not in line and says not in line]


def test_a_topic_that_is_not_there_is_one_clear_line(start: Start, group: str) -> None:
    running = start("models:double", "--source", "no-such-topic", "--group", group)
    assert running.end() == 1
    assert "cannot work: topic 'no-such-topic' cannot be read: there is no such topic" in running.text()
    assert "Traceback" not in running.text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["models:double", "--source", "a", "--timeout", "soon"], "timeout='soon' is not a duration"),
        (["models:double", "--source", "a", "--on-error", "dead-letter"], "--dead-letters"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_started(start: Start, arguments: list[str], says: str) -> None:
    running = start(*arguments)
    assert running.end() == 1
    assert "Error: " in running.text()
    assert says in running.text()
    assert "started" not in running.text()


def test_health_says_what_an_instance_has_and_whether_it_is_ready(
    start: Start, client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    port = free_port()
    running = start(
        "models:hangs", "--source", topic, "--group", group, "--health-port", str(port), "--model-timeout", "1s",
    )  # fmt: skip
    running.wait(lambda: ask(port, "/ready")[0] == 200)
    status, body = ask(port, "/live")
    assert status == 200
    assert body | {"lag": 0} == {
        "status": "ok", "instance": 0, "group": group, "topics": [topic], "partitions": [f"{topic}[0]"],
        "lag": 0, "rows": 0, "batches": 0, "commits": 0,
    }  # fmt: skip
    write(client, topic, make_frame(10))
    running.wait(lambda: ask(port, "/live")[0] == 503)
    assert "model" in str(ask(port, "/live")[1]["reason"])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert f'topic="{topic}"' in answer.read().decode()


def ask(port: int, path: str) -> tuple[int, dict[str, object]]:
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            return exc.code, json.load(exc)
    return 0, {}
