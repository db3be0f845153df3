"""The consumer: what it promises, beside what kafka-python's own does in the same place."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import kafka.errors as theirs
import pytest
from adapter_helpers import Outcomes, client_threads, forbid, message, new_topic, wait_until
from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ACLOperation, MemberToRemove, ResourceType
from kafka.structs import OffsetAndMetadata

from quixframes.errors import (
    AccessDeniedError,
    CommitError,
    GroupMovedOnError,
    TopicNotFoundError,
)
from quixframes.kafka import Change, Offset, Partition, Rebalance, Record
from quixframes.kafka_python import KafkaPython
from quixframes.kafka_python.admin import PythonAdmin
from quixframes.kafka_python.consumer import PythonConsumer
from quixframes.local import LocalKafka
from quixframes.settings import Connection, ReaderSettings, WriterSettings

QUICK = ReaderSettings(session_timeout="6s")


def nothing(_: frozenset[Partition]) -> Mapping[Partition, Offset]:
    """A ``revoking`` with nothing left to commit."""
    return {}


def new_group() -> str:
    return f"group-{uuid.uuid4().hex[:8]}"


@contextmanager
def consuming(
    connection: Connection, group: str | None = None, settings: ReaderSettings = QUICK
) -> Iterator[PythonConsumer]:
    consumer = KafkaPython().consumer(connection, settings, group=group)
    try:
        yield consumer
    finally:
        consumer.close(5)


@contextmanager
def closing_admin(connection: Connection) -> Iterator[PythonAdmin]:
    admin = KafkaPython().admin(connection)
    try:
        yield admin
    finally:
        admin.close(5)


def write(connection: Connection, topic: str, count: int, *, first: int = 0) -> None:
    """Messages whose values are their numbers, under seven keys."""
    producer = KafkaPython().producer(connection, WriterSettings())
    outcomes = Outcomes()
    for number in range(first, first + count):
        producer.send(message(topic, b"%d" % number, b"key-%d" % (number % 7)), outcomes.of(number))
    assert producer.flush(20)
    producer.close(5)
    assert outcomes.errors == []


class Member:
    """A member of a group in the hands of a test: seeks to what is committed, and remembers what happened."""

    def __init__(self, consumer: PythonConsumer) -> None:
        self.consumer = consumer
        self.owned: set[Partition] = set()
        self.rebalances: list[Rebalance] = []
        self.records: list[Record] = []

    def poll(self, timeout: float = 0.1) -> None:
        polled = self.consumer.poll(timeout)
        assigned: set[Partition] = set()
        for rebalance in polled.rebalances:
            self.rebalances.append(rebalance)
            if rebalance.change is Change.Assigned:
                assigned |= rebalance.partitions
                self.owned |= rebalance.partitions
            else:
                self.owned -= rebalance.partitions
        assert not {(record.topic, record.partition) for record in polled.records} & assigned
        if assigned & self.owned:
            for partition, offset in self.consumer.committed(assigned & self.owned).items():
                self.consumer.seek(partition, offset.offset if offset is not None else 0)
        self.records += polled.records

    def poll_until(self, true: Callable[[], bool], timeout: float = 15.0) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            assert time.monotonic() < deadline, f"not so within {timeout:g} s"
            self.poll()


def numbers(records: list[Record]) -> list[int]:
    return sorted(int(record.value) for record in records if record.value is not None)


@contextmanager
def driving(*members: Member) -> Iterator[None]:
    """Poll the members on threads of their own."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def drive(member: Member) -> None:
        try:
            while not stop.is_set():
                member.poll()
        except BaseException as exc:
            failures.append(exc)
            raise

    threads = [threading.Thread(target=drive, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_group_reads_everything_from_where_it_is_told_to(connection: Connection, topic: str) -> None:
    write(connection, topic, 1_000)
    with consuming(connection, new_group()) as consumer:
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


def test_nothing_is_read_of_a_partition_before_its_position_is_given(connection: Connection, topic: str) -> None:
    write(connection, topic, 100)
    with consuming(connection, new_group()) as consumer:
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


def test_a_pause_holds_back_and_drops_nothing(connection: Connection, topic: str) -> None:
    write(connection, topic, 3_000)
    partitions = [Partition(topic, number) for number in range(3)]
    with consuming(connection) as consumer:
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


def test_a_commit_keeps_its_metadata_and_moves_with_the_group(connection: Connection, topic: str) -> None:
    group = new_group()
    partitions = [Partition(topic, number) for number in range(3)]
    with consuming(connection, group) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 3)
        assert consumer.committed(partitions) == dict.fromkeys(partitions)
        consumer.commit({partitions[0]: Offset(5, "notes"), partitions[1]: Offset(7)})
    with consuming(connection, group) as consumer:
        assert consumer.committed(partitions) == {
            partitions[0]: Offset(5, "notes"),
            partitions[1]: Offset(7),
            partitions[2]: None,
        }


def test_what_revoking_says_is_committed_before_another_member_has_the_partition(
    connection: Connection, topic: str
) -> None:
    """Defect H: a plain commit raises there in the bare client."""
    group = new_group()
    asked: list[frozenset[Partition]] = []

    def revoking(partitions: frozenset[Partition]) -> Mapping[Partition, Offset]:
        asked.append(partitions)
        return {partition: Offset(partition.number + 1, "handed over") for partition in partitions}

    write(connection, topic, 100)
    with consuming(connection, group) as first, consuming(connection, group) as second:
        old, new = Member(first), Member(second)
        first.subscribe([topic], revoking)
        old.poll_until(lambda: len(old.owned) == 3)
        second.subscribe([topic], nothing)
        with driving(old, new):
            wait_until(lambda: len(old.owned) + len(new.owned) == 3 and bool(new.owned), 20)
        moved = frozenset(new.owned)
        assert asked == [moved]
        assert Rebalance(Change.Revoked, moved) in old.rebalances
        assert second.committed(moved) == {part: Offset(part.number + 1, "handed over") for part in moved}


def test_closing_commits_what_revoking_says(connection: Connection, topic: str) -> None:
    group = new_group()
    consumer = KafkaPython().consumer(connection, QUICK, group=group)
    member = Member(consumer)
    consumer.subscribe([topic], lambda partitions: dict.fromkeys(partitions, Offset(3, "bye")))
    member.poll_until(lambda: len(member.owned) == 3)
    consumer.close(5)
    consumer.close(5)
    with consuming(connection, group) as after:
        assert set(after.committed(member.owned).values()) == {Offset(3, "bye")}


def test_a_failing_revoking_does_not_stop_the_reading(connection: Connection, topic: str) -> None:
    def revoking(_: frozenset[Partition]) -> Mapping[Partition, Offset]:
        raise ValueError("a fault in what is above")

    group = new_group()
    write(connection, topic, 100)
    with consuming(connection, group) as first, consuming(connection, group) as second:
        old, new = Member(first), Member(second)
        first.subscribe([topic], revoking)
        old.poll_until(lambda: len(old.owned) == 3)
        second.subscribe([topic], nothing)
        with driving(old, new):
            wait_until(lambda: len(old.owned) + len(new.owned) == 3 and bool(new.owned), 20)


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


def test_commits_succeed_while_other_members_come_and_go(connection: Connection, admin: PythonAdmin) -> None:
    """In a cooperative rebalance most partitions stay where they are: their commits must not fail because of it."""
    topic, group = new_topic(admin, partitions=6), new_group()
    with consuming(connection, group) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 6)
        done = threading.Event()

        def come_and_go() -> None:
            for _ in range(2):
                with consuming(connection, group) as other:
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


def test_an_instance_that_was_given_up_is_told_so(connection: Connection, topic: str) -> None:
    group = new_group()
    with consuming(connection, group) as consumer:
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


@contextmanager
def cut_off(consumer: PythonConsumer) -> Iterator[None]:
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
    own_kafka: LocalKafka, back_by: str
) -> None:
    """kafka-python itself says nothing of it where it learns of its loss while it is joining."""
    connection = Connection.of(own_kafka.address)
    with closing_admin(connection) as admin:
        topic = new_topic(admin, partitions=1)
    group, place, session = new_group(), Partition(topic, 0), ReaderSettings(session_timeout="2s")
    write(connection, topic, 100)
    with consuming(connection, group, session) as consumer:
        away = Member(consumer)
        consumer.subscribe([topic], nothing)
        away.poll_until(lambda: len(away.records) == 100)
        consumer.commit({place: Offset(10)})
        with cut_off(consumer):
            with consuming(connection, group, session) as other:
                stand_in = Member(other)
                other.subscribe([topic], nothing)
                with driving(away):
                    stand_in.poll_until(lambda: len(stand_in.records) == 90)
                    other.commit({place: Offset(100)})
            away.poll()
        assert away.owned == {place}, "it was told while it could not know"
        away.rebalances.clear()
        away.records.clear()
        write(connection, topic, 1, first=100)
        if back_by == "commit":
            # What a commit does that comes upon a rebalance.
            assert not consumer._still_owns({place: Offset(20)}, 10_000)
            with pytest.raises(GroupMovedOnError):
                consumer.commit({place: Offset(20)})
        away.poll_until(lambda: bool(away.records))
        assert [rebalance.change for rebalance in away.rebalances] == [Change.Lost, Change.Assigned]
        assert numbers(away.records) == [100]
        assert consumer.committed([place]) == {place: Offset(100)}


def test_partitions_without_a_leader_are_trouble(
    connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quixframes.kafka_python.consumer._SILENCE", 0.5)
    with consuming(connection) as consumer:
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


def test_a_partition_that_waits_for_its_position_has_none(connection: Connection, topic: str) -> None:
    with consuming(connection, new_group()) as consumer:
        consumer.subscribe([topic], nothing)
        assigned: set[Partition] = set()
        while len(assigned) < 3:
            for rebalance in consumer.poll(0.1).rebalances:
                assigned |= rebalance.partitions
        assert {consumer.position(partition) for partition in assigned} == {None}
        consumer.seek(Partition(topic, 0), 0)
        assert consumer.position(Partition(topic, 0)) == 0
        assert consumer.position(Partition(topic, 1)) is None


def test_what_is_gone_of_a_partition_that_was_revoked_is_not_reported(
    connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with consuming(connection) as consumer:
        consumer.assign({Partition(topic, 0): 7})

        def poll(**_: object) -> None:
            raise theirs.LogTruncationError({TopicPartition(topic, 0): 3, TopicPartition(topic, 1): 3})

        monkeypatch.setattr(consumer._consumer, "poll", poll)
        assert consumer.poll(0.1).gone == {Partition(topic, 0): 7}


def test_a_commit_that_a_rebalance_holds_up_ends_within_its_time(
    connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quixframes.kafka_python.consumer._COMMIT_TIMEOUT", 0.5)
    with consuming(connection, new_group()) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 3)

        def commit(*_: object, timeout_ms: float) -> None:
            time.sleep(min(0.4, timeout_ms / 1000))
            raise theirs.RebalanceInProgressError()

        monkeypatch.setattr(consumer._consumer, "commit", commit)
        monkeypatch.setattr(consumer._consumer._coordinator, "poll", lambda timeout_ms: time.sleep(timeout_ms / 1000))
        start = time.monotonic()
        with pytest.raises(CommitError):
            consumer.commit({Partition(topic, 0): Offset(1)})
        assert time.monotonic() - start < 0.7


def test_only_committed_transactions_are_read(connection: Connection, admin: PythonAdmin) -> None:
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
    with consuming(connection) as consumer:
        consumer.assign({Partition(topic, 0): 0})
        found: list[Record] = []
        wait_until(lambda: len(found) >= 2 or bool(found.extend(consumer.poll(0.2).records)))
        found.extend(consumer.poll(0.3).records)
    assert [record.value for record in found] == [b"1", b"3"]


def test_what_retention_removed_is_reported_and_reading_goes_on_from_where_it_is_told_to(
    connection: Connection, topic: str
) -> None:
    write(connection, topic, 300)
    partition, other = Partition(topic, 0), Partition(topic, 1)
    bare = KafkaAdminClient(bootstrap_servers=connection.brokers[0])
    bare.delete_records({TopicPartition(*partition): 20})
    bare.close()
    with consuming(connection) as consumer:
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


def test_a_topic_that_does_not_exist_raises_at_once(connection: Connection, admin: PythonAdmin) -> None:
    """Defect G."""
    bare = KafkaConsumer(bootstrap_servers=connection.brokers[0], allow_auto_create_topics=False)
    bare.assign([TopicPartition("no-such-topic", 0)])
    assert bare.poll(1500) == {}
    bare.close()
    start = time.monotonic()
    with consuming(connection, new_group()) as consumer:
        with pytest.raises(TopicNotFoundError, match="no-such-topic"):
            consumer.subscribe(["no-such-topic"], nothing)
        with pytest.raises(TopicNotFoundError, match="no-such-topic"):
            consumer.assign({Partition("no-such-topic", 0): 0})
    assert time.monotonic() - start < 2
    assert "no-such-topic" not in admin.topics()


@pytest.mark.parametrize("in_group", [True, pytest.param(False, marks=pytest.mark.faults)])
def test_a_topic_that_is_deleted_while_it_is_read_raises_within_ten_seconds(
    connection: Connection, admin: PythonAdmin, in_group: bool
) -> None:
    """Defect G."""
    topic = new_topic(admin)
    with consuming(connection, new_group() if in_group else None) as consumer:
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


def test_a_forbidden_topic_or_group_raises(guarded_kafka: LocalKafka) -> None:
    """Defect G."""
    connection = Connection.of(guarded_kafka.address)
    admin = KafkaPython().admin(connection)
    readable, secret, group = new_topic(admin), new_topic(admin), new_group()
    admin.close(5)
    forbid(guarded_kafka.address, ResourceType.TOPIC, secret, ACLOperation.READ)
    forbid(guarded_kafka.address, ResourceType.GROUP, group, ACLOperation.READ)

    def read(consumer: PythonConsumer) -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            consumer.poll(0.1)

    def read_secret(consumer: PythonConsumer) -> None:
        consumer.assign({Partition(secret, 0): 0})
        read(consumer)

    def join(consumer: PythonConsumer) -> None:
        consumer.subscribe([readable], nothing)
        read(consumer)

    with consuming(connection) as consumer, pytest.raises(AccessDeniedError):
        read_secret(consumer)
    with consuming(connection, group) as consumer, pytest.raises(AccessDeniedError):
        join(consumer)


@pytest.mark.parametrize("fault", ["frozen", pytest.param("killed", marks=pytest.mark.faults)])
def test_a_broker_that_dies_or_hangs_is_noticed_and_reading_goes_on_when_it_is_back(
    own_kafka: LocalKafka, fault: str
) -> None:
    """Defect G."""
    connection = Connection.of(own_kafka.address)
    admin = KafkaPython().admin(connection)
    topic = new_topic(admin)
    admin.close(5)
    write(connection, topic, 10)
    with consuming(connection, new_group()) as consumer:
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
        write(connection, topic, 10, first=10)
        member.poll_until(lambda: len({record.value for record in member.records}) == 20, 30)


@pytest.mark.parametrize("fault", ["frozen", pytest.param("killed", marks=pytest.mark.faults)])
def test_closing_ends_in_time_when_the_broker_does_not_answer(own_kafka: LocalKafka, fault: str) -> None:
    before = client_threads()
    connection = Connection.of(own_kafka.address)
    admin = KafkaPython().admin(connection)
    topic = new_topic(admin)
    admin.close(5)
    consumer = KafkaPython().consumer(connection, QUICK, group=new_group())
    member = Member(consumer)
    consumer.subscribe([topic], lambda partitions: dict.fromkeys(partitions, Offset(1)))
    member.poll_until(lambda: len(member.owned) == 3)
    own_kafka.kill() if fault == "killed" else own_kafka.pause()
    start = time.monotonic()
    consumer.close(3)
    assert time.monotonic() - start < 3.3
    wait_until(lambda: client_threads() <= before, 1)


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_commit_that_no_broker_answers_fails_within_six_seconds(own_kafka: LocalKafka, fault: str) -> None:
    connection = Connection.of(own_kafka.address)
    admin = KafkaPython().admin(connection)
    topic = new_topic(admin)
    admin.close(5)
    with consuming(connection, new_group()) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 3)
        own_kafka.kill() if fault == "killed" else own_kafka.pause()
        start = time.monotonic()
        with pytest.raises(CommitError) as raised:
            consumer.commit({Partition(topic, 0): Offset(1)})
        assert time.monotonic() - start < 6
        assert not isinstance(raised.value, GroupMovedOnError)


def groups_settle(connection: Connection, admin: PythonAdmin, groups: int, timeout: float) -> None:
    """So many groups of two members each, started together on a topic made a moment before."""
    topic = new_topic(admin, partitions=4)
    stop = threading.Event()
    members: dict[tuple[int, int], Member] = {}
    failures: list[BaseException] = []

    def live(group: int, number: int) -> None:
        try:
            with consuming(connection, f"{topic}-{group}") as consumer:
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
        write(connection, topic, 200)

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


def test_no_instance_of_groups_that_start_together_stays_idle(connection: Connection, admin: PythonAdmin) -> None:
    """Defect D."""
    groups_settle(connection, admin, 6, 30)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_no_instance_of_fifty_groups_that_start_together_stays_idle(connection: Connection, admin: PythonAdmin) -> None:
    """Defect D."""
    for _ in range(3):
        groups_settle(connection, admin, 50, 90)


def change_of_mind(consumer: KafkaConsumer, poll: Callable[[], object]) -> bool:
    """Give the group's leader a reason to rejoin, which passes while it does; whether it completed the join."""
    coordinator = consumer._coordinator
    snapshot = coordinator._metadata_snapshot
    coordinator._metadata_snapshot = {**snapshot, "another": {0}}
    poll()
    assert coordinator.rejoining
    coordinator._metadata_snapshot = snapshot
    deadline = time.monotonic() + 2
    while coordinator.rejoining and time.monotonic() < deadline:
        poll()
    return not coordinator.rejoining and bool(coordinator._heartbeat_enabled)


def test_a_join_whose_reason_passed_is_completed(connection: Connection, topic: str) -> None:
    """Defect D, how it comes about: the bare client never completes it, sends no heartbeats, and is evicted."""
    bare = KafkaConsumer(topic, bootstrap_servers=connection.brokers[0], group_id=new_group())
    wait_until(lambda: bool(bare.poll(100)) or len(bare.assignment()) == 3)
    assert not change_of_mind(bare, lambda: bare.poll(0))
    bare.close()
    with consuming(connection, new_group()) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 3)
        assert change_of_mind(consumer._consumer, lambda: member.poll(0))


def test_what_others_write_without_key_or_header_values_is_read(connection: Connection, admin: PythonAdmin) -> None:
    topic = new_topic(admin, partitions=1)
    write(connection, topic, 1)
    bare = KafkaProducer(bootstrap_servers=connection.brokers[0])
    bare.send(topic, value=b"no key")
    bare.send(topic, key=b"no value")
    bare.close()
    with consuming(connection) as consumer:
        consumer.assign({Partition(topic, 0): 0})
        found: list[Record] = []
        wait_until(lambda: bool(found.extend(consumer.poll(0.2).records)) or len(found) == 3)
    assert [(record.key, record.value) for record in found[1:]] == [(None, b"no key"), (b"no value", None)]
    assert list(found[1].headers) == []
