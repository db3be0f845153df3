"""Where the rows of a dataset go."""

from __future__ import annotations

from collections import defaultdict
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quixframes.dataset_layout import folders, keys_of, table_of
from quixframes.errors import FrameError, SettingsError
from quixframes.frames import FrameEncoder

HOUR = 3_600 * 10**9


def batch_of(hours: list[int], **columns: object) -> pa.RecordBatch:
    index = pd.DatetimeIndex(np.array(hours, "int64") * HOUR, name="time").tz_localize("UTC")
    return FrameEncoder().encode(pd.DataFrame(columns or {"n": range(len(hours))}, index=index))


@given(st.lists(st.integers(-50_000, 50_000), min_size=1, max_size=50), st.text(min_size=1, max_size=8))
def test_each_row_is_in_the_folder_of_its_stream_and_times_in_the_order_of_before(
    hours: list[int], stream: str
) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in stream):
        return
    found = defaultdict(list)
    for folder, part in folders(batch_of(hours), "engine", stream, ("month", "stream", "hour")):
        month, name, hour = folder.split("/")
        assert unquote(name) == f"stream={stream}"
        for row in part.column("n").to_pylist():
            time = np.datetime64(hours[row], "h")
            assert (month, hour) == (f"month={time.astype('datetime64[M]')}", f"hour={time}")
            found[folder].append(row)
    assert sorted(row for rows in found.values() for row in rows) == list(range(len(hours)))
    assert all(rows == sorted(rows) for rows in found.values())


def test_rows_of_one_folder_are_not_copied() -> None:
    batch = batch_of([0, 1, 30])
    (_, first), (_, second) = folders(batch, "engine", "car-44", ("day",))
    assert first.column("n").buffers()[1].address == batch.column("n").buffers()[1].address
    assert (len(first), len(second)) == (2, 1)


def test_without_keys_all_rows_go_into_the_folder_itself() -> None:
    ((folder, part),) = folders(batch_of([0, 100]), "engine", "car-44", ())
    assert (folder, len(part)) == ("", 2)


def test_a_table_has_the_columns_of_all_its_messages_and_says_where_each_row_is_from() -> None:
    table = table_of(
        [
            ("engine", "car-44", batch_of([0, 1], speed=[1.5, 2.5])),
            ("engine", "car-63", batch_of([2], speed=[3.5], gear=np.array([7], "int8"))),
            ("brakes", "car-44", batch_of([3], gear=np.array([6], "int8"))),
        ],
        ["topic", "stream"],
        (),
    )
    frame = table.to_pandas()
    assert frame.index.name == "time"
    assert frame["topic"].tolist() == ["engine"] * 3 + ["brakes"]
    assert frame["stream"].tolist() == ["car-44", "car-44", "car-63", "car-44"]
    assert frame["speed"].tolist()[:3] == [1.5, 2.5, 3.5]
    assert frame["gear"].isna().tolist() == [True, True, False, False]


@pytest.mark.parametrize("taken", ["stream", "day"])
def test_a_parameter_named_as_a_column_or_folder_of_the_dataset_is_refused(taken: str) -> None:
    with pytest.raises(FrameError, match=f"the rows have a column '{taken}'"):
        table_of([("engine", "car-44", batch_of([0], **{taken: [1]}))], ["stream"], ("day",))


def test_two_types_of_one_column_are_refused() -> None:
    batches = [("engine", "car-44", batch_of([0], n=values)) for values in ([1], ["one"])]
    with pytest.raises(FrameError, match="column 'n' is int64 in some messages and large_string in others"):
        table_of(batches, [], ())


def test_keys_are_those_that_there_are_each_once() -> None:
    assert keys_of(["stream", "day"]) == ("stream", "day")
    for wrong in ("week", ["day", "day"]):
        with pytest.raises(SettingsError, match="partition_by="):
            keys_of(wrong)
