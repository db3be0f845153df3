"""What a reader reads: topics by name or by pattern, and where it begins in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from quixframes.errors import SettingsError, TopicNotFoundError
from quixframes.kafka import Admin
from quixframes.settings import AutoOffsetReset

__all__ = ["OWN", "GivenTopics", "Start", "Subscription"]

GivenTopics = str | Iterable[str] | re.Pattern[str]
"""A topic, several, or a pattern that a topic's whole name has to match."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")
OWN = "__quixframes."
"""With this begin the names of topics that quixframes keeps for itself."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """The topics that a reader reads: those of these names, or all whose whole name matches the pattern."""

    names: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None

    @classmethod
    def of(cls, given: GivenTopics) -> Subscription:
        """What a user gave, as a subscription.

        Raises:
            SettingsError: it names no topic.
        """
        if isinstance(given, re.Pattern):
            return cls(pattern=given)
        names = (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
        if not names or not all(isinstance(name, str) and name for name in names):
            raise SettingsError(f"topic={given!r} has to be a topic's name, several, or a compiled re pattern")
        for name in names:
            if not _NAME.fullmatch(name):
                raise SettingsError(
                    f"topic={name!r} is no topic's name, which has letters, digits, '.', '_' and '-': for a pattern "
                    f"give re.compile({name!r})"
                )
        return cls(names)

    def __str__(self) -> str:
        return ", ".join(self.names) if self.pattern is None else f"/{self.pattern.pattern}/"

    def topics(self, admin: Admin) -> frozenset[str]:
        """The names of the topics, as the cluster has them now.

        Raises:
            TopicNotFoundError: no topic matches the pattern.
        """
        if self.pattern is None:
            return frozenset(self.names)
        found = frozenset(name for name in admin.topics() if self.pattern.fullmatch(name) and not name.startswith(OWN))
        if not found:
            raise TopicNotFoundError(f"no topic's name matches {self}", topic=str(self))
        return found


@dataclass(frozen=True, slots=True)
class Start:
    """Where a partition is read from that has no committed offset: a broker time, or what ``reset`` says."""

    reset: AutoOffsetReset
    timestamp_ms: int | None = None

    @property
    def is_earliest(self) -> bool:
        """Whether that is the first retained message."""
        return self.timestamp_ms is None and self.reset is AutoOffsetReset.Earliest

    def offsets(self, admin: Admin, topic: str) -> dict[int, int]:
        """The offset for each partition of a topic."""
        if self.timestamp_ms is not None:
            return admin.offsets_at(topic, self.timestamp_ms)
        return admin.beginnings(topic) if self.reset is AutoOffsetReset.Earliest else admin.ends(topic)
