"""The default Kafka client: kafka-python 3, met in one place.

This package is the only one that imports kafka-python. It implements the Protocols of :mod:`quixframes.kafka`, raises
errors of :mod:`quixframes.errors` only, and is where each of the client's measured defects is met once, by the smallest
sound means. ``tests/kafka_python`` shows each defect in the bare client; ``tests/adapters``, our freedom from it.

kafka-python logs each lost connection and each try of a new one, as warnings and errors of the loggers below "kafka".
They are left as they are: ``logging.getLogger("kafka").setLevel(logging.CRITICAL)`` silences them, and nothing is lost
by it, since whatever lasts is raised or reported by us.

- ``failures``: kafka-python's exceptions, as a table to ours
- ``secured``: TLS and logins
- ``network``: connections that say why they failed, are read fast, and know when they last heard of a broker
- ``producer`` (with ``routes`` and ``lanes``), ``consumer`` (with ``rebalancing`` and ``holds``), ``admin``: the
  Protocols
- ``transactions`` (with ``coordinators`` and ``membership``): the producer of transactions
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quixframes.kafka import Transport
from quixframes.kafka_python.admin import PythonAdmin
from quixframes.kafka_python.consumer import PythonConsumer
from quixframes.kafka_python.producer import PythonProducer
from quixframes.kafka_python.transactions import PythonTransactionalProducer
from quixframes.settings import Connection, ReaderSettings, WriterSettings

__all__ = ["KafkaPython"]


class KafkaPython:
    """Makes producers, consumers and admin clients on kafka-python; each has its own connections and IO thread."""

    def producer(self, connection: Connection, settings: WriterSettings) -> PythonProducer:
        """A connected producer."""
        return PythonProducer(connection, settings)

    def transactional(
        self, connection: Connection, settings: WriterSettings, *, transactional_id: str
    ) -> PythonTransactionalProducer:
        """A connected producer of transactions under this ID, which takes it over from any other."""
        return PythonTransactionalProducer(connection, settings, transactional_id=transactional_id)

    def consumer(self, connection: Connection, settings: ReaderSettings, *, group: str | None) -> PythonConsumer:
        """A connected consumer; ``group`` is None for one that will ``assign``."""
        return PythonConsumer(connection, settings, group=group)

    def admin(self, connection: Connection) -> PythonAdmin:
        """A connected admin client."""
        return PythonAdmin(connection)


if TYPE_CHECKING:  # the adapters are what the Protocols ask for
    _TRANSPORT: Transport = KafkaPython()
