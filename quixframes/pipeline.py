"""The topics of a cluster as a pipeline: ``client.pipeline()``. Gathers what the graph is made of, and shows it.

What this module holds to:

- It only looks: no group is joined, nothing is committed, no topic is made.
- What may not be seen is left out, and logged: a topic that may not be described, groups that may not be listed.
- All numbers are of one moment, as near as the cluster can be asked; rates are over one window of broker time.
"""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property

import pandas as pd

from quixframes.bounded import read_range
from quixframes.contract_check import ContractCheck
from quixframes.contracts import Problem
from quixframes.errors import AccessDeniedError, ContractBreachError, OffsetGoneError, TopicNotFoundError, WireError
from quixframes.governance import Graph, TopicFacts
from quixframes.kafka import Admin, Consumer
from quixframes.logs import Place
from quixframes.message_reader import MessageReader
from quixframes.pipeline_picture import to_svg
from quixframes.pipeline_text import to_text
from quixframes.settings import Duration, seconds, whole_number
from quixframes.topics import Topics

__all__ = ["Look", "Pipeline"]

log = logging.getLogger(__name__)


class Pipeline:
    """A cluster's topics, models and groups at one moment. In a notebook it shows itself as a picture; ``print`` draws
    it as text.

    Attributes:
        graph: what is known, as plain objects.
        window: the seconds over which the rates are.
    """

    def __init__(self, graph: Graph, window: float) -> None:
        self.graph = graph
        self.window = window

    @cached_property
    def topics(self) -> pd.DataFrame:
        """The topics, indexed by name: stage, owner, description, made_from, model, messages (by offsets), rate
        (messages/s), contract (whether it has one), looked_at and refused (how many of its newest messages were held
        against the contract, and do not keep it)."""
        rows = [
            {
                "topic": one.name,
                "stage": one.about.stage,
                "owner": one.about.owner,
                "description": one.about.description,
                "made_from": list(one.about.made_from),
                "model": one.about.model,
                "messages": one.messages,
                "rate": one.rate,
                "contract": one.contract,
                "looked_at": one.looked_at,
                "refused": one.refused,
            }
            for one in self.graph.topics.values()
        ]
        columns = ["topic", "stage", "owner", "description", "made_from", "model", "messages", "rate", "contract"]
        frame = pd.DataFrame(rows, columns=[*columns, "looked_at", "refused"]).set_index("topic")
        counts = dict.fromkeys(("messages", "looked_at", "refused"), "int64")
        return frame.astype({**counts, "rate": "float64", "contract": "bool"})

    @cached_property
    def edges(self) -> pd.DataFrame:
        """The arrows: source (a topic), by (a model or group), target (a topic; missing for a group that only reads),
        rate (of the source, messages/s), lag (messages that ``by`` has before it in the source), declared (False: no
        ``made_from`` says it, but the group has committed there)."""
        columns = ["source", "by", "target", "rate", "lag", "declared"]
        rows = [{name: getattr(edge, name) for name in columns} for edge in self.graph.edges]
        return pd.DataFrame(rows, columns=columns).astype({"rate": "float64", "lag": "Int64", "declared": "bool"})

    @cached_property
    def breaches(self) -> pd.DataFrame:
        """What breaks the rules: kind, topic, group (the model or group that has to do with it), detail.

        Kinds: "does not conform" (messages among the newest of a topic do not keep its contract: a row for each group
        or model that reads them); "cycle"; "orphan" (connected to nothing, made from a topic that is not there, or
        clean or results of which nobody said what it is made from); "prototype in production" (a topic with another
        stage is made from a prototype); "undeclared" (a model reads a topic of which its outputs do not say that they
        are made); "name" (against the rule of ``client.topics.set_naming``).
        """
        columns = ["kind", "topic", "group", "detail"]
        rows = [{name: getattr(breach, name) for name in columns} for breach in self.graph.breaches]
        return pd.DataFrame(rows, columns=columns)

    def to_svg(self) -> str:
        """The picture, as the text of an SVG file; "" where there is no topic."""
        return to_svg(self.graph)

    def __repr__(self) -> str:
        count = len(self.graph.topics)
        head = f"<Pipeline of {count} topic{'' if count == 1 else 's'}; messages/s over {self.window:g} s>"
        return "\n".join(filter(None, (head, to_text(self.graph))))

    def _repr_html_(self) -> str:
        if not self.graph.topics:
            return f"<p>{html.escape(repr(self)[1:-1])}: make some with <code>client.topics.create(name)</code></p>"
        shown = self.to_svg()
        if self.graph.breaches:
            shown += self.breaches.to_html(index=False, border=0, na_rep="", escape=True)
        return shown + f"<p><small>messages per second over {self.window:g} s; lag in messages</small></p>"


class Look:
    """Gathers pipelines.

    Args:
        topics: the cluster's, for what is said about them.
        admin: looks at topics, offsets and groups.
        consumer: makes one of no group.
        check: gives a topic's contract, to be applied; None where it has none.
    """

    def __init__(
        self,
        topics: Topics,
        admin: Callable[[], Admin],
        consumer: Callable[[], Consumer],
        check: Callable[[str], ContractCheck | None],
    ) -> None:
        self._topics = topics
        self._admin = admin
        self._consumer = consumer
        self._check = check

    def pipeline(self, names: Collection[str] | None, window: Duration, newest: int) -> Pipeline:
        """How it is now; see ``StreamingClient.pipeline``."""
        length = seconds(window, name="window")
        whole_number(newest, "newest", least=0)
        asked = None if names is None else [names] if isinstance(names, str) else list(dict.fromkeys(names))
        rule = self._topics.naming()
        found = []
        for name in self._topics.list() if asked is None else asked:
            try:
                facts = self._facts(name, length, newest)
            except (AccessDeniedError, TopicNotFoundError) as exc:
                if asked is not None:
                    raise
                place = Place(name)
                log.info("%s: left out of the pipeline: %s", place, exc, extra=place.extra)
                continue
            if rule is not None and not rule.allows(name):
                facts = replace(facts, naming=rule.refusal(name))
            found.append(facts)
        return Pipeline(Graph(found), length)

    def _facts(self, name: str, window: float, newest: int) -> TopicFacts:
        admin = self._admin()
        begin, end = admin.beginnings(name), admin.ends(name)
        since = admin.offsets_at(name, round((time.time() - window) * 1000))
        check = self._check(name)
        tried = refused = 0
        reason = ""
        if check is not None and newest:
            tried, refused, reason = self._try(name, check, begin, end, newest)
        return TopicFacts(
            name,
            self._topics.about(name),
            messages=_sum(begin, end),
            rate=_sum(since, end) / window,
            lags={group: _sum(at, end, begin) for group, at in self._groups(name).items()},
            contract=check is not None,
            looked_at=tried,
            refused=refused,
            reason=reason,
        )

    def _groups(self, name: str) -> Mapping[str, Mapping[int, int]]:
        try:
            return self._admin().groups(name)
        except AccessDeniedError as exc:
            log.info("%s: its groups may not be seen: %s", Place(name), exc, extra=Place(name).extra)
            return {}

    def _try(
        self, name: str, check: ContractCheck, begin: Mapping[int, int], end: Mapping[int, int], newest: int
    ) -> tuple[int, int, str]:
        """How many of the newest messages of each partition could be tried, how many do not keep the contract, and why
        the last of those does not."""
        reader = MessageReader(contracts={name: check})
        tried = refused = 0
        reason = ""
        consumer = self._consumer()
        try:
            first = {number: max(offset, end[number] - newest) for number, offset in begin.items()}
            for step in read_range(consumer, name, first, end):
                for record in step.records:
                    tried += 1
                    try:
                        reader.read(record)
                    except ContractBreachError as exc:
                        refused += 1
                        reason = (
                            f"{record.partition}@{record.offset}: {'; '.join(map(_problem, exc.problems[:2])) or exc}"
                        )
                    except WireError:
                        tried -= 1  # other people's messages are read by a codec, which is not known here
        except (AccessDeniedError, OffsetGoneError) as exc:
            log.info(
                "%s: its messages are not held against its contract: %s", Place(name), exc, extra=Place(name).extra
            )
        finally:
            consumer.close(5.0)
        return tried, refused, reason


def _sum(begin: Mapping[int, int], end: Mapping[int, int], least: Mapping[int, int] | None = None) -> int:
    """The offsets in between. A partition that ``begin`` does not have counts from ``least``."""
    least = least or {}
    return sum(max(0, to - max(begin.get(number, 0), least.get(number, 0))) for number, to in end.items())


def _problem(problem: Problem) -> str:
    return f"{problem.column}: {problem.text}"
