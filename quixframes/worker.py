"""One instance of a model: a process that ``quixframes run`` starts. Run as a module, never imported.

Arguments: the descriptor to report on, and the instance's number. On standard input come the job as one line, and then
nothing: the kernel closes it however the parent ends, and this process ends after it. Its reports are lines of JSON.
The exit code is 0 at a regular end and after SIGTERM, ``UNABLE`` where starting it again would not help.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import IO, Any

from quixframes.batch import RowBatch
from quixframes.client import StreamingClient
from quixframes.errors import (
    AccessDeniedError,
    AuthenticationError,
    QuixframesError,
    SettingsError,
    TlsError,
    TopicNotFoundError,
)
from quixframes.health import Health, HealthServer
from quixframes.input import InputTopic
from quixframes.instances import UNABLE, total
from quixframes.job import Job
from quixframes.kafka import Partition
from quixframes.metrics_prometheus import text
from quixframes.model_finder import UnableError, find_model
from quixframes.remaining import Remaining
from quixframes.runner import Model, Result, Sinks, Summary, accounted, run
from quixframes.settings import Hooks, seconds
from quixframes.subscription import Subscription

__all__ = ["main"]

log = logging.getLogger(__name__)

_TICK = 0.1  # seconds between two looks at which partitions there are
_WORD = 1.0  # seconds between two words on how far it is
_LOOK_AGAIN = 0.3  # seconds between two looks at whether the other instances are through
_HOPELESS = (TopicNotFoundError, AccessDeniedError, AuthenticationError, TlsError)


# What the parent is told


class Reports:
    """Lines of JSON to the parent. One that is gone hears nothing, which is for the watch to find."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, kind: str, **facts: Any) -> None:
        """Report something."""
        line = json.dumps({"is": kind, **facts}).encode() + b"\n"
        with self._lock, contextlib.suppress(OSError):
            os.write(self._descriptor, line)


class Share:
    """The partitions that the group has given to this instance; None before it has spoken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._partitions: set[Partition] | None = None
        self.hooks = Hooks(assigned=self._come, revoked=self._go, lost=self._go)

    @property
    def partitions(self) -> list[Partition] | None:
        """What is ours now, sorted."""
        with self._lock:
            return None if self._partitions is None else sorted(self._partitions)

    def _come(self, partitions: list[Partition]) -> None:
        with self._lock:
            self._partitions = (self._partitions or set()) | set(partitions)

    def _go(self, partitions: Mapping[Partition, list[str]]) -> None:
        with self._lock:
            self._partitions = (self._partitions or set()) - set(partitions)


class Instance:
    """What this process has, does and did, for reports and for health; looked at by other threads."""

    def __init__(self, job: Job, number: int, reports: Reports) -> None:
        self.job = job
        self.number = number
        self.reports = reports
        self.share = Share()
        self.client: StreamingClient | None = None
        self.source: InputTopic | None = None
        self._begun = time.monotonic()
        self._batches = 0
        self._rows_out = 0
        self._done: list[Summary] = []
        self._model_timeout = None if job.model_timeout is None else seconds(job.model_timeout)

    def on_batch(self, batch: RowBatch, result: Result) -> None:
        """Count a batch that went well."""
        self._batches += 1
        frames = result.values() if isinstance(result, Mapping) else [result]
        self._rows_out += sum(len(frame) for frame in frames if frame is not None)

    def on_end(self, summary: Summary) -> None:
        """Keep what a run did."""
        self._done.append(summary)

    def summary(self) -> Summary:
        """What all runs of this process did."""
        whole = replace(total(self._done), seconds=time.monotonic() - self._begun)
        return replace(whole, lag=self._done[-1].lag, ended=self._done[-1].ended) if self._done else whole

    def so_far(self) -> Summary:
        """The same while a run goes on, from what can be seen of it."""
        if self.source is None:
            return Summary()
        return Summary(
            **accounted(self.source.accounts().sum()),
            rows_out=self._rows_out,
            batches=self._batches,
            commits=self.source.commits,
            lag=self.source.lag,
            seconds=time.monotonic() - self._begun,
            model_seconds=self.source.model_seconds,
        )

    def health(self) -> Health:
        """How it is."""
        source, partitions = self.source, self.share.partitions
        facts: dict[str, Any] = {"instance": self.number, "group": self.job.group}
        if source is None:
            return Health(unready="it connects to the cluster, or has closed its topics", facts=facts)
        facts |= {
            "topics": source.topics,
            "partitions": [str(at) for at in partitions or ()],
            "lag": source.lag,
            "rows": source.rows_read,
            "batches": self._batches,
            "commits": source.commits,
        }
        dead, error, out = None, source._poller.error, source._poller.batch_out_since
        held = time.monotonic() - out if out is not None else 0.0
        if error is not None and not source.closed:
            dead = f"the reading has ended: {error}"
        elif self._model_timeout is not None and held > self._model_timeout:
            dead = f"the model has held a batch for {held:,.0f} s, longer than --model-timeout {self.job.model_timeout}"
        unready = source.trouble
        if partitions is None:
            unready = unready or f"group {self.job.group!r} has not said yet which partitions it reads"
        return Health(dead, unready, facts)

    def metrics(self) -> str:
        """What its client has done and holds, in Prometheus' text format."""
        return "" if self.client is None else text(self.client)

    def tell(self) -> None:
        """Report partitions that have changed and are the same for a moment, and every second how far it is. For ever,
        in a thread of its own."""
        told: object = None
        seen: object = None
        next_word = time.monotonic() + _WORD
        while True:
            time.sleep(_TICK)
            partitions = self.share.partitions
            if partitions is not None and partitions == seen != told:
                self.reports.send("partitions", partitions=[str(at) for at in partitions])
                told = partitions
            seen = partitions
            if self.source is not None and time.monotonic() >= next_word:
                next_word = time.monotonic() + _WORD
                self.reports.send("progress", summary=asdict(self.so_far()))


# The work


def work(instance: Instance) -> None:
    """Open what the job names, and run the model until the end."""
    job = instance.job
    with ExitStack() as stack:
        if job.health_port is not None:
            port = job.health_port + instance.number
            stack.enter_context(HealthServer(job.health_host, port, instance.health, instance.metrics))
        model = find_model(job.model)
        try:
            client = stack.enter_context(
                StreamingClient(job.broker, security=job.security, transport=job.transport)  # type: ignore[arg-type]
            )
            instance.client = client
            sinks = _open_sinks(client, job)
            remaining = None
            if job.until is not None:
                topics = Subscription.of(job.topic).topics(client._get_admin())
                remaining = Remaining(client, topics, job.group)
                stack.callback(remaining.close)
            source = client.open_input_topic(
                job.topic,
                job.group,
                job.commit_settings,
                job.reset,
                exactly_once=job.exactly_once,
                dead_letters=job.dead_letters,
                reader=job.reader(instance.number),
                hooks=instance.share.hooks,
            )
        except _HOPELESS as exc:
            raise UnableError(str(exc)) from exc
        instance.source = source
        threading.Thread(target=instance.tell, name="quixframes-tell", daemon=True).start()
        _run(instance, model, source, sinks, remaining)


def _open_sinks(client: StreamingClient, job: Job) -> Sinks:
    opened = {name: client.open_output_topic(topic) for name, topic in job.sinks}
    return opened[""] if list(opened) == [""] else opened or None


def _run(instance: Instance, model: Model, source: InputTopic, sinks: Sinks, remaining: Remaining | None) -> None:
    job = instance.job
    rows = job.max_rows
    deadline = None if job.duration is None else time.monotonic() + seconds(job.duration)
    while True:
        summary = run(
            model,
            source,
            sinks,
            takes=job.takes,
            buffer=job.buffer,
            until=job.until,
            max_rows=rows,
            idle=job.idle,
            duration=None if deadline is None else max(0.001, deadline - time.monotonic()),
            retry=job.retry,
            on_error=job.on_error,
            on_batch=instance.on_batch,
            on_end=instance.on_end,
        )
        if remaining is None or summary.ended != "end" or not remaining.any():
            return
        if rows is not None:
            rows = max(1, rows - summary.processed)
        # The other instances are not through: stay in the group, for what one of them may leave.
        time.sleep(_LOOK_AGAIN)


def _end_with_parent(words: IO[str], grace: float) -> None:
    """Wait for the parent's end, and end then: as after SIGTERM, and at once where that takes too long."""
    while words.readline():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)


def main(report: int, number: int, words: IO[str]) -> int:
    """Do the job that ``words`` begins with; returns the exit code."""
    reports = Reports(report)
    job = Job.from_json(words.readline())
    grace = seconds(job.stop_timeout)
    threading.Thread(target=_end_with_parent, args=(words, grace), name="quixframes-parent", daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what of it matters, quixframes says
    sys.path.insert(0, os.getcwd())
    instance = Instance(job, number, reports)
    try:
        work(instance)
        return 0
    except (UnableError, SettingsError) as exc:
        reports.send("unable", text=str(exc))
        return UNABLE
    except QuixframesError as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    except (SystemExit, KeyboardInterrupt) as exc:  # as it was asked
        return 0 if isinstance(exc, KeyboardInterrupt) or exc.code in (0, None, 128 + signal.SIGTERM) else 1
    finally:
        reports.send("ended", summary=asdict(instance.summary()))


def _own_input() -> IO[str]:
    """Standard input, which nobody else can read from now on."""
    words = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return words


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), _own_input()))
