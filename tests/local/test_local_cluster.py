"""A local Kafka of three brokers, each test on a cluster of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
from kafka import KafkaAdminClient

import quixframes as qf
from quixframes.errors import LocalKafkaError, SettingsError
from quixframes.local import LocalKafka, LocalStatus, start, status, stop
from quixframes.local_process import birth, locked
from quixframes.local_properties import Node, properties

OWNER = """
import json, sys
from quixframes.local import LocalKafka
with LocalKafka(sys.argv[1], progress=False, brokers=None if sys.argv[2:] else 3) as kafka:
    print(json.dumps([kafka.address, kafka.owned, [kafka.broker(n).pid for n in (1, 2, 3)]]), flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_process(directory: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str, bool, list[int]]]:
    """A process with a LocalKafka in that folder until its input is closed; the address, and whether it owns it."""
    arguments = [sys.executable, "-c", OWNER, str(directory), *more]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address, owned, pids = json.loads(process.stdout.readline())
        yield process, address, owned, pids


def await_end(directory: Path) -> None:
    for number in (1, 2, 3):
        with locked(directory / f"broker-{number}" / "broker.lock", 15):
            pass


def in_sync(address: str, topic: str) -> set[int]:
    """How many replicas the topic's partitions have in sync."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        (found,) = admin.describe_topics([topic])
        return {len(partition["isr_nodes"]) for partition in found["partitions"]}
    finally:
        admin.close()


def test_what_is_acknowledged_has_three_replicas_and_outlives_the_loss_of_a_broker(tmp_path: Path) -> None:
    """Topics and internal topics are replicated; one broker may be killed, paused and restarted, by its number."""
    with LocalKafka(tmp_path / "k", brokers=3, keep=False) as kafka:
        assert kafka.address == ",".join(kafka.broker(n).address for n in (1, 2, 3))
        assert [kafka.broker(n).directory.name for n in (1, 2, 3)] == ["broker-1", "broker-2", "broker-3"]
        with qf.StreamingClient(kafka.address) as client:
            client.topics.create("cars", partitions=6)
            assert (client.topics.describe("cars").replication, in_sync(kafka.address, "cars")) == (3, {3})
            assert in_sync(kafka.address, "__consumer_offsets") == {3}
            output = client.open_output_topic("cars")
            second = kafka.broker(2)
            port, pid = second.port, second.pid
            second.kill()
            assert not second.running
            assert kafka.running
            with pytest.raises(LocalKafkaError, match=rf"(?s)pid {pid}\) has died"):
                kafka.check()
            output.get_or_create_stream("44").events.write("pit-stop", time=pd.Timestamp("2026-01-01"), value="tyres")
            output.flush()
            second.restart()
            assert (second.running, second.port) == (True, port)
            kafka.broker(3).pause()
            kafka.broker(3).resume()
            kafka.check()
            with pytest.raises(LocalKafkaError, match=r"there are 3 brokers: name one"):
                kafka.kill()
            with pytest.raises(LocalKafkaError, match="there is no broker 4"):
                kafka.broker(4)
        address = kafka.address
        kafka.restart()
        assert kafka.address == address
    assert not (tmp_path / "k").exists()


def test_a_second_process_uses_the_cluster_that_runs_whichever_of_its_brokers_is_away(tmp_path: Path) -> None:
    """It need not know how many brokers there are, and is told when it asked for another number."""
    with LocalKafka(tmp_path, brokers=3) as kafka:
        kafka.broker(1).kill()
        found = status(tmp_path)
        pids = tuple(kafka.broker(n).pid for n in (2, 3))
        assert (found.running, found.address, found.owner) == (True, kafka.address, os.getpid())
        assert (found.brokers, found.pids) == (3, pids)
        with LocalKafka(tmp_path) as second:
            assert (second.owned, second.address) == (False, kafka.address)
            with pytest.raises(LocalKafkaError, match="not started by this object"):
                second.broker(2).kill()
        with pytest.raises(LocalKafkaError, match="holds a Kafka of 3 brokers, not 1"):
            LocalKafka(tmp_path, brokers=1).start()
        with pytest.raises(LocalKafkaError, match=f"belongs to process {os.getpid()}"):
            stop(tmp_path)
        assert kafka.broker(2).running


def test_a_killed_owner_takes_its_cluster_along(tmp_path: Path) -> None:
    """Each broker ends with the owner, and the next start in the folder finds the same data and ports."""
    with another_process(tmp_path) as (owner, address, owned, pids):
        assert owned
        with another_process(tmp_path, "found") as (_, found, owned_too, same):
            assert (found, owned_too, same) == (address, False, pids)
        owner.kill()
        await_end(tmp_path)
        assert [birth(pid) for pid in pids] == [None] * 3
    with LocalKafka(tmp_path) as kafka:
        assert kafka.address == address


def test_a_detached_cluster_is_started_shown_and_stopped_by_the_command(tmp_path: Path) -> None:
    """``quixframes local start --brokers 3``: it runs until it is stopped, all of it."""

    def command(*words: str) -> str:
        arguments = [sys.executable, "-m", "quixframes.cli", "local", *words, "--directory", str(tmp_path)]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout

    assert "3 of 3 run" in command("start", "--brokers", "3")
    found = status(tmp_path)
    assert (found.detached, found.owner, len(found.pids)) == (True, None, 3)
    assert start(tmp_path).pids == found.pids
    psutil.Process(found.pids[0]).kill()
    assert "2 of 3 run" in command("status")
    assert "no Kafka runs here" in command("stop")
    assert [birth(pid) for pid in found.pids] == [None] * 3
    assert stop(tmp_path, remove_data=True) == LocalStatus(running=False, directory=tmp_path)


def test_a_cluster_that_does_not_start_leaves_nothing(tmp_path: Path) -> None:
    """One error with the log of who died, no process, and somebody's own files stay."""
    (tmp_path / "mine.csv").write_text("1")
    with (
        pytest.raises(LocalKafkaError, match=r"(?s)died at its start, with code [1-9].*no\.such\.Authorizer"),
        LocalKafka(tmp_path, brokers=3, settings={"authorizer.class.name": "no.such.Authorizer"}),
    ):
        pass
    assert not status(tmp_path).running
    stop(tmp_path, remove_data=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_of_two_brokers_neither_could_fail(tmp_path: Path) -> None:
    """A number of brokers that makes no sense is refused before anything is started."""
    for number in (0, 2, 8):
        with pytest.raises(SettingsError, match=f"brokers={number}: one, or 3 to 7"):
            LocalKafka(tmp_path, brokers=number)


def test_what_the_user_sets_comes_before_what_we_set() -> None:
    """The properties of a lone broker and of a cluster, and the user's over both."""
    nodes = [Node(n, "127.0.0.1", 20_000 + n, 30_000 + n) for n in (1, 2, 3)]
    lone, one_of_three = properties(nodes[0], nodes[:1], {}), properties(nodes[1], nodes, {})
    assert lone["controller.quorum.voters"] == "1@127.0.0.1:30001"
    assert one_of_three["controller.quorum.voters"] == "1@127.0.0.1:30001,2@127.0.0.1:30002,3@127.0.0.1:30003"
    assert (lone["offsets.topic.replication.factor"], one_of_three["offsets.topic.replication.factor"]) == ("1", "3")
    assert "min.insync.replicas" not in lone
    assert (one_of_three["min.insync.replicas"], one_of_three["default.replication.factor"]) == ("2", "3")
    assert properties(nodes[0], nodes, {"min.insync.replicas": "1"})["min.insync.replicas"] == "1"
