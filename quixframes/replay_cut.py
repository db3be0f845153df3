"""The rows of a message that a replay asked for: in the range, with the tags, where the condition holds; and of these
the columns. Pure.

What this module holds to:

- A row is in the range where ``start <= time < end``, to the nanosecond.
- A column that was not asked for is never made one of pandas'. An expression is evaluated in Arrow, and may name any
  column; a function is given a frame of the columns that were asked for.
- What is kept of a message keeps no more of it in memory than about twice its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc

from quixframes import frames
from quixframes.buffer import mask_of
from quixframes.errors import FrameError, SettingsError
from quixframes.frames import FrameDecoder
from quixframes.replay_asked import Asked, Span
from quixframes.wire import Kind, Message, event_times

__all__ = ["Cut", "Cutter", "rows_with_tags", "rows_within"]

_Mask = npt.NDArray[np.bool_]


class Cut(NamedTuple):
    """What is left of a message's rows or events, and how many were outside of the range, and not wanted."""

    batch: pa.RecordBatch
    outside: int
    unwanted: int


class Cutter:
    """Cuts messages. One for each reading; it remembers which columns it met."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._times = asked.times
        self._decoder = FrameDecoder()
        self._met: set[str] = set()
        self._lacking: str | None = None  # what Arrow said of a column that the expression names and no message had
        self._answered = False  # whether any message had all columns of the expression
        self._plain = self._times.is_open and not asked.tags and asked.where is None

    def cut(self, message: Message) -> Cut:
        """What of a message was asked for; the message has rows or events."""
        batch = message.batch
        assert batch is not None
        of_rows = message.kind is Kind.PARAMETERS
        if of_rows:
            self._met.update(batch.schema.names)
        if self._plain:
            return Cut(self._pruned(batch) if of_rows else batch, 0, 0)
        whole = batch.num_rows
        batch = _kept(batch, rows_within(batch, self._times))
        inside = batch.num_rows
        if inside and self._asked.tags:
            batch = _kept(batch, rows_with_tags(batch, self._asked.tags))
        if of_rows:
            if isinstance(self._asked.where, pc.Expression) and batch.num_rows:
                batch = _kept(batch, self._where(batch, self._asked.where))
            batch = self._pruned(batch)
            if callable(self._asked.where) and batch.num_rows:
                mask = mask_of(self._asked.where(self._decoder.decode(batch)), batch.num_rows, "where")
                batch = _kept(batch, mask)
        if 2 * batch.num_rows < whole:
            batch = frames.compacted(batch)
        return Cut(batch, whole - inside, inside - batch.num_rows)

    def check(self, topics: tuple[str, ...]) -> None:
        """Raise `FrameError` where a column that was asked for is in none of the messages that were cut, of which
        there were some with rows."""
        if not self._met:
            return
        of = f"topic {topics[0]!r}" if len(topics) == 1 else f"topics {', '.join(map(repr, topics))}"
        for column in self._asked.columns or ():
            if column not in self._met:
                raise FrameError(f"no message of {of} has a column {column!r}", column=column)
        if self._lacking is not None:
            raise FrameError(f"where={self._asked.where}: no message of {of} has all of its columns: {self._lacking}")

    def _pruned(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._asked.columns is None:
            return batch
        have = [column for column in self._asked.columns if column in batch.schema.names and column != frames.TIME]
        return frames.compacted(batch.select([frames.TIME, *dict.fromkeys(have)]))

    def _where(self, batch: pa.RecordBatch, condition: pc.Expression) -> _Mask:
        try:
            mask = _evaluated(batch, condition)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, pa.ArrowTypeError) as exc:
            if "No match for FieldRef" not in str(exc):
                raise SettingsError(f"where={condition} cannot be asked of these rows: {exc}") from exc
            if self._lacking is None and not self._answered:
                self._lacking = str(exc).splitlines()[0][:200]
            return np.zeros(batch.num_rows, np.bool_)
        self._answered, self._lacking = True, None
        return mask


def rows_within(batch: pa.RecordBatch, times: Span) -> _Mask | None:
    """Which rows of a batch in normal form are in a range; None where all are."""
    if times.is_open or not batch.num_rows:
        return None
    found = event_times(batch)
    if times.holds(int(found.min()), int(found.max())):
        return None
    mask = np.ones(len(found), np.bool_)
    if times.start is not None:
        mask &= found >= times.start
    if times.end is not None:
        mask &= found < times.end
    return mask


def rows_with_tags(batch: pa.RecordBatch, tags: Mapping[str, frozenset[str | None]]) -> _Mask | None:
    """Which rows have, of each tag, one of its values; a tag that the batch lacks is missing in all its rows."""
    mask: _Mask = np.ones(batch.num_rows, np.bool_)
    for column, values in tags.items():
        if column in batch.schema.names:
            array = batch.column(column)
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            wanted = pa.array([value for value in values if value is not None], pa.large_string())
            found = pc.is_in(array.cast(pa.large_string()), wanted)
            chosen = pc.or_(found, array.is_null()) if None in values else found
            mask = mask & chosen.to_numpy(zero_copy_only=False)
        elif None not in values:
            mask[:] = False
    return mask


def _kept(batch: pa.RecordBatch, mask: _Mask | None) -> pa.RecordBatch:
    if mask is None or mask.all():
        return batch
    kept = np.flatnonzero(mask)
    if not len(kept):
        return batch.slice(0, 0)
    first, last = int(kept[0]), int(kept[-1])
    if last - first + 1 == len(kept):  # a range of sorted times, mostly: no copy
        return batch.slice(first, len(kept))
    return frames.keep_rows(batch, mask)


def _evaluated(batch: pa.RecordBatch, condition: pc.Expression) -> _Mask:
    """Where a condition is true; where it is unknown, since a value is missing, it is not."""
    declaration = acero.Declaration.from_sequence(
        [
            acero.Declaration("table_source", acero.TableSourceNodeOptions(pa.Table.from_batches([batch]))),
            acero.Declaration("project", acero.ProjectNodeOptions([condition], ["keep"])),
        ]
    )
    column = declaration.to_table(use_threads=False).column(0)
    if not pa.types.is_boolean(column.type):
        raise SettingsError(f"where={condition} has to be true or false of each row, it is {column.type}")
    mask: _Mask = column.fill_null(False).to_numpy(zero_copy_only=False)
    return mask
