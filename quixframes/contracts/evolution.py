"""What differs between two contracts, and whether the new one may follow the old.

The one rule: a contract may follow another where every row that was written under the old one keeps the new one too,
and reads from it with the dtype that it was written with. What follows of it:

==========================  =====================================================================================
a new parameter or tag      if it is not required, and the old contract left no room for undeclared ones, which may
                            have had its name
a removed one               if it was not required, and the new contract leaves room for undeclared ones
another dtype               never; other categories are another dtype
required or not             from required to not; only where that keeps the dtype (int64 would become Int64)
nullable or not             from not nullable to nullable, where that keeps the dtype
unit                        a first one; another unit, or none any more, changes what the numbers say
range                       a wider one, or any where values out of range are only counted
``out_of_range``            to None or "count", and from one of the others to another
``policy``                  any but from "allow", under which rows of any kind may have been written
``additional``              from False to True
order of the columns        any
==========================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quixframes.contracts.declared import Bounds, Parameter, Tag
from quixframes.contracts.tables import table
from quixframes.errors import ContractError
from quixframes.rules import TAG

if TYPE_CHECKING:
    from quixframes.contracts.contract import Contract

__all__ = ["Difference", "check_evolution", "differences"]

LENIENT = (None, "count")  # what is out of range stays as it is


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which a new contract differs from an old one.

    ``column`` is None where it is about the contract as a whole; ``what`` is "parameter", "tag", "dtype", "unit",
    "range", "required", "nullable", "policy", "out_of_range", "additional" or "order". ``reason`` says why it is not
    compatible, and is empty where it is.
    """

    column: str | None
    what: str
    old: str
    new: str
    reason: str = ""

    @property
    def compatible(self) -> bool:
        """Whether rows that were written before keep the new contract."""
        return not self.reason


def check_evolution(old: Contract, new: Contract, *, topic: str | None = None) -> tuple[Difference, ...]:
    """The differences, all of them compatible.

    Raises:
        ContractError: the new contract may not follow the old one; the text has a table of all differences.
    """
    found = differences(old, new)
    if all(difference.compatible for difference in found):
        return found
    of = "" if topic is None else f" of topic {topic!r}"
    lines = [
        (one.column or "(contract)", one.what, one.old, one.new, "yes" if one.compatible else f"no: {one.reason}")
        for one in found
    ]
    raise ContractError(
        f"the new contract{of} does not go with rows that were written under the old one:\n"
        f"{table(('column', 'what', 'old', 'new', 'compatible'), lines)}\n"
        "Keep what is declared and add parameters that are not required, or take a new topic",
        topic=topic,
        problems=[one for one in found if not one.compatible],
    )


def differences(old: Contract, new: Contract) -> tuple[Difference, ...]:
    """What differs, parameters first."""
    parameters = _columns(old, new, "parameter", old.parameters, new.parameters)
    return (*parameters, *_columns(old, new, "tag", old.tags, new.tags), *_whole(old, new))


def _columns(old: Contract, new: Contract, kind: str, before: Any, after: Any) -> Iterator[Difference]:
    for name in dict.fromkeys([*before, *after]):
        column = name if kind == "parameter" else TAG + name
        one, other = before.get(name), after.get(name)
        if one is None:
            yield Difference(column, kind, "", _said(other), _added(old, other))
        elif other is None:
            yield Difference(column, kind, _said(one), "", _removed(new, one))
        else:
            yield from _column(column, one, other, new)


def _said(declared: Parameter | Tag) -> str:
    return f"{declared.name}, {'required' if declared.required else 'optional'}"


def _added(old: Contract, column: Parameter | Tag) -> str:
    if column.required:
        return "earlier rows do not have it"
    return "earlier rows may have it undeclared, with any dtype" if old.additional else ""


def _removed(new: Contract, column: Parameter | Tag) -> str:
    if column.required:
        return "models may rely on it"
    return "" if new.additional else "earlier rows may have it"


def _column(column: str, one: Any, other: Any, new: Contract) -> Iterator[Difference]:
    same = (one.arrow, one.descriptor) == (other.arrow, other.descriptor)
    if not same or getattr(one, "open", False) != getattr(other, "open", False):
        shown = [one.name, other.name]
        if shown[0] == shown[1]:
            shown = [f"{side.name} ({(side.descriptor or b'').decode()})" for side in (one, other)]
        yield Difference(column, "dtype", shown[0], shown[1], "" if same else "earlier rows have the old dtype")
    if one.required != other.required:
        reason = "earlier rows may lack it" if other.required else ""
        yield Difference(column, "required", _yes(one.required), _yes(other.required), reason)
    if isinstance(one, Parameter) and isinstance(other, Parameter):
        yield from _parameter(column, one, other, same, new)


def _parameter(column: str, one: Parameter, other: Parameter, same: bool, new: Contract) -> Iterator[Difference]:
    if one.nullable != other.nullable and same:
        reason = "" if other.nullable else "earlier values may be missing"
        yield Difference(column, "nullable", _yes(one.nullable), _yes(other.nullable), reason)
    if one.unit != other.unit:
        reason = "" if one.unit is None else "earlier values are in the old unit"
        yield Difference(column, "unit", one.unit or "", other.unit or "", reason)
    if one.range != other.range:
        wider = _within(one.range, other.range) or new.out_of_range in LENIENT
        reason = "" if wider else "earlier values may be outside"
        yield Difference(column, "range", _interval(one.range), _interval(other.range), reason)


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _interval(bounds: Bounds | None) -> str:
    if bounds is None:
        return ""
    low, high = ("" if bound is None else str(bound) for bound in bounds)
    return f"{low} … {high}".strip()


def _within(inner: Bounds | None, outer: Bounds | None) -> bool:
    if outer is None:
        return True
    if inner is None:
        return False
    low = outer[0] is None or (inner[0] is not None and inner[0] >= outer[0])
    high = outer[1] is None or (inner[1] is not None and inner[1] <= outer[1])
    return low and high


def _whole(old: Contract, new: Contract) -> Iterator[Difference]:
    if old.policy != new.policy:
        reason = "earlier rows may be of any kind" if old.policy == "allow" else ""
        yield Difference(None, "policy", old.policy, new.policy, reason)
    if old.out_of_range != new.out_of_range:
        ranged = any(name in old.parameters and new.parameters[name].range is not None for name in new.parameters)
        stricter = old.out_of_range in LENIENT and new.out_of_range not in LENIENT and ranged
        reason = "earlier values may be outside" if stricter else ""
        yield Difference(None, "out_of_range", str(old.out_of_range), str(new.out_of_range), reason)
    if old.additional != new.additional:
        reason = "" if new.additional else "earlier rows may have undeclared parameters"
        yield Difference(None, "additional", _yes(old.additional), _yes(new.additional), reason)
    before, after = (_order(side, other) for side, other in ((old, new), (new, old)))
    if before != after:
        yield Difference(None, "order", ", ".join(before), ", ".join(after))


def _order(side: Contract, other: Contract) -> list[str]:
    common = set(other.schema.names)
    return [name for name in side.schema.names[1:] if name in common]
