"""Capture files for measuring the probe, made from a seed, each with a truth file.

    mix        the captures of a directory (or the profile's flows), repeated with other addresses
    profile    half a second of 10 Gbit/s with 100,000 new flows a second
    million    a million flows of one packet; million-chosen: their keys picked to collide in plain hashes
    100m 1g 10g 40g   the rates and flow rates of the brief, 12.5 KB a flow

A truth file has one JSON object per flow: addresses, ports, protocol, packets and bytes (IP) each way.
The same seed writes the same bytes.
"""

from __future__ import annotations

import heapq
import json
import random
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

START: Final = 1_750_000_000_000_000_000
_SECOND: Final = 1_000_000_000
_FLOW_BYTES: Final = 12_500
_SEGMENT: Final = 1_448
_SYN, _ACK, _PSH, _FIN = 2, 16, 8, 1
_WORDS: Final = ("alpha", "bravo", "cedar", "delta", "ember", "haven", "indigo", "karma", "lotus", "nectar")

#: Name -> bits a second, new flows a second, seconds of it that a file holds.
SCENARIOS: Final = {
    "100m": (100_000_000, 1_000, 10.0),
    "1g": (1_000_000_000, 10_000, 2.0),
    "10g": (10_000_000_000, 100_000, 0.5),
    "40g": (40_000_000_000, 400_000, 0.125),
}
NAMES: Final = ("mix", "profile", "million", "million-chosen", *SCENARIOS)


@dataclass(frozen=True, slots=True)
class Ends:
    """Who talks to whom."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    protocol: int

    def packet(self, back: bool, transport: bytes) -> bytes:
        """An Ethernet frame one way or the other."""
        first, second = (self.destination, self.source) if back else (self.source, self.destination)
        total = 20 + len(transport)
        return (
            b"\x02\0\0\0\0\1\x02\0\0\0\0\2\x08\0"
            + struct.pack("!BBHHHBBH", 0x45, 0, total, 0, 0x4000, 64, self.protocol, 0)
            + (first + second + transport)
        )

    def udp(self, back: bool, data: bytes) -> bytes:
        ports = (
            (self.destination_port, self.source_port) if back else (self.source_port, self.destination_port)
        )
        return self.packet(back, struct.pack("!HHHH", *ports, 8 + len(data), 0) + data)

    def tcp(self, back: bool, flags: int, seq: int, ack: int, data: bytes = b"") -> bytes:
        ports = (
            (self.destination_port, self.source_port) if back else (self.source_port, self.destination_port)
        )
        head = struct.pack("!HHIIBBHHH", *ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x80, flags, 502, 0, 0)
        # No operation twice, then timestamps, as most stacks send.
        return self.packet(back, head + b"\1\1\x08\x0a" + bytes(8) + data)


Timed = tuple[int, bool, bytes]


class Maker:
    """Flows from one source of randomness."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - the same file again, not secrets
        self._noise = self.chance.randbytes(1 << 16)

    def noise(self, n: int) -> bytes:
        at = self.chance.randrange(len(self._noise) - 2048)
        return self._noise[at : at + n]

    def name(self) -> str:
        pick = self.chance.choice
        top = pick(("example", "test", "invalid"))
        return f"{pick(('www', 'api', 'cdn', 'mail'))}.{pick(_WORDS)}-{pick(_WORDS)}.{top}"

    def ends(self, protocol: int, port: int) -> Ends:
        chance = self.chance
        source = bytes((10, *chance.randbytes(3)))
        destination = bytes((chance.choice((23, 52, 104, 151, 185)), *chance.randbytes(3)))
        return Ends(source, destination, chance.randrange(1024, 65536), port, protocol)

    def dns(self, start: int) -> tuple[Ends, list[Timed]]:
        ends = self.ends(17, 53)
        labels = b"".join(bytes((len(part),)) + part.encode() for part in self.name().split("."))
        question = labels + b"\0\0\1\0\1"
        number = self.chance.randbytes(2)
        ask = number + b"\1\0\0\1\0\0\0\0\0\0" + question
        answer = number + b"\x81\x80\0\1\0\2\0\0\0\0" + question
        answer += 2 * (b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + self.chance.randbytes(4))
        later = start + self.chance.randrange(200_000, 30_000_000)
        return ends, [(start, False, ends.udp(False, ask)), (later, True, ends.udp(True, answer))]

    def scan(self, start: int) -> tuple[Ends, list[Timed]]:
        ends = self.ends(6, self.chance.randrange(1, 10_000))
        return ends, [(start, False, ends.tcp(False, _SYN, self.chance.getrandbits(32), 0))]

    def datagrams(self, start: int, n: int) -> tuple[Ends, list[Timed]]:
        ends = self.ends(17, 443)
        found, time = [], start
        while n > 0:
            size = min(n, 1_200)
            found.append((time, True, ends.udp(True, self.noise(size))))
            if len(found) % 3 == 1:
                found.append((time + 50_000, False, ends.udp(False, self.noise(60))))
            n -= size
            time += self.chance.randrange(20_000, 900_000)
        # The client speaks first.
        return ends, [(start - 1, False, ends.udp(False, b"\xc0" + self.noise(1_199))), *found]

    def stream(self, start: int, n: int, port: int, first: bytes) -> tuple[Ends, list[Timed]]:
        """A TCP connection in which the server sends `n` bytes after the client's `first`."""
        ends, chance = self.ends(6, port), self.chance
        ours, theirs = chance.getrandbits(32), chance.getrandbits(32)
        trip = chance.randrange(200_000, 20_000_000)
        found: list[Timed] = [(start, False, ends.tcp(False, _SYN, ours, 0))]
        time = start + trip
        found.append((time, True, ends.tcp(True, _SYN | _ACK, theirs, ours + 1)))
        ours, theirs, time = ours + 1, theirs + 1, time + trip // 2
        found.append((time, False, ends.tcp(False, _ACK, ours, theirs)))
        found.append((time + 20_000, False, ends.tcp(False, _ACK | _PSH, ours, theirs, first)))
        ours += len(first)
        time += trip
        for number in range((n + _SEGMENT - 1) // _SEGMENT):
            size = min(n - number * _SEGMENT, _SEGMENT)
            time += chance.randrange(1_000, 60_000)
            found.append((time, True, ends.tcp(True, _ACK | _PSH, theirs, ours, self.noise(size))))
            theirs += size
            if number % 2:
                found.append((time + 500, False, ends.tcp(False, _ACK, ours, theirs)))
        time += trip
        found.append((time, False, ends.tcp(False, _FIN | _ACK, ours, theirs)))
        found.append((time + 10_000, True, ends.tcp(True, _FIN | _ACK, theirs, ours + 1)))
        found.append((time + 20_000, False, ends.tcp(False, _ACK, ours + 1, theirs + 1)))
        return ends, found

    def hello(self) -> bytes:
        """A TLS 1.3 ClientHello in its record, with names and ciphers in varied order."""
        chance = self.chance
        ciphers = [0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030]
        chance.shuffle(ciphers)
        name = self.name().encode()
        extensions = [
            (0, struct.pack("!HBH", len(name) + 3, 0, len(name)) + name),
            (10, b"\0\4\0\x1d\0\x17"),
            (13, b"\0\6\4\3\x08\4\4\1"),
            (16, b"\0\x0c\2h2\x08http/1.1"),
            (43, b"\2\3\4"),
            (51, b"\0\x24\0\x1d\0\x20" + chance.randbytes(32)),
        ]
        chance.shuffle(extensions)
        body = b"".join(struct.pack("!HH", kind, len(data)) + data for kind, data in extensions)
        suites = struct.pack(f"!H{len(ciphers)}H", 2 * len(ciphers), *ciphers)
        hello = b"\3\3" + chance.randbytes(32) + b"\x20" + chance.randbytes(32)
        hello += suites + b"\1\0" + struct.pack("!H", len(body)) + body
        message = b"\1" + len(hello).to_bytes(3, "big") + hello
        return b"\x16\3\1" + struct.pack("!H", len(message)) + message

    def flow(self, start: int, size: int) -> tuple[Ends, list[Timed]]:
        """A flow of one of the kinds, of about `size` bytes where the kind has a choice."""
        draw = self.chance.random()
        if draw < 0.40:
            return self.dns(start)
        if draw < 0.45:
            return self.scan(start)
        if draw < 0.55:
            return self.datagrams(start, size)
        if draw < 0.65:
            request = f"GET /{self.name()} HTTP/1.1\r\nHost: {self.name()}\r\nUser-Agent: agent/1.0\r\n\r\n"
            return self.stream(start, size, 80, request.encode())
        return self.stream(start, size, 443, self.hello())


def make(name: str, out: Path, seed: int = 1, captures: Path | None = None) -> int:
    """Write `out` and its truth beside it; the number of packets.  ValueError for an unknown name."""
    truth = out.with_suffix(".truth.jsonl")
    with out.open("wb", 1 << 20) as file, truth.open("w", encoding="ascii") as facts:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, 1))
        if name == "mix" and captures is not None:
            return _mix(file, facts, captures, 650_000)
        if name in ("million", "million-chosen"):
            return _million(file, facts, seed, name == "million-chosen", 1_000_000)
        if name in ("mix", "profile"):
            return _scenario(file, facts, seed, *SCENARIOS["10g"])
        if name in SCENARIOS:
            return _scenario(file, facts, seed, *SCENARIOS[name])
    raise ValueError(f"{name!r} is none of {', '.join(NAMES)}")


def _write(file: IO[bytes], time: int, data: bytes) -> None:
    file.write(struct.pack("<IIII", time // _SECOND, time % _SECOND, len(data), len(data)) + data)


def _scenario(file: IO[bytes], facts: IO[str], seed: int, bits: int, rate: int, seconds: float) -> int:
    maker, count = Maker(seed), int(rate * seconds)
    # What the kinds without a choice leave of 12.5 KB a flow is for those with one.
    share = bits / 8 / rate / _FLOW_BYTES * 20_700
    pending: list[tuple[int, int, int, list[Timed]]] = []
    packets = 0

    def drain(until: int) -> None:
        nonlocal packets
        while pending and pending[0][0] < until:
            _, number, at, flow = pending[0]
            _write(file, flow[at][0], flow[at][2])
            packets += 1
            if at + 1 < len(flow):
                heapq.heapreplace(pending, (flow[at + 1][0], number, at + 1, flow))
            else:
                heapq.heappop(pending)

    for number in range(count):
        start = START + int(number * _SECOND / rate)
        drain(start - 1)
        # Heavy-tailed with mean 1, cut at 60 times the mean.
        size = int(share * min(maker.chance.lognormvariate(-0.72, 1.2), 60.0))
        ends, flow = maker.flow(start, max(size, 100))
        flow.sort()
        _fact(facts, ends, flow)
        heapq.heappush(pending, (flow[0][0], number, 0, flow))
    drain(1 << 62)
    return packets


def _fact(facts: IO[str], ends: Ends, flow: list[Timed]) -> None:
    ways: list[list[int]] = [[], []]
    for _, back, data in flow:
        ways[back].append(len(data) - 14)
    record = {
        "src": socket.inet_ntoa(ends.source),
        "sport": ends.source_port,
        "dst": socket.inet_ntoa(ends.destination),
        "dport": ends.destination_port,
        "proto": ends.protocol,
        "pkts_c2s": len(ways[0]),
        "pkts_s2c": len(ways[1]),
        "bytes_c2s": sum(ways[0]),
        "bytes_s2c": sum(ways[1]),
    }
    facts.write(json.dumps(record) + "\n")


def _million(file: IO[bytes], facts: IO[str], seed: int, chosen: bool, count: int) -> int:
    maker = Maker(seed)
    seen: set[tuple[bytes, bytes, int]] = set()
    while len(seen) < count:
        number = len(seen)
        if chosen:
            # Equal under XOR of addresses and ports, and under sums of them: the classic plain hashes.
            source = struct.pack("!I", 0x0A000000 + number)
            destination = struct.pack("!I", 0x0A000000 + number ^ 0x55AA55)
            port = 1024
        else:
            source, destination = b"\x0a" + maker.chance.randbytes(3), b"\xac" + maker.chance.randbytes(3)
            port = maker.chance.randrange(1024, 65536)
        key = (source, destination, port)
        if key in seen or (destination, source, port) in seen or source == destination:
            if chosen:
                raise AssertionError("chosen keys differ")
            continue
        seen.add(key)
        ends = Ends(source, destination, port, port, 17)
        packet: Timed = (START + number * 500, False, ends.udp(False, bytes(20)))
        _write(file, packet[0], packet[2])
        _fact(facts, ends, [packet])
    return count


def _mix(file: IO[bytes], facts: IO[str], captures: Path, packets: int) -> int:
    """All packets of the captures again and again, each round with other addresses, at its own time."""
    frames = [frame for path in sorted(captures.glob("*.pcap*")) for frame in _frames(path)]
    if not frames:
        raise ValueError(f"{captures} has no captures")
    written, number = 0, 0
    while written < packets:
        for time, data in frames:
            _write(file, START + number * 60 * _SECOND + time, _moved(data, number))
            written += 1
        number += 1
    facts.write(json.dumps({"rounds": number, "packets": written, "a_round": len(frames)}) + "\n")
    return written


def _moved(data: bytes, number: int) -> bytes:
    """An Ethernet frame with the same bits of both of its IP addresses changed."""
    at = 14
    while len(data) > at + 4 and data[at - 2 : at] in (b"\x81\0", b"\x88\xa8"):
        at += 4

    def change(a: bytes) -> bytes:
        return bytes((a[0], a[1] ^ number & 0xFF, a[2] ^ number >> 8, *a[3:]))

    if data[at - 2 : at] == b"\x08\0" and len(data) >= at + 20:
        return (
            data[: at + 12]
            + change(data[at + 12 : at + 16])
            + change(data[at + 16 : at + 20])
            + data[at + 20 :]
        )
    if data[at - 2 : at] == b"\x86\xdd" and len(data) >= at + 40:
        return (
            data[: at + 8]
            + change(data[at + 8 : at + 24])
            + change(data[at + 24 : at + 40])
            + data[at + 40 :]
        )
    return data


def _frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """The Ethernet frames of a little- or big-endian pcap file of microseconds, from time 0."""
    data = path.read_bytes()
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}.get(data[:4])
    if order is None or struct.unpack_from(order + "I", data, 20)[0] != 1:
        return
    at, first = 24, -1
    while at + 16 <= len(data):
        seconds, micros, captured, _ = struct.unpack_from(order + "IIII", data, at)
        time = seconds * _SECOND + micros * 1000
        first = time if first < 0 else first
        yield min(max(time - first, 0), 59 * _SECOND), data[at + 16 : at + 16 + captured]
        at += 16 + captured


def make_all(
    names: tuple[str, ...], directory: Path, seed: int, captures: Path | None
) -> Iterator[tuple[Path, int]]:
    """Make the named files (all of them for none), one after another; path and packets of each."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names or NAMES:
        path = directory / f"{name}.pcap"
        yield path, make(name, path, seed, captures)
