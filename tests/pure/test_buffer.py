"""When held rows are released: each rule as a table, and that it does not matter how the rows arrived."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes import BufferSettings, SettingsError
from quixframes.buffer import Piece, Release, RowBuffer
from quixframes.event_frames import encode_events, event_nbytes
from quixframes.frames import FrameDecoder, FrameEncoder
from quixframes.wire import event_times

ENCODER, DECODER = FrameEncoder(), FrameDecoder()
NO_RULE: dict[str, Any] = {"rows": None, "timeout": None, "bytes": None}


def frame_of(times: list[int], texts: list[str] | None = None) -> pd.DataFrame:
    data: dict[str, Any] = {"n": np.arange(len(times))}
    if texts is not None:
        data["text"] = pd.array(texts, dtype="string[python]")
    return pd.DataFrame(data, index=pd.DatetimeIndex(pd.to_datetime(times, unit="ns", utc=True), name="time"))


def make(**rules: Any) -> RowBuffer:
    return RowBuffer(BufferSettings(**{**NO_RULE, **rules}), DECODER.decode)


def feed(buffer: RowBuffer, frame: pd.DataFrame, cuts: list[int] | None = None) -> tuple[list[Release], list[Piece]]:
    """Add a frame in pieces, each piece its own source, and let go of the rest."""
    releases, dropped = [], []
    edges = [0, *sorted(cuts or []), len(frame)]
    for source, (start, stop) in enumerate(itertools.pairwise(edges)):
        added = buffer.add(ENCODER.encode(frame.iloc[start:stop]), now=0.0, source=source)
        releases += added.releases
        dropped += added.dropped
    last = buffer.release("end")
    return releases + ([last] if last else []), dropped


def ns_of(releases: list[Release]) -> list[list[int]]:
    return [event_times(release.batch).tolist() for release in releases]


SPANS = [
    # times, span in ns, the times of each release
    ([0, 1, 2, 3, 4], 3, [[0, 1, 2], [3, 4]]),  # 3 - 0 would reach 3: the earlier rows go first
    ([0, 2, 2, 2, 3], 3, [[0, 2, 2, 2], [3]]),
    ([0, 10, 20], 5, [[0], [10], [20]]),  # every row would reach it
    ([5, 4, 3, 2, 1, 0], 3, [[5, 4, 3], [2, 1, 0]]),  # backwards: newest minus oldest, whatever the order
    ([10, 0, 11], 11, [[10, 0], [11]]),
    ([10, 0, 11], 12, [[10, 0, 11]]),
    ([7], 1, [[7]]),
    ([7, 7, 7], 1, [[7, 7, 7]]),
]


@pytest.mark.parametrize(("times", "span", "expected"), SPANS)
def test_a_row_that_would_make_the_span_reach_the_limit_releases_the_earlier_rows_first(
    times: list[int], span: int, expected: list[list[int]]
) -> None:
    releases, _ = feed(make(time_span=pd.Timedelta(span, "ns")), frame_of(times))
    assert ns_of(releases) == expected
    assert [release.reason for release in releases] == ["time_span"] * (len(expected) - 1) + ["end"]


@pytest.mark.parametrize(
    ("rows", "count", "expected"), [(3, 7, [3, 3, 1]), (1, 3, [1, 1, 1]), (7, 7, [7]), (8, 7, [7]), (3, 6, [3, 3])]
)
def test_a_full_row_count_releases_including_the_row(rows: int, count: int, expected: list[int]) -> None:
    buffer = make(rows=rows)
    added = buffer.add(ENCODER.encode(frame_of(list(range(count)))), now=0.0)
    full = [release.batch.num_rows for release in added.releases]
    assert full == [n for n in expected if n == rows]
    assert buffer.rows == count - sum(full)
    rest = buffer.release("end")
    assert full + ([rest.batch.num_rows] if rest else []) == expected


def test_a_row_that_would_pass_the_size_releases_the_earlier_rows_first() -> None:
    """A row of this frame takes 16 bytes: eight of time, eight of n."""
    releases, _ = feed(make(bytes=50), frame_of(list(range(7))))
    assert ns_of(releases) == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_row_over_the_size_is_a_batch_by_itself() -> None:
    releases, _ = feed(make(bytes=200), frame_of([0, 1, 2, 3], ["a", "b" * 500, "c", "d"]))
    assert ns_of(releases) == [[0], [1], [2, 3]]


def test_each_true_of_the_trigger_releases_that_row_included() -> None:
    buffer = make(trigger=lambda frame: frame["n"].isin([1, 2, 5]))
    releases, _ = feed(buffer, frame_of(list(range(8))))
    assert ns_of(releases) == [[0, 1], [2], [3, 4, 5], [6, 7]]
    assert [release.reason for release in releases] == ["trigger", "trigger", "trigger", "end"]


def test_filtered_rows_are_not_held_and_count_for_no_rule() -> None:
    buffer = make(rows=2, filter=lambda frame: frame["n"] % 2 == 1)
    releases, dropped = feed(buffer, frame_of(list(range(8))))
    assert ns_of(releases) == [[1, 3], [5, 7]]
    assert dropped == []
    assert [release.pieces for release in releases] == [(Piece(0, 0, 4),), (Piece(0, 4, 8),)]


def test_rows_that_the_filter_removed_are_reported_at_once_where_nothing_is_held() -> None:
    buffer = make(filter=lambda frame: frame["n"] < 2)
    added = buffer.add(ENCODER.encode(frame_of([0, 1, 2, 3])), now=0.0, source=8, start=100)
    assert (added.releases, added.dropped) == ([], [])  # rows 2 and 3 wait with 0 and 1
    held = buffer.release("end")
    assert held is not None
    assert held.pieces == (Piece(8, 100, 104),)
    nothing = make(filter=lambda frame: frame["n"] < 0)
    added = nothing.add(ENCODER.encode(frame_of([0, 1, 2, 3])), now=0.0, source=8, start=100)
    assert added.dropped == [Piece(8, 100, 104)]


def test_a_change_of_columns_or_dtypes_releases_what_is_held_first() -> None:
    buffer = make()
    ints, floats = frame_of([0, 1]), frame_of([2]).astype("float64")
    assert buffer.add(ENCODER.encode(ints), now=0.0).releases == []
    (release,) = buffer.add(ENCODER.encode(floats), now=0.0).releases
    assert (release.reason, release.batch.num_rows) == ("schema", 2)
    assert DECODER.decode(release.batch)["n"].dtype == np.int64


def test_the_timeout_counts_from_the_first_held_row() -> None:
    """A steady stream of rows does not put it off: it is a bound on latency."""
    buffer = make(timeout="1s")
    batch = ENCODER.encode(frame_of([0]))
    assert buffer.deadline is None
    for now in (10.0, 10.5, 10.9):
        assert buffer.add(batch, now).releases == []
    assert buffer.deadline == 11.0
    assert buffer.expire(10.99) is None
    release = buffer.expire(11.0)
    assert release is not None
    assert (release.batch.num_rows, release.reason) == (3, "timeout")
    assert (buffer.rows, buffer.deadline, buffer.nbytes) == (0, None, 0)


def test_rows_that_come_after_the_time_is_up_do_not_join_those_that_were_held() -> None:
    buffer = make(timeout="1s")
    batch = ENCODER.encode(frame_of([0]))
    buffer.add(batch, 0.0)
    (release,) = buffer.add(batch, 1.5).releases
    assert (release.batch.num_rows, release.reason) == (1, "timeout")
    assert buffer.deadline == 2.5


def test_the_time_of_rows_that_stay_after_a_release_begins_with_them() -> None:
    buffer = make(timeout="1s", rows=2)
    buffer.add(ENCODER.encode(frame_of([0])), 0.0)
    buffer.add(ENCODER.encode(frame_of([0, 1])), 0.7)
    assert (buffer.rows, buffer.deadline) == (1, 1.7)


@pytest.mark.parametrize("returned", [[1, 2], "yes", None, np.zeros(3), [True]])
@pytest.mark.parametrize("rule", ["filter", "trigger"])
def test_a_function_that_returns_no_mask_is_refused_and_takes_nothing_in(rule: str, returned: object) -> None:
    buffer = make(**{rule: lambda _: returned})
    with pytest.raises(SettingsError, match=f"{rule} has to return one True or False for each of the 3 rows"):
        buffer.add(ENCODER.encode(frame_of([0, 1, 2])), now=0.0)
    assert buffer.rows == 0


@given(
    times=st.lists(st.integers(0, 60), min_size=1, max_size=60),
    cuts=st.data(),
    rows=st.none() | st.integers(1, 12),
    span=st.none() | st.integers(1, 30),
    size=st.none() | st.integers(1, 400),
    modulus=st.none() | st.integers(2, 9),
    kept=st.none() | st.integers(2, 5),
    with_text=st.booleans(),
)
@settings(max_examples=500)
def test_any_splitting_of_the_same_rows_gives_the_same_batches(
    times: list[int],
    cuts: st.DataObject,
    rows: int | None,
    span: int | None,
    size: int | None,
    modulus: int | None,
    kept: int | None,
    with_text: bool,
) -> None:
    """The timeout aside, batches are a fact about the rows. And no row is lost, repeated or moved, and the pieces name
    each row, filtered ones included, exactly once."""
    frame = frame_of(times, ["x" * (time % 7 * 9) for time in times] if with_text else None)
    rules: dict[str, Any] = {"rows": rows, "bytes": size}
    if span is not None:
        rules["time_span"] = pd.Timedelta(span, "ns")
    if modulus is not None:
        rules["trigger"] = lambda f: f["n"] % modulus == 0
    if kept is not None:
        rules["filter"] = lambda f: f["n"] % kept != 0
    places = cuts.draw(st.lists(st.integers(0, len(times)), max_size=6))
    whole, _ = feed(make(**rules), frame)
    split, dropped = feed(make(**rules), frame, places)
    assert [DECODER.decode(r.batch)["n"].tolist() for r in split] == [
        DECODER.decode(r.batch)["n"].tolist() for r in whole
    ]
    expected = frame if kept is None else frame[frame["n"] % kept != 0]
    if whole:
        pd.testing.assert_frame_equal(pd.concat([DECODER.decode(r.batch) for r in split]), expected, check_exact=True)
    else:
        assert expected.empty
    named = [(p.source, row) for r in split for p in r.pieces for row in range(p.start, p.stop)]
    named += [(p.source, row) for p in dropped for row in range(p.start, p.stop)]
    edges = [0, *sorted(places), len(times)]
    assert sorted(named) == [(n, row) for n, (a, b) in enumerate(itertools.pairwise(edges)) for row in range(b - a)]


def reference(frame: pd.DataFrame, rows: int | None, span: int | None) -> list[list[int]]:
    """The rules of rows and span, row by row, as the docstring of BufferSettings states them."""
    batches: list[list[int]] = []
    held: list[tuple[int, int]] = []
    for n, time in zip(frame["n"].tolist(), frame.index.as_unit("ns").asi8.tolist(), strict=True):
        times = [t for _, t in held] + [time]
        if span is not None and held and max(times) - min(times) >= span:
            batches.append([m for m, _ in held])
            held = []
        held.append((n, time))
        if rows is not None and len(held) == rows:
            batches.append([m for m, _ in held])
            held = []
    return batches + ([[m for m, _ in held]] if held else [])


@given(
    times=st.lists(st.integers(0, 5000), min_size=1, max_size=40).map(lambda ts: [t for t in ts for _ in range(40)]),
    rows=st.none() | st.integers(1, 900),
    span=st.none() | st.integers(1, 4000),
)
@settings(max_examples=100)
def test_the_batches_are_those_of_the_rules_taken_row_by_row(
    times: list[int], rows: int | None, span: int | None
) -> None:
    frame = frame_of(times)
    rules: dict[str, Any] = {"rows": rows} | ({} if span is None else {"time_span": pd.Timedelta(span, "ns")})
    releases, _ = feed(make(**rules), frame)
    assert [DECODER.decode(r.batch)["n"].tolist() for r in releases] == reference(frame, rows, span)


# Events


def events_of(texts: list[str], *, tag: str | None = None, start: int = 0) -> list[dict[str, Any]]:
    tags = {} if tag is None else {"lap": tag}
    return [{"time": start + n, "id": f"e{start + n}", "value": text, "tags": tags} for n, text in enumerate(texts)]


def held_events(releases: list[Release]) -> list[list[str]]:
    return [[name for events in release.events for name in events.column("id").to_pylist()] for release in releases]


@given(st.lists(st.tuples(st.text(max_size=4), st.none() | st.text(max_size=4), st.none() | st.text(max_size=4))))
def test_an_event_has_the_same_size_alone_and_among_others(drawn: list[tuple[str, str | None, str | None]]) -> None:
    frame = [{"time": 0, "id": f"e{text}", "value": value, "TAG__x": tag} for text, value, tag in drawn]
    alone = [size for event in frame for size in event_nbytes(encode_events(event))]
    assert alone == (event_nbytes(encode_events(frame)) if frame else [])


def test_held_events_count_with_their_texts() -> None:
    buffer = make()
    buffer.add_events(encode_events(events_of(["x" * 500_000], tag="y" * 200_000)), now=0.0)
    assert 700_000 < buffer.nbytes < 701_000


def test_an_event_that_would_pass_the_size_releases_what_is_held_before_it() -> None:
    buffer = make(bytes=10_000)
    buffer.add(ENCODER.encode(frame_of([0, 1])), now=0.0)
    added = buffer.add_events(encode_events(events_of(["x" * 4_000] * 5)), now=0.0)
    assert [release.reason for release in added.releases] == ["bytes", "bytes"]
    assert [release.batch.num_rows for release in added.releases] == [2, 0]
    last = buffer.release("end")
    assert last is not None
    assert held_events([*added.releases, last]) == [["e0", "e1"], ["e2", "e3"], ["e4"]]


def test_an_event_over_the_size_is_a_batch_by_itself() -> None:
    buffer = make(bytes=1_000)
    texts = ["a", "b" * 5_000, "c"]
    releases = buffer.add_events(encode_events(events_of(texts)), now=0.0).releases
    releases += buffer.add(ENCODER.encode(frame_of([0])), now=0.0).releases
    last = buffer.release("end")
    assert last is not None
    assert held_events([*releases, last]) == [["e0"], ["e1"], ["e2"]]


def test_rows_after_events_count_on_from_them() -> None:
    """Both together stay under the size."""
    buffer = make(bytes=1_000)
    buffer.add_events(encode_events(events_of(["x" * 900])), now=0.0)
    (release,) = buffer.add(ENCODER.encode(frame_of(list(range(10)))), now=0.0).releases
    assert (release.reason, release.batch.num_rows, len(release.events)) == ("bytes", 4, 1)


def test_a_row_does_not_join_events_that_are_over_the_size_already() -> None:
    buffer = make(bytes=1_000)
    buffer.add_events(encode_events(events_of(["x" * 5_000])), now=0.0)
    (release,) = buffer.add(ENCODER.encode(frame_of([0, 1])), now=0.0).releases
    assert (release.reason, release.batch.num_rows, len(release.events)) == ("bytes", 0, 1)
    assert (buffer.rows, buffer.nbytes) == (2, 32)


def test_a_few_events_that_wait_do_not_keep_all_the_others_in_memory() -> None:
    buffer = make(rows=9)
    buffer.add_events(encode_events(events_of(["x" * 100_000] * 10, tag="y")), now=0.0)
    last = buffer.release("end")
    assert last is not None
    assert held_events([last]) == [["e9"]]
    assert last.events[0].get_total_buffer_size() < 200_000


@given(st.lists(st.integers(0, 300), max_size=30), st.data(), st.none() | st.integers(1, 12), st.integers(1, 2_000))
def test_any_splitting_of_the_same_events_gives_the_same_batches(
    lengths: list[int], cuts: st.DataObject, rows: int | None, size: int
) -> None:
    def feed_events(places: list[int]) -> list[list[str]]:
        buffer, releases = make(rows=rows, bytes=size), []
        for start, stop in itertools.pairwise([0, *sorted(places), len(lengths)]):
            if stop > start:
                texts = ["x" * length for length in lengths[start:stop]]
                releases += buffer.add_events(encode_events(events_of(texts, start=start)), now=0.0).releases
        last = buffer.release("end")
        return held_events(releases + ([last] if last else []))

    whole = feed_events([])
    assert feed_events(cuts.draw(st.lists(st.integers(0, len(lengths)), max_size=5))) == whole
    assert [name for names in whole for name in names] == [f"e{n}" for n in range(len(lengths))]
