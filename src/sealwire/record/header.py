"""The unified header of a protected DTLS record, and the number it shows a part of.

What can be read before a key is known (RFC 9147 section 4), and how the part of the record number in
a header becomes a whole number (section 4.2.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealwire.errors import Discard

Buffer = bytes | bytearray | memoryview

# RFC 9147 section 4.2.1 [9147-4.2.1-6]: numbers end here; they never wrap.
MAX_SEQUENCE: Final = (1 << 48) - 1


@dataclass(frozen=True, slots=True)
class CiphertextHeader:
    """The unified header of one record (RFC 9147 section 4), its number still masked.

    Offsets count from the start of the datagram.
    """

    epoch_bits: int
    cid: bytes
    sequence_offset: int
    sequence_bytes: int
    with_length: bool
    body_offset: int
    end: int


def parse_ciphertext_header(datagram: Buffer, offset: int, cid_length: int) -> CiphertextHeader | Discard:
    """Read the header at `offset`; a Discard when the rest of the datagram cannot be used.

    `cid_length` is the length in bytes of the connection ids this side handed out, 0 for none.
    The caller has seen that the first byte is one of 0x20..0x3F.
    """
    # RFC 9147 section 4 [9147-4-11]: 0 0 1, then C (connection id), S (16-bit number),
    # L (length present) and the two low bits of the epoch.
    first = datagram[offset]
    # RFC 9147 section 9.1 [9147-9.1-1]
    if bool(first & 0x10) != (cid_length > 0):
        return Discard.UNKNOWN_CID
    sequence_offset = offset + 1 + cid_length
    # RFC 9147 section 4 [9147-4-4]: senders may change between long and short numbers at any record.
    sequence_bytes = 2 if first & 0x08 else 1
    body_offset = sequence_offset + sequence_bytes
    with_length = bool(first & 0x04)
    if with_length:
        body_offset += 2
    if body_offset > len(datagram):
        return Discard.TRUNCATED_HEADER
    # RFC 9147 section 4 [9147-4-6]: a record without a length takes the rest of the datagram.
    end = len(datagram)
    if with_length:
        end = body_offset + (datagram[body_offset - 2] << 8 | datagram[body_offset - 1])
        # RFC 9147 section 4.3 [9147-4.3-5]: records do not span datagrams, so nothing is awaited.
        if end > len(datagram):
            return Discard.TRUNCATED_RECORD
    return CiphertextHeader(
        epoch_bits=first & 0x03,
        cid=bytes(datagram[offset + 1 : sequence_offset]),
        sequence_offset=sequence_offset,
        sequence_bytes=sequence_bytes,
        with_length=with_length,
        body_offset=body_offset,
        end=end,
    )


def reconstruct(low: int, bits: int, highest: int) -> int:
    """The record number ending in the `bits` bits `low` that lies closest to `highest` + 1.

    Never negative and never above MAX_SEQUENCE.
    """
    # RFC 9147 section 4.2.2 [9147-4.2.2-1, 9147-4.2.2-2]: closest to one plus the highest number opened.
    expected = highest + 1
    span = 1 << bits
    number = (expected & ~(span - 1)) | low
    if number + span // 2 < expected and number + span <= MAX_SEQUENCE:
        return number + span
    if number > MAX_SEQUENCE or (number > expected + span // 2 and number >= span):
        return number - span
    return number
