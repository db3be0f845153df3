"""The project's pages, and the fenced blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Every Markdown page that is part of the repository."""
    return sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")) + sorted(ROOT.glob("docker/*.md"))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in their order."""
    return [code for name, code in _FENCED.findall(page.read_text()) if name == language]
