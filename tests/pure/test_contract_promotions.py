"""Promotions keep every value: drawn columns, each pair of dtypes, compared value by value with what was there."""

from __future__ import annotations

import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes.contracts import Conformer
from tests.pure.contract_rows import TEXT, batch, decoded, objects, one

INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
NULLABLE = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64", "boolean")
ARROW = ("int16[pyarrow]", "uint64[pyarrow]", "float[pyarrow]", "double[pyarrow]", "bool[pyarrow]")
NUMBERS = ("bool", *INTS, "float16", "float32", "float64", *NULLABLE, *ARROW)
EDGES = [0, 1, -1, 127, 128, 255, 2048, 2049, 2**24, 2**24 + 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**64 - 1]
VALUES = st.one_of(
    st.none(), st.sampled_from(EDGES), st.integers(-300, 300), st.floats(), st.sampled_from([0.5, -0.0, 1e300])
)


def numbers(values: list[Any], dtype: str) -> Any:
    """Those of the values that the dtype holds exactly, as a column of it; None is its missing value, if it has one."""
    made = pd.api.types.pandas_dtype(dtype)
    kind = made if isinstance(made, np.dtype) else getattr(made, "numpy_dtype", made)
    held: list[Any] = []
    for value in values:
        if value is None or value != value:
            if isinstance(made, np.dtype) and made.kind != "f":
                continue
            held.append(np.nan if isinstance(made, np.dtype) else None)
        elif kind.kind == "b":
            held.append(bool(value))
        elif kind.kind == "f":
            with np.errstate(over="ignore"):
                held.append(float(kind.type(value)))
        elif value == value // 1 and np.iinfo(kind).min <= value <= np.iinfo(kind).max:
            held.append(int(value))
    if isinstance(made, np.dtype):
        return np.array(held, made)
    return pd.array(held, dtype=made)


def plain(rows: pa.RecordBatch) -> list[Any]:
    """The values of column x, as Python's own; None for missing ones, to which NumPy's NaN belongs."""
    numpy = rows.schema.field("x").metadata == {b"pandas": b"numpy"}
    return [
        None if value is None or (numpy and isinstance(value, float) and value != value) else value
        for value in rows.column("x").to_pylist()
    ]


def promotable(values: list[Any], source: str, target: str) -> list[bool]:
    """The rule for each value, in the words of the table, with Python's exact numbers."""
    one_, other = (np.dtype(_numpy_name(name)) for name in (source, target))
    nullable = target in NULLABLE or target in ARROW or other.kind == "f"
    return [nullable if value is None else _exact(value, one_, other) for value in values]


def _numpy_name(name: str) -> str:
    name = name.removesuffix("[pyarrow]").replace("boolean", "bool")
    return {"float": "float32", "double": "float64"}.get(name, name.lower())


def _exact(value: Any, one: Any, other: Any) -> bool:
    if one == other:
        return True
    if one.kind in "iu" and other.kind == "f":
        return abs(value) <= {2: 2**11, 4: 2**24, 8: 2**53}[other.itemsize]
    if one == np.float64 and other.kind in "iu":
        whole = value.is_integer() and abs(value) <= 2**53 and not (value == 0 and str(value) == "-0.0")
        return whole and np.iinfo(other).min <= int(value) <= np.iinfo(other).max
    if one.kind == other.kind or (one.kind, other.kind) == ("u", "i"):
        return one.itemsize < other.itemsize
    return False


@pytest.mark.parametrize("source", NUMBERS)
@given(data=st.data())
@settings(max_examples=60)
def test_a_promoted_number_is_the_number_that_it_was(source: str, data: st.DataObject) -> None:
    """And one that cannot be is rejected, exactly where the rule says so."""
    target = data.draw(st.sampled_from(NUMBERS))
    rows = batch(x=numbers(data.draw(st.lists(VALUES, min_size=1, max_size=8)), source))
    start = data.draw(st.integers(0, rows.num_rows))
    rows = rows.slice(start)
    before = plain(rows)
    result = Conformer(one(target, "dead-letter")).apply(rows)
    result.batch.validate(full=True)
    rejected = [False] * len(before) if result.rejected is None else result.rejected.tolist()
    assert [not value for value in rejected] == (
        [True] * len(before)
        if rows.schema.equals(result.batch.schema, check_metadata=True)
        else promotable(before, source, target)
    )
    want = [value for value, off in zip(before, rejected, strict=True) if not off]
    got = plain(result.batch)
    assert [_told(value) for value in got] == [_told(value) for value in want]


def _told(value: Any) -> Any:
    """Numbers as Python compares them, which is exactly; the sign of a zero, and NaN as a value, told apart."""
    if isinstance(value, float) and value != value:
        return "NaN"
    return ("-0.0",) if isinstance(value, float) and str(value) == "-0.0" else value


TEXTS: dict[str, Any] = {
    "str": lambda values: pd.Series(values, dtype=TEXT),
    "string": lambda values: pd.array(values, pd.StringDtype("python")),
    "string[pyarrow]": lambda values: pd.array(values, pd.StringDtype("pyarrow")),
    "object": lambda values: objects(*values),
    "category": lambda values: pd.Categorical(values),
    "arrow": lambda values: pd.array(values, pd.ArrowDtype(pa.string())),
    "large": lambda values: pd.array(values, pd.ArrowDtype(pa.large_string())),
    "dictionary": lambda values: pd.array(values, pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))),
}
TEXT_TARGETS: dict[str, Any] = {
    "str": "str",
    "string": pd.StringDtype("python"),
    "string[pyarrow]": pd.StringDtype("pyarrow"),
    "object": "object",
    "arrow": pd.ArrowDtype(pa.string()),
    "large": pd.ArrowDtype(pa.large_string()),
    "open": "category",
}
STRINGS = st.lists(
    st.one_of(st.none(), st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=4)),
    max_size=8,
)


@pytest.mark.parametrize("source", TEXTS)
@pytest.mark.parametrize("target", TEXT_TARGETS)
@given(values=STRINGS, start=st.integers(0, 8))
@settings(max_examples=25)
def test_promoted_text_is_the_text_that_it_was(source: str, target: str, values: list[str | None], start: int) -> None:
    rows = batch(x=TEXTS[source](values)).slice(min(start, len(values)))
    result = Conformer(one(TEXT_TARGETS[target])).apply(rows)
    result.batch.validate(full=True)
    assert plain(result.batch) == values[start:]
    got = decoded(result.batch)["x"]
    assert [None if pd.isna(value) else value for value in got] == values[start:]


def test_what_stands_under_a_null_does_not_come_to_light() -> None:
    """In an object column None, NaN and NA are told apart by it; text that becomes such a column has None only."""
    texts = pa.Array.from_buffers(
        pa.large_string(),
        2,
        [pa.py_buffer(b"\x00"), pa.array([0, 2, 5], pa.int64()).buffers()[1], pa.py_buffer(b"NANaN")],
    )
    rows = batch(x=pd.array([None, None], "string"))
    rows = pa.RecordBatch.from_arrays([rows.column(0), texts], schema=rows.schema)
    assert decoded(Conformer(one("object")).apply(rows).batch)["x"].tolist() == [None, None]


@given(
    values=st.lists(st.sampled_from(["a", "b", "c", None]), max_size=8),
    declared=st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True),
    found=st.permutations(["a", "b", "c", "z"]),
    ordered=st.booleans(),
    text=st.booleans(),
    start=st.integers(0, 8),
)
def test_a_category_passes_where_it_is_declared(
    values: list[Any], declared: list[str], found: list[str], ordered: bool, text: bool, start: int
) -> None:
    """Whatever other categories its column has, and in whatever order."""
    dtype = pd.CategoricalDtype(pd.Index(declared, dtype=TEXT), ordered)
    column = pd.Series(values, dtype=TEXT) if text else pd.Categorical(values, found)
    rows = batch(x=column).slice(min(start, len(values)))
    result = Conformer(one(dtype, "dead-letter")).apply(rows)
    values = values[start:]
    want = [value for value in values if value is None or value in declared]
    assert plain(result.batch) == want
    assert decoded(result.batch)["x"].dtype == dtype
    assert (0 if result.rejected is None else int(result.rejected.sum())) == len(values) - len(want)


@given(
    values=st.lists(st.one_of(st.none(), st.integers(-(2**63) + 1, 2**63 - 1), st.integers(-5, 5)), max_size=8),
    units=st.tuples(*[st.sampled_from(["s", "ms", "us", "ns"])] * 2),
    kind=st.sampled_from(["M8", "m8"]),
)
def test_a_time_passes_where_the_unit_holds_it(values: list[int | None], units: tuple[str, str], kind: str) -> None:
    nanoseconds = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
    raw = np.array([-(2**63) if value is None else value for value in values], "i8")
    rows = batch(x=raw.view(f"{kind}[{units[0]}]"))
    result = Conformer(one(f"{kind}[{units[1]}]", "dead-letter")).apply(rows)
    want = []
    for value in values:
        if value is None:
            want.append(None)
            continue
        instant, rest = divmod(value * nanoseconds[units[0]], nanoseconds[units[1]])
        if not rest and abs(instant) < 2**63:
            want.append(instant)
    assert result.batch.column("x").view(pa.int64()).to_pylist() == want


@pytest.mark.parametrize("library", ["UTC", "Europe/Berlin"])
def test_a_zone_of_another_library_is_the_same_zone(library: str) -> None:
    pytz = pytest.importorskip("pytz")
    theirs = pd.DatetimeTZDtype("ns", pytz.timezone(library))
    ours = pd.DatetimeTZDtype("us", zoneinfo.ZoneInfo(library))
    times = pd.Series(pd.to_datetime(["2026-01-01", None], utc=True)).astype(theirs)
    got = decoded(Conformer(one(ours)).apply(batch(x=times)).batch)["x"]
    assert got.dtype == ours
    assert got.iloc[0] == times.iloc[0]


def test_bytes_are_bytes() -> None:
    """In an object column and in Arrow's types."""
    for source in (objects(b"a", None), pd.array([b"a", None], pd.ArrowDtype(pa.binary()))):
        for target in ("bytes", pd.ArrowDtype(pa.binary()), pd.ArrowDtype(pa.large_binary())):
            result = Conformer(one(target)).apply(batch(x=source))
            assert result.batch.column("x").to_pylist() == [b"a", None]
