"""TLS and logins as kafka-python takes them; with what it says in its log of them, less the passwords."""

from __future__ import annotations

import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

import kafka.errors as theirs
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.transport import KafkaSSLTransport
from kafka.protocol.admin.users import AlterUserScramCredentialsRequest
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslAuthenticateResponse, SaslBytesRequest

from quixframes import refusals
from quixframes.diagnosis import tls_refusal
from quixframes.security import Hidden, Security
from quixframes.tls import context_of
from quixframes.tokens import Tokens

__all__ = ["TlsFailed", "TlsTransport", "security_settings"]

_PIECE = 64 * 1024  # TLS gives 16 KB at a time, whatever is asked for
_READ = 1024 * 1024
_WORDS = (SaslAuthenticateRequest, SaslAuthenticateResponse, SaslBytesRequest, AlterUserScramCredentialsRequest)


def security_settings(security: Security | None) -> dict[str, Any]:
    """kafka-python's settings for it. SettingsError: a file of it cannot be used."""
    for name in ("kafka.net.connection", "kafka.protocol.parser"):
        logging.getLogger(name).addFilter(_NO_PASSWORDS)
    if security is None:
        return {}
    settings: dict[str, Any] = {"security_protocol": security.protocol}
    if security.encrypted:
        settings["ssl_context"] = context_of(security)
    if security.mechanism is None:
        return settings
    settings["sasl_mechanism"] = security.mechanism
    if security.token is not None:
        settings["sasl_oauth_token_provider"] = _Tokens(security)
    elif security.password is not None:
        settings["sasl_plain_username"] = _user_of(security)
        settings["sasl_plain_password"] = Hidden(security.password.reveal())
    return settings


def _user_of(security: Security) -> str:
    """The name, as RFC 5802 has it in SCRAM, where kafka-python sends it as it is."""
    user = security.user or ""
    if security.mechanism == "PLAIN":
        return user
    return user.replace("=", "=3D").replace(",", "=2C")


class TlsFailed(theirs.KafkaConnectionError):  # type: ignore[misc]
    """No trusted connection: its cause says why, and ``refusal`` what it means."""

    def __init__(self, exc: OSError, *, own_certificate: bool) -> None:
        super().__init__(str(exc))
        self.refusal = tls_refusal(exc, own_certificate=own_certificate)
        self.__cause__ = exc

    @property
    def final(self) -> bool:
        """Whether trying again cannot mend it. A broker that hangs up may just be going down."""
        return self.refusal is not refusals.NO_TLS


class TlsTransport(KafkaSSLTransport):  # type: ignore[misc]
    """An encrypted connection that gives up on a silent broker, keeps its last words, and copies little."""

    heard: Callable[[], None]
    own_certificate = False
    _failure: Exception | None = None

    async def shake_hands(self, timeout_at: float | None) -> None:
        """Agree on keys. TlsFailed: no trusted connection came about."""
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, timeout_at)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, timeout_at)
            except OSError as exc:
                raise TlsFailed(exc, own_certificate=self.own_certificate) from exc
            else:
                return

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        if self._failure is not None:
            return b"", self._failure
        pieces: list[bytes] = []
        size = 0
        # What was decrypted already, nobody would wake us for: so never leave anything.
        while size < _READ or self._sock.pending():
            try:
                piece = self._sock.recv(_PIECE)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except ssl.SSLEOFError as exc:
                self._failure = theirs.KafkaConnectionError(exc)
                break
            except ssl.SSLError as exc:
                self._failure = TlsFailed(exc, own_certificate=self.own_certificate)
                break
            except OSError as exc:
                self._failure = theirs.KafkaConnectionError(exc)
                break
            if not piece:
                self._failure = theirs.KafkaConnectionError("the broker closed the connection")
                break
            pieces.append(piece)
            size += len(piece)
        if not pieces:
            return b"", self._failure
        self.heard()
        return b"".join(pieces), None

    def _sock_send(self) -> tuple[int, Exception | None]:
        pieces = list(self._write_buffer)  # type: ignore[has-type]
        self._write_buffer = deque(memoryview(piece) for piece in pieces)  # else each 16 KB sent copy the rest
        sent: tuple[int, Exception | None] = super()._sock_send()
        return sent


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]
    def __init__(self, security: Security) -> None:
        self._tokens = Tokens(security)

    def token(self) -> str:
        """A token. AuthenticationError: the user's function fails."""
        return self._tokens.new()


class _NoPasswords(logging.Filter):
    """At DEBUG, kafka-python writes each request to its log, and the bytes of it, also where a password is in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record may be seen."""
        if "Send: " in str(record.msg):
            return False
        return not (isinstance(record.args, tuple) and any(isinstance(value, _WORDS) for value in record.args))


_NO_PASSWORDS = _NoPasswords()
