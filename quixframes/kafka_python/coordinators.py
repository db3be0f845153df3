"""Requests to the brokers that coordinate transactions and groups, sent again until they are answered or out of time.

The versions are those of Kafka 2.5, on purpose. The newer ones (KIP-890, "transactions V2") spare two requests and bump
the epoch with each transaction, but may only be used once the whole cluster says so; brokers of any newer version do
without them. What V2 protects from, a message of an earlier transaction that arrives late, is met by asking for a new
epoch after each transaction that was not committed, and by the check that brokers since 3.6 make themselves.

Everything here runs on the IO thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import kafka.errors as theirs
from kafka import TopicPartition
from kafka.protocol.metadata import CoordinatorType, FindCoordinatorRequest
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)

from quixframes.kafka import Offset, Partition
from quixframes.kafka_python.failures import is_passing
from quixframes.kafka_python.lanes import Identity
from quixframes.kafka_python.membership import Membership
from quixframes.kafka_python.network import Client

__all__ = ["FENCED", "Attempt", "TransactionRequests"]

_QUICK = 0.001  # seconds before what waits for the end of the transaction before is tried again: that takes a few ms
_BACKOFF = 0.1  # ... at most, and before anything else is

FENCED = (theirs.ProducerFencedError, theirs.InvalidProducerEpochError)
"""The epoch is not the latest: another producer has the transactional ID, or the cluster gave the transaction up."""

# What may be otherwise a moment later, beside what ``is_passing`` knows. After a rebalance the answer says whether the
# member is still one.
_WAITS = (theirs.UnknownBrokerIdError, theirs.RebalanceInProgressError)
_ELSEWHERE = (theirs.NotCoordinatorError, theirs.CoordinatorNotAvailableError, theirs.UnknownBrokerIdError)


class Attempt:
    """Some requests that have to be through by a moment (monotonic), unless they are called off before."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self.called_off = False

    def left_ms(self) -> float:
        """The time that is left.

        Raises:
            KafkaTimeoutError: there is none.
        """
        left = self._deadline - time.monotonic()
        if self.called_off or left <= 0:
            raise theirs.KafkaTimeoutError("it was called off" if self.called_off else "no time was left")
        return left * 1000


class TransactionRequests:
    """The requests of one transactional producer.

    Each raises kafka-python's error for what the cluster refused, and its KafkaTimeoutError where the attempt's time
    was over first.
    """

    def __init__(self, client: Client, transactional_id: str, transaction_timeout: float) -> None:
        self._client = client
        self._id = transactional_id
        self._timeout_ms = round(transaction_timeout * 1000)
        self._nodes: dict[tuple[CoordinatorType, str], object] = {}

    async def identity(self, last: Identity | None, attempt: Attempt) -> Identity:
        """A new epoch. The cluster aborts what a producer with an older one left open.

        ``last`` is the epoch that this producer had: it is refused if another producer had one since.
        """
        producer_id, epoch = last or (-1, -1)

        def build() -> Any:
            return InitProducerIdRequest(
                transactional_id=self._id,
                transaction_timeout_ms=self._timeout_ms,
                producer_id=producer_id,
                producer_epoch=epoch,
                min_version=3,  # the first that takes the last epoch
                max_version=4,
            )

        answer = await self._ask(CoordinatorType.TRANSACTION, self._id, build, _code, attempt)
        return Identity(answer.producer_id, answer.producer_epoch)

    async def add(self, identity: Identity, places: Collection[TopicPartition], attempt: Attempt) -> None:
        """Make the partitions part of the transaction, which begins with the first of them."""
        topic_of = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic
        by_topic: dict[str, list[int]] = {}
        for place in places:
            by_topic.setdefault(place.topic, []).append(place.partition)

        def build() -> Any:
            return AddPartitionsToTxnRequest(
                v3_and_below_transactional_id=self._id,
                v3_and_below_producer_id=identity.producer_id,
                v3_and_below_producer_epoch=identity.epoch,
                v3_and_below_topics=[topic_of(name=name, partitions=numbers) for name, numbers in by_topic.items()],
                max_version=3,
            )

        def codes(answer: Any) -> Iterable[int]:
            for topic in answer.results_by_topic_v3_and_below:
                for partition in topic.results_by_partition:
                    yield partition.partition_error_code

        await self._ask(CoordinatorType.TRANSACTION, self._id, build, codes, attempt)

    async def commit_offsets(
        self, identity: Identity, offsets: Mapping[Partition, Offset], membership: Membership, attempt: Attempt
    ) -> None:
        """Make the offsets part of the transaction, if the member may still commit them."""

        def build() -> Any:
            return AddOffsetsToTxnRequest(
                transactional_id=self._id,
                producer_id=identity.producer_id,
                producer_epoch=identity.epoch,
                group_id=membership.group,
                max_version=3,
            )

        await self._ask(CoordinatorType.TRANSACTION, self._id, build, _code, attempt)

        topic_of = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
        partition_of = topic_of.TxnOffsetCommitRequestPartition
        by_topic: dict[str, list[Any]] = {}
        for partition, at in offsets.items():
            by_topic.setdefault(partition.topic, []).append(
                partition_of(
                    partition_index=partition.number,
                    committed_offset=at.offset,
                    committed_leader_epoch=-1,
                    committed_metadata=at.metadata,
                )
            )

        def build_commit() -> Any:
            return TxnOffsetCommitRequest(
                transactional_id=self._id,
                group_id=membership.group,
                producer_id=identity.producer_id,
                producer_epoch=identity.epoch,
                generation_id=membership.generation,
                member_id=membership.member_id,
                group_instance_id=membership.instance_id,
                topics=[topic_of(name=name, partitions=partitions) for name, partitions in by_topic.items()],
                min_version=3,  # the first that says which member commits
                max_version=3,
            )

        def codes(answer: Any) -> Iterable[int]:
            for topic in answer.topics:
                for partition in topic.partitions:
                    yield partition.error_code

        await self._ask(CoordinatorType.GROUP, membership.group, build_commit, codes, attempt)

    async def end(self, identity: Identity, attempt: Attempt, *, commit: bool) -> None:
        """End the transaction."""

        def build() -> Any:
            return EndTxnRequest(
                transactional_id=self._id,
                producer_id=identity.producer_id,
                producer_epoch=identity.epoch,
                committed=commit,
                max_version=3,
            )

        await self._ask(CoordinatorType.TRANSACTION, self._id, build, _code, attempt)

    async def _ask(
        self,
        kind: CoordinatorType,
        key: str,
        build: Callable[[], Any],
        codes: Callable[[Any], Iterable[int]],
        attempt: Attempt,
    ) -> Any:
        """The coordinator's answer, once it is free of errors that pass."""
        pause = _QUICK
        while True:
            try:
                node = await self._node(kind, key, attempt)
                future = self._client.manager.send(build(), node_id=node)
                answer = await self._client.manager.wait_for(future, attempt.left_ms())
                _check(codes(answer))
                return answer
            except theirs.KafkaError as exc:
                failure = exc
            if isinstance(failure, _ELSEWHERE) or not isinstance(failure, theirs.BrokerResponseError):
                self._nodes.pop((kind, key), None)  # another may have taken over
            if not is_passing(failure) and not isinstance(failure, _WAITS):
                raise failure
            try:
                left_ms = attempt.left_ms()
            except theirs.KafkaTimeoutError as exc:
                if isinstance(failure, theirs.RebalanceInProgressError):
                    raise failure from exc
                raise theirs.KafkaTimeoutError(f"{exc}, and the last answer was {type(failure).__name__}") from failure
            if not isinstance(failure, theirs.ConcurrentTransactionsError):
                pause = _BACKOFF
            await self._client._net.sleep(min(pause, left_ms / 1000))
            pause = min(1.5 * pause, _BACKOFF)

    async def _node(self, kind: CoordinatorType, key: str, attempt: Attempt) -> object:
        node = self._nodes.get((kind, key))
        if node is None:
            manager = self._client.manager
            request = FindCoordinatorRequest(key=key, key_type=kind.value, coordinator_keys=[key], max_version=4)
            answer = await manager.wait_for(manager.send(request), attempt.left_ms())
            found = answer.coordinators[0] if answer.coordinators else answer
            _check([found.error_code])
            # kafka-python gives coordinators a connection of their own, where no large batch holds them up.
            node = self._nodes[kind, key] = manager.cluster.add_coordinator(found, kind, key)
        return node


def _code(answer: Any) -> Iterable[int]:
    return (answer.error_code,)


def _check(codes: Iterable[int]) -> None:
    """Raise the error that matters most: one that lasts, before those that pass."""
    # "Not attempted" is said of the others where one partition was refused.
    failures = [theirs.for_code(code)() for code in codes if code and code != theirs.OperationNotAttemptedError.errno]
    lasting = [failure for failure in failures if not is_passing(failure)]
    for failure in lasting or failures:
        raise failure
