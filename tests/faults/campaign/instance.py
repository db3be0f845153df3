"""An instance of a model to be harmed: reads one topic in a group and writes each row to a second one.

``python -m tests.faults.campaign.instance OPTIONS NUMBER LIFE``. SIGUSR1 makes its next batch slow, for the seconds in
the file ``instance-NUMBER.slow``. SIGTERM ends it as quixframes does by itself.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

import quixframes as qf

from .checker import check_accounts
from .journal import Journal
from .options import Options, end_with_parent


class Model:
    """Marks each row with who delivered it; slow when it is told to be."""

    def __init__(self, by: int, slow: Path) -> None:
        self._by = by
        self._slow = slow
        self._is_slow = False
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "_is_slow", True))

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows with the number of the instance and its life."""
        if self._is_slow:
            self._is_slow = False
            time.sleep(float(self._slow.read_text()))
        return frame.assign(by=self._by)


def main(options_path: str, number: str, life: str) -> None:
    """Run until SIGTERM; after an error that a cluster can cause, go on."""
    end_with_parent()
    options = Options.read(options_path)
    folder = Path(options.folder)
    journal = Journal(folder / f"instance-{number}.journal")
    model = Model(int(number) * 1_000 + int(life), folder / f"instance-{number}.slow")
    while True:
        journal.add(["opened"])
        try:
            run(options, journal, model)
            break  # qf.run returns after SIGTERM
        except (qf.BrokerError, qf.ClosedError) as exc:
            journal.add(["failed", f"{type(exc).__name__}: {exc}"])
            time.sleep(0.5)


def run(options: Options, journal: Journal, model: Model) -> None:
    """The loop of the model, on a client of its own."""
    more: dict[str, Any] = {"exactly_once": True} if options.mode == "exactly-once" else {}
    # What an instance leaves open when it is killed holds readers up for as long as its transaction may take.
    writer = qf.WriterSettings(transaction_timeout="20s")
    reader = qf.ReaderSettings(session_timeout="6s", revoke_timeout="4s")
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(qf.StreamingClient(options.address, writer=writer, **options.client_arguments()))
        output = stack.enter_context(client.open_output_topic(options.sink))
        source = stack.enter_context(
            client.open_input_topic(options.source, options.group, qf.CommitMode.Manual, reader=reader, **more)
        )
        stack.callback(tell_accounts, source, journal)
        try:
            if options.loop == "run":
                qf.run(model, source=source, sink=output)
                return
            batches_of(source, output, model, journal)
        except (qf.BrokerError, qf.ClosedError) as exc:
            # The loop entered again has to give the rows again; what does not work twice is tried with a new client.
            journal.add(["failed", f"{type(exc).__name__}: {exc}"])
            batches_of(source, output, model, journal)


def batches_of(source: qf.InputTopic, output: qf.OutputTopic, model: Model, journal: Journal) -> None:
    """Batch by batch: the model's rows are written, and every few batches all of them are committed."""
    while True:
        since_commit = 0
        begun = time.monotonic()
        # A loop that has been idle ends, so that the last batches are committed also when no more come.
        for batch in source.batches(rows=300, timeout="500ms", idle="1s"):
            if len(batch.frame):
                output.get_or_create_stream(batch.stream_id).parameters.write(model(batch.frame))
            since_commit += 1
            if since_commit >= 20 or time.monotonic() - begun > 0.5:
                commit(source, journal)
                since_commit, begun = 0, time.monotonic()
        if since_commit:
            commit(source, journal)


def commit(source: qf.InputTopic, journal: Journal) -> None:
    """Commit all batches so far, and look whether the accounts add up."""
    source.commit()
    journal.add(["committed"])
    tell_accounts(source, journal)


def tell_accounts(source: qf.InputTopic, journal: Journal) -> None:
    """Write down the partitions whose accounts do not add up."""
    wrong = check_accounts(source.accounts())
    if wrong:
        journal.add(["accounts", wrong])


if __name__ == "__main__":
    main(*sys.argv[1:])
