"""A moment as people give it: text, a datetime, or whatever else ``pandas.Timestamp`` takes. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import pandas as pd

from quixframes.errors import SettingsError

__all__ = ["moment"]


def moment(value: Any, name: str, unit: Literal["s", "ms", "us", "ns"] | None = None) -> pd.Timestamp:
    """The moment in UTC, which is what one without a zone means; in ``unit``, or in that in which it is given.

    >>> moment("2026-11-15 14:00+01:00", "start")
    Timestamp('2026-11-15 13:00:00+0000', tz='UTC')

    Raises:
        SettingsError: it is none, or the unit cannot hold it; ``name`` is what the error calls it.
    """
    try:
        stamp = pd.Timestamp(value)
        if pd.isna(stamp):
            raise ValueError("it is missing")
        stamp = stamp.tz_localize(dt.UTC) if stamp.tz is None else stamp.tz_convert(dt.UTC)
        return stamp if unit is None else stamp.as_unit(unit)
    except (ValueError, TypeError) as exc:
        raise SettingsError(f"{name}={value!r} is not a moment: {exc}") from None
