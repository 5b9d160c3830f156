"""The servers of the grid: each message comes back, or is counted.

A connection whose first message is `COUNT` is one that only sends: what comes is compared with its
first message and counted, and `ASK` is answered with both numbers.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final

from sealwire.bench.grid.transports import Framing, Transport

COUNT: Final = b"count"
ASK: Final = b"ask"
#: The answer to ASK: messages as they should be, and others.
ANSWER: Final = struct.Struct(">QQ")


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """An event loop by name, ``asyncio`` or ``uvloop``.  ImportError if it is not installed."""
    if name == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()


class Server:
    """One echo server on an event loop.

    Attributes:
        port: where it listens.
        failures: conversations that ended by something else than their end.
    """

    def __init__(self, transport: Transport, host: str, port: int) -> None:
        self._transport = transport
        self._host = host
        self.port = port
        self.failures = 0

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled; `ready` is called once clients may come."""
        server = await self._transport.serve(self._attend, self._host, self.port)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()

    async def _attend(self, reader: Any, writer: Any) -> None:
        try:
            await converse(self._transport.framing, reader, writer)
        except self._transport.over:
            pass
        except Exception:
            self.failures += 1
            raise
        finally:
            writer.close()


async def converse(framing: Framing, reader: Any, writer: Any) -> None:
    """Answer until the peer is gone, which raises."""
    send, receive = framing.send, framing.receive
    message = await receive(reader)
    if message == COUNT:
        await _count(framing, reader, writer)
    while True:
        send(writer, message)
        await writer.drain()
        message = await receive(reader)


async def _count(framing: Framing, reader: Any, writer: Any) -> None:
    receive = framing.receive
    good = bad = 0
    first = await receive(reader)
    message = first
    while True:
        if message == first:
            good += 1
        elif message == ASK:
            framing.send(writer, ANSWER.pack(good, bad))
            await writer.drain()
        else:
            bad += 1
        message = await receive(reader)
