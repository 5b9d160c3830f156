"""Exposition for Prometheus through `prometheus-client` (the extra ``sealwire[monitor]``).

A custom collector makes every sample when it is scraped; between scrapes it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sealwire.monitor.metrics import OF_PROCESS, OF_SERVERS, Metric, of_process, of_reading, of_tally
from sealwire.monitor.sources import Monitor, Process
from sealwire.telemetry import Histogram

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry


class Unavailable(Exception):
    """prometheus-client is not installed."""


def _client() -> Any:
    try:
        import prometheus_client
        import prometheus_client.core
        import prometheus_client.exposition
        import prometheus_client.registry
    except ImportError as error:
        raise Unavailable("metrics need prometheus-client: pip install 'sealwire[monitor]'") from error
    return prometheus_client


class SealwireCollector:
    """A collector for a registry of prometheus-client's: ``REGISTRY.register(SealwireCollector(monitor))``.

    Raises:
        Unavailable: prometheus-client is not installed.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._client = _client()

    def describe(self) -> Iterable[Any]:
        """The families, without samples, so that registering reads nothing."""
        return [
            *(self._family(metric, ("server", *metric.labels)) for metric in OF_SERVERS),
            *(self._family(metric, ("server", *metric.labels)) for metric in self._of_tallies()),
            *(self._family(metric, ()) for metric in OF_PROCESS),
        ]

    def collect(self) -> Iterator[Any]:
        """The families with their samples of now."""
        families = {
            **{metric: self._family(metric, ("server", *metric.labels)) for metric in OF_SERVERS},
            **{metric: self._family(metric, ()) for metric in OF_PROCESS},
        }
        for (name, _), tally in self._monitor.tallies.items():
            for sample in of_tally(tally):
                if sample.metric not in families:
                    families[sample.metric] = self._family(sample.metric, ("server", *sample.metric.labels))
                _add(families[sample.metric], [name, *sample.labels], sample.value)
        for reading in self._monitor.read():
            for sample in of_reading(reading):
                _add(families[sample.metric], [reading.server, *sample.labels], sample.value)
        for sample in of_process(Process.now()):
            _add(families[sample.metric], [], sample.value)
        yield from families.values()

    def _of_tallies(self) -> list[Metric]:
        found = (sample.metric for tally in self._monitor.tallies.values() for sample in of_tally(tally))
        return list(dict.fromkeys(found))

    def _family(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        core = self._client.core
        kinds = {
            "counter": core.CounterMetricFamily,
            "gauge": core.GaugeMetricFamily,
            "histogram": core.HistogramMetricFamily,
        }
        # The client appends _total itself.
        return kinds[metric.kind](metric.name.removesuffix("_total"), metric.help, labels=labels)


def _add(family: Any, labels: list[str], value: float | Histogram) -> None:
    if not isinstance(value, Histogram):
        family.add_metric(labels, value)
        return
    buckets, below = [], 0
    for bound, n in zip((*map(_bound, value.bounds), "+Inf"), value.counts, strict=True):
        below += n
        buckets.append((bound, below))
    family.add_metric(labels, buckets, value.sum)


def _bound(bound: float) -> str:
    return repr(float(bound))


class Exposition:
    """The text of a scrape, from a registry that has sealwire's metrics alone or your own beside them."""

    def __init__(self, monitor: Monitor, registry: CollectorRegistry | None = None) -> None:
        client = _client()
        self._registry = registry or client.registry.CollectorRegistry(auto_describe=False)
        if registry is None:
            self._registry.register(SealwireCollector(monitor))
        self._choose = client.exposition.choose_encoder

    def text(self, accept: str) -> tuple[str, bytes]:
        """Content type and body, in the newest format that the scraper's ``Accept`` header allows."""
        encode, content_type = self._choose(accept)
        return content_type, encode(self._registry)
