"""What the tests of contracts share: frames, batches, and a contract applied to one column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.contracts import Conformed, Conformer, Contract
from quixframes.frames import FrameDecoder, FrameEncoder, check_supported, check_values

TEXT = pd.Series(["text"]).dtype
OBJECT = np.dtype(object)


def frame(**columns: Any) -> pd.DataFrame:
    """Columns as a frame of so many seconds; a Series of objects stays one."""
    rows = len(next(iter(columns.values())))
    index = pd.date_range("2026-11-15", periods=rows, freq="s", tz="UTC", name="time")
    series = {
        name: pd.Series(values, index=index, dtype=getattr(values, "dtype", None))
        if not isinstance(values, pd.Series)
        else values.set_axis(index)
        for name, values in columns.items()
    }
    return pd.DataFrame(series, index=index)


def objects(*values: Any) -> pd.Series[Any]:
    return pd.Series(list(values), dtype=object)


def batch(**columns: Any) -> pa.RecordBatch:
    return FrameEncoder().encode(frame(**columns))


def conform(contract: Contract, rows: pa.RecordBatch) -> Conformed:
    """The contract applied; what passes is a valid batch of the contract's schema, and passes again as it is."""
    result = Conformer(contract, topic="engine").apply(rows, stream_id="car-44")
    result.batch.validate(full=True)
    check_supported(result.batch.schema)
    check_values(result.batch)
    again = Conformer(contract).apply(result.batch)
    assert again.batch.equals(result.batch) or decoded(again.batch).equals(decoded(result.batch))
    if contract.policy != "allow":
        assert again.rejected is None
        if not contract.additional:
            assert result.batch.schema.equals(contract.schema, check_metadata=True)
    return result


def decoded(rows: pa.RecordBatch) -> pd.DataFrame:
    return FrameDecoder().decode(rows)


def column(contract: Contract, rows: pa.RecordBatch, name: str = "x") -> pd.Series[Any]:
    """A column of what has passed, as pandas has it."""
    return decoded(conform(contract, rows).batch)[name]


def one(dtype: Any, policy: Any = "promote", **settings: Any) -> Contract:
    """A contract for a column named x."""
    return Contract({"x": dtype}, policy=policy, **settings)
