"""Giving a topic more partitions without moving a stream.

What it does, in this order; should it end in the middle, calling it again goes on from there:

0. It sees that it may do all of it: without the record of which streams live where, they would move.
1. It is written down that the topic grows. From here on a writer that learns of it keeps streams that are new to it by
   the old count, and pins them.
2. Kafka adds the partitions.
3. It waits until every writer has learned of it, and until what they wrote before is in the topic.
4. It reads which streams there are, and writes that down: these stay, all others go by the new count.

What each partition may retain stays as it is: streams stay where they are, so a smaller part would take rows of theirs
at once. The topic as a whole may become larger by that, which is told.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from dataclasses import dataclass

from tqdm.auto import tqdm

from quixframes.bounded import read_range
from quixframes.errors import OffsetGoneError, SettingsError
from quixframes.kafka import Admin, Consumer, TopicDescription
from quixframes.placement import Placement, partition_of
from quixframes.placement_store import LEASE, PlacementStore
from quixframes.topic_spec import size_text

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
        size_before, size_after: what all partitions together may retain, in bytes, before and after: each keeps its
            part. None where there is no limit, or it may not be seen.
    """

    topic: str
    before: int
    after: int
    streams: int
    would_have_moved: int
    seconds: float
    size_before: int | None = None
    size_after: int | None = None

    def __str__(self) -> str:
        if self.before == self.after:
            return f"topic {self.topic!r} has {self.after} partitions already"
        told = (
            f"topic {self.topic!r} has {self.after} partitions, {self.after - self.before} more than before. Its "
            f"{self.streams:,} streams stay where they are ({self.would_have_moved:,} would have moved); those that "
            f"come from now on are spread over all {self.after} ({self.seconds:,.1f} s)"
        )
        if self.size_before is None or self.size_after is None:
            return told
        return (
            f"{told}. Each partition may retain as much as before, so the topic {size_text(self.size_after)} and not "
            f"{size_text(self.size_before)}: client.topics.alter({self.topic!r}, "
            f"retention_size={size_text(self.size_before)!r}) divides that anew, and takes rows of the streams that "
            "are there"
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
        AccessDeniedError: the principal may not change it, read it, or write down where its streams live. Nothing was
            changed.
    """
    begun = time.monotonic()
    found = _allowed(topic, admin)
    placement = store.to_change(topic, found.id)
    if placement is None:
        placement = Placement(found.id, (), found.partitions)
    if to < (most := max(placement.partitions, found.partitions)):
        raise SettingsError(
            f"topic {topic!r} has {most} partitions, and Kafka cannot take any away: make another "
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
    share = _share(topic, admin)
    before_and_after = (None, None) if share is None else (share * before, share * placement.partitions)
    took = time.monotonic() - begun
    return Growth(topic, before, placement.partitions, len(streams), moved, took, *before_and_after)


def _allowed(topic: str, admin: Admin) -> TopicDescription:
    found = admin.describe(topic, to="alter")
    admin.describe(topic, to="read")
    return found


def _share(topic: str, admin: Admin) -> int | None:
    """How many bytes each partition may retain, where a limit was set."""
    details = admin.details(topic)
    share = int(details.settings.get("retention.bytes", -1)) if "retention.bytes" in details.own else -1
    return share if share >= 0 else None


def _wait(seconds: float, topic: str, progress: bool) -> None:
    end = time.monotonic() + seconds
    with tqdm(total=round(seconds, 1), desc=f"{topic}: its writers learn of it", unit="s", disable=not progress) as bar:
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(0.5, left))
            bar.update(round(min(seconds, seconds - left) - bar.n, 1))


def _keys(topic: str, partitions: int, admin: Admin, consumer: Callable[[], Consumer], progress: bool) -> set[bytes]:
    """The keys of what is retained in the first so many partitions."""
    at = {n: offset for n, offset in admin.beginnings(topic).items() if n < partitions}
    end = {n: offset for n, offset in admin.ends(topic).items() if n < partitions}
    found: set[bytes] = set()
    reader = consumer()
    bar = tqdm(
        total=sum(end.values()) - sum(at.values()), desc=f"{topic}: its streams", unit="msg", disable=not progress
    )
    try:
        while True:
            try:
                for step in read_range(reader, topic, at, end):
                    found.update(record.key for record in step.records if record.key is not None)
                    bar.update(sum(position - at[n] for n, position in step.positions.items()))
                    at = {**at, **step.positions}
                return found
            except OffsetGoneError:  # retention goes on meanwhile; a stream without any row left may live anywhere
                first = admin.beginnings(topic)
                left = {n: min(max(offset, first[n]), end[n]) for n, offset in at.items()}
                if left == at:
                    raise
                at = left
    finally:
        bar.close()
        reader.close(5.0)
