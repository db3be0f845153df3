"""Other people's messages, many at once, through a codec. Pure: no I/O.

What this module holds to, whatever the codec does:

- A record is read, or is reported with its reason; the records around it are read.
- Records of a stream are read together as far as they go together: where one has columns of other kinds than those
  before it, a new run begins with it.
- A frame is encoded whole before anything of it is sent, and no message is over the topic's limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from quixframes.codecs import Codec, Encoded, RecordError, faults_of_records
from quixframes.errors import FrameError, MessageTooLargeError, SettingsError
from quixframes.frames import FrameEncoder
from quixframes.kafka import Record
from quixframes.record_columns import ColumnAdder, RecordColumns

__all__ = ["CodecReader", "RowsOf", "encode_within"]

# What a message takes beside its value, key and headers: Kafka's batch has 61 bytes of its own, a message some lengths.
_OVERHEAD = 128
_PER_HEADER = 10

# --- reading ----------------------------------------------------------------------------------------------------------


class RowsOf(NamedTuple):
    """What one record gave: rows of a stream, in normal form, possibly none. A slice of what was read together."""

    stream_id: str
    batch: pa.RecordBatch


class CodecReader:
    """Reads records through a codec. One for each reader, for one thread at a time."""

    def __init__(self, codec: Codec, columns: RecordColumns | None = None) -> None:
        self._codec = codec
        self._encoder = FrameEncoder()
        self._columns = None if columns is None else ColumnAdder(columns)

    def read(self, records: Sequence[Record]) -> list[RowsOf | RecordError]:
        """What each of the records gave, in their order. They may be of several streams, of one partition.

        The more are given, the faster; what one of them gave keeps in memory what was read with it.

        Raises:
            SettingsError: the codec cannot read, or a parameter has the name of a column that ``columns`` adds.
        """
        found: list[RowsOf | RecordError | None] = [None] * len(records)
        streams: dict[str, list[int]] = {}
        for at, record in enumerate(records):
            try:
                streams.setdefault(self._codec.stream_of(record), []).append(at)
            except Exception as error:
                found[at] = _record_error(error)
        for stream_id, places in streams.items():
            for at, one in zip(places, self._read([records[at] for at in places]), strict=True):
                found[at] = one if isinstance(one, RecordError) else RowsOf(stream_id, one)
        return [one for one in found if one is not None]

    def _read(self, records: Sequence[Record]) -> Iterator[pa.RecordBatch | RecordError]:
        at, size = 0, len(records)
        while at < len(records):
            run = records[at : at + size]
            try:
                batch, rows = self._together(run)
            except SettingsError:
                raise
            except Exception as error:
                position = error.position if isinstance(error, RecordError) else None
                if position == 0 or len(run) == 1:
                    yield _record_error(error)
                    at, size = at + 1, 1  # or as many bad ones would each be paid for with a whole run
                elif position is not None and 0 < position < len(run):
                    size = position
                else:
                    size = len(run) // 2
                continue
            start = 0
            for count in rows:
                yield batch.slice(start, count)
                start += count
            at += len(run)
            size *= 2

    def _together(self, run: Sequence[Record]) -> tuple[pa.RecordBatch, Sequence[int]]:
        frame, rows = self._codec.decode(run)
        if len(rows) != len(run) or sum(rows) != len(frame) or min(rows) < 0:
            raise ValueError(f"the codec gave {len(frame)} rows, and counts {list(rows)[:10]} for {len(run)} records")
        with faults_of_records(rows):
            batch = self._encoder.encode(frame)
        return (batch if self._columns is None else self._columns.add(batch, run, rows)), rows


def _record_error(error: Exception) -> RecordError:
    """The same for the one record that is left: its position is 0, and what was raised is the cause."""
    if isinstance(error, RecordError) and error.position == 0:
        return error
    found = RecordError(0, str(error) or type(error).__name__)
    found.__cause__ = error
    return found


# --- writing ----------------------------------------------------------------------------------------------------------


def encode_within(codec: Codec, stream_id: str, frame: pd.DataFrame, limit: int) -> list[Encoded]:
    """The messages for a frame, cut by rows so that each stays under ``limit`` bytes. A frame without rows gives none.

    Raises:
        FrameError: the codec cannot write it.
        MessageTooLargeError: a row does not fit by itself; the error has its position.
    """
    return _encode_within(codec, stream_id, frame, limit, 0)


def _encode_within(codec: Codec, stream_id: str, frame: pd.DataFrame, limit: int, row: int) -> list[Encoded]:
    if not len(frame):
        return []
    messages: list[Encoded] = []
    start = 0
    for message in codec.encode(stream_id, frame):
        if _size(message) <= limit:
            messages.append(message)
        elif message.rows > 1:
            half, stop = start + message.rows // 2, start + message.rows
            messages += _encode_within(codec, stream_id, frame.iloc[start:half], limit, row + start)
            messages += _encode_within(codec, stream_id, frame.iloc[half:stop], limit, row + half)
        else:
            raise MessageTooLargeError(
                f"row {row + start} alone takes {_size(message):,} bytes, and the topic's message limit is {limit:,}: "
                "raise the topic's max.message.bytes, or store what is that large elsewhere and write where it is",
                row=row + start,
            )
        start += message.rows
    if start != len(frame):
        raise FrameError(f"{type(codec).__name__} wrote {start} rows of {len(frame)}: it has to write each row once")
    return messages


def _size(message: Encoded) -> int:
    headers = sum(len(name.encode()) + len(value) + _PER_HEADER for name, value in message.headers)
    return len(message.key) + len(message.value) + headers + _OVERHEAD
