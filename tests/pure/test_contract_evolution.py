"""Which contract may follow which, case by case, and how the error shows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from quixframes.contracts import Conformer, Contract, Parameter, Tag, check_evolution
from quixframes.errors import ContractError
from tests.pure.contract_rows import batch

P = Parameter


def contract(x: Any = "float64", **settings: Any) -> Contract:
    parameters = {"x": x} if x is not None else {}
    return Contract({**parameters, **settings.pop("more", {})}, **settings)


RANGED = P("float64", range=(0, 10))
STRICT: dict[str, Any] = {"out_of_range": "raise"}

COMPATIBLE = [
    ("nothing", contract(), contract(), None),
    ("a new optional parameter", contract(), contract(more={"y": P("str", required=False)}), ("y", "parameter")),
    ("a new optional tag", contract(), contract(tags={"lap": Tag(required=False)}), ("TAG__lap", "tag")),
    ("no longer required", contract(), contract(P("float64", required=False)), ("x", "required")),
    (
        "a tag no longer required",
        contract(tags={"lap": Tag()}),
        contract(tags={"lap": Tag(required=False)}),
        ("TAG__lap", "required"),
    ),
    ("nullable now", contract(P("float64", nullable=False)), contract(), ("x", "nullable")),
    ("a first unit", contract(), contract(P("float64", unit="km/h")), ("x", "unit")),
    ("a wider range", contract(RANGED, **STRICT), contract(P("float64", range=(-1, 10)), **STRICT), ("x", "range")),
    ("an open range", contract(RANGED, **STRICT), contract(P("float64", range=(0, None)), **STRICT), ("x", "range")),
    ("no range", contract(RANGED, **STRICT), contract(**STRICT), ("x", "range")),
    ("a first range that counts", contract(), contract(RANGED), ("x", "range")),
    ("a narrower range that counts", contract(RANGED), contract(P("float64", range=(1, 2))), ("x", "range")),
    ("ranges not looked at", contract(RANGED, **STRICT), contract(RANGED, out_of_range=None), (None, "out_of_range")),
    ("strict otherwise", contract(RANGED, **STRICT), contract(RANGED, out_of_range="missing"), (None, "out_of_range")),
    ("strict without ranges", contract(), contract(**STRICT), (None, "out_of_range")),
    ("another policy", contract(), contract(policy="promote"), (None, "policy")),
    ("back to raise", contract(policy="dead-letter"), contract(), (None, "policy")),
    ("allow from now on", contract(), contract(policy="allow"), (None, "policy")),
    ("room for more", contract(), contract(additional=True), (None, "additional")),
    ("another order", contract(more={"y": "str"}), Contract({"y": "str", "x": "float64"}), (None, "order")),
    (
        "an optional one undeclared",
        contract(more={"y": P("str", required=False)}, additional=True),
        contract(additional=True),
        ("y", "parameter"),
    ),
    ("any categories, as text", contract("category"), contract("str"), ("x", "dtype")),
    ("text, as any categories", contract("str"), contract("category"), ("x", "dtype")),
]

INCOMPATIBLE = [
    ("a wider dtype", contract("int32"), contract("int64"), ("x", "dtype")),
    ("a narrower dtype", contract("float64"), contract("float32"), ("x", "dtype")),
    ("nullable by another dtype", contract("int64"), contract(P("int64", nullable=True)), ("x", "dtype")),
    ("optional by another dtype", contract("int64"), contract(P("int64", required=False)), ("x", "dtype")),
    ("another kind of text", contract("object"), contract(pd.StringDtype("python")), ("x", "dtype")),
    (
        "more categories",
        contract(pd.CategoricalDtype(["a"])),
        contract(pd.CategoricalDtype(["a", "b"])),
        ("x", "dtype"),
    ),
    (
        "an order of categories",
        contract(pd.CategoricalDtype(["a"])),
        contract(pd.CategoricalDtype(["a"], ordered=True)),
        ("x", "dtype"),
    ),
    ("a tag of another dtype", contract(tags={"lap": Tag()}), contract(tags={"lap": Tag(dtype="string")}), None),
    ("a removed required parameter", contract(more={"y": "str"}), contract(), ("y", "parameter")),
    (
        "the same with room for more",
        contract(more={"y": "str"}, additional=True),
        contract(additional=True),
        ("y", "parameter"),
    ),
    ("a removed optional parameter", contract(more={"y": P("str", required=False)}), contract(), ("y", "parameter")),
    ("a removed tag", contract(tags={"lap": Tag()}), contract(), ("TAG__lap", "tag")),
    ("a new required parameter", contract(), contract(more={"y": "str"}), ("y", "parameter")),
    ("a new required tag", contract(), contract(tags={"lap": Tag()}), ("TAG__lap", "tag")),
    (
        "a new one where it may have been undeclared",
        contract(additional=True),
        contract(more={"y": P("str", required=False)}, additional=True),
        ("y", "parameter"),
    ),
    ("required from now on", contract(P("float64", required=False)), contract(), ("x", "required")),
    ("not nullable any more", contract(), contract(P("float64", nullable=False)), ("x", "nullable")),
    ("another unit", contract(P("float64", unit="km/h")), contract(P("float64", unit="mph")), ("x", "unit")),
    ("no unit any more", contract(P("float64", unit="km/h")), contract(), ("x", "unit")),
    ("a narrower range", contract(RANGED, **STRICT), contract(P("float64", range=(1, 10)), **STRICT), ("x", "range")),
    ("a first range", contract(**STRICT), contract(RANGED, **STRICT), ("x", "range")),
    (
        "a side closed",
        contract(P("int64", range=(0, None)), **STRICT),
        contract(P("int64", range=(0, 9)), **STRICT),
        None,
    ),
    ("ranges looked at", contract(RANGED), contract(RANGED, out_of_range="missing"), (None, "out_of_range")),
    ("no longer all allowed", contract(policy="allow"), contract(policy="promote"), (None, "policy")),
    ("no more room", contract(additional=True), contract(), (None, "additional")),
]


@pytest.mark.parametrize(("old", "new", "where"), [case[1:] for case in COMPATIBLE], ids=[c[0] for c in COMPATIBLE])
def test_this_contract_may_follow(old: Contract, new: Contract, where: Any) -> None:
    differences = check_evolution(old, new)
    assert all(one.compatible for one in differences)
    assert [(one.column, one.what) for one in differences] == ([] if where is None else [where])


@pytest.mark.parametrize(("old", "new", "where"), [case[1:] for case in INCOMPATIBLE], ids=[c[0] for c in INCOMPATIBLE])
def test_this_contract_may_not_follow(old: Contract, new: Contract, where: Any) -> None:
    with pytest.raises(ContractError, match="does not go with rows") as raised:
        check_evolution(old, new, topic="engine")
    assert raised.value.topic == "engine"
    assert len(raised.value.problems) == 1
    if where is not None:
        assert (raised.value.problems[0].column, raised.value.problems[0].what) == where


def test_the_error_shows_every_difference_as_a_table() -> None:
    """Also the compatible ones, so that the whole change can be seen."""
    old = Contract({"speed": P("int64", unit="km/h"), "lap": "Int64"})
    new = Contract({"speed": P("float64", unit="km/h"), "gear": P("Int8", required=False)}, policy="promote")
    with pytest.raises(ContractError) as raised:
        check_evolution(old, new, topic="engine")
    assert str(raised.value).splitlines() == [
        "the new contract of topic 'engine' does not go with rows that were written under the old one:",
        "  column      what       old              new             compatible",
        "  speed       dtype      int64            float64         no: earlier rows have the old dtype",
        "  lap         parameter  Int64, required                  no: models may rely on it",
        "  gear        parameter                   Int8, optional  yes",
        "  (contract)  policy     raise            promote         yes",
        "Keep what is declared and add parameters that are not required, or take a new topic",
    ]


def test_two_dtypes_of_one_name_are_told_apart() -> None:
    old = Contract({"at": pd.DatetimeTZDtype("ns", "Europe/Berlin")})
    (difference,) = old.differences(Contract({"at": pd.DatetimeTZDtype("us", "Europe/Berlin")}))
    assert difference.old != difference.new


ROWS = [
    ("plain", batch(x=np.array([1.0, 5.0]))),
    ("missing", batch(x=np.array([1.0, np.nan]))),
    ("far out", batch(x=np.array([1.0, 1e9]))),
    ("with more", batch(x=np.array([1.0, 2.0]), y=pd.Series(["a", None], dtype=pd.Series(["a"]).dtype))),
    ("other dtypes", batch(x=pd.array([1, None], "Int64"), y=np.array([1, 2]))),
]


@pytest.mark.parametrize(("old", "new"), [case[1:3] for case in COMPATIBLE], ids=[case[0] for case in COMPATIBLE])
@pytest.mark.parametrize("rows", [case[1] for case in ROWS], ids=[case[0] for case in ROWS])
def test_what_keeps_a_contract_keeps_a_compatible_one(old: Contract, new: Contract, rows: Any) -> None:
    """The rule of evolution itself: rows that passed the old contract pass the new one, and their dtypes stay."""
    try:
        written = Conformer(old).apply(rows)
    except ContractError:
        return
    read = Conformer(new).apply(written.batch)
    assert read.rejected is None
    for name in set(written.batch.schema.names) & set(read.batch.schema.names):
        assert read.batch.schema.field(name).equals(written.batch.schema.field(name), check_metadata=True)
        assert read.batch.column(name).to_pylist().__repr__() == written.batch.column(name).to_pylist().__repr__()
