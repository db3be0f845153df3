"""librdkafka's error codes, as a table to quixframes' own errors."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException

from quixframes import refusals
from quixframes.errors import BrokerError
from quixframes.refusals import NOBODY, Asked, Refusal

__all__ = ["FENCED", "MOVED", "UNKNOWN_TOPIC", "error_in", "is_passing", "translated"]

_E = KafkaError

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

_TABLE: Mapping[int, Refusal] = {
    _E.TOPIC_AUTHORIZATION_FAILED: refusals.NO_TOPIC_ACCESS,
    _E.GROUP_AUTHORIZATION_FAILED: refusals.NO_GROUP_ACCESS,
    _E.CLUSTER_AUTHORIZATION_FAILED: refusals.NO_CLUSTER_ACCESS,
    _E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: refusals.NO_TRANSACTION_ACCESS,
    _E.POLICY_VIOLATION: refusals.AGAINST_POLICY,
    _E.TOPIC_DELETION_DISABLED: refusals.NO_DELETION,
    _E.SECURITY_DISABLED: refusals.NO_AUTHORIZER,
    _E._AUTHENTICATION: refusals.LOGIN,
    _E.SASL_AUTHENTICATION_FAILED: refusals.LOGIN,
    _E.UNSUPPORTED_SASL_MECHANISM: refusals.MECHANISM,
    _E._SSL: refusals.NO_TRUST,
    _E._BAD_MSG: refusals.NOT_KAFKA,
    _E._TRANSPORT: refusals.UNREACHABLE,
    _E._ALL_BROKERS_DOWN: refusals.UNREACHABLE,
    _E._RESOLVE: refusals.NO_ADDRESS,
    _E._MSG_TIMED_OUT: refusals.SILENT,
    _E._TIMED_OUT: refusals.SILENT,
    _E._TIMED_OUT_QUEUE: refusals.SILENT,
    _E.REQUEST_TIMED_OUT: refusals.SILENT,
    _E._UNSUPPORTED_FEATURE: refusals.TOO_OLD,
    _E.UNSUPPORTED_VERSION: refusals.TOO_OLD,
    **dict.fromkeys(UNKNOWN_TOPIC, refusals.NO_TOPIC),
    _E.TOPIC_EXCEPTION: refusals.NO_NAME,
    _E.TOPIC_ALREADY_EXISTS: refusals.EXISTS,
    _E.INVALID_REPLICATION_FACTOR: refusals.REPLICATION,
    _E.INVALID_PARTITIONS: refusals.PARTITIONS,
    _E.INVALID_CONFIG: refusals.TOPIC_SETTING,
    _E.MSG_SIZE_TOO_LARGE: refusals.TOO_LARGE,
    _E.RECORD_LIST_TOO_LARGE: refusals.OVER_SEGMENT,
    _E.OUT_OF_ORDER_SEQUENCE_NUMBER: refusals.FORGOTTEN,
    _E.UNKNOWN_PRODUCER_ID: refusals.FORGOTTEN,
    _E._FATAL: refusals.FORGOTTEN,
    _E._INCONSISTENT: refusals.FORGOTTEN,
    _E._PURGE_INFLIGHT: refusals.FORGOTTEN,
    _E._PURGE_QUEUE: refusals.FORGOTTEN,
    _E.OFFSET_OUT_OF_RANGE: refusals.GONE,
    _E._AUTO_OFFSET_RESET: refusals.GONE,
    _E.OFFSET_METADATA_TOO_LARGE: refusals.LONG_METADATA,
    _E._NO_OFFSET: refusals.NOTHING_TO_COMMIT,
    **dict.fromkeys(MOVED, refusals.MOVED),
    **dict.fromkeys(FENCED, refusals.PRODUCER_TAKEN),
    _E.FENCED_INSTANCE_ID: refusals.INSTANCE_TAKEN,
    _E.INVALID_SESSION_TIMEOUT: refusals.SESSION,
    _E.INCONSISTENT_GROUP_PROTOCOL: refusals.ASSIGNMENT,
    _E._WAIT_COORD: refusals.BUSY,
    _E._WAIT_CACHE: refusals.BUSY,
    _E.LEADER_NOT_AVAILABLE: refusals.BUSY,
    _E.NOT_LEADER_FOR_PARTITION: refusals.BUSY,
    _E.BROKER_NOT_AVAILABLE: refusals.BUSY,
    _E.REPLICA_NOT_AVAILABLE: refusals.BUSY,
    _E.NETWORK_EXCEPTION: refusals.BUSY,
    _E.COORDINATOR_LOAD_IN_PROGRESS: refusals.BUSY,
    _E.COORDINATOR_NOT_AVAILABLE: refusals.BUSY,
    _E.NOT_COORDINATOR: refusals.BUSY,
    _E.NOT_ENOUGH_REPLICAS: refusals.BUSY,
    _E.NOT_ENOUGH_REPLICAS_AFTER_APPEND: refusals.BUSY,
    _E.NOT_CONTROLLER: refusals.BUSY,
    _E.KAFKA_STORAGE_ERROR: refusals.BUSY,
    _E.FENCED_LEADER_EPOCH: refusals.BUSY,
    _E.UNKNOWN_LEADER_EPOCH: refusals.BUSY,
    _E.OFFSET_NOT_AVAILABLE: refusals.BUSY,
    _E.UNSTABLE_OFFSET_COMMIT: refusals.BUSY,
    _E.CONCURRENT_TRANSACTIONS: refusals.BUSY,
}
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
    return error is not None and _refusal(error).passes


def translated(cause: BaseException | KafkaError, doing: str, asked: Asked = NOBODY) -> BrokerError:
    """Our error for one of confluent-kafka's, which becomes its cause. ``doing`` and ``asked`` are for its text, as in
    :meth:`quixframes.refusals.Refusal.of`."""
    if isinstance(cause, BrokerError):
        return cause
    exc = KafkaException(cause) if isinstance(cause, KafkaError) else cause
    error = error_in(exc)
    if error is None:
        return refusals.FAILED.of(exc, doing, f"{type(exc).__name__}: {exc}", asked)
    return _refusal(error).of(exc, doing, f"{error.name()}: {error.str()}", asked)


def _refusal(error: KafkaError) -> Refusal:
    if error.code() == _E._TRANSPORT and any(sign in error.str() for sign in _NOT_KAFKA):
        return refusals.NOT_KAFKA
    if error.code() == _E._FATAL and "Static consumer fenced" in error.str():
        return refusals.INSTANCE_TAKEN  # the code says only that it is fatal
    return _TABLE.get(error.code(), refusals.REFUSED)
