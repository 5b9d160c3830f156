"""A server that does one thing wrong, and the one alert the client has for it.

Each cell of the table changes one message on its way to a client that did nothing wrong.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from sealwire.context import Config
from sealwire.crypto.certificates import CertificateVerifier, Purpose
from sealwire.crypto.groups import Group
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.errors import Alert, CertificateError, CertificateFailure
from sealwire.tls13 import extensions as ext
from sealwire.tls13.authentication import signed_content
from sealwire.tls13.extensions import Extensions, KeyShareEntry, Where
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.messages import (
    Certificate,
    CertificateEntry,
    CertificateVerify,
    HandshakeType,
    ServerHello,
    frame,
)
from sealwire.tls13.server import retry_request
from sealwire.tls13.transcript import Transcript
from tests import certificates, configs
from tests.certificates import Kind
from tests.unit.tls13.engines import (
    FLAVORS,
    Delivery,
    Pair,
    certificate,
    certificate_request,
    certificate_verify,
    client,
    client_hello,
    default,
    encrypted_extensions,
    mutual,
    put,
    refused,
    retrying,
    server,
    server_hello,
    with_alpn,
    with_raw_extension,
    without,
)

_KT = HandshakeType
Change = Callable[[bytes, Pair], bytes]


@dataclass(frozen=True, slots=True)
class Cell:
    """`change` is made to the server's first message of `kind`; the client answers with `alert`."""

    ids: tuple[str, ...]
    kind: HandshakeType
    change: Change
    alert: Alert
    match: str = ""
    settings: Callable[[], tuple[Config, Config]] = default
    flavors: tuple[Flavor, ...] = FLAVORS


def hello(change: Callable[[ServerHello], ServerHello]) -> Change:
    return lambda message, pair: change(server_hello(message)).encode()


def hello_extension(code: int, value: object) -> Change:
    return hello(lambda message: replace(message, extensions=put(message.extensions, code, value)))


def older(legacy: dict[str, int], random: bytes = b"") -> Change:
    """A ServerHello of an older version: no supported_versions."""

    def change(message: bytes, pair: Pair) -> bytes:
        parsed = server_hello(message)
        return replace(
            parsed,
            legacy_version=legacy[pair.flavor.name],
            random=parsed.random[: 32 - len(random)] + random,
            extensions=without(parsed.extensions, ext.SELECTED_VERSION.code, ext.KEY_SHARE.code),
        ).encode()

    return change


def no_extensions(message: bytes, pair: Pair) -> bytes:
    """A ServerHello of TLS 1.2 may end after its compression method."""
    parsed = replace(server_hello(message), extensions=Extensions(Where.SERVER_HELLO)).encode()
    return frame(_KT.SERVER_HELLO, parsed[4:-2])


def other_version(code: dict[str, int]) -> Change:
    def change(message: bytes, pair: Pair) -> bytes:
        parsed = server_hello(message)
        block = put(parsed.extensions, ext.SELECTED_VERSION.code, code[pair.flavor.name])
        return replace(parsed, extensions=block).encode()

    return change


V12 = {"TLS 1.3": 0x0303, "DTLS 1.3": 0xFEFD}
V10 = {"TLS 1.3": 0x0301, "DTLS 1.3": 0xFEFF}
V13 = {"TLS 1.3": 0x0304, "DTLS 1.3": 0xFEFC}
DRAFT = {"TLS 1.3": 0x7F1C, "DTLS 1.3": 0x7F1C}
SWAPPED = {"TLS 1.3": 0xFEFC, "DTLS 1.3": 0x0304}


def share(group: Group, value: bytes | None = None) -> Change:
    def change(message: ServerHello) -> ServerHello:
        entry = message.extensions.require(ext.KEY_SHARE)
        wrong = KeyShareEntry(group, entry.share if value is None else value)
        return replace(message, extensions=put(message.extensions, ext.KEY_SHARE.code, wrong))

    return hello(change)


def again(code: int, body: bytes) -> Change:
    """The block gets one more extension, with the code of one it has or of none it may have."""
    return lambda message, pair: with_raw_extension(message, server_hello(message).extensions, code, body)


def retry(
    *,
    suite: CipherSuite = CipherSuite.TLS_AES_128_GCM_SHA256,
    group: Group | None = None,
    cookie: bytes = b"",
    change: Callable[[ServerHello], ServerHello] = lambda request: request,
) -> Change:
    """A HelloRetryRequest stands where the ServerHello should be."""

    def make(message: bytes, pair: Pair) -> bytes:
        session_id = server_hello(message).legacy_session_id_echo
        return change(server_hello(retry_request(pair.flavor, session_id, suite, group, cookie))).encode()

    return make


def extension(code: int, body: bytes = b"") -> Callable[[ServerHello], ServerHello]:
    return lambda request: replace(request, extensions=put(request.extensions, code, body))


def limited_groups() -> tuple[Config, Config]:
    return client(groups=("X25519", "P-256"), key_shares=("X25519",)), server()


def limited_suites() -> tuple[Config, Config]:
    return client(suites=("TLS_AES_128_GCM_SHA256",)), server()


HELLO: dict[str, Cell] = {
    "version 1.2": Cell(("9147-5.2-7",), _KT.SERVER_HELLO, older(V12), Alert.PROTOCOL_VERSION, "TLS 1.2"),
    "version 1.0": Cell(("9147-5.2-7",), _KT.SERVER_HELLO, older(V10), Alert.PROTOCOL_VERSION, "TLS 1.0"),
    "version 1.2 without extensions": Cell(
        ("9147-5.2-7",), _KT.SERVER_HELLO, no_extensions, Alert.PROTOCOL_VERSION, "TLS 1.2"
    ),
    "legacy version 1.3 without supported_versions": Cell(
        ("8446-NEG-3",), _KT.SERVER_HELLO, older(V13), Alert.PROTOCOL_VERSION
    ),
    "downgrade to 1.2": Cell(
        ("8446-NEG-8", "9147-5.3-3"),
        _KT.SERVER_HELLO,
        older(V12, b"DOWNGRD\x01"),
        Alert.ILLEGAL_PARAMETER,
        "tampered",
    ),
    "downgrade below 1.2": Cell(
        ("8446-NEG-8", "9147-5.3-3"),
        _KT.SERVER_HELLO,
        older(V10, b"DOWNGRD\x00"),
        Alert.ILLEGAL_PARAMETER,
        "tampered",
    ),
    "version 1.2 in supported_versions": Cell(
        ("8446-NEG-3",), _KT.SERVER_HELLO, other_version(V12), Alert.ILLEGAL_PARAMETER, "TLS 1.2"
    ),
    "a draft's version": Cell(
        ("8446-NEG-3",), _KT.SERVER_HELLO, other_version(DRAFT), Alert.ILLEGAL_PARAMETER, "0x7f1c"
    ),
    "the other protocol's version": Cell(
        ("8446-NEG-3", "9147-5.3-2"), _KT.SERVER_HELLO, other_version(SWAPPED), Alert.ILLEGAL_PARAMETER
    ),
    "another legacy version": Cell(
        ("9147-5.4-1", "8446-NEG-3"),
        _KT.SERVER_HELLO,
        hello(lambda message: replace(message, legacy_version=0x0301)),
        Alert.ILLEGAL_PARAMETER,
        "legacy_version",
    ),
    "another session id": Cell(
        ("9147-5-1", "8446-NEG-3"),
        _KT.SERVER_HELLO,
        hello(lambda message: replace(message, legacy_session_id_echo=bytes(32))),
        Alert.ILLEGAL_PARAMETER,
        "session id",
    ),
    "no session id": Cell(
        ("8446-NEG-3",),
        _KT.SERVER_HELLO,
        hello(lambda message: replace(message, legacy_session_id_echo=b"")),
        Alert.ILLEGAL_PARAMETER,
        "session id",
        flavors=(TLS,),
    ),
    "a session id too long": Cell(
        ("8446-NEG-10",),
        _KT.SERVER_HELLO,
        hello(lambda message: replace(message, legacy_session_id_echo=bytes(33))),
        Alert.DECODE_ERROR,
    ),
    "an unknown suite": Cell(
        ("8446-NEG-3",),
        _KT.SERVER_HELLO,
        hello(lambda message: replace(message, suite=CipherSuite(0x13FF))),
        Alert.ILLEGAL_PARAMETER,
        "SUITE_13FF",
    ),
    "a suite that was not offered": Cell(
        ("8446-NEG-3",),
        _KT.SERVER_HELLO,
        hello(lambda message: replace(message, suite=CipherSuite.TLS_AES_256_GCM_SHA384)),
        Alert.ILLEGAL_PARAMETER,
        "SHA384",
        limited_suites,
    ),
    "compression": Cell(
        ("8446-NEG-3",),
        _KT.SERVER_HELLO,
        hello(lambda message: replace(message, compression_method=1)),
        Alert.ILLEGAL_PARAMETER,
        "compression",
    ),
    "no key share": Cell(
        ("8446-NEG-3", "8446-PSK-1"),
        _KT.SERVER_HELLO,
        hello(lambda message: replace(message, extensions=without(message.extensions, 51))),
        Alert.MISSING_EXTENSION,
        "key_share",
    ),
    "two key shares": Cell(
        ("8446-NEG-2",), _KT.SERVER_HELLO, again(51, b""), Alert.ILLEGAL_PARAMETER, "repeats"
    ),
    "a group that was not offered": Cell(
        ("8446-NEG-3",), _KT.SERVER_HELLO, share(Group(0x0019)), Alert.ILLEGAL_PARAMETER, "GROUP_0019"
    ),
    "a group without a share": Cell(
        ("8446-NEG-3",),
        _KT.SERVER_HELLO,
        share(Group.SECP256R1),
        Alert.ILLEGAL_PARAMETER,
        "SECP256R1",
        limited_groups,
    ),
    "a share too short": Cell(
        ("8446-KS-6",),
        _KT.SERVER_HELLO,
        share(Group.X25519, bytes(31)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        limited_groups,
    ),
    "an empty share": Cell(
        ("8446-NEG-10",), _KT.SERVER_HELLO, share(Group.X25519, b""), Alert.DECODE_ERROR, "", limited_groups
    ),
    "a share of small order": Cell(
        ("8446-KS-5",),
        _KT.SERVER_HELLO,
        share(Group.X25519, bytes(32)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        limited_groups,
    ),
    "a point off its curve": Cell(
        ("8446-KS-6",),
        _KT.SERVER_HELLO,
        share(Group.SECP256R1, b"\x04" + bytes(range(1, 65))),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        lambda: (client(groups=("P-256",)), server()),
    ),
    "a compressed point": Cell(
        ("8446-KS-6",),
        _KT.SERVER_HELLO,
        share(Group.SECP256R1, b"\x02" + bytes(32)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        lambda: (client(groups=("P-256",)), server()),
    ),
    "a hybrid share too short": Cell(
        ("8446-KS-6",),
        _KT.SERVER_HELLO,
        share(Group.X25519MLKEM768, bytes(1119)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        lambda: (client(groups=("X25519MLKEM768",)), server()),
    ),
    "an answer to nothing": Cell(
        ("8446-NEG-2",), _KT.SERVER_HELLO, again(0xFAFA, b""), Alert.UNSUPPORTED_EXTENSION, "64250"
    ),
    "a renegotiation answer": Cell(
        ("8446-NEG-2",), _KT.SERVER_HELLO, again(65281, b"\0"), Alert.UNSUPPORTED_EXTENSION
    ),
    "a pre-shared key": Cell(
        ("8446-NEG-2", "8446-PSK-1"),
        _KT.SERVER_HELLO,
        hello_extension(ext.SELECTED_PSK.code, 0),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "a connection id": Cell(
        ("8446-NEG-2", "9146-1"),
        _KT.SERVER_HELLO,
        hello_extension(ext.CONNECTION_ID.code, b"x"),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "a cookie": Cell(
        ("8446-NEG-2",), _KT.SERVER_HELLO, again(44, b"\0\x01c"), Alert.ILLEGAL_PARAMETER, "belong"
    ),
    "a protocol in the wrong message": Cell(
        ("8446-NEG-2",),
        _KT.SERVER_HELLO,
        again(16, b"\0\x04\x03b/2"),
        Alert.ILLEGAL_PARAMETER,
        "belong",
        with_alpn,
    ),
    "bytes behind it": Cell(
        ("8446-NEG-10",),
        _KT.SERVER_HELLO,
        lambda message, pair: frame(_KT.SERVER_HELLO, message[4:] + b"\0"),
        Alert.DECODE_ERROR,
    ),
    "HelloVerifyRequest": Cell(
        ("9147-5.2-6", "9147-5.2-7"),
        _KT.SERVER_HELLO,
        lambda message, pair: frame(_KT.HELLO_VERIFY_REQUEST, b"\xfe\xfd\x14" + bytes(20)),
        Alert.PROTOCOL_VERSION,
        "DTLS 1.2",
        flavors=(DTLS,),
    ),
    "HelloVerifyRequest over a stream": Cell(
        ("9147-5.2-6",),
        _KT.SERVER_HELLO,
        lambda message, pair: frame(_KT.HELLO_VERIFY_REQUEST, b"\xfe\xfd\x14" + bytes(20)),
        Alert.UNEXPECTED_MESSAGE,
        flavors=(TLS,),
    ),
}

RETRY: dict[str, Cell] = {
    "that changes nothing": Cell(
        ("8446-NEG-4",), _KT.SERVER_HELLO, retry(), Alert.ILLEGAL_PARAMETER, "changes nothing"
    ),
    "for a group that was not offered": Cell(
        ("8446-NEG-4",),
        _KT.SERVER_HELLO,
        retry(group=Group.SECP384R1),
        Alert.ILLEGAL_PARAMETER,
        "SECP384R1",
        limited_groups,
    ),
    "for a group nobody knows": Cell(
        ("8446-NEG-4",), _KT.SERVER_HELLO, retry(group=Group(0x0A0A)), Alert.ILLEGAL_PARAMETER
    ),
    "for a group whose share was sent": Cell(
        ("8446-NEG-4",),
        _KT.SERVER_HELLO,
        retry(group=Group.X25519, cookie=b"c"),
        Alert.ILLEGAL_PARAMETER,
        "X25519",
        limited_groups,
    ),
    "with another suite": Cell(
        ("8446-NEG-4",),
        _KT.SERVER_HELLO,
        retry(suite=CipherSuite.TLS_AES_256_GCM_SHA384, cookie=b"c"),
        Alert.ILLEGAL_PARAMETER,
        "SHA384",
        limited_suites,
    ),
    "with an empty cookie": Cell(
        ("8446-NEG-10",),
        _KT.SERVER_HELLO,
        retry(change=extension(ext.COOKIE.code)),
        Alert.DECODE_ERROR,
        "cookie",
    ),
    "with an answer to nothing": Cell(
        ("8446-NEG-2",),
        _KT.SERVER_HELLO,
        retry(cookie=b"c", change=extension(0xFAFA)),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "with a protocol": Cell(
        ("8446-NEG-2",),
        _KT.SERVER_HELLO,
        retry(cookie=b"c", change=extension(16, b"\0\x04\x03b/2")),
        Alert.ILLEGAL_PARAMETER,
        "belong",
        with_alpn,
    ),
    "without a version": Cell(
        ("8446-NEG-4", "8446-NEG-8"),
        _KT.SERVER_HELLO,
        retry(
            cookie=b"c", change=lambda request: replace(request, extensions=without(request.extensions, 43))
        ),
        Alert.PROTOCOL_VERSION,
    ),
    "of another version": Cell(
        ("8446-NEG-4",),
        _KT.SERVER_HELLO,
        retry(
            cookie=b"c",
            change=lambda request: replace(request, extensions=put(request.extensions, 43, 0x0303)),
        ),
        Alert.ILLEGAL_PARAMETER,
    ),
    "with another session id": Cell(
        ("8446-NEG-4", "9147-5-1"),
        _KT.SERVER_HELLO,
        retry(cookie=b"c", change=lambda request: replace(request, legacy_session_id_echo=bytes(32))),
        Alert.ILLEGAL_PARAMETER,
        "session id",
    ),
    "with compression": Cell(
        ("8446-NEG-4",),
        _KT.SERVER_HELLO,
        retry(cookie=b"c", change=lambda request: replace(request, compression_method=1)),
        Alert.ILLEGAL_PARAMETER,
        "compression",
    ),
}


def encrypted(code: int, value: object) -> Change:
    def change(message: bytes, pair: Pair) -> bytes:
        block = encrypted_extensions(message).extensions
        return replace(encrypted_extensions(message), extensions=put(block, code, value)).encode()

    return change


def encrypted_raw(code: int, body: bytes) -> Change:
    return lambda message, pair: with_raw_extension(
        message, encrypted_extensions(message).extensions, code, body
    )


ENCRYPTED: dict[str, Cell] = {
    "an answer to nothing": Cell(
        ("8446-NEG-2",), _KT.ENCRYPTED_EXTENSIONS, encrypted(0xFAFA, b""), Alert.UNSUPPORTED_EXTENSION
    ),
    "early data accepted that was not announced": Cell(
        ("8446-NEG-2", "8446-0RTT-1"),
        _KT.ENCRYPTED_EXTENSIONS,
        encrypted(ext.EARLY_DATA.code, True),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "a protocol without an offer": Cell(
        ("8446-NEG-2", "8446-NEG-9"),
        _KT.ENCRYPTED_EXTENSIONS,
        encrypted(ext.ALPN.code, (b"b/2",)),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "a protocol that was not offered": Cell(
        ("8446-NEG-9",),
        _KT.ENCRYPTED_EXTENSIONS,
        encrypted(ext.ALPN.code, (b"c/3",)),
        Alert.ILLEGAL_PARAMETER,
        "protocol",
        with_alpn,
    ),
    "two protocols": Cell(
        ("8446-NEG-9",),
        _KT.ENCRYPTED_EXTENSIONS,
        encrypted(ext.ALPN.code, (b"a/1", b"b/2")),
        Alert.DECODE_ERROR,
        "",
        with_alpn,
    ),
    "no protocol in the list": Cell(
        ("8446-NEG-9", "8446-NEG-10"),
        _KT.ENCRYPTED_EXTENSIONS,
        encrypted(ext.ALPN.code, ()),
        Alert.DECODE_ERROR,
        "",
        with_alpn,
    ),
    "protocols twice": Cell(
        ("8446-NEG-2",),
        _KT.ENCRYPTED_EXTENSIONS,
        encrypted_raw(16, b"\0\x04\x03b/2"),
        Alert.ILLEGAL_PARAMETER,
        "repeats",
        with_alpn,
    ),
    "a name that says something": Cell(
        ("6066-1", "8446-NEG-10"),
        _KT.ENCRYPTED_EXTENSIONS,
        encrypted_raw(0, bytes.fromhex("0004000001 61")),
        Alert.DECODE_ERROR,
    ),
    "a key share": Cell(
        ("8446-NEG-2",), _KT.ENCRYPTED_EXTENSIONS, encrypted_raw(51, b""), Alert.ILLEGAL_PARAMETER, "belong"
    ),
    "a version": Cell(
        ("8446-NEG-2",),
        _KT.ENCRYPTED_EXTENSIONS,
        encrypted_raw(43, b"\x03\x04"),
        Alert.ILLEGAL_PARAMETER,
        "belong",
    ),
    "bytes behind it": Cell(
        ("8446-NEG-10",),
        _KT.ENCRYPTED_EXTENSIONS,
        lambda message, pair: frame(_KT.ENCRYPTED_EXTENSIONS, message[4:] + b"\0"),
        Alert.DECODE_ERROR,
    ),
}


def request_block(change: Callable[[Extensions], Extensions]) -> Change:
    def make(message: bytes, pair: Pair) -> bytes:
        request = certificate_request(message)
        return replace(request, extensions=change(request.extensions)).encode()

    return make


REQUEST: dict[str, Cell] = {
    "with a context": Cell(
        ("8446-POST-4",),
        _KT.CERTIFICATE_REQUEST,
        lambda message, pair: replace(certificate_request(message), context=b"c").encode(),
        Alert.ILLEGAL_PARAMETER,
        "context",
        mutual,
    ),
    "without schemes": Cell(
        ("8446-NEG-7",),
        _KT.CERTIFICATE_REQUEST,
        request_block(lambda block: without(block, 13)),
        Alert.MISSING_EXTENSION,
        "signature_algorithms",
        mutual,
    ),
    "with no scheme": Cell(
        ("8446-NEG-10",),
        _KT.CERTIFICATE_REQUEST,
        request_block(lambda block: put(block, 13, ())),
        Alert.DECODE_ERROR,
        "",
        mutual,
    ),
    "with a key share": Cell(
        ("8446-NEG-2",),
        _KT.CERTIFICATE_REQUEST,
        request_block(lambda block: put(block, 51, b"")),
        Alert.ILLEGAL_PARAMETER,
        "belong",
        mutual,
    ),
    "with schemes twice": Cell(
        ("8446-NEG-2",),
        _KT.CERTIFICATE_REQUEST,
        lambda message, pair: with_raw_extension(
            message, certificate_request(message).extensions, 13, b"\0\x02\x04\x03"
        ),
        Alert.ILLEGAL_PARAMETER,
        "repeats",
        mutual,
    ),
}


def shown(change: Callable[[Certificate], Certificate]) -> Change:
    return lambda message, pair: change(certificate(message)).encode()


def entry_extension(code: int, body: bytes) -> Change:
    def change(message: Certificate) -> Certificate:
        first, *others = message.entries
        block = put(first.extensions, code, body)
        return replace(message, entries=(CertificateEntry(first.der, block), *others))

    return shown(change)


def leaf(der: Callable[[bytes], bytes]) -> Change:
    def change(message: Certificate) -> Certificate:
        first, *others = message.entries
        return replace(message, entries=(CertificateEntry(der(first.der), first.extensions), *others))

    return shown(change)


def many(message: Certificate) -> Certificate:
    return replace(message, entries=message.entries * 11)


def heavy(message: Certificate) -> Certificate:
    bulk = CertificateEntry(bytes(48 * 1024), Extensions(Where.CERTIFICATE))
    return replace(message, entries=(*message.entries, bulk))


CERTIFICATE: dict[str, Cell] = {
    "empty": Cell(
        ("8446-AUTH-1",),
        _KT.CERTIFICATE,
        shown(lambda message: replace(message, entries=())),
        Alert.DECODE_ERROR,
        "empty",
    ),
    "with a context": Cell(
        ("8446-AUTH-1",),
        _KT.CERTIFICATE,
        shown(lambda message: replace(message, context=b"c")),
        Alert.ILLEGAL_PARAMETER,
        "context",
    ),
    "with an answer to nothing": Cell(
        ("8446-NEG-2", "8446-AUTH-6"),
        _KT.CERTIFICATE,
        entry_extension(5, b"\x01\0\0\x01x"),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "with an extension of another message": Cell(
        ("8446-NEG-2",), _KT.CERTIFICATE, entry_extension(10, b""), Alert.ILLEGAL_PARAMETER, "belong"
    ),
    "with an empty certificate": Cell(
        ("8446-NEG-10",), _KT.CERTIFICATE, leaf(lambda der: b""), Alert.DECODE_ERROR
    ),
    "that is no certificate": Cell(
        ("8446-AUTH-5",), _KT.CERTIFICATE, leaf(lambda der: b"nonsense"), Alert.BAD_CERTIFICATE
    ),
    "cut short": Cell(("8446-AUTH-5",), _KT.CERTIFICATE, leaf(lambda der: der[:-1]), Alert.BAD_CERTIFICATE),
    "with a changed signature": Cell(
        ("8446-AUTH-5",),
        _KT.CERTIFICATE,
        leaf(lambda der: der[:-1] + bytes((der[-1] ^ 1,))),
        Alert.UNKNOWN_CA,
    ),
    "with too many certificates": Cell(
        ("8446-AUTH-5",), _KT.CERTIFICATE, shown(many), Alert.BAD_CERTIFICATE, "longer than 10 certificates"
    ),
    "with too many bytes": Cell(
        ("8446-AUTH-5",), _KT.CERTIFICATE, shown(heavy), Alert.BAD_CERTIFICATE, "longer than 49152 bytes"
    ),
    "of somebody else": Cell(
        ("8446-AUTH-5",),
        _KT.CERTIFICATE,
        leaf(lambda der: certificates.server(Kind.RSA_2048).chain[0]),
        Alert.UNKNOWN_CA,
    ),
    "of a client": Cell(
        ("8446-AUTH-5",),
        _KT.CERTIFICATE,
        leaf(lambda der: certificates.client(name="localhost").chain[0]),
        Alert.UNSUPPORTED_CERTIFICATE,
    ),
    "for another name": Cell(
        ("8446-AUTH-5",),
        _KT.CERTIFICATE,
        leaf(lambda der: certificates.server(names=("other.example",)).chain[0]),
        Alert.BAD_CERTIFICATE,
        "localhost",
    ),
}


def transcript_hash(pair: Pair) -> bytes:
    """The hash over everything the client has seen up to now, without a retry."""
    hellos = [one for one in pair.delivered if one.kind is _KT.SERVER_HELLO]
    transcript = Transcript(pair.client_settings.provider, SUITES[server_hello(hellos[0].message).suite])
    for delivery in pair.delivered:
        transcript.add(delivery.message)
    return transcript.hash()


def signed(scheme: SignatureScheme, content: Callable[[Pair], bytes]) -> Change:
    """A CertificateVerify by the server's own key over something."""

    def change(message: bytes, pair: Pair) -> bytes:
        [credential] = pair.server_settings.credentials
        return CertificateVerify(scheme, credential.sign(scheme, content(pair))).encode()

    return change


def named(scheme: SignatureScheme) -> Change:
    """The right signature, said to be of another scheme."""
    return lambda message, pair: replace(certificate_verify(message), scheme=scheme).encode()


def flipped(message: bytes, pair: Pair) -> bytes:
    return message[:-1] + bytes((message[-1] ^ 1,))


_P256 = SignatureScheme.ECDSA_SECP256R1_SHA256
VERIFY: dict[str, Cell] = {
    "flipped": Cell(("8446-AUTH-2",), _KT.CERTIFICATE_VERIFY, flipped, Alert.DECRYPT_ERROR),
    "empty": Cell(
        ("8446-AUTH-2",),
        _KT.CERTIFICATE_VERIFY,
        lambda message, pair: CertificateVerify(_P256, b"").encode(),
        Alert.DECRYPT_ERROR,
    ),
    "in the client's name": Cell(
        ("8446-AUTH-2",),
        _KT.CERTIFICATE_VERIFY,
        signed(_P256, lambda pair: signed_content(Purpose.CLIENT, transcript_hash(pair))),
        Alert.DECRYPT_ERROR,
    ),
    "over another transcript": Cell(
        ("8446-AUTH-2",),
        _KT.CERTIFICATE_VERIFY,
        signed(_P256, lambda pair: signed_content(Purpose.SERVER, bytes(32))),
        Alert.DECRYPT_ERROR,
    ),
    "over the bare hash": Cell(
        ("8446-AUTH-2",), _KT.CERTIFICATE_VERIFY, signed(_P256, transcript_hash), Alert.DECRYPT_ERROR
    ),
    "of another curve": Cell(
        ("8446-AUTH-2",),
        _KT.CERTIFICATE_VERIFY,
        named(SignatureScheme.ECDSA_SECP384R1_SHA384),
        Alert.ILLEGAL_PARAMETER,
        "does not fit",
    ),
    "of another kind of key": Cell(
        ("8446-AUTH-2",),
        _KT.CERTIFICATE_VERIFY,
        named(SignatureScheme.RSA_PSS_RSAE_SHA256),
        Alert.ILLEGAL_PARAMETER,
        "does not fit",
    ),
    "with PKCS #1, which certificates may use": Cell(
        ("8446-AUTH-2",),
        _KT.CERTIFICATE_VERIFY,
        named(SignatureScheme.RSA_PKCS1_SHA256),
        Alert.ILLEGAL_PARAMETER,
        "RSA_PKCS1_SHA256",
    ),
    "with SHA-1": Cell(
        ("8446-AUTH-2",),
        _KT.CERTIFICATE_VERIFY,
        named(SignatureScheme.ECDSA_SHA1),
        Alert.ILLEGAL_PARAMETER,
        "ECDSA_SHA1",
    ),
    "with a scheme nobody knows": Cell(
        ("8446-AUTH-2",), _KT.CERTIFICATE_VERIFY, named(SignatureScheme(0x0A0A)), Alert.ILLEGAL_PARAMETER
    ),
    "bytes behind it": Cell(
        ("8446-NEG-10",),
        _KT.CERTIFICATE_VERIFY,
        lambda message, pair: frame(_KT.CERTIFICATE_VERIFY, message[4:] + b"\0"),
        Alert.DECODE_ERROR,
    ),
}

FINISHED: dict[str, Cell] = {
    "flipped": Cell(("8446-KS-4",), _KT.FINISHED, flipped, Alert.DECRYPT_ERROR),
    "zeros": Cell(
        ("8446-KS-4",),
        _KT.FINISHED,
        lambda message, pair: frame(_KT.FINISHED, bytes(len(message) - 4)),
        Alert.DECRYPT_ERROR,
    ),
    "too short": Cell(
        ("8446-KS-4", "8446-NEG-10"),
        _KT.FINISHED,
        lambda message, pair: frame(_KT.FINISHED, message[4:-1]),
        Alert.DECODE_ERROR,
    ),
    "too long": Cell(
        ("8446-KS-4", "8446-NEG-10"),
        _KT.FINISHED,
        lambda message, pair: frame(_KT.FINISHED, message[4:] + b"\0"),
        Alert.DECODE_ERROR,
    ),
    "empty": Cell(
        ("8446-KS-4",), _KT.FINISHED, lambda message, pair: frame(_KT.FINISHED, b""), Alert.DECODE_ERROR
    ),
}

TABLES = {
    "ServerHello": HELLO,
    "HelloRetryRequest": RETRY,
    "EncryptedExtensions": ENCRYPTED,
    "CertificateRequest": REQUEST,
    "Certificate": CERTIFICATE,
    "CertificateVerify": VERIFY,
    "Finished": FINISHED,
}


@pytest.mark.parametrize(
    ("flavor", "cell"),
    [
        pytest.param(
            flavor,
            cell,
            id=f"{table}: {name} ({flavor.name})",
            marks=pytest.mark.requirement(*cell.ids),
        )
        for table, cells in TABLES.items()
        for name, cell in cells.items()
        for flavor in cell.flavors
    ],
)
def test_one_wrong_message(flavor: Flavor, cell: Cell) -> None:
    pair = Pair(flavor, cell.settings())
    changes = 0

    def rogue(delivery: Delivery) -> list[Delivery]:
        nonlocal changes
        if delivery.to_server or delivery.kind is not cell.kind or changes:
            return [delivery]
        changes += 1
        message = cell.change(delivery.message, pair)
        assert message != delivery.message
        return [delivery.but(message)]

    pair.rogue = rogue
    refused(pair, cell.alert, cell.match, victim="client")
    # It was this message that was refused, and not one that came of it.
    assert changes == 1
    assert pair.delivered[-1].kind in (cell.kind, _KT.HELLO_VERIFY_REQUEST)


@pytest.mark.requirement("8446-AUTH-2")
@pytest.mark.parametrize("flavor", FLAVORS, ids=["TLS", "DTLS"])
def test_a_scheme_the_client_did_not_offer(flavor: Flavor) -> None:
    """Both know it and the key can make it; only the client's list speaks against it."""
    schemes = (SignatureScheme.RSA_PSS_RSAE_SHA512,)
    identity = certificates.server(Kind.RSA_2048)
    ours = replace(client(roots=identity.cafile), signature_schemes=schemes)
    theirs = _with(identity)
    pair = Pair(flavor, (ours, theirs))
    delivery = pair.run_until(_KT.CERTIFICATE_VERIFY, to_server=False)
    pair.waiting.popleft()
    [credential] = theirs.credentials
    scheme = SignatureScheme.RSA_PSS_RSAE_SHA256
    content = signed_content(Purpose.SERVER, transcript_hash(pair))
    message = CertificateVerify(scheme, credential.sign(scheme, content)).encode()
    refused(
        pair,
        Alert.ILLEGAL_PARAMETER,
        "which was not offered",
        victim="client",
        act=lambda: pair.deliver(delivery.but(message)),
    )


# --- retries that go on wrongly ----------------------------------------------------------------


def retried(flavor: Flavor) -> tuple[Pair, Delivery]:
    """A pair whose second ServerHello waits to be delivered."""
    pair = Pair(flavor, retrying())
    for _ in range(3):
        pair.step()
    assert server_hello(pair.delivered[1].message).is_retry_request
    return pair, pair.waiting[0]


each = pytest.mark.parametrize("flavor", FLAVORS, ids=["TLS", "DTLS"])


@each
@pytest.mark.requirement("8446-NEG-3", "9147-5.1-12")
@pytest.mark.parametrize("same", [True, False], ids=["the same", "another"])
def test_a_second_hello_retry_request(flavor: Flavor, same: bool) -> None:
    pair, answer = retried(flavor)
    request = pair.delivered[1].message
    if not same:
        parsed = server_hello(request)
        request = replace(parsed, extensions=put(parsed.extensions, 44, b"c")).encode()
    pair.waiting.appendleft(answer.but(request))
    refused(pair, Alert.UNEXPECTED_MESSAGE, "second HelloRetryRequest", victim="client")


@each
@pytest.mark.requirement("8446-NEG-4")
def test_another_suite_than_the_retry_named(flavor: Flavor) -> None:
    pair, answer = retried(flavor)
    pair.waiting.clear()
    hello = replace(server_hello(answer.message), suite=CipherSuite.TLS_CHACHA20_POLY1305_SHA256)
    pair.waiting.append(answer.but(hello.encode()))
    refused(pair, Alert.ILLEGAL_PARAMETER, "another suite than HelloRetryRequest", victim="client")


@each
@pytest.mark.requirement("8446-NEG-3")
def test_another_group_than_the_retry_asked_for(flavor: Flavor) -> None:
    pair, answer = retried(flavor)
    pair.waiting.clear()
    parsed = server_hello(answer.message)
    # Of the first hello, for which a share was sent then and not now.
    entry = KeyShareEntry(Group.X25519, bytes(range(32)))
    hello = replace(parsed, extensions=put(parsed.extensions, 51, entry))
    pair.waiting.append(answer.but(hello.encode()))
    refused(pair, Alert.ILLEGAL_PARAMETER, "for which no share was sent", victim="client")


@each
@pytest.mark.requirement("8446-NEG-8")
def test_an_older_version_after_a_retry(flavor: Flavor) -> None:
    pair, answer = retried(flavor)
    pair.waiting.clear()
    pair.waiting.append(answer.but(older(V12)(answer.message, pair)))
    refused(pair, Alert.PROTOCOL_VERSION, "TLS 1.2", victim="client")


@pytest.mark.requirement("9147-5.2-6")
def test_hello_verify_request_after_a_retry() -> None:
    pair, answer = retried(DTLS)
    pair.waiting.appendleft(answer.but(frame(_KT.HELLO_VERIFY_REQUEST, b"\xfe\xfd\x01c")))
    refused(pair, Alert.UNEXPECTED_MESSAGE, victim="client")


# --- certificates ------------------------------------------------------------------------------


def at(settings: Config, days: float) -> Config:
    """The same settings, judged by a clock that is off."""
    roots = (certificates.server().root,)
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    return replace(settings, verifier=CertificateVerifier(roots, clock=lambda: now))


@each
@pytest.mark.requirement("8446-AUTH-5")
@pytest.mark.parametrize(
    ("settings", "name", "alert", "failure"),
    [
        (lambda: at(client(), 400), "localhost", Alert.CERTIFICATE_EXPIRED, CertificateFailure.EXPIRED),
        (
            lambda: at(client(), -400),
            "localhost",
            Alert.CERTIFICATE_EXPIRED,
            CertificateFailure.NOT_YET_VALID,
        ),
        (
            lambda: client(roots=certificates.server(Kind.RSA_2048).cafile),
            "localhost",
            Alert.UNKNOWN_CA,
            CertificateFailure.UNKNOWN_ISSUER,
        ),
        (client, "wrong.example", Alert.BAD_CERTIFICATE, CertificateFailure.WRONG_NAME),
        (client, "127.0.0.2", Alert.BAD_CERTIFICATE, CertificateFailure.WRONG_NAME),
    ],
    ids=["expired", "not yet valid", "unknown issuer", "wrong name", "wrong address"],
)
def test_certificates_that_are_refused(
    flavor: Flavor,
    settings: Callable[[], Config],
    name: str,
    alert: Alert,
    failure: CertificateFailure,
) -> None:
    error = refused(Pair(flavor, (settings(), server()), server_name=name), alert, victim="client")
    assert isinstance(error, CertificateError)
    assert error.failure is failure


@each
def test_the_bounds_on_a_chain_are_inclusive(flavor: Flavor) -> None:
    identity = certificates.server(intermediates=2)
    theirs = _with(identity)
    ours = client(roots=identity.cafile)
    length, size = len(identity.chain), identity.chain_bytes
    for exact, below, limit in (
        (replace(ours, max_chain_length=length), replace(ours, max_chain_length=length - 1), length - 1),
        (replace(ours, max_chain_bytes=size), replace(ours, max_chain_bytes=size - 1), size - 1),
    ):
        assert Pair(flavor, (exact, theirs), run=True).connected
        refused(Pair(flavor, (below, theirs)), Alert.BAD_CERTIFICATE, f"longer than {limit}", victim="client")


def _with(identity: certificates.Identity) -> Config:
    return configs.server_context(identity).config()


@each
@pytest.mark.requirement("8446-AUTH-2")
def test_without_verification_the_key_must_still_be_held(flavor: Flavor) -> None:
    ours = replace(client(), verify_mode=0, check_hostname=False)
    assert Pair(flavor, (ours, server()), run=True).connected
    pair = Pair(flavor, (ours, server()))
    delivery = pair.run_until(_KT.CERTIFICATE_VERIFY, to_server=False)
    pair.waiting[0] = delivery.but(flipped(delivery.message, pair))
    refused(pair, Alert.DECRYPT_ERROR, victim="client")
    pair = Pair(flavor, (ours, server()))
    delivery = pair.run_until(_KT.CERTIFICATE, to_server=False)
    pair.waiting[0] = delivery.but(leaf(lambda der: b"nonsense")(delivery.message, pair))
    refused(pair, Alert.BAD_CERTIFICATE, victim="client")


@each
def test_the_hello_of_a_client_is_not_what_a_rogue_changes(flavor: Flavor) -> None:
    """The table would prove nothing if an unchanged message were refused as well."""
    for settings in (default, with_alpn, mutual, retrying, limited_groups, limited_suites):
        pair = Pair(flavor, settings(), rogue=lambda delivery: [delivery], run=True)
        assert pair.connected
        assert client_hello(pair.delivered[0].message, flavor).legacy_cookie == b""
