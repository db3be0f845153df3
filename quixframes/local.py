"""A real Apache Kafka on this machine, from packages: no Docker, no installation.

One broker in KRaft's combined mode, on the loopback interface, whose data, settings and log lie in one visible folder:

- A broker never outlives its owner (the process that started it), however that ends, unless it was detached.
- Nobody stops what it did not start: a process that finds a broker running in the folder uses it, and leaves it.
- A process is known by its ID *and* the moment of its birth, so a stale state file leads to no stranger's process.
- Started means usable: the broker has answered a client, made an internal topic and leads it.

In the folder: ``data`` (the topics), ``broker.properties``, ``broker.log``, ``console.log``, ``state.json`` (only while a
broker runs), ``lock`` (held while one is started or stopped).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from quixframes.errors import LocalKafkaError, SettingsError
from quixframes.local_packages import Progress, cache_home, java_command, kafka_home, version_of

__all__ = ["KAFKA_VERSION", "LocalKafka", "LocalStatus", "start", "status", "stop"]

KAFKA_VERSION = "4.4.0"
"""The version that is fetched: the one place where it stands."""

_HOST = "127.0.0.1"
_GRACE = 10.0  # seconds that a broker may take to stop before it is killed
_FILES = (
    "data",
    "tmp",
    "broker.properties",
    "log4j2.properties",
    "broker.log",
    "broker.log.1",
    "console.log",
    "state.json",
)

# What only we may set: the rest of this module relies on it.
_OURS = frozenset(
    {"process.roles", "node.id", "listeners", "advertised.listeners", "listener.security.protocol.map", "log.dirs"}
    | {"controller.listener.names", "controller.quorum.voters", "inter.broker.listener.name"}
)

# One broker for one user: a group joins at once, internal topics are few and small, and memory stays modest (the log
# cleaner alone would take 128 MB of the heap). A topic that is not there is an error here as it is on a real cluster.
_DEFAULTS = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "num.network.threads": "2",
    "num.io.threads": "4",
}

_LOGGING = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = broker.log
appender.file.filePattern = broker.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %m (%c)%n
appender.file.policy.type = SizeBasedTriggeringPolicy
appender.file.policy.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 1
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""


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


@dataclass(frozen=True, slots=True)
class _State:
    """A running broker, as its owner wrote it down once the broker was ready. ``owner`` None: detached."""

    pid: int
    birth: str
    supervisor: int
    port: int
    version: str
    started: float
    settings: dict[str, str]
    owner: int | None
    owner_birth: str | None


class LocalKafka:
    """A broker in a folder: started, or found running there. ``with LocalKafka() as kafka: kafka.address``.

    Args:
        directory: The folder of its data, settings and log. Default: this user's shared one, ``QUIXFRAMES_KAFKA_DIR`` or
            ``~/.cache/quixframes/kafka``; with ``keep=False``, a new temporary one.
        port: Where it listens, on 127.0.0.1. Default: as the last time in this folder if that is free, else any free port.
        keep: Whether the data stay when the broker is stopped. False removes all that the broker made in the folder, and
            the folder if nothing else is in it; data of a broker that was only found are never touched.
        detached: True lets the broker run on after this process, until :func:`stop`; leaving the ``with`` block does not
            stop it either. Default: it ends with :meth:`stop` and, whatever happens, with this process.
        heap: The broker's heap, as Java writes sizes.
        settings: More broker properties, over the defaults above. Those that say where it listens are ours.
        progress: How the fetching of packages at the first use is shown.
        timeout: Seconds that the broker may take to start.

    A broker that runs in the folder already is used as it is, and left running by :meth:`stop`; its owner stops it, even
    while others use it. Asking for another port or other ``settings`` than it has is an error.

    Raises:
        SettingsError: a setting that cannot be.
        LocalKafkaError: packages missing and not to be had, the port taken, or a broker that did not start.
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
        self._settings = {name: _text(value) for name, value in (settings or {}).items()}
        for name in self._settings:
            if name in _OURS or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
                raise SettingsError(f"settings: {name!r} cannot be set for a local broker")
        if not keep and detached:
            raise SettingsError("keep=False, detached=True: nobody would be there to remove the data")
        self._temporary = directory is None and not keep
        self._directory = None if self._temporary else _folder(directory)
        self._port = port
        self._keep = keep
        self._detached = detached
        self._heap = heap
        self._progress = progress
        self._timeout = timeout
        self._state: _State | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._process = os.getpid()

    def start(self) -> Self:
        """Start the broker, or find the one that runs in the folder. Returns when a client can use it."""
        if self.running:
            return self
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="quixframes-kafka-")).resolve()
        with _locked(self._directory, self._timeout):
            if self._attach():
                return self
        home = kafka_home(KAFKA_VERSION, self._progress)  # may take minutes: nobody need wait for the folder meanwhile
        java = java_command()
        with _locked(self._directory, self._timeout):
            if not self._attach():
                self._launch(java, home)
        return self

    def stop(self) -> None:
        """Stop the broker that this object started, within some 10 s; leave one that it only found. May be called twice."""
        supervisor, state, directory = self._supervisor, self._state, self._directory
        self._supervisor = self._state = None
        if supervisor is None or state is None or directory is None or os.getpid() != self._process:
            return
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(LocalKafkaError):  # however long somebody else holds the folder, the broker ends
                stack.enter_context(_locked(directory, _GRACE))
            _finish(supervisor)
            _end(state.pid, state.birth)  # only if the supervisor was killed
            (directory / "state.json").unlink(missing_ok=True)
            if not self._keep:
                _remove(directory)

    def detach(self) -> None:
        """Let the broker that this object started run on after this process, until :func:`stop`."""
        supervisor, state = self._own()
        if supervisor.stdin is not None:
            supervisor.stdin.write(b"detach\n")
            supervisor.stdin.close()
        supervisor.returncode = 0  # it is not ours to wait for any more
        self._supervisor = None
        self._state = replace(state, owner=None, owner_birth=None)
        _write_state(self.directory, self._state)

    def restart(self) -> None:
        """Stop the broker that this object started, if it still runs, and start it on the same port and data."""
        supervisor, state = self._own()
        _finish(supervisor)
        _end(state.pid, state.birth)
        port, self._port = self._port, state.port
        self._supervisor = self._state = None
        try:
            self.start()
        finally:
            self._port = port

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

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
        return self._state is not None and _birth(self._state.pid) == self._state.birth

    @property
    def owned(self) -> bool:
        """Whether this object started the broker, and so will stop it."""
        return self._supervisor is not None and os.getpid() == self._process

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, for any Kafka client."""
        return f"{_HOST}:{self._started().port}"

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
        """The last lines of what the broker wrote: of its console, if it wrote there, then of its log."""
        return _tail(self.directory, lines)

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

    def _started(self) -> _State:
        if self._state is None:
            raise LocalKafkaError("the local Kafka was not started, or was stopped")
        return self._state

    def _own(self) -> tuple[subprocess.Popen[bytes], _State]:
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
        state = _find(self.directory)
        if state is None:
            return False
        if self._port not in (None, state.port):
            raise LocalKafkaError(f"in {self.directory} a broker runs already, on port {state.port}, not {self._port}")
        if self._settings and self._settings != state.settings:
            raise LocalKafkaError(f"in {self.directory} a broker runs already, with other settings: {state.settings}")
        deadline = time.monotonic() + _GRACE
        while not _usable(state.port):
            if time.monotonic() > deadline:
                raise LocalKafkaError(
                    f"in {self.directory} a broker runs (pid {state.pid}) but does not answer\n{self.log_tail()}"
                )
            time.sleep(0.05)
        self._state = state
        return True

    def _launch(self, java: str, home: Path) -> None:
        """Start a broker, on another port when the chosen one was taken meanwhile; the caller holds the lock."""
        for attempt in range(5):
            port = self._port or _free_port(None if attempt else _last_port(self.directory))
            if self._port and not _is_free(port):
                raise LocalKafkaError(
                    f"port {port} on {_HOST} is taken: name another, or none to have a free one chosen"
                )
            try:
                self._supervisor, self._state = self._run(java, home, port)
            except LocalKafkaError:
                if self._port or "Address already in use" not in self.log_tail(1000):
                    raise
                continue
            if self._detached:
                self.detach()
            return
        raise LocalKafkaError(f"no free port on {_HOST}")

    def _run(self, java: str, home: Path, port: int) -> tuple[subprocess.Popen[bytes], _State]:
        """Start a broker on that port and wait until it is usable; whatever fails, no process stays."""
        directory = self.directory
        deadline = time.monotonic() + self._timeout
        _prepare(directory, _properties(port, _free_port(None, port)) | _DEFAULTS | self._settings)
        # C1 alone starts in half the time, the serial collector needs the least memory, and libraries that Java unpacks
        # go into our folder, where they are thrown away at the next start even if the broker is killed.
        command = [java, f"-Xmx{self._heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
        command += [
            "-XX:+ExitOnOutOfMemoryError",
            "--enable-native-access=ALL-UNNAMED",
            f"-Djava.io.tmpdir={directory / 'tmp'}",
        ]
        command += ["-Dlog4j2.configurationFile=./log4j2.properties", "-cp", f"{home}/libs/*"]
        if not (directory / "data" / "meta.properties").exists():
            _format(command, directory, self._timeout)
        with open(directory / "console.log", "ab") as console:
            supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("local_supervisor.py"))]
                + [str(os.getpid()), str(_GRACE), *command, "kafka.Kafka", "broker.properties"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                cwd=directory,
                start_new_session=True,  # a Ctrl-C in the terminal is for us, not for the broker
            )
        try:
            assert supervisor.stdout is not None
            with supervisor.stdout as pids:
                pid = pids.readline()
            while not (pid and _usable(port)):
                code = supervisor.poll() if pid else supervisor.wait()
                if code is not None:
                    raise LocalKafkaError(f"the local Kafka ended at its start, with code {code}\n{_tail(directory)}")
                if time.monotonic() > deadline:
                    raise LocalKafkaError(f"the local Kafka was not ready in {self._timeout:g} s\n{_tail(directory)}")
                time.sleep(0.02)
            birth = _birth(int(pid))
            if birth is None:
                raise LocalKafkaError(f"the local Kafka ended at its start\n{_tail(directory)}")
            state = _State(
                pid=int(pid),
                birth=birth,
                supervisor=supervisor.pid,
                port=port,
                version=version_of(home),
                started=time.time(),
                settings=self._settings,
                owner=os.getpid(),
                owner_birth=_birth(os.getpid()),
            )
            _write_state(directory, state)
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
    """Stop the detached broker of the folder (default: the shared one). None running: nothing is done, and that is no error.

    ``force`` stops one that a living process owns as well; without it, that is a LocalKafkaError. ``remove_data`` removes
    all that the broker left in the folder.
    """
    folder = _folder(directory)
    if folder.exists():
        with _locked(folder, 90.0):
            state = _find(folder)
            if state is not None:
                if state.owner is not None and not force:
                    raise LocalKafkaError(f"the broker in {folder} belongs to process {state.owner}, and ends with it")
                _end(state.pid, state.birth)
                with contextlib.suppress(ChildProcessError):  # it is our child if this process started and detached it
                    os.waitpid(state.supervisor, 0)
                (folder / "state.json").unlink(missing_ok=True)
            if remove_data:
                _remove(folder)
    return status(folder)


def status(directory: str | os.PathLike[str] | None = None) -> LocalStatus:
    """What is in the folder (default: the shared one). Starts, stops and waits for nothing."""
    folder = _folder(directory)
    size = 0
    with contextlib.suppress(FileNotFoundError):  # a running broker removes files while they are counted
        size = sum(path.stat().st_blocks * 512 for path in (folder / "data").rglob("*"))
    state = _read_state(folder)
    if state is None or _birth(state.pid) != state.birth:
        return LocalStatus(running=False, directory=folder, data_bytes=size)
    return LocalStatus(
        running=True,
        directory=folder,
        address=f"{_HOST}:{state.port}",
        pid=state.pid,
        version=state.version,
        owner=state.owner,
        detached=state.owner is None,
        uptime=time.time() - state.started,
        data_bytes=size,
    )


# The folder


def _folder(directory: str | os.PathLike[str] | None) -> Path:
    if directory is None:
        directory = os.environ.get("QUIXFRAMES_KAFKA_DIR") or cache_home() / "kafka"
    return Path(directory).expanduser().resolve()


@contextlib.contextmanager
def _locked(directory: Path, timeout: float) -> Iterator[None]:
    """Hold the folder, so that two processes do not start or stop a broker in it at once."""
    deadline = time.monotonic() + timeout
    path = directory / "lock"
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = open(path, "w")
        except OSError as exc:
            raise LocalKafkaError(f"the folder {directory} cannot be written: {exc}") from exc
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                    yield
                    return
            except (BlockingIOError, FileNotFoundError):  # held by another; or removed together with its folder
                pass
        if time.monotonic() > deadline:
            raise LocalKafkaError(
                f"another process has been starting or stopping a broker in {directory} for {timeout:g} s"
            )
        time.sleep(0.05)


def _prepare(directory: Path, properties: Mapping[str, str]) -> None:
    """Write the broker's settings, make room for its files and forget the last log. Paths in them are relative."""
    shutil.rmtree(directory / "tmp", ignore_errors=True)
    (directory / "tmp").mkdir()
    for name in ("broker.log", "broker.log.1", "console.log"):
        (directory / name).unlink(missing_ok=True)
    (directory / "log4j2.properties").write_text(_LOGGING)
    lines = "".join(f"{name}={value}\n" for name, value in properties.items())
    (directory / "broker.properties").write_text(lines)


def _properties(port: int, controller_port: int) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{_HOST}:{port},CONTROLLER://{_HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{_HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@{_HOST}:{controller_port}",
        "log.dirs": "data",
    }


def _text(value: object) -> str:
    """A value as a properties file has it, which is Latin-1 with escapes."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    units = struct.unpack(f">{len(text.encode('utf-16-be')) // 2}H", text.encode("utf-16-be"))
    return "".join(chr(u) if 32 <= u < 127 and u != 92 else f"\\u{u:04x}" for u in units)


def _remove(directory: Path) -> None:
    """Remove what the broker and we made in the folder, and the folder if nothing else is there."""
    for name in (*_FILES, "lock"):
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def _tail(directory: Path, lines: int = 30) -> str:
    parts = []
    for name in ("console.log", "broker.log"):
        with contextlib.suppress(FileNotFoundError):
            text = (directory / name).read_text(errors="replace").splitlines()[-lines:]
            if text:
                parts.append("\n".join([f"--- the end of {directory / name}", *text]))
    return "\n".join(parts)


def _write_state(directory: Path, state: _State) -> None:
    partial = directory / "state.json.partial"
    partial.write_text(json.dumps(asdict(state)))
    partial.replace(directory / "state.json")


def _read_state(directory: Path) -> _State | None:
    try:
        return _State(**json.loads((directory / "state.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # none, cut off, or written by another version
        return None


def _find(directory: Path) -> _State | None:
    """The broker that runs in the folder. One whose owner has just died is waited for: it is on its way out."""
    state = _read_state(directory)
    if state is None or _birth(state.pid) != state.birth:
        return None
    if state.owner is None or _birth(state.owner) == state.owner_birth:
        return state
    deadline = time.monotonic() + 2 * _GRACE
    while _birth(state.pid) == state.birth:
        if time.monotonic() > deadline:
            _end(state.pid, state.birth)  # its supervisor was killed as well
        time.sleep(0.02)
    return None


# Processes and ports


def _birth(pid: int) -> str | None:
    """When that process began, in words that no later process with the same ID has; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        ps = subprocess.run(["ps", "-o", "lstart=,stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        *began, condition = ps.stdout.split() or ["Z"]
        return None if condition.startswith("Z") else " ".join(began)
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


def _end(pid: int, birth: str) -> None:
    """Stop that process, if it is still the one that was born then: ask, and kill it after the grace time."""
    deadline = time.monotonic() + _GRACE
    sent: signal.Signals | None = None
    while _birth(pid) == birth:
        wanted = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        if wanted is not sent:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, wanted)
                os.kill(pid, signal.SIGCONT)  # a paused one would never see the request
            sent = wanted
        time.sleep(0.02)


def _finish(supervisor: subprocess.Popen[bytes]) -> None:
    """Let the supervisor end the broker, by closing the pipe that it watches, and wait for both."""
    if supervisor.stdin is not None:
        supervisor.stdin.close()
    supervisor.wait()  # it kills a broker that takes too long


def _format(command: list[str], directory: Path, timeout: float) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = [*command, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", "broker.properties"]
    try:
        done = subprocess.run(tool, cwd=directory, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise LocalKafkaError(f"the local Kafka's storage could not be made: {exc}") from exc
    if done.returncode:
        raise LocalKafkaError(
            f"the local Kafka's storage could not be made\n{done.stdout}{done.stderr}{_tail(directory)}"
        )


def _last_port(directory: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        found = re.search(
            r"^listeners=PLAINTEXT://[^:]+:(\d+)", (directory / "broker.properties").read_text(), re.MULTILINE
        )
        return int(found[1]) if found else None
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: closed connections do not count
        try:
            trial.bind((_HOST, port))
        except OSError:
            return False
        return True


def _free_port(preferred: int | None, *taken: int) -> int:
    """A free port below those that the system gives to outgoing connections.

    One of those could be given away before the broker binds it; and a client that keeps trying to reach a broker that is
    down would sooner or later be given the very port it calls, and connect to itself.
    """
    chosen = [preferred] if preferred else []
    for port in chosen + random.sample(range(20000, 32000), 500):
        if port not in taken and _is_free(port):
            return port
    raise LocalKafkaError(f"no free port on {_HOST}")


def _usable(port: int) -> bool:
    """Whether a broker there has an answer to "who coordinates this group?": a group can join, a topic be made.

    The first such question makes the broker create the topic of the groups' offsets. Kafka's protocol by hand (FindCoordinator,
    version 0), since a client would wait longer after a refused connection than the broker takes to start.
    """
    key = b"quixframes"
    request = struct.pack(">hhihh", 10, 0, 1, -1, len(key)) + key
    with contextlib.suppress(OSError, struct.error):
        with socket.create_connection((_HOST, port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            _, _, error = struct.unpack(">iih", connection.recv(10, socket.MSG_WAITALL))
            return bool(error == 0)
    return False
