"""The network loses what follows the handshake: tickets, new keys, and the answers to both."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealwire import dtls
from sealwire.dtls.header import ContentType
from sealwire.errors import Discard
from sealwire.limits import Limits
from sealwire.tls13.messages import HELLO_RETRY_RANDOM
from tests import configs
from tests.network.world import World, address

# No wish for spare connection ids, which would be one more message with an ACK of its own.
QUIET = dtls.Upkeep(spare_cids=0)
TICKETS = 2


def world_of_tickets(seed: int) -> World:
    """A client and a server that are connected, but for what the client's Finished is answered with."""
    world = World(
        seed,
        client=replace(configs.client_context().config(), num_tickets=TICKETS),
        server=replace(configs.server_context().config(), num_tickets=TICKETS),
        upkeep=QUIET,
        delay=0.01,
    )
    client = world.connect(upkeep=QUIET)
    assert world.pair.run_until(lambda: client.state == "connected", 10.0)
    return world


def tickets(world: World) -> list[bytes]:
    """Identities of the tickets that came, in order."""
    events = world.pair.client_events[address(0)]
    return [one.ticket.identity for one in events if isinstance(one, dtls.TicketReceived)]


def epochs(connection: dtls.Connection) -> tuple[int, int]:
    """Sending and receiving."""
    return connection._sealing.epoch, connection._opening.epoch


def silent_afterwards(world: World) -> None:
    """Nobody repeats what was acknowledged."""
    before = (world.forward.counters.sent, world.backward.counters.sent)
    world.pair.run_for(120.0)
    assert (world.forward.counters.sent, world.backward.counters.sent) == before


@pytest.mark.requirement("9147-5.8.4-1", "9147-7.2-1")
@pytest.mark.parametrize("lost", [1, 2, 5])
def test_acknowledgements_of_tickets_are_lost(lost: int) -> None:
    """REL-2: the tickets come again and are acknowledged again, and are taken once."""
    world = world_of_tickets(1)
    # The client's Finished is under way; what it sends next acknowledges tickets.
    finished = world.forward.counters.sent
    world.forward.drop(*range(finished, finished + lost))
    world.pair.run_for(60.0)
    assert world.forward.counters.dropped == lost
    assert len(tickets(world)) == len(set(tickets(world))) == TICKETS
    assert world.served().counters.retransmissions >= lost
    silent_afterwards(world)
    world.exchange()
    world.close()


@pytest.mark.requirement("9147-5.8.4-4", "9147-8-2")
@pytest.mark.parametrize("who", ["client", "server", "both"])
def test_new_keys_while_tickets_are_repeated(who: str) -> None:
    """REL-3: the tickets get lost, and keys change before they come again."""
    world = world_of_tickets(2)
    already = world.backward.counters.sent
    # The ACK of the client's Finished comes, or the client would have to wait for that.
    world.backward.drop(already + 1, already + 2)
    world.pair.run_for(0.05)
    for name in ("client", "server"):
        if who in (name, "both"):
            (world.client() if name == "client" else world.served()).update_keys(world.now)
    world.pair.touch(address(0))
    world.pair.run_for(60.0)
    assert len(tickets(world)) == len(set(tickets(world))) == TICKETS
    expected = (3 + (who != "server"), 3 + (who != "client"))
    assert epochs(world.client()) == expected
    assert epochs(world.served()) == expected[::-1]
    world.exchange()
    world.close()


@pytest.mark.requirement("9147-8-1", "9147-8-2")
@pytest.mark.parametrize("lost", range(1, 8))
def test_acknowledgements_of_new_keys_are_lost(lost: int) -> None:
    """REL-4: three updates in a row, of both at once, and any of the first answers of each are lost."""
    world = World(3, upkeep=QUIET, delay=0.01)
    world.connect(upkeep=QUIET)
    world.handshake()
    world.pair.run_for(5.0)
    for link in (world.forward, world.backward):
        # The update itself is the next datagram, what answers the peer's the one behind it.
        already = link.counters.sent + 1
        link.drop(*(already + n for n in range(3) if lost >> n & 1))
    for n in range(3):
        for one in (world.client(), world.served()):
            one.update_keys(world.now)
        world.pair.touch(address(0))
        reached = (4 + n, 4 + n)
        assert world.pair.run_until(
            lambda reached=reached: epochs(world.client()) == epochs(world.served()) == reached,  # type: ignore[misc]
            world.now + 30.0,
        )
    silent_afterwards(world)
    world.exchange()
    world.close()


@pytest.mark.requirement("9147-7-1")
def test_what_could_not_be_kept_is_not_acknowledged() -> None:
    """REL-5: a flight in the wrong order, and two that keep one message ahead: the rest is sent again."""
    limits, dropped = Limits(future_messages=1), 0
    for seed in range(8):
        world = World(seed, limits=limits, mtu=300, delay=0.02, jitter=0.03, reorder=0.5)
        client = world.connect()
        world.handshake(within=60.0)
        # It came again, for had it been acknowledged nobody would have sent it a second time.
        dropped += client.counters.discards.get(Discard.FUTURE_MESSAGE, 0)
        world.exchange()
        world.close()
    assert dropped > 8


@pytest.mark.requirement("9147-5.1-10")
def test_a_hello_answered_again_and_again() -> None:
    """REL-7: each ServerHello has a number of its own, however often it is sent, and none of a retry's."""
    world = World(5, delay=0.01, record=True)
    # Both answers without state are lost, then all that the first ServerHellos came with.
    world.backward.drop(0, 1, 3, 4, 5)
    world.connect()
    world.handshake(within=60.0)
    plain = [
        crossing.data for crossing in world.backward.capture if crossing.data[0] == ContentType.HANDSHAKE
    ]
    # Record number; then, behind the header of record and fragment, legacy_version and random.
    retries = [one[5:11] for one in plain if one[27:59] == HELLO_RETRY_RANDOM]
    hellos = [one[5:11] for one in plain if one[27:59] != HELLO_RETRY_RANDOM]
    assert len(retries) >= 2
    assert len(hellos) >= 2
    assert len(set(hellos)) == len(hellos)
    assert not set(hellos) & set(retries)
    world.exchange()
    world.close()
