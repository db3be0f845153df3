"""Writing to a real Kafka: what goes in comes out, whole, in order, and nothing fails in silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import quixframes as qf
from tests.pure.messages import rich_frame

MakeFrame = Callable[..., pd.DataFrame]


def read_back(client: qf.StreamingClient, topic: str) -> dict[str, pd.DataFrame]:
    """Every stream of a topic as a DataFrame."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for batch in client.replay(topic, progress=False).batches(timeout=None):
        parts.setdefault(batch.stream_id, []).append(batch.frame)
    return {stream: pd.concat(frames) for stream, frames in parts.items()}


def raw_messages(client: qf.StreamingClient, topic: str) -> list[pd.DataFrame]:
    """A DataFrame for each message: batches that a message never shares with another."""
    with client.open_input_topic(topic, None) as read:
        by_offset: dict[int, list[pd.DataFrame]] = {}
        for batch in read.batches(rows=1, until="now"):
            by_offset.setdefault(batch.offsets[0], []).append(batch.frame)
    return [pd.concat(by_offset[offset]) for offset in sorted(by_offset)]


@pytest.mark.parametrize("make", [rich_frame, lambda: rich_frame().iloc[:1]], ids=["three rows", "one row"])
def test_a_frame_in_is_exactly_these_rows_out(
    client: qf.StreamingClient, topic: str, make: Callable[[], pd.DataFrame]
) -> None:
    frame = make()
    with client.open_output_topic(topic) as output:
        output.get_or_create_stream("car-44").parameters.write(frame)
    pd.testing.assert_frame_equal(read_back(client, topic)["car-44"], frame, check_exact=True)


def test_a_mixed_frame_goes_to_one_stream_for_each_value_of_a_column(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame
) -> None:
    topic = make_topic(partitions=3)
    frame = make_frame(1000).assign(car=np.random.default_rng(1).choice(["a", "b", "c"], 1000))
    with client.open_output_topic(topic) as output:
        output.write(frame, by="car")
        assert set(output.streams) == {"a", "b", "c"}
    back = read_back(client, topic)
    for car, rows in frame.groupby("car"):
        pd.testing.assert_frame_equal(back[str(car)], rows.drop(columns="car"), check_exact=True, check_freq=False)


def test_a_fault_in_one_stream_s_rows_stops_a_mixed_frame_as_a_whole(client: qf.StreamingClient, topic: str) -> None:
    """The rows of stream a are good on their own; those of b mix text and numbers."""
    times = pd.to_datetime([0, 1, 2], unit="ns", utc=True)
    frame = pd.DataFrame({"time": times, "car": ["a", "b", "b"], "x": pd.Series(["u", "v", 3], dtype=object)})
    with client.open_output_topic(topic) as output:
        with pytest.raises(qf.FrameError, match="'x'"):
            output.write(frame, by="car")
        output.flush()
    assert read_back(client, topic) == {}


def test_a_stream_stays_in_one_partition_where_kafka_s_java_client_would_put_it(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame
) -> None:
    """murmur2 of the key, as Kafka's own test vectors have it for "21", "foobar" and
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"."""
    hashes = {"21": -973932308, "foobar": -790332482, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971}
    topic = make_topic(partitions=7)
    with client.open_output_topic(topic) as output:
        for stream in hashes:
            for _ in range(3):
                output.write(make_frame(2), stream=stream)
    found = {(b.stream_id, b.partition) for b in client.replay(topic, progress=False).batches(rows=1)}
    assert found == {(stream, (value & 0x7FFFFFFF) % 7) for stream, value in hashes.items()}


def test_frames_over_the_topic_s_limit_are_cut_by_rows(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame
) -> None:
    topic = make_topic(message_limit="100 kB")
    frame = make_frame(50_000)
    with client.open_output_topic(topic) as output:
        output.write(frame, stream="s")
        assert output.messages_written >= 50_000 * 5 * 8 / 100_000
    pd.testing.assert_frame_equal(read_back(client, topic)["s"], frame, check_exact=True, check_freq=False)


def test_one_row_over_the_limit_raises_and_the_topic_goes_on(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame
) -> None:
    topic = make_topic(message_limit="20 kB")
    large = make_frame(3).assign(text=pd.array(["a", "b" * 30_000, "c"], dtype="string[python]"))
    with client.open_output_topic(topic) as output:
        with pytest.raises(qf.MessageTooLargeError, match="row 1 alone"):
            output.write(large, stream="s")
        output.write(make_frame(3), stream="s")
    assert len(read_back(client, topic)["s"]) == 3


def test_a_frame_that_cannot_be_carried_leaves_nothing_behind(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    with client.open_output_topic(topic) as output:
        stream = output.create_stream("s")
        for write in (stream.parameters.write, stream.parameters.buffer.write):
            with pytest.raises(qf.FrameError, match="'z'"):
                write(make_frame(3).assign(z=pd.Series([1, "a", None], dtype=object).to_numpy()))
        assert len(stream.parameters.buffer) == 0
    assert read_back(client, topic) == {}


# Buffers


def test_a_buffer_s_rows_leave_together(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    frame = make_frame(1000)
    with client.open_output_topic(topic, buffer=qf.BufferSettings(rows=300, timeout=None)) as output:
        buffer = output.create_stream("s").parameters.buffer
        for start in range(0, 1000, 10):
            buffer.write(frame.iloc[start : start + 10])
        assert len(buffer) == 100
    assert [len(message) for message in raw_messages(client, topic)] == [300, 300, 300, 100]
    pd.testing.assert_frame_equal(read_back(client, topic)["s"], frame, check_exact=True, check_freq=False)


def test_a_buffer_leaves_by_wall_clock_without_another_write(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    with (
        client.open_input_topic(topic, None) as read,
        client.open_output_topic(topic, buffer=qf.BufferSettings(timeout="200ms")) as output,
    ):
        begun = time.monotonic()
        output.create_stream("s").parameters.buffer.write(make_frame(3))
        batch = next(read.batches(rows=3))
        assert len(batch) == 3
        assert 0.2 <= time.monotonic() - begun < 5


def test_a_direct_write_does_not_overtake_what_the_buffer_holds(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    frame = make_frame(30)
    with client.open_output_topic(topic) as output:
        stream = output.create_stream("s")
        stream.parameters.buffer.write(frame.iloc[:10])
        stream.parameters.write(frame.iloc[10:20])
        stream.parameters.buffer.write(frame.iloc[20:])
    pd.testing.assert_frame_equal(read_back(client, topic)["s"], frame, check_exact=True, check_freq=False)


def test_single_rows_as_dicts_and_numpy_scalars_are_collected(client: qf.StreamingClient, topic: str) -> None:
    with client.open_output_topic(topic) as output:
        buffer = output.create_stream("s").parameters.buffer
        for n in range(500):
            buffer.write({"time": np.datetime64(n, "ns"), "speed": np.float64(n), "gear": n % 6, "on": np.bool_(n % 2)})
        buffer.write(
            [{"time": pd.Timestamp(n, unit="ns"), "speed": float(n), "gear": 1, "on": True} for n in (500, 501)]
        )
        assert len(buffer) == 502
    back = read_back(client, topic)["s"]
    assert back["speed"].tolist() == [float(n) for n in range(502)]
    assert back["on"].dtype == bool
    assert len(raw_messages(client, topic)) == 1


def test_one_bad_dict_raises_and_the_others_are_kept(client: qf.StreamingClient, topic: str) -> None:
    with client.open_output_topic(topic) as output:
        buffer = output.create_stream("s").parameters.buffer
        buffer.write({"time": pd.Timestamp(0, unit="ns"), "x": 1.0})
        with pytest.raises(qf.FrameError, match="has no time"):
            buffer.write({"x": 2.0})
        buffer.write({"time": pd.Timestamp(1, unit="ns"), "x": 3.0})
        buffer.write({"time": pd.Timestamp(2, unit="ns"), "x": object()})
        with pytest.raises(qf.FrameError, match="'x'"):
            buffer.flush()
    assert read_back(client, topic)["s"]["x"].tolist() == [1.0, 3.0]


# Streams


def test_a_client_closes_a_topic_to_which_nothing_was_written(broker_address: str, topic: str) -> None:
    with qf.StreamingClient(broker_address) as client:
        client.open_output_topic(topic)


def test_streams_are_created_found_and_closed(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    with client.open_output_topic(topic) as output:
        stream = output.create_stream("s")
        assert output.get_stream("s") is output.get_or_create_stream("s") is stream
        with pytest.raises(qf.StreamExistsError, match="'s' is open"):
            output.create_stream("s")
        with pytest.raises(qf.StreamNotFoundError, match="no stream 'x'"):
            output.get_stream("x")
        first, second = output.create_stream(), output.create_stream()
        assert first.stream_id != second.stream_id
        stream.parameters.buffer.write(make_frame(4))
        stream.close()
        with pytest.raises(qf.ClosedError, match="stream 's'"):
            stream.parameters.write(make_frame(1))
        output.create_stream("s").parameters.write(make_frame(1))
    assert len(read_back(client, topic)["s"]) == 5
    with pytest.raises(qf.ClosedError, match="is closed"):
        output.write(make_frame(1), stream="s")
    output.close()  # a second time does nothing


@pytest.mark.parametrize("name", ["", 7, b"car", "\ud800", None])
def test_a_stream_s_id_is_text_that_is_not_empty(client: qf.StreamingClient, topic: str, name: object) -> None:
    with client.open_output_topic(topic) as output, pytest.raises(qf.SettingsError):
        output.get_or_create_stream(name)  # type: ignore[arg-type]


def test_many_threads_may_write_to_a_topic_and_to_one_stream(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame
) -> None:
    """Rows of each thread's own stream keep their order; in the shared one each write stays whole."""
    topic = make_topic(partitions=3)
    with client.open_output_topic(topic) as output:
        started = threading.Barrier(8)

        def work(thread: int) -> None:
            started.wait()
            for n in range(40):
                output.write(make_frame(25, start=n * 25), stream=f"own-{thread}")
                output.get_or_create_stream("shared").parameters.buffer.write(
                    make_frame(5, start=thread * 1000 + n * 5)
                )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    back = read_back(client, topic)
    for thread in range(8):
        assert back[f"own-{thread}"]["n"].tolist() == list(range(1000))
    shared = back["shared"]["n"].to_numpy()
    assert sorted(shared) == sorted(thread * 1000 + n for thread in range(8) for n in range(200))
    assert (shared.reshape(-1, 5) % 5 == np.arange(5)).all()


def test_every_message_of_a_stream_carries_the_next_number(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame, broker_address: str
) -> None:
    """What a reader will notice a gap by: read here with kafka-python alone."""
    from kafka import KafkaConsumer, TopicPartition

    topic = make_topic(message_limit="20 kB")
    with client.open_output_topic(topic) as output:
        for _ in range(3):
            output.write(make_frame(2_000), stream="s")
    consumer = KafkaConsumer(bootstrap_servers=broker_address, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    headers: list[dict[str, bytes]] = []
    while len(headers) < output.messages_written:
        for records in consumer.poll(1000).values():
            headers += [dict(record.headers) for record in records]
    consumer.close()
    assert [int(h["qf.sequence"]) for h in headers] == list(range(len(headers)))
    assert len({h["qf.session"] for h in headers}) == 1
    assert sum(int(h["qf.rows"]) for h in headers) == 6_000


# Errors


def test_write_needs_a_stream_or_a_column(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    with client.open_output_topic(topic) as output:
        for arguments in ({}, {"stream": "s", "by": "n"}):
            with pytest.raises(qf.SettingsError, match="either stream="):
                output.write(make_frame(1), **arguments)


def test_a_topic_that_does_not_exist_is_said_at_once(client: qf.StreamingClient) -> None:
    begun = time.monotonic()
    with pytest.raises(qf.TopicNotFoundError, match="no-such-topic"):
        client.open_output_topic("no-such-topic")
    assert time.monotonic() - begun < 10


def test_an_address_where_nothing_listens_is_said_within_seconds() -> None:
    begun = time.monotonic()
    with qf.StreamingClient("127.0.0.1:1") as client, pytest.raises(qf.BrokerUnavailableError, match="127.0.0.1:1"):
        client.open_output_topic("engine")
    assert time.monotonic() - begun < 10


def test_a_topic_deleted_while_it_is_written_to_fails_its_rows_and_no_other_topic(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame, broker_address: str
) -> None:
    doomed, sound = make_topic(), make_topic()
    settings = qf.WriterSettings(delivery_timeout="4s")
    with qf.StreamingClient(broker_address, writer=settings) as writer:
        bad, good = writer.open_output_topic(doomed), writer.open_output_topic(sound)
        bad.write(make_frame(2), stream="s")
        bad.flush()
        client.topics.delete(doomed)
        bad.write(make_frame(3), stream="lost")
        good.write(make_frame(4), stream="s")
        good.flush()
        with pytest.raises(qf.DeliveryError, match="3 rows of stream 'lost'") as caught:
            bad.flush()
        assert (caught.value.topic, caught.value.stream_id, caught.value.rows) == (doomed, "lost", 3)
        good.write(make_frame(1), stream="s")
    assert len(read_back(client, sound)["s"]) == 5


def test_leaving_the_block_by_an_error_sends_what_was_accepted(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    with pytest.raises(ZeroDivisionError), client.open_output_topic(topic) as output:
        output.create_stream("s").parameters.buffer.write(make_frame(3))
        raise ZeroDivisionError
    assert len(read_back(client, topic)["s"]) == 3


def test_objects_say_what_they_are(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    with client.open_output_topic(topic) as output:
        output.write(make_frame(3), stream="s")
        assert "1 streams open, 3 rows written" in repr(output)
        assert "<b>" in output._repr_html_()
        assert "'s'" in repr(output.get_stream("s"))
    assert "closed" in repr(output)
    assert "0 outputs" in repr(client)


def test_one_stream_s_bad_row_keeps_no_other_stream_s_rows_from_being_sent_at_close(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    output = client.open_output_topic(topic)
    bad = output.create_stream("bad").parameters.buffer
    bad.write([{"time": 0, "x": 1.0}, {"time": 1, "x": object()}, {"time": 2, "x": 3.0}])
    output.create_stream("good").parameters.buffer.write(make_frame(6))
    with pytest.raises(qf.FrameError, match="buffer of stream 'bad'"):
        output.close()
    back = read_back(client, topic)
    assert (len(back["good"]), back["bad"]["x"].tolist()) == (6, [1.0, 3.0])


def test_a_bad_row_that_only_the_clock_meets_is_told_by_the_next_call(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    with client.open_output_topic(topic, buffer=qf.BufferSettings(timeout="50ms")) as output:
        output.create_stream("s").parameters.buffer.write([{"time": 0, "x": 1.0}, {"time": 1, "x": object()}])
        threading.Event().wait(1)
        with pytest.raises(qf.DeliveryError, match="1 rows of stream 's'.*was left out"):
            output.flush()
    assert read_back(client, topic)["s"]["x"].tolist() == [1.0]


def test_the_block_s_own_error_is_the_one_that_is_seen(
    client: qf.StreamingClient, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError), client.open_output_topic(topic) as output:
        output.create_stream("s").parameters.buffer.write({"time": 0, "x": object()})
        raise ZeroDivisionError
    assert "buffer of stream 's'" in caplog.text


@pytest.mark.parametrize("time", [None, "2026-01-01", b"now"])
def test_a_row_whose_time_is_no_time_is_refused_where_it_is_written(
    client: qf.StreamingClient, topic: str, time: object
) -> None:
    with client.open_output_topic(topic) as output:
        buffer = output.create_stream("s").parameters.buffer
        with pytest.raises(qf.FrameError, match="is no time"):
            buffer.write({"Time": time, "x": 1.0})
        assert len(buffer) == 0


def test_one_oversized_row_spoils_no_other_of_the_buffer(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame
) -> None:
    topic = make_topic(message_limit="20 kB")
    text = pd.array(["a", "b" * 30_000, "c"], dtype="string[python]")
    with client.open_output_topic(topic) as output:
        buffer = output.create_stream("s").parameters.buffer
        buffer.write(make_frame(100).assign(text="x"))
        with pytest.raises(qf.MessageTooLargeError, match="row 1 alone"):
            buffer.write(make_frame(3).assign(text=text))
        assert len(buffer) == 100
    assert len(read_back(client, topic)["s"]) == 100


def test_closing_loses_nothing_that_another_thread_has_written(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame
) -> None:
    """A write is either accepted, and then delivered, or it raises ClosedError."""
    for _ in range(5):
        topic = make_topic()
        output = client.open_output_topic(topic)
        started, accepted = threading.Event(), 0

        def work(output: qf.OutputTopic = output, started: threading.Event = started) -> int:
            count = 0
            try:
                while True:
                    output.get_or_create_stream("s").parameters.buffer.write(make_frame(5))
                    count += 5
                    started.set()
            except qf.ClosedError:
                return count

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(work)
            assert started.wait(10)
            output.close()
            accepted = writing.result()
        assert len(read_back(client, topic)["s"]) == accepted
