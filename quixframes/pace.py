"""When it is a row's time, at a speed: event time against the clock. Pure."""

from __future__ import annotations

from quixframes.errors import SettingsError

__all__ = ["Pace"]


class Pace:
    """Rows come when their times say, ``speed`` times as fast. The first moment that is asked for begins it.

    >>> pace = Pace(60)
    >>> pace.wait(0, now=100.0), pace.wait(60 * 10**9, now=100.25), pace.wait(30 * 10**9, now=102.0)
    (0.0, 0.75, 0.0)
    """

    def __init__(self, speed: float) -> None:
        """
        Raises:
            SettingsError: the speed is no number above zero.
        """
        if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0 < speed < float("inf"):
            raise SettingsError(
                f"a speed of {speed!r} is none: 1 is as fast as the rows' times say, 60 a minute a second"
            )
        self.speed = speed
        self._origin: tuple[int, float] | None = None

    def wait(self, at: int, now: float) -> float:
        """Seconds until it is time for ``at`` (nanoseconds since 1970), by a clock that shows ``now``."""
        if self._origin is None:
            self._origin = at, now
        since, begun = self._origin
        return max(0.0, begun + (at - since) / 1e9 / self.speed - now)
