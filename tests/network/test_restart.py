"""A peer vanishes and comes back on the same address."""

from __future__ import annotations

import functools

import pytest

from sealwire.limits import Limits
from tests.network.world import World, address


def established(seed: int) -> World:
    world = World(seed, record=True)
    world.connect()
    world.handshake()
    world.exchange()
    return world


@pytest.mark.requirement("9147-5.11-1", "9147-5.11-3")
def test_a_client_that_restarts_on_its_port_is_served_anew() -> None:
    world = established(1)
    old_server = world.served()
    world.vanish()
    world.pair.run_for(10.0)
    world.connect(address(0))
    assert world.pair.run_until(
        lambda: world.client().state == "connected" and world.served() is not old_server, 60.0
    ), world.describe()
    world.exchange()
    assert world.endpoint.connections == 1
    assert old_server.state == "closed"
    world.close()


@pytest.mark.requirement("9147-5.11-1", "9147-5.11-3")
def test_a_client_that_restarts_is_served_anew_where_the_endpoint_is_full() -> None:
    """Its replacement takes the place it has; somebody else still gets none."""
    world = World(9, limits=Limits(connections=2, handshakes=2))
    for n in range(2):
        world.connect(address(n))
        world.handshake(at=address(n))
    old = world.served(address(0))
    world.vanish(address(0))
    world.connect(address(0))
    world.connect(address(5))
    assert world.pair.run_until(
        lambda: world.client(address(0)).state == "connected" and world.served(address(0)) is not old, 60.0
    ), world.describe()
    assert old.state == "closed"
    assert world.endpoint.connections == 2
    assert world.client(address(5)).state == "handshaking"
    assert world.endpoint.counters.admissions_refused > 0
    world.exchange(address(0))
    world.close()


@pytest.mark.requirement("9147-5.11-2")
def test_spoofed_first_hellos_do_not_disturb_a_connection() -> None:
    world = established(2)
    server, client = world.served(), world.client()
    hello = [crossing for crossing in world.forward.capture if crossing.sent == 0.0]
    assert hello
    for _ in range(200):
        for crossing in hello:
            world.forward.send(crossing.data, world.now, address(0))
        world.pair.run_for(0.01)
    assert world.served() is server
    assert server.state == "connected"
    assert client.state == "connected"
    world.exchange()
    assert world.endpoint.connections == 1
    world.close()


@pytest.mark.requirement("9147-5.11-2")
def test_the_old_association_lives_until_the_new_one_is_proved() -> None:
    """The restarted client's second hello never arrives: the old connection still opens its records."""
    world = established(3)
    server, old_client = world.served(), world.client()
    first = world.forward.counters.sent
    world.forward.drop_if = lambda number, datagram: number > first + 1
    world.pair.remove(address(0))
    world.connect(address(0))
    world.pair.run_for(5.0)
    world.forward.drop_if = None
    world.pair.add(old_client, address(0))
    assert server.state == "connected"
    old_client.send(b"still me")
    world.pair.touch(address(0))
    world.pair.run_for(1.0)
    assert server.messages() == [b"still me"]


def test_twenty_restarts_leave_one_connection() -> None:
    world = World(4)
    for _ in range(20):
        previous = world.pair.served.get(address(0))
        world.connect(address(0))
        world.pair.run_until(functools.partial(_renewed, world, previous), world.now + 60.0)
        assert _renewed(world, previous), world.describe()
        assert world.endpoint.connections == 1
    world.close()


def _renewed(world: World, previous: object) -> bool:
    return world.is_connected() and world.served() is not previous
