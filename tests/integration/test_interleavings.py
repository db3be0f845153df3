"""Whatever is written to several streams, in whatever order and sizes, is what a reader reports."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quixframes as qf

STREAMS = ["car-1", "car-2", "wearable/ü"]
WHAT = ["write", "write", "buffer", "buffer", "buffer dicts", "events", "name", "close", "flush"]
ACTIONS = st.lists(st.tuples(st.sampled_from(STREAMS), st.sampled_from(WHAT), st.integers(1, 25)), max_size=30)


@dataclass
class Written:
    """What a stream was given, and what it was read as."""

    names: list[str | None] = field(default_factory=list)  # of each row, the stream's name when it was written
    events: int = 0
    ends: list[tuple[int, int, qf.StreamEndType]] = field(default_factory=list)
    read_names: list[str | None] = field(default_factory=list)
    read_rows: list[int] = field(default_factory=list)
    read_events: list[str] = field(default_factory=list)
    read_ends: list[tuple[int, int, qf.StreamEndType]] = field(default_factory=list)


def act(out: qf.OutputTopic, seen: dict[str, Written], stream: str, what: str, number: int) -> None:
    writer, written = out.get_or_create_stream(stream), seen[stream]
    start = len(written.names)
    if what in ("write", "buffer", "buffer dicts"):
        times = pd.to_datetime(range(start, start + number), unit="ms", utc=True)
        frame = pd.DataFrame({"time": times, "n": range(start, start + number)})
        if what == "write":
            writer.parameters.write(frame)
        elif what == "buffer":
            writer.parameters.buffer.write(frame)
        else:
            writer.parameters.buffer.write([{"time": t, "n": n} for t, n in zip(times, frame["n"], strict=True)])
        written.names += [writer.properties.name] * number
    elif what == "events":
        writer.events.write([{"time": n, "id": f"e{n}"} for n in range(written.events, written.events + number)])
        written.events += number
    elif what == "name":
        writer.properties.name = f"name {number}"
    elif what == "close":
        end = list(qf.StreamEndType)[number % 3]
        writer.close(end)
        written.ends.append((start, written.events, end))
    else:
        writer.flush()


def take(seen: dict[str, Written], batch: qf.RowBatch) -> None:
    read = seen[batch.stream_id]
    read.read_names += [batch.stream.properties.name] * len(batch)
    read.read_rows += batch.frame["n"].tolist() if len(batch) else []
    read.read_events += batch.events["id"].tolist()
    if batch.closed is not None:
        read.read_ends.append((len(read.read_rows), len(read.read_events), batch.closed))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ACTIONS,
    st.builds(qf.BufferSettings, rows=st.integers(1, 40), time_span=st.none() | st.integers(5, 50).map("{}ms".format)),
    st.integers(1, 40),
    st.integers(1, 10),
)
def test_what_is_read_is_what_was_written(
    broker_address: str,
    session_client: qf.StreamingClient,
    actions: Any,
    buffer: qf.BufferSettings,
    rows: int,
    stop_after: int,
) -> None:
    """Rows and events in order, each row with the properties it was written under, each end once and after all that
    was before it; over a restart of the reader in the middle as well."""
    topic, group = f"i-{uuid.uuid4().hex[:12]}", "g"
    session_client.topics.create(topic, partitions=2)
    seen = {stream: Written() for stream in STREAMS}
    with qf.StreamingClient(broker_address) as client:
        with client.open_output_topic(topic, buffer=buffer) as out:
            for action in actions:
                act(out, seen, *action)
        for most in (stop_after, 10**9):
            with client.open_input_topic(topic, group, qf.CommitMode.Manual) as opened:
                for number, batch in enumerate(opened.batches(rows=rows, until="now", timeout="60s"), 1):
                    take(seen, batch)
                    assert batch.commit()
                    if number == most:
                        break
                assert opened.sequence_faults.empty
    session_client.topics.delete(topic)
    for written in seen.values():
        assert written.read_rows == list(range(len(written.names)))
        assert written.read_names == written.names
        assert written.read_events == [f"e{n}" for n in range(written.events)]
        assert written.read_ends == written.ends
