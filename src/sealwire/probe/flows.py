"""The flow table in plain Python: oracle for the compiled one (`_flows`) and fallback where it is absent.

    layout, at = files.begin(data, final)
    at, stop = table.feed(layout, data, at, budget)      again and again; rows leave by take()
    table.finish(); rows = table.take()                  until finish() says that nothing is left

Time is packet time only, and never goes back: `clock` is the latest seen.  Before a packet is looked
at, every flow whose time was up before it has left, in the order of those times; so rows come in
the order of (ended, first_packet), whatever the hash key and however the input was cut.
"""

from __future__ import annotations

import struct
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final

from sealwire.probe.counters import ProbeCounters
from sealwire.probe.decode import Packet, decode
from sealwire.probe.discards import PacketDiscard
from sealwire.probe.dissect.case import Case
from sealwire.probe.dissect.desk import Desk, Ends
from sealwire.probe.features import FIRST, HISTORY_BYTES, TCP, EndReason, Mark, icmp_pair, row_struct
from sealwire.probe.files import (
    ENHANCED,
    INTERFACE,
    MAX_BLOCK_BYTES,
    PACKET,
    SECTION,
    SIMPLE,
    Kind,
    Layout,
    Stop,
)
from sealwire.probe.settings import Settings, nanoseconds
from sealwire.probe.tally import ACK, FIN, RST, SYN, Tally

#: Rows that wait before a walk stops for them to be taken.
FULL_ROWS: Final = 8_192
#: What one flow is charged: its record with its share of the hash index, and what a second packet adds.
RECORD_BYTES: Final = 136
EXTENSION_BYTES: Final = 376
#: What the first sizes and gaps of a flow take beside their entries.
SEQUENCE_BYTES: Final = 16
#: First fragments whose ports are remembered for the fragments behind them.
FRAGMENTS: Final = 256

#: A filter on a packet's bytes and its size on the wire.
Filter = Callable[[memoryview, int], bool]


def order_key(packet: Packet) -> tuple[bytes, bytes]:
    """Both ends of a packet as bytes that order as addresses and ports do."""
    first, second = packet.key_ports
    return (
        packet.source + first.to_bytes(2, "big"),
        packet.destination + second.to_bytes(2, "big"),
    )


class Table:
    """Flows by addresses, ports and protocol, within `settings`.

    `key` (16 bytes) keys the compiled table's hash; here Python's own keyed hash does that.
    `shard` of `shards` tables over one input holds only its share of the flows.
    """

    def __init__(
        self, settings: Settings, key: bytes = bytes(16), *, shard: int = 0, shards: int = 1
    ) -> None:
        self._settings = settings
        self._idle_ns = nanoseconds(settings.idle_timeout)
        self._active_ns = nanoseconds(settings.active_timeout)
        self._linger_ns = nanoseconds(settings.linger)
        self._row = row_struct(settings.first_packets)
        self.row_bytes = self._row.size
        self._idle: OrderedDict[bytes, Tally] = OrderedDict()
        self._ending: OrderedDict[bytes, Tally] = OrderedDict()
        self._fragments: deque[tuple[bytes, tuple[int, int]]] = deque(maxlen=FRAGMENTS)
        self._rows: list[tuple[int, int, bytes, bytes]] = []
        self._facts = b""
        self._desk = Desk(settings.max_dissection_bytes) if settings.dissect else None
        self._counters = ProbeCounters()
        self._finishing = False
        self._shard, self._shards = shard, shards
        #: Latest packet time, ns.
        self.clock = 0

    # --- input ---------------------------------------------------------------------------------

    def feed(
        self,
        layout: Layout,
        data: memoryview,
        at: int,
        budget: int,
        filters: Sequence[Filter | None] | None = None,
    ) -> tuple[int, Stop]:
        """Walk records from `at`, at most `budget` packets; where it ended and why.

        `filters` has one entry per interface of the layout.
        """
        return (self._walk_pcap if layout.kind == Kind.PCAP else self._walk_pcapng)(
            layout, data, at, budget, filters
        )

    def _walk_pcap(
        self, layout: Layout, data: memoryview, at: int, budget: int, filters: Sequence[Filter | None] | None
    ) -> tuple[int, Stop]:
        head = struct.Struct(layout.order + "IIII")
        interface = layout.interfaces[0]
        unit = 1_000_000_000 // interface.multiplier
        while at + layout.record_header <= len(data):
            if budget <= 0:
                return at, Stop.BUDGET
            seconds, fraction, captured, wire = head.unpack_from(data, at)
            if captured > layout.record_limit:
                return at, Stop.CORRUPT
            body = at + layout.record_header
            if body + captured > len(data):
                break
            time, cut = interface.time(seconds * unit + fraction)
            if not self.packet(
                data[body : body + captured], wire, interface.link, time, cut, filters[0] if filters else None
            ):
                return at, Stop.FULL
            at = body + captured
            budget -= 1
        return at, Stop.MORE

    def _walk_pcapng(
        self, layout: Layout, data: memoryview, at: int, budget: int, filters: Sequence[Filter | None] | None
    ) -> tuple[int, Stop]:
        u32 = struct.Struct(layout.order + "I")
        enhanced = struct.Struct(layout.order + "IIIII")
        while at + 12 <= len(data):
            if budget <= 0:
                return at, Stop.BUDGET
            kind, length = struct.unpack_from(layout.order + "II", data, at)
            if kind in (SECTION, INTERFACE):
                return at, Stop.CONTROL
            if length < 12 or length % 4 or length > MAX_BLOCK_BYTES:
                return at, Stop.CORRUPT
            if at + length > len(data):
                break
            if kind in (ENHANCED, PACKET):
                if length < 32:
                    return at, Stop.CORRUPT
                number, high, low, captured, wire = enhanced.unpack_from(data, at + 8)
                if kind == PACKET:  # 16 bits of interface, then 16 bits of drops
                    number = struct.unpack_from(layout.order + "H", data, at + 8)[0]
                captured = min(captured, length - 32)
                body, stamp = at + 28, high << 32 | low
            elif kind == SIMPLE:
                if length < 16:
                    return at, Stop.CORRUPT
                number, stamp, body = 0, -1, at + 12
                wire = u32.unpack_from(data, at + 8)[0]
                captured = min(wire, length - 16)
            else:
                at += length
                continue
            if number < len(layout.interfaces):
                interface = layout.interfaces[number]
                if kind == SIMPLE and interface.snaplen:
                    captured = min(captured, interface.snaplen)
                # A simple packet has no time; it happened after what was before it.
                time, cut = interface.time(stamp) if stamp >= 0 else (self.clock, False)
                passing = filters[number] if filters else None
                done = self.packet(data[body : body + captured], wire, interface.link, time, cut, passing)
                if not done:
                    return at, Stop.FULL
            else:
                self._counters.packets += 1
                self._counters.wire_bytes += wire
                self._discard(PacketDiscard.UNKNOWN_INTERFACE)
            at += length
            budget -= 1
        return at, Stop.MORE

    def feed_block(self, data: memoryview, block: int, at: int, left: int, link: int) -> tuple[int, int]:
        """Packets of a block of the kernel's ring, which begins at `block`.

        `at` and `left` are 0 at first; what is returned is given again, once rows have been taken, as long
        as `left` is not 0.
        """
        if at == 0:
            if not 0 <= block <= len(data) - _BLOCK_HEAD:
                return at, left
            left, offset = struct.unpack_from("=II", data, block + 12)
            at = block + offset
        while left:
            if not 0 <= at <= len(data) - _PACKET.size:
                return at, 0
            follows, seconds, rest, captured, wire, status, mac, tag = _PACKET.unpack_from(data, at)
            body = at + mac
            if body + captured > len(data):
                return at, 0
            vlan = tag & 0xFFF if status & 0x10 else -1  # TP_STATUS_VLAN_VALID
            wire += 4 if vlan >= 0 else 0
            time = seconds * 1_000_000_000 + rest
            if not self.packet(data[body : body + captured], wire, link, time, vlan=vlan):
                return at, left
            at += follows
            left -= 1
        return at, left

    def tick(self, time: int) -> bool:
        """Say that nothing older than `time` will come; False if rows must be taken first."""
        return self._advance(time)

    def packet(
        self,
        data: memoryview,
        wire_bytes: int,
        link: int,
        time: int,
        cut: bool = False,
        passing: Filter | None = None,
        vlan: int = -1,
    ) -> bool:
        """One packet; False, and nothing done but ends of flows, if rows must be taken first."""
        if not self._advance(time):
            return False
        counters = self._counters
        counters.packets += 1
        counters.wire_bytes += wire_bytes
        counters.backwards += time < self.clock
        counters.clamped_times += cut
        if passing is not None and not passing(data, wire_bytes):
            self._discard(PacketDiscard.FILTERED)
            return True
        packet = decode(data, link, wire_bytes, self._settings.tunnels)
        if isinstance(packet, Packet) and vlan >= 0:  # a tag the kernel took out of the frame
            packet.vlan, packet.vlan_inner = vlan, packet.vlan
        if isinstance(packet, Packet) and packet.fragment:
            packet = self._fragment(packet)
        if isinstance(packet, PacketDiscard):
            self._discard(packet)
            return True
        self._count(packet, time, wire_bytes)
        return True

    def _discard(self, reason: PacketDiscard) -> None:
        self._counters.discards[reason] = self._counters.discards.get(reason, 0) + 1

    def _fragment(self, packet: Packet) -> Packet | PacketDiscard:
        """The packet with the ports its first fragment had."""
        key = bytes((packet.version, packet.protocol)) + packet.fragment_id.to_bytes(4, "big")
        key += packet.source + packet.destination
        if packet.fragment == 1:
            ports = (packet.source_port, packet.destination_port)
            self._fragments.append((key, ports))
            return packet
        # The newest first: identifications are used again.
        for known, ports in reversed(self._fragments):
            if known == key:
                packet.source_port, packet.destination_port = ports
                packet.key_ports = ports
                if packet.protocol in (1, 58):
                    first, second, packet.one_way = icmp_pair(packet.protocol, *ports)
                    packet.key_ports = (first, second)
                return packet
        return PacketDiscard.STRAY_FRAGMENT

    # --- the table -----------------------------------------------------------------------------

    def _count(self, packet: Packet, time: int, wire_bytes: int) -> None:
        first = self._settings.first_packets
        source, destination = order_key(packet)
        upward = packet.one_way or source <= destination
        ends = source + destination if upward else destination + source
        key = bytes((packet.version | (0x80 if packet.one_way else 0), packet.protocol)) + ends
        if self._shards > 1 and zlib.crc32(key) % self._shards != self._shard:
            return
        self._counters.flow_packets += 1
        self._counters.flow_bytes += packet.ip_bytes
        flow = self._idle.get(key) or self._ending.get(key)
        part = 0
        inherited: tuple[Case | None, bool] = (None, False)
        if flow is not None:
            fresh = packet.tcp and packet.fragment == 0 and packet.flags & (SYN | ACK | RST | FIN) == SYN
            if flow.deadline and fresh:
                self._export(flow, self._end_of(flow), self.clock)
                flow = None
            elif self._active_ns and not flow.deadline and self.clock - flow.started >= self._active_ns:
                part = flow.part + 1
                # What is known of a connection holds for its next part.
                inherited = (flow.case, flow.dissected)
                self._export(flow, EndReason.ACTIVE, self.clock)
                flow = None
        if flow is None:
            self._make_room(RECORD_BYTES, None)
            flow = self._open(key, packet, upward, part)
            flow.update(packet, time, wire_bytes, 0, first)
            flow.case, flow.dissected = inherited
        else:
            if not flow.deadline:
                flow.touched = self.clock
                self._idle.move_to_end(key)
            if flow.ways[0].packets + flow.ways[1].packets == 1:
                self._make_room(self._extension_bytes, flow)
                self._hold(self._extension_bytes)
            flow.update(packet, time, wire_bytes, int(upward != flow.upward), first)
        if self._desk is not None and not flow.dissected and packet.payload:
            backward = int(upward != flow.upward)
            flow.case, flow.dissected = self._desk.packet(
                flow.case, self._ends(flow), packet, backward, self.clock
            )
        if self._linger_ns and not flow.deadline and packet.protocol == TCP:
            flags = flow.ways[0].flags, flow.ways[1].flags
            if (flags[0] | flags[1]) & RST or flags[0] & flags[1] & FIN:
                flow.deadline = self.clock + self._linger_ns
                del self._idle[flow.key]
                self._ending[flow.key] = flow

    @staticmethod
    def _ends(flow: Tally) -> Ends:
        head = flow.head
        forward = head.sequence + 1 & 0xFFFFFFFF if head.tcp and head.flags & SYN else -1
        backward = flow.syn_ack[0] if flow.syn_ack is not None else -1
        return Ends(head, flow.part, flow.ways[0].first, flow.first_packet, (forward, backward))

    @property
    def _extension_bytes(self) -> int:
        first = self._settings.first_packets
        return EXTENSION_BYTES + (SEQUENCE_BYTES + FIRST.size * first if first else 0)

    def _hold(self, n: int) -> None:
        counters = self._counters
        counters.held_bytes += n
        counters.peak_bytes = max(counters.peak_bytes, counters.held_bytes)

    def _open(self, key: bytes, packet: Packet, upward: bool, part: int) -> Tally:
        marks = Mark.CONTINUED if part else Mark(0)
        if packet.tcp and not part and packet.flags & (SYN | ACK) != SYN:
            marks |= Mark.MIDSTREAM
        counters = self._counters
        flow = Tally(key, packet, upward, counters.packets, part, int(marks), self.clock, self.clock)
        self._idle[key] = flow
        counters.flows += 1
        counters.active += 1
        counters.peak = max(counters.peak, counters.active)
        self._hold(RECORD_BYTES)
        return flow

    def _make_room(self, n: int, keep: Tally | None) -> None:
        """Export the flows idle for longest until `n` more bytes (and, for a new flow, it) fit."""
        counters, settings = self._counters, self._settings
        while (
            keep is None and counters.active >= settings.max_flows
        ) or counters.held_bytes + n > settings.max_bytes:
            victim = next(iter(self._idle.values()), None) or next(iter(self._ending.values()), None)
            if victim is keep:  # it is the newest, so the only one that is not ending
                victim = next(iter(self._ending.values()), None)
            if victim is None or victim is keep:
                return
            self._export(victim, EndReason.EVICTED, self.clock)

    @staticmethod
    def _end_of(flow: Tally) -> EndReason:
        return EndReason.RST if (flow.ways[0].flags | flow.ways[1].flags) & RST else EndReason.FIN

    # --- ways out ------------------------------------------------------------------------------

    def _advance(self, time: int) -> bool:
        """Export what ended before `time`; False if rows must be taken before all of it could be."""
        if len(self._rows) >= 4 * FULL_ROWS or (self._desk is not None and self._desk.full):
            return False
        if time < self.clock:
            return True
        while True:
            idle = next(iter(self._idle.values()), None) if self._idle_ns else None
            ending = next(iter(self._ending.values()), None)
            idle_end = idle.touched + self._idle_ns if idle else MAX
            ending_end = ending.deadline if ending else MAX
            flow, end = (idle, idle_end) if idle_end < ending_end else (ending, ending_end)
            if flow is None or end > time:
                break
            if len(self._rows) >= FULL_ROWS and self._rows[-1][0] != end:
                self.clock = max(self.clock, end)
                return False
            self._export(flow, self._end_of(flow) if flow is ending else EndReason.IDLE, end)
        self.clock = time
        return True

    def finish(self) -> bool:
        """The input has ended: export what is left, some of it a call; False when nothing was."""
        if not self._finishing:
            self._finishing = True
            flows = sorted([*self._idle.values(), *self._ending.values()], key=lambda flow: flow.first_packet)
            self._idle = OrderedDict((flow.key, flow) for flow in flows)
            self._ending.clear()
        left = list(self._idle.values())[:FULL_ROWS]
        for flow in left:
            self._export(flow, self._end_of(flow) if flow.deadline else EndReason.INPUT_END, self.clock)
        return bool(left)

    def _export(self, flow: Tally, reason: EndReason, ended: int) -> None:
        counters = self._counters
        self._idle.pop(flow.key, None)
        self._ending.pop(flow.key, None)
        forward, backward = flow.ways
        counters.active -= 1
        counters.held_bytes -= RECORD_BYTES
        if forward.packets + backward.packets > 1:
            counters.held_bytes -= self._extension_bytes
        counters.exported += 1
        counters.ends[reason] = counters.ends.get(reason, 0) + 1
        head = flow.head
        facts = b""
        if flow.case is not None and self._desk is not None:
            if reason is EndReason.ACTIVE:
                facts = flow.case.block()
            else:
                facts = self._desk.close(flow.case, self._ends(flow), ended)
        row = self._row.pack(
            *(
                head.source,
                head.destination,
                head.source_port,
                head.destination_port,
                head.version,
                head.protocol,
            ),
            *(int(reason), flow.marks, head.vlan, head.vlan_inner, flow.part, flow.first_packet, ended),
            *(flow.handshake_server, flow.handshake_client, flow.response),
            bytes(flow.history).ljust(HISTORY_BYTES, b"\0"),
            *(len(facts), *forward.row(), *backward.row(), b"".join(flow.firsts), b""),
        )
        self._rows.append((ended, flow.first_packet, row, facts))

    def take(self) -> bytes:
        """Rows that are complete in order: those that ended before the clock, all of them at the end."""
        self._rows.sort()
        ready = len(self._rows)
        if not self._finishing and len(self._rows) < 4 * FULL_ROWS:
            while ready and self._rows[ready - 1][0] >= self.clock:
                ready -= 1
        taken, self._rows = self._rows[:ready], self._rows[ready:]
        self._facts = b"".join(facts for _, _, _, facts in taken)
        return b"".join(row for _, _, row, _ in taken)

    def take_facts(self) -> bytes:
        """The facts blocks of the rows that the last take() gave."""
        taken, self._facts = self._facts, b""
        return taken

    def take_events(self) -> bytes:
        """Events older than the clock, all of them at the end, as records of `dissect.facts`."""
        if self._desk is None:
            return b""
        return self._desk.take(None if self._finishing else self.clock)

    def counters(self) -> ProbeCounters:
        """What was counted so far."""
        if self._desk is not None:
            self._desk.count(self._counters)
        return self._counters


MAX: Final = (1 << 63) - 1
# Documentation/networking/packet_mmap.rst: struct tpacket3_hdr up to the VLAN tag, and what stands there.
_PACKET: Final = struct.Struct("=IIIIIIH2x4xI12x")
_BLOCK_HEAD: Final = 48
