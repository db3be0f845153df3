"""What a reader hands over: row batches, their streams, and what has to be remembered until they are finished."""

from __future__ import annotations

import html
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from quixframes.assignment import Assignment
from quixframes.buffer import Piece, Release
from quixframes.errors import CommitError
from quixframes.event_frames import decode_events
from quixframes.frames import FrameDecoder
from quixframes.kafka import MadeRecord
from quixframes.story import EventDefinitions, ParameterDefinitions, Story, StreamProperties
from quixframes.wire import Kind, MessageEncoder, StreamEndType

__all__ = ["Claim", "RowBatch", "StreamReader", "messages_of"]

_NO_STORY = Story()


class _Tally:
    __slots__ = ("batches", "rows")

    def __init__(self) -> None:
        self.rows = self.batches = 0


class StreamReader:
    """A stream as its reader knows it: what it said of itself up to some row, and how much of it was handed over.

    Attributes:
        topic: the topic's name.
        stream_id: the stream's ID.
        story: everything that it says of itself.
    """

    __slots__ = ("_tally", "story", "stream_id", "topic")

    def __init__(self, topic: str, stream_id: str, story: Story = _NO_STORY, tally: _Tally | None = None) -> None:
        self.topic = topic
        self.stream_id = stream_id
        self.story = story
        self._tally = tally or _Tally()

    @property
    def properties(self) -> StreamProperties:
        """Its name, location, metadata, parents and time of recording."""
        return self.story.properties

    @property
    def parameters(self) -> ParameterDefinitions:
        """The definitions of its parameters: a mapping by ID, and a DataFrame by ``.definitions``."""
        return self.story.parameters

    @property
    def events(self) -> EventDefinitions:
        """The definitions of its events: a mapping by ID, and a DataFrame by ``.definitions``."""
        return self.story.events

    @property
    def rows(self) -> int:
        """How many rows of it were handed over."""
        return self._tally.rows

    @property
    def batches(self) -> int:
        """How many batches of it were handed over."""
        return self._tally.batches

    def count(self, batch: RowBatch) -> None:
        """Count a batch that was handed over."""
        self._tally.rows += len(batch)
        self._tally.batches += 1

    def retold(self, story: Story) -> StreamReader:
        """The same stream, which says something else of itself from now on."""
        return StreamReader(self.topic, self.stream_id, story, self._tally)

    def __repr__(self) -> str:
        return (
            f"<StreamReader {self.stream_id!r} of topic {self.topic!r}: {self.rows:,} rows in {self.batches:,} batches>"
        )


class RowBatch:
    """Consecutive rows of one stream: what is handed over, processed and committed as one.

    Attributes:
        stream_id: the stream's ID.
        stream: the stream, as known at these rows.
        partition: the number of the partition that the stream lives in.
        offsets: the first and the last offset of the messages that the rows came in.
        reason: the rule that released the batch, as in :class:`quixframes.buffer.Release`.
        closed: how the stream ended, with its last batch (which may have no rows, where those before it had to go
            first); None in all others. A stream may be opened again later.
    """

    __slots__ = ("_batch", "_claim", "_commit", "_decoder", "_event_batches", "_events", "_frame", "closed", "reason",
                 "stream")  # fmt: skip

    def __init__(
        self,
        release: Release,
        stream: StreamReader,
        decoder: FrameDecoder,
        claim: Claim,
        commit: Callable[[list[Claim]], bool] | None,
        closed: StreamEndType | None = None,
    ) -> None:
        self._batch = release.batch
        self._event_batches = release.events
        self._decoder = decoder
        self._claim = claim
        self._commit = commit
        self._frame: pd.DataFrame | None = None
        self._events: pd.DataFrame | None = None
        self.stream = stream
        self.reason = release.reason
        self.closed = closed

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a DataFrame with a DatetimeIndex named ``time`` (UTC, ns), each column with the dtype that it was
        written with. Made when it is first asked for; the same object each time, and yours to change."""
        if self._frame is None:
            self._frame = self._decoder.decode(self._batch)
        return self._frame

    def forget_frame(self) -> None:
        """Have :attr:`frame` made anew when it is next asked for, without what was changed in it."""
        self._frame = None

    @property
    def events(self) -> pd.DataFrame:
        """The stream's events that were written among these rows, often none: a DataFrame with a DatetimeIndex named
        ``time`` (UTC, ns), ``id``, ``value`` and a column for each tag, all of them text."""
        if self._events is None:
            self._events = decode_events(self._event_batches)
        return self._events

    @property
    def arrow(self) -> pa.RecordBatch:
        """The rows as an Arrow record batch in normal form, without a copy."""
        return self._batch

    @property
    def stream_id(self) -> str:
        """The stream's ID."""
        return self.stream.stream_id

    @property
    def topic(self) -> str:
        """The name of the topic that the rows came from."""
        return self._claim.assignment.partition.topic

    @property
    def partition(self) -> int:
        """The number of the partition that the stream lives in."""
        return self._claim.assignment.partition.number

    @property
    def offsets(self) -> tuple[int, int]:
        """The first and the last offset of the messages that the rows came in."""
        pieces = self._claim.pieces
        return pieces[0].source, pieces[-1].source

    def commit(self) -> bool:
        """Say that these rows are processed, and wait until the group's offset is committed.

        These rows, and no others, are then finished: the offset moves as far as the rows before them are finished too,
        and remembers these beyond. What this client wrote until now is acknowledged first.

        Returns:
            True once it is committed: these rows do not come again. False where their partition has moved on to another
            instance of the group meanwhile, which will be handed them; that is logged and counted, and no error.

        Raises:
            CommitError: the topic is read without a group, or the commit was not acknowledged in time.
            DeliveryError: something written before could not be delivered; nothing was committed.
        """
        if self._commit is None:
            raise CommitError("a replay joins no group, so there is nothing to commit to")
        return self._commit([self._claim])

    @property
    def entries(self) -> int:
        """How much there is to be finished in it: its rows, its events, and its stream's end."""
        return len(self) + sum(int(events.num_rows) for events in self._event_batches) + (self.closed is not None)

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def __repr__(self) -> str:
        first, last = self.offsets
        events = sum(int(batch.num_rows) for batch in self._event_batches)
        return (
            f"<RowBatch of stream {self.stream_id!r}: {len(self):,} rows × {self._batch.num_columns - 1} columns, "
            + (f"{events:,} events, " if events else "")
            + (f"{self.closed.value}, " if self.closed is not None else "")
            + f"partition {self.partition}, offsets {first}-{last}>"
        )

    def _repr_html_(self) -> str:
        title = html.escape(repr(self)[1:-1])
        table: str = self.frame.head()._repr_html_()  # type: ignore[operator]
        return f"<p><b>{title}</b></p>{table}"


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A batch that was handed over, without its rows: what has to be remembered until it is finished."""

    assignment: Assignment
    pieces: tuple[Piece, ...]
    rows: int
    filtered: int
    """Rows of its pieces that a filter removed, and that are finished with the others."""

    @classmethod
    def of(cls, assignment: Assignment, release: Release, *, ended: bool) -> Claim:
        """What is released, with or without the end of its stream."""
        rows = int(release.batch.num_rows)
        content = rows + sum(int(events.num_rows) for events in release.events) + ended
        return cls(assignment, release.pieces, rows, sum(p.stop - p.start for p in release.pieces) - content)

    def finish(self) -> int:
        """Mark the rows as processed; how many of them were not finished before."""
        rows = self._finish()
        self.assignment.account.processed += rows
        return rows

    def finish_dead(self) -> None:
        """Mark the rows as finished by dead letters."""
        self.assignment.account.dead_lettered += self._finish()

    def _finish(self) -> int:
        rows = self.assignment.finish(self.pieces)
        filtered = min(rows, self.filtered)
        self.assignment.account.filtered += filtered
        return rows - filtered


def messages_of(batch: RowBatch, limit: int) -> list[MadeRecord]:
    """A batch as messages of its stream that are each under ``limit`` bytes, placed where its first one was."""
    encoder = MessageEncoder()
    first, stream_id = batch.offsets[0], batch.stream_id
    made: list[MadeRecord] = []
    parts = [(Kind.PARAMETERS, batch.arrow), *((Kind.EVENTS, events) for events in batch._event_batches)]
    for kind, part in parts:
        encoder.check(part, stream_id=stream_id, limit=limit, story=batch.stream.story)
        for value, headers, _ in encoder.encode(
            part,
            stream_id=stream_id,
            session=uuid.uuid4().hex[:16],
            sequence=0,
            limit=limit,
            kind=kind,
            story=batch.stream.story,
        ):
            made.append(MadeRecord(batch.topic, stream_id.encode(), value, headers, batch.partition, first))
    return made
