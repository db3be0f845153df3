"""Record batches, a stream's story and its end, and the Kafka messages that carry them. No I/O: messages in, record
batches out, and the reverse.

``docs/wire-format.md`` describes the format for readers in other languages. What this module holds to:

- A message is readable by itself: its value is one whole Arrow IPC stream (schema, dictionaries, a record batch, end).
- Equal schemas give equal schema bytes, so both sides keep them: writing appends a record batch to bytes that are there
  already, and reading compares them instead of parsing them. That is most of the cost of a small message.
- Nothing that arrives is trusted. Whatever the bytes are, :meth:`MessageDecoder.decode` returns a valid record batch or
  raises a ``WireError``: it does not crash, hang, or allocate more than in proportion to the message.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quixframes import frames
from quixframes.errors import DamagedMessageError, ForeignMessageError, FutureVersionError, MessageTooLargeError
from quixframes.event_frames import check_events
from quixframes.kafka import Record
from quixframes.plans import Plans
from quixframes.story import Story, StoryReader

__all__ = ["VERSION", "Headers", "Kind", "Message", "MessageDecoder", "MessageEncoder", "StreamEndType", "event_times"]

VERSION = 1

Headers = list[tuple[str, bytes]]
_Fields = dict[str, bytes | None]

_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_KEPT_SCHEMAS = 256
_PREFIX = 8  # bytes before an Arrow IPC message's metadata: a continuation mark, and the metadata's length
_NO_STORY = Story()
# Kafka applies a topic's limit to the batch that a message travels in: that has 61 bytes of its own, and the message
# has lengths and deltas, its key, and our headers (some 250 bytes; their exact size hangs on the numbers in them).
_MESSAGE_OVERHEAD = 512


class Kind(enum.Enum):
    """What a message carries; its name on the wire."""

    PARAMETERS = "parameters"
    EVENTS = "events"
    PROPERTIES = "properties"
    """Nothing but the stream's story, which every message tells: for a change that no rows follow at once."""
    END = "end"


class StreamEndType(enum.Enum):
    """How a stream ended: as it should, by an error, or because its writer was told to stop."""

    Closed = "closed"
    Aborted = "aborted"
    Terminated = "terminated"


class Message(NamedTuple):
    """A message that has been read, and where in the stream's writing it stands.

    ``batch`` are rows or events; None in the other kinds. ``session`` names one opening of the stream by one writer;
    ``sequence`` counts its messages from 0. ``story`` is what the stream says of itself; equal ones are one object.
    """

    stream_id: str
    kind: Kind
    batch: pa.RecordBatch | None
    session: str
    sequence: int
    story: Story
    end: StreamEndType | None

    @property
    def entries(self) -> int:
        """What there is to be finished in it: its rows, its events, or one end."""
        if self.batch is None:
            return 0 if self.end is None else 1
        return int(self.batch.num_rows)


@dataclass(frozen=True, slots=True)
class _EncodedSchema:
    encoded: bytes
    fingerprint: bytes
    dictionaries: int
    row_width: int | None

    @classmethod
    def of(cls, schema: pa.Schema) -> _EncodedSchema:
        encoded = schema.serialize().to_pybytes()
        return cls(encoded, _fingerprint(encoded), _dictionaries(schema), frames.row_width(schema))


def _fingerprint(schema_bytes: bytes | memoryview) -> bytes:
    return hashlib.blake2b(schema_bytes, digest_size=8).hexdigest().encode()


class MessageEncoder:
    """Turns record batches in normal form into message values and headers. One for each topic; safe in any thread."""

    def __init__(self) -> None:
        self._schemas = Plans(_EncodedSchema.of, kept=_KEPT_SCHEMAS)

    def encode(
        self,
        batch: pa.RecordBatch,
        *,
        stream_id: str,
        session: str,
        sequence: int,
        limit: int,
        kind: Kind = Kind.PARAMETERS,
        story: Story = _NO_STORY,
    ) -> Iterator[tuple[bytes, Headers, int]]:
        """The messages for rows or events, as (value, headers, rows), cut by rows so that each stays under ``limit``
        bytes.

        Messages are numbered from ``sequence`` on, and made as they are asked for, so that a large frame is never held
        twice. A batch without rows gives none. The batch has to have passed :meth:`check`.
        """
        spare = limit - _MESSAGE_OVERHEAD - len(stream_id.encode()) - story.nbytes
        schema = self._schemas.of(batch.schema)
        return (
            (
                value,
                [*_headers(kind, session, sequence + n, story), *_rows_headers(part, schema.fingerprint)],
                part.num_rows,
            )
            for n, (part, value) in enumerate(_cut(batch, schema, spare, limit, 0))
        )

    def tell(
        self, *, session: str, sequence: int, story: Story, end: StreamEndType | None = None
    ) -> tuple[bytes, Headers]:
        """A message without rows, as (value, headers): the end of a stream, or no more than its story."""
        if end is None:
            return b"", _headers(Kind.PROPERTIES, session, sequence, story)
        return b"", [*_headers(Kind.END, session, sequence, story), ("qf.end", end.value.encode())]

    def check(self, batch: pa.RecordBatch, *, stream_id: str, limit: int, story: Story = _NO_STORY) -> None:
        """Make sure that each row of a batch fits into a message by itself.

        Raises:
            MessageTooLargeError: a row does not; the error has its position.
        """
        schema = self._schemas.of(batch.schema)
        # What a message of one row takes beside the row: the schema, Arrow's account of each column with its buffers
        # (each filled up to eight bytes), and the dictionaries: all of a categorical's, and its own of a tag's.
        fixed = _MESSAGE_OVERHEAD + len(stream_id.encode()) + len(schema.encoded) + 128 * (batch.num_columns + 1)
        fixed += story.nbytes + 256 * schema.dictionaries
        if schema.dictionaries and batch.nbytes + fixed <= limit:
            return
        if schema.row_width is not None and not schema.dictionaries:
            if schema.row_width + fixed > limit and batch.num_rows:
                raise _too_large(0, limit)
        elif batch.num_rows:
            sizes = np.atleast_1d(frames.lone_nbytes(batch) if schema.dictionaries else frames.row_nbytes(batch))
            if sizes.max() + fixed > limit:
                raise _too_large(int(sizes.argmax()), limit)


def _cut(
    batch: pa.RecordBatch, schema: _EncodedSchema, spare: int, limit: int, row: int
) -> Iterator[tuple[pa.RecordBatch, bytes]]:
    """The batch as parts that each fit, with their values; ``row`` is where it begins in what was written."""
    if batch.num_rows == 0:
        return
    if schema.dictionaries:
        batch = frames.trimmed(batch)
    # What a slice takes is counted without encoding it, so that a frame of gigabytes is not encoded whole first.
    parts = -(-batch.nbytes // spare) if batch.get_total_buffer_size() > spare else 1
    if parts <= 1:
        value = _value(batch, schema)
        if len(value) <= spare:
            yield batch, value
            return
        parts = 2
    if batch.num_rows == 1:
        raise _too_large(row, limit)
    step = -(-batch.num_rows // parts)
    for start in range(0, batch.num_rows, step):
        yield from _cut(batch.slice(start, step), schema, spare, limit, row + start)


def _value(batch: pa.RecordBatch, schema: _EncodedSchema) -> bytes:
    if not schema.dictionaries:
        return b"".join((schema.encoded, batch.serialize(), _END_OF_STREAM))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    value: bytes = sink.getvalue().to_pybytes()
    return value


def _headers(kind: Kind, session: str, sequence: int, story: Story) -> Headers:
    return [
        ("qf.version", b"%d" % VERSION),
        ("qf.kind", kind.value.encode()),
        ("qf.session", session.encode()),
        ("qf.sequence", b"%d" % sequence),
        *story.headers,
    ]


def _rows_headers(batch: pa.RecordBatch, fingerprint: bytes) -> Headers:
    times = event_times(batch)
    return [
        ("qf.rows", b"%d" % batch.num_rows),
        ("qf.first", b"%d" % times.min()),
        ("qf.last", b"%d" % times.max()),
        ("qf.schema", fingerprint),
    ]


@dataclass(slots=True)
class _KnownSchema:
    """A schema that was checked; where it has no dictionaries, also what stands between it and the values of a plain
    batch (of no nulls and not compressed): most small messages begin with the same bytes, which need no second look."""

    schema: pa.Schema
    encoded: bytes
    dictionaries: int
    plain: bytes = b"\0"


class MessageDecoder:
    """Turns messages into record batches in normal form. One for each reader; for one thread at a time."""

    def __init__(self) -> None:
        self._schemas: dict[bytes, _KnownSchema] = {}
        self._stories = StoryReader()

    def decode(self, record: Record) -> Message:
        """Read one message; its topic, partition and offset are only for the error's text.

        Raises:
            ForeignMessageError: it was not written by quixframes.
            FutureVersionError: it was written in a later version of the format.
            DamagedMessageError: it is broken or cut off.
        """
        fields = dict(record.headers)
        version = fields.get("qf.version")
        try:
            if version is None:
                raise _ForeignError("it has no qf.version header, so quixframes did not write it")
            return self._message(record.key, record.value, fields, _kind_of(version, fields.get("qf.kind") or b""))
        except _ForeignError as exc:
            raise ForeignMessageError(str(exc), **_place(record)) from None
        except _FutureError as exc:
            raise FutureVersionError(str(exc), **_place(record)) from None
        # Arrow reports broken bytes by a dozen kinds of exception, as the broken place has it; all mean the same here.
        except Exception as exc:
            raise DamagedMessageError(f"the message is damaged: {exc}", **_place(record)) from exc

    def _message(self, key: bytes | None, value: bytes | None, fields: _Fields, kind: Kind) -> Message:
        if not key:
            raise ValueError("it has no key to name its stream")
        session, sequence = fields.get("qf.session"), fields.get("qf.sequence")
        if session is None or sequence is None:
            raise ValueError("it lacks its qf.session or its qf.sequence header")
        batch, end = None, None
        if kind is Kind.PARAMETERS or kind is Kind.EVENTS:
            batch = self._rows(value, fields, kind)
        elif kind is Kind.END:
            end = StreamEndType(str(fields.get("qf.end") or b"", "ascii"))
        story = self._stories.read(fields)
        return Message(str(key, "utf-8"), kind, batch, str(session, "ascii"), int(sequence), story, end)

    def _rows(self, value: bytes | None, fields: _Fields, kind: Kind) -> pa.RecordBatch:
        schema, rows = fields.get("qf.schema"), fields.get("qf.rows")
        if value is None:
            raise ValueError("it has no value")
        if schema is None or rows is None:
            raise ValueError("it lacks its qf.schema or its qf.rows header")
        batch = self._batch(value, schema)
        if batch.num_rows != int(rows):
            raise ValueError(f"its header says {int(rows)} rows, but it holds {batch.num_rows}")
        if kind is Kind.EVENTS:
            check_events(batch)
        return batch

    def _batch(self, value: bytes, fingerprint: bytes) -> pa.RecordBatch:
        known = self._schemas.get(fingerprint)
        if known is not None and not value.startswith(known.encoded):
            known = None
        if known is not None and not known.dictionaries:
            # The schema is one that was checked before: what follows it is the record batch.
            start = len(known.encoded)
            message = pa.ipc.read_message(pa.py_buffer(value).slice(start))
            plain = value.startswith(known.plain, start)
            if not plain and not _has_nulls(_refuse_compressed(message)):
                plain = True
                known.plain = value[start : start + _PREFIX + len(message.metadata)]
            batch = pa.ipc.read_record_batch(message, known.schema)
            batch.validate(full=True)
            frames.check_values(batch, plain=plain)
            return batch
        for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(value)):
            _refuse_compressed(message)
        with pa.ipc.open_stream(pa.py_buffer(value)) as stream:
            schema = stream.schema
            if known is None:
                frames.check_supported(schema)
            try:
                batch = stream.read_next_batch()
            except StopIteration:
                raise ValueError("it ends before its rows") from None
            batch.validate(full=True)
            frames.check_values(batch)
        if known is None:
            schema_bytes = schema.serialize().to_pybytes()
            # Kept only where these are the bytes that will be compared, as in every message that this library wrote.
            if value[: len(schema_bytes)] == schema_bytes and _fingerprint(schema_bytes) == fingerprint:
                if len(self._schemas) >= _KEPT_SCHEMAS:
                    self._schemas.clear()
                self._schemas[fingerprint] = _KnownSchema(schema, schema_bytes, _dictionaries(schema))
        return batch


def event_times(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """The event times of a batch in normal form, in nanoseconds since 1970, as a view of its buffer (read-only)."""
    column = batch.column(0)
    times: npt.NDArray[np.int64] = np.frombuffer(column.buffers()[1], np.int64, len(column), column.offset * 8)
    return times


def _place(record: Record) -> _Place:
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}


def _too_large(row: int, limit: int) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"row {row} alone takes more than the topic's message limit of {limit:,} bytes: raise the topic's "
        "max.message.bytes, or store what is that large elsewhere and write where it is",
        row=row,
    )


class _Place(TypedDict):
    topic: str
    partition: int
    offset: int


class _ForeignError(Exception):
    pass


class _FutureError(Exception):
    pass


_KINDS = {kind.value.encode(): kind for kind in Kind}


def _kind_of(version: bytes, kind: bytes) -> Kind:
    known = _KINDS.get(kind)
    if version == b"%d" % VERSION and known is not None:
        return known
    if not version.isdigit() or int(version) < 1:
        raise _ForeignError(f"its qf.version header is {version[:20]!r}, which quixframes never writes")
    if int(version) > VERSION:
        raise _FutureError(
            f"it is written in version {int(version)} of the wire format, this quixframes knows {VERSION}: upgrade"
        )
    if not kind:
        raise ValueError("it has no qf.kind header")
    raise _FutureError(f"it is of kind {kind[:20]!r}, which this quixframes does not know: upgrade")


# Tables of an Arrow IPC message, by the names of their fields in Arrow's Message.fbs, and the fields' places in a
# flatbuffer's vtable, by which they are found: Message.header, DictionaryBatch.data, RecordBatch.nodes, .compression.
_HEADER, _DATA, _NODES, _COMPRESSION = 8, 6, 6, 10


def _refuse_compressed(message: pa.Message) -> tuple[memoryview, int]:
    """Raise where a message's body is compressed: what it inflates to is bounded by nothing.

    Arrow has checked the flatbuffer when it made the message, so its offsets can be followed. Returns it, and where its
    table RecordBatch is (0 in a schema).
    """
    metadata = memoryview(message.metadata)
    if message.type == "schema":
        return metadata, 0
    (root,) = struct.unpack_from("<I", metadata)
    table = _field(metadata, root, _HEADER)
    if table is not None and message.type == "dictionary":
        table = _field(metadata, table, _DATA)
    if table is None or _field(metadata, table, _COMPRESSION) is not None:
        raise ValueError("its body is compressed, which the wire format does not allow")
    return metadata, table


def _has_nulls(record_batch: tuple[memoryview, int]) -> bool:
    """Whether any column says that it has nulls; where it does not, Arrow looks at no validity bitmap."""
    metadata, table = record_batch
    nodes = _field(metadata, table, _NODES)
    if nodes is None:
        return True
    count = struct.unpack_from("<I", metadata, nodes)[0]
    return bool(np.frombuffer(metadata, "<i8", 2 * count, nodes + 4)[1::2].any())  # of each: length, nulls


def _field(flatbuffer: memoryview, table: int, place: int) -> int | None:
    """Where the table is that a field of a table refers to; None where the field is not set."""
    vtable = table - struct.unpack_from("<i", flatbuffer, table)[0]
    if place >= struct.unpack_from("<H", flatbuffer, vtable)[0]:
        return None
    (at,) = struct.unpack_from("<H", flatbuffer, vtable + place)
    return table + at + struct.unpack_from("<I", flatbuffer, table + at)[0] if at else None


def _dictionaries(schema: pa.Schema) -> int:
    return sum(pa.types.is_dictionary(field.type) for field in schema)
