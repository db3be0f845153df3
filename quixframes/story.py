"""What a stream says of itself: its properties, and the definitions of its parameters and events. Pure.

What this module holds to:

- A story is a value: a change makes a new one, so that a batch can keep the one that was true at its rows.
- It travels as the headers of every message of its stream (see ``docs/wire-format.md``), so whichever message a reader
  begins with tells all of it: late readers need no look back, and retention takes nothing away from them.
- Stories are equal where they tell the same, to the byte: JSON with sorted names. 1 and True are not the same.
- Nothing of it can be changed by who reads it: one story may be that of many batches and streams.
"""

from __future__ import annotations

import enum
import json
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
import pandas as pd

from quixframes.errors import SettingsError
from quixframes.json_object import JsonObject, checked_text
from quixframes.moments import moment

__all__ = [
    "DEFINITIONS",
    "PROPERTIES",
    "Bounds",
    "EventDefinition",
    "EventDefinitions",
    "EventLevel",
    "ParameterDefinition",
    "ParameterDefinitions",
    "Story",
    "StoryReader",
    "StreamProperties",
    "bounds_of",
    "location_under",
]

PROPERTIES, DEFINITIONS = "qf.properties", "qf.definitions"
KEPT = 4_000_000  # bytes that the stories which a reader keeps may take, more or less
FOR_ONE, FOR_BYTE = 1_000, 10  # bytes that a story takes, and what is made of a header for each byte of it

Bounds = tuple[float | None, float | None]
"""The least and the greatest value; None where a side is open."""


class EventLevel(enum.IntEnum):
    """How much an event matters; the higher, the more."""

    Trace = 0
    Debug = 1
    Information = 2
    Warning = 3
    Error = 4
    Critical = 5

    @classmethod
    def of(cls, value: EventLevel | str) -> EventLevel:
        """The member, or the one of that name in any case.

        >>> EventLevel.of("warning")
        <EventLevel.Warning: 3>

        Raises:
            SettingsError: where there is none.
        """
        if isinstance(value, cls):
            return value
        for member in cls:
            if isinstance(value, str) and member.name.lower() == value.lower():
                return member
        names = ", ".join(member.name.lower() for member in cls)
        raise SettingsError(f"level={value!r} has to be one of {names}")


LEVELS = {level.name.lower() for level in EventLevel}


@dataclass(frozen=True, slots=True)
class StreamProperties:
    """What a stream says of itself.

    Args:
        name: what people call it.
        location: where it belongs in a tree of sources, as "/fleet/north/van 3".
        metadata: anything else, as JSON has it: text, numbers, True, False, None, lists and dicts of these.
        parents: the IDs of the streams that it was made from.
        time_of_recording: when what it tells was recorded (UTC).

    >>> StreamProperties(name="Car 44", metadata={"tyres": "soft"}).name
    'Car 44'
    """

    name: str | None = None
    location: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    time_of_recording: pd.Timestamp | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "name", checked_text(self.name, "name"))
        put(self, "location", checked_text(self.location, "location"))
        put(self, "metadata", JsonObject(self.metadata, "metadata"))
        parents = (self.parents,) if isinstance(self.parents, str) else tuple(self.parents)
        put(self, "parents", tuple(str(checked_text(parent, "a parent")) for parent in parents))
        if self.time_of_recording is not None:
            put(self, "time_of_recording", moment(self.time_of_recording, "time_of_recording"))


@dataclass(frozen=True, slots=True)
class ParameterDefinition:
    """What a parameter is, for people and for plots.

    Args:
        id: the column's name.
        name: what people call it. Default: the ID.
        description: more about it.
        unit: of its values, as "km/h".
        range: the least and the greatest value that make sense; None leaves a side open.
        format: how a value is to be shown, as Python's format has it: ".1f".
        custom: custom properties, as JSON has them.
        location: where it belongs in a tree, as "/car/engine". Default: the root, "/".
    """

    id: str
    name: str | None = None
    description: str | None = None
    unit: str | None = None
    range: Bounds | None = None
    format: str | None = None
    custom: Mapping[str, Any] = field(default_factory=dict)
    location: str = "/"

    def __post_init__(self) -> None:
        _check_definition(self, ("unit", "format"))
        if self.range is not None:
            object.__setattr__(self, "range", bounds_of(self.range, f" of {self.id!r}"))


@dataclass(frozen=True, slots=True)
class EventDefinition:
    """What an event is.

    Args:
        id: the ID with which it is written.
        name: what people call it. Default: the ID.
        description: more about it.
        level: an :class:`EventLevel` or its name: "trace" to "critical". Default: "information".
        custom: custom properties, as JSON has them.
        location: where it belongs in a tree. Default: the root, "/".
    """

    id: str
    name: str | None = None
    description: str | None = None
    level: EventLevel = EventLevel.Information
    custom: Mapping[str, Any] = field(default_factory=dict)
    location: str = "/"

    def __post_init__(self) -> None:
        _check_definition(self, ())
        object.__setattr__(self, "level", EventLevel.of(self.level))


Definition = TypeVar("Definition", ParameterDefinition, EventDefinition)
Part = TypeVar("Part")


class _Definitions(Mapping[str, Definition]):
    """Definitions by ID, which do not change."""

    __slots__ = ("_found", "_text")

    def __init__(self, found: Mapping[str, Definition] | None = None) -> None:
        self._found: dict[str, Definition] = dict(found or {})
        self._text: str | None = None

    def __getitem__(self, key: str) -> Definition:
        return self._found[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def with_(self, definition: Definition) -> Self:
        """The same with one defined anew."""
        return type(self)({**self._found, definition.id: definition})

    @property
    def definitions(self) -> pd.DataFrame:
        """All of them, indexed by ID."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """All of them as JSON; made once, since a story tells them again whenever something else in it has changed."""
        if self._text is None:
            said = {key: _said(definition) for key, definition in self._found.items()}
            self._text = _json_text({key: {k: v for k, v in one.items() if k != "id"} for key, one in said.items()})
        return self._text

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(self._found) or 'none'}>"

    def _repr_html_(self) -> str:
        table: str = self.definitions._repr_html_()  # type: ignore[operator]
        return table


class ParameterDefinitions(_Definitions[ParameterDefinition]):
    """What a stream's parameters are, by ID."""

    @property
    def definitions(self) -> pd.DataFrame:
        """A DataFrame indexed by ID: name, description, unit, minimum, maximum, format, location, custom (a dict)."""
        rows = (
            (
                d.name or d.id,
                d.description,
                d.unit,
                *(d.range or (None, None)),
                d.format,
                d.location,
                dict(d.custom),
            )
            for d in self.values()
        )
        columns = ["name", "description", "unit", "minimum", "maximum", "format", "location", "custom"]
        return _frame(rows, columns, self).astype({"minimum": "float64", "maximum": "float64"})


class EventDefinitions(_Definitions[EventDefinition]):
    """What a stream's events are, by ID."""

    @property
    def definitions(self) -> pd.DataFrame:
        """A DataFrame indexed by ID: name, description, level (an ordered categorical), location, custom (a dict)."""
        rows = ((d.name or d.id, d.description, d.level.name, d.location, dict(d.custom)) for d in self.values())
        frame = _frame(rows, ["name", "description", "level", "location", "custom"], self)
        return frame.astype({"level": pd.CategoricalDtype([level.name for level in EventLevel], ordered=True)})


@dataclass(frozen=True, eq=False)
class Story:
    """All that a stream says of itself at one moment.

    >>> story = Story().with_parameter(ParameterDefinition("speed", unit="km/h", range=(0, 400)))
    >>> Story.of(dict(story.headers)) == story
    True
    """

    properties: StreamProperties = field(default_factory=StreamProperties)
    parameters: ParameterDefinitions = field(default_factory=ParameterDefinitions)
    events: EventDefinitions = field(default_factory=EventDefinitions)

    def with_properties(self, **changes: Any) -> Story:
        """The same with other properties."""
        return replace(self, properties=replace(self.properties, **changes))

    def with_parameter(self, definition: ParameterDefinition) -> Story:
        """The same with one parameter defined anew."""
        return replace(self, parameters=self.parameters.with_(definition))

    def with_event(self, definition: EventDefinition) -> Story:
        """The same with one event defined anew."""
        return replace(self, events=self.events.with_(definition))

    @cached_property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """The headers that tell it; none where there is nothing to tell."""
        found = []
        if said := _said(self.properties):
            found.append((PROPERTIES, _json_text(said).encode()))
        definitions = (("events", self.events), ("parameters", self.parameters))
        if texts := [f'"{kind}":{several.text}' for kind, several in definitions if several]:
            found.append((DEFINITIONS, f"{{{','.join(texts)}}}".encode()))
        return tuple(found)

    @cached_property
    def nbytes(self) -> int:
        """The bytes that it adds to each message."""
        return sum(len(name) + len(value) + 8 for name, value in self.headers)

    @classmethod
    def of(cls, headers: Mapping[str, bytes | None]) -> Story:
        """The story that headers tell. What they have beyond what is known here is passed over.

        Raises:
            ValueError: they are broken.
        """
        return cls(_properties_of(headers.get(PROPERTIES)), *_definitions_of(headers.get(DEFINITIONS)))

    def _texts(self) -> tuple[str, str, str]:
        # Not the headers: they would stay with each of the many stories that a reader keeps.
        return _json_text(_said(self.properties)), self.parameters.text, self.events.text

    def __eq__(self, other: object) -> bool:
        return self._texts() == other._texts() if isinstance(other, Story) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._texts())


class StoryReader:
    """Reads stories from headers. One for each reader of messages; for one thread at a time.

    Of equal headers it makes one object, so that it can be seen by identity that nothing has changed; each of the two
    is read by itself, since most changes are of a property beside many definitions. What it keeps is bounded.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._properties: dict[bytes | None, StreamProperties] = {}
        self._definitions: dict[bytes | None, tuple[ParameterDefinitions, EventDefinitions]] = {}
        self._stories: dict[tuple[int, int], Story] = {}  # by the ids of both
        self._nbytes = 0

    def read(self, headers: Mapping[str, bytes | None]) -> Story:
        """The story that headers tell.

        Raises:
            ValueError: they are broken.
        """
        if self._nbytes > KEPT:
            self._forget()
        properties = self._part(self._properties, headers.get(PROPERTIES), _properties_of)
        definitions = self._part(self._definitions, headers.get(DEFINITIONS), _definitions_of)
        key = id(properties), id(definitions)
        story = self._stories.get(key)
        if story is None:
            story = self._stories[key] = Story(properties, *definitions)
            self._nbytes += FOR_ONE
        return story

    def _part(self, kept: dict[bytes | None, Part], header: bytes | None, read: Callable[[bytes | None], Part]) -> Part:
        found = kept.get(header)
        if found is None:
            found = kept[header] = read(header)
            self._nbytes += FOR_BYTE * len(header or b"")
        return found


def bounds_of(given: Any, of: str = "") -> Bounds:
    """A range as people write it.

    >>> bounds_of((0, 400)), bounds_of([0, None])
    ((0, 400), (0, None))

    Raises:
        SettingsError: it is none.
    """
    try:
        low, high = map(_bound, given)
        sound = low is None or high is None or low <= high
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise SettingsError(
            f"range={given!r}{of} has to be two numbers, the lesser first, as in (0, 400); None leaves a side open"
        )
    return low, high


def _bound(value: Any) -> float | None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isinf(value)):
        return None
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or math.isnan(value):
        raise ValueError
    return int(value) if isinstance(value, int) else float(value)


def location_under(location: str, path: str) -> str:
    """A path under a location; one that begins with "/" under it as well.

    >>> location_under("/car", "engine"), location_under("/", "/car/")
    ('/car/engine', '/car')
    """
    return "/" + "/".join(part for part in f"{location}/{checked_text(path, 'location') or ''}".split("/") if part)


def _frame(rows: Iterable[tuple[Any, ...]], columns: list[str], index: Iterable[str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=columns, index=pd.Index(list(index), name="id", dtype=object), dtype=object)


def _check_definition(definition: ParameterDefinition | EventDefinition, more: tuple[str, ...]) -> None:
    put = object.__setattr__
    if not checked_text(definition.id, "id"):
        raise SettingsError("a definition needs an ID that is not empty: the parameter's or the event's name")
    for name in ("id", "name", "description", *more):
        put(definition, name, checked_text(getattr(definition, name), name))
    put(definition, "custom", JsonObject(definition.custom, "custom"))
    put(definition, "location", location_under("/", definition.location))


def _said(of: Any) -> dict[str, Any]:
    """The fields that are not what they are by default, as JSON has them."""
    found: dict[str, Any] = {}
    for each in fields(of):
        value = getattr(of, each.name)
        if value == (each.default if each.default_factory is MISSING else each.default_factory()):
            continue
        if isinstance(value, EventLevel):
            value = value.name.lower()
        elif isinstance(value, pd.Timestamp):
            value = value.isoformat()
        found[each.name] = value.found if isinstance(value, JsonObject) else value
    return found


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _properties_of(header: bytes | None) -> StreamProperties:
    return StreamProperties(**_known(StreamProperties, _decoded(header, PROPERTIES)))


def _definitions_of(header: bytes | None) -> tuple[ParameterDefinitions, EventDefinitions]:
    found = _decoded(header, DEFINITIONS)
    return (
        ParameterDefinitions(_definitions(ParameterDefinition, found.get("parameters", {}))),
        EventDefinitions(_definitions(EventDefinition, found.get("events", {}))),
    )


def _decoded(value: bytes | None, name: str) -> dict[str, Any]:
    if not value:
        return {}
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"its header {name} is no JSON: {exc}") from None
    if not isinstance(found, dict):
        raise ValueError(f"its header {name} is no JSON object")
    return found


def _known(of: Any, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{of.__name__} is no JSON object")
    names = {each.name for each in fields(of)}
    known = {name: value for name, value in values.items() if name in names}
    if of is EventDefinition and str(known.get("level")).lower() not in LEVELS:
        known.pop("level", None)  # one of a later version
    return known


def _definitions(of: Any, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError("definitions are no JSON object")
    return {key: of(**{**_known(of, value), "id": key}) for key, value in values.items()}
