"""Opening a client where something is wrong, beside what the bare client does (defect E)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import kafka.errors as theirs
import pytest
from kafka import KafkaConsumer

from quixframes.errors import BrokerUnavailableError
from quixframes.kafka import Transport
from quixframes.settings import Connection
from tests.adapters.helpers import client_threads, wait_until
from tests.adapters.test_opening import closed_port, opening


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


def test_nothing_waits_for_a_name_that_is_looked_up(
    transport: Transport, broker_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
            transport.admin(Connection(brokers=(f"slow-host.invalid:{port}",), connect_timeout="1s"))
        assert time.monotonic() - start < 2
        wait_until(lambda: client_threads() <= before, 1)
    finally:
        answer.set()
    transport.admin(Connection.of(f"slow-host.invalid:{port}")).close(5)


@opening
def test_a_normal_end_logs_no_failure(
    transport: Transport,
    opener: Callable[[Transport, Connection], object],
    broker_address: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        client: Any = opener(transport, Connection.of(broker_address))
        network = getattr(client._client, "_client", client._client)
        network._net.call_soon_with_future(network.manager.cluster.request_update)
        client.close(5)
    assert [record.message for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []
