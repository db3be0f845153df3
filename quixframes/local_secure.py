"""What a secured local cluster has beside its brokers: certificates, users and their passwords, in a folder ``secure``.

- Everything is made once, with the cluster, and is this user's alone: the folder has mode 0700, its files 0600.
- Nothing of it goes onto a command line, where everybody on the machine could read it.
- The authority's own key is not kept: nobody can make further certificates that the cluster would trust.

In the folder: ``ca.pem`` (what clients trust), ``broker.pem`` (key and certificate of all brokers, which call
themselves ``kafka-node``), ``<user>.pem`` (the same for each user), ``profiles.toml`` (how each user connects, for
``StreamingClient.from_profile``), ``token-key.pem`` and ``jwks.json`` (with which tokens are signed, and checked).
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import secrets
import ssl
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quixframes.errors import LocalKafkaError, SettingsError
from quixframes.local_process import HOST
from quixframes.local_properties import NODE_USER, TOKEN_AUDIENCE, TOKEN_ISSUER
from quixframes.security import Mechanism, Secret, Security
from quixframes.tls import context_of

__all__ = ["USERS", "LocalSecurity"]

USERS = ("admin", "alice", "bob")
"""Who may log in. ``admin`` may do everything; the others may do what they are granted."""

_FOLDER = "secure"


class LocalSecurity:
    """The folder ``secure`` in the folder of a local cluster."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / _FOLDER

    @property
    def exists(self) -> bool:
        """Whether the cluster has one, so is secured."""
        return self._profiles.exists()

    @property
    def ca(self) -> Path:
        """The certificate that clients have to trust."""
        return self.folder / "ca.pem"

    @property
    def jwks(self) -> str:
        """The address of the file with the key that checks tokens."""
        return (self.folder / "jwks.json").absolute().as_uri()

    @property
    def profiles(self) -> Path:
        """The file with each user's way to connect, and password."""
        return self._profiles

    @property
    def _profiles(self) -> Path:
        return self.folder / "profiles.toml"

    def make(self) -> None:
        """Make certificates and users, unless they are there. LocalKafkaError: a package is missing, or the folder is
        one that Kafka would not find."""
        if self.jwks != f"file://{(self.folder / 'jwks.json').absolute()}":  # it takes %20 for the name itself
            raise LocalKafkaError(
                f"a secured local Kafka cannot be in {self.folder.parent}: Kafka finds no key in a folder whose path "
                "has spaces or other characters in it that a URL cannot have; name another one"
            )
        if self.exists:
            return
        try:
            trustme = importlib.import_module("trustme")
        except ImportError as exc:
            raise LocalKafkaError(
                'a secured local Kafka needs the package trustme for its certificates: pip install "quixframes[local]"'
            ) from exc
        self.folder.mkdir(mode=0o700, exist_ok=True)
        authority = trustme.CA(organization_name="quixframes local Kafka")
        _write(self.ca, authority.cert_pem.bytes())
        # Java takes nobody's certificate without an alternative name, be it a client's.
        for name, file in {NODE_USER: "broker", **{user: user for user in USERS}}.items():
            issued = authority.issue_cert("localhost", HOST, common_name=name)
            chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
            _write(self.folder / f"{file}.pem", _pkcs8(issued.private_key_pem.bytes()) + chain)
        self._make_token_key()
        self._write_profiles({user: secrets.token_urlsafe(18) for user in USERS}, "", "")  # last: it says all is there

    def tell(self, address: str, mtls_address: str) -> None:
        """Write down where the cluster listens now."""
        self._write_profiles(self.passwords(), address, mtls_address)

    def passwords(self) -> dict[str, str]:
        """The password of each user."""
        found = self._read()
        return {user: str(found[user]["password"]) for user in USERS}

    def security(self, user: str, mechanism: Mechanism | None) -> Security:
        """How that user connects; with the certificate alone where the mechanism is None."""
        self._known(user)
        if mechanism is None:
            return Security.mtls(self.folder / f"{user}.pem", ca=self.ca)
        if mechanism == "OAUTHBEARER":
            return Security.oauth(lambda: self.token(user), ca=self.ca)
        return Security(ca=self.ca, mechanism=mechanism, user=user, password=Secret(self.passwords()[user]))

    def token(self, user: str, lifetime: float = 300.0) -> str:
        """A signed token that says it is that user, valid for so many seconds."""
        self._known(user)
        now = int(time.time())
        claims = {"sub": user, "iss": TOKEN_ISSUER, "aud": TOKEN_AUDIENCE, "iat": now, "exp": now + int(lifetime)}
        head = _base64(json.dumps({"alg": "RS256", "kid": "local", "typ": "JWT"}).encode())
        signed = f"{head}.{_base64(json.dumps(claims).encode())}"
        serialization, hashes, padding = (
            importlib.import_module(f"cryptography.hazmat.primitives.{name}")
            for name in ("serialization", "hashes", "asymmetric.padding")
        )
        key: Any = serialization.load_pem_private_key((self.folder / "token-key.pem").read_bytes(), None)
        return f"{signed}.{_base64(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def context(self) -> ssl.SSLContext:
        """TLS as admin, for a look at a broker that is not ready for clients yet."""
        return context_of(self.security("admin", None))

    def scram_arguments(self) -> list[str]:
        """What makes the users when a broker's storage is made."""
        return [
            f"--add-scram={mechanism}=[name={user},password={password}]"
            for user, password in self.passwords().items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        ]

    def java_arguments(self) -> list[str]:
        """What Java has to be told, so that brokers may read the key that checks tokens."""
        return [f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.jwks}"]

    def _known(self, user: str) -> None:
        if user not in USERS:
            raise SettingsError(f"user={user!r}: a secured local Kafka has {', '.join(USERS)}")

    def _read(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._profiles.read_text())
        except (OSError, tomllib.TOMLDecodeError) as exc:
            raise LocalKafkaError(f"{self._profiles} cannot be read: {exc}") from exc

    def _write_profiles(self, passwords: Mapping[str, str], address: str, mtls_address: str) -> None:
        text = "# How to connect to this local Kafka, for StreamingClient.from_profile. It holds passwords.\n"
        for user, password in passwords.items():
            login = {"broker": address, "ca": str(self.ca), "mechanism": "SCRAM-SHA-512"}
            text += _table(user, {**login, "user": user, "password": password})
            own = {"broker": mtls_address, "ca": str(self.ca), "certificate": str(self.folder / f"{user}.pem")}
            text += _table(f"{user}-certificate", own)
        _write(self._profiles, text.encode())

    def _make_token_key(self) -> None:
        rsa = importlib.import_module("cryptography.hazmat.primitives.asymmetric.rsa")
        key = rsa.generate_private_key(65537, 2048)
        _write(self.folder / "token-key.pem", _private(key))
        public = key.public_key().public_numbers()
        numbers = {"n": _number(public.n), "e": _number(public.e)}
        jwk = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "local", **numbers}
        _write(self.folder / "jwks.json", json.dumps({"keys": [jwk]}).encode())


def _pkcs8(pem: bytes) -> bytes:
    """The same key in the one form that Kafka's brokers read."""
    serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
    return _private(serialization.load_pem_private_key(pem, None))


def _private(key: Any) -> bytes:
    serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
    text: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _table(name: str, values: Mapping[str, str]) -> str:
    return f"\n[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _write(path: Path, data: bytes) -> None:
    """A file that others never can read; a reader sees the old one or the new one, whole."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    partial.replace(path)
