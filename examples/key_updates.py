"""New keys while a connection lives: on demand, because they are old, because they sealed enough.

python examples/key_updates.py --cert server.pem --key server.key --cafile ca.pem
"""

from __future__ import annotations

import argparse
import asyncio

import sealwire


async def echo(channel):
    async for data in channel:
        await channel.send(data)


async def main(args: argparse.Namespace) -> None:
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(args.cert, args.key)
    client = sealwire.create_default_context(cafile=args.cafile)
    # Far below what is sensible, so that something is to be seen.
    limits = sealwire.Limits(rekey_seconds=0.3, records_per_key=100)
    async with (
        await sealwire.start_datagram_server(echo, "localhost", 0, context=context) as server,
        sealwire.open_datagram_channel(
            "localhost", server.sockets[0].getsockname()[1], context=client, limits=limits
        ) as channel,
    ):
        await channel.update_keys()
        print("asked for: epoch", channel.key_usage().sending_epoch)

        await channel.send(b"some data")
        await asyncio.sleep(0.5)
        print("by age: epoch", channel.key_usage().sending_epoch)

        for n in range(150):
            await channel.send(b"%d" % n)
            await channel.recv()
        usage = channel.key_usage()
        print(f"by use: epoch {usage.sending_epoch}, {usage.sealed} of {usage.seal_limit} records")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option in ("--cert", "--key", "--cafile"):
        parser.add_argument(option, required=True)
    asyncio.run(main(parser.parse_args()))
