"""A proxied connection, cut at every await: both its sides see an error, others nothing; nothing is left.

What test_cancellation.py does for streams; here the coroutine is the one that carries a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import sealwire
from sealwire.context import SessionStore
from sealwire.drive.aio.passage import Network, Passage, ProxySettings
from sealwire.drive.aio.proxy import Proxy, start_proxy
from sealwire.errors import Error
from sealwire.limits import Limits
from sealwire.proxy import Header, Routes, Target
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_stream, eventually, port_of, run
from tests.unit.drive.test_cancellation import at_every_await, cancelled_at
from tests.unit.drive.test_proxy import plain_connection, receive, send

LOOPBACK = Target("127.0.0.1", 0)
HEADER = Header(("192.0.2.1", 1), ("192.0.2.2", 2)).encode()


class Cut(Proxy):
    """A proxy whose next connection is cancelled at its nth await; -1 for none."""

    nth = -1
    through: bool | None = None

    async def _carry(self, passage: Passage) -> None:
        nth, self.nth = self.nth, -1
        if nth < 0:
            await super()._carry(passage)
        else:
            self.through = None
            self.through = await cancelled_at(super()._carry(passage), nth)


@pytest.fixture(autouse=True)
def _cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealwire.drive.aio.proxy.Proxy", Cut)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1_000):
            writer.write(data)
            await writer.drain()
    writer.close()


async def started(settings: ProxySettings, context: sealwire.Context) -> Cut:
    proxy = await start_proxy(settings, context=context, limits=Limits(handshake_seconds=5))
    assert isinstance(proxy, Cut)
    return proxy


async def at_each(proxy: Cut, ask: Callable[[], Awaitable[bool]]) -> int:
    """`ask` for every place to cut, beside a connection that lives; how many there were."""
    held = proxy.ledger.held

    async def attempt(nth: int) -> bool:
        proxy.nth = nth
        asked = await ask()
        await eventually(lambda: proxy.connections == 1 and proxy.through is not None)
        through = proxy.through
        # An answer means that it came through, and nobody was told of an end in order who had not all.
        assert asked == bool(through)
        await eventually(lambda: proxy.ledger.held <= held)
        assert proxy.handshaking == 0
        return bool(through)

    return await at_every_await(attempt)


@contextlib.asynccontextmanager
async def secure_in() -> AsyncIterator[Cut]:
    """With a header to read, one to say, a name to resolve, and the plain service behind."""
    before = asyncio.all_tasks()
    everybody: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"),)
    async with await asyncio.start_server(_behind_a_header, "127.0.0.1", 0) as backend:
        routes = Routes(Target("localhost", port_of(backend)))
        settings = ProxySettings(listen=LOOPBACK, routes=routes, accept_header=everybody, send_header=True)
        proxy = await started(settings, server_context())
        async with proxy:
            yield proxy
        assert proxy.ledger.held == 0
    # The plain service sees a turn later that its connections are gone.
    await eventually(lambda: asyncio.all_tasks() <= before)


async def _behind_a_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await reader.readexactly(16)
        await reader.readexactly(int.from_bytes(head[14:], "big"))
    await echo(reader, writer)


async def _open(proxy: Proxy) -> Any:
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, proxy.sockets[0].getsockname())
    await loop.sock_sendall(sock, HEADER)
    return await sealwire.open_connection(
        sock=sock, context=client_context(), server_hostname="localhost", timeout=5
    )


async def _ask(reader: Any, writer: Any) -> bytes:
    writer.write(b"hello")
    await writer.drain()
    answer: bytes = await reader.readexactly(5)
    return answer


def test_secure_in() -> None:
    async def main() -> None:
        async with secure_in() as proxy:
            reader, writer = await _open(proxy)
            assert await _ask(reader, writer) == b"hello"

            async def ask() -> bool:
                try:
                    near, far = await _open(proxy)
                except (Error, ConnectionError):
                    return False
                try:
                    assert await _ask(near, far) == b"hello"
                    far.write_eof()
                    assert await near.read() == b""
                except Error:  # and not IncompleteReadError, which would say that a cut looked like an end
                    return False
                finally:
                    far.close()
                    await far.wait_closed()
                assert await _ask(reader, writer) == b"hello"
                return True

            assert await at_each(proxy, ask) >= 5
            assert await _ask(reader, writer) == b"hello"
            writer.close()
            await writer.wait_closed()

    run(main(), seconds=60)


def test_secure_out() -> None:
    async def main() -> None:
        async with await sealwire.start_server(
            echo_stream, "127.0.0.1", 0, context=server_context()
        ) as server:
            context = client_context()
            context.session_store = SessionStore()
            settings = ProxySettings(listen=LOOPBACK, secure=Target("localhost", port_of(server)))
            proxy = await started(settings, context)
            async with proxy:
                with await plain_connection(proxy) as living:
                    await send(living, b"hello")
                    assert await receive(living, 5) == b"hello"

                    async def ask() -> bool:
                        with await plain_connection(proxy) as client:
                            try:
                                await send(client, b"hello")
                                if await receive(client, 5) != b"hello":
                                    raise AssertionError("a cut looked like an end")
                                client.shutdown(socket.SHUT_WR)
                                assert await receive(client, 1) == b""
                            except ConnectionError:
                                return False
                        await send(living, b"again")
                        assert await receive(living, 5) == b"again"
                        return True

                    assert await at_each(proxy, ask) >= 3
            assert proxy.ledger.held == 0
            await eventually(lambda: server.connections == 0)

    run(main(), seconds=60)


@pytest.mark.parametrize("end", ["drain", "cut"])
def test_ending_a_proxy(end: str) -> None:
    """Cancelled, it listens no more, and what is there can still be cut."""

    async def main() -> None:
        async def attempt(nth: int) -> bool:
            async with secure_in() as proxy:
                reader, writer = await _open(proxy)
                assert await _ask(reader, writer) == b"hello"
                through = await cancelled_at(proxy.drain(0.02) if end == "drain" else proxy.cut(), nth)
                assert not proxy.sockets
                if nth == 0 and end == "drain":
                    assert await _ask(reader, writer) == b"hello"  # it lives on, as nothing was cut yet
                await proxy.cut()
                assert proxy.connections == 0
                with pytest.raises(Error):
                    await reader.readexactly(1)
                writer.close()
                await writer.wait_closed()
            return through

        assert await at_every_await(attempt) >= 1
        await asyncio.sleep(0.01)  # who was behind the proxy hears of the last reset

    run(main(), seconds=60)
