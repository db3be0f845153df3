"""``quixframes demo``: a year of New York's weather through a real Kafka and two models, and what came of it.

Read it in this order: ``pipeline`` (how rows travel: what quixframes is for), ``airports`` (where they come from, and
what they say of themselves), ``weather`` (the two models), ``show``, ``picture`` and ``page`` (what is seen of it).
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

import quixframes as qf
from quixframes.demo.page import write_page
from quixframes.demo.picture import draw
from quixframes.demo.pipeline import Outcome, run_pipeline
from quixframes.demo.show import Show, scoreboard

__all__ = ["Outcome", "run"]


def run(
    *,
    broker: str | None = None,
    security: qf.Security | None = None,
    keep: bool = False,
    out: str | Path = "demo-output",
    console: Console | None = None,
    day: float = 0.04,
) -> Outcome:
    """Run the demo.

    Args:
        broker: a cluster's address. Default: a Kafka on this machine, for the time of the demo.
        security: how to connect to it.
        keep: leave Kafka running and the topics where they are, to look around in.
        out: the folder that the picture and the page are written to.
        console: where it says what happens. Default: standard output.
        day: seconds that a day of the live part lasts.

    Raises:
        QuixframesError: what went wrong, in one sentence or two.
    """
    show = Show(console or Console())
    kafka = None
    with ExitStack() as opened:
        if broker is None:
            with show.console.status("starting Kafka …") as status:
                # One that is to be kept lives in the shared folder, where `quixframes local stop` finds it.
                kafka = qf.LocalKafka(keep=keep, progress=lambda line: status.update(line))
                broker = opened.enter_context(kafka).address
                security = kafka.security() if kafka.secured else None
            show.did(f"Kafka runs at {broker}")
        outcome = run_pipeline(broker, show, security=security, keep=keep, day=day)
        if keep and kafka is not None and kafka.owned:
            kafka.detach()

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    draw(outcome, folder / "weather.png")
    write_page(outcome, folder / "weather.html")
    show.did(f"drew {folder / 'weather.png'} and {folder / 'weather.html'}")
    show.console.print(scoreboard(outcome))
    if keep:
        show.console.print(_look_around(broker, outcome, secured=security is not None), highlight=False)
        if kafka is not None:
            show.console.print("When you have seen enough:\n\n    quixframes local stop\n", highlight=False)
    return outcome


def _look_around(broker: str, outcome: Outcome, *, secured: bool) -> str:
    login = ", security=..." if secured else ""
    return f"""
The topics are still there, at [bold]{broker}[/]. To look around in them:

    import quixframes as qf

    client = qf.StreamingClient("{broker}"{login})
    client.topics.contract("{outcome.names.clean}")
    client.replay("{outcome.names.clean}").events()
    client.replay("{outcome.names.forecast}", streams=["JFK"]).to_frame()
"""
