"""The graph of topics and models, and what in it breaks the rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quixframes.about import TopicAbout
from quixframes.governance import Edge, Graph, TopicFacts, cycles


def topic(name: str, stage: str | None = None, *made_from: str, model: str | None = None, **facts: Any) -> TopicFacts:
    return TopicFacts(name, TopicAbout(stage, made_from=made_from, model=model), **facts)


def chain(**raw: Any) -> list[TopicFacts]:
    return [
        topic("engine", "raw", rate=12.0, lags={"cleaner": 3}, **raw),
        topic("engine-clean", "clean", "engine", model="cleaner", rate=11.0, lags={"pace": 0}),
        topic("pace", "results", "engine-clean", model="pace", rate=1.0, lags={"dashboard": 7}),
    ]


def kinds(*topics: TopicFacts) -> list[tuple[str, str, str | None]]:
    return [(one.kind, one.topic, one.group) for one in Graph(topics).breaches]


def test_a_chain_has_an_arrow_for_each_model_and_each_reader_with_rate_and_lag() -> None:
    graph = Graph(chain())
    assert graph.edges == (
        Edge("engine", "cleaner", "engine-clean", 12.0, 3),
        Edge("engine-clean", "pace", "pace", 11.0, 0),
        Edge("pace", "dashboard", None, 1.0, 7),
    )
    assert graph.breaches == ()


def test_every_group_that_reads_what_does_not_conform_is_told() -> None:
    first, *rest = chain(looked_at=20, refused=2, reason="speed is text")
    assert kinds(first, *rest) == [("does not conform", "engine", "cleaner")]
    (breach,) = Graph([first, *rest]).breaches
    assert breach.detail == (
        "2 of the 20 newest messages do not keep the contract, and cleaner reads them: speed is text"
    )
    alone = topic("lone", "raw", looked_at=1, refused=1)
    assert ("does not conform", "lone", None) in kinds(alone)


def test_a_cycle_is_told_once_with_its_way() -> None:
    a, b, c = topic("a", None, "c", model="m"), topic("b", None, "a", model="n"), topic("c", None, "b")
    (breach,) = Graph([a, b, c]).breaches
    assert (breach.kind, breach.topic, breach.group) == ("cycle", "a", "m, n")
    assert breach.detail == "it is made from itself: a → b → c → a"


def test_a_model_that_reads_its_own_output_is_a_cycle_that_nobody_declared() -> None:
    found = kinds(topic("in", "raw"), topic("out", "results", "in", model="m", lags={"m": 0}))
    assert found == [("cycle", "out", "m"), ("undeclared", "out", "m")]


def test_what_a_model_reads_beside_what_was_said_is_told() -> None:
    first, *rest = chain()
    other = topic("weather", "raw", lags={"pace": 5})
    assert kinds(first, *rest, other) == [("undeclared", "pace", "pace")]
    assert Edge("weather", "pace", "pace", None, 5, False) in Graph([first, *rest, other]).edges


def test_a_prototype_that_is_fed_into_production_is_told_also_by_way_of_topics_without_a_stage() -> None:
    trial = topic("trial", "prototype", lags={"me": 0})
    assert kinds(trial, topic("more", "prototype", "trial")) == []
    assert kinds(trial, topic("pace", "results", "trial", model="m")) == [("prototype in production", "pace", "m")]
    assert kinds(trial, topic("own", "a word of ours", "trial")) == [("prototype in production", "own", None)]
    found = Graph([trial, topic("between", None, "trial"), topic("pace", "results", "between", model="m")])
    assert [one.detail for one in found.breaches] == [
        "it is results, and is made from the prototype trial: trial → between → pace"
    ]


def test_an_orphan_is_connected_to_nothing_or_does_not_say_where_it_comes_from() -> None:
    assert kinds(topic("alone", "raw")) == [("orphan", "alone", None)]
    assert kinds(topic("read", "raw", lags={"g": 0})) == []
    assert kinds(topic("found", "clean", lags={"g": 0})) == [("orphan", "found", None)]
    graph = Graph([topic("made", "clean", "gone", model="m")])
    assert [one.detail for one in graph.breaches] == ["it is made from gone, which is not there"]
    assert graph.missing == ["gone"]


def test_a_name_against_the_rule_is_told() -> None:
    assert kinds(topic("x", "raw", lags={"g": 0}, naming="no name")) == [("name", "x", None)]


NAMES = st.sampled_from("abcdef")
EDGES = st.lists(st.tuples(NAMES, NAMES), max_size=14)


def reaches(edges: list[tuple[str, str]], start: str, end: str) -> bool:
    found = {target for source, target in edges if source == start}
    for _ in edges:
        found |= {target for source, target in edges if source in found}
    return end in found


@given(EDGES)
def test_every_cycle_is_one_and_every_node_on_a_cycle_leads_to_one_that_is_told(edges: list[tuple[str, str]]) -> None:
    told = cycles(edges)
    for cycle in told:
        assert len(set(cycle)) == len(cycle)
        assert all(step in edges for step in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    for node in {source for source, _ in edges}:
        if reaches(edges, node, node):
            (home,) = [c for c in told if reaches(edges, node, c[0]) and reaches(edges, c[0], node)]
            assert home


@given(
    st.lists(
        st.tuples(
            NAMES,
            st.sampled_from(["raw", "clean", "results", "prototype", None]),
            st.lists(NAMES, max_size=3),
            st.lists(NAMES, max_size=3),
        ),
        unique_by=lambda one: one[0],
    )
)
def test_any_cluster_has_a_graph(given_topics: list[tuple[str, str | None, list[str], list[str]]]) -> None:
    graph = Graph(
        topic(n, stage, *made, model=n, lags=dict.fromkeys(groups, 1)) for n, stage, made, groups in given_topics
    )
    assert {edge.target for edge in graph.edges} - {None} <= graph.topics.keys()
    for edge in graph.edges:
        assert edge.source in graph.topics or edge.source in graph.missing or edge.source is None


@pytest.mark.parametrize("count", [0, 1])
def test_few_topics_are_a_graph_too(count: int) -> None:
    assert len(Graph(chain()[:count]).topics) == count
