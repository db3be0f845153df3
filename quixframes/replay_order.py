"""Messages of several partitions, merged by event time in bounded memory. Pure.

What this module holds to:

- Messages of one stream stay in the order in which they were written.
- Of the streams' next messages, the one with the earliest event time goes first. One without a time goes with the
  message of its stream before it.
- What is held is bounded: each partition may hold its share, and is to be read no further meanwhile. Nothing goes on
  before every partition has its share, or is through. So streams whose messages lie in a partition by time, or out of
  order by less than that share, come exactly by time; others as nearly as the share allows.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from quixframes.kafka import Partition

__all__ = ["TimeOrder"]

Item = TypeVar("Item")


class _Held(NamedTuple, Generic[Item]):
    at: Partition
    time: int | None
    nbytes: int
    item: Item


class TimeOrder(Generic[Item]):
    """Holds messages until it is their turn.

    >>> a, b = Partition("engine", 0), Partition("engine", 1)
    >>> order = TimeOrder([a, b], 1)
    >>> order.add(a, "car-1", 50, 1, "car 1 at 50")
    >>> list(order.due())
    []
    >>> order.add(b, "car-2", 20, 1, "car 2 at 20")
    >>> list(order.due())
    ['car 2 at 20']

    Args:
        partitions: those that are read.
        most: the bytes that all of them together may hold, but for one message or poll of each.
    """

    def __init__(self, partitions: Collection[Partition], most: int) -> None:
        self._share = max(1, most // max(1, len(partitions)))
        self._bytes = dict.fromkeys(partitions, 0)  # of partitions that are not through
        self._streams: dict[Hashable, deque[_Held[Item]]] = {}
        self._heads: list[
            tuple[int, int, Hashable]
        ] = []  # time, and how many came before, so that ties keep their order
        self._last: dict[Hashable, int] = {}
        self._count = 0

    def add(self, at: Partition, stream: Hashable, time: int | None, nbytes: int, item: Item) -> None:
        """Take in a message of a stream in a partition, with its event time if it has one."""
        held = self._streams.setdefault((at, stream), deque())
        if time is None:
            time = self._last.get((at, stream))
        else:
            self._last[at, stream] = time
        held.append(_Held(at, time, nbytes, item))
        if at in self._bytes:
            self._bytes[at] += nbytes
        if len(held) == 1:
            self._push((at, stream))

    def end(self, at: Partition) -> None:
        """Nothing more of this partition will come."""
        self._bytes.pop(at, None)

    @property
    def full(self) -> list[Partition]:
        """The partitions that hold their share; never all of those that are not through, once what is due is taken."""
        return [at for at, nbytes in self._bytes.items() if nbytes >= self._share]

    def due(self) -> Iterator[Item]:
        """Take out what may go on."""
        while self._heads and all(nbytes >= self._share for nbytes in self._bytes.values()):
            _, _, key = heapq.heappop(self._heads)
            held = self._streams[key]
            first = held.popleft()
            if held:
                self._push(key)
            else:
                del self._streams[key]
            if first.at in self._bytes:
                self._bytes[first.at] -= first.nbytes
            yield first.item

    def _push(self, key: Hashable) -> None:
        time = self._streams[key][0].time
        self._count += 1
        heapq.heappush(self._heads, (-(2**63) if time is None else time, self._count, key))
