"""Looking at the dead letters of a topic, and sending them back.

What this module holds to:

- A frame of dead letters has all of each message, so what is sent back is what the frame says, and nothing else.
- Nothing is sent before every row was looked at. What was not acknowledged is named, row by row.
- A message that was numbered in its stream is numbered anew: by its old number, a reader would take it for a repeat or
  for one out of order, and might drop it.
"""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from quixframes.bounded import read_range
from quixframes.dead_letters import (
    EXCEPTION,
    MESSAGE,
    OFFSET,
    PARTITION,
    STACKTRACE,
    TOPIC,
    size_of,
    split_headers,
)
from quixframes.errors import BrokerUnavailableError, DeadLetterError, FrameError
from quixframes.kafka import Admin, Consumer, Outgoing, Producer, Record
from quixframes.output import InFlight
from quixframes.rules import text_dtype

__all__ = ["letters_frame", "messages_of", "placed", "read_letters", "renumbered", "send_messages"]

_BESIDE_VALUE = 1_000  # bytes of memory: the objects that hold a message
_NEEDED = ("topic", "partition", "offset", "key", "value", "headers")


# Pure


def letters_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Dead letters as a DataFrame, as :meth:`StreamingClient.dead_letters` describes it."""
    letters = [(record, *split_headers(record.headers)) for record in records]
    times = np.array([record.timestamp for record, _, _ in letters], "datetime64[ms]").astype("datetime64[ns]")
    index = pd.DatetimeIndex(times, name="time").tz_localize("UTC")
    dtype = text_dtype()

    def text(name: str) -> pd.Series[Any]:
        return pd.Series([reasons.get(name) for _, _, reasons in letters], index, dtype)

    def number(name: str) -> pd.Series[Any]:
        return pd.Series([_number(reasons.get(name)) for _, _, reasons in letters], index, "Int64")

    def objects(values: list[Any]) -> pd.Series[Any]:
        return pd.Series(values, index, object)

    return pd.DataFrame(
        {
            "topic": text(TOPIC),
            "partition": number(PARTITION),
            "offset": number(OFFSET),
            "exception": text(EXCEPTION),
            "message": text(MESSAGE),
            "key": objects([record.key for record, _, _ in letters]),
            "value": objects([record.value for record, _, _ in letters]),
            "headers": objects([own for _, own, _ in letters]),
            "stacktrace": text(STACKTRACE),
            "dead_partition": pd.Series([record.partition for record, _, _ in letters], index, "int64"),
            "dead_offset": pd.Series([record.offset for record, _, _ in letters], index, "int64"),
        },
        index=index,
    )


def messages_of(letters: pd.DataFrame, to: str | None = None) -> list[Outgoing]:
    """The messages that are to be sent for rows of dead letters: to the partitions they came from, or by their keys
    where all go to a topic of another name.

    Raises:
        FrameError: a column is missing, or a row has what a message cannot have.
    """
    if not isinstance(letters, pd.DataFrame):
        raise FrameError("send_back takes the DataFrame that dead_letters gives, or rows of it")
    for column in _NEEDED:
        if column not in letters.columns:
            raise FrameError(f"it has no column {column!r}: give rows as dead_letters gives them", column=column)
    messages = []
    rows = zip(*(letters[column].tolist() for column in _NEEDED), strict=True)
    for row, (topic, partition, _, key, value, headers) in enumerate(rows):
        if to is None and not isinstance(topic, str):
            raise FrameError(
                f"row {row} does not say from which topic it came: give to='topic'", column="topic", row=row
            )
        messages.append(
            Outgoing(
                topic if to is None else to,
                _bytes(key, "key", row),
                _bytes(value, "value", row),
                _pairs(headers, row),
                None if to is not None or _is_missing(partition) else int(partition),
            )
        )
    return messages


def placed(messages: Iterable[Outgoing], partitions: Mapping[str, int]) -> list[Outgoing]:
    """The same; by their keys where the topic has fewer partitions than it had."""
    return [
        message._replace(partition=None)
        if message.partition is not None and message.partition >= partitions[message.topic]
        else message
        for message in messages
    ]


def renumbered(messages: Iterable[Outgoing]) -> list[Outgoing]:
    """The same; those that have a number in their stream as a session of their own, in this order from 0 on."""
    found = []
    # By partition too: an old topic may have a stream in two.
    sessions: defaultdict[Any, bytes] = defaultdict(lambda: uuid.uuid4().hex[:16].encode())
    counts: defaultdict[Any, int] = defaultdict(int)
    for message in messages:
        names = [name for name, _ in message.headers]
        if "qf.session" in names and "qf.sequence" in names:
            place = message.topic, message.partition, message.key
            new = {"qf.session": sessions[place], "qf.sequence": b"%d" % counts[place]}
            counts[place] += 1
            message = message._replace(headers=[(name, new.get(name, content)) for name, content in message.headers])
        found.append(message)
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _bytes(value: object, column: str, row: int) -> bytes | None:
    if _is_missing(value):
        return None
    if not isinstance(value, bytes):
        raise FrameError(f"column {column!r}, row {row}: {value!r} is neither bytes nor None", column=column, row=row)
    return value


def _pairs(headers: Any, row: int) -> list[tuple[str, bytes | None]]:
    try:
        pairs = [(name, content) for name, content in headers]
    except (TypeError, ValueError):
        pairs = [(None, None)]
    if any(not isinstance(name, str) or not (c is None or isinstance(c, bytes)) for name, c in pairs):
        raise FrameError(
            f"column 'headers', row {row}: {headers!r} is no list of pairs of a name and bytes or None",
            column="headers",
            row=row,
        )
    return pairs


# On the cluster


def read_letters(topic: str, admin: Admin, consumer: Consumer, limit: int | None) -> list[Record]:
    """What a topic has now, by broker time; the newest ``limit`` messages. Closes the consumer."""
    try:
        begin, end = admin.beginnings(topic), admin.ends(topic)
        if limit is not None:
            begin = {n: max(first, end[n] - limit) for n, first in begin.items()}
        found = [record for step in read_range(consumer, topic, begin, end) for record in step.records]
    finally:
        consumer.close(5.0)
    found.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
    return found if limit is None else found[-limit:]


def send_messages(
    letters: pd.DataFrame, messages: Sequence[Outgoing], producer: Producer, in_flight: InFlight, timeout: float
) -> None:
    """Send the messages of rows, and wait until all are acknowledged.

    Raises:
        DeadLetterError: some were not; its ``left`` are their rows.
    """
    outcomes: dict[int, Exception | None] = {}
    changed = threading.Condition()

    def done(row: int, size: int) -> Callable[[Exception | None], None]:
        def on_done(error: Exception | None) -> None:
            in_flight.release(size)
            with changed:
                outcomes[row] = error
                changed.notify_all()

        return on_done

    for row, message in enumerate(messages):
        size = size_of(message.key, message.value, message.headers) + _BESIDE_VALUE
        in_flight.acquire(size, lambda: False)
        producer.send(message, done(row, size))
    with changed:
        changed.wait_for(lambda: len(outcomes) == len(messages), timeout)
        late = BrokerUnavailableError(f"it was not acknowledged within {timeout:g} s")
        failed = {row: outcomes.get(row, late) for row in range(len(messages)) if outcomes.get(row, late) is not None}
    if failed:
        first, cause = next(iter(failed.items()))
        place = letters[["partition", "offset"]].iloc[first].tolist()
        partition, offset = (None if _is_missing(number) else int(number) for number in place)
        raise DeadLetterError(
            f"{len(failed):,} of {len(messages):,} dead letters were not sent back; row {first}, to topic "
            f"{messages[first].topic!r}: {cause}",
            topic=messages[first].topic,
            partition=partition,
            offset=offset,
            left=letters.iloc[list(failed)],
        ) from cause
