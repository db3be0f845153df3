"""``client.reset_group``: a consumer group of a real Kafka, set to another place."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

import quixframes as qf
from tests.conftest import MakeTopic


@pytest.fixture
def written(client: qf.StreamingClient, make_topic: MakeTopic) -> str:
    """Twenty messages of ten rows, one after the other, in each of two partitions or in one of them."""
    topic = make_topic(partitions=2)
    with client.open_output_topic(topic) as out:
        for start in range(0, 200, 10):
            index = pd.date_range("2026-11-15", periods=10, freq="s", tz="UTC", name="time")
            out.write(pd.DataFrame({"n": np.arange(start, start + 10)}, index=index), stream="car-44")
            out.write(pd.DataFrame({"n": np.arange(start, start + 10)}, index=index), stream="car-63")
            out.flush()
    return topic


def read(client: qf.StreamingClient, topic: str, group: str) -> list[int]:
    """What a model of the group reads until now, of one stream."""
    found: list[int] = []
    with client.open_input_topic(topic, group) as source:
        for batch in source.batches(until="now"):
            if batch.stream.stream_id == "car-44":
                found += batch.frame["n"].tolist()
    return found


def test_a_group_that_is_set_back_reads_from_there_again(client: qf.StreamingClient, written: str, group: str) -> None:
    assert read(client, written, group) == list(range(200))
    assert read(client, written, group) == []
    preview = client.reset_group(group, written, "earliest", dry_run=True)
    assert preview["again"].sum() == preview["committed"].sum() >= 40
    assert read(client, written, group) == []  # a preview changes nothing
    done = client.reset_group(group, written, "earliest")
    pd.testing.assert_frame_equal(done, preview)
    assert read(client, written, group) == list(range(200))


def test_a_moment_is_when_the_cluster_received_the_messages(
    client: qf.StreamingClient, written: str, group: str
) -> None:
    read(client, written, group)
    time.sleep(0.01)
    since = pd.Timestamp.now("UTC")
    with client.open_output_topic(written) as out:
        index = pd.date_range("2000-01-01", periods=2, freq="s", tz="UTC", name="time")
        out.write(pd.DataFrame({"n": [1_000, 1_001]}, index=index), stream="car-44")
    read(client, written, group)
    done = client.reset_group(group, written, since)
    assert done["again"].sum() == 1
    assert read(client, written, group) == [1_000, 1_001]
    assert client.reset_group(group, written, "-7 days", dry_run=True)["again"].sum() >= 41


def test_a_group_that_never_committed_can_begin_at_the_end(
    client: qf.StreamingClient, written: str, group: str
) -> None:
    done = client.reset_group(group, written, "latest")
    assert done["committed"].isna().all()
    assert done["passed_over"].sum() >= 40
    assert read(client, written, group) == []


def test_offsets_set_the_partitions_that_they_name(client: qf.StreamingClient, written: str, group: str) -> None:
    read(client, written, group)
    done = client.reset_group(group, written, {0: 0})
    assert done.index.tolist() == [0]


def test_a_group_with_an_instance_in_it_is_left_alone(client: qf.StreamingClient, written: str, group: str) -> None:
    with client.open_input_topic(written, group) as source:
        next(source.batches())
        with pytest.raises(qf.SettingsError, match="cannot be set back while an instance is in it"):
            client.reset_group(group, written, "latest")


@pytest.mark.parametrize(
    ("to", "error"),
    [
        ({7: 0}, "has no partition 7"),
        ({0: -1}, "has offsets from 0 to"),
        ("noon-ish", "is not a moment"),
        ("7 days", ""),
    ],
)
def test_a_place_that_there_is_not_is_refused(
    client: qf.StreamingClient, written: str, group: str, to: object, error: str
) -> None:
    with pytest.raises(qf.SettingsError, match=error):
        client.reset_group(group, written, to)
