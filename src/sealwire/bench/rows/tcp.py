"""`bench tcp`: plain TCP from Python, request and response, beside Python's ssl.

asyncio streams on both sides, a fixed number of clients each with one request in flight, answers
compared with what was sent; requests are framed by a four-byte length.  MB/s are counted both ways
(request and answer), and said so.  Rate times mean latency must be the number of clients.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

from sealwire.bench.clocks import quantiles
from sealwire.bench.closed_loop import little
from sealwire.bench.measurement import (
    Bench,
    Body,
    Check,
    Contender,
    Figure,
    Kind,
    Measurement,
    Peer,
    Reading,
    Role,
)
from sealwire.bench.rivals.openssl_memory import ssl_contexts, ssl_environment, ssl_presence

#: Payload bytes and clients of each row.
GRID: Final = ((256, 50), (4096, 20), (16384, 10), (65536, 5))
_LENGTH: Final = struct.Struct(">I")
# A turn needs some round trips of every client, however slow.
_LEAST_SECONDS: Final = 0.3
# Beyond this share of its CPU the generator, not the server, sets the rate.
_SATURATED: Final = 0.95


class EchoServer:
    """The Peer: sends each framed message back."""

    def __init__(self, bench: Bench, secured: bool) -> None:
        self._context: ssl.SSLContext | None = ssl_contexts(bench.directory)[0] if secured else None
        self._ready = threading.Event()
        self._port = 0

    @property
    def address(self) -> Mapping[str, Any]:
        if not self._ready.wait(10):
            raise OSError("the server did not start")
        return {"port": self._port}

    def serve(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    header = await reader.readexactly(_LENGTH.size)
                    writer.write(header + await reader.readexactly(_LENGTH.unpack(header)[0]))
                    await writer.drain()
            except (asyncio.IncompleteReadError, OSError):
                writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=self._context)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    def answer(self, question: str) -> Mapping[str, float]:
        return {}


class Clients:
    """A Body: `clients` connections with one request in flight each."""

    def __init__(self, bench: Bench, secured: bool, size: int, clients: int) -> None:
        self._bench = bench
        self._loop = asyncio.new_event_loop()
        self._payloads = [bytes((n + 1 & 0xFF,)) * size for n in range(clients)]
        context = ssl_contexts(bench.directory)[1] if secured else None
        self._streams = self._run(self._connect(clients, context))
        self._errors = 0

    def _run(self, task: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(task)

    async def _connect(
        self, clients: int, context: ssl.SSLContext | None
    ) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        return [
            await asyncio.open_connection(
                "127.0.0.1",
                self._bench.peer["port"],
                ssl=context,
                server_hostname="localhost" if context else None,
            )
            for _ in range(clients)
        ]

    def run(self, seconds: float) -> Reading:
        watch = self._bench.stopwatch
        before = self._bench.ask_peer("cpu")["cpu_seconds"]
        latencies: list[float] = []
        watch.start()
        begin = time.perf_counter()
        self._run(self._turn(begin + max(seconds, _LEAST_SECONDS), latencies))
        wall = time.perf_counter() - begin
        watch.stop()
        server = self._bench.ask_peer("cpu")["cpu_seconds"] - before
        count = len(latencies)
        size, clients = len(self._payloads[0]), len(self._streams)
        rate = count / wall
        ordered = quantiles([1e3 * latency for latency in latencies])
        busy = watch.cpu_seconds / wall
        return Reading(
            values={
                "": rate,
                "two-way": 2 * size * rate / 1e6,
                "p50": ordered["50"],
                "p99": ordered["99"],
                "cpu": (watch.cpu_seconds + server) / count * 1e6,
            },
            units=count,
            wall_seconds=wall,
            cpu_seconds=watch.cpu_seconds + server,
            quantiles=ordered,
            checks=(
                little(rate, sum(latencies) / count, clients),
                Check(
                    "generator",
                    True,
                    f"the clients' process was busy {busy:.0%} of the time, the server's {server / wall:.0%}"
                    + ("; the clients set the rate" if busy > max(_SATURATED, server / wall) else ""),
                ),
            ),
        )

    async def _turn(self, end: float, latencies: list[float]) -> None:
        async def client(n: int) -> None:
            reader, writer = self._streams[n]
            payload = self._payloads[n]
            request = _LENGTH.pack(len(payload)) + payload
            now = time.perf_counter()
            while now < end:
                writer.write(request)
                await writer.drain()
                if await reader.readexactly(len(request)) != request:
                    self._errors += 1
                after = time.perf_counter()
                latencies.append(after - now)
                now = after

        await asyncio.gather(*(client(n) for n in range(len(self._streams))))

    def verify(self) -> None:
        if self._errors:
            raise ValueError(f"{self._errors} answers differ from their requests")

    def close(self) -> None:
        for _, writer in self._streams:
            writer.close()
        self._loop.close()


def _row(size: int, clients: int) -> Measurement:
    def contender(name: str, role: Role, secured: bool) -> Contender:
        open_: Callable[[Bench], Body] = partial(Clients, secured=secured, size=size, clients=clients)
        peer: Callable[[Bench], Peer] = partial(EchoServer, secured=secured)
        if not secured:
            return Contender(name, role, open_, peer=peer)
        return Contender(name, role, open_, peer, ssl_presence, ssl_environment)

    return Measurement(
        f"tcp.echo.{size}",
        f"plain TCP, asyncio streams, {size:,} B and back, {clients} clients",
        (
            Figure("", "1/s", Kind.RATE, "requests answered"),
            Figure("two-way", "MB/s", Kind.RATE, "payload, both ways counted"),
            Figure("p50", "ms", Kind.TIME, "median latency"),
            Figure("p99", "ms", Kind.TIME, "99th percentile of latency"),
            Figure("cpu", "us", Kind.TIME, "CPU of both sides per request"),
        ),
        (
            contender("plain TCP", Role.OURS, secured=False),
            contender("Python ssl, asyncio", Role.RIVAL, secured=True),
        ),
    )


ROWS = tuple(_row(size, clients) for size, clients in GRID)
