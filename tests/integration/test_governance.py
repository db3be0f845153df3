"""What is said about topics, the rule for names, and the pipeline that they make: on a real Kafka."""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator

import pandas as pd
import pytest

import quixframes as qf
from quixframes.errors import BrokerError, SettingsError, TopicNotFoundError
from tests.conftest import MakeTopic

Frames = Callable[..., pd.DataFrame]


@pytest.fixture
def name(client: qf.StreamingClient) -> Iterator[str]:
    """A name that no topic has; what it comes to name is removed."""
    name = f"governed-{uuid.uuid4().hex[:8]}"
    yield name
    if client.topics.exists(name):
        client.topics.delete(name)


@pytest.fixture
def own_contracts(client: qf.StreamingClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A topic of contracts of the test's own, for clients made from here on, since a rule for names is everybody's."""
    name = f"__quixframes.test-{uuid.uuid4().hex[:12]}"
    monkeypatch.setattr("quixframes.contract_store.CONTRACTS", name)
    yield name
    if client.topics.exists(name):
        client.topics.delete(name)


def test_what_is_said_about_a_topic_is_kept_in_kafka_for_every_client(broker_address: str, topic: str) -> None:
    with qf.StreamingClient(broker_address) as client:
        assert client.topics.about(topic) == qf.TopicAbout()
        client.topics.set_about(topic, stage="clean", owner="Ada", made_from=["engine"], model="cleaner")
        client.topics.set_contract(topic, {"speed": "float64"})
        client.topics.set_about(topic, description="Speeds, without outliers", owner="")
    with qf.StreamingClient(broker_address) as client:
        assert client.topics.about(topic) == qf.TopicAbout(
            "clean", None, "Speeds, without outliers", ("engine",), "cleaner"
        )
        assert list(client.topics.contract(topic).parameters) == ["speed"]
        client.topics.remove_contract(topic)
        assert client.topics.about(topic).stage == "clean"


def test_what_was_said_about_a_topic_goes_with_it(client: qf.StreamingClient, topic: str) -> None:
    client.topics.set_about(topic, stage="raw")
    client.topics.delete(topic)
    assert client.topics.about(topic) == qf.TopicAbout()
    with pytest.raises(TopicNotFoundError, match=topic):
        client.topics.set_about(topic, stage="raw")
    client.topics.create(topic)
    assert client.topics.about(topic) == qf.TopicAbout()


def test_one_call_makes_a_governed_topic(client: qf.StreamingClient, name: str) -> None:
    client.topics.create(
        name,
        partitions=2,
        contract={"speed": "float64"},
        stage="clean",
        owner="Ada",
        made_from="engine",
        model="cleaner",
    )
    assert client.topics.describe(name).partitions == 2
    assert client.topics.contract(name) == qf.Contract({"speed": "float64"})
    assert client.topics.about(name) == qf.TopicAbout("clean", "Ada", None, ("engine",), "cleaner")
    with pytest.raises(BrokerError, match="exists already"):
        client.topics.create(name, contract={"other": "int64"}, stage="raw")
    assert client.topics.contract(name) == qf.Contract({"speed": "float64"})
    assert client.topics.about(name).stage == "clean"


def test_a_topic_that_is_made_on_open_is_governed_when_it_is_first_written(
    client: qf.StreamingClient, name: str
) -> None:
    spec = qf.TopicSpec(name, contract={"speed": "float64"}, stage="raw")
    with client.open_output_topic(name, create=spec) as out, pytest.raises(qf.ContractError, match="pace"):
        out.write(pd.DataFrame({"time": [pd.Timestamp("2026-11-01")], "pace": [1.0]}), stream="car-44")
    assert client.topics.about(name).stage == "raw"


def test_a_topic_that_could_not_be_made_leaves_nothing_behind(client: qf.StreamingClient, name: str) -> None:
    with pytest.raises(BrokerError):
        client.topics.create(name, message_limit="3 GB", contract={"speed": "float64"}, stage="raw")
    assert client.topics.contract(name) is None
    assert client.topics.about(name) == qf.TopicAbout()


def test_a_topic_takes_over_nothing_of_one_that_another_tool_removed(client: qf.StreamingClient, name: str) -> None:
    client.topics.create(name, contract={"speed": "float64"}, stage="raw")
    client._get_admin().delete(name)  # as any other tool would
    client.topics.create(name, owner="Ada")
    assert client.topics.contract(name) is None
    assert client.topics.about(name) == qf.TopicAbout(owner="Ada")


def test_contract_and_purpose_are_a_part_of_the_desired_state(
    client: qf.StreamingClient, name: str, make_topic: MakeTopic
) -> None:
    there = make_topic(contract={"speed": "float64"}, stage="raw", owner="Ada")
    specs = [
        qf.TopicSpec(name, partitions=2, contract={"speed": "float64"}, stage="clean", made_from=[there]),
        qf.TopicSpec(
            there,
            contract={"speed": "float64", "gear": qf.Parameter("Int8", required=False)},
            stage="raw",
            owner="",
            description="As it comes",
        ),
    ]
    planned = client.topics.apply(specs, dry_run=True)
    assert planned.table[["topic", "item", "now", "outcome"]].to_numpy().tolist() == [
        [name, "topic", "none", "to do"],
        [name, "contract", "none", "to do"],
        [name, "stage", "none", "to do"],
        [name, "made_from", "none", "to do"],
        [there, "contract", "speed", "to do"],
        [there, "owner", "Ada", "to do"],
        [there, "description", "none", "to do"],
    ]
    assert client.topics.about(there).owner == "Ada"
    assert client.topics.apply(specs).ok
    assert client.topics.contract(name) == qf.Contract({"speed": "float64"})
    assert client.topics.about(name) == qf.TopicAbout("clean", made_from=(there,))
    assert list(client.topics.contract(there).parameters) == ["speed", "gear"]
    assert client.topics.about(there) == qf.TopicAbout("raw", description="As it comes")
    assert set(client.topics.apply(specs).table["outcome"]) == {"as it is to be"}
    breaks = client.topics.apply([qf.TopicSpec(there, contract={"speed": "str"}, stage="clean")])
    assert breaks.table[["item", "outcome"]].to_numpy().tolist() == [["stage", "done"], ["contract", "refused"]]
    assert "force=True" in repr(breaks)


def test_a_rule_for_names_holds_for_every_client_that_creates_a_topic(
    broker_address: str, own_contracts: str, make_topic: MakeTopic
) -> None:
    with qf.StreamingClient(broker_address) as one, qf.StreamingClient(broker_address) as other:
        assert other.topics.naming() is None
        one.topics.set_naming(r"(raw|clean)-.+", "say the stage first, as in raw-engine")
        name = uuid.uuid4().hex
        with pytest.raises(SettingsError, match=rf"'{name}' is no name for a topic here: say the stage first"):
            other.topics.create(name)
        assert not one.topics.exists(name)
        planned = other.topics.apply([qf.TopicSpec(name, stage="raw")], dry_run=True)
        assert list(planned.table["outcome"]) == ["refused", "refused"]
        other.topics.create(f"raw-{name}")
        other.topics.delete(f"raw-{name}")
        one.topics.set_naming(None)
        other.topics.create(name)
        other.topics.delete(name)


def chain(client: qf.StreamingClient, make_topic: MakeTopic) -> tuple[str, str, str]:
    """Three topics, each made from the one before."""
    raw, clean, results = make_topic(2), make_topic(), make_topic()
    client.topics.set_about(raw, stage="raw", owner="Ada")
    client.topics.set_about(clean, stage="clean", made_from=[raw], model=f"{raw}-cleaner")
    client.topics.set_about(results, stage="results", made_from=[clean], model=f"{raw}-pace")
    return raw, clean, results


def read(client: qf.StreamingClient, topic: str, group: str) -> None:
    with client.open_input_topic(topic, group) as opened:
        for batch in opened.batches(until="now"):
            batch.commit()


def test_a_pipeline_has_rates_and_lag_on_its_arrows_and_no_breach(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: Frames
) -> None:
    raw, clean, results = names = chain(client, make_topic)
    cleaner, pace, dashboard = f"{raw}-cleaner", f"{raw}-pace", f"{raw}-dashboard"
    for topic in names:
        with client.open_output_topic(topic) as out:
            out.write(make_frame(10), stream="car-44")
    for topic, group in zip(names, (cleaner, pace, dashboard), strict=True):
        read(client, topic, group)
    with client.open_output_topic(raw) as out:
        for n in range(11):
            out.write(make_frame(10, start=10 * n + 10), stream="car-44")
    found = client.pipeline(names, window="10 min")
    assert found.edges[["source", "by", "target"]].fillna("").to_numpy().tolist() == sorted(
        [[raw, cleaner, clean], [clean, pace, results], [results, dashboard, ""]], key=lambda edge: names.index(edge[0])
    )
    edges = found.edges.set_index("by")
    assert edges["lag"].to_dict() == {cleaner: 11, pace: 0, dashboard: 0}
    assert edges.loc[cleaner, "rate"] == pytest.approx(found.topics.loc[raw, "messages"] / 600)
    assert found.topics.loc[raw, ["stage", "owner"]].tolist() == ["raw", "Ada"]
    assert found.breaches.empty
    assert f"lag 11 ─▶ [{cleaner}]" in repr(found)
    assert "<svg" in found._repr_html_()
    parsed = ElementTree.fromstring(found.to_svg())
    assert cleaner in "".join(parsed.itertext())


def test_a_pipeline_tells_what_breaks_the_rules(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: Frames
) -> None:
    raw, clean, results = names = chain(client, make_topic)
    with client.open_output_topic(raw, contract=None) as out:
        out.write(make_frame(10).astype({"n": "str"}), stream="car-44")
        out.write(make_frame(10), stream="car-44")
    client.topics.set_contract(raw, qf.Contract({"n": "int64"}, additional=True))
    lone = make_topic()
    client.topics.set_about(clean, stage="prototype")
    client.topics.set_about(raw, made_from=[results])
    found = client.pipeline([*names, lone]).breaches.set_index("kind")
    assert found.loc["does not conform", ["topic", "group"]].tolist() == [raw, f"{raw}-cleaner"]
    assert found.loc["does not conform", "detail"].startswith("1 of the 2 newest messages do not keep")
    assert found.loc["prototype in production", "topic"] == results
    assert found.loc["orphan", "topic"] == lone
    assert set(found.index) == {"does not conform", "prototype in production", "orphan", "cycle"}


def test_a_pipeline_of_all_topics_leaves_out_none_and_one_that_is_not_there_is_an_error(
    client: qf.StreamingClient, topic: str
) -> None:
    assert topic in client.pipeline().topics.index
    with pytest.raises(TopicNotFoundError, match="no-such-topic"):
        client.pipeline("no-such-topic")
    assert client.pipeline([]).topics.empty
