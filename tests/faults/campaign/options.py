"""What a campaign's processes are told: one JSON file, read by all of them."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Loop", "Mode", "Options", "end_with_parent"]

Mode = Literal["at-least-once", "exactly-once"]
Loop = Literal["batches", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """``tick`` is the seconds between two groups of writes, ``rows`` the rows of each group."""

    address: str
    folder: str
    seed: int
    mode: Mode = "at-least-once"
    transport: str = "kafka-python"
    loop: Loop = "batches"
    source: str = "source"
    sink: str = "sink"
    group: str = "model"
    streams: int = 30
    tick: float = 0.05
    rows: int = 50

    def write(self, path: Path) -> None:
        """Write them down for the processes."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: str) -> Options:
        """What was written down."""
        return cls(**json.loads(Path(path).read_text()))

    def client_arguments(self) -> dict[str, str]:
        """What StreamingClient gets beside the address; the default is left out, for versions that know no other."""
        return {} if self.transport == "kafka-python" else {"transport": self.transport}


def end_with_parent() -> None:
    """End this process, like a killed one, once its campaign is gone: a killed campaign stops nobody."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
