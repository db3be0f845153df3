"""What quixframes needs of a Kafka client: three small Protocols, and the plain records that pass through them.

Adapters (``kafka_python``) implement the Protocols and raise errors of :mod:`quixframes.errors` only. The contract,
which the adapters' tests hold every one of them to:

- ``Producer`` may be used from any thread. Messages of one partition arrive in the order of their ``send`` calls and
  once, or their ``on_done`` says otherwise; ``on_done`` is called exactly once for each, within the delivery time-out.
  A failure of one message or topic does not touch the others.
- ``Consumer`` belongs to one thread, but for ``RebalanceListener.revoking``, which may be called on another.
- ``Admin`` may be used from any thread.
- ``close`` ends within its timeout whatever the cluster does, and leaves no thread behind.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from quixframes.errors import MessageTooLargeError
from quixframes.security import Secret
from quixframes.settings import Connection, ReaderSettings, WriterSettings

__all__ = [
    "Acl",
    "Admin",
    "Change",
    "Consumer",
    "Header",
    "MadeRecord",
    "Offset",
    "Outgoing",
    "Partition",
    "PartitionDescription",
    "Polled",
    "Producer",
    "Rebalance",
    "Record",
    "Revoking",
    "TopicDescription",
    "TopicDetails",
    "TransactionalProducer",
    "Transport",
]

Header = tuple[str, bytes]

_LARGEST = 90 * 1024 * 1024  # bytes of one message: brokers hang up on requests over 100 MB, unless told otherwise
_OVERHEAD = 40  # bytes, at most, around a record's key, value and headers


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


class Record(Protocol):
    """A message as it came from the cluster; a Protocol, so that an adapter hands on its client's own, uncopied."""

    @property
    def topic(self) -> str:
        """The topic's name."""

    @property
    def partition(self) -> int:
        """The partition's number."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def timestamp(self) -> int:
        """When it was written, or appended, as the topic has it: milliseconds since 1970."""

    @property
    def key(self) -> bytes | None:
        """The key."""

    @property
    def value(self) -> bytes | None:
        """The value; None is what a compacted topic has for "deleted"."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """The headers. Others may write some without a value."""


class MadeRecord(NamedTuple):
    """A record that never came from the cluster as such, but would look like this there: a part of a message, or rows
    that were not written. ``partition`` and ``offset`` say where it belongs, if anywhere."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    partition: int = -1
    offset: int = -1
    timestamp: int = -1


class Outgoing(NamedTuple):
    """A message to be sent.

    Its partition follows from its key by murmur2, as Kafka's Java client has it; messages without a key take turns at
    the partitions. ``partition`` is a choice of the caller's own, also of one that the topic has come to have since it
    was first written to; one that there is not is an error of the message.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    partition: int | None = None

    def size(self) -> int:
        """The bytes, at most, that it takes in a request before compression.

        Raises:
            MessageTooLargeError: they are more than Kafka can carry.
        """
        _, key, value, headers, _ = self
        size = _OVERHEAD
        if key is not None:
            size += len(key)
        if value is not None:
            size += len(value)
        for name, content in headers:
            size += len(name) + 10
            if content is not None:
                size += len(content)
        if size > _LARGEST:
            raise MessageTooLargeError(f"a message of {size:,} bytes is over what Kafka can carry ({_LARGEST:,})")
        return size


class Offset(NamedTuple):
    """A committed position: the offset to be read next, and the text that was kept with it."""

    offset: int
    metadata: str = ""


class Change(enum.Enum):
    """What happened to this member's partitions."""

    Assigned = "assigned"
    Revoked = "revoked"
    Lost = "lost"


@dataclass(frozen=True, slots=True)
class Rebalance:
    """Partitions that came or went. ``Lost`` ones were given to somebody else already: nothing can be committed.

    ``Assigned`` without partitions says that the group has none for this member at the moment.
    """

    change: Change
    partitions: frozenset[Partition]


@dataclass(frozen=True, slots=True)
class Polled:
    """What one ``poll`` brought: the rebalances first, in their order, then the records, by offset in each partition.

    No record is of a partition that this same poll reports as assigned: its position has to be set by ``seek`` first.
    ``gone`` maps partitions whose position is no longer in the topic to that position: nothing comes from them until
    they are ``seek``-ed.
    """

    rebalances: Sequence[Rebalance] = ()
    records: Sequence[Record] = ()
    gone: Mapping[Partition, int] | None = None


Revoking = Callable[[frozenset[Partition]], "Future[Mapping[Partition, Offset]]"]
"""Called when partitions are about to go (rebalance or close), before they do, possibly on the client's own thread. It
returns at once; the future will have what is to be committed for them. The adapter waits for it, at most
``ReaderSettings.revoke_timeout``, without holding up its heartbeats; commits what it has; then lets the partitions go.
Where the wait was in vain it cancels the future, and lets them go uncommitted."""


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as the cluster has it. ``message_limit`` is the largest record batch that it takes, in bytes. ``id`` is
    another for each topic that was ever made, whatever its name. ``compacted`` says that it keeps the last message of
    each key for good; None where that may not be known."""

    name: str
    partitions: int
    replication: int
    message_limit: int
    id: str = ""
    compacted: bool | None = None


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """A partition as the cluster has it: brokers by their numbers, ``leader`` None where there is none at the moment.
    ``size`` is the bytes of its log, ``stored`` those of all its replicas; both None where nobody may, or can, tell."""

    number: int
    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    size: int | None = None
    stored: int | None = None


@dataclass(frozen=True, slots=True)
class TopicDetails:
    """A topic as the cluster has it, all of it. ``settings`` has every setting that holds for it, by Kafka's names, and
    is empty where they may not be seen; ``own`` are the names of those that are its own, and not the cluster's
    defaults."""

    name: str
    id: str
    partitions: tuple[PartitionDescription, ...]
    settings: Mapping[str, str]
    own: frozenset[str]


class Acl(NamedTuple):
    """A line of the cluster's permissions, by Kafka's names in small letters.

    Args:
        principal: who, as "User:alice"; "User:*" is everybody.
        operation: "read", "write", "describe", "all" ...
        resource: the kind of what it is about: "topic", "group", "transactional_id", "cluster" ...
        name: its name; "*" is all of them.
        prefixed: whether it is about everything whose name begins like that.
        allowed: False forbids it, whatever else allows it.
        host: the address from which; "*" is any.
    """

    principal: str
    operation: str
    resource: str
    name: str
    prefixed: bool = False
    allowed: bool = True
    host: str = "*"


class Producer(Protocol):
    """Sends messages: idempotent, acknowledged by all in-sync replicas."""

    def send(self, message: Outgoing, on_done: Callable[[Exception | None], None]) -> None:
        """Queue a message; ``on_done(None)`` once it is acknowledged, ``on_done(error)`` once it is known to have
        failed.

        It may be called on the client's own thread, or before ``send`` returns: it has to be quick and must not raise.
        The caller bounds the bytes in flight.

        Raises:
            ClosedError: after ``close``.
        """

    def flush(self, timeout: float) -> bool:
        """Wait until the ``on_done`` of everything sent before this call was called; False where ``timeout`` came
        first."""

    def close(self, timeout: float) -> None:
        """Send what is queued, as far as ``timeout`` (seconds) allows; fail the rest through ``on_done``; end."""


class TransactionalProducer(Producer, Protocol):
    """A producer whose messages take effect together with a reader's offsets, or not at all.

    A transaction begins with the first ``send`` after the last one's end. ``on_done(None)`` says that a message is in
    the topic; that it counts, only ``commit_transaction`` can say. Once a message of a transaction has failed, the
    others fail at once, until ``abort_transaction``. While a transaction is being ended, ``send`` waits.
    """

    def commit_transaction(
        self, offsets: Mapping[Partition, Offset], membership: Callable[[], object], timeout: float
    ) -> None:
        """Wait until everything sent is acknowledged, commit ``offsets`` with it, and end the transaction.

        ``membership`` is the reader's ``Consumer.membership``, by which the cluster knows that the offsets are still
        its to commit; an adapter may ask again where the group has just shared itself out anew. Where nothing was sent,
        the offsets alone are committed, in the same way.

        After an error the caller calls ``abort_transaction``; and asks what the group has committed, since nobody may
        have been told whether it came off.

        Raises:
            GroupMovedOnError: the partitions are another member's by now.
            FencedError: another producer has taken the transactional ID over.
            TransactionError: a message or the end failed, or it did not come off within ``timeout`` seconds.
        """

    def abort_transaction(self, timeout: float) -> None:
        """End the transaction without effect, whatever state it is in; the next ``send`` begins another.

        Raises:
            FencedError: another producer has taken the transactional ID over.
            BrokerUnavailableError: it did not come off within ``timeout`` seconds. It may be called again; the cluster
                ends the transaction by itself after ``WriterSettings.transaction_timeout``.
        """


class Consumer(Protocol):
    """Reads messages, as a member of a group or by itself."""

    def subscribe(self, topics: Collection[str], revoking: Revoking) -> None:
        """Join the group, and share the topics' partitions with its other members. Called again, it changes the
        topics; ``revoking`` stays what it was first."""

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets, in no group."""

    def poll(self, timeout: float) -> Polled:
        """What has arrived, waiting up to ``timeout`` seconds for something. Keeps the membership.

        Raises:
            AccessDeniedError, AuthenticationError, TopicNotFoundError, ...: what will not mend itself.
            FencedError: another instance has joined the group under this one's ``ReaderSettings.instance_id``.
        """

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from this offset; what was fetched ahead is dropped."""

    def position(self, partition: Partition) -> int | None:
        """The offset after everything that ``poll`` returned or passed over (compacted messages, transaction markers);
        None where the partition has gone, or was given no position. Asks nobody."""

    def lag(self, partition: Partition) -> int | None:
        """How many offsets lie between the position and the end of the partition as the cluster told it last; None
        where that is not known. Asks nobody."""

    def membership(self) -> object:
        """What a transactional producer of the same transport needs to commit for this member, as it is now. May be
        called on any thread."""

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Return nothing of these partitions from ``poll``, and fetch nothing more of them."""

    def resume(self, partitions: Iterable[Partition]) -> None:
        """End a pause."""

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Offset | None]:
        """What the group has committed for the partitions, with metadata; None where it never has."""

    def commit(self, offsets: Mapping[Partition, Offset]) -> None:
        """Commit, and return when the cluster has acknowledged.

        Raises:
            GroupMovedOnError: the partition is another member's by now.
            CommitError: it did not succeed in time.
        """

    def trouble(self) -> str | None:
        """None while some broker of the partitions being read answers; else what is wrong, for a log line."""

    def close(self, timeout: float) -> None:
        """Ask ``revoking`` what is left to commit, commit it, leave the group, and end."""


class Admin(Protocol):
    """Looks at topics and offsets, and makes, changes and removes topics."""

    def describe(self, topic: str, *, to: str = "describe") -> TopicDescription:
        """The topic as the cluster has it. ``to`` is what it will be used for: "read", "write", "alter".

        Raises:
            TopicNotFoundError: there is none of that name, or the principal may not know.
            AccessDeniedError: the principal may not use it like that.
            BrokerUnavailableError: nobody answered in time.
        """

    def details(self, topic: str) -> TopicDetails:
        """The topic with its partitions and settings, which costs more requests than ``describe``.

        Raises:
            TopicNotFoundError, AccessDeniedError, BrokerUnavailableError: as ``describe``.
        """

    def brokers(self) -> list[int]:
        """The numbers of the brokers that are there, sorted."""

    def groups(self, topic: str) -> dict[str, dict[int, int]]:
        """The committed offset of each partition, for every group that has committed one of this topic; of those that
        the principal may see. By the group's name, sorted."""

    def topics(self) -> list[str]:
        """Names of the topics there are, internal ones left out, sorted."""

    def create(self, topic: str, *, partitions: int, replication: int | None, settings: Mapping[str, str]) -> None:
        """Make a topic, and return when it can be used. ``replication`` None: the cluster's default.

        Raises:
            BrokerError: it exists already, or cannot be.
        """

    def alter(self, topic: str, settings: Mapping[str, str | None]) -> None:
        """Change these settings of a topic, by Kafka's names, and no others; None: back to the cluster's default. It
        returns when they are accepted; brokers hear of them a moment later.

        Raises:
            TopicNotFoundError: there is none.
            BrokerError: a setting is unknown, or cannot have that value. None was changed.
        """

    def add_partitions(self, topic: str, to: int) -> None:
        """Let the topic have ``to`` partitions, and return when the new ones can be used.

        Raises:
            TopicNotFoundError: there is none.
            BrokerError: it has that many already, or more.
        """

    def delete(self, topic: str) -> None:
        """Remove a topic and everything in it, and return when ``topics`` no longer has it.

        Raises:
            TopicNotFoundError: there is none.
        """

    def beginnings(self, topic: str) -> dict[int, int]:
        """The first retained offset of each partition."""

    def ends(self, topic: str, *, committed_only: bool = True) -> dict[int, int]:
        """The offset after the last message of each partition (with ``committed_only``: after the last stable one)."""

    def offsets_at(self, topic: str, timestamp_ms: int) -> dict[int, int]:
        """The first offset of each partition whose message has this broker time or a later one; its end if none has."""

    def acls(self) -> list[Acl]:
        """All permissions that the cluster keeps, sorted.

        Raises:
            AccessDeniedError: this principal may not see them, or the cluster keeps none.
        """

    def create_acls(self, acls: Collection[Acl]) -> None:
        """Add permissions; those that are there already stay as they are. Brokers hear of it a moment later."""

    def delete_acls(self, acls: Collection[Acl]) -> None:
        """Remove these permissions, and no others; those that are not there are passed over."""

    def users(self) -> dict[str, dict[str, int]]:
        """The users that the cluster keeps passwords of for SCRAM, sorted: to each mechanism, the iterations."""

    def set_password(self, user: str, mechanism: str, password: Secret, iterations: int) -> None:
        """Let a user log in by this mechanism with this password, which replaces the one before."""

    def delete_password(self, user: str, mechanism: str) -> None:
        """Let a user not log in by this mechanism any more."""

    def close(self, timeout: float) -> None:
        """End."""


class Transport(Protocol):
    """A Kafka client: makes the three above. What fails to connect raises at once, with its cause."""

    def producer(self, connection: Connection, settings: WriterSettings) -> Producer:
        """A connected producer."""

    def transactional(
        self, connection: Connection, settings: WriterSettings, *, transactional_id: str
    ) -> TransactionalProducer:
        """A connected producer of transactions under this ID, which takes it over from any other.

        Raises:
            AccessDeniedError: the principal may not use the ID.
            SettingsError: the cluster allows no ``WriterSettings.transaction_timeout`` of that length.
        """

    def consumer(self, connection: Connection, settings: ReaderSettings, *, group: str | None) -> Consumer:
        """A connected consumer; ``group`` is None for one that will ``assign``."""

    def admin(self, connection: Connection) -> Admin:
        """A connected admin client."""
