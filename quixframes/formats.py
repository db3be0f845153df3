"""What the codecs that are ready have in common, and the simplest of them. Pure.

What `JsonRows`, `CsvLines` and `BytesAsIs` hold to:

- Without ``dtypes`` a column's dtype follows from the values that are read together; with it, from the setting alone.
- What is read is what the message says, or the record is refused with its reason. Integers are exact, of any size that
  64 bits hold; a number with a fraction or an exponent is the float64 next to it.
- Whatever the bytes of a message are, reading them gives rows or a `RecordError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.cells import UNITS, target
from quixframes.codecs import Codec, Decoded, Encoded, RecordError
from quixframes.columns import OBJECT, refuse
from quixframes.errors import FrameError, SettingsError
from quixframes.frames import TIME, TIME_NAMES, FrameEncoder
from quixframes.kafka import Record
from quixframes.rules import TAG

__all__ = [
    "BytesAsIs",
    "Unit",
    "broker_times",
    "check_choice",
    "check_dtypes",
    "check_free",
    "check_names",
    "check_one_time",
    "check_unit",
    "chosen_columns",
    "encoded",
    "frame_of",
    "text_of",
]

Unit = Literal["s", "ms", "us", "ns"]
_UTC_NS = pd.DatetimeTZDtype("ns", "UTC")
_BOM = b"\xef\xbb\xbf"
_LATEST_MS = (2**63 - 1) // 10**6


@dataclass(frozen=True)
class BytesAsIs(Codec):
    """Each message is one row: its value, as bytes, in one column; its time is the broker's.

    Writing, the frame has this one column, and each row becomes a message; the time is not written, since the broker
    gives its own. A message without a value is read as a missing one, and cannot be written.
    """

    column: str = "value"

    def __post_init__(self) -> None:
        name = self.column
        if not isinstance(name, str) or not name or name.lower() in TIME_NAMES or name.startswith(TAG):
            raise SettingsError(f"column={name!r} has to be a name, and neither that of a time nor of a tag")

    def decode(self, records: Sequence[Record]) -> Decoded:
        counts = [1] * len(records)
        values = np.empty(len(records), object)
        values[:] = [record.value for record in records]
        return Decoded(frame_of({self.column: values}, broker_times(records, counts)), counts)

    def encode(self, stream_id: str, frame: pd.DataFrame) -> Iterator[Encoded]:
        if list(frame.columns) != [self.column]:
            raise FrameError(f"the frame has to have one column, {self.column!r}, and has {list(frame.columns)[:10]}")
        key = stream_id.encode()
        for row, value in enumerate(frame[self.column].tolist()):
            if not isinstance(value, bytes):
                advice = "encode text with .str.encode('utf-8'), and drop what is missing"
                raise refuse(self.column, f"{value!r:.80} is a {type(value).__name__}, not bytes", advice, row)
            yield Encoded(key, value, [], 1)


# --- what all share ---------------------------------------------------------------------------------------------------


def text_of(value: bytes) -> str:
    return str(value, "utf-8-sig" if value[:3] == _BOM else "utf-8")


def check_unit(unit: object) -> None:
    if unit is not None and unit not in UNITS:
        raise SettingsError(f"unit={unit!r} has to be one of {', '.join(UNITS)}, or None for text in ISO 8601")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{name}={value!r} has to be one of {', '.join(map(repr, choices))}")


def check_names(name: str, value: object) -> None:
    if isinstance(value, str) or not all(isinstance(column, str) for column in value or ()):  # type: ignore[attr-defined]
        raise SettingsError(f"{name}={value!r} has to be a list of names, as in {name}=['speed', 'gear']")


def check_dtypes(dtypes: Mapping[str, Any] | None, columns: Iterable[str] | None, *others: str | None) -> None:
    """SettingsError for dtypes of what is no column, and for those that neither JSON nor CSV have."""
    if dtypes is not None and not isinstance(dtypes, Mapping):
        raise SettingsError(f"dtypes={dtypes!r} has to be a dict, as in dtypes={{'lap': 'Int64'}}")
    for column, dtype in (dtypes or {}).items():
        if column in others or (columns is not None and column not in columns):
            raise SettingsError(f"dtypes: {column!r} is none of the columns that are read")
        target(dtype, column)


def check_one_time(columns: Mapping[str, list[Any]], time: str | None) -> None:
    for name, values in columns.items():
        if name.lower() in TIME_NAMES:
            row = next((row for row, value in enumerate(values) if value is not None), 0)
            reason = f"by its name it is a time, beside {'that of the broker' if time is None else repr(time)}"
            raise refuse(name, reason, f"give time={name!r}, or name the columns to read in columns=", row)


def broker_times(records: Sequence[Record], rows: Sequence[int]) -> Any:
    """The broker time of each row as datetime64[ns]."""
    times = np.array([record.timestamp for record in records], np.int64)
    bad = np.flatnonzero((times < 0) | (times > _LATEST_MS))
    if len(bad):
        raise RecordError(
            int(bad[0]), f"its broker time is {times[bad[0]]}, which is no time in milliseconds since 1970"
        )
    return np.repeat(times * 10**6, rows).view("M8[ns]")


def frame_of(columns: dict[str, Any], times: Any) -> pd.DataFrame:
    index = pd.DatetimeIndex(times.view(np.int64), dtype=_UTC_NS, name=TIME)
    # pandas 3 would make its own strings of an object array, unless it comes as a Series.
    data = {
        name: pd.Series(values, index, OBJECT, copy=False) if values.dtype == OBJECT else values
        for name, values in columns.items()
    }
    return pd.DataFrame(data, index=index, copy=False)


def chosen_columns(
    columns: dict[str, list[Any]], chosen: Sequence[str] | None, dtypes: Mapping[str, Any] | None, rows: int
) -> dict[str, list[Any]]:
    """The columns that were named, in that order and whether there or not; if none was chosen, then the others."""
    named = {name: columns.get(name) or [None] * rows for name in (chosen or dtypes or ())}
    return named if chosen is not None else named | {n: v for n, v in columns.items() if n not in named}


def encoded(frame: pd.DataFrame) -> pa.RecordBatch:
    if not isinstance(frame.index, pd.DatetimeIndex):
        raise FrameError("the frame has no DatetimeIndex: a codec writes frames as a reader gives them")
    return FrameEncoder().encode(frame)


def check_free(batch: pa.RecordBatch, name: str | None, what: str) -> None:
    if name is not None and name in batch.schema.names[1:]:
        raise refuse(name, f"the codec writes the {what} under this name", "rename the column, or choose another there")
