"""Starts one broker, and ends it when the process that asked for it is gone. Run as a script, never imported.

A killed owner runs no clean-up, so something else has to watch it. That is this process: it holds the reading end of
a pipe whose writing end only the owner has, and the kernel closes that end however the owner dies. (Linux could signal
the broker at its parent's death, but that fires when the *thread* that started it ends, and exists on no other system.)
A process that the owner forked would keep the pipe open, so the parent's ID is looked at as well.

Arguments: the owner's process ID, the seconds a broker may take to stop, the descriptor of the lock that says that a
broker runs here, the command. The broker's process ID goes to standard output; the broker writes to standard error; the
exit code is the broker's. On standard input, the line ``detach`` ends the watching (the broker then runs until somebody
stops it), and any other line ends the broker, as the end of the input does. The broker holds the lock too, so it is
free only when the broker is gone, even if this process is killed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress


def forget() -> None:
    """Remove what says that a broker can be used here, so that nobody takes it for one while it ends."""
    with suppress(OSError):
        os.unlink("state.json")


def end(broker: subprocess.Popen[bytes], grace: float) -> None:
    """Ask the broker to stop, and kill it when it takes longer than ``grace`` seconds."""
    forget()
    broker.terminate()
    broker.send_signal(signal.SIGCONT)  # a paused broker would never see the request
    try:
        broker.wait(grace)
    except subprocess.TimeoutExpired:
        broker.kill()


def watch(owner: int, broker: subprocess.Popen[bytes], grace: float) -> None:
    """Wait for the owner's end, and end the broker then."""
    while os.getppid() == owner:
        ready, _, _ = select.select([0], [], [], 1.0)
        if ready:
            if os.read(0, 64).startswith(b"detach"):
                return
            break
    end(broker, grace)


def main() -> int:
    """Run the broker to its end."""
    owner, grace, lock, command = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    try:
        broker = subprocess.Popen(  # nosec B603  # what this module was started to start
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr, pass_fds=[lock]
        )
    except OSError as exc:
        print(exc, file=sys.stderr)
        return 127
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end, args=(broker, grace)).start())
    threading.Thread(target=watch, args=(owner, broker, grace), daemon=True).start()
    with suppress(OSError):  # the owner may be dead by now, which is for the watch to find
        os.write(1, b"%d\n" % broker.pid)
    code = broker.wait()
    forget()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
