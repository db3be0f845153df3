"""Secrets that tests made: none may be in a log record, a report or an output of the session.

``keep`` registers one. ``tests/conftest.py`` has the plugin, which looks for them at the session's end.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

__all__ = ["SecretsKept", "keep"]

_SECRETS: set[str] = set()


def keep(*secrets: str) -> None:
    """These are never to be seen."""
    _SECRETS.update(secret for secret in secrets if len(secret) >= 8)


def leaked(text: str) -> bool:
    """Whether one of them is in that text."""
    return any(secret in text for secret in _SECRETS)


class SecretsKept(logging.Handler):
    """Looks through every log record, at DEBUG too, and every report of a test."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.places: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note where a secret is told."""
        if not _SECRETS:
            return
        try:
            text = self.format(record)
        except Exception:  # a broken record is the business of logging's own handlers
            return
        if leaked(text):
            self.places.append(f"log record of {record.name}, {record.pathname}:{record.lineno}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look through what was captured, and the traceback."""
        texts = [str(report.longrepr or ""), *(content for _, content in report.sections)]
        if any(leaked(text) for text in texts):
            self.places.append(f"report of {report.nodeid} ({report.when})")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a process of pytest-xdist has found."""
        self.places += getattr(node, "workeroutput", {}).get("secrets_told", [])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the session if there was one."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["secrets_told"] = self.places
        elif self.places:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where; not what."""
        if self.places:
            terminalreporter.section("secrets were told", red=True)
            for place in sorted(set(self.places)):
                terminalreporter.line(place)
