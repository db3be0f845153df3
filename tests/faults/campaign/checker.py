"""What has to be true after a campaign, by what was written and what arrived: frames in, findings out. Pure.

``written`` has a row for each write of a writer: ``stream``, the numbers ``first`` to ``last`` of its rows, and whether
it was ``acknowledged``; what was not is in doubt: it may have arrived once, or not at all. ``arrived`` has a row for
each row of a topic, in the order of partition, offset and place in the message: ``partition``, ``offset``, ``stream``
and the running number ``n``.

Rows of a stream are numbered as they were written, so that their order is that of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

__all__ = ["Findings", "check_accounts", "check_processed", "check_written"]

_EXAMPLES = 5


@dataclass
class Findings:
    """What was found in a topic: how many rows, and how many of them not as they have to be, with some examples.

    ``lost`` were acknowledged and did not arrive; ``strange`` arrived though nobody wrote them; ``disordered`` came for
    the first time when a later row of their stream had come already, or stand in a message beside a row that is not
    their neighbour; ``repeated`` came more than once; ``back`` is how often a stream stepped back to rows that had
    come; ``torn`` streams were found in more than one partition.
    """

    rows: int = 0
    lost: int = 0
    strange: int = 0
    disordered: int = 0
    repeated: int = 0
    back: int = 0
    torn: int = 0
    examples: list[str] = field(default_factory=list)

    def broken(self, *, once: bool) -> list[str]:
        """What of this must not be. ``once``: no row may be repeated."""
        names = ["lost", "strange", "disordered", "torn"] + ["repeated"] * once
        return [f"{name}: {getattr(self, name):,}" for name in names if getattr(self, name)]

    def _note(self, name: str, stream: str, rows: np.ndarray) -> None:
        if rows.size:
            setattr(self, name, getattr(self, name) + rows.size)
            self.examples.append(f"{name}: stream {stream}, rows {', '.join(map(str, rows[:_EXAMPLES]))}")

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows: {self.lost:,} lost, {self.strange:,} strange, {self.disordered:,} out of order, "
            f"{self.repeated:,} repeated (in {self.back:,} steps back), {self.torn:,} streams in two partitions"
        )


def check_written(written: pd.DataFrame, arrived: pd.DataFrame) -> Findings:
    """What the writers' topic has: what was acknowledged, and maybe what was in doubt; once, and in order."""
    required = _numbers(written[written["acknowledged"]])
    return _check(arrived, required, _numbers(written).get)


def check_processed(written: pd.DataFrame, source: pd.DataFrame, arrived: pd.DataFrame) -> Findings:
    """What the model's topic has: a row for each of ``source``, and for each that was acknowledged to its writer.

    Rows may be repeated, in steps back to a row and on from there; first deliveries are in order all the same.
    """
    there = {str(stream): np.unique(rows) for stream, rows in source.groupby("stream")["n"]}
    required = dict(there)
    for stream, numbers in _numbers(written[written["acknowledged"]]).items():
        required[stream] = np.union1d(numbers, required.get(stream, numbers))
    return _check(arrived, required, there.get)


def check_accounts(accounts: pd.DataFrame) -> list[str]:
    """The partitions whose accounts do not add up: rows in have to be what became of them."""
    fates = [name for name in ("processed", "dead_lettered", "filtered", "let_go", "held") if name in accounts]
    wrong = accounts[accounts["rows_in"] != accounts[fates].sum(axis=1)]
    return [f"{index}: {row.to_dict()}" for index, row in wrong.iterrows()]


def _numbers(written: pd.DataFrame) -> dict[str, np.ndarray]:
    found = {}
    for stream, of_stream in written.groupby("stream"):
        runs = [np.arange(first, last + 1) for first, last in zip(of_stream["first"], of_stream["last"], strict=True)]
        found[str(stream)] = np.unique(np.concatenate(runs))
    return found


def _check(
    arrived: pd.DataFrame, required: dict[str, np.ndarray], allowed: Callable[[str, np.ndarray], np.ndarray]
) -> Findings:
    findings = Findings(rows=len(arrived))
    none = np.empty(0, np.int64)
    came = {str(stream): rows for stream, rows in arrived.groupby("stream", sort=True)}
    for stream in sorted(came.keys() | required.keys()):
        rows = came.get(stream)
        numbers = none if rows is None else rows["n"].to_numpy()
        known = allowed(stream, none)
        distinct, first_at = np.unique(numbers, return_index=True)
        findings._note("lost", stream, np.setdiff1d(required.get(stream, none), distinct))
        findings._note("strange", stream, np.setdiff1d(distinct, known))
        firsts = numbers[np.sort(first_at)]  # in the order of their coming
        findings._note("disordered", stream, firsts[firsts < np.maximum.accumulate(firsts)] if firsts.size else none)
        findings.repeated += numbers.size - distinct.size
        if rows is None:
            continue
        findings.torn += rows["partition"].nunique() > 1
        # A row's neighbour is the next that there is, since some numbers were in doubt and never came.
        steps = np.diff(np.searchsorted(known, numbers))
        findings.back += int((steps <= 0).sum())
        one_message = (np.diff(rows["offset"]) == 0) & (np.diff(rows["partition"]) == 0)
        findings._note("disordered", stream, numbers[1:][one_message & (steps != 1)])
    return findings
