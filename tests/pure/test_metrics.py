"""Metrics: their names, how they are written down, and that counters stay."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import quixframes as qf
from quixframes import metrics_otel, metrics_prometheus
from quixframes.metrics import DEFINITIONS, Metric, to_frame


def metric(name: str, value: float, **labels: str) -> Metric:
    what = DEFINITIONS[name]
    return Metric(name, what.kind, what.unit, what.help, labels, value)


def client_of(*metrics: Metric) -> Any:
    """Something that has these metrics, as a client has its own."""
    return SimpleNamespace(_book=SimpleNamespace(metrics=lambda: list(metrics)))


ODD = 'a "b"\\c\nd'
ROWS = metric("quixframes_rows_read_total", 10_000_001, topic="engine", group=ODD)
IN_FLIGHT = metric("quixframes_in_flight_bytes", 5)
LAG = metric("quixframes_lag_seconds", 0.25, topic="engine", group="g", partition="2")


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("name", DEFINITIONS)
def test_names_follow_prometheus_rules(name: str) -> None:
    what = DEFINITIONS[name]
    assert re.fullmatch(r"quixframes_[a-z]+(_[a-z]+)*", name)
    assert name.endswith("_total") == (what.kind == "counter")
    if what.unit in ("bytes", "seconds"):
        base = name.removesuffix("_total").split("_")
        assert what.unit in base, "the unit is in the name"
    assert what.help.endswith(".")


def test_the_text_is_what_prometheus_reads() -> None:
    text = metrics_prometheus.text(client_of(ROWS, LAG, IN_FLIGHT))
    assert parsed(text) == {
        ("quixframes_rows_read_total", (("group", ODD), ("topic", "engine"))): 10_000_001,
        ("quixframes_lag_seconds", (("group", "g"), ("partition", "2"), ("topic", "engine"))): 0.25,
        ("quixframes_in_flight_bytes", ()): 5,
    }
    assert "# TYPE quixframes_rows_read_total counter\n" in text
    assert "# TYPE quixframes_lag_seconds gauge\n" in text


def test_a_registry_gives_the_same_as_the_text() -> None:
    client, registry = client_of(ROWS, LAG, IN_FLIGHT), CollectorRegistry()
    metrics_prometheus.register(client, registry)
    assert parsed(generate_latest(registry).decode()) == parsed(metrics_prometheus.text(client))


def test_several_clients_are_told_apart_by_a_label() -> None:
    clients = {"raw": client_of(ROWS, IN_FLIGHT), "results": client_of(ROWS)}
    registry = CollectorRegistry()
    metrics_prometheus.register(clients, registry)
    text = metrics_prometheus.text(clients)
    assert text.count("# TYPE") == 2
    assert parsed(generate_latest(registry).decode()) == parsed(text)
    assert {dict(labels)["client"] for _, labels in parsed(text)} == {"raw", "results"}


def test_registering_twice_is_a_clear_error_and_unregistering_is_the_way_out() -> None:
    registry = CollectorRegistry()
    first = metrics_prometheus.register(client_of(), registry)
    with pytest.raises(qf.SettingsError, match="registered there already"):
        metrics_prometheus.register(client_of(), registry)
    registry.unregister(first)
    metrics_prometheus.register(client_of(), registry)


@pytest.mark.parametrize(
    ("register", "package"),
    [(metrics_prometheus.register, "prometheus_client"), (metrics_otel.register, "opentelemetry.metrics")],
)
def test_a_missing_package_is_named_with_what_brings_it(
    register: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(qf.QuixframesError, match=r"quixframes\[metrics\]"):
        register(client_of())


def test_a_frame_has_one_row_a_number_and_missing_labels_are_missing() -> None:
    frame = to_frame([ROWS, LAG, IN_FLIGHT])
    assert frame.columns.tolist() == ["metric", "topic", "group", "partition", "value", "kind", "unit"]
    assert frame["value"].tolist() == [10_000_001, 0.25, 5]
    assert frame["partition"].isna().tolist() == [True, False, True]
    assert frame["topic"].isna().tolist() == [False, False, True]
    assert to_frame([]).dtypes.tolist() == frame.dtypes.tolist()


def test_one_collection_of_opentelemetry_reads_once_and_the_next_one_anew() -> None:
    reads = []
    snapshot = metrics_otel._Snapshot(lambda: reads.append(1) or [ROWS])  # type: ignore[func-returns-value]
    for collection in range(1, 4):
        found = {name: snapshot.of(name) for name in DEFINITIONS}
        assert len(reads) == collection
        assert found[ROWS.name] == [ROWS]
