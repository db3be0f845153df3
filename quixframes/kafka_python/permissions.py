"""Permissions and passwords, in kafka-python's requests. Its own methods drop what the cluster says of a failure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import kafka.errors as theirs
from kafka.admin import (
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka.protocol.admin import (
    AlterUserScramCredentialsRequest,
    CreateAclsRequest,
    DeleteAclsRequest,
    DescribeAclsRequest,
    DescribeUserScramCredentialsRequest,
)

from quixframes.kafka import Acl
from quixframes.security import Secret

__all__ = ["acls", "create_acls", "delete_acls", "delete_password", "set_password", "users"]

Ask = Callable[[Any], Any]
"""Sends a request, and returns its answer."""

_NO_SUCH_USER = 91  # Kafka's RESOURCE_NOT_FOUND
_OPERATIONS = {int(one): one.name.lower() for one in ACLOperation} | {15: "two_phase_commit"}
_NUMBERS = {name: number for number, name in _OPERATIONS.items()}
_UNKNOWN = "operation "  # of a newer Kafka than kafka-python is: with its number


def acls(ask: Ask) -> list[Acl]:
    """All that there are."""
    answer = ask(
        DescribeAclsRequest(
            resource_type_filter=ResourceType.ANY,
            resource_name_filter=None,
            pattern_type_filter=ACLResourcePatternType.ANY,
            principal_filter=None,
            host_filter=None,
            operation=ACLOperation.ANY,
            permission_type=ACLPermissionType.ANY,
        )
    )
    _check(answer)
    return sorted(
        Acl(
            principal=one.principal,
            operation=_OPERATIONS.get(one.operation) or f"{_UNKNOWN}{one.operation}",
            resource=ResourceType(of.resource_type).name.lower(),
            name=of.resource_name,
            prefixed=of.pattern_type == ACLResourcePatternType.PREFIXED,
            allowed=one.permission_type == ACLPermissionType.ALLOW,
            host=one.host,
        )
        for of in answer.resources
        for one in of.acls
    )


def create_acls(ask: Ask, wanted: Collection[Acl]) -> None:
    """Add them."""
    made = [
        CreateAclsRequest.AclCreation(
            resource_type=ResourceType[one.resource.upper()],
            resource_name=one.name,
            resource_pattern_type=_pattern(one),
            principal=one.principal,
            host=one.host,
            operation=_number(one),
            permission_type=_permission(one),
        )
        for one in wanted
    ]
    _check(*ask(CreateAclsRequest(creations=made)).results)


def delete_acls(ask: Ask, unwanted: Collection[Acl]) -> None:
    """Remove exactly these."""
    filters = [
        DeleteAclsRequest.DeleteAclsFilter(
            resource_type_filter=ResourceType[one.resource.upper()],
            resource_name_filter=one.name,
            pattern_type_filter=_pattern(one),
            principal_filter=one.principal,
            host_filter=one.host,
            operation=_number(one),
            permission_type=_permission(one),
        )
        for one in unwanted
    ]
    found = ask(DeleteAclsRequest(filters=filters)).filter_results
    _check(*found, *(one for result in found for one in result.matching_acls))


def users(ask: Ask) -> dict[str, dict[str, int]]:
    """Who has passwords, by which mechanisms."""
    # No list would mean the same; but to it, a broker has no answer for those who may not ask.
    answer = ask(DescribeUserScramCredentialsRequest(users=[]))
    _check(answer)
    return {
        one.user: {_name(has.mechanism): has.iterations for has in one.credential_infos}
        for one in sorted(answer.results, key=lambda one: str(one.user))
    }


def set_password(ask: Ask, user: str, mechanism: str, password: Secret, iterations: int) -> None:
    """The broker is sent a salted hash, never the password."""
    made = UserScramCredentialUpsertion(user, mechanism, password.reveal(), iterations)
    values = (user, int(made.mechanism), made.iterations, made.salt, made.salted_password)
    _check(*ask(AlterUserScramCredentialsRequest(deletions=[], upsertions=[values])).results)


def delete_password(ask: Ask, user: str, mechanism: str) -> None:
    """Remove it, if there is one."""
    number = int(ScramMechanism[mechanism.replace("-", "_")])
    results = ask(AlterUserScramCredentialsRequest(deletions=[(user, number)], upsertions=[])).results
    _check(*(one for one in results if one.error_code != _NO_SUCH_USER))


def _check(*verdicts: Any) -> None:
    for verdict in verdicts:
        if verdict.error_code:
            raise theirs.for_code(verdict.error_code)(verdict.error_message)


def _name(mechanism: int) -> str:
    return str(ScramMechanism(mechanism).name).replace("_", "-")


def _number(acl: Acl) -> int:
    return int(acl.operation.removeprefix(_UNKNOWN)) if acl.operation.startswith(_UNKNOWN) else _NUMBERS[acl.operation]


def _pattern(acl: Acl) -> ACLResourcePatternType:
    return ACLResourcePatternType.PREFIXED if acl.prefixed else ACLResourcePatternType.LITERAL


def _permission(acl: Acl) -> ACLPermissionType:
    return ACLPermissionType.ALLOW if acl.allowed else ACLPermissionType.DENY
