"""A client whose first or second hello is wrong, and the one alert the server has for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sealwire.context import Config
from sealwire.crypto.groups import Group
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.errors import Alert
from sealwire.tls13 import extensions as ext
from sealwire.tls13.extensions import Extension, Extensions, Where
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import (
    ClientHello,
    HandshakeType,
    frame,
)
from sealwire.tls13.selection import retry_request, select
from sealwire.tls13.transcript import message_hash
from sealwire.tls13.values import KeyShareEntry, OfferedPsks, PskIdentity
from tests.unit.tls13.cells import Cell, Change, cells
from tests.unit.tls13.engines import (
    Delivery,
    Pair,
    client,
    client_hello,
    default,
    each_flavor,
    put,
    refused,
    retrying,
    server,
    with_alpn,
    with_raw_extension,
    without,
)

_KT = HandshakeType
HelloChange = Callable[[ClientHello], ClientHello]


def hello(change: HelloChange) -> Change:
    return lambda message, pair: change(client_hello(message, pair.flavor)).encode(pair.flavor)


def dropping(*codes: int) -> Change:
    return hello(lambda message: replace(message, extensions=without(message.extensions, *codes)))


def having(key: Extension[Any], value: object) -> Change:
    return hello(lambda message: replace(message, extensions=put(message.extensions, key.code, value)))


def raw(code: int, body: bytes) -> Change:
    return lambda message, pair: with_raw_extension(
        message, client_hello(message, pair.flavor).extensions, code, body
    )


def versions(**codes: int) -> Change:
    """supported_versions with one version, chosen by protocol."""

    def change(message: bytes, pair: Pair) -> bytes:
        parsed = client_hello(message, pair.flavor)
        version = codes["tls" if pair.flavor is TLS else "dtls"]
        block = put(parsed.extensions, ext.SUPPORTED_VERSIONS.code, (version,))
        return replace(parsed, extensions=block).encode(pair.flavor)

    return change


def older(*, keep_version: bool, extensions: bool = True) -> Change:
    """A hello without supported_versions; with `keep_version` its legacy_version says 1.3."""

    def change(message: bytes, pair: Pair) -> bytes:
        parsed = client_hello(message, pair.flavor)
        version = pair.flavor.version if keep_version else pair.flavor.legacy_version
        parsed = replace(
            parsed, legacy_version=version, extensions=without(parsed.extensions, ext.SUPPORTED_VERSIONS.code)
        )
        if extensions:
            return parsed.encode(pair.flavor)
        bare = replace(parsed, extensions=Extensions(Where.CLIENT_HELLO)).encode(pair.flavor)
        return frame(_KT.CLIENT_HELLO, bare[4:-2])

    return change


def shares(*entries: tuple[Group, int]) -> Change:
    """Other key shares: groups, and the lengths of what stands for their values."""
    return having(ext.KEY_SHARES, tuple(KeyShareEntry(group, bytes(range(1, n + 1))) for group, n in entries))


def psk_in_front(message: ClientHello) -> ClientHello:
    psks = OfferedPsks((PskIdentity(b"i", 0),), (bytes(32),))
    return replace(message, extensions=put(message.extensions, ext.PRE_SHARED_KEYS.code, psks, first=True))


def x25519_only() -> tuple[Config, Config]:
    return client(groups=("X25519", "P-256"), key_shares=("X25519",)), server()


X25519, P256, P384 = Group.X25519, Group.SECP256R1, Group.SECP384R1
HELLO: dict[str, Cell] = {
    "without supported_versions": Cell(
        ("8446-NEG-1",), older(keep_version=False), Alert.PROTOCOL_VERSION, "TLS 1.2"
    ),
    "whose legacy_version says 1.3": Cell(
        ("8446-NEG-1",), older(keep_version=True), Alert.PROTOCOL_VERSION, "supported_versions"
    ),
    "without any extension": Cell(
        ("8446-NEG-1",), older(keep_version=False, extensions=False), Alert.PROTOCOL_VERSION, "TLS 1.2"
    ),
    "of version 1.2": Cell(
        ("8446-NEG-1",), versions(tls=0x0303, dtls=0xFEFD), Alert.PROTOCOL_VERSION, "TLS 1.2"
    ),
    "of version 1.0": Cell(
        ("8446-NEG-1",), versions(tls=0x0301, dtls=0xFEFF), Alert.PROTOCOL_VERSION, "TLS 1.0"
    ),
    "of the other protocol": Cell(
        ("8446-NEG-1", "9147-5.3-2"), versions(tls=0xFEFC, dtls=0x0304), Alert.PROTOCOL_VERSION
    ),
    "without key shares": Cell(
        ("8446-NEG-7",), dropping(ext.KEY_SHARES.code), Alert.MISSING_EXTENSION, "key_share"
    ),
    "without groups": Cell(
        ("8446-NEG-7",), dropping(ext.SUPPORTED_GROUPS.code), Alert.MISSING_EXTENSION, "supported_groups"
    ),
    "without schemes": Cell(
        ("8446-NEG-7",),
        dropping(ext.SIGNATURE_ALGORITHMS.code),
        Alert.MISSING_EXTENSION,
        "signature_algorithms",
    ),
    "without schemes where a retry is due": Cell(
        ("8446-NEG-7",),
        dropping(ext.SIGNATURE_ALGORITHMS.code),
        Alert.MISSING_EXTENSION,
        "signature_algorithms",
        retrying,
    ),
    "with compression": Cell(
        ("8446-NEG-10",),
        hello(lambda message: replace(message, compression_methods=b"\1\0")),
        Alert.ILLEGAL_PARAMETER,
        "compression",
    ),
    "with compression only": Cell(
        ("8446-NEG-10",),
        hello(lambda message: replace(message, compression_methods=b"\1")),
        Alert.ILLEGAL_PARAMETER,
        "compression",
    ),
    "without a compression method": Cell(
        ("8446-NEG-10",),
        hello(lambda message: replace(message, compression_methods=b"")),
        Alert.DECODE_ERROR,
    ),
    "with a legacy_cookie": Cell(
        ("9147-5.3-7",),
        hello(lambda message: replace(message, legacy_cookie=b"c")),
        Alert.ILLEGAL_PARAMETER,
        "legacy_cookie",
        flavors=(DTLS,),
    ),
    "with a cookie": Cell(
        ("9147-5.1-3", "9147-5.1-10"), having(ext.COOKIE, b"c"), Alert.ILLEGAL_PARAMETER, "cookie"
    ),
    "with a session id too long": Cell(
        ("8446-NEG-10",),
        hello(lambda message: replace(message, legacy_session_id=bytes(33))),
        Alert.DECODE_ERROR,
    ),
    "without suites": Cell(
        ("8446-NEG-10",), hello(lambda message: replace(message, suites=())), Alert.DECODE_ERROR
    ),
    "with suites nobody knows": Cell(
        ("8446-NEG-1",),
        hello(lambda message: replace(message, suites=(CipherSuite(0x0A0A), CipherSuite(0xC02F)))),
        Alert.HANDSHAKE_FAILURE,
        "suite",
    ),
    "with groups nobody knows": Cell(
        ("8446-NEG-1",),
        hello(
            lambda message: replace(
                message,
                extensions=put(put(message.extensions, 10, (Group(0x0A0A), Group(0x0100))), 51, ()),
            )
        ),
        Alert.HANDSHAKE_FAILURE,
        "group",
    ),
    "with schemes nobody knows": Cell(
        ("8446-NEG-1",),
        having(ext.SIGNATURE_ALGORITHMS, (SignatureScheme(0x0A0A),)),
        Alert.HANDSHAKE_FAILURE,
        "scheme",
    ),
    "with schemes our key cannot make": Cell(
        ("8446-AUTH-1",),
        having(ext.SIGNATURE_ALGORITHMS, (SignatureScheme.RSA_PSS_RSAE_SHA256, SignatureScheme.ED25519)),
        Alert.HANDSHAKE_FAILURE,
        "scheme",
    ),
    "with two shares for a group": Cell(
        ("8446-NEG-6",), shares((X25519, 32), (X25519, 32)), Alert.ILLEGAL_PARAMETER, "repeat"
    ),
    "with two shares for a group nobody knows": Cell(
        ("8446-NEG-6",),
        hello(
            lambda message: replace(
                message,
                extensions=put(
                    put(message.extensions, 10, (X25519, Group(0x0A0A))),
                    51,
                    (*message.extensions.require(ext.KEY_SHARES),)
                    + (KeyShareEntry(Group(0x0A0A), b"x"),) * 2,
                ),
            )
        ),
        Alert.ILLEGAL_PARAMETER,
        "repeat",
        x25519_only,
    ),
    "with a share for a group it does not support": Cell(
        ("8446-NEG-6",),
        shares((X25519, 32), (P384, 97)),
        Alert.ILLEGAL_PARAMETER,
        "supported_groups",
        x25519_only,
    ),
    "with a share too short": Cell(
        ("8446-KS-6",), shares((X25519, 31)), Alert.ILLEGAL_PARAMETER, "invalid", x25519_only
    ),
    "with a share too long": Cell(
        ("8446-KS-6",), shares((X25519, 33)), Alert.ILLEGAL_PARAMETER, "invalid", x25519_only
    ),
    "with an empty share": Cell(("8446-NEG-10",), shares((X25519, 0)), Alert.DECODE_ERROR, "", x25519_only),
    "with a share of small order": Cell(
        ("8446-KS-5",),
        having(ext.KEY_SHARES, (KeyShareEntry(X25519, bytes(32)),)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
        x25519_only,
    ),
    "with a point off its curve": Cell(
        ("8446-KS-6",), shares((P256, 65)), Alert.ILLEGAL_PARAMETER, "invalid", x25519_only
    ),
    "with a hybrid share that is none": Cell(
        ("8446-KS-6",),
        having(ext.KEY_SHARES, (KeyShareEntry(Group.X25519MLKEM768, b"\xff" * 1216),)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
    ),
    "with a hybrid share too short": Cell(
        ("8446-KS-6",),
        having(ext.KEY_SHARES, (KeyShareEntry(Group.X25519MLKEM768, bytes(1215)),)),
        Alert.ILLEGAL_PARAMETER,
        "invalid",
    ),
    "with an extension twice": Cell(
        ("8446-NEG-2",), raw(10, b"\0\2\0\x1d"), Alert.ILLEGAL_PARAMETER, "repeats"
    ),
    "with an unknown extension twice": Cell(
        ("8446-NEG-2",),
        lambda message, pair: raw(0x0A0A, b"")(having_unknown(message, pair), pair),
        Alert.ILLEGAL_PARAMETER,
        "repeats",
    ),
    "with a pre-shared key that is not last": Cell(
        ("8446-NEG-2",), hello(psk_in_front), Alert.ILLEGAL_PARAMETER, "last"
    ),
    "with other protocols only": Cell(
        ("8446-NEG-9",),
        having(ext.ALPN, (b"a/1", b"B/2", b"b/2 ")),
        Alert.NO_APPLICATION_PROTOCOL,
        "",
        with_alpn,
    ),
    "with no protocol in the list": Cell(
        ("8446-NEG-10",), having(ext.ALPN, ()), Alert.DECODE_ERROR, "", with_alpn
    ),
    "with a name that is not ASCII": Cell(
        ("6066-1",),
        lambda message, pair: raw(0, bytes.fromhex("0004000001e9"))(dropping(0)(message, pair), pair),
        Alert.ILLEGAL_PARAMETER,
        "host name",
    ),
    "with a name that holds a NUL": Cell(
        ("6066-1",),
        lambda message, pair: raw(0, bytes.fromhex("000600000361006a"))(dropping(0)(message, pair), pair),
        Alert.ILLEGAL_PARAMETER,
        "host name",
    ),
    "with bytes behind it": Cell(
        ("8446-NEG-10",),
        lambda message, pair: frame(_KT.CLIENT_HELLO, message[4:] + b"\0"),
        Alert.DECODE_ERROR,
    ),
    "in the other protocol's shape": Cell(
        ("8446-NEG-10",),
        lambda message, pair: client_hello(message, pair.flavor).encode(DTLS if pair.flavor is TLS else TLS),
        Alert.DECODE_ERROR,
    ),
}


def having_unknown(message: bytes, pair: Pair) -> bytes:
    return raw(0x0A0A, b"")(message, pair)


@cells(("ClientHello", HELLO))
def test_one_wrong_hello(flavor: Flavor, cell: Cell) -> None:
    pair = Pair(flavor, cell.settings())
    delivery = pair.waiting.popleft()
    message = cell.change(delivery.message, pair)
    refused(pair, cell.alert, cell.match, victim="server", act=lambda: pair.deliver(delivery.but(message)))
    assert pair.server.outputs() == []


# --- the second hello --------------------------------------------------------------------------


def reordered(message: ClientHello) -> ClientHello:
    return replace(message, suites=message.suites[::-1])


def second_share(message: ClientHello) -> ClientHello:
    entries = message.extensions.require(ext.KEY_SHARES)
    other = KeyShareEntry(X25519, bytes(range(32)))
    return replace(message, extensions=put(message.extensions, 51, (*entries, other)))


SECOND: dict[str, Cell] = {
    "with another random": Cell(
        ("8446-NEG-5", "9147-5.1-4"),
        hello(lambda message: replace(message, random=bytes(32))),
        Alert.ILLEGAL_PARAMETER,
        "changes",
    ),
    "with another session id": Cell(
        ("8446-NEG-5",),
        hello(lambda message: replace(message, legacy_session_id=bytes(32))),
        Alert.ILLEGAL_PARAMETER,
        "changes",
    ),
    "with another legacy_version": Cell(
        ("8446-NEG-5",),
        hello(lambda message: replace(message, legacy_version=0x0301)),
        Alert.ILLEGAL_PARAMETER,
        "changes",
    ),
    "with suites in another order": Cell(
        ("8446-NEG-5",), hello(reordered), Alert.ILLEGAL_PARAMETER, "changes"
    ),
    "without the selected suite": Cell(
        ("8446-NEG-5",),
        hello(lambda message: replace(message, suites=message.suites[1:])),
        Alert.ILLEGAL_PARAMETER,
        "changes",
    ),
    "with compression": Cell(
        ("8446-NEG-5",),
        hello(lambda message: replace(message, compression_methods=b"\1\0")),
        Alert.ILLEGAL_PARAMETER,
    ),
    "with a legacy_cookie": Cell(
        ("9147-5.3-7",),
        hello(lambda message: replace(message, legacy_cookie=b"c")),
        Alert.ILLEGAL_PARAMETER,
        flavors=(DTLS,),
    ),
    "for another name": Cell(
        ("8446-NEG-5",), having(ext.SERVER_NAME, "other.example"), Alert.ILLEGAL_PARAMETER, "changes"
    ),
    "without its name": Cell(("8446-NEG-5",), dropping(0), Alert.ILLEGAL_PARAMETER, "changes"),
    "with other groups": Cell(
        ("8446-NEG-5",), having(ext.SUPPORTED_GROUPS, (P256,)), Alert.ILLEGAL_PARAMETER, "changes"
    ),
    "with other schemes": Cell(
        ("8446-NEG-5",),
        having(ext.SIGNATURE_ALGORITHMS, (SignatureScheme.ECDSA_SECP256R1_SHA256,)),
        Alert.ILLEGAL_PARAMETER,
        "changes",
    ),
    "with other versions": Cell(
        ("8446-NEG-5",),
        hello(
            lambda message: replace(
                message,
                extensions=put(
                    message.extensions, 43, (*message.extensions.require(ext.SUPPORTED_VERSIONS), 0x0303)
                ),
            )
        ),
        Alert.ILLEGAL_PARAMETER,
        "changes",
    ),
    "of an older version": Cell(
        ("8446-NEG-5",), versions(tls=0x0303, dtls=0xFEFD), Alert.ILLEGAL_PARAMETER, "changes"
    ),
    "with protocols that were not there": Cell(
        ("8446-NEG-5",), having(ext.ALPN, (b"b/2",)), Alert.ILLEGAL_PARAMETER, "changes"
    ),
    "with an unknown extension that was not there": Cell(
        ("8446-NEG-5",), raw(0x0A0A, b""), Alert.ILLEGAL_PARAMETER, "changes"
    ),
    "with a cookie nobody gave": Cell(
        ("8446-NEG-5",), having(ext.COOKIE, b"c"), Alert.ILLEGAL_PARAMETER, "changes"
    ),
    "with early data": Cell(
        ("8446-NEG-5", "8446-0RTT-3"), having(ext.EARLY_DATA, True), Alert.ILLEGAL_PARAMETER, "early data"
    ),
    "with the first one's share": Cell(
        ("8446-NEG-5",), shares((X25519, 32)), Alert.ILLEGAL_PARAMETER, "SECP256R1 alone"
    ),
    "with one share more": Cell(
        ("8446-NEG-5",), hello(second_share), Alert.ILLEGAL_PARAMETER, "SECP256R1 alone"
    ),
    "with an empty list of shares": Cell(
        ("8446-NEG-5",), having(ext.KEY_SHARES, ()), Alert.ILLEGAL_PARAMETER, "SECP256R1 alone"
    ),
    "without shares": Cell(("8446-NEG-5",), dropping(51), Alert.MISSING_EXTENSION),
    "with a share off its curve": Cell(
        ("8446-KS-6",), shares((P256, 65)), Alert.ILLEGAL_PARAMETER, "invalid"
    ),
}


@cells(("second ClientHello", SECOND))
def test_one_wrong_second_hello(flavor: Flavor, cell: Cell) -> None:
    pair = Pair(flavor, retrying())
    pair.step()
    pair.step()
    delivery = pair.waiting.popleft()
    message = cell.change(delivery.message, pair)
    assert message != delivery.message
    pair.collect()
    refused(pair, cell.alert, cell.match, victim="server", act=lambda: pair.deliver(delivery.but(message)))


@each_flavor
@pytest.mark.requirement("8446-NEG-5")
def test_a_second_hello_may_change_its_padding_and_its_order(flavor: Flavor) -> None:
    """wolfSSL sends the extensions of its second hello in another order."""
    pair = Pair(flavor, retrying())
    pair.step()
    pair.step()
    delivery = pair.waiting.popleft()
    parsed = client_hello(delivery.message, flavor)
    block = parsed.extensions
    for code in list(block)[::-1]:
        value = block._entries[code]
        block = put(without(block, code), code, value)
    block = put(block, ext.PADDING_CODE, bytes(40))
    pair.deliver(delivery.but(replace(parsed, extensions=block).encode(flavor)))
    assert pair.waiting[0].kind is _KT.SERVER_HELLO


COOKIE: dict[str, Cell] = {
    "without the suite of the cookie": Cell(
        ("8446-NEG-5", "9147-5.1-4"),
        hello(lambda message: replace(message, suites=message.suites[1:])),
        Alert.ILLEGAL_PARAMETER,
        "suite",
    ),
    "with early data": Cell(
        ("8446-0RTT-3",), having(ext.EARLY_DATA, True), Alert.ILLEGAL_PARAMETER, "early data"
    ),
    "with another share": Cell(
        ("8446-NEG-5",), shares((X25519, 32)), Alert.ILLEGAL_PARAMETER, "SECP256R1 alone"
    ),
    "of an older version": Cell(("8446-NEG-5",), versions(tls=0x0303, dtls=0xFEFD), Alert.PROTOCOL_VERSION),
    "without groups": Cell(("8446-NEG-7",), dropping(10), Alert.MISSING_EXTENSION),
    "with a legacy_cookie": Cell(
        ("9147-5.3-7",),
        hello(lambda message: replace(message, legacy_cookie=b"c")),
        Alert.ILLEGAL_PARAMETER,
        "legacy_cookie",
        flavors=(DTLS,),
    ),
}


def from_cookie(
    flavor: Flavor, group: Group | None, settings: tuple[Config, Config] | None = None
) -> tuple[Pair, Delivery]:
    """A server that knows the first hello from a cookie, and the second one on its way to it."""
    settings = settings or (retrying() if group is not None else default())
    pair = Pair(flavor, settings)
    first = pair.waiting.popleft()
    hello = client_hello(first.message, flavor)
    suite, session_id = select(settings[1], hello).spec.suite, hello.legacy_session_id
    request = retry_request(flavor, session_id, suite, group, b"cookie")
    pair.client.receive(0, request)
    pair.server = Handshake.from_cookie(
        settings[1],
        flavor,
        suite=suite,
        group=group,
        client_hello_1_hash=message_hash(settings[1].provider, SUITES[suite], first.message),
        hello_retry_request=request,
    )
    pair.collect()
    return pair, pair.waiting.popleft()


@cells(("ClientHello with cookie", COOKIE))
def test_one_wrong_hello_with_a_cookie(flavor: Flavor, cell: Cell) -> None:
    pair, delivery = from_cookie(flavor, P256)
    message = cell.change(delivery.message, pair)
    refused(pair, cell.alert, cell.match, victim="server", act=lambda: pair.deliver(delivery.but(message)))


@each_flavor
@pytest.mark.requirement("8446-NEG-5")
def test_a_cookie_that_asked_for_no_group_needs_a_usable_share(flavor: Flavor) -> None:
    pair, delivery = from_cookie(flavor, None)
    message = having(ext.KEY_SHARES, ())(delivery.message, pair)
    refused(
        pair,
        Alert.ILLEGAL_PARAMETER,
        "no usable key share",
        victim="server",
        act=lambda: pair.deliver(delivery.but(message)),
    )


@each_flavor
@pytest.mark.requirement("8446-NEG-5", "8446-KS-3")
def test_what_a_cookie_cannot_bind_shows_in_finished(flavor: Flavor) -> None:
    """Another first hello than the cookie was made for: no transcript fits both sides."""
    pair, delivery = from_cookie(flavor, P256)
    other = Pair(flavor, retrying()).waiting[0].message
    settings = retrying()[1]
    request = retry_request(
        flavor,
        client_hello(delivery.message, flavor).legacy_session_id,
        settings.suites[0],
        P256,
        b"cookie",
    )
    pair.server = Handshake.from_cookie(
        settings,
        flavor,
        suite=settings.suites[0],
        group=P256,
        client_hello_1_hash=message_hash(settings.provider, SUITES[settings.suites[0]], other),
        hello_retry_request=request,
    )
    pair.waiting.append(delivery)
    # The client cannot even open the answer; in memory its signature is the first thing to fail.
    refused(pair, Alert.DECRYPT_ERROR, victim="client")
