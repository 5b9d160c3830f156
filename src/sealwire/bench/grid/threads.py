"""The echo server with a thread for each connection, on blocking sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from sealwire.bench.grid.serving import ANSWER, ASK, COUNT
from sealwire.bench.grid.transports import LENGTH, PythonSsl, Stcp, Transport
from sealwire.drive.blocking import wrap_socket
from sealwire.errors import Error

_BACKLOG: Final = 1024
_BUFFER_BYTES: Final = 1 << 17


class ThreadedServer:
    """Attributes as of :class:`sealwire.bench.grid.serving.Server`."""

    def __init__(self, transport: Transport, host: str, port: int) -> None:
        self._transport = transport
        self._listening = socket.create_server((host, port), backlog=_BACKLOG)
        self.port: int = self._listening.getsockname()[1]
        self.failures = 0

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until the process ends."""
        ready()
        while True:
            sock, _ = self._listening.accept()
            threading.Thread(target=self._attend, args=(sock,), daemon=True).start()

    def _attend(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._secured(sock) as line:
                _converse(line)
        except (OSError, EOFError, Error):
            pass  # they went
        except Exception:
            self.failures += 1
            raise

    def _secured(self, sock: socket.socket) -> _Line:
        transport = self._transport
        if isinstance(transport, Stcp):
            context, limits = transport.server_context, transport.limits
            return _Messages(wrap_socket(context, sock, server_side=True, limits=limits, messages=True))
        if isinstance(transport, PythonSsl):
            return _Line(transport.server_context.wrap_socket(sock, server_side=True))
        return _Line(sock)


class _Line:
    """A blocking socket that carries messages with their length in front."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", _BUFFER_BYTES)

    def send(self, message: bytes) -> None:
        self._sock.sendall(LENGTH.pack(len(message)) + message)

    def receive(self) -> bytes:
        (n,) = LENGTH.unpack(self._exactly(LENGTH.size))
        return self._exactly(n)

    def _exactly(self, n: int) -> bytes:
        data: bytes = self._file.read(n)
        if len(data) < n:
            raise EOFError
        return data

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._sock.close()


class _Messages(_Line):
    """One that has messages itself."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def send(self, message: bytes) -> None:
        self._sock.write_message(message)

    def receive(self) -> bytes:
        message: bytes = self._sock.read_message()
        return message

    def __exit__(self, *_: object) -> None:
        self._sock.close()


def _converse(line: _Line) -> None:
    message = line.receive()
    if message != COUNT:
        while True:
            line.send(message)
            message = line.receive()
    first = message = line.receive()
    good = bad = 0
    while True:
        if message == first:
            good += 1
        elif message == ASK:
            line.send(ANSWER.pack(good, bad))
        else:
            bad += 1
        message = line.receive()
