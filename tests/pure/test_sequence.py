"""What is missing, repeated or out of order is noticed where it happens, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quixframes import FaultKind
from quixframes.sequence import Counts, SequenceTracker


def see(numbers: list[int], session: str = "a") -> tuple[list[tuple[int, FaultKind, int]], dict[str, Counts]]:
    """The faults as (position, kind, messages), and the counts."""
    tracker = SequenceTracker("engine", 0)
    faults = []
    for offset, number in enumerate(numbers):
        fault = tracker.see("car", session, number, offset)
        if fault is not None:
            assert (fault.offset, fault.found, fault.session) == (offset, number, session)
            faults.append((offset, fault.kind, fault.messages))
    return faults, tracker.counts


MISSING, REPEATED, LATE = FaultKind.Missing, FaultKind.Repeated, FaultKind.OutOfOrder
CASES = [
    ([0, 1, 2, 3], [], (0, 0, 0)),
    ([57, 58, 59], [], (0, 0, 0)),  # where reading begins
    ([0, 2], [(1, MISSING, 1)], (1, 0, 0)),
    ([0, 5, 6], [(1, MISSING, 4)], (4, 0, 0)),
    ([0, 1, 1, 2], [(2, REPEATED, 1)], (0, 1, 0)),
    ([0, 2, 1, 3], [(1, MISSING, 1), (2, LATE, 1)], (0, 0, 1)),  # two were swapped
    ([0, 3, 2, 2, 4], [(1, MISSING, 2), (2, LATE, 1), (3, REPEATED, 1)], (1, 1, 1)),
    ([5, 4, 6], [(1, LATE, 1)], (0, 0, 1)),
]


@pytest.mark.parametrize(("numbers", "faults", "counts"), CASES)
def test_each_fault_is_reported_where_it_is_noticed(
    numbers: list[int], faults: list[tuple[int, FaultKind, int]], counts: tuple[int, int, int]
) -> None:
    found, counted = see(numbers)
    assert found == faults
    assert counted.get("car", Counts()) == Counts(*counts)


def test_a_new_session_is_no_gap_and_streams_and_sessions_do_not_mix() -> None:
    tracker = SequenceTracker("engine", 0)
    told = ["a1:0", "b9:4", "a2:0", "a1:1", "a2:1", "b9:5", "a1:2"]
    for offset, (stream, session, _, number) in enumerate(told):
        assert tracker.see(stream, session, int(number), offset) is None


def test_a_fault_says_what_and_where_in_words() -> None:
    tracker = SequenceTracker("engine", 3)
    tracker.see("car-44", "s", 7, 100)
    assert str(tracker.see("car-44", "s", 10, 101)) == (
        "engine[3]@101: stream 'car-44': 2 messages are missing before this one (number 10, 8 was to come)"
    )


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_counts_add_up_for_any_numbers(numbers: list[int]) -> None:
    """Every message is the next one, or is reported once; those that never came are those that are counted missing."""
    faults, counted = see(numbers)
    counts = counted.get("car", Counts())
    assert counts.repeated + counts.out_of_order == sum(kind is not MISSING for _, kind, _ in faults)
    expected = set(range(numbers[0], max(numbers) + 1)) - set(numbers)
    assert counts.missing == len(expected)


def test_a_stream_that_has_ended_is_known_until_a_thousand_others_have_ended() -> None:
    """Repeats of its last messages come soon, if at all."""
    tracker = SequenceTracker("engine", 0)
    for n in range(1_001):
        if n in (1, 1_000):
            repeat = tracker.see("car-0", "s-0", 0, n)
            assert repeat is not None
            assert repeat.kind is REPEATED
        for number in (0, 1):
            assert tracker.see(f"car-{n}", f"s-{n}", number, n) is None
        tracker.end(f"car-{n}")
    assert tracker.see("car-0", "s-0", 0, 1_001) is None  # as where reading begins
    assert tracker.see("car-1", "s-1", 0, 1_002) is not None


def test_a_stream_that_ended_and_was_opened_again_is_not_forgotten() -> None:
    tracker = SequenceTracker("engine", 0)
    tracker.see("car", "a", 0, 0)
    tracker.end("car")
    tracker.see("car", "b", 0, 1)
    for n in range(2_000):
        tracker.see(f"other-{n}", "s", 0, n)
        tracker.end(f"other-{n}")
    assert tracker.see("car", "b", 2, 2) is not None
