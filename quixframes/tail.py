"""The newest rows of a topic, without a look at the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from quixframes.kafka import Admin
from quixframes.replay import Replay
from quixframes.settings import Duration, nanoseconds, whole_number

__all__ = ["tail"]

_MESSAGES = 16  # of each partition, at the first look
_MORE = 4  # times as many at each further one


def tail(
    topic: str, span: Duration | None, rows: int | None, admin: Admin, replay: Callable[..., Replay], **more: Any
) -> pd.DataFrame:
    """See :meth:`StreamingClient.tail <quixframes.client.StreamingClient.tail>`."""
    if span is not None:
        since = -pd.Timedelta(nanoseconds(span, name="span"), "ns")
        frame = replay(topic, start=since, by="arrival", order="time", **more).to_frame()
        return frame if rows is None else frame.tail(whole_number(rows, "rows", least=1))
    wanted = whole_number(1_000 if rows is None else rows, "rows", least=1)
    begin, end = admin.beginnings(topic), admin.ends(topic)
    messages = _MESSAGES
    while True:
        start = {number: max(begin[number], end[number] - messages) for number in end}
        frame = replay(topic, start=start, order="time", **more).to_frame()
        if len(frame) >= wanted or start == begin:
            return frame.tail(wanted)
        messages *= _MORE
