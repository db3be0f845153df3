"""The account of a partition's rows adds up whenever the partition goes, which another thread decides."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from quixframes.assignment import Assignment
from quixframes.kafka import Partition
from quixframes.ledger import Ledger


def adds_up(assignment: Assignment) -> bool:
    rows_in, *fates = astuple(assignment.account)
    return bool(rows_in == sum(fates) + assignment.held)


@pytest.fixture
def gone() -> Assignment:
    """A partition that went with six of its ten rows finished."""
    assignment = Assignment(Partition("engine", 0), Ledger(0), 0)
    assignment.take(0, 10)
    assignment.account.processed += assignment.finish([(0, 0, 6)])
    assert adds_up(assignment)
    assignment.let_go()
    assert (assignment.account.let_go, assignment.held, adds_up(assignment)) == (4, 0, True)
    return assignment


def test_a_message_of_a_partition_that_has_gone_is_not_taken_in(gone: Assignment) -> None:
    """The reading thread may lose it after the loop has looked whether it is ours."""
    assert gone.take(1, 14) == []
    assert gone.take_whole(2, None) == []
    assert gone.account.rows_in == 10
    assert adds_up(gone)


def test_rows_of_a_partition_that_has_gone_are_let_go_and_not_finished_as_well(gone: Assignment) -> None:
    """Each row has one fate."""
    assert gone.finish([(0, 6, 10)]) == 0
    gone.account.filtered += gone.finish([(0, 6, 8)])
    assert adds_up(gone)
