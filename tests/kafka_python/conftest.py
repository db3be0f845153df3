"""Brokers for the tests of the kafka-python adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from adapter_helpers import new_topic

from quixframes.kafka_python import KafkaPython
from quixframes.kafka_python.admin import PythonAdmin
from quixframes.local import LocalKafka
from quixframes.settings import Connection


@pytest.fixture(scope="session")
def plain_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker that nobody stops."""
    with LocalKafka(tmp_path_factory.mktemp("plain")) as kafka:
        yield kafka


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    """A broker of the test's own, to be stopped, frozen and killed."""
    # A broker that was killed is let back in when its old session has ended: soon, so that tests need not wait.
    settings = {"broker.session.timeout.ms": 1000, "broker.heartbeat.interval.ms": 200}
    with LocalKafka(tmp_path / "kafka", settings=settings) as kafka:
        yield kafka
        if kafka.running:
            kafka.resume()  # a frozen process cannot be asked to end


@pytest.fixture(scope="session")
def guarded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker that keeps permissions: everything is allowed that ``forbid`` does not forbid."""
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with LocalKafka(tmp_path_factory.mktemp("guarded"), settings=settings) as kafka:
        yield kafka


@pytest.fixture
def connection(plain_kafka: LocalKafka) -> Connection:
    return Connection.of(plain_kafka.address)


@pytest.fixture
def admin(connection: Connection) -> Iterator[PythonAdmin]:
    client = KafkaPython().admin(connection)
    yield client
    client.close(5)


@pytest.fixture
def topic(admin: PythonAdmin) -> str:
    """A new topic of three partitions."""
    return new_topic(admin)
