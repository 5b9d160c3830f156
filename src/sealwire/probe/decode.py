"""One packet's headers, in plain Python: link layer, IP, transport.  Total: any bytes are an answer.

The answer is a `Packet` or the `PacketDiscard` that says why there is none.  Nothing is reassembled;
what a header claims is believed only as far as bytes are there.  Sizes are those the IP header
claims, because a capture may hold less (snaplen) and a frame may hold more (padding).
The compiled twin is `_decode.pxd`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from sealwire.probe.discards import PacketDiscard
from sealwire.probe.features import ICMP, ICMP6, NO_VLAN, TCP, UDP, icmp_pair

SCTP: Final = 132
UDPLITE: Final = 136
DCCP: Final = 33
GRE: Final = 47
_PORTED: Final = frozenset({TCP, UDP, SCTP, UDPLITE, DCCP})
_VXLAN_PORT: Final = 4789
_GTPU_PORT: Final = 2152

#: Tags, labels or extension headers of one packet that are followed; real packets have fewer.
MAX_TAGS: Final = 8
MAX_LABELS: Final = 16
MAX_EXTENSIONS: Final = 12
#: Tunnels that are entered, one inside the other.
MAX_TUNNELS: Final = 4
#: Largest packet believed when its IP header names no size and the capture's length stands in.
MAX_OFFLOADED_BYTES: Final = 0xFFFFFF
#: Payload of one packet that is looked at.
MAX_PAYLOAD: Final = 0xFFFF


class LinkType(enum.IntEnum):
    """The link layers understood (https://www.tcpdump.org/linktypes.html)."""

    NULL = 0
    ETHERNET = 1
    RAW_BSD = 12
    RAW_OPENBSD = 14
    RAW = 101
    LOOP = 108
    LINUX_SLL = 113
    IPV4 = 228
    IPV6 = 229
    LINUX_SLL2 = 276


_EMPTY: Final = memoryview(b"")


@dataclass(slots=True)
class Packet:
    """What a flow needs to know of a packet."""

    version: int
    protocol: int
    source: bytes
    destination: bytes
    source_port: int = 0
    destination_port: int = 0
    #: Ordering ports for the flow key: those above, or ICMP type and the type that answers it.
    key_ports: tuple[int, int] = (0, 0)
    one_way: bool = False
    ip_bytes: int = 0
    payload_bytes: int = 0
    tcp: bool = False
    flags: int = 0
    sequence: int = 0
    acknowledgment: int = 0
    window: int = 0
    ttl: int = 0
    tos: int = 0
    vlan: int = NO_VLAN
    vlan_inner: int = NO_VLAN
    #: 0: whole; 1: first fragment; 2: later fragment (no ports).
    fragment: int = 0
    fragment_id: int = 0
    #: What the capture has of the payload; the header may claim more (`payload_bytes`).
    payload: memoryview = _EMPTY


_VLAN_TYPES: Final = frozenset({0x8100, 0x88A8, 0x9100})


def decode(data: memoryview, link: int, wire_bytes: int, tunnels: bool = False) -> Packet | PacketDiscard:
    """The packet in `data` (captured bytes), which had `wire_bytes` on the wire."""
    n = len(data)
    vlans: list[int] = []
    if link == LinkType.ETHERNET:
        if n < 14:
            return PacketDiscard.TRUNCATED_LINK
        found: tuple[int, int] | PacketDiscard = _ether(data, 12, vlans, tunnels)
    elif link == LinkType.LINUX_SLL:
        if n < 16:
            return PacketDiscard.TRUNCATED_LINK
        found = _ether(data, 14, vlans, tunnels)
    elif link == LinkType.LINUX_SLL2:
        if n < 20:
            return PacketDiscard.TRUNCATED_LINK
        found = _ether(data, 0, vlans, tunnels, behind=20)
    elif link in (LinkType.NULL, LinkType.LOOP):
        if n < 4:
            return PacketDiscard.TRUNCATED_LINK
        # The family is in the byte order of the machine that captured; the numbers are small.
        family = data[0] | data[3]
        if data[1] or data[2] or family not in (2, 10, 24, 28, 30):
            return PacketDiscard.NOT_IP
        found = 4, 4 if family == 2 else 6
    elif link in (LinkType.RAW, LinkType.RAW_BSD, LinkType.RAW_OPENBSD, LinkType.IPV4, LinkType.IPV6):
        if n < 1:
            return PacketDiscard.TRUNCATED_IP
        found = 0, data[0] >> 4
    else:
        return PacketDiscard.UNSUPPORTED_LINK
    if isinstance(found, PacketDiscard):
        return found
    packet = _ip(data, *found, wire_bytes, MAX_TUNNELS if tunnels else 0)
    if isinstance(packet, Packet):
        packet.vlan = vlans[0] if vlans else NO_VLAN
        packet.vlan_inner = vlans[1] if len(vlans) > 1 else NO_VLAN
    return packet


def _u16(data: memoryview, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _u32(data: memoryview, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _ether(
    data: memoryview, at: int, vlans: list[int], tunnels: bool, behind: int = 0
) -> tuple[int, int] | PacketDiscard:
    """Where IP begins and its version, from the EtherType at `at`; what follows it may be at `behind`."""
    n = len(data)
    kind = _u16(data, at)
    at = behind or at + 2
    for _ in range(MAX_TAGS):
        if kind not in _VLAN_TYPES:
            break
        if n < at + 4:
            return PacketDiscard.TRUNCATED_LINK
        vlans.append(_u16(data, at) & 0xFFF)
        kind = _u16(data, at + 2)
        at += 4
    if kind in (0x8847, 0x8848):
        for _ in range(MAX_LABELS):
            if n < at + 4:
                return PacketDiscard.TRUNCATED_LINK
            at += 4
            if data[at - 2] & 1:  # bottom of the stack (RFC 3032 section 2.1)
                # What follows is not said; the version nibble tells, as routers do it.
                return (at, data[at] >> 4) if n > at and data[at] >> 4 in (4, 6) else PacketDiscard.NOT_IP
        return PacketDiscard.NOT_IP
    if kind == 0x8864 and tunnels:  # PPPoE session (RFC 2516)
        if n < at + 8:
            return PacketDiscard.TRUNCATED_LINK
        kind = {0x0021: 0x0800, 0x0057: 0x86DD}.get(_u16(data, at + 6), 0)
        at += 8
    if kind == 0x0800:
        return at, 4
    return (at, 6) if kind == 0x86DD else PacketDiscard.NOT_IP


def _ip(data: memoryview, at: int, version: int, wire_bytes: int, tunnels: int) -> Packet | PacketDiscard:
    n = len(data)
    if n <= at:
        return PacketDiscard.TRUNCATED_IP
    if data[at] >> 4 != version:
        return PacketDiscard.BAD_IP
    if version == 4:
        if n < at + 20:
            return PacketDiscard.TRUNCATED_IP
        header = (data[at] & 0xF) * 4
        total = _u16(data, at + 2)
        if total == 0:  # segmentation offload leaves the field empty
            total = min(max(wire_bytes - at, 0), MAX_OFFLOADED_BYTES)
        # A header that claims less than 20 bytes is left its claim: no host would take the packet,
        # but it was on the wire between these addresses.
        if total < header:
            return PacketDiscard.BAD_IP
        if n < at + header:
            return PacketDiscard.TRUNCATED_IP
        fragment = _u16(data, at + 6)
        packet = Packet(
            4,
            data[at + 9],
            bytes(data[at + 12 : at + 16]) + bytes(12),
            bytes(data[at + 16 : at + 20]) + bytes(12),
        )
        packet.ip_bytes, packet.ttl, packet.tos = total, data[at + 8], data[at + 1]
        packet.fragment = 2 if fragment & 0x1FFF else 1 if fragment & 0x2000 else 0
        packet.fragment_id = _u16(data, at + 4)
        here = at + header
    elif version == 6:
        if n < at + 40:
            return PacketDiscard.TRUNCATED_IP
        payload = _u16(data, at + 4)
        if payload == 0 and data[at + 6] != 59:
            payload = min(max(wire_bytes - at - 40, 0), MAX_OFFLOADED_BYTES)
        total = 40 + payload
        packet = Packet(6, data[at + 6], bytes(data[at + 8 : at + 24]), bytes(data[at + 24 : at + 40]))
        packet.ip_bytes, packet.ttl = total, data[at + 7]
        packet.tos = (data[at] & 0xF) << 4 | data[at + 1] >> 4
        extended = _extensions(data, at, packet)
        if isinstance(extended, PacketDiscard):
            return extended
        here = extended
    else:
        return PacketDiscard.BAD_IP
    # The transport header ends where the IP packet does, or where the capture was cut.
    end = min(n, at + total)
    claimed = max(at + total - here, 0)
    return _transport(data, here, end, claimed, packet, tunnels)


def _extensions(data: memoryview, at: int, packet: Packet) -> int | PacketDiscard:
    """Where the transport header begins; sets protocol and fragment (RFC 8200 section 4)."""
    n = len(data)
    here = at + 40
    for _ in range(MAX_EXTENSIONS):
        kind = packet.protocol
        if kind in (0, 43, 60, 135, 139, 140, 44, 51):
            if n < here + 8:
                return PacketDiscard.BAD_EXTENSIONS
            packet.protocol = data[here]
            if kind == 44:
                offset = _u16(data, here + 2)
                # An "atomic" fragment (RFC 6946) is whole.
                packet.fragment = 2 if offset & 0xFFF8 else 1 if offset & 1 else 0
                packet.fragment_id = _u32(data, here + 4)
                here += 8
                if packet.fragment == 2:
                    return here  # what follows is the middle of something
            elif kind == 51:
                here += (data[here + 1] + 2) * 4
            else:
                here += (data[here + 1] + 1) * 8
        else:
            return here
    return PacketDiscard.BAD_EXTENSIONS


def _transport(
    data: memoryview, at: int, end: int, claimed: int, packet: Packet, tunnels: int
) -> Packet | PacketDiscard:
    protocol = packet.protocol
    packet.payload_bytes = claimed
    if packet.fragment == 2:
        return packet
    if protocol in _PORTED:
        if end < at + 4:
            return PacketDiscard.TRUNCATED_TRANSPORT
        packet.source_port, packet.destination_port = _u16(data, at), _u16(data, at + 2)
        packet.key_ports = (packet.source_port, packet.destination_port)
        if protocol == TCP:
            header = 20
            if end >= at + 14:
                header = max((data[at + 12] >> 4) * 4, 20)
                packet.flags = data[at + 13]
            if end >= at + 16:
                packet.tcp = True
                packet.sequence, packet.acknowledgment = _u32(data, at + 4), _u32(data, at + 8)
                packet.window = _u16(data, at + 14)
        else:
            header = 12 if protocol in (SCTP, DCCP) else 8
            if tunnels and protocol == UDP and packet.fragment == 0:
                inside = _udp_tunnel(data, at + 8, end, packet, tunnels)
                if inside is not None:
                    return inside
        # Behind a datagram there may be padding that only the IP header counts.
        if protocol == UDP and end >= at + 6 and (length := _u16(data, at + 4)) >= 8:
            end = min(end, at + length)
        packet.payload_bytes = max(claimed - header, 0)
        if packet.fragment == 0:
            packet.payload = data[at + header : max(end, at + header)][:MAX_PAYLOAD]
    elif protocol in (ICMP, ICMP6):
        if end < at + 2:
            return PacketDiscard.TRUNCATED_TRANSPORT
        packet.source_port, packet.destination_port = data[at], data[at + 1]
        first, second, packet.one_way = icmp_pair(protocol, data[at], data[at + 1])
        packet.key_ports = (first, second)
        packet.payload_bytes = max(claimed - 8, 0)
        if packet.fragment == 0:
            packet.payload = data[at + 8 : max(end, at + 8)][:MAX_PAYLOAD]
    elif tunnels and packet.fragment == 0 and protocol in (4, 41, GRE):
        inner = (
            _gre(data, at, end, tunnels)
            if protocol == GRE
            else _ip(data[:end], at, 4 if protocol == 4 else 6, end, tunnels - 1)
        )
        if isinstance(inner, Packet):
            return inner
    return packet


def _gre(data: memoryview, at: int, end: int, tunnels: int) -> Packet | PacketDiscard | None:
    """The packet inside GRE (RFC 2784, 2890), or None."""
    if end < at + 4:
        return None
    flags = _u16(data, at)
    if flags & 0x4007:  # routing, or another version
        return None
    kind = _u16(data, at + 2)
    here = at + 4 + 4 * ((flags >> 15 & 1) + (flags >> 13 & 1) + (flags >> 12 & 1))
    if kind in (0x0800, 0x86DD):
        return _ip(data[:end], here, 4 if kind == 0x0800 else 6, end, tunnels - 1)
    if kind == 0x6558 and end >= here + 14:
        return _framed(data, here, end, tunnels)
    return None


def _udp_tunnel(data: memoryview, at: int, end: int, packet: Packet, tunnels: int) -> Packet | None:
    """The packet inside VXLAN (RFC 7348) or GTP-U (3GPP TS 29.281), or None."""
    inner: Packet | PacketDiscard | None = None
    if packet.destination_port == _VXLAN_PORT and end >= at + 22 and data[at] & 0x08:
        inner = _framed(data, at + 8, end, tunnels)
    elif (
        packet.destination_port == _GTPU_PORT
        and end >= at + 8
        # Version 1, protocol type GTP, message type G-PDU; extensions are left alone.
        and (data[at] >> 4 == 3 and data[at + 1] == 255 and not data[at] & 0x04)
    ):
        here = at + (12 if data[at] & 0x03 else 8)
        inner = _ip(data[:end], here, data[here] >> 4 if end > here else 0, end, tunnels - 1)
    return inner if isinstance(inner, Packet) else None


def _framed(data: memoryview, at: int, end: int, tunnels: int) -> Packet | PacketDiscard:
    found = _ether(data[:end], at + 12, [], True)
    return found if isinstance(found, PacketDiscard) else _ip(data[:end], *found, end, tunnels - 1)
