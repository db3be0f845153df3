"""The page that the demo leaves: the same as the picture for the whole time, to zoom into. It needs no network."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from quixframes.demo.picture import COLORS, weekly_pressures
from quixframes.demo.weather import AIRPORTS, TAG, impossible, measured

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
<p>Trained on January to September, then run live. Drag to zoom, double-click to see all.</p>$temperatures</section>
<div class="two">
<section><h2>Winds as received and cleaned</h2>
<p>What cannot be is taken out, and a gap of up to three hours filled.</p>$winds</section>
<section><h2>Missing pressures, by week</h2>
<p>What was filled is tagged, and no model takes it for a measurement.</p>$pressures</section>
</div>
<div class="two">
<section><h2>Mean error by airport</h2><p>In °F, October to December.</p>$by_stream</section>
<section><h2>Mean error by hour of the day</h2>
<p>In °F. The sun makes the mornings hard: 13:00 UTC is 8:00 in New York.</p>$by_hour</section>
</div>
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
            winds=_embedded(_winds(outcome)),
            pressures=_embedded(_pressures(outcome)),
            by_stream=_embedded(_by_stream(outcome)),
            by_hour=_embedded(_by_hour(outcome)),
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
    all_three = outcome.scores.loc["all"]
    shown = {
        f"{len(outcome.raw):,}": "rows in, none lost",
        f"{(outcome.clean[TAG] != '').sum():,}": "rows repaired and tagged",
        f"{len(outcome.forecasts):,}": "live forecasts",
        f"{all_three['forecast']:.2f} °F": f"mean error; “same as now”: {all_three['same_as_now']:.2f} °F",
        f"{1 - all_three['forecast'] / all_three['same_as_now']:.0%}": "better than “same as now”",
    }
    return "".join(f"<div><b>{value}</b>{label}</div>" for value, label in shown.items())


def _temperatures(outcome: Outcome) -> go.Figure:
    """One airport at a time, chosen by buttons."""
    figure = go.Figure()
    for stream in AIRPORTS:
        guess = outcome.forecasts[outcome.forecasts["stream"] == stream].sort_index()
        clean = outcome.clean[outcome.clean["stream"] == stream].sort_index()
        truth = measured(clean)["temp"].loc[guess.index[0] :]
        shown = {"visible": stream == next(iter(AIRPORTS)), "hovertemplate": "%{y:.1f} °F"}
        figure.add_scatter(x=truth.index, y=truth, name="measured", line_color=COLORS["measured"], **shown)
        line = {"color": COLORS["forecast"], "width": 1.2}
        figure.add_scatter(x=guess.index, y=guess["forecast"].round(2), name="forecast", line=line, **shown)
    buttons = [
        {"label": name, "method": "update", "args": [{"visible": [n // 2 == chosen for n in range(2 * len(AIRPORTS))]}]}
        for chosen, name in enumerate(AIRPORTS.values())
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
        yaxis_title="°F",
        margin_t=84,
    )
    return figure


def _winds(outcome: Outcome) -> go.Figure:
    """The year's winds at the airports where one could not be."""
    figure = go.Figure()
    for stream in AIRPORTS:
        raw, clean = (frame[frame["stream"] == stream].sort_index() for frame in (outcome.raw, outcome.clean))
        if not any(name == "wind_speed" for _, name, _ in impossible(raw)):
            continue
        for label, rows, color in (("as received", raw, "fault"), ("cleaned", clean, "filled")):
            figure.add_scatter(
                x=rows.index,
                y=rows["wind_speed"].round(1),
                name=f"{AIRPORTS[stream]}, {label}",
                line_color=COLORS[color],
            )
    figure.update_yaxes(title="mph")
    return figure


def _pressures(outcome: Outcome) -> go.Figure:
    weeks = weekly_pressures(outcome)
    figure = go.Figure()
    for column, color in (("filled", COLORS["filled"]), ("still missing", "#d5dbe1")):
        figure.add_bar(x=weeks.index, y=weeks[column], name=column, marker_color=color)
    return figure.update_layout(barmode="stack")


def _by_stream(outcome: Outcome) -> go.Figure:
    names = [AIRPORTS.get(str(stream), "all three") for stream in outcome.scores.index]
    figure = go.Figure()
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
    figure.update_yaxes(rangemode="tozero")
    return figure
