"""Headers: link layers, tags, IP versions, extension headers, fragments, tunnels; and any bytes at all."""

from __future__ import annotations

import ipaddress
import itertools
import os
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.probe.decode import LinkType, Packet, decode
from sealwire.probe.discards import PacketDiscard
from sealwire.probe.features import NO_VLAN
from sealwire.probe.settings import Settings
from tests.unit.probe import packets as p
from tests.unit.probe.twins import same

INNER = p.ip4("10.0.0.1", "10.0.0.2", 17, p.udp(1111, 2222, b"data"))
INNER6 = p.ip6("2001:db8::1", "2001:db8::2", 17, p.udp(1111, 2222, b"data"))


def read_packet(data: bytes, link: int = LinkType.ETHERNET, *, tunnels: bool = False) -> Packet:
    packet = decode(memoryview(data), link, len(data), tunnels)
    assert isinstance(packet, Packet), packet
    both(data, link, tunnels)
    return packet


def discard(data: bytes, link: int = LinkType.ETHERNET, *, tunnels: bool = False) -> PacketDiscard:
    reason = decode(memoryview(data), link, len(data), tunnels)
    assert isinstance(reason, PacketDiscard), reason
    both(data, link, tunnels)
    return reason


def both(data: bytes, link: int, tunnels: bool) -> None:
    same(p.pcap([(p.START, data)] * 2, link), Settings(tunnels=tunnels))


LINKS = {
    "ethernet": (1, p.ethernet(INNER)),
    "vlan": (1, p.ethernet(INNER, tags=[(0x8100, 5)])),
    "qinq": (1, p.ethernet(INNER, tags=[(0x88A8, 5), (0x8100, 6)])),
    "mpls": (1, p.ethernet(struct.pack("!II", 0x10FF, 0x21FF) + INNER, 0x8847)),
    "raw": (101, INNER),
    "raw-bsd": (12, INNER),
    "ipv4": (228, INNER),
    "null-le": (0, struct.pack("<I", 2) + INNER),
    "null-be": (0, struct.pack(">I", 2) + INNER),
    "loop": (108, struct.pack(">I", 2) + INNER),
    "sll": (113, bytes(14) + b"\x08\0" + INNER),
    "sll2": (276, b"\x08\0" + bytes(18) + INNER),
}


@pytest.mark.parametrize("name", LINKS)
def test_link_layers(name: str) -> None:
    link, data = LINKS[name]
    packet = read_packet(data, link)
    assert (packet.source_port, packet.destination_port) == (1111, 2222)
    assert packet.source[:4] == b"\x0a\0\0\1"
    assert packet.payload_bytes == 4
    assert (packet.vlan, packet.vlan_inner) == {"vlan": (5, NO_VLAN), "qinq": (5, 6)}.get(
        name, (NO_VLAN, NO_VLAN)
    )
    six = data.replace(INNER, INNER6).replace(b"\x08\0", b"\x86\xdd")
    six = six.replace(struct.pack("<I", 2), struct.pack("<I", 30)).replace(
        struct.pack(">I", 2), struct.pack(">I", 24)
    )
    if name != "mpls":
        assert read_packet(six, link).version == 6


@pytest.mark.parametrize("name", LINKS)
def test_every_cut_is_an_answer(name: str) -> None:
    link, data = LINKS[name]
    for size in range(len(data)):
        reason = decode(memoryview(data[:size]), link, len(data), True)
        enough = len(data) - 8  # ports are 4 bytes of 8, data 4 more
        assert isinstance(reason, Packet) == (size >= enough), (size, reason)


def test_other_protocols_are_not_ip() -> None:
    assert discard(p.ethernet(bytes(28), 0x0806)) is PacketDiscard.NOT_IP
    assert discard(p.ethernet(INNER, tags=[(0x8100, n) for n in range(9)])) is PacketDiscard.NOT_IP
    assert discard(INNER, 147) is PacketDiscard.UNSUPPORTED_LINK
    assert discard(p.ethernet(INNER6)) is PacketDiscard.BAD_IP  # an EtherType that lies


def test_sizes_are_the_headers_and_padding_is_not_counted() -> None:
    packet = read_packet(p.ethernet(INNER) + bytes(30))
    assert (packet.ip_bytes, packet.payload_bytes) == (len(INNER), 4)


def test_offload_leaves_the_size_to_the_capture() -> None:
    packet = read_packet(p.ethernet(p.ip4("1.1.1.1", "2.2.2.2", 17, p.udp(1, 2, b"x" * 50), total=0)))
    assert (packet.ip_bytes, packet.payload_bytes) == (78, 50)


def test_extension_headers() -> None:
    options = bytes((60, 0)) + bytes(6)
    routing = bytes((51, 0)) + bytes(6)
    authentication = bytes((17, 4)) + bytes(22)
    packet = read_packet(
        p.ethernet(
            p.ip6(
                "::1",
                "::2",
                0,
                p.udp(7, 8),
                extensions=options + bytes((43, 1)) + bytes(14) + routing + authentication,
            ),
            0x86DD,
        )
    )
    assert (packet.protocol, packet.source_port) == (17, 7)
    assert packet.payload_bytes == 0
    chain = (bytes((60, 0)) + bytes(6)) * 13
    assert discard(p.ethernet(p.ip6("::1", "::2", 60, chain), 0x86DD)) is PacketDiscard.BAD_EXTENSIONS
    assert (
        discard(p.ethernet(p.ip6("::1", "::2", 60, bytes((60, 255)) + bytes(9)), 0x86DD))
        is PacketDiscard.BAD_EXTENSIONS
    )
    none = read_packet(p.ethernet(p.ip6("::1", "::2", 59, b""), 0x86DD))
    assert (none.protocol, none.ip_bytes) == (59, 40)


def fragment4(offset: int, more: bool, payload: bytes, ident: int = 7) -> bytes:
    return p.ethernet(p.ip4("10.0.0.1", "10.0.0.2", 17, payload, offset=offset, more=more, ident=ident))


def test_fragments_count_in_the_flow_of_their_first() -> None:
    packets = [
        fragment4(0, True, p.udp(5, 6, b"a" * 16)),
        fragment4(24, False, b"b" * 40),
        fragment4(24, False, b"c" * 40),  # overlapping: nothing is put together
        fragment4(24, False, b"stray" * 8, ident=9),
    ]
    capture = p.pcap([(p.START, data) for data in packets])
    (flow,) = p.flows_of(capture)
    assert (flow.packets, flow.source_port, flow.destination_port) == (3, 5, 6)
    assert flow.marks == 2
    walked = same(capture, Settings())
    assert walked.counters["discard.stray_fragment"] == 1


def test_ipv6_fragments() -> None:
    def fragment(offset: int, more: int, payload: bytes) -> bytes:
        head = struct.pack("!BBHI", 17, 0, offset | more, 99)
        return p.ethernet(p.ip6("::1", "::2", 44, payload, extensions=head), 0x86DD)

    capture = p.pcap(
        [(p.START, data) for data in (fragment(0, 1, p.udp(5, 6, b"a" * 16)), fragment(24, 0, b"rest"))]
    )
    (flow,) = p.flows_of(capture)
    assert (flow.packets, flow.destination_port) == (2, 6)
    same(capture, Settings())
    atomic = read_packet(fragment(0, 0, p.udp(5, 6)))
    assert atomic.fragment == 0


def test_only_the_last_first_fragments_are_remembered() -> None:
    heads = [fragment4(0, True, p.udp(5, 6, b"a" * 16), ident=n) for n in range(300)]
    tails = [fragment4(24, False, b"b" * 8, ident=n) for n in range(300)]
    walked = same(p.pcap([(p.START, data) for data in heads + tails]), Settings())
    assert walked.counters["discard.stray_fragment"] == 300 - 256


VXLAN = p.udp(1, 4789, b"\x08" + bytes(7) + p.ethernet(INNER))
TUNNELS = {
    "ipip": (4, INNER),
    "6in4": (41, INNER6),
    "gre": (47, struct.pack("!HH", 0, 0x0800) + INNER),
    "gre-key": (47, struct.pack("!HHII", 0xA000, 0x0800, 1, 2) + INNER),
    "gre-ethernet": (47, struct.pack("!HH", 0, 0x6558) + p.ethernet(INNER)),
    "vxlan": (17, VXLAN),
    "gtpu": (17, p.udp(1, 2152, struct.pack("!BBHI", 0x30, 255, len(INNER), 1) + INNER)),
    "gtpu-sequence": (17, p.udp(1, 2152, struct.pack("!BBHII", 0x32, 255, len(INNER) + 4, 1, 0) + INNER)),
    "twice": (4, p.ip4("10.9.9.9", "10.9.9.8", 17, VXLAN)),
}


@pytest.mark.parametrize("name", TUNNELS)
def test_tunnels_are_entered_when_asked(name: str) -> None:
    protocol, payload = TUNNELS[name]
    frame = p.ethernet(p.ip4("192.0.2.1", "192.0.2.2", protocol, payload), tags=[(0x8100, 3)])
    outer = read_packet(frame)
    assert outer.source[:4] == bytes((192, 0, 2, 1))
    inner = read_packet(frame, tunnels=True)
    assert (inner.source_port, inner.destination_port, inner.vlan) == (1111, 2222, 3)
    for size in range(34, len(frame)):
        both(frame[:size], 1, True)


def test_tunnels_in_tunnels_end() -> None:
    frame = INNER
    for _ in range(12):
        frame = p.ip4("192.0.2.1", "192.0.2.2", 4, frame)
    packet = read_packet(p.ethernet(frame), tunnels=True)
    assert packet.protocol == 4


def test_pppoe_is_a_tunnel() -> None:
    frame = p.ethernet(bytes.fromhex("11000001") + struct.pack("!HH", len(INNER) + 2, 0x21) + INNER, 0x8864)
    assert discard(frame) is PacketDiscard.NOT_IP
    assert read_packet(frame, tunnels=True).source_port == 1111


@given(st.binary(max_size=150), st.sampled_from(list(LinkType)), st.booleans())
def test_any_bytes_have_an_answer_and_both_tables_the_same(
    data: bytes, link: LinkType, tunnels: bool
) -> None:
    assert isinstance(decode(memoryview(data), link, len(data), tunnels), (Packet, PacketDiscard))
    both(data, link, tunnels)


@given(st.data())
def test_headers_with_any_field_changed(data: st.DataObject) -> None:
    _, frame = data.draw(st.sampled_from(sorted(LINKS.values())))
    link = next(number for number, known in LINKS.values() if known == frame)
    damaged = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    both(bytes(damaged), link, True)


@pytest.mark.skipif(len(p.TABLES) == 1, reason="the compiled modules are not built")
@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=20))
def test_addresses_are_written_as_python_writes_them(addresses: list[bytes]) -> None:
    from sealwire.probe import _arrow

    rows = b"".join(address + b"\6" for address in addresses)
    offsets, text = _arrow.addresses(rows, 17, 0, 16)
    ends = struct.unpack(f"={len(addresses) + 1}i", offsets)
    found = [text[start:end].decode() for start, end in itertools.pairwise(ends)]
    assert found == [str(ipaddress.IPv6Address(address)) for address in addresses]


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="this Python hashes otherwise")
@pytest.mark.skipif(len(p.TABLES) == 1, reason="the compiled modules are not built")
def test_the_hash_is_siphash() -> None:
    """Python's own hash of bytes is SipHash-1-3, with a key of zeros when PYTHONHASHSEED is 0."""
    from sealwire.probe import _flows

    words = struct.pack("<2Q", 0x1122334455667788, 0x99AABBCCDDEEFF00)
    script = f"print(hash({words!r}))"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert _flows.siphash_of(bytes(16), words) == int(done.stdout) & 0xFFFFFFFFFFFFFFFF
