"""What the demo says while it runs, in a terminal or a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from quixframes.demo.weather import AIRPORTS, TAG

__all__ = ["Show", "scoreboard"]

STAGES = {"write": "writing", "clean": "cleaning model", "forecast": "forecasting model"}
UNITS = {"temp": "°F", "dewp": "°F", "humid": "%", "wind_speed": "mph", "wind_gust": "mph", "pressure": "mbar"}


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

    def faults(self, stream: str, faults: list[tuple[pd.Timestamp, str, float]]) -> None:
        """The cleaning met values that cannot be."""
        for at, name, value in faults:
            self.console.print(
                f"    [yellow]![/] {AIRPORTS[stream]}, {at:%-d %B %H:%M} UTC: "
                f"{name} = {value:,.0f} {UNITS.get(name, '')} cannot be, taken out",
                highlight=False,
            )


def scoreboard(raw: pd.DataFrame, clean: pd.DataFrame, forecasts: pd.DataFrame, scores: pd.DataFrame) -> Table:
    """Rows of each topic, by stream, and how far off the forecasts were in the mean."""
    counts = pd.DataFrame(
        {
            "in": raw["stream"].value_counts(),
            "cleaned": clean["stream"].value_counts(),
            "repaired": clean.loc[clean[TAG] != "", "stream"].value_counts(),
            "forecast": forecasts["stream"].value_counts(),
        }
    )
    counts.index = counts.index.astype(str)
    counts.loc["all"] = counts.sum()
    table = Table(title="Rows, and the mean error of the temperature one hour ahead", title_style="bold")
    table.add_column("stream")
    for column in ("in", "cleaned", "repaired", "forecast", "same as now", "model", "better"):
        table.add_column(column, justify="right")
    for stream, row in counts.sort_index(key=lambda names: names == "all").iterrows():
        model, baseline = scores.loc[str(stream), ["forecast", "same_as_now"]].to_numpy(float)
        table.add_row(
            str(stream),
            *(f"{rows:,.0f}" for rows in row),
            f"{baseline:.2f} °F",
            f"{model:.2f} °F",
            f"{1 - model / baseline:.0%}",
            style="bold" if stream == "all" else None,
            end_section=stream == list(AIRPORTS)[-1],
        )
    return table
