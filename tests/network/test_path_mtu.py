"""The search for what a path carries, over links whose MTU changes and that lose."""

from __future__ import annotations

import pytest

from sealwire import dtls
from tests.network.world import World

WANTED = 1472


def established(seed: int, *, link_mtu: int, loss: float = 0.0) -> World:
    upkeep = dtls.Upkeep(max_mtu=WANTED)
    world = World(seed, mtu=1200, link_mtu=link_mtu, upkeep=upkeep, loss=loss)
    world.connect(upkeep=upkeep)
    world.handshake()
    return world


def chat(world: World, seconds: float) -> int:
    """A message of the longest size each way, every second; how many of them arrived."""
    arrived = 0
    for _ in range(int(seconds)):
        before = len(world.pair.client_messages[next(iter(world.pair.clients))])
        for side in (world.client(), world.served()):
            side.send(bytes(side.max_message_bytes))
        world.pair.touch(next(iter(world.pair.clients)))
        world.pair.run_for(1.0)
        arrived += len(world.served().messages())
        arrived += len(world.pair.client_messages[next(iter(world.pair.clients))]) - before
    return arrived


@pytest.mark.requirement("9147-4.4-9", "9147-4.4-4")
@pytest.mark.parametrize(("seed", "loss"), [(1, 0.0), (2, 0.05), (3, 0.1)])
@pytest.mark.parametrize("carries", [1500, 1420, 1252])
def test_what_a_link_carries_is_found_and_looking_loses_nothing(seed: int, loss: float, carries: int) -> None:
    world = established(seed, link_mtu=carries, loss=loss)
    arrived = chat(world, 60.0)
    expected = min(carries, WANTED)
    for side in (world.client(), world.served()):
        assert side.mtu <= expected
        if not loss:
            assert side.mtu > expected - 16
        else:
            # A size may be taken for too large if all its probes were lost.
            assert side.mtu >= 1232
    assert arrived >= 120 * (1 - loss) - 12 * bool(loss)
    if not loss:
        assert arrived == 120
    world.close()


@pytest.mark.requirement("9147-4.4-9")
def test_a_link_that_becomes_narrower_and_wider() -> None:
    world = established(4, link_mtu=1500)
    chat(world, 10.0)
    assert world.client().mtu == world.served().mtu == WANTED
    world.forward.mtu = world.backward.mtu = 1300
    arrived = chat(world, 60.0)
    # For some seconds what was sent vanished; then it is short enough again.
    assert 60 <= arrived < 120
    for side in (world.client(), world.served()):
        assert 1284 <= side.mtu <= 1300
    assert chat(world, 10.0) == 20
    world.forward.mtu = world.backward.mtu = 1500
    world.pair.run_for(650.0)
    assert world.client().mtu == world.served().mtu == WANTED
    events = world.pair.client_events[next(iter(world.pair.clients))]
    sizes = [event.max_message_bytes for event in events if isinstance(event, dtls.MessageSizeChanged)]
    assert sizes[-1] == max(sizes) == world.client().max_message_bytes
    assert min(sizes) < sizes[-1] - 200
    world.close()
