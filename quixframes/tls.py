"""TLS as both Kafka clients use it: the context of a :class:`~quixframes.security.Security`, checked before connecting.

The files are read here, so that one that is missing, broken or does not fit is told at once and in the same words,
whichever client is underneath. A context keeps what it has read; a text on its way into one is in a file that only this
user can read, and only for that moment.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quixframes.errors import SettingsError
from quixframes.security import Pem, Secret, Security, is_pem

__all__ = ["Context", "context_of", "pem_text"]


class Context(ssl.SSLContext):
    """One that knows whether it shows a certificate: OpenSSL does not tell."""

    own_certificate = False


def context_of(security: Security) -> Context:
    """What makes this value's TLS connections.

    Raises:
        SettingsError: a file cannot be read, holds nothing of use, or key and certificate do not belong together.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)  # checks host names and certificates
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if security.ca is None:
        context.load_default_certs()
    else:
        authorities = pem_text(security.ca, "ca")
        try:
            # A bundle may name its authorities beside their certificates, in any alphabet: Python wants ASCII.
            context.load_verify_locations(cadata=authorities.encode("ascii", "ignore").decode())
        except (ssl.SSLError, ValueError) as exc:
            raise SettingsError(f"ca={_shown(security.ca)}: it holds no certificate in PEM format ({exc})") from exc
    if security.certificate is not None:
        _load_own(context, security)
        context.own_certificate = True
    return context


def pem_text(value: Pem, name: str) -> str:
    """The text of a PEM file that was given as a path or as text. SettingsError: it cannot be read."""
    if isinstance(value, Secret):
        return value.reveal()
    if is_pem(value):
        return str(value)
    try:
        return Path(value).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise SettingsError(f"{name}={os.fspath(value)!r}: there is no such file") from exc
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no text, and PEM is: perhaps it is in DER format"
        raise SettingsError(f"{name}={os.fspath(value)!r} cannot be read: {why}") from exc


def _load_own(context: ssl.SSLContext, security: Security) -> None:
    assert security.certificate is not None
    certificate = pem_text(security.certificate, "certificate")
    key = None if security.key is None else pem_text(security.key, "key")
    encrypted = False

    def password() -> str:
        """Asked for where the key is encrypted. Without this, OpenSSL would ask for it in the terminal."""
        nonlocal encrypted
        encrypted = True
        return "" if security.key_password is None else security.key_password.reveal()

    with _as_files(certificate, key) as (certificate_path, key_path):
        try:
            context.load_cert_chain(certificate_path, key_path, password=password)
        except (ssl.SSLError, OSError, ValueError) as exc:
            why = _why(exc, encrypted=encrypted, password=security.key_password)
            raise SettingsError(f"{_pair(security)}: {why}") from exc


def _why(exc: Exception, *, encrypted: bool, password: Secret | None) -> str:
    reason = getattr(exc, "reason", None) or ""
    if "MISMATCH" in reason:
        return "the key does not belong to the certificate"
    if encrypted:  # OpenSSL itself only says "PEM lib"
        return f"the key is encrypted, and key_password is {'needed' if password is None else 'wrong'}"
    return f"no certificate with its key could be read there, in PEM format ({reason or exc})"


def _pair(security: Security) -> str:
    assert security.certificate is not None
    text = f"certificate={_shown(security.certificate)}"
    return text if security.key is None else f"{text}, key={_shown(security.key)}"


def _shown(value: Pem) -> str:
    return "(a text)" if isinstance(value, Secret) else repr(os.fspath(value))


@contextlib.contextmanager
def _as_files(certificate: str, key: str | None) -> Iterator[tuple[str, str | None]]:
    """Files of these texts, for this moment: Python's ssl takes a key from nowhere else."""
    with tempfile.TemporaryDirectory(prefix="quixframes-") as folder:  # of mode 0700
        paths = [os.path.join(folder, name) for name in ("certificate.pem", "key.pem")]
        for path, text in zip(paths, (certificate, key or ""), strict=True):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
        yield paths[0], None if key is None else paths[1]
