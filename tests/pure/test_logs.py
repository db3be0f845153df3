"""Log records: with their place, and seldom where there may be one for each message."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import quixframes
from quixframes.kafka import Partition
from quixframes.logs import Place, Seldom
from quixframes.sequence import FaultKind, SequenceFault

log = logging.getLogger("quixframes.tests")
PACKAGE = Path(quixframes.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place("engine", 0, 17, "car-44"), "engine[0]@17, stream 'car-44'"),
        (Place("engine", 0), "engine[0]"),
        (Place("engine"), "topic engine"),
        (Place("engine", stream_id="100% s"), "topic engine, stream '100% s'"),
        (Place(*Partition("engine", 3), 4), "engine[3]@4"),
        (Place(), ""),
    ],
)
def test_a_place_reads_as_errors_write_it(place: Place, text: str) -> None:
    assert str(place) == text


def test_a_record_has_the_four_attributes_also_those_that_it_says_nothing_of(caplog: pytest.LogCaptureFixture) -> None:
    place = Place("engine", 2)
    log.warning("%s: told", place, extra=place.extra)
    (record,) = caplog.records
    found = [getattr(record, name) for name in ("topic", "partition", "offset", "stream_id")]
    assert found == ["engine", 2, None, None]


def test_the_place_of_a_fault_or_an_error_is_the_one_that_it_names() -> None:
    fault = SequenceFault(FaultKind.Missing, "s", "engine", 1, 7, 1, 3, 4, "5e55")
    assert Place.of(fault) == Place("engine", 1, 7, "s")
    assert Place.of(quixframes.DeliveryError("no", topic="engine", stream_id="s", rows=1)) == Place(
        "engine", stream_id="s"
    )
    assert Place.of(ValueError("no"), topic="engine") == Place("engine")


def test_the_first_of_many_is_told_at_once_and_the_others_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    seldom = Seldom(log, "{:,} messages were skipped")
    with caplog.at_level(logging.DEBUG, "quixframes"):
        for n in range(2_500):
            seldom.note(f"message {n}", Place("engine", 0, n), now=100 + n / 1000)
    assert warnings_of(caplog) == [
        "message 0",
        "1,000 messages were skipped; the last: message 1000",
        "1,000 messages were skipped; the last: message 2000",
    ]
    assert len([record for record in caplog.records if record.levelno == logging.DEBUG]) == 2_500
    assert [record.offset for record in caplog.records if record.levelno == logging.WARNING] == [0, 1000, 2000]


def test_the_last_of_many_are_told_though_no_more_come(caplog: pytest.LogCaptureFixture) -> None:
    seldom = Seldom(log, "{:,} messages were skipped")
    for n in range(3):
        seldom.note(f"message {n}", Place("engine"), now=100)
    seldom.tell(100.9)
    assert warnings_of(caplog) == ["message 0"]
    seldom.tell(101)
    seldom.note("message 3", Place("engine"), now=101.5)
    seldom.tell_rest()
    seldom.tell_rest()
    assert warnings_of(caplog)[1:] == ["2 messages were skipped; the last: message 2", "message 3"]


def calls() -> list[tuple[str, ast.Call]]:
    """Every call that logs, but for those of the adapters."""
    return [
        (f"{path.name}:{node.lineno}", node)
        for path in sorted(PACKAGE.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) in ("log", "self._log")
        and node.func.attr in LEVELS
    ]


def test_every_record_says_which_place_it_is_about() -> None:
    assert len(calls()) > 30
    assert [where for where, call in calls() if "extra" not in [keyword.arg for keyword in call.keywords]] == []


def test_every_logger_is_one_of_ours_and_none_is_configured() -> None:
    """But by the worker: it is a program of its own, and says what it shows."""
    for path in PACKAGE.glob("*.py"):
        text = path.read_text()
        if path.name == "worker.py":
            continue
        assert text.count("getLogger(") == text.count("getLogger(__name__)"), path.name
        for word in ("basicConfig", ".setLevel(", ".addHandler("):
            assert word not in text, f"{path.name}: {word}"
