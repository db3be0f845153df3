"""Opening a client where something is wrong: the reason is raised, soon, and nothing is left behind (defect E)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kafka.errors as theirs
import pytest
from adapter_helpers import client_threads, wait_until
from kafka import KafkaConsumer

from quixframes.errors import BrokerUnavailableError, TlsError
from quixframes.kafka_python import KafkaPython
from quixframes.settings import Connection, ReaderSettings, WriterSettings

OPENERS: dict[str, Callable[[Connection], object]] = {
    "producer": lambda connection: KafkaPython().producer(connection, WriterSettings()),
    "consumer": lambda connection: KafkaPython().consumer(connection, ReaderSettings(), group="group"),
    "admin": lambda connection: KafkaPython().admin(connection),
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


def answering(answer: bytes) -> Callable[[socket.socket], None]:
    def behave(accepted: socket.socket) -> None:
        with accepted:
            accepted.recv(1024)
            accepted.sendall(answer)

    return behave


def forwarding(address: str) -> Callable[[socket.socket], None]:
    host, port = address.split(":")

    def behave(accepted: socket.socket) -> None:
        onward = socket.create_connection((host, int(port)))

        def copy(source: socket.socket, target: socket.socket) -> None:
            while data := source.recv(65536):
                target.sendall(data)

        threading.Thread(target=copy, args=(onward, accepted), daemon=True).start()
        copy(accepted, onward)

    return behave


def test_the_bare_client_waits_and_does_not_say_why() -> None:
    """Should this fail, part of ``network`` may go."""
    before = client_threads()
    start = time.monotonic()
    with pytest.raises(theirs.KafkaTimeoutError) as raised:
        KafkaConsumer(bootstrap_servers=f"127.0.0.1:{closed_port()}", bootstrap_timeout_ms=2500)
    assert time.monotonic() - start > 2.2
    assert raised.value.__cause__ is None
    assert "refused" not in str(raised.value).lower()
    left = client_threads() - before
    assert left, "it no longer leaves a thread behind"


@opening
def test_a_refused_port_fails_within_three_seconds(opener: Callable[[Connection], object]) -> None:
    before = client_threads()
    address = f"127.0.0.1:{closed_port()}"
    start = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match=f"{address}.*REFUSED") as raised:
        opener(Connection.of(address))
    assert time.monotonic() - start < 3
    assert isinstance(raised.value.__cause__, theirs.KafkaConnectionError)
    wait_until(lambda: client_threads() <= before, 1)


def test_a_host_that_nobody_knows_fails_with_its_name() -> None:
    start = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match=r"no-such-host\.invalid:9092"):
        KafkaPython().admin(Connection.of("no-such-host.invalid:9092"))
    assert time.monotonic() - start < 8.5


def test_nothing_waits_for_a_name_that_is_looked_up(broker_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = client_threads()
    port = broker_address.split(":")[1]
    answer, real = threading.Event(), socket.getaddrinfo

    def slow(host: str, *args: Any, **options: Any) -> Any:
        if host == "slow-host.invalid":
            if options.get("flags", 0) & socket.AI_NUMERICHOST:
                raise socket.gaierror(socket.EAI_NONAME, "not a number")
            answer.wait(10)
            host = "127.0.0.1"
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        start = time.monotonic()
        with pytest.raises(BrokerUnavailableError):
            KafkaPython().admin(Connection(brokers=(f"slow-host.invalid:{port}",), connect_timeout="1s"))
        assert time.monotonic() - start < 2
        wait_until(lambda: client_threads() <= before, 1)
    finally:
        answer.set()
    KafkaPython().admin(Connection.of(f"slow-host.invalid:{port}")).close(5)


@opening
def test_a_normal_end_logs_no_failure(
    opener: Callable[[Connection], object], broker_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        client: Any = opener(Connection.of(broker_address))
        network = getattr(client._client, "_client", client._client)
        network._net.call_soon_with_future(network.manager.cluster.request_update)
        client.close(5)
    assert [record.message for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


def test_all_addresses_are_tried(broker_address: str) -> None:
    addresses = f"127.0.0.1:{closed_port()}, no-such-host.invalid:9092, {broker_address}"
    KafkaPython().admin(Connection.of(addresses)).close(5)


@opening
def test_a_broker_that_is_just_starting_gets_a_chance(
    opener: Callable[[Connection], object], broker_address: str
) -> None:
    with server(forwarding(broker_address), after=1.0) as port:
        client = opener(Connection.of(f"127.0.0.1:{port}"))
        client.close(5)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "answer", [b"\x15\x03\x03\x00\x02\x02\x50", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["TLS alert", "HTTP"]
)
@opening
def test_what_does_not_speak_kafka_is_recognised_at_once(opener: Callable[[Connection], object], answer: bytes) -> None:
    before = client_threads()
    with server(answering(answer)) as port:
        start = time.monotonic()
        with pytest.raises(TlsError, match="TLS port"):
            opener(Connection.of(f"127.0.0.1:{port}"))
        assert time.monotonic() - start < 1
    wait_until(lambda: client_threads() <= before, 1)


@opening
def test_what_never_answers_fails_after_the_connect_timeout(opener: Callable[[Connection], object]) -> None:
    before = client_threads()
    with server(lambda accepted: time.sleep(5)) as port:
        start = time.monotonic()
        with pytest.raises(BrokerUnavailableError, match=f"127.0.0.1:{port}"):
            opener(Connection(brokers=(f"127.0.0.1:{port}",), connect_timeout="1s"))
        assert 0.9 < time.monotonic() - start < 2
    wait_until(lambda: client_threads() <= before, 1)
