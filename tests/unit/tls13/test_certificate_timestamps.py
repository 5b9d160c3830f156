"""Signed certificate timestamps (RFC 6962 section 3.3.1) in handshakes: carried, remembered, never judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealwire.context import Config
from sealwire.crypto.certificates import PeerCertificate
from sealwire.crypto.transparency import parse_timestamps
from sealwire.errors import Alert, ConfigurationError
from sealwire.tls13 import client as client_states
from sealwire.tls13 import extensions as ext
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.messages import CertificateEntry, HandshakeType
from sealwire.tls13.tickets import SessionTicket
from tests import certificates, configs
from tests.unit.tls13.engines import (
    Delivery,
    Pair,
    Rogue,
    certificate,
    certificate_request,
    client_hello,
    each_flavor,
    put,
    refused,
)
from tests.unit.tls13.test_tickets import World, first_ticket, run

_KT = HandshakeType
FIRST, SECOND = b"\0" + bytes(range(40)), b"\0" * 47


def listed(*timestamps: bytes) -> bytes:
    """A SignedCertificateTimestampList, written by hand."""
    body = b"".join(len(one).to_bytes(2, "big") + one for one in timestamps)
    return len(body).to_bytes(2, "big") + body


def settings(*, asks: bool = True, shows: bytes = listed(FIRST, SECOND)) -> tuple[Config, Config]:
    """Both show a certificate with timestamps."""
    identity, own = certificates.server(intermediates=1), certificates.client()
    theirs = configs.server_context(client_roots=own.cafile)
    theirs.load_cert_chain(identity.certfile, identity.keyfile, timestamps=shows)
    ours = configs.client_context(identity.cafile)
    ours.load_cert_chain(own.certfile, own.keyfile, timestamps=listed(SECOND))
    for one in (ours, theirs):
        one.certificate_timestamps = asks
    return ours.config(), theirs.config()


def entries(pair: Pair, *, of_client: bool = False) -> tuple[CertificateEntry, ...]:
    (message,) = [
        one.message for one in pair.delivered if one.kind is _KT.CERTIFICATE and one.to_server is of_client
    ]
    return certificate(message).entries


@each_flavor
def test_both_sides_show_what_they_have_to_who_asks(flavor: Flavor) -> None:
    pair = Pair(flavor, settings(), run=True)
    pair.assert_same_keys()
    hello = client_hello(pair.delivered[0].message, flavor)
    assert hello.extensions.get(ext.TIMESTAMPS_REQUESTED) is True
    (request,) = [one.message for one in pair.delivered if one.kind is _KT.CERTIFICATE_REQUEST]
    assert certificate_request(request).extensions.get(ext.TIMESTAMPS_REQUESTED) is True
    leaf, *others = entries(pair)
    assert leaf.extensions.get(ext.CERTIFICATE_TIMESTAMPS) == (FIRST, SECOND)
    assert others
    assert not any(len(one.extensions) for one in others)
    ours, theirs = pair.client.session.peer_certificate, pair.server.session.peer_certificate
    assert ours is not None
    assert theirs is not None
    assert ours.timestamps == (FIRST, SECOND)
    assert theirs.timestamps == (SECOND,)


@each_flavor
def test_nobody_is_shown_what_it_did_not_ask_for(flavor: Flavor) -> None:
    pair = Pair(flavor, settings(asks=False), run=True)
    for of_client in (False, True):
        assert not any(len(one.extensions) for one in entries(pair, of_client=of_client))
    assert pair.client.session.peer_certificate is not None
    assert pair.client.session.peer_certificate.timestamps == ()


def beside(position: int, *timestamps: bytes) -> Rogue:
    """A server that shows timestamps beside one certificate of its list."""

    def rogue(delivery: Delivery) -> list[Delivery]:
        if delivery.kind is not _KT.CERTIFICATE or delivery.to_server:
            return [delivery]
        shown = certificate(delivery.message)
        chosen = shown.entries[position]
        block = put(chosen.extensions, ext.CERTIFICATE_TIMESTAMPS.code, timestamps)
        changed = list(shown.entries)
        changed[position] = replace(chosen, extensions=block)
        return [delivery.but(replace(shown, entries=tuple(changed)).encode())]

    return rogue


@each_flavor
def test_those_of_an_issuer_do_not_count(flavor: Flavor) -> None:
    """The list is taken, and what stands beside the second certificate is about nobody."""
    pair = Pair(flavor, settings(shows=b""), rogue=beside(1, SECOND))
    pair.run_until(_KT.CERTIFICATE_VERIFY, to_server=False)
    state = pair.client._state
    assert isinstance(state, client_states.ExpectCertificateVerify)
    assert isinstance(state.presented.peer, PeerCertificate)
    assert state.presented.peer.timestamps == ()


@pytest.mark.requirement("8446-NEG-2")
@each_flavor
def test_unasked_for_they_are_refused(flavor: Flavor) -> None:
    pair = Pair(flavor, settings(asks=False), rogue=beside(0, FIRST))
    refused(pair, Alert.UNSUPPORTED_EXTENSION, "which was not offered", victim="client")


@each_flavor
def test_a_ticket_remembers_them(flavor: Flavor) -> None:
    world = World.make()
    ours, theirs = settings()
    world = replace(
        world,
        client=replace(world.client, certificate_timestamps=True, verifier=ours.verifier),
        server=replace(world.server, credentials=theirs.credentials),
    )
    ticket = SessionTicket.decode(first_ticket(world, flavor).encode())
    client, _, _ = run(world, flavor, ticket)
    assert client.session.resumed
    assert client.session.peer_certificate is not None
    assert client.session.peer_certificate.timestamps == (FIRST, SECOND)
    chain = sum(map(len, client.session.peer_certificate.chain))
    assert client.session.peer_bytes == chain + len(FIRST + SECOND)


@pytest.mark.parametrize(
    "data",
    [b"\0", b"\0\0", listed(FIRST)[:-1], listed(FIRST) + b"\0", listed(FIRST, b""), listed(b"")],
    ids=["cut short", "empty", "one byte less", "one byte more", "an empty one", "only an empty one"],
)
def test_what_is_no_list_is_not_loaded(data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="SignedCertificateTimestampList"):
        parse_timestamps(data)
    context = configs.server_context()
    identity = certificates.server()
    with pytest.raises(ConfigurationError, match="SignedCertificateTimestampList"):
        context.load_cert_chain(identity.certfile, identity.keyfile, timestamps=data)


def test_lists_that_are_there() -> None:
    assert parse_timestamps(b"") == ()
    assert parse_timestamps(listed(FIRST, SECOND)) == (FIRST, SECOND)
    longest = bytes(0xFFFF - 4)
    assert parse_timestamps(listed(longest)) == (longest,)
    with pytest.raises(ConfigurationError, match="65,535"):
        parse_timestamps(listed(bytes(0xFFFF - 2)))


def test_a_raw_public_key_has_none() -> None:
    identity = certificates.server()
    context = configs.server_context()
    context.load_raw_public_key(identity.keyfile)
    (raw,) = [one for one in context.config().credentials if one.is_raw_public_key]
    assert raw.stamped(b"").timestamps == ()
    with pytest.raises(ConfigurationError, match="raw public key"):
        raw.stamped(listed(FIRST))
