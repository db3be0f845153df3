"""librdkafka's error codes, as a table to quixframes' own errors: what happened, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException

from quixframes.errors import (
    AccessDeniedError,
    AuthenticationError,
    BrokerError,
    BrokerUnavailableError,
    CommitError,
    FencedError,
    GroupMovedOnError,
    MessageTooLargeError,
    OffsetGoneError,
    TlsError,
    TopicNotFoundError,
)

__all__ = ["FENCED", "MOVED", "UNKNOWN_TOPIC", "error_in", "is_passing", "translated"]

_E = KafkaError


class _Kind(NamedTuple):
    error: type[BrokerError]
    text: str


_DENIED = _Kind(AccessDeniedError, "the cluster refuses it: the principal lacks the permission (ACL) for it")
_SILENT = _Kind(BrokerUnavailableError, "no broker answered in time")
_PLAIN = _Kind(TlsError, "what answers there does not speak plain Kafka: perhaps it is a TLS port, or no broker at all")
_FORGOTTEN = _Kind(
    BrokerError,
    "the broker no longer knows which messages it has had from this producer, so they may or may not have arrived",
)
_MOVED = _Kind(
    GroupMovedOnError, "the partition belongs to another instance of the group by now, or this instance was given up"
)
_FENCED = _Kind(FencedError, "another instance has taken over this one's identity")
_GONE = _Kind(OffsetGoneError, "what was to be read next is no longer in the topic")
_UNKNOWN = _Kind(TopicNotFoundError, "there is no such topic or partition, or the principal may not know of it")
_BUSY = _Kind(BrokerUnavailableError, "the brokers cannot serve it at the moment")

MOVED = frozenset({
    _E.ILLEGAL_GENERATION, _E.UNKNOWN_MEMBER_ID, _E.REBALANCE_IN_PROGRESS, _E._ASSIGNMENT_LOST,
    _E.FENCED_MEMBER_EPOCH, _E.STALE_MEMBER_EPOCH,
})  # fmt: skip
"""The group went on without this member, or shares its partitions out anew."""

FENCED = frozenset({_E._FENCED, _E.FENCED_INSTANCE_ID, _E.PRODUCER_FENCED, _E.INVALID_PRODUCER_EPOCH})
"""Somebody else goes by this one's name."""

UNKNOWN_TOPIC = frozenset({
    _E._UNKNOWN_TOPIC, _E._UNKNOWN_PARTITION, _E.UNKNOWN_TOPIC_OR_PART, _E.UNKNOWN_TOPIC_ID,
})  # fmt: skip
"""The topic, or the partition, is not there."""

_TABLE: Mapping[int, _Kind] = {
    _E.TOPIC_AUTHORIZATION_FAILED: _DENIED,
    _E.GROUP_AUTHORIZATION_FAILED: _DENIED,
    _E.CLUSTER_AUTHORIZATION_FAILED: _DENIED,
    _E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: _DENIED,
    _E.POLICY_VIOLATION: _Kind(AccessDeniedError, "the cluster's policy forbids it"),
    _E.TOPIC_DELETION_DISABLED: _Kind(AccessDeniedError, "the cluster does not allow topics to be deleted"),
    _E.SECURITY_DISABLED: _Kind(AccessDeniedError, "the cluster has no authorizer, so it keeps no permissions"),
    _E._AUTHENTICATION: _Kind(
        AuthenticationError, "the login was refused: check the user, the password or token, and the mechanism"
    ),
    _E.SASL_AUTHENTICATION_FAILED: _Kind(
        AuthenticationError, "the login was refused: check the user, the password or token, and the mechanism"
    ),
    _E.UNSUPPORTED_SASL_MECHANISM: _Kind(AuthenticationError, "the broker does not offer this login mechanism"),
    _E._SSL: _PLAIN,
    _E._BAD_MSG: _PLAIN,
    **dict.fromkeys(UNKNOWN_TOPIC, _UNKNOWN),
    _E.TOPIC_EXCEPTION: _Kind(
        TopicNotFoundError, "that cannot be a topic's name: letters, digits, '.', '_' and '-', at most 249"
    ),
    _E.MSG_SIZE_TOO_LARGE: _Kind(
        MessageTooLargeError, "the message is over the topic's max.message.bytes: write smaller frames, or raise it"
    ),
    _E.RECORD_LIST_TOO_LARGE: _Kind(MessageTooLargeError, "the messages are over the topic's segment size"),
    _E.OFFSET_METADATA_TOO_LARGE: _Kind(CommitError, "the text kept with the offset is over the broker's limit"),
    **dict.fromkeys(MOVED, _MOVED),
    **dict.fromkeys(FENCED, _FENCED),
    _E.OFFSET_OUT_OF_RANGE: _GONE,
    _E._AUTO_OFFSET_RESET: _GONE,
    _E.OUT_OF_ORDER_SEQUENCE_NUMBER: _FORGOTTEN,
    _E.UNKNOWN_PRODUCER_ID: _FORGOTTEN,
    _E._FATAL: _FORGOTTEN,
    _E._INCONSISTENT: _FORGOTTEN,
    _E._PURGE_INFLIGHT: _FORGOTTEN,
    _E._PURGE_QUEUE: _FORGOTTEN,
    _E.INVALID_SESSION_TIMEOUT: _Kind(
        BrokerError, "session_timeout is outside of what the brokers allow (group.min and max.session.timeout.ms)"
    ),
    _E.INCONSISTENT_GROUP_PROTOCOL: _Kind(
        BrokerError, "the group's other instances share partitions out in another way: give all of them one assignment"
    ),
    _E._UNSUPPORTED_FEATURE: _Kind(BrokerError, "the broker is too old for it: Kafka 2.5 or newer is needed"),
    _E.UNSUPPORTED_VERSION: _Kind(BrokerError, "the broker is too old for it: Kafka 2.5 or newer is needed"),
    _E.TOPIC_ALREADY_EXISTS: _Kind(BrokerError, "the topic exists already"),
    _E.INVALID_REPLICATION_FACTOR: _Kind(BrokerError, "the cluster has fewer brokers than the replication asks for"),
    _E.INVALID_PARTITIONS: _Kind(BrokerError, "the number of partitions cannot be"),
    _E.INVALID_CONFIG: _Kind(BrokerError, "a setting of the topic is unknown or cannot have this value"),
    _E._MSG_TIMED_OUT: _SILENT,
    _E._TIMED_OUT: _SILENT,
    _E._TIMED_OUT_QUEUE: _SILENT,
    _E.REQUEST_TIMED_OUT: _SILENT,
    _E._RESOLVE: _Kind(BrokerUnavailableError, "the broker's name cannot be looked up"),
    _E._TRANSPORT: _Kind(
        BrokerUnavailableError, "the connection failed: check the address, and that a broker runs there"
    ),
    _E._ALL_BROKERS_DOWN: _Kind(
        BrokerUnavailableError, "the connection failed: check the address, and that a broker runs there"
    ),
    _E._WAIT_COORD: _BUSY,
    _E._WAIT_CACHE: _BUSY,
    _E._NO_OFFSET: _Kind(CommitError, "there was nothing to commit"),
    _E.LEADER_NOT_AVAILABLE: _BUSY,
    _E.NOT_LEADER_FOR_PARTITION: _BUSY,
    _E.BROKER_NOT_AVAILABLE: _BUSY,
    _E.REPLICA_NOT_AVAILABLE: _BUSY,
    _E.NETWORK_EXCEPTION: _BUSY,
    _E.COORDINATOR_LOAD_IN_PROGRESS: _BUSY,
    _E.COORDINATOR_NOT_AVAILABLE: _BUSY,
    _E.NOT_COORDINATOR: _BUSY,
    _E.NOT_ENOUGH_REPLICAS: _BUSY,
    _E.NOT_ENOUGH_REPLICAS_AFTER_APPEND: _BUSY,
    _E.NOT_CONTROLLER: _BUSY,
    _E.KAFKA_STORAGE_ERROR: _BUSY,
    _E.FENCED_LEADER_EPOCH: _BUSY,
    _E.UNKNOWN_LEADER_EPOCH: _BUSY,
    _E.OFFSET_NOT_AVAILABLE: _BUSY,
    _E.UNSTABLE_OFFSET_COMMIT: _BUSY,
    _E.CONCURRENT_TRANSACTIONS: _BUSY,
}
_REFUSED = _Kind(BrokerError, "the cluster refused it")
_FAILED = _Kind(BrokerError, "the Kafka client failed")
# librdkafka has one code for every way in which a connection can end. Its text says more.
_NOT_KAFKA = ("incorrect security.protocol", "Invalid response size", "invalid response size", "SSL listener")


def error_in(exc: BaseException) -> KafkaError | None:
    """The error that an exception of confluent-kafka carries."""
    if isinstance(exc, KafkaException) and exc.args and isinstance(exc.args[0], KafkaError):
        return exc.args[0]
    return None


def is_passing(cause: BaseException | KafkaError) -> bool:
    """Whether the same request may well succeed a moment later."""
    error = cause if isinstance(cause, KafkaError) else error_in(cause)
    return error is not None and _kind(error).error is BrokerUnavailableError


def translated(cause: BaseException | KafkaError, doing: str, *, topic: str = "") -> BrokerError:
    """Our error for one of confluent-kafka's, which becomes its cause.

    Args:
        cause: the client's error.
        doing: what was tried, for the text: "topic 'engine' could not be written".
        topic: the topic that it was about, where there is one.
    """
    if isinstance(cause, BrokerError):
        return cause
    error = cause if isinstance(cause, KafkaError) else error_in(cause)
    if error is None:
        kind, detail = _FAILED, f"{type(cause).__name__}: {cause}"
    else:
        kind, detail = _kind(error), f"{error.name()}: {error.str()}"
    text = f"{doing}: {kind.text} ({detail})"
    ours = TopicNotFoundError(text, topic=topic) if kind.error is TopicNotFoundError else kind.error(text)
    ours.__cause__ = cause if isinstance(cause, BaseException) else KafkaException(cause)
    return ours


def _kind(error: KafkaError) -> _Kind:
    if error.code() == _E._TRANSPORT and any(sign in error.str() for sign in _NOT_KAFKA):
        return _PLAIN
    return _TABLE.get(error.code(), _REFUSED)
