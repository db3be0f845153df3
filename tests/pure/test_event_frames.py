"""Events: every way to write them is one form, and that form is one DataFrame."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes.errors import FrameError, SettingsError
from quixframes.event_frames import check_events, decode_events, empty_events, encode_events, event_row
from quixframes.frames import keep_rows

TEXT = pd.Series(["a"]).dtype
TAG_TYPE = pa.dictionary(pa.int32(), pa.large_string())
TIME = pa.field("time", pa.timestamp("ns", "UTC"), nullable=False)
ID = pa.field("id", TAG_TYPE, nullable=False)
VALUE = pa.field("value", pa.large_string())
often = settings(max_examples=300, deadline=None)

IDS = st.one_of(st.sampled_from(["start", "pit-stop"]), st.text(min_size=1, max_size=4))
TEXTS = st.one_of(st.none(), st.sampled_from(["", "a"]), st.text(max_size=4))
EVENTS = st.fixed_dictionaries(
    {"time": st.integers(-(2**62), 2**62), "id": IDS},
    optional={"value": TEXTS, "tags": st.dictionaries(st.sampled_from(["lap", "driver", "\N{SNOWMAN}"]), TEXTS)},
)


def over_the_wire(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch after Arrow IPC, checked as a reader does."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    got = pa.ipc.open_stream(sink.getvalue()).read_next_batch()
    got.validate(full=True)
    check_events(got)
    return got


def read(*batches: pa.RecordBatch) -> pd.DataFrame:
    return decode_events([over_the_wire(batch) for batch in batches])


def expected(events: list[dict[str, Any]]) -> pd.DataFrame:
    """What is read of events given as dicts with ``tags``."""
    names = dict.fromkeys(name for event in events for name in event.get("tags", {}))
    index = pd.DatetimeIndex(np.array([event["time"] for event in events], "M8[ns]"), name="time").tz_localize("UTC")
    columns = {"id": [event["id"] for event in events], "value": [event.get("value") for event in events]}
    columns |= {f"TAG__{name}": [event.get("tags", {}).get(name) for event in events] for name in names}
    return pd.DataFrame({name: pd.Series(values, index, TEXT) for name, values in columns.items()}, index)


def assert_events(got: pd.DataFrame, want: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(got, want, check_exact=True, check_freq=False)
    assert str(got.index.dtype) == "datetime64[ns, UTC]"
    assert {repr(dtype) for dtype in got.dtypes} == {repr(TEXT)}
    if np.dtype(object) == TEXT:
        assert all(value is None or type(value) is str for name in got for value in got[name])


# --- there and back ---------------------------------------------------------------------------------------------------


@often
@given(st.lists(EVENTS, min_size=1, max_size=6))
def test_events_come_back_as_they_went(events: list[dict[str, Any]]) -> None:
    """One by one, all in one call, with tags in a dict or as columns, and as the DataFrame that they are."""
    want = expected(events)
    assert_events(read(encode_events(events)), want)
    assert_events(read(*(encode_events(event) for event in events)), want)
    rows = [
        {name: value for name, value in event.items() if name != "tags"}
        | {f"TAG__{name}": value for name, value in event.get("tags", {}).items()}
        for event in events
    ]
    assert_events(read(encode_events(rows)), want)
    assert_events(read(encode_events(want)), want)
    assert_events(read(encode_events(want.reset_index())), want)
    assert encode_events(want).schema.equals(encode_events(rows).schema, check_metadata=True)


@often
@given(st.lists(st.lists(EVENTS, min_size=1, max_size=4), max_size=4), st.integers(0, 4))
def test_events_of_many_messages_have_the_tags_of_all(messages: list[list[dict[str, Any]]], skipped: int) -> None:
    """In order of appearance, missing where a message lacks one; slices too."""
    batches = [over_the_wire(encode_events(events)) for events in messages]
    every = [event for events in messages for event in events]
    assert_events(decode_events(batches), expected(every) if every else empty_events())
    rest = [event for events in messages for event in events[skipped:]]
    got = decode_events([batch.slice(skipped) for batch in batches])
    if rest:
        assert_events(got[list(expected(rest))], expected(rest))
    assert len(got) == len(rest)


KINDS: dict[str, Any] = {
    "object": np.dtype(object),
    "own": TEXT,
    "string[python]": "string[python]",
    "string[pyarrow]": "string[pyarrow]",
    "category": "category",
    "ArrowDtype string": pd.ArrowDtype(pa.string()),
    "ArrowDtype large": pd.ArrowDtype(pa.large_string()),
    "ArrowDtype dictionary": pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_events_have_one_form_whatever_kind_of_strings_they_were_written_with(kind: str, missing: Any) -> None:
    """So that those of all writers go together: pandas' own dtype for strings comes back."""
    index = pd.DatetimeIndex(np.arange(3).view("M8[ns]"), name="time").tz_localize("UTC")
    columns = {"TAG__lap": [missing, "1", "1"], "value": ["x", missing, ""], "id": ["a", "b", "a"]}
    frame = pd.DataFrame(
        {name: pd.Series(values, index, object).astype(KINDS[kind]) for name, values in columns.items()}, index
    )
    batch = encode_events(frame)
    assert batch.schema.equals(pa.schema([TIME, ID, VALUE, ("TAG__lap", TAG_TYPE)]), check_metadata=True)
    want = [{"time": 0, "id": "a", "value": "x", "tags": {"lap": None}}]
    want += [{"time": 1, "id": "b", "tags": {"lap": "1"}}, {"time": 2, "id": "a", "value": "", "tags": {"lap": "1"}}]
    assert_events(read(batch), expected(want))


def test_no_events_are_an_empty_frame_of_events() -> None:
    """With the columns and dtypes of events; so are batches of which nothing was kept."""
    assert_events(empty_events(), expected([]))
    assert list(empty_events()) == ["id", "value"]
    batch = encode_events({"time": 0, "id": "a", "TAG__lap": "1"})
    kept = decode_events([keep_rows(batch, np.array([False])), batch.slice(1)])
    assert list(kept) == ["id", "value", "TAG__lap"]
    assert_events(kept[["id", "value"]], empty_events())
    assert encode_events(kept).num_rows == 0


MOMENT = datetime(2026, 11, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("time", "epoch"),
    [
        (MOMENT, 0),
        (MOMENT.replace(tzinfo=None), 5),
        (pd.Timestamp(MOMENT), 5),
        (np.datetime64("2026-11-15T12", "s"), 5),
        (pd.Timestamp(MOMENT).value, 0),
        (pd.Timestamp(MOMENT).value - 7, 7),
        (timedelta(hours=1), (pd.Timestamp(MOMENT) - timedelta(hours=1)).value),
    ],
)
def test_the_time_of_an_event_is_that_of_a_row(time: Any, epoch: int) -> None:
    """Naive means UTC; integers and timedeltas count from the epoch; in a dict as in a frame."""
    for name in ("time", "Timestamp"):
        batch = encode_events({name: time, "id": "a"}, epoch=epoch)
        assert batch.column(0).to_pylist() == [pd.Timestamp(MOMENT)]
        frame = pd.DataFrame({name: [time], "id": ["a"]})
        assert encode_events(frame, epoch=epoch).column(0).equals(batch.column(0))


def test_one_event_is_a_row_of_its_parts() -> None:
    """As a writer of single events makes it."""
    assert read(encode_events(event_row("a", 5))).columns.tolist() == ["id", "value"]
    got = read(encode_events([event_row("a", 5, np.str_("x"), {"TAG__lap": "1"}), event_row("b", 6)]))
    assert_events(got, expected([{"time": 5, "id": "a", "value": "x", "tags": {"lap": "1"}}, {"time": 6, "id": "b"}]))


def test_an_event_has_its_own_tag_or_the_default() -> None:
    """Columns that are not there come behind the others."""
    events = [event_row("a", 0, tags={"lap": "1"}), event_row("b", 1), event_row("c", 2, tags={"x": "y"})]
    tags = {"driver": "Ann", "TAG__lap": "12"}
    got = read(encode_events(events, default_tags=tags))
    assert list(got) == ["id", "value", "TAG__lap", "TAG__x", "TAG__driver"]
    assert got["TAG__lap"].tolist() == ["1", "12", "12"]
    assert got["TAG__driver"].tolist() == ["Ann"] * 3
    assert got["TAG__x"].isna().tolist() == [True, True, False]
    frame = read(encode_events(events))
    assert_events(read(encode_events(frame, default_tags=tags)), got)
    with pytest.raises(SettingsError, match="'lap' has to be text"):
        encode_events(events, default_tags={"lap": 12})  # type: ignore[dict-item]


# --- refused ----------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, str | None, int | None, str]] = {
    "no events": ([], None, None, "there are no rows"),
    "no time": ({"id": "a"}, None, None, "no time"),
    "missing time": ([{"time": 0, "id": "a"}, {"time": None, "id": "a"}], "time", 1, "missing"),
    "time as text": ({"time": "2026", "id": "a"}, "time", 0, "no time"),
    "two times": ({"time": 0, "datetime": 1, "id": "a"}, "datetime", None, "is a time already"),
    "no id": ({"time": 0, "value": "a"}, "id", None, "no column 'id'"),
    "missing id": ([{"time": 0, "id": "a"}, {"time": 0}], "id", 1, "no ID, or an empty one"),
    "empty id": ([{"time": 0, "id": "a"}, {"time": 0, "id": ""}], "id", 1, "no ID, or an empty one"),
    "id a number": ({"time": 0, "id": 5}, "id", 0, r"5 is a int; .*str\(value\)"),
    "value a number": ([{"time": 0, "id": "a"}, {"time": 0, "id": "a", "value": 1.5}], "value", 1, r"1\.5 is a float"),
    "value a NumPy number": ({"time": 0, "id": "a", "value": np.int8(5)}, "value", 0, r"is a int8; .*str\(value\)"),
    "value a bool": ({"time": 0, "id": "a", "value": False}, "value", 0, r"False is a bool; .*str\(value\)"),
    "value bytes": ({"time": 0, "id": "a", "value": b"x"}, "value", 0, "is a bytes"),
    "value a surrogate": ({"time": 0, "id": "a", "value": "\ud800"}, "value", 0, "surrogate"),
    "tag a number": ({"time": 0, "id": "a", "tags": {"lap": 12}}, "TAG__lap", 0, r"12 is a int; .*str\(value\)"),
    "tags no dict": ([{"time": 0, "id": "a"}, {"time": 0, "id": "a", "tags": ["lap"]}], "tags", 1, "does not map"),
    "tags of numbers": ({"time": 0, "id": "a", "tags": {1: "a"}}, "tags", 0, "does not map"),
    "tag twice": ({"time": 0, "id": "a", "TAG__x": "1", "tags": {"x": "2"}}, "TAG__x", 0, "twice"),
    "tag without a name": ({"time": 0, "id": "a", "tags": {"": "2"}}, "TAG__", None, "no such column"),
    "parameter": ({"time": 0, "id": "a", "speed": 1.0}, "speed", None, "no such column; .*TAG__speed, or drop it"),
    "name no string": ({"time": 0, "id": "a", 5: "x"}, 5, None, "not a string"),
    "no dict": ([{"time": 0, "id": "a"}, "pit-stop"], None, 1, "event 1 is a str"),
    "frame of numbers": (
        pd.DataFrame({"time": [0], "id": ["a"], "value": [1]}),
        "value",
        None,
        r"int64; .*astype\(str\)",
    ),
    "frame of mixed": (
        pd.DataFrame({"time": [0, 1], "id": ["a", "b"], "value": ["a", 1]}),
        "value",
        1,
        r"1 is a int.*astype\(str\)",
    ),
    "frame of bytes": (pd.DataFrame({"time": [0], "id": [b"a"]}), "id", None, "large_binary"),
    "frame of tag numbers": (pd.DataFrame({"time": [0], "id": ["a"], "TAG__x": [1]}), "TAG__x", None, "int64"),
    "frame without id": (pd.DataFrame({"time": [0], "value": ["a"]}), "id", None, "no column 'id'"),
    "frame with empty id": (pd.DataFrame({"time": [0, 1], "id": ["a", ""]}), "id", 1, "empty one"),
    "frame with parameter": (pd.DataFrame({"time": [0], "id": ["a"], "speed": ["x"]}), "speed", None, "no such column"),
    "frame with tags": (pd.DataFrame({"time": [0], "id": ["a"], "tags": ["x"]}), "tags", None, "no such column"),
    "frame without time": (pd.DataFrame({"id": ["a"]}), None, None, "no time"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_event_is_refused(case: str) -> None:
    """With the column, the first row at fault where there is one, and what to do."""
    events, column, row, message = REFUSED[case]
    with pytest.raises(FrameError, match=f"(?s){message}") as caught:
        encode_events(events)
    assert (caught.value.column, caught.value.row) == (column, row)


@pytest.mark.parametrize("missing", [[np.nan, np.nan], [None, None], pd.array([None, None], dtype="string")])
def test_a_frame_in_which_no_event_has_a_value_is_carried(missing: Any) -> None:
    """pandas makes floats of such a column."""
    frame = pd.DataFrame({"time": [0, 1], "id": ["a", "b"], "value": missing})
    assert_events(read(encode_events(frame)), expected([{"time": 0, "id": "a"}, {"time": 1, "id": "b"}]))


# --- from elsewhere ---------------------------------------------------------------------------------------------------

NOT_EVENTS: dict[str, pa.Schema] = {
    "nothing": pa.schema([]),
    "time only": pa.schema([TIME]),
    "no value": pa.schema([TIME, ID]),
    "other order": pa.schema([TIME, VALUE, ID]),
    "id nullable": pa.schema([TIME, ID.with_nullable(True), VALUE]),
    "id plain": pa.schema([TIME, pa.field("id", pa.large_string(), nullable=False), VALUE]),
    "value a dictionary": pa.schema([TIME, ID, ("value", TAG_TYPE)]),
    "value short": pa.schema([TIME, ID, ("value", pa.string())]),
    "value not null": pa.schema([TIME, ID, VALUE.with_nullable(False)]),
    "time in us": pa.schema([pa.field("time", pa.timestamp("us", "UTC"), nullable=False), ID, VALUE]),
    "time nullable": pa.schema([TIME.with_nullable(True), ID, VALUE]),
    "a parameter": pa.schema([TIME, ID, VALUE, ("speed", TAG_TYPE)]),
    "a tag without a name": pa.schema([TIME, ID, VALUE, ("TAG__", TAG_TYPE)]),
    "a tag plain": pa.schema([TIME, ID, VALUE, ("TAG__x", pa.large_string())]),
    "a tag of int": pa.schema([TIME, ID, VALUE, ("TAG__x", pa.dictionary(pa.int32(), pa.int64()))]),
    "a tag twice": pa.schema([TIME, ID, VALUE, ("TAG__x", TAG_TYPE), ("TAG__x", TAG_TYPE)]),
    "a tag described": pa.schema([TIME, ID, VALUE, pa.field("TAG__x", TAG_TYPE, metadata={b"pandas": b"tag:string"})]),
    "id described": pa.schema([TIME, ID.with_metadata({b"pandas": b"tag:string"}), VALUE]),
    "metadata": pa.schema([TIME, ID, VALUE], metadata={b"a": b"b"}),
}


@pytest.mark.parametrize("case", NOT_EVENTS)
def test_a_batch_of_another_form_is_refused(case: str) -> None:
    """Before anything is made of it."""
    schema = NOT_EVENTS[case]
    batch = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
    with pytest.raises(FrameError):
        check_events(batch)


def of_parts(time: Any, ids: Any, values: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([time, ids, values], schema=pa.schema([TIME, ID, VALUE]))


def test_values_that_are_no_events_are_refused() -> None:
    """IDs and times that are missing, IDs that are empty, and a null in a dictionary."""
    time, ids, values = pa.array([1], TIME.type), pa.array(["a"], TAG_TYPE), pa.array(["x"], VALUE.type)
    null = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([None], pa.large_string()))
    check_events(of_parts(time, ids, values))
    for wrong in (
        of_parts(pa.array([None], TIME.type), ids, values),
        of_parts(pa.array([-(2**63)], pa.int64()).view(TIME.type), ids, values),
        of_parts(time, pa.array([None], TAG_TYPE), values),
        of_parts(time, pa.array([""], TAG_TYPE), values),
        of_parts(time, null, values),
    ):
        wrong.validate(full=True)
        with pytest.raises(FrameError):
            check_events(wrong)


def test_what_is_under_a_null_is_nothing() -> None:
    """Another writer may leave anything there, and a dictionary may have values that no event uses."""
    data = pa.array(["NaN", "x"], VALUE.type).buffers()
    values = pa.Array.from_buffers(VALUE.type, 2, [pa.py_buffer(b"\x02"), *data[1:]])
    ids = pa.DictionaryArray.from_arrays(pa.array([1, 1], pa.int32()), pa.array(["", "a", "a"], pa.large_string()))
    batch = over_the_wire(of_parts(pa.array([0, 1], TIME.type), ids, values))
    assert_events(decode_events([batch]), expected([{"time": 0, "id": "a"}, {"time": 1, "id": "a", "value": "x"}]))


def message() -> bytes:
    batch = encode_events(
        [event_row("a", 0, "x", {"lap": "1"}), event_row("b", 1), event_row("a", 2, "", {"lap": "2"})]
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


MESSAGE = message()


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(MESSAGE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_mutated_message_gives_events_or_is_refused(changes: list[tuple[int, int]]) -> None:
    """After Arrow's full validation and the check, decoding never fails."""
    damaged = bytearray(MESSAGE)
    for place, byte in changes:
        damaged[place] = byte
    try:
        batch = pa.ipc.open_stream(bytes(damaged)).read_next_batch()
        batch.validate(full=True)
        check_events(batch)
    except (FrameError, pa.ArrowException, OSError, StopIteration, ValueError):
        return  # what Arrow itself refuses is the wire decoder's matter
    assert len(decode_events([batch, batch])) == 2 * batch.num_rows
