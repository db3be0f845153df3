"""Which lane a message takes: topics are looked up when they are first written to, and anew when they have gone."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import kafka.errors as theirs
from kafka import TopicPartition
from kafka.partitioner.default import murmur2
from kafka.protocol.metadata import MetadataRequest

from quixframes.errors import BrokerError, TopicNotFoundError
from quixframes.kafka_python.failures import is_passing, translated
from quixframes.kafka_python.lanes import Lane
from quixframes.kafka_python.network import Client
from quixframes.refusals import Asked

__all__ = ["Routes"]

_UNKNOWN = 2.0  # seconds that a topic may be unknown before its messages fail: it may just have been created
_PAUSE = 0.1  # seconds between two looks at it
_ROUTES = 100_000  # keys whose partition is remembered


class Routes:
    """The producer's lanes, by topic and key. The caller's threads and the IO thread use them: the lock guards them."""

    def __init__(self, client: Client, asked: Asked) -> None:
        self._client = client
        self._asked = asked
        self._net = client._net
        self._cluster = client.manager.cluster
        # Guarded by the lock:
        self._lock = threading.Condition(threading.Lock())
        self._lanes: dict[TopicPartition, Lane] = {}
        self._routes: dict[tuple[str, bytes | None], Lane] = {}  # by topic and key
        self._partitions: dict[str, int] = {}
        self._turn = 0  # of the messages without a key
        # The IO thread's:
        self._learning: set[str] = set()

    def _soon(self) -> None:
        """Look at all lanes."""
        raise NotImplementedError

    def _abandon(self, lane: Lane, error: Exception) -> None:
        """Fail everything in the lane."""
        raise NotImplementedError

    def _route(self, topic: str, key: bytes | None, partition: int | None) -> Lane:
        """The lane of a message. Called with the lock held.

        A partition count once seen is kept: a stream must not move to another partition.
        """
        count = self._partitions.get(topic)
        if count is None:
            number = -1  # until it is known, messages wait in a lane of the topic's own
        elif partition is not None:
            number = partition
        elif key is None:
            self._turn += 1
            number = self._turn % count
        else:
            number = (murmur2(key) & 0x7FFFFFFF) % count  # as Kafka's Java client has it
        place = TopicPartition(topic, number)
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = Lane(place)
        if count is not None and key is not None and partition is None:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            self._routes[topic, key] = lane
        return lane

    def _unknown(self, lane: Lane, leader: object, now: float) -> None:
        """The topic or partition is not in the metadata, or has no leader at the moment."""
        self._cluster.request_update()
        topic = lane.place.topic
        manager = self._client.manager
        if topic in self._cluster.unauthorized_topics:
            refusal = theirs.TopicAuthorizationFailedError(topic)
            self._drop(topic, self._translated(refusal, topic))
        elif leader is not None or not manager.fresh(now - 1.0):
            lane.unknown_since = None  # nobody says that it is gone
        elif topic not in manager.unknown_topics and self._cluster.partitions_for_topic(topic) is None:
            lane.unknown_since = None  # something else is wrong with it
        elif lane.unknown_since is None:
            lane.unknown_since = now
        elif now - lane.unknown_since > _UNKNOWN:
            error = TopicNotFoundError(f"topic {topic!r} is not there any more: it was deleted", topic=topic)
            if topic in manager.unknown_topics:
                self._drop(topic, error)
            else:  # it came back meanwhile, with fewer partitions
                self._reroute(topic)
                self._abandon(lane, error)

    def _drop(self, topic: str, error: Exception) -> None:
        """Fail everything for a topic, and learn about it anew when somebody next writes to it."""
        self._reroute(topic)
        # For a topic that is not there, kafka-python would ask ten times a second, for ever.
        self._cluster._topics.discard(topic)
        with self._lock:
            lanes = [lane for lane in self._lanes.values() if lane.place.topic == topic and lane.place.partition >= 0]
        for lane in lanes:
            self._abandon(lane, error)

    def _reroute(self, topic: str) -> None:
        with self._lock:
            self._partitions.pop(topic, None)  # should it come back, it may have another number of partitions
            self._routes = {route: to for route, to in self._routes.items() if route[0] != topic}

    def _translated(self, exc: Exception, topic: str) -> BrokerError:
        return translated(exc, f"topic {topic!r} cannot be written", replace(self._asked, topic=topic))

    def _learn(self, topic: str) -> None:
        if topic not in self._learning:
            self._learning.add(topic)
            self._net.call_soon(lambda: self._look_up(topic))

    async def _look_up(self, topic: str) -> None:
        """Find out how many partitions a topic has, then send its messages on their ways."""
        start = time.monotonic()
        waiting = self._lanes[TopicPartition(topic, -1)]
        request = MetadataRequest(
            topics=[MetadataRequest.MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False
        )
        try:
            while waiting.queue:
                try:
                    found = (await self._client.manager.send(request)).topics[0]
                    if not found.error_code:
                        await self._cluster.add_topic(topic)
                        self._set_off(waiting, len(found.partitions))
                        return
                    raise theirs.for_code(found.error_code)()
                except Exception as exc:
                    unknown = isinstance(exc, theirs.UnknownTopicOrPartitionError)
                    if not is_passing(exc) and not (unknown and time.monotonic() - start < _UNKNOWN):
                        self._cluster._topics.discard(topic)
                        self._abandon(waiting, self._translated(exc, topic))
                        return
                await self._net.sleep(_PAUSE)
        finally:
            self._learning.discard(topic)
            self._soon()

    def _set_off(self, waiting: Lane, partitions: int) -> None:
        topic = waiting.place.topic
        with self._lock:
            self._partitions[topic] = partitions
            for message in waiting.queue:
                lane = self._route(topic, message.key, message.partition)
                lane.queue.append(message)
                lane.size += message.size
            waiting.queue.clear()
            waiting.size = 0
