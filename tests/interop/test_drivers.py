"""The ways people use the package, against other people's software: asyncio and blocking sockets.

The engines are proved by the other files here; this one shows that nothing is lost between them
and the socket: a megabyte each way, and a close that both sides understand.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable

import pytest

import sealwire
import sealwire.drive
from tests import certificates, configs
from tests.certificates import Kind
from tests.interop.programs import Nss, Openssl, Program, dropped_datagrams, receive_queue
from tests.interop.sockets import PATIENCE_SECONDS, free_udp_port, port_of

MEGABYTE = 1_000_000
QUEUE_BYTES = 64 * 1024
PIECE_BYTES = 8 * 1024


def run(main: Callable[[], Awaitable[None]]) -> None:
    """asyncio.run with an end to it."""

    async def bounded() -> None:
        await asyncio.wait_for(main(), PATIENCE_SECONDS)

    asyncio.run(bounded())


async def until(predicate: Callable[[], bool]) -> None:
    while not predicate():
        await asyncio.sleep(0.005)


async def datagram_megabytes(channel: sealwire.drive.DatagramChannel, program: Program, port: int) -> None:
    """A megabyte each way between a channel and tstclnt, no faster than its queue empties."""

    theirs, ours = os.urandom(MEGABYTE), os.urandom(MEGABYTE)
    received = bytearray()
    for start in range(0, MEGABYTE, PIECE_BYTES):
        program.write(theirs[start : start + PIECE_BYTES])
        while len(received) < min(start + PIECE_BYTES, MEGABYTE):
            received += await channel.recv()
    assert received == theirs
    size = channel.max_message_bytes
    for start in range(0, MEGABYTE, size):
        await channel.send(ours[start : start + size])
        if start // size % 16 == 0:
            await asyncio.sleep(0.001)  # what was sent leaves in the loop's next turn
            await until(lambda: (receive_queue(port) or 0) < QUEUE_BYTES)
    await until(lambda: len(program.output) >= MEGABYTE or dropped_datagrams(port) > 0)
    assert dropped_datagrams(port) == 0
    assert program.output == ours


@pytest.mark.parametrize("kind", [Kind.ECDSA_P256, Kind.RSA_2048])
def test_a_datagram_channel_to_nss(nss: Nss, kind: Kind) -> None:
    identity = certificates.server(kind)
    port = free_udp_port()

    async def main() -> None:
        with nss.server(port, nss.database(own=identity)) as program:
            async with sealwire.open_datagram_channel(
                "127.0.0.1",
                port,
                context=configs.client_context(identity.cafile),
                server_hostname="localhost",
            ) as channel:
                assert channel.version() == "DTLSv1.3"
                await datagram_megabytes(channel, program, port)

    run(main)


@pytest.mark.parametrize("kind", [Kind.ECDSA_P256, Kind.RSA_2048])
def test_a_datagram_server_for_nss(nss: Nss, kind: Kind) -> None:
    identity = certificates.server(kind)

    async def main() -> None:
        arrived: asyncio.Queue[sealwire.drive.DatagramChannel] = asyncio.Queue()
        finished = asyncio.Event()

        async def handler(channel: sealwire.drive.DatagramChannel) -> None:
            await arrived.put(channel)
            await finished.wait()

        async with await sealwire.start_datagram_server(
            handler, "127.0.0.1", 0, context=configs.server_context(identity)
        ) as server:
            port = port_of(server.sockets[0])
            with nss.client(port, nss.database(trust=identity)) as program:
                channel = await arrived.get()
                peer = channel.connection.address
                assert isinstance(peer, tuple)
                await datagram_megabytes(channel, program, peer[1])
                # It leaves at our close_notify, if its own input has ended.
                program.end_of_input()
                finished.set()
                await until(lambda: program.ended)
                assert program.process.returncode == 0

    run(main)


def test_a_stream_to_s_server(openssl: Openssl) -> None:
    async def main() -> None:
        with openssl.server(certificates.server(), "-rev", "-alpn", "test/1") as (_, port):
            reader, writer = await sealwire.open_connection(
                "127.0.0.1",
                port,
                context=configs.client_context(alpn=["test/1"]),
                server_hostname="localhost",
            )
            writer.write(b"drawer\n")
            await writer.drain()
            assert await reader.readline() == b"reward\n"
            writer.close()
            await writer.wait_closed()

    run(main)


def test_a_stream_server_for_s_client(openssl: Openssl) -> None:
    async def main() -> None:
        async def handler(reader: sealwire.drive.StreamReader, writer: sealwire.drive.StreamWriter) -> None:
            async for line in reader:
                writer.write(line.upper())
                await writer.drain()
            writer.close()

        async with await sealwire.start_server(
            handler, "127.0.0.1", 0, context=configs.server_context()
        ) as server:
            port = port_of(server.sockets[0])
            with openssl.client(port, certificates.server().cafile) as program:
                program.write(b"quiet\n")
                await until(lambda: program.output == b"QUIET\n")
                program.end_of_input()
                await until(lambda: program.ended)
                assert program.process.returncode == 0

    run(main)


def test_a_stream_server_and_the_ssl_of_asyncio() -> None:
    """A megabyte each way at once with asyncio's own TLS as the client."""
    theirs = ssl.create_default_context(cafile=str(certificates.server().cafile))

    async def main() -> None:
        async def echo(reader: sealwire.drive.StreamReader, writer: sealwire.drive.StreamWriter) -> None:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
            writer.close()

        async with await sealwire.start_server(
            echo, "127.0.0.1", 0, context=configs.server_context()
        ) as server:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port_of(server.sockets[0]), ssl=theirs, server_hostname="localhost"
            )
            data = os.urandom(MEGABYTE)
            writer.write(data)
            received, _ = await asyncio.gather(reader.readexactly(MEGABYTE), writer.drain())
            assert received == data
            writer.close()
            await writer.wait_closed()

    run(main)


def test_a_blocking_stream_and_the_ssl_of_python() -> None:
    """wrap_socket on both sides: ours as client, theirs as server, then the other way round."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity = certificates.server()
    theirs.load_cert_chain(identity.certfile, identity.keyfile)
    data = os.urandom(MEGABYTE)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_SECONDS)

        def echo() -> None:
            sock, _ = listener.accept()
            sock.settimeout(PATIENCE_SECONDS)
            with theirs.wrap_socket(sock, server_side=True) as tls:
                received = b""
                while len(received) < MEGABYTE:
                    received += tls.recv(65_536)
                tls.sendall(received)
                tls.unwrap().close()

        thread = threading.Thread(target=echo)
        thread.start()
        with sealwire.create_connection(
            ("127.0.0.1", port_of(listener)),
            timeout=PATIENCE_SECONDS,
            context=configs.client_context(),
            server_hostname="localhost",
        ) as ours:
            assert ours.version() == "TLSv1.3"
            ours.sendall(data)
            received = b""
            while len(received) < MEGABYTE:
                received += ours.recv(65_536)
            assert received == data
            assert ours.recv(1) == b""  # their close_notify
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()

    context = ssl.create_default_context(cafile=str(identity.cafile))
    plain = socket.create_server(("127.0.0.1", 0))
    plain.settimeout(PATIENCE_SECONDS)
    port = port_of(plain)
    listening = configs.server_context().wrap_socket(plain, server_side=True)
    assert isinstance(listening, sealwire.drive.ListeningSocket)
    with listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.settimeout(PATIENCE_SECONDS)
                received = b""
                while len(received) < MEGABYTE:
                    received += peer.recv(65_536)
                peer.sendall(received)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as tls,
        ):
            tls.sendall(data)
            received = b""
            while len(received) < MEGABYTE:
                received += tls.recv(65_536)
            assert received == data
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def test_a_blocking_datagram_socket_to_nss(nss: Nss) -> None:
    port = free_udp_port()
    with nss.server(port, nss.database(own=certificates.server())) as program:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", port))
        sock.settimeout(PATIENCE_SECONDS)
        with configs.client_context().wrap_socket(sock, server_hostname="localhost") as dtls:
            assert isinstance(dtls, sealwire.drive.DatagramSocket)
            dtls.send(b"from sealwire\n")
            program.wait_for(lambda: program.output == b"from sealwire\n", "our line")
            program.write(b"from nss\n")
            assert dtls.recv(2_048) == b"from nss\n"


def test_a_blocking_datagram_socket_for_nss(nss: Nss) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(PATIENCE_SECONDS)
    with nss.client(port_of(sock), nss.database(trust=certificates.server())) as program:
        with configs.server_context().wrap_socket(sock, server_side=True) as dtls:
            assert isinstance(dtls, sealwire.drive.DatagramSocket)
            program.write(b"from nss\n")
            assert dtls.recv(2_048) == b"from nss\n"
            dtls.send(b"from sealwire\n")
            program.wait_for(lambda: program.output == b"from sealwire\n", "our line")
            program.end_of_input()
        program.wait_for(lambda: program.ended, "its end")
