"""Which offsets, messages and rows a replay reads."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quixframes.errors import FrameError, SettingsError
from quixframes.frames import FrameEncoder
from quixframes.kafka import Partition
from quixframes.replay_asked import Asked
from quixframes.replay_cut import Cutter
from quixframes.replay_frames import labelled, one_frame, one_table
from quixframes.replay_order import TimeOrder
from quixframes.replay_plan import Snapshot, lookups, plan
from quixframes.replay_select import Choice, Selector
from quixframes.wire import Kind, MessageDecoder
from tests.pure.messages import STORY, Sent, messages_of, plain_frame, told

MS = 1_000_000
NOW = pd.Timestamp("2026-11-20 12:00", tz="UTC")


def asked(**said: Any) -> Asked:
    return Asked.of("engine", now=NOW, **said)


@dataclass
class Written:
    """A message of one stream: the event times of its rows, in ms, and how far the cluster's clock went on before."""

    stream: str
    times: list[int]
    step: int


written = st.builds(
    Written,
    st.sampled_from(["a", "b", "c"]),
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    st.integers(-3, 10),
)
edges = st.none() | st.integers(0, 70)


def records_of(messages: list[Written]) -> list[Sent]:
    clock, found = 5, []
    for offset, one in enumerate(messages):
        clock = max(0, clock + one.step)  # broker times may go back
        index = pd.DatetimeIndex(pd.to_datetime([t * MS for t in one.times], utc=True), name="time")
        frame = pd.DataFrame({"offset": offset, "row": range(len(one.times))}, index=index)
        [sent] = messages_of(frame, stream=one.stream)
        found.append(sent._replace(offset=offset, partition=0, timestamp=clock))
    return found


def read(what: Asked, records: list[Sent]) -> dict[str, list[tuple[int, int]]]:
    """The rows that a replay reads of one partition, whose time index is as Kafka has it."""
    latest = list(accumulate((record.timestamp for record in records), max))

    def offset_at(time: int | None) -> dict[int, int] | None:
        return None if time is None else {0: bisect_left(latest, time)}

    times = lookups(what)
    snapshot = Snapshot("engine", {0: 0}, {0: len(records)}, offset_at(times.start), offset_at(times.end))
    selector, cutter, decoder = Selector(what, [Kind.PARAMETERS]), Cutter(what), MessageDecoder()
    found = defaultdict(list)
    for stretch in plan(what, [snapshot]).stretches:
        for record in records[stretch.begin : stretch.end]:
            if selector.choose(record).choice is Choice.OPEN:
                message = decoder.decode(record)
                batch = cutter.cut(message).batch
                found[message.stream_id] += zip(
                    batch.column("offset").to_pylist(), batch.column("row").to_pylist(), strict=True
                )
    return found


@given(st.lists(written, max_size=12), edges, edges, st.none() | st.integers(1, 5))
def test_exactly_the_rows_in_the_range_are_read_for_any_lateness_that_covers_them(
    messages: list[Written], start: int | None, end: int | None, more: int | None
) -> None:
    """Late, early, out of order, and with clocks that go back: each stream's rows in their order."""
    if start is not None and end is not None and start > end:
        start, end = end, start
    records = records_of(messages)
    latest = list(accumulate((record.timestamp for record in records), max))
    apart = [abs(arrival - t) for one, arrival in zip(messages, latest, strict=True) for t in one.times]
    lateness = None if more is None else f"{max(apart, default=0) + more} ms"
    edge = {name: pd.Timestamp(at, unit="ms") for name, at in (("start", start), ("end", end)) if at is not None}
    expected = defaultdict(list)
    for offset, one in enumerate(messages):
        for row, time in enumerate(one.times):
            if (start is None or time >= start) and (end is None or time < end):
                expected[one.stream].append((offset, row))
    found = read(asked(**edge, lateness=lateness), records)
    assert {stream: rows for stream, rows in found.items() if rows} == expected


@given(st.lists(written, max_size=12), st.lists(st.integers(0, 70), min_size=1, max_size=4))
def test_ranges_of_arrival_that_follow_each_other_leave_no_message_out_and_share_none(
    messages: list[Written], cuts: list[int]
) -> None:
    records = records_of(messages)
    sides = [None, *(pd.Timestamp(cut, unit="ms") for cut in sorted(cuts)), None]
    found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for start, end in pairwise(sides):
        for stream, rows in read(asked(start=start, end=end, by="arrival"), records).items():
            found[stream] += rows
    assert found == read(asked(), records)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 50)), max_size=40), st.integers(1, 9)
)
def test_merged_by_time_every_message_comes_once_and_each_stream_in_its_order(
    messages: list[tuple[int, str, int]], most: int
) -> None:
    partitions = [Partition("engine", n) for n in range(3)]
    order = TimeOrder[tuple[int, str, int]](partitions, most)
    found = []
    for number, (n, stream, time) in enumerate(messages):
        order.add(partitions[n], stream, time, 1, (n, stream, number))
        assert len(order.full) <= len(partitions)
        found += order.due()
    for partition in partitions:
        order.end(partition)
    found += order.due()
    for key in {(n, stream) for n, stream, _ in messages}:
        expected = [number for number, (n, stream, _) in enumerate(messages) if (n, stream) == key]
        assert [number for n, stream, number in found if (n, stream) == key] == expected
    assert len(found) == len(messages)


@given(st.lists(st.lists(st.integers(0, 50)), min_size=2, max_size=4), st.integers(1, 5))
def test_partitions_that_are_in_time_order_are_merged_exactly(times: list[list[int]], most: int) -> None:
    """However little may be held."""
    partitions = [Partition("engine", n) for n in range(len(times))]
    left = {at: sorted(some) for at, some in zip(partitions, times, strict=True)}
    order = TimeOrder[int](partitions, most)
    found: list[int] = []
    while any(left.values()):
        for at, some in left.items():
            if some and at not in order.full:
                order.add(at, f"s{at.number}", some[0], 1, some.pop(0))
            if not some:
                order.end(at)
        found += order.due()
    for at in partitions:
        order.end(at)
    found += order.due()
    assert found == sorted(time for some in times for time in some)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"by": "date"}, "by='date' has to be 'event'"),
        ({"start": "-7 dys"}, "start='-7 dys' is no time before now"),
        ({"start": pd.Timedelta("7 days")}, "counts back from now: it has to be negative"),
        ({"start": "soon"}, "start='soon' is not a moment"),
        ({"start": "2026-11-02", "end": "2026-11-01"}, "start='2026-11-02' is after end='2026-11-01'"),
        ({"by": "arrival", "lateness": "1 h"}, "lateness= is about event time"),
        ({"group": "g", "start": "-1 h"}, "leave start= out with it"),
        ({"start": {}}, "names no partition"),
        ({"start": {"gearbox": {0: 5}}}, "write offsets by topic and partition"),
        ({"streams": 5}, "give IDs as a list"),
        ({"columns": "speed"}, "give names as a list"),
        ({"tags": ["lap"]}, "has to map tags to their values"),
        ({"tags": {"lap": [12]}}, "the values of tags are text"),
        ({"where": "speed > 100"}, "has to be an expression of pyarrow.compute"),
    ],
)
def test_what_cannot_be_asked_says_why(said: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        asked(**said)


def test_times_before_now_become_moments_when_the_replay_is_made() -> None:
    assert asked(start="-10min").span.start == (NOW - pd.Timedelta("10min")).value
    assert asked(end=pd.Timedelta("-1 day")).span.end == (NOW - pd.Timedelta("1 day")).value


def test_what_is_asked_is_told() -> None:
    what = asked(start="2026-11-15", streams="car-*", columns=["speed"], tags={"lap": ["12", None]})
    assert str(what) == (
        "topic 'engine', from 2026-11-15 00:00:00+00:00, by event time, streams car-*, columns speed, TAG__lap 12|None"
    )


def test_offsets_that_are_gone_are_a_gap_and_partitions_that_there_are_not_are_refused() -> None:
    snapshot = Snapshot("engine", {0: 10, 1: 0}, {0: 30, 1: 5})
    made = plan(asked(start={0: 4}, end={0: 20}), [snapshot])
    assert [(stretch.begin, stretch.end) for stretch in made.stretches] == [(10, 20), (0, 5)]
    assert [str(gap) for gap in made.gaps] == ["engine[0]: offsets 4 to 9 are not retained any more"]
    assert made.not_fetched == 10
    with pytest.raises(SettingsError, match="topic 'engine' has 2 partitions"):
        plan(asked(start={7: 4}), [snapshot])


def test_a_group_that_has_committed_nothing_is_told() -> None:
    with pytest.raises(SettingsError, match="group 'pace' has committed nothing of 'engine'"):
        plan(asked(group="pace"), [Snapshot("engine", {0: 0}, {0: 5}, committed={})])


def test_a_stream_can_be_chosen_by_what_it_says_of_itself() -> None:
    what = asked(streams=lambda stream: stream.properties.metadata.get("tyres") == "soft")
    assert Selector(what, list(Kind)).choose(told(None)).choice is Choice.OPEN
    [plain] = messages_of(plain_frame())
    assert Selector(what, list(Kind)).choose(plain).choice is Choice.STREAM
    with pytest.raises(SettingsError, match="has to return True or False"):
        Selector(asked(streams=lambda stream: STORY), list(Kind)).choose(plain)


def cut(what: Asked, frame: pd.DataFrame) -> pa.RecordBatch:
    [sent] = messages_of(frame)
    return Cutter(what).cut(MessageDecoder().decode(sent)).batch


def test_rows_are_chosen_by_their_values_with_an_expression_or_a_function() -> None:
    frame = plain_frame()
    expected = frame[frame["gear"] > 6]["speed"].tolist()
    for where in (pc.field("gear") > 6, lambda rows: rows["speed"] > 0.7):
        found = cut(asked(where=where, columns=["speed"]), frame)
        assert found.schema.names == ["time", "speed"]
        assert found.column("speed").to_pylist() in (expected, frame["speed"][7:].tolist())
    with pytest.raises(SettingsError, match="has to be true or false of each row"):
        cut(asked(where=pc.field("gear") + 1), frame)


def test_rows_are_chosen_by_their_tags_also_by_missing_ones() -> None:
    frame = plain_frame(3).assign(TAG__lap=["1", None, "2"])
    assert cut(asked(tags={"lap": "1"}), frame).num_rows == 1
    assert cut(asked(tags={"lap": ["1", None]}), frame).num_rows == 2
    assert cut(asked(tags={"driver": "Ann"}), frame).num_rows == 0
    assert cut(asked(tags={"driver": None}), frame).num_rows == 3


def batches(frame: pd.DataFrame) -> list[pa.RecordBatch]:
    return [FrameEncoder().encode(frame)]


def test_a_table_has_topics_and_streams_as_dictionaries_and_nulls_where_a_column_lacks() -> None:
    found = {("engine", "car-1"): batches(plain_frame(2)), ("laps", "car-1"): batches(plain_frame(1)[["speed"]])}
    table = one_table(found, ("topic", "stream"))
    assert table.schema.names == ["time", "topic", "stream", "speed", "gear"]
    assert table.column("topic").to_pylist() == ["engine", "engine", "laps"]
    assert table.column("gear").to_pylist() == [0, 1, None]
    frame = labelled(one_frame(found), found, ("topic", "stream"))
    assert frame["topic"].tolist() == ["engine", "engine", "laps"]
    assert frame["gear"].dtype == "Int8"
    with pytest.raises(FrameError, match="have a column 'speed'"):
        one_table(found, (None, "speed"))
    found["laps", "car-2"] = batches(plain_frame(1).astype({"speed": "float32"}))
    with pytest.raises(FrameError, match="of other types"):
        one_table(found, (None, "stream"))
