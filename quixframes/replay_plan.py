"""Which offsets a replay reads: a plan, made of what is asked for and of what the topics hold now. Pure.

The rules, all of them about offsets only (which rows of them are in the range is seen when they are read):

- Arrival is the clock of a partition: of all messages up to one, the latest broker time. Kafka's time index finds, for
  a moment, the first message that has that time or a later one; so by arrival a range is one stretch of offsets, and
  ranges that follow each other share no message and leave none out.
- By event time, ``lateness`` says how far a row's arrival and its event time may lie apart, either way: then rows of
  the range have arrived between its start less ``lateness`` and its end plus ``lateness``. Without it, nothing is known
  of when they arrived, and everything retained is looked at.
- What was asked for and is no longer retained is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from quixframes.errors import SettingsError
from quixframes.kafka import Partition
from quixframes.replay_asked import Asked

__all__ = ["Lookups", "Plan", "ReplayGap", "Snapshot", "Stretch", "lookups", "plan"]

_MS = 1_000_000  # nanoseconds


class Lookups(NamedTuple):
    """The broker times, in milliseconds since 1970, of which the time index is to be asked. ``start`` bounds what is
    read only with ``bounds``; else it says no more than whether something of the range may be gone."""

    start: int | None
    end: int | None
    bounds: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A topic as it is when reading begins, by the number of each partition: its first retained offset, the one after
    its last stable message, what the time index says of ``Lookups`` (None where it was not asked), and what the group
    has committed."""

    topic: str
    begin: Mapping[int, int]
    end: Mapping[int, int]
    at_start: Mapping[int, int] | None = None
    at_end: Mapping[int, int] | None = None
    committed: Mapping[int, int] | None = None


class Stretch(NamedTuple):
    """Offsets of a partition: from ``begin`` up to, not including, ``end``."""

    partition: Partition
    begin: int
    end: int

    @property
    def offsets(self) -> int:
        """How many: at most so many messages."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class ReplayGap:
    """A part of what a replay was asked for that retention, or a deletion, has removed before it began.

    Attributes:
        partition: where.
        first: the first offset that is retained.
        wanted: the offset that was asked for; None where a time was.
        start: that time; by event time it may be that nothing of the range is gone, since who wrote it when is not
            known any more.
    """

    partition: Partition
    first: int
    wanted: int | None = None
    start: pd.Timestamp | None = None

    def __str__(self) -> str:
        if self.wanted is not None:
            return f"{self.partition}: offsets {self.wanted} to {self.first - 1} are not retained any more"
        return (
            f"{self.partition}: the oldest message that is retained, at offset {self.first}, came after {self.start}; "
            "what came before it is gone"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is read: stretches of offsets, and of them what is asked for.

    A plan says all that there is to be read. It can be cut into plans of fewer or shorter stretches, which read the
    same together.
    """

    asked: Asked
    stretches: tuple[Stretch, ...]
    gaps: tuple[ReplayGap, ...] = ()
    not_fetched: int = 0
    """Offsets that are retained, and that the range leaves out."""

    @property
    def offsets(self) -> int:
        """How many offsets there are in it: at most so many messages."""
        return sum(stretch.offsets for stretch in self.stretches)


def lookups(asked: Asked) -> Lookups:
    """What the time index has to be asked. Times are rounded up to whole milliseconds: so fine are broker times, and a
    message is at or after a moment where it is at or after the next whole one.

    >>> from quixframes.replay_asked import Span
    >>> lookups(Asked(("engine",), Span(2_500_000, None), "arrival"))
    Lookups(start=3, end=None, bounds=True)
    """
    bounds = asked.by == "arrival" or asked.lateness is not None
    margin = asked.lateness or 0
    start, end = asked.span.start, asked.span.end
    return Lookups(
        None if start is None else _ms(start - margin),
        None if end is None or not bounds else _ms(end + margin),
        bounds,
    )


def _ms(nanoseconds: int) -> int:
    return max(0, -(-nanoseconds // _MS))  # below zero, Kafka takes times for questions of another kind


def plan(asked: Asked, snapshots: Sequence[Snapshot]) -> Plan:
    """The plan for topics as they are.

    Raises:
        SettingsError: an offset was given of a partition that there is not, or the group has committed nothing.
    """
    _check(asked, snapshots)
    stretches, gaps, retained = [], [], 0
    for topic in snapshots:
        for number, oldest in sorted(topic.begin.items()):
            stretch, gap = _stretch(asked, topic, Partition(topic.topic, number), oldest)
            retained += max(0, topic.end[number] - oldest)
            if gap is not None:
                gaps.append(gap)
            if stretch.offsets > 0:
                stretches.append(stretch)
    read = sum(stretch.offsets for stretch in stretches)
    return Plan(asked, tuple(stretches), tuple(gaps), retained - read)


def _stretch(asked: Asked, topic: Snapshot, at: Partition, oldest: int) -> tuple[Stretch, ReplayGap | None]:
    bounds, newest = lookups(asked).bounds, topic.end[at.number]
    gap = None
    begin = asked.first.get(at)
    if begin is None and topic.committed is not None:
        begin = topic.committed.get(at.number)
    if begin is not None and begin < oldest:
        gap = ReplayGap(at, oldest, wanted=begin)
    found = None if topic.at_start is None else topic.at_start.get(at.number, newest)
    if found is not None and oldest > 0 and found <= oldest:
        start = pd.Timestamp(asked.span.start or 0, unit="ns", tz="UTC")
        gap = ReplayGap(at, oldest, start=start)
    if found is not None and bounds:
        begin = found
    end = min(newest, asked.last.get(at, newest))
    if topic.at_end is not None and bounds:
        end = min(end, topic.at_end.get(at.number, newest))
    begin = max(oldest, begin or 0)
    return Stretch(at, begin, max(begin, end)), gap


def _check(asked: Asked, snapshots: Sequence[Snapshot]) -> None:
    there = {Partition(topic.topic, number) for topic in snapshots for number in topic.begin}
    for name, offsets in (("start", asked.first), ("end", asked.last)):
        if absent := sorted(offsets.keys() - there):
            count = sum(at.topic == absent[0].topic for at in there)
            raise SettingsError(
                f"{name} has an offset of {absent[0]}, but topic {absent[0].topic!r} has {count} partitions, from 0 on"
            )
    if asked.group is not None and not any(topic.committed for topic in snapshots):
        raise SettingsError(
            f"group {asked.group!r} has committed nothing of {', '.join(map(repr, asked.topics))}: without group=, "
            "everything that is retained is read"
        )
