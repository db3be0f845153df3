"""What a process says of itself over HTTP, for who watches over it: systemd, Docker, Kubernetes, a load balancer.

``GET /live`` answers 200 unless starting the process anew would help, ``GET /ready`` while it does its work. Both say
with 503 why not, and what the instance has and did, as JSON. ``GET /metrics`` answers where there are some.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from quixframes.errors import SettingsError
from quixframes.logs import Place

__all__ = ["Health", "HealthServer"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """How an instance is.

    Attributes:
        dead: why it has to be started anew; None where it has not.
        unready: why it does no work; None where it does, or waits for some as it should.
        facts: what it has and did, to be sent as JSON.
    """

    dead: str | None = None
    unready: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """The status and the body for one of the two paths.

        >>> Health(unready="no broker answers").answer("/ready")
        (503, {'status': 'unwell', 'reason': 'no broker answers'})
        """
        reason = self.dead if path == "/live" else self.dead or self.unready
        body = {"status": "ok"} if reason is None else {"status": "unwell", "reason": reason}
        return 200 if reason is None else 503, {**body, **self.facts}


class HealthServer:
    """Answers on a port, in a thread of its own, until it is closed.

    Args:
        host: the address to listen at: "127.0.0.1" for this machine alone.
        port: the port; 0 for any free one.
        look: says how the instance is, whenever somebody asks.
        metrics: makes the text of ``/metrics``; None where there are none.

    Raises:
        SettingsError: nothing can listen there.
    """

    def __init__(
        self, host: str, port: int, look: Callable[[], Health], metrics: Callable[[], str] | None = None
    ) -> None:
        class Handler(_Handler):
            pass

        Handler.look = staticmethod(look)
        Handler.metrics = None if metrics is None else staticmethod(metrics)
        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as exc:
            raise SettingsError(
                f"nothing can answer about health at {host}:{port} ({exc.strerror or exc}): give another --health-port"
            ) from exc
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        thread = threading.Thread(target=self._server.serve_forever, name="quixframes-health", daemon=True)
        thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Handler(BaseHTTPRequestHandler):
    look: Callable[[], Health]
    metrics: Callable[[], str] | None
    timeout = 5.0  # seconds for a client to ask its question

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        metrics = type(self).metrics
        try:
            if path in ("/live", "/ready"):
                status, body = type(self).look().answer(path)
                self._send(status, "application/json", json.dumps(body, indent=1) + "\n")
            elif path == "/metrics" and metrics is not None:
                self._send(200, "text/plain; version=0.0.4; charset=utf-8", metrics())
            else:
                there = "/live, /ready" + (", /metrics" if metrics is not None else "")
                self._send(404, "text/plain; charset=utf-8", f"there is nothing at {self.path}: ask {there}\n")
        except OSError:  # who asked has gone
            self.close_connection = True
        except Exception as exc:
            log.exception("the answer to %s failed", self.path, extra=Place().extra)
            self._send(500, "text/plain; charset=utf-8", f"{exc!r}\n")

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args, extra=Place().extra)
