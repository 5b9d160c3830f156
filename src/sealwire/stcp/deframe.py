"""From bytes to records, and from records to handshake messages; both bounded.

A TCP read cuts the stream anywhere.  :class:`Deframer` gives each whole record in place, as a
view of what was read, and keeps only the beginning of one record between reads; a length is judged
as soon as the five header bytes are there, so what is held grows with bytes received and never
above one record.  :class:`MessageJoiner` does the same for handshake messages, which may share
records or be split over them.  Neither knows keys or states.
"""

from __future__ import annotations

from typing import Final

from sealwire.errors import Alert, ProtocolError
from sealwire.wire import Buffer

HEADER_BYTES: Final = 5

# Content types (RFC 8446 section 5.1).
CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23

#: RFC 8446 section 5.1: TLSPlaintext.length must not exceed 2^14.
PLAINTEXT_LIMIT_BYTES: Final = 1 << 14
#: RFC 8446 section 5.2: TLSCiphertext.length must not exceed 2^14 + 256.
CIPHERTEXT_LIMIT_BYTES: Final = (1 << 14) + 256

# A record of protected content always has the outer type application_data (RFC 8446 section 5.2).
_LIMITS: Final = {
    CHANGE_CIPHER_SPEC: PLAINTEXT_LIMIT_BYTES,
    ALERT: PLAINTEXT_LIMIT_BYTES,
    HANDSHAKE: PLAINTEXT_LIMIT_BYTES,
    APPLICATION_DATA: CIPHERTEXT_LIMIT_BYTES,
}

_MESSAGE_HEADER_BYTES: Final = 4


class Deframer:
    """Cuts a byte stream into records."""

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial = bytearray()

    @property
    def held(self) -> int:
        """Bytes of an unfinished record kept for later."""
        return len(self._partial)

    @property
    def missing(self) -> int:
        """Bytes still missing to the end of the record in progress, or to that of its header."""
        held = len(self._partial)
        if held < HEADER_BYTES:
            return HEADER_BYTES - held
        return HEADER_BYTES + _body_bytes(self._partial) - held

    def take(self, view: memoryview, at: int) -> tuple[memoryview | None, int]:
        """The record that begins at offset `at` of what was read, header included, and the offset behind it.

        If the beginning of a record is kept, `at` is where that one goes on.  Where it is not whole, None
        and the end of `view`: its beginning is kept then.

        Raises:
            ProtocolError: unexpected_message for a type that is no record's, record_overflow for a
                length above the protocol's; both before any byte of such a record is kept.
        """
        if self._partial:
            at = self._fill(view, at, HEADER_BYTES)
            whole = HEADER_BYTES + _body_bytes(self._partial)
            if len(self._partial) < HEADER_BYTES or len(self._partial) + len(view) - at < whole:
                self._partial += view[at:]
                return None, len(view)
            at = self._fill(view, at, whole)
            record, self._partial = self._partial, bytearray()
            return memoryview(record), at
        if at == len(view):
            return None, at
        end = at + HEADER_BYTES + _body_bytes(view[at : at + HEADER_BYTES])
        if len(view) - at < HEADER_BYTES or end > len(view):
            self._partial += view[at:]
            return None, len(view)
        return view[at:end], end

    def _fill(self, view: memoryview, at: int, size: int) -> int:
        """Move bytes of `view` from `at` until the partial record has `size`; where it stopped."""
        end = at + max(0, min(size - len(self._partial), len(view) - at))
        self._partial += view[at:end]
        return end


def _body_bytes(header: Buffer) -> int:
    """The body length a header declares, 0 while it is not complete; its type is judged at once.

    The version bytes are not looked at (RFC 8446 section 5.1: legacy_record_version is ignored).
    """
    limit = _LIMITS.get(header[0])
    if limit is None:
        # A peer speaking something else is told on its first byte, not after 16 KiB of it.
        raise ProtocolError(Alert.UNEXPECTED_MESSAGE, f"a record cannot have type {header[0]}")
    if len(header) < HEADER_BYTES:
        return 0
    length = (header[3] << 8) | header[4]
    if length > limit:
        # RFC 8446 sections 5.1 and 5.2 [8446-ALERT-5].
        raise ProtocolError(Alert.RECORD_OVERFLOW, f"a record of {length} bytes is above {limit}")
    return length


class MessageJoiner:
    """Joins the contents of handshake records into messages of at most `limit` bytes."""

    __slots__ = ("_buffer", "limit")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self.limit = limit

    @property
    def held(self) -> int:
        """Bytes that belong to a message not yet taken by :meth:`message`."""
        return len(self._buffer)

    def feed(self, content: Buffer) -> None:
        """Append the content of one handshake record."""
        self._buffer += content

    def message(self) -> bytes | None:
        """The next whole message in TLS form; None when more bytes are needed.

        Raises:
            ProtocolError: the header declares more than `limit`; raised when the header is there.
        """
        buffer = self._buffer
        if len(buffer) < _MESSAGE_HEADER_BYTES:
            return None
        size = _MESSAGE_HEADER_BYTES + int.from_bytes(buffer[1:4], "big")
        if size > self.limit:
            reason = f"a handshake message of {size} bytes is above the limit handshake_message_bytes"
            raise ProtocolError(Alert.ILLEGAL_PARAMETER, reason, "handshake_message_bytes")
        if len(buffer) < size:
            return None
        message = bytes(memoryview(buffer)[:size])
        del buffer[:size]
        return message
