"""The source document's two lines of code, run as they are written there."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

import quixframes as qf
from quixframes import CommitMode


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
