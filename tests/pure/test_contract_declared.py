"""What a contract declares: dtypes, names, ranges; from schemas, from frames; as JSON."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from quixframes.contracts import Contract, Parameter, Tag
from quixframes.errors import ContractError, FrameError, SettingsError
from quixframes.frames import FrameEncoder
from tests.pure.contract_rows import TEXT, batch, frame, objects

LETTERS = pd.CategoricalDtype(["b", "a"], ordered=True)

DTYPES: dict[str, tuple[Any, Any]] = {  # what is declared, and the column that keeps it
    "float64": ("float64", np.array([1.0, np.nan])),
    "python float": (float, np.array([1.0, 2.0])),
    "python int": (int, np.array([1, 2])),
    "python bool": (bool, np.array([True, False])),
    "int8": (np.dtype("int8"), np.array([1, 2], "i1")),
    "Int64": ("Int64", pd.array([1, None], "Int64")),
    "boolean": (pd.BooleanDtype(), pd.array([True, None], "boolean")),
    "str": ("str", pd.Series(["a", None], dtype=TEXT)),
    "python str": (str, pd.Series(["a", None], dtype=TEXT)),
    "string": (pd.StringDtype("python"), pd.array(["a", None], pd.StringDtype("python"))),
    "object": (object, objects("a", None)),
    "bytes": ("bytes", objects(b"a", None)),
    "category": (LETTERS, pd.Categorical(["a", None], dtype=LETTERS)),
    "datetime": ("datetime64[us]", pd.to_datetime(["2026-01-01", None]).astype("M8[us]")),
    "zoned": ("datetime64[ns, UTC]", pd.to_datetime(["2026-01-01", None], utc=True).astype("datetime64[ns, UTC]")),
    "timedelta": ("timedelta64[ns]", pd.to_timedelta([1, None]).astype("m8[ns]")),
    "arrow": (pd.ArrowDtype(pa.decimal128(5, 2)), pd.array([1, None], pd.ArrowDtype(pa.decimal128(5, 2)))),
    "arrow dictionary": (
        pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())),
        pd.array(["a", None], pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
    ),
}


@pytest.mark.parametrize("name", DTYPES)
def test_a_declared_dtype_is_the_one_of_a_frame_that_has_it(name: str) -> None:
    """Field by field as the encoder makes it, in a declaration and in one learned from rows."""
    dtype, values = DTYPES[name]
    rows = batch(x=values)
    assert Contract({"x": dtype}).schema.equals(rows.schema, check_metadata=True)
    assert Contract.of(rows).schema.equals(rows.schema, check_metadata=True)
    assert Contract.of(rows) == Contract.of(frame(x=values))


@pytest.mark.parametrize("name", DTYPES)
def test_a_dtype_survives_json_and_pickle(name: str) -> None:
    """Categories and their order with it."""
    contract = Contract({"x": DTYPES[name][0]}, tags={"lap": Tag(required=False)})
    for again in (Contract.from_json(contract.to_json()), pickle.loads(pickle.dumps(contract))):
        assert again == contract
        assert hash(again) == hash(contract)
        assert again.schema.equals(contract.schema, check_metadata=True)
        assert again.parameters["x"] == contract.parameters["x"]


@pytest.mark.parametrize(
    ("declared", "dtype", "nullable"),
    [
        (Parameter("int64"), "int64", False),
        (Parameter("int64", nullable=False), "int64", False),
        (Parameter("int64", nullable=True), "Int64", True),
        (Parameter("uint8", required=False), "UInt8", True),
        (Parameter("bool", nullable=True), "boolean", True),
        (Parameter("bool"), "bool", False),
        (Parameter("float64"), "float64", True),
        (Parameter("float64", nullable=False), "float64", False),
        (Parameter("Int64"), "Int64", True),
        (Parameter("Int64", nullable=False), "Int64", False),
        (Parameter("str", nullable=False), str(TEXT), False),
        (Parameter("datetime64[ns]"), "datetime64[ns]", True),
    ],
)
def test_whether_values_may_be_missing_follows_from_the_dtype_unless_it_is_said(
    declared: Parameter, dtype: str, nullable: bool
) -> None:
    assert (str(declared.dtype), declared.nullable) == (dtype, nullable)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda: Parameter("flaot64"), "none that pandas knows"),
        (lambda: Parameter(pd.PeriodDtype("D")), "cannot be declared"),
        (lambda: Parameter("complex128"), "cannot be declared"),
        (lambda: Parameter("datetime64"), "cannot be declared"),
        (lambda: Parameter(pd.CategoricalDtype(ordered=True)), "needs its categories"),
        (lambda: Parameter(Parameter("int64")), "is no dtype"),
        (lambda: Parameter("float64", range=(0,)), "two numbers"),
        (lambda: Parameter("float64", range=3), "two numbers"),
        (lambda: Parameter("float64", range=("0", "1")), "two numbers"),
        (lambda: Parameter("float64", range=(0, float("nan"))), "two numbers"),
        (lambda: Parameter("float64", range=(2, 1)), "the lesser first"),
        (lambda: Parameter("int8", range=(300, 400)), "has no value that a column of int8 can hold"),
        (lambda: Parameter("int64", range=(0.2, 0.8)), "has no value"),
        (lambda: Parameter("str", range=(0, 1)), "a range is of integers or floats"),
        (lambda: Parameter("bool", range=(0, 1)), "a range is of integers or floats"),
        (lambda: Parameter("float64", required=False, nullable=False), "that is not required is nullable"),
        (lambda: Parameter("float64", unit=3), "has to be text"),
        (lambda: Parameter("float64", required="yes"), "has to be True or False"),
        (lambda: Tag(dtype="int64"), "tags are text"),
        (lambda: Contract({"Time": "int64"}), "is the time"),
        (lambda: Contract({"TAG__lap": "str"}), "is a tag"),
        (lambda: Contract({"x": Tag()}), "declared as a tag"),
        (lambda: Contract({3: "int64"}), "has to be text"),
        (lambda: Contract({"x\ud800": "int64"}), "surrogate"),
        (lambda: Contract({"x": "nope"}), "parameter 'x'.*none that pandas knows"),
        (lambda: Contract({}, tags={"TAG__lap": Tag()}), "by its name, 'lap'"),
        (lambda: Contract({}, tags={"lap": "str"}), "declared as a Tag"),
        (lambda: Contract({}, tags="lap"), "a dict of tags"),
        (lambda: Contract({}, policy="ignore"), "policy='ignore'"),
        (lambda: Contract({}, out_of_range="clip"), "out_of_range='clip'"),
        (lambda: Contract({}, policy="allow", out_of_range="raise"), "changes and refuses nothing"),
        (lambda: Contract({}, additional=1), "additional=1"),
        (lambda: Contract({"x": Parameter("int64", range=(0, 1))}, out_of_range="missing"), "is not nullable"),
        (lambda: Contract.of([1]), "a list is no contract"),
        (lambda: Contract.of(pa.schema([("x", pa.list_(pa.int8()))])), "cannot be declared"),
        (lambda: Contract.of(pa.schema([("TAG__x", pa.int8())])), "has to be text"),
        (lambda: Contract.of(pa.schema([("time", pa.string())])), "is the time by its name"),
        (lambda: Contract.of(pa.schema([("x", pa.int8()), ("x", pa.int8())])), "the same name"),
        (lambda: Contract.of(batch(x=pd.Categorical(["a"])).schema), "categories are not in a schema"),
    ],
)
def test_what_cannot_be_declared_is_said_where_it_is_declared(given: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        given()


def test_an_arrow_schema_stands_for_the_dtypes_that_pandas_makes_of_it() -> None:
    schema = pa.schema(
        [
            ("time", pa.timestamp("ns")),
            ("speed", pa.float64()),
            pa.field("rpm", pa.float32(), nullable=False),
            ("lap", pa.int64()),
            ("on", pa.bool_()),
            ("driver", pa.string()),
            ("raw", pa.binary()),
            ("at", pa.timestamp("us", "Europe/Berlin")),
            ("since", pa.duration("ms")),
            ("tyre", pa.dictionary(pa.int32(), pa.string())),
            ("cost", pa.decimal128(5, 2)),
            ("TAG__stint", pa.string()),
        ]
    )
    contract = Contract.of(schema, policy="promote")
    assert {name: str(one.dtype) for name, one in contract.parameters.items()} == {
        "speed": "float64",
        "rpm": "float32",
        "lap": "int64",
        "on": "bool",
        "driver": str(TEXT),
        "raw": "bytes",
        "at": "datetime64[us, Europe/Berlin]",
        "since": "timedelta64[ms]",
        "tyre": "category",
        "cost": "decimal128(5, 2)[pyarrow]",
    }
    assert [name for name, one in contract.parameters.items() if not one.nullable] == ["rpm", "lap", "on"]
    assert (list(contract.tags), contract.policy) == (["stint"], "promote")


def test_a_schema_of_ours_is_its_own_contract() -> None:
    """Descriptors and all."""
    rows = batch(a=pd.array([1], "Int8"), b=objects(b"x"), c=objects("x"), TAG__lap=pd.Series(["1"], dtype=TEXT))
    contract = Contract.of(rows.schema)
    assert contract.schema.equals(rows.schema, check_metadata=True)


def test_a_dict_declares_dtypes_parameters_and_tags() -> None:
    contract = Contract.of({"speed": "float64", "lap": Parameter("Int64"), "TAG__driver": "str"}, policy="promote")
    assert list(contract.parameters) == ["speed", "lap"]
    assert contract.tags == {"driver": Tag()}
    assert Contract({}, tags=["driver"]).tags == {"driver": Tag()}


def test_a_contract_of_a_contract_has_its_settings_changed() -> None:
    contract = Contract({"x": "int64"}, tags=["lap"])
    assert Contract.of(contract) is contract
    assert Contract.of(contract, policy="promote") == Contract({"x": "int64"}, tags=["lap"], policy="promote")


def test_a_frame_that_cannot_be_carried_teaches_nothing() -> None:
    with pytest.raises(FrameError):
        Contract.of(pd.DataFrame({"x": [1]}))


def test_what_is_learned_has_the_categories_and_requires_every_column() -> None:
    rows = frame(tyre=pd.Categorical(["soft"], ["soft", "hard"]), TAG__lap=pd.Series(["1"], dtype=TEXT))
    contract = Contract.of(rows)
    assert contract.parameters["tyre"].dtype.categories.tolist() == ["soft", "hard"]
    assert contract.parameters["tyre"].required
    assert contract.tags == {"lap": Tag()}


def test_the_order_of_columns_is_part_of_a_contract() -> None:
    assert Contract({"a": "int64", "b": "int64"}) != Contract({"b": "int64", "a": "int64"})


@pytest.mark.parametrize("dtype", ["float64", "float32", "Int64", "int8"])
def test_an_open_side_of_a_range_ends_at_the_last_finite_value(dtype: str) -> None:
    limits = Parameter(dtype, range=(None, 5)).limits()
    assert limits is not None
    assert np.isfinite(limits[0])
    assert limits[1] == 5
    assert Parameter(dtype, range=(-np.inf, np.float64(5))) == Parameter(dtype, range=(None, 5.0))


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_json_is_for_others_to_read_too() -> None:
    """Sorted, versioned, with the dtypes by name, the columns in their order, and text as it is."""
    contract = Contract(
        {"speed": Parameter("float64", unit="µm/s", range=(0, 400)), "lap": "Int64"},
        tags={"driver": Tag(required=False)},
        policy="dead-letter",
        out_of_range="missing",
        additional=True,
    )
    said = json.loads(contract.to_json())
    del said["arrow"]
    assert said == {
        "quixframes": "contract",
        "version": 1,
        "policy": "dead-letter",
        "out_of_range": "missing",
        "additional": True,
        "parameters": [
            {
                "name": "speed",
                "dtype": "float64",
                "unit": "µm/s",
                "range": [0, 400],
                "required": True,
                "nullable": True,
                "open": False,
            },
            {
                "name": "lap",
                "dtype": "Int64",
                "unit": None,
                "range": None,
                "required": True,
                "nullable": True,
                "open": False,
            },
        ],
        "tags": [{"name": "driver", "dtype": str(TEXT), "required": False}],
    }
    assert "µm/s" in contract.to_json()
    assert Contract.from_json(contract.to_json().encode()) == contract


def test_a_category_of_any_categories_survives_json() -> None:
    contract = Contract({"tyre": "category"})
    again = Contract.from_json(contract.to_json())
    assert again == contract
    assert again.parameters["tyre"].open
    assert again != Contract({"tyre": "str"})


def _changed(**values: Any) -> str:
    return json.dumps(json.loads(Contract({"x": "int64"}, tags=["lap"]).to_json()) | values)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no contract that this quixframes can read"),
        (b"\xff\xfe", "no contract"),
        ("[]", "no JSON of a contract"),
        ("{}", "no JSON of a contract"),
        (_changed(version=2), "version 2, this quixframes knows 1: upgrade"),
        (_changed(policy="hope"), "policy='hope'"),
        (_changed(arrow=""), "no contract"),
        (_changed(arrow="AAAA"), "no contract"),
        (_changed(arrow="ä"), "no contract"),
        (_changed(parameters=[]), "columns are not those"),
        (_changed(parameters=None), "no contract"),
        (_changed(parameters=[{"name": "x"}]), "no contract"),
    ],
)
def test_a_text_that_is_no_contract_is_one_clear_error(text: Any, says: str) -> None:
    with pytest.raises(ContractError, match=says):
        Contract.from_json(text)


def test_what_is_cut_off_is_one_clear_error() -> None:
    """At whatever place, also inside the Arrow batch."""
    said = json.loads(Contract({"x": "int64", "c": LETTERS}).to_json())
    for length in range(0, len(said["arrow"]), 4):
        try:
            Contract.from_json(json.dumps(said | {"arrow": said["arrow"][:length]}))
        except ContractError:
            continue
        assert length > len(said["arrow"]) - 20  # only the end-of-stream mark is missing


def test_a_declaration_knows_nothing_of_the_frame_that_it_was_learned_from() -> None:
    """The categories are its own: a batch of a reader may go."""
    rows = FrameEncoder().encode(frame(x=pd.Categorical(["a"] * 10_000)))
    assert len(Contract.of(rows).to_json()) < 3_000
