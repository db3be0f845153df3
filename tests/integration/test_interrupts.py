"""Ctrl-C where it comes at a bad moment: promise 8."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
import pytest
from jupyter_client.manager import start_new_kernel

import quixframes as qf
from quixframes import CommitMode
from tests.processes import hear_interrupts
from tests.waiting import wait_for

MakeFrame = Callable[..., pd.DataFrame]
MakeTopic = Callable[..., str]

SCRIPT = """
import sys, time
import quixframes as qf
address, topic, group, exactly_once = sys.argv[1:]
try:
    with qf.StreamingClient(address) as client:
        with client.open_input_topic(topic, group, exactly_once=exactly_once == "True") as source:
            def model(frame):
                print("rows", flush=True)
                time.sleep(0.01)
            print(qf.run(model, source, rows=10, timeout="200ms"), flush=True)
except qf.QuixframesError as exc:
    print(f"{type(exc).__name__}: {exc}", flush=True)
print("left", flush=True)
"""


@contextmanager
def model(address: str, topic: str, group: str, exactly_once: bool = False) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SCRIPT, address, topic, group, str(exactly_once)]
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "rows\n"
        yield started
    finally:
        started.kill()
        started.communicate()


def interrupted(process: subprocess.Popen[str], within: float) -> str:
    """What a process prints that is interrupted now, and ends in time and without a traceback."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=within)
    assert "Traceback" not in err
    assert out.endswith("left\n")
    assert process.returncode == 0
    return out


@pytest.mark.parametrize("exactly_once", [False, True])
def test_ctrl_c_in_the_middle_of_a_rebalance_loses_no_row_and_repeats_none(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame, broker_address: str,
    exactly_once: bool,
) -> None:  # fmt: skip
    """Another instance joins; the first is interrupted while partitions are on their way to it."""
    topic = make_topic(partitions=4)
    with client.open_output_topic(topic) as out:
        for n in range(12):
            out.write(make_frame(1_000), stream=f"s{n}")
    moved = threading.Event()
    hooks = qf.Hooks(assigned=lambda came: moved.set())
    with (
        model(broker_address, topic, group, exactly_once) as first,
        client.open_input_topic(topic, group, CommitMode.Manual, hooks=hooks) as second,
    ):
        assert moved.wait(30)
        out_text = interrupted(first, 20)
        assert "ended by interrupt" in out_text
        assert wait_for(lambda: len(second.partitions) == 4, 60)
        rest = sum(len(batch) for batch in second.batches(until="now"))
    processed = int(out_text.split(" processed")[0].rpartition(" ")[2].replace(",", ""))
    assert processed + rest == 12_000


def test_ctrl_c_while_the_broker_is_gone_ends_in_time(
    own_kafka: qf.LocalKafka, group: str, make_frame: MakeFrame
) -> None:
    with qf.StreamingClient(own_kafka.address) as client:
        topic = f"interrupted-{group}"
        client.topics.create(topic)
        with client.open_output_topic(topic) as out:
            out.write(make_frame(100), stream="s")
        with model(own_kafka.address, topic, group) as started:
            time.sleep(1)  # so that it is done with the rows, as far as it ever is
            own_kafka.pause()
            try:
                interrupted(started, 45)
            finally:
                own_kafka.resume()


CELL = """
import time
def model(frame):
    print("rows", flush=True)
    time.sleep(0.01)
summary = qf.run(model, source, rows=10, timeout="200ms")
print(summary)
"""


def test_an_interrupted_cell_of_a_notebook_ends_with_its_summary_and_the_kernel_goes_on(
    client: qf.StreamingClient, topic: str, group: str, make_frame: MakeFrame, broker_address: str
) -> None:
    with client.open_output_topic(topic) as out:
        out.write(make_frame(100), stream="s")
    manager, kernel = start_new_kernel(kernel_name="python3")
    try:
        said: list[str] = []

        def run(code: str, interrupt_at: str | None = None) -> str:
            """The status of a cell, which is interrupted once it has printed a word."""
            said.clear()
            waits = interrupt_at

            def hear(message: dict[str, dict[str, str]]) -> None:
                nonlocal waits
                said.append(message["content"].get("text", ""))
                if waits is not None and waits in said[-1]:
                    waits = None
                    threading.Timer(1.0, manager.interrupt_kernel).start()

            reply = kernel.execute_interactive(code, timeout=60, output_hook=hear)
            return str(reply["content"]["status"])

        opening = f"source = qf.StreamingClient({broker_address!r}).open_input_topic({topic!r}, {group!r})"
        assert run(f"import quixframes as qf; {opening}") == "ok"
        assert run(CELL, interrupt_at="rows") == "ok"
        assert "100 processed" in "".join(said)
        assert "ended by interrupt" in "".join(said)
        assert run("print(qf.run(model, source, until='now'))") == "ok"  # the same topic, still open
        assert "0 rows in" in "".join(said)
        assert run("source.close()") == "ok"
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
    with client.open_input_topic(topic, group) as read:
        assert list(read.batches(until="now")) == []
