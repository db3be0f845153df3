"""A contract applied to record batches: before a writer accepts a frame, and before a reader holds rows.

What this module holds to:

- What passes has one schema, the contract's: but under the policy "allow", and where ``additional`` columns come along.
- Whether a row passes depends on that row and on its batch's dtypes, never on the other rows. Applying a contract to
  what has passed it changes nothing.
- What can be said of a schema is said once and kept. A batch that is of the contract's schema already, in which nothing
  has to be looked for, costs one comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quixframes.contracts.contract import Contract
from quixframes.contracts.declared import Parameter, Tag, found_name
from quixframes.contracts.promotions import Promotion, is_numpy_float, missing_in, nothing, promotion
from quixframes.contracts.tables import table
from quixframes.errors import ContractError
from quixframes.plans import Plans
from quixframes.record_batches import keep_rows

__all__ = ["Conformed", "Conformer", "Kind", "Problem"]

KEPT = 64  # plans that a conformer keeps

Kind = Literal["absent", "unknown", "dtype", "value", "missing", "range"]
Mask = npt.NDArray[np.bool_]
NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a column of a batch.

    Args:
        column: its name.
        kind: "absent" (a required column is not there), "unknown" (one is there that is not declared), "dtype" (another
            one, which cannot be promoted), "value" (one that the declared dtype does not hold exactly), "missing" (a
            value is, in a column that is not nullable), or "range" (a value is out of it).
        declared: the dtype that is declared; empty for an unknown column.
        found: the dtype that was found; empty for an absent column.
        rows: how many rows it concerns.
        row: the first of them in the batch; None where it is about the column as a whole, or there are no rows.
        text: the same in words.
    """

    column: str
    kind: Kind
    declared: str
    found: str
    rows: int
    row: int | None
    text: str


class Conformed(NamedTuple):
    """What became of a batch.

    ``batch`` has the rows that passed, in their order. ``rejected`` is a mask over the rows that came, True for those
    that are to go to the dead-letter topic as they came; None where there are none. ``problems`` says why, or, with
    policy "allow", what was let through. ``out_of_range`` counts the values out of their range, by column, whatever
    became of them.
    """

    batch: pa.RecordBatch
    rejected: Mask | None = None
    problems: tuple[Problem, ...] = ()
    out_of_range: Mapping[str, int] = NONE


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """How one column of the result is made. ``position`` is that of its source, None where it is filled in."""

    name: str
    position: int | None
    source: Any
    target: Any
    empty: Any
    promotion: Promotion | None  # None: only missing values pass
    same: bool  # the source is of the target's dtype already
    declared: str
    nullable: bool
    looks: bool  # for missing values where there may be none, though the dtype would hold them
    limits: tuple[Any, Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What follows from the schema of a batch. ``faults`` are those that are known of every such batch."""

    source: Any
    result: Any
    columns: tuple[_Column, ...]
    faults: tuple[tuple[Kind, str, str, str], ...]  # kind, column, declared, text
    same: bool  # the batch is its own result, if nothing is found in it
    clean: bool  # and nothing has to be looked for


class _Found(NamedTuple):
    column: _Column
    kind: Kind
    rows: Mask
    text: str


class Conformer:
    """Applies a contract. One for each reader or writer of a topic; it keeps what it learnt of earlier schemas.

    >>> import pandas as pd
    >>> from quixframes.frames import FrameEncoder
    >>> contract = Contract({"lap": "Int64"}, policy="promote")
    >>> frame = pd.DataFrame({"lap": [1.0, None]}, index=pd.DatetimeIndex(["2026-11-15", "2026-11-16"]))
    >>> Conformer(contract).apply(FrameEncoder().encode(frame)).batch.column("lap").to_pylist()
    [1, None]
    """

    def __init__(self, contract: Contract, *, topic: str | None = None) -> None:
        self.contract = contract
        self.topic = topic
        self._plans = Plans(self._plan, kept=KEPT)

    def apply(self, batch: pa.RecordBatch, *, stream_id: str | None = None) -> Conformed:
        """What becomes of a batch in normal form under the contract.

        Raises:
            ContractError: it does not keep the contract, and the contract says that this is an error.
        """
        plan = self._plans.of(batch.schema)
        if plan.clean:
            return Conformed(batch)
        policy = self.contract.policy
        if plan.faults and policy != "allow":
            problems = self._problems_of_schema(plan, batch)
            if policy != "dead-letter":
                raise self._error(problems, stream_id)
            return Conformed(_no_rows(self.contract), np.ones(batch.num_rows, bool), problems)
        found: list[_Found] = []
        counts: dict[str, int] = {}
        sources = batch.columns
        arrays = [self._column(column, sources, batch.num_rows, found, counts) for column in plan.columns]
        problems = tuple(_problem(one, batch) for one in found)
        fatal = tuple(problem for problem in problems if self._is_fatal(problem.kind))
        if fatal:
            raise self._error(fatal, stream_id)
        if policy == "allow":
            return Conformed(batch, None, (*self._problems_of_schema(plan, batch), *problems), counts or NONE)
        unchanged = plan.same and all(array is None for array in arrays)
        result = batch if unchanged else self._result(plan, sources, arrays)
        rejected = None
        for one in found:
            rejected = one.rows if rejected is None else rejected | one.rows
        if rejected is not None:
            result = keep_rows(result, ~rejected)
        return Conformed(result, rejected, problems, counts or NONE)

    # Plans

    def _plan(self, schema: pa.Schema) -> _Plan:
        contract = self.contract
        allow = contract.policy == "allow"
        faults: list[tuple[Kind, str, str, str]] = []
        columns: list[_Column] = []
        at = {name: position for position, name in enumerate(schema.names)}
        declared = contract.columns
        for target in list(contract.schema)[1:]:
            of, position = declared[target.name], at.get(target.name)
            if position is None and of.required:
                faults.append(("absent", target.name, of.name, "it is required, and not there"))
                continue
            if position is None and allow:
                continue
            column = self._planned(of, None if position is None else schema.field(position), target, position)
            strict = position is not None and contract.policy in ("raise", "allow")
            if strict and not column.same and column.promotion is None:
                faults.append(("dtype", target.name, of.name, _advice(column)))
            columns.append(column)
        extra = [schema.field(position) for name, position in at.items() if name not in declared and position]
        if not contract.additional:
            faults += [("unknown", one.name, "", "it is not declared") for one in extra]
        result = schema if allow else pa.schema([*contract.schema, *extra])
        if not allow:
            columns += [_carried(one, at[one.name]) for one in extra]
        same = schema.equals(result, check_metadata=True)
        watched = any(column.looks or column.limits is not None for column in columns)
        return _Plan(schema, result, tuple(columns), tuple(faults), same, same and not faults and not watched)

    def _planned(self, of: Parameter | Tag, source: Any, target: Any, position: int | None) -> _Column:
        policy = self.contract.policy
        limits, nullable = None, True
        same = source is not None and source.equals(target, check_metadata=True)
        way = None
        if source is not None and (policy not in ("raise", "allow") or same or isinstance(of, Tag) or of.open):
            way = promotion(source, target, of.empty)
        if isinstance(of, Parameter):
            nullable = bool(of.nullable)
            limits = of.limits() if self.contract.out_of_range is not None else None
        looks = source is not None and not nullable and (source.nullable or is_numpy_float(source))
        if policy == "allow" and not same:  # what another dtype holds is not what was declared of the values
            looks, limits = False, None
        return _Column(target.name, position, source, target, of.empty, way, same, of.name, nullable, looks, limits)

    # Columns

    def _column(
        self, column: _Column, sources: list[Any], rows: int, found: list[_Found], counts: dict[str, int]
    ) -> Any:
        """The array of one column of the result; None where it is that of the batch, as it is."""
        if column.position is None:
            return nothing(column.target, column.empty, rows)
        array = sources[column.position]
        made, off = None, None
        if column.same or self.contract.policy == "allow":
            if column.looks and (off := missing_in(column.source, array)) is not None:
                found.append(_Found(column, "missing", off, "a value is missing, and it is not nullable"))
        else:
            made, off = _promoted(column, array, found)
        if column.limits is not None:
            outside = _outside(array if made is None else made, column.limits, off)
            if outside is not None:
                counts[column.name] = int(outside.sum())
                low, high = column.limits
                if self.contract.out_of_range in ("raise", "dead-letter"):
                    found.append(_Found(column, "range", outside, f"{{value}} is not within {low} … {high}"))
                if self.contract.out_of_range == "missing":
                    made = _hidden(column.target, array if made is None else made, outside)
        return made

    def _result(self, plan: _Plan, sources: list[Any], arrays: list[Any]) -> pa.RecordBatch:
        columns = [
            sources[column.position] if array is None and column.position is not None else array
            for column, array in zip(plan.columns, arrays, strict=True)
        ]
        return pa.RecordBatch.from_arrays([sources[0], *columns], schema=plan.result)

    # What is wrong

    def _is_fatal(self, kind: Kind) -> bool:
        if kind == "range":
            return self.contract.out_of_range == "raise"
        return self.contract.policy in ("raise", "promote")

    def _problems_of_schema(self, plan: _Plan, batch: Any) -> tuple[Problem, ...]:
        problems = []
        for kind, name, declared, text in plan.faults:
            at = plan.source.get_field_index(name)
            shown = "" if at < 0 else found_name(plan.source.field(at), batch.column(at))
            if shown == declared:
                shown = f"{shown} ({plan.source.field(at).metadata})"
            problems.append(Problem(name, kind, declared, shown, batch.num_rows, 0 if batch.num_rows else None, text))
        return tuple(problems)

    def _error(self, problems: tuple[Problem, ...], stream_id: str | None) -> ContractError:
        of = "" if self.topic is None else f" of topic {self.topic!r}"
        rows = "the rows" if stream_id is None else f"the rows of stream {stream_id!r}"
        lines = [
            (one.column, one.declared, one.found, "" if one.row is None else one.row, one.text) for one in problems
        ]
        return ContractError(
            f"{rows} do not keep the contract{of}:\n{table(('column', 'declared', 'found', 'row', 'problem'), lines)}",
            topic=self.topic,
            stream_id=stream_id,
            problems=problems,
        )


def _carried(source: Any, position: int) -> _Column:
    """A column that is not declared, and comes along."""
    return _Column(source.name, position, source, source, None, None, True, "", True, False, None)


def _advice(column: _Column) -> str:
    if pa.types.is_dictionary(column.source.type) and pa.types.is_dictionary(column.target.type):
        return "its categories are not the declared ones: set them with .astype(), or choose policy='promote'"
    return "convert it with .astype(), or choose policy='promote' if that is exact"


def _no_rows(contract: Contract) -> pa.RecordBatch:
    times = pa.array([], contract.schema.field(0).type)
    return pa.RecordBatch.from_arrays(
        [times, *(one.empty for one in contract.columns.values())], schema=contract.schema
    )


def _promoted(column: _Column, array: Any, found: list[_Found]) -> tuple[Any, Mask | None]:
    """The array in the target's dtype, and the rows that do not go into it."""
    missing = missing_in(column.source, array)
    kind: Kind
    if column.promotion is None:
        off = np.ones(len(array), bool) if missing is None else ~missing
        made, off = nothing(column.target, column.empty, len(array)), off if off.any() else None
        kind, fault = "dtype", "{value!r} cannot be promoted to the declared dtype"
    else:
        made, off = column.promotion.convert(array, missing)
        kind, fault = "value", column.promotion.fault
    if off is not None:
        found.append(_Found(column, kind, off, fault))
    if missing is not None and not column.nullable:
        found.append(_Found(column, "missing", missing, "a value is missing, and it is not nullable"))
        off = missing if off is None else off | missing
    return made, off


def _problem(one: _Found, batch: Any) -> Problem:
    column = one.column
    array = batch.column(column.position)
    row = int(one.rows.argmax())
    found = found_name(column.source, array)
    text = one.text.format(value=_value(array, row)) if "{" in one.text else one.text
    return Problem(column.name, one.kind, column.declared, found, int(one.rows.sum()), row, text)


def _value(array: Any, row: int) -> Any:
    try:
        return array[row].as_py()
    except (ValueError, OverflowError):  # a time that Python's own cannot tell
        return array[row].cast(pa.int64()).as_py()


# --- ranges -----------------------------------------------------------------------------------------------------------


def _outside(array: Any, limits: tuple[Any, Any], off: Mask | None) -> Mask | None:
    """The values out of a range, but for those of rows that are off already; None where there are none."""
    if not len(array):
        return None
    low, high = limits
    has_nulls = bool(array.null_count)
    if has_nulls:
        values = np.frombuffer(array.buffers()[1], low.dtype, len(array), array.offset * low.itemsize)
    else:
        values = array.to_numpy()
        if values.min() >= low and values.max() <= high:  # False where there is a NaN
            return None
    outside = (values < low) | (values > high)
    if has_nulls:
        outside &= array.is_valid().to_numpy(zero_copy_only=False)
    if off is not None:
        outside &= ~off
    return outside if outside.any() else None


def _hidden(target: Any, array: Any, rows: Mask) -> Any:
    """The array with missing values in these rows."""
    numpy = np.dtype(target.type.to_pandas_dtype())
    values = np.frombuffer(array.buffers()[1], numpy, len(array), array.offset * numpy.itemsize).copy()
    if is_numpy_float(target):
        values[rows] = np.nan
        return pa.array(values, target.type, from_pandas=False)
    missing = rows | ~array.is_valid().to_numpy(zero_copy_only=False)
    return pa.array(values, target.type, mask=missing, from_pandas=False)
