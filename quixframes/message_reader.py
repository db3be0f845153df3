"""Records as messages: quixframes' own, and through a codec other people's. Pure. Live reading and replay share it."""

from __future__ import annotations

from collections.abc import Sequence

from quixframes.codecs import Codec, RecordError
from quixframes.errors import DamagedMessageError
from quixframes.foreign import CodecReader, RowsOf
from quixframes.kafka import Record
from quixframes.record_columns import ColumnAdder, RecordColumns
from quixframes.story import Story
from quixframes.wire import Kind, Message, MessageDecoder

__all__ = ["MessageReader"]

_NO_STORY = Story()
_Place = tuple[str, int, int]


class MessageReader:
    """Reads records. One for each reader; for one thread at a time.

    Args:
        codec: for the records that quixframes did not write; None: they raise.
        columns: what Kafka says of a record that its rows get as columns.
    """

    def __init__(self, codec: Codec | None = None, columns: RecordColumns | None = None) -> None:
        self._own = MessageDecoder()
        self._codec = None if codec is None else CodecReader(codec, columns)
        self._columns = None if columns is None else ColumnAdder(columns)
        self._ahead: dict[_Place, RowsOf | RecordError] = {}

    def read_ahead(self, records: Sequence[Record]) -> None:
        """Take in records that are about to be read. A codec reads many at once for little more than one."""
        if self._codec is None:
            return
        foreign = [record for record in records if _is_foreign(record)]
        for record, found in zip(foreign, self._codec.read(foreign) if foreign else (), strict=True):
            self._ahead[_place(record)] = found

    def pass_over(self, record: Record) -> None:
        """This record is not going to be read."""
        self._ahead.pop(_place(record), None)

    def read(self, record: Record) -> Message:
        """Read one record.

        Raises:
            WireError: it cannot be read, not through the codec either.
        """
        if self._codec is not None and _is_foreign(record):
            return self._read_foreign(self._codec, record)
        message = self._own.decode(record)
        if self._columns is not None and message.kind is Kind.PARAMETERS and message.batch is not None:
            try:
                batch = self._columns.add(message.batch, [record], [message.batch.num_rows])
            except RecordError as exc:
                raise _damaged(record, exc) from exc
            return message._replace(batch=batch)
        return message

    def _read_foreign(self, codec: CodecReader, record: Record) -> Message:
        found = self._ahead.pop(_place(record), None)
        if found is None or isinstance(found, RecordError):  # a bad one is asked for again by whoever goes on after it
            (found,) = codec.read([record])
        if isinstance(found, RecordError):
            raise _damaged(record, found) from found
        return Message(found.stream_id, Kind.PARAMETERS, found.batch, "", 0, _NO_STORY, None)


def _is_foreign(record: Record) -> bool:
    return all(name != "qf.version" for name, _ in record.headers)


def _place(record: Record) -> _Place:
    return record.topic, record.partition, record.offset


def _damaged(record: Record, error: RecordError) -> DamagedMessageError:
    topic, partition, offset = _place(record)
    return DamagedMessageError(
        f"the codec cannot read the message: {error.reason}", topic=topic, partition=partition, offset=offset
    )
