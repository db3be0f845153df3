"""What ``client.topics.apply`` and ``alter`` have done, or would do: each difference, and what became of it. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from quixframes.contracts.tables import table
from quixframes.topic_spec import Difference

__all__ = ["Applied", "Outcome"]

_COLUMNS = ("topic", "item", "now", "wanted", "outcome", "why")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one difference.

    Attributes:
        difference: what it was; its ``item`` is "" for a topic that is as it is to be.
        state: "done"; "to do" (in a dry run); "refused", since it cannot be; "failed", as the cluster would not; or "as
            it is to be".
        why: of a refusal or a failure.
        error: what was raised.
    """

    difference: Difference
    state: Literal["done", "to do", "refused", "failed", "as it is to be"]
    why: str = ""
    error: Exception | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Applied:
    """The outcomes of all differences, as a table too."""

    outcomes: tuple[Outcome, ...]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each difference: topic, item, now, wanted, outcome, why."""
        return pd.DataFrame(list(self._rows()), columns=list(_COLUMNS), dtype=object)

    @property
    def ok(self) -> bool:
        """Whether nothing was refused, and nothing failed."""
        return not self.not_done

    @property
    def not_done(self) -> tuple[Outcome, ...]:
        """What was refused, or failed."""
        return tuple(one for one in self.outcomes if one.state in ("refused", "failed"))

    def _rows(self) -> Iterable[tuple[str, ...]]:
        for one in self.outcomes:
            yield (*(getattr(one.difference, name) for name in _COLUMNS[:4]), one.state, one.why)

    def _summary(self) -> str:
        states = [one.state for one in self.outcomes]
        known = dict.fromkeys(states)
        return ", ".join(f"{states.count(state)} {state}" for state in known) or "nothing to do"

    def __repr__(self) -> str:
        if not self.outcomes:
            return "<Applied: nothing to do>"
        return f"<Applied: {self._summary()}\n{table(_COLUMNS, self._rows())}>"

    def _repr_html_(self) -> str:
        text: str = self.table.to_html(index=False)
        return f"<p><b>{html.escape(self._summary())}</b></p>{text}"
