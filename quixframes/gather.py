"""From messages that were read ahead to row batches that are ready: decoding, ledgers, and the buffers of all streams.

For one thread, without waiting and without signals in the middle (see ``signals``). What this module holds to:

- A message is entered in its partition's ledger once. If a step fails half-way (a message that cannot be read, a filter
  that raises), the next call goes on where it stopped: no row is skipped, and none comes twice.
- What belongs to a partition that went is dropped.
- What all buffers hold together is bounded: past it, the rows that were held first are released early.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal

import pyarrow as pa

from quixframes.batch import Claim, RowBatch, StreamReader
from quixframes.buffer import Release, RowBuffer
from quixframes.errors import WireError
from quixframes.frames import FrameDecoder
from quixframes.kafka import Partition, Record
from quixframes.poller import Assignment, Chunk, Poller
from quixframes.settings import BufferSettings
from quixframes.wire import MessageDecoder

__all__ = ["Gatherer"]

log = logging.getLogger(__name__)

_Key = tuple[Assignment, str]


class Gatherer:
    """Holds what one input topic has read and not yet handed over.

    Args:
        topic: its name.
        poller: whose lock guards the ledgers.
        most_held: the bytes that all buffers together may hold.
        on_bad_message: "raise" a message that cannot be read, or "skip" it.
        commit: what ``RowBatch.commit`` calls.
    """

    def __init__(
        self,
        topic: str,
        poller: Poller,
        *,
        most_held: int,
        on_bad_message: Literal["raise", "skip"],
        commit: Callable[[list[Claim]], bool],
    ) -> None:
        self._topic = topic
        self._poller = poller
        self._most_held = most_held
        self._on_bad_message = on_bad_message
        self._commit = commit
        self._messages = MessageDecoder()
        self._frames = FrameDecoder()
        self._settings: BufferSettings | None = None
        # Of the first record, the ranges of rows that are still to go to their buffer; None where it is not in its
        # ledger yet. It stays first until all have gone.
        self._records: deque[tuple[Assignment, Record]] = deque()
        self._ranges: list[tuple[int, int]] | None = None
        self._beyond: list[tuple[Assignment, Record]] = []
        self._reached: set[Assignment] = set()
        # Those that hold rows are again in `_held`, in the order in which their time will be up.
        self._buffers: dict[_Key, RowBuffer] = {}
        self._held: dict[_Key, RowBuffer] = {}
        self._held_bytes = 0
        self.ready: deque[RowBatch] = deque()
        self.streams: dict[str, StreamReader] = {}
        self.bad_messages = 0

    def begin(self, settings: BufferSettings) -> None:
        """Go on by these rules. Rows that were held by others are released first."""
        if settings != self._settings:
            self.release_held("settings")
            self._buffers.clear()
            self._settings = settings

    def end(self) -> None:
        """A loop is over: what lay beyond its end comes first in the next one."""
        self._records.extendleft(reversed(self._beyond))
        self._beyond.clear()
        self._reached.clear()

    def add(self, chunk: Chunk) -> None:
        """Take in what was read ahead."""
        for assignment, records in chunk:
            self._records.extend([(assignment, record) for record in records])

    def step(self, ends: Mapping[Partition, int] | None) -> bool:
        """Decode one message, up to ``ends`` if there are any; False where there is none."""
        if not self._records:
            return False
        assignment, record = self._records[0]
        end = None if ends is None else ends.get(assignment.partition, 0)
        if not assignment.owned:
            self._ranges = None
        elif end is not None and record.offset >= end:
            self._beyond.append(self._records[0])
            self._reached.add(assignment)
        else:
            self._take(assignment, record)
            if end is not None and record.offset + 1 == end:
                self._reached.add(assignment)
        self._records.popleft()
        return True

    def reached(self, assignment: Assignment) -> bool:
        """Whether a message at the end of the loop's range has been met in this partition."""
        return assignment in self._reached

    def expire(self, now: float) -> None:
        """Release what was held for as long as it may be."""
        while self._held:
            deadline = self.deadline
            if deadline is None or deadline > now:
                return
            self._release_oldest("timeout")

    @property
    def deadline(self) -> float | None:
        """When something has to be released next."""
        return next(iter(self._held.values())).deadline if self._held else None

    def release_held(self, reason: str) -> None:
        """Release everything that is held."""
        while self._held:
            self._release_oldest(reason)

    def forget_lost(self) -> None:
        """Drop what belongs to partitions that are no longer ours."""
        for key in [key for key in self._buffers if not key[0].owned]:
            self._held_bytes -= self._buffers.pop(key).nbytes
            self._held.pop(key, None)

    def _take(self, assignment: Assignment, record: Record) -> None:
        try:
            message = self._messages.decode(record)
        except WireError as exc:
            if self._on_bad_message == "raise":
                raise
            self.bad_messages += 1
            log.warning("skipped a message: %s", exc)
            self._enter(assignment, record.offset, 0, None)
            return
        if self._ranges is None:
            self._ranges = self._enter(assignment, record.offset, message.batch.num_rows, message.stream_id)
        key = (assignment, message.stream_id)
        buffer = self._buffers.get(key)
        if buffer is None:
            assert self._settings is not None
            buffer = self._buffers[key] = RowBuffer(self._settings, self._frames.decode)
        held, since = buffer.nbytes, buffer.since
        try:
            self._to_buffer(key, buffer, message.batch, record.offset)
        finally:
            self._held_bytes += buffer.nbytes - held
            if buffer.since != since:
                # It holds a first row anew, or nothing: among those that hold rows, its time is up last.
                self._held.pop(key, None)
                if buffer.rows:
                    self._held[key] = buffer
        self._ranges = None
        while self._held_bytes > self._most_held and self._held:
            self._release_oldest("memory")

    def _enter(self, assignment: Assignment, offset: int, rows: int, stream_id: str | None) -> list[tuple[int, int]]:
        """Enter a message in its ledger; which of its rows are to be processed."""
        if assignment.ledger is None:
            return [(0, rows)] if rows else []
        with self._poller.lock:
            return assignment.ledger.take(offset, rows, (stream_id, time.time()))

    def _to_buffer(self, key: _Key, buffer: RowBuffer, batch: pa.RecordBatch, offset: int) -> None:
        ledger = key[0].ledger
        now = time.monotonic()
        while self._ranges:
            start, stop = self._ranges[0]
            part = batch if stop - start == batch.num_rows else batch.slice(start, stop - start)
            added = buffer.add(part, now, offset, start)
            del self._ranges[0]
            if added.dropped and ledger is not None:
                with self._poller.lock:
                    for piece in added.dropped:
                        ledger.finish(*piece)
            for release in added.releases:
                self._release(key, release)

    def _release_oldest(self, reason: str) -> None:
        key = next(iter(self._held))
        buffer = self._held.pop(key)
        self._held_bytes -= buffer.nbytes
        release = buffer.release(reason)
        if release is not None:
            self._release(key, release)

    def _release(self, key: _Key, release: Release) -> None:
        assignment, stream_id = key
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self.streams[stream_id] = StreamReader(self._topic, stream_id)
        claim = Claim(assignment, release.pieces, release.batch.num_rows)
        self.ready.append(RowBatch(release.batch, stream, release.reason, self._frames, claim, self._commit))
