"""kafka-python's exceptions, as a table to quixframes' own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import kafka.errors as theirs

from quixframes import refusals
from quixframes.errors import BrokerError
from quixframes.kafka_python.secured import TlsFailed
from quixframes.refusals import NOBODY, Asked, Refusal

__all__ = ["is_passing", "translated"]

# The nearest class of the exception's ancestry counts, so a line for a base class covers what has no line of its own.
_TABLE: Mapping[type[BaseException], Refusal] = {
    theirs.TopicAuthorizationFailedError: refusals.NO_TOPIC_ACCESS,
    theirs.GroupAuthorizationFailedError: refusals.NO_GROUP_ACCESS,
    theirs.TransactionalIdAuthorizationFailedError: refusals.NO_TRANSACTION_ACCESS,
    theirs.AuthorizationError: refusals.NO_CLUSTER_ACCESS,
    theirs.PolicyViolationError: refusals.AGAINST_POLICY,
    theirs.TopicDeletionDisabledError: refusals.NO_DELETION,
    theirs.SecurityDisabledError: refusals.NO_AUTHORIZER,
    theirs.SaslAuthenticationFailedError: refusals.LOGIN,
    theirs.UnsupportedSaslMechanismError: refusals.MECHANISM,
    theirs.IllegalSaslStateError: refusals.LOGIN,
    theirs.InvalidReceiveError: refusals.NOT_KAFKA,
    theirs.KafkaConnectionError: refusals.UNREACHABLE,
    theirs.KafkaTimeoutError: refusals.SILENT,
    theirs.BrokerNotAvailableError: refusals.SILENT,
    theirs.UnsupportedVersionError: refusals.TOO_OLD,
    theirs.UnknownTopicOrPartitionError: refusals.NO_TOPIC,
    theirs.UnknownTopicIdError: refusals.DELETED,
    theirs.InvalidTopicError: refusals.NO_NAME,
    theirs.TopicAlreadyExistsError: refusals.EXISTS,
    theirs.InvalidReplicationFactorError: refusals.REPLICATION,
    theirs.InvalidPartitionsError: refusals.PARTITIONS,
    theirs.InvalidConfigurationError: refusals.TOPIC_SETTING,
    theirs.MessageSizeTooLargeError: refusals.TOO_LARGE,
    theirs.RecordListTooLargeError: refusals.OVER_SEGMENT,
    theirs.OutOfOrderSequenceNumberError: refusals.FORGOTTEN,
    theirs.UnknownProducerIdError: refusals.FORGOTTEN,
    theirs.InvalidProducerEpochError: refusals.FORGOTTEN,
    theirs.CorruptRecordError: refusals.DAMAGED,
    theirs.OffsetOutOfRangeError: refusals.GONE,
    theirs.LogTruncationError: refusals.GONE,
    theirs.NoOffsetForPartitionError: refusals.NO_POSITION,
    theirs.OffsetMetadataTooLargeError: refusals.LONG_METADATA,
    theirs.CommitFailedError: refusals.MOVED,
    theirs.IllegalGenerationError: refusals.MOVED,
    theirs.UnknownMemberIdError: refusals.MOVED,
    theirs.RebalanceInProgressError: refusals.MOVING,
    theirs.FencedInstanceIdError: refusals.INSTANCE_TAKEN,
    theirs.ProducerFencedError: refusals.PRODUCER_TAKEN,
    theirs.InvalidSessionTimeoutError: refusals.SESSION,
    theirs.KafkaConfigurationError: refusals.SETTINGS,
    theirs.RetriableError: refusals.BUSY,
    theirs.UnknownBrokerIdError: refusals.BUSY,
    theirs.KafkaError: refusals.REFUSED,
    TimeoutError: refusals.SILENT,
    OSError: refusals.CUT_OFF,
    Exception: refusals.FAILED,
}

# What happens while a broker comes, goes or hands its partitions over: the same request may succeed a moment later.
_PASSING = (theirs.RetriableError, theirs.UnknownBrokerIdError, TimeoutError)
# ... but for these, which kafka-python calls retriable because a topic may be on its way.
_LASTING = (theirs.UnknownTopicOrPartitionError, theirs.UnknownTopicIdError)


def is_passing(exc: BaseException) -> bool:
    """Whether the same request may well succeed a moment later."""
    if isinstance(exc, TlsFailed) and exc.final:
        return False
    return isinstance(exc, _PASSING) and not isinstance(exc, _LASTING)


def translated(exc: BaseException, doing: str, asked: Asked = NOBODY) -> BrokerError:
    """Our error for one of kafka-python's, which becomes its cause. ``doing`` and ``asked`` are for its text, as in
    :meth:`quixframes.refusals.Refusal.of`."""
    if isinstance(exc, BrokerError):
        return exc
    if isinstance(exc, TlsFailed):
        return exc.refusal.of(exc.__cause__, doing, str(exc.args[0]), asked)
    if isinstance(exc, theirs.TopicAuthorizationFailedError) and exc.args and isinstance(exc.args[0], (set, frozenset)):
        asked = replace(asked, topic=min(exc.args[0], default=asked.topic))  # one of those that may not be read
    refusal = next(_TABLE[ancestor] for ancestor in type(exc).__mro__ if ancestor in _TABLE)
    detail = " ".join(str(part) for part in exc.args if isinstance(part, str) and part)
    name = type(exc).__name__
    return refusal.of(exc, doing, f"{name}: {detail}" if detail else name, asked)
