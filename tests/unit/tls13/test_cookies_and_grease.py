"""Retries that keep nothing but a cookie, and hellos full of values nobody knows, of others and of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sealwire.context import Config
from sealwire.crypto.groups import Group
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.suites import CipherSuite
from sealwire.errors import Alert
from sealwire.tls13 import client as client_states
from sealwire.tls13 import extensions as ext
from sealwire.tls13.flavor import DTLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import ClientHello, EncryptedExtensions, HandshakeType
from sealwire.tls13.selection import retry_request, select
from sealwire.tls13.transcript import message_hash
from sealwire.tls13.values import KeyShareEntry
from tests.unit.tls13.engines import (
    Pair,
    certificate_request,
    client,
    client_hello,
    default,
    each_flavor,
    encrypted_extensions,
    mutual,
    mutual_retrying,
    put,
    refused,
    server,
    server_hello,
)
from tests.unit.tls13.test_tickets import World, first_ticket
from tests.unit.tls13.test_tickets import run as resumed

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
    block = put(block, ext.KEY_SHARES.code, (KeyShareEntry(Group(0x0A0A), b"\0"), *shares))
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


@pytest.mark.requirement("8701-1")
@each_flavor
@pytest.mark.parametrize("retried", [False, True], ids=["at once", "retried"])
def test_a_client_makes_values_up(flavor: Flavor, retried: bool) -> None:
    """One in each list, others each time, and a server that follows the protocol sees none of them."""
    seen: list[frozenset[int]] = []
    for _ in range(6):
        ours = replace(client(groups=("X25519", "P-256"), key_shares=("X25519",)), grease=True)
        pair = Pair(flavor, (ours, server(groups=("P-256",) if retried else ("X25519",))), run=True)
        assert pair.connected
        assert pair.server.session.retried is retried
        hellos = [client_hello(one.message, flavor) for one in pair.delivered if one.kind is _KT.CLIENT_HELLO]
        assert len(hellos) == 1 + retried
        for hello in hellos:
            block = hello.extensions
            shares = [entry.group for entry in block.require(ext.KEY_SHARES)]
            made_up = [code for code in block if code in ext.GREASE_VALUES]
            assert len(made_up) == 2
            assert next(iter(block)) == ext.SUPPORTED_VERSIONS.code
            groups = block.require(ext.SUPPORTED_GROUPS)
            schemes = block.require(ext.SIGNATURE_ALGORITHMS)
            lists: tuple[tuple[int, ...], ...] = (
                hello.suites,
                block.require(ext.SUPPORTED_VERSIONS),
                groups,
                schemes,
            )
            for values in lists:
                assert [code in ext.GREASE_VALUES for code in values] == [True] + [False] * (len(values) - 1)
            # A group that was asked for has the one share of the second hello.
            assert (shares[0] in ext.GREASE_VALUES) is (hello is hellos[0])
            assert shares[0] == groups[0] or hello is not hellos[0]
        seen.append(frozenset(int(values[0]) for values in lists) | frozenset(made_up))
    assert len(set(seen)) > 1
    quiet = client_hello(Pair(flavor).waiting[0].message, flavor)
    assert not ext.GREASE_VALUES & {*quiet.suites, *quiet.extensions}


@pytest.mark.requirement("8701-1")
@each_flavor
def test_with_a_ticket_its_key_still_stands_last(flavor: Flavor) -> None:
    world = World.make()
    world = replace(world, client=replace(world.client, grease=True))
    ticket = first_ticket(world, flavor)
    ours, _, _ = resumed(world, flavor, ticket)
    assert ours.session.resumed


def _answers_with_made_up_suite(message: bytes, hello: ClientHello) -> bytes:
    return replace(server_hello(message), suite=hello.suites[0]).encode()


def _answers_with_made_up_version(message: bytes, hello: ClientHello) -> bytes:
    answer = server_hello(message)
    version = hello.extensions.require(ext.SUPPORTED_VERSIONS)[0]
    return replace(answer, extensions=put(answer.extensions, ext.SELECTED_VERSION.code, version)).encode()


def _answers_with_made_up_group(message: bytes, hello: ClientHello) -> bytes:
    answer = server_hello(message)
    entry = hello.extensions.require(ext.KEY_SHARES)[0]
    return replace(answer, extensions=put(answer.extensions, ext.KEY_SHARE.code, entry)).encode()


def _answers_made_up_extension(message: bytes, hello: ClientHello) -> bytes:
    answer = server_hello(message)
    code = next(code for code in hello.extensions if code in ext.GREASE_VALUES)
    return replace(answer, extensions=put(answer.extensions, code, b"")).encode()


@pytest.mark.requirement("8701-1", "8446-NEG-3")
@each_flavor
@pytest.mark.parametrize(
    ("change", "alert"),
    [
        (_answers_with_made_up_suite, Alert.ILLEGAL_PARAMETER),
        (_answers_with_made_up_version, Alert.ILLEGAL_PARAMETER),
        (_answers_with_made_up_group, Alert.ILLEGAL_PARAMETER),
        (_answers_made_up_extension, Alert.UNSUPPORTED_EXTENSION),
    ],
)
def test_a_server_that_takes_one_is_refused(
    flavor: Flavor, change: Callable[[bytes, ClientHello], bytes], alert: Alert
) -> None:
    ours, theirs = default()
    pair = Pair(flavor, (replace(ours, grease=True), theirs))
    hello = client_hello(pair.waiting[0].message, flavor)
    delivery = pair.run_until(_KT.SERVER_HELLO, to_server=False)
    pair.waiting.clear()
    pair.waiting.append(delivery.but(change(delivery.message, hello)))
    refused(pair, alert, victim="client")


@pytest.mark.requirement("8701-1", "8446-NEG-2")
@each_flavor
def test_encrypted_extensions_that_answer_one_are_refused(flavor: Flavor) -> None:
    ours, theirs = default()
    pair = Pair(flavor, (replace(ours, grease=True), theirs))
    hello = client_hello(pair.waiting[0].message, flavor)
    code = next(code for code in hello.extensions if code in ext.GREASE_VALUES)
    delivery = pair.run_until(_KT.ENCRYPTED_EXTENSIONS, to_server=False)
    pair.waiting.clear()
    block = put(encrypted_extensions(delivery.message).extensions, code, b"")
    pair.waiting.append(delivery.but(EncryptedExtensions(block).encode()))
    refused(pair, Alert.UNSUPPORTED_EXTENSION, victim="client")
