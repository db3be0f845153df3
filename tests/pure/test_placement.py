"""A stream stays in its partition, whatever its topic grows to and whoever asks when."""

from __future__ import annotations

import uuid
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2

from quixframes.errors import SettingsError
from quixframes.placement import KeySet, Placement, PlacementLog, partition_of, pin

TOPIC = "engine"


@given(st.binary(max_size=40), st.integers(1, 1000))
def test_a_key_belongs_to_the_partition_in_which_other_clients_put_it(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


@given(st.sets(st.binary(max_size=20), max_size=200))
def test_a_set_has_every_key_that_it_was_made_of_also_after_it_was_kept(keys: set[bytes]) -> None:
    made = KeySet.of(keys)
    kept = KeySet.from_text(made.to_text())
    assert all(key in made and key in kept for key in keys)


def test_a_set_claims_few_keys_that_it_was_not_made_of_and_takes_two_bytes_a_key() -> None:
    keys = KeySet.of(f"car-{n}".encode() for n in range(20_000))
    claimed = sum(f"other-{n}".encode() in keys for n in range(20_000))
    assert claimed < 100  # 0.2 % are 40
    assert len(keys.to_text()) < 20_000 * 2.3


def test_a_placement_is_kept_as_text_and_one_of_a_later_version_is_refused() -> None:
    placement = Placement("id", (), 3).grown(12).settled([b"car-1"]).folded_up()
    again = Placement.from_json(placement.to_json())
    assert (again.topic_id, again.partitions, again.growing, again.folded) == ("id", 12, False, True)
    assert [era.partitions for era in again.eras] == [3]
    assert b"car-1" in again.eras[0]
    with pytest.raises(SettingsError, match="upgrade"):
        Placement.from_json(placement.to_json().replace('"version": 1', '"version": 2'))


def test_streams_that_come_after_the_growth_go_by_the_new_count_and_those_of_before_by_the_old_one() -> None:
    old = [f"car-{n}".encode() for n in range(300)]
    placement = Placement("id", (), 3).grown(12).settled(old).folded_up()
    assert all(placement.partition(key) == partition_of(key, 3) for key in old)
    new = [uuid.uuid4().bytes for _ in range(2_000)]
    by_new_count = sum(placement.partition(key) == partition_of(key, 12) for key in new)
    assert by_new_count > 1_960
    assert {placement.partition(key) for key in new} == set(range(12))


class Writer:
    """Goes by what it read of the log when it last looked."""

    def __init__(self, log: list[tuple[bytes, bytes | None]]) -> None:
        self._log = log
        self._known = PlacementLog()
        self.at = 0
        self._open: dict[bytes, int] = {}
        self.look()

    def look(self) -> None:
        for record in self._log[self.at :]:
            self._known.apply(*record)
        self.at = len(self._log)

    def place(self, key: bytes) -> int:
        if key not in self._open:
            placement = self._known.get(TOPIC)
            if placement is not None and placement.needs_pin(key):
                self._log.append(pin(TOPIC, key, placement))
                self.look()
                placement = self._known.get(TOPIC)
            self._open[key] = partition_of(key, 2) if placement is None else placement.partition(key)
        return self._open[key]

    def restart(self) -> None:
        self._open.clear()
        self.look()


WRITERS = 2
STREAMS = 12
STEP = st.tuples(
    st.sampled_from(["write", "write", "look", "restart", "grow"]),
    st.integers(0, WRITERS - 1),
    st.integers(0, STREAMS - 1),
)


@given(st.lists(STEP, min_size=40, max_size=120))
@settings(max_examples=200, deadline=None)
def test_no_stream_is_ever_in_two_partitions_whenever_writers_learn_that_its_topic_grows(
    steps: list[tuple[str, int, int]],
) -> None:
    """Writers look whenever they want, and restart; the topic grows step by step from 2 to 5, 11 and 23 partitions. The
    one rule is that of the lease: streams are read once every writer has seen that the topic grows."""
    log: list[tuple[bytes, bytes | None]] = []
    places: defaultdict[bytes, set[int]] = defaultdict(set)
    writers = [Writer(log) for _ in range(WRITERS)]
    admin = Writer(log)
    counts = [5, 11, 23]
    phase, announced, found = 0, 0, set[bytes]()
    for what, number, stream in steps:
        writer = writers[number]
        if what == "write":
            places[b"s%d" % stream].add(writer.place(b"s%d" % stream))
        elif what != "grow":
            writer.look() if what == "look" else writer.restart()
        else:
            admin.look()
            placement = admin._known.get(TOPIC) or Placement("id", (), 2)
            if phase == 0 and counts:
                log.append((TOPIC.encode(), placement.grown(counts.pop(0)).to_json().encode()))
                phase, announced = 1, len(log)
            elif phase == 1 and all(each.at >= announced for each in writers):
                found = set(places)  # what comes from here on until the set is written is only pinned
                phase = 2
            elif phase == 2:
                log.append((TOPIC.encode(), placement.settled(found).to_json().encode()))
                phase = 3
            elif phase == 3:
                log.append((TOPIC.encode(), placement.folded_up().to_json().encode()))
                phase = 0
        assert all(len(numbers) == 1 for numbers in places.values()), dict(places)
