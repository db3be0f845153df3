"""What a replay is asked for, as a value: topics, a range, streams, columns and rows. Pure.

What this module holds to:

- What cannot be is refused when the replay is made, not when it is read.
- Times that are relative ("-10min") become moments once, so that reading twice reads the same range.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from quixframes.errors import SettingsError
from quixframes.kafka import Partition
from quixframes.moments import past_or_moment
from quixframes.rules import TAG
from quixframes.settings import Duration, nanoseconds, whole_number

__all__ = ["Asked", "GivenEdge", "GivenStreams", "GivenTags", "GivenWhere", "Span", "Streams", "tags_of"]

GivenEdge: TypeAlias = Any
"""A moment as pandas understands it, "-10min" or a negative timedelta before now, or offsets by partition."""
GivenStreams: TypeAlias = str | Collection[str] | Callable[[Any], bool] | None
GivenTags: TypeAlias = Mapping[str, str | Collection[str | None] | None] | None
GivenWhere: TypeAlias = pc.Expression | Callable[[pd.DataFrame], Any] | None

_NAMES = "give IDs as a list, a pattern as in 'car-*', or a function of the stream"


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of time in nanoseconds since 1970: from ``start`` up to, not including, ``end``. None leaves a
    side open."""

    start: int | None = None
    end: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether every time is in it."""
        return self.start is None and self.end is None

    def misses(self, first: int, last: int) -> bool:
        """Whether nothing from ``first`` to ``last``, both included, can be in it.

        >>> Span(10, 20).misses(0, 9), Span(10, 20).misses(0, 10), Span(10, 20).misses(20, 30)
        (True, False, True)
        """
        return (self.start is not None and last < self.start) or (self.end is not None and first >= self.end)

    def holds(self, first: int, last: int) -> bool:
        """Whether everything from ``first`` to ``last``, both included, is in it."""
        return (self.start is None or first >= self.start) and (self.end is None or last < self.end)


@dataclass(frozen=True, slots=True)
class Streams:
    """Which streams: those of these IDs, or whose ID matches the pattern, or of which the function says so; all where
    there is none of them."""

    ids: frozenset[str] | None = None
    pattern: re.Pattern[str] | None = None
    wants: Callable[[Any], bool] | None = None
    text: str = "all"

    @classmethod
    def of(cls, given: GivenStreams) -> Streams:
        """What a user gave.

        >>> Streams.of("car-*").has_id("car-44"), Streams.of(["car-*"]).has_id("car-44")
        (True, False)

        Raises:
            SettingsError: it is none of these.
        """
        if given is None:
            return cls()
        if isinstance(given, str):
            return cls(pattern=re.compile(fnmatch.translate(given)), text=given)
        if callable(given):
            return cls(wants=given, text=f"those that {getattr(given, '__name__', type(given).__name__)} wants")
        ids = _texts(given, "streams", _NAMES)
        return cls(ids=frozenset(ids), text=", ".join(ids) or "none")

    @property
    def by_id(self) -> bool:
        """Whether a stream's ID decides."""
        return self.ids is not None or self.pattern is not None

    def has_id(self, stream_id: str) -> bool:
        """Whether a stream may be one of them, as far as its ID says."""
        if self.ids is not None:
            return stream_id in self.ids
        return self.pattern is None or self.pattern.match(stream_id) is not None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a replay is to read.

    ``first`` and ``last`` are offsets that were given, the last ones not included. ``lateness`` is in nanoseconds; None
    where the times of rows and their arrival need have nothing to do with each other. ``tags`` has the values that each
    tag may have.
    """

    topics: tuple[str, ...]
    span: Span = Span()
    by: Literal["event", "arrival"] = "event"
    lateness: int | None = None
    first: Mapping[Partition, int] = field(default_factory=dict)
    last: Mapping[Partition, int] = field(default_factory=dict)
    group: str | None = None
    streams: Streams = Streams()
    columns: tuple[str, ...] | None = None
    tags: Mapping[str, frozenset[str | None]] = field(default_factory=dict)
    where: GivenWhere = None
    relative: tuple[str | None, str | None] = (None, None)
    """The start and the end as they were given, where they were relative to now."""

    @classmethod
    def of(
        cls,
        topic: str | Iterable[str],
        *,
        start: GivenEdge = None,
        end: GivenEdge = None,
        by: str = "event",
        lateness: Duration | None = None,
        group: str | None = None,
        streams: GivenStreams = None,
        columns: Collection[str] | None = None,
        tags: GivenTags = None,
        where: GivenWhere = None,
        now: pd.Timestamp,
    ) -> Asked:
        """What a user gave; ``now`` is what "-10min" counts from.

        Raises:
            SettingsError: something of it cannot be, or does not go together.
        """
        if isinstance(topic, re.Pattern):
            raise SettingsError("a replay reads topics by name: give one name, or a list of them")
        names = (topic,) if isinstance(topic, str) else _texts(topic, "topic", "give a name, or a list of them")
        if not names or not all(names):
            raise SettingsError(f"topic={topic!r} has to be a topic's name, or a list of them")
        if by not in ("event", "arrival"):
            raise SettingsError(
                f"by={by!r} has to be 'event' (the times of the rows) or 'arrival' (when Kafka got them)"
            )
        if lateness is not None and by == "arrival":
            raise SettingsError("lateness= is about event time: leave it out with by='arrival'")
        if group is not None and (start is not None or not isinstance(group, str) or not group):
            raise SettingsError(
                f"group={group!r} has to be a group's name, and says where to start: leave start= out with it"
            )
        if where is not None and not callable(where) and not isinstance(where, pc.Expression):
            raise SettingsError(
                f"where={where!r} has to be an expression of pyarrow.compute, as in pc.field('speed') > 100, or a "
                "function from a DataFrame to a mask"
            )
        first, last = _offsets(start, names, "start"), _offsets(end, names, "end")
        span = Span(
            None if start is None or first else past_or_moment(start, "start", now).value,
            None if end is None or last else past_or_moment(end, "end", now).value,
        )
        if span.start is not None and span.end is not None and span.start > span.end:
            raise SettingsError(f"start={start!r} is after end={end!r}: give the earlier one first")
        return cls(
            tuple(dict.fromkeys(names)),
            span,
            "event" if by == "event" else "arrival",
            None if lateness is None else nanoseconds(lateness, name="lateness"),
            first,
            last,
            group,
            Streams.of(streams),
            None if columns is None else _texts(columns, "columns", "give names as a list, as in columns=['speed']"),
            tags_of(tags),
            where,
            (_relative(start), _relative(end)),
        )

    def __str__(self) -> str:
        said = [f"topics {', '.join(self.topics)}" if len(self.topics) > 1 else f"topic {self.topics[0]!r}"]
        if self.group is not None:
            said.append(f"from where group {self.group!r} is")
        for word, instant, offsets in (("from", self.span.start, self.first), ("to", self.span.end, self.last)):
            if instant is not None:
                said.append(f"{word} {pd.Timestamp(instant, unit='ns', tz='UTC')}")
            elif offsets:
                said.append(f"{word} offsets {', '.join(f'{at}@{offset}' for at, offset in offsets.items())}")
        if not self.span.is_open:
            said.append("by event time" if self.by == "event" else "by arrival")
        said.append(f"streams {self.streams.text}")
        said.append("all columns" if self.columns is None else f"columns {', '.join(self.columns)}")
        said += [f"{column} {'|'.join(map(str, sorted(values, key=str)))}" for column, values in self.tags.items()]
        if self.where is not None:
            said.append(f"where {getattr(self.where, '__name__', self.where)}")
        return ", ".join(said)

    @property
    def question(self) -> dict[str, Any]:
        """All of it in plain values, which JSON takes: equal where the same is asked, be it at another moment. Of a
        function, its name."""
        edges = {}
        for name, relative, instant, offsets in zip(
            ("start", "end"), self.relative, (self.span.start, self.span.end), (self.first, self.last), strict=True
        ):
            edges[name] = relative or instant or {str(at): offset for at, offset in offsets.items()} or None
        return {
            "topics": list(self.topics), **edges, "by": self.by, "lateness": self.lateness, "group": self.group,
            "streams": self.streams.text, "columns": None if self.columns is None else list(self.columns),
            "tags": {tag: sorted(values, key=str) for tag, values in self.tags.items()},
            "where": None if self.where is None else getattr(self.where, "__qualname__", str(self.where)),
        }  # fmt: skip

    @property
    def times(self) -> Span:
        """The range that the times of rows and events have to be in."""
        return self.span if self.by == "event" else Span()


def tags_of(given: GivenTags) -> dict[str, frozenset[str | None]]:
    """The values that each tag's column may have.

    >>> tags_of({"lap": "12"})
    {'TAG__lap': frozenset({'12'})}

    Raises:
        SettingsError: it is no mapping from tags to texts.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise SettingsError(f"tags={given!r} has to map tags to their values, as in tags={{'lap': ['12', '13']}}")
    found: dict[str, frozenset[str | None]] = {}
    for name, values in given.items():
        several = [values] if values is None or isinstance(values, str) else values
        if not isinstance(name, str) or not isinstance(several, Collection):
            raise SettingsError(f"tags={given!r}: a tag has a name, and a text or several of them, or None")
        if not all(value is None or isinstance(value, str) for value in several):
            raise SettingsError(f"tags={given!r}: the values of tags are text, or None where the tag is missing")
        found[name if name.startswith(TAG) else TAG + name] = frozenset(several)
    return found


def _texts(given: Any, name: str, advice: str) -> tuple[str, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise SettingsError(f"{name}={given!r}: {advice}")
    texts = tuple(given)
    if not all(isinstance(text, str) for text in texts):
        raise SettingsError(f"{name}={given!r}: {advice}")
    return texts


def _relative(given: Any) -> str | None:
    if isinstance(given, str) and given.lstrip().startswith("-"):
        return given.strip()
    return str(pd.Timedelta(given)) if isinstance(given, np.timedelta64) or hasattr(given, "total_seconds") else None


def _offsets(given: Any, topics: tuple[str, ...], name: str) -> dict[Partition, int]:
    """Offsets by partition: of the one topic as {0: 1500}, of several as {"engine": {0: 1500}}. None where it is no
    mapping."""
    if not isinstance(given, Mapping):
        return {}
    if not given:
        raise SettingsError(f"{name}={{}} names no partition: write offsets as in {name}={{0: 1500}}")
    by_topic = given if all(isinstance(key, str) for key in given) else {topics[0]: given}
    if by_topic is not given and len(topics) > 1:
        raise SettingsError(f"{name}={given!r}: of several topics, give offsets as in {name}={{'engine': {{0: 1500}}}}")
    found = {}
    for topic, offsets in by_topic.items():
        if topic not in topics or not isinstance(offsets, Mapping):
            raise SettingsError(
                f"{name}={given!r}: write offsets by topic and partition, as in {{'engine': {{0: 1500}}}}"
            )
        for number, offset in offsets.items():
            at = Partition(topic, whole_number(number, f"{name}: a partition", least=0))
            found[at] = whole_number(offset, f"{name}: the offset of {at}", least=0)
    return found
