"""An application sets memory aside for its peers, in the account sealwire's own is in, and hears of pressure.

python examples/reservation.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse
import asyncio

import sealwire
from sealwire.limits import check_limits

SMALL = sealwire.Limits(
    total_bytes=1_000_000,
    connection_bytes=600_000,
    handshake_bytes=600_000,
    prefix_bytes=1_000_000,
    site_bytes=1_000_000,
    connections=50,
    handshakes=10,
)


async def main(args):
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(args.cert, args.key)
    client = sealwire.create_default_context(cafile=args.cafile)
    done = asyncio.Event()

    async def collect(channel):
        """Keeps what a peer sends, as long as there is room for it."""
        with server.endpoints[0].budget.reserve(0, peer=channel.peername) as kept:
            async for data in channel:
                try:
                    kept.grow(len(data) * 300)
                except sealwire.LimitReached as reached:
                    print(f"kept {kept.size} bytes, then: {reached.name}")
                    break
        done.set()

    for one in check_limits(sealwire.Limits(handshake_message_bytes=16_384)):
        print(one.first, "<->", one.second)
    async with await sealwire.start_datagram_server(
        collect, "localhost", 0, context=context, limits=SMALL
    ) as server:
        server.endpoints[0].ledger.on_pressure(lambda level, before: print("pressure:", level.name))
        port = server.sockets[0].getsockname()[1]
        async with sealwire.open_datagram_channel("localhost", port, context=client) as channel:
            for _ in range(5):
                await channel.send(bytes(900))
            await done.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--cert", "--key", "--cafile"):
        parser.add_argument(option, required=True)
    asyncio.run(main(parser.parse_args()))
