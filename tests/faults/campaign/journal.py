"""What the processes of a campaign write down, so that it outlives them: lines in a file, each by one system call.

A line is a JSON list: the kind of entry, the moment (``time.monotonic``, which all processes of a machine share), and
what there is to say.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["Journal", "acknowledgements", "entries", "written"]


class Journal:
    """A file to which entries are added. What ``sync`` returned after is on the disk."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, *entries: list[Any], sync: bool = False) -> None:
        """Add entries of one moment: each is its kind, and what there is to say."""
        now = time.monotonic()
        lines = [json.dumps([entry[0], now, *entry[1:]]) for entry in entries]
        os.write(self._file, ("\n".join(lines) + "\n").encode())
        if sync:
            os.fsync(self._file)


def entries(path: Path) -> list[list[Any]]:
    """All entries of a journal; a last line that was cut off is none."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def written(path: Path) -> pd.DataFrame:
    """What a writer's journal says of its writes, as the checker takes it.

    ``["sent", at, [[stream, first, last], ...]]`` stands before the writes are made, ``["acknowledged", at]`` after all
    writes since the last such entry, or since the last ``["failed", at, why]`` or ``["opened", at]``, were.
    """
    rows: list[list[Any]] = []
    open_since = 0
    for kind, _, *facts in entries(path):
        if kind == "sent":
            rows += [[*run, False] for run in facts[0]]
        elif kind == "acknowledged":
            for row in rows[open_since:]:
                row[3] = True
        if kind != "sent":
            open_since = len(rows)
    return pd.DataFrame(rows, columns=["stream", "first", "last", "acknowledged"])


def acknowledgements(path: Path, kind: str = "acknowledged") -> list[float]:
    """The moments of a journal's entries of that kind."""
    return [entry[1] for entry in entries(path) if entry[0] == kind]
