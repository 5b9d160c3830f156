"""Pre-shared keys without a key exchange (psk_ke): only where both sides gave up forward secrecy by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sealwire.context import PROTOCOL_CLIENT, PROTOCOL_SERVER, Config, Context
from sealwire.crypto.groups import Group
from sealwire.crypto.psk import ExternalPsk, PskMode
from sealwire.errors import Alert, ConfigurationError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.messages import HandshakeType
from sealwire.tls13.values import KeyShareEntry
from tests import certificates, configs, psks
from tests.psks import DEVICE
from tests.unit.tls13.cells import Cell, Change, cells, replaced
from tests.unit.tls13.engines import (
    Pair,
    client_hello,
    each_flavor,
    put,
    refused,
    server_hello,
    without,
)
from tests.unit.tls13.test_rogue_client_hellos import from_cookie
from tests.unit.tls13.test_tickets import World, first_ticket, run

_KT = HandshakeType
KE, DHE = PskMode.PSK_KE, PskMode.PSK_DHE_KE
OTHER = ExternalPsk("other", bytes(32))


def both(
    ours: tuple[PskMode, ...],
    theirs: tuple[PskMode, ...],
    *,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> tuple[Config, Config]:
    return (
        replace(psks.client(DEVICE, **(client or {})), psk_modes=ours),
        replace(psks.server(DEVICE, **(server or {})), psk_modes=theirs),
    )


def hello_of(pair: Pair) -> Any:
    return client_hello(pair.delivered[0].message, pair.flavor).extensions


def answer_of(pair: Pair) -> Any:
    *_, last = [one.message for one in pair.delivered if one.kind is _KT.SERVER_HELLO]
    return server_hello(last).extensions


# --- agreeing -----------------------------------------------------------------------------------------


@pytest.mark.requirement("8446-PSK-1", "8446-KS-1")
@each_flavor
def test_a_key_and_nothing_else(flavor: Flavor) -> None:
    pair = Pair(flavor, both((KE,), (KE,)), run=True)
    pair.assert_same_keys()
    for side in (pair.client, pair.server):
        assert side.session.group is None
        assert side.session.psk_identity == b"device"
        assert not side.session.retried
    assert pair.client.export(b"label", b"", 32) == pair.server.export(b"label", b"", 32)
    # RFC 8446 section 9.2: it goes with neither of them.
    hello = hello_of(pair)
    assert hello.get(ext.PSK_KEY_EXCHANGE_MODES) == b"\0"
    for key in (ext.SUPPORTED_GROUPS, ext.KEY_SHARES, ext.SIGNATURE_ALGORITHMS):
        assert key.code not in hello
    assert ext.KEY_SHARE.code not in answer_of(pair)


@pytest.mark.requirement("8446-PSK-1")
@pytest.mark.parametrize(
    ("ours", "theirs", "exchanged"),
    [
        ((DHE,), (DHE,), True),
        ((DHE, KE), (DHE,), True),
        ((DHE,), (DHE, KE), True),
        ((DHE,), (KE, DHE), True),
        # The server decides.
        ((DHE, KE), (DHE, KE), True),
        ((KE, DHE), (DHE, KE), True),
        ((DHE, KE), (KE, DHE), False),
        ((DHE, KE), (KE,), False),
        ((KE,), (DHE, KE), False),
    ],
)
@each_flavor
def test_the_server_uses_its_favourite_of_the_clients(
    flavor: Flavor, ours: tuple[PskMode, ...], theirs: tuple[PskMode, ...], exchanged: bool
) -> None:
    pair = Pair(flavor, both(ours, theirs), run=True)
    pair.assert_same_keys()
    assert (pair.client.session.group is not None) is exchanged
    assert pair.client.session.group is pair.server.session.group
    assert (ext.KEY_SHARE.code in answer_of(pair)) is exchanged
    assert hello_of(pair).get(ext.PSK_KEY_EXCHANGE_MODES) == bytes(ours)


@pytest.mark.requirement("8446-PSK-1")
@pytest.mark.parametrize(("ours", "theirs"), [((KE,), (DHE,)), ((DHE,), (KE,))])
@each_flavor
def test_one_side_alone_is_not_enough(
    flavor: Flavor, ours: tuple[PskMode, ...], theirs: tuple[PskMode, ...]
) -> None:
    pair = Pair(flavor, both(ours, theirs))
    alert = Alert.HANDSHAKE_FAILURE if ours == (KE,) else Alert.UNKNOWN_PSK_IDENTITY
    refused(pair, alert, victim="server")


@pytest.mark.requirement("8446-PSK-1")
@each_flavor
def test_certificates_instead_of_an_unknown_key(flavor: Flavor) -> None:
    """A client that also trusts certificates sends shares, whatever its modes."""
    ours = replace(psks.client(OTHER, trusting=True), psk_modes=(KE,))
    theirs = replace(psks.server(DEVICE, certified=True), psk_modes=(KE,))
    pair = Pair(flavor, (ours, theirs), run=True)
    assert pair.client.session.peer_certificate is not None
    assert pair.client.session.group is not None
    # One that trusts none gets a clear word.
    ours = replace(psks.client(OTHER), psk_modes=(KE,))
    refused(Pair(flavor, (ours, theirs)), Alert.UNKNOWN_PSK_IDENTITY, victim="server")


@pytest.mark.requirement("8446-PSK-1", "8446-NEG-4")
@each_flavor
def test_no_retry_for_a_group_that_is_not_needed(flavor: Flavor) -> None:
    """The share does not suit the server, but its favourite is to go without one."""
    client = {"groups": ("X25519", "P-256"), "key_shares": ("X25519",), "trusting": True}
    pair = Pair(flavor, both((DHE, KE), (KE, DHE), client=client, server={"groups": ("P-256",)}), run=True)
    assert not pair.client.session.retried
    assert pair.client.session.group is None
    # With the other preference it is needed.
    pair = Pair(flavor, both((DHE, KE), (DHE, KE), client=client, server={"groups": ("P-256",)}), run=True)
    assert pair.client.session.retried
    assert pair.client.session.group is Group.SECP256R1
    # No group in common at all: then the key goes alone, where both let it.
    nothing = {"groups": ("X25519",)}
    pair = Pair(flavor, both((DHE, KE), (DHE, KE), client=nothing, server={"groups": ("P-256",)}), run=True)
    assert pair.client.session.group is None
    refused(
        Pair(flavor, both((DHE,), (DHE, KE), client=nothing, server={"groups": ("P-256",)})),
        Alert.HANDSHAKE_FAILURE,
        "no key exchange group",
        victim="server",
    )


@pytest.mark.requirement("8446-PSK-1", "9147-5.1-2")
def test_behind_a_cookie() -> None:
    """The second hello has no shares either, and the retry asked for none."""
    ours, theirs = both((KE,), (KE,))
    pair, delivery = from_cookie(DTLS, None, settings=(ours, theirs))
    pair.waiting.append(delivery)
    pair.run()
    pair.assert_same_keys()
    assert pair.client.session.retried
    assert pair.client.session.group is None


@pytest.mark.requirement("8446-PSK-1", "8446-PSK-5")
@each_flavor
def test_tickets_go_by_the_same_modes(flavor: Flavor) -> None:
    world = World.make()
    permissive = replace(
        world,
        client=replace(world.client, psk_modes=(DHE, KE)),
        server=replace(world.server, psk_modes=(KE, DHE)),
    )
    ticket = first_ticket(permissive, flavor)
    client, server, _ = run(permissive, flavor, ticket)
    assert client.session.resumed
    assert client.session.group is server.session.group is None
    client, _, _ = run(replace(permissive, server=world.server), flavor, first_ticket(world, flavor))
    assert client.session.resumed
    assert client.session.group is not None


# --- who gets it wrong --------------------------------------------------------------------------------


def answered(code: int, value: object) -> Change:
    def change(message: bytes, pair: Pair) -> bytes:
        hello = server_hello(message)
        return replace(hello, extensions=put(hello.extensions, code, value)).encode()

    return change


def silent(*codes: int) -> Change:
    def change(message: bytes, pair: Pair) -> bytes:
        hello = server_hello(message)
        return replace(hello, extensions=without(hello.extensions, *codes)).encode()

    return change


def only_dhe() -> tuple[Config, Config]:
    return both((DHE,), (DHE,))


def only_ke() -> tuple[Config, Config]:
    return both((KE,), (KE,))


def ke_with_shares() -> tuple[Config, Config]:
    """psk_ke, but there are shares in case certificates are needed."""
    return both((KE,), (KE,), client={"trusting": True})


def either() -> tuple[Config, Config]:
    return both((DHE, KE), (DHE, KE))


SHARE = KeyShareEntry(Group.X25519, bytes(range(1, 33)))
SERVER_HELLOS: dict[str, Cell] = {
    "no exchange, and the client wants one": Cell(
        ("8446-PSK-1",), silent(51), Alert.MISSING_EXTENSION, "key_share", only_dhe
    ),
    "an exchange the client sent no share for": Cell(
        ("8446-PSK-1", "8446-NEG-2"), answered(51, SHARE), Alert.UNSUPPORTED_EXTENSION, "51", only_ke
    ),
    "an exchange with a key that goes without": Cell(
        ("8446-PSK-1",), answered(51, SHARE), Alert.ILLEGAL_PARAMETER, "not offered", ke_with_shares
    ),
    "neither key nor exchange": Cell(
        ("8446-PSK-1",), silent(41), Alert.MISSING_EXTENSION, "key_share", only_ke
    ),
    "neither key nor exchange, and both were possible": Cell(
        ("8446-PSK-1",), silent(41, 51), Alert.MISSING_EXTENSION, "key_share", either
    ),
}


@cells(("ServerHello", SERVER_HELLOS))
def test_a_server_that_answers_wrongly(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.SERVER_HELLO, cell, to_server=False)


@pytest.mark.requirement("8446-PSK-1", "8446-KS-4")
@each_flavor
def test_taking_the_exchange_away_is_noticed(flavor: Flavor) -> None:
    """Where both would do, somebody between them who strikes out the share changes the transcript."""
    pair = Pair(flavor, either())
    hello = pair.run_until(_KT.SERVER_HELLO, to_server=False)
    pair.waiting[0] = hello.but(silent(51)(hello.message, pair))
    pair.step()
    with pytest.raises(AssertionError):
        pair.assert_same_keys()


def hello_with(code: int, value: object, *, also_without: tuple[int, ...] = ()) -> Change:
    def change(message: bytes, pair: Pair) -> bytes:
        hello = client_hello(message, pair.flavor)
        block = without(hello.extensions, 41, *also_without)
        block = put(block, code, value)
        # pre_shared_key stands last.
        block = put(block, 41, hello.extensions.require(ext.PRE_SHARED_KEYS))
        return replace(hello, extensions=block).encode(pair.flavor)

    return change


HELLOS: dict[str, Cell] = {
    "groups without shares": Cell(
        ("8446-NEG-7",), hello_with(10, (Group.X25519,)), Alert.MISSING_EXTENSION, "key_share", only_ke
    ),
    "shares without groups": Cell(
        ("8446-NEG-7",), hello_with(51, (SHARE,)), Alert.MISSING_EXTENSION, "supported_groups", only_ke
    ),
    "a mode nobody knows": Cell(
        ("8446-PSK-1",), hello_with(45, b"\x07"), Alert.HANDSHAKE_FAILURE, "", only_ke
    ),
    "no modes": Cell(
        ("8446-PSK-1",), hello_with(21, b"", also_without=(45,)), Alert.MISSING_EXTENSION, "", ke_with_shares
    ),
}


@cells(("ClientHello", HELLOS))
def test_a_client_that_offers_wrongly(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.CLIENT_HELLO, cell, to_server=True)


@pytest.mark.requirement("8446-PSK-2")
@each_flavor
def test_a_wrong_secret(flavor: Flavor) -> None:
    ours = replace(psks.client(ExternalPsk("device", bytes(32))), psk_modes=(KE,))
    theirs = replace(psks.server(DEVICE), psk_modes=(KE,))
    refused(Pair(flavor, (ours, theirs)), Alert.DECRYPT_ERROR, "binder", victim="server")


# --- how one asks for it ------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [PROTOCOL_CLIENT, PROTOCOL_SERVER])
def test_it_is_off_and_has_to_be_allowed_by_name(protocol: int) -> None:
    context = Context(protocol)
    if protocol == PROTOCOL_SERVER:
        context.set_psk_server_callback(lambda identity: None)
    assert context.config().psk_modes == (DHE,)
    for names in ("psk_ke", ["psk_dhe_ke", "psk_ke"], "psk_ke:psk_dhe_ke"):
        with pytest.raises(ConfigurationError, match="forward secrecy"):
            context.set_psk_key_exchange_modes(names)
    for names, complaint in (
        ([], "no PSK"), ("psk", "unknown"), ("psk_dhe_ke:psk_dhe_ke", "twice"), ("", "unknown"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=complaint):
            context.set_psk_key_exchange_modes(names, allow_without_forward_secrecy=True)
    assert context.config().psk_modes == (DHE,)
    context.set_psk_key_exchange_modes("PSK_KE : psk_dhe_ke", allow_without_forward_secrecy=True)
    assert context.config().psk_modes == (KE, DHE)
    context.set_psk_key_exchange_modes(["psk_dhe_ke"])
    assert context.config().psk_modes == (DHE,)


def test_a_client_that_verifies_nobody_sends_shares() -> None:
    """CERT_NONE accepts any certificate, so there may be one."""
    ours = replace(psks.client(OTHER), psk_modes=(KE,), verify_mode=0, check_hostname=False)
    theirs = configs.server_context(certificates.server()).config()
    pair = Pair(TLS, (ours, theirs), run=True)
    assert pair.client.session.peer_certificate is not None
