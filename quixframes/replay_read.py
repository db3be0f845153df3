"""Reading what a plan says: the edge at which a replay meets the cluster.

What this module holds to:

- What the topics hold is looked up once, when reading begins; it joins no group and commits nothing.
- Every message that came from the cluster is counted once, as decoded or as skipped, with the reason.
- Memory: what one poll brings, and for an order by time what :class:`TimeOrder` may hold.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tqdm.auto import tqdm

from quixframes.assignment import Assignment
from quixframes.bounded import read_partitions
from quixframes.codecs import Codec
from quixframes.contract_check import ContractCheck
from quixframes.ends import ends_now
from quixframes.errors import ContractBreachError
from quixframes.glance import Glance
from quixframes.kafka import Admin, Consumer, Partition, Record
from quixframes.logs import Place, Seldom
from quixframes.message_reader import MessageReader
from quixframes.record_columns import RecordColumns
from quixframes.replay_asked import Asked
from quixframes.replay_cut import Cutter
from quixframes.replay_order import TimeOrder
from quixframes.replay_plan import Plan, Snapshot, lookups, plan
from quixframes.replay_report import Tally
from quixframes.replay_select import Choice, Selector
from quixframes.wire import Kind, Message, event_times

__all__ = ["ORDERED", "Found", "Reading", "Source", "planned"]

log = logging.getLogger(__name__)

ORDERED = 64_000_000
"""Bytes of messages, as they travel, that an order by time may hold."""


class _Bar(tqdm):  # type: ignore[misc]
    """A progress bar that starts no watching thread, which would outlive it."""

    monitor_interval = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Where messages come from, and how they are read."""

    admin: Admin
    consumer: Callable[[], Consumer]
    codec: Codec | None = None
    record_columns: RecordColumns | None = None
    contracts: Mapping[str, ContractCheck] | None = None
    progress: bool = True


class Found(NamedTuple):
    """A message with what of its rows was asked for, in the partition where it lives."""

    at: Assignment
    offset: int
    message: Message


class _Chosen(NamedTuple):
    record: Record
    message: Message | None  # where it had to be read to be chosen


def planned(asked: Asked, source: Source) -> Plan:
    """The plan for what the topics hold now; gaps in it are logged.

    Raises:
        SettingsError: offsets or a group were given that there are not.
    """
    times, snapshots = lookups(asked), []
    for topic in asked.topics:
        begin, end = source.admin.beginnings(topic), ends_now(source.admin, topic)
        at_start = at_end = None
        if times.start is not None and (times.bounds or any(begin.values())):
            at_start = source.admin.offsets_at(topic, times.start)
        if times.end is not None:
            at_end = source.admin.offsets_at(topic, times.end)
        committed = None if asked.group is None else source.admin.groups(topic).get(asked.group, {})
        snapshots.append(Snapshot(topic, begin, end, at_start, at_end, committed))
    made = plan(asked, snapshots)
    for gap in made.gaps:
        log.warning("replay: %s", gap, extra=Place(gap.partition.topic, gap.partition.number, gap.first).extra)
    return made


class Reading:
    """One reading of a plan.

    Args:
        plan: what is read.
        source: where from.
        kinds: the kinds of messages that are wanted.
        by_time: whether streams are merged by event time.
    """

    def __init__(self, plan: Plan, source: Source, kinds: Collection[Kind], *, by_time: bool = False) -> None:
        self.plan = plan
        self.tally = Tally(plan.not_fetched, plan.gaps)
        self.done = 0
        """Offsets of the plan that are behind it."""
        self._source = source
        self._selector = Selector(plan.asked, kinds, codec=source.codec is not None)
        self._messages = MessageReader(source.codec, source.record_columns, source.contracts)
        self._cutter = Cutter(plan.asked)
        self._order = TimeOrder[_Chosen]([s.partition for s in plan.stretches], ORDERED) if by_time else None
        self._left_out = Seldom(log, "{:,} messages were left out of the replay")

    def messages(self) -> Iterator[Found]:
        """The messages that were asked for, cut to the rows that were asked for. Those of which nothing is left are not
        among them.

        Raises:
            WireError: a message that cannot be read.
            BrokerUnavailableError: the cluster was out of reach for 30 s.
            OffsetGoneError: retention removed a part of the range while it was being read.
            FrameError: a column that was asked for is in none of the messages; at the end.
        """
        assignments = {s.partition: Assignment(s.partition, None, s.begin) for s in self.plan.stretches}
        for chosen in self._chosen(assignments):
            record = chosen.record
            found = self._opened(record) if chosen.message is None else chosen.message
            message = None if found is None else self._cut(found)
            if message is not None:
                yield Found(assignments[Partition(record.topic, record.partition)], record.offset, message)
        self._cutter.check(self.plan.asked.topics)
        self.tally.complete = True

    def glances(self) -> Iterator[tuple[Record, Glance | None, Message | None]]:
        """The messages that were asked for, by what their headers say; only those that do not say it are read."""
        assignments = {s.partition: Assignment(s.partition, None, s.begin) for s in self.plan.stretches}
        for records in self._polled(assignments):
            for record in records:
                choice, seen = self._selector.choose(record)
                if not self._passes(record, choice):
                    continue
                message = self._opened(record) if seen is None else None
                if seen is not None or message is not None:
                    yield record, seen, message
        self.tally.complete = True

    def _chosen(self, assignments: dict[Partition, Assignment]) -> Iterator[_Chosen]:
        """What is to be opened, in the order that was asked for."""
        order = self._order
        for records in self._polled(assignments):
            chosen = [(record, seen) for record in records for choice, seen in [self._selector.choose(record)]
                      if self._passes(record, choice)]  # fmt: skip
            self._messages.read_ahead([record for record, _ in chosen])
            if order is None:
                for record, _ in chosen:
                    yield _Chosen(record, None)
                continue
            for record, seen in chosen:
                self._hold(order, record, seen)
            for at, assignment in assignments.items():
                if assignment.position >= self._ends[at]:
                    order.end(at)
            yield from order.due()

    def _hold(self, order: TimeOrder[_Chosen], record: Record, seen: Glance | None) -> None:
        at, message, nbytes = Partition(record.topic, record.partition), None, _nbytes(record)
        if seen is not None and (seen.first is not None or not seen.rows):
            order.add(at, seen.stream_id, seen.first, nbytes, _Chosen(record, None))
            return
        message = self._opened(record)
        if message is not None:
            rows = message.batch is not None and message.batch.num_rows > 0
            first = int(event_times(message.batch).min()) if rows else None
            order.add(at, message.stream_id, first, nbytes, _Chosen(record, message))

    def _polled(self, assignments: dict[Partition, Assignment]) -> Iterator[list[Record]]:
        """The records of the plan, as they arrive, counted."""
        ranges = {s.partition: (s.begin, s.end) for s in self.plan.stretches}
        self._ends = {at: end for at, (_, end) in ranges.items()}
        if not ranges:
            return
        topics = ", ".join(self.plan.asked.topics)
        shown = self._source.progress
        bar = _Bar(total=self.plan.offsets, unit=" messages", desc=f"replay {topics}", disable=not shown, leave=False)
        consumer = self._source.consumer()
        order, tally = self._order, self.tally
        try:
            for records, positions in read_partitions(consumer, ranges, None if order is None else lambda: order.full):
                tally.messages += len(records)
                tally.bytes += sum(map(_nbytes, records))
                # Told now, since who takes the records may want to know that these were the last ones.
                behind = sum(position - assignments[at].position for at, position in positions.items())
                for at, position in positions.items():
                    assignments[at].position = position
                self.done += behind
                yield records
                bar.update(behind)
        finally:
            bar.close()
            self._left_out.tell_rest()
            consumer.close(5.0)

    def _passes(self, record: Record, choice: Choice) -> bool:
        """Whether a message is opened; one that is not is counted."""
        if choice is Choice.OPEN:
            return True
        if choice is Choice.STREAM:
            self.tally.skipped_by_stream += 1
        elif choice is Choice.TIME:
            self.tally.skipped_by_time += 1
        else:
            self.tally.skipped_by_kind += 1
        return False

    def _opened(self, record: Record) -> Message | None:
        """A message; None for one that is none of those asked for, or that a contract sends to a dead-letter topic,
        since it is none of the topic's."""
        self.tally.decoded += 1
        self.tally.decoded_bytes += len(record.value or b"")
        try:
            message = self._messages.read(record)
        except ContractBreachError as exc:
            contract = (self._source.contracts or {}).get(record.topic)
            if contract is None or not contract.sends_dead_letters:
                raise
            self.tally.left_out += 1
            self._left_out.note(f"left out of the replay: {exc}", Place.of(exc), time.monotonic())
            return None
        return message if self._selector.wants(record.topic, message) else None

    def _cut(self, message: Message) -> Message | None:
        if message.batch is None:
            return message
        batch, outside, unwanted = self._cutter.cut(message)
        self.tally.rows_outside += outside
        self.tally.rows_unwanted += unwanted
        self.tally.rows += batch.num_rows
        return message._replace(batch=batch) if batch.num_rows else None


def _nbytes(record: Record) -> int:
    return len(record.value or b"") + len(record.key or b"")
