"""Default tags: names and values that can be, rows that have none, and what stays as it is."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quixframes.errors import FrameError, SettingsError
from quixframes.frames import FrameDecoder, FrameEncoder, check_supported, check_values
from quixframes.tags import DefaultTags, checked_tags

TEXT = pd.Series(["a"]).dtype
TAG_TYPE = pa.dictionary(pa.int32(), pa.large_string())
texts = st.lists(st.one_of(st.none(), st.sampled_from("ab"), st.text(max_size=4)), max_size=8)


def framed(**columns: Any) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    index = pd.DatetimeIndex(np.arange(rows).view("M8[ns]"), name="time").tz_localize("UTC")
    series = {name: pd.Series(values, index, getattr(values, "dtype", None)) for name, values in columns.items()}
    return pd.DataFrame(series, index)


def of_object(values: list[Any]) -> Any:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def dtypes() -> dict[str, Any]:
    """Every kind of strings that a tag may be."""
    make: Any = pd.StringDtype
    found = {
        "string[python]": make("python"),
        "string[pyarrow]": make("pyarrow"),
        "object": np.dtype(object),
        "own": TEXT,
    }
    return found | {str(arrow): pd.ArrowDtype(arrow) for arrow in (pa.string(), pa.large_string())}


def with_tags(frame: pd.DataFrame, tags: dict[str, str]) -> pd.DataFrame:
    """The frame with default tags, by the way that rows take."""
    batch = DefaultTags(tags).add(FrameEncoder().encode(frame))
    check_supported(batch.schema)
    batch.validate(full=True)
    check_values(batch)
    return FrameDecoder().decode(batch)


# --- names and values -------------------------------------------------------------------------------------------------


class Gear(str, Enum):  # noqa: UP042 (a StrEnum's is)
    """A str whose text is not what str() gives."""

    FIRST = "1"


def test_names_may_begin_as_columns_do_and_texts_become_plain_str() -> None:
    """``TAG__`` is stripped once; the order stays."""
    got = checked_tags({"TAG__lap": "12", "driver": np.str_("Ann"), "tag__x": "", "gear": Gear.FIRST})
    assert list(got.items()) == [("lap", "12"), ("driver", "Ann"), ("tag__x", ""), ("gear", "1")]
    assert {type(text) for item in got.items() for text in item} == {str}


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"lap": 12}, r"the value of the tag 'lap' has to be text: write str\(value\) instead of 12 \(int\)"),
        ({"lap": 1.5}, r"instead of 1.5 \(float\)"),
        ({"lap": True}, r"instead of True \(bool\)"),
        ({"lap": None}, r"instead of None \(NoneType\)"),
        ({"lap": b"12"}, r"instead of b'12' \(bytes\)"),
        ({12: "lap"}, r"the name of a tag has to be text: write str\(value\) instead of 12 \(int\)"),
        ({"": "x"}, "the name of a tag cannot be empty"),
        ({"TAG__": "x"}, "cannot be empty, as it is in 'TAG__'"),
        ({"lap": "1", "TAG__lap": "2"}, "the tag 'lap' is there twice"),
        ({"lap": "\ud800"}, "the value of the tag 'lap'.* lone surrogate"),
        ({"\ud800": "lap"}, "lone surrogate"),
        ([("lap", "12")], "given as a mapping"),
        (None, "given as a mapping"),
    ],
)
def test_tags_that_cannot_be_are_refused(tags: Any, message: str) -> None:
    """As settings are."""
    with pytest.raises(SettingsError, match=message):
        checked_tags(tags)
    with pytest.raises(SettingsError, match=message):
        DefaultTags(tags)


# --- columns that are not there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 3, 10_000])
def test_a_tag_that_is_not_there_is_added_for_every_row(rows: int) -> None:
    """Behind the other columns, in the order of the mapping, of pandas' own dtype for strings."""
    frame = framed(speed=np.arange(float(rows)), lap=np.arange(rows))
    got = with_tags(frame, {"lap": "12", "TAG__driver": "Ann"})
    want = frame.assign(TAG__lap=pd.Series("12", frame.index, TEXT), TAG__driver=pd.Series("Ann", frame.index, TEXT))
    pd.testing.assert_frame_equal(got, want, check_exact=True, check_freq=False)
    assert list(got) == ["speed", "lap", "TAG__lap", "TAG__driver"]


def test_what_is_added_is_what_the_same_column_would_be() -> None:
    """So that rows with the tag and rows without have one schema, and wait in one buffer."""
    frame = framed(x=[1.0, 2.0])
    added = DefaultTags({"lap": "12"}).add(FrameEncoder().encode(frame))
    assert added.equals(FrameEncoder().encode(frame.assign(TAG__lap=["12", "12"])), check_metadata=True)


def test_nothing_is_added_where_there_are_no_default_tags() -> None:
    """The batch is the one that was given."""
    batch = FrameEncoder().encode(framed(x=[1.0]))
    assert DefaultTags({}).add(batch) is batch


def test_the_batch_that_was_given_stays_as_it_is() -> None:
    """Another may hold it."""
    frame = framed(x=[1.0, 2.0], TAG__lap=of_object(["1", None]))
    batch = FrameEncoder().encode(frame)
    DefaultTags({"lap": "12", "driver": "Ann"}).add(batch)
    pd.testing.assert_frame_equal(FrameDecoder().decode(batch), frame, check_exact=True, check_freq=False)


# --- columns that are there -------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(texts, st.one_of(st.sampled_from("ab"), st.text(max_size=4)), st.integers(0, 8))
@example([None], "\0", 0)
def test_a_row_has_its_own_tag_or_the_default(drawn: list[str | None], default: str, skipped: int) -> None:
    """For every kind of strings, and for a slice of a batch. pandas' fillna is no oracle: it makes "" of "\\0"."""
    frame = framed(
        **{
            f"TAG__{name}": of_object(drawn) if dtype == np.dtype(object) else pd.array(drawn, dtype=dtype)
            for name, dtype in dtypes().items()
        }
    )
    defaults = DefaultTags(dict.fromkeys(dtypes(), default))
    batch = FrameEncoder().encode(frame)
    for start in (0, skipped):
        got = defaults.add(batch.slice(start))
        got.validate(full=True)
        assert got.schema.equals(batch.schema, check_metadata=True)
        want = frame[start:].astype(object)
        for name in want:
            want[name] = of_object([default if text is None else text for text in drawn[start:]])
        pd.testing.assert_frame_equal(FrameDecoder().decode(got), want.astype(frame.dtypes), check_exact=True)


@pytest.mark.parametrize("missing", [np.nan, pd.NA])
def test_objects_with_any_kind_of_missing_value_are_filled(missing: Any) -> None:
    """They were no dictionary, and are one now: nothing is missing any more."""
    frame = framed(TAG__lap=of_object(["1", missing, None, "12", missing]))
    batch = FrameEncoder().encode(frame)
    got = DefaultTags({"lap": "12"}).add(batch)
    check_values(got)
    assert got.schema.field("TAG__lap").type == TAG_TYPE
    assert got.column(1).dictionary.to_pylist() == ["1", "12"]
    decoded = FrameDecoder().decode(got)["TAG__lap"]
    assert decoded.dtype == np.dtype(object)
    assert decoded.tolist() == ["1", "12", "12", "12", "12"]
    again = DefaultTags({"lap": "12"}).add(batch.slice(0, 1))  # its schema does not hang on what is missing where
    assert again.schema.equals(got.schema, check_metadata=True)


CATEGORIES: dict[str, tuple[Any, list[str]]] = {
    "has the default": (
        pd.Categorical(["b", None, "12"], categories=pd.Index(["b", "12", "a"], dtype=object)),
        ["b", "12", "a"],
    ),
    "gains it": (
        pd.Categorical(["b", None, "a"], categories=pd.Index(["b", "a"], dtype=object), ordered=True),
        ["b", "a", "12"],
    ),
    "of string": (pd.Categorical(["b", None], categories=pd.Index(["b"], dtype="string[pyarrow]")), ["b", "12"]),
    "of arrow": (pd.Categorical(["b", None], categories=pd.Index(pd.array(["b"], "string[pyarrow]"))), ["b", "12"]),
    "needs none": (pd.Categorical(["b", "a"], categories=pd.Index(["b", "a"], dtype=object)), ["b", "a"]),
    "is empty": (pd.Categorical([None, None], categories=pd.Index([], dtype=object)), ["12"]),
}


@pytest.mark.parametrize("case", CATEGORIES)
def test_a_categorical_gains_the_default_as_its_last_category_where_a_row_needs_it(case: str) -> None:
    """It stays a categorical, of the same kind of strings, ordered or not."""
    values, categories = CATEGORIES[case]
    got = with_tags(framed(TAG__lap=values), {"lap": "12"})["TAG__lap"]
    assert got.tolist() == ["12" if pd.isna(value) else value for value in values]
    assert got.cat.categories.tolist() == categories
    assert repr(got.cat.categories.dtype) == repr(values.categories.dtype)
    assert got.cat.ordered == values.ordered


def test_an_arrow_dictionary_of_strings_is_filled() -> None:
    """Its type stays; where that numbers too few values, the column is named."""
    arrow = pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))
    got = with_tags(framed(TAG__lap=pd.array(["1", None, "2"], dtype=arrow)), {"lap": "12"})["TAG__lap"]
    assert got.dtype == arrow
    assert got.tolist() == ["1", "12", "2"]
    full = framed(TAG__lap=pd.array([*map(str, range(128)), None], dtype=arrow))
    with pytest.raises(FrameError, match="'x' does not fit into its dictionary.*larger index") as caught:
        with_tags(full, {"lap": "x"})
    assert caught.value.column == "TAG__lap"


def test_a_column_that_holds_no_text_is_refused() -> None:
    """Our encoders write none, so it came from elsewhere."""
    time = pa.field("time", pa.timestamp("ns", "UTC"), nullable=False)
    batch = pa.record_batch(
        [pa.array([1], time.type), pa.array([5])], schema=pa.schema([time, ("TAG__lap", pa.int64())])
    )
    with pytest.raises(FrameError, match="column 'TAG__lap': its Arrow type is int64") as caught:
        DefaultTags({"lap": "12"}).add(batch)
    assert caught.value.column == "TAG__lap"


def test_one_object_serves_batches_of_many_schemas() -> None:
    """What it learnt of one schema is not used for another that Arrow holds for equal, and it does not grow."""
    defaults, encoder, decoder = DefaultTags({"lap": "12"}), FrameEncoder(), FrameDecoder()
    for dtype in ("int8", "Int8", "int8"):
        frame = framed(x=pd.array([1, 2], dtype=dtype), TAG__lap=pd.array(["1", None], dtype="string[python]"))
        got = decoder.decode(defaults.add(encoder.encode(frame)))
        assert got["x"].dtype == dtype
        assert got["TAG__lap"].tolist() == ["1", "12"]
    for number in range(600):
        defaults.add(encoder.encode(framed(**{f"x{number}": [1.0]})))
    assert max(len(kept) for kept in vars(defaults).values() if isinstance(kept, dict)) <= 256
