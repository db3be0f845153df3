"""The consumer: reads as a member of a group or by itself, and reports what happens to its partitions in-band."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import kafka.errors as theirs
from kafka import KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.protocol.metadata import MetadataRequest

from quixframes.errors import (
    BrokerError,
    ClosedError,
    CommitError,
    FencedError,
    GroupMovedOnError,
    TopicNotFoundError,
)
from quixframes.kafka import Offset, Partition, Polled, Revoking
from quixframes.kafka_python.failures import is_passing, translated
from quixframes.kafka_python.holds import Holds
from quixframes.kafka_python.membership import Membership
from quixframes.kafka_python.network import Client, Opening, settings_for
from quixframes.kafka_python.rebalancing import Member, to_theirs
from quixframes.refusals import Asked
from quixframes.settings import Connection, ReaderSettings, byte_count, seconds

__all__ = ["PythonConsumer"]

_ASSIGNORS = {
    "cooperative-sticky": CooperativeStickyAssignor,
    "sticky": StickyPartitionAssignor,
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
}
_COMMIT_TIMEOUT = 5.0  # seconds that a commit may take before it counts as failed
_SILENCE = 4.0  # seconds without a word from a broker that mean trouble; idle connections speak every _REFRESH
_REFRESH = 2.0  # seconds between two looks at the topics' metadata, which are also a sign of life
_PAUSE = 0.05  # seconds between two tries of what fails at once
_MISSING = 5.0  # seconds that a topic may be missing from the metadata before it counts as deleted
_PARTITION_FETCH = 4 * 1024 * 1024  # bytes of one partition in one answer
_FETCH = 8 * 1024 * 1024  # bytes in one answer: measured; larger ones are slower, for the memory that they move
_MAX_RECORDS = 500  # records in one poll: a commit waits for as many to be unpacked, and one takes some 20 µs


class PythonConsumer:
    """Implements :class:`quixframes.kafka.Consumer`."""

    def __init__(self, connection: Connection, settings: ReaderSettings, *, group: str | None) -> None:
        self._group = group
        self._asked = Asked(connection.principal, "read", group=group or "")
        self._patience = seconds(connection.connect_timeout)
        prefetch = max(byte_count(settings.prefetch), 128 * 1024)
        session = round(seconds(settings.session_timeout) * 1000)
        self._revoke_timeout = seconds(settings.revoke_timeout)
        opening = Opening(connection)
        self._consumer = opening.open(
            lambda: KafkaConsumer(
                kafka_client=opening,
                group_id=group,
                enable_auto_commit=False,
                # Nobody but our caller decides where to read: what is not there any more comes back as ``Polled.gone``.
                auto_offset_reset="none",
                isolation_level="read_committed",
                group_instance_id=settings.instance_id if group is not None else None,
                session_timeout_ms=session,
                # Members hear of a rebalance with their heartbeat, and a cooperative one takes two rounds.
                heartbeat_interval_ms=min(1_000, session // 6),
                # The poller thread polls all the time, however long the model takes.
                max_poll_interval_ms=max(300_000, session, round(self._revoke_timeout * 2000)),
                max_poll_records=_MAX_RECORDS,
                # One answer is being read while another is on its way, so neither may take more than half. That holds
                # for one broker: answers of several may be there together, so each broker has a prefetch of its own.
                max_partition_fetch_bytes=min(_PARTITION_FETCH, prefetch // 2),
                fetch_max_bytes=min(_FETCH, prefetch // 2),
                metadata_max_age_ms=round(_REFRESH * 1000),
                request_timeout_ms=10_000,
                partition_assignment_strategy=[_ASSIGNORS[settings.assignment]],
                metrics_enabled=False,
                **settings_for(connection),
            )
        )
        self._client: Client = self._consumer._client
        self._holds = Holds(self._consumer)
        self._ends = _noting_ends(self._consumer)
        self._member: Member | None = None
        self._missing: dict[str, float] = {}
        self._leaderless: float | None = None  # since when no partition that is being read has a leader
        self._topics: frozenset[str] = frozenset()
        self._closed = False

    def subscribe(self, topics: Collection[str], revoking: Revoking) -> None:
        """Join the group, and share the topics' partitions with its other members; called again, with other topics."""
        self._require(topics)
        if self._member is None:
            self._member = Member(self._consumer, self._holds, revoking, self._revoke_timeout)
        self._consumer.subscribe(sorted(topics), listener=self._member)

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets, in no group."""
        self._require({partition.topic for partition in positions})
        self._consumer.assign([TopicPartition(*partition) for partition in positions])
        for partition, offset in positions.items():
            self._consumer.seek(TopicPartition(*partition), offset)

    def poll(self, timeout: float) -> Polled:
        """What has arrived, waiting up to ``timeout`` seconds for something. Keeps the membership."""
        self._check_open()
        gone: dict[Partition, int] | None = None
        found: Mapping[TopicPartition, list[Any]] = {}
        member = self._member
        try:
            self._look_for_missing_topics()
            if member is not None:
                start = time.monotonic()
                # The caller is to hear of a rebalance at once, and before another join begins: what is asked of the
                # group's coordinator meanwhile is not answered before all members have joined.
                if not member.join(timeout) or member.has_news:
                    return Polled(member.told())
                timeout = max(0.0, timeout - (time.monotonic() - start))
            found = self._consumer.poll(timeout_ms=timeout * 1000)
        except theirs.OffsetOutOfRangeError as exc:
            gone = self._positions(exc.args[0])
        except theirs.LogTruncationError as exc:
            gone = self._positions(exc.divergent_offsets)
        except BrokerError:
            raise
        except Exception as exc:
            if not is_passing(exc):
                raise translated(exc, f"{self._what()} cannot be read", self._asked) from exc
            time.sleep(min(timeout, _PAUSE))  # it may have come at once, and may come again
        for partition in gone or ():
            self._holds.hold(partition)
        records = [record for several in found.values() for record in several]
        return Polled(member.told() if member is not None else (), records, gone)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from this offset; what was fetched ahead is dropped."""
        self._holds.seek(partition, offset)

    def position(self, partition: Partition) -> int | None:
        """The offset after everything that ``poll`` has returned or passed over; None where the partition has gone, or
        waits for its position."""
        return self._holds.position(partition)

    def lag(self, partition: Partition) -> int | None:
        """How many offsets lie between the position and the end, as the cluster told it last."""
        position, end = self._holds.position(partition), self._ends.get(TopicPartition(*partition))
        return None if position is None or end is None else max(0, end - position)

    def membership(self) -> Membership:
        """What a transactional producer needs to commit for this member, as it is now. Who has assigned partitions is
        none, and may commit for them while the group has no member."""
        if self._member is None:
            assigned = frozenset(Partition(*partition) for partition in self._consumer.assignment())
            return Membership(self._group or "", -1, "", None, assigned)
        self._member.settle(_COMMIT_TIMEOUT)
        return self._member.membership()

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Return nothing of these partitions from ``poll``, and fetch nothing more of them."""
        self._holds.pause(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """End a pause."""
        self._holds.resume(partitions)

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Offset | None]:
        """What the group has committed for the partitions, with metadata; None where it never has."""
        wanted = {TopicPartition(*partition) for partition in partitions}
        try:
            found = self._consumer._coordinator.fetch_committed_offsets(wanted, timeout_ms=self._patience * 1000)
        except Exception as exc:
            raise translated(exc, f"what group {self._group!r} committed cannot be looked up", self._asked) from exc
        return {
            partition: Offset(at.offset, at.metadata or "") if (at := found.get(partition)) is not None else None
            for partition in partitions
        }

    def commit(self, offsets: Mapping[Partition, Offset]) -> None:
        """Commit, and return when the cluster has acknowledged."""
        self._check_open()
        if not offsets:
            return
        deadline = time.monotonic() + _COMMIT_TIMEOUT
        while True:
            try:
                self._check_owned(offsets)
                self._consumer.commit(to_theirs(offsets), timeout_ms=max(0.0, deadline - time.monotonic()) * 1000)
                return
            except GroupMovedOnError:
                raise
            except Exception as exc:
                if _is_rebalancing(exc) and self._member is not None and time.monotonic() < deadline:
                    # It is seen through; most partitions stay where they are.
                    self._member.settle(deadline - time.monotonic())
                    self._check_owned(offsets)
                    if time.monotonic() < deadline:
                        continue
                error = translated(exc, f"group {self._group!r} could not commit", self._asked)
                if isinstance(error, FencedError):
                    raise GroupMovedOnError(str(error)) from exc
                moved = isinstance(error, GroupMovedOnError) and not _is_rebalancing(exc)
                raise error if moved else CommitError(str(error)) from exc

    def _check_owned(self, offsets: Collection[Partition]) -> None:
        if self._member is not None and not self._member.owned().issuperset(offsets):
            raise GroupMovedOnError(f"group {self._group!r} moved on: the next poll says how")

    def trouble(self) -> str | None:
        """None while some broker of the partitions being read answers; else what is wrong, for a log line."""
        manager = self._client.manager
        leaders = self._leaders()
        silence = manager.silence(leaders or None)
        if leaders is None or leaders:
            self._leaderless = None
        elif self._leaderless is None:
            self._leaderless = time.monotonic()
        elif silence < _SILENCE < (without := time.monotonic() - self._leaderless):
            return f"no partition of {self._what()} has had a leader for {without:.0f} s"
        if silence < _SILENCE:
            return None
        return f"no broker of {self._what()} has answered for {silence:.0f} s{manager.because()}"

    def close(self, timeout: float) -> None:
        """Ask ``revoking`` what is left to commit, commit it, leave the group, and end."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout
        if self._member is not None:
            self._member.close(deadline - timeout / 2)
        failures: list[Exception] = []

        def leave() -> None:
            try:
                self._consumer.close(autocommit=False, timeout_ms=timeout * 250)
            except Exception as exc:
                failures.append(exc)

        # On a thread of its own, because some of what kafka-python does here waits without end.
        leaving = threading.Thread(target=leave, name=f"kafka-leaving-{self._group}", daemon=True)
        leaving.start()
        leaving.join(timeout * 5 / 6)
        self._client.shut(max(0.1, deadline - time.monotonic()))
        if failures:
            doing = f"the reader of {self._what()} did not close cleanly"
            raise translated(failures[0], doing, self._asked) from failures[0]

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the reader is closed")

    def _require(self, topics: Collection[str]) -> None:
        """Defect G: kafka-python reads a topic that does not exist, or may not be known, in silence for ever.

        The other half of defect D: a group that is joined before its topics are known shares out nothing, and does it
        again a moment later.
        """
        deadline = time.monotonic() + self._patience
        for topic in sorted(topics):
            self._look_up(topic, deadline)
        cluster = self._consumer._cluster
        try:
            self._client.run(self._patience, "joining", cluster.set_topics, sorted(topics))
            # The answer may have been one to an earlier question.
            while any(cluster.partitions_for_topic(topic) is None for topic in topics) and time.monotonic() < deadline:
                self._client.run(self._patience, "joining", cluster.request_update)
        except theirs.KafkaError as exc:
            raise translated(exc, f"{', '.join(sorted(topics))} cannot be read", self._asked) from exc
        self._topics = frozenset(topics)

    def _look_up(self, topic: str, deadline: float) -> None:
        doing = f"topic {topic!r} cannot be read"
        while True:
            try:
                request = MetadataRequest(
                    topics=[MetadataRequest.MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False
                )
                answer = self._client.run(self._patience, doing, self._client.manager.send, request)
                code = answer.topics[0].error_code
                if not code:
                    return
                raise theirs.for_code(code)()
            except Exception as exc:
                if not is_passing(exc) or time.monotonic() > deadline:
                    raise translated(exc, doing, replace(self._asked, topic=topic)) from exc
            time.sleep(_PAUSE)

    def _look_for_missing_topics(self) -> None:
        cluster = self._consumer._cluster
        denied = self._topics & cluster.unauthorized_topics
        if denied:
            raise theirs.TopicAuthorizationFailedError(denied)
        for topic in self._topics:
            if cluster.partitions_for_topic(topic) is not None or topic not in self._client.manager.unknown_topics:
                self._missing.pop(topic, None)
            elif self._missing.setdefault(topic, time.monotonic()) < time.monotonic() - _MISSING:
                raise TopicNotFoundError(f"topic {topic!r} was deleted while it was being read", topic=topic)

    def _leaders(self) -> set[object] | None:
        """The brokers that are asked for messages, none where none of the partitions has a leader; None where nothing
        is to be read at the moment."""
        cluster = self._consumer._cluster
        reading = self._holds.read()
        return {cluster.leader_for_partition(part) for part in reading} - {None, -1} if reading else None

    def _positions(self, partitions: Iterable[TopicPartition]) -> dict[Partition, int]:
        """Where the partitions are being read; those left out that were revoked since."""
        states = self._consumer._subscription.assignment
        found = {Partition(*partition): states.get(partition) for partition in partitions}
        return {
            partition: int(state.position.offset)
            for partition, state in found.items()
            if state is not None and state.position is not None
        }

    def _what(self) -> str:
        topics = ", ".join(sorted(self._topics))
        return f"{topics} by group {self._group!r}" if self._group is not None else topics


def _noting_ends(consumer: KafkaConsumer) -> Mapping[TopicPartition, int]:
    """The end of each partition as the latest answer had it: of what counts, which kafka-python does not keep."""
    fetcher = consumer._fetcher
    parse = fetcher._parse_fetched_data
    ends: dict[TopicPartition, int] = {}

    def note(fetched: Any) -> Any:
        end = fetched.partition_data.last_stable_offset
        if end >= 0:
            ends[fetched.topic_partition] = end
        return parse(fetched)

    fetcher._parse_fetched_data = note
    return ends


def _is_rebalancing(exc: Exception) -> bool:
    """Whether a commit failed because the group is sharing its partitions out: kafka-python says so in two ways."""
    reasons = (exc, *exc.args) if isinstance(exc, theirs.CommitFailedError) else (exc,)
    return any(isinstance(reason, theirs.RebalanceInProgressError) for reason in reasons)
