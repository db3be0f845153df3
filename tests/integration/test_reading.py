"""Reading from a real Kafka: which rows come, in which batches, and how a loop ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pandas as pd
import pyarrow as pa
import pytest
from kafka import KafkaProducer

import quixframes as qf

MakeFrame = Callable[..., pd.DataFrame]


def fill(client: qf.StreamingClient, topic: str, frame: pd.DataFrame, stream: str = "s", rows: int = 100) -> None:
    """Write a frame as messages of so many rows."""
    with client.open_output_topic(topic) as output:
        for start in range(0, len(frame), rows):
            output.write(frame.iloc[start : start + rows], stream=stream)


@pytest.mark.parametrize("message", [1, 7, 100, 1000])
@pytest.mark.parametrize("rows", [1, 30, 999, 5000])
def test_batches_of_any_size_come_from_messages_of_any_size(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, message: int, rows: int
) -> None:
    frame = make_frame(1000)
    fill(client, topic, frame, rows=message)
    with client.open_input_topic(topic, None) as read:
        batches = list(read.batches(rows=rows, timeout=None, until="now"))
    assert [len(batch) for batch in batches[:-1]] == [rows] * (len(batches) - 1)
    back = pd.concat([batch.frame for batch in batches])
    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_freq=False)


def test_a_batch_says_where_it_comes_from(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    fill(client, topic, make_frame(250), stream="car-44", rows=100)
    with client.open_input_topic(topic, None) as read:
        first, last = read.batches(rows=150, until="now")
        assert (first.stream_id, first.partition, first.offsets, len(first)) == ("car-44", 0, (0, 1), 150)
        assert (last.offsets, len(last), last.reason) == ((1, 2), 100, "end")
        assert first.stream is last.stream is read.streams["car-44"]
        assert last.stream.rows == 250
        assert "car-44" in repr(first)
        assert "<table" in first._repr_html_()
        assert first.frame is first.frame


def test_a_batch_s_frame_may_be_changed(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    fill(client, topic, make_frame(10))
    with client.open_input_topic(topic, None) as read:
        (batch,) = read.batches(until="now")
        batch.frame["p0"] *= 2
        batch.frame.iloc[0, 1] = 7.0
        assert batch.frame.iloc[0, 1] == 7.0


def test_batches_are_cut_by_event_time(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    """A row each millisecond: a second is a thousand of them."""
    fill(client, topic, make_frame(3500), rows=333)
    with client.open_input_topic(topic, None) as read:
        assert [len(batch) for batch in read.batches(time_span="1s", timeout=None, until="now")] == [
            1000,
            1000,
            1000,
            500,
        ]


def test_streams_of_one_partition_are_batched_each_by_itself(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    with client.open_output_topic(topic) as output:
        for n in range(20):
            for stream in "abc":
                output.write(make_frame(10, start=n * 10), stream=stream)
    seen: dict[str, list[int]] = {}
    with client.open_input_topic(topic, None) as read:
        for batch in read.batches(rows=75, timeout=None, until="now"):
            seen.setdefault(batch.stream_id, []).extend(batch.frame["n"])
    assert seen == {stream: list(range(200)) for stream in "abc"}


def test_a_filter_removes_rows_and_a_trigger_releases(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, make_frame(100), rows=30)
    with client.open_input_topic(topic, group, qf.CommitMode.Manual) as read:
        batches = list(
            read.batches(
                filter=lambda f: f["n"] % 2 == 0, trigger=lambda f: f["n"] % 40 == 0, timeout=None, until="now"
            )
        )
        assert [batch.frame["n"].tolist() for batch in batches] == [
            [0],
            *([*range(a + 2, a + 42, 2)] for a in (0, 40)),
            [*range(82, 100, 2)],
        ]
        for batch in batches:
            batch.commit()
        assert read.holding().empty  # the filtered rows are finished as well


def test_a_batch_never_mixes_dtypes(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    with client.open_output_topic(topic) as output:
        output.write(make_frame(3), stream="s")
        output.write(make_frame(3).astype({"n": "float64"}), stream="s")
        output.write(make_frame(3).drop(columns="p0"), stream="s")
    with client.open_input_topic(topic, None) as read:
        batches = list(read.batches(until="now"))
    assert [(len(b), b.frame.shape[1], b.frame["n"].dtype.name) for b in batches] == [
        (3, 4, "int64"),
        (3, 4, "float64"),
        (3, 3, "int64"),
    ]


# Where it begins, where it ends


def test_a_new_group_starts_at_the_earliest_row_or_at_the_latest_if_asked(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, make_frame(10))
    with client.open_input_topic(topic, group) as read:
        assert sum(len(batch) for batch in read.batches(until="now")) == 10
    with client.open_input_topic(topic, f"{group}-late", auto_offset_reset="latest") as read:
        assert list(read.batches(idle="500ms")) == []
    # Where "latest" was is a place from then on: what came while nobody read is not skipped.
    fill(client, topic, make_frame(5))
    with client.open_input_topic(topic, f"{group}-late", auto_offset_reset="latest") as read:
        assert sum(len(batch) for batch in read.batches(until="now")) == 5


def test_start_chooses_a_moment_of_arrival(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, make_frame(10))
    threading.Event().wait(0.05)
    between = pd.Timestamp.now("UTC")
    threading.Event().wait(0.05)
    fill(client, topic, make_frame(3))
    for name in (group, None):
        with client.open_input_topic(topic, name, start=between) as read:
            assert sum(len(batch) for batch in read.batches(until="now")) == 3
    with pytest.raises(qf.SettingsError, match="not a moment"):
        client.open_input_topic(topic, group, start="yesteryear")


def test_until_now_ends_with_the_rows_that_were_there(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame
) -> None:
    """However many more are written meanwhile, and read ahead: those come first in the next loop."""
    topic = make_topic(partitions=2)
    for stream in ("a", "b", "c"):
        fill(client, topic, make_frame(100), stream, rows=10)
    with client.open_input_topic(topic, None) as read:
        loop = read.batches(rows=10, timeout=None, until="now")
        for stream in ("a", "b", "c"):
            fill(client, topic, make_frame(50, start=100), stream, rows=10)
        first: dict[str, list[int]] = {}
        for batch in loop:
            first.setdefault(batch.stream_id, []).extend(batch.frame["n"])
        assert first == {stream: list(range(100)) for stream in "abc"}
        second: dict[str, list[int]] = {}
        for batch in read.batches(rows=10, timeout=None, until="now"):
            second.setdefault(batch.stream_id, []).extend(batch.frame["n"])
        assert second == {stream: list(range(100, 150)) for stream in "abc"}


def test_latest_means_from_the_opening_on(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    """Also where the rows come before the group has settled."""
    fill(client, topic, make_frame(10))
    with client.open_input_topic(topic, group, auto_offset_reset="latest") as read:
        fill(client, topic, make_frame(7, start=10))
        assert [n for batch in read.batches(until="now") for n in batch.frame["n"]] == list(range(10, 17))


def test_joining_a_group_is_no_idle_time(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, make_frame(10))
    with client.open_input_topic(topic, group) as read:
        assert sum(len(batch) for batch in read.batches(idle="300ms", timeout=None)) == 10


def test_an_empty_topic_ends_at_once(client: qf.StreamingClient, topic: str, group: str) -> None:
    for name in (None, group):
        with client.open_input_topic(topic, name) as read:
            assert list(read.batches(until="now")) == []


def test_a_number_of_rows_ends_a_loop_and_the_next_goes_on(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    fill(client, topic, make_frame(100), rows=10)
    seen: list[int] = []
    with client.open_input_topic(topic, None) as read:
        for batch in read.batches(rows=15, timeout=None, max_rows=40):
            seen.extend(batch.frame["n"])
        assert len(seen) == 45
        for batch in read.batches(rows=20, timeout=None, until="now"):
            seen.extend(batch.frame["n"])
    assert seen == list(range(100))


def test_a_break_ends_a_loop_as_cleanly(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    fill(client, topic, make_frame(100), rows=10)
    seen: list[int] = []
    with client.open_input_topic(topic, None) as read:
        for batch in read.batches(rows=15, timeout=None):
            seen.extend(batch.frame["n"])
            break
        for batch in read.batches(rows=15, timeout=None, until="now"):
            seen.extend(batch.frame["n"])
    assert seen == list(range(100))


def test_an_idle_time_ends_a_loop(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    fill(client, topic, make_frame(10))
    begun = time.monotonic()
    with client.open_input_topic(topic, None) as read:
        assert sum(len(batch) for batch in read.batches(rows=100, timeout=None, idle="700ms")) == 10
    assert 0.7 <= time.monotonic() - begun < 10


def test_rows_are_released_by_wall_clock_while_nothing_arrives(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    fill(client, topic, make_frame(10))
    with client.open_input_topic(topic, None) as read:
        batch = next(read.batches(rows=1000, timeout="300ms"))
        assert (len(batch), batch.reason) == (10, "timeout")


def test_a_loop_runs_while_rows_are_still_being_written(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    frame = make_frame(2000)
    writer = threading.Thread(target=fill, args=(client, topic, frame), kwargs={"rows": 20})
    writer.start()
    with client.open_input_topic(topic, None) as read:
        back = pd.concat([batch.frame for batch in read.batches(rows=130, timeout="50ms", max_rows=2000)])
    writer.join()
    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_freq=False)


def test_a_topic_has_one_loop_at_a_time(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    fill(client, topic, make_frame(10))
    with client.open_input_topic(topic, None) as read:
        first = read.batches()
        next(first)
        with pytest.raises(qf.SettingsError, match="one at a time"):
            next(read.batches())
        first.close()  # type: ignore[attr-defined]


def test_prefetch_is_bounded(broker_address: str, make_topic: Callable[..., str], make_frame: MakeFrame) -> None:
    """A model that does not ask for more: what is read ahead stays near its limit, and all rows come in the end."""
    topic = make_topic()
    with qf.StreamingClient(broker_address) as client:
        fill(client, topic, make_frame(400_000), rows=20_000)  # some 13 MB
        with client.open_input_topic(topic, None, reader=qf.ReaderSettings(prefetch="2 MB")) as read:
            loop = read.batches(rows=20_000, timeout=None, until="now")
            rows = len(next(loop))
            threading.Event().wait(1.0)
            assert read.prefetched_bytes < 5_000_000
            assert rows + sum(len(batch) for batch in loop) == 400_000


# Trouble


def test_a_topic_that_does_not_exist_is_said_at_once(client: qf.StreamingClient) -> None:
    begun = time.monotonic()
    for group in ("g", None):
        with pytest.raises(qf.TopicNotFoundError, match="no-such-topic"):
            client.open_input_topic("no-such-topic", group)
    assert time.monotonic() - begun < 10


def test_a_topic_deleted_while_it_is_read_raises(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame, group: str
) -> None:
    topic = make_topic()
    fill(client, topic, make_frame(10))
    with client.open_input_topic(topic, group) as read:
        loop = read.batches(timeout="100ms", idle="20s")
        next(loop)
        client.topics.delete(topic)
        begun = time.monotonic()
        with pytest.raises(qf.TopicNotFoundError, match=topic):
            next(loop)
        assert time.monotonic() - begun < 12


def foreign(broker_address: str, topic: str) -> None:
    """Somebody else's message."""
    producer = KafkaProducer(bootstrap_servers=broker_address)
    producer.send(topic, key=b"s", value=b'{"speed": 3}')
    producer.flush()
    producer.close()


def test_a_message_of_somebody_else_s_raises_with_its_place_after_the_rows_before_it(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    fill(client, topic, make_frame(10))
    foreign(broker_address, topic)
    fill(client, topic, make_frame(10, start=10))
    rows = 0
    with client.open_input_topic(topic, group) as read:
        for _ in range(2):  # it is not passed over by trying again
            with pytest.raises(qf.ForeignMessageError) as caught:
                for batch in read.batches(rows=100, until="now"):
                    rows += len(batch)
            assert (caught.value.topic, caught.value.partition, caught.value.offset) == (topic, 0, 1)
    assert rows == 10


def test_a_message_of_somebody_else_s_can_be_skipped_and_is_counted(
    client: qf.StreamingClient,
    topic: str,
    make_frame: MakeFrame,
    group: str,
    broker_address: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill(client, topic, make_frame(10))
    foreign(broker_address, topic)
    fill(client, topic, make_frame(10, start=10))
    with (
        caplog.at_level(logging.WARNING, "quixframes"),
        client.open_input_topic(topic, group, qf.CommitMode.Manual, on_bad_message="skip") as read,
    ):
        seen = [n for batch in read.batches(until="now") for n in batch.frame["n"]]
        assert read.bad_messages == 1
        read.commit()
    assert seen == list(range(20))
    assert f"{topic}[0]@1" in caplog.text
    with client.open_input_topic(topic, group) as read:
        assert list(read.batches(until="now")) == []


def test_a_filter_that_raises_loses_no_row_and_repeats_none(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, make_frame(100), rows=10)
    broken = iter([False, False, True, False, True])

    def keep(frame: pd.DataFrame) -> pd.Series:
        if next(broken, False):
            raise ZeroDivisionError
        return frame["n"] >= 0

    seen: list[int] = []
    rules = qf.BufferSettings(rows=25, timeout=None, filter=keep)
    with client.open_input_topic(topic, group, qf.CommitMode.Manual) as read:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                for batch in read.batches(rules, until="now"):
                    seen.extend(batch.frame["n"])
        for batch in read.batches(rules, until="now"):
            seen.extend(batch.frame["n"])
        read.commit()
        assert read.holding().empty
    assert seen == list(range(100))


def test_a_row_that_waits_does_not_keep_its_whole_message_in_memory(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    """Sixty streams, each with a message of 1.6 MB of which one row is left over."""
    with client.open_output_topic(topic) as output:
        for n in range(60):
            output.write(make_frame(20_001, columns=9), stream=f"s{n}")
    pool = pa.default_memory_pool()
    with client.open_input_topic(topic, None, reader=qf.ReaderSettings(prefetch="4 MB")) as read:
        before, count = pool.bytes_allocated(), 0
        for batch in read.batches(rows=20_000, timeout=None, max_rows=60 * 20_000):
            count += len(batch)
        del batch
        assert count == 60 * 20_000
        assert pool.bytes_allocated() - before < 8_000_000
        assert sum(len(batch) for batch in read.batches(until="now")) == 60


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rows": 0}, "rows=0"),
        ({"timeout": "soon"}, "timeout='soon' is not a duration"),
        ({"time_span": -1}, "above zero"),
        ({"until": "tomorrow"}, "until='tomorrow'"),
        ({"max_rows": 1.5}, "max_rows=1.5"),
        ({"packet_size": 100}, "no setting 'packet_size': there are"),
        ({"buffer": qf.BufferSettings(), "rows": 5}, "either buffer= or its fields"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_the_call(
    client: qf.StreamingClient, topic: str, arguments: dict[str, object], text: str
) -> None:
    with client.open_input_topic(topic, None) as read, pytest.raises(qf.SettingsError, match=text):
        read.batches(**arguments)  # type: ignore[arg-type]


def test_opening_with_settings_that_cannot_be_is_refused(client: qf.StreamingClient, topic: str) -> None:
    for arguments, text in [
        ({"consumer_group": ""}, "no name"),
        ({"auto_offset_reset": "middle"}, "'earliest' or 'latest'"),
        ({"on_bad_message": "ignore"}, "'raise' or 'skip'"),
    ]:
        with pytest.raises(qf.SettingsError, match=text):
            client.open_input_topic(topic, **arguments)  # type: ignore[arg-type]


# Replay


def test_a_replay_gives_one_frame_of_the_streams_and_columns_asked_for(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame
) -> None:
    topic = make_topic(partitions=3)
    frames = {f"car-{n}": make_frame(100, start=n * 100) for n in range(6)}
    with client.open_output_topic(topic) as output:
        for stream, frame in frames.items():
            output.write(frame, stream=stream)
    whole = client.replay(topic, progress=False).to_frame()
    assert list(whole.columns) == ["stream", "p0", "p1", "p2", "n"]
    assert whole["stream"].dtype == "category"
    for stream, frame in frames.items():
        part = whole[whole["stream"] == stream].drop(columns="stream")
        pd.testing.assert_frame_equal(part, frame, check_exact=True, check_freq=False)
    some = client.replay(topic, streams=["car-2", "car-5"], columns=["n", "p1"], progress=False).to_frame(
        stream_column=None
    )
    expected = pd.concat([frames["car-2"], frames["car-5"]])[["n", "p1"]]
    pd.testing.assert_frame_equal(some, expected, check_exact=True, check_freq=False)


def test_a_replay_joins_no_group_and_commits_nothing(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    fill(client, topic, make_frame(10))
    replay = client.replay(topic, progress=False)
    for _ in range(2):
        (batch,) = replay.batches()
        assert len(batch) == 10
    with pytest.raises(qf.CommitError, match="no group"):
        batch.commit()


def test_a_replay_of_an_empty_topic_is_an_empty_frame(client: qf.StreamingClient, topic: str) -> None:
    frame = client.replay(topic, progress=False).to_frame()
    assert frame.empty
    assert frame.index.name == "time"
    assert list(client.replay(topic, progress=False)) == []


def test_a_replay_unites_messages_that_lack_a_column_and_refuses_dtypes_that_differ(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    with client.open_output_topic(topic) as output:
        output.write(make_frame(2), stream="a")
        output.write(make_frame(2).drop(columns="n"), stream="b")
    frame = client.replay(topic, progress=False).to_frame()
    assert frame["n"].dtype == "Int64"
    assert frame["n"].tolist()[:2] == [0, 1]
    assert frame["n"].isna().tolist() == [False, False, True, True]
    with client.open_output_topic(topic) as output:
        output.write(make_frame(2).astype({"p0": "float32"}), stream="c")
    with pytest.raises(qf.FrameError, match="'p0' is float64 in some messages and float32"):
        client.replay(topic, progress=False).to_frame()


def test_a_replay_for_a_column_that_is_nowhere_says_so(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    fill(client, topic, make_frame(10))
    with pytest.raises(qf.FrameError, match="has a column 'sped'"):
        client.replay(topic, columns=["n", "sped"], progress=False).to_frame()
    assert list(client.replay(topic, columns=["time", "n"], progress=False).to_frame().columns) == ["stream", "n"]


def test_a_replay_of_a_topic_that_does_not_exist_is_refused(client: qf.StreamingClient) -> None:
    with pytest.raises(qf.TopicNotFoundError):
        client.replay("no-such-topic")
