"""Messages that cannot be processed, sent to a topic of their own with the reason.

What this module holds to:

- The message stays as it was: value, key and headers, to the byte and in their order. The reason follows them, in
  headers that are named as Kafka Streams names them (KIP-1034).
- A message counts as finished once the cluster has acknowledged its dead letter, and no sooner.
- A dead letter that could not be delivered is told, and tried again by the next loop.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence

from quixframes.assignment import Assignment
from quixframes.batch import Claim
from quixframes.errors import BrokerUnavailableError, ClosedError, DeadLetterError
from quixframes.kafka import Outgoing, Producer, Record, TopicDescription
from quixframes.logs import Place, Seldom
from quixframes.message_reader import number_of
from quixframes.output import InFlight

__all__ = [
    "EXCEPTION",
    "MESSAGE",
    "OFFSET",
    "PARTITION",
    "STACKTRACE",
    "TOPIC",
    "AnyHeaders",
    "DeadLetters",
    "LetterDesk",
    "dead_letter",
    "reason_headers",
    "size_of",
    "split_headers",
]

log = logging.getLogger(__name__)

EXCEPTION = "__streams.errors.exception"
MESSAGE = "__streams.errors.message"
STACKTRACE = "__streams.errors.stacktrace"
TOPIC = "__streams.errors.topic"
PARTITION = "__streams.errors.partition"
OFFSET = "__streams.errors.offset"
_REASONS = frozenset({EXCEPTION, MESSAGE, STACKTRACE, TOPIC, PARTITION, OFFSET})

AnyHeaders = Sequence[tuple[str, bytes | None]]

_LONGEST_MESSAGE = 2_000  # bytes of an error's text
_LONGEST_TRACE = 16_000
# What a message takes in its topic beside key, value and headers: Kafka's batch has 61 bytes of its own, a message some
# lengths, and so has each header.
_OVERHEAD = 128
_PER_HEADER = 10
_BESIDE_VALUE = 1_000  # in memory: the objects that hold it


# Pure


def reason_headers(record: Record, error: BaseException, room: int = _LONGEST_TRACE) -> list[tuple[str, bytes]]:
    """Why a message is a dead letter, and where it came from. The stack trace has as many bytes as ``room`` leaves."""
    kind = type(error)
    headers = [
        (EXCEPTION, f"{kind.__module__}.{kind.__qualname__}".encode()),
        (MESSAGE, _cut(str(error), _LONGEST_MESSAGE)),
        (STACKTRACE, b""),
        (TOPIC, record.topic.encode()),
        (PARTITION, b"%d" % record.partition),
        (OFFSET, b"%d" % record.offset),
    ]
    # Of a stack trace, the end says most.
    trace = "".join(traceback.format_exception(error)).encode(errors="backslashreplace")
    room = min(_LONGEST_TRACE, room - _size_of_headers(headers))
    headers[2] = STACKTRACE, trace[-room:].decode(errors="ignore").encode() if room > 0 else b""
    return headers


def split_headers(headers: AnyHeaders) -> tuple[list[tuple[str, bytes | None]], dict[str, str]]:
    """A dead letter's headers as those that the message had, and the reasons by name.

    The last of each name is the reason: a message may have been a dead letter before.
    """
    own: list[tuple[str, bytes | None]] = []
    reasons: dict[str, str] = {}
    for name, content in reversed(headers):
        if name in _REASONS and name not in reasons:
            reasons[name] = (content or b"").decode(errors="replace")
        else:
            own.append((name, content))
    return own[::-1], reasons


def dead_letter(record: Record, error: BaseException, topic: TopicDescription) -> Outgoing:
    """The message as a dead letter: by its key, or without one in the partition of the same number."""
    room = topic.message_limit - size_of(record.key, record.value, record.headers)
    headers = [*record.headers, *reason_headers(record, error, room)]
    partition = record.partition % topic.partitions if record.key is None else None
    return Outgoing(topic.name, record.key, record.value, headers, partition)


def size_of(key: bytes | None, value: bytes | None, headers: AnyHeaders) -> int:
    """The bytes that a message takes in its topic, at most."""
    return len(key or b"") + len(value or b"") + _size_of_headers(headers) + _OVERHEAD


def _size_of_headers(headers: AnyHeaders) -> int:
    return sum(len(name.encode()) + len(content or b"") + _PER_HEADER for name, content in headers)


def _cut(text: str, most: int) -> bytes:
    return text.encode(errors="backslashreplace")[:most].decode(errors="ignore").encode()


# Sending


class DeadLetters:
    """Sends messages to a dead-letter topic.

    Args:
        topic: the dead-letter topic.
        producer: says what sends them.
        in_flight: bounds the bytes that are sent and not acknowledged.
    """

    def __init__(self, topic: TopicDescription, producer: Callable[[], Producer], in_flight: InFlight) -> None:
        self.topic = topic.name
        self.limit = topic.message_limit
        self._description = topic
        self._producer = producer
        self._in_flight = in_flight
        self._changed = threading.Condition()
        self._pending = 0
        self._failures: list[DeadLetterError] = []
        self.delivered = 0
        self.told = Seldom(log, f"{{:,}} messages were sent to the dead-letter topic {self.topic}")

    def send(
        self,
        record: Record,
        error: BaseException,
        finished: Callable[[Exception | None], None],
        given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Send a message, with the error that makes it a dead letter; waits while too much is in flight.

        Args:
            record: the message.
            error: why it cannot be processed.
            finished: told None once the cluster has acknowledged it, or why it could not be delivered; on the
                producer's thread, so it has to be quick. The failure is told by :meth:`raise_failures` as well.
            given_up: asked now and then while it waits: True ends the waiting. What it raises goes on.

        Raises:
            ClosedError: it was given up, or the client was closed. ``finished`` is not told.
        """
        letter = dead_letter(record, error, self._description)
        size = size_of(letter.key, letter.value, letter.headers) + _BESIDE_VALUE
        if not self._in_flight.acquire(size, given_up):
            raise ClosedError(f"reading ended before there was room to send a message to topic {self.topic!r}")

        def on_done(failure: Exception | None) -> None:
            self._in_flight.release(size)
            try:
                finished(failure)
            finally:
                self._count(None if failure is None else self._failure(record, error, failure))

        with self._changed:
            self._pending += 1
        try:
            self._producer().send(letter, on_done)
        except BaseException:
            self._in_flight.release(size)
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()
            raise
        text = f"sent to the dead-letter topic {self.topic}: {error}"
        place = Place(record.topic, record.partition, record.offset, number_of(record)[0] or None)
        self.told.note(text, place, time.monotonic())

    def flush(self, timeout: float) -> bool:
        """Wait until everything sent is acknowledged or has failed; False where ``timeout`` came first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending, timeout)

    @property
    def settled(self) -> bool:
        """Whether everything sent is acknowledged, and every failure was told."""
        with self._changed:
            return not self._pending and not self._failures

    def raise_failures(self) -> None:
        """Raise what could not be delivered and was not told yet.

        Raises:
            DeadLetterError: the first of them.
        """
        if not self._failures:
            return
        with self._changed:
            failures, self._failures = self._failures, []
        if failures:
            for other in failures[1:]:
                log.error("%s", other, extra=Place.of(other).extra)
            raise failures[0]

    def _count(self, failure: DeadLetterError | None) -> None:
        with self._changed:
            self._pending -= 1
            if failure is None:
                self.delivered += 1
            else:
                self._failures.append(failure)
            self._changed.notify_all()

    def _failure(self, record: Record, error: BaseException, cause: Exception) -> DeadLetterError:
        failure = DeadLetterError(
            f"{record.topic}[{record.partition}]@{record.offset}: this message could not be processed, and not be "
            f"delivered to the dead-letter topic {self.topic!r} either, so it is not committed and comes again: "
            f"{cause} (it could not be processed because: {error})",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )
        failure.__cause__ = cause
        return failure


class LetterDesk:
    """The dead letters of one input topic: what is finished by them in its partitions' ledgers.

    Args:
        letters: the dead-letter topic.
        lock: guards the ledgers.
        given_up: see :meth:`DeadLetters.send`.
    """

    def __init__(self, letters: DeadLetters, lock: threading.RLock, given_up: Callable[[], bool]) -> None:
        self._letters = letters
        self._lock = lock
        self._given_up = given_up
        self._finished = 0
        self.sent = 0
        """How many messages and batches were sent there."""
        self._failed: deque[tuple[Assignment, Record, BaseException]] = deque()
        self.told = letters.told
        self.flush = letters.flush
        self.raise_failures = letters.raise_failures

    @property
    def delivered(self) -> int:
        """How many dead letters the cluster has acknowledged."""
        return self._letters.delivered

    @property
    def limit(self) -> int:
        """The largest message that the dead-letter topic takes."""
        return self._letters.limit

    @property
    def settled(self) -> bool:
        """Whether everything sent is acknowledged, and every failure was told."""
        return self._letters.settled

    def send(self, assignment: Assignment, record: Record, error: BaseException) -> None:
        """Send a message that its ledger has as one row. The row is finished when the cluster has acknowledged it."""

        def finished(failure: Exception | None) -> None:
            if failure is not None:
                self._failed.append((assignment, record, error))
            else:
                with self._lock:
                    if assignment.owned:
                        assignment.account.dead_lettered += assignment.finish([(record.offset, 0, 1)])
                        self._finished += 1

        self.sent += 1
        self._letters.send(record, error, finished, self._given_up)

    def reject(self, claim: Claim, records: Sequence[Record], error: BaseException, timeout: float) -> None:
        """Send the rows of a batch that could not be processed, and wait until the cluster has them: then they are
        finished.

        Raises:
            DeadLetterError: some were not delivered. None is finished, so all of them come again.
            BrokerUnavailableError: the timeout came first. The same holds.
        """
        failures: list[Exception] = []

        def finished(failure: Exception | None) -> None:
            if failure is not None:
                failures.append(failure)

        self.sent += 1
        for record in records:
            self._letters.send(record, error, finished, self._given_up)
        if not self._letters.flush(timeout):
            raise BrokerUnavailableError(
                f"not every dead letter was acknowledged by topic {self._letters.topic!r} within {timeout:g} s"
            )
        if failures:
            self._letters.raise_failures()
        with self._lock:
            if claim.assignment.owned:
                claim.finish_dead()
                self._finished += claim.rows

    def send_again(self) -> None:
        """Send once more what could not be delivered, as far as it is still ours."""
        for _ in range(len(self._failed)):
            if self._failed[0][0].owned:
                self.send(*self._failed[0])
            self._failed.popleft()

    def forget(self) -> None:
        """What failed is not to be told, nor sent again: its rows come again."""
        with contextlib.suppress(DeadLetterError):
            self._letters.raise_failures()
        self._failed.clear()

    def take_finished(self) -> int:
        """How many messages dead letters have finished since the last call, which are to be committed."""
        with self._lock:
            finished, self._finished = self._finished, 0
        return finished
