"""A column of one dtype made one of another, where that is exact value by value.

Strategy. A `Promotion` is found once for a pair of fields, by the kinds of their values; it turns an array into one of
the target's and says for which rows that was not exact. So whether a row passes depends on its own values and dtypes,
never on the rows beside it: live and replayed rows fare alike, however they were cut into batches.

===========================  ==========================  ===============================================================
from                         to                          exact where
===========================  ==========================  ===============================================================
any dtype                    any dtype                   the value is missing, and the target is nullable
NumPy, nullable, Arrow       the same numbers in         always; a NaN of NumPy's floats is missing
                             another of the three
integers, floats             wider ones                  always
integers                     floats                      within the integers that the float has: ±2**53 for float64
float64                      integers                    the value is whole and within ±2**53 and the integer's range,
                                                         and not -0.0: integers beside missing ones, as pandas has them
text, categories of text     text                        always
bytes                        bytes                       always
datetimes, timedeltas        the same, of another unit   the unit holds it; the time zone has to be the same
categories, text             declared categories         the value is one of them
===========================  ==========================  ===============================================================

Anything else is no promotion: int64 to int32, bool to int64, str to float64, naive datetimes to ones with a zone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quixframes.columns import bits, dictionary_array, nulls
from quixframes.contracts.declared import is_text
from quixframes.rules import KEY

__all__ = ["Promotion", "is_numpy_float", "missing_in", "nothing", "promotion"]

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
HELD = {16: 2**11, 32: 2**24, 64: 2**53}  # integers up to which a float of so many bits has every one

Convert = Callable[[Any, Any], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Promotion:
    """``convert(array, missing)``, with a mask of the missing values or None, gives the array in the target's type, and
    a mask of the rows for which that was not exact, or None; those hold anything. ``fault`` says what is wrong there.
    """

    convert: Convert
    fault: str = ""


def descriptor_of(field: pa.Field) -> bytes | None:
    found: bytes | None = (field.metadata or {}).get(KEY)
    return found


def is_numpy_float(field: pa.Field) -> bool:
    """Whether it is a float of NumPy, whose NaN is a missing value; those of other dtypes are values."""
    return bool(pa.types.is_floating(field.type)) and descriptor_of(field) == b"numpy"


def missing_in(field: pa.Field, array: pa.Array) -> Any:
    """A mask of the missing values of a column in normal form, or None where there are none."""
    if is_numpy_float(field):
        missing = np.isnan(array.to_numpy(zero_copy_only=False))
        return missing if missing.any() else None
    if pa.types.is_null(field.type):
        return np.ones(len(array), bool)
    return nulls(array) if array.null_count else None


def nothing(target: pa.Field, empty: pa.Array, rows: int) -> pa.Array:
    """A column with nothing but missing values; zeros where its dtype has no missing value."""
    if descriptor_of(target) == b"numpy" and not pa.types.is_temporal(target.type):
        value = np.nan if pa.types.is_floating(target.type) else 0
        return pa.array(np.full(rows, value, target.type.to_pandas_dtype()), target.type)
    if pa.types.is_dictionary(target.type):
        indices = pa.nulls(rows, target.type.index_type)
        return dictionary_array(indices, empty.dictionary, target.type.ordered)
    return pa.nulls(rows, target.type)


def promotion(source: pa.Field, target: pa.Field, empty: pa.Array) -> Promotion | None:
    """The way from one field to another, or None where there is none but for missing values.

    ``empty`` is an array of the target without values: it has the categories, if they are declared.
    """
    if source.type == target.type and descriptor_of(source) == descriptor_of(target):
        return Promotion(lambda array, missing: (array, None))
    if is_text(source.type) or _is_category(source):
        return _from_text_or_category(source, target, empty)
    if _is_number(source.type) and _is_number(target.type):
        return _number(source, target)
    if _is_bytes(source.type) and _is_bytes(target.type):
        return Promotion(lambda array, missing: (_without_hidden(array.cast(target.type), target), None))
    if _is_time(source.type) and _is_time(target.type):
        return _time(source.type, target.type)
    return None


def _is_number(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_integer(arrow) or pa.types.is_floating(arrow) or pa.types.is_boolean(arrow))


def _is_bytes(arrow: pa.DataType) -> bool:
    return arrow in (pa.binary(), pa.large_binary()) or bool(pa.types.is_binary_view(arrow))


def _is_time(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(arrow) or pa.types.is_duration(arrow))


def _is_category(field: pa.Field) -> bool:
    """Whether it is one of pandas' categoricals, whose categories belong to the dtype."""
    return bool(pa.types.is_dictionary(field.type)) and (descriptor_of(field) or b"").startswith(b"category")


def _any(mask: Any) -> Any:
    return mask if mask is not None and mask.any() else None


# --- numbers ----------------------------------------------------------------------------------------------------------


def _number(source: pa.Field, target: pa.Field) -> Promotion | None:
    one, other = np.dtype(source.type.to_pandas_dtype()), np.dtype(target.type.to_pandas_dtype())
    in_numpy = descriptor_of(target) == b"numpy"
    test: Callable[[Any], Any] | None = None
    fault = ""
    if one.kind in "iu" and other.kind == "f":
        most = HELD[8 * other.itemsize]
        if np.iinfo(one).max > most:
            least = -most if one.kind == "i" else 0
            fault = f"{{value}} is not within ±2**{most.bit_length() - 1}, where {other} has every integer"

            def test(values: Any) -> Any:
                return (values > most) | (values < least)
    elif one == np.float64 and other.kind in "iu":
        fault = f"{{value}} is not a whole number that {other} and float64 both hold exactly"
        low, high = max(np.iinfo(other).min, -(2**53)), min(np.iinfo(other).max, 2**53)

        def test(values: Any) -> Any:
            off = (values != np.rint(values)) | (values < low) | (values > high)
            return off | (np.signbit(values) & (values == 0))
    elif {one.kind, other.kind} not in ({"i", "u"}, {one.kind}) or not np.can_cast(one, other):
        return None

    def convert(array: Any, missing: Any) -> tuple[Any, Any]:
        values = bits(array, one)
        if missing is not None:
            values[missing] = 0
        off = None if test is None else test(values)
        if off is not None:
            values[off] = 0
        made = values.astype(other)
        if in_numpy and missing is not None and other.kind == "f":
            made[missing] = np.nan
        return pa.array(made, target.type, mask=None if in_numpy else missing, from_pandas=False), _any(off)

    return Promotion(convert, fault)


# --- text, bytes, categories ------------------------------------------------------------------------------------------


def _from_text_or_category(source: pa.Field, target: pa.Field, empty: pa.Array) -> Promotion | None:
    texts = is_text(source.type)
    if _is_category(target):
        values = target.type.value_type
        if not (texts and is_text(values)) and not (_is_category(source) and source.type.value_type == values):
            return None
        return Promotion(_into(target, empty.dictionary), "{value!r} is not one of the declared categories")
    if not texts or not is_text(target.type):
        return None
    if not pa.types.is_dictionary(target.type):
        return Promotion(lambda array, missing: (_without_hidden(_texts(array, target.type), target), None))

    def encode(array: Any, missing: Any) -> tuple[Any, Any]:
        if array.type != target.type:
            array = _texts(array, pa.large_string()).dictionary_encode()
        return array if array.type == target.type else array.cast(target.type), None

    return Promotion(encode)


def _texts(array: pa.Array, arrow: pa.DataType) -> pa.Array:
    """The texts themselves, without a dictionary."""
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    return array.cast(arrow)


def _without_hidden(array: pa.Array, target: pa.Field) -> pa.Array:
    """The array with nothing under its nulls where that would say something: in an object column (see `rules`)."""
    if array.null_count and (descriptor_of(target) or b"").startswith(b"object"):
        return array.take(pa.array(np.arange(len(array))))
    return array


def _into(target: pa.Field, categories: pa.Array) -> Convert:
    numpy = np.dtype(target.type.index_type.to_pandas_dtype())

    def convert(array: Any, missing: Any) -> tuple[Any, Any]:
        if not pa.types.is_dictionary(array.type):
            array = _texts(array, pa.large_string()).dictionary_encode()
        found = array.dictionary
        if found.type != categories.type:
            found = found.cast(categories.type)
        places = pc.index_in(found, value_set=categories).fill_null(-1).to_numpy()
        table = np.append(places, -1).astype(np.int64)  # the last place is for missing values
        indices = array.indices
        codes = table[(indices.fill_null(len(found)) if array.null_count else indices).to_numpy()]
        lacks = codes < 0
        off = lacks if missing is None else lacks & ~missing
        codes[lacks] = 0
        made = pa.array(codes.astype(numpy), target.type.index_type, mask=lacks if lacks.any() else None)
        return dictionary_array(made, categories, target.type.ordered), _any(off)

    return convert


# --- times ------------------------------------------------------------------------------------------------------------


def _time(one: pa.DataType, other: pa.DataType) -> Promotion | None:
    if pa.types.is_timestamp(one) != pa.types.is_timestamp(other):
        return None
    if pa.types.is_timestamp(one) and one.tz != other.tz:
        return None
    if one == other:  # the same zone of another library, or in another container
        return Promotion(lambda array, missing: (array, None))
    coarse, fine = NANOSECONDS[one.unit], NANOSECONDS[other.unit]

    def convert(array: Any, missing: Any) -> tuple[Any, Any]:
        values = bits(array, np.dtype(np.int64))
        if missing is not None:
            values[missing] = 0
        if coarse > fine:
            factor = coarse // fine
            most = np.iinfo(np.int64).max // factor
            off = (values > most) | (values < -most)
            values[off] = 0
            values *= factor
        else:
            factor = fine // coarse
            off = values % factor != 0
            values //= factor
        return pa.array(values, mask=missing).view(other), _any(off)

    return Promotion(convert, f"{{value}} is not exact in {other.unit}")
