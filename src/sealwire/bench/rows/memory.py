"""`bench memory`: what a server holds for a peer, seen three ways.

The growth of the server's resident set over many peers, the ledger's own account of it, and, in a
process of its own because it costs memory itself, tracemalloc's.  The server is the asyncio one with
a task per connection; clients come from another process, each from an address of its own in 127/8.
Peers of earlier turns stay, so each turn's growth is new memory.

Idle: nobody sleeps; asleep: everybody does, and what is left is mostly the application's task and channel.
Half-open: the client's second hello was answered and nothing more came.  Unproved: one hello, no cookie
returned; nothing may be held for it.
"""

from __future__ import annotations

import asyncio
import enum
import gc
import itertools
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from socket import AF_INET, SOCK_DGRAM, socket
from typing import Any, Final

import sealwire
from sealwire import dtls
from sealwire.bench.clocks import rss_bytes
from sealwire.bench.measurement import (
    Bench,
    Body,
    Contender,
    Figure,
    Kind,
    Measurement,
    Peer,
    Promise,
    Reading,
    Role,
)
from sealwire.bench.rivals import openssl_memory, programs
from sealwire.bench.rows.handshake import FULL, contexts
from sealwire.context import Config
from sealwire.drive import aio
from sealwire.drive.machine import LimitsWarning

_SECONDS: Final = 20.0
_DATAGRAM_BYTES: Final = 1 << 16
_CONNECTIONS: Final = 1 << 20
_PROMISED = Promise(64 * 1024.0, "below 64 KB per connection")
_NOTHING = Promise(16.0, "nothing is held before an address is proved")


class State(enum.Enum):
    """How far a client goes."""

    UNPROVED = "unproved"
    HALF_OPEN = "half-open"
    IDLE = "idle"
    ASLEEP = "asleep"


class Server:
    """The Peer: an asyncio DTLS server that can say what it holds."""

    def __init__(self, bench: Bench, traced: bool, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._context, _ = contexts(bench.directory, FULL)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._traced = traced
        self._server: aio.DatagramServer | None = None

    @property
    def address(self) -> Mapping[str, Any]:
        if not self._ready.wait(10):
            raise OSError("the server did not start")
        assert self._server is not None
        return {"port": self._server.sockets[0].getsockname()[1]}

    def serve(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        async def wait_for_the_end(channel: aio.DatagramChannel) -> None:
            async for _ in channel:
                pass

        limits = sealwire.Limits(
            connections=_CONNECTIONS,
            handshakes=_CONNECTIONS,
            total_bytes=1 << 40,
            handshake_seconds=3600.0,
            idle_seconds=self._idle_seconds,
        )
        # What would not fit is not asked for: the clients are as many as the row says.
        warnings.simplefilter("ignore", LimitsWarning)
        async with await sealwire.start_datagram_server(
            wait_for_the_end, "127.0.0.1", 0, context=self._context, limits=limits
        ) as server:
            self._server = server
            self._ready.set()
            if self._traced:
                tracemalloc.start()
            await server.serve_forever()

    def answer(self, question: str) -> Mapping[str, float]:
        return asyncio.run_coroutine_threadsafe(self._count(), self._loop).result(_SECONDS)

    async def _count(self) -> Mapping[str, float]:
        # What a connection drops as it becomes idle is dropped a turn later.
        await asyncio.sleep(0.02)
        gc.collect()
        assert self._server is not None
        (endpoint,) = self._server.endpoints
        return {
            "ledger": float(endpoint.ledger.held),
            "traced": float(tracemalloc.get_traced_memory()[0]) if self._traced else 0.0,
            "idle": float(endpoint.counters.handshakes_completed),
            "connections": float(endpoint.connections),
            "asleep": float(sum(one.asleep for one in endpoint)),
        }


class Clients:
    """A Body: each turn, so many more peers; figures in bytes per peer."""

    def __init__(self, bench: Bench, state: State, traced: bool) -> None:
        _, context = contexts(bench.directory, FULL)
        self._bench = bench
        self._config: Config = context.config()
        self._state = state
        self._traced = traced
        self._server = ("127.0.0.1", bench.peer["port"])
        self._addresses = _addresses()
        # The first connections pay for what all share.
        for _ in range(50):
            self._one()

    def run(self, seconds: float) -> Reading:
        count = self._bench.scale.connections
        before = self._bench.ask_peer("memory")
        begin = time.perf_counter()
        for _ in range(count):
            self._one()
        wall = time.perf_counter() - begin
        after = self._bench.ask_peer("memory")
        end = time.perf_counter() + _SECONDS
        while self._state is State.ASLEEP and after["asleep"] < after["connections"]:
            if time.perf_counter() > end:
                raise OSError(f"of {after['connections']:.0f} peers {after['asleep']:.0f} sleep")
            time.sleep(0.2)
            after = self._bench.ask_peer("memory")
        held = after["connections"] - before["connections"]
        idle = after["idle"] - before["idle"]
        expected = {State.UNPROVED: (0, 0), State.HALF_OPEN: (count, 0), State.IDLE: (count, count)}
        expected[State.ASLEEP] = expected[State.IDLE]
        if (held, idle) != expected[self._state]:
            raise OSError(f"of {count} peers the server holds {held:.0f}, {idle:.0f} of them idle")
        per_peer = {name: (after[name] - before[name]) / count for name in ("rss_bytes", "ledger", "traced")}
        values = {"": per_peer["rss_bytes"], "ledger": per_peer["ledger"]}
        if self._traced:
            values = {"": per_peer["traced"]}
        cpu = after["cpu_seconds"] - before["cpu_seconds"]
        return Reading(
            values=values,
            units=count,
            wall_seconds=wall,
            cpu_seconds=cpu,
            rss_bytes=int(after["rss_bytes"]),
        )

    def _one(self) -> None:
        with socket(AF_INET, SOCK_DGRAM) as sock:
            sock.bind((next(self._addresses), 0))
            sock.settimeout(_SECONDS)
            sock.connect(self._server)
            client = dtls.Connection.client(self._config, now=0.0, server_name="localhost")

            def say() -> None:
                for datagram in client.transmit(0.0):
                    sock.send(datagram)

            say()
            # The retry with its cookie.
            client.receive(sock.recv(_DATAGRAM_BYTES), 0.0)
            if self._state is State.UNPROVED:
                return
            say()
            answer = sock.recv(_DATAGRAM_BYTES)
            if self._state is State.HALF_OPEN:
                return
            client.receive(answer, 0.0)
            while not client.was_connected:
                client.receive(sock.recv(_DATAGRAM_BYTES), 0.0)
            say()
            # The server's acknowledgement ends its handshake, too.
            client.receive(sock.recv(_DATAGRAM_BYTES), 0.0)

    def verify(self) -> None:
        pass  # each turn has counted the server's connections

    def close(self) -> None:
        pass


def _addresses() -> Iterator[str]:
    """Loopback addresses, each once."""
    for a, b, c in itertools.product(range(1, 255), repeat=3):
        yield f"127.{a}.{b}.{c}"


class Objects:
    """A Body: server objects of a rival, idle after a handshake in memory; the client's are freed.

    Its process holds nothing else, so the growth of the resident set is theirs.
    """

    def __init__(self, bench: Bench, pair: Callable[[], Any]) -> None:
        self._bench = bench
        self._pair = pair
        self._held: list[Any] = []
        for _ in range(50):
            self._one()

    def _one(self) -> None:
        pair = self._pair()
        pair.handshake()
        # Its BIOs belong to a connection over memory; one over a socket has none.
        self._held.append(pair.server)

    def run(self, seconds: float) -> Reading:
        count = self._bench.scale.connections
        gc.collect()
        before, begin = rss_bytes(), time.perf_counter()
        cpu = time.process_time()
        for _ in range(count):
            self._one()
        gc.collect()
        return Reading(
            values={"": (rss_bytes() - before) / count},
            units=count,
            wall_seconds=time.perf_counter() - begin,
            cpu_seconds=time.process_time() - cpu,
        )

    def verify(self) -> None:
        pass  # a handshake that fails raises

    def close(self) -> None:
        self._held.clear()


def _ssl_objects(bench: Bench) -> Body:
    server, client = openssl_memory.ssl_contexts(bench.directory)
    return Objects(bench, lambda: openssl_memory.SslPair(server, client))


def _dtls_objects(bench: Bench) -> Body:
    server, client = openssl_memory.dtls12_contexts(bench.directory)
    return Objects(bench, lambda: openssl_memory.DtlsPair(server, client))


def _contender(state: State, traced: bool) -> Contender:
    open_: Callable[[Bench], Body] = partial(Clients, state=state, traced=traced)
    # Asleep after a second, or never.
    idle_seconds = 1.0 if state is State.ASLEEP else float("inf")
    peer: Callable[[Bench], Peer] = partial(Server, traced=traced, idle_seconds=idle_seconds)
    return Contender("sealwire", Role.OURS, open_, peer=peer)


def _rows(state: State, title: str, promised: Promise, rivals: tuple[Contender, ...]) -> list[Measurement]:
    return [
        Measurement(
            f"memory.{state.value}",
            f"memory of a server, {title}",
            (
                Figure("", "B", Kind.MEMORY, "growth of the resident set", promised),
                Figure("ledger", "B", Kind.MEMORY, "the ledger's account"),
            ),
            (_contender(state, traced=False), *rivals),
        ),
        Measurement(
            f"memory.{state.value}-traced",
            f"memory of a server, {title}",
            (Figure("", "B", Kind.MEMORY, "tracemalloc's account"),),
            (_contender(state, traced=True),),
        ),
    ]


ROWS = (
    *_rows(State.UNPROVED, "per address that is not proved", _NOTHING, ()),
    *_rows(State.HALF_OPEN, "per half-open connection", _PROMISED, ()),
    *_rows(State.ASLEEP, "per idle connection that sleeps", _PROMISED, ()),
    *_rows(
        State.IDLE,
        "per idle connection",
        _PROMISED,
        (
            Contender(
                "pyOpenSSL, DTLS 1.2",
                Role.RIVAL,
                _dtls_objects,
                presence=openssl_memory.pyopenssl_presence,
            ),
            Contender(
                "Python ssl, TLS 1.3",
                Role.RIVAL,
                _ssl_objects,
                presence=openssl_memory.ssl_presence,
                environment=openssl_memory.ssl_environment,
            ),
            *programs.memory_contenders(500),
        ),
    ),
)
