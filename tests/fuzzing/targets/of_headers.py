"""PROXY protocol headers: as the specification has them, taken from a socket, and said on to the next."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Final

from sealwire.proxy import Header, HeaderError, TlsFacts
from sealwire.proxy.header import FIXED_BYTES, MAX_HEADER_BYTES, SIGNATURE, Address, crc32c, decode, missing
from tests.fuzzing.targets.promise import Script, Target

_SIZES: Final = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}
_KINDS: Final = (0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x21, 0x22, 0x23, 0x30, 0xEA)
Tlvs = list[tuple[int, bytes]]


class _Refused(Exception):
    """What the specification, or the page of the proxy, does not allow."""


def _must(holds: bool) -> None:
    if not holds:
        raise _Refused


def as_the_pages_say(data: bytes) -> Header | None:
    """proxy-protocol.txt section 2.2 and docs/proxy.md, read slowly; None for what is refused."""
    try:
        return _slowly(data)
    except _Refused:
        return None


def _slowly(data: bytes) -> Header:
    _must(data.startswith(SIGNATURE) and FIXED_BYTES <= len(data) <= MAX_HEADER_BYTES)
    _must(int.from_bytes(data[14:16], "big") == len(data) - FIXED_BYTES)
    version, command, family, body = data[12] >> 4, data[12] & 15, data[13], data[FIXED_BYTES:]
    _must(version == 2 and command in (0, 1) and family in _SIZES)
    if command == 0 or family == 0:
        return Header()
    size = _SIZES[family]
    _must(len(body) >= size)
    tlvs = [tlv for tlv in _split(body[size:]) if tlv[0] != 0x04]
    found = dict(tlvs)
    _must(len(found) == len(tlvs))
    if 0x03 in found:
        # The checksum is of the header with zeros in its place, wherever that is.
        at = FIXED_BYTES + size + _offset_of(body[size:], 0x03)
        _must(len(found[0x03]) == 4)
        _must(crc32c(data[:at] + bytes(4) + data[at + 4 :]) == int.from_bytes(found[0x03], "big"))
    _must(0x05 not in found or len(found[0x05]) <= 128)
    _must(0x01 not in found or 1 <= len(found[0x01]) <= 255)
    source, destination = _addresses(family, body[:size])
    authority = _name(found[0x02]) if 0x02 in found else None
    tls = _tls(found[0x20]) if 0x20 in found else None
    return Header(source, destination, found.get(0x01), authority, found.get(0x05), tls)


def _split(data: bytes) -> Tlvs:
    found = []
    while data:
        _must(len(data) >= 3)
        n = int.from_bytes(data[1:3], "big")
        _must(len(data) >= 3 + n)
        found.append((data[0], data[3 : 3 + n]))
        data = data[3 + n :]
    return found


def _offset_of(data: bytes, wanted: int) -> int:
    """Where the value of the first TLV of a type begins."""
    at = 0
    while data[at] != wanted:
        at += 3 + int.from_bytes(data[at + 1 : at + 3], "big")
    return at + 3


def _addresses(family: int, data: bytes) -> tuple[Address, Address]:
    if family == 0x31:
        paths = (data[:108], data[108:])
        first, second = (path.split(b"\0")[0].decode("utf-8", "surrogateescape") for path in paths)
        return first, second
    n = 4 if family == 0x11 else 16
    ports = int.from_bytes(data[2 * n : 2 * n + 2], "big"), int.from_bytes(data[2 * n + 2 :], "big")
    hosts = [str(ipaddress.ip_address(data[at : at + n])) for at in (0, n)]
    return (hosts[0], ports[0]), (hosts[1], ports[1])


def _name(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _Refused from None
    _must(0 < len(value) <= 255 and text.isprintable())
    return text


def _tls(value: bytes) -> TlsFacts | None:
    _must(len(value) >= 5)
    found = dict(tlvs := _split(value[5:]))
    _must(len(found) == len(tlvs))
    client, shown = value[0], bool(value[0] & 0x06)
    if not client & 0x01:
        return None
    version, cipher, name = (_name(found[kind]) if kind in found else "" for kind in (0x21, 0x23, 0x22))
    return TlsFacts(
        version,
        cipher,
        certificate=shown,
        in_this_connection=bool(client & 0x02),
        verified=shown and value[1:5] == bytes(4),
        common_name=name or None,
    )


def _check(data: bytes, cuts: list[int]) -> None:
    """Taken as from a socket, judged as the pages do, and said on."""
    try:
        whole = decode(data)
    except HeaderError as error:
        _in_words(error)
        whole = None
    assert whole == as_the_pages_say(data)
    taken = b""
    found = None
    try:
        for cut in [*cuts, *[len(data)] * len(data)]:
            wanted = missing(taken)
            assert wanted >= 0
            assert len(taken) + wanted <= MAX_HEADER_BYTES
            part = data[len(taken) : len(taken) + min(wanted, 1 + cut)]
            if not part:
                break
            taken += part
        if missing(taken):
            # What is wrong was not seen yet: it ended too early for that.
            assert taken == data
            assert not data.startswith(SIGNATURE) or as_the_pages_say(data) is None
            return
        found = decode(taken)
    except HeaderError as error:
        _in_words(error)
    # Not a byte of what comes behind the header is taken.
    assert found == as_the_pages_say(taken)
    if found is not None:
        assert len(taken) == FIXED_BYTES + int.from_bytes(data[14:16], "big")
        for checksum in (False, True):
            _said_on(found, checksum)


def _in_words(error: HeaderError) -> None:
    """A reason that may stand in a log."""
    assert error.reason
    assert error.reason.isprintable()


def _said_on(header: Header, checksum: bool) -> None:
    """What one proxy heard the next one hears, as long as there is room."""
    try:
        said = header.encode(checksum=checksum)
    except HeaderError:
        # Only a checksum that the first one did not have, or a family of addresses that grew.
        assert len(header.encode()) > MAX_HEADER_BYTES - 31 or checksum
        return
    assert len(said) <= MAX_HEADER_BYTES
    heard = decode(said)
    assert (_plain(heard.source), _plain(heard.destination)) == (
        _plain(header.source),
        _plain(header.destination),
    )
    if header.source is not None:
        assert replace(heard, source=None, destination=None) == replace(header, source=None, destination=None)


def _plain(address: Address | None) -> object:
    """An address without the ways to write it: IPv4 in IPv6 is IPv4."""
    if address is None or isinstance(address, str):
        return address
    host = ipaddress.ip_address(address[0])
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return mapped or host, address[1]


def _raw(data: bytes) -> None:
    script = Script(data)
    cuts = [script.byte() for _ in range(script.byte(6))]
    _check(data[len(cuts) + 1 :], cuts)


def _made(data: bytes) -> None:
    """A header with TLVs of a script, damaged or not, with something behind it."""
    script = Script(data)
    cuts = [script.byte() for _ in range(script.byte(6))]
    family = tuple(_SIZES)[script.byte(4)]
    size = _SIZES[family]
    body = script.piece()[:size].ljust(size, bytes((script.byte(),)))
    checksum_at = None
    for _ in range(12):
        if script.over:
            break
        kind = _KINDS[script.byte(len(_KINDS))]
        value = script.piece()
        if kind == 0x20 and script.byte(2):
            pieces = [(_KINDS[script.byte(len(_KINDS))], script.piece()) for _ in range(script.byte(4))]
            inner = b"".join(_tlv(*piece) for piece in pieces)
            value = bytes((script.byte(8),)) + bytes(3) + bytes((script.byte(2),)) + inner
        if kind == 0x03 and script.byte(4):
            value, checksum_at = bytes(4), FIXED_BYTES + len(body) + 3
        body += _tlv(kind, value)
    command = 0x20 | script.byte(2) ^ 1
    whole = SIGNATURE + bytes((command, family)) + len(body).to_bytes(2, "big") + body
    if checksum_at is not None:
        whole = whole[:checksum_at] + crc32c(whole).to_bytes(4, "big") + whole[checksum_at + 4 :]
    if script.byte(3) == 2:
        whole = script.damaged(whole)
    _check(whole + script.piece(), cuts)


def _tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


HEADERS: Final[tuple[Target, ...]] = (_raw, _made)
