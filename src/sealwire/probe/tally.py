"""What is kept of a flow while it is in the table, and how a packet changes it, in plain Python.

The compiled twin is `_features.pxd`.  All sums are of integers; nothing is divided before a row is
read (`features`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sealwire.probe.decode import Packet
from sealwire.probe.dissect.case import Case
from sealwire.probe.features import FIRST, NOTHING, Mark

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

#: A gap counts as at most this in the sum of squares, so that sum stays inside 128 bits.
MAX_SQUARED_GAP: Final = (1 << 48) - 1
_MASK64: Final = (1 << 64) - 1
_MASK32: Final = 0xFFFFFFFF
_LETTERS: Final = b"SHIADTWGFR"


@dataclass(slots=True)
class Way:
    """One direction's numbers, in the order of a row, and where its TCP stream stands."""

    packets: int = 0
    bytes: int = 0
    payload_bytes: int = 0
    wire_bytes: int = 0
    first: int = 0
    last: int = 0
    size_square_sum: int = 0
    size_min: int = 0
    size_max: int = 0
    gap_min: int = NOTHING
    gap_max: int = NOTHING
    gap_sum: int = 0
    gap_square_sum: int = 0
    retransmissions: int = 0
    out_of_order: int = 0
    holes: int = 0
    zero_windows: int = 0
    window_min: int = 0xFFFF
    window_max: int = 0
    flags: int = 0
    ttl_min: int = 0
    ttl_max: int = 0
    tos: int = 0
    follows: bool = False
    next_sequence: int = 0
    hole_list: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])

    def row(self) -> tuple[int, ...]:
        windowless = self.window_min > self.window_max
        return (
            *(self.packets, self.bytes, self.payload_bytes, self.wire_bytes),
            *(self.first, self.last, self.size_square_sum),
            *(self.size_min, self.size_max, self.gap_min, self.gap_max, self.gap_sum),
            *(self.gap_square_sum & _MASK64, self.gap_square_sum >> 64),
            *(self.retransmissions, self.out_of_order, self.holes, self.zero_windows),
            *(0 if windowless else self.window_min, self.window_max),
            *(self.flags, self.ttl_min, self.ttl_max, self.tos),
        )


@dataclass(slots=True)
class Tally:
    """A flow in the table."""

    key: bytes
    head: Packet
    #: Whether its first packet went from the lower end to the higher one.
    upward: bool
    first_packet: int
    part: int
    marks: int
    started: int
    touched: int = 0
    #: 0 while alive; when its linger ends.
    deadline: int = 0
    ways: tuple[Way, Way] = field(default_factory=lambda: (Way(), Way()))
    history: bytearray = field(default_factory=bytearray)
    handshake_server: int = NOTHING
    handshake_client: int = NOTHING
    response: int = NOTHING
    syn: tuple[int, int] | None = None
    syn_ack: tuple[int, int] | None = None
    request: int = NOTHING
    firsts: list[bytes] = field(default_factory=list)
    #: What dissection knows; None before the first payload and where it is off.
    case: Case | None = None
    #: Dissection wants no more packets.
    dissected: bool = False
    latest: int = 0

    def letter(self, index: int, backward: int) -> None:
        letter = _LETTERS[index] | (0x20 if backward else 0)
        if letter not in self.history:
            self.history.append(letter)

    def update(self, packet: Packet, time: int, wire_bytes: int, backward: int, first_packets: int) -> None:
        """Count a packet of one direction; the first `first_packets` leave their size and gap."""
        way = self.ways[backward]
        size = packet.ip_bytes
        if len(self.firsts) < first_packets:
            before = self.latest if self.firsts else time
            gap = min(max(time - before, 0) // 1000, _MASK32)
            self.firsts.append(FIRST.pack(-size if backward else size, gap))
        self.latest = time
        if way.packets:
            gap = max(time - way.last, 0)
            way.gap_min = gap if way.packets == 1 else min(way.gap_min, gap)
            way.gap_max = max(way.gap_max, gap)
            way.gap_sum += gap
            way.gap_square_sum += min(gap, MAX_SQUARED_GAP) ** 2
            way.last = max(way.last, time)
            way.size_min, way.size_max = min(way.size_min, size), max(way.size_max, size)
            way.ttl_min, way.ttl_max = min(way.ttl_min, packet.ttl), max(way.ttl_max, packet.ttl)
        else:
            way.first = way.last = time
            way.size_min = way.size_max = size
            way.ttl_min = way.ttl_max = packet.ttl
            way.tos = packet.tos
        way.packets += 1
        way.bytes += size
        way.payload_bytes += packet.payload_bytes
        way.wire_bytes += wire_bytes
        way.size_square_sum = (way.size_square_sum + size * size) & _MASK64
        way.flags |= packet.flags
        if packet.fragment:
            self.marks |= Mark.FRAGMENTS
        if packet.fragment == 2:
            return
        if packet.payload_bytes:
            self._response(time, backward)
        if packet.tcp:
            self._tcp(way, packet, time, backward)
        elif packet.protocol == 17 and packet.payload_bytes:
            self.letter(4, backward)

    def _response(self, time: int, backward: int) -> None:
        if not backward:
            if self.request == NOTHING:
                self.request = time
        elif self.request != NOTHING and self.response == NOTHING:
            self.response = max(time - self.request, 0)

    def _tcp(self, way: Way, packet: Packet, time: int, backward: int) -> None:
        flags = packet.flags
        syn, ack, fin, rst = flags & SYN, flags & ACK, flags & FIN, flags & RST
        if syn:
            self.letter(1 if ack else 0, backward)
        if bool(syn) + bool(fin) + bool(rst) > 1:
            self.letter(2, backward)
        if ack and not (syn or fin or rst or packet.payload_bytes):
            self.letter(3, backward)
        if packet.payload_bytes:
            self.letter(4, backward)
        self._handshake(packet, time, backward)
        if not rst:
            way.window_min = min(way.window_min, packet.window)
            way.window_max = max(way.window_max, packet.window)
            if packet.window == 0 and not (syn or fin):
                way.zero_windows += 1
                self.letter(6, backward)
            if packet.fragment == 0:
                self._sequence(way, packet, backward)
        if fin:
            self.letter(8, backward)
        if rst:
            self.letter(9, backward)

    def _handshake(self, packet: Packet, time: int, backward: int) -> None:
        """Round trips of the handshake; a SYN sent twice is measured from the last one before the answer."""
        flags = packet.flags & (SYN | ACK | RST | FIN)
        if not backward and flags == SYN:
            if self.handshake_server == NOTHING:
                self.syn = (packet.sequence + 1 & _MASK32, time)
        elif backward and flags == SYN | ACK:
            if (
                self.syn is not None
                and packet.acknowledgment == self.syn[0]
                and self.handshake_client == NOTHING
            ):
                if self.handshake_server == NOTHING:
                    self.handshake_server = max(time - self.syn[1], 0)
                self.syn_ack = (packet.sequence + 1 & _MASK32, time)
        elif not backward and packet.flags & ACK and not packet.flags & (SYN | RST):
            expected, since = self.syn_ack or (NOTHING, 0)
            if packet.acknowledgment == expected and self.handshake_client == NOTHING:
                self.handshake_client = max(time - since, 0)

    def _sequence(self, way: Way, packet: Packet, backward: int) -> None:
        """Where the segment lies: at the end of the stream, beyond it (a hole), in a hole, or in the past."""
        length = packet.payload_bytes + bool(packet.flags & SYN) + bool(packet.flags & FIN)
        start, end = packet.sequence, packet.sequence + length & _MASK32
        if not way.follows:
            way.follows, way.next_sequence = True, end
            return
        if length == 0:
            return
        ahead = _signed(start - way.next_sequence)
        if ahead >= 0:
            if ahead > 0:
                way.holes += 1
                self.letter(7, backward)
                way.hole_list[0] = way.hole_list[1]
                way.hole_list[1] = [way.next_sequence, start]
            way.next_sequence = end
            return
        if ahead == -1 and length <= 1 and not packet.flags & (SYN | FIN):
            return  # a keep-alive (RFC 9293 section 3.8.4)
        for hole in way.hole_list:
            if hole[0] != hole[1] and _signed(start - hole[0]) >= 0 and _signed(hole[1] - end) >= 0:
                way.out_of_order += 1
                if start == hole[0]:
                    hole[0] = end
                else:
                    hole[1] = start
                return
        way.retransmissions += 1
        self.letter(5, backward)
        if _signed(end - way.next_sequence) > 0:
            way.next_sequence = end


def _signed(difference: int) -> int:
    """A difference of sequence numbers, which wrap."""
    difference &= _MASK32
    return difference - (1 << 32) if difference >> 31 else difference
