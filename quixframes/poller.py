"""The thread that owns a consumer: it keeps the membership, reads ahead, commits when asked, and starts partitions.

What this module holds to:

- Only this thread calls the consumer. It never waits for the model: membership does not hang on how long a batch takes.
- What is read ahead is bounded in bytes. Past the bound the partitions are paused, and polled on for the membership.
- A partition is an :class:`Assignment` for as long as it stays here. Whatever belongs to one that ended (records, held
  rows, commits) is dropped, since the partition's next owner is handed the same rows.
- It does not fall silent. What will not mend itself is raised in the reading thread; what may is logged and counted.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

from quixframes.assignment import Account, Assignment, Chunk
from quixframes.errors import (
    ClosedError,
    CommitError,
    GroupMovedOnError,
    OffsetGoneError,
    QuixframesError,
    TopicNotFoundError,
)
from quixframes.kafka import Admin, Change, Consumer, Offset, Partition, Polled, Rebalance, Record
from quixframes.ledger import Ledger
from quixframes.logs import Place
from quixframes.outage import Outage
from quixframes.retention_gap import RetentionGap
from quixframes.settings import Hooks, ReaderSettings, byte_count, seconds
from quixframes.subscription import Start, Subscription

__all__ = ["COMMIT_TIMEOUT", "Handover", "Poller"]

log = logging.getLogger(__name__)

# How long one poll may wait for records. It bounds how long a commit waits for the thread, so it is short while a batch
# is out, and longer while nobody can commit anything.
_POLL_BUSY = 0.005
_POLL_IDLE = 0.05
_POLL_PAUSED = 0.1
COMMIT_TIMEOUT = 30.0
"""Seconds that a commit is tried for, where nobody says otherwise."""
_LOOK_EVERY = 1.0
_TOPICS_EVERY = 10.0  # seconds between two looks at which topics a pattern matches, and which partitions there are


@dataclass(frozen=True, slots=True, eq=False)
class Handover:
    """Partitions that are about to go to another instance, and what is to be committed for them before."""

    assignments: list[Assignment]
    offsets: Future[Mapping[Partition, Offset]]


class Poller:
    """Runs a consumer in a thread of its own.

    Args:
        consumer: the consumer; it is this object's from now on.
        subscription: what to read.
        topics: the topics that this is, for a start.
        group: whether the consumer is a member of a group, which assigns and to which is committed.
        admin: to look up topics and offsets.
        start: where to begin without a committed offset.
        settings: limits and time-outs.
        hooks: told of rebalances and commits, in this thread; their errors are logged.
        found: told the topics that are about to be read, when a pattern has come to match others.
    """

    def __init__(
        self,
        consumer: Consumer,
        subscription: Subscription,
        topics: frozenset[str],
        *,
        group: bool,
        admin: Admin,
        start: Start,
        settings: ReaderSettings,
        hooks: Hooks,
        found: Callable[[frozenset[str]], object],
    ) -> None:
        self._consumer = consumer
        self._subscription = subscription
        self.topics = topics
        self._topic = str(subscription)
        self._place = Place(self._topic)
        self.has_group = group
        self._admin = admin
        self._start = start
        self._hooks = hooks
        self._found = found
        self._on_gone = settings.on_gone
        self._most_bytes = byte_count(settings.prefetch)
        self._model_timeout = None if settings.model_timeout is None else seconds(settings.model_timeout)
        self.lock = threading.RLock()
        """Guards the assignments, their ledgers and accounts."""
        self._changed = threading.Condition(self.lock)
        self._chunks: deque[tuple[Chunk, int]] = deque()
        self._bytes = 0
        self._commits: deque[tuple[Collection[Assignment], Future[bool], float]] = deque()
        self._handovers: deque[Handover] = deque()
        self._rewinds: list[Future[None]] = []
        self._error: QuixframesError | None = None
        self._closing: float | None = None
        self._paused: frozenset[Partition] = frozenset()
        self._starting: set[Partition] = set()
        self._gone: dict[Partition, int] = {}
        self.assignments: dict[Partition, Assignment] = {}
        self.accounts: dict[Partition, Account] = {}
        """The rows of every partition that was ever this reader's."""
        self.assigned_once = not group
        self.generation = 0
        self.departures = 0
        """How often a partition went, or was let go."""
        self._loop: int | None = None  # the thread of the loop that runs, which can finish what is about to go
        self.batch_out_since: float | None = None
        self._next_look = 0.0
        self._next_topics = time.monotonic() + _TOPICS_EVERY
        self.outage = Outage(self._topic, seconds(settings.warn_after))
        self.messages_gone = 0
        self.bytes_read = 0
        self.messages_read = 0
        self.rebalances = 0
        self.commits = 0
        self.commits_moved_on = 0
        try:
            # "From now on" means from the opening on, and not from when the group has settled.
            self._begin = {
                Partition(topic, n): offset
                for topic in sorted(topics)
                for n, offset in start.offsets(admin, topic).items()
            }
            if group:
                consumer.subscribe(topics, self._revoking)
            else:
                consumer.assign(self._begin)
                self.assignments = {at: self._assignment(at, None, offset) for at, offset in self._begin.items()}
        except BaseException:
            consumer.close(1.0)
            raise
        self._thread = threading.Thread(target=self._run, name=f"quixframes-reader-{self._topic}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """What is read."""
        return self._topic

    # For the reading thread

    def peek(self, timeout: float) -> Chunk:
        """The first of what was read ahead, which stays there; empty where nothing arrives within ``timeout`` seconds,
        or partitions are about to go.

        Raises:
            QuixframesError: what ended the reading.
        """
        with self._changed:
            if not self._chunks and self._error is None and timeout > 0:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._chunks or self._handovers or self._error is not None, timeout)
            if self._error is not None:
                raise self._error
            return self._chunks[0][0] if self._chunks else []

    def drop_peeked(self, chunk: Chunk) -> None:
        """What :meth:`peek` returned was taken over."""
        with self._changed:
            if self._chunks and self._chunks[0][0] is chunk:  # which it is not where reading was set back meanwhile
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
            return not (self._chunks or self._paused or self._starting or self.outage.trouble)

    def to_commit(self) -> set[Assignment]:
        """The assignments of which more is finished than was committed."""
        with self.lock:
            return {assignment for assignment in self.assignments.values() if assignment.uncommitted is not None}

    def commit(self, assignments: Collection[Assignment], timeout: float) -> bool:
        """Commit what is finished of assignments, and wait for the cluster's acknowledgement.

        Returns whether all of them are still ours.

        Raises:
            CommitError: it was not acknowledged within ``timeout`` seconds.
        """
        try:
            return self.commit_soon(assignments, timeout).result(timeout)
        except TimeoutError:
            raise CommitError(
                f"a commit to topic {self._topic!r} was not acknowledged within {timeout:g} s"
                + (f" ({self.outage.trouble})" if self.outage.trouble else "")
            ) from None

    def commit_soon(self, assignments: Collection[Assignment], timeout: float = COMMIT_TIMEOUT) -> Future[bool]:
        """Have the thread commit what is finished of assignments; the future has what :meth:`commit` returns. What does
        not come off is tried again, for so many seconds."""
        done: Future[bool] = Future()
        with self._changed:
            if not self._thread.is_alive():
                raise self._error or ClosedError(f"reading of topic {self._topic!r} has ended")
            self._commits.append((assignments, done, time.monotonic() + timeout))
            self._changed.notify_all()
        return done

    def committed(self, offsets: Mapping[Assignment, Offset]) -> None:
        """Take note of what was committed."""
        self.commits += 1
        with self.lock:
            for assignment, offset in offsets.items():
                assignment.committed = offset
        self._tell("committed", {assignment.partition: at.offset for assignment, at in offsets.items()})

    def moved_on(self, exc: GroupMovedOnError) -> None:
        """Take note of a commit that came too late. It is not the model's error: the rows come again at the partitions'
        new owner."""
        self.commits_moved_on += 1
        log.warning(
            "%s: a commit came too late, the rows will be delivered again: %s",
            self._place, exc, extra=self._place.extra,
        )  # fmt: skip

    def membership(self) -> object:
        """What a transaction needs to commit for this member."""
        return self._consumer.membership()

    def let_go(self) -> None:
        """Let go of everything that is not committed: nothing of it can be committed from here on."""
        with self.lock:
            for assignment in self.assignments.values():
                self._let_go(assignment)

    def _let_go(self, assignment: Assignment) -> None:
        if assignment.owned:
            assignment.let_go()
            self.departures += 1

    def rewind(self, timeout: float) -> None:
        """Let go of everything that is not committed, and read on from what the group has committed: all of it is
        delivered again.

        Raises:
            BrokerError: it did not come off within ``timeout`` seconds, or the reading has ended.
        """
        done: Future[None] = Future()
        with self._changed:
            if not self._thread.is_alive():
                raise self._error or ClosedError(f"reading of topic {self._topic!r} has ended")
            self._rewinds.append(done)
            self._changed.notify_all()
        try:
            done.result(timeout)
        except TimeoutError:
            raise CommitError(f"topic {self._topic!r} could not be set back within {timeout:g} s") from None

    @property
    def handover(self) -> Handover | None:
        """The first of the handovers that wait for the loop; None where there is none."""
        with self.lock:
            while self._handovers and self._handovers[0].offsets.done():  # it took too long
                self._handovers.popleft()
            return self._handovers[0] if self._handovers else None

    def hand_over(self, handover: Handover) -> None:
        """Let partitions go, with what is finished of them. What finishes later is not committed: from here on somebody
        else may have it."""
        with self.lock:
            offsets = {a.partition: at for a in handover.assignments if (at := a.uncommitted) is not None}
            for assignment in handover.assignments:
                self._let_go(assignment)
            if handover in self._handovers:
                self._handovers.remove(handover)
        with contextlib.suppress(InvalidStateError):
            handover.offsets.set_result(offsets)

    def enter_loop(self) -> None:
        """A loop runs from now on, in this thread."""
        self._loop = threading.get_ident()

    @property
    def in_loop_of_another_thread(self) -> bool:
        """Whether a loop runs that is not the caller's."""
        return self._loop not in (None, threading.get_ident())

    def leave_loop(self) -> None:
        """No loop runs any more, which could finish what is about to go."""
        with self.lock:
            self._loop = None
            self.batch_out_since = None
        while (handover := self.handover) is not None:
            self.hand_over(handover)

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
        self._do_rewinds()
        try:
            try:
                self._start_partitions()
                self._skip_gone()
                self._take_in(self._consumer.poll(self._wait()))
            except TopicNotFoundError:
                if self._subscription.pattern is None:
                    raise
                self._next_topics = 0.0  # one that matched is gone: others may be left
            self._look()
        except QuixframesError as exc:
            if not exc.retriable:
                self._fail(exc)
                return
            self.outage.note(str(exc), time.monotonic())
            time.sleep(_POLL_PAUSED)
        except Exception as exc:
            log.exception("%s: reading failed", self._place, extra=self._place.extra)
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
                    lambda: self._wanted or self._bytes < self._most_bytes // 2,
                    _POLL_PAUSED,
                )
                return 0.0
            if self._wanted:
                return 0.0
            if self._chunks:
                # The model has work: commits may come at any moment. They are noticed here, and not in a poll.
                self._changed.wait_for(lambda: self._wanted or not self._chunks, _POLL_BUSY)
                return 0.0
            return _POLL_IDLE if out is None else _POLL_BUSY

    @property
    def _wanted(self) -> bool:
        """Whether somebody waits for this thread."""
        return bool(self._commits or self._rewinds) or self._closing is not None

    def _set_paused(self, partitions: frozenset[Partition]) -> None:
        if to_pause := partitions - self._paused:
            self._consumer.pause(to_pause)
        if to_resume := (self._paused - partitions) & frozenset(self.assignments):
            self._consumer.resume(to_resume)
        self._paused = partitions

    def _take_in(self, polled: Polled) -> None:
        for rebalance in polled.rebalances:
            self._rebalance(rebalance)
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
                    assignment.arrived = records[-1].offset + 1
                    self.messages_read += len(records)
            if chunk:
                self._chunks.append((chunk, size))
                self._bytes += size
                self.bytes_read += size
            for at, assignment in self.assignments.items():
                assignment.position = self._consumer.position(at) or assignment.position
            self._note_lag(assignment for assignment, _ in chunk)
            if chunk or polled.rebalances:
                self._changed.notify_all()

    def _note_lag(self, assignments: Iterable[Assignment]) -> None:
        for assignment in assignments:
            assignment.behind = self._consumer.lag(assignment.partition)

    def _rebalance(self, rebalance: Rebalance) -> None:
        self.rebalances += 1
        ours = sorted(rebalance.partitions)
        log.info(
            "%s: %s %s",
            self._place, rebalance.change.value, ", ".join(map(str, ours)) or "no partitions", extra=self._place.extra,
        )  # fmt: skip
        if rebalance.change is Change.Assigned:
            self._starting |= rebalance.partitions
            with self._changed:
                self.assigned_once = True
            self._tell("assigned", ours)
            if not self.assignments and not self._starting:
                log.info(
                    "%s: the group has no partition for this instance, which waits for one",
                    self._place, extra=self._place.extra,
                )  # fmt: skip
        else:
            with self.lock:
                streams = {at: sorted(a.streams) if (a := self.assignments.get(at)) else [] for at in ours}
            self._drop(rebalance.partitions)
            self._tell(rebalance.change.value, streams)

    def _tell(self, event: str, news: object) -> None:
        hook = getattr(self._hooks, event)
        if hook is not None:
            try:
                hook(news)
            except Exception:
                log.exception("%s: the hook %r failed", self._place, event, extra=self._place.extra)

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
            self._commit_start({at: starts[at] for at in fresh})
        with self._changed:
            for at, offset in starts.items():
                self.assignments[at] = self._assignment(at, Ledger(*offset), offset.offset, offset)
                self._consumer.seek(at, offset.offset)
            self._starting.clear()
            self.generation += 1

    def _commit_start(self, offsets: dict[Partition, Offset]) -> None:
        try:
            self._consumer.commit(offsets)
        except CommitError as exc:
            log.warning(
                "%s: where the group begins could not be committed: %s", self._place, exc, extra=self._place.extra
            )

    def _assignment(
        self, at: Partition, ledger: Ledger | None, offset: int, committed: Offset | None = None
    ) -> Assignment:
        account = self.accounts.setdefault(at, Account())
        return Assignment(at, ledger, offset, committed=committed, account=account)

    def _do_rewinds(self) -> None:
        with self._changed:
            if not self._rewinds:
                return
            again = {at for at, assignment in self.assignments.items() if not assignment.leaving}
            for assignment in self.assignments.values():
                self._let_go(assignment)
            self.assignments.clear()
            self._gone.clear()
            self._chunks.clear()
            self._bytes = 0
            self._starting |= again
            self.generation += 1
            rewinds, self._rewinds = self._rewinds, []
        for done in rewinds:
            done.set_result(None)

    def _drop(self, partitions: frozenset[Partition]) -> None:
        with self._changed:
            self._starting -= partitions
            self._paused -= partitions
            for at in partitions:
                self._gone.pop(at, None)
                assignment = self.assignments.pop(at, None)
                if assignment is not None:
                    self._let_go(assignment)
            self.generation += 1

    def _skip_gone(self) -> None:
        """Go on after a part of the log that is no longer there, or raise, as the user chose; and say so."""
        for at, wanted in list(self._gone.items()):
            first = self._admin.beginnings(at.topic)[at.number]
            latest = self._on_gone == "latest"
            gap = RetentionGap(at, wanted, first, self._admin.ends(at.topic)[at.number] if latest else first)
            self.messages_gone += gap.messages
            del self._gone[at]
            if self._on_gone == "raise":
                self._tell("gone", gap)
                raise OffsetGoneError(
                    f"{at}: {gap}. To go on with what is left, open the topic with "
                    "ReaderSettings(on_gone='earliest'), or 'latest'",
                    gap=gap,
                )
            log.warning("%s: %s; going on at %d", at, gap, gap.next, extra=Place(*at, wanted).extra)
            self._go_on(at, gap.next, anew=latest)
            self._tell("gone", gap)

    def _go_on(self, at: Partition, offset: int, *, anew: bool) -> None:
        """Read a partition on from somewhere else; with ``anew``, have the group begin there too, as far as nothing of
        before is left to be finished."""
        with self._changed:
            old = self.assignments[at]
            if old.ledger is None:
                old.gaps.append(offset)
            else:
                waits = old.ledger.rows_left or any(one is old for chunk, _ in self._chunks for one, _ in chunk)
                anew = anew and not waits
                if anew or offset < old.ledger.next:
                    self._let_go(old)
                    self.assignments[at] = self._assignment(at, Ledger(offset), offset)
                    self.generation += 1
                else:
                    old.gaps.append(offset)
            self._consumer.seek(at, offset)
        if anew and self.has_group:
            # A restart before the first commit would come to a later end, and pass over what came in between.
            self._commit_start({at: Offset(offset)})

    # Commits

    def _do_commits(self) -> None:
        while True:
            with self._changed:
                if not self._commits:
                    return
                assignments, done, deadline = waiting = self._commits.popleft()
                # Asked here, and not by who wants the commit: so that two of them cannot come in the wrong order.
                offsets = {a: Offset(*a.ledger.committable()) for a in assignments if a.owned and a.ledger is not None}
            try:
                done.set_result(self._commit(offsets) and len(offsets) == len(assignments))
            except CommitError as exc:
                if time.monotonic() > deadline or self._closing is not None:
                    done.set_exception(exc)
                    continue
                # The group may be sharing its partitions out, or its coordinator be away: polling sees that through.
                with self._changed:
                    self._commits.appendleft(waiting)
                return
            except Exception as exc:
                done.set_exception(exc)

    def _commit(self, offsets: dict[Assignment, Offset]) -> bool:
        if not offsets:
            return True
        try:
            self._consumer.commit({assignment.partition: offset for assignment, offset in offsets.items()})
        except GroupMovedOnError as exc:
            self.moved_on(exc)
            return False
        self.committed(offsets)
        return True

    def _revoking(self, partitions: frozenset[Partition]) -> Future[Mapping[Partition, Offset]]:
        """Partitions are about to go: have the loop finish them, if there is one. May run in the client's own
        thread."""
        with self._changed:
            ours = [a for at in partitions if (a := self.assignments.get(at)) is not None and a.owned]
            handover = Handover(ours, Future())
            for assignment in ours:
                assignment.leaving = True
            if ours and self._loop is not None and self._closing is None and self._error is None:
                self._handovers.append(handover)
                self._changed.notify_all()
                return handover.offsets
        self.hand_over(handover)
        return handover.offsets

    # What is looked at now and then

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY
            with self.lock:
                self._note_lag(self.assignments.values())
            self.outage.note(self._consumer.trouble(), now)
        if now >= self._next_topics:
            self._next_topics = now + _TOPICS_EVERY
            if not self.has_group:
                self._look_for_partitions()
            elif self._subscription.pattern is not None:
                self._look_for_topics()

    def _look_for_topics(self) -> None:
        topics = self._subscription.topics(self._admin)
        if topics != self.topics:
            log.info("%s: these match now: %s", self._place, ", ".join(sorted(topics)), extra=self._place.extra)
            self._found(topics)
            self._consumer.subscribe(topics, self._revoking)
            self.topics = topics

    def _look_for_partitions(self) -> None:
        """Read partitions from their beginning on that were added; a group's members are told of theirs."""
        there = {
            Partition(topic, n): first for topic in self.topics for n, first in self._admin.beginnings(topic).items()
        }
        if new := {at: first for at, first in there.items() if at not in self.assignments}:
            log.info("%s: new partitions: %s", self._place, ", ".join(map(str, sorted(new))), extra=self._place.extra)
            with self._changed:
                self._consumer.assign({at: one.position for at, one in self.assignments.items()} | new)
                self.assignments |= {at: self._assignment(at, None, first) for at, first in new.items()}
                self._paused = frozenset()

    def _end(self) -> None:
        deadline = self._closing if self._closing is not None else time.monotonic() + 5
        try:
            self._do_commits()
        finally:
            try:
                self._consumer.close(max(0.1, deadline - time.monotonic()))
            except QuixframesError as exc:
                log.warning("%s: leaving was not clean: %s", self._place, exc, extra=self._place.extra)
            with self._changed:
                for assignment in self.assignments.values():
                    self._let_go(assignment)
                ended = ClosedError(f"reading of topic {self._topic!r} has ended")
                for _, committed, _ in self._commits:
                    committed.set_exception(ended)
                for rewound in self._rewinds:
                    rewound.set_exception(ended)
                self._commits.clear()
                self._rewinds.clear()
                self._error = self._error or ClosedError(f"topic {self._topic!r} is closed")
                self._changed.notify_all()
