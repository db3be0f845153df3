"""Clients under construction: settings that all have in common, why they cannot connect, and where their log goes.

- librdkafka connects in the background and its constructors always succeed. Here a client that was opened has spoken
  with a broker, or the reason why it could not is raised: at once where waiting cannot help.
- Some of its calls, and its ends, wait for longer than we promise, or without end: ``within`` gives them a deadline.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message

from quixframes.confluent.failures import translated
from quixframes.confluent.secured import TokenSource, security_settings
from quixframes.diagnosis import diagnose
from quixframes.errors import AuthenticationError, BrokerError, BrokerUnavailableError, SettingsError, TlsError
from quixframes.logs import Place
from quixframes.settings import Connection, seconds

__all__ = ["REQUEST_TIMEOUT", "Opening", "settings_for", "within"]

_T = TypeVar("_T")

REQUEST_TIMEOUT = 10.0
"""Seconds after which a silent broker is tried again over a new connection."""

# Seconds that an address may refuse connections before opening fails, since a broker may just be starting. librdkafka
# tries once a second.
_PATIENCE = 2.2
_PROBE = "__consumer_offsets"  # a topic to ask for, which says that a broker understands us: any name would do
_PLACE = re.compile(r"\w://([^/\s]+:\d+)/")  # how librdkafka begins what it says of a broker
_FINAL = (TlsError, AuthenticationError)  # what trying again cannot mend
_log = logging.LoggerAdapter(logging.getLogger("quixframes.confluent"), Place().extra)


def settings_for(connection: Connection) -> dict[str, Any]:
    """librdkafka's settings that every kind of client has in common."""
    return {
        "bootstrap.servers": ",".join(connection.brokers),
        "client.id": connection.client_id,
        "socket.timeout.ms": round(REQUEST_TIMEOUT * 1000),
        "socket.nagle.disable": True,
        # A broker that comes back is noticed within this time. The default of 10 s would hold everybody up.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        "allow.auto.create.topics": False,
        "receive.message.max.bytes": 256 * 1024 * 1024,
        "log.connection.close": False,
        # Otherwise every end waits for a last report on the client itself.
        "enable.metrics.push": False,
        "logger": _Log(),
        **security_settings(connection.security),
    }


def within(timeout: float, call: Callable[[], _T]) -> _T:
    """What the call returns or raises, on a thread of its own.

    Raises:
        TimeoutError: it takes longer; what becomes of it nobody hears.
    """
    running = _Call(call)
    threading.Thread(target=running.run, name="quixframes-confluent-call", daemon=True).start()
    return running.result(timeout)


class _Call(Generic[_T]):
    def __init__(self, call: Callable[[], _T]) -> None:
        self._call: Callable[[], _T] | None = call
        self._done = threading.Event()
        self._result: list[_T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        call, self._call = self._call, None
        try:
            if call is not None:
                self._result.append(call())
        except BaseException as exc:
            self._error = exc
        finally:
            del call  # whatever it holds on to may end now
            self._done.set()

    def result(self, timeout: float) -> _T:
        if not self._done.wait(max(0.0, timeout)):
            raise TimeoutError(f"it did not end within {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._result[0]


class Opening:
    """What one client tells of its connections: its errors, as they come. Given to it as ``error_cb``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._addresses = connection.brokers
        self._where = ", ".join(connection.brokers)
        self._patience = seconds(connection.connect_timeout)
        self.reason: KafkaError | None = None
        self.fatal: KafkaError | None = None
        self.said: list[Message] = []
        """What a consumer said while it was being opened: of some errors librdkafka tells once."""
        self._all_down = False
        self._tokens: TokenSource | None = None

    def __call__(self, error: KafkaError) -> None:
        """Called in the client's ``poll``."""
        if error.fatal():
            self.fatal = error
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._all_down = True
        elif isinstance(translated(error, ""), _FINAL) or not self._is_final():  # else what says more came first
            self.reason = error

    def because(self) -> str:
        """The latest reason, for the end of a sentence."""
        reason = self.no_token or (self.reason.str() if self.reason is not None else "")
        return f" ({reason})" if reason else ""

    @property
    def no_token(self) -> str:
        """Why the user's function gave no token the last time that it was asked; empty where it did."""
        return "" if self._tokens is None or self._tokens.failure is None else str(self._tokens.failure)

    def made(self, factory: Callable[[dict[str, Any]], Any], settings: dict[str, Any]) -> Any:
        """The client that the factory makes.

        Raises:
            SettingsError: librdkafka takes no such value.
        """
        self._tokens = settings.get("oauth_cb")
        try:
            return factory(settings)
        except KafkaException as exc:
            raise SettingsError(f"the Kafka client cannot work with these settings: {exc.args[0].str()}") from exc

    def check(self, client: Any) -> None:
        """Return once a broker has answered the client.

        Raises:
            BrokerError: why none could be reached.
        """
        start = time.monotonic()
        patience = 0.05
        looked = False
        while True:
            left = self._patience - (time.monotonic() - start)
            try:
                cluster = client.list_topics(_PROBE, timeout=max(0.01, min(patience, left)))
            except KafkaException as exc:
                failure: BaseException = exc
            else:
                self._check_named([f"{broker.host}:{broker.port}" for broker in cluster.brokers.values()])
                self.reason, self._all_down = None, False
                return
            if isinstance(said := client.poll(0), Message):
                self.said.append(said)
            waited = time.monotonic() - start
            if (self.reason is not None or self._all_down) and not looked:
                looked = True
                if (found := diagnose(self._connection)) is not None and found.final:
                    raise found.of(failure if self.reason is None else KafkaException(self.reason))
            if self._all_down and (self._is_final() or waited > _PATIENCE):  # of a hang-up, it may give no reason
                raise self._failure(self.reason or KafkaError(KafkaError._ALL_BROKERS_DOWN))
            if waited >= self._patience:
                if self.reason is not None:
                    raise self._failure(self.reason)
                raise BrokerUnavailableError(f"{self._doing()}: none answered within {self._patience:g} s") from failure
            # Short at first, since reasons are only seen in between; longer then, since an answer may take long.
            patience = min(1.0, patience * 2)

    def _check_named(self, places: list[str]) -> None:
        """Raise where who answered names only brokers that are not trusted: all that is asked later would time out."""
        security = self._connection.security
        if security is None or not security.encrypted or not set(places).isdisjoint(self._addresses):
            return
        found = None
        for place in places:
            found = diagnose(replace(self._connection, brokers=(place,)))
            if found is None or not found.final:
                return
        if found is not None:
            raise found.of(None)

    def _failure(self, reason: KafkaError) -> BrokerError:
        """The error for it. librdkafka tells of most of them that the connection ended: so look for ourselves."""
        error = translated(reason, self._doing())
        if isinstance(error, (*_FINAL, BrokerUnavailableError)):
            # Who answers at the addresses that were given may have named another one, which is what fails.
            places = (*self._connection.brokers, *_PLACE.findall(reason.str()))
            if found := diagnose(replace(self._connection, brokers=places)):
                return found.of(error.__cause__)
        return error

    def _is_final(self) -> bool:
        """Whether trying again cannot mend it."""
        return self.reason is not None and isinstance(translated(self.reason, ""), _FINAL)

    def _doing(self) -> str:
        return f"no Kafka broker could be reached at {self._where}"


class _Log:
    """What confluent-kafka calls as a logger."""

    def log(self, level: int, text: str, facility: str, name: str, message: str) -> None:
        """librdkafka's "errors" are connections that it makes anew, and the like: what lasts is reported by us."""
        if facility == "FATAL" or level >= logging.CRITICAL:
            level = logging.WARNING
        elif level >= logging.WARNING:
            level = logging.INFO
        else:
            level = logging.DEBUG
        _log.log(level, text, facility, name, message)
