"""Two kinds of connections with the presets meant for them.

python examples/presets.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse
import asyncio

import sealwire
from sealwire.drive.aio import Batcher
from sealwire.presets import IOT_SENSOR, STREAMING


async def collect(channel):
    async for data in channel:
        print(f"IoT sensor: a report of {len(data)} bytes came")
        await channel.send(b"thanks")


async def play(reader, writer):
    await reader.read(-1)
    writer.close()


async def main(args):
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(args.cert, args.key)
    client = sealwire.create_default_context(cafile=args.cafile)

    sensor = IOT_SENSOR.datagrams()
    async with await sealwire.start_datagram_server(
        collect, "localhost", 0, context=context, **sensor
    ) as server:
        port = server.sockets[0].getsockname()[1]
        async with sealwire.open_datagram_channel("localhost", port, context=client, **sensor) as channel:
            await channel.send(b"21.5 deg")
            await channel.recv()

    streams = STREAMING.streams()
    async with await sealwire.start_server(play, "localhost", 0, context=context, **streams) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await sealwire.open_connection("localhost", port, context=client, **streams)
        before = writer.statistics()["records_sealed"]
        flush = STREAMING.flush
        # A second, so that a slow machine collects as many as a fast one; the preset itself waits 5 ms.
        async with Batcher(writer, seconds=1, most_messages=flush.most_messages) as batcher:
            for n in range(1000):
                await batcher.send(b"frame %3d" % n)
        print(f"streaming: 1000 small writes in {writer.statistics()['records_sealed'] - before} records")
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--cert", "--key", "--cafile"):
        parser.add_argument(option, required=True)
    asyncio.run(main(parser.parse_args()))
