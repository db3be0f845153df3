"""Where the labels of arrows stand in a picture: beside their arrows, and off everything else. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["Place", "curve", "places"]

Point = tuple[float, float]
Place = tuple[float, float, str]
"""Where a text's line begins, ends or has its middle, and which of these: "start", "end" or "middle"."""
_Area = tuple[float, float, float, float]  # left, top, right, bottom

_STEPS = 24
_UP, _DOWN = -6.0, 14.0  # from an arrow to the line on which a text above or below it stands
_ASCENT, _DESCENT = 10.0, 3.0


def curve(points: Sequence[Point]) -> list[Point]:
    """Points along an arrow that leaves level, swings to its next waypoint, and passes waypoints level."""
    found: list[Point] = []
    for n, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        for step in range(_STEPS + 1):
            t = step / _STEPS
            swing = t if n % 2 else t * t * (3 - 2 * t)
            across = t if n % 2 else 1.5 * t * (1 - t) ** 2 + 1.5 * t * t * (1 - t) + t**3
            found.append((x0 + (x1 - x0) * across, y0 + (y1 - y0) * swing))
    return found


def places(arrows: Sequence[tuple[Sequence[Point], float]], boxes: Sequence[_Area]) -> list[Place]:
    """For each arrow, by its points and the width of its label, the place where that is in nobody's way.

    Args:
        arrows: each by the points of :func:`curve`, and its label's width; 0 for none.
        boxes: what must not be covered at all.
    """
    taken = list(boxes)
    found: list[Place] = []
    for n, (line, width) in enumerate(arrows):
        if not width:
            found.append((*line[0], "middle"))
            continue
        others = [point for m, (other, _) in enumerate(arrows) if m != n for point in other]
        best = min(_candidates(line), key=lambda place: _cost(_area(place, width), taken, others, line))
        taken.append(_area(best, width))
        found.append(best)
    return found


def _candidates(line: Sequence[Point]) -> list[Place]:
    """The best first: over the middle of the first part, over or under its ends, then on the arrow itself."""
    first = line[: _STEPS + 1]
    (x0, y0), (xn, yn) = line[0], line[-1]
    middle = first[_STEPS // 2]
    ways: list[Place] = []
    if abs(first[-1][1] - y0) < 8:
        ways += [(middle[0], middle[1] + shift, "middle") for shift in (_UP, _DOWN)]
    for shift in (_UP, _DOWN):
        ways += [(xn - 12, yn + shift, "end"), (x0 + 8, y0 + shift, "start")]
    ways += [(x, y + 4, "middle") for x, y in (first[n] for n in (12, 9, 15, 7, 17))]
    return ways


def _area(place: Place, width: float) -> _Area:
    x, y, anchor = place
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - _ASCENT, left + width, y + _DESCENT


def _cost(area: _Area, taken: Sequence[_Area], others: Sequence[Point], own: Sequence[Point]) -> float:
    covered = sum(
        max(0.0, min(area[2], it[2]) - max(area[0], it[0])) * max(0.0, min(area[3], it[3]) - max(area[1], it[1]))
        for it in taken
    )
    return covered + 20.0 * _inside(area, others) + 4.0 * _inside(area, own)


def _inside(area: _Area, points: Sequence[Point]) -> int:
    return sum(area[0] <= x <= area[2] and area[1] <= y <= area[3] for x, y in points)
