"""A compacted topic of quixframes' own, as a log that every client reads from its beginning: the last of a key counts.

What this module holds to:

- What was read before is not read again, unless the topic was made anew.
- A cluster on which nobody has written to it has no such topic, and looking it up costs one question.
- Who writes reads back up to what was written: so it knows what others wrote before, in Kafka's order.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping

from quixframes.bounded import read_range
from quixframes.errors import DeliveryError, QuixframesError, SettingsError, TopicNotFoundError
from quixframes.kafka import Admin, Consumer, Header, MadeRecord, Outgoing, Producer, Record

__all__ = ["CompactedTopic"]

_PATIENCE = 30.0
_TOKEN = "qf.token"  # by which a writer knows its own message  # nosec B105  # the name of a header


class CompactedTopic:
    """A topic of one partition that keeps the last message of each key. Not safe in several threads at once.

    Args:
        name: the topic's.
        apply: given each record, in order.
        reset: called when the topic was made anew, or is gone: nothing that was applied holds.
        admin, producer: give the client's own.
        consumer: makes a consumer of no group.
        settings: the topic's, beside its compaction, where it has to be made.
    """

    def __init__(
        self,
        name: str,
        apply: Callable[[Record], object],
        reset: Callable[[], object],
        admin: Callable[[], Admin],
        producer: Callable[[], Producer],
        consumer: Callable[[], Consumer],
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._apply = apply
        self._reset = reset
        self._admin = admin
        self._producer = producer
        self._consumer = consumer
        self._settings = {"cleanup.policy": "compact", **(settings or {})}
        self._id = ""
        self._position = 0

    def read(self) -> list[Record]:
        """Read and apply what was written since the last time.

        Raises:
            AccessDeniedError: the principal may not read it.
        """
        found: list[Record] = []
        try:
            id = self._admin().describe(self.name).id
            if id != self._id:  # a topic that was made anew has its messages at the same offsets
                self._begin(id)
            end = self._admin().ends(self.name)[0]
            if end > self._position:
                self._read_to(end, found)
        except TopicNotFoundError:
            self._begin("")
        return found

    def check(self) -> None:
        """Refuse who may not both read and write it, before anything depends on that. One that is not there yet passes.

        Raises:
            AccessDeniedError: the principal may not.
        """
        for use in ("read", "write"):
            try:
                self._admin().describe(self.name, to=use)
            except TopicNotFoundError:
                return

    def write(self, key: bytes, value: bytes | None, header: Header) -> tuple[list[Record], int]:
        """Write a message, and read up to it.

        Returns:
            The messages of this key that came since the last look, up to this one and beyond; and which of them it is.

        Raises:
            SettingsError: the topic is not compacted, so that it would not keep the message.
            DeliveryError: it was not acknowledged.
        """
        known = self._make_sure() == self._id != ""
        done = threading.Event()
        failures: list[Exception] = []

        def on_done(error: Exception | None) -> None:
            if error is not None:
                failures.append(error)
            done.set()

        token = secrets.token_bytes(8)
        self._producer().send(Outgoing(self.name, key, value, [header, (_TOKEN, token)]), on_done)
        if not done.wait(_PATIENCE) or failures:
            cause = failures[0] if failures else None
            raise DeliveryError(
                f"topic {self.name!r} did not keep what was written to it: "
                f"{cause or f'no answer within {_PATIENCE:g} s'}",
                topic=self.name,
                stream_id=key.decode(errors="replace"),
                rows=1,
            ) from cause
        if known and self._admin().ends(self.name)[0] == self._position + 1:  # it is the only one since the last look
            record = MadeRecord(self.name, key, value, [header], 0, self._position)
            self._position += 1
            self._apply(record)
            return [record], 0
        found = [record for record in self.read() if record.key == key]
        ours = [dict(record.headers).get(_TOKEN) == token for record in found]
        return found, ours.index(True) if any(ours) else len(found)

    def _make_sure(self) -> str:
        """See that there is such a topic, which keeps what is in it; its ID, empty where it was only made now."""
        admin = self._admin()
        try:
            found = admin.describe(self.name)
        except TopicNotFoundError:
            try:
                admin.create(self.name, partitions=1, replication=None, settings=self._settings)
            except QuixframesError:
                if self.name not in admin.topics():  # else somebody made it meanwhile
                    raise
            return ""
        if found.compacted is False:
            raise SettingsError(
                f"topic {self.name!r} is not compacted, so that what is in it would vanish with time: set its "
                "cleanup.policy to compact, or delete it and set what was in it again"
            )
        return found.id

    def _begin(self, id: str) -> None:
        self._id = id
        self._position = 0
        self._reset()

    def _read_to(self, end: int, found: list[Record]) -> None:
        consumer = self._consumer()
        try:
            begin = max(self._position, self._admin().beginnings(self.name)[0])
            for step in read_range(consumer, self.name, {0: begin}, {0: end}):
                found += step.records
                for record in step.records:
                    self._apply(record)
                self._position = step.positions[0]
        finally:
            consumer.close(5.0)
