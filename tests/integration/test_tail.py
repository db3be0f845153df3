"""``client.tail``: the newest rows of a topic of a real Kafka."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

import quixframes as qf
from tests.conftest import MakeTopic


def write(client: qf.StreamingClient, topic: str, stream: str, start: int, rows: int) -> None:
    index = pd.date_range("2026-11-15", periods=rows, freq="s", tz="UTC", name="time") + pd.Timedelta(start, "s")
    with client.open_output_topic(topic) as out:
        for begin in range(0, rows, 10):
            frame = pd.DataFrame({"n": np.arange(start, start + rows)}, index=index)
            out.write(frame.iloc[begin : begin + 10], stream=stream)


def test_the_newest_rows_come_by_number_ordered_by_time(client: qf.StreamingClient, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=2)
    for stream in ("car-44", "car-63"):
        write(client, topic, stream, 0, 1_000)
    found = client.tail(topic, rows=500)
    assert len(found) == 500
    assert found.index.is_monotonic_increasing
    assert found["n"].min() == 750
    assert len(client.tail(topic)) == 1_000
    assert len(client.tail(topic, rows=1_000_000)) == 2_000


def test_only_the_streams_and_columns_that_were_asked_for_count(client: qf.StreamingClient, topic: str) -> None:
    """However far back they lie."""
    write(client, topic, "car-44", 0, 100)
    write(client, topic, "car-63", 0, 1_000)
    found = client.tail(topic, rows=50, streams="car-44", columns=["n"])
    assert found["n"].tolist() == list(range(50, 100))
    assert set(found["stream"]) == {"car-44"}


def test_a_span_is_about_when_rows_arrived(client: qf.StreamingClient, topic: str) -> None:
    write(client, topic, "car-44", 0, 10)
    time.sleep(1.5)
    write(client, topic, "car-44", 1_000, 10)
    assert client.tail(topic, "1 s")["n"].tolist() == list(range(1_000, 1_010))
    assert client.tail(topic, "1 h", rows=5)["n"].tolist() == list(range(1_005, 1_010))


def test_an_empty_topic_has_no_newest_rows(client: qf.StreamingClient, topic: str) -> None:
    assert client.tail(topic).empty
    assert client.tail(topic, "10min").empty


def test_rows_that_are_none_are_refused(client: qf.StreamingClient, topic: str) -> None:
    with pytest.raises(qf.SettingsError, match="rows"):
        client.tail(topic, rows=0)
