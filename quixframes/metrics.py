"""What a client has done and holds, as numbers with names. Nothing is counted here: it is read where it is.

What this module holds to:

- Who asks pays. Reading and writing keep plain numbers, most of which they need anyway; a look at them takes a lock of
  a reader for as long as it takes to add up its partitions.
- A counter never falls for as long as its client is there: what topics had counted when they were closed stays in it.
- One name has one meaning, one unit and the same labels, always. ``DEFINITIONS`` is the list of them, from which
  ``docs/metrics.md`` is checked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import pandas as pd

from quixframes.input import InputTopic
from quixframes.output import Outputs, OutputTopic
from quixframes.transactions import TransactionalCommits

if TYPE_CHECKING:
    from quixframes.client import StreamingClient

__all__ = ["DEFINITIONS", "Book", "Clients", "Definition", "Metric", "metrics_of", "to_frame"]

Kind = Literal["counter", "gauge"]
Labels = tuple[str, ...]
Clients: TypeAlias = "StreamingClient | Mapping[str, StreamingClient]"
"""A client; or several by names, which their metrics then have as the label ``client``."""

Reading = tuple[str, Labels, float]
"""A name, the values of its labels, and the value."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a metric is.

    Attributes:
        name: by Prometheus' rules: the unit, if any, is in it, and a counter's ends in ``_total``.
        kind: a counter only rises; a gauge is how it is now.
        unit: "rows", "bytes", "seconds", ...
        help: what it says, in a sentence.
        labels: the names of its labels.
        largest: where two open topics of a client have the same labels: the larger value, and not the sum.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: Labels
    largest: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """One number. The attributes but for the last two are those of :class:`Definition`.

    Attributes:
        labels: what it is the number of, by the labels' names.
        value: how much.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: Mapping[str, str]
    value: float


_CLIENT: Labels = ()
_READER: Labels = ("topic", "group")
_PARTITION: Labels = ("topic", "group", "partition")
_WRITER: Labels = ("topic",)


def _define() -> Iterator[Definition]:
    def counter(name: str, unit: str, labels: Labels, text: str) -> Definition:
        return Definition(f"quixframes_{name}_total", "counter", unit, text, labels)

    def gauge(name: str, unit: str, labels: Labels, text: str, largest: bool = False) -> Definition:
        return Definition(f"quixframes_{name}", "gauge", unit, text, labels, largest)

    yield counter("rows_read", "rows", _READER, "Rows that the loop was handed in batches and came back for more.")
    yield counter("batches_read", "batches", _READER, "Batches of these rows.")
    yield counter("messages_read", "messages", _READER, "Messages that arrived from the cluster.")
    yield counter("bytes_read", "bytes", _READER, "Bytes of these messages' values.")
    yield counter("model_seconds", "seconds", _READER, "Time for which batches were out in the loop.")
    yield counter("commits", "commits", _READER, "Commits that the cluster acknowledged.")
    yield counter("commits_moved_on", "commits", _READER, "Commits that came after their partition had gone.")
    yield counter("transactions", "transactions", _READER, "Transactions committed (exactly once only).")
    yield counter("transactions_aborted", "transactions", _READER, "Transactions aborted (exactly once only).")
    yield counter("rebalances", "changes", _READER, "Times that partitions were assigned, revoked or lost.")
    yield gauge("partitions", "partitions", _READER, "Partitions that are read here; 0: the group has none for it.")
    yield counter("dead_letters", "messages", _READER, "Messages that the dead-letter topic has acknowledged.")
    yield counter("messages_skipped", "messages", _READER, "Messages that could not be read, and were skipped.")
    yield counter("messages_gone", "messages", _READER, "Messages that retention removed before they were read.")
    yield counter("messages_overdue", "messages", _READER, "Messages that were not there at their turn in a stream.")
    yield counter("messages_late", "messages", _READER, "Messages that came after later ones of their stream.")
    yield counter("messages_repeated", "messages", _READER, "Messages that had come before, by their stream's count.")
    yield counter("out_of_reach_seconds", "seconds", _READER, "Time for which no broker answered.")
    yield gauge("prefetched_bytes", "bytes", _READER, "Bytes of messages that are read ahead of the loop.")
    yield gauge("held_bytes", "bytes", _READER, "Bytes of rows and events that wait in the reader's buffers.")
    yield counter("rows_in", "rows", _PARTITION, "Rows taken in: the sum of the next four and of those held.")
    yield counter("rows_processed", "rows", _PARTITION, "Rows finished by the model.")
    yield counter("rows_dead_lettered", "rows", _PARTITION, "Rows finished by a dead letter.")
    yield counter("rows_filtered", "rows", _PARTITION, "Rows that a filter removed, or dropped as repetitions.")
    yield counter("rows_let_go", "rows", _PARTITION, "Rows given up unfinished: they come again, here or elsewhere.")
    yield gauge("rows_held", "rows", _PARTITION, "Rows in buffers, or handed over and not finished.")
    yield gauge("lag_messages", "messages", _PARTITION, "Messages from the first unfinished to the end.", True)
    yield gauge("lag_seconds", "seconds", _PARTITION, "Age in Kafka of the last message taken in; 0: none waits.", True)
    yield counter("rows_written", "rows", _WRITER, "Rows sent.")
    yield counter("events_written", "events", _WRITER, "Events, properties and ends of streams sent.")
    yield counter("messages_written", "messages", _WRITER, "Messages sent.")
    yield counter("bytes_written", "bytes", _WRITER, "Bytes of these messages' values.")
    yield counter("rows_rejected", "rows", _WRITER, "Rows that the topic's contract sent to the dead-letter topic.")
    yield gauge("streams_open", "streams", _WRITER, "Streams that are open for writing.")
    yield gauge("buffered_bytes", "bytes", _WRITER, "Bytes of rows that wait in the streams' buffers.")
    yield gauge("in_flight_bytes", "bytes", _CLIENT, "Bytes sent and not yet acknowledged.")
    yield counter("in_flight_wait_seconds", "seconds", _CLIENT, "Time for which writes waited for room among these.")
    yield counter("messages_failed", "messages", _CLIENT, "Messages that were not delivered.")


DEFINITIONS: Mapping[str, Definition] = {definition.name: definition for definition in _define()}
"""Every metric there is, by name."""


class Book:
    """The open topics of one client, and what those had counted that were closed. Safe in any thread.

    Args:
        outputs: the client's.
    """

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self._lock = threading.Lock()
        self._open: list[InputTopic | OutputTopic] = []
        self._past: dict[tuple[str, Labels], float] = {}
        self._told: dict[tuple[str, Labels], float] = {}

    def add(self, topic: InputTopic | OutputTopic) -> None:
        """A topic was opened."""
        with self._lock:
            self._open.append(topic)

    def remove(self, topic: InputTopic | OutputTopic) -> None:
        """A topic was closed: keep what it had counted, and forget it."""
        with self._lock:
            if topic in self._open:
                self._open.remove(topic)
                for name, labels, value in _readings(topic):
                    if DEFINITIONS[name].kind == "counter":
                        self._past[name, labels] = self._past.get((name, labels), 0) + value

    def metrics(self) -> list[Metric]:
        """How everything is now, in the order of ``DEFINITIONS``."""
        with self._lock:
            found = dict(self._past)
            for name, labels, value in self._all_readings():
                known = found.get((name, labels), 0)
                found[name, labels] = max(known, value) if DEFINITIONS[name].largest else known + value
            for key in found:
                # What is read while it changes may be ahead of itself: nothing that was told is taken back.
                if DEFINITIONS[key[0]].kind == "counter":
                    found[key] = self._told[key] = max(found[key], self._told.get(key, 0))
        order = {name: n for n, name in enumerate(DEFINITIONS)}
        return [_metric(*key, found[key]) for key in sorted(found, key=lambda key: (order[key[0]], key[1]))]

    def _all_readings(self) -> Iterator[Reading]:
        for topic in self._open:
            yield from _readings(topic)
        in_flight = self._outputs.in_flight
        yield "quixframes_in_flight_bytes", (), in_flight.bytes
        yield "quixframes_in_flight_wait_seconds_total", (), in_flight.waited
        yield "quixframes_messages_failed_total", (), self._outputs.failures


def _metric(name: str, labels: Labels, value: float) -> Metric:
    what = DEFINITIONS[name]
    return Metric(name, what.kind, what.unit, what.help, dict(zip(what.labels, labels, strict=True)), value)


def _readings(topic: InputTopic | OutputTopic) -> Iterator[Reading]:
    return _of_output(topic) if isinstance(topic, OutputTopic) else _of_input(topic)


def _of_input(topic: InputTopic) -> Iterator[Reading]:
    poller, gatherer, commits = topic._poller, topic._gatherer, topic._commits
    group = topic.consumer_group or ""
    faults = gatherer.fault_counts.copy().values()
    late = sum(counts.out_of_order for counts in faults)
    values: dict[str, float] = {
        "rows_read_total": topic.rows_read,
        "batches_read_total": topic.batches_read,
        "messages_read_total": poller.messages_read,
        "bytes_read_total": poller.bytes_read,
        "model_seconds_total": topic.model_seconds,
        "commits_total": poller.commits,
        "commits_moved_on_total": poller.commits_moved_on,
        "rebalances_total": poller.rebalances,
        "partitions": len(poller.assignments),
        "dead_letters_total": topic.dead_lettered,
        "messages_skipped_total": gatherer.bad_messages,
        "messages_gone_total": poller.messages_gone,
        "messages_overdue_total": late + sum(counts.missing for counts in faults),
        "messages_late_total": late,
        "messages_repeated_total": sum(counts.repeated for counts in faults),
        "out_of_reach_seconds_total": poller.outage.waited(time.monotonic()),
        "prefetched_bytes": poller.prefetched_bytes,
        "held_bytes": gatherer.held_bytes,
    }
    if isinstance(commits, TransactionalCommits):
        values |= {"transactions_total": commits.transactions, "transactions_aborted_total": commits.aborted}
    for name, value in values.items():
        yield f"quixframes_{name}", (topic.name, group), value
    yield from _of_partitions(topic, group)


def _of_partitions(topic: InputTopic, group: str) -> list[Reading]:
    """All at one moment, so that the account of a partition adds up."""
    found: list[Reading] = []
    now_ms = time.time_ns() // 1_000_000
    with topic._poller.lock:
        assignments = topic._poller.assignments
        for at, account in topic._poller.accounts.items():
            assignment = assignments.get(at)
            values: dict[str, float | None] = {
                "rows_in_total": account.rows_in,
                "rows_processed_total": account.processed,
                "rows_dead_lettered_total": account.dead_lettered,
                "rows_filtered_total": account.filtered,
                "rows_let_go_total": account.let_go,
            }
            if assignment is not None:
                values |= {
                    "rows_held": assignment.held,
                    "lag_messages": assignment.lag,
                    "lag_seconds": assignment.lag_seconds(now_ms),
                }
            labels = (at.topic, group, str(at.number))
            found += [(f"quixframes_{name}", labels, value) for name, value in values.items() if value is not None]
    return found


def _of_output(topic: OutputTopic) -> Iterator[Reading]:
    streams = topic.streams.values()
    values = {
        "rows_written_total": topic.rows_written,
        "events_written_total": topic.events_written,
        "messages_written_total": topic.messages_written,
        "bytes_written_total": topic.bytes_written,
        "rows_rejected_total": topic.rows_dead,
        "streams_open": len(streams),
        "buffered_bytes": sum(stream.parameters.buffer.nbytes for stream in streams),
    }
    for name, value in values.items():
        yield f"quixframes_{name}", (topic.name,), value


def metrics_of(clients: Clients) -> list[Metric]:
    """The metrics of a client, or of several by names, which are then labelled with these; sorted by
    ``DEFINITIONS``."""
    if not isinstance(clients, Mapping):
        return clients._book.metrics()
    order = {name: n for n, name in enumerate(DEFINITIONS)}
    found = [
        Metric(one.name, one.kind, one.unit, one.help, {"client": name, **one.labels}, one.value)
        for name, client in clients.items()
        for one in client._book.metrics()
    ]
    return sorted(found, key=lambda one: order[one.name])


def to_frame(metrics: Iterable[Metric]) -> pd.DataFrame:
    """Metrics as :meth:`StreamingClient.metrics` describes them."""
    metrics = list(metrics)
    text = pd.StringDtype()
    columns = {
        "metric": pd.array([one.name for one in metrics], text),
        "topic": pd.array([one.labels.get("topic") for one in metrics], text),
        "group": pd.array([one.labels.get("group") or None for one in metrics], text),
        "partition": pd.array(
            [int(one.labels["partition"]) if "partition" in one.labels else None for one in metrics], "Int64"
        ),
        "value": pd.array([one.value for one in metrics], "float64"),
        "kind": pd.array([one.kind for one in metrics], text),
        "unit": pd.array([one.unit for one in metrics], text),
    }
    return pd.DataFrame(columns)
