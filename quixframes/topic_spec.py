"""What a topic is to be like, and what parts it from what it is. Pure. For its contract, and what is said about it, see
``topic_governance``.

What it holds to:

- What a spec does not say is not managed: a new topic has the cluster's default there, one that exists keeps what it
  has.
- Kafka removes rows by the segment, a file of many messages, and only those that are not written to any more. So with
  a retention goes a length of segments, a tenth of the time and a fourth of the size: else "1 hour" would keep a week.
- Kafka's ``retention.bytes`` is of one partition. Here a size is of the whole topic, and is divided.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from quixframes.about import TopicAbout
from quixframes.contracts import Contract
from quixframes.errors import SettingsError
from quixframes.kafka import TopicDetails
from quixframes.settings import Duration, Size, byte_count, nanoseconds, whole_number

__all__ = ["COMPRESSIONS", "Difference", "TopicSpec", "compare", "contract_text", "duration_text", "size_text"]

COMPRESSIONS = ("producer", "none", "gzip", "snappy", "lz4", "zstd")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_LONGEST_SEGMENT_MS = 7 * 86_400_000  # Kafka's default, and
_LARGEST_SEGMENT = 2**30  # so is this
_SHORTEST_SEGMENT_MS = 600_000  # many small files are a burden
_SMALLEST_SEGMENT = 2**20  # Kafka takes none below
_DEFAULT_LIMIT = 1_048_588
_UNLIMITED = "-1"
_DEFAULTS = "the cluster's defaults"
_ABOUT = ("stage", "owner", "description", "made_from", "model")

Unlimited = Literal["forever", "unlimited"]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic is to be like. None, the default of all but the name: the cluster's default for a new topic, and
    what it has for one that exists.

    Args:
        name: letters, digits, dots, underscores and hyphens.
        partitions: how many instances of one model may share the topic at most; 1 for a new topic. It grows only.
        replication: on how many brokers each row is kept. It cannot be changed later.
        retention: how long rows are kept after they were written, at least; or "forever". The oldest go first, up to a
            tenth of the time later.
        retention_size: how large the topic may become, over all partitions, before its oldest rows go; or "unlimited".
            Each partition has its equal part, and may be larger by a fourth of that (1 MiB at least) for a while.
            Replicas come on top. With ``retention``, what comes first holds.
        message_limit: the largest message.
        compression: how brokers keep messages: "producer" (as they were written: Kafka's default), "none", "gzip",
            "snappy", "lz4" or "zstd".
        min_in_sync: how many replicas have to have a row before its write is acknowledged. With fewer in sync, writing
            fails and reading goes on; 2 at a replication of 3 is usual.
        contract: what its rows have to be like: a :class:`~quixframes.Contract`, or what ``Contract.of`` takes.
        stage, owner, description, made_from, model: what it is for, as in ``client.topics.set_about``; "" takes back
            what is said.

    Raises:
        SettingsError: one of them cannot be.

    >>> TopicSpec("engine", partitions=6, retention="7 days", retention_size="50 GB")
    TopicSpec('engine', partitions=6, retention='7 days', retention_size='50 GB')
    """

    name: str
    partitions: int | None = None
    replication: int | None = None
    retention: Duration | Literal["forever"] | None = None
    retention_size: Size | Literal["unlimited"] | None = None
    message_limit: Size | None = None
    compression: Literal["producer", "none", "gzip", "snappy", "lz4", "zstd"] | None = None
    min_in_sync: int | None = None
    contract: Any = None
    stage: str | None = None
    owner: str | None = None
    description: str | None = None
    made_from: Collection[str] | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name in (".", ".."):
            raise SettingsError(
                f"name={self.name!r} cannot be a topic's name: letters, digits, '.', '_' and '-', at most 249"
            )
        for name in ("partitions", "replication", "min_in_sync"):
            if getattr(self, name) is not None:
                whole_number(getattr(self, name), name, least=1)
        if self.retention not in (None, "forever"):
            nanoseconds(self.retention, name="retention")
        if self.retention_size not in (None, "unlimited"):
            byte_count(self.retention_size, name="retention_size")
        if self.message_limit is not None:
            byte_count(self.message_limit, name="message_limit")
        if self.compression is not None and self.compression not in COMPRESSIONS:
            raise SettingsError(f"compression={self.compression!r} has to be one of {', '.join(COMPRESSIONS)}")
        if self.min_in_sync is not None and self.replication is not None and self.min_in_sync > self.replication:
            raise SettingsError(
                f"min_in_sync={self.min_in_sync} is over replication={self.replication}: nothing could ever be written"
            )
        if self.contract is not None:
            object.__setattr__(self, "contract", Contract.of(self.contract))
        if self.made_from is not None:
            object.__setattr__(self, "made_from", TopicAbout(made_from=self.made_from).made_from)  # type: ignore[arg-type]
        TopicAbout(**self.about)

    @property
    def about(self) -> dict[str, Any]:
        """What it says of what the topic is for."""
        return {name: value for name in _ABOUT if (value := getattr(self, name)) is not None}

    def settings(
        self, partitions: int, *, message_limit: int = _DEFAULT_LIMIT, segment: int = _LARGEST_SEGMENT
    ) -> dict[str, str]:
        """What it says, by Kafka's names, for a topic of so many partitions that has this limit and these segments."""
        found = {}
        if self.message_limit is not None:
            message_limit = byte_count(self.message_limit)
            found["max.message.bytes"] = str(message_limit)
        if self.retention == "forever":
            found |= {"retention.ms": _UNLIMITED, "segment.ms": str(_LONGEST_SEGMENT_MS)}
        elif self.retention is not None:
            time = max(1, nanoseconds(self.retention) // 10**6)
            length = min(max(time // 10, min(time, _SHORTEST_SEGMENT_MS)), _LONGEST_SEGMENT_MS)
            found |= {"retention.ms": str(time), "segment.ms": str(length)}
        if self.retention_size == "unlimited":
            found |= {"retention.bytes": _UNLIMITED, "segment.bytes": str(_LARGEST_SEGMENT)}
        elif self.retention_size is not None:
            share = -(-byte_count(self.retention_size) // partitions)
            size = min(max(share // 4, message_limit, _SMALLEST_SEGMENT), _LARGEST_SEGMENT)
            found |= {"retention.bytes": str(share), "segment.bytes": str(max(size, message_limit))}
        elif message_limit > segment:
            found["segment.bytes"] = str(message_limit)  # a message has to fit into a segment
        if self.compression is not None:
            found["compression.type"] = {"none": "uncompressed"}.get(self.compression, self.compression)
        if self.min_in_sync is not None:
            found["min.insync.replicas"] = str(self.min_in_sync)
        return found

    def check(self, brokers: int) -> None:
        """Refuse a new topic that a cluster of so many brokers cannot have.

        Raises:
            SettingsError: ``replication`` is over the number of brokers; or ``min_in_sync`` is given without it.
        """
        if self.replication is not None and self.replication > brokers:
            raise SettingsError(
                f"replication={self.replication} of topic {self.name!r} needs as many brokers, and the cluster has "
                f"{brokers}: give {brokers} at most"
            )
        if self.replication is None and (self.min_in_sync or 1) > 1:
            raise SettingsError(
                f"min_in_sync={self.min_in_sync} of topic {self.name!r} needs replication= too: with a cluster's "
                "default that is lower, nothing could ever be written"
            )

    def __repr__(self) -> str:
        said = {one.name: getattr(self, one.name) for one in fields(self)[1:]}
        shown = {name: repr(value) for name, value in said.items() if value is not None}
        if self.contract is not None:
            shown["contract"] = f"<{contract_text(self.contract)}>"
        return f"TopicSpec({', '.join([repr(self.name), *(f'{name}={text}' for name, text in shown.items())])})"

    def __str__(self) -> str:
        """Its settings, without contract and what it is for."""
        said = {one.name: getattr(self, one.name) for one in fields(self)[1:] if one.name not in ("contract", *_ABOUT)}
        return ", ".join(f"{name} {value}" for name, value in said.items() if value is not None) or _DEFAULTS


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which a topic is not as it is to be.

    Attributes:
        topic: its name.
        item: what it is about: "topic" where there is none yet, and of which settings it is made; else an argument of
            :class:`TopicSpec`.
        now, wanted: as text.
        refusal: why it cannot be done; None where it can.
        settings: what has to be set for it, by Kafka's names.
    """

    topic: str
    item: str
    now: str
    wanted: str
    refusal: str | None = None
    settings: Mapping[str, str] | None = None


# Kafka's settings behind an argument: the first says it, the others go with it.
_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "retention": ("retention.ms", "segment.ms"),
    "retention_size": ("retention.bytes", "segment.bytes"),
    "message_limit": ("max.message.bytes", "segment.bytes"),
    "compression": ("compression.type",),
    "min_in_sync": ("min.insync.replicas",),
}


def compare(spec: TopicSpec, found: TopicDetails | None, brokers: int) -> tuple[Difference, ...]:
    """What has to be done for a topic to be as the spec has it; nothing where it is so already.

    Args:
        spec: what it is to be like.
        found: what it is; None where there is none.
        brokers: how many the cluster has.
    """
    if found is not None:
        return (*_shape(spec, found), *_changes(spec, found))
    refusal = None
    try:
        spec.check(brokers)
    except SettingsError as exc:
        refusal = str(exc)
    return (Difference(spec.name, "topic", "none", str(spec), refusal, spec.settings(spec.partitions or 1)),)


def _shape(spec: TopicSpec, found: TopicDetails) -> Iterable[Difference]:
    has, copies = len(found.partitions), _replication(found)
    if spec.partitions is not None and spec.partitions != has:
        refusal = None
        if spec.partitions < has:
            refusal = "Kafka cannot take partitions away: make a new topic, and load what is in this one into it"
        yield Difference(spec.name, "partitions", str(has), str(spec.partitions), refusal)
    if spec.replication is not None and spec.replication != copies:
        refusal = "a topic's replication is not changed by quixframes: use kafka-reassign-partitions, or a new topic"
        yield Difference(spec.name, "replication", str(copies), str(spec.replication), refusal)


def _changes(spec: TopicSpec, found: TopicDetails) -> Iterable[Difference]:
    has = len(found.partitions)
    count = max(has, spec.partitions or 0)
    limit = int(found.settings.get("max.message.bytes", _DEFAULT_LIMIT))
    segment = int(found.settings.get("segment.bytes", _LARGEST_SEGMENT))
    wanted = spec.settings(count, message_limit=limit, segment=segment)
    for item, names in _SETTINGS.items():
        # A segment's size that goes with the retention is told there.
        told = {name: wanted[name] for name in names if name in wanted and names[0] in wanted}
        if any(not _same(found.settings.get(name), value, name) for name, value in told.items()):
            now = _as_text(item, found.settings.get(names[0]), has)
            refusal = None
            if item == "min_in_sync" and int(wanted[names[0]]) > _replication(found):
                refusal = f"the topic has a replication of {_replication(found)} only: nothing could ever be written"
            yield Difference(spec.name, item, now, _as_text(item, wanted[names[0]], count), refusal, told)


def _same(now: str | None, wanted: str, name: str) -> bool:
    """A size that was divided again when the topic grew may be a byte off, as each time it is rounded up."""
    if now is not None and name in ("retention.bytes", "segment.bytes") and _UNLIMITED not in (now, wanted):
        return abs(int(now) - int(wanted)) <= 1
    return now == wanted


def _replication(found: TopicDetails) -> int:
    return min(len(part.replicas) for part in found.partitions)


def _as_text(item: str, value: str | None, partitions: int) -> str:
    if value is None:
        return "unknown"
    if item == "retention":
        return "forever" if int(value) < 0 else duration_text(int(value))
    if item == "retention_size":
        if int(value) < 0:
            return "unlimited"
        return f"{size_text(int(value) * partitions)} ({size_text(int(value))} in each of {partitions} partitions)"
    if item == "message_limit":
        return size_text(int(value))
    return {"uncompressed": "none"}.get(value, value)


def contract_text(contract: Contract) -> str:
    """What a contract declares, in a few words.

    >>> contract_text(Contract({"speed": "float64"}, ["driver"]))
    'speed, TAG__driver'
    """
    names = list(contract.columns)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more columns" if len(names) > 6 else "")


def duration_text(milliseconds: int) -> str:
    """A time as people write it, in the largest unit of which it is a whole number.

    >>> duration_text(604_800_000), duration_text(90_000), duration_text(1_500)
    ('7 days', '90 s', '1500 ms')
    """
    for unit, name in ((86_400_000, "days"), (3_600_000, "hours"), (60_000, "min"), (1_000, "s")):
        if milliseconds and milliseconds % unit == 0:
            number = milliseconds // unit
            return f"{number} {name.removesuffix('s') if number == 1 and len(name) > 1 else name}"
    return f"{milliseconds} ms"


def size_text(size: float) -> str:
    """A size as people write it.

    >>> size_text(999), size_text(50_000_000_000), size_text(1_048_588)
    ('999 B', '50 GB', '1.05 MB')
    """
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{float(f'{size / unit:.3g}'):,.6g} {name}"
    return f"{size:.0f} B"
