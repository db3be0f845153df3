"""Tokens from the user's function, for both Kafka clients: a function that hangs costs seconds, and says so."""

from __future__ import annotations

import concurrent.futures
import threading
import time

from quixframes.errors import AuthenticationError
from quixframes.security import Security

__all__ = ["LONGEST", "Tokens"]

LONGEST = 6.0
"""Seconds that the function may take: less than opening may, so that its failure is what is told."""


class Tokens:
    """What calls the function that a :class:`Security` was given as ``token``.

    Kafka's clients call it on the threads that serve their connections, where one that hangs would hold up everything,
    the end of the program too. So it runs on a thread of its own; there is never more than one.
    """

    def __init__(self, security: Security) -> None:
        self._security = security
        self._lock = threading.Lock()
        self._call: concurrent.futures.Future[str] | None = None
        self._until = 0.0

    def new(self) -> str:
        """A token that is valid now.

        Raises:
            AuthenticationError: the function fails, returns what is no token, or takes too long.
        """
        with self._lock:
            call = self._call
            if call is None or call.done():
                call = self._call = concurrent.futures.Future()
                self._until = time.monotonic() + LONGEST
                threading.Thread(target=self._run, args=(call,), name="quixframes-token", daemon=True).start()
        try:
            return call.result(max(0.0, self._until - time.monotonic()))  # who asks again is not held up again
        except concurrent.futures.TimeoutError:
            raise AuthenticationError(
                f"no token could be had: the function given as token did not return within {LONGEST:g} s"
            ) from None

    def _run(self, call: concurrent.futures.Future[str]) -> None:
        try:
            call.set_result(self._security.new_token())
        except BaseException as exc:
            call.set_exception(exc)
