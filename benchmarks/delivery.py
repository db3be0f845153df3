"""What exactly once costs: one model, over the same rows, by both promises in turn. ``python -m benchmarks.delivery``

Each round reads a topic of 10,000-row messages, doubles the rows and writes them, once for each way; the ways take
turns, so that a busy moment of the machine is nobody's alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import uuid

import numpy as np
import pandas as pd

import quixframes as qf

ROWS = 10_000
STREAMS = 4
WAYS = [(exactly_once, mode) for mode in qf.CommitMode for exactly_once in (False, True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--broker", help="default: a Kafka of its own")
    options = parser.parse_args()
    if options.broker is not None:
        print(table(options.broker, options.rounds, options.messages))
        return 0
    with qf.LocalKafka(keep=False, heap="1g") as kafka:
        print(table(kafka.address, options.rounds, options.messages))
    return 0


def table(address: str, rounds: int, messages: int) -> str:
    """Rows a second of each way, the median over the rounds, and as a share of at least once."""
    index = pd.date_range("2026-11-22", periods=ROWS, freq="10ms", tz="UTC", name="time")
    frame = pd.DataFrame({f"p{n}": np.random.default_rng(n).normal(size=ROWS) for n in range(10)}, index=index)
    rates: dict[tuple[bool, qf.CommitMode], list[float]] = {way: [] for way in WAYS}
    with qf.StreamingClient(address) as client:
        raw, out = f"raw-{uuid.uuid4().hex[:8]}", f"out-{uuid.uuid4().hex[:8]}"
        for topic in (raw, out):
            client.topics.create(topic, partitions=3, retention="10 min")
        with client.open_output_topic(raw) as topic:
            for n in range(messages):
                topic.write(frame, stream=f"s{n % STREAMS}")
        for _ in range(rounds):
            for exactly_once, mode in WAYS:
                opened = client.open_input_topic(raw, uuid.uuid4().hex, mode, exactly_once=exactly_once)
                with opened as source, client.open_output_topic(out) as sink:
                    summary = qf.run(lambda rows: rows * 2, source, sink, until="now", rows=ROWS, timeout=None)
                assert summary.processed == messages * ROWS, summary
                rates[exactly_once, mode].append(summary.processed / summary.seconds)
    lines = [f"{'commits':<12} {'at least once':>16} {'exactly once':>16} {'ratio':>8}   (rows/s, medians of {rounds})"]
    for mode in qf.CommitMode:
        least, exactly = (statistics.median(rates[way, mode]) for way in (False, True))
        lines.append(f"{mode.value:<12} {least:>16,.0f} {exactly:>16,.0f} {exactly / least:>8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
