"""How long a reader's cluster has been out of reach, and when to warn of it. Pure, but for the log."""

from __future__ import annotations

import logging

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
    >>> outage.trouble, outage.waited
    (None, 4.0)
    """

    def __init__(self, what: str, warn_after: float) -> None:
        self._what = what
        self._warn_after = warn_after
        self._since: float | None = None
        self._warned = False
        self.trouble: str | None = None
        self.waited = 0.0

    def note(self, trouble: str | None, now: float) -> None:
        """Take note of what is wrong at a moment (monotonic seconds); None where nothing is."""
        self.trouble = trouble
        if trouble is None:
            if self._since is not None:
                self.waited += now - self._since
                if self._warned:
                    log.warning("topic %s: reading again after %.0f s", self._what, now - self._since)
            self._since, self._warned = None, False
            return
        if self._since is None:
            self._since = now
        if not self._warned and now - self._since >= self._warn_after:
            self._warned = True
            log.warning("topic %s: the cluster is out of reach, waiting for it: %s", self._what, trouble)
