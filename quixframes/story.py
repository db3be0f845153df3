"""What a stream says of itself: its properties, and the definitions of its parameters and events. Pure.

What this module holds to:

- A story is a value: a change makes a new one, so that a batch can keep the one that was true at its rows.
- It travels as the headers of every message of its stream (see ``docs/wire-format.md``), so whichever message a reader
  begins with tells all of it: late readers need no look back, and retention takes nothing away from them.
- Equal stories have equal headers: JSON with sorted names.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self, TypeVar

import numpy as np
import pandas as pd

from quixframes.errors import SettingsError

__all__ = [
    "DEFINITIONS",
    "PROPERTIES",
    "EventDefinition",
    "EventDefinitions",
    "EventLevel",
    "ParameterDefinition",
    "ParameterDefinitions",
    "Story",
    "StreamProperties",
    "location_under",
]

NO_RANGE = (math.nan, math.nan)
PROPERTIES, DEFINITIONS = "qf.properties", "qf.definitions"


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
        put(self, "name", _text(self.name, "name"))
        put(self, "location", _text(self.location, "location"))
        put(self, "metadata", MappingProxyType(_json_object(self.metadata, "metadata")))
        parents = (self.parents,) if isinstance(self.parents, str) else tuple(self.parents)
        put(self, "parents", tuple(str(_text(parent, "a parent")) for parent in parents))
        put(self, "time_of_recording", _moment(self.time_of_recording))

    def __reduce__(self) -> Any:  # a mapping proxy cannot be pickled by itself
        return _unpickled, (type(self), {f.name: _plain(getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class ParameterDefinition:
    """What a parameter is, for people and for plots.

    Args:
        id: the column's name.
        name: what people call it. Default: the ID.
        description: more about it.
        unit: of its values, as "km/h".
        range: the least and the greatest value that make sense.
        format: how a value is to be shown, as Python's format has it: ".1f".
        custom: custom properties, as JSON has them.
        location: where it belongs in a tree, as "/car/engine". Default: the root, "/".
    """

    id: str
    name: str | None = None
    description: str | None = None
    unit: str | None = None
    range: tuple[float, float] | None = None
    format: str | None = None
    custom: Mapping[str, Any] = field(default_factory=dict)
    location: str = "/"

    def __post_init__(self) -> None:
        _check_definition(self, ("unit", "format"))
        object.__setattr__(self, "range", _range(self.range, self.id))

    def __reduce__(self) -> Any:
        return _unpickled, (type(self), {f.name: _plain(getattr(self, f.name)) for f in fields(self)})


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

    def __reduce__(self) -> Any:
        return _unpickled, (type(self), {f.name: _plain(getattr(self, f.name)) for f in fields(self)})


Definition = TypeVar("Definition", ParameterDefinition, EventDefinition)


class _Definitions(Mapping[str, Definition]):
    """Definitions by ID, which do not change."""

    __slots__ = ("_found",)

    def __init__(self, found: Mapping[str, Definition] | None = None) -> None:
        self._found: dict[str, Definition] = dict(found or {})

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
                *(d.range or (np.nan, np.nan)),
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


@dataclass(frozen=True)
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
        if properties := _told(self.properties):
            found.append((PROPERTIES, _encoded(properties)))
        definitions = {
            kind: {one.id: {k: v for k, v in _told(one).items() if k != "id"} for one in several.values()}
            for kind, several in (("parameters", self.parameters), ("events", self.events))
            if several
        }
        if definitions:
            found.append((DEFINITIONS, _encoded(definitions)))
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
        properties = _decoded(headers.get(PROPERTIES), PROPERTIES)
        definitions = _decoded(headers.get(DEFINITIONS), DEFINITIONS)
        return cls(
            StreamProperties(**_known(StreamProperties, properties)),
            ParameterDefinitions(_definitions(ParameterDefinition, definitions.get("parameters", {}))),
            EventDefinitions(_definitions(EventDefinition, definitions.get("events", {}))),
        )

    def __hash__(self) -> int:
        return hash(self.headers)


def location_under(location: str, path: str) -> str:
    """A path under a location; one that begins with "/" under it as well.

    >>> location_under("/car", "engine"), location_under("/", "/car/")
    ('/car/engine', '/car')
    """
    return "/" + "/".join(part for part in f"{location}/{_text(path, 'location') or ''}".split("/") if part)


def _frame(rows: Iterable[tuple[Any, ...]], columns: list[str], index: Iterable[str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=columns, index=pd.Index(list(index), name="id", dtype=object), dtype=object)


def _text(value: object, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise SettingsError(f"{name}={value!r} has to be text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{name}={value!r} cannot be written as UTF-8") from None
    return str(value)


def _json_object(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A copy, as it will be read: tuples as lists, NumPy's scalars as Python's."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise SettingsError(f"{name}={value!r} has to be a dict with text for names")
    return {key: _json(item, f"{name}[{key!r}]") for key, item in value.items()}


def _json(value: Any, name: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return _text(value, name)
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return _json_object(value, name)
    if isinstance(value, (list, tuple)):
        return [_json(item, f"{name}[{n}]") for n, item in enumerate(value)]
    raise SettingsError(
        f"{name}={value!r} cannot be told: use text, finite numbers, True, False, None, and lists and dicts of these"
    )


def _moment(value: Any) -> pd.Timestamp | None:
    if value is None:
        return None
    try:
        stamp = pd.Timestamp(value)
    except (ValueError, TypeError) as exc:
        raise SettingsError(f"time_of_recording={value!r} is not a moment: {exc}") from None
    if pd.isna(stamp):
        raise SettingsError(f"time_of_recording={value!r} is not a moment")
    return stamp.tz_localize(dt.UTC) if stamp.tz is None else stamp.tz_convert(dt.UTC)


def _range(value: Any, of: str) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = (_json(side, "range") for side in value)
        sound = not isinstance(low, (bool, str)) and not isinstance(high, (bool, str)) and low <= high
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise SettingsError(f"range={value!r} of {of!r} has to be two numbers, the lesser first, as in range=(0, 400)")
    return low, high


def _check_definition(definition: ParameterDefinition | EventDefinition, more: tuple[str, ...]) -> None:
    put = object.__setattr__
    if not _text(definition.id, "id"):
        raise SettingsError("a definition needs an ID that is not empty: the parameter's or the event's name")
    for name in ("id", "name", "description", *more):
        put(definition, name, _text(getattr(definition, name), name))
    put(definition, "custom", MappingProxyType(_json_object(definition.custom, "custom")))
    put(definition, "location", location_under("/", definition.location))


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _unpickled(of: Any, values: dict[str, Any]) -> Any:
    return of(**values)


def _told(of: Any) -> dict[str, Any]:
    """The fields that are not what they are by default, as JSON has them."""
    found: dict[str, Any] = {}
    for each in fields(of):
        value = getattr(of, each.name)
        if isinstance(value, EventLevel):
            value = value.name.lower()
        elif isinstance(value, pd.Timestamp):
            value = value.isoformat()
        else:
            value = _plain(value)
        if value not in (None, {}, (), "information") and not (each.name == "location" and value == "/"):
            found[each.name] = value
    return found


def _encoded(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


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
    return {name: value for name, value in values.items() if name in names}


def _definitions(of: Any, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError("definitions are no JSON object")
    return {key: of(**{**_known(of, value), "id": key}) for key, value in values.items()}
