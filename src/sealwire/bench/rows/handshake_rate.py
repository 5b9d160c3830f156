"""`bench handshake.rate` and `handshake.server`: how many handshakes two CPUs make, full and resumed.

A server (asyncio) on one CPU and clients on the other, sixteen handshakes in flight, so that neither side
waits for the other for long; each is opened and closed again with its alerts.  By Little's law, rate times
mean time from opening to closed is sixteen.  Full ones take the cookie's round trip; resumed ones
(psk_dhe_ke) show where they are by their tickets, each used once, as `Context.tickets_as_proof` lets them,
and ask for no new ones; "resumed.cookie" are those of a server that does not let them.

In `handshake.rate` the clients are asyncio channels, and the dearer side, which is theirs, sets the rate.  In
`handshake.server` they are bare engines on sockets, without an event loop, so that the server is what is
measured; the figure "busy" says what part of its CPU it had.
"""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import sealwire
from sealwire import dtls
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
_READ_BYTES: Final = 1 << 16
RESUMED: Final = "resumed"
RESUMED_COOKIE: Final = "resumed.cookie"
# What a server gives at most, so that few handshakes bring many.
_TICKETS: Final = 8


class Purse(SessionStore):
    """Tickets to come back with, each once, the oldest first; no application keeps so many."""

    __slots__ = ("open", "tickets")

    def __init__(self) -> None:
        super().__init__()
        self.tickets: list[bytes] = []
        # While it is filled none is taken, so that each handshake brings new ones.
        self.open = False

    def put(self, place: Place, ticket: Ticket) -> bool:
        self.tickets.append(ticket.encode())
        return True

    def take(self, place: Place, now: float) -> bytes | None:
        return self.tickets.pop() if self.open else None


def _contexts(bench: Bench, variant: str) -> tuple[sealwire.Context, sealwire.Context]:
    server, client = contexts(bench.directory, FULL)
    if variant != FULL:
        server.num_tickets = _TICKETS
        server.tickets_as_proof = variant == RESUMED
        client.session_store = Purse()
        client.ticket_request = (_TICKETS, 0)
    return server, client


#: When connected and when closed again, in seconds from each one's beginning.
_Times = tuple[list[float], list[float]]


class Client:
    """A Body: sixteen handshakes in flight until there were enough."""

    def __init__(self, bench: Bench, variant: str, driven: Callable[[Client, int], _Times]) -> None:
        _, self._context = _contexts(bench, variant)
        without_crypto(bench, self._context)
        self._bench = bench
        self.resumed = variant != FULL
        self._driven = driven
        self._loop = asyncio.new_event_loop()

    @property
    def port(self) -> int:
        port: int = self._bench.peer["port"]
        return port

    @property
    def purse(self) -> Purse:
        store = self._context.session_store
        assert isinstance(store, Purse)
        return store

    def engine(self, now: float) -> dtls.Connection:
        """A client's next connection."""
        ticket = dtls.SessionTicket.decode(self.purse.tickets.pop()) if self.resumed else None
        return dtls.Connection.client(self._context.config(), now=now, server_name=_NAME, ticket=ticket)

    async def _fill(self, count: int) -> None:
        """Have `count` tickets, off the clock."""
        purse = self.purse
        purse.open = False
        while len(purse.tickets) < count:
            before = len(purse.tickets)
            async with self._channel():
                for _ in range(1000):
                    if len(purse.tickets) >= before + _TICKETS:
                        break
                    await asyncio.sleep(0.001)
                else:
                    raise OSError("the server gave no tickets")
        purse.open = True

    def _channel(self) -> Opening:
        return sealwire.open_datagram_channel(
            "127.0.0.1", self.port, context=self._context, server_hostname=_NAME, timeout=_SECONDS
        )

    def run(self, seconds: float) -> Reading:
        watch, count = self._bench.stopwatch, self._bench.scale.handshakes * 4
        if self.resumed:
            self._loop.run_until_complete(self._fill(count))
        gc.collect()
        before = self._bench.ask_peer("cpu")["cpu_seconds"]
        watch.start()
        connected, closed = self._driven(self, count)
        wall = watch.stop()
        server = self._bench.ask_peer("cpu")["cpu_seconds"] - before
        ordered = quantiles([1e3 * latency for latency in connected])
        rate = count / wall
        return Reading(
            values={
                "": rate,
                "p50": ordered["50"],
                "p99": ordered["99"],
                "cpu": (watch.cpu_seconds + server) / count * 1e6,
                "client": watch.cpu_seconds / count * 1e6,
                "server": server / count * 1e6,
                "busy": 100 * server / wall,
            },
            units=count,
            wall_seconds=wall,
            cpu_seconds=watch.cpu_seconds + server,
            quantiles=ordered,
            checks=(little(rate, sum(closed) / count, _AT_ONCE),),
        )

    def channels(self, count: int) -> _Times:
        """`count` handshakes of asyncio channels."""
        return self._loop.run_until_complete(self._channels(count))

    async def _channels(self, count: int) -> _Times:
        left = iter(range(count))
        connected: list[float] = []
        closed: list[float] = []

        async def one_after_another() -> None:
            for _ in left:
                start = time.perf_counter()
                async with self._channel() as channel:
                    connected.append(time.perf_counter() - start)
                    self.check(channel.session_reused)
                closed.append(time.perf_counter() - start)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(one_after_another())
        return connected, closed

    def check(self, resumed: bool) -> None:
        if resumed is not self.resumed:
            raise ValueError("the handshake was resumed, or was not, against the name of the row")

    def verify(self) -> None:
        pass  # a handshake that fails raises

    def close(self) -> None:
        self._loop.close()


class _Engine:
    """One connection of a client on a socket of its own."""

    __slots__ = ("began", "connection", "sock")

    def __init__(self, client: Client) -> None:
        self.began = time.perf_counter()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect(("127.0.0.1", client.port))
        self.connection = client.engine(self.began)
        self.send(self.began)

    def send(self, now: float) -> None:
        for datagram in self.connection.transmit(now):
            self.sock.send(datagram)

    def receive(self, now: float) -> bool:
        """Take what came; whether the connection stands."""
        self.connection.receive(self.sock.recv(_READ_BYTES), now)
        self.send(now)
        if self.connection.error is not None:
            raise self.connection.error
        return self.connection.state is dtls.State.CONNECTED


def engines(client: Client, count: int) -> _Times:
    """`count` handshakes of bare engines, sixteen at a time."""
    epoll = select.epoll()
    flying: dict[int, _Engine] = {}
    connected: list[float] = []
    closed: list[float] = []
    left = count

    def begin() -> None:
        one = _Engine(client)
        flying[one.sock.fileno()] = one
        epoll.register(one.sock.fileno(), select.EPOLLIN)

    try:
        for _ in range(min(_AT_ONCE, left)):
            begin()
            left -= 1
        while flying:
            ready = epoll.poll(_SECONDS)
            if not ready:
                raise TimeoutError("the server does not answer")
            for descriptor, _ in ready:
                one, now = flying[descriptor], time.perf_counter()
                if not one.receive(now):
                    continue
                connected.append(now - one.began)
                client.check(one.connection.session.resumed)
                one.connection.close(now)
                one.send(now)
                del flying[descriptor]
                one.sock.close()
                closed.append(time.perf_counter() - one.began)
                if left:
                    begin()
                    left -= 1
    finally:
        for one in flying.values():
            one.connection.abort()
            one.sock.close()
        epoll.close()
    return connected, closed


def _alone(bench: Bench, variant: str) -> Body:
    server, client = _contexts(bench, variant)
    return Loop(bench, Replay(server.config(), client.config(), resumed=variant != FULL), figure="cpu")


def _row(name: str, variant: str, title: str, driven: Callable[[Client, int], _Times]) -> Measurement:
    open_: Callable[[Bench], Body] = partial(Client, variant=variant, driven=driven)

    def peer(bench: Bench) -> Peer:
        return Server(bench, _contexts(bench, variant)[0])

    return Measurement(
        name,
        f"{title}, {_AT_ONCE} in flight, client and server on a CPU each",
        (
            Figure("", "1/s", Kind.RATE, "opened and closed in a second"),
            Figure("p50", "ms", Kind.TIME, "median time to connect"),
            Figure("p99", "ms", Kind.TIME, "99th percentile of it"),
            Figure("cpu", "us", Kind.TIME, "CPU of both sides"),
            Figure("client", "us", Kind.TIME, "CPU of the client"),
            Figure("server", "us", Kind.TIME, "CPU of the server"),
            Figure("busy", "%", Kind.RATE, "of a CPU the server had"),
        ),
        (
            Contender("sealwire", Role.OURS, open_, peer=peer),
            Contender("sealwire without crypto", Role.WITHOUT_CRYPTO, open_, peer=peer),
            Contender("the crypto alone", Role.CRYPTO_ALONE, partial(_alone, variant=variant)),
        ),
        crypto_figure="cpu",
    )


ROWS = (
    _row("handshake.rate.full", FULL, "full handshakes over loopback UDP", Client.channels),
    _row("handshake.rate.resumed", RESUMED, "resumed handshakes over loopback UDP", Client.channels),
    _row(
        "handshake.rate.resumed.cookie",
        RESUMED_COOKIE,
        "resumed handshakes over loopback UDP with cookie",
        Client.channels,
    ),
    _row("handshake.server.full", FULL, "a server's full handshakes, bare clients", engines),
    _row("handshake.server.resumed", RESUMED, "a server's resumed handshakes, bare clients", engines),
)
