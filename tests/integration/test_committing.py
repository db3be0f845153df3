"""Commits on a real Kafka: what was committed does not come again, and what was not does."""

from __future__ import annotations

import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pandas as pd
import pytest
from kafka import KafkaAdminClient, TopicPartition

import quixframes as qf
from quixframes import CommitMode, CommitSettings
from tests.integration.cluster import committed
from tests.waiting import wait_for

MakeFrame = Callable[..., pd.DataFrame]


def fill(client: qf.StreamingClient, topic: str, frames: dict[str, pd.DataFrame], rows: int) -> None:
    """Write several streams by turns, as messages of so many rows."""
    longest = max(map(len, frames.values()))
    with client.open_output_topic(topic) as output:
        for start in range(0, longest, rows):
            for stream, frame in frames.items():
                output.write(frame.iloc[start : start + rows], stream=stream)


def drain(client: qf.StreamingClient, topic: str, group: str, **rules: object) -> dict[str, list[int]]:
    """What the group has not committed, by stream."""
    seen: dict[str, list[int]] = {}
    with client.open_input_topic(topic, group, CommitMode.Manual) as read:
        for batch in read.batches(until="now", **rules):  # type: ignore[arg-type]
            seen.setdefault(batch.stream_id, []).extend(batch.frame["n"])
    return seen


@pytest.mark.parametrize(
    ("length", "message", "rows"),
    [(1000, 100, 30), (1000, 30, 100), (1000, 100, 100), (1000, 7, 13), (200, 200, 1)],
)
def test_committed_rows_do_not_come_again_and_all_others_do(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str, length: int, message: int, rows: int
) -> None:
    """A batch rarely ends where a message ends, and streams interleave: it is a matter of rows."""
    frames = {"a": make_frame(length), "b": make_frame(length), "c": make_frame(length // 2)}
    fill(client, topic, frames, message)
    done: dict[str, list[int]] = {stream: [] for stream in frames}
    randomness = random.Random(message * 1000 + rows)
    with client.open_input_topic(topic, group, CommitMode.Manual) as read:
        for batch in read.batches(rows=rows, timeout=None, until="now"):
            if randomness.random() < 0.6:
                batch.commit()
                done[batch.stream_id].extend(batch.frame["n"])
    left = drain(client, topic, group)
    for stream, frame in frames.items():
        assert sorted(done[stream] + left.get(stream, [])) == frame["n"].tolist()


def test_the_lag_is_right_for_kafka_s_own_tools(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    fill(client, topic, {"s": make_frame(100)}, 10)
    with client.open_input_topic(topic, group, CommitMode.Manual) as read:
        for batch in read.batches(rows=35, timeout=None, until="now"):
            batch.commit()
            rows = batch.frame["n"].iloc[-1] + 1
            assert committed(broker_address, group, topic) == {0: rows // 10}


def test_commit_of_the_topic_finishes_every_batch_handed_over(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, {"s": make_frame(100)}, 10)
    with client.open_input_topic(topic, group, CommitMode.Manual) as read:
        loop = read.batches(rows=15, timeout=None)
        for _ in range(3):
            next(loop)
        read.commit()
        next(loop)
    assert drain(client, topic, group) == {"s": list(range(45, 100))}


def test_what_holds_a_partition_back_and_since_when_can_be_read(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, {"slow": make_frame(10), "fast": make_frame(30)}, 10)
    with client.open_input_topic(topic, group, CommitMode.Manual) as read:
        assert read.holding().empty
        first, second, *_ = read.batches(rows=10, timeout=None, until="now")
        second.commit()
        held = read.holding().iloc[0]
        assert (held["partition"], held["offset"], held["stream"], held["rows"]) == (0, 0, "slow", 10)
        assert pd.Timestamp.now("UTC") - held["since"] < pd.Timedelta("1min")
        first.commit()
        assert read.holding().iloc[0]["stream"] == "fast"


# Automatic


def test_a_batch_counts_as_finished_when_the_loop_asks_for_the_next(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, {"s": make_frame(100)}, 10)
    with client.open_input_topic(topic, group) as read:
        loop = read.batches(rows=15, timeout=None)
        for _ in range(3):
            next(loop)
    assert drain(client, topic, group) == {"s": list(range(30, 100))}


def test_an_exception_in_the_loop_leaves_its_batch_uncommitted(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, {"s": make_frame(100)}, 10)
    with pytest.raises(ZeroDivisionError), client.open_input_topic(topic, group) as read:
        for batch in read.batches(rows=15, timeout=None):
            assert batch.frame["n"].iloc[0] != 30 or 1 / 0
    assert drain(client, topic, group) == {"s": list(range(30, 100))}


def test_automatic_commits_come_by_rows(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    fill(client, topic, {"s": make_frame(100)}, 10)
    told: queue.SimpleQueue[dict[qf.Partition, int]] = queue.SimpleQueue()
    settings, hooks = CommitSettings(every="1 hour", rows=40), qf.Hooks(committed=told.put)
    with client.open_input_topic(topic, group, settings, hooks=hooks) as read:
        for batch in read.batches(rows=20, timeout=None, until="now"):
            if batch.frame["n"].iloc[0] in (40, 80):
                assert told.get(timeout=10) == {(topic, 0): batch.frame["n"].iloc[0] // 10}
            assert told.empty()
        assert committed(broker_address, group, topic) == {0: 8}


def test_automatic_commits_come_by_time_also_while_nothing_arrives(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    fill(client, topic, {"s": make_frame(10)}, 10)
    told = threading.Event()
    hooks = qf.Hooks(committed=lambda offsets: told.set())
    with client.open_input_topic(topic, group, CommitSettings(every="300ms"), hooks=hooks) as read:
        list(read.batches(rows=10, idle="1s"))
        assert told.is_set()
        assert committed(broker_address, group, topic) == {0: 1}


def test_a_batch_of_an_automatic_topic_can_be_committed_by_hand(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, {"s": make_frame(20)}, 10)
    with client.open_input_topic(topic, group) as read:
        for batch in read.batches(rows=10, timeout=None):
            batch.commit()
            break
    assert drain(client, topic, group) == {"s": list(range(10, 20))}


# Without a group, and with outputs


def test_without_a_group_nothing_is_committed_and_commit_says_why(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    fill(client, topic, {"s": make_frame(20)}, 10)
    with client.open_input_topic(topic, None, CommitMode.Manual) as read:
        (batch,) = read.batches(until="now")
        with pytest.raises(qf.CommitError, match="consumer_group=None"):
            batch.commit()
        with pytest.raises(qf.CommitError, match="consumer_group=None"):
            read.commit()


def test_what_a_model_wrote_is_acknowledged_before_its_batch_is_committed(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame, group: str
) -> None:
    """Also what it wrote to a buffer that would have held it for an hour."""
    source, sink = make_topic(), make_topic()
    fill(client, source, {"s": make_frame(50)}, 10)
    with (
        client.open_input_topic(source, group, CommitMode.Manual) as read,
        client.open_output_topic(sink, buffer=qf.BufferSettings(timeout="1 hour")) as output,
    ):
        for rows, batch in enumerate(read.batches(rows=10, timeout=None, until="now"), 1):
            output.get_or_create_stream(batch.stream_id).parameters.buffer.write(batch.frame)
            batch.commit()
            assert len(client.replay(sink, progress=False).to_frame()) == 10 * rows


def test_a_failed_output_stops_the_commit(
    broker_address: str,
    client: qf.StreamingClient,
    make_topic: Callable[..., str],
    make_frame: MakeFrame,
    group: str,
) -> None:
    source, doomed = make_topic(), make_topic()
    fill(client, source, {"s": make_frame(10)}, 10)
    with qf.StreamingClient(broker_address, writer=qf.WriterSettings(delivery_timeout="1s")) as model:
        read = model.open_input_topic(source, group, CommitMode.Manual)
        output = model.open_output_topic(doomed)
        client.topics.delete(doomed)
        (batch,) = read.batches(until="now")
        output.write(batch.frame, stream="s")
        with pytest.raises(qf.DeliveryError, match="10 rows of stream 's'"):
            batch.commit()
        read.close()
    assert drain(client, source, group) == {"s": list(range(10))}


# Two instances


def test_a_second_instance_takes_over_from_the_first_uncommitted_row(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame, group: str
) -> None:
    topic = make_topic(partitions=4)
    frames = {f"s{n}": make_frame(200) for n in range(12)}
    fill(client, topic, frames, 20)
    done: dict[str, list[int]] = {stream: [] for stream in frames}
    first = client.open_input_topic(topic, group, CommitMode.Manual)
    for count, batch in enumerate(first.batches(rows=30, timeout=None, until="now")):
        if count >= 40:
            break
        batch.commit()
        done[batch.stream_id].extend(batch.frame["n"])
    second = client.open_input_topic(topic, group, CommitMode.Manual)
    deadline = time.monotonic() + 20
    while len(second.partitions) != 2 or len(first.partitions) != 2:
        assert time.monotonic() < deadline
        list(first.batches(rows=30, timeout=None, idle="10ms", max_rows=1))
    for instance in (first, second):
        for batch in instance.batches(rows=30, timeout=None, until="now"):
            batch.commit()
            done[batch.stream_id].extend(batch.frame["n"])
    first.close()
    second.close()
    left = drain(client, topic, group)
    for stream, frame in frames.items():
        assert sorted(done[stream] + left.get(stream, [])) == frame["n"].tolist()


def test_a_model_slower_than_the_session_keeps_its_partitions_and_commits(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    """The session ends after 6 s without a sign of life; the model takes 8 for its batch."""
    fill(client, topic, {"s": make_frame(10)}, 10)
    lost: list[str] = []
    hooks = qf.Hooks(revoked=lambda _: lost.append("revoked"), lost=lambda _: lost.append("lost"))
    reader = qf.ReaderSettings(session_timeout="6s")
    with client.open_input_topic(topic, group, CommitMode.Manual, reader=reader, hooks=hooks) as read:
        (batch,) = read.batches(until="now")
        threading.Event().wait(8)
        batch.commit()
        assert lost == []
        assert read.partitions == [(topic, 0)]
    assert drain(client, topic, group) == {}


def test_a_model_over_its_own_limit_gives_its_partitions_up(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, {"s": make_frame(20)}, 10)
    reader = qf.ReaderSettings(model_timeout="500ms")
    with client.open_input_topic(topic, group, CommitMode.Manual, reader=reader) as read:
        loop = read.batches(rows=10, timeout=None)
        next(loop)
        threading.Event().wait(1.5)
        with pytest.raises(qf.QuixframesError, match="model_timeout=0.5 s"):
            list(loop)


# A clean end


MODEL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in a shell's background
import quixframes as qf
address, source, sink, group = sys.argv[1:5]
with qf.StreamingClient(address) as client:
    output = client.open_output_topic(sink)
    with client.open_input_topic(source, group, qf.CommitSettings(every="1 hour", rows=10**9)) as read:
        for batch in read.batches(rows=10, timeout="50ms"):
            output.get_or_create_stream(batch.stream_id).parameters.buffer.write(batch.frame)
            print(len(batch), flush=True)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_ends_a_model_cleanly(
    client: qf.StreamingClient,
    make_topic: Callable[..., str],
    make_frame: MakeFrame,
    group: str,
    broker_address: str,
    number: signal.Signals,
    code: int,
) -> None:
    """What was finished is delivered and committed although no automatic commit was due, and the group is left: the
    next instance goes on at once, and every row comes exactly once."""
    source, sink = make_topic(), make_topic()
    fill(client, source, {"s": make_frame(100)}, 10)
    model = subprocess.Popen(
        [sys.executable, "-c", MODEL, broker_address, source, sink, group],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert model.stdout is not None
    assert sum(int(model.stdout.readline()) for _ in range(10)) == 100
    threading.Event().wait(0.2)  # it waits for more
    begun = time.monotonic()
    model.send_signal(number)
    _, errors = model.communicate(timeout=30)
    assert model.returncode == code, errors
    assert time.monotonic() - begun < 10
    assert client.replay(sink, progress=False).to_frame()["n"].tolist() == list(range(100))
    begun = time.monotonic()
    assert drain(client, source, group) == {}
    assert time.monotonic() - begun < 5


def test_a_program_that_closes_nothing_still_leaves_the_group_at_its_end(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    fill(client, topic, {"s": make_frame(10)}, 10)
    code = (
        "import sys, quixframes as qf\n"
        "client = qf.StreamingClient(sys.argv[1])\n"
        "topic = client.open_input_topic(sys.argv[2], sys.argv[3])\n"
        "print(sum(len(b) for b in topic.batches(until='now')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, broker_address, topic, group],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "10"
    begun = time.monotonic()
    assert drain(client, topic, group) == {}
    assert time.monotonic() - begun < 5


def test_nothing_is_left_of_a_closed_client(broker_address: str, topic: str, make_frame: MakeFrame, group: str) -> None:
    """No thread of a reader, a writer, a buffer or the client underneath."""
    before = set(threading.enumerate())
    with qf.StreamingClient(broker_address) as client:
        output = client.open_output_topic(topic)
        output.create_stream("s").parameters.buffer.write(make_frame(10))
        output.flush()
        read = client.open_input_topic(topic, group)
        assert sum(len(batch) for batch in read.batches(until="now")) == 10
        assert len(client.replay(topic, progress=False).to_frame()) == 10
    deadline = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert left == set()


def test_an_offset_is_plain_and_anybody_may_set_it_back(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    """As Kafka's own tool does: it writes an offset without a text, and that is where the group goes on."""
    from kafka.structs import OffsetAndMetadata

    fill(client, topic, {"s": make_frame(100)}, 10)
    with client.open_input_topic(topic, group) as read:
        list(read.batches(until="now"))
    admin = KafkaAdminClient(bootstrap_servers=broker_address)
    admin.alter_group_offsets(group, {TopicPartition(topic, 0): OffsetAndMetadata(4, "", -1)})
    admin.close()
    assert drain(client, topic, group) == {"s": list(range(40, 100))}


def test_an_automatic_topic_does_not_commit_batches_whose_results_were_lost(
    broker_address: str,
    client: qf.StreamingClient,
    make_topic: Callable[..., str],
    make_frame: MakeFrame,
    group: str,
) -> None:
    """The failure is told by a later call, here the model's next write: the loop has finished the first batch then."""
    source, doomed = make_topic(), make_topic()
    fill(client, source, {"s": make_frame(40)}, 10)
    with qf.StreamingClient(broker_address, writer=qf.WriterSettings(delivery_timeout="1s")) as model:
        read = model.open_input_topic(source, group, CommitSettings(every="1 hour", rows=10**6))
        output = model.open_output_topic(doomed)
        client.topics.delete(doomed)
        with pytest.raises(qf.DeliveryError):
            for n, batch in enumerate(read.batches(rows=10, timeout=None, until="now")):
                if n:
                    assert wait_for(lambda: output._failures)  # the first batch's results
                output.write(batch.frame, stream="s")
        read.close()
    assert drain(client, source, group) == {"s": list(range(40))}


def test_a_commit_says_whether_the_partition_was_still_ours(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    """The group is taken over by an instance that Kafka prefers, while this one's model has a batch in hand."""
    fill(client, topic, {"s": make_frame(20)}, 10)
    first = client.open_input_topic(topic, group, CommitMode.Manual)
    loop = first.batches(rows=10, timeout=None)
    batch = next(loop)
    assert batch.commit() is True
    batch = next(loop)
    first._poller._drop(frozenset(first._poller.assignments))  # what the thread does when it is told so
    assert batch.commit() is False
    loop.close()  # type: ignore[attr-defined]
    first.close()
    assert drain(client, topic, group) == {"s": list(range(10, 20))}


def test_a_model_over_its_limit_hands_its_partitions_to_another_instance(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    """Also where reading is paused, as it is behind a slow model."""
    fill(client, topic, {"s": make_frame(20_000)}, 5_000)
    reader = qf.ReaderSettings(model_timeout="1s", prefetch="100 kB")
    with client.open_input_topic(topic, group, CommitMode.Manual, reader=reader) as slow:
        loop = slow.batches(rows=5_000, timeout=None)
        next(loop)
        begun = time.monotonic()
        with client.open_input_topic(topic, group, CommitMode.Manual) as other:
            assert len(next(other.batches(rows=5_000))) == 5_000
            assert time.monotonic() - begun < 15


def test_a_closed_topic_says_so(client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str) -> None:
    fill(client, topic, {"s": make_frame(10)}, 10)
    read = client.open_input_topic(topic, group, CommitMode.Manual)
    (batch,) = read.batches(until="now")
    read.close()
    with pytest.raises(qf.ClosedError, match="open it again"):
        read.batches()
    with pytest.raises(qf.ClosedError, match="open it again"):
        batch.commit()


def test_settings_that_cannot_be_leave_no_reader_behind(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    client.topics.exists(topic)  # the client's own connection
    before = set(threading.enumerate())
    for arguments in ({"commit_settings": "x"}, {"auto_offset_reset": "x"}, {"start": "x"}):
        with pytest.raises(qf.SettingsError):
            client.open_input_topic(topic, group, **arguments)  # type: ignore[arg-type]
    assert set(threading.enumerate()) == before


def test_ctrl_c_at_any_moment_of_a_loop_loses_no_row_and_repeats_none(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    """As in a notebook: the cell is interrupted and run again, on the same topic object. Every row is handed over and
    finished exactly once, but for the batch in hand, which the model knows of."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell's background ignores it
    fill(client, topic, {"a": make_frame(12_000), "b": make_frame(12_000)}, 7)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    randomness = random.Random(5)
    interrupts = 0
    with client.open_input_topic(topic, group, CommitMode.Manual) as read:
        while True:
            timer = threading.Timer(randomness.uniform(0.0, 0.03), signal.raise_signal, [signal.SIGINT])
            loop, batch = read.batches(rows=50, timeout=None, until="now"), None
            try:
                timer.start()
                for batch in loop:
                    seen[batch.stream_id].extend(batch.frame["n"])
            except KeyboardInterrupt:
                interrupts += 1
                loop.close()  # type: ignore[attr-defined]
                if batch is not None:  # in hand, or done with: the model knows, and does the rest of it
                    seen[batch.stream_id].extend(batch.frame["n"])
                continue
            finally:
                timer.cancel()
                try:
                    timer.join()
                except KeyboardInterrupt:
                    interrupts += 1
            break
        read.commit()
        assert read.holding().empty
    signal.signal(signal.SIGINT, before)
    for rows in seen.values():
        assert sorted(set(rows)) == list(range(12_000))
    assert interrupts > 3


def test_a_clean_stop_in_the_middle_and_a_restart_deliver_every_row_exactly_once(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame, group: str
) -> None:
    """For buffers of any size over messages of any size, committed by hand or automatically."""
    randomness = random.Random(11)
    for mode in CommitMode:
        topic = make_topic(partitions=2)
        frames = {f"s{n}": make_frame(randomness.randint(500, 1500)) for n in range(4)}
        fill(client, topic, frames, randomness.randint(3, 200))
        seen: dict[str, list[int]] = {stream: [] for stream in frames}
        stops = 0
        while sum(map(len, seen.values())) < sum(map(len, frames.values())):
            rules = qf.BufferSettings(rows=randomness.randint(1, 700), timeout=None)
            with client.open_input_topic(topic, f"{group}-{mode.value}", mode) as read:
                for batch in read.batches(rules, until="now", max_rows=randomness.randint(1, 1500)):
                    seen[batch.stream_id].extend(batch.frame["n"])
                    if mode is CommitMode.Manual:
                        batch.commit()
            stops += 1
            assert stops < 60
        assert stops > 2
        assert seen == {stream: frame["n"].tolist() for stream, frame in frames.items()}
