"""The properties of the brokers of a local Kafka: all that a broker's file says is made here, and nowhere else.

Pure. One broker and a cluster differ in how soon a silent broker counts as dead, and in replication.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quixframes.errors import SettingsError

__all__ = ["NODE_USER", "TOKEN_AUDIENCE", "TOKEN_ISSUER", "Node", "checked", "properties", "secured"]

NODE_USER = "kafka-node"
"""Who the brokers of a secured cluster are to each other."""
TOKEN_AUDIENCE = "quixframes-local-kafka"  # nosec B105  # a name, and no secret
TOKEN_ISSUER = "quixframes"  # nosec B105  # a name, and no secret


@dataclass(frozen=True, slots=True)
class Node:
    """One broker of a cluster, which is one of its controllers as well: its number (from 1) and where it listens.

    ``mtls_port`` is for those who log in by a certificate, other brokers among them; only secured ones have it.
    """

    number: int
    host: str
    port: int
    controller_port: int
    mtls_port: int | None = None


# What only we may set: finding and stopping the broker relies on it.
_OURS = frozenset(
    {"process.roles", "node.id", "listeners", "advertised.listeners", "listener.security.protocol.map", "log.dirs"}
    | {"controller.listener.names", "controller.quorum.voters", "inter.broker.listener.name"}
)

# For one user: a group joins at once, internal topics are few and small, and memory stays modest (the log cleaner alone
# would take 128 MB of the heap). A topic that is not there is an error here as it is on a real cluster.
_DEFAULTS = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "num.network.threads": "2",
    "num.io.threads": "4",
}

# A broker that was killed may only come back once its last session is over, which would take 9 s.
_LONE = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}

# Quick failover: whom the others do not hear for 2 s is dead, and a new controller is found within a second.
_QUICK = {
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "400",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
    "controller.quorum.election.backoff.max.ms": "500",
}


def properties(node: Node, nodes: Sequence[Node], settings: Mapping[str, str]) -> dict[str, str]:
    """What the file of this one of the cluster's ``nodes`` says; ``settings`` are the user's, and come first.

    Paths are relative to the broker's folder, so that its name needs no escapes.
    """
    ours = {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "listeners": f"PLAINTEXT://{node.host}:{node.port},CONTROLLER://{node.host}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{node.host}:{node.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": ",".join(f"{n.number}@{n.host}:{n.controller_port}" for n in nodes),
        "log.dirs": "data",
    }
    return ours | _DEFAULTS | (_LONE if len(nodes) == 1 else _QUICK) | _replication(len(nodes)) | dict(settings)


def secured(node: Node, passwords: Mapping[str, str], folder: str, jwks: str) -> dict[str, str]:
    """What replaces lines of :func:`properties` so that nothing is reached without TLS and a login.

    Args:
        passwords: of the users who log in by PLAIN; those of SCRAM are in the cluster's own storage.
        folder: where the certificates are, as seen from the broker's folder.
        jwks: the address of the file with the keys that check tokens.
    """
    port, mtls, controller = (f"{node.host}:{p}" for p in (node.port, node.mtls_port, node.controller_port))
    plain = "".join(f' user_{user}="{password}"' for user, password in passwords.items())
    module = "org.apache.kafka.common.security"
    login = "listener.name.sasl"
    return {
        "listeners": f"SASL://{port},CONTROLLER://{controller},MTLS://{mtls}",
        "advertised.listeners": f"SASL://{port},MTLS://{mtls}",
        "listener.security.protocol.map": "SASL:SASL_SSL,MTLS:SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "MTLS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": f"{folder}/broker.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": f"{folder}/ca.pem",
        "ssl.enabled.protocols": "TLSv1.3,TLSv1.2",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/L,DEFAULT",
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.controller.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        f"{login}.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required{plain};",
        f"{login}.scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        f"{login}.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        f"{login}.oauthbearer.sasl.jaas.config": f"{module}.oauthbearer.OAuthBearerLoginModule required;",
        f"{login}.oauthbearer.sasl.server.callback.handler.class": (
            f"{module}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        ),
        f"{login}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": jwks,
        f"{login}.oauthbearer.sasl.oauthbearer.expected.audience": TOKEN_AUDIENCE,
        f"{login}.oauthbearer.sasl.oauthbearer.expected.issuer": TOKEN_ISSUER,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:admin;User:{NODE_USER}",
    }


def _replication(brokers: int) -> dict[str, str]:
    """Each row on three brokers, of which one may be away; on the lone broker once."""
    copies = min(brokers, 3)
    least = max(copies - 1, 1)
    internal = {
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": least,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": least,
    }
    of_users = {} if brokers == 1 else {"default.replication.factor": copies, "min.insync.replicas": least}
    return {name: str(value) for name, value in (internal | of_users).items()}


def checked(settings: Mapping[str, object]) -> dict[str, str]:
    """Broker properties as the file has them, which is Latin-1 with escapes. SettingsError: one that cannot be."""
    texts = {}
    for name, value in settings.items():
        if name in _OURS or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise SettingsError(f"settings: {name!r} cannot be set for a local broker")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        units = memoryview(text.encode("utf-16")).cast("H")[1:]  # after the byte order mark: as this machine counts
        texts[name] = "".join(chr(u) if 32 <= u < 127 and u != ord("\\") else f"\\u{u:04x}" for u in units)
    return texts
