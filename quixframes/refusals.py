"""What can go wrong between a client and a cluster: each kind once, as our error and what to do about it.

The adapters have a table each from their client's errors to these.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import unquote

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
    SettingsError,
    TlsError,
    TopicNotFoundError,
)
from quixframes.settings import Duration

__all__ = ["NOBODY", "USED_AS", "Asked", "Refusal", "check_may", "denied", "too_long_a_transaction"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked the cluster for what, for the text of a refusal.

    Args:
        principal: as the cluster calls it, "User:alice"; None where a certificate or a token says it.
        operation: what was to be done, by Kafka's name: "read", "write", "describe", "alter_configs" ...
        topic, group, transactional_id: to what; empty where it was none of them.
    """

    principal: str | None = None
    operation: str = "describe"
    topic: str = ""
    group: str = ""
    transactional_id: str = ""

    def of(self, resource: str) -> tuple[str, str]:
        """The operation, and the name, where the cluster says that it is about this kind of resource."""
        if resource == "topic":
            return self.operation, self.topic
        if resource == "group":
            return "read" if self.operation == "write" else self.operation, self.group
        if resource == "transactional_id":
            return "write", self.transactional_id
        return self.operation, "kafka-cluster"


NOBODY = Asked()
USED_AS = {"describe": "described", "read": "read", "write": "written", "alter": "changed"}


class Refusal(NamedTuple):
    """A kind of failure: the class of its error, and the middle of its text."""

    kind: type[BrokerError]
    text: str
    resource: Literal["topic", "group", "transactional_id", "cluster", ""] = ""  # what may not be had

    @property
    def passes(self) -> bool:
        """Whether the same request may well succeed a moment later."""
        return self.kind.retriable

    def of(self, cause: BaseException | None, doing: str, detail: str, asked: Asked = NOBODY) -> BrokerError:
        """The error.

        Args:
            cause: the client's own error, if it had one.
            doing: what was tried, for the text: "topic 'engine' could not be written".
            detail: what the client said, for the text.
            asked: who asked for what.
        """
        error: BrokerError
        if self.resource:
            if self.resource == "cluster":
                detail = detail.partition(":")[0]  # the rest is a request as Java prints it
            operation, name = asked.of(self.resource)
            error = denied(doing, asked.principal, operation, self.resource, name, detail)
        elif self.kind is TopicNotFoundError:
            error = TopicNotFoundError(f"{doing}: {self.text} ({detail})", topic=asked.topic)
        else:
            error = self.kind(f"{doing}: {self.text} ({detail})")
        error.__cause__ = cause
        return error


def denied(
    doing: str, principal: str | None, operation: str, resource: str, name: str, detail: str = ""
) -> AccessDeniedError:
    """The error of a permission that is missing, with the call that grants it.

    >>> error = denied("topic 'engine' cannot be read", "User:alice", "read", "topic", "engine")
    >>> print(*str(error).split(". "), sep=chr(10))
    topic 'engine' cannot be read: User:alice may not read topic 'engine'
    Who runs the cluster allows it by client.topics.grant('alice', read='engine')
    """
    who = principal or "this client (whoever its certificate or token says it is)"
    kind = resource.replace("_", " ")
    what = f"{kind} {name!r}" if name and resource != "cluster" else f"the {kind}"
    text = (
        f"{doing}: {who} may not {operation.replace('_', ' ')} {what}. {_remedy(principal, operation, resource, name)}"
    )
    return AccessDeniedError(
        f"{text} ({detail})" if detail else text, principal=principal, operation=operation, resource=resource, name=name
    )


def check_may(asked: Asked, operations: Collection[object] | None) -> None:
    """Raise AccessDeniedError unless what is asked for is one of the operations that the cluster allows on the topic.
    Clusters that keep no permissions allow all; old ones do not tell (None)."""
    if operations is not None and asked.operation not in {str(one).lower() for one in operations}:
        doing = f"topic {asked.topic!r} cannot be {USED_AS.get(asked.operation, 'used')}"
        raise denied(doing, asked.principal, asked.operation, "topic", asked.topic)


# With which role on a topic what is done with quixframes' own topics comes: see quixframes.grants.
_CONTRACT_ROLES = {"read": "read", "describe": "read"} | dict.fromkeys(("describe_configs", "write", "create"), "own")
_PLACEMENT_ROLES = dict.fromkeys(("read", "describe", "write"), "write") | {"describe_configs": "own", "create": "own"}


def _remedy(principal: str | None, operation: str, resource: str, name: str) -> str:
    user = repr("..." if principal is None else principal.removeprefix("User:"))
    if resource == "topic" and name.startswith("__quixframes."):
        roles = _PLACEMENT_ROLES if name.endswith(".placement") else _CONTRACT_ROLES
        if operation not in roles:
            return "Only who runs the cluster may"
        call = f"{roles[operation]}=...), with the topic that it is about"
        return f"Who runs the cluster allows it by client.topics.grant({user}, {call}"
    if resource == "topic":
        role = {"read": "read", "describe": "read", "describe_configs": "read", "write": "write"}.get(operation, "own")
        call = f"{role}={name!r}"
    elif resource == "group" and operation in ("read", "describe"):
        call = f"group={name!r}"
    elif resource == "transactional_id":
        group = repr(unquote(name.split("/")[1])) if name.startswith("quixframes/") else "..."
        call = f"group={group}, write=..."
    else:
        return "Only who runs the cluster may"
    return f"Who runs the cluster allows it by client.topics.grant({user}, {call})"


# What the principal may not

NO_TOPIC_ACCESS = Refusal(AccessDeniedError, "it may not be had", "topic")
NO_GROUP_ACCESS = Refusal(AccessDeniedError, "it may not be had", "group")
NO_TRANSACTION_ACCESS = Refusal(AccessDeniedError, "it may not be had", "transactional_id")
NO_CLUSTER_ACCESS = Refusal(AccessDeniedError, "it may not be had", "cluster")
AGAINST_POLICY = Refusal(AccessDeniedError, "the cluster's policy forbids it")
NO_DELETION = Refusal(AccessDeniedError, "the cluster does not allow topics to be deleted")
NO_AUTHORIZER = Refusal(AccessDeniedError, "the cluster has no authorizer, so it keeps no permissions")

# Connections

LOGIN = Refusal(AuthenticationError, "the login was refused: check the user, the password or token, and the mechanism")
MECHANISM = Refusal(AuthenticationError, "the broker does not offer this login mechanism")
NOT_KAFKA = Refusal(
    TlsError, "what answers there does not speak plain Kafka: perhaps it is a TLS port, or no broker at all"
)
TLS_PORT = Refusal(TlsError, "this is a TLS port: give security=Security.scram(...), .tls(...) or .mtls(...)")
NO_TLS = Refusal(
    TlsError, "what answers there does not speak TLS: give the address of the TLS port, or no security at all"
)
UNTRUSTED = Refusal(
    TlsError, "the broker's certificate is of an authority that is not trusted: give that one's certificate as ca"
)
EXPIRED = Refusal(TlsError, "a certificate of the broker, or of its authority, has expired: it has to be renewed there")
NOT_YET_VALID = Refusal(TlsError, "the broker's certificate is not valid yet: check the clocks of both machines")
OTHER_HOST = Refusal(
    TlsError, "the broker's certificate is for another host: connect by a name or address that stands in it"
)
OLD_TLS = Refusal(
    TlsError, "the broker and this client have no version of TLS or no cipher in common: 1.2 is the least"
)
NO_CERTIFICATE = Refusal(
    TlsError, "the broker asks for this client's certificate: give one, as in Security.mtls('client.pem', ca='ca.pem')"
)
CERTIFICATE_REFUSED = Refusal(
    TlsError, "the broker refuses this client's certificate: use one that is valid, of an authority that it trusts"
)
NO_TRUST = Refusal(TlsError, "no trusted connection could be made")
NO_LOGIN = Refusal(
    AuthenticationError, "the broker wants a login: give a user and a password, as in Security.scram('alice', '...')"
)
NO_SASL = Refusal(
    AuthenticationError, "this port takes no login by user or token: use its other port, or security without mechanism"
)
UNREACHABLE = Refusal(BrokerUnavailableError, "the connection failed: check the address, and that a broker runs there")
CUT_OFF = Refusal(BrokerUnavailableError, "the connection failed")
NO_ADDRESS = Refusal(BrokerUnavailableError, "the broker's name cannot be looked up")
SILENT = Refusal(BrokerUnavailableError, "no broker answered in time")
BUSY = Refusal(BrokerUnavailableError, "the brokers cannot serve it at the moment")
TOO_OLD = Refusal(BrokerError, "the broker is too old for it: Kafka 2.5 or newer is needed")

# Topics

NO_TOPIC = Refusal(TopicNotFoundError, "there is no such topic or partition, or the principal may not know of it")
DELETED = Refusal(TopicNotFoundError, "the topic was deleted")
NO_NAME = Refusal(TopicNotFoundError, "that cannot be a topic's name: letters, digits, '.', '_' and '-', at most 249")
EXISTS = Refusal(BrokerError, "the topic exists already")
REPLICATION = Refusal(BrokerError, "the cluster has fewer brokers than the replication asks for")
PARTITIONS = Refusal(BrokerError, "the number of partitions cannot be")
TOPIC_SETTING = Refusal(BrokerError, "a setting of the topic is unknown or cannot have this value")

# Messages

TOO_LARGE = Refusal(
    MessageTooLargeError, "the message is over the topic's max.message.bytes: write smaller frames, or raise it"
)
OVER_SEGMENT = Refusal(MessageTooLargeError, "the messages are over the topic's segment size")
FORGOTTEN = Refusal(
    BrokerError,
    "the broker no longer knows which messages it has had from this producer, so they may or may not have arrived",
)
DAMAGED = Refusal(BrokerError, "what came from the broker is damaged: its checksum is wrong")

# Positions, groups and transactions

GONE = Refusal(OffsetGoneError, "what was to be read next is no longer in the topic")
NO_POSITION = Refusal(OffsetGoneError, "the partition has no position to read from")
LONG_METADATA = Refusal(CommitError, "the text kept with the offset is over the broker's limit")
NOTHING_TO_COMMIT = Refusal(CommitError, "there was nothing to commit")
MOVED = Refusal(
    GroupMovedOnError, "the partition belongs to another instance of the group by now, or this instance was given up"
)
MOVING = Refusal(GroupMovedOnError, "the group is sharing its partitions out anew")
INSTANCE_TAKEN = Refusal(FencedError, "another instance has joined under this one's instance_id")
PRODUCER_TAKEN = Refusal(FencedError, "another producer has taken the transactional ID over")
SESSION = Refusal(
    BrokerError, "session_timeout is outside of what the brokers allow (group.min and max.session.timeout.ms)"
)
ASSIGNMENT = Refusal(
    BrokerError, "the group's other instances share partitions out in another way: give all of them one assignment"
)

# All else

SETTINGS = Refusal(BrokerError, "the client cannot work with these settings")
REFUSED = Refusal(BrokerError, "the cluster refused it")
FAILED = Refusal(BrokerError, "the Kafka client failed")


def too_long_a_transaction(timeout: Duration) -> SettingsError:
    """The cluster allows no ``WriterSettings.transaction_timeout`` of this length."""
    return SettingsError(
        f"transaction_timeout={timeout!r} is longer than the cluster allows: shorten it, or raise the brokers' "
        "transaction.max.timeout.ms (15 minutes, unless told otherwise)"
    )
