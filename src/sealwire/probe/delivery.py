"""What an exporter and a collector say to each other: one STCP message each, of nine kinds.

    probe                                   collector
    Hello (who I am)                   ->
                                       <-   Welcome (last segment held, key of its receipts, credit)
    Segment, Segment, ... within credit ->
                                       <-   Receipt (durable), Credit (more), ...
    or at any time                     <-   Refused (why, and whether trying again may help)

A connection that enrols says Enrol instead, and hears Enrolled.  A message is a byte for its kind and
fields in network order; docs/probe/collect.md has the table.  Whatever bytes come, the outcome is
a message or BadMessage.  Nothing here reads a clock or a file.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar, Final

from sealwire.errors import Error, ProtocolError
from sealwire.probe.seal.segment import SEGMENT_MAXIMUM_BYTES
from sealwire.wire import Reader, Writer

#: What both sides negotiate, so that no other protocol is mistaken for this one.
APPLICATION: Final = "sealwire-collect"
VERSION: Final = 1
#: A segment of the longest content that does not compress at all, and what zstd adds to it.
FRAME_MAXIMUM_BYTES: Final = SEGMENT_MAXIMUM_BYTES + SEGMENT_MAXIMUM_BYTES // 256 + 64
MESSAGE_MAXIMUM_BYTES: Final = FRAME_MAXIMUM_BYTES + 16
#: A receipt of 4,096 segments takes 44 bytes for each, and its signature.
RECEIPT_MAXIMUM_BYTES: Final = 256 * 1024
_WORDS_MAXIMUM_BYTES: Final = 255
_KEY_MAXIMUM_BYTES: Final = 4096
_SIGNATURE_MAXIMUM_BYTES: Final = 8192
TOKEN_BYTES: Final = 16


class BadMessage(Error):
    """The other side said what is no message of this protocol, or not its turn."""


class Reason(enum.IntEnum):
    """Why a collector refuses.  Unknown numbers are taken as OTHER."""

    OTHER = 0
    VERSION = 1  #: it does not speak this version
    UNKNOWN_PROBE = 2  #: nobody enrolled that probe
    OTHER_IDENTITY = 3  #: the probe is enrolled under another certificate or key
    REVOKED = 4  #: it was, and is not any more
    BUSY = 5  #: no room for another probe now
    BAD_SEGMENT = 6  #: a segment is not what its signature says, or another probe's
    FORK = 7  #: another segment of that number is stored, or the chain does not continue
    FLOOD = 8  #: more was sent than credit allowed
    BAD_TOKEN = 9  #: the token of an enrolment is unknown, used or too old
    CLOSING = 10  #: it is about to end
    REPLACED = 11  #: the same probe connected again


#: After these another attempt may succeed by itself.
TEMPORARY: Final = frozenset((Reason.BUSY, Reason.CLOSING, Reason.REPLACED, Reason.OTHER))


@dataclass(frozen=True, slots=True)
class Hello:
    """Probe: who it is."""

    KIND: ClassVar[int] = 1

    version: int
    probe: bytes  #: 32 bytes, the id of its first sealing key
    software: str

    def write(self, w: Writer) -> None:
        w.u8(self.version)
        w.raw(self.probe)
        w.vector8(_cut(self.software))

    @classmethod
    def read(cls, r: Reader) -> Hello:
        return cls(r.u8(), r.take(32), _text(r.vector8()))


@dataclass(frozen=True, slots=True)
class Welcome:
    """Collector: it takes segments of this probe."""

    KIND: ClassVar[int] = 2

    version: int
    key: bytes  #: SubjectPublicKeyInfo that its receipts are signed with, DER
    last: tuple[int, bytes] | None  #: number and chain hash of the last segment it holds
    segments: int  #: credit, as in Credit
    bytes: int

    def write(self, w: Writer) -> None:
        w.u8(self.version)
        w.vector16(self.key)
        w.u8(self.last is not None)
        if self.last is not None:
            w.u64(self.last[0])
            w.raw(self.last[1])
        w.u64(self.segments)
        w.u64(self.bytes)

    @classmethod
    def read(cls, r: Reader) -> Welcome:
        version, key = r.u8(), r.vector16(1, _KEY_MAXIMUM_BYTES)
        last = (r.u64(), r.take(32)) if _flag(r) else None
        return cls(version, key, last, r.u64(), r.u64())


@dataclass(frozen=True, slots=True)
class Segment:
    """Probe: a sealed segment as it is in the spool, one zstd frame."""

    KIND: ClassVar[int] = 3

    frame: bytes

    def write(self, w: Writer) -> None:
        w.raw(self.frame)

    @classmethod
    def read(cls, r: Reader) -> Segment:
        return cls(_rest(r, FRAME_MAXIMUM_BYTES))


@dataclass(frozen=True, slots=True)
class Receipt:
    """Collector: these segments are durable (sealwire.probe.seal.receipts)."""

    KIND: ClassVar[int] = 4

    receipt: bytes

    def write(self, w: Writer) -> None:
        w.raw(self.receipt)

    @classmethod
    def read(cls, r: Reader) -> Receipt:
        return cls(_rest(r, RECEIPT_MAXIMUM_BYTES))


@dataclass(frozen=True, slots=True)
class Credit:
    """Collector: so much may have been sent since the connection began, in all.

    Totals, not additions: said twice it means the same.  They never go back.
    """

    KIND: ClassVar[int] = 5

    segments: int
    bytes: int  #: of their frames

    def write(self, w: Writer) -> None:
        w.u64(self.segments)
        w.u64(self.bytes)

    @classmethod
    def read(cls, r: Reader) -> Credit:
        return cls(r.u64(), r.u64())


@dataclass(frozen=True, slots=True)
class Refused:
    """Collector: no; the connection ends behind this."""

    KIND: ClassVar[int] = 6

    reason: Reason
    segment: int | None
    words: str

    def write(self, w: Writer) -> None:
        w.u8(self.reason)
        w.u8(self.segment is not None)
        if self.segment is not None:
            w.u64(self.segment)
        w.vector8(_cut(self.words))

    @classmethod
    def read(cls, r: Reader) -> Refused:
        number = r.u8()
        reason = Reason(number) if number in Reason.__members__.values() else Reason.OTHER
        return cls(reason, r.u64() if _flag(r) else None, _text(r.vector8()))


@dataclass(frozen=True, slots=True)
class Enrol:
    """Probe: here is the token I was given and the key I seal with."""

    KIND: ClassVar[int] = 7

    version: int
    token: bytes
    key: bytes  #: SubjectPublicKeyInfo, DER
    signature: bytes  #: of `to_enrol` by it: who holds the key is at the other end of this very connection
    name: str

    def write(self, w: Writer) -> None:
        w.u8(self.version)
        w.raw(self.token)
        w.vector16(self.key)
        w.vector16(self.signature)
        w.vector8(_cut(self.name))

    @classmethod
    def read(cls, r: Reader) -> Enrol:
        return cls(
            r.u8(),
            r.take(TOKEN_BYTES),
            r.vector16(1, _KEY_MAXIMUM_BYTES),
            r.vector16(1, _SIGNATURE_MAXIMUM_BYTES),
            _text(r.vector8()),
        )


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Collector: the probe is known from now on."""

    KIND: ClassVar[int] = 8

    key: bytes  #: SubjectPublicKeyInfo that its receipts are signed with, DER

    def write(self, w: Writer) -> None:
        w.vector16(self.key)

    @classmethod
    def read(cls, r: Reader) -> Enrolled:
        return cls(r.vector16(1, _KEY_MAXIMUM_BYTES))


@dataclass(frozen=True, slots=True)
class Ask:
    """Probe: are you there?  Answered by Credit."""

    KIND: ClassVar[int] = 9

    def write(self, w: Writer) -> None:
        """Nothing but its kind."""

    @classmethod
    def read(cls, r: Reader) -> Ask:
        return cls()


Message = Hello | Welcome | Segment | Receipt | Credit | Refused | Enrol | Enrolled | Ask
_KINDS: Final[dict[int, type[Message]]] = {
    kind.KIND: kind for kind in (Hello, Welcome, Segment, Receipt, Credit, Refused, Enrol, Enrolled, Ask)
}

#: RFC 8446 section 7.5: what the connection's exporter is asked for; both ends alone know the value.
EXPORTER_LABEL: Final = b"EXPORTER-sealwire-enrol"
EXPORTER_BYTES: Final = 32


def to_enrol(exported: bytes, token: bytes) -> bytes:
    """What a probe signs to enrol on the connection that exports these bytes."""
    return b"sealwire enrol\0" + exported + token


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    w = Writer()
    w.u8(message.KIND)
    message.write(w)
    return w.finish()


def decode(data: bytes) -> Message:
    """The message of these bytes.  Raises BadMessage, and nothing else."""
    kind = _KINDS.get(data[0]) if data else None
    if kind is None:
        raise BadMessage(f"a message of unknown kind {data[:1].hex() or '(empty)'}")
    r = Reader(data, kind.__name__, 1)
    try:
        message = kind.read(r)
        r.finish()
    except (ProtocolError, UnicodeDecodeError):
        raise BadMessage(f"a {kind.__name__} that is malformed") from None
    return message


def _rest(r: Reader, most: int) -> bytes:
    if not 0 < r.remaining <= most:
        raise BadMessage(f"a {r.what} of {r.remaining} bytes")
    return r.rest()


def _flag(r: Reader) -> bool:
    value = r.u8()
    if value > 1:
        raise BadMessage(f"a {r.what} that is malformed")
    return bool(value)


def _text(data: bytes) -> str:
    text = data.decode("utf-8")
    # It is shown to people and written to logs: nothing that moves a cursor.
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cut(text: str) -> bytes:
    return text.encode("utf-8")[:_WORDS_MAXIMUM_BYTES].decode("utf-8", "ignore").encode("utf-8")
