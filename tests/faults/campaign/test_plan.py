"""The plan of a campaign, and the line that loses packets: pure, so that a seed means the same everywhere."""

from __future__ import annotations

import os
import random
from pathlib import Path

from .cluster import partition_of_group
from .journal import Journal, acknowledgements, written
from .plan import BROKER_KINDS, CLIENT_KINDS, plan
from .report import Look, processed_again, written_again
from .wire import Direction, Link


def test_a_seed_is_a_plan_and_every_kind_is_in_it() -> None:
    """The same seed gives the same faults, another one others; every kind comes before any comes twice."""
    of_clients, of_brokers = plan(7, 110)
    assert (of_clients, of_brokers) == plan(7, 110)
    assert of_clients != plan(8, 110)[0]
    assert len(of_clients) + len(of_brokers) == 110
    assert {fault.kind for fault in of_clients[: len(CLIENT_KINDS)]} == CLIENT_KINDS.keys()
    assert {fault.kind for fault in of_brokers[: len(BROKER_KINDS)]} == BROKER_KINDS.keys()
    without = plan(7, 110, without={"network-cut", "network-slow", "disk-full"})
    kinds = {fault.kind for faults in without for fault in faults}
    assert kinds == (CLIENT_KINDS | BROKER_KINDS).keys() - {"network-cut", "network-slow", "disk-full"}


def test_a_journal_says_what_was_acknowledged_and_what_is_in_doubt(tmp_path: Path) -> None:
    """A failure and a new life leave in doubt what was sent before; a line that was cut off is none."""
    path = tmp_path / "writer.journal"
    journal = Journal(path)
    for entry in (
        ["opened"],
        ["sent", [["a", 0, 4], ["b", 0, 9]]],
        ["acknowledged"],
        ["sent", [["a", 5, 6]]],
        ["failed", "why"],
        ["sent", [["a", 7, 8]]],
        ["acknowledged"],
        ["sent", [["b", 10, 11]]],
        ["opened"],
        ["sent", [["b", 12, 12]]],
        ["acknowledged"],
    ):
        journal.add(entry, sync=True)
    with path.open("a") as file:
        file.write('["sent", 1.0, [["a", 9,')
    rows = written(path)
    assert (rows["stream"] + rows["first"].astype(str)).tolist() == ["a0", "b0", "a5", "a7", "b10", "b12"]
    assert rows["acknowledged"].tolist() == [True, True, False, True, False, True]
    first, second, third = acknowledgements(path)
    assert written_again([path], 0.0) == first
    assert 0 < (written_again([path], first) or 0.0) < third
    assert written_again([path], third) is None
    assert second < third


def test_recovery_is_the_time_until_what_was_there_is_committed() -> None:
    """Rows that come later do not count."""
    looks = [
        Look(1.0, {0: 5, 1: 5}, {0: 5, 1: 5}),
        Look(2.0, {0: 10, 1: 10}, {0: 5}),
        Look(3.0, {0: 15, 1: 15}, {0: 10, 1: 9}),
        Look(4.0, {0: 20, 1: 20}, {0: 10, 1: 10}),
    ]
    assert processed_again(looks, 0.5) == 0.5
    assert processed_again(looks, 1.5) == 2.5
    assert processed_again(looks, 3.5) is None
    assert processed_again(looks, 9.0) is None


def test_a_groups_coordinator_is_found_as_kafka_finds_it() -> None:
    """Java's hash of the name: negative ones, too."""
    assert [partition_of_group(name, 50) for name in ("", "model", "Default", "pace-model")] == [
        abs_of_java(name) % 50 for name in ("", "model", "Default", "pace-model")
    ]


def abs_of_java(text: str) -> int:
    number = 0
    for character in text:
        number = (31 * number + ord(character) + 2**31) % 2**32 - 2**31
    return number & 0x7FFFFFFF


def test_a_line_delays_loses_and_is_cut() -> None:
    """Packets come after the delay and at the rate, in their order; a share is lost, and all of them on a cut line."""
    randomness = random.Random(1)
    way = Direction(os.devnull, 0)  # type: ignore[arg-type]
    link = Link((way, way))
    link.order(["slow", "100", "0", "800"])
    for now in (0.0, 0.0, 5.0):
        link.take(b"x" * 1_000, way, now, randomness)
    assert [round(at, 3) for at, _ in way.queue] == [0.11, 0.12, 5.11]
    way.queue.clear()
    link.order(["slow", "0", "10", "8000000"])
    for _ in range(900):
        link.take(b"x", way, 9.0, randomness)
    assert 760 < len(way.queue) < 860
    way.queue.clear()
    link.order(["cut"])
    link.take(b"x", way, 9.0, randomness)
    assert not way.queue
    link.order(["clear"])
    link.take(b"x", way, 99.0, randomness)
    assert [at for at, _ in way.queue] == [99.0]
