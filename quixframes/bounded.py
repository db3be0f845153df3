"""Reading a fixed range of offsets of topics, in no group."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from quixframes.errors import BrokerUnavailableError, OffsetGoneError
from quixframes.kafka import Consumer, Partition, Record

__all__ = ["Advance", "Step", "read_partitions", "read_range"]

_POLL = 0.5
_PATIENCE = 30.0


class Step(NamedTuple):
    """What arrived, by offset in each partition; and how far the read is now in each partition that it was not through
    with before. Offsets of which there is no message are passed over, so a position may move though nothing arrives."""

    records: list[Record]
    positions: Mapping[int, int]


class Advance(NamedTuple):
    """The same of several topics."""

    records: list[Record]
    positions: Mapping[Partition, int]


def read_range(consumer: Consumer, topic: str, begin: Mapping[int, int], end: Mapping[int, int]) -> Iterator[Step]:
    """A topic's records from the offsets ``begin`` up to, not including, ``end``, both by number of the partition. The
    consumer is the caller's to close.

    Raises:
        OffsetGoneError: retention removed a part of the range while it was being read.
        BrokerUnavailableError: nothing arrived for 30 s; the time that the caller takes does not count.
    """
    ranges = {Partition(topic, n): (offset, end[n]) for n, offset in begin.items()}
    for records, positions in read_partitions(consumer, ranges):
        yield Step(records, {at.number: position for at, position in positions.items()})


def read_partitions(
    consumer: Consumer,
    ranges: Mapping[Partition, tuple[int, int]],
    enough: Callable[[], Collection[Partition]] | None = None,
) -> Iterator[Advance]:
    """The records of partitions, from the first offset of each range up to, not including, its second. The consumer is
    the caller's to close.

    Args:
        consumer: what reads.
        ranges: the offsets, by partition.
        enough: tells, before each step, of which partitions no more is to come for now; never of all that are left.

    Raises:
        OffsetGoneError, BrokerUnavailableError: as :func:`read_range`.
    """
    left = {at: begin for at, (begin, end) in ranges.items() if begin < end}
    if left:
        consumer.assign(left)
    waited, held = 0.0, set[Partition]()
    while left:
        if enough is not None:
            hold = left.keys() & set(enough())
            consumer.pause(hold - held)
            consumer.resume((held - hold) & left.keys())
            held = hold
        begun = time.monotonic()
        polled = consumer.poll(_POLL)
        waited += time.monotonic() - begun
        if polled.gone:
            partition, offset = next(iter(polled.gone.items()))
            raise OffsetGoneError(f"{partition}@{offset}: retention removed this while it was being read")
        records = [
            one
            for one in polled.records
            if (at := Partition(one.topic, one.partition)) in left and one.offset < ranges[at][1]
        ]
        positions = {at: max(before, min(consumer.position(at) or 0, ranges[at][1])) for at, before in left.items()}
        if records or positions != left:
            waited = 0.0
        elif waited > _PATIENCE:
            topics = ", ".join(sorted({repr(at.topic) for at in left}))
            raise BrokerUnavailableError(
                f"nothing of topic {topics} arrived for {_PATIENCE:g} s: {consumer.trouble() or 'no reason known'}"
            )
        left = {at: position for at, position in positions.items() if position < ranges[at][1]}
        consumer.pause(positions.keys() - left.keys())
        yield Advance(records, positions)
