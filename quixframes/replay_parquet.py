"""A replay as a dataset of Parquet files, written in steps of bounded memory, and resumed where it was broken off.

What this module holds to:

- A file of the dataset is there as a whole, or not at all.
- A row is in one file. The files of a step get their names when all of them are written, and count once the state says
  that the step is done; what a step left that was broken off is removed before it is done again.
- What is read is settled by the first run: times before now are those of its start, and topics end
  where they ended then.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from quixframes.dataset_layout import Keys, folders, merged, table_of
from quixframes.errors import SettingsError
from quixframes.kafka import Partition
from quixframes.replay_asked import Asked, Span
from quixframes.replay_plan import Plan, Stretch
from quixframes.replay_read import Reading

__all__ = ["ParquetDataset", "write_parquet"]

# Names that begin with "_" or "." are no data to Arrow, Spark, Dask and their like.
_STATE, _SCHEMA, _LOCK, _UNFINISHED = "_replay.json", "_common_metadata", "_replay.lock", ".unfinished"


@dataclass(frozen=True, slots=True)
class ParquetDataset:
    """What :meth:`Replay.to_parquet <quixframes.replay.Replay.to_parquet>` wrote.

    Attributes:
        path: its folder.
        rows: how many it has.
        files: how many it has.
        bytes: of these files.
    """

    path: Path
    rows: int
    files: int
    bytes: int

    def __fspath__(self) -> str:
        return os.fspath(self.path)


@dataclass(frozen=True, slots=True)
class _State:
    """How far a dataset is: what was asked, what is left of the plan, and what has been written."""

    asked: dict[str, Any]
    span: tuple[int | None, int | None]
    left: tuple[Stretch, ...]
    steps: int = 0
    rows: int = 0
    files: int = 0
    bytes: int = 0
    schema: str = ""  # that of all files so far, as Arrow writes it, in base 64
    complete: bool = False

    def text(self) -> str:
        left = [[*stretch.partition, stretch.begin, stretch.end] for stretch in self.left]
        return json.dumps({name: getattr(self, name) for name in self.__slots__} | {"left": left}, indent=1)

    @classmethod
    def of(cls, text: str) -> Self:
        found = json.loads(text)
        left = tuple(Stretch(Partition(topic, number), begin, end) for topic, number, begin, end in found.pop("left"))
        return cls(**found | {"left": left, "span": tuple(found["span"])})


def write_parquet(
    asked: Asked,
    plan: Callable[[], Plan],
    read: Callable[[Plan], Reading],
    path: Path,
    keys: Keys,
    labels: Sequence[str],
    *,
    step_bytes: int,
    overwrite: bool,
    options: dict[str, Any],
) -> ParquetDataset:
    """Write the rows that are asked for, or go on with it.

    Args:
        asked: what is asked for.
        plan: makes the plan; called where nothing was begun yet.
        read: reads a plan.
        path, keys, labels, overwrite, options: as of :meth:`Replay.to_parquet <quixframes.replay.Replay.to_parquet>`;
            ``labels`` are the columns that there are in place of folders.
        step_bytes: rows are written when so many bytes of them are held.

    Raises:
        SettingsError: there is something else at this path, or somebody is writing it.
        FrameError: a column is of different types in the messages.
    """
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        if overwrite and (path / _STATE).exists():
            _empty(path)
        question = asked.question | {"partition_by": list(keys), "labels": list(labels)}
        state = _begun(path, question)
        if state is None:
            made = plan()
            state = _State(question, (asked.span.start, asked.span.end), made.stretches)
            _replace(path / _STATE, state.text())
        else:
            asked = replace(asked, span=Span(*state.span))
            made = Plan(asked, state.left)
        _remove_unfinished(path, state.steps)
        with _Steps(path, state, keys, labels, options) as steps:
            for at, offset, message in read(made).messages():
                if message.batch is not None:
                    steps.add(at.partition, offset, message.stream_id, message.batch)
                if steps.nbytes >= step_bytes:
                    steps.write()
            return steps.complete()


class _Steps:
    """Takes rows in, and writes them step by step: each on a thread, while the next is taken in."""

    def __init__(self, path: Path, state: _State, keys: Keys, labels: Sequence[str], options: dict[str, Any]) -> None:
        self.nbytes = 0
        self._path = path
        self._state = state
        self._keys, self._labels, self._options = keys, labels, options
        self._held: dict[str, list[tuple[str, str, pa.RecordBatch]]] = {}
        self._begins = {stretch.partition: stretch.begin for stretch in state.left}
        known = base64.b64decode(state.schema)
        self._schemas = [pa.ipc.read_schema(pa.py_buffer(known))] if known else []
        self._thread = ThreadPoolExecutor(1, "quixframes-parquet")
        self._writing: Future[None] | None = None
        self._broken_off = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._broken_off = True
        self._thread.shutdown()

    def add(self, at: Partition, offset: int, stream: str, batch: pa.RecordBatch) -> None:
        """Take in the rows of a message."""
        for folder, part in folders(batch, at.topic, stream, self._keys):
            self._held.setdefault(folder, []).append((at.topic, stream, part))
        self.nbytes += batch.nbytes
        self._begins[at] = offset + 1

    def write(self) -> None:
        """Begin to write what is held, once what was held before is written."""
        self._wait()
        self._writing = self._thread.submit(self._write, self._held, dict(self._begins))
        self._held, self.nbytes = {}, 0

    def complete(self) -> ParquetDataset:
        """Write the rest, and remember that this was all."""
        if self._held:
            self.write()
        self._wait()
        self._state = state = replace(self._state, left=(), complete=True)
        _replace(self._path / _STATE, state.text())
        shutil.rmtree(self._path / _UNFINISHED, ignore_errors=True)
        return ParquetDataset(self._path, state.rows, state.files, state.bytes)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write(self, held: dict[str, list[tuple[str, str, pa.RecordBatch]]], begins: dict[Partition, int]) -> None:
        state, unfinished = self._state, self._path / _UNFINISHED
        unfinished.mkdir(exist_ok=True)
        names: list[Path] = []
        rows = size = 0
        for folder, batches in held.items():
            if self._broken_off:
                return
            table = table_of(batches, self._labels, self._keys)
            self._schemas = [merged([*self._schemas, table.schema])]
            file = unfinished / str(len(names))
            pq.write_table(table, file, **{"use_dictionary": _repeating(table.schema), **self._options})
            names.append(self._path / folder / f"{state.steps:06d}.parquet")
            rows, size = rows + table.num_rows, size + file.stat().st_size
        (schema,) = self._schemas
        pq.write_metadata(schema, unfinished / _SCHEMA)
        (unfinished / _SCHEMA).replace(self._path / _SCHEMA)
        for number, name in enumerate(names):
            name.parent.mkdir(parents=True, exist_ok=True)
            (unfinished / str(number)).replace(name)
        left = tuple(Stretch(at, begins[at], end) for at, _, end in state.left)
        self._state = replace(
            state, left=left, steps=state.steps + 1, rows=state.rows + rows, files=state.files + len(names),
            bytes=state.bytes + size, schema=base64.b64encode(schema.serialize()).decode(),
        )  # fmt: skip
        _replace(self._path / _STATE, self._state.text())


def _repeating(schema: pa.Schema) -> list[str]:
    """The columns whose values may come again: looking for that in others takes most of the time of writing."""
    return [
        field.name for field in schema if not (pa.types.is_floating(field.type) or pa.types.is_timestamp(field.type))
    ]


def _begun(path: Path, question: dict[str, Any]) -> _State | None:
    """The state of a dataset that was begun; None where there is none."""
    try:
        state = _State.of((path / _STATE).read_text())
    except FileNotFoundError:
        if other := next((one.name for one in path.iterdir() if one.name not in (_LOCK, f"{_STATE}.new")), None):
            raise SettingsError(
                f"{path} has {other!r} in it, and is no dataset of a replay: give a folder that is empty or not there"
            ) from None
        return None
    if state.complete:
        raise SettingsError(
            f"{path} has been written: {state.rows:,} rows in {state.files:,} files; overwrite=True writes it anew"
        )
    if differ := [f"{name} was {state.asked.get(name)!r} and is {value!r}" for name, value in question.items()
                  if state.asked.get(name) != value]:  # fmt: skip
        raise SettingsError(
            f"{path} was begun with another replay ({'; '.join(differ)}): ask for the same again to go on with it, or "
            "overwrite=True"
        )
    return state


def _empty(path: Path) -> None:
    """Remove a dataset; its state last, so that what a broken removal leaves is known for one."""
    for one in path.iterdir():
        if one.is_dir():
            shutil.rmtree(one)
        elif one.name not in (_STATE, _LOCK):
            one.unlink()
    (path / _STATE).unlink()


def _remove_unfinished(path: Path, steps: int) -> None:
    """Remove what a step left that was broken off."""
    shutil.rmtree(path / _UNFINISHED, ignore_errors=True)
    for file in path.rglob(f"{steps:06d}.parquet"):
        file.unlink()


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process writes a dataset. The kernel frees the lock when the process ends, however it does."""
    with open(path / _LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"{path} is being written by another process or thread") from None
        yield
