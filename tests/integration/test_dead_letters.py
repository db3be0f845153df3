"""Dead letters on a real Kafka: untouched, committed once they are there and no sooner, listed and sent back."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pandas as pd
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

import quixframes as qf
from quixframes import CommitMode, CommitSettings
from quixframes.kafka import Outgoing
from quixframes.kafka_python import KafkaPython
from quixframes.settings import Connection
from tests.integration.cluster import committed

MakeFrame = Callable[..., pd.DataFrame]
MakeTopic = Callable[..., str]
Foreign = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]

NEVER = CommitSettings(every="1 hour", rows=10**9)
HEADERS: list[tuple[str, bytes | None]] = [("trace", b"\x00\xff"), ("none", None), ("trace", b"again"), ("empty", b"")]
FOREIGN: list[Foreign] = [
    (b"car-44", b"\x00\xff not ours", HEADERS),
    (None, b"no key", [("none", None)]),
    (b"car-44", None, []),  # a tombstone
    (None, None, []),
    (b"", b"", []),
    (b"\xff", b'{"speed": 1}', [("__streams.errors.offset", b"5")]),
]


def write_foreign(broker_address: str, topic: str, messages: list[Foreign], partition: int = 0) -> None:
    """By the adapter: bare kafka-python writes no header without a value."""
    producer = KafkaPython().producer(Connection.of(broker_address), qf.WriterSettings())
    told: list[Exception | None] = []
    for key, value, headers in messages:
        producer.send(Outgoing(topic, key, value, headers, partition), told.append)
    producer.close(20)
    assert told == [None] * len(messages)


def everything(broker_address: str, topic: str) -> list[Foreign]:
    """What a topic holds, as Kafka's own tools see it; the reasons left out."""
    return [(record.key, record.value, list(record.headers)[:-6]) for record in bare(broker_address, topic)]


def bare(broker_address: str, topic: str) -> list:
    consumer = KafkaConsumer(bootstrap_servers=broker_address)
    places = [TopicPartition(topic, n) for n in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(places)
    consumer.seek_to_beginning()
    left = sum(consumer.end_offsets(places).values())
    found: list = []
    while len(found) < left:
        found += [record for records in consumer.poll(timeout_ms=200).values() for record in records]
    consumer.close()
    return found


def rows_of(read: qf.InputTopic, **rules: object) -> list[int]:
    return [n for batch in read.batches(until="now", **rules) for n in batch.frame["n"]]  # type: ignore[arg-type]


# What goes there


def test_kafka_s_tools_see_untouched_bytes_and_the_reason_behind_them(
    client: qf.StreamingClient,
    make_topic: MakeTopic,
    make_frame: MakeFrame,
    group: str,
    broker_address: str,
) -> None:
    topic, dead = make_topic(), make_topic()
    write_foreign(broker_address, topic, FOREIGN[:3])
    with client.open_output_topic(topic) as output:
        output.write(make_frame(10), stream="car-44")
    write_foreign(broker_address, topic, FOREIGN[3:])
    with client.open_input_topic(topic, group, dead_letters=dead) as read:
        assert rows_of(read) == list(range(10))
        assert (read.dead_lettered, read.bad_messages) == (6, 0)
    assert everything(broker_address, dead) == FOREIGN
    reasons = [dict(list(record.headers)[-6:]) for record in bare(broker_address, dead)]
    assert [int(reason["__streams.errors.offset"]) for reason in reasons] == [0, 1, 2, 4, 5, 6]
    first = {name.removeprefix("__streams.errors."): content.decode() for name, content in reasons[0].items()}
    assert (first["topic"], first["partition"]) == (topic, "0")
    assert first["exception"] == "quixframes.errors.ForeignMessageError"
    assert first["message"] == f"{topic}[0]@0: it has no qf.version header, so quixframes did not write it"
    assert first["stacktrace"].startswith("Traceback")


def test_a_damaged_message_of_ours_goes_there_and_the_rows_around_it_are_read(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    source, topic, dead = make_topic(), make_topic(), make_topic()
    with client.open_output_topic(source) as output:
        for start in range(0, 30, 10):
            output.write(make_frame(10, start=start), stream="s")
    sound = [(record.key, record.value, list(record.headers)) for record in bare(broker_address, source)]
    damaged = (sound[1][0], sound[1][1][:-40] + b"\xee" * 8, sound[1][2])
    future = (sound[1][0], sound[1][1], [("qf.version", b"99"), *sound[1][2][1:]])
    write_foreign(broker_address, topic, [sound[0], damaged, future, sound[2]])
    with client.open_input_topic(topic, group, dead_letters=dead) as read:
        assert rows_of(read) == [*range(10), *range(20, 30)]
        assert read.sequence_faults.loc["s"].tolist() == [0, 1, 0]  # both have the same number, and neither is missing
    assert everything(broker_address, dead) == [damaged, future]
    letters = client.dead_letters(dead)
    assert letters["exception"].str.rsplit(".").str[-1].tolist() == ["DamagedMessageError", "FutureVersionError"]


def test_dead_letters_of_a_key_stay_together_and_those_without_keep_their_partition_s_number(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, broker_address: str
) -> None:
    topic, dead = make_topic(partitions=5), make_topic(partitions=3)
    for partition in range(5):
        write_foreign(broker_address, topic, [(None, b"x", []), (b"car-44", b"y", [])], partition)
    with client.open_input_topic(topic, group, dead_letters=dead) as read:
        assert rows_of(read) == []
    letters = client.dead_letters(dead)
    without = letters[letters["key"].isna()].sort_values("partition")
    assert without["dead_partition"].tolist() == [0, 1, 2, 0, 1]
    assert letters.loc[letters["key"].notna(), "dead_partition"].nunique() == 1
    assert len(letters) == 10


def test_a_fault_in_a_stream_s_order_is_no_dead_letter(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    source, topic, dead = make_topic(), make_topic(), make_topic()
    with client.open_output_topic(source) as output:
        for start in range(0, 30, 10):
            output.write(make_frame(10, start=start), stream="s")
    sound = [(record.key, record.value, list(record.headers)) for record in bare(broker_address, source)]
    write_foreign(broker_address, topic, [sound[0], sound[2]])
    faults = qf.FaultSettings(report="raise")
    with client.open_input_topic(topic, group, dead_letters=dead, faults=faults) as read:
        with pytest.raises(qf.SequenceError):
            for _ in range(2):
                rows_of(read)
        assert read.dead_lettered == 0


# Committed


def test_an_automatic_commit_moves_past_dead_letters_also_where_there_are_no_rows(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, broker_address: str
) -> None:
    topic, dead = make_topic(), make_topic()
    write_foreign(broker_address, topic, FOREIGN)
    told = threading.Event()
    hooks = qf.Hooks(committed=lambda offsets: told.set() if offsets == {(topic, 0): 6} else None)
    with client.open_input_topic(topic, group, CommitSettings(every="300ms"), dead_letters=dead, hooks=hooks) as read:
        assert list(read.batches(idle="2s")) == []
        assert told.is_set()
        assert committed(broker_address, group, topic) == {0: 6}


def test_dead_letters_count_among_the_rows_that_make_a_commit_due(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, broker_address: str
) -> None:
    topic, dead = make_topic(), make_topic()
    write_foreign(broker_address, topic, FOREIGN)
    settings = CommitSettings(every="1 hour", rows=6)
    with client.open_input_topic(topic, group, settings, dead_letters=dead) as read:
        assert list(read.batches(idle="2s")) == []
        assert committed(broker_address, group, topic) == {0: 6}


@pytest.mark.parametrize("by", ["batch", "topic", "close"])
def test_by_hand_the_next_commit_moves_past_them_and_so_does_closing(
    client: qf.StreamingClient,
    make_topic: MakeTopic,
    make_frame: MakeFrame,
    group: str,
    broker_address: str,
    by: str,
) -> None:
    """Of all partitions, also of those that have nothing but dead letters."""
    topic, dead = make_topic(partitions=2), make_topic()
    with client.open_output_topic(topic) as output:
        output.write(make_frame(10), stream="s")
        output.flush()
    (home,) = {record.partition for record in bare(broker_address, topic)}
    for partition in range(2):
        write_foreign(broker_address, topic, FOREIGN[:2], partition)
    expected = {home: 3, 1 - home: 2}
    never = CommitSettings(CommitMode.Manual, every="1 hour")
    with client.open_input_topic(topic, group, never, dead_letters=dead) as read:
        batches = list(read.batches(until="now"))
        assert committed(broker_address, group, topic) == {}
        if by == "batch":
            assert batches[0].commit() is True
        elif by == "topic":
            assert read.commit() is True
        if by != "close":
            assert committed(broker_address, group, topic) == expected
    expected[home] = 0 if by == "close" else 3  # the rows come first, and were not committed
    assert committed(broker_address, group, topic) == expected


@pytest.mark.parametrize("bad", ["dead letter", "skip"])
def test_where_there_are_no_rows_that_could_be_committed_by_hand_what_was_bad_is_committed_by_itself(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, broker_address: str, bad: str
) -> None:
    topic, dead = make_topic(), make_topic()
    write_foreign(broker_address, topic, FOREIGN)
    manual = CommitSettings(CommitMode.Manual, every="300ms")
    rules: dict[str, str] = {"on_bad_message": "skip"} if bad == "skip" else {"dead_letters": dead}
    with client.open_input_topic(topic, group, manual, **rules) as read:  # type: ignore[arg-type]
        assert list(read.batches(idle="2s")) == []
        assert committed(broker_address, group, topic) == {0: 6}


def test_a_message_that_was_processed_in_part_and_is_refused_then_loses_no_row(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    """Its dead letter is the whole message; those of its rows that were processed come again with the others."""
    topic, dead = make_topic(), make_topic()
    with client.open_output_topic(topic, contract=None) as output:
        output.write(make_frame(10), stream="s")
    with client.open_input_topic(topic, group, CommitMode.Manual) as read:
        assert next(iter(read.batches(rows=5))).commit()
    client.topics.set_contract(topic, {"n": "str"})
    with client.open_input_topic(topic, group, dead_letters=dead) as read:
        assert rows_of(read) == []
        assert read.dead_lettered == 1
    client.topics.remove_contract(topic)
    client.send_back(client.dead_letters(dead))
    with client.open_input_topic(topic, group, faults=qf.FaultSettings(drop_repeats=True)) as read:
        assert rows_of(read) == list(range(10))


def test_a_restart_does_not_deliver_a_dead_letter_again(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    """Also behind rows that were not committed: the text that is committed remembers it."""
    topic, dead = make_topic(), make_topic()
    with client.open_output_topic(topic) as output:
        output.write(make_frame(10), stream="s")
    write_foreign(broker_address, topic, FOREIGN)
    for _ in range(3):
        with client.open_input_topic(topic, group, CommitMode.Manual, dead_letters=dead) as read:
            assert rows_of(read) == list(range(10))
    assert committed(broker_address, group, topic) == {0: 0}
    assert len(client.dead_letters(dead)) == len(FOREIGN)


FROZEN = """
import sys, threading
import quixframes as qf
address, topic, dead, group = sys.argv[1:5]
client = qf.StreamingClient(address)
producer = client._get_producer()
send, arrived = producer.send, threading.Event()
producer.send = lambda message, on_done: send(message, lambda error: arrived.set())  # it arrives, and we are not told
read = client.open_input_topic(
    topic, group, qf.CommitSettings(every="100ms"), dead_letters=dead, reader=qf.ReaderSettings(session_timeout="6s"),
    hooks=qf.Hooks(committed=lambda offsets: print(list(offsets.values()), read.dead_lettered, flush=True)),
)
for batch in read.batches(rows=10):
    arrived.wait()
"""


def test_nothing_is_committed_before_the_cluster_has_acknowledged_the_dead_letter(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    """A model is killed between the two: the message comes again, and is a dead letter twice. The rows behind it, which
    were committed meanwhile, do not."""
    topic, dead = make_topic(), make_topic()
    write_foreign(broker_address, topic, FOREIGN[:1])
    with client.open_output_topic(topic) as output:
        output.write(make_frame(10), stream="s")
    model = subprocess.Popen(
        [sys.executable, "-c", FROZEN, broker_address, topic, dead, group], stdout=subprocess.PIPE, text=True
    )
    assert model.stdout is not None
    assert model.stdout.readline() == "[0] 0\n"
    model.kill()
    model.wait(10)
    assert committed(broker_address, group, topic) == {0: 0}
    with client.open_input_topic(topic, group, dead_letters=dead) as read:
        assert rows_of(read) == []
    assert committed(broker_address, group, topic) == {0: 2}
    letters = client.dead_letters(dead)
    assert letters[["topic", "partition", "offset"]].drop_duplicates().to_numpy().tolist() == [[topic, 0, 0]]
    assert len(letters) == 2


# When it fails


@pytest.mark.parametrize("mode", CommitMode)
def test_a_dead_letter_topic_that_was_deleted_raises_in_the_loop_and_nothing_past_it_is_committed(
    broker_address: str,
    client: qf.StreamingClient,
    make_topic: MakeTopic,
    make_frame: MakeFrame,
    group: str,
    mode: CommitMode,
) -> None:
    topic, dead = make_topic(), make_topic()
    write_foreign(broker_address, topic, FOREIGN[:1])
    with client.open_output_topic(topic) as output:
        output.write(make_frame(10), stream="s")
    read = client.open_input_topic(topic, group, CommitSettings(mode, every="100ms"), dead_letters=dead)
    client.topics.delete(dead)
    with pytest.raises(qf.DeadLetterError, match=f"'{dead}'") as exc:
        for batch in read.batches(until="now"):
            assert mode is CommitMode.Automatic or batch.commit()
    assert (exc.value.topic, exc.value.partition, exc.value.offset) == (topic, 0, 0)
    assert isinstance(exc.value.__cause__, qf.TopicNotFoundError)
    assert committed(broker_address, group, topic).get(0, 0) == 0
    client.topics.create(dead)
    assert rows_of(read) == []  # they were handed over before
    read.close()
    assert len(client.dead_letters(dead)) == 1
    assert committed(broker_address, group, topic) == {0: 2}


def test_a_message_that_is_too_large_for_the_dead_letter_topic_raises_and_comes_again(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    topic, dead, larger = make_topic(), make_topic(message_limit="2 kB"), make_topic()
    write_foreign(broker_address, topic, [(b"k", b"x" * 5_000, [])])
    for _ in range(2):
        with client.open_input_topic(topic, group, dead_letters=dead) as read:
            with pytest.raises(qf.DeadLetterError, match=r"@0.*max.message.bytes"):
                rows_of(read)
            assert read.dead_lettered == 0
            with pytest.raises(qf.DeadLetterError):  # the next loop of the same topic tries it again
                rows_of(read)
        assert committed(broker_address, group, topic).get(0, 0) == 0
    with client.open_input_topic(topic, group, dead_letters=larger) as read:
        rows_of(read)
    assert everything(broker_address, larger) == [(b"k", b"x" * 5_000, [])]
    assert committed(broker_address, group, topic) == {0: 1}


def test_a_failure_that_no_loop_was_there_to_raise_is_raised_by_closing(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str, broker_address: str
) -> None:
    topic, dead = make_topic(), make_topic(message_limit="2 kB")
    with client.open_output_topic(topic) as output:
        output.write(make_frame(10), stream="s")
    write_foreign(broker_address, topic, [(b"k", b"x" * 5_000, [])])
    with client.open_output_topic(topic) as output:
        output.write(make_frame(10), stream="s")
    read = client.open_input_topic(topic, group, dead_letters=dead)
    for _ in read.batches(rows=20, timeout=None):
        break
    with pytest.raises(qf.DeadLetterError):
        read.close()
    assert committed(broker_address, group, topic).get(0, 0) < 2


def test_a_message_as_large_as_its_topic_allows_fits_where_there_is_room_for_the_reason_but_its_trace(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, broker_address: str
) -> None:
    topic, dead = make_topic(message_limit="10 kB"), make_topic(message_limit="10600 B")
    write_foreign(broker_address, topic, [(b"k", b"x" * 9_900, [])])
    with client.open_input_topic(topic, group, dead_letters=dead) as read:
        rows_of(read)
    (row,) = client.dead_letters(dead).to_dict("records")
    assert row["value"] == b"x" * 9_900
    assert "qf.version" in row["stacktrace"]
    assert not row["stacktrace"].startswith("Traceback")


def test_what_cannot_be_is_said_when_the_topic_is_opened(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str
) -> None:
    topic, dead = make_topic(), make_topic()
    with pytest.raises(qf.TopicNotFoundError, match="dead-letter topic 'nowhere'.*client.topics.create") as exc:
        client.open_input_topic(topic, group, dead_letters="nowhere")
    assert exc.value.topic == "nowhere"
    with pytest.raises(qf.SettingsError, match="exclude each other"):
        client.open_input_topic(topic, group, dead_letters=dead, on_bad_message="skip")
    with pytest.raises(qf.SettingsError, match="needs a consumer group"):
        client.open_input_topic(topic, None, dead_letters=dead)
    with pytest.raises(qf.SettingsError, match="is the topic itself"):
        client.open_input_topic(topic, group, dead_letters=topic)
    with pytest.raises(qf.SettingsError, match="limit"):
        client.dead_letters(dead, limit=0)
    with pytest.raises(qf.TopicNotFoundError):
        client.dead_letters("nowhere")


def test_many_dead_letters_pass_through_little_memory(broker_address: str, make_topic: MakeTopic, group: str) -> None:
    topic, dead = make_topic(partitions=2), make_topic(partitions=2)
    producer = KafkaProducer(bootstrap_servers=broker_address, linger_ms=20)
    for n in range(2_000):
        producer.send(topic, key=b"%d" % n, value=b"x" * 2_000)
    producer.close()
    most = 0
    with qf.StreamingClient(broker_address, writer=qf.WriterSettings(memory="100 kB")) as small:
        read = small.open_input_topic(topic, group, dead_letters=dead)

        def watch() -> None:
            nonlocal most
            while not read._closed:
                most = max(most, small._outputs.in_flight.bytes)
                threading.Event().wait(0.001)

        watching = threading.Thread(target=watch)
        watching.start()
        rows_of(read)
        assert read.dead_lettered == 2_000
        read.close()
        watching.join()
        assert 0 < most <= 100_000
        letters = small.dead_letters(dead)
    assert letters["key"].nunique() == len(letters) == 2_000


def test_ctrl_c_ends_the_waiting_for_room_and_the_next_loop_goes_on(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, broker_address: str
) -> None:
    topic, dead = make_topic(), make_topic()
    write_foreign(broker_address, topic, FOREIGN)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell's background ignores it
    client._outputs.in_flight.acquire(10**9, lambda: False)  # what somebody else writes takes all the room
    with client.open_input_topic(topic, group, dead_letters=dead) as read:
        timer = threading.Timer(2, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            rows_of(read)
        timer.join()
        client._outputs.in_flight.release(10**9)
        assert rows_of(read) == []
        assert read.dead_lettered == len(FOREIGN)
    signal.signal(signal.SIGINT, before)
    assert everything(broker_address, dead) == FOREIGN


# Listed


def test_listing_touches_no_group_and_can_be_bounded_to_the_newest(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, broker_address: str
) -> None:
    topic, dead = make_topic(partitions=3), make_topic(partitions=3)
    assert client.dead_letters(dead).empty
    for partition in range(3):
        write_foreign(broker_address, topic, [(None, b"%d-%d" % (partition, n), []) for n in range(4)], partition)
        with client.open_input_topic(topic, group, dead_letters=dead) as read:
            rows_of(read)
    letters = client.dead_letters(dead)
    assert len(letters) == len(client.dead_letters(dead)) == 12
    assert letters.index.is_monotonic_increasing
    newest = client.dead_letters(dead, limit=3)
    pd.testing.assert_frame_equal(newest, letters.iloc[-3:])
    assert newest["value"].tolist() == [b"2-1", b"2-2", b"2-3"]
    assert pd.Timestamp.now("UTC") - letters.index[0] < pd.Timedelta("5min")


# Sent back


def test_what_was_sent_back_is_read_once_the_codec_is_right(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, broker_address: str
) -> None:
    topic, dead = make_topic(partitions=3), make_topic()
    messages: list[Foreign] = [
        (b"car-44", b'{"time": "2026-11-22T10:00:00Z", "n": %d}' % n, [("sent", b"1"), ("none", None)])
        for n in range(5)
    ]
    write_foreign(broker_address, topic, messages, partition=2)
    with client.open_input_topic(topic, group, dead_letters=dead) as read:
        assert rows_of(read) == []
    letters = client.dead_letters(dead)
    assert client.send_back(letters) == 5
    back = bare(broker_address, topic)[5:]
    assert [(record.key, record.value, list(record.headers)) for record in back] == messages
    assert {record.partition for record in back} == {2}
    with client.open_input_topic(topic, group, dead_letters=dead, codec=qf.JsonRows()) as read:
        assert rows_of(read) == list(range(5))
        assert read.dead_lettered == 0


def test_messages_of_ours_that_were_sent_back_are_neither_repeats_nor_out_of_order(
    client: qf.StreamingClient, make_topic: MakeTopic, make_frame: MakeFrame, group: str
) -> None:
    """For the reader that refused them, and for another group, which drops repeats."""
    topic, dead = make_topic(partitions=2), make_topic()
    with client.open_output_topic(topic, contract=None) as output:
        for n, stream in enumerate("abab"):
            frame = make_frame(1, start=n).assign(bad="x") if n < 3 else make_frame(1, start=n)
            output.write(frame, stream=stream)
    faults = qf.FaultSettings(report="raise", drop_repeats=True)
    contract = {"p0": "float64", "p1": "float64", "p2": "float64", "n": "int64"}
    with client.open_input_topic(topic, group, dead_letters=dead, contract=contract, faults=faults) as read:
        assert rows_of(read) == [3]
        client.send_back(client.dead_letters(dead))
        assert rows_of(read) == []
        assert read.dead_lettered == 6
    with client.open_input_topic(topic, f"{group}-2", faults=faults) as read:
        assert sorted(rows_of(read)) == [0, 0, 1, 1, 2, 2, 3]
        assert read.sequence_faults.empty


def test_selected_and_mended_dead_letters_are_sent_to_another_topic(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, broker_address: str
) -> None:
    topic, dead, other = make_topic(), make_topic(), make_topic()
    write_foreign(broker_address, topic, FOREIGN)
    with client.open_input_topic(topic, group, dead_letters=dead) as read:
        rows_of(read)
    letters = client.dead_letters(dead)
    some = letters[letters["offset"] > 3].copy()
    some["value"] = [b"mended", None]
    assert client.send_back(some, to=other) == 2
    found = [(record.key, record.value, list(record.headers)) for record in bare(broker_address, other)]
    assert found == [(b"", b"mended", []), (b"\xff", None, [("__streams.errors.offset", b"5")])]
    assert client.send_back(letters.iloc[:0]) == 0


def test_sending_back_sends_nothing_where_a_topic_is_gone_and_names_what_failed(
    client: qf.StreamingClient, make_topic: MakeTopic, group: str, broker_address: str
) -> None:
    topic, dead, small = make_topic(), make_topic(), make_topic(message_limit="1 kB")
    write_foreign(broker_address, topic, [(b"k", b"x" * 3_000, []), (b"k", b"y", [])])
    with client.open_input_topic(topic, group, dead_letters=dead) as read:
        rows_of(read)
    letters = client.dead_letters(dead)
    with pytest.raises(qf.DeadLetterError, match="1 of 2.*row 0.*max.message.bytes") as exc:
        client.send_back(letters, to=small)
    assert exc.value.left["value"].tolist() == [b"x" * 3_000]
    assert len(bare(broker_address, small)) == 1
    client.topics.delete(topic)
    with pytest.raises(qf.TopicNotFoundError):
        client.send_back(letters)
