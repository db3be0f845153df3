"""What "Kafka and Quix SDK" says, sentence by sentence, where no other test shows it already: docs/source-document.md
has the whole list. Its two lines of code run as they are written there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pandas as pd

import quixframes as qf
from quixframes import CommitMode
from tests.waiting import wait_for

MakeFrame = Callable[..., pd.DataFrame]
MakeTopic = Callable[..., str]

STREAMS = [f"s{n}" for n in range(6)]  # they come to all of three partitions


def fill(client: qf.StreamingClient, topic: str, frame: pd.DataFrame) -> None:
    """The same rows to each stream."""
    with client.open_output_topic(topic) as out:
        for stream in STREAMS:
            out.write(frame, stream=stream)


def test_the_document_s_calls_run_as_written(
    client: qf.StreamingClient, make_frame: Callable[[int], pd.DataFrame], group: str
) -> None:
    """``client.open_input_topic("{topic}","{your-consumer-group-id}")`` and
    ``client.open_input_topic('Telemetry', commit_settings=CommitMode.Manual)``, with the names filled in."""
    if not client.topics.exists("Telemetry"):
        client.topics.create("Telemetry")
    with client.open_output_topic("Telemetry") as telemetry:
        telemetry.write(make_frame(5), stream="car-44")

    output_topic = client.open_input_topic("Telemetry", f"{group}")
    assert sum(len(batch) for batch in output_topic.batches(until="now")) == 5
    output_topic.close()

    input_topic = client.open_input_topic("Telemetry", commit_settings=CommitMode.Manual)
    assert input_topic.consumer_group == "Default"
    for batch in input_topic.batches(until="now"):
        batch.commit()
    input_topic.close()
    client.topics.delete("Telemetry")


def test_another_group_reads_from_the_start_of_the_queue(
    client: qf.StreamingClient, topic: str, make_frame: Callable[[int], pd.DataFrame]
) -> None:
    """ "If you connect to the same topic with a different consumer group ID, the model will start reading from the
    start"."""
    with client.open_output_topic(topic) as output:
        output.write(make_frame(7), stream="s")
    for group in ("one", "another"):
        with client.open_input_topic(topic, f"{topic}-{group}") as read:
            assert sum(len(batch) for batch in read.batches(until="now")) == 7


def test_a_consumer_that_joins_later_reads_what_was_sent_before(
    broker_address: str, topic: str, make_frame: MakeFrame, group: str
) -> None:
    """Whoever wrote it has gone by then."""
    with qf.StreamingClient(broker_address) as writer, writer.open_output_topic(topic) as out:
        out.write(make_frame(50), stream="car-44")
    with qf.StreamingClient(broker_address) as reader, reader.open_input_topic(topic, group) as read:
        assert [n for batch in read.batches(until="now") for n in batch.frame["n"]] == list(range(50))


def test_each_partition_is_a_queue_of_its_own_that_keeps_its_order(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    """Messages of all streams by turns; one queue is committed, and the others stand where they stood."""
    topic = make_topic(partitions=3)
    with client.open_output_topic(topic) as out:
        for start in range(0, 60, 10):
            for stream in STREAMS:
                out.write(make_frame(10, start=start), stream=stream)

    def read_all(done: set[int]) -> dict[int, list[tuple[str, int]]]:
        """What comes of each partition, in its order; those named are committed."""
        queues: dict[int, list[tuple[str, int]]] = {}
        with client.open_input_topic(topic, group, CommitMode.Manual) as read:
            for batch in read.batches(rows=10, timeout=None, until="now"):
                queues.setdefault(batch.partition, []).extend((batch.stream_id, n) for n in batch.frame["n"])
                if batch.partition in done:
                    batch.commit()
        return queues

    first = read_all({1})
    for queue in first.values():
        streams = list(dict.fromkeys(stream for stream, _ in queue))
        by_turns = [(stream, n) for start in range(0, 60, 10) for stream in streams for n in range(start, start + 10)]
        assert queue == by_turns  # as they were written, over all streams of the partition
    assert set(first) == {0, 1, 2}
    assert read_all(set()) == {number: queue for number, queue in first.items() if number != 1}


def test_one_topic_serves_one_car_and_then_a_thousand(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    """Neither the topic nor the code is another."""
    topic = make_topic(partitions=3)

    def send(cars: int) -> None:
        with client.open_output_topic(topic) as out:
            for number in range(cars):
                out.write(make_frame(3, 1), stream=f"car-{number}")

    def receive() -> dict[str, int]:
        with client.open_input_topic(topic, group) as read:
            return {batch.stream_id: len(batch) for batch in read.batches(until="now")}

    for cars in (1, 1_000):
        send(cars)
        assert receive() == {f"car-{number}": 3 for number in range(cars)}


def test_three_instances_of_a_group_share_the_partitions_and_so_the_load(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    topic = make_topic(partitions=3)
    with ExitStack() as stack:
        instances = [stack.enter_context(client.open_input_topic(topic, group)) for _ in range(3)]
        assert wait_for(lambda: [len(each.partitions) for each in instances] == [1, 1, 1])
        fill(client, topic, make_frame(20))
        read = [[batch.stream_id for batch in each.batches(until="now")] for each in instances]
    assert all(read)
    assert sorted(stream for streams in read for stream in streams) == STREAMS


def test_an_instance_that_is_added_is_given_partitions_of_the_others(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str
) -> None:
    topic = make_topic(partitions=3)
    with client.open_input_topic(topic, group) as first:
        assert wait_for(lambda: len(first.partitions) == 3)
        before = set(first.partitions)
        with client.open_input_topic(topic, group) as second:
            assert wait_for(lambda: second.partitions and len(first.partitions) + len(second.partitions) == 3)
            assert {*first.partitions, *second.partitions} == before


def test_offsets_are_committed_without_a_word_of_the_user(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    """As long as nothing else is asked for."""
    fill(client, topic, make_frame(10))
    with client.open_input_topic(topic, group) as read:
        assert sum(len(batch) for batch in read.batches(until="now")) == 60
    assert client.topics.describe(topic).lag.loc[group, "lag"].sum() == 0
    with client.open_input_topic(topic, group) as read:
        assert list(read.batches(until="now")) == []


def test_a_group_for_debugging_does_not_disturb_the_model_that_is_deployed(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    """It takes no partition and no row from it, and moves none of its offsets."""
    topic = make_topic(partitions=3)
    moved: list[object] = []
    hooks = qf.Hooks(revoked=moved.append, lost=moved.append)
    with client.open_input_topic(topic, group, CommitMode.Manual, hooks=hooks) as deployed:
        assert wait_for(lambda: len(deployed.partitions) == 3)
        fill(client, topic, make_frame(10))
        with client.open_input_topic(topic, f"{group}-debug") as debugging:
            assert sum(len(batch) for batch in debugging.batches(until="now")) == 60
        assert len(deployed.partitions) == 3
        assert moved == []
        assert sum(len(batch) for batch in deployed.batches(until="now")) == 60


def test_one_schema_comes_as_one_batch_where_two_by_turns_come_as_many(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    """Why one schema per topic is fast: the work is done once a batch."""
    counts = {}
    for columns in ((3, 3), (3, 4)):
        topic = make_topic()
        with client.open_output_topic(topic) as out:
            for number in range(20):
                out.write(make_frame(10, columns[number % 2], start=10 * number), stream="car-44")
        with client.open_input_topic(topic, group) as read:
            counts[columns] = [len(batch) for batch in read.batches(timeout=None, until="now")]
    assert counts == {(3, 3): [200], (3, 4): [10] * 20}


def test_each_stage_of_a_pipeline_has_a_topic_from_raw_data_to_results(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str
) -> None:
    """Raw data, a cleaning model, clean data, a model, results: and what each stage held can be read at each."""
    raw, clean, results = make_topic(), make_topic(), make_topic()
    speeds = pd.DataFrame({"speed": [80.0, -1.0, 82.0, 84.0]}, index=pd.date_range("2026-11-23", periods=4, freq="s"))
    with client.open_output_topic(raw) as out:
        out.write(speeds, stream="car-44")
    stages = [
        (raw, lambda frame: frame[frame["speed"] >= 0], clean),
        (clean, lambda frame: pd.DataFrame({"fast": frame["speed"] > 81}), results),
    ]
    for number, (before, model, after) in enumerate(stages):
        with (
            client.open_input_topic(before, f"{group}-{number}") as source,
            client.open_output_topic(after) as sink,
        ):
            qf.run(model, source, sink, until="now")
    frames = [client.replay(topic, progress=False).to_frame() for topic in (raw, clean, results)]
    assert frames[0]["speed"].tolist() == [80, -1, 82, 84]
    assert frames[1]["speed"].tolist() == [80, 82, 84]
    assert frames[2]["fast"].tolist() == [False, True, True]
