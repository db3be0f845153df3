"""JSON objects as values: checked when they are made, and not changed afterwards. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from quixframes.errors import SettingsError

__all__ = ["JsonObject", "checked_text"]


class JsonObject(Mapping[str, Any]):
    """A JSON object that nobody changes: what it is asked for, it gives as a copy. It is equal to the dict that it was
    made of, but tuples are lists in it, and NumPy's scalars Python's. ``found`` is for those who only look.

    Raises:
        SettingsError: it is not what JSON has.

    >>> JsonObject({"laps": (1, 2)}, "metadata")
    {'laps': [1, 2]}
    """

    __slots__ = ("found",)

    def __init__(self, found: Mapping[str, Any], name: str) -> None:
        self.found: dict[str, Any] = found.found if isinstance(found, JsonObject) else _object(found, name)

    def __getitem__(self, key: str) -> Any:
        return deepcopy(self.found[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __repr__(self) -> str:
        return repr(self.found)


def checked_text(value: object, name: str) -> str | None:
    """Text, or None. Raises SettingsError."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise SettingsError(f"{name}={value!r} has to be text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{name}={value!r} cannot be written as UTF-8") from None
    return str(value)


def _object(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise SettingsError(f"{name}={value!r} has to be a dict with text for names")
    return {
        str(checked_text(key, f"a name in {name}")): _value(item, f"{name}[{key!r}]") for key, item in value.items()
    }


def _value(value: Any, name: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return checked_text(value, name)
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return _object(value, name)
    if isinstance(value, (list, tuple)):
        return [_value(item, f"{name}[{n}]") for n, item in enumerate(value)]
    raise SettingsError(
        f"{name}={value!r} cannot be told: use text, finite numbers, True, False, None, and lists and dicts of these"
    )
