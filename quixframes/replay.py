"""Reading what a topic retains, from the beginning to where it ended when the replay began. Touches no group.

What this module holds to:

- The range is fixed when a read starts: offsets of the first retained and of the last stable message of each partition.
- A stream that is not asked for is not decoded, and a column that is not asked for is never converted.
- Rows of a stream come in the order in which they were written, with the dtypes they were written with.
"""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Callable, Collection, Generator, Iterator
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
from quixframes.bounded import read_range
from quixframes.codecs import Codec
from quixframes.contract_check import ContractCheck
from quixframes.ends import ends_now
from quixframes.errors import ContractBreachError, FrameError, SettingsError
from quixframes.event_frames import decode_events
from quixframes.frames import FrameDecoder
from quixframes.input import buffer_settings
from quixframes.kafka import Admin, Consumer, Partition, Record
from quixframes.logs import Place, Seldom
from quixframes.message_reader import MessageReader
from quixframes.record_columns import RecordColumns
from quixframes.settings import BufferSettings
from quixframes.wire import Kind, Message

__all__ = ["Replay"]


log = logging.getLogger(__name__)


class _Bar(tqdm):  # type: ignore[misc]
    """A progress bar that starts no watching thread, which would outlive it."""

    monitor_interval = 0


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
        self._left_out = Seldom(log, "{:,} messages were left out of the replay")
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
        found = self._collected(Kind.EVENTS)
        frame = decode_events([batch for batches in found.values() for batch in batches])
        rows = {stream_id: _rows(batches) for stream_id, batches in found.items()}
        return _labelled(frame, stream_column, rows, "events have a column")

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
        found = self._collected(Kind.PARAMETERS)
        lengths = {}
        parts: list[pd.DataFrame] = []
        for stream_id in list(found):
            batches = found.pop(stream_id)  # so that no stream is in memory in both forms but the one at hand
            lengths[stream_id] = _rows(batches)
            parts += [decoder.decode(frames.concat(run)) for run in _runs(batches)]
        return _labelled(_united(parts), stream_column, lengths, "a parameter has the name")

    def _collected(self, kind: Kind) -> dict[str, list[pa.RecordBatch]]:
        """The batches of one kind by stream, ordered by ID."""
        found: dict[str, list[pa.RecordBatch]] = {}
        for _, _, message in self._messages():
            if message.kind is kind and message.batch is not None:
                found.setdefault(message.stream_id, []).append(message.batch)
        return dict(sorted(found.items()))

    def _messages(self) -> Iterator[tuple[Assignment, int, Message]]:
        """The messages that are asked for, as (partition, offset, message)."""
        begin, end = self._admin.beginnings(self.topic), ends_now(self._admin, self.topic)
        total = sum(end[n] - begin[n] for n in begin)
        if not total:
            return
        assignments = {n: Assignment(Partition(self.topic, n), None, begin[n]) for n in begin}
        contracts = None if self._contract is None else {self.topic: self._contract}
        messages = MessageReader(self._codec, self._record_columns, contracts)
        found: set[str] = set()
        consumer = self._consumer()
        bar = _Bar(total=total, unit=" messages", desc=f"replay {self.topic}", disable=not self._progress, leave=False)
        try:
            for step in read_range(consumer, self.topic, begin, end):
                wanted = [record for record in step.records if self._keys is None or record.key in self._keys]
                messages.read_ahead(wanted)
                for record in wanted:
                    message = self._read(messages, record)
                    if message is None:
                        continue
                    if self.streams is None or message.stream_id in self.streams:
                        if message.kind is Kind.PARAMETERS and message.batch is not None:
                            found.update(message.batch.schema.names)
                        yield assignments[record.partition], record.offset, message
                for number, position in step.positions.items():
                    bar.update(position - assignments[number].position)
                    assignments[number].position = position
            absent = [column for column in self.columns or () if column not in found]
            if found and absent:
                raise FrameError(
                    f"no message of topic {self.topic!r} has a column {absent[0]!r}",
                    column=absent[0],
                )
        finally:
            bar.close()
            self._left_out.tell_rest()
            consumer.close(5.0)

    def _read(self, messages: MessageReader, record: Record) -> Message | None:
        """The message; None for one that a contract sends to a dead-letter topic, since it is none of the topic's."""
        try:
            message = messages.read(record)
        except ContractBreachError as exc:
            if self._contract is None or not self._contract.sends_dead_letters:
                raise
            self._left_out.note(f"left out of the replay: {exc}", Place.of(exc), time.monotonic())
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


def _rows(batches: list[pa.RecordBatch]) -> int:
    return sum(int(batch.num_rows) for batch in batches)


def _labelled(frame: pd.DataFrame, column: str | None, rows: dict[str, int], clash: str) -> pd.DataFrame:
    """The frame with a first column that says, as a categorical, which stream each row is of."""
    if column is None:
        return frame
    if column in frame.columns:
        raise FrameError(f"{clash} {column!r}: give stream_column= another name, or None", column=column)
    codes = np.repeat(np.arange(len(rows)), list(rows.values()))
    labels = pd.Categorical.from_codes(codes, pd.Index(list(rows), dtype=object))
    frame.insert(0, column, pd.Series(labels, index=frame.index))
    return frame


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
