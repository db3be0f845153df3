"""The producer: librdkafka's, and around it what it lacks of the contract.

- A partition count once seen is kept, and the partition of each message is chosen here: librdkafka would move a stream
  when partitions are added. So the first messages for a topic wait until its partitions are known (``_learn``).
- librdkafka neither splits a batch that is over the topic's limit nor makes smaller ones for such a topic. Where the
  limit is below the size of its batches, no more than fits into one is handed over at a time (``_Narrow``).
- After a "fatal" error a client of librdkafka never sends again. Then everything that it holds fails, and another
  client takes its place.

``send``, ``flush`` and ``close`` are called on the caller's threads; delivery reports come on a thread of ours.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from quixframes.confluent.admin import ConfluentAdmin
from quixframes.confluent.failures import UNKNOWN_TOPIC, error_in, is_passing, translated
from quixframes.confluent.opening import REQUEST_TIMEOUT, Opening, settings_for, within
from quixframes.errors import (
    BrokerUnavailableError,
    ClosedError,
    MessageTooLargeError,
    QuixframesError,
    TopicNotFoundError,
)
from quixframes.kafka import Outgoing
from quixframes.logs import Place
from quixframes.placement import partition_of
from quixframes.refusals import Asked
from quixframes.settings import Connection, WriterSettings, seconds

__all__ = ["ConfluentProducer", "Sent"]

_log = logging.LoggerAdapter(logging.getLogger(__name__), Place().extra)

_REQUEST = 91 * 1024 * 1024  # bytes of one message with what is around it; `Outgoing.size` has the limit
_BATCH = 1_000_000  # bytes of small messages that share a batch; topics take 1 MiB unless told otherwise
_UNBOUNDED = 2**31 - 1  # the caller bounds what is in flight
_UNKNOWN = 2.0  # seconds that a topic may be unknown before its messages fail: it may just have been created
_PAUSE = 0.05  # seconds between two looks at a topic
_LONG_LINGER = 0.02  # seconds: what lingers for longer is hurried along by a flush
_ROUTES = 100_000  # keys whose partition is remembered
_BATCH_OVERHEAD = 100  # ... and around a batch's records


class Sent:
    """A message that was sent: what librdkafka tells of it goes to ``on_done``."""

    __slots__ = ("_producer", "message", "narrow", "on_done", "round", "size", "topic")

    def __init__(self, producer: ConfluentProducer, message: Outgoing, on_done: Callable[..., None], size: int) -> None:
        self._producer = producer
        self.topic = message.topic
        self.message: Outgoing | None = message
        self.on_done = on_done
        self.size = size
        self.round = 0
        self.narrow: _Narrow | None = None

    def __call__(self, error: KafkaError | None, _: object) -> None:
        """The delivery report."""
        self._producer._reported(self, error)


class _Narrow:
    """A partition of a topic that takes less than librdkafka puts into a batch: what waits, and what is under way."""

    __slots__ = ("queue", "under_way")

    def __init__(self) -> None:
        self.queue: deque[tuple[Sent, int]] = deque()
        self.under_way = 0


class _Topic:
    """What is known of a topic. Until its partitions are, its messages wait here, with the time at which they came.

    ``partitions`` is the count once seen, by which keys go; ``newest`` is how many there were at the last look.
    """

    __slots__ = ("learning", "limit", "narrow", "newest", "partitions", "routes", "waiting")

    def __init__(self) -> None:
        self.partitions = 0
        self.newest = 0
        self.learning = False
        self.limit: int | None = None
        self.routes: dict[bytes, int] = {}
        self.narrow: dict[int, _Narrow] = {}
        self.waiting: deque[tuple[float, Sent]] = deque()


class ConfluentProducer:
    """Implements :class:`quixframes.kafka.Producer`."""

    def __init__(self, connection: Connection, settings: WriterSettings) -> None:
        self._connection = connection
        self._asked = Asked(connection.principal, "write")
        self._timeout = seconds(settings.delivery_timeout)
        self._linger = seconds(settings.linger)
        self._settings = self._settings_of(settings)
        self._lock = threading.Condition(threading.Lock())
        self._topics: dict[str, _Topic] = {}
        self._turn = 0  # of the messages without a key
        self._round = 0
        self._open: dict[int, int] = {0: 0}  # how many messages of each round are not done
        self._learners: set[threading.Thread] = set()
        self._closed = False
        self._ended = False
        self._client, self._opening = self._made()
        try:
            self._opening.check(self._client)
            self._prepare(time.monotonic() + seconds(connection.connect_timeout))
        except BaseException:
            self._discard(1.0)
            raise
        self._thread = threading.Thread(target=self._serve, name="quixframes-confluent-reports", daemon=True)
        self._thread.start()

    def _settings_of(self, settings: WriterSettings) -> dict[str, Any]:
        return {
            **settings_for(self._connection),
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": max(1, round(self._timeout * 1000)),
            "request.timeout.ms": max(1, round(min(REQUEST_TIMEOUT, self._timeout) * 1000)),
            "linger.ms": self._linger * 1000,
            "compression.type": settings.compression or "none",
            "message.max.bytes": _REQUEST,
            "batch.size": _BATCH,
            "queue.buffering.max.messages": 0,
            "queue.buffering.max.kbytes": _UNBOUNDED,
            "retry.backoff.ms": 100,
            "retry.backoff.max.ms": 500,
            "topic.metadata.propagation.max.ms": round(_UNKNOWN * 1000),
        }

    def _made(self) -> tuple[Any, Opening]:
        opening = Opening(self._connection)
        return opening.made(Producer, {**self._settings, "error_cb": opening}), opening

    def _prepare(self, deadline: float) -> None:
        """What else has to be done before anything can be sent."""

    def send(self, message: Outgoing, on_done: Callable[[Exception | None], None]) -> None:
        """Queue a message; ``on_done`` hears how it went."""
        topic = message.topic
        try:
            size = message.size()
        except MessageTooLargeError as exc:
            self._refuse(exc, on_done)
            return
        sent = Sent(self, message, on_done, size)
        with self._lock:
            if self._closed:
                raise ClosedError("the client is closed")
            refusal = self._refusal()
            if refusal is None:
                sent.round = self._round
                self._open[self._round] += 1
                place = self._topics.get(topic)
                if place is None:
                    place = self._topics[topic] = _Topic()
                if not place.partitions or (message.partition or 0) >= place.newest:
                    place.waiting.append((time.monotonic(), sent))
                    self._begin_learning(topic, place)
                    return
                refusal = self._hand_over(place, sent)
                if refusal is None:
                    return
                self._count_down(sent)
        self._refuse(refusal, on_done)

    def _refuse(self, error: QuixframesError, on_done: Callable[[Exception | None], None]) -> None:
        on_done(error)

    def flush(self, timeout: float) -> bool:
        """Wait until the ``on_done`` of everything sent so far was called; False where ``timeout`` came first."""
        deadline = time.monotonic() + timeout
        with self._lock:
            mine = self._round
            self._round += 1
            self._open[self._round] = 0

            def done() -> bool:
                return not any(self._open[each] for each in self._open if each <= mine)

            try:
                while not done():
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return False
                    if self._linger > _LONG_LINGER:
                        self._hurry()
                        left = min(left, _LONG_LINGER)
                    self._lock.wait_for(done, left)
                return True
            finally:
                for finished in [r for r in self._open if r < self._round and not self._open[r]]:
                    del self._open[finished]

    def _hurry(self) -> None:
        """Have librdkafka send what lingers. Called with the lock held, which is let go meanwhile."""
        client = self._client
        self._lock.release()
        try:
            client.flush(0.001)
        finally:
            self._lock.acquire()

    def close(self, timeout: float) -> None:
        """Send what is queued, as far as ``timeout`` allows; fail the rest through ``on_done``; end."""
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._ended:
                return
            self._closed = True
        # Whatever interrupts one of these steps, the others are taken, and a second call takes what is left.
        try:
            self.flush(timeout - min(1.0, timeout / 2))
        finally:
            self._ended = True
            for sent in self._take_unsent():
                self._finish(sent, self._closing_failure())
            self._thread.join(max(0.1, deadline - time.monotonic()))
            for learner in list(self._learners):
                learner.join(max(0.1, deadline - time.monotonic()))
            if not self._thread.is_alive():
                _purge(self._client, min(0.5, max(0.1, deadline - time.monotonic())))
                self._discard(max(0.1, deadline - time.monotonic()))

    def _take_unsent(self) -> list[Sent]:
        """What librdkafka was not given yet."""
        with self._lock:
            unsent = [sent for topic in self._topics.values() for _, sent in topic.waiting]
            for topic in self._topics.values():
                topic.waiting.clear()
                for narrow in topic.narrow.values():
                    unsent += [sent for sent, _ in narrow.queue]
                    narrow.queue.clear()
        return unsent

    # The way into librdkafka. Called with the lock held.

    def _refusal(self) -> QuixframesError | None:
        """Why nothing may be sent at the moment."""
        return None

    def _begin(self) -> None:
        """What has to come before a message."""

    def _hand_over(self, topic: _Topic, sent: Sent) -> QuixframesError | None:
        """Give a message to librdkafka; what is wrong with it, where it does not take it."""
        assert sent.message is not None
        _, key, _, _, chosen = sent.message
        if chosen is not None:
            if chosen >= topic.newest:
                name = sent.message.topic
                return TopicNotFoundError(f"topic {name!r} has no partition {chosen}, but {topic.newest}", topic=name)
            number = chosen
        elif key is None:
            self._turn += 1
            number = self._turn % topic.partitions
        else:
            known = topic.routes.get(key)
            if known is None:
                if len(topic.routes) >= _ROUTES:
                    topic.routes.clear()
                known = topic.routes[key] = partition_of(key, topic.partitions)
            number = known
        if topic.limit is not None:
            narrow = sent.narrow = topic.narrow.setdefault(number, _Narrow())
            if narrow.queue or (narrow.under_way and narrow.under_way + sent.size > topic.limit):
                narrow.queue.append((sent, number))
                return None
        return self._produce(sent, number)

    def _produce(self, sent: Sent, number: int) -> QuixframesError | None:
        message, sent.message = sent.message, None
        assert message is not None
        topic, key, value, headers, _ = message
        try:
            for name, _ in headers:
                if not name.isascii():
                    name.encode()  # confluent-kafka ends the whole process over a name that has no UTF-8
            self._begin()
            while True:
                client = self._client
                try:
                    client.produce(topic, value, key, number, on_delivery=sent, headers=headers or None)
                    break
                except KafkaException as exc:
                    if not _is_fatal(exc) or not self._gave_up(client):
                        raise
        except Exception as exc:
            self._look_at(topic, error_in(exc))
            return translated(exc, f"topic {topic!r} could not be written", replace(self._asked, topic=topic))
        if sent.narrow is not None:
            sent.narrow.under_way += sent.size
        return None

    def _follow_up(self, topic: _Topic, narrow: _Narrow) -> list[tuple[Sent, QuixframesError]]:
        """Hand over what fits beside what is under way; what of it was refused."""
        refused = []
        assert topic.limit is not None
        while narrow.queue and (not narrow.under_way or narrow.under_way + narrow.queue[0][0].size <= topic.limit):
            sent, number = narrow.queue.popleft()
            refusal = self._produce(sent, number)
            if refusal is not None:
                refused.append((sent, refusal))
        return refused

    def _look_at(self, topic: str, error: KafkaError | None) -> None:
        """Should the topic be gone, learn about it anew: when it comes back, it may have other partitions."""
        place = self._topics.get(topic)
        if error is not None and error.code() in UNKNOWN_TOPIC and place is not None and place.partitions:
            place.partitions = place.newest = 0
            place.routes.clear()
            self._begin_learning(topic, place)

    # Delivery reports

    def _serve(self) -> None:
        while not self._ended:
            client, opening = self._client, self._opening
            try:
                client.poll(0.1)
            except KafkaException as exc:  # only what is fatal is raised here; all else comes as a call
                opening.fatal = error_in(exc)
                with self._lock:
                    self._gave_up(client)

    def _reported(self, sent: Sent, error: KafkaError | None) -> None:
        failure: Exception | None = None
        refused: list[tuple[Sent, QuixframesError]] = []
        if error is not None or sent.narrow is not None:
            with self._lock:
                if error is not None:
                    failure = self._failure(sent, error)
                    self._look_at(sent.topic, error)
                if sent.narrow is not None:
                    sent.narrow.under_way -= sent.size
                    if not self._ended:
                        refused = self._follow_up(self._topics[sent.topic], sent.narrow)
        self._finish(sent, failure)
        for other, refusal in refused:
            self._finish(other, refusal)

    def _failure(self, sent: Sent, error: KafkaError) -> Exception:
        code = error.code()
        if self._closed and code in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._DESTROY):
            return self._closing_failure()
        if code == KafkaError._MSG_TIMED_OUT:
            return self._too_late(sent.topic)
        return translated(error, f"topic {sent.topic!r} could not be written", replace(self._asked, topic=sent.topic))

    def _finish(self, sent: Sent, error: Exception | None) -> None:
        try:
            sent.on_done(error)
        except Exception:
            _log.exception("the end of a send could not be reported")
        with self._lock:
            self._count_down(sent)

    def _count_down(self, sent: Sent) -> None:
        self._open[sent.round] -= 1
        if not self._open[sent.round]:
            self._lock.notify_all()

    def _closing_failure(self) -> ClosedError:
        return ClosedError("the client was closed before the cluster acknowledged this")

    def _too_late(self, topic: str) -> BrokerUnavailableError:
        return BrokerUnavailableError(
            f"topic {topic!r} could not be written: no broker acknowledged it within {self._timeout:g} s"
            f"{self._opening.because()}"
        )

    # What a topic is like

    def _begin_learning(self, name: str, topic: _Topic) -> None:
        """Called with the lock held."""
        if topic.learning or self._closed:
            return
        topic.learning = True
        learner = threading.Thread(
            target=self._learn, args=(name, topic), name=f"quixframes-confluent-topic-{name}", daemon=True
        )
        self._learners.add(learner)
        learner.start()

    def _learn(self, name: str, topic: _Topic) -> None:
        """Find out how many partitions there are, then let what waits go. Runs on a thread of its own, as long as
        something waits."""
        start = time.monotonic()
        found: _Found | QuixframesError | None = None
        while found is None and not self._ended:
            since = time.monotonic() - start
            found = self._look_up(name, since)
            with self._lock:
                wanted = max(
                    ((sent.message.partition or 0) + 1 for _, sent in topic.waiting if sent.message), default=0
                )
                if isinstance(found, _Found) and found.partitions < wanted and since < _UNKNOWN:
                    found = None  # the topic has just been given more, which this broker has not heard yet
                late = []
                while topic.waiting and topic.waiting[0][0] + self._timeout < time.monotonic():
                    late.append(topic.waiting.popleft()[1])
                if found is None and not topic.waiting:
                    found = _Found(0, None)
            for sent in late:
                self._finish(sent, self._too_late(name))
            if found is None:
                time.sleep(_PAUSE)
        refused: list[tuple[Sent, QuixframesError]] = []
        with self._lock:
            topic.learning = False
            self._learners.discard(threading.current_thread())
            if isinstance(found, _Found) and found.partitions:
                topic.newest, topic.limit = found
                topic.partitions = topic.partitions or found.partitions
            while topic.waiting:
                _, sent = topic.waiting.popleft()
                if isinstance(found, _Found):
                    refusal = self._hand_over(topic, sent)
                else:
                    refusal = found or self._closing_failure()
                if refusal is not None:
                    refused.append((sent, refusal))
        for sent, refusal in refused:
            self._finish(sent, refusal)

    def _look_up(self, name: str, since: float) -> _Found | QuixframesError | None:
        """What a topic is like, or why it cannot be; None where that may change."""
        try:
            found = self._client.list_topics(name, timeout=1.0).topics[name]
            if found.error is None:
                return _Found(len(found.partitions), self._limit(name))
            failure: KafkaError | KafkaException = found.error
        except KafkaException as exc:
            failure = exc
        error = failure if isinstance(failure, KafkaError) else error_in(failure)
        unknown = error is not None and error.code() in UNKNOWN_TOPIC
        if is_passing(failure) or (unknown and since < _UNKNOWN):
            return None
        return translated(failure, f"topic {name!r} cannot be written", replace(self._asked, topic=name))

    def _limit(self, name: str) -> int | None:
        """How much of a topic with a low limit may be under way."""
        try:
            admin = ConfluentAdmin(self._connection)
            try:
                limit = admin.describe(name).message_limit
            finally:
                admin.close(1.0)
        except QuixframesError:
            return None  # a guess: it has Kafka's default
        return max(1, limit - _BATCH_OVERHEAD) if limit < _BATCH + _BATCH_OVERHEAD else None

    # Ends

    def _gave_up(self, client: Any) -> bool:
        """The client sends no more. Whether another does in its place. Called with the lock held."""
        self._renew(client)
        return True

    def _renew(self, client: Any) -> None:
        """Put another client in the place of this one, unless that was done. Called with the lock held."""
        if client is self._client:
            if self._opening.fatal is not None:
                _log.warning(
                    "librdkafka gave up (%s): what it had not delivered fails, and a new one begins",
                    self._opening.fatal,
                )
            self._client, self._opening = self._made()
            threading.Thread(target=self._bury, args=(client,), name="quixframes-confluent-end", daemon=True).start()

    def _bury(self, client: Any) -> None:
        _purge(client, 5.0)

    def _discard(self, timeout: float) -> None:
        """Let go of the client; its end comes with its last reference, and joins its threads."""
        client, self._client = self._client, None
        end = [client]
        del client
        try:
            within(timeout, end.clear)
        except TimeoutError:
            _log.info("a producer's connections have not ended within %g s: they end by themselves", timeout)


class _Found(NamedTuple):
    partitions: int
    limit: int | None


def _is_fatal(exc: KafkaException) -> bool:
    error = error_in(exc)
    return error is not None and (error.fatal() or error.code() == KafkaError._FATAL)


def _purge(client: Any, timeout: float) -> None:
    """Have everything that the client holds fail, and hear of it."""
    deadline = time.monotonic() + timeout
    with contextlib.suppress(KafkaException):
        client.purge(in_queue=True, in_flight=True, blocking=False)
    while len(client) and time.monotonic() < deadline:
        with contextlib.suppress(KafkaException):
            client.poll(0.05)
