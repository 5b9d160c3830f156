"""Metrics by Prometheus' conventions, from the declarations in :mod:`sealwire.telemetry`.

A metric has the declared name with its unit at the end (bytes and seconds are base units) and
``_total`` for what only grows.  Labels are closed sets: the name you gave a server, the reason of a
discard, the purpose of memory.  No address, name or id of a peer is ever a label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

from sealwire.limits import Purpose
from sealwire.monitor.sources import Process, Reading, Tally
from sealwire.telemetry import ConnectionCounters, Counters, EndpointCounters, Histogram, ProxyCounters

PREFIX: Final = "sealwire"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family: `kind` is counter, gauge or histogram; `labels` beside ``server``."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a family; a histogram's is the histogram itself."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Histogram


def _named(part: str, name: str, unit: str, total: bool) -> str:
    words = name.split("_")
    if unit in ("bytes", "seconds"):
        words = [word for word in words if word != unit] + [unit]
    return "_".join((PREFIX, part, *words, *(["total"] if total else [])))


def _declared(part: str, kind: type[Any], gauges: frozenset[str] = frozenset()) -> dict[str, Metric]:
    declared = {}
    for field in fields(kind):
        if not field.metadata:
            continue
        histogram, gauge = "bounds" in field.metadata, field.name in gauges
        unit, meaning = field.metadata["unit"], field.metadata["meaning"]
        declared[field.name] = Metric(
            _named(part, field.name, unit, total=not histogram and not gauge),
            "histogram" if histogram else "gauge" if gauge else "counter",
            f"{meaning[0].upper()}{meaning[1:]}.",
        )
    return declared


ENDPOINT: Final = _declared("endpoint", EndpointCounters)
CONNECTION: Final = _declared("connection", ConnectionCounters)
PROXY: Final = _declared("proxy", ProxyCounters)
ENDPOINT_DISCARDS: Final = Metric(
    "sealwire_endpoint_discards_total",
    "counter",
    "Datagrams dropped before any connection, by reason.",
    ("reason",),
)
CONNECTION_DISCARDS: Final = Metric(
    "sealwire_connection_discards_total",
    "counter",
    "Records, messages and datagrams dropped by connections, by reason.",
    ("reason",),
)
UP: Final = Metric("sealwire_serving", "gauge", "1 while the server admits peers.", ("transport",))
CONNECTIONS: Final = Metric("sealwire_connections", "gauge", "Connections now, handshakes included.")
HANDSHAKING: Final = Metric("sealwire_handshakes_pending", "gauge", "Handshakes that are not finished.")
HELD: Final = Metric("sealwire_held_bytes", "gauge", "Bytes held for peers now, by purpose.", ("purpose",))
HELD_LIMIT: Final = Metric("sealwire_held_limit_bytes", "gauge", "Bytes that may be held for peers.")
HELD_PEAK: Final = Metric("sealwire_held_peak_bytes", "gauge", "The most bytes ever held for peers.")
REFUSALS: Final = Metric("sealwire_charges_refused_total", "counter", "Times memory was refused.")
PRESSURE: Final = Metric(
    "sealwire_pressure", "gauge", "How full the fullest ledger is: 0 to 4, from below 70 % to 95 % and above."
)
LIMIT: Final = Metric("sealwire_limit", "gauge", "The configured value of each limit.", ("limit",))
REACHED: Final = Metric(
    "sealwire_limit_reached_total",
    "counter",
    "Times each limit was reached.",
    ("limit",),
)
RESIDENT: Final = Metric("sealwire_process_resident_bytes", "gauge", "Memory of the process that is in RAM.")
CPU: Final = Metric("sealwire_process_cpu_seconds_total", "counter", "Processor time of the process.")
DESCRIPTORS: Final = Metric("sealwire_process_open_descriptors", "gauge", "File descriptors that are open.")

OF_SERVERS: Final = (
    UP,
    CONNECTIONS,
    HANDSHAKING,
    HELD,
    HELD_LIMIT,
    HELD_PEAK,
    REFUSALS,
    PRESSURE,
    LIMIT,
    REACHED,
    *ENDPOINT.values(),
    ENDPOINT_DISCARDS,
    *CONNECTION.values(),
    CONNECTION_DISCARDS,
)
OF_PROXIES: Final = tuple(PROXY.values())
OF_PROCESS: Final = (RESIDENT, CPU, DESCRIPTORS)


def of_reading(reading: Reading) -> Iterator[Sample]:
    """Every sample of one server; labels without the server's name."""
    yield Sample(UP, (reading.transport,), float(reading.serving))
    yield Sample(CONNECTIONS, (), reading.connections)
    yield Sample(HANDSHAKING, (), reading.handshaking)
    for purpose in Purpose:
        yield Sample(HELD, (_label(purpose.value),), reading.held_by_purpose[purpose.value])
    yield Sample(HELD_LIMIT, (), reading.held_limit_bytes)
    yield Sample(HELD_PEAK, (), reading.held_peak_bytes)
    yield Sample(REFUSALS, (), reading.charges_refused)
    yield Sample(PRESSURE, (), reading.pressure)
    for limit in reading.limits:
        yield Sample(LIMIT, (limit.name,), limit.value)
        yield Sample(REACHED, (limit.name,), limit.reached)
    for declared, counters, discards in (
        (ENDPOINT, reading.endpoint, ENDPOINT_DISCARDS),
        (CONNECTION, reading.totals, CONNECTION_DISCARDS),
    ):
        assert isinstance(counters, Counters)
        for name, metric in declared.items():
            yield Sample(metric, (), getattr(counters, name))
        # Those that happened: a reason that never did has no series, and there are few.
        for reason, n in sorted(counters.discards.items(), key=lambda item: item[0].name):
            yield Sample(discards, (_label(reason.name),), n)


def of_tally(tally: Tally) -> Iterator[Sample]:
    """Every sample of further counters; labels without their name."""
    counters = tally.read()
    for name, metric in _declared(tally.part, type(counters), tally.gauges).items():
        yield Sample(metric, (), getattr(counters, name))
    for name, meaning in (("discards", "What was dropped, by reason."), ("ends", "What ended, by reason.")):
        by_reason = Metric(_named(tally.part, name, "", total=True), "counter", meaning, ("reason",))
        for reason, n in sorted(getattr(counters, name, {}).items(), key=lambda item: item[0].name):
            yield Sample(by_reason, (_label(reason.name),), n)


def of_process(process: Process) -> Iterator[Sample]:
    """Every sample of the process."""
    yield Sample(RESIDENT, (), process.resident_bytes)
    yield Sample(CPU, (), process.cpu_seconds)
    yield Sample(DESCRIPTORS, (), process.open_descriptors)


def _label(text: str) -> str:
    return text.lower().replace(" ", "_")


def table() -> str:
    """The metrics as a table for docs/monitoring.md."""
    rows = ["| metric | type | labels | what it is |", "| --- | --- | --- | --- |"]
    for metric in (*OF_SERVERS, *OF_PROXIES, *OF_PROCESS):
        own = () if metric in OF_PROCESS else ("server", *metric.labels)
        labels = ", ".join(f"`{label}`" for label in own) or "none"
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(rows)
