"""Whether a group has finished what was in its topics at a moment.

One instance alone cannot say: a partition on its way from one instance to another is nobody's, and instances that end
because their own partitions are read would leave that one unread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from quixframes.client import StreamingClient
from quixframes.ends import ends_now
from quixframes.kafka import Consumer, Partition
from quixframes.settings import ReaderSettings

__all__ = ["Remaining"]

_PEEK = 10.0  # seconds for a look at what follows the committed offsets


class Remaining:
    """What ``topics`` hold when it is made, and how far ``group`` has come with it."""

    def __init__(self, client: StreamingClient, topics: Iterable[str], group: str) -> None:
        self._client = client
        admin = client._get_admin()
        self._ends = {
            Partition(topic, n): end for topic in topics for n, end in ends_now(admin, topic).items() if end > 0
        }
        self._firsts = {
            Partition(topic, n): first for topic in {at.topic for at in self._ends} for n, first in
            admin.beginnings(topic).items()
        }  # fmt: skip
        self._group = client._transport.consumer(client.connection, ReaderSettings(), group=group)
        self._before: dict[Partition, int] | None = None

    def any(self) -> bool:
        """Whether there is a message in it that the group has not finished. Asked again and again: it looks closely
        once the group makes no progress."""
        committed = self._group.committed(self._ends.keys())
        behind = {
            at: max(self._firsts[at], offset.offset if (offset := committed.get(at)) is not None else 0)
            for at in self._ends
        }
        behind = {at: offset for at, offset in behind.items() if offset < self._ends[at]}
        if not behind:
            return False
        before, self._before = self._before, behind
        # Not all offsets are messages: transactions leave markers, compaction leaves gaps.
        return behind != before or self._holds_messages(behind)

    def _holds_messages(self, behind: dict[Partition, int]) -> bool:
        reader: Consumer = self._client._lone_consumer()
        try:
            reader.assign(behind)
            deadline = time.monotonic() + _PEEK
            while time.monotonic() < deadline:
                polled = reader.poll(0.1)
                if any(
                    record.offset < self._ends[Partition(record.topic, record.partition)] for record in polled.records
                ):
                    return True
                if all((reader.position(at) or 0) >= self._ends[at] for at in behind):
                    return False
            return True
        finally:
            reader.close(1.0)

    def close(self) -> None:
        """End."""
        self._group.close(1.0)
