"""From messages that were read to row batches that are ready: the buffers of all streams. Live reading and replay share
it.

What this module holds to:

- Which rows come together depends on the messages alone (timeouts and memory aside), so a replay gives what live gave.
- A batch tells the story that was true at its rows: a change of the story releases what was held before it. Messages of
  somebody else, which have no session, say nothing of the stream: what is known of it stays.
- Of a stream that has ended, no more is kept than what it said of itself and how much of it was handed over.
- What all buffers hold together is bounded: past it, the rows that were held first are released early.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from quixframes.assignment import Assignment
from quixframes.batch import Claim, RowBatch, StreamReader
from quixframes.buffer import Piece, Release, RowBuffer
from quixframes.frames import FrameDecoder
from quixframes.settings import BufferSettings
from quixframes.story import Story
from quixframes.wire import Kind, Message, StreamEndType

__all__ = ["Assembler"]

_Key = tuple[Assignment, str]


@dataclass(slots=True)
class _Open:
    """A stream in one partition: what it says of itself at this place there, and what is held of it."""

    reader: StreamReader
    buffer: RowBuffer


class Assembler:
    """Holds the rows and events of streams until they are released.

    Args:
        settings: when rows are released.
        most_held: the bytes that all buffers together may hold.
        commit: what ``RowBatch.commit`` calls; None where there is nothing to commit to.
        dropped: told the pieces that a filter left nothing of, and that no batch will have.
    """

    def __init__(
        self,
        settings: BufferSettings,
        *,
        most_held: int | None = None,
        commit: Callable[[list[Claim]], bool] | None = None,
        dropped: Callable[[Assignment, list[Piece]], None] | None = None,
    ) -> None:
        self.settings = settings
        self._most_held = most_held
        self._commit = commit
        self._dropped = dropped
        self._frames = FrameDecoder()
        # Those that hold rows are again in `_held`, in the order in which their time will be up.
        self._open: dict[_Key, _Open] = {}
        self._held: dict[_Key, RowBuffer] = {}
        self.held_bytes = 0
        """Bytes of rows and events that all buffers together hold."""
        self.ready: deque[RowBatch] = deque()
        self.streams: dict[tuple[str, str], StreamReader] = {}
        """The streams that were met, by topic and ID, as they were told last."""

    def begin(self, settings: BufferSettings) -> None:
        """Go on by these rules. Rows that were held by others are released first."""
        if settings != self.settings:
            self.release_held("settings")
            self._open.clear()
            self.settings = settings

    def add(self, assignment: Assignment, message: Message, offset: int, ranges: list[tuple[int, int]]) -> None:
        """Take in a message: of what is in it, these ranges.

        They are removed from the list as they are taken in, so that a call that raises half-way (a filter of the user's
        may) can be made again.
        """
        key = (assignment, message.stream_id)
        stream = self._open.get(key)
        if stream is None:
            stream = self._open[key] = self._meet(assignment.partition.topic, message)
        if message.story is not stream.reader.story and message.session:
            self._retell(key, stream, message.story)
        if ranges:
            self._take_in(key, stream.buffer, message, offset, ranges)
        if message.end is not None and key not in self._held:
            del self._open[key]

    def _take_in(
        self, key: _Key, buffer: RowBuffer, message: Message, offset: int, ranges: list[tuple[int, int]]
    ) -> None:
        held, since = buffer.nbytes, buffer.since
        try:
            self._to_buffer(key, buffer, message, offset, ranges)
        finally:
            self.held_bytes += buffer.nbytes - held
            if buffer.since != since:
                # It holds a first row anew, or nothing: among those that hold rows, its time is up last.
                self._held.pop(key, None)
                if buffer.since is not None:
                    self._held[key] = buffer
        while self._most_held is not None and self.held_bytes > self._most_held and self._held:
            self._release_oldest("memory")

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
        for key in [key for key in self._open if not key[0].owned]:
            self.held_bytes -= self._open.pop(key).buffer.nbytes
            self._held.pop(key, None)

    def _meet(self, topic: str, message: Message) -> _Open:
        key = topic, message.stream_id
        reader = self.streams.get(key)
        if reader is None:
            reader = self.streams[key] = StreamReader(*key, message.story)
        return _Open(reader, RowBuffer(self.settings, self._frames.decode))

    def _retell(self, key: _Key, stream: _Open, story: Story) -> None:
        if story == stream.reader.story:
            return
        if key in self._held:
            self._release_of(key, stream.buffer, "properties")
        stream.reader = stream.reader.retold(story)
        self.streams[key[0].partition.topic, key[1]] = stream.reader

    def _to_buffer(
        self, key: _Key, buffer: RowBuffer, message: Message, offset: int, ranges: list[tuple[int, int]]
    ) -> None:
        now = time.monotonic()
        if message.end is not None:
            ranges.clear()
            self._release(key, buffer.end(offset), message.end)
            return
        batch, add = message.batch, buffer.add if message.kind is Kind.PARAMETERS else buffer.add_events
        assert batch is not None
        while ranges:
            start, stop = ranges[0]
            part = batch if stop - start == batch.num_rows else batch.slice(start, stop - start)
            added = add(part, now, offset, start)
            del ranges[0]
            if added.dropped and self._dropped is not None:
                self._dropped(key[0], added.dropped)
            for release in added.releases:
                self._release(key, release)

    def _release_oldest(self, reason: str) -> None:
        key = next(iter(self._held))
        self._release_of(key, self._held[key], reason)

    def _release_of(self, key: _Key, buffer: RowBuffer, reason: str) -> None:
        del self._held[key]
        self.held_bytes -= buffer.nbytes
        release = buffer.release(reason)
        if release is not None:
            self._release(key, release)

    def _release(self, key: _Key, release: Release, closed: StreamEndType | None = None) -> None:
        claim = Claim.of(key[0], release, ended=closed is not None)
        self.ready.append(RowBatch(release, self._open[key].reader, self._frames, claim, self._commit, closed))
