"""The demo's way through Kafka: write, clean, forecast, replay. Each model has a client of its own, as if it ran alone.

::

    read_weather → weather-raw → clean_weather → weather-clean → forecast_weather → weather-forecast → replay

Each topic has a contract, so no row of another kind gets in. Each airport is a stream, which says what it is and what
it measures; both models hand that on, and add what they have done: the cleaning an event for each value that it
repaired, the forecasting what its numbers are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

import quixframes as qf
from quixframes.demo import airports, weather
from quixframes.demo.show import Show

__all__ = ["Names", "Outcome", "run_pipeline"]

LIVE = pd.Timestamp("2013-10-01", tz="UTC")
"""What comes before is history to learn from; what comes after is forecast as it arrives."""

PATIENCE = "30s"

Cut = Callable[[pd.DataFrame, weather.Parameters], np.ndarray]
"""Says at which rows a batch ends, from their values and from what can be."""


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
    events: pd.DataFrame
    forecasts: pd.DataFrame
    streams: Mapping[str, qf.StreamReader]
    """What the streams of the last topic say of themselves: names, units and ranges that came through both models."""
    errors: pd.DataFrame
    scores: pd.DataFrame


def run_pipeline(
    address: str, show: Show, *, keep: bool, security: qf.Security | None = None, day: float = 0.04
) -> Outcome:
    """Make the topics, send the year through both models, and replay what came of it.

    Args:
        address: the cluster.
        show: is told what happens.
        keep: whether the topics stay; else they are removed at the end, however that comes.
        security: how to connect to it.
        day: seconds that a live day lasts.
    """
    with qf.StreamingClient(address, security=security) as client:
        names = Names.unused(client.topics.list())
        try:
            contracts = (airports.RAW, airports.CLEAN, airports.FORECAST)
            for topic, contract in zip(names.topics, contracts, strict=True):
                client.topics.create(topic, partitions=3, contract=contract)
            show.did("made {}, {} and {}, with contracts".format(*names.topics))
            send_through(client, names, show, day)
            return replay(client, names, show)
        finally:
            if not keep:
                for topic in set(names.topics) & set(client.topics.list()):
                    client.topics.delete(topic)


def replay(client: qf.StreamingClient, names: Names, show: Show) -> Outcome:
    """Read everything again: rows, events, and what the streams say of themselves."""
    raw, clean, forecasts = (client.replay(topic, progress=False).to_frame() for topic in names.topics)
    events = client.replay(names.clean, progress=False).events()
    streams = {batch.stream_id: batch.stream for batch in client.replay(names.forecast, progress=False).batches()}
    rows = len(raw) + len(clean) + len(forecasts)
    show.did(f"replayed the three topics into DataFrames: {rows:,} rows, {len(events):,} events")
    errors = weather.errors(forecasts, clean)
    return Outcome(names, raw, clean, events, forecasts, streams, errors, weather.score(errors))


def send_through(client: qf.StreamingClient, names: Names, show: Show, day: float) -> None:
    """The year 2013: nine months to learn from, then three months live."""
    year = airports.read_weather()
    history, live = year[~is_live(year)], year[is_live(year)]
    show.did(f"read {len(year):,} rows: the weather of three airports, hour by hour, in 2013")

    address, security = list(client.connection.brokers), client.connection.security
    # Left from the right: the clients close before the pool, which ends the loops that it would wait for.
    with (
        ThreadPoolExecutor() as pool,
        qf.StreamingClient(address, security=security) as one,
        qf.StreamingClient(address, security=security) as other,
        client.open_output_topic(names.raw) as raw,
    ):
        streams = [airports.open_stream(raw, airport) for airport in airports.AIRPORTS]

        with show.progress("January to September", write=len(history), clean=len(history)):
            cleaning = pool.submit(clean_weather, one, names, weather.new_month, show, rows=len(history))
            write_weather(raw, history, show, every="MS")
            cleaning.result()

        learned = client.replay(names.clean, progress=False).to_frame()
        model = weather.train(learned)
        show.did(f"trained the forecasting model on a replay of {len(learned):,} clean rows")

        with show.progress("October to December, live", write=len(live), clean=len(live), forecast=len(live)):
            forecasting = pool.submit(forecast_weather, other, names, show, model, learned)
            cleaning = pool.submit(clean_weather, one, names, weather.new_day, show)
            write_weather(raw, live, show, every="D", pause=day)
            for stream in streams:
                stream.close()  # tells the cleaning model, which tells the forecasting model
            cleaning.result()
            forecasting.result()


def write_weather(topic: qf.OutputTopic, rows: pd.DataFrame, show: Show, *, every: str, pause: float = 0) -> None:
    """Write the rows, a month or a day at a time, each to the stream of its airport."""
    for _, part in rows.groupby(pd.Grouper(freq=every)):
        topic.write(part, by="origin")
        show.rows("write", len(part))
        time.sleep(pause)


def clean_weather(client: qf.StreamingClient, names: Names, cut: Cut, show: Show, rows: int | None = None) -> None:
    """The cleaning model: raw rows in, clean rows and an event for each repair out, commit."""
    before: dict[str, pd.DataFrame] = {}
    with (
        client.open_input_topic(names.raw, names.cleaning, commit_settings=qf.CommitMode.Manual) as raw,
        client.open_output_topic(names.clean) as clean,
    ):
        can_be = raw.contracts[names.raw].parameters
        # Where a batch ends is for the rows to say, not for the clock: a gap that is cut in two is not filled.
        batches = raw.batches(trigger=lambda arrived: cut(arrived, can_be), timeout=None, idle=PATIENCE)
        for batch in until_ended(batches, rows):
            stream = clean.get_or_create_stream(batch.stream_id)
            stream.inherit(batch.stream)  # name, place, units, ranges
            for id, what in weather.EVENTS.items():
                stream.events.add_definition(id, **what)
            if len(batch):
                parameters = batch.stream.parameters
                cleaned = weather.clean(batch.frame, parameters, before.get(batch.stream_id))
                events = weather.repairs(batch.frame, cleaned, parameters)
                stream.parameters.write(cleaned)
                stream.events.write(events)
                before[batch.stream_id] = batch.frame.tail(1)
                show.events(batch.stream, events)
            if batch.closed:
                stream.close(batch.closed)
            batch.commit()
            show.rows("clean", len(batch))


def forecast_weather(
    client: qf.StreamingClient, names: Names, show: Show, model: HistGradientBoostingRegressor, learned: pd.DataFrame
) -> None:
    """The forecasting model: clean rows in, the temperature one hour later out. It goes on where its training ended."""
    before = {str(stream): known.tail(weather.MEMORY) for stream, known in learned.groupby("stream", observed=True)}
    with (
        client.open_input_topic(names.clean, names.forecasting, commit_settings=qf.CommitMode.Manual) as clean,
        client.open_output_topic(names.forecast) as forecasts,
        threadpool_limits(1),  # rows so few are forecast in less time than threads take to meet
    ):
        for batch in until_ended(clean.batches(rows=72, timeout="500ms", filter=is_live, idle=PATIENCE)):
            stream = forecasts.get_or_create_stream(batch.stream_id)
            stream.inherit(batch.stream)
            temp = batch.stream.parameters["temp"]
            there = stream.parameters.add_location(temp.location)
            there.add_definition("forecast", name="temperature, forecast one hour before", unit=temp.unit)
            there.add_definition("same_as_now", name="temperature one hour before", unit=temp.unit)
            if len(batch):
                known = before.get(batch.stream_id)
                stream.parameters.write(weather.forecast(model, batch.frame, known))
                before[batch.stream_id] = pd.concat([known, batch.frame]).tail(weather.MEMORY)
            if batch.closed:
                stream.close(batch.closed)
            batch.commit()
            show.rows("forecast", len(batch))


def until_ended(batches: Iterator[qf.RowBatch], rows: int | None = None) -> Iterator[qf.RowBatch]:
    """The batches until so many rows have come; where no number is given, until the last airport's stream has ended."""
    came, going = 0, set(airports.AIRPORTS)
    for batch in batches:
        yield batch
        came += len(batch)
        if batch.closed:
            going.discard(batch.stream_id)
        if came == rows or not going:
            return
    raise qf.QuixframesError(
        f"after {came:,} rows nothing came for {PATIENCE}, though streams {', '.join(sorted(going))} have not ended"
    )
