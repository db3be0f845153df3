"""kafka-python's exceptions, as a table to quixframes' own: what happened, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import kafka.errors as theirs

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

__all__ = ["is_passing", "translated"]


class _Kind(NamedTuple):
    error: type[BrokerError]
    text: str


_DENIED = "the cluster refuses it: the principal lacks the permission (ACL) for it"
_GONE = "no broker answered in time"
_FORGOTTEN = (
    "the broker no longer knows which messages it has had from this producer, so they may or may not have arrived"
)
_LOGIN = "the login was refused: check the user, the password or token, and the mechanism"
_MOVED = "the partition belongs to another instance of the group by now, or this instance was given up"
_OFFSETS = "what was to be read next is no longer in the topic"
_REFUSED = "the cluster refused it"

# The nearest class of the exception's ancestry counts, so a line for a base class covers what has no line of its own.
_TABLE: Mapping[type[BaseException], _Kind] = {
    theirs.AuthorizationError: _Kind(AccessDeniedError, _DENIED),
    theirs.PolicyViolationError: _Kind(AccessDeniedError, "the cluster's policy forbids it"),
    theirs.TopicDeletionDisabledError: _Kind(AccessDeniedError, "the cluster does not allow topics to be deleted"),
    theirs.SaslAuthenticationFailedError: _Kind(AuthenticationError, _LOGIN),
    theirs.UnsupportedSaslMechanismError: _Kind(AuthenticationError, "the broker does not offer this login mechanism"),
    theirs.IllegalSaslStateError: _Kind(AuthenticationError, _LOGIN),
    theirs.SecurityDisabledError: _Kind(AccessDeniedError, "the cluster has no authorizer, so it keeps no permissions"),
    theirs.UnknownTopicOrPartitionError: _Kind(
        TopicNotFoundError, "there is no such topic or partition, or the principal may not know of it"
    ),
    theirs.UnknownTopicIdError: _Kind(TopicNotFoundError, "the topic was deleted"),
    theirs.InvalidTopicError: _Kind(
        TopicNotFoundError, "that cannot be a topic's name: letters, digits, '.', '_' and '-', at most 249"
    ),
    theirs.MessageSizeTooLargeError: _Kind(
        MessageTooLargeError, "the message is over the topic's max.message.bytes: write smaller frames, or raise it"
    ),
    theirs.RecordListTooLargeError: _Kind(MessageTooLargeError, "the messages are over the topic's segment size"),
    theirs.OffsetMetadataTooLargeError: _Kind(CommitError, "the text kept with the offset is over the broker's limit"),
    theirs.CommitFailedError: _Kind(GroupMovedOnError, _MOVED),
    theirs.IllegalGenerationError: _Kind(GroupMovedOnError, _MOVED),
    theirs.UnknownMemberIdError: _Kind(GroupMovedOnError, _MOVED),
    theirs.FencedInstanceIdError: _Kind(FencedError, "another instance has joined under this one's instance_id"),
    theirs.ProducerFencedError: _Kind(FencedError, "another producer has taken the transactional ID over"),
    theirs.RebalanceInProgressError: _Kind(GroupMovedOnError, "the group is sharing its partitions out anew"),
    theirs.OffsetOutOfRangeError: _Kind(OffsetGoneError, _OFFSETS),
    theirs.LogTruncationError: _Kind(OffsetGoneError, _OFFSETS),
    theirs.NoOffsetForPartitionError: _Kind(OffsetGoneError, "the partition has no position to read from"),
    theirs.OutOfOrderSequenceNumberError: _Kind(BrokerError, _FORGOTTEN),
    theirs.UnknownProducerIdError: _Kind(BrokerError, _FORGOTTEN),
    theirs.InvalidProducerEpochError: _Kind(BrokerError, _FORGOTTEN),
    theirs.InvalidSessionTimeoutError: _Kind(
        BrokerError, "session_timeout is outside of what the brokers allow (group.min and max.session.timeout.ms)"
    ),
    theirs.KafkaConfigurationError: _Kind(BrokerError, "the client cannot work with these settings"),
    theirs.CorruptRecordError: _Kind(BrokerError, "what came from the broker is damaged: its checksum is wrong"),
    theirs.UnsupportedVersionError: _Kind(BrokerError, "the broker is too old for it: Kafka 2.5 or newer is needed"),
    theirs.InvalidReceiveError: _Kind(
        TlsError, "what answers there does not speak plain Kafka: perhaps it is a TLS port, or no broker at all"
    ),
    theirs.TopicAlreadyExistsError: _Kind(BrokerError, "the topic exists already"),
    theirs.InvalidReplicationFactorError: _Kind(
        BrokerError, "the cluster has fewer brokers than the replication asks for"
    ),
    theirs.InvalidPartitionsError: _Kind(BrokerError, "the number of partitions cannot be"),
    theirs.InvalidConfigurationError: _Kind(BrokerError, "a setting of the topic is unknown or cannot have this value"),
    theirs.KafkaTimeoutError: _Kind(BrokerUnavailableError, _GONE),
    theirs.KafkaConnectionError: _Kind(
        BrokerUnavailableError, "the connection failed: check the address, and that a broker runs there"
    ),
    theirs.BrokerNotAvailableError: _Kind(BrokerUnavailableError, _GONE),
    theirs.RetriableError: _Kind(BrokerUnavailableError, "the brokers cannot serve it at the moment"),
    theirs.KafkaError: _Kind(BrokerError, _REFUSED),
    TimeoutError: _Kind(BrokerUnavailableError, _GONE),
    OSError: _Kind(BrokerUnavailableError, "the connection failed"),
    Exception: _Kind(BrokerError, "the Kafka client failed"),
}

# What happens while a broker comes, goes or hands its partitions over: the same request may succeed a moment later.
_PASSING = (theirs.RetriableError, TimeoutError)
# ... but for these, which kafka-python calls retriable because a topic may be on its way.
_LASTING = (theirs.UnknownTopicOrPartitionError, theirs.UnknownTopicIdError)


def is_passing(exc: BaseException) -> bool:
    """Whether the same request may well succeed a moment later."""
    return isinstance(exc, _PASSING) and not isinstance(exc, _LASTING)


def translated(exc: BaseException, doing: str, *, topic: str = "") -> BrokerError:
    """Our error for one of kafka-python's, which becomes its cause.

    Args:
        exc: the client's error.
        doing: what was tried, for the text: "topic 'engine' could not be written".
        topic: the topic that it was about, where there is one.
    """
    if isinstance(exc, BrokerError):
        return exc
    kind = next(_TABLE[ancestor] for ancestor in type(exc).__mro__ if ancestor in _TABLE)
    detail = " ".join(str(part) for part in exc.args if isinstance(part, str) and part)
    text = f"{doing}: {kind.text}" + (f" ({type(exc).__name__}: {detail})" if detail else f" ({type(exc).__name__})")
    error = TopicNotFoundError(text, topic=topic) if kind.error is TopicNotFoundError else kind.error(text)
    error.__cause__ = exc
    return error
