"""A client's address changes, as behind a network address translator, and its connection lives on.

    python examples/changing_address.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem

The server finds the connection by the id in its records (RFC 9146) and, before it sends anything else
to the new address, asks the client for an answer from there (RFC 9853).
"""

import argparse
import asyncio
import socket

import sealwire


class Translator:
    """Carries datagrams between one client and a server, from a port of its own that can change."""

    def __init__(self, server_port):
        self.server = ("127.0.0.1", server_port)
        self.client = None
        self.inside = self.open(self.up)
        self.outside = self.open(self.down)
        self.port = self.inside.getsockname()[1]

    def open(self, on_readable):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, on_readable)
        return sock

    def up(self):
        data, self.client = self.inside.recvfrom(65535)
        self.outside.sendto(data, self.server)

    def down(self):
        self.inside.sendto(self.outside.recv(65535), self.client)

    def rebind(self):
        """Forget the mapping: from now on the server sees another port."""
        old, self.outside = self.outside, self.open(self.down)
        self.close_one(old)

    def close_one(self, sock):
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()

    def close(self):
        self.close_one(self.inside)
        self.close_one(self.outside)


async def serve(channel):
    async for message in channel:
        # peername follows the client; the channel stays the same.
        print(f"server hears {message.decode()!r} from {channel.peername[0]}:{channel.peername[1]}")


async def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--cert", "--key", "--cafile"):
        options.add_argument(name, required=True)
    arguments = options.parse_args()
    server_context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server_context.load_cert_chain(arguments.cert, arguments.key)
    client_context = sealwire.create_default_context(cafile=arguments.cafile)

    async with await sealwire.start_datagram_server(
        serve, "127.0.0.1", context=server_context, cid_bytes=8
    ) as server:
        translator = Translator(server.sockets[0].getsockname()[1])
        async with sealwire.open_datagram_channel(
            "127.0.0.1", translator.port, context=client_context, server_hostname="localhost"
        ) as channel:
            await channel.send(b"one")
            await asyncio.sleep(0.1)
            translator.rebind()
            # This one shows the server a new address, and starts the check.
            await channel.send(b"two")
            while not server.statistics()["address_changes"]:
                await asyncio.sleep(0.01)
            await channel.send(b"three")
            await asyncio.sleep(0.1)
        translator.close()


if __name__ == "__main__":
    asyncio.run(main())
