"""Message mode on asyncio and on blocking sockets, over loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import sealwire
from sealwire import stcp
from sealwire.context import Context
from sealwire.drive import StreamReader, StreamServer, StreamWriter
from sealwire.drive.blocking import ListeningSocket, StreamSocket
from sealwire.errors import (
    Alert,
    ConfigurationError,
    ConnectionClosed,
    HandshakeError,
    LimitReached,
    PeerAlert,
    Truncated,
)
from sealwire.limits import Limits
from tests.configs import client_context, server_context
from tests.unit.drive.harness import eventually, port_of, run


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    async for message in reader:
        writer.write_message(message)
        await writer.drain()
    writer.close()


async def serve(handler: object = echo, **keywords: object) -> StreamServer:
    keywords.setdefault("messages", True)
    return await sealwire.start_server(
        handler,  # type: ignore[arg-type]
        "127.0.0.1",
        0,
        context=server_context(),
        **keywords,  # type: ignore[arg-type]
    )


async def connect(server: StreamServer, **keywords: object) -> tuple[StreamReader, StreamWriter]:
    keywords.setdefault("messages", True)
    return await sealwire.open_connection(
        "127.0.0.1",
        port_of(server),
        context=client_context(),
        **keywords,  # type: ignore[arg-type]
    )


async def finish(writer: StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


# -- asyncio


def test_messages_there_and_back() -> None:
    async def main() -> None:
        async with await serve(messages="echo") as server:
            reader, writer = await connect(server, messages="echo")
            assert reader.message_mode
            assert writer.application == "echo"
            assert writer.selected_alpn_protocol() == "stcp/1:echo"
            for message in (b"", b"hello", bytes(100_000), bytearray(b"array"), memoryview(b"view")):
                writer.write_message(message)
                await writer.drain()
                assert await reader.read_message() == message
            await finish(writer)

    run(main())


def test_messages_of_a_turn_leave_together() -> None:
    async def main() -> None:
        async with await serve() as server:
            reader, writer = await connect(server)
            before = writer.connection.counters.records_sealed
            for n in range(50):
                writer.write_message(bytes([n]) * 100)
            came: list[bytes] = []
            while len(came) < 50:
                came += await reader.read_messages()
            assert [message[0] for message in came] == list(range(50))
            assert writer.connection.counters.records_sealed - before == 1
            await finish(writer)

    run(main())


def test_what_was_written_goes_without_drain() -> None:
    async def main() -> None:
        async with await serve() as server:
            reader, writer = await connect(server)
            writer.write_message(b"soon")
            assert await reader.read_message() == b"soon"
            writer.write_message(b"last")
            await finish(writer)
            with pytest.raises(ConnectionClosed):
                writer.write_message(b"late")

    run(main())


def test_the_end_is_an_exception_or_the_end_of_the_loop() -> None:
    async def say_two(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write_message(b"one")
        writer.write_message(b"")
        writer.close()

    async def main() -> None:
        async with await serve(say_two) as server:
            reader, writer = await connect(server)
            assert [message async for message in reader] == [b"one", b""]
            assert reader.at_eof()
            with pytest.raises(ConnectionClosed) as caught:
                await reader.read_message()
            assert not isinstance(caught.value, Truncated)
            await finish(writer)
            reader, writer = await connect(server)
            assert await reader.read_message() == b"one"
            assert not reader.at_eof()
            assert await reader.read_message() == b""
            with pytest.raises(ConnectionClosed):
                await reader.read_messages()
            await finish(writer)

    run(main())


def test_a_stream_cut_off_is_no_end() -> None:
    async def cut(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write_message(b"one")
        await writer.drain()
        writer.abort()

    async def main() -> None:
        async with await serve(cut) as server:
            reader, writer = await connect(server)
            with pytest.raises(Truncated):
                [message async for message in reader]
            await finish(writer)

    run(main())


def test_bytes_and_messages_are_not_mixed() -> None:
    async def main() -> None:
        async with await serve() as server:
            reader, writer = await connect(server)
            for method in (reader.read, reader.readline, lambda: reader.readexactly(1)):
                with pytest.raises(ConfigurationError):
                    await method()
            with pytest.raises(ConfigurationError):
                writer.write(b"x")
            await finish(writer)
        async with await serve(messages=False) as server:
            reader, writer = await connect(server, messages=False)
            assert not reader.message_mode
            for call in (reader.read_message, reader.read_messages):
                with pytest.raises(ConfigurationError):
                    await call()
            with pytest.raises(ConfigurationError):
                writer.write_message(b"x")
            await finish(writer)

    run(main())


def test_a_server_without_messages_fails_the_handshake() -> None:
    async def main() -> None:
        async with await serve(messages=False) as server:
            with pytest.raises(HandshakeError) as caught:
                await connect(server)
            assert caught.value.alert is Alert.NO_APPLICATION_PROTOCOL
        async with await serve("never called") as server:
            with pytest.raises(PeerAlert):  # noqa: PT012
                reader, writer = await connect(server, messages=False)
                try:
                    await reader.read()
                finally:
                    await finish(writer)
        with pytest.raises(ConfigurationError):
            await serve(messages="")

    run(main())


async def write_without_end(writer: StreamWriter) -> None:
    while True:
        writer.write_message(bytes(100_000))
        await asyncio.sleep(0)


def test_more_than_the_peer_takes_waits() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def slow(reader: StreamReader, writer: StreamWriter) -> None:
            await go_on.wait()
            while (size := len(await reader.read_message())) > 1:
                writer.write_message(str(size).encode())
            writer.close()

        async with await serve(slow) as server:
            reader, writer = await connect(server)
            with pytest.raises(TimeoutError):  # noqa: PT012 - a kernel that paces takes the first of them later
                while True:
                    with pytest.raises(LimitReached):
                        await write_without_end(writer)
                    await asyncio.wait_for(writer.drain(), 0.5)
            go_on.set()
            await writer.drain()
            writer.write_message(b"")
            async for message in reader:
                assert message == b"100000"
            await finish(writer)

    run(main())


def test_a_message_of_the_longest_kind() -> None:
    limits = Limits(message_bytes=32 << 20, connection_bytes=64 << 20, prefix_bytes=64 << 20)

    async def main() -> None:
        async with await serve(limits=limits) as server:
            reader, writer = await connect(server, limits=limits)
            data = bytes(32 << 20)
            writer.write_message(data)
            assert await reader.read_message() == data
            await finish(writer)

    run(main(), seconds=120)


def test_going_away() -> None:
    async def main() -> None:
        async with await serve() as server:
            reader, writer = await connect(server)
            writer.go_away()
            writer.write_message(b"under way")
            assert await reader.read_message() == b"under way"
            (stream,) = server._streams
            assert stream.connection.peer_going_away
            assert not reader.peer_going_away
            await finish(writer)

    run(main())


def test_a_peer_that_does_not_answer_is_given_up() -> None:
    async def main() -> None:
        async with await serve() as server:
            reader, writer = await connect(server, keepalive=stcp.Keepalive(after=0.02, within=1))
            await eventually(lambda: writer.connection.round_trip is not None)
            (stream,) = server._streams
            stream._turns.forget(stream.sock.fileno())
            with pytest.raises(TimeoutError, match="ping"):
                await reader.read_message()
            await finish(writer)

    run(main())


# -- blocking sockets


@contextmanager
def blocking_server(handler: object, **options: Any) -> Iterator[int]:
    """A thread that gives the first connection to `handler`; the port."""
    options.setdefault("messages", True)
    plain = socket.create_server(("127.0.0.1", 0))
    with server_context().wrap_socket(plain, server_side=True, **options) as listening:
        assert isinstance(listening, ListeningSocket)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                secure, _ = listening.accept()
                with secure:
                    handler(secure)  # type: ignore[operator]
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(20)
        assert not thread.is_alive()
        if failures:
            raise failures[0]


def blocking_echo(secure: StreamSocket) -> None:
    for message in secure.messages():
        secure.write_message(message)


def connect_blocking(port: int, **options: Any) -> StreamSocket:
    options.setdefault("messages", True)
    secure = sealwire.create_connection(("127.0.0.1", port), 10, context=client_context(), **options)
    assert isinstance(secure, StreamSocket)
    return secure


def test_blocking_messages_there_and_back() -> None:
    with blocking_server(blocking_echo, messages="b") as port, connect_blocking(port, messages="b") as secure:
        assert secure.message_mode
        assert secure.application == "b"
        for message in (b"", b"hello", bytearray(130_000)):
            secure.write_message(message)
            assert secure.read_message() == message
        for call in (secure.recv, lambda: secure.send(b"x"), lambda: secure.recv_into(bytearray(1))):
            with pytest.raises(ConfigurationError):
                call()
        secure.write_message(b"waiting")
        assert secure.read_message() == b"waiting"
        assert secure.pending() == 0
        secure.go_away()


def test_the_end_of_blocking_messages() -> None:
    def say_two(secure: StreamSocket) -> None:
        secure.write_message(b"one")
        secure.write_message(b"two")

    with blocking_server(say_two) as port, connect_blocking(port) as secure:
        assert list(secure.messages()) == [b"one", b"two"]
        with pytest.raises(ConnectionClosed):
            secure.read_message()


def test_a_blocking_stream_cut_off_is_no_end() -> None:
    def cut(secure: StreamSocket) -> None:
        secure.write_message(b"one")
        secure._sock.shutdown(socket.SHUT_RDWR)

    with blocking_server(cut) as port, connect_blocking(port) as secure, pytest.raises(Truncated):
        list(secure.messages())


def test_a_message_is_taken_whole_or_not_at_all() -> None:
    """A timeout while the peer does not read: what was taken goes later, what was not says so."""
    may_read = threading.Event()

    def slow(secure: StreamSocket) -> None:
        may_read.wait(20)
        for message in secure.messages():
            secure.write_message(bytes([len(message) & 0xFF]))

    limits = Limits(message_bytes=8 << 20, connection_bytes=32 << 20)
    with blocking_server(slow, limits=limits) as port, connect_blocking(port, limits=limits) as secure:
        secure.settimeout(0.05)
        taken = 0

        def write_without_end() -> None:
            nonlocal taken
            while True:
                secure.write_message(bytes(4_000_000 + taken))
                taken += 1

        with pytest.raises(TimeoutError):
            write_without_end()
        secure.settimeout(10)
        may_read.set()
        secure.write_message(b"")
        answers = [secure.read_message() for _ in range(taken + 1)]
        assert answers == [bytes([(4_000_000 + n) & 0xFF]) for n in range(taken)] + [b"\x00"]


def test_datagrams_are_messages_already() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="already"):
        client_context().wrap_socket(sock, messages=True)


# -- coming back


def returning_contexts() -> tuple[Context, Context]:
    """A server that takes early data, and a client that keeps its tickets."""
    server, client = server_context(), client_context()
    server.num_tickets, server.max_early_data_size = 2, 4_096
    client.session_store = sealwire.SessionStore()
    return server, client


def test_early_messages_on_asyncio() -> None:
    early: list[bytes] = []

    def on_early_data(connection: stcp.Connection, data: bytes) -> None:
        early.append(data)
        connection.write_message_before_finished(b"answer to " + data)

    async def main() -> None:
        server_side, client_side = returning_contexts()
        async with await sealwire.start_server(
            echo, "127.0.0.1", 0, context=server_side, messages="app", on_early_data=on_early_data
        ) as server:
            for expected in (stcp.EarlyData.NOT_OFFERED, stcp.EarlyData.ACCEPTED):
                reader, writer = await sealwire.open_connection(
                    "127.0.0.1",
                    port_of(server),
                    context=client_side,
                    messages="app",
                    send_replayable=b"question",
                )
                assert writer.early_data is expected
                if expected is stcp.EarlyData.ACCEPTED:
                    assert await reader.read_message() == b"answer to question"
                    assert writer.session_reused
                writer.write_message(b"later")
                assert await reader.read_message() == b"later"
                await finish(writer)
            assert early == [b"question"]

    run(main())


def test_early_messages_that_wait_for_the_handler() -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        for message in reader.read_early_messages():
            writer.write_message(b"early " + message)
        writer.write_message(b"done")
        writer.close()

    async def main() -> None:
        server_side, client_side = returning_contexts()
        async with await sealwire.start_server(
            handler, "127.0.0.1", 0, context=server_side, messages=True
        ) as server:
            for expected in ([b"done"], [b"early x", b"done"]):
                reader, writer = await sealwire.open_connection(
                    "127.0.0.1", port_of(server), context=client_side, messages=True, send_replayable=b"x"
                )
                assert [message async for message in reader] == expected
                await finish(writer)

    run(main())


def test_early_messages_on_blocking_sockets() -> None:
    server_side, client_side = returning_contexts()
    plain = socket.create_server(("127.0.0.1", 0))
    seen: list[list[bytes]] = []
    with server_side.wrap_socket(plain, server_side=True, messages=True) as listening:

        def work() -> None:
            for _ in range(2):
                secure, _ = listening.accept()
                with secure:
                    seen.append(secure.read_early_messages())
                    blocking_echo(secure)

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(2):
            with sealwire.create_connection(
                listening.getsockname(), 10, context=client_side, messages=True, send_replayable=b"early"
            ) as secure:
                secure.write_message(b"x")
                assert secure.read_message() == b"x"
        thread.join(20)
    assert seen == [[], [b"early"]]


def test_a_call_that_waits_for_room_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be sealed for want of room waits for time to pass, not for a socket that is ready."""
    with blocking_server(blocking_echo) as port, connect_blocking(port) as secure:
        secure.write_message(b"shaken")
        assert secure.read_message() == b"shaken"
        sealing, steps = secure.connection._seal_messages, []
        monkeypatch.setattr(secure.connection, "_seal_messages", lambda most=0: steps.append(1))
        secure.settimeout(0.3)
        secure.write_message(b"waits")
        assert len(steps) < 40
        monkeypatch.setattr(secure.connection, "_seal_messages", sealing)
        secure.settimeout(10)
        assert secure.read_message() == b"waits"
