"""A server that strangers flood with hellos while a client is connected and another one comes.

python examples/flooded.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse
import asyncio
import os
import socket

import sealwire
from sealwire import dtls


async def echo(channel):
    async for data in channel:
        await channel.send(data)


def hello():
    """The first datagram of a client, as anybody can make one."""
    context = sealwire.Context(sealwire.PROTOCOL_CLIENT)
    context.check_hostname = False
    context.verify_mode = sealwire.CERT_NONE
    (datagram,) = dtls.Connection.client(context.config(), now=0.0).transmit(0.0)
    return datagram


async def flood(address, count):
    """Hellos from many ports; on loopback every one of them is somebody else's address."""
    first = hello()
    # The random bytes stand behind the headers of record and fragment, and the version.
    at = 13 + 12 + 2
    for _ in range(count // 100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(100):
                stranger.sendto(first[:at] + os.urandom(32) + first[at + 32 :], address)
        await asyncio.sleep(0)


async def main(args):
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(args.cert, args.key)
    client = sealwire.create_default_context(cafile=args.cafile)
    # So few that a flood from one process is one.
    limits = sealwire.Limits(hello_replies_per_second=200)
    async with await sealwire.start_datagram_server(
        echo, "127.0.0.1", 0, context=context, limits=limits
    ) as server:
        address = server.sockets[0].getsockname()
        print("sockets:", *server.steering)
        async with sealwire.open_datagram_channel(
            *address, context=client, server_hostname="localhost"
        ) as one:
            await flood(address, 5_000)
            await one.send(b"still here")
            print("connected:", (await one.recv()).decode())
            async with sealwire.open_datagram_channel(
                *address, context=client, server_hostname="localhost"
            ) as other:
                await other.send(b"came in a flood")
                print("new:", (await other.recv()).decode())
        counters = server.statistics()
        silent = counters.get("discard.under_load", 0)
        print("strangers answered:", counters["hello_retry_requests"] - 2, "with silence:", silent > 0)

        server.block("127.0.0.0/8", seconds=60)
        try:
            async with asyncio.timeout(1):
                async with sealwire.open_datagram_channel(
                    *address, context=client, server_hostname="localhost"
                ):
                    print("let in")
        except TimeoutError:
            print("kept out:", *server.listed())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("cert", "key", "cafile"):
        parser.add_argument(f"--{name}", required=True)
    asyncio.run(main(parser.parse_args()))
