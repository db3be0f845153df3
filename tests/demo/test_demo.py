"""The demo as a whole, on a real Kafka: what goes in comes out, the model beats the baseline, nothing is left."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

import quixframes as qf
from quixframes.demo import Outcome, airports, pipeline, run, weather
from quixframes.demo.page import write_page
from quixframes.demo.picture import draw
from quixframes.demo.pipeline import Names


@pytest.fixture(scope="module")
def ran(broker_address: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path, str]:
    """One run of the demo: its outcome, its folder, and what it said."""
    out = tmp_path_factory.mktemp("demo")
    console = Console(record=True, width=100, file=(out / "console.txt").open("w"))
    outcome = run(broker=broker_address, out=out, console=console, day=0)
    return outcome, out, console.export_text()


def test_every_row_comes_through(ran: tuple[Outcome, Path, str]) -> None:
    outcome = ran[0]
    assert len(outcome.raw) == len(outcome.clean) == 26_115
    assert outcome.raw["stream"].value_counts().to_dict() == {"EWR": 8_703, "JFK": 8_706, "LGA": 8_706}
    assert len(outcome.forecasts) == 6_506


def test_each_fault_is_an_event_and_what_a_stream_says_reaches_the_last_topic(
    ran: tuple[Outcome, Path, str],
) -> None:
    """Names, units and ranges come through both models."""
    outcome = ran[0]
    assert len(outcome.events) == outcome.clean[weather.TAG].str.split().map(len).sum() == 1_876
    assert outcome.events["id"].value_counts().to_dict() == {"gap-filled": 1_875, "impossible-value": 1}
    jfk = outcome.streams["JFK"]
    assert jfk.properties.name == "John F. Kennedy"
    assert jfk.properties.metadata == {"latitude": 40.639751, "longitude": -73.778925, "altitude_ft": 13}
    assert jfk.properties.parents == ("JFK",)
    assert set(jfk.parameters) == {*airports.PARAMETERS, "forecast", "same_as_now"}
    assert jfk.parameters["wind_speed"].range == (0, 110)
    assert jfk.parameters["forecast"].unit == jfk.parameters["temp"].unit == "°F"
    assert jfk.events[weather.IMPOSSIBLE].level is qf.EventLevel.Warning


def test_names_and_units_in_picture_and_page_are_those_that_were_replayed(
    ran: tuple[Outcome, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Had the airports said otherwise, the axes would say so."""
    streams = {}
    for id, stream in ran[0].streams.items():
        story = stream.story.with_properties(name=f"Field {id}")
        for parameter, unit in (("temp", "grad"), ("wind_speed", "knots")):
            story = story.with_parameter(replace(story.parameters[parameter], unit=unit))
        streams[id] = stream.retold(story)
    outcome = replace(ran[0], streams=streams)

    drawn: set[str] = set()

    def read(figure: Figure, *args: object, **settings: object) -> None:
        drawn.update(text.get_text() for text in figure.findobj(Text))

    monkeypatch.setattr(Figure, "savefig", read)
    draw(outcome, tmp_path / "weather.png")
    assert {"temperature, grad", "wind speed, knots", "error, grad", "Field JFK"} <= drawn
    assert not [text for text in drawn if "°F" in text or "Kennedy" in text]

    write_page(outcome, tmp_path / "weather.html")
    page = (tmp_path / "weather.html").read_text().partition("<body>")[2]
    assert all(text in page for text in ("temperature, grad", "wind speed, knots", "Field JFK"))
    assert "Kennedy" not in page


def test_topics_carry_contracts_while_the_demo_runs(
    broker_address: str, session_client: qf.StreamingClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none is left behind."""
    found: list[tuple[Names, list[qf.Contract | None]]] = []

    def stop_here(client: qf.StreamingClient, names: Names, *rest: object) -> None:
        found.append((names, [client.topics.contract(topic) for topic in names.topics]))
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "send_through", stop_here)
    with pytest.raises(ZeroDivisionError):
        run(broker=broker_address, out=tmp_path, console=Console(quiet=True), day=0)
    ((names, contracts),) = found
    assert contracts == [airports.RAW, airports.CLEAN, airports.FORECAST]
    assert [session_client.topics.contract(topic) for topic in names.topics] == [None] * 3


def test_the_model_is_better_than_same_as_now(ran: tuple[Outcome, Path, str]) -> None:
    scores = ran[0].scores
    assert (scores["forecast"] < 0.9 * scores["same_as_now"]).all()
    assert scores.loc["all", "forecast"] < 1.0


def test_it_says_what_happens_and_ends_with_a_table(ran: tuple[Outcome, Path, str]) -> None:
    said = ran[2]
    assert "wind_speed=1048.36 mph cannot be" in " ".join(said.split())
    assert "Events: 1,875 × gap filled, 1 × impossible value" in said
    for number in ("26,115", "8,703", "8,706", "6,506", "1,876"):
        assert number in said


def test_it_leaves_a_picture_and_a_page_that_needs_nothing_else(ran: tuple[Outcome, Path, str]) -> None:
    picture, page = ran[1] / "weather.png", (ran[1] / "weather.html").read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)\s*=", page)
    assert page.count("Plotly.newPlot(") >= 4


def test_it_removes_the_topics_that_it_made(ran: tuple[Outcome, Path, str], session_client: qf.StreamingClient) -> None:
    assert not set(ran[0].names.topics) & set(session_client.topics.list())


def test_topics_of_others_are_passed_over_and_stay() -> None:
    """A name that is taken is not used, on whatever broker, so no run deletes what another made."""
    assert Names.unused(["engine"]).topics == ("weather-raw", "weather-clean", "weather-forecast")
    taken = ["weather-clean", "weather-raw-2"]
    assert Names.unused(taken).topics == ("weather-raw-3", "weather-clean-3", "weather-forecast-3")


def test_a_model_that_fails_ends_the_demo_with_everything_closed(
    broker_address: str, session_client: qf.StreamingClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*rows: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(weather, "clean", broken)
    threads = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        run(broker=broker_address, out=tmp_path, console=Console(quiet=True), day=0)
    assert set(threading.enumerate()) <= threads
    assert not [topic for topic in session_client.topics.list() if topic.startswith("weather-")]


def test_the_page_draws_itself_in_a_real_browser_without_a_network(
    ran: tuple[Outcome, Path, str], tmp_path: Path
) -> None:
    """Headless Chromium, whose every host name leads nowhere, draws all five figures."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium on this machine (on Debian: apt-get install chromium)")
    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            *quiet,
            f"--user-data-dir={tmp_path}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=5000",
            "--dump-dom",
            (ran[1] / "weather.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    body = done.stdout.partition("<body>")[2]
    assert body.count('class="plot-container') == 5
    assert all(name in body for name in ("Newark", "Kennedy", "LaGuardia", "26,115", "6,506", "1,876"))
    assert all(label in body for label in ("temperature, °F", "wind speed, mph", "wind_speed=1048.36 mph"))
