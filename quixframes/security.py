"""How a connection is secured: TLS, and who logs in how; as one frozen value, checked when it is made.

- A secret is never shown: not in a repr, not in a format, not in an error.
- Host names are always checked, and TLS is 1.2 or newer. There is no setting for it.
- Who would send a password without TLS has to say that it is meant.
- Nothing is read here: files are opened when a client connects (:mod:`quixframes.tls`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from quixframes.errors import AuthenticationError, SettingsError

__all__ = ["MECHANISMS", "Hidden", "Mechanism", "Pem", "Secret", "Security", "is_pem"]

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
MECHANISMS: tuple[Mechanism, ...] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


class Secret:
    """A text that shows as ``***``, wherever it is printed.

    >>> password = Secret("tyres")
    >>> password, f"{password}"
    (***, '***')
    """

    __slots__ = ("_text",)

    def __init__(self, text: str | Secret) -> None:
        if not isinstance(text, str | Secret):  # str() of bytes would be another password
            raise SettingsError(f"a password or key has to be a text, and this is of type {type(text).__name__}")
        self._text: str = text.reveal() if isinstance(text, Secret) else text

    def reveal(self) -> str:
        """The text itself: for who is to send it, and nobody else."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)


class Hidden(str):
    """A secret in the settings of a Kafka client, which may write them to its log as a whole: its repr is ``***``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


Pem: TypeAlias = "str | os.PathLike[str] | Secret"
"""The path of a file in PEM format, or its text (which begins with ``-----BEGIN``)."""


def is_pem(value: object) -> bool:
    """Whether this is the text of a PEM file, not the path of one."""
    return isinstance(value, Secret) or "-----BEGIN" in str(value)


@dataclass(frozen=True, slots=True, repr=False)
class Security:
    """How to connect: made by :meth:`tls`, :meth:`scram`, :meth:`plain`, :meth:`oauth` or :meth:`mtls`.

    Args:
        ca: the certificates of the authorities that may vouch for the brokers. Default: those that the system trusts.
        certificate: this client's own certificate, with those that lead to its authority.
        key: the certificate's private key. Default: it is in the same file or text.
        key_password: the password of the key, where it is encrypted.
        mechanism: how to log in. Default: not at all, or by the certificate alone.
        user, password: who logs in by PLAIN or SCRAM.
        token: for OAUTHBEARER, a function that returns a token that is valid now. It is called for each new
            connection, and again before the token ends; from any thread. It has 6 s.
        encrypted: whether the connection is made over TLS. Default True.
        allow_plaintext: True lets a password or token travel without TLS, where everybody on the way can take it.

    Files may be given as paths or as their text. They are read when a client connects.

    Raises:
        SettingsError: what does not go together.

    >>> Security.scram("alice", "tyres", ca="/etc/kafka/ca.pem")
    <Security: TLS trusting /etc/kafka/ca.pem, SCRAM-SHA-512 as 'alice'>
    """

    ca: Pem | None = None
    certificate: Pem | None = None
    key: Pem | None = None
    key_password: Secret | None = None
    mechanism: Mechanism | None = None
    user: str | None = None
    password: Secret | None = None
    token: Callable[[], str] | None = None
    encrypted: bool = True
    allow_plaintext: bool = False

    @classmethod
    def tls(cls, ca: Pem | None = None) -> Security:
        """An encrypted connection to a broker whose certificate is trusted; nobody logs in."""
        return cls(ca=ca)

    @classmethod
    def mtls(
        cls,
        certificate: Pem,
        key: Pem | None = None,
        *,
        ca: Pem | None = None,
        key_password: str | Secret | None = None,
    ) -> Security:
        """TLS where this client shows a certificate as well, which says who it is."""
        return cls(ca=ca, certificate=certificate, key=key, key_password=_secret(key_password))

    @classmethod
    def scram(
        cls,
        user: str,
        password: str | Secret,
        *,
        ca: Pem | None = None,
        mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512",
        encrypted: bool = True,
        allow_plaintext: bool = False,
    ) -> Security:
        """A user and a password, which the broker never gets to see, over TLS."""
        return cls(
            ca=ca,
            mechanism=mechanism,
            user=user,
            password=_secret(password),
            encrypted=encrypted,
            allow_plaintext=allow_plaintext,
        )

    @classmethod
    def plain(
        cls,
        user: str,
        password: str | Secret,
        *,
        ca: Pem | None = None,
        encrypted: bool = True,
        allow_plaintext: bool = False,
    ) -> Security:
        """A user and a password, which are sent to the broker, over TLS."""
        return cls(
            ca=ca,
            mechanism="PLAIN",
            user=user,
            password=_secret(password),
            encrypted=encrypted,
            allow_plaintext=allow_plaintext,
        )

    @classmethod
    def oauth(
        cls,
        token: Callable[[], str],
        *,
        ca: Pem | None = None,
        encrypted: bool = True,
        allow_plaintext: bool = False,
    ) -> Security:
        """A token, over TLS. :class:`quixframes.oauth.ClientCredentials` gets one from an identity provider."""
        return cls(ca=ca, mechanism="OAUTHBEARER", token=token, encrypted=encrypted, allow_plaintext=allow_plaintext)

    def __post_init__(self) -> None:
        for name in ("password", "key_password"):
            object.__setattr__(self, name, _secret(getattr(self, name)))
        for name in ("ca", "certificate", "key"):  # as text, even a certificate may have its key with it
            value = getattr(self, name)
            if value is not None and is_pem(value):
                object.__setattr__(self, name, _secret(str(value) if not isinstance(value, Secret) else value))
            elif value is not None and not os.fspath(value):
                raise SettingsError(f"{name}='' is no file: give a path, the text of one, or None")
        self._check_tls()
        self._check_login()

    def _check_tls(self) -> None:
        if self.key is not None and self.certificate is None:
            raise SettingsError("a key was given without a certificate: give both, or neither")
        if not self.encrypted and (self.ca is not None or self.certificate is not None):
            raise SettingsError("certificates were given with encrypted=False: without TLS there are none")

    def _check_login(self) -> None:
        if self.mechanism is None:
            if self.user is not None or self.password is not None or self.token is not None:
                raise SettingsError(f"a login without its mechanism: give one of {', '.join(MECHANISMS)}")
            return
        if self.mechanism not in MECHANISMS:
            raise SettingsError(f"mechanism={self.mechanism!r} has to be one of {', '.join(MECHANISMS)}")
        if self.mechanism == "OAUTHBEARER":
            if not callable(self.token):
                raise SettingsError("OAUTHBEARER needs token=, a function that returns a token (not the token itself)")
            if self.user is not None or self.password is not None:
                raise SettingsError("OAUTHBEARER takes no user and no password: the token says who it is")
        else:
            if not self.user or not self.password:
                raise SettingsError(
                    f"{self.mechanism} needs a user and a password, and one of them is missing or empty"
                )
            if self.token is not None:
                raise SettingsError(f"{self.mechanism} takes no token: that is for OAUTHBEARER")
        if not self.encrypted and not self.allow_plaintext:
            raise SettingsError(
                f"{self.mechanism} without TLS would let everybody on the way take the password or token: "
                "leave encrypted=True, or say that it is meant with allow_plaintext=True"
            )

    @property
    def protocol(self) -> Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]:
        """Kafka's name of it: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
        if self.mechanism is None:
            return "SSL" if self.encrypted else "PLAINTEXT"
        return "SASL_SSL" if self.encrypted else "SASL_PLAINTEXT"

    @property
    def principal(self) -> str | None:
        """What the cluster's permissions call who connects, "User:alice"; None where only the broker can tell, by a
        certificate or a token."""
        if self.mechanism is None and self.certificate is None:
            return "User:ANONYMOUS"
        return None if self.user is None else f"User:{self.user}"

    def new_token(self) -> str:
        """What ``token`` returns.

        Raises:
            AuthenticationError: it fails, or returns what is no token; its own error is the cause.
        """
        assert self.token is not None
        try:
            token = self.token()
        except Exception as exc:
            why = self.hidden(f"{type(exc).__name__}: {exc}")
            raise AuthenticationError(f"no token could be had: the function given as token failed ({why})") from exc
        if not isinstance(token, str) or not token:
            raise AuthenticationError(
                f"no token could be had: the function given as token returned {type(token).__name__}, not a text"
            )
        if not token.isascii() or not token.isprintable() or " " in token:
            raise AuthenticationError(
                "no token could be had: what the function given as token returned has a space, a line break or the "
                "like in it, as no token has; .strip() it where it comes from a file"
            )
        return token

    def hidden(self, text: str) -> str:
        """The text, with the passwords of this value in it replaced: for errors that somebody else wrote."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Secret) and value:
                text = text.replace(value.reveal(), "***")
        return text

    def __repr__(self) -> str:
        parts = []
        if self.encrypted:
            trusting = "the system's authorities" if self.ca is None else _shown(self.ca)
            parts.append(f"TLS trusting {trusting}")
        else:
            parts.append("no encryption")
        if self.certificate is not None:
            parts.append(f"certificate {_shown(self.certificate)}")
        if self.mechanism is not None:
            parts.append(self.mechanism + (f" as {self.user!r}" if self.user else ""))
        return f"<Security: {', '.join(parts)}>"


def _secret(value: str | Secret | None) -> Secret | None:
    return None if value is None else Secret(value)


def _shown(value: Pem) -> str:
    return "a text" if isinstance(value, Secret) else os.fspath(value)
