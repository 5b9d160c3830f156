"""The JSON that `/snapshot`, the control socket and your own code get: one moment, whole."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, Final

from sealwire.monitor.history import History
from sealwire.monitor.sources import Monitor, Process, Reading

#: Of the shape of what `snapshot` returns; raised when a member changes its meaning.
VERSION: Final = 1


def snapshot(monitor: Monitor, history: History | None = None) -> dict[str, Any]:
    """Everything about every server and the process, ready for json.dumps."""
    reason = monitor.not_ready()
    recent = None if history is None else history.indicators(60.0)
    return {
        "version": VERSION,
        "time": time.time(),
        "uptime_seconds": max(0.0, time.time() - monitor.started),
        "ready": not reason,
        "reason": reason,
        "process": asdict(Process.now()),
        "last_minute": None if recent is None else asdict(recent),
        "servers": {reading.server: _of(reading) for reading in monitor.read()},
        "counted": [
            {"server": name, "part": part, "counters": tally.read().snapshot()}
            for (name, part), tally in monitor.tallies.items()
        ],
    }


def _of(reading: Reading) -> dict[str, Any]:
    handshakes = reading.endpoint.handshake_seconds
    return {
        "transport": reading.transport,
        "serving": reading.serving,
        "connections": reading.connections,
        "handshaking": reading.handshaking,
        "held_bytes": reading.held_bytes,
        "held_limit_bytes": reading.held_limit_bytes,
        "held_peak_bytes": reading.held_peak_bytes,
        "held_by_purpose": reading.held_by_purpose,
        "charges_refused": reading.charges_refused,
        "pressure": reading.pressure,
        "limits": [asdict(limit) for limit in reading.limits],
        "endpoint": reading.endpoint.snapshot(),
        "connection": reading.totals.snapshot(),
        "handshake_seconds": {
            "bounds": list(handshakes.bounds),
            "counts": handshakes.counts,
            "sum": handshakes.sum,
        },
    }
