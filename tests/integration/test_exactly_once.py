"""Exactly once on a real Kafka: what a model wrote and what it read are committed together, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pandas as pd
import pytest

import quixframes as qf
from quixframes import CommitMode, CommitSettings
from tests.waiting import wait_for

MakeFrame = Callable[..., pd.DataFrame]
MakeTopic = Callable[..., str]


def fill(client: qf.StreamingClient, topic: str, frame: pd.DataFrame, streams: int) -> None:
    with client.open_output_topic(topic) as out:
        for start in range(0, len(frame), 50):
            for n in range(streams):
                out.write(frame.iloc[start : start + 50], stream=f"s{n}")


def written(client: qf.StreamingClient, topic: str) -> dict[str, list[int]]:
    """What counts in a topic, by stream."""
    frame = client.replay(topic, progress=False).to_frame()
    return {str(s): part["n"].tolist() for s, part in frame.groupby("stream", observed=True)} if len(frame) else {}


@pytest.fixture
def raw(make_topic: MakeTopic) -> str:
    return make_topic(partitions=3)


@pytest.fixture
def clean(make_topic: MakeTopic) -> str:
    return make_topic(partitions=3)


def test_what_a_model_writes_counts_with_its_commit_and_no_sooner(
    client: qf.StreamingClient, session_client: qf.StreamingClient, raw: str, clean: str, group: str,
    make_frame: MakeFrame,
) -> None:  # fmt: skip
    fill(client, raw, make_frame(100), 1)
    opened = client.open_input_topic(raw, group, CommitMode.Manual, exactly_once=True)
    with opened as source, client.open_output_topic(clean) as sink:
        for batch in source.batches(rows=50, timeout=None, until="now"):
            sink.write(batch.frame, stream="s0")
            sink.flush()  # acknowledged, and not yet counting
            before = written(session_client, clean).get("s0", [])
            assert len(before) == batch.frame["n"].iloc[0]
            assert batch.commit()
            assert written(session_client, clean).get("s0") == [*before, *batch.frame["n"]]


def test_what_was_committed_a_moment_ago_is_replayed_and_read_until_now(
    client: qf.StreamingClient, session_client: qf.StreamingClient, raw: str, clean: str, group: str,
    make_frame: MakeFrame,
) -> None:  # fmt: skip
    """Kafka marks the end of a transaction in each partition a moment after it has acknowledged the commit."""
    fill(client, raw, make_frame(1_000), 1)
    opened = client.open_input_topic(raw, group, CommitMode.Manual, exactly_once=True)
    count = 0
    with opened as source, client.open_output_topic(clean) as sink:
        for batch in source.batches(rows=50, timeout=None, until="now"):
            sink.write(batch.frame, stream=f"s{count % 9}")
            assert batch.commit()
            count += 1
            assert len(session_client.replay(clean, progress=False).to_frame()) == 50 * count
    with session_client.open_input_topic(clean, f"{group}-next") as results:
        assert sum(len(batch) for batch in results.batches(until="now")) == 1_000


@pytest.mark.parametrize("mode", list(CommitMode))
def test_a_model_that_raises_leaves_nothing_behind_and_its_rows_come_again_to_the_same_instance(
    client: qf.StreamingClient, raw: str, clean: str, group: str, make_frame: MakeFrame, mode: CommitMode
) -> None:
    """Also what it left in the buffers of its outputs; and their readers miss no message."""
    fill(client, raw, make_frame(500), 4)
    failures = 0
    settings = CommitSettings(mode, every="1 hour", rows=150)
    opened = client.open_input_topic(raw, group, settings, exactly_once=True)
    buffer = qf.BufferSettings(rows=70, timeout=None)
    with opened as source, client.open_output_topic(clean, buffer=buffer) as sink:
        for attempt in range(4):
            try:
                for count, batch in enumerate(source.batches(rows=30, timeout=None, until="now")):
                    stream = sink.get_or_create_stream(batch.stream_id)
                    stream.parameters.buffer.write(batch.frame)
                    if attempt < 3 and count == 7 * (attempt + 1):
                        raise ZeroDivisionError
                    if mode is CommitMode.Manual:
                        batch.commit()
            except ZeroDivisionError:
                failures += 1
        accounts = source.accounts().sum()
        assert failures == 3
        assert accounts["rows_in"] == accounts["processed"] + accounts["let_go"]
        assert accounts["processed"] == 2_000
    done = {f"s{n}": list(range(500)) for n in range(4)}
    wait_for(lambda: written(client, clean) == done)
    assert written(client, clean) == done
    with client.open_input_topic(clean, group) as read:
        for _ in read.batches(until="now"):
            pass
        assert read.sequence_faults.empty


def test_a_commit_is_of_everything_that_was_handed_over(
    client: qf.StreamingClient, raw: str, group: str, make_frame: MakeFrame
) -> None:
    """What a model wrote for one batch cannot be told from what it wrote for another."""
    fill(client, raw, make_frame(100), 1)
    with client.open_input_topic(raw, group, CommitMode.Manual, exactly_once=True) as source:
        batches = []
        for batch in source.batches(rows=50, timeout=None, until="now"):
            batches.append(batch)
            if len(batches) == 2:
                with pytest.raises(qf.CommitError, match=r"topic.commit\(\)"):
                    batch.commit()
                assert source.commit()
        assert source.accounts().sum()["processed"] == 100


def test_what_is_written_outside_a_loop_counts_when_the_topic_is_closed_and_at_once_afterwards(
    client: qf.StreamingClient, session_client: qf.StreamingClient, raw: str, clean: str, group: str,
    make_frame: MakeFrame,
) -> None:  # fmt: skip
    with client.open_output_topic(clean) as sink:
        sink.write(make_frame(10), stream="before")
        with client.open_input_topic(raw, group, exactly_once=True):
            sink.write(make_frame(10), stream="in")
            sink.flush()
            assert set(written(session_client, clean)) == {"before"}
        assert wait_for(lambda: set(written(session_client, clean)) == {"before", "in"})
        sink.write(make_frame(10), stream="after")
        sink.flush()
        assert set(written(session_client, clean)) == {"before", "in", "after"}


def test_settings_that_cannot_be_exactly_once_are_refused(
    client: qf.StreamingClient, raw: str, clean: str, group: str, broker_address: str
) -> None:
    with pytest.raises(qf.SettingsError, match="needs a consumer group"):
        client.open_input_topic(raw, None, exactly_once=True)
    with (
        client.open_input_topic(raw, group, exactly_once=True),
        pytest.raises(qf.SettingsError, match="another topic exactly once already"),
    ):
        client.open_input_topic(clean, group, exactly_once=True)
    client.open_input_topic(clean, group, exactly_once=True).close()  # the first is closed
    settings = qf.WriterSettings(transaction_timeout="1 hour")
    with (
        qf.StreamingClient(broker_address, writer=settings) as other,
        pytest.raises(qf.SettingsError, match=r"transaction\.max\.timeout\.ms"),
    ):
        other.open_input_topic(raw, group, exactly_once=True)


MODEL = """
import sys, time
import quixframes as qf
address, raw, clean, group = sys.argv[1:]
writer = qf.WriterSettings(transaction_timeout="10s")
with qf.StreamingClient(address, writer=writer) as client:
    reader = qf.ReaderSettings(session_timeout="6s")
    commit = qf.CommitSettings(every="50ms")
    with client.open_input_topic(raw, group, commit, exactly_once=True, reader=reader) as source:
        with client.open_output_topic(clean) as sink:
            def told(batch, result):
                print(batch.stream_id, flush=True)
                time.sleep(0.005)
            print(qf.run(lambda frame: frame, source, sink, rows=20, timeout=None, until="now", on_batch=told))
print("left")
"""


@contextmanager
def model(broker_address: str, raw: str, clean: str, group: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", MODEL, broker_address, raw, clean, group]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def read_lines(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout is not None
    for _ in range(count):
        assert process.stdout.readline()


def test_killed_instances_leave_every_row_once_in_the_output(
    client: qf.StreamingClient, raw: str, clean: str, group: str, make_frame: MakeFrame, broker_address: str
) -> None:
    fill(client, raw, make_frame(1_000), 4)
    for batches in (30, 25, 41):
        with model(broker_address, raw, clean, group) as started:
            read_lines(started, batches)
            started.kill()
    with model(broker_address, raw, clean, group) as last:
        out, _ = last.communicate(timeout=60)
        assert out.endswith("left\n")
    # What the killed ones left open holds readers up until it times out.
    done = {f"s{n}": list(range(1_000)) for n in range(4)}
    wait_for(lambda: written(client, clean) == done, 60)
    assert written(client, clean) == done


def test_an_instance_that_wakes_up_after_it_was_replaced_cannot_make_anything_count(
    client: qf.StreamingClient, raw: str, clean: str, group: str, make_frame: MakeFrame, broker_address: str
) -> None:
    """It was stopped in the middle of a transaction, and its session is over when it goes on."""
    fill(client, raw, make_frame(1_000), 4)
    with ExitStack() as stack:
        first = stack.enter_context(model(broker_address, raw, clean, group))
        read_lines(first, 20)
        os.kill(first.pid, signal.SIGSTOP)
        second = stack.enter_context(model(broker_address, raw, clean, group))
        out, _ = second.communicate(timeout=90)  # it has to wait for the partitions, and for the transaction's end
        assert out.endswith("left\n")
        os.kill(first.pid, signal.SIGCONT)
        first.communicate(timeout=60)
    done = {f"s{n}": list(range(1_000)) for n in range(4)}
    wait_for(lambda: written(client, clean) == done, 60)
    assert written(client, clean) == done


def test_partitions_that_move_between_instances_leave_every_row_once_in_the_output(
    broker_address: str, client: qf.StreamingClient, raw: str, clean: str, group: str, make_frame: MakeFrame
) -> None:
    """One instance works; another joins, works, and leaves."""
    fill(client, raw, make_frame(2_000), 6)

    def work(stop: threading.Event, summaries: list[qf.Summary]) -> None:
        with qf.StreamingClient(broker_address) as own:
            opened = own.open_input_topic(raw, group, CommitSettings(every="50ms"), exactly_once=True)
            with opened as source, own.open_output_topic(clean) as sink:

                def told(batch: qf.RowBatch, result: object) -> None:
                    stop.wait(0.002 if both.is_set() else 0.02)

                while not stop.is_set():
                    bounds = {"duration": "500ms", "rows": 20, "timeout": None}
                    summaries.append(qf.run(lambda f: f, source, sink, on_batch=told, **bounds))  # type: ignore[arg-type]

    both = threading.Event()  # the second has worked too; before, the first is not to be through
    stops = [threading.Event(), threading.Event()]
    summaries: list[list[qf.Summary]] = [[], []]
    threads = [threading.Thread(target=work, args=each) for each in zip(stops, summaries, strict=True)]
    threads[0].start()
    assert wait_for(lambda: summaries[0], 60)
    threads[1].start()
    assert wait_for(lambda: sum(s.processed for s in summaries[1]) > 0, 60)
    both.set()
    stops[1].set()
    threads[1].join(60)
    assert wait_for(lambda: sum(s.processed for each in summaries for s in each) >= 12_000, 120)
    stops[0].set()
    threads[0].join(60)
    assert written(client, clean) == {f"s{n}": list(range(2_000)) for n in range(6)}
    assert sum(s.processed for each in summaries for s in each) == 12_000


def test_what_is_written_for_batches_of_before_an_abort_does_not_count(
    client: qf.StreamingClient, broker_address: str, raw: str, clean: str, group: str, make_frame: MakeFrame
) -> None:
    """Several batches are out when a partition of theirs goes; the model, which nobody has told, goes on with them."""
    frame, rows = make_frame(50_000), 100
    fill(client, raw, frame[:rows], 8)
    opened = client.open_input_topic(raw, group, CommitMode.Manual, exactly_once=True)
    with opened as source, client.open_output_topic(clean) as sink:
        loop = source.batches(rows=50, timeout=None)
        stale = [next(loop) for _ in range(6)]
        own = qf.StreamingClient(broker_address)  # what this client writes is part of the transaction
        with own as writer, client.open_input_topic(raw, group, CommitMode.Manual) as other:
            while not other.partitions:
                fill(writer, raw, frame[rows : rows + 50], 8)
                rows += 50
                stale.append(next(loop))  # the loop hands partitions over between two batches
            for batch in stale:
                sink.write(batch.frame, stream=batch.stream_id)
            assert not source.commit()
        loop.close()
        assert wait_for(lambda: len(source.partitions) == 3, 60)
        for batch in source.batches(rows=50, timeout=None, until="now"):
            sink.write(batch.frame, stream=batch.stream_id)
            assert batch.commit()
        done = {f"s{n}": list(range(rows)) for n in range(8)}
        assert wait_for(lambda: written(client, clean) == done, 60)


def test_a_rejected_batch_whose_partition_went_is_not_among_the_dead_letters(
    client: qf.StreamingClient, raw: str, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    """Its rows are somebody else's by then, who may well process them."""
    dead = make_topic()
    fill(client, raw, make_frame(50), 8)
    reader = qf.ReaderSettings(revoke_timeout="500ms")
    opened = client.open_input_topic(raw, group, CommitMode.Manual, exactly_once=True, dead_letters=dead, reader=reader)
    with opened as source:
        loop = source.batches(rows=50, timeout=None)
        batches = [next(loop) for _ in range(8)]
        with client.open_input_topic(raw, group, CommitMode.Manual) as other:
            assert wait_for(lambda: other.partitions, 60)
            assert wait_for(lambda: not set(other.partitions) & set(source.partitions))
            for batch in batches:
                source.reject(batch, ValueError("no"))
            assert not source.commit()
        loop.close()
        assert client.dead_letters(dead).empty
        accounts = source.accounts().sum()
        assert accounts["dead_lettered"] == 0
        assert accounts["rows_in"] == accounts.drop("rows_in").sum()


def test_closing_from_another_thread_makes_nothing_count_of_the_batch_in_hand(
    client: qf.StreamingClient, raw: str, clean: str, group: str, make_frame: MakeFrame
) -> None:
    fill(client, raw, make_frame(50), 1)
    source = client.open_input_topic(raw, group, exactly_once=True)
    with client.open_output_topic(clean) as sink:
        loop = source.batches(rows=50, timeout=None)
        batch = next(loop)
        closing = threading.Thread(target=source.close)
        closing.start()
        closing.join(30)
        with pytest.raises(qf.QuixframesError):
            sink.write(batch.frame, stream="s0")
            sink.flush()
        assert next(loop, None) is None
        sink.write(make_frame(10), stream="afterwards")
        sink.flush()
        assert wait_for(lambda: set(written(client, clean)) == {"afterwards"})
    with client.open_input_topic(raw, group) as again:
        assert sum(len(batch) for batch in again.batches(until="now")) == 50
