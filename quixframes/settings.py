"""What a user can choose, as frozen dataclasses, with durations and sizes as people write them.

Every setting is checked when it is made, so that a wrong one fails where it was written and not in a background thread.
"""

from __future__ import annotations

import datetime as dt
import enum
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from quixframes.errors import SettingsError
from quixframes.security import Security

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AutoOffsetReset",
    "BufferSettings",
    "CommitMode",
    "CommitSettings",
    "Connection",
    "Duration",
    "FaultSettings",
    "Hooks",
    "ReaderSettings",
    "Retry",
    "Size",
    "WriterSettings",
    "byte_count",
    "nanoseconds",
    "seconds",
    "whole_number",
]

Duration = str | int | float | dt.timedelta
"""A duration: ``"500ms"``, ``"1.5 s"``, ``"7 days"``, a number of seconds, a timedelta or a pandas Timedelta."""

Size = str | int
"""A size: ``"16 MB"`` (10^6), ``"16 MiB"`` (2^20), or a number of bytes."""

_UNIT_NS = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1),
    **dict.fromkeys(("us", "µs", "microsecond", "microseconds"), 10**3),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 10**6),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 10**9),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60 * 10**9),
    **dict.fromkeys(("h", "hour", "hours"), 3600 * 10**9),
    **dict.fromkeys(("d", "day", "days"), 86_400 * 10**9),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86_400 * 10**9),
}
_UNIT_BYTES = {
    "": 1,
    "b": 1,
    **{prefix + "b": 1000 ** (n + 1) for n, prefix in enumerate("kmgt")},
    **{prefix + "ib": 1024 ** (n + 1) for n, prefix in enumerate("kmgt")},
}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zµ]*)\s*", re.IGNORECASE)


def nanoseconds(duration: Duration, *, name: str = "duration") -> int:
    """A duration in whole nanoseconds; it has to be above zero.

    >>> nanoseconds("500ms"), nanoseconds("7 days"), nanoseconds(1.5)
    (500000000, 604800000000000, 1500000000)

    Raises:
        SettingsError: where it is not a duration, or not above zero; the text calls it by ``name``.
    """
    if isinstance(duration, dt.timedelta):
        # A pandas Timedelta is a timedelta that also knows its nanoseconds.
        spare = getattr(duration, "nanoseconds", 0)
        ns = ((duration.days * 86_400 + duration.seconds) * 10**6 + duration.microseconds) * 1000 + spare
    elif isinstance(duration, str):
        match = _QUANTITY.fullmatch(duration)
        unit = _UNIT_NS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise SettingsError(
                f"{name}={duration!r} is not a duration: write a number and a unit, as in '500ms', '2s' or '7 days'"
            )
        ns = round(float(match[1]) * unit)
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool) and math.isfinite(duration):
        ns = round(duration * 10**9)
    else:
        raise SettingsError(f"{name}={duration!r} is not a duration: give '500ms', a number of seconds or a timedelta")
    if ns <= 0:
        raise SettingsError(f"{name}={duration!r} has to be above zero")
    return ns


def seconds(duration: Duration, *, name: str = "duration") -> float:
    """A duration in seconds; see :func:`nanoseconds`.

    >>> seconds("1.5 s"), seconds("2 min")
    (1.5, 120.0)
    """
    return nanoseconds(duration, name=name) / 10**9


def byte_count(size: Size, *, name: str = "size") -> int:
    """A size in bytes; it has to be above zero.

    >>> byte_count("16 MB"), byte_count("1 MiB"), byte_count(4096)
    (16000000, 1048576, 4096)

    Raises:
        SettingsError: where it is not a size, or not above zero; the text calls it by ``name``.
    """
    if isinstance(size, str):
        match = _QUANTITY.fullmatch(size)
        unit = _UNIT_BYTES.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise SettingsError(f"{name}={size!r} is not a size: write a number and a unit, as in '64 MB' or '1 MiB'")
        size = round(float(match[1]) * unit)
    return whole_number(size, name, least=1)


def whole_number(number: object, name: str, *, least: int) -> int:
    """A whole number of Python's or NumPy's, as an int.

    Raises:
        SettingsError: it is none, or below ``least``; the text calls it by ``name``.
    """
    if isinstance(number, (bool, float)) or not hasattr(number, "__index__") or operator.index(number) < least:
        raise SettingsError(f"{name}={number!r} has to be a whole number, {least} or more")
    return operator.index(number)


class CommitMode(enum.Enum):
    """Who says that rows are processed: the loop by asking for the next batch, or the model by ``batch.commit()``."""

    Automatic = "automatic"
    Manual = "manual"


class AutoOffsetReset(enum.Enum):
    """Where a group reads that has never committed: all that is retained, or only what arrives from now on."""

    Earliest = "earliest"
    Latest = "latest"

    @classmethod
    def of(cls, value: AutoOffsetReset | str) -> AutoOffsetReset:
        """The member, or the one of that name.

        Raises:
            SettingsError: where there is none.
        """
        try:
            return value if isinstance(value, cls) else cls(str(value).lower())
        except ValueError:
            raise SettingsError(f"auto_offset_reset={value!r} has to be 'earliest' or 'latest'") from None


@dataclass(frozen=True, slots=True)
class CommitSettings:
    """When finished batches are committed.

    Args:
        mode: with ``Automatic`` (default) a batch is finished when the loop asks for the next one; with ``Manual``
            only ``batch.commit()`` and ``topic.commit()`` finish and commit.
        every: the longest time between a batch's end and its automatic commit. In either mode, what is finished without
            a batch (dead letters, skipped messages, rows that a filter removed) is committed so often too. Default 5 s.
        rows: automatic only: commit as soon as so many finished rows are not committed. Default 5,000.

    A crash makes the rows come again that were finished and not committed: at most what ``every`` and ``rows`` allow.
    """

    mode: CommitMode = CommitMode.Automatic
    every: Duration = "5s"
    rows: int = 5_000

    def __post_init__(self) -> None:
        if not isinstance(self.mode, CommitMode):
            raise SettingsError(f"commit mode {self.mode!r} has to be CommitMode.Automatic or CommitMode.Manual")
        seconds(self.every, name="every")
        whole_number(self.rows, "rows", least=1)

    @classmethod
    def of(cls, value: CommitSettings | CommitMode, *, exactly_once: bool = False) -> CommitSettings:
        """The settings themselves, or those of a mode with its defaults. Under exactly once, these are 200 ms and
        1,000,000 rows: a transaction costs the same for few rows as for many, and its results wait for its end."""
        if isinstance(value, CommitSettings):
            return value
        return cls(mode=value, every="200ms", rows=1_000_000) if exactly_once else cls(mode=value)


@dataclass(frozen=True, slots=True)
class BufferSettings:
    """When rows that are held for a stream are released as one batch. The same on the writing and the reading side.

    The rules, for each stream by itself; the first that applies releases. Which rows come together depends on the rows
    alone, never on how they were split into writes or messages (``timeout`` aside).

    Args:
        rows: release as soon as so many rows are held, the last one included. Default 10,000.
        time_span: a row that would make the newest minus the oldest event time of the held rows *reach* this span
            releases the rows before it, and is itself held. Default None: no such rule.
        timeout: release what is held so long after the *first* held row came in (wall clock): a bound on latency.
            Default 1 s. None holds rows for ever, and with them, on the reading side, the commits of their partition.
        bytes: a row or an event that would take what is held over this size (as Arrow holds it) releases what is before
            it. Default 32 MB.
        trigger: given the arriving rows as a DataFrame, returns a boolean mask; each True releases, that row included.
            It has to judge each row by itself, or the batches depend on how the rows arrived. Default None.
        filter: given the arriving rows as a DataFrame, returns a boolean mask of the rows to keep; the others count as
            finished and are never held. It comes before all other rules. Default None.
        event_filter: the same for events. Default None: all of them.

    Events are held with the rows among which they came, and released with them. Without rows, ``rows``, ``bytes`` and
    ``timeout`` hold for events as they do for rows.

    A change of the stream's columns or dtypes releases what is held first, so that a batch has one schema.

    >>> BufferSettings(rows=5_000, time_span="1s")
    BufferSettings(rows=5000, time_span='1s', timeout='1s', bytes='32 MB', trigger=None, filter=None, event_filter=None)
    """

    rows: int | None = 10_000
    time_span: Duration | None = None
    timeout: Duration | None = "1s"
    bytes: Size | None = "32 MB"
    trigger: Callable[[pd.DataFrame], Any] | None = None
    filter: Callable[[pd.DataFrame], Any] | None = None
    event_filter: Callable[[pd.DataFrame], Any] | None = None

    def __post_init__(self) -> None:
        if self.rows is not None:
            whole_number(self.rows, "rows", least=1)
        if self.time_span is not None:
            nanoseconds(self.time_span, name="time_span")
        if self.timeout is not None:
            seconds(self.timeout, name="timeout")
        if self.bytes is not None:
            byte_count(self.bytes, name="bytes")
        for name in ("trigger", "filter", "event_filter"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise SettingsError(f"{name}={value!r} has to be a function from a DataFrame to a boolean mask")


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How a client writes.

    Args:
        delivery_timeout: a write that the cluster has not acknowledged after this time fails. Default 60 s: long
            enough for a broker to be replaced, short enough to be told.
        memory: bytes that may be written and not yet acknowledged; past it a write waits. Default 64 MB.
        compression: None (default), "lz4", "zstd", "gzip" or "snappy": Kafka's, of whole batches of messages.
        linger: how long a message may wait for others to share its request. Default 5 ms.
        transaction_timeout: exactly once only: a transaction that has not ended after this time is aborted by the
            cluster. It has to be longer than what passes between a model's first write and the commit; what an instance
            leaves open when it is killed holds readers of its outputs up for as long. Default 60 s.
    """

    delivery_timeout: Duration = "60s"
    memory: Size = "64 MB"
    compression: str | None = None
    linger: Duration = "5ms"
    transaction_timeout: Duration = "60s"

    def __post_init__(self) -> None:
        seconds(self.delivery_timeout, name="delivery_timeout")
        byte_count(self.memory, name="memory")
        seconds(self.linger, name="linger")
        seconds(self.transaction_timeout, name="transaction_timeout")
        known = (None, "lz4", "zstd", "gzip", "snappy")
        if self.compression not in known:
            raise SettingsError(f"compression={self.compression!r} has to be one of {', '.join(map(str, known))}")


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """How a topic is read.

    Args:
        prefetch: bytes of messages that may be read ahead of the model; past it reading pauses. Default 64 MB.
        held: bytes that the buffers of all streams together may hold; past it the oldest rows are released early.
            Default 256 MB.
        session_timeout: an instance that the cluster does not hear of for this long is replaced. Default 45 s.
        assignment: how the group shares its partitions out, by Kafka's names: "cooperative-sticky" (default),
            "sticky", "range" or "roundrobin". All instances of a group have to have the same.
        instance_id: a name of this instance's own that it keeps over restarts. One that comes back within
            ``session_timeout`` has its partitions again, and the group does not share them out anew ("static
            membership"). Leaving does not hand them on, but after ``session_timeout``. Default None: no such name.
        revoke_timeout: how long partitions that go to another instance are kept, for a batch of theirs that is out to
            be finished and committed. Default 10 s.
        model_timeout: a model that holds on to a batch for longer than this gives its partitions up, and its next
            call raises. Default None: membership is kept however long a batch takes.
        warn_after: how long the cluster may be out of reach before a warning is logged. Default 5 s.
        stream_idle: a stream that was not closed and has been silent for so long is reported, by ``Hooks.idle`` or else
            in the log. Default None: never.
        on_gone: what to do where retention has removed what was to be read next, as after a long absence: go on with
            the "earliest" that is left (default), or with the "latest", which passes over what is left as well; or
            "raise" an :class:`~quixframes.OffsetGoneError` in the loop. In each case ``Hooks.gone`` is told of it.
    """

    prefetch: Size = "64 MB"
    held: Size = "256 MB"
    session_timeout: Duration = "45s"
    assignment: Literal["cooperative-sticky", "sticky", "range", "roundrobin"] = "cooperative-sticky"
    instance_id: str | None = None
    revoke_timeout: Duration = "10s"
    model_timeout: Duration | None = None
    warn_after: Duration = "5s"
    stream_idle: Duration | None = None
    on_gone: Literal["earliest", "latest", "raise"] = "earliest"

    def __post_init__(self) -> None:
        byte_count(self.prefetch, name="prefetch")
        byte_count(self.held, name="held")
        seconds(self.session_timeout, name="session_timeout")
        seconds(self.revoke_timeout, name="revoke_timeout")
        known = ("cooperative-sticky", "sticky", "range", "roundrobin")
        if self.assignment not in known:
            raise SettingsError(f"assignment={self.assignment!r} has to be one of {', '.join(known)}")
        if self.instance_id == "":
            raise SettingsError("instance_id='' is no name: give one, or None")
        seconds(self.warn_after, name="warn_after")
        if self.model_timeout is not None:
            seconds(self.model_timeout, name="model_timeout")
        if self.stream_idle is not None:
            seconds(self.stream_idle, name="stream_idle")
        if self.on_gone not in ("earliest", "latest", "raise"):
            raise SettingsError(f"on_gone={self.on_gone!r} has to be 'earliest', 'latest' or 'raise'")


@dataclass(frozen=True, slots=True)
class FaultSettings:
    """What a reader does where a stream's messages are missing, repeated or out of order.

    A writer numbers the messages of a stream, so a reader knows. What it meets first of a writer is where it begins: a
    beginning that retention removed, or a restart, is no fault.

    Args:
        report: "log" a warning (default), "raise" a :class:`~quixframes.SequenceError` in the loop, which can go on
            after it; or a function that is given each :class:`~quixframes.SequenceFault`.
        drop_repeats: whether a message that came before is dropped, and counts as finished. Default False: its rows
            come again.
    """

    report: Literal["log", "raise"] | Callable[[Any], object] = "log"
    drop_repeats: bool = False

    def __post_init__(self) -> None:
        if self.report not in ("log", "raise") and not callable(self.report):
            raise SettingsError(f"report={self.report!r} has to be 'log', 'raise', or a function to be told")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often :func:`quixframes.run` tries a model that raises, and how long it waits in between.

    Args:
        attempts: tries, the first one included. Default 3.
        backoff: the wait before the second try; it doubles from try to try. Default 1 s.
        longest: the longest wait. Default 30 s.
        errors: exceptions after which to try again. Default: all but those of the cluster, which are never the batch's
            fault.
    """

    attempts: int = 3
    backoff: Duration = "1s"
    longest: Duration = "30s"
    errors: type[Exception] | tuple[type[Exception], ...] = Exception

    def __post_init__(self) -> None:
        whole_number(self.attempts, "attempts", least=1)
        seconds(self.backoff, name="backoff")
        seconds(self.longest, name="longest")
        kinds = self.errors if isinstance(self.errors, tuple) else (self.errors,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise SettingsError(f"errors={self.errors!r} has to be a class of exceptions, or a tuple of some")

    def pause(self, attempt: int) -> float:
        """Seconds to wait after the attempt of this number, from 1 on.

        >>> [Retry(backoff="1s", longest="5s").pause(attempt) for attempt in (1, 2, 3, 4)]
        [1.0, 2.0, 4.0, 5.0]
        """
        return min(seconds(self.longest), seconds(self.backoff) * 2.0 ** min(attempt - 1, 60))


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a loop cannot express: functions that are told what happens to a reader, in its own thread, so be quick.

    A partition is given as a :class:`~quixframes.Partition`: its topic and number.

    Args:
        assigned: told the partitions that came; an empty list says that the group has none for this instance.
        revoked: told the partitions that went, each with the IDs of its streams that were met here and have not ended.
            What was finished of them was committed before.
        lost: told the same of partitions that were gone before anything could be committed.
        committed: told the offset that was committed, by partition.
        idle: told a stream (:class:`~quixframes.StreamReader`) that has been silent for ``ReaderSettings.stream_idle``,
            once, until it speaks again. In the loop's thread. Its writer may have vanished.
        gone: told of what retention removed before it was read: a :class:`~quixframes.RetentionGap`.
    """

    assigned: Callable[[list[Any]], object] | None = None
    revoked: Callable[[dict[Any, list[str]]], object] | None = None
    lost: Callable[[dict[Any, list[str]]], object] | None = None
    committed: Callable[[dict[Any, int]], object] | None = None
    idle: Callable[[Any], object] | None = None
    gone: Callable[[Any], object] | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the cluster is, and how long to try to reach it.

    Args:
        brokers: addresses as "host:port"; one that answers is enough.
        client_id: the name under which the cluster's logs and quotas know this client.
        connect_timeout: how long opening may take before it fails. Default 8 s.
        security: TLS and login. Default None: neither.
    """

    brokers: tuple[str, ...]
    client_id: str = "quixframes"
    connect_timeout: Duration = "8s"
    security: Security | None = None

    @classmethod
    def of(cls, address: str | tuple[str, ...] | list[str]) -> Connection:
        """A connection to "host:port", to several of them with commas between, or to a list of them.

        >>> Connection.of("kafka-1:9092, kafka-2:9092").brokers
        ('kafka-1:9092', 'kafka-2:9092')

        Raises:
            SettingsError: for an address that is not of that form.
        """
        parts = address.split(",") if isinstance(address, str) else list(address)
        brokers = tuple(part.strip() for part in parts if part.strip())
        for broker in brokers:
            host, colon, port = broker.rpartition(":")
            if not (colon and host and "/" not in host and port.isdigit() and 0 < int(port) < 65_536):
                raise SettingsError(f"broker address {broker!r} has to be 'host:port', as in 'localhost:9092'")
        if not brokers:
            raise SettingsError("no broker address was given: write 'host:port', as in 'localhost:9092'")
        return cls(brokers=brokers)

    @property
    def principal(self) -> str | None:
        """As :attr:`Security.principal`."""
        return "User:ANONYMOUS" if self.security is None else self.security.principal

    def __post_init__(self) -> None:
        seconds(self.connect_timeout, name="connect_timeout")
        if self.security is not None and not isinstance(self.security, Security):
            kind = type(self.security).__name__  # not its value, which may be a password
            raise SettingsError(f"security has to be a Security, as Security.scram makes one, and is of type {kind}")
