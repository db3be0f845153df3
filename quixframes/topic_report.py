"""What ``client.topics`` shows of a topic: records with tables, which a notebook draws. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from quixframes.kafka import TopicDetails
from quixframes.topic_spec import duration_text, size_text
from quixframes.topic_survey import Survey, moment_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Balance", "TopicReport", "balance_of", "report_of"]

Offsets = Mapping[int, int]
Frame = pd.DataFrame


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TopicReport:
    """A topic as it is at a moment.

    Attributes:
        name, id: its name; and what tells it from another that had the name before.
        partitions, replication: how many partitions, and how many brokers keep each row.
        message_limit: the largest message, in bytes.
        compacted: whether it keeps the last message of each key for good; None where that may not be seen.
        settings: its own settings, by Kafka's names; all others are the cluster's defaults.
        messages: how many offsets it retains. Transactions and compaction make that more than there are messages.
        bytes: what one copy of it takes on disk, compressed; None where nobody tells (the transport "confluent" cannot
            ask, and a principal may not be allowed to).
        stored: that of all replicas together: what it really costs.
        oldest, newest: event times of its rows and events; None without any. From the first and the last messages of
            each partition, or from all of them with ``rows=True``.
        rows, streams: how many; None but with ``rows=True``. Rows of messages that quixframes did not write are not
            known.
        by_partition: a row for each partition: leader, replicas, in_sync (brokers), bytes, first and end (the first
            offset, and the one after the last), messages; rows and streams too with ``rows=True``.
        lag: a row for each group that has committed, and each partition: committed (the offset), lag (in offsets).
    """

    name: str
    id: str
    partitions: int
    replication: int
    message_limit: int
    compacted: bool | None
    settings: Mapping[str, str]
    messages: int
    bytes: int | None
    stored: int | None
    oldest: pd.Timestamp | None
    newest: pd.Timestamp | None
    rows: int | None
    streams: int | None
    by_partition: Frame
    lag: Frame

    @property
    def facts(self) -> dict[str, str]:
        """All but the tables, as text."""
        unknown = "unknown"
        facts = {"partitions": f"{self.partitions}, on {self.replication} broker{'s' * (self.replication > 1)} each"}
        if behind := self.under_replicated:
            facts["not in sync"] = f"partition{'s' * (len(behind) > 1)} {', '.join(map(str, behind))}"
        if self.rows is not None:
            facts["rows"] = f"{self.rows:,}, of {self.streams:,} streams"
        facts["messages"] = f"{self.messages:,}"
        if self.bytes is None or self.stored is None:
            facts["size"] = unknown
        else:
            facts["size"] = f"{size_text(self.bytes)}; {size_text(self.stored)} with all replicas"
        facts["event time"] = unknown if self.oldest is None else f"{self.oldest} to {self.newest}"
        facts["retention"] = _retention(self.settings, self.partitions) or "the cluster's default"
        facts["message limit"] = size_text(self.message_limit)
        for group, lag in self.lag.groupby(level="group")["lag"].sum().items():
            facts[f"lag of {group}"] = f"{lag:,} messages"
        return facts

    @property
    def under_replicated(self) -> list[int]:
        """The partitions of which not all replicas are in sync."""
        table = self.by_partition
        return [
            int(n) for n, a, b in zip(table.index, table["replicas"], table["in_sync"], strict=True) if len(a) > len(b)
        ]

    def __repr__(self) -> str:
        lines = [f"<Topic {self.name!r}", *(f"  {name}: {text}" for name, text in self.facts.items())]
        return "\n".join(lines) + ">"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self.facts.items()
        )
        table: str = self.by_partition._repr_html_()  # type: ignore[operator]
        return f"<p><b>Topic {html.escape(self.name)}</b></p><table>{cells}</table>{table}"


def report_of(
    details: TopicDetails,
    *,
    message_limit: int,
    begin: Offsets,
    end: Offsets,
    groups: Mapping[str, Offsets],
    surveys: Mapping[int, Survey],
    whole: bool,
) -> TopicReport:
    """The report.

    Args:
        details, message_limit: what the cluster says of the topic.
        begin, end: the first offset of each partition, and the one after the last.
        groups: what each group has committed.
        surveys: what was read of each partition.
        whole: whether that was all of it.
    """
    parts = [part for part in details.partitions if part.number in end]
    table: dict[str, Any] = {
        "leader": pd.array([part.leader for part in parts], dtype="Int64"),
        "replicas": [part.replicas for part in parts],
        "in_sync": [part.in_sync for part in parts],
        "bytes": pd.array([part.size for part in parts], dtype="Int64"),
        "first": [begin.get(part.number, 0) for part in parts],
        "end": [end[part.number] for part in parts],
    }
    table["messages"] = [last - first for first, last in zip(table["first"], table["end"], strict=True)]
    if whole:
        table |= _counts(surveys, [part.number for part in parts])
    sizes, stored = [part.size for part in parts], [part.stored for part in parts]
    policy = details.settings.get("cleanup.policy")
    return TopicReport(
        name=details.name,
        id=details.id,
        partitions=len(details.partitions),
        replication=min(len(part.replicas) for part in details.partitions),
        message_limit=message_limit,
        compacted=None if policy is None else policy == "compact",
        settings={name: value for name, value in details.settings.items() if name in details.own},
        messages=sum(table["messages"]),
        bytes=_sum(sizes),
        stored=_sum(stored),
        oldest=moment_of((one.first for one in surveys.values()), newest=False),
        newest=moment_of((one.last for one in surveys.values()), newest=True),
        rows=sum(one.rows for one in surveys.values()) if whole else None,
        streams=len(set().union(*(one.streams for one in surveys.values()))) if whole else None,
        by_partition=pd.DataFrame(table, index=pd.Index([part.number for part in parts], name="partition")),
        lag=_lag(begin, end, groups),
    )


def _lag(begin: Offsets, end: Offsets, groups: Mapping[str, Offsets]) -> Frame:
    places = [(group, number) for group in groups for number in end]
    committed = [groups[group].get(number) for group, number in places]
    lag = [
        max(0, end[number] - max(begin.get(number, 0), 0 if offset is None else offset))
        for (_, number), offset in zip(places, committed, strict=True)
    ]
    index = pd.MultiIndex.from_tuples(places, names=["group", "partition"]) if places else pd.MultiIndex.from_arrays(
        [pd.Index([], dtype=object), pd.Index([], dtype="int64")], names=["group", "partition"]
    )  # fmt: skip
    return pd.DataFrame(
        {"committed": pd.array(committed, dtype="Int64"), "lag": pd.array(lag, dtype="int64")}, index=index
    )


def _sum(numbers: list[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _retention(settings: Mapping[str, str], partitions: int) -> str:
    parts = []
    if (time := settings.get("retention.ms")) is not None:
        parts.append("forever" if int(time) < 0 else duration_text(int(time)))
    if (size := settings.get("retention.bytes")) is not None and int(size) >= 0:
        parts.append(f"{size_text(int(size) * partitions)} ({size_text(int(size))} in each partition)")
    return " or ".join(parts)


def _counts(surveys: Mapping[int, Survey], numbers: list[int]) -> dict[str, list[int]]:
    found = [surveys.get(number, Survey()) for number in numbers]
    return {"rows": [one.rows for one in found], "streams": [len(one.streams) for one in found]}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Balance:
    """How evenly a topic's partitions are filled.

    Attributes:
        topic: its name.
        table: a row for each partition: streams, rows, messages, bytes (of messages as they were written, before Kafka
            compresses them).
    """

    topic: str
    table: Frame

    @property
    def imbalance(self) -> dict[str, float]:
        """For each column the fullest partition against the mean: 1 is even; 2 says that one has double its share."""
        means = self.table.mean()
        return {str(name): float(self.table[name].max() / mean) if mean else 1.0 for name, mean in means.items()}

    def plot(self) -> Figure:
        """A figure: streams, rows and bytes of each partition, and their means. Needs the extra ``plot``."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 2.8), layout="constrained")
        for axes, name in zip(figure.subplots(1, 3), ("streams", "rows", "bytes"), strict=True):
            axes.bar(self.table.index, self.table[name])
            axes.axhline(self.table[name].mean(), color="black", linewidth=1, linestyle="--")
            axes.set_title(f"{name}: fullest {self.imbalance[name]:.2f} × mean")
            axes.set_xlabel("partition")
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.suptitle(f"Topic {self.topic}")
        return figure

    def _summary(self) -> str:
        total = self.table.sum()
        return (
            f"{total['streams']:,} streams, {total['rows']:,} rows, {size_text(total['bytes'])} in {len(self.table)} "
            "partitions; the fullest against the mean: "
            + ", ".join(f"{name} {self.imbalance[name]:.2f}" for name in ("streams", "rows", "bytes"))
        )

    def __repr__(self) -> str:
        return f"<Balance of topic {self.topic!r}: {self._summary()}\n{self.table.to_string()}>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("partition", *self.table.columns))
        most = self.table.max()
        rows = (
            f"<tr><td>{number}</td>" + "".join(_bar(row[name], most[name]) for name in self.table.columns) + "</tr>"
            for number, row in self.table.iterrows()
        )
        title = f"<p><b>Topic {html.escape(self.topic)}</b>: {html.escape(self._summary())}</p>"
        return f"{title}<table><tr>{head}</tr>{''.join(rows)}</table>"


def _bar(value: int, most: int) -> str:
    share = 100 * value / most if most else 0
    look = f"linear-gradient(to right, #9ecae1 {share:.1f}%, transparent {share:.1f}%)"
    return f"<td style='min-width:9em;text-align:left;background:{look}'>{value:,}</td>"


def balance_of(topic: str, surveys: Mapping[int, Survey]) -> Balance:
    """The balance that was found by reading."""
    table = {
        "streams": [len(one.streams) for one in surveys.values()],
        "rows": [one.rows for one in surveys.values()],
        "messages": [one.messages for one in surveys.values()],
        "bytes": [one.bytes for one in surveys.values()],
    }
    return Balance(topic, pd.DataFrame(table, index=pd.Index(list(surveys), name="partition"), dtype="int64"))
