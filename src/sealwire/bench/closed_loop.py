"""One thing after another, each timed: latencies, rate, and the law that ties them together.

In a closed loop the number in flight is known, and by Little's law it is rate times mean latency.
A loop that spends its time elsewhere, or a clock around the wrong lines, breaks that.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

from sealwire.bench.clocks import quantiles
from sealwire.bench.measurement import Bench, Check, Reading

# Sockets of finished handshakes that wait to be closed off the clock.
_OPEN_SOCKETS: Final = 50


def closed_loop(bench: Bench, handshake: Callable[[], Callable[[], None]]) -> Reading:
    """Handshakes one after another; `handshake` makes one and returns how to close it, off the clock.

    Figures: "" the median and "p95", "p99" latency in ms; "rate" per second; "client", "server" and
    "cpu" of both, CPU in microseconds per handshake.
    """
    gc.collect()
    watch, count = bench.stopwatch, bench.scale.handshakes
    latencies: list[float] = []
    closing: list[Callable[[], None]] = []
    before = bench.ask_peer("cpu")["cpu_seconds"]
    looped = 0.0
    while len(latencies) < count:
        begin = time.perf_counter()
        for _ in range(min(_OPEN_SOCKETS, count - len(latencies))):
            watch.start()
            closing.append(handshake())
            latencies.append(watch.stop())
        looped += time.perf_counter() - begin
        while closing:
            closing.pop()()
    server = bench.ask_peer("cpu")["cpu_seconds"] - before
    ordered = quantiles([1e3 * latency for latency in latencies])
    mean = sum(latencies) / count
    return Reading(
        values={
            "": ordered["50"],
            "p95": ordered["95"],
            "p99": ordered["99"],
            "rate": count / looped,
            "cpu": (watch.cpu_seconds + server) / count * 1e6,
            "client": watch.cpu_seconds / count * 1e6,
            "server": server / count * 1e6,
        },
        units=count,
        wall_seconds=looped,
        cpu_seconds=watch.cpu_seconds + server,
        quantiles=ordered,
        checks=(little(count / looped, mean, 1),),
    )


def little(rate: float, mean_seconds: float, clients: int) -> Check:
    """Little's law: what is in flight is rate times mean latency, and in a closed loop that is known."""
    flight = rate * mean_seconds
    return Check(
        "Little's law",
        0.9 * clients <= flight <= 1.02 * clients,
        f"{rate:,.0f} per second times {mean_seconds * 1e3:.3f} ms is {flight:.2f} in flight;"
        f" {clients} should be",
    )
