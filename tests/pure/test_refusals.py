"""What an error of a missing permission says."""

from __future__ import annotations

import pytest

from quixframes.refusals import denied

ONLY_ADMINISTRATORS = "Only who runs the cluster may"


@pytest.mark.parametrize(
    ("operation", "resource", "name", "remedy"),
    [
        ("read", "topic", "engine", "read='engine')"),
        ("describe", "topic", "engine", "read='engine')"),
        ("write", "topic", "engine", "write='engine')"),
        ("alter_configs", "topic", "engine", "own='engine')"),
        ("read", "topic", "__quixframes.contracts", "read=...), with the topic that it is about"),
        ("write", "topic", "__quixframes.contracts", "own=...), with the topic that it is about"),
        ("write", "topic", "__quixframes.placement", "write=...), with the topic that it is about"),
        ("delete", "topic", "__quixframes.contracts", ONLY_ADMINISTRATORS),
        ("read", "group", "pace", "group='pace')"),
        ("delete", "group", "pace", ONLY_ADMINISTRATORS),
        ("write", "transactional_id", "quixframes/pace%2F2/0", "group='pace/2', write=...)"),
        ("write", "transactional_id", "other", "group=..., write=...)"),
        ("describe", "cluster", "kafka-cluster", ONLY_ADMINISTRATORS),
    ],
)
def test_the_error_names_the_role_that_would_allow_it(operation: str, resource: str, name: str, remedy: str) -> None:
    text = str(denied("it cannot be done", "User:alice", operation, resource, name))
    wanted = remedy if remedy == ONLY_ADMINISTRATORS else f"client.topics.grant('alice', {remedy}"
    assert text.endswith(wanted)
