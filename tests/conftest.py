"""One real Kafka for each session of pytest, and fresh topics for each test.

``pytest --kafka local`` (default) starts one from packages; ``--kafka docker`` runs the same tests on testcontainers'
Kafka; ``--kafka HOST:PORT`` on one that is there. ``--transport confluent`` runs them over the other client.
"""

from __future__ import annotations

import itertools
import logging
import os
import uuid
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings

import quixframes as qf
from tests.secrets_kept import SecretsKept

settings.register_profile("quixframes", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quixframes")

MakeTopic = Callable[..., str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kafka", default="local", help="local (default), docker, or HOST:PORT")
    parser.addoption("--transport", help="the Kafka client of every StreamingClient: kafka-python (default), confluent")


def pytest_configure(config: pytest.Config) -> None:
    kept = SecretsKept()
    config.pluginmanager.register(kept, "secrets-kept")
    logging.getLogger().addHandler(kept)
    if transport := config.getoption("--transport"):
        os.environ["QUIXFRAMES_TRANSPORT"] = transport


@pytest.fixture(scope="session")
def broker_address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker for the whole session."""
    choice = request.config.getoption("--kafka")
    if choice == "docker":
        from testcontainers.kafka import KafkaContainer

        with KafkaContainer().with_kraft() as container:
            yield container.get_bootstrap_server()
    elif choice == "local":
        with qf.LocalKafka(tmp_path_factory.mktemp("kafka"), keep=False) as kafka:
            yield kafka.address
    else:
        yield choice


@pytest.fixture(scope="session")
def faulty_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[qf.LocalKafka]:
    """The broker behind ``own_kafka``."""
    # A broker that was killed is let back in when its old session has ended: soon, so that tests need not wait.
    settings = {"broker.session.timeout.ms": 1000, "broker.heartbeat.interval.ms": 200}
    # And members of groups are given up as soon, where a test asks for it.
    settings["group.min.session.timeout.ms"] = 1000
    with qf.LocalKafka(tmp_path_factory.mktemp("faulty"), keep=False, settings=settings) as kafka:
        yield kafka


@pytest.fixture
def own_kafka(faulty_kafka: qf.LocalKafka) -> Iterator[qf.LocalKafka]:
    """A broker to be frozen and killed: each test gets it running."""
    if not faulty_kafka.running:
        faulty_kafka.restart()
    yield faulty_kafka
    if faulty_kafka.running:
        faulty_kafka.resume()


@pytest.fixture(scope="session")
def guarded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[qf.LocalKafka]:
    """A broker that keeps permissions: everything is allowed that ``forbid`` does not forbid."""
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with qf.LocalKafka(tmp_path_factory.mktemp("guarded"), keep=False, settings=settings) as kafka:
        yield kafka


@pytest.fixture(scope="session")
def session_client(broker_address: str) -> Iterator[qf.StreamingClient]:
    """A client for making topics and looking at them."""
    with qf.StreamingClient(broker_address) as client:
        yield client


@pytest.fixture
def client(broker_address: str) -> Iterator[qf.StreamingClient]:
    """A client of the test's own, closed at its end."""
    with qf.StreamingClient(broker_address) as client:
        yield client


@pytest.fixture
def make_topic(session_client: qf.StreamingClient, request: pytest.FixtureRequest) -> Iterator[MakeTopic]:
    """Makes topics of names that nobody else has, and removes them at the test's end."""
    made: list[str] = []
    count = itertools.count()

    def make(partitions: int = 1, **settings: object) -> str:
        name = f"t{next(count)}-{uuid.uuid4().hex[:12]}"
        session_client.topics.create(name, partitions=partitions, **settings)  # type: ignore[arg-type]
        made.append(name)
        return name

    yield make
    for name in made:
        if session_client.topics.exists(name):
            session_client.topics.delete(name)


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    """A fresh topic of one partition."""
    return make_topic()


@pytest.fixture
def group() -> str:
    """A group that has never committed."""
    return f"g-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make_frame() -> Callable[..., pd.DataFrame]:
    """Frames of random floats and a running number, with rising times."""

    def make(rows: int, columns: int = 3, *, start: int = 0) -> pd.DataFrame:
        random = np.random.default_rng(start)
        times = pd.to_datetime(np.arange(start, start + rows) * 1_000_000, unit="ns", utc=True)
        data: dict[str, object] = {f"p{i}": random.standard_normal(rows) for i in range(columns)}
        data["n"] = np.arange(start, start + rows)
        return pd.DataFrame(data, index=pd.DatetimeIndex(times, name="time", dtype="datetime64[ns, UTC]"))

    return make
