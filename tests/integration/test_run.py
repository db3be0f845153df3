"""``qf.run`` on a real Kafka: what comes in comes out, is a dead letter, or comes again; and the summary adds up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import quixframes as qf
from quixframes import CommitMode
from tests.processes import hear_interrupts
from tests.waiting import wait_for

MakeFrame = Callable[..., pd.DataFrame]
MakeTopic = Callable[..., str]


def fill(client: qf.StreamingClient, topic: str, frame: pd.DataFrame, *streams: str) -> None:
    with client.open_output_topic(topic) as out:
        for stream in streams:
            out.write(frame, stream=stream)


def assert_adds_up(summary: qf.Summary) -> None:
    parts = (summary.processed, summary.dead, summary.filtered, summary.let_go, summary.held)
    assert summary.rows_in == sum(parts)


def test_a_model_s_results_go_to_streams_of_the_same_ids_with_their_story_and_end(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    raw, clean = make_topic(), make_topic()
    with client.open_output_topic(raw) as out, out.create_stream("car-44") as car:
        car.properties.name = "Car 44"
        car.parameters.add_definition("p0", unit="km/h")
        car.parameters.write(make_frame(100))
    with client.open_input_topic(raw, group) as source, client.open_output_topic(clean) as sink:
        summary = qf.run(lambda frame: frame[["p0"]] * 2, source, sink, until="now", rows=30)
    assert (summary.rows_in, summary.processed, summary.rows_out) == (101, 101, 100)  # the end counts as one
    assert_adds_up(summary)
    with client.open_input_topic(clean, group) as found:
        batches = list(found.batches(until="now"))
    frame = pd.concat([batch.frame for batch in batches])
    pd.testing.assert_frame_equal(frame, make_frame(100)[["p0"]] * 2)
    assert batches[-1].stream.properties.name == "Car 44"
    assert batches[-1].stream.properties.parents == ("car-44",)
    assert batches[-1].stream.parameters["p0"].unit == "km/h"
    assert batches[-1].closed is qf.StreamEndType.Closed


def test_several_sinks_get_what_the_model_returns_for_them(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    raw, high, low = make_topic(), make_topic(), make_topic()
    fill(client, raw, make_frame(100), "s")

    def model(frame: pd.DataFrame) -> dict[str, pd.DataFrame | None]:
        return {"high": frame[frame["n"] >= 90], "low": frame[frame["n"] < 10] if frame["n"].min() < 10 else None}

    with (
        client.open_input_topic(raw, group) as source,
        client.open_output_topic(high) as one,
        client.open_output_topic(low) as other,
    ):
        qf.run(model, source, {"high": one, "low": other}, until="now")
    assert client.replay(high, progress=False).to_frame()["n"].tolist() == list(range(90, 100))
    assert client.replay(low, progress=False).to_frame()["n"].tolist() == list(range(10))


@pytest.mark.parametrize(
    ("result", "sinks", "said"),
    [
        ("a dict", "a dict", "no sink of that name"),
        ("a frame", "a dict", "return a dict by name"),
        ("a frame", "none", "the sinks are none"),
        ("a number", "one", r"returned 7 \(int\)"),
    ],
)
def test_a_result_that_goes_to_no_sink_ends_the_run_with_a_word_and_the_batch_comes_again(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame, result: str, sinks: str,
    said: str,
) -> None:  # fmt: skip
    raw, clean = make_topic(), make_topic()
    fill(client, raw, make_frame(10), "s")
    results = {"a dict": {"other": make_frame(1)}, "a frame": make_frame(1), "a number": 7}
    with client.open_output_topic(clean) as sink, client.open_input_topic(raw, group) as source:
        given = {"a dict": {"one": sink}, "one": sink, "none": None}[sinks]
        with pytest.raises(qf.SettingsError, match=said):
            qf.run(lambda frame: results[result], source, given, until="now")  # type: ignore[arg-type]
    with client.open_input_topic(raw, group) as source:
        assert qf.run(lambda frame: None, source, until="now").processed == 10


def test_a_model_that_raises_is_tried_again_with_the_rows_as_they_came(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    """Also where it has changed them before it raised."""
    raw, clean = make_topic(), make_topic()
    fill(client, raw, make_frame(10), "s")
    tries = []

    def model(frame: pd.DataFrame) -> pd.DataFrame:
        tries.append(frame["n"].sum())
        frame["n"] += 1_000
        if len(tries) < 3:
            raise TimeoutError("a database was away")
        return frame

    retry = qf.Retry(attempts=3, backoff="10ms", errors=TimeoutError)
    with client.open_input_topic(raw, group) as source, client.open_output_topic(clean) as sink:
        summary = qf.run(model, source, sink, until="now", retry=retry)
    assert tries == [45, 45, 45]
    assert (summary.retries, summary.batches) == (2, 1)
    assert client.replay(clean, progress=False).to_frame()["n"].tolist() == list(range(1_000, 1_010))


def test_other_errors_are_not_tried_again(
    client: qf.StreamingClient, topic: str, group: str, make_frame: MakeFrame
) -> None:
    fill(client, topic, make_frame(10), "s")
    calls = []

    def model(frame: pd.DataFrame) -> None:
        calls.append(1)
        raise KeyError("a column")

    retry = qf.Retry(attempts=3, backoff="10ms", errors=TimeoutError)
    with client.open_input_topic(topic, group) as source, pytest.raises(KeyError):
        qf.run(model, source, until="now", retry=retry)
    assert len(calls) == 1


@pytest.mark.parametrize("exactly_once", [False, True])
def test_a_batch_that_fails_for_good_is_a_dead_letter_that_can_be_sent_back(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame, exactly_once: bool
) -> None:
    """Rows and events; the others are processed, and nothing comes again."""
    raw, clean, dead = make_topic(), make_topic(), make_topic()
    fill(client, raw, make_frame(100), "s")
    with client.open_output_topic(raw) as out:
        out.get_or_create_stream("s").events.write("pit-stop", time=pd.Timestamp(0, tz="UTC"), value="tyres")

    def model(frame: pd.DataFrame) -> pd.DataFrame:
        if 50 in frame["n"].to_numpy():
            raise ValueError("fifty")
        return frame

    opened = client.open_input_topic(raw, group, dead_letters=dead, exactly_once=exactly_once)
    with opened as source, client.open_output_topic(clean) as sink:
        retry = qf.Retry(attempts=2, backoff="10ms")
        summary = qf.run(model, source, sink, until="now", rows=10, on_error="dead-letter", retry=retry)
        assert (summary.rows_in, summary.processed, summary.dead, summary.retries) == (101, 91, 10, 1)
        assert_adds_up(summary)
    letters = client.dead_letters(dead)
    assert letters["exception"].tolist() == ["builtins.ValueError"]
    assert letters["message"].tolist() == ["fifty"]
    assert (letters["topic"].tolist(), letters["key"].tolist()) == ([raw], [b"s"])
    client.send_back(letters)
    with client.open_input_topic(raw, group) as source, client.open_output_topic(clean) as sink:
        assert qf.run(lambda frame: frame, source, sink, until="now").processed == 10
    found = client.replay(clean, progress=False).to_frame()["n"]
    assert sorted(found) == list(range(100))


def test_dead_letters_need_a_topic_that_has_them(client: qf.StreamingClient, topic: str, group: str) -> None:
    with client.open_input_topic(topic, group) as source, pytest.raises(qf.SettingsError, match="dead_letters="):
        qf.run(lambda frame: None, source, on_error="dead-letter")


@pytest.mark.parametrize(
    ("bounds", "ended"),
    [
        ({"max_rows": 25}, "rows"),
        ({"duration": "500ms"}, "duration"),
        ({"idle": "300ms"}, "idle"),
        ({"until": "now"}, "end"),
    ],
)
def test_a_run_ends_where_it_was_told_to_and_says_so(
    client: qf.StreamingClient, topic: str, group: str, make_frame: MakeFrame, bounds: dict[str, object], ended: str
) -> None:
    fill(client, topic, make_frame(50), "s")
    with client.open_input_topic(topic, group, CommitMode.Manual) as source:
        summary = qf.run(lambda frame: None, source, rows=10, timeout=None, **bounds)  # type: ignore[arg-type]
        assert summary.ended == ended
        assert_adds_up(summary)
        processed = summary.processed
        assert processed == (30 if ended == "rows" else 50)
        assert summary.batches == summary.commits == processed // 10
        rest = qf.run(lambda frame: None, source, until="now")
        assert (rest.rows_in, rest.processed) == (50 - processed, 50 - processed)
        assert_adds_up(rest)
        assert wait_for(lambda: source.lag == 0)


def test_a_replay_runs_through_the_same_model(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame
) -> None:
    raw, clean = make_topic(), make_topic()
    fill(client, raw, make_frame(100), "a", "b")
    with client.open_output_topic(clean) as sink:
        summary = qf.run(lambda frame: -frame, client.replay(raw, progress=False), sink, rows=30)
    assert (summary.rows_in, summary.processed, summary.rows_out) == (200, 200, 200)
    assert client.replay(clean, progress=False).to_frame()["n"].tolist() == [-n for n in range(100)] * 2


def test_the_account_of_a_partition_adds_up_at_any_time(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    """Promise 5, with a filter, dead letters, held rows and batches that are not finished."""
    topic, dead = make_topic(partitions=2), make_topic()
    for n in range(6):
        fill(client, topic, make_frame(100), f"s{n}")

    def is_even(frame: pd.DataFrame) -> np.ndarray:
        return (frame["n"] % 2 == 0).to_numpy()

    with client.open_input_topic(topic, group, CommitMode.Manual, dead_letters=dead) as source:
        kinds = 0
        for count, batch in enumerate(source.batches(rows=7, timeout=None, filter=is_even, until="now")):
            if count % 3 == 0:
                batch.commit()
            elif count % 3 == 1:
                source.reject(batch, ValueError("no"))
            accounts = source.accounts()
            total = accounts.drop(columns="rows_in").sum(axis=1)
            assert (accounts["rows_in"] == total).all()
            kinds = max(kinds, (accounts.sum() > 0).sum())
        assert kinds == 5
        before = source.accounts().sum()
    after = source.accounts().sum()
    assert before["held"] == after["let_go"] > 0
    assert after["held"] == 0
    assert after["rows_in"] == 600
    assert after["processed"] + after["dead_lettered"] + after["filtered"] + after["let_go"] == 600


SCRIPT = """
import sys, time
import quixframes as qf
address, raw, clean, group, where = sys.argv[1:]
with qf.StreamingClient(address) as client:
    with client.open_input_topic(raw, group, qf.CommitMode.Manual) as source, client.open_output_topic(clean) as sink:
        def model(frame):
            if frame["n"].iloc[0] >= 50:
                print("reached", flush=True)
                if where == "model":
                    time.sleep(60)
            return frame
        summary = qf.run(model, source, sink, rows=10, timeout=None)
        print(summary, flush=True)
print("left", flush=True)
"""


@pytest.mark.parametrize(("signal_name", "where"), [("SIGINT", "model"), ("SIGINT", "waiting"), ("SIGTERM", "waiting")])
def test_a_signal_ends_a_run_cleanly_with_what_is_finished_committed(
    client: qf.StreamingClient, make_topic: MakeTopic, broker_address: str, group: str, make_frame: MakeFrame,
    signal_name: str, where: str,
) -> None:  # fmt: skip
    """Promise 8: in the model and while nothing arrives; no traceback; and SIGTERM ends the program with its number."""
    raw, clean = make_topic(), make_topic()
    fill(client, raw, make_frame(60), "s")
    command = [sys.executable, "-c", SCRIPT, broker_address, raw, clean, group, where]
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "reached\n"
        if where == "waiting":
            time.sleep(0.5)  # so that the loop waits for rows; where it does not yet, the test holds as well
        started.send_signal(getattr(signal, signal_name))
        out, err = started.communicate(timeout=20)
    finally:
        started.kill()
    assert "Traceback" not in err
    if signal_name == "SIGINT":
        assert "ended by interrupt" in out
        assert out.endswith("left\n")
        assert started.returncode == 0
    else:
        assert started.returncode == 128 + 15
    with client.open_input_topic(raw, group) as source:
        left = qf.run(lambda frame: None, source, until="now").processed
    assert left == (10 if where == "model" else 0)


def test_closing_the_source_from_another_thread_ends_the_run(
    client: qf.StreamingClient, topic: str, group: str, make_frame: MakeFrame
) -> None:
    import threading

    fill(client, topic, make_frame(10), "s")
    source = client.open_input_topic(topic, group)
    found: list[qf.Summary] = []
    thread = threading.Thread(target=lambda: found.append(qf.run(lambda frame: None, source, rows=10)))
    thread.start()
    wait_for(lambda: source.rows_read == 10)
    source.close()
    thread.join(10)
    assert (found[0].processed, found[0].ended) == (10, "closed")
