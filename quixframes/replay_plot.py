"""Streams as a picture: a panel for each parameter, a line for each stream, events as marks.

What this module holds to:

- What a screen cannot show is left out before it is drawn, and no peak with it: of each pixel's rows the first, the
  last, the least and the greatest stay (M4, by tsdownsample).
- A gap is seen: where values are missing, or no row came for five times as long as usual, the line is broken.
- Names, units and formats are what the streams say of their parameters.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from tsdownsample import M4Downsampler

from quixframes.errors import FrameError
from quixframes.story import Story

__all__ = ["Plot", "draw", "thinned"]

Frames: TypeAlias = Mapping[str, pd.DataFrame]

_COLOURS = ("#1f6f8b", "#f2682a", "#2a9d8f", "#8e5ea2", "#c8202f", "#c9a227", "#5b7083", "#e377a2")
_INK, _GRID = "#22313f", "#e3e8ec"
_PANELS = 12  # parameters that a picture shows where none were asked for
_NAMED = 8  # streams that a legend names
_LABELS = 40  # events that are labelled; the others are marks without a name
_LONGER = 5  # times as long as usual is a gap


class Plot(Figure):
    """A figure that a notebook shows, whatever its matplotlib is set to."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def draw(
    frames: Frames, events: pd.DataFrame, stories: Mapping[str, Story], columns: Sequence[str] | None, points: int
) -> Plot:
    """A figure of the streams' rows.

    Args:
        frames: each stream's rows, in any order of their times.
        events: as :meth:`Replay.events <quixframes.replay.Replay.events>` gives them.
        stories: what each stream says of itself.
        columns: the parameters; None: the first twelve that have numbers.
        points: how many of each line are drawn, at most.

    Raises:
        FrameError: a parameter has no numbers, or there is none.
    """
    chosen = _chosen(frames, columns)
    figure = Plot(figsize=(11, 1.1 + 1.9 * len(chosen)), layout="constrained", facecolor="white")
    axes: list[Axes] = list(figure.subplots(len(chosen), 1, sharex=True, squeeze=False)[:, 0])
    ordered = {stream: frame.sort_index(kind="stable") for stream, frame in sorted(frames.items())}
    for panel, column in zip(axes, chosen, strict=True):
        for number, (stream, frame) in enumerate(ordered.items()):
            if column in frame.columns:
                times, values = thinned(
                    pd.DatetimeIndex(frame.index).as_unit("ns").asi8, _numbers(frame[column]), points
                )
                panel.plot(
                    times.view("datetime64[ns]"), values, color=_COLOURS[number % len(_COLOURS)], linewidth=1.1,
                    label=stream,
                )  # fmt: skip
        _dress(panel, _title(column, stories))
    _mark(axes, events, stories)
    axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(AutoDateLocator()))  # type: ignore[no-untyped-call]
    if len(ordered) > 1:
        lines, names = axes[0].get_legend_handles_labels()
        if len(names) > _NAMED:
            names[_NAMED - 1] += f" and {len(names) - _NAMED} more"
        figure.legend(
            lines[:_NAMED], names[:_NAMED], loc="outside upper right", ncols=4, frameon=False, fontsize=9,
            labelcolor=_INK,
        )  # fmt: skip
    return figure


def thinned(
    times: npt.NDArray[np.int64], values: npt.NDArray[np.float64], points: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """At most about so many points that look like all of them; NaN where the line is broken. Times must not fall.

    >>> times, values = np.arange(1_000_000), np.zeros(1_000_000)
    >>> values[123_456] = 7
    >>> found = thinned(times, values, 400)
    >>> len(found[0]) <= 400, found[1].max()
    (True, np.float64(7.0))
    """
    there = np.flatnonzero(np.isfinite(values))
    broken = np.diff(there) > 1
    times, values = times[there], values[there]
    if len(times) > 2:
        steps = np.diff(times)
        usual = np.quantile(steps[steps > 0], 0.9, method="lower") if (steps > 0).any() else np.inf
        broken |= steps > _LONGER * usual
    kept = np.arange(len(times))
    if len(times) > points:
        m4 = M4Downsampler()  # type: ignore[no-untyped-call]
        kept = np.unique(m4.downsample(times, np.ascontiguousarray(values), n_out=points // 4 * 4).astype(np.int64))
    before = np.concatenate(([0], np.cumsum(broken)))[kept]
    after = np.flatnonzero(np.diff(before)) + 1
    times, values = times[kept], values[kept]
    return np.insert(times, after, times[after - 1] if len(after) else []), np.insert(values, after, np.nan)


def _chosen(frames: Frames, columns: Sequence[str] | None) -> list[str]:
    dtypes = {str(name): dtype for frame in frames.values() for name, dtype in frame.dtypes.items()}
    numbers = [name for name, dtype in dtypes.items() if pd.api.types.is_numeric_dtype(dtype)]
    if columns is None:
        if not numbers:
            raise FrameError("there is nothing to draw: no rows, or none with numbers")
        return numbers[:_PANELS]
    for name in columns:
        if name not in numbers:
            there = ", ".join(numbers) or "none"
            raise FrameError(f"column {name!r} is not there, or has no numbers: there are {there}", column=name)
    return list(columns)


def _numbers(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    return column.to_numpy(dtype="float64", na_value=np.nan)


def _title(column: str, stories: Mapping[str, Story]) -> str:
    for story in stories.values():
        if column in story.parameters:
            said = story.parameters[column]
            return f"{said.name or column} ({said.unit})" if said.unit else said.name or column
    return column


def _dress(panel: Axes, title: str) -> None:
    panel.set_title(title, loc="left", fontsize=10, color=_INK)
    panel.grid(color=_GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.margins(x=0.01)
    panel.tick_params(colors=_INK, labelsize=8.5, length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _mark(axes: Sequence[Axes], events: pd.DataFrame, stories: Mapping[str, Story]) -> None:
    """Events as lines through all panels, named above the first."""
    names = {id: said.name for story in stories.values() for id, said in story.events.items() if said.name}
    for number, (time, id) in enumerate(zip(events.index, events.get("id", ()), strict=True)):
        for panel in axes:
            panel.axvline(time, color=_INK, linewidth=0.8, linestyle=(0, (2, 2)), alpha=0.6)
        if number < _LABELS:
            axes[0].annotate(
                names.get(id, id), (time, 1), xycoords=("data", "axes fraction"), xytext=(2, -2),
                textcoords="offset points", va="top", fontsize=8, color=_INK, rotation=90, alpha=0.8,
            )  # fmt: skip
