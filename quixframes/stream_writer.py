"""A stream of an output topic: rows on their way from the user's hand to the topic, at once or through a buffer.

What this module holds to:

- Rows of a stream leave in the order in which they were written, also where some of them went through the buffer.
- Rows that a buffer has accepted leave it by being sent, or by being named in an error.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.buffer import RowBuffer
from quixframes.errors import ClosedError, DeliveryError, FrameError, MessageTooLargeError, SettingsError
from quixframes.frames import FrameDecoder, FrameEncoder
from quixframes.settings import BufferSettings, Duration, seconds

if TYPE_CHECKING:
    from quixframes.output import OutputTopic

__all__ = ["ParametersBuffer", "ParametersWriter", "Rows", "StreamWriter", "Ticker", "checked_id"]

Rows = pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Rows as people have them: a DataFrame, one row as a dict, or a list of such dicts."""

_COLLECTED_ROWS = 10_000
_TIME_NAMES = frozenset(("time", "timestamp", "datetime"))


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
        """Rows in normal form, each of which fits into a message."""
        with self._lock:
            if isinstance(rows, pd.DataFrame):
                batch = self._frames.encode(rows)
            else:
                batch = self._frames.encode_rows([rows] if isinstance(rows, Mapping) else rows)
            self.topic._encoder.check(batch, stream_id=self.stream_id, limit=self.topic._message_limit)
            return batch

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
            try:
                self._convert()
            finally:
                released = self._rows.release("flush")
                if released is not None:
                    self._released.append(released.batch)
                if self._stream.topic._tells_first:
                    self._stream.topic._raise_failures()
                self._send()

    def _collect_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for n, row in enumerate(rows):
            _check_time(row, n)
        if not self._collected:
            self._since = time.monotonic()
        self._collected.extend(rows)
        if len(self._collected) + self._rows.rows >= self._collect:
            self._convert()

    def _convert(self) -> None:
        """Turn the collected dicts into rows of the buffer.

        A row that cannot be carried spoils no other: it is left out, and raises once the others are held.
        """
        rows, self._collected = self._collected, []
        refused: list[FrameError | MessageTooLargeError] = []
        while rows:
            try:
                self._add(self._stream._encode(rows), self._since)
                break
            except (FrameError, MessageTooLargeError) as exc:
                refused.append(exc)
                rows = [] if exc.row is None else [row for n, row in enumerate(rows) if n != exc.row]
        if refused:
            stream = self._stream
            more = f" (and {len(refused) - 1} more rows)" if len(refused) > 1 else ""
            raise FrameError(
                f"a row written to the buffer of stream {stream.stream_id!r}, topic {stream.topic.name!r}, was left "
                f"out: {refused[0]}{more}",
                column=getattr(refused[0], "column", None),
                row=refused[0].row,
            ) from refused[0]

    def _add(self, batch: pa.RecordBatch, now: float | None = None) -> None:
        added = self._rows.add(batch, time.monotonic() if now is None else now)
        self._released.extend(released.batch for released in added.releases)
        self._send()

    def _send(self) -> None:
        """Send what was released. After a failure that is not told yet it waits for the call that tells."""
        while self._released and not self._stream.topic._tells_first:
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
            if self._stream.topic._tells_first:
                # Rows do not follow lost ones before the user was told: the next call tells, and sends these.
                return now + 1
            self.flush()
            return None


def _check_time(row: object, number: int) -> None:
    """What can be said of a row when it is written, so that it is said there."""
    if not isinstance(row, Mapping):
        raise FrameError(f"row {number} is no dict: write {{'time': ..., 'speed': 3}}", row=number)
    for key, value in row.items():
        if str(key).lower() in _TIME_NAMES:
            if value is None or isinstance(value, (str, bytes)):
                raise FrameError(
                    f"row {number}: time {value!r} is no time: give a datetime, a pandas.Timestamp or nanoseconds",
                    column=key,
                    row=number,
                )
            return
    raise FrameError(f"row {number} has no time: write {{'time': ..., 'speed': 3}}", row=number)


class Ticker:
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
        stream, held = buffer._stream, len(buffer)
        try:
            again = buffer._expire(time.monotonic())
        except DeliveryError as exc:
            with stream.topic._lock:  # counted where it happened; the next call on the topic raises it
                stream.topic._failures.append(exc)
        except Exception as exc:  # nobody is there to catch it: the next call on the topic raises it
            rows = 1 if isinstance(exc, FrameError) else held
            stream.topic._fail(stream.topic._failure(stream.stream_id, rows, exc))
        else:
            if again is not None:
                self.watch(buffer, again)


def checked_id(stream_id: object) -> str:
    if isinstance(stream_id, np.str_):
        stream_id = str(stream_id)
    if not isinstance(stream_id, str) or not stream_id:
        raise SettingsError(f"a stream ID has to be text that is not empty, not {stream_id!r}")
    try:
        stream_id.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"stream ID {stream_id!r} cannot be written as UTF-8") from None
    return stream_id
