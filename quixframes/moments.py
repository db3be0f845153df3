"""A moment as people give it: text, a datetime, or whatever else ``pandas.Timestamp`` takes. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import numpy as np
import pandas as pd

from quixframes.errors import SettingsError

__all__ = ["moment", "past_or_moment"]


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


def past_or_moment(given: Any, name: str, now: pd.Timestamp) -> pd.Timestamp:
    """The moment in UTC, in nanoseconds; or, of a negative duration, so long before ``now``.

    >>> past_or_moment("-10min", "start", pd.Timestamp("2026-11-15 14:00", tz="UTC"))
    Timestamp('2026-11-15 13:50:00+0000', tz='UTC')

    Raises:
        SettingsError: it is neither; ``name`` is what the error calls it.
    """
    if isinstance(given, bool):
        raise SettingsError(f"{name}={given!r} is not a moment")
    if isinstance(given, str) and given.lstrip().startswith("-"):
        try:
            given = pd.Timedelta(given)
        except ValueError:
            raise SettingsError(
                f"{name}={given!r} is no time before now: write it as in '-10min' or '-7 days'"
            ) from None
    if isinstance(given, np.timedelta64):
        given = pd.Timedelta(given)
    if hasattr(given, "total_seconds"):  # a timedelta, of Python's or of pandas'
        past = pd.Timedelta(given)
        if pd.isna(past) or past > pd.Timedelta(0):
            raise SettingsError(f"{name}={given!r} counts back from now: it has to be negative, as in '-10min'")
        given = now + past
    return moment(given, name, "ns")
