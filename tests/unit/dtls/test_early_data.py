"""Early data over datagrams: the gate, the two limits, what is dropped, and what a copy is worth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.context import Config
from sealwire.dtls.cookie import Address
from sealwire.dtls.early import EarlyTraffic
from sealwire.dtls.header import ContentType, RecordNumber, encode_ack
from sealwire.dtls.place import place_of
from sealwire.errors import Alert, Discard, Error, LimitReached, ProtocolError
from sealwire.limits import Limits
from sealwire.tls13.contract import EarlyData
from sealwire.tls13.tickets import SessionTicket
from tests.unit.dtls.hellos import HERE
from tests.unit.dtls.host import Site
from tests.unit.dtls.rig import Rig, Tap, tap
from tests.unit.tls13.early import SIZE, register, world
from tests.unit.tls13.test_tickets import Clock

__all__ = ["tap"]

#: The same host from another port, its neighbour behind the same router, and somebody else.
ELSEWHERE: Address = ("192.0.2.77", 7)


@dataclass
class Place:
    """A site whose server takes early data, on a wall clock that tests move."""

    site: Site
    server: Config
    client: Config
    clock: Clock

    @classmethod
    def make(cls, *, limits: Limits | None = None, size: int = SIZE, **options: object) -> Place:
        made = world(size=size)
        site = Site(limits=limits, client=made.client, server=made.server, **options)
        return cls(site, made.server, made.client, made.clock)

    def ticket(self, at: Address = HERE) -> SessionTicket:
        """What a full handshake from `at` leaves; its connection is over then."""
        client, server = self.site.connect(at)
        [ticket] = [one.ticket for one in client.events() if isinstance(one, dtls.TicketReceived)][:1]
        for one in (client, server):
            one.close(self.site.now)
        self.site.run()
        del self.site.clients[at]
        assert self.site.endpoint.connections == 0
        self.site.events.clear()
        return ticket

    def comes_back(
        self, ticket: SessionTicket, at: Address = HERE, *, connection_id: bytes = b""
    ) -> dtls.Connection:
        client = dtls.Connection.client(
            self.client,
            now=self.site.now,
            server_name="localhost",
            ticket=ticket,
            early_data=True,
            connection_id=connection_id,
        )
        self.site.clients[at] = client
        return client

    def peer(self) -> dtls.Connection:
        [one] = list(self.site.endpoint)
        return one


@pytest.mark.requirement("8446-0RTT-1", "8446-0RTT-5", "9147-6.1-1")
def test_data_in_the_first_datagrams() -> None:
    """No cookie: the ticket shows the address.  The data is there before the server has sent a byte."""
    place = Place.make()
    site = place.site
    client = place.comes_back(place.ticket())
    assert client.max_replayable_bytes == SIZE
    client.send_replayable(b"one", b"two")
    client.send(b"later")
    sent = site.up()
    assert len(sent) == 3
    server = place.peer()
    assert server.state is dtls.State.HANDSHAKING
    assert server.early_messages() == [b"one", b"two"]
    assert server.messages() == []
    assert [type(one) for _, one in site.endpoint.events()] == [dtls.EarlyDataArrived]
    site.run()
    assert client.session.early_data is server.session.early_data is EarlyData.ACCEPTED
    assert client.early_data is server.early_data is EarlyData.ACCEPTED
    assert not client.session.retried
    assert server.messages() == [b"later"]
    counters = site.endpoint.counters
    assert (counters.tickets_as_proof, counters.early_data_accepted, counters.early_data_rejected) == (
        1,
        1,
        0,
    )
    assert counters.hello_retry_requests == 1  # of the first handshake
    assert (client.counters.early_messages_sent, server.counters.early_messages_received) == (2, 2)


def test_before_its_hello_where_hellos_have_a_socket_of_their_own() -> None:
    place = Place.make()
    endpoint = place.site.endpoint
    endpoint.hellos_behind = True
    client = place.comes_back(place.ticket())
    client.send_replayable(b"sooner")
    sent = client.transmit(place.site.now)
    hello, early = [one for one in sent if one[0] == 22], [one for one in sent if one[0] != 22]
    assert hello
    assert early
    before = endpoint.counters.datagrams_received
    endpoint.receive([(one, HERE) for one in early], place.site.now)
    endpoint.receive([(one, HERE) for one in hello], place.site.now)
    endpoint.hellos_taken(place.site.now)
    [server] = endpoint
    assert server.early_messages() == [b"sooner"]
    assert endpoint.counters.datagrams_received == before + len(sent)
    # What belongs to no hello goes as ever, and there is never more of it than a turn brings.
    discarded = endpoint.counters.discards.get(Discard.UNKNOWN_PEER, 0)
    endpoint.receive([(bytes((0x2D,)) + bytes(40), ELSEWHERE)] * 1000, place.site.now)
    assert len(endpoint._strays) == 64
    endpoint.hellos_taken(place.site.now)
    assert endpoint.counters.discards[Discard.UNKNOWN_PEER] == discarded + 1000
    assert endpoint._strays == []


def test_in_one_datagram_with_the_hello() -> None:
    """RFC 9147 lets records share one; ours does not, others may."""
    place = Place.make()
    client = place.comes_back(place.ticket())
    client.send_replayable(b"data")
    hello, early = client.transmit(0.0)
    place.site.endpoint.receive([(hello + early, HERE)], 0.0)
    assert place.peer().early_messages() == [b"data"]


def test_with_connection_ids() -> None:
    """Early records cannot carry an id the client does not know yet."""
    place = Place.make(cid_bytes=8)
    client = place.comes_back(place.ticket(), connection_id=b"client")
    client.send_replayable(b"data")
    place.site.run()
    server = place.peer()
    assert server.early_messages() == [b"data"]
    assert client.connection_ids.theirs
    client.send(b"more")
    place.site.run()
    assert server.messages() == [b"more"]


@pytest.mark.requirement("8446-0RTT-4")
def test_rejected_data_is_lost_and_nobody_sends_it_again() -> None:
    place = Place.make()
    site = place.site
    ticket = place.ticket()
    place.clock.now += 3_600
    client = place.comes_back(replace(ticket, received_at=ticket.received_at + 1_000))
    client.send_replayable(b"lost")
    sent = site.up()
    site.run()
    server = place.peer()
    assert client.session.early_data is EarlyData.REJECTED
    assert client.session.resumed
    assert client.session.retried
    assert server.early_messages() == server.messages() == []
    assert client.max_replayable_bytes == 0
    with pytest.raises(Error, match="early data cannot be sent"):
        client.send_replayable(b"too late")
    # The very datagrams again do nothing, either.
    site.endpoint.receive(sent, site.now)
    site.run()
    assert server.early_messages() == server.messages() == []
    assert server.state is dtls.State.CONNECTED


@pytest.mark.requirement("8446-0RTT-2", "8446-0RTT-3")
def test_a_flight_sent_again_from_anywhere() -> None:
    """The first is accepted; its copies are answered like strangers, which costs nothing that is kept."""
    place = Place.make()
    site = place.site
    client = place.comes_back(place.ticket())
    client.send_replayable(b"once")
    flight = client.transmit(0.0)
    heard = []
    for at in (HERE, (HERE[0], 4000), ELSEWHERE, (HERE[0], 4001)):
        site.endpoint.receive([(one, at) for one in flight], site.now)
        heard += [message for one in site.endpoint for message in one.early_messages()]
    assert heard == [b"once"]
    assert site.endpoint.connections == 1
    answers = site.endpoint.transmit(site.now)
    to_strangers = {at: data for data, at in answers if at != HERE}
    assert len(to_strangers) == 3
    assert all(len(data) <= 3 * sum(map(len, flight)) for data in to_strangers.values())
    assert site.endpoint.counters.hello_retry_requests == 1 + 3
    assert site.endpoint.counters.early_data_rejected == 3


def test_the_hello_repeated_by_its_own_client() -> None:
    """Our flight was lost: the hello that comes again is no replay, and its early data is not taken twice."""
    place = Place.make()
    site = place.site
    client = place.comes_back(place.ticket())
    client.send_replayable(b"once")
    flight = site.up()
    site.endpoint.transmit(site.now)  # lost
    server = place.peer()
    assert server.early_messages() == [b"once"]
    site.endpoint.receive(flight, site.now + 0.5)
    assert place.peer() is server
    assert server.early_messages() == []
    assert server.counters.discards[Discard.REPLAY] == 1
    site.skip(5)
    assert client.state is server.state is dtls.State.CONNECTED
    assert site.endpoint.counters.hello_retry_requests == 1


@pytest.mark.requirement("8446-0RTT-5", "9147-5.1-9")
@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (HERE, True),
        ((HERE[0], 4242), True),
        (ELSEWHERE, False),
        (("192.0.2.78", HERE[1]), False),
        ((f"::ffff:{HERE[0]}", 1, 0, 0), True),
        (("2001:db8::1", 1, 0, 0), False),
    ],
)
def test_whose_address_a_ticket_shows(at: Address, shown: bool) -> None:
    place = Place.make()
    client = place.comes_back(place.ticket(), at)
    client.send_replayable(b"data")
    place.site.run()
    expected = EarlyData.ACCEPTED if shown else EarlyData.REJECTED
    assert client.session.early_data is expected
    assert client.session.retried is not shown


def test_places() -> None:
    def same(one: str, other: str) -> bool:
        return place_of((one, 1)) == place_of((other, 2))

    assert same("192.0.2.1", "192.0.2.1")
    assert not same("192.0.2.1", "192.0.2.2")
    assert same("2001:db8::1", "2001:db8::ffff:2")
    assert not same("2001:db8::1", "2001:db8:0:1::1")
    assert not same("fe80::1%eth0", "fe80::2%eth0")
    assert not same("fe80::1%eth0", "fe80::1%eth1")
    assert same("::ffff:192.0.2.1", "192.0.2.1")
    assert place_of(("/run/socket",)) == place_of(()) == b""


@pytest.mark.requirement("9147-5.1-8")
def test_what_is_sent_to_an_address_that_only_a_ticket_shows() -> None:
    """Three times what came, early data counting as bytes and not as proof; Finished lifts it."""
    place = Place.make()
    site = place.site
    client = place.comes_back(place.ticket())
    client.send_replayable(b"x" * 100)
    received = sum(len(one) for one, _ in site.up())
    server = place.peer()
    for _ in range(40):
        server.send_before_finished(b"y" * 1_000)
    sent = 0
    for _ in range(100):
        batch = site.endpoint.transmit(site.now)
        sent += sum(len(one) for one, _ in batch)
        due = site.endpoint.deadline()
        if due is None or due > 20:
            break
        site.now = due
        site.endpoint.wake(site.now)
    assert 0 < sent <= 3 * received
    assert server.state is dtls.State.HANDSHAKING
    site.skip(30)
    assert client.state is dtls.State.CONNECTED
    assert client.messages() == [b"y" * 1_000] * 40


def test_before_finished() -> None:
    place = Place.make()
    site = place.site
    client = place.comes_back(place.ticket())
    client.send_replayable(b"question")
    site.up()
    server = place.peer()
    server.send(b"after")
    server.send_before_finished(b"answer")
    first = site.endpoint.transmit(site.now)
    for datagram, _ in first:
        client.receive(datagram, site.now)
    # The answer came with the flight; what send() was given waits for the client's Finished.
    assert client.state is dtls.State.CONNECTED
    assert client.messages() == [b"answer"]
    site.run()
    assert client.messages() == [b"after"]
    server.send_before_finished(b"as any other")
    site.run()
    assert client.messages() == [b"as any other"]
    with pytest.raises(ValueError, match="above the"):
        server.send_before_finished(bytes(5_000))


def test_before_finished_needs_an_address() -> None:
    """Behind a cookie it is proved; where nothing shows it, nothing is sent; a client cannot at all."""
    site = Site()
    client = site.add(HERE)
    with pytest.raises(Error, match="not shown"):
        client.send_before_finished(b"x")
    site.up()
    site.down()
    site.up()
    [server] = list(site.endpoint)
    server.send_before_finished(b"early")
    site.run()
    assert client.messages() == [b"early"]
    bare = Site(require_cookie=False)
    bare.add(HERE)
    bare.up()
    [server] = list(bare.endpoint)
    with pytest.raises(Error, match="not shown"):
        server.send_before_finished(b"x")


@pytest.mark.requirement("8446-0RTT-1")
def test_the_limit_at_the_client() -> None:
    place = Place.make(size=100)
    client = place.comes_back(place.ticket())
    client.send_replayable(b"x" * 60)
    assert client.max_replayable_bytes == 40
    for messages in ((b"x" * 41,), (b"x" * 30, b"x" * 11)):
        with pytest.raises(ValueError, match="are too many"):
            client.send_replayable(*messages)
    client.send_replayable(b"x" * 40)
    assert client.max_replayable_bytes == 0
    place.site.run()
    assert sum(map(len, place.peer().early_messages())) == 100


@pytest.mark.requirement("8446-0RTT-1", "8446-0RTT-3")
@pytest.mark.parametrize("messages", [[1_001], [500, 501], [100] * 11])
def test_the_limit_at_the_server(messages: list[int]) -> None:
    place = Place.make()
    site = place.site
    client = place.comes_back(place.ticket())
    batch = [(one, HERE) for one in client.transmit(site.now)]
    sealer = client._sealing.sealer(1)
    batch += [(sealer.seal(ContentType.APPLICATION_DATA, bytes(size)), HERE) for size in messages]
    site.endpoint.receive(batch, site.now)
    server = place.peer()
    assert isinstance(server.error, ProtocolError)
    assert server.error.alert is Alert.UNEXPECTED_MESSAGE


@pytest.mark.requirement("9147-7-9")
@pytest.mark.parametrize(
    "content_type",
    [ContentType.HANDSHAKE, ContentType.ACK, ContentType.ALERT, ContentType.RETURN_ROUTABILITY],
)
def test_nothing_but_data_in_its_epoch(content_type: int) -> None:
    place = Place.make()
    client = place.comes_back(place.ticket())
    batch = [(one, HERE) for one in client.transmit(0.0)]
    content = encode_ack([RecordNumber(0, 0)]) if content_type == ContentType.ACK else b"\x02\x28"
    batch.append((client._sealing.sealer(1).seal(content_type, content), HERE))
    place.site.endpoint.receive(batch, 0.0)
    server = place.peer()
    assert isinstance(server.error, ProtocolError)
    assert server.error.alert is Alert.UNEXPECTED_MESSAGE


@pytest.mark.requirement("9147-7-9")
def test_an_acknowledgement_before_the_server_hello_is_not_in_the_epoch_of_early_data(tap: Tap) -> None:
    """Errata 8107: a client that has to acknowledge while its highest keys are those of early data."""
    place = Place.make()
    client = place.comes_back(place.ticket())
    client.send_replayable(b"data")
    place.site.up()
    flight = [one for one, _ in place.site.endpoint.transmit(0.0)]
    assert client._sealing.epoch == 0
    # Part of the flight came, ServerHello did not.
    client._layer.version_selected = True
    client.receive_run(flight[1:] or [flight[0][-60:]], 0.0)
    due = client.deadline()
    assert due is not None
    client.wake(due)
    for one in tap.read(client.transmit(due)):
        assert one.content_type != ContentType.ACK or one.epoch == 0


@pytest.mark.requirement("9147-5.6-2")
def test_records_that_come_after_finished_are_dropped() -> None:
    place = Place.make()
    site = place.site
    client = place.comes_back(place.ticket())
    client.send_replayable(b"in time", b"too late")
    hello, in_time, late = client.transmit(site.now)
    site.endpoint.receive([(hello, HERE), (in_time, HERE)], site.now)
    site.run()
    server = place.peer()
    assert server.state is dtls.State.CONNECTED
    assert server.early_messages() == [b"in time"]
    site.endpoint.receive([(late, HERE)], site.now)
    assert server.early_messages() == []
    assert server.counters.discards[Discard.UNKNOWN_EPOCH] == 1
    client.send(b"goes on")
    site.run()
    assert server.messages() == [b"goes on"]


@pytest.mark.requirement("9147-5.6-2")
def test_its_keys_live_for_five_seconds() -> None:
    place = Place.make()
    site = place.site
    client = place.comes_back(place.ticket())
    client.send_replayable(b"1", b"2", b"3")
    hello, *early = client.transmit(site.now)
    site.endpoint.receive([(hello, HERE)], site.now)
    server = place.peer()
    for at, expected in ((0.0, [b"1"]), (4.9, [b"2"]), (5.1, [])):
        site.endpoint.transmit(at)
        while (due := site.endpoint.deadline()) is not None and due <= at:
            site.endpoint.wake(due)
            site.endpoint.transmit(due)
        site.endpoint.receive([(early.pop(0), HERE)], at)
        assert server.early_messages() == expected
    assert server.counters.discards[Discard.UNKNOWN_EPOCH] == 1


def test_early_data_nobody_reads_is_bounded_and_charged() -> None:
    place = Place.make(size=60_000, limits=Limits(receive_queue_bytes=20_000))
    site = place.site
    client = place.comes_back(place.ticket())
    client.send_replayable(*[bytes(1_000)] * 15)
    site.up()
    server = place.peer()
    held = site.endpoint.ledger.held
    assert server.held_bytes >= 15_000
    assert len(server.early_messages()) == 15
    assert site.endpoint.ledger.held <= held - 15_000
    # More than the queue holds ends the handshake: nothing else would be honest.
    other = Place.make(size=60_000, limits=Limits(receive_queue_bytes=5_000))
    client = other.comes_back(other.ticket())
    client.send_replayable(*[bytes(1_000)] * 6)
    other.site.up()
    gone = other.peer()
    assert isinstance(gone.error, ProtocolError)
    assert gone.error.alert is Alert.INTERNAL_ERROR


def test_the_clients_queue() -> None:
    place = Place.make(size=60_000)
    client = place.comes_back(place.ticket())
    assert isinstance(client._early, EarlyTraffic)
    client._early._limits = replace(client.limits, send_queue_bytes=2_000)
    client.send_replayable(bytes(1_000))
    with pytest.raises(LimitReached):
        client.send_replayable(bytes(1_000))
    client.transmit(0.0)
    client.send_replayable(bytes(1_000))


def test_a_client_without_a_ticket_for_it() -> None:
    place = Place.make(size=0)
    client = place.comes_back(place.ticket())
    assert client.max_replayable_bytes == 0
    with pytest.raises(Error, match="none was offered"):
        client.send_replayable(b"x")
    place.site.run()
    assert client.session.early_data is EarlyData.NOT_OFFERED
    assert client.session.resumed


@pytest.mark.requirement("8446-0RTT-3")
def test_early_records_nobody_accepted_cost_little_and_keep_nothing() -> None:
    """After a HelloRetryRequest, and beside a full handshake: dropped without a key, however many come."""
    place = Place.make()
    site = place.site
    ticket = place.ticket()
    fresh = replace(place.server, strikes=register())
    site.endpoint._configure = lambda: fresh
    client = place.comes_back(ticket)
    client.send_replayable(b"x")
    flight = client.transmit(site.now)
    site.endpoint.receive([(one, HERE) for one in flight], site.now)
    site.down()
    site.up()
    server = place.peer()
    held = server.held_bytes
    for n in range(200):
        site.endpoint.receive([(flight[1][:-1] + bytes((n,)), HERE)], site.now)
    assert server.held_bytes == held
    assert server.counters.discards[Discard.UNKNOWN_EPOCH] == 200
    assert server._opening.forged == 0
    site.run()
    assert client.state is server.state is dtls.State.CONNECTED


def hellos_of_a_flood(place: Place, ticket: SessionTicket, n: int) -> list[bytes]:
    flood = []
    for _ in range(n):
        client = dtls.Connection.client(
            place.client, now=0.0, server_name="localhost", ticket=ticket, early_data=True
        )
        flood.append(client.transmit(0.0)[0])
    return flood


@pytest.mark.requirement("9147-5.1-9", "9147-11-4")
def test_a_flood_of_hellos_with_tickets() -> None:
    """Whatever is wrong with the ticket: one opening at most, no connection, an answer as to anybody."""
    place = Place.make()
    site = place.site
    ticket = place.ticket()
    secret = replace(ticket, secret=type(ticket.secret)(bytes(len(ticket.secret))))
    foreign = replace(ticket, identity=bytes(len(ticket.identity)))
    torn = replace(ticket, identity=ticket.identity[:-1])
    old = replace(ticket, received_at=ticket.received_at - 60)
    opened = []
    keys = place.server.ticket_keys

    class Counting:
        seems_ours = staticmethod(keys.seems_ours)

        def open(self, *arguments: object) -> object:
            opened.append(arguments[0])
            return keys.open(*arguments)  # type: ignore[arg-type]

    counted = replace(place.server, ticket_keys=Counting())  # type: ignore[arg-type]
    site.endpoint._configure = lambda: counted
    for bad in (secret, foreign, torn, old):
        opened.clear()
        for hello in hellos_of_a_flood(place, bad, 5):
            site.endpoint.receive([(hello, HERE)], site.now)
        # What names no key of ours is not opened at all.
        assert len(opened) == (0 if bad is foreign else 5)
        assert site.endpoint.connections == 0
    assert len(place.server.strikes or ()) == 0
    # From elsewhere the ticket opens, and shows another place.
    for hello in hellos_of_a_flood(place, ticket, 5):
        site.endpoint.receive([(hello, ELSEWHERE)], site.now)
    assert site.endpoint.connections == 0
    assert site.endpoint.counters.hello_retry_requests == 1 + 25
    # Hellos without early data open nothing at all before the cookie.
    opened.clear()
    client = dtls.Connection.client(place.client, now=0.0, server_name="localhost", ticket=ticket)
    site.endpoint.receive([(client.transmit(0.0)[0], HERE)], site.now)
    assert opened == []


def test_a_ticket_opens_once_on_the_way_to_a_connection() -> None:
    place = Place.make()
    ticket = place.ticket()
    opened = []
    keys = place.server.ticket_keys

    class Counting:
        lifetime_seconds = keys.lifetime_seconds
        seal = staticmethod(keys.seal)
        seems_ours = staticmethod(keys.seems_ours)

        def open(self, *arguments: object) -> object:
            opened.append(arguments[0])
            return keys.open(*arguments)  # type: ignore[arg-type]

    counted = replace(place.server, ticket_keys=Counting())  # type: ignore[arg-type]
    place.site.endpoint._configure = lambda: counted
    client = place.comes_back(ticket)
    client.send_replayable(b"x")
    place.site.run()
    assert client.session.early_data is EarlyData.ACCEPTED
    assert len(opened) == 1


def test_one_server_without_an_endpoint() -> None:
    """As after ICE: no cookie, no gate, early data all the same."""
    made = world()
    first = Rig(
        dtls.Connection.client(made.client, now=0.0, server_name="localhost"),
        dtls.Connection.server(made.server, now=0.0),
        None,  # type: ignore[arg-type]
    )
    first.run()
    [ticket] = [one.ticket for one in first.client_events if isinstance(one, dtls.TicketReceived)][:1]
    client = dtls.Connection.client(
        made.client, now=0.0, server_name="localhost", ticket=ticket, early_data=True
    )
    again = Rig(client, dtls.Connection.server(made.server, now=0.0), None)  # type: ignore[arg-type]
    client.send_replayable(b"data")
    # Overtaken by its data, the hello still finds it.
    hello, early = again.take(client)
    again.server.receive_run([early, hello], 0.0)
    assert again.server.early_messages() == [b"data"]
    again.run()
    assert again.server.session.early_data is EarlyData.ACCEPTED


@pytest.mark.requirement("8446-0RTT-2")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_flights_in_any_order(data: st.DataObject) -> None:
    """Cut, flipped, repeated, from anywhere, at any time: at most one copy of each flight is taken."""
    place = Place.make()
    site = place.site
    tickets = [place.ticket() for _ in range(2)]
    pool: list[bytes] = []
    for n, ticket in enumerate(tickets):
        client = place.comes_back(ticket)
        client.send_replayable(b"flight %d" % n)
        pool += client.transmit(site.now)
    site.clients.clear()
    heard: list[bytes] = []
    for _ in range(data.draw(st.integers(1, 12))):
        datagram = data.draw(st.sampled_from(pool))
        change = data.draw(st.sampled_from(["none", "none", "cut", "flip", "join"]))
        if change == "cut":
            datagram = datagram[: data.draw(st.integers(0, len(datagram)))]
        elif change == "flip":
            bit = data.draw(st.integers(0, len(datagram) * 8 - 1))
            flipped = bytearray(datagram)
            flipped[bit // 8] ^= 1 << bit % 8
            datagram = bytes(flipped)
        elif change == "join":
            datagram += data.draw(st.sampled_from(pool))
        at: Address = data.draw(st.sampled_from([HERE, (HERE[0], 99), ELSEWHERE]))
        step = data.draw(st.sampled_from([0.0, 0.0, 0.4, 3.0, 12.0]))
        site.now += step
        place.clock.now += step
        site.endpoint.wake(site.now)
        site.endpoint.receive([(datagram, at)], site.now)
        heard += [message for one in site.endpoint for message in one.early_messages()]
        site.endpoint.transmit(site.now)
    assert len(heard) == len(set(heard))
    assert set(heard) <= {b"flight 0", b"flight 1"}
