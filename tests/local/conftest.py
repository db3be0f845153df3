"""What every test of the local Kafka has: a check that nothing it started is left."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """No process that works in the test's folder, no child and no thread outlives the test."""
    children, threads = set(psutil.Process().children(recursive=True)), set(threading.enumerate())
    yield
    # A supervisor that nobody waits for, since it was detached, ends a moment after its broker.
    deadline = time.monotonic() + 5
    while (left := _left(tmp_path, children)) and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    assert not left
    assert set(threading.enumerate()) <= threads


def _left(folder: Path, before: set[psutil.Process]) -> set[psutil.Process]:
    left = set(psutil.Process().children(recursive=True)) - before
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in process.cmdline()):
                left.add(process)
    return left
