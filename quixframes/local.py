"""A real Apache Kafka on this machine, from packages: no Docker, no installation.

One broker, or a cluster of several, in KRaft's combined mode on the loopback interface, whose data, settings and logs
lie in one visible folder:

- A broker ends with its owner (the process that started it), however that ends, unless it was detached. A supervisor
  beside it sees to that; only when that one was killed as well does the broker stay, until :func:`stop`.
- Nobody stops what it did not start: a process that finds a broker running in the folder uses it, and leaves it.
- A process is known by its ID *and* the moment of its birth, so a stale state file leads to no stranger's process.
- Started means usable: the broker has answered a client, made an internal topic and leads it.

In the folder: ``quixframes-kafka.txt`` (the mark that it is ours), ``data`` (the topics), ``tmp``,
``broker.properties``, ``log4j2.properties``, ``broker.log``, ``console.log``, ``state.json`` (while a broker can be
used), ``start.lock`` (held while one is started) and ``broker.lock`` (held as long as a broker lives). A cluster has a
folder like that for each broker: ``broker-1``, ``broker-2`` and so on. A secured one also has ``secure``, with
certificates and passwords.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from quixframes.errors import LocalKafkaError, SettingsError
from quixframes.local_broker import GRACE, Launch, LocalBroker
from quixframes.local_folder import (
    State,
    claim,
    claimed,
    cluster_id,
    data_bytes,
    folder_of,
    last_ports,
    places_for,
    places_in,
    read_state,
    remove,
    tail,
)
from quixframes.local_packages import Progress, java_command, kafka_home, version_of
from quixframes.local_process import HOST, end, free_port, locked, refuse_taken, usable
from quixframes.local_properties import Node, checked, properties, secured
from quixframes.local_secure import LocalSecurity
from quixframes.security import Mechanism, Security

__all__ = ["KAFKA_VERSION", "LocalBroker", "LocalKafka", "LocalStatus", "start", "status", "stop"]

KAFKA_VERSION = "4.4.0"
"""The version that is fetched: the one place where it stands."""


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """What there is to say of a folder's broker, or of its cluster.

    ``owner`` is the process whose end will end it: None when it is detached or does not run. ``uptime`` is in seconds;
    ``data_bytes`` is what the topics take on the disk, also while nothing runs. ``brokers`` is how many it has, and
    ``pids`` are the processes of those that run; ``pid`` is the first of them. ``secure`` is the folder of a secured
    one's certificates and ``profiles.toml``, and ``mtls_address`` where it is reached by a certificate.
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
    brokers: int = 0
    pids: tuple[int, ...] = ()
    mtls_address: str | None = None
    secure: Path | None = None


class LocalKafka:
    """A broker in a folder: started, or found running there. ``with LocalKafka() as kafka: kafka.address``.

    Args:
        directory: The folder of its data, settings and log. Default: this user's shared one, ``QUIXFRAMES_KAFKA_DIR``
            or ``~/.cache/quixframes/kafka``; with ``keep=False``, a new temporary one. It may hold other things, but
            one that holds files under the broker's names (such as ``data``) which no local Kafka made is refused.
        brokers: How many: one, or a cluster of 3 to 7, of which any one may fail: topics have three replicas, of which
            two have to be in sync, unless they are made otherwise. Default: as many as the folder has, or one.
        secure: True for TLS everywhere, users with passwords and certificates, and permissions: who is not ``admin``
            may do what ``admin`` granted. :meth:`security` is how to connect. Default: as the folder has, or False.
        port: Where it listens, on 127.0.0.1; the brokers of a cluster at this and the following ones. Default: as the
            last time in this folder if free, else any free port.
        keep: Whether the data stay when the broker is stopped. False removes all that the broker made in the folder,
            and the folder if nothing else is in it; data of a broker that was only found are never touched. (Data of
            an owner that was killed stay, too.)
        detached: True lets the broker run on after this process, until :func:`stop`; leaving the ``with`` block does
            not stop it either. Default: it ends with :meth:`stop`, or else with this process, even a killed one.
        heap: A broker's heap, as Java writes sizes. Default: 512m for one, 384m for each of a cluster.
        settings: More broker properties, over the defaults above. Those that say where it listens are ours.
        progress: How the fetching of packages at the first use is shown.
        timeout: Seconds that the broker may take to start.

    A broker that runs in the folder already is used as it is, and left running by :meth:`stop`; its owner stops it,
    even while others use it. Asking for another port, another number of brokers or other ``settings`` than it has is
    an error.

    Raises:
        SettingsError: a setting that cannot be.
        LocalKafkaError: packages missing and not to be had, the port taken, a folder that holds somebody's files under
            the broker's names, holds another number of brokers or belongs to another user, or a broker that did not
            start.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        brokers: int | None = None,
        secure: bool | None = None,
        port: int | None = None,
        keep: bool = True,
        detached: bool = False,
        heap: str | None = None,
        settings: Mapping[str, object] | None = None,
        progress: Progress = True,
        timeout: float = 60.0,
    ) -> None:
        if brokers not in (None, 1, 3, 4, 5, 6, 7):
            raise SettingsError(f"brokers={brokers!r}: one, or 3 to 7; with two, neither could go on without the other")
        if port is not None and not 0 < port < 65536:
            raise SettingsError(f"port={port!r}: a port is between 1 and 65535; None takes a free one")
        if heap is not None and not re.fullmatch(r"[1-9][0-9]*[kKmMgG]", heap):
            raise SettingsError(f"heap={heap!r}: write a size as Java does, such as 512m or 2g")
        if not keep and detached:
            raise SettingsError("keep=False, detached=True: nobody would be there to remove the data")
        self._temporary = directory is None and not keep
        self._directory = None if self._temporary else folder_of(directory)
        self._settings = checked(settings or {})
        self._count = brokers
        self._secure = secure
        self._port = port
        self._keep = keep
        self._detached = detached
        self._heap = heap
        self._progress = progress
        self._timeout = timeout
        self._brokers: list[LocalBroker] = []
        self._process = os.getpid()

    def start(self) -> Self:
        """Start the broker, or find the one that runs in the folder. Returns when a client can use it."""
        if self.running:
            return self
        self._end()  # brokers that died since
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
        owned = self.owned
        self._end()
        if owned and not self._keep:
            with contextlib.suppress(LocalKafkaError), locked(self.directory / "start.lock", GRACE):
                remove(self.directory)

    def detach(self) -> None:
        """Let the broker that this object started run on after this process, until :func:`stop`."""
        for broker in self._started():
            broker.detach()

    def restart(self) -> None:
        """Stop the broker that this object started, if it still runs, and start it on the same port and data."""
        brokers = self._started()
        launches = [broker.launched for broker in brokers]
        _stop(brokers)
        with locked(self.directory / "start.lock", self._timeout):
            _start(brokers, launches, self._timeout)

    def broker(self, number: int) -> LocalBroker:
        """One of the brokers, counted from 1: to know its process, to kill, pause, resume or restart just this one."""
        brokers = self._started()
        if not 0 < number <= len(brokers):
            raise LocalKafkaError(f"there is no broker {number}: they are numbered from 1 to {len(brokers)}")
        return brokers[number - 1]

    def pause(self) -> None:
        """Freeze the lone broker (SIGSTOP): see :meth:`LocalBroker.pause`."""
        self._lone().pause()

    def resume(self) -> None:
        """Let the lone broker go on that was paused (SIGCONT)."""
        self._lone().resume()

    def kill(self) -> None:
        """Kill the lone broker (SIGKILL): see :meth:`LocalBroker.kill`."""
        self._lone().kill()

    @property
    def running(self) -> bool:
        """Whether the broker's process is there; of a cluster, whether any of them is."""
        return any(broker.running for broker in self._brokers)

    @property
    def owned(self) -> bool:
        """Whether this object started the broker, and so will stop it."""
        return any(broker.owned for broker in self._brokers)

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, for any Kafka client; of a cluster, those of all brokers, with commas between."""
        return ",".join(broker.address for broker in self._started())

    @property
    def mtls_address(self) -> str:
        """Where a secured one is reached by a certificate, without a password."""
        return _mtls_address(self._started()) or self._unsecured()

    @property
    def secured(self) -> bool:
        """Whether it is reached by TLS and a login only."""
        return self._directory is not None and LocalSecurity(self._directory).exists

    def security(self, user: str = "admin", mechanism: Mechanism | None = "SCRAM-SHA-512") -> Security:
        """How a user connects to a secured one: ``StreamingClient(kafka.address, security=kafka.security("alice"))``.

        Args:
            user: "admin", who may do everything; or "alice" or "bob", who may do what they are granted.
            mechanism: how to log in. None: by the user's certificate alone, at :attr:`mtls_address`.

        Raises:
            LocalKafkaError: it is not secured.
            SettingsError: there is no such user.
        """
        if not self.secured:
            self._unsecured()
        return LocalSecurity(self.directory).security(user, mechanism)

    @property
    def pid(self) -> int:
        """The lone broker's process ID."""
        return self._lone().pid

    @property
    def directory(self) -> Path:
        """The folder of data, settings and log."""
        if self._directory is None:
            raise LocalKafkaError("a temporary local Kafka has no folder before it was started")
        return self._directory

    def check(self) -> None:
        """Raise LocalKafkaError, with the tail of its log, when the broker, or one of the cluster, has died."""
        for broker in self._started():
            broker.check()

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its console, if it wrote there, then of its log; of all brokers in turn."""
        return "\n".join(filter(None, (tail(place, lines) for place in places_in(self.directory))))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        if not self._brokers:
            return f"<LocalKafka in {self._directory or 'a temporary folder'}: not started>"
        detached = any(broker.detached for broker in self._brokers)
        how = "started here" if self.owned else "detached" if detached else "found running"
        how = how if self.running else "died"
        pids = ", ".join(str(broker.pid) for broker in self._brokers if broker.running) or "none"
        return f"<LocalKafka {self.address} in {self._directory}: pid {pids}, {how}>"

    def _unsecured(self) -> NoReturn:
        raise LocalKafkaError(
            f"the local Kafka in {self._directory or 'a temporary folder'} was not started with secure=True"
        )

    def _started(self) -> list[LocalBroker]:
        if not self._brokers:
            raise LocalKafkaError("the local Kafka was not started, or was stopped")
        return self._brokers

    def _lone(self) -> LocalBroker:
        brokers = self._started()
        if len(brokers) > 1:
            raise LocalKafkaError(f"there are {len(brokers)} brokers: name one, as in kafka.broker(1)")
        return brokers[0]

    def _end(self) -> None:
        brokers, self._brokers = self._brokers, []
        _stop(brokers)

    def _members(self) -> list[LocalBroker]:
        """The brokers that the folder has, or is to have. LocalKafkaError: it has another number of them."""
        places = places_in(self.directory)
        if self._count is not None and places and len(places) != self._count:
            raise LocalKafkaError(
                f"{self.directory} holds a Kafka of {len(places)} broker{'s' * (len(places) > 1)}, not {self._count}: "
                "name another folder"
            )
        if self._secure is not None and places and self.secured != self._secure:
            raise LocalKafkaError(
                f"{self.directory} holds a Kafka {'with' if self.secured else 'without'} security, "
                f"and secure={self._secure} was asked for: name another folder"
            )
        places = places or places_for(self.directory, self._count or 1)
        return [LocalBroker(n, place, self.directory / "start.lock") for n, place in enumerate(places, 1)]

    def _attach(self) -> bool:
        """Take the brokers that run in the folder, if any does; the caller holds the lock."""
        members = self._members()
        found = {broker: state for broker in members if (state := broker.attach()) is not None}
        if not found:
            return False
        if self._port not in (None, members[0].port):
            raise LocalKafkaError(
                f"in {self.directory} a broker runs already, on port {members[0].port}, not {self._port}"
            )
        settings = next(iter(found.values())).settings
        if self._settings and self._settings != settings:
            raise LocalKafkaError(f"in {self.directory} a broker runs already, with other settings: {settings}")
        deadline = time.monotonic() + GRACE
        tls = LocalSecurity(self.directory).context() if self.secured else None
        while not any(usable(broker.mtls_port or state.port, tls) for broker, state in found.items()):
            if time.monotonic() > deadline:
                pids = ", ".join(str(state.pid) for state in found.values())
                raise LocalKafkaError(
                    f"in {self.directory} a broker runs (pid {pids}) but does not answer\n{self.log_tail()}"
                )
            time.sleep(0.05)
        self._brokers = members
        return True

    def _launch(self, java: str, home: Path) -> None:
        """Start the brokers, on other ports when the chosen ones were taken meanwhile; the caller holds the lock."""
        members = self._members()
        for attempt in range(5):
            nodes = self._nodes(members, again=attempt > 0)
            try:
                self._run(members, nodes, java, home)
            except LocalKafkaError as exc:
                taken = "Address already in use" in self.log_tail(1000) or "is taken" in str(exc)
                if self._port or not taken:
                    raise
                continue
            self._brokers = members
            if self._detached:
                self.detach()
            return
        raise LocalKafkaError(f"five ports on {HOST} were each taken while the broker started")

    def _nodes(self, members: Sequence[LocalBroker], *, again: bool) -> list[Node]:
        """Where the brokers are to listen: at the port that was asked for, else where they did last, else anywhere."""
        nodes: list[Node] = []
        used: set[int] = set()

        def choose(preferred: int | None) -> int:
            port = free_port(preferred, avoid=used)
            used.add(port)
            return port

        if self._port:
            for number in range(len(members)):
                refuse_taken(self._port + number)
            used.update(range(self._port, self._port + len(members)))
        for index, broker in enumerate(members):
            client, controller, mtls = (None if again else last_ports(broker.directory)) or (None, None, None)
            port = self._port + index if self._port else choose(client)
            mtls = choose(mtls) if self._secure or self.secured else None
            nodes.append(Node(broker.number, HOST, port, choose(controller), mtls))
        return nodes

    def _run(self, members: Sequence[LocalBroker], nodes: Sequence[Node], java: str, home: Path) -> None:
        cluster = cluster_id(broker.directory for broker in members)
        security = LocalSecurity(self.directory) if self._secure or self.secured else None
        if security is not None:
            security.make()
            security.tell(*(",".join(f"{HOST}:{port}" for port in ports) for ports in _client_ports(nodes)))
        launches = [
            Launch(
                java=java,
                home=home,
                version=version_of(home),
                heap=self._heap or ("512m" if len(nodes) == 1 else "384m"),
                port=node.port,
                properties=_properties(node, nodes, self._settings, security),
                settings=self._settings,
                cluster=cluster,
                timeout=self._timeout,
                security=security,
                mtls_port=node.mtls_port,
            )
            for node in nodes
        ]
        _start(members, launches, self._timeout)


def _client_ports(nodes: Sequence[Node]) -> tuple[list[int], list[int]]:
    return [node.port for node in nodes], [node.mtls_port for node in nodes if node.mtls_port is not None]


def _mtls_address(brokers: Sequence[LocalBroker]) -> str | None:
    ports = [broker.mtls_port for broker in brokers]
    return None if None in ports else ",".join(f"{HOST}:{port}" for port in ports)


def _properties(
    node: Node, nodes: Sequence[Node], settings: Mapping[str, str], security: LocalSecurity | None
) -> dict[str, str]:
    if security is None:
        return properties(node, nodes, settings)
    folder = security.folder.name if len(nodes) == 1 else f"../{security.folder.name}"
    return properties(node, nodes, {}) | secured(node, security.passwords(), folder, security.jwks) | dict(settings)


def _start(brokers: Sequence[LocalBroker], launches: Sequence[Launch], timeout: float) -> None:
    """Start these brokers and wait until they are usable; whatever fails, no process stays."""
    deadline = time.monotonic() + timeout
    try:
        with ThreadPoolExecutor(len(brokers)) as pool:  # the storage of each takes a second to make
            list(pool.map(LocalBroker.launch, brokers, launches))
        for broker in brokers:
            broker.await_ready(deadline)
    except BaseException:
        _stop(brokers)
        raise


def _stop(brokers: Sequence[LocalBroker]) -> None:
    """Stop those of the brokers that were started here, all at once: the last of a cluster has nobody to wait for."""
    for broker in brokers:
        broker.order_stop()
    for broker in brokers:
        broker.stop()


def start(
    directory: str | os.PathLike[str] | None = None,
    *,
    brokers: int | None = None,
    secure: bool | None = None,
    port: int | None = None,
    heap: str | None = None,
    settings: Mapping[str, object] | None = None,
    progress: Progress = True,
) -> LocalStatus:
    """Start a detached broker in the folder (default: the shared one), or find the one that runs there; see LocalKafka.

    A broker that another process owns stays that process's: the result's ``owner`` says so.
    """
    kafka = LocalKafka(
        directory,
        brokers=brokers,
        secure=secure,
        port=port,
        detached=True,
        heap=heap,
        settings=settings,
        progress=progress,
    )
    return status(kafka.start().directory)


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
            running = _running(folder)
            for state in running:
                if state.owner_lives and not force:
                    raise LocalKafkaError(f"the broker in {folder} belongs to process {state.owner}, and ends with it")
            if running:
                with ThreadPoolExecutor(len(running)) as pool:
                    list(pool.map(_end_detached, running))
            if remove_data:
                remove(folder)
    return status(folder)


def status(directory: str | os.PathLike[str] | None = None) -> LocalStatus:
    """What is in the folder (default: the shared one). Starts, stops and waits for nothing."""
    folder = folder_of(directory)
    size = data_bytes(folder)
    running = _running(folder)
    if not running:
        return LocalStatus(running=False, directory=folder, data_bytes=size)
    places = places_in(folder) or [folder]
    ports = [found[0] for place in places if (found := last_ports(place))] or [state.port for state in running]
    first = running[0]
    security = LocalSecurity(folder)
    mtls = [f"{HOST}:{found[2]}" for place in places if (found := last_ports(place)) and found[2] is not None]
    return LocalStatus(
        running=True,
        directory=folder,
        address=",".join(f"{HOST}:{port}" for port in ports),
        pid=first.pid,
        version=first.version,
        owner=first.owner,
        detached=first.owner is None,
        uptime=time.time() - min(state.started for state in running),
        data_bytes=size,
        brokers=len(places),
        pids=tuple(state.pid for state in running),
        mtls_address=",".join(mtls) or None,
        secure=security.folder if security.exists else None,
    )


def _running(folder: Path) -> list[State]:
    """The brokers of the folder whose processes are there."""
    states = (read_state(place) for place in places_in(folder) or [folder])
    return [state for state in states if state is not None and state.running]


def _end_detached(state: State) -> None:
    end(state.pid, state.birth, GRACE)
    with contextlib.suppress(ChildProcessError):  # it is our child if this process started and detached it
        os.waitpid(state.supervisor, 0)
