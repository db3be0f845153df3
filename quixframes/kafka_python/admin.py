"""The admin client: topics and their offsets."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import kafka.errors as theirs
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.protocol.consumer import IsolationLevel, OffsetSpec
from kafka.protocol.metadata import MetadataRequest

from quixframes.errors import AccessDeniedError, BrokerError, BrokerUnavailableError, ClosedError
from quixframes.kafka import Acl, PartitionDescription, TopicDescription, TopicDetails
from quixframes.kafka_python import permissions
from quixframes.kafka_python.failures import is_passing, translated
from quixframes.kafka_python.network import Opening, settings_for
from quixframes.refusals import USED_AS, Asked, check_may
from quixframes.security import Secret
from quixframes.settings import Connection, seconds

__all__ = ["PythonAdmin"]

_DEFAULT_MESSAGE_LIMIT = 1_048_588  # Kafka's own; for principals that may not see the topic's settings
_PAUSE = 0.02  # seconds between two looks at a topic that is being made or removed
_REFUSED = re.compile(r"\[Error (\d+)\] (?:\w+: )?(.*)", re.DOTALL)


class PythonAdmin:
    """Implements :class:`quixframes.kafka.Admin`."""

    def __init__(self, connection: Connection) -> None:
        self._patience = seconds(connection.connect_timeout)
        self._principal = connection.principal
        self._closed = False
        opening = Opening(connection)
        self._client = opening.open(
            lambda: KafkaAdminClient(
                kafka_client=opening,
                request_timeout_ms=round(self._patience * 1000),
                **settings_for(connection),
            )
        )

    def describe(self, topic: str, *, to: str = "describe") -> TopicDescription:
        """The topic as the cluster has it."""
        doing = f"topic {topic!r} cannot be {USED_AS.get(to, 'used')}"
        found = self._look(topic, doing, to)
        check_may(Asked(self._principal, to, topic), found.get("authorized_operations"))
        configs = self._configs(topic, doing, ["max.message.bytes", "cleanup.policy"])
        settings = {name: setting["value"] for name, setting in configs.items()}
        policy = settings.get("cleanup.policy")
        return TopicDescription(
            name=topic,
            partitions=len(found["partitions"]),
            replication=len(found["partitions"][0]["replica_nodes"]),
            message_limit=int(settings.get("max.message.bytes", _DEFAULT_MESSAGE_LIMIT)),
            id=str(found["topic_id"]),
            compacted=None if policy is None else policy == "compact",
        )

    def details(self, topic: str) -> TopicDetails:
        """The topic with its partitions and settings."""
        doing = f"topic {topic!r} cannot be described"
        found = self._look(topic, doing)
        settings = self._configs(topic, doing)
        sizes = self._sizes(topic)
        partitions = []
        for part in sorted(found["partitions"], key=lambda part: int(part["partition_index"])):
            number, leader = part["partition_index"], part["leader_id"]
            size = sizes.get((leader, number))
            stored = sum(there for (_, one), there in sizes.items() if one == number)
            partitions.append(
                PartitionDescription(
                    number,
                    leader if leader >= 0 else None,
                    tuple(part["replica_nodes"]),
                    tuple(part["isr_nodes"]),
                    size,
                    None if size is None else stored,
                )
            )
        return TopicDetails(
            topic,
            str(found["topic_id"]),
            tuple(partitions),
            {name: setting["value"] for name, setting in settings.items()},
            frozenset(name for name, one in settings.items() if one["config_source"] == "DYNAMIC_TOPIC_CONFIG"),
        )

    def brokers(self) -> list[int]:
        """The numbers of the brokers that are there, sorted."""
        found = self._tried("the brokers cannot be listed", self._client.describe_cluster)
        return sorted(broker["broker_id"] for broker in found["brokers"] if not broker.get("is_fenced"))

    def groups(self, topic: str) -> dict[str, dict[int, int]]:
        """What each group has committed of the topic."""
        doing = f"the groups of topic {topic!r} cannot be looked up"
        wanted = [TopicPartition(topic, part["partition_index"]) for part in self._partitions(topic, doing)]

        def look() -> dict[str, dict[int, int]]:
            names = [one["group_id"] for one in self._client.list_groups() if one["protocol_type"] in ("consumer", "")]
            found = self._client.list_group_offsets(dict.fromkeys(names, wanted)) if names else {}
            offsets = {
                name: {at.partition: one.offset for at, one in sorted(of.items()) if one.offset >= 0}
                for name, of in sorted(found.items())
            }
            return {name: of for name, of in offsets.items() if of}

        groups: dict[str, dict[int, int]] = self._tried(doing, look, topic)
        return groups

    def topics(self) -> list[str]:
        """Names of the topics there are, internal ones left out, sorted."""
        found = self._tried("topics cannot be listed", self._client.describe_topics)
        return sorted(topic["name"] for topic in found if not topic["is_internal"])

    def create(self, topic: str, *, partitions: int, replication: int | None, settings: Mapping[str, str]) -> None:
        """Make a topic, and return when it can be written to and read from."""
        doing = f"topic {topic!r} cannot be created"
        wanted = {
            "num_partitions": partitions,
            "replication_factor": -1 if replication is None else replication,
            "configs": dict(settings),
        }

        in_doubt = False  # whether an earlier try may have been heard although nobody said so

        def make() -> None:
            nonlocal in_doubt
            try:
                _check(self._client.create_topics({topic: wanted}, raise_errors=False))
            except theirs.TopicAlreadyExistsError:
                if not in_doubt or len(self._partitions(topic, doing)) != partitions:
                    raise
            except Exception:
                in_doubt = True
                raise

        self._tried(doing, make, topic, "create")
        self._wait_for_leaders(topic, partitions, doing, "was created")

    def alter(self, topic: str, settings: Mapping[str, str | None]) -> None:
        """Change these settings of a topic, and no others."""
        # Without "incremental" every setting that is not named would go back to its default.
        changes = {name: ("DELETE" if value is None else "SET", value) for name, value in settings.items()}
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic, changes)]

        def change() -> None:
            verdict = self._client.alter_configs(wanted, raise_on_unknown=False, incremental=True)["topic"][topic]
            refused = _REFUSED.match(str(verdict))  # it is told in no other way
            if refused is not None:
                raise theirs.for_code(int(refused[1]))(refused[2])

        self._tried(f"topic {topic!r} cannot be changed", change, topic, "alter_configs")

    def add_partitions(self, topic: str, to: int) -> None:
        """Let the topic have ``to`` partitions, and return when the new ones can be written to and read from."""
        doing = f"topic {topic!r} cannot be given {to} partitions"
        in_doubt = False

        def grow() -> None:
            nonlocal in_doubt
            try:
                verdict = self._client.create_partitions({topic: to}, raise_errors=False).results[0]
                if verdict.error_code:
                    raise theirs.for_code(verdict.error_code)(verdict.error_message)
            except theirs.InvalidPartitionsError:
                if not in_doubt or len(self._partitions(topic, doing)) != to:
                    raise
            except Exception:
                in_doubt = True
                raise

        self._tried(doing, grow, topic, "alter")
        self._wait_for_leaders(topic, to, doing, "was given them")

    def delete(self, topic: str) -> None:
        """Remove a topic and everything in it, and return when it is out of sight."""

        in_doubt = False

        def remove() -> None:
            nonlocal in_doubt
            try:
                _check(self._client.delete_topics([topic], raise_errors=False))
            except theirs.UnknownTopicOrPartitionError:
                if not in_doubt:
                    raise
            except Exception:
                in_doubt = True
                raise

        self._tried(f"topic {topic!r} cannot be deleted", remove, topic, "delete")
        # The controller has removed it; the brokers hear of it a moment later. Should somebody have made it anew
        # meanwhile, it stays in sight, and waiting for it has an end.
        deadline = time.monotonic() + self._patience
        while topic in self.topics() and time.monotonic() < deadline:
            time.sleep(_PAUSE)

    def beginnings(self, topic: str) -> dict[int, int]:
        """The first retained offset of each partition."""
        return self._offsets(topic, OffsetSpec.EARLIEST, committed_only=False)

    def ends(self, topic: str, *, committed_only: bool = True) -> dict[int, int]:
        """The offset after the last message of each partition (with ``committed_only``: after the last stable one)."""
        return self._offsets(topic, OffsetSpec.LATEST, committed_only=committed_only)

    def offsets_at(self, topic: str, timestamp_ms: int) -> dict[int, int]:
        """The first offset of each partition whose message has this broker time or a later one; its end if none has."""
        ends = self.ends(topic)  # first: a message that comes in between the two is of that time, and not passed over
        found = self._offsets(topic, timestamp_ms, committed_only=True)
        return {partition: offset if offset >= 0 else ends[partition] for partition, offset in found.items()}

    def acls(self) -> list[Acl]:
        """All permissions that the cluster keeps, sorted."""
        found: list[Acl] = self._tried("permissions cannot be seen", lambda: permissions.acls(self._ask))
        return found

    def create_acls(self, acls: Collection[Acl]) -> None:
        """Add permissions."""
        self._altered("permissions cannot be given", lambda: permissions.create_acls(self._ask, acls))

    def delete_acls(self, acls: Collection[Acl]) -> None:
        """Remove these permissions, and no others."""
        self._altered("permissions cannot be taken away", lambda: permissions.delete_acls(self._ask, acls))

    def users(self) -> dict[str, dict[str, int]]:
        """The users that the cluster keeps passwords of."""
        found: dict[str, dict[str, int]] = self._tried("users cannot be seen", lambda: permissions.users(self._ask))
        return found

    def set_password(self, user: str, mechanism: str, password: Secret, iterations: int) -> None:
        """Let a user log in by this mechanism with this password."""
        self._altered(
            f"user {user!r} cannot be given a password",
            lambda: permissions.set_password(self._ask, user, mechanism, password, iterations),
        )

    def delete_password(self, user: str, mechanism: str) -> None:
        """Let a user not log in by this mechanism any more."""
        self._altered(
            f"the password of user {user!r} cannot be removed",
            lambda: permissions.delete_password(self._ask, user, mechanism),
        )

    def close(self, timeout: float) -> None:
        """End."""
        self._closed = True
        self._client._client.shut(timeout)
        self._client.close()

    def _wait_for_leaders(self, topic: str, partitions: int, doing: str, done: str) -> None:
        """The controller has decided it; each broker learns of it, and of the leaders, a moment later. The next request
        may go to any of them."""
        deadline = time.monotonic() + self._patience
        left = self.brokers()
        while time.monotonic() < deadline:
            left = [broker for broker in left if not self._has_leaders(broker, topic, partitions)]
            if not left:
                return
            time.sleep(_PAUSE)
        raise BrokerUnavailableError(
            f"topic {topic!r} {done}, but had no leader for every partition within {self._patience:g} s"
        )

    def _has_leaders(self, broker: int, topic: str, partitions: int) -> bool:
        """Whether this broker knows them all. One that does not answer is asked by nobody else either."""
        wanted = [MetadataRequest.MetadataRequestTopic(name=topic)]
        request = MetadataRequest(topics=wanted, allow_auto_topic_creation=False)
        try:
            found = self._ask(request, broker).topics[0]
        except theirs.KafkaError:
            return True
        leaders = [partition.leader_id for partition in found.partitions if partition.error_code == 0]
        return found.error_code == 0 and len(leaders) == max(partitions, 1) and min(leaders) >= 0

    def _look(self, topic: str, doing: str, to: str = "describe") -> dict[str, Any]:
        def look() -> dict[str, Any]:
            found: dict[str, Any] = self._client.describe_topics([topic])[0]
            if found["error_code"]:
                raise theirs.for_code(found["error_code"])()
            return found

        found: dict[str, Any] = self._tried(doing, look, topic, to)
        return found

    def _partitions(self, topic: str, doing: str) -> list[dict[str, Any]]:
        return list(self._look(topic, doing)["partitions"])

    def _configs(self, topic: str, doing: str, names: list[str] | None = None) -> dict[str, dict[str, Any]]:
        """The topic's settings, or those of these names; none where they may not be seen."""
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic, names)]
        try:
            found = self._tried(
                doing, lambda: self._client.describe_configs(wanted, config_filter="all"), topic, "describe_configs"
            )
            settings: dict[str, dict[str, Any]] = found["topic"][topic]
            return settings
        except (AccessDeniedError, KeyError):
            return {}

    def _sizes(self, topic: str) -> dict[tuple[int, int], int]:
        """The bytes of each partition on each broker that tells."""
        sizes: dict[tuple[int, int], int] = {}
        for broker in self.brokers():
            try:
                (answer,) = self._client.describe_log_dirs([topic], [broker])
            except theirs.KafkaError:
                continue  # it is away, or may not be asked: then it is not known what it holds
            for found in (found for folder in answer["log_dirs"] for found in folder["topics"]):
                for part in found["partitions"]:
                    if not part["is_future_key"]:
                        sizes[broker, part["partition_index"]] = part["partition_size"]
        return sizes

    def _offsets(self, topic: str, spec: int, *, committed_only: bool) -> dict[int, int]:
        doing = f"the offsets of topic {topic!r} cannot be looked up"
        wanted = {TopicPartition(topic, part["partition_index"]): spec for part in self._partitions(topic, doing)}
        level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED
        found = self._tried(doing, lambda: self._client.list_partition_offsets(wanted, isolation_level=level), topic)
        return {partition.partition: int(at.offset) for partition, at in sorted(found.items())}

    def _ask(self, request: Any, broker: int | None = None) -> Any:
        manager = self._client._manager
        return manager.run(manager.send, request, broker)

    def _altered(self, doing: str, call: Callable[[], None]) -> None:
        self._tried(doing, call, operation="alter")

    def _tried(self, doing: str, call: Callable[[], Any], topic: str = "", operation: str = "describe") -> Any:
        """What the call returns, tried again while its failure is a passing one; kafka-python tries once."""
        if self._closed:
            raise ClosedError("the client is closed")
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return call()
            except BrokerError:
                raise
            except Exception as exc:
                if not is_passing(exc) or time.monotonic() >= deadline:
                    raise translated(exc, doing, Asked(self._principal, operation, topic)) from exc
            time.sleep(0.1)


def _check(answer: Mapping[str, Any]) -> None:
    """Raise what the cluster says of the one topic that it was asked about, in the cluster's words.

    kafka-python's own errors carry the whole request and answer.
    """
    verdict = answer["topics"][0]
    if verdict["error_code"]:
        raise theirs.for_code(verdict["error_code"])(verdict["error_message"])
