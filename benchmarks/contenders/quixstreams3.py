"""quixstreams 3.28.1: a dict per row, a JSON message per row; a bounded run collects them, and pandas makes the frame.

It has no frames and no buffers of rows, so the size of a written frame matters to it only for ``to_dict``, and the size
of a read batch not at all.
"""

from __future__ import annotations

import pandas as pd
from quixstreams import Application

from benchmarks.cases import frames
from benchmarks.contenders.common import Item, Job, ReadClock, Result, main, timed_write


def write(job: Job) -> Result:
    """Turn each frame into dicts, serialise each and produce it, as its documentation shows."""
    app = Application(broker_address=job.broker, loglevel="ERROR")
    topic = app.topic(job.topic, value_serializer="json")
    # JSON has no times: whole nanoseconds, as exact as what the others carry.
    items = [Item(stream, frame.astype({"time": "int64"}), len(frame)) for stream, frame in frames(job.case)]
    with app.get_producer() as producer:

        def produce(stream: str, frame: pd.DataFrame) -> None:
            for row in frame.to_dict("records"):
                message = topic.serialize(key=stream, value=row)
                producer.produce(topic=topic.name, key=message.key, value=message.value)

        return timed_write(job, items, produce, producer.flush)


def read(job: Job) -> Result:
    """Collect the rows of a bounded run and make them a DataFrame with a time index."""

    def count(*_: object) -> None:
        if clock.add(1):
            app.stop()

    app = Application(
        broker_address=job.broker,
        consumer_group=job.topic,
        auto_offset_reset="earliest",
        loglevel="ERROR",
        on_message_processed=count,
    )
    app.dataframe(app.topic(job.topic, value_deserializer="json"))
    clock = ReadClock(job)
    rows = app.run(count=job.rows)
    frame = pd.DataFrame(rows)
    frame["time"] = pd.to_datetime(frame["time"])
    frame.set_index("time")
    clock.touch()
    return clock.result()


if __name__ == "__main__":
    main(write, read)
