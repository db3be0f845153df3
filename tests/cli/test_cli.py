"""The ``quixframes`` command, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import quixframes as qf

COMMAND = [sys.executable, "-m", "quixframes.cli"]


def command(*arguments: str, timeout: float = 90, path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
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


@pytest.mark.parametrize(
    ("package", "extra"),
    [("rich", "cli"), ("typer", "cli"), ("sklearn", "demo"), ("plotly", "demo"), ("matplotlib", "demo")],
)
def test_a_missing_package_names_the_extra_that_brings_it(tmp_path: Path, package: str, extra: str) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('none', name={package!r})")
    done = command("demo", path=str(tmp_path))
    assert done.returncode == 1
    assert package in done.stderr
    assert f'pip install "quixframes[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_demo_with_everything_closed(
    tmp_path: Path, broker_address: str, session_client: qf.StreamingClient, number: signal.Signals, code: int
) -> None:
    arguments = ["demo", "--broker", broker_address, "--out", str(tmp_path)]
    pipe = subprocess.PIPE
    # What a shell's background ignores, its children ignore: the demo has to hear what it is sent.
    heard = {"preexec_fn": lambda: signal.signal(number, signal.SIG_DFL)}
    with subprocess.Popen([*COMMAND, *arguments], stdout=pipe, stderr=pipe, text=True, **heard) as demo:
        assert demo.stdout is not None
        assert any("January to September" in line for line in demo.stdout)  # reads until then
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == code
    assert "Traceback" not in errors
    assert not [topic for topic in session_client.topics.list() if topic.startswith("weather-")]
