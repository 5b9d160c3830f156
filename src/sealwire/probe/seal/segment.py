"""A segment: leaves, their Merkle root, and one signature that covers both and where they belong.

    segment = [COSE_Sign1, [+ bstr .cbor event]]

The payload of the COSE_Sign1 (RFC 9052 section 4.2) is the root (RFC 9162 section 2.1.1).  Its
protected header says which probe and key, which boot, the segment's and its events' sequences, the
hash of the segment before, the times, the state of the clock and the counters: all of it is signed,
so a segment cannot be altered, moved, left out or repeated without breaking the chain.  The header
also names the verifiable data structure (RFC 9942), so the same signature, with a proof beside it,
is a receipt for one event.  Nothing here reads a clock or a file.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

from sealwire.probe.seal import cbor
from sealwire.probe.seal.cose import ALGORITHM, EMPTY_MAP, KEY_ID, Malformed, Sign1, read, to_be_signed
from sealwire.probe.seal.engine import leaf_hashes, root
from sealwire.probe.seal.keys import PublicKey, SigningKey
from sealwire.probe.seal.tree import NotInTree, frame, path, root_of_path, split

#: Bounds of one segment: whichever is reached first ends it.
SEGMENT_EVENTS: Final = 16_384
SEGMENT_BYTES: Final = 512 * 1024
#: Bytes of an encoded segment that a reader accepts; leaves of 512 KiB, a last long one and the header.
SEGMENT_MAXIMUM_BYTES: Final = 1024 * 1024

VERSION: Final = 1
# COSE header parameters of RFC 9942 section 4.
_VDS, _VDP = 395, 396
_RFC9162_SHA256: Final = 1
_INCLUSION: Final = -1
_LABEL: Final = "sealwire"
_ELEMENTS: Final = 12


class ClockState(enum.IntEnum):
    """What the kernel says of the probe's clock."""

    UNKNOWN = 0
    SYNCHRONISED = 1
    UNSYNCHRONISED = 2


@dataclass(frozen=True, slots=True)
class Moment:
    """A reading of the clocks, in nanoseconds: since 1970, and since the machine started."""

    wall: int
    uptime: int
    state: ClockState = ClockState.UNKNOWN
    #: The kernel's bound of the clock's error, microseconds.
    error: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What the protected header of a segment says."""

    algorithm: int
    key: bytes
    probe: bytes
    boot: bytes
    segment: int
    first_event: int
    last_event: int
    #: Chain hash of the segment before; None for a probe's first.
    previous: bytes | None
    #: Earliest and latest packet time in it: ends of flows, times of transactions; None without them.
    times: tuple[int, int] | None
    sealed: Moment
    #: A segment comes at least this often, seconds.
    heartbeat: int
    #: Totals since the signer started, drops of every kind included.
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """How many events the segment has."""
        return self.last_event - self.first_event + 1

    def encode(self) -> bytes:
        """The protected header, as signed."""
        sealed = self.sealed
        info = {
            1: VERSION,
            2: self.probe,
            3: self.boot,
            4: self.segment,
            5: self.first_event,
            6: self.last_event,
            7: self.previous,
            8: list(self.times) if self.times else None,
            9: [sealed.wall, sealed.uptime],
            10: [int(sealed.state), sealed.error],
            11: self.heartbeat,
            12: self.counters,
        }
        return cbor.encode({ALGORITHM: self.algorithm, KEY_ID: self.key, _VDS: _RFC9162_SHA256, _LABEL: info})

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """The header of signed bytes.  Raises Malformed."""
        try:
            outer = cbor.decode(data)
            if not isinstance(outer, dict) or set(outer) != {ALGORITHM, KEY_ID, _VDS, _LABEL}:
                raise Malformed("a protected header with other parameters than a segment's")
            info = outer[_LABEL]
            if outer[_VDS] != _RFC9162_SHA256 or not isinstance(info, dict):
                raise Malformed("another data structure than RFC 9162's")
            if info.get(1) != VERSION or set(info) != set(range(1, _ELEMENTS + 1)):
                raise Malformed("a segment of another version")
            wall, uptime = _numbers(info[9], 2)
            state, error = _numbers(info[10], 2)
            earliest_latest = None if info[8] is None else _numbers(info[8], 2, signed=True)
            counters = info[12]
            if not isinstance(counters, dict) or not all(
                isinstance(name, str) and _is_number(value) for name, value in counters.items()
            ):
                raise Malformed("counters are numbers under names")
            numbers = _numbers([info[4], info[5], info[6], info[11]], 4)
            for value, n in ((outer[KEY_ID], 32), (info[2], 32), (info[3], 16), (info[7] or bytes(32), 32)):
                if not isinstance(value, bytes) or len(value) != n:
                    raise Malformed("an id or a hash of a wrong length")
            if type(outer[ALGORITHM]) is not int or numbers[2] < numbers[1] or info[7] == b"":
                raise Malformed("a header that contradicts itself")
            return cls(
                algorithm=outer[ALGORITHM],
                key=outer[KEY_ID],
                probe=info[2],
                boot=info[3],
                segment=numbers[0],
                first_event=numbers[1],
                last_event=numbers[2],
                previous=info[7],
                times=None if earliest_latest is None else (earliest_latest[0], earliest_latest[1]),
                sealed=Moment(wall, uptime, ClockState(state), error),
                heartbeat=numbers[3],
                counters=counters,
            )
        except Malformed:
            raise
        except ValueError as wrong:
            raise Malformed(str(wrong)) from None


def _is_number(value: Any, signed: bool = False) -> bool:
    return type(value) is int and (value >= 0 or signed)


def _numbers(value: Any, n: int, signed: bool = False) -> list[int]:
    if not isinstance(value, list) or len(value) != n or not all(_is_number(part, signed) for part in value):
        raise Malformed("numbers are missing")
    return value


@dataclass(frozen=True, slots=True)
class Segment:
    """A decoded segment.  Decoding checks its form, not its truth: see `sealwire.probe.verify`."""

    header: Header
    protected: bytes = field(repr=False)
    root: bytes
    signature: bytes = field(repr=False)
    #: Leaves, each in a byte string.
    framed: bytes = field(repr=False)
    #: How many leaves the array claims.
    count: int

    @property
    def signed(self) -> bytes:
        """The COSE_Sign1, tagged."""
        return Sign1(self.protected, EMPTY_MAP, self.root, self.signature).encode()

    @property
    def hash(self) -> bytes:
        """The chain hash: what the next segment names as the one before.  32 bytes."""
        return hashlib.sha256(self.signed).digest()

    def encode(self) -> bytes:
        """The segment as stored."""
        return b"\x82" + self.signed + cbor.head(4, self.count) + self.framed

    @classmethod
    def decode(cls, data: bytes) -> Segment:
        """The one segment that is all of `data`.  Raises Malformed."""
        if data[:1] != b"\x82":
            raise Malformed("these bytes do not begin as a segment does")
        signed, at = read(data, 1)
        try:
            major, count, at = cbor.read_head(data, at)
        except ValueError as wrong:
            raise Malformed(str(wrong)) from None
        if signed.unprotected != EMPTY_MAP:
            raise Malformed("an unprotected header that is not empty")
        if signed.payload is None or len(signed.payload) != 32 or major != 4:
            raise Malformed("a segment is a signed root and an array of leaves")
        header = Header.decode(signed.protected)
        return cls(header, signed.protected, signed.payload, signed.signature, data[at:], count)

    def leaves(self) -> list[bytes]:
        """The leaves.  Raises ValueError where they are not framed."""
        return split(self.framed)

    def authentic(self, key: PublicKey) -> bool:
        """Whether `key` signed this header and root."""
        if self.header.algorithm != key.algorithm:
            return False
        return key.verify(self.signature, to_be_signed(self.protected, self.root))


def seal(header: Header, framed: bytes, count: int, key: SigningKey) -> Segment:
    """Sign leaves under a header that names their number and this key."""
    assert count == header.events, "a header counts the leaves below it"
    protected = header.encode()
    payload = root(leaf_hashes(framed))
    signature = key.sign(to_be_signed(protected, payload))
    return Segment(header, protected, payload, signature, framed, count)


# Proofs of one event.


def prove(segment: Segment, index: int) -> bytes:
    """A proof of one event: ``[leaf, receipt]``, the receipt of inclusion being RFC 9942's section 5.2.

    The receipt is the segment's own signature with the root left out, so that who checks it must
    compute the root from the leaf and the path.  Raises IndexError.
    """
    leaf = segment.leaves()[index]
    inclusion = cbor.encode([segment.count, index, path(leaf_hashes(segment.framed), index)])
    unprotected = cbor.encode({_VDP: {_INCLUSION: [inclusion]}})
    receipt = Sign1(segment.protected, unprotected, None, segment.signature)
    return b"\x82" + frame(leaf) + receipt.encode()


@dataclass(frozen=True, slots=True)
class Proof:
    """A decoded proof of one event."""

    leaf: bytes
    header: Header
    protected: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    size: int
    index: int
    path: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def decode(cls, data: bytes) -> Proof:
        """The one proof that is all of `data`.  Raises Malformed."""
        if data[:1] != b"\x82":
            raise Malformed("these bytes are no proof")
        try:
            major, n, at = cbor.read_head(data, 1)
            leaf, at = data[at : at + n], at + n
            receipt, end = read(data, at)
            if major != 2 or receipt.payload is not None or end != len(data):
                raise Malformed("a proof is an event and a receipt whose root is left out")
            match cbor.decode(receipt.unprotected):
                case {396: {-1: [bytes(inclusion)], **other}, **more} if not other and not more:
                    size, index, proof = cbor.decode(inclusion)
                case _:
                    raise Malformed("a receipt without one proof of inclusion")
            _numbers([size, index], 2)
            if not isinstance(proof, list) or len(proof) > 64:
                raise Malformed("a path of hashes is missing")
            if not all(isinstance(node, bytes) and len(node) == 32 for node in proof):
                raise Malformed("a path of hashes is missing")
        except Malformed:
            raise
        except (ValueError, TypeError) as wrong:
            raise Malformed(str(wrong)) from None
        header = Header.decode(receipt.protected)
        return cls(leaf, header, receipt.protected, receipt.signature, size, index, tuple(proof))

    def authentic(self, key: PublicKey) -> bool:
        """Whether `key` signed a segment in which this leaf has the place that it claims."""
        header, payload = self.header, self._root()
        if payload is None or self.size != header.events or header.algorithm != key.algorithm:
            return False
        return key.verify(self.signature, to_be_signed(self.protected, payload))

    @property
    def segment_hash(self) -> bytes:
        """Chain hash of the segment, if this is a proof of it: what a receiver wrote down when it came."""
        signed = Sign1(self.protected, EMPTY_MAP, self._root(), self.signature)
        return hashlib.sha256(signed.encode()).digest()

    def _root(self) -> bytes | None:
        try:
            return root_of_path(self.leaf, self.index, self.size, list(self.path))
        except NotInTree:
            return None
