"""The campaigns: at least 100 faults of at least 8 kinds each, and every promise about rows holds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from .campaign import Course, run_campaign
from .options import Mode

LONG = pytest.mark.timeout(2_400)
CONFLUENT = pytest.param(
    "confluent",
    marks=pytest.mark.skipif(not importlib.util.find_spec("confluent_kafka"), reason="confluent-kafka is not there"),
)


@LONG
@pytest.mark.faults
@pytest.mark.parametrize("transport", ["kafka-python", CONFLUENT])
@pytest.mark.parametrize("mode", ["at-least-once", "exactly-once"])
def test_no_fault_of_a_hundred_loses_repeats_or_disorders_a_row(mode: Mode, transport: str, tmp_path: Path) -> None:
    """Instances, writers, brokers, the network and a disk fail; what was acknowledged is processed, in order.

    Under exactly-once no row is there twice; under at-least-once their number is told.
    """
    report = run_campaign(Course(seed=5, faults=110, mode=mode, transport=transport), tmp_path)
    print(f"\n{report}")
    assert report.problems == []
    assert len(report.faults) >= 100
    assert len(report.kinds) >= 8
