"""Early data in the engine: what it is bound to, who says what, and that a refusal is no failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.groups import Group
from sealwire.crypto.suites import CipherSuite
from sealwire.crypto.ticketkeys import TicketKeys
from sealwire.errors import Alert, ProtocolError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import EarlyData, EarlyPhase, SendCompatibilityCcs, SendMessage
from sealwire.tls13.extensions import Extensions
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.messages import ClientHello, EncryptedExtensions, HandshakeType, frame, open_message
from sealwire.tls13.tickets import SessionTicket
from tests.unit.tls13.early import SIZE, Run, early_ticket, register, run, start, world
from tests.unit.tls13.engines import each_flavor
from tests.unit.tls13.test_tickets import World


def hello_of(made: Run) -> ClientHello:
    return ClientHello.decode(open_message(made.sent[0][2])[1], made.client._exchange.flavor)


@pytest.mark.requirement("8446-0RTT-1", "8446-0RTT-5", "9147-5.6-1")
@each_flavor
def test_accepted(flavor: Flavor) -> None:
    made = world()
    ticket = early_ticket(made, flavor)
    assert ticket.max_early_data == SIZE
    again = run(made, flavor, ticket)
    assert again.outcome is EarlyData.ACCEPTED
    assert again.client.session.resumed
    assert again.answers == {"client": [True], "server": [True]}
    assert again.early_keys["client"] == again.early_keys["server"] != []
    assert again.client.early.limit == again.server.early.limit == SIZE
    # Only streams have a message at its end, under the keys of early data.
    ends = [(ours, epoch) for ours, epoch, message in again.sent if message[0] == 5]
    assert ends == ([(True, 1)] if flavor is TLS else [])


@pytest.mark.requirement("8446-0RTT-1")
@each_flavor
def test_it_is_asked_for_on_both_sides(flavor: Flavor) -> None:
    made = world()
    ticket = early_ticket(made, flavor)
    silent = run(made, flavor, ticket, wanted=False)
    assert silent.outcome is EarlyData.NOT_OFFERED
    assert ext.EARLY_DATA.code not in hello_of(silent).extensions
    # A server that takes none puts no number into its tickets.
    closed = world(size=0)
    assert early_ticket(closed, flavor).max_early_data == 0
    assert run(closed, flavor, early_ticket(closed, flavor)).outcome is EarlyData.NOT_OFFERED
    # Without a ticket there is nothing to protect it with.
    assert run(made, flavor).outcome is EarlyData.NOT_OFFERED
    # The transport may have reasons of its own.
    shut = run(made, flavor, early_ticket(made, flavor), phase=EarlyPhase(wanted=False))
    assert shut.outcome is EarlyData.REJECTED
    assert shut.client.session.resumed


Change = Callable[[World], World]
REASONS: dict[str, Change] = {
    "switched off since": lambda one: replace(one, server=replace(one.server, max_early_data_size=0)),
    "another process": lambda one: replace(one, server=replace(one.server, strikes=register())),
    "no register": lambda one: replace(one, server=replace(one.server, strikes=None)),
    "full register": lambda one: replace(one, server=_full(one)),
    "another suite": lambda one: replace(
        one, server=replace(one.server, suites=(CipherSuite.TLS_CHACHA20_POLY1305_SHA256,))
    ),
    "a retry": lambda one: replace(
        one, server=replace(one.server, groups=(Group.SECP384R1,)), client=one.client
    ),
}


def _full(one: World):  # type: ignore[no-untyped-def]
    strikes = one.server.strikes
    assert strikes is not None
    now = one.clock()
    for n in range(strikes.capacity):
        assert strikes.accept(strikes.name, b"%d" % n, now, now)
    return one.server


@pytest.mark.requirement("8446-0RTT-1", "8446-0RTT-2", "8446-0RTT-3")
@each_flavor
@pytest.mark.parametrize("reason", REASONS)
def test_rejected_and_the_handshake_goes_on(flavor: Flavor, reason: str) -> None:
    made = world(strikes=register(capacity=3))
    ticket = early_ticket(made, flavor)
    again = run(REASONS[reason](made), flavor, ticket)
    assert again.outcome is EarlyData.REJECTED
    assert again.client.session.resumed
    assert again.client.session.retried is (reason == "a retry")
    assert again.answers == {"client": [False], "server": [False]}
    assert again.early_keys["server"] == []
    assert again.client.early.limit == 0
    assert HandshakeType.END_OF_EARLY_DATA not in [message[0] for _, _, message in again.sent]


@pytest.mark.requirement("8446-0RTT-1", "8446-NEG-9")
@each_flavor
def test_another_application_protocol(flavor: Flavor) -> None:
    made = world()
    both = replace(
        made,
        client=replace(made.client, alpn=(b"one", b"two")),
        server=replace(made.server, alpn=(b"one", b"two")),
    )
    ticket = early_ticket(both, flavor)
    assert ticket.alpn == b"one"
    assert run(both, flavor, ticket).outcome is EarlyData.ACCEPTED
    moved = replace(both, server=replace(both.server, alpn=(b"two", b"one")))
    assert run(moved, flavor, early_ticket(both, flavor)).outcome is EarlyData.REJECTED
    # A client that does not speak it any more does not offer.
    dropped = replace(both, client=replace(both.client, alpn=(b"two",)))
    assert run(dropped, flavor, early_ticket(both, flavor)).outcome is EarlyData.NOT_OFFERED
    # Where there was none, none may be chosen now.
    bare = early_ticket(made, flavor)
    assert bare.alpn is None
    assert run(both, flavor, bare).outcome is EarlyData.REJECTED


@pytest.mark.requirement("8446-0RTT-1", "8446-PSK-5")
@each_flavor
def test_another_name_is_not_even_resumed(flavor: Flavor) -> None:
    made = world()
    ticket = early_ticket(made, flavor)
    # Our own client leaves it out; one that does not meets a server that does.
    assert run(made, flavor, ticket, name="127.0.0.1").outcome is EarlyData.NOT_OFFERED
    lying = replace(early_ticket(made, flavor), server_name="127.0.0.1")
    again = run(made, flavor, lying, name="127.0.0.1")
    assert again.outcome is EarlyData.REJECTED
    assert not again.client.session.resumed


@pytest.mark.requirement("8446-0RTT-2")
@each_flavor
@pytest.mark.parametrize(
    ("late", "accepted"), [(0.0, True), (9.9, True), (10.1, False), (-9.9, True), (-10.1, False), (90, False)]
)
def test_a_hello_comes_when_its_ticket_says(flavor: Flavor, late: float, accepted: bool) -> None:
    made = world()
    ticket = early_ticket(made, flavor)
    made.clock.now += 100
    # What the client believes the ticket's age to be.
    again = run(made, flavor, replace(ticket, received_at=ticket.received_at + late))
    assert again.outcome is (EarlyData.ACCEPTED if accepted else EarlyData.REJECTED)
    assert again.client.session.resumed


@pytest.mark.requirement("8446-0RTT-2")
@each_flavor
@given(lie=st.integers(0, 0xFFFFFFFF) | st.integers(-11_000, 11_000))
def test_an_age_that_lies(flavor: Flavor, lie: int) -> None:
    """Whatever 32 bits stand there: within the window it is accepted, and refused otherwise."""
    made = world()
    ticket = early_ticket(made, flavor)
    claimed = lie & 0xFFFFFFFF  # milliseconds; the ticket is brand new
    again = run(made, flavor, replace(ticket, age_add=(ticket.age_add + claimed) & 0xFFFFFFFF))
    assert again.outcome is (EarlyData.ACCEPTED if claimed <= 10_000 else EarlyData.REJECTED)
    assert again.client.session.resumed


@pytest.mark.requirement("8446-0RTT-2")
@each_flavor
def test_the_same_flight_again(flavor: Flavor) -> None:
    """To the same server: rejected, also through another connection and whatever came in between."""
    made = world()
    first = start(made, flavor, early_ticket(made, flavor))
    (hello,) = first.take("client")
    outcomes = []
    for _ in range(3):
        replayed = start(made, flavor)
        replayed.server.receive(hello[1], hello[2])
        outcomes.append(replayed.server.early.outcome)
        run(made, flavor, early_ticket(made, flavor))
    assert outcomes == [EarlyData.ACCEPTED, EarlyData.REJECTED, EarlyData.REJECTED]


@pytest.mark.requirement("8446-0RTT-2")
@each_flavor
def test_a_ticket_used_twice_brings_early_data_once(flavor: Flavor) -> None:
    made = world()
    ticket = early_ticket(made, flavor)
    assert [run(made, flavor, ticket).outcome for _ in range(2)] == [EarlyData.ACCEPTED, EarlyData.REJECTED]


@pytest.mark.requirement("8446-PSK-4", "8446-0RTT-2")
@each_flavor
@pytest.mark.parametrize(
    ("moved", "outcome", "resumed"),
    [
        # The server's clock against that of another host, which issued the ticket: within a minute it is
        # resumed, within ten seconds its early data is taken.
        (-5.0, EarlyData.ACCEPTED, True),
        (-30.0, EarlyData.REJECTED, True),
        (-90.0, EarlyData.REJECTED, False),
        (5.0, EarlyData.ACCEPTED, True),
        (86_000.0, EarlyData.REJECTED, True),
        (86_401.0, EarlyData.REJECTED, False),
    ],
)
def test_tickets_from_the_future_and_the_past(
    flavor: Flavor, moved: float, outcome: EarlyData, resumed: bool
) -> None:
    made = world()
    ticket = early_ticket(made, flavor)
    then = made.clock.now
    later = replace(made, client=replace(made.client, clock=lambda: then))
    made.clock.now += moved
    again = run(later, flavor, ticket)
    assert again.outcome is outcome
    assert again.client.session.resumed is resumed


@each_flavor
def test_tickets_of_other_keys_and_damaged_ones(flavor: Flavor) -> None:
    made = world()
    ticket = early_ticket(made, flavor)
    foreign = replace(made, server=replace(made.server, ticket_keys=TicketKeys()))
    damaged: list[tuple[World, SessionTicket]] = [(foreign, ticket)]
    for bit in (0, 130, 300, len(ticket.identity) * 8 - 1):
        identity = bytearray(ticket.identity)
        identity[bit // 8] ^= 1 << bit % 8
        damaged.append((made, replace(ticket, identity=bytes(identity))))
    damaged += [(made, replace(ticket, identity=ticket.identity[:cut])) for cut in (1, 20, 60)]
    for where, one in damaged:
        again = run(where, flavor, one)
        assert again.outcome is EarlyData.REJECTED
        assert not again.client.session.resumed
    assert run(made, flavor, ticket).outcome is EarlyData.ACCEPTED


@pytest.mark.requirement("8446-0RTT-1", "8446-PSK-2")
@each_flavor
def test_only_the_first_key_counts(flavor: Flavor) -> None:
    """Two tickets: the second is taken, so early data, which is under the first, is not."""
    made = world()
    good, unknown = early_ticket(made, flavor), early_ticket(world(), flavor)
    client = start(made, flavor, unknown)
    # Our client offers one ticket; another may offer two.
    from sealwire.tls13 import client as client_states
    from sealwire.tls13 import psk

    both = psk.candidates(client.client._exchange, "localhost", unknown)
    both += psk.candidates(client.client._exchange, "localhost", good)
    assert len(both) == 2
    original = psk.candidates
    try:
        client_states.psk.candidates = lambda *_: both  # type: ignore[attr-defined]
        again = run(made, flavor, unknown)
    finally:
        client_states.psk.candidates = original  # type: ignore[attr-defined]
    assert again.client.session.resumed
    assert again.outcome is EarlyData.REJECTED


@pytest.mark.requirement("8446-0RTT-3", "9147-5.1-4")
@each_flavor
def test_after_a_retry_nothing_is_said_of_early_data(flavor: Flavor) -> None:
    made = world()
    again = run(REASONS["a retry"](made), flavor, early_ticket(made, flavor))
    hellos = [
        ClientHello.decode(open_message(message)[1], flavor)
        for ours, _, message in again.sent
        if ours and message[0] == HandshakeType.CLIENT_HELLO
    ]
    assert [ext.EARLY_DATA.code in one.extensions for one in hellos] == [True, False]


def test_compatibility_messages_are_sent_once() -> None:
    """RFC 8446 appendix D.4: behind the first hello with early data, else before the next flight."""
    for reason in (None, "a retry", "another process"):
        made = world()
        ticket = early_ticket(made, TLS)
        made = made if reason is None else REASONS[reason](made)
        made_run = start(made, TLS, ticket)
        first = made_run.client.outputs()
        assert isinstance(first[0], SendMessage)
        assert isinstance(first[1], SendCompatibilityCcs)
        made_run.server.receive(0, first[0].message)
        for output in made_run.server.outputs():
            if isinstance(output, SendMessage):
                made_run.client.receive(output.epoch, output.message)
        assert not any(isinstance(one, SendCompatibilityCcs) for one in made_run.client.outputs())


def server_flight(made: Run) -> list[tuple[int, bytes]]:
    for _, epoch, message in made.take("client"):
        made.server.receive(epoch, message)
    return [(epoch, message) for _, epoch, message in made.take("server")]


def with_early_data(message: bytes) -> bytes:
    block = EncryptedExtensions.decode(open_message(message)[1]).extensions
    if ext.EARLY_DATA.code not in block:
        block.add(ext.EARLY_DATA, True)
    return EncryptedExtensions(block).encode()


def client_refuses(made: Run) -> Alert:
    """What the client says to a server that accepts early data in EncryptedExtensions."""
    for epoch, message in server_flight(made):
        if message[0] == HandshakeType.ENCRYPTED_EXTENSIONS:
            with pytest.raises(ProtocolError) as refused:
                made.client.receive(epoch, with_early_data(message))
            return refused.value.alert
        made.client.receive(epoch, message)
    raise AssertionError("no EncryptedExtensions came")


@pytest.mark.requirement("8446-0RTT-1", "8446-NEG-2")
@each_flavor
def test_a_server_that_accepts_what_it_may_not(flavor: Flavor) -> None:
    made = world()
    assert client_refuses(start(made, flavor)) is Alert.UNSUPPORTED_EXTENSION
    ticket = early_ticket(made, flavor)
    assert client_refuses(start(made, flavor, ticket, wanted=False)) is Alert.UNSUPPORTED_EXTENSION
    # The ticket was not taken, its suite was changed, another protocol chosen, a retry came between.
    elsewhere = replace(made, server=replace(made.server, ticket_keys=TicketKeys()))
    assert client_refuses(start(elsewhere, flavor, ticket)) is Alert.ILLEGAL_PARAMETER
    other = REASONS["another suite"](made)
    assert client_refuses(start(other, flavor, ticket)) is Alert.ILLEGAL_PARAMETER
    speaking = replace(
        made, client=replace(made.client, alpn=(b"a",)), server=replace(made.server, alpn=(b"a",))
    )
    assert client_refuses(start(speaking, flavor, ticket)) is Alert.ILLEGAL_PARAMETER


@pytest.mark.requirement("8446-0RTT-3")
@each_flavor
def test_a_second_hello_with_early_data(flavor: Flavor) -> None:
    made = REASONS["a retry"](world())
    again = start(made, flavor, early_ticket(world(), flavor))
    (first,) = again.take("client")
    again.server.receive(first[1], first[2])
    ((_, epoch, retry),) = again.take("server")
    again.client.receive(epoch, retry)
    (second,) = again.take("client")
    hello = ClientHello.decode(open_message(second[2])[1], flavor)
    block = Extensions(hello.extensions.where)
    block.add(ext.EARLY_DATA, True)
    block.copy_from(hello.extensions, but=frozenset())
    with pytest.raises(ProtocolError) as refused:
        again.server.receive(0, replace(hello, extensions=block).encode(flavor))
    assert refused.value.alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.requirement("8446-0RTT-5", "9147-5.6-1")
def test_the_end_of_early_data_is_said_once_and_where_it_belongs() -> None:
    end = frame(HandshakeType.END_OF_EARLY_DATA, b"")

    def accepted(flavor: Flavor) -> Run:
        made = world()
        again = start(made, flavor, early_ticket(made, flavor))
        server_flight(again)
        return again

    def alert(flavor: Flavor, epoch: int, message: bytes) -> Alert:
        with pytest.raises(ProtocolError) as refused:
            accepted(flavor).server.receive(epoch, message)
        return refused.value.alert

    for epoch in (0, 2, 3):
        assert alert(TLS, epoch, end) is Alert.UNEXPECTED_MESSAGE
    assert alert(TLS, 1, frame(HandshakeType.END_OF_EARLY_DATA, b"\0")) is Alert.DECODE_ERROR
    assert alert(TLS, 1, frame(HandshakeType.FINISHED, bytes(32))) is Alert.UNEXPECTED_MESSAGE
    for epoch in (0, 1, 2):
        assert alert(DTLS, epoch, end) is Alert.UNEXPECTED_MESSAGE
    done = accepted(TLS)
    done.server.receive(1, end)
    with pytest.raises(ProtocolError):
        done.server.receive(1, end)


@pytest.mark.requirement("8446-KS-2")
@each_flavor
def test_the_key_log_has_the_secret(flavor: Flavor) -> None:
    lines: dict[str, list[str]] = {"client": [], "server": []}
    made = world()
    made = replace(
        made,
        client=replace(made.client, keylog=lines["client"].append),
        server=replace(made.server, keylog=lines["server"].append),
    )
    ticket = early_ticket(made, flavor)
    run(made, flavor, ticket)
    label = "CLIENT_EARLY_TRAFFIC_SECRET"
    theirs, ours = ([one for one in lines[side] if one.startswith(label)] for side in ("server", "client"))
    assert len(ours) == 1
    assert ours == theirs


def test_a_ticket_survives_its_encoding() -> None:
    ticket = replace(early_ticket(world(), DTLS), alpn=b"proto")
    assert SessionTicket.decode(ticket.encode()) == replace(
        ticket, received_at=int(ticket.received_at * 1000) / 1000
    )
