"""Messages that are missing, repeated or out of order are reported with stream and offset; nothing else is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

import quixframes as qf

MakeFrame = Callable[..., pd.DataFrame]


@pytest.fixture
def tampered(
    client: qf.StreamingClient, broker_address: str, make_topic: Callable[..., str], make_frame: MakeFrame
) -> Callable[[list[int]], str]:
    """Makes a topic that holds ten messages of a stream, by their numbers, in an order of one's own."""
    whole = make_topic()
    with client.open_output_topic(whole) as out:
        car = out.create_stream("car-44")
        for n in range(10):
            car.parameters.write(make_frame(2, start=2 * n))
    consumer = KafkaConsumer(bootstrap_servers=broker_address, consumer_timeout_ms=5_000)
    consumer.assign([TopicPartition(whole, 0)])
    consumer.seek_to_beginning()
    messages = [next(consumer) for _ in range(10)]
    consumer.close()

    def make(order: list[int]) -> str:
        name = make_topic()
        producer = KafkaProducer(bootstrap_servers=broker_address)
        for n in order:
            producer.send(name, key=messages[n].key, value=messages[n].value, headers=messages[n].headers)
        producer.flush()
        producer.close()
        return name

    return make


REMOVED = [0, 1, 2, 4, 5, 6, 7, 8, 9]
REPEATED = [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9]
SWAPPED = [0, 1, 2, 4, 3, 5, 6, 7, 8, 9]
CASES: list[tuple[list[int], list[tuple[qf.FaultKind, int]], list[int]]] = [
    (REMOVED, [(qf.FaultKind.Missing, 3)], [1, 0, 0]),
    (REPEATED, [(qf.FaultKind.Repeated, 4)], [0, 1, 0]),
    (SWAPPED, [(qf.FaultKind.Missing, 3), (qf.FaultKind.OutOfOrder, 4)], [0, 0, 1]),
]


@pytest.mark.parametrize(("order", "faults", "counts"), CASES, ids=["removed", "repeated", "swapped"])
def test_a_fault_is_handed_to_a_hook_and_counted(
    client: qf.StreamingClient, tampered: Any, order: list[int], faults: list[Any], counts: list[int]
) -> None:
    told: list[qf.SequenceFault] = []
    with client.open_input_topic(tampered(order), None, faults=qf.FaultSettings(report=told.append)) as opened:
        rows = [n for batch in opened.batches(until="now") for n in batch.frame["n"]]
        assert rows == [row for n in order for row in (2 * n, 2 * n + 1)]
        assert opened.sequence_faults.loc["car-44"].tolist() == counts
    assert [(fault.kind, fault.offset) for fault in told] == faults
    assert {fault.stream_id for fault in told} == {"car-44"}


def test_a_fault_is_logged_unless_it_is_asked_for_otherwise(
    client: qf.StreamingClient, tampered: Any, caplog: pytest.LogCaptureFixture
) -> None:
    topic = tampered(REMOVED)
    with caplog.at_level(logging.WARNING), client.open_input_topic(topic, None) as opened:
        assert sum(len(batch) for batch in opened.batches(until="now")) == 18
    (text,) = [record.message for record in caplog.records if record.name.startswith("quixframes")]
    assert text == (f"{topic}[0]@3: stream 'car-44': 1 message is missing before this one (number 4, 3 was to come)")


def test_a_fault_that_raises_loses_no_row(client: qf.StreamingClient, tampered: Any, group: str) -> None:
    """The rows before it come first; it raises once; and the loop after it goes on with the message it was about."""
    topic = tampered(REMOVED)
    rows: list[int] = []
    with client.open_input_topic(topic, group, faults=qf.FaultSettings(report="raise")) as opened:
        with pytest.raises(qf.SequenceError, match="1 message is missing") as caught:
            for batch in opened.batches(until="now"):
                rows += batch.frame["n"].tolist()
        assert (caught.value.topic, caught.value.offset, caught.value.fault.messages) == (topic, 3, 1)
        assert rows == list(range(6))
        for batch in opened.batches(until="now"):
            rows += batch.frame["n"].tolist()
    assert rows == [row for n in REMOVED for row in (2 * n, 2 * n + 1)]


def test_repeats_can_be_dropped_and_count_as_finished(client: qf.StreamingClient, tampered: Any, group: str) -> None:
    topic = tampered(REPEATED)
    settings = qf.FaultSettings(drop_repeats=True)
    with client.open_input_topic(topic, group, qf.CommitMode.Manual, faults=settings) as opened:
        rows = []
        for batch in opened.batches(until="now"):
            rows += batch.frame["n"].tolist()
            batch.commit()
        assert rows == list(range(20))
        assert opened.holding().empty
    with client.open_input_topic(topic, group) as opened:
        assert list(opened.batches(until="now")) == []


@pytest.mark.parametrize("bad", ["dead letter", "skip"])
def test_a_message_that_is_refused_is_not_missing(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame, group: str, bad: str
) -> None:
    topic, dead = make_topic(), make_topic()
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        for n in range(5):
            car.parameters.write(make_frame(1, start=n).assign(**({"odd": 1} if n in (2, 3) else {})))
    rules: dict[str, Any] = {"on_bad_message": "skip"} if bad == "skip" else {"dead_letters": dead}
    contract = {"p0": "float64", "p1": "float64", "p2": "float64", "n": "int64"}
    faults = qf.FaultSettings(report="raise")
    with client.open_input_topic(topic, group, contract=contract, faults=faults, **rules) as opened:
        assert [n for batch in opened.batches(until="now") for n in batch.frame["n"]] == [0, 1, 4]
        assert opened.sequence_faults.empty


def test_what_retention_removed_is_not_missing_as_well(
    client: qf.StreamingClient, broker_address: str, topic: str, make_frame: MakeFrame, group: str
) -> None:
    told: list[qf.SequenceFault] = []
    faults, reader = qf.FaultSettings(report=told.append), qf.ReaderSettings(prefetch="1 kB")
    with client.open_output_topic(topic) as out:
        for n in range(40):
            out.get_or_create_stream("car-44").parameters.write(make_frame(20_000, start=n))
        out.flush()
        with client.open_input_topic(topic, group, reader=reader, faults=faults) as opened:
            batches = opened.batches(until="now", rows=20_000)
            next(batches)
            admin = KafkaAdminClient(bootstrap_servers=broker_address)
            try:
                admin.delete_records({TopicPartition(topic, 0): 38})
            finally:
                admin.close()
            rest = sum(1 for _ in batches)
            assert opened.messages_gone > 0
            assert 1 + rest + opened.messages_gone == 40
    assert told == []


def test_a_clean_topic_of_a_million_rows_reports_nothing(
    client: qf.StreamingClient, make_topic: Callable[..., str], make_frame: MakeFrame, group: str
) -> None:
    """Three partitions, many streams, streams that are closed and opened again, and a restart in the middle."""
    topic = make_topic(3)
    frame = make_frame(2_000)
    with client.open_output_topic(topic) as out:
        for n in range(500):
            out.get_or_create_stream(f"s{n % 20}").parameters.write(frame)
            if n % 50 == 49:
                out.get_stream(f"s{n % 20}").close()
    told: list[qf.SequenceFault] = []
    rows = 0
    for most in (300_000, None):
        with client.open_input_topic(topic, group, faults=qf.FaultSettings(report=told.append)) as opened:
            for batch in opened.batches(until="now", max_rows=most):
                rows += len(batch)
            assert opened.sequence_faults.empty
    assert rows == 1_000_000
    assert told == []
