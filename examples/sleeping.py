"""A server whose peers sleep after a second of silence, and wake when they say something.

python examples/sleeping.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

from __future__ import annotations

import argparse
import asyncio

import sealwire
from sealwire.drive import DatagramChannel, start_datagram_server


async def echo(channel: DatagramChannel) -> None:
    async for data in channel:
        await channel.send(data)


async def run(arguments: argparse.Namespace) -> None:
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(arguments.cert, arguments.key)
    limits = sealwire.Limits(idle_seconds=1.0)
    async with await start_datagram_server(echo, "127.0.0.1", 0, context=context, limits=limits) as server:
        port = server.sockets[0].getsockname()[1]
        (endpoint,) = server.endpoints
        client = sealwire.create_default_context(cafile=arguments.cafile)
        # A keepalive or spare connection ids would be records, too.
        async with sealwire.open_datagram_channel("127.0.0.1", port, context=client) as channel:
            await channel.send(b"good evening")
            print("the server says", (await channel.recv()).decode())
            awake = endpoint.ledger.held
            while not endpoint.asleep:
                await asyncio.sleep(0.2)
            print(f"asleep: {endpoint.asleep}, bytes charged: {awake} before, {endpoint.ledger.held} now")
            await channel.send(b"good morning")
            print("the server says", (await channel.recv()).decode())
            print("woken:", endpoint.counters.connections_woken)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--cafile", required=True)
    asyncio.run(run(parser.parse_args()))
