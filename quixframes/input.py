"""Reading: a topic as row batches, and the commits that say which rows are processed.

What this module holds to:

- A loop over batches belongs to one thread. The consumer has another (``poller``), so a slow model loses no partition.
- A batch is finished when the model says so (manual), or when the loop asks for the next one (automatic). A batch whose
  processing raised, or that the loop was left with, is not finished: its rows come again.
- Before rows are committed, everything this client has written until then is acknowledged by the cluster.
- Rows that are held survive the loop: the next ``batches`` call goes on with them.
"""

from __future__ import annotations

import html
import logging
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Literal, Self

import pandas as pd

from quixframes.batch import Claim, RowBatch, StreamReader
from quixframes.buffer import Release, RowBuffer
from quixframes.errors import ClosedError, CommitError, QuixframesError, SettingsError, WireError
from quixframes.frames import FrameDecoder
from quixframes.kafka import Admin, Offset, Partition, Record
from quixframes.output import Outputs
from quixframes.poller import Assignment, Poller
from quixframes.settings import (
    BufferSettings,
    CommitMode,
    CommitSettings,
    Duration,
    ReaderSettings,
    byte_count,
    seconds,
    whole_number,
)
from quixframes.wire import MessageDecoder

__all__ = ["InputTopic", "buffer_settings"]

log = logging.getLogger(__name__)

_LONGEST_WAIT = 0.5
_COMMIT_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Where a loop ends by itself."""

    ends: dict[Partition, int] | None
    rows: int | None
    idle: float | None


class InputTopic:
    """A topic to read from, as :meth:`StreamingClient.open_input_topic` opens it.

    >>> with client.open_input_topic("engine", "pace-model") as topic:                          # doctest: +SKIP
    ...     for batch in topic.batches(rows=5_000, time_span="1s"):
    ...         model(batch.frame)
    """

    def __init__(
        self,
        topic: str,
        group: str | None,
        poller: Poller,
        admin: Admin,
        *,
        commit: CommitSettings,
        reader: ReaderSettings,
        on_bad_message: Literal["raise", "skip"],
        outputs: Outputs,
        on_close: Callable[[InputTopic], None],
    ) -> None:
        self.name = topic
        self.consumer_group = group
        self.commit_settings = commit
        self._poller = poller
        self._admin = admin
        self._most_held = byte_count(reader.held)
        self._on_bad_message = on_bad_message
        self._outputs = outputs
        self._on_close = on_close
        self._commit_every = seconds(commit.every)
        self._automatic = commit.mode is CommitMode.Automatic
        self._messages = MessageDecoder()
        self._frames = FrameDecoder()
        # What was read ahead; of the first message, which of its rows are still to go to their buffer (None: not known
        # yet). It stays first until they have, so that after an error the next loop meets it again.
        self._records: deque[tuple[Assignment, Record]] = deque()
        self._taken: list[tuple[int, int]] | None = None
        self._ready: deque[RowBatch] = deque()
        self._streams: dict[str, StreamReader] = {}
        # Buffers by partition and stream; those that hold rows again in the order in which their time will be up.
        self._buffers: dict[tuple[Assignment, str], RowBuffer] = {}
        self._held: dict[tuple[Assignment, str], RowBuffer] = {}
        self._held_bytes = 0
        self._settings: BufferSettings | None = None
        self._generation = -1
        # Batches that were handed over and are not finished, with the number of outputs that had failed by then.
        self._handed: dict[Claim, int] = {}
        self._finished: list[Claim] = []
        self._finished_rows = 0
        self._finished_since = 0.0
        self._looping: int | None = None
        self._terminated = False
        self._closed = False
        self.rows_read = 0
        self.bad_messages = 0

    # The loop

    def batches(
        self,
        buffer: BufferSettings | None = None,
        *,
        until: Literal["now"] | None = None,
        max_rows: int | None = None,
        idle: Duration | None = None,
        **rules: Any,
    ) -> Iterator[RowBatch]:
        """Row batches, as they arrive; for ever, unless bounded.

        Args:
            buffer: when rows are released as a batch; or give its fields themselves, as in
                ``batches(rows=5_000, time_span="1s", timeout="2s")``. Default: 10,000 rows or 1 s, whichever first.
            until: "now" ends the loop with the last row that was in the topic at this call.
            max_rows: ends the loop once so many rows or more were handed over.
            idle: ends the loop once nothing has arrived for so long.

        A loop that ends by itself first hands over what is held (but for ``max_rows``: the next loop goes on with it).
        ``break`` ends it as cleanly; the batch it was left with is not finished unless it was committed.

        Raises:
            SettingsError: settings that cannot be, or a second loop while one runs.
            WireError: a message that cannot be read, unless the topic was opened with ``on_bad_message="skip"``.
            BrokerError: what will not mend itself. An unreachable cluster is waited for, logged and counted.
        """
        settings = buffer_settings(buffer, rules)
        self._check_open()
        if until not in (None, "now"):
            raise SettingsError(f"until={until!r} has to be 'now' or None")
        if max_rows is not None:
            whole_number(max_rows, "max_rows", least=1)
        ends = {Partition(self.name, n): end for n, end in self._admin.ends(self.name).items()} if until else None
        bounds = _Bounds(ends, max_rows, None if idle is None else seconds(idle, name="idle"))
        return self._loop(settings, bounds)

    def _loop(self, settings: BufferSettings, bounds: _Bounds) -> Iterator[RowBatch]:
        if self._looping is not None:
            raise SettingsError(f"topic {self.name!r} is being read in a loop already: it can have one at a time")
        self._looping = threading.get_ident()
        try:
            if settings != self._settings:
                self._release_held("settings")
                self._buffers.clear()
                self._settings = settings
            with self._sigterm():
                yield from self._hand_over(self._gather(bounds), bounds)
        finally:
            self._poller.batch_out_since = None
            self._looping = None

    def _hand_over(self, batches: Iterator[RowBatch], bounds: _Bounds) -> Iterator[RowBatch]:
        rows = 0
        for batch in batches:
            if not batch._claim.assignment.owned:
                continue
            if self._poller.has_group:
                self._handed[batch._claim] = self._outputs.failures
            batch.stream.rows += len(batch)
            batch.stream.batches += 1
            self.rows_read += len(batch)
            self._poller.batch_out_since = time.monotonic()
            yield batch
            # The loop has asked for the next batch: this one went well.
            self._poller.batch_out_since = None
            if self._automatic and batch._claim in self._handed:
                self._finish_later(batch._claim)
            rows += len(batch)
            if bounds.rows is not None and rows >= bounds.rows:
                return
            if self._terminated:
                sys.exit(128 + signal.SIGTERM)

    def _gather(self, bounds: _Bounds) -> Iterator[RowBatch]:
        """Batches in the order in which they are released."""
        last = time.monotonic()
        while True:
            while self._ready:
                yield self._ready.popleft()
            if self._records:
                self._take(*self._records[0])
                self._records.popleft()
                continue
            now = time.monotonic()
            self._expire(now)
            if self._ready:
                continue
            if self._closed:
                return
            chunk = self._poller.take(0.0)
            if not chunk:
                self._commit_if_due()
                if bounds.ends is not None and self._poller.drained(bounds.ends):
                    break
                if bounds.idle is not None and now - last >= bounds.idle:
                    break
                self._waiting = True
                if self._terminated:
                    sys.exit(128 + signal.SIGTERM)
                chunk = self._poller.take(self._longest_wait(now, last, bounds))
                self._waiting = False
            if self._generation != self._poller.generation:
                self._forget_lost()
            for assignment, records in chunk:
                self._records.extend((assignment, record) for record in records)
                last = time.monotonic()
        self._release_held("end")
        while self._ready:
            yield self._ready.popleft()
        self._commit_if_due()

    _waiting = False

    def _longest_wait(self, now: float, last: float, bounds: _Bounds) -> float:
        ends = [_LONGEST_WAIT]
        if bounds.idle is not None:
            ends.append(last + bounds.idle - now)
        if self._finished:
            ends.append(self._finished_since + self._commit_every - now)
        for buffer in self._held.values():
            if buffer.deadline is not None:
                ends.append(buffer.deadline - now)
            break
        return max(0.001, min(ends))

    def _take(self, assignment: Assignment, record: Record) -> None:
        """Take in one message: its rows go to the buffer of their stream."""
        if not assignment.owned:
            return
        try:
            message = self._messages.decode(
                record.key,
                record.value,
                record.headers,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            )
        except WireError as exc:
            if self._on_bad_message == "raise":
                raise
            self.bad_messages += 1
            log.warning("skipped a message: %s", exc)
            self._note(assignment, record.offset, 0, None)
            return
        key = (assignment, message.stream_id)
        buffer = self._buffers.get(key)
        if buffer is None:
            assert self._settings is not None
            buffer = self._buffers[key] = RowBuffer(self._settings, self._frames.decode)
        rows = message.batch.num_rows
        if self._taken is None:
            self._taken = self._note(assignment, record.offset, rows, message.stream_id)
        held, since = buffer.nbytes, buffer.since
        now = time.monotonic()
        while self._taken:
            start, stop = self._taken[0]
            part = message.batch if stop - start == rows else message.batch.slice(start, stop - start)
            added = buffer.add(part, now, record.offset, start)
            del self._taken[0]
            if added.dropped and assignment.ledger is not None:
                with self._poller.lock:
                    for piece in added.dropped:
                        assignment.ledger.finish(*piece)
            for release in added.releases:
                self._release(key, release)
        self._taken = None
        self._held_bytes += buffer.nbytes - held
        if buffer.since != since:
            # It holds a first row anew, or nothing: among those that hold rows, its time is up last.
            self._held.pop(key, None)
            if buffer.rows:
                self._held[key] = buffer
        if self._held_bytes > self._most_held:
            self._release_oldest()

    def _note(self, assignment: Assignment, offset: int, rows: int, stream_id: str | None) -> list[tuple[int, int]]:
        if assignment.ledger is None:
            return [(0, rows)] if rows else []
        with self._poller.lock:
            return assignment.ledger.take(offset, rows, (stream_id, time.time()))

    def _release(self, key: tuple[Assignment, str], release: Release) -> None:
        assignment, stream_id = key
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = StreamReader(self.name, stream_id)
        self._ready.append(
            RowBatch(
                release.batch,
                stream,
                release.reason,
                self._frames,
                Claim(assignment, release.pieces, release.batch.num_rows),
                self._commit,
            )
        )

    def _expire(self, now: float) -> None:
        while self._held:
            deadline = next(iter(self._held.values())).deadline
            if deadline is None or deadline > now:
                return
            self._release_oldest("timeout")

    def _release_oldest(self, reason: str = "memory") -> None:
        """Release the rows that were held first."""
        key = next(iter(self._held))
        buffer = self._held.pop(key)
        self._held_bytes -= buffer.nbytes
        release = buffer.release(reason)
        if release is not None:
            self._release(key, release)

    def _release_held(self, reason: str) -> None:
        while self._held:
            self._release_oldest(reason)

    def _forget_lost(self) -> None:
        """Drop what belongs to partitions that are no longer ours."""
        self._generation = self._poller.generation
        for key in [key for key in self._buffers if not key[0].owned]:
            self._held_bytes -= self._buffers.pop(key).nbytes
            self._held.pop(key, None)
        for claim in [claim for claim in self._handed if not claim.assignment.owned]:
            del self._handed[claim]

    # Commits

    def commit(self) -> bool:
        """Say that every batch handed over so far is processed, and commit; as :meth:`RowBatch.commit` does for one."""
        return self._commit(list(self._handed))

    def _finish_later(self, claim: Claim) -> None:
        if not self._finished:
            self._finished_since = time.monotonic()
        self._finished.append(claim)
        self._finished_rows += claim.rows
        self._commit_if_due()

    def _commit_if_due(self) -> None:
        if self._finished and (
            self._finished_rows >= self.commit_settings.rows
            or time.monotonic() - self._finished_since >= self._commit_every
        ):
            self._commit_finished(_COMMIT_TIMEOUT)

    def _commit_finished(self, timeout: float) -> None:
        """Commit what the loop has finished, but for batches whose results may be among outputs that have failed since:
        nobody can say which those were, so these batches stay unfinished, and come again."""
        self._outputs.flush(timeout)
        claims, self._finished, self._finished_rows = self._finished, [], 0
        sound = [claim for claim in claims if self._handed.get(claim) == self._outputs.failures]
        if len(sound) < len(claims):
            log.warning(
                "topic %s: %d batches are not committed, since outputs failed after they were handed over",
                self.name,
                len(claims) - len(sound),
            )
        self._commit(sound, timeout)

    def _commit(self, claims: list[Claim], timeout: float = _COMMIT_TIMEOUT) -> bool:
        if not self._poller.has_group:
            raise CommitError(
                f"topic {self.name!r} was opened with consumer_group=None, so there is no group to commit for: "
                "open it with a consumer group"
            )
        self._check_open()
        self._outputs.flush(timeout)
        offsets: dict[Assignment, Offset] = {}
        moved: set[Partition] = set()
        with self._poller.lock:
            for claim in claims:
                self._handed.pop(claim, None)
                if not claim.assignment.owned:
                    moved.add(claim.assignment.partition)
                    continue
                claim.finish()
                offsets.setdefault(claim.assignment, Offset(0))
            for assignment in offsets:
                assert assignment.ledger is not None
                offsets[assignment] = Offset(*assignment.ledger.committable())
        for at in moved:
            log.warning("%s moved on to another instance before its rows were committed: they come again there", at)
        return self._poller.commit(offsets, timeout) and len(moved) == 0

    def holding(self) -> pd.DataFrame:
        """What holds each partition's commits back: a row for each partition that has something unfinished.

        Columns: partition, offset (of the first message that is not finished), stream, rows (of it, not finished),
        since (when it was taken in, UTC), messages (taken in and not finished).
        """
        found = []
        with self._poller.lock:
            for at, assignment in self._poller.assignments.items():
                pending = assignment.ledger.pending() if assignment.ledger is not None else None
                if pending is not None and assignment.ledger is not None:
                    stream_id, since = pending.label
                    found.append(
                        (at.number, pending.offset, stream_id, pending.rows, since, assignment.ledger.unfinished)
                    )
        frame = pd.DataFrame(found, columns=["partition", "offset", "stream", "rows", "since", "messages"])
        frame["since"] = pd.to_datetime(frame["since"], unit="s", utc=True)
        return frame

    # State

    @property
    def partitions(self) -> list[int]:
        """The partitions that this instance reads now."""
        with self._poller.lock:
            return sorted(at.number for at in self._poller.assignments)

    @property
    def streams(self) -> dict[str, StreamReader]:
        """The streams of which rows were handed over, by ID."""
        return dict(self._streams)

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read at the moment, as far as is known; None where all is well."""
        return self._poller.trouble

    @property
    def waited(self) -> float:
        """Seconds for which the cluster was out of reach, over the life of this object."""
        return self._poller.waited

    @property
    def prefetched_bytes(self) -> int:
        """Bytes of messages that are read ahead of the loop."""
        return self._poller.prefetched_bytes

    @property
    def messages_gone(self) -> int:
        """How many messages retention removed before this reader came to them."""
        return self._poller.messages_gone

    # Ends

    def close(self, timeout: Duration = "30s") -> None:
        """Commit what is finished, leave the group, and end, within ``timeout``. Closing again does nothing.

        Rows that are held or were handed over and not finished are not committed: they come again.
        """
        if self._closed:
            return
        deadline = time.monotonic() + seconds(timeout, name="timeout")
        try:
            if self._finished:
                self._commit_finished(max(0.1, deadline - time.monotonic()))
        finally:
            self._closed = True
            self._poller.close(max(0.1, deadline - time.monotonic()))
            self._on_close(self)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"topic {self.name!r} is closed: open it again with client.open_input_topic")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except QuixframesError:
            if exc is None:
                raise
            log.exception("closing topic %s after an error: what was finished may come again", self.name)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"partitions {self.partitions}"
        group = f"group {self.consumer_group!r}" if self.consumer_group is not None else "no group"
        return f"<InputTopic {self.name!r}: {group}, {state}, {self.rows_read:,} rows read>"

    def _repr_html_(self) -> str:
        values = (self.consumer_group or "none", ", ".join(map(str, self.partitions)) or "none", f"{self.rows_read:,}")
        cells = "".join(f"<td>{html.escape(value)}</td>" for value in values)
        return (
            f"<table><caption>topic <b>{html.escape(self.name)}</b> (input)</caption>"
            f"<tr><th>group</th><th>partitions</th><th>rows read</th></tr><tr>{cells}</tr></table>"
        )

    @contextmanager
    def _sigterm(self) -> Iterator[None]:
        """While a loop runs in the main thread, SIGTERM ends it after the current batch by ``SystemExit``, so that
        ``with`` blocks close what they opened. A second one ends it at once. A handler of the program's own stays."""
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        ):
            yield
            return

        def terminate(number: int, frame: FrameType | None) -> None:
            if self._waiting or self._terminated:
                sys.exit(128 + number)
            self._terminated = True

        signal.signal(signal.SIGTERM, terminate)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def buffer_settings(buffer: BufferSettings | None, rules: dict[str, Any]) -> BufferSettings:
    if buffer is not None and rules:
        raise SettingsError(f"give either buffer= or its fields ({', '.join(rules)}), not both")
    if unknown := [name for name in rules if name not in BufferSettings.__dataclass_fields__]:
        known = ", ".join(BufferSettings.__dataclass_fields__)
        raise SettingsError(f"batches() has no setting {unknown[0]!r}: there are until, max_rows, idle and {known}")
    return buffer or BufferSettings(**rules)
