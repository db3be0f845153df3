"""A story is a value that travels as headers and comes back equal."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quixframes import (
    EventDefinition,
    EventLevel,
    Parameter,
    ParameterDefinition,
    SettingsError,
    Story,
    StreamProperties,
)
from quixframes.story import DEFINITIONS, PROPERTIES, StoryReader, location_under

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
RANGES |= st.tuples(st.none(), NUMBERS) | st.tuples(NUMBERS, st.none())
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
    assert pickle.loads(pickle.dumps(story)) == story


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


def test_what_is_inside_metadata_is_not_changed_either() -> None:
    """One story may be that of many batches and streams. What one is given is JSON as it was written."""
    written = {"laps": [1, [2]], "driver": {"name": "Ann"}}
    story = Story(StreamProperties(metadata=written)).with_parameter(ParameterDefinition("x", custom=written))
    for found in (story.properties.metadata, story.parameters["x"].custom):
        found["laps"][1].append(3)
        found["driver"]["name"] = "Bob"
        dict(found.items())["laps"].clear()
        assert found == written
        assert json.loads(json.dumps(dict(found))) == written
        assert repr(found) == repr(written)
        assert pickle.loads(pickle.dumps(found)) == written


def test_stories_are_equal_where_they_tell_the_same() -> None:
    """To Python 1 and True are equal, to who reads them they are not."""
    number, truth = (Story(StreamProperties(metadata={"wet": value})) for value in (1, True))
    assert number != truth
    assert Story().with_parameter(ParameterDefinition("x", range=(0, 1))) != Story().with_parameter(
        ParameterDefinition("x", range=(0.0, 1))
    )
    assert number == Story(StreamProperties(metadata={"wet": 1}))
    one, other = ParameterDefinition("a"), ParameterDefinition("b")
    assert told(Story(), [one, other], []) == told(Story(), [other, one], [])
    assert number != "a story"


def test_a_name_may_be_that_of_a_level() -> None:
    story = told(Story(StreamProperties("information")), [], [EventDefinition("flag", "information", "information")])
    assert Story.of(dict(story.headers)) == story
    assert Story.of(dict(story.headers)).properties.name == "information"
    assert Story.of(dict(story.headers)).events["flag"].name == "information"


@pytest.mark.parametrize("level", ["disaster", 6, ["error"], None])
def test_an_event_level_of_a_later_version_is_information(level: object) -> None:
    header = json.dumps({"events": {"crash": {"level": level, "name": "Crash"}, "pit": {"level": "warning"}}})
    events = Story.of({DEFINITIONS: header.encode()}).events
    assert [event.level for event in events.values()] == [EventLevel.Information, EventLevel.Warning]
    assert events["crash"].name == "Crash"


@pytest.mark.parametrize(
    ("given", "found"),
    [((0, None), (0, None)), ([None, 2.5], (None, 2.5)), ((np.int8(1), np.inf), (1, None)), ((-np.inf, 0), (None, 0))],
)
def test_a_range_may_be_open_in_a_definition_as_in_a_contract(given: Any, found: Any) -> None:
    definition = ParameterDefinition("speed", range=given)
    assert definition.range == found == Parameter("float64", range=given).range
    story = Story().with_parameter(definition)
    assert json.loads(story.headers[0][1]) == {"parameters": {"speed": {"range": list(found)}}}
    assert Story.of(dict(story.headers)).parameters["speed"].range == found
    limits = story.parameters.definitions.loc["speed", ["minimum", "maximum"]].astype("float64")
    assert limits.isna().tolist() == [side is None for side in found]


def test_a_change_of_a_property_reads_no_definition_again() -> None:
    """Of two hundred definitions, that would be most of what a small message costs."""
    reader, story = StoryReader(), told(Story(), [ParameterDefinition(f"p{n}") for n in range(200)], [])
    first, second, again = (
        reader.read(copied(story.with_properties(metadata={"lap": lap}).headers)) for lap in (1, 2, 1)
    )
    assert first.parameters is second.parameters
    assert first != second
    assert again is first


def test_what_a_reader_keeps_of_stories_is_bounded_by_bytes() -> None:
    reader, notes = StoryReader(), "x" * 50_000
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for lap in range(500):
        reader.read(copied(Story(StreamProperties(notes, metadata={"lap": lap})).headers))
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 5_000_000


def copied(headers: tuple[tuple[str, bytes], ...]) -> dict[str, bytes | None]:
    """Headers as they arrive: bytes of their own."""
    return {name: bytes(bytearray(value)) for name, value in headers}
