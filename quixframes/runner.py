"""The one loop from a topic through a model to other topics, as a call: :func:`run`.

What this module holds to:

- A model is a function. What it returns for a batch is written to the sinks as a whole, or not at all.
- A batch is finished once its results are written, or once it is among the dead letters; and it is committed as the
  source's settings say.
- What is the cluster's fault is never held against a batch: it is raised, and the rows come again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import pandas as pd

from quixframes.batch import RowBatch
from quixframes.errors import BrokerError, ClosedError, QuixframesError, SettingsError
from quixframes.input import InputTopic
from quixframes.logs import Place
from quixframes.output import OutputTopic
from quixframes.replay import Replay
from quixframes.settings import BufferSettings, CommitMode, Duration, Retry, seconds
from quixframes.stream_writer import Accepted, StreamWriter

__all__ = ["Model", "Result", "Sinks", "Summary", "run"]

log = logging.getLogger(__name__)

Result: TypeAlias = pd.DataFrame | Mapping[str, pd.DataFrame | None] | None
Model: TypeAlias = Callable[[Any], Result]
Sinks: TypeAlias = OutputTopic | Mapping[str, OutputTopic] | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. ``rows_in`` = ``processed`` + ``dead`` + ``filtered`` + ``let_go`` + ``held``; events and ends of
    streams count as rows there, as in :meth:`~quixframes.InputTopic.accounts`.

    Attributes:
        rows_in: taken in from the source, or held by it from before.
        processed: finished by the model.
        dead: sent to the dead letters.
        filtered: removed by a filter.
        let_go: given up unfinished, since their partition went or their transaction was aborted: they come again.
        held: neither, at the end: they come again.
        rows_out: written to the sinks.
        batches: given to the model with success.
        retries: how often a batch was tried once more.
        commits: that the cluster acknowledged.
        lag: messages of this instance's partitions that are not finished; None where that is not known.
        seconds: for which it ran; ``model_seconds`` of these in the model.
        ended: why: "end" (what was there is read), "rows", "duration", "idle", "interrupt", "closed", "error".
    """

    rows_in: int = 0
    processed: int = 0
    dead: int = 0
    filtered: int = 0
    let_go: int = 0
    held: int = 0
    rows_out: int = 0
    batches: int = 0
    retries: int = 0
    commits: int = 0
    lag: int | None = None
    seconds: float = 0.0
    model_seconds: float = 0.0
    ended: str = "end"

    def __str__(self) -> str:
        parts = [f"{self.rows_in:,} rows in", f"{self.processed:,} processed", f"{self.rows_out:,} rows out"]
        names = {"dead": "to dead letters", "filtered": "filtered", "let_go": "let go", "held": "still held"}
        parts += [f"{value:,} {text}" for name, text in names.items() if (value := getattr(self, name))]
        parts += [_counted(self.batches, "batch", "batches"), _counted(self.commits, "commit", "commits")]
        return f"{', '.join(parts)} in {self.seconds:,.1f} s ({self.rate:,.0f} rows/s); ended by {self.ended}"

    @property
    def rate(self) -> float:
        """Rows that were processed a second."""
        return self.processed / self.seconds if self.seconds else 0.0


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def accounted(counts: pd.Series[int]) -> dict[str, Any]:
    """The fields of a :class:`Summary` that a reader's accounts tell."""
    names = ("rows_in", "processed", "filtered", "let_go", "held")
    return {name: int(counts[name]) for name in names} | {"dead": int(counts["dead_lettered"])}


def run(
    model: Model,
    source: InputTopic | Replay,
    sink: Sinks = None,
    *,
    takes: Literal["frame", "batch"] = "frame",
    buffer: BufferSettings | None = None,
    until: Literal["now"] | None = None,
    max_rows: int | None = None,
    idle: Duration | None = None,
    duration: Duration | None = None,
    retry: Retry | None = None,
    on_error: Literal["raise", "dead-letter"] = "raise",
    on_batch: Callable[[RowBatch, Result], object] | None = None,
    on_end: Callable[[Summary], object] | None = None,
    **rules: Any,
) -> Summary:
    """Read, process, write, commit: until the end, a signal, or for ever.

    >>> def double(frame):
    ...     return frame * 2
    >>> summary = qf.run(double, source=raw, sink=results, until="now")                        # doctest: +SKIP

    Args:
        model: given each batch's rows as a DataFrame, returns a DataFrame for ``sink``, or None for nothing; where
            there are several sinks, a dict of such by the sinks' names. Batches without rows (events alone, or the end
            of a stream) do not go to it.
        source: a topic to read from, as ``client.open_input_topic`` opens it; or a ``client.replay``, of which nothing
            is committed. How it commits, whether exactly once, and its dead letters are the source's settings: with
            ``CommitMode.Manual`` each batch is committed by itself.
        sink: a topic to write to, or several by names. Results go to a stream of the batch's stream ID, which has the
            properties and definitions of the batch's stream, and ends when it ends.
        takes: "frame" (default), or "batch": the model is given the :class:`~quixframes.RowBatch`, also one without
            rows.
        buffer: when rows are released as a batch; or give its fields themselves, as in ``rows=5_000``.
        until: "now" ends it with the last row that is in the source at this call.
        max_rows: ends it once so many rows or more were processed.
        idle: ends it once nothing has arrived for so long.
        duration: ends it after so long.
        retry: what to do when the model raises. Default: nothing, it is tried once.
        on_error: what to do when it has raised for the last time: "raise" (default) ends the run. The batch is not
            committed, and comes again once the topic is opened anew (exactly once: to the next run as well).
            "dead-letter" sends the batch's rows to the source's dead letters, and goes on.
        on_batch: told each batch and what came of it, once it is written.
        on_end: told what was done, however it ends: also by SIGTERM or an error, after which nothing is returned.

    Ctrl-C (in a notebook: interrupting the kernel) ends the run, and what is finished is committed; so does SIGTERM,
    which goes on to end the program. A second one stops at once.

    Returns:
        What was done; also after Ctrl-C.

    Raises:
        SettingsError: settings that cannot be, or a result that goes to no sink.
        BrokerError: what the cluster refused, or will not mend itself.
        Exception: the model's own, with ``on_error="raise"``.
    """
    if takes not in ("frame", "batch"):
        raise SettingsError(f"takes={takes!r} has to be 'frame' or 'batch'")
    if on_error not in ("raise", "dead-letter"):
        raise SettingsError(f"on_error={on_error!r} has to be 'raise' or 'dead-letter'")
    live = isinstance(source, InputTopic)
    if not live and not isinstance(source, Replay):
        raise SettingsError(f"source={source!r} has to be opened: client.open_input_topic(...) or client.replay(...)")
    if sink is not None and not isinstance(sink, OutputTopic | Mapping):
        raise SettingsError(f"sink={sink!r} has to be opened: client.open_output_topic(...), or a dict of such")
    if on_error == "dead-letter" and not (isinstance(source, InputTopic) and source.has_dead_letters):
        raise SettingsError("on_error='dead-letter' needs a source that was opened with dead_letters='a-topic'")
    if not live and (until or idle or duration or max_rows):
        raise SettingsError("a replay ends by itself: until, idle, duration and max_rows are for topics")
    work = _Work(model, source, sink, takes == "frame", retry or Retry(attempts=1), on_error, on_batch)
    told = on_end or _tell_nobody
    if isinstance(source, InputTopic):
        bounds = _Bounds(until, max_rows, idle, duration)
        return work.on_topic(source, source.batches(buffer, **bounds._asdict(), **rules), bounds, told)
    return work.on_replay(source.batches(buffer, **rules), told)


def _tell_nobody(summary: Summary) -> None:
    pass


class _Bounds(NamedTuple):
    """Where a run over a topic ends by itself."""

    until: Literal["now"] | None
    max_rows: int | None
    idle: Duration | None
    duration: Duration | None

    def reached(self, elapsed: float, rows: int) -> str:
        """Which of them has ended it."""
        if self.max_rows is not None and rows >= self.max_rows:
            return "rows"
        if self.duration is not None and elapsed >= seconds(self.duration):
            return "duration"
        return "end" if self.until is not None else "idle"


class _Work:
    """One run."""

    def __init__(
        self,
        model: Model,
        source: InputTopic | Replay,
        sink: Sinks,
        takes_frame: bool,
        retry: Retry,
        on_error: str,
        on_batch: Callable[[RowBatch, Result], object] | None,
    ) -> None:
        self._model = model
        self._source = source
        # A lone sink needs no name.
        self._sinks = {"": sink} if isinstance(sink, OutputTopic) else dict(sink or {})
        self._takes_frame = takes_frame
        self._retry = retry
        self._on_error = on_error
        self._on_batch = on_batch
        self._rows_out = 0
        self._batches = 0
        self._retries = 0
        self._model_seconds = 0.0

    def on_topic(
        self,
        source: InputTopic,
        batches: Generator[RowBatch, None, None],
        bounds: _Bounds,
        told: Callable[[Summary], object],
    ) -> Summary:
        """Run over a topic."""
        begun, before, commits, read = time.monotonic(), source.accounts().sum(), source.commits, source.rows_read
        manual = source.consumer_group is not None and source.commit_settings.mode is CommitMode.Manual
        ended, terminated = None, None

        def done(ended: str) -> Summary:
            after = source.accounts().sum()
            counts = after - before
            counts["rows_in"] += before["held"]
            counts["held"] = after["held"]
            return replace(
                self._summary(begun),
                **accounted(counts),
                commits=source.commits - commits,
                lag=source.lag,
                ended=ended,
            )

        try:
            with closing(batches):  # whatever ends it, the batch in hand is not finished
                for batch in batches:
                    self._process(batch)
                    if manual:
                        batch.commit()
        except KeyboardInterrupt:
            place = Place(source.name)
            log.info("%s: the run was interrupted; what is finished is committed", place, extra=place.extra)
            ended = "interrupt"
        except SystemExit as exc:
            ended, terminated = "interrupt", exc
        except ClosedError:
            if not source.closed:
                raise
            ended = "closed"
        except Exception:
            told(done("error"))
            raise
        rows = source.rows_read - read
        ended = ended or ("closed" if source.closed else bounds.reached(time.monotonic() - begun, rows))
        try:
            if not source.closed and source.consumer_group is not None:
                source._commits.commit_finished()
        except QuixframesError as exc:
            if terminated is None:
                raise
            place = Place(source.name)
            log.warning("%s: at the end of the run: %s", place, exc, extra=place.extra)
        finally:
            summary = done(ended)
            told(summary)
        if terminated is not None:
            raise terminated
        return summary

    def on_replay(self, batches: Generator[RowBatch, None, None], told: Callable[[Summary], object]) -> Summary:
        """Run over a replay."""
        begun, rows, ended = time.monotonic(), 0, "error"
        try:
            with closing(batches):
                for batch in batches:
                    self._process(batch)
                    rows += batch.entries
            ended = "end"
        except (KeyboardInterrupt, SystemExit) as exc:
            ended = "interrupt"
            if isinstance(exc, SystemExit):
                raise
        finally:
            summary = replace(self._summary(begun), rows_in=rows, processed=rows, ended=ended)
            told(summary)
        return summary

    def _summary(self, begun: float) -> Summary:
        return Summary(
            rows_out=self._rows_out,
            batches=self._batches,
            retries=self._retries,
            seconds=time.monotonic() - begun,
            model_seconds=self._model_seconds,
        )

    def _process(self, batch: RowBatch) -> None:
        """Give a batch to the model until it succeeds, and write what comes of it."""
        attempt = 1
        while True:
            try:
                result, accepted = self._try(batch)
                break
            except (BrokerError, ClosedError, SettingsError):
                raise
            except Exception as exc:
                if attempt < self._retry.attempts and isinstance(exc, self._retry.errors):
                    pause = self._retry.pause(attempt)
                    place = Place(batch.stream.topic, batch.partition, batch.offsets[0], batch.stream_id)
                    log.warning(
                        "%s: the model failed on %r, which is tried again in %.1f s: %r",
                        place, batch, pause, exc, extra=place.extra,
                    )  # fmt: skip
                    time.sleep(pause)
                    batch.forget_frame()  # the model may have changed it
                    attempt += 1
                    self._retries += 1
                    continue
                if self._on_error == "raise":
                    raise
                assert isinstance(self._source, InputTopic)
                self._source.reject(batch, exc)
                self._end_streams(batch)
                return
        for writer, rows in accepted:
            writer._write(rows)
            self._rows_out += rows.batch.num_rows
        self._end_streams(batch)
        self._batches += 1
        if self._on_batch is not None:
            self._on_batch(batch, result)

    def _try(self, batch: RowBatch) -> tuple[Result, list[tuple[StreamWriter, Accepted]]]:
        """What the model makes of a batch, accepted by every sink that it goes to; nothing is written yet."""
        result: Result = None
        begun = time.monotonic()
        try:
            if not self._takes_frame:
                result = self._model(batch)
            elif len(batch):
                result = self._model(batch.frame)
        finally:
            self._model_seconds += time.monotonic() - begun
        accepted = []
        for topic, frame in self._placed(result):
            writer = topic.get_or_create_stream(batch.stream_id)
            if topic.codec is None:
                writer.inherit(batch.stream)
            accepted.append((writer, writer._accept(frame, writer.parameters._tags)))
        return result, accepted

    def _placed(self, result: Result) -> list[tuple[OutputTopic, pd.DataFrame]]:
        """The frames of a result, each with its sink."""
        if result is None:
            return []
        if isinstance(result, pd.DataFrame):
            if "" not in self._sinks:
                names = ", ".join(self._sinks) or "none"
                raise SettingsError(
                    f"the model returned one DataFrame, but the sinks are {names}: return a dict by name"
                )
            result = {"": result}
        if not isinstance(result, Mapping):
            what = f"{result!r:.80} ({type(result).__name__})"
            raise SettingsError(f"the model returned {what}: return a DataFrame, a dict of such, or None")
        if unknown := [name for name in result if name not in self._sinks]:
            raise SettingsError(f"the model returned rows for {unknown[0]!r}, and there is no sink of that name")
        return [(self._sinks[name], frame) for name, frame in result.items() if frame is not None]

    def _end_streams(self, batch: RowBatch) -> None:
        """Where the batch's stream has ended, end those that were made of it."""
        if batch.closed is None:
            return
        for name, topic in self._sinks.items():
            if name == "" and topic.codec is None:
                # Also where an earlier run of the program wrote it, or another instance.
                writer = topic.get_or_create_stream(batch.stream_id)
                writer.inherit(batch.stream)
                writer.close(batch.closed)
            elif (open_here := topic.streams.get(batch.stream_id)) is not None:
                open_here.close(batch.closed)
