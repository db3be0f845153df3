"""The admin client's inside."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

import kafka.errors as theirs
import pytest
from kafka.admin import ACLOperation, ResourceType

from quixframes.client import StreamingClient
from quixframes.errors import AccessDeniedError, BrokerError
from quixframes.kafka import Admin
from quixframes.local import LocalKafka
from tests.adapters.helpers import forbid, new_topic


def test_a_try_that_was_heard_without_an_answer_does_not_fail_the_next(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"topic-{uuid.uuid4().hex[:8]}"

    def losing_the_first_answer(call: Callable[..., object]) -> Callable[..., object]:
        lost: list[object] = []

        def lossy(*args: object, **options: object) -> object:
            answer = call(*args, **options)
            if not lost:
                lost.append(answer)
                raise theirs.RequestTimedOutError
            return answer

        return lossy

    bare = admin._client
    with monkeypatch.context() as patch:
        patch.setattr(bare, "create_topics", losing_the_first_answer(bare.create_topics))
        admin.create(name, partitions=2, replication=1, settings={})
        patch.setattr(bare, "delete_topics", losing_the_first_answer(bare.delete_topics))
        admin.delete(name)
    assert name not in admin.topics()
    other = new_topic(admin, partitions=3)
    with monkeypatch.context() as patch:
        patch.setattr(bare, "create_topics", losing_the_first_answer(bare.create_topics))
        with pytest.raises(BrokerError, match="exists already"):
            admin.create(other, partitions=2, replication=1, settings={})  # somebody else's


@pytest.mark.parametrize("operation", [ACLOperation.READ, ACLOperation.DESCRIBE])
def test_contracts_that_may_not_be_read_are_not_applied_and_not_set(
    guarded_kafka: LocalKafka,
    operation: ACLOperation,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One may look at a topic of contracts and yet not read it."""
    name = f"__contracts-{uuid.uuid4().hex[:8]}"
    monkeypatch.setattr("quixframes.contract_store.CONTRACTS", name)
    with StreamingClient(guarded_kafka.address) as before:
        topic = before.topics.create(f"topic-{uuid.uuid4().hex[:8]}", contract={"n": "int64"}).name
        forbid(guarded_kafka.address, ResourceType.TOPIC, name, operation)
    with StreamingClient(guarded_kafka.address) as client:
        with caplog.at_level(logging.WARNING), client.open_output_topic(topic) as opened:
            assert opened.contract is None
        assert "none is applied" in caplog.text
        with pytest.raises(AccessDeniedError, match=name):
            client.topics.set_contract(topic, {"n": "str"})
