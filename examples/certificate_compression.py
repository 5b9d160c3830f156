"""What compressing certificates saves: the same handshake with and without (RFC 8879).

python examples/certificate_compression.py --cert server.pem --key server.key --cafile ca.pem
"""

import argparse
import asyncio

import sealwire

parser = argparse.ArgumentParser()
parser.add_argument("--cert", required=True)
parser.add_argument("--key", required=True)
parser.add_argument("--cafile", required=True)
args = parser.parse_args()


async def main():
    for algorithms in ([], ["zlib"]):
        server = sealwire.Context(sealwire.PROTOCOL_SERVER)
        server.load_cert_chain(args.cert, args.key)
        client = sealwire.create_default_context(cafile=args.cafile)
        for context in (server, client):
            context.set_certificate_compression(algorithms)
        sent = []

        async def on_channel(channel, sent=sent):
            sent.append(channel.statistics()["bytes_sent"])
            await channel.send(b"welcome")

        listening = await sealwire.start_datagram_server(on_channel, "localhost", 0, context=server)
        port = listening.sockets[0].getsockname()[1]
        async with listening, sealwire.open_datagram_channel("localhost", port, context=client) as channel:
            await channel.recv()
        print(f"{', '.join(algorithms) or 'plain'}: the server sent {sent[0]} bytes to shake hands")


asyncio.run(main())
