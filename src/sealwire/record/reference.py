"""Record protection in plain Python: the oracle for the compiled path, and its stand-in.

A sealer turns (type, content) into records of one epoch; an opener turns datagrams into entries
``(type, sequence, content)``.  Opening a record is always the same walk (RFC 9147 section 4):
header, take the mask off the number, complete the number, authenticate, and only then look at
the replay window and the padding.  Nothing changes for a record that does not authenticate,
except the count of forgeries.

What cannot be opened is not an error: its entry is ``(-n, 0, b"")`` and ``DISCARDS[n]`` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

from sealwire.crypto.hkdf import TrafficKeys
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.suites import SuiteSpec
from sealwire.errors import Discard
from sealwire.record.bounds import (
    MAX_INNER_BYTES,
    SAMPLE_BYTES,
    block_padding,
    check_block,
    check_content,
    check_start,
    internal_error,
)
from sealwire.record.header import (
    MAX_SEQUENCE,
    Buffer,
    CiphertextHeader,
    parse_ciphertext_header,
    reconstruct,
)

Entry = tuple[int, int, bytes]

APPLICATION_DATA: Final = 23
#: Reasons for dropping a record, by the number in its entry.  Zero is no reason.
DISCARDS: Final[tuple[Discard, ...]] = (
    Discard.NOT_DTLS,  # never in an entry: an opener stops in front of such a byte
    Discard.EMPTY,
    Discard.TRUNCATED_HEADER,
    Discard.TRUNCATED_RECORD,
    Discard.SHORT_CIPHERTEXT,
    Discard.OVERSIZED_RECORD,
    Discard.UNKNOWN_CID,
    Discard.AUTHENTICATION,
    Discard.REPLAY,
    Discard.TOO_OLD,
    Discard.EMPTY_CONTENT,
)
_DROPPED: Final[dict[Discard, Entry]] = {reason: (-n, 0, b"") for n, reason in enumerate(DISCARDS) if n > 0}


def whole(data: Buffer) -> bytes:
    """`data` as bytes, whatever its buffer counts in."""
    return data if isinstance(data, bytes) else bytes(memoryview(data))


def nonce_of(iv: int, sequence: int) -> bytes:
    # RFC 8446 section 5.3: the number, padded on the left, over the IV.  RFC 9147 section 4
    # [9147-4-10]: the epoch is no part of it.
    return (iv ^ sequence).to_bytes(12, "big")


class Sealer:
    """Protects records of one DTLS 1.3 sending epoch (RFC 9147 section 4).

    Content too short to mask its number with (below 7 bytes, with 8-byte tags only) is padded.

    Attributes:
        epoch: the epoch.
        sequence: number of the next record.
        sealed: records sealed with these keys.
        overhead: bytes a record adds to its content: header with 16-bit number and length,
            connection id, type byte, tag.
        seal_limit: records these keys may seal (RFC 9147 section 4.5.3).
    """

    __slots__ = (
        "__weakref__",
        "_aead",
        "_cid",
        "_iv",
        "_least",
        "_mask",
        "_tag_bytes",
        "epoch",
        "overhead",
        "seal_limit",
        "sealed",
        "sequence",
    )

    def __init__(
        self,
        provider: CryptoProvider,
        spec: SuiteSpec,
        keys: TrafficKeys,
        epoch: int,
        cid: bytes = b"",
        *,
        sequence: int = 0,
    ) -> None:
        """`sequence` is where numbering starts; anything but 0 is for keys used before.

        A number must never be used twice with the same keys.

        Raises:
            ValueError: keys or connection id of a wrong length, a start no number can have.
        """
        check_start(cid, sequence, 0, MAX_SEQUENCE + 1)
        self._aead = provider.aead(spec, keys.key)
        self._mask = provider.mask(spec, keys.sn_key)
        self._iv = int.from_bytes(keys.iv, "big")
        self._cid = bytes(cid)
        self.epoch = epoch
        self.sequence = sequence
        self.sealed = 0
        self._tag_bytes = spec.tag_bytes
        # RFC 9147 section 4.2.3 [9147-4.2.3-4]: content and padding that make a whole sample.
        self._least = max(SAMPLE_BYTES - spec.tag_bytes - 1, 0)
        self.overhead = 1 + len(cid) + 2 + 2 + 1 + spec.tag_bytes
        self.seal_limit = spec.seal_limit

    @property
    def cid(self) -> bytes:
        """The connection id in the records made from now on; setting it changes `overhead`."""
        return self._cid

    @cid.setter
    def cid(self, cid: bytes) -> None:
        check_start(cid, 0, 0, 0)
        self.overhead += len(cid) - len(self._cid)
        self._cid = bytes(cid)

    def seal(
        self,
        content_type: int,
        content: Buffer,
        padding: int = 0,
        *,
        short_sequence: bool = False,
        with_length: bool = True,
    ) -> bytes:
        """One record of `content` with `padding` zero bytes behind its type.

        `short_sequence` makes the number one byte; without a length the record must be the last
        of its datagram, and nothing here leaves it out (RFC 9147 section 4 [9147-4-5]).

        Raises:
            ValueError: content and padding are longer than 2^14 bytes, or the type is 0.
            ProtocolError: internal_error, numbers are used up.
        """
        content = whole(content)
        check_content(content_type, len(content) + padding, padding)
        return self._seal(self._reserve(1), content_type, content, padding, short_sequence, with_length)

    def seal_run(
        self,
        content_type: int,
        messages: Sequence[Buffer],
        block: int = 0,
        longest: int = MAX_INNER_BYTES,
    ) -> list[bytes]:
        """A record for each message, in order; see :meth:`seal`.

        Content and type are padded to a multiple of `block` bytes if it is above 1, but not beyond `longest`.
        """
        check_block(block, longest)
        check_content(content_type, 0, 0)
        contents = [whole(message) for message in messages]
        for content in contents:
            check_content(content_type, len(content), 0)
        first = self._reserve(len(contents))
        return [
            self._seal(
                first + n,
                content_type,
                content,
                block_padding(len(content), block, longest),
                False,
                True,
            )
            for n, content in enumerate(contents)
        ]

    def __reduce__(self) -> NoReturn:
        # A copy would use its numbers a second time with the same keys.
        raise TypeError(f"a {type(self).__name__} cannot be copied")

    def _reserve(self, n: int) -> int:
        # An error after this line wastes numbers and never uses one twice.
        first = self.sequence
        # RFC 9147 section 4.2.1 [9147-4.2.1-6]: stop rather than wrap.
        if n > MAX_SEQUENCE + 1 - first:
            raise internal_error(f"record numbers of epoch {self.epoch} are used up")
        self.sequence = first + n
        self.sealed += n
        return first

    def _seal(
        self,
        sequence: int,
        content_type: int,
        content: bytes,
        padding: int,
        short_sequence: bool,
        with_length: bool,
    ) -> bytes:
        cid = self._cid
        first = 0x20 | self.epoch & 0x03
        # RFC 9147 section 4 [9147-4-7]: a negotiated connection id is in every record.
        if cid:
            first |= 0x10
        if not short_sequence:
            first |= 0x08
        if with_length:
            first |= 0x04
        header = bytearray((first,))
        header += cid
        number_at = len(header)
        if short_sequence:
            header.append(sequence & 0xFF)
        else:
            header += (sequence & 0xFFFF).to_bytes(2, "big")
        padding = max(padding, self._least - len(content))
        inner_bytes = len(content) + 1 + padding
        if with_length:
            header += (inner_bytes + self._tag_bytes).to_bytes(2, "big")
        inner = bytearray(content)
        inner.append(content_type)
        inner += bytes(padding)
        # RFC 9147 section 4 [9147-4-10]: the associated data is the header before masking.
        body = self._aead.seal(nonce_of(self._iv, sequence), bytes(inner), bytes(header))
        # RFC 9147 section 4.2.3 [9147-4.2.3-1]: the first bytes of the mask over the number.
        mask = self._mask(body[:SAMPLE_BYTES])
        header[number_at] ^= mask[0]
        if not short_sequence:
            header[number_at + 1] ^= mask[1]
        return bytes(header) + body


class Opener:
    """Opens records of one DTLS 1.3 receiving epoch and refuses each number after its first use.

    Attributes:
        epoch: the epoch.
        highest: highest number opened, -1 before the first.
        opened: records that authenticated under these keys.
        forged: records that did not.
        forgery_limit: how many of those these keys stand (RFC 9147 section 4.5.3).
        inner_limit: content, type and padding of a record at most (RFC 8449); longer ones are dropped.
        overlong: authentic records that were longer.
        ahead: added to `highest` where the number of a record is completed; 0, except to look for a sender
            of whom more was lost than a number on the wire can say.
    """

    __slots__ = (
        "__weakref__",
        "_aead",
        "_cid",
        "_iv",
        "_keys",
        "_mask",
        "_seen",
        "_tag_bytes",
        "_window",
        "ahead",
        "epoch",
        "forged",
        "forgery_limit",
        "highest",
        "inner_limit",
        "opened",
        "overlong",
    )

    def __init__(
        self,
        provider: CryptoProvider,
        spec: SuiteSpec,
        keys: TrafficKeys,
        epoch: int,
        cid: bytes = b"",
        window: int = 256,
        *,
        highest: int = -1,
    ) -> None:
        """`window` is the reordering depth in records, a multiple of 64.

        `cid` is the connection id this side handed out, which every record must carry.
        `highest` stands for a window in which every number up to it was seen.

        Raises:
            ValueError: keys, connection id or window of a wrong length, a number out of range.
        """
        check_start(cid, highest, -1, MAX_SEQUENCE)
        if window <= 0 or window % 64:
            raise ValueError(f"replay window of {window} records is not a positive multiple of 64")
        self._aead = provider.aead(spec, keys.key)
        self._mask = provider.mask(spec, keys.sn_key)
        self._iv = int.from_bytes(keys.iv, "big")
        self._tag_bytes = spec.tag_bytes
        self._cid = bytes(cid)
        self._window = window
        # RFC 9147 section 4.5.1 [9147-4.5.1-1, 9147-4.5.1-5]: a window of an epoch's own; bit n stands for
        # the number `highest` - n.
        self._seen = (1 << window) - 1 if highest >= 0 else 0
        self._keys = keys  # for whoever folds it
        self.epoch = epoch
        # RFC 9147 section 4.5.1 [9147-4.5.1-2]: a new epoch starts at zero.
        self.highest = highest
        self.opened = 0
        self.forged = 0
        self.forgery_limit = spec.forgery_limit
        self.inner_limit = MAX_INNER_BYTES
        self.ahead = 0
        self.overlong = 0

    @property
    def cid(self) -> bytes:
        """The connection id records must carry; another of the same length may be set."""
        return self._cid

    @cid.setter
    def cid(self, cid: bytes) -> None:
        if len(cid) != len(self._cid):
            raise ValueError(f"a connection id of {len(cid)} bytes cannot follow one of {len(self._cid)}")
        self._cid = bytes(cid)

    def open_run(self, datagrams: Sequence[Buffer], index: int, offset: int) -> tuple[list[Entry], int, int]:
        """Open consecutive records of this epoch from `datagrams[index]` at `offset` on.

        The run ends in front of a record that is no ciphertext or has other epoch bits, and
        behind one that holds anything but application data, because that may change keys.

        Returns:
            The entries in order, and the index and offset where to resume; the index is
            ``len(datagrams)`` when all were used.
        """
        if index < 0 or offset < 0:
            raise ValueError("a run starts at an index and offset from 0 on")
        entries: list[Entry] = []
        for at in range(index, len(datagrams)):
            datagram = whole(datagrams[at])
            n = len(datagram)
            if n == 0:
                entries.append(_DROPPED[Discard.EMPTY])
            while offset < n:
                # RFC 9147 section 4.1 [9147-4.1-2]: the top three bits are 001.
                if datagram[offset] & 0xE3 != 0x20 | self.epoch & 0x03:
                    return entries, at, offset
                entry, offset = self._open(datagram, offset)
                entries.append(entry)
                if entry[0] >= 0 and entry[0] != APPLICATION_DATA:
                    if offset < n:
                        return entries, at, offset
                    return entries, at + 1, 0
            offset = 0
        return entries, max(index, len(datagrams)), 0

    def would_open(self, datagram: Buffer, offset: int) -> tuple[int, int]:
        """0 for a record that is new and authentic, else its reason's number in DISCARDS; and its end."""
        datagram = whole(datagram)
        header = parse_ciphertext_header(datagram, offset, len(self._cid))
        if isinstance(header, Discard):
            return DISCARDS.index(header), len(datagram)
        if header.cid != self._cid:
            return DISCARDS.index(Discard.UNKNOWN_CID), len(datagram)
        before = self.opened, self.forged, self.overlong, self.highest, self._seen
        entry = self._open_body(datagram, offset, header)
        opened = self.opened > before[0]
        self.opened, self.forged, self.overlong, self.highest, self._seen = before
        refused = (Discard.REPLAY, Discard.TOO_OLD) if opened else DISCARDS
        return -entry[0] if entry[0] < 0 and DISCARDS[-entry[0]] in refused else 0, header.end

    def _open(self, datagram: bytes, offset: int) -> tuple[Entry, int]:
        """One entry, and the offset behind it."""
        header = parse_ciphertext_header(datagram, offset, len(self._cid))
        if isinstance(header, Discard):
            return _DROPPED[header], len(datagram)
        # RFC 9147 section 4 [9147-4-9]: a foreign connection id condemns the rest of the datagram.
        if header.cid != self._cid:
            return _DROPPED[Discard.UNKNOWN_CID], len(datagram)
        # RFC 9147 section 4.5.2 [9147-4.5.2-1]: what follows drops this record only.
        return self._open_body(datagram, offset, header), header.end

    def _open_body(self, datagram: bytes, offset: int, header: CiphertextHeader) -> Entry:
        body = datagram[header.body_offset : header.end]
        # RFC 9147 section 4.2.3 [9147-4.2.3-3]: nothing to compute a mask from.
        if len(body) < SAMPLE_BYTES:
            return _DROPPED[Discard.SHORT_CIPHERTEXT]
        if len(body) > MAX_INNER_BYTES + self._tag_bytes:
            return _DROPPED[Discard.OVERSIZED_RECORD]
        mask = self._mask(body[:SAMPLE_BYTES])
        plain_header = bytearray(datagram[offset : header.body_offset])
        number_at = header.sequence_offset - offset
        low = 0
        for n in range(header.sequence_bytes):
            plain_header[number_at + n] ^= mask[n]
            low = low << 8 | plain_header[number_at + n]
        sequence = reconstruct(low, 8 * header.sequence_bytes, self.highest + self.ahead)
        inner = self._aead.open(nonce_of(self._iv, sequence), body, bytes(plain_header))
        if inner is None:
            # RFC 9147 section 4.5.3 [9147-4.5.3-3]: forgeries are counted per key.
            self.forged += 1
            return _DROPPED[Discard.AUTHENTICATION]
        self.opened += 1
        # RFC 9147 section 4.5.1 [9147-4.5.1-3, 9147-4.5.1-4, 9147-4.5.1-6]: the window is consulted and moved
        # after authentication only, so that neither time nor a forgery tells or changes it.
        behind = self.highest - sequence
        if behind >= self._window:
            return _DROPPED[Discard.TOO_OLD]
        if behind < 0:
            self._seen = (self._seen << min(-behind, self._window) | 1) & ((1 << self._window) - 1)
            self.highest = sequence
        elif self._seen >> behind & 1:
            return _DROPPED[Discard.REPLAY]
        else:
            self._seen |= 1 << behind
        # RFC 8449 section 4 [8449-1]: padding counts, as what a receiver must hold.
        if len(inner) > self.inner_limit:
            self.overlong += 1
            return _DROPPED[Discard.OVERSIZED_RECORD]
        # RFC 8446 section 5.4: the type is the last byte that is not zero.
        content = inner.rstrip(b"\0")
        if not content:
            return _DROPPED[Discard.EMPTY_CONTENT]
        return content[-1], sequence, content[:-1]
