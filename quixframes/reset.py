"""Setting a consumer group back, so that its model reads a part of a topic again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from quixframes.errors import CommitError, SettingsError
from quixframes.kafka import Admin, Consumer, Offset, Partition
from quixframes.moments import past_or_moment

__all__ = ["reset"]


def reset(
    group: str, topic: str, to: Any, admin: Admin, consumer: Callable[[], Consumer], now: pd.Timestamp, *, dry_run: bool
) -> pd.DataFrame:
    """See :meth:`StreamingClient.reset_group <quixframes.client.StreamingClient.reset_group>`."""
    begin, end = admin.beginnings(topic), admin.ends(topic)
    wanted = _offsets(to, topic, begin, end, admin, now)
    opened = consumer()
    try:
        places = {number: Partition(topic, number) for number in sorted(wanted)}
        committed = opened.committed(list(places.values()))
        if not dry_run:
            opened.assign({at: wanted[number] for number, at in places.items()})
            opened.pause(places.values())
            try:
                opened.commit({at: Offset(wanted[number], "") for number, at in places.items()})
            except CommitError as exc:
                raise SettingsError(
                    f"group {group!r} cannot be set back while an instance is in it: stop them all, and wait until the "
                    f"cluster has seen it ({exc})"
                ) from exc
    finally:
        opened.close(5.0)
    rows = []
    for number, at in places.items():
        before = committed[at]
        stood = begin[number] if before is None else min(max(before.offset, begin[number]), end[number])
        known = None if before is None else before.offset
        rows.append((number, known, wanted[number], max(0, stood - wanted[number]), max(0, wanted[number] - stood)))
    frame = pd.DataFrame(rows, columns=["partition", "committed", "to", "again", "passed_over"])
    return frame.astype("Int64").astype({"partition": "int64"}).set_index("partition")


def _offsets(
    to: Any, topic: str, begin: Mapping[int, int], end: Mapping[int, int], admin: Admin, now: pd.Timestamp
) -> dict[int, int]:
    if to == "earliest":
        return dict(begin)
    if to == "latest":
        return dict(end)
    if not isinstance(to, Mapping):
        stamp = past_or_moment(to, "to", now)
        return admin.offsets_at(topic, max(0, -(-stamp.value // 1_000_000)))
    for number, offset in to.items():
        if number not in begin:
            raise SettingsError(f"to={to!r}: topic {topic!r} has no partition {number!r}")
        if not isinstance(offset, int) or not begin[number] <= offset <= end[number]:
            raise SettingsError(f"to={to!r}: partition {number} has offsets from {begin[number]:,} to {end[number]:,}")
    return dict(to)
