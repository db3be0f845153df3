"""A part of a partition that retention removed before a reader came to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from quixframes.kafka import Partition

__all__ = ["RetentionGap"]


@dataclass(frozen=True, slots=True)
class RetentionGap:
    """What a reader that was away for longer than the topic keeps its rows has missed.

    Attributes:
        partition: where.
        wanted: the offset that was to be read next.
        first: the first that is retained. At or below ``wanted`` where the topic was made anew meanwhile.
        next: where reading goes on, as ``ReaderSettings.on_gone`` says.
    """

    partition: Partition
    wanted: int
    first: int
    next: int

    @property
    def messages(self) -> int:
        """About how many messages are gone: as many as offsets, of which transactions and compaction take some."""
        return max(0, self.first - self.wanted)

    @property
    def passed_over(self) -> int:
        """How many that are still there are not going to be read, since reading goes on at the end; by offsets."""
        return max(0, self.next - self.first)

    def __str__(self) -> str:
        if self.first <= self.wanted:
            return f"offset {self.wanted} is not in the topic (was it made anew?)"
        return (
            f"retention removed offsets {self.wanted} to {self.first - 1} (about {self.messages:,} messages) before "
            "they were read"
        )
