"""A server whose ServerHello or HelloRetryRequest is wrong, and the one alert the client has for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sealwire.context import Config
from sealwire.crypto.groups import Group
from sealwire.crypto.suites import CipherSuite
from sealwire.errors import Alert
from sealwire.tls13 import extensions as ext
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.messages import (
    HandshakeType,
    ServerHello,
    frame,
)
from sealwire.tls13.selection import retry_request
from sealwire.tls13.values import KeyShareEntry
from tests.unit.tls13.cells import Cell, Change, cells, replaced
from tests.unit.tls13.engines import (
    Delivery,
    Pair,
    client,
    client_hello,
    default,
    each_flavor,
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
    "version 1.2": Cell(("9147-5.2-7",), older(V12), Alert.PROTOCOL_VERSION, "TLS 1.2"),
    "version 1.0": Cell(("9147-5.2-7",), older(V10), Alert.PROTOCOL_VERSION, "TLS 1.0"),
    "version 1.2 without extensions": Cell(("9147-5.2-7",), no_extensions, Alert.PROTOCOL_VERSION, "TLS 1.2"),
    "legacy version 1.3 without supported_versions": Cell(
        ("8446-NEG-3",), older(V13), Alert.PROTOCOL_VERSION
    ),
    "downgrade to 1.2": Cell(
        ("8446-NEG-8", "9147-5.3-3"),
        older(V12, b"DOWNGRD\x01"),
        Alert.ILLEGAL_PARAMETER,
        "tampered",
    ),
    "downgrade below 1.2": Cell(
        ("8446-NEG-8", "9147-5.3-3"),
        older(V10, b"DOWNGRD\x00"),
        Alert.ILLEGAL_PARAMETER,
        "tampered",
    ),
    "version 1.2 in supported_versions": Cell(
        ("8446-NEG-3",), other_version(V12), Alert.ILLEGAL_PARAMETER, "TLS 1.2"
    ),
    "a draft's version": Cell(("8446-NEG-3",), other_version(DRAFT), Alert.ILLEGAL_PARAMETER, "0x7f1c"),
    "the other protocol's version": Cell(
        ("8446-NEG-3", "9147-5.3-2"), other_version(SWAPPED), Alert.ILLEGAL_PARAMETER
    ),
    "another legacy version": Cell(
        ("9147-5.4-1", "8446-NEG-3"),
        hello(lambda message: replace(message, legacy_version=0x0301)),
        Alert.ILLEGAL_PARAMETER,
        "legacy_version",
    ),
    "another session id": Cell(
        ("9147-5-1", "8446-NEG-3"),
        hello(lambda message: replace(message, legacy_session_id_echo=bytes(32))),
        Alert.ILLEGAL_PARAMETER,
        "session id",
    ),
    "no session id": Cell(
        ("8446-NEG-3",),
        hello(lambda message: replace(message, legacy_session_id_echo=b"")),
        Alert.ILLEGAL_PARAMETER,
        "session id",
        flavors=(TLS,),
    ),
    "a session id too long": Cell(
        ("8446-NEG-10",),
        hello(lambda message: replace(message, legacy_session_id_echo=bytes(33))),
        Alert.DECODE_ERROR,
    ),
    "an unknown suite": Cell(
        ("8446-NEG-3",),
        hello(lambda message: replace(message, suite=CipherSuite(0x13FF))),
        Alert.ILLEGAL_PARAMETER,
        "SUITE_13FF",
    ),
    "a suite that was not offered": Cell(
        ("8446-NEG-3",),
        hello(lambda message: replace(message, suite=CipherSuite.TLS_AES_256_GCM_SHA384)),
        Alert.ILLEGAL_PARAMETER,
        "SHA384",
        limited_suites,
    ),
    "compression": Cell(
        ("8446-NEG-3",),
        hello(lambda message: replace(message, compression_method=1)),
        Alert.ILLEGAL_PARAMETER,
        "compression",
    ),
    "no key share": Cell(
        ("8446-NEG-3", "8446-PSK-1"),
        hello(lambda message: replace(message, extensions=without(message.extensions, 51))),
        Alert.MISSING_EXTENSION,
        "key_share",
    ),
    "two key shares": Cell(("8446-NEG-2",), again(51, b""), Alert.ILLEGAL_PARAMETER, "repeats"),
    "a group that was not offered": Cell(
        ("8446-NEG-3",), share(Group.SECP521R1), Alert.ILLEGAL_PARAMETER, "SECP521R1"
    ),
    "a group without a share": Cell(
        ("8446-NEG-3",),
        share(Group.SECP256R1),
        Alert.ILLEGAL_PARAMETER,
        "SECP256R1",
        limited_groups,
    ),
    "a share too short": Cell(
        ("8446-KS-6",),
        share(Group.X25519, bytes(31)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        limited_groups,
    ),
    "an empty share": Cell(
        ("8446-NEG-10",), share(Group.X25519, b""), Alert.DECODE_ERROR, "", limited_groups
    ),
    "a share of small order": Cell(
        ("8446-KS-5",),
        share(Group.X25519, bytes(32)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        limited_groups,
    ),
    "a point off its curve": Cell(
        ("8446-KS-6",),
        share(Group.SECP256R1, b"\x04" + bytes(range(1, 65))),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        lambda: (client(groups=("P-256",)), server()),
    ),
    "a compressed point": Cell(
        ("8446-KS-6",),
        share(Group.SECP256R1, b"\x02" + bytes(32)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        lambda: (client(groups=("P-256",)), server()),
    ),
    "a hybrid share too short": Cell(
        ("8446-KS-6",),
        share(Group.X25519MLKEM768, bytes(1119)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        lambda: (client(groups=("X25519MLKEM768",)), server()),
    ),
    "an answer to nothing": Cell(("8446-NEG-2",), again(0xFAFA, b""), Alert.UNSUPPORTED_EXTENSION, "64250"),
    "a renegotiation answer": Cell(("8446-NEG-2",), again(65281, b"\0"), Alert.UNSUPPORTED_EXTENSION),
    "a pre-shared key": Cell(
        ("8446-NEG-2", "8446-PSK-1"),
        hello_extension(ext.SELECTED_PSK.code, 0),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "a connection id": Cell(
        ("8446-NEG-2", "9146-1"),
        hello_extension(ext.CONNECTION_ID.code, b"x"),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "a cookie": Cell(("8446-NEG-2",), again(44, b"\0\x01c"), Alert.ILLEGAL_PARAMETER, "belong"),
    "a protocol in the wrong message": Cell(
        ("8446-NEG-2",),
        again(16, b"\0\x04\x03b/2"),
        Alert.ILLEGAL_PARAMETER,
        "belong",
        with_alpn,
    ),
    "bytes behind it": Cell(
        ("8446-NEG-10",),
        lambda message, pair: frame(_KT.SERVER_HELLO, message[4:] + b"\0"),
        Alert.DECODE_ERROR,
    ),
    "HelloVerifyRequest": Cell(
        ("9147-5.2-6", "9147-5.2-7"),
        lambda message, pair: frame(_KT.HELLO_VERIFY_REQUEST, b"\xfe\xfd\x14" + bytes(20)),
        Alert.PROTOCOL_VERSION,
        "DTLS 1.2",
        flavors=(DTLS,),
    ),
    "HelloVerifyRequest over a stream": Cell(
        ("9147-5.2-6",),
        lambda message, pair: frame(_KT.HELLO_VERIFY_REQUEST, b"\xfe\xfd\x14" + bytes(20)),
        Alert.UNEXPECTED_MESSAGE,
        flavors=(TLS,),
    ),
}

RETRY: dict[str, Cell] = {
    "that changes nothing": Cell(("8446-NEG-4",), retry(), Alert.ILLEGAL_PARAMETER, "changes nothing"),
    "for a group that was not offered": Cell(
        ("8446-NEG-4",),
        retry(group=Group.SECP384R1),
        Alert.ILLEGAL_PARAMETER,
        "SECP384R1",
        limited_groups,
    ),
    "for a group nobody knows": Cell(("8446-NEG-4",), retry(group=Group(0x0A0A)), Alert.ILLEGAL_PARAMETER),
    "for a group whose share was sent": Cell(
        ("8446-NEG-4",),
        retry(group=Group.X25519, cookie=b"c"),
        Alert.ILLEGAL_PARAMETER,
        "X25519",
        limited_groups,
    ),
    "with another suite": Cell(
        ("8446-NEG-4",),
        retry(suite=CipherSuite.TLS_AES_256_GCM_SHA384, cookie=b"c"),
        Alert.ILLEGAL_PARAMETER,
        "SHA384",
        limited_suites,
    ),
    "with an empty cookie": Cell(
        ("8446-NEG-10",),
        retry(change=extension(ext.COOKIE.code)),
        Alert.DECODE_ERROR,
        "cookie",
    ),
    "with an answer to nothing": Cell(
        ("8446-NEG-2",),
        retry(cookie=b"c", change=extension(0xFAFA)),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "with a protocol": Cell(
        ("8446-NEG-2",),
        retry(cookie=b"c", change=extension(16, b"\0\x04\x03b/2")),
        Alert.ILLEGAL_PARAMETER,
        "belong",
        with_alpn,
    ),
    "without a version": Cell(
        ("8446-NEG-4", "8446-NEG-8"),
        retry(
            cookie=b"c", change=lambda request: replace(request, extensions=without(request.extensions, 43))
        ),
        Alert.PROTOCOL_VERSION,
    ),
    "of another version": Cell(
        ("8446-NEG-4",),
        retry(
            cookie=b"c",
            change=lambda request: replace(request, extensions=put(request.extensions, 43, 0x0303)),
        ),
        Alert.ILLEGAL_PARAMETER,
    ),
    "with another session id": Cell(
        ("8446-NEG-4", "9147-5-1"),
        retry(cookie=b"c", change=lambda request: replace(request, legacy_session_id_echo=bytes(32))),
        Alert.ILLEGAL_PARAMETER,
        "session id",
    ),
    "with compression": Cell(
        ("8446-NEG-4",),
        retry(cookie=b"c", change=lambda request: replace(request, compression_method=1)),
        Alert.ILLEGAL_PARAMETER,
        "compression",
    ),
}


@cells(("ServerHello", HELLO), ("HelloRetryRequest", RETRY))
def test_one_wrong_server_hello(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.SERVER_HELLO, cell, to_server=False)


# --- retries that go on wrongly ----------------------------------------------------------------


def retried(flavor: Flavor) -> tuple[Pair, Delivery]:
    """A pair whose second ServerHello waits to be delivered."""
    pair = Pair(flavor, retrying())
    for _ in range(3):
        pair.step()
    assert server_hello(pair.delivered[1].message).is_retry_request
    return pair, pair.waiting[0]


@each_flavor
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


@each_flavor
@pytest.mark.requirement("8446-NEG-4")
def test_another_suite_than_the_retry_named(flavor: Flavor) -> None:
    pair, answer = retried(flavor)
    pair.waiting.clear()
    hello = replace(server_hello(answer.message), suite=CipherSuite.TLS_CHACHA20_POLY1305_SHA256)
    pair.waiting.append(answer.but(hello.encode()))
    refused(pair, Alert.ILLEGAL_PARAMETER, "another suite than HelloRetryRequest", victim="client")


@each_flavor
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


@each_flavor
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


@each_flavor
def test_the_hello_of_a_client_is_not_what_a_rogue_changes(flavor: Flavor) -> None:
    """The table would prove nothing if an unchanged message were refused as well."""
    for settings in (default, with_alpn, mutual, retrying, limited_groups, limited_suites):
        pair = Pair(flavor, settings(), rogue=lambda delivery: [delivery], run=True)
        assert pair.connected
        assert client_hello(pair.delivered[0].message, flavor).legacy_cookie == b""
