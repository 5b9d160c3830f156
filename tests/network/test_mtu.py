"""The network carries only small datagrams, and may not say so."""

from __future__ import annotations

import pytest

from sealwire.errors import ConnectionClosed
from tests import certificates, configs
from tests.network.world import World, address


@pytest.mark.requirement("9147-4.3-1", "9147-4.3-2", "9147-4.3-4", "9147-5.5-2")
@pytest.mark.parametrize("mtu", [296, 576, 1200, 1500])
def test_no_datagram_is_larger_than_the_mtu(mtu: int) -> None:
    identity = certificates.large_server(20_000)
    world = World(
        1,
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        mtu=mtu,
        link_mtu=65_535,
        record=True,
    )
    world.connect()
    world.handshake()
    world.exchange()
    sizes = [len(crossing.data) for crossing in world.forward.capture + world.backward.capture]
    assert max(sizes) <= mtu
    assert max(sizes) > 0.9 * mtu  # and the room is used
    world.close()


@pytest.mark.requirement("9147-4.4-12")
@pytest.mark.parametrize(("mtu", "passes"), [(1500, 1200), (1500, 576), (1200, 576), (1200, 296)])
def test_a_black_hole_is_answered_with_smaller_fragments(mtu: int, passes: int) -> None:
    """Nothing above `passes` gets through and nobody says why; after some silence fragments shrink."""
    identity = certificates.large_server(10_000)
    world = World(
        2,
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        mtu=mtu,
        link_mtu=passes,
    )
    world.connect()
    world.handshake(within=60.0)
    assert world.forward.counters.too_big + world.backward.counters.too_big > 0
    world.close()


@pytest.mark.requirement("9147-4.4-12")
def test_a_path_that_narrows_in_mid_handshake() -> None:
    identity = certificates.large_server(20_000)
    world = World(
        3,
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        mtu=1500,
    )
    world.connect()
    assert world.pair.run_until(lambda: world.backward.counters.sent >= 5, 10.0)
    world.forward.mtu = world.backward.mtu = 512
    world.handshake(within=60.0)
    assert world.backward.counters.too_big > 0


@pytest.mark.requirement("9147-4.3-1", "9147-4.4-4")
def test_the_largest_message_fits_exactly_and_one_byte_more_is_refused() -> None:
    world = World(4, mtu=576, record=True)
    client = world.connect()
    world.handshake()
    world.pair.run_for(3.0)
    world.forward.capture.clear()
    client.send(b"x" * client.max_message_bytes)
    with pytest.raises(ValueError, match=r"\d"):
        client.send(b"x" * (client.max_message_bytes + 1))
    world.pair.touch(address(0))
    world.pair.run_for(1.0)
    assert world.served().messages() == [b"x" * client.max_message_bytes]
    assert [len(crossing.data) for crossing in world.forward.capture] == [576]
    client.close(world.now)
    with pytest.raises(ConnectionClosed):
        client.send(b"late")


@pytest.mark.requirement("9147-5.8.3-1")
def test_a_large_flight_leaves_in_bursts() -> None:
    """A 20 KB chain at MTU 576 is forty records; a transmission is ten."""
    identity = certificates.large_server(20_000)
    world = World(
        5,
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        mtu=576,
        record=True,
    )
    world.connect()
    world.handshake()
    bursts: dict[float, int] = {}
    for crossing in world.backward.capture:
        bursts[crossing.sent] = bursts.get(crossing.sent, 0) + 1
    assert max(bursts.values()) <= 10
    assert world.now < 20.0


@pytest.mark.requirement("9147-5.1-8")
@pytest.mark.parametrize("require_cookie", [True, False])
def test_an_unproved_address_gets_at_most_three_times_what_it_sent(require_cookie: bool) -> None:
    """The peer sends one flight and then nothing more: a spoofed source."""
    identity = certificates.large_server(20_000)
    world = World(
        6,
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        mtu=1200,
        require_cookie=require_cookie,
        record=True,
    )
    world.connect()
    world.pair.step()
    world.vanish()
    world.pair.run_for(120.0)
    sent = sum(len(crossing.data) for crossing in world.forward.capture)
    answered = sum(len(crossing.data) for crossing in world.backward.capture)
    assert 0 < answered <= 3 * sent
