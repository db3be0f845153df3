"""Records as they are handed on, and what is known of each partition that is being read."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from quixframes.kafka import Partition

__all__ = ["Membership", "Place", "ReadRecord", "Statistics"]


class ReadRecord(NamedTuple):
    """A :class:`quixframes.kafka.Record`. confluent-kafka's own messages have methods in place of attributes."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Membership(NamedTuple):
    """A member of a group at one moment, for a producer that commits in its name."""

    group: str
    metadata: object  # librdkafka's: the generation, and who the member is
    owned: frozenset[tuple[str, int]]  # as far as the caller was told


class Place:
    """One partition that is assigned: where reading is, and why nothing is to come of it at the moment.

    ``waiting`` for its position; ``paused`` by the caller; ``leaving`` for another member. ``known`` to librdkafka are
    those that it was assigned; ``stopped`` are those of them that it has given up, and has to be assigned anew. ``end``
    is where the partition ended when reading last came there.
    """

    __slots__ = ("end", "known", "leaving", "paused", "position", "stopped", "waiting")

    def __init__(self, position: int, *, waiting: bool) -> None:
        self.position = position
        self.waiting = waiting
        self.paused = False
        self.leaving = False
        self.known = not waiting
        self.stopped = False
        self.end: int | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing is to come of it."""
        return self.waiting or self.paused or self.leaving


class Statistics:
    """Which brokers were heard of, and when: from what librdkafka counts, once a second. Given to it as
    ``stats_cb``."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}
        self._leaders: dict[tuple[str, int], int] = {}
        self._since = time.monotonic()

    def __call__(self, text: str) -> None:
        """Called in the client's ``poll``."""
        counts: dict[str, Any] = json.loads(text)
        now = time.monotonic()
        # librdkafka has a clock of its own, which says when it counted: the text may have waited for a poll.
        now -= max(0.0, time.time() - counts.get("time", 0)) if abs(time.time() - counts.get("time", 0)) < 60 else 0.0
        for broker in counts.get("brokers", {}).values():
            silence = broker.get("rxidle", -1)
            if silence >= 0 and broker.get("nodeid", -1) >= 0:
                self._heard[broker["nodeid"]] = now - silence / 1e6
        self._leaders = {
            (name, at["partition"]): at["leader"]
            for name, topic in counts.get("topics", {}).items()
            for at in topic.get("partitions", {}).values()
        }

    def leaders(self, partitions: Collection[Partition]) -> set[int]:
        """The brokers that have these partitions; none where no broker has any of them."""
        return {self._leaders.get(partition, -1) for partition in partitions} - {-1}

    def silence(self, brokers: Collection[int]) -> float:
        """Seconds since one of the brokers, or any at all where none is named, was last heard of."""
        heard = [at for broker, at in self._heard.items() if not brokers or broker in brokers]
        return time.monotonic() - max(heard, default=self._since)
