"""The consumer: reads as a member of a group or by itself, and reports what happens to its partitions in-band."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import kafka.errors as theirs
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import (
    CooperativeStickyAssignor,
)
from kafka.protocol.metadata import MetadataRequest
from kafka.structs import OffsetAndMetadata

from quixframes.errors import BrokerError, ClosedError, CommitError, GroupMovedOnError, TopicNotFoundError
from quixframes.kafka import Change, Offset, Partition, Polled, Rebalance, Revoking
from quixframes.kafka_python.failures import is_passing, translated
from quixframes.kafka_python.membership import Membership
from quixframes.kafka_python.network import Client, Opening, settings_for
from quixframes.settings import Connection, ReaderSettings, byte_count, seconds

__all__ = ["PythonConsumer"]

_log = logging.getLogger(__name__)

_COMMIT_TIMEOUT = 5.0  # seconds that a commit may take before it counts as failed
_LAST_COMMIT_TIMEOUT = 3.0  # ... and the one made while partitions are handed over: the whole group waits for it
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
        self._patience = seconds(connection.connect_timeout)
        prefetch = max(byte_count(settings.prefetch), 128 * 1024)
        session = round(seconds(settings.session_timeout) * 1000)
        opening = Opening(connection)
        self._consumer = opening.open(
            lambda: KafkaConsumer(
                kafka_client=opening,
                group_id=group,
                enable_auto_commit=False,
                # Nobody but our caller decides where to read: what is not there any more comes back as ``Polled.gone``.
                auto_offset_reset="none",
                isolation_level="read_committed",
                session_timeout_ms=session,
                # Members hear of a rebalance with their heartbeat, and a cooperative one takes two rounds.
                heartbeat_interval_ms=min(1_000, session // 6),
                # The poller thread polls all the time, however long the model takes.
                max_poll_interval_ms=max(300_000, session),
                max_poll_records=_MAX_RECORDS,
                # One answer is being read while another is on its way, so neither may take more than half. That holds
                # for one broker: answers of several may be there together, so each broker has a prefetch of its own.
                max_partition_fetch_bytes=min(_PARTITION_FETCH, prefetch // 2),
                fetch_max_bytes=min(_FETCH, prefetch // 2),
                metadata_max_age_ms=round(_REFRESH * 1000),
                request_timeout_ms=10_000,
                partition_assignment_strategy=[CooperativeStickyAssignor],
                metrics_enabled=False,
                **settings_for(connection),
            )
        )
        self._client: Client = self._consumer._client
        self._rebalances: list[Rebalance] = []
        self._paused: set[Partition] = set()
        self._waiting: set[Partition] = set()  # without a position: nothing is fetched until it is given by ``seek``
        self._missing: dict[str, float] = {}
        self._leaderless: float | None = None  # since when no partition that is being read has a leader
        self._topics: frozenset[str] = frozenset()
        self._member = False
        self._member_id: str | None = None  # the name by which the group knew this member when it was last stable
        self._closed = False
        self._last_commit_timeout = _LAST_COMMIT_TIMEOUT

    def subscribe(self, topics: Collection[str], revoking: Revoking) -> None:
        """Join the group, and share the topics' partitions with its other members."""
        self._require(topics)
        self._consumer.subscribe(sorted(topics), listener=_Listener(self, revoking))
        self._member = True

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
        try:
            self._look_for_missing_topics()
            if self._member:
                timeout = self._joined(timeout)
            found = self._consumer.poll(timeout_ms=timeout * 1000)
        except theirs.OffsetOutOfRangeError as exc:
            gone = self._positions(exc.args[0])
        except theirs.LogTruncationError as exc:
            gone = self._positions(exc.divergent_offsets)
        except BrokerError:
            raise
        except Exception as exc:
            if not is_passing(exc):
                raise translated(exc, f"{self._what()} cannot be read") from exc
            time.sleep(min(timeout, _PAUSE))  # it may have come at once, and may come again
        renewed = self._renew()
        if gone is not None:
            gone = {partition: at for partition, at in gone.items() if partition not in renewed}
            for partition in gone:
                self._hold(partition)
        rebalances, self._rebalances = self._rebalances, []
        records = [record for place, several in found.items() if place not in renewed for record in several]
        return Polled(rebalances, records, gone)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from this offset; what was fetched ahead is dropped."""
        place = TopicPartition(*partition)
        if place not in self._consumer.assignment():
            return  # it was revoked since: the next poll says so
        self._consumer.seek(place, offset)
        self._waiting.discard(partition)
        if partition not in self._paused:
            self._consumer.resume(place)

    def position(self, partition: Partition) -> int | None:
        """The offset after everything that ``poll`` has returned or passed over; None where the partition has gone, or
        waits for its position."""
        if partition in self._waiting:
            return None
        state = self._consumer._subscription.assignment.get(TopicPartition(*partition))
        return None if state is None or state.position is None else int(state.position.offset)

    def membership(self) -> Membership:
        """What a transactional producer needs to commit for this member, as it is now."""
        found = self._consumer.group_metadata()
        owned = frozenset(map(Partition._make, self._consumer.assignment())) - self._untold()
        return Membership(found.group_id, found.generation_id, found.member_id, found.group_instance_id, owned)

    def lag(self, partition: Partition) -> int | None:
        at, end = self.position(partition), self._consumer.highwater(TopicPartition(*partition))
        return None if at is None or end is None else max(0, end - at)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Return nothing of these partitions from ``poll``, and fetch nothing more of them."""
        assigned = self._consumer.assignment()
        for partition in partitions:
            if partition in assigned:
                self._paused.add(partition)
                self._consumer.pause(TopicPartition(*partition))

    def resume(self, partitions: Iterable[Partition]) -> None:
        """End a pause."""
        assigned = self._consumer.assignment()
        for partition in partitions:
            self._paused.discard(partition)
            if partition in assigned and partition not in self._waiting:
                self._consumer.resume(TopicPartition(*partition))

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Offset | None]:
        """What the group has committed for the partitions, with metadata; None where it never has."""
        wanted = {TopicPartition(*partition) for partition in partitions}
        try:
            found = self._consumer._coordinator.fetch_committed_offsets(wanted, timeout_ms=self._patience * 1000)
        except Exception as exc:
            raise translated(exc, f"what group {self._group!r} committed cannot be looked up") from exc
        return {
            partition: Offset(at.offset, at.metadata or "") if (at := found.get(partition)) is not None else None
            for partition in partitions
        }

    def commit(self, offsets: Mapping[Partition, Offset]) -> None:
        """Commit, and return when the cluster has acknowledged."""
        self._check_open()
        if not offsets:
            return
        if not self._untold().isdisjoint(offsets):
            raise GroupMovedOnError(f"group {self._group!r} moved on: the next poll says how")
        deadline = time.monotonic() + _COMMIT_TIMEOUT
        while True:
            left_ms = max(0.0, deadline - time.monotonic()) * 1000
            try:
                self._consumer.commit(_theirs(offsets), timeout_ms=left_ms)
                return
            except Exception as exc:
                left_ms = max(0.0, deadline - time.monotonic()) * 1000
                ours = _is_rebalancing(exc) and self._still_owns(offsets, left_ms)
                if ours and time.monotonic() < deadline:
                    continue
                error = translated(exc, f"group {self._group!r} could not commit")
                moved = isinstance(error, GroupMovedOnError) and not ours
                raise error if moved else CommitError(str(error)) from exc

    def _still_owns(self, offsets: Mapping[Partition, Offset], timeout_ms: float) -> bool:
        """See a rebalance through, of which the next ``poll`` will tell; whether the partitions are still ours then.

        In a cooperative one most partitions stay where they are: a commit must not fail because of it.
        """
        self._keep_joining()
        with contextlib.suppress(theirs.KafkaError):
            self._consumer._coordinator.poll(timeout_ms=timeout_ms)
        self._renew()
        return set(offsets) <= set(self._consumer.assignment()) - self._untold()

    def _untold(self) -> set[Partition]:
        """The partitions that came or went since the last ``poll``. One that came anew may have been somebody else's in
        between, so the caller's position counts no more."""
        return {partition for rebalance in self._rebalances for partition in rebalance.partitions}

    def _renew(self) -> frozenset[Partition]:
        """The partitions that were lost and came back without a word from kafka-python, which are reported here.

        A member that was out of reach for longer than its session comes back under a new name. If it was rejoining when
        it learned that, kafka-python takes what it is given for what it had all along; but others had it meanwhile, and
        to go on from the old position would set their commits back.
        """
        generation = self._consumer._coordinator.generation_if_stable() if self._member else None
        if generation is None:
            return frozenset()
        before, self._member_id = self._member_id, generation.member_id
        if before in (None, generation.member_id):
            return frozenset()
        told = {
            partition
            for rebalance in self._rebalances
            if rebalance.change is Change.Assigned
            for partition in rebalance.partitions
        }
        renewed = frozenset(map(Partition._make, self._consumer.assignment())) - told
        if renewed:
            self._paused -= renewed
            for partition in renewed:
                self._hold(partition)
                self._consumer._subscription.seek(TopicPartition(*partition), 0)
            self._rebalances += [Rebalance(Change.Lost, renewed), Rebalance(Change.Assigned, renewed)]
        return renewed

    def _joined(self, timeout: float) -> float:
        """Join or rejoin if there is reason to, and say how long to wait for messages.

        That is not at all after a rebalance, which the caller is to hear of at once.
        """
        self._keep_joining()
        if self._consumer._coordinator.need_rejoin():
            start = time.monotonic()
            self._consumer._coordinator.poll(timeout_ms=timeout * 1000)
            timeout = max(0.0, timeout - (time.monotonic() - start))
        self._renew()
        return 0.0 if self._rebalances else timeout

    def _keep_joining(self) -> None:
        """Defect D: a join that outlives one poll is forgotten when the reason for it (a change of the metadata) passes
        meanwhile, and with it the membership: nothing is ever read again. So what is joining has to go on joining.

        The second condition is a watchdog, for whatever else may end the heartbeats.
        """
        coordinator = self._consumer._coordinator
        if coordinator.rejoining or (self._member and coordinator.heartbeat.session_timeout_expired()):
            coordinator.request_rejoin()

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
        self._last_commit_timeout = min(_LAST_COMMIT_TIMEOUT, timeout / 3)
        failures: list[Exception] = []

        def leave() -> None:
            try:
                self._consumer.close(autocommit=False, timeout_ms=timeout * 333)
            except Exception as exc:
                failures.append(exc)

        # On a thread of its own, because some of what kafka-python does here waits without end.
        leaving = threading.Thread(target=leave, name=f"kafka-leaving-{self._group}", daemon=True)
        leaving.start()
        leaving.join(timeout * 2 / 3)
        self._client.shut(timeout / 3)
        if failures:
            raise translated(failures[0], f"the reader of {self._what()} did not close cleanly") from failures[0]

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
            raise translated(exc, f"{', '.join(sorted(topics))} cannot be read") from exc
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
                    raise translated(exc, doing, topic=topic) from exc
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
        reading = [part for part in self._consumer.assignment() if part not in self._paused | self._waiting]
        return {cluster.leader_for_partition(part) for part in reading} - {None, -1} if reading else None

    def _hold(self, partition: Partition) -> None:
        self._waiting.add(partition)
        self._consumer.pause(TopicPartition(*partition))

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


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Hears of rebalances on the IO thread, while the owner waits in ``poll`` or ``close`` (defect H: a plain commit
    raises there, and a listener that is not a coroutine holds the heartbeats up)."""

    def __init__(self, consumer: PythonConsumer, revoking: Revoking) -> None:
        self._to = consumer
        self._revoking = revoking

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Hold the new partitions, with a made-up position that keeps kafka-python from looking for one itself."""
        for partition in map(Partition._make, assigned):
            self._to._hold(partition)
            self._to._consumer._subscription.seek(partition, 0)
        self._tell(Change.Assigned, assigned)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Commit what the owner says, then let go."""
        if not revoked:
            return
        consumer = self._to._consumer
        if self._to._member_id not in (None, consumer._coordinator._generation.member_id):
            await self.on_partitions_lost(revoked)  # the old membership's: they were others' since
            return
        try:
            future = self._revoking(frozenset(map(Partition._make, revoked)))
            end = time.monotonic() + 10
            while not future.done() and time.monotonic() < end:
                await consumer._manager._net.sleep(0.02)
            offsets = future.result(0)
            if offsets:
                future = consumer.commit_async(_theirs(offsets), callback=lambda *_: None)
                await consumer._manager.wait_for(future, self._to._last_commit_timeout * 1000)
        except Exception as exc:
            # Were it raised, kafka-python would end the reading over it.
            _log.warning("what was finished of %s was not committed, and will be delivered again: %s", revoked, exc)
        finally:
            self._tell(Change.Revoked, revoked)

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """They are somebody else's already: there is nothing to commit."""
        self._tell(Change.Lost, lost)

    def _tell(self, change: Change, partitions: Collection[TopicPartition]) -> None:
        ours = frozenset(map(Partition._make, partitions))
        if change is not Change.Assigned:
            self._to._waiting -= ours
        self._to._paused -= ours
        if ours or change is Change.Assigned:  # nothing to do is news as well
            self._to._rebalances.append(Rebalance(change, ours))


def _theirs(offsets: Mapping[Partition, Offset]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {TopicPartition(*part): OffsetAndMetadata(at.offset, at.metadata, -1) for part, at in offsets.items()}


def _is_rebalancing(exc: Exception) -> bool:
    """Whether a commit failed because the group is sharing its partitions out: kafka-python says so in two ways."""
    reasons = (exc, *exc.args) if isinstance(exc, theirs.CommitFailedError) else (exc,)
    return any(isinstance(reason, theirs.RebalanceInProgressError) for reason in reasons)
