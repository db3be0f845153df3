"""One campaign from its seed to its report: the cluster, the writers, the instances, the faults, and the checks."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import quixframes as qf

from .checker import check_processed, check_written
from .cluster import OFFSETS, Eyes, wait_for
from .journal import acknowledgements, entries, written
from .options import Loop, Mode, Options
from .places import SmallDisk, Wire
from .plan import DISK_KINDS, NETWORK_KINDS, Fault, plan
from .processes import Member, Members
from .readback import read_topic
from .report import Look, Record, Report, longest_gap, processed_again, written_again

__all__ = ["Course", "run_campaign"]

PARTITIONS = 6
WRITERS = 2
INSTANCES = 3
GUESTS = 3  # places for instances that join for a while
SMALL_DISK_OF = 3  # the broker
IN_SYNC_AGAIN = 90.0  # seconds within which a cluster has to be whole again
ALL_PROCESSED = 180.0  # seconds within which the group has to be through at the end


@dataclass(frozen=True, slots=True)
class Course:
    """What a campaign is: everything but where it lies. ``every`` is the seconds between two faults of clients."""

    seed: int
    faults: int = 110
    mode: Mode = "at-least-once"
    transport: str = "kafka-python"
    loop: Loop = "batches"
    every: float = 7.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a campaign plays: all that can be harmed."""

    folder: Path
    kafka: qf.LocalKafka
    options: Options
    members: Members
    wire: Wire
    disk: SmallDisk

    @property
    def left_out(self) -> dict[str, str]:
        """The kinds of fault that this machine does not permit, and why."""
        lines = {kind: self.wire.why_not for kind in sorted(NETWORK_KINDS) if self.wire.why_not}
        return lines | {kind: self.disk.why_not for kind in sorted(DISK_KINDS) if self.disk.why_not}


def run_campaign(course: Course, folder: Path, tell: Callable[[str], None] = print) -> Report:
    """Run it in that folder, which keeps logs and journals. What must not be stands in the report's ``problems``."""
    kafka_folder, told = folder / "kafka", folder / "options.json"
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(Wire(3, course.seed, folder / "wire.log"))
        disk = stack.enter_context(SmallDisk(kafka_folder / f"broker-{SMALL_DISK_OF}"))
        kafka = stack.enter_context(qf.LocalKafka(kafka_folder, brokers=3, keep=False))
        options = Options(kafka.address, str(folder), course.seed, course.mode, course.transport, course.loop)
        options.write(told)
        with qf.StreamingClient(kafka.address) as client:
            client.topics.create(options.source, partitions=PARTITIONS)
            client.topics.create(options.sink, partitions=PARTITIONS)
        # The first writer and the first two instances live behind lines that can be cut.
        lines = [*wire.namespaces, None, None, None]
        writers = [Member("writer", n, told, lines[0] if n == 1 else None) for n in range(1, WRITERS + 1)]
        instances = [
            Member("instance", n, told, lines[n] if n <= 2 else None) for n in range(1, INSTANCES + GUESTS + 1)
        ]
        members = stack.enter_context(Members(writers, instances))
        stage = Stage(folder, kafka, options, members, wire, disk)
        run = Run(course, stage, tell)
        run.all()
    return run.report


class Run:
    """A campaign that is under way."""

    def __init__(self, course: Course, stage: Stage, tell: Callable[[str], None]) -> None:
        self.course = course
        self.folder = stage.folder
        self.kafka = stage.kafka
        self.options = stage.options
        self.members = stage.members
        self.wire = stage.wire
        self.disk = stage.disk
        self.tell = tell
        self.report = Report(course.seed, course.mode, course.transport, course.loop, stage.left_out)
        self.begun = time.monotonic()
        self.looks: list[Look] = []
        self._lock = threading.Lock()
        self._lines = [threading.Lock() for _ in stage.wire.namespaces]
        self._over = threading.Event()
        self._journals = [stage.folder / f"{writer.name}.journal" for writer in stage.members.writers]

    def all(self) -> None:
        """Start, harm, let recover, stop, check."""
        watch = threading.Thread(target=self._guarded, args=("the watch", self._watch), daemon=True)
        watch.start()
        try:
            for member in [*self.members.writers, *self.members.instances[:INSTANCES]]:
                member.start()
            wait_for(lambda: bool(self.looks and sum(self.looks[-1].committed.values())), 60, "the model has begun")
            self._harm()
            time.sleep(5)  # of quiet, so that what is left to do is the last faults' doing
            self._stop_writers()
            self._drain()
        finally:
            self._over.set()
            watch.join()
        for member in self.members.instances:
            if member.running:
                member.leave()
        self.report.seconds = time.monotonic() - self.begun
        self._check()

    def _harm(self) -> None:
        of_clients, of_brokers = plan(self.course.seed, self.course.faults, without=self.report.left_out)
        brokers = threading.Thread(target=self._harm_brokers, args=(of_brokers,), daemon=True)
        brokers.start()
        threads = []
        for fault in of_clients:
            thread = threading.Thread(target=self._guarded, args=(fault.kind, self._harm_client, fault), daemon=True)
            thread.start()
            threads.append(thread)
            time.sleep(self.course.every)
        for thread in [*threads, brokers]:
            thread.join()

    def _guarded(self, what: str, task: Callable[..., None], *arguments: object) -> None:
        try:
            task(*arguments)
        except Exception:
            self._problem(f"{what}: {traceback.format_exc()}")

    def _problem(self, text: str) -> None:
        with self._lock:
            self.report.problems.append(text)
        self.tell(f"PROBLEM: {text}")

    def _record(self, fault: Fault, target: str) -> Record:
        record = Record(fault.kind, target, time.monotonic() - self.begun)
        with self._lock:
            self.report.faults.append(record)
            number = len(self.report.faults)
        self.tell(f"{record.at:6.1f} s  fault {number}: {fault.kind} of {target}, {fault.lasts:.1f} s")
        return record

    # Clients

    def _harm_client(self, fault: Fault) -> None:
        if fault.kind in NETWORK_KINDS:
            self._harm_line(fault)
            return
        who, what = fault.kind.split("-")
        guests = what == "join"
        candidates = self.members.writers if who == "writer" else self.members.instances
        with self._target(candidates, fault.choice, running=not guests) as member:
            record = self._record(fault, member.name)
            if what == "kill":
                member.kill()
                time.sleep(fault.lasts)
                member.start()
            elif what == "leave":
                record.note = f"left in {member.leave():.1f} s"
                time.sleep(fault.lasts)
                member.start()
            elif what == "join":
                member.start()
                time.sleep(fault.lasts)
                record.note = f"left again in {member.leave():.1f} s"
            elif what == "freeze":
                member.signal(signal.SIGSTOP)
                time.sleep(fault.lasts)
                member.signal(signal.SIGCONT)
            elif what == "slow":
                (self.folder / f"{member.name}.slow").write_text(str(fault.lasts))
                member.signal(signal.SIGUSR1)
                time.sleep(fault.lasts)
            record.lasted = time.monotonic() - self.begun - record.at

    @contextlib.contextmanager
    def _target(self, candidates: Sequence[Member], choice: int, *, running: bool) -> Iterator[Member]:
        """One that no other fault has, beginning with the chosen one. The places of guests are empty."""
        deadline = time.monotonic() + 60
        for turn in itertools.count():
            member = candidates[(choice + turn) % len(candidates)]
            with member.held() as got:
                if got and member.running is running and (running or not member.wanted):
                    yield member
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {candidates[0].name.split('-')[0]} to be harmed")
            time.sleep(0.2)

    def _harm_line(self, fault: Fault) -> None:
        number = fault.choice % len(self._lines)
        namespace = self.wire.namespaces[number]
        (owner,) = [member.name for member in self.members.every if member.namespace == namespace]
        with self._lines[number]:
            record = self._record(fault, f"the line of {owner}")
            if fault.kind == "network-cut":
                self.wire.order(number, "cut")
            else:
                delay, loss, kbit = 20 + fault.choice % 130, 1 + fault.choice % 7, 500 + fault.choice % 4_000
                record.note = f"{delay} ms, {loss} % lost, {kbit} kbit/s"
                self.wire.order(number, f"slow {delay} {loss} {kbit}")
            time.sleep(fault.lasts)
            self.wire.order(number, "clear")
            record.lasted = time.monotonic() - self.begun - record.at

    # Brokers

    def _harm_brokers(self, faults: Sequence[Fault]) -> None:
        with Eyes(self.kafka.address) as eyes:
            for fault in faults:
                self._guarded(fault.kind, self._harm_broker, fault, eyes)

    def _harm_broker(self, fault: Fault, eyes: Eyes) -> None:
        """One at a time, and only while all replicas are in sync: two of three away is more than the cluster is for."""
        topics = [self.options.source, self.options.sink, OFFSETS]
        wait_for(lambda: eyes.in_sync(*topics), IN_SYNC_AGAIN, "all replicas in sync before the next fault", 0.5)
        time.sleep(2.0 + fault.choice % 4)
        partition = fault.choice % PARTITIONS
        if fault.kind.endswith("move"):
            record = self._record(fault, "")
            moves = [(OFFSETS, number) for number in eyes.leaders(OFFSETS)]
            if fault.kind == "leader-move":
                moves = [(topic, partition) for topic in topics[:2]]
            record.target = ", ".join(eyes.move_leader(*move) for move in moves)
            return
        role, what = fault.kind.split("-")
        number = {
            "leader": lambda: eyes.leaders(self.options.source)[partition],
            "coordinator": lambda: eyes.coordinator(self.options.group),
            "controller": eyes.controller,
            "disk": lambda: SMALL_DISK_OF,
        }[role]()
        broker = self.kafka.broker(number)
        record = self._record(fault, f"broker {number}")
        if what == "kill":
            broker.kill()
            time.sleep(fault.lasts)
            broker.restart()
        elif what == "freeze":
            broker.pause()
            time.sleep(fault.lasts)
            broker.resume()
        else:
            self._fill_disk(broker, fault, record)
        record.lasted = time.monotonic() - self.begun - record.at
        wait_for(lambda: eyes.in_sync(*topics), IN_SYNC_AGAIN, f"all replicas in sync after {fault.kind}", 0.3)
        record.in_sync = time.monotonic() - self.begun - record.at

    def _fill_disk(self, broker: qf.local.LocalBroker, fault: Fault, record: Record) -> None:
        """A broker whose only disk fails stops itself. Its operator makes room and starts it again."""
        try:
            self.disk.fill()
            deadline = time.monotonic() + 30
            while broker.running and time.monotonic() < deadline:
                time.sleep(0.2)
                self.disk.fill()
            record.note = "the broker stopped" if not broker.running else "the broker ran on for 30 s"
            time.sleep(fault.lasts)
        finally:
            self.disk.clear()
        broker.restart()

    # The end

    def _watch(self) -> None:
        with Eyes(self.kafka.address, patience=60.0) as eyes:
            while not self._over.wait(0.4):
                at = time.monotonic()
                ends = eyes.ends(self.options.source, PARTITIONS)
                self.looks.append(Look(at, ends, eyes.committed(self.options.group, self.options.source)))

    def _stop_writers(self) -> None:
        for writer in self.members.writers:
            writer.leave(90)

    def _drain(self) -> None:
        """Wait until the group is through."""
        stopped = time.monotonic()

        def through() -> bool:
            look = self.looks[-1]
            return look.at > stopped and all(look.committed.get(n, 0) >= end for n, end in look.ends.items())

        try:
            wait_for(through, ALL_PROCESSED, "everything is processed", 0.2)
        except TimeoutError as exc:
            self._problem(f"{exc}: {self.looks[-1]}")

    def _check(self) -> None:
        report, options = self.report, self.options
        of_writers = [written(journal) for journal in self._journals]
        all_written = pd.concat(of_writers, ignore_index=True)
        doubtful = all_written[~all_written["acknowledged"]]
        report.in_doubt = int((doubtful["last"] - doubtful["first"] + 1).sum())
        source = read_topic(options.address, options.source, PARTITIONS)
        sink = read_topic(options.address, options.sink, PARTITIONS)
        report.source = check_written(all_written, source)
        report.sink = check_processed(all_written, source, sink)
        for name, findings, once in (
            ("the writers' topic", report.source, True),
            ("the model's topic", report.sink, options.mode == "exactly-once"),
        ):
            if findings.broken(once=once):
                report.problems.append(f"{name}: {findings.broken(once=once)}, {findings.examples[:20]}")
        report.problems += [f"ended by itself: {text}" for text in self.members.ended()]
        for record in report.faults:
            since = self.begun + record.at
            record.written = written_again(self._journals, since)
            record.processed = processed_again(self.looks, since)
        for journal in self._journals:
            report.stalls[journal.stem] = longest_gap(acknowledgements(journal))
        errors: Counter[str] = Counter()
        for journal in sorted(self.folder.glob("*.journal")):
            for kind, _, *facts in entries(journal):
                if kind == "failed":
                    errors[f"{journal.stem.split('-')[0]}: {re.sub(r'[0-9]+', 'N', str(facts[0]))[:160]}"] += 1
                elif kind == "accounts":
                    report.problems.append(f"{journal.stem}: accounts do not add up: {facts[0][:3]}")
        report.errors = dict(errors)
        report.write(self.folder / "report.json")
