"""Under load: what changes, that it begins and ends by itself, and what an owner may say."""

from __future__ import annotations

import pytest

from sealwire import dtls
from sealwire.dtls.detectors import CALM_SECONDS, Attack
from sealwire.limits import Limits
from tests import configs
from tests.unit.dtls.hellos import HERE, Hello
from tests.unit.dtls.host import Site, addresses


def attack(site: Site, seconds: int, rate: int = 400) -> None:
    """Garbage from strangers."""
    for _ in range(seconds * 10):
        site.now += 0.1
        site.endpoint.receive([(b"\x20garbage", ("198.51.100.7", n)) for n in range(rate // 10)], site.now)


def is_on(site: Site) -> bool:
    return site.endpoint.load.on


def test_it_begins_with_an_attack_and_ends_by_itself() -> None:
    site = Site()
    site.connect()
    assert site.endpoint.load.deadline is None
    attack(site, 5)
    load = site.endpoint.load
    assert is_on(site)
    assert load.attacks == {Attack.PACKET_FLOOD}
    assert site.endpoint.counters.under_load_entered == 1
    # Nothing comes any more, and nobody calls but at the deadlines.
    begin = site.now
    site.skip(60.0)
    assert not is_on(site)
    assert load.deadline is None
    began, ended = load.log
    assert CALM_SECONDS <= ended.at - begin < CALM_SECONDS + 5
    assert (began.rule, ended.rule) == ("junk", "junk")
    assert site.endpoint.counters.attacks_detected == 1


def test_an_owner_may_say_so_and_say_no() -> None:
    site = Site()
    load = site.endpoint.load
    load.force(True, site.now)
    assert is_on(site)
    site.skip(100.0)
    assert is_on(site)
    load.force(None, site.now)
    assert not is_on(site)
    load.force(False, site.now)
    attack(site, 5)
    assert load.attacks == {Attack.PACKET_FLOOD}
    assert not is_on(site)
    load.force(None, site.now)
    assert is_on(site)
    assert site.endpoint.counters.under_load_entered == 2


def test_under_load_everybody_needs_a_cookie() -> None:
    site = Site(require_cookie=False)
    # A hello in one piece that needs no other share is answered at once, else.
    config = configs.client_context(key_shares=["X25519"]).config()
    for n, on in enumerate((False, True, False)):
        site.endpoint.load.force(on, site.now)
        before = site.endpoint.counters.hello_retry_requests
        hello = Hello(config)
        site.endpoint.receive([(one, (HERE[0], n)) for one in hello.first], site.now)
        assert site.endpoint.counters.hello_retry_requests - before == on
        assert site.endpoint.handshaking == 1 + (n == 2)
        site.endpoint.transmit(site.now)


def test_under_load_handshakes_get_a_quarter_of_their_time() -> None:
    site = Site(limits=Limits(handshake_seconds=40.0, retransmissions=100))
    old, new = addresses(2)
    site.add(old)
    site.up()
    site.down()
    site.up()
    (half_open,) = site.endpoint
    site.now = 5.0
    site.endpoint.load.force(True, site.now)
    site.endpoint.transmit(site.now)
    del site.clients[old]
    site.add(new)
    site.up()
    site.down()
    site.up()
    del site.clients[new]
    site.skip(4.9)
    assert half_open.state is dtls.State.HANDSHAKING
    assert site.endpoint.handshaking == 2
    site.skip(0.2)
    assert isinstance(half_open.error, TimeoutError)
    assert "10 seconds" in str(half_open.error)
    site.skip(5.0)
    assert site.endpoint.handshaking == 0
    # A handshake that begins afterwards has all of its time again.
    site.endpoint.load.force(None, site.now)
    site.add(old)
    site.up()
    site.down()
    site.up()
    del site.clients[old]
    site.skip(39.0)
    assert site.endpoint.handshaking == 1


def test_established_peers_notice_nothing() -> None:
    site = Site()
    client, server = site.connect()
    site.endpoint.load.force(True, site.now)
    client.send(b"still here")
    site.run()
    assert server.messages() == [b"still here"]
    site.skip(100.0)
    assert client.state is server.state is dtls.State.CONNECTED


@pytest.mark.parametrize("used", [True, False])
def test_connections_are_counted_by_whether_they_were_used(used: bool) -> None:
    site = Site()
    client, _ = site.connect()
    if used:
        client.send(b"one")
        client.send(b"two")
        site.run()
    client.close(site.now)
    site.run()
    site.endpoint.close(site.now)
    site.run()
    counters = site.endpoint.counters
    assert (counters.connections_used, counters.connections_wasted) == (int(used), int(not used))
