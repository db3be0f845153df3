"""``Replay.to_parquet``: retained data of a real Kafka as datasets of Parquet files."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import quixframes as qf
from tests.conftest import MakeTopic
from tests.waiting import wait_for


def laps(stream: int, rows: int = 600) -> pd.DataFrame:
    """Rows a minute apart over midnight, of several dtypes."""
    random = np.random.default_rng(stream)
    index = pd.date_range("2026-11-15 18:00", periods=rows, freq="min", tz="UTC", unit="ns", name="time")
    return pd.DataFrame(
        {
            "n": np.arange(rows) + stream * 1_000_000,
            "speed": random.standard_normal(rows).astype("float32"),
            "gear": pd.array(random.integers(1, 8, rows), dtype="Int8"),
            "flag": pd.Categorical(random.choice(["green", "red"], rows)),
        },
        index=index,
    )


@pytest.fixture
def written(client: qf.StreamingClient, make_topic: MakeTopic) -> str:
    """A topic of two partitions with four streams."""
    topic = make_topic(partitions=2)
    with client.open_output_topic(topic) as out:
        for start in range(0, 600, 50):
            for stream in range(4):
                out.write(laps(stream).iloc[start : start + 50], stream=f"car/{stream}")
    return topic


def everything(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path).sort_values("n", kind="stable")


def test_a_dataset_has_each_row_once_in_folders_by_stream_and_day_with_the_dtypes_that_were_written(
    client: qf.StreamingClient, written: str, tmp_path: Path
) -> None:
    dataset = client.replay(written, progress=False).to_parquet(tmp_path / "laps")
    assert (dataset.rows, dataset.files) == (2_400, 8)
    assert dataset.bytes == sum(file.stat().st_size for file in dataset.path.rglob("*.parquet"))
    for stream in range(4):
        folder = dataset.path / f"stream=car%2F{stream}"
        assert sorted(day.name for day in folder.iterdir()) == ["day=2026-11-15", "day=2026-11-16"]
        found = pd.concat([pd.read_parquet(next((folder / f"day=2026-11-{day}").iterdir()), partitioning=None)
                           for day in (15, 16)])  # fmt: skip
        pd.testing.assert_frame_equal(found, laps(stream), check_freq=False)
    streams = pd.read_parquet(dataset)["stream"]
    assert set(streams) == {"car/0", "car/1", "car/2", "car/3"}


def test_without_folders_the_stream_is_a_column_and_rows_of_a_stream_keep_their_order(
    client: qf.StreamingClient, written: str, tmp_path: Path
) -> None:
    dataset = client.replay(written, progress=False).to_parquet(tmp_path / "laps", partition_by=())
    found = pd.read_parquet(dataset)
    assert dataset.files == 1
    for stream in range(4):
        part = found[found["stream"] == f"car/{stream}"].drop(columns="stream")
        pd.testing.assert_frame_equal(part, laps(stream), check_freq=False)


def test_small_steps_make_more_files_of_the_same_rows(client: qf.StreamingClient, written: str, tmp_path: Path) -> None:
    dataset = client.replay(written, progress=False).to_parquet(tmp_path / "laps", partition_by="stream", step=10_000)
    assert dataset.files > 8
    assert everything(dataset.path)["n"].tolist() == np.concatenate([laps(s)["n"] for s in range(4)]).tolist()


def test_only_the_rows_that_were_asked_for_are_in_a_dataset(
    client: qf.StreamingClient, written: str, tmp_path: Path
) -> None:
    replay = client.replay(written, ["car/1", "car/2"], ["n"], start="2026-11-16", end="2026-11-17", progress=False)
    dataset = replay.to_parquet(tmp_path / "laps", compression="zstd")
    found = everything(dataset.path)
    assert found.columns.tolist() == ["n", "stream", "day"]
    assert found["n"].tolist() == [n + s * 1_000_000 for s in (1, 2) for n in range(360, 600)]
    assert pq.ParquetFile(next(dataset.path.rglob("*.parquet"))).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_dataset_of_nothing_is_a_dataset(client: qf.StreamingClient, topic: str, tmp_path: Path) -> None:
    dataset = client.replay(topic, progress=False).to_parquet(tmp_path / "laps")
    assert (dataset.rows, dataset.files, dataset.bytes) == (0, 0, 0)


def test_columns_that_come_later_are_in_the_schema_of_all(
    client: qf.StreamingClient, topic: str, tmp_path: Path
) -> None:
    with client.open_output_topic(topic) as out:
        out.write(laps(0, 5)[["n"]], stream="a")
        out.write(laps(0, 5)[["n", "speed"]], stream="a")
        out.write(laps(0, 5)[["speed"]], stream="b")
    dataset = client.replay(topic, progress=False).to_parquet(tmp_path / "laps", partition_by=(), step=1)
    schema = pq.read_schema(dataset.path / "_common_metadata")
    assert schema.names == ["time", "stream", "n", "speed"]
    found = ds.dataset(dataset.path, schema=schema).to_table().to_pandas()
    assert (found["n"].count(), found["speed"].count(), len(found)) == (10, 10, 15)


def test_a_column_of_two_types_is_refused_and_named(client: qf.StreamingClient, topic: str, tmp_path: Path) -> None:
    with client.open_output_topic(topic) as out:
        out.write(laps(0, 5)[["n"]], stream="a")
        out.write(laps(0, 5)[["n"]].astype("float64"), stream="a")
    with pytest.raises(qf.FrameError, match="'n' is int64 in some messages and double in others"):
        client.replay(topic, progress=False).to_parquet(tmp_path / "laps")


def test_a_column_named_as_a_folder_is_refused(client: qf.StreamingClient, topic: str, tmp_path: Path) -> None:
    with client.open_output_topic(topic) as out:
        out.write(laps(0, 5)[["n"]].rename(columns={"n": "day"}), stream="a")
    with pytest.raises(qf.FrameError, match="a column 'day', as the dataset would"):
        client.replay(topic, progress=False).to_parquet(tmp_path / "laps")


def test_a_folder_that_holds_something_else_is_left_alone(
    client: qf.StreamingClient, written: str, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(qf.SettingsError, match=r"'thesis.tex' in it"):
            client.replay(written, progress=False).to_parquet(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_whole_dataset_is_written_anew_only_where_that_was_said(
    client: qf.StreamingClient, written: str, tmp_path: Path
) -> None:
    client.replay(written, progress=False).to_parquet(tmp_path / "laps")
    with pytest.raises(qf.SettingsError, match=r"has been written: 2,400 rows in 8 files; overwrite=True"):
        client.replay(written, progress=False).to_parquet(tmp_path / "laps")
    again = client.replay(written, "car/1", progress=False).to_parquet(tmp_path / "laps", overwrite=True)
    assert len(everything(again.path)) == again.rows == 600


def test_an_unknown_key_is_refused(client: qf.StreamingClient, written: str, tmp_path: Path) -> None:
    with pytest.raises(qf.SettingsError, match="partition_by=.'week'. has to be some of topic, stream, year, month"):
        client.replay(written, progress=False).to_parquet(tmp_path / "laps", partition_by=["week"])


def test_who_is_interrupted_goes_on_with_the_same_call_and_with_no_other(
    client: qf.StreamingClient, written: str, tmp_path: Path
) -> None:
    """What is read stays what the first run began with, though its start is said from now and the topic has grown."""
    seen: list[int] = []

    def until(frame: pd.DataFrame) -> np.ndarray:
        seen.append(len(frame))
        if len(seen) == 20:
            signal.raise_signal(signal.SIGINT)
        return np.ones(len(frame), bool)

    since = f"-{(pd.Timestamp.now('UTC') - pd.Timestamp('2026-11-15 20:00', tz='UTC')) // pd.Timedelta(1, 's')} s"
    with pytest.raises(KeyboardInterrupt):
        client.replay(written, start=since, where=until, progress=False).to_parquet(tmp_path / "laps", step=5_000)
    with client.open_output_topic(written) as out:
        out.write(laps(9), stream="car/9")
    with pytest.raises(qf.SettingsError, match="begun with another replay .*columns was None and is .'n'."):
        client.replay(written, None, ["n"], start=since, where=until, progress=False).to_parquet(tmp_path / "laps")
    dataset = client.replay(written, start=since, where=until, progress=False).to_parquet(tmp_path / "laps")
    found = everything(dataset.path)
    assert set(found["stream"]) == {"car/0", "car/1", "car/2", "car/3"}
    assert found["n"].is_unique
    assert len(found) == dataset.rows
    assert 4 * 480 - 8 <= len(found) <= 4 * 480  # to the second


def test_a_dataset_is_written_by_one_at_a_time(client: qf.StreamingClient, written: str, tmp_path: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold(frame: pd.DataFrame) -> np.ndarray:
        inside.set()
        leave.wait(30)
        return np.ones(len(frame), bool)

    replay = client.replay(written, where=hold, progress=False)
    first = threading.Thread(target=replay.to_parquet, args=(tmp_path / "laps",))
    first.start()
    try:
        assert inside.wait(30)
        with pytest.raises(qf.SettingsError, match="is being written by another"):
            client.replay(written, progress=False).to_parquet(tmp_path / "laps")
    finally:
        leave.set()
        first.join()


_KILLED = """
import sys, quixframes as qf
client = qf.StreamingClient(sys.argv[1])
client.replay(sys.argv[2], progress=False).to_parquet(sys.argv[3], step=1)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.faults)])
def test_a_dataset_whose_writer_is_killed_again_and_again_has_each_row_once(
    kills: int, broker_address: str, client: qf.StreamingClient, written: str, tmp_path: Path
) -> None:
    """Each run writes one file at least before it gets SIGKILL, mostly in the middle of a step."""
    path = tmp_path / "laps"

    def files() -> int:
        return len(list(path.rglob("*.parquet")))

    for _ in range(kills):
        before = files()
        command = [sys.executable, "-c", _KILLED, broker_address, written, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            wait_for(lambda before=before, writer=writer: files() > before or writer.poll() is not None)
            writer.kill()
            assert writer.wait() == -signal.SIGKILL, "it was through before it could be killed"
    client.replay(written, progress=False).to_parquet(path)
    expected = pd.concat([laps(stream) for stream in range(4)])
    assert everything(path)["n"].tolist() == expected["n"].tolist()
