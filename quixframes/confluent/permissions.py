"""Permissions and passwords, in confluent-kafka's terms."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from quixframes.confluent.failures import error_in
from quixframes.errors import BrokerError
from quixframes.kafka import Acl
from quixframes.security import Secret

__all__ = ["acls", "create_acls", "delete_acls", "delete_password", "set_password", "users"]

# The cluster itself goes by an older name there.
_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "cluster": ResourceType.BROKER,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
}
_UNKNOWN = "unknown"  # what it calls the operations of a newer Kafka
_NAMES = {kind: name for name, kind in _RESOURCES.items()}


def acls(client: Any, left: float) -> list[Acl]:
    """All that there are; of the kinds of resources that librdkafka knows."""
    any_: Any = None  # as it is documented; its types want text
    wanted = AclBindingFilter(
        ResourceType.ANY, any_, ResourcePatternType.ANY, any_, any_, AclOperation.ANY, AclPermissionType.ANY
    )
    return sorted(
        Acl(
            principal=one.principal,
            operation=one.operation.name.lower(),
            resource=_NAMES[one.restype],
            name=one.name,
            prefixed=one.resource_pattern_type == ResourcePatternType.PREFIXED,
            allowed=one.permission_type == AclPermissionType.ALLOW,
            host=one.host,
        )
        for one in client.describe_acls(wanted, request_timeout=left).result(left + 1)
        if one.restype in _NAMES
    )


def create_acls(client: Any, wanted: Collection[Acl], left: float) -> None:
    """Add them."""
    made = [AclBinding(*_parts(one)) for one in wanted]
    _done(client.create_acls(made, request_timeout=left).values(), left)


def delete_acls(client: Any, unwanted: Collection[Acl], left: float) -> None:
    """Remove exactly these. BrokerError: of some, librdkafka does not know the operation; the others are removed."""
    known = [one for one in unwanted if one.operation != _UNKNOWN]
    if known:
        filters = [AclBindingFilter(*_parts(one)) for one in known]
        _done(client.delete_acls(filters, request_timeout=left).values(), left)
    if len(known) < len(unwanted):
        about = ", ".join(f"{one.resource} {one.name!r}" for one in unwanted if one.operation == _UNKNOWN)
        raise BrokerError(
            f"permissions stay on {about}: librdkafka does not know their operations, and kafka-python does, so use "
            "transport='kafka-python'"
        )


def users(client: Any, left: float) -> dict[str, dict[str, int]]:
    """Who has passwords, by which mechanisms."""
    found = client.describe_user_scram_credentials(request_timeout=left).result(left + 1)
    return {
        name: {has.mechanism.name.replace("_", "-"): has.iterations for has in one.scram_credential_infos}
        for name, one in sorted(found.items())
    }


def set_password(client: Any, user: str, mechanism: str, password: Secret, iterations: int, left: float) -> None:
    """The broker is sent a salted hash, never the password."""
    info = ScramCredentialInfo(_mechanism(mechanism), iterations)
    made = UserScramCredentialUpsertion(user, info, password.reveal().encode())
    _done(client.alter_user_scram_credentials([made], request_timeout=left).values(), left)


def delete_password(client: Any, user: str, mechanism: str, left: float) -> None:
    """Remove it, if there is one."""
    wanted = UserScramCredentialDeletion(user, _mechanism(mechanism))
    try:
        _done(client.alter_user_scram_credentials([wanted], request_timeout=left).values(), left)
    except KafkaException as exc:
        error = error_in(exc)
        if error is None or error.code() != KafkaError.RESOURCE_NOT_FOUND:
            raise


def _done(futures: Iterable[Any], left: float) -> None:
    for future in futures:
        future.result(left + 1)


def _mechanism(name: str) -> ScramMechanism:
    return ScramMechanism[name.replace("-", "_")]


def _parts(acl: Acl) -> tuple[Any, ...]:
    return (
        _RESOURCES[acl.resource],
        acl.name,
        ResourcePatternType.PREFIXED if acl.prefixed else ResourcePatternType.LITERAL,
        acl.principal,
        acl.host,
        AclOperation[acl.operation.upper()],
        AclPermissionType.ALLOW if acl.allowed else AclPermissionType.DENY,
    )
