"""What topics are like at the moment, as the cluster and their messages tell: in no group, and changing nothing.

What this module holds to:

- What may not be seen is told as unknown, or left out of what is about several topics, and logged.
- Of a topic that is not read as a whole, the first and last messages of each partition are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from quixframes.errors import AccessDeniedError, OffsetGoneError, TopicNotFoundError
from quixframes.kafka import Admin, Consumer, TopicDetails
from quixframes.logs import Place
from quixframes.topic_report import Balance, TopicReport, balance_of, report_of
from quixframes.topic_survey import Survey, survey

__all__ = ["TopicLooks"]

log = logging.getLogger(__name__)

_EDGE = 2  # messages at either end of a partition; the last offset may be the mark of a transaction's end


class TopicLooks:
    """Looks at topics.

    Args:
        admin: gives the client's own.
        consumer: makes a consumer of no group.
    """

    def __init__(self, admin: Callable[[], Admin], consumer: Callable[[], Consumer]) -> None:
        self._admin = admin
        self._consumer = consumer

    def table(self, names: Iterable[str]) -> pd.DataFrame:
        """A row for each; see ``client.topics.table``."""
        reports = []
        for name in names:
            try:
                details = self._admin().details(name)
                reports.append((details, self._report(details, {}, rows=False)))
            except (TopicNotFoundError, AccessDeniedError) as exc:
                log.info("%s: left out of the table: %s", Place(name), exc, extra=Place(name).extra)
        rows = [
            {
                "topic": one.name,
                "partitions": one.partitions,
                "replication": one.replication,
                "messages": one.messages,
                "bytes": one.bytes,
                "stored": one.stored,
                "retention": _time(found.settings.get("retention.ms")),
                "retention_size": _size(found.settings.get("retention.bytes"), one.partitions),
                "oldest": one.oldest,
                "newest": one.newest,
            }
            for found, one in reports
        ]
        columns = ["topic", "partitions", "replication", "messages", "bytes", "stored", "retention"]
        frame = pd.DataFrame(rows, columns=[*columns, "retention_size", "oldest", "newest"]).set_index("topic")
        sizes = dict.fromkeys(("bytes", "stored", "retention_size"), "Int64")
        moments = dict.fromkeys(("oldest", "newest"), "datetime64[ns, UTC]")
        return frame.astype({**sizes, **moments, "retention": "timedelta64[ms]"})

    def report(self, name: str, *, rows: bool) -> TopicReport:
        """One, in full; see ``client.topics.describe``."""
        details = self._admin().details(name)
        return self._report(details, self._admin().groups(name), rows=rows)

    def balance(self, name: str) -> Balance:
        """How evenly it is spread; see ``client.topics.balance``."""
        begin, end = self._admin().beginnings(name), self._admin().ends(name)
        return balance_of(name, self._survey(name, begin, end))

    def _report(self, details: TopicDetails, groups: Mapping[str, Mapping[int, int]], *, rows: bool) -> TopicReport:
        admin, name = self._admin(), details.name
        begin, end = admin.beginnings(name), admin.ends(name)
        return report_of(
            details,
            message_limit=int(details.settings.get("max.message.bytes", 0)) or admin.describe(name).message_limit,
            begin=begin,
            end=end,
            groups=groups,
            surveys=self._survey(name, begin, end) if rows else self._edges(name, begin, end),
            whole=rows,
        )

    def _survey(self, name: str, begin: Mapping[int, int], end: Mapping[int, int]) -> dict[int, Survey]:
        consumer = self._consumer()
        try:
            return survey(consumer, name, begin, end)
        finally:
            consumer.close(5.0)

    def _edges(self, name: str, begin: Mapping[int, int], end: Mapping[int, int]) -> dict[int, Survey]:
        """The first and the last messages of each partition."""
        found = {number: Survey() for number in end}
        firsts = {number: min(offset + _EDGE, end[number]) for number, offset in begin.items()}
        lasts = {number: max(firsts[number], offset - _EDGE) for number, offset in end.items()}
        for first, last in ((begin, firsts), (lasts, end)):
            if any(first[number] < last[number] for number in last):
                try:
                    for number, read in self._survey(name, first, last).items():
                        found[number].unite(read)
                except (OffsetGoneError, AccessDeniedError) as exc:
                    log.info("%s: its event times are not known: %s", Place(name), exc, extra=Place(name).extra)
        return found


def _time(milliseconds: str | None) -> pd.Timedelta | None:
    return None if milliseconds is None or int(milliseconds) < 0 else pd.Timedelta(int(milliseconds), unit="ms")


def _size(share: str | None, partitions: int) -> int | None:
    return None if share is None or int(share) < 0 else int(share) * partitions
