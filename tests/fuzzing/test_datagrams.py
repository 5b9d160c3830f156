"""Every datagram of three connections, damaged in every place: a Discard, a value, or an end with an alert.

A damaged protected record must change nothing, so all damaged forms of a datagram go to the one
live connection that waits for it, which afterwards takes the good one and finishes.  A damaged
plaintext hello may be a different hello, so each gets a connection of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sealwire import dtls
from sealwire.errors import Alert, Discard, Error, ProtocolError
from sealwire.sim import Pair
from tests.fuzzing.mutations import damage, damage_count, mutations, sample
from tests.fuzzing.recordings import NAMES, recording
from tests.network.world import World, address, both_connected, joined

RECORDINGS = pytest.mark.parametrize("name", NAMES)
#: Of some 10,000 damaged hellos of one connection, each of which needs its own handshake up to it.
SAMPLED = 1_500
DELAY = 0.02


def is_protected(datagram: bytes) -> bool:
    """Whether all of it is protected records: plaintext ones come first in a datagram."""
    return datagram[0] >> 5 == 0b001


def conversation(name: str) -> Pair:
    """Both ends of a connection, before the first datagram."""
    recorded = recording(name)
    return joined(1, client=recorded.client, server=recorded.server, delay=DELAY, record=True)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A datagram that comes next, and whom it comes to."""

    to_server: bool
    datagram: bytes


def arrivals(pair: Pair) -> Iterator[Arrival]:
    """Each datagram of the conversation in turn, before it is delivered; and data at the end."""
    pair.flush()
    said = False
    while True:
        if both_connected(pair) and not said:
            said = True
            pair.client.send(b"from the client")  # type: ignore[attr-defined]
            pair.server.send(b"from the server")  # type: ignore[attr-defined]
            pair.flush()
        moment = pair.next_moment()
        if moment is None or (said and pair.now > 5.0):
            return
        pair._clock.advance(moment)
        for link, to_server in ((pair.forward, True), (pair.backward, False)):
            for datagram, _ in link.arrivals(pair.now):
                yield Arrival(to_server, datagram)
                end(pair, to_server).receive(datagram, pair.now)
                pair.flush()
        for peer in (pair.client, pair.server):
            deadline = peer.deadline()
            if deadline is not None and deadline <= pair.now:
                peer.wake(pair.now)
        pair.flush()


def end(pair: Pair, is_server: bool) -> dtls.Connection:
    connection = pair.server if is_server else pair.client
    assert isinstance(connection, dtls.Connection)
    return connection


def assert_ended_well(connection: dtls.Connection, sent: list[bytes]) -> None:
    """If it ended, then by an error of ours, and if that has an alert, the peer was sent it."""
    if connection.state != "closed":
        return
    error = connection.error
    assert isinstance(error, (Error, TimeoutError)), error
    if isinstance(error, ProtocolError):
        assert isinstance(error.alert, Alert)
        assert sent, f"{error} without an alert"


@RECORDINGS
def test_the_recordings_begin_in_plaintext_and_end_in_data(name: str) -> None:
    pair = conversation(name)
    seen = list(arrivals(pair))
    assert not is_protected(seen[0].datagram)
    assert is_protected(seen[-1].datagram)
    assert pair.client_messages == [b"from the server"]
    assert pair.server_messages == [b"from the client"]


@pytest.mark.requirement("9147-4.5.2-1", "9147-4.5.2-4", "9147-11-8")
@RECORDINGS
def test_every_damaged_protected_datagram_changes_nothing(name: str) -> None:
    """The full product on live connections: every record of every datagram that is protected."""
    pair = conversation(name)
    tried = 0
    for arrival in arrivals(pair):
        if not is_protected(arrival.datagram):
            continue
        receiver = end(pair, arrival.to_server)
        for damaged in mutations(arrival.datagram):
            if not damaged or not is_protected(damaged):
                continue
            tried += 1
            receiver.receive(damaged, pair.now)
            # A whole record may come before the damaged one; it is taken, nothing else is.
            assert receiver.state != "closed", (receiver.error, damaged.hex())
        pair.flush()
    assert tried > 500
    assert both_connected(pair)
    assert pair.client_messages == [b"from the server"]
    assert pair.server_messages == [b"from the client"]
    for connection in (end(pair, True), end(pair, False)):
        assert connection.counters.discards[Discard.AUTHENTICATION] > 100


@pytest.mark.requirement("9147-4.5.2-4", "9147-4.1-3", "9147-4.2.3-3")
def test_garbage_gets_no_answer_and_moves_no_timer() -> None:
    pair = conversation("hybrid")
    assert pair.run_until(lambda: both_connected(pair), 10.0)
    pair.run_for(5.0)
    receiver = end(pair, True)
    deadline = receiver.deadline()
    for first in range(256):
        for length in (0, 1, 2, 5, 13, 14, 20, 21, 40, 600):
            receiver.receive((bytes((first,)) + bytes(range(256)) * 3)[:length], pair.now)
            assert receiver.transmit(pair.now) == []
            assert receiver.events() == []
            assert receiver.messages() == []
            assert receiver.deadline() == deadline
    assert receiver.state == "connected"


def damage_one(name: str, number: int, which: int) -> str:
    """A conversation in which one datagram comes damaged; how its receiver took it."""
    pair = conversation(name)
    for place, arrival in enumerate(arrivals(pair)):
        if place < number:
            continue
        receiver = end(pair, arrival.to_server)
        receiver.receive(damage(arrival.datagram, which), pair.now)
        sent = receiver.transmit(pair.now)
        receiver.messages()
        receiver.events()
        receiver.deadline()
        assert_ended_well(receiver, sent)
        return str(receiver.state)
    raise AssertionError("the conversation is shorter than it was")


def damages(name: str) -> list[tuple[int, int]]:
    """Every damage to every datagram that begins in plaintext: (datagram's number, damage's number).

    Numbers, not bytes: keys and randoms differ from run to run, and only the datagram of its own
    run has anything true behind the damage.
    """
    return [
        (number, which)
        for number, arrival in enumerate(arrivals(conversation(name)))
        if not is_protected(arrival.datagram)
        for which in range(damage_count(arrival.datagram))
    ]


@pytest.mark.requirement("9147-4.5.2-1", "9147-4.5.2-6")
@RECORDINGS
def test_damaged_hellos(name: str) -> None:
    outcomes = {damage_one(name, *chosen) for chosen in sample(damages(name), SAMPLED, name)}
    assert outcomes >= {"handshaking", "closed"}


@pytest.mark.long
@pytest.mark.requirement("9147-4.5.2-1", "9147-4.5.2-6")
@RECORDINGS
def test_every_damaged_hello(name: str) -> None:
    outcomes = {damage_one(name, *chosen) for chosen in damages(name)}
    assert outcomes >= {"handshaking", "closed"}


@pytest.mark.requirement("9147-5.1-8", "9147-11-4")
@RECORDINGS
def test_every_damaged_hello_to_an_endpoint(name: str) -> None:
    """Both hellos, each damaged form from an address of its own: no state, no traceback, no amplification."""
    recorded = recording(name)
    world = World(1, server=recorded.server, client=recorded.client, record=True)
    world.connect()
    world.handshake()
    sent_at: dict[float, list[bytes]] = {}
    for crossing in world.forward.capture:
        if not is_protected(crossing.data):
            sent_at.setdefault(crossing.sent, []).append(crossing.data)
    assert len(sent_at) == 2  # the second one's cookie is for another address here
    endpoint = World(2, server=recorded.server, client=recorded.client).endpoint
    at_rest = endpoint.ledger.held
    number = 0
    for hello in sent_at.values():
        for position, datagram in enumerate(hello):
            for damaged in mutations(datagram):
                number += 1
                batch = [*hello[:position], damaged, *hello[position + 1 :]]
                endpoint.receive([(part, address(number)) for part in batch], 1.0)
                answers = endpoint.transmit(1.0)
                assert sum(len(answer) for answer, _ in answers) <= 3 * sum(map(len, batch))
                assert endpoint.events() == []
                assert endpoint.connections == 0
    assert number > 1_000
    assert endpoint.counters.hello_retry_requests > 0
    assert endpoint.ledger.held == at_rest


@RECORDINGS
def test_damaged_second_hellos_from_the_address_of_the_first(name: str) -> None:
    """With a cookie that is good for the address: now a connection may come of it, or an alert."""
    recorded = recording(name)
    world = World(3, server=recorded.server, client=recorded.client, record=True)
    client = world.connect()
    assert world.pair.run_until(lambda: world.endpoint.counters.hello_retry_requests > 0, 5.0)
    world.pair.run_for(DELAY + 0.001)
    seconds = [
        crossing.data for crossing in world.forward.capture if crossing.sent == world.forward.capture[-1].sent
    ]
    assert client.state == "handshaking"
    chosen = sample([damaged for hello in seconds for damaged in mutations(hello)], 600, name)
    for damaged in chosen:
        for good in seconds[:-1]:
            world.endpoint.receive([(good, address(0))], world.now)
        world.endpoint.receive([(damaged, address(0))], world.now)
        world.endpoint.transmit(world.now)
        for _, event in world.endpoint.events():
            if isinstance(event, dtls.Closed):
                assert isinstance(event.error, Error)
    world.pair.run_for(700.0)
    assert world.endpoint.connections <= 1
