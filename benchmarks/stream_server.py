"""What a server over a stream costs by itself: microseconds for each request, of plain TCP, ssl and STCP.

    python benchmarks/stream_server.py [--rounds 600] [--runs 3] [256x50 4096x20 16384x10 65536x5]

One process has the server on an event loop and, beside it, plain sockets (of Python's ssl, where it is TLS)
as clients.  All clients ask at once; then the loop alone is timed until all are answered.  So the clients'
own cost is in no figure, all servers have the same ones, and since a round takes less than a
millisecond the fastest rounds are hardly disturbed by other programs: the 5th percentile is shown.
glibc is told never to map single blocks, as in `sealwire bench stcp` (docs/stcp-performance.md).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from sealwire.bench.clocks import Stopwatch
from sealwire.bench.crypto_switch import crypto
from sealwire.bench.grid.serving import Server, new_loop
from sealwire.bench.grid.transports import LENGTH, TRANSPORTS
from sealwire.bench.measurement import QUICK, Bench
from sealwire.bench.processes import even_allocation
from sealwire.bench.rivals.openssl_memory import ssl_environment
from sealwire.cli import authority
from sealwire.drive.machine import LimitsWarning

HOST = "127.0.0.1"


class Rounds:
    """A server and its clients."""

    def __init__(self, transport: str, size: int, clients: int, loop: str, directory: Path) -> None:
        self._loop = new_loop(loop)
        bench = Bench(directory, QUICK, crypto(True), Stopwatch(), {}, lambda question: {})
        self._server = Server(TRANSPORTS[transport](bench), HOST, 0)
        self._frame = LENGTH.pack(size) + os.urandom(size)
        started = asyncio.Event()
        self._task = self._loop.create_task(self._server.run(started.set))
        self._loop.run_until_complete(started.wait())
        self._clients = [self._connect(transport, directory) for _ in range(clients)]
        self._turn()

    def _turn(self) -> float:
        """Two turns of the loop, the second of which has all that was ready in the first; seconds."""
        begin = time.perf_counter()
        for _ in range(2):
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
        return time.perf_counter() - begin

    def _connect(self, transport: str, directory: Path) -> Any:
        sock = socket.create_connection((HOST, self._server.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        if transport == "tcp":
            return sock
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(directory / "ca.pem")
        if transport == "stcp":
            context.set_alpn_protocols(["stcp/1"])  # whose frames are those of the others, docs/wire-stcp.md
        secure = context.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False)
        while True:
            try:
                secure.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self._turn()
            else:
                return secure

    def round(self) -> float:
        """Seconds of the server for a request of each client."""
        for client in self._clients:
            rest = memoryview(self._frame)
            while rest:
                rest = rest[client.send(rest[:16_384]) :]
        taken, waiting = 0.0, dict.fromkeys(self._clients, b"")
        while waiting:
            taken += self._turn()
            for client in list(waiting):
                try:
                    while len(waiting[client]) < len(self._frame):
                        waiting[client] += client.recv(1 << 18)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                if waiting.pop(client) != self._frame:
                    raise SystemExit("an answer is not the question")
        return taken


def measure(transport: str, cell: str, loop: str, rounds: int, directory: Path) -> float:
    """Microseconds a request, of the fastest rounds."""
    size, clients = map(int, cell.split("x"))
    running = Rounds(transport, size, clients, loop, directory)
    found = sorted(running.round() for _ in range(rounds))
    idle = sorted(running._turn() for _ in range(rounds))
    return (found[rounds // 20] - idle[rounds // 20]) / clients * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cells", nargs="*", default=["256x50", "4096x20", "16384x10", "65536x5"])
    parser.add_argument("--rounds", type=int, default=600)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        transport, directory = args.one.split(":", 1)
        warnings.simplefilter("ignore", LimitsWarning)
        print(measure(transport, args.cells[0], args.loop, args.rounds, Path(directory)), flush=True)
        os._exit(0)  # connections are not what is measured
    with tempfile.TemporaryDirectory() as directory:
        made = authority.make(authority.LOCAL_NAMES, authority.LOCAL_ADDRESSES, days=1, key_type="ec")
        authority.write(Path(directory), made)
        environment = {**os.environ, **ssl_environment(), **even_allocation()}
        print(f"{'us a request':14}{'TCP':>8}{'ssl':>8}{'STCP':>8}{'of ssl':>9}{'of TCP':>9}")
        for cell in args.cells:
            best: dict[str, list[float]] = {transport: [] for transport in ("tcp", "ssl", "stcp")}
            for _ in range(args.runs):
                for transport, values in best.items():
                    command = [sys.executable, __file__, "--one", f"{transport}:{directory}", cell]
                    command += ["--loop", args.loop, "--rounds", str(args.rounds)]
                    values.append(float(subprocess.check_output(command, env=environment)))
            tcp, tls, ours = (sorted(values)[len(values) // 2] for values in best.values())
            print(f"{cell:14}{tcp:8.2f}{tls:8.2f}{ours:8.2f}{tls / ours:8.2f}x{tcp / ours:8.0%}", flush=True)


if __name__ == "__main__":
    main()
