"""The network changes the order of datagrams."""

from __future__ import annotations

import pytest

from sealwire.sim import Link
from tests import certificates, configs
from tests.network.world import World, address, both_connected, joined


@pytest.mark.requirement("9147-5.2-4", "9147-5.5-4")
@pytest.mark.parametrize("seed", range(10))
def test_a_thoroughly_shuffled_handshake_completes(seed: int) -> None:
    identity = certificates.large_server(10_000)
    world = World(
        seed,
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        mtu=576,
        reorder=0.7,
        hold=0.3,
    )
    world.connect()
    assert world.handshake() < 10.0
    world.exchange()
    assert world.forward.counters.reordered
    assert world.backward.counters.reordered
    world.close()


class FirstLast(Link):
    """The first datagram of each burst arrives after the rest of the burst."""

    _burst_at = -1.0

    def send(self, data: bytes, now: float, path: tuple[object, ...] = ()) -> None:
        first, self._burst_at = now != self._burst_at, now
        self._last_arrival = 0.0
        self.delay += 0.02 if first else 0.0
        super().send(data, now, path)
        self.delay -= 0.02 if first else 0.0


@pytest.mark.requirement("9147-5.2-4")
def test_a_flight_whose_beginning_comes_last_needs_no_timer() -> None:
    """What is ahead of its turn is kept, and the ACK that the gap provokes makes nobody repeat it."""
    identity = certificates.server(certificates.Kind.RSA_2048, intermediates=2)
    pair = joined(
        1,
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile, groups=["X25519MLKEM768"]).config(),
        mtu=576,
    )
    pair.forward, pair.backward = (FirstLast(1, delay=0.01, mtu=576, name=name) for name in ("to", "from"))
    assert pair.run_until(lambda: both_connected(pair), 30.0)
    assert pair.now < 0.5
    assert pair.forward.counters.sent >= 4


@pytest.mark.requirement("9147-5.8.1-5", "9147-4.2.1-3")
def test_data_that_overtakes_the_finished_is_not_delivered_before_it() -> None:
    """The client may send at once after its Finished; if that is late, the data waits or is lost."""
    world = World(3, delay=0.02)
    client = world.connect()
    assert world.pair.run_until(lambda: client.state == "connected", 10.0)
    # The Finished has left or leaves now; hold everything so far back behind what comes next.
    client.send(b"early")
    server_connections = dict(world.pair.served)
    assert not server_connections  # not connected yet: nothing was reported
    for item in world.forward._in_flight:
        item.arrives += 0.2
    world.pair.touch(address(0))
    heard: list[tuple[float, bytes]] = []
    connected_at: list[float] = []

    def listen() -> bool:
        if address(0) in world.pair.served:
            if not connected_at:
                connected_at.append(world.now)
            heard.extend((world.now, message) for message in world.served().messages())
        return False

    world.pair.run_until(listen, world.now + 5.0)
    assert connected_at
    assert [message for _, message in heard] in ([b"early"], [])
    assert all(moment >= connected_at[0] for moment, _ in heard)
    world.exchange()


@pytest.mark.requirement("9147-4.5.1-5", "9147-4.2.2-2")
def test_application_data_in_any_order_arrives_once_each() -> None:
    world = World(4, delay=0.02)
    client = world.connect()
    world.handshake()
    world.forward.reorder, world.forward.hold = 0.5, 0.05
    messages = [number.to_bytes(4, "big") for number in range(200)]
    heard: list[bytes] = []
    for message in messages:
        client.send(message)
        world.pair.touch(address(0))
        world.pair.run_for(0.001)
        heard += world.served().messages()
    world.pair.run_for(1.0)
    heard += world.served().messages()
    assert heard != messages
    assert sorted(heard) == messages


@pytest.mark.requirement("9147-5.10-5")
def test_data_older_than_a_close_that_overtook_it_is_still_delivered() -> None:
    world = World(5, delay=0.02)
    client = world.connect()
    world.handshake()
    world.pair.run_for(5.0)
    server = world.served()
    client.send(b"last words")
    world.pair.touch(address(0))
    world.pair.flush()
    for item in world.forward._in_flight:
        item.arrives += 0.2
    world.forward._in_flight.sort()
    world.forward._last_arrival = 0.0
    client.close(world.now)
    world.pair.touch(address(0))
    heard: list[bytes] = []

    def listen() -> bool:
        heard.extend(server.messages())
        return bool(heard)

    world.pair.run_until(listen, world.now + 5.0)
    assert heard == [b"last words"]
