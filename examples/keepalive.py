"""A client that closes one way, and one whose server vanishes.

python examples/keepalive.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse
import asyncio

import sealwire


async def count(channel):
    """Count what comes until the client has said all, and only then answer."""
    messages = [data async for data in channel]
    await channel.send(b"%d messages" % len(messages))


class Silence(asyncio.DatagramProtocol):
    """A network that can be switched off between a client and a server."""

    def __init__(self, server):
        self.server, self.client, self.off = server, None, False

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        if address != self.server:
            self.client = address
        if not self.off:
            self.transport.sendto(data, self.client if address == self.server else self.server)


async def main(args):
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(args.cert, args.key)
    client = sealwire.create_default_context(cafile=args.cafile)
    async with await sealwire.start_datagram_server(count, "127.0.0.1", 0, context=context) as server:
        address = server.sockets[0].getsockname()
        loop = asyncio.get_running_loop()
        transport, network = await loop.create_datagram_endpoint(
            lambda: Silence(address), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        opening = {"context": client, "server_hostname": "localhost"}

        async with sealwire.open_datagram_channel("127.0.0.1", port, **opening) as channel:
            for n in range(3):
                await channel.send(b"%d" % n)
            channel.close_write()
            print("answer after closing one way:", (await channel.recv()).decode())

        upkeep = sealwire.Upkeep(keepalive=0.2, keepalive_tries=2)
        async with sealwire.open_datagram_channel("127.0.0.1", port, upkeep=upkeep, **opening) as channel:
            await asyncio.sleep(1)
            print("after a second of silence:", channel.connection.state)
            network.off = True
            try:
                await channel.recv()
            except TimeoutError as error:
                print("the server is gone:", error)
        network.off = False
        transport.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--cert", "--key", "--cafile"):
        parser.add_argument(option, required=True)
    asyncio.run(main(parser.parse_args()))
