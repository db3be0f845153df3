"""What Kafka's own tools see of the cluster."""

from __future__ import annotations

from kafka import KafkaAdminClient


def committed(broker_address: str, group: str, topic: str) -> dict[int, int]:
    """What a group has committed, by partition."""
    admin = KafkaAdminClient(bootstrap_servers=broker_address)
    try:
        found = admin.list_group_offsets({group: None})[group]
        return {at.partition: offset.offset for at, offset in found.items() if at.topic == topic}
    finally:
        admin.close()
