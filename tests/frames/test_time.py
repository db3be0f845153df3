"""Where the time of a frame may stand, what it may be, and what becomes of it."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from frame_cases import TIMES, UNITS, assert_same, indexed, there_and_back
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes.errors import FrameError
from quixframes.frames import FrameDecoder, FrameEncoder

EPOCH = 1_700_000_000_000_000_000


def times(frame: pd.DataFrame, epoch: int = 0) -> list[int]:
    """The nanoseconds that arrive."""
    batch = FrameEncoder().encode(frame, epoch=epoch)
    assert batch.schema.field(0).equals(
        pa.field("time", pa.timestamp("ns", "UTC"), nullable=False), check_metadata=True
    )
    got: list[int] = batch.column(0).cast(pa.int64()).to_pylist()
    return got


@pytest.mark.parametrize("name", ["time", "TIME", "Timestamp", "dateTime"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_time_column_may_stand_anywhere_and_be_written_in_any_case(name: str, place: int) -> None:
    """It becomes the index; the other columns keep their order."""
    frame = pd.DataFrame({"b": [1.0, 2.0], "a": [3, 4]})
    frame.insert(place, name, pd.to_datetime(["2026-11-15", "2026-11-14"]))
    got = there_and_back(frame)
    assert list(got.columns) == ["b", "a"]
    assert got.index.tolist() == [pd.Timestamp("2026-11-15", tz="UTC"), pd.Timestamp("2026-11-14", tz="UTC")]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("as_index", [True, False])
def test_datetimes_of_any_unit_and_zone_become_utc_nanoseconds(unit: Any, zone: str | None, as_index: bool) -> None:
    """A naive time means UTC, a time with a zone its instant; the epoch is for integers and not added."""
    index = pd.DatetimeIndex(["2026-11-15 12:00", "2026-03-29 02:00"], name="seen").as_unit(unit)
    if zone:
        index = index.tz_localize("UTC").tz_convert(zone)
    want = [1_794_744_000_000_000_000, 1_774_749_600_000_000_000]
    frame = pd.DataFrame({"x": [1, 2]}, index=index) if as_index else pd.DataFrame({"time": index, "x": [1, 2]})
    assert times(frame, EPOCH) == want
    assert there_and_back(frame).index.name == "time"


@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int64", "uint64", "Int64", "UInt8", "int32[pyarrow]", "uint64[pyarrow]"]
)
def test_integers_are_nanoseconds_since_the_epoch(dtype: str) -> None:
    """Of any integer dtype, the nullable and Arrow ones included."""
    frame = pd.DataFrame({"time": pd.array([5, 3, 5], dtype=dtype)})
    assert times(frame) == [5, 3, 5]
    assert times(frame, EPOCH) == [EPOCH + 5, EPOCH + 3, EPOCH + 5]


@pytest.mark.parametrize("unit", UNITS)
def test_timedeltas_count_from_the_epoch(unit: str) -> None:
    """Of any unit, NumPy's or Arrow's."""
    column = pd.Series(np.array([2, -1], f"m8[{unit}]"))
    step = pd.Timedelta(1, unit).value  # type: ignore[call-overload]
    assert times(pd.DataFrame({"time": column}), EPOCH) == [EPOCH + 2 * step, EPOCH - step]
    arrow = column.astype(pd.ArrowDtype(pa.duration(unit)))
    assert times(pd.DataFrame({"time": arrow}), EPOCH) == [EPOCH + 2 * step, EPOCH - step]


@pytest.mark.parametrize("arrow", [pa.timestamp("s"), pa.timestamp("ns", "UTC"), pa.timestamp("us", "Europe/Berlin")])
def test_timestamps_of_arrow_are_times_as_column_and_as_index(arrow: pa.DataType) -> None:
    """An index of Arrow timestamps is a time, as a DatetimeIndex is."""
    array = pd.array([datetime(2026, 11, 15, tzinfo=UTC if arrow.tz else None)] * 2, dtype=pd.ArrowDtype(arrow))
    assert times(pd.DataFrame({"time": array})) == [1_794_700_800_000_000_000] * 2
    assert times(pd.DataFrame({"x": [1, 2]}, index=pd.Index(array))) == [1_794_700_800_000_000_000] * 2


@settings(max_examples=300, deadline=None)
@given(st.lists(TIMES, max_size=20))
def test_any_times_in_any_order_stay_as_they_are(drawn: list[int]) -> None:
    """Duplicates, disorder and the ends of the range."""
    frame = indexed({"x": np.arange(len(drawn), dtype="f8")}, drawn)
    assert_same(there_and_back(frame), frame)
    assert times(frame) == drawn
    assert times(pd.DataFrame({"time": drawn}, dtype="int64")) == drawn


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5), TIMES)
def test_an_epoch_and_an_integer_add_up_exactly_or_not_at_all(drawn: list[int], epoch: int) -> None:
    """A sum outside of nanoseconds is an error that names the first such row; none wraps around."""
    sums = [value + epoch for value in drawn]
    wrong = [row for row, value in enumerate(sums) if not -(2**63) < value < 2**63]
    frame = pd.DataFrame({"time": np.array(drawn, "i8")})
    if not wrong:
        assert times(frame, epoch) == sums
    else:
        with pytest.raises(FrameError) as caught:
            times(frame, epoch)
        assert caught.value.row == wrong[0]


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_a_datetime_outside_of_nanoseconds_is_refused(unit: Any) -> None:
    """The year 3000 is a time in seconds, and none in nanoseconds."""
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.DatetimeIndex(np.array(["2026-01-01", "3000-01-01"], f"M8[{unit}]")))
    with pytest.raises(FrameError, match="row 1: the time .* outside of what nanoseconds can hold") as caught:
        times(frame)
    assert caught.value.row == 1


def test_an_unsigned_integer_past_the_range_is_refused() -> None:
    """uint64 reaches further than nanoseconds do."""
    with pytest.raises(FrameError, match="row 1"):
        times(pd.DataFrame({"time": np.array([1, 2**63], "u8")}))


MISSING: dict[str, Any] = {
    "datetime64": pd.to_datetime(["2026-01-01", None, "2026-01-01", None]),
    "zoned": pd.to_datetime(["2026-01-01", None, "2026-01-01", None]).tz_localize("Asia/Tokyo"),
    "timedelta64": pd.to_timedelta([1, None, 1, None]),
    "Int64": pd.array([1, None, 1, None], dtype="Int64"),
    "arrow": pd.array([datetime(2026, 1, 1), None] * 2, dtype=pd.ArrowDtype(pa.timestamp("us"))),
    "arrow integers": pd.array([1, None, 1, None], dtype="int64[pyarrow]"),
}


@pytest.mark.parametrize("kind", MISSING)
def test_missing_times_are_an_error_that_says_which_rows(kind: str) -> None:
    """Never a dropped row, and never a time made up."""
    with pytest.raises(
        FrameError, match=r"column 'Time': the time is missing in rows 1, 3; fill it in, or drop"
    ) as caught:
        times(pd.DataFrame({"Time": MISSING[kind], "x": 1}))
    assert (caught.value.row, caught.value.column) == (1, "Time")


def test_many_missing_times_are_counted() -> None:
    """The text stays short."""
    index = pd.DatetimeIndex([pd.NaT] * 1000)
    with pytest.raises(FrameError, match="rows 0, 1, 2, 3, 4 and 995 more"):
        times(pd.DataFrame({"x": np.zeros(1000)}, index=index))


NO_TIMES: dict[str, Any] = {
    "str": ["2026-01-01"],
    "object of datetimes": np.array([datetime(2026, 1, 1)], object),
    "dates": np.array([datetime(2026, 1, 1).date()], object),
    "float": [1.5],
    "Float64": pd.array([1.5], dtype="Float64"),
    "bool": [True],
    "boolean": pd.array([True], dtype="boolean"),
    "arrow text": pd.array(["x"], dtype=pd.ArrowDtype(pa.string())),
    "arrow date": pd.array([datetime(2026, 1, 1).date()], dtype=pd.ArrowDtype(pa.date32())),
    "category": pd.Categorical(pd.to_datetime(["2026-01-01"])),
    "period": pd.period_range("2026", periods=1, freq="D"),
}


@pytest.mark.parametrize("kind", NO_TIMES)
def test_what_is_no_time_is_refused_and_to_datetime_named(kind: str) -> None:
    """Text is not parsed and floats are not rounded: the user says what they mean."""
    frame = pd.DataFrame({"time": pd.Series(NO_TIMES[kind], dtype=getattr(NO_TIMES[kind], "dtype", None))})
    with pytest.raises(FrameError, match=r"column 'time': .* no time; convert it with pd\.to_datetime") as caught:
        times(frame)
    assert caught.value.column == "time"


ROWS = {"x": [1.0, 2.0]}
AT = pd.to_datetime(["2026-01-01", "2026-01-02"])
WRONG_PLACES: dict[str, tuple[Any, str]] = {
    "none": (pd.DataFrame(ROWS), "the frame has no time.*DatetimeIndex.*pd.to_datetime"),
    "empty": (pd.DataFrame(), "the frame has no time"),
    "two columns": (pd.DataFrame({"time": AT, "Timestamp": AT}), "'Timestamp': column 'time' is a time already"),
    "column and index": (pd.DataFrame({"DATETIME": AT}, index=AT), "'DATETIME': the index is a time already"),
    "named index": (pd.DataFrame({"time": AT}, index=pd.Index([0, 1], name="lap")), r"index.*'lap'.*reset_index\(\)"),
    "text index": (pd.DataFrame({"time": AT}, index=["a", "b"]), r"index.*carries data.*reset_index\(\)"),
    "float index": (pd.DataFrame({"time": AT}, index=[0.5, 1.5]), r"index.*reset_index\(\)"),
    "timedelta index": (pd.DataFrame(ROWS, index=pd.to_timedelta([1, 2])), r"index.*TimedeltaIndex.*reset_index\(\)"),
    "period index": (
        pd.DataFrame(ROWS, index=pd.period_range("2026", periods=2, freq="D")),
        r"PeriodIndex.*reset_index",
    ),
    "levels": (pd.DataFrame(ROWS, index=pd.MultiIndex.from_product([["a"], AT])), r"MultiIndex.*reset_index\(\)"),
}


@pytest.mark.parametrize("case", WRONG_PLACES)
def test_a_time_in_no_place_or_in_two_is_refused(case: str) -> None:
    """So is an index that carries data and would be lost."""
    frame, message = WRONG_PLACES[case]
    with pytest.raises(FrameError, match=message):
        times(frame)


@pytest.mark.parametrize(
    "index", [pd.RangeIndex(2), pd.RangeIndex(10, 30, 10), pd.Index([7, 3]), pd.Index([1, 1], dtype="uint8")]
)
def test_unnamed_integer_labels_are_dropped(index: Any) -> None:
    """They are the row numbers that pandas gives, also after a filter or a sort."""
    assert times(pd.DataFrame({"time": AT, **ROWS}, index=index)) == AT.as_unit("ns").asi8.tolist()


@pytest.mark.parametrize("index", [None, pd.DatetimeIndex([]), pd.Index([], dtype=object)])
def test_zero_rows_are_a_batch_of_zero_rows(index: Any) -> None:
    """With the dtypes of the columns."""
    data = {
        "x": pd.Series([], dtype="float32"),
        "lap": pd.Categorical([], categories=["a"]),
        "o": pd.Series([], dtype=object),
    }
    frame = pd.DataFrame(data) if index is None else pd.DataFrame(data, index=index)
    if not isinstance(index, pd.DatetimeIndex):
        frame["time"] = pd.Series([], dtype="int64")
    got = there_and_back(frame)
    assert len(got) == 0
    assert got.dtypes.tolist() == [frame[name].dtype for name in ("x", "lap", "o")]


def test_a_frame_may_be_nothing_but_times() -> None:
    """Its columns are pandas' own default for strings, like those of any other frame."""
    got = there_and_back(pd.DataFrame(index=AT))
    assert got.shape == (2, 0)
    assert got.columns.dtype == pd.Index(["a"]).dtype
    assert there_and_back(pd.DataFrame({"time": AT, **ROWS})).columns.dtype == pd.Index(["a"]).dtype


def test_what_is_no_row_is_not_carried() -> None:
    """attrs, the columns' name, the index's name and freq."""
    frame = pd.DataFrame(ROWS, index=pd.date_range("2026", periods=2, freq="D", name="day"))
    frame.attrs["unit"] = "m"
    frame.columns.name = "parameter"
    got = there_and_back(frame)
    assert (got.attrs, got.columns.name, got.index.name, got.index.freq) == ({}, None, "time", None)


@pytest.mark.parametrize("value", [timedelta(seconds=1), 1_000_000_000])
def test_rows_take_the_epoch_too(value: Any) -> None:
    """Dicts follow the rules of frames."""
    batch = FrameEncoder().encode_rows([{"time": value}], epoch=EPOCH)
    assert FrameDecoder().decode(batch).index.asi8.tolist() == [EPOCH + 1_000_000_000]


def test_pandas_warns_of_nothing_on_the_way() -> None:
    """No call of ours is deprecated by the pandas that is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = indexed(
            {"x": [1.0], "at": AT[:1].tz_localize("UTC"), "s": ["a"], "c": pd.Categorical(AT[:1].tz_localize("UTC"))}
        )
        there_and_back(frame)
        there_and_back(frame.reset_index())
        FrameEncoder().encode_rows([{"time": datetime(2026, 1, 1, tzinfo=UTC), "at": datetime(2026, 1, 1), "s": "x"}])
