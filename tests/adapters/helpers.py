"""Small helpers for the tests of the adapters: everything in them is done through the Protocols."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager

from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from quixframes.kafka import (
    Admin,
    Change,
    Consumer,
    Offset,
    Outgoing,
    Partition,
    Producer,
    Rebalance,
    Record,
    Revoking,
    Transport,
)
from quixframes.settings import Connection, ReaderSettings, WriterSettings

QUICK = ReaderSettings(session_timeout="6s")
SHORT = WriterSettings(delivery_timeout="3s")


def forbid(address: str, kind: ResourceType, name: str, *operations: ACLOperation) -> None:
    """Forbid everybody some operations on one topic or group."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    pattern = ResourcePattern(kind, name)
    # Without any line that allows something, a topic with a line that forbids something is closed altogether.
    rules = [(ACLOperation.ALL, ACLPermissionType.ALLOW)]
    rules += [(operation, ACLPermissionType.DENY) for operation in operations]
    made = admin.create_acls([ACL("User:ANONYMOUS", "*", *rule, pattern) for rule in rules])
    admin.close()
    assert not made["failed"], made


@contextmanager
def producing(
    transport: Transport, connection: Connection, settings: WriterSettings | None = None
) -> Iterator[Producer]:
    producer = transport.producer(connection, settings or WriterSettings())
    try:
        yield producer
    finally:
        producer.close(5)


@contextmanager
def consuming(
    transport: Transport, connection: Connection, group: str | None = None, settings: ReaderSettings = QUICK
) -> Iterator[Consumer]:
    consumer = transport.consumer(connection, settings, group=group)
    try:
        yield consumer
    finally:
        consumer.close(5)


@contextmanager
def administering(transport: Transport, connection: Connection) -> Iterator[Admin]:
    admin = transport.admin(connection)
    try:
        yield admin
    finally:
        admin.close(5)


def new_topic(admin: Admin, *, partitions: int = 3, **settings: str) -> str:
    name = f"topic-{uuid.uuid4().hex[:8]}"
    named = {key.replace("_", "."): value for key, value in settings.items()}
    admin.create(name, partitions=partitions, replication=1, settings=named)
    return name


def new_group() -> str:
    return f"group-{uuid.uuid4().hex[:8]}"


def message(topic: str, value: bytes = b"value", key: bytes = b"key") -> Outgoing:
    return Outgoing(topic, key, value, [("name", b"content")])


def answering(offsets: Callable[[frozenset[Partition]], Mapping[Partition, Offset]]) -> Revoking:
    """A ``revoking`` that has its answer at once."""

    def revoking(partitions: frozenset[Partition]) -> Future[Mapping[Partition, Offset]]:
        future: Future[Mapping[Partition, Offset]] = Future()
        future.set_result(offsets(partitions))
        return future

    return revoking


nothing = answering(lambda _: {})
"""A ``revoking`` with nothing left to commit."""


class Outcomes:
    """What ``on_done`` was told, per message, and when."""

    def __init__(self) -> None:
        self.told: dict[object, list[Exception | None]] = {}
        self.at: dict[object, float] = {}
        self._lock = threading.Condition()

    def of(self, name: object) -> Callable[[Exception | None], None]:
        with self._lock:
            self.told[name] = []

        def on_done(error: Exception | None) -> None:
            with self._lock:
                self.told[name].append(error)
                self.at[name] = time.monotonic()
                self._lock.notify_all()

        return on_done

    def wait(self, timeout: float) -> bool:
        with self._lock:
            return self._lock.wait_for(lambda: all(self.told.values()), timeout)

    @property
    def errors(self) -> list[Exception]:
        """The failures; each message must have been told of exactly once."""
        assert all(len(told) == 1 for told in self.told.values()), "not told exactly once"
        return [told[0] for told in self.told.values() if told[0] is not None]


class Member:
    """A member of a group in the hands of a test: seeks to what is committed, and remembers what happened."""

    def __init__(self, consumer: Consumer) -> None:
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
    for failure in failures:
        raise failure


def wait_until(true: Callable[[], bool], timeout: float = 30.0) -> None:
    """Return as soon as it is true; fail after the timeout."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"not so within {timeout:g} s"
        time.sleep(0.01)


def client_threads() -> set[threading.Thread]:
    """The running threads that belong to some Kafka client."""
    return {thread for thread in threading.enumerate() if "kafka" in thread.name or "network" in thread.name}


def write(transport: Transport, connection: Connection, topic: str, count: int, *, first: int = 0) -> None:
    """Messages whose values are their numbers, under seven keys."""
    producer = transport.producer(connection, WriterSettings())
    outcomes = Outcomes()
    for number in range(first, first + count):
        producer.send(message(topic, b"%d" % number, b"key-%d" % (number % 7)), outcomes.of(number))
    assert producer.flush(20)
    producer.close(5)
    assert outcomes.errors == []


def numbers(records: list[Record]) -> list[int]:
    return sorted(int(record.value) for record in records if record.value is not None)


def read_all(
    transport: Transport, connection: Connection, topic: str, partition: int | None = None
) -> list[tuple[bytes | None, bytes]]:
    """Key and value of everything in the topic that counts, in the order of the partitions."""
    with administering(transport, connection) as looking:
        # A transaction that was ended counts when the topic has the mark of its end, a moment later.
        wait_until(lambda: looking.ends(topic) == looking.ends(topic, committed_only=False))
        ends = {number: end for number, end in looking.ends(topic).items() if partition in (None, number)}
    found: dict[int, list[tuple[bytes | None, bytes]]] = {number: [] for number in ends}
    with consuming(transport, connection) as consumer:
        consumer.assign({Partition(topic, number): 0 for number in ends})
        deadline = time.monotonic() + 30
        # By the position, since the last offsets may be the marks of transactions.
        while any((consumer.position(Partition(topic, number)) or 0) < end for number, end in ends.items()):
            assert time.monotonic() < deadline, "not read in time"
            for record in consumer.poll(0.2).records:
                assert record.value is not None
                found[record.partition].append((record.key, bytes(record.value)))
    return [pair for number in sorted(found) for pair in found[number]]


def values(transport: Transport, connection: Connection, topic: str) -> list[bytes]:
    return [value for _, value in read_all(transport, connection, topic)]
