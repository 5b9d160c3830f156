"""Capture file formats: what stands around the packets of pcap and pcapng files.

The headers that describe a file (once or a few times in it) are read here, for both twins; the
records in between are walked by the table itself, compiled or not.  Lengths in a file are believed
only as far as bytes are there.  Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import Final

from sealwire.errors import Error

#: A record longer than this is a damaged file, unless the file's own snaplen says otherwise.
MAX_RECORD_BYTES: Final = 262_144
#: A pcapng block longer than this is a damaged file.
MAX_BLOCK_BYTES: Final = 16 * 1024 * 1024
#: Interfaces of one section that are remembered.
MAX_INTERFACES: Final = 4_096
#: Times are kept inside 0..2^62-1 ns (the year 2116).
MAX_TIME: Final = (1 << 62) - 1

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
PACKET: Final = 2
SIMPLE: Final = 3
ENHANCED: Final = 6

_MAGICS: Final = {  # first four bytes -> big-endian, nanoseconds
    b"\xd4\xc3\xb2\xa1": (False, False),
    b"\xa1\xb2\xc3\xd4": (True, False),
    b"\x4d\x3c\xb2\xa1": (False, True),
    b"\xa1\xb2\x3c\x4d": (True, True),
    b"\x34\xcd\xb2\xa1": (False, False),  # Kuznetzov's: longer record headers
    b"\xa1\xb2\xcd\x34": (True, False),
}
_KUZNETZOV: Final = {b"\x34\xcd\xb2\xa1", b"\xa1\xb2\xcd\x34"}


class CaptureError(Error):
    """Bytes that are no capture file, or one that cannot be read on."""


class Kind(enum.IntEnum):
    """File formats."""

    PCAP = 0
    PCAPNG = 1


class Stop(enum.IntEnum):
    """Why a walk over a file's bytes ended."""

    MORE = 0  #: the next record is not all there
    FULL = 1  #: rows wait to be taken
    BUDGET = 2  #: as many packets as asked for were walked
    CONTROL = 3  #: a section header or interface description is next
    CORRUPT = 4  #: what is next cannot be a record


@dataclass(frozen=True, slots=True)
class Interface:
    """Link layer and clock of one interface: ns = stamp * multiplier // divisor >> shift, plus offset."""

    link: int
    multiplier: int = 1
    divisor: int = 1
    shift: int = 0
    offset: int = 0
    snaplen: int = 0

    def time(self, stamp: int) -> tuple[int, bool]:
        """Nanoseconds since 1970, and whether they had to be cut to fit."""
        value = ((stamp * self.multiplier) >> self.shift) // self.divisor + self.offset
        return (value, False) if 0 <= value <= MAX_TIME else (0 if value < 0 else MAX_TIME, True)


@dataclass(slots=True)
class Layout:
    """How the records of a file are to be read."""

    kind: Kind
    big: bool = False
    interfaces: list[Interface] = field(default_factory=list)
    #: Bytes in front of each pcap record (16, or 24 in Kuznetzov's variant).
    record_header: int = 16
    record_limit: int = MAX_RECORD_BYTES

    @property
    def order(self) -> str:
        """The struct module's sign for the byte order."""
        return ">" if self.big else "<"


def begin(data: memoryview, final: bool) -> tuple[Layout, int] | None:
    """Layout and offset of the first record; None if more bytes are needed.

    Raises CaptureError for bytes that are no capture file; `final` says that no more will come.
    """
    magic = bytes(data[:4])
    if len(magic) < 4:
        if final:
            raise CaptureError("not a capture file: it has fewer than 4 bytes")
        return None
    if magic == b"\x0a\x0d\x0d\x0a":
        return Layout(Kind.PCAPNG), 0
    if magic not in _MAGICS:
        raise CaptureError("neither a pcap nor a pcapng file (by its first four bytes)")
    if len(data) < 24:
        if final:
            raise CaptureError("a pcap file that ends inside its header")
        return None
    big, nanoseconds = _MAGICS[magic]
    snaplen, network = struct.unpack_from(">II" if big else "<II", data, 16)
    layout = Layout(Kind.PCAP, big)
    # The upper bits of the field describe frame check sequences.
    layout.interfaces.append(Interface(network & 0x03FFFFFF, 1 if nanoseconds else 1000))
    layout.record_header = 24 if magic in _KUZNETZOV else 16
    layout.record_limit = max(MAX_RECORD_BYTES, min(snaplen, MAX_BLOCK_BYTES))
    return layout, 24


def control(layout: Layout, data: memoryview, at: int) -> int | None:
    """Take the section header or interface description at `at`; the offset behind it, or None for more.

    Raises CaptureError if it is damaged.
    """
    if len(data) < at + 12:
        return None
    if struct.unpack_from("<I", data, at)[0] == SECTION:
        mark = bytes(data[at + 8 : at + 12])
        if mark not in (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a"):
            raise CaptureError(f"damaged section header at byte {at}")
        layout.big = mark == b"\x1a\x2b\x3c\x4d"
        layout.interfaces.clear()
    length: int = struct.unpack_from(layout.order + "I", data, at + 4)[0]
    if length < 20 or length % 4 or length > MAX_BLOCK_BYTES:
        raise CaptureError(f"damaged block at byte {at}")
    if len(data) < at + length:
        return None
    if struct.unpack_from(layout.order + "I", data, at)[0] == INTERFACE:
        if len(layout.interfaces) >= MAX_INTERFACES:
            raise CaptureError(f"more than {MAX_INTERFACES} interfaces in one section")
        layout.interfaces.append(_interface(layout, data[at + 8 : at + length - 4]))
    return at + length


def _interface(layout: Layout, body: memoryview) -> Interface:
    link, _, snaplen = struct.unpack_from(layout.order + "HHI", body, 0)
    resolution, offset = 6, 0
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(layout.order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == 0 or len(value) < length:
            break
        if code == 9 and length == 1:
            resolution = value[0]
        elif code == 14 and length == 8:
            offset = struct.unpack(layout.order + "q", value)[0]
        at += 4 + (length + 3) // 4 * 4
    # Beyond these nothing is a clock, and sums would leave 128 bits.
    offset = max(min(offset, 1 << 33), -(1 << 33)) * 1_000_000_000
    power = resolution & 0x7F
    if resolution & 0x80:
        # Stamps of the finest binary clocks do not change by more shifting.
        return Interface(link, 1_000_000_000, 1, min(power, 94), offset, snaplen)
    if power <= 9:
        return Interface(link, 10 ** (9 - power), 1, 0, offset, snaplen)
    return Interface(link, 1, 10 ** min(power - 9, 18), 0, offset, snaplen)
