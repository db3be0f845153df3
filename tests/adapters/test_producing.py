"""The producer: what every adapter does."""

from __future__ import annotations

import threading
import time

import pytest
from kafka import KafkaConsumer
from kafka.admin import ACLOperation, ResourceType

from quixframes.errors import (
    AccessDeniedError,
    BrokerError,
    BrokerUnavailableError,
    ClosedError,
    MessageTooLargeError,
    TopicNotFoundError,
)
from quixframes.kafka import Admin, Outgoing, Transport
from quixframes.local import LocalKafka
from quixframes.settings import Connection, WriterSettings
from tests.adapters.helpers import (
    SHORT,
    Outcomes,
    administering,
    client_threads,
    forbid,
    message,
    new_topic,
    producing,
    read_all,
    values,
    wait_until,
)


def test_messages_of_a_key_arrive_once_and_in_order(transport: Transport, connection: Connection, topic: str) -> None:
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
        for number in range(3_000):
            producer.send(message(topic, b"%d" % number, b"key-%d" % (number % 7)), outcomes.of(number))
        assert producer.flush(10)
        assert outcomes.errors == []
    found = read_all(transport, connection, topic)
    for key in range(7):
        numbers = [int(value) for name, value in found if name == b"key-%d" % key]
        assert numbers == list(range(key, 3_000, 7))


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_go_to_the_partition_where_javas_client_puts_them(
    transport: Transport, connection: Connection, admin: Admin, key: bytes, hashed: int
) -> None:
    topic = new_topic(admin, partitions=7)
    with producing(transport, connection) as producer:
        producer.send(message(topic, key=key), Outcomes().of(0))
    written = [number for number, end in admin.ends(topic).items() if end]
    assert written == [(hashed & 0x7FFFFFFF) % 7]


def test_several_threads_write_through_one_producer(transport: Transport, connection: Connection, topic: str) -> None:
    outcomes = Outcomes()
    with producing(transport, connection) as producer:

        def write(thread: int) -> None:
            for number in range(500):
                producer.send(message(topic, b"%d" % number, b"thread-%d" % thread), outcomes.of((thread, number)))

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert producer.flush(10)
    assert outcomes.errors == []
    found = read_all(transport, connection, topic)
    for thread_number in range(4):
        mine = [int(value) for key, value in found if key == b"thread-%d" % thread_number]
        assert mine == list(range(500))


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip"])
def test_compressed_messages_are_read_as_they_were_written(
    transport: Transport, connection: Connection, topic: str, compression: str
) -> None:
    with producing(transport, connection, WriterSettings(compression=compression)) as producer:
        for number in range(100):
            producer.send(message(topic, b"same " * 100 + b"%d" % number), Outcomes().of(number))
    assert values(transport, connection, topic) == [b"same " * 100 + b"%d" % number for number in range(100)]


def test_kafkas_time_of_a_message_is_the_wall_clock(
    transport: Transport, connection: Connection, topic: str, admin: Admin
) -> None:
    before = int(time.time() * 1000)
    with producing(transport, connection) as producer:
        producer.send(message(topic), Outcomes().of(0))
    assert sum(admin.ends(topic).values()) == 1
    assert admin.offsets_at(topic, before) == dict.fromkeys(range(3), 0)
    assert admin.offsets_at(topic, int(time.time() * 1000) + 1) == admin.ends(topic)


def test_small_messages_are_sent_in_smaller_batches_where_the_topic_takes_no_larger_ones(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    topic = new_topic(admin, partitions=1, max_message_bytes="20000")
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
        for number in range(1_000):
            producer.send(message(topic, b"%06d" % number + bytes(1_000)), outcomes.of(number))
        assert producer.flush(20)
    assert outcomes.errors == []
    assert [int(value[:6]) for value in values(transport, connection, topic)] == list(range(1_000))


def test_a_message_over_the_topics_limit_fails_alone(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    small, other = new_topic(admin, partitions=1, max_message_bytes="20000"), new_topic(admin)
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
        for number in range(300):
            producer.send(message(small, b"%d" % number), outcomes.of(("small", number)))
            producer.send(message(other, b"%d" % number), outcomes.of(("other", number)))
            if number % 100 == 50:
                producer.send(message(small, bytes(30_000)), outcomes.of(("large", number)))
        assert producer.flush(10)
        assert [type(error) for error in outcomes.errors] == [MessageTooLargeError] * 3
        assert all(outcomes.told["large", number] != [None] for number in (50, 150, 250))
    assert [int(value) for value in values(transport, connection, small)] == list(range(300))
    assert [int(value) for value in values(transport, connection, other)] == list(range(300))


def test_a_forbidden_topic_stops_no_other(transport: Transport, guarded_kafka: LocalKafka) -> None:
    address = guarded_kafka.address
    with administering(transport, Connection.of(address)) as admin:
        secret, other = new_topic(admin), new_topic(admin)
    forbid(address, ResourceType.TOPIC, secret, ACLOperation.WRITE)
    outcomes = Outcomes()
    with producing(transport, Connection.of(address)) as producer:
        for number in range(200):
            producer.send(message(other, b"%d" % number), outcomes.of(("other", number)))
            producer.send(message(secret), outcomes.of(("secret", number)))
        assert producer.flush(10)
    assert {type(error) for error in outcomes.errors} == {AccessDeniedError}
    assert len(outcomes.errors) == 200
    assert [int(value) for value in values(transport, Connection.of(address), other)] == list(range(200))


def test_a_topic_that_may_not_be_known_fails_as_denied_or_not_found(
    transport: Transport, guarded_kafka: LocalKafka
) -> None:
    address = guarded_kafka.address
    with administering(transport, Connection.of(address)) as admin:
        hidden = new_topic(admin)
    forbid(address, ResourceType.TOPIC, hidden, ACLOperation.ALL)
    outcomes = Outcomes()
    with producing(transport, Connection.of(address)) as producer:
        producer.send(message(hidden), outcomes.of(0))
        assert producer.flush(5)
    assert [type(error) for error in outcomes.errors] in ([AccessDeniedError], [TopicNotFoundError])


def test_a_topic_that_does_not_exist_fails_within_seconds_and_is_not_made(
    transport: Transport, connection: Connection, admin: Admin, topic: str
) -> None:
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
        start = time.monotonic()
        producer.send(message("no-such-topic"), outcomes.of("missing"))
        producer.send(message(topic), outcomes.of("there"))
        assert time.monotonic() - start < 0.5  # send does not wait
        assert producer.flush(5)
    assert outcomes.told["there"] == [None]
    (error,) = outcomes.errors
    assert isinstance(error, TopicNotFoundError)
    assert error.topic == "no-such-topic"
    assert "no-such-topic" not in admin.topics()


def test_a_topic_that_is_deleted_while_it_is_written_fails_and_can_come_back(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    topic = new_topic(admin, partitions=4)
    first, second, third = Outcomes(), Outcomes(), Outcomes()
    with producing(transport, connection) as producer:
        producer.send(message(topic), first.of(0))
        assert producer.flush(5)
        admin.delete(topic)
        producer.send(message(topic), second.of(0))
        assert producer.flush(10)
        admin.create(topic, partitions=1, replication=1, settings={})
        producer.send(message(topic, b"again"), third.of(0))
        assert producer.flush(10)
    assert [type(error) for error in second.errors] == [TopicNotFoundError]
    assert first.errors == third.errors == []
    assert values(transport, connection, topic) == [b"again"]


def test_a_message_that_cannot_be_encoded_fails_alone(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
        for number in range(10):
            headers = [("\ud800", b"a name without UTF-8")] if number in (0, 5) else []
            producer.send(Outgoing(topic, b"key", b"%d" % number, headers), outcomes.of(number))
        assert producer.flush(5)
        for number in range(10, 20):
            producer.send(message(topic, b"%d" % number), outcomes.of(number))
    assert [type(error) for error in outcomes.errors] == [BrokerError] * 2
    assert outcomes.told[0] != [None] != outcomes.told[5]
    assert values(transport, connection, topic) == [b"%d" % number for number in range(20) if number not in (0, 5)]


def test_after_an_outage_longer_than_the_delivery_timeout_the_same_producer_goes_on(
    transport: Transport, own_kafka: LocalKafka
) -> None:
    connection = Connection.of(own_kafka.address)
    with administering(transport, Connection.of(own_kafka.address)) as admin:
        topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(transport, connection, SHORT) as producer:
        producer.send(message(topic, b"before"), outcomes.of("before"))
        assert producer.flush(5)

        own_kafka.pause()  # what is sent now gets on its way, and no further
        sent = time.monotonic()
        for number in range(20):
            producer.send(message(topic, b"lost %d" % number), outcomes.of(number))
            time.sleep(0.05)
        own_kafka.kill()
        assert outcomes.wait(10)
        assert max(outcomes.at.values()) - sent < 1 + 3 + 2
        assert [type(error) for error in outcomes.errors] == [BrokerUnavailableError] * 20
        assert "within 3 s" in str(outcomes.errors[0])

        own_kafka.restart()
        start = time.monotonic()
        for number in range(20):
            producer.send(message(topic, b"after %d" % number), outcomes.of(("after", number)))
        assert producer.flush(3)
        assert time.monotonic() - start < 2
        assert len(outcomes.errors) == 20
    found = values(transport, connection, topic)
    assert found[0] == b"before"
    assert found[-20:] == [b"after %d" % number for number in range(20)]
    assert len(found) == len(set(found))


def test_a_killed_broker_costs_no_message_and_no_order_within_the_delivery_timeout(
    transport: Transport, own_kafka: LocalKafka
) -> None:
    connection = Connection.of(own_kafka.address)
    with administering(transport, Connection.of(own_kafka.address)) as admin:
        topic = new_topic(admin, partitions=2)
    outcomes = Outcomes()
    stop = threading.Event()
    with producing(transport, connection) as producer:

        def write() -> None:
            number = 0
            while not stop.is_set():
                for key in (b"left", b"right"):
                    producer.send(message(topic, b"%d" % number, key), outcomes.of((key, number)))
                number += 1
                time.sleep(0.002)

        thread = threading.Thread(target=write)
        thread.start()
        time.sleep(0.5)
        own_kafka.kill()
        own_kafka.restart()
        time.sleep(0.5)
        stop.set()
        thread.join()
        assert producer.flush(20)
    assert outcomes.errors == []
    found = read_all(transport, connection, topic)
    for key in (b"left", b"right"):
        numbers = [int(value) for name, value in found if name == key]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) == len(outcomes.told) // 2


@pytest.mark.faults
def test_a_frozen_broker_gets_everything_once_and_in_order_when_it_goes_on(
    transport: Transport, own_kafka: LocalKafka
) -> None:
    connection = Connection.of(own_kafka.address)
    with administering(transport, Connection.of(own_kafka.address)) as admin:
        topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
        producer.send(message(topic, b"0"), outcomes.of(0))
        assert producer.flush(5)
        own_kafka.pause()
        for number in range(1, 2_000):
            producer.send(message(topic, b"%d" % number), outcomes.of(number))
            time.sleep(0.01)
        own_kafka.resume()
        assert producer.flush(40)
    assert outcomes.errors == []
    assert [int(value) for value in values(transport, connection, topic)] == list(range(2_000))


@pytest.mark.parametrize("state", ["idle", "frozen", "dead"])
def test_closing_ends_in_time_and_leaves_nothing_behind(
    transport: Transport, own_kafka: LocalKafka, state: str
) -> None:
    before = client_threads()
    connection = Connection.of(own_kafka.address)
    with administering(transport, Connection.of(own_kafka.address)) as admin:
        topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    producer = transport.producer(connection, WriterSettings())
    producer.send(message(topic), outcomes.of("first"))
    assert producer.flush(5)
    if state == "frozen":
        own_kafka.pause()
    elif state == "dead":
        own_kafka.kill()
    for number in range(100):
        producer.send(message(topic), outcomes.of(number))
    start = time.monotonic()
    producer.close(2)
    assert time.monotonic() - start < 2.3
    expected = [] if state == "idle" else [ClosedError] * 100
    assert [type(error) for error in outcomes.errors] == expected
    wait_until(lambda: client_threads() <= before, 1)
    with pytest.raises(ClosedError):
        producer.send(message(topic), outcomes.of("late"))
    producer.close(1)


def test_a_message_that_no_broker_could_carry_fails_at_once(
    transport: Transport, connection: Connection, topic: str
) -> None:
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
        producer.send(Outgoing(topic, b"key", bytes(91 * 1024 * 1024), []), outcomes.of(0))
    assert [type(error) for error in outcomes.errors] == [MessageTooLargeError]


def test_messages_without_a_key_a_value_or_a_header_s_value_arrive_as_they_are(
    transport: Transport, connection: Connection, topic: str
) -> None:
    """What others write may lack any of them; those without a key take turns at the partitions."""
    producer = transport.producer(connection, WriterSettings())
    outcomes = Outcomes()
    headers = [("none", None), ("twice", b"1"), ("twice", b""), ("none", b"2")]
    producer.send(Outgoing(topic, b"key", None, headers, partition=1), outcomes.of("by number"))
    for n in range(6):
        producer.send(Outgoing(topic, None, b"%d" % n, []), outcomes.of(n))
    assert outcomes.wait(20)
    producer.close(5)
    assert outcomes.errors == []
    consumer = KafkaConsumer(topic, bootstrap_servers=connection.brokers, auto_offset_reset="earliest")
    found = []
    while len(found) < 7:
        found += [record for records in consumer.poll(timeout_ms=500).values() for record in records]
    consumer.close()
    (one,) = [record for record in found if record.key is not None]
    assert (one.partition, one.key, one.value, list(one.headers)) == (1, b"key", None, headers)
    assert sorted(record.partition for record in found if record.key is None) == [0, 0, 1, 1, 2, 2]


def test_a_message_goes_to_a_partition_that_the_topic_has_come_to_have_and_keys_stay_where_they_were(
    transport: Transport, connection: Connection
) -> None:
    outcomes = Outcomes()
    keys = [b"key-%d" % number for number in range(20)]
    with administering(transport, connection) as admin, producing(transport, connection) as producer:
        topic = new_topic(admin, partitions=2)
        for key in keys:
            producer.send(message(topic, b"before", key), outcomes.of(("before", key)))
        assert outcomes.wait(20)
        admin.add_partitions(topic, 5)
        producer.send(message(topic, b"there")._replace(partition=4), outcomes.of("there"))
        for key in keys:
            producer.send(message(topic, b"after", key), outcomes.of(("after", key)))
        producer.send(message(topic, b"nowhere")._replace(partition=5), outcomes.of("nowhere"))
        assert outcomes.wait(30)
    assert [type(error) for error in outcomes.errors] == [TopicNotFoundError]
    consumer = KafkaConsumer(topic, bootstrap_servers=connection.brokers, auto_offset_reset="earliest")
    places: dict[bytes, set[int]] = {}
    count = 0
    while count < 41:
        for record in (record for records in consumer.poll(timeout_ms=500).values() for record in records):
            count += 1
            places.setdefault(record.value if record.value == b"there" else record.key, set()).add(record.partition)
    consumer.close()
    assert places.pop(b"there") == {4}
    assert all(len(found) == 1 and max(found) < 2 for found in places.values())
