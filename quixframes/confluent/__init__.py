"""A second Kafka client: confluent-kafka, which is librdkafka (C) with a Python surface, met in one place.

This package is the only one that imports confluent-kafka (extra ``confluent``). It implements the Protocols of
:mod:`quixframes.kafka`, raises errors of :mod:`quixframes.errors` only, and passes the same tests as ``kafka_python``.
What librdkafka says in its log comes to the logger ``quixframes.confluent``: at INFO what it calls warnings and errors,
since it tries again by itself and whatever lasts is raised or reported by us; at WARNING only what it calls fatal.

- ``failures``: librdkafka's error codes, as a table to ours
- ``opening``: settings, the log, and clients that say why they cannot connect
- ``producer``, ``transactions``, ``admin``: the Protocols
- ``consumer``: the same, with ``reading`` (positions), ``rebalancing`` (the group), ``commits``, ``records`` and
  ``shared`` (one client, several threads)
- ``secured``: TLS and logins
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quixframes.confluent.admin import ConfluentAdmin
from quixframes.confluent.consumer import ConfluentConsumer
from quixframes.confluent.producer import ConfluentProducer
from quixframes.confluent.transactions import ConfluentTransactional
from quixframes.kafka import Transport
from quixframes.settings import Connection, ReaderSettings, WriterSettings

__all__ = ["Confluent"]


class Confluent:
    """Makes producers, consumers and admin clients on confluent-kafka; each has its own connections and threads."""

    def producer(self, connection: Connection, settings: WriterSettings) -> ConfluentProducer:
        """A connected producer."""
        return ConfluentProducer(connection, settings)

    def transactional(
        self, connection: Connection, settings: WriterSettings, *, transactional_id: str
    ) -> ConfluentTransactional:
        """A connected producer of transactions under this ID, which takes it over from any other."""
        return ConfluentTransactional(connection, settings, transactional_id)

    def consumer(self, connection: Connection, settings: ReaderSettings, *, group: str | None) -> ConfluentConsumer:
        """A connected consumer; ``group`` is None for one that will ``assign``."""
        return ConfluentConsumer(connection, settings, group=group)

    def admin(self, connection: Connection) -> ConfluentAdmin:
        """A connected admin client."""
        return ConfluentAdmin(connection)


if TYPE_CHECKING:  # the adapters are what the Protocols ask for
    _TRANSPORT: Transport = Confluent()
