"""PROXY protocol, version 2: who the client is, said by a proxy in front of everything else.

Specification: HAProxy's ``proxy-protocol.txt``, "The PROXY protocol, versions 1 and 2", section 2.2 (the
binary header) and its subsections on TLVs.  Sixteen fixed bytes say how long the rest is, so a receiver
reads sixteen, then exactly the rest, and not a byte of what comes behind.

A header is believed only by who was told to expect it from there: everybody can write one.  Decoding is
strict.  What is wrong in any byte is a :class:`HeaderError`, and memory is bounded by
:data:`MAX_HEADER_BYTES`, not by the length that was declared.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sealwire.errors import Error, ProtocolError
from sealwire.wire import Reader, Writer

#: Section 2.2: chosen so that no other protocol's first bytes look like it.
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED_BYTES: Final = 16
#: The declared length has 16 bits; addresses, names and a certificate's name fit in a sixteenth of it.
MAX_HEADER_BYTES: Final = 4096

# The high nibble of byte 13 is the version.
_VERSION: Final = 0x20
_LOCAL: Final = 0x0
_PROXY: Final = 0x1

_UNSPECIFIED: Final = 0x00
# Family and transport, with the bytes both addresses and ports have; datagrams are not ours.
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNIX: Final = 0x31
_ADDRESS_BYTES: Final = {_TCP4: 12, _TCP6: 36, _UNIX: 216}
_PATH_BYTES: Final = 108

_ALPN: Final = 0x01
_AUTHORITY: Final = 0x02
_CRC32C: Final = 0x03
_NOOP: Final = 0x04
_UNIQUE_ID: Final = 0x05
_SSL: Final = 0x20
_SSL_VERSION: Final = 0x21
_SSL_COMMON_NAME: Final = 0x22
_SSL_CIPHER: Final = 0x23
_UNIQUE_ID_MAX_BYTES: Final = 128
# A name of a host has 255 bytes at most (RFC 1035 section 2.3.4), one of a protocol too (RFC 7301).
_NAME_MAX_BYTES: Final = 255

_CLIENT_SSL: Final = 0x01
_CLIENT_CERT_CONN: Final = 0x02
_CLIENT_CERT_SESS: Final = 0x04

#: ``(host, port)``, or the path of a Unix socket, "" for one without.
Address = tuple[str, int] | str


class HeaderError(Error):
    """What came is no PROXY protocol header that may be believed.

    Attributes:
        reason: one sentence for people.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """How the client secured its connection to the sender (PP2_TYPE_SSL).

    Attributes:
        version: such as ``TLSv1.3``.
        cipher: the suite.
        certificate: it showed a certificate, in this connection or in the one it resumed.
        in_this_connection: in this one.
        verified: the sender verified it.
        common_name: of the certificate's subject; None if it has none, or there is no certificate.
    """

    version: str = ""
    cipher: str = ""
    certificate: bool = False
    in_this_connection: bool = False
    verified: bool = False
    common_name: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """A decoded header.

    Attributes:
        source: the client, as the sender saw it; None where the sender speaks for itself (LOCAL: health
            checks) or does not say (UNSPEC): then the connection's own addresses hold.
        destination: where the client connected to; None as `source`.
        alpn: the application protocol agreed on with the client.
        authority: the host name the client asked for.
        unique_id: the sender's name for this connection, at most 128 bytes.
        tls: None where the client did not use TLS, or the sender does not say.
    """

    source: Address | None = None
    destination: Address | None = None
    alpn: bytes | None = None
    authority: str | None = None
    unique_id: bytes | None = None
    tls: TlsFacts | None = None

    def encode(self, *, checksum: bool = False) -> bytes:
        """The header as bytes; with `checksum`, a CRC-32C of it in it.

        Raises:
            HeaderError: a name is too long, or the whole is.
        """
        family, addresses = _encode_addresses(self.source, self.destination)
        body = Writer()
        body.raw(addresses)
        if self.alpn is not None:
            _tlv(body, _ALPN, self.alpn)
        if self.authority is not None:
            _tlv(body, _AUTHORITY, self.authority.encode())
        if self.unique_id is not None:
            if len(self.unique_id) > _UNIQUE_ID_MAX_BYTES:
                raise HeaderError(f"a unique id has at most {_UNIQUE_ID_MAX_BYTES} bytes")
            _tlv(body, _UNIQUE_ID, self.unique_id)
        if self.tls is not None:
            _tlv(body, _SSL, _encode_tls(self.tls))
        if checksum:
            _tlv(body, _CRC32C, bytes(4))
        encoded = body.finish()
        if FIXED_BYTES + len(encoded) > MAX_HEADER_BYTES:
            raise HeaderError(f"a header has at most {MAX_HEADER_BYTES} bytes")
        start = SIGNATURE + bytes((_VERSION | _PROXY, family)) + len(encoded).to_bytes(2, "big")
        if checksum:
            encoded = encoded[:-4] + crc32c(start + encoded).to_bytes(4, "big")
        return start + encoded


def missing(data: bytes) -> int:
    """How many more bytes belong to the header that begins with `data`; 0 when it is whole.

    Raises:
        HeaderError: it is none, as far as it goes, or it is too long.
    """
    start = data[: len(SIGNATURE)]
    if start != SIGNATURE[: len(start)]:
        if data.startswith(b"PROXY "[: len(data)]):
            raise HeaderError("the PROXY protocol's version 1 came, only version 2 is spoken here")
        raise HeaderError("no PROXY protocol header came")
    if len(data) < FIXED_BYTES:
        return FIXED_BYTES - len(data)
    whole = FIXED_BYTES + int.from_bytes(data[14:16], "big")
    if whole > MAX_HEADER_BYTES:
        raise HeaderError(f"a header of {whole} bytes came, {MAX_HEADER_BYTES} is the most")
    return max(0, whole - len(data))


def decode(data: bytes) -> Header:
    """The header that `data` is, whole, as :func:`missing` says.

    Raises:
        HeaderError: anything in it is not as the specification has it.
    """
    if missing(data) or len(data) != FIXED_BYTES + int.from_bytes(data[14:16], "big"):
        raise HeaderError("a header is cut short or too long")
    if data[12] & 0xF0 != _VERSION:
        raise HeaderError(f"a header has version {data[12] >> 4}, not 2")
    command, family = data[12] & 0x0F, data[13]
    if command not in (_LOCAL, _PROXY):
        raise HeaderError(f"a header has the unknown command {command}")
    if family != _UNSPECIFIED and family not in _ADDRESS_BYTES:
        raise HeaderError(f"a header has the family and transport 0x{family:02x}, which no stream has")
    reader = Reader(data, "a PROXY protocol header", start=FIXED_BYTES)
    try:
        if command == _LOCAL or family == _UNSPECIFIED:
            # Section 2.2: what follows says nothing about a client, and is passed over.
            return Header()
        source, destination = _decode_addresses(family, reader.sub(_ADDRESS_BYTES[family]))
        return _decode_tlvs(data, reader, source, destination)
    except ProtocolError as error:
        raise HeaderError("an address or a TLV is cut short in a header") from error


def _decode_tlvs(data: bytes, reader: Reader, source: Address, destination: Address) -> Header:
    found: dict[int, bytes] = {}
    for kind, value, end in _tlvs(reader):
        if kind == _NOOP:
            continue
        if kind in found:
            raise HeaderError(f"a header has two TLVs of type 0x{kind:02x}")
        if kind == _CRC32C:
            _check_crc(data, value, end)
        found[kind] = value
    authority = found.get(_AUTHORITY)
    unique_id, alpn = found.get(_UNIQUE_ID), found.get(_ALPN)
    if unique_id is not None and len(unique_id) > _UNIQUE_ID_MAX_BYTES:
        raise HeaderError(f"a unique id has more than {_UNIQUE_ID_MAX_BYTES} bytes")
    if alpn is not None and not 0 < len(alpn) <= _NAME_MAX_BYTES:
        raise HeaderError("the name of an application protocol is empty or too long")
    return Header(
        source,
        destination,
        alpn,
        None if authority is None else _text(authority, "a host name"),
        unique_id,
        _decode_tls(found[_SSL]) if _SSL in found else None,
    )


def _tlvs(reader: Reader) -> Iterator[tuple[int, bytes, int]]:
    """Type, value and the offset behind it, of each."""
    while reader.remaining:
        kind = reader.u8()
        value = reader.take(reader.u16())
        yield kind, value, reader.position


def _text(value: bytes, what: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise HeaderError(f"{what} in a header is not UTF-8") from None
    if not text or len(value) > _NAME_MAX_BYTES or not text.isprintable():
        raise HeaderError(f"{what} in a header is empty, too long or not printable")
    return text


def _check_crc(data: bytes, value: bytes, end: int) -> None:
    # Section 2.2.3: over the whole header, with the field itself as zeros; a receiver must drop what differs.
    if len(value) != 4 or crc32c(data[: end - 4] + bytes(4) + data[end:]) != int.from_bytes(value, "big"):
        raise HeaderError("the checksum of a header is wrong")


def _encode_tls(facts: TlsFacts) -> bytes:
    out = Writer()
    client = _CLIENT_SSL
    if facts.certificate:
        client |= _CLIENT_CERT_SESS | (_CLIENT_CERT_CONN if facts.in_this_connection else 0)
    out.u8(client)
    out.u32(0 if facts.verified else 1)
    for kind, text in ((_SSL_VERSION, facts.version), (_SSL_CIPHER, facts.cipher)):
        if text:
            _tlv(out, kind, text.encode())
    if facts.common_name:
        _tlv(out, _SSL_COMMON_NAME, facts.common_name.encode())
    return out.finish()


def _decode_tls(value: bytes) -> TlsFacts | None:
    reader = Reader(value)
    client, verify = reader.u8(), reader.u32()
    found: dict[int, bytes] = {}
    for kind, part, _ in _tlvs(reader):
        if kind in found:
            raise HeaderError(f"a header has two TLVs of type 0x{kind:02x}")
        found[kind] = part
    if not client & _CLIENT_SSL:
        return None

    def text(kind: int, what: str) -> str:
        return _text(found[kind], what) if kind in found else ""

    return TlsFacts(
        text(_SSL_VERSION, "a version"),
        text(_SSL_CIPHER, "a cipher"),
        certificate=bool(client & (_CLIENT_CERT_CONN | _CLIENT_CERT_SESS)),
        in_this_connection=bool(client & _CLIENT_CERT_CONN),
        # Section 2.2.5: zero means that a certificate was presented and verified.
        verified=verify == 0 and bool(client & (_CLIENT_CERT_CONN | _CLIENT_CERT_SESS)),
        common_name=text(_SSL_COMMON_NAME, "a common name") or None,
    )


def _encode_addresses(source: Address | None, destination: Address | None) -> tuple[int, bytes]:
    if source is None or destination is None:
        return _UNSPECIFIED, b""
    if isinstance(source, str) or isinstance(destination, str):
        paths = [path if isinstance(path, str) else "" for path in (source, destination)]
        return _UNIX, b"".join(path.encode("utf-8", "surrogateescape")[:_PATH_BYTES].ljust(_PATH_BYTES, b"\0")
                               for path in paths)  # fmt: skip
    hosts = [_ip(host) for host, _ in (source, destination)]
    ports = b"".join(port.to_bytes(2, "big") for _, port in (source, destination))
    if all(isinstance(host, ipaddress.IPv4Address) for host in hosts):
        return _TCP4, b"".join(host.packed for host in hosts) + ports
    # One of each family, behind two proxies: IPv4 has a place in IPv6 (RFC 4291 section 2.5.5.2).
    mapped = [
        bytes(10) + b"\xff\xff" + host.packed if isinstance(host, ipaddress.IPv4Address) else host.packed
        for host in hosts
    ]
    return _TCP6, b"".join(mapped) + ports


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # What a socket says of a link-local peer has the interface behind a percent sign.
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError as error:
        raise HeaderError(f"{host!r} is no address") from error
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _decode_addresses(family: int, reader: Reader) -> tuple[Address, Address]:
    if family == _UNIX:
        source, destination = (
            reader.take(_PATH_BYTES).partition(b"\0")[0].decode("utf-8", "surrogateescape") for _ in range(2)
        )
        return source, destination
    size = 4 if family == _TCP4 else 16
    hosts = [str(ipaddress.ip_address(reader.take(size))) for _ in range(2)]
    return (hosts[0], reader.u16()), (hosts[1], reader.u16())


def _tlv(out: Writer, kind: int, value: bytes) -> None:
    if len(value) > MAX_HEADER_BYTES:
        raise HeaderError(f"a header has at most {MAX_HEADER_BYTES} bytes")
    out.u8(kind)
    out.vector16(value)


def crc32c(data: bytes) -> int:
    """The checksum of RFC 3720 appendix B.4, Castagnoli's polynomial, reflected."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE: Final = tuple(_crc_of(byte) for byte in range(256))
