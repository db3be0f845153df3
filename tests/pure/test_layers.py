"""Nodes and arrows in a picture: in layers, apart from each other."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from quixframes.layers import lay_out

NAMES = st.sampled_from("abcdefgh")
EDGES = st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=16)


@given(EDGES)
def test_no_two_nodes_overlap_and_every_arrow_goes_right_or_is_told_apart(edges: list[tuple[str, str]]) -> None:
    sizes = {node: (60.0 + 10 * (ord(node) % 3), 30.0 + 8 * (ord(node) % 2)) for edge in edges for node in edge}
    layout = lay_out(sizes, edges)
    for (a, (ax, ay)), (b, (bx, by)) in itertools.combinations(layout.nodes.items(), 2):
        apart = max(abs(ax - bx) - (sizes[a][0] + sizes[b][0]) / 2, abs(ay - by) - (sizes[a][1] + sizes[b][1]) / 2)
        assert apart > 10
    assert layout.ways.keys() | layout.back.keys() == set(edges)
    assert not layout.ways.keys() & layout.back.keys()
    for way in layout.ways.values():
        assert all(x <= later for (x, _), (later, _) in itertools.pairwise(way))
    for node, (x, y) in layout.nodes.items():
        assert sizes[node][0] / 2 - 1e-6 <= x <= layout.width - sizes[node][0] / 2 + 1e-6
        assert sizes[node][1] / 2 - 1e-6 <= y <= layout.height - sizes[node][1] / 2 + 1e-6


@given(EDGES)
def test_without_its_arrows_back_a_graph_has_no_cycle(edges: list[tuple[str, str]]) -> None:
    layout = lay_out({node: (50.0, 30.0) for edge in edges for node in edge}, edges)
    left = dict.fromkeys(node for edge in edges for node in edge)
    while left:
        first = next(node for node in left if not any(t == node and s in left for s, t in layout.ways))
        del left[first]


def test_a_chain_is_a_line_and_what_skips_a_layer_goes_around() -> None:
    layout = lay_out(dict.fromkeys("abc", (50.0, 30.0)), [("a", "b"), ("b", "c"), ("a", "c")])
    assert layout.nodes["a"][0] < layout.nodes["b"][0] < layout.nodes["c"][0]
    way = layout.ways["a", "c"]
    assert len(way) == 4
    assert abs(way[1][1] - layout.nodes["b"][1]) >= 15 + 7
    alone = lay_out(dict.fromkeys("abc", (50.0, 30.0)), [("a", "b"), ("b", "c")])
    assert len({y for _, y in alone.nodes.values()}) == 1


def test_branches_that_need_not_cross_do_not() -> None:
    edges = [("a", "x"), ("a", "y"), ("b", "z"), ("x", "p"), ("y", "q"), ("z", "r")]
    nodes = dict.fromkeys("abyxzrqp", (50.0, 30.0))
    at = {node: y for node, (_, y) in lay_out(nodes, edges).nodes.items()}
    assert (at["x"] < at["y"]) == (at["p"] < at["q"])
    assert (at["x"] < at["z"]) == (at["p"] < at["r"])
