"""Processes, locks and ports of this machine, as the local Kafka needs them.

A process is known by its ID *and* the moment of its birth: an ID alone may by now be a stranger's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from quixframes.errors import LocalKafkaError

try:
    import fcntl
except ImportError as exc:
    raise LocalKafkaError("the local Kafka runs on Linux and macOS; here, give a broker's address") from exc

__all__ = [
    "HOST",
    "alive",
    "birth",
    "condition",
    "end",
    "environment",
    "free_port",
    "hold",
    "locked",
    "refuse_taken",
    "usable",
]

HOST = "127.0.0.1"


def environment() -> dict[str, str]:
    """What a Kafka of this machine is started with: not what this program logs in with elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QUIXFRAMES_")}


def birth(pid: int) -> str | None:
    """When that process began, in words that no later process with the same ID has; None when there is none."""
    state, began = _look(pid)
    return None if state[0] in "ZX" else began  # a dead process that nobody waited for is dead


def alive(pid: int, born: str) -> bool:
    """Whether that process is there, and is the one that was born then."""
    return pid > 0 and bool(born) and birth(pid) == born


def condition(pid: int) -> str:
    """The letters with which the system describes that process: T for stopped, X for none."""
    return _look(pid)[0]


def _look(pid: int) -> tuple[str, str]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        if Path("/proc/self/stat").exists():
            return "X", ""
        ps = subprocess.run(  # nosec B603 B607  # a number, to the ps that the user has
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        state, *began = ps.stdout.split() or ["X"]
        return state, " ".join(began)
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return fields[0], f"{boot} {fields[19]}"


def end(pid: int, born: str, grace: float) -> None:
    """Stop that process, if it is still the one that was born then: ask, and kill it after the grace time.

    LocalKafkaError: it is there even after the grace time has passed once more. A number that stands for more than one
    process, or for the first one, is not touched.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        if pid <= 1 or not alive(pid, born):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # a paused one would never see the request
        deadline = time.monotonic() + grace
        while alive(pid, born) and time.monotonic() < deadline:
            time.sleep(0.02)
    if alive(pid, born):
        raise LocalKafkaError(f"process {pid} was killed {grace:g} s ago, but does not end")


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[int]:
    """Hold the lock of that file, which is made with its folder; yields its descriptor.

    Whatever the file holds stays as it is, and a symbolic link is an error: it could lead into somebody's file.
    The lock belongs to the open file: a child that inherits the descriptor goes on holding it after this block. The
    kernel frees it with the last holder, so a killed one leaves nothing behind.
    """
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.ExitStack() as stack:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            except OSError as exc:
                raise LocalKafkaError(f"{path} cannot be written: {exc.strerror}") from exc
            stack.callback(os.close, descriptor)
            if hold(descriptor) and _same(descriptor, path):
                yield descriptor
                return
        if time.monotonic() > deadline:
            raise LocalKafkaError(
                f"another process has been starting or ending a broker in {path.parent} for {timeout:g} s"
            )
        time.sleep(0.05)


def hold(descriptor: int, *, wait: bool = False) -> bool:
    """Take the lock of an open file; False when somebody has it and we do not wait."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name: its folder may have been removed and made again."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def refuse_taken(port: int) -> None:
    """Raise LocalKafkaError, naming the port, when nothing can listen there."""
    try:
        _try(port)
    except OSError as exc:
        why = "is taken" if exc.errno == errno.EADDRINUSE else f"cannot be had ({exc.strerror})"
        raise LocalKafkaError(
            f"port {port} on {HOST} {why}: name another one, or none to have a free one chosen"
        ) from exc


def free_port(preferred: int | None = None, *, avoid: Collection[int] = ()) -> int:
    """A free port, below those that the system gives to outgoing connections.

    One of those could be given away before the broker takes it; and a client that keeps calling a broker that is down
    would sooner or later be given the very port that it calls, and connect to itself.
    """
    ports = random.sample(range(20000, 32000), 500)  # nosec B311  # no secret: to get out of others' way
    for port in [preferred, *ports]:
        if port is not None and port not in avoid:
            with contextlib.suppress(OSError):
                _try(port)
                return port
    raise LocalKafkaError(f"no free port on {HOST}")


def _try(port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: closed connections do not count
        trial.bind((HOST, port))


def usable(port: int, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a broker there has an answer to "who coordinates this group?": a group can join, a topic be made.

    ``tls`` makes the connection to a port that wants it, and logs in there by its certificate.

    The first such question makes the broker create the topic of the groups' offsets. Kafka's protocol by hand
    (FindCoordinator, version 0), since a client waits longer after a refused connection than a broker takes to start.
    """
    key = b"quixframes"
    request = struct.pack(">hhihh", 10, 0, 1, -1, len(key)) + key
    with contextlib.suppress(OSError, struct.error), contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((HOST, port), timeout=2))
        if tls is not None:
            connection = stack.enter_context(tls.wrap_socket(connection, server_hostname=HOST))
        connection.sendall(struct.pack(">i", len(request)) + request)
        _, _, error = struct.unpack(">iih", stack.enter_context(connection.makefile("rb")).read(10))
        return bool(error == 0)
    return False
