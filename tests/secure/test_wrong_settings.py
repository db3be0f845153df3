"""Every wrong setting has an error of its own, within seconds, whichever Kafka client is underneath."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError
from cryptography.hazmat.primitives import serialization

import quixframes as qf
from quixframes.confluent.failures import translated
from quixframes.local_secure import LocalSecurity
from tests.secrets_kept import keep
from tests.secure.conftest import Client
from tests.waiting import wait_for

WRONG = "tyres-wrong-password"
LIMIT = 10.0
"""Seconds. Most take well under one; a broker that hangs up is given two, since it may be starting."""


def check(
    connect: Client, kind: type[Exception], text: str, security: qf.Security | None, at: str | None = None
) -> None:
    """Opening fails with that error, and that text, in time; and nothing secret is in it."""
    keep(WRONG)
    start = time.monotonic()
    with pytest.raises(kind, match=text) as caught:
        connect(security, at).topics.exists("engine")
    spent = time.monotonic() - start
    print(f"{kind.__name__}: {spent:.2f} s: {caught.value}")
    assert type(caught.value) is kind
    assert spent < LIMIT
    assert WRONG not in repr(caught.value)


def test_an_authority_that_is_not_trusted(connect: Client, strange_ca: str) -> None:
    check(connect, qf.TlsError, "not trusted: give", qf.Security.scram("alice", WRONG, ca=strange_ca))


def test_no_authority_given_where_the_system_does_not_know_it(connect: Client) -> None:
    check(connect, qf.TlsError, "not trusted: give", qf.Security.scram("alice", WRONG))


def test_a_broker_that_is_not_trusted_at_the_address_that_it_names_itself(
    connect: Client, secure_kafka: qf.LocalKafka, strange_ca: str, relaying_front: str
) -> None:
    password = secure_kafka.security().password
    assert password is not None
    security = qf.Security.scram("admin", password, ca=strange_ca)
    check(connect, qf.TlsError, "not trusted: give", security, relaying_front)


def test_an_expired_certificate(connect: Client, strange_ca: str, expired_front: str) -> None:
    check(connect, qf.TlsError, "has expired", qf.Security.scram("alice", WRONG, ca=strange_ca), expired_front)


def test_a_certificate_for_another_host(connect: Client, strange_ca: str, other_host_front: str) -> None:
    check(connect, qf.TlsError, "for another host", qf.Security.scram("alice", WRONG, ca=strange_ca), other_host_front)


def test_a_broker_with_no_newer_tls_than_1_1(connect: Client, strange_ca: str, old_front: str) -> None:
    security = qf.Security.scram("alice", WRONG, ca=strange_ca)
    check(connect, qf.TlsError, "no version of TLS.*1.2 is the least", security, old_front)


@pytest.mark.parametrize("user", ["alice", "nobody"])
def test_a_wrong_password_or_an_unknown_user_of_scram(connect: Client, folder: Path, user: str) -> None:
    security = qf.Security.scram(user, WRONG, ca=folder / "ca.pem")
    check(connect, qf.AuthenticationError, "login was refused: check the user", security)


@pytest.mark.parametrize("user", ["alice", "nobody"])
def test_a_wrong_password_or_an_unknown_user_of_plain(connect: Client, folder: Path, user: str) -> None:
    security = qf.Security.plain(user, WRONG, ca=folder / "ca.pem")
    check(connect, qf.AuthenticationError, "login was refused: check the user", security)


def test_a_mechanism_that_is_not_offered(connect: Client, folder: Path) -> None:
    security = qf.Security.scram("alice", WRONG, ca=folder / "ca.pem", mechanism="SCRAM-SHA-256")
    check(connect, qf.AuthenticationError, "does not offer this login mechanism.*SCRAM-SHA-512", security)


def test_no_security_at_a_tls_port(connect: Client) -> None:
    check(connect, qf.TlsError, "TLS port", None)


def test_a_login_without_tls_at_a_tls_port(connect: Client) -> None:
    security = qf.Security.plain("alice", WRONG, encrypted=False, allow_plaintext=True)
    check(connect, qf.TlsError, "TLS port", security)


def test_tls_at_a_port_without_it(connect: Client, broker_address: str, folder: Path) -> None:
    check(connect, qf.TlsError, "does not speak TLS", qf.Security.tls(folder / "ca.pem"), broker_address)


def test_a_login_at_a_port_without_tls_and_logins(connect: Client, broker_address: str) -> None:
    security = qf.Security.plain("alice", WRONG, encrypted=False, allow_plaintext=True)
    check(connect, qf.AuthenticationError, "takes no login", security, broker_address)


def test_no_login_where_one_is_wanted(connect: Client, folder: Path) -> None:
    check(connect, qf.AuthenticationError, "wants a login", qf.Security.tls(folder / "ca.pem"))


def test_no_certificate_where_one_is_wanted(connect: Client, folder: Path, secure_kafka: qf.LocalKafka) -> None:
    security = qf.Security.tls(folder / "ca.pem")
    check(connect, qf.TlsError, "asks for this client's certificate", security, secure_kafka.mtls_address)


def test_a_certificate_of_an_authority_that_the_broker_does_not_trust(
    connect: Client, folder: Path, strange_certificate: str, secure_kafka: qf.LocalKafka
) -> None:
    security = qf.Security.mtls(strange_certificate, ca=folder / "ca.pem")
    check(connect, qf.TlsError, "refuses this client's certificate", security, secure_kafka.mtls_address)


def test_a_file_of_authorities_that_is_not_there(connect: Client, tmp_path: Path) -> None:
    security = qf.Security.scram("alice", WRONG, ca=tmp_path / "none.pem")
    check(connect, qf.SettingsError, "ca='.*none.pem': there is no such file", security)


def test_a_file_of_authorities_that_holds_none(connect: Client, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    security = qf.Security.scram("alice", WRONG, ca=tmp_path / "empty.pem")
    check(connect, qf.SettingsError, "it holds no certificate", security)


def test_a_key_of_another_certificate(connect: Client, folder: Path, strange_certificate: str) -> None:
    security = qf.Security.mtls(folder / "alice.pem", strange_certificate, ca=folder / "ca.pem")
    check(connect, qf.SettingsError, "the key does not belong to the certificate", security)


@pytest.mark.parametrize(("password", "word"), [(None, "needed"), (WRONG, "wrong"), ("oil-and-tyres", None)])
def test_a_key_that_is_encrypted_and_its_password(
    connect: Client, folder: Path, secure_kafka: qf.LocalKafka, tmp_path: Path, password: str | None, word: str | None
) -> None:
    keep("oil-and-tyres")
    own = serialization.load_pem_private_key((folder / "alice.pem").read_bytes(), None)
    encrypted = serialization.BestAvailableEncryption(b"oil-and-tyres")
    (tmp_path / "key.pem").write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted)
    )
    security = qf.Security.mtls(folder / "alice.pem", tmp_path / "key.pem", ca=folder / "ca.pem", key_password=password)
    if word is None:
        connect(security, secure_kafka.mtls_address).topics.list()
    else:
        check(connect, qf.SettingsError, f"the key is encrypted, and key_password is {word}", security)


def test_a_bundle_of_authorities_may_have_remarks_in_any_alphabet(
    connect: Client, folder: Path, secure_kafka: qf.LocalKafka, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# Főtanúsítvány\n{(folder / 'ca.pem').read_text()}", encoding="utf-8")
    password = secure_kafka.security().password
    assert password is not None
    connect(qf.Security.scram("admin", password, ca=bundle)).topics.list()


def test_a_token_function_that_fails(connect: Client, folder: Path) -> None:
    def token() -> str:
        raise ConnectionError("the identity provider is away")

    security = qf.Security.oauth(token, ca=folder / "ca.pem")
    check(connect, qf.AuthenticationError, "ConnectionError: the identity provider is away", security)


def test_a_token_function_that_hangs_costs_seconds_and_closing_none(
    connect: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quixframes.tokens.LONGEST", 1.0)
    over = threading.Event()
    security = qf.Security.oauth(lambda: str(over.wait()), ca=folder / "ca.pem")
    client = connect(security)
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(qf.AuthenticationError, match="the function given as token did not return within 1 s"):
            client.topics.exists("engine")
        assert time.monotonic() - start < LIMIT
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 5
    over.set()


def test_a_token_function_that_fails_once_the_first_token_has_ended_is_named(
    secure_kafka: qf.LocalKafka, folder: Path, transport: Any
) -> None:
    away = threading.Event()

    def token() -> str:
        if away.is_set():
            raise ConnectionError("the identity provider is away")
        return LocalSecurity(secure_kafka.directory).token("admin", lifetime=4)

    def failure() -> str:
        try:
            client.topics.exists("engine")
        except qf.BrokerError as exc:
            return f"{type(exc).__name__}: {exc}"
        return ""

    security = qf.Security.oauth(token, ca=folder / "ca.pem")
    with qf.StreamingClient(
        secure_kafka.address, security=security, transport=transport, connect_timeout="2s"
    ) as client:
        assert failure() == ""
        away.set()
        assert wait_for(lambda: re.match("AuthenticationError.*ConnectionError: the identity provider", failure()))


def test_a_token_that_the_broker_does_not_take(connect: Client, folder: Path) -> None:
    head, claims = "eyJhbGciOiJub25lIn0", "eyJzdWIiOiJhZG1pbiIsImV4cCI6OTk5OTk5OTk5OX0"  # sub: admin, alg: none
    keep(f"{head}.{claims}.")
    security = qf.Security.oauth(lambda: f"{head}.{claims}.", ca=folder / "ca.pem")
    check(connect, qf.AuthenticationError, "login was refused", security)


def test_a_token_that_has_ended(connect: Client, folder: Path, secure_kafka: qf.LocalKafka) -> None:
    token = LocalSecurity(secure_kafka.directory).token("alice", lifetime=-60)
    security = qf.Security.oauth(lambda: token, ca=folder / "ca.pem")
    check(connect, qf.AuthenticationError, "login was refused|one that has ended", security)


def test_a_token_with_the_line_break_of_its_file(connect: Client, folder: Path, secure_kafka: qf.LocalKafka) -> None:
    token = LocalSecurity(secure_kafka.directory).token("alice") + "\n"
    security = qf.Security.oauth(lambda: token, ca=folder / "ca.pem")
    check(connect, qf.AuthenticationError, "a line break or the like", security)


def test_a_port_where_nobody_listens(connect: Client, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but does not listen
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        security = qf.Security.scram("alice", WRONG, ca=folder / "ca.pem")
        check(connect, qf.BrokerUnavailableError, "check the address", security, at)


def test_a_certificate_that_librdkafka_alone_finds_wrong_is_not_told_as_no_kafka() -> None:
    words = "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed"
    error = translated(KafkaError(KafkaError._SSL, words), "engine cannot be read")
    assert type(error) is qf.TlsError
    assert "no trusted connection could be made" in str(error)
    assert "certificate verify failed" in str(error)


OPENINGS: dict[str, Callable[[qf.StreamingClient, str], object]] = {
    "read": lambda client, topic: next(iter(client.open_input_topic(topic, "spies").batches())),
    "write": lambda client, topic: client.open_output_topic(topic),
    "replay": lambda client, topic: client.replay(topic, progress=False).to_frame(),
    "describe": lambda client, topic: client.topics.describe(topic),
}


@pytest.mark.parametrize("what", OPENINGS)
def test_a_topic_that_may_not_be_seen_is_an_error_and_not_empty(
    connect: Client, secure_kafka: qf.LocalKafka, what: str
) -> None:
    admin = connect(secure_kafka.security("admin"))
    topic = f"hidden-{time.monotonic_ns()}"
    admin.topics.create(topic, partitions=1)
    client = connect(secure_kafka.security("alice"))
    with pytest.raises((qf.AccessDeniedError, qf.TopicNotFoundError), match=re.escape(topic)):
        OPENINGS[what](client, topic)
    admin.topics.delete(topic)
