"""quixstreams 0.5.7, the old Quix SDK: DataFrames in and out, a .NET core inside the wheel.

Its faster codec (Protobuf) is chosen, and its own buffers where the case asks for batches other than the written
frames. Commits are its default: automatic, every 5 s or 5,000 messages.
"""

from __future__ import annotations

import os
from dataclasses import replace
from threading import Event

import pandas as pd
import quixstreams as qx
from quixstreams.models.codecsettings import CodecSettings

from benchmarks.cases import BUFFER_ROWS, frames
from benchmarks.contenders.common import PATIENCE_S, Item, Job, ReadClock, Result, main, timed_write


def write(job: Job) -> Result:
    """Publish DataFrames, directly or through the stream's buffer."""
    CodecSettings.set_global_codec_type(qx.CodecType.Protobuf)
    topic = qx.KafkaStreamingClient(job.broker).get_topic_producer(job.topic)
    items = [Item(stream, frame, len(frame)) for stream, frame in frames(job.case)]
    series = {stream: topic.get_or_create_stream(stream).timeseries for stream in {item.stream for item in items}}
    if job.case.buffered:
        for each in series.values():
            each.buffer.packet_size = BUFFER_ROWS
            each.buffer.buffer_timeout = 1000

    def publish(stream: str, frame: pd.DataFrame) -> None:
        target = series[stream].buffer if job.case.buffered else series[stream]
        target.publish(frame)

    def flush() -> None:
        for each in series.values():
            each.flush()
        topic.flush()

    result = timed_write(job, items, publish, flush)
    topic.dispose()
    return result


def read(job: Job) -> Result:
    """Receive DataFrames as they were written or, for other batches, from a buffer of that many rows."""
    client = qx.KafkaStreamingClient(job.broker)
    topic = client.get_topic_consumer(
        job.topic, consumer_group=f"{job.topic}-{job.batch}", auto_offset_reset=qx.AutoOffsetReset.Earliest
    )
    as_written = job.batch == job.case.frame_rows
    # Its buffer would hold the last, smaller batch until a time-out, which has no place in a rate.
    clock = ReadClock(job if as_written else replace(job, rows=job.rows // job.batch * job.batch))
    finished = Event()

    def received(_: qx.StreamConsumer, frame: pd.DataFrame) -> None:
        if not finished.is_set() and clock.add(len(frame)):
            finished.set()

    def opened(stream: qx.StreamConsumer) -> None:
        if as_written:
            stream.timeseries.on_dataframe_received = received
            return
        buffer = stream.timeseries.create_buffer()
        buffer.packet_size = job.batch
        buffer.on_dataframe_released = received

    topic.on_stream_received = opened
    topic.subscribe()
    finished.wait(job.seconds + PATIENCE_S)
    return clock.result()


if __name__ == "__main__":
    main(write, read)
    # Not by closing the consumer: while messages still come, its dispose() waits for ever now and then.
    os._exit(0)
