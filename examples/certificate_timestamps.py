"""A server that shows a signed certificate timestamp (RFC 6962), and a client that looks at it.

python examples/certificate_timestamps.py
"""

import asyncio
import contextlib
import datetime
import io
import tempfile
from pathlib import Path

import sealwire
from sealwire.cli import main as program


def stamp(log, when):
    """What a log would answer, but for its signature: version 1, its id, when, no extensions, a signature."""
    milliseconds = round(when.timestamp() * 1000)
    signature = bytes.fromhex("04030000")  # ECDSA with SHA-256; of no bytes, for we are no log
    return b"\0" + log + milliseconds.to_bytes(8, "big") + b"\0\0" + signature


def listed(*timestamps):
    """A SignedCertificateTimestampList."""
    body = b"".join(len(one).to_bytes(2, "big") + one for one in timestamps)
    return len(body).to_bytes(2, "big") + body


async def main(directory):
    today = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    timestamps = listed(stamp(b"L" * 32, today))
    server.load_cert_chain(directory / "server.pem", directory / "server.key", timestamps=timestamps)
    client = sealwire.create_default_context(cafile=directory / "ca.pem")
    client.certificate_timestamps = True

    async def on_channel(channel):
        async for data in channel:
            await channel.send(data)

    async with await sealwire.start_datagram_server(on_channel, "localhost", 0, context=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with sealwire.open_datagram_channel("localhost", port, context=client) as channel:
            for timestamp in channel.get_certificate_timestamps():
                log = timestamp[1:33]
                seconds = int.from_bytes(timestamp[33:41], "big") / 1000
                when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
                print(f"log {log[:4].hex()}... promised on {when:%Y-%m-%d} to publish the certificate")


with tempfile.TemporaryDirectory() as directory:
    with contextlib.redirect_stdout(io.StringIO()):
        program(["cert", "--dir", directory])  # an authority, and a certificate of it
    asyncio.run(main(Path(directory)))
