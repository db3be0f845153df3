"""What a campaign sees of its cluster, and does to it, through an admin client of its own: plain kafka-python."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

__all__ = ["OFFSETS", "Eyes", "partition_of_group", "wait_for"]

OFFSETS = "__consumer_offsets"
Result = TypeVar("Result")


class Eyes:
    """Looks at a cluster. For one thread; a look that failed is tried again with a new client, until ``patience``."""

    def __init__(self, address: str, patience: float = 30.0) -> None:
        self._address = address
        self._patience = patience
        self._admin: KafkaAdminClient | None = None

    def __enter__(self) -> Eyes:
        return self

    def __exit__(self, *exc: object) -> None:
        self._forget()

    def leaders(self, topic: str) -> dict[int, int]:
        """The broker that leads each partition; -1 for none."""
        return {number: found["leader_id"] for number, found in self._partitions(topic).items()}

    def in_sync(self, *topics: str) -> bool:
        """Whether every partition has a leader and all its replicas."""
        return all(
            found["leader_id"] >= 0 and len(found["isr_nodes"]) == len(found["replica_nodes"])
            for topic in topics
            for found in self._partitions(topic).values()
        )

    def coordinator(self, group: str) -> int:
        """The broker that coordinates the group: the leader of the partition with its offsets."""
        leaders = self.leaders(OFFSETS)
        return leaders[partition_of_group(group, len(leaders))]

    def controller(self) -> int:
        """The broker that is the active controller."""
        return int(
            self._look(lambda admin: admin.describe_metadata_quorum())["topics"][0]["partitions"][0]["leader_id"]
        )

    def move_leader(self, topic: str, partition: int, to: int | None = None) -> str:
        """Have another in-sync replica lead the partition: this one, or any other."""
        found = self._partitions(topic)[partition]
        replicas, leader = found["replica_nodes"], found["leader_id"]
        successor = next(node for node in found["isr_nodes"] if node != leader) if to is None else to
        order = [successor] + [node for node in replicas if node != successor]
        place = TopicPartition(topic, partition)
        self._look(lambda admin: admin.alter_partition_reassignments({place: order}))
        # The first replica is the preferred leader. That it leads already is an error, too.
        self._look(lambda admin: admin.elect_leaders(0, {topic: [partition]}, raise_errors=False))
        return f"{topic}[{partition}] from broker {leader} to {successor}"

    def ends(self, topic: str, partitions: int) -> dict[int, int]:
        """The offset after the last row of each partition."""
        wanted = {TopicPartition(topic, number): OffsetSpec.LATEST for number in range(partitions)}
        found = self._look(lambda admin: admin.list_partition_offsets(wanted))
        return {place.partition: offset.offset for place, offset in found.items()}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """What the group has committed, as far as it has."""
        found = self._look(lambda admin: admin.list_group_offsets({group: None}))[group]
        return {place.partition: offset.offset for place, offset in found.items() if place.topic == topic}

    def _partitions(self, topic: str) -> dict[int, dict[str, Any]]:
        (found,) = self._look(lambda admin: admin.describe_topics([topic]))
        return {partition["partition_index"]: partition for partition in found["partitions"]}

    def _look(self, look: Callable[[KafkaAdminClient], Result]) -> Result:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                if self._admin is None:
                    self._admin = KafkaAdminClient(
                        bootstrap_servers=self._address.split(","),
                        request_timeout_ms=3_000,
                        reconnect_backoff_max_ms=300,
                        bootstrap_timeout_ms=5_000,
                    )
                return look(self._admin)
            except (KafkaError, OSError, KeyError, IndexError, ValueError, RuntimeError) as exc:
                # Whatever it was, a cluster with a broker away answers again in a moment.
                self._forget()
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the cluster has not answered for {self._patience:g} s: {exc!r}") from exc
                time.sleep(0.2)

    def _forget(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            # A client that could not look cannot always take its leave either.
            with contextlib.suppress(KafkaError, OSError, RuntimeError):
                admin.close()


def partition_of_group(group: str, partitions: int) -> int:
    """The partition of the offsets' topic that has this group: Java's hash of its name."""
    number = 0
    for character in group:
        number = (31 * number + ord(character)) & 0xFFFFFFFF
    return (number & 0x7FFFFFFF) % partitions


def wait_for(condition: Callable[[], bool], timeout: float, what: str, step: float = 0.1) -> float:
    """Wait for it; how long that took, in seconds. TimeoutError, with ``what``, when it takes longer."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(step)
    return time.monotonic() - begun
