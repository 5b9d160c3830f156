"""What a finished flow's numbers are, declared once: name, unit, meaning, IPFIX name.

A finished flow is a *row*: ROW_BYTES bytes, the same from the compiled table and from its twin.  It
holds integers only; means, variances and names are made from them here, by one division at the
end, so both twins agree to the bit.  `Flow` is a row unpacked.  docs/probe/features.md is this
table for people, and a test compares the two.

"Forward" is the direction of the flow's first packet.  Times are nanoseconds since 1970; sizes
are those of the IP packet (header included, link layer and padding not).
"""

from __future__ import annotations

import base64
import enum
import hashlib
import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from sealwire.probe.dissect.facts import Facts

#: A feature with no value: no round trip was seen, no VLAN tag was there.
NOTHING: Final = -1
NO_VLAN: Final = 0xFFFF
HISTORY_BYTES: Final = 20

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMP6: Final = 58


class EndReason(enum.IntEnum):
    """Why a flow was exported.  Every way out of the table is one of these."""

    IDLE = 1  #: no packet for the idle timeout
    ACTIVE = 2  #: it lasted as long as the active timeout; it goes on as the next part
    FIN = 3  #: both sides closed
    RST = 4  #: one side reset
    INPUT_END = 5  #: the capture ended
    EVICTED = 6  #: the table was full and this flow was idle for longest


#: flowEndReason of IPFIX (RFC 5102 section 5.11.3) by ours.
IPFIX_END_REASON: Final = {1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 6: 5}


class Mark(enum.IntFlag):
    """What is special about a flow."""

    MIDSTREAM = 1  #: TCP whose first packet seen was no SYN
    FRAGMENTS = 2  #: some of its packets were IP fragments
    CONTINUED = 4  #: an earlier part was exported at the active timeout


@dataclass(frozen=True, slots=True)
class Field:
    """One number of a row."""

    name: str
    code: str  #: in the language of the struct module
    unit: str
    meaning: str
    ipfix: str = ""


def _direction(prefix: str, words: str, reverse: str) -> tuple[Field, ...]:
    def field(name: str, code: str, unit: str, meaning: str, ipfix: str = "") -> Field:
        name_there = (reverse + (ipfix[0].upper() + ipfix[1:] if reverse else ipfix)) if ipfix else ""
        return Field(f"{prefix}_{name}", code, unit, f"{meaning}, {words}", name_there)

    return (
        field("packets", "Q", "packets", "packets", "packetTotalCount"),
        field("bytes", "Q", "bytes", "sum of IP packet sizes", "octetTotalCount"),
        field("payload_bytes", "Q", "bytes", "sum of bytes behind the transport header"),
        field("wire_bytes", "Q", "bytes", "sum of sizes on the wire, link layer included"),
        field("first", "q", "ns", "time of the first packet", "flowStartNanoseconds"),
        field("last", "q", "ns", "time of the last packet", "flowEndNanoseconds"),
        field("size_square_sum", "Q", "bytes^2", "sum of squared packet sizes", "octetTotalSumOfSquares"),
        field("size_min", "I", "bytes", "smallest packet", "minimumIpTotalLength"),
        field("size_max", "I", "bytes", "largest packet", "maximumIpTotalLength"),
        field("gap_min", "q", "ns", "shortest gap between packets, -1 below two packets"),
        field("gap_max", "q", "ns", "longest gap between packets, -1 below two packets"),
        field("gap_sum", "Q", "ns", "sum of gaps (a packet older than its predecessor counts 0)"),
        field("gap_square_sum_low", "Q", "ns^2", "sum of squared gaps, modulo 2^64"),
        field("gap_square_sum_high", "Q", "ns^2", "sum of squared gaps, divided by 2^64"),
        field("retransmissions", "I", "segments", "TCP segments that bring bytes seen before"),
        field("out_of_order", "I", "segments", "TCP segments that filled a hole left earlier"),
        field("holes", "I", "holes", "times TCP bytes were missing before a segment"),
        field("zero_windows", "I", "segments", "TCP segments with a closed window (SYN and RST apart)"),
        field("window_min", "H", "units", "smallest TCP window field", "tcpWindowSize"),
        field("window_max", "H", "units", "largest TCP window field"),
        field("tcp_flags", "B", "bits", "union of TCP flags", "tcpControlBits"),
        field("ttl_min", "B", "hops", "smallest TTL or hop limit", "minimumTTL"),
        field("ttl_max", "B", "hops", "largest TTL or hop limit", "maximumTTL"),
        field("tos", "B", "bits", "type of service of the first packet", "ipClassOfService"),
    )


FIELDS: Final[tuple[Field, ...]] = (
    Field(
        "source_address",
        "16s",
        "address",
        "sender of the first packet",
        "sourceIPv4Address/sourceIPv6Address",
    ),
    Field(
        "destination_address",
        "16s",
        "address",
        "its receiver",
        "destinationIPv4Address/destinationIPv6Address",
    ),
    Field("source_port", "H", "port", "its port; the ICMP type", "sourceTransportPort"),
    Field("destination_port", "H", "port", "its port; the ICMP code", "destinationTransportPort"),
    Field("ip_version", "B", "version", "4 or 6", "ipVersion"),
    Field("protocol", "B", "number", "IP protocol; behind IPv6 extension headers", "protocolIdentifier"),
    Field("end_reason", "B", "number", "why the flow was exported (EndReason)", "flowEndReason"),
    Field("marks", "B", "bits", "what is special (Mark)"),
    Field("vlan", "H", "id", "outer VLAN id of the first packet, 65535 for none", "vlanId"),
    Field(
        "vlan_inner", "H", "id", "inner VLAN id of the first packet, 65535 for none", "dot1qCustomerVlanId"
    ),
    Field("part", "I", "parts", "how many parts were exported before at the active timeout"),
    Field("first_packet", "Q", "number", "number of the first packet in the input, from 1"),
    Field("ended", "q", "ns", "packet time at which the flow left the table"),
    Field("handshake_server", "q", "ns", "from SYN to SYN-ACK, -1 if not seen"),
    Field("handshake_client", "q", "ns", "from SYN-ACK to the ACK that answers it, -1 if not seen"),
    Field("response", "q", "ns", "from the first payload forward to the first one back after it, -1 if none"),
    Field(
        "history_letters",
        f"{HISTORY_BYTES}s",
        "letters",
        "what happened, in Zeek's letters, each once a direction",
    ),
    Field("facts_bytes", "I", "bytes", "size of what dissection says of the flow"),
    *_direction("forward", "forward", ""),
    *_direction("backward", "backward", "reverse"),
)
# IPFIX names of the reverse direction: RFC 5103 prefixes them with "reverse".

#: Bytes of a row without the first sizes and gaps.
ROW_BYTES: Final = struct.calcsize("<" + "".join(field.code for field in FIELDS))
#: One entry of the first sizes and gaps: packet size (negative: backward), gap in microseconds.
FIRST: Final = struct.Struct("<iI")


def row_struct(first_packets: int = 0) -> struct.Struct:
    """The layout of a row that ends with the sizes and gaps of `first_packets` packets."""
    return struct.Struct("<" + "".join(field.code for field in FIELDS) + f"{FIRST.size * first_packets}s0s")


# The mapping of ICMP types to the type that answers it, from the Community ID specification.
ICMP_ANSWERS: Final = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17, 10: 9, 9: 10}
ICMP6_ANSWERS: Final = {
    **{128: 129, 129: 128, 133: 134, 134: 133, 135: 136, 136: 135},
    **{130: 131, 131: 130, 144: 145, 145: 144, 139: 140, 140: 139},
}

# Numbers in JSON are exact below 2^53 only.
FLOW_ID_MASK = (1 << 53) - 1


class _Row(NamedTuple):
    """A row's numbers, in the order of FIELDS."""

    source_address: bytes
    destination_address: bytes
    source_port: int
    destination_port: int
    ip_version: int
    protocol: int
    end_reason: int
    marks: int
    vlan: int
    vlan_inner: int
    part: int
    first_packet: int
    ended: int
    handshake_server: int
    handshake_client: int
    response: int
    history_letters: bytes
    facts_bytes: int
    forward_packets: int
    forward_bytes: int
    forward_payload_bytes: int
    forward_wire_bytes: int
    forward_first: int
    forward_last: int
    forward_size_square_sum: int
    forward_size_min: int
    forward_size_max: int
    forward_gap_min: int
    forward_gap_max: int
    forward_gap_sum: int
    forward_gap_square_sum_low: int
    forward_gap_square_sum_high: int
    forward_retransmissions: int
    forward_out_of_order: int
    forward_holes: int
    forward_zero_windows: int
    forward_window_min: int
    forward_window_max: int
    forward_tcp_flags: int
    forward_ttl_min: int
    forward_ttl_max: int
    forward_tos: int
    backward_packets: int
    backward_bytes: int
    backward_payload_bytes: int
    backward_wire_bytes: int
    backward_first: int
    backward_last: int
    backward_size_square_sum: int
    backward_size_min: int
    backward_size_max: int
    backward_gap_min: int
    backward_gap_max: int
    backward_gap_sum: int
    backward_gap_square_sum_low: int
    backward_gap_square_sum_high: int
    backward_retransmissions: int
    backward_out_of_order: int
    backward_holes: int
    backward_zero_windows: int
    backward_window_min: int
    backward_window_max: int
    backward_tcp_flags: int
    backward_ttl_min: int
    backward_ttl_max: int
    backward_tos: int
    first_sequence: bytes
    #: A block of `dissect.facts`; empty without dissection or where nothing is known.
    facts_block: bytes


class Flow(_Row):
    """One finished flow: the numbers of its row, and what follows from them.

    Integers as in FIELDS; derived attributes are properties below.
    """

    __slots__ = ()

    @property
    def source(self) -> str:
        """Address of the sender of the first packet."""
        return address(self.source_address, self.ip_version)

    @property
    def destination(self) -> str:
        """Address of its receiver."""
        return address(self.destination_address, self.ip_version)

    @property
    def reason(self) -> EndReason:
        """Why the flow was exported."""
        return EndReason(self.end_reason)

    @property
    def packets(self) -> int:
        """Packets, both directions."""
        return self.forward_packets + self.backward_packets

    @property
    def bytes(self) -> int:
        """Sum of IP packet sizes, both directions."""
        return self.forward_bytes + self.backward_bytes

    @property
    def first(self) -> int:
        """Time of the first packet in the table's order, nanoseconds."""
        return self.forward_first

    @property
    def last(self) -> int:
        """Latest packet time of both directions, nanoseconds."""
        return max(self.forward_last, self.backward_last) if self.backward_packets else self.forward_last

    @property
    def duration(self) -> int:
        """Nanoseconds from the first to the last packet."""
        return max(self.last - self.first, 0)

    @property
    def midstream(self) -> bool:
        """Whether the flow's beginning was not seen (TCP)."""
        return bool(self.marks & Mark.MIDSTREAM)

    @property
    def one_way(self) -> bool:
        """Whether only one direction was seen."""
        return self.backward_packets == 0

    @property
    def vlans(self) -> list[int]:
        """VLAN ids of the first packet, outer first."""
        return [vlan for vlan in (self.vlan, self.vlan_inner) if vlan != NO_VLAN]

    @property
    def history(self) -> str:
        """Zeek's history letters, upper case forward."""
        return self.history_letters.rstrip(b"\0").decode("ascii")

    @property
    def conn_state(self) -> str:
        """Zeek's connection state."""
        return conn_state(self.protocol, self.history, self.forward_packets, self.backward_packets)

    @property
    def community_id(self) -> str:
        """Community ID, version 1, seed 0."""
        return community_id(self)

    @property
    def flow_id(self) -> int:
        """53 bits that are the same whenever this flow is made of the same capture."""
        return flow_id(self)

    @property
    def facts(self) -> Facts:
        """What dissection says of the flow; empty without it."""
        from sealwire.probe.dissect.facts import Facts

        return Facts(self.facts_block)

    @property
    def application(self) -> str:
        """Name of the protocol the flow speaks; "" if nobody knows, and without dissection."""
        return self.facts.application

    @property
    def server_name(self) -> str:
        """Name of the server from TLS, QUIC, HTTP, DNS or STUN; "" if there is none."""
        return self.facts.server_name

    @property
    def first_packets(self) -> list[tuple[int, int]]:
        """Size (negative: backward) and gap to the packet before (us) of the first packets, if asked for."""
        return [entry for entry in FIRST.iter_unpack(self.first_sequence) if entry[0]]

    def mean_size(self, direction: str = "forward") -> float:
        """Mean packet size of a direction, bytes; 0.0 without packets."""
        packets: int = getattr(self, f"{direction}_packets")
        total: int = getattr(self, f"{direction}_bytes")
        return total / packets if packets else 0.0

    def size_variance(self, direction: str = "forward") -> float:
        """Population variance of packet sizes of a direction, bytes squared."""
        return variance(
            getattr(self, f"{direction}_packets"),
            getattr(self, f"{direction}_bytes"),
            getattr(self, f"{direction}_size_square_sum"),
        )

    def mean_gap(self, direction: str = "forward") -> float:
        """Mean gap between packets of a direction, nanoseconds; 0.0 below two packets."""
        gaps: int = getattr(self, f"{direction}_packets") - 1
        total: int = getattr(self, f"{direction}_gap_sum")
        return total / gaps if gaps > 0 else 0.0

    def gap_variance(self, direction: str = "forward") -> float:
        """Population variance of the gaps of a direction, nanoseconds squared."""
        squares = getattr(self, f"{direction}_gap_square_sum_high") << 64
        squares |= getattr(self, f"{direction}_gap_square_sum_low")
        return variance(
            getattr(self, f"{direction}_packets") - 1, getattr(self, f"{direction}_gap_sum"), squares
        )


def variance(n: int, total: int, squares: int) -> float:
    """Population variance from integer sums, by one division of exact integers."""
    if n < 1:
        return 0.0
    return max(n * squares - total * total, 0) / (n * n)


def unpack(rows: bytes | memoryview, first_packets: int = 0, facts: bytes = b"") -> Iterator[Flow]:
    """The flows of concatenated rows; `facts` are their facts blocks, one behind the other."""
    flows = map(Flow._make, row_struct(first_packets).iter_unpack(rows))
    return _with_facts(flows, facts) if facts else flows


def _with_facts(flows: Iterator[Flow], facts: bytes) -> Iterator[Flow]:
    at = 0
    for flow in flows:
        if flow.facts_bytes:
            yield flow._replace(facts_block=facts[at : at + flow.facts_bytes])
            at += flow.facts_bytes
        else:
            yield flow


def address(packed: bytes, version: int) -> str:
    """`packed` (16 bytes, IPv4 in the first four) as people write it."""
    if version == 4:
        return f"{packed[0]}.{packed[1]}.{packed[2]}.{packed[3]}"
    return str(ipaddress.IPv6Address(packed))


def icmp_pair(protocol: int, kind: int, code: int) -> tuple[int, int, bool]:
    """What takes the place of ports for ICMP, and whether the type has no answer.

    Source: the Community ID specification, whose rule this is.
    """
    answers = ICMP_ANSWERS if protocol == ICMP else ICMP6_ANSWERS
    answer = answers.get(kind)
    return (kind, code, True) if answer is None else (kind, answer, False)


def community_id(flow: _Row, seed: int = 0) -> str:
    """Community ID version 1 of a flow's addresses, ports and protocol."""
    return community_id_of(*flow[:6], seed)


def community_id_of(
    source: bytes, destination: bytes, first: int, second: int, version: int, protocol: int, seed: int = 0
) -> str:
    """Community ID version 1 of addresses (16 bytes, IPv4 in the first four), ports and protocol."""
    if version == 4:
        source, destination = source[:4], destination[:4]
    one_way = False
    if protocol in (ICMP, ICMP6):
        first, second, one_way = icmp_pair(protocol, first, second)
    if not one_way and (destination, second) < (source, first):
        source, destination, first, second = destination, source, second, first
    data = struct.pack("!H", seed) + source + destination + bytes((protocol, 0))
    if protocol in (ICMP, TCP, UDP, ICMP6, 132):
        data += struct.pack("!HH", first, second)
    # SHA-1 is the specification's; it identifies and protects nothing.
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode("ascii")


def flow_id(flow: _Row) -> int:
    """53 bits from addresses, ports, protocol, beginning and part."""
    return id_of(ROW_KEY.pack(*flow[:6], flow.part, flow.forward_first, flow.first_packet))


def id_of(key: bytes) -> int:
    """The flow id of ROW_KEY's fields."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little") & FLOW_ID_MASK


ROW_KEY: Final = struct.Struct("<16s16sHHBBIqQ")


def conn_state(protocol: int, history: str, forward: int, backward: int) -> str:
    """Zeek's conn_state from the history letters.

    Source: the table at https://docs.zeek.org/en/master/scripts/base/protocols/conn/main.zeek.html
    """
    if protocol == UDP:
        return "SF" if backward else "S0"
    if protocol != TCP:
        return "OTH"
    if "S" in history:
        resets = sorted((history.index(letter), letter) for letter in "Rr" if letter in history)
        if "h" not in history:
            if resets:
                return "REJ" if resets[0][1] == "r" else "RSTOS0"
            return "SH" if "F" in history else "S0"
        if resets:
            return "RSTO" if resets[0][1] == "R" else "RSTR"
        if "F" in history and "f" in history:
            return "SF"
        if "F" in history:
            return "S2"
        return "S3" if "f" in history else "S1"
    # The first packet was the responder's SYN-ACK, so the responder counts as "forward" here.
    if history.startswith("H"):
        if "R" in history:
            return "RSTRH"
        if "F" in history:
            return "SHR"
    return "OTH"
