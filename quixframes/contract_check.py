"""A topic's contract at work: applied to what is written to it or read from it, with counts of what was found.

What this module holds to: before a contract takes rows or values away, the topic is asked whether it has another one by
now, once a second at most. Where it cannot be asked, the known contract goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from quixframes.contracts import Conformed, Conformer, Contract
from quixframes.errors import ContractError, QuixframesError
from quixframes.logs import Place

__all__ = ["ContractCheck"]

log = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds between two looks at the contract that the topic has


class _Rules(NamedTuple):
    """A contract, and what applies it."""

    contract: Contract
    conformer: Conformer
    of_dicts: Conformer

    @classmethod
    def of(cls, contract: Contract, topic: str) -> _Rules:
        # Rows given as dicts have no dtypes of their own to insist on: the contract gives them theirs.
        # And a bad one among them spoils no other: it is rejected by itself, and the writer raises about it.
        lenient = Contract.of(
            contract,
            policy="dead-letter" if contract.policy in ("raise", "promote") else contract.policy,
            out_of_range="dead-letter" if contract.out_of_range == "raise" else contract.out_of_range,
        )
        return cls(contract, Conformer(contract, topic=topic), Conformer(lenient, topic=topic))

    def apply(self, batch: pa.RecordBatch, stream_id: str, dicts: bool) -> Conformed | ContractError:
        try:
            return (self.of_dicts if dicts else self.conformer).apply(batch, stream_id=stream_id)
        except ContractError as exc:
            return exc

    def took_away(self, outcome: Conformed | ContractError) -> bool:
        """Whether rows were refused or rejected, or values made missing."""
        if isinstance(outcome, ContractError) or outcome.rejected is not None:
            return True
        return self.contract.out_of_range == "missing" and bool(outcome.out_of_range)


class ContractCheck:
    """Applies a contract. One for each opening of a topic; safe in any thread.

    Args:
        contract: the contract.
        topic: the topic's name.
        reload: gives the contract that the topic has by now, before anything is taken away by this one. Default: never.
        clock: seconds of a steady clock.
    """

    def __init__(
        self,
        contract: Contract,
        topic: str,
        reload: Callable[[], Contract | None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.topic = topic
        self._reload = reload
        self._clock = clock
        self._next_look = clock()
        self._looking = threading.Lock()
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._rules = _Rules.of(contract, topic)

    @property
    def contract(self) -> Contract:
        """The contract that is applied."""
        return self._rules.contract

    @property
    def sends_dead_letters(self) -> bool:
        """Whether rows that do not keep it go to a dead-letter topic."""
        return "dead-letter" in (self.contract.policy, self.contract.out_of_range)

    def apply(self, batch: pa.RecordBatch, stream_id: str, *, dicts: bool = False) -> Conformed:
        """What becomes of rows in normal form; ``dicts`` says that they were given as dicts.

        Raises:
            ContractError: they do not keep the contract, and it says that this is an error.
        """
        rules = self._rules
        outcome = rules.apply(batch, stream_id, dicts)
        if rules.took_away(outcome) and self._rules_by_now(rules) is not rules:
            outcome = self._rules.apply(batch, stream_id, dicts)
        if isinstance(outcome, ContractError):
            self._count({(problem.column, problem.kind): problem.rows for problem in outcome.problems})
            raise outcome
        if outcome.problems or outcome.out_of_range:
            found = {(problem.column, problem.kind): problem.rows for problem in outcome.problems}
            self._count(found | {(column, "range"): rows for column, rows in outcome.out_of_range.items()})
        return outcome

    def _rules_by_now(self, known: _Rules) -> _Rules:
        """The rules of the contract that the topic has by now, which are then applied; the known ones where it has the
        same still, was looked at within the last second, or cannot be looked at."""
        if self._reload is None:
            return known
        with self._looking:
            if self._rules is known and self._clock() >= self._next_look:
                try:
                    new = self._reload()
                    if new is not None and new != known.contract:
                        self._rules = _Rules.of(new, self.topic)
                except QuixframesError as exc:
                    place = Place(self.topic)
                    log.warning(
                        "%s: its contract cannot be looked up again, and stays the one that it was: %s",
                        place, exc, extra=place.extra,
                    )  # fmt: skip
                self._next_look = self._clock() + _PAUSE
            return self._rules

    def sends(self, conformed: Conformed) -> bool:
        """Whether the rows that were rejected are to go to a dead-letter topic; else they are an error."""
        of_range, of_others = self.contract.out_of_range, self.contract.policy
        return all((of_range if one.kind == "range" else of_others) == "dead-letter" for one in conformed.problems)

    def breach(self, conformed: Conformed, stream_id: str) -> ContractError:
        """The error that tells why rows were rejected."""
        said = "; ".join(f"column {one.column!r}: {one.text}" for one in conformed.problems)
        return ContractError(
            f"rows of stream {stream_id!r} do not keep the contract of topic {self.topic!r}: {said}",
            topic=self.topic,
            stream_id=stream_id,
            problems=conformed.problems,
        )

    @property
    def counts(self) -> pd.DataFrame:
        """What was found so far: a row for each column and kind of problem, with the number of rows it concerned."""
        with self._lock:
            found = [(column, kind, rows) for (column, kind), rows in sorted(self._counts.items())]
        return pd.DataFrame(found, columns=["column", "problem", "rows"]).astype({"rows": "int64"})

    def _count(self, found: Mapping[Any, int]) -> None:
        with self._lock:
            self._counts.update(found)
