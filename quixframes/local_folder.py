"""The folder of a local broker: its settings, its log, its storage, and the note that says which process serves it.

- A folder is ours once it holds our mark. The mark is the first thing that we make and the last that we remove, and no
  folder gets it that holds somebody's files under our names: so what is removed under these names was always ours.
- The note decides which process is signalled. It is believed only if this user wrote it, and if it can be true.
- Topics, logs and settings are this user's alone, also in a folder that others may look into.
- Paths in the broker's files are relative to the folder, so that its name needs no escapes.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from quixframes.errors import LocalKafkaError
from quixframes.local_packages import cache_home
from quixframes.local_process import alive

__all__ = [
    "State",
    "claim",
    "claimed",
    "cluster_id",
    "data_bytes",
    "find",
    "folder_of",
    "last_ports",
    "open_own",
    "places_for",
    "places_in",
    "prepare",
    "read_state",
    "remove",
    "tail",
    "write_state",
]

_LOGS = ("console.log", "broker.log", "broker.log.1")
_FILES = ("data", "tmp", "secure", *_LOGS, "broker.properties", "log4j2.properties", "state.json", "state.json.partial")
_LOCKS = ("start.lock", "broker.lock")
_MARK = "quixframes-kafka.txt"
_MARK_TEXT = f"""\
In this folder quixframes keeps a local Kafka. It makes, changes and removes here:
{", ".join(sorted(_FILES + _LOCKS))}
and, if it is a cluster, folders broker-1, broker-2 and so on, each like this one.
"""

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
class State:
    """A running broker, as its owner wrote it down once the broker was ready. ``owner`` None: detached.

    TypeError or ValueError: a note that nobody can have written in earnest. The numbers of processes will be signalled,
    and to a system -1 means everybody.
    """

    pid: int
    birth: str
    supervisor: int
    port: int
    version: str
    started: float
    settings: dict[str, str]
    owner: int | None
    owner_birth: str | None

    def __post_init__(self) -> None:
        processes: list[tuple[object, object, int]] = [(self.pid, self.birth, 2), (self.supervisor, "unknown", 2)]
        if (self.owner, self.owner_birth) != (None, None):
            processes.append((self.owner, self.owner_birth, 1))  # never signalled; in a container it may be the first
        for pid, born, least in processes:
            if type(pid) is not int or type(born) is not str:
                raise TypeError(f"process {pid!r}, born {born!r}")
            if pid < least or not born:
                raise ValueError(f"process {pid!r}, born {born!r}")
        if type(self.port) is not int or type(self.started) is not float:
            raise TypeError(f"port {self.port!r}, started {self.started!r}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port {self.port!r}")
        if type(self.version) is not str or type(self.settings) is not dict:
            raise TypeError(f"version {self.version!r}, settings {self.settings!r}")

    @property
    def running(self) -> bool:
        """Whether the broker's process is there."""
        return alive(self.pid, self.birth)

    @property
    def owner_lives(self) -> bool:
        """Whether the broker has an owner, and its process is there."""
        return self.owner is not None and self.owner_birth is not None and alive(self.owner, self.owner_birth)


def folder_of(directory: str | os.PathLike[str] | None) -> Path:
    """The folder that is meant: this user's shared one when none is named."""
    if directory is None:
        directory = os.environ.get("QUIXFRAMES_KAFKA_DIR") or cache_home() / "kafka"
    return Path(directory).expanduser().resolve()


def claimed(directory: Path) -> bool:
    """Whether the folder holds our mark, so that what it has under our names is ours."""
    return os.path.isfile(directory / _MARK)


def places_for(directory: Path, brokers: int) -> list[Path]:
    """The folders of that many brokers, in order: the folder itself for one, else a sub-folder for each."""
    return [directory] if brokers == 1 else [directory / f"broker-{n}" for n in range(1, brokers + 1)]


def places_in(directory: Path) -> list[Path]:
    """The folders of the brokers that the folder has, in order; none when no broker was ever started there."""
    if not claimed(directory):
        return []
    return _places_of_cluster(directory) or ([directory] if (directory / "broker.properties").exists() else [])


def _places_of_cluster(directory: Path) -> list[Path]:
    places = (directory / f"broker-{n}" for n in itertools.count(1))
    return list(itertools.takewhile(claimed, places))


def claim(directory: Path) -> None:
    """Make the folder, which others cannot look into, and set our mark. LocalKafkaError: it is not ours to use."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_uid != os.getuid():
            raise LocalKafkaError(f"{directory} belongs to another user: name a folder of your own")
        # In this order: somebody who claims the folder at this moment sets the mark before anything else. Our locks
        # are empty, and may be there before the mark.
        taken = [name for name in _FILES if os.path.lexists(directory / name)]
        taken += [name for name in _LOCKS if (directory / name).exists() and (directory / name).stat().st_size]
        if claimed(directory):
            return
        if taken:
            raise LocalKafkaError(
                f"{directory} holds {', '.join(sorted(taken))}, which no local Kafka made and none will touch: "
                f"name a folder of its own, such as {directory / 'kafka'}"
            )
        (directory / _MARK).write_text(_MARK_TEXT)
    except OSError as exc:
        raise LocalKafkaError(f"{directory} cannot be written: {exc.strerror}") from exc


def prepare(directory: Path, properties: Mapping[str, str]) -> None:
    """Write the broker's settings, make room for its files and forget the last log."""
    claim(directory)  # again, now that the locks are ours: who ended a broker may have removed the folder meanwhile
    shutil.rmtree(directory / "tmp", ignore_errors=True)
    (directory / "tmp").mkdir()
    for name in _LOGS:
        (directory / name).unlink(missing_ok=True)
    (directory / "log4j2.properties").write_text(_LOGGING)
    text = "".join(f"{name}={value}\n" for name, value in properties.items())
    _write_own(directory / "broker.properties", text)  # it may hold passwords


def remove(directory: Path) -> None:
    """Remove what the broker and we made in the folder, and the folder if nothing else is there."""
    if not claimed(directory):
        return
    for place in _places_of_cluster(directory):
        remove(place)
    for name in _FILES:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if _places_of_cluster(directory) or any(os.path.lexists(directory / name) for name in _FILES):
        return  # what could not be removed stays known as ours
    for name in (_MARK, *_LOCKS):  # the locks last: who waits for one finds a folder without a mark, and sets it
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def tail(directory: Path, lines: int = 30) -> str:
    """The last lines of what the broker wrote: of its console, if it wrote there, then of its log."""
    parts = []
    for name in _LOGS[:2]:
        with contextlib.suppress(FileNotFoundError):
            text = (directory / name).read_text(errors="replace").splitlines()[-lines:]
            if text:
                parts.append("\n".join([f"--- the end of {directory / name}", *text]))
    return "\n".join(parts)


def data_bytes(directory: Path) -> int:
    """What the topics take on the disk. Kafka's index files are long but mostly holes, which do not count."""
    size = 0
    files = (path for place in places_in(directory) for path in (place / "data").rglob("*"))
    for path in files:
        with contextlib.suppress(FileNotFoundError):  # a running broker removes files while they are counted
            size += path.stat().st_blocks * 512
    return size


def write_state(directory: Path, state: State) -> None:
    """Note which process serves the folder; a reader sees the whole note or none."""
    partial = directory / "state.json.partial"
    _write_own(partial, json.dumps(asdict(state)))  # among the user's settings may be passwords
    partial.replace(directory / "state.json")


def read_state(directory: Path) -> State | None:
    """The note of the folder, true or not by now; None when there is none that this user wrote."""
    try:
        # Not blocking: a pipe of that name would wait for its writer.
        descriptor = os.open(directory / "state.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or {found.st_uid, directory.stat().st_uid} != {os.getuid()}:
                return None
            return State(**json.load(file))
    except (OSError, ValueError, TypeError):  # none, cut off, forged, or written by another version
        return None


def find(directory: Path) -> State | None:
    """The broker that can be used in the folder: it is alive, and so is its owner, without whom it is about to end."""
    state = read_state(directory)
    if state is None or not state.running:
        return None
    return state if state.owner is None or state.owner_lives else None


def cluster_id(places: Iterable[Path]) -> str:
    """The ID that the storage of these folders has, or a new one."""
    for place in places:
        with contextlib.suppress(FileNotFoundError):
            found = re.search(r"(?m)^cluster\.id=(\S+)", (place / "data" / "meta.properties").read_text())
            if found:
                return found[1]
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def open_own(path: Path) -> IO[bytes]:
    """A new file that others cannot read, open to be written."""
    path.unlink(missing_ok=True)
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _write_own(path: Path, text: str) -> None:
    with open_own(path) as file:
        file.write(text.encode("latin-1"))


def last_ports(directory: Path) -> tuple[int, int, int | None] | None:
    """The ports of the folder's last broker: for clients, for the controllers of its cluster, and, if it is secured,
    for those who log in by a certificate."""
    try:
        text = (directory / "broker.properties").read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"(?m)^listeners=\w+://[^:]+:(\d+),CONTROLLER://[^:]+:(\d+)(?:,MTLS://[^:]+:(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3]) if found[3] else None) if found else None
