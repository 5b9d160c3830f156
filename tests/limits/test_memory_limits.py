"""The limits on memory: per purpose, connection and prefix, and in total; who goes when it is used up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealwire import dtls, stcp
from sealwire.dtls.cookie import Address
from sealwire.dtls.header import ContentType, fragment_header
from sealwire.errors import Alert, Discard, HandshakeError, LimitReached, PeerAlert
from sealwire.limits import Ledger, Limits, Policy, Pressure, Purpose, prefixes_of
from sealwire.limits.weights import CONNECTION_BYTES, HALF_OPEN_BYTES
from sealwire.tls13.messages import HandshakeType
from tests import certificates, configs
from tests.unit.dtls.host import Site
from tests.unit.dtls.rig import Rig, joined
from tests.unit.stcp.pair import Pair as Streams

MIB = 1024 * 1024


def fill_reassembly(rig: Rig, n: int, size: int = 1000) -> int:
    """Fragments of one message that is never whole, to the client; bytes the client holds for them."""
    seq = rig.client._layer.reassembly.next_seq
    for k in range(n):
        content = fragment_header(HandshakeType.NEW_SESSION_TICKET, 60_000, seq, k * size, size) + bytes(size)
        rig.inject(rig.server, ContentType.HANDSHAKE, content)
    return rig.ledger.held_for(Purpose.REASSEMBLY)


# --- one purpose over all connections -----------------------------------------------------------


def test_flights_bytes() -> None:
    """A flight that cannot be kept is not sent: the handshake ends with an alert."""
    rig = joined(limits=Limits(flights_bytes=400), handshake=False)
    rig.run()
    assert isinstance(rig.server.error, HandshakeError)
    assert rig.server.error.alert is Alert.INTERNAL_ERROR
    assert rig.ledger.held == 0


def test_reassemblies_bytes() -> None:
    rig = joined(limits=Limits(reassemblies_bytes=10_000))
    assert fill_reassembly(rig, 30) <= 10_000
    assert rig.client.counters.discards[Discard.OVER_BUDGET] > 15
    rig.take(rig.client)
    rig.echo()


@pytest.mark.parametrize("transport", ["dtls", "stcp"])
def test_receive_queues_bytes(transport: str) -> None:
    limits = Limits(receive_queues_bytes=10_000)
    if transport == "dtls":
        rig = joined(limits=limits)
        for _ in range(30):
            rig.client.send(bytes(1000))
            rig.run()
        assert len(rig.server.messages()) == 9
        assert rig.server.counters.discards == {Discard.RECEIVE_QUEUE_FULL: 21}
        rig.echo()
    else:
        # A stream cannot leave anything out.
        pair = Streams(limits=limits)
        pair.client.send(bytes(11_000))
        pair.run()
        assert isinstance(pair.server.error, LimitReached)
        assert pair.server.error.name == "receive_queues_bytes"


@pytest.mark.parametrize("transport", ["dtls", "stcp"])
def test_send_queues_bytes(transport: str) -> None:
    limits = Limits(send_queues_bytes=10_000)
    if transport == "dtls":
        rig = joined(limits=limits)
        for _ in range(9):
            rig.client.send(bytes(1000))
        with pytest.raises(LimitReached) as caught:
            rig.client.send(bytes(1000))
        rig.run()
        assert len(rig.server.messages()) == 9
    else:
        pair = Streams(limits=limits)
        with pytest.raises(LimitReached) as caught:
            pair.client.send(bytes(11_000))
        pair.client.send(bytes(9_000))
    assert caught.value.name in ("send_queue_bytes", "send_queues_bytes")


def test_early_data_bytes() -> None:
    """What a peer says before it has finished has a purse of its own."""
    ledger = Ledger(Limits(early_data_bytes=5_000))
    limits = Limits()
    account = dtls.charges.open_account(ledger, limits)
    queue = dtls.queues.MessageQueue(account, Purpose.EARLY_DATA, 1 << 20, "receive_queue_bytes")
    assert queue.put([bytes(4_000)])
    assert not queue.put([bytes(1_000)])
    queue.take()
    assert queue.put([bytes(1_000)])


def test_tickets_bytes() -> None:
    """A client keeps as many tickets as it has room for; another costs a full handshake some day."""
    rig = joined(
        client=replace(configs.client_context().config(), num_tickets=2), limits=Limits(tickets_bytes=2_000)
    )
    for n in range(8):
        ticket = bytes.fromhex("00000e10 00000000 01") + bytes([n]) + bytes.fromhex("0001") + b"t" + bytes(2)
        rig.inject(rig.server, ContentType.HANDSHAKE, rig.message(rig.server, 4, ticket))
    assert 1_500 < rig.ledger.held_for(Purpose.TICKETS) <= 2_000
    assert [type(one) for one in rig.client.events()] == [dtls.TicketReceived] * 3
    assert rig.ledger.held_for(Purpose.TICKETS) == 0
    rig.take(rig.client)
    rig.echo()


def test_tickets_bytes_of_a_stream() -> None:
    context, client = configs.server_context(), configs.client_context()
    context.num_tickets = client.num_tickets = 8
    pair = Streams(client, context, limits=Limits(tickets_bytes=2_000), handshake=False)
    pair.run()
    assert 0 < pair.ledger.held_for(Purpose.TICKETS) <= 2_000
    kept = sum(isinstance(one, stcp.TicketReceived) for one in pair.client.events())
    assert 1 <= kept <= 3
    assert pair.ledger.reached["tickets_bytes"] == 8 - kept
    assert pair.ledger.held_for(Purpose.TICKETS) == 0


def test_application_bytes() -> None:
    site = Site(limits=Limits(application_bytes=50_000))
    with site.endpoint.budget.reserve(40_000) as reservation:
        assert site.endpoint.ledger.held == 40_000
        reservation.grow(10_000)
        with pytest.raises(LimitReached) as caught:
            reservation.grow(1)
        assert caught.value.name == "application_bytes"
        with pytest.raises(LimitReached):
            site.endpoint.budget.reserve(1, peer=("192.0.2.1", 5))
    assert site.endpoint.ledger.held == 0
    assert len(site.endpoint.ledger.prefixes) == 0


# --- one connection -----------------------------------------------------------------------------


def test_handshake_bytes() -> None:
    """In its handshake a connection may hold less than later."""
    identity = certificates.large_server(20_000)
    rig = joined(
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        limits=Limits(handshake_bytes=HALF_OPEN_BYTES + 5_000),
        handshake=False,
    )
    rig.run()
    assert isinstance(rig.server.error, HandshakeError)
    assert rig.server.error.alert is Alert.INTERNAL_ERROR


def test_connection_bytes() -> None:
    rig = joined(limits=Limits(connection_bytes=HALF_OPEN_BYTES + 10_000))
    for _ in range(100):
        rig.client.send(bytes(1000))
        rig.run()
    assert rig.server.held_bytes <= HALF_OPEN_BYTES + 10_000
    assert rig.server.counters.discards[Discard.RECEIVE_QUEUE_FULL] > 50


@pytest.mark.requirement("9147-5.5-4")
def test_reassembly_bytes() -> None:
    """A peer that fills its share in the handshake is not let beyond it, and times out."""
    limits = Limits(reassembly_bytes=8_000)
    rig = joined(limits=limits, handshake=False)
    rig.deliver(rig.client)
    for k in range(20):
        content = fragment_header(HandshakeType.CERTIFICATE, 60_000, 2, k * 1000, 1000) + bytes(1000)
        rig.inject(rig.client, ContentType.HANDSHAKE, content, epoch=0)
    rig = joined(limits=replace(limits, reassembly_bytes=8_000), handshake=False)
    rig.deliver(rig.client)
    rig.take(rig.server)
    for k in range(20):
        content = fragment_header(HandshakeType.CERTIFICATE, 60_000, 1, k * 1000, 1000) + bytes(1000)
        seal = rig.server._opening
        assert seal.epoch == 2
        fragment = dtls.header.decode_fragments(content)[0]
        rig.server._layer.reassembly.offer(fragment, 2)
    assert rig.ledger.held_for(Purpose.REASSEMBLY) <= 8_000


@pytest.mark.requirement("9147-5.5-4")
def test_established_reassembly_bytes() -> None:
    """What comes after the handshake is small, so less is kept of it."""
    rig = joined(limits=Limits(established_reassembly_bytes=8_000))
    assert fill_reassembly(rig, 20) <= 8_000
    assert rig.client.counters.discards[Discard.OVER_BUDGET] >= 12
    rig.take(rig.client)
    rig.echo()


def test_a_budget_shrinks_after_the_handshake() -> None:
    rig = joined()
    assert rig.server.held_bytes == CONNECTION_BYTES < HALF_OPEN_BYTES
    assert rig.ledger.held_for(Purpose.HANDSHAKE) == rig.ledger.held_for(Purpose.REASSEMBLY) == 0


# --- prefixes -----------------------------------------------------------------------------------

NEIGHBOURS: list[Address] = [(f"2001:db8:1:1::{n:x}", 1000, 0, 0) for n in range(1, 20)]
SITE: list[Address] = [(f"2001:db8:1:{n:x}::1", 1000, 0, 0) for n in range(1, 20)]
OTHER: Address = ("2001:db8:2::1", 1000, 0, 0)


def crowd(site: Site, peers: list[Address]) -> int:
    """How many of `peers` are let in, one after the other."""
    for at in peers:
        site.add(at)
        site.run()
    return site.endpoint.connections


@pytest.mark.parametrize("mine", [NEIGHBOURS, [("192.0.2.1", n) for n in range(1000, 1020)]])
def test_prefix_connections(mine: list[Address]) -> None:
    site = Site(limits=Limits(prefix_connections=5))
    assert crowd(site, mine[:10]) == 5
    assert site.endpoint.counters.admissions_refused == 5
    # Others do not suffer for it, and a place that becomes free is taken.
    site.connect(OTHER)
    site.served(mine[0]).abort()
    del site.clients[mine[0]]
    site.down()
    site.skip(70.0)
    assert site.endpoint.connections == 6


def test_site_connections() -> None:
    site = Site(limits=Limits(site_connections=5, prefix_connections=4))
    assert crowd(site, SITE[:10]) == 5
    site.connect(OTHER)
    assert [(one.name, one.connections) for one in site.endpoint.ledger.prefixes.top(1)] == [
        ("2001:db8:1::/48", 5)
    ]


def half_open(site: Site, peers: list[Address]) -> int:
    for at in peers:
        site.add(at)
    site.up()
    site.down()
    site.up()
    return site.endpoint.handshaking


def test_prefix_handshakes() -> None:
    site = Site(limits=Limits(prefix_handshakes=5))
    assert half_open(site, NEIGHBOURS[:10]) == 5
    site.down()
    site.run()
    # Who is through makes room for the next.
    site.skip(60.0)
    assert site.endpoint.connections == 10


def test_site_handshakes() -> None:
    site = Site(limits=Limits(site_handshakes=5, prefix_handshakes=4))
    assert half_open(site, SITE[:10]) == 5
    site.skip(60.0)
    assert site.endpoint.connections == 10


def test_prefix_bytes() -> None:
    site = Site(limits=Limits(prefix_bytes=3 * HALF_OPEN_BYTES, connection_bytes=2 * HALF_OPEN_BYTES))
    assert half_open(site, NEIGHBOURS[:10]) <= 3
    assert all(one.held <= one.limit for one in site.endpoint.ledger.prefixes)
    site.connect(OTHER)


def test_site_bytes() -> None:
    site = Site(limits=Limits(site_bytes=3 * HALF_OPEN_BYTES, connection_bytes=2 * HALF_OPEN_BYTES))
    assert half_open(site, SITE[:10]) <= 3
    site.connect(OTHER)


def test_prefixes() -> None:
    """A table that is full gives newcomers no account, and says so; they are served all the same."""
    site = Site(limits=Limits(prefixes=4))
    assert crowd(site, SITE[:6]) == 6
    table = site.endpoint.ledger.prefixes
    assert len(table) == 4
    assert table.overflows == 3
    for at in SITE[:6]:
        site.served(at).abort()
    site.down()
    assert len(table) == 0
    assert site.endpoint.ledger.held == 0


def test_a_forged_address_has_no_account() -> None:
    """Without a cookie a hello proves nothing: whose address it bears must not pay for it."""
    site = Site(require_cookie=False)
    site.add(OTHER)
    site.up()
    assert site.endpoint.connections == 1
    assert len(site.endpoint.ledger.prefixes) == 0
    site.skip(5.0)
    # Its Finished came from there.
    table = site.endpoint.ledger.prefixes
    assert {one.name: one.connections for one in table} == {"2001:db8:2::/64": 1, "2001:db8:2::/48": 1}
    assert all(one.held == site.endpoint.ledger.held and one.handshakes == 0 for one in table)


def test_a_peer_that_moves_takes_its_account_along() -> None:
    site = Site(cid_bytes=8, on_address_change=lambda connection, address: True)
    client = site.add(("192.0.2.1", 1000))
    site.run()
    site.clients = {("198.51.100.7", 7): client}
    client.send(b"from elsewhere")
    site.run()
    assert site.endpoint.counters.address_changes == 1
    [row] = site.endpoint.ledger.prefixes
    assert (row.name, row.held, row.connections) == ("198.51.100.7", site.endpoint.ledger.held, 1)


def test_streams_are_charged_per_prefix_as_well() -> None:
    ledger = Ledger(Limits(prefix_bytes=30_000, connection_bytes=30_000))
    config = configs.server_context().config()
    held = [stcp.Connection.server(config, now=0.0, ledger=ledger, peer=OTHER) for _ in range(2)]
    [row] = [one for one in ledger.prefixes if one.key == prefixes_of(OTHER)[0]]
    assert (row.connections, row.handshakes) == (2, 2)
    with pytest.raises(LimitReached) as caught:
        held += [stcp.Connection.server(config, now=0.0, ledger=ledger, peer=OTHER) for _ in range(20)]
    assert caught.value.name == "prefix_bytes"
    for one in held:
        one.release()
    assert ledger.held == len(ledger.prefixes) == 0


# --- shedding -----------------------------------------------------------------------------------


def established(site: Site, n: int) -> list[Address]:
    peers: list[Address] = [(f"192.0.2.{k}", 1000) for k in range(1, n + 1)]
    for at in peers:
        site.connect(at)
    return peers


def test_total_policy() -> None:
    """Half-open peers go first; as long as that is enough, no established one does."""
    site = Site(limits=Limits(total_bytes=19 * CONNECTION_BYTES, connection_bytes=8 * CONNECTION_BYTES))
    peers = established(site, 8)
    for n in (1, 2):
        site.add(("198.51.100.1", n))
    site.up()
    site.down()
    site.up()
    assert site.endpoint.handshaking == 2
    for at in peers[:2]:
        for _ in range(60):
            site.clients[at].send(bytes(1000))
        site.endpoint.receive([(one, at) for one in site.clients[at].transmit(site.now)], site.now)
    assert set(peers) <= {one.address for one in site.endpoint}
    shed = site.endpoint.counters.handshakes_shed
    assert shed in (1, 2)
    assert site.endpoint.counters.connections_shed == 0
    assert site.endpoint.ledger.level < Pressure.CRITICAL
    errors = [event.error for _, event in site.endpoint.events() if isinstance(event, dtls.Closed)]
    assert [error.name for error in errors if isinstance(error, LimitReached)] == ["total_bytes"] * shed
    assert site.endpoint.ledger.reached["total_bytes"] >= 1


def test_the_largest_and_idlest_goes_first_and_is_told() -> None:
    site = Site(limits=Limits(total_bytes=12 * CONNECTION_BYTES, connection_bytes=8 * CONNECTION_BYTES))
    hoarder, busy, *others = established(site, 5)
    site.now = 10.0
    for at in others:
        # What is not read keeps them awake; else sleep would give memory enough.
        site.clients[at].send(b"unread")
    for _ in range(50):
        site.clients[hoarder].send(bytes(1000))
    site.up()
    site.now = 40.0
    for _ in range(64):
        site.clients[busy].send(bytes(1000))
    site.up()
    assert site.endpoint.counters.connections_shed == 1
    assert {one.address for one in site.endpoint} == {busy, *others}
    site.down()
    heard = site.clients[hoarder].error
    assert isinstance(heard, PeerAlert)
    assert heard.alert is Alert.INTERNAL_ERROR
    # Its data went with it.
    assert site.endpoint.ledger.held == sum(one.held_bytes for one in site.endpoint)


def test_total_policy_of_refusing() -> None:
    """Nobody goes; what is too much is not taken."""
    limits = Limits(
        total_bytes=12 * CONNECTION_BYTES,
        connection_bytes=8 * CONNECTION_BYTES,
        total_policy=Policy.REFUSE,
    )
    site = Site(limits=limits)
    peers = established(site, 5)
    for at in peers[:2]:
        for _ in range(80):
            site.clients[at].send(bytes(1000))
        site.run()
    assert site.endpoint.connections == 5
    assert site.endpoint.ledger.level is Pressure.CRITICAL
    stranger = site.add(("203.0.113.1", 1))
    site.run()
    assert stranger.state is dtls.State.HANDSHAKING
    assert site.endpoint.connections == 5
    assert site.endpoint.ledger.reached["total_bytes"] >= 1


def test_handshakes_policy() -> None:
    """The oldest unfinished handshake gives way, but not within its first second."""
    site = Site(limits=Limits(handshakes=3))
    assert half_open(site, NEIGHBOURS[:3]) == 3
    site.clients.clear()
    site.now = 0.9
    assert half_open(site, NEIGHBOURS[3:4]) == 3
    assert site.endpoint.counters.handshakes_shed == 0
    site.clients.clear()
    site.now = 1.1
    assert half_open(site, NEIGHBOURS[4:6]) == 3
    assert site.endpoint.counters.handshakes_shed == 2
    assert {one.address for one in site.endpoint} == {NEIGHBOURS[2], *NEIGHBOURS[4:6]}
    assert site.endpoint.ledger.reached["handshakes"] == 3


def test_handshakes_policy_of_refusing() -> None:
    site = Site(limits=Limits(handshakes=3, handshakes_policy=Policy.REFUSE))
    assert half_open(site, NEIGHBOURS[:3]) == 3
    site.clients.clear()
    site.now = 30.0
    assert half_open(site, NEIGHBOURS[3:5]) == 3
    assert {one.address for one in site.endpoint} == set(NEIGHBOURS[:3])


def test_connections_policy() -> None:
    """The one that was silent for longest gives way, if it was so for a minute."""
    site = Site(limits=Limits(connections=3, handshakes=2, connections_policy=Policy.SHED))
    peers = established(site, 3)
    site.now = 50.0
    site.clients[peers[0]].send(b"still here")
    site.run()
    site.now = 59.0
    stranger = site.add(OTHER)
    site.run()
    assert stranger.state is dtls.State.HANDSHAKING
    del site.clients[OTHER]
    site.now = 70.0
    site.connect(("2001:db8:3::1", 1, 0, 0))
    assert site.endpoint.counters.connections_shed == 1
    assert {one.address for one in site.endpoint} == {peers[0], peers[2], ("2001:db8:3::1", 1, 0, 0)}


def test_a_flood_of_shedding_costs_a_look_per_twentieth() -> None:
    """Peers that fill the memory again and again cause few looks at all of them."""
    site = Site(limits=Limits(total_bytes=40 * CONNECTION_BYTES, connection_bytes=8 * CONNECTION_BYTES))
    peers = established(site, 20)
    looks = 0
    for turn in range(200):
        at = peers[turn % 20]
        client = site.clients[at]
        if client.state is not dtls.State.CONNECTED:
            continue
        site.now += 0.01
        before = site.endpoint.ledger.reached.get("total_bytes", 0)
        for _ in range(8):
            client.send(bytes(1000))
        site.run()
        looks += site.endpoint.ledger.reached.get("total_bytes", 0) - before
    assert site.endpoint.connections < 20
    assert 1 <= looks <= 20
    assert site.endpoint.ledger.held < site.endpoint.limits.total_bytes


def test_memory_comes_back_after_everybody_left() -> None:
    site = Site(limits=Limits(total_bytes=8 * MIB))
    for at in established(site, 30):
        site.clients[at].send(bytes(1000))
    site.run()
    for one in list(site.endpoint):
        one.abort()
    site.down()
    del one
    site.clients.clear()
    site.events.clear()
    ledger = site.endpoint.ledger
    assert (ledger.held, len(ledger.prefixes), ledger.level) == (0, 0, Pressure.NONE)
