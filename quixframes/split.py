"""One frame, many streams: rows grouped by the value of a column, without work for each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.columns import OBJECT, refuse
from quixframes.errors import FrameError
from quixframes.rows import kind_of
from quixframes.rules import TAG_TYPE

__all__ = ["split_by"]


def split_by(frame: pd.DataFrame, column: str) -> list[tuple[str, pd.DataFrame]]:
    """One frame for each value of a column, without that column: in order of first appearance, rows in their order.

    The values are strings, integers or categoricals of these; an integer's key is its decimal text. Raises `FrameError`
    for a missing or empty key, keys of another type, and two values with the same text.

    >>> frame = pd.DataFrame({"time": [1, 2, 3], "car": ["b", "a", "b"], "speed": [7.0, 8.0, 9.0]})
    >>> [(key, list(part["speed"])) for key, part in split_by(frame, "car")]
    [('b', [7.0, 9.0]), ('a', [8.0])]
    """
    places = np.flatnonzero([name == column for name in frame.columns])
    if len(places) != 1:
        raise refuse(
            column,
            "there is no such column" if not len(places) else "two columns have this name",
            "name one of the frame's columns",
        )
    series = frame.iloc[:, places[0]]
    try:
        codes, uniques = _factorized(series)
    except TypeError:  # a key that cannot be hashed
        raise _wrong_key(series.tolist(), np.arange(len(series)), column) from None
    if (codes < 0).any():
        raise refuse(column, "the key is missing", "fill it in, or drop these rows", int(np.argmin(codes)))
    keys = _keys(series, codes, uniques, column)
    rest = frame.drop(columns=column)
    if len(keys) < 2:
        return [(key, rest) for key in keys]
    ordered = rest.take(np.argsort(codes, kind="stable"))
    ends = np.cumsum(np.bincount(codes, minlength=len(keys))).tolist()
    return [(key, ordered.iloc[start:end]) for key, start, end in zip(keys, [0, *ends], ends, strict=False)]


def _factorized(series: pd.Series[Any]) -> tuple[Any, list[Any]]:
    """The place of each row's value among the values that there are, -1 for a missing one; and these values."""
    if series.dtype == OBJECT or isinstance(series.dtype, pd.StringDtype):
        try:  # pandas 2 takes two texts for one that differ behind a NUL only
            array = pa.array(np.asarray(series, dtype=object), TAG_TYPE, from_pandas=True)
            return array.indices.fill_null(-1).to_numpy(), array.dictionary.to_pylist()
        except (pa.ArrowException, UnicodeEncodeError):  # not only texts
            pass
    codes, uniques = pd.factorize(series, use_na_sentinel=True)
    return codes, list(uniques)


def _keys(series: pd.Series[Any], codes: Any, uniques: list[Any], column: str) -> list[str]:
    """The text of each key. FrameError for one that is no string and no integer, is empty, or has another's text."""
    if series.dtype == OBJECT:  # among objects pandas takes 1, 1.0 and True for one key, so every value is looked at
        candidates, places = series.tolist(), np.arange(len(series))
    else:
        candidates, places = uniques, codes
    if any(kind_of(of) not in ("str", "int") for of in set(map(type, candidates))):
        raise _wrong_key(candidates, places, column)
    texts: dict[str, Any] = {}
    for code, value in enumerate(uniques):
        text = str(value)
        if not text or text in texts:
            reason = f"the keys {texts[text]!r} and {value!r} have the same text" if text else "the key is empty"
            raise refuse(column, reason, "give each stream a text of its own", int(np.argmax(codes == code)))
        texts[text] = value
    return list(texts)


def _wrong_key(candidates: list[Any], places: Any, column: str) -> FrameError:
    """The error about the first candidate that is no string and no integer; ``places`` has a candidate for each row."""
    wrong = next(place for place, value in enumerate(candidates) if kind_of(type(value)) not in ("str", "int"))
    reason = f"the key {candidates[wrong]!r:.80} is a {type(candidates[wrong]).__name__}, not a string or an integer"
    return refuse(column, reason, "convert it to text in the way that you mean", int(np.argmax(places == wrong)))
