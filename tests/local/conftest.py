"""What every test of the local Kafka has: a check that nothing it started is left."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """No process that works in the test's folder, no child and no thread outlives the test."""
    children, threads = set(psutil.Process().children(recursive=True)), set(threading.enumerate())
    yield
    left = set(psutil.Process().children(recursive=True)) - children
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and any(
                str(tmp_path) in argument for argument in process.cmdline()
            ):
                left.add(process)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    assert not left
    assert set(threading.enumerate()) <= threads
