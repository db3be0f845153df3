"""Other people's messages: what they are read as, what frames are written as, and that nothing else ever happens."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import pickle
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes.codecs import Codec, Decoded, Encoded, RecordError
from quixframes.csv_lines import CsvLines
from quixframes.errors import FrameError, MessageTooLargeError, SettingsError
from quixframes.foreign import CodecReader, RowsOf, encode_within
from quixframes.formats import BytesAsIs
from quixframes.frames import FrameDecoder, FrameEncoder, check_supported, check_values
from quixframes.json_rows import JsonRows
from quixframes.kafka import Record
from quixframes.record_columns import ColumnAdder, RecordColumns
from tests.docs.snippets import ROOT, blocks
from tests.pure.messages import Sent, plain_frame, rich_frame

LIMIT = 1_000_000
DAY = "2026-11-15T00:00:00Z"
BROKER_MS = 1_763_200_000_123


def sent(value: object, key: bytes | None = b"car-44", headers: Sequence[tuple[str, bytes | None]] = ()) -> Sent:
    """A message with these bytes, or with this value as JSON, as kafka-python and json.dumps write it."""
    data = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Sent(key, data, headers, timestamp=BROKER_MS)


def at(**fields: Any) -> dict[str, Any]:
    return {"time": DAY, **fields}


def frame_of(codec: Codec, *values: object) -> pd.DataFrame:
    return codec.decode([sent(value) for value in values]).frame


def column(codec: Codec, *rows: dict[str, Any], name: str = "x") -> pd.Series[Any]:
    return frame_of(codec, *rows)[name]


def refused(codec: Codec, *values: object) -> RecordError:
    """The error about the one record of these that cannot be read."""
    found = [one for one in CodecReader(codec).read([sent(value) for value in values]) if isinstance(one, RecordError)]
    assert len(found) == 1
    return found[0]


def written(codec: Codec, frame: pd.DataFrame) -> list[str]:
    return [message.value.decode() for message in codec.encode("car-44", frame)]


def back(codec: Codec, frame: pd.DataFrame) -> pd.DataFrame:
    return codec.decode([Sent(m.key, m.value, m.headers) for m in encode_within(codec, "car-44", frame, LIMIT)]).frame


def timed(frame: pd.DataFrame) -> pd.DataFrame:
    """With nanosecond times in UTC, as a reader has them."""
    return frame.set_axis(pd.DatetimeIndex(frame.index).as_unit("ns").rename("time"))


def equal(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left, right, check_exact=True, check_freq=False)


# --- JSON: reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        [at(x=1), at(x=2)],
        b'{"time":"2026-11-15","x":1}\n{"time":"2026-11-15","x":2}\n',
        b'\n{"time":"2026-11-15T00:00Z","x":1}\r\n\r\n{"time":"2026-11-15","x":2}',
        b'\xef\xbb\xbf[{"time":"2026-11-15","x":1},{"time":"2026-11-15","x":2}]',
        json.dumps([at(x=1), at(x=2)], indent=4).encode(),
    ],
    ids=["list", "lines", "lines of Windows", "byte order mark", "indented"],
)
def test_an_object_a_list_and_lines_are_read_whatever_the_form(value: object) -> None:
    decoded = JsonRows().decode([sent(at(x=0)), sent(value), sent([])])
    assert decoded.frame["x"].tolist() == [0, 1, 2]
    assert decoded.rows == [1, 2, 0]
    assert decoded.frame.index.dtype == "datetime64[ns, UTC]"
    assert decoded.frame.index.name == "time"
    assert set(decoded.frame.index) == {pd.Timestamp(DAY)}


DTYPES = [
    ([1, 2], "int64"),
    ([1, None], "Int64"),
    ([2**63, 1], "uint64"),
    ([2**64 - 1, None], "UInt64"),
    ([-(2**63), 2**63 - 1], "int64"),
    ([1, 2.5], "float64"),
    ([1.5, None], "float64"),
    ([float("nan"), float("-inf")], "float64"),
    ([True, False], "bool"),
    ([True, None], "boolean"),
    ([None, None], "float64"),
]


@pytest.mark.parametrize(("values", "dtype"), DTYPES)
def test_a_column_s_dtype_follows_from_its_values(values: list[Any], dtype: str) -> None:
    x = column(JsonRows(), *(at(x=value) for value in values))
    assert x.dtype == dtype
    assert [None if pd.isna(value) else value for value in x] == [None if v != v else v for v in values]


def test_text_is_text_also_where_it_looks_like_a_time_or_a_number() -> None:
    texts = ["2026-11-15", "1", "", "ä\u2028😀", None]
    x = column(JsonRows(), *(at(x=text) for text in texts))
    assert x.dtype == pd.Series(["text"]).dtype
    assert [None if pd.isna(text) else text for text in x] == texts


def test_tags_are_text_also_where_all_are_missing_or_look_like_numbers() -> None:
    lines = CsvLines(columns=["time", "TAG__lap"])
    codecs: list[tuple[Codec, object, object]] = [
        (JsonRows(), at(TAG__lap=None), at(TAG__lap="7")),
        (lines, b"2026-11-15,", b"2026-11-15,7"),
    ]
    for codec, missing, seven in codecs:
        found = CodecReader(codec).read([sent(missing)]) + CodecReader(codec).read([sent(seven)])
        assert [one.batch.column("TAG__lap").to_pylist() for one in found if isinstance(one, RowsOf)] == [[None], ["7"]]
    assert "TAG__lap" in str(refused(JsonRows(), at(TAG__lap=7)))


def test_a_missing_field_is_a_missing_value() -> None:
    frame = frame_of(JsonRows(), at(a=1), at(b="x"), at(a=2, b=None))
    assert frame["a"].tolist() == [1, pd.NA, 2]
    assert frame["b"].isna().tolist() == [True, False, True]


def test_objects_in_objects_become_columns_with_points_in_their_names() -> None:
    frame = frame_of(JsonRows(time="meta.ts"), {"gps": {"lat": 1.5, "fix": {"sats": 7}}, "meta": {"ts": DAY}})
    assert frame.columns.tolist() == ["gps.lat", "gps.fix.sats"]


def test_a_list_in_a_field_is_refused_or_kept_as_text_or_left_out() -> None:
    row = at(x=[1, {"ä": 2}], y=1)
    assert "column 'x', row 0: [1, {'ä': 2}] is a list" in str(refused(JsonRows(), row))
    assert column(JsonRows(lists="text"), row).tolist() == ['[1, {"ä": 2}]']
    assert frame_of(JsonRows(columns=["y"]), row).columns.tolist() == ["y"]


def test_columns_are_those_that_were_chosen_in_that_order_whether_there_or_not() -> None:
    frame = frame_of(JsonRows(columns=["z", "time", "a"], dtypes={"z": "Int8"}), at(a=1, b=2))
    assert frame.columns.tolist() == ["z", "a"]
    assert frame["z"].dtype == "Int8"


TYPED = [
    ("float64", [1, 2.5, None], [1.0, 2.5, None]),
    ("float32", [1, 0.5, None], [1.0, 0.5, None]),
    ("float16", [1, 0.5, None], [1.0, 0.5, None]),
    ("Float64", [1, 2.5, None], [1.0, 2.5, None]),
    ("int64", [1, 2.0, -3], [1, 2, -3]),
    ("Int8", [1, float("nan"), None], [1, None, None]),
    ("uint64", [2**64 - 1], [2**64 - 1]),
    ("bool", [True, False], [True, False]),
    ("boolean", [True, None], [True, None]),
    ("string", ["x", None], ["x", None]),
    ("object", ["x", None], ["x", None]),
    (pd.CategoricalDtype(["dry", "wet"], ordered=True), ["wet", None], ["wet", None]),
    (pd.CategoricalDtype([3, 1]), [1, 3], [1, 3]),
    (
        "datetime64[ns, UTC]",
        ["2026-11-15T00:00:00.123456789Z", None],
        [pd.Timestamp("2026-11-15 00:00:00.123456789Z"), None],
    ),
    ("datetime64[s]", ["2026-11-15", None], [pd.Timestamp("2026-11-15"), None]),
    (pd.ArrowDtype(pa.decimal128(9, 2)), ["1.50", None], [decimal.Decimal("1.50"), None]),
    (pd.ArrowDtype(pa.date32()), ["2026-11-15"], [dt.date(2026, 11, 15)]),
]


@pytest.mark.parametrize(("dtype", "values", "expected"), TYPED, ids=lambda value: str(value)[:30])
def test_a_dtype_that_was_asked_for_is_what_the_column_has(dtype: Any, values: list[Any], expected: list[Any]) -> None:
    codec = JsonRows(dtypes={"x": dtype})
    x = column(codec, *(at(x=value) for value in values))
    assert x.dtype == dtype
    assert [None if pd.isna(value) else value for value in x] == expected
    batch = FrameEncoder().encode(x.to_frame())
    for value in values:  # the same, whichever records are decoded together
        alone = FrameEncoder().encode(column(codec, at(x=value)).to_frame())
        assert alone.schema.equals(batch.schema, check_metadata=True)


MISTYPED = [
    ("float64", [1.5, True]),
    ("float64", [1.5, "1.5"]),
    ("float64", [1.5, 2**60 + 1]),
    ("float32", [1.5, 1e300]),
    ("int64", [1, 1.5]),
    ("int64", [1, None]),
    ("int64", [1, True]),
    ("Int8", [1, 128]),
    ("bool", [True, 1]),
    ("string", ["x", 1]),
    (pd.CategoricalDtype(["dry"]), ["dry", "wet"]),
    ("datetime64[ns]", [DAY, "now"]),
    ("datetime64[s]", [DAY, "2026-11-15T00:00:00.5Z"]),
]


@pytest.mark.parametrize(("dtype", "values"), MISTYPED, ids=lambda value: str(value)[:30])
def test_a_value_that_is_not_of_the_dtype_is_refused_by_itself(dtype: Any, values: list[Any]) -> None:
    good, bad = values
    error = refused(JsonRows(dtypes={"x": dtype}), at(x=good), at(x=bad), at(x=good))
    assert str(error).startswith("column 'x', row 0: ")
    assert "dtypes=" in str(error)


def test_numbers_can_be_floats_all_of_them() -> None:
    codec = JsonRows(numbers="float64", dtypes={"lap": "int64"})
    frame = frame_of(codec, at(x=3, lap=1, on=True), at(x=None, lap=2, on=False), at(x=2**60 + 1, lap=3, on=True))
    assert [str(dtype) for dtype in frame[["x", "lap", "on"]].dtypes] == ["float64", "int64", "bool"]
    assert frame["x"].iloc[2] == float(2**60 + 1)
    assert "too large for a float64" in str(refused(codec, at(x=1, lap=1), at(x=10**400, lap=1)))


TIMES = [
    (None, "2026-11-15T01:02:03.123456789+02:00", 1_794_697_323_123_456_789),
    (None, "2026-11-15", 1_794_700_800_000_000_000),
    (None, "2026-11-15 00:00", 1_794_700_800_000_000_000),
    (None, "1969-12-31T23:59:59.999999999Z", -1),
    ("ns", 1_794_700_800_000_000_001, 1_794_700_800_000_000_001),
    ("us", 1_794_700_800_000_001, 1_794_700_800_000_001_000),
    ("ms", 1_794_700_800_001, 1_794_700_800_001_000_000),
    ("s", 1_794_700_800, 1_794_700_800_000_000_000),
    ("s", -1, -1_000_000_000),
    ("s", 1_700_000_000.123, 1_700_000_000_123_000_000),
    ("ms", 1_700_000_000_000.5, 1_700_000_000_000_500_000),
    ("ms", 1.7e12, 1_700_000_000_000_000_000),
]


@pytest.mark.parametrize(("unit", "value", "ns"), TIMES)
def test_a_time_is_read_to_the_nanosecond(unit: Any, value: object, ns: int) -> None:
    codec = JsonRows(time="t", unit=unit)
    assert frame_of(codec, {"t": value}).index.asi8.tolist() == [ns]
    assert frame_of(codec, {"t": value}, {"t": value}).index.asi8.tolist() == [ns, ns]


NO_TIMES = [
    *(
        (None, value)
        for value in ("now", "today", "", "NaT", "15.11.2026", "2026-13-01", "9999-01-01", 5, 1.5, True, None)
    ),
    (None, "2026-11-15T00:00:00.1234567891Z"),
    *(("ms", value) for value in (DAY, True, None, [], float("nan"), float("inf"), 1e300, 10**30, 0.1234567)),
    ("ns", 0.5),
    ("s", 10**10),
]


@pytest.mark.parametrize(("unit", "value"), NO_TIMES)
def test_what_is_no_time_is_refused_and_the_rows_around_it_are_read(unit: Any, value: object) -> None:
    codec = JsonRows(unit=unit)
    good = {"time": DAY if unit is None else 1}
    assert "'time'" in str(refused(codec, good, {"time": value}, good))


def test_without_a_time_field_the_time_is_the_broker_s() -> None:
    codec = JsonRows(time=None)
    assert frame_of(codec, {"x": 1}).index.asi8.tolist() == [BROKER_MS * 10**6]
    assert written(codec, frame_of(codec, {"x": 1})) == ['{"x":1}']
    no_time = CodecReader(codec).read([Sent(b"k", b"{}", [], timestamp=-1), Sent(b"k", b"{}", [], timestamp=2**62)])
    assert [str(error) for error in no_time if "its broker time is" in str(error)] == [str(error) for error in no_time]


def test_a_second_time_is_refused_with_the_ways_out() -> None:
    error = refused(JsonRows(time="ts"), {"ts": DAY}, {"ts": DAY, "Timestamp": 1})
    assert "column 'Timestamp'" in str(error)
    assert "time='Timestamp'" in str(error)
    assert "columns=" in str(error)


MALFORMED = [
    None,
    b"",
    b"{",
    b"1",
    b"null",
    b'"text"',
    b"[1]",
    b"[[]]",
    b"\xff\xfe",
    b'{"time":"2026-11-15"} x',
    b'{"time":"2026-11-15"}\n{',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"a":' * 500 + b"1" + b"}" * 500,
    b'{"x":1}',
    {"time": DAY, "a": {"b": 1}, "a.b": 2},
    {"time": DAY, "x": 10**30},
    {"time": DAY, "x": "\ud800"},
    {"time": DAY, "\ud800": 1},
    [at(x=1), at(x="text")],
]


@pytest.mark.parametrize("value", MALFORMED, ids=lambda value: str(value)[:25])
def test_a_message_that_cannot_be_read_is_refused_alone_and_with_its_reason(value: object) -> None:
    good = at(x=1)
    found = CodecReader(JsonRows()).read([sent(good), sent(good), sent(value), sent(good)])
    assert [isinstance(one, RowsOf) for one in found] == [True, True, False, True]
    error = found[2]
    assert isinstance(error, RecordError)
    assert error.position == 0
    assert error.reason


def test_records_that_do_not_go_together_are_read_one_run_after_the_other() -> None:
    values = [1, 2, "a", "b", 3, None, True]
    found = CodecReader(JsonRows()).read([sent(at(x=value)) for value in values])
    frames = [FrameDecoder().decode(one.batch) for one in found if isinstance(one, RowsOf)]
    assert [None if pd.isna(frame["x"].iloc[0]) else frame["x"].iloc[0] for frame in frames] == values


def test_a_thousand_records_that_do_not_go_together_take_no_longer_than_one_by_one() -> None:
    """Counted in records decoded, not in seconds: splitting may not become quadratic."""
    decoded = 0

    class Counting(JsonRows):
        def decode(self, records: Sequence[Record]) -> Decoded:
            nonlocal decoded
            decoded += len(records)
            return super().decode(records)

    records = [sent(at(x=at_ if at_ % 2 else "text")) for at_ in range(1000)]
    assert all(isinstance(one, RowsOf) for one in CodecReader(Counting()).read(records))
    assert decoded < 6_000
    decoded = 0
    bad = [sent({"time": "now"}) for _ in range(1000)]
    assert all(isinstance(one, RecordError) for one in CodecReader(Counting()).read(bad))
    assert decoded < 3_000


def test_a_message_of_many_names_does_not_take_their_square_in_memory() -> None:
    rows = [at(**{f"name {n}": n}) for n in range(20_000)]
    assert "this is no table" in str(refused(JsonRows(), rows))


# --- streams ----------------------------------------------------------------------------------------------------------


def test_the_stream_is_the_key_or_the_topic_where_there_is_none() -> None:
    records = [sent(at(x=1)), sent(at(x=2), key=None), sent(at(x=3), key=b""), sent(at(x=4), key="ä".encode())]
    found = CodecReader(JsonRows()).read([*records, sent(at(x=5), key=b"\xff")])
    assert [one.stream_id for one in found[:4] if isinstance(one, RowsOf)] == ["car-44", "engine", "engine", "ä"]
    assert "no UTF-8 text to name its stream" in str(found[4])


def test_the_stream_can_be_a_field_which_is_then_no_column() -> None:
    codec = JsonRows(stream="car")
    records = [sent(at(car="a", x=1)), sent(at(car=7, x="text")), sent([at(car="a", x=2), at(car="a", x=3)])]
    bad = [at(x=1), at(car=None), at(car=""), at(car=[]), at(car=True), [at(car="a"), at(car="b")], []]
    found = CodecReader(codec).read([*records, *map(sent, bad)])
    rows = [(one.stream_id, one.batch.column("x").to_pylist()) for one in found if isinstance(one, RowsOf)]
    assert rows == [("a", [1]), ("7", ["text"]), ("a", [2, 3])]
    assert [str(error) for error in found[3:]] == ["its field 'car' has to name one stream, by a text or an int"] * 7
    assert written(codec, frame_of(codec, at(car="a", x=1))) == [f'{{"car":"car-44","time":"{DAY}","x":1}}']


# --- JSON: writing ----------------------------------------------------------------------------------------------------


def test_a_frame_is_written_as_json_that_anybody_reads() -> None:
    frame = timed(rich_frame().drop(columns=["bytes", "lap"]).replace([np.inf, -np.inf], 1.0))
    frame = frame[[name for name in frame if not name.startswith("TAG__")]].assign(TAG__lap=["1", None, "2"])
    rows = [json.loads(text) for text in written(JsonRows(), frame)]
    assert rows[1]["time"] == "2026-01-02T03:04:05.123456789Z"
    assert rows[0]["i8"] == -128
    assert rows[2]["u64"] == 2**64 - 1
    assert rows[0] | {"time": None} == {
        "time": None,
        "f16": 0.5,
        "f32": 0.5,
        "f64": 0.0,
        "i8": -128,
        "u64": 0,
        "flag": True,
        "n_int": 1,
        "n_float": 1.5,
        "n_bool": True,
        "text": "ä",
        "arrow_text": "x",
        "object": "a",
        "category": "lo",
        "money": 1.1,
        "day": "2026-01-01T00:00:00Z",
        "local": "2026-06-30T22:00:00Z",
        "date": "2026-01-01",
        "TAG__lap": "1",
    }
    assert [name for name, value in rows[1].items() if value is None] == [
        name for name in frame if pd.isna(frame[name].iloc[1])
    ]


@pytest.mark.parametrize(
    ("form", "count", "first"),
    [
        ("object", 2, '{"time":"2026-11-15T00:00:00Z","x":1}'),
        ("list", 1, '[{"time":"2026-11-15T00:00:00Z","x":1},{"time":"2026-11-15T00:00:00Z","x":2}]'),
        ("lines", 1, '{"time":"2026-11-15T00:00:00Z","x":1}\n{"time":"2026-11-15T00:00:00Z","x":2}'),
    ],
)
def test_rows_are_written_in_the_form_that_was_asked_for(form: Any, count: int, first: str) -> None:
    frame = frame_of(JsonRows(), at(x=1), at(x=2))
    messages = list(JsonRows(form=form).encode("car-44", frame))
    assert messages[0] == Encoded(b"car-44", first.encode(), [], 2 // count)
    assert len(messages) == count


def test_names_are_written_as_they_are_also_where_they_look_like_a_template() -> None:
    frame = frame_of(JsonRows(), at(**{'%s "quoted"\n%(x)s': 1, "100%": "%d"}))
    assert [json.loads(text) for text in written(JsonRows(stream="%s"), frame)] == [
        {"%s": "car-44", "time": DAY, '%s "quoted"\n%(x)s': 1, "100%": "%d"}
    ]


def test_the_times_are_numbers_of_the_unit_or_are_refused() -> None:
    frame = timed(pd.DataFrame({"day": pd.DatetimeIndex([DAY, None])}, pd.DatetimeIndex([DAY, DAY])))
    assert written(JsonRows(unit="s"), frame)[1] == '{"time":1794700800,"day":null}'
    assert written(JsonRows(unit="ns"), frame)[0] == '{"time":1794700800000000000,"day":1794700800000000000}'
    fine = frame.set_axis(frame.index + pd.Timedelta("1ms"))
    assert written(JsonRows(unit="us"), fine)[0].startswith('{"time":1794700800001000,')
    assert written(JsonRows(), fine)[0].startswith('{"time":"2026-11-15T00:00:00.001Z",')
    with pytest.raises(FrameError, match=r"column 'time', row 0: .* no whole number of s; choose a finer unit="):
        written(JsonRows(unit="s"), fine)


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ([b"x"], "base64"),
        ([pd.Timedelta("1s")], "total_seconds"),
        ([np.inf], "JSON has no infinity"),
    ],
)
def test_what_json_does_not_have_is_refused_with_its_column_and_advice(values: list[Any], advice: str) -> None:
    frame = timed(pd.DataFrame({"x": values}, pd.DatetimeIndex([DAY])))
    with pytest.raises(FrameError, match=advice) as caught:
        written(JsonRows(), frame)
    assert caught.value.column == "x"


def test_a_column_under_the_name_of_the_time_or_of_the_stream_is_refused() -> None:
    frame = frame_of(JsonRows(), at(ts=1, car=2))
    for codec in (JsonRows(time="ts"), JsonRows(stream="car")):
        with pytest.raises(FrameError, match="the codec writes the"):
            written(codec, frame)


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_infinity=False, allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).filter(
    lambda name: name.lower() not in ("time", "timestamp", "datetime")
)
ROWS = st.lists(st.dictionaries(NAMES, CELLS, max_size=5), min_size=1, max_size=8)


@settings(deadline=None)
@given(rows=ROWS, stamps=st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=8, max_size=8))
def test_any_rows_of_json_are_read_as_what_they_say(rows: list[dict[str, Any]], stamps: list[int]) -> None:
    rows = [{**row, "time": stamp} for row, stamp in zip(rows, stamps, strict=False)]
    found = CodecReader(JsonRows(unit="ns")).read([sent(row) for row in rows])
    for row, one in zip(rows, found, strict=True):
        assert isinstance(one, RowsOf)
        frame = FrameDecoder().decode(one.batch)
        assert frame.index.asi8.tolist() == [row.pop("time")]
        read = {name: None if pd.isna(frame[name].iloc[0]) else frame[name].iloc[0] for name in frame}
        assert {name: value for name, value in read.items() if value is not None} == {
            name: value for name, value in row.items() if value is not None
        }


FLOATS = st.floats(allow_infinity=False)


@settings(deadline=None)
@given(
    stamps=st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=4, max_size=4),
    whole=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4),
    unsigned=st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=4, max_size=4),
    floats=st.lists(FLOATS, min_size=4, max_size=4),
    small=st.lists(st.floats(width=32, allow_infinity=False), min_size=4, max_size=4),
    texts=st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=4, max_size=4),
    form=st.sampled_from(["object", "list", "lines"]),
    unit=st.sampled_from([None, "ns"]),
)
def test_a_frame_comes_back_from_json_to_the_bit(
    stamps: list[int],
    whole: list[int],
    unsigned: list[int | None],
    floats: list[float],
    small: list[float],
    texts: list[str | None],
    form: Any,
    unit: Any,
) -> None:
    index = pd.DatetimeIndex(np.array(stamps, "M8[ns]"), tz="UTC", name="time")
    frame = pd.DataFrame(
        {
            "i": np.array(whole, np.int64),
            "u": pd.array(unsigned, dtype="UInt64"),
            "f": np.array(floats),
            "f32": np.array(small, np.float32),
            "s": pd.array(texts, dtype="string[python]"),
            "t": index.as_unit("ns").to_numpy(),
        },
        index=index,
    )
    frame["s"] = frame["s"].astype("string[python]")
    equal(back(JsonRows(form=form, unit=unit, dtypes=dict(frame.dtypes)), frame), frame)


# --- CSV --------------------------------------------------------------------------------------------------------------


def test_lines_of_csv_are_read_one_or_more_in_a_message() -> None:
    codec = CsvLines(columns=["time", "lap", "speed", "car", "on"])
    values = [b"2026-11-15,1,81.5,a,true", b'2026-11-15,,,"b, \n""c""",\r\n\r\n2026-11-15,3,7,,False\n']
    decoded = codec.decode([sent(value) for value in values])
    assert decoded.rows == [1, 2]
    frame = decoded.frame
    assert [str(frame[name].dtype) for name in ("lap", "speed", "on")] == ["Int64", "float64", "boolean"]
    assert frame["car"].iloc[:2].tolist() == ["a", 'b, \n"c"']
    assert frame["car"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("texts", "dtype"),
    [
        (["1", "-2"], "int64"),
        (["1", ""], "Int64"),
        (["18446744073709551615", "0"], "uint64"),
        (["1", "2.5"], "float64"),
        (["1e5", "nan"], "float64"),
        (["", ""], "float64"),
        (["true", "False"], "bool"),
        (["1", "x"], None),
        (["2026-11-15", ""], None),
    ],
)
def test_a_column_of_csv_is_a_number_s_if_all_its_fields_are(texts: list[str], dtype: str | None) -> None:
    x = frame_of(CsvLines(columns=["time", "x"]), "\n".join(f"2026-11-15,{text}" for text in texts).encode())["x"]
    assert x.dtype == (pd.Series(["text"]).dtype if dtype is None else dtype)


def test_a_dtype_makes_of_a_field_of_csv_what_it_says() -> None:
    dtypes = {"id": "string", "n": "Int16", "on": "bool", "w": pd.CategoricalDtype([1, 2]), "d": "datetime64[ns]"}
    codec = CsvLines(columns=["time", *dtypes], dtypes=dtypes)
    frame = frame_of(codec, b"2026-11-15,007,,true,2,2026-11-15T10:00")
    assert dict(frame.dtypes) == {name: pd.api.types.pandas_dtype(dtype) for name, dtype in dtypes.items()}
    assert frame.iloc[0].tolist() == ["007", pd.NA, True, 2, pd.Timestamp("2026-11-15 10:00")]
    for bad in (b"2026-11-15,1,70000,true,2,", b"2026-11-15,1,1,yes,2,", b"2026-11-15,1,1,true,3,"):
        assert "dtypes=" in str(refused(codec, bad))


def test_a_header_says_the_columns_of_each_message() -> None:
    codec = CsvLines(header=True, time="ts", unit="ms", sep=";")
    found = CodecReader(codec).read([sent(b"ts;a\n1;2\n3;4"), sent(b"a;b;ts\n5;x;6"), sent(b"a;ts"), sent(b"")])
    assert [one.batch.schema.names for one in found[:2] if isinstance(one, RowsOf)] == [
        ["time", "a"],
        ["time", "a", "b"],
    ]
    assert [one.batch.num_rows for one in found[:3] if isinstance(one, RowsOf)] == [2, 1, 0]
    assert isinstance(found[3], RecordError)
    chosen = CsvLines(header=True, columns=["z", "a"], dtypes={"z": "Int8"})
    assert frame_of(chosen, b"time,a,b\n2026-11-15,1,2").columns.tolist() == ["z", "a"]


NO_CSV = [
    None,
    b"2026-11-15",
    b"2026-11-15,1,2",
    b'2026-11-15,"1',
    b'2026-11-15,"1"x',
    b"\xff,1",
    b"now,1",
    b",1",
    b"2026-11-15," + b"9" * 5000,
    b'2026-11-15,"' + b"9" * 200_000 + b'"',
    b"2026-11-15,123456789012345678901234567890",
]


@pytest.mark.parametrize("value", NO_CSV, ids=lambda value: str(value)[:25])
def test_what_is_no_such_csv_is_refused_alone(value: bytes | None) -> None:
    good = b"2026-11-15,1.5"
    found = CodecReader(CsvLines(columns=["time", "x"])).read([sent(good), sent(value), sent(good)])
    assert [isinstance(one, RecordError) for one in found] == [False, True, False]


@pytest.mark.parametrize("form", ["line", "lines"])
@pytest.mark.parametrize("header", [True, False])
def test_a_frame_comes_back_from_csv_to_the_bit(form: Any, header: bool) -> None:
    frame = timed(rich_frame().drop(columns=["bytes", "lap", "text", "object", "local"]))
    columns = None if header else ["f64", "time", *frame.columns.drop("f64")]
    codec = CsvLines(columns=columns, header=header, form=form, dtypes=dict(frame.dtypes))
    assert len(written(codec, frame)) == (3 if form == "line" else 1)
    equal(back(codec, frame)[frame.columns], frame)


def test_a_frame_with_other_columns_than_the_lines_have_is_not_written() -> None:
    with pytest.raises(FrameError, match="differ by gear, speed"):
        written(CsvLines(columns=["time"]), plain_frame())


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_bytes_are_rows_as_they_are_and_come_back_so() -> None:
    codec = BytesAsIs("payload")
    values = [b"\xff\x00", b"", None]
    frame = FrameDecoder().decode(FrameEncoder().encode(frame_of(codec, *values)))
    assert frame["payload"].tolist() == values
    assert set(frame.index.asi8) == {BROKER_MS * 10**6}
    assert [message.value for message in codec.encode("s", frame.iloc[:2])] == values[:2]
    with pytest.raises(FrameError, match="row 2: None is a NoneType, not bytes"):
        list(codec.encode("s", frame))
    with pytest.raises(FrameError, match="has to have one column, 'payload'"):
        list(codec.encode("s", plain_frame()))


# --- cutting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["object", "list", "lines"])
def test_messages_stay_under_the_limit_and_hold_each_row_once(form: Any) -> None:
    codec, frame = JsonRows(form=form), plain_frame(100)
    messages = encode_within(codec, "car-44", frame, 600)
    assert all(len(message.value) < 500 for message in messages)
    assert sum(message.rows for message in messages) == 100
    assert len(messages) >= 8
    decoded = codec.decode([Sent(message.key, message.value, message.headers) for message in messages])
    assert list(decoded.rows) == [message.rows for message in messages]
    equal(decoded.frame.astype({"gear": "int8"}), frame)


def test_a_row_that_fits_in_no_message_is_named_before_anything_is_sent() -> None:
    frame = frame_of(JsonRows(), at(x="a"), at(x="b"), at(x="c" * 1000))
    for form in ("object", "list", "lines"):
        with pytest.raises(MessageTooLargeError) as caught:
            encode_within(JsonRows(form=form), "s", frame, 600)  # type: ignore[arg-type]
        assert caught.value.row == 2


def test_a_frame_without_rows_gives_no_message() -> None:
    for codec in (JsonRows(form="list"), BytesAsIs("speed"), CsvLines(header=True)):
        assert encode_within(codec, "s", plain_frame(0), LIMIT) == []


# --- codecs of users --------------------------------------------------------------------------------------------------


class Sloppy(Codec):
    """What somebody writes in a minute: it raises whatever Python raises."""

    def decode(self, records: Sequence[Record]) -> Decoded:
        pairs = [record.value.decode().split("=") for record in records if record.value is not None]
        frame = pd.DataFrame({"time": [int(time) for time, _ in pairs], "x": [float(x) for _, x in pairs]})
        return Decoded(frame, [1] * len(pairs))


def test_a_codec_may_raise_anything_and_the_record_is_found() -> None:
    values = [b"1=2", b"3=4", b"oops", b"5=6", None, b"7=\xff", b"8=9"]
    found = CodecReader(Sloppy()).read([sent(value) for value in values])
    assert [isinstance(one, RowsOf) for one in found] == [True, True, False, True, False, False, True]
    assert [type(one.__cause__) for one in found if isinstance(one, RecordError)] == [
        ValueError,
        ValueError,
        UnicodeDecodeError,
    ]


def test_a_codec_that_cannot_read_or_write_says_so() -> None:
    with pytest.raises(SettingsError, match="Codec cannot read"):
        CodecReader(type("OneWayCodec", (Codec,), {})()).read([sent(b"")])
    with pytest.raises(SettingsError, match="Sloppy cannot write"):
        encode_within(Sloppy(), "s", plain_frame(), LIMIT)


def test_a_codec_that_writes_other_rows_than_it_was_given_is_found_out() -> None:
    class Loses(Codec):
        def encode(self, stream_id: str, frame: pd.DataFrame) -> Iterator[Encoded]:
            yield Encoded(b"k", b"v", [("name", b"value")], len(frame) - 1)

    with pytest.raises(FrameError, match="Loses wrote 9 rows of 10"):
        encode_within(Loses(), "s", plain_frame(), LIMIT)


def test_the_example_on_the_page_works() -> None:
    page = ROOT / "docs" / "codecs.md"
    names: dict[str, Any] = {}
    (example,) = [code for code in blocks(page, "python") if "class " in code]
    exec(compile(example, str(page), "exec"), names)
    codec = names["codec"]
    frame = plain_frame(3)[["speed"]]
    (message, *_) = messages = encode_within(codec, "car-44", frame, LIMIT)
    assert (message.key, message.rows) == (b"car-44", 1)
    records = [Sent(message.key, message.value, message.headers) for message in messages]
    read = [FrameDecoder().decode(one.batch) for one in CodecReader(codec).read(records) if isinstance(one, RowsOf)]
    equal(pd.concat(read), frame)
    found = CodecReader(codec).read([sent(b"12 bytes ..."), sent(b"x"), sent(b"16 bytes .......")])
    assert [isinstance(one, RowsOf) for one in found] == [False, False, True]


# --- key, time and headers as columns ---------------------------------------------------------------------------------

HEADERS = [("source", b"old"), ("source", "ä".encode()), ("empty", None)]


@pytest.mark.parametrize("text", [True, False])
def test_key_broker_time_and_headers_can_be_columns(text: bool) -> None:
    columns = RecordColumns(key="id", timestamp="at", headers={"source": "src", "empty": "e", "no": "n"}, text=text)
    records = [sent([at(x=1), at(x=2)], headers=HEADERS), sent([]), Sent(None, json.dumps(at(x=3)).encode(), [])]
    found = CodecReader(JsonRows(), columns).read([*records[:2], records[2]._replace(timestamp=-1, key=b"car-44")])
    frames = [FrameDecoder().decode(one.batch) for one in found if isinstance(one, RowsOf)]
    assert [len(frame) for frame in frames] == [2, 0, 1]
    frame = pd.concat(frames)
    assert frame.columns.tolist() == ["x", "id", "at", "src", "e", "n"]
    assert frame["id"].tolist() == ["car-44" if text else b"car-44"] * 3
    assert frame["at"].dtype == "datetime64[ms, UTC]"
    assert frame["at"].isna().tolist() == [False, False, True]
    assert frame["at"].iloc[0] == pd.Timestamp(BROKER_MS, unit="ms", tz="UTC")
    assert frame["src"].iloc[:2].tolist() == ["ä" if text else "ä".encode()] * 2
    assert frame[["e", "n"]].isna().all(axis=None)
    assert frame["n"].dtype == (pd.Series(["text"]).dtype if text else object)


def test_the_columns_of_one_record_and_of_many_have_one_schema() -> None:
    """Else a buffer would release what it holds at each change."""
    reader = CodecReader(JsonRows(), RecordColumns(headers={"source": "src"}))
    records = [sent(at(x=1), headers=HEADERS), sent(at(x=2))]
    batches = [one.batch for run in ([*records], records[:1], records[1:]) for one in reader.read(run)]  # type: ignore[union-attr]
    own = ColumnAdder(RecordColumns(headers={"source": "src"})).add(
        FrameEncoder().encode(frame_of(JsonRows(), at(x=1))), records[:1], [1]
    )
    for batch in [*batches, own]:
        assert batch.schema.equals(batches[0].schema, check_metadata=True)
        check_supported(batch.schema)
        batch.validate(full=True)
        check_values(batch)


def test_a_parameter_of_the_same_name_is_a_clear_error() -> None:
    with pytest.raises(SettingsError, match="a parameter has the name 'x', which RecordColumns gives"):
        CodecReader(JsonRows(), RecordColumns(key="x")).read([sent(at(x=1))])


def test_a_key_or_header_that_is_no_text_is_refused_with_the_way_out() -> None:
    columns = RecordColumns(headers={"id": "id"})
    records = [sent(at(x=1)), sent(at(x=2), headers=[("id", b"\xff")]), sent(at(x=3))]
    found = CodecReader(JsonRows(), columns).read(records)
    assert [isinstance(one, RecordError) for one in found] == [False, True, False]
    assert "header 'id'" in str(found[1])
    assert "text=False" in str(found[1])


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: JsonRows(unit="minutes"), "unit='minutes' has to be one of s, ms, us, ns, or None"),  # type: ignore[arg-type]
        (lambda: JsonRows(form="rows"), "form='rows' has to be one of 'object', 'list', 'lines'"),  # type: ignore[arg-type]
        (lambda: JsonRows(numbers="int"), "numbers='int'"),  # type: ignore[arg-type]
        (lambda: JsonRows(lists="explode"), "lists='explode'"),  # type: ignore[arg-type]
        (lambda: JsonRows(columns="speed"), "columns='speed' has to be a list of names"),
        (lambda: JsonRows(dtypes=["Int64"]), "has to be a dict"),  # type: ignore[arg-type]
        (lambda: JsonRows(dtypes={"x": "no such"}), "column 'x' cannot be of dtype 'no such'"),
        (lambda: JsonRows(dtypes={"x": "category"}), "name the categories"),
        (lambda: JsonRows(dtypes={"x": pd.ArrowDtype(pa.binary())}), "neither JSON nor CSV has such values"),
        (lambda: JsonRows(dtypes={"x": "period[D]"}), "periods are not carried"),
        (lambda: JsonRows(dtypes={"time": "int64"}), "'time' is none of the columns that are read"),
        (lambda: JsonRows(columns=["a"], dtypes={"b": "int64"}), "'b' is none of the columns that are read"),
        (lambda: CsvLines(), "columns= has to name the fields of a line, unless header=True"),
        (lambda: CsvLines(columns=["a"]), "the time 'time' among them"),
        (lambda: CsvLines(columns=["time", "time"]), "name each field once"),
        (lambda: CsvLines(columns=["time"], sep=", "), "sep=', ' has to be one character"),
        (lambda: BytesAsIs(""), "column='' has to be a name"),
        (lambda: BytesAsIs("time"), "column='time' has to be a name, and neither that of a time"),
        (lambda: RecordColumns(headers="source"), "headers='source' has to be a dict"),  # type: ignore[arg-type]
        (lambda: RecordColumns(key="a", timestamp="a"), "have one name"),
        (lambda: RecordColumns(key="TAG__key"), "'TAG__key' is the name of a tag"),
        (lambda: RecordColumns(key="Time"), "'Time' cannot be the name of a column"),
    ],
)
def test_a_setting_that_cannot_be_fails_where_it_is_made(make: Any, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make()
    assert text in str(caught.value)


@pytest.mark.parametrize("codec", [JsonRows(dtypes={"x": "Int64"}), CsvLines(columns=["time"]), BytesAsIs()])
def test_a_codec_goes_to_another_process(codec: Codec) -> None:
    assert pickle.loads(pickle.dumps(codec)) == codec


# --- whatever arrives -------------------------------------------------------------------------------------------------

SEEDS = [
    json.dumps([at(x=1, gps={"lat": 1.5}, name="ä", s="a"), at(x=None, y=True, s="a")]).encode(),
    json.dumps(at(x=2**63, y=1e308, z=[1, {}], w="\ud800", s=1)).encode(),
    b'{"time":1794700800000,"x":1}\n{"time":1794700800000.5,"x":2}',
    b'2026-11-15,1,"a"",",true\n2026-11-15T00:00:00.5Z,,,\n',
]
SPLICES = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\n", b"null", b"NaN", b"-", b"1e999", b"\\ud800", b"\xff", b"\0"]
CODECS: list[Codec] = [
    JsonRows(),
    JsonRows(unit="ms", numbers="float64", lists="text"),
    JsonRows(unit="s", dtypes={"x": "Int8", "name": pd.CategoricalDtype(["ä"]), "y": "bool"}, stream="s"),
    JsonRows(time=None, columns=["x", "gps.lat"]),
    CsvLines(columns=["time", "a", "b", "c"]),
    CsvLines(header=True, time="1", dtypes={"a": "float32", "c": "datetime64[s]"}),
    BytesAsIs(),
]


def mutated(seed: bytes, dice: random.Random) -> bytes:
    value = bytearray(seed)
    for _ in range(dice.randint(1, 4)):
        where = dice.randrange(len(value) + 1)
        if dice.random() < 0.5:
            value[where : where + dice.randint(0, 3)] = dice.choice(SPLICES)
        else:
            value[where : where + 1] = bytes([dice.randrange(256)])
    return bytes(value)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: repr(codec)[:40])
def test_broken_bytes_give_rows_or_the_error_and_nothing_else(codec: Codec) -> None:
    """20,000 messages over all codecs, in runs of 50; what is read is valid, and what is refused has a reason."""
    dice = random.Random(44)
    reader = CodecReader(codec)
    for _ in range(20_000 // len(CODECS) // 50 + 1):
        for one in reader.read([sent(mutated(dice.choice(SEEDS), dice)) for _ in range(50)]):
            if isinstance(one, RecordError):
                assert one.reason
            else:
                one.batch.validate(full=True)
                check_supported(one.batch.schema)
                check_values(one.batch)
