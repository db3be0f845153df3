"""What is said about topics, and the rule for their names, as text and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quixframes as qf
from quixframes.errors import SettingsError

TEXT = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
ABOUTS = st.builds(
    qf.TopicAbout,
    stage=TEXT,
    owner=TEXT,
    description=TEXT,
    made_from=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), max_size=4),
    model=TEXT,
)


@given(ABOUTS)
def test_what_is_said_about_a_topic_survives_as_text(about: qf.TopicAbout) -> None:
    assert qf.TopicAbout.from_json(about.to_json()) == about


def test_nothing_is_nothing_however_it_is_said() -> None:
    assert qf.TopicAbout(stage="", made_from=[]) == qf.TopicAbout()


def test_one_topic_may_be_given_by_its_name_alone_and_twice_is_once() -> None:
    assert qf.TopicAbout(made_from="raw").made_from == ("raw",)  # type: ignore[arg-type]
    assert qf.TopicAbout(made_from=["a", "b", "a"]).made_from == ("a", "b")  # type: ignore[arg-type]


def test_fields_of_a_later_quixframes_are_left_out_and_a_later_version_is_an_error() -> None:
    assert qf.TopicAbout.from_json('{"quixframes": "about", "version": 1, "stage": "raw", "price": 7}').stage == "raw"
    with pytest.raises(SettingsError, match="upgrade quixframes"):
        qf.TopicAbout.from_json('{"quixframes": "about", "version": 2}')


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"quixframes": "contract"}', b"\xff"])
def test_what_is_no_such_text_is_refused(text: str | bytes) -> None:
    with pytest.raises(SettingsError, match="no JSON"):
        qf.TopicAbout.from_json(text)
    with pytest.raises(SettingsError, match="no JSON"):
        qf.NamingRule.from_json(text)


@pytest.mark.parametrize("fields", [{"stage": 7}, {"owner": "\ud800"}, {"made_from": 7}, {"made_from": [""]}])
def test_what_is_no_text_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(fields))):
        qf.TopicAbout(**fields)  # type: ignore[arg-type]


def test_a_rule_for_names_is_of_the_whole_name_and_says_what_is_wanted() -> None:
    rule = qf.NamingRule(r"(raw|clean)-[a-z]+", "say the stage first, as in raw-engine")
    assert rule.allows("raw-engine")
    with pytest.raises(SettingsError, match=r"'my-raw-engine' is no name.*as in raw-engine.*\(raw\|clean\)-"):
        rule.check("my-raw-engine")
    assert qf.NamingRule.from_json(rule.to_json()) == rule


@pytest.mark.parametrize("pattern", ["", "(", 7, None])
def test_what_is_no_regular_expression_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError, match="regular expression|has to be text"):
        qf.NamingRule(pattern)
