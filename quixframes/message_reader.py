"""Records as messages: quixframes' own, and through a codec other people's. Pure. Live reading and replay share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from quixframes.codecs import Codec, RecordError
from quixframes.contract_check import ContractCheck
from quixframes.errors import ContractBreachError, ContractError, DamagedMessageError
from quixframes.foreign import CodecReader, RowsOf
from quixframes.kafka import Record
from quixframes.record_columns import ColumnAdder, RecordColumns
from quixframes.story import Story
from quixframes.wire import Kind, Message, MessageDecoder

__all__ = ["MessageReader", "number_of"]

_NO_STORY = Story()
_Place = tuple[str, int, int]


class MessageReader:
    """Reads records. One for each reader; for one thread at a time.

    Args:
        codec: for the records that quixframes did not write; None: they raise.
        columns: what Kafka says of a record that its rows get as columns.
        contracts: what rows have to be like, by topic; None where no topic has a contract, nor may come to have one.
    """

    def __init__(
        self,
        codec: Codec | None = None,
        columns: RecordColumns | None = None,
        contracts: Mapping[str, ContractCheck] | None = None,
    ) -> None:
        self._own = MessageDecoder()
        # A codec adds the columns to many records at once, but where a contract has to look at the rows before.
        self._codec = None if codec is None else CodecReader(codec, columns if contracts is None else None)
        self._codec_adds = contracts is None
        self._columns = None if columns is None else ColumnAdder(columns)
        self.contracts: Mapping[str, ContractCheck] = contracts or {}
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
            WireError: it cannot be read, not through the codec either; or its rows do not keep the contract.
        """
        foreign = self._codec is not None and _is_foreign(record)
        if self._codec is not None and foreign:
            message = self._read_foreign(self._codec, record)
        else:
            message = self._own.decode(record)
        if message.kind is not Kind.PARAMETERS:
            return message
        contract = self.contracts.get(record.topic)
        if contract is not None:
            message = message._replace(batch=_conformed(contract, message, record))
        if self._columns is not None and message.batch is not None and not (foreign and self._codec_adds):
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


def number_of(record: Record) -> tuple[str, str, int]:
    """Stream, session and sequence of a message of ours, which may be one that cannot be read.

    ("", "", 0) where its key and headers do not say them.
    """
    fields = dict(record.headers)
    session, sequence = fields.get("qf.session"), fields.get("qf.sequence")
    if "qf.version" in fields and record.key and session and sequence:
        try:
            return str(record.key, "utf-8"), str(session, "ascii"), int(sequence)
        except ValueError:
            pass
    return "", "", 0


def _conformed(contract: ContractCheck, message: Message, record: Record) -> pa.RecordBatch:
    """The message's rows as the contract has them. A message is refused as a whole, so that it can be sent back so."""
    topic, partition, offset = _place(record)
    try:
        conformed = contract.apply(message.batch, message.stream_id)
        if conformed.rejected is None:
            return conformed.batch
        raise contract.breach(conformed, message.stream_id)
    except ContractError as exc:
        raise ContractBreachError(
            str(exc), topic=topic, partition=partition, offset=offset, problems=exc.problems
        ) from exc


def _is_foreign(record: Record) -> bool:
    return all(name != "qf.version" for name, _ in record.headers)


def _place(record: Record) -> _Place:
    return record.topic, record.partition, record.offset


def _damaged(record: Record, error: RecordError) -> DamagedMessageError:
    topic, partition, offset = _place(record)
    return DamagedMessageError(
        f"the codec cannot read the message: {error.reason}", topic=topic, partition=partition, offset=offset
    )
