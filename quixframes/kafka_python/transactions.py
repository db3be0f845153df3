"""The producer of transactions: the sender of ``producer``, whose lanes share one epoch of one transactional ID.

- A lane's first batch in a transaction waits until the cluster has heard that its partition is part of it. Sequence
  numbers go on from one transaction to the next.
- One message that fails ends the transaction: what is queued or under way fails with it, and so does what is sent until
  ``abort_transaction``.
- Whatever was not committed for certain is given up by asking for a new epoch, under which all numbers start anew. It
  makes the cluster refuse everything of the old epoch that is still on its way, so nothing that is in doubt needs to be
  waited for.
- An epoch that the cluster refuses says that another producer has the ID, or that the cluster gave the transaction up,
  which was open for too long. Which of the two, only asking for the next epoch can tell.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import kafka.errors as theirs
from kafka import TopicPartition

from quixframes.errors import (
    BrokerError,
    BrokerUnavailableError,
    ClosedError,
    FencedError,
    GroupMovedOnError,
    QuixframesError,
    TransactionError,
)
from quixframes.kafka import Offset, Partition
from quixframes.kafka_python.coordinators import FENCED, Attempt, TransactionRequests
from quixframes.kafka_python.failures import translated
from quixframes.kafka_python.lanes import Batch, Identity, Lane, Message
from quixframes.kafka_python.membership import Membership
from quixframes.kafka_python.producer import PythonProducer
from quixframes.refusals import too_long_a_transaction
from quixframes.settings import Connection, WriterSettings, seconds

__all__ = ["PythonTransactionalProducer"]

_REJOINING = 5.0  # seconds that a member may take to learn of its group's new generation
_REJOINING_LOOK = 0.02
_SLACK = 1.0  # seconds that the IO thread has to notice that an attempt's time is over


class PythonTransactionalProducer(PythonProducer):
    """Implements :class:`quixframes.kafka.TransactionalProducer`."""

    def __init__(self, connection: Connection, settings: WriterSettings, *, transactional_id: str) -> None:
        super().__init__(connection, settings)
        self._asked = replace(self._asked, transactional_id=transactional_id)
        self._transactional_id = transactional_id
        self._what = f"transactional ID {transactional_id!r}"
        self._requests = TransactionRequests(
            self._client, transactional_id, seconds(settings.transaction_timeout, name="transaction_timeout")
        )
        self._transaction_timeout = settings.transaction_timeout
        # Guarded by the lock:
        self._failure: QuixframesError | None = None  # why the transaction, or everything, is over
        self._held = False  # sends wait
        # The IO thread's:
        self._added: set[TopicPartition] = set()
        self._wanted: set[TopicPartition] = set()
        self._adding: Attempt | None = None
        self._began = False  # the cluster may have heard of this transaction
        self._fenced: FencedError | None = None  # for good
        self._attempt = Attempt(0.0)  # the latest to end a transaction
        try:
            self._identity = self._first(seconds(connection.connect_timeout))
        except BaseException:
            self._client.shut(1.0)
            raise

    def _first(self, patience: float) -> Identity:
        attempt = Attempt(time.monotonic() + patience)
        doing = f"{self._what} cannot be used"
        try:
            found: Identity = self._client.run(patience + _SLACK, doing, self._requests.identity, None, attempt)
        except theirs.InvalidTransactionTimeoutError as exc:
            raise too_long_a_transaction(self._transaction_timeout) from exc
        except theirs.KafkaError as exc:
            raise translated(exc, doing, self._asked) from exc
        return found

    def commit_transaction(
        self, offsets: Mapping[Partition, Offset], membership: Callable[[], object], timeout: float
    ) -> None:
        """Wait until everything sent is acknowledged, commit ``offsets`` with it, and end the transaction."""
        attempt = Attempt(time.monotonic() + timeout)
        with self._holding():
            self._attempt = attempt
            try:
                member = self._check_owned(offsets, membership()) if offsets else None
                # The offsets go while the messages are under way.
                offered = self._net.call_soon_with_future(self._offer, offsets, member, membership, attempt)
                if not self.flush(timeout):
                    raise TransactionError(f"{self._what}: not everything was acknowledged within {timeout:g} s")
                if self._failure is not None:
                    self._look_whether_fenced(attempt)
                    raise _as_told(self._failure)
                self._run(self._commit, offered, attempt)
            except BaseException as exc:
                attempt.called_off = True
                self._fail(exc if isinstance(exc, QuixframesError) else TransactionError(f"{self._what}: {exc!r}"))
                raise

    def abort_transaction(self, timeout: float) -> None:
        """End the transaction without effect, whatever state it is in; the next ``send`` begins another."""
        attempt = Attempt(time.monotonic() + timeout)
        with self._holding():
            self._fail(TransactionError(f"{self._what}: the transaction was aborted"))
            if self._fenced is not None:
                raise self._fenced
            try:
                self._run(self._start_over, attempt)
            except FencedError:
                raise
            except BrokerError as exc:
                attempt.called_off = True
                raise BrokerUnavailableError(f"{exc}; the cluster aborts it after {self._transaction_timeout}") from exc
            with self._lock:
                self._failure = None

    def close(self, timeout: float) -> None:
        """Abort a transaction that is open; end. What was sent and not committed does not count."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        try:
            if not self._ended and self._fenced is None:
                self._fail(ClosedError("the client was closed before the transaction was committed"))
                if self._began:
                    attempt = Attempt(time.monotonic() + timeout / 2)
                    with contextlib.suppress(BrokerError):  # the cluster does it by itself, a while later
                        self._run(self._give_up, attempt)
        finally:
            super().close(max(0.1, deadline - time.monotonic()))

    # On the caller's threads.

    @contextmanager
    def _holding(self) -> Iterator[None]:
        with self._lock:
            if self._ended:
                raise ClosedError("the client is closed")
            self._held = True
        try:
            yield
        finally:
            with self._lock:
                self._held = False
                self._lock.notify_all()

    def _check_owned(self, offsets: Mapping[Partition, Offset], membership: object) -> Membership:
        if not isinstance(membership, Membership):
            raise TypeError(f"membership={membership!r} has to come from the Consumer.membership of the same transport")
        gone = [str(partition) for partition in offsets if partition not in membership.owned]
        if gone:
            raise GroupMovedOnError(f"group {membership.group!r} moved on: {', '.join(gone)} went or came anew")
        return membership

    def _look_whether_fenced(self, attempt: Attempt) -> None:
        """Raise FencedError if that is why the transaction failed."""
        if self._fenced is not None:
            raise self._fenced
        if isinstance(self._failure, _EpochError):
            with contextlib.suppress(TransactionError):
                self._run(self._give_up, attempt)

    def _run(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a coroutine on the IO thread, whose last argument is its attempt; its errors become ours."""
        try:
            self._client.run(args[-1].left_ms() / 1000 + _SLACK, self._what, function, *args)
        except (GroupMovedOnError, FencedError):
            raise
        except (BrokerError, theirs.KafkaError) as exc:
            raise _as_told(translated(exc, self._what, self._asked)) from exc

    def _refusal(self) -> Exception | None:
        while self._held and not self._closed:
            self._lock.wait()
        super()._refusal()
        return self._failure and TransactionError(f"the transaction has failed already: {self._failure}")

    def _refuse(self, error: BrokerError, on_done: Callable[[Exception | None], None]) -> None:
        self._fail(error)
        on_done(error)

    # On any thread.

    def _fail(self, error: QuixframesError) -> None:
        """The transaction is over: what is on its way fails."""
        with self._lock:
            if self._failure is None:
                self._failure = error
        with contextlib.suppress(Exception):  # the client was closed meanwhile, which has told everybody
            self._net.call_soon_threadsafe(self._abandon_all)

    def _finish(self, messages: Iterable[Message], error: Exception | None) -> None:
        if error is not None and self._failure is None:
            self._fail(error if isinstance(error, QuixframesError) else TransactionError(str(error)))
        super()._finish(messages, error)

    # On the IO thread.

    def _abandon_all(self) -> None:
        with self._lock:
            failure = self._failure
            lanes = [lane for lane in self._lanes.values() if lane.batch is not None or lane.queue]
        if failure is not None:  # else it was aborted meanwhile, and these are the next transaction's
            for lane in lanes:
                self._abandon(lane, TransactionError(f"{self._what}: the transaction has failed: {failure}"))

    def _identify(self, lane: Lane) -> bool:
        """Whether the lane may send: whether its partition is part of the transaction."""
        if self._failure is not None:
            return False
        if lane.place in self._added:
            return True
        self._wanted.add(lane.place)
        if self._adding is None:
            self._adding = Attempt(time.monotonic() + self._timeout)
            self._net.call_soon(self._add)
        return False

    def _forget(self, lane: Lane) -> None:
        """Nothing: whatever is in doubt in a transaction is given up with it."""

    def _failed(self, lane: Lane, batch: Batch, exc: Exception) -> None:
        if isinstance(exc, _NUMBERS):
            lane.batch = None
            self._finish(batch.messages, self._refused(exc, lane.place.topic))
        else:
            super()._failed(lane, batch, exc)

    def _refused(self, exc: Exception, topic: str = "") -> BrokerError:
        if isinstance(exc, FENCED):
            either = f"it was open for longer than {self._transaction_timeout}, or another producer has come"
            return _EpochError(f"{self._what}: the cluster has ended the transaction: {either}")
        return translated(exc, f"{self._what}: the transaction failed", replace(self._asked, topic=topic))

    async def _add(self) -> None:
        """Make the partitions that are to be written part of the transaction."""
        attempt = self._adding
        assert attempt is not None
        assert self._identity is not None
        identity = self._identity
        places: set[TopicPartition] = set()
        try:
            while self._wanted and not attempt.called_off:
                places, self._wanted = self._wanted, set()
                self._began = True
                await self._requests.add(identity, places, attempt)
                if attempt.called_off:
                    return
                for place in places:
                    lane = self._lanes[place]
                    if lane.identity != identity:
                        lane.identity, lane.sequence = identity, 0
                    self._added.add(place)
        except Exception as exc:
            if not attempt.called_off:
                self._fail(self._refused(exc, ", ".join({place.topic for place in places})))
        finally:
            if self._adding is attempt:
                self._adding = None
            self._soon()

    async def _offer(
        self,
        offsets: Mapping[Partition, Offset],
        member: Membership | None,
        membership: Callable[[], object],
        attempt: Attempt,
    ) -> None:
        if member is None:
            return
        assert self._identity is not None
        self._began = True
        patience = time.monotonic() + _REJOINING
        while True:
            try:
                await self._requests.commit_offsets(self._identity, offsets, member, attempt)
                return
            except theirs.IllegalGenerationError:
                # The group has shared itself out anew, and this member may not have heard yet that it keeps what it
                # has: most rebalances of a cooperative group are of this kind.
                if time.monotonic() > patience:
                    raise
            await self._net.sleep(_REJOINING_LOOK)
            member = self._check_owned(offsets, membership())

    async def _commit(self, offered: Any, attempt: Attempt) -> None:
        assert self._identity is not None
        try:
            await offered
            if self._began:
                await self._requests.end(self._identity, attempt, commit=True)
        except FENCED as exc:
            await self._give_up(attempt)
            raise self._refused(exc) from exc
        self._over()

    async def _start_over(self, attempt: Attempt) -> None:
        self._abandon_all()
        await self._give_up(attempt)

    async def _give_up(self, attempt: Attempt) -> None:
        """End the transaction without effect, and get a new epoch.

        Raises:
            FencedError: another producer has the transactional ID.
        """
        if self._attempt is not attempt:
            self._attempt.called_off = True
            self._attempt = attempt
        if self._adding is not None:
            self._adding.called_off = True
            self._adding = None
        self._wanted.clear()
        if self._began:
            assert self._identity is not None
            last = self._identity
            # Where the cluster or another producer ended it, or it never began, that is as good; what counts is who may
            # have the next epoch. The cluster gives it to who had the last one, even where it gave that one up itself.
            with contextlib.suppress(*FENCED, theirs.InvalidTxnStateError, theirs.InvalidProducerIdMappingError):
                await self._requests.end(last, attempt, commit=False)
            try:
                self._identity = await self._requests.identity(last, attempt)
            except FENCED as exc:
                self._fenced = FencedError(f"{self._what} was taken over by another producer: this one must not go on")
                raise self._fenced from exc
        self._over()

    def _over(self) -> None:
        self._added.clear()
        self._began = False


class _EpochError(TransactionError):
    """The cluster refused the epoch, for one of two reasons."""


_NUMBERS = (*FENCED, theirs.OutOfOrderSequenceNumberError, theirs.UnknownProducerIdError)


def _as_told(failure: QuixframesError) -> BrokerError:
    """What a commit raises where the transaction failed for this reason."""
    if isinstance(failure, (GroupMovedOnError, FencedError)):
        return failure
    error = TransactionError(str(failure))
    error.__cause__ = failure
    return error
