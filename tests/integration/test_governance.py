"""What is said about topics, the rule for names, and the pipeline that they make: on a real Kafka."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

import quixframes as qf
from quixframes.errors import SettingsError, TopicNotFoundError
from tests.conftest import MakeTopic


@pytest.fixture
def own_contracts(client: qf.StreamingClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A topic of contracts of the test's own, for clients made from here on, since a rule for names is everybody's."""
    name = f"__quixframes.test-{uuid.uuid4().hex[:12]}"
    monkeypatch.setattr("quixframes.contract_store.CONTRACTS", name)
    yield name
    if client.topics.exists(name):
        client.topics.delete(name)


def test_what_is_said_about_a_topic_is_kept_in_kafka_for_every_client(broker_address: str, topic: str) -> None:
    with qf.StreamingClient(broker_address) as client:
        assert client.topics.about(topic) == qf.TopicAbout()
        client.topics.set_about(topic, stage="clean", owner="Ada", made_from=["engine"], model="cleaner")
        client.topics.set_contract(topic, {"speed": "float64"})
        client.topics.set_about(topic, description="Speeds, without outliers", owner="")
    with qf.StreamingClient(broker_address) as client:
        assert client.topics.about(topic) == qf.TopicAbout(
            "clean", None, "Speeds, without outliers", ("engine",), "cleaner"
        )
        assert list(client.topics.contract(topic).parameters) == ["speed"]
        client.topics.remove_contract(topic)
        assert client.topics.about(topic).stage == "clean"


def test_what_was_said_about_a_topic_goes_with_it(client: qf.StreamingClient, topic: str) -> None:
    client.topics.set_about(topic, stage="raw")
    client.topics.delete(topic)
    assert client.topics.about(topic) == qf.TopicAbout()
    with pytest.raises(TopicNotFoundError, match=topic):
        client.topics.set_about(topic, stage="raw")
    client.topics.create(topic)
    assert client.topics.about(topic) == qf.TopicAbout()


def test_a_rule_for_names_holds_for_every_client_that_creates_a_topic(
    broker_address: str, own_contracts: str, make_topic: MakeTopic
) -> None:
    with qf.StreamingClient(broker_address) as one, qf.StreamingClient(broker_address) as other:
        assert other.topics.naming() is None
        one.topics.set_naming(r"(raw|clean)-.+", "say the stage first, as in raw-engine")
        name = uuid.uuid4().hex
        with pytest.raises(SettingsError, match=rf"'{name}' is no name for a topic here: say the stage first"):
            other.topics.create(name)
        assert not one.topics.exists(name)
        other.topics.create(f"raw-{name}")
        other.topics.delete(f"raw-{name}")
        one.topics.set_naming(None)
        other.topics.create(name)
        other.topics.delete(name)
