"""The consumer as a member of a group whose partitions come and go: what every adapter does."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import pytest

from quixframes.errors import CommitError, FencedError, GroupMovedOnError
from quixframes.kafka import Admin, Change, Consumer, Offset, Partition, Rebalance, Transport
from quixframes.settings import Connection, ReaderSettings, WriterSettings
from tests.adapters.helpers import (
    QUICK,
    Member,
    Outcomes,
    answering,
    consuming,
    driving,
    message,
    new_group,
    new_topic,
    nothing,
    numbers,
    wait_until,
    write,
)

STRATEGIES = ["cooperative-sticky", "sticky", "range", "roundrobin"]
strategies = pytest.mark.parametrize("strategy", STRATEGIES)


class Slow:
    """A ``revoking`` whose owner takes its time, once it has begun: a group may rebalance before, when its leader has
    come to know all partitions."""

    def __init__(self) -> None:
        self.begun = False
        self.asked = threading.Event()
        self.futures: list[tuple[frozenset[Partition], Future[Mapping[Partition, Offset]]]] = []

    def __call__(self, partitions: frozenset[Partition]) -> Future[Mapping[Partition, Offset]]:
        future: Future[Mapping[Partition, Offset]] = Future()
        if not self.begun:
            future.set_result({})
            return future
        self.futures.append((partitions, future))
        self.asked.set()
        return future


@strategies
def test_what_is_finished_is_committed_before_another_member_has_the_partition_by_each_strategy(
    transport: Transport, connection: Connection, topic: str, strategy: str
) -> None:
    settings = replace(QUICK, assignment=strategy)
    group = new_group()
    write(transport, connection, topic, 300)
    with (
        consuming(transport, connection, group, settings) as first,
        consuming(transport, connection, group, settings) as second,
    ):
        old, new = Member(first), Member(second)
        first.subscribe([topic], answering(lambda going: {part: Offset(first_unread(old, part)) for part in going}))
        old.poll_until(lambda: len(old.records) == 300)
        second.subscribe([topic], nothing)
        with driving(old, new):
            wait_until(lambda: len(old.owned) + len(new.owned) == 3 and bool(new.owned) and bool(old.owned), 20)
            write(transport, connection, topic, 100, first=300)
            wait_until(lambda: len(old.records) + len(new.records) >= 400, 20)
        # Nothing came twice to the new one: it went on from where the old one was.
        assert numbers(old.records + new.records) == list(range(400))


def first_unread(member: Member, partition: Partition) -> int:
    return 1 + max(record.offset for record in member.records if record.partition == partition.number)


@strategies
def test_a_member_that_goes_leaves_its_partitions_to_the_others_by_each_strategy(
    transport: Transport, connection: Connection, topic: str, strategy: str
) -> None:
    settings = replace(QUICK, assignment=strategy)
    group = new_group()
    with consuming(transport, connection, group, settings) as stays:
        member = Member(stays)
        stays.subscribe([topic], nothing)
        with consuming(transport, connection, group, settings) as goes:
            other = Member(goes)
            goes.subscribe([topic], nothing)
            with driving(member, other):
                wait_until(lambda: len(member.owned) + len(other.owned) == 3 and 0 < len(other.owned) < 3, 20)
        start = time.monotonic()
        member.poll_until(lambda: len(member.owned) == 3)
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
def test_partitions_that_go_are_kept_until_their_owner_has_finished(
    transport: Transport, connection: Connection, topic: str, strategy: str
) -> None:
    """For longer than the session: the member is not given up. Its polls return in time meanwhile."""
    settings = ReaderSettings(session_timeout="6s", revoke_timeout="15s", assignment=strategy)
    group, slow = new_group(), Slow()
    write(transport, connection, topic, 30)
    with (
        consuming(transport, connection, group, settings) as first,
        consuming(transport, connection, group, settings) as second,
    ):
        old, new = Member(first), Member(second)
        first.subscribe([topic], slow)
        old.poll_until(lambda: len(old.records) == 30)
        slow.begun = True
        second.subscribe([topic], nothing)
        with driving(new):
            old.poll_until(slow.asked.is_set)
            asked = time.monotonic()
            while time.monotonic() - asked < 8:
                start = time.monotonic()
                old.poll(0.2)
                assert time.monotonic() - start < 0.6
            (going, future), *_ = slow.futures
            assert going <= old.owned
            assert not going & new.owned
            future.set_result({part: Offset(7, "late") for part in going})
            with driving(old):
                wait_until(lambda: bool(new.owned & going), 20)
                wait_until(lambda: len(old.owned) + len(new.owned) == 3, 20)
        assert Change.Lost not in {it.change for it in old.rebalances}
        moved = new.owned & going
        assert second.committed(moved) == dict.fromkeys(moved, Offset(7, "late"))
        for _, other in slow.futures[1:]:
            other.cancel()


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
@pytest.mark.parametrize("by", ["commit", "transaction"])
def test_an_owner_commits_what_is_about_to_go(
    transport: Transport, connection: Connection, topic: str, strategy: str, by: str
) -> None:
    settings = replace(QUICK, assignment=strategy)
    group, slow = new_group(), Slow()
    producer = transport.transactional(connection, WriterSettings(), transactional_id=group)
    with (
        consuming(transport, connection, group, settings) as first,
        consuming(transport, connection, group, settings) as second,
    ):
        old, new = Member(first), Member(second)
        first.subscribe([topic], slow)
        old.poll_until(lambda: len(old.owned) == 3)
        slow.begun = True
        second.subscribe([topic], nothing)
        with driving(new):
            old.poll_until(slow.asked.is_set)
            going, future = slow.futures[0]
            offsets = {part: Offset(9, "in time") for part in going}
            start = time.monotonic()
            if by == "commit":
                first.commit(offsets)
            else:
                producer.send(message(topic), Outcomes().of(0))
                producer.commit_transaction(offsets, first.membership, 5)
            assert time.monotonic() - start < 2
            future.set_result({})
            with driving(old):
                wait_until(lambda: bool(new.owned & going), 20)
            assert second.committed(new.owned & going) == dict.fromkeys(new.owned & going, Offset(9, "in time"))
        for _, other in slow.futures[1:]:
            other.cancel()
    producer.close(5)


def test_an_owner_that_does_not_finish_in_time_loses_its_partitions_uncommitted(
    transport: Transport, connection: Connection, topic: str
) -> None:
    settings = ReaderSettings(session_timeout="6s", revoke_timeout="1s")
    group, slow = new_group(), Slow()
    with (
        consuming(transport, connection, group, settings) as first,
        consuming(transport, connection, group, settings) as second,
    ):
        old, new = Member(first), Member(second)
        first.subscribe([topic], slow)
        old.poll_until(lambda: len(old.owned) == 3)
        slow.begun = True
        second.subscribe([topic], nothing)
        with driving(new, old):
            wait_until(lambda: bool(new.owned), 20)
            assert slow.futures[0][1].cancelled()
            assert set(second.committed(new.owned).values()) == {None}
            for moved in new.owned:
                with pytest.raises(GroupMovedOnError):
                    first.commit({moved: Offset(1)})
        closing = time.monotonic()
        first.close(2)
        assert time.monotonic() - closing < 2.5


def test_closing_waits_for_the_owner_within_its_timeout(
    transport: Transport, connection: Connection, topic: str
) -> None:
    group, slow = new_group(), Slow()
    consumer = transport.consumer(connection, QUICK, group=group)
    member = Member(consumer)
    consumer.subscribe([topic], slow)
    member.poll_until(lambda: len(member.owned) == 3)
    slow.begun = True
    closing = threading.Thread(target=consumer.close, args=(10,))
    closing.start()
    assert slow.asked.wait(5)
    time.sleep(1)
    going, future = slow.futures[0]
    assert going == member.owned
    future.set_result(dict.fromkeys(going, Offset(4, "last")))
    closing.join(5)
    assert not closing.is_alive()
    with consuming(transport, connection, group) as after:
        assert set(after.committed(going).values()) == {Offset(4, "last")}


def test_a_static_member_has_its_partitions_again_and_the_others_hear_nothing(
    transport: Transport, connection: Connection, topic: str
) -> None:
    group = new_group()
    settings = ReaderSettings(session_timeout="10s")
    first = replace(settings, instance_id="first")
    second = replace(settings, instance_id="second")
    write(transport, connection, topic, 30)
    with consuming(transport, connection, group, second) as consumer:
        stays = Member(consumer)
        consumer.subscribe([topic], nothing)
        before = transport.consumer(connection, first, group=group)
        goes = Member(before)
        before.subscribe([topic], answering(lambda going: dict.fromkeys(going, Offset(1, "left"))))
        with driving(stays, goes):
            wait_until(lambda: len(stays.owned) + len(goes.owned) == 3 and 0 < len(goes.owned) < 3, 20)
        had = set(goes.owned)
        stays.rebalances.clear()
        before.close(5)
        with driving(stays):
            with consuming(transport, connection, group, first) as consumer:
                comes_back = Member(consumer)
                consumer.subscribe([topic], nothing)
                comes_back.poll_until(lambda: bool(comes_back.owned), 5)
                assert comes_back.owned == had
                assert set(consumer.committed(had).values()) == {Offset(1, "left")}
                consumer.commit(dict.fromkeys(had, Offset(2)))
            time.sleep(2)  # two heartbeats, at least
        assert stays.rebalances == []


def test_a_static_member_whose_name_another_takes_is_told_within_seconds(
    transport: Transport, connection: Connection, topic: str
) -> None:
    group, settings = new_group(), replace(QUICK, instance_id="one")
    with (
        consuming(transport, connection, group, settings) as first,
        consuming(transport, connection, group, settings) as second,
    ):
        old, new = Member(first), Member(second)
        first.subscribe([topic], nothing)
        old.poll_until(lambda: len(old.owned) == 3)
        owned = set(old.owned)
        second.subscribe([topic], nothing)
        new.poll_until(lambda: len(new.owned) == 3)
        start = time.monotonic()
        with driving(new):
            with pytest.raises(FencedError, match="one"):
                old.poll_until(lambda: False, 10)
            assert time.monotonic() - start < 4
            with pytest.raises(FencedError):
                first.poll(0.1)
            with pytest.raises(CommitError):
                first.commit(dict.fromkeys(owned, Offset(5)))
            producer = transport.transactional(connection, WriterSettings(), transactional_id=group)
            producer.send(message(topic), Outcomes().of(0))
            with pytest.raises((FencedError, GroupMovedOnError)):
                producer.commit_transaction(dict.fromkeys(owned, Offset(5)), first.membership, 5)
            producer.abort_transaction(5)
            producer.close(5)
        assert set(second.committed(owned).values()) == {None}


def test_topics_are_changed_by_subscribing_again(transport: Transport, connection: Connection, admin: Admin) -> None:
    one, two, three = (new_topic(admin, partitions=2) for _ in range(3))
    group = new_group()
    for topic in (one, two, three):
        write(transport, connection, topic, 10)
    with consuming(transport, connection, group) as consumer:
        member = Member(consumer)
        consumer.subscribe([one, two], answering(lambda going: dict.fromkeys(going, Offset(3))))
        member.poll_until(lambda: len(member.owned) == 4 and len(member.records) == 20)
        consumer.subscribe([two, three], nothing)
        member.poll_until(lambda: {part.topic for part in member.owned} == {two, three})
        member.poll_until(lambda: len([it for it in member.records if it.topic == three]) == 10)
        gone = {Partition(one, 0), Partition(one, 1)}
        assert set(consumer.committed(gone).values()) == {Offset(3)}, "the first revoking holds"
        write(transport, connection, two, 5, first=100)
        member.poll_until(lambda: set(range(100, 105)) <= set(numbers(member.records)))


def test_the_lag_is_what_is_left_to_read_of_what_counts(
    transport: Transport, connection: Connection, admin: Admin
) -> None:
    topic = new_topic(admin, partitions=2)
    place, empty = Partition(topic, 0), Partition(topic, 1)
    producer = transport.transactional(connection, WriterSettings(), transactional_id=topic)

    def send(count: int) -> None:
        for number in range(count):
            producer.send(message(topic, b"%d" % number)._replace(partition=0), lambda _: None)
        assert producer.flush(10)

    send(1_200)
    producer.commit_transaction({}, None, 10)
    with consuming(transport, connection) as consumer:
        consumer.assign({place: 0, empty: 0})
        assert consumer.lag(place) in (None, 1_201)  # a client that reads by itself may know already
        found = 0
        while not found:
            found += len(consumer.poll(0.5).records)
        position = consumer.position(place)
        assert position is not None
        assert consumer.lag(place) == 1_201 - position
        while consumer.lag(place) != 0:
            consumer.poll(0.1)
        assert consumer.position(place) == 1_201
        wait_until(lambda: consumer.poll(0.1) is None or consumer.lag(empty) == 0)
        send(5)  # not committed: nothing that can be read
        for _ in range(5):
            assert consumer.poll(0.1).records == []
        assert consumer.lag(place) == 0
        producer.commit_transaction({}, None, 10)
        consumer.seek(place, 1_000)
        while not consumer.poll(0.1).records:
            pass
        wait_until(lambda: consumer.poll(0.1) is None or consumer.lag(place) == 0)
        assert consumer.lag(Partition(topic, 7)) is None
    producer.close(5)


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "sticky"])
def test_commits_go_on_while_members_come_and_go_by_each_strategy(
    transport: Transport, connection: Connection, admin: Admin, strategy: str
) -> None:
    topic, group = new_topic(admin, partitions=6), new_group()
    settings = replace(QUICK, assignment=strategy)
    with consuming(transport, connection, group, settings) as consumer:
        member = Member(consumer)
        consumer.subscribe([topic], nothing)
        member.poll_until(lambda: len(member.owned) == 6)
        done = threading.Event()

        def come_and_go() -> None:
            with consuming(transport, connection, group, settings) as other:
                visitor = Member(other)
                other.subscribe([topic], nothing)
                visitor.poll_until(partial(bool, visitor.owned))
            done.set()

        thread = threading.Thread(target=come_and_go)
        thread.start()
        commits = committed_while(member, consumer, done)
        thread.join()
        assert commits > 10


def committed_while(member: Member, consumer: Consumer, done: threading.Event) -> int:
    commits = 0
    while not done.is_set():
        for part in sorted(member.owned)[:2]:
            try:
                consumer.commit({part: Offset(commits)})
                commits += 1
            except GroupMovedOnError:
                news: list[Rebalance] = member.rebalances
                before = len(news)
                member.poll(0)
                assert len(news) > before, "the next poll says how"
                break
        member.poll(0.01)
    return commits
