"""A server ends, another program takes its place, and a client that was connected goes on.

    python examples/hand_over_programs.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem

`sealwire serve --hand-over DIR` does the same; docs/hand-over.md says what a peer notices.
"""

import argparse
import asyncio
import multiprocessing
import os
import signal
import socket
import tempfile

import sealwire
from sealwire.drive.estate import Estate


async def serve(port, directory, cert, key, ready):
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(cert, key)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def answer(channel):
        async for message in channel:
            await channel.send(b"%d: %s" % (os.getpid(), message))

    with Estate(directory, slots=1) as estate:
        server = await sealwire.start_datagram_server(answer, "127.0.0.1", port, context=context)
        async with server:
            server.inherit(estate.succession(0))  # what the program before left
            ready.put(server.sockets[0].getsockname()[1])
            await stop.wait()
            await server.leave(estate.succession(0), 2.0)  # to the next one


def program(*arguments):
    asyncio.run(serve(*arguments))


def ask(sock, question):
    while True:  # what is sent while nobody serves is lost, as on any network
        sock.send(question)
        try:
            return int(sock.recv().split(b":")[0])
        except TimeoutError:
            continue


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A connection outlives its server.")
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--cafile", required=True)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Queue()
    with tempfile.TemporaryDirectory() as directory:
        place = os.path.join(directory, "estate")

        def start(port):
            arguments = (port, place, options.cert, options.key, ready)
            process = spawn.Process(target=program, args=arguments, daemon=True)
            process.start()
            return process, ready.get(timeout=60)

        first, port = start(0)
        context = sealwire.create_default_context(cafile=options.cafile)
        with sealwire.create_connection(
            ("127.0.0.1", port), kind=socket.SOCK_DGRAM, context=context, server_hostname="localhost"
        ) as sock:
            sock.settimeout(1.0)
            assert ask(sock, b"who is there?") == first.pid
            first.terminate()
            first.join()
            second, _ = start(port)
            assert ask(sock, b"and now?") == second.pid
        second.terminate()
        second.join()
    print("one connection, two programs")
