"""Resumption by session tickets: what comes back, and when a full handshake happens instead."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.context import CERT_REQUIRED, Config
from sealwire.crypto.certificates import PeerCertificate, RawPublicKey
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.crypto.ticketkeys import TicketKeys
from sealwire.errors import ProtocolError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import PeerIdentity, SendMessage, TicketReceived
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import ClientHello, EncryptedExtensions, HandshakeType, open_message
from sealwire.tls13.tickets import SessionTicket
from tests import certificates, configs

each_flavor = pytest.mark.parametrize("flavor", [TLS, DTLS], ids=["TLS", "DTLS"])
NAME = "localhost"


@dataclass
class Clock:
    """A wall clock that tests move."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A client's and a server's settings on one clock."""

    client: Config
    server: Config
    clock: Clock

    @classmethod
    def make(cls, *, mutual: bool = False, tickets: int = 2) -> World:
        clock = Clock()
        own = certificates.client()
        client = configs.client_context(identity=own) if mutual else configs.client_context()
        server = configs.server_context(client_roots=own.cafile) if mutual else configs.server_context()
        return cls(
            replace(client.config(), num_tickets=tickets, clock=clock),
            replace(server.config(), num_tickets=tickets, clock=clock, ticket_keys=TicketKeys()),
            clock,
        )


def run(
    world: World,
    flavor: Flavor,
    ticket: SessionTicket | None = None,
    *,
    name: str = NAME,
    ids: tuple[bytes | None, bytes | None] = (None, None),
) -> tuple[Handshake, Handshake, list[SessionTicket]]:
    """A handshake between two engines, and the tickets the client got in it.

    `ids` are the connection ids client and server want.
    """
    client = Handshake.client(world.client, flavor, server_name=name, ticket=ticket, connection_id=ids[0])
    server = Handshake.server(world.server, flavor, connection_id=ids[1])
    tickets: list[SessionTicket] = []
    moved = True
    while moved:
        moved = False
        for sender, receiver in ((client, server), (server, client)):
            for output in sender.outputs():
                if isinstance(output, SendMessage):
                    receiver.receive(output.epoch, output.message)
                    moved = True
                elif isinstance(output, TicketReceived):
                    tickets.append(output.ticket)
    assert client.complete
    assert server.complete
    return client, server, tickets


def first_ticket(world: World, flavor: Flavor) -> SessionTicket:
    return run(world, flavor)[2][0]


@each_flavor
@pytest.mark.requirement("8446-PSK-4", "8446-KS-1", "8446-AUTH-4")
def test_a_ticket_resumes_once_and_brings_a_fresh_one(flavor: Flavor) -> None:
    world = World.make()
    client, _, tickets = run(world, flavor)
    assert not client.session.resumed
    assert len(tickets) == 2
    # [8446-PSK-4]: the nonces make keys of their own.
    assert len({bytes(one.secret) for one in tickets}) == 2
    again, there, fresh = run(world, flavor, tickets[0])
    assert again.session.resumed
    assert there.session.resumed
    assert again.session.peer == client.session.peer
    assert again.session.psk_identity is there.session.psk_identity is None
    # It used up one, so it asked for one.
    assert len(fresh) == 1
    assert again.export(b"x", b"", 32) == there.export(b"x", b"", 32)
    assert again.export(b"x", b"", 32) != client.export(b"x", b"", 32)


@pytest.mark.requirement("9146-4")
@pytest.mark.parametrize("second", [(None, b"s2"), (b"c2", None), (b"c2", b"s2"), (b"", b"s2")])
def test_connection_ids_are_agreed_anew_in_a_resumed_session(
    second: tuple[bytes | None, bytes | None],
) -> None:
    world = World.make()
    before, _, tickets = run(world, DTLS, ids=(b"c1", b"s1"))
    assert (before.connection_ids.ours, before.connection_ids.theirs) == (b"c1", b"s1")
    client, server, _ = run(world, DTLS, tickets[0], ids=second)
    assert client.session.resumed
    expected = (b"", b"") if None in second else second
    assert (client.connection_ids.ours, client.connection_ids.theirs) == expected
    assert (server.connection_ids.theirs, server.connection_ids.ours) == expected


@each_flavor
@pytest.mark.requirement("6066-1")
def test_a_name_is_acknowledged_where_it_chose_something(
    flavor: Flavor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 6066 section 3: a server that uses the name says so, but not when it resumes a session."""
    answers: list[bool] = []
    receive = Handshake.receive

    def watched(engine: Handshake, epoch: int, message: bytes) -> None:
        kind, body = open_message(message)
        if kind is HandshakeType.ENCRYPTED_EXTENSIONS:
            answers.append(ext.SERVER_NAME_ACCEPTED.code in EncryptedExtensions.decode(body).extensions)
        receive(engine, epoch, message)

    monkeypatch.setattr(Handshake, "receive", watched)
    world = World.make()
    _, _, tickets = run(world, flavor)
    run(world, flavor, tickets[0])
    assert answers == [True, False]


@each_flavor
@pytest.mark.requirement("8446-PSK-5")
def test_a_resumed_client_is_who_it_was(flavor: Flavor) -> None:
    world = World.make(mutual=True)
    _, server, tickets = run(world, flavor)
    _, again, _ = run(world, flavor, tickets[0])
    assert again.session.resumed
    assert again.session.peer is not None
    assert again.session.peer == server.session.peer


@each_flavor
@pytest.mark.requirement("8446-PSK-5")
def test_a_ticket_of_nobody_does_not_open_a_server_that_wants_to_know(flavor: Flavor) -> None:
    """CVE-2026-11703's class: the policy became stricter after the ticket was given out."""
    world = World.make()
    ticket = first_ticket(world, flavor)
    stricter = World.make(mutual=True)
    stricter.server = replace(stricter.server, ticket_keys=world.server.ticket_keys)
    assert stricter.server.verify_mode == CERT_REQUIRED
    _, server, _ = run(stricter, flavor, ticket)
    assert not server.session.resumed
    assert server.session.peer is not None


@each_flavor
@pytest.mark.requirement("8446-PSK-5", "8446-PSK-2")
def test_what_ends_in_a_full_handshake(flavor: Flavor) -> None:
    world = World.make()
    ticket = first_ticket(world, flavor)
    broken = bytearray(ticket.identity)
    broken[-1] ^= 1
    other = TLS if flavor is DTLS else DTLS
    for why, unusable in {
        "tampered": replace(ticket, identity=bytes(broken)),
        "cut": replace(ticket, identity=ticket.identity[:20]),
        "of the other protocol": first_ticket(world, other),
        "for another server": replace(ticket, server_name="example.org"),
        "of a suite not offered": replace(ticket, suite=CipherSuite(0x1304)),
        "from the future": replace(ticket, received_at=world.clock.now + 10),
        "too old": replace(ticket, received_at=world.clock.now - ticket.lifetime),
    }.items():
        client, server, _ = run(world, flavor, unusable)
        assert not client.session.resumed, why
        assert not server.session.resumed, why


@each_flavor
@pytest.mark.requirement("8446-PSK-5")
def test_a_server_looks_at_name_and_protocol_itself(flavor: Flavor) -> None:
    """A client that is broken, or wants more than it was given, offers a ticket where it is not good for."""
    world = World.make()
    world.client = replace(world.client, check_hostname=False)
    ticket = first_ticket(world, flavor)
    client, server, _ = run(world, flavor, replace(ticket, server_name="other.example"), name="other.example")
    assert not client.session.resumed
    assert not server.session.resumed
    other = TLS if flavor is DTLS else DTLS
    client, server, _ = run(world, flavor, replace(first_ticket(world, other), version=flavor.version))
    assert not client.session.resumed
    assert not server.session.resumed


@each_flavor
@pytest.mark.requirement("8446-PSK-4", "8446-PSK-5")
def test_tickets_age(flavor: Flavor) -> None:
    world = World.make()
    ticket = first_ticket(world, flavor)
    assert ticket.lifetime == 86_400
    world.clock.now += 86_000
    assert run(world, flavor, ticket)[0].session.resumed
    world.clock.now += 500
    assert not run(world, flavor, ticket)[0].session.resumed


@each_flavor
@pytest.mark.requirement("8446-PSK-5")
def test_servers_that_share_keys_share_tickets_and_others_do_not(flavor: Flavor) -> None:
    keys = [bytes(range(32))]
    world = World.make()
    world.server = replace(world.server, ticket_keys=TicketKeys(keys))
    ticket = first_ticket(world, flavor)
    world.server = replace(world.server, ticket_keys=TicketKeys(keys))
    assert run(world, flavor, ticket)[1].session.resumed
    world.server = replace(world.server, ticket_keys=TicketKeys([bytes(32)]))
    assert not run(world, flavor, ticket)[1].session.resumed


@each_flavor
@pytest.mark.requirement("8446-AUTH-5")
def test_a_server_not_trusted_any_more_is_not_resumed(flavor: Flavor) -> None:
    world = World.make()
    ticket = first_ticket(world, flavor)
    stranger = configs.client_context(certificates.server(certificates.Kind.RSA_2048).cafile).config()
    client = Handshake.client(
        replace(stranger, num_tickets=1, clock=world.clock), flavor, server_name=NAME, ticket=ticket
    )
    [hello] = [one for one in client.outputs() if isinstance(one, SendMessage)]
    _, body = open_message(hello.message)
    assert ext.PRE_SHARED_KEYS.code not in ClientHello.decode(body, flavor).extensions


@each_flavor
def test_nobody_gets_tickets_unasked(flavor: Flavor) -> None:
    world = World.make()
    asked = world.client
    world.client = replace(asked, num_tickets=0)
    assert run(world, flavor)[2] == []
    world.client, world.server = asked, replace(world.server, num_tickets=0)
    assert run(world, flavor)[2] == []


def test_a_ticket_names_its_age_in_hidden_milliseconds() -> None:
    world = World.make()
    ticket = first_ticket(world, TLS)
    assert ticket.obfuscated_age(world.clock.now + 1.5) == (1500 + ticket.age_add) & 0xFFFFFFFF


@each_flavor
def test_a_server_shows_how_far_the_clocks_are_apart(flavor: Flavor) -> None:
    """In seconds, more than nothing where the client takes its ticket for older than it is."""
    world = World.make()
    ticket = first_ticket(world, flavor)
    client, server, _ = run(world, flavor)
    assert (client.session.ticket_age_skew, server.session.ticket_age_skew) == (None, None)
    issued = world.clock.now
    for passed in (0.0, 90.0, 4.0, 30.5):
        # Between the two, the client's clock went on for `passed` seconds and the server's for 20.
        client_clock = Clock(issued + passed)
        world.clock.now = issued + 20
        apart = replace(world, client=replace(world.client, clock=client_clock))
        client, server, _ = run(apart, flavor, ticket)
        assert server.session.resumed
        assert server.session.ticket_age_skew == pytest.approx(passed - 20, abs=0.002)
        assert client.session.ticket_age_skew is None


@given(data=st.binary(max_size=120))
def test_whatever_is_decoded_is_a_ticket_or_an_error(data: bytes) -> None:
    try:
        ticket = SessionTicket.decode(data)
    except ProtocolError:
        return
    assert SessionTicket.decode(ticket.encode()) == ticket


@pytest.mark.parametrize(
    "peer",
    [PeerCertificate((b"one", b"two")), RawPublicKey(b"key"), None],
    ids=["certificates", "raw key", "nobody"],
)
def test_a_ticket_can_be_kept_and_hides_its_secret(peer: PeerIdentity | None) -> None:
    ticket = SessionTicket(
        identity=b"ticket",
        secret=Secret(bytes(range(32))),
        suite=next(iter(SUITES)),
        version=DTLS.version,
        server_name=NAME,
        received_at=1_800_000_000.25,
        lifetime=3600,
        age_add=7,
        peer=peer,
    )
    assert SessionTicket.decode(ticket.encode()) == ticket
    assert bytes(range(32)).hex() not in repr(ticket)
    for n in range(len(ticket.encode())):
        with pytest.raises(ProtocolError):
            SessionTicket.decode(ticket.encode()[:n])
