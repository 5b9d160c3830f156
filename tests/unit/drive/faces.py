"""The faces of a stream side by side, each run so that a test which blocks can be its peer.

A server face echoes and says what its handlers saw; a client face connects, asks once and reads to the end.
asyncio ones run in a thread with a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sealwire
from sealwire.drive import ListeningSocket, StreamReader, StreamWriter
from sealwire.drive.aio.passage import ProxySettings, Report
from sealwire.drive.aio.proxy import start_proxy
from sealwire.drive.blocking import StreamSocket, ThreadedServer
from sealwire.limits import Limits
from sealwire.proxy import Routes, Target
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_stream, port_of

T = TypeVar("T")
SECONDS = 10.0


def eventually(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextmanager
def in_a_thread(make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """What `make` gives, alive in a loop of its own until the block ends."""
    ready: list[T] = []
    failed: list[BaseException] = []
    started = threading.Event()
    ending: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        end = asyncio.Event()
        async with make() as made:
            ready.append(made)
            ending.append((asyncio.get_running_loop(), end))
            started.set()
            await end.wait()

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)
        started.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(SECONDS)
    try:
        if ready:
            yield ready[0]
    finally:
        for loop, end in ending:
            loop.call_soon_threadsafe(end.set)
        thread.join(SECONDS)
        assert not thread.is_alive()
    if failed:
        raise failed[0]


# -- servers


@dataclass
class ServerFace:
    """A server that echoes.

    Attributes:
        port: where it listens.
        messages: whether it speaks in messages.
        failed: handshakes that came to nothing.
        living: connections now.
        ends: what ended each connection that had its handshake; None for an orderly end.
        held: bytes its ledger holds; 0 where each connection has one of its own.
    """

    port: int
    messages: bool
    failed: Callable[[], int]
    living: Callable[[], int]
    ends: list[BaseException | None] = field(default_factory=list)
    held: Callable[[], int] = lambda: 0


def _echo(secure: StreamSocket, ends: list[BaseException | None]) -> None:
    try:
        if secure.message_mode:
            for message in secure.messages():
                secure.write_message(message)
        else:
            while data := secure.recv():
                secure.sendall(data)
    except sealwire.Error:
        pass
    finally:
        ends.append(secure.connection.error)


@contextmanager
def threaded(limits: Limits, seconds: float) -> Iterator[ServerFace]:
    ends: list[BaseException | None] = []

    def handler(request: StreamSocket, _address: object, _server: object) -> None:
        _echo(request, ends)

    with ThreadedServer(
        ("127.0.0.1", 0), handler, context=server_context(), messages=True, limits=limits,
        handshake_timeout=seconds, threads=8,
    ) as server:  # fmt: skip
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        port = server.socket.getsockname()[1]
        try:
            yield ServerFace(port, True, lambda: server.handshakes_failed, lambda: server.connections, ends)
        finally:
            server.shutdown()
            thread.join(SECONDS)


@contextmanager
def listening(limits: Limits, seconds: float) -> Iterator[ServerFace]:
    """`wrap_socket` of a listening socket, and a thread for each connection."""
    ends: list[BaseException | None] = []
    failures: list[OSError] = []
    threads: list[threading.Thread] = []
    plain = socket.create_server(("127.0.0.1", 0))
    secure = server_context().wrap_socket(
        plain, server_side=True, do_handshake_on_connect=False, limits=limits
    )
    assert isinstance(secure, ListeningSocket)

    def one(connection: StreamSocket) -> None:
        with connection:
            connection.settimeout(seconds)
            try:
                connection.do_handshake()
            except OSError as error:
                failures.append(error)
                return
            connection.settimeout(None)
            _echo(connection, ends)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = secure.accept()
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    port = secure.getsockname()[1]
    try:
        yield ServerFace(
            port, False, lambda: len(failures), lambda: sum(one.is_alive() for one in threads), ends
        )
    finally:
        secure._sock.shutdown(socket.SHUT_RDWR)  # ends accept
        secure.close()
        for thread in (accepting, *threads):
            thread.join(SECONDS)


@contextmanager
def aio(limits: Limits, seconds: float) -> Iterator[ServerFace]:
    ends: list[BaseException | None] = []

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await echo_stream(reader, writer)
        finally:
            ends.append(reader.exception())

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with await sealwire.start_server(
            handler, "127.0.0.1", 0, context=server_context(), limits=limits
        ) as server:
            yield server

    with in_a_thread(make) as server:
        yield ServerFace(
            port_of(server),
            False,
            lambda: server.counters.handshakes_failed,
            lambda: server.connections,
            ends,
            lambda: server.ledger.held,
        )


@contextmanager
def proxied(limits: Limits, seconds: float) -> Iterator[ServerFace]:
    """A proxy in front of a plain echo: its ends are what the plain service saw."""
    ends: list[BaseException | None] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        error: BaseException | None = None
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError as caught:
            error = caught
        finally:
            ends.append(error)
            writer.close()

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with await asyncio.start_server(service, "127.0.0.1", 0) as backend:
            settings = ProxySettings(
                listen=Target("127.0.0.1", 0), routes=Routes(Target(*backend.sockets[0].getsockname()))
            )
            async with await start_proxy(settings, context=server_context(), limits=limits) as proxy:
                yield proxy

    with in_a_thread(make) as proxy:
        yield ServerFace(
            port_of(proxy),
            False,
            lambda: proxy.counters.handshakes_failed,
            lambda: proxy.connections,
            ends,
            lambda: proxy.ledger.held,
        )


SERVERS = {"threads": threaded, "blocking": listening, "asyncio": aio, "proxy": proxied}


class Honest:
    """A client whose questions come back, whatever others do."""

    def __init__(self, face: ServerFace) -> None:
        secure = sealwire.create_connection(
            ("127.0.0.1", face.port), SECONDS, context=client_context(), messages=face.messages
        )
        assert isinstance(secure, StreamSocket)
        self.secure = secure
        self.messages = face.messages
        self.count = 0

    def ask(self) -> None:
        self.count += 1
        question = b"%08d" % self.count
        if self.messages:
            self.secure.write_message(question)
            assert self.secure.read_message() == question
        else:
            self.secure.sendall(question)
            answer = b""
            while len(answer) < len(question):
                answer += self.secure.recv()
            assert answer == question

    def __enter__(self) -> Honest:
        return self

    def __exit__(self, *_: object) -> None:
        self.secure.close()


# -- clients: what a connection to a port ended with, after one question if it came so far


def aio_client(port: int, seconds: float) -> BaseException | None:
    async def main() -> BaseException | None:
        try:
            reader, writer = await sealwire.open_connection(
                "127.0.0.1", port, context=client_context(), server_hostname="localhost", timeout=seconds
            )
        except OSError as error:
            return error
        try:
            writer.write(b"question")
            await writer.drain()
            while await reader.read(100):
                pass
        except OSError as error:
            return error
        finally:
            writer.close()
            await writer.wait_closed()
        return None

    return asyncio.run(main())


def blocking_client(port: int, seconds: float) -> BaseException | None:
    try:
        with sealwire.create_connection(
            ("127.0.0.1", port), seconds, context=client_context(), server_hostname="localhost"
        ) as secure:
            assert isinstance(secure, StreamSocket)
            secure.settimeout(SECONDS)
            secure.sendall(b"question")
            while secure.recv():
                pass
    except OSError as error:
        return error
    return None


def proxy_client(port: int, seconds: float) -> BaseException | None:
    """A plain client behind a proxy; what the proxy reports, if the client saw an error as well."""
    reports: list[Report] = []

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        settings = ProxySettings(
            listen=Target("127.0.0.1", 0), secure=Target("127.0.0.1", port), server_name="localhost"
        )
        async with await start_proxy(
            settings,
            context=client_context(),
            limits=Limits(handshake_seconds=seconds),
            on_trouble=reports.append,
        ) as proxy:
            yield proxy
            assert proxy.connections == proxy.handshaking == 0
            assert proxy.ledger.held == 0

    with in_a_thread(make) as proxy, socket.create_connection(("127.0.0.1", port_of(proxy))) as plain:
        plain.settimeout(SECONDS)
        broke = False
        try:
            plain.sendall(b"question")
            while plain.recv(100):
                pass
        except ConnectionError:
            broke = True
        eventually(lambda: proxy.connections == 0)
        assert broke == bool(reports), "a client must not take a broken connection for an end"
    return reports[0].error if reports else None


CLIENTS = {"asyncio": aio_client, "blocking": blocking_client, "proxy": proxy_client}
