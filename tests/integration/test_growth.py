"""A topic that is given more partitions: streams stay where they are, and in order; new ones use all of it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
import pytest

import quixframes as qf
from quixframes.bounded import Step, read_range
from quixframes.errors import OffsetGoneError
from quixframes.kafka import Consumer
from quixframes.placement import partition_of
from tests.waiting import wait_for

MakeTopic = Callable[..., str]


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers learn of it within half a second."""
    monkeypatch.setattr("quixframes.placement_store.LEASE", 0.5)
    monkeypatch.setattr("quixframes.growth.LEASE", 0.5)


def rows(first: int, count: int) -> pd.DataFrame:
    time = pd.date_range("2026-11-01", periods=count, freq="s") + pd.Timedelta(seconds=first)
    return pd.DataFrame({"time": time, "n": range(first, first + count)})


def places(client: qf.StreamingClient, topic: str) -> dict[str, set[int]]:
    """The partitions in which each stream is."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for batch in client.replay(topic, progress=False).batches():
        found[batch.stream_id].add(batch.partition)
    return found


def numbers(client: qf.StreamingClient, topic: str) -> dict[str, list[int]]:
    frame = client.replay(topic, progress=False).to_frame()
    return {str(stream): part["n"].tolist() for stream, part in frame.groupby("stream", observed=True)}


class Writer(threading.Thread):
    """Writes the next rows of every stream in turn, until it is stopped."""

    def __init__(self, address: str, topic: str, streams: list[str], counts: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self._address, self._topic, self._streams = address, topic, streams
        self.counts = counts
        self.rounds = 0
        self.stop = threading.Event()

    def run(self) -> None:
        with qf.StreamingClient(self._address) as client, client.open_output_topic(self._topic) as out:
            while not self.stop.is_set():
                for stream in self._streams:
                    out.write(rows(self.counts[stream], 2), stream=stream)
                    self.counts[stream] += 2
                self.rounds += 1
                out.flush()


@contextmanager
def writing(address: str, topic: str, streams: list[str], counts: dict[str, int]) -> Iterator[Writer]:
    writer = Writer(address, topic, streams, counts)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop.set()
        writer.join(60)
        assert not writer.is_alive()


def test_300_streams_stay_in_order_while_their_topic_grows_from_3_to_12_and_their_writer_restarts(
    client: qf.StreamingClient, broker_address: str, make_topic: MakeTopic, group: str
) -> None:
    topic = make_topic(partitions=3)
    streams = [f"car-{n}" for n in range(300)]
    counts = dict.fromkeys([*streams, *(f"new-{n}" for n in range(100))], 0)
    read: defaultdict[str, list[int]] = defaultdict(list)
    done = threading.Event()

    def reading() -> None:
        with qf.StreamingClient(broker_address) as own, own.open_input_topic(topic, group) as source:
            while not done.is_set():
                for batch in source.batches(rows=100, timeout="50ms", idle="500ms"):
                    read[batch.stream_id] += batch.frame["n"].tolist()

    reader = threading.Thread(target=reading, daemon=True)
    reader.start()
    grown: list[qf.Growth] = []
    grower = threading.Thread(
        target=lambda: grown.append(client.topics.add_partitions(topic, 12, settle="3s", progress=False))
    )
    with writing(broker_address, topic, streams[:250], counts) as first:
        assert wait_for(lambda: first.rounds > 0, 90)
        grower.start()
        assert wait_for(lambda: client.topics.describe(topic).partitions == 12, 90)
        assert wait_for(lambda: first.rounds > 1, 90)
    # It comes back while the topic is growing, with 50 streams that nobody has seen yet.
    with writing(broker_address, topic, streams, counts) as second:
        assert wait_for(lambda: second.rounds > 0, 90)
        grower.join(90)
        rounds = second.rounds
        assert wait_for(lambda: second.rounds > rounds, 90)
    with writing(broker_address, topic, list(counts), counts) as third:
        assert wait_for(lambda: third.rounds > 0, 90)
    written = {stream: list(range(count)) for stream, count in counts.items()}
    assert wait_for(lambda: sum(map(len, read.values())) == sum(counts.values()), 90)
    done.set()
    reader.join(30)
    assert read == written
    assert numbers(client, topic) == written
    found = places(client, topic)
    assert all(len(numbers) == 1 for numbers in found.values())
    assert all(max(found[stream]) < 3 for stream in streams[:250])  # the others as far as it was growing still
    assert set().union(*(found[f"new-{n}"] for n in range(100))) == set(range(12))
    (growth,) = grown
    assert (growth.before, growth.after) == (3, 12)
    assert 250 <= growth.streams <= 300
    assert growth.streams / 2 < growth.would_have_moved < growth.streams
    assert f"{growth.streams} streams stay where they are" in str(growth)


def test_a_topic_grows_several_times_and_its_oldest_streams_stay_where_they_were_first(
    client: qf.StreamingClient, broker_address: str, make_topic: MakeTopic
) -> None:
    topic = make_topic(partitions=1)
    counts = [1, 4, 9]
    for generation, count in enumerate(counts):
        client.topics.add_partitions(topic, count, settle="100ms", progress=False)
        for older in range(generation + 1):
            with qf.StreamingClient(broker_address) as own, own.open_output_topic(topic) as out:
                for n in range(30):
                    out.write(rows(generation, 1), stream=f"{older}-{n}")
    for stream, found in places(client, topic).items():
        assert len(found) == 1
        generation = int(stream[0])
        if generation < 2:
            assert found == {partition_of(stream.encode(), counts[generation])}
    assert numbers(client, topic)["0-0"] == [0, 1, 2]


def test_growing_goes_on_where_it_was_cut_off(
    client: qf.StreamingClient, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = make_topic(partitions=2)
    with client.open_output_topic(topic) as out:
        out.write(rows(0, 1), stream="car-1")

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("quixframes.growth._keys", dies)
        with pytest.raises(KeyboardInterrupt):
            client.topics.add_partitions(topic, 5, settle="100ms", progress=False)
    with client.open_output_topic(topic) as out:
        out.write(rows(0, 1), stream="car-2")  # pinned
    growth = client.topics.add_partitions(topic, 5, settle="100ms", progress=False)
    assert (growth.before, growth.after, growth.streams) == (2, 5, 2)
    again = client.topics.add_partitions(topic, 5, progress=False)
    assert "already" in str(again)


def test_partitions_cannot_be_taken_away(client: qf.StreamingClient, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=3)
    too_few = f"topic '{topic}' has 3 partitions, and Kafka cannot take any away"
    with pytest.raises(qf.SettingsError, match=too_few):
        client.topics.add_partitions(topic, 2)
    grown = make_topic(partitions=1)
    client.topics.add_partitions(grown, 2, settle="100ms", progress=False)
    client._get_admin().add_partitions(grown, 5)  # as any other tool would
    with pytest.raises(qf.SettingsError, match="has 5 partitions"):
        client.topics.add_partitions(grown, 4, settle="100ms", progress=False)


def test_growing_removes_no_row_and_tells_how_large_the_topic_may_become(
    client: qf.StreamingClient, make_topic: MakeTopic, caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic(partitions=2, retention_size="60 MB")
    growth = client.topics.add_partitions(topic, 6, settle="100ms", progress=False)
    assert (growth.size_before, growth.size_after) == (60_000_000, 180_000_000)
    assert client.topics.describe(topic).settings["retention.bytes"] == "30000000"
    call = f"client.topics.alter('{topic}', retention_size='60 MB')"
    assert call in str(growth)
    assert [record.levelname for record in caplog.records if call in record.message] == ["WARNING"]
    assert eval(call, {"client": client}).ok
    assert client.topics.describe(topic).settings["retention.bytes"] == "10000000"
    assert client.topics.apply([qf.TopicSpec(topic, partitions=6, retention_size="60 MB")]).ok
    unlimited = client.topics.add_partitions(make_topic(), 2, settle="100ms", progress=False)
    assert (unlimited.size_before, unlimited.size_after) == (None, None)


def test_a_topic_that_does_not_grow_keeps_its_size(
    client: qf.StreamingClient, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a size for 6 partitions is too small for 2, and would take rows away."""
    topic = make_topic(partitions=2, retention_size="60 MB")

    def fails(*_: object, **__: object) -> None:
        raise qf.BrokerUnavailableError("nobody answers")

    monkeypatch.setattr(client.topics._changes, "_grow", fails)
    done = client.topics.apply([qf.TopicSpec(topic, partitions=6, retention_size="60 MB", retention="1 day")])
    assert done.table[["item", "outcome"]].to_numpy().tolist() == [
        ["partitions", "failed"],
        ["retention_size", "failed"],
        ["retention", "done"],
    ]
    assert client.topics.describe(topic).settings["retention.bytes"] == "30000000"


def test_growing_goes_on_where_retention_removes_rows_while_streams_are_looked_for(
    client: qf.StreamingClient, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = make_topic(partitions=1)
    with client.open_output_topic(topic) as out:
        for n in range(4):
            out.write(rows(0, 1), stream=f"car-{n}")
    begins: list[int] = []

    def gone_once(consumer: Consumer, topic: str, begin: dict[int, int], end: dict[int, int]) -> Iterator[Step]:
        begins.append(begin[0])
        if len(begins) == 1:
            admin = client._get_admin()
            monkeypatch.setattr(admin, "beginnings", lambda _: {0: 2})
            raise OffsetGoneError("retention removed this")
        return read_range(consumer, topic, begin, end)

    monkeypatch.setattr("quixframes.growth.read_range", gone_once)
    assert client.topics.add_partitions(topic, 3, settle="100ms", progress=False).streams == 2
    assert begins == [0, 2]


def test_a_topic_that_was_made_anew_has_forgotten_its_growth(client: qf.StreamingClient, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=1)
    client.topics.add_partitions(topic, 3, settle="100ms", progress=False)
    client.topics.delete(topic)
    client.topics.create(topic, partitions=2)
    with client.open_output_topic(topic) as out:
        for n in range(20):
            out.write(rows(0, 1), stream=f"car-{n}")
    assert all(found == {partition_of(s.encode(), 2)} for s, found in places(client, topic).items())
