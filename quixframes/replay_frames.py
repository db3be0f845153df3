"""The rows of many messages as one DataFrame or one Arrow table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes import frames
from quixframes.errors import FrameError
from quixframes.frames import FrameDecoder

__all__ = ["Found", "Labels", "labelled", "one_frame", "one_table"]

Found = Mapping[tuple[str, str], Sequence[pa.RecordBatch]]
"""Batches in normal form by topic and stream, in the order in which they are wanted."""
Labels = tuple[str | None, str | None]
"""Names of the columns that say which topic and which stream a row is of; None: no such column."""


def one_frame(found: Found) -> pd.DataFrame:
    """One DataFrame of all rows.

    Raises:
        FrameError: dtypes differ from message to message.
    """
    decoder = FrameDecoder()
    return _united([decoder.decode(frames.concat(run)) for run in _runs(_batches(found))])


def one_table(found: Found, labels: Labels) -> pa.Table:
    """One Arrow table of all rows: the time, the columns of ``labels`` as dictionaries, and the parameters.

    Raises:
        FrameError: types differ from message to message, or a parameter has the name of a label.
    """
    tables = []
    for key, batches in found.items():
        for table in map(pa.Table.from_batches, _runs(batches)):
            for place, (label, value) in enumerate(_named(labels, key)):
                _check_label(label, table.schema.names)
                codes = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int32)), pa.array([value]))
                table = table.add_column(1 + place, label, codes)
            tables.append(table)
    if not tables:
        return pa.schema([frames.TIME_FIELD]).empty_table()
    try:
        return pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as exc:
        raise FrameError(f"the columns of some messages are of other types than those of others: {exc}") from None


def labelled(frame: pd.DataFrame, found: Found, labels: Labels) -> pd.DataFrame:
    """The frame of all rows with categorical columns first that say which topic and which stream each row is of.

    Raises:
        FrameError: the frame has a column of that name.
    """
    counts = [sum(batch.num_rows for batch in batches) for batches in found.values()]
    for part in (1, 0):
        label = labels[part]
        if label is None:
            continue
        _check_label(label, frame.columns)
        names, codes = np.unique(np.array([key[part] for key in found], dtype=object), return_inverse=True)
        values = pd.Categorical.from_codes(np.repeat(codes, counts), pd.Index(names, dtype=object))
        frame.insert(0, label, pd.Series(values, index=frame.index))
    return frame


def _named(labels: Labels, key: tuple[str, str]) -> Iterator[tuple[str, str]]:
    return ((label, value) for label, value in zip(labels, key, strict=True) if label is not None)


def _check_label(label: str, columns: Iterable[str]) -> None:
    if label in columns:
        raise FrameError(f"the rows have a column {label!r}: give stream_column= another name, or None", column=label)


def _batches(found: Found) -> Iterator[pa.RecordBatch]:
    return (batch for batches in found.values() for batch in batches)


def _runs(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Consecutive batches of one schema together."""
    run: list[pa.RecordBatch] = []
    for batch in batches:
        if run and not run[0].schema.equals(batch.schema, check_metadata=True):
            yield run
            run = []
        run.append(batch)
    if run:
        yield run


def _united(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Frames one below the other, with the dtypes that :meth:`quixframes.replay.Replay.to_frame` promises."""
    if not parts:
        return pd.DataFrame(index=pd.DatetimeIndex([], dtype="datetime64[ns, UTC]", name=frames.TIME))
    if len(parts) == 1:
        return parts[0]
    dtypes: dict[str, Any] = {}
    for part in parts:
        for column, dtype in part.dtypes.items():
            known = dtypes.setdefault(str(column), dtype)
            if known != dtype or (
                isinstance(dtype, pd.CategoricalDtype) and list(known.categories) != list(dtype.categories)
            ):
                raise FrameError(
                    f"column {column!r} is {known} in some messages and {dtype} in others: "
                    "read them with batches(), or leave the column out with columns=",
                    column=column,
                )
    lacking = {column for column in dtypes for part in parts if column not in part.columns}
    for column in lacking:
        if isinstance(dtypes[column], np.dtype) and dtypes[column].kind in "iub":
            dtypes[column] = pd.array([], dtype=dtypes[column]).astype(_nullable(dtypes[column])).dtype
    whole = [part.reindex(columns=list(dtypes)).astype({c: dtypes[c] for c in lacking}) for part in parts]
    return pd.concat(whole)


def _nullable(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "b":
        return "boolean"
    return dtype.name.replace("uint", "UInt") if dtype.kind == "u" else dtype.name.replace("int", "Int")
