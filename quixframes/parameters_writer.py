"""Parameter data of a stream on its way from the user's hand to the topic, at once or through a buffer.

What this module holds to:

- Rows that a buffer has accepted leave it by being sent, or by being named in an error.
- Rows given as dicts are converted together: columns collected, each once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
import pyarrow as pa

from quixframes.buffer import RowBuffer
from quixframes.errors import ContractError, DeliveryError, FrameError, MessageTooLargeError
from quixframes.frames import FrameDecoder
from quixframes.settings import BufferSettings, seconds
from quixframes.story import ParameterDefinition
from quixframes.tags import DefaultTags, checked_tags
from quixframes.writer_definitions import DefinitionsWriter

if TYPE_CHECKING:
    from quixframes.stream_writer import Accepted, StreamWriter

__all__ = ["ParametersBuffer", "ParametersWriter", "Rows", "Ticker"]

Rows = pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Rows as people have them: a DataFrame, one row as a dict, or a list of such dicts."""

_COLLECTED_ROWS = 10_000
_TIME_NAMES = frozenset(("time", "timestamp", "datetime"))


class ParametersWriter(DefinitionsWriter[ParameterDefinition]):
    """Parameter data of a stream: ``write`` sends at once, ``buffer.write`` lets rows wait for company."""

    __slots__ = ("_tags", "buffer")

    def __init__(self, stream: StreamWriter, buffer: BufferSettings) -> None:
        super().__init__(stream)
        self._tags = DefaultTags({})
        self.buffer = ParametersBuffer(stream, buffer)

    def add_definition(
        self,
        id: str,
        name: str | None = None,
        description: str | None = None,
        *,
        unit: str | None = None,
        range: tuple[float | None, float | None] | None = None,
        format: str | None = None,
        custom: Mapping[str, Any] | None = None,
        location: str | None = None,
    ) -> Self:
        """Say what a parameter is; see :class:`~quixframes.ParameterDefinition` for the arguments.

        It is told with every message from here on. Defining a parameter again replaces what was said of it.

        Args:
            location: under :attr:`default_location`, which is the default.

        Raises:
            SettingsError: an argument that cannot be.
        """
        return self._define(
            ParameterDefinition(id, name, description, unit, range, format, custom or {}, self._under_default(location))
        )

    @property
    def definitions(self) -> pd.DataFrame:
        """What was said of the parameters, as :attr:`StreamReader.parameters` has it."""
        return self._stream.story.parameters.definitions

    @property
    def default_tags(self) -> Mapping[str, str]:
        """Tags that each row gets that has none of that name: ``{"lap": "12"}`` fills the column ``TAG__lap``. Assign a
        dict to change them; rows that are held already keep the earlier ones."""
        return MappingProxyType(self._tags.tags)

    @default_tags.setter
    def default_tags(self, tags: Mapping[str, str]) -> None:
        with self._stream._lock:
            new = DefaultTags(tags)
            self.buffer._convert()
            self._tags = new
            self.buffer._take_tags(new)

    def write(self, rows: Rows) -> None:
        """Send rows now: a DataFrame in, exactly these rows out, as one message unless they are over the topic's limit.

        Returns when they are accepted, not when they are acknowledged (see :meth:`OutputTopic.flush`). Rows that the
        buffer holds go first. A frame without rows is checked, and sends nothing.

        Raises:
            FrameError: the frame cannot be carried exactly. Nothing of it was sent.
            MessageTooLargeError: one row is over the topic's limit.
            ContractError: rows do not keep the topic's contract. Nothing of the frame was sent.
            DeliveryError: an earlier write to this topic failed. Nothing of this frame was sent.
        """
        self._stream._write(self._stream._accept(rows, self._tags))


class ParametersBuffer:
    """Rows of a stream that wait to be sent together, by the rules of its :class:`~quixframes.BufferSettings`."""

    __slots__ = ("_collect", "_collected", "_own_tags", "_released", "_rows", "_since", "_stream", "_tags", "refused")

    def __init__(self, stream: StreamWriter, settings: BufferSettings) -> None:
        self._stream = stream
        # Its own, and those with the stream's beside them.
        self._own_tags: dict[str, str] = {}
        self._tags = DefaultTags({})
        self._rows = RowBuffer(settings, FrameDecoder().decode)
        self._released: deque[pa.RecordBatch] = deque()
        self._collected: list[Mapping[str, Any]] = []
        self._since = 0.0
        self.refused = 0  # rows that were left out so far, each of which was told
        # Rows given as dicts are collected and converted together, unless a rule has to look at each as it comes.
        looks = settings.time_span is not None or settings.trigger is not None or settings.filter is not None
        self._collect = 1 if looks else min(settings.rows or _COLLECTED_ROWS, _COLLECTED_ROWS)

    @property
    def settings(self) -> BufferSettings:
        """The rules by which rows are released."""
        return self._rows.settings

    @property
    def default_tags(self) -> Mapping[str, str]:
        """As :attr:`ParametersWriter.default_tags`, for rows that go through this buffer; these come first."""
        return MappingProxyType(self._own_tags)

    @default_tags.setter
    def default_tags(self, tags: Mapping[str, str]) -> None:
        with self._stream._lock:
            own = checked_tags(tags)
            self._convert()
            self._own_tags = own
            self._take_tags(self._stream.parameters._tags)

    def _take_tags(self, of_stream: DefaultTags) -> None:
        self._tags = DefaultTags({**of_stream.tags, **self._own_tags})

    def __len__(self) -> int:
        """How many rows are held."""
        return self._rows.rows + len(self._collected) + sum(int(batch.num_rows) for batch in self._released)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows that are held; rows given as dicts count once they are converted, up to 10,000 together."""
        return self._rows.nbytes

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
                accepted = self._accept(rows)
                self._convert()
                self._add(accepted)
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

    def _discard(self) -> None:
        """Drop what is held."""
        self._collected.clear()
        self._released.clear()
        self._rows.release("discard")

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
        refused: list[FrameError | MessageTooLargeError | ContractError] = []
        count = 0
        while rows:
            try:
                accepted = self._accept(rows)
            except (FrameError, MessageTooLargeError) as exc:
                refused.append(exc)
                count += len(rows) if exc.row is None else 1
                rows = [] if exc.row is None else [row for n, row in enumerate(rows) if n != exc.row]
            else:
                if accepted.refused is not None:
                    refused.append(accepted.refused)
                    count += len(rows) - accepted.batch.num_rows
                self._add(accepted, self._since)
                break
        if refused:
            self.refused += count
            stream = self._stream
            what = "a row" if count == 1 else f"{count:,} rows"
            first = refused[0]
            text = (
                f"{what} written to the buffer of stream {stream.stream_id!r}, topic {stream.topic.name!r}, "
                f"{'was' if count == 1 else 'were'} left out: {first}"
            )
            if isinstance(first, ContractError):
                raise ContractError(
                    text, topic=first.topic, stream_id=first.stream_id, problems=first.problems
                ) from first
            raise FrameError(text, column=getattr(first, "column", None), row=first.row) from first

    def _accept(self, rows: Rows) -> Accepted:
        accepted = self._stream._accept(rows, self._tags)
        self._stream._check_codec(accepted.batch)
        return accepted

    def _add(self, accepted: Accepted, now: float | None = None) -> None:
        self._stream._send_letters(accepted)
        added = self._rows.add(accepted.batch, time.monotonic() if now is None else now)
        self._released.extend(released.batch for released in added.releases)
        self._send()

    def _send(self) -> None:
        """Send what was released. After a failure that is not told yet it waits for the call that tells."""
        while self._released and not self._stream.topic._tells_first:
            self._stream._send(self._released.popleft())

    def _deadline(self) -> float | None:
        """When rows have to leave, or the stream's story has to be told though no rows followed."""
        deadlines = [self._rows.deadline, self._stream._untold]
        if self._collected and self.settings.timeout is not None:
            deadlines.append(self._since + seconds(self.settings.timeout))
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

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
            self._stream._tell()
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
            if self._closed or self._watched.get(buffer, deadline + 1) <= deadline:
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
        stream, held, refused = buffer._stream, len(buffer), buffer.refused
        try:
            again = buffer._expire(time.monotonic())
        except DeliveryError as exc:
            with stream.topic._lock:  # counted where it happened; the next call on the topic raises it
                stream.topic._failures.append(exc)
        except Exception as exc:  # nobody is there to catch it: the next call on the topic raises it
            rows = buffer.refused - refused or held
            stream.topic._fail(stream.topic._failure(stream.stream_id, rows, exc))
        else:
            if again is not None:
                self.watch(buffer, again)
