"""How evenly streams are spread over partitions, by their IDs alone."""

from __future__ import annotations

import random
import uuid

import numpy as np
import pytest

from quixframes.placement import partition_of
from quixframes.topic_report import balance_of
from quixframes.topic_survey import Survey

STREAMS = 100_000


def names(pattern: str) -> list[str]:
    """Stream IDs as people give them."""
    dice = random.Random(7)
    if pattern == "numbers":
        return [f"car-{number}" for number in range(1, STREAMS + 1)]
    if pattern == "uuids":
        return [str(uuid.UUID(int=dice.getrandbits(128), version=4)) for _ in range(STREAMS)]
    sites = [f"{place}-{line}" for place in ("fra", "muc", "lon", "nyc") for line in ("press", "paint", "weld")]
    return [
        f"sensor-{number:04d}.rack-{rack:02d}.{site}.plants.example.com"
        for site in sites
        for rack in range(10)
        for number in range(STREAMS // 120 + 1)
    ][:STREAMS]


@pytest.mark.parametrize("pattern", ["numbers", "uuids", "hosts"])
def test_a_hundred_thousand_streams_are_spread_evenly(pattern: str) -> None:
    """The fullest partition has at most 1.05 times the mean at 3 and 12 partitions, 1.1 times at 48."""
    ids = names(pattern)
    assert len(set(ids)) == STREAMS
    # The remainder of the same hash: worked out once, for a number of partitions that all others divide.
    places = np.array([partition_of(name.encode(), 48) for name in ids])
    for partitions, most in ((3, 1.05), (12, 1.05), (48, 1.1)):
        counts = np.bincount(places % partitions, minlength=partitions)
        assert counts.max() / counts.mean() <= most, (pattern, partitions, counts.max() / counts.mean())


def test_the_imbalance_is_the_fullest_against_the_mean() -> None:
    found = balance_of("engine", {0: Survey(3, 30, {b"a", b"b", b"c"}, 300), 1: Survey(1, 10, {b"d"}, 100)})
    assert found.imbalance == {"streams": 1.5, "rows": 1.5, "messages": 1.5, "bytes": 1.5}
    assert "fullest against the mean: streams 1.50, rows 1.50, bytes 1.50" in repr(found)
    assert len(found.plot().axes) == 3
