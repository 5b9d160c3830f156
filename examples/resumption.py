"""Coming back: a client keeps session tickets, so that its next connections need no certificates.

python examples/resumption.py --cert server.pem --key server.key --cafile ca.pem
"""

import argparse
import asyncio
import os
import socket
import tempfile

import sealwire


async def on_channel(channel):
    async for data in channel:
        await channel.send(data)


async def on_stream(reader, writer):
    writer.write(await reader.read(4096))
    await writer.drain()
    writer.close()


def tell(connected, store, *more):
    how = "resumed" if connected.session_reused else "full handshake"
    kept = "1 ticket kept" if len(store) == 1 else f"{len(store)} tickets kept"
    print(", ".join((f"{connected.version()} {how}", kept, *more)))


async def datagrams(port, context, *more):
    async with sealwire.open_datagram_channel("localhost", port, context=context) as channel:
        await channel.send(b"hello")
        assert await channel.recv() == b"hello"
        await asyncio.sleep(0.1)  # datagrams keep no order: the ticket may come after the answer
        tell(channel, context.session_store, *more)


async def stream(port, context):
    reader, writer = await sealwire.open_connection("localhost", port, context=context)
    writer.write(b"hello")
    assert await reader.read(4096) == b"hello"
    tell(writer, context.session_store)
    writer.close()
    await writer.wait_closed()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--cafile", required=True)
    args = parser.parse_args()

    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server.load_cert_chain(args.cert, args.key)
    server.num_tickets = 2

    client = sealwire.create_default_context(cafile=args.cafile)
    client.session_store = sealwire.SessionStore()

    family = socket.AF_INET
    over_udp = await sealwire.start_datagram_server(on_channel, "localhost", 0, context=server, family=family)
    over_tcp = await sealwire.start_server(on_stream, "localhost", 0, context=server, family=family)
    async with over_udp, over_tcp:
        udp, tcp = (one.sockets[0].getsockname()[1] for one in (over_udp, over_tcp))
        for _ in range(2):
            await datagrams(udp, client)
        for _ in range(2):
            await stream(tcp, client)
        # Another process would do the same: the file is its owner's alone.
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "sessions")
            client.session_store.save(path)
            client.session_store = sealwire.SessionStore.load(path)
            await datagrams(udp, client, "from a file")
            client.session_store.save(path)  # without the ticket that was used


asyncio.run(main())
