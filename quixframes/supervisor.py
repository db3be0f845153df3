"""Starts the instances of a model, starts those again that die, and stops them together.

What this module holds to:

- An instance is a process, which hears of its job on standard input. That stays open as long as this process lives: the
  kernel closes it however this process ends, and the instances end then.
- They are asked to stop once, so that a batch in hand is finished, and killed after the job's ``stop_timeout``.
- Nothing is started any more once a stop was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from quixframes.instances import Backoff, Ending, Verdict, total
from quixframes.job import Job
from quixframes.runner import Summary
from quixframes.settings import seconds

__all__ = ["Event", "Lives", "Outcome", "supervise"]

_LAST_WORDS = 1.0  # seconds for what a dead process has written to arrive
_LINE = 65_536  # bytes after which a line of output is broken


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be told. ``kind`` is "started", "has", "waits", "died", "again", "done", "unable", "stopping",
    "killed" or "output"; ``number`` is the instance's, None for all of them."""

    number: int | None
    kind: str
    text: str


@dataclass(slots=True)
class Lives:
    """What one instance did, in all the processes that it was."""

    number: int
    processes: int = 0
    died: int = 0
    past: list[Summary] = field(default_factory=list)
    word: Summary | None = None
    """The last word of the process that runs."""
    unable: str | None = None
    last_line: str = ""

    def begin(self) -> None:
        """Another process."""
        self.processes += 1
        self.word, self.unable, self.last_line = None, None, ""

    def end(self, killed: bool) -> None:
        """Its process has ended. What one that was killed did is what it said last."""
        if self.word is not None:
            self.past.append(replace(self.word, lag=None, ended="killed") if killed else self.word)
        self.word = None

    @property
    def summary(self) -> Summary:
        """All of it. Why it ended is that of the last process."""
        return replace(total(self.past), ended=self.past[-1].ended) if self.past else Summary(ended="nothing")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: the exit code, what each instance did, and for how many seconds all of it ran."""

    code: int
    lives: list[Lives]
    seconds: float

    @property
    def summary(self) -> Summary:
        """What all instances did together."""
        return replace(total(lives.summary for lives in self.lives), seconds=self.seconds)


def supervise(
    job: Job,
    instances: int,
    tell: Callable[[Event], object],
    *,
    restart: bool = True,
    backoff: Backoff | None = None,
) -> Outcome:
    """Run that many instances of a job until all of them have ended; SIGTERM and SIGINT stop them.

    The outcome's code is 0 where all ended by themselves or when asked to, 1 where one cannot work, was not started
    again, or had to be killed, 130 or 143 after a second signal.
    """
    supervisor = _Supervisor(job, instances, tell, restart, backoff or Backoff())
    return asyncio.run(supervisor.run())


class _Supervisor:
    def __init__(
        self, job: Job, instances: int, tell: Callable[[Event], object], restart: bool, backoff: Backoff
    ) -> None:
        self._job = job
        self._tell = tell
        self._restart = restart
        self._backoff = backoff
        self._lives = [Lives(number) for number in range(instances)]
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._stop = asyncio.Event()
        self._code = 0
        self._forced: int | None = None
        # Its threads wait for processes, one each.
        self._waiters = ThreadPoolExecutor(instances, thread_name_prefix="quixframes-waits")

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        try:
            async with asyncio.TaskGroup() as group:
                for lives in self._lives:
                    group.create_task(self._keep(lives))
        finally:
            self._kill()  # where this ends by an error of its own
            self._waiters.shutdown(wait=False)
        code = self._code if self._forced is None else 128 + self._forced
        return Outcome(code, self._lives, loop.time() - begun)

    # Signals

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            self._forced = number
            self._kill()
            return
        self._stop.set()
        self._tell(Event(None, "stopping", f"stopping, after {number.name} (once more: at once)"))
        for process in self._running.values():
            self._ask(process)
        asyncio.get_running_loop().call_later(seconds(self._job.stop_timeout), self._lose_patience)

    def _ask(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a paused one would never see the request

    def _lose_patience(self) -> None:
        for number in self._running:
            self._tell(Event(number, "killed", f"did not stop within {self._job.stop_timeout}, and is killed"))
            self._code = 1
        self._kill()

    def _kill(self) -> None:
        for process in self._running.values():
            process.kill()

    # One instance

    async def _keep(self, lives: Lives) -> None:
        loop, deaths = asyncio.get_running_loop(), 0
        while not self._stop.is_set():
            begun = loop.time()
            code = await self._live(lives)
            ending = Ending(code, asked=self._stop.is_set())
            lives.end(killed=code < 0)
            verdict = ending.verdict(self._restart)
            if verdict is Verdict.Done:
                word = "stopped" if ending.asked else "ended"
                how = f" ({_how(code)})" if code not in (0, -signal.SIGTERM) else ""
                self._tell(Event(lives.number, "done", f"{word}{how}: {lives.summary}"))
                return
            if lives.unable is not None:
                self._code = 1
                self._tell(Event(lives.number, "unable", f"cannot work: {lives.unable}"))
                return
            lives.died += 1
            why = f": {lives.last_line}" if lives.last_line else ""
            self._tell(Event(lives.number, "died", f"died ({_how(code)}){why}"))
            if verdict is Verdict.GiveUp:
                self._code = 1
                return
            deaths = self._backoff.deaths(deaths, loop.time() - begun)
            pause = self._backoff.pause(deaths)
            self._tell(Event(lives.number, "again", f"starts again in {pause:g} s"))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _live(self, lives: Lives) -> int:
        """One process from its start to its end; returns its exit code."""
        loop = asyncio.get_running_loop()
        reports, reporting = os.pipe()
        output, writing = os.pipe()
        command = [sys.executable, "-m", "quixframes.worker", str(reporting), str(lives.number)]
        try:
            # In a process group of its own: Ctrl-C is for this process, which asks the instances in its own way.
            process = subprocess.Popen(  # nosec B603  # this Python, with the user's own model
                command, stdin=subprocess.PIPE, stderr=writing, pass_fds=[reporting], process_group=0
            )
        finally:
            os.close(reporting)
            os.close(writing)
        assert process.stdin is not None
        lives.begin()
        self._running[lives.number] = process
        self._tell(Event(lives.number, "started", f"started (process {process.pid})"))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(self._job.to_json().encode() + b"\n")
            process.stdin.flush()
        readers = [
            asyncio.create_task(self._reports(lives, reports)),
            asyncio.create_task(self._output(lives, output)),
        ]
        try:
            code = await loop.run_in_executor(self._waiters, process.wait)
            # What the process wrote is there by now; a child of its own may hold the pipes open for longer.
            await asyncio.wait(readers, timeout=_LAST_WORDS)
            return code
        finally:
            del self._running[lives.number]
            for reader in readers:
                reader.cancel()
            with contextlib.suppress(OSError):
                process.stdin.close()

    async def _output(self, lives: Lives, descriptor: int) -> None:
        async for line in _lines(descriptor):
            text = line.decode(errors="replace").rstrip()
            if text:
                lives.last_line = text
            self._tell(Event(lives.number, "output", text))

    async def _reports(self, lives: Lives, descriptor: int) -> None:
        async for line in _lines(descriptor):
            report: dict[str, Any] = json.loads(line)
            match report["is"]:
                case "partitions" if report["partitions"]:
                    self._tell(Event(lives.number, "has", "has " + ", ".join(report["partitions"])))
                case "partitions":
                    self._tell(Event(lives.number, "waits", "has no partition, waits for one"))
                case "progress" | "ended":
                    lives.word = Summary(**report["summary"])
                case "unable":
                    lives.unable = report["text"]


async def _lines(descriptor: int) -> AsyncIterator[bytes]:
    """The lines that come from a pipe, which is closed at its end."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    held = b""
    try:
        while chunk := await reader.read(_LINE):
            *whole, held = (held + chunk).split(b"\n")
            for line in whole:
                yield line
            if len(held) > _LINE:
                yield held
                held = b""
        if held:
            yield held
    finally:
        transport.close()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
