"""Replicas on a real cluster of three brokers: one that is killed takes no row along."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pandas as pd
import pytest

import quixframes as qf
from quixframes.errors import SettingsError
from quixframes.local import LocalKafka
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    with LocalKafka(tmp_path_factory.mktemp("replicas"), brokers=3, keep=False, timeout=180) as kafka:
        yield kafka


@pytest.mark.parametrize(("replication", "min_in_sync"), [(2, 1), (3, 2)])
def test_no_row_is_lost_when_a_node_is_killed(
    cluster: LocalKafka, make_frame: Callable[..., pd.DataFrame], replication: int, min_in_sync: int
) -> None:
    """Written without a break while the leader of the partition is killed and comes back; read in order, each once.
    Nobody waits for longer than it takes to choose another leader."""
    topic = f"replicated-{replication}"
    with qf.StreamingClient(cluster.address) as client:
        client.topics.create(topic, replication=replication, min_in_sync=min_in_sync)
        found = client.topics.describe(topic)
        assert (found.replication, found.under_replicated) == (replication, [])
        leader = cluster.broker(int(found.by_partition["leader"].iloc[0]))
        longest, number = 0.0, 0
        with client.open_output_topic(topic) as output:
            stream = output.get_or_create_stream("car-44")

            def write(times: int) -> None:
                nonlocal longest, number
                for _ in range(times):
                    begun = time.monotonic()
                    stream.parameters.write(make_frame(10, 1, start=number))
                    output.flush()
                    longest = max(longest, time.monotonic() - begun)
                    number += 10

            write(20)
            leader.kill()
            write(20)
            assert wait_for(lambda: client.topics.describe(topic).under_replicated == [0], 60)
            leader.restart()
            write(20)
        print(f"replication {replication}: the longest wait for an acknowledgement was {longest:.1f} s")
        assert wait_for(lambda: client.topics.describe(topic).under_replicated == [], 60)
        assert [int(n) for n in client.replay(topic, progress=False).to_frame()["n"]] == list(range(number))
        assert longest < 45  # 2 to 14 s were measured


def test_a_replication_over_the_number_of_brokers_is_a_clear_error(cluster: LocalKafka) -> None:
    with qf.StreamingClient(cluster.address) as client:
        with pytest.raises(SettingsError, match="replication=4 of topic 'much' needs as many brokers, .* has 3"):
            client.topics.create("much", replication=4)
        assert not client.topics.exists("much")


@pytest.mark.parametrize("replication", [2, 3])
def test_what_is_stored_is_the_size_times_the_replicas(
    cluster: LocalKafka, make_frame: Callable[..., pd.DataFrame], replication: int
) -> None:
    topic = f"stored-{replication}"
    with qf.StreamingClient(cluster.address) as client:
        client.topics.create(topic, partitions=2, replication=replication)
        with client.open_output_topic(topic) as output:
            for number in range(4):
                output.get_or_create_stream(f"car-{number}").parameters.write(make_frame(1_000))

        def copied() -> bool:  # followers are a moment behind
            found = client.topics.describe(topic)
            return found.bytes is None or found.stored == replication * found.bytes > 4 * 1_000 * 40

        assert wait_for(copied, 60)
        shown = repr(client.topics.describe(topic))
        assert "with all replicas" in shown or "size: unknown" in shown


def test_the_partitions_of_a_topic_are_spread_over_the_nodes(cluster: LocalKafka) -> None:
    with qf.StreamingClient(cluster.address) as client:
        client.topics.create("spread", partitions=6, replication=1)
        leaders = client.topics.describe("spread").by_partition["leader"]
        assert leaders.value_counts().to_dict() == {1: 2, 2: 2, 3: 2}
