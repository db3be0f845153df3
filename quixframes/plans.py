"""What was worked out of a schema, kept for the next batch that has it. Pure.

What this module holds to: a schema that differs in its metadata alone is another one, since that is where the dtypes
are. Arrow's own equality and hash of schemas pass over it, so plans are kept by a schema's bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import pyarrow as pa

__all__ = ["Plans"]

Plan = TypeVar("Plan")


class Plans(Generic[Plan]):
    """Plans by schema. The last one costs a comparison, another that is kept the schema's bytes.

    Args:
        make: makes the plan of a schema.
        kept: how many plans are kept; with one more, all are forgotten.
        widest: the bytes of a schema up to which its plan is kept. Default: of any.

    >>> plans = Plans(lambda schema: len(schema.names), kept=64)
    >>> plans.of(pa.schema({"speed": pa.float64()}))
    1
    """

    __slots__ = ("_found", "_kept", "_last", "_make", "_widest")

    def __init__(self, make: Callable[[pa.Schema], Plan], *, kept: int, widest: float = float("inf")) -> None:
        self._make = make
        self._kept = kept
        self._widest = widest
        self._found: dict[bytes, Plan] = {}
        self._last: tuple[pa.Schema, Plan] | None = None

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._found)

    def of(self, schema: pa.Schema) -> Plan:
        """The plan of a schema. Raises what making it raises."""
        last = self._last  # read once: another thread may put its own here
        if last is not None and last[0].equals(schema, check_metadata=True):
            return last[1]
        key = schema.serialize().to_pybytes()
        plan = self._found.get(key)
        if plan is None:
            plan = self._make(schema)
            if len(key) <= self._widest:
                if len(self._found) >= self._kept:
                    self._found.clear()
                self._found[key] = plan
        self._last = schema, plan
        return plan
