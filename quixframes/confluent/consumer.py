"""The consumer: reads as a member of a group or by itself, and reports what happens to its partitions in-band.

- librdkafka calls back about rebalances while we poll it. A partition that was assigned is handed to it when its
  position is given by ``seek``, and not before; one that is revoked is given back once ``revoking`` has said what to
  commit, which may be some polls later (``_put_off``).
- Where reading is, is counted here. What comes of a partition that is to be silent, or from before its position, is
  dropped; whatever starts a partition again starts it from our count. So nothing hangs on what librdkafka still had
  in its queues when it was told to pause or to seek.
- librdkafka counts compacted messages and transaction markers in no position; but it says when it comes to the end of
  a partition, and where that is.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from quixframes.confluent.failures import UNKNOWN_TOPIC, error_in, is_passing, translated
from quixframes.confluent.opening import Opening, settings_for, within
from quixframes.confluent.records import Place, ReadRecord, Statistics
from quixframes.errors import (
    BrokerError,
    BrokerUnavailableError,
    ClosedError,
    CommitError,
    FencedError,
    GroupMovedOnError,
    SettingsError,
    TopicNotFoundError,
)
from quixframes.kafka import Change, Offset, Partition, Polled, Rebalance, Revoking
from quixframes.settings import Connection, ReaderSettings, byte_count, seconds

__all__ = ["ConfluentConsumer"]

_log = logging.getLogger(__name__)

_COMMIT_TIMEOUT = 5.0  # seconds that a commit may take before it counts as failed
_LAST_COMMIT_TIMEOUT = 3.0  # ... and the one made while partitions are handed over: the whole group waits for it
_NEXT_GENERATION = 1.0  # ... and how long it may be told that its generation is over
_SILENCE = 4.0  # seconds without a word from a broker that mean trouble; idle connections speak every _REFRESH
_REFRESH = 2.0  # seconds between two looks at the topics' metadata, which are also a sign of life
_PAUSE = 0.05  # seconds between two tries of what fails at once
_MISSING = 5.0  # seconds that a topic may be missing from the metadata before it counts as deleted
_PARTITION_FETCH = 4 * 1024 * 1024  # bytes of one partition in one answer
_FETCH = 8 * 1024 * 1024  # bytes in one answer
_QUEUE = 16 * 1024 * 1024  # bytes that librdkafka reads ahead
_MAX_RECORDS = 2_000  # records in one poll: a commit waits for as many to be unpacked, and one takes some 2 µs


@dataclass(slots=True)
class _Leaving:
    """Partitions that go to another member as soon as it is known what is to be committed for them."""

    partitions: frozenset[Partition]
    offsets: Future[Mapping[Partition, Offset]]
    until: float


class ConfluentConsumer:
    """Implements :class:`quixframes.kafka.Consumer`."""

    def __init__(self, connection: Connection, settings: ReaderSettings, *, group: str | None) -> None:
        self._group = group
        self._patience = seconds(connection.connect_timeout)
        self._revoke_timeout = seconds(settings.revoke_timeout)
        self._cooperative = settings.assignment == "cooperative-sticky"
        self._places: dict[tuple[str, int], Place] = {}
        self._rebalances: list[Rebalance] = []
        self._leaving: _Leaving | None = None
        self._failure: BrokerError | None = None
        self._missing: dict[str, float] = {}
        self._next_look = 0.0
        self._leaderless: float | None = None  # since when no partition that is being read has a leader
        self._topics: frozenset[str] = frozenset()
        self._revoking: Revoking | None = None
        self._closed = False
        self._statistics = Statistics()
        self._opening = Opening(connection)
        self._consumer: Any = self._opening.made(Consumer, self._settings_of(connection, settings))
        try:
            self._opening.check(self._consumer)
        except BaseException:
            self._discard(1.0)
            raise

    def _settings_of(self, connection: Connection, settings: ReaderSettings) -> dict[str, Any]:
        if settings.assignment == "sticky":
            raise SettingsError(
                "assignment='sticky' is not offered by transport 'confluent' (librdkafka): take 'cooperative-sticky', "
                "or transport='kafka-python'"
            )
        prefetch = max(byte_count(settings.prefetch), 128 * 1024)
        session = round(seconds(settings.session_timeout) * 1000)
        ours: dict[str, Any] = {
            **settings_for(connection),
            "error_cb": self._opening,
            "stats_cb": self._statistics,
            "statistics.interval.ms": 1000,
            # librdkafka wants a name even where no group is joined.
            "group.id": self._group if self._group is not None else f"{connection.client_id}-without-a-group",
            "group.protocol": "classic",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Nobody but our caller decides where to read: what is not there any more comes back as ``Polled.gone``.
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "check.crcs": True,
            "session.timeout.ms": session,
            # Members hear of a rebalance with their heartbeat, and a cooperative one takes two rounds.
            "heartbeat.interval.ms": min(1_000, session // 6),
            # The poller thread polls all the time, however long the model takes.
            "max.poll.interval.ms": max(300_000, session),
            "partition.assignment.strategy": settings.assignment,
            # It has to be below the next but one; it is about what is written.
            "message.max.bytes": 64 * 1024,
            "fetch.message.max.bytes": min(_PARTITION_FETCH, prefetch // 2),
            "fetch.max.bytes": min(_FETCH, prefetch // 2),
            "queued.max.messages.kbytes": min(_QUEUE, prefetch // 2) // 1024,
            # How long librdkafka does not look whether there is room again. Its default of 1 s is one of doing nothing.
            "fetch.queue.backoff.ms": 5,
            "fetch.error.backoff.ms": 100,
            "topic.metadata.refresh.interval.ms": round(_REFRESH * 1000),
        }
        if settings.instance_id is not None and self._group is not None:
            ours["group.instance.id"] = settings.instance_id
        return ours

    def subscribe(self, topics: Collection[str], revoking: Revoking) -> None:
        """Join the group, and share the topics' partitions with its other members."""
        self._require(topics)
        if self._revoking is None:
            self._revoking = revoking
        self._consumer.subscribe(
            sorted(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets, in no group."""
        self._require({partition.topic for partition in positions})
        self._places = {partition: Place(offset, waiting=False) for partition, offset in positions.items()}
        self._consumer.assign([TopicPartition(*partition, offset) for partition, offset in positions.items()])

    def poll(self, timeout: float) -> Polled:
        """What has arrived, waiting up to ``timeout`` seconds for something. Keeps the membership."""
        self._check_open()
        self._let_go()
        self._look_for_missing_topics()
        gone: dict[Partition, int] = {}
        records: list[ReadRecord] = []
        if self._failure is None:
            messages = self._consumer.consume(1, 0.0 if self._rebalances else timeout)
            if messages:
                messages += self._consumer.consume(_MAX_RECORDS - 1, 0.0)
            self._let_go()
            self._sort_out(messages, records, gone)
        rebalances, self._rebalances = self._rebalances, []
        if self._failure is not None and not (records or rebalances or gone):
            failure, self._failure = self._failure, None
            raise failure
        return Polled(rebalances, records, gone or None)

    def _sort_out(self, messages: Iterable[Any], records: list[ReadRecord], gone: dict[Partition, int]) -> None:
        places = self._places
        for message in messages:
            error = message.error()
            topic, number = message.topic(), message.partition()
            place = places.get((topic, number))
            if error is not None:
                self._note(error, Partition(topic, number), place, message.offset(), gone)
                continue
            if place is None or place.silent:
                continue
            offset = message.offset()
            if offset < place.position:
                continue
            place.position = offset + 1
            records.append(
                ReadRecord(
                    topic,
                    number,
                    offset,
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    message.headers() or (),
                )
            )

    def _note(
        self, error: KafkaError, partition: Partition, place: Place | None, offset: int, gone: dict[Partition, int]
    ) -> None:
        """What came in the place of a message."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            if place is not None and not place.silent:
                place.position = max(place.position, offset)
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            if place is not None:
                place.stopped = True
                if not place.silent:
                    place.waiting = True
                    gone[partition] = place.position
        elif code in UNKNOWN_TOPIC:
            self._missing.setdefault(partition.topic, time.monotonic())
        elif code == KafkaError.GROUP_AUTHORIZATION_FAILED and self._group is None:
            pass  # librdkafka looks for the group that it was given a name for
        elif code == KafkaError._MAX_POLL_EXCEEDED or (is_passing(error) and not error.fatal()):
            _log.info("%s: %s", self._what(), error.str())
        else:
            self._failure = translated(error, f"{self._what()} cannot be read", topic=partition.topic or "")

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from this offset; what was fetched ahead is dropped."""
        place = self._places.get(partition)
        if place is None or place.leaving:
            return  # it was revoked since: the next poll says so
        place.position = offset
        place.waiting = False
        if not place.paused:
            self._start(partition, place)

    def _start(self, partition: Partition, place: Place) -> None:
        """Have librdkafka read a partition from our position on."""
        at = TopicPartition(*partition, place.position)
        if place.known and not place.stopped:
            try:
                self._consumer.seek(at)
                self._consumer.resume([at])
                return
            except KafkaException as exc:
                _log.debug("%s: a seek did not come off, so it is assigned anew: %s", partition, exc)
        # librdkafka does not move what it has stopped, or not begun.
        if self._group is None or self._cooperative:
            if place.known:
                self._consumer.incremental_unassign([at])
            self._consumer.incremental_assign([at])
            place.known = True
        else:
            place.known = True
            self._assign_all()
        place.stopped = False
        self._consumer.resume([at])

    def _assign_all(self) -> None:
        """In a group that shares everything out anew each time, librdkafka takes nothing less."""
        known = {partition: place for partition, place in self._places.items() if place.known}
        self._consumer.assign([TopicPartition(*partition, place.position) for partition, place in known.items()])
        self._hush(partition for partition, place in known.items() if place.silent)

    def position(self, partition: Partition) -> int | None:
        """The offset after everything that ``poll`` has returned or passed over; None where the partition has gone, or
        waits for its position."""
        place = self._places.get(partition)
        return None if place is None or place.waiting else place.position

    def lag(self, partition: Partition) -> int | None:
        """How many offsets lie between the position and the end of the partition as the cluster told it last."""
        position = self.position(partition)
        if position is None:
            return None
        try:
            _, end = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        except KafkaException:
            return None
        return max(0, end - position) if end >= 0 else None

    def membership(self) -> object:
        """What a transactional producer of the same transport needs to commit for this member, as it is now."""
        return self._consumer.consumer_group_metadata()

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Return nothing of these partitions from ``poll``, and fetch nothing more of them."""
        ours = [partition for partition in partitions if partition in self._places]
        for partition in ours:
            self._places[partition].paused = True
        self._hush(ours)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """End a pause."""
        for partition in partitions:
            place = self._places.get(partition)
            if place is not None and place.paused:
                place.paused = False
                if not place.silent:
                    self._start(partition, place)

    def _hush(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Have librdkafka fetch nothing of these. What it sends on all the same is dropped."""
        places = [TopicPartition(*partition) for partition in partitions if self._places[partition].known]
        if places:
            with contextlib.suppress(KafkaException):
                self._consumer.pause(places)

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Offset | None]:
        """What the group has committed for the partitions, with metadata; None where it never has."""
        doing = f"what group {self._group!r} committed cannot be looked up"
        deadline = time.monotonic() + self._patience
        wanted = [TopicPartition(*partition) for partition in partitions]
        while True:
            try:
                found = self._consumer.committed(wanted, timeout=max(0.1, deadline - time.monotonic()))
                for at in found:
                    if at.error is not None:
                        raise KafkaException(at.error)
                break
            except Exception as exc:
                if not is_passing(exc) or time.monotonic() >= deadline:
                    raise translated(exc, doing) from exc
            time.sleep(_PAUSE)
        offsets = {
            Partition(at.topic, at.partition): Offset(at.offset, at.metadata or "") if at.offset >= 0 else None
            for at in found
        }
        return {partition: offsets.get(partition) for partition in partitions}

    # Commits

    def commit(self, offsets: Mapping[Partition, Offset]) -> None:
        """Commit, and return when the cluster has acknowledged."""
        self._check_open()
        if not offsets:
            return
        untold = {partition for rebalance in self._rebalances for partition in rebalance.partitions}
        if not untold.isdisjoint(offsets):
            raise GroupMovedOnError(f"group {self._group!r} moved on: the next poll says how")
        self._commit(offsets, _COMMIT_TIMEOUT)

    def _commit(self, offsets: Mapping[Partition, Offset], timeout: float) -> None:
        """A rebalance in progress is seen through: in a cooperative one most partitions stay where they are.

        librdkafka takes part in it in the background, up to where partitions change hands, which it asks us for. A
        commit waits behind its request to join, and is answered with "illegal generation" when that has come off: the
        next one is of the new generation. A member that was given up hears something else.
        """
        doing = f"group {self._group!r} could not commit"
        theirs = [TopicPartition(*at, offset.offset, offset.metadata) for at, offset in offsets.items()]
        deadline = time.monotonic() + timeout
        consumer = self._consumer
        give_up = deadline
        while True:
            try:
                done = within(deadline - time.monotonic(), lambda: consumer.commit(offsets=theirs, asynchronous=False))
                for at in done:
                    if at.error is not None:
                        raise KafkaException(at.error)
                return
            except TimeoutError as exc:
                raise CommitError(f"{doing}: no broker answered within {timeout:g} s{self._opening.because()}") from exc
            except Exception as exc:
                error = error_in(exc)
                code = None if error is None else error.code()
                if code == KafkaError.ILLEGAL_GENERATION:
                    give_up = min(give_up, time.monotonic() + _NEXT_GENERATION)
                elif code != KafkaError.REBALANCE_IN_PROGRESS and not is_passing(exc):
                    give_up = 0.0
                if time.monotonic() + _PAUSE >= give_up:
                    failure = translated(exc, doing)
                    if not isinstance(failure, (CommitError, FencedError)):
                        failure = CommitError(str(failure))
                    raise failure from exc
            time.sleep(_PAUSE)

    # Rebalances. The callbacks come while librdkafka is polled, on the owner's thread; or, at the end, on another.

    def _on_assign(self, consumer: Any, assigned: list[TopicPartition]) -> None:
        if self._closed:
            return
        partitions = frozenset(Partition(at.topic, at.partition) for at in assigned)
        for partition in partitions:
            self._places[partition] = Place(0, waiting=True)
        # This ends the rebalance. Each partition follows with its ``seek``.
        if self._cooperative:
            consumer.incremental_assign([])
        else:
            consumer.assign([])
        self._rebalances.append(Rebalance(Change.Assigned, partitions))

    def _on_revoke(self, consumer: Any, revoked: list[TopicPartition]) -> None:
        partitions = frozenset(Partition(at.topic, at.partition) for at in revoked)
        if self._closed or not partitions:
            return
        for partition in partitions:
            self._places[partition].leaving = True
        self._leaving = _Leaving(partitions, self._asked(partitions), time.monotonic() + self._revoke_timeout)
        self._hush(partitions)
        self._put_off(consumer)

    def _on_lost(self, consumer: Any, lost: list[TopicPartition]) -> None:
        if self._closed:
            return
        if self._leaving is not None:
            self._leaving.offsets.cancel()
            self._leaving = None
        partitions = frozenset(Partition(at.topic, at.partition) for at in lost)
        self._give_back(partitions)
        if partitions:
            self._rebalances.append(Rebalance(Change.Lost, partitions))

    def _asked(self, partitions: frozenset[Partition]) -> Future[Mapping[Partition, Offset]]:
        """What is to be committed for partitions before they go."""
        try:
            assert self._revoking is not None
            return self._revoking(partitions)
        except Exception as exc:
            failed: Future[Mapping[Partition, Offset]] = Future()
            failed.set_exception(exc)
            return failed

    @staticmethod
    def _put_off(consumer: Any) -> None:
        """Keep confluent-kafka from giving the partitions back as soon as its callback has returned.

        It has to be kept from it always: a commit that is made while a callback runs is never answered.

        It does so unless the callback has called one of the functions that do; whether that came off it does not ask.
        So one is called that changes nothing. The rebalance goes on when ``_let_go`` calls it for the partitions.
        """
        with contextlib.suppress(KafkaException):
            consumer.incremental_unassign([TopicPartition("no partition of ours", 0)])

    def _let_go(self) -> None:
        """Give partitions back that are leaving, once it is known what to commit for them, or too late."""
        leaving = self._leaving
        if leaving is None or not (leaving.offsets.done() or time.monotonic() >= leaving.until):
            return
        self._leaving = None
        self._commit_last(leaving, _LAST_COMMIT_TIMEOUT)
        try:
            self._give_back(leaving.partitions)
        finally:
            self._rebalances.append(Rebalance(Change.Revoked, leaving.partitions))

    def _give_back(self, partitions: frozenset[Partition]) -> None:
        """This lets the rebalance go on."""
        places = {partition: self._places.pop(partition, None) for partition in partitions}
        if self._cooperative:
            known = [partition for partition, place in places.items() if place is not None and place.known]
            self._consumer.incremental_unassign([TopicPartition(*partition) for partition in known])
        else:
            self._consumer.unassign()

    def _commit_last(self, leaving: _Leaving, timeout: float) -> None:
        try:
            if not leaving.offsets.done():
                leaving.offsets.cancel()
                raise BrokerUnavailableError("it was not finished in time")
            offsets = leaving.offsets.result()
            if offsets:
                self._commit(offsets, timeout)
        except Exception as exc:
            named = ", ".join(map(str, sorted(leaving.partitions)))
            _log.warning("what was finished of %s was not committed, and will be delivered again: %s", named, exc)

    # What may be wrong

    def trouble(self) -> str | None:
        """None while some broker of the partitions being read answers; else what is wrong, for a log line."""
        reading = [Partition(*partition) for partition, place in self._places.items() if not place.silent]
        leaders = self._statistics.leaders(reading)
        silence = self._statistics.silence(leaders)
        if leaders or not reading:
            self._leaderless = None
        elif self._leaderless is None:
            self._leaderless = time.monotonic()
        elif silence < _SILENCE < (without := time.monotonic() - self._leaderless):
            return f"no partition of {self._what()} has had a leader for {without:.0f} s"
        if silence < _SILENCE:
            return None
        return f"no broker of {self._what()} has answered for {silence:.0f} s{self._opening.because()}"

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the reader is closed")

    def _require(self, topics: Collection[str]) -> None:
        """Raise for topics that do not exist: librdkafka says so late, or not at all."""
        deadline = time.monotonic() + self._patience
        for topic in sorted(topics):
            doing = f"topic {topic!r} cannot be read"
            while (error := self._look_up(topic, max(0.1, deadline - time.monotonic()))) is not None:
                if not is_passing(error) or time.monotonic() > deadline:
                    raise translated(error, doing, topic=topic)
                time.sleep(_PAUSE)
        self._topics = frozenset(topics)

    def _look_up(self, topic: str, timeout: float) -> KafkaError | None:
        try:
            found: KafkaError | None = self._consumer.list_topics(topic, timeout=timeout).topics[topic].error
            return found
        except KafkaException as exc:
            return error_in(exc) or KafkaError(KafkaError._FAIL)

    def _look_for_missing_topics(self) -> None:
        """librdkafka says once that a topic is not there. Whether that lasts is looked up here."""
        if not self._missing or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + 1.0
        for topic, since in list(self._missing.items()):
            error = self._look_up(topic, 0.5)
            if error is None:
                del self._missing[topic]
            elif error.code() in UNKNOWN_TOPIC and time.monotonic() - since > _MISSING:
                raise TopicNotFoundError(f"topic {topic!r} was deleted while it was being read", topic=topic)

    def _what(self) -> str:
        topics = ", ".join(sorted(self._topics))
        return f"{topics} by group {self._group!r}" if self._group is not None else topics

    # The end

    def close(self, timeout: float) -> None:
        """Ask ``revoking`` what is left to commit, commit it, leave the group, and end."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout
        leaving = self._leaving
        ours = frozenset(Partition(*partition) for partition, place in self._places.items() if not place.leaving)
        lasts = [] if leaving is None else [leaving]
        if self._revoking is not None and ours:
            until = time.monotonic() + min(self._revoke_timeout, timeout / 3)
            lasts.append(_Leaving(ours, self._asked(ours), until))
        for last in lasts:
            with contextlib.suppress(Exception):  # what went wrong is told below
                last.offsets.result(max(0.0, min(last.until, deadline) - time.monotonic()))
            self._commit_last(last, min(_LAST_COMMIT_TIMEOUT, timeout / 3))
        self._places.clear()
        consumer = self._consumer
        try:
            within(max(0.1, (deadline - time.monotonic()) * 0.7), consumer.close)
        except TimeoutError:
            _log.info("%s: the group could not be told of the end in time", self._what())
        except KafkaException as exc:
            _log.info("%s: the end was not clean: %s", self._what(), exc)
        del consumer
        self._discard(max(0.1, deadline - time.monotonic()))

    def _discard(self, timeout: float) -> None:
        """Let go of the client; its end comes with its last reference, and joins its threads."""
        end, self._consumer = [self._consumer], None
        with contextlib.suppress(TimeoutError):
            within(timeout, end.clear)
