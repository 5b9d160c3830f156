"""Retries that keep nothing but a cookie, and hellos full of values nobody knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealwire.context import Config
from sealwire.crypto.groups import Group
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.suites import CipherSuite
from sealwire.tls13 import client as client_states
from sealwire.tls13 import extensions as ext
from sealwire.tls13.flavor import DTLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import HandshakeType
from sealwire.tls13.selection import retry_request, select
from sealwire.tls13.transcript import message_hash
from tests.unit.tls13.engines import (
    Pair,
    certificate_request,
    client,
    client_hello,
    default,
    each_flavor,
    mutual,
    mutual_retrying,
    put,
    server,
)

_KT = HandshakeType


def _through_cookie(
    flavor: Flavor, settings: tuple[Config, Config], cookie: bytes, *, ask_group: bool
) -> Pair:
    """As `dtls.gate` does it: the first hello is answered and forgotten."""
    pair = Pair(flavor, settings)
    first = pair.waiting.popleft()
    hello = client_hello(first.message, flavor)
    selection = select(settings[1], hello, retry_anyway=True)
    group = selection.group if ask_group else None
    suite = selection.spec.suite
    session_id = hello.legacy_session_id if flavor.compatibility_mode else b""
    request = retry_request(flavor, session_id, suite, group, cookie)
    pair.client.receive(0, request)
    pair.server = Handshake.from_cookie(
        settings[1],
        flavor,
        suite=suite,
        group=group,
        client_hello_1_hash=message_hash(settings[1].provider, selection.spec, first.message),
        hello_retry_request=request,
    )
    pair.collect()
    return pair


@each_flavor
@pytest.mark.requirement("9147-5.1-1", "9147-5.1-2", "9147-5.1-14", "9147-5.1-9")
@pytest.mark.parametrize("ask_group", [False, True], ids=["cookie", "cookie and group"])
def test_from_cookie(flavor: Flavor, ask_group: bool) -> None:
    settings = mutual_retrying() if ask_group else mutual()
    pair = _through_cookie(flavor, settings, b"c" * 300, ask_group=ask_group)
    hello = client_hello(pair.waiting[0].message, flavor)
    assert hello.extensions.get(ext.COOKIE) == b"c" * 300
    # Both lie in front, where the first fragment of a split hello has them.
    assert list(hello.extensions)[:2] == [ext.SUPPORTED_VERSIONS.code, ext.COOKIE.code]
    pair.run()
    assert pair.connected
    assert pair.client.session.retried
    assert pair.server.session.retried
    assert pair.client.export(b"EXPERIMENTAL", b"", 32) == pair.server.export(b"EXPERIMENTAL", b"", 32)
    pair.assert_same_keys()


@pytest.mark.requirement("9147-5.1-4")
def test_a_cookie_alone_leaves_the_key_share_as_it_was() -> None:
    pair = Pair(DTLS)
    first = client_hello(pair.waiting[0].message, DTLS)
    second = client_hello(_through_cookie(DTLS, default(), b"c", ask_group=False).waiting[0].message, DTLS)
    assert first.extensions.require(ext.KEY_SHARES) != second.extensions.require(ext.KEY_SHARES)
    pair.client.receive(0, retry_request(DTLS, b"", CipherSuite.TLS_AES_128_GCM_SHA256, None, b"c"))
    pair.waiting.clear()
    pair.collect()
    second = client_hello(pair.waiting[0].message, DTLS)
    assert first.extensions.require(ext.KEY_SHARES) == second.extensions.require(ext.KEY_SHARES)
    assert replace(first, extensions=second.extensions) == second


# --- GREASE ------------------------------------------------------------------------------------

GREASE_U16 = [code * 0x0101 for code in range(0x0A, 0x100, 0x10)]


def _greased(flavor: Flavor, settings: tuple[Config, Config]) -> Pair:
    """A client whose hello holds values nobody knows wherever there is a list (RFC 8701)."""
    pair = Pair(flavor, settings)
    state = pair.client._state
    assert isinstance(state, client_states.ExpectServerHello)
    hello = state.offer.hello
    block = hello.extensions
    for key in (ext.SUPPORTED_VERSIONS, ext.SUPPORTED_GROUPS, ext.SIGNATURE_ALGORITHMS):
        block = put(block, key.code, (*GREASE_U16, *block.require(key), *GREASE_U16))  # type: ignore[misc]
    block = put(block, ext.ALPN.code, (b"\x0a\x0a", b"b/2"))
    shares = block.require(ext.KEY_SHARES)
    block = put(block, ext.KEY_SHARES.code, (ext.KeyShareEntry(Group(0x0A0A), b"\0"), *shares))
    block = put(block, 0x0A0A, b"", first=True)
    for code in GREASE_U16[1:]:
        block = put(block, code, bytes(code & 7))
    suites = (*(CipherSuite(code) for code in GREASE_U16), *hello.suites)
    hello = replace(hello, extensions=block, suites=suites)
    offer = client_states.Offer(hello, hello.encode(flavor), state.offer.shares, ())
    pair.client._state = client_states.ExpectServerHello(state.exchange, state.target, offer)
    pair.waiting[0] = pair.waiting[0].but(offer.message)
    return pair


@each_flavor
@pytest.mark.requirement("8446-NEG-1", "8447/9847-1")
@pytest.mark.parametrize("retried", [False, True], ids=["at once", "retried"])
def test_values_nobody_knows_are_ignored(flavor: Flavor, retried: bool) -> None:
    ours = client(alpn=("b/2",), groups=("X25519", "P-256"), key_shares=("X25519",))
    theirs = server(alpn=("b/2",), groups=("P-256",) if retried else ("X25519",))
    pair = _greased(flavor, (ours, theirs))
    pair.run()
    assert pair.connected
    assert pair.server.session.alpn == b"b/2"
    assert pair.server.session.retried is retried
    if retried:
        second = client_hello(pair.delivered[2].message, flavor)
        assert set(GREASE_U16) <= set(second.extensions)


@each_flavor
@pytest.mark.requirement("8446-NEG-1", "8446-AUTH-7")
def test_unknown_extensions_of_a_certificate_request_are_ignored(flavor: Flavor) -> None:
    pair = Pair(flavor, mutual())
    delivery = pair.run_until(_KT.CERTIFICATE_REQUEST, to_server=False)
    pair.waiting.popleft()
    request = certificate_request(delivery.message)
    block = put(put(request.extensions, 0x7A7A, b"x"), 48, b"oid filters")
    block = put(block, ext.CERTIFICATE_AUTHORITIES.code, (b"\x30\x00",))
    block = put(block, ext.SIGNATURE_ALGORITHMS_CERT.code, (SignatureScheme(0x0403),))
    pair.deliver(delivery.but(replace(request, extensions=block).encode()))
