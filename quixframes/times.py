"""The time of a frame as nanoseconds since 1970, from whatever says it.

A time is never missing, never rounded, and never wraps around: what nanoseconds cannot hold raises `FrameError`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.columns import NAT, flat, refuse
from quixframes.errors import FrameError

__all__ = ["TO_DATETIME", "missing_time", "time_ns"]

MAX = 2**63 - 1
NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
TO_DATETIME = "convert it with pd.to_datetime (numbers with unit=...)"


def missing_time(missing: Any, column: object) -> FrameError:
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


def time_ns(values: Any, epoch: int, column: object) -> Any:
    """Nanoseconds since 1970 as a new int64 array, from what `values_of` gives for any dtype that can be a time.

    Datetimes are instants (naive ones mean UTC); integers and timedeltas count from the epoch.
    """
    if isinstance(values, pd.arrays.IntegerArray) or isinstance(values.dtype, pd.ArrowDtype):
        values = _time_of_arrow(flat(values, column), column)
    kind = values.dtype.kind if isinstance(values, np.ndarray) else "O"
    if kind in "mM":
        numbers = values.view(np.int64)
        if len(numbers) and numbers.min() == NAT:
            raise missing_time(numbers == NAT, column)
        unit = np.datetime_data(values.dtype)[0]
        return _scaled(numbers, NS[unit], epoch if kind == "m" else 0, column)
    if kind in "iu":
        return _scaled(values, 1, epoch, column)
    raise refuse(column, f"the time has the dtype {values.dtype}, which is no time", TO_DATETIME)


def _time_of_arrow(array: Any, column: object) -> Any:
    if array.null_count:
        raise missing_time(array.is_null().to_numpy(zero_copy_only=False), column)
    arrow = array.type
    if pa.types.is_timestamp(arrow):
        return array.view(pa.int64()).to_numpy().view(f"M8[{arrow.unit}]")
    if pa.types.is_duration(arrow):
        return array.view(pa.int64()).to_numpy().view(f"m8[{arrow.unit}]")
    if pa.types.is_integer(arrow):
        return array.to_numpy()
    raise refuse(column, f"the time has the Arrow type {arrow}, which is no time", TO_DATETIME)
