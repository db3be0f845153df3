"""What a reader hands over: row batches, their streams, and what has to be remembered until they are finished."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from quixframes.buffer import Piece
from quixframes.errors import CommitError
from quixframes.frames import FrameDecoder
from quixframes.poller import Assignment

__all__ = ["Claim", "RowBatch", "StreamReader"]


class StreamReader:
    """A stream as its reader knows it."""

    __slots__ = ("batches", "rows", "stream_id", "topic")

    def __init__(self, topic: str, stream_id: str) -> None:
        self.topic = topic
        self.stream_id = stream_id
        self.rows = 0
        self.batches = 0

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
    """

    __slots__ = ("_batch", "_claim", "_commit", "_decoder", "_frame", "reason", "stream")

    def __init__(
        self,
        batch: pa.RecordBatch,
        stream: StreamReader,
        reason: str,
        decoder: FrameDecoder,
        claim: Claim,
        commit: Callable[[list[Claim]], bool] | None,
    ) -> None:
        self._batch = batch
        self._decoder = decoder
        self._claim = claim
        self._commit = commit
        self._frame: pd.DataFrame | None = None
        self.stream = stream
        self.reason = reason

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a DataFrame with a DatetimeIndex named ``time`` (UTC, ns), each column with the dtype that it was
        written with. Made when it is first asked for; the same object each time, and yours to change."""
        if self._frame is None:
            self._frame = self._decoder.decode(self._batch)
        return self._frame

    @property
    def arrow(self) -> pa.RecordBatch:
        """The rows as an Arrow record batch in normal form, without a copy."""
        return self._batch

    @property
    def stream_id(self) -> str:
        """The stream's ID."""
        return self.stream.stream_id

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

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def __repr__(self) -> str:
        first, last = self.offsets
        return (
            f"<RowBatch of stream {self.stream_id!r}: {len(self):,} rows × {self._batch.num_columns - 1} columns, "
            f"partition {self.partition}, offsets {first}-{last}>"
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

    def finish(self) -> None:
        """Mark the rows as finished in their partition's ledger."""
        if self.assignment.ledger is not None:
            for piece in self.pieces:
                self.assignment.ledger.finish(*piece)
