"""What runs in the workers of tests: functions of a module, as processes started anew can import no other."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from sealwire.context import PROTOCOL_SERVER, Context
from sealwire.drive import DatagramChannel, Seat, start_datagram_server


def serving_context(certfile: Path, keyfile: Path) -> Context:
    context = Context(PROTOCOL_SERVER)
    context.load_cert_chain(certfile, keyfile)
    context.num_tickets = 1
    context.max_early_data_size = 1000
    return context


def echo(seat: Seat, certfile: Path, keyfile: Path) -> None:
    """Send back every message with the number of the worker and its process in front."""

    async def handler(channel: DatagramChannel) -> None:
        for data in channel.early_messages():
            await channel.send(b"early " + data)
        async for data in channel:
            await channel.send(b"%d %d " % (seat.index, os.getpid()) + data)

    async def main() -> None:
        server = await start_datagram_server(handler, context=serving_context(certfile, keyfile), seat=seat)
        async with server:
            await seat.serve(server)

    asyncio.run(main())


def fails(seat: Seat) -> None:
    """Never serves."""
    if seat.index == 1:
        sys.exit(7)
    asyncio.run(asyncio.sleep(60))
