"""Opening a client where something is wrong: the reason is raised, soon, and nothing is left behind."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from quixframes import refusals
from quixframes.diagnosis import diagnose
from quixframes.errors import BrokerUnavailableError, TlsError
from quixframes.kafka import Transport
from quixframes.settings import Connection, ReaderSettings, WriterSettings
from tests.adapters.helpers import client_threads, wait_until

OPENERS: dict[str, Callable[[Transport, Connection], object]] = {
    "producer": lambda transport, connection: transport.producer(connection, WriterSettings()),
    "consumer": lambda transport, connection: transport.consumer(connection, ReaderSettings(), group="group"),
    "admin": lambda transport, connection: transport.admin(connection),
}


opening = pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(behave: Callable[[socket.socket], None], *, port: int = 0, after: float = 0.0) -> Iterator[int]:
    """Something that listens and is not Kafka: what it does with each connection, on a thread for each."""
    port = port or closed_port()
    stop = threading.Event()

    def serve() -> None:
        stop.wait(after)
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.settimeout(0.05)
            while not stop.is_set():
                try:
                    accepted, _ = listener.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=behave, args=(accepted,), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    if not after:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
    try:
        yield port
    finally:
        stop.set()
        thread.join()


def talking(answer: bytes) -> Callable[[socket.socket], None]:
    def behave(accepted: socket.socket) -> None:
        with accepted:
            accepted.recv(1024)
            accepted.sendall(answer)

    return behave


def endless(accepted: socket.socket) -> None:
    """A web server with a long page, a camera: it speaks at once, and never stops."""
    with accepted, suppress(OSError):
        accepted.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            accepted.sendall(b"x" * 65536)
            time.sleep(0.01)


def forwarding(address: str) -> Callable[[socket.socket], None]:
    host, port = address.split(":")

    def behave(accepted: socket.socket) -> None:
        onward = socket.create_connection((host, int(port)))

        def copy(source: socket.socket, target: socket.socket) -> None:
            with suppress(OSError):  # either side may leave at any time
                while data := source.recv(65536):
                    target.sendall(data)

        threading.Thread(target=copy, args=(onward, accepted), daemon=True).start()
        copy(accepted, onward)

    return behave


@opening
def test_a_refused_port_fails_within_three_seconds(
    transport: Transport, opener: Callable[[Transport, Connection], object]
) -> None:
    before = client_threads()
    address = f"127.0.0.1:{closed_port()}"
    start = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match=f"{address}.*(?i:refused)"):
        opener(transport, Connection.of(address))
    assert time.monotonic() - start < 3
    wait_until(lambda: client_threads() <= before, 1)


def test_a_host_that_nobody_knows_fails_with_its_name(
    transport: Transport,
) -> None:
    start = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match=r"no-such-host\.invalid:9092"):
        transport.admin(Connection.of("no-such-host.invalid:9092"))
    assert time.monotonic() - start < 8.5


def test_all_addresses_are_tried(transport: Transport, broker_address: str) -> None:
    addresses = f"127.0.0.1:{closed_port()}, no-such-host.invalid:9092, {broker_address}"
    transport.admin(Connection.of(addresses)).close(5)


@opening
def test_a_broker_that_is_just_starting_gets_a_chance(
    transport: Transport, opener: Callable[[Transport, Connection], object], broker_address: str
) -> None:
    with server(forwarding(broker_address), after=1.0) as port:
        client = opener(transport, Connection.of(f"127.0.0.1:{port}"))
        client.close(5)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "answer", [b"\x15\x03\x03\x00\x02\x02\x50", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["TLS alert", "HTTP"]
)
@opening
def test_what_does_not_speak_kafka_is_recognised_at_once(
    transport: Transport, opener: Callable[[Transport, Connection], object], answer: bytes
) -> None:
    before = client_threads()
    with server(talking(answer)) as port:
        start = time.monotonic()
        with pytest.raises(TlsError, match="TLS port"):
            opener(transport, Connection.of(f"127.0.0.1:{port}"))
        assert time.monotonic() - start < 1
    wait_until(lambda: client_threads() <= before, 1)


def test_what_never_stops_talking_is_recognised_too(transport: Transport) -> None:
    with server(endless) as port:
        start = time.monotonic()
        with pytest.raises(TlsError, match="TLS port"):
            transport.admin(Connection.of(f"127.0.0.1:{port}"))
        assert time.monotonic() - start < 3


def test_why_no_connection_comes_about_is_found_out_at_whichever_address_of_a_name_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where "localhost" is ::1 first, and Docker has published 127.0.0.1 alone."""
    with server(talking(b"\x15\x03\x03\x00\x02\x02\x50")) as port:
        real, ports = socket.getaddrinfo, (closed_port(), port)

        def look_up(host: str, port: int, *how: int, **more: int) -> list[tuple[object, ...]]:
            return [real("127.0.0.1", at, *how, **more)[0] for at in (ports if host == "twice" else (port,))]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        found = diagnose(Connection.of(f"twice:{port}"))
    assert found is not None
    assert found.refusal is refusals.TLS_PORT


@opening
def test_what_never_answers_fails_after_the_connect_timeout(
    transport: Transport, opener: Callable[[Transport, Connection], object]
) -> None:
    before = client_threads()
    with server(lambda accepted: time.sleep(5)) as port:
        start = time.monotonic()
        with pytest.raises(BrokerUnavailableError, match=f"127.0.0.1:{port}"):
            opener(transport, Connection(brokers=(f"127.0.0.1:{port}",), connect_timeout="1s"))
        assert 0.9 < time.monotonic() - start < 2
    wait_until(lambda: client_threads() <= before, 1)
