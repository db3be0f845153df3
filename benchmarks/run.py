"""Measure every contender on one broker, turn by turn: ``python -m benchmarks.run``.

A round takes each case in turn and, within it, each contender: a fresh topic, one process that writes, one process for
each way of reading, and the topic is gone. So a slow minute of the machine falls on all of them, and medians over the
rounds compare. Runs are appended to ``runs.jsonl`` as they end; :mod:`benchmarks.report` makes table and plot of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kafka.admin import KafkaAdminClient, NewTopic

from benchmarks import report
from benchmarks.capture import capture
from benchmarks.cases import CASES, POOL_ROWS, Case
from benchmarks.environments import ROOT, MissingPythonError, interpreter

MESSAGE_LIMIT = 1_048_588
"""Kafka's default, said aloud because it is one of the things that all contenders share."""
MOST_ROWS = 20_000_000
"""A topic of the ten-parameter case then stays under 2 GB on disk."""
START_UP_S = 120
"""What a process may take beyond its seconds of work before it counts as hung."""


@dataclass(frozen=True)
class Contender:
    """A library under measurement, and what it has no notion of."""

    name: str
    module: str
    requirements: str | None = None
    python: str | None = None
    buffers: bool = True
    """Can hold frames back and send them together; without it, the buffered cases are left out."""
    batches: bool = True
    """Can read batches of another size than was written; without it, a topic is read once."""


CONTENDERS = (
    Contender("quixframes", "quixframes_contender"),
    Contender("kafka-python", "bare_kafka_python", batches=False),
    Contender("quixstreams 3.28.1", "quixstreams3", "requirements-quixstreams3.txt", buffers=False, batches=False),
    Contender("quixstreams 0.5.7", "quixstreams05", "requirements-quixstreams05.txt", "3.11"),
)


class RunError(Exception):
    """A contender's process ended badly; the message is the tail of what it said."""


class Harness:
    """One broker, the environments of the contenders, and a scratch folder."""

    def __init__(self, broker: str, seconds: float, scratch: Path) -> None:
        self._broker = broker
        self._seconds = seconds
        self._scratch = scratch
        self._admin = KafkaAdminClient(bootstrap_servers=broker)

    def close(self) -> None:
        """Let go of the broker."""
        self._admin.close()

    def capture(self, case: Case) -> None:
        """Have quixframes write each frame of the case about once, and keep its messages for bare kafka-python."""
        with self._topic(f"capture-{case.name}") as topic:
            self._process(CONTENDERS[0], "write", topic, case, rows=POOL_ROWS)
            rows = capture(self._broker, topic, self._messages(case))
        if not rows:
            raise RunError(f"quixframes wrote no messages of rows for {case.name}")

    def measure(self, contender: Contender, case: Case, number: int) -> Iterator[report.Run]:
        """Write a fresh topic and read it in each of the case's ways."""
        with self._topic(f"{contender.module}-{case.name}-{number}".replace("_", "-")) as topic:
            written = self._process(contender, "write", topic, case, rows=MOST_ROWS)
            stored = self._stored_bytes(topic) / written["topic_rows"]
            yield report.Run(contender.name, case.name, "write", 0, number, {**written, "stored_bytes_per_row": stored})
            for batch in case.batches if contender.batches else case.batches[:1]:
                figures = self._process(contender, "read", topic, case, rows=int(written["topic_rows"]), batch=batch)
                yield report.Run(contender.name, case.name, "read", batch, number, figures)

    @contextmanager
    def _topic(self, name: str) -> Iterator[str]:
        settings = {"max.message.bytes": str(MESSAGE_LIMIT)}
        self._admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1, topic_configs=settings)])
        self._admin.wait_for_topics([name])
        try:
            yield name
        finally:
            self._admin.delete_topics([name])

    def _stored_bytes(self, topic: str) -> int:
        total = 0
        for broker in self._admin.describe_log_dirs([topic]):
            for folder in broker["log_dirs"]:
                for entry in folder["topics"]:
                    total += sum(partition["partition_size"] for partition in entry["partitions"])
        return total

    def _messages(self, case: Case) -> Path:
        return self._scratch / f"{case.name}.messages"

    def _process(
        self, contender: Contender, direction: str, topic: str, case: Case, *, rows: int, batch: int = 0
    ) -> dict[str, float]:
        command = [str(interpreter(contender.requirements, contender.python))]
        command += ["-m", f"benchmarks.contenders.{contender.module}", direction]
        command += ["--broker", self._broker, "--topic", topic, "--case", case.name]
        command += ["--rows", str(rows), "--seconds", str(self._seconds), "--batch", str(batch)]
        command += ["--messages", str(self._messages(case))]
        try:
            # In the scratch folder: both quixstreams leave a folder for state where they run.
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                cwd=self._scratch,
                timeout=self._seconds * 4 + START_UP_S,
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(f"no result after {error.timeout:.0f} s") from error
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise RunError(f"exit code {done.returncode}: " + " | ".join(said[-3:]))
        figures: dict[str, float] = json.loads(lines[-1])
        if not figures["rows"]:
            raise RunError(f"no rows inside the timed part: {lines[-1]}")
        return figures


def main() -> int:
    """Measure, print the table, and leave table and plot in the output folder; 1 if a run failed."""
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    journal = options.output / "runs.jsonl"
    journal.unlink(missing_ok=True)
    cases = [CASES[name] for name in options.case or CASES]
    contenders = [each for each in CONTENDERS if each.name in (options.contender or [c.name for c in CONTENDERS])]
    failures = 0
    with _broker(options.broker) as address, tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        harness = Harness(address, options.seconds, Path(scratch))
        try:
            contenders = [each for each in contenders if _ready(each)]
            if any(each.module == "bare_kafka_python" for each in contenders):
                for case in cases:
                    harness.capture(case)
            for number in range(1, options.rounds + 1):
                for case in cases:
                    for contender in contenders:
                        if case.buffered and not contender.buffers:
                            continue
                        try:
                            for run in harness.measure(contender, case, number):
                                _note(run, journal)
                        except RunError as error:
                            failures += 1
                            print(f"round {number}, {contender.name}, {case.name}: {error}", file=sys.stderr)
        finally:
            harness.close()
    report.publish(options.output)
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--broker", help="address of a broker to use; without it, a local Kafka is started")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each timed part")
    parser.add_argument("--case", action="append", choices=CASES, help="only these; may be repeated")
    parser.add_argument("--contender", action="append", choices=[each.name for each in CONTENDERS], help="only these")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    return parser.parse_args()


@contextmanager
def _broker(address: str | None) -> Iterator[str]:
    if address is not None:
        yield address
        return
    from quixframes.local import LocalKafka

    # Thrown away afterwards; and a deleted topic goes from the disk at once, or the rounds would fill it.
    with LocalKafka(keep=False, settings={"log.segment.delete.delay.ms": 100}) as kafka:
        yield kafka.address


def _ready(contender: Contender) -> bool:
    """Make its environment before the measuring starts; a contender that this machine cannot run is left out, aloud."""
    try:
        interpreter(contender.requirements, contender.python)
    except MissingPythonError as error:
        print(f"{contender.name} is left out: it {error}", file=sys.stderr)
        return False
    return True


def _note(run: report.Run, journal: Path) -> None:
    with journal.open("a") as file:
        file.write(run.to_json() + "\n")
    measure = report.Measure(run.case, run.direction, run.batch)
    print(f"round {run.round}  {run.contender:<18}  {measure.title:<48}  {run.rows_per_s:>12,.0f} rows/s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
