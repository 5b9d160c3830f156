"""Many messages at once: a client sends ten thousand, the server takes them in batches.

python examples/batches.py --cert server.pem --key server.key --cafile ca.pem
"""

from __future__ import annotations

import argparse
import asyncio

import sealwire

MESSAGES = 10_000


async def main(certfile: str, keyfile: str, cafile: str) -> None:
    serving = sealwire.Context(sealwire.PROTOCOL_SERVER)
    serving.load_cert_chain(certfile, keyfile)
    received = 0

    async def count(channel: sealwire.DatagramChannel) -> None:
        nonlocal received
        async for batch in channel.batches():
            received += len(batch)
            await channel.send(b"%d" % received)  # tells the client when to go on

    async with await sealwire.start_datagram_server(count, "127.0.0.1", 0, context=serving) as server:
        port = server.sockets[0].getsockname()[1]
        context = sealwire.create_default_context(cafile=cafile)
        async with sealwire.open_datagram_channel(
            "127.0.0.1", port, context=context, server_hostname="localhost"
        ) as channel:
            run = [b"reading %d" % n for n in range(100)]
            for _ in range(MESSAGES // len(run)):
                await channel.send_many(run)
                await channel.recv()
            batches = channel.connection.counters.messages_received
    print(f"{received} messages, answered {batches} times, in at most {MESSAGES // len(run)} runs")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("cert", "key", "cafile"):
        options.add_argument(f"--{name}", required=True)
    given = options.parse_args()
    asyncio.run(main(given.cert, given.key, given.cafile))
