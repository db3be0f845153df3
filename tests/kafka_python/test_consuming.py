"""The consumer's inside, and the defects of the bare client that it is free of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kafka.errors as theirs
import pytest
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from quixframes.errors import CommitError, GroupMovedOnError
from quixframes.kafka import Change, Consumer, Offset, Partition, Transport
from quixframes.local import LocalKafka
from quixframes.settings import Connection, ReaderSettings
from tests.adapters.helpers import (
    Member,
    administering,
    consuming,
    driving,
    new_group,
    new_topic,
    nothing,
    numbers,
    wait_until,
    write,
)


def test_the_bare_client_cannot_commit_in_its_callback(connection: Connection, topic: str) -> None:
    """Defect H: should this fail, ``_Listener`` may become simpler."""
    raised: list[BaseException] = []

    class Listener(ConsumerRebalanceListener):
        def on_partitions_assigned(self, assigned: object) -> None:
            try:
                consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(0, "", -1)})
            except BaseException as exc:
                raised.append(exc)

        def on_partitions_revoked(self, revoked: object) -> None:
            pass

    consumer = KafkaConsumer(bootstrap_servers=connection.brokers[0], group_id=new_group(), enable_auto_commit=False)
    consumer.subscribe([topic], listener=Listener())
    wait_until(lambda: bool(consumer.poll(200)) or bool(raised))
    consumer.close()
    assert isinstance(raised[0], RuntimeError)


@contextmanager
def cut_off(consumer: Consumer) -> Iterator[None]:
    """Nothing reaches this one client, and it reaches nobody."""
    manager = consumer._client.manager
    build = manager._build_transport
    reason = theirs.KafkaConnectionError("cut off by the test")

    async def refuse(*_: object, **__: object) -> Any:
        raise reason

    def drop() -> None:
        for connection in list(manager._conns.values()):
            connection.close(reason)

    manager._build_transport = refuse  # type: ignore[method-assign]
    consumer._client.run(5, "cutting off", drop)
    try:
        yield
    finally:
        manager._build_transport = build  # type: ignore[method-assign]


@pytest.mark.parametrize("back_by", ["poll", "commit"])
def test_a_member_that_was_away_for_longer_than_its_session_starts_anew_from_what_others_committed(
    transport: Transport, own_kafka: LocalKafka, back_by: str
) -> None:
    """kafka-python itself says nothing of it where it learns of its loss while it is joining."""
    connection = Connection.of(own_kafka.address)
    with administering(transport, connection) as admin:
        topic = new_topic(admin, partitions=1)
    group, place, session = new_group(), Partition(topic, 0), ReaderSettings(session_timeout="2s")
    write(transport, connection, topic, 100)
    with consuming(transport, connection, group, session) as consumer:
        away = Member(consumer)
        consumer.subscribe([topic], nothing)
        away.poll_until(lambda: len(away.records) == 100)
        consumer.commit({place: Offset(10)})
        with cut_off(consumer):
            with consuming(transport, connection, group, session) as other:
                stand_in = Member(other)
                other.subscribe([topic], nothing)
                with driving(away):
                    stand_in.poll_until(lambda: len(stand_in.records) == 90)
                    other.commit({place: Offset(100)})
            away.poll()
        assert away.owned == {place}, "it was told while it could not know"
        away.rebalances.clear()
        away.records.clear()
        write(transport, connection, topic, 1, first=100)
        if back_by == "commit":
            # What a commit does that comes upon a rebalance.
            consumer._member.settle(10)
            assert not consumer._member.owned()
            with pytest.raises(GroupMovedOnError):
                consumer.commit({place: Offset(20)})
        away.poll_until(lambda: bool(away.records))
        assert [rebalance.change for rebalance in away.rebalances] == [Change.Lost, Change.Assigned]
        assert numbers(away.records) == [100]
        assert consumer.committed([place]) == {place: Offset(100)}


def test_partitions_without_a_leader_are_trouble(
    transport: Transport, connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quixframes.kafka_python.consumer._SILENCE", 0.5)
    with consuming(transport, connection) as consumer:
        consumer.assign({Partition(topic, number): 0 for number in range(3)})
        consumer.poll(0.2)
        cluster = consumer._consumer._cluster
        monkeypatch.setattr(cluster, "leader_for_partition", lambda place: -1 if place.partition < 2 else None)
        # The broker itself goes on answering questions for metadata.
        monkeypatch.setattr(consumer._client.manager, "silence", lambda _=None: 0.1)
        assert consumer.trouble() is None
        wait_until(lambda: consumer.trouble() is not None, 2)
        assert "leader" in str(consumer.trouble())
        monkeypatch.setattr(cluster, "leader_for_partition", lambda _: 1)
        assert consumer.trouble() is None


def test_what_is_gone_of_a_partition_that_was_revoked_is_not_reported(
    transport: Transport, connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with consuming(transport, connection) as consumer:
        consumer.assign({Partition(topic, 0): 7})

        def poll(**_: object) -> None:
            raise theirs.LogTruncationError({TopicPartition(topic, 0): 3, TopicPartition(topic, 1): 3})

        monkeypatch.setattr(consumer._consumer, "poll", poll)
        assert consumer.poll(0.1).gone == {Partition(topic, 0): 7}


def test_a_commit_that_a_rebalance_holds_up_ends_within_its_time(
    transport: Transport, connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quixframes.kafka_python.consumer._COMMIT_TIMEOUT", 0.5)
    with consuming(transport, connection, new_group()) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 3)

        def commit(*_: object, timeout_ms: float) -> None:
            time.sleep(min(0.4, timeout_ms / 1000))
            raise theirs.RebalanceInProgressError()

        monkeypatch.setattr(consumer._consumer, "commit", commit)
        monkeypatch.setattr(consumer._member, "settle", time.sleep)
        start = time.monotonic()
        with pytest.raises(CommitError):
            consumer.commit({Partition(topic, 0): Offset(1)})
        assert time.monotonic() - start < 0.7


def change_of_mind(consumer: KafkaConsumer, poll: Callable[[], object], patience: float) -> bool:
    """Give the group's leader a reason to rejoin, which passes while it does; whether it completed the join."""
    coordinator = consumer._coordinator
    snapshot = coordinator._metadata_snapshot
    before = coordinator._generation.generation_id

    def begun() -> bool:
        return coordinator.rejoining or coordinator._generation.generation_id > before

    while not begun():
        coordinator._metadata_snapshot = {**snapshot, "another": {0}}  # anew, since each look at the topics removes it
        poll()
        time.sleep(0.01)
    coordinator._metadata_snapshot = snapshot
    deadline = time.monotonic() + patience
    while coordinator.rejoining and time.monotonic() < deadline:
        poll()
    return not coordinator.rejoining and bool(coordinator._heartbeat_enabled)


def test_a_join_whose_reason_passed_is_completed(transport: Transport, connection: Connection, topic: str) -> None:
    """Defect D, how it comes about: the bare client never completes it, sends no heartbeats, and is evicted."""
    bare = KafkaConsumer(topic, bootstrap_servers=connection.brokers[0], group_id=new_group())
    wait_until(lambda: bool(bare.poll(100)) or len(bare.assignment()) == 3)
    # Where the reason passes only when the join is over, nothing has happened.
    assert any(not change_of_mind(bare, lambda: bare.poll(0), 2) for _ in range(10))
    bare.close()
    with consuming(transport, connection, new_group()) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 3)
        assert all(change_of_mind(consumer._consumer, lambda: member.poll(0), 20) for _ in range(3))


def test_the_bare_client_reads_a_topic_that_does_not_exist_in_silence(connection: Connection) -> None:
    """Defect G."""
    bare = KafkaConsumer(bootstrap_servers=connection.brokers[0], allow_auto_create_topics=False)
    bare.assign([TopicPartition("no-such-topic", 0)])
    assert bare.poll(1500) == {}
    bare.close()


def test_a_fenced_static_member_of_the_bare_client_reads_on_in_silence(connection: Connection, topic: str) -> None:
    """Defect G: should this fail, ``Member`` may become simpler."""
    settings = {
        "bootstrap_servers": connection.brokers[0],
        "group_id": new_group(),
        "group_instance_id": "one",
        "session_timeout_ms": 6000,
        "heartbeat_interval_ms": 500,
    }
    first = KafkaConsumer(topic, **settings)
    wait_until(lambda: bool(first.poll(100)) or len(first.assignment()) == 3)
    second = KafkaConsumer(topic, **settings)
    wait_until(lambda: bool(second.poll(100)) or len(second.assignment()) == 3)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        first.poll(100)
    assert len(first.assignment()) == 3
    first.close()
    second.close()


def test_no_join_begins_before_the_member_was_told_of_the_one_before(
    transport: Transport, connection: Connection, topic: str
) -> None:
    """All requests to the coordinator wait for a join, and with them what the member does about its new partitions."""
    with consuming(transport, connection, new_group()) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        while not member.owned:
            member.poll()
            if member.rebalances:
                assert consumer._member._join is None
