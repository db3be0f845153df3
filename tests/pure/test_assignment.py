"""What is left to be done in a partition: its lag, in messages and in seconds."""

from __future__ import annotations

from quixframes.assignment import Assignment
from quixframes.kafka import Partition
from quixframes.ledger import Ledger


def assignment(group: bool = True, **facts: int) -> Assignment:
    made = Assignment(Partition("engine", 0), Ledger(10) if group else None, 10)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def test_the_lag_is_unknown_until_the_end_is_and_then_all_there_is() -> None:
    one = assignment()
    assert (one.lag, one.lag_seconds(5_000)) == (None, None)
    one.behind = 7
    assert (one.lag, one.lag_seconds(5_000)) == (7, None)  # nothing has come that would say since when


def test_the_lag_counts_from_the_first_message_that_is_not_finished() -> None:
    one = assignment(position=15, behind=5, arrived=15)
    for offset in range(10, 13):
        one.take(offset, 2)
    one.seen_ms = 1_000
    assert (one.lag, one.lag_seconds(4_500)) == (10, 3.5)
    one.finish([(10, 0, 2), (12, 0, 2)])
    assert one.lag == 9  # 11 is open, 13 and 14 are read ahead, and 5 lie beyond
    one.finish([(11, 0, 2)])
    assert one.lag == 7


def test_markers_of_transactions_at_the_end_are_no_lag() -> None:
    """The position is behind them, and no message there will ever be finished."""
    one = assignment(position=14, behind=0, arrived=12)
    one.take(10, 1)
    one.take(11, 1)
    one.finish([(10, 0, 1), (11, 0, 1)])
    one.seen_ms = 1_000
    assert (one.lag, one.lag_seconds(10**9)) == (0, 0.0)


def test_without_a_group_the_lag_counts_from_what_was_taken_in() -> None:
    one = assignment(group=False, position=15, behind=2, arrived=15, seen=12, seen_ms=1_000)
    assert (one.lag, one.lag_seconds(3_000)) == (5, 2.0)
    one.seen, one.behind = 15, 0
    assert (one.lag, one.lag_seconds(3_000)) == (0, 0.0)


def test_a_clock_that_is_before_the_broker_s_makes_no_lag_below_zero() -> None:
    assert assignment(behind=1, seen_ms=2_000).lag_seconds(1_000) == 0
