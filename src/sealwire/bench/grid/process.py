"""The process of a server, or of clients: `python -m sealwire.bench.grid.process`.

One JSON object per line each way, as for :mod:`sealwire.bench.worker`.  The first one says what to be; the
answer is "ready".  A server answers {"ask": ...} with what it used; clients answer {"run": seconds} with a
"report" now and then, and a "result" at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from sealwire.bench.clocks import Stopwatch, Usage
from sealwire.bench.crypto_switch import crypto
from sealwire.bench.grid.clients import Clients, Load, Mode
from sealwire.bench.grid.serving import Server, new_loop
from sealwire.bench.grid.tally import Latencies, Tally
from sealwire.bench.grid.threads import ThreadedServer
from sealwire.bench.grid.transports import TRANSPORTS, Transport
from sealwire.bench.measurement import QUICK, Bench
from sealwire.drive.machine import LimitsWarning


def main() -> int:
    """Serve one parent until it closes our stdin."""
    orders = sys.stdin
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore", LimitsWarning)
    try:
        order = json.loads(orders.readline())
        if order["cpu"] is not None:
            os.sched_setaffinity(0, {order["cpu"]})
        bench = Bench(Path(order["directory"]), QUICK, crypto(True), Stopwatch(), {}, lambda question: {})
        transport = TRANSPORTS[order["transport"]](bench)
        (_serve if order["side"] == "server" else _ask)(transport, order, orders, replies)
    except Exception as error:
        if os.environ.get("SEALWIRE_BENCH_DEBUG") == "1":
            raise
        text = str(error).partition("\n")[0]
        _say(replies, error=f"{type(error).__name__}: {text}" if text else type(error).__name__)
        return 1
    return 0


def _serve(transport: Transport, order: Mapping[str, Any], orders: TextIO, replies: TextIO) -> None:
    server: Server | ThreadedServer
    host, port = order["host"], order["port"]
    threaded = order["server"] == "threaded"
    server = ThreadedServer(transport, host, port) if threaded else Server(transport, host, port)

    def answer() -> None:
        for _ in orders:
            _say(replies, usage={**_usage(), "failures": server.failures})
        # Whatever still runs may wait for the network for ever.
        os._exit(0)

    def ready() -> None:
        _say(replies, ready={"port": server.port, "pid": os.getpid()})
        threading.Thread(target=answer, daemon=True).start()

    if isinstance(server, ThreadedServer):
        server.run(ready)
    else:
        with asyncio.Runner(loop_factory=lambda: new_loop(order["server"])) as runner:
            runner.run(server.run(ready))


def _ask(transport: Transport, order: Mapping[str, Any], orders: TextIO, replies: TextIO) -> None:
    load = Load(**{**order["load"], "mode": Mode(order["load"]["mode"])})
    clients = Clients(transport, load, order["host"], order["port"])
    with asyncio.Runner(loop_factory=lambda: new_loop(order["loop"])) as runner:
        if load.mode is not Mode.CHURN:
            runner.run(clients.open())
        _say(replies, ready={"pid": os.getpid()})
        for line in orders:
            run = json.loads(line)
            tally = Tally()
            before = _usage()
            wall = runner.run(_run(clients, run["run"], run["every"], tally, replies))
            after = _usage()
            used = {name: after[name] - before[name] for name in ("user_seconds", "system_seconds")}
            _say(replies, result={**_summary(tally, wall), **used, "rss_bytes": after["rss_bytes"]})
        runner.run(clients.close())


async def _run(clients: Clients, seconds: float, every: float, tally: Tally, replies: TextIO) -> float:
    reporting = asyncio.create_task(_report(every, tally, replies)) if every else None
    try:
        return await clients.run(seconds, tally)
    finally:
        if reporting is not None:
            reporting.cancel()


async def _report(every: float, tally: Tally, replies: TextIO) -> None:
    begin = before = time.perf_counter()
    count = 0
    while True:
        await asyncio.sleep(every)
        now = time.perf_counter()
        rate = (tally.latencies.count - count) / (now - before)
        count, before = tally.latencies.count, now
        _say(replies, report={"seconds": now - begin, "rate": rate, "errors": dict(tally.errors)})


def _summary(tally: Tally, wall: float) -> dict[str, Any]:
    return {
        "wall_seconds": wall,
        "requests": tally.latencies.count,
        "mean_seconds": tally.latencies.mean,
        "latency_ms": tally.latencies.quantiles(),
        "connections": tally.connects.count,
        "connect_ms": _quantiles(tally.connects),
        "messages": tally.messages,
        "errors": dict(tally.errors),
    }


def _quantiles(latencies: Latencies) -> dict[str, float]:
    return latencies.quantiles((50.0, 95.0, 99.0)) if latencies.count else {}


def _usage() -> dict[str, float]:
    usage = Usage.now()
    return {
        "user_seconds": usage.user_seconds,
        "system_seconds": usage.system_seconds,
        "rss_bytes": float(usage.rss_bytes),
    }


def _say(replies: TextIO, **reply: object) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


if __name__ == "__main__":
    sys.exit(main())
