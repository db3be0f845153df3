"""Who may do what: ``client.topics.grant``, ``revoke`` and ``access``; and who may log in: ``client.users``."""

from __future__ import annotations

import builtins
import logging
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from itertools import product
from typing import Literal, TypeAlias

import pandas as pd

from quixframes.errors import BrokerError, SettingsError
from quixframes.grants import Grant, Names, grants_of, lines_of, principal_of, wanted
from quixframes.kafka import Acl, Admin
from quixframes.logs import Place
from quixframes.security import Secret
from quixframes.settings import whole_number

__all__ = ["Access", "Users"]

Scram: TypeAlias = Literal["SCRAM-SHA-256", "SCRAM-SHA-512"]

log = logging.getLogger(__name__)

_COLUMNS = ("principal", "permission", "operation", "resource", "name", "pattern", "host")
_PATIENCE = 5.0  # seconds until what the cluster has accepted is seen there
_PAUSE = 0.02
_PASSWORD_BYTES = 24
_ITERATIONS = 8192
_USER = re.compile(r"[!-~]([ -~]*[!-~])?")  # Kafka lets nobody log in by SCRAM whose name is not ASCII
_EVERYBODY = "User:*"


class Access:
    """The permissions of a cluster. ``admin`` gives the client's own."""

    def __init__(self, admin: Callable[[], Admin]) -> None:
        self._admin = admin

    def grant(
        self,
        principal: str,
        *,
        read: Names | None = None,
        write: Names | None = None,
        group: Names | None = None,
        own: Names | None = None,
        dry_run: bool = False,
    ) -> pd.DataFrame:
        """See :meth:`Topics.grant <quixframes.topics.Topics.grant>`."""
        principal = principal_of(principal)
        given = wanted(read=read, write=write, group=group, own=own)
        before = self._of(principal)
        lines = lines_of(principal, grants_of(before) | given) - before
        if lines and not dry_run:
            self._admin().create_acls(sorted(lines))
            self._await(lambda: lines <= self._of(principal))
        return _frame(lines)

    def revoke(
        self,
        principal: str,
        *,
        read: Names | None = None,
        write: Names | None = None,
        group: Names | None = None,
        own: Names | None = None,
        dry_run: bool = False,
    ) -> pd.DataFrame:
        """See :meth:`Topics.revoke <quixframes.topics.Topics.revoke>`."""
        principal = principal_of(principal)
        one_by_one = any(names is not None for names in (read, write, group, own))
        given = wanted(read=read, write=write, group=group, own=own) if one_by_one else frozenset()
        before = self._of(principal)
        grants = grants_of(before)
        if one_by_one:
            lines = before & (lines_of(principal, grants) - lines_of(principal, grants - given))
        else:
            lines = frozenset(line for line in before if line.allowed)
        if lines and not dry_run:
            self._admin().delete_acls(sorted(lines))
            self._await(lambda: not lines & self._of(principal))
        self._tell_what_stays(principal, given, grants - given)
        return _frame(lines)

    def _tell_what_stays(self, principal: str, given: frozenset[Grant], kept: frozenset[Grant]) -> None:
        """A narrower role than the one that was granted is easily named, and then nothing is taken away."""
        if not given:
            return
        roles = {_EVERYBODY: grants_of(self._of(_EVERYBODY)), principal: kept}
        for whose, others in roles.items():
            for role, other in product(sorted(given), sorted(others)):
                if other.covers(role):
                    log.warning(
                        "%s may still do what %s allows: %s has %s", principal, role, whose, other, extra=Place().extra
                    )

    def table(self, principal: str | None) -> pd.DataFrame:
        """See :meth:`Topics.access <quixframes.topics.Topics.access>`."""
        who = None if principal is None else principal_of(principal)
        return _frame(line for line in self._admin().acls() if who in (None, line.principal))

    def _of(self, principal: str) -> frozenset[Acl]:
        return frozenset(line for line in self._admin().acls() if line.principal == principal)

    def _await(self, done: Callable[[], bool]) -> None:
        _await(done, "permissions")


class Users:
    """The users of a cluster, as it keeps them itself: names with passwords for SCRAM. ``client.users``.

    Passwords never travel, nor are kept: the cluster is sent a salted hash.

    >>> password = client.users.create("pace-model")                                          # doctest: +SKIP
    >>> client.topics.grant("pace-model", read="engine", group="pace-model")                  # doctest: +SKIP
    """

    def __init__(self, admin: Callable[[], Admin]) -> None:
        self._admin = admin

    def list(self) -> builtins.list[str]:
        """The names of all users, sorted.

        Raises:
            AccessDeniedError: this principal may not see them.
        """
        return builtins.list(self._admin().users())

    def table(self) -> pd.DataFrame:
        """All users, a row for each and mechanism: user, mechanism, iterations (of the hash)."""
        rows = [(user, *one) for user, has in self._admin().users().items() for one in sorted(has.items())]
        return pd.DataFrame(rows, columns=["user", "mechanism", "iterations"]).astype({"iterations": "int64"})

    def exists(self, user: str) -> bool:
        """Whether there is one of that name."""
        return user in self._admin().users()

    def create(
        self,
        user: str,
        password: str | Secret | None = None,
        *,
        mechanism: Scram | Collection[Scram] = "SCRAM-SHA-512",
        iterations: int = _ITERATIONS,
    ) -> Secret:
        """Make a user, who may log in, and nothing else before a grant.

        Args:
            user: the name, in ASCII.
            password: default: one is made up, of 32 characters.
            mechanism: by which the user may log in; several with one password. Default SCRAM-SHA-512.
            iterations: of the hash that the cluster keeps: 4,096 to 16,384. More make guessing and logging in slower.

        Returns:
            The password; ``.reveal()`` is its text. It is shown nowhere else, and cannot be looked up later.

        Raises:
            SettingsError: an argument cannot be.
            BrokerError: there is a user of that name: see :meth:`rotate`.
            AccessDeniedError: this principal may not make users.
        """
        mechanisms: tuple[str, ...] = (mechanism,) if isinstance(mechanism, str) else tuple(mechanism or ())
        if not mechanisms or any(one not in ("SCRAM-SHA-256", "SCRAM-SHA-512") for one in mechanisms):
            raise SettingsError(f"mechanism={mechanism!r} has to be SCRAM-SHA-256, SCRAM-SHA-512 or both")
        if not isinstance(user, str) or not _USER.fullmatch(user) or user == "*" or user.startswith("User:"):
            raise SettingsError(f"user={user!r} has to be a name in ASCII, as 'pace-model'")
        whole_number(iterations, "iterations", least=4096)
        if iterations > 16_384:
            raise SettingsError(f"iterations={iterations}: Kafka takes at most 16384")
        if self.exists(user):
            raise BrokerError(f"there is a user {user!r} already: client.users.rotate gives a new password")
        return self._set(user, password, dict.fromkeys(mechanisms, iterations))

    def rotate(self, user: str, password: str | Secret | None = None) -> Secret:
        """Give a user a new password, by all mechanisms that there are of it. Connections that are open go on; whoever
        connects from now on needs the new one.

        Args and returns:
            As in :meth:`create`.

        Raises:
            BrokerError: there is no user of that name.
        """
        has = self._admin().users().get(user)
        if not has:
            raise BrokerError(f"there is no user {user!r}: client.users.create makes one")
        return self._set(user, password, has)

    def delete(self, user: str) -> None:
        """Remove a user: nobody can log in by that name any more. What the name was granted stays; see
        :meth:`Topics.revoke <quixframes.topics.Topics.revoke>`.

        Raises:
            BrokerError: there is no user of that name.
        """
        admin = self._admin()
        has = admin.users().get(user)
        if not has:
            raise BrokerError(f"there is no user {user!r}")
        for mechanism in has:
            admin.delete_password(user, mechanism)
        _await(lambda: not self.exists(user), "users")

    def _set(self, user: str, password: str | Secret | None, mechanisms: dict[str, int]) -> Secret:
        secret = Secret(secrets.token_urlsafe(_PASSWORD_BYTES) if password is None else password)
        if not secret:
            raise SettingsError("password='' is none: leave it out, and one is made up")
        admin = self._admin()
        for mechanism, iterations in mechanisms.items():
            admin.set_password(user, mechanism, secret, iterations)
        _await(lambda: mechanisms.items() <= admin.users().get(user, {}).items(), "users")
        return secret

    def __repr__(self) -> str:
        return "<Users of a cluster: .list(), .table(), .create(), .rotate(), .delete()>"


def _await(done: Callable[[], bool], what: str) -> None:
    """What the controller has written reaches the brokers a moment later."""
    deadline = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise BrokerError(f"the cluster accepted the change of {what}, and shows none after {_PATIENCE:g} s")
        time.sleep(_PAUSE)


def _frame(lines: Iterable[Acl]) -> pd.DataFrame:
    rows = (
        (
            line.principal,
            "allow" if line.allowed else "deny",
            line.operation,
            line.resource,
            line.name,
            "prefix" if line.prefixed else "literal",
            line.host,
        )
        for line in sorted(lines)
    )
    return pd.DataFrame(rows, columns=list(_COLUMNS), dtype="str")
