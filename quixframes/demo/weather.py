"""The two models: pure functions on DataFrames of one stream's weather, which know nothing of Kafka.

What this module holds to:

- A model gives the same rows whichever way a stream is cut into batches: it is handed the rows ``before`` a batch.
- What can be is not written down here: the cleaning is told the parameters' ranges and units with the rows.
- A forecast sees what was measured by its hour, and nothing else. A gap was filled with what came after it, so a value
  that the cleaning tagged is no measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

import quixframes as qf

__all__ = [
    "EVENTS",
    "FILLED",
    "GAP_FILLED",
    "IMPOSSIBLE",
    "MEMORY",
    "TAG",
    "clean",
    "errors",
    "features",
    "forecast",
    "measured",
    "new_day",
    "new_month",
    "repairs",
    "score",
    "train",
]

Parameters = Mapping[str, qf.ParameterDefinition] | Mapping[str, qf.Parameter]
"""Ranges and units by parameter, as a stream's definitions or a topic's contract have them."""

FILLED = ["temp", "dewp", "humid", "wind_speed", "pressure"]
"""Parameters whose gaps are filled. A missing gust is a calm, a direction has no mean, and rain does not glide."""

TAG = "TAG__cleaned"
"""The column that says which of a row's values the cleaning changed: their names, with blanks between."""

IMPOSSIBLE, GAP_FILLED = "impossible-value", "gap-filled"

EVENTS: dict[str, dict[str, Any]] = {
    IMPOSSIBLE: {"name": "impossible value", "level": "warning", "description": "out of its range, and taken out"},
    GAP_FILLED: {"name": "gap filled", "level": "information", "description": "from what is known on both sides of it"},
}
"""What the cleaning tells of, by the ID of the event."""

HOUR = pd.Timedelta("1h")
LONGEST_GAP = 3  # hours
MEMORY = 24  # rows: a day, which is how far the features look back


# The cleaning model


def possible(rows: pd.DataFrame, parameters: Parameters) -> np.ndarray:
    """Which values are there, and within their range. Where no range is known, anything can be."""
    ranges = [parameters[name].range if name in parameters else None for name in rows.columns]
    lowest, highest = np.array([range or (None, None) for range in ranges], float).T
    values = rows.to_numpy(float)
    return ~(np.isnan(values) | (values < lowest) | (values > highest))


def new_day(rows: pd.DataFrame, parameters: Parameters) -> np.ndarray:
    """Midnights at which nothing is amiss. A batch that ends with one cuts no gap in two, and starts after no gap."""
    return possible(rows[FILLED], parameters).all(axis=1) & (rows.index.hour == 0)  # type: ignore[attr-defined]


def new_month(rows: pd.DataFrame, parameters: Parameters) -> np.ndarray:
    """As :func:`new_day`, on the first of a month."""
    return new_day(rows, parameters) & (rows.index.day == 1)  # type: ignore[attr-defined]


def fill_short_gaps(values: pd.DataFrame) -> pd.DataFrame:
    """Join what is known on both sides of a gap by a straight line, where the gap is of three hours at most."""
    hours = pd.Series((values.index - values.index[0]) / HOUR, values.index)
    known = values.notna().mul(hours, axis=0).where(values.notna())
    gaps = known.bfill() - known.ffill() - 1
    return values.fillna(values.interpolate("time", limit_area="inside").where(gaps <= LONGEST_GAP))


def clean(rows: pd.DataFrame, parameters: Parameters, before: pd.DataFrame | None = None) -> pd.DataFrame:
    """Rows of one stream without impossible values and short gaps, and what was changed in the column TAG__cleaned.

    ``before`` is the row before them, if there is one, as it was measured.
    """
    raw = pd.concat([before, rows])
    cleaned = raw.where(possible(raw, parameters))
    gappy = [name for name in FILLED if cleaned[name].hasnans]
    cleaned[gappy] = fill_short_gaps(cleaned[gappy])
    names = raw.columns.to_numpy()
    cleaned[TAG] = [" ".join(names[row]) for row in changed(raw, cleaned)]
    return cleaned.tail(len(rows))


def changed(rows: pd.DataFrame, cleaned: pd.DataFrame) -> np.ndarray:
    """Which values of the rows the cleaning changed."""
    before, after = rows.to_numpy(float), cleaned[rows.columns].to_numpy(float)
    return (before != after) & ~(np.isnan(before) & np.isnan(after))


def repairs(rows: pd.DataFrame, cleaned: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """An event for each value that the cleaning changed. It tells the value that could not be, or the one that was
    filled in, as "wind_speed=1048.36 mph"."""
    row, column = np.nonzero(changed(rows, cleaned))
    names = rows.columns.to_numpy(object)
    units = np.array([parameters[name].unit or "" if name in parameters else "" for name in names], object)
    before, after = (frame[names].to_numpy(float)[row, column] for frame in (rows, cleaned))
    was_missing = np.isnan(before)
    value = np.where(was_missing, after, before).round(2).astype(str).astype(object)
    events = {
        "id": np.where(was_missing, GAP_FILLED, IMPOSSIBLE),
        "value": names[column] + "=" + value + " " + units[column],
        "TAG__parameter": names[column],
    }
    return pd.DataFrame(events, index=rows.index[row])


def measured(cleaned: pd.DataFrame) -> pd.DataFrame:
    """The parameters without what the cleaning changed."""
    values = cleaned.select_dtypes("number")
    return values.mask(cleaned[TAG].str.get_dummies(" ").reindex(columns=values.columns, fill_value=0).astype(bool))


# The forecasting model


def sun_height(times: pd.DatetimeIndex) -> np.ndarray:
    """The sine of the sun's height over New York, to within a degree or so: below zero at night."""
    latitude, longitude = np.radians(40.7), np.radians(-73.9)
    hour = times.hour.to_numpy() + times.minute.to_numpy() / 60
    declination = np.radians(-23.44) * np.cos(2 * np.pi * (times.day_of_year.to_numpy() + 10) / 365)
    noon = np.radians(15 * (hour - 12)) + longitude
    return np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(noon)


def features(cleaned: pd.DataFrame) -> pd.DataFrame:
    """What the model knows at each row of one stream: this hour, how it came about, yesterday's next hour, the sun."""
    now = measured(cleaned)
    times = pd.DatetimeIndex(cleaned.index)

    def ago(name: str, hours: int) -> np.ndarray:
        return now[name].reindex(times - hours * HOUR).to_numpy()

    return pd.DataFrame(
        {
            "temp": now["temp"],
            **{f"temp_change_{hours}h": now["temp"] - ago("temp", hours) for hours in (1, 2, 3)},
            "temp_next_yesterday": ago("temp", 23) - ago("temp", 24),
            "above_dew_point": now["temp"] - now["dewp"],
            **{name: now[name] for name in ("humid", "wind_dir", "wind_speed", "precip", "visib", "pressure")},
            "wind_turned": (now["wind_dir"] - ago("wind_dir", 1) + 180) % 360 - 180,
            "pressure_change_3h": now["pressure"] - ago("pressure", 3),
            "sun": sun_height(times),
            "sun_change": sun_height(times + HOUR) - sun_height(times),
            "hour": times.hour,
        },
        index=times,
    )


def train(history: pd.DataFrame) -> HistGradientBoostingRegressor:
    """A model of how far the temperature moves in an hour, from a replay of cleaned rows; values may be missing."""
    known, moved = [], []
    for _, rows in history.groupby("stream", observed=True):
        temp = measured(rows)["temp"]
        known.append(features(rows))
        moved.append(temp.reindex(temp.index + HOUR).set_axis(temp.index) - temp)
    x, y = pd.concat(known), pd.concat(moved)
    model = HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=300, learning_rate=0.05, min_samples_leaf=40, random_state=0
    )
    with threadpool_limits(1):  # for rows this few, more threads wait for each other most of the time
        return model.fit(x[y.notna().to_numpy()], y.dropna())


def forecast(
    model: HistGradientBoostingRegressor, rows: pd.DataFrame, before: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The temperature one hour after each row of one stream, at the time that it is for; beside it, "same as now".

    ``before`` are the rows before these, a day of them or as many as there are. A row whose own temperature was not
    measured gets no forecast.
    """
    known = features(pd.concat([before, rows])).tail(len(rows)).dropna(subset="temp")
    moved = model.predict(known) if len(known) else np.empty(0)
    forecasts = pd.DataFrame({"forecast": known["temp"] + moved, "same_as_now": known["temp"]})
    return forecasts.set_axis((pd.DatetimeIndex(known.index) + HOUR).rename("time"))


def errors(forecasts: pd.DataFrame, cleaned: pd.DataFrame) -> pd.DataFrame:
    """The absolute errors of model and baseline in °F, against what was measured then, by time and stream."""

    def by_stream(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(stream=frame["stream"].astype(str)).set_index("stream", append=True)

    truth = by_stream(measured(cleaned).assign(stream=cleaned["stream"]))["temp"]
    return by_stream(forecasts).sub(truth, axis=0).abs().dropna()


def score(errors: pd.DataFrame) -> pd.DataFrame:
    """The mean errors of model and baseline, by stream and over all."""
    return pd.concat([errors.groupby("stream").mean(), errors.mean().to_frame("all").T])
