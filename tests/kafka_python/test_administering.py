"""The admin client."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable

import kafka.errors as theirs
import pytest
from adapter_helpers import Outcomes, forbid, message, new_topic
from kafka.admin import ACLOperation, ResourceType

from quixframes.client import StreamingClient
from quixframes.errors import AccessDeniedError, BrokerError, BrokerUnavailableError, TopicNotFoundError
from quixframes.kafka import TopicDescription
from quixframes.kafka_python import KafkaPython
from quixframes.kafka_python.admin import PythonAdmin
from quixframes.local import LocalKafka
from quixframes.settings import Connection, WriterSettings


def test_a_topic_is_described_as_it_was_made(admin: PythonAdmin) -> None:
    name = f"topic-{uuid.uuid4().hex[:8]}"
    admin.create(name, partitions=5, replication=1, settings={"max.message.bytes": "54321"})
    found = admin.describe(name)
    assert found == TopicDescription(
        name, partitions=5, replication=1, message_limit=54321, id=found.id, compacted=False
    )
    assert name in admin.topics()
    assert not any(topic.startswith("__consumer") for topic in admin.topics())
    admin.delete(name)
    assert name not in admin.topics()


@pytest.mark.parametrize(("policy", "compacted"), [("compact", True), ("delete", False), ("compact,delete", False)])
def test_a_description_says_whether_the_last_message_of_a_key_stays(
    admin: PythonAdmin, policy: str, compacted: bool
) -> None:
    assert admin.describe(new_topic(admin, cleanup_policy=policy)).compacted is compacted


def test_a_topic_that_is_made_anew_has_another_id(admin: PythonAdmin) -> None:
    name = new_topic(admin)
    first = admin.describe(name).id
    assert admin.describe(name).id == first != ""
    admin.delete(name)
    admin.create(name, partitions=3, replication=1, settings={})
    assert admin.describe(name).id not in (first, "")


def test_a_new_topic_can_be_written_to_at_once(admin: PythonAdmin, connection: Connection) -> None:
    producer = KafkaPython().producer(connection, WriterSettings())
    try:
        for _ in range(5):
            outcomes = Outcomes()
            topic = new_topic(admin, partitions=8)
            start = time.monotonic()
            for number in range(50):
                producer.send(message(topic, key=b"%d" % number), outcomes.of(number))
            assert producer.flush(5)
            assert time.monotonic() - start < 1
            assert outcomes.errors == []
            assert sum(admin.ends(topic).values()) == 50
    finally:
        producer.close(5)


@pytest.mark.parametrize(
    "look",
    [PythonAdmin.describe, PythonAdmin.delete, PythonAdmin.beginnings, PythonAdmin.ends],
    ids=["describe", "delete", "beginnings", "ends"],
)
def test_a_topic_that_does_not_exist_is_not_found(
    admin: PythonAdmin, look: Callable[[PythonAdmin, str], object]
) -> None:
    start = time.monotonic()
    with pytest.raises(TopicNotFoundError, match="no-such-topic") as raised:
        look(admin, "no-such-topic")
    assert raised.value.topic == "no-such-topic"
    assert time.monotonic() - start < 1
    assert "no-such-topic" not in admin.topics()


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("fine", {"replication": 3}, "fewer brokers"),
        ("fine", {"partitions": 0}, "partitions"),
        ("fine", {"settings": {"no.such.setting": "1"}}, r"Unknown topic config name: no\.such\.setting\)$"),
        ("bad name!", {}, "name"),
    ],
)
def test_a_topic_that_cannot_be_says_why(admin: PythonAdmin, name: str, options: dict[str, object], text: str) -> None:
    with pytest.raises(BrokerError, match=text):
        admin.create(name, **{"partitions": 1, "replication": 1, "settings": {}, **options})  # type: ignore[arg-type]


def test_a_topic_is_not_made_twice(admin: PythonAdmin, topic: str) -> None:
    with pytest.raises(BrokerError, match="exists already"):
        admin.create(topic, partitions=1, replication=1, settings={})


def test_a_try_that_was_heard_without_an_answer_does_not_fail_the_next(
    admin: PythonAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"topic-{uuid.uuid4().hex[:8]}"

    def losing_the_first_answer(call: Callable[..., object]) -> Callable[..., object]:
        lost: list[object] = []

        def lossy(*args: object, **options: object) -> object:
            answer = call(*args, **options)
            if not lost:
                lost.append(answer)
                raise theirs.RequestTimedOutError
            return answer

        return lossy

    bare = admin._client
    with monkeypatch.context() as patch:
        patch.setattr(bare, "create_topics", losing_the_first_answer(bare.create_topics))
        admin.create(name, partitions=2, replication=1, settings={})
        patch.setattr(bare, "delete_topics", losing_the_first_answer(bare.delete_topics))
        admin.delete(name)
    assert name not in admin.topics()
    other = new_topic(admin, partitions=3)
    with monkeypatch.context() as patch:
        patch.setattr(bare, "create_topics", losing_the_first_answer(bare.create_topics))
        with pytest.raises(BrokerError, match="exists already"):
            admin.create(other, partitions=2, replication=1, settings={})  # somebody else's


def test_offsets_are_found_by_time(admin: PythonAdmin, connection: Connection) -> None:
    topic = new_topic(admin, partitions=1)
    times = []
    producer = KafkaPython().producer(connection, WriterSettings())
    for _ in range(3):
        times.append(int(time.time() * 1000))
        producer.send(message(topic), Outcomes().of(0))
        producer.flush(5)
        time.sleep(0.02)
    producer.close(5)
    assert [admin.offsets_at(topic, moment)[0] for moment in times] == [0, 1, 2]
    assert admin.offsets_at(topic, times[-1] + 60_000) == {0: 3}
    assert admin.beginnings(topic) == {0: 0}
    assert admin.ends(topic) == admin.ends(topic, committed_only=False) == {0: 3}


def test_what_is_forbidden_is_denied(guarded_kafka: LocalKafka) -> None:
    admin = KafkaPython().admin(Connection.of(guarded_kafka.address))
    hidden, closed = new_topic(admin), new_topic(admin, max_message_bytes="2000")
    forbid(guarded_kafka.address, ResourceType.TOPIC, hidden, ACLOperation.DESCRIBE)
    forbid(guarded_kafka.address, ResourceType.TOPIC, closed, ACLOperation.DESCRIBE_CONFIGS)
    with pytest.raises(AccessDeniedError, match=hidden):
        admin.describe(hidden)
    with pytest.raises(AccessDeniedError, match=hidden):
        admin.ends(hidden)
    assert admin.describe(closed).message_limit == 1_048_588  # Kafka's default: ours may not be seen
    assert admin.describe(closed).compacted is None
    admin.close(5)


@pytest.mark.parametrize("operation", [ACLOperation.READ, ACLOperation.DESCRIBE])
def test_contracts_that_may_not_be_read_are_not_applied_and_not_set(
    guarded_kafka: LocalKafka,
    operation: ACLOperation,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One may look at a topic of contracts and yet not read it."""
    name = f"__contracts-{uuid.uuid4().hex[:8]}"
    monkeypatch.setattr("quixframes.contract_store.CONTRACTS", name)
    with StreamingClient(guarded_kafka.address) as before:
        topic = before.topics.create(f"topic-{uuid.uuid4().hex[:8]}", contract={"n": "int64"}).name
        forbid(guarded_kafka.address, ResourceType.TOPIC, name, operation)
    with StreamingClient(guarded_kafka.address) as client:
        with caplog.at_level(logging.WARNING), client.open_output_topic(topic) as opened:
            assert opened.contract is None
        assert "none is applied" in caplog.text
        with pytest.raises(AccessDeniedError, match=name):
            client.topics.set_contract(topic, {"n": "str"})


@pytest.mark.parametrize("fault", ["frozen", pytest.param("killed", marks=pytest.mark.faults)])
def test_a_broker_that_went_away_is_unavailable_and_closing_ends_in_time(own_kafka: LocalKafka, fault: str) -> None:
    admin = KafkaPython().admin(Connection(brokers=(own_kafka.address,), connect_timeout="1s"))
    admin.topics()
    own_kafka.kill() if fault == "killed" else own_kafka.pause()
    start = time.monotonic()
    with pytest.raises(BrokerUnavailableError):
        admin.describe("topic")
    assert time.monotonic() - start < 3
    start = time.monotonic()
    admin.close(2)
    assert time.monotonic() - start < 2.2
