"""Where an exporter learns what is durable: a socket in the spool's directory, held by the signer.

The exporter speaks with strangers and the signer holds the key, so they are two processes and share
little: the signer says which files may be read how far, and what was delivered; the exporter says
how delivery goes and hands over receipts, which the signer checks itself.  Each message is a packet.
What does not fit is dropped: everything said is the whole state, and is said again when asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sealwire.probe.seal.wire import Kind

#: The socket's name in the directory.
NAME: Final = "exporter"
PACKET_BYTES: Final = 512 * 1024
_PATH_MAXIMUM: Final = 100


@contextlib.contextmanager
def _address(directory: Path) -> Any:
    """The socket's path, by a short way where it would be too long for the kernel."""
    path = directory / NAME
    if len(os.fsencode(path)) <= _PATH_MAXIMUM:
        yield str(path)
        return
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{NAME}"
    finally:
        os.close(handle)


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET_BYTES)
    return made


def connect(directory: Path) -> socket.socket:
    """The exporter's end.  Raises OSError while no signer is there."""
    made = _socket()
    try:
        with _address(directory) as address:
            made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


class Outlet:
    """The signer's end.  `take` gets (RECEIPT, bytes) and (STATE, JSON), on a thread of its own."""

    def __init__(self, directory: Path, take: Callable[[tuple[Kind, bytes]], None]) -> None:
        self._take = take
        self._client: socket.socket | None = None
        self._lock = threading.Lock()
        (directory / NAME).unlink(missing_ok=True)
        self._listening = _socket()
        with _address(directory) as address:
            self._listening.bind(address)
        self._listening.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def connected(self) -> bool:
        """Whether an exporter is there."""
        return self._client is not None

    def tell(self, **facts: Any) -> None:
        """Say the state to the exporter, if there is one and it has room."""
        with self._lock:
            if self._client is not None:
                with contextlib.suppress(OSError):
                    self._client.send(json.dumps(facts).encode(), socket.MSG_DONTWAIT)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET_BYTES)
            with self._lock:
                self._client = client
            self._hear(client)
            with self._lock:
                self._client = None
            client.close()
            self._take((Kind.STATE, b"{}"))

    def _hear(self, client: socket.socket) -> None:
        while True:
            try:
                packet = client.recv(PACKET_BYTES)
            except OSError:
                return
            if not packet:
                return
            if packet[0] in (Kind.RECEIPT, Kind.STATE):
                self._take((Kind(packet[0]), packet[1:]))
