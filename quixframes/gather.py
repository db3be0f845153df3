"""From messages that were read ahead to row batches that are ready: decoding, ledgers, and what is wrong
with messages.

For one thread, without waiting and without signals in the middle (see ``signals``). What this module holds to:

- A message is entered in its partition's ledger once. If a step fails half-way (a message that cannot be read, a filter
  that raises), the next call goes on where it stopped: no row is skipped, and none comes twice.
- What belongs to a partition that went is dropped.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Literal

from quixframes.assemble import Assembler
from quixframes.batch import Claim, RowBatch, StreamReader
from quixframes.buffer import Piece
from quixframes.dead_letters import LetterDesk
from quixframes.errors import QuixframesError, SequenceError, WireError
from quixframes.kafka import Partition, Record
from quixframes.message_reader import MessageReader
from quixframes.poller import Assignment, Chunk, Poller
from quixframes.sequence import Counts, FaultKind, SequenceTracker
from quixframes.settings import BufferSettings, FaultSettings
from quixframes.wire import Message

__all__ = ["Gatherer"]

log = logging.getLogger(__name__)


class Gatherer:
    """Holds what one input topic has read and not yet handed over.

    Args:
        topic: its name.
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
        topic: str,
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
        self._topic = topic
        self._poller = poller
        self._on_bad_message = on_bad_message
        self._dead_letters = dead_letters
        self._faults = faults
        self._idle = idle
        self._messages = messages
        self._assembler = Assembler(
            topic, BufferSettings(), most_held=most_held, commit=commit, dropped=self._finish_dropped
        )
        self.begin = self._assembler.begin
        self.release_held = self._assembler.release_held
        # Of the first record, the ranges of rows that are still to go to their buffer; None where it is not in its
        # ledger yet. It stays first until all have gone.
        self._records: deque[tuple[Assignment, Record]] = deque()
        self._ranges: list[tuple[int, int]] | None = None
        self._beyond: list[tuple[Assignment, Record]] = []
        self._reached: set[Assignment] = set()
        self._trackers: dict[Assignment, SequenceTracker] = {}
        # When each open stream spoke last, the one that has been silent longest first.
        self._spoke: OrderedDict[str, float] = OrderedDict()
        self.fault_counts: dict[str, Counts] = {}
        self._fault: SequenceError | None = None
        self.bad_messages = 0

    @property
    def ready(self) -> deque[RowBatch]:
        """Batches to be handed over."""
        return self._assembler.ready

    @property
    def streams(self) -> dict[str, StreamReader]:
        """The streams that were met, by ID."""
        return self._assembler.streams

    @property
    def deadline(self) -> float | None:
        """When something has to be released next."""
        return self._assembler.deadline

    def end(self) -> None:
        """A loop is over: what lay beyond its end comes first in the next one."""
        self._records.extendleft(reversed(self._beyond))
        self._beyond.clear()
        self._reached.clear()

    def add(self, chunk: Chunk) -> None:
        """Take in what was read ahead."""
        for assignment, records in chunk:
            self._messages.read_ahead(records)
            self._records.extend([(assignment, record) for record in records])

    def step(self, ends: Mapping[Partition, int] | None) -> bool:
        """Decode one message, up to ``ends`` if there are any; False where there is none."""
        if not self._records:
            return False
        assignment, record = self._records[0]
        end = None if ends is None else ends.get(assignment.partition, 0)
        if not assignment.owned:
            self._messages.pass_over(record)
            self._ranges = None
        elif end is not None and record.offset >= end:
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
        self._fault = None

    def reached(self, assignment: Assignment) -> bool:
        """Whether a message at the end of the loop's range has been met in this partition."""
        return assignment in self._reached

    def expire(self, now: float) -> None:
        """Release what was held for as long as it may be, and tell which streams have been silent for too long."""
        self._assembler.expire(now)
        while self._idle is not None and self._spoke:
            after, tell = self._idle
            stream_id, since = next(iter(self._spoke.items()))
            if since + after > now:
                return
            del self._spoke[stream_id]
            tell(self.streams[stream_id])

    def forget_lost(self) -> None:
        """Drop what belongs to partitions that are no longer ours."""
        self._assembler.forget_lost()
        for assignment in [assignment for assignment in self._trackers if not assignment.owned]:
            del self._trackers[assignment]

    def _take(self, assignment: Assignment, record: Record) -> None:
        try:
            message = self._messages.read(record)
        except WireError as exc:
            self._refuse(assignment, record, exc)
            return
        if self._ranges is None:
            self._ranges = self._enter(assignment, record.offset, message.entries, message.stream_id)
            self._judge(assignment, message, record.offset)
        if self._fault is not None:
            raise self._fault
        self._assembler.add(assignment, message, record.offset, self._ranges)
        self._ranges = None

    def _refuse(self, assignment: Assignment, record: Record, error: QuixframesError) -> None:
        """Do what the topic's settings say with a message that cannot be processed, and of which nothing was taken in:
        raise the error, skip it, or send it to the dead-letter topic."""
        if self._dead_letters is not None:
            if self._ranges is None:
                self._ranges = self._enter(assignment, record.offset, 1, None)
            if self._ranges:
                self._dead_letters.send(assignment, record, error)
            self._ranges = None
        elif self._on_bad_message == "raise":
            raise error
        else:
            self.bad_messages += 1
            log.warning("skipped a message: %s", error)
            self._enter(assignment, record.offset, 0, None)

    def _judge(self, assignment: Assignment, message: Message, offset: int) -> None:
        """See whether the message is the next of its stream, and whether its stream is still alive."""
        tracker = self._trackers.get(assignment)
        if tracker is None:
            at = assignment.partition
            tracker = self._trackers[assignment] = SequenceTracker(at.topic, at.number, self.fault_counts)
        stream_id = message.stream_id
        if self._idle is not None:
            self._spoke[stream_id] = time.monotonic()
            self._spoke.move_to_end(stream_id)
            if message.end is not None:
                del self._spoke[stream_id]
        if not message.session:
            return  # somebody else wrote it, without numbers
        fault = tracker.see(stream_id, message.session, message.sequence, offset)
        if fault is None:
            return
        if fault.kind is FaultKind.Repeated and self._faults.drop_repeats and self._ranges:
            pieces = [Piece(offset, start, stop) for start, stop in self._ranges]
            self._ranges.clear()
            self._finish_dropped(assignment, pieces)
        if callable(self._faults.report):
            self._faults.report(fault)
        elif self._faults.report == "raise":
            self._fault = SequenceError(fault)
        else:
            log.warning("%s", fault)

    def _enter(self, assignment: Assignment, offset: int, rows: int, stream_id: str | None) -> list[tuple[int, int]]:
        """Enter a message in its ledger; which of its rows are to be processed."""
        if assignment.ledger is None:
            return [(0, rows)] if rows else []
        with self._poller.lock:
            return assignment.ledger.take(offset, rows, (stream_id, time.time()))

    def _finish_dropped(self, assignment: Assignment, pieces: list[Piece]) -> None:
        if assignment.ledger is not None:
            with self._poller.lock:
                for piece in pieces:
                    assignment.ledger.finish(*piece)
