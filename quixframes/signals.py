"""Ctrl-C and SIGTERM: a clean end, and never in the middle of a step that leaves rows nowhere.

Only handlers that nobody has changed are replaced, only in the main thread, and only for as long as they are needed.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Self

__all__ = ["StepSignals", "install_sigterm", "remove_sigterm"]


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def install_sigterm() -> None:
    """Let SIGTERM raise ``SystemExit``, as Ctrl-C raises its own exception: ``with`` blocks close what they opened."""
    if _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def remove_sigterm() -> None:
    """Undo :func:`install_sigterm`."""
    if _in_main_thread() and signal.getsignal(signal.SIGTERM) is _exit:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class StepSignals:
    """While a loop over batches runs: signals wait until the step that the loop is in is whole.

    Ctrl-C raises at once where the user's code runs, or where the loop waits for rows. SIGTERM lets the user's code
    finish its batch. A second signal of either kind raises at once, wherever it comes.

    Attributes:
        waiting: the loop waits for rows.
        in_model: the user's code has a batch.
    """

    def __init__(self) -> None:
        self.waiting = False
        self.in_model = False
        self._over = False
        self._pending: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def raise_pending(self) -> None:
        """Raise what a signal asked for that came in the middle of a step."""
        if self._pending is not None:
            self._raise(self._pending)

    def __enter__(self) -> Self:
        if _in_main_thread():
            for number, ours in (
                (signal.SIGINT, (signal.default_int_handler,)),
                (signal.SIGTERM, (signal.SIG_DFL, _exit)),
            ):
                before = signal.getsignal(number)
                if before in ours:
                    self._before[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if _in_main_thread():  # a loop that nobody finished may be swept up in another: then the next signal does it
            self._restore()
        if exc is None:
            self.raise_pending()

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if self._over:
            self._restore()
            self._raise(received)
        if self.waiting or self._pending is not None or (self.in_model and received is signal.SIGINT):
            self._raise(received)
        self._pending = received

    def _raise(self, number: signal.Signals) -> None:
        self._pending = None
        if number is signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
