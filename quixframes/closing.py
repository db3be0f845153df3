"""Leaving a ``with`` block, the same for everything that is closed: the block's own error is the one to be seen."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from quixframes.errors import QuixframesError
from quixframes.logs import Place

__all__ = ["Closing"]

log = logging.getLogger(__name__)


class Closing(ABC):
    """What a ``with`` block closes at its end."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """End; raises what went wrong."""

    def _leave(self, exc: BaseException | None) -> None:
        """End, knowing by which error the block is left, if by any."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave(exc)
        except QuixframesError as failure:
            if exc is None:
                raise
            # The block's own error goes on; this one is told where it can be found.
            log.exception("closing %r after an error: not everything ended well", self, extra=Place.of(failure).extra)
