"""Reading a fixed range of offsets of a topic, in no group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from quixframes.errors import BrokerUnavailableError, OffsetGoneError
from quixframes.kafka import Consumer, Partition, Record

__all__ = ["Step", "read_range"]

_POLL = 0.5
_PATIENCE = 30.0


class Step(NamedTuple):
    """What arrived, by offset in each partition; and how far the read is now in each partition that it was not through
    with before. Offsets of which there is no message are passed over, so a position may move though nothing arrives."""

    records: list[Record]
    positions: Mapping[int, int]


def read_range(consumer: Consumer, topic: str, begin: Mapping[int, int], end: Mapping[int, int]) -> Iterator[Step]:
    """A topic's records from the offsets ``begin`` up to, not including, ``end``, both by number of the partition. The
    consumer is the caller's to close.

    Raises:
        OffsetGoneError: retention removed a part of the range while it was being read.
        BrokerUnavailableError: nothing arrived for 30 s; the time that the caller takes does not count.
    """
    left = {n: offset for n, offset in begin.items() if offset < end[n]}
    if left:
        consumer.assign({Partition(topic, n): offset for n, offset in left.items()})
    waited = 0.0
    while left:
        begun = time.monotonic()
        polled = consumer.poll(_POLL)
        waited += time.monotonic() - begun
        if polled.gone:
            partition, offset = next(iter(polled.gone.items()))
            raise OffsetGoneError(f"{partition}@{offset}: retention removed this while it was being read")
        records = [one for one in polled.records if one.partition in left and one.offset < end[one.partition]]
        positions = {n: _position(consumer, Partition(topic, n), offset, end[n]) for n, offset in left.items()}
        if records or positions != left:
            waited = 0.0
        elif waited > _PATIENCE:
            raise BrokerUnavailableError(
                f"nothing of topic {topic!r} arrived for {_PATIENCE:g} s: {consumer.trouble() or 'no reason known'}"
            )
        left = {n: position for n, position in positions.items() if position < end[n]}
        consumer.pause([Partition(topic, n) for n in positions.keys() - left.keys()])
        yield Step(records, positions)


def _position(consumer: Consumer, partition: Partition, before: int, end: int) -> int:
    return max(before, min(consumer.position(partition) or 0, end))
