"""The admin client: topics and their offsets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from quixframes.confluent import permissions
from quixframes.confluent.failures import UNKNOWN_TOPIC, error_in, is_passing, translated
from quixframes.confluent.opening import Opening, settings_for, within
from quixframes.errors import AccessDeniedError, AuthenticationError, BrokerError, BrokerUnavailableError, ClosedError
from quixframes.kafka import Acl, PartitionDescription, TopicDescription, TopicDetails
from quixframes.refusals import USED_AS, Asked, check_may, denied
from quixframes.security import Secret
from quixframes.settings import Connection, seconds

__all__ = ["ConfluentAdmin"]

_DEFAULT_MESSAGE_LIMIT = 1_048_588  # Kafka's own; for principals that may not see the topic's settings
_SPREAD = 5.0  # seconds within which all brokers have heard of a new topic; usually a few milliseconds
_PAUSE = 0.02  # seconds between two looks at a topic that is being made or removed
_SPEC: Any = OffsetSpec  # its types are there in part
_SET, _UNSET = AlterConfigOpType.SET, AlterConfigOpType.DELETE
_TOPICS_OWN = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
# Brokers do not say in a list of topics which of them are their own.
_INTERNAL = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})


class ConfluentAdmin:
    """Implements :class:`quixframes.kafka.Admin`."""

    def __init__(self, connection: Connection) -> None:
        self._patience = seconds(connection.connect_timeout)
        self._principal = connection.principal
        self._made: dict[str, float] = {}  # topics, and when; librdkafka does not let us ask each broker for them
        self._opening = Opening(connection)
        settings: dict[str, Any] = {**settings_for(connection), "error_cb": self._opening}
        self._client: Any = self._opening.made(AdminClient, settings)
        try:
            self._opening.check(self._client)
        except BaseException:
            self.close(1.0)
            raise

    def describe(self, topic: str, *, to: str = "describe") -> TopicDescription:
        """The topic as the cluster has it."""
        doing = f"topic {topic!r} cannot be {USED_AS.get(to, 'used')}"
        found = self._look(topic, doing, to)
        may = found.authorized_operations
        check_may(Asked(self._principal, to, topic), None if may is None else [one.name for one in may])
        settings = {name: setting.value for name, setting in self._configs(topic, doing).items()}
        policy = settings.get("cleanup.policy")
        return TopicDescription(
            name=topic,
            partitions=len(found.partitions),
            replication=len(found.partitions[0].replicas),
            message_limit=int(settings.get("max.message.bytes", _DEFAULT_MESSAGE_LIMIT)),
            id=str(found.topic_id),
            compacted=None if policy is None else policy == "compact",
        )

    def details(self, topic: str) -> TopicDetails:
        """The topic with its partitions and settings. Sizes are not told: librdkafka has no request for them."""
        doing = f"topic {topic!r} cannot be described"
        found = self._look(topic, doing)
        settings = self._configs(topic, doing)
        partitions = (
            PartitionDescription(
                part.id,
                None if part.leader is None or part.leader.id < 0 else part.leader.id,
                tuple(node.id for node in part.replicas),
                tuple(node.id for node in part.isr),
            )
            for part in sorted(found.partitions, key=lambda part: int(part.id))
        )
        return TopicDetails(
            topic,
            str(found.topic_id),
            tuple(partitions),
            {name: setting.value for name, setting in settings.items()},
            frozenset(name for name, one in settings.items() if one.source == _TOPICS_OWN),
        )

    def brokers(self) -> list[int]:
        """The numbers of the brokers that are there, sorted."""

        def look(left: float) -> list[int]:
            return sorted(
                node.id for node in self._client.describe_cluster(request_timeout=left).result(left + 1).nodes
            )

        brokers: list[int] = self._tried("the brokers cannot be listed", look)
        return brokers

    def groups(self, topic: str) -> dict[str, dict[int, int]]:
        """What each group has committed of the topic."""
        doing = f"the groups of topic {topic!r} cannot be looked up"
        numbers = [part.id for part in self._look(topic, doing).partitions]

        def look(left: float) -> dict[str, dict[int, int]]:
            listed = self._client.list_consumer_groups(request_timeout=left).result(left + 1)
            for failed in listed.errors:
                raise KafkaException(failed) if isinstance(failed, KafkaError) else failed
            asked = {}
            for name in sorted(group.group_id for group in listed.valid):
                # It takes one group at a time; asked together, their answers come together.
                wanted = ConsumerGroupTopicPartitions(name, [TopicPartition(topic, number) for number in numbers])
                asked[name] = self._client.list_consumer_group_offsets([wanted], request_timeout=left)[name]
            offsets = {
                name: {at.partition: at.offset for at in answer.result(left + 1).topic_partitions if at.offset >= 0}
                for name, answer in asked.items()
            }
            return {name: dict(sorted(of.items())) for name, of in offsets.items() if of}

        groups: dict[str, dict[int, int]] = self._tried(doing, look, topic)
        return groups

    def topics(self) -> list[str]:
        """Names of the topics there are, internal ones left out, sorted."""
        found = self._tried("topics cannot be listed", lambda left: self._client.list_topics(timeout=left))
        return sorted(name for name in found.topics if name not in _INTERNAL)

    def create(self, topic: str, *, partitions: int, replication: int | None, settings: Mapping[str, str]) -> None:
        """Make a topic, and return when it can be written to and read from."""
        doing = f"topic {topic!r} cannot be created"
        if partitions < 1:
            raise BrokerError(f"{doing}: the number of partitions cannot be {partitions}")
        wanted = NewTopic(topic, partitions, -1 if replication is None else replication, config=dict(settings))
        in_doubt = False  # whether an earlier try may have been heard although nobody said so

        def make(left: float) -> None:
            nonlocal in_doubt
            try:
                made = self._client.create_topics([wanted], operation_timeout=left, request_timeout=left)
                made[topic].result(left + 1)
            except Exception as exc:
                if _code(exc) == KafkaError.TOPIC_ALREADY_EXISTS:
                    if in_doubt and len(self._look(topic, doing).partitions) == partitions:
                        return
                    raise
                in_doubt = True
                raise

        self._tried(doing, make, topic, "create")
        self._made = {name: at for name, at in self._made.items() if time.monotonic() - at < _SPREAD}
        self._made[topic] = time.monotonic()
        self._wait_for_leaders(topic, partitions, doing, "was created")

    def alter(self, topic: str, settings: Mapping[str, str | None]) -> None:
        """Change these settings of a topic, and no others."""
        changes = [
            ConfigEntry(name, value, incremental_operation=_UNSET if value is None else _SET)
            for name, value in settings.items()
        ]
        wanted = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=changes)

        def change(left: float) -> None:
            self._client.incremental_alter_configs([wanted], request_timeout=left)[wanted].result(left + 1)

        self._tried(f"topic {topic!r} cannot be changed", change, topic, "alter_configs")

    def add_partitions(self, topic: str, to: int) -> None:
        """Let the topic have ``to`` partitions, and return when the new ones can be written to and read from."""
        doing = f"topic {topic!r} cannot be given {to} partitions"
        if to < 1:
            raise BrokerError(f"{doing}: that is no number of partitions")
        in_doubt = False

        def grow(left: float) -> None:
            nonlocal in_doubt
            try:
                wanted = [NewPartitions(topic, to)]
                grown = self._client.create_partitions(wanted, operation_timeout=left, request_timeout=left)
                grown[topic].result(left + 1)
            except Exception as exc:
                if _code(exc) == KafkaError.INVALID_PARTITIONS:
                    if in_doubt and len(self._look(topic, doing).partitions) == to:
                        return
                    raise
                in_doubt = True
                raise

        self._tried(doing, grow, topic, "alter")
        self._wait_for_leaders(topic, to, doing, "was given them")

    def delete(self, topic: str) -> None:
        """Remove a topic and everything in it, and return when it is out of sight."""
        in_doubt = False

        def remove(left: float) -> None:
            nonlocal in_doubt
            try:
                gone = self._client.delete_topics([topic], operation_timeout=left, request_timeout=left)
                gone[topic].result(left + 1)
            except Exception as exc:
                if in_doubt and _code(exc) in UNKNOWN_TOPIC:
                    return
                in_doubt = True
                raise

        self._tried(f"topic {topic!r} cannot be deleted", remove, topic, "delete")
        self._made.pop(topic, None)
        # The controller has removed it; the brokers hear of it a moment later. Should somebody have made it anew
        # meanwhile, it stays in sight, and waiting for it has an end.
        deadline = time.monotonic() + self._patience
        while topic in self.topics() and time.monotonic() < deadline:
            time.sleep(_PAUSE)

    def beginnings(self, topic: str) -> dict[int, int]:
        """The first retained offset of each partition."""
        return self._offsets(topic, _SPEC.earliest(), committed_only=False)

    def ends(self, topic: str, *, committed_only: bool = True) -> dict[int, int]:
        """The offset after the last message of each partition (with ``committed_only``: after the last stable one)."""
        return self._offsets(topic, _SPEC.latest(), committed_only=committed_only)

    def offsets_at(self, topic: str, timestamp_ms: int) -> dict[int, int]:
        """The first offset of each partition whose message has this broker time or a later one; its end if none has."""
        ends = self.ends(topic)  # first: a message that comes in between the two is of that time, and not passed over
        found = self._offsets(topic, _SPEC.for_timestamp(timestamp_ms), committed_only=True)
        return {partition: offset if offset >= 0 else ends[partition] for partition, offset in found.items()}

    def acls(self) -> list[Acl]:
        """All permissions that the cluster keeps, sorted."""
        self._check_cluster("permissions cannot be seen", "describe")
        found: list[Acl] = self._tried("permissions cannot be seen", partial(permissions.acls, self._client))
        return found

    def create_acls(self, acls: Collection[Acl]) -> None:
        """Add permissions."""
        self._altered("permissions cannot be given", partial(permissions.create_acls, self._client, acls))

    def delete_acls(self, acls: Collection[Acl]) -> None:
        """Remove these permissions, and no others."""
        self._altered("permissions cannot be taken away", partial(permissions.delete_acls, self._client, acls))

    def users(self) -> dict[str, dict[str, int]]:
        """The users that the cluster keeps passwords of."""
        self._check_cluster("users cannot be seen", "describe")
        found: dict[str, dict[str, int]] = self._tried("users cannot be seen", partial(permissions.users, self._client))
        return found

    def set_password(self, user: str, mechanism: str, password: Secret, iterations: int) -> None:
        """Let a user log in by this mechanism with this password."""
        self._altered(
            f"user {user!r} cannot be given a password",
            partial(permissions.set_password, self._client, user, mechanism, password, iterations),
        )

    def delete_password(self, user: str, mechanism: str) -> None:
        """Let a user not log in by this mechanism any more."""
        self._altered(
            f"the password of user {user!r} cannot be removed",
            partial(permissions.delete_password, self._client, user, mechanism),
        )

    def close(self, timeout: float) -> None:
        """End."""
        end, self._client = [self._client], None
        with contextlib.suppress(TimeoutError):  # its threads end by themselves, soon after
            within(timeout, end.clear)

    def _wait_for_leaders(self, topic: str, partitions: int, doing: str, done: str) -> None:
        """The controller has decided it; the brokers learn of it, and of the leaders, a moment later."""
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            found = self._tried(doing, lambda left: self._client.list_topics(topic, timeout=left)).topics[topic]
            leaders = [partition.leader for partition in found.partitions.values() if partition.error is None]
            if found.error is None and len(leaders) == partitions and min(leaders) >= 0:
                return
            time.sleep(_PAUSE)
        raise BrokerUnavailableError(
            f"topic {topic!r} {done}, but had no leader for every partition within {self._patience:g} s"
        )

    def _look(self, topic: str, doing: str, to: str = "describe") -> Any:
        wanted = TopicCollection([topic])

        def look(left: float) -> Any:
            found = self._client.describe_topics(wanted, include_authorized_operations=True, request_timeout=left)
            return found[topic].result(left + 1)

        return self._tried(doing, look, topic, to)

    def _configs(self, topic: str, doing: str) -> dict[str, Any]:
        """Its settings; none where they may not be seen."""
        wanted = ConfigResource(ConfigResource.Type.TOPIC, topic)

        def look(left: float) -> Any:
            return self._client.describe_configs([wanted], request_timeout=left)[wanted].result(left + 1)

        try:
            settings: dict[str, Any] = self._tried(doing, look, topic, "describe_configs")
            return settings
        except AccessDeniedError:
            return {}

    def _offsets(self, topic: str, spec: Any, *, committed_only: bool) -> dict[int, int]:
        doing = f"the offsets of topic {topic!r} cannot be looked up"
        level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED

        def look(left: float) -> dict[int, int]:
            numbers = [partition.id for partition in self._look(topic, doing).partitions]
            wanted = {TopicPartition(topic, number): spec for number in numbers}
            found = self._client.list_offsets(wanted, isolation_level=level, request_timeout=left)
            return {at.partition: future.result(left + 1).offset for at, future in found.items()}

        offsets: dict[int, int] = self._tried(doing, look, topic)
        return dict(sorted(offsets.items()))

    def _check_cluster(self, doing: str, operation: str) -> None:
        """Raise AccessDeniedError where the principal may not do this with the cluster. For that, librdkafka gives an
        empty list of permissions, and ends the process when asked for users (confluent-kafka 2.16)."""

        def look(left: float) -> list[str]:
            found = self._client.describe_cluster(include_authorized_operations=True, request_timeout=left)
            return [one.name.lower() for one in found.result(left + 1).authorized_operations or ()]

        if operation not in self._tried(doing, look):
            raise denied(doing, self._principal, operation, "cluster", "kafka-cluster")

    def _altered(self, doing: str, call: Callable[[float], None]) -> None:
        self._check_cluster(doing, "alter")
        self._tried(doing, call, operation="alter")

    def _is_young(self, topic: str) -> bool:
        """Whether a broker may not have heard yet that we have made it."""
        return time.monotonic() - self._made.get(topic, float("-inf")) < _SPREAD

    def _tried(self, doing: str, call: Callable[[float], Any], topic: str = "", operation: str = "describe") -> Any:
        """What the call returns, tried again while its failure is a passing one. It is told the seconds it may take."""
        deadline = time.monotonic() + self._patience
        while True:
            if self._client is None:
                raise ClosedError("the client is closed")
            left = max(0.1, deadline - time.monotonic())
            try:
                return call(left)
            except BrokerError:
                raise
            except Exception as exc:
                passing = is_passing(exc) or (_code(exc) in UNKNOWN_TOPIC and self._is_young(topic))
                if not passing or time.monotonic() >= deadline:
                    if is_passing(exc) and (why := self._opening.no_token):
                        raise AuthenticationError(f"{doing}: {why}") from exc
                    raise translated(exc, doing, Asked(self._principal, operation, topic)) from exc
            time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))


def _code(exc: BaseException) -> int | None:
    error = error_in(exc) if isinstance(exc, KafkaException) else None
    return None if error is None else error.code()
