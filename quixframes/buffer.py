"""Rows of one stream, held until a rule of :class:`~quixframes.settings.BufferSettings` releases them. Pure: the clock
is an argument.

What this module holds to:

- Both sides use it: a writer's buffer and a reader's batches follow the same rules to the row.
- Which rows are released together depends on the rows and their order alone, not on how they were split into calls of
  ``add`` (the timeout aside). Every rule is therefore a fact about a row and the rows held before it.
- Rows stay Arrow record batches, sliced without copying, and become one when they are released.
- Each row knows where it came from: a release names its rows as pieces of the sources it was made of. Rows that the
  filter removed are part of those pieces, or are reported at once where nothing is held.
- Events stay among the rows that came before and after them: what releases rows releases the events that came so far.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from quixframes import frames
from quixframes.errors import SettingsError
from quixframes.event_frames import decode_events, event_nbytes
from quixframes.settings import BufferSettings, byte_count, nanoseconds, seconds
from quixframes.wire import event_times

__all__ = ["Added", "Piece", "Release", "RowBuffer", "mask_of"]

_FIRST_WINDOW = 1024
_NOTHING = pa.RecordBatch.from_pylist([], schema=pa.schema([frames.TIME_FIELD]))


_Mask = npt.NDArray[np.bool_]
_Rows = npt.NDArray[np.int64]
_Sizes = int | npt.NDArray[np.int64]


class Piece(NamedTuple):
    """Rows [start, stop) of the source that was given to ``add``."""

    source: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Release:
    """Rows that belong together, and where they came from.

    ``reason`` is the rule that released them: "rows", "time_span", "bytes", "trigger", "timeout", "schema", or what the
    caller of :meth:`RowBuffer.release` gave. ``batch`` has no rows where only events were held.
    """

    batch: pa.RecordBatch
    events: tuple[pa.RecordBatch, ...]
    pieces: tuple[Piece, ...]
    reason: str


class Added(NamedTuple):
    """What one ``add`` brought about: releases in order, and pieces of which the filter left nothing to wait for."""

    releases: list[Release]
    dropped: list[Piece]


class _Cut(NamedTuple):
    """Where the arriving rows are cut next: rows before ``stop`` join what is held, which ``reason`` then releases."""

    stop: int
    reason: str


class RowBuffer:
    """Holds rows of one stream, in normal form, by the rules of ``settings``.

    Args:
        settings: the rules.
        to_frame: makes the DataFrame that ``filter`` and ``trigger`` are given.
    """

    def __init__(self, settings: BufferSettings, to_frame: Callable[[pa.RecordBatch], pd.DataFrame]) -> None:
        self.settings = settings
        self._to_frame = to_frame
        self._timeout = None if settings.timeout is None else seconds(settings.timeout)
        self._span = None if settings.time_span is None else nanoseconds(settings.time_span)
        self._most_bytes = None if settings.bytes is None else byte_count(settings.bytes)
        self._schema = _NOTHING.schema
        self._empty = _NOTHING  # without rows, of the columns and dtypes that came last
        self._width: int | None = None
        self._clear()

    def _clear(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._events: list[pa.RecordBatch] = []
        self._pieces: list[Piece] = []
        self.rows = 0
        self.events = 0
        self.nbytes = 0
        self.since: float | None = None
        self._low = self._high = 0

    @property
    def deadline(self) -> float | None:
        """When what is held has to be released at the latest; None where nothing is held, or there is no timeout."""
        return None if self.since is None or self._timeout is None else self.since + self._timeout

    def add(self, batch: pa.RecordBatch, now: float, source: int = 0, start: int = 0) -> Added:
        """Take in rows: ``batch`` is rows ``start`` and following of ``source``; ``now`` is in seconds of any steady
        clock.

        Raises:
            SettingsError: ``filter`` or ``trigger`` returned something else than a boolean mask. Nothing was taken in.
        """
        rows = batch.num_rows
        kept = self._kept(batch)
        if kept is not None:
            batch = frames.keep_rows(batch, kept)
        triggers = self._triggers(batch)
        added = Added([], [])
        deadline = self.deadline
        if deadline is not None and now >= deadline:
            self._release_into(added, "timeout")
        sizes = self._running_sizes(batch, added)
        positions = None if kept is None else np.flatnonzero(kept) + start
        taken, at = start, 0
        while at < batch.num_rows:
            cut = self._next_cut(batch, at, sizes, triggers)
            stop = batch.num_rows if cut is None else cut.stop
            if stop > at:
                upto = start + stop if positions is None else int(positions[stop - 1]) + 1
                part = batch if stop - at == batch.num_rows else batch.slice(at, stop - at)
                if cut is None and 2 * part.num_rows < batch.num_rows:
                    part = frames.compacted(part)  # or the few rows that wait would keep all the others in memory
                self._hold(part, sizes, at, Piece(source, taken, upto), now)
                taken, at = upto, stop
            if cut is not None:
                self._release_into(added, cut.reason)
        if taken < start + rows:
            self._note_or_drop(Piece(source, taken, start + rows), added)
        return added

    def add_events(self, events: pa.RecordBatch, now: float, source: int = 0, start: int = 0) -> Added:
        """Take in events of the stream, as :meth:`add` takes in rows. They are released with the rows around them; by
        themselves, by ``timeout``, and by as many of them as ``rows`` or ``bytes`` allow.

        Raises:
            SettingsError: ``event_filter`` returned something else than a boolean mask. Nothing was taken in.
        """
        count, kept = events.num_rows, None
        if self.settings.event_filter is not None:
            kept = mask_of(self.settings.event_filter(decode_events([events])), count, "event_filter")
            events = frames.keep_rows(events, kept)
        added = Added([], [])
        deadline = self.deadline
        if deadline is not None and now >= deadline:
            self._release_into(added, "timeout")
        sizes = list(accumulate(event_nbytes(events), initial=0))
        positions = None if kept is None else np.flatnonzero(kept) + start
        taken, at = start, 0
        while at < events.num_rows:
            cut = self._next_cut_of_events(at, sizes)
            stop = events.num_rows if cut is None else cut.stop
            if stop > at:
                upto = start + stop if positions is None else int(positions[stop - 1]) + 1
                part = events if stop - at == events.num_rows else events.slice(at, stop - at)
                if cut is None and 2 * part.num_rows < events.num_rows:
                    part = frames.compacted(part)
                if self.since is None:
                    self.since = now
                self.events += part.num_rows
                self.nbytes += sizes[stop] - sizes[at]
                self._events.append(part)
                self._note(Piece(source, taken, upto))
                taken, at = upto, stop
            if cut is not None:
                self._release_into(added, cut.reason)
        if taken < start + count:
            self._note_or_drop(Piece(source, taken, start + count), added)
        return added

    def end(self, source: int) -> Release:
        """What is held, together with the end of the stream, which ``source`` is."""
        self._note(Piece(source, 0, 1))
        return self._released("end")

    def expire(self, now: float) -> Release | None:
        """What is held, if its time is up."""
        deadline = self.deadline
        return self.release("timeout") if deadline is not None and now >= deadline else None

    def release(self, reason: str) -> Release | None:
        """What is held; None where nothing is."""
        return self._released(reason) if self._pieces else None

    def _released(self, reason: str) -> Release:
        if not self._batches:
            batch = self._empty
        else:
            batch = self._batches[0] if len(self._batches) == 1 else frames.concat(self._batches)
        released = Release(batch, tuple(self._events), tuple(self._pieces), reason)
        self._clear()
        return released

    def _running_sizes(self, batch: pa.RecordBatch, added: Added) -> _Sizes:
        """Bytes of each row where all rows have as many; else bytes of the rows before each row, and of all. A batch of
        another schema than the rows that are held releases them."""
        if not batch.schema.equals(self._schema, check_metadata=True):
            if self.rows:
                self._release_into(added, "schema")
            self._schema, self._width = batch.schema, frames.row_width(batch.schema)
            self._empty = frames.compacted(batch.slice(0, 0))
        if self._width is not None:
            return self._width
        return np.concatenate(([0], np.cumsum(frames.row_nbytes(batch))))

    def _release_into(self, added: Added, reason: str) -> None:
        released = self.release(reason)
        if released is not None:
            added.releases.append(released)

    def _hold(self, batch: pa.RecordBatch, sizes: _Sizes, at: int, piece: Piece, now: float) -> None:
        rows = batch.num_rows
        if self._span is not None:
            times = event_times(batch)
            low, high = int(times.min()), int(times.max())
            self._low, self._high = (min(low, self._low), max(high, self._high)) if self.rows else (low, high)
        if self.since is None:
            self.since = now
        self.rows += rows
        self.nbytes += sizes * rows if isinstance(sizes, int) else int(sizes[at + rows] - sizes[at])
        self._batches.append(batch)
        self._note(piece)

    def _note_or_drop(self, piece: Piece, added: Added) -> None:
        """What the filter removed waits for what is held, or for nothing."""
        if self._pieces:
            self._note(piece)
        else:
            added.dropped.append(piece)

    def _note(self, piece: Piece) -> None:
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last.source == piece.source and last.stop == piece.start:
            self._pieces[-1] = Piece(last.source, last.start, piece.stop)
        else:
            self._pieces.append(piece)

    # Each rule answers with the first place at which it cuts the rows from ``at`` on, or None. The earliest cut wins.

    def _next_cut(self, batch: pa.RecordBatch, at: int, sizes: _Sizes, triggers: _Rows | None) -> _Cut | None:
        if self._span is None and triggers is None and isinstance(sizes, int):
            # Most small messages: they join what is held, and no rule has to be asked where.
            rows = batch.num_rows - at
            few = self.settings.rows is None or self.rows + rows < self.settings.rows
            if few and (self._most_bytes is None or self.nbytes + rows * sizes <= self._most_bytes):
                return None
        cuts = (
            self._cut_by_span(batch, at),
            self._cut_by_bytes(batch, at, sizes),
            self._cut_by_rows(batch, at),
            self._cut_by_trigger(at, triggers),
        )
        return min((cut for cut in cuts if cut is not None), default=None, key=lambda cut: cut.stop)

    def _cut_by_rows(self, batch: pa.RecordBatch, at: int) -> _Cut | None:
        if self.settings.rows is None:
            return None
        stop = at + self.settings.rows - self.rows
        return _Cut(stop, "rows") if stop <= batch.num_rows else None

    def _cut_by_trigger(self, at: int, triggers: _Rows | None) -> _Cut | None:
        if triggers is None:
            return None
        ahead = int(np.searchsorted(triggers, at))
        return _Cut(int(triggers[ahead]) + 1, "trigger") if ahead < len(triggers) else None

    def _cut_by_bytes(self, batch: pa.RecordBatch, at: int, sizes: _Sizes) -> _Cut | None:
        if self._most_bytes is None:
            return None
        room = self._most_bytes - self.nbytes
        if isinstance(sizes, int):
            stop = at + max(room, 0) // sizes
        else:
            stop = int(np.searchsorted(sizes, sizes[at] + room, side="right")) - 1
        if self.since is None:
            stop = max(stop, at + 1)  # a row over the limit is a batch by itself
        return _Cut(stop, "bytes") if stop < batch.num_rows else None

    def _next_cut_of_events(self, at: int, sizes: Sequence[int]) -> _Cut | None:
        count, stop = len(sizes) - 1, len(sizes)
        if self._most_bytes is not None:
            stop = bisect_right(sizes, sizes[at] + self._most_bytes - self.nbytes) - 1
            if self.since is None:
                stop = max(stop, at + 1)
        if self.settings.rows is not None and at + self.settings.rows - self.events <= min(stop, count):
            return _Cut(at + self.settings.rows - self.events, "rows")
        return _Cut(stop, "bytes") if stop < count else None

    def _cut_by_span(self, batch: pa.RecordBatch, at: int) -> _Cut | None:
        if self._span is None:
            return None
        times = event_times(batch)
        low, high = (self._low, self._high) if self.rows else (int(times[at]), int(times[at]))
        # In windows that double, so that many cuts in one frame do not each look at all of its rest.
        window = _FIRST_WINDOW
        while at < len(times):
            ahead = times[at : at + window]
            lows = np.minimum(np.minimum.accumulate(ahead), low)
            highs = np.maximum(np.maximum.accumulate(ahead), high)
            reached = highs - lows >= self._span
            first = int(reached.argmax())
            if reached[first]:
                return _Cut(at + first, "time_span")
            low, high = int(lows[-1]), int(highs[-1])
            at, window = at + window, window * 2
        return None

    def _kept(self, batch: pa.RecordBatch) -> _Mask | None:
        if self.settings.filter is None:
            return None
        return mask_of(self.settings.filter(self._to_frame(batch)), batch.num_rows, "filter")

    def _triggers(self, batch: pa.RecordBatch) -> _Rows | None:
        if self.settings.trigger is None:
            return None
        return np.flatnonzero(mask_of(self.settings.trigger(self._to_frame(batch)), batch.num_rows, "trigger"))


def mask_of(value: Any, rows: int, name: str) -> _Mask:
    """What a user's function ``name`` returned of so many rows, as a mask.

    Raises:
        SettingsError: it is none.
    """
    mask = np.asarray(value)
    if mask.shape != (rows,) or mask.dtype != np.bool_:
        raise SettingsError(
            f"{name} has to return one True or False for each of the {rows} rows, "
            f"it returned {type(value).__name__} of {mask.dtype}, shape {mask.shape}"
        )
    return mask
