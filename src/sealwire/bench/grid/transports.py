"""The three transports of the grid, each as its users use it.

Plain TCP and Python's ssl are asyncio streams, where an application puts a length in front of each
message by itself; STCP brings messages.  A `Framing` says how one is sent and received, so that server
and clients are the same lines of code for all.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import sealwire
from sealwire.bench.measurement import Bench
from sealwire.bench.rivals.openssl_memory import ssl_contexts
from sealwire.drive.aio import StreamReader, StreamWriter
from sealwire.errors import Error

LENGTH: Final = struct.Struct(">I")
_HOST_NAME: Final = "localhost"
# A server here has to hold as many connections from one address as somebody wants to measure.
_BACKLOG: Final = 1024
# As everybody else here.
_SUITE: Final = "TLS_AES_128_GCM_SHA256"
_GROUP: Final = "x25519"
_LIMITS: Final = sealwire.Limits(
    connections=2_000, handshakes=500, prefix_connections=2_000, prefix_handshakes=500, site_handshakes=500
)

Handler = Callable[[Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Framing:
    """`send(writer, message)` and `await receive(reader)`."""

    send: Callable[[Any, bytes], None]
    receive: Callable[[Any], Awaitable[bytes]]


def _send(writer: Any, message: bytes) -> None:
    writer.write(LENGTH.pack(len(message)) + message)


async def _receive(reader: Any) -> bytes:
    (n,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    data: bytes = await reader.readexactly(n)
    return data


BYTES: Final = Framing(_send, _receive)
MESSAGES: Final = Framing(StreamWriter.write_message, StreamReader.read_message)


class Listening(Protocol):
    """What asyncio's and our servers have in common."""

    @property
    def sockets(self) -> Any: ...

    def close(self) -> None: ...


class Transport:
    """Plain TCP.

    Attributes:
        framing: how messages are told apart.
        over: what ends a conversation without being an error of the server's.
    """

    name = "tcp"
    framing = BYTES
    over: tuple[type[BaseException], ...] = (asyncio.IncompleteReadError, OSError)

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def serve(self, handler: Handler, host: str, port: int) -> Listening:
        return await asyncio.start_server(handler, host, port, ssl=self._serving(), backlog=_BACKLOG)

    async def connect(self, host: str, port: int) -> tuple[Any, Any]:
        context = self._connecting()
        name = _HOST_NAME if context is not None else None
        return await asyncio.open_connection(host, port, ssl=context, server_hostname=name)

    def _serving(self) -> ssl.SSLContext | None:
        return None

    def _connecting(self) -> ssl.SSLContext | None:
        return None


class PythonSsl(Transport):
    """Python's ssl, TLS 1.3."""

    name = "ssl"

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.server_context, self._client = ssl_contexts(bench.directory)

    def _serving(self) -> ssl.SSLContext:
        return self.server_context

    def _connecting(self) -> ssl.SSLContext:
        return self._client


class Stcp(Transport):
    """STCP."""

    name = "stcp"
    framing = MESSAGES
    over = (asyncio.IncompleteReadError, OSError, Error)

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.server_context = sealwire.Context(sealwire.PROTOCOL_SERVER)
        self.server_context.load_cert_chain(bench.directory / "server.pem", bench.directory / "server.key")
        self._client = sealwire.Context(sealwire.PROTOCOL_CLIENT)
        self._client.load_verify_locations(cafile=bench.directory / "ca.pem")
        for context in (self.server_context, self._client):
            context.set_ciphersuites(_SUITE)
            context.set_groups(_GROUP)
        self.limits = _LIMITS
        bench.crypto.remove_ciphers()

    async def serve(self, handler: Handler, host: str, port: int) -> Listening:
        return await sealwire.start_server(
            handler,
            host,
            port,
            context=self.server_context,
            limits=self.limits,
            backlog=_BACKLOG,
            messages=True,
        )

    async def connect(self, host: str, port: int) -> tuple[Any, Any]:
        return await sealwire.open_connection(
            host, port, context=self._client, server_hostname=_HOST_NAME, messages=True
        )


TRANSPORTS: Final[dict[str, type[Transport]]] = {one.name: one for one in (Transport, PythonSsl, Stcp)}
