"""Pre-shared keys between two engines: agreeing on one, doing without, and peers that get it wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from sealwire.context import CERT_REQUIRED, PROTOCOL_CLIENT, PROTOCOL_SERVER, Config, Context
from sealwire.crypto.hkdf import DTLS13_PREFIX, TLS13_PREFIX
from sealwire.crypto.psk import ExternalPsk, ImportedIdentity
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.errors import Alert, HandshakeError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import Direction
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import CertificateRequest, ClientHello, HandshakeType
from sealwire.tls13.presentation import Wishes, certificate_message
from sealwire.tls13.values import CertificateType, OfferedPsks
from tests import certificates, psks
from tests.psks import DEVICE, SECRET
from tests.unit.tls13 import engines
from tests.unit.tls13.cells import Cell, Change, cells, replaced
from tests.unit.tls13.engines import (
    Delivery,
    Pair,
    client_hello,
    each_flavor,
    put,
    refused,
    server_hello,
    without,
)

_KT = HandshakeType
DEVICE_384 = ExternalPsk("device", SECRET, hash_name="sha384")
OTHER = ExternalPsk("other", bytes(32))
IMPORTED = ExternalPsk("device", SECRET, imported=True)


def both(*keys: ExternalPsk, **options: Any) -> tuple[Config, Config]:
    """A client and a server without certificates that know the same key."""
    return psks.client(*keys, **options), psks.server(*keys)


def _certificate(config: Config) -> bytes:
    wishes = Wishes.of(Extensions(Where.CLIENT_HELLO), (CertificateType.X509,))
    return certificate_message(config, config.credentials[0], b"", wishes)


def offers(pair: Pair, which: int = 0) -> OfferedPsks:
    """What the n-th ClientHello offered."""
    hellos = [one.message for one in pair.delivered if one.kind is _KT.CLIENT_HELLO]
    return client_hello(hellos[which], pair.flavor).extensions.require(ext.PRE_SHARED_KEYS)


# --- agreeing on a key ------------------------------------------------------------------------


@pytest.mark.requirement("8446-PSK-1", "8446-PSK-2", "8446-PSK-3", "8446-AUTH-4", "8446-KS-1")
@pytest.mark.parametrize("suite", ["", *(suite.name for suite in SUITES)])
@pytest.mark.parametrize("key", [DEVICE, DEVICE_384, IMPORTED], ids=["sha256", "sha384", "imported"])
@each_flavor
def test_with_each_hash_and_suite(flavor: Flavor, key: ExternalPsk, suite: str) -> None:
    hash_name = SUITES[CipherSuite[suite]].hash_name if suite else key.hash_name
    # The rarer suites are off unless asked for; without any, key and defaults find each other.
    suites = [suite] if suite else []
    settings = psks.client(key, suites=suites), psks.server(key, suites=suites)
    if not key.imported and key.hash_name != hash_name:
        # Nothing to offer: the hello is one that only certificates can answer.
        pair = Pair(flavor, settings)
        assert ext.PRE_SHARED_KEYS.code not in client_hello(pair.waiting[0].message, flavor).extensions
        refused(pair, Alert.HANDSHAKE_FAILURE, victim="server")
        return
    pair = Pair(flavor, settings, server_name=None, run=True)
    assert pair.connected
    pair.assert_same_keys()
    kinds = {delivery.kind for delivery in pair.delivered}
    assert kinds == {_KT.CLIENT_HELLO, _KT.SERVER_HELLO, _KT.ENCRYPTED_EXTENSIONS, _KT.FINISHED}
    for side in (pair.client, pair.server):
        session = side.session
        assert session.suite.hash_name == hash_name
        # The identity an application knows, whatever is on the wire.
        assert session.psk_identity == b"device"
        assert session.peer is None
        assert session.peer_scheme is None
        assert not session.retried
    assert pair.client.export(b"label", b"context", 40) == pair.server.export(b"label", b"context", 40)


@pytest.mark.requirement("8446-KS-1")
@each_flavor
def test_the_key_is_in_every_secret(flavor: Flavor) -> None:
    """Two handshakes that differ in nothing but the key have no traffic secret in common."""
    plain = Pair(flavor, run=True)
    keyed = Pair(flavor, both(DEVICE), run=True)
    assert plain.client.export(b"l", b"", 32) != keyed.client.export(b"l", b"", 32)
    # And a server that leaves the key out of its schedule is not understood.
    pair = Pair(flavor, both(DEVICE))
    pair.step()
    answer = pair.waiting.popleft()
    hello = server_hello(answer.message)
    bare = replace(hello, extensions=without(hello.extensions, ext.SELECTED_PSK.code)).encode()
    pair.deliver(answer.but(bare))
    theirs = pair.installed(pair.server, Direction.SEND)[0].secret
    ours = pair.installed(pair.client, Direction.RECEIVE)[0].secret
    assert bytes(theirs) != bytes(ours)


@pytest.mark.requirement("8446-KS-3", "8446-PSK-2")
@pytest.mark.parametrize("key", [DEVICE, DEVICE_384, IMPORTED], ids=["sha256", "sha384", "imported"])
@each_flavor
def test_binders_after_a_retry_cover_what_was_before(flavor: Flavor, key: ExternalPsk) -> None:
    settings = (
        psks.client(key, groups=("X25519", "P-256"), key_shares=("X25519",)),
        psks.server(key, groups=("P-256",)),
    )
    pair = Pair(flavor, settings, run=True)
    assert pair.connected
    pair.assert_same_keys()
    assert pair.client.session.retried
    assert pair.server.session.retried
    assert pair.client.session.psk_identity == pair.server.session.psk_identity == b"device"
    first, second = offers(pair), offers(pair, 1)
    # Of an imported key, only the one that goes with the suite that was selected.
    assert [len(one) for one in second.binders] == [pair.client.session.suite.hash_bytes]
    assert second.identities[0] in first.identities
    assert not set(first.binders) & set(second.binders)

    # A binder over the second hello alone is no binder.
    again = Pair(flavor, settings)

    def forgetful(delivery: Delivery) -> Sequence[Delivery]:
        if delivery.kind is not _KT.CLIENT_HELLO or len(again.delivered) < 2:
            return [delivery]
        hello = client_hello(delivery.message, flavor)
        offer = hello.extensions.require(ext.PRE_SHARED_KEYS)
        stale = replace(offer, binders=offers(again).binders[: len(offer.binders)])
        return [delivery.but(with_psks(hello, stale).encode(flavor))]

    again.rogue = forgetful
    refused(again, Alert.DECRYPT_ERROR, "binder", victim="server")


def with_psks(hello: ClientHello, offer: OfferedPsks) -> ClientHello:
    return replace(hello, extensions=put(hello.extensions, ext.PRE_SHARED_KEYS.code, offer))


class Book:
    """A server's keys, and the identities it was asked for."""

    def __init__(self, *keys: ExternalPsk) -> None:
        self.keys = {key.identity.decode(): key for key in keys}
        self.asked: list[str] = []

    def __call__(self, identity: str) -> ExternalPsk | None:
        self.asked.append(identity)
        return self.keys.get(identity)

    def config(self) -> Config:
        context = Context(PROTOCOL_SERVER)
        context.set_psk_server_callback(self)
        return context.config()


def numbered(n: int) -> list[ExternalPsk]:
    return [ExternalPsk(f"key {i}", bytes((i,)) * 32) for i in range(n)]


@pytest.mark.requirement("8446-PSK-2", "8446-PSK-3")
@each_flavor
def test_the_first_known_key_wins_and_unknown_ones_are_skipped(flavor: Flavor) -> None:
    keys = numbered(4)
    book = Book(keys[2], keys[3])
    pair = Pair(flavor, (psks.offering(psks.client(), *keys), book.config()), run=True)
    assert pair.client.session.psk_identity == pair.server.session.psk_identity == b"key 2"
    assert book.asked == ["key 0", "key 1", "key 2"]
    hello = next(one.message for one in pair.delivered if one.kind is _KT.SERVER_HELLO)
    assert server_hello(hello).extensions.require(ext.SELECTED_PSK) == 2


@pytest.mark.requirement("8446-PSK-3")
@each_flavor
def test_a_known_key_of_another_hash_is_skipped(flavor: Flavor) -> None:
    keys = ExternalPsk("long", SECRET, hash_name="sha384"), DEVICE
    pair = Pair(flavor, (psks.offering(psks.client(), *keys), psks.server(*keys)), run=True)
    assert pair.server.session.psk_identity == b"device"
    assert pair.server.session.suite.hash_name == "sha256"


@each_flavor
def test_only_five_identities_are_looked_up(flavor: Flavor) -> None:
    """Each costs a call into the application, and a hello has room for thousands."""
    keys = numbered(60)
    for known, fits in ((keys[4], True), (keys[5], False)):
        book = Book(known)
        pair = Pair(flavor, (psks.offering(psks.client(), *keys), book.config()))
        if fits:
            assert pair.run().connected
        else:
            refused(pair, Alert.UNKNOWN_PSK_IDENTITY, victim="server")
        assert book.asked == [f"key {i}" for i in range(5)]


@each_flavor
def test_a_key_stands_for_a_client_certificate(flavor: Flavor) -> None:
    """A server that demands certificates takes a key in their place, and asks for none."""
    theirs = psks.server(DEVICE, certified=True, client_roots=certificates.client().cafile)
    assert theirs.verify_mode == CERT_REQUIRED
    pair = Pair(flavor, (psks.client(DEVICE), theirs), run=True)
    assert pair.connected
    assert pair.server.session.peer is None
    assert pair.server.session.psk_identity == b"device"


# --- doing without ----------------------------------------------------------------------------


@pytest.mark.requirement("8446-PSK-2")
@each_flavor
def test_an_unknown_identity_falls_back_to_certificates(flavor: Flavor) -> None:
    pair = Pair(flavor, (psks.client(OTHER, trusting=True), psks.server(DEVICE, certified=True)), run=True)
    assert pair.connected
    assert pair.client.session.psk_identity is None
    assert pair.server.session.psk_identity is None
    assert pair.client.session.peer is not None
    # Neither side's schedule has the key that was offered in vain.
    pair.assert_same_keys()


@pytest.mark.requirement("8446-PSK-2")
@each_flavor
def test_without_certificates_an_unknown_identity_is_the_end(flavor: Flavor) -> None:
    pair = Pair(flavor, (psks.client(OTHER, trusting=True), psks.server(DEVICE)))
    refused(pair, Alert.UNKNOWN_PSK_IDENTITY, victim="server")
    # A client with no key at all has to be told something else.
    pair = Pair(flavor, (engines.client(), psks.server(DEVICE)))
    refused(pair, Alert.HANDSHAKE_FAILURE, "offers no pre-shared key", victim="server")


@pytest.mark.requirement("8446-NEG-7")
@each_flavor
def test_a_hello_without_signature_algorithms_is_for_keys_alone(flavor: Flavor) -> None:
    for certified, alert in ((True, Alert.MISSING_EXTENSION), (False, Alert.UNKNOWN_PSK_IDENTITY)):
        pair = Pair(flavor, (psks.client(OTHER), psks.server(DEVICE, certified=certified)))
        hello = client_hello(pair.waiting[0].message, flavor)
        bare = replace(hello, extensions=without(hello.extensions, ext.SIGNATURE_ALGORITHMS.code))
        pair.waiting[0] = pair.waiting[0].but(bare.encode(flavor))
        refused(pair, alert, victim="server")


@pytest.mark.requirement("8446-PSK-1")
@each_flavor
def test_a_client_without_psk_dhe_ke_gets_certificates(flavor: Flavor) -> None:
    """psk_ke alone: we never use a key without fresh secrets, though we know it."""
    for certified, alert in ((False, Alert.UNKNOWN_PSK_IDENTITY), (True, Alert.DECRYPT_ERROR)):
        pair = Pair(flavor, (psks.client(DEVICE, trusting=True), psks.server(DEVICE, certified=certified)))
        hello = client_hello(pair.waiting[0].message, flavor)
        block = put(hello.extensions, ext.PSK_KEY_EXCHANGE_MODES.code, bytes((0,)))
        offer = hello.extensions.require(ext.PRE_SHARED_KEYS)
        changed = with_psks(replace(hello, extensions=without(block, ext.PRE_SHARED_KEYS.code)), offer)
        pair.waiting[0] = pair.waiting[0].but(changed.encode(flavor))
        # With certificates it goes on until the client sees that its hello was changed.
        refused(pair, alert, victim="client" if certified else "server")


@pytest.mark.requirement("8446-PSK-2")
@each_flavor
def test_a_client_without_a_name_trusts_no_certificate(flavor: Flavor) -> None:
    """It offered a key and names nobody: a server that shows a certificate instead may be anybody."""
    settings = psks.client(OTHER, trusting=True), psks.server(DEVICE, certified=True)
    pair = Pair(flavor, settings, server_name=None)
    refused(pair, Alert.HANDSHAKE_FAILURE, "no name to check", victim="client")
    assert pair.delivered[-1].kind is _KT.ENCRYPTED_EXTENSIONS
    # The same for a callback that offers nothing this time.
    pair = Pair(flavor, (replace(settings[0], psk_client=lambda hint: None), settings[1]), server_name=None)
    refused(pair, Alert.HANDSHAKE_FAILURE, "no name to check", victim="client")
    # Who checks no names said so.
    pair = Pair(flavor, (replace(settings[0], check_hostname=False), settings[1]), server_name=None)
    assert pair.run().connected


# --- imported keys (RFC 9258) -------------------------------------------------------------------


@pytest.mark.requirement("9258-1")
@each_flavor
def test_imported_identities_name_hash_protocol_and_context(flavor: Flavor) -> None:
    key = ExternalPsk("device", SECRET, imported=True, context=b"client=a;server=b")
    pair = Pair(flavor, both(key), run=True)
    assert pair.client.session.psk_identity == b"device"
    decoded = [ImportedIdentity.decode(one.identity) for one in offers(pair).identities]
    protocol = 0x0304 if flavor is TLS else 0xFEFC
    assert decoded == [
        ImportedIdentity(b"device", b"client=a;server=b", protocol, kdf) for kdf in (0x0001, 0x0002)
    ]
    # External keys never change, so neither does what is offered: obfuscated age 0 (RFC 8446 4.2.11).
    assert [one.obfuscated_ticket_age for one in offers(pair).identities] == [0, 0]


@pytest.mark.requirement("9258-1")
@each_flavor
def test_keys_of_another_context_are_other_keys(flavor: Flavor) -> None:
    """Which is also what keeps a key that works both ways from being reflected (RFC 9257 section 4)."""
    ours = ExternalPsk("device", SECRET, imported=True, context=b"from a to b")
    theirs = ExternalPsk("device", SECRET, imported=True, context=b"from b to a")
    pair = Pair(flavor, (psks.client(ours), psks.server(theirs)))
    refused(pair, Alert.UNKNOWN_PSK_IDENTITY, victim="server")


@pytest.mark.requirement("9258-1")
def test_keys_of_another_protocol_are_other_keys() -> None:
    config = psks.client(IMPORTED)
    streams, datagrams = (config.offer_psks(prefix) for prefix in (TLS13_PREFIX, DTLS13_PREFIX))
    assert not {one.identity for one in streams} & {one.identity for one in datagrams}
    assert not {bytes(one.secret) for one in streams} & {bytes(one.secret) for one in datagrams}
    assert len({bytes(one.secret) for one in (*streams, *datagrams)}) == 4
    # An identity carried over from the one to the other is unknown there.
    for flavor, others in ((TLS, datagrams), (DTLS, streams)):

        class Confused(Config):
            __slots__ = ()

            def offer_psks(self, prefix: bytes, keys: Any = others) -> Any:
                return keys

        ours = Confused(**{name: getattr(config, name) for name in Config.__slots__})
        refused(Pair(flavor, (ours, psks.server(IMPORTED))), Alert.UNKNOWN_PSK_IDENTITY, victim="server")


@pytest.mark.requirement("9258-1")
@each_flavor
def test_one_key_is_external_or_imported_never_both(flavor: Flavor) -> None:
    for ours, theirs in ((DEVICE, IMPORTED), (IMPORTED, DEVICE)):
        refused(
            Pair(flavor, (psks.client(ours), psks.server(theirs))),
            Alert.UNKNOWN_PSK_IDENTITY,
            victim="server",
        )
    # A callback that knows one secret for everybody takes the imported identity for an external one;
    # but the secret is another one, and so is the label of the binder.
    context = Context(PROTOCOL_SERVER)
    context.set_psk_server_callback(lambda identity: SECRET)
    refused(Pair(flavor, (psks.client(IMPORTED), context.config())), Alert.DECRYPT_ERROR, victim="server")


# --- callbacks that fail ------------------------------------------------------------------------


def broken(_: object) -> Any:
    raise ZeroDivisionError


@each_flavor
def test_a_failing_server_callback_is_an_internal_error(flavor: Flavor) -> None:
    wrong: list[Callable[[str], Any]] = [broken, lambda identity: b"short", lambda identity: 7]
    # A key under another name is a mistake in a database, not a key.
    wrong.append(lambda identity: OTHER)
    for callback in wrong:
        context = Context(PROTOCOL_SERVER)
        context.set_psk_server_callback(callback)
        pair = Pair(flavor, (psks.client(DEVICE), context.config()))
        error = refused(pair, Alert.INTERNAL_ERROR, "callback failed", victim="server")
        assert error.__cause__ is not None


@each_flavor
def test_a_failing_client_callback_is_an_internal_error(flavor: Flavor) -> None:
    wrong: list[Callable[[object], Any]] = [broken, lambda hint: ("device", b"short"), lambda hint: 5]
    wrong.append(lambda hint: ("", SECRET))
    for callback in wrong:
        context = Context(PROTOCOL_CLIENT)
        context.set_psk_client_callback(callback)
        with pytest.raises(HandshakeError) as caught:
            Handshake.client(context.config(), flavor, server_name=None)
        assert caught.value.alert is Alert.INTERNAL_ERROR
        assert caught.value.__cause__ is not None


# --- clients that get it wrong --------------------------------------------------------------------


def keyed() -> tuple[Config, Config]:
    return psks.client(DEVICE, trusting=True), psks.server(DEVICE, certified=True)


def twice_keyed() -> tuple[Config, Config]:
    return psks.offering(psks.client(), *numbered(2)), psks.server(*numbered(2))


def rebound(change: Callable[[OfferedPsks], OfferedPsks]) -> Change:
    def make(message: bytes, pair: Pair) -> bytes:
        hello = client_hello(message, pair.flavor)
        return with_psks(hello, change(hello.extensions.require(ext.PRE_SHARED_KEYS))).encode(pair.flavor)

    return make


def binders(change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> Change:
    return rebound(lambda offer: replace(offer, binders=change(offer.binders)))


def flip(at: int) -> Change:
    def flipped(all_of_them: tuple[bytes, ...]) -> tuple[bytes, ...]:
        first = bytearray(all_of_them[0])
        first[at] ^= 1
        return (bytes(first), *all_of_them[1:])

    return binders(flipped)


def other_random(message: bytes, pair: Pair) -> bytes:
    """The binder is right, for another hello."""
    hello = client_hello(message, pair.flavor)
    return replace(hello, random=bytes(32)).encode(pair.flavor)


def no_modes(message: bytes, pair: Pair) -> bytes:
    hello = client_hello(message, pair.flavor)
    block = without(hello.extensions, ext.PSK_KEY_EXCHANGE_MODES.code)
    return replace(hello, extensions=block).encode(pair.flavor)


def in_front(message: bytes, pair: Pair) -> bytes:
    hello = client_hello(message, pair.flavor)
    offer = hello.extensions.require(ext.PRE_SHARED_KEYS)
    block = put(hello.extensions, ext.PRE_SHARED_KEYS.code, offer, first=True)
    return replace(hello, extensions=block).encode(pair.flavor)


_BINDER = ("8446-PSK-2",)
HELLO: dict[str, Cell] = {
    "first byte of the binder": Cell(_BINDER, flip(0), Alert.DECRYPT_ERROR, "binder", keyed),
    "last byte of the binder": Cell(_BINDER, flip(-1), Alert.DECRYPT_ERROR, "binder", keyed),
    "longer binder": Cell(
        _BINDER, binders(lambda all_: (all_[0] + b"\0",)), Alert.DECRYPT_ERROR, "binder", keyed
    ),
    "longest binder": Cell(
        _BINDER, binders(lambda all_: (bytes(255),)), Alert.DECRYPT_ERROR, "binder", keyed
    ),
    "too short a binder": Cell(_BINDER, binders(lambda all_: (all_[0][:-1],)), Alert.DECODE_ERROR, "", keyed),
    "binder of another hello": Cell(_BINDER, other_random, Alert.DECRYPT_ERROR, "binder", keyed),
    "binders exchanged": Cell(
        _BINDER, binders(lambda all_: all_[::-1]), Alert.DECRYPT_ERROR, "binder", twice_keyed
    ),
    "one binder for two keys": Cell(
        ("8446-PSK-3",), binders(lambda all_: all_[:1]), Alert.ILLEGAL_PARAMETER, "binder", twice_keyed
    ),
    "two binders for one key": Cell(
        ("8446-PSK-3",), binders(lambda all_: all_ * 2), Alert.ILLEGAL_PARAMETER, "binder", keyed
    ),
    "no binders": Cell(("8446-PSK-3",), binders(lambda all_: ()), Alert.DECODE_ERROR, "", keyed),
    "no identities": Cell(
        ("8446-PSK-3",), rebound(lambda offer: replace(offer, identities=())), Alert.DECODE_ERROR, "", keyed
    ),
    "without psk_key_exchange_modes": Cell(
        ("8446-PSK-1",), no_modes, Alert.MISSING_EXTENSION, "psk_key_exchange_modes", keyed
    ),
    "not the last extension": Cell(("8446-PSK-2",), in_front, Alert.ILLEGAL_PARAMETER, "last", keyed),
}


@cells(("hello", HELLO))
def test_wrong_client_hello(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.CLIENT_HELLO, cell, to_server=True)


@pytest.mark.requirement("8446-PSK-2")
@each_flavor
def test_another_secret_is_no_key(flavor: Flavor) -> None:
    """A server that has certificates does not fall back: somebody uses a name that is not theirs."""
    for certified in (False, True):
        theirs = psks.server(ExternalPsk("device", bytes(32)), certified=certified)
        pair = Pair(flavor, (psks.client(DEVICE, trusting=True), theirs))
        refused(pair, Alert.DECRYPT_ERROR, "binder", victim="server")


@each_flavor
def test_binders_of_keys_that_are_not_chosen_do_not_matter(flavor: Flavor) -> None:
    """RFC 8446 section 4.2.11: servers validate the binder of the one key they select."""
    keys = numbered(2)
    pair = Pair(flavor, (psks.offering(psks.client(), *keys), psks.server(keys[1])))
    hello = client_hello(pair.waiting[0].message, flavor)
    offer = hello.extensions.require(ext.PRE_SHARED_KEYS)
    changed = replace(offer, binders=(bytes(32), offer.binders[1]))
    pair.waiting[0] = pair.waiting[0].but(with_psks(hello, changed).encode(flavor))
    pair.step()
    assert pair.waiting[0].kind is _KT.SERVER_HELLO


# --- servers that get it wrong --------------------------------------------------------------------


def selecting(index: int) -> Change:
    def make(message: bytes, pair: Pair) -> bytes:
        hello = server_hello(message)
        return replace(hello, extensions=put(hello.extensions, ext.SELECTED_PSK.code, index)).encode()

    return make


def no_key_share(message: bytes, pair: Pair) -> bytes:
    hello = server_hello(message)
    return replace(hello, extensions=without(hello.extensions, ext.KEY_SHARE.code)).encode()


def imported() -> tuple[Config, Config]:
    """Two keys are offered: sha256 first, then sha384."""
    return both(IMPORTED)


_INDEX = ("8446-PSK-3",)
ANSWER: dict[str, Cell] = {
    "index behind the last": Cell(_INDEX, selecting(1), Alert.ILLEGAL_PARAMETER, "pre-shared", keyed),
    "index far behind": Cell(_INDEX, selecting(0xFFFF), Alert.ILLEGAL_PARAMETER, "pre-shared", keyed),
    "key of another hash": Cell(_INDEX, selecting(1), Alert.ILLEGAL_PARAMETER, "pre-shared", imported),
    "key that was not offered": Cell(
        _INDEX, selecting(0), Alert.UNSUPPORTED_EXTENSION, "not offered", engines.default
    ),
    # CVE-2025-11935, CVE-2023-3724: a key without fresh secrets, which was not agreed to.
    "no key share": Cell(("8446-PSK-1",), no_key_share, Alert.MISSING_EXTENSION, "key_share", keyed),
}


@cells(("answer", ANSWER))
def test_wrong_server_hello(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.SERVER_HELLO, cell, to_server=False)


@pytest.mark.requirement("8446-AUTH-4")
@pytest.mark.parametrize("kind", [_KT.CERTIFICATE, _KT.CERTIFICATE_REQUEST, _KT.CERTIFICATE_VERIFY])
@each_flavor
def test_a_server_with_a_key_that_shows_or_wants_certificates(flavor: Flavor, kind: HandshakeType) -> None:
    pair = Pair(flavor, both(DEVICE))
    finished = pair.run_until(_KT.FINISHED, to_server=False)
    if kind is _KT.CERTIFICATE_REQUEST:
        block = Extensions(Where.CERTIFICATE_REQUEST)
        block.add(ext.SIGNATURE_ALGORITHMS, pair.server_settings.signature_schemes)
        message = CertificateRequest(b"", block).encode()
    elif kind is _KT.CERTIFICATE:
        message = _certificate(engines.server())
    else:
        whole = Pair(flavor)
        message = whole.run_until(kind, to_server=False).message
    pair.waiting.clear()
    refused(
        pair,
        Alert.UNEXPECTED_MESSAGE,
        victim="client",
        act=lambda: pair.deliver(finished.but(message)),
    )


@pytest.mark.requirement("8446-AUTH-4")
@each_flavor
def test_a_client_with_a_key_that_shows_a_certificate(flavor: Flavor) -> None:
    own = certificates.client()
    theirs = psks.server(DEVICE, certified=True, client_roots=own.cafile)
    pair = Pair(flavor, (psks.client(DEVICE), theirs))
    finished = pair.run_until(_KT.FINISHED, to_server=True)
    message = _certificate(engines.client(identity=own))
    refused(
        pair,
        Alert.UNEXPECTED_MESSAGE,
        victim="server",
        act=lambda: pair.deliver(finished.but(message)),
    )


@pytest.mark.requirement("8446-KS-4")
@each_flavor
def test_a_server_that_does_not_know_the_key_cannot_finish(flavor: Flavor) -> None:
    """It claims to have taken the key; its Finished tells."""
    pair = Pair(flavor, (psks.client(DEVICE, trusting=True), psks.server(OTHER, certified=True)))

    def rogue(delivery: Delivery) -> Sequence[Delivery]:
        if delivery.kind is _KT.SERVER_HELLO:
            return [delivery.but(selecting(0)(delivery.message, pair))]
        if delivery.kind in (_KT.CERTIFICATE, _KT.CERTIFICATE_VERIFY):
            return []
        return [delivery]

    pair.rogue = rogue
    refused(pair, Alert.DECRYPT_ERROR, "Finished", victim="client")
