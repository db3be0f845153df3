"""Where reading is in each partition, and what librdkafka is told to read.

Where reading is, is counted here. What comes of a partition that is to be silent, or from before its position, is
dropped; whatever starts a partition again starts it from our count. So nothing hangs on what librdkafka still had in
its queues when it was told to pause or to seek.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping

from confluent_kafka import KafkaException, TopicPartition

from quixframes.confluent.records import Place
from quixframes.confluent.shared import Shared
from quixframes.kafka import Partition
from quixframes.logs import Place as LogPlace

__all__ = ["Reading"]

_log = logging.LoggerAdapter(logging.getLogger(__name__), LogPlace().extra)

_TURN = 0.2  # seconds that looking something up may wait for its turn


class Reading:
    """The partitions of one consumer. ``incremental``: whether they can be told to librdkafka one by one, as in no
    group, or in one that shares out only what changes."""

    def __init__(self, shared: Shared, *, incremental: bool) -> None:
        self._shared = shared
        self._incremental = incremental
        self.places: dict[tuple[str, int], Place] = {}

    def begin(self, positions: Mapping[Partition, int]) -> None:
        """Read these, and no others."""
        self.places = {partition: Place(offset, waiting=False) for partition, offset in positions.items()}
        self._shared.client.assign([TopicPartition(*partition, offset) for partition, offset in positions.items()])

    def add(self, partitions: Iterable[Partition]) -> None:
        """Take partitions on. Each is read when its position is given by ``seek``, and not before."""
        for partition in partitions:
            self.places[partition] = Place(0, waiting=True)
        # This ends the rebalance that they came with.
        if self._incremental:
            self._shared.client.incremental_assign([])
        else:
            self._shared.client.assign([])

    def leave(self, partitions: Iterable[Partition]) -> None:
        """Fetch nothing more of partitions that will go."""
        going = list(partitions)
        for partition in going:
            self.places[partition].leaving = True
        self._hush(going)

    def give_back(self, partitions: Iterable[Partition]) -> None:
        """Have them no longer. This lets the rebalance go on."""
        places = {partition: self.places.pop(partition, None) for partition in partitions}
        if self._incremental:
            known = [partition for partition, place in places.items() if place is not None and place.known]
            self._shared.client.incremental_unassign([TopicPartition(*partition) for partition in known])
        else:
            self._shared.client.unassign()

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from this offset."""
        place = self.places.get(partition)
        if place is None or place.leaving:
            return  # it was revoked since: the next poll says so
        place.position = offset
        place.waiting = False
        if not place.paused:
            self._start(partition, place)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Have these be silent."""
        ours = [partition for partition in partitions if partition in self.places]
        for partition in ours:
            self.places[partition].paused = True
        self._hush(ours)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """End a pause."""
        for partition in partitions:
            place = self.places.get(partition)
            if place is not None and place.paused:
                place.paused = False
                if not place.silent:
                    self._start(partition, place)

    def position(self, partition: Partition) -> int | None:
        """The offset after everything that was returned or passed over; None where the partition has gone, or waits for
        its position."""
        place = self.places.get(partition)
        return None if place is None or place.waiting else place.position

    def lag(self, partition: Partition) -> int | None:
        """How many offsets lie between the position and the end of the partition as the cluster told it last."""
        place = self.places.get(partition)
        if place is None or place.waiting:
            return None
        position = place.position
        if place.end == position and not place.silent:
            return 0  # what librdkafka says further down counts transactions that are open
        try:
            with self._shared.taken(_TURN) as client:
                _, end = client.get_watermark_offsets(TopicPartition(*partition), cached=True)
        except (KafkaException, TimeoutError):
            return None
        return max(0, end - position) if end >= 0 else None

    @property
    def audible(self) -> list[Partition]:
        """Those of which something may come."""
        return [Partition(*partition) for partition, place in self.places.items() if not place.silent]

    def _start(self, partition: Partition, place: Place) -> None:
        """Have librdkafka read a partition from our position on."""
        client = self._shared.client
        at = TopicPartition(*partition, place.position)
        if place.known and not place.stopped:
            try:
                client.seek(at)
                client.resume([at])
                return
            except KafkaException as exc:
                _log.debug("%s: a seek did not come off, so it is assigned anew: %s", partition, exc)
        # librdkafka does not move what it has stopped, or not begun.
        if self._incremental:
            if place.known:
                client.incremental_unassign([at])
            client.incremental_assign([at])
            place.known = True
        else:
            place.known = True
            self._assign_all()
        place.stopped = False
        client.resume([at])

    def _assign_all(self) -> None:
        """In a group that shares everything out anew each time, librdkafka takes nothing less."""
        known = {partition: place for partition, place in self.places.items() if place.known}
        self._shared.client.assign([TopicPartition(*partition, place.position) for partition, place in known.items()])
        self._hush(partition for partition, place in known.items() if place.silent)

    def _hush(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Have librdkafka fetch nothing of these. What it sends on all the same is dropped."""
        places = [TopicPartition(*partition) for partition in partitions if self.places[partition].known]
        if places:
            with contextlib.suppress(KafkaException):
                self._shared.client.pause(places)
