"""What a loop over batches has finished, and when it is committed.

What this module holds to:

- A batch is finished when the model says so (manual), or when the loop asks for the next one (automatic). A batch whose
  processing raised, or that the loop was left with, is not finished: its rows come again.
- Before rows are committed, everything this client has written until then is acknowledged by the cluster.
- What is finished without a batch (dead letters, skipped messages, rows that a filter removed) is committed by itself,
  also where rows are committed by hand.
- Partitions that go to another instance are handed over between two batches, with all that was finished of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from concurrent.futures import Future, wait

from quixframes.assignment import Assignment
from quixframes.batch import Claim
from quixframes.dead_letters import LetterDesk
from quixframes.errors import BrokerUnavailableError, DeliveryError, QuixframesError
from quixframes.kafka import Partition
from quixframes.logs import Place
from quixframes.output import Outputs
from quixframes.poller import COMMIT_TIMEOUT, Handover, Poller
from quixframes.settings import CommitMode, CommitSettings, seconds

__all__ = ["Commits"]

log = logging.getLogger(__name__)

_LETTERS_TIMEOUT = 5.0  # that a commit waits for dead letters on their way: it need not, but then they are in it


class Commits:
    """The commits of one input topic: at least once.

    Args:
        name: the topic's name, for log lines.
        poller: reads it.
        outputs: what the client writes.
        letters: its dead letters, if there are any.
        settings: when to commit.
    """

    def __init__(
        self, name: str, poller: Poller, outputs: Outputs, letters: LetterDesk | None, settings: CommitSettings
    ) -> None:
        self._name = name
        self._place = Place(name)
        self._poller = poller
        self._outputs = outputs
        self._letters = letters
        self._every = seconds(settings.every)
        self._rows = settings.rows
        self.automatic = settings.mode is CommitMode.Automatic
        # Batches that were handed over and are not finished, with the number of outputs that had failed by then.
        self._handed: dict[Claim, int] = {}
        self._finished: list[Claim] = []
        self._finished_rows = 0  # and dead letters
        self._last_commit = 0.0  # when the last automatic one was due
        # The automatic commit that is under way, and what one that failed has left to be committed.
        self._committing: tuple[set[Assignment], Future[bool]] | None = None
        self._to_retry: set[Assignment] = set()
        self._failing = False  # whether the last automatic commit did not succeed

    # For the loop

    @property
    def handed(self) -> list[Claim]:
        """What was handed over and is not finished."""
        return list(self._handed)

    def hand(self, claim: Claim) -> None:
        """A batch is handed over."""
        if self._poller.has_group:
            self._handed[claim] = self._outputs.failures

    def rejected(self, claim: Claim) -> None:
        """A batch went to the dead letters, which have finished it."""
        self._handed.pop(claim, None)
        self.note_letters()

    def take_back(self, claim: Claim) -> None:
        """It was not handed over after all."""
        self._handed.pop(claim, None)

    def went_well(self, claim: Claim) -> None:
        """The loop has asked for the batch after this one."""
        if not self._poller.has_group:
            with self._poller.lock:
                claim.finish()
        elif self.automatic and claim in self._handed:
            self._finished.append(claim)
            self._finished_rows += claim.rows
            self.commit_if_due()

    def forget_lost(self) -> None:
        """Drop what belongs to partitions that are no longer ours."""
        for claim in [claim for claim in self._handed if not claim.assignment.owned]:
            del self._handed[claim]

    def note_letters(self) -> None:
        """Have what dead letters have finished committed as rows are; raise what could not be delivered."""
        if self._letters is not None:
            self._finished_rows += self._letters.take_finished()
            self._letters.raise_failures()

    @property
    def due_at(self) -> float | None:
        """When something is to be committed; None where nothing is."""
        return self._last_commit + self._every if self._finished or self._finished_rows else None

    def commit_if_due(self) -> None:
        """Have what is finished committed, if it is time: what the loop has finished, and what was finished without a
        batch."""
        now = time.monotonic()
        by_rows = self._finished_rows >= self._rows and not self._to_retry
        if self._is_committing() or (not by_rows and now - self._last_commit < self._every):
            return
        self._last_commit = now
        try:
            self._commit_finished()
        except BrokerUnavailableError as exc:  # which a loop waits for; these batches are committed with the next
            self._last_commit = time.monotonic()
            log.warning("%s: an automatic commit is put off: %s", self._place, exc, extra=self._place.extra)

    def serve_handovers(self) -> None:
        """Let partitions go that are about to, with all that was finished of them."""
        failure: DeliveryError | None = None
        while (handover := self._poller.handover) is not None:
            try:
                self._finish_for(handover)
            except DeliveryError as exc:
                failure = exc  # which is the model's to know of, once the partitions are where they are to be
            except QuixframesError as exc:
                log.warning(
                    "%s: not all that was finished of %s is committed: %s",
                    self._place, ", ".join(sorted(str(one.partition) for one in handover.assignments)), exc,
                    extra=self._place.extra,
                )  # fmt: skip
            finally:
                self._poller.hand_over(handover)
                self._handed_over()
        if failure is not None:
            raise failure

    def before_end(self) -> bool:
        """The loop is about to end by itself; False where rows come again, so that it has to go on."""
        return True

    def loop_left(self) -> None:
        """The loop is over, at its end or before."""

    def loop_left_closed(self) -> None:
        """The loop is over, and the topic was closed before that."""

    # By hand

    def commit(self, claims: list[Claim], timeout: float = COMMIT_TIMEOUT) -> bool:
        """Say that batches are processed, and commit them; whether all of them were still ours."""
        deadline = time.monotonic() + timeout
        self._outputs.flush(timeout)
        ours, moved = self._finish(claims)
        self._commit_letters(ours)
        return self._poller.commit(ours, max(0.1, deadline - time.monotonic())) and not moved

    def commit_finished(self, timeout: float = COMMIT_TIMEOUT) -> None:
        """Commit what is finished, now."""
        deadline = time.monotonic() + timeout
        if self._committing is not None:
            wait([self._committing[1]], max(0.1, timeout))
            if self._committing[1].done():
                self._settle()
        if self._finished or self._to_retry:
            assignments = self._finish_delivered(max(0.1, deadline - time.monotonic()))
            self._poller.commit(assignments, max(0.1, deadline - time.monotonic()))

    def close(self, timeout: float) -> None:
        """The topic is closed: commit what is finished."""
        self.commit_finished(timeout)

    # Inside

    def _commit_finished(self) -> None:
        """The loop does not wait for it to be acknowledged: until it is, a crash makes these rows come again, as it
        does for those that wait to be committed."""
        assignments = self._finish_delivered(COMMIT_TIMEOUT) | self._poller.to_commit()
        if assignments:
            self._committing = assignments, self._poller.commit_soon(assignments)

    def _handed_over(self) -> None:
        """Partitions were let go."""

    def _finish_for(self, handover: Handover) -> None:
        """Finish what the loop has processed; what is committed of it goes with the handover."""
        if self._finished:
            self._to_retry |= self._finish_delivered(COMMIT_TIMEOUT) - set(handover.assignments)

    def _is_committing(self) -> bool:
        if self._committing is None:
            return False
        if not self._committing[1].done():
            return True
        self._settle()
        return False

    def _settle(self) -> None:
        """See what became of the last automatic commit."""
        assert self._committing is not None
        assignments, future = self._committing
        self._committing = None
        self._to_retry.clear()
        error, failed_before = future.exception(), self._failing
        self._failing = error is not None
        if error is not None:
            self._to_retry = {assignment for assignment in assignments if assignment.owned}
            self._last_commit = time.monotonic()
            log.log(
                logging.DEBUG if failed_before else logging.WARNING,  # the first of several says it all
                "%s: an automatic commit did not succeed, and is tried again: %s",
                self._place, error, extra=self._place.extra,
            )  # fmt: skip
        elif failed_before:
            log.info("%s: the commit that did not succeed is made up for", self._place, extra=self._place.extra)

    def _finish_delivered(self, timeout: float) -> set[Assignment]:
        """Mark what the loop has finished, once the outputs are acknowledged; the assignments that are to be committed.

        Batches whose results may be among outputs that have failed since stay unfinished, and come again: nobody can
        say which those were.
        """
        finished, self._finished = self._finished, []  # before the flush, which covers what was written until now
        if finished:
            try:
                self._outputs.flush(timeout)
            except BaseException:
                self._finished = finished + self._finished
                raise
        sound = [claim for claim in finished if self._handed.get(claim, -1) in (-1, self._outputs.failures)]
        if len(sound) < len(finished):
            log.warning(
                "%s: %d batches are not committed, since outputs failed after they were handed over",
                self._place, len(finished) - len(sound), extra=self._place.extra,
            )  # fmt: skip
        self._finished_rows = 0
        return self._finish(sound)[0] | self._to_retry

    def _commit_letters(self, ours: set[Assignment]) -> None:
        """Have the dead letters' partitions committed that are not among those that are committed anyway. Whether these
        are still ours is another question than the one that a commit of rows answers."""
        if self._letters is None:
            return
        self._letters.flush(_LETTERS_TIMEOUT)
        if (self._letters.take_finished() or self._finished_rows) and (others := self._poller.to_commit() - ours):
            self._poller.commit_soon(others)  # if it fails, the next one is to commit them again

    def _finish(self, claims: Iterable[Claim]) -> tuple[set[Assignment], set[Partition]]:
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
            log.warning(
                "%s: it moved on to another instance before its rows were committed: they come again there",
                at, extra=Place(*at).extra,
            )  # fmt: skip
        return ours, moved
