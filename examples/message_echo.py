"""Messages over TCP: a server and a client, in one process here.

python examples/message_echo.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse
import asyncio
import sys

import sealwire
from sealwire import stcp


async def echo(reader, writer):
    async for message in reader:  # until the peer closes between two messages
        writer.write_message(message)
        await writer.drain()
    writer.close()


async def main(arguments):
    server_side = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server_side.load_cert_chain(arguments.cert, arguments.key)
    client_side = sealwire.create_default_context(cafile=arguments.cafile)
    keepalive = stcp.Keepalive(after=30, within=10)
    server = await sealwire.start_server(
        echo, "localhost", 0, context=server_side, messages="echo", keepalive=keepalive
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await sealwire.open_connection(
            "localhost", port, context=client_side, messages="echo", keepalive=keepalive
        )
        print("speaking in messages, for", writer.application)
        # These leave in one record: they are written in one turn of the loop.
        for message in (b"hello", b"", bytes(1_000)):
            writer.write_message(message)
        await writer.drain()
        for _ in range(3):
            print(len(await reader.read_message()), "bytes came back")
        # The server goes: it tells its peers, and waits for them.
        draining = asyncio.ensure_future(server.drain(5))
        while not reader.peer_going_away:
            writer.write_message(b"one more")
            await reader.read_message()
        writer.close()
        await writer.wait_closed()
        print("cut off:", await draining)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--cert", "--key", "--cafile"):
        options.add_argument(name, required=True)
    arguments = options.parse_args()
    try:
        asyncio.run(main(arguments))
    except OSError as error:  # sealwire.Error is one
        sys.exit(f"{type(error).__name__}: {error}")
