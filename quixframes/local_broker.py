"""One broker of a local Kafka: a Java process, the supervisor that ends it with its owner, and the note about both.

A broker is started in two steps, so that those of a cluster, which need each other to be ready, can be started
together: :meth:`LocalBroker.launch`, then :meth:`LocalBroker.await_ready`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from quixframes.errors import LocalKafkaError
from quixframes.local_archive import SharedClasses
from quixframes.local_folder import State, claim, find, last_ports, open_own, prepare, tail, write_state
from quixframes.local_process import HOST, birth, condition, end, environment, locked, refuse_taken, usable
from quixframes.local_secure import LocalSecurity
from quixframes.local_storage import format_storage

__all__ = ["GRACE", "Launch", "LocalBroker"]

GRACE = 10.0  # seconds that a broker may take to stop before it is killed


@dataclass(frozen=True, slots=True)
class Launch:
    """What a broker is started with: Java and the folder of Kafka's jars, its heap, and its file of properties.

    ``settings`` are those of the properties that the user gave, ``cluster`` is the ID of the cluster that it belongs
    to, and ``timeout`` the seconds that the start may take. ``security`` and ``mtls_port``: of a secured cluster.
    """

    java: str
    home: Path
    version: str
    heap: str
    port: int
    properties: Mapping[str, str]
    settings: dict[str, str]
    cluster: str
    timeout: float
    security: LocalSecurity | None = None
    mtls_port: int | None = None


class LocalBroker:
    """One broker of a local Kafka, as :meth:`LocalKafka.broker` names it, so that a test can harm just this one.

    ``number`` counts from 1, and is the broker's ID in its cluster; ``directory`` is the folder of its data and log.
    Only who started it may harm it.
    """

    def __init__(self, number: int, directory: Path, start_lock: Path) -> None:
        self.number = number
        self.directory = directory
        self._start_lock = start_lock
        self._state: State | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._launched: Launch | None = None
        self._process = os.getpid()

    @property
    def running(self) -> bool:
        """Whether the broker's process is there."""
        return self._state is not None and self._state.running

    @property
    def owned(self) -> bool:
        """Whether this object started the broker, and so will stop it."""
        return self._supervisor is not None and os.getpid() == self._process

    @property
    def detached(self) -> bool:
        """Whether it runs until somebody stops it."""
        return self._state is not None and self._state.owner is None

    @property
    def pid(self) -> int:
        """The broker's process ID."""
        return self._started().pid

    @property
    def port(self) -> int:
        """Where it listens, or did when it last ran."""
        if self._state is not None:
            return self._state.port
        ports = last_ports(self.directory)
        if ports is None:
            raise LocalKafkaError(f"no broker was ever started in {self.directory}")
        return ports[0]

    @property
    def mtls_port(self) -> int | None:
        """Where it listens for those who log in by a certificate; None where it is not secured."""
        ports = last_ports(self.directory)
        return None if ports is None else ports[2]

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, also while it does not run."""
        return f"{HOST}:{self.port}"

    def kill(self) -> None:
        """Kill the broker (SIGKILL), as a fault would; the data stay. Returns when it is gone."""
        self._signal(signal.SIGKILL)
        supervisor, _ = self._own()
        supervisor.wait(GRACE)

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): it keeps its connections and answers nothing. Returns when it is frozen."""
        self._signal(signal.SIGSTOP)
        while not condition(self.pid).startswith("T"):
            time.sleep(0.01)

    def resume(self) -> None:
        """Let a paused broker go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop the broker, if it still runs, and start it on the same port and data.

        Returns when a client can use it, for which most brokers of its cluster have to run.
        """
        how = self.launched
        self.order_stop()
        self.stop()
        with locked(self._start_lock, how.timeout):
            try:
                self.launch(how)
                self.await_ready(time.monotonic() + how.timeout)
            except BaseException:
                self.stop()
                raise

    def check(self) -> None:
        """Raise LocalKafkaError, with the tail of its log, when the broker has died."""
        state = self._started()
        if not self.running:
            raise LocalKafkaError(f"the local Kafka (pid {state.pid}) has died\n{tail(self.directory)}")

    def __repr__(self) -> str:
        return f"<LocalBroker {self.number} in {self.directory}: {'running' if self.running else 'not running'}>"

    # For LocalKafka

    @property
    def launched(self) -> Launch:
        """What this object started the broker with."""
        if self._launched is None or os.getpid() != self._process:
            raise self._not_ours()
        return self._launched

    def attach(self) -> State | None:
        """Take the broker that runs in the folder, if one does; the caller holds the lock of starts."""
        self._state = find(self.directory)
        return self._state

    def launch(self, how: Launch) -> None:
        """Start a broker; the caller holds the lock of starts, and stops it if anything fails."""
        directory = self.directory
        refuse_taken(how.port)
        self._launched = how
        # A broker whose owner was killed, maybe in the middle of its start, holds its lock until it is gone.
        claim(directory)
        with locked(directory / "broker.lock", 2 * GRACE) as lock:
            prepare(directory, how.properties)
            # C1 alone starts in half the time, and the serial collector needs the least memory. What libraries unpack
            # goes into our folder, where it is thrown away at the next start even if the broker is killed.
            command = [how.java, f"-Xmx{how.heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
            command += ["-XX:+ExitOnOutOfMemoryError", "--enable-native-access=ALL-UNNAMED"]
            command += SharedClasses(how.java, how.home, directory).arguments
            command += [f"-Djava.io.tmpdir={directory / 'tmp'}", "-Dlog4j2.configurationFile=./log4j2.properties"]
            if how.security is not None:
                command += how.security.java_arguments()
            command += ["-cp", f"{how.home}/libs/*"]
            users = how.security.scram_arguments() if how.security is not None else []
            format_storage(command, directory, how.properties, how.cluster, how.timeout, home=how.home, users=users)
            with open_own(directory / "console.log") as console:
                script = str(Path(__file__).with_name("local_supervisor.py"))
                facts = [str(os.getpid()), str(GRACE), str(lock)]
                self._supervisor = subprocess.Popen(  # nosec B603  # this Python, and Java from a package
                    [sys.executable, "-I", "-S", script, *facts, *command, "kafka.Kafka", "broker.properties"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=console,
                    cwd=directory,
                    env=environment(),
                    umask=0o077,
                    pass_fds=[lock],
                    start_new_session=True,  # a Ctrl-C in the terminal is for us, not for the broker
                )

    def await_ready(self, deadline: float) -> None:
        """Wait until a client can use the broker that was launched, and write down that it runs."""
        supervisor, how = self._supervisor, self._launched
        assert supervisor is not None
        assert supervisor.stdout is not None
        assert how is not None
        tls = how.security.context() if how.security is not None else None
        with supervisor.stdout as answer:
            pid = int(answer.readline() or 0)
        born = birth(pid) if pid else None
        while True:
            if born is None or birth(pid) != born:  # looked at before the port: a stranger's broker may answer there
                raise LocalKafkaError(
                    f"the local Kafka died at its start, with code {_code(supervisor)}\n{tail(self.directory)}"
                )
            if usable(how.mtls_port or how.port, tls):
                break
            if time.monotonic() > deadline:
                raise LocalKafkaError(f"the local Kafka was not ready in time\n{tail(self.directory)}")
            time.sleep(0.02)
        self._state = State(
            pid=pid,
            birth=born,
            supervisor=supervisor.pid,
            port=how.port,
            version=how.version,
            started=time.time(),
            settings=how.settings,
            owner=os.getpid(),
            owner_birth=birth(os.getpid()),
        )
        write_state(self.directory, self._state)
        SharedClasses(how.java, how.home, self.directory).make()

    def order_stop(self) -> None:
        """Have the supervisor end the broker. To close its pipe is not enough: a fork may hold it."""
        if self._supervisor is None or os.getpid() != self._process:
            return
        assert self._supervisor.stdin is not None
        if not self._supervisor.stdin.closed:
            with contextlib.suppress(BrokenPipeError), self._supervisor.stdin as orders:
                orders.write(b"stop\n")

    def stop(self) -> None:
        """Stop the broker that this object started, and leave one that it only found. May be repeated."""
        supervisor, state = self._supervisor, self._state
        self.order_stop()
        self._supervisor = self._state = None
        if supervisor is None or os.getpid() != self._process:
            return
        _code(supervisor)
        if supervisor.stdout is not None:
            supervisor.stdout.close()  # of a broker that nobody waited for
        if state is not None:
            end(state.pid, state.birth, GRACE)  # in case the supervisor was killed

    def detach(self) -> None:
        """Let the broker that this object started run on after this process."""
        supervisor, state = self._own()
        self.check()
        self._state = replace(state, owner=None, owner_birth=None)
        write_state(self.directory, self._state)
        assert supervisor.stdin is not None
        supervisor.stdin.write(b"detach\n")
        supervisor.stdin.close()
        supervisor.returncode = 0  # else its destructor would warn of a process that nobody waits for
        self._supervisor = self._launched = None

    def _started(self) -> State:
        if self._state is None:
            raise LocalKafkaError("the local Kafka was not started, or was stopped")
        return self._state

    def _own(self) -> tuple[subprocess.Popen[bytes], State]:
        state = self._started()
        if self._supervisor is None or not self.owned:
            raise self._not_ours()
        return self._supervisor, state

    def _not_ours(self) -> LocalKafkaError:
        return LocalKafkaError(f"the local Kafka at {self.address} was not started by this object, or was detached")

    def _signal(self, number: signal.Signals) -> None:
        _, state = self._own()
        self.check()
        os.kill(state.pid, number)


def _code(supervisor: subprocess.Popen[bytes]) -> int:
    """The exit code of a supervisor whose broker ends. It kills a broker that takes too long, as we do with itself."""
    try:
        return supervisor.wait(2 * GRACE)
    except subprocess.TimeoutExpired:
        # It is stopped or stuck. It leads a session of its own, so its group is the broker and itself, and the group's
        # number is nobody else's as long as nobody waited for it.
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended at this moment
            os.killpg(supervisor.pid, signal.SIGKILL)
        return supervisor.wait()
