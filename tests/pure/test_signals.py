"""Signals wait for the step that a loop is in."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from quixframes.signals import StepSignals


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="handlers are the main thread's alone"
)
def test_a_loop_that_another_thread_swept_up_swallows_no_signal() -> None:
    """A generator that nobody finishes ends where the garbage collector happens to run."""

    def loop() -> Iterator[None]:
        with StepSignals():
            yield

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        left = [loop()]
        next(left[0])
        sweeping = threading.Thread(target=left.clear)
        sweeping.start()
        sweeping.join()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
