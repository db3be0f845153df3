"""Where contracts are kept: in Kafka itself, in a compacted topic of quixframes' own.

The topic ``__quixframes.contracts`` has one partition. A message's key is the name of a topic, its value that topic's
contract as JSON (see ``Contract.to_json``); no value means that it has none any more. The last message of a key counts.

What this module holds to:

- A topic's contract is looked up when the topic is opened; what was read before is not read again, unless the topic of
  contracts was made anew.
- A cluster on which nobody has set a contract has no such topic, and looking it up costs one question.
- Of two that set contracts at the same moment which do not go with each other, the first in Kafka's order stays, and
  the other hears of it: after writing one reads what others wrote before, and puts that back where it has to.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable

from quixframes.bounded import read_range
from quixframes.contracts import Contract, check_evolution
from quixframes.errors import (
    AccessDeniedError,
    ContractError,
    DeliveryError,
    QuixframesError,
    SettingsError,
    TopicNotFoundError,
)
from quixframes.kafka import Admin, Consumer, Outgoing, Producer, Record
from quixframes.logs import Place

__all__ = ["CONTRACTS", "ContractStore"]

log = logging.getLogger(__name__)

CONTRACTS = "__quixframes.contracts"
_PATIENCE = 30.0
_HEADER = ("qf.contract", b"1")
_TOKEN = "qf.token"  # by which a writer knows its own message


class ContractStore:
    """The contracts of a cluster's topics. Safe in any thread.

    Args:
        admin, producer: give the client's own.
        consumer: makes a consumer of no group.
    """

    def __init__(
        self, admin: Callable[[], Admin], producer: Callable[[], Producer], consumer: Callable[[], Consumer]
    ) -> None:
        self._admin = admin
        self._producer = producer
        self._consumer = consumer
        self._lock = threading.Lock()
        self._begin("")

    def _begin(self, id: str) -> None:
        self._id = id
        self._texts: dict[str, bytes] = {}
        self._position = 0

    def get(self, topic: str) -> Contract | None:
        """The topic's contract; None where it has none.

        Raises:
            ContractError: it was written by a later quixframes.
        """
        with self._lock:
            try:
                self._read()
            except AccessDeniedError as exc:
                place = Place(topic)
                log.warning("%s: contracts may not be read, and none is applied: %s", place, exc, extra=place.extra)
                return None
            return self._contract(topic)

    def set(self, topic: str, contract: Contract, *, evolve: bool) -> None:
        """Keep a topic's contract; with ``evolve`` only where it may follow the one that is kept.

        Raises:
            ContractError: it may not.
        """
        with self._lock:
            self._read()
            before = self._contract(topic)
            if evolve and before is not None:
                check_evolution(before, contract, topic=topic)
            if before == contract:
                return
            others, last = self._put(topic, contract.to_json().encode())
            if evolve and others and others[-1] is not None:
                self._follow(topic, contract, others[-1], last)

    def remove(self, topic: str) -> None:
        """Forget a topic's contract, if it has one."""
        if self.get(topic) is not None:
            with self._lock:
                self._put(topic, None)

    def _contract(self, topic: str) -> Contract | None:
        text = self._texts.get(topic)
        return None if text is None else Contract.from_json(text)

    def _follow(self, topic: str, contract: Contract, other: bytes, last: bool) -> None:
        """Make sure that a contract may follow the one that somebody else wrote just before it."""
        try:
            check_evolution(Contract.from_json(other), contract, topic=topic)
        except ContractError as exc:
            if last:
                self._put(topic, other)
            raise ContractError(
                f"somebody set another contract of topic {topic!r} meanwhile, which stays: {exc}",
                topic=topic,
                problems=exc.problems,
            ) from exc

    def _put(self, topic: str, text: bytes | None) -> tuple[list[bytes | None], bool]:
        """Write a topic's contract. Returns what others wrote of that topic after the last look and before this; and
        whether this is the last of it."""
        admin = self._admin()
        try:
            if admin.describe(CONTRACTS).compacted is False:
                raise SettingsError(
                    f"topic {CONTRACTS!r} is not compacted, so that contracts would vanish with time: set its "
                    "cleanup.policy to compact, or delete it and set the contracts again"
                )
        except TopicNotFoundError:
            self._create(admin)
        done = threading.Event()
        failures: list[Exception] = []

        def on_done(error: Exception | None) -> None:
            if error is not None:
                failures.append(error)
            done.set()

        token = secrets.token_bytes(8)
        self._producer().send(Outgoing(CONTRACTS, topic.encode(), text, [_HEADER, (_TOKEN, token)]), on_done)
        if not done.wait(_PATIENCE) or failures:
            cause = failures[0] if failures else None
            raise DeliveryError(
                f"the contract of topic {topic!r} was not kept: {cause or f'no answer within {_PATIENCE:g} s'}",
                topic=CONTRACTS,
                stream_id=topic,
                rows=1,
            ) from cause
        found = [record for record in self._read() if record.key == topic.encode()]
        ours = [dict(record.headers).get(_TOKEN) == token for record in found]
        at = ours.index(True) if any(ours) else 0
        return [record.value for record in found[:at]], any(ours[-1:])

    def _create(self, admin: Admin) -> None:
        try:
            admin.create(CONTRACTS, partitions=1, replication=None, settings={"cleanup.policy": "compact"})
        except QuixframesError:
            if CONTRACTS not in admin.topics():  # else somebody made it meanwhile
                raise

    def _read(self) -> list[Record]:
        """Read what was written since the last time."""
        found: list[Record] = []
        try:
            id = self._admin().describe(CONTRACTS).id
            if id != self._id:  # a topic that was made anew has its messages at the same offsets
                self._begin(id)
            end = self._admin().ends(CONTRACTS)[0]
            if end > self._position:
                self._read_to(end, found)
        except TopicNotFoundError:
            self._begin("")
        return found

    def _read_to(self, end: int, found: list[Record]) -> None:
        consumer = self._consumer()
        try:
            begin = max(self._position, self._admin().beginnings(CONTRACTS)[0])
            for step in read_range(consumer, CONTRACTS, {0: begin}, {0: end}):
                found += step.records
                for record in step.records:
                    topic = str(record.key or b"", errors="replace")
                    if record.value is None:
                        self._texts.pop(topic, None)
                    else:
                        self._texts[topic] = record.value
                self._position = step.positions[0]
        finally:
            consumer.close(5.0)
