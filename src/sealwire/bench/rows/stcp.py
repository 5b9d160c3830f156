"""`bench stcp.*`: the grid of requests and answers in a short form: STCP, plain TCP and Python's ssl.

Server and clients are a process each, on a CPU each, on asyncio's loop; see :mod:`sealwire.bench.grid` for
the method and `sealwire bench stcp` for the long form, with uvloop, threads, churn and endurance.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

from sealwire.bench.closed_loop import little
from sealwire.bench.grid import GRID, Cell
from sealwire.bench.grid.clients import Clients, Load
from sealwire.bench.grid.serving import Server
from sealwire.bench.grid.tally import Tally
from sealwire.bench.grid.transports import TRANSPORTS
from sealwire.bench.measurement import (
    Bench,
    Body,
    Check,
    Contender,
    Figure,
    Kind,
    Measurement,
    Peer,
    Promise,
    Reading,
    Role,
)
from sealwire.bench.processes import even_allocation
from sealwire.bench.rivals import evp_loop
from sealwire.bench.rivals.openssl_memory import ssl_environment, ssl_presence

_HOST: Final = "127.0.0.1"
# A turn needs some round trips of every client, however slow.
_LEAST_SECONDS: Final = 0.2
# Beyond this share of its CPU a process is the limit.
_SATURATED: Final = 0.95
# Where crypto is a large enough part of the work to be told from the noise of two processes.
_SABOTAGED: Final = (GRID[-2].size, GRID[-1].size)


class EchoServer:
    """The Peer: sends each message back."""

    def __init__(self, bench: Bench, transport: str) -> None:
        self._server = Server(TRANSPORTS[transport](bench), _HOST, 0)
        self._ready = threading.Event()

    @property
    def address(self) -> Mapping[str, Any]:
        if not self._ready.wait(10):
            raise OSError("the server did not start")
        return {"port": self._server.port}

    def serve(self) -> None:
        asyncio.run(self._server.run(self._ready.set))

    def answer(self, question: str) -> Mapping[str, float]:
        return {"failures": float(self._server.failures)}


class Asking:
    """A Body: `clients` connections with one request in flight each."""

    def __init__(self, bench: Bench, transport: str, cell: Cell) -> None:
        self._bench = bench
        self._cell = cell
        self._loop = asyncio.new_event_loop()
        load = Load(cell.clients, cell.size)
        self._clients = Clients(TRANSPORTS[transport](bench), load, _HOST, bench.peer["port"])
        self._run(self._clients.open())
        self._errors = 0

    def _run(self, task: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(task)

    def run(self, seconds: float) -> Reading:
        watch, tally = self._bench.stopwatch, Tally()
        before = self._bench.ask_peer("cpu")["cpu_seconds"]
        watch.start()
        wall = self._run(self._clients.run(max(seconds, _LEAST_SECONDS), tally))
        watch.stop()
        answer = self._bench.ask_peer("cpu")
        server = answer["cpu_seconds"] - before
        self._errors += tally.errors.total() + int(answer["failures"])
        latencies, cell = tally.latencies, self._cell
        rate = latencies.count / wall
        ordered = latencies.quantiles()
        busy = watch.cpu_seconds / wall
        return Reading(
            values={
                "": rate,
                "one-way": cell.size * rate / 1e6,
                "two-way": 2 * cell.size * rate / 1e6,
                "p50": ordered["50"],
                "p99": ordered["99"],
                "cpu": (watch.cpu_seconds + server) / latencies.count * 1e6,
            },
            units=latencies.count,
            wall_seconds=wall,
            cpu_seconds=watch.cpu_seconds + server,
            quantiles=ordered,
            checks=(
                little(rate, latencies.mean, cell.clients),
                Check(
                    "generator",
                    True,
                    f"the clients' process was busy {busy:.0%} of the time, the server's {server / wall:.0%}"
                    + ("; the clients set the rate" if busy > max(_SATURATED, server / wall) else ""),
                ),
            ),
        )

    def verify(self) -> None:
        if self._errors:
            raise ValueError(f"{self._errors} requests had no right answer")

    def close(self) -> None:
        self._run(self._clients.close())
        self._loop.close()


def _ssl_environment() -> dict[str, str]:
    return {**ssl_environment(), **even_allocation()}


def _row(cell: Cell) -> Measurement:
    def contender(name: str, role: Role, transport: str) -> Contender:
        open_: Callable[[Bench], Body] = partial(Asking, transport=transport, cell=cell)
        peer: Callable[[Bench], Peer] = partial(EchoServer, transport=transport)
        if transport == "ssl":
            return Contender(name, role, open_, peer, ssl_presence, _ssl_environment)
        return Contender(name, role, open_, peer=peer, environment=even_allocation)

    contenders = [
        contender("sealwire", Role.OURS, "stcp"),
        contender("plain TCP, asyncio", Role.RIVAL, "tcp"),
        contender("Python ssl, asyncio", Role.RIVAL, "ssl"),
    ]
    if cell.size in _SABOTAGED:
        alone: Callable[[Bench], Body] = partial(evp_loop.request, size=cell.size)
        contenders += [
            contender("sealwire without crypto", Role.WITHOUT_CRYPTO, "stcp"),
            Contender("the crypto alone", Role.CRYPTO_ALONE, alone, presence=evp_loop.presence),
        ]
    promised = f"{cell.rate:,.0f} requests a second from {cell.clients} clients"
    return Measurement(
        f"stcp.{cell.size}",
        f"STCP, {cell.size:,} B and back, {cell.clients} clients",
        (
            Figure("", "1/s", Kind.RATE, "requests answered", Promise(cell.rate, promised)),
            Figure("one-way", "MB/s", Kind.RATE, "payload, one way"),
            Figure("two-way", "MB/s", Kind.RATE, "payload, both ways counted"),
            Figure("p50", "ms", Kind.TIME, "median latency"),
            Figure("p99", "ms", Kind.TIME, "99th percentile", Promise(cell.p99, f"p99 below {cell.p99} ms")),
            Figure("cpu", "us", Kind.TIME, "CPU of both sides per request"),
        ),
        tuple(contenders),
        crypto_figure="cpu",
    )


ROWS: Final = tuple(_row(cell) for cell in GRID)
