"""What becomes of the instances of a model: when one is started again, and what all of them did. Pure: no process, no
clock."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from quixframes.runner import Summary

__all__ = ["UNABLE", "Backoff", "Ending", "Verdict", "total"]

UNABLE = 78
"""The exit code of an instance whose model or settings cannot work (EX_CONFIG of sysexits.h)."""


class Verdict(enum.Enum):
    """What to do about an instance that has ended."""

    Done = "done"
    Restart = "restart"
    GiveUp = "give up"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: its exit code (below zero: the signal that killed it), and whether it was asked to."""

    code: int
    asked: bool

    def verdict(self, restart: bool) -> Verdict:
        """What to do about it; ``restart`` says whether one that died is started again at all.

        >>> Ending(code=-9, asked=False).verdict(restart=True)
        <Verdict.Restart: 'restart'>
        """
        if self.asked or self.code == 0:
            return Verdict.Done
        return Verdict.Restart if restart and self.code != UNABLE else Verdict.GiveUp


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before an instance that died is started again.

    Args:
        first: seconds of the first wait; it doubles with each further death.
        longest: seconds of the longest wait.
        steady: an instance that ran for so many seconds has not died at once: the next wait is the first one again.
    """

    first: float = 1.0
    longest: float = 30.0
    steady: float = 60.0

    def deaths(self, before: int, ran: float) -> int:
        """How many deaths count after one more, of an instance that ran for so many seconds."""
        return 1 if ran >= self.steady else before + 1

    def pause(self, deaths: int) -> float:
        """Seconds to wait after the death of that number, from 1 on.

        >>> [Backoff().pause(deaths) for deaths in (1, 2, 3, 6, 1_000)]
        [1.0, 2.0, 4.0, 30.0, 30.0]
        """
        return min(self.longest, self.first * 2.0 ** min(deaths - 1, 60))


def total(summaries: Iterable[Summary]) -> Summary:
    """What several instances did together: counts are added, ``seconds`` is the longest, ``lag`` the sum of those that
    are known, ``ended`` the reasons."""
    given = list(summaries)
    lags = [summary.lag for summary in given if summary.lag is not None]
    reasons = dict.fromkeys(summary.ended for summary in given)
    return Summary(
        **{name: sum(getattr(summary, name) for summary in given) for name in _COUNTS},
        lag=sum(lags) if lags else None,
        seconds=max((summary.seconds for summary in given), default=0.0),
        model_seconds=sum(summary.model_seconds for summary in given),
        ended=", ".join(reasons) or "end",
    )


_COUNTS = (
    "rows_in", "processed", "dead", "filtered", "let_go", "held", "rows_out", "batches", "retries", "commits",
)  # fmt: skip
