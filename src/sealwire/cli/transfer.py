"""A file over datagrams: numbered chunks, acknowledgements, a window, retransmission.

Datagrams may be lost, doubled or reordered, protected or not, so a file needs this much above
them.  The demo uses it over DTLS and over plain UDP alike.  The sender opens with size and hash,
then keeps a window of chunks in flight, which grows until something is lost and halves when it
is.  The receiver acknowledges what it has, the next chunk it waits for and a map of later ones,
and, once everything is there, answers whatever comes with its verdict: the hash of what arrived.
Sender and Receiver take the time as an argument and own no socket.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque

# Message types, the first byte.  Integers are in network order.
OPEN = 0x4F  # u64 size, u32 chunk bytes, 32 bytes SHA-256
DATA = 0x44  # u32 number, chunk
ACK = 0x41  # u32 next number, bitmap of the numbers after it
VERDICT = 0x56  # 32 bytes SHA-256 of what arrived
PING = 0x50  # anything; answered by PONG with the same
PONG = 0x51

_OPEN = struct.Struct("!BQI32s")
_DATA = struct.Struct("!BI")

OPEN_BYTES = _OPEN.size
DATA_HEADER_BYTES = _DATA.size
PING_BYTES = 32
VERDICT_BYTES = 33

# Chunks the receiver keeps ahead of a gap, so also the most the sender ever has in flight.
_WINDOW = 512
# One ACK for so many chunks that arrive in order; the smallest window must be larger.
_CHUNKS_PER_ACK = 4
_SMALLEST_WINDOW = 8
# A chunk is lost once a chunk sent so many later is acknowledged; fewer may be reordering.
_REORDERING = 16
_SHORTEST_TIMEOUT_SECONDS = 0.05
_LONGEST_TIMEOUT_SECONDS = 1.0
# Chunks handed out at once, so that acknowledgements are read in between.
_BURST = 32


def opening(data: bytes, chunk_bytes: int) -> bytes:
    """The message that announces a file."""
    return _OPEN.pack(OPEN, len(data), chunk_bytes, hashlib.sha256(data).digest())


def announced_bytes(message: bytes) -> int:
    """Size of the file a message made by `opening` announces."""
    size: int = _OPEN.unpack(message)[1]
    return size


class Sender:
    """Brings `data` to a Receiver in chunks of `chunk_bytes`."""

    def __init__(self, data: bytes, chunk_bytes: int) -> None:
        self._data = memoryview(data)
        self._chunk_bytes = chunk_bytes
        self._count = -(-len(data) // chunk_bytes)
        self._open = opening(data, chunk_bytes)
        self._opened = False
        self._next = 0  # first chunk never sent
        self._acknowledged_to = 0
        self._flying: dict[int, tuple[float, int]] = {}  # number -> (when, order), oldest first
        self._lost: deque[int] = deque()
        self._resent: set[int] = set()
        self._order = 0
        self._recovery_order = 0  # losses of what was sent before this have been paid for
        self._window = 32.0
        self._threshold = float(_WINDOW)
        self._round_trip = 0.1
        self._timeout = 0.2
        self._alarm = 0.0
        #: Hash of what the receiver got; empty until it says so.
        self.verdict = b""
        #: Chunks sent again.
        self.retransmissions = 0

    @property
    def acknowledged_bytes(self) -> int:
        """How far the receiver has everything."""
        return min(self._acknowledged_to * self._chunk_bytes, len(self._data))

    def deadline(self) -> float:
        """When `transmit` has something to say even if nothing arrives."""
        return self._alarm

    def transmit(self, now: float) -> list[bytes]:
        """Messages to send now; empty if the window is full and nothing is overdue."""
        if not self._opened:
            if now < self._alarm:
                return []
            self._alarm = now + self._timeout
            return [self._open]
        if self._flying and now >= self._alarm:
            # Nothing came for a whole timeout: what is in flight counts as lost, and patience doubles.
            self._lost.extend(self._flying)
            self._flying.clear()
            self._slow_down()
            self._timeout = min(2 * self._timeout, _LONGEST_TIMEOUT_SECONDS)
        out: list[bytes] = []
        while len(self._flying) < self._window and len(out) < _BURST:
            if self._lost:
                number = self._lost.popleft()
                self._resent.add(number)
                self.retransmissions += 1
            elif self._next < min(self._count, self._acknowledged_to + _WINDOW):
                number = self._next
                self._next += 1
            else:
                break
            start = number * self._chunk_bytes
            out.append(_DATA.pack(DATA, number) + self._data[start : start + self._chunk_bytes])
            self._order += 1
            self._flying[number] = (now, self._order)
        if out:
            self._alarm = now + self._timeout
        return out

    def receive(self, message: bytes, now: float) -> None:
        """Take an answer of the receiver; anything else is ignored."""
        if len(message) == VERDICT_BYTES and message[0] == VERDICT:
            self.verdict = message[1:]
            self._acknowledged_to = self._count
        elif len(message) >= 5 and message[0] == ACK:
            self._opened = True
            self._acknowledge(int.from_bytes(message[1:5]), message[5:], now)

    def _acknowledge(self, next_number: int, bitmap: bytes, now: float) -> None:
        if next_number > self._next:
            return
        self._acknowledged_to = max(self._acknowledged_to, next_number)
        bits = int.from_bytes(bitmap, "little")
        arrived = [n for n in self._flying if n < next_number or bits >> (n - next_number) & 1]
        self._lost = deque(n for n in self._lost if n >= next_number and not bits >> (n - next_number) & 1)
        if not arrived:
            return
        newest = 0
        for number in arrived:
            sent, order = self._flying.pop(number)
            newest = max(newest, order)
            if number not in self._resent:  # else: which transmission was it?
                self._round_trip += (now - sent - self._round_trip) / 8
        self._timeout = min(max(4 * self._round_trip, _SHORTEST_TIMEOUT_SECONDS), _LONGEST_TIMEOUT_SECONDS)
        self._alarm = now + self._timeout
        grown = len(arrived) if self._window < self._threshold else len(arrived) / self._window
        self._window = min(self._window + grown, float(_WINDOW))
        overtaken = [n for n, (_, order) in self._flying.items() if order + _REORDERING < newest]
        if overtaken:
            if self._flying[overtaken[0]][1] > self._recovery_order:
                self._slow_down()
            for number in overtaken:
                del self._flying[number]
            self._lost.extend(overtaken)

    def _slow_down(self) -> None:
        self._window = self._threshold = max(self._window / 2, float(_SMALLEST_WINDOW))
        self._recovery_order = self._order


class Receiver:
    """The other side: answers every message, keeps only the hash of what arrived in order."""

    def __init__(self) -> None:
        self._count = -1
        self._announced = b""
        self._next = 0
        self._waiting: dict[int, bytes] = {}
        self._unacknowledged = 0
        self._hash = hashlib.sha256()
        #: Bytes that arrived in order.
        self.received_bytes = 0

    @property
    def complete(self) -> bool:
        """Everything announced has arrived."""
        return self._next == self._count

    @property
    def intact(self) -> bool:
        """Everything arrived and has the hash that was announced."""
        return self.complete and self._hash.digest() == self._announced

    def receive(self, message: bytes) -> list[bytes]:
        """Take one message; what to answer."""
        if not message:
            return []
        if message[0] == PING:
            return [bytes([PONG]) + message[1:]]
        if message[0] == OPEN and len(message) == _OPEN.size and self._count < 0:
            _, size, chunk_bytes, self._announced = _OPEN.unpack(message)
            self._count = -(-size // max(chunk_bytes, 1))
        elif message[0] == DATA and len(message) >= _DATA.size and self._count >= 0:
            number: int = _DATA.unpack_from(message)[1]
            expected = number == self._next
            if self._next <= number < self._next + _WINDOW:
                self._waiting[number] = message[_DATA.size :]
            while self._next in self._waiting:
                chunk = self._waiting.pop(self._next)
                self._hash.update(chunk)
                self.received_bytes += len(chunk)
                self._next += 1
            self._unacknowledged += 1
            if (
                expected
                and not self._waiting
                and not self.complete
                and self._unacknowledged < _CHUNKS_PER_ACK
            ):
                return []
        elif message[0] != OPEN or self._count < 0:
            return []
        self._unacknowledged = 0
        if self.complete:
            return [bytes([VERDICT]) + self._hash.digest()]
        bits = sum(1 << (number - self._next) for number in self._waiting)
        bitmap = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        return [bytes([ACK]) + self._next.to_bytes(4) + bitmap]
