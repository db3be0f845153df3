"""Tags: columns of text that travel as dictionaries, and come back to the bit (promise 2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from frame_cases import (
    assert_equal,
    assert_same,
    assert_travels,
    indexed,
    of_object,
    over_the_wire,
    string_dtypes,
    there_and_back,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quixframes.errors import FrameError
from quixframes.frames import (
    FrameDecoder,
    FrameEncoder,
    check_values,
    compacted,
    concat,
    keep_rows,
    lone_nbytes,
    row_nbytes,
    row_width,
    split_by,
    trimmed,
)

TAG_TYPE = pa.dictionary(pa.int32(), pa.large_string())
ARROW = {str(arrow): pd.ArrowDtype(arrow) for arrow in (pa.string(), pa.large_string())}
DTYPES: dict[str, Any] = string_dtypes() | ARROW | {"object[str]": np.dtype(object)}
often = settings(max_examples=300, deadline=None)
texts = st.lists(st.one_of(st.none(), st.sampled_from("abc"), st.text(max_size=6)), max_size=10)


def tags_of(values: list[Any], dtype: Any) -> Any:
    return of_object(values) if dtype == np.dtype(object) else pd.array(values, dtype=dtype)


def tagged(values: list[Any]) -> pd.DataFrame:
    """A tag of these values in every dtype that a tag can have."""
    return indexed({f"TAG__{name}": tags_of(values, dtype) for name, dtype in DTYPES.items()})


# --- there and back ---------------------------------------------------------------------------------------------------


@often
@given(texts)
@example(["", None, "\0", "a\0b", "a\0c", "\N{SNOWMAN}", "NaN", "None", "<NA>"])
@example([None, None])
def test_tags_of_every_string_dtype_come_back_as_they_went(drawn: list[str | None]) -> None:
    """Whole and in pieces with dictionaries of their own; pieces have one schema, as their dtypes say."""
    assert_travels(tagged(drawn))


@pytest.mark.parametrize("name", DTYPES)
def test_tags_travel_as_dictionaries_of_text(name: str) -> None:
    """In one Arrow type, with the strings' own descriptor or Arrow type behind ``tag:``."""
    column = tags_of(["b", None, "a", "b"], DTYPES[name])
    batch = FrameEncoder().encode(indexed({"TAG__x": column}))
    field = batch.schema.field("TAG__x")
    descriptor = {"string[pyarrow_numpy]": "str[pyarrow]"}.get(name, name)
    assert (field.type, field.nullable, field.metadata) == (TAG_TYPE, True, {b"pandas": b"tag:" + descriptor.encode()})
    assert batch.column(1).to_pylist() == ["b", None, "a", "b"]
    assert batch.column(1).dictionary.to_pylist() == ["b", "a"]


@often
@given(st.lists(st.one_of(st.sampled_from([None, np.nan, pd.NA]), st.text(max_size=4)), max_size=8))
@example([None, np.nan, pd.NA, "", "NaN", "NA"])
def test_object_tags_keep_the_kind_of_each_missing_value(drawn: list[Any]) -> None:
    """Where NaN or NA is among them they are no dictionary, which has one kind of missing value only."""
    assert_travels(indexed({"TAG__x": of_object(drawn)}), one_schema=False)
    arrow = FrameEncoder().encode(indexed({"TAG__x": of_object(drawn)})).schema.field("TAG__x").type
    assert (arrow == TAG_TYPE) == all(value is None or isinstance(value, str) for value in drawn)


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical(["a", None, "b", "a"], categories=pd.Index(["b", "a", "z"], dtype=object), ordered=True),
        pd.Categorical(["a", "a", "a", "a"], categories=pd.Index(["a"], dtype="string[python]")),
        pd.Categorical([None] * 4, categories=pd.Index([], dtype=object)),
        pd.array(["a", None, "b", "a"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
        pd.array(["a", None, "b", "a"], dtype=pd.ArrowDtype(TAG_TYPE)),
    ],
    ids=["ordered", "string", "empty", "arrow", "arrow as tags"],
)
def test_a_categorical_of_strings_stays_one(values: Any) -> None:
    """It is a dictionary already; so is Arrow's."""
    frame = indexed({"TAG__x": values})
    assert_same(there_and_back(frame), frame)
    batches = [FrameEncoder().encode(frame.rename(columns={"TAG__x": name})) for name in ("TAG__x", "x")]
    assert batches[0].column(1).equals(batches[1].column(1))


def test_views_of_text_are_tags_though_pandas_can_do_little_with_them() -> None:
    """pandas cannot even compare such a column."""
    texts = pa.array(["a", None, "x" * 20], pa.string()).cast(pa.string_view())
    batch = over_the_wire(FrameEncoder().encode(indexed({"TAG__x": pd.ArrowDtype(texts.type).__from_arrow__(texts)})))
    assert batch.schema.field("TAG__x").metadata == {b"pandas": b"tag:string_view"}
    got = FrameDecoder().decode(batch)["TAG__x"]
    assert got.dtype == pd.ArrowDtype(pa.string_view())
    assert pa.array(got.array).to_pylist() == ["a", None, "x" * 20]


def test_a_tag_and_a_parameter_of_the_same_name_do_not_clash() -> None:
    """They are two columns, whatever they hold."""
    frame = indexed({"lap": [1.5, 2.5], "TAG__lap": of_object(["1", None]), "TAG__": of_object(["a", "b"])})
    assert_same(there_and_back(frame), frame)


def test_tags_stand_where_they_were_among_blocks_of_numbers() -> None:
    """Columns of one dtype side by side are copied as blocks, which a tag ends."""
    numbers = {f"{place}": np.arange(3.0) + place for place in range(20)}
    names = [*[*numbers][:9], "TAG__a", "TAG__b", *[*numbers][9:], "TAG__c"]
    tags = {f"TAG__{name}": of_object([name, "x", None]) for name in "abc"}
    frame = indexed({name: (numbers | tags)[name] for name in names})
    assert_same(there_and_back(frame), frame)


def test_a_value_that_comes_often_is_one_object() -> None:
    """A tag of a million rows and two values takes the memory of two strings."""
    got = there_and_back(indexed({"TAG__x": of_object(["".join(["la", "p"]) for _ in range(100)])}))
    assert len({id(value) for value in got["TAG__x"]}) == 1


# --- refused ----------------------------------------------------------------------------------------------------------


class Gear(StrEnum):
    """A str that would come back as another type."""

    FIRST = "1"


# case: (a column, the row of the error, a part of the reason)
REFUSED: dict[str, tuple[Callable[[], Any], int | None, str]] = {
    "float": (lambda: np.array([1.0, 2.0]), None, "its dtype is float64"),
    "int": (lambda: np.array([1, 2], "i2"), None, "its dtype is int16"),
    "missing as NaN": (lambda: np.array([np.nan, np.nan]), None, "its dtype is float64"),
    "bool": (lambda: np.array([True, False]), None, "its dtype is bool"),
    "Int64": (lambda: pd.array([1, None], dtype="Int64"), None, "its dtype is Int64"),
    "datetime": (lambda: pd.to_datetime(["2026", "2027"]), None, "its dtype is datetime64"),
    "zoned": (lambda: pd.to_datetime(["2026", "2027"]).tz_localize("UTC"), None, "its dtype is datetime64.*UTC"),
    "category of int": (lambda: pd.Categorical([1, 2]), None, "its dtype is category"),
    "category of bytes": (lambda: pd.Categorical.from_codes([0], of_object([b"a"])).take([0, 0]), None, "category"),
    "arrow int": (lambda: pd.array([1, 2], dtype="int8[pyarrow]"), None, "int8"),
    "arrow binary": (lambda: pd.array([b"a", b"b"], dtype=pd.ArrowDtype(pa.binary())), None, "binary"),
    "arrow null": (lambda: pd.array([None, None], dtype=pd.ArrowDtype(pa.null())), None, "null"),
    "period": (lambda: pd.period_range("2026", periods=2, freq="D"), None, "periods"),
    "objects of int": (lambda: of_object(["a", 1]), 1, "1 is a int"),
    "objects of int beside NaN": (lambda: of_object([np.nan, 1]), 1, "1 is a int"),
    "objects of float": (lambda: of_object([np.nan, 1.5]), 1, "1.5 is a float"),
    "objects of bytes": (lambda: of_object([None, b"a"]), 1, "b'a' is a bytes"),
    "objects of bool": (lambda: of_object([True, "a"]), 0, "True is a bool"),
    "NaT": (lambda: of_object(["a", pd.NaT]), 1, "NaT is a NaTType"),
    "an Enum": (lambda: of_object(["a", Gear.FIRST]), 1, "is a Gear"),
    "surrogate": (lambda: of_object(["a", "\ud800"]), 1, "surrogate"),
    "surrogate in strings": (lambda: pd.array(["a", "\udfff"], dtype="string[python]"), 1, "surrogate"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_text_is_no_tag(case: str) -> None:
    """By name, with the first row where the dtype does not say it, and what to do; alone and among numbers."""
    make, row, reason = REFUSED[case]
    values = make()
    for frame in (indexed({"TAG__x": values}), indexed({"a": [1.0, 2.0], "TAG__x": values, "b": [1.0, 2.0]})):
        with pytest.raises(FrameError) as caught:
            FrameEncoder().encode(frame)
        assert (caught.value.column, caught.value.row) == ("TAG__x", row)
        advice = {"surrogate": "replace", "periods": "to_timestamp"}.get(reason, r"text: .*astype\(str\).*str\(value\)")
        assert re.search(f"column 'TAG__x'.*: .*{reason}.*; .*{advice}", str(caught.value))


def test_the_encoder_knows_a_dtype_of_a_tag_from_that_of_a_parameter() -> None:
    """What it learnt of one says nothing about the other."""
    encoder, decoder = FrameEncoder(), FrameDecoder()
    text = pd.array(["a", None], dtype="string[python]")
    frame = indexed({"x": text, "TAG__x": text, "y": text})
    for _ in range(2):
        assert_same(decoder.decode(encoder.encode(frame)), frame)
    encoder.encode(indexed({"x": [1.0, 2.0]}))
    with pytest.raises(FrameError, match="float64"):
        encoder.encode(indexed({"TAG__x": [1.0, 2.0]}))


# --- rows as dicts ----------------------------------------------------------------------------------------------------


def of_rows(values: list[Any]) -> pd.Series[Any]:
    rows = [{"time": row, "x": 0} | ({} if value is ... else {"TAG__x": value}) for row, value in enumerate(values)]
    return FrameDecoder().decode(over_the_wire(FrameEncoder().encode_rows(rows)))["TAG__x"]


@pytest.mark.parametrize(
    "values", [["a", "b"], ["a", None, ..., np.nan, pd.NA, pd.NaT, "b"], [None, "a"], [np.nan, None]]
)
def test_tags_in_dicts_are_str_or_missing(values: list[Any]) -> None:
    """Of pandas' own dtype for strings, also where all are missing."""
    got = of_rows(values)
    assert repr(got.dtype) == repr(pd.Series(["a"]).dtype)
    assert got.dropna().tolist() == [value for value in values if isinstance(value, str)]
    assert got.isna().tolist() == [not isinstance(value, str) for value in values]
    if got.dtype == np.dtype(object):
        assert all(value is None or isinstance(value, str) for value in got)


def test_a_string_of_numpy_is_a_str() -> None:
    """It comes out of arrays of text."""
    assert of_rows([np.str_("a"), "b"]).tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "row", "reason"),
    [
        ([1], 0, "1 is a int"),
        (["a", None, 2.5], 2, "2.5 is a float"),
        (["a", True], 1, "True is a bool"),
        ([b"a"], 0, "b'a' is a bytes"),
        ([datetime(2026, 1, 1, tzinfo=UTC)], 0, "is a datetime"),
        (["a", ["b"]], 1, "is a list"),
        ([Gear.FIRST], 0, "is a Gear"),
    ],
)
def test_anything_else_in_a_dict_is_refused(values: list[Any], row: int, reason: str) -> None:
    """With the advice to write its text."""
    with pytest.raises(FrameError, match=rf"column 'TAG__x', row {row}: .*{reason}.*str\(value\)") as caught:
        of_rows(values)
    assert (caught.value.column, caught.value.row) == ("TAG__x", row)


# --- batches ----------------------------------------------------------------------------------------------------------


@often
@given(st.lists(texts, min_size=1, max_size=5), st.integers(0, 8))
def test_batches_with_dictionaries_of_their_own_become_one(drawn: list[list[str | None]], skipped: int) -> None:
    """Empty batches, empty dictionaries, disjoint ones, slices, and what came over the wire."""
    encoder = FrameEncoder()
    frames = [tagged(values) for values in drawn]
    batches = [encoder.encode(frame) for frame in frames]
    whole = concat([over_the_wire(batch) if place % 2 else batch for place, batch in enumerate(batches)])
    whole.validate(full=True)
    check_values(whole)
    assert_equal(FrameDecoder().decode(whole), pd.concat(frames))
    first = set(drawn[0]) - {None}
    used = {value for values in drawn for value in values if value is not None}
    for array in whole.columns[1:]:
        assert sorted(array.dictionary.to_pylist()) == sorted(used)
    rest = concat([batch.slice(skipped) for batch in batches])
    assert_equal(FrameDecoder().decode(rest), pd.concat([frame[skipped:] for frame in frames]))
    assert first <= used


def test_a_thousand_small_batches_have_one_small_dictionary() -> None:
    """A value that a thousand dictionaries have is in theirs once."""
    encoder = FrameEncoder()
    frames = [tagged([f"lap {number // 100}", None, "x"]) for number in range(1000)]
    whole = concat([encoder.encode(frame) for frame in frames])
    assert [len(array.dictionary) for array in whole.columns[1:]] == [11] * len(DTYPES)
    assert_equal(FrameDecoder().decode(whole), pd.concat(frames))


@often
@given(st.lists(st.tuples(st.booleans(), st.one_of(st.none(), st.text(max_size=2))), max_size=12), st.integers(0, 12))
def test_rows_of_tags_can_be_kept_cut_and_packed(drawn: list[tuple[bool, str | None]], skipped: int) -> None:
    """What is done to batches is what is done to frames; and sizes stay."""
    mask = np.array([kept for kept, _ in drawn], bool)
    frame = tagged([value for _, value in drawn])
    batch = FrameEncoder().encode(frame)
    assert_equal(FrameDecoder().decode(keep_rows(batch, mask)), frame[mask])
    rest = batch.slice(skipped)
    for same in (rest, compacted(rest), trimmed(rest), over_the_wire(trimmed(rest))):
        same.validate(full=True)
        check_values(same)
        assert same.schema.equals(batch.schema, check_metadata=True)
        assert_equal(FrameDecoder().decode(same), frame[skipped:])
        assert row_nbytes(same) == row_width(batch.schema) == 8 + 4 * len(DTYPES)


@often
@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_a_trimmed_slice_has_no_more_values_than_rows_that_have_one(
    drawn: list[str | None], one: int, two: int
) -> None:
    """So a single row travels with its own value only, however many its frame had."""
    start, end = sorted((one, two))
    piece = trimmed(FrameEncoder().encode(tagged(drawn)).slice(start, end - start))
    present = [value for value in drawn[start:end] if value is not None]
    for array in piece.columns[1:]:
        assert len(array.dictionary) <= len(present)
        assert set(present) <= set(array.dictionary.to_pylist())


@often
@given(st.lists(st.tuples(texts.map(lambda drawn: drawn[0] if drawn else None), st.text(max_size=9)), max_size=8))
def test_a_row_by_itself_has_its_own_tags_and_all_categories(drawn: list[tuple[str | None, str]]) -> None:
    """Which is what the largest message of one row is made of: no less than what travels beyond its fixed parts."""
    frame = tagged([tag for tag, _ in drawn])
    frame["text"] = of_object([text for _, text in drawn])
    frame["c"] = pd.Categorical([text for _, text in drawn])
    batch = FrameEncoder().encode(frame)
    sizes = np.broadcast_to(lone_nbytes(batch), batch.num_rows)
    categories = batch.column("c").dictionary.nbytes
    for row, (tag, _) in enumerate(drawn):
        assert sizes[row] == row_nbytes(batch)[row] + len(DTYPES) * (8 + len((tag or "").encode())) + categories
    plain = FrameEncoder().encode(indexed({"TAG__x": of_object([tag for tag, _ in drawn])}))
    for row, size in enumerate(np.broadcast_to(lone_nbytes(plain.slice(1)), max(len(drawn) - 1, 0))):
        assert size == 8 + 4 + 8 + len((drawn[row + 1][0] or "").encode())


def test_trimming_leaves_categories_alone() -> None:
    """They are part of a dtype; and what has nothing to trim is the same batch."""
    frame = indexed({"TAG__x": pd.Categorical(["a", "b"]), "d": pd.array(["a", "b"], dtype=pd.ArrowDtype(TAG_TYPE))})
    frame["TAG__x"] = pd.Categorical(["a", "b"], categories=[str(number) for number in range(200)] + ["a", "b"])
    frame["TAG__x"] = frame["TAG__x"].cat.set_categories([*"ab", *map(str, range(40_000))])
    batch = FrameEncoder().encode(frame)
    assert batch.schema.field("TAG__x").type.index_type == pa.int32()
    assert trimmed(batch) is batch
    assert_same(FrameDecoder().decode(over_the_wire(trimmed(batch.slice(1)))), frame[1:])


def test_the_tags_of_a_slice_do_not_keep_those_of_all_rows() -> None:
    """A few rows that wait hold a few values, not the hundred thousand of the frame that they were part of."""
    batch = FrameEncoder().encode(indexed({"TAG__x": of_object([f"value {number}" for number in range(100_000)])}))
    kept = compacted(batch.slice(5, 10))
    assert kept.get_total_buffer_size() < 1_000
    assert FrameDecoder().decode(kept)["TAG__x"].tolist() == [f"value {number}" for number in range(5, 15)]
    assert FrameDecoder().decode(batch.slice(5, 2))["TAG__x"].tolist() == ["value 5", "value 6"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([None, "a", "b", "a\0b", "a\0c"]), min_size=1, max_size=9), st.sampled_from([*DTYPES]))
def test_a_frame_can_be_split_by_a_tag(drawn: list[str | None], name: str) -> None:
    """As by any column; texts that differ behind a NUL are two."""
    values = [value or "z" for value in drawn]
    frame = indexed({"x": np.arange(len(values)), "TAG__x": tags_of(values, DTYPES[name])})
    got = split_by(frame, "TAG__x")
    assert [key for key, _ in got] == list(dict.fromkeys(values))
    for key, part in got:
        assert part["x"].tolist() == [row for row, value in enumerate(values) if value == key]


def test_tags_cut_anywhere_and_concatenated_are_the_tags() -> None:
    """The oracle of a buffer: slices of a batch, put together again."""
    frame = tagged([None if row % 5 == 0 else f"{row // 7}" for row in range(60)])
    whole = FrameEncoder().encode(frame)
    for step in (1, 7, 59):
        cuts = [*range(0, 60, step), 60]
        assert_equal(FrameDecoder().decode(concat([whole.slice(a, b - a) for a, b in pairwise(cuts)])), frame)
