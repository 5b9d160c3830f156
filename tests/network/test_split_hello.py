"""The network cuts first hellos into several datagrams: post-quantum shares do not fit in one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sealwire.errors import Discard
from sealwire.limits import Limits
from tests import configs
from tests.network.world import Address, World, address

HYBRID_AND_MORE = 3  # datagrams at least, of a hybrid hello at MTU 576


def hybrid(seed: int, **options: Any) -> World:
    """A world whose clients offer a hybrid share at once, as browsers do."""
    client = configs.client_context(groups=["X25519MLKEM768"]).config()
    return World(seed, client=client, **options)


def hello_datagrams(mtu: int = 576) -> list[bytes]:
    """The datagrams of a client's first hello."""
    world = hybrid(0, mtu=mtu, record=True)
    world.connect()
    world.pair.flush()
    return [crossing.data for crossing in world.forward.capture]


def feed(world: World, datagrams: list[bytes], at: Address | None = None) -> None:
    world.endpoint.receive([(datagram, at or address(0)) for datagram in datagrams], world.now)


@pytest.mark.parametrize("mtu", [300, 576, 1200])
def test_a_split_hello_completes(mtu: int) -> None:
    world = hybrid(1, mtu=mtu, record=True)
    world.connect()
    world.pair.flush()
    assert world.forward.counters.sent >= 2
    assert world.handshake() < 0.5
    assert world.endpoint.counters.hello_retry_requests == 1
    world.exchange()
    world.close()


def test_fragments_in_any_order_bring_one_retry_request() -> None:
    datagrams = hello_datagrams()
    assert len(datagrams) >= HYBRID_AND_MORE
    for order in itertools.permutations(datagrams):
        world = hybrid(2, mtu=576)
        feed(world, list(order))
        (answer,) = world.endpoint.transmit(world.now)
        assert answer[1] == address(0)
        assert world.endpoint.counters.hello_retry_requests == 1


def test_an_incomplete_hello_gets_no_answer_and_costs_nothing_that_grows() -> None:
    """From 500 addresses, each all but one of its fragments: silence, and not a byte more held."""
    datagrams = hello_datagrams()
    world = hybrid(3, mtu=576)
    for number in range(500):
        for missing in (number % len(datagrams),):
            feed(world, datagrams[:missing] + datagrams[missing + 1 :], address(number))
        assert world.endpoint.transmit(world.now) == []
    assert world.endpoint.connections == 0
    assert world.endpoint.ledger.held == world.ledger_at_rest
    assert world.endpoint.counters.discards[Discard.INCOMPLETE_HELLO] > 0


def test_hellos_of_many_peers_interleaved() -> None:
    world = hybrid(4, mtu=576)
    datagrams = hello_datagrams()
    batch = [(datagram, address(number)) for datagram in datagrams for number in range(100)]
    world.endpoint.receive(batch, world.now)
    answered = [at for _, at in world.endpoint.transmit(world.now)]
    assert sorted(answered) == [address(number) for number in range(100)]


@pytest.mark.parametrize("which", ["first", "second"])
def test_any_one_fragment_of_either_hello_lost(which: str) -> None:
    whole = len(hello_datagrams())
    for number in range(whole):
        world = hybrid(5, mtu=576)
        world.forward.drop(number if which == "first" else whole + number)
        world.connect()
        assert world.handshake() < 2.5, number
        world.exchange()
        world.close()


def test_both_hellos_shuffled_doubled_and_lost() -> None:
    world = hybrid(6, mtu=576, loss=0.15, reorder=0.6, duplicate=0.3, hold=0.2)
    for _ in range(30):
        world.connect()
    assert world.pair.run_until(lambda: all(map(world.is_connected, world.started)), 60.0)
    world.close()


def test_slots_under_a_flood_of_half_hellos_still_serve_a_real_peer() -> None:
    """A few slots, many half hellos: a real peer's fragments arrive together and win."""
    limits = Limits(hello_slots=64)
    world = hybrid(7, mtu=576, limits=limits)
    datagrams = hello_datagrams()
    for number in range(2_000):
        feed(world, datagrams[:1], address(1_000 + number))
    assert world.endpoint.transmit(world.now) == []
    world.pair.run_for(limits.hello_slot_seconds + 0.1)
    world.connect()
    world.handshake(within=20.0)
    world.close()
