"""A client that several threads use."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quixframes.confluent.opening import within
from quixframes.errors import ClosedError

__all__ = ["Shared"]


class Shared:
    """A consumer of confluent-kafka, which threads use one after another, in turn.

    It lets one thread in at a time; the others sleep, and look now and then whether it has left. Beside a thread that
    polls all the time they hardly ever find it so, and no timeout of theirs ends that.

    Its end comes with its last reference: nobody keeps one but this.
    """

    def __init__(self, client: Any) -> None:
        self._client: Any = client
        self._next = threading.Lock()
        self._inside = threading.Lock()
        self._whose: int | None = None

    @property
    def client(self) -> Any:
        """The client, for what asks nobody. Only its owner may use it so.

        Raises:
            ClosedError: it has ended.
        """
        client = self._client
        if client is None:
            raise ClosedError("the reader is closed")
        return client

    @contextmanager
    def taken(self, timeout: float) -> Iterator[Any]:
        """Have it, also where this thread has it already: librdkafka calls back about rebalances.

        Raises:
            TimeoutError: another thread has it, and is held up for longer than ``timeout`` seconds.
        """
        me = threading.get_ident()
        if self._whose == me:
            yield self.client
            return
        timeout = max(0.0, timeout)
        # Who waits holds this; so who has just been inside comes after it.
        if not self._next.acquire(timeout=timeout):
            raise TimeoutError(f"others wait for the client for longer than {timeout:g} s")
        try:
            if not self._inside.acquire(timeout=timeout):
                raise TimeoutError(f"the client was in use for {timeout:g} s")
        finally:
            self._next.release()
        self._whose = me
        try:
            yield self.client
        finally:
            self._whose = None
            self._inside.release()

    def discard(self, timeout: float) -> None:
        """Let go of it; its end joins its threads, or they end by themselves later than in ``timeout`` seconds."""
        end, self._client = [self._client], None
        with contextlib.suppress(TimeoutError):
            within(timeout, end.clear)
