"""How long the rows of a partition wait when its instance leaves, or is killed, and another takes over.

``python -m benchmarks.takeover`` runs four instances of a model on three partitions, writes a row to each partition
every 20 ms, and takes one of the three instances away. What is printed is the longest time between two results of its
partition.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd

import quixframes as qf

MODEL = """
import time

def stamp(frame):
    return frame.assign(done=time.time())
"""
STREAMS = ("s1", "s0", "s3")  # one of each partition


def write(topic: qf.OutputTopic, stop: threading.Event) -> None:
    """A row to each partition, again and again."""
    while not stop.wait(0.02):
        for stream in STREAMS:
            topic.write(pd.DataFrame({"n": [1]}, index=[pd.Timestamp.now("UTC")]), stream=stream)


def measure(client: qf.StreamingClient, address: str, number: signal.Signals, session: str, folder: Path) -> float:
    """Seconds for which the results of the partition stood still whose instance was sent a signal."""
    source, sink = (f"takeover-{number.name.lower()}-{session}-{way}" for way in ("in", "out"))
    for name in (source, sink):
        client.topics.create(name, partitions=3)
    command = [
        sys.executable, "-m", "quixframes.cli", "run", "stamp.py:stamp", "-n", "4", "--source", source, "--sink", sink,
        "--group", source, "--broker", address, "--session-timeout", session, "--timeout", "20ms", "--no-restart",
        "--commit-every", "500ms",
    ]  # fmt: skip
    stop = threading.Event()
    with client.open_output_topic(source) as topic:
        writer = threading.Thread(target=write, args=(topic, stop))
        writer.start()
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
            assert run.stderr is not None
            pids: dict[str, int] = {}
            shares: dict[str, list[int]] = {}
            taken_away, taken_over = "", ""
            for line in run.stderr:
                if begun := re.search(r"  (\d)  started \(process (\d+)\)", line):
                    pids[begun[1]] = int(begun[2])
                if said := re.search(r"  (\d)  has (.*)$", line):
                    shares[said[1]] = [int(n) for n in re.findall(r"\[(\d)\]", said[2])]
                    if not taken_away and sorted(map(len, shares.values())) == [0, 1, 1, 1]:
                        time.sleep(5)  # until it runs as it does every day
                        idle = next(n for n, share in shares.items() if not share)
                        taken_away = next(n for n, share in shares.items() if share)
                        partition = shares[taken_away]
                        os.kill(pids[taken_away], number)
                    elif taken_away and not taken_over and said[1] == idle and shares[idle] == partition:
                        taken_over = idle
                        time.sleep(3)
                        run.send_signal(signal.SIGTERM)
        stop.set()
        writer.join()
    frame = client.replay(sink, [STREAMS[partition[0]]], progress=False).to_frame()
    return float(frame["done"].sort_values().diff().max())


def main() -> None:
    """Print a line for each way to go and each session time-out."""
    with tempfile.TemporaryDirectory() as name, qf.LocalKafka(Path(name) / "kafka", keep=False) as kafka:
        (Path(name) / "stamp.py").write_text(MODEL)
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        with qf.StreamingClient(kafka.address) as client:
            cases = [(signal.SIGTERM, "45s"), (signal.SIGKILL, "6s"), (signal.SIGKILL, "10s"), (signal.SIGKILL, "45s")]
            for number, session in cases:
                seconds = measure(client, kafka.address, number, session, Path(name))
                print(f"{number.name}, --session-timeout {session}: {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
