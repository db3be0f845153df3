"""A secured local Kafka, from its start to its removal."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import quixframes as qf
from quixframes.local_secure import LocalSecurity
from tests.secrets_kept import keep

COMMAND = [sys.executable, "-m", "quixframes.cli", "local"]


def register(directory: Path) -> None:
    keep(*LocalSecurity(directory).passwords().values())


def test_of_three_secured_brokers_one_may_fail_and_come_back_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    with qf.LocalKafka(folder, brokers=3, secure=True, keep=False) as kafka:
        register(folder)
        with qf.StreamingClient(kafka.address, security=kafka.security()) as client:
            client.topics.create("engine", partitions=3)
            assert client.topics.describe("engine").replication == 3
            kafka.broker(1).kill()
            client.topics.create("clean", partitions=3, replication=2)
            kafka.broker(1).restart()
            assert client.topics.list() == ["clean", "engine"]
    assert not folder.exists()


@pytest.mark.parametrize("name", ["my folder", "🏎"])
def test_a_folder_where_kafka_would_not_find_its_key_is_refused(tmp_path: Path, name: str) -> None:
    kafka = qf.LocalKafka(tmp_path / name, secure=True, keep=False)
    with pytest.raises(qf.LocalKafkaError, match=f"cannot be in .*{name}: .*name another one"):
        kafka.start()
    with pytest.raises(qf.LocalKafkaError, match="not started with secure=True"):
        kafka.security()


def test_in_a_folder_that_others_may_look_into_they_can_read_neither_topics_nor_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIXFRAMES_PASSWORD", "tyres-and-fuel")  # of another cluster: no business of this one
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    before = os.umask(0o022)
    try:
        with qf.LocalKafka(folder, secure=True, keep=False) as kafka:
            register(folder)
            with qf.StreamingClient(kafka.address, security=kafka.security()) as client:
                client.topics.create("engine", partitions=1)
            started = [psutil.Process(kafka.pid), *psutil.Process(kafka.pid).parents()[:1]]
            assert not any("QUIXFRAMES_PASSWORD" in process.environ() for process in started)
            open_to_others = {
                path.relative_to(folder).parts[0]
                for path in folder.rglob("*")
                if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) and not path.is_dir()
            }
    finally:
        os.umask(before)
    assert open_to_others <= {"quixframes-kafka.txt", "log4j2.properties"}


def test_from_the_shell_a_secured_kafka_is_started_used_by_its_profile_restarted_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "kafka"
    words = ["--directory", str(folder)]
    try:
        started = subprocess.run([*COMMAND, "start", "--secure", *words], capture_output=True, text=True, timeout=120)
        assert started.returncode == 0, started.stderr
        register(folder)
        for told in ("secure/ca.pem", "secure/profiles.toml", "--profile admin", "admin, alice, bob", "SCRAM-SHA-512"):
            assert told in started.stdout
        passwords = LocalSecurity(folder).passwords()
        assert not any(password in started.stdout + started.stderr for password in passwords.values())
        code = "import quixframes as qf; print(qf.StreamingClient.from_profile('admin').topics.list())"
        environ = {**os.environ, "QUIXFRAMES_CONFIG": str(folder / "secure" / "profiles.toml")}
        listed = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
        assert listed.stdout == "[]\n", listed.stderr
        commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
        assert not any(password in line for password in passwords.values() for line in commands)
        subprocess.run([*COMMAND, "stop", *words], check=True, capture_output=True, timeout=60)
        with qf.LocalKafka(folder) as kafka:  # secured as before, without being asked to
            assert LocalSecurity(folder).passwords() == passwords
            with qf.StreamingClient(kafka.address, security=kafka.security("admin", "PLAIN")) as client:
                assert client.topics.list() == []
    finally:
        subprocess.run([*COMMAND, "stop", "--remove-data", *words], check=True, capture_output=True, timeout=60)
    assert not folder.exists()
