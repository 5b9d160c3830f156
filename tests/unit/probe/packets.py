"""Packets and capture files made here, one header at a time."""

from __future__ import annotations

import io
import ipaddress
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from sealwire.probe import flows, read
from sealwire.probe.engine import COMPILED
from sealwire.probe.features import Flow
from sealwire.probe.settings import Settings

if COMPILED:
    from sealwire.probe import _flows

    TABLES: tuple[type[flows.Table], ...] = (_flows.Table, flows.Table)
else:
    TABLES = (flows.Table,)

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def ethernet(payload: bytes, kind: int = 0x0800, tags: Sequence[tuple[int, int]] = ()) -> bytes:
    head = bytes(12)
    for tag, vlan in tags:
        head += struct.pack("!HH", tag, vlan)
    return head + struct.pack("!H", kind) + payload


def ip4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    offset: int = 0,
    more: bool = False,
    **others: int,
) -> bytes:
    total = others.get("total", 20 + len(payload))
    flags = offset // 8 | (0x2000 if more else 0)
    head = struct.pack(
        "!BBHHHBBH", 0x45, 0, total, others.get("ident", 7), flags, others.get("ttl", 64), protocol, 0
    )
    return head + ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed + payload


def ip6(source: str, destination: str, protocol: int, payload: bytes, *, extensions: bytes = b"") -> bytes:
    """`protocol` is the first header's; `extensions` stand before the payload."""
    body = extensions + payload
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return head + ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed + body


def tcp(
    sport: int, dport: int, flags: int, *, seq: int = 0, ack: int = 0, window: int = 1000, data: bytes = b""
) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, window, 0, 0) + data


def udp(sport: int, dport: int, data: bytes = b"") -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data


Stamped = tuple[int, bytes]


def pcap(packets: Iterable[Stamped], link: int = 1, *, order: str = "<", nano: bool = True) -> bytes:
    out = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    unit = 1 if nano else 1000
    for time, data in packets:
        out += struct.pack(order + "IIII", time // SECOND, time % SECOND // unit, len(data), len(data)) + data
    return out


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int = 1, *, order: str = "<", options: bytes = b"", snaplen: int = 0) -> bytes:
    return block(1, struct.pack(order + "HHI", link, 0, snaplen) + options, order)


def enhanced(which: int, stamp: int, data: bytes, order: str = "<") -> bytes:
    head = struct.pack(order + "IIIII", which, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data))
    return block(6, head + data, order)


def flows_of(capture: bytes, **settings: Any) -> list[Flow]:
    """What read() makes of a capture."""
    return list(read(io.BytesIO(capture), **settings))


def conversation(*steps: tuple[float, str, bytes]) -> list[Stamped]:
    """TCP or UDP payloads between 10.0.0.1 (">") and 10.0.0.2 ("<") at seconds from START; "|" is UDP."""
    found: list[Stamped] = []
    for seconds, way, payload in steps:
        ends = ("10.0.0.1", "10.0.0.2") if ">" in way else ("10.0.0.2", "10.0.0.1")
        protocol = 17 if "|" in way else 6
        found.append((START + round(seconds * SECOND), ethernet(ip4(*ends, protocol, payload))))
    return found


__all__ = [name for name in globals() if not name.startswith("_")]
NO_TIMEOUTS = Settings().without_timeouts()
