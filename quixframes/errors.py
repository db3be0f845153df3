"""The exception tree. Every error that quixframes raises on purpose is one of these.

::

    QuixframesError
    ├── SettingsError (ValueError)      an argument or setting that cannot be
    ├── FrameError (ValueError)         a DataFrame that cannot be carried exactly: column, row
    ├── ContractError (ValueError)      rows, or a new contract, that do not go with a topic's contract
    ├── WireError (ValueError)          a message that cannot be read: topic, partition, offset
    │   ├── DamagedMessageError         ours, but broken or cut off
    │   ├── ForeignMessageError         not written by quixframes
    │   └── FutureVersionError          ours, written by a newer quixframes
    ├── ClosedError                     a client, topic or stream used after it was closed
    ├── StreamExistsError               create_stream of an ID that is open already
    ├── StreamNotFoundError (KeyError)  get_stream of an ID that is not open
    ├── BrokerError                     the cluster refused, failed or did not answer
    │   ├── BrokerUnavailableError      no broker answers there (retriable)
    │   ├── TopicNotFoundError          the topic does not exist
    │   ├── AccessDeniedError           the principal may not do that
    │   ├── AuthenticationError         the login was refused
    │   ├── TlsError                    no trusted, encrypted connection could be made
    │   ├── MessageTooLargeError        over a limit of the client, topic or broker
    │   ├── DeliveryError               rows that were not acknowledged: stream, rows
    │   ├── DeadLetterError             dead letters that were not: topic, partition, offset; or rows that are left
    │   ├── CommitError                 offsets that were not committed
    │   │   ├── GroupMovedOnError       ... because the partition belongs to somebody else by now
    │   │   └── TransactionError        ... nor what was written with them: the transaction was aborted
    │   ├── FencedError                 another instance has taken this one's identity over
    │   └── OffsetGoneError             retention removed what was to be read next
    └── LocalKafkaError                 the local Kafka could not be started or stopped

An error carries its facts as attributes, so that code need not parse its text. ``retriable`` says whether the same call
may succeed later without any change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AccessDeniedError",
    "AuthenticationError",
    "BrokerError",
    "BrokerUnavailableError",
    "ClosedError",
    "CommitError",
    "ContractBreachError",
    "ContractError",
    "DamagedMessageError",
    "DeadLetterError",
    "DeliveryError",
    "FencedError",
    "ForeignMessageError",
    "FrameError",
    "FutureVersionError",
    "GroupMovedOnError",
    "LocalKafkaError",
    "MessageTooLargeError",
    "OffsetGoneError",
    "QuixframesError",
    "SequenceError",
    "SettingsError",
    "StreamExistsError",
    "StreamNotFoundError",
    "TlsError",
    "TopicNotFoundError",
    "TransactionError",
    "WireError",
]


class QuixframesError(Exception):
    """The root: catch this to catch everything that quixframes raises on purpose."""

    retriable = False


class SettingsError(QuixframesError, ValueError):
    """An argument or setting that cannot be; the text says which, and what is allowed."""


class FrameError(QuixframesError, ValueError):
    """A DataFrame that cannot be carried exactly. Raised before anything of it is sent or held.

    ``column`` and ``row`` (the position of the first offending row) are None where the fault is not in one place.
    """

    def __init__(self, message: str, *, column: object = None, row: int | None = None) -> None:
        super().__init__(message)
        self.column = column
        self.row = row


class ContractError(QuixframesError, ValueError):
    """Rows that do not keep a topic's contract, or a new contract that does not go with the old one.

    ``topic`` and ``stream_id`` are None where they are not known. ``problems`` has what the table in the text has: a
    ``contracts.Problem`` for each fault of rows, a ``contracts.Difference`` for each that parts two contracts.
    """

    def __init__(
        self, message: str, *, topic: str | None = None, stream_id: str | None = None, problems: Sequence[Any] = ()
    ) -> None:
        super().__init__(message)
        self.topic = topic
        self.stream_id = stream_id
        self.problems = tuple(problems)


class WireError(QuixframesError, ValueError):
    """A message that cannot be read as quixframes' own. Its place is in the text and in the attributes."""

    def __init__(self, message: str, *, topic: str, partition: int, offset: int) -> None:
        super().__init__(f"{topic}[{partition}]@{offset}: {message}")
        self.topic = topic
        self.partition = partition
        self.offset = offset


class DamagedMessageError(WireError):
    """The message says that quixframes wrote it, but its content is broken or cut off."""


class ForeignMessageError(WireError):
    """The message was not written by quixframes: it lacks the headers of the wire format."""


class FutureVersionError(WireError):
    """The message was written in a version of the wire format that this quixframes does not know: upgrade it."""


class SequenceError(WireError):
    """A message of a stream is missing, repeated or out of order; ``fault`` is the
    :class:`~quixframes.sequence.SequenceFault`. Reading goes on with the message at which it was noticed."""

    def __init__(self, fault: Any) -> None:
        super().__init__(fault.what, topic=fault.topic, partition=fault.partition, offset=fault.offset)
        self.fault = fault


class ContractBreachError(WireError):
    """A message whose rows do not keep the topic's contract; ``problems`` says in what, its cause is the
    :class:`ContractError`. Who wrote it did not know the contract."""

    def __init__(self, message: str, *, topic: str, partition: int, offset: int, problems: Sequence[Any]) -> None:
        super().__init__(message, topic=topic, partition=partition, offset=offset)
        self.problems = tuple(problems)


class ClosedError(QuixframesError):
    """A client, topic or stream was used after it was closed."""


class StreamExistsError(QuixframesError):
    """``create_stream`` was called with an ID that is open on this topic already."""


class StreamNotFoundError(QuixframesError, KeyError):
    """``get_stream`` was called with an ID that is not open on this topic."""

    def __str__(self) -> str:  # KeyError would show the repr of the text
        return str(self.args[0])


class BrokerError(QuixframesError):
    """The cluster refused, failed or did not answer. The client's own error is its ``__cause__``."""


class BrokerUnavailableError(BrokerError):
    """No broker answers at the address, or the ones that did are gone."""

    retriable = True


class TopicNotFoundError(BrokerError):
    """The topic does not exist on the cluster, or the principal may not know that it does."""

    def __init__(self, message: str, *, topic: str) -> None:
        super().__init__(message)
        self.topic = topic


class AccessDeniedError(BrokerError):
    """The cluster knows the principal, and refuses it the operation.

    ``principal`` ("User:alice") is None where a certificate or token says who one is. ``operation`` ("read"),
    ``resource`` ("topic", "group", "transactional_id" or "cluster") and ``name`` are empty where no permission is
    concerned, but the cluster's policy.
    """

    def __init__(
        self, message: str, *, principal: str | None = None, operation: str = "", resource: str = "", name: str = ""
    ) -> None:
        super().__init__(message)
        self.principal = principal
        self.operation = operation
        self.resource = resource
        self.name = name


class AuthenticationError(BrokerError):
    """The login was refused: wrong user, password or token, or a mechanism that is not offered."""


class TlsError(BrokerError):
    """No trusted, encrypted connection could be made: certificate, host name or protocol."""


class MessageTooLargeError(BrokerError):
    """A message is over a limit of the client, the topic or the broker.

    ``row`` is the position of the row that is too large by itself, where that was found before anything was sent.
    """

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class DeliveryError(BrokerError):
    """Rows that were written and not acknowledged by the cluster.

    ``topic``, ``stream_id`` and ``rows`` (how many) say which; ``others`` are further failures since the last report.
    Rows that are named here may or may not be in the topic: the cluster did not say.
    """

    def __init__(
        self, message: str, *, topic: str, stream_id: str, rows: int, others: Sequence[DeliveryError] = ()
    ) -> None:
        super().__init__(message)
        self.topic = topic
        self.stream_id = stream_id
        self.rows = rows
        self.others = tuple(others)


class DeadLetterError(BrokerError):
    """A message that could not be delivered to the dead-letter topic, or back.

    ``topic``, ``partition`` and ``offset`` say which message it is: it stays where it is, and is not committed. Where
    dead letters were sent back, ``left`` are the rows that could not be: send them again.
    """

    def __init__(
        self, message: str, *, topic: str, partition: int | None, offset: int | None, left: Any = None
    ) -> None:
        super().__init__(message)
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.left = left


class CommitError(BrokerError):
    """Offsets that were not committed: the rows will be delivered again after a restart."""


class GroupMovedOnError(CommitError):
    """The partition belongs to another instance of the group by now, which will be handed the uncommitted rows."""


class TransactionError(CommitError):
    """A transaction that was not committed: what was written in it does not count, and its rows come again."""


class FencedError(BrokerError):
    """Another instance has taken over this one's identity: its ``instance_id`` in the group, or its transactional ID.

    This one must not go on: what it has not committed is the other's by now."""


class OffsetGoneError(BrokerError):
    """What was to be read next is no longer in the topic: retention or a deletion removed it.

    ``gap`` is the :class:`~quixframes.RetentionGap` where a reader's ``on_gone="raise"`` brought it about, else None.
    """

    def __init__(self, message: str, *, gap: Any = None) -> None:
        super().__init__(message)
        self.gap = gap


class LocalKafkaError(QuixframesError):
    """The local Kafka could not be started, found or stopped; the text has the cause and the tail of its log."""
