"""How a column of each pandas dtype travels as an Arrow array, to the bit and back.

Strategy. A `Rule` stands for one pandas dtype: the Arrow type, a short descriptor for the field's metadata, and a
function for each direction. Rules are found from a dtype (`rule_of`, writing) and from an Arrow field (`rule_for`,
reading), and nothing else in the library knows how a dtype looks on the wire.

=================  =======================================  ========================================================
descriptor         Arrow type                               pandas dtype
=================  =======================================  ========================================================
``numpy``          bool, (u)int, float, timestamp, duration  the NumPy dtype; NaT is null, NaN is a value
``nullable``       bool, (u)int, float32, float64           boolean, Int8 … UInt64, Float32, Float64; NA is null
``timezone``       timestamp with a zone                    datetime64 with datetime.timezone: UTC or whole minutes
``zoneinfo``       timestamp with a zone                    datetime64 with zoneinfo.ZoneInfo
``pytz``           timestamp with a zone                    datetime64 with a zone of pytz
``string[...]``    large_string                             StringDtype whose missing value is NA, by its storage
``str[...]``       large_string                             StringDtype whose missing value is NaN, by its storage
``object[str]``    large_string                             object holding str
``object[bytes]``  large_binary                             object holding bytes
``category:D:V``   dictionary, ordered or not               categorical; D is the digest of its categories, V the
                                                            descriptor of their dtype (empty for an Arrow dtype)
none               any flat type                            ArrowDtype of exactly that type
=================  =======================================  ========================================================

Invariants.

- Arrow type, nullability and descriptor follow from the pandas dtype alone, never from the values: so two batches have
  equal schemas exactly when their dtypes are identical. (The one exception is ``object``, which pandas does not tell
  apart: it is ``object[bytes]`` when bytes are among the values, else ``object[str]``.)
- An object column tells None, NaN and NA apart. All three are null to Arrow, and to any other language; which one it
  was stands in the bytes *under* the null, which Arrow ignores: none for None, ``NaN``, ``NA``. Slicing, concatenating
  and IPC keep those bytes; kernels such as take and filter do not have to (the value then comes back as None).
- What is encoded shares no memory with a NumPy array of the caller, who may go on to change it.
- What is decoded is writable, and shares no memory with a message of which it is a small part.
"""

from __future__ import annotations

import hashlib
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, timedelta, timezone, tzinfo
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.errors import FrameError

__all__ = [
    "KEY",
    "NAT",
    "OBJECT",
    "PLAIN",
    "Rule",
    "check_array",
    "flat",
    "object_rule",
    "refuse",
    "rule_for",
    "rule_of",
    "values_of",
]

KEY = b"pandas"  # the one key of a field's metadata
KEPT = 65_536  # bytes of categories up to which a rule or a dtype is kept for the next batch
SMALL = 1024  # bytes that are not worth a copy
NAT = np.iinfo(np.int64).min  # the integer that stands for NaT in NumPy's datetimes
HIDDEN: dict[Any, str] = {type(None): "", type(pd.NA): "NA"}  # what stands under the null of an object column
HIDDEN |= dict.fromkeys((float, np.float64, np.float32, np.float16), "NaN")
MISSING = {len("NaN"): np.nan, len("NA"): pd.NA}  # by the length of what is under the null; anything else is None


def refuse(column: object, reason: str, advice: str, row: int | None = None) -> FrameError:
    """The one form of an error about a column: where, why, what to do."""
    place = f"column {column!r}" if row is None else f"column {column!r}, row {row}"
    return FrameError(f"{place}: {reason}; {advice}", column=column, row=row)


@dataclass(frozen=True, eq=False, slots=True)
class Rule:
    """One pandas dtype and its Arrow form. Compared by identity.

    ``encode(values, column)`` takes what `values_of` gives, and the column's name for an error's text;
    ``decode(array)`` gives the values as a NumPy or pandas array. ``plain`` is the NumPy dtype whose values Arrow holds
    in the same bytes and without nulls, so that whole blocks can be copied; else None.
    """

    dtype: Any
    type: Any
    descriptor: bytes | None
    encode: Callable[[Any, object], pa.Array]
    decode: Callable[[pa.Array], Any]
    nullable: bool = True
    plain: np.dtype[Any] | None = None

    def field(self, name: str) -> pa.Field:
        """The Arrow field of a column of this dtype."""
        metadata = None if self.descriptor is None else {KEY: self.descriptor}
        return pa.field(name, self.type, nullable=self.nullable, metadata=metadata)


def values_of(column: Any) -> Any:
    """The values of a Series or Index as a NumPy array or, where there is none without loss, as pandas' own array.

    Datetimes with a zone are the instants, as datetime64 in UTC.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.array.asi8.view(f"M8[{column.dtype.unit}]")  # pandas 3.1 warns about .values of these
    return column.values if isinstance(column.dtype, np.dtype) else column.array


# --- Arrow arrays -----------------------------------------------------------------------------------------------------


def flat(values: Any, column: object) -> pa.Array:
    """One valid Arrow array of a pandas array that is backed by Arrow, whatever its chunks."""
    array = pa.array(values)
    try:
        if pa.types.is_dictionary(array.type):
            array = _without_null_values(array).unify_dictionaries()
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
        array.validate(full=True)  # a reader would refuse text that is not UTF-8, for one
    except pa.ArrowInvalid as error:
        raise refuse(column, f"its Arrow array is not valid as one ({error})", "rebuild the column") from error
    return array


def _without_null_values(array: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """The same values, with nulls among the indices only: Arrow does not unify dictionaries that hold a null."""
    array = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
    if not any(chunk.dictionary.null_count for chunk in array.chunks):
        return array
    return array.cast(array.type.value_type).dictionary_encode().cast(array.type)


def _owned(array: pa.Array) -> pa.Array:
    """The array, copied if it would keep alive a buffer much larger than itself, such as a Kafka message."""
    if pa.types.is_dictionary(array.type):
        indices, dictionary = _owned(array.indices), _owned(array.dictionary)
        return _dictionary(indices, dictionary, array.type.ordered)
    held = sum(_root_size(buffer) for buffer in array.buffers() if buffer is not None)
    return pa.concat_arrays([array]) if held > 2 * array.nbytes + SMALL else array


def _root_size(buffer: Any) -> int:
    while buffer.parent is not None:
        buffer = buffer.parent
    size: int = buffer.size
    return size


def _nulls(array: pa.Array) -> Any:
    """A NumPy mask of the nulls of an Arrow array."""
    return array.is_null().to_numpy(zero_copy_only=False)


def _bits(array: Any, dtype: np.dtype[Any]) -> Any:
    """A writable copy of the values of a fixed-width Arrow array; what is under a null is arbitrary."""
    if dtype == np.bool_:
        values = (array.fill_null(False) if array.null_count else array).to_numpy(zero_copy_only=False)
        return values if values.flags.writeable else values.copy()
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.empty(len(array), dtype)
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize).copy()


def _offsets(array: pa.Array) -> Any:
    """The n + 1 offsets of a large_string or large_binary array, as a NumPy view."""
    data = array.buffers()[1]
    if data is None or not data.size:
        return np.zeros(1, np.int64)
    return np.frombuffer(data, np.int64, len(array) + 1, array.offset * 8)


# --- NumPy dtypes -----------------------------------------------------------------------------------------------------

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
PLAIN = {np.dtype(name): getattr(pa, name)() for name in (*INTEGERS, "float16", "float32", "float64")}
UNITS = ("s", "ms", "us", "ns")
NUMPY = PLAIN | {np.dtype(bool): pa.bool_()}
NUMPY |= {np.dtype(f"M8[{unit}]"): pa.timestamp(unit) for unit in UNITS}
NUMPY |= {np.dtype(f"m8[{unit}]"): pa.duration(unit) for unit in UNITS}
NUMPY_BY_TYPE = {arrow: dtype for dtype, arrow in NUMPY.items()}


def _numpy_rule(dtype: np.dtype[Any]) -> Rule:
    arrow = NUMPY[dtype]
    timelike = dtype.kind in "mM"

    def encode(values: Any, column: object) -> pa.Array:
        return pa.array(np.array(values), type=arrow, from_pandas=False)

    def decode(array: pa.Array) -> Any:
        if array.null_count and not timelike:
            raise FrameError(f"a column of dtype {dtype} has nulls, which that dtype cannot hold")
        values = _bits(array, dtype)
        if array.null_count:
            values[_nulls(array)] = np.array(NAT).view(dtype)
        return values

    return Rule(dtype, arrow, b"numpy", encode, decode, nullable=timelike, plain=dtype if dtype in PLAIN else None)


# --- nullable dtypes --------------------------------------------------------------------------------------------------

NULLABLE: dict[Any, tuple[Any, Any]] = {
    pa.bool_(): (pd.BooleanDtype(), pd.arrays.BooleanArray),
    pa.int8(): (pd.Int8Dtype(), pd.arrays.IntegerArray),
    pa.int16(): (pd.Int16Dtype(), pd.arrays.IntegerArray),
    pa.int32(): (pd.Int32Dtype(), pd.arrays.IntegerArray),
    pa.int64(): (pd.Int64Dtype(), pd.arrays.IntegerArray),
    pa.uint8(): (pd.UInt8Dtype(), pd.arrays.IntegerArray),
    pa.uint16(): (pd.UInt16Dtype(), pd.arrays.IntegerArray),
    pa.uint32(): (pd.UInt32Dtype(), pd.arrays.IntegerArray),
    pa.uint64(): (pd.UInt64Dtype(), pd.arrays.IntegerArray),
    pa.float32(): (pd.Float32Dtype(), pd.arrays.FloatingArray),
    pa.float64(): (pd.Float64Dtype(), pd.arrays.FloatingArray),
}
NULLABLE_BY_DTYPE = {type(dtype): arrow for arrow, (dtype, _) in NULLABLE.items()}


def _nullable_rule(arrow: pa.DataType) -> Rule:
    dtype, container = NULLABLE[arrow]
    numpy = NUMPY_BY_TYPE[arrow]

    def encode(values: Any, column: object) -> pa.Array:
        mask = np.asarray(values.isna())  # NA only: a NaN of Float64 is a value
        data = values.to_numpy(dtype=numpy, na_value=numpy.type(0), copy=True)
        return pa.array(data, type=arrow, mask=mask if mask.any() else None, from_pandas=False)

    def decode(array: pa.Array) -> Any:
        return container(_bits(array, numpy), _nulls(array))

    return Rule(dtype, arrow, b"nullable", encode, decode)


# --- datetimes with a zone --------------------------------------------------------------------------------------------

OFFSET = re.compile(r"([+-])(\d\d):(\d\d)")


def _offset_text(offset: timedelta) -> str:
    minutes = int(offset.total_seconds() // 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _offset_minutes(text: str) -> int | None:
    match = OFFSET.fullmatch(text)
    if match is None:
        return None
    minutes = int(match[2]) * 60 + int(match[3])
    return -minutes if match[1] == "-" else minutes


def _fixed_zone(text: str) -> tzinfo:
    if text == "UTC":
        return UTC
    minutes = _offset_minutes(text)
    if minutes is None:
        raise ValueError(f"{text!r} is no offset")
    return timezone(timedelta(minutes=minutes))


def _pytz_zone(text: str) -> tzinfo:
    minutes = _offset_minutes(text)
    try:
        pytz = import_module("pytz")  # optional: pandas 3 does not bring it, and reads what pandas 2 wrote all the same
    except ImportError:
        return zoneinfo.ZoneInfo(text) if minutes is None else _fixed_zone(text)
    zone: tzinfo = pytz.timezone(text) if minutes is None else pytz.FixedOffset(minutes)
    return zone


ZONES: dict[bytes, Callable[[str], tzinfo]] = {
    b"timezone": _fixed_zone,
    b"zoneinfo": zoneinfo.ZoneInfo,
    b"pytz": _pytz_zone,
}


def _zone_text(zone: tzinfo) -> tuple[bytes, str]:
    """The library and the Arrow text of a zone; ("", "") for a kind that is not known."""
    if isinstance(zone, zoneinfo.ZoneInfo):
        return b"zoneinfo", zone.key or ""
    if isinstance(zone, timezone):
        return b"timezone", "UTC" if zone == UTC else _offset_text(zone.utcoffset(None))
    if type(zone).__module__.partition(".")[0] == "pytz":
        name = getattr(zone, "zone", None)
        offset = zone.utcoffset(None)
        return b"pytz", name or ("" if offset is None else _offset_text(offset))
    return b"", ""


def _zone(library: bytes, text: str) -> tzinfo | None:
    """The zone of that name, or None where this machine does not know it."""
    try:
        return ZONES[library](text)
    except Exception:  # zoneinfo alone raises five kinds, by what is wrong with the name
        return None


def _zoned_rule(dtype: pd.DatetimeTZDtype, library: bytes, text: str) -> Rule:
    arrow = pa.timestamp(dtype.unit, text)
    naive = pa.timestamp(dtype.unit)
    numpy = np.dtype(f"M8[{dtype.unit}]")

    def encode(values: Any, column: object) -> pa.Array:
        return pa.array(np.array(values, dtype=numpy), type=naive, from_pandas=False).view(arrow)

    def decode(array: pa.Array) -> Any:
        values = _bits(array, np.dtype(np.int64))
        if array.null_count:
            values[_nulls(array)] = NAT
        return pd.DatetimeIndex(values, dtype=dtype, copy=False).array  # integers are instants, whatever the zone

    return Rule(dtype, arrow, library, encode, decode)


def _zoned_rule_of(dtype: pd.DatetimeTZDtype, column: object) -> Rule:
    library, text = _zone_text(dtype.tz)
    zone = _zone(library, text) if library else None
    if zone is None and dtype == pd.DatetimeTZDtype(dtype.unit, UTC):
        return _zoned_rule(dtype, b"timezone", "UTC")  # the UTC of another library, to pandas the same
    if zone is None or pd.DatetimeTZDtype(dtype.unit, zone) != dtype or str(zone) != str(dtype.tz):
        raise refuse(
            column,
            f"the time zone {dtype.tz!r} cannot be restored by its name",
            "convert it with .dt.tz_convert('UTC') or to a named zone such as 'Europe/Berlin'",
        )
    return _zoned_rule(dtype, library, text)


# --- strings ----------------------------------------------------------------------------------------------------------


def _string_dtypes() -> dict[bytes, Any]:
    """The StringDtypes of this pandas by descriptor; pandas 2.2 has no ``str[python]``."""
    make: Any = pd.StringDtype
    found = {b"string[python]": make("python"), b"string[pyarrow]": make("pyarrow")}
    try:
        found |= {b"str[pyarrow]": make("pyarrow", na_value=np.nan), b"str[python]": make("python", na_value=np.nan)}
    except TypeError:
        found |= {b"str[pyarrow]": make("pyarrow_numpy")}
    return found


STRINGS = _string_dtypes()


def _utf8(values: Any, column: object) -> Any:
    """A large_string array of an object array of str and missing values."""
    try:
        return pa.array(values, type=pa.large_string(), from_pandas=True)
    except UnicodeEncodeError:
        row = next(row for row, value in enumerate(values) if isinstance(value, str) and not _encodable(value))
        raise refuse(
            column,
            "the text has a lone surrogate, which no UTF-8 can carry",
            "replace it, for instance with .str.encode('utf-8', 'replace').str.decode('utf-8')",
            row,
        ) from None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _string_rule(descriptor: bytes) -> Rule:
    dtype = STRINGS[descriptor]
    missing = pd.NA if descriptor.startswith(b"string") else np.nan
    in_arrow = descriptor.endswith(b"[pyarrow]")

    def encode(values: Any, column: object) -> pa.Array:
        if not in_arrow:
            return _utf8(np.asarray(values, dtype=object), column)
        array = flat(values, column)
        return array if array.type == pa.large_string() else array.cast(pa.large_string())

    def decode(array: pa.Array) -> Any:
        if in_arrow:
            return dtype.__from_arrow__(_owned(array))  # the way in that pandas documents for extension arrays
        values = array.to_numpy(zero_copy_only=False)
        if array.null_count:
            values[_nulls(array)] = missing
        return pd.array(values, dtype=dtype, copy=False)

    return Rule(dtype, pa.large_string(), descriptor, encode, decode)


# --- object columns ---------------------------------------------------------------------------------------------------

OBJECT = np.dtype(object)
OBJECT_KINDS: dict[Any, str] = {str: "str", np.str_: "str", bytes: "bytes", np.bytes_: "bytes"}
OBJECT_ADVICE = "give the column one type, for instance with .astype(str), pd.to_numeric or pd.to_datetime"


def _decode_object(array: pa.Array) -> Any:
    values = array.to_numpy(zero_copy_only=False)
    if array.null_count:
        rows = np.flatnonzero(_nulls(array))
        offsets = _offsets(array)
        lengths = offsets[rows + 1] - offsets[rows]
        for length, missing in MISSING.items():
            values[rows[lengths == length]] = missing
    return values if values.flags.writeable else values.copy()


def _encode_object(values: Any, kind: str, column: object) -> pa.Array:
    missing = pd.isna(values)
    hidden = {HIDDEN[of] for of in set(map(type, values[missing].tolist()))} - {""}
    if not hidden:
        return _object_array(values, kind, column)
    filled = values.copy()
    under = [HIDDEN[type(value)] for value in values[missing]]
    filled[missing] = under if kind == "str" else [text.encode() for text in under]
    array = _object_array(filled, kind, column)
    return pa.Array.from_buffers(array.type, len(array), [pa.array(~missing).buffers()[1], *array.buffers()[1:]])


def _object_array(values: Any, kind: str, column: object) -> pa.Array:
    return _utf8(values, column) if kind == "str" else pa.array(values, type=pa.large_binary(), from_pandas=True)


def _object_rule(kind: str, arrow: pa.DataType) -> Rule:
    def encode(values: Any, column: object) -> pa.Array:
        return _encode_object(values, kind, column)

    return Rule(OBJECT, arrow, f"object[{kind}]".encode(), encode, _decode_object)


OBJECTS = {
    kind: _object_rule(kind, arrow) for kind, arrow in (("str", pa.large_string()), ("bytes", pa.large_binary()))
}


def object_rule(values: Any, column: object) -> Rule:
    """The rule of an object column, by its values: only str, or only bytes, beside None, NaN and NA.

    The type of every value is looked at (by a map, in C), because a subclass of str would come back as a str.
    """
    missing = pd.isna(values)
    kinds = {OBJECT_KINDS.get(of) for of in set(map(type, values[~missing].tolist()))}
    if None in kinds or len(kinds) > 1 or not set(map(type, values[missing].tolist())) <= HIDDEN.keys():
        raise _object_fault(values, missing, column)
    return OBJECTS[kinds.pop() or "" if kinds else "str"]


def _object_fault(values: Any, missing: Any, column: object) -> FrameError:
    """The error about the first value of an object column that is at fault."""
    first = None
    for row, value in enumerate(values):
        kind = OBJECT_KINDS.get(type(value))
        if missing[row] and type(value) in HIDDEN:
            continue
        if kind is None:
            reason = f"{value!r:.80} is a {type(value).__name__}, and an object column may hold str, or bytes"
            return refuse(column, reason, OBJECT_ADVICE, row)
        first = first or kind
        if kind != first:
            return refuse(column, f"{kind} among {first} in an object column", OBJECT_ADVICE, row)
    raise AssertionError("the caller found a fault")


# --- categoricals -----------------------------------------------------------------------------------------------------

CODES = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
CATEGORY = re.compile(rb"category:([0-9a-f]{16}):([a-z0-9\[\]]*)")


def _digest(array: pa.Array) -> bytes:
    """16 hex digits for the values and their order, whatever the buffers' offsets and padding."""
    state = hashlib.blake2b(f"{array.type}:{len(array)}:".encode(), digest_size=8)
    if pa.types.is_boolean(array.type):
        state.update(array.to_numpy(zero_copy_only=False).tobytes())
    elif len(array) and _is_variable(array.type):
        offsets, data = _variable(array)
        state.update(np.diff(offsets).astype("<i8").tobytes())
        state.update(data[int(offsets[0]) : int(offsets[-1])])
    elif len(array):
        width = array.type.bit_width // 8
        state.update(memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width])
    return state.hexdigest().encode()


def _is_variable(arrow: pa.DataType) -> bool:
    return arrow in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())


def _variable(array: pa.Array) -> tuple[Any, Any]:
    width = 8 if array.type in (pa.large_string(), pa.large_binary()) else 4
    _, offsets, data = array.buffers()
    return (
        np.frombuffer(offsets, f"i{width}", len(array) + 1, array.offset * width),
        memoryview(data if data is not None else b""),
    )


def _category_rule_of(dtype: pd.CategoricalDtype, column: object) -> Rule:
    """The rule of a categorical: its codes are the indices of an Arrow dictionary, its categories the values."""
    of_values, dictionary = _encode_categories(dtype.categories, column)
    ordered = bool(dtype.ordered)
    codes = np.dtype(pd.Categorical.from_codes([], dtype=dtype).codes.dtype)  # pandas goes by the number of categories
    arrow = pa.dictionary(NUMPY[codes], of_values.type, ordered=ordered)
    descriptor = b"category:%s:%s" % (_digest(dictionary), of_values.descriptor or b"")

    def encode(values: Any, column: object) -> pa.Array:
        indices = np.array(values.codes, dtype=codes)
        missing = indices < 0
        if missing.any():
            indices[missing] = 0
            return _dictionary(pa.array(indices, mask=missing), dictionary, ordered)
        return _dictionary(pa.array(indices), dictionary, ordered)

    return Rule(dtype, arrow, descriptor, encode, _category_decoder(of_values, ordered))


def _dictionary(indices: pa.Array, values: pa.Array, ordered: bool) -> pa.Array:
    return pa.DictionaryArray.from_arrays(indices, values, ordered=ordered, safe=False)


def _encode_categories(categories: pd.Index[Any], column: object) -> tuple[Rule, pa.Array]:
    values = values_of(categories)
    try:
        rule = object_rule(values, column) if categories.dtype == OBJECT else rule_of(categories.dtype, column)
        return rule, rule.encode(values, column)
    except FrameError as error:
        raise refuse(
            column, f"its categories cannot be carried ({error})", "convert them with .cat.rename_categories(...)"
        ) from error


def _category_decoder(of_values: Rule, ordered: bool) -> Callable[[pa.Array], Any]:
    """A decoder that builds the dtype once, for as long as the dictionary stays the same, as its digest promises."""
    known: list[tuple[pa.Array, pd.CategoricalDtype]] = []  # at most one

    def dtype_of(dictionary: pa.Array) -> pd.CategoricalDtype:
        for earlier, dtype in known:
            if earlier.equals(dictionary):
                return dtype
        dtype = _categories(of_values, dictionary, ordered)
        if dictionary.nbytes <= KEPT:
            known[:] = [(_owned(dictionary), dtype)]
        return dtype

    def decode(array: pa.Array) -> Any:
        codes = _bits(array.indices, NUMPY_BY_TYPE[array.type.index_type])
        if array.null_count:
            codes[_nulls(array)] = -1
        return pd.Categorical.from_codes(codes, dtype=dtype_of(array.dictionary))

    return decode


def _categories(of_values: Rule, dictionary: Any, ordered: bool) -> pd.CategoricalDtype:
    try:
        return pd.CategoricalDtype(pd.Index(of_values.decode(dictionary), dtype=of_values.dtype), ordered)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise FrameError(f"the categories are no pandas categories: {error}") from error


def _category_rule_for(field: pa.Field, inner: bytes) -> Rule:
    arrow = field.type
    of_values = rule_for(pa.field(field.name, arrow.value_type, metadata={KEY: inner} if inner else None))
    if arrow.index_type not in CODES or of_values.dtype == np.float16:  # pandas has no index of float16
        raise FrameError(f"column {field.name!r}: categories as {arrow} are not written by quixframes")
    return Rule(None, arrow, field.metadata[KEY], _cannot_encode, _category_decoder(of_values, arrow.ordered))


def _cannot_encode(values: Any, column: object) -> Any:
    raise AssertionError("a rule that was found from a field only decodes")


# --- Arrow dtypes -----------------------------------------------------------------------------------------------------

FLAT = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_timestamp,
    pa.types.is_duration,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_null,
    pa.types.is_string_view,
    pa.types.is_binary_view,
)


def _is_flat(arrow: pa.DataType) -> bool:
    return not isinstance(arrow, pa.BaseExtensionType) and any(test(arrow) for test in FLAT)


def _arrow_rule(arrow: pa.DataType, column: object, dtype: Any = None) -> Rule:
    values = arrow.value_type if pa.types.is_dictionary(arrow) else arrow
    if not _is_flat(values):
        raise refuse(
            column,
            f"the Arrow type {arrow} is nested, an extension or unknown",
            "split it into flat columns, or cast it",
        )
    if pa.types.is_timestamp(values) and values.tz is not None and not _known_zone(values.tz):
        raise refuse(column, f"the time zone {values.tz!r} is unknown here", "convert it to UTC")
    dtype = pd.ArrowDtype(arrow) if dtype is None else dtype
    return Rule(dtype, arrow, None, flat, lambda array: dtype.__from_arrow__(_owned(array)))


def _known_zone(text: str) -> bool:
    return any(_zone(library, text) is not None for library in (b"timezone", b"zoneinfo"))


# --- from a dtype, from a field ---------------------------------------------------------------------------------------

REFUSED = (
    (pd.PeriodDtype, "periods are not carried", "convert them with .dt.to_timestamp()"),
    (pd.IntervalDtype, "intervals are not carried", "write .left and .right as two columns"),
    (pd.SparseDtype, "sparse columns are not carried", "make it dense with .sparse.to_dense()"),
)


def rule_of(dtype: Any, column: object) -> Rule:
    """The rule of a pandas dtype (any but object: see `object_rule`). Raises FrameError for one that is not carried.

    >>> rule_of(pd.Int8Dtype(), "lap").field("lap").metadata
    {b'pandas': b'nullable'}
    """
    if isinstance(dtype, np.dtype):
        if dtype not in NUMPY or not dtype.isnative:
            raise refuse(column, f"the dtype {dtype} is not carried", "convert it with .astype(), or split it")
        return _numpy_rule(dtype)
    if type(dtype) in NULLABLE_BY_DTYPE:
        return _nullable_rule(NULLABLE_BY_DTYPE[type(dtype)])
    if isinstance(dtype, pd.DatetimeTZDtype):
        return _zoned_rule_of(dtype, column)
    if isinstance(dtype, pd.StringDtype):
        return _string_rule(next(key for key, known in STRINGS.items() if known == dtype))
    if isinstance(dtype, pd.CategoricalDtype):
        return _category_rule_of(dtype, column)
    if isinstance(dtype, pd.ArrowDtype):
        return _arrow_rule(dtype.pyarrow_dtype, column, dtype)
    for kind, reason, advice in REFUSED:
        if isinstance(dtype, kind):
            raise refuse(column, reason, advice)
    raise refuse(column, f"the dtype {dtype} is not carried", "convert it with .astype()")


def rule_for(field: pa.Field) -> Rule:
    """The rule of an Arrow field that may come from anywhere. Raises FrameError for one that is not understood."""
    metadata = field.metadata or {}
    if not metadata:
        return _arrow_rule(field.type, field.name)
    if metadata.keys() != {KEY}:
        raise FrameError(f"column {field.name!r}: the field's metadata has keys other than {KEY!r}", column=field.name)
    rule = _described_rule(field, metadata[KEY])
    if rule is None or rule.type != field.type:
        raise FrameError(
            f"column {field.name!r}: the descriptor {metadata[KEY][:80]!r} does not go with the Arrow "
            f"type {field.type}, or is unknown to pandas {pd.__version__}",
            column=field.name,
        )
    return rule


def _described_rule(field: pa.Field, descriptor: bytes) -> Rule | None:
    arrow = field.type
    if descriptor == b"numpy" and arrow in NUMPY_BY_TYPE:
        return _numpy_rule(NUMPY_BY_TYPE[arrow])
    if descriptor == b"nullable" and arrow in NULLABLE:
        return _nullable_rule(arrow)
    if descriptor in STRINGS:
        return _string_rule(descriptor)
    if descriptor in (b"object[str]", b"object[bytes]"):
        return OBJECTS[descriptor[7:-1].decode()]
    if descriptor in ZONES and pa.types.is_timestamp(arrow) and arrow.tz is not None:
        zone = _zone(descriptor, arrow.tz)
        return None if zone is None else _zoned_rule(pd.DatetimeTZDtype(arrow.unit, zone), descriptor, arrow.tz)
    category = CATEGORY.fullmatch(descriptor)
    return _category_rule_for(field, category[2]) if category and pa.types.is_dictionary(arrow) else None


def check_array(field: pa.Field, array: pa.Array) -> None:
    """Raise FrameError where the values contradict the field: nulls where none may be, or other categories."""
    descriptor = (field.metadata or {}).get(KEY, b"")
    if array.null_count and (not field.nullable or (descriptor == b"numpy" and not pa.types.is_temporal(field.type))):
        raise FrameError(f"column {field.name!r}: nulls in a column that cannot have any", column=field.name)
    if pa.types.is_dictionary(field.type) and array.dictionary.null_count:
        raise FrameError(f"column {field.name!r}: a null among the values of its dictionary", column=field.name)
    category = CATEGORY.fullmatch(descriptor)
    if category is None:
        return
    dictionary = array.dictionary
    if len(dictionary.unique()) != len(dictionary) or _digest(dictionary) != category[1]:
        raise FrameError(f"column {field.name!r}: the categories are not those of the descriptor", column=field.name)
