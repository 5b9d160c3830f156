"""`bench handshake.rate`: how many handshakes two CPUs make in a second, full and resumed.

A server on one CPU and a client on the other, both asyncio, sixteen handshakes in flight, so that
neither side waits for the other for long; each is opened, cookie exchange included, and closed
again with its alerts.  By Little's law, rate times mean time from opening to closed is sixteen.

Resumed handshakes use one ticket over and over (psk_dhe_ke) and ask for no new one.  They take the cookie's
round trip, as full ones do: a ticket shows an address with early data alone.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import sealwire
from sealwire.bench.clocks import quantiles
from sealwire.bench.closed_loop import little
from sealwire.bench.crypto_replay import Replay
from sealwire.bench.loops import Loop
from sealwire.bench.measurement import Bench, Body, Contender, Figure, Kind, Measurement, Peer, Reading, Role
from sealwire.bench.rows.handshake import FULL, Server, contexts, without_crypto
from sealwire.context.sessions import Place, SessionStore, Ticket
from sealwire.drive.aio.client import Opening

_AT_ONCE: Final = 16
_NAME: Final = "localhost"
_SECONDS: Final = 20.0
RESUMED: Final = "resumed"


class OneTicket(SessionStore):
    """Gives the same ticket again and again, as no client of an application should."""

    __slots__ = ("_ticket",)

    def __init__(self) -> None:
        super().__init__()
        self._ticket: bytes | None = None

    def put(self, place: Place, ticket: Ticket) -> bool:
        self._ticket = self._ticket or ticket.encode()
        return True

    def take(self, place: Place, now: float) -> bytes | None:
        return self._ticket


def _contexts(bench: Bench, variant: str) -> tuple[sealwire.Context, sealwire.Context]:
    server, client = contexts(bench.directory, FULL)
    if variant == RESUMED:
        server.num_tickets = 1
        client.session_store = OneTicket()
        client.ticket_request = (1, 0)
    return server, client


class Client:
    """A Body: sixteen handshakes in flight until there were enough."""

    def __init__(self, bench: Bench, variant: str) -> None:
        _, self._context = _contexts(bench, variant)
        without_crypto(bench, self._context)
        self._bench = bench
        self._resumed = variant == RESUMED
        self._loop = asyncio.new_event_loop()
        if self._resumed:
            self._loop.run_until_complete(self._fetch_ticket())

    async def _fetch_ticket(self) -> None:
        store = self._context.session_store
        assert isinstance(store, OneTicket)
        async with self._channel():
            for _ in range(200):
                if store._ticket is not None:
                    return
                await asyncio.sleep(0.01)
        raise OSError("the server gave no ticket")

    def _channel(self) -> Opening:
        port = self._bench.peer["port"]
        return sealwire.open_datagram_channel(
            "127.0.0.1", port, context=self._context, server_hostname=_NAME, timeout=_SECONDS
        )

    def run(self, seconds: float) -> Reading:
        gc.collect()
        watch, count = self._bench.stopwatch, self._bench.scale.handshakes * 4
        before = self._bench.ask_peer("cpu")["cpu_seconds"]
        watch.start()
        latencies, whole = self._loop.run_until_complete(self._handshakes(count))
        wall = watch.stop()
        server = self._bench.ask_peer("cpu")["cpu_seconds"] - before
        ordered = quantiles([1e3 * latency for latency in latencies])
        rate = count / wall
        return Reading(
            values={
                "": rate,
                "p50": ordered["50"],
                "p99": ordered["99"],
                "cpu": (watch.cpu_seconds + server) / count * 1e6,
                "client": watch.cpu_seconds / count * 1e6,
                "server": server / count * 1e6,
            },
            units=count,
            wall_seconds=wall,
            cpu_seconds=watch.cpu_seconds + server,
            quantiles=ordered,
            checks=(little(rate, sum(whole) / count, _AT_ONCE),),
        )

    async def _handshakes(self, count: int) -> tuple[list[float], list[float]]:
        """Seconds until connected, and until closed again, of `count` handshakes."""
        left = iter(range(count))
        connected: list[float] = []
        closed: list[float] = []

        async def one_after_another() -> None:
            for _ in left:
                start = time.perf_counter()
                async with self._channel() as channel:
                    connected.append(time.perf_counter() - start)
                    if channel.session_reused is not self._resumed:
                        raise ValueError("the handshake was resumed, or was not, against the name of the row")
                closed.append(time.perf_counter() - start)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(one_after_another())
        return connected, closed

    def verify(self) -> None:
        pass  # a handshake that fails raises

    def close(self) -> None:
        self._loop.close()


def _alone(bench: Bench, variant: str) -> Body:
    server, client = _contexts(bench, variant)
    return Loop(bench, Replay(server.config(), client.config(), resumed=variant == RESUMED), figure="cpu")


def _row(variant: str, title: str) -> Measurement:
    open_: Callable[[Bench], Body] = partial(Client, variant=variant)

    def peer(bench: Bench) -> Peer:
        return Server(bench, _contexts(bench, variant)[0])

    return Measurement(
        f"handshake.rate.{variant}",
        f"{title} over loopback UDP, {_AT_ONCE} in flight, client and server on a CPU each",
        (
            Figure("", "1/s", Kind.RATE, "opened and closed in a second"),
            Figure("p50", "ms", Kind.TIME, "median time to connect"),
            Figure("p99", "ms", Kind.TIME, "99th percentile of it"),
            Figure("cpu", "us", Kind.TIME, "CPU of both sides"),
            Figure("client", "us", Kind.TIME, "CPU of the client"),
            Figure("server", "us", Kind.TIME, "CPU of the server"),
        ),
        (
            Contender("sealwire", Role.OURS, open_, peer=peer),
            Contender("sealwire without crypto", Role.WITHOUT_CRYPTO, open_, peer=peer),
            Contender("the crypto alone", Role.CRYPTO_ALONE, partial(_alone, variant=variant)),
        ),
        crypto_figure="cpu",
    )


ROWS = (_row(FULL, "full handshakes"), _row(RESUMED, "resumed handshakes"))
