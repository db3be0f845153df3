"""A partition's leader dies under load: how long writer and reader stand still, with quick brokers and Kafka's default.

Replication 3, two of them in sync; the leader coordinates the reader's group as well, which is the worst case.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import quixframes as qf

from .checker import check_processed, check_written
from .cluster import OFFSETS, Eyes, wait_for
from .journal import acknowledgements, written
from .options import Options
from .processes import Member
from .readback import read_topic
from .report import longest_gap

KAFKAS_DEFAULTS = {
    "broker.session.timeout.ms": 9000,
    "broker.heartbeat.interval.ms": 2000,
    "controller.quorum.election.timeout.ms": 1000,
    "controller.quorum.fetch.timeout.ms": 2000,
    "controller.quorum.election.backoff.max.ms": 1000,
}


class Reader(threading.Thread):
    """Reads a topic in a group, and notes when each batch came, and its rows."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options
        self.stopping = threading.Event()
        self.moments: list[float] = []
        self.rows: list[tuple[str, np.ndarray]] = []

    def run(self) -> None:
        options = self._options
        with (
            qf.StreamingClient(options.address, **options.client_arguments()) as client,
            client.open_input_topic(options.source, options.group, qf.CommitMode.Manual) as source,
        ):
            while not self.stopping.is_set():
                for batch in source.batches(rows=1_000, timeout="20ms", idle="1s"):
                    self.moments.append(time.monotonic())
                    self.rows.append((batch.stream_id, batch.frame["n"].to_numpy()))
                    # With the coordinator away for longer than a commit waits; the next commit has these rows, too.
                    with contextlib.suppress(qf.BrokerError):
                        batch.commit()

    def arrived(self) -> pd.DataFrame:
        """Its rows as the checker takes them."""
        frames = [
            pd.DataFrame({"partition": 0, "offset": place, "stream": stream, "n": numbers})
            for place, (stream, numbers) in enumerate(self.rows)
        ]
        return pd.concat(frames, ignore_index=True)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("brokers", "most"), [("quick", 5.0), ("default", 30.0)])
def test_a_killed_leader_stalls_writer_and_reader_for_seconds_and_costs_nothing(
    brokers: str, most: float, tmp_path: Path
) -> None:
    """Three kills under 200 writes/s: nothing lost, repeated or out of order."""
    settings = {} if brokers == "quick" else KAFKAS_DEFAULTS
    with (
        qf.LocalKafka(tmp_path / "kafka", brokers=3, keep=False, settings=settings) as kafka,
        Eyes(kafka.address) as eyes,
    ):
        with qf.StreamingClient(kafka.address) as client:
            client.topics.create("source")
        wait_for(lambda: eyes.in_sync("source", OFFSETS), 60, "all replicas in sync")
        group = "model"
        coordinator = eyes.coordinator(group)

        def together() -> bool:
            if eyes.leaders("source")[0] != coordinator:
                eyes.move_leader("source", 0, to=coordinator)
            return eyes.leaders("source")[0] == coordinator

        wait_for(together, 30, "one broker leads the topic and coordinates the group", 1.0)
        options = Options(kafka.address, str(tmp_path), 1, group=group, streams=10, tick=0.025)
        options.write(tmp_path / "options.json")
        writer, reader = Member("writer", 1, tmp_path / "options.json"), Reader(options)
        journal = tmp_path / "writer-1.journal"
        writer.start()
        reader.start()
        stalls = []
        try:
            for _ in range(3):
                before = len(reader.rows)
                wait_for(lambda before=before: len(reader.rows) > before + 200, 60, "rows are flowing")
                leader = eyes.leaders("source")[0]
                roles = {"leader": leader, "coordinator": eyes.coordinator(group), "controller": eyes.controller()}
                killed = " and ".join(role for role, broker in roles.items() if broker == leader)
                begun = time.monotonic()
                kafka.broker(leader).kill()
                before = len(reader.rows)
                wait_for(lambda before=before: len(reader.rows) > before + 200, 60, "rows are flowing again")
                over = time.monotonic()
                stall = [
                    longest_gap([at for at in moments if begun - 1 <= at <= over])
                    for moments in (acknowledgements(journal), reader.moments)
                ]
                stalls.append(stall)
                print(f"\n{brokers} brokers, {killed} killed: writer {stall[0]:.1f} s, reader {stall[1]:.1f} s")
                kafka.broker(leader).restart()
                wait_for(lambda: eyes.in_sync("source", OFFSETS), 60, "all replicas in sync again")
            writer.leave()
            total = written(journal)
            rows = int((total["last"] - total["first"] + 1).sum())
            wait_for(lambda: sum(numbers.size for _, numbers in reader.rows) >= rows, 60, "all is read")
        finally:
            if writer.running:
                writer.kill()
            reader.stopping.set()
            reader.join()
        topic = read_topic(kafka.address, "source", 1)
        assert total["acknowledged"].all()
        assert check_written(total, topic).broken(once=True) == []
        assert check_processed(total, topic, reader.arrived()).broken(once=True) == []
        assert max(stall for pair in stalls for stall in pair) < most, stalls
