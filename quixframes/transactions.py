"""Exactly once: what a model writes, and the commit of what it read, in one Kafka transaction.

What this module holds to:

- All that the client writes between two commits is one transaction, together with the second commit's offsets. It
  takes effect as a whole, or not at all.
- So a commit is of everything that was handed over: what a model wrote for a batch cannot be told from what it wrote
  for another.
- After anything that went wrong (an error in the loop, a message that failed, a partition that went meanwhile, doubt
  about whether a commit came off) the transaction is aborted, and reading goes back to what the group has committed.
  Only the cluster knows whether a commit came off, and that is where it is asked.
- A reader that is not in the group any more cannot commit, and so nothing that it still writes counts.
- Ends of transactions exclude each other, whatever threads they come from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

from quixframes.batch import Claim
from quixframes.commits import Commits
from quixframes.dead_letters import LetterDesk
from quixframes.errors import CommitError, FencedError, GroupMovedOnError, QuixframesError, TransactionError
from quixframes.kafka import Partition, TransactionalProducer
from quixframes.output import Outputs
from quixframes.poller import COMMIT_TIMEOUT, Handover, Poller
from quixframes.settings import CommitSettings

__all__ = ["TransactionalCommits"]

log = logging.getLogger(__name__)

_FAILURES = 3  # transactions in a row that may fail before the loop is told: it is no passing trouble then


class TransactionalCommits(Commits):
    """The commits of one input topic: exactly once. The arguments are those of :class:`Commits`, and the producer of
    the transactions, through which the outputs write."""

    def __init__(
        self,
        name: str,
        poller: Poller,
        outputs: Outputs,
        letters: LetterDesk | None,
        settings: CommitSettings,
        producer: TransactionalProducer,
    ) -> None:
        super().__init__(name, poller, outputs, letters, settings)
        self._producer = producer
        self._lock = threading.RLock()
        self._failed = 0  # transactions in a row
        # An abort has begun and not come to its end; and batches are out that were handed over before one: their
        # results, which may still be written, must not count.
        self._aborting = False
        self._stale = False
        self.transactions = 0
        self.aborted = 0
        self._begin()

    def _begin(self) -> None:
        """Take note of how things stand where a transaction begins."""
        self._took_part = False  # a batch, with what may have been written for it
        self._letters_sent = 0 if self._letters is None else self._letters.sent
        with self._poller.lock:
            self._sent = self._outputs.sent
            self._departures = self._poller.departures
            self._accounts: dict[Partition, tuple[int, int, int]] = {
                at: (account.processed, account.dead_lettered, account.filtered)
                for at, account in self._poller.accounts.items()
            }

    # For the loop

    def hand(self, claim: Claim) -> None:
        """A batch is handed over."""
        self._took_part = True
        super().hand(claim)

    def commit(self, claims: list[Claim], timeout: float = COMMIT_TIMEOUT) -> bool:
        """Say that batches are processed, and commit them with all that was written."""
        with self._lock:
            if self._has_gone_stale(timeout):
                return False
            if others := self._unfinished - set(claims):
                raise CommitError(
                    f"topic {self._name!r} is read exactly once, and {len(others)} other batches are handed over and "
                    "not finished, whose results cannot be told from this one's: commit them together, by "
                    "topic.commit()"
                )
            return self._transact({**dict.fromkeys(self._finished), **dict.fromkeys(claims)}, timeout)

    def forget_lost(self) -> None:
        """What was written for a batch whose partition went cannot be taken out of the transaction."""
        with self._lock:
            if self._has_departures:
                self._abort(COMMIT_TIMEOUT)

    def commit_if_due(self) -> None:
        """As for at least once, but only between batches. A transaction that did not come off is no error of the
        model's, its rows come again; but several in a row are."""
        with self._lock:
            if self._unfinished:
                return
            try:
                super().commit_if_due()
            except TransactionError as exc:
                if self._failed >= _FAILURES:
                    raise
                log.warning("%s: %s", self._place, exc, extra=self._place.extra)

    def commit_finished(self, timeout: float = COMMIT_TIMEOUT) -> None:
        """Commit what is finished, with all that was written; or abort it, where a batch is not finished."""
        with self._lock:
            if self._has_gone_stale(timeout):
                return
            if self._unfinished:
                self._abort(timeout)
            else:
                self._transact(self._finished, timeout)

    def before_end(self) -> bool:
        """Commit what is finished before the loop ends; False where it comes again, so that the loop has to go on."""
        with self._lock:
            return not self.automatic or bool(self._unfinished) or self._transact(self._finished, COMMIT_TIMEOUT)

    def loop_left(self) -> None:
        """Commit what is finished, or abort what cannot be told from what is not."""
        if self._unfinished or self.automatic:
            self.commit_finished()

    def close(self, timeout: float) -> None:
        """Commit what is finished, and write without transactions from now on; but not in a loop that another thread is
        in: what it still writes for its batch must not count, and raises."""
        try:
            self.commit_finished(timeout)
        finally:
            if not self._poller.in_loop_of_another_thread:
                self._outputs.end_transactions(self._producer)
            self._producer.close(max(0.5, timeout / 2))

    def loop_left_closed(self) -> None:
        """A loop is over whose topic was closed meanwhile."""
        self._outputs.end_transactions(self._producer)

    # Inside

    @property
    def _unfinished(self) -> set[Claim]:
        """The batches that are handed over, and that the model has not finished."""
        return self._handed.keys() - set(self._finished)

    def _has_gone_stale(self, timeout: float) -> bool:
        """Whether what was written may be for batches of before an abort: it is aborted as well."""
        if not (self._stale or self._aborting):
            return False
        self._abort(timeout)
        self._stale = False
        return True

    def _commit_finished(self) -> None:
        self._transact(self._finished, COMMIT_TIMEOUT)

    def _finish_for(self, handover: Handover) -> None:
        # Results of what stays and of what goes are in one transaction: it is all of them or none.
        self.commit_finished()

    def _handed_over(self) -> None:
        """Partitions went between two transactions."""
        with self._lock:
            if not (self._took_part or self._sent_letters):
                self._departures = self._poller.departures

    def _transact(self, claims: Collection[Claim], timeout: float) -> bool:
        """Commit everything that is finished and written; whether that came off. False says that a partition has moved
        on: nothing is committed, and everything comes again, here or elsewhere."""
        if self._aborting:
            self._abort(timeout)
            return False
        deadline = time.monotonic() + timeout
        try:
            self._outputs.release()
            sent = self._outputs.sent  # what comes later may belong to the next one
            if self._letters is not None and not self._letters.flush(timeout):
                raise CommitError(f"topic {self._name!r}: dead letters were not acknowledged within {timeout:g} s")
            with self._poller.lock:
                self._check_departures()
                for claim in claims:
                    claim.finish()
                offsets = {a: at for a in self._poller.assignments.values() if (at := a.uncommitted) is not None}
            if scattered := [str(a.partition) for a in offsets if a.ledger is not None and a.ledger.forgets]:
                raise TransactionError(
                    f"{self._place}: what is finished in {', '.join(scattered)} lies too scattered for the text of a "
                    "commit to remember all of it, so it could count twice: have rows released sooner (timeout=, rows=)"
                )
            if not claims and not offsets and self._sent == sent:
                return True
            places = {assignment.partition: at for assignment, at in offsets.items()}
            left = max(0.1, deadline - time.monotonic())
            self._producer.commit_transaction(places, self._membership, left)
        except BaseException as exc:
            failures = self._outputs.take_failures()
            self._failed += 1
            self._abort(max(1.0, deadline - time.monotonic()))
            if failures:
                raise failures[0] from exc
            if isinstance(exc, GroupMovedOnError):
                self._poller.moved_on(exc)
                return False
            raise
        self._handed.clear()
        self._finished, self._finished_rows = [], 0
        if self._letters is not None:
            self._letters.take_finished()
        self._begin()
        self._sent = sent
        self._failed = 0
        self.transactions += 1
        if offsets:
            self._poller.committed(offsets)
        return True

    def _membership(self) -> object:
        """The membership as it is now, which is asked for again while the group shares itself out anew. What went
        meanwhile may have come back, and be the member's again; but somebody else may have had it in between."""
        found = self._poller.membership()
        self._check_departures()
        return found

    @property
    def _sent_letters(self) -> bool:
        return self._letters is not None and self._letters.sent != self._letters_sent

    @property
    def _has_departures(self) -> bool:
        """Whether a partition went since something took part in the transaction that may have been of it."""
        return self._departures != self._poller.departures and (self._took_part or self._sent_letters)

    def _check_departures(self) -> None:
        if self._has_departures:
            raise GroupMovedOnError(f"topic {self._name!r}: a partition went since the transaction began")

    def _abort(self, timeout: float) -> None:
        """Abort the transaction, and go back to what is committed. Interrupted anywhere, it is begun anew by whoever
        comes next."""
        self._aborting = True
        # From here on nothing of before can be committed any more, whatever becomes of the rest.
        self._poller.let_go()
        self._undo()
        self._stale = self._stale or bool(self._unfinished)
        self._handed.clear()
        self._finished, self._finished_rows = [], 0
        self.aborted += 1
        log.warning(
            "%s: a transaction is aborted (%d messages); what was not committed comes again",
            self._place, self._outputs.sent - self._sent, extra=self._place.extra,
        )  # fmt: skip
        self._outputs.discard()
        try:
            self._producer.abort_transaction(timeout)
        except FencedError:
            raise
        except QuixframesError as exc:
            log.warning(
                "%s: the abort did not come off, and is tried again: %s", self._place, exc, extra=self._place.extra
            )
        # Those of messages that were on their way.
        self._outputs.take_failures()
        if self._letters is not None:
            self._letters.forget()
        if self._poller.error is None:
            self._poller.rewind(timeout)
        self._begin()
        self._aborting = False

    def _undo(self) -> None:
        """What was finished since the last commit is not, since its transaction does not count."""
        with self._poller.lock:
            for at, account in self._poller.accounts.items():
                before = self._accounts.get(at, (0, 0, 0))
                now = (account.processed, account.dead_lettered, account.filtered)
                account.processed, account.dead_lettered, account.filtered = before
                account.let_go += sum(now) - sum(before)
                self._accounts[at] = before
