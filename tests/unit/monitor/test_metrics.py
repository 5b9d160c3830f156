"""Metrics: from the declarations, by Prometheus' conventions, and the same as docs/monitoring.md says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from sealwire.limits import Limits, Purpose
from sealwire.monitor import Exposition, Monitor, SealwireCollector, metrics, snapshot
from sealwire.telemetry import ConnectionCounters, EndpointCounters
from tests.unit.monitor.sources import Fixed

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]


def monitor() -> Monitor:
    watch = Monitor()
    watch.watch(Fixed())
    watch.watch(Fixed("tls"), "second")
    return watch


def scrape(watch: Monitor) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample name to labels to value."""
    _, body = Exposition(watch).text("text/plain")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), "a series comes once"
            found[sample.name][labels] = sample.value
    return found


def test_every_declared_counter_is_a_metric_with_its_value() -> None:
    found = scrape(monitor())
    first = (("server", "dtls"),)
    assert found["sealwire_endpoint_datagrams_received_total"][first] == 7
    assert found["sealwire_connection_received_bytes_total"][first] == 1_000
    for kind, declared in ((EndpointCounters, metrics.ENDPOINT), (ConnectionCounters, metrics.CONNECTION)):
        names = {field.name for field in fields(kind) if field.metadata}
        assert set(declared) == names
        for metric in declared.values():
            name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
            assert set(found[name]) == {first, (("server", "second"),)}


def test_a_histogram_is_cumulative() -> None:
    found = scrape(monitor())
    buckets = {
        dict(labels)["le"]: value
        for labels, value in found["sealwire_endpoint_handshake_seconds_bucket"].items()
        if dict(labels)["server"] == "dtls"
    }
    assert buckets["0.0025"] == 0
    assert buckets["0.005"] == 1
    assert buckets["0.1"] == 1
    assert buckets["0.25"] == buckets["+Inf"] == 2
    assert found["sealwire_endpoint_handshake_seconds_sum"][(("server", "dtls"),)] == pytest.approx(0.203)


def test_labels_are_closed_sets_and_no_address_is_among_them() -> None:
    allowed = {"server", "transport", "reason", "purpose", "limit", "le"}
    for series in scrape(monitor()).values():
        for labels in series:
            assert {name for name, _ in labels} <= allowed
            assert all(re.fullmatch(r"[a-z0-9_.+]+|\+Inf|[0-9.e+-]+", value) for _, value in labels)
    assert len(scrape(monitor())["sealwire_held_bytes"]) == 2 * len(Purpose)
    assert len(scrape(monitor())["sealwire_limit"]) >= 2 * 20
    assert {dict(labels)["limit"] for labels in scrape(monitor())["sealwire_limit"]} <= {
        field.name for field in fields(Limits)
    }


def test_names_follow_the_conventions() -> None:
    for metric in (*metrics.OF_SERVERS, *metrics.OF_PROCESS):
        assert re.fullmatch(r"sealwire_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        assert metric.help[0].isupper() or metric.help[0].isdigit() or not metric.help[0].isalpha()
        if "bytes" in metric.name or "seconds" in metric.name:
            assert re.search(r"_(bytes|seconds)(_total)?$", metric.name), metric.name


def test_the_table_in_the_manual_is_fresh() -> None:
    manual = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    assert metrics.table() in manual, "run: python -m sealwire.monitor docs/monitoring.md"


def test_scraping_counts_nothing_and_reads_what_is_there() -> None:
    watch = Monitor()
    source = Fixed()
    watch.watch(source)
    assert scrape(watch) is not None
    before = source.endpoint.snapshot()
    source.endpoint.datagrams_received += 5
    series = scrape(watch)["sealwire_endpoint_datagrams_received_total"]
    assert list(series.values()) == [12]
    assert source.endpoint.snapshot() == {**before, "datagrams_received": 12}


def test_beside_metrics_of_the_application() -> None:
    registry = prometheus_client.CollectorRegistry(auto_describe=True)
    registry.register(SealwireCollector(monitor()))
    own = prometheus_client.Counter("orders", "Orders taken", registry=registry)
    own.inc()
    _, body = Exposition(monitor(), registry).text("application/openmetrics-text; version=1.0.0")
    assert b"orders_total 1.0" in body
    assert b"sealwire_serving" in body
    assert body.endswith(b"# EOF\n")
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(SealwireCollector(monitor()))


def test_two_servers_need_two_names() -> None:
    watch = monitor()
    with pytest.raises(ValueError, match="watched already"):
        watch.watch(Fixed())


def test_a_snapshot_says_the_same() -> None:
    found = snapshot(monitor())
    assert found["ready"] is True
    server = found["servers"]["dtls"]
    assert server["held_bytes"] == 500
    assert server["held_by_purpose"]["receive queue"] == 500
    assert server["endpoint"]["datagrams_received"] == 7
    assert server["endpoint"]["discard.not_dtls"] == 1
    assert server["connection"]["discard.replay"] == 1
    (limit,) = (one for one in server["limits"] if one["name"] == "connections")
    assert (limit["value"], limit["used"], limit["reached"]) == (10_000, 3, 0)
    assert limit["scope"] == "endpoint"
    assert limit["happens"]


def test_whether_it_is_ready() -> None:
    assert Monitor().not_ready() == "no server is watched"
    source = Fixed(limits=Limits(connections=3, handshakes=3))
    watch = Monitor()
    watch.watch(source)
    assert "as many connections" in watch.not_ready()
    source.connections = 2
    assert watch.not_ready() == ""
    for purpose in (Purpose.CONNECTION,):
        assert source.ledger.charge(purpose, int(source.ledger.limit * 0.96))
    assert "holds" in watch.not_ready()
    source.ledger.release(Purpose.CONNECTION, int(source.ledger.limit * 0.96))
    source.serving = False
    assert watch.not_ready() == "dtls is closing"
