"""What Kafka says of a record (key, broker time, headers), as columns of the rows that it gave. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.codecs import RecordError
from quixframes.columns import OBJECT
from quixframes.dtypes import rule_of
from quixframes.errors import SettingsError
from quixframes.kafka import Record
from quixframes.rules import OBJECTS, TAG, text_dtype

__all__ = ["ColumnAdder", "RecordColumns"]


@dataclass(frozen=True)
class RecordColumns:
    """What of each record to add to its rows as columns.

    Args:
        key: the name of the column with the key. None: no such column.
        timestamp: the name of the column with the broker time: when the record was written or appended, to the
            millisecond. None: no such column.
        headers: the columns' names by those of the headers. Of several headers of one name, the last.
        text: whether keys and headers are UTF-8 text, as they nearly always are; else the columns hold bytes.

    What a record lacks is missing.
    """

    key: str | None = "kafka_key"
    timestamp: str | None = "kafka_time"
    headers: Mapping[str, str] = field(default_factory=dict)
    text: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.headers, str) or not isinstance(self.headers, Mapping):
            raise SettingsError(f"headers={self.headers!r} has to be a dict, as in headers={{'source': 'source'}}")
        names = self.names
        for name in names:
            if not isinstance(name, str) or not name or name.lower() in ("time", "timestamp", "datetime"):
                raise SettingsError(f"{name!r} cannot be the name of a column beside the rows' time")
            if name.startswith(TAG):
                raise SettingsError(f"{name!r} is the name of a tag, which is the rows' own: choose another")
        if len(set(names)) != len(names):
            raise SettingsError(f"two of the columns {', '.join(names)} have one name")

    @property
    def names(self) -> list[str]:
        """The columns that are added, in their order."""
        return [*(name for name in (self.key, self.timestamp) if name is not None), *self.headers.values()]


class ColumnAdder:
    """Adds the columns to batches in normal form, foreign ones and quixframes' own alike. For one thread at a time.

    The columns stand after the parameters. Their dtypes follow from the settings alone: pandas' own dtype for strings,
    or bytes, and datetime64[ms, UTC].
    """

    def __init__(self, columns: RecordColumns) -> None:
        self._columns = columns
        text = text_dtype()
        self._text = OBJECTS["bytes"] if not columns.text else OBJECTS["str"] if text == OBJECT else rule_of(text, "")
        self._time = rule_of(pd.DatetimeTZDtype("ms", "UTC"), "")
        self._fields = [(self._time if name == columns.timestamp else self._text).field(name) for name in columns.names]
        self._schemas: tuple[pa.Schema, pa.Schema] | None = None  # of the last batch: as it came, and with the columns

    def add(self, batch: pa.RecordBatch, records: Sequence[Record], rows: Sequence[int]) -> pa.RecordBatch:
        """The rows of these records, ``rows`` says how many each gave, with the columns.

        Raises:
            SettingsError: a parameter has the name of such a column.
            RecordError: a key or header is not UTF-8, where text is asked for.
        """
        columns = self._columns
        arrays = []
        repeat = None if len(records) == 1 else np.repeat(np.arange(len(records)), rows)
        if columns.key is not None:
            arrays.append(self._texts([record.key for record in records], repeat, batch.num_rows, "key"))
        if columns.timestamp is not None:
            arrays.append(self._times([record.timestamp for record in records], repeat, batch.num_rows))
        if columns.headers:
            headers = [dict(record.headers) for record in records]
            for name in columns.headers:
                values = [found.get(name) for found in headers]
                arrays.append(self._texts(values, repeat, batch.num_rows, f"header {name!r}"))
        schema = self._schema(batch.schema)
        return pa.RecordBatch.from_arrays([*batch.columns, *arrays], schema=schema)

    def _texts(self, values: list[bytes | None], repeat: Any, rows: int, what: str) -> pa.Array:
        found: list[Any] = values
        if self._columns.text:
            found = [None if value is None else _text(value, at, what) for at, value in enumerate(values)]
        return _spread(found, self._text.type, repeat, rows)

    def _times(self, milliseconds: list[int], repeat: Any, rows: int) -> pa.Array:
        # Kafka has -1 for "no time".
        times = [None if time < 0 else time for time in milliseconds]
        return _spread(times, self._time.type, repeat, rows)

    def _schema(self, schema: pa.Schema) -> pa.Schema:
        if self._schemas is not None and self._schemas[0].equals(schema, check_metadata=True):
            return self._schemas[1]
        for name in self._columns.names:
            if name in schema.names:
                raise SettingsError(
                    f"a parameter has the name {name!r}, which RecordColumns gives to a column of its own: choose "
                    "another name there, or None"
                )
        wide = pa.schema([*schema, *self._fields])
        self._schemas = schema, wide
        return wide


def _spread(values: list[Any], arrow: pa.DataType, repeat: Any, rows: int) -> pa.Array:
    """The value of each record for each of its rows: by position in ``repeat``, which is None for a single record."""
    if repeat is None:
        return pa.nulls(rows, arrow) if values[0] is None else pa.repeat(pa.scalar(values[0], arrow), rows)
    return pa.array(values, arrow).take(pa.array(repeat))


def _text(value: bytes, position: int, what: str) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        advice = "ask for bytes with RecordColumns(text=False)"
        raise RecordError(position, f"its {what} is {value[:20]!r}, which is no UTF-8 text; {advice}") from None
