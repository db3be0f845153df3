"""The picture that the demo leaves: forecasts beside measurements, the faults that were found, and the errors.

Names, units and events are what the streams themselves said of them, at the far end of both models.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, DayLocator, MonthLocator
from matplotlib.figure import Figure

from quixframes.demo.show import axis, event_names, temperature
from quixframes.demo.weather import GAP_FILLED, IMPOSSIBLE, measured

if TYPE_CHECKING:
    from quixframes.demo.pipeline import Outcome

__all__ = ["COLORS", "draw", "weekly_pressures"]

COLORS = {
    "measured": "#22313f",
    "forecast": "#f2682a",
    "same_as_now": "#9aa8b5",
    "fault": "#c8202f",
    "filled": "#2a9d8f",
}

WINDOW = slice("2013-11-21", "2013-11-25 23:00")
"""Five days in which winter came: from 58 °F to 21 °F."""


def draw(outcome: Outcome, path: Path) -> None:
    """Write the picture as a PNG."""
    figure = Figure(figsize=(12.8, 8), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    figure.suptitle(
        "A year of New York’s weather, through Kafka and two models",
        fontsize=17,
        fontweight="bold",
        color=COLORS["measured"],
    )
    left, right = figure.subfigures(1, 2, width_ratios=[1.7, 1])  # type: ignore[misc]

    panels = left.subplots(len(outcome.streams), 1, sharex=True, sharey=True)
    for ax, stream in zip(panels, sorted(outcome.streams), strict=True):
        _temperatures(ax, outcome, stream)
    panels[0].legend(loc="lower left", ncols=3, frameon=False, fontsize=9)
    panels[-1].xaxis.set_major_locator(DayLocator())
    panels[-1].xaxis.set_major_formatter(DateFormatter("%-d %b"))
    title = f"{str(temperature(outcome).name).capitalize()}: measured, and forecast one hour before"
    panels[0].set_title(title, loc="left", fontsize=11)

    wind, pressure, errors = right.subplots(3, 1)
    _fault(wind, outcome)
    _pressures(pressure, outcome)
    _errors(errors, outcome)
    figure.savefig(path, dpi=120)


def weekly_pressures(outcome: Outcome) -> pd.DataFrame:
    """How many pressures were missing in each week, by what became of them: filled, or missing still."""
    still = outcome.clean["pressure"].isna().astype(int).resample("W").sum()
    of_pressure = (outcome.events["id"] == GAP_FILLED) & (outcome.events["TAG__parameter"] == "pressure")
    filled = outcome.events[of_pressure].resample("W").size().reindex(still.index, fill_value=0)
    return pd.DataFrame({"filled": filled, "still missing": still})


def _titled(ax: Axes, title: str = "") -> None:
    ax.set_title(title, loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#e6eaee", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=3, color="#9aa8b5", labelsize=9)
    ax.spines[["left", "bottom"]].set_color("#9aa8b5")


def _temperatures(ax: Axes, outcome: Outcome, stream: str) -> None:
    clean = outcome.clean[outcome.clean["stream"] == stream]
    truth = measured(clean)["temp"].sort_index().loc[WINDOW]
    guess = outcome.forecasts.loc[outcome.forecasts["stream"] == stream, "forecast"].sort_index().loc[WINDOW]
    events = outcome.events[outcome.events["stream"] == stream].sort_index().loc[WINDOW]
    said = outcome.streams[stream]
    _titled(ax)
    ax.plot(truth.index, truth, color=COLORS["measured"], linewidth=1.6, label="measured")
    ax.plot(guess.index, guess, ".", color=COLORS["forecast"], markersize=4.5, label="forecast")
    ax.plot(
        events.index,
        np.zeros(len(events)),
        "^",
        color=COLORS["filled"],
        label="event: a value repaired",
        transform=ax.get_xaxis_transform(),
        clip_on=False,
    )
    ax.set_ylabel(axis(said.parameters["temp"]), fontsize=9)
    ax.text(
        0.99,
        0.92,
        str(said.properties.name),
        transform=ax.transAxes,
        ha="right",
        va="top",
        fontsize=12,
        fontweight="bold",
    )


def _fault(ax: Axes, outcome: Outcome) -> None:
    """The first of the impossible values, with the two days around it."""
    event = outcome.events[outcome.events["id"] == IMPOSSIBLE].head(1)
    stream, parameter, value = event[["stream", "TAG__parameter", "value"]].astype(str).to_numpy()[0]
    at = event.index[0]
    said = outcome.streams[stream]
    around = slice(at - pd.Timedelta("1D"), at + pd.Timedelta("1D"))
    raw, clean = (
        frame.loc[frame["stream"] == stream, parameter].sort_index().loc[around]
        for frame in (outcome.raw, outcome.clean)
    )
    _titled(ax, f"An {event_names(outcome)[IMPOSSIBLE]} at {said.properties.name}")
    ax.plot(raw.index, raw, color=COLORS["fault"], linewidth=1.2, label="as received")
    ax.plot(clean.index, clean, color=COLORS["filled"], linewidth=1.8, label="cleaned")
    ax.plot(event.index, raw[event.index], "^", color=COLORS["fault"], label="event")
    ax.annotate(value, (at, raw[at]), (-8, 0), textcoords="offset points", ha="right", va="center", fontsize=9)
    ax.set_yscale("symlog", linthresh=20)
    ax.set_yticks([0, 10, 20, 100, 1000], ["0", "10", "20", "100", "1,000"])
    ax.set_ylabel(axis(said.parameters[parameter]), fontsize=9)
    ax.xaxis.set_major_locator(DayLocator())
    ax.xaxis.set_major_formatter(DateFormatter("%-d %b"))
    ax.legend(frameon=False, fontsize=9, loc="upper right")


def _pressures(ax: Axes, outcome: Outcome) -> None:
    weeks = weekly_pressures(outcome)
    missing, filled = int(weeks.to_numpy().sum()), int(weeks["filled"].sum())
    _titled(ax, f"{missing:,} missing pressures, {filled:,} filled")
    ax.bar(weeks.index, weeks["filled"], width=6, color=COLORS["filled"], label="filled (gap of 3 h at most)")
    ax.bar(weeks.index, weeks["still missing"], width=6, bottom=weeks["filled"], color="#d5dbe1", label="left missing")
    ax.xaxis.set_major_locator(MonthLocator(bymonth=(1, 4, 7, 10)))
    ax.xaxis.set_major_formatter(DateFormatter("%b"))
    ax.set_ylabel("in a week", fontsize=9)
    ax.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
    ax.set_ylim(0, 1.3 * weeks.sum(axis=1).max())


def _errors(ax: Axes, outcome: Outcome) -> None:
    names = {stream: fill(str(said.properties.name), 9) for stream, said in outcome.streams.items()}
    scores = outcome.scores.rename(index={**names, "all": "all three"})
    at = np.arange(len(scores))
    baseline, model = scores.loc["all three", ["same_as_now", "forecast"]].to_numpy(float)
    better = 1 - model / baseline
    _titled(ax, f"Mean error of the forecasts: {better:.0%} smaller")
    for column, shift, label in (("same_as_now", -0.2, "same as now"), ("forecast", 0.2, "model")):
        bars = ax.bar(at + shift, scores[column], width=0.38, color=COLORS[column], label=label)
        ax.bar_label(bars, fmt="%.2f", fontsize=9, padding=2)
    ax.set_xticks(at, scores.index)
    ax.set_ylabel(f"error, {temperature(outcome).unit}", fontsize=9)
    ax.set_ylim(0, 1.3 * scores.to_numpy().max())
    ax.legend(frameon=False, fontsize=9, ncols=2, loc="upper right")
