"""What a path says about the length of datagrams, and what becomes of longer ones (RFC 9147 section 4.4)."""

from __future__ import annotations

import pytest

from sealwire import dtls
from tests.unit.dtls.rig import joined


@pytest.mark.requirement("9147-4.4-1", "9147-4.4-4", "9147-4.4-7")
@pytest.mark.parametrize("side", ["client", "server"])
def test_data_follows_the_path(side: str) -> None:
    rig = joined()
    one: dtls.Connection = getattr(rig, side)
    before = one.max_message_bytes
    one.send(bytes(before))
    one.path_carries(600, 0.0)
    assert (one.mtu, one.max_message_bytes) == (600, before - 600)
    # What was queued for the wider path is lost as on the way, and counted.
    assert one.transmit(0.0) == []
    assert one.counters.messages_too_long == 1
    with pytest.raises(ValueError, match="above the 578"):
        one.send(bytes(579))
    one.send(bytes(578))
    [datagram] = one.transmit(0.0)
    assert len(datagram) == 600
    rig.other(one).receive(datagram, 0.0)
    assert rig.other(one).messages() == [bytes(578)]


@pytest.mark.requirement("9147-4.4-10", "9147-4.4-11")
def test_a_flight_is_cut_anew_at_once() -> None:
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    first = rig.take(rig.server)
    assert max(map(len, first)) > 700
    assert rig.server.transmit(0.0) == []
    # None of it passed.
    rig.server.path_carries(700, 0.001)
    again = rig.server.transmit(0.001)
    assert 600 < max(map(len, again)) <= 700
    assert sum(map(len, again)) >= sum(map(len, first))
    rig.client.receive_run(again, 0.001)
    rig.run()
    assert rig.client.state is rig.server.state is dtls.State.CONNECTED


@pytest.mark.requirement("9147-4.4-5")
@pytest.mark.parametrize(
    ("size", "ipv6", "believed"),
    [
        (0, False, False),
        (68 - 28, False, False),
        (547, False, False),
        (548, False, True),
        (1231, True, False),
        (1232, True, True),
        (1399, False, True),
        (1400, False, False),
        (9000, False, False),
    ],
)
def test_reports_that_cannot_be_or_say_nothing_new_are_ignored(size: int, ipv6: bool, believed: bool) -> None:
    rig = joined(mtu=1400)
    before = rig.client.max_message_bytes
    rig.client.path_carries(size, 0.0, ipv6=ipv6)
    assert rig.client.mtu == (size if believed else 1400)
    assert (rig.client.max_message_bytes != before) is believed
    assert rig.client.transmit(0.0) == []


def test_a_connection_that_is_over_hears_nothing() -> None:
    rig = joined()
    rig.client.abort()
    rig.client.path_carries(600, 0.0)
    assert rig.client.mtu == 1200
