"""Where contracts are kept: in Kafka itself, in a compacted topic of quixframes' own.

The topic ``__quixframes.contracts`` has one partition. A message's key is the name of a topic, its value that topic's
contract as JSON (see ``Contract.to_json``); no value means that it has none any more. The last message of a key counts.
Under keys that are no names of topics, it also has what is said about topics (``about:NAME``), and the rule for names.

What this module holds to:

- A topic's contract is looked up when the topic is opened; what was read before is not read again, unless the topic of
  contracts was made anew.
- A cluster on which nobody has set a contract has no such topic, and looking it up costs one question.
- Of two that set contracts at the same moment which do not go with each other, the first in Kafka's order stays, and
  the other hears of it: after writing one reads what others wrote before, and puts that back where it has to.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from quixframes.about import ABOUT, NAMING, NamingRule, TopicAbout
from quixframes.compacted import CompactedTopic
from quixframes.contracts import Contract, check_evolution
from quixframes.errors import (
    AccessDeniedError,
    ContractError,
)
from quixframes.kafka import Admin, Consumer, Producer, Record
from quixframes.logs import Place

__all__ = ["CONTRACTS", "ContractStore"]

log = logging.getLogger(__name__)

CONTRACTS = "__quixframes.contracts"
_HEADER = ("qf.contract", b"1")
_ABOUT_HEADER = ("qf.about", b"1")
_NAMING_HEADER = ("qf.naming", b"1")


class ContractStore:
    """The contracts of a cluster's topics. Safe in any thread.

    Args:
        admin, producer: give the client's own.
        consumer: makes a consumer of no group.
    """

    def __init__(
        self, admin: Callable[[], Admin], producer: Callable[[], Producer], consumer: Callable[[], Consumer]
    ) -> None:
        self._lock = threading.Lock()
        self._texts: dict[str, bytes] = {}
        self._log = CompactedTopic(CONTRACTS, self._apply, self._texts.clear, admin, producer, consumer)

    def get(self, topic: str) -> Contract | None:
        """The topic's contract; None where it has none.

        Raises:
            ContractError: it was written by a later quixframes.
        """
        with self._lock:
            try:
                self._log.read()
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
            self._log.read()
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

    def about(self, topic: str) -> TopicAbout | None:
        """What is said about a topic; None where nothing is."""
        text = self._look(ABOUT + topic, f"{topic}: what is said about it")
        return None if text is None else TopicAbout.from_json(text)

    def set_about(self, topic: str, about: TopicAbout | None) -> None:
        """Keep what is said about a topic; None: nothing."""
        if about is not None or self.about(topic) is not None:
            self._keep(ABOUT + topic, None if about is None else about.to_json().encode(), _ABOUT_HEADER)

    def naming(self) -> NamingRule | None:
        """The rule for the names of new topics; None where there is none."""
        text = self._look(NAMING, "the rule for names")
        return None if text is None else NamingRule.from_json(text)

    def set_naming(self, rule: NamingRule | None) -> None:
        """Keep the rule for names; None: there is none any more."""
        self._keep(NAMING, None if rule is None else rule.to_json().encode(), _NAMING_HEADER)

    def _look(self, key: str, what: str) -> bytes | None:
        with self._lock:
            try:
                self._log.read()
            except AccessDeniedError as exc:
                place = Place(self._log.name)
                log.warning("%s: %s may not be read, and is taken for none: %s", place, what, exc, extra=place.extra)
                return None
            return self._texts.get(key)

    def _keep(self, key: str, text: bytes | None, header: tuple[str, bytes]) -> None:
        with self._lock:
            self._log.read()
            if self._texts.get(key) != text:
                self._log.write(key.encode(), text, header)

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
        found, ours = self._log.write(topic.encode(), text, _HEADER)
        return [record.value for record in found[:ours]], ours == len(found) - 1

    def _apply(self, record: Record) -> None:
        topic = str(record.key or b"", errors="replace")
        if record.value is None:
            self._texts.pop(topic, None)
        else:
            self._texts[topic] = record.value
