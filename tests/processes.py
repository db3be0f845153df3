"""Programs that tests start."""

from __future__ import annotations

import signal


def hear_interrupts() -> None:
    """For ``preexec_fn``: what a shell's background ignores, its children ignore, and Ctrl-C with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
