"""Keepalive and the search for what the path carries, and how one side closes before the other."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.dtls.header import ContentType
from sealwire.dtls.pathmtu import MtuSearch
from sealwire.errors import ConnectionClosed, Discard
from sealwire.limits import Ledger, Limits
from tests import configs
from tests.unit.dtls.hellos import HERE, THERE
from tests.unit.dtls.host import Site, addresses
from tests.unit.dtls.rig import Rig
from tests.unit.dtls.test_rogue_records import each_side, of

BASE = 1200


def rig(
    *,
    routable: bool = True,
    mtu: int = BASE,
    record_size_limit: int | None = None,
    limits: Limits | None = None,
    passes: Callable[[bytes], bool] = lambda data: True,
    **upkeep: float | None,
) -> Rig:
    """Two sides that look after each other; without ids they cannot ask each other anything."""
    ledger = Ledger(1 << 28)
    care = dtls.Upkeep(spare_cids=0, **upkeep)  # type: ignore[arg-type]
    client_id, server_id = (b"client", b"srv") if routable else (b"", None)
    one = Rig(
        dtls.Connection.client(
            replace(configs.client_context().config(), record_size_limit=record_size_limit),
            now=0.0,
            server_name="localhost",
            ledger=ledger,
            mtu=mtu,
            limits=limits,
            connection_id=client_id,
            upkeep=care,
        ),
        dtls.Connection.server(
            configs.server_context().config(),
            now=0.0,
            ledger=ledger,
            mtu=mtu,
            limits=limits,
            connection_id=server_id,
            upkeep=care,
        ),
        ledger,
    )
    pass_time(one, 0.0, passes)
    assert one.client.state is one.server.state is dtls.State.CONNECTED
    return one


def pass_time(one: Rig, until: float, passes: Callable[[bytes], bool] = lambda data: True) -> None:
    """Let time pass; only datagrams that `passes` says yes to arrive."""

    def exchange() -> bool:
        moved = False
        for sender in (one.client, one.server):
            datagrams = one.take(sender)
            moved |= bool(datagrams)
            there = [data for data in datagrams if passes(data)]
            if there:
                one.other(sender).receive_run(there, one.now)
        return moved

    while exchange():
        pass
    while True:
        due = [at for at in (one.client.deadline(), one.server.deadline()) if at is not None and at <= until]
        if not due:
            break
        one.now = max(one.now, min(due))
        for side in (one.client, one.server):
            at = side.deadline()
            if at is not None and at <= one.now:
                side.wake(one.now)
        while exchange():
            pass
    one.now = until


# --- the search ------------------------------------------------------------------------------


def search(
    carries: Callable[[int], bool], base: int = BASE, most: int = 9000
) -> tuple[MtuSearch, int, float]:
    """Run a search over such a path: probes sent, and seconds until it was complete."""
    now, probes = 0.0, 0
    one = MtuSearch(base, most, now)
    while not one.complete:
        if one.probe_due:
            probes += 1
            size = one.asking
            one.sent(now)
            if carries(size):
                now += 0.05
                one.answered(size, now)
                continue
        due = one.deadline
        assert due is not None
        now = max(now, due)
        one.wake(now)
        # Or an endpoint that wakes all that are due would never come to an end.
        assert one.deadline is None or one.deadline > now
    return one, probes, now


@given(limit=st.integers(BASE, 10_000), most=st.integers(BASE, 9000))
@pytest.mark.requirement("9147-4.4-9")
def test_a_search_finds_what_the_path_carries(limit: int, most: int) -> None:
    one, probes, seconds = search(lambda size: size <= limit, most=most)
    assert one.size <= max(limit, BASE)
    assert one.size == most if most <= limit else min(limit, most) - one.size < 32
    assert probes <= 60
    assert seconds < 60.0


@pytest.mark.parametrize("limit", [1232, 1372, 1412, 1452, 1472, 8972])
def test_sizes_that_networks_have_are_found_exactly_and_soon(limit: int) -> None:
    one, probes, _ = search(lambda size: size <= limit)
    assert one.size == limit
    assert probes <= 40


def test_one_lost_probe_is_no_answer() -> None:
    lost: list[int] = []

    def carries(size: int) -> bool:
        lost.append(size)
        return len(lost) % 3 == 0

    one, _, _ = search(carries, most=1472)
    assert one.size == 1472


def test_a_black_hole_is_noticed_while_data_is_sent_and_only_then() -> None:
    one, _, now = search(lambda size: True, most=1472)
    idle = one.deadline
    one.used = True
    due = one.deadline
    assert idle is None
    assert due is not None
    assert now < due <= now + 15.0
    for _ in range(3):
        one.wake(due)
        assert one.probe_due
        assert one.asking == 1472
        one.sent(due)
        due = one.deadline
        assert due is not None
    one.wake(due)
    assert (one.size, one.asking) == (BASE, 1452)


def test_what_did_not_pass_is_tried_again_after_ten_minutes() -> None:
    one, _, now = search(lambda size: size <= 1300, most=1472)
    assert 1284 <= one.size <= 1300
    due = one.deadline
    assert due is not None
    assert 590 < due - now <= 600
    one.wake(due)
    assert one.asking == 1472


def test_hints_lower_what_is_asked_for_and_never_the_base() -> None:
    one = MtuSearch(BASE, 9000, 0.0)
    one.refused(8972, 0.0)
    assert one.asking == 1472
    one.refused(1473, 0.0)
    assert one.asking == 1472
    one.sent(0.0)
    one.answered(1472, 0.1)
    assert (one.size, one.complete) == (1472, True)
    one.refused(9000, 0.2)  # above what is asked for: no news
    assert one.size == 1472
    for lie in (BASE, 600, 68, 0, -1):
        one.refused(lie, 0.3)
        assert one.size == 1472
    one.refused(1400, 0.4)
    assert one.size == BASE
    assert one.asking < 1400


# --- in a connection -------------------------------------------------------------------------


@pytest.mark.requirement("9147-4.4-9", "9147-4.4-4", "9853-2")
@pytest.mark.parametrize("carries", [1232, 1420, 1472, 9000])
def test_both_sides_find_what_the_path_carries(carries: int) -> None:
    one = rig(max_mtu=1472, passes=lambda data: len(data) <= carries)
    pass_time(one, 60.0, lambda data: len(data) <= carries)
    expected = min(carries, 1472)
    for side, events in ((one.client, one.client_events), (one.server, one.server_events)):
        assert expected - 16 < side.mtu <= expected
        changes = [event for event in events if isinstance(event, dtls.MessageSizeChanged)]
        assert changes[-1].max_message_bytes == side.max_message_bytes
        side.send(bytes(side.max_message_bytes))
        [datagram] = one.deliver(side)
        assert len(datagram) == side.mtu
        assert one.other(side).messages() == [bytes(side.max_message_bytes)]
        assert side.counters.discards == {}


@each_side
def test_a_path_that_becomes_narrow_and_wide_again(side: str) -> None:
    one = rig(max_mtu=1472)
    this = of(one, side)
    pass_time(one, 10.0)
    assert this.mtu == 1472
    lost = 0
    while this.mtu == 1472:
        this.send(bytes(this.max_message_bytes))
        pass_time(one, one.now + 1.0, lambda data: len(data) <= 1300)
        lost += 1
        assert lost < 30, "the black hole was never noticed"
    pass_time(one, one.now + 40.0, lambda data: len(data) <= 1300)
    assert 1270 < this.mtu <= 1300
    pass_time(one, one.now + 700.0)
    assert this.mtu == 1472


def test_probes_stay_within_the_peers_limit_on_records() -> None:
    one = rig(max_mtu=4000, record_size_limit=1400)
    pass_time(one, 20.0)
    assert one.server.error is one.client.error is None
    assert one.server.max_message_bytes == 1399
    assert one.client.mtu == 4000


def test_many_connections_of_an_endpoint_search_a_path_that_carries_little() -> None:
    site = Site(upkeep=dtls.Upkeep(max_mtu=9000, keepalive=30.0))
    for at in addresses(5):
        site.add(at)
    for _ in range(400):
        site.now += 0.25
        site.endpoint.wake(site.now)
        batch = [(data, at) for data, at in site.endpoint.transmit(site.now) if len(data) <= 1300]
        for data, at in batch:
            site.clients[at].receive(data, site.now)
        for at, client in site.clients.items():
            client.wake(site.now)
            site.endpoint.receive([(data, at) for data in client.transmit(site.now)], site.now)
    assert len(site.endpoint._peers) == 5
    assert all(1284 <= one.mtu <= 1300 for one in site.endpoint)


def test_another_path_is_searched_anew() -> None:
    site = Site(upkeep=dtls.Upkeep(max_mtu=1472, spare_cids=0))
    client, server = site.connect()
    site.skip(20.0)
    assert server.mtu == 1472
    client.send(b"from elsewhere")
    site.endpoint.receive([(datagram, THERE) for datagram in client.transmit(site.now)], site.now)
    sent = site.endpoint.transmit(site.now)
    client.receive_run([datagram for datagram, to in sent if to == THERE], site.now)
    site.endpoint.receive([(datagram, THERE) for datagram in client.transmit(site.now)], site.now)
    assert server.address == THERE != HERE
    assert server.mtu == BASE
    site.clients[THERE] = site.clients.pop(HERE)
    site.skip(20.0)
    assert server.mtu == 1472
    assert site.inside(Discard.PATH_MESSAGE) == 0


@pytest.mark.requirement("9147-4.4-9", "9147-4.4-7")
def test_without_return_routability_the_application_says_what_arrived() -> None:
    one = rig(routable=False, max_mtu=1472)
    pass_time(one, 100.0)
    small = one.client.max_message_bytes
    assert one.client.max_probe_bytes == small + 272
    with pytest.raises(ValueError, match="probe"):
        one.client.send_probe(bytes(small + 273))
    one.client.send_probe(bytes(small + 272))
    [datagram] = one.deliver(one.client)
    assert len(datagram) == 1472
    assert one.server.messages() == [bytes(small + 272)]
    # Only the application knows that it arrived.
    assert one.client.max_message_bytes == small
    one.client.confirm_message_bytes(small + 272, one.now)
    assert one.client.max_message_bytes == small + 272
    assert one.client.max_probe_bytes == 0
    one.client.deny_message_bytes(small + 272, one.now)
    assert one.client.max_message_bytes == small
    assert one.client.max_probe_bytes == small + 271
    one.client.deny_message_bytes(1, one.now)
    assert one.client.max_message_bytes == small


def test_nothing_is_looked_for_unless_told_to() -> None:
    one = rig()
    assert one.client.max_probe_bytes == 0
    with pytest.raises(ValueError, match="probe"):
        one.client.send_probe(bytes(one.client.max_message_bytes + 1))
    sent = one.client.counters.datagrams_sent
    pass_time(one, 10_000.0)
    assert one.client.counters.datagrams_sent == sent


def test_hints_of_the_kernel_are_taken_by_the_search() -> None:
    one = rig(max_mtu=9000)
    one.client.path_carries(1472, one.now)
    pass_time(one, 30.0, lambda data: len(data) <= 1472)
    assert one.client.mtu == 1472
    # What is below the base is a mistake or a lie: every path was said to carry that.
    one.client.path_carries(600, one.now)
    assert one.client.mtu == 1472
    one.client.path_carries(1300, one.now)
    assert one.client.mtu == BASE


# --- keepalive -------------------------------------------------------------------------------


@each_side
@pytest.mark.requirement("9853-2")
def test_a_peer_that_is_there_is_asked_and_answers(side: str) -> None:
    one = rig(keepalive=20.0)
    this = of(one, side)
    sent = this.counters.datagrams_sent
    pass_time(one, 19.9)
    assert this.counters.datagrams_sent == sent
    pass_time(one, 1000.0)
    assert this.state is dtls.State.CONNECTED
    assert 40 <= this.counters.datagrams_sent - sent <= 110
    assert this.counters.discards == {}
    one.echo()


@each_side
def test_data_of_the_peer_is_answer_enough(side: str) -> None:
    one = rig(keepalive=20.0)
    this = of(one, side)
    for _ in range(20):
        one.other(this).send(b"here")
        pass_time(one, one.now + 10.0)
    assert [event for event in one.client_events + one.server_events if isinstance(event, dtls.Closed)] == []
    # It answers the other's checks, one in twenty seconds, and makes none.
    assert this.counters.datagrams_sent < 15


@each_side
@pytest.mark.parametrize("tries", [1, 3, 5])
def test_a_peer_that_is_gone_is_noticed(side: str, tries: int) -> None:
    one = rig(keepalive=20.0, keepalive_tries=tries)
    this = of(one, side)
    sent = this.counters.datagrams_sent
    pass_time(one, 300.0, lambda data: False)
    assert isinstance(this.error, TimeoutError)
    assert f"{tries} checks" in str(this.error)
    assert this.counters.datagrams_sent == sent + tries
    events = one.client_events if this is one.client else one.server_events
    assert events[-1] == dtls.Closed(this.error)


def test_when_it_is_noticed() -> None:
    one = rig(keepalive=20.0, keepalive_tries=3)
    pass_time(one, 25.9, lambda data: False)
    assert one.client.error is None
    pass_time(one, 26.0, lambda data: False)
    assert one.client.error is not None


def test_a_lost_challenge_or_answer_is_no_end() -> None:
    one = rig(keepalive=20.0, keepalive_tries=8)
    chance = random.Random(7)
    pass_time(one, 2000.0, lambda data: chance.random() < 0.6)
    assert one.client.error is one.server.error is None


@each_side
def test_a_peer_that_cannot_be_asked_gets_empty_records_and_nothing_is_proved(side: str) -> None:
    one = rig(routable=False, keepalive=20.0)
    this = of(one, side)
    pass_time(one, 100.0)
    assert one.other(this).messages() == [b""] * 5
    pass_time(one, 1000.0, lambda data: False)
    assert this.error is None
    # What we send keeps the mapping as well.
    sent = this.counters.datagrams_sent
    for _ in range(10):
        this.send(b"data")
        pass_time(one, one.now + 15.0)
    assert this.counters.datagrams_sent - sent == 10


@pytest.mark.parametrize(
    ("name", "value"),
    [("keepalive", 0), ("keepalive", -1.0), ("keepalive_tries", 0), ("max_mtu", 0), ("max_mtu", 70_000)],
)
def test_upkeep_that_cannot_be(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="not"):
        dtls.Upkeep(**{name: value})  # type: ignore[arg-type]


# --- closing one way -------------------------------------------------------------------------


@each_side
@pytest.mark.requirement("9147-5.10-5", "8446-ALERT-2")
def test_one_side_closes_and_goes_on_listening(side: str) -> None:
    one = rig(keepalive=5.0, max_mtu=1472)
    this = of(one, side)
    other = one.other(this)
    this.send(b"last words")
    this.close_write(one.now)
    this.close_write(one.now)
    with pytest.raises(ConnectionClosed):
        this.send(b"more")
    with pytest.raises(ConnectionClosed):
        this.update_keys(one.now)
    one.run()
    assert other.messages() == [b"last words"]
    events = one.client_events if other is one.client else one.server_events
    assert dtls.PeerClosed() in events
    assert [this.state, other.state] == [dtls.State.CONNECTED] * 2
    # Nothing is asked any more: answers behind a close_notify would be ignored.
    pass_time(one, 500.0)
    for n in range(3):
        other.send(b"%d" % n)
        one.run()
    assert this.messages() == [b"0", b"1", b"2"]
    other.close(one.now)
    one.run()
    assert [this.state, other.state] == [dtls.State.CLOSED] * 2
    assert this.error is other.error is None
    assert one.ledger.held == 0


@each_side
@pytest.mark.requirement("9147-8-1", "9147-8-7")
def test_the_other_side_may_change_its_keys_and_ask_in_vain(side: str) -> None:
    one = rig()
    this = of(one, side)
    other = one.other(this)
    this.close_write(one.now)
    one.run()
    other.update_keys(one.now, request_peer=True)
    one.run()
    assert other.sending_epoch == 4
    assert this.sending_epoch == 3
    assert this.counters.key_requests_ignored == 1
    other.send(b"under new keys")
    one.run()
    assert this.messages() == [b"under new keys"]


@each_side
def test_close_notify_waits_for_a_flight_that_is_under_way(side: str) -> None:
    """Its repetitions would come behind it and be ignored."""
    one = rig()
    this = of(one, side)
    this.update_keys(one.now)
    one.take(this)  # lost
    this.close_write(one.now)
    assert one.take(this) == []
    pass_time(one, 10.0)
    events = one.client_events if one.other(this) is one.client else one.server_events
    assert dtls.PeerClosed() in events
    assert this.error is None
    assert this.sending_epoch == 4


def test_both_close_one_way() -> None:
    one = rig()
    one.client.close_write(one.now)
    one.server.close_write(one.now)
    one.run()
    assert one.client.state is one.server.state is dtls.State.CLOSED
    assert one.client.error is one.server.error is None


@each_side
def test_close_after_close_write_says_it_once(side: str) -> None:
    one = rig()
    this = of(one, side)
    this.close_write(one.now)
    first = one.deliver(this)
    this.close(one.now)
    assert one.take(this) == []
    assert len(first) == 1
    assert this.state is dtls.State.CLOSED


def test_during_the_handshake_there_is_nothing_to_go_on_with() -> None:
    client = dtls.Connection.client(configs.client_context().config(), now=0.0, server_name="localhost")
    client.close_write(0.0)
    assert client.state is dtls.State.CLOSED


@each_side
@pytest.mark.requirement("9147-5.10-5")
def test_after_a_close_notify_only_acks_count(side: str) -> None:
    one = rig()
    this = of(one, side)
    other = one.other(this)
    one.inject(this, ContentType.ALERT, b"\1\0")
    one.inject(this, ContentType.APPLICATION_DATA, b"late")
    one.inject(this, ContentType.ACK, b"\0\0")
    assert other.messages() == []
    assert other.counters.discards == {Discard.AFTER_CLOSE: 1}
