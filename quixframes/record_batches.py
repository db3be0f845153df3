"""Record batches in normal form, put together, thinned out and weighed, without a look at pandas.

What is done here is exact for every dtype that is carried, also where Arrow's own kernels are not: what stands under
the null of an object column stays (see `rules`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quixframes.errors import FrameError
from quixframes.rules import KEY, OBJECTS, TAG_TYPE

__all__ = ["compacted", "concat", "keep_rows", "lone_nbytes", "row_nbytes", "row_width", "trimmed"]

OBJECT_DESCRIPTORS = {rule.descriptor for rule in OBJECTS.values()}


def concat(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema, metadata included, as one ``pa.RecordBatch``, in their order.

    Raises `FrameError` if their schemas differ, or if the dictionaries of an Arrow dictionary column have together more
    values than its index type can number; ValueError without any batch.
    """
    if not batches:
        raise ValueError("concat needs at least one batch")
    schema = batches[0].schema
    for number, batch in enumerate(batches):
        if not schema.equals(batch.schema, check_metadata=True):
            raise FrameError(f"batch {number} has another schema than the first; concatenate batches of one schema")
    if len(batches) == 1:
        return batches[0]
    try:
        return pa.concat_batches(batches)
    except pa.ArrowInvalid as error:
        raise FrameError(f"the batches do not fit into one: {error}") from error


def compacted(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows and columns in memory of their own: a slice or a selection keeps alive what it was taken from."""
    batch = trimmed(batch)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


def trimmed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows and columns, without what a slice has of the tags of other rows: a dictionary with more values than
    there are rows that have one becomes one of the values that are used. So a single row has no value but its own.

    >>> tags = pa.array(["a", "b", "c"], TAG_TYPE)
    >>> trimmed(pa.record_batch({"TAG__lap": tags}).slice(2)).column(0).dictionary.to_pylist()
    ['c']
    """
    arrays = batch.columns
    places = [
        at
        for at, array in enumerate(arrays)
        if isinstance(array, pa.DictionaryArray)
        and len(array.dictionary) > len(array) - array.null_count
        and _is_tag(batch.schema.field(at))
    ]
    if not places:
        return batch
    for at in places:
        arrays[at] = arrays[at].dictionary_decode().dictionary_encode()
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _is_tag(field: Any) -> bool:
    """Whether it is a dictionary that says nothing but its values; that of a categorical is part of the dtype."""
    return bool(field.type == TAG_TYPE) and not (field.metadata or {}).get(KEY, b"").startswith(b"category:")


def keep_rows(batch: pa.RecordBatch, mask: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """The rows where the mask is True, in their order, to the bit: what ``frame[mask]`` is to a DataFrame.

    >>> batch = pa.record_batch({"time": pa.array([1, 2, 3], pa.timestamp("ns", "UTC")), "lap": [7, 8, 9]})
    >>> keep_rows(batch, np.array([True, False, True])).column("lap").to_pylist()
    [7, 9]
    """
    if mask.all():
        return batch
    keep = pa.array(mask)
    arrays = [_kept(field, array, mask, keep) for field, array in zip(batch.schema, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _kept(field: Any, array: Any, mask: Any, keep: Any) -> Any:
    if pa.types.is_string_view(field.type) or pa.types.is_binary_view(field.type):  # Arrow has no filter for views
        edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).reshape(-1, 2).tolist()
        return pa.concat_arrays([array.slice(0, 0), *(array.slice(start, end - start) for start, end in edges)])
    if not array.null_count or (field.metadata or {}).get(KEY) not in OBJECT_DESCRIPTORS:
        return array.filter(keep)
    # Arrow forgets what is under a null, which says what kind of missing value it is: so it filters all as values.
    present = array.is_valid().to_numpy(zero_copy_only=False)[mask]
    kept = pa.Array.from_buffers(array.type, len(array), [None, *array.buffers()[1:]], 0, array.offset).filter(keep)
    return pa.Array.from_buffers(array.type, len(kept), [pa.array(present).buffers()[1], *kept.buffers()[1:]])


WIDEST = 8  # bytes of an offset into a dictionary of strings
VIEW = 16  # bytes of a string_view or binary_view itself; up to 12 bytes of text are inside


def row_nbytes(batch: pa.RecordBatch) -> Any:
    """The bytes of each row as held: an int if all rows are of one width, else an int64 array with one for each row.

    A row's size follows from the row alone, however rows were cut into batches; validity bits count as nothing, and a
    dictionary (the categories of a column) as nothing.
    """
    fixed = 0
    varying = np.zeros(batch.num_rows, np.int64)
    any_varies = False
    for array in batch.columns:
        width, lengths = _widths(array)
        fixed += width
        if lengths is not None:
            varying += lengths
            any_varies = True
    return varying + fixed if any_varies else fixed


def lone_nbytes(batch: pa.RecordBatch) -> Any:
    """The bytes of each row as it would travel by itself, as `row_nbytes` gives them: with the values of its own tags,
    and with the whole dictionary of any other dictionary column.

    >>> tags = pa.array(["a", None, "abc"], TAG_TYPE)
    >>> (lone_nbytes(pa.record_batch({"TAG__lap": tags})) - row_nbytes(pa.record_batch({"TAG__lap": tags}))).tolist()
    [9, 8, 11]
    """
    sizes = row_nbytes(batch)
    for field, array in zip(batch.schema, batch.columns, strict=True):
        if not isinstance(array, pa.DictionaryArray):
            continue
        if _is_tag(field):
            lengths = np.append(pc.binary_length(array.dictionary).to_numpy(), 0)
            sizes = sizes + WIDEST + lengths[array.indices.fill_null(len(lengths) - 1).to_numpy()]
        else:
            sizes = sizes + array.dictionary.nbytes
    return sizes


def row_width(schema: Any) -> int | None:
    """The bytes of each row where a ``pa.Schema`` gives all rows the same, as `row_nbytes` counts them; else None."""
    size = row_nbytes(pa.RecordBatch.from_pylist([], schema=schema))
    return size if isinstance(size, int) else None


def _widths(array: Any) -> tuple[int, Any]:
    """Bytes that each row has, and those that it has beyond, as an array or None."""
    arrow = array.type
    if pa.types.is_dictionary(arrow):
        return arrow.index_type.bit_width // 8, None
    if pa.types.is_null(arrow):
        return 0, None
    if pa.types.is_boolean(arrow):
        return 1, None
    if pa.types.is_string_view(arrow) or pa.types.is_binary_view(arrow):
        lengths = np.zeros(len(array), np.int64)
        if len(array):
            views = np.frombuffer(array.buffers()[1], np.int32, 4 * len(array), array.offset * VIEW)
            lengths = np.where(views[::4] > 12, views[::4], 0).astype(np.int64)
        return VIEW, lengths
    if arrow in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary()):
        width = 8 if arrow in (pa.large_string(), pa.large_binary()) else 4
        if not len(array):
            return width, np.zeros(0, np.int64)
        offsets = np.frombuffer(array.buffers()[1], f"i{width}", len(array) + 1, array.offset * width)
        return width, np.diff(offsets).astype(np.int64)
    return arrow.bit_width // 8, None
