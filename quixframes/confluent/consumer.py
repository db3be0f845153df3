"""The consumer: reads as a member of a group or by itself, and reports what happens to its partitions in-band.

librdkafka counts compacted messages and transaction markers in no position; but it says when it comes to the end of a
partition, and where that is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException

from quixframes.confluent.commits import Commits
from quixframes.confluent.failures import UNKNOWN_TOPIC, error_in, is_passing, translated
from quixframes.confluent.opening import Opening, settings_for, within
from quixframes.confluent.reading import Reading
from quixframes.confluent.rebalancing import Member
from quixframes.confluent.records import Membership, Place, ReadRecord, Statistics
from quixframes.confluent.shared import Shared
from quixframes.errors import (
    BrokerError,
    ClosedError,
    FencedError,
    GroupMovedOnError,
    SettingsError,
    TopicNotFoundError,
)
from quixframes.kafka import Offset, Partition, Polled, Revoking
from quixframes.logs import Place as LogPlace
from quixframes.refusals import Asked
from quixframes.settings import Connection, ReaderSettings, byte_count, seconds

__all__ = ["ConfluentConsumer"]

_log = logging.LoggerAdapter(logging.getLogger(__name__), LogPlace().extra)

_COMMIT_TIMEOUT = 5.0  # seconds that a commit may take before it counts as failed
_LEAVE = 4.0  # seconds that leaving the group may take: brokers that answer at all do so sooner
_SILENCE = 4.0  # seconds without a word from a broker that mean trouble; idle connections speak every _REFRESH
_REFRESH = 2.0  # seconds between two looks at the topics' metadata, which are also a sign of life
_PAUSE = 0.05  # seconds between two tries of what fails at once
_MISSING = 5.0  # seconds that a topic may be missing from the metadata before it counts as deleted
_PARTITION_FETCH = 4 * 1024 * 1024  # bytes of one partition in one answer
_FETCH = 8 * 1024 * 1024  # bytes in one answer
_QUEUE = 16 * 1024 * 1024  # bytes that librdkafka reads ahead
_TURN = 0.05  # seconds that a poll keeps other threads from the client
_MAX_RECORDS = 2_000  # records in one poll: a commit waits for as many to be unpacked, and one takes some 2 µs


class ConfluentConsumer:
    """Implements :class:`quixframes.kafka.Consumer`."""

    def __init__(self, connection: Connection, settings: ReaderSettings, *, group: str | None) -> None:
        self._group = group
        self._patience = seconds(connection.connect_timeout)
        self._failure: BrokerError | None = None
        self._missing: dict[str, float] = {}
        self._next_look = 0.0
        self._leaderless: float | None = None  # since when no partition that is being read has a leader
        self._topics: frozenset[str] = frozenset()
        self._closed = False
        self._asked = Asked(connection.principal, "read", group=group or "")
        self._statistics = Statistics()
        self._opening = Opening(connection)
        self._shared = Shared(self._opening.made(Consumer, self._settings_of(connection, settings)))
        incremental = group is None or settings.assignment == "cooperative-sticky"
        self._reading = Reading(self._shared, incremental=incremental)
        self._commits = Commits(self._shared, self._opening, self._asked)
        self._member = Member(self._shared, self._reading, self._commits, seconds(settings.revoke_timeout))
        try:
            self._opening.check(self._shared.client)
        except BaseException:
            self._shared.discard(1.0)
            raise
        self._sort_out(self._opening.said, [], {})

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
        self._member.subscribe(topics, revoking)

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets, in no group."""
        self._require({partition.topic for partition in positions})
        self._reading.begin(positions)

    def poll(self, timeout: float) -> Polled:
        """What has arrived, waiting up to ``timeout`` seconds for something. Keeps the membership."""
        self._check_open()
        self._member.let_go()
        self._look_for_missing_topics()
        gone: dict[Partition, int] = {}
        records: list[ReadRecord] = []
        if self._failure is None:
            messages: list[Any] = []
            try:
                messages = self._consumed(timeout)
            except KafkaException as exc:  # only what is fatal is raised here
                self._failure = translated(exc, f"{self._what()} cannot be read", self._asked)
            self._member.let_go()
            self._sort_out(messages, records, gone)
        rebalances = self._member.take_news()
        if self._failure is not None and not (records or rebalances or gone):
            failure = self._failure
            if not isinstance(failure, FencedError):  # which lasts
                self._failure = None
            raise failure
        return Polled(rebalances, records, gone or None)

    def _consumed(self, timeout: float) -> list[Any]:
        deadline = time.monotonic() + timeout
        while True:
            left = 0.0 if self._member.has_news else max(0.0, deadline - time.monotonic())
            try:
                with self._shared.taken(left) as client:
                    messages: list[Any] = client.consume(1, min(left, _TURN))
                    if messages:
                        messages += client.consume(_MAX_RECORDS - 1, 0.0)
            except TimeoutError:  # a commit that nobody answers
                return []
            if messages or left <= _TURN:
                return messages

    def _sort_out(self, messages: Iterable[Any], records: list[ReadRecord], gone: dict[Partition, int]) -> None:
        places = self._reading.places
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
                place.position = place.end = max(place.position, offset)
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
            asked = replace(self._asked, topic=partition.topic or "")
            self._failure = translated(error, f"{self._what()} cannot be read", asked)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from this offset; what was fetched ahead is dropped."""
        self._reading.seek(partition, offset)

    def position(self, partition: Partition) -> int | None:
        """The offset after everything that ``poll`` has returned or passed over; None where the partition has gone, or
        waits for its position."""
        return self._reading.position(partition)

    def lag(self, partition: Partition) -> int | None:
        """How many offsets lie between the position and the end of the partition as the cluster told it last."""
        return self._reading.lag(partition)

    def membership(self) -> Membership:
        """What a transactional producer of the same transport needs to commit for this member, as it is now."""
        self._check_open()
        return self._member.membership(str(self._group))

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Return nothing of these partitions from ``poll``, and fetch nothing more of them."""
        self._reading.pause(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """End a pause."""
        self._reading.resume(partitions)

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Offset | None]:
        """What the group has committed for the partitions, with metadata; None where it never has."""
        return self._commits.committed(partitions, self._patience)

    def commit(self, offsets: Mapping[Partition, Offset]) -> None:
        """Commit, and return when the cluster has acknowledged."""
        self._check_open()
        if not offsets:
            return
        gone = self._member.joined and not self._reading.places.keys() >= offsets.keys()
        if gone or not self._member.untold().isdisjoint(offsets):
            raise GroupMovedOnError(f"group {self._group!r} moved on: the next poll says how")
        self._commits.commit(offsets, _COMMIT_TIMEOUT)

    # What may be wrong

    def trouble(self) -> str | None:
        """None while some broker of the partitions being read answers; else what is wrong, for a log line."""
        reading = self._reading.audible
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
                    raise translated(error, doing, replace(self._asked, topic=topic))
                time.sleep(_PAUSE)
        self._topics = frozenset(topics)

    def _look_up(self, topic: str, timeout: float) -> KafkaError | None:
        try:
            found: KafkaError | None = self._shared.client.list_topics(topic, timeout=timeout).topics[topic].error
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
        self._member.end(timeout)
        try:
            within(max(0.1, min(_LEAVE, (deadline - time.monotonic()) * 0.7)), self._shared.client.close)
        except TimeoutError:
            _log.info("%s: the group could not be told of the end in time", self._what())
        except KafkaException as exc:
            _log.info("%s: the end was not clean: %s", self._what(), exc)
        self._shared.discard(max(0.1, min(_LEAVE, deadline - time.monotonic())))
