"""The ledger of one partition: what it lets through, what it remembers, and what it forgets."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes.ledger import METADATA_LIMIT, Ledger


def restarted(ledger: Ledger, **arguments: int) -> Ledger:
    """The ledger that the partition's next owner makes of what was committed."""
    return Ledger(*ledger.committable(), **arguments)


def test_nothing_taken_means_that_the_start_is_committed_again() -> None:
    assert Ledger(17).committable() == (17, "")


def test_the_offset_moves_past_a_message_only_once_its_last_row_is_finished() -> None:
    ledger = Ledger(0)
    ledger.take(0, rows=10)
    ledger.finish(0, 0, 9)
    assert ledger.committable()[0] == 0
    ledger.finish(0, 9, 10)
    assert ledger.committable() == (1, "")


def test_an_unfinished_message_holds_back_all_that_are_finished_behind_it() -> None:
    ledger = Ledger(5)
    for offset in range(5, 10):
        ledger.take(offset, rows=3)
    for offset in range(6, 10):
        ledger.finish(offset, 0, 3)
    assert ledger.committable()[0] == 5
    again = restarted(ledger)
    assert [again.take(offset, rows=3) for offset in range(5, 11)] == [[(0, 3)], [], [], [], [], [(0, 3)]]


def test_rows_that_were_finished_out_of_order_are_remembered_row_by_row() -> None:
    ledger = Ledger(0)
    ledger.take(0, rows=100)
    for start, stop in ((40, 50), (10, 20), (15, 30), (90, 100)):
        ledger.finish(0, start, stop)
    assert restarted(ledger).take(0, rows=100) == [(0, 10), (30, 40), (50, 90)]


def test_a_message_without_rows_holds_nothing_back() -> None:
    ledger = Ledger(0)
    assert ledger.take(0, rows=0) == []
    assert ledger.committable() == (1, "")


def test_offsets_that_do_not_exist_hold_nothing_back() -> None:
    """Compaction and transaction markers leave gaps."""
    ledger = Ledger(0)
    ledger.take(3, rows=1)
    ledger.take(1_000_000_000, rows=1)
    ledger.finish(3, 0, 1)
    assert ledger.committable() == (1_000_000_000, "")
    ledger.finish(1_000_000_000, 0, 1)
    assert ledger.committable() == (1_000_000_001, "")


def test_what_was_remembered_stays_remembered_before_it_is_met_again() -> None:
    """A restart, a commit before anything was read, and another restart: what was finished is still finished."""
    ledger = Ledger(0)
    for offset in range(4):
        ledger.take(offset, rows=10)
    ledger.finish(1, 0, 10)
    ledger.finish(2, 2, 5)
    ledger.finish(3, 0, 10)
    second = restarted(ledger)
    third = restarted(second)
    assert [third.take(offset, rows=10) for offset in range(4)] == [[(0, 10)], [], [(0, 2), (5, 10)], []]


def test_taking_an_offset_twice_is_refused() -> None:
    ledger = Ledger(0)
    ledger.take(0, rows=1)
    with pytest.raises(ValueError, match="was taken already"):
        ledger.take(0, rows=1)


def test_pending_tells_what_holds_the_partition_back() -> None:
    ledger = Ledger(0)
    assert ledger.pending() is None
    ledger.take(0, rows=10, label="car-1")
    ledger.take(1, rows=10, label="car-2")
    ledger.finish(0, 0, 4)
    pending = ledger.pending()
    assert pending is not None
    assert (pending.offset, pending.rows, pending.label) == (0, 6, "car-1")
    ledger.finish(0, 0, 10)
    assert ledger.pending() is not None
    assert ledger.unfinished == 1


@pytest.mark.parametrize("text", ["", "somebody else's", "qf1:", "qf1:!!", "qf1:" + "0" * 4000, "qf2:abc"])
def test_a_text_that_no_ledger_wrote_remembers_nothing(text: str) -> None:
    assert Ledger(0, text).take(0, rows=5) == [(0, 5)]


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=200))
def test_no_text_breaks_a_ledger(text: str) -> None:
    ledger = Ledger(0, "qf1:" + text)
    for offset in range(5):
        assert all(0 <= start < stop <= 5 for start, stop in ledger.take(offset, rows=5))
    ledger.committable()


def test_where_the_text_would_be_too_long_the_earliest_messages_are_remembered() -> None:
    """It stays within Kafka's limit, and what it forgets comes again: no unfinished row is ever passed."""
    randomness = random.Random(7)
    ledger = Ledger(0)
    unfinished = set()
    for offset in range(60_000):
        ledger.take(offset, rows=2)
        if offset == 0 or randomness.random() < 0.5:
            unfinished.add(offset)
        else:
            ledger.finish(offset, 0, 2)
    offset, text = ledger.committable()
    assert offset == 0
    assert 0.8 * METADATA_LIMIT < len(text) <= METADATA_LIMIT
    assert ledger.forgets
    again = Ledger(offset, text)
    left = [again.take(offset, rows=2) != [] for offset in range(60_000)]
    assert all(left[offset] for offset in unfinished)
    remembered = [offset for offset in range(60_000) if not left[offset]]
    assert len(remembered) > 4_000
    horizon = max(remembered)
    assert all(left[offset] == (offset in unfinished) for offset in range(horizon))


def test_thousands_of_streams_in_turn_fit() -> None:
    """Two streams by turns, one of them held back for ten thousand messages: a regular pattern deflates to nothing."""
    ledger = Ledger(0)
    for offset in range(20_000):
        ledger.take(offset, rows=10)
        if offset % 2:
            ledger.finish(offset, 0, 10)
    _, text = ledger.committable()
    assert len(text) < 200
    assert sum(len(Ledger(0, text).take(offset, rows=10)) for offset in range(1, 2)) == 0


def test_a_long_run_stays_small() -> None:
    """What is behind the front is forgotten: memory does not grow with the life of a reader."""
    ledger = Ledger(0)
    for offset in range(100_000):
        ledger.take(offset, rows=1)
        ledger.finish(offset, 0, 1)
        if offset % 1000 == 0:
            ledger.committable()
    assert ledger.committable() == (100_000, "")
    assert len(ledger._done) < 10_000


@given(st.data())
@settings(max_examples=500)
def test_after_any_history_of_restarts_exactly_the_unfinished_rows_come_again(data: st.DataObject) -> None:
    """Random messages, rows finished in any order, restarts at any time: nothing finished comes twice, nothing
    unfinished is passed. The oracle is a plain set of rows."""
    sizes = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=12))
    gaps = data.draw(st.lists(st.integers(1, 3), min_size=len(sizes), max_size=len(sizes)))
    offsets = [sum(gaps[: n + 1]) for n in range(len(sizes))]
    finished: set[tuple[int, int]] = set()
    ledger = Ledger(0)
    for _ in range(data.draw(st.integers(1, 4))):
        start = ledger.committable()[0]
        handed: list[tuple[int, int]] = []
        for offset, rows in zip(offsets, sizes, strict=True):
            if offset < start:
                assert all((offset, row) in finished for row in range(rows))
                continue
            if data.draw(st.booleans()) and handed:
                break
            left = {(offset, row) for first, after in ledger.take(offset, rows) for row in range(first, after)}
            assert left == {(offset, row) for row in range(rows)} - finished
            handed += sorted(left)
        for offset, row in data.draw(st.permutations(handed)) if handed else []:
            if data.draw(st.booleans()):
                ledger.finish(offset, row, row + 1)
                finished.add((offset, row))
        ledger = restarted(ledger)


def test_a_message_that_is_taken_whole_is_unfinished_unless_all_of_it_is_known_to_be_finished() -> None:
    ledger = Ledger(0)
    for offset in range(3):
        ledger.take(offset, rows=10)
    ledger.finish(1, 0, 5)
    ledger.finish(2, 0, 10)
    again = restarted(ledger)
    assert [again.take_whole(offset) for offset in range(4)] == [[(0, 1)], [(0, 1)], [], [(0, 1)]]
    for offset in (0, 1, 3):
        assert again.committable()[0] == min(offset, 1 if offset < 3 else 3)
        again.finish(offset, 0, 1)
    assert again.committable() == (4, "")
    with pytest.raises(ValueError, match="taken already"):
        again.take_whole(3)
