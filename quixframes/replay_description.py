"""What a replay would read, as its messages' headers tell it: streams, rows, times and bytes. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from quixframes.kafka import Record
from quixframes.replay_plan import ReplayGap
from quixframes.wire import Kind

__all__ = ["Counts", "ReplayDescription"]


@dataclass(slots=True)
class Counts:
    """What was seen of one stream."""

    rows: int = 0
    events: int = 0
    messages: int = 0
    bytes: int = 0
    first: int | None = None
    last: int | None = None

    def add(self, record: Record, kind: Kind, rows: int, first: int | None, last: int | None) -> None:
        """Count a message in."""
        self.messages += 1
        self.bytes += len(record.value or b"")
        if kind is Kind.EVENTS:
            self.events += rows
        else:
            self.rows += rows
        if first is not None and last is not None:
            self.first = first if self.first is None else min(self.first, first)
            self.last = last if self.last is None else max(self.last, last)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ReplayDescription:
    """What a replay would read. It counts whole messages: of those at the edges of a range, and of those of which
    ``tags`` or ``where`` leave rows out, fewer rows are handed on.

    Attributes:
        streams: a row for each, indexed by ``topic`` and ``stream``: rows, events, messages, bytes (of values), first
            and last (event times).
        gaps: what was asked for and is no longer retained.
    """

    streams: pd.DataFrame
    gaps: tuple[ReplayGap, ...] = field(default=())

    @classmethod
    def of(cls, found: Mapping[tuple[str, str], Counts], gaps: tuple[ReplayGap, ...]) -> ReplayDescription:
        """From the counts by topic and stream."""
        keys = sorted(found)
        names = ("rows", "events", "messages", "bytes", "first", "last")
        columns = {name: [getattr(found[key], name) for key in keys] for name in names}
        frame = pd.DataFrame(columns, index=pd.MultiIndex.from_tuples(keys, names=["topic", "stream"]))
        counts = dict.fromkeys(names[:4], "int64")
        frame = frame.astype({**counts, "first": "Int64", "last": "Int64"})
        for name in ("first", "last"):
            frame[name] = pd.to_datetime(frame[name], unit="ns", utc=True)
        return cls(frame, gaps)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.streams["rows"].sum())

    @property
    def events(self) -> int:
        """How many events there are."""
        return int(self.streams["events"].sum())

    @property
    def bytes(self) -> int:
        """The bytes of the messages' values, decompressed."""
        return int(self.streams["bytes"].sum())

    @property
    def start(self) -> pd.Timestamp:
        """The earliest event time; NaT where there is none."""
        return pd.Timestamp(self.streams["first"].min())

    @property
    def end(self) -> pd.Timestamp:
        """The latest event time; NaT where there is none."""
        return pd.Timestamp(self.streams["last"].max())

    def _summary(self) -> str:
        events = f", {self.events:,} events" if self.events else ""
        span = "" if pd.isna(self.start) else f", {self.start:%Y-%m-%d %H:%M:%S} to {self.end:%Y-%m-%d %H:%M:%S} UTC"
        gaps = "".join(f"\n{gap}" for gap in self.gaps)
        return f"{self.rows:,} rows{events} of {len(self.streams):,} streams, {self.bytes / 1e6:,.1f} MB{span}{gaps}"

    def __repr__(self) -> str:
        return f"<ReplayDescription: {self._summary()}\n{self.streams.to_string(max_rows=20)}>"

    def _repr_html_(self) -> str:
        text = html.escape(self._summary()).replace("\n", "<br>")
        table: str = self.streams._repr_html_()  # type: ignore[operator]
        return f"<p><b>Replay</b>: {text}</p>{table}"
