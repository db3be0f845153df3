"""A stream of an output topic: its rows, its events, what it says of itself, and its end.

What this module holds to:

- What is written to a stream leaves in the order in which it was written, also where rows went through the buffer.
- Rows leave with the story that was true when they were written: a change of it sends first what was held.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes import frames
from quixframes.closing import Closing
from quixframes.codecs import Codec
from quixframes.errors import (
    ClosedError,
    ContractError,
    FrameError,
    MessageTooLargeError,
    QuixframesError,
    SettingsError,
)
from quixframes.events_writer import EventsWriter
from quixframes.foreign import encode_within
from quixframes.frames import FrameDecoder, FrameEncoder
from quixframes.kafka import MadeRecord, Outgoing
from quixframes.moments import moment
from quixframes.parameters_writer import ParametersWriter, Rows
from quixframes.settings import BufferSettings, Duration
from quixframes.story import Story, StreamProperties
from quixframes.tags import DefaultTags
from quixframes.wire import Headers, Kind, StreamEndType

if TYPE_CHECKING:
    from quixframes.output import MakeLetter, OutputTopic


class Described(Protocol):
    """A stream that says something of itself: one that is read, or one that is written."""

    @property
    def stream_id(self) -> str:
        """Its ID."""

    @property
    def story(self) -> Story:
        """What it says."""


__all__ = ["PropertiesWriter", "StreamWriter", "checked_id"]

_TELL_AFTER = 0.1  # seconds that a change of the story waits for rows to travel with


class Accepted(NamedTuple):
    """Rows that may be sent, in normal form; and of the same write, an error about rows that were left out, and dead
    letters, each with its number of rows."""

    batch: pa.RecordBatch
    refused: ContractError | None = None
    letters: Sequence[tuple[Outgoing, int]] = ()


class StreamWriter(Closing):
    """One stream of an output topic: what is written here shares one key, one partition, and its order.

    Leaving its ``with`` block ends the stream: as closed, by an error as aborted, by Ctrl-C and the like as terminated.
    """

    # Named, so that a misspelt attribute (``stream.epohc = ...``) is an error.
    __slots__ = (
        "_closed", "_decoder", "_epoch", "_frames", "_inherited", "_lock", "_sequence", "_session", "_story", "_untold",
        "events", "parameters", "partition", "properties", "stream_id", "topic",
    )  # fmt: skip

    def __init__(
        self,
        topic: OutputTopic,
        stream_id: str,
        partition: int,
        buffer: BufferSettings,
        properties: StreamProperties | None = None,
    ) -> None:
        self.topic = topic
        self.stream_id = stream_id
        self.partition = partition
        self._lock = threading.RLock()
        self._frames = FrameEncoder()
        self._decoder = FrameDecoder()
        self._session = uuid.uuid4().hex[:16]
        self._sequence = 0
        self._closed = False
        self._epoch = 0
        self._story = Story()
        self._inherited: Story | None = None
        # When the story has to be told by itself, if no rows tell it before; None where it has been told.
        self._untold: float | None = None
        self.parameters = ParametersWriter(self, buffer)
        self.events = EventsWriter(self)
        self.properties = PropertiesWriter(self)
        if properties is not None:
            story = Story(properties)
            self._check_story(story)
            self._begin_story(story)

    @property
    def story(self) -> Story:
        """Everything that the stream says of itself."""
        return self._story

    def inherit(self, stream: Described) -> None:
        """Say of this stream what another says of itself: its properties and definitions, with that stream as the
        parent. For a model's results; costs nothing while the other's story stays the same.

        >>> clean.get_or_create_stream(batch.stream_id).inherit(batch.stream)                  # doctest: +SKIP
        """
        story = stream.story
        if self._inherited is not story:
            self._retell(lambda _: story.with_properties(parents=(stream.stream_id,)))
            self._inherited = story

    @property
    def epoch(self) -> pd.Timestamp:
        """What integers and timedeltas in ``time`` count from, for rows and events alike; datetimes never do. Default:
        1970-01-01 UTC. Assign anything that ``pandas.Timestamp`` takes (naive means UTC)."""
        return pd.Timestamp(self._epoch, tz="UTC")

    @epoch.setter
    def epoch(self, value: Any) -> None:
        ns = moment(value, "epoch", "ns").value
        with self._lock:
            self.parameters.buffer._convert()
            self._epoch = ns

    def flush(self, timeout: Duration | None = None) -> None:
        """Release this stream's buffer, and wait as :meth:`OutputTopic.flush` does."""
        self._check_open()
        self._release()
        self.topic._await(timeout)

    def close(self, end: StreamEndType = StreamEndType.Closed) -> None:
        """Release this stream's buffer, and end the stream, which its readers are told; it may be opened again. Does
        not wait for acknowledgement. Closing again does nothing.

        Args:
            end: how it ended: ``StreamEndType.Closed``, ``Aborted`` or ``Terminated``.
        """
        if not isinstance(end, StreamEndType):
            raise SettingsError(f"end={end!r} has to be StreamEndType.Closed, Aborted or Terminated")
        with self._lock:
            if self._closed:
                return
            refused: QuixframesError | None = None
            try:
                self.parameters.buffer.flush()
            except (FrameError, MessageTooLargeError, ContractError) as exc:
                refused = exc  # about rows that were left out: the others went, and the end follows them
            if self.topic.codec is None:
                self._send_told(end)
            self._closed = True
        with self.topic._lock:
            self.topic._streams.pop(self.stream_id, None)
        if refused is not None:
            raise refused

    def _leave(self, exc: BaseException | None) -> None:
        if exc is None:
            self.close()
        else:
            self.close(StreamEndType.Aborted if isinstance(exc, Exception) else StreamEndType.Terminated)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<StreamWriter {self.stream_id!r} of topic {self.topic.name!r}: {state}>"

    # For parameters and events

    def _retell(self, change: Callable[[Story], Story]) -> None:
        """Say something else of the stream from here on, told with what is written next, or else in a moment."""
        with self._lock:
            self._check_open()
            story = change(self._story)
            if story == self._story:
                return
            self._check_story(story)
            self.parameters.buffer.flush()
            self._begin_story(story)

    def _begin_story(self, story: Story) -> None:
        self._story = story
        self._untold = deadline = time.monotonic() + _TELL_AFTER
        self.topic._ticker.watch(self.parameters.buffer, deadline)

    def _check_story(self, story: Story) -> None:
        self._check_own("properties and definitions")
        most = self.topic._message_limit // 4
        if story.nbytes > most:
            raise SettingsError(
                f"what stream {self.stream_id!r} says of itself takes {story.nbytes:,} bytes, and travels with "
                f"each message: it may be {most:,} bytes, a quarter of the topic's message limit"
            )

    def _release(self) -> None:
        """Send what the buffer holds, and tell the story if no rows have told it."""
        with self._lock:
            self.parameters.buffer.flush()
            self._tell()

    def _discard(self) -> None:
        """Forget what the buffer holds, and begin anew: what was sent since the last commit does not count, so a reader
        must not miss its numbers."""
        with self._lock:
            self.parameters.buffer._discard()
            self._session, self._sequence = uuid.uuid4().hex[:16], 0
            if self._story != Story():
                self._begin_story(self._story)

    def _tell(self) -> None:
        if self._untold is not None:
            self._send_told(None)

    def _accept(self, rows: Rows, tags: DefaultTags) -> Accepted:
        """What may be sent of rows, and what not. Nothing is sent by it.

        Raises:
            FrameError: they cannot be carried exactly, or not be written by the codec.
            MessageTooLargeError: one does not fit into a message.
            ContractError: they do not keep the contract. Of rows given as dicts, those that do are not spoilt by it:
                the error comes back as ``refused``.
        """
        with self._lock:
            if isinstance(rows, pd.DataFrame):
                batch = self._frames.encode(rows, epoch=self._epoch)
            else:
                batch = self._frames.encode_rows([rows] if isinstance(rows, Mapping) else rows, epoch=self._epoch)
            batch = tags.add(batch)
            self._check_size(batch)
            check = self.topic._contract
            if check is None:
                return Accepted(batch)
            dicts = not isinstance(rows, pd.DataFrame)
            conformed = check.apply(batch, self.stream_id, dicts=dicts)
            if conformed.batch is not batch:
                self._check_size(conformed.batch)
            if conformed.rejected is None:
                return Accepted(conformed.batch)
            error = check.breach(conformed, self.stream_id)
            if check.sends(conformed) and self.topic._letter is not None:
                rejected = frames.keep_rows(batch, conformed.rejected)
                return Accepted(conformed.batch, letters=self._letters(rejected, error, self.topic._letter))
            if dicts:
                return Accepted(conformed.batch, refused=error)
            raise error

    def _letters(
        self, rejected: pa.RecordBatch, error: ContractError, letter: MakeLetter
    ) -> list[tuple[Outgoing, int]]:
        """Rows as dead letters, each with how many it holds: the messages that they would have been in their topic."""
        topic, key = self.topic, self.stream_id.encode()
        made: Iterable[tuple[bytes, bytes, Headers, int]]
        if topic.codec is not None:
            frame = self._decoder.decode(rejected)
            made = encode_within(topic.codec, self.stream_id, frame, topic._message_limit)
        else:
            found = topic._encoder.encode(
                rejected,
                stream_id=self.stream_id,
                session=uuid.uuid4().hex[:16],
                sequence=0,
                limit=topic._message_limit,
                story=self._story,
            )
            made = ((key, value, headers, rows) for value, headers, rows in found)
        return [
            (letter(MadeRecord(topic.name, key, value, headers), error), rows) for key, value, headers, rows in made
        ]

    def _check_size(self, batch: pa.RecordBatch) -> None:
        topic = self.topic
        if topic.codec is not None:
            return  # it knows the size of its messages when it has made them
        topic._encoder.check(batch, stream_id=self.stream_id, limit=topic._message_limit, story=self._story)

    def _write(self, accepted: Accepted) -> None:
        """Send rows, after those that the buffer holds."""
        if accepted.refused is not None:
            raise accepted.refused
        with self._lock:
            self._check_open()
            self.topic._raise_failures()
            self.parameters.buffer.flush()
            self._send_letters(accepted)
            self._send(accepted.batch)

    def _send_letters(self, accepted: Accepted) -> None:
        left = sum(rows for _, rows in accepted.letters)
        for letter, rows in accepted.letters:
            self.topic._send(self.stream_id, letter, rows, left, None)
            left -= rows

    def _write_events(self, batch: pa.RecordBatch) -> None:
        """Send events, after the rows that the buffer holds."""
        with self._lock:
            self._check_open()
            self._check_own("events")
            self._check_size(batch)
            self.topic._raise_failures()
            self.parameters.buffer.flush()
            self._send(batch, Kind.EVENTS)

    def _send(self, batch: pa.RecordBatch, kind: Kind = Kind.PARAMETERS) -> None:
        """Send rows or events. If it raises, every one that was not sent is named in the error."""
        topic, left, key = self.topic, batch.num_rows, self.stream_id.encode()
        if topic.codec is not None:
            self._send_encoded(topic.codec, batch)
            return
        for value, headers, rows in topic._encoder.encode(
            batch,
            stream_id=self.stream_id,
            session=self._session,
            sequence=self._sequence,
            limit=topic._message_limit,
            kind=kind,
            story=self._story,
        ):
            topic._send(self.stream_id, Outgoing(topic.name, key, value, headers, self.partition), rows, left, kind)
            self._sequence += 1
            self._untold = None
            left -= rows

    def _send_encoded(self, codec: Codec, batch: pa.RecordBatch) -> None:
        """Send rows as a codec writes them."""
        topic, left = self.topic, batch.num_rows
        for key, value, headers, rows in encode_within(
            codec, self.stream_id, self._decoder.decode(batch), topic._message_limit
        ):
            # A codec's own keys are not streams' IDs: they go wherever they go.
            partition = self.partition if key == self.stream_id.encode() else None
            message = Outgoing(topic.name, key, value, headers, partition)
            topic._send(self.stream_id, message, rows, left, Kind.PARAMETERS)
            left -= rows

    def _check_codec(self, batch: pa.RecordBatch) -> None:
        """See whether a codec can write rows, before they are held."""
        if self.topic.codec is not None:
            encode_within(self.topic.codec, self.stream_id, self._decoder.decode(batch), self.topic._message_limit)

    def _check_own(self, what: str) -> None:
        if self.topic.codec is not None:
            raise SettingsError(
                f"topic {self.topic.name!r} is written through {type(self.topic.codec).__name__}, which carries rows: "
                f"{what} need quixframes' own wire format (open the topic without codec=)"
            )

    def _send_told(self, end: StreamEndType | None) -> None:
        """Send a message without rows: the stream's end, or its story alone."""
        value, headers = self.topic._encoder.tell(
            session=self._session, sequence=self._sequence, story=self._story, end=end
        )
        message = Outgoing(self.topic.name, self.stream_id.encode(), value, headers, self.partition)
        self.topic._send(self.stream_id, message, 0, 0, Kind.PROPERTIES if end is None else Kind.END)
        self._sequence += 1
        self._untold = None

    def _check_open(self) -> None:
        self.topic._check_open()
        if self._closed:
            raise ClosedError(f"stream {self.stream_id!r} of topic {self.topic.name!r} is closed: create it again")


class PropertiesWriter:
    """A stream's properties, set by attribute: ``car.properties.name = "Car 44"``. See
    :class:`~quixframes.StreamProperties` for what each may be.

    They are told with every message of the stream. Rows that were written before a change keep what was true then.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: StreamWriter) -> None:
        self._stream = stream

    def update(self, **changes: Any) -> None:
        """Change several at once: ``update(name="Car 44", location="/pit")``."""
        if unknown := changes.keys() - StreamProperties.__dataclass_fields__.keys():
            known = ", ".join(StreamProperties.__dataclass_fields__)
            raise SettingsError(f"a stream has no property {min(unknown)!r}: there are {known}")
        self._stream._retell(lambda story: story.with_properties(**changes))

    def _change_metadata(self, change: Callable[[dict[str, Any]], Any]) -> None:
        def changed(story: Story) -> Story:
            metadata = dict(story.properties.metadata)
            change(metadata)
            return story.with_properties(metadata=metadata)

        self._stream._retell(changed)

    @property
    def current(self) -> StreamProperties:
        """All of them as they are now."""
        return self._stream.story.properties

    @property
    def name(self) -> str | None:
        """What people call the stream."""
        return self.current.name

    @name.setter
    def name(self, value: str | None) -> None:
        self.update(name=value)

    @property
    def location(self) -> str | None:
        """Where it belongs in a tree of sources."""
        return self.current.location

    @location.setter
    def location(self, value: str | None) -> None:
        self.update(location=value)

    @property
    def metadata(self) -> MutableMapping[str, Any]:
        """Anything else, by name: ``metadata["tyres"] = "soft"``."""
        return _Metadata(self)

    @metadata.setter
    def metadata(self, value: Mapping[str, Any]) -> None:
        self.update(metadata=value)

    @property
    def parents(self) -> tuple[str, ...]:
        """The IDs of the streams that it was made from."""
        return self.current.parents

    @parents.setter
    def parents(self, value: Sequence[str]) -> None:
        self.update(parents=value)

    @property
    def time_of_recording(self) -> pd.Timestamp | None:
        """When what it tells was recorded (UTC)."""
        return self.current.time_of_recording

    @time_of_recording.setter
    def time_of_recording(self, value: Any) -> None:
        self.update(time_of_recording=value)

    def __repr__(self) -> str:
        return repr(self.current)


class _Metadata(MutableMapping[str, Any]):
    """A stream's metadata; what is changed here is told."""

    __slots__ = ("_properties",)

    def __init__(self, properties: PropertiesWriter) -> None:
        self._properties = properties

    def __getitem__(self, key: str) -> Any:
        return self._properties.current.metadata[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._properties._change_metadata(lambda metadata: metadata.update({key: value}))

    def __delitem__(self, key: str) -> None:
        self._properties._change_metadata(lambda metadata: metadata.pop(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._properties.current.metadata)

    def __len__(self) -> int:
        return len(self._properties.current.metadata)

    def __repr__(self) -> str:
        return repr(dict(self))


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
