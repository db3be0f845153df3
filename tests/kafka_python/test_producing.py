"""The producer's inside, and the defects of the bare client that it is free of."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kafka.errors as theirs
import pytest
from kafka import KafkaProducer, TopicPartition

from quixframes.errors import BrokerError, ClosedError, MessageTooLargeError, TopicNotFoundError
from quixframes.kafka import Admin, Producer, Transport
from quixframes.kafka_python.lanes import Batch, Identity, Lane
from quixframes.local import LocalKafka
from quixframes.settings import Connection, WriterSettings
from tests.adapters.helpers import (
    Outcomes,
    administering,
    client_threads,
    message,
    new_topic,
    producing,
    values,
    wait_until,
)


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

    def __init__(self, producer: Producer) -> None:
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


def test_a_flush_does_not_wait_for_what_is_sent_after_it(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    first, second = new_topic(admin, partitions=1), new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
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


def test_nobody_asks_for_a_topic_that_is_gone(
    transport: Transport, connection: Connection, admin: Admin, topic: str
) -> None:
    gone = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
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
    transport: Transport, connection: Connection, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = new_topic(admin, partitions=1)
    monkeypatch.setattr("quixframes.kafka_python.routes._UNKNOWN", 0.3)
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
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


def lane_of(producer: Producer, topic: str) -> Lane:
    return producer._lanes[TopicPartition(topic, 0)]


def test_sequence_numbers_go_round(transport: Transport, connection: Connection, admin: Admin) -> None:
    topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
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
    assert values(transport, connection, topic) == [b"%d" % number for number in range(41)]


def test_a_number_that_the_broker_did_not_expect_costs_nothing(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    """OutOfOrderSequence at the first attempt: the batch did not arrive, so it goes out anew under another ID."""
    topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
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
    assert values(transport, connection, topic) == [b"0", b"1"]


def test_a_batch_that_arrived_unnoticed_is_not_written_twice(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
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
    assert values(transport, connection, topic) == [b"%d" % number for number in range(10)]


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
    transport: Transport,
    connection: Connection,
    admin: Admin,
    error: type[theirs.BrokerResponseError],
    attempts: int,
    outcome: type[BrokerError] | None,
) -> None:
    """The broker says ``error`` at attempt number ``attempts``; those before were lost on their way back or there."""
    topic = new_topic(admin, partitions=1)
    outcomes, later = Outcomes(), Outcomes()
    with producing(transport, connection, WriterSettings(linger="100ms")) as producer:
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


def test_a_send_that_never_left_counts_as_no_attempt(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    topic = new_topic(admin, partitions=1)
    outcomes = Outcomes()
    with producing(transport, connection) as producer:
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
    transport: Transport, connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = client_threads()
    outcomes = Outcomes()
    producer = transport.producer(connection, WriterSettings(linger="10s"))
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


def test_one_refused_message_poisons_the_bare_client(connection: Connection, admin: Admin) -> None:
    """Defect B: should this fail, ours may become kafka-python's own."""
    small, other = new_topic(admin, partitions=1, max_message_bytes="20000"), new_topic(admin)
    with bare_producer(connection.brokers[0]) as bare:
        with pytest.raises(theirs.MessageSizeTooLargeError):
            bare.send(small, bytes(30_000)).get(10)
        with pytest.raises(theirs.MessageSizeTooLargeError):
            bare.send(other, b"innocent").get(10)


def test_the_bare_client_cannot_be_closed_while_the_broker_is_silent(
    transport: Transport, own_kafka: LocalKafka
) -> None:
    """Defect C."""
    with administering(transport, Connection.of(own_kafka.address)) as admin:
        topic = new_topic(admin, partitions=1)
    with bare_producer(own_kafka.address) as bare:
        bare.send(topic, b"value").get(10)
        own_kafka.pause()
        bare.send(topic, b"value")
        with pytest.raises(theirs.KafkaTimeoutError):
            bare.close(timeout=1)
        assert bare._sender.is_alive()


def test_after_an_outage_longer_than_the_delivery_timeout_the_bare_client_never_goes_on(
    transport: Transport, own_kafka: LocalKafka
) -> None:
    """Defect A."""
    with administering(transport, Connection.of(own_kafka.address)) as admin:
        topic = new_topic(admin, partitions=1)
    settings = {"delivery_timeout_ms": 3000, "request_timeout_ms": 1000, "max_block_ms": 3000}
    with bare_producer(own_kafka.address, **settings) as bare:
        bare.send(topic, b"before").get(10)
        own_kafka.pause()
        futures = []
        for _ in range(20):
            futures.append(bare.send(topic, b"lost"))
            time.sleep(0.05)
        own_kafka.kill()
        wait_until(lambda: any(future.is_done for future in futures))
        own_kafka.restart()
        with pytest.raises(theirs.KafkaError):
            bare.send(topic, b"after").get(2)
        assert any(not future.is_done for future in futures)
