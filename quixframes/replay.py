"""Retained data as a value: what is asked for of some topics, read when it is needed, as often as it is needed.

What this module holds to:

- The range is fixed when a read starts: what comes later is not in it. It joins no group, and commits nothing.
- A stream that is not asked for is not decoded, and a column that is not asked for is never converted.
- Rows of a stream come in the order in which they were written, with the dtypes they were written with.
"""

from __future__ import annotations

import html
import logging
import os
import time
from collections.abc import Collection, Generator, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes import replay_sql as sql
from quixframes.assemble import Assembler
from quixframes.batch import RowBatch
from quixframes.dataset_layout import keys_of
from quixframes.errors import SettingsError
from quixframes.event_frames import decode_events
from quixframes.input import buffer_settings
from quixframes.logs import Place
from quixframes.pace import Pace
from quixframes.replay_asked import Asked
from quixframes.replay_description import Counts, ReplayDescription
from quixframes.replay_frames import Labels, labelled, one_frame, one_table
from quixframes.replay_parquet import ParquetDataset, write_parquet
from quixframes.replay_plan import Plan
from quixframes.replay_read import Found, Reading, Source, planned
from quixframes.replay_report import ReplayReport
from quixframes.settings import BufferSettings, Size, byte_count
from quixframes.story import Story, StoryReader, StreamProperties
from quixframes.wire import Kind, event_times

if TYPE_CHECKING:
    from quixframes.replay_plot import Plot

__all__ = ["Replay"]

log = logging.getLogger(__name__)

_ALL = frozenset(Kind)


class Replay:
    """A bounded read of topics, as :meth:`StreamingClient.replay` makes it. Nothing is read before it is asked for, and
    each call reads anew, up to where the topics end then.

    >>> week = client.replay("engine", start="-7 days", streams="car-*", columns=["speed"])      # doctest: +SKIP
    >>> week.describe()                                                                         # doctest: +SKIP
    >>> week.to_frame()                                                                         # doctest: +SKIP
    """

    def __init__(
        self, asked: Asked, source: Source, order: Literal["stream", "time"] = "stream", speed: float | None = None
    ) -> None:
        self._asked = asked
        self._source = source
        self._order = order
        self._speed = speed
        self._reading: Reading | None = None

    @property
    def topics(self) -> tuple[str, ...]:
        """The names of the topics that are read."""
        return self._asked.topics

    @property
    def report(self) -> ReplayReport | None:
        """What the last read came to: what was read, what was skipped, and why; None before the first."""
        return None if self._reading is None else self._reading.tally.report

    def batches(self, buffer: BufferSettings | None = None, **rules: Any) -> Generator[RowBatch, None, None]:
        """Row batches, in order for each stream, as :meth:`InputTopic.batches` gives them of a live topic.

        Of a range of time, rows of the same buffer settings come in other batches than live where its start cuts a
        batch.

        Args:
            buffer: when rows are released, or its fields themselves, as in ``rows=5_000``, ``time_span="1 min"``. Its
                timeout has no meaning here.

        Raises:
            WireError: a message that cannot be read.
            BrokerUnavailableError: the cluster was out of reach for 30 s.
            OffsetGoneError: retention removed a part of the range while it was being read.
            FrameError: a column that was asked for is in none of the messages; at the end.
        """
        return self._batches(replace(buffer_settings(buffer, rules), timeout=None))

    def _batches(self, settings: BufferSettings) -> Generator[RowBatch, None, None]:
        assembler = Assembler(settings)
        pace = None if self._speed is None else Pace(self._speed)

        def ready() -> Iterator[RowBatch]:
            while assembler.ready:
                batch = assembler.ready.popleft()
                if pace is not None and batch.arrow.num_rows:
                    time.sleep(pace.wait(int(event_times(batch.arrow).max()), time.monotonic()))
                batch.stream.count(batch)
                yield batch

        for at, offset, message in self._messages(_ALL):
            entries = message.entries
            assembler.add(at, message, offset, [(0, entries)] if entries else [])
            yield from ready()
        assembler.release_held("end")
        yield from ready()

    def to_frame(self, *, stream_column: str | None = "stream") -> pd.DataFrame:
        """Everything in one DataFrame, with a DatetimeIndex named ``time``.

        Streams stand one after the other, ordered by ID, each with its rows in the order in which they were written;
        with ``order="time"`` all rows are ordered by time. Several topics stand one after the other as well, and a
        first column ``topic`` says which it is.

        Args:
            stream_column: a categorical column of this name, the first, says which stream a row is of. None: no column.

        A column that some messages lack is missing there: such a column of NumPy integers or booleans becomes pandas'
        nullable kind, and other dtypes stay. Columns whose dtypes differ from message to message raise.

        Raises:
            FrameError: as said, or a parameter has the name of the stream column, or a column that was asked for is in
                none of the messages.
        """
        found = self._collected(Kind.PARAMETERS)
        return self._ordered(labelled(one_frame(found), found, self._labels(stream_column)))

    def to_arrow(self, *, stream_column: str | None = "stream") -> pa.Table:
        """The same as an Arrow table: ``time``, then ``stream`` as a dictionary, then the parameters. A column that
        some messages lack is null there.

        A replay is itself an Arrow stream of this table for whoever takes one: ``polars.DataFrame(replay)``,
        ``pyarrow.table(replay)``.

        Raises:
            FrameError: as :meth:`to_frame`.
        """
        table = one_table(self._collected(Kind.PARAMETERS), self._labels(stream_column))
        if self._order == "time":
            times = table.column(0).cast(pa.int64()).to_numpy()
            table = table.take(np.argsort(times, kind="stable"))
        return table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def frames(self) -> dict[Any, pd.DataFrame]:
        """A DataFrame for each stream, by its ID, ordered by ID; of several topics, by (topic, ID). Each has the
        columns and dtypes of its own rows.

        Raises:
            FrameError: dtypes of a column differ within one stream.
        """
        found = self._collected(Kind.PARAMETERS)
        several = len(self.topics) > 1
        return {key if several else key[1]: one_frame({key: batches}) for key, batches in found.items()}

    def events(self, *, stream_column: str | None = "stream") -> pd.DataFrame:
        """All events in one DataFrame, with a DatetimeIndex named ``time``: ``id``, ``value`` and a column for each
        tag. Ordered and labelled as in :meth:`to_frame`; ``columns`` and ``where`` are about rows."""
        found = self._collected(Kind.EVENTS)
        frame = decode_events([batch for batches in found.values() for batch in batches])
        return self._ordered(labelled(frame, found, self._labels(stream_column)))

    def properties(self) -> pd.DataFrame:
        """What each stream said of itself last: a row for each, indexed by ``topic`` and ``stream``; the columns are
        those of :class:`~quixframes.StreamProperties`. Rows are not decoded."""
        found: dict[tuple[str, str], StreamProperties] = {}
        stories = StoryReader()
        for record, seen, message in self._start(_ALL).glances():
            if seen is not None:
                found[record.topic, seen.stream_id] = stories.read(seen.headers).properties
            elif message is not None:
                found[record.topic, message.stream_id] = message.story.properties
        keys = sorted(found)
        index = pd.MultiIndex.from_tuples(keys, names=["topic", "stream"])
        columns = [one.name for one in fields(StreamProperties)]
        rows = [[getattr(found[key], name) for name in columns] for key in keys]
        return pd.DataFrame(rows, index=index, columns=columns, dtype=object)

    def describe(self) -> ReplayDescription:
        """What there is to be read: rows, streams, times, bytes, gaps. The messages are read, and rows not decoded."""
        found: dict[tuple[str, str], Counts] = {}
        reading = self._start(_ALL)
        for record, seen, message in reading.glances():
            if seen is not None:
                counts = found.setdefault((record.topic, seen.stream_id), Counts())
                counts.add(record, seen.kind, seen.rows, seen.first, seen.last)
            elif message is not None:
                counts = found.setdefault((record.topic, message.stream_id), Counts())
                rows, first, last = 0, None, None
                if message.batch is not None and (rows := message.batch.num_rows):
                    times = event_times(message.batch)
                    first, last = int(times.min()), int(times.max())
                counts.add(record, message.kind, rows, first, last)
        return ReplayDescription.of(found, reading.plan.gaps)

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        partition_by: str | Collection[str] = ("stream", "day"),
        step: Size = "256 MB",
        overwrite: bool = False,
        **options: Any,
    ) -> ParquetDataset:
        """Write the rows into a folder of Parquet files, as pandas, Arrow, Polars, DuckDB, Spark and Dask read them.

        A run that was broken off, by an error, an interrupt or a crash, is gone on with by the same call: what has been
        written stays, each row is there once, and what is read is what the first run began with (its times before now,
        and where the topics ended then).

        Args:
            path: the folder; made where it is not there.
            partition_by: what folders are made by (``stream=car-44/day=2026-11-15``): some of "topic", "stream",
                "year", "month", "day" and "hour", times in UTC; ``()``: none. A stream or, of several topics, a topic
                that has no folder is a column.
            step: rows are written when so many bytes of them are held. Each step makes a file for each folder that it
                has rows of: more memory, larger files.
            overwrite: whether a dataset that is there is removed first. Else one that is complete is an error, and
                another folder with something in it is one in any case.
            options: go to :class:`pyarrow.parquet.ParquetWriter`: ``compression="zstd"``, for instance.

        A column that some messages lack is null there. A column of a dataset is of one type: where the types of
        messages differ, :class:`FrameError`. Files do not have columns that none of their rows had: readers that go by
        the first file (pandas and Arrow do) take the schema of all from ``_common_metadata``.

        Raises:
            SettingsError: the folder holds something else, another replay, a whole dataset, or is being written.
            FrameError: as said, or a parameter has the name of such a column.
        """
        keys = keys_of(partition_by)
        labels = [
            name for name in ("topic", "stream") if name not in keys and (name == "stream" or len(self.topics) > 1)
        ]
        return write_parquet(
            self._asked, self._plan, lambda plan: self._read(plan, {Kind.PARAMETERS}), Path(path), keys, labels,
            step_bytes=byte_count(step, name="step"), overwrite=overwrite, options=options,
        )  # fmt: skip

    def plot(self, columns: Collection[str] | None = None, *, points: int = 2_000) -> Plot:
        """A figure (extra ``plot``): a panel for each parameter, a line for each stream, and events as marks. Names and
        units are what the streams say of them. A line is broken where values are missing, or no row came for five times
        as long as usual.

        Args:
            columns: the parameters. Default: the first twelve that have numbers.
            points: how many of each line are drawn: of more, the first, last, least and greatest of each pixel stay, so
                that no peak is lost. Default 2,000.

        Raises:
            SettingsError: matplotlib or tsdownsample is not installed.
            FrameError: a parameter has no numbers, or there is nothing to draw.
        """
        try:
            from quixframes.replay_plot import draw
        except ModuleNotFoundError as exc:
            raise SettingsError(
                f'a plot needs {exc.name}, which is not installed: pip install "quixframes[plot]"'
            ) from exc
        found: dict[str, list[pa.RecordBatch]] = {}
        events: list[pa.RecordBatch] = []
        stories: dict[str, Story] = {}
        several = len(self.topics) > 1
        for at, _, message in self._messages(_ALL):
            name = f"{at.partition.topic}: {message.stream_id}" if several else message.stream_id
            stories[name] = message.story
            if message.batch is not None:
                (events if message.kind is Kind.EVENTS else found.setdefault(name, [])).append(message.batch)
        frames = {name: one_frame({("", name): batches}) for name, batches in found.items()}
        return draw(frames, decode_events(events), stories, None if columns is None else list(columns), points)

    def sql(self, query: str) -> pd.DataFrame:
        """What a query of SQL gives, by DuckDB (extra ``sql``), over the rows as the table ``replay``: the columns
        ``time`` (in microseconds), ``stream``, of several topics ``topic``, and the parameters.

        >>> week.sql("SELECT stream, max(speed) AS fastest FROM replay GROUP BY stream")  # doctest: +SKIP

        Rows wait on the disk meanwhile, so there may be more of them than memory holds. To ask several times, make a
        table of them with :meth:`to_duckdb`.

        Raises:
            SettingsError: duckdb is not installed.
            duckdb.Error: the query is none, or cannot be answered.
            FrameError: as :meth:`to_parquet`.
        """
        return sql.query(self._stage, query)

    def to_duckdb(self, database: str | os.PathLike[str], table: str = "replay", *, overwrite: bool = False) -> int:
        """Make a table of a DuckDB database, with the columns that :meth:`sql` has; returns how many rows it has.

        Args:
            database: its file; made where it is not there.
            table: the table's name.
            overwrite: whether a table that is there is replaced. Else it is an error.

        Raises:
            SettingsError: there is such a table, or duckdb is not installed.
            FrameError: as :meth:`to_parquet`.
        """
        return sql.write_table(self._stage, Path(database), table, overwrite=overwrite)

    def _stage(self, folder: Path) -> None:
        self.to_parquet(folder, partition_by=())

    def _labels(self, stream_column: str | None) -> Labels:
        return ("topic" if len(self.topics) > 1 else None), stream_column

    def _ordered(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.sort_index(kind="stable") if self._order == "time" else frame

    def _collected(self, kind: Kind) -> dict[tuple[str, str], list[pa.RecordBatch]]:
        """The batches of one kind by topic and stream, ordered by ID."""
        found: dict[tuple[str, str], list[pa.RecordBatch]] = {}
        for at, _, message in self._messages({kind}):
            if message.batch is not None:
                found.setdefault((at.partition.topic, message.stream_id), []).append(message.batch)
        return dict(sorted(found.items()))

    def _messages(self, kinds: Collection[Kind]) -> Iterator[Found]:
        reading = self._start(kinds)
        yield from reading.messages()
        report = reading.tally.report
        log.debug("replay of %s: %s", ", ".join(self.topics), report, extra=Place(self.topics[0]).extra)

    def _start(self, kinds: Collection[Kind]) -> Reading:
        by_time = self._order == "time" and kinds is _ALL  # a frame is ordered when it is whole
        return self._read(self._plan(), kinds, by_time=by_time)

    def _plan(self) -> Plan:
        return planned(self._asked, self._source)

    def _read(self, plan: Plan, kinds: Collection[Kind], *, by_time: bool = False) -> Reading:
        self._reading = Reading(plan, self._source, kinds, by_time=by_time)
        return self._reading

    def __iter__(self) -> Iterator[RowBatch]:
        return self.batches()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __repr__(self) -> str:
        report = "" if self.report is None else f"; read: {self.report}"
        return f"<Replay of {self._asked}; describe(), to_frame() or batches() reads{report}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>"
