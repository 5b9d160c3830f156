"""Peers known by their keys alone: no certificates, no authority, no names (RFC 7250).

python examples/raw_public_keys.py
"""

import asyncio
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import sealwire


def make_key(path):
    """A private key in a file, as `openssl genpkey -algorithm ed25519` makes it; returns its public half."""
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


async def main(directory):
    server_key, device_key, stranger_key = (directory / name for name in ("server", "device", "stranger"))
    server_public, device_public = make_key(server_key), make_key(device_key)
    make_key(stranger_key)

    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server.load_raw_public_key(server_key)
    server.set_raw_public_keys([device_public])  # and ask every client for its own

    async def on_channel(channel):
        shown = channel.get_peer_raw_public_key()
        print("the device showed a key of", len(shown), "bytes, certificate:", channel.getpeercert())
        async for data in channel:
            await channel.send(data)

    async with await sealwire.start_datagram_server(on_channel, "127.0.0.1", 0, context=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        for name, key in (("device", device_key), ("stranger", stranger_key)):
            client = sealwire.Context(sealwire.PROTOCOL_CLIENT)
            client.set_raw_public_keys([server_public])  # nobody else is the server, whatever its name
            client.load_raw_public_key(key)
            try:
                async with sealwire.open_datagram_channel("127.0.0.1", port, context=client) as channel:
                    await channel.send(b"21.5 C")
                    print(f"{name}:", (await channel.recv()).decode())
            except sealwire.PeerAlert as error:
                print(f"{name}:", error)


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
