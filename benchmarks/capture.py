"""Messages as they lie in a topic, kept in a file: what quixframes wrote is what bare kafka-python sends."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from kafka import KafkaConsumer, TopicPartition


class Message(NamedTuple):
    """One message of rows."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    rows: int


def capture(broker: str, topic: str, path: Path) -> int:
    """Store the messages of rows in the topic's only partition, from first to last; how many rows they carry."""
    partition = TopicPartition(topic, 0)
    messages: list[Message] = []
    consumer = KafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest")
    try:
        consumer.assign([partition])
        end = consumer.end_offsets([partition])[partition]
        while consumer.position(partition) < end:
            for record in consumer.poll(timeout_ms=1_000).get(partition, []):
                rows = _rows(record.value)
                if rows:
                    messages.append(Message(record.key, record.value, list(record.headers), rows))
    finally:
        consumer.close()
    path.write_bytes(pickle.dumps(messages))
    return sum(message.rows for message in messages)


def load(path: Path) -> list[Message]:
    """The messages of a file that ``capture`` wrote."""
    messages: list[Message] = pickle.loads(path.read_bytes())
    return messages


def _rows(value: bytes | None) -> int:
    """The rows of an Arrow IPC stream; 0 for messages that say something else of a stream, such as its properties."""
    try:
        with pa.ipc.open_stream(value) as reader:
            return sum(batch.num_rows for batch in reader)
    except (pa.ArrowInvalid, TypeError):
        return 0
