"""Default tags: what every row of a stream or buffer gets that does not say otherwise.

A tag ``lap`` is the column ``TAG__lap``; so it never clashes with a parameter of the same name. `rules` has how tags
travel. What this module holds to: a row's own tag wins, and the dtype of a column that is there stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from quixframes.columns import OBJECT, dictionary_array, refuse
from quixframes.dtypes import rule_for, tag_rule_of
from quixframes.errors import SettingsError
from quixframes.plans import Plans
from quixframes.rules import KEY, OBJECTS, TAG, TAG_TYPE, TAGS, TEXT_ADVICE, text_dtype

__all__ = ["DefaultTags", "checked_tags", "constant_tag", "filled_tag"]

KEPT = 256  # schemas of which a plan is kept
OBJECT_TAG = TAGS[b"tag:object[str]"]


def checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags by name, without the ``TAG__`` that a name may begin with. Raises `SettingsError`.

    >>> checked_tags({"lap": "12", "TAG__driver": "Ann"})
    {'lap': '12', 'driver': 'Ann'}
    """
    if not isinstance(tags, Mapping):
        raise SettingsError(f"tags are given as a mapping of name to text, as in {{'lap': '12'}}, not as {tags!r:.80}")
    checked: dict[str, str] = {}
    for key, value in tags.items():
        name = _checked_text(key, "the name of a tag").removeprefix(TAG)
        if not name:
            raise SettingsError(f"the name of a tag cannot be empty, as it is in {key!r}")
        if name in checked:
            raise SettingsError(f"the tag {name!r} is there twice, once with {TAG!r} before it")
        checked[name] = _checked_text(value, f"the value of the tag {name!r}")
    return checked


def _checked_text(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise SettingsError(f"{what} has to be text: write str(value) instead of {text!r:.80} ({type(text).__name__})")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{what}, {text!r:.80}, has a lone surrogate, which no UTF-8 can carry") from None
    return str.__str__(text)  # of a np.str_ or an Enum, the text that it is


@dataclass(frozen=True, eq=False, slots=True)
class _Plan:
    """What becomes of batches of one schema: the tags that are there, as (position, default); the dictionaries of those
    that are added, whose fields stand at the end of ``target``."""

    present: tuple[tuple[int, str], ...]
    added: tuple[Any, ...]
    target: Any


class DefaultTags:
    """Adds tags to record batches in normal form. One for each stream or buffer; it keeps what it learnt of schemas.

    >>> batch = pa.record_batch({"time": pa.array([1, 2], pa.timestamp("ns", "UTC"))})
    >>> DefaultTags({"lap": "12"}).add(batch).column("TAG__lap").to_pylist()
    ['12', '12']
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self.tags = checked_tags(tags)
        text = text_dtype()
        self._rule = OBJECT_TAG if text == OBJECT else tag_rule_of(text, TAG)
        self._plans = Plans(self._plan, kept=KEPT)

    def __repr__(self) -> str:
        return f"DefaultTags({self.tags})"

    def add(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The ``pa.RecordBatch``, in which each row without one of the tags has its default.

        A column that is not there is added behind the others, with pandas' own dtype for strings. One that is there
        keeps its dtype, except that a categorical whose missing values become a category that it lacks gains that as
        its last one. Raises `FrameError` for a column named as a tag that holds no text.
        """
        if not self.tags:
            return batch
        plan = self._plans.of(batch.schema)
        arrays, schema = batch.columns, plan.target
        for position, default in plan.present:
            field, arrays[position] = _with_default(batch.schema.field(position), arrays[position], default)
            if not field.equals(schema.field(position), check_metadata=True):
                schema = schema.set(position, field)
        if plan.added:
            firsts = _firsts(batch.num_rows)
            arrays += [dictionary_array(firsts, values, False) for values in plan.added]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _plan(self, schema: Any) -> _Plan:
        places = {name: position for position, name in enumerate(schema.names)}
        present = tuple((places[TAG + name], value) for name, value in self.tags.items() if TAG + name in places)
        missing = {TAG + name: value for name, value in self.tags.items() if TAG + name not in places}
        target = pa.schema([*schema, *(self._rule.field(name) for name in missing)])
        return _Plan(present, tuple(_dictionary(value) for value in missing.values()), target)


def constant_tag(value: str | None, rows: int) -> pa.Array:
    """A tag of one value for every row, as it travels.

    >>> constant_tag("12", 2).to_pylist(), constant_tag(None, 1).to_pylist()
    (['12', '12'], [None])
    """
    if value is None:
        return pa.nulls(rows, TAG_TYPE)
    return dictionary_array(_firsts(rows), _dictionary(value), False)


def _dictionary(*values: str) -> pa.Array:
    return pa.array(values, TAG_TYPE.value_type)


def _firsts(rows: int) -> pa.Array:
    """Indices that all are the first value's."""
    return pa.Array.from_buffers(TAG_TYPE.index_type, rows, [None, pa.py_buffer(bytes(4 * rows))], 0)


def filled_tag(array: pa.Array, default: str) -> pa.Array:
    """A tag as it travels, with the default instead of what is missing.

    >>> filled_tag(pa.array(["1", None], TAG_TYPE), "2").to_pylist()
    ['1', '2']
    """
    if not array.null_count:
        return array
    values = array.dictionary
    place = pc.index(values, pa.scalar(default, TAG_TYPE.value_type)).as_py()
    if place < 0:
        place, values = len(values), pa.concat_arrays([values, _dictionary(default)])
    return dictionary_array(array.indices.fill_null(place), values, False)


def _with_default(field: Any, array: Any, default: str) -> tuple[Any, Any]:
    """A column of tags with the default instead of what is missing, and its field."""
    descriptor = (field.metadata or {}).get(KEY)
    if descriptor in TAGS:
        return field, filled_tag(array, default)
    if descriptor == OBJECTS["str"].descriptor:  # objects with NaN and NA among them, which go
        return OBJECT_TAG.field(field.name), filled_tag(array.dictionary_encode(), default)
    if not pa.types.is_dictionary(field.type):
        raise refuse(field.name, f"its Arrow type is {field.type}", TEXT_ADVICE)
    if not array.null_count:
        return field, array
    if descriptor is not None:
        values = _category_with(rule_for(field).decode(array), default)
        rule = tag_rule_of(values.dtype, field.name)
        return rule.field(field.name), rule.encode(values, field.name)
    try:
        filled = array.dictionary_decode().cast(pa.large_string()).fill_null(default)
        return field, filled.cast(field.type.value_type).dictionary_encode().cast(field.type)
    except pa.ArrowInvalid as error:
        reason = f"{default!r} does not fit into its dictionary ({error})"
        raise refuse(field.name, reason, "use a larger index type") from error


def _category_with(values: Any, default: str) -> Any:
    """A categorical in which the default stands instead of what is missing."""
    categories = values.categories
    if default not in categories:
        categories = pd.Index([*categories, default], dtype=categories.dtype)
    codes = np.where(values.codes < 0, categories.get_loc(default), values.codes)
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(categories, values.ordered))
