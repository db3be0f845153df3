"""A column's values as arrays, the buffers of an Arrow array, and the one form of an error about a column.

What the modules about frames share, and what needs no rule of a dtype. NumPy arrays that come from an Arrow array are
copies, except where a view is promised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.errors import FrameError

__all__ = ["NAT", "OBJECT", "bits", "dictionary_array", "flat", "nulls", "offsets_of", "owned", "refuse", "values_of"]

NAT = np.iinfo(np.int64).min  # the integer that stands for NaT in NumPy's datetimes
OBJECT = np.dtype(object)
SMALL = 1024  # bytes that are not worth a copy


def refuse(column: object, reason: str, advice: str, row: int | None = None) -> FrameError:
    """The one form of an error about a column: where, why, what to do."""
    place = f"column {column!r}" if row is None else f"column {column!r}, row {row}"
    return FrameError(f"{place}: {reason}; {advice}", column=column, row=row)


def values_of(column: Any) -> Any:
    """The values of a Series or Index as a NumPy array or, where there is none without loss, as pandas' own array.

    Datetimes with a zone are the instants, as datetime64 in UTC.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.array.asi8.view(f"M8[{column.dtype.unit}]")  # pandas 3.1 warns about .values of these
    return column.values if isinstance(column.dtype, np.dtype) else column.array


def flat(values: Any, column: object) -> pa.Array:
    """One valid Arrow array of a pandas array that is backed by Arrow, whatever its chunks."""
    array = pa.array(values)
    try:
        if pa.types.is_dictionary(array.type):
            array = _without_null_values(array).unify_dictionaries()
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
        array.validate(full=True)  # a reader would refuse text that is not UTF-8, for one
    except pa.ArrowInvalid as error:
        raise refuse(column, f"its Arrow array is not valid as one ({error})", "rebuild the column") from error
    return array


def _without_null_values(array: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """The same values, with nulls among the indices only: Arrow does not unify dictionaries that hold a null."""
    array = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
    if not any(chunk.dictionary.null_count for chunk in array.chunks):
        return array
    return array.cast(array.type.value_type).dictionary_encode().cast(array.type)


def owned(array: pa.Array) -> pa.Array:
    """The array, copied if it would keep alive a buffer much larger than itself, such as a Kafka message."""
    if pa.types.is_dictionary(array.type):
        indices, dictionary = owned(array.indices), owned(array.dictionary)
        return dictionary_array(indices, dictionary, array.type.ordered)
    held = sum(_root_size(buffer) for buffer in array.buffers() if buffer is not None)
    return pa.concat_arrays([array]) if held > 2 * array.nbytes + SMALL else array


def _root_size(buffer: Any) -> int:
    while buffer.parent is not None:
        buffer = buffer.parent
    size: int = buffer.size
    return size


def nulls(array: pa.Array) -> Any:
    """A NumPy mask of the nulls of an Arrow array."""
    return array.is_null().to_numpy(zero_copy_only=False)


def bits(array: Any, dtype: np.dtype[Any]) -> Any:
    """A writable copy of the values of a fixed-width Arrow array; what is under a null is arbitrary."""
    if dtype == np.bool_:
        values = (array.fill_null(False) if array.null_count else array).to_numpy(zero_copy_only=False)
        return values if values.flags.writeable else values.copy()
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.empty(len(array), dtype)
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize).copy()


def offsets_of(array: pa.Array) -> Any:
    """The n + 1 offsets of a large_string or large_binary array, as a NumPy view."""
    data = array.buffers()[1]
    if data is None or not data.size:
        return np.zeros(1, np.int64)
    return np.frombuffer(data, np.int64, len(array) + 1, array.offset * 8)


def dictionary_array(indices: pa.Array, values: pa.Array, ordered: bool) -> pa.Array:
    """A dictionary array of parts that are known to go together, unchecked."""
    return pa.DictionaryArray.from_arrays(indices, values, ordered=ordered, safe=False)
