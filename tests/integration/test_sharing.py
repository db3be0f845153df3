"""Instances of one group share a topic's partitions; what goes from one to another goes whole."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pandas as pd
import pytest

import quixframes as qf
from quixframes import CommitMode, ReaderSettings
from tests.waiting import wait_for

MakeFrame = Callable[..., pd.DataFrame]
MakeTopic = Callable[..., str]


def fill(client: qf.StreamingClient, topic: str, frame: pd.DataFrame, streams: int) -> None:
    with client.open_output_topic(topic) as out:
        for n in range(streams):
            out.write(frame, stream=f"s{n}")


def settled(*inputs: qf.InputTopic, partitions: int) -> Callable[[], bool]:
    """Whether every partition has its reader."""
    return lambda: sum(len(each.partitions) for each in inputs) == partitions


def test_of_four_instances_on_three_partitions_one_is_idle_until_another_leaves(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so, and takes over."""
    caplog.set_level("INFO", logger="quixframes")
    topic = make_topic(partitions=3)
    with ExitStack() as stack:
        inputs = [stack.enter_context(client.open_input_topic(topic, group)) for _ in range(4)]
        assert wait_for(lambda: sorted(len(each.partitions) for each in inputs) == [0, 1, 1, 1], 60)
        (idle,) = (each for each in inputs if not each.partitions)
        assert "no partitions" in repr(idle)
        assert wait_for(lambda: "has no partition for this instance" in caplog.text)
        leaving = next(each for each in inputs if each.partitions)
        taken = leaving.partitions
        leaving.close()
        assert wait_for(lambda: idle.partitions == taken or settled(*inputs, partitions=3)(), 60)
        assert wait_for(lambda: sorted(len(each.partitions) for each in inputs) == [0, 1, 1, 1], 60)


def test_another_group_reads_everything_from_the_start_untouched_by_the_first(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    topic = make_topic(partitions=3)
    fill(client, topic, make_frame(100), 6)
    for name in (group, f"{group}-2"):
        with client.open_input_topic(topic, name) as read:
            assert qf.run(lambda frame: None, read, until="now").processed == 600


@contextmanager
def looping(
    topic: qf.InputTopic, seen: list[tuple[str, int]], pause: float, **rules: object
) -> Iterator[threading.Event]:
    """Process batches in a thread, each for a while, and note what was finished."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for batch in topic.batches(duration="200ms", timeout=None, **rules):  # type: ignore[arg-type]
                time.sleep(pause)
                if topic.commit_settings.mode is CommitMode.Automatic or batch.commit():
                    seen.extend((batch.stream_id, n) for n in batch.frame["n"])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(30)


@pytest.mark.parametrize("mode", list(CommitMode))
@pytest.mark.parametrize("assignment", ["cooperative-sticky", "range"])
def test_what_an_instance_has_in_hand_is_finished_before_its_partition_goes(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame, mode: CommitMode,
    assignment: str,
) -> None:  # fmt: skip
    """So while others come and go, every row is processed once: none is lost, and none comes again."""
    topic = make_topic(partitions=3)
    fill(client, topic, make_frame(600), 6)
    reader = ReaderSettings(assignment=assignment)  # type: ignore[arg-type]
    seen: list[tuple[str, int]] = []
    everything = {(f"s{n}", row) for n in range(6) for row in range(600)}
    with client.open_input_topic(topic, group, mode, reader=reader) as first, looping(first, seen, 0.02, rows=20):
        assert wait_for(lambda: seen)
        for _ in range(2):
            with (
                client.open_input_topic(topic, group, mode, reader=reader) as other,
                looping(other, seen, 0.02, rows=20),
            ):
                assert wait_for(lambda other=other: other.partitions, 60)
                count = len(seen)
                wait_for(lambda count=count: len(seen) > count + 400, 5)
        assert wait_for(lambda: set(seen) == everything, 60)
        assert len(seen) == len(everything)
        accounts = first.accounts().sum()
        assert accounts["rows_in"] == accounts.drop("rows_in").sum()


def test_a_batch_that_takes_longer_than_the_handover_comes_again_elsewhere_and_its_commit_says_so(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    """No error to the model; and the group does not wait for it longer than that."""
    topic = make_topic(partitions=2)
    fill(client, topic, make_frame(10), 8)
    reader = ReaderSettings(revoke_timeout="1s")
    with client.open_input_topic(topic, group, CommitMode.Manual, reader=reader) as first:
        loop = first.batches(rows=10)
        batches = [next(loop) for _ in range(8)]
        with client.open_input_topic(topic, group, CommitMode.Manual) as second:
            begun = time.monotonic()
            assert wait_for(lambda: len(second.partitions) == 1, 60)
            assert time.monotonic() - begun < 15
            (gone,) = second.partitions
            assert wait_for(lambda: gone not in first.partitions)
            results = {batch.stream_id: batch.commit() for batch in batches}
            assert results == {batch.stream_id: batch.partition != gone.number for batch in batches}
            again = {batch.stream_id for batch in second.batches(until="now")}
            assert again == {stream for stream, committed in results.items() if not committed}
        loop.close()
        accounts = first.accounts().loc[topic]
        assert accounts.loc[gone.number, "let_go"] == 10 * len(again)


def test_a_rolling_restart_of_static_members_moves_no_partition(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    topic = make_topic(partitions=3)
    moves: list[object] = []
    hooks = qf.Hooks(assigned=moves.append, revoked=moves.append, lost=moves.append)

    def opened(number: int) -> qf.InputTopic:
        reader = ReaderSettings(instance_id=f"model-{number}", session_timeout="30s")
        return client.open_input_topic(topic, group, reader=reader, hooks=hooks)

    inputs = [opened(number) for number in range(3)]
    try:
        assert wait_for(lambda: [len(each.partitions) for each in inputs] == [1, 1, 1], 60)
        before = [each.partitions for each in inputs]
        for number in range(3):
            inputs[number].close()
            moves.clear()
            inputs[number] = opened(number)
            assert wait_for(lambda number=number: inputs[number].partitions == before[number], 60)
            assert moves == [before[number]]  # its own, and nobody else's
        assert [each.partitions for each in inputs] == before
    finally:
        for each in inputs:
            each.close()


def test_several_topics_are_read_as_one_and_streams_of_one_id_stay_apart(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame
) -> None:
    one, other = make_topic(partitions=2), make_topic()
    with client.open_output_topic(one) as out, client.open_output_topic(other) as out2:
        for name, topic in (("first", out), ("second", out2)):
            stream = topic.get_or_create_stream("car")
            stream.properties.name = name
            stream.parameters.write(make_frame(50 if name == "first" else 30))
    with client.open_input_topic([one, other], group, CommitMode.Manual) as read:
        assert read.topics == sorted([one, other])
        found = {batch.topic: (batch.stream.properties.name, len(batch)) for batch in read.batches(until="now")}
        assert found == {one: ("first", 50), other: ("second", 30)}
        assert read.commit()
        assert {at.topic for at in read.partitions} == {one, other}
    with client.open_input_topic([other, one], group) as read:
        assert list(read.batches(until="now")) == []


def test_a_pattern_finds_topics_that_are_made_later(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, make_frame: MakeFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("quixframes.poller._TOPICS_EVERY", 0.5)
    first, unlike = make_topic(), make_topic()
    word = re.escape(first.rpartition("-")[2])
    later = f"{first}-later"
    with client.open_input_topic(re.compile(f".*{word}.*"), group) as read:
        assert read.topics == [first]
        assert unlike not in read.topics
        client.topics.create(later)
        try:
            fill(client, later, make_frame(10), 1)
            assert [batch.topic for batch in read.batches(max_rows=10, idle="20s")] == [later]
            assert read.topics == [first, later]
        finally:
            client.topics.delete(later)
        fill(client, first, make_frame(10), 1)
        assert [batch.topic for batch in read.batches(max_rows=10, idle="20s")] == [first]


def test_topics_that_cannot_be_are_refused(client: qf.StreamingClient, topic: str, group: str) -> None:
    with pytest.raises(qf.SettingsError, match="has to be a topic's name"):
        client.open_input_topic([], group)
    with pytest.raises(qf.TopicNotFoundError, match="no topic's name matches"):
        client.open_input_topic(re.compile("there-is-none-like-this"), group)
    with pytest.raises(qf.TopicNotFoundError, match="there-is-none"):
        client.open_input_topic([topic, "there-is-none"], group)


def test_a_pattern_that_is_given_as_text_is_told_how_to_be_one(client: qf.StreamingClient) -> None:
    with pytest.raises(qf.SettingsError, match=r"re\.compile\('engine-\.\*'\)"):
        client.open_input_topic("engine-.*")
