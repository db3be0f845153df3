"""Events ⇄ record batches. Pure: no I/O, no thread, no clock.

An event has a time, an ID that says what it is, a value (text, or missing) and tags. Its normal form is a record batch
of these columns, all without field metadata, so that any writer in any language makes the same:

==========  =====================================  ====================
column      Arrow type                             may be null
==========  =====================================  ====================
``time``    timestamp[ns, UTC]                     no
``id``      dictionary of int32 and large_string   no; nor empty
``value``   large_string                           yes
``TAG__x``  dictionary of int32 and large_string   yes; any number of these
==========  =====================================  ====================

Whatever kind of string an event was written with, it is read as the dtype that pandas itself gives to strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.columns import OBJECT, refuse
from quixframes.errors import FrameError
from quixframes.frames import TIME, TIME_FIELD, UTC_NS, FrameEncoder, check_values, layout_of, times_array
from quixframes.record_batches import concat, lone_nbytes
from quixframes.rows import collect, texts_of, times_of_rows
from quixframes.rules import OBJECTS, TAG, TAG_TYPE, TAGS, TEXT_ADVICE, text_dtype
from quixframes.tags import checked_tags, constant_tag, filled_tag
from quixframes.times import time_ns

__all__ = ["Events", "check_events", "decode_events", "empty_events", "encode_events", "event_nbytes", "event_row"]

Events = pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Events as people have them: a DataFrame, one event as a dict, or a list of such dicts."""

ID, VALUE, IN_ONE = "id", "value", "tags"
ID_FIELD = pa.field(ID, TAG_TYPE, nullable=False)
VALUE_FIELD = pa.field(VALUE, pa.large_string())
FIXED = [TIME_FIELD, ID_FIELD, VALUE_FIELD]
FIXED_SIZE, TEXT_SIZE = 16, 12  # bytes that an event takes for time and value; and for its ID and each tag
OBJECT_TAG, OBJECT_TEXT = TAGS[b"tag:object[str]"], OBJECTS["str"]

# --- writing ----------------------------------------------------------------------------------------------------------


def event_row(id: str, time: Any, value: str | None = None, tags: Mapping[str, str] | None = None) -> dict[str, Any]:
    """One event as a dict that `encode_events` takes.

    >>> event_row("pit-stop", 0, "tyres", {"lap": "12"})
    {'time': 0, 'id': 'pit-stop', 'value': 'tyres', 'tags': {'lap': '12'}}
    """
    return {TIME: time, ID: id, VALUE: value, IN_ONE: {} if tags is None else tags}


def encode_events(events: Events, *, epoch: int = 0, default_tags: Mapping[str, str] | None = None) -> pa.RecordBatch:
    """Events as a ``pa.RecordBatch`` in normal form, in their order.

    A DataFrame has the time as in `FrameEncoder.encode`, a column ``id``, and may have ``value`` and ``TAG__`` columns.
    A dict is one event, a list of dicts several: the same names, or the tags without ``TAG__`` as a dict ``tags``.
    Integers and timedeltas count from ``epoch``, in nanoseconds. An event that lacks one of the ``default_tags`` gets
    it. Raises `FrameError` for what is no event, `SettingsError` for default tags that cannot be.

    >>> batch = encode_events({"time": 5, "id": "pit-stop", "value": "tyres", "tags": {"lap": "12"}})
    >>> batch.schema.names
    ['time', 'id', 'value', 'TAG__lap']
    """
    if isinstance(events, pd.DataFrame):
        time, texts = _columns_of_frame(events, epoch)
    else:
        time, texts = _columns_of_rows([events] if isinstance(events, Mapping) else events, epoch)
    ids = texts.pop(ID, None)
    if ids is None:
        raise FrameError("the events have no column 'id', which says what each of them is", column=ID)
    _check_ids(ids)
    values = texts.pop(VALUE, None)
    for name, default in checked_tags(default_tags or {}).items():
        tag = texts.get(TAG + name)
        texts[TAG + name] = constant_tag(default, len(time)) if tag is None else filled_tag(tag, default)
    fields = [*FIXED, *(pa.field(name, TAG_TYPE) for name in texts)]
    values = pa.nulls(len(time), VALUE_FIELD.type) if values is None else values.dictionary_decode()
    return pa.RecordBatch.from_arrays([time, ids, values, *texts.values()], schema=pa.schema(fields))


def _columns_of_rows(rows: Sequence[Mapping[str, Any]], epoch: int) -> tuple[Any, dict[str, Any]]:
    """The time and the other columns, each as a tag travels."""
    columns = collect([_flat(row, place) for place, row in enumerate(rows)])
    layout = layout_of(tuple(columns), False)
    _check_names(layout.names)
    (name,) = columns.keys() - set(layout.names)
    time = time_ns(times_of_rows(columns[name], name), epoch, name)
    texts = {name: OBJECT_TAG.encode(texts_of(columns[name], name, OBJECT), name) for name in layout.names}
    return times_array(time), texts


def _flat(event: Mapping[str, Any], row: int) -> Mapping[str, Any]:
    """An event as a dict of columns, with its tags among them."""
    if not isinstance(event, Mapping):
        raise FrameError(
            f"event {row} is a {type(event).__name__}: write a DataFrame, a dict, or a list of dicts", row=row
        )
    if IN_ONE not in event:
        return event
    tags = event[IN_ONE]
    if tags is None:
        tags = {}
    if not isinstance(tags, Mapping) or not all(isinstance(name, str) for name in tags):
        raise refuse(IN_ONE, f"{tags!r:.80} does not map names to values", "write tags={'lap': '12'}", row)
    flat = {name: value for name, value in event.items() if name != IN_ONE}
    for name, value in tags.items():
        column = name if name.startswith(TAG) else TAG + name
        if column in flat:
            raise refuse(column, "the event has this tag twice", "write it once", row)
        flat[column] = value
    return flat


def _columns_of_frame(frame: pd.DataFrame, epoch: int) -> tuple[Any, dict[str, Any]]:
    """The time and the other columns, each as a tag travels."""
    batch = FrameEncoder().encode(frame, epoch=epoch)
    time, *arrays = batch.columns
    names = batch.schema.names[1:]
    _check_names(names)
    return time, {name: _text_of(array, name) for name, array in zip(names, arrays, strict=True)}


def _text_of(array: Any, name: str) -> Any:
    """A column of strings, however they travel, as a tag does."""
    arrow = array.type
    if arrow == TAG_TYPE:
        return array
    if pa.types.is_floating(arrow) and array.is_null(nan_is_null=True).true_count == len(array):
        return pa.nulls(len(array), TAG_TYPE)  # what pandas makes of a column in which everything is missing
    if pa.types.is_dictionary(arrow):
        array = array.dictionary_decode()
    if array.type not in (pa.string(), pa.large_string(), pa.string_view()):
        raise refuse(name, f"it holds {arrow}", TEXT_ADVICE)
    return array.cast(pa.large_string()).dictionary_encode()


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name not in (ID, VALUE) and not (name.startswith(TAG) and name != TAG):
            advice = f"an event has a time, an id, a value and tags: name it {TAG}{name}, or drop it"
            raise refuse(name, "events have no such column", advice)


def _check_ids(ids: Any) -> None:
    """FrameError for an event without an ID."""
    if ids.null_count or not all(ids.dictionary.to_pylist()):
        row = next((row for row, text in enumerate(ids.to_pylist()) if not text), None)
        if row is not None:
            raise refuse(ID, "the event has no ID, or an empty one", "write what it is, as in id='pit-stop'", row)


# --- reading ----------------------------------------------------------------------------------------------------------


def decode_events(batches: Sequence[pa.RecordBatch]) -> pd.DataFrame:
    """Events of ``pa.RecordBatch`` in normal form as one DataFrame, in their order.

    Its index is a DatetimeIndex named ``time`` (UTC, ns); its columns are ``id``, ``value`` and the tags that any of
    the batches has, in order of appearance, all of pandas' own dtype for strings: missing where a batch lacks one.

    >>> first = encode_events({"time": 0, "id": "start", "value": None})
    >>> second = encode_events({"time": 5, "id": "pit-stop", "value": "tyres", "TAG__lap": "12"})
    >>> decode_events([first, second])["TAG__lap"].tolist()[1:]
    ['12']
    """
    batch = _one(batches)
    rows = batch.column(0).to_numpy().view(np.int64).copy()
    index = pd.DatetimeIndex(rows, dtype=UTC_NS, copy=False, name=TIME)
    dtype = text_dtype()
    data = {name: _strings(array, dtype) for name, array in zip(batch.schema.names[1:], batch.columns[1:], strict=True)}
    if dtype == OBJECT:  # pandas 3 would make strings of an object array, unless it comes as a Series
        data = {name: pd.Series(values, index, OBJECT, copy=False) for name, values in data.items()}
    return pd.DataFrame(data, index=index, copy=False)


def empty_events() -> pd.DataFrame:
    """No events, as a DataFrame with the columns and dtypes of events."""
    return decode_events([])


def event_nbytes(events: pa.RecordBatch) -> list[int]:
    """The bytes of each event of a ``pa.RecordBatch`` in normal form, with its texts, as `lone_nbytes` counts them.

    >>> event_nbytes(encode_events({"time": 5, "id": "pit-stop", "value": "tyres"}))
    [41]
    """
    if events.num_rows != 1:
        sizes: list[int] = lone_nbytes(events).tolist()
        return sizes
    # Most messages are of one event, for which the general way takes longer than all the rest.
    texts = [column[0].as_py() for column in events.columns[1:]]
    return [FIXED_SIZE + TEXT_SIZE * (len(texts) - 1) + sum(len(text.encode()) for text in texts if text)]


def _one(batches: Sequence[pa.RecordBatch]) -> Any:
    """The batches as one, with nulls for the tags that some of them lack."""
    fields = dict.fromkeys(name for batch in batches for name in batch.schema.names[len(FIXED) :])
    schema = pa.schema([*FIXED, *(pa.field(name, TAG_TYPE) for name in fields)])
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=schema)
    return concat([batch if batch.schema.equals(schema) else _widened(batch, schema) for batch in batches])


def _widened(batch: Any, schema: Any) -> Any:
    have = dict(zip(batch.schema.names, batch.columns, strict=True))
    arrays = [have.get(name) for name in schema.names]
    nulls = constant_tag(None, batch.num_rows)
    return pa.RecordBatch.from_arrays([nulls if array is None else array for array in arrays], schema=schema)


def _strings(array: Any, dtype: Any) -> Any:
    """A column of strings as values of pandas' own dtype for them."""
    if array.type != TAG_TYPE:
        array = array.dictionary_encode()
    rule = OBJECT_TAG if dtype == OBJECT else next(rule for rule in TAGS.values() if rule.dtype == dtype)
    return rule.decode(array)


def check_events(batch: pa.RecordBatch) -> None:
    """Raise `FrameError` unless a ``pa.RecordBatch`` of whatever origin, on which ``batch.validate(full=True)`` was
    called, is in the normal form of events. That makes `decode_events` safe."""
    schema = batch.schema
    try:
        names = schema.names
    except UnicodeDecodeError:
        raise FrameError("a column's name is not UTF-8") from None
    if len(set(names)) != len(names):
        raise FrameError("two columns have the same name")
    _check_names([name for name in names if name != TIME])
    expected = pa.schema([*FIXED, *(pa.field(name, TAG_TYPE) for name in names[len(FIXED) :])])
    if not schema.equals(expected, check_metadata=True):
        raise FrameError(f"the columns are not those of events, as {ID_FIELD} and {VALUE_FIELD}: {schema!s:.200}")
    check_values(batch)
    _check_ids(batch.column(1))
