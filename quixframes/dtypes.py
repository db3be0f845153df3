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
from datetime import timedelta, timezone, tzinfo
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.errors import FrameError

__all__ = ["KEY", "NAT", "Rule", "check_array", "flat", "object_rule", "refuse", "rule_for", "rule_of"]

KEY = b"pandas"  # the one key of a field's metadata
NAT = np.iinfo(np.int64).min  # the integer that stands for NaT in NumPy's datetimes
HIDDEN = {type(None): "", float: "NaN", np.float64: "NaN", np.float32: "NaN", type(pd.NA): "NA"}
MISSING = {len("NaN"): np.nan, len("NA"): pd.NA}  # by the length of what is under the null; anything else is None


def refuse(column: object, reason: str, advice: str, row: int | None = None) -> FrameError:
    """The one form of an error about a column: where, why, what to do."""
    place = f"column {column!r}" if row is None else f"column {column!r}, row {row}"
    return FrameError(f"{place}: {reason}; {advice}", column=column, row=row)


@dataclass(frozen=True, eq=False, slots=True)
class Rule:
    """One pandas dtype and its Arrow form. Compared by identity.

    ``encode(values, column)`` takes what ``Series.values`` gives, and the column's name for an error's text;
    ``decode(array)`` gives what the DataFrame constructor takes. ``plain`` is the NumPy dtype whose values Arrow holds
    in the same bytes and without nulls, so that whole blocks can be copied; else None.
    """

    dtype: Any
    type: Any
    descriptor: bytes | None
    encode: Callable[[Any, object], Any]
    decode: Callable[[Any], Any]
    nullable: bool = True
    plain: np.dtype[Any] | None = None

    def field(self, name: str) -> Any:
        """The Arrow field of a column of this dtype."""
        metadata = None if self.descriptor is None else {KEY: self.descriptor}
        return pa.field(name, self.type, nullable=self.nullable, metadata=metadata)


# --- Arrow arrays -----------------------------------------------------------------------------------------------------


def flat(values: Any) -> Any:
    """One Arrow array of a pandas array that is backed by Arrow, whatever its chunks."""
    array = pa.array(values) if not isinstance(values, pa.ChunkedArray) else values
    if not isinstance(array, pa.ChunkedArray):
        return array
    if pa.types.is_dictionary(array.type):
        array = array.unify_dictionaries()
    return array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)


def _owned(array: Any) -> Any:
    """The array, copied if it would keep alive a buffer much larger than itself, such as a Kafka message."""
    size = array.nbytes
    held = max((_root_size(buffer) for buffer in array.buffers() if buffer is not None), default=0)
    return pa.concat_arrays([array]) if held > 2 * size + 1024 else array


def _root_size(buffer: Any) -> int:
    while buffer.parent is not None:
        buffer = buffer.parent
    size: int = buffer.size
    return size


def _nulls(array: Any) -> Any:
    """A NumPy mask of the nulls of an Arrow array."""
    return array.is_null().to_numpy(zero_copy_only=False)


def _bits(array: Any, dtype: np.dtype[Any]) -> Any:
    """A writable copy of the values of a fixed-width Arrow array; what is under a null is arbitrary."""
    if dtype == np.bool_:
        return (array.fill_null(False) if array.null_count else array).to_numpy(zero_copy_only=False).copy()
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.empty(len(array), dtype)
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize).copy()


def _offsets(array: Any) -> Any:
    """The n + 1 offsets of a large_string or large_binary array, as a NumPy view."""
    data = array.buffers()[1]
    if data is None or not data.size:
        return np.zeros(1, np.int64)
    return np.frombuffer(data, np.int64, len(array) + 1, array.offset * 8)


# --- NumPy dtypes -----------------------------------------------------------------------------------------------------

PLAIN = {
    np.dtype(name): getattr(pa, name)()
    for name in (
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
    )
}
UNITS = ("s", "ms", "us", "ns")
NUMPY = PLAIN | {np.dtype(bool): pa.bool_()}
NUMPY |= {np.dtype(f"M8[{unit}]"): pa.timestamp(unit) for unit in UNITS}
NUMPY |= {np.dtype(f"m8[{unit}]"): pa.duration(unit) for unit in UNITS}
NUMPY_BY_TYPE = {arrow: dtype for dtype, arrow in NUMPY.items()}


def _numpy_rule(dtype: np.dtype[Any]) -> Rule:
    arrow = NUMPY[dtype]
    timelike = dtype.kind in "mM"

    def encode(values: Any, column: object) -> Any:
        return pa.array(np.array(values), type=arrow, from_pandas=False)

    def decode(array: Any) -> Any:
        if array.null_count and not timelike:
            raise FrameError(f"a column of dtype {dtype} has nulls, which that dtype cannot hold")
        values = _bits(array, dtype)
        if array.null_count:
            values[_nulls(array)] = np.array(NAT).view(dtype)
        return values

    return Rule(dtype, arrow, b"numpy", encode, decode, nullable=timelike, plain=dtype if dtype in PLAIN else None)


# --- nullable dtypes --------------------------------------------------------------------------------------------------

NULLABLE: dict[Any, tuple[Any, Any]] = {pa.bool_(): (pd.BooleanDtype(), pd.arrays.BooleanArray)}
NULLABLE |= {
    getattr(pa, name)(): (getattr(pd, f"{pandas}Dtype")(), pd.arrays.IntegerArray)
    for pandas in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
    for name in (pandas.lower(),)
}
NULLABLE |= {
    pa.float32(): (pd.Float32Dtype(), pd.arrays.FloatingArray),
    pa.float64(): (pd.Float64Dtype(), pd.arrays.FloatingArray),
}
NULLABLE_BY_DTYPE = {type(dtype): arrow for arrow, (dtype, _) in NULLABLE.items()}


def _nullable_rule(arrow: Any) -> Rule:
    dtype, container = NULLABLE[arrow]
    numpy = NUMPY_BY_TYPE[arrow]

    def encode(values: Any, column: object) -> Any:
        mask = np.asarray(values.isna())  # NA only: a NaN of Float64 is a value
        data = values.to_numpy(dtype=numpy, na_value=numpy.type(0), copy=True)
        return pa.array(data, type=arrow, mask=mask if mask.any() else None, from_pandas=False)

    def decode(array: Any) -> Any:
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
        return timezone.utc
    minutes = _offset_minutes(text)
    if minutes is None:
        raise ValueError(f"{text!r} is no offset")
    return timezone(timedelta(minutes=minutes))


def _pytz_zone(text: str) -> tzinfo:
    minutes = _offset_minutes(text)
    try:
        import pytz  # optional: pandas 3 no longer brings it, and reads what pandas 2 wrote all the same
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
        return b"timezone", "UTC" if zone == timezone.utc else _offset_text(zone.utcoffset(None))
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

    def encode(values: Any, column: object) -> Any:
        return pa.array(np.array(values, dtype=numpy), type=naive, from_pandas=False).view(arrow)

    def decode(array: Any) -> Any:
        values = _bits(array, np.dtype(np.int64))
        if array.null_count:
            values[_nulls(array)] = NAT
        return pd.DatetimeIndex(values, dtype=dtype, copy=False).array  # integers are instants, whatever the zone

    return Rule(dtype, arrow, library, encode, decode)


def _zoned_rule_of(dtype: pd.DatetimeTZDtype, column: object) -> Rule:
    library, text = _zone_text(dtype.tz)
    zone = _zone(library, text) if library else None
    if zone is None or pd.DatetimeTZDtype(dtype.unit, zone) != dtype or str(zone) != str(dtype.tz):
        raise refuse(
            column,
            f"the time zone {dtype.tz!r} cannot be restored by its name",
            "convert it with .dt.tz_convert('UTC') or to a named zone such as 'Europe/Berlin'",
        )
    return _zoned_rule(dtype, library, text)


# --- strings ----------------------------------------------------------------------------------------------------------


def _string_dtypes() -> dict[bytes, pd.StringDtype]:
    """The StringDtypes of this pandas by descriptor; pandas 2.2 has no ``str[python]``."""
    found = {b"string[python]": pd.StringDtype("python"), b"string[pyarrow]": pd.StringDtype("pyarrow")}
    try:
        found[b"str[pyarrow]"] = pd.StringDtype("pyarrow", na_value=np.nan)
        found[b"str[python]"] = pd.StringDtype("python", na_value=np.nan)
    except TypeError:
        found[b"str[pyarrow]"] = pd.StringDtype("pyarrow_numpy")  # type: ignore[arg-type]
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

    def encode(values: Any, column: object) -> Any:
        if not in_arrow:
            return _utf8(np.asarray(values, dtype=object), column)
        array = flat(values)
        return array if array.type == pa.large_string() else array.cast(pa.large_string())

    def decode(array: Any) -> Any:
        if in_arrow:
            return dtype.__from_arrow__(_owned(array))  # the way in that pandas documents for extension arrays
        values = array.to_numpy(zero_copy_only=False)
        if array.null_count:
            values[_nulls(array)] = missing
        return pd.array(values, dtype=dtype, copy=False)

    return Rule(dtype, pa.large_string(), descriptor, encode, decode)


# --- object columns ---------------------------------------------------------------------------------------------------

OBJECT_KINDS = {str: "str", np.str_: "str", bytes: "bytes", np.bytes_: "bytes"}
OBJECT_ADVICE = "give the column one type, for instance with .astype(str) or pd.to_numeric"


def _decode_object(array: Any) -> Any:
    values = array.to_numpy(zero_copy_only=False)
    if array.null_count:
        rows = np.flatnonzero(_nulls(array))
        offsets = _offsets(array)
        lengths = offsets[rows + 1] - offsets[rows]
        for length, missing in MISSING.items():
            values[rows[lengths == length]] = missing
    return pd.arrays.NumpyExtensionArray(values)  # an array without this hull would be inferred to be strings


def _encode_object(values: Any, arrow: Any, column: object) -> Any:
    missing = pd.isna(values)
    kinds = {HIDDEN[type(value)] for value in values[missing]}
    if not kinds - {""}:
        return _utf8(values, column) if arrow == pa.large_string() else pa.array(values, type=arrow)
    filled = values.copy()
    hidden = [HIDDEN[type(value)] for value in values[missing]]
    filled[missing] = hidden if arrow == pa.large_string() else [text.encode() for text in hidden]
    whole = _utf8(filled, column) if arrow == pa.large_string() else pa.array(filled, type=arrow)
    return pa.Array.from_buffers(arrow, len(values), [pa.array(~missing).buffers()[1], *whole.buffers()[1:]])


OBJECTS = {
    kind: Rule(
        np.dtype(object),
        arrow,
        f"object[{kind}]".encode(),
        lambda values, column, arrow=arrow: _encode_object(values, arrow, column),
        _decode_object,
    )
    for kind, arrow in (("str", pa.large_string()), ("bytes", pa.large_binary()))
}


def object_rule(values: Any, column: object) -> Rule:
    """The rule of an object column, by its values: only str, or only bytes, and None, NaN or NA.

    Every type is looked at (a set of types, made in C), because a subclass of str would come back as a str.
    """
    types = set(map(type, values.tolist()))
    kinds = {OBJECT_KINDS[kind] for kind in types & OBJECT_KINDS.keys()}
    if len(kinds) < 2 and types <= OBJECT_KINDS.keys() | {type(None), type(pd.NA)}:
        return OBJECTS["bytes" if kinds == {"bytes"} else "str"]
    missing = pd.isna(values)
    kind = ""
    for row, value in enumerate(values):  # in order, because the first offender is what the error is about
        if type(value) in HIDDEN and missing[row]:
            continue
        if type(value) not in OBJECT_KINDS:
            raise refuse(
                column,
                f"the value {value!r} of type {type(value).__name__} in an object column (which may hold str or bytes)",
                OBJECT_ADVICE,
                row,
            )
        if kind and OBJECT_KINDS[type(value)] != kind:
            raise refuse(column, f"{OBJECT_KINDS[type(value)]} among {kind}", OBJECT_ADVICE, row)
        kind = OBJECT_KINDS[type(value)]
    return OBJECTS[kind or "str"]


# --- categoricals -----------------------------------------------------------------------------------------------------

CATEGORY = re.compile(rb"category:([0-9a-f]{16}):([a-z0-9\[\]]*)")


def _digest(array: Any) -> bytes:
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


def _is_variable(arrow: Any) -> bool:
    return arrow in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())


def _variable(array: Any) -> tuple[Any, Any]:
    width = 8 if array.type in (pa.large_string(), pa.large_binary()) else 4
    _, offsets, data = array.buffers()
    return (
        np.frombuffer(offsets, f"i{width}", len(array) + 1, array.offset * width),
        memoryview(data if data is not None else b""),
    )


def _category_rule_of(dtype: pd.CategoricalDtype, column: object) -> Rule:
    """The rule of a categorical: its codes are the indices of an Arrow dictionary, its categories the values."""
    values = dtype.categories.values
    of_values = (
        rule_of(dtype.categories.dtype, f"{column} (categories)")
        if dtype.categories.dtype != object
        else object_rule(np.asarray(values, dtype=object), f"{column} (categories)")
    )
    dictionary = of_values.encode(values, column)
    codes = pd.Categorical.from_codes([], dtype=dtype).codes.dtype
    arrow = pa.dictionary(NUMPY[np.dtype(codes)], of_values.type, ordered=bool(dtype.ordered))
    descriptor = b"category:%s:%s" % (_digest(dictionary), of_values.descriptor or b"")

    def encode(values: Any, column: object) -> Any:
        codes = np.array(values.codes)
        missing = codes < 0
        if not missing.any():
            indices = pa.array(codes)
        else:
            codes[missing] = 0
            indices = pa.array(codes, mask=missing)
        return pa.DictionaryArray.from_arrays(indices, dictionary, ordered=bool(dtype.ordered), safe=False)

    return Rule(dtype, arrow, descriptor, encode, _category_decoder(of_values, bool(dtype.ordered)))


def _category_decoder(of_values: Rule, ordered: bool) -> Callable[[Any], Any]:
    """A decoder that builds the dtype once, for as long as the dictionary stays the same (which its digest promises)."""
    known: list[tuple[Any, pd.CategoricalDtype]] = []

    def decode(array: Any) -> Any:
        dictionary = array.dictionary
        if not known or not known[0][0].equals(dictionary):
            known[:] = [(_owned(dictionary), _categories(of_values, dictionary, ordered))]
        codes = _bits(array.indices, NUMPY_BY_TYPE[array.type.index_type])
        if array.null_count:
            codes[_nulls(array)] = -1
        return pd.Categorical.from_codes(codes, dtype=known[0][1])

    return decode


def _categories(of_values: Rule, dictionary: Any, ordered: bool) -> pd.CategoricalDtype:
    try:
        return pd.CategoricalDtype(pd.Index(of_values.decode(dictionary), dtype=of_values.dtype), ordered)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise FrameError(f"the categories are no pandas categories: {error}") from error


def _category_rule_for(field: Any, inner: bytes) -> Rule:
    arrow = field.type
    of_values = rule_for(pa.field(field.name, arrow.value_type, metadata={KEY: inner} if inner else None))
    if of_values.type != arrow.value_type or str(arrow.index_type) not in ("int8", "int16", "int32", "int64"):
        raise FrameError(f"categories of type {arrow} are not written by quixframes")
    _categories(of_values, pa.array([], arrow.value_type), arrow.ordered)  # raises where pandas has no such index
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


def _is_flat(arrow: Any) -> bool:
    return not isinstance(arrow, pa.BaseExtensionType) and any(test(arrow) for test in FLAT)


def _arrow_rule(arrow: Any, column: object, dtype: Any = None) -> Rule:
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
    try:
        dtype.type  # noqa: B018  (pandas computes it, and knows some types in later versions only)
    except NotImplementedError:
        raise refuse(
            column,
            f"pandas {pd.__version__} cannot work with the Arrow type {arrow}",
            "cast it, for instance to string or binary",
        ) from None
    return Rule(
        dtype, arrow, None, lambda values, column: flat(values), lambda array: dtype.__from_arrow__(_owned(array))
    )


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


def rule_for(field: Any) -> Rule:
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


def _described_rule(field: Any, descriptor: bytes) -> Rule | None:
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


def check_array(field: Any, array: Any) -> None:
    """Raise FrameError where the values contradict the field: nulls where none may be, or other categories."""
    if array.null_count and not field.nullable:
        raise FrameError(f"column {field.name!r}: nulls in a column that has none", column=field.name)
    category = CATEGORY.fullmatch((field.metadata or {}).get(KEY, b""))
    if category is None:
        return
    dictionary = array.dictionary
    if dictionary.null_count or len(dictionary.unique()) != len(dictionary) or _digest(dictionary) != category[1]:
        raise FrameError(f"column {field.name!r}: the categories are not those of the descriptor", column=field.name)
