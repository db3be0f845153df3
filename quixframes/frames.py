"""DataFrame ⇄ normal form ⇄ Arrow record batch. Pure: no I/O, no thread, no clock.

The normal form is a record batch whose first field is ``time``, timestamp[ns, UTC], never null; the other columns
follow in their order, each with a descriptor of its pandas dtype in the field's metadata (see `dtypes`), and nothing
stands in the schema's metadata. What else is done with frames and with batches in normal form is in modules of its own,
and reached from here as well: `rows`, `split`, `record_batches`.

Strategy. What can be known from a frame's columns and dtypes is worked out once and kept in a plan (names, rules,
Arrow schema), in the encoder or decoder that a writer or reader owns. Columns of one NumPy dtype side by side, the
usual telemetry, are then copied as one block; other columns go one by one. Decoding copies a block where the whole
frame is of one such dtype. Nothing runs row by row, except over rows that are missing or at fault.

Invariants.

- Rows, their order, duplicate and unsorted times are kept as they are.
- What cannot be carried exactly raises `FrameError`, with the column and the first row at fault, before anything is
  returned. Not carried, because they are no rows: ``DataFrame.attrs``, ``columns.name``, an index's ``name`` and
  ``freq``, and the default integer labels of a frame whose time is in a column.
- An encoded batch shares no memory with the caller's frame; a decoded frame is writable and shares none with the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.columns import NAT, OBJECT, refuse, values_of
from quixframes.dtypes import check_array, rule_for, rule_of, tag_rule_of
from quixframes.errors import FrameError
from quixframes.plans import Plans
from quixframes.record_batches import compacted, concat, keep_rows, lone_nbytes, row_nbytes, row_width, trimmed
from quixframes.rows import array_of, collect, texts_of, times_of_rows
from quixframes.rules import PLAIN, TAG, Rule, object_rule, object_tag_rule, text_dtype
from quixframes.split import split_by
from quixframes.times import TO_DATETIME, time_ns

__all__ = [
    "TIME",
    "FrameDecoder",
    "FrameEncoder",
    "check_supported",
    "check_values",
    "compacted",
    "concat",
    "keep_rows",
    "lone_nbytes",
    "row_nbytes",
    "row_width",
    "split_by",
    "trimmed",
]

TIME = "time"
TIME_NAMES = ("time", "timestamp", "datetime")  # in any case
TIME_TYPE = pa.timestamp("ns", "UTC")
TIME_FIELD = pa.field(TIME, TIME_TYPE, nullable=False)
UTC_NS = pd.DatetimeTZDtype("ns", "UTC")
CACHE = 256  # plans that an encoder or decoder keeps
RUN = 6  # columns of one dtype side by side from which a slice of the frame costs less than each by itself
WIDEST = 65_536  # bytes of a schema up to which its plan is kept


_DTYPES = 32  # dtypes that are kept alive: those of a categorical hold its categories


def _remember(cache: dict[Any, Any], key: Any, value: Any, most: int = CACHE) -> Any:
    if len(cache) >= most and key not in cache:
        cache.pop(next(iter(cache)), None)
    cache[key] = value
    return value


# --- the shape of a frame ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """Where the time is (a position among the columns, or None for the index), the names of the others, and which of
    these are tags."""

    columns: tuple[str, ...]
    time: int | None
    names: tuple[str, ...]
    tags: frozenset[str]


def layout_of(names: tuple[Any, ...], index_is_time: bool) -> Layout:
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
    tags = frozenset(name for name in names if name.startswith(TAG))
    return Layout(names, time, tuple(name for position, name in enumerate(names) if position != time), tags)


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
        # Of the last frame. No more: a model makes new columns for every frame, and each would be kept alive.
        self._latest: tuple[Any, bool, Layout] | None = None
        self._known_layouts: dict[tuple[tuple[Any, ...], bool], Layout] = {}
        # By id of the dtype, which the value keeps alive, and by whether it is a tag's.
        self._rules: dict[tuple[int, bool], tuple[Any, Rule]] = {}
        self._known_rules: dict[tuple[Any, bytes | None], Rule] = {}
        self._schemas: dict[tuple[tuple[str, ...], tuple[Rule, ...]], pa.Schema] = {}
        self._text = text_dtype()

    def encode(self, frame: pd.DataFrame, *, epoch: int = 0) -> pa.RecordBatch:
        """The frame as a ``pa.RecordBatch``.

        The time is a DatetimeIndex, or the one column named time, timestamp or datetime in any case: datetimes of any
        unit (naive means UTC), or integers or timedeltas since ``epoch``, in nanoseconds. Raises `FrameError`.
        """
        index = frame.index
        index_is_time = _is_time(index)
        layout = self._layout_of(frame.columns, index_is_time)
        dtypes = _dtypes_of(frame)
        if layout.time is not None:
            time = time_ns(values_of(frame.iloc[:, layout.time]), epoch, layout.columns[layout.time])
            dtypes[layout.time] = None
        else:
            time = time_ns(values_of(index), epoch, "index" if index.name is None else index.name)
            one = len(set(map(id, dtypes))) == 1 and not layout.tags
            if one and isinstance(dtypes[0], np.dtype) and dtypes[0] in PLAIN:
                rule = self._rule_of(
                    dtypes[0], layout.names[0], False
                )  # numbers of one kind, as most small frames have
                return self._assemble(layout.names, (rule,) * len(dtypes), time, _block_arrays(frame, rule))
        rules: list[Rule] = []
        arrays: list[Any] = []
        columns, tags = layout.columns, layout.tags
        for (_, tag), run in groupby(range(len(dtypes)), lambda at: (id(dtypes[at]), columns[at] in tags)):
            first, *more = run
            dtype, names = dtypes[first], columns[first : first + 1 + len(more)]
            if dtype is None:
                continue
            if (
                not tag
                and isinstance(dtype, np.dtype)
                and dtype in PLAIN
                and (len(names) >= RUN or len(names) == len(dtypes))
            ):
                part = frame if len(names) == len(dtypes) else frame.iloc[:, first : first + len(names)]
                rule = self._rule_of(dtype, names[0], False)
                rules += [rule] * len(names)
                arrays += _block_arrays(part, rule)
            else:
                for name in names:
                    self._encode_column(name, dtype, values_of(frame[name]), tag, rules, arrays)
        return self._assemble(layout.names, tuple(rules), time, arrays)

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

        Tags, whose names begin with ``TAG__``, are str or missing. A NaN is a value among floats, and missing among
        anything else. NumPy's scalars count as the kind that they are.
        No other kinds are mixed: a bool among numbers is an error, and so is an int among floats that a float64 may not
        hold exactly. A column with nothing but missing values is float64. Raises `FrameError`.

        >>> FrameEncoder().encode_rows([{"time": 0, "lap": 1}, {"time": 1}]).schema.field("lap").type
        DataType(int64)
        """
        columns = collect(rows)
        layout = self._layout_of_names(tuple(columns), False)
        (time_name,) = columns.keys() - set(layout.names)
        time = time_ns(times_of_rows(columns[time_name], time_name), epoch, time_name)
        rules: list[Rule] = []
        arrays: list[Any] = []
        for name in layout.names:
            tag = name in layout.tags
            values = texts_of(columns[name], name, self._text) if tag else array_of(columns[name], name, self._text)
            self._encode_column(name, values.dtype, values, tag, rules, arrays)
        return self._assemble(layout.names, tuple(rules), time, arrays)

    def _layout_of(self, columns: pd.Index[Any], index_is_time: bool) -> Layout:
        latest = self._latest
        if latest is not None and latest[0] is columns and latest[1] is index_is_time:
            return latest[2]  # the slices of a frame share its columns
        if isinstance(columns, pd.MultiIndex):
            raise FrameError(
                "the columns have several levels; join them into one name each, for instance with "
                "frame.columns = ['_'.join(name) for name in frame.columns]"
            )
        layout = self._layout_of_names(tuple(columns), index_is_time)
        self._latest = columns, index_is_time, layout
        return layout

    def _layout_of_names(self, names: tuple[Any, ...], index_is_time: bool) -> Layout:
        key = (names, index_is_time)
        return self._known_layouts.get(key) or _remember(self._known_layouts, key, layout_of(names, index_is_time))

    def _rule_of(self, dtype: Any, name: str, tag: bool) -> Rule:
        found = self._rules.get((id(dtype), tag))
        if found is not None and found[0] is dtype:
            return found[1]
        rule = tag_rule_of(dtype, name) if tag else rule_of(dtype, name)
        rule = self._known_rules.get((rule.type, rule.descriptor)) or _remember(
            self._known_rules, (rule.type, rule.descriptor), rule
        )
        _remember(self._rules, (id(dtype), tag), (dtype, rule), most=_DTYPES)
        return rule

    def _encode_column(
        self, name: str, dtype: Any, values: Any, tag: bool, rules: list[Rule], arrays: list[Any]
    ) -> None:
        if dtype == OBJECT:
            rule = (object_tag_rule if tag else object_rule)(values, name)
        else:
            rule = self._rule_of(dtype, name, tag)
        rules.append(rule)
        arrays.append(rule.encode(values, name))

    def _assemble(self, names: tuple[str, ...], rules: tuple[Rule, ...], time: Any, arrays: list[Any]) -> Any:
        schema = self._schemas.get((names, rules))
        if schema is None:
            fields = [rule.field(name) for name, rule in zip(names, rules, strict=True)]
            schema = _remember(self._schemas, (names, rules), pa.schema([TIME_FIELD, *fields]))
        return pa.RecordBatch.from_arrays([times_array(time), *arrays], schema=schema)


def times_array(time: Any) -> Any:
    """The column of the time, of the nanoseconds that `time_ns` gives."""
    return pa.Array.from_buffers(TIME_TYPE, len(time), [None, pa.py_buffer(time)], 0)


def _dtypes_of(frame: pd.DataFrame) -> list[Any]:
    """What ``frame.dtypes`` holds. Its Series costs a third of a small frame's encoding, so pandas' own list is taken
    where pandas has it; that is no public part of it."""
    listed = getattr(getattr(frame, "_mgr", None), "get_dtypes", None)
    return (frame.dtypes if listed is None else listed()).tolist()


def _block_arrays(frame: pd.DataFrame, rule: Rule) -> list[Any]:
    """The columns of a frame of one plain NumPy dtype: one copy for all of them, which Arrow then slices."""
    values = frame.to_numpy(copy=False)
    block = pa.py_buffer(np.array(values.T, order="C"))
    rows, columns = values.shape
    size, arrow, build = rows * values.dtype.itemsize, rule.type, pa.Array.from_buffers
    return [build(arrow, rows, [None, block.slice(at * size, size)], 0) for at in range(columns)]


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Plan:
    columns: pd.Index[Any]
    rules: tuple[Rule, ...]
    block: np.dtype[Any] | None  # the one plain dtype of all columns


def _plan(schema: Any) -> _Plan:
    rules = check_supported(schema)
    plain = {rule.plain for rule in rules}
    names = schema.names[1:]
    columns = pd.Index(names) if names else pd.Index(["x"])[:0]
    return _Plan(columns, rules, plain.pop() if len(plain) == 1 else None)


class FrameDecoder:
    """Record batches in normal form to DataFrames. One for each reader: it keeps what it learnt of earlier schemas.

    >>> frame = pd.DataFrame({"time": [5, 3], "lap": pd.array([1, None], "Int8")})
    >>> FrameDecoder().decode(FrameEncoder().encode(frame)).reset_index()
                                     time   lap
    0 1970-01-01 00:00:00.000000005+00:00     1
    1 1970-01-01 00:00:00.000000003+00:00  <NA>
    """

    def __init__(self) -> None:
        self._plans = Plans(_plan, kept=CACHE, widest=WIDEST)

    def decode(self, batch: pa.RecordBatch) -> pd.DataFrame:
        """The ``pa.RecordBatch`` as a DataFrame with a DatetimeIndex named ``time`` (UTC, ns). Raises `FrameError`."""
        plan = self._plans.of(batch.schema)
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


def check_values(batch: Any, *, plain: bool = False) -> None:
    """Raise `FrameError` where values contradict the schema in a way that Arrow's own validation does not look for.

    Nulls in a column without any, a time that reads as missing, a null in a dictionary, categories other than the
    descriptor's digest says.
    ``plain`` says that there is neither a null nor a dictionary column, which makes it cheap for small batches.
    """
    if not plain:
        for position, array in enumerate(batch.columns):
            if array.null_count or isinstance(array, pa.DictionaryArray):
                check_array(batch.schema.field(position), array)
    times = batch.column(0).to_numpy().view(np.int64)
    if len(times) and times[first := times.argmin()] == NAT:
        raise FrameError(f"column {TIME!r}: a time is missing", column=TIME, row=int(first))
