"""The pages hold together: links lead somewhere, and what they show is what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import quixframes as qf
from quixframes.metrics import DEFINITIONS
from tests.docs.snippets import ROOT, blocks, pages

GUIDE = ROOT / "docs" / "guide.md"
WIRE_FORMAT = ROOT / "docs" / "wire-format.md"
PLAIN = ROOT / "tests" / "pure" / "golden" / "plain.arrows"

# The demo's picture is made by `make demo`, and put there when it is.
MADE_LATER = {ROOT / "docs" / "images" / "demo.png"}


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() or target in MADE_LATER, f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_piece_of_python_is_python(page: Path) -> None:
    for code in blocks(page, "python") + blocks(page, "py"):
        ast.parse(code)


def test_the_bytes_on_the_wire_format_s_page_are_those_of_the_golden_file() -> None:
    value = PLAIN.read_bytes()
    rows = re.findall(r"^([0-9a-f]{8}): ((?:[0-9a-f]{4} ){8})", WIRE_FORMAT.read_text(), re.MULTILINE)
    assert len(rows) > 10
    for place, digits in rows:
        at = int(place, 16)
        assert value[at : at + 16] == bytes.fromhex(digits.replace(" ", "")), f"at {place}"
    assert int(rows[-1][0], 16) + 16 == len(value)


def rows_of(page: Path) -> list[list[str]]:
    """The first cells of all tables' rows, and the second ones."""
    return [row.split(" | ")[:3] for row in re.findall(r"^\| (.+) \|$", page.read_text(), re.MULTILINE)]


def test_the_guide_lists_every_error_and_says_whether_a_retry_helps() -> None:
    listed = {row[0].strip("`"): row[2] for row in rows_of(GUIDE) if row[0].endswith("Error`")}
    exported = {
        name: getattr(qf, name).retriable
        for name in qf.__all__
        if name.endswith("Error") and name not in ("QuixframesError", "WireError", "BrokerError")
    }
    assert listed == {name: "yes" if retriable else "no" for name, retriable in exported.items()}


@pytest.mark.parametrize("name", ["WriterSettings", "BufferSettings", "ReaderSettings", "CommitSettings"])
def test_the_guide_lists_every_setting(name: str) -> None:
    text = GUIDE.read_text()
    section = text[text.index(f"### `{name}`") :].split("\n#", 1)[0]
    for field in getattr(qf, name).__dataclass_fields__:
        assert f"`{field}`" in section


def test_the_page_of_metrics_has_each_as_the_code_defines_it() -> None:
    page = ROOT / "docs" / "metrics.md"
    rows = [row.split(" | ") for row in re.findall(r"^\| (`quixframes_.+) \|$", page.read_text(), re.MULTILINE)]
    assert rows == [
        [f"`{one.name}`", one.kind, one.unit, ", ".join(one.labels) or "none", one.help] for one in DEFINITIONS.values()
    ]
