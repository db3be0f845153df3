"""Metrics and logs on a real Kafka: the numbers are right after known work, however they are asked for."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pandas as pd
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import quixframes as qf
from quixframes import CommitMode, metrics_otel, metrics_prometheus
from quixframes.kafka import Outgoing
from quixframes.metrics import DEFINITIONS
from tests.waiting import wait_for

MakeFrame = Callable[..., pd.DataFrame]
MakeTopic = Callable[..., str]


def values(client: qf.StreamingClient, topic: str | None = None) -> dict[str, float]:
    """A client's numbers of one topic, or those of no topic; partitions added up."""
    found = client.metrics()
    found = found[found["topic"].isna() if topic is None else found["topic"] == topic]
    by_name = found.groupby("metric")["value"].sum()
    return {str(name).removeprefix("quixframes_"): float(value) for name, value in by_name.items()}


def write_foreign(client: qf.StreamingClient, topic: str, count: int) -> None:
    told: list[Exception | None] = []
    for _ in range(count):
        client._get_producer().send(Outgoing(topic, b"s", b"not ours", []), told.append)
    client.flush()
    client._get_producer().flush(20)
    assert told == [None] * count


def fill(client: qf.StreamingClient, topic: str, frame: pd.DataFrame, times: int) -> None:
    with client.open_output_topic(topic) as out:
        for _ in range(times):
            out.write(frame, stream="s")


def test_the_numbers_after_known_work_are_those_of_the_work(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    raw, clean, dead = make_topic(), make_topic(), make_topic()
    fill(client, raw, make_frame(10), 20)
    written = values(client, raw)
    assert (written["rows_written_total"], written["messages_written_total"]) == (200, 20)
    write_foreign(client, raw, 3)
    begun = time.monotonic()
    with (
        client.open_input_topic(raw, group, CommitMode.Manual, dead_letters=dead) as read,
        client.open_output_topic(clean) as out,
    ):
        for batch in read.batches(rows=50, timeout=None, until="now"):
            threading.Event().wait(0.05)  # the model
            out.write(batch.frame, stream="s")
            if batch.offsets[0] < 10:
                batch.commit()
        assert wait_for(lambda: values(client, raw)["dead_letters_total"] == 3)
        found = values(client, raw)
        assert found["rows_read_total"] == 200
        assert found["batches_read_total"] == 4
        assert found["messages_read_total"] == 23
        assert found["bytes_read_total"] > written["bytes_written_total"] > 20 * 10 * 8
        assert 0.2 <= found["model_seconds_total"] < time.monotonic() - begun
        assert found["commits_total"] >= 2
        assert found["partitions"] == 1
        assert found["rebalances_total"] >= 1
        assert found["rows_in_total"] == 203
        assert found["rows_processed_total"] == 100
        assert found["rows_dead_lettered_total"] == 3
        assert found["rows_held"] == 100
        assert found["lag_messages"] == 13  # from the tenth message on
        assert 0 < found["lag_seconds"] < time.monotonic() - begun + 60
        assert (found["prefetched_bytes"], found["held_bytes"]) == (0, 0)
        assert (found["messages_gone_total"], found["messages_overdue_total"]) == (0, 0)
        read.commit()
        assert wait_for(lambda: values(client, raw)["lag_messages"] == 0)
        assert values(client, raw)["lag_seconds"] == 0
        assert values(client, clean)["rows_written_total"] == 200
    assert values(client)["in_flight_bytes"] == 0


def test_counters_of_topics_that_were_closed_stay_and_go_on(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    rows = 0
    for _ in range(2):
        fill(client, topic, make_frame(10), 1)
        with client.open_input_topic(topic, group) as read:
            rows += sum(len(batch) for batch in read.batches(until="now"))
            found = values(client, topic)
            assert found["rows_read_total"] == found["rows_written_total"] == found["rows_in_total"] == rows
    client.close()
    found = values(client, topic)
    assert (found["rows_read_total"], found["rows_written_total"], found["rows_processed_total"]) == (20, 20, 20)
    assert "lag_messages" not in found


def test_rows_that_wait_are_seen_as_bytes(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    with (
        client.open_output_topic(topic, buffer=qf.BufferSettings(timeout="1 hour")) as out,
        client.open_input_topic(topic, group) as read,
    ):
        stream = out.get_or_create_stream("s")
        stream.parameters.buffer.write(make_frame(100))
        assert values(client, topic)["buffered_bytes"] >= 100 * 8
        stream.parameters.buffer.flush()
        assert values(client, topic)["buffered_bytes"] == 0
        out.flush()
        assert wait_for(lambda: values(client, topic)["prefetched_bytes"] > 100 * 8)
        assert list(read.batches(rows=1000, timeout=None, duration="1s", max_rows=1)) != []


def test_under_exactly_once_transactions_are_counted_and_an_idle_end_is_no_lag(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    """The end of a topic that is written in transactions is a marker, which nobody ever finishes."""
    raw, clean = make_topic(), make_topic()
    fill(client, raw, make_frame(10), 4)
    for divisor in (0, 1):
        with (
            contextlib.suppress(ZeroDivisionError),
            client.open_input_topic(raw, group, exactly_once=True) as read,
            client.open_output_topic(clean) as out,
        ):
            for batch in read.batches(rows=10, timeout=None, until="now"):
                out.write(batch.frame, stream="s")
                1 / divisor
    found = values(client, raw)
    assert found["transactions_aborted_total"] >= 1
    assert found["transactions_total"] >= 1
    assert found["rows_processed_total"] == 40
    assert found["rows_in_total"] == 40 + found["rows_let_go_total"]
    with client.open_input_topic(clean, group) as read:
        assert sum(len(batch) for batch in read.batches(until="now")) == 40
        read.commit()
        assert wait_for(lambda: values(client, clean).get("lag_messages") == 0)


def test_a_scrape_by_prometheus_is_what_the_client_says(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    fill(client, topic, make_frame(10), 3)
    registry = CollectorRegistry()
    metrics_prometheus.register(client, registry)
    with client.open_input_topic(topic, group) as read:
        assert sum(len(batch) for batch in read.batches(until="now")) == 30
        for text in (generate_latest(registry).decode(), metrics_prometheus.text(client)):
            found = {
                sample.name: sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.labels.get("topic") == topic and sample.labels.get("group", group) == group
            }
            assert found["quixframes_rows_read_total"] == found["quixframes_rows_written_total"] == 30
            assert found["quixframes_messages_read_total"] == 3
            assert found.keys() <= DEFINITIONS.keys()


def test_a_collection_by_opentelemetry_is_what_the_client_says(
    client: qf.StreamingClient, topic: str, make_frame: MakeFrame, group: str
) -> None:
    reader = InMemoryMetricReader()
    metrics_otel.register(client, MeterProvider([reader]).get_meter("test"))
    fill(client, topic, make_frame(10), 3)
    for rows in (30, 60):
        with client.open_input_topic(topic, group) as read:
            list(read.batches(until="now"))
            data = reader.get_metrics_data()
            assert data is not None
            (scope,) = data.resource_metrics[0].scope_metrics
            found = {one.name: one for one in scope.metrics}
            (point,) = found["quixframes.rows_read"].data.data_points
            assert (point.value, point.attributes) == (rows, {"topic": topic, "group": group})
            assert found["quixframes.bytes_read"].unit == "By"
            assert found["quixframes.rows_read"].data.is_monotonic
        fill(client, topic, make_frame(10), 3)


# Logs


@pytest.mark.parametrize("bad", ["dead letter", "skip"])
def test_a_thousand_bad_messages_are_a_few_warnings_with_their_number(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic, dead = make_topic(), make_topic()
    write_foreign(client, topic, 1000)
    rules: dict[str, str] = {"on_bad_message": "skip"} if bad == "skip" else {"dead_letters": dead}
    begun = time.monotonic()
    with (
        caplog.at_level(logging.INFO, "quixframes"),
        client.open_input_topic(topic, group, **rules) as read,  # type: ignore[arg-type]
    ):
        assert list(read.batches(until="now")) == []
    told = [record for record in caplog.records if record.name in ("quixframes.gather", "quixframes.dead_letters")]
    assert {record.levelname for record in told} == {"WARNING"}
    assert 2 <= len(told) <= time.monotonic() - begun + 2
    first, last = told[0], told[-1]
    assert (first.topic, first.partition, first.offset) == (topic, 0, 0)  # type: ignore[attr-defined]
    assert last.offset == 999  # type: ignore[attr-defined]
    counts = [int(record.message.split()[0].replace(",", "")) for record in told if record.message[0].isdigit()]
    assert sum(counts) + len(told) - len(counts) == 1000


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[qf.LocalKafka]:
    """A broker that the test may stop."""
    with qf.LocalKafka(tmp_path_factory.mktemp("own-kafka"), keep=False) as kafka:
        yield kafka


def test_an_idle_reader_says_once_that_its_broker_is_away_and_once_that_it_is_back(
    own_kafka: qf.LocalKafka, make_frame: MakeFrame, caplog: pytest.LogCaptureFixture
) -> None:
    with qf.StreamingClient(own_kafka.address) as client:
        client.topics.create("idle")
        reader = qf.ReaderSettings(warn_after="2s")
        with client.open_input_topic("idle", "g", reader=reader) as read:
            assert wait_for(lambda: read.partitions, 60)
            loop = threading.Thread(target=lambda: list(read.batches()))
            with caplog.at_level(logging.INFO, "quixframes"):
                loop.start()
                own_kafka.pause()
                try:
                    assert wait_for(lambda: read.trouble, 60)
                    during = values(client, "idle")["out_of_reach_seconds_total"]
                    threading.Event().wait(15)
                    assert values(client, "idle")["out_of_reach_seconds_total"] > during + 10
                finally:
                    own_kafka.resume()
                assert wait_for(lambda: read.trouble is None, 60)
                fill(client, "idle", make_frame(10), 1)
                assert wait_for(lambda: read.rows_read == 10 or values(client, "idle")["rows_in_total"] == 10, 60)
                threading.Event().wait(3)
        loop.join(10)
    alarms = [
        record.message for record in caplog.records if record.name.startswith("quixframes") and record.levelno >= 30
    ]
    assert len([text for text in alarms if "reading again" in text]) <= 1
    assert len([text for text in alarms if "reading again" not in text]) <= 1, alarms
    assert any("out of reach" in text for text in alarms)
