"""Rows as dicts: columns collected, each converted once to an array whose dtype follows from the kind of its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from quixframes.columns import OBJECT, refuse, values_of
from quixframes.errors import FrameError
from quixframes.rules import TEXT_ADVICE
from quixframes.times import TO_DATETIME, missing_time

__all__ = ["array_of", "collect", "kind_of", "texts_of", "times_of_rows"]

MAX = 2**63 - 1  # of an int64


def collect(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of each column, with None for a missing key."""
    if not rows:
        raise FrameError("there are no rows, so there are no columns either; write at least one")
    names = tuple(rows[0])
    if all(row.keys() == rows[0].keys() for row in rows):
        return {name: list(map(itemgetter(name), rows)) for name in names}
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain.from_iterable(rows))}


KINDS: tuple[tuple[str, tuple[type, ...], type], ...] = (  # kind, its types, and the base of its NumPy scalars
    ("bool", (bool,), np.bool_),
    ("timedelta", (timedelta, pd.Timedelta), np.timedelta64),  # before int, because NumPy makes it a signed integer
    ("int", (int,), np.integer),
    ("float", (float, np.float64, np.float32, np.float16), np.float64),
    ("str", (str,), np.str_),
    ("bytes", (bytes,), np.bytes_),
    ("datetime", (datetime, pd.Timestamp), np.datetime64),
)
NUMBERS = {"int", "float"}
EXACT = 2**53  # up to here, either way, a float64 holds every integer
ABSENT = {type(None), type(pd.NA), type(pd.NaT)}


def kind_of(of: type) -> str | None:
    """The kind of values of this type, or None for a type that is not carried."""
    return next((name for name, types, scalar in KINDS if of in types or issubclass(of, scalar)), None)


def _kind_of_values(values: list[Any], column: str) -> str | None:
    """The one kind of a column's values, None if all are missing; FrameError for an unknown kind or a mixture.

    Integers among floats are floats.
    """
    kinds = {of: kind_of(of) for of in set(map(type, values)) - ABSENT}
    names = set(kinds.values())
    if None not in names and (len(names) < 2 or names == NUMBERS):
        return "float" if len(names) == 2 else next(iter(names), None)
    first = None
    for row, value in enumerate(values):
        if type(value) in ABSENT:
            continue
        kind = kinds[type(value)]
        if kind is None:
            advice = "write a bool, int, float, str, bytes, datetime or timedelta"
            raise refuse(column, f"{value!r:.80} is a {type(value).__name__}, which is not carried", advice, row)
        first = first or kind
        if kind != first and {kind, first} != NUMBERS:
            advice = "give the column one type"
            raise refuse(column, f"{value!r:.80} is a {kind}, among values of type {first}", advice, row)
    raise AssertionError("a mixture has a first row")


def _without_nan(values: list[Any]) -> list[Any]:
    """None for each NaN, if there is anything but floats: pandas itself marks missing strings and times by NaN."""
    floats = {of for of in set(map(type, values)) if kind_of(of) == "float"}
    if not floats or set(map(type, values)) <= floats | ABSENT:
        return values
    return [None if type(value) in floats and value != value else value for value in values]


def array_of(values: list[Any], column: str, text: Any) -> Any:
    """One column of dicts as a pandas or NumPy array, of the dtype that `FrameEncoder.encode_rows` documents."""
    values = _without_nan(values)
    kind = _kind_of_values(values, column)
    missing = None
    if not ABSENT.isdisjoint(set(map(type, values))):
        missing = np.fromiter((type(value) in ABSENT for value in values), bool, len(values))
        values = [None if absent else value for value, absent in zip(values, missing.tolist(), strict=True)]
    if kind == "float":
        _check_exact(values, column)
    try:
        return _texts(values, text) if kind == "str" else ROW_ARRAYS[kind](values, missing)
    except (OverflowError, ValueError, TypeError) as error:
        raise refuse(column, f"the values fit in no one dtype ({error})", "give them one type and range") from error


def texts_of(values: list[Any], column: str, text: Any) -> Any:
    """A tag of dicts as an array of ``text``, pandas' dtype for strings. FrameError for what is no str and not missing.

    >>> texts_of(["12", None, float("nan")], "TAG__lap", OBJECT)
    array(['12', None, None], dtype=object)
    """
    if not set(map(type, values)) <= {str, type(None)}:
        values = [_text_or_none(value, column, row) for row, value in enumerate(values)]
    return _texts(values, text)


def _text_or_none(value: Any, column: str, row: int) -> str | None:
    kind = kind_of(type(value))
    if kind == "str":
        text: str = value
        return text
    if type(value) in ABSENT or (kind == "float" and value != value):
        return None
    raise refuse(column, f"{value!r:.80} is a {type(value).__name__}", TEXT_ADVICE, row)


def _check_exact(values: list[Any], column: str) -> None:
    """FrameError for an integer among floats that a float64 may not hold."""
    integers = {of for of in set(map(type, values)) if kind_of(of) == "int"}
    if not integers:
        return
    for row, value in enumerate(values):
        if type(value) in integers and not -EXACT <= value <= EXACT:
            reason = f"{value} is an integer among floats, too large to be one of them exactly"
            raise refuse(column, reason, "round it yourself with float(), or write all of the column as int", row)


def _bools(values: list[Any], missing: Any) -> Any:
    return np.array(values, bool) if missing is None else pd.arrays.BooleanArray(np.array(values, bool), missing)


def _ints(values: list[Any], missing: Any) -> Any:
    filled = values if missing is None else [0 if value is None else value for value in values]
    numbers = np.array(filled, np.uint64 if max(filled) > MAX else np.int64)
    return numbers if missing is None else pd.arrays.IntegerArray(numbers, missing)


def _objects(values: list[Any], missing: Any) -> Any:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _texts(values: list[Any], dtype: Any) -> Any:
    return _objects(values, None) if dtype == OBJECT else pd.array(values, dtype=dtype)


def _timelike(letter: str) -> Callable[[list[Any], Any], Any]:
    def build(values: list[Any], missing: Any) -> Any:
        series = pd.Series(values)
        if series.dtype.kind != letter:
            raise ValueError("naive and aware datetimes, several zones, or a time that pandas cannot hold")
        return series.array

    return build


ROW_ARRAYS: dict[str | None, Callable[[list[Any], Any], Any]] = {
    None: lambda values, missing: np.full(len(values), np.nan),
    "bool": _bools,
    "int": _ints,
    "float": lambda values, missing: np.array(values, np.float64),
    "bytes": _objects,
    "datetime": _timelike("M"),
    "timedelta": _timelike("m"),
}


def times_of_rows(values: list[Any], column: str) -> Any:
    """The times of dicts as an array that `time_ns` takes: datetimes, naive or aware, or integers, or timedeltas."""
    missing = pd.isna(_objects(values, None))
    if missing.any():
        raise missing_time(missing, column)
    kind = _kind_of_values(values, column)
    if kind == "datetime":
        try:
            return values_of(pd.to_datetime(values, utc=True))
        except ValueError as error:  # pandas' OutOfBoundsDatetime is one
            raise refuse(column, f"a time is outside of what nanoseconds can hold ({error})", "correct it") from error
    if kind in ("int", "timedelta"):
        return np.asarray(array_of(values, column, None))
    row = next(row for row, value in enumerate(values) if kind_of(type(value)) == kind)
    raise refuse(column, f"{values[row]!r:.80} is a {kind}, which is no time", TO_DATETIME, row)
