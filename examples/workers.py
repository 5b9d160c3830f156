"""Several processes serve one UDP port; who visits is told which one it met.

    python examples/workers.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem

Each worker runs `serve` below.  A worker that is killed is replaced, and harms nobody else's peers.
"""

import argparse
import asyncio
import os
import signal
import socket

import sealwire
from sealwire.drive import WorkerGroup


def serve(seat, cert, key):
    """A worker's whole life: a function of a module, because its process is started anew."""
    asyncio.run(main(seat, cert, key))


async def main(seat, cert, key):
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(cert, key)

    async def answer(channel):
        async for message in channel:
            await channel.send(b"%d: %s" % (seat.index, message))

    async with await sealwire.start_datagram_server(answer, context=context, seat=seat) as server:
        await seat.serve(server)  # until the parent ends it


def visit(address, context):
    with sealwire.create_connection(
        address, kind=socket.SOCK_DGRAM, context=context, server_hostname="localhost"
    ) as sock:
        sock.send(b"hello")
        return int(sock.recv().split(b":")[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Several processes on one port.")
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--cafile", required=True)
    options = parser.parse_args()

    context = sealwire.create_default_context(cafile=options.cafile)
    # A server would call sealwire.run_workers(serve, host, port, workers=2, args=...) and no more.
    with WorkerGroup(
        serve, "127.0.0.1", workers=2, args=(options.cert, options.key), drain_seconds=0.0
    ) as group:
        group.start()
        met = set()
        while met != {0, 1}:
            met.add(visit(group.addresses[0], context))
        print("met both workers")

        os.kill(group.pids[0], signal.SIGKILL)
        while not (group.starts == [2, 1] and group.ready):
            group.step(1.0)  # run() does this for a server
        while visit(group.addresses[0], context) != 0:
            pass
        print("met the one that took the place of the killed one")
