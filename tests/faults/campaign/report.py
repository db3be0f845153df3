"""What a campaign has to say at its end: each fault with its recovery, what the checker found, and the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from .checker import Findings
from .journal import entries

__all__ = ["Look", "Record", "Report", "longest_gap", "processed_again", "written_again"]


@dataclass(frozen=True, slots=True)
class Look:
    """A moment of the group: the end of each partition, and what is committed of it."""

    at: float
    ends: dict[int, int]
    committed: dict[int, int]


@dataclass
class Record:
    """A fault that was made. ``at`` is in seconds since the campaign began, ``lasted`` how long it was held up.

    ``written`` and ``processed`` are how long recovery took, in seconds from the fault's first moment: until each
    writer had an acknowledgement for rows sent after it, and until all rows of that moment were processed and
    committed.
    ``in_sync`` is, of brokers' faults, how long after it all replicas were in sync.
    """

    kind: str
    target: str
    at: float
    lasted: float = 0.0
    written: float | None = None
    processed: float | None = None
    in_sync: float | None = None
    note: str = ""


@dataclass
class Report:
    """Everything about one campaign. It passed if nothing stands in ``problems``."""

    seed: int
    mode: str
    transport: str
    loop: str
    left_out: dict[str, str]
    seconds: float = 0.0
    faults: list[Record] = field(default_factory=list)
    source: Findings = field(default_factory=Findings)
    sink: Findings = field(default_factory=Findings)
    stalls: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    in_doubt: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> set[str]:
        """The kinds of fault that were made."""
        return {record.kind for record in self.faults}

    def write(self, path: Path) -> None:
        """Write all of it down."""
        path.write_text(json.dumps(asdict(self), indent=1, default=float))

    def __str__(self) -> str:
        lines = [
            f"campaign of seed {self.seed}, {self.mode}, {self.transport}, {self.loop}: {len(self.faults)} faults of "
            f"{len(self.kinds)} kinds in {self.seconds:,.0f} s",
            f"{'kind':22}{'times':>6}{'written again s':>22}{'processed s':>22}{'in sync s':>22}",
        ]
        for kind in sorted(self.kinds):
            of_kind = [record for record in self.faults if record.kind == kind]
            columns = [_spread([getattr(r, name) for r in of_kind]) for name in ("written", "processed", "in_sync")]
            lines.append(f"{kind:22}{len(of_kind):>6}" + "".join(f"{column:>22}" for column in columns))
        lines += [f"left out: {kind}, since {why}" for kind, why in self.left_out.items()]
        lines += [f"written: {self.source}; {self.in_doubt:,} rows were in doubt", f"processed: {self.sink}"]
        lines += [f"longest stall of {name}: {stall:.1f} s" for name, stall in self.stalls.items()]
        lines += [f"told {times} times: {error}" for error, times in sorted(self.errors.items())]
        lines += [f"PROBLEM: {problem}" for problem in self.problems] or ["no problem"]
        return "\n".join(lines)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{np.median(known):.1f} (most {max(known):.1f})"


def processed_again(looks: Sequence[Look], since: float) -> float | None:
    """How long after that moment the group had committed all that was there then; None if it never had."""
    later = [look for look in looks if look.at >= since]
    if not later:
        return None
    ends = later[0].ends
    for look in later:
        if all(look.committed.get(number, 0) >= end for number, end in ends.items()):
            return look.at - since
    return None


def written_again(journals: Sequence[Path], since: float) -> float | None:
    """How long after that moment each writer had an acknowledgement of what it sent after it; None: one never had."""
    moments = []
    for journal in journals:
        sent = False
        for kind, at, *_ in entries(journal):
            if kind == "sent":
                sent = sent or at >= since
            elif kind == "acknowledged" and sent:
                moments.append(at - since)
                break
        else:
            return None
    return max(moments)


def longest_gap(moments: Sequence[float]) -> float:
    """The longest time between two of them."""
    return float(np.diff(moments).max()) if len(moments) > 1 else 0.0
