"""kafka-python alone: the bytes that quixframes would send, already encoded, and polled back without decoding.

This is the ceiling for anything that stands on kafka-python, and what quixframes is measured against: same messages
(keys, values and headers, captured from quixframes itself), same acknowledgements, same client version.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.producer.future import FutureRecordMetadata

from benchmarks.capture import Message, load
from benchmarks.contenders.common import PATIENCE_S, Item, Job, ReadClock, Result, main, timed_write

IN_FLIGHT_BYTES = 64 << 20
"""kafka-python 3 queues without limit: a program that cares for its memory has to wait for itself."""


def write(job: Job) -> Result:
    """Send the messages over and over, acks=all and idempotent."""
    producer = KafkaProducer(
        bootstrap_servers=job.broker,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        batch_size=512 << 10,
        max_request_size=16 << 20,
    )
    pending: deque[tuple[FutureRecordMetadata, int]] = deque()
    in_flight = 0

    def send(_: str, message: Message) -> None:
        nonlocal in_flight
        future = producer.send(job.topic, value=message.value, key=message.key, headers=message.headers)
        pending.append((future, len(message.value)))
        in_flight += len(message.value)
        while in_flight > IN_FLIGHT_BYTES:
            oldest, size = pending.popleft()
            oldest.get(timeout=PATIENCE_S)
            in_flight -= size

    def flush() -> None:
        nonlocal in_flight
        producer.flush()
        while pending:
            pending.popleft()[0].get(timeout=PATIENCE_S)
        in_flight = 0

    items = [Item("", message, message.rows) for message in _messages(job)]
    result = timed_write(job, items, send, flush)
    producer.close()
    return result


def read(job: Job) -> Result:
    """Poll the partition from its start, counting bytes; rows follow from the known rows per byte."""
    messages = _messages(job)
    rows_per_byte = sum(message.rows for message in messages) / sum(len(message.value) for message in messages)
    partition = TopicPartition(job.topic, 0)
    consumer = KafkaConsumer(
        bootstrap_servers=job.broker, auto_offset_reset="earliest", max_partition_fetch_bytes=16 << 20
    )
    consumer.assign([partition])
    end = consumer.end_offsets([partition])[partition]
    clock = ReadClock(job)
    patience = perf_counter() + job.seconds + PATIENCE_S
    rest = 0.0
    while consumer.position(partition) < end and perf_counter() < patience:
        for records in consumer.poll(timeout_ms=500, max_records=10_000).values():
            rest += sum(len(record.value) for record in records) * rows_per_byte
        if rest >= 1:
            whole = int(rest)
            rest -= whole
            if clock.add(whole):
                break
    result = clock.result()
    consumer.close()
    return result


def _messages(job: Job) -> list[Message]:
    if job.messages is None:
        raise SystemExit("this contender needs --messages, a file of captured messages")
    return load(job.messages)


if __name__ == "__main__":
    main(write, read)
