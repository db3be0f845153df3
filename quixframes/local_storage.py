"""The storage of a new broker. Kafka's own tool makes it; what it has made once, later brokers begin with.

The tool is another start of Java, a third of the time that a broker takes to start. What it writes is an ID, and a list
of the features that brokers of its version have: that list is kept in the cache, for each version. The tool is always
asked where users come with the storage, and for a Kafka that is not out of the cache.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from quixframes.errors import LocalKafkaError
from quixframes.local_folder import open_own, tail
from quixframes.local_packages import beside
from quixframes.local_process import environment

__all__ = ["format_storage"]

_FEATURES = Path("__cluster_metadata-0", "00000000000000000000-0000000000.checkpoint")


def format_storage(
    java: Sequence[str],
    directory: Path,
    properties: Mapping[str, str],
    cluster: str,
    timeout: float,
    *,
    home: Path,
    users: Sequence[str] = (),
) -> None:
    """Make the storage of a new broker of that cluster, unless the folder has one.

    ``users`` are arguments that make users. They hold passwords, so all go by way of a file: everybody on the machine
    can read a command line.
    """
    data = directory / "data"
    if (data / "meta.properties").exists():
        return
    kept = _kept(home, properties, users)
    if kept is not None and kept.exists():
        _copy(kept, data, properties, cluster)
        return
    arguments = directory / "tmp" / "format"
    words = ["format", f"--cluster-id={cluster}", "--config=broker.properties", *users]
    _write(arguments, "".join(f"{word}\n" for word in words).encode("latin-1"))
    tool = [*java, "kafka.tools.StorageTool", "@tmp/format"]
    try:
        done = subprocess.run(  # nosec B603  # Kafka's own tool, with Java from a package
            tool,
            cwd=directory,
            env=environment(),
            umask=0o077,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise LocalKafkaError(f"the local Kafka's storage could not be made: {exc}") from exc
    finally:
        arguments.unlink()
    if done.returncode:
        said = f"{done.stdout}{done.stderr}{tail(directory)}"  # what it does not take, the tool repeats
        for password in re.findall(r"password=([^\]]+)", " ".join(users)):
            said = said.replace(password, "***")
        raise LocalKafkaError(f"the local Kafka's storage could not be made\n{said}")
    if kept is not None:
        with contextlib.suppress(OSError):  # then the next broker asks the tool again
            partial = kept.with_name(f"{kept.name}.{uuid.uuid4().hex}")
            partial.write_bytes((data / _FEATURES).read_bytes())
            partial.replace(kept)


def _kept(home: Path, properties: Mapping[str, str], users: Sequence[str]) -> Path | None:
    """Where the features are kept, if they may be."""
    if users or any("unstable" in name for name in properties):
        return None
    return beside(home, "storage.checkpoint")


def _copy(kept: Path, data: Path, properties: Mapping[str, str], cluster: str) -> None:
    """What the tool would write."""
    (data / _FEATURES).parent.mkdir(mode=0o700, parents=True)
    _write(data / _FEATURES, kept.read_bytes())
    own = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    facts = {"version": "1", "cluster.id": cluster, "node.id": properties["node.id"], "directory.id": own}
    partial = data / "meta.properties.partial"
    _write(partial, "".join(f"{name}={value}\n" for name, value in facts.items()).encode())
    os.replace(partial, data / "meta.properties")  # last: it says that all is there


def _write(path: Path, content: bytes) -> None:
    with open_own(path) as file:
        file.write(content)
