"""A real Apache Kafka on this machine, from packages: no Docker, no installation.

One broker in KRaft's combined mode, on the loopback interface, whose data, settings and log lie in one visible folder:

- A broker ends with its owner (the process that started it), however that ends, unless it was detached. A supervisor
  beside it sees to that; only when that one was killed as well does the broker stay, until :func:`stop`.
- Nobody stops what it did not start: a process that finds a broker running in the folder uses it, and leaves it.
- A process is known by its ID *and* the moment of its birth, so a stale state file leads to no stranger's process.
- Started means usable: the broker has answered a client, made an internal topic and leads it.

In the folder: ``quixframes-kafka.txt`` (the mark that it is ours), ``data`` (the topics), ``tmp``,
``broker.properties``, ``log4j2.properties``, ``broker.log``, ``console.log``, ``state.json`` (while a broker can be
used), ``start.lock`` (held while one is started) and ``broker.lock`` (held as long as a broker lives).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from quixframes.errors import LocalKafkaError, SettingsError
from quixframes.local_folder import (
    State,
    checked,
    claim,
    claimed,
    data_bytes,
    find,
    folder_of,
    format_storage,
    last_port,
    prepare,
    read_state,
    remove,
    tail,
    write_state,
)
from quixframes.local_packages import Progress, java_command, kafka_home, version_of
from quixframes.local_process import HOST, birth, condition, end, free_port, locked, refuse_taken, usable

__all__ = ["KAFKA_VERSION", "LocalKafka", "LocalStatus", "start", "status", "stop"]

KAFKA_VERSION = "4.4.0"
"""The version that is fetched: the one place where it stands."""

_GRACE = 10.0  # seconds that a broker may take to stop before it is killed


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """What there is to say of a folder's broker.

    ``owner`` is the process whose end will end the broker: None when it is detached or does not run. ``uptime`` is in
    seconds; ``data_bytes`` is what the topics take on the disk, also while nothing runs.
    """

    running: bool
    directory: Path
    address: str | None = None
    pid: int | None = None
    version: str | None = None
    owner: int | None = None
    detached: bool = False
    uptime: float | None = None
    data_bytes: int = 0


class LocalKafka:
    """A broker in a folder: started, or found running there. ``with LocalKafka() as kafka: kafka.address``.

    Args:
        directory: The folder of its data, settings and log. Default: this user's shared one, ``QUIXFRAMES_KAFKA_DIR``
            or ``~/.cache/quixframes/kafka``; with ``keep=False``, a new temporary one. It may hold other things, but
            one that holds files under the broker's names (such as ``data``) which no local Kafka made is refused.
        port: Where it listens, on 127.0.0.1. Default: as the last time in this folder if free, else any free port.
        keep: Whether the data stay when the broker is stopped. False removes all that the broker made in the folder,
            and the folder if nothing else is in it; data of a broker that was only found are never touched. (Data of
            an owner that was killed stay, too.)
        detached: True lets the broker run on after this process, until :func:`stop`; leaving the ``with`` block does
            not stop it either. Default: it ends with :meth:`stop`, or else with this process, even a killed one.
        heap: The broker's heap, as Java writes sizes.
        settings: More broker properties, over the defaults above. Those that say where it listens are ours.
        progress: How the fetching of packages at the first use is shown.
        timeout: Seconds that the broker may take to start.

    A broker that runs in the folder already is used as it is, and left running by :meth:`stop`; its owner stops it,
    even while others use it. Asking for another port or other ``settings`` than it has is an error.

    Raises:
        SettingsError: a setting that cannot be.
        LocalKafkaError: packages missing and not to be had, the port taken, a folder that holds somebody's files under
            the broker's names or belongs to another user, or a broker that did not start.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        port: int | None = None,
        keep: bool = True,
        detached: bool = False,
        heap: str = "512m",
        settings: Mapping[str, object] | None = None,
        progress: Progress = True,
        timeout: float = 60.0,
    ) -> None:
        if port is not None and not 0 < port < 65536:
            raise SettingsError(f"port={port!r}: a port is between 1 and 65535; None takes a free one")
        if not re.fullmatch(r"[1-9][0-9]*[kKmMgG]", heap):
            raise SettingsError(f"heap={heap!r}: write a size as Java does, such as 512m or 2g")
        if not keep and detached:
            raise SettingsError("keep=False, detached=True: nobody would be there to remove the data")
        self._temporary = directory is None and not keep
        self._directory = None if self._temporary else folder_of(directory)
        self._settings = checked(settings or {})
        self._port = port
        self._keep = keep
        self._detached = detached
        self._heap = heap
        self._progress = progress
        self._timeout = timeout
        self._state: State | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._process = os.getpid()

    def start(self) -> Self:
        """Start the broker, or find the one that runs in the folder. Returns when a client can use it."""
        if self.running:
            return self
        if self._supervisor is not None:  # of a broker that died since
            _finish(self._supervisor)
            self._supervisor = None
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="quixframes-kafka-")).resolve()
        start_lock = self._directory / "start.lock"
        try:
            claim(self._directory)
            with locked(start_lock, self._timeout):
                if self._attach():
                    return self
            # Packages may take minutes to come, in which nobody need wait for the folder.
            home = kafka_home(KAFKA_VERSION, self._progress)
            java = java_command()
            with locked(start_lock, self._timeout):
                if not self._attach():
                    self._launch(java, home)
        except BaseException:
            if self._temporary:
                remove(self._directory)
            raise
        return self

    def stop(self) -> None:
        """Stop the broker that this object started, and leave one that it only found. May be repeated.

        A broker that takes longer than 10 s is killed.
        """
        supervisor, state = self._supervisor, self._state
        self._supervisor = self._state = None
        if supervisor is None or state is None or os.getpid() != self._process:
            return
        _finish(supervisor)
        end(state.pid, state.birth, _GRACE)  # in case the supervisor was killed
        if not self._keep:
            with contextlib.suppress(LocalKafkaError), locked(self.directory / "start.lock", _GRACE):
                remove(self.directory)

    def detach(self) -> None:
        """Let the broker that this object started run on after this process, until :func:`stop`."""
        supervisor, state = self._own()
        self.check()
        self._state = replace(state, owner=None, owner_birth=None)
        write_state(self.directory, self._state)
        assert supervisor.stdin is not None
        supervisor.stdin.write(b"detach\n")
        supervisor.stdin.close()
        supervisor.returncode = 0  # else its destructor would warn of a process that nobody waits for
        self._supervisor = None

    def restart(self) -> None:
        """Stop the broker that this object started, if it still runs, and start it on the same port and data."""
        supervisor, state = self._own()
        _finish(supervisor)
        end(state.pid, state.birth, _GRACE)
        port, self._port = self._port, state.port
        self._supervisor = self._state = None
        try:
            self.start()
        finally:
            self._port = port

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): it keeps its connections and answers nothing. Returns when it is frozen."""
        self._signal(signal.SIGSTOP)
        while not condition(self.pid).startswith("T"):
            time.sleep(0.01)

    def resume(self) -> None:
        """Let a paused broker go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the broker (SIGKILL), as a fault would; the data stay. Returns when it is gone."""
        self._signal(signal.SIGKILL)
        supervisor, _ = self._own()
        supervisor.wait(_GRACE)

    @property
    def running(self) -> bool:
        """Whether the broker's process is there."""
        return self._state is not None and self._state.running

    @property
    def owned(self) -> bool:
        """Whether this object started the broker, and so will stop it."""
        return self._supervisor is not None and os.getpid() == self._process

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, for any Kafka client."""
        return f"{HOST}:{self._started().port}"

    @property
    def pid(self) -> int:
        """The broker's process ID."""
        return self._started().pid

    @property
    def directory(self) -> Path:
        """The folder of data, settings and log."""
        if self._directory is None:
            raise LocalKafkaError("a temporary local Kafka has no folder before it was started")
        return self._directory

    def check(self) -> None:
        """Raise LocalKafkaError, with the tail of its log, when the broker has died."""
        state = self._started()
        if not self.running:
            raise LocalKafkaError(f"the local Kafka (pid {state.pid}) has died\n{self.log_tail()}")

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its console, if it wrote there, then of its log."""
        return tail(self.directory, lines)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        if self._state is None:
            return f"<LocalKafka in {self._directory or 'a temporary folder'}: not started>"
        how = "started here" if self.owned else "detached" if self._state.owner is None else "found running"
        how = how if self.running else "died"
        return f"<LocalKafka {self.address} in {self._directory}: pid {self._state.pid}, {how}>"

    def _started(self) -> State:
        if self._state is None:
            raise LocalKafkaError("the local Kafka was not started, or was stopped")
        return self._state

    def _own(self) -> tuple[subprocess.Popen[bytes], State]:
        state = self._started()
        if self._supervisor is None or not self.owned:
            raise LocalKafkaError(f"the local Kafka at {self.address} was not started by this object, or was detached")
        return self._supervisor, state

    def _signal(self, number: signal.Signals) -> None:
        _, state = self._own()
        self.check()
        os.kill(state.pid, number)

    def _attach(self) -> bool:
        """Take the broker that runs in the folder, if one does; the caller holds the lock."""
        state = find(self.directory)
        if state is None:
            return False
        if self._port not in (None, state.port):
            raise LocalKafkaError(f"in {self.directory} a broker runs already, on port {state.port}, not {self._port}")
        if self._settings and self._settings != state.settings:
            raise LocalKafkaError(f"in {self.directory} a broker runs already, with other settings: {state.settings}")
        deadline = time.monotonic() + _GRACE
        while not usable(state.port):
            if time.monotonic() > deadline:
                raise LocalKafkaError(
                    f"in {self.directory} a broker runs (pid {state.pid}) but does not answer\n{self.log_tail()}"
                )
            time.sleep(0.05)
        self._state = state
        return True

    def _launch(self, java: str, home: Path) -> None:
        """Start a broker, on another port when the chosen one was taken meanwhile; the caller holds the lock."""
        if self._port:
            refuse_taken(self._port)
        for attempt in range(5):
            port = self._port or free_port(None if attempt else last_port(self.directory))
            try:
                self._supervisor, self._state = self._run(java, home, port)
            except LocalKafkaError:
                if self._port or "Address already in use" not in self.log_tail(1000):
                    raise
                continue
            if self._detached:
                self.detach()
            return
        raise LocalKafkaError(f"five ports on {HOST} were each taken while the broker started")

    def _run(self, java: str, home: Path, port: int) -> tuple[subprocess.Popen[bytes], State]:
        """Start a broker on that port and wait until it is usable; whatever fails, no process stays."""
        directory = self.directory
        deadline = time.monotonic() + self._timeout
        # A broker whose owner was killed, maybe in the middle of its start, holds its lock until it is gone.
        with locked(directory / "broker.lock", 2 * _GRACE) as lock:
            prepare(directory, port, self._settings)
            # C1 alone starts in half the time, and the serial collector needs the least memory. What libraries unpack
            # goes into our folder, where it is thrown away at the next start even if the broker is killed.
            command = [java, f"-Xmx{self._heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
            command += ["-XX:+ExitOnOutOfMemoryError", "--enable-native-access=ALL-UNNAMED"]
            command += [f"-Djava.io.tmpdir={directory / 'tmp'}", "-Dlog4j2.configurationFile=./log4j2.properties"]
            command += ["-cp", f"{home}/libs/*"]
            format_storage(command, directory, self._timeout)
            with (directory / "console.log").open("ab") as console:
                script = str(Path(__file__).with_name("local_supervisor.py"))
                facts = [str(os.getpid()), str(_GRACE), str(lock)]
                supervisor = subprocess.Popen(
                    [sys.executable, "-I", "-S", script, *facts, *command, "kafka.Kafka", "broker.properties"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=console,
                    cwd=directory,
                    pass_fds=[lock],
                    start_new_session=True,  # a Ctrl-C in the terminal is for us, not for the broker
                )
        try:
            pid, born = _await(supervisor, port, deadline, directory)
            state = State(
                pid=pid,
                birth=born,
                supervisor=supervisor.pid,
                port=port,
                version=version_of(home),
                started=time.time(),
                settings=self._settings,
                owner=os.getpid(),
                owner_birth=birth(os.getpid()),
            )
            write_state(directory, state)
        except BaseException:
            _finish(supervisor)
            raise
        return supervisor, state


def start(
    directory: str | os.PathLike[str] | None = None,
    *,
    port: int | None = None,
    heap: str = "512m",
    settings: Mapping[str, object] | None = None,
    progress: Progress = True,
) -> LocalStatus:
    """Start a detached broker in the folder (default: the shared one), or find the one that runs there; see LocalKafka.

    A broker that another process owns stays that process's: the result's ``owner`` says so.
    """
    kafka = LocalKafka(directory, port=port, detached=True, heap=heap, settings=settings, progress=progress).start()
    return status(kafka.directory)


def stop(
    directory: str | os.PathLike[str] | None = None, *, force: bool = False, remove_data: bool = False
) -> LocalStatus:
    """Stop the detached broker of the folder (default: the shared one). That none runs is no error.

    ``force`` also stops one that a living process owns; without it, that is a LocalKafkaError. One whose owner is gone
    is stopped, too. ``remove_data`` removes all that the broker left in the folder.
    """
    folder = folder_of(directory)
    if claimed(folder):
        with locked(folder / "start.lock", 90.0):
            state = read_state(folder)
            if state is not None and state.running:
                if state.owner_lives and not force:
                    raise LocalKafkaError(f"the broker in {folder} belongs to process {state.owner}, and ends with it")
                end(state.pid, state.birth, _GRACE)
                with contextlib.suppress(ChildProcessError):  # it is our child if this process started and detached it
                    os.waitpid(state.supervisor, 0)
            if remove_data:
                remove(folder)
    return status(folder)


def status(directory: str | os.PathLike[str] | None = None) -> LocalStatus:
    """What is in the folder (default: the shared one). Starts, stops and waits for nothing."""
    folder = folder_of(directory)
    size = data_bytes(folder)
    state = read_state(folder)
    if state is None or not state.running:
        return LocalStatus(running=False, directory=folder, data_bytes=size)
    return LocalStatus(
        running=True,
        directory=folder,
        address=f"{HOST}:{state.port}",
        pid=state.pid,
        version=state.version,
        owner=state.owner,
        detached=state.owner is None,
        uptime=time.time() - state.started,
        data_bytes=size,
    )


def _await(supervisor: subprocess.Popen[bytes], port: int, deadline: float, directory: Path) -> tuple[int, str]:
    """Wait until the broker is usable; its process ID and birth."""
    assert supervisor.stdout is not None
    with supervisor.stdout as answer:
        pid = int(answer.readline() or 0)
    born = birth(pid) if pid else None
    while True:
        if born is None or birth(pid) != born:  # looked at before the port: a stranger's broker may answer there
            raise LocalKafkaError(
                f"the local Kafka died at its start, with code {_code(supervisor)}\n{tail(directory)}"
            )
        if usable(port):
            return pid, born
        if time.monotonic() > deadline:
            raise LocalKafkaError(f"the local Kafka was not ready in time\n{tail(directory)}")
        time.sleep(0.02)


def _finish(supervisor: subprocess.Popen[bytes]) -> None:
    """Have the supervisor end the broker, and wait for both. To close its pipe is not enough: a fork may hold it."""
    assert supervisor.stdin is not None
    if not supervisor.stdin.closed:
        with contextlib.suppress(BrokenPipeError), supervisor.stdin as orders:
            orders.write(b"stop\n")
    _code(supervisor)


def _code(supervisor: subprocess.Popen[bytes]) -> int:
    """The exit code of a supervisor whose broker ends. It kills a broker that takes too long, as we do with itself."""
    try:
        return supervisor.wait(2 * _GRACE)
    except subprocess.TimeoutExpired:
        # It is stopped or stuck. It leads a session of its own, so its group is the broker and itself, and the group's
        # number is nobody else's as long as nobody waited for it.
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended at this moment
            os.killpg(supervisor.pid, signal.SIGKILL)
        return supervisor.wait()
