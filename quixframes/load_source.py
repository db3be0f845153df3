"""History as frames of a bounded number of rows, from any place in it on: a frame, frames, Parquet or CSV files."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from quixframes.errors import FrameError, SettingsError
from quixframes.frames import TIME_NAMES

__all__ = ["GivenHistory", "History", "Part", "paced", "timed"]

GivenHistory: TypeAlias = pd.DataFrame | str | os.PathLike[str] | Iterable[pd.DataFrame] | list[str | os.PathLike[str]]
"""A frame, a file, a pattern or a folder of files, several of them, or whatever gives frames one after the other."""

_LOOK = 65_536  # bytes at either end by which a file is known again
_PARQUET = (".parquet", ".pq")
_CSV = (".csv", ".csv.gz", ".csv.zst", ".csv.bz2", ".csv.xz", ".tsv", ".txt")


class Part(NamedTuple):
    """Rows, and where they end: ``row`` rows of file (or frame) number ``file`` have come with them."""

    frame: pd.DataFrame
    file: int
    row: int


@dataclass(frozen=True)
class History:
    """What is loaded.

    Attributes:
        files: its files, in the order of their names; empty where it is frames.
        frames: its frames, where it is not files.
        options: for :func:`pandas.read_csv`.
    """

    files: tuple[Path, ...]
    frames: Iterable[pd.DataFrame]
    options: dict[str, Any]

    @classmethod
    def of(cls, given: GivenHistory, options: dict[str, Any]) -> History:
        """From what a user gives.

        Raises:
            SettingsError: there is no such file, or it is of another kind.
        """
        if isinstance(given, pd.DataFrame):
            return cls((), [given], options)
        paths = [given] if isinstance(given, str | os.PathLike) else None
        if paths is None and isinstance(given, list) and given and not isinstance(given[0], pd.DataFrame):
            paths = given
        if paths is None:
            return cls((), given, options)  # type: ignore[arg-type]
        return cls(tuple(file for path in paths for file in _files(path)), (), options)

    @cached_property
    def mark(self) -> str:
        """What its files are known by again: how many, their bytes, and a hash of their names, sizes, beginnings and
        ends. Frames have none."""
        if not self.files:
            return ""
        total, hashed = 0, hashlib.sha256()
        for file in self.files:
            with open(file, "rb") as opened:
                hashed.update(file.name.encode() + opened.read(_LOOK))
                size = opened.seek(0, os.SEEK_END)
                opened.seek(max(0, size - _LOOK))
                hashed.update(opened.read() + size.to_bytes(8, "big"))
            total += size
        return f"{len(self.files)} files of {total:,} bytes ({hashed.hexdigest()[:16]})"

    @property
    def rows(self) -> int | None:
        """How many there are, where that is known beforehand."""
        if isinstance(self.frames, list) and not self.files:
            return sum(len(frame) for frame in self.frames)
        if self.files and all(_is(file, _PARQUET) for file in self.files):
            return sum(int(pq.ParquetFile(file).metadata.num_rows) for file in self.files)
        return None

    def parts(self, size: int, file: int = 0, row: int = 0) -> Iterator[Part]:
        """The rows after the first ``row`` of file number ``file``, ``size`` at a time at most.

        Raises:
            FrameError: a column of a CSV file is not what its first rows were.
        """
        sources: Iterable[Path | pd.DataFrame] = self.files or self.frames
        for number, one in enumerate(sources):
            if number < file:
                continue
            begin = row if number == file else 0
            for frame in _parts(one, size, begin, self.options):
                begin += len(frame)
                yield Part(frame, number, begin)


def _files(path: str | os.PathLike[str]) -> list[Path]:
    where = Path(path)
    if where.is_dir():
        found = sorted(file for file in where.rglob("*") if _is(file, _PARQUET + _CSV) and file.name[0] not in "._")
    else:
        found = [where] if where.is_file() else sorted(map(Path, glob.glob(os.fspath(path), recursive=True)))
    if not found:
        raise SettingsError(f"there is no file {os.fspath(path)!r}")
    for file in found:
        if not _is(file, _PARQUET + _CSV):
            raise SettingsError(f"{file} is neither Parquet nor CSV: read it yourself, and load the frames")
    return found


def _is(file: Path, kinds: tuple[str, ...]) -> bool:
    return file.name.lower().endswith(kinds)


def _parts(one: Path | pd.DataFrame, size: int, begin: int, options: dict[str, Any]) -> Iterator[pd.DataFrame]:
    if isinstance(one, pd.DataFrame):
        for start in range(begin, len(one), size):
            yield one.iloc[start : start + size]
    elif _is(one, _PARQUET):
        yield from _parquet(one, size, begin)
    else:
        yield from _csv(one, size, begin, options)


def _parquet(file: Path, size: int, begin: int) -> Iterator[pd.DataFrame]:
    opened = pq.ParquetFile(file)
    first, passed = 0, 0
    while first < opened.num_row_groups and passed + opened.metadata.row_group(first).num_rows <= begin:
        passed += opened.metadata.row_group(first).num_rows
        first += 1
    for batch in opened.iter_batches(size, range(first, opened.num_row_groups)):
        skipped = min(max(0, begin - passed), batch.num_rows)
        passed += batch.num_rows
        if skipped < batch.num_rows:
            yield pa.Table.from_batches([batch.slice(skipped)]).to_pandas()


def _csv(file: Path, size: int, begin: int, options: dict[str, Any]) -> Iterator[pd.DataFrame]:
    """The dtypes are those of the first rows, wherever reading begins: a topic should have one for each column."""
    known: dict[str, Any] | None = None
    passed = 0
    separator = {"sep": "\t"} if file.name.lower().endswith(".tsv") else {}
    with pd.read_csv(file, **{**separator, **options, "chunksize": size}) as chunks:
        for chunk in chunks:
            if known is None:
                known = dict(chunk.dtypes)
            try:
                frame = chunk.astype(known)
            except (ValueError, TypeError) as exc:
                column = next((name for name in known if not _fits(chunk[name], known[name])), "")
                raise FrameError(
                    f"{file}, rows {passed:,} to {passed + len(chunk):,}: column {column!r} is {known[column]} in the "
                    f"first rows and not here ({exc}): say what it is, as in dtype={{{column!r}: 'float64'}}",
                    column=column,
                ) from exc
            skipped = min(max(0, begin - passed), len(frame))
            passed += len(frame)
            if skipped < len(frame):
                yield frame.iloc[skipped:].reset_index(drop=True)


def _fits(column: pd.Series[Any], dtype: Any) -> bool:
    try:
        column.astype(dtype)
    except (ValueError, TypeError):
        return False
    return True


def timed(frame: pd.DataFrame, time: str | None) -> pd.DataFrame:
    """The frame with its time in the index: from the column of this name, or the one named time, timestamp or datetime.
    Text has to be as ISO 8601 has it, and is UTC where it says no zone.

    >>> timed(pd.DataFrame({"valid": ["2026-11-15 14:00"], "wind": [3.5]}), "valid").index[0]
    Timestamp('2026-11-15 14:00:00+0000', tz='UTC')

    Raises:
        FrameError: there is no such column, or it is no time.
    """
    if time is None and isinstance(frame.index, pd.DatetimeIndex):
        return frame
    named = [name for name in frame.columns if str(name).lower() in TIME_NAMES] if time is None else [time]
    if not named or named[0] not in frame.columns:
        raise FrameError(f"the rows have no column {time or 'time'!r}: say which one the time is, as in time='date'")
    values = frame[named[0]]
    if pd.api.types.is_numeric_dtype(values.dtype):
        raise FrameError(
            f"column {named[0]!r} has numbers: convert it with pd.to_datetime(..., unit=...)", column=named[0]
        )
    text = pd.api.types.is_string_dtype(values.dtype)
    try:
        index = pd.DatetimeIndex(pd.to_datetime(values, utc=True, format="ISO8601" if text else None), name="time")
    except (ValueError, TypeError) as exc:
        raise FrameError(f"column {named[0]!r} is no time: {exc}", column=named[0]) from exc
    return frame.drop(columns=named[0]).set_axis(index, axis=0)


def paced(frame: pd.DataFrame, step: int) -> Iterator[tuple[int, pd.DataFrame]]:
    """The rows of each ``step`` nanoseconds, in their order, with the latest time of them and those before: who comes
    late comes with those that it comes after.

    >>> index = pd.DatetimeIndex(np.array([0, 3, 2, 5], "datetime64[ns]"), name="time").tz_localize("UTC")
    >>> [(at, part["n"].tolist()) for at, part in paced(pd.DataFrame({"n": range(4)}, index=index), 2)]
    [(0, [0]), (3, [1, 2]), (5, [3])]
    """
    times = pd.DatetimeIndex(frame.index).as_unit("ns").asi8
    latest = np.maximum.accumulate(times)
    edges = [0, *(np.flatnonzero(np.diff(latest // step)) + 1).tolist(), len(frame)]
    for begin, end in pairwise(edges):
        yield int(latest[end - 1]), frame.iloc[begin:end]
