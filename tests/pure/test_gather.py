"""Between what was read ahead and what is ready: each message is entered once, whatever fails on the way."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import quixframes as qf
from quixframes.frames import FrameEncoder
from quixframes.gather import Gatherer
from quixframes.kafka import Partition
from quixframes.ledger import Ledger
from quixframes.logs import Seldom
from quixframes.message_reader import MessageReader
from quixframes.poller import Assignment
from quixframes.wire import MessageEncoder
from tests.pure.messages import Sent


def frame_of(*values: int) -> pd.DataFrame:
    times = pd.to_datetime(list(values), unit="ms", utc=True)
    return pd.DataFrame({"n": list(values)}, index=pd.DatetimeIndex(times, name="time"))


def sent(partition: int, offset: int, *values: int, sequence: int | None = None, session: str = "5e55") -> Sent:
    number = offset if sequence is None else sequence
    batch = FrameEncoder().encode(frame_of(*values))
    ((value, headers, _),) = MessageEncoder().encode(
        batch, stream_id=f"s{partition}", session=session, sequence=number, limit=100_000
    )
    return Sent(b"s%d" % partition, value, headers, "t", partition, offset)


class Letters:
    """A dead-letter topic that has no room at first."""

    def __init__(self) -> None:
        self.told = Seldom(logging.getLogger("quixframes"), "{}")
        self.sent: list[int] = []
        self.full = False

    def send(self, assignment: Assignment, record: Sent, error: BaseException) -> None:
        if self.full:
            raise KeyboardInterrupt
        assert assignment.ledger is not None
        self.sent.append(record.offset)
        assignment.ledger.finish(record.offset, 0, 1)


def gatherer_of(**changes: Any) -> Gatherer:
    common: dict[str, Any] = {
        "most_held": 10**9, "on_bad_message": "raise", "dead_letters": None, "faults": qf.FaultSettings(),
        "idle": None, "messages": MessageReader(), "commit": lambda claims: True,
    }  # fmt: skip
    made = Gatherer(SimpleNamespace(lock=threading.RLock()), **(common | changes))  # type: ignore[arg-type]
    made.begin(qf.BufferSettings(timeout=None))
    return made


def partition(number: int) -> Assignment:
    return Assignment(Partition("t", number), Ledger(0), 0)


def rows(gatherer: Gatherer) -> list[int]:
    gatherer.release_held("end")
    found = [n for batch in gatherer.ready for n in batch.frame["n"]]
    gatherer.ready.clear()
    return found


def test_a_fault_of_a_partition_that_went_is_not_raised_at_a_sound_message_of_another() -> None:
    gatherer = gatherer_of(faults=qf.FaultSettings(report="raise"))
    gone, here = partition(0), partition(1)
    gatherer.add([(gone, [sent(0, 0, 1), sent(0, 1, 2, sequence=5)]), (here, [sent(1, 0, 3)])])
    assert gatherer.step(None)
    with pytest.raises(qf.SequenceError):
        gatherer.step(None)
    gone.owned = False
    while gatherer.step(None):
        pass
    gatherer.forget_lost()
    assert rows(gatherer) == [3]


def test_what_was_read_ahead_is_taken_in_as_a_whole_or_not_at_all() -> None:
    class Reader(MessageReader):
        fails = True

        def read_ahead(self, records: Any) -> None:
            if self.fails and records[0].partition == 1:
                raise qf.SettingsError("two columns of one name")

    reader = Reader()
    gatherer = gatherer_of(messages=reader)
    chunk: Any = [(partition(0), [sent(0, 0, 1)]), (partition(1), [sent(1, 0, 2)])]
    with pytest.raises(qf.SettingsError):
        gatherer.add(chunk)
    assert not gatherer.step(None)
    reader.fails = False
    gatherer.add(chunk)
    while gatherer.step(None):
        pass
    assert sorted(rows(gatherer)) == [1, 2]


def test_a_message_that_has_begun_to_go_on_stays_before_what_lay_beyond_the_loop_s_end() -> None:
    """A filter that raises leaves it half-way; the next loop goes on with it, and not with another in its place."""
    broken = [True]

    def keep(frame: pd.DataFrame) -> Any:
        if broken[0]:
            raise ValueError("a filter of the user's")
        return frame["n"] > 0

    gatherer = gatherer_of()
    settings = qf.BufferSettings(timeout=None, filter=keep)
    gatherer.begin(settings)
    left, right = partition(0), partition(1)
    gatherer.add([(left, [sent(0, 0, 1, 2)]), (right, [sent(1, 0, 3)])])
    with pytest.raises(ValueError, match="user's"):
        while gatherer.step({left.partition: 0, right.partition: 1}):
            pass
    gatherer.end()
    broken[0] = False
    while gatherer.step(None):
        pass
    assert rows(gatherer) == [3, 1, 2]
    assert all(a.ledger is not None and a.ledger.unfinished == 1 for a in (left, right))


def test_a_message_is_read_once_also_where_the_next_call_would_refuse_it() -> None:
    """As where a contract changes in between: its dead letter would finish one of its rows."""
    reader = MessageReader()
    letters = Letters()
    gatherer = gatherer_of(messages=reader, dead_letters=letters, faults=qf.FaultSettings(report="raise"))
    assignment = partition(0)
    gatherer.add([(assignment, [sent(0, 0, 1), sent(0, 1, 2, 3, 4, sequence=7)])])
    gatherer.step(None)
    with pytest.raises(qf.SequenceError):
        gatherer.step(None)
    gatherer.raised()

    def refuse(record: Any) -> Any:
        raise qf.DamagedMessageError("no", topic="t", partition=0, offset=record.offset)

    reader.read = refuse  # type: ignore[method-assign]
    gatherer.step(None)
    assert rows(gatherer) == [1, 2, 3, 4]
    assert letters.sent == []


def test_a_dead_letter_for_which_there_was_no_room_is_sent_by_the_next_call_and_judged_once() -> None:
    letters = Letters()
    gatherer = gatherer_of(dead_letters=letters, faults=qf.FaultSettings(report="raise"))
    assignment = partition(0)
    good, bad = sent(0, 0, 1), sent(0, 1, 2)
    gatherer.add([(assignment, [good, bad._replace(value=b"damaged"), sent(0, 2, 3)])])
    gatherer.step(None)
    letters.full = True
    with pytest.raises(KeyboardInterrupt):
        gatherer.step(None)
    letters.full = False
    while gatherer.step(None):
        pass
    assert letters.sent == [1]
    assert rows(gatherer) == [1, 3]
    assert gatherer.fault_counts == {}


def test_a_refused_message_that_came_before_is_a_dead_letter_all_the_same() -> None:
    """Its bytes are evidence; what is dropped as a repeat is what has been read."""
    letters = Letters()
    gatherer = gatherer_of(dead_letters=letters, faults=qf.FaultSettings(drop_repeats=True))
    damaged = sent(0, 1, 1, sequence=0)._replace(value=b"damaged")
    gatherer.add([(partition(0), [sent(0, 0, 1), damaged, sent(0, 2, 1, sequence=0)])])
    while gatherer.step(None):
        pass
    assert (letters.sent, rows(gatherer), gatherer.fault_counts["s0"].repeated) == ([1], [1], 2)


def test_numbers_are_judged_anew_behind_each_gap_that_was_told() -> None:
    told: list[qf.SequenceFault] = []
    gatherer = gatherer_of(faults=qf.FaultSettings(report=told.append))
    assignment = partition(0)
    assignment.gaps.extend([10, 20])
    gatherer.add([(assignment, [sent(0, offset, 1) for offset in (0, 1, 3, 10, 11, 20, 22)])])
    while gatherer.step(None):
        pass
    assert [(fault.offset, fault.messages) for fault in told] == [(3, 1), (22, 1)]


def test_a_stream_is_idle_where_nothing_is_read_ahead_that_may_be_its_and_its_partition_is_still_here() -> None:
    idle: list[str] = []
    gatherer = gatherer_of(idle=(0.0, lambda stream: idle.append(stream.stream_id)))
    here, gone, other = (partition(number) for number in range(3))
    gatherer.add([(a, [sent(n, 0, 1)]) for n, a in enumerate((here, gone, other))])
    later = 10**9
    gatherer.step(None)
    gatherer.tell_idle(later)
    assert idle == []
    while gatherer.step({here.partition: 1, gone.partition: 1, other.partition: 0}):
        pass
    gatherer.tell_idle(later)
    assert idle == []  # what lies beyond this loop's end may be theirs too
    gatherer.end()
    gatherer.step(None)
    gone.owned = False
    gatherer.tell_idle(later)
    gatherer.forget_lost()
    gatherer.tell_idle(later)
    assert idle == ["s0", "s2"]
