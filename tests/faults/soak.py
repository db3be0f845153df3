"""A long, steady load, with an instance restarted every minute: does anything grow, and is every row accounted for?

``python -m tests.faults.soak --minutes 60`` starts a Kafka of its own, a writer of 1,000 streams, and three instances
of a model in one group, of which one after the other is stopped by SIGTERM and started again. It samples memory,
threads and open files of the writer and of each instance, and at the end prints the slopes and the accounts. Exit code
0: every row was processed once, and nothing grows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from kafka import KafkaAdminClient
from kafka.protocol.consumer import OffsetSpec

import quixframes as qf

SAMPLE = 10.0  # seconds
RATE = 20_000  # rows a second
STREAMS = 1_000
TURN = 2  # seconds in which each stream is written once
INSTANCES = 3
FLAT = 1.0  # MB a minute, above which memory counts as growing; some noise is in every allocator


def write(address: str, minutes: float) -> None:
    """Write ``RATE`` rows a second, each stream's of two seconds together."""
    rows = TURN * RATE // STREAMS
    frame = pd.DataFrame({f"p{n}": np.random.default_rng(n).normal(size=rows) for n in range(3)})
    end, turn, written = time.monotonic() + minutes * 60, 0, 0
    with qf.StreamingClient(address) as client, client.open_output_topic("soak-in") as topic:
        begun = time.monotonic()
        while time.monotonic() < end:
            times = pd.date_range(pd.Timestamp(turn, unit="s", tz="UTC"), periods=rows, freq="10ms", name="time")
            part = frame.assign(n=np.arange(turn * rows, (turn + 1) * rows)).set_index(times)
            for stream in range(STREAMS):
                topic.write(part, stream=f"car-{stream}")
                written += rows
                # Evenly within the turn, so that the load is even.
                ahead = begun + TURN * (turn + stream / STREAMS) - time.monotonic()
                if ahead > 0.01:
                    time.sleep(ahead)
            turn += 1
    print(json.dumps({"written": written, "seconds": time.monotonic() - begun}))


def process(address: str) -> None:
    """One instance of the model, until SIGTERM; then it prints its account."""
    with qf.StreamingClient(address) as client:
        opened = client.open_input_topic("soak-in", "soak")
        try:
            with opened as source, client.open_output_topic("soak-out") as sink:
                qf.run(lambda frame: frame[["n"]], source, sink, rows=2_000, timeout="10s")
        finally:
            print(json.dumps({name: int(value) for name, value in opened.accounts().sum().items()}))


@dataclass
class Member:
    """A process, and what was seen of it: (seconds, MB, threads, open files)."""

    name: str
    process: subprocess.Popen[str]
    begun: float = field(default_factory=time.monotonic)
    samples: list[tuple[float, float, int, int]] = field(default_factory=list)

    @classmethod
    def start(cls, name: str, *arguments: str) -> Member:
        command = [sys.executable, "-m", "tests.faults.soak", *arguments]
        return cls(name, subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    def sample(self) -> None:
        """Note what it takes."""
        try:
            seen = psutil.Process(self.process.pid)
            size = seen.memory_info().rss / 1e6
            if size:  # it is not on its way out
                self.samples.append((time.monotonic() - self.begun, size, seen.num_threads(), seen.num_fds()))
        except psutil.Error:
            pass

    def result(self, timeout: float) -> dict[str, float]:
        """What it printed at its end."""
        out, _ = self.process.communicate(timeout=timeout)
        found: dict[str, float] = json.loads(out.splitlines()[-1])
        return found


def soak(minutes: float, folder: Path | None) -> int:
    """Run it all; the exit code."""
    with (
        qf.LocalKafka(folder, keep=folder is not None, heap="1g") as kafka,
        qf.StreamingClient(kafka.address) as client,
    ):
        for topic in ("soak-in", "soak-out"):
            client.topics.create(topic, partitions=6, retention="10 min")
        instances = [Member.start(f"instance {n}", "--process", kafka.address) for n in range(INSTANCES)]
        writer = Member.start("writer", "--write", kafka.address, "--minutes", str(minutes))
        gone: list[Member] = []
        accounts: list[dict[str, float]] = []
        # The last instance is never restarted: what grows slowly is seen there.
        turn, next_restart = 0, time.monotonic() + 60
        while writer.process.poll() is None:
            threading.Event().wait(SAMPLE)
            for member in (*instances, writer):
                member.sample()
            if time.monotonic() >= next_restart:
                next_restart += 60
                old = instances[turn]
                old.process.send_signal(signal.SIGTERM)
                accounts.append(old.result(60))
                gone.append(old)
                instances[turn] = Member.start(f"instance {turn}", "--process", kafka.address)
                turn = (turn + 1) % (INSTANCES - 1)
                print(f"{len(gone)} restarts; {members(instances, writer)}", flush=True)
        written = writer.result(60)
        wait_until_read(kafka.address)
        for member in instances:
            member.process.send_signal(signal.SIGTERM)
        accounts += [member.result(60) for member in instances]
    totals = pd.DataFrame(accounts).sum().astype("int64")
    print(f"\nwritten   {written['written']:,.0f} rows in {written['seconds']:,.0f} s")
    print("accounts ", ", ".join(f"{name} {value:,}" for name, value in totals.items()))
    sound = totals["processed"] == written["written"]
    sound &= totals["rows_in"] == totals.drop("rows_in").sum()
    print(f"every row processed once: {'yes' if sound else 'NO'}")
    for member in (instances[-1], writer):
        sound &= report(member)
    return 0 if sound else 1


def wait_until_read(address: str) -> None:
    """Wait until the group has committed everything."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            done = admin.list_group_offsets({"soak": None})["soak"]
            ends = admin.list_partition_offsets(dict.fromkeys(done, OffsetSpec.LATEST))
            if all(done[at].offset == ends[at].offset for at in done):
                return
            threading.Event().wait(1)
    finally:
        admin.close()


def members(instances: list[Member], writer: Member) -> str:
    """One line of what is running."""
    seen = [f"{m.name} {m.samples[-1][1]:.0f} MB" for m in (*instances, writer) if m.samples]
    return ", ".join(seen)


def report(member: Member) -> bool:
    """Print what was seen of a process that ran all the time; whether nothing grows."""
    samples = np.array(member.samples)
    steady = samples[samples[:, 0] > samples[-1, 0] / 4]  # caches fill at first
    slope = np.polyfit(steady[:, 0] / 60, steady[:, 1], 1)[0]
    threads, files = steady[:, 2], steady[:, 3]
    print(
        f"{member.name}: {steady[0, 1]:.0f} to {steady[-1, 1]:.0f} MB (slope {slope:+.2f} MB a minute), "
        f"threads {threads.min():.0f} to {threads.max():.0f}, open files {files.min():.0f} to {files.max():.0f}"
    )
    halves = np.array_split(steady, 2)
    grows = [halves[1][:, column].max() > halves[0][:, column].max() for column in (2, 3)]
    return bool(slope < FLAT and not any(grows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", metavar="ADDRESS")
    parser.add_argument("--process", metavar="ADDRESS")
    options = parser.parse_args()
    if options.write:
        write(options.write, options.minutes)
        return 0
    if options.process:
        process(options.process)
        return 0
    print(f"process {os.getpid()}: {options.minutes:g} minutes")
    return soak(options.minutes, options.folder)


if __name__ == "__main__":
    sys.exit(main())
