"""What a transaction commits is still this reader's when it is committed, though the group was shared out anew."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from quixframes.assignment import Account, Assignment
from quixframes.batch import Claim
from quixframes.buffer import Piece
from quixframes.errors import GroupMovedOnError
from quixframes.kafka import Partition
from quixframes.ledger import Ledger
from quixframes.poller import Handover
from quixframes.settings import CommitMode, CommitSettings
from quixframes.transactions import TransactionalCommits


class Poller:
    """A reader that loses its partition, and has it again, while a transaction is being committed."""

    has_group = True
    error = None
    departures = 0
    accounts: dict[Partition, Account] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.assignments: dict[Partition, Assignment] = {}
        self.moved: list[Exception] = []
        self.asked = 0
        self.begin()

    def begin(self) -> None:
        at = Partition("engine", 0)
        self.assignments[at] = Assignment(at, Ledger(0), 0, account=self.accounts.setdefault(at, Account()))

    def membership(self) -> str:
        self.asked += 1
        if self.asked == 2:  # somebody else had it between the two
            self.let_go()
            self.begin()
        return f"generation {self.asked}"

    def let_go(self) -> None:
        self.assignments[Partition("engine", 0)].let_go()
        self.departures += 1

    def moved_on(self, exc: Exception) -> None:
        self.moved.append(exc)

    def committed(self, offsets: object) -> None:
        pass

    handover: Handover | None = None

    def hand_over(self, handover: Handover) -> None:
        self.handover = None

    def rewind(self, timeout: float) -> None:
        pass


class Producer:
    """Asks again who is a member, as after a refusal of the old generation, and commits."""

    committed = False

    def commit_transaction(self, offsets: Any, membership: Any, timeout: float) -> None:
        assert (membership(), membership()) == ("generation 1", "generation 2")
        self.committed = True

    def abort_transaction(self, timeout: float) -> None:
        pass


class Outputs:
    failures = 0

    def __init__(self) -> None:
        self.sent = 0

    def release(self) -> None: ...
    def discard(self) -> None: ...
    def take_failures(self) -> list[Exception]:
        return []


def test_what_went_and_came_back_while_a_transaction_was_committed_is_not_committed() -> None:
    """Its rows were somebody else's in between, who may have committed them: they would count twice."""
    poller, producer = Poller(), Producer()
    settings = CommitSettings(mode=CommitMode.Manual)
    commits = TransactionalCommits("engine", poller, Outputs(), None, settings, producer)  # type: ignore[arg-type]
    (assignment,) = poller.assignments.values()
    assignment.take(0, 10)
    claim = Claim(assignment, (Piece(0, 0, 10),), 10, 0)
    commits.hand(claim)
    assert not commits.commit([claim])
    assert not producer.committed
    assert [type(exc) for exc in poller.moved] == [GroupMovedOnError]
    assert (assignment.account.processed, assignment.account.let_go) == (0, 10)


def test_what_is_written_for_a_batch_of_before_an_abort_is_not_committed_with_a_handover() -> None:
    """Nobody has told the model that its batch comes again."""
    poller, outputs, producer = Poller(), Outputs(), Producer()
    settings = CommitSettings(mode=CommitMode.Manual)
    commits = TransactionalCommits("engine", poller, outputs, None, settings, producer)  # type: ignore[arg-type]
    (assignment,) = poller.assignments.values()
    assignment.take(0, 10)
    commits.hand(Claim(assignment, (Piece(0, 0, 10),), 10, 0))
    poller.let_go()
    commits.forget_lost()
    outputs.sent += 1
    poller.handover = Handover([], Future())
    commits.serve_handovers()
    assert poller.handover is None
    assert not producer.committed
    assert (commits.transactions, commits.aborted) == (0, 2)
