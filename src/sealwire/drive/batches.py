"""Batches of datagrams: trains cut and put together by the kernel, and what came with each datagram.

The compiled twin (`_udp`) moves a batch in one system call; here it is one call for each train or
datagram.  Either takes what the kernel has: without UDP_GRO datagrams come one by one, without
UDP_SEGMENT a train is sent datagram by datagram (docs/data-plane.md has the fall-backs in order).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sealwire.drive.peers import IP_PKTINFO, Address, Reached
from sealwire.dtls import Train

Entry = tuple[bytes | Train, Address]

#: Entries of one call.
MOST_RECEIVED: Final = 16
MOST_SENT: Final = 64

# linux/udp.h, asm-generic/socket.h, linux/in.h and linux/in6.h; Python names few of them.
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_SO_RXQ_OVFL: Final = 40
_IP_RECVTOS: Final = 13
# Longer than any datagram and any train: with UDP_GRO a shorter buffer loses datagrams silently.
_SLOT_BYTES: Final = 65_535
_CONTROL_BYTES: Final = 128
_CONGESTION: Final = 3  # RFC 3168: both ECN bits
_OVERFLOW: Final = 1 << 32


class PlainReceiver:
    """Takes batches from a socket.

    Attributes:
        lost: datagrams the kernel dropped because the socket's buffer was full, as far as datagrams that
            came since have told (SO_RXQ_OVFL).
        marked: batches or datagrams with a congestion mark (ECN CE).
    """

    def __init__(self) -> None:
        self.lost = 0
        self.marked = 0
        #: What the network reported behind the last batch; the next call raises it.
        self.error: OSError | None = None

    def receive(self, sock: socket.socket, most: int = MOST_RECEIVED) -> list[Entry]:
        """What has arrived, at least one entry and at most `most`, up to MOST_RECEIVED.

        Raises:
            BlockingIOError: nothing has.
            OSError: what the network reported since, or the socket is broken.
        """
        error, self.error = self.error, None
        if error is not None:
            raise error
        batch: list[Entry] = []
        while len(batch) < min(most, MOST_RECEIVED):
            try:
                data, control, _, address = sock.recvmsg(_SLOT_BYTES, _CONTROL_BYTES)
            except (BlockingIOError, InterruptedError):
                if not batch:
                    raise
                break
            except OSError as met:
                if not batch:
                    raise
                self.error = met  # the kernel tells it once
                break
            size, address = self._look(control, address)
            batch.append((Train(data, size) if 0 < size < len(data) else data, address))
        return batch

    def _look(self, control: list[tuple[int, int, bytes]], address: Address) -> tuple[int, Address]:
        size = 0
        for level, kind, value in control:
            if (level, kind) == (socket.IPPROTO_UDP, _UDP_GRO):
                size = int.from_bytes(value[:4], sys.byteorder)
            elif (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                self.lost += (int.from_bytes(value[:4], sys.byteorder) - self.lost) % _OVERFLOW
            elif (level, kind) in (
                (socket.IPPROTO_IP, socket.IP_TOS),
                (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
            ):
                self.marked += value[0] & _CONGESTION == _CONGESTION
            elif (level, kind) in (
                (socket.IPPROTO_IP, IP_PKTINFO),
                (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO),
            ):
                address = Reached.arrived(address, (level, kind, value))
        return size, address


def plain_send(sock: socket.socket, entries: Sequence[Entry], connected: bool) -> int:
    """Send the first entries, at most MOST_SENT (here one); how many, at least one.

    A `connected` socket sends to its one peer, whatever the addresses say.

    Raises:
        BlockingIOError: the kernel takes none now.
        OSError: it refuses the first one, or reports what became of earlier ones and took none.
        ValueError: the first one's address is not numeric.
    """
    one, address = entries[0]
    control: list[tuple[int, int, bytes]] = []
    if isinstance(one, Train):
        data = one.data
        control.append((socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", one.size)))
    else:
        data = one
    if connected:
        sock.sendmsg([data], control)
    else:
        if isinstance(address, Reached):
            control.append(address.own)
        sock.sendmsg([data], control, 0, address)
    return 1


def segments(sock: socket.socket) -> bool:
    """Whether the kernel cuts trains into datagrams (Linux 4.18)."""
    if sys.platform != "linux":
        return False
    try:
        sock.getsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


def ask_for_trains(sock: socket.socket, wanted: bool = True) -> bool:
    """Have the kernel put trains together (Linux 5.0), and report what it dropped and what was marked.

    Whether it does the first.  `wanted` off: no more, for whoever reads the socket from now on.
    """
    if sys.platform != "linux":
        return False
    six = sock.family == socket.AF_INET6
    marks = (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS) if six else (socket.IPPROTO_IP, _IP_RECVTOS)
    for level, option in ((socket.SOL_SOCKET, _SO_RXQ_OVFL), marks):
        try:
            sock.setsockopt(level, option, int(wanted))
        except OSError:
            pass  # it is counted where it can be
    try:
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, int(wanted))
    except OSError as error:
        if error.errno == errno.EBADF:
            raise
        return False
    return True


def _choose() -> tuple[bool, str]:
    if os.environ.get("SEALWIRE_PURE") == "1":
        return False, "plain Python (SEALWIRE_PURE=1)"
    try:
        import sealwire.drive._udp  # noqa: F401 - that it loads is the question
    except ImportError as error:
        if os.environ.get("SEALWIRE_REQUIRE_COMPILED") == "1":
            raise ImportError(f"SEALWIRE_REQUIRE_COMPILED=1, but {error}") from error
        return False, f"plain Python ({error})"
    return True, "compiled: recvmmsg and sendmmsg"


_CHOICE: Final = _choose()
#: Whether a batch is one system call.
COMPILED: Final[bool] = _CHOICE[0]


def describe() -> str:
    """How batches move here, or for what reason not better, in one line."""
    return _CHOICE[1]


if COMPILED and not TYPE_CHECKING:
    from sealwire.drive._udp import Receiver, send
else:
    Receiver, send = PlainReceiver, plain_send
