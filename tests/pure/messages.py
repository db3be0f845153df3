"""Frames of every kind of column, and messages made of them, for the tests of the wire format."""

from __future__ import annotations

import datetime as dt
import decimal
import zoneinfo
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.event_frames import encode_events
from quixframes.frames import FrameEncoder
from quixframes.story import EventDefinition, EventLevel, ParameterDefinition, Story, StreamProperties
from quixframes.wire import Kind, MessageEncoder, StreamEndType

SESSION = "00112233aabbccdd"
LIMIT = 1_000_000


class Sent(NamedTuple):
    """A message as it lies in Kafka."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    topic: str = "engine"
    partition: int = 2
    offset: int = 41
    timestamp: int = 0


def plain_frame(rows: int = 10) -> pd.DataFrame:
    index = pd.DatetimeIndex(pd.to_datetime(np.arange(rows) * 10**9, unit="ns", utc=True), name="time")
    return pd.DataFrame({"speed": np.linspace(0, 1, rows), "gear": np.arange(rows, dtype="int8")}, index=index)


def rich_frame() -> pd.DataFrame:
    """Three rows of nearly every kind of column that can be carried."""
    index = pd.DatetimeIndex(["2026-01-01", "2026-01-02 03:04:05.123456789", "1969-12-31"], tz="UTC", name="time")
    columns = {
        "f16": np.array([0.5, np.nan, -np.inf], "float16"),
        "f32": np.array([0.5, np.nan, np.inf], "float32"),
        "f64": np.array([-0.0, np.nan, 1e300]),
        "i8": np.array([-128, 0, 127], "int8"),
        "u64": np.array([0, 1, 2**64 - 1], "uint64"),
        "flag": np.array([True, False, True]),
        "n_int": pd.array([1, None, 3], dtype="Int16"),
        "n_float": pd.array([1.5, None, 3.0], dtype="Float64"),
        "n_bool": pd.array([True, None, False], dtype="boolean"),
        "text": pd.array(["ä", None, ""], dtype="string[python]"),
        "arrow_text": pd.array(["x", None, "yz"], dtype="string[pyarrow]"),
        "object": np.zeros(3),
        "bytes": pd.Series([b"\x00\xff", b"", None], dtype=object).to_numpy(),
        "category": pd.Categorical.from_codes([0, -1, 2], pd.Index(["lo", "mid", "hi"], dtype=object), ordered=True),
        "day": pd.array(np.array(["2026-01-01", "NaT", "1960-05-05"], "datetime64[s]")),
        "local": pd.DatetimeIndex(["2026-07-01", None, "2026-01-01"], tz=zoneinfo.ZoneInfo("Europe/Berlin"))
        .as_unit("us")
        .array,
        "lap": pd.array(np.array([1, "NaT", -5], "timedelta64[ms]")),
        "money": pd.array(
            [decimal.Decimal("1.10"), None, decimal.Decimal("-2.00")], dtype=pd.ArrowDtype(pa.decimal128(9, 2))
        ),
        "date": pd.array([dt.date(2026, 1, 1), None, dt.date(1900, 2, 3)], dtype=pd.ArrowDtype(pa.date32())),
        "TAG__lap": pd.array(["1", "1", "2"], dtype="string[python]"),
        "TAG__driver": np.zeros(3),
        "TAG__tyre": pd.array(["soft", None, "soft"], dtype=pd.ArrowDtype(pa.string())),
    }
    frame = pd.DataFrame(columns, index=index)
    # As a Series: an array of text would become pandas 3's own dtype for it.
    frame["object"] = pd.Series(["a", None, np.nan], index, dtype=object)
    frame["TAG__driver"] = pd.Series([None, "Ann", "Ann"], index, dtype=object)
    return frame


def messages_of(frame: pd.DataFrame, *, stream: str = "car-44", sequence: int = 7, limit: int = LIMIT) -> list[Sent]:
    batch = FrameEncoder().encode(frame)
    made = MessageEncoder().encode(batch, stream_id=stream, session=SESSION, sequence=sequence, limit=limit)
    return [Sent(stream.encode(), value, headers) for value, headers, _ in made]


def message_of(frame: pd.DataFrame) -> Sent:
    (message,) = messages_of(frame)
    return message


STORY = (
    Story(StreamProperties("Car 44", metadata={"tyres": "soft"}))
    .with_parameter(ParameterDefinition("speed", unit="km/h", range=(0, 400)))
    .with_event(EventDefinition("pit-stop", level=EventLevel.Warning))
)
EVENTS = [
    {"time": 5, "id": "pit-stop", "value": "tyres", "tags": {"lap": "12"}},
    {"time": 3, "id": "flag", "value": None},
]


def told(end: StreamEndType | None) -> Sent:
    value, headers = MessageEncoder().tell(session=SESSION, sequence=8, story=STORY, end=end)
    return Sent(b"car-44", value, headers)


def events_message() -> Sent:
    ((value, headers, _),) = MessageEncoder().encode(
        encode_events(EVENTS),
        stream_id="car-44", session=SESSION, sequence=9, limit=LIMIT, kind=Kind.EVENTS, story=STORY,
    )  # fmt: skip
    return Sent(b"car-44", value, headers)
