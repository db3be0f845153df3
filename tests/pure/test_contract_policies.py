"""What becomes of rows: every policy with every kind of drift, ranges, tags, and a topic read live and in replay."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from quixframes.buffer import RowBuffer
from quixframes.contracts import Conformer, Contract, Parameter, Tag
from quixframes.errors import ContractError
from quixframes.frames import FrameDecoder, FrameEncoder, concat, keep_rows
from quixframes.settings import BufferSettings
from tests.pure.contract_rows import TEXT, batch, column, conform, decoded, frame, objects, one

POLICIES = ("raise", "promote", "dead-letter", "allow")
AB = pd.CategoricalDtype(["a", "b"])
FAR = 2**53 + 1

# name: (declared, found; what becomes of three rows under "promote", or a list of the rows that cannot be; the kind)
DRIFT: dict[str, tuple[Any, Any, Any, str]] = {
    "as declared": ("int64", np.array([1, 2, 3]), [1, 2, 3], ""),
    "narrower ints": ("int64", np.array([1, 2, 3], "i4"), [1, 2, 3], "dtype"),
    "wider ints": ("int32", np.array([1, 2, 3], "i8"), {0, 1, 2}, "dtype"),
    "unsigned into signed": ("int16", np.array([1, 2, 255], "u1"), [1, 2, 255], "dtype"),
    "signed into unsigned": ("uint64", np.array([1, 2, 3], "i1"), {0, 1, 2}, "dtype"),
    "ints made nullable": ("Int64", np.array([1, 2, 3]), [1, 2, 3], "dtype"),
    "nullable ints without nulls": ("int64", pd.array([1, 2, 3], "Int64"), [1, 2, 3], "dtype"),
    "nullable ints with nulls": ("int64", pd.array([1, None, 3], "Int64"), {1}, "dtype"),
    "ints with nulls as pandas has them": ("Int64", np.array([1, np.nan, 3]), [1, None, 3], "dtype"),
    "a fraction among them": ("Int64", np.array([1, 2.5, 3]), {1}, "dtype"),
    "minus zero among them": ("Int64", np.array([1, -0.0, 3]), {1}, "dtype"),
    "infinity among them": ("Int64", np.array([1, np.inf, 3]), {1}, "dtype"),
    "too large for them": ("Int8", np.array([1, 128.0, 3]), {1}, "dtype"),
    "nothing missing in floats": ("int64", np.array([1.0, 2, 3]), [1, 2, 3], "dtype"),
    "missing in floats": ("int64", np.array([1.0, np.nan, 3]), {1}, "dtype"),
    "ints in floats": ("float64", np.array([1, 2, -3]), [1.0, 2.0, -3.0], "dtype"),
    "ints no float has": ("float64", np.array([2**53, FAR, -(2**53)]), {1}, "dtype"),
    "nullable ints in floats": ("float64", pd.array([1, None, 3], "Int32"), [1.0, np.nan, 3.0], "dtype"),
    "small floats": ("float64", np.array([0.1, np.nan, 3], "f4"), [float(np.float32(0.1)), np.nan, 3.0], "dtype"),
    "large floats": ("float32", np.array([1.0, 2.0, 3.0]), {0, 1, 2}, "dtype"),
    "floats made nullable": ("Float64", np.array([1.5, np.nan, 3]), [1.5, None, 3.0], "dtype"),
    "bools made nullable": ("boolean", np.array([True, False, True]), [True, False, True], "dtype"),
    "nullable bools without nulls": ("bool", pd.array([True, False, True], "boolean"), [True, False, True], "dtype"),
    "nullable bools with nulls": ("bool", pd.array([True, None, True], "boolean"), {1}, "dtype"),
    "bools in ints": ("int64", np.array([True, False, True]), {0, 1, 2}, "dtype"),
    "ints in bools": ("boolean", np.array([1, 0, 1]), {0, 1, 2}, "dtype"),
    "nothing, as floats, for text": ("str", np.full(3, np.nan), [None] * 3, "dtype"),
    "nothing, as floats, for datetimes": ("datetime64[ns, UTC]", np.full(3, np.nan), [None] * 3, "dtype"),
    "nothing, as floats, for categories": (AB, np.full(3, np.nan), [None] * 3, "dtype"),
    "nothing, as floats, for bytes": ("bytes", np.full(3, np.nan), [None] * 3, "dtype"),
    "nothing, as floats, for ints": ("int64", np.full(3, np.nan), {0, 1, 2}, "dtype"),
    "nothing, as objects, for floats": ("float64", objects(None, None, None), [np.nan] * 3, "dtype"),
    "nothing, as Arrow's null": ("Int64", pd.array([None] * 3, pd.ArrowDtype(pa.null())), [None] * 3, "dtype"),
    "nothing, as text, for ints": ("Int64", pd.Series([None] * 3, dtype=TEXT), [None] * 3, "dtype"),
    "numbers among nothing": ("str", np.array([np.nan, 1.0, np.nan]), {1}, "dtype"),
    "text of another kind": ("string", objects("a", None, "c"), ["a", None, "c"], "dtype"),
    "objects of text": ("object", pd.array(["a", None, "c"], "string"), ["a", None, "c"], "dtype"),
    "text in numbers": ("float64", pd.Series(["1", "2", "3"], dtype=TEXT), {0, 1, 2}, "dtype"),
    "numbers in text": ("str", np.array([1, 2, 3]), {0, 1, 2}, "dtype"),
    "bytes in text": ("str", objects(b"a", b"b", b"c"), {0, 1, 2}, "dtype"),
    "fewer categories": (AB, pd.Categorical(["b", None, "b"]), ["b", None, "b"], "dtype"),
    "the same in another order": (AB, pd.Categorical(["a", "b", "a"], ["b", "a"]), ["a", "b", "a"], "dtype"),
    "more categories, not used": (AB, pd.Categorical(["a", "b", "a"], list("abc")), ["a", "b", "a"], "dtype"),
    "more categories, used": (AB, pd.Categorical(["a", "c", None]), {1}, "dtype"),
    "text in categories": (AB, pd.Series(["a", None, "b"], dtype=TEXT), ["a", None, "b"], "dtype"),
    "categories in text": ("str", pd.Categorical(["a", None, "c"]), ["a", None, "c"], "dtype"),
    "categories of numbers": (pd.CategoricalDtype([3, 2, 1]), pd.Categorical([1, 2, None]), [1, 2, None], "dtype"),
    "categories of numbers, not of text": (AB, pd.Categorical([1, 2, None]), {0, 1}, "dtype"),
    "a finer unit": (
        "datetime64[ns]",
        np.array(["2026-01-01", "NaT", "1970-01-01"], "M8[s]"),
        [pd.Timestamp("2026-01-01"), None, pd.Timestamp(0)],
        "dtype",
    ),
    "too far for a finer unit": (
        "datetime64[ns]",
        np.array(["2026-01-01", "9999-01-01", "NaT"], "M8[s]"),
        {1},
        "dtype",
    ),
    "a coarser unit": ("timedelta64[s]", np.array([10**9, 1, -(10**9)], "m8[ns]"), {1}, "dtype"),
    "naive times": ("datetime64[ns, UTC]", np.array(["2026-01-01"] * 3, "M8[ns]"), {0, 1, 2}, "dtype"),
    "missing where it may not be": (Parameter("float64", nullable=False), np.array([1.0, np.nan, 3]), {1}, "missing"),
    "no text where it may not be": (
        Parameter("str", nullable=False),
        pd.Series(["a", None, "c"], dtype=TEXT),
        {1},
        "missing",
    ),
}


def expected(values: list[Any], dtype: Any) -> pd.Series[Any]:
    declared = Parameter(dtype) if not isinstance(dtype, Parameter) else dtype
    dtype = "object" if declared.dtype == "bytes" else TEXT if declared.open else declared.dtype
    return pd.Series(values, dtype=dtype)


def assert_column(got: pd.Series[Any], want: pd.Series[Any]) -> None:
    pd.testing.assert_series_equal(got.reset_index(drop=True), want, check_names=False, check_exact=True)


@pytest.mark.parametrize("name", DRIFT)
def test_promote_makes_it_the_declared_dtype_or_raises_with_the_first_row(name: str) -> None:
    dtype, found, want, _ = DRIFT[name]
    if isinstance(want, set):
        with pytest.raises(ContractError, match="do not keep the contract of topic 'engine'") as raised:
            conform(one(dtype), batch(x=found))
        (problem,) = raised.value.problems
        assert (problem.column, problem.row, problem.rows) == ("x", min(want), len(want))
        assert (raised.value.topic, raised.value.stream_id) == ("engine", "car-44")
    else:
        assert_column(column(one(dtype), batch(x=found)), expected(want, dtype))


@pytest.mark.parametrize("name", DRIFT)
def test_raise_takes_the_declared_dtype_only(name: str) -> None:
    dtype, found, want, kind = DRIFT[name]
    if kind:
        with pytest.raises(ContractError) as raised:
            conform(one(dtype, "raise"), batch(x=found))
        assert [(problem.column, problem.kind) for problem in raised.value.problems] == [("x", kind)]
    else:
        assert_column(column(one(dtype, "raise"), batch(x=found)), expected(want, dtype))


@pytest.mark.parametrize("name", DRIFT)
def test_dead_letter_rejects_the_rows_that_cannot_be_and_passes_the_others(name: str) -> None:
    dtype, found, want, _ = DRIFT[name]
    contract, rows = one(dtype, "dead-letter"), batch(x=found)
    result = conform(contract, rows)
    if not isinstance(want, set):
        assert result.rejected is None
        assert result.problems == ()
        assert_column(decoded(result.batch)["x"], expected(want, dtype))
        return
    assert result.rejected is not None
    assert set(np.flatnonzero(result.rejected)) == want
    assert result.batch.num_rows == 3 - len(want)
    assert result.batch.column(0).equals(keep_rows(rows, ~result.rejected).column(0))
    assert sum(problem.rows for problem in result.problems) == len(want)
    # The others are what they are without them.
    others = keep_rows(rows, ~result.rejected)
    assert decoded(result.batch).equals(decoded(conform(one(dtype), others).batch))


@pytest.mark.parametrize("name", DRIFT)
def test_allow_passes_everything_as_it_is_and_counts(name: str) -> None:
    dtype, found, _, kind = DRIFT[name]
    rows = batch(x=found)
    result = conform(one(dtype, "allow"), rows)
    assert result.batch is rows
    assert result.rejected is None
    assert [(problem.column, problem.kind) for problem in result.problems] == ([("x", kind)] if kind else [])


@pytest.mark.parametrize("name", DRIFT)
@pytest.mark.parametrize("policy", ["promote", "dead-letter"])
def test_a_row_fares_the_same_however_rows_are_cut(name: str, policy: str) -> None:
    """Row by row the same pass, and give the same column."""
    dtype, found, want, _ = DRIFT[name]
    rows = batch(x=found)
    contract = one(dtype, "dead-letter")
    whole = Conformer(contract).apply(rows)
    conformer = Conformer(one(dtype, policy))
    pieces = []
    for row in range(3):
        try:
            pieces.append(conformer.apply(rows.slice(row, 1)).batch)
        except ContractError:
            assert policy == "promote"
            assert isinstance(want, set)
            assert row in want
    if pieces:
        assert decoded(concat(pieces)).equals(decoded(whole.batch))


@pytest.mark.parametrize("name", DRIFT)
@pytest.mark.parametrize("policy", POLICIES)
def test_no_rows_have_no_values_at_fault(name: str, policy: str) -> None:
    """Their dtypes are at fault only where they have to be the declared ones."""
    dtype, found, _, kind = DRIFT[name]
    rows = batch(x=found).slice(0, 0)
    if policy == "raise" and kind == "dtype":
        with pytest.raises(ContractError):
            conform(one(dtype, policy), rows)
    else:
        assert conform(one(dtype, policy), rows).batch.num_rows == 0


# --- columns that come and go -----------------------------------------------------------------------------------------

Y = np.array([1.0, 2.0])
X = np.array([1, 2])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("columns", "kind", "name"),
    [
        ({"y": Y}, "absent", "x"),
        ({"x": X, "y": Y, "z": Y}, "unknown", "z"),
        ({"x": X, "y": Y, "TAG__lap": objects("1", "2")}, "unknown", "TAG__lap"),
    ],
    ids=["absent", "unknown", "unknown tag"],
)
def test_a_column_too_few_or_too_many_concerns_all_rows(policy: Any, columns: Any, kind: str, name: str) -> None:
    contract = Contract({"x": "int64", "y": Parameter("float64", required=False)}, policy=policy)
    rows = batch(**columns)
    if policy in ("raise", "promote"):
        with pytest.raises(ContractError, match=name) as raised:
            conform(contract, rows)
        problems = raised.value.problems
    else:
        result = conform(contract, rows)
        problems = result.problems
        if policy == "allow":
            assert result.batch is rows
        else:
            assert result.batch.num_rows == 0
            assert result.rejected is not None
            assert result.rejected.all()
    assert [(one.kind, one.column, one.rows) for one in problems] == [(kind, name, 2)]


@pytest.mark.parametrize("policy", ["raise", "promote", "dead-letter"])
@pytest.mark.parametrize(
    "dtype", ["float64", "int64", "Int8", "bool", "str", "object", "bytes", "category", AB, "M8[ns]"]
)
def test_an_optional_parameter_that_is_not_there_reads_as_missing(policy: Any, dtype: Any) -> None:
    """In its declared place, of its declared dtype."""
    contract = Contract({"o": Parameter(dtype, required=False), "x": "int64"}, policy=policy)
    got = decoded(conform(contract, batch(x=X)).batch)
    assert got.columns.tolist() == ["o", "x"]
    assert got["o"].isna().all()


@pytest.mark.parametrize("policy", POLICIES)
def test_columns_come_in_the_declared_order(policy: Any) -> None:
    """But for "allow", which changes nothing."""
    contract = Contract({"x": "int64", "y": "float64"}, policy=policy)
    got = decoded(conform(contract, batch(y=Y, x=X)).batch)
    assert got.columns.tolist() == (["y", "x"] if policy == "allow" else ["x", "y"])
    assert got["x"].tolist() == [1, 2]


@pytest.mark.parametrize("policy", POLICIES)
def test_where_there_is_room_for_more_they_follow_as_they_are(policy: Any) -> None:
    contract = Contract({"x": "int64"}, policy=policy, additional=True)
    result = conform(contract, batch(z=Y, x=X, a=X.astype("i1")))
    assert result.problems == ()
    got = decoded(result.batch)
    assert got.columns.tolist() == (["z", "x", "a"] if policy == "allow" else ["x", "z", "a"])
    assert got["a"].dtype == np.int8


@pytest.mark.parametrize("policy", ["raise", "promote", "dead-letter"])
@pytest.mark.parametrize(
    "values",
    [
        objects("1", None),
        pd.array(["1", None], "string"),
        pd.Series(["1", None], dtype=TEXT),
        pd.Categorical(["1", None], ["0", "1"]),
        pd.array(["1", None], pd.ArrowDtype(pa.string())),
    ],
    ids=["object", "string", "str", "category", "arrow"],
)
def test_a_tag_is_any_text_and_reads_as_its_dtype(policy: Any, values: Any) -> None:
    contract = Contract({"x": "int64"}, tags={"lap": Tag()}, policy=policy)
    got = decoded(conform(contract, batch(x=X, TAG__lap=values)).batch)["TAG__lap"]
    assert got.dtype == TEXT
    assert got.iloc[0] == "1"
    assert pd.isna(got.iloc[1])


@pytest.mark.parametrize("policy", ["raise", "promote", "dead-letter"])
def test_a_tag_may_be_required_or_not(policy: Any) -> None:
    optional = Contract({"x": "int64"}, tags={"lap": Tag(required=False)}, policy=policy)
    assert decoded(conform(optional, batch(x=X)).batch)["TAG__lap"].isna().all()
    required = Contract({"x": "int64"}, tags=["lap"], policy="promote")
    with pytest.raises(ContractError, match="TAG__lap.*it is required, and not there"):
        conform(required, batch(x=X))


@pytest.mark.parametrize("policy", ["raise", "promote", "dead-letter"])
def test_a_category_of_any_categories_reads_as_text(policy: Any) -> None:
    """Whatever the categories are, and text too: so what is read is one dtype."""
    contract = one("category", policy)
    for values in (pd.Categorical(["a", None]), pd.Categorical(["z", "y"]), pd.Series(["q", None], dtype=TEXT)):
        got = column(contract, batch(x=values))
        assert got.dtype == TEXT
        assert got.astype(object).where(got.notna(), None).tolist() == [
            None if pd.isna(value) else value for value in list(values)
        ]


# --- ranges -----------------------------------------------------------------------------------------------------------

SPEEDS = [0.0, -0.1, 400.0, 400.1, np.nan, np.inf, -np.inf]
OUTSIDE = [1, 3, 5, 6]
RANGES: dict[str, Any] = {
    "float64": SPEEDS,
    "float32": SPEEDS,
    "Float64": pd.array([0, -0.1, 400, 400.1, None, np.inf, -np.inf], "Float64"),
    "arrow": pd.array([0, -0.1, 400, 400.1, None, np.inf, -np.inf], pd.ArrowDtype(pa.float64())),
    "int64": [0, -1, 400, 401, 7, 2**62, -(2**62)],
    "Int16": pd.array([0, -1, 400, 401, None, 9999, -9999], "Int16"),
}


def ranged(name: str, out_of_range: Any, **settings: Any) -> tuple[Contract, pa.RecordBatch]:
    dtype = pd.ArrowDtype(pa.float64()) if name == "arrow" else name
    contract = Contract({"x": Parameter(dtype, range=(0, 400))}, out_of_range=out_of_range, **settings)
    return contract, batch(x=pd.Series(RANGES[name], dtype=dtype))


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("policy", POLICIES)
def test_values_out_of_range_are_counted(name: str, policy: Any) -> None:
    contract, rows = ranged(name, "count", policy=policy)
    result = conform(contract, rows)
    assert result.out_of_range == {"x": len(OUTSIDE)}
    assert (result.rejected, result.problems) == (None, ())
    assert result.batch is rows


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("policy", ["raise", "promote", "dead-letter"])
def test_values_out_of_range_are_an_error(name: str, policy: Any) -> None:
    contract, rows = ranged(name, "raise", policy=policy)
    with pytest.raises(ContractError, match="is not within 0.* … 400") as raised:
        conform(contract, rows)
    (problem,) = raised.value.problems
    assert (problem.kind, problem.row, problem.rows) == ("range", 1, len(OUTSIDE))


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("policy", ["raise", "promote", "dead-letter"])
def test_rows_with_values_out_of_range_are_dead_letters(name: str, policy: Any) -> None:
    contract, rows = ranged(name, "dead-letter", policy=policy)
    result = conform(contract, rows)
    assert result.rejected is not None
    assert np.flatnonzero(result.rejected).tolist() == OUTSIDE
    assert result.out_of_range == {"x": len(OUTSIDE)}
    assert decoded(result.batch).equals(decoded(rows)[~result.rejected])


@pytest.mark.parametrize("name", [name for name in RANGES if name != "int64"])
@pytest.mark.parametrize("policy", ["raise", "promote", "dead-letter"])
def test_values_out_of_range_are_missing(name: str, policy: Any) -> None:
    contract, rows = ranged(name, "missing", policy=policy)
    result = conform(contract, rows)
    want = decoded(rows)["x"].copy()
    want.iloc[OUTSIDE] = np.nan if name in ("float64", "float32") else pd.NA
    pd.testing.assert_series_equal(decoded(result.batch)["x"], want, check_freq=False)
    assert result.out_of_range == {"x": len(OUTSIDE)}


@pytest.mark.parametrize("policy", POLICIES)
def test_ranges_are_not_looked_at_where_nobody_asks(policy: Any) -> None:
    contract, rows = ranged("float64", None, policy=policy)
    assert conform(contract, rows) == (rows, None, (), {})


def test_a_range_holds_for_what_a_value_is_promoted_to() -> None:
    """And a value that could not be promoted is not counted as well."""
    contract = Contract({"x": Parameter("Int64", range=(1, 2))}, policy="dead-letter", out_of_range="dead-letter")
    result = conform(contract, batch(x=np.array([1.0, 0.5, 3.0, np.nan])))
    assert result.out_of_range == {"x": 1}
    assert decoded(result.batch)["x"].tolist() == [1, pd.NA]
    assert [(problem.kind, problem.row) for problem in result.problems] == [("value", 1), ("range", 2)]


def test_a_bound_is_a_value_of_the_column() -> None:
    """A float32 of 0.1 is in a range that ends at 0.1; fractions bound the integers inside them."""
    low = Contract({"x": Parameter("float32", range=(0, 0.1))})
    assert conform(low, batch(x=np.array([0.1], "f4"))).out_of_range == {}
    half = Contract({"x": Parameter("int64", range=(0.5, 2.5))})
    assert conform(half, batch(x=np.array([0, 1, 2, 3]))).out_of_range == {"x": 2}
    wide = Contract({"x": Parameter("uint64", range=(-1, 2**70))})
    assert conform(wide, batch(x=np.array([0, 2**64 - 1], "u8"))).out_of_range == {}


def test_a_slice_is_judged_by_its_own_rows() -> None:
    contract = Contract({"x": Parameter("Int64", range=(0, 5)), "y": Parameter("float64", range=(0, 5))})
    rows = batch(x=pd.array([9, 1, None, 3, 9], "Int64"), y=np.array([9.0, 1, np.nan, 3, 9]))
    assert Conformer(contract).apply(rows.slice(1, 3)).out_of_range == {}
    assert Conformer(contract).apply(rows.slice(3)).out_of_range == {"x": 1, "y": 1}


# --- the error, the cost ----------------------------------------------------------------------------------------------


def test_the_error_shows_all_columns_as_a_table() -> None:
    contract = Contract({"speed": "float64", "lap": "Int64", "tyre": AB, "gear": "Int8"})
    rows = batch(speed=np.array([1, 2]), lap=np.array([1.0, 2]), tyre=pd.Categorical(["a", "c"]), more=X)
    with pytest.raises(ContractError) as raised:
        Conformer(contract, topic="engine").apply(rows, stream_id="car-44")
    promote = "convert it with .astype(), or choose policy='promote' if that is exact"
    categories = "its categories are not the declared ones: set them with .astype(), or choose policy='promote'"
    assert str(raised.value).splitlines() == [
        "the rows of stream 'car-44' do not keep the contract of topic 'engine':",
        "  column  declared            found               row  problem",
        f"  speed   float64             int64               0    {promote}",
        f"  lap     Int64               float64             0    {promote}",
        f"  tyre    category['a', 'b']  category['a', 'c']  0    {categories}",
        "  gear    Int8                                    0    it is required, and not there",
        "  more                        int64               0    it is not declared",
    ]


def test_a_batch_that_keeps_the_contract_is_handed_back_as_it_is() -> None:
    contract = Contract({"x": "int64", "y": Parameter("float64", range=(0, 10))}, tags=["lap"])
    rows = batch(x=X, y=Y, TAG__lap=pd.Series(["1", "2"], dtype=TEXT))
    assert Conformer(contract).apply(rows).batch is rows


def test_many_schemas_are_not_kept_for_ever() -> None:
    conformer = Conformer(Contract({}, additional=True))
    for number in range(200):
        conformer.apply(batch(**{f"x{number}": X}))
    assert len(conformer._plans) <= 64


def test_a_time_that_python_cannot_tell_is_told_as_a_number() -> None:
    far = np.array([10**15], "M8[s]")
    with pytest.raises(ContractError, match="1000000000000000 is not exact in ns"):
        conform(one("datetime64[ns]"), batch(x=far))


# --- a topic, live and replayed ---------------------------------------------------------------------------------------


def drifting(number: int) -> pd.DataFrame:
    """One of a thousand frames, whose dtypes drift as those of real writers do."""
    missing = number % 3 == 0
    nothing = number % 7 == 0
    categories = [["soft"], ["hard", "soft"], ["soft", "hard", "wet"]][number % 3]
    columns: dict[str, Any] = {
        "lap": np.array([number, np.nan if missing else 7])
        if missing
        else np.array([number, 7], f"i{[4, 8][number % 2]}"),
        "speed": np.array([1, 2], "i4") if number % 5 == 0 else np.array([0.5, np.nan]),
        "driver": np.full(2, np.nan)
        if nothing
        else [objects, lambda *of: pd.array(of, "string")][number % 2]("ann", None),
        "tyre": pd.Categorical(["soft", None], categories),
        "brand": pd.Categorical([f"brand {number}", None]),
        "on": pd.array([True, None], "boolean") if missing else np.array([True, False]),
    }
    if number % 4:
        columns["note"] = objects(None, None) if nothing else pd.Series(["x", None], dtype=TEXT)
    names = list(columns)
    return frame(**{name: columns[name] for name in names[number % 6 :] + names[: number % 6]})


DRIFTING: dict[str, Any] = {
    "lap": "Int64",
    "speed": "float64",
    "driver": "str",
    "tyre": pd.CategoricalDtype(["soft", "hard", "wet"]),
    "brand": "category",
    "on": "boolean",
    "note": Parameter("str", required=False),
}


@pytest.mark.parametrize("policy", ["promote", "dead-letter"])
def test_a_thousand_drifting_frames_read_back_with_one_dtype_per_column_live_and_replayed_alike(policy: Any) -> None:
    """Written under the contract or before there was one; read in batches of any size, no buffer splits on a schema."""
    contract = Contract(DRIFTING, policy=policy)
    encoder, decoder = FrameEncoder(), FrameDecoder()
    frames = [drifting(number) for number in range(1_000)]
    before = [encoder.encode(rows) for rows in frames]
    writer, reader = Conformer(contract), Conformer(contract)
    written = [writer.apply(rows).batch for rows in before]
    whole = decoder.decode(concat(written))
    assert whole.dtypes.astype(str).to_dict() == {
        "lap": "Int64",
        "speed": "float64",
        "driver": str(TEXT),
        "tyre": "category",
        "brand": str(TEXT),
        "on": "boolean",
        "note": str(TEXT),
    }
    for messages, size in itertools.product((before, written), (30, 2_000)):
        buffer = RowBuffer(BufferSettings(rows=size), decoder.decode)
        live = [release for rows in messages for release in buffer.add(reader.apply(rows).batch, 0.0).releases]
        assert {release.reason for release in live} <= {"rows"}
        live += [release for release in [buffer.release("end")] if release is not None]
        read = [decoder.decode(release.batch) for release in live]
        assert all((part.dtypes == whole.dtypes).all() for part in read)
        pd.testing.assert_frame_equal(pd.concat(read), whole, check_freq=False, check_exact=True)
    for name in whole:
        there = [rows[name].tolist() if name in rows else [None, None] for rows in frames]
        assert plain(whole[name]) == plain(value for pair in there for value in pair)


def plain(values: Any) -> list[Any]:
    """The values, with None for those that are missing."""
    return [None if pd.isna(value) else value for value in values]


def test_under_raise_the_first_drifting_frame_is_an_error_at_the_writer() -> None:
    encoder = FrameEncoder()
    contract = Contract.of(drifting(1))
    conformer = Conformer(contract)
    conformer.apply(encoder.encode(drifting(1)))
    with pytest.raises(ContractError, match="do not keep the contract"):
        conformer.apply(encoder.encode(drifting(3)))
