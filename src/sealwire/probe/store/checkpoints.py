"""Checkpoints: a collector's signed word that it removed a probe's segments up to one, and which that was.

    checkpoint = #6.18([protected, {}, bstr .cbor [COSE_Sign1 of the last one removed, next key], signature])

The last removed segment's own signed header and root stay in it (without leaves), so that what is kept
links to what is gone: by its hash, its numbers, its boot, clock and counters.  `sealwire verify` takes
a beginning that was removed so only from a collector it is told to trust.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sealwire.probe.seal import cbor
from sealwire.probe.seal.cose import ALGORITHM, EMPTY_MAP, KEY_ID, Malformed, Sign1, read, to_be_signed
from sealwire.probe.seal.keys import PublicKey, SigningKey, parse_public_key
from sealwire.probe.seal.segment import Header, Segment
from sealwire.probe.store.chain import Place
from sealwire.probe.store.disk import Disk

CHECKPOINTS: Final = "checkpoints"
_LABEL: Final = "sealwire-checkpoint"
_VERSION: Final = 1
#: Checkpoints kept for a probe; the last one covers what the others did.
KEPT: Final = 256


class Why(enum.IntEnum):
    """Why segments were removed."""

    AGE = 1
    SIZE = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a collector says it removed.  Decoding checks its form; `authentic`, whose word it is."""

    collector: bytes  #: id of the collector's key
    probe: bytes
    removed: int  #: when, nanoseconds since 1970
    first_segment: int  #: of those removed this time
    why: int
    last: Header = field(repr=False)  #: of the last one removed
    hash: bytes
    key: PublicKey = field(repr=False)  #: who may sign what follows
    _algorithm: int = field(repr=False)
    _signed: Sign1 = field(repr=False)

    @property
    def last_segment(self) -> int:
        return self.last.segment

    def authentic(self, key: PublicKey) -> bool:
        """Whether `key` signed it."""
        payload = self._signed.payload
        return (
            payload is not None
            and (self._algorithm, self.collector) == (key.algorithm, key.id)
            and key.verify(self._signed.signature, to_be_signed(self._signed.protected, payload))
        )

    def place(self) -> Place:
        """Where the chain goes on."""
        return Place(self.last.segment, self.last.last_event, self.hash, self.key)

    def encode(self) -> bytes:
        """As stored."""
        return self._signed.encode()


def make(
    last: Segment, next_key: PublicKey, *, first_segment: int, removed: int, why: Why, key: SigningKey
) -> Checkpoint:
    """The checkpoint of segments up to `last`, signed with the collector's key."""
    said = {1: _VERSION, 2: last.header.probe, 3: removed, 4: first_segment, 5: int(why)}
    protected = cbor.encode({ALGORITHM: key.public.algorithm, KEY_ID: key.id, _LABEL: said})
    payload = cbor.encode([last.signed, next_key.spki])
    return _decode(Sign1(protected, EMPTY_MAP, payload, key.sign(to_be_signed(protected, payload))))


def checkpoints(data: bytes) -> Iterator[Checkpoint]:
    """The checkpoints of a file, one behind the other.  Raises Malformed at the first that is none."""
    at = 0
    while at < len(data):
        signed, at = read(data, at)
        yield _decode(signed)


def _decode(signed: Sign1) -> Checkpoint:
    try:
        match cbor.decode(signed.protected):
            case {1: int(algorithm), 4: bytes(collector), "sealwire-checkpoint": {} as said, **more} if (
                not more
            ):
                pass
            case _:
                raise Malformed("a protected header with other parameters than a checkpoint's")
        match said:
            case {1: 1, 2: bytes(probe), 3: int(removed), 4: int(first), 5: int(why), **more} if not more:
                pass
            case _:
                raise Malformed("a checkpoint of another version")
        match cbor.decode(signed.payload or b""):
            case [bytes(last), bytes(spki)]:
                pass
            case _:
                raise Malformed("a checkpoint names the last segment removed and the next key")
        inner, end = read(last, 0)
        header = Header.decode(inner.protected)
        key = parse_public_key(spki)
    except Malformed:
        raise
    except ValueError as wrong:
        raise Malformed(str(wrong)) from None
    whole = end == len(last) and inner.payload is not None and inner.unprotected == EMPTY_MAP
    if not whole or header.probe != probe or not 0 <= first <= header.segment or removed < 0:
        raise Malformed("a checkpoint that contradicts itself")
    if signed.unprotected != EMPTY_MAP:
        raise Malformed("an unprotected header that is not empty")
    return Checkpoint(
        *(
            collector,
            probe,
            removed,
            first,
            why,
            header,
            hashlib.sha256(last).digest(),
            key,
            algorithm,
            signed,
        )
    )


def of_probe(disk: Disk, probe: str) -> list[Checkpoint]:
    """The checkpoints of a probe, oldest first.  Raises Malformed."""
    try:
        data = disk.read(f"{probe}/{CHECKPOINTS}")
    except FileNotFoundError:
        return []
    return list(checkpoints(data))


def last_checkpoint(disk: Disk, probe: str) -> Checkpoint | None:
    """The one that covers all that was removed of a probe."""
    found = of_probe(disk, probe)
    return found[-1] if found else None


def add(disk: Disk, probe: str, checkpoint: Checkpoint) -> None:
    """Make a checkpoint durable beside those before it."""
    kept = [*of_probe(disk, probe), checkpoint][-KEPT:]
    disk.replace(f"{probe}/{CHECKPOINTS}", b"".join(one.encode() for one in kept))
