"""DataFrame ⇄ normal form ⇄ Arrow record batch. Pure: no I/O, no thread, no clock.

The normal form is a record batch whose first field is ``time``, timestamp[ns, UTC], never null; the other columns
follow in their order, each with a descriptor of its pandas dtype in the field's metadata (see `dtypes`), and nothing
stands in the schema's metadata.

Strategy. What can be known from a frame's columns and dtypes is worked out once and kept in a plan (names, rules,
Arrow schema), in the encoder or decoder that a writer or reader owns. Frames of one NumPy dtype, the usual telemetry,
are then copied as one block in each direction; other frames go column by column. Nothing runs row by row, except over
rows that are missing or at fault.

Invariants.

- Rows, their order, duplicate and unsorted times are kept as they are.
- What cannot be carried exactly raises `FrameError`, with the column and the first row at fault, before anything is
  returned. Not carried, because they are no rows: ``DataFrame.attrs``, ``columns.name``, an index's ``name`` and
  ``freq``, and the default integer labels of a frame whose time is in a column.
- An encoded batch shares no memory with the caller's frame; a decoded frame is writable and shares none with the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from quixframes.dtypes import (
    KEY,
    NAT,
    OBJECT,
    OBJECTS,
    PLAIN,
    Rule,
    check_array,
    flat,
    object_rule,
    refuse,
    rule_for,
    rule_of,
    values_of,
)
from quixframes.errors import FrameError

__all__ = [
    "TIME",
    "FrameDecoder",
    "FrameEncoder",
    "check_supported",
    "check_values",
    "concat",
    "keep_rows",
    "row_nbytes",
    "row_width",
    "split_by",
]

TIME = "time"
TIME_NAMES = ("time", "timestamp", "datetime")  # in any case
TIME_TYPE = pa.timestamp("ns", "UTC")
TIME_FIELD = pa.field(TIME, TIME_TYPE, nullable=False)
UTC_NS = pd.DatetimeTZDtype("ns", "UTC")
OBJECT_DESCRIPTORS = {rule.descriptor for rule in OBJECTS.values()}
CACHE = 256  # plans that an encoder or decoder keeps; the oldest goes first
KEPT = 65_536  # bytes of a schema up to which its plan is kept
MAX = 2**63 - 1
NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
TO_DATETIME = "convert it with pd.to_datetime (numbers with unit=...)"


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> Any:
    if len(cache) >= CACHE and key not in cache:
        cache.pop(next(iter(cache)), None)
    cache[key] = value
    return value


# --- time -------------------------------------------------------------------------------------------------------------


def _missing_time(missing: Any, column: object) -> FrameError:
    rows = np.flatnonzero(missing)
    some = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
    return FrameError(
        f"column {column!r}: the time is missing in row{'s' * (len(rows) > 1)} {some}; "
        "fill it in, or drop these rows with .dropna",
        column=column,
        row=int(rows[0]),
    )


def _scaled(values: Any, factor: int, offset: int, column: object) -> Any:
    """``values * factor + offset`` as a new int64 array; FrameError where that is no time within nanoseconds.

    ``NAT`` itself is out of range, because it would read as a missing time.
    """
    low, high = -((MAX + offset) // factor), (MAX - offset) // factor
    if len(values) and (int(values.min()) < low or int(values.max()) > high):
        row = int(np.flatnonzero((values < low) | (values > high))[0])
        reason = f"the time {values[row]} is outside of what nanoseconds can hold (the years 1678 to 2261)"
        raise refuse(column, reason, "correct it, or drop these rows", row)
    scaled = np.array(values, dtype=np.int64)
    if factor != 1:
        scaled *= factor  # may wrap around, and then wraps back with the offset
    if offset:
        scaled += offset
    return scaled


def _time_ns(values: Any, epoch: int, column: object) -> Any:
    """Nanoseconds since 1970 as a new int64 array, from what `values_of` gives for any dtype that can be a time.

    Datetimes are instants (naive ones mean UTC); integers and timedeltas count from the epoch.
    """
    if isinstance(values, pd.arrays.IntegerArray) or isinstance(values.dtype, pd.ArrowDtype):
        values = _time_of_arrow(flat(values, column), column)
    kind = values.dtype.kind if isinstance(values, np.ndarray) else "O"
    if kind in "mM":
        numbers = values.view(np.int64)
        if len(numbers) and numbers.min() == NAT:
            raise _missing_time(numbers == NAT, column)
        unit = np.datetime_data(values.dtype)[0]
        return _scaled(numbers, NS[unit], epoch if kind == "m" else 0, column)
    if kind in "iu":
        return _scaled(values, 1, epoch, column)
    raise refuse(column, f"the time has the dtype {values.dtype}, which is no time", TO_DATETIME)


def _time_of_arrow(array: Any, column: object) -> Any:
    if array.null_count:
        raise _missing_time(array.is_null().to_numpy(zero_copy_only=False), column)
    arrow = array.type
    if pa.types.is_timestamp(arrow):
        return array.view(pa.int64()).to_numpy().view(f"M8[{arrow.unit}]")
    if pa.types.is_duration(arrow):
        return array.view(pa.int64()).to_numpy().view(f"m8[{arrow.unit}]")
    if pa.types.is_integer(arrow):
        return array.to_numpy()
    raise refuse(column, f"the time has the Arrow type {arrow}, which is no time", TO_DATETIME)


# --- the shape of a frame ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Layout:
    """Where the time is (a position among the columns, or None for the index), and the names of the others."""

    columns: tuple[str, ...]
    time: int | None
    names: tuple[str, ...]


def _layout(names: tuple[Any, ...], index_is_time: bool) -> _Layout:
    """Names checked, time found. Raises FrameError for names that cannot be columns, and for no time or two."""
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise refuse(
                name,
                f"the name is a {type(name).__name__}, not a string",
                "rename it, for instance with frame.columns = frame.columns.astype(str)",
            )
        if name in seen:
            raise refuse(name, "two columns have this name", "rename or drop one")
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise refuse(name, "the name has a lone surrogate, which no UTF-8 can carry", "rename it")
        seen.add(name)
    found = [position for position, name in enumerate(names) if name.lower() in TIME_NAMES]
    if index_is_time and found:
        raise refuse(
            names[found[0]],
            "the index is a time already, so this column would be a second one",
            "rename or drop the column, or reset_index(drop=True)",
        )
    if len(found) > 1:
        raise refuse(names[found[1]], f"column {names[found[0]]!r} is a time already", "rename or drop one of them")
    if not found and not index_is_time:
        raise FrameError(
            "the frame has no time: give it a DatetimeIndex, or one column named time, timestamp or "
            f"datetime; for times in another column or in the index, {TO_DATETIME}"
        )
    time = found[0] if found else None
    return _Layout(names, time, tuple(name for position, name in enumerate(names) if position != time))


def _is_time(index: pd.Index[Any]) -> bool:
    """Whether the index is the time. Raises FrameError for one that is not, and that carries data."""
    if isinstance(index, pd.DatetimeIndex):
        return True
    if isinstance(index.dtype, pd.ArrowDtype) and pa.types.is_timestamp(index.dtype.pyarrow_dtype):
        return True
    plain = type(index) in (pd.Index, pd.RangeIndex) and index.name is None
    if plain and (len(index) == 0 or (isinstance(index.dtype, np.dtype) and index.dtype.kind in "iu")):
        return False
    raise FrameError(
        f"the index ({type(index).__name__} {index.names}, dtype {getattr(index, 'dtype', None)}) carries "
        "data but is no time, and would be lost; make it a column with reset_index(), or drop it with "
        "reset_index(drop=True)"
    )


# --- writing ----------------------------------------------------------------------------------------------------------


class FrameEncoder:
    """DataFrames to record batches in normal form. One for each writer: it keeps what it learnt of earlier frames.

    >>> frame = pd.DataFrame({"speed": [3.0, 4.0]}, index=pd.DatetimeIndex(["2026-11-15", "2026-11-16"]))
    >>> batch = FrameEncoder().encode(frame)
    >>> batch.num_rows, batch.schema.names
    (2, ['time', 'speed'])
    """

    def __init__(self) -> None:
        self._layouts: dict[tuple[int, bool], tuple[Any, _Layout]] = {}  # by id of columns, which the value keeps alive
        self._known_layouts: dict[tuple[tuple[Any, ...], bool], _Layout] = {}
        self._rules: dict[int, tuple[Any, Rule]] = {}  # by id of the dtype, which the value keeps alive
        self._known_rules: dict[tuple[Any, bytes | None], Rule] = {}
        self._schemas: dict[tuple[tuple[str, ...], tuple[Rule, ...]], pa.Schema] = {}
        self._text = pd.Series(["text"]).dtype  # pandas' own dtype for strings, by version and options

    def encode(self, frame: pd.DataFrame, *, epoch: int = 0) -> pa.RecordBatch:
        """The frame as a ``pa.RecordBatch``.

        The time is a DatetimeIndex, or the one column named time, timestamp or datetime in any case: datetimes of any
        unit (naive means UTC), or integers or timedeltas since ``epoch``, in nanoseconds. Raises `FrameError`.
        """
        index = frame.index
        index_is_time = _is_time(index)
        layout = self._layout_of(frame.columns, index_is_time)
        dtypes = frame.dtypes.tolist()
        if layout.time is not None:
            time = _time_ns(values_of(frame.iloc[:, layout.time]), epoch, layout.columns[layout.time])
            del dtypes[layout.time]
        else:
            time = _time_ns(values_of(index), epoch, "index" if index.name is None else index.name)
            if len(set(map(id, dtypes))) == 1 and dtypes[0] in PLAIN:
                return self._encode_block(frame, layout, self._rule_of(dtypes[0], layout.names[0]), time)
        columns = [values_of(frame[name]) for name in layout.names]
        return self._encode_columns(layout.names, dtypes, columns, time)

    def encode_rows(self, rows: Sequence[Mapping[str, Any]], *, epoch: int = 0) -> pa.RecordBatch:
        """Dicts, one a row, as a ``pa.RecordBatch``: the keys become columns, in the order in which they first appear.

        A missing key and None are missing values. The values of a column are of one kind, which gives its dtype:

        =========  ========================================  =====================
        values     dtype                                     with missing values
        =========  ========================================  =====================
        bool       bool                                      boolean
        int        int64, or uint64 if one needs it          Int64 or UInt64
        float      float64                                   float64 with NaN
        int+float  float64, if every int is within ±2**53    float64 with NaN
        str        pandas' default for strings               the same
        bytes      object                                    object with None
        datetime   datetime64, as pandas reads such a list   the same with NaT
        timedelta  timedelta64, as pandas reads such a list  the same with NaT
        =========  ========================================  =====================

        A NaN is a value among floats, and missing among anything else. NumPy's scalars count as the kind that they are.
        No other kinds are mixed: a bool among numbers is an error, and so is an int among floats that a float64 may not
        hold exactly. A column with nothing but missing values is float64. Raises `FrameError`.

        >>> FrameEncoder().encode_rows([{"time": 0, "lap": 1}, {"time": 1}]).schema.field("lap").type
        DataType(int64)
        """
        columns = _collect(rows)
        layout = self._layout_of_names(tuple(columns), False)
        (time_name,) = columns.keys() - set(layout.names)
        time = _time_ns(_row_times(columns[time_name], time_name), epoch, time_name)
        arrays = [_row_values(columns[name], name, self._text) for name in layout.names]
        return self._encode_columns(layout.names, [array.dtype for array in arrays], arrays, time)

    def _layout_of(self, columns: pd.Index[Any], index_is_time: bool) -> _Layout:
        found = self._layouts.get((id(columns), index_is_time))
        if found is not None and found[0] is columns:  # the slices of a frame share its columns
            return found[1]
        if isinstance(columns, pd.MultiIndex):
            raise FrameError(
                "the columns have several levels; join them into one name each, for instance with "
                "frame.columns = ['_'.join(name) for name in frame.columns]"
            )
        layout = self._layout_of_names(tuple(columns), index_is_time)
        _remember(self._layouts, (id(columns), index_is_time), (columns, layout))
        return layout

    def _layout_of_names(self, names: tuple[Any, ...], index_is_time: bool) -> _Layout:
        key = (names, index_is_time)
        return self._known_layouts.get(key) or _remember(self._known_layouts, key, _layout(names, index_is_time))

    def _rule_of(self, dtype: Any, name: str) -> Rule:
        found = self._rules.get(id(dtype))
        if found is not None and found[0] is dtype:
            return found[1]
        rule = rule_of(dtype, name)
        rule = self._known_rules.get((rule.type, rule.descriptor)) or _remember(
            self._known_rules, (rule.type, rule.descriptor), rule
        )
        _remember(self._rules, id(dtype), (dtype, rule))
        return rule

    def _encode_columns(self, names: tuple[str, ...], dtypes: list[Any], columns: list[Any], time: Any) -> Any:
        rules, arrays = [], []
        for name, dtype, values in zip(names, dtypes, columns, strict=True):
            rule = object_rule(values, name) if dtype == OBJECT else self._rule_of(dtype, name)
            rules.append(rule)
            arrays.append(rule.encode(values, name))
        return self._assemble(names, tuple(rules), time, arrays)

    def _encode_block(self, frame: pd.DataFrame, layout: _Layout, rule: Rule, time: Any) -> Any:
        """A frame of one plain NumPy dtype: one copy for all columns, which Arrow then slices."""
        values = frame.to_numpy(copy=False)
        block = pa.py_buffer(np.array(values.T, order="C"))
        rows, width = len(time), values.dtype.itemsize
        size, arrow, build = rows * width, rule.type, pa.Array.from_buffers
        arrays = [build(arrow, rows, [None, block.slice(at * size, size)], 0) for at in range(len(layout.names))]
        return self._assemble(layout.names, (rule,) * len(arrays), time, arrays)

    def _assemble(self, names: tuple[str, ...], rules: tuple[Rule, ...], time: Any, arrays: list[Any]) -> Any:
        schema = self._schemas.get((names, rules))
        if schema is None:
            fields = [rule.field(name) for name, rule in zip(names, rules, strict=True)]
            schema = _remember(self._schemas, (names, rules), pa.schema([TIME_FIELD, *fields]))
        times = pa.Array.from_buffers(TIME_TYPE, len(time), [None, pa.py_buffer(time)], 0)
        return pa.RecordBatch.from_arrays([times, *arrays], schema=schema)


# --- rows as dicts ----------------------------------------------------------------------------------------------------


def _collect(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
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


def _kind(of: type) -> str | None:
    return next((name for name, types, scalar in KINDS if of in types or issubclass(of, scalar)), None)


def _kind_of(values: list[Any], column: str) -> str | None:
    """The one kind of a column's values, None if all are missing; FrameError for an unknown kind or a mixture.

    Integers among floats are floats.
    """
    kinds = {of: _kind(of) for of in set(map(type, values)) - ABSENT}
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
    floats = {of for of in set(map(type, values)) if _kind(of) == "float"}
    if not floats or set(map(type, values)) <= floats | ABSENT:
        return values
    return [None if type(value) in floats and value != value else value for value in values]


def _row_values(values: list[Any], column: str, text: Any) -> Any:
    """One column of dicts as a pandas or NumPy array, of the dtype that `FrameEncoder.encode_rows` documents."""
    values = _without_nan(values)
    kind = _kind_of(values, column)
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


def _check_exact(values: list[Any], column: str) -> None:
    """FrameError for an integer among floats that a float64 may not hold."""
    integers = {of for of in set(map(type, values)) if _kind(of) == "int"}
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


def _row_times(values: list[Any], column: str) -> Any:
    """The times of dicts as an array that `_time_ns` takes: datetimes, naive or aware, or integers, or timedeltas."""
    missing = pd.isna(_objects(values, None))
    if missing.any():
        raise _missing_time(missing, column)
    kind = _kind_of(values, column)
    if kind == "datetime":
        try:
            return values_of(pd.to_datetime(values, utc=True))
        except ValueError as error:  # pandas' OutOfBoundsDatetime is one
            raise refuse(column, f"a time is outside of what nanoseconds can hold ({error})", "correct it") from error
    if kind in ("int", "timedelta"):
        return np.asarray(_row_values(values, column, None))
    row = next(row for row, value in enumerate(values) if _kind(type(value)) == kind)
    raise refuse(column, f"{values[row]!r:.80} is a {kind}, which is no time", TO_DATETIME, row)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Plan:
    schema: Any
    columns: pd.Index[Any]
    rules: tuple[Rule, ...]
    block: np.dtype[Any] | None  # the one plain dtype of all columns


def _plan(schema: Any) -> _Plan:
    rules = check_supported(schema)
    plain = {rule.plain for rule in rules}
    names = schema.names[1:]
    columns = pd.Index(names) if names else pd.Index(["x"])[:0]
    return _Plan(schema, columns, rules, plain.pop() if len(plain) == 1 else None)


class FrameDecoder:
    """Record batches in normal form to DataFrames. One for each reader: it keeps what it learnt of earlier schemas.

    >>> frame = pd.DataFrame({"time": [5, 3], "lap": pd.array([1, None], "Int8")})
    >>> FrameDecoder().decode(FrameEncoder().encode(frame)).reset_index()
                                     time   lap
    0 1970-01-01 00:00:00.000000005+00:00     1
    1 1970-01-01 00:00:00.000000003+00:00  <NA>
    """

    def __init__(self) -> None:
        self._plans: dict[bytes, _Plan] = {}
        self._last: _Plan | None = None

    def decode(self, batch: pa.RecordBatch) -> pd.DataFrame:
        """The ``pa.RecordBatch`` as a DataFrame with a DatetimeIndex named ``time`` (UTC, ns). Raises `FrameError`."""
        plan = self._plan_of(batch.schema)
        time, *arrays = batch.columns
        index = pd.DatetimeIndex(_times(time), dtype=UTC_NS, copy=False, name=TIME)
        if plan.block is not None:
            block = np.empty((len(arrays), batch.num_rows), plan.block)
            for row, rule, array in zip(block, plan.rules, arrays, strict=True):
                row[:] = rule.decode(array) if array.null_count else array.to_numpy()
            return pd.DataFrame(block.T, index=index, columns=plan.columns, copy=False)
        data = {}
        for name, rule, array in zip(batch.schema.names[1:], plan.rules, arrays, strict=True):
            values = rule.decode(array)
            # pandas 3 makes strings of an object array, unless it comes as a Series
            data[name] = pd.Series(values, index, OBJECT, copy=False) if rule.dtype == OBJECT else values
        frame = pd.DataFrame(data, index=index, copy=False)
        frame.columns = plan.columns
        return frame

    def _plan_of(self, schema: Any) -> _Plan:
        if self._last is not None and self._last.schema.equals(schema, check_metadata=True):
            return self._last
        key = schema.serialize().to_pybytes()
        plan = self._plans.get(key) or _plan(schema)
        if len(key) <= KEPT:
            _remember(self._plans, key, plan)
        self._last = plan
        return plan


def _times(array: Any) -> Any:
    if array.null_count:
        raise FrameError(f"column {TIME!r}: a time is missing", column=TIME)
    return array.to_numpy().view(np.int64).copy()


def check_supported(schema: pa.Schema) -> tuple[Rule, ...]:
    """Raise `FrameError` unless a ``pa.Schema``, of whatever origin, is a normal form that the decoder knows.

    Returns the columns' rules. Together with ``batch.validate(full=True)`` and `check_values` it makes `decode` safe.
    """
    try:
        names = schema.names
    except UnicodeDecodeError:
        raise FrameError("a column's name is not UTF-8") from None
    if schema.metadata:
        raise FrameError(f"the schema has metadata of its own ({', '.join(map(repr, schema.metadata))[:80]})")
    if not names or not schema.field(0).equals(TIME_FIELD, check_metadata=True):
        raise FrameError("the first column is not 'time' as timestamp[ns, tz=UTC] not null", column=TIME)
    if len(set(names)) != len(names):
        raise FrameError("two columns have the same name")
    return tuple(rule_for(schema.field(position)) for position in range(1, len(names)))


def check_values(batch: Any, *, dictionaries: bool = True) -> None:
    """Raise `FrameError` where values contradict the schema in a way that Arrow's own validation does not look for.

    Nulls in a column without any, a time that reads as missing, categories other than the descriptor's digest says.
    ``dictionaries`` False says that the schema has no dictionary column, which makes it cheap for small batches.
    """
    arrays = batch.columns
    if dictionaries or any(array.null_count for array in arrays):
        for field, array in zip(batch.schema, arrays, strict=True):
            check_array(field, array)
    times = batch.column(0).to_numpy().view(np.int64)
    if len(times) and times.min() == NAT:
        raise FrameError(f"column {TIME!r}: a time is missing", column=TIME, row=int(times.argmin()))


# --- batches ----------------------------------------------------------------------------------------------------------


def concat(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema, metadata included, as one ``pa.RecordBatch``, in their order.

    Raises `FrameError` if their schemas differ, or if the dictionaries of an Arrow dictionary column have together more
    values than its index type can number; ValueError without any batch.
    """
    if not batches:
        raise ValueError("concat needs at least one batch")
    schema = batches[0].schema
    for number, batch in enumerate(batches):
        if not schema.equals(batch.schema, check_metadata=True):
            raise FrameError(f"batch {number} has another schema than the first; concatenate batches of one schema")
    if len(batches) == 1:
        return batches[0]
    try:
        return pa.concat_batches(batches)
    except pa.ArrowInvalid as error:
        raise FrameError(f"the batches do not fit into one: {error}") from error


def keep_rows(batch: pa.RecordBatch, mask: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """The rows where the mask is True, in their order, to the bit: what ``frame[mask]`` is to a DataFrame.

    >>> frame = pd.DataFrame({"time": [1, 2, 3], "lap": [7, 8, 9]})
    >>> keep_rows(FrameEncoder().encode(frame), np.array([True, False, True])).column("lap").to_pylist()
    [7, 9]
    """
    if mask.all():
        return batch
    keep = pa.array(mask)
    arrays = [_kept(field, array, mask, keep) for field, array in zip(batch.schema, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _kept(field: Any, array: Any, mask: Any, keep: Any) -> Any:
    if pa.types.is_string_view(field.type) or pa.types.is_binary_view(field.type):  # Arrow has no filter for views
        edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).reshape(-1, 2).tolist()
        return pa.concat_arrays([array.slice(0, 0), *(array.slice(start, end - start) for start, end in edges)])
    if not array.null_count or (field.metadata or {}).get(KEY) not in OBJECT_DESCRIPTORS:
        return array.filter(keep)
    # Arrow forgets what is under a null, which says what kind of missing value it is: so it filters all as values.
    present = array.is_valid().to_numpy(zero_copy_only=False)[mask]
    kept = pa.Array.from_buffers(array.type, len(array), [None, *array.buffers()[1:]], 0, array.offset).filter(keep)
    return pa.Array.from_buffers(array.type, len(kept), [pa.array(present).buffers()[1], *kept.buffers()[1:]])


VIEW = 16  # bytes of a string_view or binary_view itself; up to 12 bytes of text are inside


def row_nbytes(batch: pa.RecordBatch) -> Any:
    """The bytes of each row as held: an int if all rows are of one width, else an int64 array with one for each row.

    A row's size follows from the row alone, however rows were cut into batches; validity bits count as nothing, and a
    dictionary (the categories of a column) as nothing.
    """
    fixed = 0
    varying = np.zeros(batch.num_rows, np.int64)
    any_varies = False
    for array in batch.columns:
        width, lengths = _widths(array)
        fixed += width
        if lengths is not None:
            varying += lengths
            any_varies = True
    return varying + fixed if any_varies else fixed


def row_width(schema: Any) -> int | None:
    """The bytes of each row where a ``pa.Schema`` gives all rows the same, as `row_nbytes` counts them; else None."""
    size = row_nbytes(pa.RecordBatch.from_pylist([], schema=schema))
    return size if isinstance(size, int) else None


def _widths(array: Any) -> tuple[int, Any]:
    """Bytes that each row has, and those that it has beyond, as an array or None."""
    arrow = array.type
    if pa.types.is_dictionary(arrow):
        return arrow.index_type.bit_width // 8, None
    if pa.types.is_null(arrow):
        return 0, None
    if pa.types.is_boolean(arrow):
        return 1, None
    if pa.types.is_string_view(arrow) or pa.types.is_binary_view(arrow):
        lengths = np.zeros(len(array), np.int64)
        if len(array):
            views = np.frombuffer(array.buffers()[1], np.int32, 4 * len(array), array.offset * VIEW)
            lengths = np.where(views[::4] > 12, views[::4], 0).astype(np.int64)
        return VIEW, lengths
    if arrow in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary()):
        width = 8 if arrow in (pa.large_string(), pa.large_binary()) else 4
        if not len(array):
            return width, np.zeros(0, np.int64)
        offsets = np.frombuffer(array.buffers()[1], f"i{width}", len(array) + 1, array.offset * width)
        return width, np.diff(offsets).astype(np.int64)
    return arrow.bit_width // 8, None


# --- one frame, many streams ------------------------------------------------------------------------------------------


def split_by(frame: pd.DataFrame, column: str) -> list[tuple[str, pd.DataFrame]]:
    """One frame for each value of a column, without that column: in order of first appearance, rows in their order.

    The values are strings, integers or categoricals of these; an integer's key is its decimal text. Raises `FrameError`
    for a missing or empty key, keys of another type, and two values with the same text.

    >>> frame = pd.DataFrame({"time": [1, 2, 3], "car": ["b", "a", "b"], "speed": [7.0, 8.0, 9.0]})
    >>> [(key, list(part["speed"])) for key, part in split_by(frame, "car")]
    [('b', [7.0, 9.0]), ('a', [8.0])]
    """
    places = np.flatnonzero([name == column for name in frame.columns])
    if len(places) != 1:
        raise refuse(
            column,
            "there is no such column" if not len(places) else "two columns have this name",
            "name one of the frame's columns",
        )
    series = frame.iloc[:, places[0]]
    try:
        codes, uniques = pd.factorize(series, use_na_sentinel=True)
    except TypeError:  # a key that cannot be hashed
        raise _wrong_key(series.tolist(), np.arange(len(series)), column) from None
    if (codes < 0).any():
        raise refuse(column, "the key is missing", "fill it in, or drop these rows", int(np.argmin(codes)))
    keys = _keys(series, codes, list(uniques), column)
    rest = frame.drop(columns=column)
    if len(keys) < 2:
        return [(key, rest) for key in keys]
    ordered = rest.take(np.argsort(codes, kind="stable"))
    ends = np.cumsum(np.bincount(codes, minlength=len(keys))).tolist()
    return [(key, ordered.iloc[start:end]) for key, start, end in zip(keys, [0, *ends], ends, strict=False)]


def _keys(series: pd.Series[Any], codes: Any, uniques: list[Any], column: str) -> list[str]:
    """The text of each key. FrameError for one that is no string and no integer, is empty, or has another's text."""
    if series.dtype == OBJECT:  # among objects pandas takes 1, 1.0 and True for one key, so every value is looked at
        candidates, places = series.tolist(), np.arange(len(series))
    else:
        candidates, places = uniques, codes
    if any(_kind(of) not in ("str", "int") for of in set(map(type, candidates))):
        raise _wrong_key(candidates, places, column)
    texts: dict[str, Any] = {}
    for code, value in enumerate(uniques):
        text = str(value)
        if not text or text in texts:
            reason = f"the keys {texts[text]!r} and {value!r} have the same text" if text else "the key is empty"
            raise refuse(column, reason, "give each stream a text of its own", int(np.argmax(codes == code)))
        texts[text] = value
    return list(texts)


def _wrong_key(candidates: list[Any], places: Any, column: str) -> FrameError:
    """The error about the first candidate that is no string and no integer; ``places`` has a candidate for each row."""
    wrong = next(place for place, value in enumerate(candidates) if _kind(type(value)) not in ("str", "int"))
    reason = f"the key {candidates[wrong]!r:.80} is a {type(candidates[wrong]).__name__}, not a string or an integer"
    return refuse(column, reason, "convert it to text in the way that you mean", int(np.argmax(places == wrong)))
