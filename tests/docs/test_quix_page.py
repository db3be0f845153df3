"""The page for users of the old SDK: every row names tests that are there, every new line runs, and what it says not to
be there is not."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

import quixframes as qf
from tests.docs.snippets import ROOT

PAGE = ROOT / "docs" / "coming-from-quix.md"
_TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")

# What the old SDK's users know by name, in both of its APIs.
OLD_NAMES = """
    StreamingClient KafkaStreamingClient SecurityOptions open_input_topic get_topic_consumer open_output_topic
    get_topic_producer auto_offset_reset CommitMode.Automatic CommitMode.Manual CommitOptions commit_interval
    commit_every topic.commit() on_committing on_committed on_stream_received on_streams_revoked on_revoking
    on_stream_closed create_stream get_or_create_stream get_stream on_created flush dispose location metadata
    parents time_of_recording on_changed add_definition set_range set_unit set_format set_custom_properties
    add_location default_location events.write EventData add_timestamp add_value add_tag default_tags Trace
    Critical TAG__ epoch packet_size time_span_in_milliseconds buffer_timeout custom_trigger
    custom_trigger_before_enqueue filter whitelist StreamEndType get_dict_state get_scalar_state App.run
    before_shutdown RawMessage Protobuf splitting timeseries publish
"""


def tables() -> dict[str, list[list[str]]]:
    """The rows of each table by the heading above it, the first row first."""
    found: dict[str, list[list[str]]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        rows = [row.split(" | ") for row in re.findall(r"^\| (.+) \|$", section, re.MULTILINE)]
        if rows:
            found[section.split("\n", 1)[0]] = rows
    return found


TABLES = tables()
LINES = [row[-1].strip("`") for row in TABLES.pop("The old lines, and how they read now")[1:]]


@pytest.mark.parametrize("heading", TABLES)
def test_every_row_names_tests_that_are_there(heading: str) -> None:
    header, *rows = TABLES[heading]
    assert header[-1] == "shown by"
    assert len(rows) > 10
    for row in rows:
        assert len(row) == len(header), row
        named = _TEST.findall(row[-1])
        assert named, row
        assert _TEST.sub("", row[-1]).strip() == "", row
        for file, name in named:
            where = [path for path in ROOT.glob(f"tests/*/{file}") if f"\ndef {name}(" in path.read_text()]
            assert len(where) == 1, f"{file}::{name}"


def test_every_old_name_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [name for name in OLD_NAMES.split() if name not in text] == []


def test_what_is_said_not_to_be_there_is_not_there() -> None:
    """Whoever adds one of these changes its row on the page as well."""
    absent = [row[0] for rows in TABLES.values() for row in rows if "**not there yet**" in row[1]]
    assert [cell.split("(")[0].split(",")[0].strip("`") for cell in absent] == [
        "get_dict_state",
    ]  # fmt: skip
    assert not [name for name in dir(qf.StreamReader) + dir(qf.RowBatch) if name.endswith("state") and name[0] != "_"]


@pytest.fixture(scope="module")
def names(broker_address: str, session_client: qf.StreamingClient) -> Iterator[dict[str, Any]]:
    """What the new lines are about."""
    unique = f"quix-{uuid.uuid4().hex[:12]}"
    session_client.topics.create(unique)
    time = pd.Timestamp("2026-11-22 14:00", tz="UTC")
    frame = pd.DataFrame({"speed": [81.5]}, index=[time])
    with qf.StreamingClient(broker_address) as client:
        topic = client.open_output_topic(unique)
        read = client.open_input_topic(unique, unique, qf.CommitMode.Manual)
        stream = topic.create_stream("car-44")
        stream.parameters.write(frame)
        topic.flush()
        (batch,) = read.batches(until="now")
        yield {
            "qf": qf, "client": client, "engine": unique, "topic": topic, "input_topic": read, "stream": stream,
            "batch": batch, "df": frame, "t": time, "model": lambda rows: rows,
        }  # fmt: skip
    session_client.topics.delete(unique)


@pytest.mark.parametrize("line", LINES)
def test_every_line_reads_as_it_says_now(names: dict[str, Any], line: str) -> None:
    exec(line.replace('"engine"', "engine").replace('"pace"', "engine"), names)


def test_there_are_lines() -> None:
    assert len(LINES) == 18
