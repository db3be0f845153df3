"""Streams as a picture: what is drawn, and what may be left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quixframes.errors import FrameError
from quixframes.event_frames import decode_events, encode_events
from quixframes.replay_plot import draw, thinned
from quixframes.story import EventDefinition, ParameterDefinition, Story

NO_EVENTS = decode_events([])


def frame(rows: int, **columns: object) -> pd.DataFrame:
    index = pd.date_range("2026-11-15", periods=rows, freq="s", tz="UTC", unit="ns", name="time")
    return pd.DataFrame(columns, index=index)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=300).map(np.cumsum),
    st.integers(8, 60),
    st.randoms(use_true_random=False),
)
def test_what_is_drawn_are_rows_with_the_ends_the_least_and_the_greatest_among_them(
    times: np.ndarray, points: int, random: object
) -> None:
    values = np.array([random.choice([np.nan, random.uniform(-9, 9)]) for _ in times])  # type: ignore[attr-defined]
    found_times, found = thinned(times.astype("int64"), values, points)
    there = np.isfinite(values)
    drawn = np.isfinite(found)
    rows = set(zip(times[there].tolist(), values[there].tolist(), strict=True))
    assert set(zip(found_times[drawn].tolist(), found[drawn].tolist(), strict=True)) <= rows
    assert (np.diff(found_times) >= 0).all()
    assert drawn.sum() <= max(points, 4)
    if there.any():
        assert found[drawn].min() == values[there].min()
        assert found[drawn].max() == values[there].max()
        assert (found_times[0], found_times[-1]) == (times[there][0], times[there][-1])


def test_a_line_is_broken_where_values_are_missing_and_where_rows_did_not_come() -> None:
    times = np.r_[np.arange(0, 100), np.arange(1_000, 1_100)]
    values = np.zeros(200)
    values[50:60] = np.nan
    found_times, found = thinned(times, values, 1_000)
    assert found_times[np.isnan(found)].tolist() == [49, 99]


def test_rows_that_come_as_they_please_have_no_gaps_of_a_usual_length() -> None:
    times = np.cumsum(np.random.default_rng(0).integers(1, 10, 1_000))
    assert np.isfinite(thinned(times, np.zeros(1_000), 100)[1]).all()


def test_a_picture_says_names_units_streams_and_events() -> None:
    story = (
        Story()
        .with_parameter(ParameterDefinition("speed", "Vehicle speed", unit="km/h"))
        .with_event(EventDefinition("pit", "Pit stop"))
    )
    events = decode_events([encode_events([{"time": pd.Timestamp("2026-11-15", tz="UTC"), "id": "pit", "value": ""}])])
    frames = {name: frame(3, speed=[1.0, 2.0, 3.0], driver=["a", "b", "c"]) for name in ("car-44", "car-63")}
    figure = draw(frames, events, {"car-44": story}, None, 100)
    (panel,) = figure.axes
    assert panel.get_title(loc="left") == "Vehicle speed (km/h)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["car-44", "car-63"]
    assert [text.get_text() for text in panel.texts] == ["Pit stop"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_many_streams_are_drawn_and_the_first_are_named() -> None:
    frames = {f"car-{n:02}": frame(3, speed=[1.0, 2.0, 3.0]) for n in range(30)}
    figure = draw(frames, NO_EVENTS, {}, None, 100)
    assert len(figure.axes[0].lines) == 30
    assert figure.legends[0].get_texts()[-1].get_text() == "car-07 and 22 more"


def test_every_dtype_with_numbers_is_drawn_with_what_is_missing_left_out() -> None:
    rows = frame(3, a=pd.array([1, None, 3], "Int64"), b=[True, False, True], c=pd.array([1.5, None, 2.5], "Float32"))
    figure = draw({"car-44": rows}, NO_EVENTS, {}, None, 100)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("frames", "columns", "error"),
    [
        ({}, None, "nothing to draw"),
        ({"car-44": frame(1, driver=["a"])}, None, "nothing to draw"),
        (
            {"car-44": frame(1, speed=[1.0], driver=["a"])},
            ["driver"],
            "'driver' is not there, or has no numbers: .* speed",
        ),
    ],
)
def test_what_has_no_numbers_is_refused(frames: dict[str, pd.DataFrame], columns: list[str] | None, error: str) -> None:
    with pytest.raises(FrameError, match=error):
        draw(frames, NO_EVENTS, {}, columns, 100)
