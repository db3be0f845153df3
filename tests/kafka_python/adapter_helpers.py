"""Small helpers for the tests of the kafka-python adapter."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable

from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from quixframes.kafka import Outgoing, Partition
from quixframes.kafka_python import KafkaPython
from quixframes.kafka_python.admin import PythonAdmin
from quixframes.settings import Connection, ReaderSettings


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


def new_topic(admin: PythonAdmin, *, partitions: int = 3, **settings: str) -> str:
    name = f"topic-{uuid.uuid4().hex[:8]}"
    named = {key.replace("_", "."): value for key, value in settings.items()}
    admin.create(name, partitions=partitions, replication=1, settings=named)
    return name


def message(topic: str, value: bytes = b"value", key: bytes = b"key") -> Outgoing:
    return Outgoing(topic, key, value, [("name", b"content")])


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


def wait_until(true: Callable[[], bool], timeout: float = 10.0) -> None:
    """Return as soon as it is true; fail after the timeout."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"not so within {timeout:g} s"
        time.sleep(0.01)


def client_threads() -> set[str]:
    """Names of the running threads that belong to some Kafka client."""
    return {thread.name for thread in threading.enumerate() if "kafka" in thread.name or "network" in thread.name}


def read_all(connection: Connection, topic: str, partition: int | None = None) -> list[tuple[bytes | None, bytes]]:
    """Key and value of everything in the topic, in the order of the partitions."""
    transport = KafkaPython()
    looking = transport.admin(connection)
    ends = {number: end for number, end in looking.ends(topic).items() if partition in (None, number)}
    looking.close(5)
    consumer = transport.consumer(connection, ReaderSettings(), group=None)
    consumer.assign({Partition(topic, number): 0 for number in ends})
    found: dict[int, list[tuple[bytes | None, bytes]]] = {number: [] for number in ends}
    left = {number for number, end in ends.items() if end}
    deadline = time.monotonic() + 30
    while left:
        assert time.monotonic() < deadline, "not read in time"
        for record in consumer.poll(0.2).records:
            assert record.value is not None
            found[record.partition].append((record.key, bytes(record.value)))
            if record.offset + 1 >= ends[record.partition]:
                left.discard(record.partition)
    consumer.close(5)
    return [pair for number in sorted(found) for pair in found[number]]
