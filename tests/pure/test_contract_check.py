"""A contract at work: when it looks for a newer one, and what it counts."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quixframes.contract_check import ContractCheck
from quixframes.contracts import Contract, Parameter
from quixframes.errors import BrokerUnavailableError, ContractError
from tests.pure.contract_rows import batch

OLD = {"n": "int64"}
NEW = {"n": "int64", "m": Parameter("Int64", required=False)}
GOOD = batch(n=np.array([1, 2]))
BAD = batch(n=pd.array(["x", "y"], "string"))
NEWER = batch(n=np.array([1, 2]), m=pd.array([3, None], "Int64"))


class Topic:
    """Has a contract, and counts who asks for it."""

    def __init__(self, contract: Contract) -> None:
        self.contract, self.asked, self.now = contract, 0, 100.0
        self.fails = False

    def look(self) -> Contract:
        self.asked += 1
        if self.fails:
            raise BrokerUnavailableError("nobody answers")
        return self.contract

    def check(self) -> ContractCheck:
        return ContractCheck(self.contract, "engine", self.look, clock=lambda: self.now)


@pytest.mark.parametrize("policy", ["raise", "promote", "dead-letter"])
@pytest.mark.parametrize("dicts", [False, True])
def test_a_column_that_the_contract_has_got_meanwhile_passes_under_every_policy(policy: Any, dicts: bool) -> None:
    topic = Topic(Contract(OLD, policy=policy))
    check = topic.check()
    topic.contract = Contract(NEW, policy=policy)
    conformed = check.apply(NEWER, "car-44", dicts=dicts)
    assert (conformed.batch.num_rows, conformed.rejected, len(check.counts)) == (2, None, 0)
    assert check.contract == topic.contract


def test_values_are_not_made_missing_by_a_range_that_has_become_wider() -> None:
    narrow, wide = (
        Contract({"n": Parameter("float64", range=(0, most))}, out_of_range="missing") for most in (1, 1_000)
    )
    topic = Topic(narrow)
    check = topic.check()
    topic.contract = wide
    assert check.apply(batch(n=np.array([500.0])), "car-44").batch.column("n").to_pylist() == [500.0]


@pytest.mark.parametrize("policy", ["raise", "dead-letter"])
def test_a_thousand_bad_rows_ask_once_a_second_and_each_is_counted_once(policy: Any) -> None:
    topic = Topic(Contract(OLD, policy=policy))
    check = topic.check()
    for _ in range(1_000):
        if policy == "raise":
            with pytest.raises(ContractError):
                check.apply(BAD, "car-44")
        else:
            check.apply(BAD, "car-44")
    assert topic.asked == 1
    assert check.counts["rows"].tolist() == [2_000]
    topic.contract = Contract(NEW, policy=policy)
    topic.now += 1
    assert check.apply(NEWER, "car-44").batch.num_rows == 2
    assert topic.asked == 2


def test_rows_that_keep_the_contract_ask_nobody() -> None:
    topic = Topic(Contract(OLD))
    check = topic.check()
    for _ in range(3):
        topic.now += 5
        check.apply(GOOD, "car-44")
    assert topic.asked == 0


def test_rows_are_judged_by_the_known_contract_where_nobody_can_be_asked(caplog: pytest.LogCaptureFixture) -> None:
    """A broker that is gone is no fault of theirs."""
    topic = Topic(Contract(OLD))
    check, topic.fails = topic.check(), True
    with caplog.at_level(logging.WARNING), pytest.raises(ContractError, match="n"):
        check.apply(BAD, "car-44")
    assert "nobody answers" in caplog.text
    assert check.apply(GOOD, "car-44").batch.num_rows == 2


def test_two_threads_that_meet_a_newer_contract_both_pass() -> None:
    topic = Topic(Contract(OLD))
    entered, go = threading.Event(), threading.Event()

    def slow() -> Contract:
        entered.set()
        go.wait(10)
        return topic.look()

    check = ContractCheck(topic.contract, "engine", slow, clock=lambda: topic.now)
    topic.contract = Contract(NEW)
    passed: list[int] = []
    threads = [
        threading.Thread(target=lambda: passed.append(check.apply(NEWER, "car-44").batch.num_rows)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    entered.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert (passed, topic.asked) == ([2, 2], 1)
