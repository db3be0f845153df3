"""In what a topic's contract, and what is said about it, is not as a spec has it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from quixframes.about import TopicAbout
from quixframes.contracts import Contract
from quixframes.topic_spec import Difference, TopicSpec, contract_text

__all__ = ["Governance", "compare_governance"]


@dataclass(frozen=True, slots=True)
class Governance:
    """What is kept of a topic beside its rows."""

    contract: Contract | None = None
    about: TopicAbout = field(default_factory=TopicAbout)

    def after(self, spec: TopicSpec) -> Governance:
        """The same, with all that a spec says."""
        contract = self.contract if spec.contract is None else spec.contract
        return Governance(contract, replace(self.about, **spec.about))


def compare_governance(spec: TopicSpec, now: Governance) -> tuple[Difference, ...]:
    """What has to be done for a topic to be governed as the spec has it; nothing where it is so, or says nothing."""
    return (*_contract(spec, now.contract), *_about(spec, now.about))


def _contract(spec: TopicSpec, now: Contract | None) -> Iterator[Difference]:
    if spec.contract is None or spec.contract == now:
        return
    if now is None:
        yield Difference(spec.name, "contract", "none", contract_text(spec.contract))
        return
    found = now.differences(spec.contract)
    changes = ", ".join(f"{one.column or 'its'} {one.what}: {one.old or 'none'} → {one.new or 'none'}" for one in found)
    refusals = ", ".join(f"{one.column or 'its'} {one.what}: {one.reason}" for one in found if not one.compatible)
    if refusals:
        refusals = f"it does not go with rows that are there ({refusals}): see topics.set_contract(..., force=True)"
    yield Difference(spec.name, "contract", contract_text(now), changes, refusals or None)


def _about(spec: TopicSpec, now: TopicAbout) -> Iterator[Difference]:
    wanted = replace(now, **spec.about)
    for name in spec.about:
        before, after = getattr(now, name), getattr(wanted, name)
        if before != after:
            yield Difference(spec.name, name, _text(before), _text(after))


def _text(said: str | tuple[str, ...] | None) -> str:
    return (said if isinstance(said, str) else ", ".join(said or ())) or "none"
