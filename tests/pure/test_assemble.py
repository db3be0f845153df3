"""Whatever is written to streams comes out of the assembler: rows, events, stories and ends, in order."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes import BufferSettings, RowBatch, Story, StreamEndType, StreamProperties
from quixframes.assemble import Assembler
from quixframes.buffer import Piece
from quixframes.event_frames import encode_events
from quixframes.frames import FrameEncoder
from quixframes.kafka import Partition
from quixframes.poller import Assignment
from quixframes.wire import Kind, Message, MessageDecoder, MessageEncoder
from tests.pure.messages import Sent

ENCODER = FrameEncoder()
STREAMS = ["a", "b", "c"]
LIMIT = 100_000


def rows_of(start: int, count: int) -> pd.DataFrame:
    times = pd.to_datetime(range(start, start + count), unit="ms", utc=True)
    return pd.DataFrame({"n": range(start, start + count)}, index=pd.DatetimeIndex(times, name="time"))


class Writer:
    """One stream's messages, as its writer would number them."""

    def __init__(self, stream_id: str) -> None:
        self.stream_id, self.encoder, self.sequence, self.story = stream_id, MessageEncoder(), 0, Story()
        self.rows, self.events = 0, 0
        self.names: list[str | None] = []  # of each row, the stream's name when it was written
        self.ends: list[tuple[int, int, StreamEndType]] = []

    def messages(self, action: Any) -> list[Sent]:
        what, number = action
        common: dict[str, Any] = {"session": f"s-{self.stream_id}", "sequence": self.sequence, "story": self.story}
        if what == "rename":
            self.story = Story(StreamProperties(name=f"name {number}"))
            return []
        if what == "tell":
            made = [self.encoder.tell(**common)]
        elif what == "end":
            end = list(StreamEndType)[number % 3]
            self.ends.append((self.rows, self.events, end))
            made = [self.encoder.tell(**common, end=end)]
        elif what == "rows":
            batch = ENCODER.encode(rows_of(self.rows, number))
            self.rows += number
            self.names += [self.story.properties.name] * number
            made = [m[:2] for m in self.encoder.encode(batch, stream_id=self.stream_id, limit=LIMIT, **common)]
        else:
            dicts = [{"time": n, "id": f"e{n}", "value": None} for n in range(self.events, self.events + number)]
            self.events += number
            found = self.encoder.encode(
                encode_events(dicts), stream_id=self.stream_id, limit=LIMIT, kind=Kind.EVENTS, **common
            )
            made = [m[:2] for m in found]
        self.sequence += len(made)
        return [Sent(self.stream_id.encode(), value, headers) for value, headers in made]


ACTIONS = st.tuples(
    st.sampled_from(STREAMS),
    st.tuples(st.sampled_from(["rows", "rows", "rows", "events", "rename", "tell", "end"]), st.integers(1, 30)),
)


@settings(max_examples=300)
@given(
    st.lists(ACTIONS, max_size=40),
    st.integers(1, 50),
    st.none() | st.integers(1, 40),
    st.none() | st.integers(200, 3_000),
)
def test_what_is_assembled_is_what_was_written(
    actions: list[Any], rows: int, span_ms: int | None, held: int | None
) -> None:
    """For any interleaving of rows, events, stories and ends of several streams, in messages of any size: per stream
    rows and events come in order and once, each row with the story it was written under, each end once and after all
    that was written before it, and every entry of every message is in exactly one batch's claim."""
    writers = {stream: Writer(stream) for stream in STREAMS}
    span = None if span_ms is None else f"{span_ms}ms"
    assembler = Assembler(BufferSettings(rows=rows, time_span=span, timeout=None), most_held=held)
    assignment, decoder = Assignment(Partition("t", 0), None, 0), MessageDecoder()
    entries: dict[int, int] = {}
    offset = 0
    for stream, action in actions:
        for sent in writers[stream].messages(action):
            message = decoder.decode(sent)
            entries[offset] = message.entries
            assembler.add(assignment, message, offset, [(0, message.entries)] if message.entries else [])
            offset += 1
    assembler.release_held("end")
    batches = list(assembler.ready)
    claimed = [piece for batch in batches for piece in batch._claim.pieces]
    assert sorted(row for piece in claimed for row in _rows_of(piece)) == [
        (at, row) for at, count in entries.items() for row in range(count)
    ]
    for stream, writer in writers.items():
        _check(writer, [batch for batch in batches if batch.stream_id == stream], rows)


def _rows_of(piece: Piece) -> list[tuple[int, int]]:
    return [(piece.source, row) for row in range(piece.start, piece.stop)]


def _check(writer: Writer, batches: list[RowBatch], most: int) -> None:
    assert [n for batch in batches if len(batch) for n in batch.frame["n"]] == list(range(writer.rows))
    assert [e for batch in batches for e in batch.events["id"]] == [f"e{n}" for n in range(writer.events)]
    assert all(len(batch) <= most for batch in batches)
    names = [batch.stream.properties.name for batch in batches for _ in range(len(batch))]
    assert names == writer.names
    seen_rows = seen_events = 0
    ends = []
    for batch in batches:
        seen_rows += len(batch)
        seen_events += len(batch.events)
        if batch.closed is not None:
            ends.append((seen_rows, seen_events, batch.closed))
    assert ends == writer.ends


def told(stream: str, name: str | None, number: int, *, end: StreamEndType | None = None) -> Message:
    story = Story() if name is None else Story(StreamProperties(name=name))
    batch = None if end else ENCODER.encode(rows_of(number, 1))
    session = "" if name is None else "5e55"
    return Message(stream, Kind.END if end else Kind.PARAMETERS, batch, session, number, story, end)


def names_of(assembler: Assembler) -> list[tuple[int, str | None, int]]:
    """Of what is ready: the partition, the stream's name, and how many rows."""
    assembler.release_held("end")
    return [(batch.partition, batch.stream.properties.name, len(batch)) for batch in assembler.ready]


def test_messages_of_somebody_else_say_nothing_of_the_stream_they_are_in() -> None:
    assembler, assignment = Assembler(BufferSettings(timeout=None)), Assignment(Partition("t", 0), None, 0)
    for offset, name in enumerate([None, "Car", None, None]):
        assembler.add(assignment, told("a", name, offset), offset, [(0, 1)])
    assembler.add(assignment, told("a", "Car", 4, end=StreamEndType.Closed), 4, [(0, 1)])
    assembler.add(assignment, told("a", None, 5), 5, [(0, 1)])
    assert names_of(assembler) == [(0, None, 1), (0, "Car", 3), (0, "Car", 1)]


def test_a_stream_that_is_in_two_partitions_keeps_its_story_in_each() -> None:
    """As where partitions were added to a topic: what one holds is not released with what the other says."""
    assembler = Assembler(BufferSettings(timeout=None))
    partitions = [Assignment(Partition("t", number), None, 0) for number in range(2)]
    for offset in range(3):
        for assignment, name in zip(partitions, ["old", "new"], strict=True):
            assembler.add(assignment, told("a", name, offset), offset, [(0, 1)])
    assert sorted(names_of(assembler)) == [(0, "old", 3), (1, "new", 3)]


def test_a_stream_that_has_ended_takes_little_memory() -> None:
    assembler, assignment = Assembler(BufferSettings(timeout=None)), Assignment(Partition("t", 0), None, 0)
    tracemalloc.start()
    for n in range(2_000):
        if n == 1_000:
            before = tracemalloc.get_traced_memory()[0]
        assembler.add(assignment, told(f"stream-{n}", "Car", 0), 2 * n, [(0, 1)])
        assembler.add(assignment, told(f"stream-{n}", "Car", 1, end=StreamEndType.Closed), 2 * n + 1, [(0, 1)])
        assembler.ready.clear()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken / 1_000 < 1_000
    assert assembler.deadline is None
