"""The consumer's membership: joins, and what comes and goes with them.

kafka-python joins while its owner polls, and asks its listener while the owner waits. A partition that goes is kept
until the owner has finished with it, so here a join goes on by itself on the IO thread, and the owner looks in on it:
``poll`` returns in its time, and the owner can commit meanwhile. While a join goes on, nothing is fetched.

kafka-python is told so by wrapping functions of one consumer's coordinator:

- ``ensure_active_group``, by which every poll would join: it looks in on the join that goes on by itself.
- ``need_rejoin``: while a join goes on, there is need. (Defect D: a join that outlives one poll is forgotten when the
  reason for it passes meanwhile, and with it the membership: nothing is ever read again.)
- ``_do_join_and_sync_async``: not after the owner has closed the reader.
- ``_on_join_complete_async``: a member that was out of reach for longer than its session comes back under a new name.
  If it was joining when it learned that, kafka-python takes what it is given for what it had all along; but others had
  it meanwhile, and to go on from the old position would set their commits back. So it is lost first.
- ``_send_offset_commit_request``: nothing is committed that was lost without the owner's knowledge.
- ``_send_heartbeat_request``: a static member whose name another has taken hears of it with its heartbeat, and
  kafka-python stops the heartbeats and reads on in silence (defect G).

The lock is that of kafka-python's assignment. It guards what both threads touch.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any

import kafka.errors as theirs
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.structs import OffsetAndMetadata

from quixframes.errors import FencedError, GroupMovedOnError
from quixframes.kafka import Change, Offset, Partition, Rebalance, Revoking
from quixframes.kafka_python.holds import Holds
from quixframes.kafka_python.membership import Membership
from quixframes.kafka_python.network import Client
from quixframes.logs import Place

__all__ = ["Member", "to_theirs"]

_log = logging.LoggerAdapter(logging.getLogger(__name__), Place().extra)

_LAST_COMMIT_TIMEOUT = 3.0  # seconds for the commit made while partitions are handed over: the whole group waits for it
_LOOK = 0.01  # seconds between two looks at whether the owner has finished with what goes


class Member(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """One consumer as a member of its group. ``revoke_timeout`` is in seconds."""

    def __init__(self, consumer: KafkaConsumer, holds: Holds, revoking: Revoking, revoke_timeout: float) -> None:
        self._consumer = consumer
        self._client: Client = consumer._client
        self._coordinator = consumer._coordinator
        self._holds = holds
        self._revoking = revoking
        self._revoke_timeout = revoke_timeout
        self._changed = threading.Condition(consumer._subscription._lock)
        self._join: Any = None  # the one that goes on
        self._untold: list[Rebalance] = []
        self._telling: frozenset[Partition] = frozenset()  # what the last ``told`` was about
        self._ours: set[Partition] = set()  # those that came, whether or not the owner was told, and have not gone
        self._going: frozenset[Partition] = frozenset()
        self._known = (-1, "")  # the generation and the member's name in it, when the latest join was complete
        self._fenced: BaseException | None = None
        self._closing = math.inf  # the moment (monotonic) at which nothing is waited for any more
        self._wrap()

    # On the owner's thread.

    def told(self) -> list[Rebalance]:
        """What happened since this was asked last."""
        with self._changed:
            untold, self._untold = self._untold, []
            self._telling = frozenset(partition for news in untold for partition in news.partitions)
            return untold

    @property
    def has_news(self) -> bool:
        """Whether ``told`` has something to tell."""
        return bool(self._untold)

    def join(self, timeout: float) -> bool:
        """Join or rejoin where there is reason to, for at most so many seconds, or until there are news; whether the
        membership is settled."""
        if self._fenced is not None:
            raise FencedError(
                f"another instance has joined group {self._consumer.config['group_id']!r} as "
                f"{self._consumer.config['group_instance_id']!r}: this one must not go on"
            ) from self._fenced
        return self._look_in(timeout, lambda: bool(self._untold))

    def settle(self, timeout: float) -> None:
        """See a rebalance through, of which the next ``join`` and ``told`` will tell, or until it waits for the owner.

        In a cooperative one most partitions stay where they are: a commit must not fail because of it.
        """
        with contextlib.suppress(theirs.KafkaError):  # the next ``join`` meets it again
            self._look_in(timeout, lambda: bool(self._going))

    def owned(self) -> frozenset[Partition]:
        """The partitions that are this member's, and of which nothing has changed that the owner does not know.

        One that came anew may have been somebody else's in between, so the owner's position counts no more.
        """
        with self._changed:
            return frozenset(self._ours) - {partition for news in self._untold for partition in news.partitions}

    def membership(self) -> Membership:
        """The latest that is certain. It may be asked for while the owner, on another thread, has not acted yet upon
        what it was told last."""
        with self._changed:
            group, instance = self._consumer.config["group_id"], self._consumer.config["group_instance_id"]
            return Membership(group, *self._known, instance, self.owned() - self._telling)

    def close(self, deadline: float) -> None:
        """Join no more, and wait for nothing after this moment (monotonic)."""
        self._closing = deadline

    def _look_in(self, timeout: float | None, enough: Callable[[], bool]) -> bool:
        coordinator = self._coordinator
        coordinator.heartbeat.poll()  # the owner is there
        with self._changed:
            if self._join is None:
                # A join that failed has to be made up for; and, as a watchdog, whatever else may end the heartbeats.
                if coordinator.rejoining or (self._ours and coordinator.heartbeat.session_timeout_expired()):
                    coordinator.request_rejoin()
                if not coordinator.need_rejoin():
                    return True
                self._join = self._client._net.call_soon_with_future(coordinator.ensure_active_group_async)
                self._join.add_both(lambda _: self._notify())
            join = self._join
            self._changed.wait_for(lambda: join.is_done or enough(), timeout)
            if not join.is_done:
                return False
            self._join = None
        if join.exception is not None:
            raise join.exception
        return True

    # On the IO thread.

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Hold the new partitions, with a made-up position that keeps kafka-python from looking for one itself."""
        with self._changed:
            for partition in map(Partition._make, assigned):
                self._holds.hold(partition)
                self._consumer._subscription.seek(TopicPartition(*partition), 0)
            self._tell(Change.Assigned, frozenset(map(Partition._make, assigned)))

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Ask the owner what is to be committed, commit it, then let go."""
        partitions = frozenset(map(Partition._make, revoked))
        while partitions & self._going:  # a close comes upon a rebalance
            await self._client._net.sleep(_LOOK)
        partitions &= self._ours
        if not partitions:
            return
        with self._changed:
            self._going |= partitions
            self._changed.notify_all()
        try:
            offsets = await self._answer(self._revoking(partitions))
            if offsets:
                left = min(_LAST_COMMIT_TIMEOUT, max(0.5, self._closing - time.monotonic()))
                future = self._consumer.commit_async(to_theirs(offsets), callback=lambda *_: None)
                await self._client.manager.wait_for(future, left * 1000)
        except Exception as exc:
            # Were it raised, kafka-python would end the reading over it.
            names = ", ".join(map(str, sorted(partitions)))
            _log.warning("what was finished of %s was not committed, and will be delivered again: %s", names, exc)
        finally:
            with self._changed:
                self._going -= partitions
                self._tell(Change.Revoked, partitions)

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """They are somebody else's already: there is nothing to commit."""
        with self._changed:
            self._tell(Change.Lost, frozenset(map(Partition._make, lost)))

    async def _answer(self, future: Future[Mapping[Partition, Offset]]) -> Mapping[Partition, Offset]:
        deadline = time.monotonic() + self._revoke_timeout
        while not future.done():
            left = min(deadline, self._closing) - time.monotonic()
            if left <= 0 and future.cancel():
                raise TimeoutError(f"it was not finished within {self._revoke_timeout:g} s, or before the end")
            await self._client._net.sleep(max(0.0, min(left, _LOOK)))
        return future.result()

    def _tell(self, change: Change, partitions: frozenset[Partition]) -> None:
        if change is Change.Assigned:
            self._ours |= partitions
        else:
            partitions &= self._ours
            self._ours -= partitions
            self._holds.forget(partitions)
        if partitions or change is Change.Assigned:  # nothing to do is news as well
            self._untold.append(Rebalance(change, partitions))
        self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wrap(self) -> None:
        coordinator = self._coordinator
        need_rejoin, complete = coordinator.need_rejoin, coordinator._on_join_complete_async
        join, commit = coordinator._do_join_and_sync_async, coordinator._send_offset_commit_request
        heartbeat = coordinator._send_heartbeat_request

        async def join_unless_closing() -> Any:
            if self._closing < math.inf:
                raise theirs.IllegalStateError("the reader is being closed")
            return await join()

        async def completed(generation: int, member_id: str, protocol: str, assignment: bytes) -> None:
            with self._changed:
                if self._known[1] not in ("", member_id):
                    self._tell(Change.Lost, frozenset(self._ours))
                    self._consumer._subscription.assign_from_subscribed([])
                self._known = (generation, member_id)
            await complete(generation, member_id, protocol, assignment)
            with self._changed:
                last = self._untold[-1].change if self._untold else None
                if not self._ours and last is not Change.Assigned:
                    self._tell(Change.Assigned, frozenset())  # a cooperative join that brings nothing asks no listener

        async def commit_what_is_ours(offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> Any:
            # Here, where the generation is looked up: a join may come to its end at any moment.
            if not self.owned().issuperset(map(Partition._make, offsets)):
                raise GroupMovedOnError("a partition went, or went and came back: the next poll says how")
            return await commit(offsets)

        async def heed_fencing() -> Any:
            try:
                return await heartbeat()
            except theirs.FencedInstanceIdError as exc:
                self._fenced = exc
                raise

        def look_in(timeout_ms: float | None = None) -> bool:
            return self._look_in(None if timeout_ms is None else timeout_ms / 1000, lambda: False)

        coordinator.need_rejoin = lambda: self._join is not None or need_rejoin()
        coordinator.ensure_active_group = look_in
        coordinator._do_join_and_sync_async = join_unless_closing
        coordinator._on_join_complete_async = completed
        coordinator._send_offset_commit_request = commit_what_is_ours
        coordinator._send_heartbeat_request = heed_fencing


def to_theirs(offsets: Mapping[Partition, Offset]) -> dict[TopicPartition, OffsetAndMetadata]:
    """The offsets as kafka-python has them."""
    return {TopicPartition(*part): OffsetAndMetadata(at.offset, at.metadata, -1) for part, at in offsets.items()}
