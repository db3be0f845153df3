"""A pipeline as text: a tree from its first topics, with rates and lag on the arrows. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from quixframes.governance import Edge, Graph
from quixframes.pipeline_picture import edge_label, rate_text

__all__ = ["to_text"]


def to_text(graph: Graph) -> str:
    """The graph, and below it its breaches.

    What comes from several topics, or goes around in a cycle, is drawn once; where it comes again it stands as a name
    with an arrow up.
    """
    tree = _Tree(graph)
    lines = [line for topic in tree.firsts() for line in tree.of(topic)]
    if graph.breaches:
        lines += ["", f"{len(graph.breaches)} {'breach' if len(graph.breaches) == 1 else 'breaches'}:"]
        lines += [f"  {one.topic}: {one.kind}: {one.detail}" for one in graph.breaches]
    return "\n".join(lines)


class _Tree:
    """Draws each topic once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._drawn: set[str] = set()

    def firsts(self) -> Iterator[str]:
        """Where to begin: topics that are made from nothing; then one of each cycle that nothing else leads to."""
        made = {edge.target for edge in self._graph.edges if edge.source}
        yield from (name for name in [*self._graph.missing, *self._graph.topics] if name not in made)
        yield from (name for name in self._graph.topics if name not in self._drawn)

    def of(self, topic: str) -> Iterator[str]:
        """The lines of a topic and of all that comes after it."""
        origins = [edge.by for edge in self._graph.edges if edge.target == topic and edge.source is None]
        yield f"[{origins[0]}] ──▶ {self._name(topic)}" if origins else self._name(topic)
        yield from self._after(topic, "")

    def _after(self, topic: str, indent: str) -> Iterator[str]:
        self._drawn.add(topic)
        edges = [edge for edge in self._graph.edges if edge.source == topic]
        for n, edge in enumerate(edges):
            last = n == len(edges) - 1
            again = edge.target in self._drawn
            yield f"{indent}{'└' if last else '├'}{self._arrow(edge)}{' ↑' if again else ''}"
            if edge.target is not None and not again:
                yield from self._after(edge.target, indent + ("    " if last else "│   "))

    def _arrow(self, edge: Edge) -> str:
        label = edge_label(edge)
        text = f"─ {label} ─▶" if label else "──▶"
        if edge.by:
            text += f" [{edge.by}]" if edge.target else f" {edge.by}"
        if edge.target is None:
            return text
        rate = rate_text(self._graph.topics[edge.target].rate)
        between = (f" ─ {rate} ─▶" if rate else " ──▶") if edge.by else ""
        return f"{text}{between} {self._name(edge.target)}{'' if edge.declared else ' (undeclared)'}"

    def _name(self, topic: str) -> str:
        found = self._graph.topics.get(topic)
        if found is None:
            return f"{topic} (is not there)"
        return f"{topic} ({found.about.stage})" if found.about.stage else topic
