"""``client.replay``: retained data of a real Kafka as frames, batches and tables."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import quixframes as qf
from tests.conftest import MakeTopic
from tests.waiting import wait_for

MakeFrame = Callable[..., pd.DataFrame]


def shuffled(rows: int, seed: int) -> pd.DataFrame:
    """Rows of a minute each, some late, some early, in no order."""
    random = np.random.default_rng(seed)
    times = pd.Timestamp("2026-11-01", tz="UTC") + pd.to_timedelta(random.permutation(rows), unit="min")
    frame = pd.DataFrame({"n": np.arange(rows), "x": random.standard_normal(rows)}, index=times.as_unit("ns"))
    return frame.rename_axis("time")


def test_a_range_of_event_time_has_exactly_its_rows_in_the_order_of_their_writing(
    client: qf.StreamingClient, make_topic: MakeTopic
) -> None:
    topic = make_topic(partitions=2)
    frames = {f"car-{n}": shuffled(500, n) for n in range(4)}
    with client.open_output_topic(topic) as out:
        for start in range(0, 500, 50):
            for stream, frame in frames.items():
                out.write(frame.iloc[start : start + 50], stream=stream)
    found = client.replay(topic, start="2026-11-01 02:00", end="2026-11-01 03:30", progress=False).to_frame()
    for stream, frame in frames.items():
        inside = (frame.index >= "2026-11-01 02:00") & (frame.index < "2026-11-01 03:30")
        part = found[found["stream"] == stream].drop(columns="stream")
        pd.testing.assert_frame_equal(part, frame[inside], check_exact=True)


def test_messages_outside_of_a_range_are_not_opened(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    """For a twentieth of the data, under a tenth of the bytes is decoded, and what was skipped is told."""
    with client.open_output_topic(topic) as out:
        for start in range(0, 20_000, 100):
            out.write(make_frame(100, start=start), stream="car-44")
    replay = client.replay(
        topic, start=pd.Timestamp(10_000, unit="ms"), end=pd.Timestamp(11_000, unit="ms"), progress=False
    )
    assert replay.to_frame()["n"].tolist() == list(range(10_000, 11_000))
    report = replay.report
    assert report is not None
    assert report.complete
    assert report.decoded_bytes < report.bytes / 10
    assert (report.decoded, report.skipped_by_time, report.rows) == (10, 190, 1_000)
    assert "skipped 190 by time" in repr(replay)


def test_a_range_of_arrival_is_found_by_kafkas_time_index(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    """Whatever the rows' own clocks say."""
    with client.open_output_topic(topic) as out:
        out.write(make_frame(10, start=5_000), stream="car-44")
        out.flush()
        between = time.time_ns() // 1_000_000 + 1
        assert wait_for(lambda: time.time_ns() // 1_000_000 > between)
        out.write(make_frame(10), stream="car-44")
    later = client.replay(topic, start=pd.Timestamp(between, unit="ms"), by="arrival", progress=False)
    assert later.to_frame()["n"].tolist() == list(range(10))
    assert later.report is not None
    assert (later.report.messages, later.report.not_fetched) == (1, 1)
    before = client.replay(topic, end=pd.Timestamp(between, unit="ms"), by="arrival", progress=False)
    assert before.to_frame()["n"].tolist() == list(range(5_000, 5_010))


@pytest.fixture
def cars(client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame) -> str:
    """A topic of two cars and a bike, which say what tyres they have; with a tag, an event, and missing speed."""
    topic = make_topic(partitions=2)
    with client.open_output_topic(topic) as out:
        for number, (name, tyres) in enumerate({"car-1": "soft", "car-2": "hard", "bike-1": "soft"}.items()):
            stream = out.get_or_create_stream(name)
            stream.properties.metadata["tyres"] = tyres
            frame = make_frame(100, start=number).assign(TAG__lap=["1"] * 50 + ["2"] * 50)
            stream.parameters.write(frame if number < 2 else frame.drop(columns="p0"))
            stream.events.write({"time": 5, "id": "pit-stop"})
    return topic


def test_streams_tags_rows_and_columns_are_chosen(client: qf.StreamingClient, cars: str) -> None:
    def streams(**said: object) -> list[str]:
        found = client.replay(cars, progress=False, **said).to_frame()  # type: ignore[arg-type]
        return list(found["stream"].unique())

    assert streams(streams="car-*") == ["car-1", "car-2"]
    assert streams(streams=["bike-1"]) == ["bike-1"]
    assert streams(streams=lambda one: one.properties.metadata["tyres"] == "soft") == ["bike-1", "car-1"]
    found = client.replay(cars, columns=["n"], tags={"lap": "2"}, where=pc.field("p0") > 0, progress=False).to_frame()
    assert list(found.columns) == ["stream", "n"]
    assert list(found["stream"].unique()) == ["car-1", "car-2"]  # the bike has no p0
    assert found["n"].min() >= 50
    with pytest.raises(qf.FrameError, match="no message of .* has all of its columns"):
        streams(where=pc.field("speed") > 0)


def test_a_replay_is_frames_by_stream_a_table_and_an_arrow_stream(client: qf.StreamingClient, cars: str) -> None:
    replay = client.replay(cars, progress=False)
    frames = replay.frames()
    assert list(frames) == ["bike-1", "car-1", "car-2"]
    assert "p0" not in frames["bike-1"].columns
    table = pa.table(replay)
    assert table.num_rows == 300
    assert table.schema.names[:2] == ["time", "stream"]
    assert table.column("p0").null_count == 100
    assert len(replay.events()) == 3


def test_what_there_is_to_be_read_is_described_without_opening_a_message(client: qf.StreamingClient, cars: str) -> None:
    replay = client.replay(cars, streams="car-*", progress=False)
    found = replay.describe()
    assert (found.rows, found.events, len(found.streams)) == (200, 2, 2)
    assert found.start == pd.Timestamp(0, tz="UTC")
    assert found.end == pd.Timestamp(100, unit="ms", tz="UTC")
    assert found.streams.loc[(cars, "car-2"), "rows"] == 100
    assert replay.report is not None
    assert replay.report.decoded == 0
    assert "200 rows, 2 events of 2 streams" in repr(found)
    assert "<table" in found._repr_html_()
    properties = replay.properties()
    assert properties.loc[(cars, "car-1"), "metadata"] == {"tyres": "soft"}
    assert replay.report.decoded == 0


def test_several_topics_are_one_replay_and_merged_by_time(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame
) -> None:
    topics = [make_topic(partitions=2), make_topic(partitions=1)]
    for number, topic in enumerate(topics):
        with client.open_output_topic(topic) as out:
            for start in range(0, 1_000, 20):
                out.write(make_frame(20, start=start).iloc[number::2], stream=f"car-{number}")
    replay = client.replay(topics, order="time", progress=False)
    frame = replay.to_frame()
    assert frame["n"].tolist() == list(range(1_000))
    assert set(frame["topic"]) == set(topics)
    firsts = [batch.frame.index[0] for batch in replay.batches(rows=10, timeout=None)]
    assert firsts == sorted(firsts)
    assert replay.to_arrow().column("n").to_pylist() == list(range(1_000))


def test_a_replay_begins_where_a_group_has_committed(
    client: qf.StreamingClient, topic: str, group: str, make_frame: MakeFrame
) -> None:
    with client.open_output_topic(topic) as out:
        out.write(make_frame(10), stream="car-44")
    with client.open_input_topic(topic, group) as source:
        assert sum(len(batch) for batch in source.batches(until="now")) == 10
    with client.open_output_topic(topic) as out:
        out.write(make_frame(10, start=10), stream="car-44")
    assert client.replay(topic, group=group, progress=False).to_frame()["n"].tolist() == list(range(10, 20))
    assert client.replay(topic, start={0: 1}, progress=False).to_frame()["n"].tolist() == list(range(10, 20))


def test_a_model_gives_the_same_over_a_replay_as_live(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    """To the bit, with the same settings of the buffer, though it depends on which rows come together."""
    raw, live, again = make_topic(partitions=3), make_topic(partitions=3), make_topic(partitions=3)
    with client.open_output_topic(raw) as out:
        for start in range(0, 3_000, 70):
            for stream in range(5):
                out.write(make_frame(70, start=start + stream), stream=f"car-{stream}")

    def model(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[["p0"]].rolling(8).mean().assign(size=len(frame))

    with client.open_input_topic(raw, group) as source, client.open_output_topic(live) as sink:
        qf.run(model, source, sink, rows=250, timeout=None, until="now")
    with client.open_output_topic(again) as sink:
        done = qf.run(model, client.replay(raw, progress=False), sink, rows=250)
    assert done.rows_in == 5 * 43 * 70
    results = [client.replay(topic, progress=False).to_frame() for topic in (live, again)]
    whole = [part[part["size"] == 250] for part in results]  # until="now" leaves what is not full where it is
    pd.testing.assert_frame_equal(*whole, check_exact=True)
    assert len(whole[0]) == 5 * 3_000


def test_what_retention_has_removed_of_a_range_is_told(
    client: qf.StreamingClient, topic: str, broker_address: str, make_frame: MakeFrame
) -> None:
    from kafka import KafkaAdminClient, TopicPartition

    with client.open_output_topic(topic) as out:
        for start in range(0, 50, 10):
            out.write(make_frame(10, start=start), stream="car-44")
    admin = KafkaAdminClient(bootstrap_servers=broker_address)
    try:
        admin.delete_records({TopicPartition(topic, 0): 2})
    finally:
        admin.close()
    replay = client.replay(topic, start={0: 0}, progress=False)
    assert replay.to_frame()["n"].tolist() == list(range(20, 50))
    assert replay.report is not None
    assert [str(gap) for gap in replay.report.gaps] == [f"{topic}[0]: offsets 0 to 1 are not retained any more"]


def test_a_speed_gives_batches_when_the_times_of_their_rows_say(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    """Rows are a millisecond apart."""
    with client.open_output_topic(topic) as out:
        out.write(make_frame(1_000), stream="car-44")
    begun = time.monotonic()
    seen = [(time.monotonic() - begun, len(batch.frame))
            for batch in client.replay(topic, speed=2, progress=False).batches(rows=100)]  # fmt: skip
    first = seen[0][0]
    assert sum(rows for _, rows in seen) == 1_000
    for number, (at, _) in enumerate(seen):
        assert at - first >= number * 0.05 - 0.001
    assert len(client.replay(topic, speed=2, progress=False).to_frame()) == 1_000  # a frame waits for nothing
    with pytest.raises(qf.SettingsError, match="a speed of 0 is none"):
        client.replay(topic, speed=0)


def test_a_replay_draws_its_streams_as_they_say_that_they_are(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    with client.open_output_topic(topic) as out:
        stream = out.get_or_create_stream("car-44")
        stream.parameters.add_definition("n", "Number", unit="laps")
        stream.parameters.write(make_frame(50))
        stream.events.write({"time": pd.Timestamp(10, unit="ms"), "id": "pit-stop", "value": "tyres"})
        out.write(make_frame(50), stream="car-63")
    figure = client.replay(topic, columns=["n"], progress=False).plot()
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["Number (laps)"]
    assert len(figure.axes[0].lines) == 3  # two streams and an event
