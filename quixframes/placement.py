"""Which partition a stream lives in, also after its topic was given more partitions. Pure.

A stream's partition follows from its ID and a count of partitions: murmur2, as Kafka's Java client has it. What this
module adds is which count that is, once there were several: the one that held when the stream came to be.

What it holds to:

- A stream is never moved by growth. Each time a topic grows, its record keeps the set of streams that live in it; they
  go by the count of before for good. Streams that come later go by the new one.
- The set is a Bloom filter, one to two bytes a stream. It has every stream that was put in; of others it claims a few,
  which then go by the old count as well: all of them in the same way, whoever asks, so that order is kept.
- Between the moment at which a topic grows and the one at which its set is known, a stream that a writer has not open
  goes by the old count, and a *pin* says so. Pins that came before the set count on until they are put into it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from quixframes.errors import SettingsError

__all__ = ["Era", "KeySet", "Placement", "PlacementLog", "partition_of", "pin"]

_MASK = 0xFFFFFFFF
_FACTOR = 0x5BD1E995
_SEED = 0x9747B28C


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, out of so many.

    >>> partition_of(b"car-44", 3)
    1
    """
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """Austin Appleby's hash of 32 bits."""
    length = len(data)
    value = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _FACTOR & _MASK
        word = (word ^ word >> 24) * _FACTOR & _MASK
        value = (value * _FACTOR & _MASK) ^ word
    if length > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * _FACTOR & _MASK
    value = (value ^ value >> 13) * _FACTOR & _MASK
    return value ^ value >> 15


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """A set of keys as a Bloom filter: it has every key that it was made of, and claims some 0.2 % of all others.

    >>> keys = KeySet.of([b"car-1", b"car-2"])
    >>> b"car-1" in keys, b"car-2" in keys
    (True, True)
    """

    bits: npt.NDArray[np.uint8]

    _BITS_PER_KEY = 13
    _HASHES = 9

    @classmethod
    def of(cls, keys: Iterable[bytes]) -> Self:
        """The set of these keys."""
        distinct = set(keys)
        made = cls(np.zeros(max(8, -(-len(distinct) * cls._BITS_PER_KEY // 8)), np.uint8))
        for key in distinct:
            places = made._places(key)
            np.bitwise_or.at(made.bits, places >> 3, (1 << (places & 7)).astype(np.uint8))
        return made

    def __contains__(self, key: bytes) -> bool:
        places = self._places(key)
        return bool((self.bits[places >> 3] >> (places & 7) & 1).all())

    def _places(self, key: bytes) -> npt.NDArray[np.int64]:
        """Two hashes make all of them (Kirsch and Mitzenmacher, "Less Hashing, Same Performance", 2006)."""
        digest = hashlib.blake2b(key, digest_size=8).digest()
        first, second = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little") | 1
        places: npt.NDArray[np.int64] = (first + np.arange(self._HASHES, dtype=np.int64) * second) % (
            len(self.bits) * 8
        )
        return places

    def to_text(self) -> str:
        """As text."""
        return base64.b64encode(zlib.compress(self.bits.tobytes())).decode()

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What :meth:`to_text` made."""
        return cls(np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8))


@dataclass(frozen=True, slots=True)
class Era:
    """A time in which a topic had so many partitions, and the streams that live by that count: those that were found in
    the topic; and those that were pinned, which are told exactly. Others are placed by the new count before these are
    known here, and must not be claimed afterwards."""

    partitions: int
    streams: KeySet | None = None
    pinned: frozenset[bytes] = frozenset()

    def __contains__(self, key: bytes) -> bool:
        return key in self.pinned or (self.streams is not None and key in self.streams)


@dataclass(frozen=True, slots=True)
class Placement:
    """How a topic's streams are placed.

    Attributes:
        topic_id: of the topic that it is about: one that was made anew under the same name has other streams.
        eras: those that are over, the oldest first; while the topic grows, the last one's set is not known yet.
        partitions: how many there are since.
        growing: whether the set of the last era is not known yet.
        folded: whether pins were put into the sets, and those that are still there count for nothing.
    """

    topic_id: str
    eras: tuple[Era, ...]
    partitions: int
    growing: bool = False
    folded: bool = False
    pins: frozenset[bytes] = field(default=frozenset(), compare=False)
    """Streams that go by the last era's count without being in its set."""

    def count(self, key: bytes) -> int:
        """The count of partitions by which a stream goes."""
        for era in self.eras:
            if key in era:
                return era.partitions
        if self.growing or key in self.pins:
            return self.eras[-1].partitions
        return self.partitions

    def partition(self, key: bytes) -> int:
        """The partition in which a stream lives."""
        return partition_of(key, self.count(key))

    def needs_pin(self, key: bytes) -> bool:
        """Whether a stream goes by the old count only because nobody knows yet whether it is an old one."""
        return self.growing and key not in self.pins and not any(key in era for era in self.eras)

    def grown(self, partitions: int) -> Placement:
        """The placement of the topic once it has begun to grow to so many."""
        return Placement(self.topic_id, (*self._folded(), Era(self.partitions)), partitions, growing=True)

    def settled(self, streams: Iterable[bytes]) -> Placement:
        """The placement once it is known which streams lived in the topic before it grew."""
        *before, last = self.eras
        found = KeySet.of(key for key in streams if not any(key in era for era in before))
        return replace(self, eras=(*before, replace(last, streams=found)), growing=False, pins=frozenset())

    def folded_up(self) -> Placement:
        """The same placement, once it needs no pins."""
        return replace(self, eras=self._folded(), folded=True, pins=frozenset())

    def _folded(self) -> tuple[Era, ...]:
        if not self.pins:
            return self.eras
        *before, last = self.eras
        return (*before, replace(last, pinned=last.pinned | self.pins))

    def to_json(self) -> str:
        """As text, without the pins, which are records of their own."""
        return json.dumps(
            {
                "version": 1,
                "topic_id": self.topic_id,
                "eras": [
                    {
                        "partitions": era.partitions,
                        "streams": None if era.streams is None else era.streams.to_text(),
                        "pinned": [base64.b64encode(key).decode() for key in sorted(era.pinned)],
                    }
                    for era in self.eras
                ],
                "partitions": self.partitions,
                "growing": self.growing,
                "folded": self.folded,
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """What :meth:`to_json` made.

        Raises:
            SettingsError: a later quixframes wrote it.
        """
        found: dict[str, Any] = json.loads(text)
        if found["version"] != 1:
            raise SettingsError("a later quixframes has written how the topic's streams are placed: upgrade this one")
        eras = (
            Era(
                era["partitions"],
                None if era["streams"] is None else KeySet.from_text(era["streams"]),
                frozenset(base64.b64decode(key) for key in era["pinned"]),
            )
            for era in found["eras"]
        )
        return cls(found["topic_id"], tuple(eras), found["partitions"], found["growing"], found["folded"])


def pin(topic: str, key: bytes, placement: Placement) -> tuple[bytes, bytes]:
    """A stream's pin as a record of the log, key and value: in which growth of the topic it was pinned. No topic's name
    has a zero byte."""
    return topic.encode() + b"\0" + key, b"%d" % len(placement.eras)


class PlacementLog:
    """The placements of a cluster's topics, as the records of their log make them, in the order of their offsets.

    Which of two things came first, a pin or the set that ended the need for it, is what the log's order says: so every
    writer sees it in the same way.
    """

    def __init__(self) -> None:
        self._placements: dict[str, Placement] = {}
        self._pins: dict[str, dict[bytes, int]] = {}  # each with the growth that it is of

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Take note of the next record."""
        name, zero, stream = key.partition(b"\0")
        topic = name.decode()
        pins = self._pins.setdefault(topic, {})
        if zero and value is not None:
            # Where the placement is not known yet, a later one has replaced it, which says what the pin counts for.
            if (placement := self._placements.get(topic)) is None or placement.growing:
                pins[stream] = int(value)
        elif value is not None:
            placement = self._placements[topic] = Placement.from_json(value)
            if placement.folded:
                pins.clear()

    def get(self, topic: str) -> Placement | None:
        """The topic's placement as far as the log was read; None where it never grew."""
        placement = self._placements.get(topic)
        if placement is None:
            return None
        growth = len(placement.eras)
        return replace(placement, pins=frozenset(key for key, of in self._pins[topic].items() if of == growth))
