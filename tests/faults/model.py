"""A model to be killed: reads three streams through buffers, writes down every batch, commits, writes down the commit.

``python -m tests.faults.model ADDRESS TOPIC GROUP JOURNAL SEED [--newest-offset]``: lines of the journal are
``B stream first-last,first-last...`` for a batch that was processed, and ``C`` for everything up to here being
committed. With ``--newest-offset`` it commits what most clients do: the newest offset that was seen.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Iterator

import numpy as np

import quixframes as qf
from quixframes.ledger import Ledger


def ranges(numbers: np.ndarray) -> Iterator[tuple[int, int]]:
    """The rising runs of consecutive numbers, as (first, last)."""
    edges = np.flatnonzero(np.diff(numbers) != 1) + 1
    for start, stop in itertools.pairwise([0, *edges, len(numbers)]):
        yield int(numbers[start]), int(numbers[stop - 1])


def main(address: str, topic: str, group: str, journal: str, seed: str, *options: str) -> None:
    """Run until killed."""
    if "--newest-offset" in options:
        Ledger.committable = lambda self: (self.next, "")  # type: ignore[method-assign]
    # Written by one system call a line, so that a line that another process can see survives this one.
    file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    randomness = random.Random(int(seed))
    rules = qf.BufferSettings(rows=randomness.choice([700, 2_500, 9_000]), time_span=randomness.choice([None, "3s"]))
    reader = qf.ReaderSettings(session_timeout="6s")
    with qf.StreamingClient(address) as client:
        read = client.open_input_topic(topic, group, qf.CommitMode.Manual, reader=reader)
        waiting = []
        for batch in read.batches(rules):
            runs = ",".join(f"{a}-{b}" for a, b in ranges(batch.frame["n"].to_numpy()))
            os.write(file, f"B {batch.stream_id} {runs}\n".encode())
            waiting.append(batch)
            if randomness.random() < 0.5:
                read.commit()
                os.write(file, b"C\n")
                waiting.clear()


if __name__ == "__main__":
    main(*sys.argv[1:])
