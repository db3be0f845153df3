"""Saying what parameters and events are: the part that their writers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self

from quixframes.errors import SettingsError
from quixframes.story import Definition, ParameterDefinition, Story, location_under

if TYPE_CHECKING:
    from quixframes.stream_writer import StreamWriter

__all__ = ["DefinitionsWriter", "Location"]


class DefinitionsWriter(Generic[Definition]):
    """Has definitions of one kind, at locations of a tree."""

    __slots__ = ("_default_location", "_stream")

    def __init__(self, stream: StreamWriter) -> None:
        self._stream = stream
        self._default_location = "/"

    @property
    def default_location(self) -> str:
        """Where definitions belong that name no location of their own. Default: the root, "/"."""
        return self._default_location

    @default_location.setter
    def default_location(self, location: str) -> None:
        if not isinstance(location, str):
            raise SettingsError(f"default_location={location!r} has to be text, as '/car/engine'")
        self._default_location = location_under("/", location)

    def add_location(self, path: str) -> Location:
        """A place in the tree to add definitions at: ``add_location("/car/engine").add_definition("rpm")``."""
        return Location(self, location_under("/", path))

    def _under_default(self, location: str | None) -> str:
        return self._default_location if location is None else location

    def _define(self, definition: Definition) -> Self:
        def change(story: Story) -> Story:
            if isinstance(definition, ParameterDefinition):
                return story.with_parameter(definition)
            return story.with_event(definition)

        self._stream._retell(change)
        return self


class Location:
    """A place in the tree of definitions."""

    def __init__(self, writer: Any, path: str) -> None:
        self._writer = writer
        self.path = path

    def add_location(self, path: str) -> Location:
        """A place under this one."""
        return Location(self._writer, location_under(self.path, path))

    def add_definition(self, id: str, *, location: str = "", **what: Any) -> Self:
        """Define a parameter or event here, or at a ``location`` under this one; the other arguments are those of the
        writer's ``add_definition``."""
        self._writer.add_definition(id, location=location_under(self.path, location), **what)
        return self

    def __repr__(self) -> str:
        return f"<Location {self.path!r}>"
