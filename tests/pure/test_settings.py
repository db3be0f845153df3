"""Settings: durations and sizes as people write them, and everything that cannot be refused where it is written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quixframes import (
    AutoOffsetReset,
    BufferSettings,
    CommitMode,
    CommitSettings,
    ReaderSettings,
    SettingsError,
    WriterSettings,
)
from quixframes.settings import Connection, byte_count, nanoseconds, seconds

DURATIONS: list[tuple[Any, int]] = [
    ("500ms", 500 * 10**6),
    ("1.5 s", 1500 * 10**6),
    ("7 days", 7 * 86_400 * 10**9),
    ("1 min", 60 * 10**9),
    ("2h", 7200 * 10**9),
    ("3 weeks", 21 * 86_400 * 10**9),
    ("10us", 10_000),
    (" 1 NS ", 1),
    (".5s", 5 * 10**8),
    (2, 2 * 10**9),
    (0.25, 25 * 10**7),
    (dt.timedelta(milliseconds=3), 3 * 10**6),
    (pd.Timedelta("1us7ns"), 1007),
]


@pytest.mark.parametrize(("written", "ns"), DURATIONS)
def test_durations_are_read_as_people_write_them(written: Any, ns: int) -> None:
    assert nanoseconds(written) == ns
    assert seconds(written) == ns / 10**9


@given(st.integers(1, 100_000), st.sampled_from(["ns", "us", "ms", "s", "min", "h", "days"]))
def test_a_duration_means_what_pandas_means_by_it(count: int, unit: str) -> None:
    assert nanoseconds(f"{count} {unit}") == pd.Timedelta(count, unit).as_unit("ns").value


@pytest.mark.parametrize(
    "written", ["", "soon", "5", "5 fortnights", "-1s", "0s", 0, -1, True, None, float("nan"), float("inf"), "1s2"]
)
def test_what_is_no_duration_is_refused_by_name(written: Any) -> None:
    with pytest.raises(SettingsError, match="linger="):
        nanoseconds(written, name="linger")


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("16 MB", 16 * 10**6),
        ("1 MiB", 1 << 20),
        ("1.5kB", 1500),
        ("2 GiB", 2 << 30),
        ("7", 7),
        ("8 B", 8),
        (4096, 4096),
    ],
)
def test_sizes_are_read_as_people_write_them(written: Any, count: int) -> None:
    assert byte_count(written) == count


@pytest.mark.parametrize("written", ["", "big", "1 MBit", "-1 MB", "0", 0, -5, 1.5, True, None, np.float64(3)])
def test_what_is_no_size_is_refused_by_name(written: Any) -> None:
    with pytest.raises(SettingsError, match="memory="):
        byte_count(written, name="memory")


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: BufferSettings(rows=0), "rows=0"),
    (lambda: BufferSettings(rows=1.5), "rows=1.5"),  # type: ignore[arg-type]
    (lambda: BufferSettings(rows=True), "rows=True"),
    (lambda: BufferSettings(time_span="0s"), "time_span="),
    (lambda: BufferSettings(timeout="never"), "timeout="),
    (lambda: BufferSettings(bytes="many"), "bytes="),
    (lambda: BufferSettings(trigger="x"), "trigger="),  # type: ignore[arg-type]
    (lambda: BufferSettings(filter=3), "filter="),  # type: ignore[arg-type]
    (lambda: CommitSettings(mode="Manual"), "CommitMode.Automatic or CommitMode.Manual"),  # type: ignore[arg-type]
    (lambda: CommitSettings(rows=0), "rows=0"),
    (lambda: CommitSettings(every="x"), "every="),
    (lambda: WriterSettings(delivery_timeout=0), "delivery_timeout="),
    (lambda: WriterSettings(memory="x"), "memory="),
    (lambda: WriterSettings(compression="rar"), "compression='rar'"),
    (lambda: ReaderSettings(prefetch=0), "prefetch=0"),
    (lambda: ReaderSettings(held="x"), "held="),
    (lambda: ReaderSettings(model_timeout=0), "model_timeout="),
    (lambda: AutoOffsetReset.of("middle"), "'earliest' or 'latest'"),
    (lambda: Connection.of(""), "no broker address"),
    (lambda: Connection.of("localhost"), "'host:port'"),
    (lambda: Connection.of("localhost:70000"), "'host:port'"),
    (lambda: Connection.of([":9092"]), "'host:port'"),
]


@pytest.mark.parametrize(("make", "text"), REFUSED)
def test_a_setting_that_cannot_be_is_refused_where_it_is_made(make: Callable[[], object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        make()


def test_settings_accept_the_short_forms() -> None:
    assert CommitSettings.of(CommitMode.Manual) == CommitSettings(mode=CommitMode.Manual)
    assert AutoOffsetReset.of("Latest") is AutoOffsetReset.Latest
    assert Connection.of("a:1, b:2").brokers == ("a:1", "b:2")
    assert Connection.of("[::1]:9092").brokers == ("[::1]:9092",)


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        BufferSettings().rows = 5  # type: ignore[misc]
