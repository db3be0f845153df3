"""What a contract declares of one column: a `Parameter`, or a `Tag`.

A dtype is declared as pandas has it, and kept as the field and the empty array that a frame of it gives in normal form:
so what `frames` carries can be declared, and two declarations are equal exactly when their frames have equal schemas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.columns import OBJECT
from quixframes.dtypes import rule_for
from quixframes.errors import SettingsError
from quixframes.frames import FrameEncoder
from quixframes.rules import KEY, NULLABLE, TAG, text_dtype
from quixframes.story import Bounds, bounds_of

__all__ = ["Bounds", "Parameter", "Tag", "dtype_name", "found_name", "is_text", "natural_dtype"]

SHOWN = 8  # categories in the name of a dtype


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a contract.

    Args:
        dtype: of its column: a pandas dtype or its name, "str" (pandas' own dtype for strings), "bytes" (an object
            column of bytes), a Python type, or an Arrow type, which stands for the dtype that pandas makes of it (for
            Arrow's own dtypes give a ``pandas.ArrowDtype``). "category" without categories takes any categories of
            text, and its rows read as "str": a union that grew with the rows would be another dtype with each of them.
        unit: of its values, as in "km/h".
        range: the lowest and highest value, both allowed; None leaves a side open. NaN and missing values are within
            any range, infinite ones in none. What becomes of values outside is the contract's ``out_of_range``.
        required: whether every frame has to have it (default). Where one lacks a parameter that is not required, its
            rows read as missing; so such a parameter is nullable.
        nullable: whether values may be missing. Default: where the dtype can hold that. A NumPy integer or bool that is
            nullable is the dtype of pandas that can: int64 becomes Int64, bool becomes boolean.

    Raises:
        SettingsError: what is declared cannot be.

    >>> Parameter("int64", required=False).dtype
    Int64Dtype()
    """

    dtype: Any = field(compare=False)
    unit: str | None = None
    range: Bounds | None = None
    required: bool = True
    nullable: bool | None = None
    open: bool = field(init=False, repr=False)  # a category that takes any categories
    arrow: Any = field(init=False, repr=False)
    descriptor: bytes | None = field(init=False, repr=False)
    template: Any = field(init=False, repr=False, compare=False)  # the pa.Field, but for its name
    empty: Any = field(init=False, repr=False, compare=False)  # a pa.Array without values, with the categories if any

    def __post_init__(self) -> None:
        for name in ("required", "nullable"):
            if not isinstance(getattr(self, name), bool | None if name == "nullable" else bool):
                raise SettingsError(f"{name}={getattr(self, name)!r} has to be True or False")
        if self.unit is not None and not isinstance(self.unit, str):
            raise SettingsError(f"unit={self.unit!r} has to be text")
        if self.nullable is False and not self.required:
            raise SettingsError(
                "a parameter that is not required is nullable: rows of frames without it read as missing"
            )
        dtype = _dtype_of(self.dtype)
        nullable = not self.required if self.nullable is None else self.nullable
        if isinstance(dtype, np.dtype) and dtype.kind in "iub":
            if nullable:
                dtype = NULLABLE[pa.from_numpy_dtype(dtype)][0]
        elif self.nullable is None:
            nullable = True
        template, empty = _template("x", dtype)
        self._set("dtype", dtype)
        self._set("nullable", nullable)
        self._set("open", isinstance(dtype, str) and dtype == "category")
        self._set("arrow", template.type)
        self._set("descriptor", (template.metadata or {}).get(KEY))
        self._set("template", template)
        self._set("empty", empty)
        if self.range is not None:
            self._set("range", bounds_of(self.range))
            self.limits()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def field(self, name: str) -> pa.Field:
        """The field of a column of that name in normal form."""
        return self.template.with_name(name)

    @property
    def name(self) -> str:
        """The dtype in a few words."""
        return dtype_name(self.dtype)

    def limits(self) -> tuple[Any, Any] | None:
        """The range as NumPy scalars of the column's own dtype, finite ones; None without a range."""
        return None if self.range is None else limits_of(self.range, self.arrow)


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of a contract: text, in a column named ``TAG__`` and the tag's name.

    Args:
        required: whether every frame has to have it (default).
        dtype: as which it reads: "str" (default, pandas' own dtype for strings), "string" or "object". Any column of
            text may be written for it, whatever the policy; in any row it may be missing.
    """

    required: bool = True
    dtype: Any = field(default="str", compare=False)
    arrow: Any = field(init=False, repr=False)
    descriptor: bytes | None = field(init=False, repr=False)
    template: Any = field(init=False, repr=False, compare=False)
    empty: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.required, bool):
            raise SettingsError(f"required={self.required!r} has to be True or False")
        dtype = _dtype_of(self.dtype)
        if not (isinstance(dtype, pd.StringDtype) or (isinstance(dtype, np.dtype) and dtype == OBJECT)):
            raise SettingsError(
                f"a tag of dtype {dtype_name(dtype)} cannot be: tags are text ('str', 'string', 'object')"
            )
        template, empty = _template(TAG + "x", dtype)
        for name, value in (
            ("dtype", dtype),
            ("arrow", template.type),
            ("descriptor", (template.metadata or {}).get(KEY)),
            ("template", template),
            ("empty", empty),
        ):
            object.__setattr__(self, name, value)

    def field(self, name: str) -> pa.Field:
        """The field of the column of a tag of that name in normal form."""
        return self.template.with_name(TAG + name)

    @property
    def name(self) -> str:
        """The dtype in a few words."""
        return dtype_name(self.dtype)


# --- dtypes -----------------------------------------------------------------------------------------------------------


def _dtype_of(given: Any) -> Any:
    """The pandas dtype that is meant; "bytes" and "category" stay what they are, as pandas has no dtype for them."""
    if isinstance(given, Parameter):
        raise SettingsError("a Parameter is no dtype: give it as it is")
    if given is str or (isinstance(given, str) and given == "str"):
        return text_dtype()
    if given is bytes or (isinstance(given, str) and given == "bytes"):
        return "bytes"
    if isinstance(given, pa.DataType):
        return natural_dtype(given)
    try:
        dtype: Any = pd.api.types.pandas_dtype(given)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"dtype {given!r} is none that pandas knows: {error}") from None
    if isinstance(dtype, pd.CategoricalDtype) and dtype.categories is None:
        if dtype.ordered:
            raise SettingsError(
                "an ordered category needs its categories: pandas.CategoricalDtype([...], ordered=True)"
            )
        return "category"
    return dtype


def natural_dtype(arrow: pa.DataType) -> Any:
    """The dtype that pandas makes of an Arrow type, where no value is missing.

    >>> natural_dtype(pa.int32())
    dtype('int32')
    """
    if is_text(arrow):
        return "category" if pa.types.is_dictionary(arrow) else text_dtype()
    if pa.types.is_binary(arrow) or pa.types.is_large_binary(arrow):
        return "bytes"
    if pa.types.is_boolean(arrow) or pa.types.is_integer(arrow) or pa.types.is_floating(arrow):
        return np.dtype(arrow.to_pandas_dtype())
    if pa.types.is_timestamp(arrow) and arrow.tz is not None:
        return pd.api.types.pandas_dtype(f"datetime64[{arrow.unit}, {arrow.tz}]")
    if pa.types.is_timestamp(arrow) or pa.types.is_duration(arrow):
        return np.dtype(f"{'M8' if pa.types.is_timestamp(arrow) else 'm8'}[{arrow.unit}]")
    return pd.ArrowDtype(arrow)


def is_text(arrow: pa.DataType) -> bool:
    """Whether the values are text, in a dictionary or not."""
    values = arrow.value_type if pa.types.is_dictionary(arrow) else arrow
    return values in (pa.string(), pa.large_string()) or bool(pa.types.is_string_view(values))


def dtype_name(dtype: Any) -> str:
    """A dtype in a few words; of categories the first ones."""
    if isinstance(dtype, pd.CategoricalDtype) and dtype.categories is not None:
        return _category_name(dtype.categories[: SHOWN + 1].tolist(), len(dtype.categories), bool(dtype.ordered))
    if isinstance(dtype, pd.StringDtype) and repr(dtype) != repr(text_dtype()):
        return f"{dtype}[{dtype.storage}]"
    return str(dtype)


def found_name(source: pa.Field, array: pa.Array) -> str:
    """The dtype of a column that was found, in a few words."""
    descriptor = (source.metadata or {}).get(KEY)
    if pa.types.is_dictionary(source.type) and descriptor is not None and descriptor.startswith(b"category"):
        values = array.dictionary.slice(0, SHOWN + 1).to_pylist()
        return _category_name(values, len(array.dictionary), source.type.ordered)
    if descriptor == b"object[bytes]":
        return "bytes"
    dtype = rule_for(source).dtype
    return "text" if dtype is None and is_text(source.type) else dtype_name(source.type if dtype is None else dtype)


def _category_name(values: list[Any], count: int, ordered: bool) -> str:
    shown = ", ".join([*map(repr, values[:SHOWN]), *(["..."] if count > SHOWN else [])])
    return f"category[{shown}]" + (" ordered" if ordered else "")


def _template(name: str, dtype: Any) -> tuple[Any, Any]:
    """The field and an empty array of a column in normal form."""
    try:
        if isinstance(dtype, str):
            values = pd.Series([b""], dtype=object) if dtype == "bytes" else pd.Series(["x"], dtype=text_dtype())
        else:
            values = pd.Series([], dtype=dtype)
        frame = values.to_frame(name)
        frame.index = pd.DatetimeIndex(np.zeros(len(values), "M8[ns]"))
        batch = FrameEncoder().encode(frame)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"dtype {dtype_name(dtype)} cannot be declared: {error}") from None
    return batch.schema.field(1), batch.column(1).slice(0, 0)


# --- ranges -----------------------------------------------------------------------------------------------------------


def limits_of(bounds: Bounds, arrow: pa.DataType) -> tuple[Any, Any]:
    """Bounds as NumPy scalars of an Arrow type. Raises SettingsError where no value of it can be within them."""
    low, high = bounds
    if not (pa.types.is_integer(arrow) or pa.types.is_floating(arrow)):
        raise SettingsError(f"a range is of integers or floats, not of {arrow}")
    dtype = np.dtype(arrow.to_pandas_dtype())
    least, most = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else _finite(dtype)
    lowest = least if low is None else max(least, math.ceil(low) if dtype.kind in "iu" else low)
    highest = most if high is None else min(most, math.floor(high) if dtype.kind in "iu" else high)
    if lowest > highest:
        raise SettingsError(f"range={bounds!r} has no value that a column of {dtype} can hold")
    return dtype.type(lowest), dtype.type(highest)


def _finite(dtype: Any) -> tuple[float, float]:
    most = float(np.finfo(dtype).max)
    return -most, most
