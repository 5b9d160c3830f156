"""0-RTT replayed, between real processes over UDP: what the register of one process is worth to all."""

from __future__ import annotations

import itertools
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import sealwire
from sealwire import dtls
from sealwire.drive import create_connection
from sealwire.dtls import EarlyData, SessionTicket
from tests import certificates, configs

ROOT = Path(__file__).resolve().parents[2]
KEYS = "5e" * 32

SERVER = """
import asyncio, sys
import sealwire

async def echo(channel):
    async for data in channel:
        await channel.send(data)

async def main():
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    context.set_ticket_keys([bytes.fromhex(sys.argv[3])])
    context.num_tickets = 4
    context.max_early_data_size = 1000
    tell = lambda connection, data: print("early", data.decode(), flush=True)
    server = await sealwire.start_datagram_server(
        echo, "127.0.0.1", int(sys.argv[4]), context=context, on_early_data=tell
    )
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


class Process:
    """A server of its own, and what it said of early data."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        word, port = self._lines.get(timeout=30).split()
        assert word == "port"
        self.port = int(port)
        self.accepted: list[str] = []

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())

    def collect(self) -> list[str]:
        while True:
            try:
                self.accepted.append(self._lines.get_nowait().removeprefix("early "))
            except queue.Empty:
                return self.accepted

    def wait_for(self, n: int) -> list[str]:
        end = time.monotonic() + 30
        while len(self.collect()) < n and time.monotonic() < end:
            time.sleep(0.01)
        return self.accepted


@contextmanager
def server(port: int = 0) -> Iterator[Process]:
    own = certificates.server()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(own.certfile), str(own.keyfile), KEYS, str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    try:
        yield Process(process)
    finally:
        process.kill()
        process.communicate()


def client_context() -> tuple[sealwire.Context, sealwire.SessionStore]:
    context = configs.client_context()
    context.num_tickets = 4
    context.ticket_request = (4, 1)
    context.session_store = store = sealwire.SessionStore()
    return context, store


def connect(context: sealwire.Context, port: int) -> EarlyData:
    """A connection that says something and is answered: what was sent before is dealt with by then."""
    address = ("127.0.0.1", port)
    with create_connection(
        address, 30, context=context, server_hostname="localhost", kind=socket.SOCK_DGRAM
    ) as sock:
        sock.send(b"still there?")
        assert sock.recv() == b"still there?"
        return sock.early_data


def tickets_of(context: sealwire.Context, store: sealwire.SessionStore, port: int) -> list[SessionTicket]:
    connect(context, port)
    (tickets,) = store._places.values()
    found = [SessionTicket.decode(kept.ticket) for kept in tickets]
    assert len(found) == 4
    return found


def early_flight(context: sealwire.Context, ticket: SessionTicket, data: bytes) -> list[bytes]:
    """The first datagrams of a client that comes back, as anybody on the way could record them."""
    connection = dtls.Connection.client(
        context.config(), now=time.monotonic(), server_name="localhost", ticket=ticket, early_data=True
    )
    connection.send_replayable(data)
    return connection.transmit(time.monotonic())


@pytest.mark.requirement("8446-0RTT-2")
def test_0rtt_replayed_to_the_same_process_and_to_another_one_that_shares_its_ticket_keys() -> None:
    """Accepted once, then never: from the same address and others, in any order, at both processes."""
    with ExitStack() as stack:
        ours, other = stack.enter_context(server()), stack.enter_context(server())
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(3)]
        context, store = client_context()
        tickets = tickets_of(context, store, ours.port)

        def send(flight: list[bytes], sock: socket.socket, to: Process) -> None:
            for datagram in flight:
                sock.sendto(datagram, ("127.0.0.1", to.port))

        def settled() -> None:
            for process in (ours, other):
                fresh, _ = client_context()
                connect(fresh, process.port)

        # First where it belongs, then everywhere.
        flight = early_flight(context, tickets[0], b"pay 5 to Bob")
        send(flight, sockets[0], ours)
        assert ours.wait_for(1) == ["pay 5 to Bob"]
        for sock, process in itertools.product(sockets, (ours, other)):
            for copies in (flight, flight[::-1], flight * 2):
                send(copies, sock, process)
        settled()
        assert (ours.collect(), other.collect()) == (["pay 5 to Bob"], [])

        # First where it does not belong.
        flight = early_flight(context, tickets[1], b"pay 7 to Eve")
        for process in (other, other, ours, other, ours):
            send(flight, sockets[1], process)
        settled()
        assert (ours.collect(), other.collect()) == (["pay 5 to Bob", "pay 7 to Eve"], [])

        # The other process takes the ticket all the same, and its own clients' early data.
        resuming = dtls.Connection.client(
            context.config(), now=0.0, server_name="localhost", ticket=tickets[2], early_data=True
        )
        resuming.send_replayable(b"not here")
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.settimeout(30)
        while resuming.state == "handshaking":
            for datagram in resuming.transmit(0.0):
                sock.sendto(datagram, ("127.0.0.1", other.port))
            resuming.receive(sock.recv(65_535), 0.0)
        assert resuming.session.resumed
        assert resuming.session.early_data is EarlyData.REJECTED
        assert other.collect() == []
        foreign, its_store = client_context()
        send(
            early_flight(foreign, tickets_of(foreign, its_store, other.port)[0], b"hello"), sockets[0], other
        )
        assert other.wait_for(1) == ["hello"]


@pytest.mark.requirement("8446-0RTT-2")
def test_0rtt_replayed_after_a_restart() -> None:
    """Who comes up on the same port with the same keys remembers nothing, and so accepts nothing."""
    context, store = client_context()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with server() as before:
            port = before.port
            tickets = tickets_of(context, store, port)
            flights = [early_flight(context, one, b"once") for one in tickets[:2]]
            for datagram in flights[0]:
                sock.sendto(datagram, ("127.0.0.1", port))
            assert before.wait_for(1) == ["once"]
        with server(port) as after:
            for flight in flights:
                for datagram in flight:
                    sock.sendto(datagram, ("127.0.0.1", port))
            fresh, _ = client_context()
            connect(fresh, port)
            assert after.collect() == []
