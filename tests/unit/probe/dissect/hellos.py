"""Hellos and what carries them, made here byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from tests.unit.probe import packets as p

Extension = tuple[int, bytes]


def vector(n: int, data: bytes) -> bytes:
    return len(data).to_bytes(n, "big") + data


def server_name(name: bytes) -> Extension:
    return 0, vector(2, b"\0" + vector(2, name))


def alpn(*names: bytes) -> Extension:
    return 16, vector(2, b"".join(vector(1, name) for name in names))


def versions(*codes: int) -> Extension:
    return 43, vector(1, struct.pack(f"!{len(codes)}H", *codes))


def schemes(*codes: int) -> Extension:
    return 13, vector(2, struct.pack(f"!{len(codes)}H", *codes))


PLAIN: tuple[Extension, ...] = (
    server_name(b"www.example.org"),
    alpn(b"h2", b"http/1.1"),
    versions(0x0304, 0x0303),
    schemes(0x0403, 0x0804),
)


def client_hello(
    extensions: Iterable[Extension] = PLAIN,
    *,
    suites: Sequence[int] = (0x1301, 0x1302),
    version: int = 0x0303,
    cookie: bytes | None = None,
) -> bytes:
    """A whole handshake message; with `cookie` it is DTLS's body."""
    body = struct.pack("!H", version) + bytes(32) + vector(1, b"")
    body += b"" if cookie is None else vector(1, cookie)
    body += vector(2, struct.pack(f"!{len(suites)}H", *suites)) + vector(1, b"\0")
    body += vector(2, b"".join(struct.pack("!H", code) + vector(2, data) for code, data in extensions))
    return b"\1" + vector(3, body)


def server_hello(
    extensions: Iterable[Extension] = ((43, b"\3\4"), (51, b"\0\x1d" + vector(2, bytes(32)))),
    random: bytes = bytes(32),
) -> bytes:
    body = b"\3\3" + random + vector(1, b"") + b"\x13\x01\0"
    body += vector(2, b"".join(struct.pack("!H", code) + vector(2, data) for code, data in extensions))
    return b"\2" + vector(3, body)


def record(data: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    return struct.pack("!BH", kind, version) + vector(2, data)


def fragment(message: bytes, offset: int, n: int, number: int = 0, sequence: int = 0) -> bytes:
    """A DTLS record with a piece of a handshake message."""
    body = message[:4] + struct.pack("!H", number) + offset.to_bytes(3, "big") + n.to_bytes(3, "big")
    body += message[4 + offset : 4 + offset + n]
    return b"\x16\xfe\xfd" + struct.pack("!HIH", 0, 0, sequence) + vector(2, body)


def tcp_stream(segments: Iterable[tuple[str, int, bytes]], start: int = 1_000, port: int = 443) -> bytes:
    """A capture of a connection; segments are direction, offset in its stream, data."""
    steps = [
        (0.0, ">", p.tcp(40_000, port, p.SYN, seq=start - 1)),
        (0.01, "<", p.tcp(port, 40_000, p.SYN | p.ACK, seq=9_999, ack=start)),
        (0.02, ">", p.tcp(40_000, port, p.ACK, seq=start, ack=10_000)),
    ]
    for number, (way, offset, data) in enumerate(segments):
        seq = (start if way == ">" else 10_000) + offset & 0xFFFFFFFF
        ports = (40_000, port) if way == ">" else (port, 40_000)
        steps.append((0.03 + number / 1000, way, p.tcp(*ports, p.ACK | p.PSH, seq=seq, data=data)))
    return p.pcap(p.conversation(*steps))


def datagrams(steps: Iterable[tuple[str, bytes]], port: int = 4_433) -> bytes:
    """A capture of UDP between 10.0.0.1:40000 and 10.0.0.2."""
    found = []
    for number, (way, data) in enumerate(steps):
        ports = (40_000, port) if way == ">" else (port, 40_000)
        found.append((number / 1000, "|" + way, p.udp(*ports, data)))
    return p.pcap(p.conversation(*found))
