"""Plain UDP for the demo: what DTLS is compared with, driven the way the DTLS driver is.

Reading drains the socket at each wake-up, as the driver does, so that the difference the demo
shows is the protection and not the event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from sealwire.cli.transfer import Receiver

HOST = "127.0.0.1"

_BATCH = 64
_DATAGRAM_BYTES = 65_535
_RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024


class PlainUdp:
    """A non-blocking UDP socket whose datagrams go to a function."""

    def __init__(self, sock: socket.socket, take: Callable[[bytes, Any], None]) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self.sock = sock
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def port(self) -> int:
        """The local port."""
        port: int = self.sock.getsockname()[1]
        return port

    def _readable(self) -> None:
        for _ in range(_BATCH):
            try:
                data, address = self.sock.recvfrom(_DATAGRAM_BYTES)
            except (BlockingIOError, ConnectionRefusedError):
                return
            self._take(data, address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self.sock.fileno())
        self.sock.close()


def serve_transfers() -> PlainUdp:
    """A server on a free port that answers each address with a Receiver of its own."""
    receivers: dict[Any, Receiver] = {}
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))

    def take(data: bytes, address: Any) -> None:
        for answer in receivers.setdefault(address, Receiver()).receive(data):
            try:
                sock.sendto(answer, address)
            except BlockingIOError:
                pass  # a datagram lost: the sender will ask again

    return PlainUdp(sock, take)


class PlainChannel(PlainUdp):
    """A client with the shape of a DatagramChannel."""

    def __init__(self, port: int, max_message_bytes: int) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((HOST, port))
        self._ready: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self.max_message_bytes = max_message_bytes
        super().__init__(sock, self._queue)

    def _queue(self, data: bytes, address: Any) -> None:
        self._ready.append(data)
        self._arrived.set()

    async def send_many(self, messages: Sequence[bytes]) -> None:
        """Send each as a datagram."""
        for message in messages:
            await self._loop.sock_sendall(self.sock, message)

    async def recv(self) -> bytes:
        """The next datagram."""
        while not self._ready:
            self._arrived.clear()
            await self._arrived.wait()
        return self._ready.popleft()
