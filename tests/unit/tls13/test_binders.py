"""Binders worked out a second time from the bytes on the wire, with nothing but hashlib and hmac."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from sealwire.crypto.psk import ExternalPsk
from sealwire.tls13 import extensions as ext
from sealwire.tls13.flavor import TLS, Flavor
from sealwire.tls13.messages import HandshakeType
from tests import psks
from tests.psks import SECRET
from tests.unit.tls13.engines import Pair, client_hello, each_flavor


def extract(name: str, salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt, secret, name)


def expand_label(name: str, flavor: Flavor, secret: bytes, label: bytes, context: bytes, n: int) -> bytes:
    """RFC 8446 section 7.1; the prefix is that of RFC 9147 section 5.9 for DTLS."""
    full = (b"tls13 " if flavor is TLS else b"dtls13") + label
    info = n.to_bytes(2, "big") + bytes((len(full),)) + full + bytes((len(context),)) + context
    assert n <= hashlib.new(name).digest_size
    return hmac.digest(secret, info + b"\x01", name)[:n]


def binder(
    flavor: Flavor, name: str, label: bytes, secret: bytes, before: list[bytes], hello: bytes
) -> bytes:
    """The one binder of `hello`, its last bytes; `before` are a first hello and its retry."""
    n = hashlib.new(name).digest_size
    covered = hello[: -(2 + 1 + n)]
    if before:
        first, retry = before
        # RFC 8446 section 4.4.1: message_hash stands for the first hello.
        covered = b"\xfe\x00\x00" + bytes((n,)) + hashlib.new(name, first).digest() + retry + covered
    early = extract(name, bytes(n), secret)
    key = expand_label(name, flavor, early, label, hashlib.new(name).digest(), n)
    finished = expand_label(name, flavor, key, b"finished", b"", n)
    return hmac.digest(finished, hashlib.new(name, covered).digest(), name)


def imported_secret(flavor: Flavor, identity: bytes, context: bytes) -> tuple[bytes, bytes]:
    """RFC 9258 section 5.1, from SHA-256 for SHA-256: the identity on the wire and the key."""
    protocol = b"\x03\x04" if flavor is TLS else b"\xfe\xfc"
    wire = b"".join(len(one).to_bytes(2, "big") + one for one in (identity, context)) + protocol + b"\0\1"
    extracted = extract("sha256", bytes(32), SECRET)
    digest = hashlib.sha256(wire).digest()
    return wire, expand_label("sha256", flavor, extracted, b"derived psk", digest, 32)


@pytest.mark.requirement("8446-PSK-2", "8446-KS-3", "8446-KS-2")
@pytest.mark.parametrize("retried", [False, True])
@pytest.mark.parametrize("name", ["sha256", "sha384"])
@each_flavor
def test_binders_of_external_keys(flavor: Flavor, name: str, retried: bool) -> None:
    key = ExternalPsk("device", SECRET, hash_name=name)
    _check(flavor, key, b"device", b"ext binder", SECRET, retried)


@pytest.mark.requirement("9258-1", "8446-KS-3")
@pytest.mark.parametrize("retried", [False, True])
@each_flavor
def test_binders_of_imported_keys(flavor: Flavor, retried: bool) -> None:
    key = ExternalPsk("device", SECRET, imported=True, context=b"who is who")
    identity, secret = imported_secret(flavor, b"device", b"who is who")
    _check(flavor, key, identity, b"imp binder", secret, retried)


def _check(
    flavor: Flavor, key: ExternalPsk, identity: bytes, label: bytes, secret: bytes, retried: bool
) -> None:
    # One suite, so that an imported key is offered once.
    suite = "TLS_AES_128_GCM_SHA256" if key.hash_name == "sha256" else "TLS_AES_256_GCM_SHA384"
    client = psks.client(key, suites=[suite], groups=["X25519", "P-256"], key_shares=["X25519"])
    pair = Pair(flavor, (client, psks.server(key, groups=["P-256"] if retried else [])), run=True)
    assert pair.client.session.retried is retried
    kinds = (HandshakeType.CLIENT_HELLO, HandshakeType.SERVER_HELLO)
    hellos = [one.message for one in pair.delivered if one.kind in kinds][:-1]
    offer = client_hello(hellos[-1], flavor).extensions.require(ext.PRE_SHARED_KEYS)
    assert [one.identity for one in offer.identities] == [identity]
    assert offer.binders == (binder(flavor, key.hash_name, label, secret, hellos[:-1], hellos[-1]),)
