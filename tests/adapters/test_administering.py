"""The admin client: what every adapter does."""

from __future__ import annotations

import time
import uuid

import pytest
from kafka.admin import ACLOperation, ResourceType

from quixframes.errors import AccessDeniedError, BrokerError, BrokerUnavailableError, TopicNotFoundError
from quixframes.kafka import Admin, Offset, Partition, TopicDescription, Transport
from quixframes.kafka_python import KafkaPython
from quixframes.local import LocalKafka
from quixframes.settings import Connection, WriterSettings
from tests.adapters.helpers import (
    Member,
    Outcomes,
    consuming,
    forbid,
    message,
    new_group,
    new_topic,
    nothing,
    producing,
    wait_until,
    write,
)


def test_a_topic_is_described_as_it_was_made(admin: Admin) -> None:
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
def test_a_description_says_whether_the_last_message_of_a_key_stays(admin: Admin, policy: str, compacted: bool) -> None:
    assert admin.describe(new_topic(admin, cleanup_policy=policy)).compacted is compacted


def test_a_topic_that_is_made_anew_has_another_id(admin: Admin) -> None:
    name = new_topic(admin)
    first = admin.describe(name).id
    assert admin.describe(name).id == first != ""
    admin.delete(name)
    admin.create(name, partitions=3, replication=1, settings={})
    assert admin.describe(name).id not in (first, "")


def test_a_new_topic_can_be_written_to_at_once(transport: Transport, admin: Admin, connection: Connection) -> None:
    producer = transport.producer(connection, WriterSettings())
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


@pytest.mark.parametrize("look", ["describe", "details", "delete", "beginnings", "ends", "groups"])
def test_a_topic_that_does_not_exist_is_not_found(admin: Admin, look: str) -> None:
    start = time.monotonic()
    with pytest.raises(TopicNotFoundError, match="no-such-topic") as raised:
        getattr(admin, look)("no-such-topic")
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
def test_a_topic_that_cannot_be_says_why(admin: Admin, name: str, options: dict[str, object], text: str) -> None:
    with pytest.raises(BrokerError, match=text):
        admin.create(name, **{"partitions": 1, "replication": 1, "settings": {}, **options})  # type: ignore[arg-type]


def test_a_topic_is_not_made_twice(admin: Admin, topic: str) -> None:
    with pytest.raises(BrokerError, match="exists already"):
        admin.create(topic, partitions=1, replication=1, settings={})


def test_a_topic_is_given_more_partitions_which_can_be_written_to_at_once(
    transport: Transport, admin: Admin, topic: str, connection: Connection
) -> None:
    admin.add_partitions(topic, 8)
    assert admin.describe(topic).partitions == 8
    with producing(transport, connection) as producer:
        outcomes = Outcomes()
        for number in range(8):
            producer.send(message(topic)._replace(partition=number), outcomes.of(number))
        assert producer.flush(20)
    assert outcomes.errors == []
    assert admin.ends(topic) == dict.fromkeys(range(8), 1)


@pytest.mark.parametrize("to", [3, 2, 0])
def test_partitions_only_grow(admin: Admin, topic: str, to: int) -> None:
    with pytest.raises(BrokerError, match=f"{topic}' cannot be given {to} partitions: "):
        admin.add_partitions(topic, to)
    assert admin.describe(topic).partitions == 3


def test_a_topic_that_does_not_exist_cannot_grow(admin: Admin) -> None:
    with pytest.raises(TopicNotFoundError, match="no-such-topic"):
        admin.add_partitions("no-such-topic", 3)


def test_a_topics_details_are_its_partitions_and_its_own_and_inherited_settings(
    transport: Transport, admin: Admin, connection: Connection
) -> None:
    topic = new_topic(admin, partitions=2, retention_ms="600000")
    write(transport, connection, topic, 20)
    found = admin.details(topic)
    assert (found.name, found.id) == (topic, admin.describe(topic).id)
    assert [part.number for part in found.partitions] == [0, 1]
    assert {(part.leader, part.replicas, part.in_sync) for part in found.partitions} == {(1, (1,), (1,))}
    assert found.own == {"retention.ms"}
    assert (found.settings["retention.ms"], found.settings["max.message.bytes"]) == ("600000", "1048588")
    assert admin.brokers() == [1]
    for part in found.partitions:
        told = part.size is not None and part.size > 0 and part.stored == part.size
        assert told if isinstance(transport, KafkaPython) else (part.size, part.stored) == (None, None)


def test_a_setting_is_changed_and_the_others_stay(admin: Admin) -> None:
    topic = new_topic(admin, retention_ms="600000", max_message_bytes="54321")
    admin.alter(topic, {"retention.bytes": "1000000", "retention.ms": "700000"})
    wait_until(lambda: admin.details(topic).own == {"retention.ms", "retention.bytes", "max.message.bytes"})
    admin.alter(topic, {"retention.ms": None})
    wait_until(lambda: admin.details(topic).own == {"retention.bytes", "max.message.bytes"})
    settings = admin.details(topic).settings
    assert (settings["retention.ms"], settings["max.message.bytes"]) == ("604800000", "54321")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("no.such.setting", "1", r"Unknown topic config name: no\.such\.setting"), ("retention.ms", "soon", "soon")],
)
def test_a_change_that_cannot_be_says_why(admin: Admin, topic: str, name: str, value: str, text: str) -> None:
    with pytest.raises(BrokerError, match=text):
        admin.alter(topic, {"retention.bytes": "1000000", name: value})
    assert admin.details(topic).own == frozenset()
    with pytest.raises(TopicNotFoundError, match="no-such-topic"):
        admin.alter("no-such-topic", {"retention.ms": "1"})


def test_the_groups_of_a_topic_are_those_that_have_committed_of_it(
    transport: Transport, admin: Admin, topic: str, connection: Connection
) -> None:
    write(transport, connection, topic, 30)
    other = new_topic(admin)
    groups = sorted(new_group() for _ in range(3))
    for group, name in zip(groups, (topic, topic, other), strict=True):
        with consuming(transport, connection, group) as consumer:
            consumer.subscribe([name], nothing)
            member = Member(consumer)
            member.poll_until(lambda member=member: len(member.owned) == 3)  # type: ignore[misc]
            consumer.commit({Partition(name, 1): Offset(1 if name == topic else 0)})
    assert admin.groups(topic) == {group: {1: 1} for group in groups[:2]}
    assert admin.groups(other) == {groups[2]: {1: 0}}
    with pytest.raises(TopicNotFoundError, match="no-such-topic"):
        admin.groups("no-such-topic")


def test_offsets_are_found_by_time(transport: Transport, admin: Admin, connection: Connection) -> None:
    topic = new_topic(admin, partitions=1)
    times = []
    producer = transport.producer(connection, WriterSettings())
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


def test_what_is_forbidden_is_denied(transport: Transport, guarded_kafka: LocalKafka) -> None:
    admin = transport.admin(Connection.of(guarded_kafka.address))
    hidden, closed = new_topic(admin), new_topic(admin, max_message_bytes="2000")
    forbid(guarded_kafka.address, ResourceType.TOPIC, hidden, ACLOperation.DESCRIBE)
    forbid(guarded_kafka.address, ResourceType.TOPIC, closed, ACLOperation.DESCRIBE_CONFIGS)
    with pytest.raises(AccessDeniedError, match=hidden):
        admin.describe(hidden)
    with pytest.raises(AccessDeniedError, match=hidden):
        admin.ends(hidden)
    assert admin.describe(closed).message_limit == 1_048_588  # Kafka's default: ours may not be seen
    assert admin.describe(closed).compacted is None
    assert (admin.details(closed).settings, admin.details(closed).own) == ({}, frozenset())
    admin.close(5)


@pytest.mark.parametrize("fault", ["frozen", pytest.param("killed", marks=pytest.mark.faults)])
def test_a_broker_that_went_away_is_unavailable_and_closing_ends_in_time(
    transport: Transport, own_kafka: LocalKafka, fault: str
) -> None:
    admin = transport.admin(Connection(brokers=(own_kafka.address,), connect_timeout="1s"))
    admin.topics()
    own_kafka.kill() if fault == "killed" else own_kafka.pause()
    start = time.monotonic()
    with pytest.raises(BrokerUnavailableError):
        admin.describe("topic")
    assert time.monotonic() - start < 3
    start = time.monotonic()
    admin.close(2)
    assert time.monotonic() - start < 2.2
