"""What a group has committed, and commits for it: each within its time, whatever the cluster does."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from quixframes.confluent.failures import error_in, is_passing, translated
from quixframes.confluent.opening import Opening, within
from quixframes.confluent.shared import Shared
from quixframes.errors import BrokerUnavailableError, CommitError, FencedError
from quixframes.kafka import Offset, Partition
from quixframes.refusals import Asked

__all__ = ["Commits"]

_NEXT_GENERATION = 1.0  # seconds that a commit may be told that its generation is over
_PAUSE = 0.05  # seconds between two tries of what fails at once


class Commits:
    """Commits of one member; ``group`` is for the texts."""

    def __init__(self, shared: Shared, opening: Opening, asked: Asked) -> None:
        self._shared = shared
        self._opening = opening
        self._asked = asked

    def commit(self, offsets: Mapping[Partition, Offset], timeout: float) -> None:
        """Commit, and return when the cluster has acknowledged.

        A rebalance in progress is seen through: in a cooperative one most partitions stay where they are. librdkafka
        takes part in it in the background, up to where partitions change hands, which it asks us for. A commit waits
        behind its request to join, and is answered with "illegal generation" when that has come off: the next one is of
        the new generation. A member that was given up hears something else.
        """
        doing = f"group {self._asked.group!r} could not commit"
        theirs = [TopicPartition(*at, offset.offset, offset.metadata) for at, offset in offsets.items()]
        deadline = time.monotonic() + timeout

        def attempt() -> list[TopicPartition]:
            # Should no broker answer, this goes on for longer than anybody waits for it, and has its turn as long.
            with self._shared.taken(deadline - time.monotonic()) as client:
                return list(client.commit(offsets=theirs, asynchronous=False))

        give_up = deadline
        while True:
            try:
                done = within(deadline - time.monotonic(), attempt)
                for at in done:
                    if at.error is not None:
                        raise KafkaException(at.error)
                return
            except TimeoutError as exc:
                raise CommitError(f"{doing}: no broker answered within {timeout:g} s{self._opening.because()}") from exc
            except Exception as exc:
                error = error_in(exc)
                code = None if error is None else error.code()
                if code == KafkaError.ILLEGAL_GENERATION:
                    give_up = min(give_up, time.monotonic() + _NEXT_GENERATION)
                elif code != KafkaError.REBALANCE_IN_PROGRESS and not is_passing(exc):
                    give_up = 0.0
                if time.monotonic() + _PAUSE >= give_up:
                    failure = translated(exc, doing, self._asked)
                    if not isinstance(failure, (CommitError, FencedError)):
                        failure = CommitError(str(failure))
                    raise failure from exc
            time.sleep(_PAUSE)

    def committed(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, Offset | None]:
        """What the group has committed for the partitions, with metadata; None where it never has."""
        doing = f"what group {self._asked.group!r} committed cannot be looked up"
        deadline = time.monotonic() + timeout
        wanted = [TopicPartition(*partition) for partition in partitions]
        while True:
            left = max(0.1, deadline - time.monotonic())
            try:
                with self._shared.taken(left) as client:
                    found = client.committed(wanted, timeout=max(0.1, deadline - time.monotonic()))
                for at in found:
                    if at.error is not None:
                        raise KafkaException(at.error)
                break
            except TimeoutError as exc:
                raise BrokerUnavailableError(f"{doing}: {exc}") from exc
            except Exception as exc:
                if not is_passing(exc) or time.monotonic() >= deadline:
                    raise translated(exc, doing, self._asked) from exc
            time.sleep(_PAUSE)
        offsets = {
            Partition(at.topic, at.partition): Offset(at.offset, at.metadata or "") if at.offset >= 0 else None
            for at in found
        }
        return {partition: offsets.get(partition) for partition in partitions}
