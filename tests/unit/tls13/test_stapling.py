"""Staples in handshakes (RFC 8446 section 4.4.2.1): who asks, who answers, and what a bad one ends with."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from sealwire.context import CERT_NONE, STAPLE_NONE, STAPLE_OPTIONAL, STAPLE_REQUIRED, Config, Context
from sealwire.crypto.certificates import CertificateVerifier, PeerCertificate
from sealwire.crypto.credentials import Staple
from sealwire.crypto.ocsp import StapleMode
from sealwire.errors import Alert, CertificateError, CertificateFailure
from sealwire.tls13 import extensions as ext
from sealwire.tls13.flavor import DTLS, Flavor
from sealwire.tls13.messages import CertificateEntry, HandshakeType
from sealwire.tls13.tickets import SessionTicket
from sealwire.tls13.values import ANY_OCSP_RESPONSE, StatusRequest
from tests import certificates, configs
from tests.certificates import Identity
from tests.staples import REVOKED, UNKNOWN, staple
from tests.unit.tls13.cells import Cell, Change, cells, replaced
from tests.unit.tls13.engines import (
    Pair,
    certificate,
    certificate_request,
    client_hello,
    each_flavor,
    put,
    refused,
    without,
)
from tests.unit.tls13.test_tickets import World, first_ticket, run

_KT = HandshakeType


def staple_of(identity: Identity, **changes: Any) -> bytes:
    leaf = x509.load_der_x509_certificate(identity.chain[0])
    return staple(leaf, *certificates.root_of(identity), **changes)


def settings(
    *,
    mode: StapleMode = STAPLE_OPTIONAL,
    sends: Staple = b"",
    mutual: bool = False,
    client_sends: Staple = b"",
    server_mode: StapleMode = STAPLE_OPTIONAL,
) -> tuple[Config, Config]:
    server, own = certificates.server(), certificates.client()
    theirs = configs.server_context(client_roots=own.cafile if mutual else None)
    theirs.load_cert_chain(server.certfile, server.keyfile, ocsp_response=sends)
    theirs.staple_mode = server_mode
    ours = configs.client_context()
    ours.staple_mode = mode
    if mutual:
        ours.load_cert_chain(own.certfile, own.keyfile, ocsp_response=client_sends)
    return ours.config(), theirs.config()


def entries(pair: Pair, *, of_client: bool = False) -> tuple[CertificateEntry, ...]:
    (message,) = [
        one.message for one in pair.delivered if one.kind is _KT.CERTIFICATE and one.to_server is of_client
    ]
    return certificate(message).entries


# --- asking and answering -----------------------------------------------------------------------------


@pytest.mark.requirement("8446-AUTH-6", "6066-1")
@pytest.mark.parametrize("mode", [STAPLE_OPTIONAL, STAPLE_REQUIRED])
@each_flavor
def test_a_server_staples_what_it_has(flavor: Flavor, mode: StapleMode) -> None:
    mine = staple_of(certificates.server())
    pair = Pair(flavor, settings(mode=mode, sends=mine), run=True)
    pair.assert_same_keys()
    assert pair.client.session.peer_certificate is not None
    assert pair.client.session.peer_certificate.ocsp_response == mine
    hello = client_hello(pair.delivered[0].message, flavor)
    assert hello.extensions.get(ext.STATUS_REQUEST) == ANY_OCSP_RESPONSE
    first, *others = entries(pair)
    assert first.extensions.get(ext.CERTIFICATE_STATUS) == mine
    assert not any(len(one.extensions) for one in others)


@pytest.mark.requirement("8446-AUTH-6")
@each_flavor
def test_nobody_is_given_what_it_did_not_ask_for(flavor: Flavor) -> None:
    pair = Pair(flavor, settings(mode=STAPLE_NONE, sends=staple_of(certificates.server())), run=True)
    assert ext.STATUS_REQUEST.code not in client_hello(pair.delivered[0].message, flavor).extensions
    assert len(entries(pair)[0].extensions) == 0
    assert pair.client.session.peer_certificate is not None
    assert pair.client.session.peer_certificate.ocsp_response == b""


@pytest.mark.requirement("8446-AUTH-6", "8446-NEG-1")
@each_flavor
def test_a_request_for_another_kind_of_status_is_passed_over(flavor: Flavor) -> None:
    pair = Pair(flavor, settings(sends=staple_of(certificates.server())))
    first = pair.waiting[0]
    hello = client_hello(first.message, flavor)
    strange = put(hello.extensions, 5, StatusRequest(2, b"anything"))
    pair.waiting[0] = first.but(replace(hello, extensions=strange).encode(flavor))
    pair.step()
    (message,) = [one.message for one in pair.waiting if one.kind is _KT.CERTIFICATE]
    assert len(certificate(message).entries[0].extensions) == 0


@each_flavor
def test_a_server_without_one_sends_none(flavor: Flavor) -> None:
    for nothing in (b"", lambda: b"", lambda: b"rubbish", lambda: 1 / 0):
        pair = Pair(flavor, settings(sends=nothing), run=True)  # type: ignore[arg-type]
        assert len(entries(pair)[0].extensions) == 0
    # One that nobody would believe any longer breaks no connection.
    stale = staple_of(certificates.server(), hours=(-9, -8))
    pair = Pair(flavor, settings(sends=stale), run=True)
    assert len(entries(pair)[0].extensions) == 0


@pytest.mark.requirement("8446-AUTH-6")
@pytest.mark.parametrize("server_mode", [STAPLE_OPTIONAL, STAPLE_REQUIRED])
@each_flavor
def test_clients_are_asked_too(flavor: Flavor, server_mode: StapleMode) -> None:
    theirs = staple_of(certificates.client())
    pair = Pair(flavor, settings(mutual=True, client_sends=theirs, server_mode=server_mode), run=True)
    assert pair.server.session.peer_certificate is not None
    assert pair.server.session.peer_certificate.ocsp_response == theirs
    (request,) = [one.message for one in pair.delivered if one.kind is _KT.CERTIFICATE_REQUEST]
    # RFC 8446 section 4.4.2.1: empty there.
    assert certificate_request(request).extensions.get(ext.STATUS_REQUESTED) is True
    silent = Pair(flavor, settings(mutual=True, client_sends=theirs, server_mode=STAPLE_NONE), run=True)
    assert len(entries(silent, of_client=True)[0].extensions) == 0


@pytest.mark.requirement("8446-AUTH-6")
@each_flavor
def test_a_required_one_that_does_not_come(flavor: Flavor) -> None:
    pair = Pair(flavor, settings(mode=STAPLE_REQUIRED))
    refused(pair, Alert.BAD_CERTIFICATE_STATUS_RESPONSE, "without an OCSP response", victim="client")
    pair = Pair(flavor, settings(mutual=True, server_mode=STAPLE_REQUIRED))
    refused(pair, Alert.BAD_CERTIFICATE_STATUS_RESPONSE, "without an OCSP response", victim="server")


@each_flavor
def test_what_is_not_verified_is_shown_as_it_came(flavor: Flavor) -> None:
    ours, theirs = settings(mode=STAPLE_REQUIRED, sends=lambda: revoked())
    lenient = replace(ours, verify_mode=int(CERT_NONE), check_hostname=False)
    pair = Pair(flavor, (lenient, theirs), run=True)
    assert pair.client.session.peer_certificate is not None
    assert pair.client.session.peer_certificate.ocsp_response == revoked()
    assert Pair(flavor, (lenient, settings()[1]), run=True).connected


# --- bad ones -----------------------------------------------------------------------------------------


@functools.cache
def revoked() -> bytes:
    return staple_of(certificates.server(), status=REVOKED, reason=x509.ReasonFlags.key_compromise)


@pytest.mark.requirement("8446-AUTH-5", "8446-AUTH-6")
@each_flavor
def test_a_revoked_server(flavor: Flavor) -> None:
    pair = Pair(flavor, settings(sends=revoked()))
    error = refused(pair, Alert.CERTIFICATE_REVOKED, "revoked", victim="client")
    assert isinstance(error, CertificateError)
    assert error.failure is CertificateFailure.REVOKED


@pytest.mark.requirement("8446-AUTH-5", "8446-AUTH-6")
@each_flavor
def test_a_revoked_client(flavor: Flavor) -> None:
    gone = staple_of(certificates.client(), status=REVOKED)
    pair = Pair(flavor, settings(mutual=True, client_sends=gone))
    refused(pair, Alert.CERTIFICATE_REVOKED, "revoked", victim="server")


def stapled(make: Callable[[], bytes]) -> Change:
    """The first entry comes with this instead."""

    def change(message: bytes, pair: Pair) -> bytes:
        whole = certificate(message)
        first = replace(whole.entries[0], extensions=put(whole.entries[0].extensions, 5, make()))
        return replace(whole, entries=(first, *whole.entries[1:])).encode()

    return change


def good() -> tuple[Config, Config]:
    return settings(sends=staple_of(certificates.server()))


_BAD = Alert.BAD_CERTIFICATE_STATUS_RESPONSE
SERVER = certificates.server
BAD: dict[str, Cell] = {
    "rubbish": Cell(("8446-AUTH-6",), stapled(lambda: b"rubbish"), _BAD, "decoded", good),
    "60 KB of rubbish": Cell(("8446-AUTH-6",), stapled(lambda: bytes(60_000)), _BAD, "decoded", good),
    "of another certificate": Cell(
        ("8446-AUTH-6",), stapled(lambda: staple_of(certificates.client())), _BAD, "other", good
    ),
    "too old": Cell(
        ("8446-AUTH-6",), stapled(lambda: staple_of(SERVER(), hours=(-9, -8))), _BAD, "too old", good
    ),
    "from the future": Cell(
        ("8446-AUTH-6",), stapled(lambda: staple_of(SERVER(), hours=(8, 9))), _BAD, "future", good
    ),
    "of a responder that does not know": Cell(
        ("8446-AUTH-6",), stapled(lambda: staple_of(SERVER(), status=UNKNOWN)), _BAD, "know", good
    ),
    "revoked": Cell(
        ("8446-AUTH-6",), stapled(revoked), Alert.CERTIFICATE_REVOKED, "key", good
    ),
}  # fmt: skip


@cells(("staple", BAD))
def test_a_bad_one(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.CERTIFICATE, cell, to_server=False)


@pytest.mark.requirement("8446-NEG-2", "8446-AUTH-6")
@each_flavor
def test_one_that_was_not_asked_for(flavor: Flavor) -> None:
    cell = Cell(
        ("8446-NEG-2",), stapled(lambda: staple_of(SERVER())), Alert.UNSUPPORTED_EXTENSION, "not offered"
    )
    replaced(flavor, _KT.CERTIFICATE, cell, to_server=False, settings=lambda: settings(mode=STAPLE_NONE))
    replaced(
        flavor, _KT.CERTIFICATE, cell, to_server=True,
        settings=lambda: settings(mutual=True, server_mode=STAPLE_NONE),
    )  # fmt: skip


def test_a_staple_taken_away_is_missed() -> None:
    def change(message: bytes, pair: Pair) -> bytes:
        whole = certificate(message)
        first = replace(whole.entries[0], extensions=without(whole.entries[0].extensions, 5))
        return replace(whole, entries=(first, *whole.entries[1:])).encode()

    cell = Cell(("8446-AUTH-6",), change, _BAD, "without an OCSP response")
    replaced(
        DTLS, _KT.CERTIFICATE, cell, to_server=False,
        settings=lambda: settings(mode=STAPLE_REQUIRED, sends=staple_of(SERVER())),
    )  # fmt: skip


def test_context_begins_careful_and_takes_only_modes() -> None:
    ours, theirs = Context(16), Context(17)
    assert (ours.staple_mode, theirs.staple_mode) == (STAPLE_OPTIONAL, STAPLE_NONE)
    with pytest.raises(ValueError, match="3"):
        ours.staple_mode = 3
    ours.staple_mode = 2
    assert ours.staple_mode is STAPLE_REQUIRED
    assert ours.config().staple_mode is STAPLE_REQUIRED


# --- tickets ------------------------------------------------------------------------------------------


@pytest.mark.requirement("8446-PSK-5", "8446-AUTH-6")
@pytest.mark.parametrize("mode", [STAPLE_OPTIONAL, STAPLE_REQUIRED])
@each_flavor
def test_a_ticket_is_good_as_long_as_the_staple_it_came_with(flavor: Flavor, mode: StapleMode) -> None:
    ours, theirs = settings(mode=mode, sends=staple_of(SERVER(), hours=(-1, 2)))
    world = World.make()
    world = replace(
        world,
        client=replace(ours, num_tickets=1),
        server=replace(theirs, num_tickets=1, ticket_keys=world.server.ticket_keys),
    )
    ticket = first_ticket(world, flavor)
    kept = SessionTicket.decode(ticket.encode())
    assert isinstance(kept.peer, PeerCertificate)
    assert kept.peer.ocsp_response
    client, _, again = run(world, flavor, kept)
    assert client.session.resumed
    # It comes along from ticket to ticket.
    assert isinstance(again[0].peer, PeerCertificate)
    assert again[0].peer.ocsp_response == kept.peer.ocsp_response
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=3)
    verifier = CertificateVerifier((SERVER().root,), clock=lambda: later)
    tomorrow = replace(world, client=replace(world.client, verifier=verifier, staple_mode=mode))
    fresh = replace(
        tomorrow,
        server=settings(sends=staple_of(SERVER(), now=later, hours=(-1, 2)))[1],
    )
    client, _, _ = run(fresh, flavor, again[0])
    assert not client.session.resumed


@pytest.mark.requirement("8446-PSK-5")
@each_flavor
def test_whoever_requires_staples_now_relies_on_no_ticket_without(flavor: Flavor) -> None:
    ours, theirs = settings(sends=b"")
    world = World.make()
    world = replace(
        world,
        client=replace(ours, num_tickets=1),
        server=replace(theirs, num_tickets=1, ticket_keys=world.server.ticket_keys),
    )
    ticket = first_ticket(world, flavor)
    assert run(world, flavor, ticket)[0].session.resumed
    stricter = replace(
        world,
        client=replace(world.client, staple_mode=STAPLE_REQUIRED),
        server=replace(
            settings(sends=staple_of(SERVER()))[1], num_tickets=1, ticket_keys=world.server.ticket_keys
        ),
    )
    assert not run(stricter, flavor, ticket)[0].session.resumed
