"""Every frame that cannot be carried exactly is one clear error: the column, the row, the reason, what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from frame_cases import indexed, of_object

from quixframes.errors import FrameError
from quixframes.frames import FrameEncoder


class Gear(StrEnum):
    """A str that would come back as another type."""

    FIRST = "1"


def arrow(values: Any, of: pa.DataType) -> Any:
    return pd.ArrowDtype(of).__from_arrow__(pa.array(values, of))


def broken_text() -> Any:
    array = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], "i4")), pa.py_buffer(b"\xff")])
    return pd.ArrowDtype(pa.string()).__from_arrow__(array)


# case: (a column, the row of the error, a part of the reason, a part of the advice)
COLUMNS: dict[str, tuple[Callable[[], Any], int | None, str, str]] = {
    "complex": (lambda: np.array([1j, 2j]), None, "complex128 is not carried", "astype"),
    "long double": (lambda: np.array([1, 2], np.longdouble), None, "is not carried", "astype"),
    "big-endian": (lambda: np.array([1.0, 2.0], ">f8"), None, ">f8|float64 is not carried", "astype"),
    "sparse": (lambda: pd.arrays.SparseArray([0.0, 1.0]), None, "sparse", "to_dense"),
    "period": (lambda: pd.period_range("2026", periods=2, freq="D"), None, "periods", "to_timestamp"),
    "interval": (lambda: pd.interval_range(0, 2), None, "intervals", "left"),
    "nested list": (lambda: arrow([[1], [2]], pa.list_(pa.int8())), None, "nested", "flat columns"),
    "nested struct": (lambda: arrow([{"a": 1}, None], pa.struct([("a", pa.int8())])), None, "nested", "flat"),
    "dictionary of lists": (
        lambda: pd.ArrowDtype(pa.dictionary(pa.int8(), pa.list_(pa.int8()))).__from_arrow__(
            pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int8()), pa.array([[1]], pa.list_(pa.int8())))
        ),
        None,
        "nested",
        "flat",
    ),
    "unknown zone": (lambda: arrow([1, 2], pa.timestamp("s", "Mars/Olympus")), None, "unknown here", "UTC"),
    "broken text": (lambda: pd.concat([pd.Series(broken_text())] * 2), None, "not valid", "rebuild"),
    "objects of numbers": (lambda: of_object(["a", 1]), 1, "1 is a int", "one type"),
    "objects of floats": (lambda: of_object([None, 1.5]), 1, "1.5 is a float", "pd.to_numeric"),
    "objects of dates": (lambda: of_object([date(2026, 1, 1), None]), 0, "is a date", "pd.to_datetime"),
    "objects of datetimes": (lambda: of_object([None, datetime(2026, 1, 1)]), 1, "is a datetime", "pd.to_datetime"),
    "objects of bools": (lambda: of_object([True, False]), 0, "True is a bool", "one type"),
    "objects of lists": (lambda: of_object(["a", [1]]), 1, "is a list", "one type"),
    "str and bytes": (lambda: of_object(["a", b"b"]), 1, "bytes among str", "one type"),
    "bytes and str": (lambda: of_object([b"a", "b"]), 1, "str among bytes", "one type"),
    "NaT among str": (lambda: of_object(["a", pd.NaT]), 1, "NaT is a NaTType", "one type"),
    "Decimal NaN among str": (lambda: of_object([Decimal("NaN"), "a"]), 0, "is a Decimal", "one type"),
    "bytearray": (lambda: of_object([b"a", bytearray(b"b")]), 1, "is a bytearray", "one type"),
    "an Enum": (lambda: of_object(["a", Gear.FIRST]), 1, "is a Gear", "one type"),
    "surrogate in objects": (lambda: of_object(["a", "\ud800"]), 1, "surrogate", "replace"),
    "surrogate beside NaN": (lambda: of_object([np.nan, "\ud800"]), 1, "surrogate", "replace"),
    "surrogate in strings": (lambda: pd.array(["a", "\udfff"], dtype="string[python]"), 1, "surrogate", "replace"),
    "categories of intervals": (lambda: pd.cut([1, 2], 2), None, "categories.*intervals", "rename_categories"),
    "categories of a mixture": (lambda: pd.Categorical(["a", 1]), None, "categories", "rename_categories"),
    "seconds in an offset": (
        lambda: pd.to_datetime(["2026", "2026"]).tz_localize(timezone(timedelta(seconds=90))),
        None,
        "cannot be restored",
        "tz_convert",
    ),
    "a named offset": (
        lambda: pd.to_datetime(["2026", "2026"]).tz_localize(timezone(timedelta(hours=1), "here")),
        None,
        "cannot be restored",
        "tz_convert",
    ),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_a_column_that_cannot_be_carried_is_named(case: str) -> None:
    """With its first offending row, the reason, and what to do instead."""
    make, row, reason, advice = COLUMNS[case]
    values = make()
    frame = indexed({"fine": [1.0, 2.0], "wrong one": values.array if isinstance(values, pd.Series) else values})
    with pytest.raises(FrameError) as caught:
        FrameEncoder().encode(frame)
    error = caught.value
    assert (error.column, error.row) == ("wrong one", row)
    place = "column 'wrong one'" if row is None else f"column 'wrong one', row {row}"
    assert str(error).startswith(place + ": ")
    assert re.search(f"(?s){reason}.*; .*{advice}", str(error))


def test_another_librarys_zone_is_refused_unless_it_is_utc() -> None:
    """A zone of dateutil has no name that restores it; but its UTC is UTC, to pandas too."""
    tz = pytest.importorskip("dateutil.tz")
    frame = indexed({"at": pd.to_datetime(["2026"]).tz_localize(tz.tzoffset("here", 3600))})
    with pytest.raises(FrameError, match="cannot be restored"):
        FrameEncoder().encode(frame)
    utc = FrameEncoder().encode(indexed({"at": pd.to_datetime(["2026"]).tz_localize(tz.UTC)}))
    assert utc.schema.equals(
        FrameEncoder().encode(indexed({"at": pd.to_datetime(["2026"]).tz_localize(UTC)})).schema, check_metadata=True
    )


NAMES: dict[str, tuple[Any, object, str]] = {
    "number": (["a", 1], 1, "int, not a string; rename"),
    "None": (["a", None], None, "not a string"),
    "tuple": (["a", ("b", "c")], ("b", "c"), "tuple, not a string"),
    "twice": (["a", "a"], "a", "two columns have this name; rename or drop"),
    "surrogate": (["a", "\ud800"], "\ud800", "surrogate"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_name_that_cannot_be_carried_is_refused(case: str) -> None:
    """Names are strings, and each is there once."""
    names, column, message = NAMES[case]
    frame = pd.DataFrame([[1.0, 2.0]], index=pd.DatetimeIndex(["2026"]))
    frame.columns = pd.Index(names, dtype=object)
    if case == "None":
        column = frame.columns[1]
    with pytest.raises(FrameError, match=message) as caught:
        FrameEncoder().encode(frame)
    assert caught.value.column == column


def test_columns_of_several_levels_are_refused() -> None:
    """The advice says how to join them."""
    frame = pd.DataFrame([[1.0]], index=pd.DatetimeIndex(["2026"]), columns=pd.MultiIndex.from_tuples([("a", "b")]))
    with pytest.raises(FrameError, match="several levels; join"):
        FrameEncoder().encode(frame)


def test_the_encoder_goes_on_after_an_error() -> None:
    """Nothing of a refused frame stays behind in what the encoder keeps."""
    encoder = FrameEncoder()
    good = indexed({"x": [1.0], "y": of_object(["a"])})
    before = encoder.encode(good)
    for wrong in (good.assign(y=1j), good.rename(columns={"x": "y"}), good.assign(y=of_object([1]))):
        with pytest.raises(FrameError):
            encoder.encode(wrong)
    assert encoder.encode(good).equals(before, check_metadata=True)
