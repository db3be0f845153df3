"""What is in ``docker/``: a file that Docker can read, and a broker that quixframes can use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest

import quixframes as qf
from quixframes.local import KAFKA_VERSION
from tests.docs.snippets import ROOT

COMPOSE = ROOT / "docker" / "compose.yaml"
IMAGE = f"apache/kafka:{KAFKA_VERSION}"


@pytest.fixture
def broker() -> dict[str, Any]:
    """The one service of the compose file."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed, so the compose file cannot be read")
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    (service,) = services.values()
    return service


def test_the_compose_file_has_the_version_that_everything_else_has(broker: dict[str, Any]) -> None:
    assert broker["image"] == IMAGE


def test_the_broker_is_reached_from_this_machine_only(broker: dict[str, Any]) -> None:
    (port,) = broker["ports"]
    assert port.startswith("127.0.0.1:")
    assert port.endswith(":9092")


def test_the_broker_says_the_address_that_is_published(broker: dict[str, Any]) -> None:
    """A client is told by the broker where to come back to: it has to be an address that leads there."""
    (port,) = broker["ports"]
    advertised = dict(part.split("://") for part in broker["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(","))
    published = re.fullmatch(r"127\.0\.0\.1:(.+):9092", port)
    assert published is not None
    assert advertised["HOST"] == f"localhost:{published[1]}"
    listeners = dict(part.split("://") for part in broker["environment"]["KAFKA_LISTENERS"].split(","))
    assert listeners["HOST"] == ":9092"


def test_every_setting_is_text(broker: dict[str, Any]) -> None:
    """YAML makes a boolean of false, which Compose refuses."""
    assert {type(value) for value in broker["environment"].values()} == {str}


def test_the_broker_is_asked_whether_it_is_well(broker: dict[str, Any]) -> None:
    assert "kafka-topics.sh" in " ".join(broker["healthcheck"]["test"])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A broker from testcontainers."""
    docker = pytest.importorskip("docker", reason="Docker's Python client is not installed")
    containers = pytest.importorskip("testcontainers.kafka", reason="testcontainers is not installed")
    try:
        docker.from_env().ping()
    except Exception as exc:
        pytest.skip(f"no Docker engine answers ({type(exc).__name__})")
    with containers.KafkaContainer().with_kraft() as container:
        yield container.get_bootstrap_server()


def test_a_frame_goes_through_a_broker_in_docker(
    address: str, make_frame: Callable[[int], pd.DataFrame], group: str
) -> None:
    frame = make_frame(1_000)
    with qf.StreamingClient(address) as client:
        client.topics.create(group)
        with client.open_output_topic(group) as topic:
            topic.write(frame, stream="s")
        with client.open_input_topic(group, group) as topic:
            read = pd.concat(batch.frame for batch in topic.batches(until="now"))
    pd.testing.assert_frame_equal(read, frame, check_exact=True)
