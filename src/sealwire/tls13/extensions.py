"""One table of extensions: code -> shape, and the messages it may appear in (RFC 8446 section 4.2).

An :class:`Extension` is a typed key; :meth:`Extensions.get` with it gives a value of that type.
key_share and supported_versions have another shape in each message, so they are several keys with
one code.  Unknown extensions are kept as bytes and otherwise ignored, duplicates are refused, and
a known one in a message that may not carry it is illegal_parameter.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from sealwire.crypto.compression import CompressionAlgorithm
from sealwire.crypto.groups import Group
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.transparency import decode_timestamps, encode_timestamps
from sealwire.errors import Alert, ProtocolError
from sealwire.tls13.values import (
    STATUS_OCSP,
    CertificateType,
    KeyShareEntry,
    OfferedPsks,
    PskIdentity,
    SrtpOffer,
    StatusRequest,
)
from sealwire.wire import Reader, Writer, decode_error

T = TypeVar("T")


class Where(enum.Enum):
    """The message that carries an extension block."""

    CLIENT_HELLO = "ClientHello"
    SERVER_HELLO = "ServerHello"
    HELLO_RETRY_REQUEST = "HelloRetryRequest"
    ENCRYPTED_EXTENSIONS = "EncryptedExtensions"
    CERTIFICATE_REQUEST = "CertificateRequest"
    CERTIFICATE = "Certificate"
    NEW_SESSION_TICKET = "NewSessionTicket"

    # Members are singletons; Enum's own hash is a Python call.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True, eq=False)
class Extension(Generic[T]):
    """A typed key into :class:`Extensions`.

    `settled` values come from configuration: the same again in most hellos, and no larger than their sender
    can help.  Their two forms are remembered side by side.
    """

    code: int
    name: str
    where: tuple[Where, ...]
    decode: Callable[[Reader], T]
    encode: Callable[[Writer, T], None]
    settled: bool = False


#: RFC 8701 section 2: of extensions, suites, groups, schemes and versions sixteen of each are nobody's.
GREASE_VALUES: Final = frozenset(0x0A0A + 0x1010 * n for n in range(16))


# What a peer sends is remembered up to this length, and so many forms of it: 32 KiB in all.
_REMEMBERED_BYTES: Final = 64
_REMEMBERED: Final = 256


@lru_cache(maxsize=_REMEMBERED)
def _settled_form(key: Extension[T], value: T) -> bytes:
    writer = Writer()
    writer.u16(key.code)
    with writer.length16():
        key.encode(writer, value)
    return writer.finish()


@lru_cache(maxsize=_REMEMBERED)
def _settled_value(key: Extension[T], body: bytes) -> T:
    return _value(key, body)


def _value(key: Extension[T], body: bytes) -> T:
    reader = Reader(body, key.name)
    value = key.decode(reader)
    reader.finish()
    return value


class Extensions:
    """The extension block of one message: ordered, without duplicates."""

    __slots__ = ("_entries", "_misplaced", "where")

    def __init__(self, where: Where) -> None:
        self.where = where
        self._misplaced: int | None = None
        # Code -> decoded value, or bytes where the code is not in the table for this message.
        self._entries: dict[int, Any] = {}

    def add(self, key: Extension[T], value: T) -> None:
        """Append an extension we send."""
        assert self.where in key.where, key.name
        assert key.code not in self._entries, key.name
        self._entries[key.code] = value

    def add_reserved(self, code: int, body: bytes) -> None:
        """Append an extension that stands for those nobody knows yet (RFC 8701)."""
        assert code in GREASE_VALUES
        self._entries[code] = body

    def asks_for(self, code: int) -> bool:
        """Whether an answer may hold `code`: it is here, and nobody's reserved value."""
        # RFC 8701 section 3.1 [8701-1]: a client refuses what it made up, as it refuses what it did not send.
        return code in self._entries and code not in GREASE_VALUES

    def copy_from(self, other: Extensions, but: frozenset[int]) -> None:
        """Append the extensions of `other`, a block for the same message, except codes in `but`."""
        assert self.where is other.where
        for code, value in other._entries.items():
            if code not in but:
                self._entries[code] = value

    def get(self, key: Extension[T]) -> T | None:
        """The value of an extension, None where it is absent."""
        value: T | None = self._entries.get(key.code)
        return value

    def require(self, key: Extension[T]) -> T:
        """The value of an extension this message cannot do without (RFC 8446 section 9.2)."""
        if key.code not in self._entries:
            raise ProtocolError(Alert.MISSING_EXTENSION, f"{self.where.value} lacks {key.name}")
        value: T = self._entries[key.code]
        return value

    def __contains__(self, code: int) -> bool:
        return code in self._entries

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extensions):
            return NotImplemented
        return self.where == other.where and list(self._entries.items()) == list(other._entries.items())

    __hash__ = None  # type: ignore[assignment]

    def differs_from(self, other: Extensions, but: frozenset[int]) -> bool:
        """Whether anything but the codes in `but` differs; order does not count.

        wolfSSL 5.9 sends its second ClientHello with the extensions in another order.
        """
        ours = {code: value for code, value in self._entries.items() if code not in but}
        theirs = {code: value for code, value in other._entries.items() if code not in but}
        return ours != theirs

    def refuse_unsolicited(self, offered: Extensions) -> None:
        """Raise if this answer holds an extension that was not offered (RFC 8446 section 4.2)."""
        for code in self._entries:
            if not offered.asks_for(code):
                # RFC 8446 section 4.2 [8446-NEG-2]
                raise ProtocolError(
                    Alert.UNSUPPORTED_EXTENSION,
                    f"{self.where.value} answers extension {code}, which was not offered",
                )

    @classmethod
    def decode(cls, reader: Reader, where: Where) -> Extensions:
        """Read a block with its two-byte length."""
        block = cls(where)
        inner = reader.sub16(_BLOCK_NAMES[where])
        entries, table = block._entries, _TABLES[where]
        while inner.remaining:
            code = inner.u16()
            if code in entries:
                raise ProtocolError(Alert.ILLEGAL_PARAMETER, f"{where.value} repeats extension {code}")
            key = table.get(code)
            if key is None:
                if code in _KNOWN_CODES:
                    block._misplaced = code
                entries[code] = inner.vector16()
            elif key.settled:
                data = inner.vector16()
                entries[code] = (_settled_value if len(data) <= _REMEMBERED_BYTES else _value)(key, data)
            else:
                body = inner.sub16(key.name)
                entries[code] = key.decode(body)
                body.finish()
        if where is not Where.SERVER_HELLO:
            block.refuse_misplaced()
        return block

    def refuse_misplaced(self) -> None:
        """Raise if the block holds an extension that is known, but not for this message.

        Done by :meth:`decode` except for ServerHello: one of an older version may hold what 1.3
        forbids there, and the version is what should be said to be wrong.
        """
        if self._misplaced is not None:
            # RFC 8446 section 4.2 [8446-NEG-2]
            raise ProtocolError(
                Alert.ILLEGAL_PARAMETER,
                f"extension {self._misplaced} does not belong into {self.where.value}",
            )

    def encode(self, writer: Writer) -> None:
        """Write the block with its two-byte length."""
        table = _TABLES[self.where]
        with writer.length16():
            for code, value in self._entries.items():
                key = table.get(code)
                if key is None:
                    writer.u16(code)
                    writer.vector16(value)
                elif key.settled:
                    writer.raw(_settled_form(key, value))
                else:
                    writer.u16(code)
                    with writer.length16():
                        key.encode(writer, value)


# --- shapes, in the order of their codes ----------------------------------------------------


def _decode_server_name(reader: Reader) -> str:
    # RFC 6066 section 3: only host_name exists, and a list may not name a type twice.
    names = reader.sub16()
    if names.u8() != 0:
        raise decode_error("server_name")
    name = names.vector16(low=1)
    names.finish()
    if min(name) <= 0x20 or max(name) >= 0x7F:
        # It goes to callbacks and into logs: nothing that is no part of any name.
        raise ProtocolError(Alert.ILLEGAL_PARAMETER, "server_name holds what no host name can")
    return name.decode("ascii")


def _encode_server_name(writer: Writer, value: str) -> None:
    with writer.length16():
        writer.u8(0)
        writer.vector16(value.encode("ascii"))


def _decode_empty(reader: Reader) -> bool:
    reader.finish()
    return True


def _encode_empty(writer: Writer, value: bool) -> None:
    pass


def _decode_status_request(reader: Reader) -> StatusRequest:
    kind = reader.u8()
    body = reader.rest()
    if kind == STATUS_OCSP:
        inner = Reader(body, "status_request")
        responders = inner.sub16()
        while responders.remaining:
            responders.vector16(low=1)
        inner.vector16()
        inner.finish()
    return StatusRequest(kind, body)


def _encode_status_request(writer: Writer, value: StatusRequest) -> None:
    writer.u8(value.kind)
    writer.raw(value.body)


def _decode_status(reader: Reader) -> bytes:
    # RFC 8446 section 4.4.2.1: CertificateStatus; nothing but OCSP was asked for.
    if reader.u8() != STATUS_OCSP:
        raise decode_error("status_request")
    return reader.vector24(low=1)


def _encode_status(writer: Writer, value: bytes) -> None:
    writer.u8(STATUS_OCSP)
    writer.vector24(value)


def _decode_certificate_types(reader: Reader) -> tuple[CertificateType, ...]:
    return tuple(CertificateType(code) for code in reader.vector8(low=1))


def _encode_certificate_types(writer: Writer, value: tuple[CertificateType, ...]) -> None:
    writer.vector8(bytes(value))


def _decode_compressions(reader: Reader) -> tuple[CompressionAlgorithm, ...]:
    # RFC 8879 section 3: algorithms<2..2^8-2>, two bytes each.
    algorithms = reader.sub8()
    if algorithms.remaining == 0 or algorithms.remaining % 2:
        raise decode_error("compress_certificate")
    return tuple(CompressionAlgorithm(algorithms.u16()) for _ in range(algorithms.remaining // 2))


def _encode_compressions(writer: Writer, value: tuple[CompressionAlgorithm, ...]) -> None:
    with writer.length8():
        for algorithm in value:
            writer.u16(algorithm)


def _decode_groups(reader: Reader) -> tuple[Group, ...]:
    return tuple(Group(code) for code in reader.list16_of_u16())


def _decode_schemes(reader: Reader) -> tuple[SignatureScheme, ...]:
    return tuple(SignatureScheme(code) for code in reader.list16_of_u16())


def _encode_u16_list(writer: Writer, value: tuple[int, ...]) -> None:
    with writer.length16():
        for code in value:
            writer.u16(code)


def _decode_protocols(reader: Reader) -> tuple[bytes, ...]:
    # RFC 7301 section 3.1: neither the list nor a name is empty.
    names = reader.sub16()
    protocols = []
    while names.remaining:
        protocols.append(names.vector8(low=1))
    if not protocols:
        raise decode_error("application_layer_protocol_negotiation")
    return tuple(protocols)


def _encode_protocols(writer: Writer, value: tuple[bytes, ...]) -> None:
    with writer.length16():
        for name in value:
            writer.vector8(name)


def _decode_srtp(reader: Reader) -> SrtpOffer:
    # RFC 5764 section 4.1.1: profiles of two bytes, at least one, and an identifier of up to 255.
    profiles = reader.sub16()
    if profiles.remaining == 0 or profiles.remaining % 2:
        raise decode_error("use_srtp")
    return SrtpOffer(tuple(profiles.u16() for _ in range(profiles.remaining // 2)), reader.vector8())


def _encode_srtp(writer: Writer, value: SrtpOffer) -> None:
    _encode_u16_list(writer, value.profiles)
    writer.vector8(value.mki)


def _decode_versions(reader: Reader) -> tuple[int, ...]:
    versions = reader.sub8()
    if versions.remaining == 0 or versions.remaining % 2:
        raise decode_error("supported_versions")
    return tuple(versions.u16() for _ in range(versions.remaining // 2))


def _encode_versions(writer: Writer, value: tuple[int, ...]) -> None:
    with writer.length8():
        for version in value:
            writer.u16(version)


def _decode_modes(reader: Reader) -> bytes:
    return reader.vector8(low=1)


def _decode_authorities(reader: Reader) -> tuple[bytes, ...]:
    names = reader.sub16()
    authorities = []
    while names.remaining:
        authorities.append(names.vector16(low=1))
    if not authorities:
        raise decode_error("certificate_authorities")
    return tuple(authorities)


def _encode_authorities(writer: Writer, value: tuple[bytes, ...]) -> None:
    with writer.length16():
        for name in value:
            writer.vector16(name)


def _decode_key_share(reader: Reader) -> KeyShareEntry:
    return KeyShareEntry(Group(reader.u16()), reader.vector16(low=1))


def _encode_key_share(writer: Writer, value: KeyShareEntry) -> None:
    writer.u16(value.group)
    writer.vector16(value.share)


def _decode_key_shares(reader: Reader) -> tuple[KeyShareEntry, ...]:
    entries = reader.sub16()
    shares = []
    while entries.remaining:
        shares.append(_decode_key_share(entries))
    return tuple(shares)


def _encode_key_shares(writer: Writer, value: tuple[KeyShareEntry, ...]) -> None:
    with writer.length16():
        for entry in value:
            _encode_key_share(writer, entry)


def _decode_offered_psks(reader: Reader) -> OfferedPsks:
    identities = []
    entries = reader.sub16()
    while entries.remaining:
        identities.append(PskIdentity(entries.vector16(low=1), entries.u32()))
    binders = []
    entries = reader.sub16()
    while entries.remaining:
        binders.append(entries.vector8(low=32))
    if not identities or not binders:
        raise decode_error("pre_shared_key")
    return OfferedPsks(tuple(identities), tuple(binders))


def _encode_offered_psks(writer: Writer, value: OfferedPsks) -> None:
    with writer.length16():
        for psk in value.identities:
            writer.vector16(psk.identity)
            writer.u32(psk.obfuscated_ticket_age)
    writer.raw(binder_list(value.binders))


def binder_list(binders: Iterable[bytes]) -> bytes:
    """What a ClientHello with pre-shared keys ends with."""
    writer = Writer()
    with writer.length16():
        for binder in binders:
            writer.vector8(binder)
    return writer.finish()


def _decode_ticket_request(reader: Reader) -> tuple[int, int]:
    return reader.u8(), reader.u8()


def _encode_ticket_request(writer: Writer, value: tuple[int, int]) -> None:
    for count in value:
        writer.u8(count)


_CH = Where.CLIENT_HELLO
_SH = Where.SERVER_HELLO
_HRR = Where.HELLO_RETRY_REQUEST
_EE = Where.ENCRYPTED_EXTENSIONS
_CR = Where.CERTIFICATE_REQUEST
_CT = Where.CERTIFICATE
_NST = Where.NEW_SESSION_TICKET

SERVER_NAME = Extension(0, "server_name", (_CH,), _decode_server_name, _encode_server_name)
SERVER_NAME_ACCEPTED = Extension(0, "server_name", (_EE,), _decode_empty, _encode_empty)
STATUS_REQUEST = Extension(5, "status_request", (_CH,), _decode_status_request, _encode_status_request, True)
# RFC 8446 section 4.4.2.1: a server's request is empty, and the answer is the status itself.
STATUS_REQUESTED = Extension(5, "status_request", (_CR,), _decode_empty, _encode_empty)
CERTIFICATE_STATUS = Extension(5, "status_request", (_CT,), _decode_status, _encode_status)
SUPPORTED_GROUPS = Extension(10, "supported_groups", (_CH, _EE), _decode_groups, _encode_u16_list, True)
SIGNATURE_ALGORITHMS = Extension(
    13, "signature_algorithms", (_CH, _CR), _decode_schemes, _encode_u16_list, True
)
USE_SRTP = Extension(14, "use_srtp", (_CH, _EE), _decode_srtp, _encode_srtp)
ALPN = Extension(
    16, "application_layer_protocol_negotiation", (_CH, _EE), _decode_protocols, _encode_protocols, True
)
# RFC 6962 section 3.3.1, in the messages RFC 8446 section 4.2 names: asked for with nothing, and answered
# beside the certificate.
TIMESTAMPS_REQUESTED = Extension(18, "signed_certificate_timestamp", (_CH, _CR), _decode_empty, _encode_empty)
CERTIFICATE_TIMESTAMPS = Extension(
    18, "signed_certificate_timestamp", (_CT,), decode_timestamps, encode_timestamps
)
CLIENT_CERTIFICATE_TYPES = Extension(
    19, "client_certificate_type", (_CH,), _decode_certificate_types, _encode_certificate_types
)
CLIENT_CERTIFICATE_TYPE = Extension(
    19, "client_certificate_type", (_EE,), lambda reader: CertificateType(reader.u8()), Writer.u8
)
SERVER_CERTIFICATE_TYPES = Extension(
    20, "server_certificate_type", (_CH,), _decode_certificate_types, _encode_certificate_types
)
SERVER_CERTIFICATE_TYPE = Extension(
    20, "server_certificate_type", (_EE,), lambda reader: CertificateType(reader.u8()), Writer.u8
)
# RFC 7685; its content means nothing, so it has no codec.
PADDING_CODE: Final = 21
COMPRESS_CERTIFICATE = Extension(
    27, "compress_certificate", (_CH, _CR), _decode_compressions, _encode_compressions, True
)
# RFC 8449
RECORD_SIZE_LIMIT = Extension(28, "record_size_limit", (_CH, _EE), Reader.u16, Writer.u16)
PRE_SHARED_KEYS = Extension(41, "pre_shared_key", (_CH,), _decode_offered_psks, _encode_offered_psks)
SELECTED_PSK = Extension(41, "pre_shared_key", (_SH,), Reader.u16, Writer.u16)
EARLY_DATA = Extension(42, "early_data", (_CH, _EE), _decode_empty, _encode_empty)
MAX_EARLY_DATA = Extension(42, "early_data", (_NST,), Reader.u32, Writer.u32)
SUPPORTED_VERSIONS = Extension(43, "supported_versions", (_CH,), _decode_versions, _encode_versions, True)
SELECTED_VERSION = Extension(43, "supported_versions", (_SH, _HRR), Reader.u16, Writer.u16, True)
COOKIE = Extension(
    44, "cookie", (_CH, _HRR), lambda reader: reader.vector16(low=1), lambda w, value: w.vector16(value)
)
PSK_KEY_EXCHANGE_MODES = Extension(
    45, "psk_key_exchange_modes", (_CH,), _decode_modes, lambda w, value: w.vector8(value), True
)
CERTIFICATE_AUTHORITIES = Extension(
    47, "certificate_authorities", (_CH, _CR), _decode_authorities, _encode_authorities
)
POST_HANDSHAKE_AUTH = Extension(49, "post_handshake_auth", (_CH,), _decode_empty, _encode_empty)
SIGNATURE_ALGORITHMS_CERT = Extension(
    50, "signature_algorithms_cert", (_CH, _CR), _decode_schemes, _encode_u16_list, True
)
KEY_SHARES = Extension(51, "key_share", (_CH,), _decode_key_shares, _encode_key_shares)
KEY_SHARE = Extension(51, "key_share", (_SH,), _decode_key_share, _encode_key_share)
KEY_SHARE_REQUEST = Extension(
    51, "key_share", (_HRR,), lambda reader: Group(reader.u16()), lambda w, value: w.u16(value)
)
# RFC 9146 section 3 [9146-1]: a one-byte length and the id the sender wants to receive.
CONNECTION_ID = Extension(
    54, "connection_id", (_CH, _SH), lambda reader: reader.vector8(), lambda w, value: w.vector8(value)
)
# RFC 9853 section 3 [9853-1]: both sides can check that an address answers.
RETURN_ROUTABILITY = Extension(61, "rrc", (_CH, _SH), _decode_empty, _encode_empty)

# RFC 9149 section 3: how many tickets a client wants after a full and after a resumed handshake; and the
# server's answer, how many it is going to give.
TICKET_REQUEST = Extension(58, "ticket_request", (_CH,), _decode_ticket_request, _encode_ticket_request, True)
TICKETS_EXPECTED = Extension(58, "ticket_request", (_EE,), Reader.u8, Writer.u8)

_ALL: tuple[Extension[Any], ...] = (
    SERVER_NAME,
    SERVER_NAME_ACCEPTED,
    STATUS_REQUEST,
    STATUS_REQUESTED,
    CERTIFICATE_STATUS,
    SUPPORTED_GROUPS,
    SIGNATURE_ALGORITHMS,
    USE_SRTP,
    ALPN,
    TIMESTAMPS_REQUESTED,
    CERTIFICATE_TIMESTAMPS,
    CLIENT_CERTIFICATE_TYPES,
    CLIENT_CERTIFICATE_TYPE,
    SERVER_CERTIFICATE_TYPES,
    SERVER_CERTIFICATE_TYPE,
    COMPRESS_CERTIFICATE,
    RECORD_SIZE_LIMIT,
    PRE_SHARED_KEYS,
    SELECTED_PSK,
    EARLY_DATA,
    MAX_EARLY_DATA,
    SUPPORTED_VERSIONS,
    SELECTED_VERSION,
    COOKIE,
    PSK_KEY_EXCHANGE_MODES,
    CERTIFICATE_AUTHORITIES,
    POST_HANDSHAKE_AUTH,
    SIGNATURE_ALGORITHMS_CERT,
    KEY_SHARES,
    KEY_SHARE,
    KEY_SHARE_REQUEST,
    CONNECTION_ID,
    TICKET_REQUEST,
    TICKETS_EXPECTED,
    RETURN_ROUTABILITY,
)
_TABLES: dict[Where, dict[int, Extension[Any]]] = {
    where: {key.code: key for key in _ALL if where in key.where} for where in Where
}
_BLOCK_NAMES: Final = {where: f"{where.value} extensions" for where in Where}
_KNOWN_CODES = frozenset(key.code for key in _ALL)


def known_extensions() -> tuple[Extension[Any], ...]:
    """The table: every extension with a shape of its own, by message."""
    return _ALL
