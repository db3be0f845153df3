"""Kafka's classes in the form in which Java takes them over at once, kept in the cache: a start takes half the work.

It is a class-data sharing archive (JEP 310). The first broker of a version notes which classes it loads; once it is
ready, an archive of them is made, which takes some seconds, once. Java looks by itself whether an archive fits its
version and these jars, and does without it where it does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from quixframes.local_packages import beside
from quixframes.local_process import environment, hold

__all__ = ["SharedClasses"]

_TIMEOUT = 120.0


class SharedClasses:
    """The archive for one Java and one Kafka; none where the Kafka is not out of the cache.

    Args:
        java: the command.
        home: the folder of Kafka's jars.
        directory: the broker's folder.
    """

    def __init__(self, java: str, home: Path, directory: Path) -> None:
        self._java = java
        self._classes = directory / "tmp" / "classes"
        self._path = f"{home}/libs/*"
        self._archive = beside(home, f"{hashlib.sha256(str(Path(java).resolve()).encode()).hexdigest()[:12]}.jsa")

    @property
    def arguments(self) -> Sequence[str]:
        """What Java has to be told, so that it uses the archive; or, where there is none, notes what it loads."""
        if self._archive is None or self._failed:
            return ()
        if self._archive.exists():
            return (f"-XX:SharedArchiveFile={self._archive}",)
        return (f"-XX:DumpLoadedClassList={self._classes}",)

    def make(self) -> None:
        """Make the archive out of what a broker has noted, unless it is there. Whatever fails, brokers do without."""
        archive = self._archive
        if archive is None or archive.exists() or self._failed or not self._classes.exists():
            return
        with contextlib.suppress(OSError), archive.with_suffix(".lock").open("w") as lock:
            if not hold(lock.fileno()) or archive.exists():
                return  # another broker is at it
            partial, noted = archive.with_suffix(".partial"), archive.with_suffix(".classes")
            try:
                # The broker may be in the middle of a line.
                noted.write_bytes(self._classes.read_bytes().rpartition(b"\n")[0] + b"\n")
                self._dump(noted, partial)
                partial.replace(archive)
            except (OSError, subprocess.SubprocessError):
                self._no_archive.touch()
            finally:
                noted.unlink(missing_ok=True)
                partial.unlink(missing_ok=True)

    def _dump(self, noted: Path, archive: Path) -> None:
        tool = [self._java, "-Xshare:dump", "-XX:+UseSerialGC", f"-XX:SharedClassListFile={noted}"]
        tool += [f"-XX:SharedArchiveFile={archive}", "-cp", self._path]
        subprocess.run(  # nosec B603  # Java from a package
            tool, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=True
        )

    @property
    def _failed(self) -> bool:
        """Whether this Java cannot do it: not to be tried at each start."""
        return self._no_archive.exists()

    @property
    def _no_archive(self) -> Path:
        assert self._archive is not None
        return self._archive.with_suffix(".none")
