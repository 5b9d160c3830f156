"""`bench changes`: messages while keys, connection ids and the path change; none may be lost.

Two asyncio drivers talk over loopback through a relay that loses nothing and holds back every fifth
datagram for up to a millisecond, so that others overtake it.  Numbered messages go up and come back as
fast as a pace says; meanwhile both sides get new keys, or ids, or the relay shows the client at another
port (what still goes to the old one arrives).  The figure is how many messages did not come back.

The same on a simulated link in virtual time, where a thousand changes take a moment.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Any, Final

import sealwire
from sealwire import dtls
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
from sealwire.bench.rows.handshake import FULL, LIMITS, Server, contexts
from sealwire.drive import aio
from sealwire.drive.udp import grow_receive_buffer
from sealwire.sim import EndpointPair, Link

_NAME: Final = "localhost"
_MESSAGE_BYTES: Final = 200
_HELD_BACK: Final = 0.2
_HOLD_SECONDS: Final = 0.001
_BYTES_A_SECOND: Final = 600_000.0
_BATCH: Final = 8
_FEW: Final = 2
_LEAST_SECONDS: Final = 0.5
_CHANGE_SECONDS: Final = 0.02
# What is late on a busy machine is not lost.
_SETTLE_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 10.0
KEYS: Final = "keys"
IDS: Final = "ids"
PATH: Final = "path"
KINDS: Final = (KEYS, IDS, PATH)


async def _echo(channel: aio.DatagramChannel) -> None:
    async for batch in channel.batches():
        await channel.send_many(batch)


def echoing(bench: Bench) -> Peer:
    """An asyncio server that sends back what comes."""
    return Server(bench, contexts(bench.directory, FULL)[0], _echo)


class Relay:
    """Between a client and a server: loses nothing, changes the order, and can change the client's port.

    Attributes:
        overtaken: datagrams that were held back.
    """

    def __init__(self, server_port: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._chance = random.Random(1)  # noqa: S311 - keeps no secrets
        self._server = ("127.0.0.1", server_port)
        self._client: Any = None
        self.overtaken = 0
        self._inside = self._open(self._up)
        self._outside = [self._open(self._down)]

    @property
    def port(self) -> int:
        port: int = self._inside.getsockname()[1]
        return port

    def _open(self, readable: Callable[[socket.socket], None]) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        grow_receive_buffer(sock)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        self._loop.add_reader(sock, readable, sock)
        return sock

    def _up(self, sock: socket.socket) -> None:
        while True:
            try:
                data, self._client = sock.recvfrom(65_535)
            except BlockingIOError:
                return
            self._pass_on(self._outside[-1], data, self._server)

    def _down(self, sock: socket.socket) -> None:
        while True:
            try:
                data = sock.recv(65_535)
            except BlockingIOError:
                return
            self._pass_on(self._inside, data, self._client)

    def _pass_on(self, sock: socket.socket, data: bytes, to: Any) -> None:
        if self._chance.random() < _HELD_BACK:
            self.overtaken += 1
            self._loop.call_later(self._chance.random() * _HOLD_SECONDS, self._give, sock, data, to)
        else:
            self._give(sock, data, to)

    def _give(self, sock: socket.socket, data: bytes, to: Any) -> None:
        # At the end the last farewell may still be held.
        if sock.fileno() >= 0:
            sock.sendto(data, to)

    def move(self) -> None:
        """Show the client at another port; what comes to the ones before is passed on as well."""
        self._outside.append(self._open(self._down))

    def close(self) -> None:
        for sock in (self._inside, *self._outside):
            self._loop.remove_reader(sock)
            sock.close()


class Sockets:
    """A Body: a client behind a relay."""

    def __init__(self, bench: Bench) -> None:
        _, self._context = contexts(bench.directory, FULL)
        self._bench = bench
        self._loop = asyncio.new_event_loop()

    def run(self, seconds: float) -> Reading:
        watch = self._bench.stopwatch
        watch.start()
        found = [
            self._loop.run_until_complete(self._turn(kind, max(seconds, _LEAST_SECONDS))) for kind in KINDS
        ]
        wall = watch.stop()
        return _reading(found, wall, watch.cpu_seconds)

    async def _turn(self, kind: str, seconds: float) -> _Outcome:
        relay = Relay(self._bench.peer["port"])
        outcome = _Outcome()
        missing: set[int] = set()
        try:
            async with sealwire.open_datagram_channel(
                "127.0.0.1",
                relay.port,
                context=self._context,
                server_hostname=_NAME,
                limits=LIMITS,
                connection_id=b"bench",
            ) as channel:
                taker = asyncio.create_task(_take(channel, missing))
                changer = asyncio.create_task(_change(channel, relay, kind, outcome))
                await _send(channel, missing, outcome, seconds)
                changer.cancel()
                await asyncio.wait([changer])
                if not changer.cancelled():
                    changer.result()  # what ended it
                for _ in range(int(_SETTLE_SECONDS / 0.01)):
                    if not missing:
                        break
                    await asyncio.sleep(0.01)
                taker.cancel()
                await asyncio.wait([taker])
                outcome.lost = len(missing)
                outcome.reordered = relay.overtaken
        finally:
            relay.close()
        return outcome

    def verify(self) -> None:
        pass  # what did not come back is the figure

    def close(self) -> None:
        self._loop.close()


class _Outcome:
    """What one turn of one kind of change came to."""

    def __init__(self) -> None:
        self.sent = self.lost = self.changes = self.reordered = 0


async def _send(channel: aio.DatagramChannel, missing: set[int], outcome: _Outcome, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    channel.pace(_BYTES_A_SECOND)
    end = loop.time() + seconds
    while loop.time() < end:
        numbers = range(outcome.sent, outcome.sent + _BATCH)
        missing.update(numbers)
        outcome.sent += _BATCH
        await channel.send_many([n.to_bytes(4, "big").ljust(_MESSAGE_BYTES, b".") for n in numbers])


async def _take(channel: aio.DatagramChannel, missing: set[int]) -> None:
    async for batch in channel.batches():
        missing.difference_update(int.from_bytes(message[:4], "big") for message in batch)


async def _change(channel: aio.DatagramChannel, relay: Relay, kind: str, outcome: _Outcome) -> None:
    while True:
        await asyncio.sleep(_CHANGE_SECONDS)
        if kind == KEYS:
            await channel.update_keys(request_peer=True)
            outcome.changes += 1
        elif kind == PATH:
            relay.move()
            outcome.changes += 1
        else:
            outcome.changes += _new_ids(channel.connection)


def _new_ids(connection: dtls.Connection) -> bool:
    """Give the peer an id to use at once, and go on under one that it gave; whether any of that could be."""
    changed = connection.rotate_connection_id()
    try:
        connection.request_connection_ids(1)
    except sealwire.Error:
        pass  # the last one is not answered yet
    try:
        connection.offer_connection_ids(1, immediate=True)
    except sealwire.Error:
        return changed
    return True


class _HomeLink(Link):
    """Whatever address a datagram was sent to, it arrives where the client is now: nothing is lost."""

    at: tuple[str, int]

    def arrivals(self, now: float) -> list[tuple[bytes, tuple[Any, ...]]]:
        """As any link's, with another address."""
        return [(datagram, self.at) for datagram, _ in super().arrivals(now)]


class Simulated:
    """A Body: the same engines on a simulated link, in virtual time."""

    def __init__(self, bench: Bench) -> None:
        server, client = contexts(bench.directory, FULL)
        self._server, self._client = server.config(), client.config()
        self._bench = bench
        self._seed = 0

    def run(self, seconds: float) -> Reading:
        watch = self._bench.stopwatch
        watch.start()
        found = [self._turn(kind, max(seconds, _LEAST_SECONDS)) for kind in KINDS]
        wall = watch.stop()
        return _reading(found, wall, watch.cpu_seconds)

    def _turn(self, kind: str, seconds: float) -> _Outcome:
        self._seed += 1
        conditions: Any = {"delay": 0.0005, "reorder": _HELD_BACK, "hold": _HOLD_SECONDS}
        endpoint = dtls.Endpoint(lambda: self._server, limits=LIMITS)
        forward = Link(f"{self._seed} forward", **conditions)
        backward = _HomeLink(f"{self._seed} backward", **conditions)
        pair = EndpointPair(endpoint, forward, backward)
        outcome = _Outcome()
        at = backward.at = ("192.0.2.1", 10_000)
        client = dtls.Connection.client(self._client, now=0.0, server_name=_NAME, connection_id=b"bench")
        pair.add(client, at)

        def connected() -> bool:
            served = pair.served.get(at)
            return client.state is dtls.State.CONNECTED and served is not None and served.was_connected

        if not pair.run_until(connected, _PATIENCE_SECONDS):
            raise OSError("the simulated handshake did not finish")
        pair.run_for(2.0)  # ids in reserve are asked for after a second
        server = pair.served[at]
        missing_up: set[bytes] = set()
        missing_down: set[bytes] = set()
        end, due = pair.now + seconds, pair.now

        def take() -> None:
            missing_up.difference_update(server.messages())
            for messages in pair.client_messages.values():
                missing_down.difference_update(messages)
                messages.clear()

        while pair.now < end:
            for direction, missing, connection in (
                (b"up", missing_up, client),
                (b"down", missing_down, server),
            ):
                messages = [b"%b %d" % (direction, outcome.sent + n) for n in range(_FEW)]
                missing.update(messages)
                connection.send_many(messages)
            outcome.sent += _FEW
            pair.touch(at)
            if pair.now >= due:
                due = pair.now + _CHANGE_SECONDS / 4
                if kind == KEYS:
                    if client.next_sending_epoch == client.sending_epoch:
                        client.update_keys(pair.now, request_peer=True)
                        outcome.changes += 1
                elif kind == IDS:
                    outcome.changes += _new_ids(client)
                else:
                    before, at = at, (at[0], at[1] + 1)
                    pair.rebind(before, at)
                    backward.at = at
                    outcome.changes += 1
                pair.touch(at)
            pair.run_for(_HOLD_SECONDS / 4)
            take()
        pair.run_for(1.0)
        take()
        outcome.lost = len(missing_up) + len(missing_down)
        outcome.sent *= 2
        outcome.reordered = forward.counters.reordered + backward.counters.reordered
        if server.error is not None or client.error is not None:
            raise OSError(f"the connection ended: {server.error or client.error}")
        return outcome

    def verify(self) -> None:
        pass  # what did not arrive is the figure

    def close(self) -> None:
        pass


def _reading(found: list[_Outcome], wall: float, cpu: float) -> Reading:
    by_kind = dict(zip(KINDS, found, strict=True))
    changes = sum(one.changes for one in found)
    reordered = sum(one.reordered for one in found)
    return Reading(
        values={
            "": float(sum(one.lost for one in found)),
            **{kind: float(one.lost) for kind, one in by_kind.items()},
            "changes": float(changes),
            "messages": float(sum(one.sent for one in found)),
        },
        units=sum(one.sent for one in found),
        wall_seconds=wall,
        cpu_seconds=cpu,
        checks=(
            Check(
                "changes",
                all(one.changes for one in found),
                ", ".join(f"{one.changes} of {kind}" for kind, one in by_kind.items()),
            ),
            Check("reordering", reordered > 0, f"{reordered} datagrams were overtaken"),
        ),
    )


def _row(
    name: str, title: str, open_: Callable[[Bench], Body], peer: Callable[[Bench], Peer] | None
) -> Measurement:
    return Measurement(
        f"changes.{name}",
        title,
        (
            Figure("", "messages", Kind.LOSS, "lost", Promise(0.0, "none")),
            Figure(KEYS, "messages", Kind.LOSS, "lost while keys changed (KeyUpdate, both ways)"),
            Figure(IDS, "messages", Kind.LOSS, "lost while connection ids changed"),
            Figure(PATH, "messages", Kind.LOSS, "lost while the client's port changed"),
            Figure("changes", "changes", Kind.RATE, "made in a turn"),
            Figure("messages", "messages", Kind.RATE, "sent in a turn"),
        ),
        (Contender("sealwire", Role.OURS, open_, peer=peer, patience_seconds=120.0),),
    )


ROWS: Final = (
    _row("sockets", "changes under load over loopback, a fifth of the datagrams overtaken", Sockets, echoing),
    _row("simulated", "the same on a simulated link", Simulated, None),
)
