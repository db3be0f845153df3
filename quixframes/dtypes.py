"""How a column of each pandas dtype travels as an Arrow array, to the bit and back.

Strategy. A `Rule` stands for one pandas dtype: the Arrow type, a short descriptor for the field's metadata, and a
function for each direction. Rules are found from a dtype (`rule_of`, writing) and from an Arrow field (`rule_for`,
reading), and nothing else in the library knows how a dtype looks on the wire. Those of categoricals and of Arrow's own
dtypes are here; those of datetimes with a zone are in `zones`, the others in `rules`.

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
``tag:S``          dictionary of large_string               that of a column of tags; S is the descriptor or, for an
                                                            Arrow dtype, the Arrow type of its strings
none               any flat type                            ArrowDtype of exactly that type
=================  =======================================  ========================================================

Invariants.

- Arrow type, nullability and descriptor follow from the pandas dtype alone, never from the values: so two batches have
  equal schemas exactly when their dtypes are identical. (The one exception is ``object``, which pandas does not tell
  apart: it is ``object[bytes]`` when bytes are among the values, else ``object[str]``; and among tags
  ``tag:object[str]`` unless NaN or NA are among the values.)
- What is encoded shares no memory with a NumPy array of the caller, who may go on to change it.
- What is decoded is writable, and shares no memory with a message of which it is a small part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.columns import OBJECT, bits, dictionary_array, flat, nulls, owned, refuse, values_of
from quixframes.errors import FrameError
from quixframes.rules import (
    KEY,
    NULLABLE,
    NULLABLE_BY_DTYPE,
    NUMPY,
    NUMPY_BY_TYPE,
    OBJECTS,
    STRINGS,
    TAGS,
    TEXT_ADVICE,
    Rule,
    nullable_rule,
    numpy_rule,
    object_rule,
    string_rule,
)
from quixframes.zones import ZONES, zone_named, zoned_rule, zoned_rule_of

__all__ = ["check_array", "rule_for", "rule_of", "tag_rule_of"]

KEPT = 65_536  # bytes of categories up to which a dtype is kept for the next batch

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
            return dictionary_array(pa.array(indices, mask=missing), dictionary, ordered)
        return dictionary_array(pa.array(indices), dictionary, ordered)

    return Rule(dtype, arrow, descriptor, encode, _category_decoder(of_values, ordered))


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
            known[:] = [(owned(dictionary), dtype)]
        return dtype

    def decode(array: pa.Array) -> Any:
        codes = bits(array.indices, NUMPY_BY_TYPE[array.type.index_type])
        if array.null_count:
            codes[nulls(array)] = -1
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
    return Rule(dtype, arrow, None, flat, lambda array: dtype.__from_arrow__(owned(array)))


def _known_zone(text: str) -> bool:
    return any(zone_named(library, text) is not None for library in (b"timezone", b"zoneinfo"))


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
        return numpy_rule(dtype)
    if type(dtype) in NULLABLE_BY_DTYPE:
        return nullable_rule(NULLABLE_BY_DTYPE[type(dtype)])
    if isinstance(dtype, pd.DatetimeTZDtype):
        return zoned_rule_of(dtype, column)
    if isinstance(dtype, pd.StringDtype):
        return string_rule(next(key for key, known in STRINGS.items() if known == dtype))
    if isinstance(dtype, pd.CategoricalDtype):
        return _category_rule_of(dtype, column)
    if isinstance(dtype, pd.ArrowDtype):
        return _arrow_rule(dtype.pyarrow_dtype, column, dtype)
    for kind, reason, advice in REFUSED:
        if isinstance(dtype, kind):
            raise refuse(column, reason, advice)
    raise refuse(column, f"the dtype {dtype} is not carried", "convert it with .astype()")


def tag_rule_of(dtype: Any, column: object) -> Rule:
    """The rule of the pandas dtype of a tag (any but object: see `object_tag_rule`). Raises FrameError for no text.

    Strings become a dictionary; what is a dictionary of strings already, such as a categorical, travels as it is.

    >>> tag_rule_of(pd.StringDtype("python"), "TAG__lap").descriptor
    b'tag:string[python]'
    """
    rule = rule_of(dtype, column)
    tag = TAGS.get(b"tag:" + (str(rule.type).encode() if rule.descriptor is None else rule.descriptor))
    if tag is not None:
        return tag
    if not pa.types.is_dictionary(rule.type) or not _is_text(rule.type.value_type):
        raise refuse(column, f"its dtype is {dtype!s:.80}", TEXT_ADVICE)
    return rule


def _is_text(arrow: pa.DataType) -> bool:
    return arrow in (pa.string(), pa.large_string(), pa.string_view())


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
        return numpy_rule(NUMPY_BY_TYPE[arrow])
    if descriptor == b"nullable" and arrow in NULLABLE:
        return nullable_rule(arrow)
    if descriptor in STRINGS:
        return string_rule(descriptor)
    if descriptor in (b"object[str]", b"object[bytes]"):
        return OBJECTS[descriptor[7:-1].decode()]
    if descriptor in TAGS:
        return TAGS[descriptor]
    if descriptor in ZONES and pa.types.is_timestamp(arrow) and arrow.tz is not None:
        zone = zone_named(descriptor, arrow.tz)
        return None if zone is None else zoned_rule(pd.DatetimeTZDtype(arrow.unit, zone), descriptor, arrow.tz)
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
