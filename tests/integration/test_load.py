"""``client.load``: files and frames into topics of a real Kafka, each row once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import quixframes as qf
from tests.waiting import wait_for


def laps(rows: int, start: int = 0) -> pd.DataFrame:
    """Rows a second apart of three cars in turn."""
    index = pd.date_range("2026-11-15", periods=rows, freq="s", tz="UTC", unit="ns", name="time") + pd.Timedelta(
        start, "s"
    )
    n = np.arange(start, start + rows)
    return pd.DataFrame({"car": [f"car-{one % 3}" for one in n], "n": n, "speed": n / 7}, index=index)


def loaded(client: qf.StreamingClient, topic: str) -> pd.DataFrame:
    return client.replay(topic, progress=False).to_frame()


def test_files_are_loaded_in_the_order_of_their_names_each_stream_in_order(
    client: qf.StreamingClient, topic: str, tmp_path: Path
) -> None:
    for part in range(3):
        laps(1_000, part * 1_000).to_parquet(tmp_path / f"laps-{part}.parquet")
    done = client.load(tmp_path, topic, by="car", rows=300, progress=False)
    assert (done.topic, done.rows, done.before) == (topic, 3_000, 0)
    found = loaded(client, topic)
    for car in range(3):
        expected = laps(3_000).query(f"car == 'car-{car}'").drop(columns="car")
        part = found[found["stream"] == f"car-{car}"].drop(columns="stream")
        pd.testing.assert_frame_equal(part, expected, check_freq=False)


def test_a_csv_file_has_one_dtype_for_each_column_and_its_time_where_it_was_said(
    client: qf.StreamingClient, topic: str, tmp_path: Path
) -> None:
    rows = laps(1_000).reset_index(names="valid")
    rows.to_csv(tmp_path / "laps.csv.gz", index=False)
    client.load(tmp_path / "*.csv.gz", topic, stream="all", time="valid", rows=100, progress=False)
    found = loaded(client, topic)
    assert found["n"].dtype == "int64"
    assert found["n"].tolist() == list(range(1_000))
    assert (found.index == laps(1_000).index).all()


def test_a_column_that_changes_its_kind_in_a_csv_file_is_refused_with_what_to_do(
    client: qf.StreamingClient, topic: str, tmp_path: Path
) -> None:
    rows = laps(300).reset_index()
    rows["n"] = rows["n"].astype(object)
    rows.loc[250, "n"] = "pit"
    rows.to_csv(tmp_path / "laps.csv", index=False)
    with pytest.raises(qf.FrameError, match=r"rows 200 to 300: column 'n' is int64 in the first rows .*dtype="):
        client.load(tmp_path / "laps.csv", topic, stream="all", rows=100, progress=False)
    assert loaded(client, topic).empty  # a load that nobody can go on with as it is


def test_what_is_loaded_is_not_loaded_twice_unless_that_was_said(
    client: qf.StreamingClient, topic: str, tmp_path: Path
) -> None:
    laps(100).to_parquet(tmp_path / "laps.parquet")
    client.load(tmp_path / "laps.parquet", topic, stream="all", progress=False)
    with pytest.raises(qf.SettingsError, match=r"all of it is in topic .*: 100 rows were loaded; again=True"):
        client.load(tmp_path / "laps.parquet", topic, stream="all", progress=False)
    client.load(tmp_path / "laps.parquet", topic, stream="all", again=True, progress=False)
    assert len(loaded(client, topic)) == 200


def test_other_files_under_the_name_of_a_load_are_refused(
    client: qf.StreamingClient, topic: str, tmp_path: Path, group: str
) -> None:
    broken = laps(100).reset_index()
    broken["time"] = broken["time"].astype(str)
    broken.loc[80, "time"] = "noon"
    broken.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(qf.FrameError, match="no time"):
        client.load(tmp_path / "a.csv", topic, stream="all", name=group, rows=10, pace=1e9, progress=False)
    laps(100).to_parquet(tmp_path / "b.parquet")
    client.load(tmp_path / "b.parquet", topic, stream="all", name=f"{group}-2", progress=False)
    with pytest.raises(qf.SettingsError, match="all of it is in topic"):
        client.load(tmp_path / "a.csv", topic, stream="all", name=f"{group}-2", progress=False)


def test_frames_are_gone_on_with_under_their_name_after_an_error(
    client: qf.StreamingClient, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quixframes.load._COMMIT_EVERY", 0.0)

    def frames(until: int) -> Iterator[pd.DataFrame]:
        for start in range(0, until, 10):
            yield laps(10, start)
        if until < 100:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone") as caught:
        client.load(frames(50), topic, stream="all", name=group, progress=False)
    assert "50 rows are loaded" in caught.value.__notes__[-1]
    done = client.load(frames(100), topic, stream="all", name=group, progress=False)
    assert (done.rows, done.before) == (100, 50)
    assert loaded(client, topic)["n"].tolist() == list(range(100))


def test_a_pace_gives_rows_when_their_times_say(client: qf.StreamingClient, topic: str) -> None:
    begun = time.monotonic()
    client.load(laps(21), topic, stream="all", pace=20, progress=False)
    assert time.monotonic() - begun >= 1.0
    arrived = client.replay(topic, progress=False).describe().streams["messages"].sum()
    assert arrived > 5


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"stream": "a", "pace": 0}, "a speed of 0 is none"),
        ({"stream": "a", "by": "car"}, "stream= for all rows, or by="),
        ({}, "stream= for all rows, or by="),
        ({"stream": "a", "rows": 0}, "rows"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    client: qf.StreamingClient, topic: str, given: dict[str, object], error: str
) -> None:
    with pytest.raises(qf.SettingsError, match=error):
        client.load(laps(10), topic, **given)  # type: ignore[arg-type]


def test_no_file_and_another_kind_of_file_are_refused(client: qf.StreamingClient, topic: str, tmp_path: Path) -> None:
    with pytest.raises(qf.SettingsError, match=r"there is no file '.*nothing\.csv'"):
        client.load(tmp_path / "nothing.csv", topic, stream="a")
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(qf.SettingsError, match=r"thesis\.tex is neither Parquet nor CSV"):
        client.load(tmp_path / "thesis.tex", topic, stream="a")


_KILLED = """
import sys, quixframes as qf, quixframes.load
quixframes.load._COMMIT_EVERY = 0.05
client = qf.StreamingClient(sys.argv[1])
client.load(sys.argv[3], sys.argv[2], by="car", rows=50, pace=2_000, progress=False)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.faults)])
def test_a_load_that_is_killed_again_and_again_has_each_row_once(
    kills: int, broker_address: str, client: qf.StreamingClient, topic: str, tmp_path: Path
) -> None:
    """Each run gets SIGKILL after some of its rows are in the topic; the next one goes on at once."""
    laps(60_000).to_parquet(tmp_path / "laps.parquet")

    def rows() -> int:
        return int(client.replay(topic, progress=False).describe().streams["rows"].sum())

    for _ in range(kills):
        before = rows()
        command = [sys.executable, "-c", _KILLED, broker_address, topic, str(tmp_path / "laps.parquet")]
        with subprocess.Popen(command) as loader:
            wait_for(lambda before=before, loader=loader: rows() > before or loader.poll() is not None)
            loader.kill()
            assert loader.wait() == -signal.SIGKILL, "it was through before it could be killed"
    client.load(tmp_path / "laps.parquet", topic, by="car", progress=False)
    found = loaded(client, topic)
    for car in range(3):
        assert found[found["stream"] == f"car-{car}"]["n"].tolist() == list(range(car, 60_000, 3))
