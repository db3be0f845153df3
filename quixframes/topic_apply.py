"""Making topics what their specs say: what parts them from it is worked out, then done, each topic by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from quixframes.about import TopicAbout
from quixframes.contract_store import ContractStore
from quixframes.errors import BrokerError, QuixframesError, TopicNotFoundError
from quixframes.kafka import Admin, TopicDetails
from quixframes.topic_plan import Applied, Outcome
from quixframes.topic_spec import Difference, TopicSpec, compare, compare_governance

__all__ = ["apply", "make"]


def make(spec: TopicSpec, admin: Admin, contracts: ContractStore) -> None:
    """Make a topic, without what is kept beside it.

    Raises:
        SettingsError: its name is not as the cluster's rule has it.
        BrokerError: there is one of that name, or the cluster cannot make it so.
    """
    if rule := contracts.naming():
        rule.check(spec.name)
    partitions = spec.partitions or 1
    admin.create(spec.name, partitions=partitions, replication=spec.replication, settings=spec.settings(partitions))


def apply(
    specs: Sequence[TopicSpec],
    admin: Admin,
    contracts: ContractStore,
    grow: Callable[[str, int], object],
    *,
    dry_run: bool,
) -> Applied:
    """See ``client.topics.apply``. ``grow`` gives a topic so many partitions."""
    brokers = len(admin.brokers())
    outcomes: list[Outcome] = []
    for spec in specs:
        try:
            differences = [*_differences(spec, admin, contracts, brokers)]
        except BrokerError as exc:
            outcomes.append(Outcome(Difference(spec.name, "", "unknown", str(spec)), "failed", str(exc), exc))
            continue
        if not differences:
            outcomes.append(Outcome(Difference(spec.name, "", "", ""), "as it is to be"))
        allowed = [one for one in differences if one.refusal is None]
        if dry_run:
            outcomes += [Outcome(one, "to do") for one in allowed]
        else:
            outcomes += _do(spec, allowed, admin, contracts, grow)
        outcomes += [Outcome(one, "refused", one.refusal) for one in differences if one.refusal is not None]
    return Applied(tuple(outcomes))


def _differences(spec: TopicSpec, admin: Admin, contracts: ContractStore, brokers: int) -> Iterator[Difference]:
    details: TopicDetails | None = None
    with contextlib.suppress(TopicNotFoundError):
        details = admin.details(spec.name)
    found = compare(spec, details, brokers)
    yield from found
    if details is None and found[0].refusal is not None:
        return  # there will be no topic
    contract = contracts.get(spec.name) if spec.contract is not None else None
    about = contracts.about(spec.name) if spec.about is not None else None
    yield from compare_governance(spec, contract, about or TopicAbout())


def _do(
    spec: TopicSpec,
    differences: Sequence[Difference],
    admin: Admin,
    contracts: ContractStore,
    grow: Callable[[str, int], object],
) -> list[Outcome]:
    items = {one.item: one for one in differences}
    done: list[Outcome] = []
    if made := items.pop("topic", None):
        done += _tried([made], lambda: make(spec, admin, contracts))
        if done[0].error is not None:
            return [*done, *(Outcome(one, "failed", "there is no topic") for one in items.values())]
    if grown := items.pop("partitions", None):
        done += _tried([grown], lambda: grow(spec.name, spec.partitions or 1))
    told, said = items.pop("contract", None), items.pop("about", None)
    if changes := [*items.values()]:
        settings = {name: value for one in changes for name, value in (one.settings or {}).items()}
        done += _tried(changes, lambda: admin.alter(spec.name, settings))
    if told is not None:
        done += _tried([told], lambda: contracts.set(spec.name, spec.contract, evolve=True))
    if said is not None and spec.about is not None:
        about = (contracts.about(spec.name) or TopicAbout()).with_said(spec.about)
        done += _tried([said], lambda: contracts.set_about(spec.name, about))
    return done


def _tried(differences: Sequence[Difference], call: Callable[[], object]) -> list[Outcome]:
    try:
        call()
    except QuixframesError as exc:
        return [Outcome(one, "failed", str(exc), exc) for one in differences]
    return [Outcome(one, "done") for one in differences]
