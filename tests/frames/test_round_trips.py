"""Property tests: every dtype comes back to the bit, through Arrow IPC, whole and in pieces (promise 2).

Each example fills a column of every dtype of a family, so that the number of examples holds for each dtype.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from frame_cases import (
    BITS,
    NUMBERS,
    TIMES,
    UNITS,
    assert_equal,
    assert_same,
    assert_travels,
    bits,
    indexed,
    of_object,
    string_dtypes,
    there_and_back,
    zones,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quixframes.frames import FrameDecoder, FrameEncoder, concat

often = settings(max_examples=500, deadline=None)
numbers = st.lists(BITS, max_size=8)
with_missing = st.lists(st.tuples(BITS, st.booleans()), max_size=8)
texts = st.lists(st.one_of(st.none(), st.text(max_size=6)), max_size=8)


@often
@given(numbers)
def test_numbers_and_booleans_of_numpy_keep_every_bit(drawn: list[int]) -> None:
    """NaN payloads, -0.0 and infinities included, in float16, 32 and 64, all integers and bool."""
    assert_travels(indexed({dtype: bits(drawn, dtype) for dtype in (*NUMBERS, "bool")}))


@pytest.mark.parametrize("dtype", NUMBERS)
@settings(max_examples=50, deadline=None)
@given(st.lists(BITS, max_size=6))
def test_a_frame_of_one_dtype_keeps_every_bit(dtype: str, drawn: list[int]) -> None:
    """Such a frame is copied as one block, on another path than a mixed one."""
    assert_travels(indexed({"a": bits(drawn, dtype), "b": bits(drawn[::-1], dtype), "c": bits(drawn, dtype)}))


@settings(max_examples=40, deadline=None)
@given(st.lists(BITS, max_size=6), st.permutations(["f8"] * 8 + ["i2"] * 6 + ["M8[ns]"]), st.integers(0, 15))
def test_columns_of_one_dtype_side_by_side_stay_in_their_order(drawn: list[int], dtypes: list[str], at: int) -> None:
    """Runs of a dtype are copied as blocks, wherever they begin, and wherever the time stands."""
    for order in (dtypes, sorted(dtypes)):
        columns = {f"{place}": bits([number ^ place for number in drawn], dtype) for place, dtype in enumerate(order)}
        frame = indexed(columns)
        assert_travels(frame)
        beside = frame.reset_index()
        beside.insert(at, "time", beside.pop("time"))
        assert_equal(there_and_back(beside), frame)


@often
@given(with_missing)
def test_nullable_columns_tell_missing_from_nan(drawn: list[tuple[int, bool]]) -> None:
    """Int8 to UInt64, boolean, Float32 and Float64: NA stays NA, and NaN stays a value with its bits."""
    numbers, missing = [number for number, _ in drawn], np.array([gone for _, gone in drawn], bool)
    columns: dict[str, Any] = {"boolean": pd.arrays.BooleanArray(bits(numbers, "bool"), missing)}
    for dtype in NUMBERS:
        if dtype != "float16":
            array: Any = pd.arrays.FloatingArray if dtype.startswith("float") else pd.arrays.IntegerArray
            columns[dtype] = array(bits(numbers, dtype), missing.copy())
    assert_travels(indexed(columns))


@often
@given(numbers)
def test_datetimes_and_timedeltas_keep_their_unit(drawn: list[int]) -> None:
    """Naive datetime64 and timedelta64 of each unit, with NaT, over the whole range of the unit."""
    assert_travels(
        indexed({f"{kind}[{unit}]": bits(drawn, f"{kind}[{unit}]") for kind in ("M8", "m8") for unit in UNITS})
    )


@often
@given(st.lists(st.one_of(st.integers(-(2**31), 2**31), st.just(-(2**63))), max_size=6), st.integers(0, 3))
def test_datetimes_keep_their_zone(drawn: list[int], shift: int) -> None:
    """Zones of zoneinfo, pytz and datetime, UTC of each, and fixed offsets, in each unit; the zone's type too."""
    columns = {}
    for place, (name, zone) in enumerate(zones().items()):
        naive = pd.DatetimeIndex(np.array(drawn, f"M8[{UNITS[(place + shift) % 4]}]"))
        columns[name] = naive.tz_localize("UTC").tz_convert(zone)
    assert_travels(indexed(columns))


@often
@given(texts)
@example(["", None, "\0", "\N{SNOWMAN}", "NaN", "None", "<NA>"])
def test_strings_keep_their_backend(drawn: list[str | None]) -> None:
    """Every StringDtype of this pandas: storage and the kind of its missing value."""
    assert_travels(indexed({name: pd.array(drawn, dtype=dtype) for name, dtype in string_dtypes().items()}))


@often
@given(st.lists(st.one_of(st.sampled_from([None, np.nan, pd.NA]), st.text(max_size=4)), max_size=8))
@example([None, np.nan, pd.NA, "", "NaN", "NA"])
def test_object_columns_of_strings_keep_the_kind_of_each_missing_value(drawn: list[Any]) -> None:
    """None, NaN and NA stay what they are, even side by side; and their schema does not depend on which occur."""
    frame = indexed({"text": of_object(drawn)})
    assert_travels(frame)


@often
@given(st.lists(st.one_of(st.sampled_from([None, np.nan, pd.NA]), st.binary(max_size=4)), max_size=8))
@example([None, np.nan, pd.NA, b"", b"\xff\xfe", b"NaN"])
def test_object_columns_of_bytes_keep_the_kind_of_each_missing_value(drawn: list[Any]) -> None:
    """Bytes that are no UTF-8 too. A piece in which all values are missing counts as strings, so schemas may differ."""
    assert_travels(indexed({"data": of_object(drawn)}), one_schema=False)


CATEGORIES = {
    "object": st.text(max_size=3).map(str),
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False).map(lambda value: value + 0.0),
    "bool": st.booleans(),
    "datetime": TIMES,
}


def _categories(kind: str, values: list[Any]) -> list[pd.Index[Any]]:
    """Indexes of these values in each dtype that categories of that kind may have."""
    if kind == "object":
        return [
            pd.Index(values, dtype=object),
            *(pd.Index(values, dtype=dtype) for dtype in string_dtypes().values()),
            pd.Index(pd.array(values, dtype=pd.ArrowDtype(pa.string()))),
        ]
    if kind == "datetime":
        naive = pd.DatetimeIndex(np.array(values, "M8[ns]"))
        return [naive, naive.tz_localize("UTC"), pd.TimedeltaIndex(np.array(values, "m8[ns]"))]
    dtypes = {"int": ["int64", "Int64"], "float": ["float64", "Float64"], "bool": ["bool", "boolean"]}[kind]
    return [pd.Index(values, dtype=dtype) for dtype in dtypes]


@often
@given(
    st.fixed_dictionaries({kind: st.lists(values, max_size=5, unique=True) for kind, values in CATEGORIES.items()}),
    st.lists(st.integers(0, 59), max_size=8),
    st.booleans(),
)
def test_categoricals_keep_categories_their_order_and_dtype(
    drawn: dict[str, list[Any]], rows: list[int], ordered: bool
) -> None:
    """Ordered or not, unused categories kept, missing values too, for categories of each kind and dtype."""
    columns = {}
    for kind, values in drawn.items():
        codes = [row % (len(values) + 1) - 1 for row in rows]
        for place, index in enumerate(_categories(kind, values)):
            columns[f"{kind}{place}"] = pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(index, ordered))
    assert_travels(indexed(columns))


FLAT_TYPES = [
    *(getattr(pa, dtype)() for dtype in NUMBERS if dtype != "float16"),
    *(pa.timestamp(unit) for unit in UNITS),
    *(pa.timestamp(unit, "Europe/Berlin") for unit in UNITS),
    pa.timestamp("ns", "UTC"),
    pa.timestamp("us", "+05:30"),
    *(pa.duration(unit) for unit in UNITS),
    pa.date32(),
]


@often
@given(with_missing)
def test_arrow_backed_numbers_and_times_keep_their_type(drawn: list[tuple[int, bool]]) -> None:
    """ArrowDtype of every fixed-width type, with nulls; times of day and date64 within their range."""
    numbers, missing = [number for number, _ in drawn], np.array([gone for _, gone in drawn], bool)
    arrays: dict[str, Any] = {"bool": pa.array(bits(numbers, "bool"), mask=missing)}
    arrays["float16"] = pa.array(bits(numbers, "float16"), mask=missing, from_pandas=False)
    for arrow in FLAT_TYPES:
        if pa.types.is_temporal(arrow):  # within the years that Python, and so pandas' comparison, can say
            limit = 40_000 if pa.types.is_date(arrow) else 4 * 10 ** (9 + 3 * UNITS.index(arrow.unit))
            whole = [number % limit - limit // 4 for number in numbers]
            values = pa.array(whole, f"int{arrow.bit_width}", mask=missing)
        else:
            values = pa.array(bits(numbers, np.dtype(arrow.to_pandas_dtype()).name), mask=missing, from_pandas=False)
        arrays[str(arrow)] = values.view(arrow)
    day = {pa.time32("s"): 86_400, pa.time32("ms"): 86_400_000, pa.time64("us"): 86_400_000_000, pa.time64("ns"): 10**9}
    for arrow, length in day.items():
        arrays[str(arrow)] = pa.array(
            [number % length for number in numbers], f"int{arrow.bit_width}", mask=missing
        ).view(arrow)
    arrays["date64"] = pa.array([number % 10_000 * 86_400_000 for number in numbers], "int64", mask=missing).view(
        pa.date64()
    )
    arrays["null"] = pa.nulls(len(drawn))
    for width in (pa.decimal32(9, 2), pa.decimal64(18, 0), pa.decimal128(20, 3), pa.decimal256(50, 2)):
        decimals = [None if gone else Decimal(number % 10**6) for number, gone in drawn]
        arrays[str(width)] = pa.array(decimals, width)
    frame = indexed({name: pd.ArrowDtype(array.type).__from_arrow__(array) for name, array in arrays.items()})
    assert_same(there_and_back(frame), frame)  # pieces are put together by Arrow: see the next test


@often
@given(texts)
def test_arrow_backed_strings_bytes_and_dictionaries_keep_their_type(drawn: list[str | None]) -> None:
    """string, large_string, binary, large_binary, fixed_size_binary, and dictionaries, which concat has to unify."""
    data = [None if text is None else text.encode() for text in drawn]
    arrays = {
        "string": pa.array(drawn, pa.string()),
        "large_string": pa.array(drawn, pa.large_string()),
        "binary": pa.array(data, pa.binary()),
        "large_binary": pa.array(data, pa.large_binary()),
        "fixed": pa.array([None if item is None else (item + bytes(4))[:4] for item in data], pa.binary(4)),
        "dictionary": pa.array(drawn, pa.string()).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
        "large dictionary": pa.array(data, pa.large_binary()).dictionary_encode(),
    }
    frame = indexed({name: pd.ArrowDtype(array.type).__from_arrow__(array) for name, array in arrays.items()})
    plain = frame.drop(columns=["dictionary", "large dictionary"])
    assert_travels(plain)
    encoder, cut = FrameEncoder(), len(frame) // 2
    for pieces in ([frame], [frame.iloc[:cut], frame.iloc[cut:]], [frame.iloc[cut:], frame]):
        got = FrameDecoder().decode(concat([encoder.encode(piece) for piece in pieces]))
        assert got.dtypes.tolist() == frame.dtypes.tolist()
        for name in frame:
            want = [value for piece in pieces for value in pa.array(piece[name].array).to_pylist()]
            assert pa.array(got[name].array).to_pylist() == want


@often
@given(
    st.lists(st.tuples(TIMES, BITS, st.one_of(st.none(), st.text(max_size=3))), max_size=12),
    st.lists(st.integers(0, 12), max_size=3),
)
def test_rows_cut_anywhere_and_concatenated_are_the_rows(
    rows: list[tuple[int, int, str | None]], cuts: list[int]
) -> None:
    """The oracle: decode(concat(pieces)) is the frame, for any cuts, with times in any order."""
    numbers = [number for _, number, _ in rows]
    words = [word for _, _, word in rows]
    frame = indexed(
        {
            "speed": bits(numbers, "float64"),
            "gear": pd.arrays.IntegerArray(bits(numbers, "int8"), bits(numbers, "bool")),
            "TAG__lap": pd.Series(words, dtype=pd.Series(["a"]).dtype).values,
            "tyre": pd.Categorical([word if word in ("a", "b") else None for word in words], categories=["b", "a"]),
            "note": of_object(words),
            "on": bits(numbers, "bool"),
            "at": bits(numbers, "M8[us]"),
        },
        [time for time, _, _ in rows],
    )
    ends = sorted({0, len(frame), *(cut for cut in cuts if cut < len(frame))})
    encoder = FrameEncoder()
    pieces = [encoder.encode(frame.iloc[start:end]) for start, end in pairwise(ends)]
    whole = encoder.encode(frame)
    assert_same(FrameDecoder().decode(whole), frame)
    assert_equal(FrameDecoder().decode(concat(pieces or [whole])), frame)
    slices = [whole.slice(start, end - start) for start, end in pairwise(ends)]
    assert_equal(FrameDecoder().decode(concat(slices or [whole])), frame)
    for piece, part in zip(slices, pairwise(ends), strict=True):
        assert_equal(FrameDecoder().decode(piece), frame.iloc[slice(*part)])
