"""One campaign from the command line: ``python -m tests.faults.campaign --seed 7 --faults 110``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .campaign import Course, run_campaign


def main() -> int:
    """Run it, print what it found; 1 where something was not as it has to be."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what the faults follow from")
    parser.add_argument("--faults", type=int, default=110, help="how many (some 6 s each)")
    parser.add_argument("--every", type=float, default=7.0, help="seconds between two faults of clients")
    parser.add_argument("--mode", choices=["at-least-once", "exactly-once"], default="at-least-once")
    parser.add_argument("--transport", choices=["kafka-python", "confluent"], default="kafka-python")
    parser.add_argument("--loop", choices=["batches", "run"], default="batches", help="a loop of batches, or qf.run")
    parser.add_argument("--folder", type=Path, help="for logs and journals; default: a new one")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="quixframes-campaign-"))
    folder.mkdir(parents=True, exist_ok=True)
    course = Course(given.seed, given.faults, given.mode, given.transport, given.loop, given.every)
    print(f"{course} in {folder}, begun at {time.strftime('%H:%M:%S')}", flush=True)
    report = run_campaign(course, folder, lambda line: print(line, flush=True))
    print(report)
    return bool(report.problems)


if __name__ == "__main__":
    sys.exit(main())
