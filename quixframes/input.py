"""Reading: a topic as row batches, and the commits that say which rows are processed.

What this module holds to:

- A loop over batches belongs to one thread. The consumer has another (``poller``), so a slow model loses no partition.
- A batch is finished when the model says so (manual), or when the loop asks for the next one (automatic). A batch whose
  processing raised, or that the loop was left with, is not finished: its rows come again.
- Before rows are committed, everything this client has written until then is acknowledged by the cluster.
- A message that went to the dead-letter topic is finished when the cluster has it there, and is committed like rows.
- What is finished without a batch (dead letters, skipped messages, rows that a filter removed) is committed by itself,
  also where rows are committed by hand.
- Rows that are held survive the loop: the next ``batches`` call goes on with them.
"""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from quixframes.batch import Claim, RowBatch, StreamReader
from quixframes.closing import Closing
from quixframes.contracts import Contract
from quixframes.dead_letters import DeadLetters, LetterDesk
from quixframes.errors import (
    BrokerUnavailableError,
    ClosedError,
    CommitError,
    QuixframesError,
    SettingsError,
    WireError,
)
from quixframes.gather import Gatherer
from quixframes.kafka import Admin, Partition
from quixframes.message_reader import MessageReader
from quixframes.output import Outputs
from quixframes.poller import Assignment, Poller
from quixframes.settings import (
    BufferSettings,
    CommitMode,
    CommitSettings,
    Duration,
    FaultSettings,
    ReaderSettings,
    byte_count,
    seconds,
    whole_number,
)
from quixframes.signals import StepSignals

__all__ = ["InputTopic", "buffer_settings"]

log = logging.getLogger(__name__)

_LONGEST_WAIT = 0.5
_LETTERS_LOOK = 0.02
_COMMIT_TIMEOUT = 30.0
_LETTERS_TIMEOUT = 5.0  # that a commit waits for dead letters on their way: it need not, but then they are in it


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Where a loop ends by itself."""

    ends: dict[Partition, int] | None
    rows: int | None
    idle: float | None


class InputTopic(Closing):
    """A topic to read from, as :meth:`StreamingClient.open_input_topic` opens it.

    >>> with client.open_input_topic("engine", "pace-model") as topic:                          # doctest: +SKIP
    ...     for batch in topic.batches(rows=5_000, time_span="1s"):
    ...         model(batch.frame)
    """

    # Named, so that an attribute that is none (``topic.on_stream_received = ...``) is an error.
    __slots__ = (
        "_admin", "_automatic", "_closed", "_commit_every", "_committing", "_finished", "_finished_rows", "_gatherer",
        "_generation", "_handed", "_last_commit", "_letters", "_looping", "_messages", "_on_close", "_outputs",
        "_poller", "_signals", "_to_retry", "commit_settings", "consumer_group", "name", "rows_read",
    )  # fmt: skip

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
        dead_letters: DeadLetters | None,
        messages: MessageReader,
        faults: FaultSettings,
        on_idle: Callable[[StreamReader], object] | None,
        outputs: Outputs,
        on_close: Callable[[InputTopic], None],
    ) -> None:
        self.name = topic
        self.consumer_group = group
        self.commit_settings = commit
        self._poller = poller
        self._messages = messages
        self._admin = admin
        self._outputs = outputs
        self._on_close = on_close
        self._commit_every = seconds(commit.every)
        self._automatic = commit.mode is CommitMode.Automatic
        self._letters = None if dead_letters is None else LetterDesk(dead_letters, poller.lock, self._has_given_up)
        self._gatherer = Gatherer(
            topic,
            poller,
            most_held=byte_count(reader.held),
            on_bad_message=on_bad_message,
            dead_letters=self._letters,
            messages=messages,
            faults=faults,
            idle=None if reader.stream_idle is None else (seconds(reader.stream_idle), on_idle or self._log_idle),
            commit=self._commit,
        )
        self._generation = -1
        # Batches that were handed over and are not finished, with the number of outputs that had failed by then.
        self._handed: dict[Claim, int] = {}
        self._finished: list[Claim] = []
        self._finished_rows = 0  # and dead letters
        self._last_commit = 0.0  # when the last automatic one was due
        # The automatic commit that is under way, and what one that failed has left to be committed.
        self._committing: tuple[set[Assignment], Future[bool]] | None = None
        self._to_retry: set[Assignment] = set()
        self._signals: StepSignals | None = None
        self._looping = False
        self._closed = False
        self.rows_read = 0

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
            until: "now" ends the loop with the last row that was in the topic at this call. What this client has
                written to the topic itself is flushed for it.
            max_rows: ends the loop once so many rows or more were handed over.
            idle: ends the loop once nothing has arrived for so long.

        A loop that ends by itself first hands over what is held (but for ``max_rows``: the next loop goes on with it).
        ``break`` ends it as cleanly; the batch it was left with is not finished unless it was committed.

        Raises:
            SettingsError: settings that cannot be, or a second loop while one runs.
            WireError: a message that cannot be read, unless the topic was opened with ``on_bad_message="skip"`` or
                with ``dead_letters=``.
            DeadLetterError: such a message could not be delivered to the dead-letter topic. It is not committed, and
                the next loop tries it again.
            BrokerError: what will not mend itself. An unreachable cluster is waited for, logged and counted.
        """
        settings = buffer_settings(buffer, rules)
        self._check_open()
        if until not in (None, "now"):
            raise SettingsError(f"until={until!r} has to be 'now' or None")
        if max_rows is not None:
            whole_number(max_rows, "max_rows", least=1)
        ends = None
        if until is not None:
            for topic in self._outputs.topics:
                if topic.name == self.name:
                    topic.flush()
            ends = {Partition(self.name, n): end for n, end in self._admin.ends(self.name).items()}
        bounds = _Bounds(ends, max_rows, None if idle is None else seconds(idle, name="idle"))
        return self._loop(settings, bounds)

    def _loop(self, settings: BufferSettings, bounds: _Bounds) -> Iterator[RowBatch]:
        if self._looping:
            raise SettingsError(f"topic {self.name!r} is being read in a loop already: it can have one at a time")
        self._looping = True
        signals = self._signals = StepSignals()
        try:
            with signals:
                self._gatherer.begin(settings)
                if self._letters is not None:
                    self._letters.send_again()
                yield from self._hand_over(bounds, signals)
        finally:
            self._gatherer.end()
            self._poller.batch_out_since = None
            self._looping = False

    def _hand_over(self, bounds: _Bounds, signals: StepSignals) -> Iterator[RowBatch]:
        ready, rows = self._gatherer.ready, 0
        while self._get_ready(bounds, signals):
            signals.raise_pending()
            batch = ready.popleft()
            if not batch._claim.assignment.owned:
                continue
            if self._poller.has_group:
                self._handed[batch._claim] = self._outputs.failures
            self._poller.batch_out_since = time.monotonic()
            handed = False
            try:
                signals.in_model = True
                yield batch
                handed = True
            except GeneratorExit:  # the loop was left: its last batch is not finished
                handed = True
                raise
            finally:
                signals.in_model = False
                self._poller.batch_out_since = None
                if not handed:  # a signal came before the batch was handed over
                    self._handed.pop(batch._claim, None)
                    ready.appendleft(batch)
            batch.stream.count(batch)
            self.rows_read += len(batch)
            # The loop has asked for the next batch: this one went well.
            if self._automatic and batch._claim in self._handed:
                self._finish_later(batch._claim)
            rows += len(batch)
            if bounds.rows is not None and rows >= bounds.rows:
                return

    def _get_ready(self, bounds: _Bounds, signals: StepSignals) -> bool:
        """Go on until a batch is ready; False where the loop has come to its end."""
        gatherer, poller = self._gatherer, self._poller
        last = time.monotonic()
        self._note_letters()
        while not gatherer.ready:
            try:
                if gatherer.step(bounds.ends):
                    last = time.monotonic()
                    continue
            except WireError:
                # The good rows before it are not held back by it: they go first, and the next call meets it again.
                gatherer.release_held("error")
                if not gatherer.ready:
                    gatherer.raised()
                    raise
                return True
            except ClosedError:
                if self._closed:
                    return False
                raise
            now = time.monotonic()
            gatherer.expire(now)
            if poller.caught_up:
                gatherer.tell_idle(now)
            if gatherer.ready:
                break
            if self._closed:
                return False
            self._note_letters()
            self._commit_if_due()
            if not poller.assigned_once:
                last = now  # joining the group is no idle time
            if self._is_over(now, last, bounds):
                gatherer.release_held("end")
                return bool(gatherer.ready)
            signals.raise_pending()
            signals.waiting = True
            try:
                chunk = poller.peek(self._longest_wait(now, last, bounds))
            except ClosedError:  # by another thread, while this one waited
                return False
            finally:
                signals.waiting = False
            if chunk:
                gatherer.add(chunk)
                poller.drop_peeked()
            if self._generation != poller.generation:
                self._generation = poller.generation
                gatherer.forget_lost()
                for claim in [claim for claim in self._handed if not claim.assignment.owned]:
                    del self._handed[claim]
        return True

    def _is_over(self, now: float, last: float, bounds: _Bounds) -> bool:
        if self._letters is not None and not self._letters.settled:
            return False  # that a dead letter was not delivered is told in the loop that met it
        if bounds.ends is not None and self._poller.drained(bounds.ends, self._gatherer.reached):
            return True
        return bounds.idle is not None and now - last >= bounds.idle and not self._poller.peek(0.0)

    def _longest_wait(self, now: float, last: float, bounds: _Bounds) -> float:
        ends = [_LONGEST_WAIT]
        if bounds.idle is not None:
            ends.append(last + bounds.idle - now)
        if self._letters is not None and not self._letters.settled:
            ends.append(_LETTERS_LOOK)
        if self._finished or self._finished_rows:
            ends.append(self._last_commit + self._commit_every - now)
        if self._gatherer.deadline is not None:
            ends.append(self._gatherer.deadline - now)
        return max(0.001, min(ends))

    # Commits

    def commit(self) -> bool:
        """Say that every batch handed over so far is processed, and commit; as :meth:`RowBatch.commit` does for one."""
        return self._commit(list(self._handed))

    def _finish_later(self, claim: Claim) -> None:
        self._finished.append(claim)
        self._finished_rows += claim.rows
        self._commit_if_due()

    def _note_letters(self) -> None:
        """Have what dead letters have finished committed as rows are; raise what could not be delivered."""
        if self._letters is not None:
            self._finished_rows += self._letters.take_finished()
            self._letters.raise_failures()

    def _has_given_up(self) -> bool:
        """Whether to wait no longer for room for a dead letter. A signal ends the waiting by its exception."""
        if self._signals is not None:
            self._signals.raise_pending()
        return self._closed

    def _commit_if_due(self) -> None:
        """Have what is finished committed, if it is time: what the loop has finished, and what was finished without a
        batch. The loop does not wait for that to be acknowledged: until it is, a crash makes these rows come again, as
        it does for those that wait to be committed."""
        if self._committing is not None:
            if not self._committing[1].done():
                return
            self._settle()
        now = time.monotonic()
        by_rows = self._finished_rows >= self.commit_settings.rows and not self._to_retry
        if not by_rows and now - self._last_commit < self._commit_every:
            return
        self._last_commit = now
        try:
            assignments = self._finish_delivered(_COMMIT_TIMEOUT) | self._poller.to_commit()
        except BrokerUnavailableError as exc:  # which a loop waits for; these batches are committed with the next
            self._last_commit = time.monotonic()
            log.warning("topic %s: an automatic commit is put off: %s", self.name, exc)
        else:
            if assignments:
                self._committing = assignments, self._poller.commit_soon(assignments)

    def _settle(self) -> None:
        """See what became of the last automatic commit."""
        assert self._committing is not None
        assignments, future = self._committing
        self._committing = None
        self._to_retry.clear()
        error = future.exception()
        if error is not None:
            self._to_retry = {assignment for assignment in assignments if assignment.owned}
            self._last_commit = time.monotonic()
            log.warning("topic %s: an automatic commit did not succeed, and is tried again: %s", self.name, error)

    def _finish_delivered(self, timeout: float) -> set[Assignment]:
        """Mark what the loop has finished, once the outputs are acknowledged; the assignments that are to be committed.

        Batches whose results may be among outputs that have failed since stay unfinished, and come again: nobody can
        say which those were.
        """
        if self._finished:
            self._outputs.flush(timeout)
        sound = [claim for claim in self._finished if self._handed.get(claim, -1) in (-1, self._outputs.failures)]
        if len(sound) < len(self._finished):
            log.warning(
                "topic %s: %d batches are not committed, since outputs failed after they were handed over",
                self.name,
                len(self._finished) - len(sound),
            )
        self._finished, self._finished_rows = [], 0
        return self._finish(sound)[0] | self._to_retry

    def _commit(self, claims: list[Claim], timeout: float = _COMMIT_TIMEOUT) -> bool:
        if not self._poller.has_group:
            raise CommitError(
                f"topic {self.name!r} was opened with consumer_group=None, so there is no group to commit for: "
                "open it with a consumer group"
            )
        self._check_open()
        deadline = time.monotonic() + timeout
        self._outputs.flush(timeout)
        ours, moved = self._finish(claims)
        self._commit_letters(ours)
        return self._poller.commit(ours, max(0.1, deadline - time.monotonic())) and not moved

    def _commit_letters(self, ours: set[Assignment]) -> None:
        """Have the dead letters' partitions committed that are not among those that are committed anyway. Whether these
        are still ours is another question than the one that a commit of rows answers."""
        if self._letters is None:
            return
        self._letters.flush(_LETTERS_TIMEOUT)
        if (self._letters.take_finished() or self._finished_rows) and (others := self._poller.to_commit() - ours):
            self._poller.commit_soon(others)  # if it fails, the next one is to commit them again

    def _finish(self, claims: list[Claim]) -> tuple[set[Assignment], set[Partition]]:
        """Mark claims as finished; the assignments they are of, and the partitions that have moved on."""
        ours: set[Assignment] = set()
        moved: set[Partition] = set()
        with self._poller.lock:
            for claim in claims:
                self._handed.pop(claim, None)
                if claim.assignment.owned:
                    claim.finish()
                    ours.add(claim.assignment)
                else:
                    moved.add(claim.assignment.partition)
        for at in moved:
            log.warning("%s moved on to another instance before its rows were committed: they come again there", at)
        return ours, moved

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

    def _log_idle(self, stream: StreamReader) -> None:
        log.warning("topic %s: stream %r has been silent for long: %r", self.name, stream.stream_id, stream)

    # State

    @property
    def contract(self) -> Contract | None:
        """What rows have to be like; None where the topic has no contract."""
        return None if self._messages.contract is None else self._messages.contract.contract

    @property
    def contract_counts(self) -> pd.DataFrame:
        """Rows that did not keep the contract, by column and problem, whatever became of them."""
        return pd.DataFrame() if self._messages.contract is None else self._messages.contract.counts

    @property
    def sequence_faults(self) -> pd.DataFrame:
        """The streams of which messages were missing, repeated or out of order, and how many, by stream ID."""
        counts = {stream: (c.missing, c.repeated, c.out_of_order) for stream, c in self._gatherer.fault_counts.items()}
        return pd.DataFrame.from_dict(counts, "index", dtype="int64", columns=["missing", "repeated", "out_of_order"])

    @property
    def partitions(self) -> list[int]:
        """The partitions that this instance reads now."""
        with self._poller.lock:
            return sorted(at.number for at in self._poller.assignments)

    @property
    def streams(self) -> dict[str, StreamReader]:
        """The streams of which rows were handed over, by ID."""
        return dict(self._gatherer.streams)

    @property
    def bad_messages(self) -> int:
        """How many messages could not be read, and were skipped."""
        return self._gatherer.bad_messages

    @property
    def dead_lettered(self) -> int:
        """How many messages the cluster has in the dead-letter topic by this reader."""
        return 0 if self._letters is None else self._letters.delivered

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
            if self._letters is not None and not self._letters.flush((deadline - time.monotonic()) / 2):
                log.warning("topic %s: dead letters are not acknowledged yet: their messages come again", self.name)
            if self._committing is not None:
                wait([self._committing[1]], max(0.1, deadline - time.monotonic()))
                if self._committing[1].done():
                    self._settle()
            if self._finished or self._to_retry:
                assignments = self._finish_delivered(max(0.1, deadline - time.monotonic()))
                self._poller.commit(assignments, max(0.1, deadline - time.monotonic()))
        except QuixframesError as exc:
            if self._poller.error is None:
                raise
            # The loop was told why reading ended, and cannot change what follows from it.
            log.warning("topic %s: what was finished last is not committed, and comes again: %s", self.name, exc)
        finally:
            self._closed = True
            self._poller.close(max(0.1, deadline - time.monotonic()))
            self._on_close(self)
        if self._letters is not None:
            self._letters.raise_failures()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"topic {self.name!r} is closed: open it again with client.open_input_topic")

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


def buffer_settings(buffer: BufferSettings | None, rules: dict[str, Any]) -> BufferSettings:
    if buffer is not None and rules:
        raise SettingsError(f"give either buffer= or its fields ({', '.join(rules)}), not both")
    if unknown := [name for name in rules if name not in BufferSettings.__dataclass_fields__]:
        known = ", ".join(BufferSettings.__dataclass_fields__)
        raise SettingsError(f"batches() has no setting {unknown[0]!r}: there are until, max_rows, idle and {known}")
    return buffer or BufferSettings(**rules)
