"""The checker of the campaigns sees each planted fault, and only that."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from .checker import Findings, check_accounts, check_processed, check_written

STREAMS = ("a", "b")


def rows_of(numbers: dict[str, list[int]], per_message: int = 5) -> pd.DataFrame:
    """Rows of a topic as they arrived: each stream in a partition of its own, five rows a message."""
    frames = []
    for partition, (stream, n) in enumerate(numbers.items()):
        offsets = np.arange(len(n)) // per_message
        frames.append(pd.DataFrame({"partition": partition, "offset": offsets, "stream": stream, "n": n}))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def written() -> pd.DataFrame:
    """Of each stream 0-9 were acknowledged, 10-14 are in doubt, and 15-29 were acknowledged."""
    runs = [(stream, *run) for stream in STREAMS for run in [(0, 9, True), (10, 14, False), (15, 29, True)]]
    return pd.DataFrame(runs, columns=["stream", "first", "last", "acknowledged"])


@pytest.fixture
def numbers() -> dict[str, list[int]]:
    """What arrived: of stream a what was in doubt, too; of stream b not."""
    return {"a": [*range(30)], "b": [*range(10), *range(15, 30)]}


def found(findings: Findings) -> dict[str, int]:
    names = ("lost", "strange", "disordered", "repeated", "back", "torn")
    return {name: getattr(findings, name) for name in names if getattr(findings, name)}


def test_what_arrived_as_it_was_written_is_without_findings(
    written: pd.DataFrame, numbers: dict[str, list[int]]
) -> None:
    """Whether what was in doubt came or not."""
    arrived = rows_of(numbers)
    assert found(check_written(written, arrived)) == {}
    assert found(check_processed(written, arrived, arrived)) == {}
    assert check_written(written, arrived).rows == 55


def test_a_lost_row_is_seen(written: pd.DataFrame, numbers: dict[str, list[int]]) -> None:
    """In the writers' topic if it was acknowledged, and in the model's if the writers' topic has it."""
    source = rows_of(numbers)
    for row, lost_by_writer in ((17, True), (12, False), (29, True), (0, True)):
        less = rows_of(numbers | {"a": [n for n in numbers["a"] if n != row]}, per_message=1)
        findings = check_written(written, less)
        assert found(findings) == ({"lost": 1} if lost_by_writer else {})
        findings = check_processed(written, source, less)
        assert found(findings) == {"lost": 1}
        assert findings.examples == [f"lost: stream a, rows {row}"]
        assert findings.broken(once=False) == ["lost: 1"]
    # What neither topic has is lost all the same if it was acknowledged.
    less = rows_of(numbers | {"b": [n for n in numbers["b"] if n != 20]}, per_message=1)
    assert found(check_processed(written, less, less)) == {"lost": 1}


def test_a_lost_stream_is_seen(written: pd.DataFrame, numbers: dict[str, list[int]]) -> None:
    """All of it, though no row of it is there to be looked at."""
    assert found(check_processed(written, rows_of(numbers), rows_of({"a": numbers["a"]}))) == {"lost": 25}


def test_a_repeated_row_is_seen(written: pd.DataFrame, numbers: dict[str, list[int]]) -> None:
    """Also the very last one, and one in doubt; it breaks exactly once, and is counted under at least once."""
    for more in ([29], [7, 8, 9], [12]):
        arrived = rows_of(numbers | {"a": [*numbers["a"], *more]})
        for findings in (check_written(written, arrived), check_processed(written, rows_of(numbers), arrived)):
            assert found(findings) == {"repeated": len(more), "back": 1}
            assert findings.broken(once=True) == [f"repeated: {len(more)}"]
            assert findings.broken(once=False) == []


def test_a_step_back_and_on_from_there_is_repetition_and_no_disorder(
    written: pd.DataFrame, numbers: dict[str, list[int]]
) -> None:
    """As after a killed model; two instances that deliver the same rows by turns are no disorder either."""
    source = rows_of(numbers)
    again = {"a": [*range(20), *range(5, 30)]}
    assert found(check_processed(written, source, rows_of(numbers | again))) == {"repeated": 15, "back": 1}
    turns = {"a": [*range(20), *range(5, 10), *range(15, 30), *range(10, 20)]}
    assert found(check_processed(written, source, rows_of(numbers | turns))) == {"repeated": 20, "back": 2}


def test_disorder_is_seen(written: pd.DataFrame, numbers: dict[str, list[int]]) -> None:
    """Two rows that changed places, two messages that did, and a row among its earlier repetitions."""
    source = rows_of(numbers)
    n = numbers["a"]
    swapped = [*n[:16], 17, 16, *n[18:]]
    findings = check_processed(written, source, rows_of(numbers | {"a": swapped}, per_message=1))
    assert found(findings) == {"disordered": 1, "back": 1}
    assert findings.broken(once=False) == ["disordered: 1"]
    findings = check_written(written, rows_of(numbers | {"a": [*n[:5], *n[10:15], *n[5:10], *n[15:]]}))
    assert found(findings) == {"disordered": 5, "back": 1}
    findings = check_processed(written, source, rows_of(numbers | {"a": [*range(10), 0, 1, 3, 2, 4, *range(10, 30)]}))
    assert (findings.disordered, findings.repeated) == (3, 5), "a repeated message has its rows in order as well"


def test_a_row_that_nobody_wrote_is_seen(written: pd.DataFrame, numbers: dict[str, list[int]]) -> None:
    """A number beyond the last, and what of a topic's rows in doubt the source does not have."""
    assert found(check_written(written, rows_of(numbers | {"a": [*range(31)]}))) == {"strange": 1}
    arrived = rows_of(numbers | {"b": [*range(10), 12, *range(15, 30)]}, per_message=1)
    assert check_processed(written, rows_of(numbers), arrived).strange == 1
    assert check_written(written, rows_of(numbers | {"c": [0]})).strange == 1


def test_a_stream_in_two_partitions_is_seen(written: pd.DataFrame, numbers: dict[str, list[int]]) -> None:
    """Its order would be nobody's to keep."""
    arrived = rows_of(numbers)
    arrived.loc[(arrived["stream"] == "a") & (arrived["n"] >= 20), "partition"] = 7
    assert found(check_written(written, arrived)) == {"torn": 1}


def test_accounts_that_do_not_add_up_are_seen() -> None:
    """Rows in are processed, dead letters, filtered, let go, or still held."""
    accounts = pd.DataFrame(
        {"rows_in": [10, 20], "processed": [4, 20], "dead_lettered": [1, 0], "filtered": 2, "let_go": 1, "held": [2, 0]}
    )
    accounts.loc[1, ["filtered", "let_go"]] = 0
    assert check_accounts(accounts) == []
    accounts.loc[0, "held"] = 3
    assert len(check_accounts(accounts)) == 1
