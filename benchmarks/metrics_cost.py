"""What metrics cost: a reader of 10-row messages at full speed, with a scrape a second and without, in turns.

    python -m benchmarks.metrics_cost [messages] [turns]

Beside the clock it takes the processor's time of this process, which other work on the machine disturbs less.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from typing import NamedTuple

import numpy as np
import pandas as pd

import quixframes as qf
from quixframes import metrics_prometheus


class _Run(NamedTuple):
    wall: float
    cpu: float
    scrapes: int
    scraping: float


def _read(client: qf.StreamingClient, rows: int, scraped: bool) -> _Run:
    ended, times = threading.Event(), []

    def scrape() -> None:
        while not ended.wait(1.0):
            begun = time.thread_time()
            metrics_prometheus.text(client)
            times.append(time.thread_time() - begun)

    thread = threading.Thread(target=scrape)
    if scraped:
        thread.start()
    begun, cpu = time.perf_counter(), time.process_time()
    with client.open_input_topic("small", None) as topic:
        found = sum(len(batch) for batch in topic.batches(rows=10_000, until="now"))
    assert found == rows, found
    run = _Run(time.perf_counter() - begun, time.process_time() - cpu, len(times), sum(times))
    ended.set()
    if scraped:
        thread.join()
    return run


def main(messages: int, turns: int) -> None:
    """Print medians and their ratio."""
    times = pd.date_range("2026-01-01", periods=10, freq="10ms", tz="UTC")
    frame = pd.DataFrame({"speed": np.linspace(0.0, 83.0, 10), "n": np.arange(10)}, index=times)
    with (
        tempfile.TemporaryDirectory() as directory,
        qf.LocalKafka(directory, keep=False) as kafka,
        qf.StreamingClient(kafka.address) as client,
    ):
        client.topics.create("small", partitions=3)
        with client.open_output_topic("small") as out:
            for n in range(messages):
                out.write(frame, stream=f"s{n % 100}")
        runs: dict[bool, list[_Run]] = {False: [], True: []}
        _read(client, messages * 10, scraped=False)  # warm
        for turn in range(turns):
            for scraped in (False, True) if turn % 2 else (True, False):
                runs[scraped].append(_read(client, messages * 10, scraped))
    for what, of in (("seconds", 0), ("seconds of processor", 1)):
        without, with_ = (statistics.median(run[of] for run in runs[scraped]) for scraped in (False, True))
        print(f"{what}: {without:.2f} without, {with_:.2f} with a scrape a second; ratio {with_ / without:.3f}")
    scrapes = sum(run.scrapes for run in runs[True])
    print(f"a scrape: {sum(run.scraping for run in runs[True]) / max(1, scrapes) * 1e3:.2f} ms ({scrapes} of them)")
    print(f"{messages * 10 / statistics.median(run.wall for run in runs[False]):,.0f} rows/s without")


if __name__ == "__main__":
    main(*(int(text) for text in (sys.argv[1:] or ["40000", "6"])))
