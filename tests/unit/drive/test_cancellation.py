"""Cancelled or timed out at every await: a stream stays usable or is closed; nothing is lost or half sent."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

import sealwire
from sealwire import stcp
from sealwire.drive import StreamReader, StreamServer, StreamWriter
from sealwire.errors import ConnectionClosed
from sealwire.limits import Limits
from tests import certificates
from tests.certificates import Kind
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_stream, eventually, port_of, run
from tests.unit.drive.test_messages import echo

# Enough for the longest of what is cancelled here; each is played until it comes through.
MOST_AWAITS = 200
Ends = tuple[StreamReader, StreamWriter]


@types.coroutine
def cancelled_at(coroutine: Coroutine[Any, Any, Any], nth: int) -> Generator[Any, Any, bool]:
    """Run `coroutine` and cancel it at its nth await, 0 being the first; whether it came through before."""
    task = asyncio.current_task()
    assert task is not None
    waits = coroutine.send
    value: Any = None
    count = 0
    while True:
        try:
            future = waits(value)
        except StopIteration:
            return True
        except asyncio.CancelledError:
            task.uncancel()
            return False
        if count == nth:
            task.cancel()
        count += 1
        try:
            value = yield future
            waits = coroutine.send
        except BaseException as error:
            value, waits = error, coroutine.throw


async def at_every_await(attempt: Callable[[int], Awaitable[bool]]) -> int:
    """Call `attempt(nth)` for each await in turn, until one comes through; how many were cancelled."""
    for nth in range(MOST_AWAITS):
        if await attempt(nth):
            return nth
    raise AssertionError("it never came through")


async def served(handler: Any = echo, **options: Any) -> StreamServer:
    return await sealwire.start_server(handler, "127.0.0.1", 0, context=server_context(), **options)


async def connect(server: StreamServer, **options: Any) -> Ends:
    return await sealwire.open_connection("127.0.0.1", port_of(server), context=client_context(), **options)


async def finish(writer: StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("messages", [False, True])
def test_opening(messages: bool) -> None:
    """What is cancelled leaves nothing behind, and the next one is served."""

    async def main() -> None:
        async with await served(echo if messages else echo_stream, messages=messages) as server:

            async def attempt(nth: int) -> bool:
                opened: list[Ends] = []

                async def open_one() -> None:
                    opened.append(await connect(server, messages=messages))

                through = await cancelled_at(open_one(), nth)
                assert through == bool(opened)
                for _, writer in opened:
                    await finish(writer)
                return through

            assert await at_every_await(attempt) >= 2
            await eventually(lambda: server.connections == 0)
            assert server.ledger.held == 0

    run(main())


def test_opening_what_fails() -> None:
    """Cancelled while a peer that is not trusted takes its time with our alert, the socket is closed."""
    strangers = client_context(certificates.server(Kind.RSA_2048).cafile)

    async def stubborn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine = stcp.Connection.server(server_context().config(), now=time.monotonic())
        while data := await reader.read(65_536):
            engine.receive_data(data, time.monotonic())
            if flight := engine.data_to_send():
                writer.write(flight)
                await ended.wait()
        engine.release()
        writer.close()

    ended = asyncio.Event()

    async def main() -> None:
        async with await asyncio.start_server(stubborn, "127.0.0.1", 0) as server:

            async def open_one() -> None:
                with pytest.raises(sealwire.CertificateError):
                    await sealwire.open_connection("127.0.0.1", port_of(server), context=strangers)

            async def attempt(nth: int) -> bool:
                before = our_sockets(port_of(server))
                through = await cancelled_at(open_one(), nth)
                assert our_sockets(port_of(server)) <= before
                return through

            assert await at_every_await(attempt) >= 3
            with pytest.raises(sealwire.CertificateError):  # and not that it took too long
                await sealwire.open_connection("127.0.0.1", port_of(server), context=strangers, timeout=0.5)
            assert our_sockets(port_of(server)) == 0
            ended.set()
            await asyncio.sleep(0.05)

    run(main())


def our_sockets(port: int) -> int:
    """How many of this process's sockets are connected to `port`."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    found += sock.getpeername()[1] == port
        except (OSError, IndexError):
            continue  # gone, not connected, or a Unix one
    return found


def test_messages() -> None:
    """Numbers there and back: after each cancellation the next is where the last one was."""

    async def main() -> None:
        async with await served(messages=True) as server:
            reader, writer = await connect(server, messages=True)
            sent = came = 0

            async def exchange() -> None:
                nonlocal sent, came
                for _ in range(3):
                    writer.write_message(str(sent).encode())
                    sent += 1
                    await writer.drain()
                while came < sent:
                    assert await reader.read_message() == str(came).encode()
                    came += 1

            async def attempt(nth: int) -> bool:
                return await cancelled_at(exchange(), nth)

            for _ in range(20):
                assert await at_every_await(attempt) >= 1
            await exchange()
            assert came == sent
            await finish(writer)

    run(main())


def test_batches_of_messages() -> None:
    async def main() -> None:
        async with await served(messages=True) as server:
            reader, writer = await connect(server, messages=True)
            sent, came = 0, list[bytes]()

            async def exchange() -> None:
                nonlocal sent
                for _ in range(10):
                    writer.write_message(str(sent).encode())
                    sent += 1
                while len(came) < sent:
                    came.extend(await reader.read_messages())

            async def attempt(nth: int) -> bool:
                return await cancelled_at(exchange(), nth)

            for _ in range(20):
                await at_every_await(attempt)
            await exchange()
            assert came == [str(n).encode() for n in range(sent)]
            await finish(writer)

    run(main())


def test_draining_a_full_writer() -> None:
    """A drain that is cancelled took nothing back: what was written arrives, once."""

    async def main() -> None:
        async with await served(messages=True, limits=Limits(receive_queue_bytes=10_000)) as server:
            reader, writer = await connect(server, messages=True, limits=Limits(send_queue_bytes=10_000))
            sent = came = 0

            async def write_one() -> None:
                nonlocal sent
                await writer.drain()
                writer.write_message(bytes([sent & 0xFF]) * 120_000)
                sent += 1
                await writer.drain()

            async def read_all() -> None:
                nonlocal came
                while came < sent:
                    assert await reader.read_message() == bytes([came & 0xFF]) * 120_000
                    came += 1

            async def attempt(nth: int) -> bool:
                through = await cancelled_at(write_one(), nth)
                await read_all()
                return through

            for _ in range(5):
                await at_every_await(attempt)
            await read_all()
            await finish(writer)

    run(main(), seconds=60)


def test_bytes() -> None:
    async def main() -> None:
        async with await served(echo_stream) as server:
            reader, writer = await connect(server)
            sent = came = 0

            async def exchange() -> None:
                nonlocal sent, came
                for _ in range(3):
                    writer.write(b"%05d\n" % sent)
                    sent += 1
                    await writer.drain()
                while came < sent:
                    kind = came % 3
                    read = (reader.readexactly(6), reader.readline(), reader.readuntil(b"\n"))
                    for unused in read[:kind] + read[kind + 1 :]:
                        unused.close()
                    assert await read[kind] == b"%05d\n" % came
                    came += 1

            async def attempt(nth: int) -> bool:
                return await cancelled_at(exchange(), nth)

            for _ in range(20):
                await at_every_await(attempt)
            await exchange()
            await finish(writer)

    run(main())


@pytest.mark.parametrize("ask", ["everything", "more than waits", "lines"])
def test_long_reads(ask: str) -> None:
    """What was collected for a call that was cancelled is the first of what the next one gives."""
    data = b"".join(b"%07d\n" % n for n in range(12_500))

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        for at in range(0, len(data), 4_096):
            writer.write(data[at : at + 4_096])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async def main() -> None:
        async with await served(handler) as server:
            reader, writer = await connect(server, limits=Limits(receive_queue_bytes=20_000))
            came = bytearray()

            async def read() -> None:
                if ask == "everything":
                    came.extend(await reader.read())
                elif ask == "more than waits":
                    came.extend(await reader.readexactly(len(data)))
                else:
                    async for line in reader:
                        assert line == b"%07d\n" % (len(came) // 8)
                        came.extend(line)

            count = 0
            while not await cancelled_at(read(), count % 4):
                count += 1
                assert count < 2_000
            assert count >= 1
            assert came == data
            await finish(writer)

    run(main())


async def read_to_the_end(reader: StreamReader) -> None:
    while True:
        await reader.read_message()


def test_closing() -> None:
    """A wait_closed that is cancelled closes at once; nothing stays open."""

    async def main() -> None:
        async with await served(messages=True) as server:

            async def attempt(nth: int) -> bool:
                reader, writer = await connect(server, messages=True)
                writer.write_message(b"x")
                through = await cancelled_at(finish(writer), nth)
                await eventually(lambda: writer._stream.gone.done())
                with pytest.raises(ConnectionClosed):
                    await read_to_the_end(reader)
                return through

            assert await at_every_await(attempt) >= 1

    run(main())


@pytest.mark.parametrize("end", ["drain", "shutdown"])
def test_ending_a_server(end: str) -> None:
    """Cancelled, it closes what is there by force, as a second call would."""

    async def main() -> None:
        async def attempt(nth: int) -> bool:
            server = await served(messages=True)
            reader, writer = await connect(server, messages=True)
            ending = server.drain(0.02) if end == "drain" else server.shutdown(0.02)
            through = await cancelled_at(ending, nth)
            assert not server.sockets
            await server.shutdown(0.02)
            assert server.connections == 0
            with pytest.raises(ConnectionClosed):
                await reader.read_message()
            await finish(writer)
            return through

        assert await at_every_await(attempt) >= 1

    run(main())


def test_a_timeout_is_no_end() -> None:
    async def main() -> None:
        async with await served(messages=True) as server:
            reader, writer = await connect(server, messages=True)
            for n in range(20):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await reader.read_message()
                writer.write_message(str(n).encode())
                assert await reader.read_message() == str(n).encode()
            await finish(writer)

    run(main())


def test_a_handler_that_is_cancelled_ends_its_connection() -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        async def read() -> None:
            await reader.read_message()

        assert not await cancelled_at(read(), 0)
        writer.write_message(b"still usable")
        await writer.drain()
        await cancelled_at_and_raised(read())

    async def main() -> None:
        async with await served(handler, messages=True) as server:
            reader, writer = await connect(server, messages=True)
            assert await reader.read_message() == b"still usable"
            with pytest.raises(ConnectionClosed):
                await reader.read_message()
            await finish(writer)
            await eventually(lambda: server.connections == 0)

    run(main())


async def cancelled_at_and_raised(coroutine: Coroutine[Any, Any, Any]) -> None:
    await cancelled_at(coroutine, 0)
    raise asyncio.CancelledError
