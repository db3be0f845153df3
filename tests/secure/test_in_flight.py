"""What somebody on the network sees of rows on their way: everything without TLS, and nothing with it."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pandas as pd
import pytest

import quixframes as qf
from tests.secure.conftest import Client

Transport = Literal["kafka-python", "confluent"]

_EVERYTHING = 3  # ETH_P_ALL


@contextmanager
def listening(port: int) -> Iterator[bytearray]:
    """All that is sent to and from a port of this machine."""
    try:
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(_EVERYTHING))
    except (AttributeError, PermissionError):
        pytest.skip("listening to the network needs Linux, and root")
    heard, over, number = bytearray(), threading.Event(), port.to_bytes(2)

    def listen() -> None:
        while not over.is_set():
            try:
                packet = link.recv(1 << 17)
            except TimeoutError:
                continue
            tcp = 14 + (packet[14] & 0x0F) * 4  # behind the frame's header and IP's
            if number in (packet[tcp : tcp + 2], packet[tcp + 2 : tcp + 4]):
                heard.extend(packet)

    with link:
        link.settimeout(0.2)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            over.set()
            thread.join(10)


def write_and_read(client: qf.StreamingClient, word: str) -> None:
    """Rows of a stream, a column, a tag and a text of that name."""
    frame = pd.DataFrame({word: [word] * 20}, index=pd.date_range("2026-11-23", periods=20, freq="s"))
    topic = f"flight-{uuid.uuid4().hex[:12]}"
    client.topics.create(topic, partitions=1)
    with client.open_output_topic(topic) as out:
        out.write(frame, stream=word)
    with client.open_input_topic(topic, None) as read:
        assert [len(batch) for batch in read.batches(until="now")] == [20]
    client.topics.delete(topic)


def test_rows_and_passwords_are_not_to_be_read_on_the_network_with_tls_and_rows_are_without_it(
    connect: Client, secure_kafka: qf.LocalKafka, broker_address: str, transport: Transport
) -> None:
    security = secure_kafka.security("admin", "PLAIN")
    assert security.password is not None
    word = f"secret-{uuid.uuid4().hex}"
    with listening(int(secure_kafka.address.rpartition(":")[2])) as heard:
        write_and_read(connect(security), word)
    assert len(heard) > 5_000
    assert word.encode() not in heard
    assert security.password.reveal().encode() not in heard
    with (
        listening(int(broker_address.rpartition(":")[2])) as heard,
        qf.StreamingClient(broker_address, transport=transport) as client,
    ):
        write_and_read(client, word)
    assert word.encode() in heard
