"""What a model may do, as people say it, and as the lines that Kafka keeps of it (access control lists). Pure.

What this module holds to:

- A grant is what its roles need, and no more: nothing of other topics, groups and transactions, and nothing that only
  who runs the cluster should do.
- Which roles a principal has can be read off its lines, so that nothing else has to be kept of it; and what two roles
  need in common goes with the last of them.

============== ====================================================================================================
role           lines
============== ====================================================================================================
read a topic   read and describe_configs on it; read on ``__quixframes.contracts``
write a topic  write and describe_configs on it; read on ``__quixframes.contracts``; read and write on
               ``__quixframes.placement``, where it pins streams of a topic that grows at the moment
use a group    read on it; and where something may be written, write on the transactional IDs of the group's instances,
               ``quixframes/<group>/...``, for results exactly once
own a topic    all on it, its making and removing among it; and all of what is in the two topics of quixframes' own,
               where its contract is kept and where its streams are
============== ====================================================================================================

Describing is part of reading and writing (Kafka's documentation, "Authorization and ACLs").
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple
from urllib.parse import quote

from quixframes.contract_store import CONTRACTS
from quixframes.errors import SettingsError
from quixframes.kafka import Acl
from quixframes.placement_store import PLACEMENT
from quixframes.subscription import OWN

__all__ = ["Grant", "Names", "grants_of", "lines_of", "principal_of", "transactional_ids", "wanted"]

Names = str | Collection[str]
"""A name; one that ends in ``*`` for all that begin like it; or several of these."""

Role = Literal["read", "write", "group", "own"]

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Grant(NamedTuple):
    """One role of a principal: ``read``, ``write`` or ``own`` of a topic, or the use of a ``group``."""

    role: Role
    name: str
    prefixed: bool = False

    def __str__(self) -> str:
        """As the argument of a call."""
        return f"{self.role}={self.name + '*' * self.prefixed!r}"

    def covers(self, other: Grant) -> bool:
        """Whether who has this one may do what the other allows.

        >>> Grant("own", "car-", prefixed=True).covers(Grant("read", "car-44"))
        True
        >>> Grant("read", "car-44").covers(Grant("read", "car-", prefixed=True))
        False
        """
        if self.role != other.role and (self.role, other.role) not in {("own", "read"), ("own", "write")}:
            return False
        if self.prefixed:
            return other.name.startswith(self.name)
        return self.name == "*" or (self.name == other.name and not other.prefixed)


def principal_of(user: str) -> str:
    """What Kafka calls a user.

    >>> principal_of("alice"), principal_of("User:CN=alice,O=pits")
    ('User:alice', 'User:CN=alice,O=pits')

    Raises:
        SettingsError: it is no name.
    """
    if not isinstance(user, str) or not user.removeprefix("User:") or not user.isprintable():
        raise SettingsError(f"principal={user!r} has to be the name of a user, as 'alice'")
    return user if user.startswith("User:") else f"User:{user}"


def transactional_ids(group: str) -> str:
    """What the transactional IDs of a group's instances begin with, and those of no other group's.

    >>> transactional_ids("pace-model"), transactional_ids("a/b")
    ('quixframes/pace-model/', 'quixframes/a%2Fb/')
    """
    return f"quixframes/{quote(group, safe='')}/"


def wanted(
    *, read: Names | None = None, write: Names | None = None, group: Names | None = None, own: Names | None = None
) -> frozenset[Grant]:
    """The roles that the arguments of a call name.

    Raises:
        SettingsError: one is no name, or one of quixframes' own topics, which come with the roles; or none is given.
    """
    given: dict[Role, Names | None] = {"read": read, "write": write, "group": group, "own": own}
    found: set[Grant] = set()
    for role, names in given.items():
        if not isinstance(names, str | Collection | None):
            raise SettingsError(f"{role}={names!r} has to be a name, or several in a list")
        found.update(_wanted(role, name) for name in ((names,) if isinstance(names, str) else names or ()))
    if not found:
        raise SettingsError("nothing is named: say read=, write= or own= with topics, or group= with groups")
    return frozenset(found)


def _wanted(role: Role, name: str) -> Grant:
    stem = name.removesuffix("*") if isinstance(name, str) else ""
    if "*" in stem or not (stem or name == "*"):
        raise SettingsError(f"{role}={name!r} has to be a name, or the beginning of names and a '*'")
    prefixed = stem != name and stem != ""
    if role == "group":
        if not name.isprintable():
            raise SettingsError(f"{role}={name!r} cannot be a group's name: it has characters that cannot be shown")
    elif stem.startswith(OWN) or (prefixed and OWN.startswith(stem)):
        raise SettingsError(f"{role}={name!r}: quixframes' own topics come with the others, as far as needed")
    elif stem and not _TOPIC.fullmatch(stem):
        raise SettingsError(f"{role}={name!r} cannot be a topic's name: letters, digits, '.', '_' and '-', at most 249")
    return Grant(role, stem if prefixed else name, prefixed)


def lines_of(principal: str, grants: Iterable[Grant]) -> frozenset[Acl]:
    """The lines that these roles of one principal need together."""
    grants = set(grants)
    lines: set[Acl] = set()

    def allow(operations: str, resource: str, name: str, prefixed: bool = False) -> None:
        lines.update(Acl(principal, operation, resource, name, prefixed) for operation in operations.split())

    roles = {grant.role for grant in grants}
    for role, name, prefixed in grants:
        if role == "group":
            allow("read", "group", name, prefixed)
            if roles & {"write", "own"}:
                allow("write", "transactional_id", *_transactions(name, prefixed))
        elif role == "own":
            allow("all", "topic", name, prefixed)
        else:
            allow(f"{role} describe_configs", "topic", name, prefixed)
    if roles & {"read", "write", "own"}:
        allow("read", "topic", CONTRACTS)
    if roles & {"write", "own"}:
        allow("read write", "topic", PLACEMENT)
    if "own" in roles:
        allow("create write describe_configs", "topic", CONTRACTS)
        allow("create describe_configs", "topic", PLACEMENT)
    return frozenset(lines)


def grants_of(lines: Iterable[Acl]) -> frozenset[Grant]:
    """The roles that one principal's lines amount to."""
    found: set[Grant] = set()
    for line in lines:
        if not line.allowed or line.host != "*":
            continue
        if line.resource == "group" and line.operation == "read":
            found.add(Grant("group", line.name, line.prefixed))
        elif line.resource == "topic" and not line.name.startswith(OWN):
            if line.operation == "all":
                found.add(Grant("own", line.name, line.prefixed))
            elif line.operation in ("read", "write"):
                found.add(Grant("read" if line.operation == "read" else "write", line.name, line.prefixed))
    return frozenset(found)


def _transactions(group: str, prefixed: bool) -> tuple[str, bool]:
    if group == "*":
        return "quixframes/", True
    begin = transactional_ids(group)
    return (begin.removesuffix("/") if prefixed else begin), True
