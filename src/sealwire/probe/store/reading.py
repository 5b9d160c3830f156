"""A store's files as they are read: segments in the order of their numbers, each one once.

A probe's folder holds files named by their first segment.  Damage is passed over and told: bytes that
are no segment do not hide those behind them.  What a failed disk left twice counts once: where a file
begins with a number that the one before it has as well, the earlier one's tail is not read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sealwire.errors import ConfigurationError
from sealwire.probe.seal import frames
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.segment import Segment
from sealwire.probe.spool import SUFFIX
from sealwire.probe.store.chain import NUMBER_BITS
from sealwire.probe.store.disk import Disk

#: Names a store, and the order in which its probes came.
STORE: Final = "store"
VERSION: Final = 1
#: A public key that signed segments here, by its id.
KEY_PREFIX: Final = "key-"
_ARRIVAL: Final = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Arrived:
    """A segment in a file of the store."""

    segment: Segment
    #: When it came, nanoseconds since 1970; 0 where nothing says so.
    received: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a file that are no segment."""

    begin: int
    end: int
    words: str
    #: Whether they are the file's end, as a power cut leaves it.
    tail: bool


def note(received: int) -> bytes:
    """What stands in front of a segment that came at `received`."""
    return frames.note(_ARRIVAL.pack(received))


def walk(data: bytes) -> Iterator[Arrived | Damage]:
    """What a file holds, to its end."""
    at = 0
    while at < len(data):
        begin = at
        try:
            for found in frames.unpack(data, at):
                yield Arrived(found.segment, _received(found.note), found.begin, found.end)
                begin = at = found.end
        except Malformed as wrong:
            at = _next(data, begin + 1)
            yield Damage(begin, at, str(wrong), tail=at == len(data))


def _received(said: bytes) -> int:
    received: int = _ARRIVAL.unpack(said)[0] if len(said) == _ARRIVAL.size else 0
    return received


def _next(data: bytes, at: int) -> int:
    """Where the next whole segment begins behind damaged bytes, its note included."""
    while True:
        noted, plain = data.find(frames.NOTE_MAGIC, at), data.find(frames.MAGIC, at)
        at = min((n for n in (noted, plain) if n >= 0), default=len(data))
        try:
            next(frames.unpack(data, at), None)
        except Malformed:
            at += 1
        else:
            return at


def files(disk: Disk, probe: str) -> list[str]:
    """Names of a probe's files, without its folder, in the order of their first segments."""
    return sorted(name for name in disk.within(probe) if name.endswith(SUFFIX))


def first_of(name: str) -> int:
    """The first segment of the file of that name; -1 where the name is none of ours."""
    digits = name.removesuffix(SUFFIX)[:16]
    return int(digits) if digits.isdecimal() and len(digits) == 16 else -1


def segments(disk: Disk, probe: str, name: str, below: int | None) -> Iterator[Arrived | Damage]:
    """What counts of a file: numbers that rise, and none from `below` on, where the next file begins."""
    last = -1
    for found in walk(disk.read(f"{probe}/{name}")):
        if isinstance(found, Arrived):
            number = found.segment.header.segment
            if number <= last or (below is not None and number >= below):
                continue
            last = number
        yield found


def following(names: list[str], index: int) -> int | None:
    """The first segment of the file behind that at `index`."""
    return first_of(names[index + 1]) if index + 1 < len(names) else None


def probes(disk: Disk) -> list[str]:
    """The probes of a store in the order in which they came.  Raises ConfigurationError."""
    try:
        said = json.loads(disk.read(STORE))
    except FileNotFoundError:
        raise ConfigurationError(f"{disk.path('')} is no store: there is no file {STORE!r} in it") from None
    except ValueError:
        raise ConfigurationError(f"{disk.path(STORE)} is damaged") from None
    if not isinstance(said, dict) or said.get("sealwire-store") != VERSION:
        found = said.get("sealwire-store") if isinstance(said, dict) else None
        raise ConfigurationError(
            f"{disk.path('')} is a store of version {found}, and this program knows version {VERSION}"
        )
    named = said.get("probes")
    if not isinstance(named, list) or len(set(map(str, named))) != len(named) or not all(map(_is_id, named)):
        raise ConfigurationError(f"{disk.path(STORE)} is damaged")
    return named


def _is_id(name: object) -> bool:
    return isinstance(name, str) and len(name) == 64 and not set(name) - set("0123456789abcdef")


def described(named: list[str]) -> bytes:
    """The content of the file that names a store."""
    return json.dumps({"sealwire-store": VERSION, "probes": named}, indent=1).encode() + b"\n"


def row_number(place: int, sequence: int) -> int:
    """The number of a row: its event's sequence, and above it the place of its probe in the store."""
    return place << NUMBER_BITS | sequence


def row_of(number: int) -> tuple[int, int]:
    """The place of a row's probe in the store, and its event's sequence."""
    return number >> NUMBER_BITS, number & ((1 << NUMBER_BITS) - 1)
