"""Which messages a replay opens, by their headers alone. Pure.

What this module holds to: a message is skipped only where its headers say for sure that nothing of it was asked for.
What is not known of it is found out by reading it, and asked about again then.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import NamedTuple

from quixframes.batch import StreamReader
from quixframes.errors import SettingsError
from quixframes.glance import Glance, glance
from quixframes.kafka import Record
from quixframes.replay_asked import Asked
from quixframes.story import Story, StoryReader
from quixframes.wire import Kind, Message

__all__ = ["Choice", "Chosen", "Selector"]


class Choice(enum.Enum):
    """What is done with a message: it is opened, or skipped for one of these reasons."""

    OPEN = "open"
    STREAM = "stream"
    TIME = "time"
    KIND = "kind"


class Chosen(NamedTuple):
    """What is done with a message, and what its headers say; None where they do not say."""

    choice: Choice
    seen: Glance | None


class Selector:
    """Chooses messages. One for each reading; for the messages of each partition in their order.

    Args:
        asked: what is asked for.
        kinds: the kinds of messages to open.
        codec: whether messages of others may hold rows, of whatever stream.
    """

    def __init__(self, asked: Asked, kinds: Collection[Kind], *, codec: bool = False) -> None:
        self._streams = asked.streams
        self._times = asked.times
        self._kinds = frozenset(kinds)
        self._codec = codec
        self._stories = StoryReader()
        self._wanted: dict[tuple[str, str], tuple[Story, bool]] = {}
        # Whether the last rows or events of a stream were in the range: an end counts as at their time.
        self._in_range: dict[tuple[str, str], bool] = {}

    def choose(self, record: Record) -> Chosen:
        """What is done with a record."""
        seen = glance(record)
        if seen is None:
            return Chosen(self._unknown(record), None)
        return Chosen(self._choose(record, seen), seen)

    def wants(self, topic: str, message: Message) -> bool:
        """Whether a message that has been read is of a stream and of a kind that was asked for."""
        return message.kind in self._kinds and self._wants(topic, message.stream_id, message.story)

    def _unknown(self, record: Record) -> Choice:
        if self._codec or not self._streams.by_id:
            return Choice.OPEN
        try:
            stream_id = str(record.key or b"", "utf-8")
        except UnicodeDecodeError:
            return Choice.STREAM
        return Choice.OPEN if self._streams.has_id(stream_id) else Choice.STREAM

    def _choose(self, record: Record, seen: Glance) -> Choice:
        if not self._streams.has_id(seen.stream_id):
            return Choice.STREAM
        if self._streams.wants is not None:
            try:
                story = self._stories.read(seen.headers)
            except ValueError:
                return Choice.OPEN  # it is damaged: who reads it will say so
            if not self._wants(record.topic, seen.stream_id, story):
                return Choice.STREAM
        missed = not self._times.is_open and self._misses(record.topic, seen)
        if seen.kind not in self._kinds:
            return Choice.KIND
        return Choice.TIME if missed else Choice.OPEN

    def _misses(self, topic: str, seen: Glance) -> bool:
        key = topic, seen.stream_id
        if seen.kind is Kind.END:
            return not self._in_range.pop(key, False)
        if seen.kind is Kind.PROPERTIES:
            return False
        if seen.first is None or seen.last is None:
            self._in_range[key] = True
            return False
        self._in_range[key] = not self._times.misses(seen.last, seen.last)
        return self._times.misses(seen.first, seen.last)

    def _wants(self, topic: str, stream_id: str, story: Story) -> bool:
        if self._streams.wants is None:
            return self._streams.has_id(stream_id)
        known = self._wanted.get((topic, stream_id))
        if known is not None and known[0] is story:
            return known[1]
        said = self._streams.wants(StreamReader(topic, stream_id, story))
        if not isinstance(said, bool):
            raise SettingsError(f"the function of streams= has to return True or False, it returned {said!r:.80}")
        self._wanted[topic, stream_id] = story, said
        return said
