"""Time zones by name, and the rule of datetimes with a zone.

Arrow knows a zone by its name or offset only; pandas also by the library that it comes from. So the descriptor says
the library, and a zone is carried where library and name restore the very same zone.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from datetime import UTC, timedelta, timezone, tzinfo
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quixframes.columns import NAT, bits, nulls, refuse
from quixframes.rules import Rule

__all__ = ["ZONES", "zone_named", "zoned_rule", "zoned_rule_of"]

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


def zone_named(library: bytes, text: str) -> tzinfo | None:
    """The zone of that name, or None where this machine does not know it."""
    try:
        return ZONES[library](text)
    except Exception:  # zoneinfo alone raises five kinds, by what is wrong with the name
        return None


def zoned_rule(dtype: pd.DatetimeTZDtype, library: bytes, text: str) -> Rule:
    arrow = pa.timestamp(dtype.unit, text)
    naive = pa.timestamp(dtype.unit)
    numpy = np.dtype(f"M8[{dtype.unit}]")

    def encode(values: Any, column: object) -> pa.Array:
        return pa.array(np.array(values, dtype=numpy), type=naive, from_pandas=False).view(arrow)

    def decode(array: pa.Array) -> Any:
        values = bits(array, np.dtype(np.int64))
        if array.null_count:
            values[nulls(array)] = NAT
        return pd.DatetimeIndex(values, dtype=dtype, copy=False).array  # integers are instants, whatever the zone

    return Rule(dtype, arrow, library, encode, decode)


def zoned_rule_of(dtype: pd.DatetimeTZDtype, column: object) -> Rule:
    library, text = _zone_text(dtype.tz)
    zone = zone_named(library, text) if library else None
    if zone is None and dtype == pd.DatetimeTZDtype(dtype.unit, UTC):
        return zoned_rule(dtype, b"timezone", "UTC")  # the UTC of another library, to pandas the same
    if zone is None or pd.DatetimeTZDtype(dtype.unit, zone) != dtype or str(zone) != str(dtype.tz):
        raise refuse(
            column,
            f"the time zone {dtype.tz!r} cannot be restored by its name",
            "convert it with .dt.tz_convert('UTC') or to a named zone such as 'Europe/Berlin'",
        )
    return zoned_rule(dtype, library, text)
