"""Batches together and apart: concat, some of the rows, the bytes of a row, one frame for many streams; and memory."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from frame_cases import assert_equal, assert_same, indexed, of_object, over_the_wire, string_dtypes, there_and_back
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes.buffer import RowBuffer
from quixframes.errors import FrameError
from quixframes.frames import FrameDecoder, FrameEncoder, concat, keep_rows, row_nbytes, split_by
from quixframes.plans import Plans
from quixframes.settings import BufferSettings


def wide() -> pd.DataFrame:
    """Six rows with a column of each family."""
    texts = ["a", None, "ccc", "", "a", "bb"]
    return indexed(
        {
            "f": np.arange(6.0),
            "i": np.arange(6, dtype="i2"),
            "b": [True, False] * 3,
            "n": pd.array([1, None, 3, 4, 5, 6], dtype="Int32"),
            "bn": pd.array([True, None] * 3, dtype="boolean"),
            "at": pd.date_range("2026", periods=6, freq="h"),
            "zone": pd.date_range("2026", periods=6, freq="h", tz="UTC"),
            "td": pd.to_timedelta(range(6)),
            "o": of_object(["a", None, np.nan, pd.NA, "", "xyz"]),
            "ob": of_object([b"a", None, b"", b"ccc", b"", b""]),
            "c": pd.Categorical(texts),
            "d": pd.array(texts, dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
            "fixed": pd.array([b"ab"] * 6, dtype=pd.ArrowDtype(pa.binary(2))),
            "as": pd.array(texts, dtype=pd.ArrowDtype(pa.string())),
            "TAG__o": of_object(texts),
            "TAG__as": pd.array(texts, dtype=pd.ArrowDtype(pa.string())),
            "TAG__c": pd.Categorical(texts),
        }
        | {
            f"{prefix}{dtype}{place}": pd.array(texts, dtype=dtype)
            for place, dtype in enumerate(string_dtypes().values())
            for prefix in ("", "TAG__")
        }
    )


# --- concat ----------------------------------------------------------------------------------------------------------


def test_batches_of_other_schemas_are_not_put_together() -> None:
    """Other dtypes, other names, and the same Arrow type with another descriptor."""
    encoder = FrameEncoder()
    first = encoder.encode(indexed({"x": np.array([1], "i8")}))
    for other in ({"x": [1.0]}, {"y": np.array([1], "i8")}, {"x": pd.array([1], dtype="Int64")}):
        with pytest.raises(FrameError, match="batch 2 has another schema"):
            concat([first, first, encoder.encode(indexed(other))])


def test_nothing_is_no_batch() -> None:
    """There is no schema to give it."""
    with pytest.raises(ValueError, match="at least one"):
        concat([])


def test_schemas_are_equal_exactly_when_dtypes_are_identical() -> None:
    """Categories in another order, of another dtype, or ordered, are another schema; codes and values are not."""
    variants = [
        pd.Categorical(["a", "b"], categories=of_object(["a", "b"])),
        pd.Categorical(["a", "b"], categories=of_object(["b", "a"])),
        pd.Categorical(["a", "b"], categories=of_object(["a", "b"]), ordered=True),
        pd.Categorical(["a", "b"], categories=of_object(["a", "b", "c"])),
        pd.Categorical(["ab", "c"], categories=of_object(["ab", "c"])),
        pd.Categorical(["a", "bc"], categories=of_object(["a", "bc"])),
        pd.Categorical(["a", "b"], categories=pd.Index(["a", "b"], dtype="string[python]")),
        pd.Categorical(["a", "b"], categories=pd.Index(["a", "b"], dtype="string[pyarrow]")),
        pd.array(["a", "b"], dtype="string[python]"),
        pd.array(["a", "b"], dtype="string[pyarrow]"),
        pd.array(["a", "b"], dtype=pd.ArrowDtype(pa.large_string())),
        pd.array(["a", "b"], dtype=pd.ArrowDtype(pa.string())),
        of_object(["a", "b"]),
        of_object([b"a", b"b"]),
        pd.to_datetime(["2026", "2027"]).as_unit("s"),
        pd.to_datetime(["2026", "2027"]).as_unit("ns"),
        pd.to_datetime(["2026", "2027"]).as_unit("ns").tz_localize("UTC"),
        pd.to_datetime(["2026", "2027"]).as_unit("ns").tz_localize("Europe/Berlin"),
    ]
    schemas = [FrameEncoder().encode(indexed({"x": values})).schema for values in variants]
    again = [FrameEncoder().encode(indexed({"x": values[::-1]})).schema for values in variants]
    for row, one in enumerate(schemas):
        for column, other in enumerate(again):
            assert one.equals(other, check_metadata=True) == (row == column)


def test_dictionaries_that_together_are_too_large_are_refused() -> None:
    """An Arrow dictionary of int8 numbers 128 values; the column is named by Arrow's reason."""
    parts = [
        FrameEncoder().encode(
            indexed(
                {
                    "d": pd.array(
                        [str(word) for word in words], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))
                    )
                }
            )
        )
        for words in (range(100), range(100, 200))
    ]
    with pytest.raises(FrameError, match="larger index type"):
        concat(parts)


# --- some rows of a batch --------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([None, np.nan, pd.NA, "", "a", "NaN", "NA"])), max_size=20),
    st.integers(0, 20),
)
def test_rows_that_are_kept_are_those_of_the_frame(drawn: list[tuple[bool, Any]], skipped: int) -> None:
    """The oracle is frame[mask], kinds of missing value included; of a slice too, and sizes stay."""
    mask = np.array([kept for kept, _ in drawn], bool)
    values = [value for _, value in drawn]
    frame = indexed(
        {
            "text": of_object(values),
            "data": of_object([value.encode() if isinstance(value, str) else value for value in values]),
            "f": np.arange(len(mask), dtype="f8"),
        }
    )
    batch = FrameEncoder().encode(frame)
    assert_equal(FrameDecoder().decode(keep_rows(batch, mask)), frame[mask])
    assert_equal(
        FrameDecoder().decode(keep_rows(over_the_wire(batch).slice(skipped), mask[skipped:])),
        frame[skipped:][mask[skipped:]],
    )
    if batch.num_rows:
        assert row_nbytes(keep_rows(batch, mask)).tolist() == row_nbytes(batch)[mask].tolist()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_rows_of_every_dtype_can_be_kept(mask: list[bool]) -> None:
    """Dictionaries, decimals and the like; and of views, for which Arrow has no filter."""
    frame, kept = wide(), np.array(mask)
    frame["decimal"] = pd.array([Decimal(1), None] * 3, dtype=pd.ArrowDtype(pa.decimal128(5, 2)))
    frame["null"] = pd.array([None] * 6, dtype=pd.ArrowDtype(pa.null()))
    frame["half"] = np.arange(6, dtype="f2")
    batch = FrameEncoder().encode(frame)
    got = keep_rows(batch, kept)
    got.validate(full=True)
    assert_same(FrameDecoder().decode(got), frame[kept])
    for view in (pa.string_view(), pa.binary_view()):
        texts = pa.array(["a", None, "x" * 20, "", None, "y" * 13], pa.string()).cast(view)
        views = pa.record_batch([batch.column(0), texts], schema=pa.schema([batch.schema.field(0), ("v", view)]))
        got = keep_rows(views, kept)
        got.validate(full=True)
        assert got.column(1).to_pylist() == [text for text, keep in zip(texts.to_pylist(), mask, strict=True) if keep]


def test_the_filter_of_a_buffer_keeps_the_kind_of_each_missing_value() -> None:
    """None, NaN and NA come out as what they went in."""
    frame = indexed({"o": of_object([None, "a", np.nan, "b", pd.NA, "c"])})
    rules = BufferSettings(filter=lambda held: held["o"] != "a")
    buffer = RowBuffer(rules, FrameDecoder().decode)
    buffer.add(FrameEncoder().encode(frame), 0.0)
    released = buffer.release("flush")
    assert released is not None
    assert_same(FrameDecoder().decode(released.batch), frame.iloc[[0, 2, 3, 4, 5]])


# --- bytes of a row --------------------------------------------------------------------------------------------------


def test_rows_of_fixed_width_have_one_size() -> None:
    """Time 8, float64 8, int16 2, bool 1, the code of a category 1."""
    frame = wide()[["f", "i", "b", "c"]]
    assert row_nbytes(FrameEncoder().encode(frame)) == 8 + 8 + 2 + 1 + 1


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 6), st.integers(0, 6))
def test_the_size_of_a_row_does_not_depend_on_its_batch(one: int, two: int) -> None:
    """Sliced, encoded in pieces, sent and put together: each row has the same size."""
    start, end = sorted((one, two))
    frame = wide()
    whole = FrameEncoder().encode(frame)
    sizes = row_nbytes(whole)
    assert sizes.dtype == np.int64
    assert len(sizes) == 6
    for piece in (whole.slice(start, end - start), over_the_wire(whole.slice(start, end - start))):
        assert row_nbytes(piece).tolist() == sizes[start:end].tolist()
    assert row_nbytes(FrameEncoder().encode(frame.iloc[start:end])).tolist() == sizes[start:end].tolist()
    assert row_nbytes(concat([whole.slice(0, start), whole.slice(start)])).tolist() == sizes.tolist()


def test_longer_text_is_more_bytes() -> None:
    """A character more is a byte more."""
    sizes = row_nbytes(FrameEncoder().encode(indexed({"s": pd.array(["", "a", "abc"], dtype="string[python]")})))
    assert (sizes - sizes[0]).tolist() == [0, 1, 3]


def test_text_within_views_counts_where_it_is_outside() -> None:
    """Up to twelve bytes a view holds its text itself."""
    time = pa.array([1, 2, 3], pa.timestamp("ns", "UTC"))
    batch = pa.record_batch([time, pa.array(["a", None, "x" * 20], pa.string_view())], names=["time", "v"])
    assert row_nbytes(batch).tolist() == [24, 24, 44]
    assert row_nbytes(batch.slice(2)).tolist() == [44]


# --- one frame, many streams -----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["b", "a", "c", "\N{SNOWMAN}"]), max_size=12),
    st.sampled_from(["object", "category", "string", "own"]),
)
def test_a_split_is_a_groupby_that_does_not_sort(keys: list[str], dtype: str) -> None:
    """Streams in order of first appearance, the rows of each in their order, the key's column gone."""
    frame = indexed({"x": np.arange(len(keys)), "y": of_object(keys)})
    frame.insert(
        1, "car", pd.Series(keys, index=frame.index, dtype=pd.Series(["a"]).dtype if dtype == "own" else dtype)
    )
    groups = frame.groupby("car", sort=False, observed=True)
    want = {str(key): part.drop(columns="car") for key, part in groups}
    got = split_by(frame, "car")
    assert [key for key, _ in got] == list(dict.fromkeys(keys))
    for key, part in got:
        pd.testing.assert_frame_equal(part, want[key])


KEYS: dict[str, tuple[Any, list[str]]] = {
    "int": ([7, -1, 7], ["7", "-1"]),
    "Int64": (pd.array([7, 8, 7], dtype="Int64"), ["7", "8"]),
    "arrow": (pd.array([7, 8, 7], dtype="uint8[pyarrow]"), ["7", "8"]),
    "arrow dictionary": (
        pd.array(["a", "b", "a"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
        ["a", "b"],
    ),
    "categories of int": (pd.Categorical([2, 1, 2], categories=[1, 2, 3]), ["2", "1"]),
    "objects": (of_object(["a", 1, "a"]), ["a", "1"]),
    "one": (["a"] * 3, ["a"]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_integers_and_categoricals_are_keys_by_their_text(kind: str) -> None:
    """An unused category is no stream."""
    keys, want = KEYS[kind]
    frame = indexed({"x": [1, 2, 3], "car": keys})
    got = split_by(frame, "car")
    assert [key for key, _ in got] == want
    assert all(list(part.columns) == ["x"] for _, part in got)
    assert sum(len(part) for _, part in got) == 3


NO_KEYS: dict[str, tuple[Any, int | None, str]] = {
    "missing": (["a", None, None], 1, "key is missing"),
    "missing category": (pd.Categorical(["a", "a", None]), 2, "key is missing"),
    "missing integer": (pd.array([1, None, 2], dtype="Int64"), 1, "key is missing"),
    "empty": (["a", "b", ""], 2, "key is empty"),
    "float": ([1.0, 2.0, 1.0], 0, "float, not a string or an integer"),
    "categories of float": (pd.Categorical([1.5, 1.5, 2.5]), 0, "float, not"),
    "bool": ([True, False, True], 0, "bool, not"),
    "datetime": (pd.to_datetime(["2026"] * 3), 0, "Timestamp, not"),
    "objects, a float": (of_object(["a", 1, 1.0]), 2, "float, not"),
    "the same text": (of_object([1, "a", "1"]), 2, "the keys 1 and '1' have the same text"),
    "lists": (of_object(["a", [1], "b"]), 1, "list, not"),
}


@pytest.mark.parametrize("kind", NO_KEYS)
def test_what_names_no_stream_is_refused(kind: str) -> None:
    """With the row: rows are never dropped."""
    keys, row, message = NO_KEYS[kind]
    with pytest.raises(FrameError, match=message) as caught:
        split_by(indexed({"x": [1, 2, 3], "car": keys}), "car")
    assert (caught.value.column, caught.value.row) == ("car", row)


def test_a_column_that_is_not_there_or_twice_is_no_key() -> None:
    """An error of ours, not a KeyError."""
    frame = indexed({"x": [1], "car": ["a"]})
    with pytest.raises(FrameError, match="no such column"):
        split_by(frame, "stream")
    with pytest.raises(FrameError, match="two columns"):
        split_by(frame.set_axis(["car", "car"], axis=1), "car")


def test_no_rows_are_no_streams() -> None:
    """An empty frame is nothing to write."""
    assert split_by(indexed({"x": [], "car": []}), "car") == []


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [["f"], list(wide().columns)])
def test_what_is_encoded_stays_when_the_frame_changes(columns: list[str]) -> None:
    """A batch may wait in a buffer while its writer goes on with the frame."""
    frame = wide()[columns]
    kept = there_and_back(frame)
    arrays = [frame[name].array for name in columns]
    batch = FrameEncoder().encode(frame)
    for array in arrays:
        if isinstance(array, pd.arrays.NumpyExtensionArray):
            numpy = array.to_numpy()
            numpy.flags.writeable = True
            numpy[:] = numpy[::-1].copy()
        else:
            array[:] = array[::-1].copy()
    assert_same(FrameDecoder().decode(batch), kept)


@pytest.mark.parametrize("columns", [["f"], ["i", "f"], list(wide().columns)])
def test_what_is_decoded_can_be_written_to(columns: list[str]) -> None:
    """In place, by label, by position, column by column; and the batch does not change with it."""
    batch = over_the_wire(FrameEncoder().encode(wide()[columns]))
    frame = FrameDecoder().decode(batch)
    for place, name in enumerate(columns):
        value = frame[name].iloc[0]
        frame.iloc[1, place] = value
        frame.loc[frame.index[2], name] = value
        assert frame[name].iloc[1] == value
    frame["f"] *= 2
    frame.iloc[0, columns.index("f")] = -1.0
    frame["f"].to_numpy().sum()
    assert frame["f"].iloc[0] == -1.0
    assert_same(FrameDecoder().decode(batch), wide()[columns])


def test_a_frame_does_not_keep_the_message_alive() -> None:
    """A short text column of a message with a megabyte beside it holds its own bytes only."""
    frame = indexed({"s": pd.array(["a"] * 100, dtype="string[pyarrow]"), "big": of_object([b"x" * 10_000] * 100)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, FrameEncoder().encode(frame).schema) as writer:
        writer.write_batch(FrameEncoder().encode(frame))
    message = sink.getvalue().to_pybytes()
    del sink
    before = pa.total_allocated_bytes()
    got = FrameDecoder().decode(pa.ipc.open_stream(message).read_next_batch())["s"]
    array = pa.array(got.array)
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    buffers = [buffer for chunk in chunks for buffer in chunk.buffers() if buffer is not None]
    assert all(buffer.parent is None or buffer.parent.size < 10_000 for buffer in buffers)
    assert pa.total_allocated_bytes() - before < 100_000


def test_an_encoder_and_a_decoder_keep_a_bounded_number_of_plans() -> None:
    """A writer of ever new columns does not grow."""
    encoder, decoder = FrameEncoder(), FrameDecoder()
    for number in range(300):
        frame = indexed({f"x{number}": pd.Categorical([str(number)])})
        assert_same(decoder.decode(encoder.encode(frame)), frame) if number % 50 == 0 else decoder.decode(
            encoder.encode(frame)
        )
    caches = [*vars(encoder).values(), *vars(decoder).values()]
    assert max(len(cache) for cache in caches if isinstance(cache, dict | Plans)) <= 256
