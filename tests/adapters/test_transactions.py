"""The producer of transactions: what every adapter does."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from kafka.admin import ACLOperation, ResourceType

from quixframes.confluent.transactions import ConfluentTransactional
from quixframes.errors import (
    AccessDeniedError,
    BrokerUnavailableError,
    ClosedError,
    FencedError,
    GroupMovedOnError,
    MessageTooLargeError,
    SettingsError,
    TransactionError,
)
from quixframes.kafka import Admin, Consumer, Offset, Partition, TransactionalProducer, Transport
from quixframes.local import LocalKafka
from quixframes.settings import Connection, WriterSettings
from tests.adapters.helpers import (
    Member,
    Outcomes,
    administering,
    client_threads,
    consuming,
    driving,
    forbid,
    message,
    new_group,
    new_topic,
    nothing,
    values,
    wait_until,
)


def new_id() -> str:
    return f"transactions-{uuid.uuid4().hex[:8]}"


@contextmanager
def transacting(
    transport: Transport,
    connection: Connection,
    transactional_id: str | None = None,
    settings: WriterSettings | None = None,
) -> Iterator[TransactionalProducer]:
    producer = transport.transactional(
        connection, settings or WriterSettings(), transactional_id=transactional_id or new_id()
    )
    try:
        yield producer
    finally:
        producer.close(5)


@contextmanager
def joined(transport: Transport, connection: Connection, topic: str, group: str) -> Iterator[Member]:
    """A member of the group that has all three partitions of the topic."""
    with consuming(transport, connection, group) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 3)
        consumer.poll(0.0)  # the owner has acted upon what it was told, which the next poll shows
        yield member


def send(producer: TransactionalProducer, topic: str, *texts: bytes) -> Outcomes:
    outcomes = Outcomes()
    for number, text in enumerate(texts):
        producer.send(message(topic, text), outcomes.of(number))
    return outcomes


def read_on(consumer: Consumer, seconds: float = 0.5) -> list[bytes]:
    """What has come, once nothing more comes for a while."""
    found: list[bytes] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        records = consumer.poll(0.1).records
        found += [bytes(record.value) for record in records if record.value is not None]
        if records:
            deadline = time.monotonic() + seconds
    return found


def test_readers_see_a_transaction_when_it_is_committed_and_not_before(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    topic = new_topic(admin, partitions=1)
    with transacting(transport, connection) as producer, consuming(transport, connection) as consumer:
        consumer.assign({Partition(topic, 0): 0})
        outcomes = send(producer, topic, b"1", b"2")
        assert producer.flush(10)
        assert outcomes.errors == []
        assert read_on(consumer) == []
        assert sum(admin.ends(topic, committed_only=False).values()) == 2
        producer.commit_transaction({}, consumer.membership, 10)
        assert read_on(consumer) == [b"1", b"2"]


def test_nobody_sees_a_transaction_that_was_aborted(transport: Transport, connection: Connection, admin: Admin) -> None:
    topic = new_topic(admin, partitions=1)
    with transacting(transport, connection) as producer:
        send(producer, topic, b"1")
        producer.commit_transaction({}, None, 10)
        outcomes = send(producer, topic, b"2", b"3")
        assert producer.flush(10)
        producer.abort_transaction(10)
        assert outcomes.errors == []
        send(producer, topic, b"4")
        producer.abort_transaction(10)  # on its way, or not even that
        producer.abort_transaction(10)  # nothing to abort
        send(producer, topic, b"5")
        producer.commit_transaction({}, None, 10)
    assert values(transport, connection, topic) == [b"1", b"5"]


def test_offsets_are_committed_with_the_messages_or_not_at_all(
    transport: Transport, connection: Connection, topic: str
) -> None:
    group = new_group()
    with joined(transport, connection, topic, group) as member, transacting(transport, connection) as producer:
        first, second, _ = sorted(member.owned)
        send(producer, topic, b"1")
        producer.commit_transaction({first: Offset(5, "notes")}, member.consumer.membership, 10)
        send(producer, topic, b"2")
        producer.abort_transaction(10)
        assert member.consumer.committed([first, second]) == {first: Offset(5, "notes"), second: None}
        producer.commit_transaction({second: Offset(7, "alone")}, member.consumer.membership, 10)
        assert member.consumer.committed([first, second]) == {first: Offset(5, "notes"), second: Offset(7, "alone")}
        member.consumer.commit({first: Offset(6)})  # a plain commit may come between
        assert member.consumer.committed([first]) == {first: Offset(6)}


def test_many_transactions_over_many_partitions_arrive_whole_once_and_in_order(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    topic = new_topic(admin, partitions=4)
    outcomes = Outcomes()
    with transacting(transport, connection) as producer:
        for number in range(60):
            for key in range(20):
                name = (number, key)
                producer.send(message(topic, b"%d" % number, b"key-%d" % key), outcomes.of(name))
            if number % 3 == 2:
                producer.abort_transaction(10)
            else:
                producer.commit_transaction({}, None, 10)
    with consuming(transport, connection) as consumer:
        consumer.assign({Partition(topic, number): 0 for number in range(4)})
        found: dict[bytes, list[int]] = {}
        deadline = time.monotonic() + 20
        while sum(map(len, found.values())) < 800:
            assert time.monotonic() < deadline
            for record in consumer.poll(0.2).records:
                found.setdefault(record.key, []).append(int(record.value))
    assert all(numbers == [n for n in range(60) if n % 3 != 2] for numbers in found.values())
    assert all(len(told) == 1 for told in outcomes.told.values())


def test_a_producer_whose_id_another_has_taken_is_fenced(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    topic, name = new_topic(admin, partitions=1), new_id()
    with transacting(transport, connection, name) as old:
        send(old, topic, b"1")
        old.commit_transaction({}, None, 10)
        send(old, topic, b"left open")
        assert old.flush(10)
        with transacting(transport, connection, name) as new:
            send(new, topic, b"2")
            send(old, topic, b"lost")
            with pytest.raises(FencedError, match=name):
                old.commit_transaction({}, None, 10)
            for _ in range(2):
                with pytest.raises(FencedError, match=name):
                    old.abort_transaction(10)
            (error,) = send(old, topic, b"never").told.values()
            assert error != [None]
            new.commit_transaction({}, None, 10)
    assert values(transport, connection, topic) == [b"1", b"2"]


def test_a_member_that_the_group_has_given_up_commits_nothing(
    transport: Transport, connection: Connection, topic: str
) -> None:
    """A zombie: it was paused, say, while others took its partitions over."""
    group = new_group()
    with joined(transport, connection, topic, group) as member, transacting(transport, connection) as producer:
        part = min(member.owned)
        stale = member.consumer.membership()
        with consuming(transport, connection, group) as other:
            newcomer = Member(other)
            other.subscribe([topic], nothing)
            with driving(member, newcomer):
                wait_until(lambda: bool(newcomer.owned) and len(member.owned) + len(newcomer.owned) == 3, 20)
            send(producer, topic, b"zombie")
            with pytest.raises(GroupMovedOnError):
                producer.commit_transaction({part: Offset(99)}, lambda: stale, 10)
            producer.abort_transaction(10)
            gone = min(newcomer.owned)
            send(producer, topic, b"of a partition that went")
            with pytest.raises(GroupMovedOnError):
                producer.commit_transaction({gone: Offset(99)}, member.consumer.membership, 10)
            producer.abort_transaction(10)
            send(producer, topic, b"good")
            kept = min(member.owned)
            producer.commit_transaction({kept: Offset(3)}, member.consumer.membership, 10)
            assert other.committed([gone, kept]) == {gone: None, kept: Offset(3)}
    assert values(transport, connection, topic) == [b"good"]


def test_a_message_that_fails_takes_its_transaction_with_it_and_no_other(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    small, other = new_topic(admin, partitions=1, max_message_bytes="20000"), new_topic(admin, partitions=1)
    with transacting(transport, connection) as producer:
        send(producer, other, b"good")
        assert producer.flush(10)
        outcomes = send(producer, small, bytes(30_000))
        assert outcomes.wait(10)
        assert [type(error) for error in outcomes.errors] == [MessageTooLargeError]
        start = time.monotonic()
        after = send(producer, other, b"after")
        assert after.wait(1)
        assert time.monotonic() - start < 0.5
        assert [type(error) for error in after.errors] == [TransactionError]
        with pytest.raises(TransactionError, match=r"max\.message\.bytes"):
            producer.commit_transaction({}, None, 10)
        producer.abort_transaction(10)
        outcomes = send(producer, other, bytes(91 * 1024 * 1024))
        assert [type(error) for error in outcomes.errors] == [MessageTooLargeError]
        with pytest.raises(TransactionError):
            producer.commit_transaction({}, None, 10)
        producer.abort_transaction(10)
        outcomes = send(producer, small, b"fits")
        producer.commit_transaction({}, None, 10)
        assert outcomes.errors == []
    assert values(transport, connection, other) == []
    assert values(transport, connection, small) == [b"fits"]


def test_a_send_waits_while_the_transaction_before_is_being_ended(transport: Transport, own_kafka: LocalKafka) -> None:
    connection = Connection.of(own_kafka.address)
    with administering(transport, connection) as admin:
        topic = new_topic(admin, partitions=1)
    with transacting(transport, connection) as producer:
        send(producer, topic, b"1")
        assert producer.flush(10)
        own_kafka.pause()
        committing = threading.Thread(target=producer.commit_transaction, args=({}, None, 20))
        committing.start()
        time.sleep(0.3)  # until it certainly is at it
        sent = threading.Event()

        def write() -> None:
            send(producer, topic, b"2")
            sent.set()

        writing = threading.Thread(target=write)
        writing.start()
        assert not sent.wait(0.5)
        own_kafka.resume()
        committing.join()
        assert sent.wait(5)
        writing.join()
        producer.abort_transaction(10)
    assert values(transport, connection, topic) == [b"1"]


def test_a_commit_outlasts_a_broker_that_was_frozen_in_the_middle(transport: Transport, own_kafka: LocalKafka) -> None:
    """Now and then librdkafka does not come back from it: the commit then fails, in time, and counts for nothing; and
    the next one of the same comes off."""
    connection = Connection.of(own_kafka.address)
    failures = 0
    with administering(transport, connection) as admin:
        topic = new_topic(admin)
    with joined(transport, connection, topic, new_group()) as member, transacting(transport, connection) as producer:
        part = min(member.owned)
        number = 0
        while number < 3:
            send(producer, topic, b"%d" % number)
            own_kafka.pause()
            thawing = threading.Timer(0.5 + number, own_kafka.resume)
            thawing.start()
            try:
                producer.commit_transaction({part: Offset(number)}, member.consumer.membership, 15)
                number += 1
            except TransactionError:
                failures += 1
                producer.abort_transaction(15)
            thawing.join()
        assert member.consumer.committed([part]) == {part: Offset(2)}
    assert values(transport, connection, topic) == [b"0", b"1", b"2"]
    assert failures <= (2 if isinstance(producer, ConfluentTransactional) else 0)


def test_what_no_broker_answers_fails_in_time_and_is_aborted_when_one_does(
    transport: Transport, own_kafka: LocalKafka
) -> None:
    connection = Connection.of(own_kafka.address)
    with administering(transport, connection) as admin:
        topic = new_topic(admin, partitions=1)
    with transacting(transport, connection) as producer:
        send(producer, topic, b"before")
        producer.commit_transaction({}, None, 10)
        send(producer, topic, b"there already")
        assert producer.flush(10)
        own_kafka.pause()
        try:
            outcomes = send(producer, topic, b"on its way")
            start = time.monotonic()
            with pytest.raises(TransactionError):
                producer.commit_transaction({}, None, 2)
            assert time.monotonic() - start < 3.5
            start = time.monotonic()
            with pytest.raises(BrokerUnavailableError):
                producer.abort_transaction(1)
            assert time.monotonic() - start < 2.5
            assert outcomes.wait(2)
        finally:
            own_kafka.resume()
        producer.abort_transaction(30)
        send(producer, topic, b"after")
        producer.commit_transaction({}, None, 30)
    assert values(transport, connection, topic) == [b"before", b"after"]


@pytest.mark.faults
def test_a_killed_broker_costs_no_committed_transaction(transport: Transport, own_kafka: LocalKafka) -> None:
    connection = Connection.of(own_kafka.address)
    with administering(transport, connection) as admin:
        topic = new_topic(admin, partitions=2)
    committed: list[int] = []
    doubtful: list[int] = []
    stop = threading.Event()
    with transacting(transport, connection) as producer:

        def write() -> None:
            number = 0
            while not stop.is_set():
                for key in (b"left", b"right"):
                    producer.send(message(topic, b"%d" % number, key), lambda _: None)
                try:
                    producer.commit_transaction({}, None, 5)
                    committed.append(number)
                except TransactionError:
                    doubtful.append(number)
                    while True:
                        try:
                            producer.abort_transaction(5)
                            break
                        except BrokerUnavailableError:
                            continue
                number += 1

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(3):
            time.sleep(1)
            own_kafka.kill()
            own_kafka.restart()
        time.sleep(1)
        stop.set()
        thread.join()
    found = [int(value) for value in values(transport, connection, topic)]
    assert set(committed) <= set(found) <= set(committed) | set(doubtful)
    assert all(found.count(number) == 2 for number in set(found))


def test_a_transaction_that_was_open_for_too_long_is_given_up_and_the_next_one_works(
    transport: Transport, own_kafka: LocalKafka
) -> None:
    """The cluster looks for such every ten seconds."""
    connection = Connection.of(own_kafka.address)
    with administering(transport, connection) as admin:
        topic = new_topic(admin, partitions=1)
    with transacting(transport, connection, settings=WriterSettings(transaction_timeout="1s")) as producer:
        send(producer, topic, b"too late")
        assert producer.flush(10)
        with consuming(transport, connection) as consumer:
            consumer.assign({Partition(topic, 0): 0})
            # Nobody reads past what is open: a position past it says that the cluster has ended it.
            deadline = time.monotonic() + 25
            while consumer.position(Partition(topic, 0)) == 0:
                assert time.monotonic() < deadline
                assert consumer.poll(0.2).records == []
        with pytest.raises(TransactionError):
            producer.commit_transaction({}, None, 10)
        producer.abort_transaction(10)
        send(producer, topic, b"in time")
        producer.commit_transaction({}, None, 10)
    assert values(transport, connection, topic) == [b"in time"]


def test_closing_aborts_what_is_open_and_ends_in_time(transport: Transport, connection: Connection, topic: str) -> None:
    before = client_threads()
    producer = transport.transactional(connection, WriterSettings(linger="10s"), transactional_id=new_id())
    send(producer, topic, b"open")
    assert producer.flush(10)
    outcomes = send(producer, topic, b"queued")
    start = time.monotonic()
    producer.close(5)
    producer.close(5)
    assert time.monotonic() - start < 5
    assert outcomes.wait(0)
    assert len(outcomes.errors) == 1
    with pytest.raises(ClosedError):
        send(producer, topic, b"late")
    # The reader would be held up by a transaction that is open.
    assert values(transport, connection, topic) == []
    wait_until(lambda: client_threads() <= before, 2)


def test_closing_ends_in_time_while_the_broker_is_frozen(transport: Transport, own_kafka: LocalKafka) -> None:
    connection = Connection.of(own_kafka.address)
    with administering(transport, connection) as admin:
        topic = new_topic(admin, partitions=1)
    producer = transport.transactional(connection, WriterSettings(), transactional_id=new_id())
    send(producer, topic, b"open")
    assert producer.flush(10)
    own_kafka.pause()
    outcomes = send(producer, topic, b"lost")
    start = time.monotonic()
    producer.close(2)
    assert time.monotonic() - start < 3
    assert outcomes.wait(0)


def test_an_id_that_may_not_be_used_is_denied_by_name(transport: Transport, guarded_kafka: LocalKafka) -> None:
    name = new_id()
    forbid(guarded_kafka.address, ResourceType.TRANSACTIONAL_ID, name, ACLOperation.WRITE)
    with pytest.raises(AccessDeniedError, match=name):
        transport.transactional(Connection.of(guarded_kafka.address), WriterSettings(), transactional_id=name)


def test_a_timeout_that_the_cluster_does_not_allow_is_named(transport: Transport, connection: Connection) -> None:
    before = client_threads()
    with pytest.raises(SettingsError, match=r"transaction_timeout='10h'.*transaction\.max\.timeout\.ms"):
        transport.transactional(connection, WriterSettings(transaction_timeout="10h"), transactional_id=new_id())
    wait_until(lambda: client_threads() <= before, 2)


def test_a_new_owner_waits_for_the_offsets_that_the_old_one_is_committing(
    transport: Transport, connection: Connection, topic: str
) -> None:
    """Offsets of a transaction that is not ended are told to nobody; nor are those before them, as if they held."""
    group = new_group()
    with joined(transport, connection, topic, group) as member, transacting(transport, connection) as producer:
        part = min(member.owned)
        member.consumer.commit({part: Offset(1)})
        with pending_offsets(producer, {part: Offset(2)}, member.consumer.membership) as end:
            impatient = Connection(brokers=connection.brokers, connect_timeout="1s")
            with consuming(transport, impatient, group) as other:
                with pytest.raises(BrokerUnavailableError) as raised:
                    other.committed([part])
                assert raised.value.retriable
            with consuming(transport, connection, group) as other:
                threading.Timer(0.5, end).start()
                assert other.committed([part]) == {part: Offset(2)}


@contextmanager
def pending_offsets(producer: TransactionalProducer, offsets: object, membership: object) -> Iterator[object]:
    """A commit that has said which offsets, and does not end until it is told to."""
    held, going = threading.Event(), threading.Event()
    if isinstance(producer, ConfluentTransactional):
        hold_confluent(producer, held, going)
    else:
        hold_kafka_python(producer, held, going)
    committing = threading.Thread(target=producer.commit_transaction, args=(offsets, membership, 30))
    committing.start()
    assert held.wait(10)
    try:
        yield going.set
    finally:
        going.set()
        committing.join()


def hold_confluent(producer: ConfluentTransactional, held: threading.Event, going: threading.Event) -> None:
    repeated = producer._repeated

    def hold(doing: str, deadline: float, call: Callable[[float], object]) -> None:
        if doing == "the end":
            held.set()
            going.wait(20)
        repeated(doing, deadline, call)

    producer._repeated = hold  # type: ignore[method-assign]


def hold_kafka_python(producer: TransactionalProducer, held: threading.Event, going: threading.Event) -> None:
    requests = producer._requests  # type: ignore[attr-defined]
    end = requests.end

    async def hold(*args: object, **options: object) -> None:
        held.set()
        while not going.is_set():
            await producer._net.sleep(0.01)  # type: ignore[attr-defined]
        await end(*args, **options)

    requests.end = hold
