"""The demo's receiving side, a process of its own: `python -m sealwire.cli.receive KIND DIR`.

KIND is "datagrams" (DTLS and plain UDP) or "streams" (TLS and plain TCP); DIR has server.pem and
server.key.  Both servers of a kind do the same work: answer pings, take a file, say its SHA-256.
One line of JSON on stdout names the two ports; the process ends when its stdin does, so it never
outlives the demo.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import sealwire
from sealwire.cli import transfer
from sealwire.cli.plain import HOST, serve_transfers

if TYPE_CHECKING:
    from sealwire.cli.send import Reader, Writer
    from sealwire.drive.aio import DatagramChannel, DatagramServer, StreamServer

_READ_BYTES = 256 * 1024


async def take_datagrams(channel: DatagramChannel) -> None:
    """One DTLS peer's file and pings."""
    receiver = transfer.Receiver()
    async for message in channel:
        for answer in receiver.receive(message):
            await channel.send(answer)


async def take_stream(reader: Reader, writer: Writer) -> None:
    """One TLS or TCP peer's file and pings."""
    while kind := await reader.read(1):
        if kind[0] == transfer.PING:
            writer.write(bytes([transfer.PONG]) + await reader.readexactly(transfer.PING_BYTES - 1))
        else:
            size = transfer.announced_bytes(kind + await reader.readexactly(transfer.OPEN_BYTES - 1))
            digest = hashlib.sha256()
            while size:
                data = await reader.read(min(size, _READ_BYTES))
                if not data:
                    return
                digest.update(data)
                size -= len(data)
            writer.write(bytes([transfer.VERDICT]) + digest.digest())
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def serve(kind: str, directory: Path) -> None:
    """Both servers of `kind`, until stdin ends."""
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    async with AsyncExitStack() as servers:
        secured: DatagramServer | StreamServer
        if kind == "datagrams":
            secured = await servers.enter_async_context(
                await sealwire.start_datagram_server(take_datagrams, HOST, 0, context=context)
            )
            plain_port = servers.enter_context(serve_transfers()).port
        else:
            secured = await servers.enter_async_context(
                await sealwire.start_server(take_stream, HOST, 0, context=context)
            )
            plain = await asyncio.start_server(take_stream, HOST, 0)
            await servers.enter_async_context(plain)
            plain_port = plain.sockets[0].getsockname()[1]
        secured_port = secured.sockets[0].getsockname()[1]
        print(json.dumps({"secured": secured_port, "plain": plain_port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
