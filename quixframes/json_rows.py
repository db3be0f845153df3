"""The codec of JSON. Pure; `formats` says what it holds to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from json.encoder import encode_basestring
from typing import Any, Literal

import numpy as np
import pandas as pd

from quixframes.cells import cells, check_finite, target, times_of, typed
from quixframes.codecs import Codec, Decoded, Encoded, RecordError, faults_of_records, key_of
from quixframes.columns import refuse
from quixframes.errors import FrameError
from quixframes.formats import (
    Unit,
    broker_times,
    check_choice,
    check_dtypes,
    check_free,
    check_names,
    check_one_time,
    check_unit,
    chosen_columns,
    encoded,
    frame_of,
    text_of,
)
from quixframes.kafka import Record
from quixframes.rows import array_of, collect, texts_of
from quixframes.rules import TAG, text_dtype

__all__ = ["JsonRows"]

_Row = dict[str, Any]
_JSON = json.JSONDecoder()
_SPARSE, _SPARSE_CELLS = 50, 1_000_000  # cells of a table for each value in it, and beyond that


@dataclass(frozen=True)
class JsonRows(Codec):
    """Rows as JSON objects: one in a message, a list of them, or one a line. All three are read.

    Args:
        time: the field with the rows' time. None: their time is the broker's, of the record; it is not written.
        unit: what the time counts since 1970: "s", "ms", "us" or "ns". None (default): text in ISO 8601, where no zone
            means UTC. Writing, it is also the unit of all other datetimes.
        form: how rows are written: "object", one in each message (default), "list" or "lines", a whole frame in each.
        columns: the fields to read, in this order; a field that is missing is a missing value. None: all there are.
        dtypes: the pandas dtypes of columns, by name. These columns are always there.
        numbers: "as written" (default): 3 is an int, 3.0 a float. "float64": all are floats, save those in ``dtypes``;
            for messages of programs that know one kind of number, and write 3.0 as 3.
        lists: what becomes of a field with a list: "raise" (default), or "text": the list as JSON text.
        stream: the field with the stream ID, which is then no column. None (default): the key is the stream ID.

    An object in an object becomes columns with a point in their names: ``{"gps": {"lat": 1.5}}`` is ``gps.lat``.
    Writing, names are written as they are, a missing value and NaN as null, and the key is the stream ID.
    """

    time: str | None = "time"
    unit: Unit | None = None
    form: Literal["object", "list", "lines"] = "object"
    columns: Sequence[str] | None = None
    dtypes: Mapping[str, Any] | None = None
    numbers: Literal["as written", "float64"] = "as written"
    lists: Literal["raise", "text"] = "raise"
    stream: str | None = None

    def __post_init__(self) -> None:
        check_unit(self.unit)
        check_choice("form", self.form, ("object", "list", "lines"))
        check_choice("numbers", self.numbers, ("as written", "float64"))
        check_choice("lists", self.lists, ("raise", "text"))
        check_names("columns", self.columns)
        check_dtypes(self.dtypes, self.columns, self.time, self.stream)

    def stream_of(self, record: Record) -> str:
        if self.stream is None:
            return key_of(record)
        found = [row.get(self.stream) for row in _flat_rows(record.value, 0)]
        if not found or type(found[0]) not in (str, int) or found[0] == "" or found.count(found[0]) < len(found):
            raise RecordError(0, f"its field {self.stream!r} has to name one stream, by a text or an int")
        return str(found[0])

    def decode(self, records: Sequence[Record]) -> Decoded:
        rows: list[_Row] = []
        counts: list[int] = []
        for position, record in enumerate(records):
            found = _flat_rows(record.value, position)
            counts.append(len(found))
            rows += found
        with faults_of_records(counts):
            return Decoded(self._decode_rows(rows, records, counts), counts)

    def _decode_rows(self, rows: list[_Row], records: Sequence[Record], counts: list[int]) -> pd.DataFrame:
        columns = _collected(rows)
        if self.stream is not None:
            columns.pop(self.stream, None)
        if self.time is None:
            times = broker_times(records, counts)
        else:
            found = columns.pop(self.time, None)
            if found is None and rows:
                some = ", ".join(list(columns)[:10])
                raise refuse(self.time, "there is no such field, and it is the time", f"give time= one of {some}", 0)
            times = times_of(found or [], self.unit, self.time)
        chosen = None if self.columns is None else [n for n in self.columns if n not in (self.time, self.stream)]
        columns = chosen_columns(columns, chosen, self.dtypes, len(rows))
        check_one_time(columns, self.time)
        text = text_dtype()
        return frame_of({name: self._array(name, values, text) for name, values in columns.items()}, times)

    def _array(self, column: str, values: list[Any], text: Any) -> Any:
        kinds = set(map(type, values))
        if list in kinds:
            if self.lists == "raise":
                row = next(row for row, value in enumerate(values) if type(value) is list)
                advice = "read it as text with lists='text', or leave it out with columns="
                raise refuse(column, f"{values[row]!r:.80} is a list, and a cell holds one value", advice, row)
            values = [json.dumps(value, ensure_ascii=False) if type(value) is list else value for value in values]
        if self.dtypes is not None and column in self.dtypes:
            return typed(values, target(self.dtypes[column], column), column, self.unit)
        if column.startswith(TAG):
            return texts_of(values, column, text)
        if self.numbers == "float64" and int in kinds and kinds <= {int, float, type(None)}:
            try:
                return np.array([None if value is None else float(value) for value in values], np.float64)
            except OverflowError:
                row = next(row for row, value in enumerate(values) if type(value) is int and abs(value) >= 2**1023)
                raise refuse(
                    column, "the number is too large for a float64", "leave it out with columns=", row
                ) from None
        return array_of(values, column, text)

    def encode(self, stream_id: str, frame: pd.DataFrame) -> Iterator[Encoded]:
        key = stream_id.encode()
        rows = self._rows_as_text(stream_id, frame)
        if self.form == "object":
            for row in rows:
                yield Encoded(key, row.encode(), [], 1)
        elif self.form == "list":
            yield Encoded(key, f"[{','.join(rows)}]".encode(), [], len(frame))
        else:
            yield Encoded(key, "\n".join(rows).encode(), [], len(frame))

    def _rows_as_text(self, stream_id: str, frame: pd.DataFrame) -> Iterator[str]:
        batch = encoded(frame)
        names = [self.time, *batch.schema.names[1:]]
        check_free(batch, self.time, "time")
        check_free(batch, self.stream, "stream ID")
        columns = []
        for name, array in zip(names, batch.columns, strict=True):
            if name is not None:
                check_finite(array, name)
                texts, quoted = cells(array, name, self.unit)
                columns.append([_json(text, quoted) for text in texts] if quoted or None in texts else texts)
        # One template for all rows: the names are written once, and what is left is to fill in texts.
        fields = [f"{encode_basestring(name)}:".replace("%", "%%") + "%s" for name in names if name is not None]
        if self.stream is not None:
            label = f"{encode_basestring(self.stream)}:{encode_basestring(stream_id)}"
            fields.insert(0, label.replace("%", "%%"))
        template = "{" + ",".join(fields) + "}"
        if not columns:
            return iter([template % ()] * len(frame))
        return map(template.__mod__, zip(*columns, strict=True))


def _json(text: str | None, quoted: bool) -> str:
    return "null" if text is None else encode_basestring(text) if quoted else text


def _flat_rows(value: bytes | None, position: int) -> list[_Row]:
    """The objects of a message, with the objects in them flattened."""
    try:
        return [_flat(row) if dict in set(map(type, row.values())) else row for row in _objects(value)]
    except RecursionError as error:
        raise RecordError(position, "it is nested too deeply") from error
    except ValueError as error:
        raise RecordError(position, str(error)) from error


def _collected(rows: list[_Row]) -> dict[str, list[Any]]:
    """The values of each column. Raises FrameError where that would take far more memory than the rows do."""
    if not rows:
        return {}
    if any(row.keys() != rows[0].keys() for row in rows):
        names, values = len(set(chain.from_iterable(rows))), sum(map(len, rows))
        if names * len(rows) > _SPARSE * values + _SPARSE_CELLS:
            raise FrameError(
                f"the {len(rows):,} rows have {names:,} fields between them, and each has {values / len(rows):.1f} on "
                "average: this is no table; if the names are values, write them as a column"
            )
    return collect(rows)


def _objects(value: bytes | None) -> list[_Row]:
    if value is None:
        raise ValueError("it has no value")
    try:
        found = _parsed(value)
    except ValueError as error:
        lines = value.splitlines()
        if len(lines) < 2:
            raise ValueError(f"it is not JSON: {error}") from error
        found = _lines(lines, error)
    if type(found) is dict:
        return [found]
    if type(found) is not list:
        raise ValueError(f"it is {value[:40]!r}, neither an object nor a list of objects")
    strange = next((at for at, row in enumerate(found) if type(row) is not dict), None)
    if strange is not None:
        raise ValueError(f"row {strange} is {found[strange]!r:.40}, not an object")
    return found


def _parsed(value: bytes) -> Any:
    return _JSON.decode(text_of(value))


def _lines(lines: list[bytes], whole: ValueError) -> list[Any]:
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_parsed(line))
            except ValueError as error:
                if not found:
                    raise ValueError(f"it is not JSON: {whole}") from error
                raise ValueError(f"its line {number} is not JSON: {error}") from error
    return found


def _flat(row: _Row) -> _Row:
    flat: _Row = {}

    def add(inner: _Row, prefix: str) -> None:
        for name, value in inner.items():
            if type(value) is dict:
                add(value, f"{prefix}{name}.")
            elif prefix + name in flat:
                raise ValueError(f"two of its fields are named {prefix + name!r} once objects in objects are flattened")
            else:
                flat[prefix + name] = value

    add(row, "")
    return flat
