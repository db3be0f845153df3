"""The consumer as a member of its group: what comes and goes, and how what goes is handed over.

librdkafka calls back about rebalances while it is polled. A partition that is revoked is given back once ``revoking``
has said what to commit, which may be some polls later: its rebalance waits for that, and the membership does not.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from quixframes.confluent.commits import Commits
from quixframes.confluent.reading import Reading
from quixframes.confluent.records import Membership
from quixframes.confluent.shared import Shared
from quixframes.errors import BrokerUnavailableError
from quixframes.kafka import Change, Offset, Partition, Rebalance, Revoking
from quixframes.logs import Place as LogPlace

__all__ = ["Member"]

_log = logging.LoggerAdapter(logging.getLogger(__name__), LogPlace().extra)

_LAST_COMMIT_TIMEOUT = 3.0  # seconds for the commit made while partitions are handed over: the whole group waits for it
_TURN = 5.0  # seconds that a look at the membership may wait for its turn


@dataclass(slots=True)
class _Leaving:
    """Partitions that go to another member as soon as it is known what is to be committed for them."""

    partitions: frozenset[Partition]
    offsets: Future[Mapping[Partition, Offset]]
    until: float


class Member:
    """One consumer as a member of its group. ``revoke_timeout`` is in seconds.

    The callbacks come while librdkafka is polled, on the owner's thread; or, at the end, on another.
    """

    def __init__(self, shared: Shared, reading: Reading, commits: Commits, revoke_timeout: float) -> None:
        self._shared = shared
        self._reading = reading
        self._commits = commits
        self._revoke_timeout = revoke_timeout
        self._revoking: Revoking | None = None
        self._leaving: _Leaving | None = None
        self._rebalances: list[Rebalance] = []
        self._ended = False

    @property
    def joined(self) -> bool:
        """Whether it was ever asked to join."""
        return self._revoking is not None

    @property
    def has_news(self) -> bool:
        """Whether there are rebalances to tell of."""
        return bool(self._rebalances)

    def subscribe(self, topics: Collection[str], revoking: Revoking) -> None:
        """Join, or change the topics."""
        if self._revoking is None:
            self._revoking = revoking
        self._shared.client.subscribe(
            sorted(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def take_news(self) -> list[Rebalance]:
        """The rebalances since the last call."""
        rebalances, self._rebalances = self._rebalances, []
        return rebalances

    def untold(self) -> frozenset[Partition]:
        """Partitions that went or came, of which nobody was told yet."""
        return frozenset(partition for rebalance in list(self._rebalances) for partition in rebalance.partitions)

    def membership(self, group: str) -> Membership:
        """The member as it is now; on any thread.

        Raises:
            BrokerUnavailableError: the client is held up by a commit that nobody answers.
        """
        # The generation first: should the group move on in between, the cluster refuses it. The other way round, it
        # would take what has gone.
        try:
            with self._shared.taken(_TURN) as client:
                metadata = client.consumer_group_metadata()
        except TimeoutError as exc:
            raise BrokerUnavailableError(f"the membership in group {group!r} cannot be looked up: {exc}") from exc
        owned = frozenset(self._reading.places)
        return Membership(group, metadata, owned - self.untold())

    def let_go(self) -> None:
        """Give partitions back that are leaving, once it is known what to commit for them, or too late."""
        leaving = self._leaving
        if leaving is None or not (leaving.offsets.done() or time.monotonic() >= leaving.until):
            return
        self._leaving = None
        self._commit_last(leaving, _LAST_COMMIT_TIMEOUT)
        try:
            self._reading.give_back(leaving.partitions)
        finally:
            self._rebalances.append(Rebalance(Change.Revoked, leaving.partitions))

    def end(self, timeout: float) -> None:
        """Commit what is left to commit. Nothing is asked or told from here on."""
        self._ended = True
        deadline = time.monotonic() + timeout
        lasts = [] if self._leaving is None else [self._leaving]
        places = self._reading.places
        ours = frozenset(Partition(*partition) for partition, place in places.items() if not place.leaving)
        if self._revoking is not None and ours:
            until = time.monotonic() + min(self._revoke_timeout, timeout / 3)
            lasts.append(_Leaving(ours, self._asked(ours), until))
        for last in lasts:
            with contextlib.suppress(Exception):  # what went wrong is told below
                last.offsets.result(max(0.0, min(last.until, deadline) - time.monotonic()))
            self._commit_last(last, min(_LAST_COMMIT_TIMEOUT, timeout / 3))
        places.clear()

    # librdkafka's calls

    def _on_assign(self, _: Any, assigned: list[TopicPartition]) -> None:
        if self._ended:
            return
        partitions = _ours(assigned)
        self._reading.add(partitions)
        self._rebalances.append(Rebalance(Change.Assigned, partitions))

    def _on_revoke(self, consumer: Any, revoked: list[TopicPartition]) -> None:
        partitions = _ours(revoked)
        if self._ended or not partitions:
            return
        self._leaving = _Leaving(partitions, self._asked(partitions), time.monotonic() + self._revoke_timeout)
        self._reading.leave(partitions)
        _put_off(consumer)

    def _on_lost(self, _: Any, lost: list[TopicPartition]) -> None:
        if self._ended:
            return
        if self._leaving is not None:
            self._leaving.offsets.cancel()
            self._leaving = None
        partitions = _ours(lost)
        self._reading.give_back(partitions)
        if partitions:
            self._rebalances.append(Rebalance(Change.Lost, partitions))

    # Inside

    def _asked(self, partitions: frozenset[Partition]) -> Future[Mapping[Partition, Offset]]:
        """What is to be committed for partitions before they go."""
        try:
            assert self._revoking is not None
            return self._revoking(partitions)
        except Exception as exc:
            failed: Future[Mapping[Partition, Offset]] = Future()
            failed.set_exception(exc)
            return failed

    def _commit_last(self, leaving: _Leaving, timeout: float) -> None:
        try:
            if not leaving.offsets.done():
                leaving.offsets.cancel()
                raise BrokerUnavailableError("it was not finished in time")
            offsets = leaving.offsets.result()
            if offsets:
                self._commits.commit(offsets, timeout)
        except Exception as exc:
            named = ", ".join(map(str, sorted(leaving.partitions)))
            _log.warning("what was finished of %s was not committed, and will be delivered again: %s", named, exc)


def _ours(theirs: list[TopicPartition]) -> frozenset[Partition]:
    return frozenset(Partition(at.topic, at.partition) for at in theirs)


def _put_off(consumer: Any) -> None:
    """Keep confluent-kafka from giving the partitions back as soon as its callback has returned.

    It has to be kept from it always: a commit that is made while a callback runs is never answered.

    It does so unless the callback has called one of the functions that do; whether that came off it does not ask. So
    one is called that changes nothing. The rebalance goes on when ``let_go`` calls it for the partitions.
    """
    with contextlib.suppress(KafkaException):
        consumer.incremental_unassign([TopicPartition("no partition of ours", 0)])
