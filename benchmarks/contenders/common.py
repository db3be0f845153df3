"""The command line and the clock that all contenders share.

Writing: one frame first, untimed, to open connections, learn metadata and warm compilers; then frames until the rows or
the seconds are used up; the clock stops when all of them are acknowledged.

Reading: from a full topic. The clock starts when the first rows reach the user, and these rows are not counted: what
comes before is joining a group, reported apart as ``startup_s``. It stops when the last rows are in a DataFrame.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

from benchmarks.cases import CASES, Case, bytes_per_row

PACKAGES = ("quixframes", "quixstreams", "kafka-python", "confluent-kafka", "pandas", "pyarrow", "numpy")
LEAST_WRITES = 12
"""However slow the writer: with a few large frames in the topic, a reader's first ones would be all that it reads."""
PATIENCE_S = 30.0
"""How long a reader waits for more before it reports what it has."""

Payload = TypeVar("Payload")


class Item(NamedTuple, Generic[Payload]):
    """One call of the contender's write: what, to which stream, of how many rows."""

    stream: str
    payload: Payload
    rows: int


@dataclass(frozen=True)
class Job:
    """What the harness asks of one run."""

    direction: str
    broker: str
    topic: str
    case: Case
    rows: int
    """Stop after this many rows."""
    seconds: float
    """Stop after this time, whatever the rows; a writer has a few frames to write even so."""
    batch: int
    """Read batches of this many rows."""
    messages: Path | None
    """Encoded messages for the contender that sends bytes as they are."""


@dataclass
class Result:
    """What a run measured. ``rows`` are those inside the timed part; ``topic_rows`` all that a writer wrote."""

    rows: int
    seconds: float
    topic_rows: int = 0
    startup_s: float = 0.0


class ReadClock:
    """Counts rows as they reach the user, and says when to stop."""

    def __init__(self, job: Job) -> None:
        self._wanted = job.rows
        self._limit = job.seconds
        self._opened = perf_counter()
        self._started = 0.0
        self._last = 0.0
        self._first_rows = 0
        self._rows = 0

    def add(self, rows: int) -> bool:
        """Note that ``rows`` more arrived; true when enough did."""
        now = perf_counter()
        if not self._rows:
            self._started = now
            self._first_rows = rows
        self._rows += rows
        self._last = now
        return self._rows >= self._wanted or now - self._started >= self._limit

    def touch(self) -> None:
        """Extend the timed part to now: the rows counted so far needed more work."""
        self._last = perf_counter()

    def result(self) -> Result:
        """The figures up to the last call of ``add`` or ``touch``."""
        if not self._rows:
            return Result(rows=0, seconds=0.0, startup_s=perf_counter() - self._opened)
        return Result(
            rows=self._rows - self._first_rows,
            seconds=self._last - self._started,
            startup_s=self._started - self._opened,
        )


def timed_write(
    job: Job,
    items: Iterable[Item[Payload]],
    write: Callable[[str, Payload], object],
    flush: Callable[[], object],
) -> Result:
    """Write the items over and over until the job's rows or seconds are used up; wait for every acknowledgement."""
    supply = cycle(items)
    first = next(supply)
    write(first.stream, first.payload)
    flush()
    rows = 0
    start = perf_counter()
    deadline = start + job.seconds
    for number, (stream, payload, count) in enumerate(supply, start=1):
        write(stream, payload)
        rows += count
        if rows >= job.rows or (number >= LEAST_WRITES and perf_counter() >= deadline):
            break
    flush()
    return Result(rows=rows, seconds=perf_counter() - start, topic_rows=rows + first.rows)


def main(write: Callable[[Job], Result], read: Callable[[Job], Result]) -> None:
    """Do what the command line says and print the figures as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("direction", choices=["write", "read"])
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--case", required=True, choices=CASES)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--messages", type=Path)
    options = parser.parse_args()
    job = Job(**{**vars(options), "case": CASES[options.case]})
    result = write(job) if job.direction == "write" else read(job)
    print(json.dumps(_figures(job, result)), flush=True)


def _figures(job: Job, result: Result) -> dict[str, object]:
    size = int(result.rows * bytes_per_row(job.case))
    pace = 1 / result.seconds if result.seconds else 0.0
    return {
        **asdict(result),
        "bytes": size,
        "rows_per_s": result.rows * pace,
        "mb_per_s": size * pace / 1e6,
        "packages": _packages(),
    }


def _packages() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
