"""Rows as dicts: the dtype of each column, missing values, mixtures."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd
import pytest
from frame_cases import assert_same, over_the_wire
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes.errors import FrameError
from quixframes.frames import FrameDecoder, FrameEncoder

TEXT = pd.Series(["a"]).dtype
NAT = pd.NaT


class Gear(IntEnum):
    """An int that would come back as another type."""

    FIRST = 1


def column(values: list[Any], key: str = "x") -> pd.Series[Any]:
    """What arrives of a column; ``...`` stands for a missing key."""
    rows = [{"time": row} | ({} if value is ... else {key: value}) for row, value in enumerate(values)]
    return FrameDecoder().decode(over_the_wire(FrameEncoder().encode_rows(rows)))[key]


at = datetime(2026, 11, 15, 12)
DTYPES: dict[str, tuple[list[Any], str, list[Any]]] = {
    "bool": ([True, np.False_], "bool", [True, False]),
    "bool missing": ([True, None, ...], "boolean", [True, pd.NA, pd.NA]),
    "int": ([1, np.int8(-2), np.uint64(3)], "int64", [1, -2, 3]),
    "int missing": ([1, None, pd.NA, np.nan, ..., 2**62 + 1], "Int64", [1, pd.NA, pd.NA, pd.NA, pd.NA, 2**62 + 1]),
    "large int": ([1, 2**64 - 1], "uint64", [1, 2**64 - 1]),
    "large int missing": ([..., 2**64 - 1], "UInt64", [pd.NA, 2**64 - 1]),
    "float": ([1.5, np.float32(2), np.float16(3), np.inf], "float64", [1.5, 2.0, 3.0, np.inf]),
    "float missing": ([1.5, None, ..., np.nan, pd.NA], "float64", [1.5, np.nan, np.nan, np.nan, np.nan]),
    "int and float": ([3, 3.5, np.int8(-2), np.float32(1), 2**53], "float64", [3.0, 3.5, -2.0, 1.0, 2.0**53]),
    "int and float missing": ([-(2**53), None, 0.5, np.nan, ...], "float64", [-(2.0**53), np.nan, 0.5, np.nan, np.nan]),
    "bytes": ([b"\xff", None, np.bytes_(b"a"), ...], "object", [b"\xff", None, b"a", None]),
    "timedelta": (
        [timedelta(seconds=1), np.timedelta64(2, "s"), ...],
        "",
        [pd.Timedelta("1s"), pd.Timedelta("2s"), NAT],
    ),
    "timedeltas of NumPy": ([np.timedelta64(1, "ns"), NAT], "timedelta64[ns]", [pd.Timedelta(1, "ns"), NAT]),
    "datetime": ([at, None, NAT, pd.Timestamp(at), np.datetime64(at)], "", [at, NAT, NAT, at, at]),
    "zoned": ([at.replace(tzinfo=UTC), ...], "", [at.replace(tzinfo=UTC), NAT]),
    "nothing": ([None, ..., pd.NA], "float64", [np.nan] * 3),
}


@pytest.mark.parametrize("case", DTYPES)
def test_the_kind_of_the_values_gives_the_dtype(case: str) -> None:
    """As the table in encode_rows says."""
    values, dtype, want = DTYPES[case]
    rows = [*values, None] if case == "nothing" else values
    if case == "nothing":
        want = [np.nan] * len(rows)
    key = "x"
    frame_rows = [{"time": row} | ({} if value is ... else {key: value}) for row, value in enumerate(rows)]
    got = FrameDecoder().decode(over_the_wire(FrameEncoder().encode_rows(frame_rows)))[key]
    assert str(got.dtype) == dtype or not dtype
    for value, wanted in zip(got.tolist(), want, strict=True):
        assert (value is wanted) or (value != value and wanted != wanted) or (value == wanted and wanted is not NAT)


def test_strings_have_the_dtype_that_pandas_gives_them() -> None:
    """str under pandas 3; under pandas 2 object, with None for what is missing."""
    got = column(["a", None, ..., "", np.str_("b"), np.nan])
    assert repr(got.dtype) == repr(TEXT)
    assert got.isna().tolist() == [False, True, True, False, False, True]
    assert got[~got.isna()].tolist() == ["a", "", "b"]


MIXED: dict[str, tuple[list[Any], int, str]] = {
    "large int among float": ([2.5, 1, 2**53 + 1], 2, "9007199254740993 is an integer among floats, too large"),
    "large negative int among float": ([np.int64(-(2**63)), None, 2.5], 0, "an integer among floats, too large"),
    "large unsigned int among float": ([2.5, np.uint64(2**63)], 1, "an integer among floats, too large"),
    "bool among int": ([1, True], 1, "is a bool"),
    "bool among float": ([1.5, None, True], 2, "is a bool"),
    "bool among int and float": ([1, 1.5, np.True_], 2, "is a bool"),
    "str among int and float": ([1, 1.5, "1"], 2, "is a str"),
    "str among int": ([1, "1"], 1, "is a str"),
    "bytes among str": (["a", b"a"], 1, "is a bytes"),
    "a list": ([1, [1]], 1, "list, which is not carried"),
    "a date": ([date(2026, 1, 1)], 0, "date, which is not carried"),
    "an Enum": ([1, Gear.FIRST], 1, "Gear, which is not carried"),
    "complex": ([1j], 0, "complex, which is not carried"),
    "long double": ([np.longdouble(1)], 0, "longdouble, which is not carried"),
}


@pytest.mark.parametrize("case", MIXED)
def test_a_mixture_is_refused_with_column_and_row(case: str) -> None:
    """Only integers stand among floats, and only those that a float64 holds for certain."""
    values, row, message = MIXED[case]
    with pytest.raises(FrameError, match=message) as caught:
        column(values, "lap")
    assert (caught.value.column, caught.value.row) == ("lap", row)


NO_DTYPE: dict[str, list[Any]] = {
    "int past 64 bits": [2**64],
    "negative beside unsigned": [-1, 2**63],
    "int below 64 bits": [-(2**63) - 1],
    "naive beside aware": [at, at.replace(tzinfo=UTC)],
}


@pytest.mark.parametrize("case", NO_DTYPE)
def test_values_that_fit_in_no_one_dtype_are_refused(case: str) -> None:
    """Never rounded, never made into text."""
    with pytest.raises(FrameError, match="column 'x': the values fit in no one dtype") as caught:
        column(NO_DTYPE[case])
    assert caught.value.column == "x"


@pytest.mark.parametrize(
    ("rows", "row", "message"),
    [
        ([], None, "no rows"),
        ([{"x": 1}], None, "the frame has no time"),
        ([{"time": 1}, {"x": 1}], 1, "missing in row 1"),
        ([{"time": 1}, {"time": None}, {"time": pd.NaT}], 1, "missing in rows 1, 2"),
        ([{"time": 1, "Timestamp": 2}], None, "is a time already"),
        ([{"time": "2026-01-01"}], 0, "is a str, which is no time; convert it with pd.to_datetime"),
        ([{"time": 1.5}], 0, "is a float, which is no time"),
        ([{"time": 1}, {"time": 1.5}], 1, "1.5 is a float, which is no time"),
        ([{"time": 1}, {"time": at}], 1, "datetime, among values of type int"),
        ([{"time": datetime(3000, 1, 1)}], None, "outside of what nanoseconds can hold"),
        ([{"time": 2**63}], None, "outside of what nanoseconds can hold"),
        ([{"time": 1, 5: 2}], None, "not a string"),
    ],
)
def test_rows_without_a_proper_time_or_name_are_refused(rows: list[Any], row: int | None, message: str) -> None:
    """As in a frame."""
    with pytest.raises(FrameError, match=message) as caught:
        FrameEncoder().encode_rows(rows)
    assert row is None or caught.value.row == row


def test_columns_stand_in_the_order_in_which_they_appear_first() -> None:
    """Keys may come and go from row to row, and in any order."""
    batch = FrameEncoder().encode_rows([{"b": 1, "time": 1}, {"a": 2, "time": 2, "b": 3}, {"time": 3, "c": 4, "a": 5}])
    assert batch.schema.names == ["time", "b", "a", "c"]


MOMENTS = st.one_of(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    st.integers(-(2**62), 2**62).map(lambda ns: pd.Timestamp(ns)),
    st.integers(-(2**62), 2**62).map(lambda ns: np.datetime64(ns, "ns")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(MOMENTS, min_size=1, max_size=5))
def test_times_of_any_mixture_of_datetimes_are_their_instants(moments: list[Any]) -> None:
    """Naive means UTC; nanoseconds stay beside microseconds."""
    want = [pd.Timestamp(moment) for moment in moments]
    want = [(moment.tz_localize("UTC") if moment.tz is None else moment).as_unit("ns") for moment in want]
    got = FrameDecoder().decode(FrameEncoder().encode_rows([{"time": moment} for moment in moments]))
    assert got.index.asi8.tolist() == [moment.value for moment in want]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.integers(-(2**54), 2**54), st.floats()), min_size=1, max_size=4))
def test_numbers_in_a_column_keep_their_value_or_are_refused(drawn: list[Any]) -> None:
    """Python compares an int and a float exactly, so nothing is rounded on the way."""
    floats = any(type(value) is float and value == value for value in drawn)
    wrong = [row for row, value in enumerate(drawn) if floats and type(value) is int and abs(value) > 2**53]
    if wrong:
        with pytest.raises(FrameError, match="too large") as caught:
            column(drawn)
        assert caught.value.row == wrong[0]
    else:
        for value, wanted in zip(column(drawn).tolist(), drawn, strict=True):
            assert value == wanted if wanted == wanted else pd.isna(value)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"time": st.integers(-(2**62), 2**62), "f": st.floats(), "i": st.integers(-(2**63), 2**63 - 1)},
            optional={"g": st.one_of(st.none(), st.floats())},
        ).flatmap(lambda row: st.tuples(st.just(row), st.booleans(), st.text(max_size=3))),
        min_size=1,
        max_size=6,
    )
)
def test_rows_are_what_the_same_dataframe_would_be(drawn: list[tuple[dict[str, Any], bool, str]]) -> None:
    """The oracle: pd.DataFrame of the same dicts, encoded."""
    rows = [row | {"b": flag, "TAG__s": text} for row, flag, text in drawn]
    frame = pd.DataFrame(rows)
    if "g" in frame:
        frame = frame.astype({"g": "float64"})
    encoder, decoder = FrameEncoder(), FrameDecoder()
    got, want = (decoder.decode(batch) for batch in (encoder.encode_rows(rows), encoder.encode(frame)))
    assert_same(got[list(want)], want)
