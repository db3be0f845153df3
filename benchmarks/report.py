"""The runs of a benchmark as medians, ratios, a table and a plot: ``python -m benchmarks.report [FOLDER]``."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES

OURS = "quixframes"
BARE = "kafka-python"
OLD = "quixstreams 0.5.7"
NEW = "quixstreams 3.28.1"
ORDER = (OURS, BARE, NEW, OLD)


class Measure(NamedTuple):
    """One row of the table: what was done."""

    case: str
    direction: str
    batch: int = 0

    @property
    def title(self) -> str:
        """As people read it."""
        case = CASES[self.case]
        apart = self.direction == "read" and self.batch != case.frame_rows
        return f"{self.direction} {case.title}" + (f" in batches of {self.batch:,}" if apart else "")


@dataclass(frozen=True)
class Run:
    """One process of one contender, and the figures that it printed."""

    contender: str
    case: str
    direction: str
    batch: int
    round: int
    figures: dict[str, Any]

    @property
    def rows_per_s(self) -> float:
        """The figure that contenders are compared by."""
        return float(self.figures["rows_per_s"])

    def to_json(self) -> str:
        """One line of the journal."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Target:
    """A ratio that quixframes has promised to reach."""

    text: str
    ours: Measure
    rival: str
    theirs: Measure
    at_least: float


TARGETS = (
    Target(
        "frames of 10,000 rows, written, against the old SDK",
        Measure("rows-10000", "write"),
        OLD,
        Measure("rows-10000", "write"),
        60,
    ),
    Target(
        "frames of 10,000 rows, read, against the old SDK",
        Measure("rows-10000", "read", 10_000),
        OLD,
        Measure("rows-10000", "read", 10_000),
        30,
    ),
    Target(
        "frames of 10,000 rows, written, against bare kafka-python",
        Measure("rows-10000", "write"),
        BARE,
        Measure("rows-10000", "write"),
        0.6,
    ),
    Target(
        "frames of 10,000 rows, read, against bare kafka-python",
        Measure("rows-10000", "read", 10_000),
        BARE,
        Measure("rows-10000", "read", 10_000),
        0.6,
    ),
    Target(
        "frames of 10 rows, each its own message, against the old SDK",
        Measure("rows-10", "write"),
        OLD,
        Measure("rows-10", "write"),
        3,
    ),
    Target(
        "frames of 10 rows, through the buffer, against the old SDK's own messages",
        Measure("rows-10-buffered", "write"),
        OLD,
        Measure("rows-10", "write"),
        10,
    ),
    Target(
        "frames of 10 rows, read in batches of 1,000, against the old SDK's frames of 10",
        Measure("rows-10", "read", 1_000),
        OLD,
        Measure("rows-10", "read", 10),
        10,
    ),
)


class Summary:
    """Medians over the rounds."""

    def __init__(self, runs: Iterable[Run]) -> None:
        collected: dict[tuple[Measure, str], list[Run]] = defaultdict(list)
        for run in runs:
            collected[Measure(run.case, run.direction, run.batch), run.contender].append(run)
        self._runs = dict(collected)

    @property
    def measures(self) -> list[Measure]:
        """All that was measured: writes before reads, each in the order of the cases."""
        names = list(CASES)
        found = {measure for measure, _ in self._runs}
        return sorted(found, key=lambda each: (each.direction == "read", names.index(each.case), each.batch))

    @property
    def contenders(self) -> list[str]:
        """Those with at least one run, ours first."""
        found = {contender for _, contender in self._runs}
        return [name for name in ORDER if name in found]

    def figure(self, measure: Measure, contender: str, name: str = "rows_per_s") -> float | None:
        """The median of one figure.

        A contender without batches reads a topic in one way and one without buffers writes frames in one way; that one
        stands for the others.
        """
        case = CASES[measure.case]
        plain = Measure(measure.case.removesuffix("-buffered"), measure.direction)
        for candidate in (measure, Measure(measure.case, "read", case.batches[0]) if measure.batch else plain):
            runs = self._runs.get((candidate, contender))
            if runs:
                known = [float(run.figures[name]) for run in runs if name in run.figures]
                return median(known) if known else None
        return None

    def ratio(self, measure: Measure, rival: str, theirs: Measure | None = None) -> float | None:
        """How many times the rival's rows a second ours are."""
        ours, other = self.figure(measure, OURS), self.figure(theirs or measure, rival)
        return ours / other if ours and other else None

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data: the machine, the versions, the medians, the targets."""
        packages = {contender: runs[0].figures["packages"] for (_, contender), runs in self._runs.items()}
        return {
            "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()},
            "rounds": self._rounds,
            "packages": packages,
            "measures": [
                {
                    "measure": measure.title,
                    **measure._asdict(),
                    "contenders": {
                        name: {
                            "rows_per_s": self.figure(measure, name),
                            "mb_per_s": self.figure(measure, name, "mb_per_s"),
                            "range_rows_per_s": self._range(measure, name),
                            "stored_bytes_per_row": self.figure(measure, name, "stored_bytes_per_row"),
                        }
                        for name in self.contenders
                        if (measure, name) in self._runs
                    },
                }
                for measure in self.measures
            ],
            "targets": [
                {"target": target.text, "at_least": target.at_least, "measured": self._measured(target)}
                for target in TARGETS
            ],
        }

    def tables(self) -> list[Table]:
        """Speeds with ratios, sizes on the broker, and the targets, as far as they were measured."""
        return [table for table in (self._speeds(), self._sizes(), self._targets()) if table.row_count]

    def plot(self, path: Path) -> None:
        """Bars on a logarithmic axis, one panel for writing and one for reading."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, panels = pyplot.subplots(1, 2, figsize=(15, 8), layout="constrained", sharex=True)
        thickness = 0.8 / len(self.contenders)
        for panel, direction in zip(panels, ("write", "read"), strict=True):
            measures = [each for each in self.measures if each.direction == direction]
            for place, name in enumerate(self.contenders):
                values = [self.figure(measure, name) or float("nan") for measure in measures]
                heights = [row + place * thickness for row in range(len(measures))]
                bars = panel.barh(heights, values, height=thickness, label=name)
                panel.bar_label(bars, labels=[_count(value) for value in values], padding=3, fontsize=7)
            middle = (len(self.contenders) - 1) * thickness / 2
            titles = [each.title.removeprefix(f"{direction} ") for each in measures]
            panel.set_yticks([row + middle for row in range(len(measures))], titles)
            panel.invert_yaxis()
            panel.set_xscale("log")
            panel.margins(x=0.15)
            panel.set_title({"write": "Written", "read": "Read"}[direction])
            panel.set_xlabel("DataFrame rows a second (logarithmic)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        panels[0].set_xlim(right=2 * panels[0].get_xlim()[1])  # room for the numbers of the longest bars
        figure.savefig(path, dpi=120)
        pyplot.close(figure)

    def _speeds(self) -> Table:
        caption = f"{NEW} has neither buffers nor batches: its one way of writing and reading stands in each row."
        table = Table(
            title=f"DataFrame rows a second, median of {self._rounds} rounds",
            caption=caption if NEW in self.contenders else None,
        )
        table.add_column("")
        sized = [name for name in (OURS, BARE) if name in self.contenders]
        rivals = [name for name in self.contenders if name != OURS] if OURS in self.contenders else []
        headings = [*self.contenders, *(f"{name} MB/s" for name in sized), *(f"{OURS} ÷ {name}" for name in rivals)]
        for heading in headings:
            table.add_column(heading, justify="right")
        for measure in self.measures:
            table.add_row(
                measure.title,
                *(_count(self.figure(measure, name)) for name in self.contenders),
                *(_count(self.figure(measure, name, "mb_per_s")) for name in sized),
                *(_times(self.ratio(measure, name)) for name in rivals),
            )
        return table

    def _sizes(self) -> Table:
        table = Table(title="Bytes a row on the broker")
        table.add_column("")
        for name in self.contenders:
            table.add_column(name, justify="right")
        for measure in self.measures:
            if measure.direction == "write":
                sizes = (self.figure(measure, name, "stored_bytes_per_row") for name in self.contenders)
                table.add_row(measure.title, *(_count(size) for size in sizes))
        return table

    def _targets(self) -> Table:
        table = Table(title="Targets")
        table.add_column("")
        for heading in ("at least", "measured", "verdict"):
            table.add_column(heading, justify="right")
        for target in TARGETS:
            measured = self._measured(target)
            if measured is not None:
                verdict = "met" if measured >= target.at_least else "MISSED"
                table.add_row(target.text, _times(target.at_least), _times(measured), verdict)
        return table

    @property
    def _rounds(self) -> int:
        return max(len(runs) for runs in self._runs.values())

    def _measured(self, target: Target) -> float | None:
        return self.ratio(target.ours, target.rival, target.theirs)

    def _range(self, measure: Measure, contender: str) -> list[float]:
        speeds = [run.rows_per_s for run in self._runs[measure, contender]]
        return [min(speeds), max(speeds)]


def publish(folder: Path) -> None:
    """Print the tables of the runs in the folder; leave them there as text and JSON, with the plot."""
    runs = [Run(**json.loads(line)) for line in (folder / "runs.jsonl").read_text().splitlines()]
    if not runs:
        raise SystemExit("nothing was measured")
    summary = Summary(runs)
    console = Console(record=True, width=180)
    for table in summary.tables():
        console.print(table)
    (folder / "table.txt").write_text(console.export_text())
    (folder / "results.json").write_text(json.dumps(summary.as_json(), indent=1) + "\n")
    summary.plot(folder / "speed.png")


def _count(value: float | None) -> str:
    return "-" if value is None or isnan(value) else f"{value:,.0f}"


def _times(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} x" if value >= 10 else f"{value:,.2f} x"


if __name__ == "__main__":
    publish(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results")
