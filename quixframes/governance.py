"""The graph of a cluster's topics, models and groups; and what in it breaks the rules. Pure.

What this module holds to:

- What is said of a topic (``made_from``, ``model``) and what is seen (which groups have committed of which topic) are
  both in the graph: a model that reads what nobody said it reads has an arrow too, and is told as a breach.
- A model is known by its name, which is that of its consumer group.
- A breach is one row: what kind, of which topic, which model or group has to do with it, and a sentence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from quixframes.about import PROTOTYPE, TopicAbout

__all__ = ["Breach", "Edge", "Graph", "TopicFacts", "cycles"]

Kind = Literal["does not conform", "cycle", "orphan", "prototype in production", "undeclared", "name"]


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What is known of a topic.

    Attributes:
        name: the topic's.
        about: what is said about it.
        messages: how many are in it, as offsets have it.
        rate: messages a second that came lately; None where that is not known.
        lags: the groups that have committed of it, and how many messages each has before it.
        contract: whether it has one.
        looked_at: how many of its newest messages were held against the contract,
        refused: how many of those do not keep it,
        reason: and why the last of them does not.
        naming: why its name does not keep the cluster's rule; None where it does.
    """

    name: str
    about: TopicAbout = field(default_factory=TopicAbout)
    messages: int = 0
    rate: float | None = None
    lags: Mapping[str, int] = field(default_factory=dict)
    contract: bool = False
    looked_at: int = 0
    refused: int = 0
    reason: str = ""
    naming: str | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow: from the topic ``source``, through the model or group ``by``, to the topic ``target``.

    ``target`` is None for a group that makes no topic that we know of, ``by`` where nobody said what makes the target,
    and ``source`` where nobody said what it is made from. ``rate`` is that of the source, ``lag`` that of ``by`` in it;
    None where it is not known. ``declared`` is whether it was said, by ``set_about``, or is only seen.
    """

    source: str | None
    by: str | None
    target: str | None
    rate: float | None = None
    lag: int | None = None
    declared: bool = True


@dataclass(frozen=True, slots=True)
class Breach:
    """Something that breaks the rules. ``group`` is the model or group that has to do with it, if any."""

    kind: Kind
    topic: str
    group: str | None
    detail: str


class Graph:
    """Topics, what is made of what by which model, and who reads them besides.

    Args:
        topics: what is known of each.
    """

    def __init__(self, topics: Iterable[TopicFacts]) -> None:
        self.topics = {one.name: one for one in sorted(topics, key=lambda one: one.name)}
        self.edges = tuple(self._edges())
        self.missing = sorted({edge.source for edge in self.edges if edge.source} - self.topics.keys())
        """Topics of which others are said to be made, and which are not there."""
        self.cycles = cycles([(edge.source, edge.target) for edge in self.edges if edge.source and edge.target])
        self.breaches = tuple(
            breach
            for rule in (
                self._unconforming,
                self._cycling,
                self._prototypes,
                self._undeclared,
                self._orphans,
                self._named,
            )
            for breach in rule()
        )

    # The arrows

    def _edges(self) -> Iterator[Edge]:
        made: dict[str, list[TopicFacts]] = {}  # by model
        for topic in self.topics.values():
            if topic.about.model:
                made.setdefault(topic.about.model, []).append(topic)
            for source in topic.about.made_from:
                yield self._edge(source, topic.about.model, topic.name)
            if topic.about.model and not topic.about.made_from:
                yield Edge(None, topic.about.model, topic.name)
        for topic in self.topics.values():
            for group in sorted(topic.lags):
                if group not in made:
                    yield self._edge(topic.name, group, None)
                elif not any(topic.name in target.about.made_from for target in made[group]):
                    for target in made[group]:
                        yield self._edge(topic.name, group, target.name, declared=False)

    def _edge(self, source: str, by: str | None, target: str | None, *, declared: bool = True) -> Edge:
        found = self.topics.get(source)
        if found is None:
            return Edge(source, by, target)
        return Edge(source, by, target, found.rate, None if by is None else found.lags.get(by), declared)

    # The rules

    def _unconforming(self) -> Iterator[Breach]:
        for topic in self.topics.values():
            if topic.refused:
                models = {edge.by for edge in self.edges if edge.source == topic.name and edge.by}
                readers: list[str | None] = [*sorted(models | topic.lags.keys())]
                for group in readers or [None]:
                    yield Breach(
                        "does not conform",
                        topic.name,
                        group,
                        f"{topic.refused} of the {topic.looked_at} newest messages do not keep the contract"
                        f"{f', and {group} reads them' if group else ''}: {topic.reason}",
                    )

    def _cycling(self) -> Iterator[Breach]:
        for cycle in self.cycles:
            path = " → ".join([*cycle, cycle[0]])
            models = {edge.by for edge in self.edges if (edge.source, edge.target) in _steps(cycle) and edge.by}
            yield Breach("cycle", cycle[0], ", ".join(sorted(models)) or None, f"it is made from itself: {path}")

    def _prototypes(self) -> Iterator[Breach]:
        """A topic counts as production that has a stage, whatever it is, but that of prototypes."""
        for topic in self.topics.values():
            if topic.about.stage == PROTOTYPE:
                for path in self._paths_to_production(topic.name):
                    group = next((edge.by for edge in self.edges if (edge.source, edge.target) == path[-2:]), None)
                    stage = self.topics[path[-1]].about.stage
                    yield Breach(
                        "prototype in production",
                        path[-1],
                        group,
                        f"it is {stage}, and is made from the prototype {topic.name}: {' → '.join(path)}",
                    )

    def _paths_to_production(self, prototype: str) -> Iterator[tuple[str, ...]]:
        """To the first of production on each way, by topics of which no stage is said."""
        ways: deque[tuple[str, ...]] = deque([(prototype,)])
        seen = {prototype}
        while ways:
            way = ways.popleft()
            for edge in self.edges:
                if edge.source == way[-1] and edge.target is not None and edge.target not in seen:
                    seen.add(edge.target)
                    stage = self.topics[edge.target].about.stage
                    if stage is None:
                        ways.append((*way, edge.target))
                    elif stage != PROTOTYPE:  # what is made from another prototype is told of that one
                        yield (*way, edge.target)

    def _undeclared(self) -> Iterator[Breach]:
        for edge in self.edges:
            if not edge.declared and edge.target is not None:
                yield Breach(
                    "undeclared",
                    edge.target,
                    edge.by,
                    f"{edge.by}, which makes it, also reads {edge.source}, of which made_from says nothing",
                )

    def _orphans(self) -> Iterator[Breach]:
        touched = {edge.source for edge in self.edges} | {edge.target for edge in self.edges}
        for topic in self.topics.values():
            for source in topic.about.made_from:
                if source not in self.topics:
                    yield Breach(
                        "orphan", topic.name, topic.about.model, f"it is made from {source}, which is not there"
                    )
            if topic.name not in touched:
                yield Breach("orphan", topic.name, None, "nobody reads it, and nobody said what it is made from or for")
            elif topic.about.stage in ("clean", "results") and not topic.about.made_from:
                yield Breach(
                    "orphan",
                    topic.name,
                    topic.about.model,
                    f"it is {topic.about.stage}, and nobody said of what it is made",
                )

    def _named(self) -> Iterator[Breach]:
        for topic in self.topics.values():
            if topic.naming is not None:
                yield Breach("name", topic.name, None, topic.naming)


def cycles(edges: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """A shortest cycle through each set of nodes that all lead to each other; each begins with its least node.

    >>> cycles([("a", "b"), ("b", "c"), ("c", "b"), ("d", "d")])
    [('b', 'c'), ('d',)]
    """
    after: dict[str, set[str]] = {}
    for source, target in edges:
        after.setdefault(source, set()).add(target)
    found: list[tuple[str, ...]] = []
    done: set[str] = set()
    for node in sorted(after):
        if node not in done and (cycle := _shortest_back(node, after)):
            found.append(cycle)
            reached = _reached(node, after)
            done |= {other for other in reached if node in _reached(other, after)}
    return found


def _shortest_back(node: str, after: Mapping[str, set[str]]) -> tuple[str, ...] | None:
    ways: deque[tuple[str, ...]] = deque([(node,)])
    seen = {node}
    while ways:
        way = ways.popleft()
        for step in sorted(after.get(way[-1], ())):
            if step == node:
                return way
            if step not in seen:
                seen.add(step)
                ways.append((*way, step))
    return None


def _reached(node: str, after: Mapping[str, set[str]]) -> set[str]:
    """Where one comes from a node, in one step or more."""
    reached: set[str] = set()
    left = [node]
    while left:
        for step in after.get(left.pop(), set()) - reached:
            reached.add(step)
            left.append(step)
    return reached


def _steps(cycle: Sequence[str]) -> set[tuple[str, str]]:
    return set(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
