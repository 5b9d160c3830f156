"""A service that knows nothing of TLS, reached over TLS 1.3 by a client that knows nothing of it either.

    python examples/proxy.py --cert server.pem --key server.key --cafile ca.pem

plain client -> proxy, secure out -> proxy, secure in -> plain service.  The second proxy tells the
service who the client is with a PROXY protocol header.
"""

import argparse
import asyncio
import sys

import sealwire
from sealwire.drive import ProxySettings, start_proxy
from sealwire.proxy import Routes, Target
from sealwire.proxy.header import decode, missing


async def service(reader, writer):
    header = b""
    while n := missing(header):
        header += await reader.readexactly(n)
    said = decode(header)
    assert said.tls is not None
    word = (await reader.read()).decode()  # to the end of the question
    writer.write(f"{word} to you, who asked for {said.authority} over {said.tls.version}\n".encode())
    writer.close()


def tell(report):
    """What is wrong with a connection, which its client learns only as a reset."""
    print(f"{report.client}: {report.error}", file=sys.stderr)


async def main(args):
    plain = await asyncio.start_server(service, "127.0.0.1", 0)
    server_context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server_context.load_cert_chain(args.cert, args.key)
    secure_in = ProxySettings(
        listen=Target("127.0.0.1", 0),
        routes=Routes(Target(*plain.sockets[0].getsockname())),
        send_header=True,
    )
    async with plain, await start_proxy(secure_in, context=server_context, on_trouble=tell) as inner:
        port = inner.sockets[0].getsockname()[1]
        secure_out = ProxySettings(listen=Target("127.0.0.1", 0), secure=Target("localhost", port))
        client_context = sealwire.create_default_context(cafile=args.cafile)
        async with await start_proxy(secure_out, context=client_context, on_trouble=tell) as outer:
            reader, writer = await asyncio.open_connection(*outer.sockets[0].getsockname())
            writer.write(b"hello")
            writer.write_eof()  # passes through both, and the answer comes back
            print((await reader.read()).decode(), end="")
            writer.close()
            await writer.wait_closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--cert", "--key", "--cafile"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    try:
        asyncio.run(main(given))
    except OSError as error:  # sealwire.Error is one
        sys.exit(f"{type(error).__name__}: {error}")
