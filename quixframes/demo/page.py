"""The page that the demo leaves: the same as the picture for the whole time, to zoom into. It needs no network.

Names, units, ranges and events are what the streams themselves said of them, at the far end of both models.
"""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from quixframes.demo.picture import COLORS, weekly_pressures
from quixframes.demo.show import axis, event_names, temperature
from quixframes.demo.weather import IMPOSSIBLE, measured

if TYPE_CHECKING:
    from quixframes.demo.pipeline import Outcome

__all__ = ["write_page"]

PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>quixframes: a year of New York's weather</title>
<style>
  body { margin: 0; background: #f4f6f8; color: #22313f; font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
  main { max-width: 1180px; margin: 0 auto; padding: 36px 20px 60px; }
  h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; }
  h2 { font-size: 18px; margin: 0 0 2px; }
  p { margin: 0; color: #5b6b7a; }
  code { font-size: 0.92em; color: #22313f; }
  .figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 14px; margin: 24px 0; }
  section, .figures div { background: #fff; border-radius: 12px; box-shadow: 0 1px 3px rgb(34 49 63 / 12%); }
  .figures div { padding: 14px 18px; }
  .figures b { display: block; font-size: 28px; line-height: 1.25; }
  section { padding: 20px 22px 8px; margin-bottom: 18px; min-width: 0; }
  .two { display: grid; grid-template-columns: 1fr 1fr; gap: 18px; }
  .wide { overflow-x: auto; margin: 10px 0 14px; }
  table { border-collapse: collapse; width: 100%; font-size: 14px; }
  th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid #e6eaee; white-space: nowrap; }
  th { color: #5b6b7a; font-weight: 600; }
  @media (max-width: 800px) { .two { grid-template-columns: 1fr; } }
</style>
<script>$plotly</script>
</head>
<body>
<main>
<h1>A year of New York’s weather, through Kafka and two models</h1>
<p>Three airports, a stream each: <code>$raw</code> → a cleaning model → <code>$clean</code> → a forecasting model →
<code>$forecast</code>, replayed into a DataFrame.</p>
<div class="figures">$figures</div>
<section><h2>Temperature, measured and forecast one hour before</h2>
<p>Trained on January to September, then run live. The triangles are events: a value that the cleaning repaired then.
Drag to zoom, double-click to see all.</p>$temperatures</section>
<div class="two">
<section><h2>Values as received and cleaned</h2>
<p>What is out of its range is taken out, and a gap of up to three hours filled.</p>$faults</section>
<section><h2>Missing pressures, by week</h2>
<p>What was filled is tagged, and no model takes it for a measurement.</p>$pressures</section>
</div>
<div class="two">
<section><h2>Mean error by airport</h2><p>October to December.</p>$by_stream</section>
<section><h2>Mean error by hour of the day</h2>
<p>The sun makes the mornings hard: 13:00 UTC is 8:00 in New York.</p>$by_hour</section>
</div>
<section><h2>What the streams say of themselves</h2>
<p>Written by who opened them, carried with every message, handed on by both models. Names, units and ranges on this
page come from here, and so does what the cleaning takes for possible.</p>
<div class="wide">$streams</div><div class="wide">$parameters</div><div class="wide">$events</div></section>
</main>
</body>
</html>
""")


def write_page(outcome: Outcome, path: Path) -> None:
    """Write the page: one file of some 5 MB, most of it plotly itself."""
    path.write_text(
        PAGE.substitute(
            plotly=get_plotlyjs(),
            raw=outcome.names.raw,
            clean=outcome.names.clean,
            forecast=outcome.names.forecast,
            figures=_figures(outcome),
            temperatures=_embedded(_temperatures(outcome), 470),
            faults=_embedded(_faults(outcome)),
            pressures=_embedded(_pressures(outcome)),
            by_stream=_embedded(_by_stream(outcome)),
            by_hour=_embedded(_by_hour(outcome)),
            streams=_streams(outcome),
            parameters=_parameters(outcome),
            events=_events(outcome),
        ),
        encoding="utf-8",
    )


def _embedded(figure: go.Figure, height: int = 330) -> str:
    figure.update_layout(
        height=height,
        template="plotly_white",
        margin={"l": 48, "r": 10, "t": figure.layout.margin.t or 36, "b": 36},
        font={"family": "system-ui, 'Segoe UI', Roboto, sans-serif", "color": COLORS["measured"], "size": 13},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hovermode="x unified",
    )
    config = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config)
    return html


def _figures(outcome: Outcome) -> str:
    all_three, unit = outcome.scores.loc["all"], temperature(outcome).unit
    shown = {
        f"{len(outcome.raw):,}": "rows in, none lost",
        f"{len(outcome.events):,}": "values repaired, an event each",
        f"{len(outcome.forecasts):,}": "live forecasts",
        f"{all_three['forecast']:.2f} {unit}": f"mean error; “same as now”: {all_three['same_as_now']:.2f} {unit}",
        f"{1 - all_three['forecast'] / all_three['same_as_now']:.0%}": "better than “same as now”",
    }
    return "".join(f"<div><b>{value}</b>{label}</div>" for value, label in shown.items())


def _streams(outcome: Outcome) -> str:
    said = {stream: reader.properties for stream, reader in outcome.streams.items()}
    rows = [{"stream": id, "name": of.name, "location": of.location, **of.metadata} for id, of in sorted(said.items())]
    return _table(pd.DataFrame(rows))


def _parameters(outcome: Outcome) -> str:
    definitions = next(iter(outcome.streams.values())).parameters.definitions
    columns = ["name", "unit", "minimum", "maximum", "location", "description"]
    return _table(definitions[columns].reset_index(names="parameter").sort_values(["location", "parameter"]))


def _events(outcome: Outcome) -> str:
    definitions = next(iter(outcome.streams.values())).events.definitions
    counts = outcome.events["id"].value_counts().reindex(definitions.index, fill_value=0)
    shown = definitions[["name", "level", "description"]].astype(object).assign(count=counts.map("{:,}".format))
    return _table(shown.reset_index(names="event"))


def _table(frame: pd.DataFrame) -> str:
    told = frame.map(lambda value: "" if value is None else value)
    html: str = told.to_html(index=False, border=0, na_rep="", float_format="{:,.5g}".format)
    return html


def _of(frame: pd.DataFrame, stream: str) -> pd.DataFrame:
    return frame[frame["stream"] == stream].sort_index()


def _temperatures(outcome: Outcome) -> go.Figure:
    """One airport at a time, chosen by buttons."""
    figure = go.Figure()
    names = {stream: outcome.streams[stream].properties.name for stream in sorted(outcome.streams)}
    what = temperature(outcome)
    for stream in names:
        guess, clean, events = (_of(frame, stream) for frame in (outcome.forecasts, outcome.clean, outcome.events))
        truth = measured(clean)["temp"].loc[guess.index[0] :]
        repaired = events.loc[guess.index[0] :]
        foot = np.full(len(repaired), np.floor(truth.min()) - 4)
        shown = {"visible": stream == next(iter(names)), "hovertemplate": f"%{{y:{what.format}}} {what.unit}"}
        figure.add_scatter(x=truth.index, y=truth, name="measured", line_color=COLORS["measured"], **shown)
        line = {"color": COLORS["forecast"], "width": 1.2}
        figure.add_scatter(x=guess.index, y=guess["forecast"].round(2), name="forecast", line=line, **shown)
        figure.add_scatter(
            x=repaired.index,
            y=foot,
            text=repaired["id"].map(event_names(outcome)) + ": " + repaired["value"],
            name="event: a value repaired",
            mode="markers",
            marker={"symbol": "triangle-up", "size": 8, "color": COLORS["filled"]},
            **{**shown, "hovertemplate": "%{text}<extra></extra>"},
        )
    traces = len(figure.data)
    each = traces // len(names)
    buttons = [
        {
            "label": name,
            "method": "update",
            "args": [{"visible": [n // each == chosen for n in range(traces)]}],
        }
        for chosen, name in enumerate(names.values())
    ]
    figure.update_layout(
        updatemenus=[
            {
                "type": "buttons",
                "direction": "right",
                "buttons": buttons,
                "x": 0,
                "xanchor": "left",
                "y": 1.12,
                "yanchor": "bottom",
            }
        ],
        xaxis={"range": ["2013-11-18", "2013-12-02"], "rangeslider": {"visible": True, "thickness": 0.12}},
        yaxis_title=axis(what),
        margin_t=84,
    )
    return figure


def _faults(outcome: Outcome) -> go.Figure:
    """The year of each parameter that was out of its range, as received and cleaned."""
    figure = go.Figure()
    events = outcome.events[outcome.events["id"] == IMPOSSIBLE]
    for key, found in events.groupby(["stream", "TAG__parameter"], observed=True):
        stream, parameter = map(str, key)
        said = outcome.streams[stream]
        what = said.parameters[parameter]
        raw, clean = (_of(frame, stream)[parameter] for frame in (outcome.raw, outcome.clean))
        shown = {"hovertemplate": f"%{{y:{what.format}}} {what.unit}"}
        for state, values, color in (("as received", raw, "fault"), ("cleaned", clean, "filled")):
            name = f"{said.properties.name}, {state}"
            figure.add_scatter(x=values.index, y=values.round(2), name=name, line_color=COLORS[color], **shown)
        figure.add_scatter(
            x=found.index,
            y=raw[found.index],
            text=found["value"],
            name=f"event: {event_names(outcome)[IMPOSSIBLE]}",
            mode="markers+text",
            textposition="middle right",
            marker={"symbol": "triangle-up", "size": 10, "color": COLORS["fault"]},
            hovertemplate="%{text}<extra></extra>",
        )
        figure.update_yaxes(title=axis(what))
    return figure


def _pressures(outcome: Outcome) -> go.Figure:
    weeks = weekly_pressures(outcome)
    figure = go.Figure()
    for column, color in (("filled", COLORS["filled"]), ("still missing", "#d5dbe1")):
        figure.add_bar(x=weeks.index, y=weeks[column], name=column, marker_color=color)
    return figure.update_layout(barmode="stack")


def _by_stream(outcome: Outcome) -> go.Figure:
    said = {stream: reader.properties.name for stream, reader in outcome.streams.items()}
    names = [said.get(str(stream), "all three") for stream in outcome.scores.index]
    figure = go.Figure().update_yaxes(title=temperature(outcome).unit)
    for column, label in (("same_as_now", "same as now"), ("forecast", "model")):
        errors = outcome.scores[column]
        figure.add_bar(x=names, y=errors, text=errors.map("{:.2f}".format), name=label, marker_color=COLORS[column])
    return figure.update_traces(textposition="outside", cliponaxis=False)


def _by_hour(outcome: Outcome) -> go.Figure:
    times = pd.DatetimeIndex(outcome.errors.index.get_level_values("time"))
    hours = outcome.errors.groupby(times.hour).mean()
    figure = go.Figure()
    for column, label in (("same_as_now", "same as now"), ("forecast", "model")):
        figure.add_scatter(
            x=hours.index, y=hours[column].round(3), name=label, line={"color": COLORS[column], "width": 3}
        )
    figure.update_xaxes(title="hour, UTC", dtick=3)
    figure.update_yaxes(title=temperature(outcome).unit, rangemode="tozero")
    return figure
