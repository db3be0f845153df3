"""A broker that stops, dies, or stays away: the writer waits within its memory or says what failed; the reader waits
and says so."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest

import quixframes as qf
from tests.waiting import wait_for

MakeFrame = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[qf.LocalKafka]:
    """A broker that tests may stop and kill. Killed, it is let back in soon, when its old session has ended."""
    settings = {"broker.session.timeout.ms": 1000, "broker.heartbeat.interval.ms": 200}
    with qf.LocalKafka(tmp_path_factory.mktemp("own-kafka"), keep=False, settings=settings) as kafka:
        yield kafka


@pytest.fixture
def own_topic(own_kafka: qf.LocalKafka, request: pytest.FixtureRequest) -> str:
    """A fresh topic on that broker."""
    name = f"t-{abs(hash(request.node.name)) % 10**12}"
    with qf.StreamingClient(own_kafka.address) as client:
        client.topics.create(name)
    return name


# What a killed broker does to a single connection, `tests/kafka_python` has for every run of the tests.
outages = pytest.mark.parametrize("outage", ["stopped", pytest.param("killed", marks=pytest.mark.faults)])


def threads_of_ours() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.is_alive()}


@outages
def test_every_write_of_an_outage_raises_in_time_and_the_same_client_writes_on(
    own_kafka: qf.LocalKafka, own_topic: str, make_frame: MakeFrame, outage: str
) -> None:
    settings = qf.WriterSettings(delivery_timeout="5s")
    before = threads_of_ours()
    with qf.StreamingClient(own_kafka.address, writer=settings) as client:
        output = client.open_output_topic(own_topic)
        output.write(make_frame(10), stream="before")
        output.flush()
        own_kafka.pause() if outage == "stopped" else own_kafka.kill()
        try:
            begun = time.monotonic()
            for n in range(20):
                output.write(make_frame(100 + n), stream=f"lost-{n}")
            with pytest.raises(qf.DeliveryError) as caught:
                output.flush()
            assert 4 < time.monotonic() - begun < 5 + 5
            failures = [caught.value, *caught.value.others]
            assert {(f.stream_id, f.rows) for f in failures} == {(f"lost-{n}", 100 + n) for n in range(20)}
        finally:
            own_kafka.resume() if outage == "stopped" else own_kafka.restart()
        begun = time.monotonic()
        output.write(make_frame(7), stream="after")
        output.flush()
        assert time.monotonic() - begun < 10
    with qf.StreamingClient(own_kafka.address) as client:
        counts = client.replay(own_topic, progress=False).to_frame()["stream"].value_counts()
        assert (counts["before"], counts["after"]) == (10, 7)
    assert wait_for(lambda: threads_of_ours() <= before), threads_of_ours() - before


@outages
def test_closing_during_an_outage_ends_in_time_and_leaves_no_thread(
    own_kafka: qf.LocalKafka, own_topic: str, make_frame: MakeFrame, outage: str
) -> None:
    before = threads_of_ours()
    client = qf.StreamingClient(own_kafka.address, writer=qf.WriterSettings(delivery_timeout="30s"))
    output = client.open_output_topic(own_topic)
    read = client.open_input_topic(own_topic, "closing")
    output.write(make_frame(10), stream="s")
    next(read.batches(rows=10))
    own_kafka.pause() if outage == "stopped" else own_kafka.kill()
    try:
        output.write(make_frame(5), stream="lost")
        begun = time.monotonic()
        with pytest.raises(qf.BrokerError):
            client.close("4s")
        assert time.monotonic() - begun < 4 + 4
        assert wait_for(lambda: threads_of_ours() <= before), threads_of_ours() - before
    finally:
        own_kafka.resume() if outage == "stopped" else own_kafka.restart()


def test_closing_ends_in_time_also_with_memory_full_and_a_writer_waiting(
    own_kafka: qf.LocalKafka, own_topic: str, make_frame: MakeFrame
) -> None:
    settings = qf.WriterSettings(memory="100 kB", delivery_timeout="60s")
    client = qf.StreamingClient(own_kafka.address, writer=settings)
    output = client.open_output_topic(own_topic)
    own_kafka.pause()
    try:
        output.write(make_frame(5_000), stream="fills")
        output.create_stream("held").parameters.buffer.write(make_frame(10))

        def write() -> None:
            with pytest.raises(qf.DeliveryError, match="closing ended"):
                output.write(make_frame(5_000), stream="waits")

        waiting = threading.Thread(target=write)
        waiting.start()
        assert wait_for(lambda: client._outputs.in_flight.waited > 0)
        begun = time.monotonic()
        with pytest.raises(qf.BrokerError):
            client.close("3s")
        waiting.join(1)
        assert not waiting.is_alive()
        assert time.monotonic() - begun < 8
    finally:
        own_kafka.resume()


@outages
def test_a_reader_waits_for_its_broker_says_so_and_goes_on(
    own_kafka: qf.LocalKafka, own_topic: str, make_frame: MakeFrame, outage: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = qf.ReaderSettings(warn_after="1s")
    with (
        qf.StreamingClient(own_kafka.address) as client,
        caplog.at_level(logging.WARNING, "quixframes"),
        client.open_input_topic(own_topic, f"waiting-{outage}", reader=reader) as read,
    ):
        output = client.open_output_topic(own_topic)
        output.write(make_frame(10), stream="s")
        loop = read.batches(rows=10)
        assert len(next(loop)) == 10
        own_kafka.pause() if outage == "stopped" else own_kafka.kill()
        begun = time.monotonic()
        try:
            assert wait_for(lambda: "out of reach" in caplog.text, 60)
            assert time.monotonic() - begun < 10
            assert read.trouble
        finally:
            own_kafka.resume() if outage == "stopped" else own_kafka.restart()
        output.write(make_frame(10, start=10), stream="s")
        assert next(loop).frame["n"].tolist() == list(range(10, 20))
        assert wait_for(lambda: read.trouble is None)
        assert read.waited > 0


WRITER = """
import json, sys, time
import numpy as np, pandas as pd
import quixframes as qf
address, topic, frames, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
random = np.random.default_rng(0)
data = {f"p{i}": random.standard_normal(rows) for i in range(9)}
with qf.StreamingClient(address) as client, client.open_output_topic(topic) as output:
    slowest = 0.0
    for n in range(frames):
        start = n * rows
        index = pd.DatetimeIndex(np.arange(start, start + rows).astype("M8[ns]"), tz="UTC", name="time")
        frame = pd.DataFrame({"n": np.arange(start, start + rows), **data}, index=index)
        begun = time.monotonic()
        output.write(frame, stream="s")
        slowest = max(slowest, time.monotonic() - begun)
        if n == frames // 4:
            print("quarter", flush=True)
    output.flush()
    # Not getrusage: that remembers the size of the process that this one was started by.
    peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps({"slowest": slowest, "peak": peak, "messages": output.messages_written}), flush=True)
"""


def offer(kafka: qf.LocalKafka, topic: str, *, frames: int, rows: int, stop: float) -> dict[str, float]:
    """Write so many frames from a process of its own, with the broker stopped for ``stop`` seconds after a quarter."""
    arguments = [kafka.address, topic, str(frames), str(rows)]
    writer = subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "quarter\n"
    kafka.pause()
    threading.Event().wait(stop)
    kafka.resume()
    told, _ = writer.communicate(timeout=600)
    assert writer.returncode == 0
    found: dict[str, float] = json.loads(told)
    return found


def rows_in_order(address: str, topic: str) -> int:
    """How many rows the topic has, having checked that they count up from 0."""
    at = 0
    with qf.StreamingClient(address) as client:
        for batch in client.replay(topic, columns=["n"], progress=False).batches(rows=100_000, timeout=None):
            numbers = batch.frame["n"].to_numpy()
            assert (numbers == np.arange(at, at + len(numbers))).all()
            at += len(numbers)
    return at


def test_a_writer_waits_for_a_stopped_broker_and_all_arrives_once_and_in_order(
    own_kafka: qf.LocalKafka, own_topic: str
) -> None:
    """200 MB, five seconds: the small brother of the campaign below."""
    found = offer(own_kafka, own_topic, frames=240, rows=10_000, stop=5)
    assert found["slowest"] > 3  # it waited, rather than to pile up
    assert found["peak"] < 300e6
    assert rows_in_order(own_kafka.address, own_topic) == 240 * 10_000


@pytest.mark.faults
def test_2_gb_offered_to_a_broker_stopped_for_20_s_stay_under_300_mb(own_kafka: qf.LocalKafka, own_topic: str) -> None:
    found = offer(own_kafka, own_topic, frames=2_300, rows=10_000, stop=20)
    print(
        f"\n2 GB, broker stopped for 20 s: peak memory of the writer {found['peak'] / 1e6:.0f} MB, "
        f"slowest write {found['slowest']:.1f} s, {found['messages']:,.0f} messages"
    )
    assert found["slowest"] > 15
    assert found["peak"] < 300e6
    assert rows_in_order(own_kafka.address, own_topic) == 2_300 * 10_000
