"""Raw public keys in handshakes (RFC 7250): agreed in each direction apart, never accepted unknown."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from sealwire.context import (
    CERT_NONE,
    CERT_OPTIONAL,
    CERT_REQUIRED,
    PROTOCOL_CLIENT,
    PROTOCOL_SERVER,
    Config,
    Context,
)
from sealwire.crypto.certificates import RawPublicKey
from sealwire.errors import Alert, CertificateError, CertificateFailure, ConfigurationError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.flavor import DTLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import Certificate, CertificateEntry, HandshakeType
from sealwire.tls13.values import CertificateType
from tests import certificates
from tests.certificates import Identity, Kind
from tests.unit.tls13.cells import Cell, Change, cells, replaced
from tests.unit.tls13.engines import (
    Pair,
    certificate,
    certificate_request,
    client_hello,
    each_flavor,
    encrypted_extensions,
    put,
    refused,
    without,
)
from tests.unit.tls13.test_tickets import World, first_ticket, run

_KT = HandshakeType
RAW, X509 = CertificateType.RAW_PUBLIC_KEY, CertificateType.X509


@functools.cache
def spki(keyfile: Path) -> bytes:
    key = load_pem_private_key(keyfile.read_bytes(), None)
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def server_context(
    identity: Identity | None = None,
    *,
    raw: bool = True,
    certified: bool = False,
    trusts: Identity | None = None,
    authority: Identity | None = None,
) -> Context:
    """A server that shows a raw key, a certificate or both, and may want one of a client."""
    identity = identity or certificates.server()
    context = Context(PROTOCOL_SERVER)
    if raw:
        context.load_raw_public_key(identity.keyfile)
    if certified:
        context.load_cert_chain(identity.certfile, identity.keyfile)
    if trusts is not None:
        context.set_raw_public_keys([spki(trusts.keyfile)])
    if authority is not None:
        context.load_verify_locations(authority.cafile)
        context.verify_mode = CERT_REQUIRED
    return context


def client_context(
    *,
    trusts: Identity | None = None,
    authority: Identity | None = None,
    raw: Identity | None = None,
    certified: Identity | None = None,
) -> Context:
    context = Context(PROTOCOL_CLIENT)
    if trusts is not None:
        context.set_raw_public_keys([spki(trusts.keyfile)])
    if authority is not None:
        context.load_verify_locations(authority.cafile)
    if raw is not None:
        context.load_raw_public_key(raw.keyfile)
    if certified is not None:
        context.load_cert_chain(certified.certfile, certified.keyfile)
    return context


def both(ours: Context, theirs: Context) -> tuple[Config, Config]:
    return ours.config(), theirs.config()


def hello_of(pair: Pair) -> Extensions:
    return client_hello(pair.delivered[0].message, pair.flavor).extensions


def types_in(pair: Pair) -> tuple[CertificateType | None, CertificateType | None]:
    """What EncryptedExtensions said of server and client."""
    (message,) = [one.message for one in pair.delivered if one.kind is _KT.ENCRYPTED_EXTENSIONS]
    block = encrypted_extensions(message).extensions
    return block.get(ext.SERVER_CERTIFICATE_TYPE), block.get(ext.CLIENT_CERTIFICATE_TYPE)


# --- what is agreed -----------------------------------------------------------------------------------


@pytest.mark.requirement("7250-1")
@pytest.mark.parametrize("kind", [Kind.ECDSA_P256, Kind.RSA_2048, Kind.ED25519])
@each_flavor
def test_a_server_known_by_its_key(flavor: Flavor, kind: Kind) -> None:
    identity = certificates.server(kind)
    pair = Pair(flavor, both(client_context(trusts=identity), server_context(identity)), run=True)
    pair.assert_same_keys()
    session = pair.client.session
    assert session.peer == session.peer_raw_public_key == RawPublicKey(spki(identity.keyfile))
    assert session.peer_certificate is None
    assert session.peer_scheme is not None
    assert pair.server.session.peer is None
    (message,) = [one.message for one in pair.delivered if one.kind is _KT.CERTIFICATE]
    (entry,) = certificate(message).entries
    assert (entry.der, len(entry.extensions)) == (spki(identity.keyfile), 0)
    assert types_in(pair) == (RAW, None)
    # It takes raw keys alone, and has nothing to show itself.
    assert hello_of(pair).get(ext.SERVER_CERTIFICATE_TYPES) == (RAW,)
    assert ext.CLIENT_CERTIFICATE_TYPES.code not in hello_of(pair)


@pytest.mark.requirement("7250-1")
@each_flavor
def test_both_sides_known_by_their_keys(flavor: Flavor) -> None:
    server, own = certificates.server(), certificates.client()
    settings = both(client_context(trusts=server, raw=own), server_context(trusts=own))
    pair = Pair(flavor, settings, run=True)
    pair.assert_same_keys()
    assert types_in(pair) == (RAW, RAW)
    assert pair.client.session.peer == RawPublicKey(spki(server.keyfile))
    assert pair.server.session.peer == RawPublicKey(spki(own.keyfile))


@pytest.mark.requirement("7250-1")
@each_flavor
def test_the_directions_are_agreed_on_apart(flavor: Flavor) -> None:
    server, own = certificates.server(), certificates.client()
    # A raw key one way, a certificate the other.
    pair = Pair(
        flavor, both(client_context(trusts=server, certified=own), server_context(authority=own)), run=True
    )
    assert types_in(pair) == (RAW, None)
    assert pair.server.session.peer_certificate is not None
    assert isinstance(pair.client.session.peer, RawPublicKey)
    pair = Pair(
        flavor,
        both(
            client_context(authority=server, raw=own), server_context(raw=False, certified=True, trusts=own)
        ),
        run=True,
    )
    assert types_in(pair) == (None, RAW)
    assert pair.client.session.peer_certificate is not None
    assert isinstance(pair.server.session.peer, RawPublicKey)


@pytest.mark.requirement("7250-1")
@each_flavor
def test_who_takes_and_has_both_begins_with_the_raw_key(flavor: Flavor) -> None:
    server, own = certificates.server(), certificates.client()
    ours = client_context(trusts=server, authority=server, certified=own, raw=own)
    for theirs, expected in (
        (server_context(certified=True), (RAW, None)),
        (server_context(raw=False, certified=True), (X509, None)),
        # A client's own list is in the order in which it loaded them.
        (server_context(certified=True, trusts=own, authority=own), (RAW, RAW)),
        (server_context(certified=True, trusts=own), (RAW, RAW)),
        (server_context(certified=True, authority=own), (RAW, X509)),
    ):
        pair = Pair(flavor, both(ours, theirs), run=True)
        assert types_in(pair) == expected
    assert hello_of(pair).get(ext.SERVER_CERTIFICATE_TYPES) == (RAW, X509)
    assert hello_of(pair).get(ext.CLIENT_CERTIFICATE_TYPES) == (RAW, X509)


@pytest.mark.requirement("7250-1")
def test_nothing_is_said_where_there_are_no_raw_keys() -> None:
    server, own = certificates.server(), certificates.client()
    ours = client_context(authority=server, certified=own)
    pair = Pair(DTLS, both(ours, server_context(certified=True, authority=own)), run=True)
    assert types_in(pair) == (None, None)
    for key in (ext.SERVER_CERTIFICATE_TYPES, ext.CLIENT_CERTIFICATE_TYPES):
        assert key.code not in hello_of(pair)


@pytest.mark.requirement("7250-1")
@each_flavor
def test_an_optional_client_without_anything(flavor: Flavor) -> None:
    server, own = certificates.server(), certificates.client()
    theirs = server_context(trusts=own)
    theirs.verify_mode = CERT_OPTIONAL
    pair = Pair(flavor, both(client_context(trusts=server), theirs), run=True)
    assert pair.server.session.peer is None


@each_flavor
@pytest.mark.requirement("7250-1")
def test_no_name_is_needed_for_a_peer_that_has_none(flavor: Flavor) -> None:
    """A listed key stands for the peer whatever it is called; a certificate would need the name."""
    server = certificates.server()
    alone = client_context(trusts=server)
    for name in (None, "some.other.name", "localhost"):
        pair = Pair(flavor, both(alone, server_context()), server_name=name, run=True)
        assert isinstance(pair.client.session.peer, RawPublicKey)
    beside = client_context(trusts=server, authority=server).config()
    with pytest.raises(ConfigurationError, match="no server name"):
        Handshake.client(beside, flavor, server_name=None)
    # The name is still checked where a certificate comes in its place.
    pair = Pair(
        flavor,
        (beside, server_context(raw=False, certified=True).config()),
        server_name="some.other.name",
    )
    error = refused(pair, Alert.BAD_CERTIFICATE, victim="client")
    assert isinstance(error, CertificateError)
    assert error.failure is CertificateFailure.WRONG_NAME


# --- who is refused -----------------------------------------------------------------------------------


@pytest.mark.requirement("7250-1")
@each_flavor
def test_a_server_with_a_key_nobody_listed(flavor: Flavor) -> None:
    listed, other = certificates.server(), certificates.server(Kind.ECDSA_P384)
    for ours in (client_context(trusts=listed), client_context(trusts=listed, authority=listed)):
        pair = Pair(flavor, both(ours, server_context(other)))
        error = refused(pair, Alert.CERTIFICATE_UNKNOWN, "not among the trusted", victim="client")
        assert isinstance(error, CertificateError)
        assert error.failure is CertificateFailure.REJECTED


@pytest.mark.requirement("7250-1")
@each_flavor
def test_a_client_with_a_key_nobody_listed(flavor: Flavor) -> None:
    server, own, other = certificates.server(), certificates.client(), certificates.client(Kind.ECDSA_P384)
    for mode in (CERT_REQUIRED, CERT_OPTIONAL):
        theirs = server_context(trusts=own)
        theirs.verify_mode = mode
        pair = Pair(flavor, both(client_context(trusts=server, raw=other), theirs))
        refused(pair, Alert.CERTIFICATE_UNKNOWN, "not among the trusted", victim="server")


@pytest.mark.requirement("7250-1")
@each_flavor
def test_no_type_in_common(flavor: Flavor) -> None:
    server, own = certificates.server(), certificates.client()
    # The client takes raw keys only, the server has a certificate only.
    pair = Pair(flavor, both(client_context(trusts=server), server_context(raw=False, certified=True)))
    refused(pair, Alert.UNSUPPORTED_CERTIFICATE, "takes no certificate of a type", victim="server")
    # The other way round.
    pair = Pair(flavor, both(client_context(authority=server), server_context()))
    refused(pair, Alert.UNSUPPORTED_CERTIFICATE, "takes no certificate of a type", victim="server")
    # The client has a raw key only, and certificates are wanted.
    pair = Pair(
        flavor,
        both(
            client_context(authority=server, raw=own),
            server_context(raw=False, certified=True, authority=own),
        ),
    )
    refused(pair, Alert.UNSUPPORTED_CERTIFICATE, "the client has no certificate of a type", victim="server")
    # The client has a certificate only, and says so by saying nothing: it is judged as one.
    pair = Pair(flavor, both(client_context(trusts=server, certified=own), server_context(trusts=own)))
    refused(pair, Alert.UNKNOWN_CA, victim="server")


@pytest.mark.requirement("7250-1")
@each_flavor
def test_a_server_that_knows_nothing_of_raw_keys(flavor: Flavor) -> None:
    """It ignores the extension and shows a certificate: the client says why it cannot go on."""
    pair = Pair(flavor, both(client_context(trusts=certificates.server()), server_context(certified=True)))

    def ignore(message: bytes, pair: Pair) -> bytes:
        block = encrypted_extensions(message)
        return replace(block, extensions=without(block.extensions, 20)).encode()

    cell = Cell(("7250-1",), ignore, Alert.UNSUPPORTED_CERTIFICATE, "only raw public keys are trusted")
    replaced(
        flavor, _KT.ENCRYPTED_EXTENSIONS, cell, to_server=False,
        settings=lambda: (pair.client_settings, pair.server_settings),
    )  # fmt: skip


@pytest.mark.requirement("7250-1", "8446-AUTH-2")
@each_flavor
def test_unverified_keys_must_be_proved_all_the_same(flavor: Flavor) -> None:
    """With CERT_NONE any key will do, but its holder must be there."""
    ours = client_context(trusts=certificates.client())
    ours.check_hostname = False
    ours.verify_mode = CERT_NONE
    settings = both(ours, server_context(certified=True))
    pair = Pair(flavor, settings, run=True)
    assert pair.client.session.peer == RawPublicKey(spki(certificates.server().keyfile))
    wrong = spki(certificates.client().keyfile)
    cell = Cell(("7250-1",), shown(wrong), Alert.DECRYPT_ERROR)
    changed = Pair(flavor, settings)
    change_first(changed, _KT.CERTIFICATE, cell.change)
    refused(changed, Alert.DECRYPT_ERROR, victim="client")


def change_first(pair: Pair, kind: HandshakeType, change: Change) -> None:
    waiting = pair.run_until(kind, to_server=False)
    pair.waiting[0] = waiting.but(change(waiting.message, pair))


def shown(*keys: bytes) -> Change:
    """Other entries in place of the one key."""
    entries = tuple(CertificateEntry(key, Extensions(Where.CERTIFICATE)) for key in keys)
    return lambda message, pair: Certificate(b"", entries).encode()


def known() -> tuple[Config, Config]:
    server, own = certificates.server(), certificates.client()
    return both(client_context(trusts=server, raw=own), server_context(trusts=own))


def entry_with(code: int, body: object) -> Change:
    def change(message: bytes, pair: Pair) -> bytes:
        (entry,) = certificate(message).entries
        return Certificate(b"", (replace(entry, extensions=put(entry.extensions, code, body)),)).encode()

    return change


OUR_KEY = spki(certificates.server().keyfile)
KEYS: dict[str, Cell] = {
    "no key": Cell(("7250-1", "8446-AUTH-1"), shown(), Alert.DECODE_ERROR, "empty", known),
    "two keys": Cell(("7250-1",), shown(OUR_KEY, OUR_KEY), Alert.ILLEGAL_PARAMETER, "2 raw", known),
    "a certificate in its place": Cell(
        ("7250-1",), shown(certificates.server().chain[0]), Alert.CERTIFICATE_UNKNOWN, "not among", known
    ),
    "a key with a byte more": Cell(
        ("7250-1",), shown(OUR_KEY + b"\0"), Alert.CERTIFICATE_UNKNOWN, "not among", known
    ),
    "rubbish": Cell(("7250-1",), shown(b"rubbish"), Alert.CERTIFICATE_UNKNOWN, "not among", known),
    "an endless key": Cell(("7250-1",), shown(bytes(49 * 1024)), Alert.BAD_CERTIFICATE, "longer", known),
    "an answer to nothing": Cell(
        ("8446-NEG-2",), entry_with(18, (b"x",)), Alert.UNSUPPORTED_EXTENSION, "", known
    ),
}  # fmt: skip


def encrypted(code: int, value: object) -> Change:
    def change(message: bytes, pair: Pair) -> bytes:
        block = encrypted_extensions(message)
        return replace(block, extensions=put(block.extensions, code, value)).encode()

    return change


def with_certificates() -> tuple[Config, Config]:
    server, own = certificates.server(), certificates.client()
    ours = client_context(authority=server, certified=own)
    return both(ours, server_context(raw=False, certified=True, authority=own))


ANSWERS: dict[str, Cell] = {
    "another type of server": Cell(
        ("7250-1",), encrypted(20, X509), Alert.ILLEGAL_PARAMETER, "not offered", known
    ),
    "an unknown type of server": Cell(
        ("7250-1",), encrypted(20, CertificateType(1)), Alert.ILLEGAL_PARAMETER, "not offered", known
    ),
    "another type of client": Cell(
        ("7250-1",), encrypted(19, X509), Alert.ILLEGAL_PARAMETER, "not offered", known
    ),
    "a type that nobody asked about": Cell(
        ("7250-1", "8446-NEG-2"), encrypted(20, RAW), Alert.UNSUPPORTED_EXTENSION, "", with_certificates
    ),
    "a client's type that nobody asked about": Cell(
        ("7250-1", "8446-NEG-2"), encrypted(19, RAW), Alert.UNSUPPORTED_EXTENSION, "", with_certificates
    ),
}


@cells(("Certificate", KEYS))
def test_a_server_whose_key_is_wrong(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.CERTIFICATE, cell, to_server=False)


@cells(
    (
        "Certificate",
        {name: cell for name, cell in KEYS.items() if name not in ("no key", "a certificate in its place")},
    )
)
def test_a_client_whose_key_is_wrong(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.CERTIFICATE, cell, to_server=True)


@cells(("EncryptedExtensions", ANSWERS))
def test_a_server_that_answers_wrongly(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.ENCRYPTED_EXTENSIONS, cell, to_server=False)


@pytest.mark.requirement("7250-1")
@each_flavor
def test_types_nobody_knows_are_passed_over(flavor: Flavor) -> None:
    """GREASE, OpenPGP and 1609.2 among the offered types, of server and client."""
    settings = known()
    strange = tuple(map(CertificateType, (224, 1, 3)))

    def offering(types: tuple[CertificateType, ...]) -> Pair:
        pair = Pair(flavor, settings)
        first = pair.waiting[0]
        hello = client_hello(first.message, flavor)
        block = put(put(hello.extensions, 20, types), 19, types)
        pair.waiting[0] = first.but(replace(hello, extensions=block).encode(flavor))
        return pair

    pair = offering((*strange, RAW))
    pair.step()
    (answer,) = [one.message for one in pair.waiting if one.kind is _KT.ENCRYPTED_EXTENSIONS]
    block = encrypted_extensions(answer).extensions
    assert (block.get(ext.SERVER_CERTIFICATE_TYPE), block.get(ext.CLIENT_CERTIFICATE_TYPE)) == (RAW, RAW)
    refused(
        offering(strange), Alert.UNSUPPORTED_CERTIFICATE, "takes no certificate of a type", victim="server"
    )


@pytest.mark.requirement("7250-1", "8446-AUTH-4")
@each_flavor
def test_the_request_of_a_server_that_takes_raw_keys_is_an_ordinary_one(flavor: Flavor) -> None:
    pair = Pair(flavor, known(), run=True)
    (message,) = [one.message for one in pair.delivered if one.kind is _KT.CERTIFICATE_REQUEST]
    assert set(certificate_request(message).extensions) == {13}


# --- tickets ------------------------------------------------------------------------------------------


def world_of(make: Callable[[], tuple[Config, Config]]) -> World:
    world = World.make()
    ours, theirs = make()
    common = {"num_tickets": 1, "clock": world.clock}
    return replace(
        world,
        client=replace(ours, **common),  # type: ignore[arg-type]
        server=replace(theirs, ticket_keys=world.server.ticket_keys, **common),  # type: ignore[arg-type]
    )


@pytest.mark.requirement("7250-1", "8446-PSK-5")
@each_flavor
def test_tickets_remember_keys_and_are_looked_at_again(flavor: Flavor) -> None:
    world = world_of(known)
    ticket = first_ticket(world, flavor)
    assert ticket.peer == RawPublicKey(OUR_KEY)
    client, server, _ = run(world, flavor, ticket)
    assert client.session.resumed
    assert server.session.resumed
    assert client.session.peer == RawPublicKey(OUR_KEY)
    assert server.session.peer == RawPublicKey(spki(certificates.client().keyfile))
    # Taken off the client's list: it does not come back by the ticket (and then not at all).
    listed = certificates.server(Kind.ECDSA_P384)
    distrusting = client_context(trusts=listed, raw=certificates.client()).config()
    pair = Pair(flavor, (replace(distrusting, num_tickets=1), world.server))
    refused(pair, Alert.CERTIFICATE_UNKNOWN, victim="client")
    # Taken off the server's list: the ticket is worth nothing, and the key is refused.
    forgetting = server_context(trusts=certificates.client(Kind.ECDSA_P384)).config()
    theirs = replace(forgetting, num_tickets=1, ticket_keys=world.server.ticket_keys, clock=world.clock)
    with pytest.raises(CertificateError, match="not among the trusted"):
        run(replace(world, server=theirs), flavor, ticket)
