"""A test that notices a channel nobody closes.

python examples/no_leaks.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse
import asyncio

import sealwire
from sealwire.testing import Leaks, assert_no_leaks


async def echo(channel):
    async for data in channel:
        await channel.send(data)


async def ask(port, context, *, forget):
    """The program under test: with `forget` it has a bug."""
    channel = await sealwire.open_datagram_channel("localhost", port, context=context)
    await channel.send(b"hello")
    answer = await channel.recv()
    if not forget:
        await channel.aclose()
    return channel, answer


async def main(args):
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(args.cert, args.key)
    client = sealwire.create_default_context(cafile=args.cafile)
    async with await sealwire.start_datagram_server(echo, "localhost", 0, context=context) as server:
        port = server.sockets[0].getsockname()[1]

        async with assert_no_leaks():
            await ask(port, client, forget=False)
        print("closed: nothing is left")

        channel = None
        try:
            async with assert_no_leaks():
                channel, _ = await ask(port, client, forget=True)
        except Leaks as leaks:
            print("forgotten:", str(leaks).splitlines()[0])
        await channel.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--cert", "--key", "--cafile"):
        parser.add_argument(option, required=True)
    asyncio.run(main(parser.parse_args()))
