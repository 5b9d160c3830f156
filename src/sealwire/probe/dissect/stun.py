"""STUN and TURN messages (RFC 8489, RFC 8656)."""

from __future__ import annotations

from typing import Final

from sealwire.probe.dissect.bounded import Budget
from sealwire.probe.dissect.case import Case
from sealwire.probe.dissect.facts import Certainty, Fact, Protocol

COOKIE: Final = 0x2112A442
_COOKIE: Final = COOKIE.to_bytes(4, "big")
_REALM, _XOR_MAPPED, _SOFTWARE, _MAPPED = 0x0014, 0x0020, 0x8022, 0x0001
_LONGEST_TEXT: Final = 255


def unframed(view: memoryview) -> memoryview:
    """A stream's first message without the length RFC 4571 puts in front of it, where there is one."""
    if len(view) < 22 or view[6:10] != _COOKIE:
        return view
    framed = (view[0] << 8 | view[1]) == 20 + (view[4] << 8 | view[5])
    return view[2:] if framed else view


def looks_so(view: memoryview, stream: bool) -> Certainty:
    """Whether a datagram, or what a stream begins with, is a message whose attributes fill it."""
    n = len(view)
    if n < 20 or view[0] & 0xC0 or view[4:8] != _COOKIE:
        return Certainty.NOT_MINE
    length = view[2] << 8 | view[3]
    if length % 4 or (20 + length > n if stream else 20 + length != n):
        return Certainty.NOT_MINE
    at = 20
    while at < 20 + length:
        if at + 4 > 20 + length:
            return Certainty.NOT_MINE
        at += 4 + (((view[at + 2] << 8 | view[at + 3]) + 3) & ~3)
    return Certainty.CERTAIN if at == 20 + length else Certainty.NOT_MINE


def learn(case: Case, budget: Budget, view: memoryview, backward: int) -> None:
    """Facts of a message that looks so."""
    case.claim(Protocol.STUN, Certainty.CERTAIN)
    kind = view[0] << 8 | view[1]
    # RFC 8489 section 5: the bits of class and method are interleaved.
    case.number(budget, Fact.STUN_METHOD, kind & 0xF | (kind & 0xE0) >> 1 | (kind & 0x3E00) >> 2)
    at, end = 20, 20 + (view[2] << 8 | view[3])
    while at < end:
        attribute, n = view[at] << 8 | view[at + 1], view[at + 2] << 8 | view[at + 3]
        at += 4
        value = view[at : at + n]
        at += n + 3 & ~3
        if attribute == _REALM and 0 < n <= _LONGEST_TEXT:
            case.put(budget, Fact.NAME, value)
        elif attribute == _SOFTWARE and 0 < n <= _LONGEST_TEXT:
            case.put(budget, Fact.SERVER_SOFTWARE if backward else Fact.CLIENT_SOFTWARE, value)
        elif attribute in (_XOR_MAPPED, _MAPPED) and n in (8, 20) and kind & 0x0110 == 0x0100:
            case.put(budget, Fact.MAPPED, _address(value, view, attribute == _XOR_MAPPED))


def _address(value: memoryview, view: memoryview, covered: bool) -> bytes:
    """RFC 8489 section 14.2: port and address, covered by cookie and transaction id."""
    key = bytes(view[4:20])
    port = (value[2] << 8 | value[3]) ^ (COOKIE >> 16 if covered else 0)
    where = bytes(a ^ b for a, b in zip(value[4:], key, strict=False)) if covered else bytes(value[4:])
    return port.to_bytes(2, "little") + where
