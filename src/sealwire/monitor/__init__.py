"""Watching servers: metrics for Prometheus, health, snapshots, a control socket, alerts.

    monitor = sealwire.monitor.Monitor()
    monitor.watch(server)                                  # as often as there are servers
    async with await serve_metrics(monitor, "localhost", 9464): ...

Nothing that is watched knows of this package, and nothing is counted for it: it reads.
"""

from sealwire.monitor.alerts import DEFAULT_RULES, Alert, Alerts, Rule, Severity, throughput_rules
from sealwire.monitor.control import ControlError, ControlServer, ask, default_path, serve_control
from sealwire.monitor.exposition import Exposition, SealwireCollector, Unavailable
from sealwire.monitor.growth import Growing, growing
from sealwire.monitor.history import History, Indicators, Point
from sealwire.monitor.http import MetricsServer, serve_metrics
from sealwire.monitor.recorder import Recorder
from sealwire.monitor.snapshot import snapshot
from sealwire.monitor.sources import Monitor, Process, Reading, Source, Tally

__all__ = [
    "DEFAULT_RULES",
    "Alert",
    "Alerts",
    "ControlError",
    "ControlServer",
    "Exposition",
    "Growing",
    "History",
    "Indicators",
    "MetricsServer",
    "Monitor",
    "Point",
    "Process",
    "Reading",
    "Recorder",
    "Rule",
    "SealwireCollector",
    "Severity",
    "Source",
    "Tally",
    "Unavailable",
    "ask",
    "default_path",
    "growing",
    "serve_control",
    "serve_metrics",
    "snapshot",
    "throughput_rules",
]
