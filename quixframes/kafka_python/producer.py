"""The producer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from kafka import KafkaProducer

from quixframes.errors import ClosedError
from quixframes.kafka import Outgoing
from quixframes.kafka_python.failures import translated
from quixframes.kafka_python.network import Opening, settings_for
from quixframes.settings import Connection, WriterSettings, seconds

__all__ = ["PythonProducer"]


class PythonProducer:
    """Implements :class:`quixframes.kafka.Producer`."""

    def __init__(self, connection: Connection, settings: WriterSettings) -> None:
        opening = Opening(connection)
        self._closed = False
        self._producer = opening.open(
            lambda: KafkaProducer(
                kafka_client=opening,
                delivery_timeout_ms=round(seconds(settings.delivery_timeout) * 1000),
                request_timeout_ms=min(5_000, round(seconds(settings.delivery_timeout) * 500)),
                linger_ms=round(seconds(settings.linger) * 1000),
                compression_type=settings.compression,
                max_request_size=100_000_000,
                batch_size=256 * 1024,
                max_block_ms=5000,
                metrics_enabled=False,
                **settings_for(connection),
            )
        )

    def send(self, message: Outgoing, on_done: Callable[[Exception | None], None]) -> None:
        if self._closed:
            raise ClosedError("the client is closed")
        doing = f"topic {message.topic!r} could not be written"

        def failed(exc: BaseException) -> None:
            on_done(translated(exc, doing, topic=message.topic))

        try:
            future = self._producer.send(message.topic, message.value, message.key, message.headers)
        except Exception as exc:
            failed(exc)
        else:
            future.add_callback(lambda _: on_done(None))
            future.add_errback(failed)

    def flush(self, timeout: float) -> bool:
        try:
            self._producer.flush(timeout)
        except Exception:
            return False
        return True

    def close(self, timeout: float) -> None:
        self._closed = True
        try:
            self._producer.close(timeout)
        except Exception:
            self._producer._sender.force_close()
            self._producer._sender.join(timeout)
