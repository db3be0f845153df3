"""Where it is kept which streams stay where they are, of topics that have grown: in Kafka, in a topic of our own.

The compacted topic ``__quixframes.placement`` has one partition. A message's key is the name of a topic and its value
that topic's :class:`~quixframes.placement.Placement` as JSON; or its key is a pin's, as ``pin_key`` makes it.

What this module holds to:

- A writer's knowledge is at most ``LEASE`` old when it places a stream that it has not open. Streams that it has open
  stay where they are, and cost nothing.
- A cluster on which no topic has grown has no such topic, and a look costs one question, at most every ``LEASE``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from quixframes.compacted import CompactedTopic
from quixframes.errors import AccessDeniedError, BrokerUnavailableError
from quixframes.kafka import Admin, Consumer, Producer, Record, TopicDescription
from quixframes.logs import Place
from quixframes.placement import Placement, PlacementLog, partition_of, pin

__all__ = ["LEASE", "PLACEMENT", "PlacementStore", "Placer"]

log = logging.getLogger(__name__)

PLACEMENT = "__quixframes.placement"
LEASE = 10.0
"""Seconds for which a writer may go by what it has read."""
_HEADER = ("qf.placement", b"1")
_LARGEST = 64 * 1024 * 1024  # bytes of one message: the streams of a topic, at some 2 bytes each


class PlacementStore:
    """The placements of a cluster's topics. Safe in any thread. The arguments are those of ``ContractStore``."""

    def __init__(
        self, admin: Callable[[], Admin], producer: Callable[[], Producer], consumer: Callable[[], Consumer]
    ) -> None:
        self._lock = threading.Lock()
        self._known = PlacementLog()
        settings = {"max.message.bytes": str(_LARGEST)}
        self._log = CompactedTopic(PLACEMENT, self._apply, self._reset, admin, producer, consumer, settings)

    def get(self, topic: str, topic_id: str) -> Placement | None:
        """The topic's placement; None where it never grew."""
        try:
            return self._look(topic, topic_id)
        except AccessDeniedError as exc:
            place = Place(topic)
            log.warning(
                "%s: it cannot be seen whether it has grown; its streams go by the partitions it has now: %s",
                place, exc, extra=place.extra,
            )  # fmt: skip
            return None

    def to_change(self, topic: str, topic_id: str) -> Placement | None:
        """The topic's placement for who is going to put another in its place.

        Raises:
            AccessDeniedError: the principal may not see what there is, or may not replace it.
        """
        self._log.check()
        return self._look(topic, topic_id)

    def _look(self, topic: str, topic_id: str) -> Placement | None:
        with self._lock:
            self._log.read()
            found = self._known.get(topic)
        return found if found is not None and found.topic_id == topic_id else None

    def put(self, topic: str, placement: Placement) -> Placement:
        """Keep a topic's placement; returns it with the pins that count."""
        return self._write(topic, topic.encode(), placement.to_json().encode())

    def pin(self, topic: str, key: bytes, placement: Placement) -> Placement:
        """Keep a stream where the count of before puts it, unless the topic is settled by now: what is returned says
        where it goes."""
        return self._write(topic, *pin(topic, key, placement))

    def _write(self, topic: str, key: bytes, value: bytes) -> Placement:
        with self._lock:
            self._log.write(key, value, _HEADER)
            found = self._known.get(topic)
        assert found is not None
        return found

    def _apply(self, record: Record) -> None:
        self._known.apply(record.key or b"", record.value)

    def _reset(self) -> None:
        self._known = PlacementLog()


class Placer:
    """Places the streams of one topic for a writer that has it open.

    Args:
        topic: as it was described before its placement is read here for the first time. (In the other order, a topic
            that grows in between would seem never to have grown.)
        store: tells whether it has grown.
    """

    def __init__(self, topic: TopicDescription, store: PlacementStore) -> None:
        self._topic = topic
        self._store = store
        self._placement = store.get(topic.name, topic.id)
        self._read_at = time.monotonic()

    def partition(self, stream_id: str) -> int:
        """The partition of a stream that is not open. One that cannot be kept where it was, since its topic grows at
        the moment, is pinned to it first."""
        key = stream_id.encode()
        if time.monotonic() - self._read_at > LEASE:
            self._read_at = time.monotonic()
            try:
                self._placement = self._store.get(self._topic.name, self._topic.id)
            except BrokerUnavailableError as exc:
                place = Place(self._topic.name)
                log.debug("%s: it could not be asked whether it has grown: %s", place, exc, extra=place.extra)
        if self._placement is None:
            return partition_of(key, self._topic.partitions)
        if self._placement.needs_pin(key):
            self._placement = self._store.pin(self._topic.name, key, self._placement)
        return self._placement.partition(key)
