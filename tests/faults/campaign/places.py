"""Where a campaign runs, and what of it this machine permits: lines that can be cut, and a disk that can be full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

__all__ = ["SmallDisk", "Wire"]


class Wire:
    """The process of :mod:`wire` with its namespaces, or the reason why there is none."""

    def __init__(self, lines: int, seed: int, log: Path) -> None:
        self.why_not = ""
        self.namespaces = [f"quixframes-{os.getpid()}-{number}" for number in range(lines)]
        if os.geteuid() or not os.access("/dev/net/tun", os.W_OK):
            self._none("this needs root, network namespaces and /dev/net/tun")
            return
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.campaign.wire", str(seed), *self.namespaces],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._process.wait()
            self._none(f"the namespaces could not be made: {log.read_text()[-300:]}")

    def _none(self, why: str) -> None:
        self.why_not = why
        self.namespaces = []

    def order(self, line: int, command: str) -> None:
        """``cut``, ``slow DELAY_MS LOSS_PERCENT KBIT`` or ``clear``."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line} {command}\n")
        self._process.stdin.flush()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: object, trace: TracebackType | None) -> None:
        if not self.why_not:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


class SmallDisk:
    """A file system of its own for one broker's folder, that can be filled to the last byte; or why there is none."""

    def __init__(self, place: Path, megabytes: int = 2_000) -> None:
        place.mkdir(parents=True, mode=0o700)
        self._place = place
        self._ballast = place / "ballast"
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "none", str(place)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        self.why_not = f"no file system could be mounted: {done.stderr.strip()}" if done.returncode else ""

    def fill(self) -> None:
        """Leave no byte free, also when somebody gives some back."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 24, 1 << 16, 1 << 12):
                try:
                    while True:
                        ballast.write(b"\0" * size)
                except OSError:
                    continue

    def clear(self) -> None:
        """Give all of it back."""
        self._ballast.unlink(missing_ok=True)

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: object, trace: TracebackType | None) -> None:
        self.clear()
        if not self.why_not:
            subprocess.run(["umount", "--lazy", str(self._place)], check=False, capture_output=True)
