"""The producer: what it promises, beside what kafka-python's own does in the same place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kafka.errors as theirs
import pytest
from adapter_helpers import Outcomes, client_threads, forbid, message, new_topic, read_all, wait_until
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ACLOperation, ResourceType
from kafka.partitioner.default import murmur2

from quixframes.errors import (
    AccessDeniedError,
    BrokerError,
    BrokerUnavailableError,
    ClosedError,
    MessageTooLargeError,
    TopicNotFoundError,
)
from quixframes.kafka import Outgoing
from quixframes.kafka_python import KafkaPython
from quixframes.kafka_python.admin import PythonAdmin
from quixframes.kafka_python.lanes import Batch, Identity, Lane
from quixframes.kafka_python.producer import PythonProducer
from quixframes.local import LocalKafka
from quixframes.settings import Connection, WriterSettings

SHORT = WriterSettings(delivery_timeout="3s")


@contextmanager
def producing(connection: Connection, settings: WriterSettings | None = None) -> Iterator[PythonProducer]:
    producer = KafkaPython().producer(connection, settings or WriterSettings())
    try:
        yield producer
    finally:
        producer.close(5)


@contextmanager
def administering(address: str) -> Iterator[PythonAdmin]:
    admin = KafkaPython().admin(Connection.of(address))
    try:
        yield admin
    finally:
        admin.close(5)


@contextmanager
def bare_producer(address: str, **settings: object) -> Iterator[KafkaProducer]:
    """kafka-python's own producer, ended by force: it has no other end in the states that it is brought to here."""
    producer = KafkaProducer(bootstrap_servers=address, **settings)
    try:
        yield producer
    finally:
        producer._sender.force_close()
        producer._sender.join(10)
        producer._unregister_cleanup()
        producer._closed = True


class Gate:
    """Holds back what a producer hears of its sends, until it is let through."""

    def __init__(self, producer: PythonProducer) -> None:
        self._producer = producer
        self._held: list[tuple[list[tuple[Lane, Batch]], Any]] = []
        self._answered = producer._answered

    @contextmanager
    def closed(self) -> Iterator[None]:
        self._producer._answered = self._hold  # type: ignore[method-assign]
        try:
            yield
        finally:
            self._producer._answered = self._answered  # type: ignore[method-assign]
            self.open_for(None)

    def _hold(self, travelling: list[tuple[Lane, Batch]], answer: Any) -> None:
        self._held.append((travelling, answer))

    @property
    def held(self) -> int:
        return len(self._held)

    def open_for(self, topic: str | None) -> None:
        def let_through() -> bool:
            for held in list(self._held):
                if topic is None or topic in {lane.place.topic for lane, _ in held[0]}:
                    self._held.remove(held)
                    self._answered(*held)
                    return True
            return topic is None

        wait_until(lambda: bool(self._producer._client.run(5, "opening", let_through)))


def values(connection: Connection, topic: str) -> list[bytes]:
    return [value for _, value in read_all(connection, topic)]


def test_messages_of_a_key_arrive_once_and_in_order(connection: Connection, topic: str) -> None:
    outcomes = Outcomes()
    with producing(connection) as producer:
        for number in range(3_000):
            producer.send(message(topic, b"%d" % number, b"key-%d" % (number % 7)), outcomes.of(number))
        assert producer.flush(10)
        assert outcomes.errors == []
    found = read_all(connection, topic)
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
    connection: Connection, admin: PythonAdmin, key: bytes, hashed: int
) -> None:
    assert murmur2(key) == hashed % 2**32
    topic = new_topic(admin, partitions=7)
    with producing(connection) as producer:
        producer.send(message(topic, key=key), Outcomes().of(0))
    written = [number for number, end in admin.ends(topic).items() if end]
    assert written == [(hashed & 0x7FFFFFFF) % 7]


def test_several_threads_write_through_one_producer(connection: Connection, topic: str) -> None:
    outcomes = Outcomes()
    with producing(connection) as producer:

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
    found = read_all(connection, topic)
    for thread_number in range(4):
        mine = [int(value) for key, value in found if key == b"thread-%d" % thread_number]
        assert mine == list(range(500))


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip"])
def test_compressed_messages_are_read_as_they_were_written(
    connection: Connection, topic: str, compression: str
) -> None:
    with producing(connection, WriterSettings(compression=compression)) as producer:
        for number in range(100):
            producer.send(message(topic, b"same " * 100 + b"%d" % number), Outcomes().of(number))
    assert values(connection, topic) == [b"same " * 100 + b"%d" % number for number in range(100)]


def test_kafkas_time_of_a_message_is_the_wall_clock(connection: Connection, topic: str, admin: PythonAdmin) -> None:
    before = int(time.time() * 1000)
    with producing(connection) as producer:
        producer.send(message(topic), Outcomes().of(0))
    assert sum(admin.ends(topic).values()) == 1
    assert admin.offsets_at(topic, before) == dict.fromkeys(range(3), 0)
    assert admin.offsets_at(topic, int(time.time() * 1000) + 1) == admin.ends(topic)


def test_a_flush_does_not_wait_for_what_is_sent_after_it(connection: Connection, admin: PythonAdmin) -> None:
    first, second = new_topic(admin, partitions=1), new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(connection) as producer:
        producer.send(message(first), outcomes.of("known first"))
        producer.send(message(second), outcomes.of("known second"))
        assert producer.flush(5)
        gate = Gate(producer)
        with gate.closed():
            producer.send(message(first), outcomes.of("before"))
            flushed: list[bool] = []
            flushing = threading.Thread(target=lambda: flushed.append(producer.flush(5)))
            flushing.start()
            wait_until(lambda: gate.held == 1)  # its messages travel alone
            producer.send(message(second), outcomes.of("after"))
            gate.open_for(first)
            flushing.join()
            assert flushed == [True]
            assert outcomes.told["before"] == [None]
            assert outcomes.told["after"] == []
    assert outcomes.errors == []


def test_small_messages_are_sent_in_smaller_batches_where_the_topic_takes_no_larger_ones(
    connection: Connection, admin: PythonAdmin
) -> None:
    topic = new_topic(admin, partitions=1, max_message_bytes="20000")
    outcomes = Outcomes()
    with producing(connection) as producer:
        for number in range(1_000):
            producer.send(message(topic, b"%06d" % number + bytes(1_000)), outcomes.of(number))
        assert producer.flush(20)
    assert outcomes.errors == []
    assert [int(value[:6]) for value in values(connection, topic)] == list(range(1_000))


def test_a_message_over_the_topics_limit_fails_alone(connection: Connection, admin: PythonAdmin) -> None:
    """Defect B."""
    small, other = new_topic(admin, partitions=1, max_message_bytes="20000"), new_topic(admin)
    with bare_producer(connection.brokers[0]) as bare:
        with pytest.raises(theirs.MessageSizeTooLargeError):
            bare.send(small, bytes(30_000)).get(10)
        with pytest.raises(theirs.MessageSizeTooLargeError):
            bare.send(other, b"innocent").get(10)
    outcomes = Outcomes()
    with producing(connection) as producer:
        for number in range(300):
            producer.send(message(small, b"%d" % number), outcomes.of(("small", number)))
            producer.send(message(other, b"%d" % number), outcomes.of(("other", number)))
            if number % 100 == 50:
                producer.send(message(small, bytes(30_000)), outcomes.of(("large", number)))
        assert producer.flush(10)
        assert [type(error) for error in outcomes.errors] == [MessageTooLargeError] * 3
        assert all(outcomes.told["large", number] != [None] for number in (50, 150, 250))
    assert [int(value) for value in values(connection, small)] == list(range(300))
    assert [int(value) for value in values(connection, other)] == list(range(300))


def test_a_forbidden_topic_stops_no_other(guarded_kafka: LocalKafka) -> None:
    """Defect B."""
    address = guarded_kafka.address
    with administering(address) as admin:
        secret, other = new_topic(admin), new_topic(admin)
    forbid(address, ResourceType.TOPIC, secret, ACLOperation.WRITE)
    with bare_producer(address) as bare:
        with pytest.raises(theirs.TopicAuthorizationFailedError):
            bare.send(secret, b"value").get(10)
        with pytest.raises(theirs.TopicAuthorizationFailedError):
            bare.send(other, b"innocent").get(10)
    outcomes = Outcomes()
    with producing(Connection.of(address)) as producer:
        for number in range(200):
            producer.send(message(other, b"%d" % number), outcomes.of(("other", number)))
            producer.send(message(secret), outcomes.of(("secret", number)))
        assert producer.flush(10)
    assert {type(error) for error in outcomes.errors} == {AccessDeniedError}
    assert len(outcomes.errors) == 200
    assert [int(value) for value in values(Connection.of(address), other)] == list(range(200))


def test_a_topic_that_may_not_be_known_fails_as_denied_or_not_found(guarded_kafka: LocalKafka) -> None:
    address = guarded_kafka.address
    with administering(address) as admin:
        hidden = new_topic(admin)
    forbid(address, ResourceType.TOPIC, hidden, ACLOperation.ALL)
    outcomes = Outcomes()
    with producing(Connection.of(address)) as producer:
        producer.send(message(hidden), outcomes.of(0))
        assert producer.flush(5)
    assert [type(error) for error in outcomes.errors] in ([AccessDeniedError], [TopicNotFoundError])


def test_a_topic_that_does_not_exist_fails_within_seconds_and_is_not_made(
    connection: Connection, admin: PythonAdmin, topic: str
) -> None:
    outcomes = Outcomes()
    with producing(connection) as producer:
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
    connection: Connection, admin: PythonAdmin
) -> None:
    topic = new_topic(admin, partitions=4)
    first, second, third = Outcomes(), Outcomes(), Outcomes()
    with producing(connection) as producer:
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
    assert values(connection, topic) == [b"again"]


def test_nobody_asks_for_a_topic_that_is_gone(connection: Connection, admin: PythonAdmin, topic: str) -> None:
    gone = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(connection) as producer:
        for name in (gone, topic):
            producer.send(message(name), outcomes.of(name))
        assert producer.flush(5)
        admin.delete(gone)
        for name in (gone, "no-such-topic"):
            producer.send(message(name), outcomes.of((name, 1)))
        assert producer.flush(10)
        asked: list[object] = []
        learn = producer._cluster.update_metadata

        def count(metadata: object) -> None:
            asked.append(metadata)
            learn(metadata)

        producer._cluster.update_metadata = count
        time.sleep(1)
        assert len(asked) <= 1
    assert [type(error) for error in outcomes.errors] == [TopicNotFoundError] * 2


def test_a_topic_that_is_known_but_in_trouble_counts_as_deleted_never(
    connection: Connection, admin: PythonAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = new_topic(admin, partitions=1)
    monkeypatch.setattr("quixframes.kafka_python.producer._UNKNOWN", 0.3)
    outcomes = Outcomes()
    with producing(connection) as producer:
        producer.send(message(topic), outcomes.of(0))
        assert producer.flush(5)
        learn = producer._client.manager._update_metadata
        seen: list[float] = []

        def with_error(metadata: Any) -> None:
            for each in metadata.topics:
                each.error_code = theirs.LeaderNotAvailableError.errno
            learn(metadata)
            seen.append(time.monotonic())

        producer._client.manager._update_metadata = with_error
        producer._cluster.request_update()
        wait_until(lambda: bool(seen))
        producer.send(message(topic), outcomes.of(1))
        assert not producer.flush(1)
        producer._client.manager._update_metadata = learn
        assert producer.flush(5)
    assert outcomes.errors == []


def test_a_message_that_cannot_be_encoded_fails_alone(connection: Connection, admin: PythonAdmin) -> None:
    topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(connection) as producer:
        for number in range(10):
            headers = [("\ud800", b"a name without UTF-8")] if number in (0, 5) else []
            producer.send(Outgoing(topic, b"key", b"%d" % number, headers), outcomes.of(number))
        assert producer.flush(5)
        for number in range(10, 20):
            producer.send(message(topic, b"%d" % number), outcomes.of(number))
    assert [type(error) for error in outcomes.errors] == [BrokerError] * 2
    assert outcomes.told[0] != [None] != outcomes.told[5]
    assert values(connection, topic) == [b"%d" % number for number in range(20) if number not in (0, 5)]


def lane_of(producer: PythonProducer, topic: str) -> Lane:
    return producer._lanes[TopicPartition(topic, 0)]


def test_sequence_numbers_go_round(connection: Connection, admin: PythonAdmin) -> None:
    topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(connection) as producer:
        producer.send(message(topic, b"0"), outcomes.of(0))
        assert producer.flush(5)
        lane = lane_of(producer, topic)
        assert lane.identity is not None
        # A broker takes any first number of an ID that it does not know.
        mine = producer._identity = lane.identity = Identity(lane.identity.producer_id + 500, 0)
        lane.sequence = 2**31 - 5
        for round_ in range(2):
            for number in range(1 + 20 * round_, 21 + 20 * round_):
                producer.send(message(topic, b"%d" % number), outcomes.of(number))
            assert producer.flush(5)
        assert (lane.identity, lane.sequence) == (mine, 35)
    assert outcomes.errors == []
    assert values(connection, topic) == [b"%d" % number for number in range(41)]


def test_a_number_that_the_broker_did_not_expect_costs_nothing(connection: Connection, admin: PythonAdmin) -> None:
    """OutOfOrderSequence at the first attempt: the batch did not arrive, so it goes out anew under another ID."""
    topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(connection) as producer:
        producer.send(message(topic, b"0"), outcomes.of(0))
        assert producer.flush(5)
        lane = lane_of(producer, topic)
        before = lane.identity
        lane.sequence += 5
        producer.send(message(topic, b"1"), outcomes.of(1))
        assert producer.flush(5)
        assert lane.identity != before
        assert lane.sequence == 1
    assert outcomes.errors == []
    assert values(connection, topic) == [b"0", b"1"]


def test_a_batch_that_arrived_unnoticed_is_not_written_twice(connection: Connection, admin: PythonAdmin) -> None:
    topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(connection) as producer:
        answered, lost = producer._answered, threading.Event()

        def lose_the_first(travelling: list[tuple[Lane, Batch]], answer: Any) -> None:
            if lost.is_set():
                answered(travelling, answer)
            else:
                lost.set()
                producer._unanswered(travelling, theirs.KafkaConnectionError("the answer was lost"))

        producer._answered = lose_the_first  # type: ignore[method-assign]
        for number in range(10):
            producer.send(message(topic, b"%d" % number), outcomes.of(number))
        assert producer.flush(5)
        assert lost.is_set()
    assert outcomes.errors == []
    assert values(connection, topic) == [b"%d" % number for number in range(10)]


@pytest.mark.parametrize(
    ("error", "attempts", "outcome"),
    [
        (theirs.DuplicateSequenceNumberError, 2, None),
        (theirs.UnknownProducerIdError, 1, None),
        (theirs.UnknownProducerIdError, 2, BrokerError),
        (theirs.OutOfOrderSequenceNumberError, 2, BrokerError),
        (theirs.MessageSizeTooLargeError, 2, MessageTooLargeError),
    ],
)
def test_what_may_have_arrived_before_is_not_sent_anew(
    connection: Connection,
    admin: PythonAdmin,
    error: type[theirs.BrokerResponseError],
    attempts: int,
    outcome: type[BrokerError] | None,
) -> None:
    """The broker says ``error`` at attempt number ``attempts``; those before were lost on their way back or there."""
    topic = new_topic(admin, partitions=1)
    outcomes, later = Outcomes(), Outcomes()
    with producing(connection, WriterSettings(linger="100ms")) as producer:
        producer.send(message(topic, b"known"), Outcomes().of(0))
        assert producer.flush(5)
        answered, tries = producer._answered, 0

        def answer_amiss(travelling: list[tuple[Lane, Batch]], answer: Any) -> None:
            nonlocal tries
            tries += 1
            if tries < attempts:
                producer._unanswered(travelling, theirs.KafkaConnectionError("the answer was lost"))
                return
            if tries == attempts:
                answer.responses[0].partition_responses[0].error_code = error.errno
            answered(travelling, answer)

        producer._answered = answer_amiss  # type: ignore[method-assign]
        before = lane_of(producer, topic).identity
        for number in range(4):
            producer.send(message(topic, b"%d" % number), outcomes.of(number))
        assert producer.flush(5)
        assert tries >= attempts
        kept = error is theirs.DuplicateSequenceNumberError
        assert (lane_of(producer, topic).identity == before) == kept
        producer.send(message(topic, b"later"), later.of(0))
        assert producer.flush(5)
    assert [type(failure) for failure in outcomes.errors] == ([outcome] * 4 if outcome else [])
    assert later.errors == []


def test_a_send_that_never_left_counts_as_no_attempt(connection: Connection, admin: PythonAdmin) -> None:
    topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(connection) as producer:
        producer.send(message(topic, b"0"), outcomes.of(0))
        assert producer.flush(5)
        manager = producer._client.manager
        send = manager.send
        refused: list[object] = []

        def refuse_once(request: Any, *args: Any, **options: Any) -> Any:
            if type(request).__name__ == "ProduceRequest" and not refused:
                refused.append(request)
                raise theirs.NodeNotReadyError(1)
            return send(request, *args, **options)

        manager.send = refuse_once
        lane = lane_of(producer, topic)
        lane.sequence += 5  # would fail at a second attempt
        producer.send(message(topic, b"1"), outcomes.of(1))
        assert producer.flush(5)
        assert refused
    assert outcomes.errors == []


def test_an_interrupted_close_can_be_repeated_and_tells_everybody(
    connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = client_threads()
    outcomes = Outcomes()
    producer = KafkaPython().producer(connection, WriterSettings(linger="10s"))
    producer.send(message("no-such-topic"), outcomes.of(0))

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(producer, "flush", interrupted)
        patch.setattr(producer._client, "shut", interrupted)
        with pytest.raises(KeyboardInterrupt):
            producer.close(2)
    assert [type(error) for error in outcomes.errors] == [ClosedError]
    producer.close(2)
    wait_until(lambda: client_threads() <= before, 1)


def test_after_an_outage_longer_than_the_delivery_timeout_the_same_producer_goes_on(own_kafka: LocalKafka) -> None:
    """Defect A: the bare client's never does."""
    connection = Connection.of(own_kafka.address)
    with administering(own_kafka.address) as admin:
        topic, bare_topic = new_topic(admin, partitions=1), new_topic(admin, partitions=1)
    bare_settings = {"delivery_timeout_ms": 3000, "request_timeout_ms": 1000, "max_block_ms": 3000}
    outcomes = Outcomes()
    with producing(connection, SHORT) as producer, bare_producer(own_kafka.address, **bare_settings) as bare:
        bare.send(bare_topic, b"before").get(10)
        producer.send(message(topic, b"before"), outcomes.of("before"))
        assert producer.flush(5)

        own_kafka.pause()  # what is sent now gets on its way, and no further
        sent = time.monotonic()
        futures = []
        for number in range(20):
            futures.append(bare.send(bare_topic, b"lost"))
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

        with pytest.raises(theirs.KafkaError):
            bare.send(bare_topic, b"after").get(2)
        assert any(not future.is_done for future in futures)
    found = values(connection, topic)
    assert found[0] == b"before"
    assert found[-20:] == [b"after %d" % number for number in range(20)]
    assert len(found) == len(set(found))


def test_a_killed_broker_costs_no_message_and_no_order_within_the_delivery_timeout(own_kafka: LocalKafka) -> None:
    connection = Connection.of(own_kafka.address)
    with administering(own_kafka.address) as admin:
        topic = new_topic(admin, partitions=2)
    outcomes = Outcomes()
    stop = threading.Event()
    with producing(connection) as producer:

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
    found = read_all(connection, topic)
    for key in (b"left", b"right"):
        numbers = [int(value) for name, value in found if name == key]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) == len(outcomes.told) // 2


@pytest.mark.faults
def test_a_frozen_broker_gets_everything_once_and_in_order_when_it_goes_on(own_kafka: LocalKafka) -> None:
    connection = Connection.of(own_kafka.address)
    with administering(own_kafka.address) as admin:
        topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(connection) as producer:
        producer.send(message(topic, b"0"), outcomes.of(0))
        assert producer.flush(5)
        own_kafka.pause()
        for number in range(1, 2_000):
            producer.send(message(topic, b"%d" % number), outcomes.of(number))
            time.sleep(0.01)
        own_kafka.resume()
        assert producer.flush(40)
    assert outcomes.errors == []
    assert [int(value) for value in values(connection, topic)] == list(range(2_000))


@pytest.mark.parametrize("state", ["idle", "frozen", "dead"])
def test_closing_ends_in_time_and_leaves_nothing_behind(own_kafka: LocalKafka, state: str) -> None:
    """Defect C."""
    before = client_threads()
    connection = Connection.of(own_kafka.address)
    with administering(own_kafka.address) as admin:
        topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    producer = KafkaPython().producer(connection, WriterSettings())
    with bare_producer(own_kafka.address) as bare:
        producer.send(message(topic), outcomes.of("first"))
        bare.send(topic, b"value").get(10)
        assert producer.flush(5)
        if state == "frozen":
            own_kafka.pause()
        elif state == "dead":
            own_kafka.kill()
        for number in range(100):
            producer.send(message(topic), outcomes.of(number))
        if state != "idle":
            bare.send(topic, b"value")
            with pytest.raises(theirs.KafkaTimeoutError):
                bare.close(timeout=1)
            assert bare._sender.is_alive()
    start = time.monotonic()
    producer.close(2)
    assert time.monotonic() - start < 2.3
    expected = [] if state == "idle" else [ClosedError] * 100
    assert [type(error) for error in outcomes.errors] == expected
    wait_until(lambda: client_threads() <= before, 1)
    with pytest.raises(ClosedError):
        producer.send(message(topic), outcomes.of("late"))
    producer.close(1)


def test_a_message_that_no_broker_could_carry_fails_at_once(connection: Connection, topic: str) -> None:
    outcomes = Outcomes()
    with producing(connection) as producer:
        producer.send(Outgoing(topic, b"key", bytes(91 * 1024 * 1024), []), outcomes.of(0))
    assert [type(error) for error in outcomes.errors] == [MessageTooLargeError]


def test_messages_without_a_key_a_value_or_a_header_s_value_arrive_as_they_are(
    connection: Connection, topic: str
) -> None:
    """What others write may lack any of them; those without a key take turns at the partitions."""
    producer = KafkaPython().producer(connection, WriterSettings())
    outcomes = Outcomes()
    headers = [("none", None), ("twice", b"1"), ("twice", b""), ("none", b"2")]
    producer.send(Outgoing(topic, b"key", None, headers, partition=4), outcomes.of("by number"))  # modulo three
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
