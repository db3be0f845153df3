"""Topics as things to make, look at and remove: ``client.topics``."""

from __future__ import annotations

from collections.abc import Callable

from quixframes.errors import TopicNotFoundError
from quixframes.kafka import Admin, TopicDescription
from quixframes.settings import Duration, Size, byte_count, nanoseconds, whole_number

__all__ = ["Topics"]


class Topics:
    """The topics of a cluster."""

    def __init__(self, admin: Callable[[], Admin]) -> None:
        self._admin = admin

    def create(
        self,
        name: str,
        *,
        partitions: int = 1,
        replication: int | None = None,
        retention: Duration | None = None,
        message_limit: Size | None = None,
    ) -> TopicDescription:
        """Make a topic, and return when it can be used.

        Args:
            name: letters, digits, dots, underscores and hyphens.
            partitions: how many instances of one model may share the topic at most. It can grow later, not shrink.
            replication: on how many brokers each row is kept; what the cluster has as its default when None.
            retention: how long rows are kept; the cluster's default (usually 7 days) when None.
            message_limit: the largest message; the cluster's default (usually 1 MiB) when None.

        Raises:
            BrokerError: there is a topic of that name, or the cluster cannot make it so.
        """
        whole_number(partitions, "partitions", least=1)
        if replication is not None:
            whole_number(replication, "replication", least=1)
        settings = {}
        if retention is not None:
            settings["retention.ms"] = str(nanoseconds(retention, name="retention") // 10**6)
        if message_limit is not None:
            settings["max.message.bytes"] = str(byte_count(message_limit, name="message_limit"))
        admin = self._admin()
        admin.create(name, partitions=partitions, replication=replication, settings=settings)
        return admin.describe(name)

    def describe(self, name: str) -> TopicDescription:
        """The topic as the cluster has it.

        Raises:
            TopicNotFoundError: there is none of that name.
        """
        return self._admin().describe(name)

    def exists(self, name: str) -> bool:
        """Whether there is a topic of that name."""
        try:
            self._admin().describe(name)
        except TopicNotFoundError:
            return False
        return True

    def list(self) -> list[str]:
        """The names of all topics but Kafka's internal ones, sorted."""
        return self._admin().topics()

    def delete(self, name: str) -> None:
        """Remove a topic and every row in it.

        Raises:
            TopicNotFoundError: there is none of that name.
        """
        self._admin().delete(name)

    def __repr__(self) -> str:
        return "<Topics: create, describe, exists, list, delete>"
