"""The ``quixframes`` command: words for a terminal around what the library does. It has no logic of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

try:
    import typer
    from rich.console import Console
except ModuleNotFoundError as exc:
    sys.exit(f'The command quixframes needs the package {exc.name!r}: pip install "quixframes[cli]"')

import quixframes as qf
from quixframes import cli_run, local
from quixframes.local_secure import USERS
from quixframes.profiles import environment_profile, named_profile

__all__ = ["app", "main"]

app = typer.Typer(
    help="pandas DataFrames on Kafka.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, which may be secrets
)
local_app = typer.Typer(help="A real Kafka on this machine, from packages: no Docker.", no_args_is_help=True)
app.add_typer(local_app, name="local")
app.command(name="run")(cli_run.run_command)

Directory = Annotated[
    Path | None,
    typer.Option(
        help="Folder of its data and log. Default: this user's shared one.", file_okay=False, show_default=False
    ),
]


def main() -> None:
    """Run the command that the arguments name; exit with 0, 1 (an error, in a sentence), 2 (usage) or 130 (Ctrl-C)."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except qf.QuixframesError as exc:
        Console(stderr=True, soft_wrap=True).print(f"Error: {exc}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _terminate(number: int, frame: object) -> None:
    sys.exit(128 + number)  # by way of every `with` block


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"quixframes {qf.__version__}")
        raise typer.Exit


@app.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave Kafka running, with the topics to look around in.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the picture and the page.")] = Path("demo-output"),
    broker: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Use this Kafka, or QUIXFRAMES_BROKER, instead of one started for the demo."
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Connect as this table of the configuration file says."),
    ] = None,
) -> None:
    """A year of New York's weather through a real Kafka and two models, ending in a table and a picture."""
    with _extra("demo"):
        from quixframes.demo import run
    found = named_profile(profile, os.environ) if profile else environment_profile(os.environ)
    run(broker=broker or found.broker, security=found.security, keep=keep, out=out)


@local_app.command()
def start(
    port: Annotated[
        int | None,
        typer.Option(help="Where it listens. Default: as the last time, or any free port.", show_default=False),
    ] = None,
    directory: Directory = None,
    heap: Annotated[
        str | None,
        typer.Option(
            help="A broker's memory, as Java writes sizes. Default: 512m, of a cluster 384m.", show_default=False
        ),
    ] = None,
    brokers: Annotated[
        int | None,
        typer.Option(help="How many: 1, or 3 to 7. Default: as the folder has, or 1.", show_default=False),
    ] = None,
    secure: Annotated[
        bool | None,
        typer.Option(
            "--secure/--no-secure",
            help="With TLS, users and permissions. Default: as the folder has, or without.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start a Kafka that runs until it is stopped, or find the one that runs already."""
    with Console(stderr=True).status("starting Kafka …") as status:
        started = local.start(
            directory, brokers=brokers, secure=secure, port=port, heap=heap, progress=lambda line: status.update(line)
        )
    _print(started)


@local_app.command()
def stop(
    directory: Directory = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also one that another process started and still uses.")
    ] = False,
    remove_data: Annotated[bool, typer.Option("--remove-data", help="Remove its topics as well.")] = False,
) -> None:
    """Stop the Kafka that was started before. Its data stay, unless --remove-data says otherwise."""
    _print(local.stop(directory, force=force, remove_data=remove_data))


@local_app.command()
def status(directory: Directory = None) -> None:
    """Show whether a Kafka runs, and where."""
    _print(local.status(directory))


def _print(status: local.LocalStatus) -> None:
    console = Console(soft_wrap=True)
    rows: list[tuple[str, str]] = []
    if status.running:
        console.print(f"[green]●[/] Kafka {status.version} runs at [bold]{status.address}[/]", highlight=False)
        processes = ", ".join(map(str, status.pids))
        if status.brokers > 1:
            rows.append(("brokers", f"{len(status.pids)} of {status.brokers} run"))
        rows.append(("process", f"{processes}, for {_duration(status.uptime or 0)}"))
        if status.secure is not None:
            rows.append(("security", "TLS; PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"))
            rows.append(("by certificate", str(status.mtls_address)))
            rows.append(("CA", str(status.secure / "ca.pem")))
            rows.append(("users", f"{', '.join(USERS)}: profiles in {status.secure / 'profiles.toml'}"))
            rows.append(("for example", f"QUIXFRAMES_CONFIG={status.secure / 'profiles.toml'} and --profile admin"))
        ends = "when `quixframes local stop` stops it" if status.detached else f"with process {status.owner}"
        rows.append(("ends", ends))
    else:
        console.print("[dim]○[/] no Kafka runs here", highlight=False)
    rows.append(("folder", str(status.directory)))
    rows.append(("data", f"{status.data_bytes / 1e6:,.1f} MB"))
    for name, value in rows:  # not a table, which would cut paths off
        console.print(f"  {name:<14}  {value}", highlight=False, markup=False)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Imports of an extra's packages: one that is missing is told as what to install."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == "quixframes":
            raise
        raise qf.QuixframesError(f'this needs the package {exc.name!r}: pip install "quixframes[{name}]"') from exc


if __name__ == "__main__":
    main()
