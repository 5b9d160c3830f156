"""TLS 1.3 over TCP, server and client, with readers and writers like asyncio's.

python examples/stream_echo.py serve --cert dev/server.pem --key dev/server.key
echo hello | python examples/stream_echo.py connect --cafile dev/ca.pem
echo hello | openssl s_client -quiet -CAfile dev/ca.pem -connect localhost:5555
"""

import argparse
import asyncio
import contextlib
import sys

import sealwire


async def echo(reader, writer):
    async for line in reader:
        writer.write(line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def serve(arguments):
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(arguments.cert, arguments.key)
    async with await sealwire.start_server(echo, arguments.host, arguments.port, context=context) as server:
        print("listening on port", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


async def connect(arguments):
    context = sealwire.create_default_context(cafile=arguments.cafile)
    reader, writer = await sealwire.open_connection(
        arguments.host, arguments.port, context=context, timeout=10
    )
    for line in sys.stdin.buffer:
        writer.write(line)
        await writer.drain()
    writer.write_eof()  # close_notify: the server sees the end and sends its own
    sys.stdout.buffer.write(await reader.read())
    writer.close()
    await writer.wait_closed()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    roles = options.add_subparsers(required=True)
    serving = roles.add_parser("serve")
    serving.add_argument("--cert", required=True)
    serving.add_argument("--key", required=True)
    serving.set_defaults(run=serve)
    connecting = roles.add_parser("connect")
    connecting.add_argument("--cafile", required=True)
    connecting.set_defaults(run=connect)
    for role in (serving, connecting):
        role.add_argument("--host", default="localhost")
        role.add_argument("--port", type=int, default=5555)
    arguments = options.parse_args()
    asyncio.run(arguments.run(arguments))


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            main()
    except OSError as error:  # sealwire.Error is one
        sys.exit(f"{type(error).__name__}: {error}")
