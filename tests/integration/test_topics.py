"""``client.topics``: what is made, shown, changed and compared, on a real Kafka."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pandas as pd
import pytest

import quixframes as qf
from quixframes.errors import BrokerError, SettingsError, TopicNotFoundError
from tests.conftest import MakeTopic
from tests.waiting import wait_for

Frames = Callable[..., pd.DataFrame]


@pytest.fixture
def name(client: qf.StreamingClient) -> Iterator[str]:
    """A name that no topic has; what it comes to name is removed."""
    name = f"topics-{uuid.uuid4().hex[:8]}"
    yield name
    if client.topics.exists(name):
        client.topics.delete(name)


def write(client: qf.StreamingClient, topic: str, streams: list[str], frame: pd.DataFrame) -> None:
    with client.open_output_topic(topic) as output:
        for stream in streams:
            output.get_or_create_stream(stream).parameters.write(frame)


def test_a_topic_is_made_with_what_people_write(client: qf.StreamingClient, name: str) -> None:
    client.topics.create(
        name,
        partitions=4,
        replication=1,
        retention="7 days",
        retention_size="50 GB",
        message_limit="2 MB",
        compression="zstd",
        min_in_sync=1,
    )
    found = client.topics.describe(name)
    assert (found.partitions, found.replication, found.message_limit) == (4, 1, 2_000_000)
    assert found.settings == {
        "retention.ms": "604800000",
        "segment.ms": "60480000",
        "retention.bytes": "12500000000",
        "segment.bytes": "1073741824",
        "max.message.bytes": "2000000",
        "compression.type": "zstd",
        "min.insync.replicas": "1",
    }
    assert "7 days or 50 GB (12.5 GB in each partition)" in repr(found)


def test_a_description_has_sizes_times_partitions_and_the_lag_of_groups(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: Frames, group: str
) -> None:
    topic = make_topic(3)
    frame = make_frame(50)
    write(client, topic, [f"car-{n}" for n in range(10)], frame)
    with client.open_input_topic(topic, group, qf.CommitMode.Manual) as source:
        for _ in zip(range(4), source.batches(timeout="10s"), strict=False):
            pass
        source.commit()
    found = client.topics.describe(topic)
    assert (found.oldest, found.newest) == (frame.index[0], frame.index[-1])
    assert (found.rows, found.streams) == (None, None)
    table = found.by_partition
    assert found.messages == table["messages"].sum() == (table["end"] - table["first"]).sum()
    assert list(table["leader"]) == [1, 1, 1]
    assert list(table["in_sync"]) == [(1,)] * 3
    if found.bytes is not None:  # the transport tells
        assert found.bytes == found.stored == table["bytes"].sum() > 10 * 50 * 8 * 4
    assert found.lag.index.names == ["group", "partition"]
    assert 0 < found.lag.loc[group, "lag"].sum() < found.messages
    assert group in repr(found)
    read = client.topics.describe(topic, rows=True)
    assert (read.rows, read.streams) == (500, 10)
    assert (read.oldest, read.newest) == (found.oldest, found.newest)
    assert read.by_partition["streams"].sum() == 10
    for html in (found._repr_html_(), read._repr_html_()):
        assert topic in html


def test_an_empty_topic_is_described(client: qf.StreamingClient, topic: str) -> None:
    found = client.topics.describe(topic, rows=True)
    assert (found.messages, found.rows, found.streams) == (0, 0, 0)
    assert (found.oldest, found.newest) == (None, None)
    assert found.lag.empty
    assert "1, on 1 broker each" in repr(found)
    assert client.topics.balance(topic).imbalance["rows"] == 1.0


def test_topics_are_a_table(client: qf.StreamingClient, make_topic: MakeTopic, make_frame: Frames) -> None:
    topic = make_topic(2, retention="3 days")
    write(client, topic, ["car-1"], make_frame(20))
    row = client.topics.table().loc[topic]
    assert (row["partitions"], row["replication"]) == (2, 1)
    assert row["retention"] == pd.Timedelta(days=3)
    assert pd.isna(row["retention_size"])
    assert row["newest"] == make_frame(20).index[-1]
    assert topic in client.topics.list()


def test_a_replication_over_the_number_of_brokers_is_refused_before_anything_is_made(
    client: qf.StreamingClient, name: str
) -> None:
    with pytest.raises(SettingsError, match=f"replication=3 of topic '{name}' needs as many brokers, .* has 1"):
        client.topics.create(name, replication=3)
    with pytest.raises(SettingsError, match="min_in_sync=2 of topic .* needs replication= too"):
        client.topics.create(name, min_in_sync=2)
    assert not client.topics.exists(name)


def test_a_setting_is_altered_and_the_others_stay(client: qf.StreamingClient, make_topic: MakeTopic) -> None:
    topic = make_topic(2, retention="3 days", message_limit="2 MB")
    changed = client.topics.alter(topic, retention="6 hours", retention_size="100 MB")
    assert list(changed.table["item"]) == ["retention", "retention_size"]
    assert list(changed.table["now"]) == ["3 days", "unlimited"]
    assert list(changed.table["wanted"]) == ["6 hours", "100 MB (50 MB in each of 2 partitions)"]
    assert set(changed.table["outcome"]) == {"done"}
    as_it_is = ["as it is to be"]  # which brokers hear of a moment later
    assert wait_for(lambda: list(client.topics.alter(topic, retention="6 hours").table["outcome"]) == as_it_is)
    found = client.topics.describe(topic)
    assert (found.settings["retention.ms"], found.message_limit) == ("21600000", 2_000_000)
    with pytest.raises(SettingsError, match="min_in_sync=2 .*: the topic has a replication of 1 only"):
        client.topics.alter(topic, min_in_sync=2)
    with pytest.raises(TopicNotFoundError, match="no-such-topic"):
        client.topics.alter("no-such-topic", retention="1 day")


def test_a_desired_state_is_shown_and_then_done(
    client: qf.StreamingClient, make_topic: MakeTopic, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be is refused with the reason, and the rest is done all the same."""
    monkeypatch.setattr("quixframes.growth.LEASE", 0.1)
    grows, shrinks, is_so = make_topic(2), make_topic(3), make_topic(1, retention="3 days")
    specs = [
        qf.TopicSpec(name, partitions=2, retention="1 day"),
        qf.TopicSpec(grows, partitions=4, retention="2 days"),
        qf.TopicSpec(shrinks, partitions=2, replication=2, compression="lz4"),
        qf.TopicSpec(is_so, retention="72 hours"),
        qf.TopicSpec(f"{name}-2", message_limit="3 GB"),
        qf.TopicSpec("too-safe", replication=3),
    ]
    expected = [
        (name, "topic", "done"),
        (grows, "partitions", "done"),
        (grows, "retention", "done"),
        (shrinks, "compression", "done"),
        (shrinks, "partitions", "refused"),
        (shrinks, "replication", "refused"),
        (is_so, "", "as it is to be"),
        (f"{name}-2", "topic", "failed"),
        ("too-safe", "topic", "refused"),
    ]
    planned = client.topics.apply(specs, dry_run=True)
    states = [(topic, item, "to do" if state in ("done", "failed") else state) for topic, item, state in expected]
    assert list(planned.table[["topic", "item", "outcome"]].itertuples(index=False, name=None)) == states
    assert not client.topics.exists(name)
    done = client.topics.apply(specs, settle="100ms")
    assert list(done.table[["topic", "item", "outcome"]].itertuples(index=False, name=None)) == expected
    assert not done.ok
    assert "Kafka cannot take partitions away" in repr(done)
    assert isinstance(done.not_done[-2].error, BrokerError)
    assert "needs as many brokers" in done._repr_html_()
    assert client.topics.describe(grows).partitions == 4
    assert client.topics.describe(name).settings["retention.ms"] == "86400000"
    again = client.topics.apply(specs[:2])
    assert again.ok
    assert set(again.table["outcome"]) == {"as it is to be"}


def test_a_topic_is_made_on_open_where_the_user_allows_it(client: qf.StreamingClient, name: str, group: str) -> None:
    with pytest.raises(TopicNotFoundError, match=name):
        client.open_output_topic(name)
    with pytest.raises(SettingsError, match="is of another topic"):
        client.open_output_topic(name, create=qf.TopicSpec("another", partitions=2))
    client.open_output_topic(name, create=qf.TopicSpec(name, partitions=2)).close()
    client.open_output_topic(name, create=qf.TopicSpec(name, partitions=5)).close()
    assert client.topics.describe(name).partitions == 2
    client.topics.delete(name)
    client.open_input_topic(name, group, create=True).close()
    assert client.topics.describe(name).partitions == 1


def test_a_topic_is_not_made_twice(client: qf.StreamingClient, topic: str) -> None:
    with pytest.raises(BrokerError, match="exists already"):
        client.topics.create(topic)
    with pytest.raises(SettingsError, match="several specs of topic"):
        client.topics.apply([qf.TopicSpec(topic), qf.TopicSpec(topic)])


def test_the_streams_of_a_topic_are_spread_evenly(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: Frames
) -> None:
    """As they are really written: 3,000 streams over 12 partitions."""
    topic = make_topic(12)
    frame = make_frame(2, 1)
    write(client, topic, [f"car-{number}" for number in range(3_000)], frame)
    found = client.topics.balance(topic)
    assert found.table.sum().loc[["streams", "rows"]].to_dict() == {"streams": 3_000, "rows": 6_000}
    assert found.imbalance["streams"] < 1.15
    assert found.imbalance["rows"] == found.imbalance["streams"]
    assert found._repr_html_().count("<tr>") == 13
    assert "3,000 streams, 6,000 rows" in repr(found)
    assert len(found.plot().axes) == 3
