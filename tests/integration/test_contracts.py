"""One schema per topic, on a real Kafka: kept, loaded, applied by writers, readers and replays."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import quixframes as qf

INTEGERS, TEXT = qf.Contract({"n": "int64"}), qf.Contract({"n": "str"})
SPEED = qf.Contract({"speed": qf.Parameter("float64", unit="km/h", range=(0, 400)), "lap": "Int64"})


def frame(start: int = 0, **columns: Any) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    times = pd.to_datetime(np.arange(start, start + rows), unit="s", utc=True)
    return pd.DataFrame(columns, index=pd.DatetimeIndex(times, name="time"))


def good(start: int = 0) -> pd.DataFrame:
    return frame(start, speed=[1.0, 2.0], lap=pd.array([1, None], "Int64"))


def bad() -> pd.DataFrame:
    return frame(speed=["fast", "slow"], lap=pd.array([1, 2], "Int64"))


def read(client: qf.StreamingClient, topic: str, **settings: Any) -> list[qf.RowBatch]:
    with client.open_input_topic(topic, None, **settings) as opened:
        return list(opened.batches(until="now"))


def test_a_contract_is_kept_in_kafka_for_every_client(broker_address: str, topic: str) -> None:
    with qf.StreamingClient(broker_address) as client:
        assert client.topics.contract(topic) is None
        client.topics.set_contract(topic, SPEED)
    with qf.StreamingClient(broker_address) as client:
        assert client.topics.contract(topic) == SPEED
        with client.open_output_topic(topic) as out:
            assert out.contract == SPEED
            with pytest.raises(qf.ContractError, match=r"speed.*float64.*str") as caught:
                out.write(bad(), stream="car-44")
            assert (caught.value.topic, caught.value.stream_id) == (topic, "car-44")
            with pytest.raises(qf.ContractError, match="speed"):
                out.get_stream("car-44").parameters.buffer.write(bad())
            out.write(good(), stream="car-44")
        assert "__quixframes.contracts" not in client.topics.list()
        (batch,) = read(client, topic)
        pd.testing.assert_frame_equal(batch.frame, good(), check_exact=True, check_freq=False, check_index_type=False)
        client.topics.delete(topic)
        client.topics.create(topic)
        assert client.topics.contract(topic) is None  # it was that of the topic that is gone


def test_a_contract_comes_from_a_schema_from_code_or_from_the_first_rows(
    client: qf.StreamingClient, make_topic: Callable[..., str]
) -> None:
    by_schema, by_rows = make_topic(), make_topic()
    client.topics.set_contract(by_schema, pa.schema([("speed", pa.float64()), ("lap", pa.int64())]))
    assert list(client.topics.contract(by_schema).parameters) == ["speed", "lap"]
    with pytest.raises(qf.SettingsError, match="no rows"):
        client.topics.learn_contract(by_rows)
    with client.open_output_topic(by_rows) as out:
        out.write(good().assign(TAG__lap="1"), stream="car-44")
    learned = client.topics.learn_contract(by_rows, policy="promote")
    assert learned.policy == "promote"
    assert (list(learned.parameters), list(learned.tags)) == (["speed", "lap"], ["lap"])
    created = f"{by_rows}-made"
    client.topics.create(created, contract=SPEED)
    assert client.topics.contract(created) == SPEED
    client.topics.delete(created)


def test_a_contract_that_cannot_follow_shows_the_differences_as_a_table(client: qf.StreamingClient, topic: str) -> None:
    client.topics.set_contract(topic, SPEED)
    wider = qf.Contract({**SPEED.parameters, "gear": qf.Parameter("Int8", required=False)})
    client.topics.set_contract(topic, wider)
    with pytest.raises(qf.ContractError) as caught:
        client.topics.set_contract(topic, {"speed": "int64"})
    assert "speed" in str(caught.value)
    header, *lines = str(caught.value).splitlines()[1:]
    assert header.split() == ["column", "what", "old", "new", "compatible"]
    assert any(line.split()[:3] == ["speed", "dtype", "float64"] for line in lines)
    assert client.topics.contract(topic) == wider
    client.topics.set_contract(topic, {"speed": "int64"}, force=True)
    assert list(client.topics.contract(topic).parameters) == ["speed"]
    client.topics.remove_contract(topic)
    assert client.topics.contract(topic) is None


def test_a_topic_that_is_open_hears_of_a_contract_that_has_grown(
    client: qf.StreamingClient, broker_address: str, topic: str
) -> None:
    client.topics.set_contract(topic, SPEED)
    with qf.StreamingClient(broker_address) as other, other.open_output_topic(topic) as out:
        out.write(good(), stream="car-44")
        client.topics.set_contract(
            topic, qf.Contract({**SPEED.parameters, "gear": qf.Parameter("Int8", required=False)})
        )
        out.write(good().assign(gear=pd.array([1, 2], "Int8")), stream="car-44")
        assert "gear" in out.contract.parameters


@pytest.fixture
def own_contracts(client: qf.StreamingClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A topic of contracts of the test's own, which is not there yet."""
    name = f"__contracts-{uuid.uuid4().hex[:12]}"
    monkeypatch.setattr("quixframes.contract_store.CONTRACTS", name)  # what clients are made with
    monkeypatch.setattr(client._contracts._log, "name", name)
    yield name
    if client.topics.exists(name):
        client.topics.delete(name)


def before_it_writes(
    monkeypatch: pytest.MonkeyPatch, client: qf.StreamingClient, act: Callable[[], object]
) -> Callable[[], bool]:
    """Have something happen between a client's look at a contract and its own message; the answer says if it did."""
    store, once = client._contracts, [act]
    put = store._put

    def late(topic: str, text: bytes | None) -> Any:
        if once:
            once.pop()()
        return put(topic, text)

    monkeypatch.setattr(store, "_put", late)
    return lambda: not once


@pytest.mark.parametrize("kept", [None, INTEGERS])
def test_of_two_who_set_contracts_that_do_not_go_together_the_later_hears_of_it(
    client: qf.StreamingClient, broker_address: str, topic: str, monkeypatch: pytest.MonkeyPatch, kept: Any
) -> None:
    """Both looked before either wrote. The first in Kafka's order stays, for every client."""
    if kept is not None:
        client.topics.set_contract(topic, kept)
    with qf.StreamingClient(broker_address) as other:
        happened = before_it_writes(monkeypatch, other, lambda: client.topics.set_contract(topic, TEXT, force=True))
        with pytest.raises(qf.ContractError, match=r"(?s)somebody set another contract.*meanwhile.*n .*str.*int64"):
            other.topics.set_contract(topic, {"n": "int64", "lap": qf.Parameter("Int64", required=False)})
        assert happened()
        assert other.topics.contract(topic) == client.topics.contract(topic) == TEXT


def test_of_two_who_set_contracts_that_go_together_nobody_is_refused(
    client: qf.StreamingClient, broker_address: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = qf.Contract({"n": "int64", "lap": qf.Parameter("Int64", required=False)})
    with qf.StreamingClient(broker_address) as other:
        before_it_writes(monkeypatch, other, lambda: client.topics.set_contract(topic, INTEGERS))
        other.topics.set_contract(topic, wider)
        assert client.topics.contract(topic) == wider
        before_it_writes(monkeypatch, other, lambda: client.topics.remove_contract(topic))
        other.topics.set_contract(topic, TEXT, force=True)
        assert client.topics.contract(topic) == TEXT


def test_a_topic_of_contracts_that_was_made_anew_is_read_anew(
    client: qf.StreamingClient, broker_address: str, topic: str, own_contracts: str
) -> None:
    """As many messages in it as in the one before are no reason to think that they are the same."""
    client.topics.set_contract(topic, INTEGERS)
    with qf.StreamingClient(broker_address) as other:
        assert other.topics.contract(topic) == INTEGERS
        client.topics.delete(own_contracts)
        client.topics.set_contract(topic, TEXT)
        assert other.topics.contract(topic) == client.topics.contract(topic) == TEXT
        client.topics.delete(own_contracts)
        assert other.topics.contract(topic) is None


def test_contracts_are_not_kept_where_retention_would_remove_them(
    client: qf.StreamingClient, topic: str, own_contracts: str
) -> None:
    client.topics.create(own_contracts)
    with pytest.raises(qf.SettingsError, match=rf"{own_contracts}.* is not compacted.*cleanup\.policy"):
        client.topics.set_contract(topic, INTEGERS)
    assert client.topics.contract(topic) is None


def test_a_writer_that_is_open_sends_no_dead_letters_for_a_column_that_is_declared_by_now(
    client: qf.StreamingClient, make_topic: Callable[..., str]
) -> None:
    topic, dead = make_topic(), make_topic()
    client.topics.set_contract(topic, qf.Contract(INTEGERS.parameters, policy="dead-letter"))
    with client.open_output_topic(topic, dead_letters=dead) as out:
        out.write(frame(n=np.array([1, 2])), stream="car-44")
        lap = qf.Parameter("Int64", required=False)
        client.topics.set_contract(topic, qf.Contract({**INTEGERS.parameters, "lap": lap}, policy="dead-letter"))
        out.write(frame(2, n=np.array([3]), lap=pd.array([5], "Int64")), stream="car-44")
    assert sum(len(batch) for batch in read(client, topic)) == 3
    assert len(client.dead_letters(dead)) == 0


DRIFT: list[Callable[[int], dict[str, Any]]] = [
    lambda n: {"lap": np.array([n, n + 1]), "tyre": pd.Categorical(["soft", "hard"])},
    lambda n: {"lap": pd.array([n, None], "Int64"), "tyre": pd.Categorical(["hard", "hard"])},
    lambda n: {"lap": np.array([np.nan, float(n)]), "tyre": pd.Categorical(["soft", None], ["soft", "wet"])},
    lambda n: {"lap": np.array([n, n], "int8"), "tyre": [None, None]},
    lambda n: {"lap": [None, None], "tyre": pd.array(["soft", "hard"], "string")},
]


def test_a_thousand_messages_with_drifting_dtypes_read_back_with_one_dtype_per_column_live_and_replayed(
    client: qf.StreamingClient, topic: str
) -> None:
    """Ints with and without nulls, columns of nothing but nulls, differing categories."""
    client.topics.set_contract(
        topic, qf.Contract({"lap": "Int64", "tyre": pd.CategoricalDtype(["soft", "hard", "wet"])}, policy="promote")
    )
    with client.open_output_topic(topic) as out:
        for n in range(1_000):
            out.write(frame(2 * n, **DRIFT[n % 5](n % 100)), stream="car-44")
    batches = read(client, topic)
    live = pd.concat([batch.frame for batch in batches])
    assert {tuple(map(str, batch.frame.dtypes)) for batch in batches} == {("Int64", "category")}
    assert live["tyre"].cat.categories.tolist() == ["soft", "hard", "wet"]
    assert len(live) == 2_000
    replayed = client.replay(topic, progress=False).to_frame(stream_column=None)
    pd.testing.assert_frame_equal(live, replayed, check_exact=True)
    expected = [n % 100 for n in range(0, 1_000, 5)]
    assert live["lap"].iloc[::10].tolist() == expected


def test_a_thousand_messages_that_were_written_without_a_contract_are_read_by_the_one_that_came_later(
    client: qf.StreamingClient, topic: str, group: str
) -> None:
    """Drift that is in the topic already is promoted where that is exact, live and replayed alike."""
    with client.open_output_topic(topic) as out:
        for n in range(1_000):
            out.write(frame(2 * n, **DRIFT[n % 5](n % 100)), stream="car-44")
    client.topics.set_contract(topic, qf.Contract({"lap": "Int64", "tyre": "str"}, policy="promote"))
    live = pd.concat([batch.frame for batch in read(client, topic)])
    replayed = client.replay(topic, progress=False).to_frame(stream_column=None)
    pd.testing.assert_frame_equal(live, replayed, check_exact=True)
    assert str(live["lap"].dtype) == "Int64"
    assert live["tyre"].iloc[:6].tolist()[:3] == ["soft", "hard", "hard"]


def test_with_raise_the_first_message_that_drifts_raises_at_the_writer(client: qf.StreamingClient, topic: str) -> None:
    client.topics.set_contract(topic, {"lap": "int64"})
    with client.open_output_topic(topic) as out:
        out.write(frame(lap=[1, 2]), stream="car-44")
        for drifted in (pd.array([1, None], "Int64"), [1.0, 2.0], [None, None]):
            with pytest.raises(qf.ContractError, match="lap"):
                out.write(frame(lap=drifted), stream="car-44")
        assert out.contract_counts["rows"].sum() == 6


def test_rows_given_as_dicts_get_the_dtypes_of_the_contract(client: qf.StreamingClient, topic: str) -> None:
    """Their values are what they are: it does not matter which of them were converted together."""
    client.topics.set_contract(topic, SPEED)
    with client.open_output_topic(topic) as out:
        car = out.create_stream("car-44")
        for row in ({"speed": 3, "lap": 1}, {"speed": None, "lap": 2}, {"speed": 2.5}):
            car.parameters.buffer.write({"time": 0, "speed": None, "lap": None, **row})
            car.parameters.buffer.flush()
        car.parameters.buffer.write([{"time": 1, "speed": 1.0, "lap": 1}, {"time": 2, "speed": "fast", "lap": 1}])
        with pytest.raises(qf.QuixframesError, match="speed"):
            car.parameters.buffer.flush()
    (batch,) = read(client, topic)
    assert batch.frame.dtypes.astype(str).tolist() == ["float64", "Int64"]
    assert batch.frame["lap"].fillna(0).tolist() == [1, 2, 0, 1]


def test_rows_that_do_not_keep_a_contract_with_dead_letters_go_there_and_the_others_pass(
    client: qf.StreamingClient, make_topic: Callable[..., str]
) -> None:
    topic, dead = make_topic(), make_topic()
    contract = qf.Contract(SPEED.parameters, policy="dead-letter", out_of_range="dead-letter")
    client.topics.set_contract(topic, contract)
    with pytest.raises(qf.SettingsError, match="dead_letters="):
        client.open_output_topic(topic)
    with client.open_output_topic(topic, dead_letters=dead) as out:
        out.write(frame(speed=[10.0, 999.0, 20.0], lap=pd.array([1, 2, 3], "Int64")), stream="car-44")
        out.write(bad(), stream="car-44")
        assert out.contract_counts.set_index(["column", "problem"])["rows"].to_dict() == {
            ("speed", "range"): 1, ("speed", "dtype"): 2,
        }  # fmt: skip
    (batch,) = read(client, topic)
    assert batch.frame["speed"].tolist() == [10.0, 20.0]
    letters = client.dead_letters(dead)
    assert letters["topic"].tolist() == [topic, topic]
    assert all(letters["exception"].str.endswith("ContractError"))
    rejected = client.replay(dead, contract=None, progress=False).batches()
    assert [value for batch in rejected for value in batch.frame["speed"]] == [999.0, "fast", "slow"]


OUT_OF_RANGE = [("count", [999.0, 10.0]), ("missing", [None, 10.0])]


@pytest.mark.parametrize(("choice", "read_back"), OUT_OF_RANGE)
def test_values_out_of_range_are_counted_or_made_missing(
    client: qf.StreamingClient, topic: str, choice: Any, read_back: list[float | None]
) -> None:
    client.topics.set_contract(topic, qf.Contract(SPEED.parameters, out_of_range=choice))
    with client.open_output_topic(topic) as out:
        out.write(frame(speed=[999.0, 10.0], lap=pd.array([1, 2], "Int64")), stream="car-44")
        assert out.contract_counts.to_numpy().tolist() == [["speed", "range", 1]]
    (batch,) = read(client, topic)
    assert [None if np.isnan(value) else value for value in batch.frame["speed"]] == read_back


def test_values_out_of_range_can_be_an_error(client: qf.StreamingClient, topic: str) -> None:
    client.topics.set_contract(topic, qf.Contract(SPEED.parameters, out_of_range="raise"))
    with client.open_output_topic(topic) as out, pytest.raises(qf.ContractError, match=r"999.*0.*400"):
        out.write(frame(speed=[1.0, 999.0], lap=pd.array([1, 2], "Int64")), stream="car-44")


def test_a_reader_refuses_a_message_of_a_writer_that_did_not_know_the_contract(
    client: qf.StreamingClient, make_topic: Callable[..., str], group: str
) -> None:
    topic, dead = make_topic(), make_topic()
    with client.open_output_topic(topic) as out:
        for written in (good(), bad(), good(5)):
            out.write(written, stream="car-44")
    client.topics.set_contract(topic, SPEED)
    with client.open_input_topic(topic, None) as opened:
        loop = opened.batches(until="now")
        assert len(next(loop)) == 2
        with pytest.raises(qf.ContractBreachError, match=rf"(?s){topic}\[0\]@1.*speed") as caught:
            next(loop)
    assert caught.value.problems[0].column == "speed"
    with pytest.raises(qf.ContractBreachError):
        client.replay(topic, progress=False).to_frame()
    with client.open_input_topic(topic, group, dead_letters=dead) as opened:
        assert sum(len(batch) for batch in opened.batches(until="now")) == 4
    assert client.dead_letters(dead)["offset"].tolist() == [1]
    assert len(client.replay(topic, contract=None, progress=False).events()) == 0
    assert sum(len(batch) for batch in read(client, topic, contract=None)) == 6


def test_foreign_rows_keep_the_contract_too_and_get_their_record_columns_after_it(
    client: qf.StreamingClient, broker_address: str, topic: str
) -> None:
    client.topics.set_contract(topic, qf.Contract({"speed": "float64"}, policy="promote"))
    with client.open_output_topic(topic, codec=qf.JsonRows()) as out:
        out.write(frame(speed=[1, 2]), stream="car-44")
        with pytest.raises(qf.ContractError, match="gear"):
            out.write(frame(speed=[1.0], gear=[1]), stream="car-44")
    (batch,) = read(client, topic, codec=qf.JsonRows(), record_columns=qf.RecordColumns())
    assert batch.frame["speed"].tolist() == [1.0, 2.0]
    assert batch.frame["kafka_key"].tolist() == ["car-44"] * 2


def test_rows_are_refused_where_a_contract_has_come_to_have_dead_letters_and_no_place_for_them_is_open(
    client: qf.StreamingClient, topic: str
) -> None:
    """They do not vanish."""
    client.topics.set_contract(topic, {"n": "int64"})
    with client.open_output_topic(topic) as out:
        out.write(frame(n=[1]), stream="a")
        client.topics.set_contract(topic, qf.Contract({"n": "int64"}, policy="dead-letter"))
        with pytest.raises(qf.ContractError, match="'n'"):
            out.write(frame(n=["x", "y"]), stream="a")
    assert sum(len(batch) for batch in read(client, topic)) == 1


def test_input_rows_are_not_committed_where_the_dead_letters_of_their_results_failed(
    client: qf.StreamingClient, make_topic: Callable[..., str], group: str
) -> None:
    source, target, dead = make_topic(), make_topic(), make_topic(message_limit=300)
    with client.open_output_topic(source) as out:
        out.write(frame(n=["x", "y"]), stream="a")
    client.topics.set_contract(target, qf.Contract({"n": "int64"}, policy="dead-letter"))
    with (
        client.open_input_topic(source, group) as raw,
        client.open_output_topic(target, dead_letters=dead) as results,
    ):
        for _ in range(2):
            with contextlib.suppress(qf.DeliveryError):
                for batch in raw.batches(until="now"):
                    results.write(batch.frame, stream="a")
                    results.flush()
        with contextlib.suppress(qf.DeliveryError):
            results.close()
    assert sum(len(batch) for batch in read(client, source)) == 2
    with client.open_input_topic(source, group) as raw:
        assert sum(len(batch) for batch in raw.batches(until="now")) == 2


def test_nothing_is_sent_to_the_dead_letters_before_the_write_is_accepted(
    client: qf.StreamingClient, make_topic: Callable[..., str]
) -> None:
    """Of a closed stream, of a mixed frame of which another part raises, of dicts that are tried one by one."""
    topic, dead = make_topic(), make_topic()
    client.topics.set_contract(
        topic, qf.Contract({"n": qf.Parameter("int64", range=(0, 9))}, policy="dead-letter", out_of_range="raise")
    )
    with client.open_output_topic(topic, dead_letters=dead) as out:
        closed = out.create_stream("closed")
        closed.close()
        for _ in range(2):
            with pytest.raises(qf.ClosedError):
                closed.parameters.write(frame(n=["x"]))
        mixed = frame(n=["x", 99], stream=["p", "q"])
        with pytest.raises(qf.QuixframesError):
            out.write(mixed.astype({"n": "str"}).iloc[:1].assign(n=[99]), by="stream")
        out.flush()
        assert client.dead_letters(dead).empty
        car = out.create_stream("car", properties=qf.StreamProperties("Car"))
        car.parameters.buffer.write([{"time": 0, "n": 1}, {"time": 1, "n": 99}, {"time": 2, "n": 3}])
        with pytest.raises(qf.ContractError, match="a row written to the buffer .* was left out.*99"):
            car.parameters.buffer.flush()
        car.parameters.write(frame(n=["x"]))
        out.flush()
    assert len(client.dead_letters(dead)) == 1
    rows = [n for batch in read(client, topic) if batch.stream_id == "car" for n in batch.frame["n"]]
    assert rows == [1, 3]
    (batch,) = client.replay(dead, contract=None, progress=False).batches()
    assert batch.stream.properties.name == "Car"  # so that it is whole when it is sent back


def test_dead_letters_of_a_topic_with_a_codec_are_written_through_it(
    client: qf.StreamingClient, make_topic: Callable[..., str]
) -> None:
    topic, dead = make_topic(), make_topic()
    client.topics.set_contract(topic, qf.Contract({"n": "int64"}, policy="dead-letter"))
    with client.open_output_topic(topic, codec=qf.JsonRows(unit="ns"), dead_letters=dead) as out:
        out.write(frame(n=["x"]), stream="a")
    (value,) = client.dead_letters(dead)["value"]
    assert value == b'{"time":0,"n":"x"}'


def test_a_row_that_is_too_large_is_named_by_its_place_in_what_was_written(
    client: qf.StreamingClient, make_topic: Callable[..., str]
) -> None:
    """Also where rows before it went to the dead letters; and it takes no good row with it."""
    topic, dead = make_topic(), make_topic()
    client.topics.set_contract(topic, qf.Contract({"t": "str", "n": "Int64"}, policy="dead-letter"))
    with client.open_output_topic(topic, dead_letters=dead) as out:
        buffer = out.create_stream("a").parameters.buffer
        rows = [{"n": 1, "t": "bad", "z": 1}, {"n": 2, "t": "good"}, {"n": 3, "t": "x" * 2_000_000}]
        buffer.write([{"time": n, **{k: v for k, v in row.items() if k != "z"}} for n, row in enumerate(rows)])
        with pytest.raises(qf.QuixframesError, match="row 2 alone takes more"):
            buffer.flush()
    assert [t for batch in read(client, topic) for t in batch.frame["t"]] == ["bad", "good"]
