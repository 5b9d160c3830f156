"""A server that shows what its authority says of its certificate today, and a client that insists on it.

python examples/ocsp_stapling.py
"""

import asyncio
import contextlib
import datetime
import io
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import ocsp

import sealwire
from sealwire.cli import main as program

STATUS = {"good": ocsp.OCSPCertStatus.GOOD, "revoked": ocsp.OCSPCertStatus.REVOKED}


def ask_authority(directory, status):
    """What `openssl ocsp -respout` would fetch; here we are the authority ourselves."""
    leaf, issuer = (
        x509.load_pem_x509_certificate((directory / name).read_bytes()) for name in ("server.pem", "ca.pem")
    )
    now = datetime.datetime.now(datetime.UTC)
    revoked_at = now if status == "revoked" else None
    builder = ocsp.OCSPResponseBuilder().add_response(
        leaf, issuer, hashes.SHA256(), STATUS[status], now, now + datetime.timedelta(days=1), revoked_at, None
    )
    key = load_pem_private_key((directory / "ca.key").read_bytes(), None)
    response = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer).sign(key, hashes.SHA256())
    return response.public_bytes(Encoding.DER)


async def on_channel(channel):
    async for data in channel:
        await channel.send(data)


async def main(directory):
    at_hand = [b""]  # renewed in the background; handshakes only look at it
    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    certificate, key = directory / "server.pem", directory / "server.key"
    server.load_cert_chain(certificate, key, ocsp_response=lambda: at_hand[0])

    client = sealwire.create_default_context(cafile=directory / "ca.pem")
    client.staple_mode = sealwire.STAPLE_REQUIRED

    async with await sealwire.start_datagram_server(on_channel, "localhost", 0, context=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        for status in ("absent", "good", "revoked"):
            at_hand[0] = b"" if status == "absent" else ask_authority(directory, status)
            try:
                async with sealwire.open_datagram_channel("localhost", port, context=client) as channel:
                    await channel.send(b"hello")
                    answer = (await channel.recv()).decode()
                    print(f"{status}: {answer}, with a response of {len(channel.get_ocsp_response())} bytes")
            except sealwire.CertificateError as error:
                print(f"{status}: {error}")


with tempfile.TemporaryDirectory() as directory:
    with contextlib.redirect_stdout(io.StringIO()):
        program(["cert", "--dir", directory])  # an authority, and a certificate of it
    asyncio.run(main(Path(directory)))
