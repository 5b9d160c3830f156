"""A DTLS 1.3 server that returns every message.

sealwire cert dev                              # makes a development CA and certificates in ./dev
python examples/datagram_echo_server.py --cert dev/server.pem --key dev/server.key
"""

import argparse
import asyncio
import contextlib

import sealwire


async def echo(channel):
    """One task per peer; its address is proved and its handshake done."""
    print(f"{channel.peername[0]} speaks {channel.version()} with {channel.cipher()[0]}", flush=True)
    async for message in channel:
        await channel.send(message)


async def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--host", default="localhost")
    options.add_argument("--port", type=int, default=4433)
    options.add_argument("--cert", required=True)
    options.add_argument("--key", required=True)
    arguments = options.parse_args()

    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(arguments.cert, arguments.key)
    context.set_alpn_protocols(["echo/1"])
    async with await sealwire.start_datagram_server(
        echo, arguments.host, arguments.port, context=context
    ) as server:
        print("listening on port", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
