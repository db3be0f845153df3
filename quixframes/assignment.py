"""A partition for as long as a reader has it, and the account of its rows. Pure.

The account holds promise 5: rows in = processed + dead-lettered + filtered + let go + held, at any time. What is held
is counted by the ledger, and the others where they happen, so that the sum checks two ways of counting against each
other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from quixframes.kafka import Offset, Partition, Record
from quixframes.ledger import Ledger, Rows

__all__ = ["Account", "Assignment", "Chunk", "Pieces"]

Pieces = Iterable[tuple[int, int, int]]
"""Rows of messages, each as (offset, start, stop)."""


@dataclass(slots=True)
class Account:
    """What became of the rows of one partition, over the life of a reader. Events and ends of streams count as rows.

    Attributes:
        rows_in: taken in to be processed; those that come again are counted again.
        processed: finished by the model; under exactly once: and committed.
        dead_lettered: finished by a dead letter. A message that cannot be read counts as one row.
        filtered: removed by a filter, or dropped as a repetition.
        let_go: not finished when the partition left this reader, or when a transaction was aborted: they come again.
    """

    rows_in: int = 0
    processed: int = 0
    dead_lettered: int = 0
    filtered: int = 0
    let_go: int = 0


@dataclass(slots=True, eq=False)
class Assignment:
    """One partition, for as long as this reader has it.

    ``position`` is the offset up to which its records have been handed to the reading thread; ``ledger`` is None where
    there is no group to commit to; ``gaps`` are the offsets at which it goes on after messages that are gone.
    ``leaving`` says that it is about to go: no more of it is handed over. ``streams`` are those that were met in it and
    have not ended. ``behind`` is how many offsets lie beyond ``position``, as far as is known; ``arrived`` and ``seen``
    are the offsets after the last record that was read ahead, and that was taken in; ``seen_ms`` is the latter's broker
    time.
    """

    partition: Partition
    ledger: Ledger | None
    position: int
    committed: Offset | None = None
    owned: bool = True
    leaving: bool = False
    gaps: deque[int] = field(default_factory=deque)
    account: Account = field(default_factory=Account)
    streams: set[str] = field(default_factory=set)
    behind: int | None = None
    arrived: int = 0
    seen: int = 0
    seen_ms: int | None = None

    @property
    def held(self) -> int:
        """Rows that were taken in and are not finished."""
        account = self.account
        if not self.owned:
            return 0
        if self.ledger is not None:
            return self.ledger.rows_left
        return account.rows_in - account.processed - account.filtered - account.let_go

    @property
    def lag(self) -> int | None:
        """How many messages from the first that is not finished up to the end of the partition, as their offsets tell;
        None where the end is not known. With all that has arrived finished, it is what lies beyond: markers of
        transactions, which end a partition as often as messages do, are nothing that waits."""
        if self.behind is None:
            return None
        front = self.seen
        if self.ledger is not None:
            pending = self.ledger.pending()
            front = self.ledger.next if pending is None else pending.offset
        return self.behind + max(0, self.arrived - front)

    def lag_seconds(self, now_ms: int) -> float | None:
        """For how long the last record that was taken in has been in Kafka at a moment (milliseconds since 1970); 0
        where nothing is left to be finished; None where that is not known."""
        if not self.lag:
            return None if self.lag is None else 0.0
        return None if self.seen_ms is None else max(0, now_ms - self.seen_ms) / 1000

    @property
    def uncommitted(self) -> Offset | None:
        """What is to be committed; None where there is nothing new."""
        if not self.owned or self.ledger is None:
            return None
        offset = Offset(*self.ledger.committable())
        return None if offset == self.committed else offset

    def take(self, offset: int, rows: int, label: Any = None) -> list[Rows]:
        """Take in a message of so many rows; which of them are still to be processed. None of a partition that has
        gone, as it may between any two steps of who asks: they come again elsewhere."""
        if not self.owned:
            return []
        if self.ledger is not None:
            return self._count(self.ledger.take(offset, rows, label))
        return self._count([(0, rows)] if rows else [])

    def take_whole(self, offset: int, label: Any) -> list[Rows]:
        """Take in a message that cannot be read, as one row."""
        if not self.owned:
            return []
        return self._count([(0, 1)] if self.ledger is None else self.ledger.take_whole(offset, label))

    def _count(self, ranges: list[Rows]) -> list[Rows]:
        self.account.rows_in += sum(stop - start for start, stop in ranges)
        return ranges

    def finish(self, pieces: Pieces) -> int:
        """Mark rows as finished; how many of them were not so before: none where the partition is not ours any more."""
        if not self.owned:
            return 0
        if self.ledger is None:
            return sum(stop - start for _, start, stop in pieces)
        return sum(self.ledger.finish(*piece) for piece in pieces)

    def let_go(self) -> None:
        """It is not ours any more: what is not finished comes again elsewhere."""
        if self.owned:
            self.account.let_go += self.held
            self.owned = False


Chunk = list[tuple[Assignment, list[Record]]]
