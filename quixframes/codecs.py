"""What a codec is: how other people's messages become DataFrames, and DataFrames such messages. Pure: no I/O.

Codecs that are ready are in ``json_rows``, ``csv_lines`` and ``formats``; what drives a codec is in ``foreign``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from quixframes.errors import FrameError, QuixframesError, SettingsError
from quixframes.kafka import Header, Record

__all__ = ["Codec", "Decoded", "Encoded", "RecordError", "faults_of_records", "key_of"]


class RecordError(QuixframesError, ValueError):
    """A record that a codec cannot read: its position among those that the codec was given, and the reason.

    Raised by a codec's ``decode``, for the first such record. Those before it are then decoded without it, and it is
    tried again as the first of those that follow, unless it was the first already: so a codec may raise it also for a
    record that is good, but does not go together with those before it.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason


class Decoded(NamedTuple):
    """What a codec read: rows in the order of the records, and how many of them each record gave (0 is allowed).

    The frame has a DatetimeIndex, or one column named time, timestamp or datetime, as in every write.
    """

    frame: pd.DataFrame
    rows: Sequence[int]


class Encoded(NamedTuple):
    """A message that a codec wrote: ``rows`` is how many rows of the frame it holds, the next ones in their order."""

    key: bytes
    value: bytes
    headers: list[Header]
    rows: int


class Codec(Protocol):
    """How somebody else's messages become DataFrames, and DataFrames such messages. Subclass it; it keeps no state.

    Override ``decode`` to read, ``encode`` to write, ``stream_of`` where the key is not the stream ID.
    """

    def stream_of(self, record: Record) -> str:
        """The stream that a record belongs to: its key as UTF-8 text; the topic's name if it has no key.

        Raises:
            RecordError: it names none. The position is 0.
        """
        return key_of(record)

    def decode(self, records: Sequence[Record]) -> Decoded:
        """Read records of one stream, in their order, at least one.

        Raises:
            RecordError: for the first that cannot be read, or not together with those before it. Whatever else is
                raised counts as one, once it has been found out for which record.
        """
        raise SettingsError(f"{type(self).__name__} cannot read: it has no decode method")

    def encode(self, stream_id: str, frame: pd.DataFrame) -> Iterable[Encoded]:
        """Write a frame, which has at least one row and a DatetimeIndex named ``time`` (UTC, ns), as messages.

        Raises:
            FrameError: it cannot be written exactly.
        """
        raise SettingsError(f"{type(self).__name__} cannot write: it has no encode method")


def key_of(record: Record) -> str:
    """The key as text, the topic's name where there is none. Raises `RecordError` for a key that is no UTF-8."""
    if not record.key:
        return record.topic
    try:
        return str(record.key, "utf-8")
    except UnicodeDecodeError:
        raise RecordError(0, f"its key {record.key[:20]!r} is no UTF-8 text to name its stream") from None


@contextlib.contextmanager
def faults_of_records(rows: Sequence[int]) -> Iterator[None]:
    """A `FrameError` about a row becomes a `RecordError` about the record that gave it, by how many rows each gave."""
    try:
        yield
    except FrameError as error:
        if error.row is None:
            raise
        position = int(np.searchsorted(np.cumsum(rows), error.row, side="right"))
        raise RecordError(position, str(error)) from error
