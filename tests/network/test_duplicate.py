"""The network delivers datagrams more than once."""

from __future__ import annotations

import pytest

from sealwire.errors import Discard
from sealwire.sim import Link
from tests import configs
from tests.network.world import World, address


@pytest.mark.requirement("9147-4.5.1-1", "9147-5.2-3")
@pytest.mark.parametrize("require_cookie", [True, False])
def test_every_datagram_twice(require_cookie: bool) -> None:
    world = World(1, duplicate=1.0, require_cookie=require_cookie)
    client = world.connect()
    assert world.handshake() < 1.0
    assert world.endpoint.connections == 1
    assert world.endpoint.counters.connections_opened == 1

    messages = [number.to_bytes(4, "big") for number in range(100)]
    client.send_many(messages)
    world.pair.touch(address(0))
    world.pair.run_for(2.0)
    assert world.served().messages() == messages
    assert world.served().counters.discards[Discard.REPLAY] >= 100
    world.close()


@pytest.mark.requirement("9147-4.5.1-3", "9147-5.2-3")
def test_the_whole_conversation_again_much_later() -> None:
    """Delayed duplicates of everything, 90 s afterwards: no new state, nothing delivered twice."""
    world = World(2, record=True)
    client = world.connect()
    world.handshake()
    client.send(b"once")
    world.pair.touch(address(0))
    world.pair.run_for(90.0)
    server = world.served()
    assert server.messages() == [b"once"]
    opened = world.endpoint.counters.connections_opened
    held = world.endpoint.ledger.held
    replayed = [crossing for crossing in world.forward.capture if crossing.arrivals]
    for crossing in replayed:
        world.forward.send(crossing.data, world.now, crossing.path)
    world.pair.run_for(5.0)
    assert server.messages() == []
    assert world.endpoint.counters.connections_opened == opened
    assert world.endpoint.ledger.held == held
    assert world.endpoint.connections == 1
    world.exchange()
    world.close()


@pytest.mark.requirement("9147-5.8.1-3")
def test_a_lost_flight_is_repeated_when_its_cause_is_repeated() -> None:
    """The server's whole first flight is lost; the client's repeated hello brings it again, at once."""
    # A hybrid hello is so long that three times its size holds the flight twice.
    hybrid = configs.client_context(groups=["X25519MLKEM768"]).config()
    world = World(3, client=hybrid, require_cookie=False)
    client = world.connect()
    world.backward.drop(*range(2))
    assert world.handshake() < 2.0
    assert client.counters.retransmissions >= 1


def test_a_duplicate_of_each_single_datagram_changes_nothing() -> None:
    plain = World(4, record=True)
    plain.connect()
    plain.handshake()
    plain.pair.run_for(3.0)
    sent = (plain.forward.counters.sent, plain.backward.counters.sent)
    for direction, count in zip(("forward", "backward"), sent, strict=True):
        for number in range(count):
            world = World(4)
            _double(getattr(world, direction), number)
            world.connect()
            assert world.handshake() < 0.9, (direction, number)
            world.exchange()
            world.close()


def _double(link: Link, chosen: int) -> None:
    """Let the link duplicate exactly the datagram with that number."""

    def look(number: int, datagram: bytes) -> bool:
        link.duplicate = 1.0 if number == chosen else 0.0
        return False

    link.drop_if = look
