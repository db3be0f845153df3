"""The consumer: what every adapter does."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ACLOperation, MemberToRemove, ResourceType

from quixframes.errors import AccessDeniedError, CommitError, GroupMovedOnError, TopicNotFoundError
from quixframes.kafka import Admin, Change, Consumer, Offset, Partition, Rebalance, Record, Transport
from quixframes.local import LocalKafka
from quixframes.settings import Connection
from tests.adapters.helpers import (
    QUICK,
    Member,
    answering,
    client_threads,
    consuming,
    driving,
    forbid,
    new_group,
    new_topic,
    nothing,
    numbers,
    wait_until,
    write,
)


def test_a_group_reads_everything_from_where_it_is_told_to(
    transport: Transport, connection: Connection, topic: str
) -> None:
    write(transport, connection, topic, 1_000)
    with consuming(transport, connection, new_group()) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.records) == 1_000)
    assert [rebalance.change for rebalance in member.rebalances] == [Change.Assigned]
    assert numbers(member.records) == list(range(1_000))
    for partition in range(3):
        offsets = [record.offset for record in member.records if record.partition == partition]
        assert offsets == list(range(len(offsets)))
    record = member.records[0]
    assert list(record.headers) == [("name", b"content")]
    assert abs(record.timestamp / 1000 - time.time()) < 60


def test_nothing_is_read_of_a_partition_before_its_position_is_given(
    transport: Transport, connection: Connection, topic: str
) -> None:
    write(transport, connection, topic, 100)
    with consuming(transport, connection, new_group()) as consumer:
        consumer.subscribe([topic], nothing)
        assigned: set[Partition] = set()
        while len(assigned) < 3:
            for rebalance in consumer.poll(0.1).rebalances:
                assigned |= rebalance.partitions
        assert all(not consumer.poll(0.2).records for _ in range(3))
        only = max(assigned)
        consumer.seek(only, 0)
        found = [record for _ in range(5) for record in consumer.poll(0.2).records]
        assert {record.partition for record in found} == {only.number}


def test_a_pause_holds_back_and_drops_nothing(transport: Transport, connection: Connection, topic: str) -> None:
    write(transport, connection, topic, 3_000)
    partitions = [Partition(topic, number) for number in range(3)]
    with consuming(transport, connection) as consumer:
        consumer.assign(dict.fromkeys(partitions, 0))
        records: list[Record] = []
        while not records:
            records += consumer.poll(1).records
        consumer.pause(partitions)
        assert all(not consumer.poll(0.1).records for _ in range(3))
        consumer.resume(partitions)
        while len(records) < 3_000:
            records += consumer.poll(1).records
    assert numbers(records) == list(range(3_000))


def test_a_commit_keeps_its_metadata_and_moves_with_the_group(
    transport: Transport, connection: Connection, topic: str
) -> None:
    group = new_group()
    partitions = [Partition(topic, number) for number in range(3)]
    with consuming(transport, connection, group) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 3)
        assert consumer.committed(partitions) == dict.fromkeys(partitions)
        consumer.commit({partitions[0]: Offset(5, "notes"), partitions[1]: Offset(7)})
    with consuming(transport, connection, group) as consumer:
        assert consumer.committed(partitions) == {
            partitions[0]: Offset(5, "notes"),
            partitions[1]: Offset(7),
            partitions[2]: None,
        }


def test_what_revoking_says_is_committed_before_another_member_has_the_partition(
    transport: Transport, connection: Connection, topic: str
) -> None:
    group = new_group()
    asked: list[frozenset[Partition]] = []

    def finished(partitions: frozenset[Partition]) -> Mapping[Partition, Offset]:
        asked.append(partitions)
        return {partition: Offset(partition.number + 1, "handed over") for partition in partitions}

    write(transport, connection, topic, 100)
    with consuming(transport, connection, group) as first, consuming(transport, connection, group) as second:
        old, new = Member(first), Member(second)
        first.subscribe([topic], answering(finished))
        old.poll_until(lambda: len(old.owned) == 3)
        second.subscribe([topic], nothing)
        with driving(old, new):
            wait_until(lambda: len(old.owned) + len(new.owned) == 3 and bool(new.owned), 20)
        moved = frozenset(new.owned)
        assert asked == [moved]
        assert Rebalance(Change.Revoked, moved) in old.rebalances
        assert second.committed(moved) == {part: Offset(part.number + 1, "handed over") for part in moved}


def test_closing_commits_what_revoking_says(transport: Transport, connection: Connection, topic: str) -> None:
    group = new_group()
    consumer = transport.consumer(connection, QUICK, group=group)
    member = Member(consumer)
    consumer.subscribe([topic], answering(lambda partitions: dict.fromkeys(partitions, Offset(3, "bye"))))
    member.poll_until(lambda: len(member.owned) == 3)
    consumer.close(5)
    consumer.close(5)
    with consuming(transport, connection, group) as after:
        assert set(after.committed(member.owned).values()) == {Offset(3, "bye")}


def test_a_failing_revoking_does_not_stop_the_reading(transport: Transport, connection: Connection, topic: str) -> None:
    def revoking(_: frozenset[Partition]) -> Future[Mapping[Partition, Offset]]:
        raise ValueError("a fault in what is above")

    group = new_group()
    write(transport, connection, topic, 100)
    with consuming(transport, connection, group) as first, consuming(transport, connection, group) as second:
        old, new = Member(first), Member(second)
        first.subscribe([topic], revoking)
        old.poll_until(lambda: len(old.owned) == 3)
        second.subscribe([topic], nothing)
        with driving(old, new):
            wait_until(lambda: len(old.owned) + len(new.owned) == 3 and bool(new.owned), 20)


def test_commits_succeed_while_other_members_come_and_go(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    """In a cooperative rebalance most partitions stay where they are: their commits must not fail because of it."""
    topic, group = new_topic(admin, partitions=6), new_group()
    with consuming(transport, connection, group) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 6)
        done = threading.Event()

        def come_and_go() -> None:
            for _ in range(2):
                with consuming(transport, connection, group) as other:
                    visitor = Member(other)
                    other.subscribe([topic], nothing)
                    visitor.poll_until(partial(bool, visitor.owned))
            done.set()

        thread = threading.Thread(target=come_and_go)
        thread.start()
        commits = 0
        while not done.is_set():
            for partition in sorted(member.owned)[:2]:
                try:
                    consumer.commit({partition: Offset(commits)})
                    commits += 1
                except GroupMovedOnError:
                    member.poll(0)
                    assert partition not in member.owned
            member.poll(0.01)
        thread.join()
        assert commits > 20


def test_an_instance_that_was_given_up_is_told_so(transport: Transport, connection: Connection, topic: str) -> None:
    group = new_group()
    with consuming(transport, connection, group) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 3)
        bare = KafkaAdminClient(bootstrap_servers=connection.brokers[0])
        ids = [it["member_id"] for it in bare.describe_groups([group])[group]["members"]]
        bare.remove_group_members(group, [MemberToRemove(member_id=ids[0])])
        bare.close()
        with pytest.raises(GroupMovedOnError):
            consumer.commit({Partition(topic, 0): Offset(1)})
        member.poll_until(lambda: any(it.change is Change.Lost for it in member.rebalances))
        member.poll_until(lambda: len(member.owned) == 3)


def test_a_partition_that_waits_for_its_position_has_none(
    transport: Transport, connection: Connection, topic: str
) -> None:
    with consuming(transport, connection, new_group()) as consumer:
        consumer.subscribe([topic], nothing)
        assigned: set[Partition] = set()
        while len(assigned) < 3:
            for rebalance in consumer.poll(0.1).rebalances:
                assigned |= rebalance.partitions
        assert {consumer.position(partition) for partition in assigned} == {None}
        consumer.seek(Partition(topic, 0), 0)
        assert consumer.position(Partition(topic, 0)) == 0
        assert consumer.position(Partition(topic, 1)) is None


def test_only_committed_transactions_are_read(transport: Transport, connection: Connection, admin: Admin) -> None:
    topic = new_topic(admin, partitions=1)
    bare = KafkaProducer(bootstrap_servers=connection.brokers[0], transactional_id=new_group())
    bare.init_transactions()
    for value, commit in ((b"1", True), (b"2", False), (b"3", True)):
        bare.begin_transaction()
        bare.send(topic, value)
        if commit:
            bare.commit_transaction()
        else:
            bare.flush()
            bare.abort_transaction()
    bare.close()
    with consuming(transport, connection) as consumer:
        consumer.assign({Partition(topic, 0): 0})
        found: list[Record] = []
        wait_until(lambda: len(found) >= 2 or bool(found.extend(consumer.poll(0.2).records)))
        found.extend(consumer.poll(0.3).records)
    assert [record.value for record in found] == [b"1", b"3"]


def test_what_retention_removed_is_reported_and_reading_goes_on_from_where_it_is_told_to(
    transport: Transport, connection: Connection, topic: str
) -> None:
    write(transport, connection, topic, 300)
    partition, other = Partition(topic, 0), Partition(topic, 1)
    bare = KafkaAdminClient(bootstrap_servers=connection.brokers[0])
    bare.delete_records({TopicPartition(*partition): 20})
    bare.close()
    with consuming(transport, connection) as consumer:
        consumer.assign({partition: 5, other: 0})
        gone: dict[Partition, int] = {}
        records: list[Record] = []
        for _ in range(10):
            polled = consumer.poll(0.2)
            gone.update(polled.gone or {})
            records += polled.records
        assert gone == {partition: 5}
        assert {record.partition for record in records} == {1}
        consumer.seek(partition, 20)
        records.clear()
        while not records:
            records += consumer.poll(0.2).records
        assert records[0].offset == 20


def test_a_topic_that_does_not_exist_raises_at_once(transport: Transport, connection: Connection, admin: Admin) -> None:
    start = time.monotonic()
    with consuming(transport, connection, new_group()) as consumer:
        with pytest.raises(TopicNotFoundError, match="no-such-topic"):
            consumer.subscribe(["no-such-topic"], nothing)
        with pytest.raises(TopicNotFoundError, match="no-such-topic"):
            consumer.assign({Partition("no-such-topic", 0): 0})
    assert time.monotonic() - start < 2
    assert "no-such-topic" not in admin.topics()


@pytest.mark.parametrize("in_group", [True, pytest.param(False, marks=pytest.mark.faults)])
def test_a_topic_that_is_deleted_while_it_is_read_raises_within_ten_seconds(
    transport: Transport, connection: Connection, admin: Admin, in_group: bool
) -> None:
    topic = new_topic(admin)
    with consuming(transport, connection, new_group() if in_group else None) as consumer:
        member = Member(consumer)
        if in_group:
            consumer.subscribe([topic], nothing)
            member.poll_until(lambda: len(member.owned) == 3)
        else:
            consumer.assign({Partition(topic, 0): 0})
            member.poll()
        admin.delete(topic)
        start = time.monotonic()
        with pytest.raises(TopicNotFoundError, match="deleted"):
            member.poll_until(lambda: False, 12)
        assert time.monotonic() - start < 10


def test_a_forbidden_topic_or_group_raises(transport: Transport, guarded_kafka: LocalKafka) -> None:
    connection = Connection.of(guarded_kafka.address)
    admin = transport.admin(connection)
    readable, secret, group = new_topic(admin), new_topic(admin), new_group()
    admin.close(5)
    forbid(guarded_kafka.address, ResourceType.TOPIC, secret, ACLOperation.READ)
    forbid(guarded_kafka.address, ResourceType.GROUP, group, ACLOperation.READ)

    def read(consumer: Consumer) -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            consumer.poll(0.1)

    def read_secret(consumer: Consumer) -> None:
        consumer.assign({Partition(secret, 0): 0})
        read(consumer)

    def join(consumer: Consumer) -> None:
        consumer.subscribe([readable], nothing)
        read(consumer)

    with consuming(transport, connection) as consumer, pytest.raises(AccessDeniedError):
        read_secret(consumer)
    with consuming(transport, connection, group) as consumer, pytest.raises(AccessDeniedError):
        join(consumer)


@pytest.mark.parametrize("fault", ["frozen", pytest.param("killed", marks=pytest.mark.faults)])
def test_a_broker_that_dies_or_hangs_is_noticed_and_reading_goes_on_when_it_is_back(
    transport: Transport, own_kafka: LocalKafka, fault: str
) -> None:
    connection = Connection.of(own_kafka.address)
    admin = transport.admin(connection)
    topic = new_topic(admin)
    admin.close(5)
    write(transport, connection, topic, 10)
    with consuming(transport, connection, new_group()) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.records) == 10)
        assert consumer.trouble() is None
        own_kafka.kill() if fault == "killed" else own_kafka.pause()
        start = time.monotonic()
        member.poll_until(lambda: consumer.trouble() is not None, 10)
        assert time.monotonic() - start < 6
        assert topic in str(consumer.trouble())
        own_kafka.restart() if fault == "killed" else own_kafka.resume()
        start = time.monotonic()
        member.poll_until(lambda: consumer.trouble() is None, 15)
        write(transport, connection, topic, 10, first=10)
        member.poll_until(lambda: len({record.value for record in member.records}) == 20, 30)


@pytest.mark.parametrize("fault", ["frozen", pytest.param("killed", marks=pytest.mark.faults)])
def test_closing_ends_in_time_when_the_broker_does_not_answer(
    transport: Transport, own_kafka: LocalKafka, fault: str
) -> None:
    before = client_threads()
    connection = Connection.of(own_kafka.address)
    admin = transport.admin(connection)
    topic = new_topic(admin)
    admin.close(5)
    consumer = transport.consumer(connection, QUICK, group=new_group())
    member = Member(consumer)
    consumer.subscribe([topic], answering(lambda partitions: dict.fromkeys(partitions, Offset(1))))
    member.poll_until(lambda: len(member.owned) == 3)
    own_kafka.kill() if fault == "killed" else own_kafka.pause()
    start = time.monotonic()
    consumer.close(3)
    assert time.monotonic() - start < 3.3
    wait_until(lambda: client_threads() <= before, 1)


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_commit_that_no_broker_answers_fails_within_six_seconds(
    transport: Transport, own_kafka: LocalKafka, fault: str
) -> None:
    connection = Connection.of(own_kafka.address)
    admin = transport.admin(connection)
    topic = new_topic(admin)
    admin.close(5)
    with consuming(transport, connection, new_group()) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 3)
        own_kafka.kill() if fault == "killed" else own_kafka.pause()
        start = time.monotonic()
        with pytest.raises(CommitError) as raised:
            consumer.commit({Partition(topic, 0): Offset(1)})
        assert time.monotonic() - start < 6
        assert not isinstance(raised.value, GroupMovedOnError)


def groups_settle(transport: Transport, connection: Connection, admin: Admin, groups: int, timeout: float) -> None:
    """So many groups of two members each, started together on a topic made a moment before."""
    topic = new_topic(admin, partitions=4)
    stop = threading.Event()
    members: dict[tuple[int, int], Member] = {}
    failures: list[BaseException] = []

    def live(group: int, number: int) -> None:
        try:
            with consuming(transport, connection, f"{topic}-{group}") as consumer:
                member = Member(consumer)
                consumer.subscribe([topic], nothing)
                members[group, number] = member
                while not stop.is_set():
                    member.poll()
        except BaseException as exc:
            failures.append(exc)
            raise

    threads = [threading.Thread(target=live, args=(group, number)) for group in range(groups) for number in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        write(transport, connection, topic, 200)

        def settled() -> bool:
            for group in range(groups):
                pair = [members.get((group, number)) for number in (0, 1)]
                if not all(member is not None and len(member.owned) == 2 for member in pair):
                    return False
                records = [record for member in pair if member is not None for record in list(member.records)]
                if len({(record.partition, record.offset) for record in records}) < 200:
                    return False
            return True

        wait_until(settled, timeout)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_no_instance_of_groups_that_start_together_stays_idle(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    groups_settle(transport, connection, admin, 6, 30)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_no_instance_of_fifty_groups_that_start_together_stays_idle(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    for _ in range(3):
        groups_settle(transport, connection, admin, 50, 90)


def test_what_others_write_without_key_or_header_values_is_read(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    topic = new_topic(admin, partitions=1)
    write(transport, connection, topic, 1)
    bare = KafkaProducer(bootstrap_servers=connection.brokers[0])
    bare.send(topic, value=b"no key")
    bare.send(topic, key=b"no value")
    bare.close()
    with consuming(transport, connection) as consumer:
        consumer.assign({Partition(topic, 0): 0})
        found: list[Record] = []
        wait_until(lambda: bool(found.extend(consumer.poll(0.2).records)) or len(found) == 3)
    assert [(record.key, record.value) for record in found[1:]] == [(None, b"no key"), (b"no value", None)]
    assert list(found[1].headers) == []
