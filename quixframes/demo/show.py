"""What the demo says while it runs, in a terminal or a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

import quixframes as qf
from quixframes.demo.weather import IMPOSSIBLE

if TYPE_CHECKING:
    from quixframes.demo.pipeline import Outcome

__all__ = ["Show", "axis", "event_names", "scoreboard", "temperature"]

STAGES = {"write": "writing", "clean": "cleaning model", "forecast": "forecasting model"}


class Show:
    """Tells what was done and how long it took, and how far each stage has come. Safe to use from several threads."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._since = time.monotonic()
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def did(self, what: str) -> None:
        """Something is done."""
        took = time.monotonic() - self._since
        self._since += took
        self.console.print(f"[green]✓[/] {what} [dim]({took:.1f} s)[/]", highlight=False)

    @contextmanager
    def progress(self, title: str, **rows: int) -> Iterator[None]:
        """While stages are at work: a bar for each, of the rows that it has to do. Without a terminal: how it ended."""
        self.console.print(f"[green]▸[/] {title}", highlight=False)
        columns = (TextColumn("    {task.description:<18}"), BarColumn(30), MofNCompleteColumn(), TextColumn("rows"))
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as self._progress:
            self._bars = {stage: self._progress.add_task(STAGES[stage], total=total) for stage, total in rows.items()}
            yield
        self._since = time.monotonic()

    def rows(self, stage: str, count: int) -> None:
        """A stage has done so many rows more."""
        if self._progress is not None:
            self._progress.advance(self._bars[stage], count)

    def events(self, stream: qf.StreamReader, events: pd.DataFrame) -> None:
        """The cleaning wrote events; those of values that cannot be are worth a line each."""
        for at, value in events.loc[events["id"] == IMPOSSIBLE, "value"].items():
            self.console.print(
                f"    [yellow]![/] {stream.properties.name}, {at:%-d %B %H:%M} UTC: {value} cannot be",
                highlight=False,
            )


def scoreboard(outcome: Outcome) -> Table:
    """Rows of each topic and events, by stream, and how far off the forecasts were in the mean."""
    counts = pd.DataFrame(
        {
            "in": outcome.raw["stream"].value_counts(),
            "cleaned": outcome.clean["stream"].value_counts(),
            "events": outcome.events["stream"].value_counts(),
            "forecast": outcome.forecasts["stream"].value_counts(),
        }
    )
    counts.index = counts.index.astype(str)
    counts = counts.sort_index()
    counts.loc["all"] = counts.sum()
    kinds = outcome.events["id"].map(event_names(outcome)).value_counts()
    unit = temperature(outcome).unit
    table = Table(
        title="Rows and events, and the mean error of the temperature one hour ahead",
        title_style="bold",
        caption="Events: " + ", ".join(f"{count:,} × {kind}" for kind, count in kinds.items()),
    )
    table.add_column("stream")
    for column in (*counts, "same as now", "model", "better"):
        table.add_column(column, justify="right")
    for stream, row in counts.iterrows():
        model, baseline = outcome.scores.loc[str(stream), ["forecast", "same_as_now"]].to_numpy(float)
        table.add_row(
            str(stream),
            *(f"{rows:,.0f}" for rows in row),
            f"{baseline:.2f} {unit}",
            f"{model:.2f} {unit}",
            f"{1 - model / baseline:.0%}",
            style="bold" if stream == "all" else None,
            end_section=stream == counts.index[-2],
        )
    return table


def axis(what: qf.ParameterDefinition) -> str:
    """A parameter for an axis: its name and its unit."""
    return f"{what.name}, {what.unit}"


def temperature(outcome: Outcome) -> qf.ParameterDefinition:
    """What the streams say of the parameter that was forecast."""
    return next(iter(outcome.streams.values())).parameters["temp"]


def event_names(outcome: Outcome) -> dict[str, str]:
    """What the streams call their events, by ID."""
    return {id: what.name or id for stream in outcome.streams.values() for id, what in stream.events.items()}
