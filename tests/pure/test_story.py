"""A story is a value that travels as headers and comes back equal."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quixframes import EventDefinition, EventLevel, ParameterDefinition, SettingsError, Story, StreamProperties
from quixframes.story import DEFINITIONS, PROPERTIES, location_under

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = WORDS.filter(bool)
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
MAYBE = st.none() | WORDS
OBJECTS = st.dictionaries(WORDS, JSON, max_size=3)
MOMENTS = st.none() | st.integers(-(2**62), 2**62).map(lambda ns: pd.Timestamp(ns, tz="UTC"))
RANGES = st.none() | st.tuples(NUMBERS, NUMBERS).map(lambda sides: tuple(sorted(sides)))
PLACES = st.lists(NAMES, max_size=3).map("/".join)
PARAMETERS = st.builds(ParameterDefinition, NAMES, MAYBE, MAYBE, MAYBE, RANGES, MAYBE, OBJECTS, PLACES)
EVENTS = st.builds(EventDefinition, NAMES, MAYBE, MAYBE, st.sampled_from(EventLevel), OBJECTS, PLACES)
STORIES = st.builds(
    lambda properties, parameters, events: told(Story(properties), parameters, events),
    st.builds(StreamProperties, MAYBE, MAYBE, OBJECTS, st.lists(NAMES, max_size=3), MOMENTS),
    st.lists(PARAMETERS, max_size=3),
    st.lists(EVENTS, max_size=3),
)


def told(story: Story, parameters: list[ParameterDefinition], events: list[EventDefinition]) -> Story:
    for parameter in parameters:
        story = story.with_parameter(parameter)
    for event in events:
        story = story.with_event(event)
    return story


@given(STORIES)
def test_any_story_comes_back_from_its_headers(story: Story) -> None:
    back = Story.of(dict(story.headers))
    assert back == story
    assert back.headers == story.headers
    assert hash(back) == hash(story)


@given(STORIES)
def test_what_a_story_holds_can_be_pickled(story: Story) -> None:
    assert pickle.loads(pickle.dumps(story.properties)) == story.properties
    assert pickle.loads(pickle.dumps(list(story.parameters.values()))) == list(story.parameters.values())


def test_a_story_of_nothing_adds_no_header() -> None:
    assert Story().headers == ()
    assert Story().nbytes == 0


def test_definitions_are_dataframes() -> None:
    story = told(
        Story(),
        [ParameterDefinition("speed", "Speed", unit="km/h", range=(0, 400), location="car"), ParameterDefinition("x")],
        [EventDefinition("pit", level="warning")],
    )
    frame = story.parameters.definitions
    assert frame.index.tolist() == ["speed", "x"]
    assert frame.loc["speed", ["name", "unit", "minimum", "maximum", "location"]].tolist() == [
        "Speed", "km/h", 0.0, 400.0, "/car",
    ]  # fmt: skip
    assert frame.loc["x", "name"] == "x"
    assert np.isnan(frame.loc["x", "maximum"])
    levels = story.events.definitions["level"]
    assert levels.cat.ordered
    assert levels["pit"] == "Warning"
    assert "Speed" in story.parameters._repr_html_()


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (StreamProperties, {"name": 3}, "name=3 has to be text"),
    (StreamProperties, {"name": "\ud800"}, "UTF-8"),
    (StreamProperties, {"metadata": [1]}, "metadata.* has to be a dict"),
    (StreamProperties, {"metadata": {"a": {"b": float("nan")}}}, r"metadata\['a'\]\['b'\]=nan"),
    (StreamProperties, {"metadata": {"a": object()}}, "cannot be told"),
    (StreamProperties, {"time_of_recording": "soon"}, "is not a moment"),
    (StreamProperties, {"time_of_recording": pd.NaT}, "is not a moment"),
    (ParameterDefinition, {"id": ""}, "needs an ID"),
    (ParameterDefinition, {"id": "speed", "range": (5, 1)}, "the lesser first"),
    (ParameterDefinition, {"id": "speed", "range": 5}, "two numbers"),
    (ParameterDefinition, {"id": "speed", "range": ("a", "b")}, "two numbers"),
    (EventDefinition, {"id": "pit", "level": "loud"}, "trace, debug, information"),
]


@pytest.mark.parametrize(("of", "values", "text"), WRONG, ids=[text for *_, text in WRONG])
def test_what_cannot_be_told_is_refused_where_it_is_said(of: Any, values: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        of(**values)


BROKEN: list[tuple[str, bytes]] = [
    (PROPERTIES, b"{"),
    (PROPERTIES, b"[]"),
    (PROPERTIES, b'{"name":3}'),
    (PROPERTIES, b"\xff"),
    (PROPERTIES, b"[" * 100_000),
    (DEFINITIONS, b'{"parameters":[]}'),
    (DEFINITIONS, b'{"parameters":{"a":3}}'),
    (DEFINITIONS, b'{"parameters":{"a":{"range":[1]}}}'),
    (DEFINITIONS, b'{"events":{"":{}}}'),
]


@pytest.mark.parametrize(("header", "value"), BROKEN)
def test_broken_headers_are_a_value_error(header: str, value: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|range|ID|text"):
        Story.of({header: value})


def test_what_a_later_version_says_beyond_is_passed_over() -> None:
    later = {"name": "Car", "colour": "red"}
    assert Story.of({PROPERTIES: json.dumps(later).encode()}).properties == StreamProperties("Car")


@pytest.mark.parametrize(
    ("under", "path", "found"), [("/", "car", "/car"), ("/car", "/engine/", "/car/engine"), ("/car", "", "/car")]
)
def test_locations_are_paths(under: str, path: str, found: str) -> None:
    assert location_under(under, path) == found


def test_metadata_is_a_copy_that_nobody_changes() -> None:
    mine = {"laps": [1, 2]}
    properties = StreamProperties(metadata=mine)
    mine["laps"].append(3)
    assert properties.metadata == {"laps": [1, 2]}
    with pytest.raises(TypeError):
        properties.metadata["laps"] = []  # type: ignore[index]
