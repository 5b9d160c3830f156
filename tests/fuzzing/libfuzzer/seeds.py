"""What fuzzing begins with: flows of the tests, and the captures that are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.fuzzing.libfuzzer.layout import ENDS, encoded
from tests.unit.probe.dissect.test_bad_input import SEEDS
from tests.unit.probe.dissect.test_transactions import CONVERSATIONS, A, message
from tests.unit.probe.test_outputs import mixed

ROOT = Path(__file__).resolve().parents[3]
#: Ends of a group's flows, as indices.
_ENDS = {"hellos": (0, 1, 2, 7), "messages": (3, 4, 5, 6)}
_MOST_BYTES = 6_000


def seeds(group: str) -> Iterator[bytes]:
    if group == "walk":
        yield from (bytes((n,)) + mixed() for n in range(2))
        yield from (b"\0" + path.read_bytes()[:_MOST_BYTES] for path in captures())
        return
    for index in _ENDS[group]:
        protocol, port = ENDS[index]
        for seed in SEEDS:
            yield encoded(protocol, port, [(False, seed)])
            yield encoded(protocol, port, [(False, seed), (True, SEEDS[1]), (True, seed[::-1])])
            half = len(seed) // 2
            yield encoded(protocol, port, [(False, seed[:half]), (False, seed[half:])])
    if group == "messages":
        for talk in CONVERSATIONS.values():
            yield encoded(6, 80, [(way == "<", data) for way, data in talk])
        asked, answered = message(1, 0x0100, b"one"), message(1, 0x8180, b"one", A)
        yield encoded(6, 53, [(False, asked * 2), (True, answered[:9]), (True, answered[9:])])
    yield from flows_of_captures(group)


def captures() -> Iterator[Path]:
    shared = Path(os.environ.get("SEALWIRE_SHARED") or ROOT.parent / "shared") / "data"
    for place in (ROOT / "tests/data/probe", shared / "probe", shared / "dtls13/dtls13_captures"):
        yield from sorted(place.glob("*.pcap*"))


def flows_of_captures(group: str) -> Iterator[bytes]:
    """First payloads of the captures' flows, with the ends of the group's that fit best."""
    ends = [ENDS[index] for index in _ENDS[group]]
    for path in captures():
        data, at = path.read_bytes(), 24
        if data[:4] not in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
            continue
        found: dict[tuple[int, bytes], list[tuple[bool, bytes]]] = {}
        for _ in range(3_000):
            n = int.from_bytes(data[at + 8 : at + 12], "little")
            frame = data[at + 16 : at + 16 + n]
            at += 16 + n
            if len(frame) < 54 or frame[12:14] != b"\x08\0" or frame[23] not in (6, 17):
                continue
            ports = frame[34:38]
            low = min(ports, ports[2:] + ports[:2])
            payload = frame[42:] if frame[23] == 17 else frame[34 + (frame[46] >> 4) * 4 :]
            first = found.setdefault((frame[23], low), [])
            if payload and len(first) < 6:
                first.append((ports != low, payload[:1_500]))
        for (protocol, _), packets in list(found.items())[:60]:
            for here, port in ends:
                if here == protocol and packets:
                    yield encoded(protocol, port, packets)
