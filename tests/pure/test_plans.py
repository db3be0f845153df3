"""Plans by schema: one for each, metadata included, and no more than are to be kept."""

from __future__ import annotations

import pyarrow as pa

from quixframes.plans import Plans


def schema(name: str, metadata: dict[str, str] | None = None) -> pa.Schema:
    return pa.schema([pa.field(name, pa.int64(), metadata=metadata)])


def test_a_plan_is_made_once_for_each_schema_and_another_for_other_metadata() -> None:
    made: list[pa.Schema] = []
    plans = Plans(lambda schema: made.append(schema) or len(made), kept=64)
    given = [schema("x"), schema("y"), schema("x", {"dtype": "Int64"}), schema("x"), schema("x")]
    assert [plans.of(one) for one in given] == [1, 2, 3, 1, 1]
    assert len(made) == len(plans) == 3


def test_plans_are_bounded_in_number_and_those_of_wide_schemas_are_not_kept() -> None:
    plans = Plans(lambda schema: schema.names, kept=3, widest=1_000)
    for n in range(10):
        assert plans.of(schema(f"x{n}")) == [f"x{n}"]
        assert len(plans) <= 3
    kept = len(plans)
    assert plans.of(schema("x" * 2_000)) == ["x" * 2_000]
    assert len(plans) == kept
