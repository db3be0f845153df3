"""From messages that were read ahead to row batches that are ready: decoding, ledgers, and what is wrong
with messages.

For one thread, without waiting and without signals in the middle (see ``signals``). What this module holds to:

- A message is read and entered in its partition's ledger once. If a step fails half-way (a filter that raises, a dead
  letter that finds no room), the next call goes on where it stopped: no row is skipped, and none comes twice. Only one
  that cannot be read, and is neither skipped nor a dead letter, is read again by the next call.
- What belongs to a partition that went is dropped.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from quixframes.assemble import Assembler
from quixframes.assignment import Assignment, Chunk
from quixframes.batch import Claim, RowBatch, StreamReader
from quixframes.buffer import Piece
from quixframes.dead_letters import LetterDesk
from quixframes.errors import SequenceError, WireError
from quixframes.kafka import Partition, Record
from quixframes.logs import Place, Seldom
from quixframes.message_reader import MessageReader, number_of
from quixframes.poller import Poller
from quixframes.sequence import Counts, FaultKind, SequenceTracker
from quixframes.settings import BufferSettings, FaultSettings
from quixframes.wire import Message

__all__ = ["Gatherer"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entered:
    """A message that is in its ledger, or why it cannot be read; the ranges of its rows that are still to go on; and
    what is wrong with its place in its stream, until that is told."""

    content: Message | WireError
    ranges: list[tuple[int, int]]
    fault: SequenceError | None = None


class Gatherer:
    """Holds what one input topic has read and not yet handed over.

    Args:
        poller: whose lock guards the ledgers.
        most_held: the bytes that all buffers together may hold.
        on_bad_message: "raise" a message that cannot be read, or "skip" it.
        dead_letters: where it goes instead, if anywhere.
        faults: what to do about messages that are missing, repeated or out of order.
        idle: seconds after which a stream that is silent is idle, and who is told; None: nobody asks.
        messages: what reads records.
        commit: what ``RowBatch.commit`` calls.
    """

    def __init__(
        self,
        poller: Poller,
        *,
        most_held: int,
        on_bad_message: Literal["raise", "skip"],
        dead_letters: LetterDesk | None,
        faults: FaultSettings,
        idle: tuple[float, Callable[[StreamReader], object]] | None,
        messages: MessageReader,
        commit: Callable[[list[Claim]], bool],
    ) -> None:
        self._poller = poller
        self._on_bad_message = on_bad_message
        self._dead_letters = dead_letters
        self._faults = faults
        self._idle = idle
        self._messages = messages
        self._assembler = Assembler(BufferSettings(), most_held=most_held, commit=commit, dropped=self._finish_dropped)
        self.begin = self._assembler.begin
        self.release_held = self._assembler.release_held
        # What the first record has become; None where it is not in its ledger yet. It stays first until all of it has
        # gone on.
        self._records: deque[tuple[Assignment, Record]] = deque()
        self._entered: _Entered | None = None
        self._beyond: list[tuple[Assignment, Record]] = []
        self._reached: set[Assignment] = set()
        self._trackers: dict[Assignment, SequenceTracker] = {}
        # When each open stream spoke last, the one that has been silent longest first.
        self._spoke: OrderedDict[tuple[Assignment, str], float] = OrderedDict()
        self.fault_counts: dict[str, Counts] = {}
        self.bad_messages = 0
        self._skipped = Seldom(log, "{:,} messages were skipped")
        self._out_of_place = Seldom(log, "{:,} faults in streams' messages")

    @property
    def ready(self) -> deque[RowBatch]:
        """Batches to be handed over."""
        return self._assembler.ready

    @property
    def held_bytes(self) -> int:
        """Bytes of rows and events that the buffers hold."""
        return self._assembler.held_bytes

    @property
    def streams(self) -> dict[tuple[str, str], StreamReader]:
        """The streams that were met, by topic and ID."""
        return self._assembler.streams

    @property
    def deadline(self) -> float | None:
        """When something has to be released next."""
        return self._assembler.deadline

    def end(self) -> None:
        """A loop is over: what lay beyond its end comes first in the next one, but for what has begun to go on."""
        begun = [self._records.popleft()] if self._entered is not None else []
        self._records.extendleft(reversed(begun + self._beyond))
        self._beyond.clear()
        self._reached.clear()
        self._skipped.tell_rest()
        self._out_of_place.tell_rest()
        if self._dead_letters is not None:
            self._dead_letters.told.tell_rest()

    def add(self, chunk: Chunk) -> None:
        """Take in what was read ahead."""
        for _, records in chunk:
            self._messages.read_ahead(records)  # which may raise, and then none of it is taken in
        for assignment, records in chunk:
            self._records.extend([(assignment, record) for record in records])

    def step(self, ends: Mapping[Partition, int] | None) -> bool:
        """Decode one message, up to ``ends`` if there are any; False where there is none."""
        if not self._records:
            return False
        assignment, record = self._records[0]
        end = None if ends is None else ends.get(assignment.partition, 0)
        if not assignment.owned:
            self._messages.pass_over(record)
            self._entered = None
        elif end is not None and record.offset >= end and self._entered is None:
            self._beyond.append(self._records[0])
            self._reached.add(assignment)
        else:
            self._take(assignment, record)
            if end is not None and record.offset + 1 == end:
                self._reached.add(assignment)
        self._records.popleft()
        return True

    def raised(self) -> None:
        """The error of the last step reached the user: a fault in a stream's order is told once, and passed over."""
        if self._entered is not None:
            self._entered.fault = None

    def reached(self, assignment: Assignment) -> bool:
        """Whether a message at the end of the loop's range has been met in this partition."""
        return assignment in self._reached

    def expire(self, now: float) -> None:
        """Release what was held for as long as it may be, and log what was not yet."""
        self._assembler.expire(now)
        self._skipped.tell(now)
        self._out_of_place.tell(now)
        if self._dead_letters is not None:
            self._dead_letters.told.tell(now)

    def tell_idle(self, now: float) -> None:
        """Tell which streams have been silent for too long; to be called where nothing is read ahead, which may be
        theirs."""
        while self._idle is not None and self._spoke and not self._records and not self._beyond:
            after, tell = self._idle
            key, since = next(iter(self._spoke.items()))
            if since + after > now:
                return
            del self._spoke[key]
            if key[0].owned:
                tell(self.streams[key[0].partition.topic, key[1]])

    def forget_lost(self) -> None:
        """Drop what belongs to partitions that are no longer ours."""
        self._assembler.forget_lost()
        for assignment in [assignment for assignment in self._trackers if not assignment.owned]:
            del self._trackers[assignment]
        for key in [key for key in self._spoke if not key[0].owned]:
            del self._spoke[key]

    def _take(self, assignment: Assignment, record: Record) -> None:
        entered = self._entered
        if entered is None:
            entered = self._entered = self._enter(assignment, record)
            assignment.seen, assignment.seen_ms = record.offset + 1, record.timestamp
            self._judge(assignment, record, entered)
        if entered.fault is not None:
            raise entered.fault
        if isinstance(entered.content, Message):
            self._assembler.add(assignment, entered.content, record.offset, entered.ranges)
        elif entered.ranges and self._dead_letters is not None:
            self._dead_letters.send(assignment, record, entered.content)
        self._entered = None

    def _enter(self, assignment: Assignment, record: Record) -> _Entered:
        """Read a message, and enter it in its ledger. One that cannot be read is entered as one row, which its dead
        letter finishes; or as none, where it is skipped.

        Raises:
            WireError: it cannot be read, and the topic's settings say to raise that. It is not entered.
        """
        offset = record.offset
        try:
            message = self._messages.read(record)
        except WireError as exc:
            if self._dead_letters is None and self._on_bad_message == "raise":
                raise
            with self._poller.lock:
                if self._dead_letters is not None:
                    return _Entered(exc, assignment.take_whole(offset, (None, time.time())))
                assignment.take(offset, 0)
            self.bad_messages += 1
            place = Place(record.topic, record.partition, offset, number_of(record)[0] or None)
            self._skipped.note(f"skipped a message: {exc}", place, time.monotonic())
            return _Entered(exc, [])
        stream_id = message.stream_id
        with self._poller.lock:
            ranges = assignment.take(offset, message.entries, (stream_id, time.time()))
            if message.end is None:
                assignment.streams.add(stream_id)
            else:
                assignment.streams.discard(stream_id)
        return _Entered(message, ranges)

    def _judge(self, assignment: Assignment, record: Record, entered: _Entered) -> None:
        """See whether the message is the next of its stream, and whether its stream is still alive."""
        message, offset = entered.content, record.offset
        if isinstance(message, Message):
            stream_id, session, sequence, ended = message.stream_id, message.session, message.sequence, message.end
        else:  # so that the next one is not said to come after a gap
            stream_id, session, sequence = number_of(record)
            ended = None
        key = (assignment, stream_id)
        if self._idle is not None and (isinstance(message, Message) or key in self._spoke):
            self._spoke[key] = time.monotonic()
            self._spoke.move_to_end(key)
            if ended is not None:
                del self._spoke[key]
        if not session:
            return  # somebody else wrote it, without numbers
        tracker = self._tracker(assignment, offset)
        fault = tracker.see(stream_id, session, sequence, offset)
        if ended is not None:
            tracker.end(stream_id)
        if fault is None:
            return
        repeated = fault.kind is FaultKind.Repeated and isinstance(message, Message)
        if repeated and self._faults.drop_repeats and entered.ranges:
            pieces = [Piece(offset, start, stop) for start, stop in entered.ranges]
            entered.ranges.clear()
            self._finish_dropped(assignment, pieces)
        if callable(self._faults.report):
            self._faults.report(fault)
        elif self._faults.report == "raise":
            entered.fault = SequenceError(fault)
        else:
            self._out_of_place.note(fault, Place.of(fault), time.monotonic())

    def _tracker(self, assignment: Assignment, offset: int) -> SequenceTracker:
        while assignment.gaps and assignment.gaps[0] <= offset:
            # What retention removed was told as that: reading begins anew behind it.
            assignment.gaps.popleft()
            self._trackers.pop(assignment, None)
        tracker = self._trackers.get(assignment)
        if tracker is None:
            at = assignment.partition
            tracker = self._trackers[assignment] = SequenceTracker(at.topic, at.number, self.fault_counts)
        return tracker

    def _finish_dropped(self, assignment: Assignment, pieces: list[Piece]) -> None:
        with self._poller.lock:
            assignment.account.filtered += assignment.finish(pieces)
