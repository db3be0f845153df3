"""A client's metrics for Prometheus: as text, and as a collector for the package ``prometheus-client``.

>>> from quixframes.metrics_prometheus import register                                         # doctest: +SKIP
>>> register(client)                                                                           # doctest: +SKIP
>>> prometheus_client.start_http_server(9000)                                                  # doctest: +SKIP

The numbers are read when Prometheus asks; between two of its visits nothing happens. ``register`` needs the extra
``metrics``; ``text`` needs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from quixframes.errors import QuixframesError, SettingsError
from quixframes.metrics import DEFINITIONS, Clients, Metric, metrics_of

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector, CollectorRegistry

__all__ = ["CONTENT_TYPE", "register", "text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The HTTP content type of what :func:`text` returns."""


def text(clients: Clients) -> str:
    """The metrics of a client in Prometheus' text format, as an HTTP endpoint answers with them.

    Args:
        clients: a client; or several by names, as ``{"raw": one, "results": other}``, which are labels then.
    """
    lines: list[str] = []
    for name, metrics in groupby(metrics_of(clients), key=lambda one: one.name):
        what = DEFINITIONS[name]
        lines += [f"# HELP {name} {what.help}", f"# TYPE {name} {what.kind}"]
        lines += [f"{name}{_braces(one)} {float(one.value)!r}" for one in metrics]
    return "\n".join(lines) + "\n"


def register(clients: Clients, registry: CollectorRegistry | None = None) -> Collector:
    """Have a registry of prometheus-client ask for a client's metrics whenever it is scraped.

    Args:
        clients: as for :func:`text`. A registry can have one call of this function: give all clients in it.
        registry: where. Default: ``prometheus_client.REGISTRY``, which ``prometheus_client.start_http_server`` serves.

    Returns:
        What was registered; ``registry.unregister`` takes it back.

    Raises:
        QuixframesError: prometheus-client is not installed.
        SettingsError: the registry has such metrics already.
    """
    try:
        from prometheus_client import REGISTRY
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
        from prometheus_client.registry import Collector
    except ModuleNotFoundError as exc:
        raise QuixframesError(f'this needs the package {exc.name!r}: pip install "quixframes[metrics]"') from exc

    labels_of_clients = ["client"] if isinstance(clients, Mapping) else []

    def family(name: str) -> CounterMetricFamily | GaugeMetricFamily:
        what = DEFINITIONS[name]
        labels = [*labels_of_clients, *what.labels]
        if what.kind == "counter":
            return CounterMetricFamily(name.removesuffix("_total"), what.help, labels=labels)
        return GaugeMetricFamily(name, what.help, labels=labels)

    class ClientCollector(Collector):
        """Reads a client's metrics when it is asked."""

        def collect(self) -> Iterator[Family]:
            for name, metrics in groupby(metrics_of(clients), key=lambda one: one.name):
                filled = family(name)
                for one in metrics:
                    filled.add_metric(list(one.labels.values()), one.value)
                yield filled

        def describe(self) -> Iterator[Family]:
            yield from map(family, DEFINITIONS)

    collector = ClientCollector()
    try:
        (REGISTRY if registry is None else registry).register(collector)
    except ValueError as exc:
        raise SettingsError(
            f"metrics of a client are registered there already ({exc}): unregister them first, or register several "
            "clients at once, by names: register({'raw': one, 'results': other})"
        ) from exc
    return collector


def _braces(metric: Metric) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in metric.labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
