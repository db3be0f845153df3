"""How quixframes logs: by the standard library, under ``quixframes``, each record with the place that it is about.

What this module holds to:

- Every record has the attributes ``topic``, ``partition``, ``offset`` and ``stream_id``, None where one is no matter of
  it, so that a formatter or filter can ask for them without a look whether they are there.
- What may come with every message is logged at DEBUG each time, and as a warning once a second at most.
- Levels: ERROR, something was lost that the program is told of nowhere else; WARNING, somebody may have to do
  something; INFO, what an instance goes through (partitions that come and go), never by message; DEBUG, each message.
- Only loggers under ``quixframes`` are used, and none is configured: that is the program's.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Self

__all__ = ["Place", "Seldom"]


@dataclass(frozen=True, slots=True)
class Place:
    """What a log record is about.

    >>> print(Place("engine", 0, 17, "car-44"))
    engine[0]@17, stream 'car-44'
    >>> print(Place("engine"))
    topic engine
    """

    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    stream_id: str | None = None

    @classmethod
    def of(cls, told: object, topic: str | None = None) -> Self:
        """The place that an error, a record or a fault names; its topic where it names none."""
        return cls(
            getattr(told, "topic", None) or topic,
            getattr(told, "partition", None),
            getattr(told, "offset", None),
            getattr(told, "stream_id", None),
        )

    @property
    def extra(self) -> dict[str, object]:
        """For ``log.warning(..., extra=place.extra)``."""
        return asdict(self)

    def __str__(self) -> str:
        parts = []
        if self.topic is not None and self.partition is None:
            parts.append(f"topic {self.topic}")
        elif self.topic is not None:
            parts.append(f"{self.topic}[{self.partition}]" + ("" if self.offset is None else f"@{self.offset}"))
        if self.stream_id is not None:
            parts.append(f"stream {self.stream_id!r}")
        return ", ".join(parts)


class Seldom:
    """Tells of what may come with every message: each at DEBUG, and once a second at most as a warning that says how
    many there were. The first is told at once.

    Args:
        log: where to.
        many: how several are told, as in "{:,} messages were skipped".
        every: seconds from one warning to the next.
    """

    def __init__(self, log: logging.Logger, many: str, every: float = 1.0) -> None:
        self._log = log
        self._many = many
        self._every = every
        self._next = float("-inf")
        self._count = 0
        self._last: tuple[object, Place] = ("", Place())

    def note(self, text: object, place: Place, now: float) -> None:
        """One came, at a moment in seconds of a steady clock; ``str(text)`` tells it."""
        self._log.debug("%s", text, extra=place.extra)
        self._count += 1
        self._last = text, place
        self.tell(now)

    def tell(self, now: float) -> None:
        """Tell of those that were not told yet, if a second has passed; to be called now and then."""
        if self._count and now >= self._next:
            self._next = now + self._every
            self.tell_rest()

    def tell_rest(self) -> None:
        """Tell of those that were not told yet, since no more will come for now."""
        count, (text, place) = self._count, self._last
        self._count = 0
        if count == 1:
            self._log.warning("%s", text, extra=place.extra)
        elif count:
            self._log.warning("%s; the last: %s", self._many.format(count), text, extra=place.extra)
