"""What a topic has, read by Kafka's and Arrow's own means and not by quixframes: committed rows, in their order."""

from __future__ import annotations

import io
import time

import numpy as np
import pandas as pd
import pyarrow as pa
from kafka import KafkaConsumer, TopicPartition

__all__ = ["read_topic"]


def read_topic(address: str, topic: str, partitions: int, timeout: float = 180.0) -> pd.DataFrame:
    """All rows, as the checker takes them: partition, offset, stream, n, and ``by`` where rows have it (else -1)."""
    consumer = KafkaConsumer(
        bootstrap_servers=address.split(","),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        request_timeout_ms=10_000,
        reconnect_backoff_max_ms=500,
    )
    try:
        every = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(every)
        consumer.seek_to_beginning(*every)
        ends = consumer.end_offsets(every)
        parts: list[tuple[int, int, str, np.ndarray, np.ndarray]] = []
        deadline = time.monotonic() + timeout
        while any(consumer.position(place) < ends[place] for place in every):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} could not be read to its end: {ends}")
            for records in consumer.poll(timeout_ms=500, max_records=5_000).values():
                for record in records:
                    if dict(record.headers)["qf.kind"] != b"parameters":
                        continue
                    table = pa.ipc.open_stream(io.BytesIO(record.value)).read_all()
                    n = table["n"].to_numpy()
                    by = table["by"].to_numpy() if "by" in table.column_names else np.full(n.size, -1)
                    parts.append((record.partition, record.offset, record.key.decode(), n, by))
    finally:
        consumer.close()
    sizes = [part[3].size for part in parts]
    found = pd.DataFrame(
        {
            "partition": np.repeat([part[0] for part in parts], sizes),
            "offset": np.repeat([part[1] for part in parts], sizes),
            "stream": np.repeat(np.array([part[2] for part in parts], dtype=object), sizes),
            "n": np.concatenate([part[3] for part in parts]) if parts else np.empty(0, np.int64),
            "by": np.concatenate([part[4] for part in parts]) if parts else np.empty(0, np.int64),
        }
    )
    return found.sort_values(["partition", "offset"], kind="stable", ignore_index=True)
