"""How long until a server has the first message of a client: what cookies cost, and what early data saves."""

from __future__ import annotations

import pytest

from sealwire import dtls
from sealwire.dtls import EarlyData
from tests.network.world import World, address
from tests.unit.tls13.early import world

ONE_WAY_SECONDS = 0.1


def seconds_until_heard(net: World, client: dtls.Connection) -> float:
    """From the client's first datagram until the server has a message of it."""
    begin = net.now

    def heard() -> bool:
        return any(
            one.counters.messages_received + one.counters.early_messages_received for one in net.endpoint
        )

    assert net.pair.run_until(heard, begin + 10)
    return net.now - begin


@pytest.mark.requirement("8446-0RTT-5")
@pytest.mark.parametrize(("early", "ways"), [(False, 5), (True, 1)], ids=["cookie", "early data"])
def test_ways_through_the_network(early: bool, ways: int) -> None:
    """Two hellos, their answers, and data with Finished; early data is there with the first hello."""
    made = world()
    net = World(1, server=made.server, client=made.client, delay=ONE_WAY_SECONDS)
    ticket = None
    if early:
        first = net.connect()
        net.handshake()
        net.pair.run_for(1)
        events = net.pair.client_events[address(0)]
        ticket = next(event.ticket for event in events if isinstance(event, dtls.TicketReceived))
        net.served().close(net.now)
        first.close(net.now)
        net.pair.touch(address(0))
        net.pair.run_for(10)
        assert not net.endpoint.connections
    client = net.connect(ticket=ticket, early_data=early)
    if early:
        client.send_replayable(b"first")
    else:
        client.send(b"first")
    assert seconds_until_heard(net, client) == pytest.approx(ways * ONE_WAY_SECONDS)
    net.pair.run_until(lambda: client.state == "connected", net.now + 10)
    assert client.session.early_data is (EarlyData.ACCEPTED if early else EarlyData.NOT_OFFERED)
