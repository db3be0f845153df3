"""What is missing, repeated or out of order in a stream, by the numbers that its writer gave its messages. Pure.

What this module holds to:

- A writer's session numbers its messages from 0 without a gap. What a reader meets first of a session is where it
  begins: a retained beginning, or a restart in the middle, is no gap.
- A message is judged when it comes. One that comes late was reported missing by then, and is reported again as out of
  order; the counts take it back.
- What is known of a stream that has ended is forgotten once a thousand others have ended after it.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["Counts", "FaultKind", "SequenceFault", "SequenceTracker"]

_SESSIONS = 4  # that are remembered of each stream: several writers at once, and one that restarts
_ENDED = 1_000  # streams of which is still known how they ended, since repeats come soon if at all
_MISSING = 1_000  # numbers that are remembered as missing of each session: what comes later than that is a repeat


class FaultKind(enum.Enum):
    """What is wrong with a message, or before it."""

    Missing = "missing"
    Repeated = "repeated"
    OutOfOrder = "out of order"


@dataclass(frozen=True, slots=True)
class SequenceFault:
    """One fault in a stream's messages.

    Attributes:
        kind: messages before this one are missing; or this one came before; or it came too late.
        stream_id: the stream.
        topic, partition, offset: where the message is at which it was noticed.
        messages: how many are missing; 1 for the other kinds.
        expected, found: the number that was to come, and the one that came.
        session: the writer's session.
    """

    kind: FaultKind
    stream_id: str
    topic: str
    partition: int
    offset: int
    messages: int
    expected: int
    found: int
    session: str

    @property
    def what(self) -> str:
        """The fault in words."""
        messages = "1 message is" if self.messages == 1 else f"{self.messages:,} messages are"
        what = {
            FaultKind.Missing: f"{messages} missing before this one",
            FaultKind.Repeated: "this message came before",
            FaultKind.OutOfOrder: "this message comes after later ones",
        }[self.kind]
        return f"stream {self.stream_id!r}: {what} (number {self.found}, {self.expected} was to come)"

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}: {self.what}"


@dataclass(slots=True)
class Counts:
    """Messages of a stream by what was wrong with them."""

    missing: int = 0
    repeated: int = 0
    out_of_order: int = 0


@dataclass(slots=True)
class _Session:
    name: str
    next: int
    first: int
    missing: set[int] | None = None


class SequenceTracker:
    """Watches the streams of one partition, and counts by stream what it finds."""

    def __init__(self, topic: str, partition: int, counts: dict[str, Counts] | None = None) -> None:
        self._topic = topic
        self._partition = partition
        self.counts = {} if counts is None else counts
        self._latest: dict[str, _Session] = {}
        self._earlier: dict[str, OrderedDict[str, _Session]] = {}
        self._ended: dict[str, None] = {}

    def see(self, stream_id: str, session: str, sequence: int, offset: int) -> SequenceFault | None:
        """Judge the next message of the partition.

        >>> tracker = SequenceTracker("engine", 0)
        >>> tracker.see("car-44", "5e55", 7, offset=100)             # where reading begins
        >>> print(tracker.see("car-44", "5e55", 9, offset=101))
        engine[0]@101: stream 'car-44': 1 message is missing before this one (number 9, 8 was to come)
        """
        known = self._latest.get(stream_id)
        if known is None or known.name != session:
            known = self._other(stream_id, known, session, sequence)
        if sequence == known.next:
            known.next = sequence + 1
            return None
        return self._fault(stream_id, known, sequence, offset)

    def end(self, stream_id: str) -> None:
        """The stream has ended. It may be opened again, in another session."""
        self._ended.pop(stream_id, None)
        self._ended[stream_id] = None
        if len(self._ended) > _ENDED:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._latest.pop(oldest, None)
            self._earlier.pop(oldest, None)

    def _other(self, stream_id: str, latest: _Session | None, session: str, sequence: int) -> _Session:
        """Another session than that of the stream's last message: one that was met before, or a new one."""
        self._ended.pop(stream_id, None)
        found = None
        if latest is not None:
            earlier = self._earlier.setdefault(stream_id, OrderedDict())
            earlier[latest.name] = latest
            if len(earlier) > _SESSIONS:
                earlier.popitem(last=False)
            found = earlier.pop(session, None)
        if found is None:
            found = _Session(session, sequence, sequence)
        self._latest[stream_id] = found
        return found

    def _fault(self, stream_id: str, known: _Session, sequence: int, offset: int) -> SequenceFault:
        counts = self.counts.setdefault(stream_id, Counts())
        if known.missing is None:
            known.missing = set()
        expected, messages = known.next, 1
        if sequence > expected:
            kind, messages = FaultKind.Missing, sequence - expected
            counts.missing += messages
            known.missing.update(range(max(expected, sequence - _MISSING), sequence))
            while len(known.missing) > _MISSING:
                known.missing.remove(min(known.missing))
            known.next = sequence + 1
        elif sequence in known.missing or sequence < known.first:
            kind = FaultKind.OutOfOrder
            counts.out_of_order += 1
            if sequence in known.missing:
                counts.missing -= 1
                known.missing.remove(sequence)
        else:
            kind = FaultKind.Repeated
            counts.repeated += 1
        return SequenceFault(
            kind, stream_id, self._topic, self._partition, offset, messages, expected, sequence, known.name
        )
