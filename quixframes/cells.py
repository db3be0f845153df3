"""Values as JSON and CSV have them ⇄ columns. Pure, and a column at a time.

What this module holds to:

- A value is taken as it is written, or is refused with its row: no number is rounded, no text is taken for a number
  unless its format has nothing but text (``parse``), no time is guessed.
- What a column is written as follows from its Arrow type alone, and is read back as the same value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from quixframes.columns import OBJECT, nulls, refuse
from quixframes.dtypes import rule_of
from quixframes.errors import FrameError, SettingsError
from quixframes.rows import EXACT
from quixframes.rules import NULLABLE, OBJECTS, Rule, nullable_rule, text_dtype
from quixframes.times import NS, time_ns

__all__ = ["UNITS", "Target", "cells", "check_finite", "guessed", "target", "times_of", "typed"]

UNITS = tuple(NS)
FAULTS = (pa.ArrowException, ArithmeticError, ValueError, TypeError)  # what Arrow and NumPy say to a value that is none
DIGITS = {"s": 9, "ms": 6, "us": 3, "ns": 0}
ISO = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?: ?(?:Z|[+-]\d\d(?::?\d\d)?))?)?", re.ASCII
)
NUMBER = re.compile(r"[+-]?\d{1,40}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,3})?", re.ASCII)
EXACTLY = Context(prec=100)

Values = list[Any]


def _located(convert: Callable[[Values], Any], values: Values, column: str, what: str, advice: str) -> Any:
    """``convert(values)``; where it cannot, FrameError with the first row up to which it cannot."""
    try:
        return convert(values)
    except FAULTS as error:
        cause = error
    good, bad = 0, len(values)  # rows that are converted together, and that are not
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            convert(values[:middle])
            good = middle
        except FAULTS:
            bad = middle
    raise refuse(column, f"{values[good]!r:.80} is no {what}", advice, good) from cause


# --- times ------------------------------------------------------------------------------------------------------------


def times_of(values: Values, unit: str | None, column: str) -> Any:
    """Times as datetime64[ns]: numbers of ``unit`` since 1970, or ISO 8601 text if it is None (no zone means UTC).

    >>> times_of([1_700_000_000.25], "s", "time")
    array(['2023-11-14T22:13:20.250000000'], dtype='datetime64[ns]')
    """
    if None in values:
        advice = "with time=None its time is that of the broker"
        raise refuse(column, "it is missing, and is the time", advice, values.index(None))
    what = "time in ISO 8601" if unit is None else f"number of {unit} since 1970"
    advice = "give unit= for numbers, to nine digits after the point for text" if unit is None else "give another unit="
    return _located(lambda some: _instants(some, unit), values, column, f"{what} that nanoseconds can hold", advice)


def _instants(values: Values, unit: str | None) -> Any:
    if unit is None:
        return _from_iso(values)
    if set(map(type, values)) == {int}:
        return time_ns(np.array(values, np.int64).view(f"M8[{unit}]"), 0, "").view("M8[ns]")
    return np.array([_ns(number, DIGITS[unit]) for number in values], np.int64).view("M8[ns]")


def _from_iso(texts: Values) -> Any:
    if not all(
        type(text) is str and ISO.fullmatch(text) for text in texts
    ):  # pandas would also read "now", and cut a tenth digit off
        raise ValueError("not ISO 8601")
    return pd.to_datetime(texts, utc=True, format="ISO8601").as_unit("ns").asi8.view("M8[ns]")


def _ns(number: Any, digits: int) -> int:
    """A number as it is written, moved by ``digits``; it has to be whole then."""
    text = number if isinstance(number, str) else repr(number)
    if not NUMBER.fullmatch(text):
        raise ValueError("not a number")
    scaled = Decimal(text).scaleb(digits, EXACTLY)
    if scaled.adjusted() > 20 or scaled != (whole := int(scaled)) or whole == np.iinfo(np.int64).min:
        raise ValueError("finer than nanoseconds, or out of their range")
    return whole


# --- columns of a dtype that was asked for ----------------------------------------------------------------------------


class Target:
    """A dtype that a column is to have: checked when it is asked for, with the rule that makes it."""

    def __init__(self, dtype: Any, rule: Rule) -> None:
        self.dtype = dtype
        self.rule = rule


def target(dtype: Any, column: str) -> Target:
    """Raises SettingsError for what is no dtype, or none that can be made of text and numbers."""
    try:
        known: Any = pd.api.types.pandas_dtype(dtype)
        if isinstance(known, pd.CategoricalDtype) and known.categories is None:
            raise ValueError(
                "name the categories, as in pd.CategoricalDtype(['wet', 'dry']): those that happen to be in some "
                "messages would be another dtype each time"
            )
        rule = OBJECTS["str"] if known == OBJECT else rule_of(known, column)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"dtypes: column {column!r} cannot be of dtype {dtype!r}: {error}") from error
    arrow = rule.type
    if any(test(arrow) for test in UNREADABLE):
        raise SettingsError(
            f"dtypes: column {column!r} cannot be of dtype {known}: neither JSON nor CSV has such values"
        )
    return Target(known, rule)


UNREADABLE = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
    pa.types.is_duration,
    pa.types.is_null,
)
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def typed(values: Values, wanted: Target, column: str, unit: str | None, *, parse: bool = False) -> Any:
    """The values (None is missing, NaN too but among floats) as an array of exactly this dtype.

    Datetimes are read as `times_of` reads them. With ``parse`` all values are text, also where the dtype is a number's.
    """
    rule = wanted.rule
    if float in set(map(type, values)) and not pa.types.is_floating(rule.type):
        values = [None if value != value else value for value in values]
    if isinstance(wanted.dtype, pd.CategoricalDtype):
        return _categorical(values, wanted.dtype, column, parse=parse)
    advice = f"give another dtype than {wanted.dtype} in dtypes="
    array = _located(lambda some: _array(some, rule.type, unit, parse), values, column, str(wanted.dtype), advice)
    if array.null_count and not rule.nullable:
        if not pa.types.is_floating(rule.type):
            row = int(np.flatnonzero(nulls(array))[0])
            raise refuse(column, f"it is missing, and {wanted.dtype} has no missing value", advice, row)
        array = array.fill_null(np.nan) if rule.type != pa.float16() else _without_nulls16(array)
    return rule.decode(array)


def _without_nulls16(array: pa.Array) -> pa.Array:
    return pa.array(array.to_numpy(zero_copy_only=False).astype(np.float16))


def _array(values: Values, arrow: pa.DataType, unit: str | None, parse: bool) -> pa.Array:
    kinds = set(map(type, values)) - {type(None)}
    if pa.types.is_timestamp(arrow):
        return _timestamps(values, arrow, unit)
    if any(test(arrow) for test in TEXTS):
        _only(kinds, {str})
        return pa.array(values, arrow)
    if kinds == {str} and (parse or not _is_number(arrow)):
        values, kinds = (
            pa.array(values, pa.string()).cast(pa.float64() if pa.types.is_floating(arrow) else arrow),
            set(),
        )
    if pa.types.is_floating(arrow):
        _only(kinds, {int, float})
        return _floats(pa.array(values, pa.float64()), arrow)
    _only(kinds, {bool} if pa.types.is_boolean(arrow) else {int, float})
    if float in kinds and not all(value.is_integer() for value in values if type(value) is float):
        raise ValueError("with a fraction, which Arrow would cut off")
    return pa.array(values, arrow)


def _is_number(arrow: pa.DataType) -> bool:
    return any(test(arrow) for test in (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating))


def _only(kinds: set[type], allowed: set[type]) -> None:
    if not kinds <= allowed:  # Arrow takes True for 1.0
        raise ValueError("of another kind")


def _floats(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    if arrow == pa.float64():
        return array
    wide = array.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        narrow = wide.astype(arrow.to_pandas_dtype())
    if (np.isinf(narrow) & ~np.isinf(wide)).any():
        raise ValueError("too large")
    return pa.array(narrow, arrow, mask=nulls(array), from_pandas=False)


def _timestamps(values: Values, arrow: pa.DataType, unit: str | None) -> pa.Array:
    present = [value for value in values if value is not None]
    times = np.full(len(values), np.datetime64("NaT", "ns"))
    if present:
        times[[value is not None for value in values]] = _instants(present, unit)
    return pa.array(times).cast(pa.timestamp(arrow.unit)).cast(arrow)


def _categorical(values: Values, dtype: pd.CategoricalDtype, column: str, *, parse: bool) -> Any:
    of_categories = target(dtype.categories.dtype, column)
    present = [value for value in values if value is not None]
    codes = np.full(len(values), -1)
    rows = [row for row, value in enumerate(values) if value is not None]
    if rows:
        found = pd.Index(typed(present, of_categories, column, None, parse=parse), dtype=dtype.categories.dtype)
        codes[rows] = dtype.categories.get_indexer(found)
        strange = next((row for row in rows if codes[row] < 0), None)
        if strange is not None:
            advice = "add it to the categories in dtypes="
            raise refuse(column, f"{values[strange]!r:.80} is none of the categories", advice, strange)
    return pd.Categorical.from_codes(codes, dtype=dtype)


# --- columns of text, whose kind follows from the text ----------------------------------------------------------------

BOOLS = {"true", "false", "True", "False", "TRUE", "FALSE"}


def guessed(texts: Values, column: str) -> Any:
    """Text (None is missing) as int64, uint64, float64 or bool if all of it reads as that, else as text."""
    array = pa.array(texts, pa.string())
    if array.null_count == len(array):
        return np.full(len(array), np.nan)
    for arrow in (pa.int64(), pa.uint64()):
        try:
            return _plain(array.cast(arrow))
        except pa.ArrowInvalid:
            pass
    try:
        numbers = array.cast(pa.float64())
    except pa.ArrowInvalid:
        if BOOLS.issuperset(array.drop_null().unique().to_pylist()):
            return _plain(array.cast(pa.bool_()))
        return typed(texts, target(text_dtype(), column), column, None, parse=True)
    for row, text in enumerate(texts):
        if text is not None and len(text) > 15 and text.lstrip("-").isdigit() and abs(int(text[:40])) > EXACT:
            advice = "name the dtype of the column in dtypes="
            raise refuse(column, f"{text:.80} is an integer too large to be a float64 exactly", advice, row)
    return numbers.fill_null(np.nan).to_numpy(zero_copy_only=False)


def _plain(array: pa.Array) -> Any:
    if array.null_count:
        assert array.type in NULLABLE
        return nullable_rule(array.type).decode(array)
    return array.to_numpy(zero_copy_only=False)


# --- writing ----------------------------------------------------------------------------------------------------------


def cells(array: pa.Array, column: str, unit: str | None) -> tuple[list[str | None], bool]:
    """Each value as text, None for a missing one (NaN is missing); and whether it is text to begin with.

    Datetimes are text in ISO 8601, as fine as the finest of them has to be; or whole numbers of ``unit`` since
    1970. Raises `FrameError` for what has no text.
    """
    arrow = array.type
    if pa.types.is_dictionary(arrow):
        texts, quoted = cells(array.dictionary, column, unit)
        codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).tolist()
        texts = [*texts, None]  # at -1
        return [texts[code] for code in codes], quoted
    if pa.types.is_null(arrow):
        return [None] * len(array), False
    if pa.types.is_boolean(arrow):
        return [None if value is None else "true" if value else "false" for value in array.to_pylist()], False
    if pa.types.is_integer(arrow):
        if array.null_count:
            return [None if value is None else str(value) for value in array.to_pylist()], False
        return list(map(str, array.to_numpy().tolist())), False
    if pa.types.is_floating(arrow):
        values = array.to_numpy(zero_copy_only=False)  # a null is NaN
        written: list[str | None] = list(map(float.__repr__, values.tolist()))
        for row in np.flatnonzero(np.isnan(values)).tolist():
            written[row] = None
        return written, False
    if pa.types.is_timestamp(arrow):
        return _written_times(array, column, unit), unit is None
    if any(test(arrow) for test in TEXTS):
        return array.to_pylist(), True
    if pa.types.is_decimal(arrow):
        return [None if value is None else f"{value:f}" for value in array.to_pylist()], False
    if pa.types.is_date(arrow) or pa.types.is_time(arrow):
        return array.cast(pa.string()).to_pylist(), True
    advice = ADVICE.get(arrow.id, "convert it to text with .astype(str)")
    raise refuse(column, f"there is no way to write {arrow} as text that would be read back the same", advice)


ADVICE = {
    **dict.fromkeys(
        (pa.binary().id, pa.large_binary().id, pa.binary(1).id, pa.binary_view().id),
        "encode the bytes as text yourself, for instance with base64, or write with BytesAsIs",
    ),
    pa.duration("ns").id: "write a number, for instance .dt.total_seconds()",
}


def _written_times(array: pa.Array, column: str, unit: str | None) -> list[str | None]:
    numbers = array.cast(pa.timestamp(array.type.unit)).cast(pa.int64())
    if unit is None:
        step = NS[array.type.unit]
        present = numbers.drop_null().to_numpy()
        # The coarsest unit in which all of them are whole.
        finest = next(name for name, ns in NS.items() if ns <= step or not (present % (ns // step)).any())
        times = numbers.fill_null(0).to_numpy().view(f"M8[{array.type.unit}]").astype(f"M8[{finest}]")
        texts = np.char.add(np.datetime_as_string(times), "Z").tolist() if len(times) else []
        missing = np.flatnonzero(nulls(array)).tolist()
        for row in missing:
            texts[row] = None
        return texts
    try:
        scaled = array.cast(pa.timestamp(unit, array.type.tz)).cast(pa.int64())
    except pa.ArrowInvalid as error:
        rounded = pc.floor_temporal(array, unit={"s": "second", "ms": "millisecond", "us": "microsecond"}.get(unit))
        row = int(np.flatnonzero(pc.not_equal(rounded, array).fill_null(False).to_numpy(zero_copy_only=False))[0])
        advice = "choose a finer unit=, or round the times with .floor"
        raise refuse(column, f"{array[row]} is no whole number of {unit}", advice, row) from error
    return [None if value is None else str(value) for value in scaled.to_pylist()]


def check_finite(array: pa.Array, column: str) -> None:
    """FrameError for an infinite number."""
    if pa.types.is_floating(array.type):
        infinite = np.isinf(array.to_numpy(zero_copy_only=False))
        if infinite.any():
            row = int(np.flatnonzero(infinite)[0])
            advice = "replace it, for instance with .replace([np.inf, -np.inf], np.nan)"
            raise FrameError(f"column {column!r}, row {row}: JSON has no infinity; {advice}", column=column, row=row)
