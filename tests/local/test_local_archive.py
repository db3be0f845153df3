"""Kafka's classes, kept in a form that Java takes over at once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

import quixframes as qf
from quixframes.local_archive import SharedClasses


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A Kafka out of a cache."""
    home = tmp_path / "cache" / "kafka-9.9.9"
    home.mkdir(parents=True)
    (home.parent / "lock").touch()
    (tmp_path / "broker" / "tmp").mkdir(parents=True)
    return home


def java_that(tmp_path: Path, does: str) -> str:
    script = tmp_path / "java"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(stat.S_IRWXU)
    return str(script)


def test_brokers_start_from_the_archive_that_is_made_once_the_first_is_ready(tmp_path: Path) -> None:
    """With the real Kafka, out of the real cache; it may be there already."""
    with qf.LocalKafka(tmp_path / "k", keep=False):
        pass
    with qf.LocalKafka(tmp_path / "k", keep=False) as kafka:
        maps = Path(f"/proc/{kafka.pid}/maps")
        command = Path(f"/proc/{kafka.pid}/cmdline").read_bytes().split(b"\0")
        (archive,) = (word.partition(b"=")[2] for word in command if word.startswith(b"-XX:SharedArchiveFile="))
        assert archive.decode() in maps.read_text()  # Java has taken it, not only been told


def test_the_first_notes_its_classes_and_the_next_has_the_archive(tmp_path: Path, home: Path) -> None:
    java = java_that(tmp_path, 'for word; do case $word in *SharedArchiveFile=*) touch "${word#*=}";; esac; done')
    shared = SharedClasses(java, home, tmp_path / "broker")
    (noting,) = shared.arguments
    classes = Path(noting.removeprefix("-XX:DumpLoadedClassList="))
    shared.make()
    assert shared.arguments == (noting,)  # nothing was noted
    classes.write_text("java/lang/Object\nkafka/Ka")
    shared.make()
    (using,) = shared.arguments
    assert Path(using.removeprefix("-XX:SharedArchiveFile=")).exists()
    assert sorted(path.suffix for path in home.parent.iterdir()) == ["", ".9", ".jsa", ".lock"]


def test_a_java_that_makes_no_archive_is_not_asked_again(tmp_path: Path, home: Path) -> None:
    shared = SharedClasses(java_that(tmp_path, "exit 1"), home, tmp_path / "broker")
    (tmp_path / "broker" / "tmp" / "classes").write_text("java/lang/Object\n")
    shared.make()
    assert shared.arguments == ()
    shared.make()
    assert not [path for path in home.parent.iterdir() if path.suffix in (".jsa", ".partial", ".classes")]


def test_nothing_is_written_beside_somebody_elses_kafka(tmp_path: Path) -> None:
    home = tmp_path / "kafka"
    home.mkdir()
    shared = SharedClasses("java", home, tmp_path)
    shared.make()
    assert shared.arguments == ()
    assert list(tmp_path.iterdir()) == [home]
