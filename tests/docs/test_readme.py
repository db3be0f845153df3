"""The README's snippets do what the README says, on a real Kafka."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

import quixframes as qf
from tests.docs.snippets import ROOT, blocks

WRITE, READ, RUN, REPLAY = blocks(ROOT / "README.md", "python")

# What is good on a page and cannot be in a test: an address, and names that a broker may know from another run.
ON_THE_PAGE = {'"localhost:9092"': "{address!r}", '"engine': '"{unique}-engine', '"smoothing': '"{unique}-smoothing'}


@pytest.fixture(scope="module")
def unique() -> str:
    return f"readme-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def after(broker_address: str, session_client: qf.StreamingClient, unique: str) -> Iterator[dict[str, Any]]:
    """The names that the snippets leave behind, run one after the other."""
    names: dict[str, Any] = {}
    for number, snippet in enumerate((WRITE, READ, RUN, REPLAY), start=1):
        for text, instead in ON_THE_PAGE.items():
            snippet = snippet.replace(text, instead.format(address=broker_address, unique=unique))
        exec(compile(snippet, f"README.md, snippet {number}", "exec"), names)
    yield names
    for topic in (f"{unique}-engine", f"{unique}-engine-smooth", f"{unique}-engine-means"):
        session_client.topics.delete(topic)


def test_what_is_written_on_the_page_is_replaced_and_nothing_else() -> None:
    page = WRITE + READ + RUN + REPLAY
    for text in ON_THE_PAGE:
        assert text in page


def test_what_was_written_is_in_the_topic(
    after: dict[str, Any], session_client: qf.StreamingClient, unique: str
) -> None:
    """10,000 rows as one frame, and one row through the buffer that leaves with the block."""
    written = session_client.replay(f"{unique}-engine", progress=False).to_frame(stream_column=None)
    frame = after["frame"].set_axis(after["frame"].index.as_unit("ns"))
    pd.testing.assert_frame_equal(written.iloc[:-1], frame, check_exact=True, check_freq=False, check_names=False)
    assert written.iloc[-1].to_dict() == {"speed": 83.5, "gear": 4}


def test_the_stream_said_what_it_is_and_what_happened(
    after: dict[str, Any], session_client: qf.StreamingClient, unique: str
) -> None:
    replay = session_client.replay(f"{unique}-engine", progress=False)
    (*_, last) = replay
    assert last.stream.properties.name == "Car 44"
    assert last.stream.parameters["speed"] == qf.ParameterDefinition("speed", unit="km/h", range=(0, 400))
    events = replay.events()
    assert events.index.tolist() == [after["now"]]
    assert events[["stream", "id", "value", "TAG__lap"]].to_numpy().tolist() == [["car-44", "pit-stop", "tyres", "12"]]


def test_every_row_was_processed_and_committed(
    after: dict[str, Any], session_client: qf.StreamingClient, unique: str
) -> None:
    for results in ("engine-smooth", "engine-means"):
        smooth = session_client.replay(f"{unique}-{results}", progress=False).to_frame()
        assert len(smooth) == 10_001
        assert smooth.columns.tolist() == ["stream", "speed"]
    with session_client.open_input_topic(f"{unique}-engine", f"{unique}-smoothing") as again:
        assert list(again.batches(until="now")) == []


def test_the_replay_has_the_stream_and_the_column_asked_for(after: dict[str, Any]) -> None:
    speeds = after["speeds"]
    assert speeds.columns.tolist() == ["stream", "speed"]
    assert len(speeds) == 10_001
