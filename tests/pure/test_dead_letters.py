"""Dead letters without a broker: their headers, the frame of them, and the messages made of it again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quixframes as qf
from quixframes.dead_letters import DeadLetters, LetterDesk, dead_letter, reason_headers, size_of, split_headers
from quixframes.kafka import Outgoing, Partition, TopicDescription
from quixframes.ledger import Ledger
from quixframes.letter_box import letters_frame, messages_of, placed, renumbered, send_messages
from quixframes.output import InFlight
from quixframes.poller import Assignment
from tests.pure.messages import Sent

DEAD = TopicDescription("engine-dead", 3, 1, 1_000_000)
NAMES = [f"__streams.errors.{name}" for name in ("exception", "message", "stacktrace", "topic", "partition", "offset")]

any_headers = st.lists(
    st.tuples(st.sampled_from(["a", "b", "qf.version", "ü", *NAMES]), st.none() | st.binary(max_size=20)), max_size=8
)
any_bytes = st.none() | st.binary(max_size=50)


def raised(text: str = "it has no qf.version header") -> qf.ForeignMessageError:
    """An error with a stack trace."""
    try:
        raise qf.ForeignMessageError(text, topic="engine", partition=2, offset=41)
    except qf.ForeignMessageError as exc:
        return exc


# Headers


def test_the_reason_is_named_as_kafka_streams_names_it() -> None:
    found = reason_headers(Sent(b"k", b"v", []), raised())
    assert [name for name, _ in found] == NAMES
    values = dict(found)
    assert values["__streams.errors.exception"] == b"quixframes.errors.ForeignMessageError"
    assert values["__streams.errors.message"] == b"engine[2]@41: it has no qf.version header"
    assert values["__streams.errors.stacktrace"].startswith(b"Traceback")
    assert [values[name] for name in NAMES[3:]] == [b"engine", b"2", b"41"]


@given(any_bytes, any_bytes, any_headers)
def test_a_message_is_the_same_after_it_was_a_dead_letter(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    """Also one that has headers of those names itself: it was a dead letter before."""
    sent = Sent(key, value, headers)
    letter = dead_letter(sent, raised(), DEAD)
    assert (letter.topic, letter.key, letter.value) == ("engine-dead", key, value)
    assert list(letter.headers[: len(headers)]) == headers
    own, reasons = split_headers(letter.headers)
    assert own == headers
    assert (reasons["__streams.errors.topic"], reasons["__streams.errors.offset"]) == ("engine", "41")


def test_a_dead_letter_goes_by_its_key_and_one_without_a_key_to_the_partition_of_its_number() -> None:
    assert dead_letter(Sent(b"k", b"v", []), raised(), DEAD).partition is None
    assert dead_letter(Sent(b"", b"v", []), raised(), DEAD).partition is None
    assert dead_letter(Sent(None, b"v", []), raised(), DEAD).partition == 2


@given(st.text(max_size=6_000), st.integers(-100, 30_000))
def test_a_reason_is_text_and_no_larger_than_there_is_room(text: str, room: int) -> None:
    headers = reason_headers(Sent(b"k", b"v", []), raised(text), room)
    for _, content in headers:
        content.decode()
    size = size_of(b"", b"", headers) - size_of(b"", b"", [])
    assert size <= max(room, 2_500)
    assert not (room > 25_000 and len(text) < 1_000) or dict(headers)[NAMES[2]].startswith(b"Traceback")


def test_a_stack_trace_is_cut_at_its_beginning() -> None:
    whole = dict(reason_headers(Sent(b"k", b"v", []), raised()))[NAMES[2]]
    size = size_of(b"", b"", reason_headers(Sent(b"k", b"v", []), raised())) - size_of(b"", b"", [])
    cut = dict(reason_headers(Sent(b"k", b"v", []), raised(), size - 50))[NAMES[2]]
    assert cut
    assert len(cut) < len(whole)
    assert whole.endswith(cut)


def test_an_error_s_text_that_is_no_text_is_written_all_the_same() -> None:
    headers = dict(reason_headers(Sent(b"k", b"v", []), ValueError("\udcff")))
    assert headers[NAMES[0]] == b"builtins.ValueError"
    assert headers[NAMES[1]] == b"\\udcff"


# Sending


class Cluster:
    """A producer whose messages are acknowledged by hand."""

    def __init__(self) -> None:
        self.sent: list[tuple[Outgoing, Callable[[Exception | None], None]]] = []
        self.closed = False

    def send(self, message: Outgoing, on_done: Callable[[Exception | None], None]) -> None:
        if self.closed:
            raise qf.ClosedError("the client is closed")
        self.sent.append((message, on_done))

    def flush(self, timeout: float) -> bool:
        return True

    def close(self, timeout: float) -> None: ...


def test_a_message_is_finished_when_its_dead_letter_is_acknowledged_and_no_sooner() -> None:
    cluster, in_flight = Cluster(), InFlight(1_000_000)
    letters = DeadLetters(DEAD, lambda: cluster, in_flight)
    desk = LetterDesk(letters, threading.RLock(), lambda: False)
    ledger = Ledger(41)
    assignment = Assignment(Partition("engine", 2), ledger, 0)
    ledger.take(41, 1)
    desk.send(assignment, Sent(b"k", b"v", []), raised())
    assert ledger.committable()[0] == 41
    assert not desk.settled
    assert desk.take_finished() == 0
    assert in_flight.bytes > 0
    assert not desk.flush(0.01)
    cluster.sent[0][1](None)
    assert ledger.committable()[0] == 42
    assert desk.settled
    assert desk.flush(0.01)
    assert desk.take_finished() == 1
    assert desk.take_finished() == 0
    assert (desk.delivered, in_flight.bytes) == (1, 0)


def test_a_dead_letter_that_failed_is_raised_once_and_sent_again() -> None:
    cluster, in_flight = Cluster(), InFlight(1_000_000)
    desk = LetterDesk(DeadLetters(DEAD, lambda: cluster, in_flight), threading.RLock(), lambda: False)
    ledger = Ledger(41)
    ledger.take(41, 1)
    desk.send(Assignment(Partition("engine", 2), ledger, 0), Sent(b"k", b"v", []), raised())
    cluster.sent[0][1](qf.TopicNotFoundError("it was deleted", topic="engine-dead"))
    assert not desk.settled
    with pytest.raises(
        qf.DeadLetterError, match=r"engine\[2\]@41.*'engine-dead'.*it was deleted.*no qf.version"
    ) as exc:
        desk.raise_failures()
    assert (exc.value.topic, exc.value.partition, exc.value.offset) == ("engine", 2, 41)
    assert isinstance(exc.value.__cause__, qf.TopicNotFoundError)
    desk.raise_failures()
    assert desk.settled
    assert (ledger.committable()[0], desk.delivered, in_flight.bytes) == (41, 0, 0)
    desk.send_again()
    assert cluster.sent[1][0] == cluster.sent[0][0]
    cluster.sent[1][1](None)
    assert (ledger.committable()[0], desk.delivered) == (42, 1)
    desk.send_again()
    assert len(cluster.sent) == 2


def test_a_dead_letter_that_failed_is_not_sent_again_for_a_partition_that_went() -> None:
    cluster = Cluster()
    desk = LetterDesk(DeadLetters(DEAD, lambda: cluster, InFlight(1_000_000)), threading.RLock(), lambda: False)
    assignment = Assignment(Partition("engine", 2), Ledger(41), 0)
    desk.send(assignment, Sent(b"k", b"v", []), raised())
    cluster.sent[0][1](qf.BrokerError("no"))
    assignment.owned = False
    desk.send_again()
    assert len(cluster.sent) == 1


def test_dead_letters_wait_while_too_much_is_in_flight_and_can_be_given_up() -> None:
    cluster, in_flight = Cluster(), InFlight(5_000)
    letters = DeadLetters(DEAD, lambda: cluster, in_flight)
    letters.send(Sent(b"k", b"v" * 3_000, []), raised(), lambda _: None)  # the first may always go
    with pytest.raises(qf.ClosedError):
        letters.send(Sent(b"k", b"v" * 3_000, []), raised(), lambda _: None, lambda: True)
    interrupted = iter([False, True])

    def interrupt() -> bool:
        if next(interrupted):
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        letters.send(Sent(b"k", b"v" * 3_000, []), raised(), lambda _: None, interrupt)
    assert len(cluster.sent) == 1
    cluster.sent[0][1](None)
    assert letters.settled
    assert in_flight.bytes == 0


def test_a_closed_client_sends_no_dead_letter_and_counts_none() -> None:
    cluster, in_flight = Cluster(), InFlight(1_000_000)
    cluster.closed = True
    letters = DeadLetters(DEAD, lambda: cluster, in_flight)
    with pytest.raises(qf.ClosedError):
        letters.send(Sent(b"k", b"v", []), raised(), lambda _: None)
    assert letters.settled
    assert in_flight.bytes == 0


# The frame


def buried(sent: Sent, *, partition: int = 1, offset: int = 7, at: int = 1_700_000_000_123) -> Sent:
    letter = dead_letter(sent, raised(), DEAD)
    return Sent(letter.key, letter.value, letter.headers, letter.topic, partition, offset, at)


def test_dead_letters_are_rows_with_the_message_the_reason_and_both_places() -> None:
    headers = [("a", b"1"), ("a", None), ("b", b"")]
    letters = letters_frame([buried(Sent(b"car-44", b"\x00\xff", headers)), buried(Sent(None, None, []), offset=8)])
    assert letters.index.name == "time"
    assert letters.index.dtype == "datetime64[ns, UTC]"
    assert letters.index[0] == pd.Timestamp("2023-11-14 22:13:20.123", tz="UTC")
    first, second = letters.to_dict("records")
    assert (first["topic"], first["partition"], first["offset"]) == ("engine", 2, 41)
    assert first["exception"] == "quixframes.errors.ForeignMessageError"
    assert first["message"] == "engine[2]@41: it has no qf.version header"
    assert first["stacktrace"].startswith("Traceback")
    assert (first["key"], first["value"], first["headers"]) == (b"car-44", b"\x00\xff", headers)
    assert (first["dead_partition"], first["dead_offset"]) == (1, 7)
    assert (second["key"], second["value"], second["headers"]) == (None, None, [])


def test_a_message_that_is_no_dead_letter_is_a_row_without_a_reason() -> None:
    letters = letters_frame([Sent(b"k", b"v", [("__streams.errors.offset", b"x")])])
    row = letters.iloc[0]
    assert pd.isna(row[["topic", "partition", "offset", "exception", "message", "stacktrace"]]).all()
    assert (row["key"], row["value"], row["headers"]) == (b"k", b"v", [])


def test_no_dead_letters_are_a_frame_with_the_same_columns_and_dtypes() -> None:
    none, some = letters_frame([]), letters_frame([buried(Sent(b"k", b"v", []))])
    assert none.empty
    assert none.dtypes.to_dict() == some.dtypes.to_dict()
    assert none.index.dtype == some.index.dtype
    assert messages_of(none) == []


# Back


@given(st.lists(st.tuples(any_bytes, any_bytes, any_headers), max_size=5))
def test_what_is_sent_back_is_what_was_read(
    messages: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]],
) -> None:
    letters = letters_frame([buried(Sent(*message)) for message in messages])
    assert messages_of(letters) == [Outgoing("engine", *message, 2) for message in messages]
    assert messages_of(letters, to="other") == [Outgoing("other", *message) for message in messages]


def test_what_was_changed_in_the_frame_is_sent_as_it_is_then() -> None:
    letters = letters_frame([buried(Sent(b"k", b"bad", []))])
    letters["value"] = [b"good"]
    assert messages_of(letters)[0].value == b"good"


def test_a_message_goes_to_its_partition_or_by_its_key_where_that_is_gone() -> None:
    here, gone = Outgoing("t", b"k", b"v", [], 2), Outgoing("t", b"k", b"v", [], 3)
    assert placed([here, gone], {"t": 3}) == [here, gone._replace(partition=None)]


def test_messages_of_ours_are_numbered_anew_by_place_and_key_and_others_stay_as_they_are() -> None:
    def ours(key: bytes, partition: int | None, session: bytes, sequence: bytes) -> Outgoing:
        headers = [("qf.version", b"1"), ("qf.session", session), ("qf.sequence", sequence), ("x", None)]
        return Outgoing("t", key, b"v", headers, partition)

    foreign = Outgoing("t", b"a", b"v", [("qf.session", b"s")], 0)
    sent = [ours(b"a", 0, b"s", b"5"), ours(b"b", 0, b"s", b"1"), ours(b"a", 0, b"r", b"5"), foreign,
            ours(b"a", 1, b"s", b"7"), ours(b"a", None, b"s", b"8")]  # fmt: skip
    once, again = renumbered(sent), renumbered(sent)
    assert once[3] == foreign
    numbers = [tuple(content for _, content in message.headers[1:3]) for message in once if message != foreign]
    assert [number for _, number in numbers] == [b"0", b"0", b"1", b"0", b"0"]
    sessions = [session for session, _ in numbers]
    assert sessions[0] == sessions[2]
    assert len({*sessions, b"s", b"r"}) == 6
    assert not set(sessions) & {session for message in again for session in [dict(message.headers)["qf.session"]]}
    assert [message._replace(headers=[]) for message in once] == [message._replace(headers=[]) for message in sent]
    assert [name for name, _ in once[0].headers] == [name for name, _ in sent[0].headers]


@pytest.mark.parametrize(
    ("column", "value"),
    [("topic", None), ("key", "text"), ("value", 5), ("headers", 5), ("headers", [("a", "b")]), ("headers", ["abc"])],
)
def test_a_row_that_is_no_dead_letter_is_refused_by_name(column: str, value: object) -> None:
    letters = letters_frame([buried(Sent(b"k", b"v", []))] * 3)
    letters[column] = pd.Series([*letters[column].iloc[:2], value], letters.index, object)
    with pytest.raises(qf.FrameError) as exc:
        messages_of(letters)
    assert (exc.value.column, exc.value.row) == (column, 2)


def test_a_frame_of_something_else_is_refused() -> None:
    with pytest.raises(qf.FrameError, match="no column 'topic'"):
        messages_of(pd.DataFrame({"a": [1]}))
    with pytest.raises(qf.FrameError, match="DataFrame"):
        messages_of([1])  # type: ignore[arg-type]


def test_what_was_not_sent_back_is_named_by_its_rows() -> None:
    letters = letters_frame([buried(Sent(b"%d" % n, b"v", [])) for n in range(3)])

    class Picky(Cluster):
        def send(self, message: Outgoing, on_done: Callable[[Exception | None], None]) -> None:
            if message.key != b"2":
                on_done(qf.BrokerError("no") if message.key == b"1" else None)

    with pytest.raises(qf.DeadLetterError, match="2 of 3 dead letters.*row 1.*'engine': no") as exc:
        send_messages(letters, messages_of(letters), Picky(), InFlight(1_000_000), 0.05)
    assert exc.value.left["key"].tolist() == [b"1", b"2"]
    assert (exc.value.topic, exc.value.partition, exc.value.offset) == ("engine", 2, 41)
