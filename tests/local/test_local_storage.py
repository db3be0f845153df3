"""The storage of a new broker, of which the second needs no Java."""

from __future__ import annotations

from pathlib import Path

import pytest

from quixframes.errors import LocalKafkaError
from quixframes.local_storage import format_storage

NO_JAVA = ["false"]
FEATURES = Path("data/__cluster_metadata-0/00000000000000000000-0000000000.checkpoint")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A Kafka out of a cache in which the features of its version are kept."""
    home = tmp_path / "cache" / "kafka-9.9.9"
    home.mkdir(parents=True)
    (home.parent / "lock").touch()
    (home.parent / "kafka-9.9.9-storage.checkpoint").write_bytes(b"features")
    (tmp_path / "broker" / "data").mkdir(parents=True)
    (tmp_path / "broker" / "tmp").mkdir()
    return home


def make(folder: Path, home: Path, properties: dict[str, str] | None = None, users: tuple[str, ...] = ()) -> None:
    format_storage(NO_JAVA, folder, {"node.id": "3", **(properties or {})}, "CLUSTER", 5, home=home, users=users)


def test_a_later_broker_begins_with_what_the_tool_made_for_the_first(tmp_path: Path, home: Path) -> None:
    make(tmp_path / "broker", home)
    text = (tmp_path / "broker" / "data" / "meta.properties").read_text()
    facts = dict(line.split("=") for line in text.splitlines())
    assert len(facts.pop("directory.id")) == 22
    assert facts == {"version": "1", "cluster.id": "CLUSTER", "node.id": "3"}
    assert (tmp_path / "broker" / FEATURES).read_bytes() == b"features"
    make(tmp_path / "broker", home)
    assert (tmp_path / "broker" / "data" / "meta.properties").read_text() == text  # it has one


@pytest.mark.parametrize("why", ["users", "unstable features", "another Kafka"])
def test_where_the_storage_may_be_another_the_tool_is_asked(tmp_path: Path, home: Path, why: str) -> None:
    properties = {"unstable.feature.versions.enable": "true"} if why == "unstable features" else {}
    with pytest.raises(LocalKafkaError, match="storage could not be made"):
        make(
            tmp_path / "broker",
            tmp_path if why == "another Kafka" else home,
            properties,
            ("--add-scram=...",) if why == "users" else (),
        )


def test_where_the_tool_fails_neither_passwords_nor_the_programs_own_login_are_told(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIXFRAMES_PASSWORD", "tyres-and-fuel")
    tool = ["sh", "-c", "env; cat tmp/format; exit 1"]
    users = ["--add-scram=SCRAM-SHA-512=[name=alice,password=oil-and-brakes]"]
    with pytest.raises(LocalKafkaError, match=r"\[name=alice,password=\*\*\*\]") as caught:
        format_storage(tool, tmp_path / "broker", {"node.id": "3"}, "CLUSTER", 5, home=home, users=users)
    assert "oil-and-brakes" not in str(caught.value)
    assert "tyres-and-fuel" not in str(caught.value)
    assert "PATH=" in str(caught.value)
