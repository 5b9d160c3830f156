"""A connection finds out how large a datagram its path carries.

python examples/path_mtu.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse
import asyncio

import sealwire

UPKEEP = sealwire.Upkeep(max_mtu=8972)


async def echo(channel):
    async for data in channel:
        await channel.send(data)


async def main(args):
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(args.cert, args.key)
    client = sealwire.create_default_context(cafile=args.cafile)
    async with await sealwire.start_datagram_server(
        echo, "localhost", 0, context=context, upkeep=UPKEEP
    ) as server:
        port = server.sockets[0].getsockname()[1]
        async with sealwire.open_datagram_channel(
            "localhost", port, context=client, upkeep=UPKEEP
        ) as channel:
            changed = asyncio.Event()
            channel.on_message_size = lambda size: changed.set()
            print("at first: messages of up to", channel.max_message_bytes, "bytes")
            await asyncio.wait_for(changed.wait(), 10)
            print("found:    messages of up to", channel.max_message_bytes, "bytes")
            # The server has asked for itself by now, or its answer would be cut.
            while True:
                try:
                    await channel.send(bytes(channel.max_message_bytes))
                    answer = await asyncio.wait_for(channel.recv(), 1)
                    break
                except TimeoutError:
                    continue
            print("echoed:  ", len(answer), "bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--cert", "--key", "--cafile"):
        parser.add_argument(option, required=True)
    asyncio.run(main(parser.parse_args()))
