"""``Replay.sql`` and ``Replay.to_duckdb``: retained data of a real Kafka in DuckDB."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import pytest

import quixframes as qf

INDEX = pd.date_range("2026-11-15 23:00", periods=4, freq="30min", tz="UTC", unit="ns", name="time")


@pytest.fixture
def replay(client: qf.StreamingClient, topic: str) -> qf.Replay:
    with client.open_output_topic(topic) as out:
        out.write(pd.DataFrame({"speed": [1.0, 2.0, 3.0, 4.0]}, index=INDEX), stream="car-44")
        out.write(pd.DataFrame({"speed": [5.0, 6.0, 7.0, 8.0], "gear": [1, 2, 3, 4]}, index=INDEX), stream="car-63")
    return client.replay(topic, progress=False)


def test_a_query_is_answered_over_all_rows_and_columns_of_a_replay(replay: qf.Replay) -> None:
    found = replay.sql(
        "SELECT stream, date_trunc('day', time) AS day, max(speed) AS fastest, count(gear) AS gears "
        "FROM replay GROUP BY ALL ORDER BY ALL"
    )
    assert found["stream"].tolist() == ["car-44", "car-44", "car-63", "car-63"]
    assert found["day"].dt.day.tolist() == [15, 16, 15, 16]
    assert str(found["day"].dt.tz) == "UTC"
    assert found["fastest"].tolist() == [2.0, 4.0, 6.0, 8.0]
    assert found["gears"].tolist() == [0, 0, 2, 2]


def test_a_query_over_nothing_gives_nothing(client: qf.StreamingClient, topic: str) -> None:
    assert client.replay(topic, progress=False).sql("SELECT time, stream FROM replay").empty


def test_a_table_is_made_as_a_whole_and_replaced_only_where_that_was_said(replay: qf.Replay, tmp_path: Path) -> None:
    database = tmp_path / "laps.duckdb"
    assert replay.to_duckdb(database, 'the "laps"') == 8
    with pytest.raises(qf.SettingsError, match="has a table 'the \"laps\"': overwrite=True"):
        replay.to_duckdb(database, 'the "laps"')
    assert replay.to_duckdb(database, 'the "laps"', overwrite=True) == 8
    with duckdb.connect(str(database)) as connection:
        (total,) = connection.execute('SELECT sum(speed) FROM "the ""laps"""').fetchone() or (None,)
    assert total == 36.0


def test_an_error_in_a_query_is_told_as_duckdb_tells_it(replay: qf.Replay) -> None:
    with pytest.raises(duckdb.Error, match="sped"):
        replay.sql("SELECT sped FROM replay")
