"""The adapters: each test here runs with every one that there is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quixframes.confluent import Confluent
from quixframes.kafka import Admin, Transport
from quixframes.kafka_python import KafkaPython
from quixframes.settings import Connection
from tests.adapters.helpers import new_topic


@pytest.fixture(params=["kafka-python", "confluent"])
def transport(request: pytest.FixtureRequest) -> Transport:
    """The Kafka client that is tested."""
    parameters = request.node.callspec.params
    if request.param == "confluent" and parameters.get("strategy") == "sticky":
        pytest.skip("librdkafka shares partitions out in three ways, and this is not one of them")
    return {"kafka-python": KafkaPython, "confluent": Confluent}[request.param]()


@pytest.fixture
def connection(broker_address: str) -> Connection:
    """To a broker that nobody stops."""
    return Connection.of(broker_address)


@pytest.fixture
def admin(transport: Transport, connection: Connection) -> Iterator[Admin]:
    client = transport.admin(connection)
    yield client
    client.close(5)


@pytest.fixture
def topic(admin: Admin) -> str:
    """A new topic of three partitions."""
    return new_topic(admin)
