"""Frames of UDP out of an interface, 64 a call: what benchmarks of capture have somebody send.

    python benchmarks/send_frames.py INTERFACE SECONDS BYTES [RATE]     (as root)

They go to an address nobody has.  Without a rate as fast as can be, from 4,096 ports in turn; with one,
what is due every 5 ms, and each frame is a flow of its own.  Prints how many, and in how many seconds.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import time

BATCH = 64
PORTS = 4096
HEADERS = 42
_PACKET_QDISC_BYPASS = 20
_SOL_PACKET = 263
# Where the sender's address begins; its port comes 8 bytes later.
_SOURCE = 26
_NOBODY = bytes((192, 0, 2, 99))


class _Piece(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Head(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(_Piece)),
        ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class _Message(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (("head", _Head), ("length", ctypes.c_uint))


class Batch:
    """Frames that are sent by one call."""

    def __init__(self, ports: range, size: int) -> None:
        self.frames = [ctypes.create_string_buffer(_frame(port, size), size) for port in ports]
        self._pieces = [_Piece(ctypes.addressof(frame), size) for frame in self.frames]
        self._messages = (_Message * len(ports))()
        for message, piece in zip(self._messages, self._pieces, strict=True):
            message.head.iov = ctypes.pointer(piece)
            message.head.iovlen = 1

    def send(self, out: socket.socket, first: int, end: int) -> int:
        """How many of the frames from `first` to `end` the kernel took."""
        rest = ctypes.byref(self._messages, first * ctypes.sizeof(_Message))
        return max(_library.sendmmsg(out.fileno(), rest, end - first, 0), 0)


_library = ctypes.CDLL(None, use_errno=True)


def _frame(port: int, size: int) -> bytes:
    ethernet = bytes((2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0))
    ip = struct.pack("!BBHHHBBH", 0x45, 0, size - 14, 0, 0, 64, 17, 0) + bytes((192, 0, 2, 1)) + _NOBODY
    udp = struct.pack("!HHHH", port, 9, size - 34, 0)
    return ethernet + ip + udp + bytes(size - HEADERS)


def flood(out: socket.socket, seconds: float, size: int) -> tuple[int, float]:
    """As fast as one process can."""
    out.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
    batches = [Batch(range(1024 + first, 1024 + first + BATCH), size) for first in range(0, PORTS, BATCH)]
    sent, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        for batch in batches:
            sent += batch.send(out, 0, BATCH)
    return sent, time.monotonic() - start


def flows(out: socket.socket, seconds: float, size: int, rate: int) -> tuple[int, float]:
    """`rate` a second, each from an address and port of its own."""
    batch, source = Batch(range(1024, 1024 + BATCH), size), struct.Struct("!I4sH").pack_into
    sent, start = 0, time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        due = int(now * rate)
        while sent < due:
            n = min(BATCH, due - sent)
            for slot in range(n):
                host, port = divmod(sent + slot, 50_000)
                source(batch.frames[slot], _SOURCE, 0x0A000000 + host, _NOBODY, 1024 + port)
            done = 0
            while done < n:
                done += batch.send(out, done, n)
            sent += n
        time.sleep(0.005)
    return sent, time.monotonic() - start


def main(interface: str, seconds: float, size: int, rate: int = 0) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((interface, 0))
        sent, took = flows(out, seconds, size, rate) if rate else flood(out, seconds, size)
    print(sent, took)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), *map(int, sys.argv[4:5]))
