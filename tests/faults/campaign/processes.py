"""The writers and instances of a campaign: each has a place, in which one process at a time lives."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Member", "Members"]


class Member:
    """The place of one writer or instance, in a namespace of its own or not. One fault at a time has it."""

    def __init__(self, module: str, number: int, options: Path, namespace: str | None = None) -> None:
        self.name = f"{module}-{number}"
        self.number = number
        self.namespace = namespace
        self._module = module
        self._options = options
        self._lives = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._busy = threading.Lock()
        self.wanted = False
        self.ended: list[str] = []  # lives that ended though nobody asked them to

    @property
    def running(self) -> bool:
        """Whether a process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Begin the next life."""
        self.wanted = True
        self._lives += 1
        command = [sys.executable, "-m", f"tests.faults.campaign.{self._module}", str(self._options)]
        command += [str(self.number), str(self._lives)]
        if self.namespace is not None:
            command = ["ip", "netns", "exec", self.namespace, *command]
        with self._log.open("ab") as log:
            log.write(f"--- life {self._lives}, {time.strftime('%H:%M:%S')}\n".encode())
            log.flush()
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if it is there."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        self.wanted = False
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def leave(self, timeout: float = 60.0) -> float:
        """SIGTERM, and wait; how long that took. One that takes longer than ``timeout`` is killed, and noted."""
        self.wanted = False
        assert self._process is not None
        begun = time.monotonic()
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.ended.append(f"{self.name}, life {self._lives}: did not end within {timeout:g} s of SIGTERM")
            self._process.kill()
            self._process.wait()
        return time.monotonic() - begun

    def revive(self) -> None:
        """Start again a process that ended by itself, which is noted."""
        if self.wanted and not self.running and self._busy.acquire(blocking=False):
            try:
                if self.wanted and not self.running and self._process is not None:
                    end = self._log.read_text(errors="replace")[-600:]
                    self.ended.append(f"{self.name}, life {self._lives}: ended with {self._process.returncode}\n{end}")
                    self.start()
            finally:
                self._busy.release()

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Have it for one fault; False when another fault has it."""
        got = self._busy.acquire(blocking=False)
        try:
            yield got
        finally:
            if got:
                self._busy.release()

    @property
    def _log(self) -> Path:
        return self._options.parent / f"{self.name}.log"


class Members:
    """All writers and instances. A thread starts those again that end by themselves."""

    def __init__(self, writers: list[Member], instances: list[Member]) -> None:
        self.writers = writers
        self.instances = instances
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep)

    @property
    def every(self) -> list[Member]:
        """Both kinds."""
        return [*self.writers, *self.instances]

    def ended(self) -> list[str]:
        """Lives that ended though nobody asked them to."""
        return [text for member in self.every for text in member.ended]

    def _keep(self) -> None:
        while not self._stopping.wait(0.5):
            for member in self.every:
                member.revive()

    def __enter__(self) -> Members:
        self._keeper.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._keeper.join()
        for member in self.every:
            if member.running:
                member.signal(signal.SIGCONT)
                member.kill()
