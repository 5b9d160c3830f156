"""Encrypted ClientHello (HS-19), delegated credentials (HS-20): not spoken here, nobody is lured into them.

A client asks for neither, and refuses both whatever they hold; a server passes requests over, whatever they
hold, and answers as if they were not there.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealwire.errors import Alert
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.messages import EncryptedExtensions, HandshakeType
from tests.unit.tls13.engines import (
    Pair,
    certificate,
    client_hello,
    default,
    each_flavor,
    encrypted_extensions,
    put,
    refused,
    retrying,
    server_hello,
)

_KT = HandshakeType
ENCRYPTED_CLIENT_HELLO = 0xFE0D
OUTER_EXTENSIONS = 0xFD00
DELEGATED_CREDENTIAL = 34

# An outer hello with nothing behind it; an inner one; a reference to itself; noise; nothing.
HELLOS = {
    "outer, cut short": bytes.fromhex("00 0001 0001 00 0000"),
    "inner, where there is no outer": b"\x01",
    "outer, with 40 KB that nobody opens": bytes.fromhex("00 0001 0001 07 0000 9c40") + bytes(40_000),
    "of a kind nobody knows": b"\xff" * 9,
    "empty": b"",
}
# valid_time of 68 years, scheme 0x0403, a key of no bytes, a signature by scheme 0x0000; and others.
CREDENTIALS = {
    "for too long": bytes.fromhex("7fffffff 0403 000000 0403 0000"),
    "with a scheme nobody offered": bytes.fromhex("00015180 0201 000000 0201 0000"),
    "cut short": b"\x00",
    "empty": b"",
}


def with_extension(pair: Pair, code: int, body: bytes) -> None:
    """The client's first hello, with one more extension."""
    first = pair.waiting[0]
    hello = client_hello(first.message, pair.flavor)
    changed = replace(hello, extensions=put(hello.extensions, code, body))
    pair.waiting[0] = first.but(changed.encode(pair.flavor))


@each_flavor
def test_a_client_asks_for_neither(flavor: Flavor) -> None:
    block = client_hello(Pair(flavor).waiting[0].message, flavor).extensions
    assert {ENCRYPTED_CLIENT_HELLO, OUTER_EXTENSIONS, DELEGATED_CREDENTIAL}.isdisjoint(block)


@pytest.mark.parametrize("body", HELLOS.values(), ids=list(HELLOS))
@pytest.mark.parametrize("code", [ENCRYPTED_CLIENT_HELLO, OUTER_EXTENSIONS])
@each_flavor
def test_a_server_passes_encrypted_hellos_over(flavor: Flavor, code: int, body: bytes) -> None:
    """It reads the outer hello alone, and says nothing of keys to retry with, as RFC 9849 wants of it."""
    pair = Pair(flavor)
    with_extension(pair, code, body)
    pair.step()
    hello, extensions, shown = list(pair.waiting)[:3]
    assert code not in server_hello(hello.message).extensions
    assert code not in encrypted_extensions(extensions.message).extensions
    assert all(code not in entry.extensions for entry in certificate(shown.message).entries)


@pytest.mark.parametrize("body", HELLOS.values(), ids=list(HELLOS))
@each_flavor
def test_a_client_refuses_an_acceptance(flavor: Flavor, body: bytes) -> None:
    """Keys to retry with in EncryptedExtensions; a confirmation in HelloRetryRequest."""
    pair = Pair(flavor)
    delivery = pair.run_until(_KT.ENCRYPTED_EXTENSIONS, to_server=False)
    pair.waiting.clear()
    block = put(encrypted_extensions(delivery.message).extensions, ENCRYPTED_CLIENT_HELLO, body[:600])
    pair.waiting.append(delivery.but(EncryptedExtensions(block).encode()))
    refused(pair, Alert.UNSUPPORTED_EXTENSION, victim="client")

    pair = Pair(flavor, retrying())
    delivery = pair.run_until(_KT.SERVER_HELLO, to_server=False)
    pair.waiting.clear()
    request = server_hello(delivery.message)
    assert request.is_retry_request
    changed = replace(request, extensions=put(request.extensions, ENCRYPTED_CLIENT_HELLO, body[:8]))
    pair.waiting.append(delivery.but(changed.encode()))
    refused(pair, Alert.UNSUPPORTED_EXTENSION, victim="client")


@pytest.mark.parametrize("body", CREDENTIALS.values(), ids=list(CREDENTIALS))
@each_flavor
def test_a_client_refuses_delegated_credentials(flavor: Flavor, body: bytes) -> None:
    pair = Pair(flavor, default())
    delivery = pair.run_until(_KT.CERTIFICATE, to_server=False)
    pair.waiting.clear()
    shown = certificate(delivery.message)
    leaf, *others = shown.entries
    leaf = replace(leaf, extensions=put(leaf.extensions, DELEGATED_CREDENTIAL, body))
    pair.waiting.append(delivery.but(replace(shown, entries=(leaf, *others)).encode()))
    refused(pair, Alert.UNSUPPORTED_EXTENSION, victim="client")


@each_flavor
def test_a_server_shows_none(flavor: Flavor) -> None:
    """Whoever asks for one, by the schemes it would take, sees the certificate."""
    pair = Pair(flavor)
    with_extension(pair, DELEGATED_CREDENTIAL, bytes.fromhex("0004 0403 0804"))
    pair.step()
    (message,) = [one.message for one in pair.waiting if one.kind is _KT.CERTIFICATE]
    assert all(DELEGATED_CREDENTIAL not in entry.extensions for entry in certificate(message).entries)
