"""How long a reader's cluster has been out of reach, and when to warn of it. Pure, but for the log."""

from __future__ import annotations

import logging

from quixframes.logs import Place

__all__ = ["Outage"]

log = logging.getLogger(__name__)


class Outage:
    """The times in which a reader is told that something is wrong, as one.

    Args:
        what: what is being read, for log lines.
        warn_after: seconds of trouble after which a warning is logged.

    >>> outage = Outage("engine", warn_after=5)
    >>> outage.note("no broker answers", now=100.0)
    >>> outage.note("no broker answers", now=103.0)
    >>> outage.trouble
    'no broker answers'
    >>> outage.note(None, now=104.0)
    >>> outage.trouble, outage.waited(now=200.0)
    (None, 4.0)
    """

    def __init__(self, what: str, warn_after: float) -> None:
        self._place = Place(what)
        self._warn_after = warn_after
        # One value, so that another thread never reads a time in which both count the same seconds.
        self._waited: tuple[float, float | None] = (0.0, None)
        self._warned = False
        self.trouble: str | None = None

    def waited(self, now: float) -> float:
        """Seconds of trouble until a moment (monotonic seconds), over the life of this object."""
        before, since = self._waited
        return before if since is None else before + now - since

    def note(self, trouble: str | None, now: float) -> None:
        """Take note of what is wrong at a moment (monotonic seconds); None where nothing is."""
        self.trouble = trouble
        before, since = self._waited
        if trouble is None:
            if since is not None:
                self._waited = before + now - since, None
                if self._warned:
                    log.warning("%s: reading again after %.0f s", self._place, now - since, extra=self._place.extra)
            self._warned = False
            return
        if since is None:
            since = now
            self._waited = before, since
        if not self._warned and now - since >= self._warn_after:
            self._warned = True
            log.warning(
                "%s: the cluster is out of reach, waiting for it: %s", self._place, trouble, extra=self._place.extra
            )
