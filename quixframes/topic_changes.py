"""Making topics and changing them, so that they are as somebody has written down.

What this module holds to:

- Each topic is done by itself, and each difference has its outcome: what is refused or fails stops nothing else.
- Nothing is ever removed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from quixframes.about import TopicAbout
from quixframes.contract_store import ContractStore
from quixframes.errors import AccessDeniedError, BrokerError, QuixframesError, SettingsError, TopicNotFoundError
from quixframes.growth import Growth
from quixframes.kafka import Admin, TopicDescription
from quixframes.logs import Place
from quixframes.settings import Duration, seconds
from quixframes.topic_governance import Governance, compare_governance
from quixframes.topic_plan import Applied, Outcome
from quixframes.topic_spec import Difference, TopicSpec, compare

__all__ = ["TopicChanges"]

log = logging.getLogger(__name__)


class TopicChanges:
    """Makes and changes topics.

    Args:
        admin: gives the client's own.
        contracts: where contracts, what is said about topics, and the rule for names are kept.
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

    def set_about(self, name: str, said: Mapping[str, Any]) -> TopicAbout:
        """Say so much more about a topic, and keep it; returns all that is said now."""
        about = replace(self._contracts.about(name) or TopicAbout(), **said)
        self._contracts.set_about(name, about)
        return about

    def _make(self, spec: TopicSpec) -> None:
        """What is kept beside the topic comes first: whoever finds the topic there, finds it governed."""
        if (refusal := self._name_refusal(spec.name)) is not None:
            raise SettingsError(refusal)
        partitions = 1 if spec.partitions is None else spec.partitions
        try:
            is_new = not self.exists(spec.name)
        except AccessDeniedError:
            is_new = False  # whether it may be made is what matters: what follows tells
        if is_new:
            self._govern(spec.name, Governance().after(spec))
        try:
            self._admin().create(
                spec.name, partitions=partitions, replication=spec.replication, settings=spec.settings(partitions)
            )
        except QuixframesError:
            if is_new and not self.exists(spec.name):
                self._govern(spec.name, Governance())
            raise

    def _govern(self, name: str, wanted: Governance) -> None:
        """Keep this of a topic that is new, and nothing of one that had the name before."""
        if wanted.contract is None:
            self._contracts.remove(name)
        else:
            self._contracts.set(name, wanted.contract, evolve=False)
        self._contracts.set_about(name, None if wanted.about == TopicAbout() else wanted.about)

    def _name_refusal(self, name: str) -> str | None:
        rule = self._contracts.naming()
        return None if rule is None or rule.allows(name) else rule.refusal(name)

    def _apply(self, spec: TopicSpec, brokers: int, dry_run: bool, settle: Duration | None) -> list[Outcome]:
        try:
            differences = self._compare(spec, brokers)
        except QuixframesError as exc:
            return [Outcome(Difference(spec.name, "", "unknown", str(spec)), "failed", str(exc), exc)]
        if not differences:
            return [Outcome(Difference(spec.name, "", "", ""), "as it is to be")]
        refused = [Outcome(one, "refused", one.refusal) for one in differences if one.refusal is not None]
        allowed = [one for one in differences if one.refusal is None]
        if dry_run:
            return [*(Outcome(one, "to do") for one in allowed), *refused]
        return [*self._do(spec, allowed, settle), *refused]

    def _compare(self, spec: TopicSpec, brokers: int) -> list[Difference]:
        try:
            details = self._admin().details(spec.name)
        except TopicNotFoundError:
            found = [*compare(spec, None, brokers), *compare_governance(spec, Governance())]
            refusal = next((one.refusal for one in found if one.refusal), None) or self._name_refusal(spec.name)
            return [replace(one, refusal=refusal) for one in found]  # all of it is made, or nothing
        found = [*compare(spec, details, brokers)]
        if spec.contract is not None or spec.about:
            now = Governance(self._contracts.get(spec.name), self._contracts.about(spec.name) or TopicAbout())
            found += compare_governance(spec, now)
        return found

    def _do(self, spec: TopicSpec, differences: Sequence[Difference], settle: Duration | None) -> list[Outcome]:
        by_item = {one.item: one for one in differences}
        if "topic" in by_item:
            return _tried(differences, lambda: self._make(spec))
        done: list[Outcome] = []
        if (partitions := by_item.pop("partitions", None)) is not None:
            count = spec.partitions or 1
            done += _tried([partitions], lambda: self.grow(spec.name, count, settle=settle, progress=False))
            if done[0].state == "failed" and (size := by_item.pop("retention_size", None)) is not None:
                # It is divided by as many partitions as there were to be, and would take away rows.
                done.append(
                    Outcome(size, "failed", "the partitions by which it is divided were not added", done[0].error)
                )
        if (contract := by_item.pop("contract", None)) is not None:
            done += _tried([contract], lambda: self._contracts.set(spec.name, spec.contract, evolve=True))
        about = [by_item.pop(name) for name in spec.about if name in by_item]
        if about:
            done += _tried(about, lambda: self.set_about(spec.name, spec.about))
        settings: dict[str, str | None] = {k: v for one in by_item.values() for k, v in (one.settings or {}).items()}
        if by_item:
            done += _tried(list(by_item.values()), lambda: self._admin().alter(spec.name, settings))
        return done


def _tried(differences: Sequence[Difference], call: Callable[[], object]) -> list[Outcome]:
    try:
        call()
    except QuixframesError as exc:
        return [Outcome(one, "failed", str(exc), exc) for one in differences]
    return [Outcome(one, "done") for one in differences]
