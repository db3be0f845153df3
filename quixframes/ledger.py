"""Which rows of one partition are finished, and what may therefore be committed. Pure: no I/O, no clock.

A group's committed offset says "everything before me is finished". A reader does not finish in that order: streams
interleave in a partition, buffers hold rows back, and a row batch rarely ends where a message ends. So a ledger keeps,
for one partition, every message that was taken and is not finished, by rows. Its strategy and invariants:

- The committable offset is that of the first message with an unfinished row: it never passes an unfinished row.
- What is finished beyond it goes, compactly, into the text that Kafka keeps with a committed offset (4,096 bytes by
  default). A ledger made from a committed offset and that text knows these rows, and does not hand them out again.
- Where the text would be too long, it remembers fewer messages, the earliest first. Forgetting is safe: those rows come
  again.
- Offsets may have gaps (compaction, transaction markers): an offset that was never taken holds nothing back.
"""

from __future__ import annotations

import base64
import bisect
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["METADATA_LIMIT", "Ledger", "Pending", "Rows"]

METADATA_LIMIT = 4096
"""Kafka's default for the most bytes it keeps with a committed offset (``offset.metadata.max.bytes``)."""

_PREFIX = "qf1:"
# Beyond this, what somebody else's text inflates to is not ours; ours stays far below it.
_MOST_INFLATED = 1 << 20

Rows = tuple[int, int]
"""Rows of a message, as [start, stop)."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The message that holds a partition's commits back: its offset, its unfinished rows, and the label given to
    ``take``."""

    offset: int
    rows: int
    label: Any


@dataclass(slots=True)
class _Open:
    """A message that is taken and not finished; ``finished`` is sorted and its parts neither overlap nor touch."""

    rows: int
    finished: list[Rows]
    label: Any

    left: int

    def finish(self, start: int, stop: int) -> int:
        """Mark rows; how many of them were not finished before."""
        runs, before = self.finished, self.left
        if runs and runs[-1][1] == start:  # as it nearly always is: rows are finished in order
            runs[-1] = (runs[-1][0], stop)
            self.left -= stop - start
        else:
            at = bisect.bisect_left(runs, (start, stop))
            runs.insert(at, (start, stop))
            self.finished = list(_merged(runs))
            self.left = self.rows - sum(after - first for first, after in self.finished)
        return before - self.left


class Ledger:
    """The messages of one partition, from a committed position on.

    Args:
        offset: the committed offset, or where reading starts.
        metadata: the text that was committed with it; anything that no ledger wrote counts as "nothing remembered".
        limit: the most bytes of text that the cluster keeps.

    >>> ledger = Ledger(offset=7)
    >>> ledger.take(7, rows=100), ledger.take(8, rows=50)
    ([(0, 100)], [(0, 50)])
    >>> ledger.finish(8, 0, 50), ledger.finish(7, 0, 60)
    (50, 60)
    >>> offset, text = ledger.committable()
    >>> offset                                            # 7 is not finished
    7
    >>> again = Ledger(offset, text)                      # after a restart
    >>> again.take(7, rows=100), again.take(8, rows=50)   # what is left of 7, and nothing of 8
    ([(60, 100)], [])
    """

    def __init__(self, offset: int, metadata: str = "", *, limit: int = METADATA_LIMIT) -> None:
        self._limit = limit
        # Messages in the order they were taken: their offsets, and whether each is finished. A flag is found by
        # bytearray.find, so that a commit costs no walk over what is finished already.
        self._offsets = array("q")
        self._done = bytearray()
        self._front = 0
        self.forgets = False
        """Whether the text that :meth:`committable` gave last had to leave something out."""
        self.rows_left = 0
        """How many rows are taken and not finished."""
        self._open: dict[int, tuple[int, _Open]] = {}
        self._next = offset
        self._known_whole, self._known_parts = _parse(metadata, offset)

    def take(self, offset: int, rows: int, label: Any = None) -> list[Rows]:
        """Take in the next message of the partition, and return which of its rows are still to be processed.

        Offsets have to rise from call to call. A message without rows is finished at once.
        """
        self._pass(offset)
        finished: list[Rows] = []
        if self._known_whole or self._known_parts:
            if self._is_known_whole(offset):
                finished = [(0, rows)]
            else:
                parts = self._known_parts.pop(offset, [])
                finished = [(start, min(stop, rows)) for start, stop in parts if start < rows]
        return self._enter(offset, rows, finished, label)

    def take_whole(self, offset: int, label: Any = None) -> list[Rows]:
        """Take in the next message of the partition as one row: one that cannot be read, whose rows nobody can tell.

        Where not all of its rows are known to be finished, none of them counts as finished.
        """
        self._pass(offset)
        self._known_parts.pop(offset, None)
        return self._enter(offset, 1, [(0, 1)] if self._is_known_whole(offset) else [], label)

    def finish(self, offset: int, start: int, stop: int) -> int:
        """Mark rows [start, stop) of a message that was taken as finished; rows that are so already may be among
        them. How many were not."""
        entry = self._open.get(offset)
        if entry is None:
            return 0
        at, message = entry
        finished = message.finish(start, stop)
        self.rows_left -= finished
        if not message.left:
            self._done[at] = 1
            del self._open[offset]
        return finished

    def committable(self) -> tuple[int, str]:
        """The offset to commit, and the text to commit with it."""
        self._advance()
        self.forgets = False
        if self._front == len(self._done):
            return self._next, self._remembered(self._next)
        offset = self._offsets[self._front]
        return offset, self._remembered(offset)

    def pending(self) -> Pending | None:
        """What holds the partition's commits back; None where nothing does."""
        self._advance()
        if self._front == len(self._done):
            return None
        offset = self._offsets[self._front]
        message = self._open[offset][1]
        return Pending(offset, message.left, message.label)

    @property
    def next(self) -> int:
        """The offset after the last message taken."""
        return self._next

    @property
    def unfinished(self) -> int:
        """How many messages are taken and not finished."""
        return len(self._open)

    def _pass(self, offset: int) -> None:
        if offset < self._next:
            raise ValueError(f"offset {offset} was taken already: the next can be {self._next}")
        self._next = offset + 1

    def _enter(self, offset: int, rows: int, finished: list[Rows], label: Any) -> list[Rows]:
        left = _complement(finished, rows)
        self._offsets.append(offset)
        self._done.append(not left)
        if left:
            count = sum(stop - start for start, stop in left)
            self._open[offset] = (len(self._done) - 1, _Open(rows, finished, label, count))
            self.rows_left += count
        return left

    def _advance(self) -> None:
        front = self._done.find(0, self._front)
        self._front = len(self._done) if front < 0 else front
        if self._front > 4096 and self._front * 2 > len(self._done):
            # What is behind the front is not asked for again.
            del self._done[: self._front]
            del self._offsets[: self._front]
            self._open = {offset: (at - self._front, message) for offset, (at, message) in self._open.items()}
            self._front = 0

    def _is_known_whole(self, offset: int) -> bool:
        at = bisect.bisect_right(self._known_whole, (offset, float("inf"))) - 1
        return at >= 0 and offset < self._known_whole[at][1]

    def _remembered(self, base: int) -> str:
        whole = [*self._whole_runs(), *((max(a, self._next), b) for a, b in self._known_whole if b > self._next)]
        parts = {offset: message.finished for offset, (_, message) in self._open.items() if message.finished}
        parts |= {offset: runs for offset, runs in self._known_parts.items() if offset >= self._next}
        if not whole and not parts:
            return ""
        text = _text(base, whole, parts)
        keep = len(whole) + len(parts)
        self.forgets = len(text) > self._limit
        while len(text) > self._limit and keep:
            keep = min(keep - 1, keep * self._limit // len(text))
            horizon = sorted([a for a, _ in whole] + list(parts))[keep]
            text = _text(
                base,
                [run for run in whole if run[0] < horizon],
                {offset: runs for offset, runs in parts.items() if offset < horizon},
            )
        return text if len(text) <= self._limit else ""

    def _whole_runs(self) -> Iterator[Rows]:
        """Ranges of offsets [first, after) from the front on whose messages are all finished."""
        at = self._done.find(1, self._front)
        while at >= 0:
            end = self._done.find(0, at)
            end = len(self._done) if end < 0 else end
            yield self._offsets[at], self._offsets[end - 1] + 1
            at = self._done.find(1, end)


def _merged(runs: Iterable[Rows]) -> Iterator[Rows]:
    """The same rows as runs that neither overlap nor touch; ``runs`` is sorted."""
    first, after = -1, -1
    for start, stop in runs:
        if start <= after:
            after = max(after, stop)
        else:
            if after > first:
                yield first, after
            first, after = start, stop
    if after > first:
        yield first, after


def _complement(runs: Iterable[Rows], rows: int) -> list[Rows]:
    left, at = [], 0
    for start, stop in runs:
        if start > at:
            left.append((at, start))
        at = max(at, stop)
    if at < rows:
        left.append((at, rows))
    return left


# The text: "qf1:" and the base85 of a deflated run of numbers, each as an unsigned LEB128 varint:
#   how many ranges of finished messages, then each as (gap since the end of the one before, length);
#   how many messages that are finished in part, then each as (gap since the one before, how many runs of rows, and
#   those as (gap, length)).
# Gaps and lengths are small numbers that repeat, which is what deflating is good at.


def _text(base: int, whole: list[Rows], parts: dict[int, list[Rows]]) -> str:
    raw = bytearray()
    _put_runs(raw, base, whole)
    _put(raw, len(parts))
    at = base
    for offset in sorted(parts):
        _put(raw, offset - at)
        _put_runs(raw, 0, parts[offset])
        at = offset
    return _PREFIX + base64.b85encode(zlib.compress(bytes(raw), 9)).decode()


def _parse(text: str, base: int) -> tuple[list[Rows], dict[int, list[Rows]]]:
    """What a text remembers: ranges of finished offsets, and finished rows by offset."""
    if not text.startswith(_PREFIX):
        return [], {}
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b85decode(text[len(_PREFIX) :]), _MOST_INFLATED)
        if not inflate.eof:
            return [], {}
        numbers = _numbers(raw)
        whole = _take_runs(numbers, base)
        parts, at = {}, base
        for _ in range(next(numbers)):
            at += next(numbers)
            parts[at] = _take_runs(numbers, 0)
    except (ValueError, zlib.error, StopIteration):
        return [], {}
    return whole, parts


def _put(raw: bytearray, number: int) -> None:
    while number >= 0x80:
        raw.append(number & 0x7F | 0x80)
        number >>= 7
    raw.append(number)


def _put_runs(raw: bytearray, at: int, runs: list[Rows]) -> None:
    _put(raw, len(runs))
    for start, stop in runs:
        _put(raw, start - at)
        _put(raw, stop - start)
        at = stop


def _numbers(raw: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in raw:
        if shift > 63:
            raise ValueError("a number that no offset can be")
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0


def _take_runs(numbers: Iterator[int], at: int) -> list[Rows]:
    runs = []
    for _ in range(next(numbers)):
        start = at + next(numbers)
        at = start + next(numbers)
        runs.append((start, at))
    return runs
