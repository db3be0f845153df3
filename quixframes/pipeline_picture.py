"""A pipeline as a picture: an SVG that stands by itself. Pure.

Topics are boxes in the colour of their stage, models and groups are rounded, and arrows carry rates and lag. What a
breach is about is red. Every name goes into it escaped: it is somebody else's text.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from quixframes.governance import Edge, Graph
from quixframes.label_places import Place, curve, places
from quixframes.layers import Layout, lay_out

__all__ = ["edge_label", "rate_text", "to_svg"]

_COLOURS = {  # of the stages: fill, and line
    "raw": ("#eef2f7", "#64748b"),
    "clean": ("#e3f1fc", "#2279b5"),
    "results": ("#e5f5ea", "#2b8a4b"),
    "prototype": ("#fdf3d7", "#b7860b"),
}
_OWN, _NONE = ("#f1ebfb", "#7a54b8"), ("#ffffff", "#9aa3ad")
_INK, _FAINT, _RED, _AMBER = "#1f2933", "#5b6672", "#c62828", "#b45309"
_FONT = "font-family='ui-sans-serif,system-ui,Segoe UI,Helvetica,Arial,sans-serif'"
_EDGE_GAP, _ROW_GAP, _PAD, _COMPONENT_GAP, _LOOP = 84.0, 34.0, 20.0, 34.0, 22.0
_LONGEST = 30  # letters of a name
_BEHIND = 60.0  # seconds of lag, at the topic's rate, from which it is pointed out

_Key = str  # "t:engine" for a topic, "m:pace" for a model or a group


@dataclass(frozen=True)
class _Box:
    """A node as it is drawn."""

    lines: tuple[str, ...]
    title: str
    width: float
    height: float
    fill: str
    line: str
    round: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class _Arrow:
    label: str
    behind: bool
    wrong: bool
    dashed: bool


def to_svg(graph: Graph) -> str:
    """The graph as the text of an ``<svg>`` element, with a list of its stages, at most as wide as what it is in."""
    boxes = {**_topic_boxes(graph), **_model_boxes(graph)}
    arrows = _arrows(graph)
    parts: list[str] = []
    y, width = _PAD, 0.0
    alone = set(boxes)
    for keys in _components(boxes, arrows):
        alone.difference_update(keys)
        own = {key: arrow for key, arrow in arrows.items() if key[0] in keys}
        longest = max((_width(arrow.label, 11.5) for arrow in own.values()), default=0.0)
        sizes = {key: (boxes[key].width, boxes[key].height) for key in keys}
        layout = lay_out(sizes, own, gap=(max(_EDGE_GAP, longest + 34), _ROW_GAP))
        margin = _LOOP if layout.back else 0.0
        parts += _drawn(layout, boxes, own, _PAD + margin, y)
        y += layout.height + _COMPONENT_GAP
        width = max(width, layout.width + 2 * margin)
    row_width = max(width, 700.0)
    x = 0.0
    for n, key in enumerate(key for key in boxes if key in alone):
        box = boxes[key]
        if n and x + box.width > row_width:
            x, y = 0.0, y + box.height + 16
        parts += _drawn_box(box, _PAD + x + box.width / 2, y + box.height / 2)
        x += box.width + 20
        width = max(width, x - 20)
    y += (max(boxes[key].height for key in alone) + 16) if alone else -_COMPONENT_GAP + 12
    legend, legend_width = _legend(graph, y + 14)
    width, height = max(width, legend_width) + 2 * _PAD, y + 34
    if not boxes:
        return ""
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' "
        f"style='max-width:100%;height:auto;display:block' role='img' aria-label='{_said(graph)}' {_FONT}>"
        f"<defs>{_marker('quixframes-to', '#7b8794')}{_marker('quixframes-to-red', _RED)}</defs>"
        f"<rect width='100%' height='100%' rx='8' fill='#ffffff'/>{''.join(parts)}{legend}</svg>"
    )


def rate_text(rate: float | None) -> str:
    """A rate as people read it: "12/s", "3/min", "idle"; "" where it is not known."""
    if rate is None:
        return ""
    if rate == 0:
        return "idle"
    if rate >= 1:
        return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
    return f"{rate * 60:.2g}/min" if rate * 60 >= 1 else f"{rate * 3600:.2g}/h"


def edge_label(edge: Edge) -> str:
    """What stands at the arrow from a topic to a model or group: its rate, and the lag."""
    lag = "" if edge.lag is None else f"lag {edge.lag:,}"
    return " · ".join(part for part in (rate_text(edge.rate), lag) if part)


# Nodes


def _topic_boxes(graph: Graph) -> dict[_Key, _Box]:
    wrong = {breach.topic for breach in graph.breaches} | {topic for cycle in graph.cycles for topic in cycle}
    boxes = {}
    for name, topic in graph.topics.items():
        about = topic.about
        fill, line = _NONE if about.stage is None else _COLOURS.get(about.stage, _OWN)
        second = " · ".join(part for part in (about.stage, about.owner and _short(about.owner)) if part)
        title = [name, about.description or "", f"messages: {topic.messages:,}"]
        title += [f"{breach.kind}: {breach.detail}" for breach in graph.breaches if breach.topic == name]
        lines = (_short(name), second) if second else (_short(name),)
        boxes[f"t:{name}"] = _box(
            lines,
            "\n".join(filter(None, title)),
            fill,
            _RED if name in wrong else line,
            dashed=about.stage == "prototype",
        )
    for name in graph.missing:
        boxes[f"t:{name}"] = _box((_short(name), "is not there"), name, "#ffffff", _RED, dashed=True)
    return boxes


def _model_boxes(graph: Graph) -> dict[_Key, _Box]:
    models = {edge.by for edge in graph.edges if edge.by and edge.target}
    readers = {edge.by for edge in graph.edges if edge.by} - models
    boxes = {f"m:{name}": _box((_short(name),), f"model {name}", _INK, _INK, rounded=True) for name in sorted(models)}
    for name in sorted(readers):
        boxes[f"m:{name}"] = _box((_short(name),), f"group {name}", "#ffffff", _INK, rounded=True)
    return boxes


def _box(
    lines: tuple[str, ...], title: str, fill: str, line: str, *, rounded: bool = False, dashed: bool = False
) -> _Box:
    width = max(_width(lines[0], 14.5), *(_width(text, 11.0) for text in lines)) + (34 if rounded else 30)
    return _Box(lines, title, max(width, 84.0), 46.0 if len(lines) > 1 else 32.0, fill, line, rounded, dashed)


# Arrows


def _arrows(graph: Graph) -> dict[tuple[_Key, _Key], _Arrow]:
    on_cycle = {step for cycle in graph.cycles for step in pairwise([*cycle, cycle[0]])}
    arrows: dict[tuple[_Key, _Key], _Arrow] = {}
    for edge in graph.edges:
        wrong = (edge.source, edge.target) in on_cycle
        behind = edge.lag is not None and edge.lag > (edge.rate or 0.0) * _BEHIND
        by, source, target = f"m:{edge.by}", f"t:{edge.source}", f"t:{edge.target}"
        if edge.source and edge.by:
            _add(arrows, source, by, _Arrow(edge_label(edge), behind, wrong, not edge.declared))
        if edge.by and edge.target:
            rate = rate_text(graph.topics[edge.target].rate)
            _add(arrows, by, target, _Arrow(rate, False, wrong, False))
        if edge.source and edge.target and not edge.by:
            _add(arrows, source, target, _Arrow(edge_label(edge), False, wrong, False))
    return arrows


def _add(arrows: dict[tuple[_Key, _Key], _Arrow], source: _Key, target: _Key, new: _Arrow) -> None:
    """Several edges may be one arrow: it is what any of them makes it."""
    old = arrows.get((source, target), new)
    arrows[source, target] = _Arrow(
        old.label, old.behind or new.behind, old.wrong or new.wrong, old.dashed and new.dashed
    )


def _components(boxes: Mapping[_Key, _Box], arrows: Mapping[tuple[_Key, _Key], _Arrow]) -> Iterator[list[_Key]]:
    """The nodes of each part of the graph that hangs together by arrows, the largest first."""
    home = {key: key for key in boxes}

    def root(key: _Key) -> _Key:
        while home[key] != key:
            key = home[key]
        return key

    for source, target in arrows:
        home[root(source)] = root(target)
    parts: dict[_Key, list[_Key]] = {}
    for key in boxes:
        parts.setdefault(root(key), []).append(key)
    yield from sorted((part for part in parts.values() if len(part) > 1), key=len, reverse=True)


# Drawing


def _drawn(
    layout: Layout, boxes: Mapping[_Key, _Box], arrows: Mapping[tuple[_Key, _Key], _Arrow], left: float, top: float
) -> list[str]:
    parts, labels = [], []
    areas = [
        (x + left - box.width / 2, y + top - box.height / 2, x + left + box.width / 2, y + top + box.height / 2)
        for (x, y), box in ((at, boxes[key]) for key, at in layout.nodes.items())
    ]
    ways = {edge: [(x + left, y + top) for x, y in way] for edge, way in layout.ways.items()}
    lines = [(curve(points), _width(arrows[edge].label, 11.5)) for edge, points in ways.items()]
    for (edge, points), place in zip(ways.items(), places(lines, areas), strict=True):
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for n, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
            bend = (x1 - x0) / 2
            path += (
                f" L{x1:.1f} {y1:.1f}"
                if n % 2
                else f" C{x0 + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
            )
        parts.append(_path(path, arrows[edge]))
        labels.append(_label(place, arrows[edge]))
    for (source, target), (leaves, lane, enters) in layout.back.items():
        x0 = layout.nodes[source][0] + boxes[source].width / 2 + left
        x1 = layout.nodes[target][0] - boxes[target].width / 2 + left
        y0, y1, low = leaves + top, enters + top, lane + top
        path = (
            f"M{x0:.1f} {y0:.1f} C{x0 + 34:.1f} {y0:.1f} {x0 + 34:.1f} {low:.1f} {x0 - 6:.1f} {low:.1f} "
            f"L{x1 + 6:.1f} {low:.1f} C{x1 - 34:.1f} {low:.1f} {x1 - 34:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
        )
        parts.append(_path(path, arrows[source, target]))
        labels.append(_label(((x0 + x1) / 2, low - 5, "middle"), arrows[source, target]))
    for key, (x, y) in layout.nodes.items():
        parts += _drawn_box(boxes[key], x + left, y + top)
    return [*parts, *labels]


def _drawn_box(box: _Box, x: float, y: float) -> list[str]:
    left, top = x - box.width / 2, y - box.height / 2
    dash = " stroke-dasharray='5 3'" if box.dashed else ""
    width = 2.2 if box.line == _RED else 1.3
    ink = "#ffffff" if box.fill == _INK else _INK
    parts = [
        f"<g><title>{_safe(box.title)}</title><rect x='{left:.1f}' y='{top:.1f}' width='{box.width:.1f}' "
        f"height='{box.height:.1f}' rx='{box.height / 2 if box.round else 6:.1f}' fill='{box.fill}' "
        f"stroke='{box.line}' stroke-width='{width}'{dash}/>"
    ]
    rows = [(13, 600 if not box.round else 400, ink), (11, 400, _RED if box.lines[-1] == "is not there" else _FAINT)]
    first = y + 4.5 - (8 if len(box.lines) > 1 else 0)
    for n, (text, (size, weight, colour)) in enumerate(zip(box.lines, rows, strict=False)):
        parts.append(
            f"<text x='{x:.1f}' y='{first + 17 * n:.1f}' font-size='{size}' font-weight='{weight}' fill='{colour}' "
            f"text-anchor='middle'>{_safe(text)}</text>"
        )
    return [*parts, "</g>"]


def _path(path: str, arrow: _Arrow) -> str:
    colour, marker = (_RED, "quixframes-to-red") if arrow.wrong else ("#7b8794", "quixframes-to")
    dash = " stroke-dasharray='4 3'" if arrow.dashed else ""
    return (
        f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='{2 if arrow.wrong else 1.4}'{dash} "
        f"marker-end='url(#{marker})'/>"
    )


def _label(place: Place, arrow: _Arrow) -> str:
    if not arrow.label:
        return ""
    x, y, anchor = place
    colour, weight = (_AMBER, 600) if arrow.behind else (_FAINT, 400)
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='11' fill='{colour}' font-weight='{weight}' text-anchor='{anchor}' "
        f"stroke='#ffffff' stroke-width='4' stroke-linejoin='round' paint-order='stroke'>{_safe(arrow.label)}</text>"
    )


def _marker(name: str, colour: str) -> str:
    return (
        f"<marker id='{name}' viewBox='0 0 10 10' refX='9.5' refY='5' markerWidth='8' markerHeight='8' "
        f"markerUnits='userSpaceOnUse' orient='auto'>"
        f"<path d='M0 1 L10 5 L0 9 z' fill='{colour}'/></marker>"
    )


def _legend(graph: Graph, y: float) -> tuple[str, float]:
    """What the colours say, of those that there are."""
    stages = [one.about.stage for one in graph.topics.values() if one.about.stage]
    known = [stage for stage in _COLOURS if stage in stages]
    shown: list[tuple[str, str, str, bool]] = [(stage, *_COLOURS[stage], False) for stage in known]
    shown += [(stage, *_OWN, False) for stage in dict.fromkeys(stages) if stage not in _COLOURS]
    models = {edge.by for edge in graph.edges if edge.by and edge.target}
    if models:
        shown.append(("model", _INK, _INK, True))
    if any(edge.by and edge.by not in models for edge in graph.edges):
        shown.append(("group that reads", "#ffffff", _INK, True))
    if graph.breaches:
        shown.append(("breach", "#ffffff", _RED, False))
    parts, x = [], _PAD
    for text, fill, line, rounded in shown:
        parts.append(
            f"<rect x='{x:.0f}' y='{y - 9:.0f}' width='16' height='11' rx='{5.5 if rounded else 2}' fill='{fill}' "
            f"stroke='{line}' stroke-width='1.2'/><text x='{x + 22:.0f}' y='{y + 1:.0f}' font-size='11' "
            f"fill='{_FAINT}'>{_safe(_short(text))}</text>"
        )
        x += 22 + _width(_short(text), 11.0) + 20
    return "".join(parts), x - _PAD


def _said(graph: Graph) -> str:
    return f"topics: {len(graph.topics)}, breaches: {len(graph.breaches)}"


def _width(text: str, size: float) -> float:
    """About what a text takes, in a usual font without serifs."""
    narrow: Sequence[str] = "iljtfr.,:;|!'()[] -"
    return sum(0.36 if letter in narrow else 0.86 if letter in "mwMW@" else 0.6 for letter in text) * size


def _short(text: str) -> str:
    """A name with its middle left out, where it is too long to draw."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[: half - 1]}…{text[-half:]}"


def _safe(text: str) -> str:
    return html.escape("".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text))
