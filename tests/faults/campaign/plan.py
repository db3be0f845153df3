"""Which faults a campaign has, and in which order: pure, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

__all__ = ["BROKER_KINDS", "CLIENT_KINDS", "DISK_KINDS", "NETWORK_KINDS", "Fault", "plan"]

# How often each kind comes, in relation to the others.
CLIENT_KINDS = {
    "instance-kill": 16,
    "instance-freeze": 9,
    "instance-leave": 8,
    "instance-join": 8,
    "instance-slow": 7,
    "writer-kill": 12,
    "writer-freeze": 5,
    "network-cut": 9,
    "network-slow": 8,
}
BROKER_KINDS = {
    "leader-kill": 5,
    "coordinator-kill": 4,
    "controller-kill": 4,
    "leader-freeze": 3,
    "coordinator-freeze": 3,
    "controller-freeze": 3,
    "offsets-leader-move": 5,
    "leader-move": 4,
    "disk-full": 2,
}
NETWORK_KINDS = frozenset({"network-cut", "network-slow"})
DISK_KINDS = frozenset({"disk-full"})

# Seconds that each lasts, from and to. A group's session is over after 6 s, a broker's after 2 s.
_LASTS = {
    "instance-kill": (0.0, 4.0),
    "instance-freeze": (7.0, 12.0),
    "instance-slow": (7.0, 12.0),
    "instance-leave": (2.0, 8.0),
    "instance-join": (5.0, 15.0),
    "writer-kill": (0.0, 3.0),
    "writer-freeze": (2.0, 8.0),
    "network-cut": (2.0, 12.0),
    "network-slow": (5.0, 12.0),
    "disk-full": (1.0, 3.0),
}
_BROKER_LASTS = (2.5, 5.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its kind, how long it lasts in seconds, and ``choice``, by which its target is chosen among those
    that are there at that moment (a partition, a process, a link)."""

    kind: str
    lasts: float
    choice: int


def plan(
    seed: int, faults: int, *, without: Collection[str] = (), share_of_brokers: float = 0.25
) -> tuple[list[Fault], list[Fault]]:
    """The faults of clients and those of brokers, each list in its order. Every kind comes once before any comes twice.

    Args:
        seed: what all of it follows from.
        faults: how many.
        without: kinds that cannot be had on this machine.
        share_of_brokers: how many of them are faults of brokers.
    """
    randomness = random.Random(seed)
    of_brokers = round(faults * share_of_brokers)

    def choose(kinds: Mapping[str, int], count: int) -> list[Fault]:
        weights = {kind: weight for kind, weight in kinds.items() if kind not in without}
        first = list(weights)
        randomness.shuffle(first)
        more = randomness.choices(list(weights), list(weights.values()), k=max(0, count - len(first)))
        return [
            Fault(kind, randomness.uniform(*_LASTS.get(kind, _BROKER_LASTS)), randomness.randrange(1 << 16))
            for kind in (first + more)[:count]
        ]

    return choose(CLIENT_KINDS, faults - of_brokers), choose(BROKER_KINDS, of_brokers)
