"""Roles as the lines that Kafka keeps of them, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quixframes.errors import SettingsError
from quixframes.grants import Grant, grants_of, lines_of, principal_of, transactional_ids, wanted
from quixframes.kafka import Acl

WHO = "User:pace-model"
names = st.text("ab/%.*-", min_size=1, max_size=4).filter(lambda name: "*" not in name)
grants = st.frozensets(
    st.builds(Grant, st.sampled_from(["read", "write", "group", "own"]), names, st.booleans()), max_size=6
)


@given(grants)
def test_the_roles_can_be_read_off_the_lines_that_they_need(given: frozenset[Grant]) -> None:
    assert grants_of(lines_of(WHO, given)) == given


@given(grants, grants)
def test_more_roles_never_need_fewer_lines(some: frozenset[Grant], more: frozenset[Grant]) -> None:
    """So granting only adds lines, and revoking only removes some."""
    assert lines_of(WHO, some) <= lines_of(WHO, some | more)


@given(grants)
def test_a_role_is_about_what_it_names_its_transactions_and_quixframes_own_topics(given: frozenset[Grant]) -> None:
    named = {("topic", grant.name) for grant in given} | {("group", grant.name) for grant in given}
    own = {("topic", "__quixframes.contracts"), ("topic", "__quixframes.placement")}
    for line in lines_of(WHO, given):
        if line.resource == "transactional_id":
            assert any(line.name.startswith(transactional_ids(g.name)[:-1]) for g in given if g.role == "group")
        else:
            assert (line.resource, line.name) in named | own
        assert (line.principal, line.allowed, line.host) == (WHO, True, "*")


@given(names, names)
def test_the_transactions_of_one_group_are_never_those_of_another(one: str, other: str) -> None:
    """An instance of "pace" must not be able to fence those of "pace/2"."""
    if one != other:
        assert not transactional_ids(other).startswith(transactional_ids(one))


@given(names, names)
def test_a_beginning_of_group_names_covers_the_transactions_of_those_groups_alone(begin: str, group: str) -> None:
    roles = [Grant("group", begin, prefixed=True), Grant("write", "out")]
    (prefix,) = (line.name for line in lines_of(WHO, roles) if line.resource == "transactional_id")
    assert transactional_ids(group).startswith(prefix) == group.startswith(begin)


@given(grants, names)
def test_a_role_covers_another_where_it_allows_whatever_the_other_does(given: frozenset[Grant], name: str) -> None:
    def allows(grant: Grant, role: str, name: str) -> bool:
        same = grant.role == role or (grant.role == "own" and role in ("read", "write"))
        return same and (name.startswith(grant.name) if grant.prefixed else grant.name == name)

    for one in given:
        for other in given:
            if one.covers(other):
                for tried in (name, other.name, other.name + name):
                    assert allows(one, other.role, tried) or not allows(other, other.role, tried)
            else:
                tried = other.name + ("/" if other.prefixed else "")
                assert not allows(one, other.role, tried) or other.prefixed
    assert Grant("own", "*").covers(Grant("write", "car-", prefixed=True))
    assert str(Grant("read", "car-", prefixed=True)) == "read='car-*'"


def test_who_reads_may_not_write_and_who_writes_may_not_read() -> None:
    def on_topic(grants: frozenset[Grant]) -> set[str]:
        return {line.operation for line in lines_of(WHO, grants) if line.name == "engine"}

    assert on_topic(wanted(read="engine")) == {"read", "describe_configs"}
    assert on_topic(wanted(write="engine")) == {"write", "describe_configs"}
    assert on_topic(wanted(own="engine")) == {"all"}


def test_transactions_come_with_a_group_and_something_to_write() -> None:
    def about(**roles: Any) -> set[str]:
        return {line.name for line in lines_of(WHO, wanted(**roles)) if line.resource == "transactional_id"}

    assert about(read="engine", group="pace") == set()
    assert about(write="clean") == set()
    assert about(read="engine", group="pace", write="clean") == {"quixframes/pace/"}
    assert about(group=["pace", "lap*"], own="clean") == {"quixframes/pace/", "quixframes/lap"}
    assert about(group="*", write="clean") == {"quixframes/"}


def test_what_others_allow_or_forbid_is_no_role_of_ours() -> None:
    lines = [
        Acl(WHO, "describe", "topic", "engine"),
        Acl(WHO, "read", "topic", "secret", allowed=False),
        Acl(WHO, "read", "topic", "near", host="10.0.0.1"),
        Acl(WHO, "read", "topic", "__quixframes.contracts"),
        Acl(WHO, "alter", "cluster", "kafka-cluster"),
    ]
    assert grants_of(lines) == frozenset()


def test_names_are_literal_or_end_in_a_star() -> None:
    assert wanted(read=["engine", "car-*", "*"]) == {
        Grant("read", "engine"),
        Grant("read", "car-", prefixed=True),
        Grant("read", "*"),
    }


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: wanted(), "nothing is named"),
        (lambda: wanted(read=""), "read=''"),
        (lambda: wanted(read="a*b"), "a\\*b"),
        (lambda: wanted(write=[None]), "write=None"),  # type: ignore[list-item]
        (lambda: wanted(read=[]), "nothing is named"),
        (lambda: wanted(read=5), "read=5"),  # type: ignore[arg-type]
        (lambda: wanted(write="a b/c"), "cannot be a topic's name"),
        (lambda: wanted(group="pace\n"), "cannot be a group's name"),
        (lambda: wanted(own="__quixframes.contracts"), "come with the others"),
        (lambda: wanted(own="__*"), "come with the others"),
        (lambda: wanted(write="_*"), "come with the others"),
        (lambda: wanted(read="__quixframes.*"), "come with the others"),
        (lambda: principal_of(""), "name of a user"),
        (lambda: principal_of("User:"), "name of a user"),
        (lambda: principal_of("alice\n"), "name of a user"),
        (lambda: principal_of(7), "name of a user"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_granted_is_refused(call: Callable[[], object], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        call()
