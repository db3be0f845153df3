"""Schemas and batches that nobody of ours wrote: refused with a FrameError, or decoded; never anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from frame_cases import indexed, of_object
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes.errors import FrameError
from quixframes.frames import FrameDecoder, FrameEncoder, check_supported, check_values, concat, row_nbytes

TIME = pa.field("time", pa.timestamp("ns", "UTC"), nullable=False)


def described(arrow: pa.DataType, descriptor: bytes, **more: Any) -> pa.Schema:
    return pa.schema([TIME, pa.field("x", arrow, metadata={b"pandas": descriptor}, **more)])


def bad_name() -> pa.Schema:
    """A schema whose column's name is not UTF-8, as only raw bytes can say it."""
    raw = pa.schema([TIME, pa.field("QQQQ", pa.int8())]).serialize().to_pybytes()
    return pa.ipc.read_schema(pa.py_buffer(raw.replace(b"QQQQ", b"\xff\xfe\xff\xfe")))


dictionary = pa.dictionary(pa.int8(), pa.large_string())
SCHEMAS: dict[str, Any] = {
    "empty": lambda: pa.schema([]),
    "no time": lambda: pa.schema([pa.field("x", pa.int8())]),
    "time second": lambda: pa.schema([pa.field("x", pa.int8()), TIME]),
    "time nullable": lambda: pa.schema([pa.field("time", pa.timestamp("ns", "UTC"))]),
    "time in us": lambda: pa.schema([pa.field("time", pa.timestamp("us", "UTC"), nullable=False)]),
    "time naive": lambda: pa.schema([pa.field("time", pa.timestamp("ns"), nullable=False)]),
    "time zoned": lambda: pa.schema([pa.field("time", pa.timestamp("ns", "Asia/Tokyo"), nullable=False)]),
    "time described": lambda: pa.schema([TIME.with_metadata({b"pandas": b"numpy"})]),
    "two times": lambda: pa.schema([TIME, TIME]),
    "names twice": lambda: pa.schema([TIME, pa.field("x", pa.int8()), pa.field("x", pa.int16())]),
    "name not UTF-8": bad_name,
    "metadata": lambda: pa.schema([TIME], metadata={b"pandas": b"{}"}),
    "field metadata": lambda: pa.schema([TIME, pa.field("x", pa.int8(), metadata={b"k": b"v"})]),
    "more field metadata": lambda: pa.schema(
        [TIME, pa.field("x", pa.int8(), metadata={b"pandas": b"numpy", b"k": b"v"})]
    ),
    "extension by name": lambda: pa.schema([TIME, pa.field("x", pa.int8(), metadata={b"ARROW:extension:name": b"a"})]),
    "unknown descriptor": lambda: described(pa.int8(), b"polars"),
    "descriptor not text": lambda: described(pa.int8(), b"\xff\x00"),
    "empty descriptor": lambda: described(pa.int8(), b""),
    "long descriptor": lambda: described(pa.int8(), b"n" * 10**6),
    "numpy text": lambda: described(pa.string(), b"numpy"),
    "numpy decimal": lambda: described(pa.decimal128(3, 1), b"numpy"),
    "numpy zone": lambda: described(pa.timestamp("ns", "UTC"), b"numpy"),
    "nullable float16": lambda: described(pa.float16(), b"nullable"),
    "nullable timestamp": lambda: described(pa.timestamp("s"), b"nullable"),
    "short string": lambda: described(pa.string(), b"string[python]"),
    "string of bytes": lambda: described(pa.large_binary(), b"str[pyarrow]"),
    "object of int": lambda: described(pa.int64(), b"object[str]"),
    "object kinds crossed": lambda: described(pa.large_binary(), b"object[str]"),
    "zone on int": lambda: described(pa.int64(), b"zoneinfo"),
    "zone on naive": lambda: described(pa.timestamp("s"), b"zoneinfo"),
    "zone unknown": lambda: described(pa.timestamp("s", "Mars/Olympus"), b"zoneinfo"),
    "zone a path": lambda: described(pa.timestamp("s", "../../../../etc/passwd"), b"zoneinfo"),
    "zone absolute": lambda: described(pa.timestamp("s", "/etc/passwd"), b"zoneinfo"),
    "zone a folder": lambda: described(pa.timestamp("s", "Europe"), b"zoneinfo"),
    "zone with NUL": lambda: described(pa.timestamp("s", "a\0b"), b"zoneinfo"),
    "zone for pytz": lambda: described(pa.timestamp("s", "\N{SNOWMAN}"), b"pytz"),
    "offset of days": lambda: described(pa.timestamp("s", "+99:99"), b"timezone"),
    "offset no offset": lambda: described(pa.timestamp("s", "Europe/Berlin"), b"timezone"),
    "arrow zone": lambda: pa.schema([TIME, pa.field("x", pa.timestamp("s", "nowhere"))]),
    "category short": lambda: described(dictionary, b"category:00:object[str]"),
    "category upper": lambda: described(dictionary, b"category:00000000000000AA:object[str]"),
    "category of category": lambda: described(dictionary, b"category:0123456789abcdef:category:0123456789abcdef:numpy"),
    "category no dictionary": lambda: described(pa.large_string(), b"category:0123456789abcdef:object[str]"),
    "category type crossed": lambda: described(dictionary, b"category:0123456789abcdef:numpy"),
    "category unsigned": lambda: described(
        pa.dictionary(pa.uint8(), pa.large_string()), b"category:0123456789abcdef:object[str]"
    ),
    "category float16": lambda: described(pa.dictionary(pa.int8(), pa.float16()), b"category:0123456789abcdef:numpy"),
    "category nested": lambda: described(pa.dictionary(pa.int8(), pa.list_(pa.int8())), b"category:0123456789abcdef:"),
    "tag no dictionary": lambda: described(pa.large_string(), b"tag:string[python]"),
    "tag of another index": lambda: described(dictionary, b"tag:string[python]"),
    "tag of short strings": lambda: described(pa.dictionary(pa.int32(), pa.string()), b"tag:string"),
    "tag of binary": lambda: described(pa.dictionary(pa.int32(), pa.large_binary()), b"tag:object[str]"),
    "tag ordered": lambda: described(pa.dictionary(pa.int32(), pa.large_string(), ordered=True), b"tag:object[str]"),
    "tag of bytes": lambda: described(pa.dictionary(pa.int32(), pa.large_string()), b"tag:object[bytes]"),
    "tag of nothing": lambda: described(pa.dictionary(pa.int32(), pa.large_string()), b"tag:"),
    "tag of a tag": lambda: described(pa.dictionary(pa.int32(), pa.large_string()), b"tag:tag:object[str]"),
    "category of tags": lambda: described(dictionary, b"category:0123456789abcdef:tag:object[str]"),
    "run ends": lambda: pa.schema([TIME, pa.field("x", pa.run_end_encoded(pa.int32(), pa.int8()))]),
    "union": lambda: pa.schema([TIME, pa.field("x", pa.sparse_union([pa.field("a", pa.int8())]))]),
    "list": lambda: pa.schema([TIME, pa.field("x", pa.list_(pa.int8()))]),
    "map": lambda: pa.schema([TIME, pa.field("x", pa.map_(pa.string(), pa.int8()))]),
    "struct": lambda: pa.schema([TIME, pa.field("x", pa.struct([("a", pa.int8())]))]),
    "interval": lambda: pa.schema([TIME, pa.field("x", pa.month_day_nano_interval())]),
    "extension": lambda: pa.schema([TIME, pa.field("x", pa.uuid())]),
    "dictionary of dictionary": lambda: pa.schema([TIME, pa.field("x", pa.dictionary(pa.int8(), dictionary))]),
    "dictionary of structs": lambda: pa.schema([TIME, pa.field("x", pa.dictionary(pa.int8(), pa.struct([])))]),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_a_schema_that_is_not_understood_is_refused(case: str) -> None:
    """By the check, and by a decoder that was handed it unchecked."""
    schema = SCHEMAS[case]()
    with pytest.raises(FrameError):
        check_supported(schema)
    try:
        batch = pa.RecordBatch.from_pylist([], schema=schema)
    except (pa.ArrowNotImplementedError, UnicodeDecodeError):  # Arrow itself cannot make one
        return
    with pytest.raises(FrameError):
        FrameDecoder().decode(batch)


FOREIGN = [
    *(pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(5, 2), pa.null()),
    *(pa.string(), pa.large_string(), pa.binary(), pa.binary(3), pa.duration("us")),
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time64("ns"), pa.timestamp("ms"), pa.timestamp("ns", "UTC")),
    *(pa.timestamp("s", "Europe/Berlin"), pa.timestamp("s", "+01:00")),
    *(pa.dictionary(pa.int16(), pa.string()), pa.dictionary(pa.uint8(), pa.float64())),
]


@pytest.mark.parametrize("arrow", FOREIGN, ids=str)
def test_a_column_without_a_descriptor_has_the_arrow_dtype_of_its_type(arrow: pa.DataType) -> None:
    """So are the columns of a writer in another language."""
    schema = pa.schema([TIME, pa.field("x", arrow)])
    batch = pa.record_batch([pa.array([2, 1], TIME.type), pa.nulls(2, arrow)], schema=schema)
    check_supported(schema)
    check_values(batch)
    frame = FrameDecoder().decode(batch)
    assert frame["x"].dtype == pd.ArrowDtype(arrow)
    assert frame["x"].isna().all()
    assert FrameEncoder().encode(frame).schema.equals(schema, check_metadata=True)


@pytest.mark.parametrize("arrow", [pa.string_view(), pa.binary_view()], ids=str)
def test_views_are_carried_though_pandas_can_do_little_with_them(arrow: pa.DataType) -> None:
    """pandas 3.1 can hold such a column, and not even print it."""
    schema = pa.schema([TIME, pa.field("x", arrow)])
    texts = pa.array(["a", None, "x" * 20], pa.string()).cast(arrow)
    batch = pa.record_batch([pa.array([2, 1, 3], TIME.type), texts], schema=schema)
    check_supported(schema)
    batch.validate(full=True)
    check_values(batch)
    again = FrameEncoder().encode(FrameDecoder().decode(batch))
    assert again.equals(batch, check_metadata=True)
    assert concat([again.slice(0, 1), again.slice(1)]).equals(batch, check_metadata=True)


@pytest.mark.parametrize(
    ("arrow", "descriptor"),
    [(pa.timestamp("s"), b"numpy"), (pa.duration("s"), b"numpy"), (pa.timestamp("s", "Europe/Berlin"), b"zoneinfo")],
    ids=str,
)
def test_a_null_is_missing_whatever_is_under_it(arrow: pa.DataType, descriptor: bytes) -> None:
    """Another writer may leave anything there; ours leaves what pandas reads as NaT."""
    under = pa.array([1, 2], pa.int64())
    array = pa.Array.from_buffers(arrow, 2, [pa.py_buffer(b"\x01"), under.buffers()[1]])
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2], TIME.type), array], schema=described(arrow, descriptor))
    check_supported(batch.schema)
    check_values(batch)
    assert FrameDecoder().decode(batch)["x"].isna().tolist() == [False, True]


def test_times_that_are_missing_are_found() -> None:
    """A null, which Arrow's validation lets pass, and the integer that pandas reads as NaT."""
    for values in (pa.array([1, None], TIME.type), pa.array([1, -(2**63)], pa.int64()).view(TIME.type)):
        batch = pa.RecordBatch.from_arrays([values], schema=pa.schema([TIME]))
        batch.validate(full=True)
        with pytest.raises(FrameError, match="time") as caught:
            check_values(batch)
        assert caught.value.column == "time"


@pytest.mark.parametrize("arrow", [pa.int64(), pa.float16(), pa.bool_()], ids=str)
def test_nulls_in_numbers_of_numpy_are_found(arrow: pa.DataType) -> None:
    """There is no value that they could be; the decoder does not make one up either."""
    schema = described(arrow, b"numpy")
    batch = pa.RecordBatch.from_arrays([pa.array([1], TIME.type), pa.nulls(1, arrow)], schema=schema)
    check_supported(schema)
    with pytest.raises(FrameError, match="nulls"):
        check_values(batch)
    with pytest.raises(FrameError, match="nulls"):
        FrameDecoder().decode(batch)


@pytest.mark.parametrize("categories", [["a", "c"], ["b", "a"], ["a", "a"], ["a", None], ["a"], []])
def test_other_categories_than_the_digest_says_are_found(categories: list[Any]) -> None:
    """In another order, twice, missing, fewer: the check finds them, and a decoder does not crash on them."""
    good = FrameEncoder().encode(indexed({"x": pd.Categorical(["a"], categories=of_object(["a", "b"]))}))
    check_values(good)
    values = pa.array(categories, pa.large_string())
    codes = pa.array([0 if categories else None], pa.int8())
    array = pa.DictionaryArray.from_arrays(codes, values)
    bad = pa.RecordBatch.from_arrays([good.column(0), array], schema=good.schema)
    bad.validate(full=True)
    with pytest.raises(FrameError, match="categories|null among"):
        check_values(bad)
    decoder = FrameDecoder()
    for batches in ([good], [bad], [good], [good, bad]):
        try:
            decoder.decode(concat(batches))
        except FrameError:
            assert batches != [good]


def test_a_null_in_a_dictionary_is_written_as_a_null_of_the_column() -> None:
    """Arrow cannot unify dictionaries that hold one, so that a reader could not put two batches together."""
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["a", None]))
    frame = indexed({"d": pd.ArrowDtype(array.type).__from_arrow__(array)})
    batch = FrameEncoder().encode(frame)
    check_values(batch)
    assert batch.column(1).type == array.type
    assert concat([batch, batch]).column(1).to_pylist() == ["a", None, None] * 2
    with pytest.raises(FrameError, match="null among the values"):
        check_values(pa.RecordBatch.from_arrays([batch.column(0), array], schema=batch.schema))


def everything() -> bytes:
    frame = indexed(
        {
            "f": [1.0, np.nan, 3.0],
            "i": pd.array([1, None, 3], dtype="Int16"),
            "b": [True, False, True],
            "s": pd.array(["a", None, "cc"], dtype="string[python]"),
            "o": of_object(["a", np.nan, pd.NA]),
            "y": of_object([b"a", b"", None]),
            "c": pd.Categorical(["a", None, "b"]),
            "t": pd.to_datetime(["2026", None, "2027"]).tz_localize("Europe/Berlin"),
            "d": pd.array(["x", "y", None], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
            "n": pd.array([1, None, 3], dtype="int64[pyarrow]"),
            "TAG__s": pd.array(["x", "y", None], dtype="string[python]"),
            "TAG__a": pd.array(["x", "y", None], dtype="string[pyarrow]"),
            "TAG__o": of_object(["x", None, "x"]),
        }
    )
    sink = pa.BufferOutputStream()
    batch = FrameEncoder().encode(frame)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


MESSAGE = everything()
SCHEMA_END = MESSAGE.index(b"\xff\xff\xff\xff", 8)


@settings(max_examples=2000, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(MESSAGE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_mutated_message_decodes_or_is_refused(changes: list[tuple[int, int]]) -> None:
    """After the schema's check, Arrow's full validation and the values' check, decoding never fails."""
    message = bytearray(MESSAGE)
    for place, byte in changes:
        message[place] = byte
    try:
        batch = pa.ipc.open_stream(bytes(message)).read_next_batch()
        check_supported(batch.schema)
        batch.validate(full=True)
        check_values(batch)
    except (FrameError, pa.ArrowException, OSError, StopIteration, ValueError):
        return  # what Arrow itself refuses is the wire decoder's matter
    frame = FrameDecoder().decode(batch)
    assert len(frame) == batch.num_rows
    row_nbytes(batch)
    FrameDecoder().decode(concat([batch, batch]))
