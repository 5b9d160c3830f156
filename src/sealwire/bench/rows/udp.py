"""`bench udp`: plain UDP from Python, the floor everything secured stands on.

One sender and one receiver on different CPUs; the figure is the highest rate at which nothing is
lost, found by bisection, with the kernel's receive buffer the same for everybody.  One datagram a
call (send, recv), and batched: one sendmsg with UDP_SEGMENT for as many as fit, UDP_GRO on the
other side.  Whether sender or receiver was the limit is in the checks.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sealwire.bench.measurement import (
    Absent,
    Bench,
    Body,
    Contender,
    Figure,
    Kind,
    Measurement,
    Peer,
    Present,
    Role,
    here,
)
from sealwire.bench.rate_search import RateSearch

SIZES: Final = (64, 1200)
_UDP_SEGMENT: Final = 103  # linux/udp.h
_UDP_GRO: Final = 104
_RECEIVE_BUFFER_BYTES: Final = 4 << 20
_LARGEST_SEND_BYTES: Final = 65_507
_MOST_SEGMENTS: Final = 64
_SLOT_BYTES: Final = 65_536
_DATAGRAMS_PER_CLOCK: Final = 16
# How long the receiver is given to empty its buffer.
_SETTLE_SECONDS: Final = 0.02


class Receiver:
    """The Peer: counts datagrams."""

    def __init__(self, bench: Bench, batched: bool, size: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._socket.bind(("127.0.0.1", 0))
        self._batched = batched
        self._size = size
        self._lock = threading.Lock()
        self._count = 0
        if batched:
            self._socket.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)

    @property
    def address(self) -> Mapping[str, Any]:
        granted = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return {"port": self._socket.getsockname()[1], "receive_buffer_bytes": granted}

    def serve(self) -> None:
        if self._batched:
            receive = self._socket.recvmsg
            room = socket.CMSG_SPACE(4)
            size = self._size
            while True:
                data = receive(_SLOT_BYTES, room)[0]
                self._count += -(-len(data) // size)
        receive_one = self._socket.recv
        while True:
            receive_one(_SLOT_BYTES)
            self._count += 1

    def answer(self, question: str) -> Mapping[str, float]:
        if question == "settled":
            while select.select([self._socket], [], [], _SETTLE_SECONDS)[0]:
                time.sleep(_SETTLE_SECONDS)
        return {"count": float(self._count)}


class Sender(RateSearch):
    """A Body: offers rates until it knows the highest that loses nothing."""

    def __init__(self, bench: Bench, batched: bool, size: int) -> None:
        super().__init__(bench)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", bench.peer["port"]))
        self._batched = batched
        self._segments = min(_MOST_SEGMENTS, _LARGEST_SEND_BYTES // size) if batched else 1
        self._data = bytes(size) * self._segments
        if batched:
            self._control = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", size))]

    def send(self, rate: float, seconds: float) -> int:
        send_one = self._one_send()
        segments = self._segments
        calls = max(1, _DATAGRAMS_PER_CLOCK // segments)
        clock = time.perf_counter
        start = clock()
        end = start + seconds
        sent = 0
        while clock() < end:
            if rate:
                self.wait_until(start + sent / rate)
            for _ in range(calls):
                send_one()
            sent += calls * segments
        return sent

    def _one_send(self) -> Callable[[], object]:
        data = self._data
        if not self._batched:
            return partial(self._socket.send, data)
        return partial(self._socket.sendmsg, [data], self._control)

    def close(self) -> None:
        self._socket.close()


def segmentation() -> Present | Absent:
    """Whether this kernel cuts a send into datagrams (UDP_SEGMENT) and puts them together (UDP_GRO)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 100)
            sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        except OSError as error:
            return Absent(f"this kernel has no UDP segmentation: {(error.strerror or str(error)).lower()}")
    return Present("")


def _row(size: int, batched: bool) -> Measurement:
    name = "batched" if batched else "single"
    open_: Callable[[Bench], Body] = partial(Sender, batched=batched, size=size)
    peer: Callable[[Bench], Peer] = partial(Receiver, batched=batched, size=size)
    return Measurement(
        f"udp.{name}.{size}",
        f"plain UDP from Python, {size:,} B, {'GSO and GRO' if batched else 'one datagram a call'}",
        (
            Figure("", "1/s", Kind.RATE, "datagrams without loss"),
            Figure("sender", "us", Kind.TIME, "sender's CPU per datagram"),
            Figure("receiver", "us", Kind.TIME, "receiver's CPU per datagram"),
        ),
        (Contender("plain UDP", Role.OURS, open_, peer, segmentation if batched else here),),
    )


ROWS = tuple(_row(size, batched) for batched in (False, True) for size in SIZES)
