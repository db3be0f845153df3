"""Exactly once: what a model writes, and the commit of what it read, in one Kafka transaction.

What this module holds to:

- All that the client writes between two commits is one transaction, together with the second commit's offsets. It
  takes effect as a whole, or not at all.
- So a commit is of everything that was handed over: what a model wrote for a batch cannot be told from what it wrote
  for another.
- After anything that went wrong (an error in the loop, a message that failed, a partition that moved on, doubt about
  whether a commit came off) the transaction is aborted, and reading goes back to what the group has committed. Only the
  cluster knows whether a commit came off, and that is where it is asked.
- A reader that is not in the group any more cannot commit, and so nothing that it still writes counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from quixframes.assignment import Assignment
from quixframes.batch import Claim
from quixframes.commits import COMMIT_TIMEOUT, Commits
from quixframes.dead_letters import LetterDesk
from quixframes.errors import CommitError, FencedError, GroupMovedOnError, QuixframesError, TransactionError
from quixframes.kafka import TransactionalProducer
from quixframes.output import Outputs
from quixframes.poller import Handover, Poller
from quixframes.settings import CommitSettings

__all__ = ["TransactionalCommits"]

log = logging.getLogger(__name__)


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
        self._sent = outputs.sent  # by the end of the last transaction
        self.transactions = 0
        self.aborted = 0

    def commit(self, claims: list[Claim], timeout: float = COMMIT_TIMEOUT) -> bool:
        """Say that batches are processed, and commit them with all that was written."""
        others = self._unfinished - set(claims)
        if any(not claim.assignment.owned for claim in others):
            self._abort()
            return False
        if others:
            raise CommitError(
                f"topic {self._name!r} is read exactly once, and {len(others)} other batches are handed over and not "
                "finished, whose results cannot be told from this one's: commit them together, by topic.commit()"
            )
        return self._transact({**dict.fromkeys(self._finished), **dict.fromkeys(claims)}, timeout)

    def forget_lost(self) -> None:
        """What was written for a batch whose partition went cannot be taken out of the transaction."""
        if any(not claim.assignment.owned for claim in self._handed):
            self._abort()

    def commit_if_due(self) -> None:
        """As for at least once, but only between batches. A transaction that did not come off is no error of the
        model's: its rows come again."""
        if self._unfinished:
            return
        try:
            super().commit_if_due()
        except TransactionError as exc:
            log.warning("%s: %s", self._place, exc, extra=self._place.extra)

    def commit_finished(self, timeout: float = COMMIT_TIMEOUT) -> None:
        """Commit what is finished, with all that was written; or abort it, where a batch is not finished."""
        if self._unfinished:
            self._abort()
        else:
            self._transact(self._finished, timeout)

    def loop_left(self) -> None:
        """Commit what is finished, or abort what cannot be told from what is not."""
        if self._unfinished:
            self._abort()
        elif self.automatic:
            self._commit_finished()

    def close(self, timeout: float) -> None:
        """Commit what is finished, and write without transactions from now on; but not in a loop that another thread is
        in: what it still writes for its batch must not count, and raises."""
        try:
            self.commit_finished(timeout)
        finally:
            if not self._poller.in_loop:
                self._outputs.end_transactions()
            self._producer.close(max(0.5, timeout / 2))

    def loop_left_closed(self) -> None:
        """A loop is over whose topic was closed meanwhile."""
        self._outputs.end_transactions()

    @property
    def _unfinished(self) -> set[Claim]:
        """The batches that are handed over, and that the model has not finished."""
        return self._handed.keys() - set(self._finished)

    def _commit_finished(self) -> None:
        self._transact(self._finished, COMMIT_TIMEOUT)

    def _finish_for(self, handover: Handover) -> None:
        leaving = set(handover.assignments)
        if self._unfinished:
            # Results of what stays and of what goes are in one transaction, and not all of it is finished.
            self._abort()
        elif self._finished or any(assignment.uncommitted is not None for assignment in leaving):
            self._transact(self._finished, COMMIT_TIMEOUT)

    def _transact(self, claims: Collection[Claim], timeout: float) -> bool:
        """Commit everything that is finished and written; whether that came off. False says that a partition has moved
        on: nothing is committed, and everything comes again, here or elsewhere."""
        deadline = time.monotonic() + timeout
        finished: list[tuple[Assignment, int]] = []
        try:
            self._outputs.release()
            if self._letters is not None and not self._letters.flush(timeout):
                raise CommitError(f"topic {self._name!r}: dead letters were not acknowledged within {timeout:g} s")
            with self._poller.lock:
                if any(not claim.assignment.owned for claim in claims):
                    raise GroupMovedOnError(f"a partition of topic {self._name!r} has moved on to another instance")
                finished += [(claim.assignment, claim.finish()) for claim in claims]
                offsets = {a: at for a in self._poller.assignments.values() if (at := a.uncommitted) is not None}
            if not claims and not offsets and self._sent == self._outputs.sent:
                return True
            places = {assignment.partition: at for assignment, at in offsets.items()}
            left = max(0.1, deadline - time.monotonic())
            self._producer.commit_transaction(places, self._poller.membership, left)
        except BaseException as exc:
            self._undo(finished)
            failures = self._outputs.take_failures()
            self._abort()
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
        if offsets:
            self._poller.committed(offsets)
        self._sent = self._outputs.sent
        self.transactions += 1
        return True

    def _undo(self, finished: list[tuple[Assignment, int]]) -> None:
        """What was finished is not, since its transaction does not count."""
        with self._poller.lock:
            for assignment, rows in finished:
                assignment.account.processed -= rows
                assignment.account.let_go += rows

    def _abort(self) -> None:
        """Abort the transaction, and go back to what is committed."""
        self._handed.clear()
        self._finished, self._finished_rows = [], 0
        self.aborted += 1
        log.warning(
            "%s: a transaction is aborted; what was not committed comes again", self._place, extra=self._place.extra
        )
        self._outputs.discard()
        try:
            self._producer.abort_transaction(COMMIT_TIMEOUT)
        except FencedError:
            raise
        except QuixframesError as exc:
            log.warning(
                "%s: the abort did not come off, and is tried again: %s", self._place, exc, extra=self._place.extra
            )
        self._outputs.take_failures()  # of messages that were on their way
        if self._poller.error is None:
            self._poller.rewind(COMMIT_TIMEOUT)
