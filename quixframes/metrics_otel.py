"""A client's metrics for OpenTelemetry, as observable instruments: they are read when an exporter collects.

>>> from quixframes.metrics_otel import register                                               # doctest: +SKIP
>>> register(client)                                                                           # doctest: +SKIP

It needs the extra ``metrics``, and whatever SDK and exporter the program has set up. The names are those of
``docs/metrics.md`` as OpenTelemetry writes them: ``quixframes_rows_read_total`` is ``quixframes.rows_read``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING

from quixframes.errors import QuixframesError
from quixframes.metrics import DEFINITIONS, Clients, Metric, metrics_of

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

__all__ = ["register"]

_UNITS = {"bytes": "By", "seconds": "s"}


def register(clients: Clients, meter: Meter | None = None) -> None:
    """Make an observable counter or gauge of each metric of a client.

    They stay for as long as the meter does: OpenTelemetry has no way to take an instrument back. So a meter can have
    one call of this function: give all clients in it.

    Args:
        clients: a client; or several by names, as ``{"raw": one, "results": other}``, which are attributes then.
        meter: what makes the instruments. Default: that of the global meter provider, named "quixframes".

    Raises:
        QuixframesError: opentelemetry-api is not installed.
    """
    try:
        from opentelemetry.metrics import Observation, get_meter
    except ModuleNotFoundError as exc:
        raise QuixframesError(f'this needs the package {exc.name!r}: pip install "quixframes[metrics]"') from exc

    if meter is None:
        meter = get_meter("quixframes", version("quixframes"))
    snapshot = _Snapshot(lambda: metrics_of(clients))

    def observe(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: [Observation(one.value, dict(one.labels)) for one in snapshot.of(name)]

    for name, what in DEFINITIONS.items():
        create = meter.create_observable_counter if what.kind == "counter" else meter.create_observable_gauge
        unit = _UNITS.get(what.unit, f"{{{what.unit}}}")
        create(_otel_name(name), [observe(name)], unit, what.help)


def _otel_name(name: str) -> str:
    return name.removesuffix("_total").replace("_", ".", 1)


class _Snapshot:
    """One reading for all instruments of a collection, so that it is made once, and its numbers go together. One that
    asks a second time begins another collection."""

    def __init__(self, read: Callable[[], list[Metric]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._left: dict[str, list[Metric]] = {}

    def of(self, name: str) -> list[Metric]:
        with self._lock:
            if name not in self._left:
                self._left = {name: [] for name in DEFINITIONS}
                for metric in self._read():
                    self._left[metric.name].append(metric)
            return self._left.pop(name)
