"""The demo's way through Kafka: write, clean, forecast, replay. Each model has a client of its own, as if it ran alone.

::

    read_weather → weather-raw → clean_weather → weather-clean → forecast_weather → weather-forecast → replay
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

import quixframes as qf
from quixframes.demo import weather
from quixframes.demo.show import Show

__all__ = ["Names", "Outcome", "run_pipeline"]

LIVE = pd.Timestamp("2013-10-01", tz="UTC")
"""What comes before is history to learn from; what comes after is forecast as it arrives."""

PATIENCE = "30s"

Trigger = Callable[[pd.DataFrame], pd.Series]


def is_live(rows: pd.DataFrame) -> np.ndarray:
    """The rows that are not history."""
    return rows.index > LIVE


@dataclass(frozen=True, slots=True)
class Names:
    """Topics and consumer groups of one run."""

    raw: str
    clean: str
    forecast: str
    cleaning: str
    forecasting: str

    @classmethod
    def unused(cls, taken: list[str]) -> Names:
        """Names that no topic has yet: nobody's rows are deleted, and a second run starts afresh beside the first."""
        kinds = ("raw", "clean", "forecast", "cleaning", "forecasting")
        endings = ("" if n == 1 else f"-{n}" for n in count(1))
        candidates = (cls(*(f"weather-{kind}{ending}" for kind in kinds)) for ending in endings)
        return next(names for names in candidates if not set(names.topics) & set(taken))

    @property
    def topics(self) -> tuple[str, str, str]:
        """The topics, in the order in which rows come through them."""
        return self.raw, self.clean, self.forecast


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is in the topics at the end, each replayed into one DataFrame, and how good the forecasts were."""

    names: Names
    raw: pd.DataFrame
    clean: pd.DataFrame
    forecasts: pd.DataFrame
    errors: pd.DataFrame
    scores: pd.DataFrame


def run_pipeline(address: str, show: Show, *, keep: bool, day: float = 0.04) -> Outcome:
    """Make the topics, send the year through both models, and replay what came of it.

    Args:
        address: the cluster.
        show: is told what happens.
        keep: whether the topics stay; else they are removed at the end, however that comes.
        day: seconds that a live day lasts.
    """
    with qf.StreamingClient(address) as client:
        names = Names.unused(client.topics.list())
        try:
            for topic in names.topics:
                client.topics.create(topic, partitions=3)
            show.did("made the topics {}, {} and {}".format(*names.topics))
            send_through(client, names, show, day)
            raw, clean, forecasts = (client.replay(topic, progress=False).to_frame() for topic in names.topics)
            show.did(f"replayed the three topics into DataFrames: {len(raw) + len(clean) + len(forecasts):,} rows")
            errors = weather.errors(forecasts, clean)
            return Outcome(names, raw, clean, forecasts, errors, weather.score(errors))
        finally:
            if not keep:
                for topic in set(names.topics) & set(client.topics.list()):
                    client.topics.delete(topic)


def send_through(client: qf.StreamingClient, names: Names, show: Show, day: float) -> None:
    """The year 2013: nine months to learn from, then three months live."""
    year = weather.read_weather()
    history, live = year[~is_live(year)], year[is_live(year)]
    show.did(f"read {len(year):,} rows: the weather of three airports, hour by hour, in 2013")

    address = list(client.connection.brokers)
    # Left from the right: the clients close first, which ends the loops that the pool would wait for.
    with ThreadPoolExecutor() as pool, qf.StreamingClient(address) as one, qf.StreamingClient(address) as other:
        with show.progress("January to September", write=len(history), clean=len(history)):
            cleaning = pool.submit(clean_weather, one, names, weather.new_week, len(history), show)
            write_weather(client, names, history, show, every="MS")
            cleaning.result()

        learned = client.replay(names.clean, progress=False).to_frame()
        model = weather.train(learned)
        show.did(f"trained the forecasting model on a replay of {len(learned):,} clean rows")

        with show.progress("October to December, live", write=len(live), clean=len(live), forecast=len(live)):
            forecasting = pool.submit(forecast_weather, other, names, len(live), show, model, learned)
            cleaning = pool.submit(clean_weather, one, names, weather.new_day, len(live), show)
            write_weather(client, names, live, show, every="D", pause=day)
            cleaning.result()
            forecasting.result()


def write_weather(
    client: qf.StreamingClient, names: Names, rows: pd.DataFrame, show: Show, *, every: str, pause: float = 0
) -> None:
    """Write the rows, a month or a day at a time. Each airport is a stream."""
    with client.open_output_topic(names.raw) as topic:
        for _, part in rows.groupby(pd.Grouper(freq=every)):
            topic.write(part, by="origin")
            show.rows("write", len(part))
            time.sleep(pause)


def clean_weather(client: qf.StreamingClient, names: Names, ends: Trigger, rows: int, show: Show) -> None:
    """The cleaning model: raw rows in, clean rows out, commit. ``ends`` says which rows end a batch."""
    before: dict[str, pd.DataFrame] = {}
    with (
        client.open_input_topic(names.raw, names.cleaning, commit_settings=qf.CommitMode.Manual) as raw,
        client.open_output_topic(names.clean) as clean,
    ):
        for batch in raw.batches(trigger=ends, max_rows=rows, idle=PATIENCE):
            cleaned = weather.clean(batch.frame, before.get(batch.stream_id))
            clean.write(cleaned, stream=batch.stream_id)
            batch.commit()

            before[batch.stream_id] = batch.frame.tail(1)
            show.faults(batch.stream_id, weather.impossible(batch.frame))
            show.rows("clean", len(batch))
        _check(raw, rows)


def forecast_weather(
    client: qf.StreamingClient,
    names: Names,
    rows: int,
    show: Show,
    model: HistGradientBoostingRegressor,
    learned: pd.DataFrame,
) -> None:
    """The forecasting model: clean rows in, the temperature one hour later out. It goes on where its training ended."""
    before = {str(stream): known.tail(weather.MEMORY) for stream, known in learned.groupby("stream", observed=True)}
    with (
        client.open_input_topic(names.clean, names.forecasting, commit_settings=qf.CommitMode.Manual) as clean,
        client.open_output_topic(names.forecast) as forecasts,
        threadpool_limits(1),  # rows so few are forecast in less time than threads take to meet
    ):
        for batch in clean.batches(rows=72, timeout="500ms", filter=is_live, max_rows=rows, idle=PATIENCE):
            known = before.get(batch.stream_id)
            forecast = weather.forecast(model, batch.frame, known)
            forecasts.write(forecast, stream=batch.stream_id)
            batch.commit()

            before[batch.stream_id] = pd.concat([known, batch.frame]).tail(weather.MEMORY)
            show.rows("forecast", len(batch))
        _check(clean, rows)


def _check(topic: qf.InputTopic, rows: int) -> None:
    if topic.rows_read != rows:
        raise qf.QuixframesError(
            f"only {topic.rows_read:,} of {rows:,} rows came through {topic.name!r}, and none for {PATIENCE}"
        )
