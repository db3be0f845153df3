"""``quixframes run``: its options, the lines that it prints while instances come and go, and the table at its end."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quixframes.job import Job, sinks_of
from quixframes.local import LocalKafka
from quixframes.profiles import environment_profile, named_profile
from quixframes.runner import Summary
from quixframes.supervisor import Event, Outcome, supervise

__all__ = ["run_command"]

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")
_STYLES = {"has": "green", "waits": "yellow", "died": "red", "unable": "bold red", "killed": "red", "output": "dim"}
_COLUMNS = {
    "rows_in": "rows in",
    "processed": "processed",
    "rows_out": "rows out",
    "dead": "dead letters",
    "filtered": "filtered",
    "let_go": "let go",
    "held": "held",
    "batches": "batches",
    "retries": "retries",
    "commits": "commits",
}
_ALWAYS = ("rows_in", "processed", "rows_out", "batches", "commits")
_WHERE, _HOW, _WHEN, _ENDS, _GROUP, _HEALTH = (
    "What it reads and writes",
    "Commits and errors",
    "Batches",
    "When it ends",
    "The group",
    "Health",
)


def _option(text: str, panel: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def run_command(
    model: Annotated[str, typer.Argument(help="module:function, or path/to/file.py:function.", show_default=False)],
    instances: Annotated[int, typer.Option("--instances", "-n", min=1, help="How many processes.")] = 1,
    source: Annotated[
        list[str] | None, _option("A topic to read; may be given again.", _WHERE, metavar="TOPIC")
    ] = None,
    source_pattern: Annotated[
        str | None, _option("Read the topics whose whole name matches this.", _WHERE, metavar="REGEX")
    ] = None,
    sink: Annotated[
        list[str] | None,
        _option("A topic for the results; of several each has a name.", _WHERE, metavar="TOPIC|NAME=TOPIC"),
    ] = None,
    broker: Annotated[
        str | None,
        _option("Default: the profile's; QUIXFRAMES_BROKER; a Kafka on this machine.", _WHERE, metavar="HOST:PORT"),
    ] = None,
    profile: Annotated[
        str | None,
        _option(
            "Connect as this table of the configuration file says. Default: as the environment says.",
            _WHERE,
            metavar="NAME",
            envvar="QUIXFRAMES_PROFILE",
        ),
    ] = None,
    transport: Annotated[
        Literal["kafka-python", "confluent"], _option("The Kafka client underneath.", _WHERE)
    ] = "kafka-python",
    takes: Annotated[Literal["frame", "batch"], _option("What the model is given.", _WHERE)] = "frame",
    group: Annotated[str, _option("Instances of one group share the topics' partitions.", _GROUP)] = "Default",
    reset: Annotated[Literal["earliest", "latest"], _option("Where a new group begins.", _GROUP)] = "earliest",
    instance_id: Annotated[
        str | None,
        _option(
            "Gives process n the static name PREFIX-n: restarted, it has its partitions back.", _GROUP, metavar="PREFIX"
        ),
    ] = None,
    assignment: Annotated[
        Literal["cooperative-sticky", "sticky", "range", "roundrobin"],
        _option("How a group shares its partitions out.", _GROUP),
    ] = "cooperative-sticky",
    session_timeout: Annotated[
        str, _option("An instance that is silent for so long has lost its partitions.", _GROUP)
    ] = "45s",
    commit: Annotated[
        Literal["automatic", "manual"], _option("Now and then, or after each batch.", _HOW)
    ] = "automatic",
    commit_every: Annotated[
        str | None, _option("Longest time between two automatic commits. Default: 5s.", _HOW, show_default=False)
    ] = None,
    exactly_once: Annotated[bool, _option("Commit and results are one transaction.", _HOW, "--exactly-once")] = False,
    dead_letters: Annotated[
        str | None, _option("Where messages go that cannot be read.", _HOW, metavar="TOPIC")
    ] = None,
    on_error: Annotated[
        Literal["raise", "dead-letter"],
        _option("What to do with a batch that the model cannot take.", _HOW),
    ] = "raise",
    attempts: Annotated[int, _option("How often the model is tried with a batch.", _HOW)] = 1,
    backoff: Annotated[str, _option("The wait before the second try; it doubles.", _HOW)] = "1s",
    rows: Annotated[int, _option("Rows of a batch.", _WHEN)] = 10_000,
    time_span: Annotated[str | None, _option("Event time that a batch covers.", _WHEN)] = None,
    timeout: Annotated[str, _option("How long rows wait for more of them.", _WHEN)] = "1s",
    until: Annotated[Literal["now"] | None, _option("End with the last row that is there now.", _ENDS)] = None,
    duration: Annotated[str | None, _option("End after so long.", _ENDS)] = None,
    max_rows: Annotated[int | None, _option("Each process ends after so many rows.", _ENDS)] = None,
    idle: Annotated[str | None, _option("Each process ends once nothing has arrived for so long.", _ENDS)] = None,
    restart: Annotated[
        bool, _option("Whether an instance that died is started again.", _ENDS, "--restart/--no-restart")
    ] = True,
    stop_timeout: Annotated[str, _option("How long instances may take to stop.", _ENDS)] = "30s",
    model_timeout: Annotated[
        str | None, _option("A model that holds a batch for longer loses its partitions.", _HEALTH)
    ] = None,
    health_port: Annotated[
        int | None, _option("Process n answers GET /live and /ready on port P + n.", _HEALTH, metavar="P")
    ] = None,
    health_host: Annotated[str, _option("The address at which it listens.", _HEALTH)] = "127.0.0.1",
) -> None:
    """Run a model as one process or several, which share the source's topics; the same on other machines.

    Instances that die are started again. Ctrl-C and SIGTERM stop all of them, with what is finished committed; a second
    one stops at once. The exit code is 0 where all ended by themselves or when asked to, else 1.
    """
    given = locals()
    names = {field.name for field in fields(Job)} & given.keys() - {"broker", "profile"}
    with ExitStack() as stack:
        if not broker:  # a profile's login is for the profile's broker, whatever the environment says
            broker = (named_profile(profile, os.environ) if profile else environment_profile(os.environ)).broker
        if broker is None:
            kafka = stack.enter_context(LocalKafka())
            broker = kafka.address
            if kafka.secured:  # the processes find its passwords where it keeps them
                os.environ["QUIXFRAMES_CONFIG"], profile = str(kafka.directory / "secure" / "profiles.toml"), "admin"
        job = Job(
            broker=broker,
            profile=profile,
            sources=tuple(source or ()),
            sinks=sinks_of(sink or []),
            **{name: given[name] for name in names},
        )
        outcome = supervise(job, instances, Teller(instances), restart=restart)
    if not all(lives.unable for lives in outcome.lives):
        show(outcome)
    raise typer.Exit(outcome.code)


class Teller:
    """Prints each event as a line of standard error; in colours where that is a terminal."""

    def __init__(self, instances: int) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._width = len(str(instances - 1))
        self._told: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Print it. What is wrong with all instances alike is told once."""
        if event.kind == "unable":
            if event.text in self._told:
                return
            self._told.add(event.text)
        who = " " * self._width if event.number is None else f"{event.number:>{self._width}}"
        colour = "" if event.number is None else _COLOURS[event.number % len(_COLOURS)]
        line = Text.assemble(
            (f"{datetime.now():%H:%M:%S}  ", "dim"),
            (who, f"bold {colour}"),
            " │ " if event.kind == "output" else "  ",
            (event.text, _STYLES.get(event.kind, "")),
        )
        self._console.print(line)


def show(outcome: Outcome) -> None:
    """Print what the instances did, added up."""
    whole = outcome.summary
    shown = {name: title for name, title in _COLUMNS.items() if name in _ALWAYS or getattr(whole, name)}
    several = len(outcome.lives) > 1
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", show_footer=several)
    table.add_column("instance", footer="together")
    for name, title in shown.items():
        table.add_column(title, justify="right", footer=f"{getattr(whole, name):,}")
    table.add_column("rows/s", justify="right", footer=_rate(whole))
    table.add_column("died", justify="right", footer=str(sum(lives.died for lives in outcome.lives)))
    table.add_column("ended by")
    for lives in outcome.lives:
        done = lives.summary
        counts = [f"{getattr(done, name):,}" for name in shown]
        table.add_row(str(lives.number), *counts, _rate(done), str(lives.died), done.ended)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(160, console.width))
    console.print(table)
    if any(summary.ended == "killed" for lives in outcome.lives for summary in lives.past):
        console.print("Of a process that was killed, this counts what it had told up to a second before.", style="dim")


def _rate(summary: Summary) -> str:
    return f"{summary.rate:,.0f}" if summary.seconds else "-"
