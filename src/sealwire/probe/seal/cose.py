"""COSE_Sign1 (RFC 9052 section 4.2) as segments, proofs and receipts use it: strictly one encoding."""

from __future__ import annotations

from typing import NamedTuple

from sealwire.probe.seal import cbor
from sealwire.probe.seal.tree import frame

#: COSE header parameters: RFC 9052 section 3.1.
ALGORITHM, KEY_ID = 1, 4
TAG_SIGN1 = b"\xd2"
EMPTY_MAP = b"\xa0"
_NULL = b"\xf6"


class Malformed(ValueError):
    """Bytes that are not what they should be: no segment, no proof, no receipt."""


class Sign1(NamedTuple):
    """The parts of a COSE_Sign1.  `unprotected` is an encoded map; a `payload` of None is left out."""

    protected: bytes
    unprotected: bytes
    payload: bytes | None
    signature: bytes

    def encode(self) -> bytes:
        """The COSE_Sign1, tagged."""
        payload = _NULL if self.payload is None else frame(self.payload)
        return (
            TAG_SIGN1 + b"\x84" + frame(self.protected) + self.unprotected + payload + frame(self.signature)
        )


def read(data: bytes, at: int) -> tuple[Sign1, int]:
    """The COSE_Sign1 at `at`, and where it ends.  Raises Malformed."""
    if data[at : at + 2] != TAG_SIGN1 + b"\x84":
        raise Malformed("no COSE_Sign1 begins here")
    try:
        protected, at = _bytes(data, at + 2)
        behind = cbor.skip(data, at)
        unprotected = data[at:behind]
        payload, at = (None, behind + 1) if data[behind : behind + 1] == _NULL else _bytes(data, behind)
        signature, at = _bytes(data, at)
    except Malformed:
        raise
    except ValueError as wrong:
        raise Malformed(str(wrong)) from None
    return Sign1(protected, unprotected, payload, signature), at


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    major, n, at = cbor.read_head(data, at)
    if major != 2 or n > len(data) - at:
        raise Malformed("a byte string is missing")
    return data[at : at + n], at + n


def to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """RFC 9052 section 4.4: the Sig_structure of a COSE_Sign1 without external data."""
    return cbor.encode(["Signature1", protected, b"", payload])
