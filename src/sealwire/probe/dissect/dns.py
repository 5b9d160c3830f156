"""DNS, multicast DNS and LLMNR: one message, read to its end (RFC 1035, RFC 6762, RFC 4795).

A message is certain on a port of its own if every record in it can be read and nothing is left.
Names are decompressed within RFC 1035's 255 bytes; a pointer must point backwards, so none loops.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from sealwire.probe.dissect.facts import Certainty

PORTS: Final = frozenset({53, 5353, 5355})
MULTICAST_PORT: Final = 5353
MAX_ANSWERS: Final = 16
_HEADER: Final = struct.Struct(">HHHHHH")
_LONGEST_NAME: Final = 255
_LONGEST_VALUE: Final = 255
_A, _NS, _CNAME, _PTR, _TXT, _AAAA = 1, 2, 5, 12, 16, 28


@dataclass(slots=True)
class Message:
    """What is learnt of a message."""

    id: int
    flags: int
    name: bytes = b""
    kind: int = 0
    #: (type, time to live, value) of the answer section, the first MAX_ANSWERS.
    answers: list[tuple[int, int, bytes]] = field(default_factory=list)
    #: Whether everything could be read and nothing was left.
    whole: bool = False


def read(view: memoryview) -> Message | None:
    """The message, or None if these bytes cannot be one."""
    n = len(view)
    if n < _HEADER.size:
        return None
    ident, flags, questions, answers, authorities, additional = _HEADER.unpack_from(view)
    opcode = flags >> 11 & 0xF
    # RFC 1035 section 4.1.1: one bit stays zero; opcodes beyond 6 do not exist.
    if flags & 0x0040 or opcode > 6 or questions > 64 or questions + answers + authorities + additional == 0:
        return None
    message = Message(ident, flags)
    at = _HEADER.size
    for number in range(questions):
        name, at = name_at(view, at)
        if at < 0 or at + 4 > n:
            return message if number else None
        if number == 0:
            message.name, message.kind = name, view[at] << 8 | view[at + 1]
        at += 4
    for number in range(answers + authorities + additional):
        at = _record(view, at, message if number < answers else None)
        if at < 0:
            return message if questions else None
    message.whole = at == n
    return message


def plausible(view: memoryview) -> bool:
    """Whether a header asks one question in a way that exists, whatever is behind it."""
    if len(view) < _HEADER.size:
        return False
    flags = view[2] << 8 | view[3]
    return not flags & 0x0040 and flags >> 11 & 0xF <= 6 and (view[4] << 8 | view[5]) == 1


def certainty(message: Message, ports: tuple[int, int]) -> Certainty:
    """How sure it is that a message is one."""
    if ports[0] in PORTS or ports[1] in PORTS:
        return Certainty.CERTAIN if message.whole else Certainty.UNSURE
    return Certainty.UNSURE if message.whole and message.name else Certainty.NOT_MINE


def _record(view: memoryview, at: int, into: Message | None) -> int:
    """Where the record at `at` ends, -1 if it is cut or wrong."""
    _, at = name_at(view, at)
    if at < 0 or at + 10 > len(view):
        return -1
    kind = view[at] << 8 | view[at + 1]
    ttl = int.from_bytes(view[at + 4 : at + 8], "big")
    length = view[at + 8] << 8 | view[at + 9]
    at += 10
    if at + length > len(view):
        return -1
    if into is not None and len(into.answers) < MAX_ANSWERS:
        value = b""
        if (kind == _A and length == 4) or (kind == _AAAA and length == 16):
            value = bytes(view[at : at + length])
        elif kind in (_NS, _CNAME, _PTR):
            name, behind = name_at(view, at)
            if behind != at + length:
                return -1
            value = name
        elif kind == _TXT and length and 1 + view[at] <= length:
            value = bytes(view[at + 1 : at + 1 + view[at]])
        into.answers.append((kind, ttl, value[:_LONGEST_VALUE]))
    return at + length


def name_at(view: memoryview, at: int) -> tuple[bytes, int]:
    """A name in RFC 1035's master file format, without the last dot, and the place behind it; -1 if wrong."""
    n = len(view)
    out = bytearray()
    behind, total, before = -1, 0, at
    while True:
        if at >= n:
            return b"", -1
        length = view[at]
        if length >= 0xC0:
            if at + 2 > n:
                return b"", -1
            target = (length & 0x3F) << 8 | view[at + 1]
            if behind < 0:
                behind = at + 2
            # Each jump goes to before everything read so far of this name, so it ends.
            if target >= before:
                return b"", -1
            at = before = target
            continue
        if length >= 0x40 or at + 1 + length > n:
            return b"", -1
        total += 1 + length
        if total > _LONGEST_NAME:
            return b"", -1
        at += 1
        if length == 0:
            return bytes(out), at if behind < 0 else behind
        if out:
            out += b"."
        for byte in view[at : at + length]:
            if 0x20 < byte < 0x7F and byte not in b".\\":
                out.append(byte)
            else:
                out += b"\\%03d" % byte
        at += length
