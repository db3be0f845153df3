"""kafka-python's connections, through its public ``kafka_client`` setting, with five things mended.

- Why a connection could not be made is known and raised, at once where waiting cannot help (defect E).
- What arrives is read in large pieces. (kafka-python reads 4 KB at a time.)
- It is known when each broker was last heard of, at no cost (defect G).
- Names are looked up on threads of their own, so that nothing else waits where that takes long: deadlines hold.
- Metadata requests never create topics. (``allow_auto_create_topics`` does not reach the part that sends them.)
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import kafka.errors as theirs
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaTCPTransport

from quixframes.diagnosis import diagnose
from quixframes.errors import AuthenticationError, BrokerUnavailableError, SettingsError, TlsError
from quixframes.kafka_python.failures import translated
from quixframes.kafka_python.secured import TlsFailed, TlsTransport, security_settings
from quixframes.settings import Connection, seconds

__all__ = ["Client", "Opening", "settings_for"]

_T = TypeVar("_T")

# What is worth a look of our own.
_UNEXPLAINED = (BrokerUnavailableError, TlsError, AuthenticationError)

PATIENCE = 2.0
"""Seconds that an address may refuse connections before opening fails: a broker may just be starting."""

_READ = 1024 * 1024  # bytes asked for in one read

# What trying again cannot mend.
_FINAL = (
    theirs.SaslAuthenticationFailedError,
    theirs.UnsupportedSaslMechanismError,
    theirs.IllegalSaslStateError,
    theirs.InvalidReceiveError,
    theirs.IncompatibleBrokerVersion,
    AuthenticationError,
)


def settings_for(connection: Connection) -> dict[str, Any]:
    """kafka-python's settings that every kind of client has in common."""
    return {
        "bootstrap_servers": list(connection.brokers),
        "client_id": connection.client_id,
        "bootstrap_timeout_ms": round(seconds(connection.connect_timeout) * 1000),
        # A broker that comes back is noticed within this time. The default of 30 s would hold everybody up.
        "reconnect_backoff_max_ms": 500,
        "receive_message_max_bytes": 256 * 1024 * 1024,
        **security_settings(connection.security),
    }


def _is_final(failure: BaseException | None) -> bool:
    return failure.final if isinstance(failure, TlsFailed) else isinstance(failure, _FINAL)


class Opening:
    """The ``kafka_client`` of one client under construction: remembers what it made, to clear it away should it fail.

    kafka-python's constructors leave a thread behind when they fail.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client: Client | None = None

    def __call__(self, **configs: Any) -> Client:
        self._client = Client(**configs)
        return self._client

    def open(self, make: Callable[[], _T]) -> _T:
        """What ``make`` returns; if it fails, everything is cleared away and the cause is raised.

        Raises:
            BrokerError: with the reason why no broker could be reached, as its cause.
        """
        try:
            return make()
        except BaseException as exc:
            failure = exc
            if self._client is not None:
                reason = self._client.manager.failure
                self._client.shut(1.0)
                if isinstance(exc, theirs.KafkaTimeoutError) and reason is not None:
                    failure = reason
            if not isinstance(exc, Exception) or isinstance(exc, SettingsError):
                raise
            where = ", ".join(self._connection.brokers)
            error = translated(failure, f"no Kafka broker could be reached at {where}")
            if isinstance(error, _UNEXPLAINED) and (found := diagnose(self._connection)):
                raise found.of(failure) from failure
            raise error from failure


class Client(KafkaNetClient):  # type: ignore[misc]
    """The connections of one client."""

    def __init__(self, **configs: Any) -> None:
        net = NetworkSelector(**configs)
        self.manager = _Manager(net, **configs)
        super().__init__(net=net, manager=self.manager, **configs)

    def run(self, timeout: float, doing: str, function: Callable[..., Any], *args: Any) -> Any:
        """The result of a function or coroutine, run on the IO thread; kafka-python's own ``run`` waits without end.

        Raises:
            BrokerUnavailableError: it took longer than ``timeout`` seconds.
        """
        done = threading.Event()
        future = self._net.call_soon_with_future(function, *args)
        future.add_both(lambda _: done.set())
        if not done.wait(timeout):
            raise BrokerUnavailableError(f"{doing}: no broker answered within {timeout:g} s{self.manager.because()}")
        if future.exception is not None:
            raise future.exception
        return future.value

    def shut(self, timeout: float) -> None:
        """Close all connections and end the IO thread."""
        thread = self._net._io_thread
        if thread is not None and not self._net._stop:
            # Where the thread is busy or gone, what follows ends it.
            with contextlib.suppress(Exception):
                self.run(timeout / 2, "closing", self.manager.finish, min(0.2, timeout / 8))
            self._net.stop(timeout_ms=max(100.0, timeout * 500))
        elif thread is not None:
            thread.join(timeout)  # an earlier call was interrupted
        if thread is None or not thread.is_alive():
            super().close()

    def close(self, node_id: object | None = None) -> None:
        """What kafka-python's clients call at their end, where its own would wait for its thread without end."""
        if node_id is not None:
            super().close(node_id)
        else:
            self.shut(1.0)


class _Transport(KafkaTCPTransport):  # type: ignore[misc]
    """A connection that reads large pieces, and notes when it does.

    One piece at a time also keeps the bytes that come together with the end of a stream: kafka-python drops these last
    words, which often say what is wrong.
    """

    heard: Callable[[], None]

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        try:
            piece: bytes = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return b"", None
        except OSError as exc:
            return b"", theirs.KafkaConnectionError(exc)
        if not piece:
            return b"", theirs.KafkaConnectionError("the broker closed the connection")
        self.heard()
        return piece, None


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Connections that remember why they failed, and until when brokers were heard of."""

    def __init__(self, net: NetworkSelector, **configs: Any) -> None:
        super().__init__(net, **configs)
        self.cluster.config["allow_auto_create_topics"] = False
        self.last_heard: dict[object, float] = {}
        self._failures: dict[object, BaseException] = {}
        self._looking_up: dict[str, Any] = {}  # future addresses, by host
        self._started = time.monotonic()
        self.unknown_topics: frozenset[str] = frozenset()
        self._update_metadata = self.cluster.update_metadata
        self.cluster.update_metadata = self._learn

    @property
    def failure(self) -> BaseException | None:
        """The latest reason for which a connection could not be made, if no broker has answered since."""
        return next(reversed(self._failures.values()), None)

    def because(self) -> str:
        """The latest reason, for the end of a sentence."""
        return f" ({self.failure})" if self.failure is not None else ""

    def silence(self, nodes: set[object] | None = None) -> float:
        """Seconds since one of the nodes, or any at all, was last heard of."""
        heard = dict(self.last_heard)
        times = [at for node, at in heard.items() if nodes is None or node in nodes]
        return time.monotonic() - max(times or heard.values(), default=self._started)

    def fresh(self, since: float) -> bool:
        """Whether the topics' metadata were looked up after this moment (monotonic)."""
        return bool(self.cluster._last_successful_refresh_ms >= since * 1000)

    def get_connection(self, node_id: object, **options: Any) -> Any:
        if not self.bootstrapped and (reason := self._hopeless()) is not None:
            raise reason
        if node_id is None and (reason := self.failure) is not None and _is_final(reason):
            raise reason  # none could be chosen: who answered at the first address has named others, which all fail
        known = node_id in self._conns
        try:
            connection = super().get_connection(node_id, **options)
        except theirs.UnknownBrokerIdError:
            self.cluster.request_update()  # it has come since the last look
            raise
        if not known:
            connection.init_future.add_callback(lambda _: self._failures.clear())
            connection.init_future.add_errback(lambda exc: self._note(node_id, exc))
            connection.close_future.add_errback(lambda exc: self._note(node_id, exc))
        return connection

    async def finish(self, patience: float) -> None:
        """Close all connections, after the answer that is on its way, if it comes soon.

        Otherwise kafka-python logs at a normal end that looking the metadata up failed.
        """
        self.cluster.close()
        if self.cluster.metadata_refresh_in_progress:
            with contextlib.suppress(theirs.KafkaError):
                await self.wait_for(self.cluster._refresh_future, patience * 1000)
        await self._net._invoke(self.close)

    def _learn(self, metadata: Any) -> None:
        """Take the metadata in, and remember which topics there are not: kafka-python forgets which error a topic had.

        It is called with each answer, on the IO thread.
        """
        unknown = theirs.UnknownTopicOrPartitionError.errno
        self.unknown_topics = frozenset(topic.name for topic in metadata.topics if topic.error_code == unknown)
        self._update_metadata(metadata)

    def _note(self, node_id: object, exc: BaseException) -> None:
        self._failures.pop(node_id, None)
        self._failures[node_id] = exc

    def _hopeless(self) -> BaseException | None:
        """Why no broker will be reached, once every address has failed for good or for longer than our patience."""
        failures = [self._failures.get(broker.node_id) for broker in self.cluster.bootstrap_brokers()]
        if any(failure is None for failure in failures):
            return None
        if time.monotonic() - self._started > PATIENCE or all(_is_final(failure) for failure in failures):
            return failures[-1]
        return None

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> _Transport | TlsTransport:
        sock = await self._connected(node.host, node.port, timeout_at)
        heard, node_id, now = self.last_heard, node.node_id, time.monotonic

        def note() -> None:
            heard[node_id] = now()

        if not self.ssl_enabled:
            plain = _Transport(self._net, sock, host=node.host)
            plain.heard = note
            await plain.handshake()
            return plain
        encrypted = TlsTransport(self._net, sock, host=node.host, ssl_context=self.config["ssl_context"])
        encrypted.heard, encrypted.own_certificate = note, self.own_certificate
        try:
            await encrypted.shake_hands(timeout_at)
        except BaseException:
            encrypted.abort()
            raise
        return encrypted

    async def _connected(self, host: str, port: int, timeout_at: float | None) -> Any:
        """A socket that is connected to the first of the host's addresses to accept."""
        failure: Exception = theirs.KafkaConnectionError(f"no address is known for {host}")
        for address in await self._addresses(host, timeout_at):
            try:
                return await create_connection(
                    self._net, address, port, self.config["socket_options"], timeout_at=timeout_at
                )
            except theirs.KafkaConnectionError as exc:
                failure = exc
        raise failure

    async def _addresses(self, host: str, timeout_at: float | None) -> list[str]:
        try:
            socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
            return [host]
        except OSError:
            pass  # a name, then
        future = self._looking_up.get(host)
        if future is None:
            future = self._looking_up[host] = Future()
            future.add_both(lambda _: self._looking_up.pop(host, None))
            threading.Thread(target=self._look_up, args=(host, future), name=f"looking-up-{host}", daemon=True).start()
        left_ms = None if timeout_at is None else max(0.0, timeout_at - time.monotonic()) * 1000
        try:
            found: list[str] = await self.wait_for(future, left_ms)
        except theirs.KafkaTimeoutError:
            raise theirs.KafkaConnectionError(f"the name {host} could not be looked up in time") from None
        return found

    @property
    def own_certificate(self) -> bool:
        """Whether this client shows a certificate of its own."""
        return bool(getattr(self.config["ssl_context"], "own_certificate", False))

    def _look_up(self, host: str, future: Any) -> None:
        """On a thread of its own, which the system may hold for as long as it likes."""
        addresses: list[str] = []
        failure: Exception | None = None
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(where[0]) for *_, where in found))
        except (OSError, UnicodeError) as exc:
            failure = theirs.KafkaConnectionError(f"the name {host} cannot be looked up: {exc}")

        def tell() -> None:
            if failure is None:
                future.success(addresses)
            else:
                future.failure(failure)

        with contextlib.suppress(Exception):  # the client was closed meanwhile
            self._net.call_soon_threadsafe(tell)
