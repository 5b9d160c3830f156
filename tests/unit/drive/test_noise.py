"""Any bytes thrown at a server: counted, answered with an alert or ignored; good clients notice nothing."""

from __future__ import annotations

import asyncio
import os
import random
import socket

from sealwire import dtls, stcp
from sealwire.drive import open_connection, open_datagram_channel, start_datagram_server, start_server
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_datagrams, echo_stream, eventually, run, udp_socket

SEED = 20_240_607


def hello_datagrams() -> list[bytes]:
    connection = dtls.Connection.client(client_context().config(), now=0.0, server_name="localhost")
    return connection.transmit(0.0)


def datagrams(n: int) -> list[bytes]:
    """Random bytes, bytes that begin like DTLS records, and damaged hellos."""
    rng = random.Random(SEED)
    hellos = hello_datagrams()
    found = []
    for _ in range(n):
        kind = rng.randrange(5)
        if kind == 0:
            data = rng.randbytes(rng.randrange(0, 1_500))
        elif kind == 1:
            data = bytes((rng.randrange(20, 64),)) + rng.randbytes(rng.randrange(0, 200))
        elif kind == 2:
            data = bytes((rng.randrange(256),)) + rng.choice(hellos)[1:]
        elif kind == 3:
            data = rng.choice(hellos)[: rng.randrange(1, 400)]
        else:
            damaged = bytearray(rng.choice(hellos))
            for _ in range(rng.randrange(1, 5)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            data = bytes(damaged)
        found.append(data)
    return found


def test_datagrams() -> None:
    async def main() -> None:
        async with await start_datagram_server(
            echo_datagrams, "127.0.0.1", 0, context=server_context()
        ) as server:
            address = server.sockets[0].getsockname()
            strangers = [udp_socket() for _ in range(20)]
            async with open_datagram_channel(*address, context=client_context()) as channel:
                thrown = datagrams(4_000)
                for n, data in enumerate(thrown):
                    strangers[n % len(strangers)].sendto(data, address)
                    if n % 100 == 0:
                        await channel.send(b"%d" % n)
                        assert await channel.recv() == b"%d" % n
                # From the good client's own address as well.
                for data in thrown[:500]:
                    channel._port.udp.sock.send(data)
                await channel.send(b"last")
                assert await channel.recv() == b"last"
                # A new client is still welcome.
                async with open_datagram_channel(*address, context=client_context()) as other:
                    await other.send(b"x")
                    assert await other.recv() == b"x"
                statistics = server.statistics()
                assert sum(n for name, n in statistics.items() if name.startswith("discard.")) > 1_000
                assert statistics["handshakes_completed"] == 2
            for stranger in strangers:
                stranger.close()
        # Slots for hellos split over datagrams are allotted once, for the endpoint's life.
        assert server.connections == 0

    run(main())


def streams(n: int) -> list[bytes]:
    rng = random.Random(SEED)
    connection = stcp.Connection.client(client_context().config(), now=0.0, server_name="localhost")
    hello = connection.data_to_send()
    found = [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\x80", hello[:100]]
    for _ in range(n):
        kind = rng.randrange(3)
        if kind == 0:
            data = rng.randbytes(rng.randrange(1, 5_000))
        elif kind == 1:
            data = bytes((rng.randrange(20, 24), 3, rng.randrange(4), rng.randrange(64))) + rng.randbytes(
                3_000
            )
        else:
            damaged = bytearray(hello)
            for _ in range(rng.randrange(1, 5)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            data = bytes(damaged)
        found.append(data)
    return found


def test_streams() -> None:
    async def main() -> None:
        async with await start_server(echo_stream, "127.0.0.1", 0, context=server_context()) as server:
            address = server.sockets[0].getsockname()
            reader, writer = await open_connection(*address, context=client_context())
            rng = random.Random(SEED)
            for data in streams(150):
                with socket.create_connection(address) as stranger:
                    stranger.sendall(data)
                    if rng.randrange(2):
                        stranger.shutdown(socket.SHUT_WR)
                    message = os.urandom(20)
                    writer.write(message)
                    assert await reader.readexactly(20) == message
            await eventually(lambda: server.connections == 1)
            assert server.counters.handshakes_failed == 155
            other_reader, other_writer = await open_connection(*address, context=client_context())
            other_writer.write(b"x")
            assert await other_reader.readexactly(1) == b"x"
            for each in (writer, other_writer):
                each.close()
                await each.wait_closed()
        assert server.ledger.held == 0

    run(main())


def test_streams_that_break_after_the_handshake() -> None:
    async def main() -> None:
        async with await start_server(echo_stream, "127.0.0.1", 0, context=server_context()) as server:
            address = server.sockets[0].getsockname()
            for data in streams(20)[1:]:
                _, writer = await open_connection(*address, context=client_context())
                sock = writer.get_extra_info("socket")
                await asyncio.get_running_loop().sock_sendall(sock, data)
                writer.abort()
                await writer.wait_closed()
            await eventually(lambda: server.connections == 0)
        assert server.ledger.held == 0

    run(main())
