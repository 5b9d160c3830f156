"""Connections that come and go: nothing of them is left, however many there were.

SEALWIRE_CHURN connections on virtual time (a million unless set), each resumed from the one before;
SEALWIRE_SOCKET_CHURN over real sockets with each driver (a hundred thousand unless set).
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from dataclasses import replace

import pytest

import sealwire
from sealwire import dtls
from sealwire.drive import DatagramChannel
from sealwire.limits import Pressure
from sealwire.testing import assert_no_leaks
from tests import configs
from tests.limits.held import resident
from tests.unit.drive.harness import descriptors

# What interpreter and allocator may keep, whatever the number of connections.
_SLACK_OBJECTS = 2_000
_SLACK_BYTES = 16 * 1024 * 1024


class Churn:
    """One endpoint, and a client after the other."""

    def __init__(self) -> None:
        server = replace(configs.server_context().config(), num_tickets=1)
        self.config = replace(configs.client_context().config(), num_tickets=1)
        self.endpoint = dtls.Endpoint(lambda: server)
        self.now = 0.0
        self.ticket: dtls.SessionTicket | None = None
        self.resumed = 0

    def one(self, port: int) -> None:
        """Come, say something, go."""
        self.now += 1.0
        self.endpoint.wake(self.now)
        at = ("192.0.2.1", 1024 + port % 60_000)
        client = dtls.Connection.client(
            self.config, now=self.now, server_name="localhost", ticket=self.ticket
        )
        self.ticket = None
        heard: list[bytes] = []
        client.send(b"hello")
        while self.ticket is None or not heard:
            self._exchange(client, at)
            for event in client.events():
                if isinstance(event, dtls.TicketReceived):
                    self.ticket = event.ticket
            for one in self.endpoint:
                heard += one.messages()
        assert heard == [b"hello"]
        self.resumed += client.session.resumed
        client.close(self.now)
        self._exchange(client, at)
        for one in list(self.endpoint):
            one.close(self.now)
        self._exchange(client, at)
        assert client.state is dtls.State.CLOSED
        assert self.endpoint.connections == 0

    def _exchange(self, client: dtls.Connection, at: tuple[str, int]) -> None:
        up = client.transmit(self.now)
        self.endpoint.receive([(one, at) for one in up], self.now)
        down = self.endpoint.transmit(self.now)
        for datagram, _ in down:
            client.receive(datagram, self.now)
        self.endpoint.events()
        assert up or down, "nobody has anything to say"


def churn(n: int) -> None:
    work = Churn()
    for k in range(200):
        work.one(k)
    gc.collect()
    objects, rss = len(gc.get_objects()), resident()
    for k in range(n):
        work.one(k)
        if k % 100_000 == 99_999:
            # A long run says how far it is, under pytest -s.
            print(f"{k + 1:,} connections, {resident() - rss:,} bytes more than at first", flush=True)
    gc.collect()
    endpoint = work.endpoint
    assert work.resumed == n + 199
    assert endpoint.counters.connections_opened == endpoint.counters.connections_closed == n + 200
    assert (endpoint.ledger.held, len(endpoint.ledger.prefixes)) == (0, 0)
    assert endpoint.ledger.level is Pressure.NONE
    assert endpoint.deadline() is None
    assert len(gc.get_objects()) - objects < _SLACK_OBJECTS
    assert resident() - rss < _SLACK_BYTES


def test_hundreds_come_and_go() -> None:
    with assert_no_leaks():
        churn(300)


@pytest.mark.long
def test_a_million_come_and_go() -> None:
    churn(int(os.environ.get("SEALWIRE_CHURN", "1000000")))


# --- over sockets -------------------------------------------------------------------------------


async def _answer(channel: DatagramChannel) -> None:
    async for data in channel:
        await channel.send(data)


async def asyncio_churn(n: int, at_once: int = 8) -> None:
    context = configs.client_context()
    context.session_store = sealwire.SessionStore()
    async with await sealwire.start_datagram_server(
        _answer, "127.0.0.1", 0, context=configs.server_context()
    ) as server:
        port = server.sockets[0].getsockname()[1]

        async def clients(count: int) -> None:
            for _ in range(count):
                async with sealwire.open_datagram_channel(
                    "127.0.0.1", port, context=context, server_hostname="localhost"
                ) as channel:
                    await channel.send(b"hello")
                    assert await channel.recv() == b"hello"

        before = descriptors()
        await asyncio.gather(*(clients(n // at_once) for _ in range(at_once)))
        async with asyncio.timeout(30):
            while server.connections:
                await asyncio.sleep(0.05)
        assert descriptors() <= before
        for endpoint in server.endpoints:
            assert endpoint.ledger.held == len(endpoint.ledger.prefixes) == 0
            assert endpoint.counters.connections_closed >= n


def blocking_churn(n: int) -> None:
    """Blocking clients, one after the other, of a server on its own loop."""
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    started, over = threading.Event(), threading.Event()
    held: list[int] = []

    async def serve() -> None:
        async with await sealwire.start_datagram_server(
            _answer, "127.0.0.1", 0, context=configs.server_context()
        ) as server:
            ports.append(server.sockets[0].getsockname()[1])
            started.set()
            while not over.is_set() or server.connections:
                await asyncio.sleep(0.05)
            held.extend(endpoint.ledger.held for endpoint in server.endpoints)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(20)
    context = configs.client_context()
    context.session_store = sealwire.SessionStore()
    before = descriptors()
    try:
        for _ in range(n):
            with sealwire.create_connection(
                ("127.0.0.1", ports[0]),
                10.0,
                context=context,
                server_hostname="localhost",
                kind=socket.SOCK_DGRAM,
            ) as tls:
                tls.send(b"hello")
                assert tls.recv(100) == b"hello"
        assert descriptors() <= before
    finally:
        over.set()
        thread.join(60)
        loop.close()
    assert held
    assert not any(held)


def test_some_come_and_go_over_sockets() -> None:
    with assert_no_leaks():
        asyncio.run(asyncio_churn(24))
        blocking_churn(10)


@pytest.mark.long
@pytest.mark.parametrize("driver", ["asyncio", "blocking"])
def test_a_hundred_thousand_come_and_go_over_sockets(driver: str) -> None:
    n = int(os.environ.get("SEALWIRE_SOCKET_CHURN", "100000"))
    rss = resident()
    with assert_no_leaks():
        if driver == "asyncio":
            asyncio.run(asyncio_churn(n))
        else:
            blocking_churn(n)
    assert resident() - rss < 4 * _SLACK_BYTES
