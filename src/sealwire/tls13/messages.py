"""Each handshake message: its fields, decode and encode side by side (RFC 8446 section 4).

Structure only: a decoder says whether bytes have a message's shape, the states judge whether the
message is right.  Messages are in TLS form, a type byte and a 24-bit length before the body, for
both protocols: DTLS takes message_seq and fragments off before (RFC 9147 section 5.2).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final

from sealwire.crypto.compression import CompressionAlgorithm
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.suites import CipherSuite
from sealwire.errors import Alert, ProtocolError
from sealwire.tls13.extensions import PRE_SHARED_KEYS, Extensions, Where
from sealwire.tls13.flavor import Flavor
from sealwire.wire import Buffer, Reader, Writer, decode_error

HEADER_BYTES: Final = 4


class HandshakeType(enum.IntEnum):
    """HandshakeType (RFC 8446 section 4, RFC 9147 section 5.2).  Unknown codes survive."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    HELLO_VERIFY_REQUEST = 3
    NEW_SESSION_TICKET = 4
    END_OF_EARLY_DATA = 5
    ENCRYPTED_EXTENSIONS = 8
    REQUEST_CONNECTION_ID = 9
    NEW_CONNECTION_ID = 10
    CERTIFICATE = 11
    CERTIFICATE_REQUEST = 13
    CERTIFICATE_VERIFY = 15
    FINISHED = 20
    KEY_UPDATE = 24
    COMPRESSED_CERTIFICATE = 25
    MESSAGE_HASH = 254

    # Members are equal to their numbers, so they hash like them; Enum's own hash is a Python call.
    __hash__ = int.__hash__

    @classmethod
    def _missing_(cls, value: object) -> HandshakeType | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"HANDSHAKE_{value}"
        member._value_ = value
        return member


#: Those with a name, by number: calling an Enum is slow.
KINDS: Final[dict[int, HandshakeType]] = {int(kind): kind for kind in HandshakeType}
# RFC 8446 section 4.1.3: a ServerHello with this random is a HelloRetryRequest.
HELLO_RETRY_RANDOM: Final = bytes.fromhex("CF21AD74E59A6111BE1D8C021E65B891C2A211167ABB8C5E079E09E2C8A8339C")
# RFC 8446 section 4.1.3 [9147-5.3-3]: the last eight bytes of random when an older version was negotiated.
DOWNGRADE_SENTINELS: Final = (b"DOWNGRD\x01", b"DOWNGRD\x00")


def frame(kind: HandshakeType, body: Buffer) -> bytes:
    """A message in TLS form around `body`."""
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


def open_message(message: Buffer) -> tuple[HandshakeType, Reader]:
    """Type and body of one whole message in TLS form; decode_error unless it is exactly one."""
    reader = Reader(message, "handshake message")
    number = reader.u8()
    kind = KINDS.get(number) or HandshakeType(number)
    body = reader.sub24(kind.name)
    reader.finish()
    return kind, body


# Lists of suites are remembered up to this length, as settled extensions are.
_REMEMBERED_SUITES: Final = 32


@lru_cache(maxsize=64)
def _suites_from(codes: tuple[int, ...]) -> tuple[CipherSuite, ...]:
    return tuple(CipherSuite(code) for code in codes)


@lru_cache(maxsize=64)
def _suites_form(suites: tuple[CipherSuite, ...]) -> bytes:
    writer = Writer()
    with writer.length16():
        for suite in suites:
            writer.u16(suite)
    return writer.finish()


@dataclass(frozen=True, slots=True)
class ClientHello:
    """RFC 8446 section 4.1.2; `legacy_cookie` is DTLS's (RFC 9147 section 5.3), b"" for TLS."""

    TYPE: ClassVar = HandshakeType.CLIENT_HELLO

    legacy_version: int
    random: bytes
    legacy_session_id: bytes
    legacy_cookie: bytes
    suites: tuple[CipherSuite, ...]
    compression_methods: bytes
    extensions: Extensions

    @classmethod
    def decode(cls, reader: Reader, flavor: Flavor) -> ClientHello:
        legacy_version = reader.u16()
        random = reader.take(32)
        session_id = reader.vector8(high=32)
        cookie = reader.vector8() if flavor.has_legacy_cookie else b""
        codes = reader.list16_of_u16()
        suites = (
            _suites_from(codes)
            if len(codes) <= _REMEMBERED_SUITES
            else tuple(CipherSuite(code) for code in codes)
        )
        compression = reader.vector8(low=1)
        # A hello without extensions is well formed in older versions; it offers no 1.3.
        extensions = (
            Extensions.decode(reader, Where.CLIENT_HELLO)
            if reader.remaining
            else Extensions(Where.CLIENT_HELLO)
        )
        reader.finish()
        if PRE_SHARED_KEYS.code in extensions:
            *_, last = extensions
            if last != PRE_SHARED_KEYS.code:
                # RFC 8446 section 4.2.11 [8446-NEG-2]: the binders cover all before it.
                raise ProtocolError(Alert.ILLEGAL_PARAMETER, "pre_shared_key is not the last extension")
        return cls(legacy_version, random, session_id, cookie, suites, compression, extensions)

    def encode(self, flavor: Flavor) -> bytes:
        writer = Writer()
        writer.u16(self.legacy_version)
        writer.raw(self.random)
        writer.vector8(self.legacy_session_id)
        if flavor.has_legacy_cookie:
            writer.vector8(self.legacy_cookie)
        writer.raw(_suites_form(self.suites))
        writer.vector8(self.compression_methods)
        self.extensions.encode(writer)
        return frame(self.TYPE, writer.finish())


@dataclass(frozen=True, slots=True)
class ServerHello:
    """RFC 8446 section 4.1.3; also HelloRetryRequest, which `random` tells apart."""

    TYPE: ClassVar = HandshakeType.SERVER_HELLO

    legacy_version: int
    random: bytes
    legacy_session_id_echo: bytes
    suite: CipherSuite
    compression_method: int
    extensions: Extensions

    @property
    def is_retry_request(self) -> bool:
        return self.random == HELLO_RETRY_RANDOM

    @classmethod
    def decode(cls, reader: Reader) -> ServerHello:
        legacy_version = reader.u16()
        random = reader.take(32)
        session_id = reader.vector8(high=32)
        suite = CipherSuite(reader.u16())
        compression = reader.u8()
        where = Where.HELLO_RETRY_REQUEST if random == HELLO_RETRY_RANDOM else Where.SERVER_HELLO
        # A server of an older version may leave the block out; its version is judged by the state.
        extensions = Extensions.decode(reader, where) if reader.remaining else Extensions(where)
        reader.finish()
        return cls(legacy_version, random, session_id, suite, compression, extensions)

    def encode(self) -> bytes:
        writer = Writer()
        writer.u16(self.legacy_version)
        writer.raw(self.random)
        writer.vector8(self.legacy_session_id_echo)
        writer.u16(self.suite)
        writer.u8(self.compression_method)
        self.extensions.encode(writer)
        return frame(self.TYPE, writer.finish())


@dataclass(frozen=True, slots=True)
class EncryptedExtensions:
    """RFC 8446 section 4.3.1."""

    TYPE: ClassVar = HandshakeType.ENCRYPTED_EXTENSIONS

    extensions: Extensions

    @classmethod
    def decode(cls, reader: Reader) -> EncryptedExtensions:
        extensions = Extensions.decode(reader, Where.ENCRYPTED_EXTENSIONS)
        reader.finish()
        return cls(extensions)

    def encode(self) -> bytes:
        writer = Writer()
        self.extensions.encode(writer)
        return frame(self.TYPE, writer.finish())


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """RFC 8446 section 4.3.2."""

    TYPE: ClassVar = HandshakeType.CERTIFICATE_REQUEST

    context: bytes
    extensions: Extensions

    @classmethod
    def decode(cls, reader: Reader) -> CertificateRequest:
        context = reader.vector8()
        extensions = Extensions.decode(reader, Where.CERTIFICATE_REQUEST)
        reader.finish()
        return cls(context, extensions)

    def encode(self) -> bytes:
        writer = Writer()
        writer.vector8(self.context)
        self.extensions.encode(writer)
        return frame(self.TYPE, writer.finish())


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """One certificate in DER with its extensions."""

    der: bytes
    extensions: Extensions


@dataclass(frozen=True, slots=True)
class Certificate:
    """RFC 8446 section 4.4.2; the end entity's certificate first."""

    TYPE: ClassVar = HandshakeType.CERTIFICATE

    context: bytes
    entries: tuple[CertificateEntry, ...]

    @classmethod
    def decode(cls, reader: Reader, max_entries: int) -> Certificate:
        """`max_entries` bounds the list before its certificates are looked at."""
        context = reader.vector8()
        entries: list[CertificateEntry] = []
        certificates = reader.sub24("certificate list")
        while certificates.remaining:
            if len(entries) == max_entries:
                raise ProtocolError(
                    Alert.BAD_CERTIFICATE,
                    f"the certificate list is longer than {max_entries} certificates",
                    "certificate_chain_length",
                )
            der = certificates.vector24(low=1)
            entries.append(CertificateEntry(der, Extensions.decode(certificates, Where.CERTIFICATE)))
        reader.finish()
        return cls(context, tuple(entries))

    def encode(self) -> bytes:
        writer = Writer()
        writer.vector8(self.context)
        with writer.length24():
            for entry in self.entries:
                writer.vector24(entry.der)
                entry.extensions.encode(writer)
        return frame(self.TYPE, writer.finish())


@dataclass(frozen=True, slots=True)
class CompressedCertificate:
    """RFC 8879 section 4; the body of a Certificate, packed, and how long it declares to be."""

    TYPE: ClassVar = HandshakeType.COMPRESSED_CERTIFICATE

    algorithm: CompressionAlgorithm
    uncompressed_length: int
    compressed: bytes

    @classmethod
    def decode(cls, reader: Reader) -> CompressedCertificate:
        message = cls(CompressionAlgorithm(reader.u16()), reader.u24(), reader.vector24(low=1))
        reader.finish()
        return message

    def encode(self) -> bytes:
        writer = Writer()
        writer.u16(self.algorithm)
        writer.u24(self.uncompressed_length)
        writer.vector24(self.compressed)
        return frame(self.TYPE, writer.finish())


@dataclass(frozen=True, slots=True)
class CertificateVerify:
    """RFC 8446 section 4.4.3."""

    TYPE: ClassVar = HandshakeType.CERTIFICATE_VERIFY

    scheme: SignatureScheme
    signature: bytes

    @classmethod
    def decode(cls, reader: Reader) -> CertificateVerify:
        message = cls(SignatureScheme(reader.u16()), reader.vector16())
        reader.finish()
        return message

    def encode(self) -> bytes:
        writer = Writer()
        writer.u16(self.scheme)
        writer.vector16(self.signature)
        return frame(self.TYPE, writer.finish())


@dataclass(frozen=True, slots=True)
class Finished:
    """RFC 8446 section 4.4.4; the MAC is as long as the suite's hash."""

    TYPE: ClassVar = HandshakeType.FINISHED

    mac: bytes

    @classmethod
    def decode(cls, reader: Reader, hash_bytes: int) -> Finished:
        if reader.remaining != hash_bytes:
            raise decode_error("Finished")
        return cls(reader.rest())

    def encode(self) -> bytes:
        return frame(self.TYPE, self.mac)


@dataclass(frozen=True, slots=True)
class NewSessionTicket:
    """RFC 8446 section 4.6.1; lifetime in seconds."""

    TYPE: ClassVar = HandshakeType.NEW_SESSION_TICKET

    lifetime: int
    age_add: int
    nonce: bytes
    ticket: bytes
    extensions: Extensions

    @classmethod
    def decode(cls, reader: Reader) -> NewSessionTicket:
        lifetime = reader.u32()
        age_add = reader.u32()
        nonce = reader.vector8()
        ticket = reader.vector16(low=1)
        extensions = Extensions.decode(reader, Where.NEW_SESSION_TICKET)
        reader.finish()
        return cls(lifetime, age_add, nonce, ticket, extensions)

    def encode(self) -> bytes:
        writer = Writer()
        writer.u32(self.lifetime)
        writer.u32(self.age_add)
        writer.vector8(self.nonce)
        writer.vector16(self.ticket)
        self.extensions.encode(writer)
        return frame(self.TYPE, writer.finish())


#: The body of a KeyUpdate that asks for one in return.
UPDATE_REQUESTED: Final = 1


@dataclass(frozen=True, slots=True)
class KeyUpdate:
    """RFC 8446 section 4.6.3."""

    TYPE: ClassVar = HandshakeType.KEY_UPDATE

    update_requested: bool

    @classmethod
    def decode(cls, reader: Reader) -> KeyUpdate:
        request = reader.u8()
        reader.finish()
        if request > UPDATE_REQUESTED:
            # RFC 8446 section 4.6.3 [8446-POST-1]
            raise ProtocolError(Alert.ILLEGAL_PARAMETER, f"KeyUpdate asks for {request}")
        return cls(bool(request))

    def encode(self) -> bytes:
        return frame(self.TYPE, bytes((self.update_requested,)))
