"""What a topic is to be like, and what parts it from what it is."""

from __future__ import annotations

import pytest

from quixframes.about import TopicAbout
from quixframes.contracts import Contract, Parameter
from quixframes.errors import SettingsError
from quixframes.kafka import PartitionDescription, TopicDetails
from quixframes.topic_governance import Governance, compare_governance
from quixframes.topic_plan import Applied, Outcome
from quixframes.topic_spec import Difference, TopicSpec, compare

DEFAULTS = {
    "retention.ms": "604800000",
    "segment.ms": "604800000",
    "retention.bytes": "-1",
    "segment.bytes": "1073741824",
    "max.message.bytes": "1048588",
    "compression.type": "producer",
    "min.insync.replicas": "1",
}


def topic(partitions: int = 4, replication: int = 2, **settings: str) -> TopicDetails:
    named = {name.replace("_", "."): value for name, value in settings.items()}
    brokers = tuple(range(1, replication + 1))
    parts = tuple(PartitionDescription(number, 1, brokers, brokers) for number in range(partitions))
    return TopicDetails("engine", "id", parts, DEFAULTS | named, frozenset(named))


def summary(spec: TopicSpec, found: TopicDetails | None, brokers: int = 3) -> list[tuple[str, str, str, bool]]:
    return [(one.item, one.now, one.wanted, one.refusal is None) for one in compare(spec, found, brokers)]


def test_what_a_spec_does_not_say_is_not_managed() -> None:
    assert compare(TopicSpec("engine"), topic(retention_ms="1000"), 3) == ()
    assert TopicSpec("engine").settings(4) == {}


def test_each_difference_is_told_in_the_words_of_the_arguments() -> None:
    spec = TopicSpec(
        "engine",
        partitions=8,
        retention="1 day",
        retention_size="8 GB",
        message_limit="2 MB",
        compression="none",
        min_in_sync=2,
    )
    assert summary(spec, topic()) == [
        ("partitions", "4", "8", True),
        ("retention", "7 days", "1 day", True),
        ("retention_size", "unlimited", "8 GB (1 GB in each of 8 partitions)", True),
        ("message_limit", "1.05 MB", "2 MB", True),
        ("compression", "producer", "none", True),
        ("min_in_sync", "1", "2", True),
    ]


def test_what_is_so_already_is_no_difference() -> None:
    spec = TopicSpec("engine", partitions=4, replication=2, retention="12 hours", retention_size="8 GB")
    made = TopicDetails("engine", "id", topic().partitions, DEFAULTS | spec.settings(4), frozenset())
    assert compare(spec, made, 3) == ()


def test_what_cannot_be_is_refused_with_the_reason() -> None:
    spec = TopicSpec("engine", partitions=2, replication=3, min_in_sync=3)
    assert summary(spec, topic()) == [
        ("partitions", "4", "2", False),
        ("replication", "2", "3", False),
        ("min_in_sync", "1", "3", False),
    ]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (TopicSpec("engine", replication=4), "needs as many brokers, and the cluster has 3"),
        (TopicSpec("engine", min_in_sync=2), "needs replication= too"),
    ],
)
def test_a_new_topic_that_cannot_be_is_refused(spec: TopicSpec, text: str) -> None:
    (found,) = compare(spec, None, 3)
    assert found.item == "topic"
    assert text in (found.refusal or "")


def test_a_size_is_of_the_whole_topic_and_divided_by_partitions() -> None:
    assert TopicSpec("engine", retention_size="50 GB").settings(10)["retention.bytes"] == "5000000000"
    assert TopicSpec("engine", retention_size="unlimited").settings(10)["retention.bytes"] == "-1"


@pytest.mark.parametrize(
    ("retention", "segment"), [("7 days", "60480000"), ("1 hour", "600000"), ("5 s", "5000"), ("2 years", "604800000")]
)
def test_rows_go_soon_after_their_time_since_segments_are_short(retention: str, segment: str) -> None:
    given = "730 days" if retention == "2 years" else retention
    assert TopicSpec("engine", retention=given).settings(1)["segment.ms"] == segment


@pytest.mark.parametrize(
    ("size", "limit", "segment"),
    [("100 MB", None, 25_000_000), ("2 MB", None, 1_048_588), ("2 MB", "5 MB", 5_000_000), ("1 TB", None, 2**30)],
)
def test_a_segment_is_a_part_of_the_size_and_holds_a_message(size: str, limit: str | None, segment: int) -> None:
    found = TopicSpec("engine", retention_size=size, message_limit=limit).settings(1)
    assert found["segment.bytes"] == str(segment)


def test_a_message_limit_over_the_segments_that_are_there_makes_them_larger() -> None:
    (found,) = compare(TopicSpec("engine", message_limit="5 MB"), topic(segment_bytes="2000000"), 3)
    assert found.settings == {"max.message.bytes": "5000000", "segment.bytes": "5000000"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": ""}, "cannot be a topic's name"),
        ({"name": "a/b"}, "cannot be a topic's name"),
        ({"partitions": 0}, "partitions=0 has to be a whole number, 1 or more"),
        ({"retention": "soon"}, "retention='soon' is not a duration"),
        ({"retention_size": "large"}, "retention_size='large' is not a size"),
        ({"compression": "zip"}, "compression='zip' has to be one of producer, none"),
        ({"min_in_sync": 3, "replication": 2}, "is over replication=2"),
        ({"contract": "speed"}, "a str is no contract"),
        ({"stage": 1}, "stage=1"),
        ({"made_from": [""]}, "has to be a list of names of topics"),
    ],
)
def test_a_spec_that_cannot_be_says_why(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        TopicSpec(**{"name": "engine", **arguments})  # type: ignore[arg-type]


def governed(spec: TopicSpec, now: Governance) -> list[tuple[str, str, str, bool]]:
    return [(one.item, one.now, one.wanted, one.refusal is None) for one in compare_governance(spec, now)]


def test_a_spec_says_what_its_rows_are_like_and_what_it_is_for() -> None:
    spec = TopicSpec("clean", contract={"speed": "float64"}, stage="clean", owner="", made_from="engine")
    assert repr(spec) == "TopicSpec('clean', contract=<speed>, stage='clean', owner='', made_from=('engine',))"
    assert str(spec) == "the cluster's defaults"
    assert spec == TopicSpec(
        "clean", contract=Contract({"speed": "float64"}), stage="clean", owner="", made_from=["engine"]
    )
    now = Governance(None, TopicAbout(stage="raw", owner="Ada", description="Speeds"))
    assert governed(spec, now) == [
        ("contract", "none", "speed", True),
        ("stage", "raw", "clean", True),
        ("owner", "Ada", "none", True),
        ("made_from", "none", "engine", True),
    ]
    assert governed(spec, now.after(spec)) == []
    assert now.after(spec).about.description == "Speeds"
    assert governed(TopicSpec("clean"), now) == []


def test_a_contract_that_may_follow_is_a_difference_and_one_that_may_not_is_refused() -> None:
    now = Governance(Contract({"speed": "float64"}))
    added = {"speed": "float64", "gear": Parameter("Int8", required=False)}
    ((item, before, wanted, allowed),) = governed(TopicSpec("clean", contract=added), now)
    assert (item, before, allowed) == ("contract", "speed", True)
    assert wanted.startswith("gear parameter: none → ")
    (refused,) = compare_governance(TopicSpec("clean", contract={"speed": "str"}), now)
    assert "speed dtype: float64 → str" in refused.wanted
    assert "does not go with rows that are there (speed dtype: " in (refused.refusal or "")


def test_a_size_that_was_divided_twice_may_be_a_byte_off() -> None:
    spec = TopicSpec("engine", retention_size="50 GB")
    share = int(spec.settings(4)["retention.bytes"])
    segment = spec.settings(4)["segment.bytes"]
    for off, items in ((1, []), (-1, []), (2, ["retention_size"])):
        found = topic(retention_bytes=str(share + off), segment_bytes=segment)
        assert [item for item, *_ in summary(spec, found)] == items


def test_what_was_applied_is_a_table() -> None:
    done = Outcome(Difference("engine", "partitions", "3", "6"), "done")
    refused = Outcome(Difference("engine", "replication", "1", "3"), "refused", "it is so")
    applied = Applied((done, refused))
    assert (applied.ok, applied.not_done) == (False, (refused,))
    assert list(applied.table["outcome"]) == ["done", "refused"]
    assert "1 done, 1 refused" in repr(applied)
    assert repr(Applied(())) == "<Applied: nothing to do>"
