"""Giving a topic more partitions without moving a stream.

What it does, in this order; should it end in the middle, calling it again goes on from there:

1. It is written down that the topic grows. From here on a writer that learns of it keeps streams that are new to it by
   the old count, and pins them.
2. Kafka adds the partitions.
3. It waits until every writer has learned of it, and until what they wrote before is in the topic.
4. It reads which streams there are, and writes that down: these stay, all others go by the new count.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from dataclasses import dataclass

from tqdm.auto import tqdm

from quixframes.bounded import read_range
from quixframes.errors import SettingsError
from quixframes.kafka import Admin, Consumer
from quixframes.placement import Placement, partition_of
from quixframes.placement_store import LEASE, PlacementStore

__all__ = ["Growth", "grow"]


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of a topic that was given more partitions.

    Attributes:
        topic: its name.
        before, after: how many partitions it had, and has.
        streams: how many streams were in it, all of which stay in their partitions.
        would_have_moved: how many of these any other Kafka writer would have moved to another partition.
        seconds: how long it took.
    """

    topic: str
    before: int
    after: int
    streams: int
    would_have_moved: int
    seconds: float

    def __str__(self) -> str:
        if self.before == self.after:
            return f"topic {self.topic!r} has {self.after} partitions already"
        return (
            f"topic {self.topic!r} has {self.after} partitions, {self.after - self.before} more than before. Its "
            f"{self.streams:,} streams stay where they are ({self.would_have_moved:,} would have moved); those that "
            f"come from now on are spread over all {self.after} ({self.seconds:,.1f} s)"
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"


def grow(
    topic: str,
    to: int,
    admin: Admin,
    store: PlacementStore,
    consumer: Callable[[], Consumer],
    *,
    settle: float,
    progress: bool,
) -> Growth:
    """Give a topic so many partitions.

    Args:
        topic: its name.
        to: how many it is to have.
        admin, store: the client's.
        consumer: makes a consumer of no group.
        settle: seconds by which what any writer has accepted is in the topic, or has failed.
        progress: whether a bar shows how far it is.

    Raises:
        SettingsError: they would be fewer than there are.
        TopicNotFoundError: there is no such topic.
    """
    begun = time.monotonic()
    found = admin.describe(topic, to="alter")
    placement = store.get(topic, found.id)
    if placement is None:
        placement = Placement(found.id, (), found.partitions)
    if to < placement.partitions:
        raise SettingsError(
            f"topic {topic!r} has {placement.partitions} partitions, and Kafka cannot take any away: make another "
            f"topic with {to}, and load what is in this one into it"
        )
    before = placement.eras[-1].partitions if placement.growing else placement.partitions
    streams: set[bytes] = set()
    while placement.growing or placement.partitions < to:
        if not placement.growing:
            placement = store.put(topic, placement.grown(to))
        if admin.describe(topic).partitions < placement.partitions:
            admin.add_partitions(topic, placement.partitions)
        _wait(LEASE + settle, topic, progress)
        streams = _keys(topic, placement.eras[-1].partitions, admin, consumer, progress)
        placement = store.put(topic, placement.settled(streams))
        streams |= placement.pins
        placement = store.put(topic, placement.folded_up())
    moved = sum(placement.partition(key) != partition_of(key, placement.partitions) for key in streams)
    return Growth(topic, before, placement.partitions, len(streams), moved, time.monotonic() - begun)


def _wait(seconds: float, topic: str, progress: bool) -> None:
    end = time.monotonic() + seconds
    with tqdm(total=round(seconds, 1), desc=f"{topic}: its writers learn of it", unit="s", disable=not progress) as bar:
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(0.5, left))
            bar.update(round(min(seconds, seconds - left) - bar.n, 1))


def _keys(topic: str, partitions: int, admin: Admin, consumer: Callable[[], Consumer], progress: bool) -> set[bytes]:
    """The keys of what is retained in the first so many partitions."""
    begin = {n: offset for n, offset in admin.beginnings(topic).items() if n < partitions}
    end = {n: offset for n, offset in admin.ends(topic).items() if n < partitions}
    found: set[bytes] = set()
    reader = consumer()
    bar = tqdm(
        total=sum(end.values()) - sum(begin.values()), desc=f"{topic}: its streams", unit="msg", disable=not progress
    )
    try:
        at = dict(begin)
        for step in read_range(reader, topic, begin, end):
            found.update(record.key for record in step.records if record.key is not None)
            bar.update(sum(position - at[n] for n, position in step.positions.items()))
            at |= step.positions
    finally:
        bar.close()
        reader.close(5.0)
    return found
