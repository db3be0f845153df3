"""The page about the source document: the tests and the code that it names are there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.snippets import ROOT

PAGE = ROOT / "docs" / "source-document.md"
SECTIONS = [
    "Topic replica",
    "Topic retention",
    "Topic partitions",
    "Redistribution of load",
    "Consumer group",
    "Data Grouping",
    "Data Governance",
]
_TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
_CODE = re.compile(r"`((?:\w+/)?\w+\.py)(?:::([\w.]+))?`")


def tables() -> dict[str, list[list[str]]]:
    """The rows of each section's table, the first row first."""
    sections = PAGE.read_text().split("\n## ")[1:]
    return {
        section.split("\n", 1)[0]: [row.split(" | ") for row in re.findall(r"^\| (.+) \|$", section, re.MULTILINE)]
        for section in sections
    }


TABLES = tables()
ROWS = [row for header, *rows in TABLES.values() for row in rows]


def has_test(file: str, name: str) -> bool:
    where = [path for path in ROOT.glob(f"tests/*/{file}") if f"\ndef {name}(" in path.read_text()]
    assert len(where) < 2, f"{file}::{name} is there several times"
    return bool(where)


def has_code(file: str, name: str) -> bool:
    """Whether the module is there, and in it the class, function or value of that name, also as ``Class.method``."""
    path = ROOT / "quixframes" / file
    if not path.exists():
        return False
    scope: list[ast.stmt] = ast.parse(path.read_text()).body
    for part in filter(None, name.split(".")):
        found = [statement for statement in scope if part in defined(statement)]
        if not found:
            return False
        scope = getattr(found[0], "body", [])
    return True


def defined(statement: ast.stmt) -> list[str]:
    """What a statement of a module or a class gives a name to."""
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def missing(row: list[str]) -> list[str]:
    """What a row names and is not in the tree."""
    _, tests, code = row
    absent = [f"{file}::{name}" for file, name in _TEST.findall(tests) if not has_test(file, name)]
    return absent + [f"{file}::{name}" for file, name in _CODE.findall(code) if not has_code(file, name)]


def test_every_section_of_the_document_is_there() -> None:
    assert list(TABLES) == SECTIONS
    for header, *rows in TABLES.values():
        assert header == ["it says", "shown by", "made so by"]
        assert len(rows) >= 3


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:50])
def test_every_row_names_tests_and_code_that_are_there(row: list[str]) -> None:
    _, tests, code = row
    assert _TEST.findall(tests)
    assert _TEST.sub("", tests).strip() == ""
    assert _CODE.findall(code)
    assert _CODE.sub("", code).strip() == ""
    assert missing(row) == []


def test_every_test_of_the_document_s_own_file_is_on_the_page() -> None:
    text = (ROOT / "tests" / "integration" / "test_source_document.py").read_text()
    named = set(_TEST.findall(PAGE.read_text()))
    assert [name for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)
            if ("test_source_document.py", name) not in named] == []  # fmt: skip


def test_a_name_that_is_nowhere_is_seen() -> None:
    assert has_code("topics.py", "Topics.create")
    assert has_code("topic_spec.py", "TopicSpec.replication")
    assert not has_code("topics.py", "Topics.shrink")
    assert not has_code("topics.py", "create")
    assert not has_code("no_module.py", "")
    assert not has_test("test_source_document.py", "test_what_nobody_wrote")
