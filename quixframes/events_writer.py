"""Events of a stream on their way to the topic: at once, after the rows that were written before them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from quixframes.errors import SettingsError
from quixframes.event_frames import Events, encode_events, event_row
from quixframes.story import EventDefinition, EventLevel
from quixframes.tags import checked_tags
from quixframes.writer_definitions import DefinitionsWriter

if TYPE_CHECKING:
    from quixframes.stream_writer import StreamWriter

__all__ = ["EventsWriter"]


class EventsWriter(DefinitionsWriter[EventDefinition]):
    """Events of a stream."""

    __slots__ = ("_default_tags",)

    def __init__(self, stream: StreamWriter) -> None:
        super().__init__(stream)
        self._default_tags: dict[str, str] = {}

    def write(
        self,
        event: str | Events,
        *,
        time: Any = None,
        value: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send events now, after the rows that the stream's buffer holds.

        Args:
            event: the ID of one event; or several as a DataFrame with a time index (or a column ``time``), ``id``,
                ``value`` and ``TAG__`` columns; or a dict, or a list of dicts, with these names and ``tags``.
            time: of one event given by its ID: a datetime, or an integer or timedelta since the stream's epoch.
                Default: now.
            value: of one event given by its ID; text.
            tags: of one event given by its ID: ``{"lap": "12"}``.

        Returns when they are accepted, not when they are acknowledged (see :meth:`OutputTopic.flush`).

        Raises:
            FrameError: the events cannot be carried exactly. None of them was sent.
            DeliveryError: an earlier write to this topic failed. None of these events was sent.

        >>> car.events.write("pit-stop", value="tyres", tags={"lap": "12"})                    # doctest: +SKIP
        """
        if isinstance(event, str):
            moment = pd.Timestamp.now("UTC") if time is None else time
            event = event_row(event, moment, value, tags or {})
        elif time is not None or value is not None or tags is not None:
            raise SettingsError("time=, value= and tags= are for one event given by its ID, as in write('pit-stop')")
        stream = self._stream
        with stream._lock:
            batch = encode_events(event, epoch=stream._epoch, default_tags=self._default_tags)
            stream._write_events(batch)

    def add_definition(
        self,
        id: str,
        name: str | None = None,
        description: str | None = None,
        *,
        level: EventLevel | str = EventLevel.Information,
        custom: Mapping[str, Any] | None = None,
        location: str | None = None,
    ) -> Self:
        """Say what an event is; see :class:`~quixframes.EventDefinition` for the arguments, and
        :meth:`ParametersWriter.add_definition`."""
        return self._define(
            EventDefinition(id, name, description, EventLevel.of(level), custom or {}, self._under_default(location))
        )

    @property
    def definitions(self) -> pd.DataFrame:
        """What was said of the events, as :attr:`StreamReader.events` has it."""
        return self._stream.story.events.definitions

    @property
    def default_tags(self) -> Mapping[str, str]:
        """Tags that each event gets that has none of that name. Assign a dict to change them."""
        return MappingProxyType(self._default_tags)

    @default_tags.setter
    def default_tags(self, tags: Mapping[str, str]) -> None:
        self._default_tags = checked_tags(tags)
