"""Where contracts are kept: in Kafka itself, in a compacted topic of quixframes' own.

The topic ``__quixframes.contracts`` has one partition. A message's key is the name of a topic, its value that topic's
contract as JSON (see ``Contract.to_json``); no value means that it has none any more. The last message of a key counts.

What this module holds to:

- A topic's contract is looked up when the topic is opened; what was read before is not read again.
- A cluster on which nobody has set a contract has no such topic, and looking it up costs one question.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from quixframes.contracts import Contract, check_evolution
from quixframes.errors import (
    AccessDeniedError,
    BrokerUnavailableError,
    DeliveryError,
    QuixframesError,
    TopicNotFoundError,
)
from quixframes.kafka import Admin, Consumer, Outgoing, Partition, Producer

__all__ = ["CONTRACTS", "ContractStore"]

log = logging.getLogger(__name__)

CONTRACTS = "__quixframes.contracts"
_PATIENCE = 30.0
_POLL = 0.1
_HEADER = ("qf.contract", b"1")


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
        self._texts: dict[str, bytes] = {}
        self._position = 0

    def get(self, topic: str) -> Contract | None:
        """The topic's contract; None where it has none.

        Raises:
            ContractError: it was written by a later quixframes.
        """
        with self._lock:
            self._read()
            text = self._texts.get(topic)
        return None if text is None else Contract.from_json(text)

    def set(self, topic: str, contract: Contract, *, evolve: bool) -> None:
        """Keep a topic's contract; with ``evolve`` only where it may follow the one that is kept.

        Raises:
            ContractError: it may not.
        """
        before = self.get(topic)
        if evolve and before is not None:
            check_evolution(before, contract, topic=topic)
        if before != contract:
            self._put(topic, contract.to_json().encode())

    def remove(self, topic: str) -> None:
        """Forget a topic's contract, if it has one."""
        if self.get(topic) is not None:
            self._put(topic, None)

    def _put(self, topic: str, text: bytes | None) -> None:
        admin = self._admin()
        try:
            admin.describe(CONTRACTS)
        except TopicNotFoundError:
            self._create(admin)
        done = threading.Event()
        failures: list[Exception] = []

        def on_done(error: Exception | None) -> None:
            if error is not None:
                failures.append(error)
            done.set()

        self._producer().send(Outgoing(CONTRACTS, topic.encode(), text, [_HEADER]), on_done)
        if not done.wait(_PATIENCE) or failures:
            cause = failures[0] if failures else None
            raise DeliveryError(
                f"the contract of topic {topic!r} was not kept: {cause or f'no answer within {_PATIENCE:g} s'}",
                topic=CONTRACTS,
                stream_id=topic,
                rows=1,
            ) from cause

    def _create(self, admin: Admin) -> None:
        try:
            admin.create(CONTRACTS, partitions=1, replication=None, settings={"cleanup.policy": "compact"})
        except QuixframesError:
            if CONTRACTS not in admin.topics():  # else somebody made it meanwhile
                raise

    def _read(self) -> None:
        """Read what was written since the last time."""
        try:
            end = self._admin().ends(CONTRACTS)[0]
        except TopicNotFoundError:
            self._texts, self._position = {}, 0
            return
        except AccessDeniedError as exc:
            log.warning("contracts may not be read, and none is applied: %s", exc)
            return
        if end < self._position:  # the topic was made anew
            self._texts, self._position = {}, 0
        if end == self._position:
            return
        consumer = self._consumer()
        try:
            consumer.assign({Partition(CONTRACTS, 0): self._begin(self._position)})
            deadline = time.monotonic() + _PATIENCE
            while self._position < end:
                polled = consumer.poll(_POLL)
                for record in polled.records:
                    topic = str(record.key or b"", errors="replace")
                    if record.value is None:
                        self._texts.pop(topic, None)
                    else:
                        self._texts[topic] = record.value
                self._position = max(self._position, consumer.position(Partition(CONTRACTS, 0)) or 0)
                if time.monotonic() > deadline:
                    raise BrokerUnavailableError(
                        f"contracts could not be read within {_PATIENCE:g} s: {consumer.trouble() or 'no reason known'}"
                    )
        finally:
            consumer.close(5.0)

    def _begin(self, position: int) -> int:
        return max(position, self._admin().beginnings(CONTRACTS)[0])
