"""Receipts: a collector's signed word that segments arrived, and when.

    receipt = #6.18([protected, {}, bstr .cbor [+ [segment, hash]], signature])

A probe keeps what its collector answers, one receipt behind the other.  With them a spool can be judged
by somebody who was not there: what a key signed before it was stolen is told from what was signed with
it later, by the collector's clock; and a spool whose end was cut off is found, because the collector
has seen more.  A receipt says that its segments arrived, not that they are true: they are verified
as ever.  Nothing here reads a clock or a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sealwire.probe.seal import cbor
from sealwire.probe.seal.cose import ALGORITHM, EMPTY_MAP, KEY_ID, Malformed, Sign1, read, to_be_signed
from sealwire.probe.seal.keys import PublicKey, SigningKey

_LABEL: Final = "sealwire-receipt"
_VERSION: Final = 1
#: Segments of one receipt; one for each takes 36 bytes or more.
RECEIPT_SEGMENTS: Final = 4096


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a collector says it received.  Decoding checks its form; `authentic`, whose word it is."""

    collector: bytes  #: id of the collector's key
    probe: bytes
    received: int  #: nanoseconds since 1970, the collector's clock
    segments: tuple[tuple[int, bytes], ...]  #: number and chain hash of each
    _algorithm: int = field(repr=False)
    _signed: Sign1 = field(repr=False)

    def authentic(self, key: PublicKey) -> bool:
        """Whether `key` signed it."""
        payload = self._signed.payload
        return (
            payload is not None
            and (self._algorithm, self.collector) == (key.algorithm, key.id)
            and key.verify(self._signed.signature, to_be_signed(self._signed.protected, payload))
        )


def acknowledge(probe: bytes, segments: Sequence[tuple[int, bytes]], received: int, key: SigningKey) -> bytes:
    """The receipt of segments (number, chain hash), 1 to 4,096 of them, that came at `received`.

    It is the collector's to say only what is durable there.
    """
    assert 0 < len(segments) <= RECEIPT_SEGMENTS, "a receipt names segments"
    said = {1: _VERSION, 2: probe, 3: received}
    protected = cbor.encode({ALGORITHM: key.public.algorithm, KEY_ID: key.id, _LABEL: said})
    payload = cbor.encode([list(segment) for segment in segments])
    signature = key.sign(to_be_signed(protected, payload))
    return Sign1(protected, EMPTY_MAP, payload, signature).encode()


def receipts(data: bytes) -> Iterator[Receipt]:
    """The receipts of a file, one behind the other.  Raises Malformed at the first that is none."""
    at = 0
    while at < len(data):
        signed, at = read(data, at)
        yield _decode(signed)


def _decode(signed: Sign1) -> Receipt:
    try:
        match cbor.decode(signed.protected):
            case {1: int(algorithm), 4: bytes(collector), "sealwire-receipt": {} as said, **more} if not more:
                pass
            case _:
                raise Malformed("a protected header with other parameters than a receipt's")
        match said:
            case {1: 1, 2: bytes(probe), 3: int(received), **more} if not more and len(probe) == 32:
                pass
            case _:
                raise Malformed("a receipt of another version")
        segments = cbor.decode(signed.payload or b"")
    except Malformed:
        raise
    except ValueError as wrong:
        raise Malformed(str(wrong)) from None
    if signed.unprotected != EMPTY_MAP or not isinstance(segments, list) or not segments or received < 0:
        raise Malformed("a receipt names segments and when they came")
    named: list[tuple[int, bytes]] = []
    for segment in segments:
        match segment:
            case [int(number), bytes(known)] if type(number) is int and number >= 0 and len(known) == 32:
                named.append((number, known))
            case _:
                raise Malformed("a receipt names segments by number and hash")
    return Receipt(collector, probe, received, tuple(named), algorithm, signed)


@dataclass(slots=True)
class Received:
    """What trusted collectors say they received."""

    collectors: Mapping[bytes, PublicKey]
    #: When each segment came first, by its hash.
    times: dict[bytes, int] = field(default_factory=dict)
    #: The segments of each probe: number and hash.
    segments: dict[bytes, dict[int, bytes]] = field(default_factory=dict)
    #: Receipts of collectors that are not trusted here, or that they did not sign.
    refused: int = 0

    def take(self, receipt: Receipt) -> None:
        """Believe a receipt, if it is to be believed."""
        key = self.collectors.get(receipt.collector)
        if key is None or not receipt.authentic(key):
            self.refused += 1
            return
        known = self.segments.setdefault(receipt.probe, {})
        for number, hash_ in receipt.segments:
            known[number] = hash_
            self.times[hash_] = min(receipt.received, self.times.get(hash_, receipt.received))
