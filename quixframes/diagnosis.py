"""Why no connection comes about: found out by one of our own, since Kafka's clients know, but do not tell.

Only used where a client has failed already. It does what a client does first, by hand: TLS, which requests the broker
knows, which ways to log in it offers. Whoever is at fault, the answer is one of :mod:`quixframes.refusals`. No password
or token is sent.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from quixframes import refusals
from quixframes.errors import BrokerError
from quixframes.refusals import Refusal
from quixframes.settings import Connection
from quixframes.tls import context_of

__all__ = ["Finding", "diagnose", "tls_refusal"]

_TIMEOUT = 0.5  # seconds for each step, beyond the time-out that the user has set
_LONGEST = 1 << 20  # bytes that the answer of a broker may have; a number above it is none of a length
_NUMBER = struct.pack(">i", 1)  # of a request, and of its answer
_TLS_ALERT = b"\x15\x03"
_WRONG_MECHANISM, _NO_SASL_HERE = 33, 34  # Kafka's codes

# How OpenSSL numbers what is wrong with a certificate.
_VERDICTS = {
    9: refusals.NOT_YET_VALID,
    10: refusals.EXPIRED,
    **dict.fromkeys((2, 18, 19, 20, 21, 27), refusals.UNTRUSTED),
    **dict.fromkeys((62, 64), refusals.OTHER_HOST),
}
# And what it calls the other side's words, and what it cannot make out.
_REASONS = {
    "CERTIFICATE_REQUIRED": refusals.NO_CERTIFICATE,
    "ALERT_UNKNOWN_CA": refusals.CERTIFICATE_REFUSED,
    "ALERT_CERTIFICATE": refusals.CERTIFICATE_REFUSED,
    "ALERT_UNSUPPORTED_CERTIFICATE": refusals.CERTIFICATE_REFUSED,
    "ALERT_ACCESS_DENIED": refusals.CERTIFICATE_REFUSED,
    "ALERT_DECRYPT": refusals.CERTIFICATE_REFUSED,
    "ALERT_PROTOCOL_VERSION": refusals.OLD_TLS,
    "UNSUPPORTED_PROTOCOL": refusals.OLD_TLS,
    "NO_PROTOCOLS": refusals.OLD_TLS,
    "ALERT_INSUFFICIENT_SECURITY": refusals.OLD_TLS,
    "WRONG_VERSION_NUMBER": refusals.NO_TLS,
    "RECORD_LAYER_FAILURE": refusals.NO_TLS,
    "HTTP_REQUEST": refusals.NO_TLS,
}


# What a broker that is just coming or going may look like.
_UNSURE = (refusals.NO_TLS, refusals.NO_LOGIN)


class Finding(NamedTuple):
    """What is wrong with a connection, what was heard, and where."""

    refusal: Refusal
    detail: str
    where: str

    @property
    def final(self) -> bool:
        """Whether trying again surely cannot mend it."""
        return self.refusal not in _UNSURE

    def of(self, cause: BaseException | None) -> BrokerError:
        """The error, whose cause is the client's own."""
        return self.refusal.of(cause, f"no Kafka broker could be reached at {self.where}", self.detail)


def diagnose(connection: Connection) -> Finding | None:
    """The first thing that is found to be wrong with an address of the connection; None where nothing is found.

    Takes up to some seconds where a broker is silent.
    """
    for address in connection.brokers:
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError, struct.error):  # it is down, or silent: the client's own reason says so
            found = _look(host.strip("[]"), int(port), connection)
            if found is not None:
                return Finding(*found, where=address)
    return None


def tls_refusal(exc: BaseException | None, *, own_certificate: bool) -> Refusal:
    """What an error of Python's ssl means. ``own_certificate``: whether this client has shown one."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _VERDICTS.get(exc.verify_code, refusals.NO_TRUST)
    if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError):
        reason = exc.reason or ""
        if "BAD_CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason:
            # What a broker says that got no certificate, or a bad one; the second also where no cipher suits both.
            return refusals.CERTIFICATE_REFUSED if own_certificate else refusals.NO_CERTIFICATE
        return next((found for words, found in _REASONS.items() if words in reason), refusals.NO_TRUST)
    return refusals.NO_TLS  # a broker without TLS hangs up at the first word


def _look(host: str, port: int, connection: Connection) -> tuple[Refusal, str] | None:
    security = connection.security
    with contextlib.ExitStack() as stack:
        link = _connected(_looked_up(host, port))
        if link is None:
            return None
        stack.enter_context(link)
        own = security is not None and security.certificate is not None
        if security is not None and security.encrypted:
            context = context_of(security)
            try:
                link = stack.enter_context(context.wrap_socket(link, server_hostname=host.rstrip(".")))
            except TimeoutError:
                return None
            except OSError as exc:
                return tls_refusal(exc, own_certificate=own), str(exc)
        try:
            answer = _ask(link, 18, 0)  # which requests do you know?
        except ssl.SSLError as exc:  # in TLS 1.3, a client's certificate is judged only now
            return tls_refusal(exc, own_certificate=own), str(exc)
        if answer[:2] == _TLS_ALERT:
            return refusals.TLS_PORT, "a TLS alert came back"
        if answer[4:8] != _NUMBER:  # it is silent, or no Kafka broker: the client has seen that too
            return None
        if security is None or security.mechanism is None:
            return _without_login(link)
        return _with_login(link, security.mechanism)


def _connected(addresses: Iterable[tuple[Any, ...]]) -> socket.socket | None:
    """A connection to the first of the addresses that accepts: "localhost" is ::1 first, where often nobody listens."""
    for address in addresses:
        with contextlib.suppress(OSError):
            return socket.create_connection(address[:2], timeout=_TIMEOUT)
    return None


def _looked_up(host: str, port: int) -> list[tuple[Any, ...]]:
    """The addresses of a name; none where nobody says them in time. A lookup can be broken off by nothing: hence the
    thread."""
    found: list[tuple[Any, ...]] = []

    def look() -> None:
        with contextlib.suppress(OSError):
            found.extend(one[4] for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))

    thread = threading.Thread(target=look, name="quixframes-name", daemon=True)
    thread.start()
    thread.join(_TIMEOUT)
    return found.copy()


def _without_login(link: socket.socket) -> tuple[Refusal, str] | None:
    """Ask for nothing in particular: who wants a login hangs up."""
    try:
        answer = _ask(link, 3, 5, struct.pack(">i?", 0, False))
    except ConnectionError:
        answer = b""
    return None if answer else (refusals.NO_LOGIN, "the broker hangs up at a request without a login")


def _with_login(link: socket.socket, mechanism: str) -> tuple[Refusal, str] | None:
    name = mechanism.encode()
    answer = _ask(link, 17, 1, struct.pack(">h", len(name)) + name)
    if len(answer) < 14:
        return None
    (code,) = struct.unpack_from(">h", answer, 8)
    if code == _WRONG_MECHANISM:
        return refusals.MECHANISM, f"{mechanism}; it offers {', '.join(_texts(answer, 10)) or 'none'}"
    if code == _NO_SASL_HERE:
        return refusals.NO_SASL, "the broker knows no logins there"
    return None


def _ask(link: socket.socket, key: int, version: int, body: bytes = b"") -> bytes:
    """The answer to a request, with its length in front; whatever came where that is no answer, or b"" for nothing."""
    request = struct.pack(">hh4shc", key, version, _NUMBER, 1, b"q") + body
    link.sendall(struct.pack(">i", len(request)) + request)
    answer = link.recv(4)
    if answer[:2] == _TLS_ALERT or int.from_bytes(answer, "big") > _LONGEST:  # it may go on for ever
        return answer
    while answer and (len(answer) < 4 or len(answer) < 4 + int.from_bytes(answer[:4], "big")):
        piece = link.recv(65536)
        if not piece:
            break
        answer += piece
    return answer


def _texts(data: bytes, at: int) -> list[str]:
    (count,) = struct.unpack_from(">i", data, at)
    at += 4
    texts = []
    for _ in range(count):
        (length,) = struct.unpack_from(">h", data, at)
        texts.append(data[at + 2 : at + 2 + length].decode(errors="replace"))
        at += 2 + length
    return texts
