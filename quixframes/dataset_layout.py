"""Where the rows of a dataset go: folders of Hive's kind, ``stream=car-44/day=2026-11-15``. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from quixframes.errors import FrameError, SettingsError
from quixframes.frames import FrameDecoder

__all__ = ["Keys", "folders", "keys_of", "merged", "table_of"]

_UNITS = {"year": "Y", "month": "M", "day": "D", "hour": "h"}
_KEYS = ("topic", "stream", *_UNITS)

Keys = tuple[str, ...]


def keys_of(partition_by: str | Collection[str]) -> Keys:
    """What a dataset is divided by.

    >>> keys_of("stream")
    ('stream',)

    Raises:
        SettingsError: it is none of topic, stream, year, month, day and hour, or one of them twice.
    """
    keys = (partition_by,) if isinstance(partition_by, str) else tuple(partition_by)
    if any(key not in _KEYS for key in keys) or len(set(keys)) < len(keys):
        raise SettingsError(f"partition_by={partition_by!r} has to be some of {', '.join(_KEYS)}, each once")
    return keys


def folders(batch: pa.RecordBatch, topic: str, stream: str, keys: Keys) -> Iterator[tuple[str, pa.RecordBatch]]:
    """A stream's rows by the folder that they go into, in their order.

    >>> hours = np.array(["2026-11-15T23", "2026-11-16T00"], "datetime64[h]").astype("datetime64[ns]")
    >>> batch = pa.record_batch({"time": pa.array(hours).cast(pa.timestamp("ns", "UTC"))})
    >>> [folder for folder, _ in folders(batch, "engine", "car/44", ("stream", "day"))]
    ['stream=car%2F44/day=2026-11-15', 'stream=car%2F44/day=2026-11-16']
    """
    known = {"topic": topic, "stream": stream}
    units = [key for key in keys if key in _UNITS]
    if not units:
        yield _folder(keys, known), batch
        return
    finest = max(units, key=list(_UNITS).index)
    times = batch.column(0).cast(pa.int64()).to_numpy().view("datetime64[ns]").astype(f"datetime64[{_UNITS[finest]}]")
    for value, part in _divided(batch, times):
        said = {unit: str(value.astype(f"datetime64[{_UNITS[unit]}]")) for unit in units}
        yield _folder(keys, known | said), part


def _divided(batch: pa.RecordBatch, values: np.ndarray[Any, Any]) -> Iterator[tuple[Any, pa.RecordBatch]]:
    """The rows of each value, as slices where they stand together."""
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    if not len(edges):
        yield values[0], batch
        return
    found = np.unique(values)
    if len(edges) + 1 == len(found):
        starts = [0, *edges.tolist(), len(values)]
        for start, end in pairwise(starts):
            yield values[start], batch.slice(start, end - start)
        return
    for value in found:
        yield value, batch.take(pa.array(np.flatnonzero(values == value)))


def _folder(keys: Keys, values: dict[str, str]) -> str:
    return "/".join(f"{key}={quote(values[key], safe=' ')}" for key in keys)


def table_of(batches: Sequence[tuple[str, str, pa.RecordBatch]], labels: Sequence[str], keys: Keys) -> pa.Table:
    """Rows of (topic, stream, batch) as one table, in their order: the time, what ``labels`` names ("topic", "stream"),
    and the parameters. With what pandas needs to read it back with its dtypes.

    Raises:
        FrameError: types differ from message to message, or a parameter has the name of a label or a key.
    """
    tables: list[pa.Table] = []
    for run in _runs(batches):
        rows = [batch for *_, batch in run]
        if taken := {*labels, *keys}.intersection(rows[0].schema.names):
            name = min(taken)
            raise FrameError(f"the rows have a column {name!r}, as the dataset would: leave it out", column=name)
        table = pa.Table.from_batches(rows).cast(_plain(rows[0].schema))
        counts = [batch.num_rows for batch in rows]
        for place, label in enumerate(labels):
            texts = [one[("topic", "stream").index(label)] for one in run]
            names, codes = np.unique(np.array(texts, dtype=object), return_inverse=True)
            spread = np.repeat(codes, counts).astype(np.int32)
            table = table.add_column(1 + place, label, pa.DictionaryArray.from_arrays(spread, pa.array(names)))
        tables.append(table)
    schema = merged([table.schema for table in tables])
    return pa.concat_tables(tables, promote_options="default").select(schema.names).cast(schema)


def merged(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The schema that has all their columns.

    Raises:
        FrameError: a column is of different types in them.
    """
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            known = fields.setdefault(field.name, field)
            if known.type != field.type:
                raise FrameError(
                    f"column {field.name!r} is {known.type} in some messages and {field.type} in others: leave it out "
                    "with columns=, or write the parts of the range apart",
                    column=field.name,
                )
    widest = max(schemas, key=len)
    return pa.schema(list(fields.values()), metadata=widest.metadata)


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema as other tools know it: what quixframes says of dtypes is said as pandas does."""
    frame = FrameDecoder().decode(_no_rows(schema))
    fields = [field.remove_metadata().with_nullable(True) for field in schema]
    return pa.schema(fields, metadata=pa.Schema.from_pandas(frame).metadata)


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _runs(batches: Sequence[tuple[str, str, pa.RecordBatch]]) -> Iterator[list[tuple[str, str, pa.RecordBatch]]]:
    """What stands together and has one schema."""
    for _, run in groupby(batches, lambda one: one[2].schema):
        yield list(run)
