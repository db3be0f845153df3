"""Who may do what: on a real secured broker, over both Kafka clients."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka
import pandas as pd
import pytest

import quixframes as qf
from quixframes.access import Users
from quixframes.kafka import Acl
from tests.secrets_kept import keep
from tests.secure.conftest import Client
from tests.waiting import wait_for

MakeFrame = Callable[..., pd.DataFrame]


class Scene:
    """A user without any rights, and three topics with rows in them: ``raw``, ``clean`` and ``secret``."""

    def __init__(self, connect: Client, kafka: qf.LocalKafka, frame: pd.DataFrame) -> None:
        self._connect = connect
        self._kafka = kafka
        own = uuid.uuid4().hex[:8]
        self.user = f"pace-{own}"
        self.admin = connect(kafka.security("admin"))
        self.raw, self.clean, self.secret = (f"{name}-{own}" for name in ("raw", "clean", "secret"))
        for topic in (self.raw, self.clean, self.secret):
            self.admin.topics.create(topic, partitions=2)
            with self.admin.open_output_topic(topic) as out:
                out.write(frame, stream="car-44")
        self.password = self.admin.users.create(self.user)
        keep(self.password.reveal())

    def model(self, password: qf.Secret | None = None) -> qf.StreamingClient:
        """The user's own client."""
        security = qf.Security.scram(self.user, password or self.password, ca=self._kafka.security("admin").ca)
        return self._connect(security)

    def grant_model(self) -> pd.DataFrame:
        return self.admin.topics.grant(self.user, read=self.raw, group=self.user, write=self.clean)


@pytest.fixture
def scene(connect: Client, secure_kafka: qf.LocalKafka, make_frame: MakeFrame) -> Iterator[Scene]:
    made = Scene(connect, secure_kafka, make_frame(100))
    yield made
    made.admin.topics.revoke(made.user)
    for topic in (made.raw, made.clean, made.secret):
        made.admin.topics.delete(topic)
    if made.admin.users.exists(made.user):
        made.admin.users.delete(made.user)


@pytest.mark.parametrize("exactly_once", [False, True], ids=["at least once", "exactly once"])
def test_a_principal_with_only_its_grant_runs_its_model(scene: Scene, exactly_once: bool) -> None:
    scene.grant_model()
    model = scene.model()
    source = model.open_input_topic(scene.raw, scene.user, exactly_once=exactly_once)
    done = qf.run(lambda frame: frame, source=source, sink=model.open_output_topic(scene.clean), until="now")
    assert (done.rows_in, done.rows_out) == (100, 100)
    assert len(scene.admin.replay(scene.clean, progress=False).to_frame()) == 200


def test_who_may_read_and_write_a_topic_and_be_a_group_may_load_history_under_its_name(
    scene: Scene, make_frame: MakeFrame
) -> None:
    scene.admin.topics.grant(scene.user, write=scene.clean, group="season")
    with pytest.raises(qf.AccessDeniedError, match=f"may not read topic {scene.clean!r}"):
        scene.model().load(make_frame(50), scene.clean, stream="car-63", name="season", progress=False)
    scene.admin.topics.grant(scene.user, read=scene.clean)
    done = scene.model().load(make_frame(50), scene.clean, stream="car-63", name="season", progress=False)
    assert done.rows == 50
    with pytest.raises(qf.AccessDeniedError, match="may not write transactional id 'quixframes/other/load'"):
        scene.model().load(make_frame(50), scene.clean, stream="car-63", name="other", progress=False)


def forbidden(scene: Scene, model: qf.StreamingClient, frame: pd.DataFrame) -> dict[str, tuple[Any, str, str, str]]:
    """What a model may not do: each with the operation, the resource and its name, as the error has to tell them."""
    raw, clean, secret, user = scene.raw, scene.clean, scene.secret, scene.user
    mine = f"mine-{user}"
    topics, users = model.topics, model.users

    def read(topic: str, group: str | None, **settings: Any) -> Callable[[], object]:
        return lambda: list(model.open_input_topic(topic, group, **settings).batches(until="now"))

    def write(topic: str, **settings: Any) -> Callable[[], object]:
        return lambda: model.open_output_topic(topic, **settings).write(frame, stream="car-44")

    cluster = "cluster", "kafka-cluster"
    contracts = "topic", "__quixframes.contracts"
    return {
        "read a topic": (read(secret, user), "read", "topic", secret),
        "read what it writes": (read(clean, user), "read", "topic", clean),
        "read without a group": (read(secret, None), "read", "topic", secret),
        "replay": (lambda: model.replay(secret), "read", "topic", secret),
        "read as another group": (read(raw, f"other-{user}"), "read", "group", f"other-{user}"),
        "read as a group with its name in front": (read(raw, f"{user}-2"), "read", "group", f"{user}-2"),
        "write a topic": (write(secret), "write", "topic", secret),
        "write what it reads": (write(raw), "write", "topic", raw),
        "write dead letters": (read(raw, user, dead_letters=secret), "write", "topic", secret),
        "look at dead letters": (lambda: model.dead_letters(secret), "describe", "topic", secret),
        "create a topic": (lambda: topics.create(mine), "create", "topic", mine),
        "create one by opening it": (write(mine, create=True), "describe", "topic", mine),
        "delete what it reads": (lambda: topics.delete(raw), "delete", "topic", raw),
        "delete what it writes": (lambda: topics.delete(clean), "delete", "topic", clean),
        "delete another": (lambda: topics.delete(secret), "delete", "topic", secret),
        "delete the contracts": (lambda: topics.delete(contracts[1]), "delete", *contracts),
        "change what it reads": (lambda: topics.alter(raw, retention="1 day"), "alter_configs", "topic", raw),
        "change what it writes": (lambda: topics.alter(clean, retention="1 day"), "alter_configs", "topic", clean),
        "add partitions": (lambda: topics.add_partitions(raw, 4, progress=False), "alter", "topic", raw),
        "describe": (lambda: topics.describe(secret), "describe", "topic", secret),
        "know whether there is": (lambda: topics.exists(secret), "describe", "topic", secret),
        "count its streams": (lambda: topics.balance(secret), "describe", "topic", secret),
        "set a contract": (lambda: topics.set_contract(raw, {"speed": "float64"}), "write", *contracts),
        "say what a topic is": (lambda: topics.set_about(raw, stage="raw"), "write", *contracts),
        "grant": (lambda: topics.grant(user, read=secret), "describe", *cluster),
        "revoke": (lambda: topics.revoke("admin"), "describe", *cluster),
        "see permissions": (topics.access, "describe", *cluster),
        "see users": (users.list, "describe", *cluster),
        "make a user": (lambda: users.create("mallory"), "describe", *cluster),
        "change a password": (lambda: users.rotate("admin"), "describe", *cluster),
        "remove a user": (lambda: users.delete("admin"), "describe", *cluster),
    }


def test_what_was_not_granted_is_refused_with_its_principal_operation_and_resource(
    scene: Scene, make_frame: MakeFrame
) -> None:
    scene.admin.topics.set_contract(scene.secret, {"speed": "float64"}, force=True)  # so that there is a topic of them
    scene.grant_model()
    model = scene.model()
    attempts = forbidden(scene, model, make_frame(10))
    assert len(attempts) >= 20
    for what, (attempt, *facts) in attempts.items():
        begin = time.monotonic()
        with pytest.raises(qf.QuixframesError) as caught:
            attempt()
        error: BaseException | None = caught.value
        if not isinstance(error, qf.AccessDeniedError):
            error = error.__cause__ if error is not None else None  # of rows that were not delivered
        assert isinstance(error, qf.AccessDeniedError), (what, caught.value)
        assert [error.principal, error.operation, error.resource, error.name] == [f"User:{scene.user}", *facts], what
        assert f"{scene.user} may not " in str(error), what
        assert time.monotonic() - begin < 10, what
    assert model.topics.list() == sorted([scene.clean, scene.raw])


@pytest.mark.parametrize("transport", ["confluent"])
def test_a_refusal_that_is_told_while_a_reader_is_being_opened_is_raised(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka tells it once, here long before the reader is open: it was lost, and the reader waited for ever."""
    opened = time.monotonic() + 2.0

    class SlowToOpen(confluent_kafka.Consumer):
        def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
            if time.monotonic() < opened:
                raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(confluent_kafka.KafkaError._TIMED_OUT))
            return super().list_topics(topic, timeout=timeout)

    monkeypatch.setattr("quixframes.confluent.consumer.Consumer", SlowToOpen)
    scene.grant_model()
    with pytest.raises(qf.AccessDeniedError, match="may not read group 'other'"):
        list(scene.model().open_input_topic(scene.raw, "other").batches(until="now"))


def test_the_grant_that_an_error_names_is_what_was_missing(scene: Scene) -> None:
    """Each error's own call is run, as its text has it, until the model runs."""
    model = scene.model()

    def run() -> None:
        with model.open_input_topic(scene.raw, scene.user) as source:  # else it stays a member, as soon as it may
            qf.run(lambda frame: frame, source=source, sink=model.open_output_topic(scene.clean), until="now")

    calls = []
    for _ in range(3):
        with pytest.raises(qf.AccessDeniedError) as caught:
            run()
        text = str(caught.value)
        calls.append(text[text.index("client.topics.grant(") :].partition(" (")[0])
        eval(calls[-1], {"client": scene.admin})
    run()
    assert [call.partition(", ")[2].partition("=")[0] for call in calls] == ["read", "write", "group"]


def test_a_group_named_like_another_and_more_cannot_be_kept_from_its_transactions(scene: Scene) -> None:
    scene.grant_model()
    scene.admin.topics.grant(scene.user, group=f"{scene.user}/2")
    found = scene.admin.topics.access(scene.user)
    assert sorted(found.name[found.resource == "transactional_id"]) == [
        f"quixframes/{scene.user}%2F2/",
        f"quixframes/{scene.user}/",
    ]


def test_an_owner_makes_governs_grows_and_removes_its_topic_and_no_other(scene: Scene, make_frame: MakeFrame) -> None:
    mine = f"{scene.user}-laps"
    scene.admin.topics.grant(scene.user, own=f"{scene.user}-*")
    owner = scene.model()
    owner.topics.create(mine, partitions=1, contract=qf.Contract.of(make_frame(1)), stage="raw")
    owner.topics.set_about(mine, owner="pits")
    with owner.open_output_topic(mine) as out:
        out.write(make_frame(10), stream="car-44")
    owner.topics.alter(mine, retention="1 day")
    assert owner.topics.add_partitions(mine, 2, settle="1s", progress=False).after == 2
    assert len(owner.replay(mine, progress=False).to_frame()) == 10
    owner.topics.delete(mine)
    for attempt in (lambda: owner.topics.delete(scene.raw), lambda: owner.topics.create(f"x{mine}")):
        with pytest.raises(qf.AccessDeniedError):
            attempt()


def test_who_may_not_see_where_streams_live_cannot_grow_a_topic(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would write down that the topic grows for the first time, and streams of before would move."""
    monkeypatch.setattr("quixframes.growth.LEASE", 0.1)
    admin = scene.admin
    admin.topics.add_partitions(scene.raw, 3, settle="100ms", progress=False)
    placed = admin._placements.get(scene.raw, admin.topics.describe(scene.raw).id)
    user, placement = f"User:{scene.user}", "__quixframes.placement"
    for allowed, missing in (("write", "read"), ("read", "write")):
        admin.topics.revoke(scene.user)
        lines = [Acl(user, allowed, "topic", placement), Acl(user, "all", "topic", scene.raw)]
        admin._get_admin().create_acls(lines)
        model = scene.model()

        def refused(
            model: qf.StreamingClient = model, missing: str = missing
        ) -> bool:  # brokers hear of permissions a moment later
            with pytest.raises(qf.AccessDeniedError) as caught:
                model.topics.add_partitions(scene.raw, 6, settle="100ms", progress=False)
            return (caught.value.operation, caught.value.name) == (missing, placement)

        assert wait_for(refused)
    assert admin.topics.describe(scene.raw).partitions == 3
    assert admin._placements.get(scene.raw, admin.topics.describe(scene.raw).id) == placed


def test_what_is_revoked_is_refused_and_what_other_roles_need_stays(scene: Scene, make_frame: MakeFrame) -> None:
    added = scene.grant_model()
    assert list(added.columns) == ["principal", "permission", "operation", "resource", "name", "pattern", "host"]
    assert len(scene.grant_model()) == 0  # it is there already
    planned = scene.admin.topics.revoke(scene.user, write=scene.clean, dry_run=True)
    pd.testing.assert_frame_equal(scene.admin.topics.access(scene.user), added)
    model = scene.model()
    out = model.open_output_topic(scene.clean)
    out.write(make_frame(10), stream="car-44")
    out.flush()
    removed = scene.admin.topics.revoke(scene.user, write=scene.clean)
    pd.testing.assert_frame_equal(removed, planned)
    assert set(removed.name) == {scene.clean, "__quixframes.placement", f"quixframes/{scene.user}/"}
    assert set(scene.admin.topics.access(scene.user).name) == {scene.raw, scene.user, "__quixframes.contracts"}

    refusals: list[qf.DeliveryError] = []

    def is_refused() -> bool:
        """The broker hears of it a moment later."""
        try:
            out.write(make_frame(10), stream="car-44")
            out.flush()
        except qf.DeliveryError as exc:
            refusals.append(exc)
        return bool(refusals)

    assert wait_for(is_refused)
    cause = refusals[0].__cause__
    assert isinstance(cause, qf.AccessDeniedError)
    assert (cause.operation, cause.name) == ("write", scene.clean)
    assert scene.admin.topics.revoke(scene.user).name.nunique() == 3
    assert len(scene.admin.topics.access(scene.user)) == 0
    assert len(scene.admin.topics.revoke(scene.user)) == 0


def test_a_role_that_is_taken_away_and_that_another_still_allows_is_told(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """Else who takes ``read="car-1"`` away from ``read="car-*"`` would believe that it may no longer be read."""
    topics = scene.admin.topics
    topics.grant(scene.user, read=f"{scene.raw[:-1]}*", own=scene.clean)
    assert topics.revoke(scene.user, read=scene.raw, write=scene.clean).empty
    told = [record.getMessage() for record in caplog.records if record.name == "quixframes.access"]
    assert told == [
        f"User:{scene.user} may still do what read='{scene.raw}' allows: User:{scene.user} has "
        f"read='{scene.raw[:-1]}*'",
        f"User:{scene.user} may still do what write='{scene.clean}' allows: User:{scene.user} has own='{scene.clean}'",
    ]


def test_a_list_without_names_takes_nothing_away(scene: Scene) -> None:
    granted = scene.grant_model()
    with pytest.raises(qf.SettingsError, match="nothing is named"):
        scene.admin.topics.revoke(scene.user, read=[])
    pd.testing.assert_frame_equal(scene.admin.topics.access(scene.user), granted)


def test_a_permission_of_a_newer_kafka_stands_in_nobodys_way(
    scene: Scene, transport: str, secure_kafka: qf.LocalKafka
) -> None:
    """Neither client has a name for this operation, and kafka-python did not let any be seen beside it."""
    newer = Acl(f"User:{scene.user}", "two_phase_commit", "transactional_id", "tx")
    other = qf.StreamingClient(secure_kafka.address, security=secure_kafka.security("admin"), transport="kafka-python")
    with other:
        other._get_admin().create_acls([newer])
        assert wait_for(lambda: "tx" in set(scene.admin.topics.access(scene.user).name))
        scene.grant_model()
        if transport == "confluent":
            with pytest.raises(qf.BrokerError, match="stay on transactional_id 'tx': .* use transport='kafka-python'"):
                scene.admin.topics.revoke(scene.user)
            assert wait_for(lambda: list(scene.admin.topics.access(scene.user).name) == ["tx"])
        assert wait_for(lambda: "two_phase_commit" in set(other.topics.access(scene.user).operation))
        other.topics.revoke(scene.user)
        assert other.topics.access(scene.user).empty


def test_a_user_with_signs_of_scram_in_its_name_logs_in(
    connect: Client, secure_kafka: qf.LocalKafka, scene: Scene
) -> None:
    user = f"CN=pace,O=pits, {scene.user}"
    password = scene.admin.users.create(user)
    keep(password.reveal())
    security = qf.Security.scram(user, password, ca=secure_kafka.security("admin").ca)
    try:
        assert connect(security).topics.list() == []
    finally:
        scene.admin.users.delete(user)


def test_a_password_is_made_changed_and_ends_with_its_user(scene: Scene) -> None:
    users = scene.admin.users
    assert scene.user in users.list()
    assert (users.table().set_index("user").loc[scene.user].to_list()) == ["SCRAM-SHA-512", 8192]
    scene.admin.topics.grant(scene.user, read=scene.raw)
    assert scene.model().topics.list() == [scene.raw]
    assert len(scene.password.reveal()) == 32
    assert repr(scene.password) == "***"
    new = users.rotate(scene.user)
    keep(new.reveal())
    assert new != scene.password

    def refused(password: qf.Secret) -> bool:
        try:
            scene.model(password).topics.list()
        except qf.AuthenticationError as exc:
            return "the login was refused: check the user, the password" in str(exc)
        return False

    assert wait_for(lambda: not refused(new))
    assert wait_for(lambda: refused(scene.password))
    users.delete(scene.user)
    assert wait_for(lambda: refused(new))
    assert not users.exists(scene.user)


def test_a_users_mistakes_are_told(scene: Scene) -> None:
    users = scene.admin.users
    mistakes: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: users.create(scene.user), qf.BrokerError, "already: client.users.rotate"),
        (lambda: users.rotate("nobody"), qf.BrokerError, "no user 'nobody': client.users.create"),
        (lambda: users.delete("nobody"), qf.BrokerError, "no user 'nobody'"),
        (lambda: users.create(""), qf.SettingsError, "has to be a name"),
        (lambda: users.create("User:x"), qf.SettingsError, "has to be a name"),
        (lambda: users.create("*"), qf.SettingsError, "has to be a name"),
        (lambda: users.create("müller"), qf.SettingsError, "in ASCII"),
        (lambda: users.create(" x"), qf.SettingsError, "has to be a name"),
        (lambda: users.create("x", mechanism=None), qf.SettingsError, "SCRAM-SHA-256"),  # type: ignore[arg-type]
        (lambda: users.create("x", mechanism="PLAIN"), qf.SettingsError, "SCRAM-SHA-256"),  # type: ignore[arg-type]
        (lambda: users.create("x", iterations=1000), qf.SettingsError, "4096 or more"),
        (lambda: users.create("x", iterations=99_999), qf.SettingsError, "at most 16384"),
        (lambda: users.create("x", password=""), qf.SettingsError, "password=''"),
        (lambda: scene.admin.topics.grant(scene.user), qf.SettingsError, "nothing is named"),
    ]
    for mistake, kind, words in mistakes:
        with pytest.raises(kind, match=words):
            mistake()
    assert "create" in repr(users)
    assert isinstance(users, Users)


def test_where_no_permissions_are_kept_there_are_none_to_give(client: qf.StreamingClient) -> None:
    with pytest.raises(qf.AccessDeniedError, match="no authorizer"):
        client.topics.grant("alice", read="engine")
