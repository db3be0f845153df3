"""A model that is killed at any moment: no row skipped, none out of order, no committed row again."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import quixframes as qf

MakeFrame = Callable[..., pd.DataFrame]
STREAMS = ("a", "b", "c")


@dataclass
class Report:
    """What a journal shows. Empty lists, no missing rows: all promises were kept."""

    rows: int
    seen: dict[str, np.ndarray] = field(default_factory=dict)
    delivered: int = 0
    skipped: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    committed_again: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Rows that no life of the model was handed."""
        return sum(int((~self.seen[stream]).sum()) for stream in STREAMS)

    def __str__(self) -> str:
        again = self.delivered - (len(STREAMS) * self.rows - self.missing)
        return (
            f"{self.delivered:,} rows delivered, {again:,} of them again; missing {self.missing:,}, "
            f"skipped {len(self.skipped)}, out of order {len(self.disordered)}, "
            f"again after commit {len(self.committed_again)}"
        )


def check(journals: list[Path], rows: int) -> Report:
    """Read the journals of all lives in turn. Knows only what was written and what arrived."""
    report = Report(rows, {stream: np.zeros(rows, bool) for stream in STREAMS})
    committed = {stream: np.zeros(rows, bool) for stream in STREAMS}
    for life, journal in enumerate(journals):
        newest = dict.fromkeys(STREAMS, -1)
        since_commit: list[tuple[str, int, int]] = []
        for line in journal.read_text().splitlines() if journal.exists() else []:
            if line == "C":
                for stream, first, last in since_commit:
                    committed[stream][first : last + 1] = True
                since_commit.clear()
                continue
            _, stream, runs = line.split(" ")
            seen = report.seen[stream]
            for run in runs.split(","):
                first, last = map(int, run.split("-"))
                where = f"life {life}, stream {stream}, rows {first}-{last}"
                if first <= newest[stream]:
                    report.disordered.append(where)
                if not seen[:first].all():
                    report.skipped.append(where)
                if committed[stream][first : last + 1].any():
                    report.committed_again.append(where)
                seen[first : last + 1] = True
                newest[stream] = last
                report.delivered += last - first + 1
                since_commit.append((stream, first, last))
    return report


def campaign(
    client: qf.StreamingClient,
    address: str,
    topic: str,
    group: str,
    folder: Path,
    make_frame: MakeFrame,
    *,
    rows: int,
    kills: int,
    seed: int,
    options: tuple[str, ...] = (),
) -> Report:
    """Write three streams by turns while a model reads them, and kill the model at random moments of its life."""
    randomness = random.Random(seed)
    frame = make_frame(rows)
    written = threading.Event()

    def write() -> None:
        # A quarter is there at once; the rest comes in writes of any size until the last kill.
        with client.open_output_topic(topic, buffer=qf.BufferSettings(rows=3_000, timeout="100ms")) as output:
            at = dict.fromkeys(STREAMS, 0)
            while any(place < rows for place in at.values()):
                stream = randomness.choice(STREAMS)
                count = randomness.randint(1, 4_000)
                output.get_or_create_stream(stream).parameters.buffer.write(frame.iloc[at[stream] : at[stream] + count])
                at[stream] += count
                if sum(at.values()) > rows * 3 / 4:
                    written.wait(kills * 6 / (rows * 9 / 4 / 2_000))
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    journals = []
    deadline = time.monotonic() + 120 + kills * 20
    for life in range(kills + 1):
        journal = folder / f"life-{life}"
        journals.append(journal)
        arguments = [address, topic, group, str(journal), str(seed + life), *options]
        model = subprocess.Popen([sys.executable, "-m", "tests.faults.model", *arguments])
        try:
            if life < kills:
                wait_until(lambda: bool(journals[-1].exists() and journals[-1].stat().st_size), deadline)
                time.sleep(randomness.uniform(0.0, 1.5))  # the random moment is the point of the test
            else:
                written.set()
                writer.join()
                wait_until(lambda: done(journals, rows), deadline, 10)
        finally:
            model.kill()
            model.wait()
    return check(journals, rows)


def done(journals: list[Path], rows: int) -> bool:
    """Whether some life has seen the last row of every stream."""
    return check(journals, rows).missing == 0


def wait_until(condition: Callable[[], bool], deadline: float, patience: float = 60) -> None:
    """Wait for what other processes write; give up silently, since the report says what is missing."""
    deadline = min(deadline, time.monotonic() + patience)
    while not condition() and time.monotonic() < deadline:
        threading.Event().wait(0.1)


def test_a_model_killed_at_random_moments_skips_nothing_and_repeats_no_committed_row(
    client: qf.StreamingClient, topic: str, group: str, broker_address: str, make_frame: MakeFrame, tmp_path: Path
) -> None:
    """Three kills, for every run of the tests."""
    report = campaign(client, broker_address, topic, group, tmp_path, make_frame, rows=20_000, kills=3, seed=1)
    print(f"\n3 kills: {report}")
    assert (report.missing, report.skipped, report.disordered, report.committed_again) == (0, [], [], [])


@pytest.mark.faults
def test_25_kills_skip_nothing_and_repeat_no_committed_row(
    client: qf.StreamingClient, topic: str, group: str, broker_address: str, make_frame: MakeFrame, tmp_path: Path
) -> None:
    """Three interleaved streams of 200,000 rows each, through buffers, SIGKILL 25 times."""
    report = campaign(client, broker_address, topic, group, tmp_path, make_frame, rows=200_000, kills=25, seed=2)
    print(f"\n25 kills: {report}")
    assert (report.missing, report.skipped, report.disordered, report.committed_again) == (0, [], [], [])


@pytest.mark.faults
def test_the_same_with_commits_of_the_newest_offset_seen_loses_rows(
    client: qf.StreamingClient, topic: str, group: str, broker_address: str, make_frame: MakeFrame, tmp_path: Path
) -> None:
    """The ledger matters, and the checker sees it: without it, rows that a buffer held are passed over."""
    options = ("--newest-offset",)
    report = campaign(
        client, broker_address, topic, group, tmp_path, make_frame, rows=100_000, kills=6, seed=3, options=options
    )
    print(f"\n6 kills, committing the newest offset seen: {report}")
    assert report.missing > 0
    assert report.skipped


def test_the_checker_sees_a_planted_loss_disorder_and_repetition(tmp_path: Path) -> None:
    """Each fault by itself, in a journal of ten rows a stream."""

    def journal(text: str) -> Report:
        path = tmp_path / "journal"
        path.write_text(text)
        return check([path], 10)

    good = "B a 0-4\nB b 0-9\nB a 5-9\nC\nB c 0-9\n"
    assert (journal(good).missing, str(journal(good)).count(" 0")) == (0, 5)
    assert journal(good.replace("5-9", "6-9")).missing == 1
    assert journal(good.replace("5-9", "6-9")).skipped
    assert journal(good.replace("5-9", "4-9")).disordered
    assert journal(good + "B a 9-9\n").committed_again
