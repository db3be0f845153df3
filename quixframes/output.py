"""Writing: a topic to write to, its streams, and what happens between ``write`` and the cluster's acknowledgement.

What this module holds to:

- A write is accepted whole or raises: whatever is wrong with a frame is said before any row of it is sent or held.
- Rows of a stream leave in the order in which they were written, also where some of them went through the buffer.
- Bytes that are sent and not acknowledged are bounded for the whole client; past the bound, a write waits.
- No failed send is silent: it raises at the next write, flush or close of its topic, naming stream and rows.
"""

from __future__ import annotations

import html
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes import frames
from quixframes.buffer import RowBuffer
from quixframes.errors import (
    BrokerUnavailableError,
    ClosedError,
    DeliveryError,
    FrameError,
    SettingsError,
    StreamExistsError,
    StreamNotFoundError,
)
from quixframes.frames import FrameDecoder, FrameEncoder
from quixframes.kafka import Outgoing, Producer, TopicDescription
from quixframes.settings import BufferSettings, Duration, WriterSettings, byte_count, seconds
from quixframes.wire import Headers, MessageEncoder

__all__ = ["InFlight", "OutputTopic", "ParametersBuffer", "ParametersWriter", "StreamWriter"]

log = logging.getLogger(__name__)

Rows = pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Rows as people have them: a DataFrame, one row as a dict, or a list of such dicts."""

_COLLECTED_ROWS = 10_000


class InFlight:
    """Counts the bytes that are sent and not yet acknowledged, and makes senders wait past a limit. One for each
    client."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self.bytes = 0
        self.waited = 0.0

    def acquire(self, size: int) -> None:
        """Wait until ``size`` more bytes may be sent. More than the whole limit may go when nothing else is under
        way."""
        with self._changed:
            if self.bytes and self.bytes + size > self._limit:
                begun = time.monotonic()
                # No timeout is needed: whatever is in flight is acknowledged or fails within the delivery time-out.
                self._changed.wait_for(lambda: not self.bytes or self.bytes + size <= self._limit)
                self.waited += time.monotonic() - begun
            self.bytes += size

    def release(self, size: int) -> None:
        """``size`` bytes were acknowledged or given up."""
        with self._changed:
            self.bytes -= size
            self._changed.notify_all()


class OutputTopic:
    """A topic to write to, as :meth:`StreamingClient.open_output_topic` opens it. Safe to use from several threads.

    >>> with client.open_output_topic("engine") as topic:                                       # doctest: +SKIP
    ...     topic.write(frame, stream="car-44")
    """

    def __init__(
        self,
        description: TopicDescription,
        producer: Producer,
        settings: WriterSettings,
        in_flight: InFlight,
        *,
        buffer: BufferSettings,
        on_close: Callable[[OutputTopic], None],
    ) -> None:
        self.name = description.name
        self.partitions = description.partitions
        self._message_limit = description.message_limit
        self._producer = producer
        self._in_flight = in_flight
        self._delivery_timeout = seconds(settings.delivery_timeout)
        self._buffer_settings = buffer
        self._on_close = on_close
        self._lock = threading.Lock()
        self._streams: dict[str, StreamWriter] = {}
        self._failures: list[DeliveryError] = []
        self._closed = False
        self._encoder = MessageEncoder()
        self._ticker = _Ticker(f"quixframes-buffers-{self.name}")
        self.rows_written = 0
        self.messages_written = 0

    # Streams

    @property
    def streams(self) -> dict[str, StreamWriter]:
        """The streams that are open, by ID."""
        with self._lock:
            return dict(self._streams)

    def create_stream(self, stream_id: str | None = None, *, buffer: BufferSettings | None = None) -> StreamWriter:
        """Open a stream that is not open yet.

        Args:
            stream_id: its name, and its Kafka key; a new unique one when None.
            buffer: the rules of its buffer; those of the topic when None.

        Raises:
            StreamExistsError: a stream of that ID is open on this topic.
            SettingsError: the ID is empty, or not text.
        """
        stream_id = str(uuid.uuid4()) if stream_id is None else _checked_id(stream_id)
        with self._lock:
            self._check_open()
            if stream_id in self._streams:
                raise StreamExistsError(
                    f"stream {stream_id!r} is open on topic {self.name!r} already: "
                    "use get_or_create_stream or get_stream"
                )
            stream = self._streams[stream_id] = StreamWriter(self, stream_id, buffer or self._buffer_settings)
        return stream

    def get_stream(self, stream_id: str) -> StreamWriter:
        """The open stream of that ID.

        Raises:
            StreamNotFoundError: none of that ID is open on this topic.
        """
        with self._lock:
            self._check_open()
            stream = self._streams.get(stream_id)
        if stream is None:
            raise StreamNotFoundError(
                f"no stream {stream_id!r} is open on topic {self.name!r}: use create_stream or get_or_create_stream"
            )
        return stream

    def get_or_create_stream(self, stream_id: str, *, buffer: BufferSettings | None = None) -> StreamWriter:
        """The open stream of that ID, or a new one; ``buffer`` is for a new one, as in :meth:`create_stream`."""
        with self._lock:
            self._check_open()
            stream = self._streams.get(stream_id)
            if stream is None:
                stream = StreamWriter(self, _checked_id(stream_id), buffer or self._buffer_settings)
                self._streams[stream_id] = stream
        return stream

    # Rows

    def write(self, rows: Rows, *, stream: str | None = None, by: str | None = None) -> None:
        """Write a frame to one stream, or a mixed frame to the streams that one of its columns names.

        Args:
            rows: a DataFrame with its time in a DatetimeIndex or in a column named time, timestamp or datetime.
            stream: the ID of the stream that all rows belong to.
            by: the column that has each row's stream ID; it is not itself written. Rows of a stream keep their order.

        Raises:
            SettingsError: neither or both of ``stream`` and ``by`` were given.
            FrameError: the frame cannot be carried exactly. Nothing of it was sent.
            MessageTooLargeError: one row is over the topic's limit. Nothing of that stream's rows was sent.
            DeliveryError: an earlier write to this topic failed. Nothing of this frame was sent.
        """
        if (stream is None) == (by is None):
            raise SettingsError("write needs either stream='an-id' or by='column with the ids'")
        if stream is not None:
            self.get_or_create_stream(stream).parameters.write(rows)
            return
        if not isinstance(rows, pd.DataFrame):
            raise SettingsError("write(..., by=) takes a DataFrame")
        # All are encoded before the first is sent: a fault in one stream's rows stops the frame as a whole.
        parts = [
            (writer := self.get_or_create_stream(stream_id), writer._encode(frame))
            for stream_id, frame in frames.split_by(rows, by or "")
        ]
        for writer, batch in parts:
            writer._write(batch)

    # Ends

    def flush(self, timeout: Duration | None = None) -> None:
        """Release what the buffers hold, and wait until the cluster has acknowledged everything written so far.

        Args:
            timeout: default: the delivery time-out, by which everything is acknowledged or has failed.

        Raises:
            DeliveryError: rows written since the last report have failed; it names them.
            BrokerUnavailableError: the timeout came first.
        """
        self._check_open()
        self._release_buffers()
        self._await(timeout)

    def close(self, timeout: Duration | None = None) -> None:
        """Flush, and end the topic's streams. Closing again does nothing. Raises what :meth:`flush` raises, once
        closed."""
        with self._lock:
            if self._closed:
                return
        try:
            self._release_buffers()
            self._await(timeout)
        finally:
            with self._lock:
                self._closed = True
                self._streams.clear()
            self._ticker.close()
            self._on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except DeliveryError:
            if exc is None:
                raise
            # The block's own error is the one to be seen; this one is told where it can be found.
            log.exception("closing topic %s after an error: not everything was delivered", self.name)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._streams)} streams open"
        return f"<OutputTopic {self.name!r}: {self.partitions} partitions, {state}, {self.rows_written:,} rows written>"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<td>{value}</td>" for value in (len(self._streams), f"{self.rows_written:,}", self.partitions)
        )
        return (
            f"<table><caption>topic <b>{html.escape(self.name)}</b> (output)</caption>"
            f"<tr><th>open streams</th><th>rows written</th><th>partitions</th></tr><tr>{cells}</tr></table>"
        )

    # For the streams

    def _send(self, stream_id: str, value: bytes, headers: Headers, rows: int, left: int) -> None:
        """Send one message of ``rows`` rows; ``left`` are this one's and those that would follow it in the same
        write."""
        size = len(value)
        self._in_flight.acquire(size)
        if self._failures:
            # What was waited for has failed: rows that come after lost ones are not sent behind them, but lost with
            # them.
            self._in_flight.release(size)
            self._fail(self._failure(stream_id, left, "earlier rows of this topic failed first"))
            self._raise_failures()
        self._producer.send(
            Outgoing(self.name, stream_id.encode(), value, headers), _OnDone(self, stream_id, rows, size)
        )
        self.rows_written += rows
        self.messages_written += 1

    def _done(self, stream_id: str, rows: int, size: int, error: Exception | None) -> None:
        self._in_flight.release(size)
        if error is not None:
            self._fail(self._failure(stream_id, rows, error))

    def _failure(self, stream_id: str, rows: int, cause: Exception | str) -> DeliveryError:
        failure = DeliveryError(
            f"{rows:,} rows of stream {stream_id!r} were not delivered to topic {self.name!r}: {cause}",
            topic=self.name,
            stream_id=stream_id,
            rows=rows,
        )
        failure.__cause__ = cause if isinstance(cause, Exception) else None
        return failure

    def _fail(self, failure: DeliveryError) -> None:
        with self._lock:
            self._failures.append(failure)

    def _raise_failures(self) -> None:
        if not self._failures:
            return
        with self._lock:
            failures, self._failures = self._failures, []
        if not failures:
            return
        first, *others = failures
        if not others:
            raise first
        streams = sorted({failure.stream_id for failure in failures})
        named = ", ".join(streams[:5]) + (f" and {len(streams) - 5} more" if len(streams) > 5 else "")
        raise DeliveryError(
            f"{sum(f.rows for f in failures):,} rows in {len(failures)} messages (streams {named}) were not delivered "
            f"to topic {self.name!r}; first: {first}",
            topic=self.name,
            stream_id=first.stream_id,
            rows=first.rows,
            others=others,
        ) from first.__cause__

    def _release_buffers(self) -> None:
        for stream in self.streams.values():
            stream.parameters.buffer.flush()

    def _await(self, timeout: Duration | None) -> None:
        # The producer fails what is overdue at the delivery time-out; a little more lets it report that.
        limit = self._delivery_timeout + 5 if timeout is None else seconds(timeout, name="timeout")
        everything = self._producer.flush(limit)
        self._raise_failures()
        if not everything:
            raise BrokerUnavailableError(
                f"not everything written to topic {self.name!r} was acknowledged within {limit:g} s; "
                "it is still being tried"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"topic {self.name!r} is closed: open it again with client.open_output_topic")


class StreamWriter:
    """One stream of an output topic: what is written here shares one key, one partition, and its order."""

    def __init__(self, topic: OutputTopic, stream_id: str, buffer: BufferSettings) -> None:
        self.topic = topic
        self.stream_id = stream_id
        self.parameters = ParametersWriter(self, buffer)
        self._lock = threading.RLock()
        self._frames = FrameEncoder()
        self._session = uuid.uuid4().hex[:16]
        self._sequence = 0
        self._closed = False

    def flush(self, timeout: Duration | None = None) -> None:
        """Release this stream's buffer, and wait as :meth:`OutputTopic.flush` does."""
        self._check_open()
        self.parameters.buffer.flush()
        self.topic._await(timeout)

    def close(self) -> None:
        """Release this stream's buffer, and end the stream; it may be opened again. Does not wait for
        acknowledgement."""
        with self._lock:
            if self._closed:
                return
            self.parameters.buffer.flush()
            self._closed = True
        with self.topic._lock:
            self.topic._streams.pop(self.stream_id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<StreamWriter {self.stream_id!r} of topic {self.topic.name!r}: {state}>"

    def _encode(self, rows: Rows) -> pa.RecordBatch:
        with self._lock:
            if isinstance(rows, pd.DataFrame):
                return self._frames.encode(rows)
            return self._frames.encode_rows([rows] if isinstance(rows, Mapping) else rows)

    def _write(self, batch: pa.RecordBatch) -> None:
        """Send rows, after those that the buffer holds."""
        with self._lock:
            self._check_open()
            self.topic._raise_failures()
            self.parameters.buffer.flush()
            self._send(batch)

    def _send(self, batch: pa.RecordBatch) -> None:
        """Send rows. If it raises, every row that was not sent is named in the error."""
        topic, left = self.topic, batch.num_rows
        for value, headers, rows in topic._encoder.encode(
            batch,
            stream_id=self.stream_id,
            session=self._session,
            sequence=self._sequence,
            limit=topic._message_limit,
        ):
            topic._send(self.stream_id, value, headers, rows, left)
            self._sequence += 1
            left -= rows

    def _check_open(self) -> None:
        self.topic._check_open()
        if self._closed:
            raise ClosedError(f"stream {self.stream_id!r} of topic {self.topic.name!r} is closed: create it again")


class ParametersWriter:
    """Parameter data of a stream: ``write`` sends at once, ``buffer.write`` lets rows wait for company."""

    def __init__(self, stream: StreamWriter, buffer: BufferSettings) -> None:
        self._stream = stream
        self.buffer = ParametersBuffer(stream, buffer)

    def write(self, rows: Rows) -> None:
        """Send rows now: a DataFrame in, exactly these rows out, as one message unless they are over the topic's limit.

        Returns when they are accepted, not when they are acknowledged (see :meth:`OutputTopic.flush`). Rows that the
        buffer holds go first. A frame without rows is checked, and sends nothing.

        Raises:
            FrameError: the frame cannot be carried exactly. Nothing of it was sent.
            MessageTooLargeError: one row is over the topic's limit.
            DeliveryError: an earlier write to this topic failed. Nothing of this frame was sent.
        """
        self._stream._write(self._stream._encode(rows))


class ParametersBuffer:
    """Rows of a stream that wait to be sent together, by the rules of its :class:`~quixframes.BufferSettings`."""

    def __init__(self, stream: StreamWriter, settings: BufferSettings) -> None:
        self._stream = stream
        self._rows = RowBuffer(settings, FrameDecoder().decode)
        self._released: deque[pa.RecordBatch] = deque()
        self._collected: list[Mapping[str, Any]] = []
        self._since = 0.0
        # Rows given as dicts are collected and converted together, unless a rule has to look at each as it comes.
        looks = settings.time_span is not None or settings.trigger is not None or settings.filter is not None
        self._collect = 1 if looks else min(settings.rows or _COLLECTED_ROWS, _COLLECTED_ROWS)

    @property
    def settings(self) -> BufferSettings:
        """The rules by which rows are released."""
        return self._rows.settings

    def __len__(self) -> int:
        """How many rows are held."""
        return self._rows.rows + len(self._collected) + sum(int(batch.num_rows) for batch in self._released)

    def write(self, rows: Rows) -> None:
        """Hold rows until a rule of the settings releases them: a DataFrame, a dict for one row, or a list of dicts.

        A dict has the row's time under "time" (or "timestamp", "datetime") and its parameters under their names; NumPy
        scalars, None and missing keys are as good as anywhere.

        Raises:
            FrameError: the rows cannot be carried exactly. None of them is held.
            DeliveryError: an earlier write to this topic failed. None of these rows is held.
        """
        stream = self._stream
        with stream._lock:
            stream._check_open()
            stream.topic._raise_failures()
            if isinstance(rows, pd.DataFrame):
                batch = stream._encode(rows)
                self._convert()
                self._add(batch)
            else:
                self._collect_rows([rows] if isinstance(rows, Mapping) else rows)
            deadline = self._deadline()
        if deadline is not None:
            stream.topic._ticker.watch(self, deadline)

    def flush(self) -> None:
        """Send what is held now, without waiting for its acknowledgement."""
        with self._stream._lock:
            self._convert()
            released = self._rows.release("flush")
            if released is not None:
                self._released.append(released.batch)
            self._send()

    def _collect_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for n, row in enumerate(rows):
            if not isinstance(row, Mapping) or not any(str(key).lower() in _TIME_NAMES for key in row):
                raise FrameError(f"row {n} is not a dict with a time: write {{'time': ..., 'speed': 3}}", row=n)
        if not self._collected:
            self._since = time.monotonic()
        self._collected.extend(rows)
        if len(self._collected) + self._rows.rows >= self._collect:
            self._convert()

    def _convert(self) -> None:
        """Turn the collected dicts into rows of the buffer."""
        if not self._collected:
            return
        rows, self._collected = self._collected, []
        try:
            self._add(self._stream._encode(rows), self._since)
        except FrameError:
            # One row spoils the conversion of all: the others were accepted, so they go in one by one.
            spoilt: FrameError | None = None
            for row in rows:
                try:
                    self._add(self._stream._encode(row), self._since)
                except FrameError as exc:
                    spoilt = spoilt or exc
            if spoilt is not None:
                raise spoilt from None

    def _add(self, batch: pa.RecordBatch, now: float | None = None) -> None:
        added = self._rows.add(batch, time.monotonic() if now is None else now)
        self._released.extend(released.batch for released in added.releases)
        self._send()

    def _send(self) -> None:
        """Send what was released. An earlier failure that is told first leaves it to be sent by the next call."""
        while self._released:
            self._stream.topic._raise_failures()
            self._stream._send(self._released.popleft())

    def _deadline(self) -> float | None:
        if self._rows.deadline is not None or not self._collected or self.settings.timeout is None:
            return self._rows.deadline
        return self._since + seconds(self.settings.timeout)

    def _expire(self, now: float) -> float | None:
        """Send what is overdue; when to look again, None where nothing is held."""
        with self._stream._lock:
            deadline = self._deadline()
            if deadline is None or deadline > now:
                return deadline
            if self._stream.topic._failures:
                # Rows do not follow lost ones before the user was told: the next call tells, and sends these.
                return now + 1
            self.flush()
            return None


_TIME_NAMES = frozenset(("time", "timestamp", "datetime"))


class _OnDone:
    """What becomes of a message. A class, since one is made for every message: cheaper than a closure of four cells."""

    __slots__ = ("_rows", "_size", "_stream_id", "_topic")

    def __init__(self, topic: OutputTopic, stream_id: str, rows: int, size: int) -> None:
        self._topic, self._stream_id, self._rows, self._size = topic, stream_id, rows, size

    def __call__(self, error: Exception | None) -> None:
        self._topic._done(self._stream_id, self._rows, self._size, error)


class _Ticker:
    """A thread that releases buffers when their time is up. It starts with the first row that is held."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._watched: dict[ParametersBuffer, float] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, buffer: ParametersBuffer, deadline: float) -> None:
        with self._changed:
            if self._closed or buffer in self._watched:
                return
            self._watched[buffer] = deadline
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                due = [buffer for buffer, deadline in self._watched.items() if deadline <= now]
                if not due:
                    wait = min(self._watched.values(), default=None)
                    self._changed.wait(None if wait is None else wait - now)
                    continue
                for buffer in due:
                    del self._watched[buffer]
            for buffer in due:
                self._release(buffer)

    def _release(self, buffer: ParametersBuffer) -> None:
        held, stream = len(buffer), buffer._stream
        try:
            again = buffer._expire(time.monotonic())
        except Exception as exc:  # nobody is there to catch it: the next call on the topic raises it
            stream.topic._fail(stream.topic._failure(stream.stream_id, held, exc))
        else:
            if again is not None:
                self.watch(buffer, again)


def _checked_id(stream_id: object) -> str:
    if isinstance(stream_id, np.str_):
        stream_id = str(stream_id)
    if not isinstance(stream_id, str) or not stream_id:
        raise SettingsError(f"a stream ID has to be text that is not empty, not {stream_id!r}")
    try:
        stream_id.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"stream ID {stream_id!r} cannot be written as UTF-8") from None
    return stream_id


def in_flight(settings: WriterSettings) -> InFlight:
    """The bound of ``settings.memory``."""
    return InFlight(byte_count(settings.memory))
