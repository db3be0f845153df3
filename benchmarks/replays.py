"""Reading what a topic retains, beside bare polling of the same bytes. ``python -m benchmarks.replays``

Each way is a process of its own, so that its memory is its own; the ways take turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from time import perf_counter

import numpy as np
import pandas as pd
from kafka import KafkaConsumer, TopicPartition

import quixframes as qf

ROWS = 10_000
STREAMS = 64
TOPIC = "history"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ways", nargs="*", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--broker", help="default: a Kafka of its own; with a topic 'history' there, it is read")
    parser.add_argument("--transport", default="kafka-python")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measured(options.one, options.broker, options.transport)))
        return 0
    if options.broker is not None:
        print(table(options))
        return 0
    with qf.LocalKafka(keep=False, heap="1g") as kafka:
        options.broker = kafka.address
        print(table(options))
    return 0


def fill(address: str, rows: int, partitions: int) -> None:
    """Ten float parameters, in messages of 10,000 rows of 64 streams."""
    index = pd.date_range("2026-11-22", periods=ROWS, freq="10ms", tz="UTC", name="time", unit="ns")
    frame = pd.DataFrame({f"p{n}": np.random.default_rng(n).normal(size=ROWS) for n in range(10)}, index=index)
    with qf.StreamingClient(address) as client:
        if client.topics.exists(TOPIC):
            return
        client.topics.create(TOPIC, partitions=partitions)
        with client.open_output_topic(TOPIC) as topic:
            for n in range(rows // ROWS):
                frame.index = index + pd.Timedelta(100 * (n // STREAMS), "s")
                topic.write(frame, stream=f"s{n % STREAMS}")


def bare(address: str, _: str) -> int:
    """kafka-python alone: the bytes polled, and not looked at."""
    consumer = KafkaConsumer(bootstrap_servers=address, max_partition_fetch_bytes=16 << 20, fetch_max_bytes=64 << 20)
    partitions = [TopicPartition(TOPIC, n) for n in consumer.partitions_for_topic(TOPIC)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends, size = consumer.end_offsets(partitions), 0
    while any(consumer.position(at) < end for at, end in ends.items()):
        for records in consumer.poll(timeout_ms=500, max_records=10_000).values():
            size += sum(len(record.value) for record in records)
    consumer.close()
    return size


def replay(address: str, transport: str, **more: object) -> qf.Replay:
    client = qf.StreamingClient(address, transport=transport)
    return client.replay(TOPIC, progress=False, **more)


def describe(address: str, transport: str) -> int:
    return int(replay(address, transport).describe().streams["bytes"].sum())


def batches(address: str, transport: str) -> int:
    found = replay(address, transport)
    assert sum(len(batch.frame) for batch in found.batches(rows=ROWS)) > 0
    return found.report.bytes


def to_frame(address: str, transport: str) -> int:
    found = replay(address, transport)
    assert len(found.to_frame()) > 0
    return found.report.bytes


def to_parquet(address: str, transport: str) -> int:
    found = replay(address, transport)
    with tempfile.TemporaryDirectory() as folder:
        found.to_parquet(folder)
        return found.report.bytes


WAYS = {"bare": bare, "describe": describe, "batches": batches, "to_frame": to_frame, "to_parquet": to_parquet}


def measured(way: str, address: str, transport: str) -> dict[str, float]:
    """One run: megabytes a second, and the most memory of the process."""
    begun = perf_counter()
    size = WAYS[way](address, transport)
    rate = size / 1e6 / (perf_counter() - begun)
    return {"rate": rate, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, "size": size / 1e6}


def table(options: argparse.Namespace) -> str:
    """Each way's rate and memory, the medians over the rounds, and its rate as a share of bare polling's."""
    fill(options.broker, options.rows, options.partitions)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(options.rounds):
        for way in options.ways:
            command = [sys.executable, "-m", "benchmarks.replays", "--one", way]
            command += ["--broker", options.broker, "--transport", options.transport]
            found[way].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    lines = [f"{'way':<12} {'MB/s':>8} {'of bare':>8} {'seconds':>8} {'memory':>9}"]
    for way, runs in found.items():
        rate, memory, size = (statistics.median(run[name] for run in runs) for name in ("rate", "memory", "size"))
        ratio = rate / statistics.median(run["rate"] for run in found["bare"]) if "bare" in found else float("nan")
        lines.append(f"{way:<12} {rate:>8,.0f} {ratio:>8.2f} {size / rate:>8.1f} {memory:>6,.0f} MB")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
