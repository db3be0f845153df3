"""The producer: an idempotent sender of our own, on kafka-python's connections, requests and record batches.

kafka-python's ``KafkaProducer`` keeps one producer ID and one fatal state for everything that it sends. That is why an
expired batch wedges it for ever (defect A), why one refused message poisons every other topic (B), why it cannot be
closed in such a state (C), and why what it holds is never given up (F). Each could only be mended by patching its
inside; so it is not used. Here instead:

- A *lane* is one partition of one topic: a queue, at most one batch in flight, and a producer ID with a sequence
  number. A lane's failure cannot touch another's.
- A batch is sent again, with the same sequence numbers, until it is acknowledged, refused or out of time. The broker
  drops what it has already, so each message arrives once, and one batch at a time keeps their order.
- What was refused never used up its sequence numbers, so the lane goes on. What ran out of time may or may not have
  arrived: the numbers are in doubt, so the lane goes on with a *new* producer ID.
- Deadlines are ours, and are looked at four times a second, whatever the connections are doing.

``send``, ``flush`` and ``close`` are called on the caller's threads; everything else happens on the IO thread. The lock
guards what both sides touch: queues, routes and counts.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import kafka.errors as theirs
from kafka import TopicPartition, codec
from kafka.protocol.producer import InitProducerIdRequest

from quixframes.errors import (
    BrokerError,
    BrokerUnavailableError,
    ClosedError,
    MessageTooLargeError,
    SettingsError,
)
from quixframes.kafka import Outgoing
from quixframes.kafka_python.failures import is_passing, translated
from quixframes.kafka_python.lanes import REQUEST_TIMEOUT, Batch, Identity, Lane, Message, encoded, produce_request
from quixframes.kafka_python.network import Client, Opening, settings_for
from quixframes.kafka_python.routes import Routes
from quixframes.logs import Place
from quixframes.refusals import Asked
from quixframes.settings import Connection, WriterSettings, seconds

__all__ = ["PythonProducer"]

_log = logging.LoggerAdapter(logging.getLogger(__name__), Place().extra)

_CODECS: Mapping[str | None, tuple[int, Callable[[], bool]]] = {
    None: (0, lambda: True),
    "gzip": (1, codec.has_gzip),
    "snappy": (2, codec.has_snappy),
    "lz4": (3, codec.has_lz4),
    "zstd": (4, codec.has_zstd),
}
_REQUEST = 4 * 1024 * 1024  # bytes in one request, over all partitions of a broker
_SPREAD = 1.0  # seconds, at most, between the first and the last message of a batch, which has one deadline
_LOOK = 0.25  # seconds between two looks at the deadlines
_BACKOFF = 0.1  # seconds before a batch is sent again
_BUSY = 0.005  # seconds before a connection that has all it can take is looked at again
_CONNECTING = 0.02  # ... and one that is being made

# The broker does not know the producer ID or number any more: only a new ID helps.
_FORGOTTEN = (
    theirs.OutOfOrderSequenceNumberError,
    theirs.UnknownProducerIdError,
    theirs.InvalidProducerEpochError,
)
_TOO_LARGE = (theirs.MessageSizeTooLargeError, theirs.RecordListTooLargeError)
_UNSENT = (theirs.NodeNotReadyError, theirs.TooManyInFlightRequests)  # the request never left


class PythonProducer(Routes):
    """Implements :class:`quixframes.kafka.Producer`."""

    _transactional_id: str | None = None

    def __init__(self, connection: Connection, settings: WriterSettings) -> None:
        self._timeout = seconds(settings.delivery_timeout)
        self._spread = min(_SPREAD, self._timeout / 10)
        self._request_timeout = min(REQUEST_TIMEOUT, self._timeout)
        self._linger = seconds(settings.linger)
        self._codec = _codec(settings.compression)
        opening = Opening(connection)
        client = opening.open(lambda: _connected(opening, connection, self._request_timeout))
        super().__init__(client, Asked(connection.principal, "write"))
        # Guarded by the lock:
        self._round = 0
        self._unfinished: dict[int, int] = {0: 0}  # how many messages of each round are not done
        self._hurrying = 0  # flushes in progress: nothing lingers
        self._awake = False
        self._closed = False
        self._ending = False
        self._ended = False
        # The IO thread's:
        self._identity: Identity | None = None
        self._asking = False
        self._timer: tuple[float, Any] | None = None

    def send(self, message: Outgoing, on_done: Callable[[Exception | None], None]) -> None:
        """Queue a message; ``on_done`` hears how it went."""
        topic, key, value, headers, partition = message
        try:
            size = message.size()
        except MessageTooLargeError as exc:
            self._refuse(exc, on_done)
            return
        with self._lock:
            refusal = self._refusal()
            if refusal is None:
                if partition is None:
                    lane = self._routes.get((topic, key))
                else:
                    lane = self._lanes.get(TopicPartition(topic, partition)) if topic in self._partitions else None
                if lane is None:
                    lane = self._route(topic, key, partition)
                at, timestamp = time.monotonic(), int(time.time() * 1000)
                self._queue(lane, Message(key, value, headers, partition, on_done, size, at, timestamp, self._round))
        if refusal is not None:
            on_done(refusal)

    def _refusal(self) -> Exception | None:
        """Why a message is not taken. Called with the lock held."""
        if self._closed:
            raise ClosedError("the client is closed")
        return None

    def _refuse(self, error: BrokerError, on_done: Callable[[Exception | None], None]) -> None:
        on_done(error)

    def flush(self, timeout: float) -> bool:
        """Wait until the ``on_done`` of everything sent so far was called; False where ``timeout`` came first."""
        with self._lock:
            mine = self._round
            self._round += 1
            self._unfinished[self._round] = 0
            self._hurrying += 1
            self._wake()
            try:
                return self._lock.wait_for(
                    lambda: not any(self._unfinished[r] for r in self._unfinished if r <= mine), timeout
                )
            finally:
                self._hurrying -= 1
                for finished in [r for r in self._unfinished if r < self._round and not self._unfinished[r]]:
                    del self._unfinished[finished]

    def close(self, timeout: float) -> None:
        """Send what is queued, as far as ``timeout`` allows; fail the rest through ``on_done``; end."""
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._ended:
                return
            self._closed = True
        # Whatever interrupts one of these steps, the others are taken, and a second call takes what is left.
        try:
            self.flush(timeout - min(1.0, timeout / 4))
        finally:
            self._ending = True
            try:
                self._client.shut(max(0.1, deadline - time.monotonic()))
                self._ended = True
            finally:
                for lane in list(self._lanes.values()):
                    self._abandon(lane, ClosedError("the client was closed before the cluster acknowledged this"))

    # The rest of the way into the queue. Called with the lock held.

    def _queue(self, lane: Lane, message: Message) -> None:
        lane.queue.append(message)
        self._unfinished[self._round] += 1
        was_full = lane.size >= lane.limit
        lane.size += message.size
        due = len(lane.queue) == 1 or (lane.size >= lane.limit and not was_full)
        if due and lane.batch is None:
            self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            # Should the IO thread be gone, closing fails what is left.
            with contextlib.suppress(Exception):
                self._net.call_soon_threadsafe(self._pump)

    # On the IO thread.

    def _pump(self) -> None:
        """Do whatever is due, and see to it that this is called when something is due next."""
        with self._lock:
            self._awake = False
            lanes = [lane for lane in self._lanes.values() if lane.queue or lane.batch is not None]
        if not lanes or self._ending:
            return
        now = time.monotonic()
        next_look = now + _LOOK
        try:
            for lane in lanes:
                self._expire(lane, now)
            going: dict[object, list[Lane]] = {}
            for lane in lanes:
                due, node = self._due(lane, now)
                next_look = min(next_look, due)
                if node is not None:
                    going.setdefault(node, []).append(lane)
            for node, several in going.items():
                next_look = min(next_look, self._dispatch(node, several, now))
        finally:
            self._look_again(next_look)  # whatever went wrong: the deadlines hold

    def _soon(self) -> None:
        with self._lock:
            self._wake()

    def _look_again(self, when: float) -> None:
        if self._timer is not None:
            if not self._timer[1].is_done and self._timer[0] <= when and self._timer[0] > time.monotonic():
                return
            self._net.cancel(self._timer[1])
        self._timer = (when, self._net.call_at(when, self._pump))

    def _expire(self, lane: Lane, now: float) -> None:
        batch = lane.batch
        if batch is not None and batch.deadline <= now:
            if batch.attempts:
                self._forget(lane)
            lane.batch = None
            self._finish(batch.messages, self._too_late(lane))
        late: list[Message] = []
        with self._lock:
            while lane.queue and lane.queue[0].at + self._timeout <= now:
                late.append(lane.queue.popleft())
                lane.size -= late[-1].size
        if late:
            self._finish(late, self._too_late(lane))

    def _due(self, lane: Lane, now: float) -> tuple[float, object | None]:
        """When to look at the lane next, and the broker to which it can send at once, if it can."""
        never = now + _LOOK
        batch = lane.batch
        if batch is not None:
            never = min(never, batch.deadline)
        elif lane.queue:
            never = min(never, lane.queue[0].at + self._timeout)
        else:
            return never, None
        if lane.place.partition < 0:
            self._learn(lane.place.topic)
            return never, None
        if batch is None:
            ripe_at = lane.queue[0].at + self._linger
            if lane.size < lane.limit and ripe_at > now and not self._hurrying:
                return ripe_at, None
        elif batch.travelling:
            return never, None
        elif lane.retry_at > now:
            return lane.retry_at, None
        if not self._identify(lane):
            return never, None
        leader = self._cluster.leader_for_partition(lane.place)
        if leader is None or leader == -1:
            self._unknown(lane, leader, now)
            return now + _BACKOFF, None
        lane.unknown_since = None
        return never, leader

    def _identify(self, lane: Lane) -> bool:
        """Give a lane without one a producer ID that it has not used, asking for one where needed. False: not yet."""
        if lane.identity is not None:
            return True
        if self._identity is None or self._identity == lane.lost:
            if not self._asking:
                self._asking = True
                self._net.call_soon(self._ask_for_identity)
            return False
        lane.identity = self._identity
        lane.sequence = 0
        return True

    async def _ask_for_identity(self) -> None:
        try:
            request = InitProducerIdRequest(
                transactional_id=None, transaction_timeout_ms=0, producer_id=-1, producer_epoch=-1, max_version=4
            )
            answer = await self._client.manager.send(request)
            if answer.error_code:
                raise theirs.for_code(answer.error_code)()
            self._identity = Identity(answer.producer_id, answer.producer_epoch)
        except Exception as exc:
            if not is_passing(exc):
                error = translated(exc, "the cluster gives this client no producer ID", self._asked)
                with self._lock:
                    lanes = list(self._lanes.values())
                for lane in lanes:
                    if lane.identity is None and lane.place.partition >= 0:
                        self._abandon(lane, error)
            await self._net.sleep(_BACKOFF)
        finally:
            self._asking = False
            self._soon()

    def _dispatch(self, node: object, lanes: list[Lane], now: float) -> float:
        """Send what the lanes hold for this broker, and say when to look again."""
        if not self._client.is_ready(node):
            if self._client.connected(node):
                return now + _BUSY
            try:
                self._client.maybe_connect(node)
            except theirs.KafkaError:
                self._cluster.request_update()
            return now + _CONNECTING
        size = 0
        travelling: list[tuple[Lane, Batch]] = []
        # The lanes take turns at being first, so that none starves where a request cannot hold them all.
        lanes.sort(key=lambda lane: lane.batch.messages[0].at if lane.batch is not None else lane.queue[0].at)
        for lane in lanes:
            batch = lane.batch or self._pack(lane)
            if batch.data is None and not self._encoded(lane, batch):
                continue
            assert batch.data is not None
            if size and size + len(batch.data) > _REQUEST:
                break
            size += len(batch.data)
            batch.attempts += 1
            batch.travelling = True
            travelling.append((lane, batch))
        if travelling:
            try:
                future = self._client.manager.send(
                    produce_request(travelling, self._request_timeout, self._transactional_id), node_id=node
                )
            except Exception as exc:
                self._unanswered(travelling, exc)
            else:
                future.add_callback(lambda answer: self._answered(travelling, answer))
                future.add_errback(lambda exc: self._unanswered(travelling, exc))
        return now + (_LOOK if len(travelling) == len(lanes) else 0.0)

    def _pack(self, lane: Lane) -> Batch:
        with self._lock:
            queue = lane.queue
            messages = [queue.popleft()]
            size = messages[0].size
            latest = messages[0].at + self._spread
            while queue and size + queue[0].size <= lane.limit and queue[0].at <= latest:
                messages.append(queue.popleft())
                size += messages[-1].size
            lane.size -= size
            lane.batch = Batch(messages, messages[0].at + self._timeout)
        return lane.batch

    def _encoded(self, lane: Lane, batch: Batch) -> bool:
        """Put the batch into Kafka's form, without messages that have none: they are reported. False: none is left."""
        try:
            batch.data = encoded(lane, batch.messages, self._codec, transactional=self._transactional_id is not None)
        except Exception:
            good: list[Message] = []
            for message in batch.messages:
                try:
                    encoded(lane, [message], self._codec, transactional=self._transactional_id is not None)
                    good.append(message)
                except Exception as exc:
                    doing = f"a message for {lane.place.topic!r} could not be encoded"
                    self._finish([message], translated(exc, doing))
            lane.batch = None
            if not good or len(good) == len(batch.messages):
                self._finish(good, BrokerError(f"messages for {lane.place.topic!r} could not be encoded together"))
                return False
            batch.messages = good
            lane.batch = batch
            return self._encoded(lane, batch)
        return True

    def _answered(self, travelling: list[tuple[Lane, Batch]], answer: Any) -> None:
        verdicts = {
            TopicPartition(topic.name, verdict.index): verdict
            for topic in answer.responses
            for verdict in topic.partition_responses
        }
        for lane, batch in travelling:
            batch.travelling = False
            if lane.batch is not batch:
                continue  # it ran out of time meanwhile, and was reported
            verdict = verdicts.get(lane.place)
            if verdict is None:
                self._failed(lane, batch, theirs.RequestTimedOutError())
            elif verdict.error_code in (0, theirs.DuplicateSequenceNumberError.errno):
                lane.sequence = (lane.sequence + len(batch.messages)) % 2**31
                lane.batch = None
                self._finish(batch.messages, None)
            else:
                self._failed(lane, batch, theirs.for_code(verdict.error_code)(verdict.error_message))
        self._soon()

    def _unanswered(self, travelling: list[tuple[Lane, Batch]], exc: Exception) -> None:
        for lane, batch in travelling:
            batch.travelling = False
            if isinstance(exc, _UNSENT):
                batch.attempts -= 1
            if lane.batch is batch:
                self._failed(lane, batch, exc)
        self._soon()

    def _failed(self, lane: Lane, batch: Batch, exc: Exception) -> None:
        """Decide what becomes of a batch that was not acknowledged."""
        if isinstance(exc, theirs.InvalidMetadataError):
            self._cluster.request_update()
        if isinstance(exc, theirs.RetriableError):
            lane.retry_at = time.monotonic() + _BACKOFF
        elif isinstance(exc, _TOO_LARGE) and len(batch.messages) > 1 and batch.attempts == 1:
            # The topic takes less than we put together: from now on we put less together. (Where an earlier attempt may
            # have arrived, the same messages must not be sent in other batches: they fail below.)
            lane.limit = max(1, sum(message.size for message in batch.messages) // 2)
            self._unpack(lane, batch)
        elif isinstance(exc, _FORGOTTEN) and batch.attempts == 1:
            self._forget(lane)
            self._unpack(lane, batch)  # it certainly did not arrive
        else:
            if isinstance(exc, _FORGOTTEN) or batch.attempts > 1:
                self._forget(lane)  # an earlier attempt may have arrived
            lane.batch = None
            topic = lane.place.topic
            self._finish(batch.messages, self._translated(exc, topic))

    def _unpack(self, lane: Lane, batch: Batch) -> None:
        with self._lock:
            lane.batch = None
            lane.queue.extendleft(reversed(batch.messages))
            lane.size += sum(message.size for message in batch.messages)

    def _forget(self, lane: Lane) -> None:
        lane.lost, lane.identity = lane.identity, None

    def _abandon(self, lane: Lane, error: Exception) -> None:
        """Fail everything in the lane."""
        batch, lane.batch = lane.batch, None
        if batch is not None and batch.attempts:
            self._forget(lane)
        with self._lock:
            messages = (batch.messages if batch is not None else []) + list(lane.queue)
            lane.queue.clear()
            lane.size = 0
        self._finish(messages, error)

    def _too_late(self, lane: Lane) -> BrokerUnavailableError:
        return BrokerUnavailableError(
            f"topic {lane.place.topic!r} could not be written: no broker acknowledged it within {self._timeout:g} s"
            f"{self._client.manager.because()}"
        )

    def _finish(self, messages: Iterable[Message], error: Exception | None) -> None:
        rounds: dict[int, int] = {}
        for message in messages:
            try:
                message.on_done(error)
            except Exception:
                _log.exception("the end of a send could not be reported")
            rounds[message.round] = rounds.get(message.round, 0) + 1
        with self._lock:
            for number, count in rounds.items():
                self._unfinished[number] -= count
            self._lock.notify_all()


def _codec(compression: str | None) -> int:
    number, present = _CODECS[compression]
    if not present():
        raise SettingsError(f"compression={compression!r} needs a library that is not installed: use 'lz4' or 'zstd'")
    return number


def _connected(opening: Opening, connection: Connection, timeout: float) -> Client:
    client = opening(
        request_timeout_ms=round(timeout * 1000),
        max_in_flight_requests_per_connection=5,
        **settings_for(connection),
    )
    client._net.start()
    client.manager.bootstrap(settings_for(connection)["bootstrap_timeout_ms"])
    return client
