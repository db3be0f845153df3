"""Where the nodes of a directed graph go in a picture: in layers, left to right. Pure.

What this module holds to:

- An arrow goes to the right, to a later layer, unless it closes a cycle: those come back, and are told apart.
- An arrow over several layers has a waypoint in each between, so that it passes between the nodes and not over them.
- Few arrows cross, nodes are as near to their neighbours as the gaps allow, and no two overlap.
- The same graph has the same picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Layout", "Size", "lay_out"]

Size = tuple[float, float]
"""Width and height."""
Node = str
_Slot = tuple[Node, int] | tuple[Node, Node, int]  # a node, or a waypoint of an arrow; and its layer

_SWEEPS = 12
_BESIDE = 13.0  # between two arrows at one side of a node, at most


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are: ``nodes`` by the middle of each; ``ways`` from the right of a node, by the two ends of each
    waypoint, to the left of another; ``back`` the arrows that close a cycle: the heights at which they leave, of their
    lane below everything, and at which they enter."""

    width: float
    height: float
    nodes: Mapping[Node, tuple[float, float]]
    ways: Mapping[tuple[Node, Node], Sequence[tuple[float, float]]]
    back: Mapping[tuple[Node, Node], tuple[float, float, float]]


def lay_out(
    sizes: Mapping[Node, Size],
    edges: Iterable[tuple[Node, Node]],
    *,
    gap: Size = (110.0, 22.0),
    lane: float = 30.0,
) -> Layout:
    """Lay a connected graph out.

    Args:
        sizes: each node's.
        edges: the arrows.
        gap: between layers, and between the nodes of a layer.
        lane: the height that an arrow takes which comes back.
    """
    edges = list(dict.fromkeys(edges))
    back = _closing(sizes, edges)
    forward = [edge for edge in edges if edge not in back]
    layer = _layers(sizes, forward)
    slots, links = _slots(layer, forward)
    rows = _ordered(slots, links)
    heights = {slot: sizes[slot[0]][1] if len(slot) == 2 else 14.0 for row in rows for slot in row}
    y = _heights(rows, links, heights, gap[1])

    widths = [max((sizes[slot[0]][0] for slot in row if len(slot) == 2), default=0.0) for row in rows]
    lefts = [sum(widths[:n]) + n * gap[0] for n in range(len(rows))]
    top = min((y[slot] - heights[slot] / 2 for slot in y), default=0.0)
    bottom = max((y[slot] + heights[slot] / 2 for slot in y), default=0.0) - top
    nodes = {
        node: (lefts[layer[node]] + widths[layer[node]] / 2, y[node, layer[node]] - top) for node in sizes
    }  # fmt: skip
    lanes = {edge: bottom + lane * (n + 0.8) for n, edge in enumerate(sorted(back))}
    ends = _ends(nodes, sizes, edges, lanes)
    ways = {}
    for source, target in forward:
        leaves, enters = ends[source, target]
        way = [(nodes[source][0] + sizes[source][0] / 2, leaves)]
        for between in range(layer[source] + 1, layer[target]):
            height = y[source, target, between] - top
            way += [(lefts[between], height), (lefts[between] + widths[between], height)]
        ways[source, target] = [*way, (nodes[target][0] - sizes[target][0] / 2, enters)]
    returns = {edge: (ends[edge][0], height, ends[edge][1]) for edge, height in lanes.items()}
    return Layout(lefts[-1] + widths[-1], bottom + lane * len(back), nodes, ways, returns)


def _ends(
    nodes: Mapping[Node, tuple[float, float]],
    sizes: Mapping[Node, Size],
    edges: Sequence[tuple[Node, Node]],
    lanes: Mapping[tuple[Node, Node], float],
) -> dict[tuple[Node, Node], tuple[float, float]]:
    """The heights at which arrows leave and enter their nodes: beside each other, in the order of where they lead."""
    leaves: dict[tuple[Node, Node], float] = {}
    enters: dict[tuple[Node, Node], float] = {}
    for heights, side in ((leaves, 0), (enters, 1)):
        for node, (_, middle) in nodes.items():
            own = [edge for edge in edges if edge[side] == node]
            own.sort(key=lambda edge: lanes.get(edge, nodes[edge[1 - side]][1]))
            step = min(_BESIDE, sizes[node][1] / 2 / max(len(own) - 1, 1))
            for n, edge in enumerate(own):
                heights[edge] = middle + (n - (len(own) - 1) / 2) * step
    return {edge: (leaves[edge], enters[edge]) for edge in edges}


def _closing(nodes: Iterable[Node], edges: Sequence[tuple[Node, Node]]) -> set[tuple[Node, Node]]:
    """Arrows without which there is no cycle: those that lead back to where a walk from the first nodes came by."""
    after: dict[Node, list[Node]] = {node: [] for node in nodes}
    for source, target in edges:
        after[source].append(target)
    firsts = after.keys() - {target for _, target in edges}
    closing: set[tuple[Node, Node]] = set()
    done: set[Node] = set()
    for start in [*(node for node in after if node in firsts), *after]:
        if start in done:
            continue
        way = [(start, iter(after[start]))]
        on_way = {start}
        while way:
            node, steps = way[-1]
            step = next(steps, None)
            if step is None:
                way.pop()
                on_way.discard(node)
                done.add(node)
            elif step in on_way:
                closing.add((node, step))
            elif step not in done:
                on_way.add(step)
                way.append((step, iter(after[step])))
    return closing


def _layers(nodes: Iterable[Node], edges: Sequence[tuple[Node, Node]]) -> dict[Node, int]:
    """Each node one layer after the last of those before it; one that begins, just before what it leads to."""
    layer = dict.fromkeys(nodes, 0)
    for _ in layer:
        for source, target in edges:
            layer[target] = max(layer[target], layer[source] + 1)
    ends = {target for _, target in edges}
    for node in layer:
        after = [layer[target] for source, target in edges if source == node]
        if node not in ends and after:
            layer[node] = min(after) - 1
    return layer


def _slots(
    layer: Mapping[Node, int], edges: Sequence[tuple[Node, Node]]
) -> tuple[list[list[_Slot]], list[tuple[_Slot, _Slot]]]:
    """The nodes and waypoints of each layer, and what links them from one layer to the next."""
    slots: list[list[_Slot]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    links: list[tuple[_Slot, _Slot]] = []
    for node, number in layer.items():
        slots[number].append((node, number))
    for source, target in edges:
        before: _Slot = (source, layer[source])
        for between in range(layer[source] + 1, layer[target]):
            slot = (source, target, between)
            slots[between].append(slot)
            links.append((before, slot))
            before = slot
        links.append((before, (target, layer[target])))
    return slots, links


def _ordered(rows: list[list[_Slot]], links: Sequence[tuple[_Slot, _Slot]]) -> list[list[_Slot]]:
    """Each layer in the order of the middles of its neighbours, of which that with the fewest crossings is kept."""
    before: dict[_Slot, list[_Slot]] = {}
    after: dict[_Slot, list[_Slot]] = {}
    for source, target in links:
        before.setdefault(target, []).append(source)
        after.setdefault(source, []).append(target)
    best, fewest = rows, _crossings(rows, links)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        sides = (
            [(n, before) for n in range(1, len(rows))]
            if sweep % 2 == 0
            else [(n, after) for n in range(len(rows) - 2, -1, -1)]
        )
        rows = [list(row) for row in rows]
        for n, neighbours in sides:
            at = {slot: index for row in rows for index, slot in enumerate(row)}

            def middle(
                slot: _Slot, at: Mapping[_Slot, int] = at, of: Mapping[_Slot, list[_Slot]] = neighbours
            ) -> float:
                others = of.get(slot, [slot])
                return sum(at[other] for other in others) / len(others)

            rows[n].sort(key=middle)
        count = _crossings(rows, links)
        if count < fewest:
            best, fewest = rows, count
    return best


def _crossings(rows: Sequence[Sequence[_Slot]], links: Sequence[tuple[_Slot, _Slot]]) -> int:
    at = {slot: (n, index) for n, row in enumerate(rows) for index, slot in enumerate(row)}
    count = 0
    for i, (a, b) in enumerate(links):
        for c, d in links[i + 1 :]:
            if at[a][0] == at[c][0] and (at[a][1] - at[c][1]) * (at[b][1] - at[d][1]) < 0:
                count += 1
    return count


def _heights(
    rows: Sequence[Sequence[_Slot]],
    links: Sequence[tuple[_Slot, _Slot]],
    heights: Mapping[_Slot, float],
    gap: float,
) -> dict[_Slot, float]:
    """The middle of each slot's height: as near to its neighbours' as the others of its layer allow."""
    y: dict[_Slot, float] = {}
    for row in rows:
        at = -sum(heights[slot] + gap for slot in row) / 2
        for slot in row:
            y[slot] = at + heights[slot] / 2
            at += heights[slot] + gap
    # What has but one arrow on that side, and waypoints most of all, pull hard, so that chains are straight.
    leaving, entering = Counter(source for source, _ in links), Counter(target for _, target in links)
    near: dict[_Slot, dict[_Slot, float]] = {slot: {} for slot in y}
    for source, target in links:
        weight = (4.0 if leaving[source] == 1 == entering[target] else 1.0) * (len(source) + len(target) - 3) ** 2
        near[source][target] = near[target][source] = weight
    for sweep in range(_SWEEPS * 4):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = [
                sum(y[other] * weight for other, weight in near[slot].items()) / sum(near[slot].values())
                if near[slot]
                else y[slot]
                for slot in row
            ]
            y.update(zip(row, _apart(wanted, [heights[slot] for slot in row], gap), strict=True))
    return y


def _apart(wanted: Sequence[float], heights: Sequence[float], gap: float) -> list[float]:
    """Heights in this order that are as near to those wanted (in least squares) as keeping them apart allows."""
    offsets = [0.0]
    for above, below in pairwise(heights):
        offsets.append(offsets[-1] + (above + below) / 2 + gap)
    blocks: list[tuple[float, int]] = []  # of slots that touch: the sum of what they want, and how many they are
    for want, offset in zip(wanted, offsets, strict=True):
        blocks.append((want - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = blocks[-1][0] + total, blocks[-1][1] + count
    levels = [total / count for total, count in blocks for _ in range(count)]
    return [level + offset for level, offset in zip(levels, offsets, strict=True)]
