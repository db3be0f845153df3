"""What the kafka-python adapter is made of, and the defects of the bare client: what every adapter has to do is in
``tests/adapters``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quixframes.kafka_python import KafkaPython
from quixframes.kafka_python.admin import PythonAdmin
from quixframes.settings import Connection
from tests.adapters.helpers import new_topic


@pytest.fixture
def transport() -> KafkaPython:
    return KafkaPython()


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
