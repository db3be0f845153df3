"""A pipeline as a picture and as text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quixframes.about import TopicAbout
from quixframes.governance import Graph, TopicFacts
from quixframes.pipeline import Pipeline
from quixframes.pipeline_picture import rate_text, to_svg
from quixframes.pipeline_text import to_text
from tests.pure.test_governance import chain, topic

ANY = st.text(max_size=40)
NAMES = st.sampled_from([*"abcdef", "<script>", "a'b\"c&d"])


def test_a_chain_is_drawn_from_raw_to_results_as_text() -> None:
    assert to_text(Graph(chain())).splitlines() == [
        "engine (raw)",
        "└─ 12/s · lag 3 ─▶ [cleaner] ─ 11/s ─▶ engine-clean (clean)",
        "    └─ 11/s · lag 0 ─▶ [pace] ─ 1/s ─▶ pace (results)",
        "        └─ 1/s · lag 7 ─▶ dashboard",
    ]


def test_what_comes_from_two_topics_or_goes_around_is_drawn_once_and_breaches_follow() -> None:
    text = to_text(Graph([topic("a", "raw"), topic("b", "raw"), topic("c", None, "a", "b"), topic("d", None, "d")]))
    assert text.splitlines()[:6] == ["a (raw)", "└──▶ c", "b (raw)", "└──▶ c ↑", "d", "└──▶ d ↑"]
    assert "1 breach:\n  d: cycle: it is made from itself: d → d" in text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(None, ""), (0.0, "idle"), (1240.4, "1,240/s"), (3.21, "3.2/s"), (0.5, "30/min"), (1 / 600, "6/h")],
)
def test_a_rate_is_written_as_people_read_it(rate: float | None, text: str) -> None:
    assert rate_text(rate) == text


def test_a_chain_is_a_picture_with_rates_and_lag_on_its_arrows() -> None:
    svg = to_svg(Graph(chain()))
    at = {text: float(x) for x, text in re.findall(r"<text x='([\d.]+)'[^>]*>([^<]+)</text>", svg)}
    order = ["engine", "cleaner", "engine-clean", "pace", "dashboard"]
    assert sorted(order, key=at.__getitem__) == order
    assert at["engine"] < at["12/s · lag 3"] < at["cleaner"] < at["11/s"] < at["engine-clean"]
    assert at["pace"] < at["1/s · lag 7"] < at["dashboard"]
    assert "breach" not in at


@settings(max_examples=60)
@example([TopicFacts("a", TopicAbout(made_from=["a"]))])
@given(
    st.lists(
        st.builds(
            TopicFacts,
            NAMES,
            st.builds(
                TopicAbout, st.none() | ANY.map(lambda text: text.encode(errors="replace").decode()),
                made_from=st.lists(NAMES, max_size=3), model=st.none() | NAMES,
            ),
            rate=st.none() | st.floats(0, 1e6),
            lags=st.dictionaries(NAMES, st.integers(0, 10**9), max_size=3),
            reason=ANY,
        ),
        max_size=6,
        unique_by=lambda one: one.name,
    )
)  # fmt: skip
def test_any_graph_is_well_formed_and_shows_every_topic_once(topics: list[TopicFacts]) -> None:
    graph = Graph(topics)
    svg = to_svg(graph)
    if topics:
        assert "<script" not in svg
        parsed = ElementTree.fromstring(svg)
        groups = list(parsed.iter("{http://www.w3.org/2000/svg}g"))
        models = {edge.by for edge in graph.edges if edge.by}
        assert len(groups) == len(topics) + len(graph.missing) + len(models)
        box = [float(number) for number in parsed.attrib["viewBox"].split()]
        for rect in parsed.iter("{http://www.w3.org/2000/svg}rect"):
            if "x" in rect.attrib:
                assert 0 <= float(rect.attrib["x"]) <= box[2] - float(rect.attrib["width"]) + 1
    text = to_text(graph)
    for one in topics:
        assert one.name in text


def test_frames_have_their_dtypes_also_without_a_topic() -> None:
    for facts in ([], chain()):
        found = Pipeline(Graph(facts), 60.0)
        assert found.topics["rate"].dtype == "float64"
        assert found.edges["lag"].dtype == pd.Int64Dtype()
        assert list(found.breaches) == ["kind", "topic", "group", "detail"]
        assert repr(found).startswith(f"<Pipeline of {len(facts)} topics; messages/s over 60 s>")
    assert "client.topics.create" in Pipeline(Graph([]), 60.0)._repr_html_()
    assert "<table" not in found._repr_html_()
    lone = Pipeline(Graph([topic("<b>", "raw")]), 60.0)._repr_html_()
    assert "<table" in lone
    assert "<b>" not in lone
