"""What a message's headers say of it, without a look at its value. Pure.

What this module holds to: headers are believed only where all of them make sense. Of any other message nothing is said
here, so that whoever asks has to read it, and is told then what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from quixframes.kafka import Record
from quixframes.wire import VERSION, Kind

__all__ = ["Glance", "glance"]

_VERSION = b"%d" % VERSION
_KINDS = {kind.value.encode(): kind for kind in Kind}


class Glance(NamedTuple):
    """What the headers of one of quixframes' own messages say.

    ``rows`` is 0 in kinds that have none. ``first`` and ``last`` are the earliest and the latest event time in
    nanoseconds since 1970; None in kinds that have no rows, and where the writer did not say them.
    """

    stream_id: str
    kind: Kind
    rows: int
    first: int | None
    last: int | None
    headers: Mapping[str, bytes | None]


def glance(record: Record) -> Glance | None:
    """What a record's headers say; None where it has to be read to know."""
    headers = dict(record.headers)
    if headers.get("qf.version") != _VERSION or not record.key:
        return None
    kind = _KINDS.get(headers.get("qf.kind") or b"")
    try:
        stream_id = str(record.key, "utf-8")
        if kind is not Kind.PARAMETERS and kind is not Kind.EVENTS:
            return None if kind is None else Glance(stream_id, kind, 0, None, None, headers)
        rows = int(headers.get("qf.rows") or b"")
        said = headers.get("qf.first"), headers.get("qf.last")
        first, last = (None, None) if said[0] is None or said[1] is None else (int(said[0]), int(said[1]))
    except ValueError:
        return None
    if rows < 1 or (first is not None and last is not None and first > last):
        return None
    return Glance(stream_id, kind, rows, first, last, headers)
