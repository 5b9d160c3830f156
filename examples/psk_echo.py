"""Pre-shared keys in place of certificates: each device has a key, the server knows them all.

python examples/psk_echo.py
"""

import asyncio
import secrets

import sealwire

# Made once for each device, and brought to both sides by a way that nobody else reads.
KEYS = {f"sensor-{number}": secrets.token_bytes(32) for number in range(3)}


def key_of(identity):
    """What the server knows a device by; None for strangers."""
    secret = KEYS.get(identity)
    if secret is None:
        return None
    # Imported (RFC 9258): separate keys for DTLS, TLS and each hash.  The context says who plays which
    # part, so that a server never takes its own words, sent back, for those of the device.
    context = f"client={identity} server=collector".encode()
    return sealwire.ExternalPsk(identity, secret, imported=True, context=context)


async def on_channel(channel):
    who = channel.psk_identity()  # proved: only its holder gets here
    async for data in channel:
        await channel.send(who.encode() + b" said " + data)


async def on_stream(reader, writer):
    data = await reader.read(4096)
    writer.write(writer.psk_identity().encode() + b" said " + data)
    await writer.drain()
    writer.close()


async def datagrams(port, context):
    async with sealwire.open_datagram_channel("127.0.0.1", port, context=context) as channel:
        await channel.send(b"21.5 C")
        print(channel.version(), (await channel.recv()).decode())


async def stream(port, context):
    reader, writer = await sealwire.open_connection("127.0.0.1", port, context=context)
    writer.write(b"21.5 C")
    print(writer.version(), (await reader.read(4096)).decode())
    writer.close()
    await writer.wait_closed()


async def main():
    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server.set_psk_server_callback(key_of)  # no certificate is needed then
    over_udp = await sealwire.start_datagram_server(on_channel, "127.0.0.1", 0, context=server)
    over_tcp = await sealwire.start_server(on_stream, "127.0.0.1", 0, context=server)
    async with over_udp, over_tcp:
        for identity in KEYS:
            client = sealwire.Context(sealwire.PROTOCOL_CLIENT)  # trusts no certificate at all
            client.set_psk_client_callback(lambda hint, identity=identity: key_of(identity))
            await datagrams(over_udp.sockets[0].getsockname()[1], client)
            await stream(over_tcp.sockets[0].getsockname()[1], client)

        stranger = sealwire.Context(sealwire.PROTOCOL_CLIENT)
        stranger.set_psk_client_callback(lambda hint: ("sensor-9", secrets.token_bytes(32)))
        try:
            await datagrams(over_udp.sockets[0].getsockname()[1], stranger)
        except sealwire.PeerAlert as error:
            print("sensor-9:", error)


asyncio.run(main())
