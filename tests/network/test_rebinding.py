"""A network address translator gives a client another address: under load, in the handshake, again.

What was sent to the old mapping is lost, as everything is that the link loses; nothing else may be.
"""

from __future__ import annotations

from typing import Any

import pytest

from sealwire import dtls
from sealwire.dtls.header import is_ciphertext
from sealwire.sim.link import Fate
from tests.network.world import Address, World, address

SECOND = ("198.51.100.2", 2)
THIRD = ("198.51.100.3", 3)
FOURTH = ("198.51.100.4", 4)


#: Messages are long, so that the wire shows which datagrams hold data.
PAYLOAD = 120


def is_data(datagram: bytes) -> bool:
    return is_ciphertext(datagram[0]) and len(datagram) > PAYLOAD


class Moving:
    """A world with one client that has an address, and another later; numbered data flows both ways."""

    def __init__(self, seed: int, *, client_id: bytes = b"", **conditions: Any) -> None:
        self.world = World(seed, record=True, **conditions)
        self.at: Address = address(0)
        self.client = self.world.connect(self.at, connection_id=client_id)
        self.up = self.down = 0
        self.heard_up: list[bytes] = []
        #: (when, from where) of each rebinding.
        self.moves: list[tuple[float, Address]] = []

    def connect(self) -> dtls.Connection:
        self.world.handshake()
        self.world.pair.run_for(5.0)
        self.server = self.world.served(self.at)
        return self.server

    def rebind(self, to: Address) -> None:
        self.moves.append((self.world.now, self.at))
        self.world.pair.rebind(self.at, to)
        self.at = to

    def load(self, seconds: float, *, every: float = 0.01) -> None:
        """One message each way, again and again."""
        end = self.world.now + seconds
        while self.world.now < end:
            self.client.send((b"up %d " % self.up).ljust(PAYLOAD, b"."))
            self.server.send((b"down %d " % self.down).ljust(PAYLOAD, b"."))
            self.up, self.down = self.up + 1, self.down + 1
            self.world.pair.touch(self.at)
            self.world.pair.run_for(every)
            self.heard_up += self.server.messages()

    @property
    def heard_down(self) -> list[bytes]:
        return [message for heard in self.world.pair.client_messages.values() for message in heard]

    def lost_data(self, link: Any) -> int:
        """Datagrams of data this link lost, or carried to an address where nobody was any more."""
        gone = 0
        for crossing in link.capture:
            if crossing.sent < self.started or not is_data(crossing.data):
                continue
            if crossing.fate is not Fate.DELIVERED:
                gone += 1
            elif link is self.world.backward:
                left = [when for when, where in self.moves if where == crossing.path]
                gone += bool(left) and max(crossing.arrivals) > left[0]
        return gone

    def start(self) -> None:
        self.started = self.world.now

    def settle(self) -> None:
        self.world.pair.run_for(5.0)
        self.heard_up += self.server.messages()

    def addresses(self) -> list[dtls.AddressChanged]:
        return [event for _, event in self.world.pair.server_events if isinstance(event, dtls.AddressChanged)]


@pytest.mark.requirement("9147-11-7", "9146-3", "9853-1", "9853-2")
@pytest.mark.parametrize("client_id", [b"", b"client"])
@pytest.mark.parametrize(("seed", "loss", "reorder"), [(1, 0.0, 0.0), (2, 0.1, 0.0), (3, 0.1, 0.2)])
def test_under_load_nothing_is_lost_but_what_the_link_lost(
    seed: int, loss: float, reorder: float, client_id: bytes
) -> None:
    moving = Moving(seed, client_id=client_id, loss=loss, reorder=reorder, delay=0.02)
    server = moving.connect()
    moving.start()
    for to in (SECOND, THIRD, FOURTH):
        moving.load(1.0)
        moving.rebind(to)
        moving.load(2.0)
        assert server.address == to
    moving.settle()
    assert len(moving.heard_up) == len(set(moving.heard_up))
    assert len(moving.heard_down) == len(set(moving.heard_down))
    assert len(moving.heard_up) == moving.up - moving.lost_data(moving.world.forward)
    assert len(moving.heard_down) == moving.down - moving.lost_data(moving.world.backward)
    if not loss:
        assert len(moving.heard_up) == moving.up
        # A round trip and a half without answers at each move: the data to the old mapping.
        assert moving.down - len(moving.heard_down) <= 3 * 8
    moves = [(event.old, event.new) for event in moving.addresses()]
    assert moves == [(address(0), SECOND), (SECOND, THIRD), (THIRD, FOURTH)]
    assert moving.world.endpoint.connections == 1
    moving.world.close()


@pytest.mark.requirement("9853-2")
def test_the_trace_shows_the_check_before_anything_else_goes_to_the_new_address() -> None:
    moving = Moving(11, delay=0.02)
    moving.connect()
    moving.start()
    moving.load(0.5)
    moving.rebind(SECOND)
    moving.load(0.5)
    there = [crossing for crossing in moving.world.backward.capture if crossing.path == SECOND]
    first_data = next(crossing for crossing in there if is_data(crossing.data))
    before = there[: there.index(first_data)]
    assert [len(crossing.data) for crossing in before] == [31]
    # A whole round trip lies between the challenge and the first data.
    assert first_data.sent - before[0].sent == pytest.approx(0.04, abs=0.001)
    heard = sum(
        len(crossing.data)
        for crossing in moving.world.forward.capture
        if crossing.path == SECOND and crossing.arrivals and crossing.arrivals[0] <= first_data.sent
    )
    assert sum(len(crossing.data) for crossing in before) <= 3 * heard


def test_two_moves_within_one_round_trip_end_at_the_last_address() -> None:
    moving = Moving(21, delay=0.05)
    server = moving.connect()
    moving.start()
    moving.load(0.3)
    moving.rebind(SECOND)
    moving.load(0.03)
    moving.rebind(THIRD)
    moving.load(2.0)
    assert server.address == THIRD
    moving.settle()
    assert len(moving.heard_up) == moving.up
    assert len(moving.heard_down) == moving.down - moving.lost_data(moving.world.backward)
    moving.world.close()


def test_there_and_back_again() -> None:
    moving = Moving(31, delay=0.02)
    server = moving.connect()
    moving.start()
    moving.rebind(SECOND)
    moving.load(1.0)
    assert server.address == SECOND
    moving.rebind(address(0))
    moving.load(1.0)
    assert server.address == address(0)
    moving.world.close()


@pytest.mark.parametrize("seed", range(8))
def test_moving_once_the_server_has_answered_does_not_end_the_handshake(seed: int) -> None:
    """The client's last flight comes from elsewhere, and finds its connection by the id in it."""
    moving = Moving(seed, loss=0.05 * (seed % 3), delay=0.02)
    pair = moving.world.pair
    assert pair.run_until(lambda: moving.client.state == "connected", 60.0)
    pair.flush()
    moving.rebind(SECOND)
    assert pair.run_until(
        lambda: any(isinstance(event, dtls.Connected) for _, event in pair.server_events), 120.0
    ), moving.world.describe(SECOND)
    [server] = list(moving.world.endpoint)
    end = moving.world.now + 30.0
    while server.address != SECOND and moving.world.now < end:
        moving.client.send(b"here")
        pair.touch(SECOND)
        pair.run_for(0.5)
    assert server.address == SECOND
    server.messages()
    moving.world.exchange(SECOND)
    moving.world.close()


def test_moving_with_part_of_the_servers_flight_missing_ends_and_a_new_attempt_works() -> None:
    """Decision A20: nobody moves before the handshake is complete, so both sides give up in time."""
    moving = Moving(43, delay=0.02)
    pair = moving.world.pair
    # The datagram with the end of the server's flight is lost, and then the client is elsewhere.
    seen = moving.world.backward.counters
    moving.world.backward.drop_if = lambda number, data: seen.sent > 2 and not is_data(data)
    assert pair.run_until(lambda: moving.world.endpoint.connections == 1, 10.0)
    pair.run_for(0.05)
    moving.rebind(SECOND)
    moving.world.backward.drop_if = None
    pair.run_for(130.0)
    assert isinstance(moving.client.error, TimeoutError)
    assert moving.world.endpoint.connections == 0
    moving.world.connect(address(7))
    moving.world.handshake(at=address(7))
    moving.world.close()


def test_moving_before_the_cookie_is_a_new_beginning_or_an_end_but_no_hang() -> None:
    """A cookie is for one address: the second hello from another one is not taken for proved."""
    moving = Moving(41, delay=0.02)
    pair = moving.world.pair
    pair.run_for(0.03)
    moving.rebind(SECOND)
    pair.run_for(120.0)
    assert moving.client.state in ("connected", "closed")
    assert moving.world.endpoint.connections in (0, 1)
    moving.world.close()


@pytest.mark.requirement("9147-11-7", "9853-2")
def test_an_attacker_who_copies_the_path_moves_nothing_and_gains_nothing() -> None:
    """Every datagram of the client also comes from a bystander's address, and first."""
    moving = Moving(51, delay=0.02)
    server = moving.connect()
    moving.start()
    forward, backward = moving.world.forward, moving.world.backward
    bystander = THIRD
    for _ in range(100):
        moving.client.send(b"up %d" % moving.up)
        server.send(b"down %d" % moving.down)
        moving.up, moving.down = moving.up + 1, moving.down + 1
        for datagram in moving.client.transmit(moving.world.now):
            forward.send(datagram, moving.world.now, bystander)
            forward.send(datagram, moving.world.now, moving.at)
        moving.world.pair.touch(moving.at)
        moving.world.pair.run_for(0.01)
        moving.heard_up += server.messages()
    moving.settle()
    assert server.address == address(0)
    assert moving.addresses() == []
    assert len(moving.heard_up) == moving.up
    assert len(moving.heard_down) == moving.down
    spent = sum(len(crossing.data) for crossing in forward.capture if crossing.path == bystander)
    gained = sum(len(crossing.data) for crossing in backward.capture if crossing.path == bystander)
    assert 0 < gained <= 3 * spent
    moving.world.close()


def test_a_client_without_ids_from_the_server_does_not_survive_a_move() -> None:
    """What connection ids are for: without one a new address is a stranger."""
    moving = Moving(61, delay=0.02)
    moving.world.endpoint._cid_bytes = None
    server = moving.connect()
    moving.rebind(SECOND)
    moving.load(1.0)
    assert moving.heard_up == []
    assert server.address == address(0)
