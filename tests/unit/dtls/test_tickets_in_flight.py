"""Session tickets are under way together, each sent again until it is there (RFC 9147 section 5.8.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealwire import dtls
from tests import configs
from tests.unit.dtls.rig import Rig, joined

TICKETS = 3


def before_the_last_flight() -> Rig:
    """The server's tickets are going to answer the client's Finished, each in a datagram of its own."""
    rig = joined(
        client=replace(configs.client_context().config(), num_tickets=TICKETS),
        server=replace(configs.server_context().config(), num_tickets=TICKETS),
        mtu=256,
        handshake=False,
    )
    while rig.client.state is not dtls.State.CONNECTED:
        rig.deliver(rig.client)
        rig.deliver(rig.server)
    return rig


def came(rig: Rig) -> list[bytes]:
    """Identities of the tickets the client has, in order."""
    return [one.ticket.identity for one in rig.client_events if isinstance(one, dtls.TicketReceived)]


@pytest.mark.requirement("9147-5.8.4-1", "9147-5.8.4-4")
@pytest.mark.parametrize("lost", range(1 << (TICKETS + 1)))
def test_whichever_are_lost_all_arrive_once_and_in_order(lost: int) -> None:
    rig = before_the_last_flight()
    rig.deliver(rig.client)
    sent = rig.deliver(rig.server, drop=lambda n: bool(lost >> n & 1))
    assert len(sent) >= TICKETS, "they wait for nobody"
    in_time = len(came(rig))
    rig.run_until(lambda: len(came(rig)) == TICKETS, until=10.0)
    assert len(set(came(rig))) == TICKETS
    assert in_time <= TICKETS
    rig.skip(10.0)
    # Acknowledged, every one: nothing is sent any more, and nothing came twice.
    assert len(came(rig)) == TICKETS
    assert rig.take(rig.server) == []
    rig.echo()


@pytest.mark.requirement("9147-5.8.4-1", "9147-5.8.4-4")
def test_a_key_update_does_not_wait_for_them() -> None:
    """Another kind of message, with a state of its own."""
    rig = before_the_last_flight()
    rig.deliver(rig.client)
    # What acknowledges the client's Finished stands in the first datagram.
    assert len(rig.deliver(rig.server, drop=lambda n: n > 0)) > 1
    assert len(came(rig)) < TICKETS
    rig.client.update_keys(rig.now)
    rig.run()
    assert rig.client._sealing.epoch == 4
    assert len(came(rig)) < TICKETS
    rig.run_until(lambda: len(came(rig)) == TICKETS, until=10.0)
    rig.echo()
