"""Where a topic ends now, for reading up to there."""

from __future__ import annotations

import time

from quixframes.kafka import Admin

__all__ = ["ends_now"]

_PAUSE = 0.01


def ends_now(admin: Admin, topic: str, patience: float = 1.0) -> dict[int, int]:
    """The offset after the last committed message of each partition, by its number.

    Kafka acknowledges the commit of a transaction before it has marked its end in every partition, and until then
    nobody can read what it wrote. So transactions that are open are waited for, up to ``patience`` seconds: who asks
    after a commit was acknowledged finds what it wrote. What is still open then is left out.
    """
    written = admin.ends(topic, committed_only=False)
    until = time.monotonic() + patience
    while True:
        committed = admin.ends(topic)
        if all(committed[number] >= end for number, end in written.items()) or time.monotonic() >= until:
            return committed
        time.sleep(_PAUSE)
