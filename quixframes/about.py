"""What a topic is for, beside what its rows are like; and how topics are named. Pure.

Both are kept with the contracts, in the topic ``__quixframes.contracts``, under keys that no topic's name can be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from quixframes.errors import SettingsError
from quixframes.json_object import checked_text

__all__ = ["ABOUT", "NAMING", "PROTOTYPE", "STAGES", "NamingRule", "TopicAbout"]

ABOUT = "about:"
"""With this begins the key of what is said about a topic; its name follows."""
NAMING = "naming:"
"""The key of the cluster's rule for names."""
PROTOTYPE = "prototype"
STAGES = ("raw", "clean", "results", PROTOTYPE)
"""The stages that quixframes knows; a topic may have any other."""

_VERSION = 1


@dataclass(frozen=True)
class TopicAbout:
    """What is said about a topic; see ``client.topics.set_about``.

    Args:
        stage: its place in a pipeline: "raw", "clean", "results", "prototype" (results of a model that is still being
            developed), or a word of your own.
        owner: who answers for it: a person, a team, an address.
        description: what is in it.
        made_from: the topics of which it is made.
        model: what makes it: the name of the consumer group that reads ``made_from``, so that its lag can be told.

    Raises:
        SettingsError: one of them is no text, or ``made_from`` no list of names.
    """

    stage: str | None = None
    owner: str | None = None
    description: str | None = None
    made_from: tuple[str, ...] = ()
    model: str | None = None

    def __post_init__(self) -> None:
        for name in ("stage", "owner", "description", "model"):
            value = checked_text(getattr(self, name), name)
            object.__setattr__(self, name, value or None)
        object.__setattr__(self, "made_from", _topics(self.made_from))

    def to_json(self) -> str:
        """As text: the same text for the same facts."""
        said = {name: value for name, value in asdict(self).items() if value}
        return json.dumps({"quixframes": "about", "version": _VERSION, **said}, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> TopicAbout:
        """What the text says. Fields that this quixframes does not know are left out.

        Raises:
            SettingsError: it says nothing about a topic.
        """
        said = _object(text, "about")
        return cls(**{field.name: said[field.name] for field in fields(cls) if field.name in said})


@dataclass(frozen=True)
class NamingRule:
    """What the names of new topics have to be like.

    Args:
        pattern: a regular expression that a whole name has to match.
        message: said to whom it refuses, beside the pattern: how your team names topics, best with an example.

    Raises:
        SettingsError: the pattern is no regular expression.

    >>> NamingRule(r"(raw|clean)-[a-z]+", "say the stage first, as in raw-engine").check("engine")
    Traceback (most recent call last):
    ...
    quixframes.errors.SettingsError: 'engine' is no name for a topic here: say the stage first, as in raw-engine \
(the rule is '(raw|clean)-[a-z]+')
    """

    pattern: str
    message: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.pattern, re.Pattern):
            object.__setattr__(self, "pattern", self.pattern.pattern)
        if not checked_text(self.pattern, "pattern"):
            raise SettingsError(f"pattern={self.pattern!r} has to be a regular expression")
        object.__setattr__(self, "message", checked_text(self.message, "message") or "")
        try:
            _ = self._compiled
        except re.error as exc:
            raise SettingsError(f"pattern={self.pattern!r} is no regular expression: {exc}") from None

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def allows(self, name: str) -> bool:
        """Whether a topic may have this name."""
        return self._compiled.fullmatch(name) is not None

    def check(self, name: str) -> None:
        """Raises SettingsError where it may not."""
        if not self.allows(name):
            raise SettingsError(self.refusal(name))

    def refusal(self, name: str) -> str:
        """What is said where a name is refused."""
        hint = f": {self.message}" if self.message else ""
        return f"{name!r} is no name for a topic here{hint} (the rule is {self.pattern!r})"

    def to_json(self) -> str:
        """As text."""
        return json.dumps(
            {"quixframes": "naming", "version": _VERSION, "pattern": self.pattern, "message": self.message},
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> NamingRule:
        """The rule of which it is the text. Raises SettingsError where it is none."""
        said = _object(text, "naming")
        return cls(said.get("pattern", ""), said.get("message", ""))


def _topics(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Collection) or not all(isinstance(name, str) and name for name in given):
        raise SettingsError(f"made_from={given!r} has to be a list of names of topics")
    return tuple(dict.fromkeys(given))


def _object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError as exc:
        raise SettingsError(f"the text is no JSON: {exc}") from exc
    if not isinstance(said, dict) or said.get("quixframes") != what:
        raise SettingsError(f"the text is no JSON of what quixframes keeps as {what!r}")
    if said.get("version") != _VERSION:
        raise SettingsError(
            f"it is written in version {said.get('version')!r}, this quixframes knows {_VERSION}: upgrade quixframes"
        )
    return said
