"""Reading: a topic as row batches, and the commits that say which rows are processed.

What this module holds to:

- A loop over batches belongs to one thread. The consumer has another (``poller``), so a slow model loses no partition.
- What is finished, and when it is committed, is ``commits``' to say; under exactly once, ``transactions``'.
- Rows that are held survive the loop: the next ``batches`` call goes on with them.
- Nothing of a partition that is about to go to another instance is handed over any more.
"""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Callable, Generator
from dataclasses import astuple, dataclass, fields
from typing import Any, Literal

import pandas as pd

from quixframes.assignment import Account
from quixframes.batch import Claim, RowBatch, StreamReader, messages_of
from quixframes.closing import Closing
from quixframes.commits import Commits
from quixframes.contracts import Contract
from quixframes.dead_letters import DeadLetters, LetterDesk
from quixframes.ends import ends_now
from quixframes.errors import ClosedError, CommitError, QuixframesError, SettingsError, WireError
from quixframes.gather import Gatherer
from quixframes.kafka import Admin, Partition, TransactionalProducer
from quixframes.logs import Place
from quixframes.message_reader import MessageReader
from quixframes.output import Outputs
from quixframes.poller import Poller
from quixframes.settings import (
    BufferSettings,
    CommitSettings,
    Duration,
    FaultSettings,
    ReaderSettings,
    byte_count,
    seconds,
    whole_number,
)
from quixframes.signals import StepSignals
from quixframes.transactions import TransactionalCommits

__all__ = ["InputTopic", "buffer_settings"]

log = logging.getLogger(__name__)

_LONGEST_WAIT = 0.5
_LETTERS_LOOK = 0.02
_LETTERS_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Where a loop ends by itself."""

    ends: dict[Partition, int] | None
    rows: int | None
    idle: float | None
    until: float | None


class InputTopic(Closing):
    """A topic to read from, as :meth:`StreamingClient.open_input_topic` opens it.

    >>> with client.open_input_topic("engine", "pace-model") as topic:                          # doctest: +SKIP
    ...     for batch in topic.batches(rows=5_000, time_span="1s"):
    ...         model(batch.frame)
    """

    # Named, so that an attribute that is none (``topic.on_stream_received = ...``) is an error.
    __slots__ = (
        "_admin", "_closed", "_commits", "_gatherer", "_generation", "_letters", "_looping", "_messages", "_on_close",
        "_outputs", "_poller", "_signals", "batches_read", "commit_settings", "consumer_group", "exactly_once",
        "model_seconds", "name", "rows_read",
    )  # fmt: skip

    def __init__(
        self,
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
        transactions: TransactionalProducer | None,
        on_close: Callable[[InputTopic], None],
    ) -> None:
        self.name = poller.name
        self.consumer_group = group
        self.commit_settings = commit
        self.exactly_once = transactions is not None
        self._poller = poller
        self._messages = messages
        self._admin = admin
        self._outputs = outputs
        self._on_close = on_close
        self._letters = None if dead_letters is None else LetterDesk(dead_letters, poller.lock, self._has_given_up)
        self._commits = (
            Commits(self.name, poller, outputs, self._letters, commit)
            if transactions is None
            else TransactionalCommits(self.name, poller, outputs, self._letters, commit, transactions)
        )
        self._gatherer = Gatherer(
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
        self._signals: StepSignals | None = None
        self._looping = False
        self._closed = False
        self.batches_read = 0
        self.rows_read = 0
        self.model_seconds = 0.0

    # The loop

    def batches(
        self,
        buffer: BufferSettings | None = None,
        *,
        until: Literal["now"] | None = None,
        max_rows: int | None = None,
        idle: Duration | None = None,
        duration: Duration | None = None,
        **rules: Any,
    ) -> Generator[RowBatch, None, None]:
        """Row batches, as they arrive; for ever, unless bounded.

        Args:
            buffer: when rows are released as a batch; or give its fields themselves, as in
                ``batches(rows=5_000, time_span="1s", timeout="2s")``. Default: 10,000 rows or 1 s, whichever first.
            until: "now" ends the loop with the last row that was in the topic at this call. What this client has
                written to the topic itself is flushed for it.
            max_rows: ends the loop once so many rows or more were handed over.
            idle: ends the loop once nothing has arrived for so long.
            duration: ends the loop after so long.

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
                if topic.name in self.topics:
                    topic.flush()
            ends = {Partition(name, n): end for name in self.topics for n, end in ends_now(self._admin, name).items()}
        bounds = _Bounds(
            ends,
            max_rows,
            None if idle is None else seconds(idle, name="idle"),
            None if duration is None else time.monotonic() + seconds(duration, name="duration"),
        )
        return self._loop(settings, bounds)

    def _loop(self, settings: BufferSettings, bounds: _Bounds) -> Generator[RowBatch, None, None]:
        if self._looping:
            raise SettingsError(f"topic {self.name!r} is being read in a loop already: it can have one at a time")
        self._looping = True
        signals = self._signals = StepSignals()
        ended = False
        try:
            with signals:
                self._poller.enter_loop()
                self._gatherer.begin(settings)
                if self._letters is not None:
                    self._letters.send_again()
                yield from self._hand_over(bounds, signals)
            ended = True
        finally:
            self._gatherer.end()
            self._looping = False
            if self._closed:
                self._poller.leave_loop()
                self._commits.loop_left_closed()
            else:
                self._leave_loop(ended)

    def _leave_loop(self, ended: bool) -> None:
        try:
            self._commits.serve_handovers()
            self._commits.loop_left()
        except QuixframesError as exc:
            if ended:
                raise
            # Whatever ended the loop is more to the point.
            place = Place(self.name)
            log.warning("%s: at the end of the loop: %s", place, exc, extra=place.extra)
        finally:
            self._poller.leave_loop()

    def _hand_over(self, bounds: _Bounds, signals: StepSignals) -> Generator[RowBatch, None, None]:
        ready, rows = self._gatherer.ready, 0
        while self._get_ready(bounds, signals):
            signals.raise_pending()
            batch = ready.popleft()
            claim = batch._claim
            if not claim.assignment.owned:
                continue
            self._commits.hand(claim)
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
                out, self._poller.batch_out_since = self._poller.batch_out_since, None
                if out is not None:
                    self.model_seconds += time.monotonic() - out
                if not handed:  # a signal came before the batch was handed over
                    self._commits.take_back(claim)
                    ready.appendleft(batch)
            batch.stream.count(batch)
            self.batches_read += 1
            self.rows_read += len(batch)
            # The loop has asked for the next batch: this one went well.
            self._commits.went_well(claim)
            rows += len(batch)
            if bounds.rows is not None and rows >= bounds.rows:
                return
            if bounds.until is not None and time.monotonic() >= bounds.until:
                return

    def _get_ready(self, bounds: _Bounds, signals: StepSignals) -> bool:
        """Go on until a batch is ready; False where the loop has come to its end."""
        gatherer, poller, commits = self._gatherer, self._poller, self._commits
        last = time.monotonic()
        commits.note_letters()
        commits.serve_handovers()
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
            commits.note_letters()
            commits.serve_handovers()
            commits.commit_if_due()
            if not poller.assigned_once:
                last = now  # joining the group is no idle time
            if self._is_over(now, last, bounds):
                gatherer.release_held("end")
                if gatherer.ready or commits.before_end():
                    return bool(gatherer.ready)
                last = now  # what was not committed comes again
                continue
            signals.raise_pending()
            signals.waiting = True
            try:
                chunk = poller.peek(self._longest_wait(now, last, bounds))
            except ClosedError:
                if not self._closed:
                    raise
                return False  # by another thread, while this one waited
            finally:
                signals.waiting = False
            if chunk:
                gatherer.add(chunk)
                poller.drop_peeked(chunk)
            if self._generation != poller.generation:
                self._generation = poller.generation
                gatherer.forget_lost()
                commits.forget_lost()
        return True

    def _is_over(self, now: float, last: float, bounds: _Bounds) -> bool:
        if self._letters is not None and not self._letters.settled:
            return False  # that a dead letter was not delivered is told in the loop that met it
        if bounds.ends is not None and self._poller.drained(bounds.ends, self._gatherer.reached):
            return True
        if bounds.until is not None and now >= bounds.until:
            return True
        return bounds.idle is not None and now - last >= bounds.idle and not self._poller.peek(0.0)

    def _longest_wait(self, now: float, last: float, bounds: _Bounds) -> float:
        ends = [_LONGEST_WAIT]
        if bounds.idle is not None:
            ends.append(last + bounds.idle - now)
        if bounds.until is not None:
            ends.append(bounds.until - now)
        if self._letters is not None and not self._letters.settled:
            ends.append(_LETTERS_LOOK)
        if self._commits.due_at is not None:
            ends.append(self._commits.due_at - now)
        if self._gatherer.deadline is not None:
            ends.append(self._gatherer.deadline - now)
        return max(0.001, min(ends))

    # Commits

    def commit(self) -> bool:
        """Say that every batch handed over so far is processed, and commit; as :meth:`RowBatch.commit` does for one."""
        return self._commit(self._commits.handed)

    def _commit(self, claims: list[Claim]) -> bool:
        if not self._poller.has_group:
            raise CommitError(
                f"topic {self.name!r} was opened with consumer_group=None, so there is no group to commit for: "
                "open it with a consumer group"
            )
        self._check_open()
        return self._commits.commit(claims)

    def reject(self, batch: RowBatch, error: BaseException) -> None:
        """Send a batch that cannot be processed to the dead-letter topic, with the reason, and count it as finished.

        Its rows and events go as messages of their stream, whatever the form was in which they came; see
        :meth:`StreamingClient.dead_letters` and :meth:`StreamingClient.send_back`. They are committed as others are.

        Raises:
            SettingsError: the topic was opened without ``dead_letters=``.
            DeadLetterError: they were not delivered. Nothing is finished: the batch comes again.
        """
        if self._letters is None:
            raise SettingsError(f"topic {self.name!r} was opened without dead_letters=, so nothing can be sent there")
        self._check_open()
        self._letters.reject(batch._claim, messages_of(batch, self._letters.limit), error, _LETTERS_TIMEOUT)
        self._commits.rejected(batch._claim)

    def _has_given_up(self) -> bool:
        """Whether to wait no longer for room for a dead letter. A signal ends the waiting by its exception."""
        if self._signals is not None:
            self._signals.raise_pending()
        return self._closed

    def accounts(self) -> pd.DataFrame:
        """What became of the rows of each partition that was ever this reader's, by topic and partition.

        Columns, all int64, where ``rows_in`` is the sum of the others at any time. Events and ends of streams
        count as rows; rows that come again count again.

        - rows_in: taken in to be processed.
        - processed: finished by the model (under exactly once: and committed).
        - dead_lettered: finished by a dead letter. A message that cannot be read counts as one row.
        - filtered: removed by a filter, or dropped as a repetition.
        - let_go: not finished when their partition went, or when their transaction was aborted: they come again.
        - held: in buffers, or handed over and not finished.
        """
        with self._poller.lock:
            held = {at: assignment.held for at, assignment in self._poller.assignments.items()}
            rows = {at: (*astuple(account), held.get(at, 0)) for at, account in sorted(self._poller.accounts.items())}
        index = pd.MultiIndex.from_tuples(list(rows), names=["topic", "partition"])
        names = [field.name for field in fields(Account)]
        return pd.DataFrame(list(rows.values()), index=index, columns=[*names, "held"], dtype="int64")

    def holding(self) -> pd.DataFrame:
        """What holds each partition's commits back: a row for each partition that has something unfinished.

        Columns: topic, partition, offset (of the first message that is not finished), stream, rows (of it that are
        not), since (when it was taken in, UTC), messages (taken in and not finished).
        """
        found = []
        with self._poller.lock:
            for at, assignment in self._poller.assignments.items():
                pending = assignment.ledger.pending() if assignment.ledger is not None else None
                if pending is not None and assignment.ledger is not None:
                    stream_id, since = pending.label
                    found.append((*at, pending.offset, stream_id, pending.rows, since, assignment.ledger.unfinished))
        frame = pd.DataFrame(found, columns=["topic", "partition", "offset", "stream", "rows", "since", "messages"])
        frame["since"] = pd.to_datetime(frame["since"], unit="s", utc=True)
        return frame

    def _log_idle(self, stream: StreamReader) -> None:
        place = Place(stream.topic, stream_id=stream.stream_id)
        log.warning("%s: it has been silent for long: %r", place, stream, extra=place.extra)

    # State

    @property
    def topics(self) -> list[str]:
        """The names of the topics that are read."""
        return sorted(self._poller.topics)

    @property
    def contracts(self) -> dict[str, Contract]:
        """What rows have to be like, by topic; topics without a contract are not in it."""
        return {topic: check.contract for topic, check in self._messages.contracts.items()}

    @property
    def contract_counts(self) -> pd.DataFrame:
        """Rows that did not keep their topic's contract, by topic, column and problem, whatever became of them."""
        counts = {topic: check.counts for topic, check in self._messages.contracts.items()}
        return pd.concat(counts, names=["topic"]) if counts else pd.DataFrame()

    @property
    def sequence_faults(self) -> pd.DataFrame:
        """The streams of which messages were missing, repeated or out of order, and how many, by stream ID."""
        counts = {stream: (c.missing, c.repeated, c.out_of_order) for stream, c in self._gatherer.fault_counts.items()}
        return pd.DataFrame.from_dict(counts, "index", dtype="int64", columns=["missing", "repeated", "out_of_order"])

    @property
    def partitions(self) -> list[Partition]:
        """The partitions that this instance reads now; none where the group has none for it."""
        with self._poller.lock:
            return sorted(self._poller.assignments)

    @property
    def streams(self) -> dict[str, StreamReader]:
        """The streams that were met, by ID. Where several topics have a stream of the same ID, it is the last one's:
        ``batch.stream`` is always the batch's own."""
        return {stream_id: stream for (_, stream_id), stream in self._gatherer.streams.items()}

    @property
    def has_dead_letters(self) -> bool:
        """Whether the topic was opened with ``dead_letters=``."""
        return self._letters is not None

    @property
    def closed(self) -> bool:
        """Whether the topic was closed."""
        return self._closed

    @property
    def commits(self) -> int:
        """How many commits the cluster has acknowledged."""
        return self._poller.commits

    @property
    def bad_messages(self) -> int:
        """How many messages could not be read, and were skipped."""
        return self._gatherer.bad_messages

    @property
    def dead_lettered(self) -> int:
        """How many messages the cluster has in the dead-letter topic by this reader."""
        return 0 if self._letters is None else self._letters.delivered

    @property
    def lag(self) -> int | None:
        """How many messages of this instance's partitions are not finished, as far as the cluster has told where they
        end: offsets between what could be committed and the end, transaction markers among them. None where it has not
        told yet."""
        with self._poller.lock:
            lags = [assignment.lag for assignment in self._poller.assignments.values()]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read at the moment, as far as is known; None where all is well."""
        return self._poller.outage.trouble

    @property
    def waited(self) -> float:
        """Seconds for which the cluster was out of reach, over the life of this object."""
        return self._poller.outage.waited(time.monotonic())

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
        self._closed = True  # a loop in another thread commits no more from here on
        try:
            if self._letters is not None and not self._letters.flush((deadline - time.monotonic()) / 2):
                place = Place(self.name)
                log.warning(
                    "%s: dead letters are not acknowledged yet: their messages come again", place, extra=place.extra
                )
            self._commits.close(max(0.1, deadline - time.monotonic()))
        except QuixframesError as exc:
            if self._poller.error is None:
                raise
            # The loop was told why reading ended, and cannot change what follows from it.
            place = Place(self.name)
            log.warning(
                "%s: what was finished last is not committed, and comes again: %s", place, exc, extra=place.extra
            )
        finally:
            self._poller.close(max(0.1, deadline - time.monotonic()))
            self._on_close(self)
        if self._letters is not None:
            self._letters.raise_failures()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"topic {self.name!r} is closed: open it again with client.open_input_topic")

    def __repr__(self) -> str:
        state = "closed" if self._closed else ", ".join(map(str, self.partitions)) or self._without
        group = f"group {self.consumer_group!r}" if self.consumer_group is not None else "no group"
        return f"<InputTopic {self.name!r}: {group}, {state}, {self.rows_read:,} rows read>"

    @property
    def _without(self) -> str:
        return "no partitions" if self._poller.assigned_once else "joining the group"

    def _repr_html_(self) -> str:
        partitions = ", ".join(map(str, self.partitions)) or self._without
        values = (self.consumer_group or "none", partitions, f"{self.rows_read:,}")
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
        raise SettingsError(
            f"batches() has no setting {unknown[0]!r}: there are until, max_rows, idle, duration and {known}"
        )
    return buffer or BufferSettings(**rules)
