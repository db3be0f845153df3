"""What a transaction commits is still this reader's when it is committed, though the group was shared out anew."""

from __future__ import annotations

import threading
from typing import Any

from quixframes.assignment import Assignment
from quixframes.batch import Claim
from quixframes.buffer import Piece
from quixframes.errors import GroupMovedOnError
from quixframes.kafka import Partition
from quixframes.ledger import Ledger
from quixframes.settings import CommitMode, CommitSettings
from quixframes.transactions import TransactionalCommits


class Poller:
    """A reader that loses its partition, and has it again, while a transaction is being committed."""

    has_group = True
    error = None

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.assignments: dict[Partition, Assignment] = {}
        self.moved: list[Exception] = []
        self.asked = 0
        self.begin()

    def begin(self) -> None:
        at = Partition("engine", 0)
        self.assignments[at] = Assignment(at, Ledger(0), 0)

    def membership(self) -> str:
        self.asked += 1
        if self.asked == 2:  # somebody else had it between the two
            self.assignments[Partition("engine", 0)].let_go()
            self.begin()
        return f"generation {self.asked}"

    def moved_on(self, exc: Exception) -> None:
        self.moved.append(exc)

    def committed(self, offsets: object) -> None:
        pass

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
    failures = sent = 0

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
