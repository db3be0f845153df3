"""Reading what a topic retains, from the beginning to where it ended when the replay began. Touches no group.

What this module holds to:

- The range is fixed when a read starts: offsets of the first retained and of the last stable message of each partition.
- A stream that is not asked for is not decoded, and a column that is not asked for is never converted.
- Rows of a stream come in the order in which they were written, with the dtypes they were written with.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm.auto import tqdm

from quixframes import frames
from quixframes.assemble import Assembler
from quixframes.assignment import Assignment
from quixframes.batch import RowBatch
from quixframes.codecs import Codec
from quixframes.contract_check import ContractCheck
from quixframes.errors import (
    BrokerUnavailableError,
    ContractBreachError,
    FrameError,
    OffsetGoneError,
    SettingsError,
)
from quixframes.event_frames import decode_events
from quixframes.frames import FrameDecoder
from quixframes.input import buffer_settings
from quixframes.kafka import Admin, Consumer, Partition, Record
from quixframes.message_reader import MessageReader
from quixframes.record_columns import RecordColumns
from quixframes.settings import BufferSettings
from quixframes.wire import Kind, Message

__all__ = ["Replay"]


log = logging.getLogger(__name__)


class _Bar(tqdm):  # type: ignore[misc]
    """A progress bar that starts no watching thread, which would outlive it."""

    monitor_interval = 0


_POLL = 0.5
_PATIENCE = 30.0


class Replay:
    """A bounded read of a topic, as :meth:`StreamingClient.replay` makes it. Nothing is read before it is asked for.

    >>> week = client.replay("engine", streams=["car-44"], columns=["speed"])                   # doctest: +SKIP
    >>> week.to_frame()                                                                         # doctest: +SKIP
    """

    def __init__(
        self,
        topic: str,
        admin: Admin,
        consumer: Callable[[], Consumer],
        *,
        streams: Collection[str] | None,
        columns: Collection[str] | None,
        codec: Codec | None,
        record_columns: RecordColumns | None,
        contract: ContractCheck | None,
        progress: bool,
    ) -> None:
        if isinstance(streams, str) or isinstance(columns, str):
            raise SettingsError("streams= and columns= take a list, as in streams=['car-44']")
        self.topic = topic
        self.streams = None if streams is None else tuple(streams)
        self.columns = None if columns is None else tuple(columns)
        self._admin = admin
        self._consumer = consumer
        self._codec = codec
        self._record_columns = record_columns
        self._contract = contract
        self._progress = progress
        # A codec may have the stream in the value, so that it has to be read first.
        by_key = streams is not None and codec is None
        self._keys = {stream.encode() for stream in streams or ()} if by_key else None

    def batches(self, buffer: BufferSettings | None = None, **rules: Any) -> Generator[RowBatch, None, None]:
        """Row batches, in order for each stream; ended by where the topic ends now.

        Args:
            buffer: when rows are released, as in :meth:`InputTopic.batches`; its timeout has no meaning here.

        Raises:
            WireError: a message that cannot be read.
            BrokerUnavailableError: the cluster was out of reach for 30 s.
            OffsetGoneError: retention removed a part of the range while it was being read.
            FrameError: a column that was asked for is in none of the messages; at the end.
        """
        return self._batches(replace(buffer_settings(buffer, rules), timeout=None))

    def _batches(self, settings: BufferSettings) -> Generator[RowBatch, None, None]:
        assembler = Assembler(settings)

        def ready() -> Iterator[RowBatch]:
            while assembler.ready:
                batch = assembler.ready.popleft()
                batch.stream.count(batch)
                yield batch

        for assignment, offset, message in self._messages():
            entries = message.entries
            assembler.add(assignment, message, offset, [(0, entries)] if entries else [])
            yield from ready()
        assembler.release_held("end")
        yield from ready()

    def events(self, *, stream_column: str | None = "stream") -> pd.DataFrame:
        """All events in one DataFrame, with a DatetimeIndex named ``time``: ``id``, ``value`` and a column for each
        tag. Streams stand one after the other, as in :meth:`to_frame`."""
        found: dict[str, list[pa.RecordBatch]] = {}
        for _, _, message in self._messages():
            if message.kind is Kind.EVENTS and message.batch is not None:
                found.setdefault(message.stream_id, []).append(message.batch)
        names = sorted(found)
        frame = decode_events([batch for name in names for batch in found[name]])
        lengths = [sum(int(batch.num_rows) for batch in found[name]) for name in names]
        if stream_column is not None:
            if stream_column in frame.columns:
                raise FrameError(
                    f"events have a column {stream_column!r}: give stream_column= another name, or None",
                    column=stream_column,
                )
            frame.insert(0, stream_column, _labels(names, lengths, frame.index))
        return frame

    def to_frame(self, *, stream_column: str | None = "stream") -> pd.DataFrame:
        """Everything in one DataFrame, with a DatetimeIndex named ``time``.

        Streams stand one after the other, ordered by ID, each with its rows in the order in which they were written.

        Args:
            stream_column: a categorical column of this name, the first, says which stream a row is of. None: no column.

        A column that some messages lack is missing there: such a column of NumPy integers or booleans becomes pandas'
        nullable kind, and other dtypes stay. Columns whose dtypes differ from message to message raise.

        Raises:
            FrameError: as said, or a parameter has the name of the stream column, or a column that was asked for is in
                none of the messages.
        """
        decoder = FrameDecoder()
        found: dict[str, list[pa.RecordBatch]] = {}
        for _, _, message in self._messages():
            if message.kind is Kind.PARAMETERS and message.batch is not None:
                found.setdefault(message.stream_id, []).append(message.batch)
        parts: list[pd.DataFrame] = []
        names: list[str] = sorted(found)
        lengths = []
        for stream_id in names:
            pieces = [decoder.decode(frames.concat(run)) for run in _runs(found.pop(stream_id))]
            lengths.append(sum(len(piece) for piece in pieces))
            parts.extend(pieces)
        frame = _united(parts)
        if stream_column is not None:
            if stream_column in frame.columns:
                raise FrameError(
                    f"a parameter has the name {stream_column!r}: give stream_column= another name, or None",
                    column=stream_column,
                )
            frame.insert(0, stream_column, _labels(names, lengths, frame.index))
        return frame

    def _messages(self) -> Iterator[tuple[Assignment, int, Message]]:
        """The messages that are asked for, as (partition, offset, message)."""
        begin, end = self._admin.beginnings(self.topic), self._admin.ends(self.topic)
        at = {
            Partition(self.topic, n): Assignment(Partition(self.topic, n), None, begin[n])
            for n in begin
            if begin[n] < end[n]
        }
        if not at:
            return
        contracts = None if self._contract is None else {self.topic: self._contract}
        messages = MessageReader(self._codec, self._record_columns, contracts)
        found: set[str] = set()
        consumer = self._consumer()
        total = sum(end[partition.number] - assignment.position for partition, assignment in at.items())
        bar = _Bar(total=total, unit=" messages", desc=f"replay {self.topic}", disable=not self._progress, leave=False)
        try:
            consumer.assign({partition: assignment.position for partition, assignment in at.items()})
            waited = 0.0
            while at:
                polled = consumer.poll(_POLL)
                if polled.gone:
                    partition, offset = next(iter(polled.gone.items()))
                    raise OffsetGoneError(f"{partition}@{offset}: retention removed this while the replay was reading")
                wanted = [record for record in polled.records if self._is_wanted(record, at, end)]
                messages.read_ahead(wanted)
                for record in wanted:
                    message = self._read(messages, record)
                    if message is None:
                        continue
                    if self.streams is None or message.stream_id in self.streams:
                        assignment = at[Partition(record.topic, record.partition)]
                        if message.kind is Kind.PARAMETERS and message.batch is not None:
                            found.update(message.batch.schema.names)
                        yield assignment, record.offset, message
                waited = 0.0 if polled.records else waited + _POLL
                for partition, assignment in list(at.items()):
                    position = min(consumer.position(partition) or 0, end[partition.number])
                    if position > assignment.position:
                        bar.update(position - assignment.position)
                        assignment.position, waited = position, 0.0
                    if position >= end[partition.number]:
                        consumer.pause([partition])
                        del at[partition]
                if waited > _PATIENCE:
                    raise BrokerUnavailableError(
                        f"nothing of topic {self.topic!r} arrived for {_PATIENCE:g} s: "
                        f"{consumer.trouble() or 'no reason known'}"
                    )
            absent = [column for column in self.columns or () if column not in found]
            if found and absent:
                raise FrameError(
                    f"no message of topic {self.topic!r} has a column {absent[0]!r}",
                    column=absent[0],
                )
        finally:
            bar.close()
            consumer.close(5.0)

    def _is_wanted(self, record: Record, at: Mapping[Partition, Assignment], end: Mapping[int, int]) -> bool:
        if Partition(record.topic, record.partition) not in at or record.offset >= end[record.partition]:
            return False
        return self._keys is None or record.key in self._keys

    def _read(self, messages: MessageReader, record: Record) -> Message | None:
        """The message; None for one that a contract sends to a dead-letter topic, since it is none of the topic's."""
        try:
            message = messages.read(record)
        except ContractBreachError as exc:
            if self._contract is None or not self._contract.sends_dead_letters:
                raise
            log.warning("left out of the replay: %s", exc)
            return None
        batch = message.batch
        if self.columns is None or batch is None or message.kind is not Kind.PARAMETERS:
            return message
        have = [column for column in self.columns if column in batch.schema.names and column != frames.TIME]
        return message._replace(batch=frames.compacted(batch.select([frames.TIME, *have])))

    def __iter__(self) -> Iterator[RowBatch]:
        return self.batches()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __repr__(self) -> str:
        streams = "all streams" if self.streams is None else f"streams {', '.join(self.streams)}"
        columns = "all columns" if self.columns is None else f"columns {', '.join(self.columns)}"
        return f"<Replay of topic {self.topic!r}: {streams}, {columns}; to_frame() or batches() reads>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>"


def _labels(names: list[str], lengths: list[int], index: pd.Index[Any]) -> pd.Series[Any]:
    """The stream of each row, as a categorical."""
    codes = np.repeat(np.arange(len(names)), lengths)
    return pd.Series(pd.Categorical.from_codes(codes, pd.Index(names, dtype=object)), index=index)


def _runs(batches: list[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Consecutive batches of one schema together."""
    run: list[pa.RecordBatch] = []
    for batch in batches:
        if run and not run[0].schema.equals(batch.schema, check_metadata=True):
            yield run
            run = []
        run.append(batch)
    if run:
        yield run


def _united(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Frames one below the other, with the dtypes that :meth:`Replay.to_frame` promises."""
    if not parts:
        return pd.DataFrame(index=pd.DatetimeIndex([], dtype="datetime64[ns, UTC]", name=frames.TIME))
    if len(parts) == 1:
        return parts[0]
    dtypes: dict[str, Any] = {}
    for part in parts:
        for column, dtype in part.dtypes.items():
            known = dtypes.setdefault(str(column), dtype)
            if known != dtype or (
                isinstance(dtype, pd.CategoricalDtype) and list(known.categories) != list(dtype.categories)
            ):
                raise FrameError(
                    f"column {column!r} is {known} in some messages and {dtype} in others: "
                    "read them with batches(), or leave the column out with columns=",
                    column=column,
                )
    lacking = {column for column in dtypes for part in parts if column not in part.columns}
    for column in lacking:
        if isinstance(dtypes[column], np.dtype) and dtypes[column].kind in "iub":
            dtypes[column] = pd.array([], dtype=dtypes[column]).astype(_nullable(dtypes[column])).dtype
    whole = [part.reindex(columns=list(dtypes)).astype({c: dtypes[c] for c in lacking}) for part in parts]
    return pd.concat(whole)


def _nullable(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "b":
        return "boolean"
    return dtype.name.replace("uint", "UInt") if dtype.kind == "u" else dtype.name.replace("int", "Int")
