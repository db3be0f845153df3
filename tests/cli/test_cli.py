"""The ``quixframes`` command, as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import quixframes as qf


def command(*arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quixframes.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_it_tells_its_version() -> None:
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"quixframes {qf.__version__}\n")


def test_without_arguments_it_says_what_there_is() -> None:
    done = command()
    assert all(word in done.stdout for word in ("demo", "local"))


def test_an_error_is_one_sentence_without_a_traceback(tmp_path: Path) -> None:
    done = command("demo", "--broker", "127.0.0.1:1", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "Error: " in done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_local_kafka_is_started_found_used_and_stopped(tmp_path: Path) -> None:
    folder = ["--directory", str(tmp_path / "kafka")]
    assert "no Kafka runs here" in command("local", "status", *folder).stdout
    try:
        started = command("local", "start", *folder)
        assert started.returncode == 0, started.stderr
        address = next(word for word in started.stdout.split() if word.startswith("127.0.0.1:"))
        assert address in command("local", "start", *folder).stdout  # found, not started a second time
        assert address in command("local", "status", *folder).stdout
        with qf.StreamingClient(address) as client:
            client.topics.create("engine")
            assert client.topics.list() == ["engine"]
    finally:
        stopped = command("local", "stop", "--remove-data", *folder)
    assert stopped.returncode == 0, stopped.stderr
    assert "no Kafka runs here" in command("local", "status", *folder).stdout
