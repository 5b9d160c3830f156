"""The network loses the server's last acknowledgement, once or ten times."""

from __future__ import annotations

import pytest

from sealwire import dtls
from sealwire.limits import Limits
from tests.network.world import World, address

#: Ten lost answers with a first timer of 0.1 s take 0.1 + 0.2 + ... + 51.2 s, below twice the MSL.
FIRST_TIMER_SECONDS = 0.1
PATIENT = Limits(handshake_seconds=600.0)


@pytest.mark.requirement("9147-5.8.1-4", "9147-5.7-1")
@pytest.mark.parametrize("lost", [0, 1, 2, 10])
def test_each_repeated_finished_is_acknowledged(lost: int) -> None:
    world = World(1, limits=PATIENT, record=True, delay=0.01)
    # Without a wish for spare connection ids, which the server would have to acknowledge, too.
    client = world.connect(initial_timeout=FIRST_TIMER_SECONDS, upkeep=dtls.Upkeep(spare_cids=0))
    assert world.pair.run_until(lambda: client.state == "connected", 10.0)
    # From here on the server has nothing to say but its ACK.
    already = world.backward.counters.sent
    world.backward.drop(*range(already, already + lost))
    repeats = client.counters.retransmissions
    world.pair.run_for(200.0)
    assert client.state == "connected"
    assert world.served().state == "connected"
    # Each lost ACK costs one repetition; each repetition gets exactly one ACK.
    assert world.backward.counters.dropped == lost
    assert client.counters.retransmissions - repeats == lost
    assert world.served().counters.acks_sent == lost + 1
    assert client.counters.acks_received == 1
    # Silence after that: nobody repeats what was acknowledged.
    before = (world.forward.counters.sent, world.backward.counters.sent)
    world.pair.run_for(120.0)
    assert (world.forward.counters.sent, world.backward.counters.sent) == before
    world.exchange()
    world.close()


@pytest.mark.requirement("9147-5.8.1-4")
def test_both_sides_talk_while_the_acknowledgement_is_missing() -> None:
    """Application data does not wait for the ACK, and its arrival does not end the repetitions' answers."""
    world = World(2, delay=0.01)
    client = world.connect()
    assert world.pair.run_until(lambda: client.state == "connected", 10.0)
    already = world.backward.counters.sent
    world.backward.drop(already, already + 1)
    client.send(b"hello")
    world.pair.touch(address(0))
    world.pair.run_for(0.2)
    assert world.served().messages() == [b"hello"]
    world.served().send(b"welcome")
    world.pair.run_for(10.0)
    world.served().send(b"still here")
    world.pair.run_for(1.0)
    assert b"still here" in world.pair.client_messages[address(0)]
    assert client.counters.acks_received >= 1
    world.close()
