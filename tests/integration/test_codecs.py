"""Other people's messages on a real Kafka: what others write is read, and what is written others read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

import quixframes as qf

Send = Callable[..., None]


@pytest.fixture
def send(broker_address: str) -> Iterator[Send]:
    """Writes as somebody does who has never heard of quixframes."""
    producer = KafkaProducer(bootstrap_servers=broker_address)

    def send_all(topic: str, *messages: tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]) -> None:
        for key, value, headers in messages:
            producer.send(topic, key=key, value=value, headers=headers)
        producer.flush()

    yield send_all
    producer.close()


def messages_of(broker_address: str, topic: str, count: int) -> list[Any]:
    """What a bare consumer finds."""
    consumer = KafkaConsumer(bootstrap_servers=broker_address, consumer_timeout_ms=10_000)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    found = [next(consumer) for _ in range(count)]
    consumer.close()
    return found


def test_json_that_others_write_is_read_as_frames_and_json_that_we_write_is_read_by_others(
    client: qf.StreamingClient, broker_address: str, make_topic: Callable[..., str], group: str, send: Send
) -> None:
    theirs, ours = make_topic(), make_topic()
    objects = [{"ts": 1_700_000_000_000 + n, "speed": n / 3, "lap": n, "driver": "änn"} for n in range(1_000)]
    send(theirs, *((b"car-44", json.dumps(row).encode(), []) for row in objects))
    codec = qf.JsonRows(time="ts", unit="ms")
    with (
        client.open_input_topic(theirs, group, qf.CommitMode.Manual, codec=codec) as raw,
        client.open_output_topic(ours, codec=codec) as clean,
    ):
        for batch in raw.batches(rows=300, until="now"):
            assert batch.stream_id == "car-44"
            assert batch.frame.dtypes.astype(str).tolist() == ["float64", "int64", str(pd.Series(["a"]).dtype)]
            clean.write(batch.frame, stream=batch.stream_id)
            batch.commit()
        assert raw.rows_read == 1_000
    found = messages_of(broker_address, ours, 1_000)
    assert [json.loads(message.value) for message in found] == objects
    assert {message.key for message in found} == {b"car-44"}
    with client.open_input_topic(theirs, group, codec=codec) as raw:
        assert list(raw.batches(until="now")) == []
    replayed = client.replay(theirs, streams=["car-44"], codec=codec, progress=False).to_frame(stream_column=None)
    assert replayed["speed"].tolist() == [row["speed"] for row in objects]
    assert replayed.index[0] == pd.Timestamp(1_700_000_000_000, unit="ms", tz="UTC")


def test_a_message_that_the_codec_cannot_read_raises_alone_with_its_offset(
    client: qf.StreamingClient, topic: str, group: str, send: Send
) -> None:
    good = b'{"time": "2026-01-01", "x": 1}'
    send(topic, (b"a", good, []), (b"a", b"{", []), (b"a", good, []), (b"a", None, []), (None, good, []))
    rows = []
    with client.open_input_topic(topic, group, codec=qf.JsonRows(), on_bad_message="skip") as opened:
        for batch in opened.batches(until="now"):
            rows += [(batch.stream_id, x) for x in batch.frame["x"]]
        assert opened.bad_messages == 2
    assert sorted(rows) == [("a", 1), ("a", 1), (topic, 1)]
    with client.open_input_topic(topic, None, codec=qf.JsonRows()) as opened:
        loop = opened.batches(until="now")
        assert next(loop).frame["x"].tolist() == [1]
        with pytest.raises(qf.DamagedMessageError, match="the codec cannot read the message") as caught:
            next(loop)
    assert (caught.value.topic, caught.value.offset) == (topic, 1)


def test_without_a_codec_a_foreign_message_raises_with_its_offset(
    client: qf.StreamingClient, topic: str, send: Send
) -> None:
    send(topic, (b"a", b"{}", []))
    with (
        client.open_input_topic(topic, None) as opened,
        pytest.raises(qf.ForeignMessageError, match=rf"{topic}\[0\]@0"),
    ):
        next(opened.batches(until="now"))


def test_a_topic_may_hold_our_messages_and_theirs(
    client: qf.StreamingClient, topic: str, make_frame: Callable[..., pd.DataFrame], send: Send
) -> None:
    """With what Kafka knows of each of them as columns."""
    with client.open_output_topic(topic) as out:
        out.write(make_frame(2, 1), stream="ours")
    send(topic, (b"theirs", b"2026-01-01,7\n", [("source", b"gate")]))
    columns = qf.RecordColumns(headers={"source": "source"})
    codec = qf.CsvLines(columns=["time", "n"])
    with client.open_input_topic(topic, None, codec=codec, record_columns=columns) as opened:
        found = {batch.stream_id: batch.frame for batch in opened.batches(until="now")}
        assert opened.sequence_faults.empty
    assert found["ours"].columns.tolist() == ["p0", "n", "kafka_key", "kafka_time", "source"]
    assert found["ours"]["kafka_key"].tolist() == ["ours", "ours"]
    assert found["ours"]["source"].isna().all()
    assert found["theirs"][["n", "kafka_key", "source"]].to_numpy().tolist() == [[7, "theirs", "gate"]]
    assert abs(found["theirs"]["kafka_time"].iloc[0] - pd.Timestamp.now("UTC")) < pd.Timedelta("1min")


def test_raw_messages_are_the_bytes_codec(
    client: qf.StreamingClient, broker_address: str, make_topic: Callable[..., str], send: Send
) -> None:
    source, target = make_topic(), make_topic()
    send(source, (b"k", b"\x00\xff", []), (b"k", b"", []))
    with client.open_output_topic(target, codec=qf.BytesAsIs()) as out:
        for batch in client.replay(source, codec=qf.BytesAsIs(), progress=False).batches():
            out.write(batch.frame, stream=batch.stream_id)
    assert [(m.key, m.value) for m in messages_of(broker_address, target, 2)] == [(b"k", b"\x00\xff"), (b"k", b"")]


class Words(qf.Codec):
    """Somebody's own: words with blanks between."""

    def decode(self, records: Sequence[Any]) -> qf.Decoded:
        words = [str(record.value, "ascii").split() for record in records]
        times = pd.to_datetime([r.timestamp for r, found in zip(records, words, strict=True) for _ in found], unit="ms")
        frame = pd.DataFrame({"time": times, "word": [word for found in words for word in found]})
        return qf.Decoded(frame, [len(found) for found in words])

    def encode(self, stream_id: str, frame: pd.DataFrame) -> Iterator[qf.Encoded]:
        yield qf.Encoded(stream_id.encode(), " ".join(frame["word"]).encode(), [("words", b"yes")], len(frame))


def test_a_codec_of_ones_own_reads_and_writes(
    client: qf.StreamingClient, broker_address: str, topic: str, group: str, send: Send
) -> None:
    with client.open_output_topic(topic, codec=Words()) as out:
        writer = out.create_stream("poem")
        writer.parameters.buffer.write([{"time": 0, "word": "kept"}, {"time": 1, "word": "in"}])
        writer.parameters.buffer.write({"time": 2, "word": "order"})
        for refused in (lambda: writer.events.write("x"), lambda: writer.properties.update(name="x")):
            with pytest.raises(qf.SettingsError, match=r"Words, which carries rows"):
                refused()
    assert messages_of(broker_address, topic, 1)[0].value == b"kept in order"
    with client.open_input_topic(topic, group, codec=Words()) as opened:
        (batch,) = opened.batches(until="now")
    assert batch.frame["word"].tolist() == ["kept", "in", "order"]


def test_rows_that_a_codec_cannot_write_are_refused_before_they_are_held(
    client: qf.StreamingClient, topic: str
) -> None:
    with client.open_output_topic(topic, codec=qf.JsonRows()) as out:
        car = out.create_stream("car-44")
        good, bad = {"time": 0, "x": 1.0}, {"time": 1, "x": float("inf")}
        car.parameters.buffer.write(pd.DataFrame([good]))
        for write in (car.parameters.write, car.parameters.buffer.write):
            with pytest.raises(qf.FrameError, match="'x'"):
                write(pd.DataFrame([bad]))
    assert client.replay(topic, codec=qf.JsonRows(), progress=False).to_frame()["x"].tolist() == [1.0]
