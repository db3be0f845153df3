"""What ``quixframes run`` is to do, as one value that goes to its processes, and the settings that it stands for.

Checked when it is made: a wrong setting is told once, before a process is started.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from quixframes.errors import SettingsError
from quixframes.profiles import environment_profile, named_profile
from quixframes.security import Security
from quixframes.settings import (
    AutoOffsetReset,
    BufferSettings,
    CommitMode,
    CommitSettings,
    Connection,
    ReaderSettings,
    Retry,
    nanoseconds,
    seconds,
    whole_number,
)
from quixframes.subscription import GivenTopics

__all__ = ["Job", "sinks_of"]


@dataclass(frozen=True, slots=True)
class Job:
    """A model, what it reads and writes, and how. Durations are texts, as in "500ms".

    Args:
        model: ``module:function`` or ``path/to/file.py:function``.
        broker: addresses as "host:port", with commas between.
        profile: the table of the configuration file that says where and how to connect. None: ``broker``, with what the
            environment says of TLS and login. No secret is ever here: each process looks for itself.
        sources: topics to read; or ``source_pattern``, which their whole names have to match.
        sinks: (name, topic) of each topic to write to; the name of a single one may be "".
        takes: whether the model is given a frame or a batch.
        rows, time_span, timeout: the rules of the buffer.
        attempts, backoff: how often the model is tried with a batch, and the wait before the second try.
        on_error: "raise" or "dead-letter", as in :func:`quixframes.run`.
        until, duration, max_rows, idle: where each process ends by itself.
        instance_id: the beginning of the processes' static names in the group; None for none.
        health_port: where the first process answers about its health, the next one port further; None for nowhere.
        stop_timeout: how long a process may take to stop before it is killed.
    """

    model: str
    broker: str
    profile: str | None = None
    group: str = "Default"
    sources: tuple[str, ...] = ()
    source_pattern: str | None = None
    sinks: tuple[tuple[str, str], ...] = ()
    takes: Literal["frame", "batch"] = "frame"
    transport: str = "kafka-python"
    reset: str = "earliest"
    commit: Literal["automatic", "manual"] = "automatic"
    commit_every: str | None = None
    exactly_once: bool = False
    dead_letters: str | None = None
    on_error: Literal["raise", "dead-letter"] = "raise"
    attempts: int = 1
    backoff: str = "1s"
    rows: int | None = 10_000
    time_span: str | None = None
    timeout: str | None = "1s"
    until: Literal["now"] | None = None
    duration: str | None = None
    max_rows: int | None = None
    idle: str | None = None
    instance_id: str | None = None
    assignment: str = "cooperative-sticky"
    session_timeout: str = "45s"
    model_timeout: str | None = None
    health_port: int | None = None
    health_host: str = "127.0.0.1"
    stop_timeout: str = "30s"

    def __post_init__(self) -> None:
        where, _, function = self.model.rpartition(":")
        if not where or not function.isidentifier():
            raise SettingsError(f"model {self.model!r} has to be 'module:function' or 'path/to/file.py:function'")
        if bool(self.sources) == (self.source_pattern is not None):
            raise SettingsError("give the topics to read by --source, or by --source-pattern")
        if not self.group:
            raise SettingsError("--group '' is no name: the instances share the topic by their group")
        names = [name for name, _ in self.sinks]
        if len(self.sinks) > 1 and ("" in names or len(set(names)) < len(names)):
            raise SettingsError("several sinks need names, each another one: --sink good=topic-a --sink bad=topic-b")
        if self.on_error == "dead-letter" and self.dead_letters is None:
            raise SettingsError("--on-error dead-letter needs --dead-letters TOPIC")
        for name in ("takes", "commit", "on_error", "until"):
            value, known = getattr(self, name), _WORDS[name]
            if value not in known:
                raise SettingsError(f"{name}={value!r} has to be one of {', '.join(str(word) for word in known)}")
        for name in ("duration", "idle"):
            if (value := getattr(self, name)) is not None:
                nanoseconds(value, name=name)
        if self.max_rows is not None:
            whole_number(self.max_rows, "max_rows", least=1)
        if self.health_port is not None and not 0 < self.health_port < 65_536:
            raise SettingsError(f"--health-port {self.health_port} is no port: it has to be 1 to 65535")
        seconds(self.stop_timeout, name="stop_timeout")
        AutoOffsetReset.of(self.reset)
        Connection.of(self.broker)
        _ = self.security  # what is wrong with it is told now
        _ = self.topic, self.buffer, self.retry, self.commit_settings, self.reader(0)

    # What the settings stand for

    @property
    def security(self) -> Security | None:
        """How to connect."""
        if self.profile is not None:
            return named_profile(self.profile, os.environ).security
        return environment_profile(os.environ).security

    @property
    def topic(self) -> GivenTopics:
        """What is read, as ``client.open_input_topic`` takes it."""
        if self.source_pattern is None:
            return list(self.sources)
        try:
            return re.compile(self.source_pattern)
        except re.error as exc:
            raise SettingsError(f"--source-pattern {self.source_pattern!r} is no regular expression: {exc}") from None

    @property
    def buffer(self) -> BufferSettings:
        """When rows are released as a batch."""
        return BufferSettings(rows=self.rows, time_span=self.time_span, timeout=self.timeout)

    @property
    def retry(self) -> Retry:
        """How often the model is tried."""
        return Retry(attempts=self.attempts, backoff=self.backoff)

    @property
    def commit_settings(self) -> CommitSettings:
        """When finished batches are committed."""
        settings = CommitSettings.of(CommitMode(self.commit), exactly_once=self.exactly_once)
        if self.commit_every is None:
            return settings
        return CommitSettings(settings.mode, self.commit_every, settings.rows)

    def reader(self, number: int) -> ReaderSettings:
        """The place in the group of the instance of that number."""
        return ReaderSettings(
            session_timeout=self.session_timeout,
            assignment=self.assignment,  # type: ignore[arg-type]
            instance_id=None if self.instance_id is None else f"{self.instance_id}-{number}",
            model_timeout=self.model_timeout,
        )

    # On its way to a process

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        """What :meth:`to_json` made a line of."""
        values: dict[str, Any] = json.loads(line)
        values["sources"] = tuple(values["sources"])
        values["sinks"] = tuple((name, topic) for name, topic in values["sinks"])
        return cls(**{field.name: values[field.name] for field in fields(cls)})


_WORDS: dict[str, tuple[str | None, ...]] = {
    "takes": ("frame", "batch"),
    "commit": ("automatic", "manual"),
    "on_error": ("raise", "dead-letter"),
    "until": ("now", None),
}


def sinks_of(given: list[str]) -> tuple[tuple[str, str], ...]:
    """Sinks as a command line has them.

    >>> sinks_of(["results"]), sinks_of(["good=results", "bad=rejects"])
    ((('', 'results'),), (('good', 'results'), ('bad', 'rejects')))
    """
    parts = [text.rpartition("=") for text in given]
    return tuple((name, topic) for name, _, topic in parts)
