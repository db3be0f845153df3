"""What users of the old Quix SDK had, missed, or were bitten by: facts of docs/coming-from-quix.md that no other test
shows."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kafka import KafkaAdminClient, KafkaProducer

import quixframes as qf

MakeFrame = Callable[..., pd.DataFrame]
MakeTopic = Callable[..., str]


def everything(client: qf.StreamingClient, topic: str, **rules: Any) -> list[qf.RowBatch]:
    """All batches that are there now, read without a group."""
    with client.open_input_topic(topic, None) as opened:
        return list(opened.batches(until="now", **rules))


def left_over(client: qf.StreamingClient, topic: str, group: str) -> dict[str, list[int]]:
    """The rows that a group has not committed, by stream, as their numbers."""
    found: dict[str, list[int]] = {}
    with client.open_input_topic(topic, group, qf.CommitMode.Manual) as opened:
        for batch in opened.batches(until="now"):
            found.setdefault(batch.stream_id, []).extend(batch.frame["n"])
    return found


def committed(broker_address: str, group: str, topic: str) -> int:
    """The group's offset in the topic's one partition, as Kafka's own tools tell it."""
    admin = KafkaAdminClient(bootstrap_servers=broker_address)
    try:
        offsets = admin.list_group_offsets({group: None})[group]
        return next((offset.offset for at, offset in offsets.items() if at.topic == topic), 0)
    finally:
        admin.close()


# Times and values


def test_times_integers_and_booleans_are_exact_in_every_path(client: qf.StreamingClient, topic: str) -> None:
    """A time that ends in 21 ns, an integer that no float64 holds, booleans: as a frame, through a buffer, as dicts."""
    times = [1_700_000_000_000_000_021 + n for n in range(3)]
    frame = pd.DataFrame({"time": times, "count": [2**53 + 1, 2**63 - 1, -1], "on": [True, False, True]})
    with client.open_output_topic(topic) as out:
        for write in ("write", "buffer.write"):
            for rows in (frame, frame.to_dict("records")):
                car = out.create_stream()
                target = car.parameters if write == "write" else car.parameters.buffer
                target.write(rows)
        out.write(frame.assign(car="car-44"), by="car")
    batches = everything(client, topic)
    assert len(batches) == 5
    for batch in batches:
        assert batch.frame.index.asi8.tolist() == times
        assert batch.frame["count"].tolist() == frame["count"].tolist()
        assert batch.frame["on"].tolist() == [True, False, True]
        assert batch.frame.dtypes.astype(str).tolist() == ["int64", "bool"]


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is nine hours ahead."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert dt.datetime(1970, 1, 1).timestamp() == -9 * 3600
        yield
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_naive_datetimes_mean_utc_in_every_path(client: qf.StreamingClient, topic: str, group: str) -> None:
    """Whatever the machine's own time zone is."""
    at = pd.Timestamp("2026-01-01", tz="UTC")
    naive = dt.datetime(2026, 1, 1)
    kinds: list[Any] = [naive, pd.Timestamp(naive), np.datetime64(naive, "us"), np.datetime64(naive, "ns")]
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44", properties=qf.StreamProperties(time_of_recording=naive))
        frame = pd.DataFrame({"speed": [1.0]}, index=pd.DatetimeIndex([naive]))
        for rows in (frame, frame.rename_axis("time").reset_index(), *({"time": kind, "speed": 1.0} for kind in kinds)):
            car.parameters.write(rows)
            car.parameters.buffer.write(rows)
        for kind in kinds:
            car.events.write("tick", time=kind)
            car.events.write({"time": kind, "id": "tick"})
        car.events.write(pd.DataFrame({"id": ["tick"], "value": ["x"]}, index=pd.DatetimeIndex([naive])))
        car.epoch = naive
        car.parameters.write({"time": 0, "speed": 1.0})
    batches = everything(client, topic)
    assert {moment for batch in batches for moment in [*batch.frame.index, *batch.events.index]} == {at}
    assert sum(len(batch) for batch in batches) == 13
    assert sum(len(batch.events) for batch in batches) == 9
    assert {batch.stream.properties.time_of_recording for batch in batches} == {at}
    for ago, rows in ((1, 13), (-1, 0)):  # hours: were it local time, both would be hours off
        start = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=ago)).replace(tzinfo=None)
        with client.open_input_topic(topic, f"{group}{ago}", start=start) as opened:
            assert sum(len(batch) for batch in opened.batches(until="now")) == rows


def test_missing_parameters_and_tags_are_missing_values(client: qf.StreamingClient, topic: str) -> None:
    """In dicts, None and a missing key are one; NumPy's scalars are numbers; a frame's own missing values stay."""
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        car.parameters.buffer.write(
            [
                {"time": 0, "speed": np.float32(1.5), "gear": np.int16(3), "driver": "ann", "TAG__lap": "1"},
                {"time": np.int64(1), "speed": None, "gear": None, "driver": None, "TAG__lap": None},
                {"time": 2},
            ]
        )
        car.parameters.buffer.flush()
        frame = pd.DataFrame(
            {"speed": [1.5, np.nan], "gear": pd.array([3, None], "Int16")}, index=pd.to_datetime([3, 4])
        )
        frame["TAG__lap"] = ["2", None]
        car.parameters.buffer.write(frame)
    dicts, frames = (batch.frame for batch in everything(client, topic))
    for name in ("speed", "gear", "driver", "TAG__lap"):
        assert dicts[name].isna().tolist() == [False, True, True], name
    assert (dicts["speed"].iloc[0], dicts["gear"].iloc[0], dicts["driver"].iloc[0]) == (1.5, 3, "ann")
    assert frames["gear"].dtype == "Int16"
    assert frames[["speed", "gear", "TAG__lap"]].isna().to_numpy().tolist() == [[False] * 3, [True] * 3]


def test_rows_of_one_time_are_all_kept(client: qf.StreamingClient, topic: str) -> None:
    """Equal times and equal tags are no reason to make one row of two."""
    rows = [{"time": 7, "speed": float(n), "TAG__lap": "1"} for n in range(4)]
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        car.parameters.write(rows[:2])
        car.parameters.buffer.write(rows[2])
        car.parameters.buffer.write(rows[3])
    (batch,) = everything(client, topic)
    assert batch.frame["speed"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert set(batch.frame.index.asi8) == {7}


def test_rows_out_of_order_are_kept_in_the_order_in_which_they_were_written(
    client: qf.StreamingClient, topic: str
) -> None:
    """Also where batches are cut by event time: a late row is in the batch that it came with."""
    seconds = [0, 3, 1, 9, 2, 11, 4]
    with client.open_output_topic(topic) as out:
        buffer = out.create_stream("car-44").parameters.buffer
        for second in seconds:
            buffer.write({"time": second * 10**9, "n": second})
    assert [n for batch in everything(client, topic) for n in batch.frame["n"]] == seconds
    cut = [batch.frame["n"].tolist() for batch in everything(client, topic, time_span="5s")]
    assert [n for rows in cut for n in rows] == seconds
    assert cut == [[0, 3, 1], [9], [2], [11], [4]]


def test_a_model_takes_the_columns_that_it_wants(client: qf.StreamingClient, topic: str, make_frame: MakeFrame) -> None:
    """The old whitelist of parameters: a selection of the frame, in which what is not there is missing."""
    with client.open_output_topic(topic) as out:
        out.write(make_frame(5), stream="car-44")
    (batch,) = everything(client, topic)
    assert batch.frame[["n", "p1"]].columns.tolist() == ["n", "p1"]
    wanted = batch.frame.reindex(columns=["n", "fuel"])
    assert wanted["n"].tolist() == list(range(5))
    assert wanted["fuel"].isna().all()
    assert client.replay(topic, columns=["n"], progress=False).to_frame().columns.tolist() == ["stream", "n"]


# Buffers


@pytest.mark.parametrize("make", [dict, lambda **row: pd.DataFrame([row])], ids=["dicts", "frames"])
def test_a_steady_stream_times_out_when_it_is_written(
    client: qf.StreamingClient, topic: str, make: Callable[..., Any]
) -> None:
    """The time counts from the first row that is held. Rows that keep coming do not begin it anew."""
    with client.open_output_topic(topic, buffer=qf.BufferSettings(rows=None, timeout="300ms")) as out:
        buffer = out.create_stream("car-44").parameters.buffer
        begun = time.monotonic()
        while out.messages_written < 3:
            assert time.monotonic() - begun < 10, "a row every 20 ms, and none has left"
            buffer.write(make(time=time.time_ns(), speed=1.0))
            threading.Event().wait(0.02)
        assert time.monotonic() - begun > 0.6


def test_a_steady_stream_times_out_when_it_is_read(client: qf.StreamingClient, topic: str) -> None:
    stop, begun = threading.Event(), time.monotonic()

    def write() -> None:
        with client.open_output_topic(topic) as out:
            while not stop.wait(0.02) and time.monotonic() - begun < 10:
                out.write({"time": time.time_ns(), "speed": 1.0}, stream="car-44")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with client.open_input_topic(topic, None) as opened:
            loop = opened.batches(rows=None, timeout="300ms", idle="2s")
            assert [next(loop).reason for _ in range(3)] == ["timeout"] * 3
    finally:
        stop.set()
        writer.join()


# Commits


def test_an_automatic_commit_does_not_pass_rows_that_a_buffer_holds(
    client: qf.StreamingClient, broker_address: str, topic: str, group: str, make_frame: MakeFrame
) -> None:
    """Ten rows of a slow stream wait for company, while many of a fast one behind them are processed and committed."""
    with client.open_output_topic(topic) as out:
        out.write(make_frame(10), stream="slow")
        for n in range(10):
            out.write(make_frame(100, start=100 * n), stream="fast")
    settings, told = qf.CommitSettings(rows=100, every="100ms"), threading.Event()
    hooks = qf.Hooks(committed=lambda offsets: told.set())
    with client.open_input_topic(topic, group, settings, hooks=hooks) as opened:
        for batch in opened.batches(rows=100, timeout=None, max_rows=1_000):
            assert batch.stream_id == "fast"
        assert told.wait(10)
        assert opened.holding()["stream"].tolist() == ["slow"]
        assert committed(broker_address, group, topic) == 0
    assert committed(broker_address, group, topic) == 0
    assert left_over(client, topic, group) == {"slow": list(range(10))}


def test_the_parts_of_a_large_frame_are_committed_one_by_one(
    client: qf.StreamingClient, broker_address: str, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    """A cut frame is so many messages, each of which is whole: nothing has to be put together before it is read."""
    topic = make_topic(message_limit="100 kB")
    with client.open_output_topic(topic) as out:
        out.write(make_frame(10_000), stream="car-44")
        parts = out.messages_written
    assert parts >= 4
    with client.open_input_topic(topic, group, qf.CommitMode.Manual) as opened:
        for batch in opened.batches(rows=5_000):
            assert batch.commit()
            break
    assert 0 < committed(broker_address, group, topic) < parts
    assert left_over(client, topic, group) == {"car-44": list(range(5_000, 10_000))}


def test_raw_messages_are_committed_as_rows_are(
    client: qf.StreamingClient, broker_address: str, topic: str, group: str
) -> None:
    producer = KafkaProducer(bootstrap_servers=broker_address)
    for n in range(10):
        producer.send(topic, key=b"k", value=b"%d" % n)
    producer.close()
    seen: list[bytes] = []
    for _ in range(2):  # a process each, as it were
        with client.open_input_topic(topic, group, qf.CommitMode.Manual, codec=qf.BytesAsIs()) as opened:
            for batch in opened.batches(rows=5):
                seen += batch.frame["value"].tolist()
                batch.commit()
                break
    assert seen == [b"%d" % n for n in range(10)]


# Streams


def test_partitions_that_went_are_named_in_the_hooks(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    """To the instance that lets them go as to the one that they come to."""
    topic = make_topic(partitions=2)
    with client.open_output_topic(topic) as out:
        for n in range(8):
            out.write(make_frame(5), stream=f"s{n}")
    told: dict[str, list[qf.Partition]] = {"came": [], "went": [], "to the other": []}
    streams: list[str] = []

    def went(gone: dict[qf.Partition, list[str]]) -> None:
        told["went"].extend(gone)
        streams.extend(stream_id for ids in gone.values() for stream_id in ids)

    hooks = qf.Hooks(assigned=told["came"].extend, revoked=went)
    with client.open_input_topic(topic, group, hooks=hooks) as first:
        found = {batch.stream_id: batch.partition for batch in first.batches(until="now")}
        assert sorted(told["came"]) == [(topic, 0), (topic, 1)]
        assert told["went"] == []
        with client.open_input_topic(topic, group, hooks=qf.Hooks(assigned=told["to the other"].extend)) as second:
            deadline = time.monotonic() + 60
            while not (told["went"] and told["to the other"]):
                assert time.monotonic() < deadline
                list(first.batches(idle="50ms"))
            assert told["went"] == told["to the other"] == second.partitions
            assert sorted(first.partitions + second.partitions) == [(topic, 0), (topic, 1)]
            assert sorted(streams) == sorted(s for s, n in found.items() if (topic, n) in told["went"])


def test_a_reader_that_closes_first_ends_no_stream(
    client: qf.StreamingClient, topic: str, group: str, make_frame: MakeFrame
) -> None:
    """Only the writer knows whether a stream is over."""
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        car.parameters.write(make_frame(5))
        out.flush()
        with client.open_input_topic(topic, group) as opened:
            assert [batch.closed for batch in opened.batches(until="now")] == [None]
        car.parameters.write(make_frame(5, start=5))
    (batch,) = everything(client, topic)
    assert len(batch) == 10
    assert batch.closed is None


def test_properties_and_definitions_that_are_set_again_send_nothing_and_release_nothing(
    client: qf.StreamingClient, topic: str
) -> None:
    """So a model may say them for every batch, and needs to know nothing of whether its stream is new."""

    def say_it(out: qf.OutputTopic) -> qf.StreamWriter:
        car = out.get_or_create_stream("car-44")
        car.properties.name = "Car 44"
        car.properties.metadata["tyres"] = "soft"
        car.parameters.add_definition("speed", unit="km/h", range=(0, 400))
        return car

    with client.open_output_topic(topic, buffer=qf.BufferSettings(timeout=None)) as out:
        say_it(out).flush()
        assert (out.messages_written, out.rows_written) == (1, 0)  # what was said, which waits for rows only so long
        for n in range(100):
            say_it(out).parameters.buffer.write({"time": n, "speed": 1.0})
        out.flush()
        assert (out.messages_written, out.rows_written) == (2, 100)
    (batch,) = (batch for batch in everything(client, topic) if len(batch))
    assert batch.stream.properties.name == "Car 44"


def test_definitions_form_a_tree_and_reach_the_reader(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame
) -> None:
    """Everything that could be said of a parameter or an event can be said, and is a DataFrame in the end."""
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        car.parameters.default_location = "/car"
        car.parameters.add_definition("fuel", unit="l")
        engine = car.parameters.add_location("/car/engine")
        engine.add_definition("rpm", name="Revolutions", description="of the crankshaft", range=(0, 15_000),
                              format=".0f", custom={"sensor": 7})  # fmt: skip
        engine.add_location("oil").add_definition("heat", unit="°C")
        car.events.add_definition("pit-stop", description="It stands.", level=qf.EventLevel.Warning)
        car.parameters.write(make_frame(1))
    (batch,) = everything(client, topic)
    found = batch.stream.parameters.definitions
    assert found["location"].to_dict() == {"fuel": "/car", "rpm": "/car/engine", "heat": "/car/engine/oil"}
    assert found.loc["rpm", ["name", "description", "minimum", "maximum", "format"]].tolist() == [
        "Revolutions", "of the crankshaft", 0, 15_000, ".0f",
    ]  # fmt: skip
    assert found.loc["rpm", "custom"] == {"sensor": 7}
    assert batch.stream.events["pit-stop"].level > qf.EventLevel.Information


def test_tags_of_events_survive_a_dataframe(client: qf.StreamingClient, topic: str) -> None:
    """What was read is written to another stream as it is, and nothing of it is lost."""
    times = pd.to_datetime([5, 6], unit="ns", utc=True)
    events = pd.DataFrame(
        {"time": times, "id": ["pit-stop", "flag"], "value": ["tyres", None], "TAG__lap": ["12", "13"]}
    )
    with client.open_output_topic(topic) as out:
        out.create_stream("car-44").events.write(events)
        out.flush()
        (first,) = everything(client, topic)
        out.create_stream("copy").events.write(first.events)
    for batch in everything(client, topic):
        assert batch.events["TAG__lap"].tolist() == ["12", "13"]
        assert batch.events["id"].tolist() == ["pit-stop", "flag"]
        assert batch.events["value"].isna().tolist() == [False, True]
        assert batch.events.index.asi8.tolist() == [5, 6]
