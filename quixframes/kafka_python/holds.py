"""Which partitions of a consumer are held back, by its owner's wish or for want of a position."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from kafka import KafkaConsumer, TopicPartition

from quixframes.kafka import Partition

__all__ = ["Holds"]


class Holds:
    """Pauses partitions of one consumer.

    Partitions come and go on the IO thread: the lock is that of kafka-python's assignment."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self._lock = consumer._subscription._lock
        self._paused: set[Partition] = set()
        self._waiting: set[Partition] = set()  # without a position: nothing is fetched until it is given by ``seek``

    def hold(self, partition: Partition) -> None:
        """Fetch nothing of a partition until its position is given."""
        with self._lock:
            if partition in self._consumer.assignment():
                self._waiting.add(partition)
                self._paused.discard(partition)
                self._consumer.pause(TopicPartition(*partition))

    def seek(self, partition: Partition, offset: int) -> None:
        """Give the position of a partition; nothing where it has gone."""
        place = TopicPartition(*partition)
        with self._lock:
            if place not in self._consumer.assignment():
                return  # it was revoked since: the next poll says so
            self._consumer.seek(place, offset)
            self._waiting.discard(partition)
            if partition not in self._paused:
                self._consumer.resume(place)

    def position(self, partition: Partition) -> int | None:
        """The position, unless the partition has gone or waits for it."""
        with self._lock:
            state = self._consumer._subscription.assignment.get(TopicPartition(*partition))
            if partition in self._waiting or state is None or state.position is None:
                return None
            return int(state.position.offset)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Fetch nothing of the partitions."""
        with self._lock:
            for partition in self._consumer.assignment().intersection(partitions):
                self._paused.add(Partition(*partition))
                self._consumer.pause(TopicPartition(*partition))

    def resume(self, partitions: Iterable[Partition]) -> None:
        """End a pause."""
        with self._lock:
            partitions = set(partitions)
            self._paused -= partitions
            for partition in self._consumer.assignment().intersection(partitions - self._waiting):
                self._consumer.resume(TopicPartition(*partition))

    def forget(self, partitions: Collection[Partition]) -> None:
        """The partitions have gone."""
        with self._lock:
            self._waiting.difference_update(partitions)
            self._paused.difference_update(partitions)

    def read(self) -> list[TopicPartition]:
        """The partitions of which something is fetched."""
        with self._lock:
            held = self._paused | self._waiting
            return [partition for partition in self._consumer.assignment() if partition not in held]
