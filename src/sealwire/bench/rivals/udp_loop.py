"""Plain UDP in C, one datagram a system call: benchmarks/udp_loop.c of the source tree, built when asked."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from sealwire.bench.measurement import Absent, Bench, Body, Contender, Peer, Present, Role
from sealwire.bench.rate_search import RateSearch

_SOURCE: Final = Path(__file__).resolve().parents[4] / "benchmarks" / "udp_loop.c"
_RECEIVE_BUFFER_BYTES: Final = 4 << 20
_SETTLE_SECONDS: Final = 0.02


def contender(size: int) -> Contender:
    """Sender and receiver of `size` bytes."""

    def open_(bench: Bench) -> Body:
        return Sender(bench, size)

    peer = partial(_peer)
    return Contender("plain UDP in C, a call each", Role.RIVAL, open_, peer=peer, presence=presence)


def presence() -> Present | Absent:
    if _compiler() is None:
        return Absent("needs a C compiler")
    if not _SOURCE.exists():
        return Absent("needs benchmarks/udp_loop.c of the source tree")
    return Present("send and recv")


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def _loop() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="sealwire-bench-") as temporary:
        built = os.path.join(temporary, "udp_loop.so")
        compiler = _compiler()
        assert compiler is not None
        command = [compiler, "-O2", "-fPIC", "-shared", "-o", built, str(_SOURCE)]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own source
        loop = ctypes.CDLL(built)
    loop.send_loop.restype = ctypes.c_long
    loop.send_loop.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_long,
        ctypes.c_double,
        ctypes.c_double,
        ctypes.POINTER(ctypes.c_double),
    ]
    return loop


def _peer(bench: Bench) -> Peer:
    return Receiver()


class Receiver:
    """The Peer: counts datagrams."""

    def __init__(self) -> None:
        self._loop = _loop()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._socket.bind(("127.0.0.1", 0))
        self._count = ctypes.c_long(0)

    @property
    def address(self) -> Mapping[str, Any]:
        granted = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return {"port": self._socket.getsockname()[1], "receive_buffer_bytes": granted}

    def serve(self) -> None:
        self._loop.receive_loop(self._socket.fileno(), ctypes.byref(self._count))

    def answer(self, question: str) -> Mapping[str, float]:
        if question == "settled":
            while select.select([self._socket], [], [], _SETTLE_SECONDS)[0]:
                time.sleep(_SETTLE_SECONDS)
        return {"count": float(self._count.value)}


class Sender(RateSearch):
    """A Body: offers rates."""

    def __init__(self, bench: Bench, size: int) -> None:
        super().__init__(bench)
        self._loop = _loop()
        self._data = bytes(size)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", bench.peer["port"]))

    def send(self, rate: float, seconds: float) -> int:
        waited = ctypes.c_double(0.0)
        sent: int = self._loop.send_loop(
            self._socket.fileno(), self._data, len(self._data), rate, seconds, ctypes.byref(waited)
        )
        self.waited_seconds += waited.value
        return sent

    def close(self) -> None:
        self._socket.close()
