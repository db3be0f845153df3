"""Making topics and changing them, so that they are as somebody has written down.

What this module holds to:

- Each topic is done by itself, and each difference has its outcome: what is refused or fails stops nothing else.
- Nothing is ever removed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from quixframes.contract_store import ContractStore
from quixframes.errors import BrokerError, SettingsError, TopicNotFoundError
from quixframes.growth import Growth
from quixframes.kafka import Admin, TopicDescription, TopicDetails
from quixframes.logs import Place
from quixframes.settings import Duration, seconds
from quixframes.topic_plan import Applied, Outcome
from quixframes.topic_spec import Difference, TopicSpec, compare

__all__ = ["TopicChanges"]

log = logging.getLogger(__name__)


class TopicChanges:
    """Makes and changes topics.

    Args:
        admin: gives the client's own.
        contracts: where contracts and the rule for names are kept.
        grow: gives a topic more partitions.
    """

    def __init__(self, admin: Callable[[], Admin], contracts: ContractStore, grow: Callable[..., Growth]) -> None:
        self._admin = admin
        self._contracts = contracts
        self._grow = grow

    def grow(self, name: str, to: int, *, settle: Duration | None, progress: bool) -> Growth:
        """Give a topic so many partitions; see ``client.topics.add_partitions``."""
        given = None if settle is None else seconds(settle, name="settle")
        return self._grow(name, to, settle=given, progress=progress)

    def apply(self, specs: Sequence[TopicSpec], *, dry_run: bool, settle: Duration | None) -> Applied:
        """Make topics what they are to be; see ``client.topics.apply``."""
        names = [spec.name for spec in specs]
        if twice := {name for name in names if names.count(name) > 1}:
            raise SettingsError(f"there are several specs of topic {', '.join(sorted(twice))}: give one")
        brokers = len(self._admin().brokers())
        return Applied(tuple(outcome for spec in specs for outcome in self._apply(spec, brokers, dry_run, settle)))

    def exists(self, name: str) -> bool:
        """Whether there is a topic of that name."""
        try:
            self._admin().describe(name)
        except TopicNotFoundError:
            return False
        return True

    def ensure(self, names: Collection[str], create: bool | TopicSpec) -> None:
        """Make those topics that are not there, where the user allows it, when they are about to be opened."""
        if not create:
            return
        if isinstance(create, TopicSpec) and set(names) != {create.name}:
            raise SettingsError(
                f"create={create!r} is of another topic than the one that is opened: {', '.join(names)}"
            )
        for name in names:
            if not self.exists(name):
                try:
                    made = self.create(create if isinstance(create, TopicSpec) else TopicSpec(name))
                except BrokerError:
                    if not self.exists(name):  # else another instance was quicker
                        raise
                    continue
                log.info(
                    "%s: was made, with %d partitions and a replication of %d",
                    Place(name), made.partitions, made.replication, extra=Place(name).extra,
                )  # fmt: skip

    def create(self, spec: TopicSpec) -> TopicDescription:
        """Make a topic; see ``client.topics.create``."""
        if spec.replication is not None or spec.min_in_sync is not None:
            spec.check(len(self._admin().brokers()))
        self._make(spec)
        return self._admin().describe(spec.name)

    def _make(self, spec: TopicSpec) -> None:
        rule = self._contracts.naming()
        if rule is not None:
            rule.check(spec.name)
        partitions = 1 if spec.partitions is None else spec.partitions
        settings = spec.settings(partitions)
        self._admin().create(spec.name, partitions=partitions, replication=spec.replication, settings=settings)

    def _apply(self, spec: TopicSpec, brokers: int, dry_run: bool, settle: Duration | None) -> list[Outcome]:
        try:
            details: TopicDetails | None = self._admin().details(spec.name)
        except TopicNotFoundError:
            details = None
        except BrokerError as exc:
            return [Outcome(Difference(spec.name, "", "unknown", str(spec)), "failed", str(exc), exc)]
        differences = compare(spec, details, brokers)
        if not differences:
            return [Outcome(Difference(spec.name, "", "", ""), "as it is to be")]
        refused = [Outcome(one, "refused", one.refusal) for one in differences if one.refusal is not None]
        allowed = [one for one in differences if one.refusal is None]
        if dry_run:
            return [*(Outcome(one, "to do") for one in allowed), *refused]
        done: list[Outcome] = []
        changes = [one for one in allowed if one.item not in ("topic", "partitions")]
        settings: Mapping[str, str | None] = {k: v for one in changes for k, v in (one.settings or {}).items()}
        for one in allowed:
            if one.item == "topic":
                done += _tried([one], lambda: self._make(spec))
            elif one.item == "partitions":
                grow = partial(self.grow, spec.name, settle=settle, progress=False)
                done += _tried([one], partial(grow, spec.partitions or 1))
        if changes:
            done += _tried(changes, lambda: self._admin().alter(spec.name, settings))
        return [*done, *refused]


def _tried(differences: Sequence[Difference], call: Callable[[], object]) -> list[Outcome]:
    try:
        call()
    except (BrokerError, SettingsError) as exc:
        return [Outcome(one, "failed", str(exc), exc) for one in differences]
    return [Outcome(one, "done") for one in differences]
