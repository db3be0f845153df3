"""A `Rule` for each pandas dtype, and those of NumPy's own, nullable, string and object dtypes, and of tags.

An object column tells None, NaN and NA apart. All three are null to Arrow, and to any other language; which one it was
stands in the bytes *under* the null, which Arrow ignores: none for None, ``NaN``, ``NA``. Slicing, concatenating and
IPC keep those bytes; kernels such as take and filter do not (see `record_batches.keep_rows`), and without them the
value comes back as None.

A tag is text of few distinct values, and travels as a dictionary of these. Arrow puts dictionaries together by turning
indices into others, and may do what it likes with those of nulls; so an object column of tags is a dictionary where all
that is missing in it is None, and where it holds NaN or NA it travels as any object column does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.columns import NAT, OBJECT, bits, flat, nulls, offsets_of, owned, refuse
from quixframes.errors import FrameError

__all__ = [
    "KEY",
    "NULLABLE",
    "NULLABLE_BY_DTYPE",
    "NUMPY",
    "NUMPY_BY_TYPE",
    "OBJECTS",
    "PLAIN",
    "STRINGS",
    "TAG",
    "TAGS",
    "TAG_TYPE",
    "TEXT_ADVICE",
    "Rule",
    "nullable_rule",
    "numpy_rule",
    "object_rule",
    "object_tag_rule",
    "string_rule",
    "text_dtype",
]

KEY = b"pandas"  # the one key of a field's metadata
HIDDEN: dict[Any, str] = {type(None): "", type(pd.NA): "NA"}  # what stands under the null of an object column
HIDDEN |= dict.fromkeys((float, np.float64, np.float32, np.float16), "NaN")
MISSING = {len("NaN"): np.nan, len("NA"): pd.NA}  # by the length of what is under the null; anything else is None


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


# --- NumPy dtypes -----------------------------------------------------------------------------------------------------

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
PLAIN = {np.dtype(name): getattr(pa, name)() for name in (*INTEGERS, "float16", "float32", "float64")}
UNITS = ("s", "ms", "us", "ns")
NUMPY = PLAIN | {np.dtype(bool): pa.bool_()}
NUMPY |= {np.dtype(f"M8[{unit}]"): pa.timestamp(unit) for unit in UNITS}
NUMPY |= {np.dtype(f"m8[{unit}]"): pa.duration(unit) for unit in UNITS}
NUMPY_BY_TYPE = {arrow: dtype for dtype, arrow in NUMPY.items()}


def numpy_rule(dtype: np.dtype[Any]) -> Rule:
    arrow = NUMPY[dtype]
    timelike = dtype.kind in "mM"

    def encode(values: Any, column: object) -> pa.Array:
        return pa.array(np.array(values), type=arrow, from_pandas=False)

    def decode(array: pa.Array) -> Any:
        if array.null_count and not timelike:
            raise FrameError(f"a column of dtype {dtype} has nulls, which that dtype cannot hold")
        values = bits(array, dtype)
        if array.null_count:
            values[nulls(array)] = np.array(NAT).view(dtype)
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


def nullable_rule(arrow: pa.DataType) -> Rule:
    dtype, container = NULLABLE[arrow]
    numpy = NUMPY_BY_TYPE[arrow]

    def encode(values: Any, column: object) -> pa.Array:
        mask = np.asarray(values.isna())  # NA only: a NaN of Float64 is a value
        data = values.to_numpy(dtype=numpy, na_value=numpy.type(0), copy=True)
        return pa.array(data, type=arrow, mask=mask if mask.any() else None, from_pandas=False)

    def decode(array: pa.Array) -> Any:
        return container(bits(array, numpy), nulls(array))

    return Rule(dtype, arrow, b"nullable", encode, decode)


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


def text_dtype() -> Any:
    """The dtype that pandas itself gives to strings, by its version and options."""
    return pd.Series(["text"]).dtype


def _utf8(values: Any, column: object, arrow: Any = pa.large_string()) -> Any:  # noqa: B008 (a constant)
    """A large_string array, or a dictionary of that, of an object array of str and missing values."""
    try:
        return pa.array(values, type=arrow, from_pandas=True)
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


def string_rule(descriptor: bytes) -> Rule:
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
            return dtype.__from_arrow__(owned(array))  # the way in that pandas documents for extension arrays
        values = array.to_numpy(zero_copy_only=False)
        if array.null_count:
            values[nulls(array)] = missing
        return pd.array(values, dtype=dtype, copy=False)

    return Rule(dtype, pa.large_string(), descriptor, encode, decode)


# --- object columns ---------------------------------------------------------------------------------------------------

OBJECT_KINDS: dict[Any, str] = {str: "str", np.str_: "str", bytes: "bytes", np.bytes_: "bytes"}
OBJECT_ADVICE = "give the column one type, for instance with .astype(str), pd.to_numeric or pd.to_datetime"


def _decode_object(array: pa.Array) -> Any:
    values = array.to_numpy(zero_copy_only=False)
    if array.null_count:
        rows = np.flatnonzero(nulls(array))
        offsets = offsets_of(array)
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


# --- tags -------------------------------------------------------------------------------------------------------------

TAG = "TAG__"
"""What the name of a tag's column begins with."""

TAG_TYPE = pa.dictionary(pa.int32(), pa.large_string())
TEXT_ADVICE = "it has to be text: convert it with .astype(str), or write str(value)"
PLAIN_TEXT = {str, np.str_, type(None)}  # the types in a column of objects that is the usual one


def _encode_tags(values: Any, column: object) -> pa.Array:
    return _utf8(np.asarray(values, dtype=object), column, TAG_TYPE)


def _encode_arrow_tags(values: Any, column: object) -> pa.Array:
    array = flat(values, column)
    return (array if array.type == pa.large_string() else array.cast(pa.large_string())).dictionary_encode()


def _objects_of_tags(array: pa.Array, missing: Any) -> Any:
    """The values as an array of objects, in which a value that comes again is the same object."""
    if len(array.dictionary) > len(array):  # a slice of many rows: not all that they have
        values = array.dictionary_decode().to_numpy(zero_copy_only=False)
        values = values if values.flags.writeable else values.copy()
        if array.null_count:
            values[nulls(array)] = missing
        return values
    values = np.empty(len(array.dictionary) + 1, object)
    values[:-1] = array.dictionary.to_numpy(zero_copy_only=False)
    values[-1] = missing
    places = bits(array.indices, np.dtype(np.int32))
    if array.null_count:
        places[nulls(array)] = -1
    return values.take(places)


def _string_tag_rule(descriptor: bytes) -> Rule:
    of = STRINGS[descriptor]
    missing = pd.NA if descriptor.startswith(b"string") else np.nan

    def decode(array: pa.Array) -> Any:
        return pd.array(_objects_of_tags(array, missing), dtype=of, copy=False)

    if descriptor.endswith(b"[pyarrow]"):
        return _arrow_tag_rule(descriptor, of, pa.large_string())
    return Rule(of, TAG_TYPE, b"tag:" + descriptor, _encode_tags, decode)


def _arrow_tag_rule(descriptor: bytes, dtype: Any, arrow: Any) -> Rule:
    def decode(array: pa.Array) -> Any:
        values = array.dictionary_decode()
        return dtype.__from_arrow__(values if values.type == arrow else values.cast(arrow))

    return Rule(dtype, TAG_TYPE, b"tag:" + descriptor, _encode_arrow_tags, decode)


def _tag_rules() -> dict[bytes, Rule]:
    found = [_string_tag_rule(descriptor) for descriptor in STRINGS]
    found += [
        _arrow_tag_rule(str(arrow).encode(), pd.ArrowDtype(arrow), arrow)
        for arrow in (pa.string(), pa.large_string(), pa.string_view())
    ]
    found.append(Rule(OBJECT, TAG_TYPE, b"tag:object[str]", _encode_tags, lambda array: _objects_of_tags(array, None)))
    return {rule.descriptor or b"": rule for rule in found}


TAGS = _tag_rules()
"""The rules of tags by descriptor: ``tag:`` and the descriptor, or the Arrow type, of the strings."""


def object_tag_rule(values: Any, column: object) -> Rule:
    """The rule of an object column of tags, by its values: str beside None, or beside NaN and NA as well."""
    kinds = set(map(type, values.tolist()))
    if kinds <= PLAIN_TEXT:
        return TAGS[b"tag:object[str]"]
    present = set(map(type, values[~pd.isna(values)].tolist()))
    if not present <= PLAIN_TEXT or not kinds <= PLAIN_TEXT | HIDDEN.keys():
        raise _tag_fault(values, column)
    return OBJECTS["str"]


def _tag_fault(values: Any, column: object) -> FrameError:
    """The error about the first value of an object column of tags that is neither a str nor missing."""
    for row, value in enumerate(values):
        if type(value) not in PLAIN_TEXT and not (type(value) in HIDDEN and pd.isna(value)):
            return refuse(column, f"{value!r:.80} is a {type(value).__name__}", TEXT_ADVICE, row)
    raise AssertionError("the caller found a fault")
