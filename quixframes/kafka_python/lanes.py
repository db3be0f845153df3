"""What the producer sends: messages, in batches, along lanes; and their form on the wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.protocol.producer import ProduceRequest
from kafka.record.default_records import DefaultRecordBatchBuilder

__all__ = ["REQUEST_TIMEOUT", "Batch", "Identity", "Lane", "Message", "encoded", "produce_request"]

BATCH = 256 * 1024
"""Bytes of small messages that share a batch; a larger message has one of its own."""

REQUEST_TIMEOUT = 10.0
"""Seconds after which a silent broker is tried again over a new connection."""

_BROKERS_SHARE = 0.7  # of a request's timeout, for the replicas to acknowledge
_UNBOUNDED = 2**31 - 1


class Message(NamedTuple):
    """A message on its way."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    partition: int | None
    on_done: Callable[[Exception | None], None]
    size: int
    at: float  # monotonic: for the deadline
    timestamp: int  # wall clock, in ms: for Kafka
    round: int  # which flushes wait for it


class Identity(NamedTuple):
    """The name under which a broker remembers which sequence numbers it has had."""

    producer_id: int
    epoch: int


class Batch:
    """Messages that travel together, and whether they did already."""

    __slots__ = ("attempts", "data", "deadline", "messages", "travelling")

    def __init__(self, messages: list[Message], deadline: float) -> None:
        self.messages = messages
        self.deadline = deadline
        self.data: bytearray | None = None
        self.attempts = 0
        self.travelling = False


class Lane:
    """One partition of one topic, or (with partition -1) a topic whose partitions are not known yet."""

    __slots__ = (
        "batch",
        "identity",
        "limit",
        "lost",
        "place",
        "queue",
        "retry_at",
        "sequence",
        "size",
        "unknown_since",
    )

    def __init__(self, place: TopicPartition) -> None:
        self.place = place
        self.queue: deque[Message] = deque()
        self.size = 0  # bytes in the queue
        self.limit = BATCH
        self.batch: Batch | None = None
        self.retry_at = 0.0
        self.identity: Identity | None = None
        self.lost: Identity | None = None  # not to be used again here: its sequence numbers are in doubt
        self.sequence = 0
        self.unknown_since: float | None = None


def encoded(lane: Lane, messages: list[Message], codec: int, *, transactional: bool) -> bytearray:
    """The messages as one record batch, under the lane's identity and from its next sequence number on."""
    assert lane.identity is not None
    builder = DefaultRecordBatchBuilder(2, codec, transactional, *lane.identity, lane.sequence, _UNBOUNDED)
    append = builder.append
    for number, message in enumerate(messages):
        append(number, message.timestamp, message.key, message.value, message.headers)
    data: bytearray = builder.build()
    return data


def produce_request(
    travelling: list[tuple[Lane, Batch]], timeout: float, transactional_id: str | None
) -> ProduceRequest:
    """One request for all of them: the batches have to be encoded, and each lane's be on the same broker.

    The broker is given less than the ``timeout`` (seconds) after which the client gives up waiting for it, so that it
    can still say that its replicas were too slow.
    """
    by_topic: dict[str, list[Any]] = {}
    for lane, batch in travelling:
        partition = ProduceRequest.TopicProduceData.PartitionProduceData(index=lane.place.partition, records=batch.data)
        by_topic.setdefault(lane.place.topic, []).append(partition)
    return ProduceRequest(
        transactional_id=transactional_id,
        acks=-1,
        timeout_ms=round(timeout * _BROKERS_SHARE * 1000),
        topic_data=[
            ProduceRequest.TopicProduceData(name=topic, partition_data=partitions)
            for topic, partitions in by_topic.items()
        ],
        max_version=9,
    )
