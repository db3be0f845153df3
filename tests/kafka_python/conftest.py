"""Brokers for the tests of the kafka-python adapter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from adapter_helpers import new_topic

from quixframes.kafka_python import KafkaPython
from quixframes.kafka_python.admin import PythonAdmin
from quixframes.local import LocalKafka
from quixframes.settings import Connection


@pytest.fixture(scope="session")
def faulty_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """The broker behind ``own_kafka``."""
    # A broker that was killed is let back in when its old session has ended: soon, so that tests need not wait.
    settings = {"broker.session.timeout.ms": 1000, "broker.heartbeat.interval.ms": 200}
    # And members of groups are given up as soon, where a test asks for it.
    settings["group.min.session.timeout.ms"] = 1000
    with LocalKafka(tmp_path_factory.mktemp("faulty"), keep=False, settings=settings) as kafka:
        yield kafka


@pytest.fixture
def own_kafka(faulty_kafka: LocalKafka) -> Iterator[LocalKafka]:
    """A broker to be frozen and killed: each test gets it running."""
    if not faulty_kafka.running:
        faulty_kafka.restart()
    yield faulty_kafka
    if faulty_kafka.running:
        faulty_kafka.resume()


@pytest.fixture(scope="session")
def guarded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker that keeps permissions: everything is allowed that ``forbid`` does not forbid."""
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with LocalKafka(tmp_path_factory.mktemp("guarded"), keep=False, settings=settings) as kafka:
        yield kafka


@pytest.fixture
def connection(broker_address: str) -> Connection:
    """To a broker that nobody stops."""
    return Connection.of(broker_address)


@pytest.fixture
def admin(connection: Connection) -> Iterator[PythonAdmin]:
    client = KafkaPython().admin(connection)
    yield client
    client.close(5)


@pytest.fixture
def topic(admin: PythonAdmin) -> str:
    """A new topic of three partitions."""
    return new_topic(admin)
