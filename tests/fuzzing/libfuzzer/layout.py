"""How bytes of a corpus are packets of one flow: the first names the ends, then packet after packet.

ends                      index into ENDS; 0x40: dissection may hold SMALL_LIMIT bytes only
way, size (2), payload    way: 1 is backward; 6: what SHIFTS says is added to the sequence number
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: IP protocol and the server's port.
ENDS: Final = ((6, 443), (17, 443), (17, 4_433), (17, 53), (6, 53), (6, 80), (17, 5_353), (17, 3_478))
SHIFTS: Final = (0, 0, -3, 5)
FIRST_FORTH: Final = 1_000
FIRST_BACK: Final = 10_000
SMALL_LIMIT: Final = 1_000

#: Direction, offset in its stream, payload.
Step = tuple[str, int, bytes]


def steps(data: bytes) -> tuple[int, int, list[Step]]:
    """IP protocol, port and packets of a corpus file."""
    protocol, port = ENDS[data[0] % len(ENDS)] if data else ENDS[0]
    found: list[Step] = []
    ends = [0, 0]
    at = 1
    while at + 3 <= len(data):
        backward = data[at] & 1
        payload = data[at + 3 : at + 3 + int.from_bytes(data[at + 1 : at + 3], "little")]
        if payload:
            found.append(("<" if backward else ">", ends[backward] + SHIFTS[data[at] >> 1 & 3], payload))
        ends[backward] += len(payload)
        at += 3 + len(payload)
    return protocol, port, found


def encoded(protocol: int, port: int, packets: Iterable[tuple[bool, bytes]]) -> bytes:
    """A corpus file of packets in order."""
    data = bytes((ENDS.index((protocol, port)),))
    for backward, payload in packets:
        data += bytes((backward,)) + len(payload).to_bytes(2, "little") + payload
    return data
