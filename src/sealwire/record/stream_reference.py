"""Stream records in plain Python: the oracle for the compiled ones, and their stand-in.

Numbers are implied and nothing is masked; the first record that fails is the last one.
"""

from __future__ import annotations

from typing import NoReturn

from sealwire.crypto.hkdf import TrafficKeys
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.suites import SuiteSpec
from sealwire.errors import Alert, ProtocolError
from sealwire.record.bounds import (
    MAX_CONTENT_BYTES,
    MAX_INNER_BYTES,
    MAX_STREAM_SEQUENCE,
    STREAM_HEADER_BYTES,
    block_padding,
    check_block,
    check_content,
    check_start,
    internal_error,
)
from sealwire.record.header import Buffer
from sealwire.record.reference import APPLICATION_DATA, nonce_of, whole


class StreamSealer:
    """Protects TLS 1.3 records of one sending epoch (RFC 8446 section 5.2).

    Attributes:
        epoch: the epoch.
        sequence: number of the next record.
        sealed: records sealed with these keys.
        seal_limit: records these keys may seal.
    """

    __slots__ = ("__weakref__", "_aead", "_iv", "_tag_bytes", "epoch", "seal_limit", "sealed", "sequence")

    def __init__(
        self, provider: CryptoProvider, spec: SuiteSpec, keys: TrafficKeys, epoch: int, *, sequence: int = 0
    ) -> None:
        """`sequence` is where numbering starts; a number must never be used twice with the same keys."""
        check_start(b"", sequence, 0, MAX_STREAM_SEQUENCE + 1)
        self._aead = provider.aead(spec, keys.key)
        self._iv = int.from_bytes(keys.iv, "big")
        self._tag_bytes = spec.tag_bytes
        self.epoch = epoch
        self.sequence = sequence
        self.sealed = 0
        self.seal_limit = spec.seal_limit

    def seal(self, content_type: int, content: Buffer, padding: int = 0) -> bytes:
        """One record of `content` with `padding` zero bytes behind its type.

        Raises:
            ValueError: content and padding are longer than 2^14 bytes, or the type is 0.
            ProtocolError: internal_error, numbers are used up.
        """
        content = whole(content)
        check_content(content_type, len(content) + padding, padding)
        return self._seal(self._reserve(1), content_type, content, padding)

    def seal_run(
        self,
        content_type: int,
        data: Buffer,
        limit: int = MAX_CONTENT_BYTES,
        block: int = 0,
        longest: int = MAX_INNER_BYTES,
    ) -> bytes:
        """`data` in as few records as `limit` bytes of content each allow, one behind the other.

        No data gives no record.  Padding is as for :meth:`Sealer.seal_run`.
        """
        check_block(block, longest)
        if not 1 <= limit <= MAX_CONTENT_BYTES:
            raise ValueError(f"records of {limit} bytes are not in 1..{MAX_CONTENT_BYTES}")
        check_content(content_type, 0, 0)
        view = memoryview(whole(data))
        starts = range(0, len(view), limit)
        first = self._reserve(len(starts))
        parts = [view[start : start + limit] for start in starts]
        return b"".join(
            self._seal(first + n, content_type, part, block_padding(len(part), block, longest))
            for n, part in enumerate(parts)
        )

    def __reduce__(self) -> NoReturn:
        # A copy would use its numbers a second time with the same keys.
        raise TypeError(f"a {type(self).__name__} cannot be copied")

    def _reserve(self, n: int) -> int:
        first = self.sequence
        # RFC 8446 section 5.3 [8446-ALERT-6]: sequence numbers must not wrap.
        if n > MAX_STREAM_SEQUENCE + 1 - first:
            raise internal_error(f"record numbers of epoch {self.epoch} are used up")
        self.sequence = first + n
        self.sealed += n
        return first

    def _seal(self, sequence: int, content_type: int, content: Buffer, padding: int) -> bytes:
        inner = bytearray(content)
        inner.append(content_type)
        inner += bytes(padding)
        # RFC 8446 section 5.2: every protected record looks like TLS 1.2 application data.
        header = b"\x17\x03\x03" + (len(inner) + self._tag_bytes).to_bytes(2, "big")
        return header + self._aead.seal(nonce_of(self._iv, sequence), bytes(inner), header)


class StreamOpener:
    """Opens TLS 1.3 records of one receiving epoch (RFC 8446 section 5.2).

    Attributes:
        epoch: the epoch.
        sequence: number of the next record.
        opened: records opened with these keys.
        inner_limit: content, type and padding of a record at most (RFC 8449).
    """

    __slots__ = (
        "__weakref__",
        "_aead",
        "_broken",
        "_iv",
        "_tag_bytes",
        "epoch",
        "inner_limit",
        "opened",
        "sequence",
    )

    def __init__(
        self, provider: CryptoProvider, spec: SuiteSpec, keys: TrafficKeys, epoch: int, *, sequence: int = 0
    ) -> None:
        check_start(b"", sequence, 0, MAX_STREAM_SEQUENCE + 1)
        self._aead = provider.aead(spec, keys.key)
        self._iv = int.from_bytes(keys.iv, "big")
        self._tag_bytes = spec.tag_bytes
        self._broken = False
        self.epoch = epoch
        self.sequence = sequence
        self.opened = 0
        self.inner_limit = MAX_INNER_BYTES

    def open(self, record: Buffer) -> tuple[int, bytes]:
        """Type and content of one whole record, header included.

        Raises:
            ProtocolError: bad_record_mac, record_overflow, unexpected_message (no protected
                record, or one of padding only), decode_error (header and length disagree).  The
                first one is final: every later record is refused with bad_record_mac.
        """
        if self._broken:
            raise stream_error(Alert.BAD_RECORD_MAC, "a record failed before; the stream is broken")
        self._broken = True
        record = whole(record)
        n = len(record) - STREAM_HEADER_BYTES
        if n < 0 or (record[3] << 8 | record[4]) != n:
            raise stream_error(Alert.DECODE_ERROR, "record and its length disagree")
        if record[0] != APPLICATION_DATA:
            raise stream_error(Alert.UNEXPECTED_MESSAGE, "record is not protected")
        # RFC 8446 section 5.2 allows 256 bytes over the content; section 5.4 then allows one.
        # RFC 8449 section 4 [8449-1]: or what was agreed on.
        if n > self.inner_limit + self._tag_bytes:
            raise stream_error(Alert.RECORD_OVERFLOW, "record is longer than it may be")
        if self.sequence > MAX_STREAM_SEQUENCE:
            raise internal_error(f"record numbers of epoch {self.epoch} are used up")
        inner = None
        if n >= self._tag_bytes:
            inner = self._aead.open(
                nonce_of(self._iv, self.sequence),
                record[STREAM_HEADER_BYTES:],
                record[:STREAM_HEADER_BYTES],
            )
        if inner is None:
            raise stream_error(Alert.BAD_RECORD_MAC, "record failed authentication")
        self.sequence += 1
        self.opened += 1
        content = inner.rstrip(b"\0")
        # RFC 8446 section 5.4: a record of zeros only has no type.
        if not content:
            raise stream_error(Alert.UNEXPECTED_MESSAGE, "record holds only padding")
        self._broken = False
        return content[-1], content[:-1]

    def open_run(
        self, data: Buffer, start: int, received: bytearray
    ) -> tuple[int, int, tuple[int, bytes] | None]:
        """Open the whole records of `data` from offset `start`; application data goes behind `received`.

        Ends before a record that is not whole or not protected, and behind one of another inner type.

        Returns:
            The offset where it ended, how many records with application data there were, and type and
            content of the record of another type, if there was one.

        Raises:
            ProtocolError: as for :meth:`open`; what came before is in `received`.
        """
        view = memoryview(data)
        if not 0 <= start <= len(view):
            raise ValueError(f"offset {start} is not in 0..{len(view)}")
        if self._broken:
            raise stream_error(Alert.BAD_RECORD_MAC, "a record failed before; the stream is broken")
        at, messages = start, 0
        while len(view) - at >= STREAM_HEADER_BYTES and view[at] == APPLICATION_DATA:
            n = view[at + 3] << 8 | view[at + 4]
            if n > self.inner_limit + self._tag_bytes:
                self._broken = True
                raise stream_error(Alert.RECORD_OVERFLOW, "record is longer than it may be")
            end = at + STREAM_HEADER_BYTES + n
            if end > len(view):
                break
            content_type, content = self.open(view[at:end])
            at = end
            if content_type != APPLICATION_DATA:
                return at, messages, (content_type, content)
            received += content
            messages += len(content) > 0
        return at, messages, None


def stream_error(alert: Alert, reason: str) -> ProtocolError:
    """The fatal error of a stream's opener."""
    return ProtocolError(alert, reason)
