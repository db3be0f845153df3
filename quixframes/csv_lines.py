"""The codec of CSV. Pure; `formats` says what it holds to."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from quixframes.cells import cells, guessed, target, times_of, typed
from quixframes.codecs import Codec, Decoded, Encoded, RecordError, faults_of_records
from quixframes.errors import FrameError, SettingsError
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
from quixframes.rules import TAG, text_dtype

__all__ = ["CsvLines"]


@dataclass(frozen=True)
class CsvLines(Codec):
    """Rows as lines of CSV in UTF-8, one or more in a message.

    Args:
        columns: the names of the fields, in the order of a line, the time's among them. With ``header``, the fields to
            read, or None for all.
        time: the field with the rows' time. None: their time is the broker's, of the record; it is not written.
        unit: as in `JsonRows`.
        form: how rows are written: "line", one in each message (default), or "lines", a whole frame in each.
        sep: what stands between two fields. Quotes are ``"``, doubled inside.
        header: whether each message begins with a line of the names. Writing, it is always the frame's columns.
        dtypes: the pandas dtypes of columns, by name.

    An empty field is a missing value. Without a dtype, a column where all fields read as int64, uint64, float64 or
    true and false is that, as ``pandas.read_csv`` has it; any other is text as it stands.
    """

    columns: Sequence[str] | None = None
    time: str | None = "time"
    unit: Unit | None = None
    form: Literal["line", "lines"] = "line"
    sep: str = ","
    header: bool = False
    dtypes: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_unit(self.unit)
        check_choice("form", self.form, ("line", "lines"))
        check_names("columns", self.columns)
        if not isinstance(self.sep, str) or len(self.sep) != 1 or self.sep in '"\r\n':
            raise SettingsError(f"sep={self.sep!r} has to be one character, as in ',' or '\\t'")
        names = self.columns
        if names is None and not self.header:
            raise SettingsError("columns= has to name the fields of a line, unless header=True says that messages do")
        if names is not None and (len(set(names)) != len(names) or not (self.header or self.time in (None, *names))):
            raise SettingsError(
                f"columns={list(names)!r} has to name each field once, the time {self.time!r} among them"
            )
        check_dtypes(self.dtypes, self.columns, self.time)

    def decode(self, records: Sequence[Record]) -> Decoded:
        names: list[str] | None = None if self.header or self.columns is None else list(self.columns)
        rows: list[list[str]] = []
        counts: list[int] = []
        for position, record in enumerate(records):
            found = self._lines_of(record.value, position)
            if self.header:
                if not found:
                    raise RecordError(position, "it is empty, and has to begin with a line of the names")
                head = found.pop(0)
                if names is not None and head != names:
                    raise RecordError(position, f"its first line names {head}, and that of an earlier message {names}")
                if len(set(head)) != len(head):
                    raise RecordError(position, f"two of its fields have one name: {head}")
                names = head
            assert names is not None
            for line in found:
                if len(line) != len(names):
                    raise RecordError(position, f"it has {len(line)} fields, not {len(names)}: {str(line)[:80]}")
            counts.append(len(found))
            rows += found
        assert names is not None
        with faults_of_records(counts):
            return Decoded(self._decode_rows(names, rows, records, counts), counts)

    def _lines_of(self, value: bytes | None, position: int) -> list[list[str]]:
        if value is None:
            raise RecordError(position, "it has no value")
        try:
            text = text_of(value)
            if '"' not in text and "\r" not in text:  # what csv.reader would give, in half the time
                return [line.split(self.sep) for line in text.split("\n") if line]
            return [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=self.sep, strict=True) if line]
        except (csv.Error, ValueError) as error:
            raise RecordError(position, f"it is not CSV: {error}") from error

    def _decode_rows(
        self, names: list[str], rows: list[list[str]], records: Sequence[Record], counts: list[int]
    ) -> pd.DataFrame:
        fields = zip(*rows, strict=True) if rows else ([] for _ in names)
        columns = {name: [text or None for text in texts] for name, texts in zip(names, fields, strict=True)}
        if self.time is None:
            times = broker_times(records, counts)
        elif self.time not in columns:
            raise RecordError(0, f"it has no field {self.time!r}, which was to be its time: it has {', '.join(names)}")
        else:
            times = times_of(columns.pop(self.time), self.unit, self.time)
        if self.header:
            chosen = None if self.columns is None else [name for name in self.columns if name != self.time]
            columns = chosen_columns(columns, chosen, self.dtypes, len(rows))
        check_one_time(columns, self.time)
        return frame_of({name: self._array(name, texts) for name, texts in columns.items()}, times)

    def _array(self, column: str, texts: list[str | None]) -> Any:
        if self.dtypes is not None and column in self.dtypes:
            return typed(texts, target(self.dtypes[column], column), column, self.unit, parse=True)
        if column.startswith(TAG):
            return typed(texts, target(text_dtype(), column), column, self.unit, parse=True)
        return guessed(texts, column)

    def encode(self, stream_id: str, frame: pd.DataFrame) -> Iterator[Encoded]:
        batch = encoded(frame)
        check_free(batch, self.time, "time")
        found = dict(zip([self.time, *batch.schema.names[1:]], batch.columns, strict=True))
        if self.time is None:
            del found[None]
        names = list(found)
        if not self.header:
            names = list(self.columns or ())
            if set(names) != found.keys():
                strange = sorted(map(str, found.keys() ^ set(names)))
                raise FrameError(
                    f"the frame and columns=, which says what a line has, differ by {', '.join(strange)}",
                    column=strange[0],
                )
        lines: list[str] = []
        writer = csv.writer(_Appender(lines), delimiter=self.sep, lineterminator="\n")
        head = ""
        if self.header:
            writer.writerow(names)
            head = lines.pop()
        writer.writerows(zip(*(cells(found[name], str(name), self.unit)[0] for name in names), strict=True))
        key = stream_id.encode()
        if self.form == "line":
            for line in lines:
                yield Encoded(key, (head + line)[:-1].encode(), [], 1)
        else:
            yield Encoded(key, (head + "".join(lines)).encode(), [], len(frame))


class _Appender:
    """What ``csv.writer`` takes for a file: it is given each line whole."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append
