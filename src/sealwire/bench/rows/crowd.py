"""Many connections to one server: the server, in a process of its own, and its clients behind one socket.

The server is the asyncio one as an application would write it: a handler, and so a task, for each peer,
which echoes.  Its CPU and memory are the kernel's account of its process.  The clients are engines; each
has an address of its own in 127/8, which IP_PKTINFO (Linux) gives to what it sends.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import select
import socket
import struct
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import sealwire
from sealwire import dtls
from sealwire.bench.rows.handshake import FULL, contexts
from sealwire.drive import DatagramChannel, start_datagram_server

_IP_PKTINFO: Final = 8
_IN_FLIGHT: Final = 96
_WAITING: Final = 4096
_BUFFER_BYTES: Final = 32 << 20
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_NAME: Final = "localhost"
#: An answer that takes longer is missing.
ANSWER_SECONDS: Final = 5.0
_START_SECONDS: Final = 60.0


# --- the server ----------------------------------------------------------------------------------


def _limits(idle_seconds: float) -> sealwire.Limits:
    many = 1 << 20
    return sealwire.Limits(
        total_bytes=4 << 30,
        connections=many,
        prefixes=many,
        idle_seconds=idle_seconds,
        hello_replies_per_second=many,
        hello_reply_bytes_per_second=1 << 30,
    )


def serve(questions: Connection, directory: Path, idle_seconds: float) -> None:
    """Be the server: say the port, then answer each question by what it counts, until there are no more."""
    asyncio.run(_serve(questions, directory, idle_seconds))


async def _serve(questions: Connection, directory: Path, idle_seconds: float) -> None:
    async def echo(channel: DatagramChannel) -> None:
        async for data in channel:
            await channel.send(data)

    context, _ = contexts(directory, FULL)
    # What would not fit is not asked for: the clients are as many as somebody says.
    warnings.simplefilter("ignore")
    server = await start_datagram_server(echo, "127.0.0.1", 0, context=context, limits=_limits(idle_seconds))
    (endpoint,) = server.endpoints

    def answer() -> None:
        try:
            questions.recv()
        except EOFError:
            # A farewell to each of a hundred thousand would take longer than the measurement.
            os._exit(0)
        counters = endpoint.counters
        questions.send(
            {
                "ledger": endpoint.ledger.held,
                "connections": endpoint.connections,
                "idle": endpoint.asleep,
                "woken": counters.connections_woken,
                "shed": counters.connections_shed + counters.handshakes_shed,
                "failed": counters.handshakes_failed,
            }
        )

    asyncio.get_running_loop().add_reader(questions.fileno(), answer)
    questions.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class Server:
    """The server's process: a context manager."""

    def __init__(self, directory: Path, idle_seconds: float) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._questions, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs, directory, idle_seconds), daemon=True)
        self._process.start()
        theirs.close()
        self._port = 0

    def _answer(self) -> Any:
        try:
            if self._questions.poll(_START_SECONDS):
                return self._questions.recv()
        except EOFError:
            pass
        raise OSError("the server of many connections has ended or hangs")

    @property
    def port(self) -> int:
        """Where it listens; waits until it does.  Raises OSError."""
        if not self._port:
            self._port = self._answer()
        return self._port

    def state(self) -> Mapping[str, float]:
        """What it counts, and of its process: `cpu` in seconds, `rss` in bytes.  Raises OSError."""
        assert self._port, "it is asked for its port first"
        self._questions.send("?")
        counted: dict[str, float] = self._answer()
        pid = self._process.pid
        assert pid is not None
        statm = Path(f"/proc/{pid}/statm").read_text("ascii")
        # The clock that clock_getcpuclockid(3) names.
        cpu = time.clock_gettime(~pid << 3 | 2)
        return {"cpu": cpu, "rss": int(statm.split()[1]) * _PAGE_BYTES, **counted}

    def close(self) -> None:
        self._questions.close()
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- the clients ---------------------------------------------------------------------------------


class Crowd:
    """Clients behind one socket.

    Attributes:
        clients: in the order they came; a number is a place in it.
        right, wrong, missing, late: answers; what came after it was given up as missing is late.
        slowest: seconds an answer took at most.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self._config = contexts(directory, FULL)[1].config()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        self._sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._sock.bind(("0.0.0.0", 0))  # noqa: S104 - its clients are all of 127/8
        self._sock.setblocking(False)
        self._server = ("127.0.0.1", port)
        self.clients: list[dtls.Connection] = []
        self._waiting: dict[int, tuple[bytes, float]] = {}
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        self.right = self.wrong = self.missing = self.late = 0
        self.slowest = 0.0

    def close(self) -> None:
        self._sock.close()

    def _send(self, number: int, now: float) -> None:
        """What client `number` has to send."""
        source = b"\x7f" + (number + 256).to_bytes(3, "big")
        info = [(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4s", 0, source, bytes(4)))]
        for datagram in self.clients[number].transmit(now):
            while True:
                try:
                    self._sock.sendmsg([datagram], info, 0, self._server)
                    break
                except BlockingIOError:
                    select.select([], [self._sock], [], 1.0)

    def _take(self, seconds: float) -> list[int]:
        """Receive for so long at most; whose datagrams came."""
        came = []
        if select.select([self._sock], [], [], seconds)[0]:
            now = time.monotonic()
            for _ in range(256):
                try:
                    data, info, _, _ = self._sock.recvmsg(65_536, 64)
                except BlockingIOError:
                    break
                number = int.from_bytes(info[0][2][9:12], "big") - 256
                if 0 <= number < len(self.clients):
                    self.clients[number].receive(data, now)
                    came.append(number)
        return came

    def connect(self, many: int) -> None:
        """Handshakes until there are so many clients.  Raises what made one fail."""
        shaking: set[int] = set()
        while len(self.clients) < many or shaking:
            now = time.monotonic()
            while len(self.clients) < many and len(shaking) < _IN_FLIGHT:
                self.clients.append(dtls.Connection.client(self._config, now=now, server_name=_NAME))
                shaking.add(len(self.clients) - 1)
                self._send(len(self.clients) - 1, now)
            for number in self._take(0.05):
                client = self.clients[number]
                self._send(number, now)
                # With its last flight acknowledged the server is done, too.
                if number in shaking and client.was_connected and not client._layer.outstanding:
                    shaking.discard(number)
                    client.events()
            for number in shaking:
                due = self.clients[number].deadline()
                if due is not None and due <= now:
                    self.clients[number].wake(now)
                    self._send(number, now)
                error = self.clients[number].error
                if error is not None:
                    raise error

    def talk(self, chosen: Sequence[int], rate: float, seconds: float) -> float:
        """Have `chosen` say something in turn, `rate` messages a second; look at the answers.

        Returns the seconds it took.
        """
        begin = time.monotonic()
        said = 0
        order: deque[tuple[float, int]] = deque()
        while True:
            now = time.monotonic()
            over = now - begin >= seconds
            while not over and said < (now - begin) * rate and len(self._waiting) < _WAITING:
                number = chosen[said % len(chosen)]
                said += 1
                if number in self._waiting:
                    continue
                message = b"%d says %d " % (number, said) + os.urandom(48)
                self._waiting[number] = message, now
                order.append((now, number))
                self.clients[number].send(message)
                self._send(number, now)
            for number in self._take(0.0 if said < (now - begin) * rate and not over else 0.002):
                self._look_at(number)
                self._send(number, now)
                self.clients[number].events()
            while order and order[0][0] < now - ANSWER_SECONDS:
                at, number = order.popleft()
                if self._waiting.get(number, (b"", 0.0))[1] == at:
                    del self._waiting[number]
                    self.missing += 1
            if over and (not self._waiting or now - begin > seconds + ANSWER_SECONDS + 1):
                return now - begin

    def _look_at(self, number: int) -> None:
        for message in self.clients[number].messages():
            if number not in self._waiting:
                # It was given up, and counts as missing.
                self.late += 1
                continue
            expected, at = self._waiting.pop(number)
            self.right += message == expected
            self.wrong += message != expected
            self.slowest = max(self.slowest, time.monotonic() - at)
