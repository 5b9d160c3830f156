"""T10 and T11: one server process with many connections, most of them idle.

    python benchmarks/many.py [--steps 100,10000,100000] [--seconds 30] [--rate 1000] [--json FILE]
    python benchmarks/many.py --steps 10000 --everybody --seconds 300          (each echoes, in turn)

The server is the asyncio one as an application would write it: a handler, and so a task, for each peer,
which echoes.  The clients are engines in another process, behind one socket: each has an address of its own
in 127/8, which IP_PKTINFO gives to what it sends.  After each step of connections, one in a hundred of them
(or everybody, in turn) says something at `rate` messages a second for `seconds`; every answer is compared.

Printed for each step: the server's resident memory and its growth for each connection, what its ledger
says, how many sleep, CPU of the server for each handshake and each echo, answers that were wrong or missing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from pathlib import Path
from typing import Any

IP_PKTINFO = 8
IN_FLIGHT = 96
ANSWER_SECONDS = 5.0
BUFFER_BYTES = 32 << 20


# --- the server ----------------------------------------------------------------------------------


def limits(idle_seconds: float) -> Any:
    import sealwire

    many = 1 << 20
    return sealwire.Limits(
        total_bytes=4 << 30,
        connections=many,
        prefixes=many,
        idle_seconds=idle_seconds,
        hello_replies_per_second=many,
        hello_reply_bytes_per_second=1 << 30,
    )


async def serve(directory: Path, idle_seconds: float) -> None:
    """Serve; answer each line of standard input by one about this process."""
    import sealwire
    from sealwire.drive import DatagramChannel, start_datagram_server

    async def echo(channel: DatagramChannel) -> None:
        async for data in channel:
            await channel.send(data)

    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    context.set_groups("x25519")
    warnings.simplefilter("ignore")
    server = await start_datagram_server(echo, "127.0.0.1", 0, context=context, limits=limits(idle_seconds))
    (endpoint,) = server.endpoints

    def state() -> dict[str, float]:
        used = time.process_time()
        counters = endpoint.counters
        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {
            "cpu": used,
            "rss": resident,
            "ledger": endpoint.ledger.held,
            "connections": endpoint.connections,
            "idle": endpoint.asleep,
            "hibernated": counters.connections_hibernated,
            "woken": counters.connections_woken,
            "shed": counters.connections_shed + counters.handshakes_shed,
            "failed": counters.handshakes_failed,
        }

    loop = asyncio.get_running_loop()
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)

    def answer() -> None:
        for _ in sys.stdin:
            asked: asyncio.Future[dict[str, float]] = asyncio.run_coroutine_threadsafe(_call(state), loop)  # type: ignore[assignment]
            print(json.dumps(asked.result()), flush=True)
        os._exit(0)

    threading.Thread(target=answer, daemon=True).start()
    async with server:
        await server.serve_forever()


async def _call(function: Any) -> Any:
    return function()


# --- the clients ---------------------------------------------------------------------------------


class Crowd:
    """Clients behind one socket."""

    def __init__(self, directory: Path, port: int) -> None:
        import sealwire

        context = sealwire.Context(sealwire.PROTOCOL_CLIENT)
        context.load_verify_locations(cafile=directory / "ca.pem")
        context.set_groups("x25519")
        self.config = context.config()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        self.sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.sock.bind(("0.0.0.0", 0))
        self.sock.setblocking(False)
        self.server = ("127.0.0.1", port)
        self.clients: list[Any] = []
        self.waiting: dict[int, tuple[bytes, float]] = {}
        self.right = self.wrong = self.missing = self.late = 0
        self.slowest = 0.0

    def send(self, number: int, now: float) -> None:
        """What client `number` has to send."""
        source = b"\x7f" + (number + 256).to_bytes(3, "big")
        info = [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, source, bytes(4)))]
        for datagram in self.clients[number].transmit(now):
            while True:
                try:
                    self.sock.sendmsg([datagram], info, 0, self.server)
                    break
                except BlockingIOError:
                    select.select([], [self.sock], [], 1.0)

    def take(self, seconds: float) -> list[int]:
        """Receive for so long at most; whose datagrams came."""
        came = []
        if select.select([self.sock], [], [], seconds)[0]:
            now = time.monotonic()
            for _ in range(256):
                try:
                    data, info, _, _ = self.sock.recvmsg(65_536, 64)
                except BlockingIOError:
                    break
                number = int.from_bytes(info[0][2][9:12], "big") - 256
                self.clients[number].receive(data, now)
                came.append(number)
        return came

    def connect(self, many: int) -> None:
        """Handshakes until there are so many clients."""
        from sealwire import dtls

        shaking: dict[int, float] = {}
        while len(self.clients) < many or shaking:
            now = time.monotonic()
            while len(self.clients) < many and len(shaking) < IN_FLIGHT:
                client = dtls.Connection.client(self.config, now=now, server_name="localhost")
                self.clients.append(client)
                shaking[len(self.clients) - 1] = now
                self.send(len(self.clients) - 1, now)
            for number in self.take(0.05):
                client = self.clients[number]
                self.send(number, now)
                if client.was_connected and not client._layer.outstanding:
                    client.events()
                    if shaking.pop(number, None) is not None:
                        client.hibernate(now)
            for number in list(shaking):
                due = self.clients[number].deadline()
                if due is not None and due <= now:
                    self.clients[number].wake(now)
                    self.send(number, now)
                if self.clients[number].error is not None:
                    raise self.clients[number].error

    def talk(self, chosen: list[int], rate: float, seconds: float) -> float:
        """Have `chosen` say something in turn, and look at the answers; how long it took."""
        begin = time.monotonic()
        said = 0
        order: deque[tuple[float, int]] = deque()
        while True:
            now = time.monotonic()
            over = now - begin >= seconds
            while not over and said < (now - begin) * rate and len(self.waiting) < 4096:
                number = chosen[said % len(chosen)]
                said += 1
                if number in self.waiting:
                    continue
                message = b"%d says %d " % (number, said) + os.urandom(48)
                self.waiting[number] = message, now
                order.append((now, number))
                self.clients[number].send(message)
                self.send(number, now)
            for number in self.take(0.0 if said < (now - begin) * rate and not over else 0.002):
                for message in self.clients[number].messages():
                    if number not in self.waiting:
                        # It was given up, and counts as missing.
                        self.late += 1
                        continue
                    expected, at = self.waiting.pop(number)
                    self.right += message == expected
                    self.wrong += message != expected
                    self.slowest = max(self.slowest, time.monotonic() - at)
                self.send(number, now)
                self.clients[number].events()
            while order and order[0][0] < now - ANSWER_SECONDS:
                at, number = order.popleft()
                if self.waiting.get(number, (b"", 0.0))[1] == at:
                    del self.waiting[number]
                    self.missing += 1
            if over and (not self.waiting or now - begin > seconds + ANSWER_SECONDS + 1):
                return now - begin


def run(arguments: argparse.Namespace) -> list[dict[str, float]]:
    rows = []
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        program = Path(sys.executable).with_name("sealwire")
        subprocess.run([program, "cert", "--dir", directory], check=True, capture_output=True)
        command = [sys.executable, __file__, "--serve", str(directory), "--idle", str(arguments.idle)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdin is not None

            def ask() -> dict[str, float]:
                server.stdin.write("?\n")
                server.stdin.flush()
                return json.loads(server.stdout.readline())

            with contextlib.closing(server.stdin):
                crowd = Crowd(directory, json.loads(server.stdout.readline())["port"])
                # The first pay for what all share.
                crowd.connect(50)
                first = ask()
                for step in (int(n) for n in arguments.steps.split(",")):
                    rows.append(one_step(crowd, ask, first, step, arguments))
                    print(json.dumps(rows[-1]), flush=True)
    return rows


def one_step(
    crowd: Crowd, ask: Any, first: dict[str, float], step: int, arguments: argparse.Namespace
) -> dict[str, float]:
    before, had, begin = ask(), len(crowd.clients), time.monotonic()
    crowd.connect(step)
    connected, seconds = ask(), time.monotonic() - begin
    # All that were silent for long enough sleep by then.
    time.sleep(arguments.idle + 3.0 if not arguments.everybody else 0.0)
    idle = ask()
    crowd.right = crowd.wrong = crowd.missing = crowd.late = 0
    crowd.slowest = 0.0
    chosen = list(range(0, step, 1 if arguments.everybody else 100))
    samples = []
    taken = 0.0
    pieces = max(int(arguments.seconds // 30), 1)
    for _ in range(pieces):
        taken += crowd.talk(chosen, arguments.rate, arguments.seconds / pieces)
        samples.append(ask()["rss"])
    after = ask()
    made = step - had
    return {
        "connections": after["connections"],
        "handshakes_per_second": round(made / seconds, 1) if made > 0 else 0,
        "server_us_per_handshake": round((connected["cpu"] - before["cpu"]) / made * 1e6, 1)
        if made > 0
        else 0,
        "rss_mib": round(after["rss"] / 2**20, 1),
        "rss_mib_idle": round(idle["rss"] / 2**20, 1),
        "rss_mib_while_talking": [round(one / 2**20, 1) for one in samples],
        "rss_per_connection": round((idle["rss"] - first["rss"]) / max(step - 50, 1)),
        "ledger_per_connection": round(idle["ledger"] / idle["connections"]),
        "asleep_before": idle["idle"],
        "asleep_after": after["idle"],
        "woken": after["woken"] - idle["woken"],
        "talking": len(chosen),
        "echoes": crowd.right,
        "wrong": crowd.wrong,
        "missing": crowd.missing,
        "late": crowd.late,
        "slowest_ms": round(crowd.slowest * 1e3, 1),
        "server_us_per_echo": round((after["cpu"] - idle["cpu"]) / max(crowd.right, 1) * 1e6, 1),
        "seconds": round(taken, 1),
        "shed": after["shed"],
        "failed": after["failed"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps", default="100,10000,100000", help="how many connections, one after the other"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of talk after each step")
    parser.add_argument("--rate", type=float, default=1000.0, help="messages a second, of all together")
    parser.add_argument("--idle", type=float, default=10.0, help="Limits.idle_seconds of the server")
    parser.add_argument("--everybody", action="store_true", help="all talk in turn, not one in a hundred")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve, arguments.idle))
        return 0
    rows = run(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any(row["wrong"] or row["missing"] or row["failed"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
