"""quixframes: frames as messages of their own or through the stream's buffer; row batches, committed automatically."""

from __future__ import annotations

import pandas as pd

import quixframes as qf
from benchmarks.cases import BUFFER_ROWS, frames
from benchmarks.contenders.common import Item, Job, ReadClock, Result, main, timed_write


def write(job: Job) -> Result:
    """Write DataFrames with a time index."""
    items = [Item(stream, frame.set_index("time"), len(frame)) for stream, frame in frames(job.case)]
    client = qf.StreamingClient(job.broker)
    with client.open_output_topic(job.topic, buffer=qf.BufferSettings(rows=BUFFER_ROWS)) as topic:
        streams = {stream: topic.get_or_create_stream(stream) for stream in {item.stream for item in items}}

        def send(stream: str, frame: pd.DataFrame) -> None:
            parameters = streams[stream].parameters
            if job.case.buffered:
                parameters.buffer.write(frame)
            else:
                parameters.write(frame)

        return timed_write(job, items, send, topic.flush)


def read(job: Job) -> Result:
    """Read batches of the asked size, in a group, as a model would."""
    client = qf.StreamingClient(job.broker)
    clock = ReadClock(job)
    with client.open_input_topic(job.topic, f"{job.topic}-{job.batch}") as topic:
        for batch in topic.batches(rows=job.batch, timeout="1s", until="now"):
            if clock.add(len(batch.frame)):
                break
    return clock.result()


if __name__ == "__main__":
    main(write, read)
