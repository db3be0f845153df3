"""The examples in the docstrings give what they say. Those that need a broker are marked ``+SKIP``."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import quixframes

# The program that outlives us for a moment runs when it is imported; it has no examples.
PROGRAMS = {"quixframes.local_supervisor", "quixframes.__main__"}
NAMES: dict[str, Any] = {"np": np, "pd": pd}


def modules() -> list[str]:
    found = pkgutil.walk_packages(quixframes.__path__, "quixframes.")
    return sorted({"quixframes", *(module.name for module in found)} - PROGRAMS)


def imported(name: str) -> ModuleType:
    """The module; the test is skipped if it belongs to an extra that is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("quixframes"):
            raise
        return pytest.skip(f"{name} needs {exc.name}, which is not installed")


def examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(module, extraglobs=NAMES) if test.examples]


@pytest.mark.parametrize("name", modules())
def test_examples_give_what_they_say(name: str) -> None:
    module = imported(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    for test in examples(module):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_there_are_examples() -> None:
    """Else the tests above would prove nothing."""
    pure = ("settings", "dtypes", "frames", "wire", "buffer", "ledger")
    assert sum(len(examples(imported(f"quixframes.{name}"))) for name in pure) >= 8
