"""What programs written for asyncio's streams and for ssl.SSLSocket find here as well."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
import threading

import pytest

import sealwire
from sealwire.drive import StreamReader, StreamServer, StreamWriter
from sealwire.drive.blocking import StreamSocket
from sealwire.errors import ConnectionClosed, Truncated
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_stream, port_of, run
from tests.unit.drive.test_messages import blocking_server, connect_blocking
from tests.unit.drive.test_messages import serve as serve_messages

# Not of a connected, secured socket, or not of TLS 1.3: docs/stcp.md says so.
NOT_OF_SSL = {
    *("accept", "bind", "connect", "connect_ex", "listen"),  # a ListeningSocket accepts
    *("recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into", "sendmsg", "sendmsg_afalg", "sendto"),
    *("detach", "dup", "get_inheritable", "set_inheritable"),  # a copy would have a copy of the keys
    *("context", "session", "shared_ciphers", "selected_npn_protocol", "verify_client_post_handshake"),
}
NOT_OF_STREAMS = {"feed_data", "feed_eof", "set_exception", "set_transport", "start_tls"}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_nothing_of_ssl_is_missing_but_what_is_said() -> None:
    assert public(ssl.SSLSocket) - public(StreamSocket) <= NOT_OF_SSL


def test_nothing_of_asyncio_is_missing_but_what_is_said() -> None:
    assert public(asyncio.StreamReader) - public(StreamReader) <= NOT_OF_STREAMS
    assert public(asyncio.StreamWriter) - public(StreamWriter) <= NOT_OF_STREAMS
    assert public(asyncio.Server) - public(StreamServer) - {"sockets"} == set()


def test_a_server_on_a_socket_of_its_own() -> None:
    async def main() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        with pytest.raises(ValueError, match="not both"):
            await sealwire.start_server(echo_stream, port=1, sock=sock, context=server_context())
        async with await sealwire.start_server(echo_stream, sock=sock, context=server_context()) as server:
            assert server.get_loop() is asyncio.get_running_loop()
            reader, writer = await sealwire.open_connection(
                "127.0.0.1", port_of(server), context=client_context()
            )
            assert writer.transport.get_write_buffer_limits()[0] > writer.transport.get_write_buffer_size()
            writer.transport.abort()
            await writer.wait_closed()
            with pytest.raises(ConnectionClosed) as caught:
                await reader.read()
            assert reader.exception() is caught.value

    run(main())


def test_draining_a_server() -> None:
    async def main() -> None:
        server = await serve_messages()
        async with server:
            connections = [
                await sealwire.open_connection(
                    "127.0.0.1", port_of(server), context=client_context(), messages=True
                )
                for _ in range(3)
            ]
            draining = asyncio.ensure_future(server.drain(10))
            await asyncio.sleep(0)  # it begins
            for reader, writer in connections:
                writer.write_message(b"under way")
                assert await reader.read_message() == b"under way"
                assert reader.peer_going_away
                writer.close()
                await writer.wait_closed()
            assert await draining == 0
            assert not server.sockets

    run(main())


def test_draining_a_server_of_peers_that_stay() -> None:
    async def main() -> None:
        server = await serve_messages()
        async with server:
            reader, writer = await sealwire.open_connection(
                "127.0.0.1", port_of(server), context=client_context(), messages=True
            )
            assert await server.drain(0.05) == 1
            assert [message async for message in reader] == []
            writer.close()
            await writer.wait_closed()

    run(main())


def echo_bytes(secure: StreamSocket) -> None:
    while data := secure.read(1_000):
        assert isinstance(data, bytes)
        secure.write(data)


def test_reading_writing_and_files_as_ssl_has_them() -> None:
    with (
        blocking_server(echo_bytes, messages=False) as port,
        connect_blocking(port, messages=False) as secure,
    ):
        assert secure.write(b"four") == 4
        buffer = bytearray(10)
        assert secure.read(10, buffer) == 4
        assert buffer[:4] == b"four"
        assert secure.sendfile(io.BytesIO(b"0123456789"), 2, 5) == 5
        assert secure.read(100) == b"23456"
        assert secure.sendfile(io.BytesIO(b"0123456789"), 8) == 2
        assert secure.read() == b"89"
        assert secure.getblocking()
        assert secure.timeout == secure.gettimeout() == 10
        assert (secure.family, secure.type) == (socket.AF_INET, socket.SOCK_STREAM)
        secure.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert secure.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert len(secure.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 4)) == 4
        secure.setblocking(False)
        with pytest.raises(ValueError, match="non-blocking"):
            secure.sendfile(io.BytesIO(b"x"))
        secure.setblocking(True)


def test_hanging_up_ends_what_waits() -> None:
    seen = threading.Event()

    def hang_up(secure: StreamSocket) -> None:
        secure.hang_up()
        secure.hang_up()
        with pytest.raises(Truncated):
            secure.recv(1)
        seen.set()

    with blocking_server(hang_up, messages=False) as port, connect_blocking(port, messages=False) as secure:
        assert secure.recv(1) == b""
        assert seen.wait(10)  # or its own goodbye might overtake the hanging up
