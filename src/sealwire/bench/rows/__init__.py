"""The rows of the bench, in the order they are shown; every new feature adds its own."""

from __future__ import annotations

from sealwire.bench.measurement import Measurement
from sealwire.bench.rows import (
    bulk,
    changes,
    connections,
    copies,
    crypto,
    handshake,
    handshake_rate,
    latency,
    memory,
    probe,
    record,
    seal,
    stcp,
    stored,
    udp,
    workers,
)

#: What `registry` finds.
LOCATION = "sealwire.bench.rows:ROWS"

ROWS: tuple[Measurement, ...] = (
    *record.ROWS,
    *handshake.ROWS,
    *handshake_rate.ROWS,
    *memory.ROWS,
    *connections.ROWS,
    *crypto.ROWS,
    *udp.ROWS,
    *bulk.ROWS,
    *copies.ROWS,
    *latency.ROWS,
    *workers.ROWS,
    *changes.ROWS,
    *stcp.ROWS,
    *probe.rows(),
    *seal.ROWS,
    *stored.ROWS,
)
