"""The thread that owns a consumer: it keeps the membership, reads ahead, commits when asked, and starts partitions.

What this module holds to:

- Only this thread calls the consumer. It never waits for the model: membership does not hang on how long a batch takes.
- What is read ahead is bounded in bytes. Past the bound the partitions are paused, and polled on for the membership.
- A partition is an :class:`Assignment` for as long as it stays here. Whatever belongs to one that ended (records, held
  rows, commits) is dropped, since the partition's next owner is handed the same rows.
- It does not fall silent. What will not mend itself is raised in the reading thread; what may is logged and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from quixframes.errors import ClosedError, CommitError, GroupMovedOnError, QuixframesError
from quixframes.kafka import Admin, Change, Consumer, Offset, Partition, Polled, Record
from quixframes.ledger import Ledger
from quixframes.settings import AutoOffsetReset, Hooks, ReaderSettings, byte_count, seconds

__all__ = ["Assignment", "Chunk", "Poller", "Start"]

log = logging.getLogger(__name__)

# How long one poll may wait for records. It bounds how long a commit waits for the thread, so it is short while a batch
# is out, and longer while nobody can commit anything.
_POLL_BUSY = 0.005
_POLL_IDLE = 0.05
_POLL_PAUSED = 0.1
_TROUBLE_EVERY = 1.0


@dataclass(slots=True, eq=False)
class Assignment:
    """One partition, for as long as this reader has it.

    ``position`` is the offset up to which its records have been handed to the reading thread; ``ledger`` is None where
    there is no group to commit to; ``gaps`` are the offsets at which it goes on after messages that are gone.
    """

    partition: Partition
    ledger: Ledger | None
    position: int
    committed: Offset | None = None
    owned: bool = True
    gaps: deque[int] = field(default_factory=deque)


Chunk = list[tuple[Assignment, list[Record]]]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a partition is read from that has no committed offset: a broker time, or what ``reset`` says."""

    reset: AutoOffsetReset
    timestamp_ms: int | None = None

    @property
    def is_earliest(self) -> bool:
        """Whether that is the first retained message."""
        return self.timestamp_ms is None and self.reset is AutoOffsetReset.Earliest

    def offsets(self, admin: Admin, topic: str) -> dict[int, int]:
        """The offset for each partition of a topic."""
        if self.timestamp_ms is not None:
            return admin.offsets_at(topic, self.timestamp_ms)
        return admin.beginnings(topic) if self.reset is AutoOffsetReset.Earliest else admin.ends(topic)


class Poller:
    """Runs a consumer in a thread of its own.

    Args:
        consumer: the consumer; it is this object's from now on.
        topic: what to read.
        group: whether the consumer is a member of a group, which assigns and to which is committed.
        admin: to look up offsets.
        start: where to begin without a committed offset.
        settings: limits and time-outs.
        hooks: told of rebalances and commits, in this thread; their errors are logged.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        *,
        group: bool,
        admin: Admin,
        start: Start,
        settings: ReaderSettings,
        hooks: Hooks,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self.has_group = group
        self._admin = admin
        self._start = start
        self._hooks = hooks
        self._most_bytes = byte_count(settings.prefetch)
        self._warn_after = seconds(settings.warn_after)
        self._model_timeout = None if settings.model_timeout is None else seconds(settings.model_timeout)
        self.lock = threading.RLock()
        """Guards the assignments and their ledgers."""
        self._changed = threading.Condition(self.lock)
        self._chunks: deque[tuple[Chunk, int]] = deque()
        self._bytes = 0
        self._commits: deque[tuple[Collection[Assignment], Future[bool]]] = deque()
        self._error: QuixframesError | None = None
        self._closing: float | None = None
        self._paused: frozenset[Partition] = frozenset()
        self._starting: set[Partition] = set()
        self._gone: dict[Partition, int] = {}
        self.assignments: dict[Partition, Assignment] = {}
        self.assigned_once = not group
        self.generation = 0
        self.batch_out_since: float | None = None
        self._next_look = 0.0
        self._warned = False
        self.trouble: str | None = None
        self.trouble_since: float | None = None
        self.waited = 0.0
        self.messages_gone = 0
        self.commits = 0
        self.commits_moved_on = 0
        try:
            # "From now on" means from the opening on, and not from when the group has settled.
            self._begin = {Partition(topic, n): offset for n, offset in start.offsets(admin, topic).items()}
            if group:
                consumer.subscribe([topic], self._revoking)
            else:
                consumer.assign(self._begin)
                self.assignments = {at: Assignment(at, None, offset) for at, offset in self._begin.items()}
        except BaseException:
            consumer.close(1.0)
            raise
        self._thread = threading.Thread(target=self._run, name=f"quixframes-reader-{topic}", daemon=True)
        self._thread.start()

    # For the reading thread

    def peek(self, timeout: float) -> Chunk:
        """The first of what was read ahead, which stays there; empty where nothing arrives within ``timeout`` seconds.

        Raises:
            QuixframesError: what ended the reading.
        """
        with self._changed:
            if not self._chunks and self._error is None and timeout > 0:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._chunks or self._error is not None, timeout)
            if self._error is not None:
                raise self._error
            return self._chunks[0][0] if self._chunks else []

    def drop_peeked(self) -> None:
        """What :meth:`peek` returned was taken over."""
        with self._changed:
            self._bytes -= self._chunks.popleft()[1]
            self._changed.notify_all()

    def drained(self, ends: Mapping[Partition, int], reached: Callable[[Assignment], bool]) -> bool:
        """Whether every partition that is ours has been taken over up to ``ends``; ``reached`` says so of some."""
        with self.lock:
            if not self.assigned_once or self._starting:
                return False
            waiting = {assignment for chunk, _ in self._chunks for assignment, _ in chunk}
            return all(
                reached(assignment) or (assignment.position >= ends.get(at, 0) and assignment not in waiting)
                for at, assignment in self.assignments.items()
            )

    @property
    def caught_up(self) -> bool:
        """Whether nothing was read ahead, and nothing that is known of keeps more from being read."""
        with self.lock:
            return not (self._chunks or self._paused or self._starting or self.trouble)

    def to_commit(self) -> set[Assignment]:
        """The assignments of which more is finished than was committed."""
        with self.lock:
            return {
                assignment
                for assignment in self.assignments.values()
                if assignment.ledger is not None and Offset(*assignment.ledger.committable()) != assignment.committed
            }

    def commit(self, assignments: Collection[Assignment], timeout: float) -> bool:
        """Commit what is finished of assignments, and wait for the cluster's acknowledgement.

        Returns whether all of them are still ours.

        Raises:
            CommitError: it was not acknowledged within ``timeout`` seconds.
        """
        try:
            return self.commit_soon(assignments).result(timeout)
        except TimeoutError:
            raise CommitError(
                f"a commit to topic {self._topic!r} was not acknowledged within {timeout:g} s"
                + (f" ({self.trouble})" if self.trouble else "")
            ) from None

    def commit_soon(self, assignments: Collection[Assignment]) -> Future[bool]:
        """Have the thread commit what is finished of assignments; the future has what :meth:`commit` returns."""
        done: Future[bool] = Future()
        with self._changed:
            if not self._thread.is_alive():
                raise self._error or ClosedError(f"reading of topic {self._topic!r} has ended")
            self._commits.append((assignments, done))
            self._changed.notify_all()
        return done

    def close(self, timeout: float) -> None:
        """Commit what is finished, leave the group, end the thread."""
        with self._changed:
            if self._closing is None:
                self._closing = time.monotonic() + timeout
            self._changed.notify_all()
        self._thread.join(timeout + 1)

    @property
    def error(self) -> QuixframesError | None:
        """What ended the reading; None while it goes on."""
        return self._error

    @property
    def prefetched_bytes(self) -> int:
        """Bytes that are read ahead."""
        return self._bytes

    # The thread

    def _run(self) -> None:
        try:
            while self._closing is None and self._error is None:
                self._turn()
        finally:
            # Also after an error: a reader that reads no more keeps no partition from the others.
            self._end()

    def _turn(self) -> None:
        self._do_commits()
        try:
            self._start_partitions()
            self._skip_gone()
            polled = self._consumer.poll(self._wait())
            self._take_in(polled)
            self._look_for_trouble()
        except QuixframesError as exc:
            if exc.retriable:
                self._note_trouble(str(exc))
                time.sleep(_POLL_PAUSED)
            else:
                self._fail(exc)
        except Exception as exc:
            log.exception("reading of topic %s failed", self._topic)
            error = QuixframesError(f"reading of topic {self._topic!r} failed: {exc!r}")
            error.__cause__ = exc
            self._fail(error)

    def _fail(self, error: QuixframesError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def _wait(self) -> float:
        """Pause or resume as the bytes read ahead demand, and say how long the next poll may wait."""
        out = self.batch_out_since
        if out is not None and self._model_timeout is not None and time.monotonic() - out > self._model_timeout:
            raise QuixframesError(
                f"a batch of topic {self._topic!r} was held for longer than model_timeout={self._model_timeout:g} s: "
                "its partitions were given up, and its rows come again elsewhere"
            )
        with self._changed:
            everything = frozenset(self.assignments)
            if self._bytes > self._most_bytes:
                self._set_paused(everything)
            elif self._paused and self._bytes < self._most_bytes // 2:
                self._set_paused(frozenset())
            elif self._paused:
                self._set_paused(everything)
            if self._paused:
                # Nothing can arrive: wait where a commit, or room for more, can be noticed.
                self._changed.wait_for(
                    lambda: self._commits or self._closing is not None or self._bytes < self._most_bytes // 2,
                    _POLL_PAUSED,
                )
                return 0.0
            if self._commits:
                return 0.0
            if self._chunks:
                # The model has work: commits may come at any moment. They are noticed here, and not in a poll.
                self._changed.wait_for(
                    lambda: self._commits or self._closing is not None or not self._chunks, _POLL_BUSY
                )
                return 0.0
            return _POLL_IDLE if out is None else _POLL_BUSY

    def _set_paused(self, partitions: frozenset[Partition]) -> None:
        if to_pause := partitions - self._paused:
            self._consumer.pause(to_pause)
        if to_resume := (self._paused - partitions) & frozenset(self.assignments):
            self._consumer.resume(to_resume)
        self._paused = partitions

    def _take_in(self, polled: Polled) -> None:
        for rebalance in polled.rebalances:
            log.info("%s of topic %s: %s", rebalance.change.value, self._topic, _named(rebalance.partitions))
            if rebalance.change is Change.Assigned:
                self._starting |= rebalance.partitions
                with self._changed:
                    self.assigned_once = True
            else:
                self._drop(rebalance.partitions)
            self._tell(rebalance.change.value, sorted(at.number for at in rebalance.partitions))
        self._gone |= {at: offset for at, offset in (polled.gone or {}).items() if at in self.assignments}
        by_partition: dict[tuple[str, int], list[Record]] = {}
        size = 0
        for record in polled.records:
            by_partition.setdefault((record.topic, record.partition), []).append(record)
            size += len(record.value) if record.value is not None else 0
        with self._changed:
            chunk: Chunk = []
            for (topic, number), records in by_partition.items():
                assignment = self.assignments.get(Partition(topic, number))
                if assignment is not None:
                    chunk.append((assignment, records))
            if chunk:
                self._chunks.append((chunk, size))
                self._bytes += size
            for at, assignment in self.assignments.items():
                assignment.position = self._consumer.position(at) or assignment.position
            if chunk or polled.rebalances:
                self._changed.notify_all()

    def _tell(self, event: str, news: object) -> None:
        hook = getattr(self._hooks, event)
        if hook is not None:
            try:
                hook(news)
            except Exception:
                log.exception("the hook %r of topic %s failed", event, self._topic)

    def _start_partitions(self) -> None:
        """Begin the partitions that were assigned: where the group left off, remembering what it had finished
        beyond."""
        if not self._starting:
            return
        committed = self._consumer.committed(self._starting)
        fresh = {at for at in self._starting if committed.get(at) is None}
        starts = {at: committed.get(at) or Offset(self._begin.get(at, 0)) for at in self._starting}
        if fresh and not self._start.is_earliest:
            # "From now on" is a place in the log from here on: a restart before the first commit must not move it.
            try:
                self._consumer.commit({at: starts[at] for at in fresh})
            except CommitError as exc:
                log.warning("topic %s: where the group begins could not be committed: %s", self._topic, exc)
        with self._changed:
            for at, offset in starts.items():
                self.assignments[at] = Assignment(at, Ledger(*offset), offset.offset, committed=offset)
                self._consumer.seek(at, offset.offset)
            self._starting.clear()
            self.generation += 1

    def _drop(self, partitions: frozenset[Partition]) -> None:
        with self._changed:
            self._starting -= partitions
            self._paused -= partitions
            for at in partitions:
                self._gone.pop(at, None)
                assignment = self.assignments.pop(at, None)
                if assignment is not None:
                    assignment.owned = False
            self.generation += 1

    def _skip_gone(self) -> None:
        """Go on after a part of the log that is no longer there, and say so."""
        for at, wanted in list(self._gone.items()):
            first = self._admin.beginnings(at.topic)[at.number]
            if first > wanted:
                self.messages_gone += first - wanted
                log.warning(
                    "%s: retention removed offsets %d to %d (%d messages) before they were read",
                    at, wanted, first - 1, first - wanted,
                )  # fmt: skip
            else:
                log.warning("%s: offset %d is not in the topic (was it made anew?); going on at %d", at, wanted, first)
            with self._changed:
                old = self.assignments[at]
                if old.ledger is not None and first < old.ledger.next:
                    old.owned = False
                    self.assignments[at] = Assignment(at, Ledger(first), first)
                    self.generation += 1
                else:
                    old.gaps.append(first)
                self._consumer.seek(at, first)
                del self._gone[at]

    # Commits

    def _do_commits(self) -> None:
        while True:
            with self._changed:
                if not self._commits:
                    return
                assignments, done = self._commits.popleft()
                # Asked here, and not by who wants the commit: so that two of them cannot come in the wrong order.
                offsets = {a: Offset(*a.ledger.committable()) for a in assignments if a.owned and a.ledger is not None}
            try:
                done.set_result(self._commit(offsets) and len(offsets) == len(assignments))
            except Exception as exc:
                done.set_exception(exc)

    def _commit(self, offsets: dict[Assignment, Offset]) -> bool:
        if not offsets:
            return True
        try:
            self._consumer.commit({assignment.partition: offset for assignment, offset in offsets.items()})
        except GroupMovedOnError as exc:
            # Not the model's error: the rows come again at the partitions' new owner.
            self.commits_moved_on += 1
            log.warning("topic %s: a commit came too late, the rows will be delivered again: %s", self._topic, exc)
            return False
        self.commits += 1
        with self.lock:
            for assignment, offset in offsets.items():
                assignment.committed = offset
        self._tell("committed", {assignment.partition.number: at.offset for assignment, at in offsets.items()})
        return True

    def _revoking(self, partitions: frozenset[Partition]) -> Future[Mapping[Partition, Offset]]:
        """What is finished and not committed, of partitions that are about to go. May run in the client's own
        thread."""
        done: Future[Mapping[Partition, Offset]] = Future()
        with self.lock:
            offsets = {}
            for at in partitions:
                assignment = self.assignments.get(at)
                if assignment is not None and assignment.owned and assignment.ledger is not None:
                    offset = Offset(*assignment.ledger.committable())
                    # From here on somebody else may have it: what finishes later is not committed.
                    assignment.owned = False
                    if offset != assignment.committed:
                        offsets[at] = offset
        done.set_result(offsets)
        return done

    # Trouble

    def _look_for_trouble(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _TROUBLE_EVERY
            self._note_trouble(self._consumer.trouble())

    def _note_trouble(self, trouble: str | None) -> None:
        now = time.monotonic()
        if trouble is None:
            if self.trouble_since is not None:
                self.waited += now - self.trouble_since
                if self._warned:
                    log.warning("topic %s: reading again after %.0f s", self._topic, now - self.trouble_since)
            self.trouble, self.trouble_since, self._warned = None, None, False
            return
        self.trouble = trouble
        if self.trouble_since is None:
            self.trouble_since = now
        if not self._warned and now - self.trouble_since >= self._warn_after:
            self._warned = True
            log.warning("topic %s: the cluster is out of reach, waiting for it: %s", self._topic, trouble)

    def _end(self) -> None:
        deadline = self._closing if self._closing is not None else time.monotonic() + 5
        try:
            self._do_commits()
        finally:
            try:
                self._consumer.close(max(0.1, deadline - time.monotonic()))
            except QuixframesError as exc:
                log.warning("topic %s: leaving was not clean: %s", self._topic, exc)
            with self._changed:
                for assignment in self.assignments.values():
                    assignment.owned = False
                for _, done in self._commits:
                    done.set_exception(ClosedError(f"reading of topic {self._topic!r} has ended"))
                self._commits.clear()
                self._error = self._error or ClosedError(f"topic {self._topic!r} is closed")
                self._changed.notify_all()


def _named(partitions: frozenset[Partition]) -> str:
    return ", ".join(str(at) for at in sorted(partitions)) or "no partitions"
