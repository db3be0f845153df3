"""Transactions."""

from quixframes.confluent.producer import ConfluentProducer


class ConfluentTransactional(ConfluentProducer):
    """To come."""
