"""DTLS on the wire: plaintext records, handshake fragments, ACKs (RFC 9147 sections 4, 5.2, 7).

Ciphertext headers belong to the record layer, which unmasks and authenticates them; here is what
can be read without keys, and what is inside a record once it is opened.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from sealwire.errors import Discard, ProtocolError
from sealwire.tls13.messages import KINDS, HandshakeType
from sealwire.wire import Buffer, Reader, Writer, decode_error


class ContentType(enum.IntEnum):
    """Content types of DTLS 1.3 (RFC 9147 section 4.1)."""

    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23
    ACK = 26
    RETURN_ROUTABILITY = 27  # RFC 9853

    # Members are equal to their numbers, so they hash like them; Enum's own hash is a Python call.
    __hash__ = int.__hash__


PLAINTEXT_HEADER_BYTES: Final = 13
FRAGMENT_HEADER_BYTES: Final = 12
RECORD_NUMBER_BYTES: Final = 16
MAX_CONTENT_BYTES: Final = 1 << 14
# RFC 9147 section 4.1 [9147-4.1-1]: the only first bytes of a plaintext record.
_PLAINTEXT_TYPES: Final = frozenset((ContentType.ALERT, ContentType.HANDSHAKE, ContentType.ACK))
# RFC 9147 section 4.2.1 [9147-4-1]: record numbers have 48 bits.
MAX_SEQUENCE: Final = (1 << 48) - 1
# RFC 9147 section 4 [9147-4-2]
RECORD_VERSION: Final = 0xFEFD


class RecordNumber(NamedTuple):
    """Epoch and sequence number; orders as RFC 9147 section 4 does."""

    epoch: int
    sequence: int


def may_be_hello(datagram: Buffer) -> bool:
    """Whether a datagram begins with a plaintext record holding (part of) a ClientHello."""
    return datagram[0] == ContentType.HANDSHAKE and len(datagram) > 13 and datagram[13] == 1


def is_ciphertext(first_byte: int) -> bool:
    """Whether a record starting with this byte is a protected one (RFC 9147 section 4.1 [9147-4.1-2])."""
    return first_byte & 0xE0 == 0x20


@dataclass(frozen=True, slots=True)
class PlaintextRecord:
    """One record of epoch 0, and where the next one begins in its datagram."""

    content_type: int
    sequence: int
    content: bytes
    end: int


def decode_plaintext(datagram: Buffer, offset: int) -> PlaintextRecord | Discard:
    """The record at `offset`; a Discard means that the rest of the datagram is dropped."""
    if datagram[offset] not in _PLAINTEXT_TYPES:
        # RFC 9147 section 4.1 [9147-4.1-3]: as if it had failed to open.
        return Discard.NOT_DTLS
    body = offset + PLAINTEXT_HEADER_BYTES
    if body > len(datagram):
        return Discard.TRUNCATED_HEADER
    # RFC 9147 section 4 [9147-4-3]: the version, bytes 1 and 2, is ignored.
    number = int.from_bytes(datagram[offset + 3 : offset + 11], "big")
    n = int.from_bytes(datagram[offset + 11 : body], "big")
    if n > MAX_CONTENT_BYTES:
        return Discard.OVERSIZED_RECORD
    if body + n > len(datagram):
        # RFC 9147 section 4.3 [9147-4.3-5]
        return Discard.TRUNCATED_RECORD
    if number > MAX_SEQUENCE:
        # A plaintext record is of epoch 0.
        return Discard.UNKNOWN_EPOCH
    return PlaintextRecord(datagram[offset], number, bytes(datagram[body : body + n]), body + n)


def encode_plaintext(content_type: int, sequence: int, content: Buffer) -> bytes:
    """A record of epoch 0; its number is not masked (RFC 9147 section 4.2.3 [9147-4.2.3-6])."""
    writer = Writer()
    writer.u8(content_type)
    writer.u16(RECORD_VERSION)
    writer.u16(0)
    writer.u48(sequence)
    writer.vector16(content)
    return writer.finish()


@dataclass(frozen=True, slots=True)
class Fragment:
    """Part of a handshake message (RFC 9147 section 5.2); `length` is the whole message's."""

    kind: HandshakeType
    length: int
    message_seq: int
    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)

    @property
    def whole(self) -> bool:
        return self.offset == 0 and len(self.data) == self.length


def decode_fragments(content: Buffer) -> list[Fragment]:
    """All fragments of one record [9147-5.5-8]; ProtocolError(decode_error) if they do not fill it."""
    reader = Reader(content, "handshake fragment")
    fragments = []
    while True:
        number = reader.u8()
        kind = KINDS.get(number) or HandshakeType(number)
        length = reader.u24()
        message_seq = reader.u16()
        offset = reader.u24()
        data = reader.vector24()
        if offset + len(data) > length or (length and not data):
            # The bytes lie outside the message, or the fragment is an empty one of a message that
            # is not: it makes no progress and is refused [8446-ALERT-4].
            raise decode_error("handshake fragment")
        fragments.append(Fragment(kind, length, message_seq, offset, data))
        if not reader.remaining:
            return fragments


def fragment_header(kind: int, length: int, message_seq: int, offset: int, n: int) -> bytes:
    """The twelve bytes before a fragment of `n` bytes."""
    return (
        bytes((kind,))
        + length.to_bytes(3, "big")
        + message_seq.to_bytes(2, "big")
        + offset.to_bytes(3, "big")
        + n.to_bytes(3, "big")
    )


def decode_ack(content: Buffer) -> list[tuple[int, int]]:
    """Epochs and sequence numbers an ACK names (RFC 9147 section 7 [9147-7-1]); empty is allowed."""
    reader = Reader(content, "ACK")
    numbers = reader.sub16()
    reader.finish()
    if numbers.remaining % RECORD_NUMBER_BYTES:
        raise decode_error("ACK")
    # Plain pairs, made in C: four thousand fit into a datagram.
    values = numbers.u64s()
    return list(zip(values[::2], values[1::2], strict=True))


def encode_ack(numbers: Iterable[tuple[int, int]]) -> bytes:
    """An ACK of these record numbers, in increasing order."""
    writer = Writer()
    with writer.length16():
        for epoch, sequence in sorted(numbers):
            writer.u64(epoch)
            writer.u64(sequence)
    return writer.finish()


def decode_alert(content: Buffer) -> tuple[int, int]:
    """Level and description; decode_error unless the record is one alert [8446-ALERT-1]."""
    reader = Reader(content, "alert")
    level, description = reader.u8(), reader.u8()
    reader.finish()
    return level, description


__all__ = [
    "ContentType",
    "Fragment",
    "PlaintextRecord",
    "ProtocolError",
    "RecordNumber",
    "decode_ack",
    "decode_alert",
    "decode_fragments",
    "decode_plaintext",
    "encode_ack",
    "encode_plaintext",
    "fragment_header",
    "is_ciphertext",
]
