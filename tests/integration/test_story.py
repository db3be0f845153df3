"""What streams say of themselves, their events and their ends, on a real Kafka."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

import quixframes as qf
from tests.waiting import wait_for


def everything(client: qf.StreamingClient, topic: str, group: str | None, **rules: Any) -> list[qf.RowBatch]:
    with client.open_input_topic(topic, group) as opened:
        batches = []
        for batch in opened.batches(until="now", **rules):
            batches.append(batch)
            if group is not None:
                batch.commit()
        return batches


def test_a_stream_tells_its_story_events_and_end(
    client: qf.StreamingClient, topic: str, group: str, make_frame: Callable[..., pd.DataFrame]
) -> None:
    frame = make_frame(100)
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44", properties=qf.StreamProperties(location="/pit"))
        car.properties.name = "Car 44"
        car.properties.metadata["tyres"] = "soft"
        car.parameters.add_location("/car").add_definition("speed", unit="km/h", range=(0, 400))
        car.events.add_definition("pit-stop", level="critical")
        car.parameters.write(frame)
        car.events.write("pit-stop", value="tyres", tags={"lap": "12"})
        car.close(qf.StreamEndType.Aborted)
    (batch,) = everything(client, topic, group, rows=1_000)
    pd.testing.assert_frame_equal(batch.frame, frame, check_exact=True, check_freq=False, check_names=False)
    assert batch.stream.properties == qf.StreamProperties("Car 44", "/pit", {"tyres": "soft"})
    assert batch.stream.parameters["speed"].unit == "km/h"
    assert batch.stream.parameters.definitions.loc["speed", "maximum"] == 400
    assert batch.stream.events["pit-stop"].level is qf.EventLevel.Critical
    assert batch.events[["id", "value", "TAG__lap"]].to_numpy().tolist() == [["pit-stop", "tyres", "12"]]
    assert batch.closed is qf.StreamEndType.Aborted
    assert everything(client, topic, group) == []


def test_a_reader_that_comes_after_the_first_messages_are_gone_knows_the_story_with_its_first_batch(
    client: qf.StreamingClient, broker_address: str, topic: str, group: str, make_frame: Callable[..., pd.DataFrame]
) -> None:
    """Promise of the wire format: whichever message of a stream is read first tells all that the stream says."""
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44", properties=qf.StreamProperties("Car 44"))
        car.parameters.add_definition("p0", unit="bar", range=(0, 5))
        car.events.add_definition("pit-stop", level="warning")
        for n in range(10):
            car.parameters.write(make_frame(5, start=5 * n))
        out.flush()
        written = out.messages_written  # one more than rows, if the first took so long that the story went by itself
    admin = KafkaAdminClient(bootstrap_servers=broker_address)
    try:
        admin.delete_records({TopicPartition(topic, 0): written - 3})
    finally:
        admin.close()
    first = everything(client, topic, group, rows=5)[0]
    assert first.frame["n"].tolist() == list(range(35, 40))
    assert first.stream.properties.name == "Car 44"
    assert first.stream.parameters["p0"] == qf.ParameterDefinition("p0", unit="bar", range=(0, 5))
    assert first.stream.events["pit-stop"].level is qf.EventLevel.Warning
    first = next(iter(client.replay(topic, progress=False).batches()))
    assert first.stream.properties.name == "Car 44"


def test_rows_keep_the_properties_that_were_true_when_they_were_written(
    client: qf.StreamingClient, topic: str, group: str, make_frame: Callable[..., pd.DataFrame]
) -> None:
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        for n, tyres in enumerate(["soft", "hard", "soft"]):
            car.properties.metadata["tyres"] = tyres
            car.parameters.buffer.write(make_frame(10, start=10 * n))
    batches = everything(client, topic, group)
    assert [(len(b), b.stream.properties.metadata["tyres"]) for b in batches] == [
        (10, "soft"), (10, "hard"), (10, "soft"),
    ]  # fmt: skip
    assert [b.reason for b in batches] == ["properties", "properties", "end"]


def test_a_story_is_told_also_where_no_rows_follow(
    client: qf.StreamingClient, topic: str, make_frame: Callable[..., pd.DataFrame]
) -> None:
    """By itself within a moment, at a flush, and with the end."""
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        car.properties.name = "Car 44"
        car.properties.location = "/pit"  # told together
        assert wait_for(lambda: out.messages_written)
        car.flush()
        told = out.messages_written  # one, or two if it took so long that the name went by itself
        assert told <= 2
        car.properties.name = "Car 44"  # nothing new
        car.flush()
        assert out.messages_written == told
        car.properties.name = "Forty-four"
        car.flush()
        assert out.messages_written == told + 1
    with client.open_input_topic(topic, None) as opened:
        assert list(opened.batches(until="now")) == []
        assert opened.streams["car-44"].properties == qf.StreamProperties("Forty-four", "/pit")


def test_an_end_comes_once_to_a_group_and_again_to_another(
    client: qf.StreamingClient, topic: str, group: str, make_frame: Callable[..., pd.DataFrame]
) -> None:
    """Also where its rows were committed before, and after a restart; a stream may be opened again."""
    with client.open_output_topic(topic) as out:
        for _ in range(2):
            car = out.create_stream("car-44")
            car.parameters.write(make_frame(10))
            car.close()
    seen: list[qf.StreamEndType | None] = []
    for _ in range(8):  # a process for each batch, as it were
        with client.open_input_topic(topic, group, qf.CommitMode.Manual) as opened:
            for batch in opened.batches(rows=10, until="now"):
                seen.append(batch.closed)
                assert len(batch) == (10 if batch.closed is None else 0)
                assert batch.commit()
                break
    assert seen == [None, qf.StreamEndType.Closed] * 2
    assert [b.closed for b in everything(client, topic, None, rows=20)] == [qf.StreamEndType.Closed] * 2


@pytest.mark.parametrize(
    ("error", "end"),
    [(None, qf.StreamEndType.Closed), (RuntimeError, qf.StreamEndType.Aborted),
     (KeyboardInterrupt, qf.StreamEndType.Terminated)],
)  # fmt: skip
def test_leaving_a_streams_block_ends_it(
    client: qf.StreamingClient, topic: str, error: type[BaseException] | None, end: qf.StreamEndType
) -> None:
    with (
        client.open_output_topic(topic) as out,
        contextlib.suppress(RuntimeError, KeyboardInterrupt),
        out.create_stream("car-44") as car,
    ):
        car.parameters.write({"time": 0, "speed": 1.0})
        if error is not None:
            raise error
    assert [batch.closed for batch in everything(client, topic, None)] == [end]


@pytest.mark.parametrize(
    ("error", "ends"), [(None, [None]), (RuntimeError, [qf.StreamEndType.Aborted]), (KeyboardInterrupt, [None])]
)
@pytest.mark.parametrize("left", ["topic", "client"])
def test_leaving_a_topics_block_by_an_error_aborts_its_streams_and_otherwise_they_go_on(
    broker_address: str, topic: str, left: str, error: type[BaseException] | None, ends: list[Any]
) -> None:
    with contextlib.suppress(RuntimeError, KeyboardInterrupt), qf.StreamingClient(broker_address) as client:
        out = client.open_output_topic(topic)
        with out if left == "topic" else contextlib.nullcontext():
            out.get_or_create_stream("car-44").parameters.buffer.write({"time": 0, "speed": 1.0})
            if error is not None:
                raise error
    with qf.StreamingClient(broker_address) as client:
        assert [batch.closed for batch in everything(client, topic, None)] == ends


def test_integers_and_timedeltas_count_from_the_epoch_and_datetimes_never_do(
    client: qf.StreamingClient, topic: str
) -> None:
    """The same in every path: frames, dicts, buffers, events, one stream and many."""
    epoch, at = pd.Timestamp("2026-01-01", tz="UTC"), pd.Timestamp("2026-01-01 00:00:05", tz="UTC")
    five = pd.Timedelta(5, "s")
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        car.epoch = "2026-01-01"
        assert car.epoch == epoch
        for time_ in (five.value, five, at, at.tz_localize(None), at.tz_convert("Asia/Tokyo")):
            row = {"time": time_, "speed": 1.0}
            car.parameters.write(row)
            car.parameters.buffer.write(row)
            car.parameters.write(pd.DataFrame([row]))
            car.parameters.buffer.write(pd.DataFrame([row]))
            out.write(pd.DataFrame([{**row, "car": "car-44"}]), by="car")
            car.events.write("tick", time=time_)
            car.events.write({"time": time_, "id": "tick"})
            car.events.write(pd.DataFrame([{"time": time_, "id": "tick", "value": "x"}]))
    batches = everything(client, topic, None)
    assert sum(len(batch) for batch in batches) == 25
    assert sum(len(batch.events) for batch in batches) == 15
    assert {t for batch in batches for t in [*batch.frame.index, *batch.events.index]} == {at}
    with client.open_output_topic(topic) as out, pytest.raises(qf.SettingsError, match="not a moment"):
        out.create_stream("x").epoch = "soon"


def test_default_tags_are_added_to_every_row_and_a_rows_own_tag_comes_first(
    client: qf.StreamingClient, topic: str, make_frame: Callable[..., pd.DataFrame]
) -> None:
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        car.parameters.default_tags = {"lap": "1"}
        car.parameters.write(make_frame(2).assign(lap=7.5))
        car.parameters.buffer.default_tags = {"driver": "ann"}
        car.parameters.buffer.write([{"time": 0, "lap": 1.0, "TAG__lap": "9"}, {"time": 1, "lap": 2.0}])
        car.parameters.buffer.flush()
        car.events.default_tags = {"lap": "1"}
        car.events.write("tick", tags={"driver": "bob"})
        car.events.write("tick", tags={"lap": "3"})
    first, second = everything(client, topic, None)
    assert first.frame["TAG__lap"].tolist() == ["1", "1"]
    assert first.frame["lap"].tolist() == [7.5, 7.5]  # a parameter of the same name is another column
    assert second.frame[["TAG__lap", "TAG__driver"]].to_numpy().tolist() == [["9", "ann"], ["1", "ann"]]
    assert second.events["TAG__lap"].tolist() == ["1", "3"]
    assert second.events["TAG__driver"].tolist()[0] == "bob"
    assert second.events["TAG__driver"].isna().tolist() == [False, True]


def test_events_come_with_the_rows_among_which_they_were_written(
    client: qf.StreamingClient, topic: str, make_frame: Callable[..., pd.DataFrame]
) -> None:
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        for n in range(6):
            car.parameters.buffer.write(make_frame(5, start=5 * n))
            car.events.write(f"e{n}", time=n)
    batches = everything(client, topic, None, rows=10)
    # The tenth row releases a batch; the event after it is among the next rows.
    assert [(len(b), b.events["id"].tolist()) for b in batches] == [
        (10, ["e0"]), (10, ["e1", "e2"]), (10, ["e3", "e4"]), (0, ["e5"]),
    ]  # fmt: skip
    replay = client.replay(topic, progress=False)
    assert [(len(b), b.events["id"].tolist()) for b in replay.batches(rows=10)] == [
        (len(b), b.events["id"].tolist()) for b in batches
    ]
    assert replay.events()["id"].tolist() == [f"e{n}" for n in range(6)]
    kept = everything(client, topic, None, rows=10, event_filter=lambda events: events["id"] == "e2")
    assert [b.events["id"].tolist() for b in kept] == [[], ["e2"], []]


def test_events_alone_are_released_by_the_timeout_and_committed(
    client: qf.StreamingClient, topic: str, group: str
) -> None:
    with client.open_output_topic(topic) as out:
        out.create_stream("car-44").events.write("pit-stop", value="tyres")
    with client.open_input_topic(topic, group) as opened:
        batch = next(iter(opened.batches(timeout="50ms")))
        assert (len(batch), batch.events["id"].tolist(), batch.reason) == (0, ["pit-stop"], "timeout")
        assert batch.commit()
    assert everything(client, topic, group) == []


def test_a_stream_whose_writer_vanished_is_reported_idle_once(
    client: qf.StreamingClient, topic: str, make_frame: Callable[..., pd.DataFrame]
) -> None:
    idle: list[str] = []
    with client.open_output_topic(topic) as out:
        for stream in ("ended", "vanished"):
            out.create_stream(stream).parameters.write(make_frame(3))
        out.get_stream("ended").close()
    reader = qf.ReaderSettings(stream_idle="200ms")
    hooks = qf.Hooks(idle=lambda stream: idle.append(stream.stream_id))
    with client.open_input_topic(topic, None, reader=reader, hooks=hooks) as opened:
        for _ in opened.batches(timeout="50ms", idle="1.5s"):
            pass
    assert idle == ["vanished"]


def test_a_stream_whose_messages_wait_for_a_slow_model_is_not_idle(
    client: qf.StreamingClient, topic: str, make_frame: Callable[..., pd.DataFrame]
) -> None:
    idle: list[str] = []
    reader, hooks = qf.ReaderSettings(stream_idle="1s"), qf.Hooks(idle=lambda stream: idle.append(stream.stream_id))
    over = threading.Event()
    with client.open_output_topic(topic) as out:

        def write() -> None:
            while not over.wait(0.05):
                for stream in "ab":
                    out.get_or_create_stream(stream).parameters.write(make_frame(1))

        writing = threading.Thread(target=write)
        writing.start()
        with client.open_input_topic(topic, None, reader=reader, hooks=hooks) as opened:
            for n, _ in enumerate(opened.batches(rows=5)):
                time.sleep(1.3)  # as a model that computes for longer than a stream may be silent
                if n == 2:
                    break
        over.set()
        writing.join()
    assert idle == []


def test_a_story_that_is_too_large_for_every_message_is_refused_where_it_is_told(
    client: qf.StreamingClient, topic: str
) -> None:
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        with pytest.raises(qf.SettingsError, match="a quarter of the topic's message limit"):
            car.properties.metadata["notes"] = "x" * 500_000
        assert dict(car.properties.metadata) == {}
        car.properties.name = "Car 44"
        with pytest.raises(qf.SettingsError, match="no property 'nmae'"):
            car.properties.update(nmae="typo")


def test_a_models_stream_inherits_what_its_source_says(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: Callable[..., pd.DataFrame]
) -> None:
    raw, clean = make_topic(), make_topic()
    with client.open_output_topic(raw) as out:
        car = out.create_stream("car-44", properties=qf.StreamProperties("Car 44"))
        car.parameters.add_definition("p0", unit="bar")
        car.parameters.write(make_frame(5))
    with client.open_output_topic(clean) as out:
        for batch in everything(client, raw, None):
            car = out.get_or_create_stream(batch.stream_id)
            car.inherit(batch.stream)
            car.parameters.write(batch.frame)
    (batch,) = everything(client, clean, None)
    assert batch.stream.properties == qf.StreamProperties("Car 44", parents=("car-44",))
    assert batch.stream.parameters["p0"].unit == "bar"


def test_a_bad_row_in_the_buffer_does_not_swallow_the_end_of_its_stream(client: qf.StreamingClient, topic: str) -> None:
    with client.open_output_topic(topic) as out:
        with pytest.raises(ZeroDivisionError), out.create_stream("a") as stream:
            stream.parameters.buffer.write([{"time": 0, "n": 1}, {"time": 1, "n": object()}])
            1 / 0  # noqa: B018
        assert out.streams == {}
        stream = out.create_stream("a")
        stream.parameters.buffer.write([{"time": 0, "n": object()}])
        with pytest.raises(qf.FrameError, match="was left out"):
            stream.close()
        assert out.streams == {}
    batches = everything(client, topic, None)
    assert [(len(batch), batch.closed) for batch in batches] == [
        (1, qf.StreamEndType.Aborted), (0, qf.StreamEndType.Closed),
    ]  # fmt: skip


def test_definitions_from_several_threads_are_all_kept(client: qf.StreamingClient, topic: str) -> None:
    with client.open_output_topic(topic) as out, ThreadPoolExecutor(4) as pool:
        car = out.create_stream("car-44")

        def define(thread: int) -> None:
            for n in range(100):
                car.parameters.add_definition(f"{thread}-{n}")
                car.properties.metadata[f"{thread}-{n}"] = n

        list(pool.map(define, range(4)))
        assert len(car.parameters.definitions) == 400
        assert len(car.properties.metadata) == 400


def test_a_stream_with_properties_that_cannot_be_is_not_left_open(client: qf.StreamingClient, topic: str) -> None:
    with client.open_output_topic(topic) as out:
        for create in (out.create_stream, out.get_or_create_stream):
            with pytest.raises(qf.SettingsError, match="a quarter"):
                create("car-44", properties=qf.StreamProperties(metadata={"notes": "x" * 500_000}))
            create("car-44", properties=qf.StreamProperties("Car 44")).close()
    assert {batch.stream.properties.name for batch in everything(client, topic, None)} == {"Car 44"}


def test_locations_nest(client: qf.StreamingClient, topic: str) -> None:
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        car.parameters.default_location = "/car"
        engine = car.parameters.add_location("/car/engine")
        engine.add_definition("rpm").add_definition("oil", location="sump").add_location("turbo").add_definition("bar")
        car.parameters.add_definition("speed")
        assert car.parameters.definitions["location"].to_dict() == {
            "rpm": "/car/engine", "oil": "/car/engine/sump", "bar": "/car/engine/turbo", "speed": "/car",
        }  # fmt: skip


def test_events_of_a_replay_say_where_a_tag_column_would_clash(client: qf.StreamingClient, topic: str) -> None:
    with client.open_output_topic(topic) as out:
        out.create_stream("car-44").events.write("x")
    with pytest.raises(qf.FrameError, match="stream_column="):
        client.replay(topic, progress=False).events(stream_column="id")


def test_a_misspelt_attribute_is_an_error(client: qf.StreamingClient, topic: str) -> None:
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        for of, name in (
            (car, "epohc"), (car.parameters, "default_tag"), (car.parameters.buffer, "default_tag"),
            (car.events, "default_tag"), (car.properties, "nmae"), (out, "on_stream_received"),
        ):  # fmt: skip
            with pytest.raises(AttributeError, match=name):
                setattr(of, name, {})
    with client.open_input_topic(topic, None) as opened, pytest.raises(AttributeError, match="on_stream_received"):
        opened.on_stream_received = print  # type: ignore[attr-defined]


def test_what_a_client_wrote_itself_is_there_until_now(client: qf.StreamingClient, topic: str) -> None:
    with client.open_output_topic(topic, buffer=qf.BufferSettings(timeout="1h")) as out:
        out.create_stream("car-44").parameters.buffer.write({"time": 0, "speed": 1.0})
        assert [len(batch) for batch in everything(client, topic, None)] == [1]
