"""Reading a topic through for what its headers say: rows, streams and bytes of each partition. In no group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from quixframes.bounded import read_range
from quixframes.kafka import Consumer, Record
from quixframes.wire import Kind

__all__ = ["Survey", "moment_of", "survey"]

_ROWS = Kind.PARAMETERS.value.encode()


@dataclass(slots=True)
class Survey:
    """What messages of one partition say.

    Attributes:
        messages: how many they are.
        rows: the rows in them; those of messages that quixframes did not write are not known, and count nothing.
        streams: their keys.
        bytes: of their values.
        first, last: the oldest and the newest event time of rows and events, in nanoseconds since 1970; None without.
    """

    messages: int = 0
    rows: int = 0
    streams: set[bytes] = field(default_factory=set)
    bytes: int = 0
    first: int | None = None
    last: int | None = None

    def add(self, record: Record) -> None:
        """Count one message. What its headers say wrongly, or not at all, is passed over."""
        self.messages += 1
        self.bytes += len(record.value or b"")
        if record.key is not None:
            self.streams.add(record.key)
        fields = dict(record.headers)
        if (fields.get("qf.kind") or b"") == _ROWS:
            self.rows += _number(fields.get("qf.rows")) or 0
        self._span(_number(fields.get("qf.first")), _number(fields.get("qf.last")))

    def unite(self, other: Survey) -> None:
        """Take in what was read elsewhere in the partition."""
        self.messages += other.messages
        self.rows += other.rows
        self.streams |= other.streams
        self.bytes += other.bytes
        self._span(other.first, other.last)

    def _span(self, first: int | None, last: int | None) -> None:
        if first is not None:
            self.first = first if self.first is None else min(first, self.first)
        if last is not None:
            self.last = last if self.last is None else max(last, self.last)


def survey(consumer: Consumer, topic: str, begin: Mapping[int, int], end: Mapping[int, int]) -> dict[int, Survey]:
    """What the messages between these offsets say, by number of the partition. The consumer is the caller's to close.

    Raises:
        OffsetGoneError: retention removed a part of them while they were being read.
        BrokerUnavailableError: nothing arrived for 30 s.
    """
    found = {number: Survey() for number in end}
    for step in read_range(consumer, topic, begin, end):
        for record in step.records:
            found[record.partition].add(record)
    return found


def moment_of(times: Iterable[int | None], *, newest: bool) -> pd.Timestamp | None:
    """The oldest or the newest of some event times; None where there are none."""
    known = [time for time in times if time is not None]
    return pd.Timestamp(max(known) if newest else min(known), unit="ns", tz="UTC") if known else None


def _number(text: bytes | None) -> int | None:
    try:
        number = int(text or b"")
    except ValueError:
        return None
    return number if -(2**63) < number < 2**63 else None
