"""What streams say of themselves, their events and their ends, on a real Kafka."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

import quixframes as qf


def everything(client: qf.StreamingClient, topic: str, group: str | None, **rules: object) -> list[qf.RowBatch]:
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
