"""The two ways to the runner: a byte stream, and datagrams with a virtual clock, both over one TCP socket.

A datagram, or an order of the runner about time or MTU, is an opcode and a body (packet_adapter.go of
BoringSSL's runner): integers are big endian.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from tests.bogo.flags import Flags

_NO_TIMER = 2**64 - 1


def connect(flags: Flags) -> socket.socket:
    """A connection to the runner, which learns from the id whose it is."""
    host = "::1" if "-ipv6" in flags else "127.0.0.1"
    connected = socket.create_connection((host, flags.number("-port")))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.sendall(struct.pack("<Q", flags.number("-shim-id")))
    return connected


def hang_up(connected: socket.socket) -> None:
    """Close our direction, and the socket once the runner has closed its own, so that it reads everything."""
    try:
        connected.shutdown(socket.SHUT_WR)
        while connected.recv(65536):
            pass
    except OSError:
        pass  # the runner was quicker
    connected.close()


class Clock:
    """Time as the tests have it: it stands still unless told to go on.  Microseconds."""

    def __init__(self) -> None:
        self.microseconds = 1234 * 1_000_000 + 1234

    @property
    def now(self) -> float:
        return self.microseconds / 1e6


@dataclass(frozen=True, slots=True)
class Datagram:
    """What came from the peer."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Elapsed:
    """So much time went by."""

    microseconds: int


@dataclass(frozen=True, slots=True)
class NewMtu:
    """Datagrams may be so long from now on."""

    size: int


@dataclass(frozen=True, slots=True)
class ExpectTimer:
    """The next timer must run out after so long, None for no timer."""

    microseconds: int | None


@dataclass(frozen=True, slots=True)
class NewTimeout:
    """Retransmission begins with this timeout from now on."""

    milliseconds: int


Order = Datagram | Elapsed | NewMtu | ExpectTimer | NewTimeout


class DatagramWire:
    """Datagrams framed over the socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def send(self, datagram: bytes) -> None:
        self._socket.sendall(b"P" + struct.pack("!I", len(datagram)) + datagram)

    def receive(self) -> Order | None:
        """The next thing to do; None at the end."""
        opcode = self._socket.recv(1)
        match opcode:
            case b"":
                return None
            case b"P":
                return Datagram(self._take(self._u32()))
            case b"T":
                elapsed = self._u64() // 1000
                # What is sent between the order and this answer fails the test.
                self._socket.sendall(b"t")
                return Elapsed(elapsed)
            case b"M":
                return NewMtu(self._u32())
            case b"E":
                expected = self._u64()
                return ExpectTimer(None if expected == _NO_TIMER else expected // 1000)
            case b"U":
                return NewTimeout(self._u32())
            case _:
                raise OSError(f"the runner sent opcode {opcode!r}")

    def _u32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def _u64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def _take(self, n: int) -> bytes:
        data = bytearray()
        while len(data) < n:
            chunk = self._socket.recv(n - len(data))
            if not chunk:
                raise EOFError("the runner closed within a datagram")
            data += chunk
        return bytes(data)
