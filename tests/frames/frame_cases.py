"""What the tests of this folder share: columns of drawn bits, the way there and back, and what "the same" means."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, timedelta, timezone
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

from quixframes.frames import FrameDecoder, FrameEncoder, check_supported, check_values, concat

UNITS = ("s", "ms", "us", "ns")
NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
FLOAT_BITS = [
    *np.array([0.0, -0.0, 1.5, np.inf, -np.inf, np.nan], "f8").view("u8").tolist(),
    0x7FF8_0000_0000_BEEF,  # a NaN with a payload
    0xFFF0_0000_0000_0001,  # a signalling one, negative
    *np.array([-0.0, np.inf, np.nan], "f4").view("u4").tolist(),
    *np.array([-0.0, np.inf, np.nan], "f2").view("u2").tolist(),
    1 << 63,  # NaT
    (1 << 64) - 1,
]
BITS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from(FLOAT_BITS))
TIMES = st.integers(-(2**63) + 1, 2**63 - 1)
OBJECT = np.dtype(object)
PANDAS_3 = pd.__version__ >= "3"


def zones() -> dict[str, Any]:
    """One zone of each kind that this environment has."""
    found: dict[str, Any] = {
        "utc": UTC,
        "zoneinfo utc": zoneinfo.ZoneInfo("UTC"),
        "zoneinfo berlin": zoneinfo.ZoneInfo("Europe/Berlin"),
        "zoneinfo kathmandu": zoneinfo.ZoneInfo("Asia/Kathmandu"),
        "fixed": timezone(timedelta(hours=5, minutes=30)),
        "fixed west": timezone(-timedelta(hours=3, minutes=30)),
    }
    if find_spec("pytz"):
        import pytz

        found |= {"pytz": pytz.timezone("America/New_York"), "pytz utc": pytz.UTC, "pytz fixed": pytz.FixedOffset(-90)}
    return found


def string_dtypes() -> dict[str, Any]:
    """Every StringDtype of this pandas."""
    make: Any = pd.StringDtype
    found = {"string[python]": make("python"), "string[pyarrow]": make("pyarrow")}
    if PANDAS_3:
        return found | {
            "str[python]": make("python", na_value=np.nan),
            "str[pyarrow]": make("pyarrow", na_value=np.nan),
        }
    return found | {"string[pyarrow_numpy]": make("pyarrow_numpy")}


def bits(numbers: list[int], dtype: str) -> Any:
    """The low bytes of each number as a value of a NumPy dtype: any pattern of bits."""
    size = np.dtype(dtype).itemsize
    array = np.array(numbers, "u8")
    return (array & 1).astype(bool) if dtype == "bool" else array.astype(f"u{size}").view(dtype)


def of_object(values: list[Any]) -> Any:
    """A NumPy array of dtype object, which `indexed` keeps from being turned into strings by pandas 3."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def indexed(columns: dict[str, Any], times: list[int] | None = None) -> pd.DataFrame:
    """A frame of these columns as decode gives it; by default its times are unsorted and come twice."""
    length = len(next(iter(columns.values()))) if columns else len(times or [])
    numbers = np.array([7 * (row // 2 % 3) for row in range(length)] if times is None else times, "i8")
    index = pd.DatetimeIndex(numbers.view("M8[ns]"), name="time").tz_localize("UTC")
    dtypes = [getattr(values, "dtype", None) for values in columns.values()]
    data = {
        name: pd.Series(values, index=index, dtype=object) if dtype == OBJECT else values
        for (name, values), dtype in zip(columns.items(), dtypes, strict=True)
    }
    frame = pd.DataFrame(data, index=index)
    assert all(want is None or got == want for got, want in zip(frame.dtypes, dtypes, strict=True))
    return frame


def over_the_wire(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch after Arrow IPC, checked in the way of the wire decoder."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    reader = pa.ipc.open_stream(sink.getvalue())
    got = reader.read_next_batch()
    check_supported(got.schema)
    got.validate(full=True)
    check_values(got)
    return got


def there_and_back(frame: pd.DataFrame) -> pd.DataFrame:
    return FrameDecoder().decode(over_the_wire(FrameEncoder().encode(frame)))


def assert_travels(frame: pd.DataFrame, *, one_schema: bool = True) -> None:
    """The frame comes back the same, whole and in two pieces, whose schemas are equal because their dtypes are."""
    encoder, decoder = FrameEncoder(), FrameDecoder()
    assert_same(decoder.decode(over_the_wire(encoder.encode(frame))), frame)
    cut = len(frame) // 2
    pieces = [encoder.encode(piece) for piece in (frame.iloc[:cut], frame.iloc[cut:])]
    if one_schema or pieces[0].schema.equals(pieces[1].schema, check_metadata=True):
        assert_equal(decoder.decode(concat(pieces)), frame)


def assert_same(got: pd.DataFrame, want: pd.DataFrame) -> None:
    """Equal in what pandas compares, and in what `assert_equal` does."""
    pd.testing.assert_frame_equal(got, want, check_exact=True, check_freq=False)
    assert_equal(got, want)


def assert_equal(got: pd.DataFrame, want: pd.DataFrame) -> None:
    """Equal in every dtype, value and label, and in what pandas does not compare: kinds of missing value, bits, zones.

    It costs a third of what pandas' own comparison does, which is most of what these tests do.
    """
    assert got.index.name == "time"
    assert str(got.index.dtype) == "datetime64[ns, UTC]"
    assert got.index.asi8.tobytes() == want.index.asi8.tobytes()
    assert got.columns.tolist() == want.columns.tolist()
    for (name, one), (_, other) in zip(got.items(), want.items(), strict=True):
        assert type(one.dtype) is type(other.dtype), name
        assert one.dtype == other.dtype, name
        assert _exactly(one) == _exactly(other), name


def _exactly(series: pd.Series[Any]) -> Any:
    """What two columns of one dtype have in common exactly when they are the same."""
    dtype, array = series.dtype, series.array
    if isinstance(dtype, np.dtype):
        values = array.to_numpy()
        return [(type(value), _text(value)) for value in values] if dtype == OBJECT else values.tobytes()
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories
        of = categories.array if isinstance(categories.dtype, np.dtype) and categories.dtype != OBJECT else None
        values = list(categories) if of is None else of.to_numpy().tobytes()
        return dtype.ordered, repr(categories.dtype), values, array.codes.tolist()
    if isinstance(dtype, pd.DatetimeTZDtype):
        return type(dtype.tz), array.asi8.tobytes()
    if isinstance(dtype, pd.ArrowDtype):
        values = pa.array(array)
        return _ArrowValues(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)
    missing = array.isna()
    if isinstance(dtype, pd.StringDtype):
        return repr(dtype), missing.tolist(), array[~missing].tolist()
    return missing.tolist(), array.to_numpy(dtype=dtype.numpy_dtype, na_value=0).tobytes()


def _text(value: Any) -> str | bytes:
    """A str or bytes; for a missing value, whose type says all, its text."""
    return value if isinstance(value, str | bytes) else repr(value)


class _ArrowValues:
    """Arrow values that are equal when Arrow says so, or when their texts are, because a NaN equals nothing."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _ArrowValues)
        return self.array.equals(other.array) or self.text() == other.text()

    def text(self) -> list[Any]:
        return [self.array.type, *map(repr, self.array.to_pylist())]
