"""Facts as lines of text under each other, for errors that have more than one to tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["table"]

MOST = 20  # lines; further ones are only counted
WIDEST = 60  # letters of a cell
LAST = 200  # ... that is the last of its line


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns of text, indented, each as wide as its longest cell.

    >>> print(table(("column", "found"), [("lap", "int64"), ("driver", "str")]))
      column  found
      lap     int64
      driver  str
    """
    lines = [tuple(header), *((*(_cell(value, WIDEST) for value in row[:-1]), _cell(row[-1], LAST)) for row in rows)]
    more = len(lines) - 1 - MOST
    lines = lines[: MOST + 1]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    return "\n".join([*text, f"  ... and {more} more"] if more > 0 else text)


def _cell(value: object, widest: int) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= widest else text[: widest - 1] + "…"
