"""A secured broker for the session, certificates that are wrong, and both Kafka clients."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import select
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import trustme

import quixframes as qf
from tests.secrets_kept import keep

Client = Callable[..., qf.StreamingClient]


@pytest.fixture(scope="session")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[qf.LocalKafka]:
    """A secured broker, which offers all ways to log in but one."""
    settings = {"sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER"}
    with qf.LocalKafka(tmp_path_factory.mktemp("secure"), secure=True, keep=False, settings=settings) as kafka:
        for user in ("admin", "alice", "bob"):
            password = kafka.security(user).password
            assert password is not None
            keep(password.reveal())
        for file in (kafka.directory / "secure").glob("*.pem"):
            keep(*_keys(file.read_text()))
        yield kafka


@pytest.fixture(autouse=True)
def every_record(caplog: pytest.LogCaptureFixture) -> None:
    """All that anybody logs is searched for secrets (tests/secrets_kept.py), at DEBUG too."""
    caplog.set_level(logging.DEBUG)


@pytest.fixture(params=["kafka-python", "confluent"])
def transport(request: pytest.FixtureRequest) -> Literal["kafka-python", "confluent"]:
    """The Kafka client that is tested."""
    kind: Literal["kafka-python", "confluent"] = request.param
    return kind


@pytest.fixture
def connect(secure_kafka: qf.LocalKafka, transport: Literal["kafka-python", "confluent"]) -> Iterator[Client]:
    """Makes clients of the secured broker, or of another address."""
    with contextlib.ExitStack() as stack:

        def make(security: qf.Security | None, address: str | None = None) -> qf.StreamingClient:
            client = qf.StreamingClient(address or secure_kafka.address, security=security, transport=transport)
            return stack.enter_context(client)

        yield make


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """An authority that the broker does not know."""
    return trustme.CA()


@pytest.fixture(scope="session")
def strange_ca(authority: trustme.CA) -> str:
    """Its certificate."""
    return authority.cert_pem.bytes().decode()


@pytest.fixture(scope="session")
def strange_certificate(authority: trustme.CA) -> str:
    """A client's certificate and key of that authority."""
    issued = authority.issue_cert("localhost", common_name="alice")
    text = issued.private_key_and_cert_chain_pem.bytes().decode()
    keep(*_keys(text))
    return text


@pytest.fixture(scope="session")
def expired_front(authority: trustme.CA) -> Iterator[str]:
    """A TLS port whose certificate ended yesterday."""
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    with _front(
        authority.issue_cert("127.0.0.1", not_before=yesterday - dt.timedelta(days=9), not_after=yesterday)
    ) as at:
        yield at


@pytest.fixture(scope="session")
def other_host_front(authority: trustme.CA) -> Iterator[str]:
    """A TLS port whose certificate is for another host."""
    with _front(authority.issue_cert("kafka.example.org")) as at:
        yield at


@pytest.fixture(scope="session")
def old_front(authority: trustme.CA) -> Iterator[str]:
    """A port that speaks no newer TLS than 1.1; with a good certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")  # else OpenSSL itself refuses to speak it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with _front(authority.issue_cert("127.0.0.1"), context) as at:
        yield at


@pytest.fixture(scope="session")
def relaying_front(authority: trustme.CA, secure_kafka: qf.LocalKafka) -> Iterator[str]:
    """A TLS port of the other authority that passes everything on to the broker, which names its own address."""
    host, _, port = secure_kafka.address.rpartition(":")
    trusting = ssl.create_default_context(cafile=secure_kafka.directory / "secure" / "ca.pem")

    def relay(client: ssl.SSLSocket) -> None:
        with trusting.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as broker:
            others = {client: broker, broker: client}
            while True:  # on one thread: OpenSSL takes no reading and writing at the same time
                for link in select.select(list(others), [], [])[0]:
                    link.settimeout(0)
                    with contextlib.suppress(ssl.SSLWantReadError):  # what came was TLS's own
                        if not (data := link.recv(65536)):
                            return
                        others[link].settimeout(5)
                        others[link].sendall(data)

    with _front(authority.issue_cert("127.0.0.1"), then=relay) as at:
        yield at


@contextlib.contextmanager
def _front(
    certificate: trustme.LeafCert,
    context: ssl.SSLContext | None = None,
    then: Callable[[ssl.SSLSocket], object] = lambda link: link.recv(1),
) -> Iterator[str]:
    """A port that shakes hands with that certificate, as any broker does; by default it has nothing to say after it."""
    context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return  # the test session is over
                threading.Thread(target=talk, args=(link,), daemon=True).start()

        def talk(link: socket.socket) -> None:
            with contextlib.suppress(OSError), link, context.wrap_socket(link, server_side=True) as encrypted:
                then(encrypted)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _keys(text: str) -> list[str]:
    """The lines of the private keys in a PEM file."""
    lines, inside = [], False
    for line in text.splitlines():
        inside = "PRIVATE KEY" in line if line.startswith("-----") else inside
        if inside and not line.startswith("-----") and len(line) > 20:
            lines.append(line)
    return lines


@pytest.fixture
def folder(secure_kafka: qf.LocalKafka) -> Path:
    """Where the secured broker's certificates are."""
    return secure_kafka.directory / "secure"
