"""A topic's contract at work: applied to what is written to it or read from it, with counts of what was found."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from quixframes.contracts import Conformed, Conformer, Contract
from quixframes.errors import ContractError

__all__ = ["ContractCheck"]


class ContractCheck:
    """Applies a contract. One for each opening of a topic; safe in any thread.

    Args:
        contract: the contract.
        topic: the topic's name.
        reload: gives the contract that the topic has by now, before rows are refused by this one. Default: never.
    """

    def __init__(self, contract: Contract, topic: str, reload: Callable[[], Contract | None] | None = None) -> None:
        self.topic = topic
        self._reload = reload
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._begin(contract)

    def _begin(self, contract: Contract) -> None:
        self.contract = contract
        self._conformer = Conformer(contract, topic=self.topic)
        # Rows given as dicts have no dtypes of their own to insist on: the contract gives them theirs.
        # And a bad one among them spoils no other: it is rejected by itself, and the writer raises about it.
        lenient = Contract.of(
            contract,
            policy="dead-letter" if contract.policy in ("raise", "promote") else contract.policy,
            out_of_range="dead-letter" if contract.out_of_range == "raise" else contract.out_of_range,
        )
        self._of_dicts = Conformer(lenient, topic=self.topic)

    @property
    def sends_dead_letters(self) -> bool:
        """Whether rows that do not keep it go to a dead-letter topic."""
        return "dead-letter" in (self.contract.policy, self.contract.out_of_range)

    def apply(self, batch: pa.RecordBatch, stream_id: str, *, dicts: bool = False) -> Conformed:
        """What becomes of rows in normal form; ``dicts`` says that they were given as dicts.

        Raises:
            ContractError: they do not keep the contract, and it says that this is an error.
        """
        conformer = self._of_dicts if dicts else self._conformer
        try:
            conformed = conformer.apply(batch, stream_id=stream_id)
        except ContractError as exc:
            if self._has_evolved():
                return self.apply(batch, stream_id, dicts=dicts)
            self._count({(problem.column, problem.kind): problem.rows for problem in exc.problems})
            raise
        if conformed.problems or conformed.out_of_range:
            found = {(problem.column, problem.kind): problem.rows for problem in conformed.problems}
            self._count(found | {(column, "range"): rows for column, rows in conformed.out_of_range.items()})
        return conformed

    def _has_evolved(self) -> bool:
        """Whether the topic has another contract by now, which is then the one that is applied."""
        new = None if self._reload is None else self._reload()
        if new is None or new == self.contract:
            return False
        self._begin(new)
        return True

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
