"""A ticket in place of a cookie: when it counts, how often, and what a stranger gets out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.context import Config
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers import default_provider
from sealwire.crypto.strikes import StrikeRegister
from sealwire.dtls.cookie import Address
from sealwire.errors import Discard
from sealwire.limits import Limits
from sealwire.tls13.contract import EarlyData
from sealwire.tls13.tickets import SessionTicket
from tests.unit.dtls.hellos import HERE
from tests.unit.dtls.host import Site
from tests.unit.tls13.early import register
from tests.unit.tls13.test_tickets import Clock, World

NEXT_PORT: Address = (HERE[0], 4242)
ELSEWHERE: Address = ("192.0.2.77", 7)


@dataclass
class Place:
    """A site whose server lets tickets prove addresses."""

    site: Site
    server: Config
    client: Config
    clock: Clock

    @classmethod
    def make(
        cls,
        *,
        compiled: bool = True,
        strikes: StrikeRegister | None = None,
        limits: Limits | None = None,
        **server: object,
    ) -> Place:
        made = World.make()
        config = replace(
            made.server,
            **{"strikes": register() if strikes is None else strikes, "tickets_as_proof": True, **server},  # type: ignore[arg-type]
        )
        site = Site(limits=limits, client=made.client, server=config)
        if not compiled:
            site.endpoint.gate.sieve = None
        return cls(site, config, made.client, made.clock)

    def tickets(self, at: Address = HERE, site: Site | None = None) -> list[SessionTicket]:
        """What a full handshake from `at` leaves; its connection is over then."""
        site = site or self.site
        client, server = site.connect(at)
        tickets = [one.ticket for one in client.events() if isinstance(one, dtls.TicketReceived)]
        assert tickets
        for one in (client, server):
            one.close(site.now)
        site.run()
        del site.clients[at]
        assert site.endpoint.connections == 0
        return tickets

    def comes_back(
        self, ticket: SessionTicket, at: Address = HERE, *, early: bool = False
    ) -> dtls.Connection:
        client = dtls.Connection.client(
            self.client, now=self.site.now, server_name="localhost", ticket=ticket, early_data=early
        )
        self.site.clients[at] = client
        return client

    @property
    def proofs(self) -> int:
        return self.site.endpoint.counters.tickets_as_proof

    def refused(self, ticket: SessionTicket, at: Address = HERE) -> dtls.Connection:
        """A client whose ticket does not count: asked for a cookie, and served a round trip later."""
        before = self.proofs
        client = self.comes_back(ticket, at)
        self.site.run()
        assert client.state is dtls.State.CONNECTED
        assert client.session.retried
        assert self.proofs == before
        return client


both_gates = pytest.mark.parametrize("compiled", [False, True])


@both_gates
@pytest.mark.requirement("9147-5.1-7")
def test_no_cookie_for_who_comes_back(compiled: bool) -> None:
    place = Place.make(compiled=compiled)
    site = place.site
    ticket, other = place.tickets()[:2]
    client = place.comes_back(ticket)
    up = site.up()
    [server] = site.endpoint
    assert len(up) == 1
    # A first flight of the server's that fits into what its hello allows.
    down = site.down()
    assert sum(len(one) for one, _ in down) <= 3 * sum(len(one) for one, _ in up)
    assert client.state is dtls.State.CONNECTED
    site.run()
    assert server.state is dtls.State.CONNECTED
    assert client.session.resumed
    assert server.session.resumed
    assert not client.session.retried
    assert not server.session.retried
    assert client.session.early_data is EarlyData.NOT_OFFERED
    assert client.export(b"EXPORTER-x", b"", 32) == server.export(b"EXPORTER-x", b"", 32)
    client.send(b"question")
    site.run()
    assert server.messages() == [b"question"]
    assert site.endpoint.counters.hello_retry_requests == 1  # of the first handshake
    # From another port of the same address just as well.
    again = place.comes_back(other, NEXT_PORT)
    site.run()
    assert again.session.resumed
    assert not again.session.retried
    assert place.proofs == 2


@both_gates
@pytest.mark.requirement("9147-5.1-6")
def test_off_unless_asked_for(compiled: bool) -> None:
    place = Place.make(compiled=compiled, tickets_as_proof=False)
    assert place.refused(place.tickets()[0]).session.resumed


@both_gates
@pytest.mark.requirement("9147-5.1-6", "9147-11-1")
def test_once(compiled: bool) -> None:
    """The hello again, from its own address and others: one connection, and a cookie for every copy."""
    place = Place.make(compiled=compiled)
    site = place.site
    ticket = place.tickets()[0]
    client = place.comes_back(ticket)
    [hello] = client.transmit(site.now)
    retries = site.endpoint.counters.hello_retry_requests
    for at in (HERE, NEXT_PORT, (HERE[0], 4243), ELSEWHERE):
        site.endpoint.receive([(hello, at)], site.now)
    assert site.endpoint.connections == 1
    assert place.proofs == 1
    answers = site.endpoint.transmit(site.now)
    assert all(sum(len(data) for data, to in answers if to == at) <= 3 * len(hello) for _, at in answers)
    assert site.endpoint.counters.hello_retry_requests == retries + 3
    # Once its connection is over a copy is no better, for as long as it could be fresh; nor later.
    for server in list(site.endpoint):
        server.abort()
    site.endpoint.transmit(site.now)
    assert site.endpoint.connections == 0
    for later in (0.0, 9.0, 11.0, 60.0):
        place.clock.now += later
        site.now += later
        site.endpoint.receive([(hello, HERE)], site.now)
        assert site.endpoint.connections == 0
    assert place.proofs == 1
    # A second hello under the same ticket is not the first one, and served with a cookie.
    assert place.refused(ticket, NEXT_PORT).session.resumed


@both_gates
def test_the_hello_repeated_by_its_own_client(compiled: bool) -> None:
    """Our flight was lost: the hello that comes again is no copy."""
    place = Place.make(compiled=compiled)
    site = place.site
    client = place.comes_back(place.tickets()[0])
    hello = site.up()
    site.endpoint.transmit(site.now)  # lost
    [server] = site.endpoint
    site.endpoint.receive(hello, site.now + 0.5)
    assert list(site.endpoint) == [server]
    site.skip(5)
    assert client.state is server.state is dtls.State.CONNECTED
    assert not client.session.retried


def _elsewhere(place: Place) -> tuple[SessionTicket, Address]:
    return place.tickets()[0], ELSEWHERE


def _late(place: Place) -> tuple[SessionTicket, Address]:
    ticket = place.tickets()[0]
    place.clock.now += 100.0
    return replace(ticket, received_at=ticket.received_at + 20), HERE


def _early(place: Place) -> tuple[SessionTicket, Address]:
    ticket = place.tickets()[0]
    return replace(ticket, received_at=ticket.received_at - 20), HERE


def _full(place: Place) -> tuple[SessionTicket, Address]:
    first, second = place.tickets()[:2]
    client = place.comes_back(first, NEXT_PORT)
    place.site.run()
    assert not client.session.retried
    return second, HERE


def _of_another_process(place: Place) -> tuple[SessionTicket, Address]:
    other = replace(place.server, strikes=register())
    return place.tickets(site=Site(client=place.client, server=other))[0], HERE


def _from_before_it_was_on(place: Place) -> tuple[SessionTicket, Address]:
    other = replace(place.server, tickets_as_proof=False)
    return place.tickets(site=Site(client=place.client, server=other))[0], HERE


def _clock_set_back(place: Place) -> tuple[SessionTicket, Address]:
    first, second = place.tickets()[:2]
    place.clock.now += 5
    place.comes_back(first, NEXT_PORT)
    place.site.run()
    assert place.proofs == 1
    place.clock.now -= 1
    return second, HERE


@both_gates
@pytest.mark.requirement("9147-5.1-6", "9147-5.1-7")
@pytest.mark.parametrize(
    "reason",
    [_elsewhere, _late, _early, _full, _of_another_process, _from_before_it_was_on, _clock_set_back],
)
def test_tickets_that_do_not_count(
    compiled: bool, reason: Callable[[Place], tuple[SessionTicket, Address]]
) -> None:
    place = Place.make(compiled=compiled, strikes=register(capacity=1))
    assert place.refused(*reason(place)).session.resumed


@both_gates
def test_tickets_that_are_not_ours(compiled: bool) -> None:
    """Made up, torn, with another's key: a full handshake behind a cookie, or no handshake."""
    place = Place.make(compiled=compiled)
    ticket = place.tickets()[0]
    identity = ticket.identity
    for made_up in (bytes(len(identity)), identity[:-1], identity[:16] + bytes(len(identity) - 16), b"x"):
        assert not place.refused(replace(ticket, identity=made_up)).session.resumed
    assert len(place.server.strikes or ()) == 0
    # Its binder does not fit: nothing counts, and the second hello ends with decrypt_error.
    stolen = place.comes_back(replace(ticket, secret=Secret(bytes(len(ticket.secret)))), NEXT_PORT)
    place.site.run()
    assert stolen.state is dtls.State.CLOSED
    assert place.proofs == 0
    assert len(place.server.strikes or ()) == 0
    # Its owner's still does.
    client = place.comes_back(ticket)
    place.site.run()
    assert not client.session.retried


@both_gates
@pytest.mark.requirement("9147-5.1-7", "9147-11-1")
def test_under_load_everybody_is_asked(compiled: bool) -> None:
    place = Place.make(compiled=compiled)
    first, second = place.tickets()[:2]
    endpoint = place.site.endpoint
    endpoint.load.force(True, place.site.now)
    assert place.refused(first).session.resumed
    endpoint.load.force(None, place.site.now)
    client = place.comes_back(second, NEXT_PORT)
    place.site.run()
    assert not client.session.retried


@both_gates
@pytest.mark.requirement("9147-5.1-8")
def test_what_is_sent_to_an_address_that_only_a_ticket_shows(compiled: bool) -> None:
    """Three times what came, however long nothing more does, also where the ticket leads to certificates."""
    for verify in (False, True):
        place = Place.make(compiled=compiled)
        site = place.site
        ticket = place.tickets()[0]
        if verify:
            # Client certificates are demanded by now, so the ticket resumes nothing.
            demanding = replace(place.server, verify_mode=2)
            site.endpoint._configure = lambda config=demanding: config  # type: ignore[misc]
        client = place.comes_back(ticket)
        received = sum(len(one) for one, _ in site.up())
        assert place.proofs == 1
        sent = 0
        for _ in range(100):
            sent += sum(len(one) for one, _ in site.endpoint.transmit(site.now))
            due = site.endpoint.deadline()
            if due is None or due > 20:
                break
            site.now = due
            site.endpoint.wake(site.now)
        assert 0 < sent <= 3 * received
        assert client.state is dtls.State.HANDSHAKING


@both_gates
def test_limits_of_its_prefix(compiled: bool) -> None:
    """Half-open connections shown by tickets count against their prefix."""
    most = 3
    place = Place.make(compiled=compiled, limits=Limits(prefix_handshakes=most))
    site = place.site
    tickets = [ticket for _ in range(4) for ticket in place.tickets()]
    for n, ticket in enumerate(tickets):
        client = place.comes_back(ticket, (HERE[0], 5000 + n))
        [hello] = client.transmit(site.now)
        site.clients.clear()
        site.endpoint.receive([(hello, (HERE[0], 5000 + n))], site.now)
    assert site.endpoint.handshaking == most
    assert site.endpoint.ledger.reached["prefix_handshakes"] == len(tickets) - most
    site.skip(120)
    assert site.endpoint.connections == 0
    assert site.endpoint.ledger.held == 0


@both_gates
@pytest.mark.requirement("8446-0RTT-2")
def test_early_data_and_proof_are_one_use(compiled: bool) -> None:
    place = Place.make(compiled=compiled, max_early_data_size=100)
    site = place.site
    ticket, other = place.tickets()[:2]
    client = place.comes_back(ticket, early=True)
    client.send_replayable(b"once")
    site.run()
    assert client.session.early_data is EarlyData.ACCEPTED
    assert place.refused(ticket, NEXT_PORT).session.resumed
    # The other way round as well.
    client = place.comes_back(other, (HERE[0], 1))
    site.run()
    assert not client.session.retried
    client = place.comes_back(other, (HERE[0], 2), early=True)
    client.send_replayable(b"again")
    site.run()
    assert client.session.early_data is EarlyData.REJECTED


@both_gates
@pytest.mark.parametrize("as_proof", [False, True])
def test_a_flight_whose_early_data_is_rejected_for_its_protocol_counts_once(
    compiled: bool, as_proof: bool
) -> None:
    """What the engine says of early data comes after the gate has remembered the ticket."""
    place = Place.make(compiled=compiled, max_early_data_size=100, tickets_as_proof=as_proof)
    site = place.site
    ticket = place.tickets()[0]
    # By now the server agrees on another protocol than the ticket was given for.
    other = replace(place.server, alpn=(b"other",))
    site.endpoint._configure = lambda: other
    client = dtls.Connection.client(
        replace(place.client, alpn=(b"other",)),
        now=0.0,
        server_name="localhost",
        ticket=ticket,
        early_data=True,
    )
    flight = client.transmit(site.now)
    for port in range(5):
        site.endpoint.receive([(one, (HERE[0], 6000 + port)) for one in flight], site.now)
    assert site.endpoint.connections == place.proofs == 1
    [server] = site.endpoint
    assert server.early_data is EarlyData.REJECTED


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_hellos_with_tickets_from_anywhere_at_any_time(data: st.DataObject) -> None:
    """Copies, from any address and at any time: each ticket counts at most once, and both gates agree."""
    strikes = [register(), register()]
    places = [Place.make(compiled=bool(n), strikes=one) for n, one in enumerate(strikes)]
    hellos = []
    for place in places:
        tickets = place.tickets()[:2]
        made = [place.comes_back(one) for one in tickets]
        hellos.append([one.transmit(0.0)[0] for one in made])
        place.site.clients.clear()
    for _ in range(data.draw(st.integers(1, 12))):
        which = data.draw(st.integers(0, 1))
        at = data.draw(st.sampled_from([HERE, NEXT_PORT, (HERE[0], 9), ELSEWHERE]))
        wait = data.draw(st.sampled_from([0.0, 0.0, 0.1, 5.0, 11.0, -1.0]))
        for place, own in zip(places, hellos, strict=True):
            place.clock.now += wait
            place.site.now += max(wait, 0.0)
            place.site.endpoint.wake(place.site.now)
            place.site.endpoint.receive([(own[which], at)], place.site.now)
            place.site.endpoint.transmit(place.site.now)
    one, other = (place.site.endpoint.counters for place in places)
    assert one.tickets_as_proof <= 2
    assert one.snapshot() == other.snapshot()
    assert len(strikes[0]) == len(strikes[1]) == one.tickets_as_proof


def test_a_name_that_leads_to_other_settings_has_its_own_tickets() -> None:
    """The settings a name leads to say whether its tickets count."""
    place = Place.make(tickets_as_proof=False)
    named = replace(place.server, tickets_as_proof=True, choose=None)
    choosing = replace(place.server, choose=lambda name: named if name == "localhost" else None)
    place.site.endpoint._configure = lambda: choosing
    client = place.comes_back(place.tickets()[0])
    place.site.run()
    assert not client.session.retried
    assert client.session.resumed


@both_gates
def test_a_client_without_a_common_share_is_sent_back_and_its_ticket_not_used_up(compiled: bool) -> None:
    place = Place.make(compiled=compiled)
    ticket = place.tickets()[0]
    groups = place.server.groups
    client = dtls.Connection.client(
        replace(place.client, key_shares=()), now=0.0, server_name="localhost", ticket=ticket
    )
    assert groups
    place.site.clients[HERE] = client
    place.site.run()
    assert client.session.retried
    assert len(place.server.strikes or ()) == 0
    assert place.site.inside(Discard.UNDER_LOAD) == 0


def test_the_context_says_so() -> None:
    from tests import configs

    context = configs.server_context()
    assert not context.tickets_as_proof
    assert context.config().strikes is None
    context.tickets_as_proof = True
    config = context.config()
    assert config.tickets_as_proof
    assert config.strikes is not None
    context.set_early_data_window(5.0, capacity=3)
    changed = context.config().strikes
    assert changed is not None
    assert (changed.capacity, changed.window_seconds) == (3, 5.0)
    context.tickets_as_proof = False
    assert not context.config().tickets_as_proof
    assert isinstance(default_provider().random(1), bytes)
