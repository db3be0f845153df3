"""Existing history into a topic, each row once, however often it is broken off.

What this module holds to:

- Rows, and how far the history is with them, become true in one Kafka transaction: as the committed offset of a group
  of the load's name, which counts the rows, with the place in the files as its text.
- Who goes on fences who was at it before, so that nothing of it comes late.
- Rows of a stream keep their order.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import pandas as pd
from tqdm.auto import tqdm

from quixframes.errors import QuixframesError, SettingsError
from quixframes.kafka import Consumer, Offset, Partition, TransactionalProducer
from quixframes.load_source import History, paced, timed
from quixframes.output import Outputs, OutputTopic
from quixframes.pace import Pace
from quixframes.settings import BufferSettings, WriterSettings

__all__ = ["LoadSummary", "Loading", "opened_loading"]

_COMMIT_EVERY = 2.0  # seconds
_COMMIT_TIMEOUT = 60.0
_STEP = 100_000_000  # nanoseconds: how finely a pace is kept


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """What :meth:`StreamingClient.load` did.

    Attributes:
        topic: where to.
        rows: how many are in the topic now, of all runs of the load.
        before: how many of them were there from runs before.
        seconds: that this run took.
    """

    topic: str
    rows: int
    before: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far a load is: rows that are in the topic, and the place in the files that they come to."""

    mark: str
    rows: int = 0
    file: int = 0
    row: int = 0
    whole: bool = False

    def offset(self) -> Offset:
        return Offset(self.rows, json.dumps([self.mark, self.file, self.row, self.whole]))

    @classmethod
    def of(cls, found: Offset | None, mark: str) -> Self:
        if found is None or not found.metadata:
            return cls(mark)
        known, file, row, whole = json.loads(found.metadata)
        return cls(known, found.offset, file, row, whole)


@contextmanager
def opened_loading(
    history: History,
    topic: Callable[..., OutputTopic],
    settings: WriterSettings,
    producer: Callable[[], TransactionalProducer],
    consumer: Callable[[], Consumer],
    pace: Pace | None,
) -> Iterator[Loading]:
    """A load with connections of its own, which end with the block. What was not committed then does not count."""
    with contextlib.ExitStack() as stack:
        sender = producer()  # it fences the others, so what the group has committed is looked up after it
        stack.callback(sender.close, 5.0)
        reader = consumer()
        stack.callback(reader.close, 5.0)
        outputs = Outputs(settings, producer)
        outputs.begin_transactions(sender)
        opened = topic(outputs, BufferSettings(), None)
        try:
            yield Loading(history, opened, outputs, sender, reader, pace)
        finally:
            with contextlib.suppress(QuixframesError):  # which was told, or is about what does not count
                opened.close(0.1)


class Loading:
    """One run of a load.

    Args:
        history: what is loaded.
        topic: where to, open in ``outputs``.
        outputs: write through the producer.
        producer: of the load's own transactional ID.
        consumer: of the load's own group, which nobody joins.
        pace: when rows are written; None: as fast as they can be.
    """

    def __init__(
        self,
        history: History,
        topic: OutputTopic,
        outputs: Outputs,
        producer: TransactionalProducer,
        consumer: Consumer,
        pace: Pace | None = None,
    ) -> None:
        self._history = history
        self._topic = topic
        self._outputs = outputs
        self._producer = producer
        self._consumer = consumer
        self._pace = pace
        self._at = Partition(topic.name, 0)
        self._committed = time.monotonic()
        self._kept = self._state = _Progress(history.mark)

    def run(
        self, time_column: str | None, size: int, stream: str | None, by: str | None, *, again: bool, progress: bool
    ) -> LoadSummary:
        """Load what is not loaded yet, ``size`` rows at a time.

        Raises:
            SettingsError: all of it is loaded, or it is not what was begun with.
        """
        begun = time.monotonic()
        self._begin(again)
        before = self._kept.rows
        bar = tqdm(
            total=self._history.rows, initial=before, unit=" rows", desc=f"load {self._topic.name}",
            disable=not progress, leave=False,
        )  # fmt: skip
        try:
            with contextlib.closing(bar):
                for part in self._history.parts(size, self._state.file, self._state.row):
                    row = part.row - len(part.frame)
                    for rows in self._in_time(timed(part.frame, time_column)):
                        self._topic.write(rows, stream=stream, by=by)
                        row += len(rows)
                        self._state = replace(self._state, rows=self._state.rows + len(rows), file=part.file, row=row)
                        bar.update(len(rows))
                        if time.monotonic() - self._committed > _COMMIT_EVERY:
                            self._commit()
            self._state = replace(self._state, whole=True)
            self._commit()
        except BaseException as exc:
            exc.add_note(f"{self._kept.rows:,} rows are loaded; a call with the same name= goes on after them")
            raise
        return LoadSummary(self._topic.name, self._kept.rows, before, time.monotonic() - begun)

    def _begin(self, again: bool) -> None:
        """Look up how far the load is. Who was at it before cannot write any more by now."""
        self._consumer.assign({self._at: 0})
        self._consumer.pause([self._at])
        mark = self._history.mark
        found = _Progress.of(self._consumer.committed([self._at]).get(self._at), mark)
        if again:
            found = _Progress(mark)
        if found.whole:
            raise SettingsError(
                f"all of it is in topic {self._topic.name!r}: {found.rows:,} rows were loaded; again=True loads them "
                "once more"
            )
        if found.mark != mark:
            raise SettingsError(
                f"the load was begun with other files ({found.mark}), and cannot go on with these ({mark}): give it "
                "another name=, or again=True"
            )
        self._kept = self._state = found

    def _in_time(self, frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """The frame's rows, when it is their time."""
        if self._pace is None or frame.empty:
            yield frame
            return
        for at, rows in paced(frame, round(_STEP * self._pace.speed)):
            wait = self._pace.wait(at, time.monotonic())
            if wait > 0:
                self._commit()  # those who read it need not wait as well
                time.sleep(wait)
            yield rows

    def _commit(self) -> None:
        if self._state != self._kept:
            self._outputs.flush(_COMMIT_TIMEOUT)
            self._producer.commit_transaction(
                {self._at: self._state.offset()}, self._consumer.membership, _COMMIT_TIMEOUT
            )
            self._kept = self._state
        self._committed = time.monotonic()
