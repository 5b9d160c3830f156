"""A server of messages among peers that speak badly: they end, in bounded memory, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

import pytest

import sealwire
from sealwire.drive import StreamReader, StreamServer, StreamWriter
from sealwire.limits import Limits
from sealwire.stcp.frames import word_of
from tests import certificates
from tests.configs import client_context, server_context
from tests.unit.drive.harness import eventually, port_of, run

LIMITS = Limits(handshake_seconds=0.5)
RESET = struct.pack("ii", 1, 0)


def hello() -> bytes:
    """A ClientHello record, as any TLS client sends it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        secure.do_handshake()
    return outgoing.read()


# What a stranger sends, and whether it closes after it.
STRANGERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "HTTP": (lambda: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "stay"),
    "nothing": (lambda: b"", "stay"),
    "nothing, and goes": (lambda: b"", "close"),
    "SSH": (lambda: b"SSH-2.0-OpenSSH_9.2\r\n", "stay"),
    "zeros": (lambda: bytes(100_000), "stay"),
    "a record of 2^14+257": (lambda: b"\x17\x03\x03" + (16_384 + 257).to_bytes(2, "big"), "stay"),
    "a record of 65,535": (lambda: b"\x16\x03\x01\xff\xff", "stay"),
    "half a header": (lambda: b"\x16\x03", "stay"),
    "half a header, and goes": (lambda: b"\x16\x03", "close"),
    "half a hello": (lambda: hello()[:100], "stay"),
    "half a hello, and goes": (lambda: hello()[:100], "close"),
    "half a hello, and a reset": (lambda: hello()[:100], "reset"),
    "a hello, and goes": (hello, "close"),
    "a hello, and a reset": (hello, "reset"),
    "a hello, and bytes behind it": (lambda: hello() + b"injected", "stay"),
    "a message too long for the limit": (
        lambda: b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16_380),
        "stay",
    ),
}


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    async for message in reader:
        writer.write_message(message)
        await writer.drain()
    writer.close()


class Honest:
    """A client whose messages come back, whatever others do."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.count = 0

    async def ask(self) -> None:
        self.count += 1
        self.writer.write_message(self.count.to_bytes(4, "big"))
        assert await self.reader.read_message() == self.count.to_bytes(4, "big")


async def serve(handler: Any = echo, **options: Any) -> StreamServer:
    options.setdefault("limits", LIMITS)
    return await sealwire.start_server(
        handler, "127.0.0.1", 0, context=server_context(), messages=True, **options
    )


async def honest(server: StreamServer) -> Honest:
    return Honest(
        *await sealwire.open_connection("127.0.0.1", port_of(server), context=client_context(), messages=True)
    )


async def stranger(server: StreamServer, data: bytes, end: str) -> bytes:
    """What a plain TCP client gets for `data`, until the server ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    writer.write(data)
    if end == "reset":
        await writer.drain()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.close()
        return b""
    if end == "close":
        writer.write_eof()
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger(kind: str) -> None:
    make, end = STRANGERS[kind]

    async def main() -> None:
        async with await serve() as server:
            client = await honest(server)
            held = server.ledger.held
            got = asyncio.ensure_future(stranger(server, make(), end))
            while not got.done():
                await client.ask()
                assert server.ledger.held < held + LIMITS.handshake_bytes
                await asyncio.sleep(0.002)
            answer = await got
            # Nothing, an alert in plaintext, or a handshake and an alert: no word of any other kind.
            assert not answer or answer[0] in (21, 22)
            await eventually(lambda: server.counters.handshakes_failed == 1)
            await eventually(lambda: server.connections == 1)
            await client.ask()
            assert server.ledger.held == held
            client.writer.close()
            await client.writer.wait_closed()

    run(main())


def test_a_hello_that_drips() -> None:
    """A byte now and then is not progress enough: the handshake has its time and no more."""

    async def main() -> None:
        async with await serve() as server:
            client = await honest(server)
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            loop = asyncio.get_running_loop()
            began = loop.time()
            ended = asyncio.ensure_future(reader.read())
            for byte in hello():
                if ended.done():
                    break
                writer.write(bytes((byte,)))
                await asyncio.sleep(0.02)
                await client.ask()
            assert ended.done(), "the whole hello went through"
            assert loop.time() - began < 4
            writer.close()
            client.writer.close()
            await client.writer.wait_closed()
            assert server.counters.handshakes_failed == 1

    run(main(), seconds=30)


# -- behind a handshake: Python's ssl speaks the frames


def speaker(server: StreamServer) -> ssl.SSLSocket:
    """A peer that is nobody's own: a blocking TLS socket of Python's."""
    context = ssl.create_default_context(cafile=str(certificates.server().cafile))
    context.set_alpn_protocols(["stcp/1"])
    sock = socket.create_connection(("127.0.0.1", port_of(server)), 10)
    return context.wrap_socket(sock, server_hostname="localhost")


def to_its_end(secure: ssl.SSLSocket) -> str:
    """What ends the connection, in OpenSSL's words."""
    try:
        while secure.recv(100):
            pass
    except (ssl.SSLError, ConnectionResetError) as error:
        return str(error).lower()
    return "close_notify"


def cut_frame(secure: ssl.SSLSocket) -> str:
    secure.sendall(word_of(10) + b"half")
    return _closed(secure)


def cut_word(secure: ssl.SSLSocket) -> str:
    secure.sendall(b"\x00\x00")
    return _closed(secure)


def _closed(secure: ssl.SSLSocket) -> str:
    # OpenSSL does not say what it got when it was closing itself.
    try:
        secure.unwrap()
    except (OSError, ssl.SSLError):
        pass
    return ""


def too_long(secure: ssl.SSLSocket) -> str:
    secure.sendall(word_of(33_554_432))
    return to_its_end(secure)


def reserved(secure: ssl.SSLSocket) -> str:
    secure.sendall(b"\x08\x00\x00\x00")
    return to_its_end(secure)


def pings(secure: ssl.SSLSocket) -> str:
    secure.sendall(b"\x80\x00\x00\x09\x01\x00\x00\x00\x00\x00\x00\x00\x01" * 1_000)
    return to_its_end(secure)


def plain_bytes(secure: ssl.SSLSocket) -> str:
    secure.sendall(b"GET / HTTP/1.1\r\n\r\n")
    return to_its_end(secure)


def injected(secure: ssl.SSLSocket) -> str:
    os.write(secure.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
    return to_its_end(secure)


def injected_plaintext(secure: ssl.SSLSocket) -> str:
    os.write(secure.fileno(), b"\x15\x03\x03\x00\x02\x02\x28")
    return to_its_end(secure)


@pytest.mark.parametrize(
    ("act", "alert"),
    [
        (cut_frame, ""),
        (cut_word, ""),
        (too_long, "illegal parameter"),
        (reserved, "decode error"),
        (pings, "unexpected message"),
        (plain_bytes, "decode error"),
        (injected, "bad record mac"),
        (injected_plaintext, "unexpected message"),
    ],
)
def test_a_peer_that_speaks_badly(act: Callable[[ssl.SSLSocket], str], alert: str) -> None:
    async def main() -> None:
        ends: list[BaseException | None] = []

        async def handler(reader: StreamReader, writer: StreamWriter) -> None:
            try:
                await echo(reader, writer)
            finally:
                ends.append(reader.exception())

        async with await serve(handler) as server:
            client = await honest(server)
            held = server.ledger.held

            def work() -> str:
                with speaker(server) as secure:
                    secure.sendall(word_of(2) + b"hi")
                    assert secure.recv(100) == word_of(2) + b"hi"
                    return act(secure)

            ended = asyncio.ensure_future(asyncio.to_thread(work))
            while not ended.done():
                await client.ask()
                await asyncio.sleep(0.002)
            assert alert in (await ended).replace("_", " ")
            await eventually(lambda: server.connections == 1)
            await client.ask()
            assert server.ledger.held == held
            wanted = sealwire.ProtocolError if alert else sealwire.Truncated
            assert [type(error) for error in ends] == [wanted]
            client.writer.close()
            await client.writer.wait_closed()

    run(main())


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_peer_that_goes_in_the_middle_of_a_record(end: str) -> None:
    async def main() -> None:
        failures: list[BaseException] = []

        async def handler(reader: StreamReader, writer: StreamWriter) -> None:
            writer.write_message(b"")
            await writer.drain()
            try:
                await reader.read_message()
            except sealwire.Error as error:
                failures.append(error)
            writer.close()

        async with await sealwire.start_server(
            handler, "127.0.0.1", 0, context=server_context(), messages=True
        ) as server:

            def work() -> None:
                with speaker(server) as secure:
                    assert secure.recv(4) == word_of(0)
                    os.write(secure.fileno(), b"\x17\x03\x03\x00\x40" + bytes(10))
                    sock = socket.socket(fileno=os.dup(secure.fileno()))
                    if end == "reset":
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    else:
                        sock.shutdown(socket.SHUT_WR)
                    sock.close()

            await asyncio.to_thread(work)
            # The handler is told in a later turn of the loop than the connection is gone.
            await eventually(lambda: failures and server.connections == 0 and server.ledger.held == 0)
            assert [type(error) for error in failures] == [sealwire.Truncated]

    run(main())
