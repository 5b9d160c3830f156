"""Passes over a batch's bytes that find what the inspector must look at; most flows it need not.

Plain Python; the compiled twin is `_scan`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from sealwire.probe.dissect.facts import EVENT_HEAD, Certainty, Fact, Facts, Protocol

#: Why a row is looked at: nobody is certain of it; it is a connection with ids; it tells no name.
UNCERTAIN: Final = 1
WITH_IDS: Final = 2
NAMELESS: Final = 4

_LINKED: Final = frozenset({int(Protocol.DTLS), int(Protocol.QUIC)})
_NAMING: Final = frozenset({int(Protocol.DNS), int(Protocol.MDNS)})
_SIZE: Final = struct.Struct("<I")

#: Index of a row, where its block begins, the block's size, why it is looked at.
Row = tuple[int, int, int, int]
#: Time, client, name and addresses of a DNS answer; or time, b"", b"", () and where a handshake's event is.
News = tuple[int, bytes, bytes, tuple[bytes, ...], int, int]


def rows(
    data: bytes,
    stride: int,
    facts_at: int,
    facts: bytes,
    named: Mapping[bytes, object],
    fresh: AbstractSet[bytes],
) -> list[Row]:
    """The rows to look at, in their order.

    One that only tells no name is left out unless its addresses are in `named` or `fresh`.
    """
    found: list[Row] = []
    at = 0
    for index, where in enumerate(range(facts_at, len(data), stride)):
        (size,) = _SIZE.unpack_from(data, where)
        why = _why(facts[at : at + size])
        if why == NAMELESS:
            ends = data[where - facts_at : where - facts_at + 32]
            why = why if ends in named or ends in fresh else 0
        if why:
            found.append((index, at, size, why))
        at += size
    return found


def _why(block: bytes) -> int:
    if not block:
        return NAMELESS
    read = Facts(block)
    certain = block[2] == Certainty.CERTAIN
    why = 0 if certain else UNCERTAIN
    if certain and block[0] in _LINKED and read.raw(Fact.SERVER_ID):
        why |= WITH_IDS
    if block[0] not in _NAMING and read.raw(Fact.NAME) is None:
        why |= NAMELESS
    return why


def news(events: bytes) -> list[News]:
    """DNS answers with addresses, and handshakes that tell ids, in the order in which they are there."""
    found: list[News] = []
    at = 0
    while at < len(events):
        (length, time, source, destination, source_port, *_) = EVENT_HEAD.unpack_from(events, at)
        block = events[at + EVENT_HEAD.size : at + length]
        if block and block[2] == Certainty.CERTAIN:
            read = Facts(block)
            if block[0] in _LINKED and read.raw(Fact.SERVER_ID):
                found.append((time, b"", b"", (), at, length))
            elif block[0] == Protocol.DNS and (name := read.raw(Fact.NAME)):
                listed = tuple(
                    value[6:].ljust(16, b"\0")
                    for tag, value in read
                    if tag == Fact.DNS_ANSWER and value[:2] in (b"\1\0", b"\x1c\0") and len(value) in (10, 22)
                )
                if listed:
                    client = destination if source_port == 53 else source
                    found.append((time, client, name, listed, at, length))
        at += length
    return found
