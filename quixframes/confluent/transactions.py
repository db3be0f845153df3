"""The producer of transactions: librdkafka's, with one way to begin, to end, and to be told what became of it.

librdkafka says of each failure whether the transaction has to be aborted, whether the same call may be made again, or
whether the client has come to its end ("fatal"). In the last case, and where it would go on in a wrong state, another
client takes the transactional ID over; the cluster then aborts what the first had begun. Only where somebody else has
taken it over, that is not done.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from quixframes.confluent.failures import FENCED, MOVED, error_in, is_passing, translated
from quixframes.confluent.opening import within
from quixframes.confluent.producer import ConfluentProducer, Sent
from quixframes.confluent.records import Membership
from quixframes.errors import (
    AccessDeniedError,
    BrokerError,
    BrokerUnavailableError,
    ClosedError,
    FencedError,
    GroupMovedOnError,
    QuixframesError,
    TransactionError,
)
from quixframes.kafka import Offset, Partition
from quixframes.logs import Place
from quixframes.refusals import too_long_a_transaction
from quixframes.settings import Connection, WriterSettings, seconds

__all__ = ["ConfluentTransactional"]

_log = logging.LoggerAdapter(logging.getLogger(__name__), Place().extra)

_PAUSE = 0.05  # seconds between two tries of what fails at once
_TRY = 5.0  # seconds that librdkafka is given at a time: called again, it goes on where it was
_SLACK = 6.0  # ... and after how many more it counts as stuck


class ConfluentTransactional(ConfluentProducer):
    """Implements :class:`quixframes.kafka.TransactionalProducer`."""

    def __init__(self, connection: Connection, settings: WriterSettings, transactional_id: str) -> None:
        self._id = transactional_id
        self._begun = False
        self._since = 0.0  # when the transaction was begun
        self._dead = False
        self._astray = False  # whether librdkafka's numbers for its next messages are wrong
        self._stuck = False  # whether a call of librdkafka has not come back
        self._failed: Exception | None = None
        self._ending = False
        self._fenced: FencedError | None = None
        super().__init__(connection, settings)

    def _settings_of(self, settings: WriterSettings) -> dict[str, Any]:
        self._transaction_timeout = settings.transaction_timeout
        ours = super()._settings_of(settings)
        longest = round(seconds(settings.transaction_timeout) * 1000)
        ours["transactional.id"] = self._id
        ours["transaction.timeout.ms"] = longest
        for name in ("message.timeout.ms", "request.timeout.ms", "socket.timeout.ms"):
            ours[name] = min(ours[name], longest)  # librdkafka wants none of them to be longer
        return ours

    def _prepare(self, deadline: float) -> None:
        """Take the ID over."""
        doing = f"transactional ID {self._id!r} cannot be used"
        try:
            self._repeated(doing, deadline, lambda left: self._client.init_transactions(left))
        except KafkaException as exc:
            error = error_in(exc)
            if error is not None and error.code() == KafkaError.INVALID_TRANSACTION_TIMEOUT:
                raise too_long_a_transaction(self._transaction_timeout) from exc
            raise translated(exc, doing, replace(self._asked, transactional_id=self._id)) from exc

    # Sending

    def _refusal(self) -> QuixframesError | None:
        self._lock.wait_for(lambda: not self._ending or self._closed)
        if self._closed:
            raise ClosedError("the client is closed")
        if self._fenced is not None:
            return self._fenced
        if self._failed is not None:
            return TransactionError(f"the transaction failed before this: {self._failed}")
        return None

    def _begin(self) -> None:
        if not self._begun:
            self._since = time.monotonic()
            self._client.begin_transaction()
            self._begun = True

    def _refuse(self, error: QuixframesError, on_done: Callable[[Exception | None], None]) -> None:
        with self._lock:
            self._failed = self._failed or error
        super()._refuse(error, on_done)

    def _failure(self, sent: Sent, error: KafkaError) -> Exception:
        # What a broker has refused it has not numbered. librdkafka goes on with the number after it, and the next
        # transaction would fail for that.
        self._astray = self._astray or error.code() > 0
        if error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT) and not self._closed:
            return self._aborted(sent)
        return super()._failure(sent, error)

    def _aborted(self, sent: Sent) -> TransactionError:
        return TransactionError(f"topic {sent.topic!r}: the transaction was aborted before this was acknowledged")

    def _finish(self, sent: Sent, error: Exception | None) -> None:
        if error is not None:
            with self._lock:
                self._failed = self._failed or error
        super()._finish(sent, error)

    def _gave_up(self, client: Any) -> bool:
        """Nothing is begun anew before the transaction is aborted."""
        fatal = self._opening.fatal
        if client is self._client and fatal is not None and not self._dead:
            self._dead = True
            failure = self._failure_of(KafkaException(fatal))
            if isinstance(failure, FencedError):
                self._fenced = failure
            self._failed = self._failed or failure
            threading.Thread(target=self._bury, args=(client,), name="quixframes-confluent-end", daemon=True).start()
        return False

    # Ends

    def commit_transaction(
        self, offsets: Mapping[Partition, Offset], membership: Callable[[], object], timeout: float
    ) -> None:
        """Wait until everything sent is acknowledged, commit ``offsets`` with it, and end the transaction."""
        deadline = time.monotonic() + timeout
        with self._one_end():
            if not self.flush(timeout):
                self._check()
                raise self._note(TransactionError(f"not everything was acknowledged within {timeout:g} s"))
            self._check()
            with self._lock:
                if not self._begun and not offsets:
                    return
            try:
                with self._lock:
                    self._begin()
                if offsets:
                    theirs = [TopicPartition(*at, to.offset, metadata=to.metadata) for at, to in offsets.items()]
                    self._repeated(
                        "the offsets", deadline,
                        lambda left: self._client.send_offsets_to_transaction(
                            theirs, _of_member(membership(), offsets), left
                        ),
                    )  # fmt: skip
                self._repeated("the end", deadline, lambda left: self._client.commit_transaction(left))
            except KafkaException as exc:
                raise self._note(self._failure_of(exc)) from exc
            except GroupMovedOnError as exc:
                self._note(exc)
                raise
            except BrokerUnavailableError as exc:
                raise self._note(TransactionError(f"the transaction was not committed: {exc}")) from exc
            with self._lock:
                self._begun = False

    def abort_transaction(self, timeout: float) -> None:
        """End the transaction without effect, whatever state it is in; the next ``send`` begins another."""
        deadline = time.monotonic() + timeout
        with self._one_end():
            if self._fenced is not None:
                raise self._fenced
            # First, so that none of it begins the transaction anew.
            for sent in self._take_unsent():
                self._finish(sent, self._aborted(sent))
            try:
                if self._begun and self._opening.fatal is None and not self._stuck:
                    self._repeated("it", deadline, lambda left: self._client.abort_transaction(left))
            except KafkaException as exc:
                failure = self._failure_of(exc)
                if isinstance(failure, FencedError):
                    raise self._note(failure) from exc
                self._start_anew(deadline)
            except BrokerUnavailableError:
                # Nothing of it is to count any more, so whoever waits for it need not wait for a broker.
                with contextlib.suppress(KafkaException):
                    self._client.purge(in_queue=True, in_flight=True, blocking=False)
                raise
            if self._opening.fatal is not None or self._astray or self._stuck:
                self._start_anew(deadline)
            if not self.flush(max(0.1, deadline - time.monotonic())):
                raise BrokerUnavailableError(f"the transaction was not aborted within {timeout:g} s")
            with self._lock:
                self._begun = False
                self._failed = None

    def close(self, timeout: float) -> None:
        """Abort a transaction that is open; end. What was sent and not committed does not count."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            open_yet = self._begun and not self._ended and not self._stuck
            open_yet = open_yet and self._fenced is None and self._opening.fatal is None
        try:
            if open_yet:  # else the cluster does it, a while later
                with contextlib.suppress(KafkaException, TimeoutError):
                    within(timeout / 2, lambda: self._client.abort_transaction(timeout / 2))
        finally:
            super().close(max(0.1, deadline - time.monotonic()))

    # Inside

    @contextlib.contextmanager
    def _one_end(self) -> Iterator[None]:
        """Nobody sends, and nobody else ends the transaction, meanwhile."""
        with self._lock:
            if self._closed:
                raise ClosedError("the client is closed")
            self._lock.wait_for(lambda: not self._ending)
            self._ending = True
        try:
            yield
        finally:
            with self._lock:
                self._ending = False
                self._lock.notify_all()

    def _check(self) -> None:
        """Raise what has failed of the transaction."""
        if self._fenced is not None:
            raise self._fenced
        if self._failed is not None:
            raise TransactionError(f"a message of the transaction failed: {self._failed}") from self._failed
        fatal = self._opening.fatal
        if fatal is not None:
            raise self._note(self._failure_of(KafkaException(fatal)))

    def _note(self, failure: BrokerError) -> BrokerError:
        """The failure, which keeps the transaction from being used: until it is aborted, or for good if fenced."""
        with self._lock:
            if isinstance(failure, FencedError):
                self._fenced = failure
            self._failed = self._failed or failure
        return failure

    def _failure_of(self, exc: KafkaException) -> BrokerError:
        error = error_in(exc)
        code = None if error is None else error.code()
        if code in FENCED and code != KafkaError.FENCED_INSTANCE_ID:
            # The cluster says the same where another producer has taken the ID over, and where it has given the
            # transaction up.
            if self._begun and time.monotonic() - self._since > seconds(self._transaction_timeout):
                return TransactionError(
                    f"the transaction was open for longer than transaction_timeout={self._transaction_timeout!r}, and "
                    f"the cluster has given it up ({error})"
                )
            return FencedError(
                f"another producer has taken transactional ID {self._id!r} over: the cluster accepts nothing more from "
                f"this one ({error})"
            )
        failure = translated(exc, "the transaction was not committed", replace(self._asked, transactional_id=self._id))
        if code == KafkaError.FENCED_INSTANCE_ID:  # the reader's name was taken; this producer can still abort
            return GroupMovedOnError(str(failure))
        if code in MOVED or isinstance(failure, (GroupMovedOnError, FencedError, AccessDeniedError)):
            return failure
        return TransactionError(str(failure))

    def _repeated(self, doing: str, deadline: float, call: Callable[[float], object]) -> None:
        """Call until it comes off, or fails for good."""
        while True:
            remaining = max(0.1, deadline - time.monotonic())
            left = min(_TRY, remaining)
            try:
                within(min(left + _SLACK, remaining + 1.0), partial(call, left))
                return
            except TimeoutError as exc:
                # While coordinators move, librdkafka may never come back from sending offsets, whatever time it has.
                self._stuck = True
                _log.warning("librdkafka has not come back from %s: another client takes its place", doing)
                raise BrokerUnavailableError(f"{doing} did not come off in time: librdkafka is stuck") from exc
            except KafkaException as exc:
                error = error_in(exc)
                if error is None or error.txn_requires_abort() or not (error.retriable() or is_passing(exc)):
                    raise
                if time.monotonic() >= deadline:
                    raise BrokerUnavailableError(f"{doing} did not come off in time: {exc}") from exc
            time.sleep(_PAUSE)

    def _start_anew(self, deadline: float) -> None:
        """Have another client take the ID over: the cluster aborts what this one had begun."""
        with self._lock:
            self._renew(self._client)
            self._dead = self._astray = self._stuck = False
        try:
            self._prepare(deadline)
        except BrokerUnavailableError as exc:
            raise BrokerUnavailableError(f"the transaction was not aborted in time: {exc}") from exc


def _of_member(membership: object, offsets: Iterable[Partition]) -> object:
    """What librdkafka takes of a member; raises where it does not own what it commits. The cluster asks for the
    generation alone."""
    if not isinstance(membership, Membership):
        raise TypeError(f"membership={membership!r} has to come from the Consumer.membership of the same transport")
    gone = [str(partition) for partition in offsets if partition not in membership.owned]
    if gone:
        raise GroupMovedOnError(f"group {membership.group!r} moved on: {', '.join(gone)} went or came anew")
    return membership.metadata
