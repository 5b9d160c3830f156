"""Somebody at another address, on the path or off it: what they send moves nobody and earns them nothing.

An attacker here has every datagram the client ever sent, may keep back what they like, and sends from
addresses of their choice.  Each test counts bytes: what went to such an address is at most three
times what came from it, and nothing at all unless a record came that was new and authentic.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from sealwire import dtls
from sealwire.sim.link import Crossing
from tests.network.test_rebinding import Moving
from tests.network.world import Address, address

ELSEWHERE = ("203.0.113.66", 6)


class Attacked(Moving):
    """A connection under load, and somebody with a copy of all its datagrams."""

    def __init__(self, seed: int, **conditions: Any) -> None:
        super().__init__(seed, delay=0.02, **conditions)
        self.connect()
        self.start()
        self.load(0.5)

    def seen(self) -> list[bytes]:
        """Everything the client has sent so far, as somebody on its path sees it."""
        return [crossing.data for crossing in self.world.forward.capture if crossing.path == address(0)]

    def send_from(self, where: Address, datagram: bytes) -> None:
        self.world.forward.send(datagram, self.world.now, where)

    def listen(self) -> None:
        """Take what the server heard; of the numbered load nothing may be missing in the end."""
        self.heard_up += [message for message in self.server.messages() if message.startswith(b"up ")]

    def spent(self, where: Address) -> int:
        return self._bytes(self.world.forward.capture, where)

    def gained(self, where: Address) -> int:
        return self._bytes(self.world.backward.capture, where)

    @staticmethod
    def _bytes(crossings: list[Crossing], where: Address) -> int:
        return sum(len(crossing.data) for crossing in crossings if crossing.path == where)

    def unharmed(self) -> None:
        """All data of both sides arrived, once, and the connection is where it was."""
        self.load(0.2)
        self.settle()
        assert self.server.address == address(0)
        assert self.addresses() == []
        load = [message for message in self.heard_up if message.startswith(b"up ")]
        assert len(load) == len(set(load)) == self.up
        assert len(self.heard_down) == len(set(self.heard_down)) == self.down
        assert self.world.endpoint.connections == 1
        self.world.close()


@pytest.mark.requirement("9147-11-7", "9146-3")
def test_what_was_sent_before_earns_nothing_from_elsewhere() -> None:
    """Every datagram there ever was, hellos and all, again from another address.

    A hello may earn a cookie, as anybody's does: less than three times what it cost.
    """
    attacked = Attacked(1)
    hellos = spent = 0
    for datagram in attacked.seen():
        attacked.send_from(ELSEWHERE, datagram)
        spent += len(datagram)
        hellos += datagram[0] == 22
        attacked.world.pair.run_for(0.01)
    attacked.load(0.5)
    assert attacked.spent(ELSEWHERE) == spent
    assert 0 < hellos <= 4
    gained = attacked.gained(ELSEWHERE)
    first = sum(len(datagram) for datagram in attacked.seen()[:hellos])
    assert gained <= 3 * first
    assert gained < spent // 10
    attacked.unharmed()


@pytest.mark.requirement("9147-11-7", "9146-3")
def test_old_records_alone_earn_not_one_byte() -> None:
    attacked = Attacked(2)
    records = [datagram for datagram in attacked.seen() if datagram[0] >> 5 == 1]
    assert len(records) > 40
    for datagram in records:
        attacked.send_from(ELSEWHERE, datagram)
    attacked.load(0.5)
    assert attacked.spent(ELSEWHERE) > 4_000
    assert attacked.gained(ELSEWHERE) == 0
    attacked.unharmed()


@pytest.mark.requirement("9147-11-7", "9146-3", "9147-4.5.2-1")
def test_forged_records_with_the_right_id_earn_not_one_byte() -> None:
    """The id is in the clear, so anybody who sees a record can put it into their own."""
    attacked = Attacked(3)
    dice = random.Random(3)
    newest = attacked.seen()[-1]
    for _ in range(200):
        head, n = newest[:11], dice.randrange(20, 400)
        attacked.send_from(ELSEWHERE, head + dice.randbytes(n))
        damaged = bytearray(newest)
        damaged[dice.randrange(11, len(damaged))] ^= 1 << dice.randrange(8)
        attacked.send_from(ELSEWHERE, bytes(damaged))
    attacked.load(0.5)
    assert attacked.gained(ELSEWHERE) == 0
    assert attacked.server.state == "connected"
    attacked.unharmed()


@pytest.mark.requirement("9147-11-7", "9146-3", "9853-2")
def test_records_kept_back_and_sent_from_elsewhere_earn_a_challenge_at_most() -> None:
    """On the path: the newest record comes from elsewhere and the client's own copy never does."""
    attacked = Attacked(4)
    world = attacked.world
    stolen = 0
    for _ in range(50):
        attacked.client.send(b"stolen")
        for datagram in attacked.client.transmit(world.now):
            attacked.send_from(ELSEWHERE, datagram)
            stolen += 1
        world.pair.run_for(0.02)
        attacked.listen()
    assert stolen == 50
    attacked.load(0.5)
    there = [crossing.data for crossing in world.backward.capture if crossing.path == ELSEWHERE]
    # Challenges and nothing else: no data of the server's ever went there.
    assert {len(datagram) for datagram in there} == {31}
    assert attacked.gained(ELSEWHERE) <= 3 * attacked.spent(ELSEWHERE)
    attacked.unharmed()


@pytest.mark.requirement("9147-11-7", "9853-2", "9853-4")
def test_an_attacker_who_answers_with_what_they_have_is_not_believed() -> None:
    """They bounce the challenge, and send old records and answers, whatever they get."""
    attacked = Attacked(5)
    world = attacked.world
    for _ in range(30):
        attacked.client.send(b"copied")
        for datagram in attacked.client.transmit(world.now):
            attacked.send_from(ELSEWHERE, datagram)
        world.pair.run_for(0.05)
        attacked.listen()
        received = [crossing.data for crossing in world.backward.capture if crossing.path == ELSEWHERE]
        if received:
            attacked.send_from(ELSEWHERE, received[-1])
        attacked.send_from(ELSEWHERE, attacked.seen()[-1])
    attacked.load(0.5)
    assert attacked.gained(ELSEWHERE) <= 3 * attacked.spent(ELSEWHERE)
    attacked.unharmed()


@pytest.mark.requirement("9147-11-7", "9146-3")
def test_many_addresses_at_once_earn_no_more_than_one() -> None:
    """A copy of each record from a new address every time: the budget is each address's own."""
    attacked = Attacked(6)
    world = attacked.world
    places = [("203.0.113.7", port) for port in range(1_000, 1_080)]
    for place in places:
        attacked.client.send(b"scattered")
        for datagram in attacked.client.transmit(world.now):
            attacked.send_from(place, datagram)
            world.forward.send(datagram, world.now, address(0))
        world.pair.run_for(0.01)
        attacked.listen()
    attacked.load(0.5)
    for place in places:
        assert attacked.gained(place) <= 3 * attacked.spent(place)
    attacked.unharmed()


@pytest.mark.requirement("9146-3", "9853-2")
def test_a_real_move_is_found_beside_an_attacker() -> None:
    """The client moves while somebody copies its records from elsewhere: it is followed, they are not."""
    attacked = Attacked(7)
    world = attacked.world
    moved = ("198.51.100.2", 2)
    attacked.rebind(moved)
    for _ in range(60):
        attacked.client.send(b"moved")
        for datagram in attacked.client.transmit(world.now):
            attacked.send_from(moved, datagram)
            attacked.send_from(ELSEWHERE, datagram)
        world.pair.touch(moved)
        world.pair.run_for(0.05)
        attacked.listen()
    assert attacked.server.address == moved
    assert [(event.old, event.new) for event in attacked.addresses()] == [(address(0), moved)]
    assert attacked.gained(ELSEWHERE) <= 3 * attacked.spent(ELSEWHERE)
    assert isinstance(attacked.server, dtls.Connection)
    world.close()
