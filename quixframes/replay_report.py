"""What became of the messages that a replay looked at, as counts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields

from quixframes.replay_plan import ReplayGap

__all__ = ["ReplayReport", "Tally"]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay read, what it skipped, and why.

    Attributes:
        messages: that came from the cluster. All but ``decoded`` were skipped by their headers.
        bytes: of their keys and values.
        decoded: messages whose values were opened.
        decoded_bytes: of the values of these.
        skipped_by_time: messages that lie outside of the range as a whole.
        skipped_by_stream: messages of streams that were not asked for.
        skipped_by_kind: messages that carry something else than what was asked for: events where it was rows.
        left_out: messages that do not keep the topic's contract, and that it sends to a dead-letter topic.
        rows: rows and events that were handed on.
        rows_outside: rows and events of decoded messages that are outside of the range.
        rows_unwanted: rows and events in the range that ``tags`` or ``where`` left out.
        not_fetched: offsets that are retained, and were not even fetched, since Kafka's time index, or offsets that
            were given, put them outside of the range.
        gaps: what was asked for and is no longer retained.
        complete: whether the reading went through to its end.
    """

    messages: int = 0
    bytes: int = 0
    decoded: int = 0
    decoded_bytes: int = 0
    skipped_by_time: int = 0
    skipped_by_stream: int = 0
    skipped_by_kind: int = 0
    left_out: int = 0
    rows: int = 0
    rows_outside: int = 0
    rows_unwanted: int = 0
    not_fetched: int = 0
    gaps: tuple[ReplayGap, ...] = ()
    complete: bool = False

    def __str__(self) -> str:
        skipped = [
            f"{count:,} by {name}"
            for name, count in (
                ("time", self.skipped_by_time),
                ("stream", self.skipped_by_stream),
                ("kind", self.skipped_by_kind),
                ("contract", self.left_out),
            )
            if count
        ]
        text = f"{self.rows:,} rows of {self.decoded:,} messages ({self.decoded_bytes:,} bytes); "
        text += f"{self.messages:,} messages ({self.bytes:,} bytes) were read"
        text += f", skipped {', '.join(skipped)}" if skipped else ""
        text += f"; {self.not_fetched:,} were not fetched" if self.not_fetched else ""
        text += f"; {len(self.gaps)} gaps" if self.gaps else ""
        return text if self.complete else f"{text}; not through yet"


class Tally:
    """A report in the making."""

    __slots__ = tuple(field.name for field in fields(ReplayReport))

    def __init__(self, not_fetched: int = 0, gaps: tuple[ReplayGap, ...] = ()) -> None:
        self.messages = self.bytes = self.decoded = self.decoded_bytes = 0
        self.skipped_by_time = self.skipped_by_stream = self.skipped_by_kind = self.left_out = 0
        self.rows = self.rows_outside = self.rows_unwanted = 0
        self.not_fetched = not_fetched
        self.gaps = gaps
        self.complete = False

    @property
    def report(self) -> ReplayReport:
        """The counts as they are now."""
        return ReplayReport(**{name: getattr(self, name) for name in self.__slots__})
