"""A writer to be harmed: numbered rows to many streams, and a journal of what was sent and what was acknowledged.

``python -m tests.faults.campaign.writer OPTIONS NUMBER LIFE``. A row that may have been sent is never sent again: the
next life goes on with the number after it. SIGTERM ends it after what it has sent was acknowledged.
"""

from __future__ import annotations

import itertools
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd

import quixframes as qf

from .journal import Journal, entries
from .options import Options, end_with_parent


def frame(first: int, last: int, life: int) -> pd.DataFrame:
    """The rows of these numbers."""
    n = np.arange(first, last + 1)
    index = pd.DatetimeIndex(pd.to_datetime(n * 1_000_000, utc=True), name="time")
    return pd.DataFrame({"n": n, "life": np.full(n.size, life)}, index=index)


def next_numbers(path: Path) -> dict[str, int]:
    """Where each stream goes on, after all lives so far."""
    return {run[0]: run[2] + 1 for kind, _, *facts in entries(path) if kind == "sent" for run in facts[0]}


def main(options_path: str, number: str, life: str) -> None:
    """Write until SIGTERM."""
    end_with_parent()
    options = Options.read(options_path)
    path = Path(options.folder) / f"writer-{number}.journal"
    numbers = next_numbers(path)
    journal = Journal(path)
    randomness = random.Random(options.seed * 1_000 + int(number) * 100 + int(life))
    streams = [f"w{number}-s{i:02}" for i in range(options.streams)]
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    while not stopping.is_set():
        journal.add(["opened"])
        try:
            write(options, journal, numbers, streams, randomness, int(life), stopping)
        except qf.QuixframesError as exc:
            journal.add(["failed", f"{type(exc).__name__}: {exc}"], sync=True)
            stopping.wait(0.5)


def write(
    options: Options,
    journal: Journal,
    numbers: dict[str, int],
    streams: list[str],
    randomness: random.Random,
    life: int,
    stopping: threading.Event,
) -> None:
    """Groups of writes, each after it was written down; every few groups all of them are waited for."""
    buffer = qf.BufferSettings(rows=200, timeout="200ms")
    with (
        qf.StreamingClient(options.address, **options.client_arguments()) as client,
        client.open_output_topic(options.source, buffer=buffer) as output,
    ):
        due = time.monotonic()
        for _ in itertools.count():
            for _ in range(randomness.randint(1, 6)):
                runs = []
                for stream in randomness.sample(streams, 5):
                    count = randomness.randint(1, 2 * options.rows // 5 - 1)
                    first = numbers.get(stream, 0)
                    numbers[stream] = first + count
                    runs.append([stream, first, first + count - 1])
                journal.add(["sent", runs], sync=True)
                for stream, first, last in runs:
                    parameters = output.get_or_create_stream(stream).parameters
                    # A third of the streams writes through buffers.
                    target = parameters.buffer if int(stream[-2:]) % 3 == 0 else parameters
                    target.write(frame(first, last, life))
                due = max(due + options.tick, time.monotonic() - 1.0)
                stopping.wait(max(0.0, due - time.monotonic()))
            output.flush()
            journal.add(["acknowledged"], sync=True)
            if stopping.is_set():
                break


if __name__ == "__main__":
    main(*sys.argv[1:])
