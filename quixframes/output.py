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
from collections.abc import Callable

import pandas as pd

from quixframes import frames
from quixframes.closing import Closing
from quixframes.codecs import Codec
from quixframes.contract_check import ContractCheck
from quixframes.contracts import Contract
from quixframes.errors import (
    BrokerUnavailableError,
    ClosedError,
    DeliveryError,
    QuixframesError,
    SettingsError,
    StreamExistsError,
    StreamNotFoundError,
)
from quixframes.kafka import Outgoing, Producer, Record, TopicDescription, TransactionalProducer
from quixframes.logs import Place
from quixframes.parameters_writer import Rows, Ticker
from quixframes.placement_store import Placer
from quixframes.settings import BufferSettings, Duration, WriterSettings, byte_count, seconds
from quixframes.story import StreamProperties
from quixframes.stream_writer import StreamWriter, checked_id
from quixframes.wire import Kind, MessageEncoder, StreamEndType

MakeLetter = Callable[[Record, Exception], Outgoing]
"""Makes the dead letter of a record, as ``quixframes.dead_letters.dead_letter`` does for one topic."""

__all__ = ["InFlight", "OutputTopic", "Outputs"]

log = logging.getLogger(__name__)

_LOOK_AGAIN = 0.2
# What a message takes beside its value: its key and its headers, and the objects that hold them.
_BESIDE_VALUE = 1_000
_WHAT = {
    Kind.PARAMETERS: "{:,} rows",
    Kind.EVENTS: "{:,} events",
    Kind.PROPERTIES: "the properties and definitions",
    Kind.END: "the end",
    None: "{:,} dead letters' rows",
}


class InFlight:
    """Counts the bytes that are sent and not yet acknowledged, and makes senders wait past a limit. One for each
    client."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self.bytes = 0
        self.waited = 0.0

    def acquire(self, size: int, given_up: Callable[[], bool]) -> bool:
        """Wait until ``size`` more bytes may be sent; False once ``given_up`` says so.

        More than the whole limit may go when nothing else is under way. What is in flight is acknowledged or fails
        within the delivery time-out, so this ends.
        """
        with self._changed:
            begun = time.monotonic()
            while self.bytes and self.bytes + size > self._limit:
                if given_up():
                    return False
                self._changed.wait(_LOOK_AGAIN)
                self.waited += time.monotonic() - begun
                begun = time.monotonic()
            self.bytes += size
            return True

    def release(self, size: int) -> None:
        """``size`` bytes were acknowledged or given up."""
        with self._changed:
            self.bytes -= size
            self._changed.notify_all()


class Outputs:
    """The output topics of a client: flushed together before anything is committed.

    They write through ``producer``; or, while a topic is read exactly once, through the producer of its transactions.
    """

    def __init__(
        self,
        settings: WriterSettings,
        producer: Callable[[], Producer],
        on_close: Callable[[OutputTopic], object] = lambda topic: None,
    ) -> None:
        self.settings = settings
        self._on_close = on_close
        self.in_flight = InFlight(byte_count(settings.memory))
        self._make_producer = producer
        self._plain: Producer | None = None
        self._transactional: TransactionalProducer | None = None
        self._lock = threading.Lock()
        self._topics: list[OutputTopic] = []
        self._failures = 0
        self.sent = 0
        """Rises with what is sent, so that it says whether anything was."""

    @property
    def topics(self) -> list[OutputTopic]:
        """Those that are open."""
        with self._lock:
            return list(self._topics)

    @property
    def producer(self) -> Producer:
        """What everything is written through now."""
        if self._transactional is not None:
            return self._transactional
        if self._plain is None:
            self._plain = self._make_producer()
        return self._plain

    def wait(self, timeout: float) -> bool:
        """Wait until everything sent is acknowledged or has failed; whether that came within ``timeout`` seconds."""
        producer = self._transactional or self._plain
        return producer is None or producer.flush(timeout)

    @property
    def failures(self) -> int:
        """How many messages have failed so far. A reader compares it: what a model wrote since then was delivered, or
        this number has changed."""
        return self._failures

    def flush(self, timeout: float) -> None:
        """Release every buffer, and wait until all that was written is acknowledged; raises what has failed."""
        topics = self.topics
        errors = self._release()
        everything = not topics or self.wait(timeout)
        self.raise_failures()
        if errors:
            raise errors[0]
        if not everything:
            raise BrokerUnavailableError(
                f"not everything written was acknowledged within {timeout:g} s; it is still being tried"
            )

    def release(self) -> None:
        """Send what the buffers hold; raises what is wrong with it."""
        if errors := self._release():
            raise errors[0]

    def raise_failures(self) -> None:
        """Raise what has failed and was not told yet."""
        for topic in self.topics:
            topic._raise_failures()

    def count(self) -> None:
        """A message was sent."""
        with self._lock:
            self.sent += 1

    def take_failures(self) -> list[DeliveryError]:
        """What has failed and was not told yet, which the caller tells."""
        found: list[DeliveryError] = []
        for topic in self.topics:
            try:
                topic._raise_failures()
            except DeliveryError as exc:
                found.append(exc)
        return found

    def begin_transactions(self, producer: TransactionalProducer) -> None:
        """Write through this producer from now on. What was written before is acknowledged first."""
        self.flush(seconds(self.settings.delivery_timeout) + 5)
        self._transactional = producer

    def end_transactions(self, producer: TransactionalProducer) -> None:
        """Write without transactions again, if it is by this producer's until now."""
        if self._transactional is producer:
            self._transactional = None

    @property
    def in_transactions(self) -> bool:
        """Whether what is written takes effect with the next commit of a topic that is read exactly once."""
        return self._transactional is not None

    def discard(self) -> None:
        """What was written since the last commit does not count: drop what the buffers hold of it, and begin the
        streams anew."""
        for topic in self.topics:
            for stream in topic.streams.values():
                stream._discard()

    def _release(self) -> list[QuixframesError]:
        return [error for topic in self.topics for error in topic._release_buffers()]

    def _add(self, topic: OutputTopic) -> None:
        with self._lock:
            self._topics.append(topic)

    def _remove(self, topic: OutputTopic) -> None:
        with self._lock:
            if topic in self._topics:
                self._topics.remove(topic)
        self._on_close(topic)

    def _count_failure(self) -> None:
        with self._lock:
            self._failures += 1


class OutputTopic(Closing):
    """A topic to write to, as :meth:`StreamingClient.open_output_topic` opens it. Safe to use from several threads.

    >>> with client.open_output_topic("engine") as topic:                                       # doctest: +SKIP
    ...     topic.write(frame, stream="car-44")
    """

    __slots__ = (
        "_buffer_settings", "_closed", "_contract", "_delivery_timeout", "_encoder", "_failures", "_give_up_at",
        "_in_flight", "_letter", "_lock", "_message_limit", "_outputs", "_placer", "_streams", "_ticker",
        "bytes_written", "codec", "events_written", "messages_written", "name", "partitions", "rows_dead",
        "rows_written",
    )  # fmt: skip

    def __init__(
        self,
        description: TopicDescription,
        placer: Placer,
        outputs: Outputs,
        buffer: BufferSettings,
        codec: Codec | None = None,
        contract: ContractCheck | None = None,
        letter: MakeLetter | None = None,
    ) -> None:
        self.name = description.name
        self._contract = contract
        self._letter = letter
        self.codec = codec
        self.partitions = description.partitions
        self._placer = placer
        self._message_limit = description.message_limit
        self._outputs = outputs
        self._in_flight = outputs.in_flight
        self._delivery_timeout = seconds(outputs.settings.delivery_timeout)
        self._buffer_settings = buffer
        self._lock = threading.Lock()
        self._streams: dict[str, StreamWriter] = {}
        self._failures: list[DeliveryError] = []
        self._closed = False
        self._give_up_at: float | None = None
        self._encoder = MessageEncoder()
        self._ticker = Ticker(f"quixframes-buffers-{self.name}")
        self.rows_written = 0
        self.events_written = 0
        self.rows_dead = 0
        self.messages_written = 0
        self.bytes_written = 0
        outputs._add(self)

    # Streams

    @property
    def streams(self) -> dict[str, StreamWriter]:
        """The streams that are open, by ID."""
        with self._lock:
            return dict(self._streams)

    def create_stream(
        self,
        stream_id: str | None = None,
        *,
        buffer: BufferSettings | None = None,
        properties: StreamProperties | None = None,
    ) -> StreamWriter:
        """Open a stream that is not open yet.

        Args:
            stream_id: its name, and its Kafka key; a new unique one when None.
            buffer: the rules of its buffer; those of the topic when None.
            properties: what it says of itself from the beginning; ``stream.properties`` changes it.

        Raises:
            StreamExistsError: a stream of that ID is open on this topic.
            SettingsError: the ID is empty, or not text.
        """
        stream_id = str(uuid.uuid4()) if stream_id is None else checked_id(stream_id)
        with self._lock:
            self._check_open()
            if stream_id in self._streams:
                raise StreamExistsError(
                    f"stream {stream_id!r} is open on topic {self.name!r} already: "
                    "use get_or_create_stream or get_stream"
                )
            stream = self._streams[stream_id] = self._new_stream(stream_id, buffer, properties)
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

    def get_or_create_stream(
        self,
        stream_id: str,
        *,
        buffer: BufferSettings | None = None,
        properties: StreamProperties | None = None,
    ) -> StreamWriter:
        """The open stream of that ID, or a new one; ``buffer`` and ``properties`` are for a new one, as in
        :meth:`create_stream`."""
        with self._lock:
            self._check_open()
            stream = self._streams.get(stream_id)
            if stream is None:
                stream = self._streams[stream_id] = self._new_stream(checked_id(stream_id), buffer, properties)
        return stream

    def _new_stream(
        self, stream_id: str, buffer: BufferSettings | None, properties: StreamProperties | None
    ) -> StreamWriter:
        partition = self._placer.partition(stream_id)
        return StreamWriter(self, stream_id, partition, buffer or self._buffer_settings, properties)

    @property
    def contract(self) -> Contract | None:
        """What rows have to be like; None where the topic has no contract."""
        return None if self._contract is None else self._contract.contract

    @property
    def contract_counts(self) -> pd.DataFrame:
        """Rows that did not keep the contract, by column and problem, whatever became of them."""
        return pd.DataFrame() if self._contract is None else self._contract.counts

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
            (writer := self.get_or_create_stream(stream_id), writer._accept(frame, writer.parameters._tags))
            for stream_id, frame in frames.split_by(rows, by or "")
        ]
        for writer, accepted in parts:
            writer._write(accepted)

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
        errors = self._release_buffers()
        self._await(timeout)
        if errors:
            raise errors[0]

    def close(self, timeout: Duration | None = None) -> None:
        """Flush, and let go of the topic's streams. Closing again does nothing. Raises what :meth:`flush` raises, once
        closed.

        Streams are not ended by it, since the next run of a program goes on with them: ``stream.close()`` ends one.
        Leaving the topic's ``with`` block by an error ends those that are open as aborted.
        """
        with self._lock:
            if self._closed:
                return
            # From here on nothing more is accepted; what a writer in another thread has begun is waited for below.
            self._closed = True
            deadline = self._give_up_at = time.monotonic() + self._patience(timeout)
        try:
            errors = self._release_buffers()
            self._await(max(0.1, deadline - time.monotonic()))
        finally:
            with self._lock:
                self._streams.clear()
            self._ticker.close()
            self._outputs._remove(self)
        if errors:
            raise errors[0]

    def _leave(self, exc: BaseException | None) -> None:
        if isinstance(exc, Exception):
            self._abort_streams()
        self.close()

    def _abort_streams(self) -> None:
        """End the streams that are open as aborted. What fails of it is told when the topic is closed."""
        for stream in self.streams.values():
            try:
                stream.close(StreamEndType.Aborted)
            except QuixframesError as exc:
                place = Place(self.name, stream_id=stream.stream_id)
                log.warning("%s: it could not be ended as aborted: %s", place, exc, extra=place.extra)

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

    def _send(self, stream_id: str, message: Outgoing, rows: int, left: int, kind: Kind | None) -> None:
        """Send one message of ``rows`` rows or events; ``left`` are this one's and those that would follow it in the
        same write. ``kind`` is None for a dead letter."""
        size = len(message.value or b"") + _BESIDE_VALUE
        room = self._in_flight.acquire(size, self._has_given_up)
        if self._tells_first or not room:
            # What was waited for has failed: rows that come after lost ones are not sent behind them, but lost too.
            if room:
                self._in_flight.release(size)
            why = "earlier rows of this topic failed first" if room else "closing ended before there was room for them"
            self._fail(self._failure(stream_id, left, why, kind))
            self._raise_failures()
        self._outputs.producer.send(message, _OnDone(self, stream_id, rows, size, kind))
        self._outputs.count()
        with self._lock:
            if kind is None:
                self.rows_dead += rows
                return
            self.messages_written += 1
            self.bytes_written += size - _BESIDE_VALUE
            if kind is Kind.PARAMETERS:
                self.rows_written += rows
            else:
                self.events_written += rows

    @property
    def _tells_first(self) -> bool:
        """Whether a failure has to be told before more rows are sent. A topic that is closing tells at the end."""
        return bool(self._failures) and self._give_up_at is None

    def _has_given_up(self) -> bool:
        return self._give_up_at is not None and time.monotonic() > self._give_up_at

    def _done(self, stream_id: str, rows: int, size: int, kind: Kind | None, error: Exception | None) -> None:
        self._in_flight.release(size)
        if error is not None:
            self._fail(self._failure(stream_id, rows, error, kind))

    def _failure(
        self, stream_id: str, rows: int, cause: Exception | str, kind: Kind | None = Kind.PARAMETERS
    ) -> DeliveryError:
        what = _WHAT[kind].format(rows)
        failure = DeliveryError(
            f"{what} of stream {stream_id!r} were not delivered to topic {self.name!r}: {cause}",
            topic=self.name,
            stream_id=stream_id,
            rows=rows,
        )
        failure.__cause__ = cause if isinstance(cause, Exception) else None
        return failure

    def _fail(self, failure: DeliveryError) -> None:
        self._outputs._count_failure()
        with self._lock:
            self._failures.append(failure)

    def _raise_failures(self) -> None:
        if not self._failures:
            return
        with self._lock:
            failures, self._failures = self._failures, []
        if not failures:
            return
        # One that was told and put back, since more had to be done first, has the others in it.
        first, *others = failures = [failure for told in failures for failure in (told, *told.others)]
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

    def _release_buffers(self) -> list[QuixframesError]:
        """Send what the buffers hold. What is wrong with one stream's rows keeps no other's back."""
        errors: list[QuixframesError] = []
        for stream in self.streams.values():
            try:
                stream._release()
            except DeliveryError as exc:
                # Told already where it happened, and to be told once more when everything is done.
                with self._lock:
                    self._failures.append(exc)
            except QuixframesError as exc:
                errors.append(exc)
        return errors

    def _await(self, timeout: Duration | None) -> None:
        limit = self._patience(timeout)
        everything = self._outputs.wait(limit)
        self._raise_failures()
        if not everything:
            raise BrokerUnavailableError(
                f"not everything written to topic {self.name!r} was acknowledged within {limit:g} s; "
                "it is still being tried"
            )

    def _patience(self, timeout: Duration | None) -> float:
        # The producer fails what is overdue at the delivery time-out; a little more lets it report that.
        return self._delivery_timeout + 5 if timeout is None else seconds(timeout, name="timeout")

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"topic {self.name!r} is closed: open it again with client.open_output_topic")


class _OnDone:
    """What becomes of a message. A class, since one is made for every message: cheaper than a closure of four cells."""

    __slots__ = ("_kind", "_rows", "_size", "_stream_id", "_topic")

    def __init__(self, topic: OutputTopic, stream_id: str, rows: int, size: int, kind: Kind | None) -> None:
        self._topic, self._stream_id, self._rows, self._size, self._kind = topic, stream_id, rows, size, kind

    def __call__(self, error: Exception | None) -> None:
        self._topic._done(self._stream_id, self._rows, self._size, self._kind, error)
