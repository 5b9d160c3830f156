"""A DTLS 1.3 client: sends each word as a message and prints what comes back.

python examples/datagram_echo_client.py --cafile dev/ca.pem hello world
"""

import argparse
import asyncio
import sys

import sealwire


async def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--host", default="localhost")
    options.add_argument("--port", type=int, default=4433)
    options.add_argument("--cafile", required=True)
    options.add_argument("words", nargs="+")
    arguments = options.parse_args()

    context = sealwire.create_default_context(cafile=arguments.cafile)
    context.set_alpn_protocols(["echo/1"])
    async with sealwire.open_datagram_channel(
        arguments.host, arguments.port, context=context, timeout=10
    ) as channel:
        for word in arguments.words:
            # A datagram may be lost, in either direction: ask again until an answer comes.
            for _ in range(5):
                await channel.send(word.encode())
                try:
                    async with asyncio.timeout(1):
                        print((await channel.recv()).decode())
                        break
                except TimeoutError:
                    continue
            else:
                sys.exit(f"no answer to {word!r}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except OSError as error:  # sealwire.Error is one
        sys.exit(f"{type(error).__name__}: {error}")
