"""What `make check` makes of what pip-audit says."""

from __future__ import annotations

import json
import runpy
import sys
from typing import Any

import pytest

from tests.docs.snippets import ROOT


def judged(out: object, error: str = "", code: int = 0) -> int:
    """The exit code for a pip-audit that says this."""
    text = out if isinstance(out, str) else json.dumps({"dependencies": out})
    say = f"import sys; print({text!r}); print({error!r}, file=sys.stderr); sys.exit({code})"
    audit = runpy.run_path(str(ROOT / ".ci" / "audit.py"))
    judge: Any = audit["main"]
    return int(judge([sys.executable, "-c", say]))


def test_a_known_vulnerability_fails(capsys: pytest.CaptureFixture[str]) -> None:
    vulnerability = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}
    found = [{"name": "a", "version": "1.0", "vulns": [vulnerability]}, {"name": "b", "skip_reason": "?"}]
    assert judged(found, code=1) == 1
    assert "a 1.0 is vulnerable: PYSEC-1; fixed in 2.0" in capsys.readouterr().err


def test_no_known_vulnerability_passes_and_says_of_which_packages_nothing_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "?"}]
    assert judged([*found, {"name": "quixframes", "skip_reason": "?"}]) == 0
    assert (
        capsys.readouterr().out.strip().endswith("in 1 packages; not asked about, as the index does not know them: b")
    )


@pytest.mark.parametrize(
    ("out", "error"),
    [
        ("", "ERROR: Could not connect to PyPI's vulnerability feed"),
        ("", "requests.exceptions.ReadTimeout: read timed out"),
        ([{"name": "a", "skip_reason": "not found on PyPI"}], ""),
    ],
)
def test_where_nobody_can_be_asked_it_says_so_and_passes(
    out: object, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(out, error, code=1) == 0
    assert "NOT AUDITED" in capsys.readouterr().err


def test_a_pip_audit_that_fails_otherwise_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert judged("", "error: unrecognized arguments: --nonsense", code=2) == 1
    assert "--nonsense" in capsys.readouterr().err
