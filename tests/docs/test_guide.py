"""The guide's snippets that begin with ```python do what the guide says, on a real Kafka; those with ```py are only
parsed, since they are not whole."""

from __future__ import annotations

import ast
import json
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kafka import KafkaProducer

import quixframes as qf
from tests.docs.snippets import ROOT, blocks

GUIDE = ROOT / "docs" / "guide.md"
SNIPPETS = blocks(GUIDE, "python")
NOW = pd.Timestamp("2026-11-22 14:10", tz="UTC")
TOPICS = ("engine", "engine-smooth", "sensors")


def laps(start: str) -> pd.DataFrame:
    times = pd.date_range(start, periods=100, freq="100ms", tz="UTC", unit="ns")
    return pd.DataFrame({"speed": np.linspace(0.0, 83.0, 100)}, index=times)


@pytest.fixture(scope="module")
def unique() -> str:
    return f"guide-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def after(broker_address: str, session_client: qf.StreamingClient, unique: str) -> Iterator[dict[str, Any]]:
    """The names that the snippets leave behind, run one after the other, and what each of them printed."""
    printed: list[list[str]] = []
    names: dict[str, Any] = {"pd": pd, "qf": qf, "now": NOW, "printed": printed}
    names |= {"first_laps": laps("2026-11-22 14:00"), "later_laps": laps("2026-11-22 14:05")}
    names["print"] = lambda *values: printed[-1].append(" ".join(map(str, values)))
    for topic in TOPICS:
        session_client.topics.create(f"{unique}-{topic}")
    producer = KafkaProducer(bootstrap_servers=broker_address)
    value = json.dumps({"ts": 1_700_000_000_000, "heat": 81.5}).encode()
    producer.send(f"{unique}-sensors", key=b"s-1", value=value, headers=[("source", b"gate")])
    producer.close()
    with qf.StreamingClient(broker_address) as client:
        names["client"] = client
        for number, snippet in enumerate(SNIPPETS, start=1):
            printed.append([])
            for topic in TOPICS:
                snippet = snippet.replace(f'"{topic}"', f'"{unique}-{topic}"')
            exec(compile(snippet, f"guide.md, snippet {number}", "exec"), names)
        yield names
    for topic in TOPICS:
        session_client.topics.delete(f"{unique}-{topic}")


@pytest.fixture(scope="module")
def batches(after: dict[str, Any], session_client: qf.StreamingClient, unique: str) -> list[qf.RowBatch]:
    """What the snippets wrote to the topic "engine"."""
    return list(session_client.replay(f"{unique}-engine", progress=False).batches())


def of(snippets: list[str], printed: list[list[str]], text: str) -> list[str]:
    """What the one snippet printed that has this text in it."""
    (found,) = [lines for snippet, lines in zip(snippets, printed, strict=True) if text in snippet]
    return found


def test_rows_have_the_properties_that_were_true_when_they_were_written(after: dict[str, Any]) -> None:
    assert of(SNIPPETS, after["printed"], "tyre-model") == ["soft 100", "hard 100"]


def test_definitions_are_read_and_inherited(
    after: dict[str, Any], session_client: qf.StreamingClient, unique: str
) -> None:
    (*_, last) = session_client.replay(f"{unique}-engine-smooth", progress=False)
    assert last.stream.parameters["speed"].unit == "km/h"
    assert last.stream.parameters.definitions["location"].to_dict() == {
        "speed": "/", "rpm": "/car/engine", "heat": "/car/engine",
    }  # fmt: skip
    assert last.stream.events["pit-stop"].level is qf.EventLevel.Warning
    assert last.stream.properties.parents == ("car-44",)
    assert last.frame.columns.tolist() == ["speed"]


def test_a_row_has_its_own_tag_or_the_default_one(batches: list[qf.RowBatch]) -> None:
    tagged = [batch.frame for batch in batches if "TAG__lap" in batch.frame]
    assert tagged[0]["TAG__lap"].unique().tolist() == ["12"]
    assert "TAG__driver" not in tagged[0]
    both = pd.concat(tagged[1:])
    assert both["TAG__lap"].value_counts().to_dict() == {"13": 100, "14": 1}
    assert both["TAG__driver"].unique().tolist() == ["ann"]


def test_events_are_read_among_the_rows_and_by_themselves(after: dict[str, Any], unique: str) -> None:
    printed = of(SNIPPETS, after["printed"], "race-control")
    assert [line.split()[2:] for line in printed] == [["pit-stop", "tyres"], ["pit-stop", "fuel"], ["flag", "red"]]
    assert printed[1].startswith(str(NOW))
    assert after["stops"]["TAG__lap"].fillna("").tolist() == ["12", "", "13"]


def test_integers_and_timedeltas_count_from_the_epoch(batches: list[qf.RowBatch]) -> None:
    times = [time for batch in batches if batch.stream_id == "car-45" for time in batch.frame.index]
    assert times == [pd.Timestamp("2026-11-22 14:00:01.5", tz="UTC"), pd.Timestamp("2026-11-22 14:00:02", tz="UTC")]


def test_the_reader_is_told_of_the_end(after: dict[str, Any]) -> None:
    assert of(SNIPPETS, after["printed"], '"archive"') == ["car-46 ended: StreamEndType.Closed"]


def test_nothing_was_wrong_and_the_streams_without_an_end_fell_silent(after: dict[str, Any]) -> None:
    assert after["told"] == []
    (silent,) = of(SNIPPETS, after["printed"], "watchman-2")
    assert set(ast.literal_eval(silent)) == {"car-44", "car-45"}


def test_a_record_s_key_time_and_headers_are_columns(after: dict[str, Any]) -> None:
    (table,) = of(SNIPPETS, after["printed"], "JsonRows")
    assert "s-1" in table
    assert "gate" in table
