"""What a consumer tells a transactional producer of itself: by it the cluster refuses the commits of those given up."""

from __future__ import annotations

from typing import NamedTuple

from quixframes.kafka import Partition

__all__ = ["Membership"]


class Membership(NamedTuple):
    """A member of a group at one moment."""

    group: str
    generation: int
    member_id: str
    instance_id: str | None
    owned: frozenset[Partition]  # as far as the caller was told
