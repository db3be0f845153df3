"""Messages: what they look like, that they come back as they went, and that nothing that arrives breaks the decoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quixframes import (
    DamagedMessageError,
    ForeignMessageError,
    FutureVersionError,
    MessageTooLargeError,
    WireError,
)
from quixframes.event_frames import decode_events
from quixframes.frames import FrameDecoder, FrameEncoder
from quixframes.story import Story, StreamProperties
from quixframes.wire import Kind, Message, MessageDecoder, MessageEncoder, StreamEndType
from tests.pure.messages import (
    SESSION,
    STORY,
    Sent,
    events_message,
    message_of,
    messages_of,
    plain_frame,
    rich_frame,
    told,
)

GOLDEN = Path(__file__).parent / "golden"


def read(message: Sent, decoder: MessageDecoder | None = None) -> Message:
    return (decoder or MessageDecoder()).decode(message)


@pytest.mark.parametrize("frame", [plain_frame(), plain_frame(1), rich_frame()], ids=["plain", "one row", "rich"])
def test_a_frame_comes_back_as_it_went(frame: pd.DataFrame) -> None:
    message = read(message_of(frame))
    pd.testing.assert_frame_equal(FrameDecoder().decode(message.batch), frame, check_exact=True)
    assert (message.stream_id, message.kind) == ("car-44", Kind.PARAMETERS)
    assert (message.session, message.sequence) == (SESSION, 7)


def test_the_value_is_an_arrow_stream_that_any_library_reads() -> None:
    message = message_of(rich_frame())
    table = pa.ipc.open_stream(message.value).read_all()
    assert table.column_names[:2] == ["time", "f16"]
    assert table.schema.field("time").type == pa.timestamp("ns", "UTC")
    assert table.num_rows == 3


def test_the_headers_say_what_a_reader_can_skip_by() -> None:
    headers = dict(message_of(plain_frame(3)).headers)
    assert headers.pop("qf.schema") != b""
    assert headers == {
        "qf.version": b"1",
        "qf.kind": b"parameters",
        "qf.rows": b"3",
        "qf.first": b"0",
        "qf.last": b"2000000000",
        "qf.session": SESSION.encode(),
        "qf.sequence": b"7",
    }


def test_equal_schemas_have_equal_fingerprints_and_others_differ() -> None:
    def fingerprint(frame: pd.DataFrame) -> bytes:
        return dict(message_of(frame).headers)["qf.schema"]

    frame = plain_frame()
    assert fingerprint(frame) == fingerprint(plain_frame(99))
    others = [frame.astype({"gear": "int16"}), frame.astype({"gear": "Int8"}), frame[["gear", "speed"]]]
    assert len({fingerprint(other) for other in [frame, *others]}) == 4


def test_one_encoder_keeps_dtypes_apart_that_arrow_holds_alike() -> None:
    """int8 and Int8 are one Arrow type: only the field's metadata tells them apart."""
    encoder, frames = MessageEncoder(), FrameEncoder()
    for dtype in ("int8", "Int8", "int8"):
        batch = frames.encode(plain_frame().astype({"gear": dtype}))
        ((value, headers, _),) = encoder.encode(batch, stream_id="s", session=SESSION, sequence=0, limit=10**6)
        back = FrameDecoder().decode(read(Sent(b"s", value, headers)).batch)
        assert back["gear"].dtype == dtype


@pytest.mark.parametrize("limit", [2_000, 5_000, 20_000])
@pytest.mark.parametrize("frame", [plain_frame(5_000), pd.concat([rich_frame()] * 500)], ids=["plain", "rich"])
def test_a_frame_over_the_limit_is_cut_by_rows(frame: pd.DataFrame, limit: int) -> None:
    """Each part is a message of its own, in order, and fits with all that Kafka adds to it."""
    if "f16" in frame.columns:
        limit += 12_000  # the schema and the categories are part of every message
    messages = messages_of(frame, limit=limit)
    assert len(messages) > 1
    decoder = MessageDecoder()
    parts = [read(message, decoder) for message in messages]
    assert [part.sequence for part in parts] == list(range(7, 7 + len(parts)))
    back = pd.concat([FrameDecoder().decode(part.batch) for part in parts])
    pd.testing.assert_frame_equal(back, frame, check_exact=True)
    for message in messages:
        assert message.value is not None
        size = len(message.value) + sum(len(name) + len(value) + 4 for name, value in message.headers) + 100
        assert size <= limit
        assert len(message.value) > limit / 10 or message is messages[-1]


def test_one_row_over_the_limit_raises_and_names_the_row() -> None:
    frame = plain_frame(4).assign(text=pd.array(["a", "b", "c" * 5000, "d"], dtype="string[python]"))
    encoder = MessageEncoder()
    with pytest.raises(MessageTooLargeError, match=r"row 2 alone .* limit of 4,000 bytes.*max\.message\.bytes"):
        encoder.check(FrameEncoder().encode(frame), stream_id="s", limit=4_000)


@pytest.mark.parametrize("limit", [3_000, 50_000])
def test_tags_that_are_all_different_are_cut_with_their_rows(limit: int) -> None:
    """A part has the values of its own rows only: those of all together are more than a message may have."""
    frame = plain_frame(5_000)
    frame["TAG__note"] = pd.array([f"{row} {'x' * 50}" for row in range(5_000)], dtype="string[python]")
    MessageEncoder().check(FrameEncoder().encode(frame), stream_id="car-44", limit=limit)
    messages = messages_of(frame, limit=limit)
    assert all(len(message.value or b"") < limit for message in messages)
    decoder = MessageDecoder()
    back = pd.concat([FrameDecoder().decode(read(message, decoder).batch) for message in messages])
    pd.testing.assert_frame_equal(back, frame, check_exact=True)


def test_one_tag_over_the_limit_raises_and_names_the_row() -> None:
    """Only the row that has it, though its value is in the dictionary of all."""
    tags = pd.array(["a", "b", "c" * 5000, "d"], dtype="string[python]")
    with pytest.raises(MessageTooLargeError, match="row 2 alone"):
        MessageEncoder().check(FrameEncoder().encode(plain_frame(4).assign(TAG__x=tags)), stream_id="s", limit=4_000)


def test_a_frame_without_rows_gives_no_message() -> None:
    assert messages_of(plain_frame(0)) == []


# What cannot be read


def without(message: Sent, header: str) -> Sent:
    return message._replace(headers=[(name, value) for name, value in message.headers if name != header])


def with_header(message: Sent, header: str, value: bytes) -> Sent:
    return without(message, header)._replace(headers=[*without(message, header).headers, (header, value)])


GOOD = message_of(plain_frame())
assert GOOD.value is not None
OTHER_SCHEMA = message_of(plain_frame().astype({"gear": "int64"}))


def stream_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    value: bytes = sink.getvalue().to_pybytes()
    return value


def compressed(frame: pd.DataFrame) -> Sent:
    """A message as quixframes writes it, but for a body that Arrow has compressed."""
    batch = FrameEncoder().encode(frame)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_batch(batch)
    headers = [(n, b"%d" % len(frame) if n == "qf.rows" else v) for n, v in message_of(frame.iloc[:5]).headers]
    return Sent(b"car-44", sink.getvalue().to_pybytes(), headers)


ZEROS = plain_frame(2_000_000).assign(speed=0.0, gear=np.int8(0))
ZEROS.index = pd.DatetimeIndex(np.zeros(len(ZEROS), "M8[ns]"), tz="UTC", name="time")
CATEGORIES = plain_frame().assign(c=pd.Categorical(["a"] * 10))

NESTED = pa.table({"time": pa.array([0], pa.timestamp("ns", "UTC")), "x": [[1, 2]]})
NO_TIME = pa.table({"x": [1]})

UNREADABLE = [
    ("no headers at all", GOOD._replace(headers=[]), ForeignMessageError, "quixframes did not write it"),
    ("no version", without(GOOD, "qf.version"), ForeignMessageError, "no qf.version header"),
    ("a version that is no number", with_header(GOOD, "qf.version", b"one"), ForeignMessageError, "never writes"),
    ("version 0", with_header(GOOD, "qf.version", b"0"), ForeignMessageError, "never writes"),
    ("a later version", with_header(GOOD, "qf.version", b"2"), FutureVersionError, "version 2 .* upgrade"),
    ("a kind of later days", with_header(GOOD, "qf.kind", b"hologram"), FutureVersionError, "hologram"),
    ("no kind", without(GOOD, "qf.kind"), DamagedMessageError, "qf.kind"),
    ("no schema", without(GOOD, "qf.schema"), DamagedMessageError, "qf.schema"),
    ("no rows", without(GOOD, "qf.rows"), DamagedMessageError, "qf.rows"),
    ("other rows", with_header(GOOD, "qf.rows", b"11"), DamagedMessageError, "says 11 rows, but it holds 10"),
    ("rows that are no number", with_header(GOOD, "qf.rows", b"x"), DamagedMessageError, "damaged"),
    ("no key", GOOD._replace(key=None), DamagedMessageError, "no key"),
    ("a key that is no text", GOOD._replace(key=b"\xff"), DamagedMessageError, "damaged"),
    ("no value", GOOD._replace(value=None), DamagedMessageError, "no value"),
    ("an empty value", GOOD._replace(value=b""), DamagedMessageError, "damaged"),
    ("half a value", GOOD._replace(value=GOOD.value[: len(GOOD.value) // 2]), DamagedMessageError, "damaged"),
    ("JSON", GOOD._replace(value=b'{"speed": 3}'), DamagedMessageError, "damaged"),
    ("a schema and no rows", GOOD._replace(value=GOOD.value[:600]), DamagedMessageError, "damaged"),
    ("a body that inflates", compressed(ZEROS), DamagedMessageError, "its body is compressed"),
    ("a dictionary that inflates", compressed(CATEGORIES), DamagedMessageError, "its body is compressed"),
    ("nested columns", GOOD._replace(value=stream_of(NESTED)), DamagedMessageError, "damaged"),
    ("no time column", GOOD._replace(value=stream_of(NO_TIME)), DamagedMessageError, "time"),
]


@pytest.mark.parametrize(
    ("message", "error", "text"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE]
)
@pytest.mark.parametrize("seen", [False, True], ids=["first", "schema known"])
def test_what_cannot_be_read_raises_with_its_place(
    message: Sent, error: type[WireError], text: str, seen: bool
) -> None:
    decoder = MessageDecoder()
    if seen:
        read(GOOD, decoder)
    with pytest.raises(error, match=text) as caught:
        read(message, decoder)
    assert (caught.value.topic, caught.value.partition, caught.value.offset) == ("engine", 2, 41)
    assert str(caught.value).startswith("engine[2]@41: ")


def test_a_fingerprint_that_belongs_to_another_schema_misleads_nobody() -> None:
    """The schema's bytes are compared, not only their fingerprint."""
    decoder = MessageDecoder()
    read(GOOD, decoder)
    disguised = with_header(OTHER_SCHEMA, "qf.schema", dict(GOOD.headers)["qf.schema"])
    assert FrameDecoder().decode(read(disguised, decoder).batch)["gear"].dtype == np.int64
    assert FrameDecoder().decode(read(GOOD, decoder).batch)["gear"].dtype == np.int8


CORPUS = [message_of(plain_frame()), message_of(plain_frame(1)), message_of(rich_frame()), events_message()]


def survive(message: Sent, decoder: MessageDecoder) -> None:
    """Decode; whatever comes back is a frame or a WireError, never anything else."""
    try:
        batch = decoder.decode(message).batch
    except WireError:
        return
    assert batch is None or len(FrameDecoder().decode(batch)) == batch.num_rows


@given(st.data())
@settings(max_examples=1_000)
def test_no_mutation_of_a_message_breaks_the_decoder(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from([*CORPUS, told(None), told(StreamEndType.Closed)]))
    value = bytearray(message.value or b"")
    for _ in range(data.draw(st.integers(0, 4)) if value else 0):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del value[data.draw(st.integers(0, len(value))) :]
    headers = list(message.headers)
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(headers) - 1))
        headers[place] = (headers[place][0], data.draw(st.binary(max_size=20)))
    decoder = MessageDecoder()
    if data.draw(st.booleans()):
        survive(message, decoder)
    survive(Sent(message.key, bytes(value), headers), decoder)


def fuzz(count: int, seed: int) -> int:
    """Decode ``count`` mutated messages; how many of them were still readable."""
    random = np.random.default_rng(seed)
    fresh, readable = MessageDecoder(), 0
    for message in CORPUS:
        survive(message, fresh)
    interesting = np.array([0, 1, 0x7F, 0x80, 0xFF, 0xFE, 4, 8, 16], np.uint8)
    for n in range(count):
        message = CORPUS[n % len(CORPUS)]
        value = np.frombuffer(message.value or b"", np.uint8).copy()
        # Most of a message is structure, and that is where a decoder breaks: so is most of the damage.
        places = random.integers(0, len(value), random.integers(1, 6))
        value[places] = random.choice(interesting, len(places)) if n % 2 else random.integers(0, 256, len(places))
        if n % 7 == 0:
            value = value[: random.integers(0, len(value))]
        if n % 11 == 0:
            start, length = random.integers(0, len(value) + 1), random.integers(0, 64)
            value = np.concatenate((value[:start], value[start + length :]))
        if n % 13 == 0 and len(value) > 8:
            at = random.integers(0, len(value) - 8)
            value[at : at + 8] = random.choice([0x00, 0x7F, 0x80, 0xFF])
        # By turns through the path that parses the schema and the one that knows it.
        decoder = fresh if n % 3 else MessageDecoder()
        try:
            batch = decoder.decode(message._replace(value=value.tobytes())).batch
        except WireError:
            continue
        readable += len(FrameDecoder().decode(batch)) == batch.num_rows
    return readable


def test_20_000_damaged_messages_give_frames_or_wire_errors() -> None:
    assert 0 < fuzz(20_000, seed=1) < 20_000


@pytest.mark.faults
def test_200_000_damaged_messages_give_frames_or_wire_errors() -> None:
    readable = fuzz(200_000, seed=2)
    print(f"\n200,000 mutated messages: {readable:,} still readable, {200_000 - readable:,} WireErrors, nothing else")
    assert 0 < readable < 200_000


# Golden files: what version 1 looks like, byte for byte. `python -m tests.pure.test_wire` writes them anew.

EXAMPLES = {"plain": plain_frame(5), "rich": rich_frame()}


TOLD = {"events": events_message(), "end": told(StreamEndType.Aborted)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_messages_are_still_read(name: str) -> None:
    back = read(stored(name))
    assert back.stream_id == "car-44"
    pd.testing.assert_frame_equal(FrameDecoder().decode(back.batch), EXAMPLES[name], check_exact=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_messages_are_what_would_be_written_today(name: str) -> None:
    """A change here is a change of the wire format: it needs a new version, or must be readable by the old one."""
    message = message_of(EXAMPLES[name])
    assert dict(message.headers) == dict(stored(name).headers)
    table = pa.ipc.open_stream(message.value).read_all()
    expected = pa.ipc.open_stream((GOLDEN / f"{name}.arrows").read_bytes()).read_all()
    assert table.schema.equals(expected.schema, check_metadata=True)


def test_events_come_back_with_the_story() -> None:
    message = read(events_message())
    assert (message.kind, message.entries, message.story, message.sequence) == (Kind.EVENTS, 2, STORY, 9)
    frame = decode_events([message.batch])
    assert frame.index.asi8.tolist() == [5, 3]
    assert frame["id"].tolist() == ["pit-stop", "flag"]
    assert frame["TAG__lap"].isna().tolist() == [False, True]


@pytest.mark.parametrize("end", [None, *StreamEndType])
def test_a_message_without_rows_tells_the_story_and_the_end(end: StreamEndType | None) -> None:
    message = read(told(end))
    assert message.kind is (Kind.PROPERTIES if end is None else Kind.END)
    assert (message.story, message.end, message.batch) == (STORY, end, None)
    assert message.entries == (0 if end is None else 1)


def test_equal_stories_are_one_object_for_a_decoder() -> None:
    """So that a reader sees by identity that nothing has changed."""
    decoder = MessageDecoder()
    assert read(told(None), decoder).story is read(events_message(), decoder).story


def test_rows_and_their_story_stay_under_the_limit() -> None:
    story = Story(StreamProperties(metadata={"notes": "x" * 3_000}))
    frame = plain_frame(2_000)
    made = list(
        MessageEncoder().encode(
            FrameEncoder().encode(frame), stream_id="car-44", session=SESSION, sequence=0, limit=8_000, story=story
        )
    )
    assert len(made) > 3
    for value, headers, _ in made:
        assert len(value) + sum(len(name) + len(of) for name, of in headers) < 8_000


WRONG_KINDS: list[tuple[str, Sent, dict[str, bytes | None], str]] = [
    ("an end of no known kind", told(StreamEndType.Closed), {"qf.end": b"exploded"}, "exploded"),
    ("an end without its kind", told(StreamEndType.Closed), {"qf.end": None}, "StreamEndType"),
    ("broken properties", told(None), {"qf.properties": b"{"}, "qf.properties is no JSON"),
    ("rows called events", message_of(plain_frame()), {"qf.kind": b"events"}, "column"),
    ("no session", told(None), {"qf.session": None}, "qf.session"),
]


@pytest.mark.parametrize(("message", "changes", "text"), [c[1:] for c in WRONG_KINDS], ids=[c[0] for c in WRONG_KINDS])
def test_a_wrong_message_of_any_kind_is_damaged(message: Sent, changes: dict[str, bytes | None], text: str) -> None:
    headers = {**dict(message.headers), **changes}
    with pytest.raises(DamagedMessageError, match=text):
        read(message._replace(headers=list(headers.items())))


def test_golden_events_and_ends_are_still_read() -> None:
    events, end = read(stored("events")), read(stored("end"))
    assert (events.story, end.story, end.end) == (STORY, STORY, StreamEndType.Aborted)
    assert decode_events([events.batch])["value"].tolist()[0] == "tyres"
    for name, message in TOLD.items():
        assert dict(stored(name).headers) == dict(message.headers)


def stored(name: str) -> Sent:
    facts = json.loads((GOLDEN / f"{name}.json").read_text())
    headers = [(header, value.encode()) for header, value in facts["headers"].items()]
    return Sent(facts["key"].encode(), (GOLDEN / f"{name}.arrows").read_bytes(), headers)


def write_golden() -> None:
    """Write the golden files anew."""
    GOLDEN.mkdir(exist_ok=True)
    for name, message in [*((name, message_of(frame)) for name, frame in EXAMPLES.items()), *TOLD.items()]:
        assert message.key is not None
        assert message.value is not None
        headers = {header: value.decode() for header, value in message.headers}
        (GOLDEN / f"{name}.arrows").write_bytes(message.value)
        (GOLDEN / f"{name}.json").write_text(
            json.dumps({"key": message.key.decode(), "headers": headers}, indent=2) + "\n"
        )


if __name__ == "__main__":
    write_golden()
