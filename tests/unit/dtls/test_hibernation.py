"""Idle connections sleep: whoever uses one cannot tell, and whoever forges for one changes nothing.

That it cannot be told is also what `pytest -p tests.sleepers tests/network tests/unit/dtls` shows, where
every connection sleeps between any two calls.
"""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
from collections.abc import Callable
from itertools import repeat
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.crypto.erasing import ERASES
from sealwire.dtls.epochs import LINGER_SECONDS
from sealwire.dtls.header import ContentType, RecordNumber, encode_plaintext
from sealwire.dtls.timers import Timers
from sealwire.errors import Discard, LimitReached
from sealwire.limits import Limits, Pressure
from sealwire.limits.weights import ASLEEP_BYTES, CONNECTION_BYTES
from sealwire.record.reference import DISCARDS
from sealwire.record.train import Train
from tests import configs
from tests.record_layers import LAYERS, PROVIDER, SPECS, datagram_keys
from tests.unit.dtls.host import Site
from tests.unit.dtls.rig import Rig, joined
from tests.unit.dtls.test_handover import move

HERE = ("192.0.2.1", 4444)


def asleep(side: str = "server", **options: object) -> tuple[Rig, dtls.Connection]:
    """Two connections after a word each way, one of which sleeps."""
    rig = joined(**options)  # type: ignore[arg-type]
    rig.run()
    rig.echo()
    one = getattr(rig, side)
    one.events()
    assert one.hibernate(rig.now)
    assert sleeps(one)
    return rig, one


def sleeps(one: dtls.Connection) -> bool:
    """As a function, since a type checker believes that an attribute stays as it was."""
    return one.asleep


def forged(rig: Rig, to: dtls.Connection, size: int = 60) -> bytes:
    """A record that looks like one for `to`."""
    peer = rig.other(to)
    record = bytearray(rig.record(peer, ContentType.APPLICATION_DATA, bytes(size)))
    record[-1] ^= 1
    return bytes(record)


SIDES = pytest.mark.parametrize("side", ["client", "server"])


@SIDES
def test_a_record_wakes_it_and_is_delivered(side: str) -> None:
    rig, one = asleep(side)
    rig.other(one).send_many([b"first", b"second"])
    rig.run()
    assert not sleeps(one)
    assert one.messages() == [b"first", b"second"]
    rig.echo()
    assert rig.client.counters.discards == rig.server.counters.discards == {}


@SIDES
def test_sending_wakes_it(side: str) -> None:
    rig, one = asleep(side)
    one.send(b"awake again")
    assert not sleeps(one)
    rig.run()
    assert rig.other(one).messages() == [b"awake again"]


LOOKS: list[Callable[[dtls.Connection], object]] = [
    lambda one: one.session.version,
    lambda one: one.max_message_bytes,
    lambda one: one.cids.ours,
    lambda one: one.export(b"EXPORTER-test", b"", 16),
    lambda one: one.key_usage,
    lambda one: (one.sending_epoch, one.next_sending_epoch),
    lambda one: one.early_data,
    lambda one: one.connection_ids,
    lambda one: one.newest,
    lambda one: one.counters.snapshot(),
    lambda one: (one.deadline(), one.send_queue_bytes, one.state, one.mtu, one.max_probe_bytes),
]


@SIDES
@pytest.mark.parametrize("look", LOOKS)
def test_all_there_is_to_see_is_as_before(side: str, look: Callable[[dtls.Connection], object]) -> None:
    rig = joined()
    rig.run()
    rig.echo()
    one = getattr(rig, side)
    one.events()
    before = look(one)
    assert one.hibernate(rig.now)
    assert look(one) == before


def test_looking_at_counters_events_and_messages_does_not_wake_it() -> None:
    _, one = asleep()
    assert one.counters.messages_received == 1
    assert one.events() == []
    assert one.messages() == one.lend_messages() == one.early_messages() == []
    assert one.transmit(0.0) == []
    assert (one.send_queue_bytes, one.data_waits) == (0, False)
    assert one.newest.epoch == 3
    assert sleeps(one)


@pytest.mark.requirement("9147-4.5.2-2")
@SIDES
def test_a_forged_record_wakes_nothing_and_is_counted(side: str) -> None:
    rig, one = asleep(side)
    before = one.counters.snapshot()
    record = forged(rig, one)
    assert one.receive_run([record, Train(record * 3, len(record))], rig.now) is False
    assert sleeps(one)
    after = one.counters.snapshot()
    assert after["discard.authentication"] == 4
    assert after["datagrams_received"] - before["datagrams_received"] == 4
    assert after["bytes_received"] - before["bytes_received"] == 4 * len(record)
    assert one.key_usage.forged == 4
    rig.echo()


def test_a_forged_record_allocates_nothing() -> None:
    rig, one = asleep()
    record = forged(rig, one)

    def held(times: int) -> int:
        for _ in repeat(None, times):
            one.receive(record, rig.now)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        held(300)  # what counts them is made the first time
        before = held(300)
        assert held(2000) <= before + 64
    finally:
        tracemalloc.stop()
    objects = len(gc.get_objects())
    one.receive(record, rig.now)
    assert len(gc.get_objects()) == objects
    assert sleeps(one)
    assert one.counters.discards[Discard.AUTHENTICATION] == 2601 + 2601 // 64  # and the searches


@SIDES
def test_a_replayed_record_wakes_nothing(side: str) -> None:
    rig = joined()
    rig.run()
    one = getattr(rig, side)
    rig.other(one).send(b"once")
    [record] = rig.deliver(rig.other(one))
    assert one.messages() == [b"once"]
    one.events()
    rig.run()
    assert one.hibernate(rig.now)
    one.receive(record, rig.now)
    assert sleeps(one)
    assert one.counters.discards == {Discard.REPLAY: 1}
    rig.echo()


def hostile(rig: Rig, one: dtls.Connection, draw: random.Random) -> bytes:
    """A datagram that means nothing to an established connection."""
    record = forged(rig, one, draw.randrange(40))
    shapes = [
        b"",
        bytes([draw.randrange(256)]) + draw.randbytes(draw.randrange(50)),
        record,
        record + forged(rig, one),
        record[: draw.randrange(1, len(record))],
        encode_plaintext(ContentType.ALERT, 7, bytes([2, 40])),
        encode_plaintext(ContentType.ACK, 7, bytes(2)),
        encode_plaintext(ContentType.HANDSHAKE, 7, draw.randbytes(draw.randrange(30))),
        encode_plaintext(ContentType.HANDSHAKE, 7, bytes(12)) + record,
        bytes([record[0] ^ draw.randrange(1, 4)]) + record[1:],
        encode_plaintext(ContentType.APPLICATION_DATA, 7, b"plain") + record,
    ]
    return draw.choice(shapes)


@SIDES
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_comes_is_counted_as_by_one_that_is_awake(side: str, seed: int) -> None:
    draw = random.Random(seed)
    rig, sleeper = asleep(side)
    again, awake = asleep(side)
    awake.rise()
    for _ in range(draw.randrange(1, 12)):
        state = draw.getstate()
        one = hostile(rig, sleeper, draw)
        draw.setstate(state)
        other = hostile(again, awake, draw)
        sleeper.receive(one, rig.now)
        awake.receive(other, again.now)
    # Keys differ, so noise that happens to look like a record may not; what they say of it is the same.
    assert sleeper.counters.datagrams_received == awake.counters.datagrams_received
    assert sleeper.counters.discards == awake.counters.discards
    assert sleeper.state is awake.state
    assert sleeper.key_usage.forged == awake.key_usage.forged
    rig.echo()


def test_too_many_forgeries_end_it_asleep_or_not() -> None:
    rig, one = asleep(limits=Limits(forgeries_per_key=20))
    record = forged(rig, one)
    for _ in range(17):
        one.receive(record, rig.now)
    assert sleeps(one)
    one.receive(record, rig.now)
    # RFC 9147 section 4.5.3 [9147-4.5.3-5]: new keys, in time.
    assert not sleeps(one)
    assert one.counters.rekeyed_by_forgeries == 1
    rig.run()
    rig.echo()


def test_a_sender_of_whom_too_much_was_lost_is_found_asleep() -> None:
    rig, one = asleep()
    rig.client._sealing.sealer(3).seal_run(ContentType.APPLICATION_DATA, [b""] * 70_000)
    for _ in range(200):
        rig.client.send(b"far ahead")
        rig.run()
        if not sleeps(one):
            break
    assert one.messages()[-1:] == [b"far ahead"]
    rig.echo()


@SIDES
def test_key_updates_meet_a_sleeper(side: str) -> None:
    rig, one = asleep(side)
    for asker in (rig.other(one), one):
        asker.update_keys(rig.now, request_peer=True)
        rig.run()
        rig.echo()
        rig.run()
        one.events()
        rig.skip(30.0)  # the old keys go
        assert one.hibernate(rig.now)
    assert min(rig.client.sending_epoch, rig.server.sending_epoch) >= 4
    rig.echo()


def openers(one: dtls.Connection) -> int:
    assert one._asleep is not None
    return len(one._asleep.epochs)


def opener_of_epoch_2(one: dtls.Connection) -> object:
    return one._opening.opener(2)


@pytest.mark.requirement("9147-5.8.1-4")
def test_the_handshakes_keys_stay_as_long_as_they_would() -> None:
    rig, one = asleep()
    due = one.deadline() or 0.0
    assert due == pytest.approx(LINGER_SECONDS)
    assert openers(one) == 2
    # The client's last flight again, which must still be answered by an ACK.
    assert opener_of_epoch_2(one) is not None
    assert one.hibernate(rig.now)
    rig.now = due
    one.wake(rig.now)
    assert opener_of_epoch_2(one) is None
    assert one.hibernate(rig.now)
    assert openers(one) == 1
    assert one.deadline() == pytest.approx(Limits().rekey_seconds, rel=0.1)
    rig.echo()


@pytest.mark.requirement("9147-4.2.1-1")
@SIDES
def test_old_keys_go_without_waking_it(side: str) -> None:
    rig, one = asleep(side)
    before = one._asleep
    assert before is not None
    assert openers(one) == 2
    (_, old) = before.receiving(one.config, one.limits)
    assert bytes(old.secret) in bytes(before.state)
    rig.now = one.deadline() or 0.0
    one.wake(rig.now - 0.001)
    assert openers(one) == 2
    one.wake(rig.now)
    assert one._asleep is before
    assert openers(one) == 1
    if ERASES:
        assert bytes(old.secret) not in bytes(before.state)
    # Nothing under them is looked at any more, and what comes under the others is.
    assert not before.stirred_by(b"\x2e" + bytes(40), one.config, one.limits)
    assert sleeps(one)
    rig.echo()
    assert one._opening.opener(2) is None
    assert one.hibernate(rig.now)
    rig.echo()


def test_what_is_known_of_it_is_known_asleep() -> None:
    rig, one = asleep()
    rig.other(one).send(b"wake")
    rig.run()
    one.messages()
    looks: list[Callable[[dtls.Connection], object]] = [
        lambda one: one.number,
        lambda one: one.began,
        lambda one: one.handshake_seconds,
        lambda one: one.write_closed,
        lambda one: one.newest,
        lambda one: one.counters.snapshot(),
    ]
    known = [look(one) for look in looks]
    assert one.hibernate(rig.now)
    assert [look(one) for look in looks] == known
    assert sleeps(one)
    rig.other(one).send(b"wake again")
    rig.run()
    assert (one.number, one.began, one.handshake_seconds) == tuple(known[:3])


def test_its_reserve_is_known_when_it_wakes() -> None:
    rig, one = asleep()
    one.checkpoint(bytes(32), rig.now, reserve=4096)
    until = one._sealing.reserved
    assert until is not None
    assert one.hibernate(rig.now)
    one.send(b"awake")
    assert one._sealing.reserved == until


def test_keys_are_replaced_by_age_while_it_sleeps() -> None:
    rig, one = asleep(limits=Limits(rekey_seconds=50.0))
    assert one.deadline() == pytest.approx(50.0)
    rig.skip(51.0)
    assert one.counters.rekeyed_by_age == 1
    assert one.sending_epoch == 4
    rig.echo()


@SIDES
def test_closing_says_goodbye(side: str) -> None:
    rig, one = asleep(side)
    one.close(rig.now)
    rig.run()
    assert one.state is dtls.State.CLOSED
    peer = rig.other(one)
    assert peer.error is None
    assert dtls.PeerClosed() in (rig.server_events if peer is rig.server else rig.client_events)


def test_aborting_and_giving_up_leave_nothing() -> None:
    ends: list[Callable[[dtls.Connection], object]] = [
        lambda one: one.abort(),
        lambda one: one.give_up(LimitReached("total_bytes", "a test")),
        lambda one: one.close_write(0.0),
    ]
    for end in ends:
        rig, one = asleep()
        end(one)
        one.transmit(rig.now)
        one.abort()
        assert one.held_bytes == 0


@SIDES
def test_it_is_handed_over_asleep(side: str) -> None:
    rig, one = asleep(side)
    other = move(rig, one)
    assert one.state is dtls.State.CLOSED
    rig.run()
    rig.echo()
    rig.run()
    other.events()
    rig.skip(30.0)
    # And sleeps over there, and is handed on.
    assert other.hibernate(rig.now)
    assert sleeps(other)
    move(rig, other)
    rig.run()
    rig.echo()


def test_a_checkpoint_holds_for_one_that_slept() -> None:
    rig, one = asleep()
    one.checkpoint(bytes(32), rig.now, reserve=2048)
    one.events()
    assert one.hibernate(rig.now)
    left = 0
    for n in range(3000):
        one.send(b"x")
        left = n
        if not one.transmit(rig.now):
            break
        one.hibernate(rig.now)
    assert 1000 < left < 2048
    assert [type(event) for event in one.events()] == [dtls.CheckpointDue]
    assert not one.hibernate(rig.now)


def test_numbers_are_never_used_twice() -> None:
    rig, one = asleep()
    used: set[int] = set()
    for n in range(40):
        one.send(b"x")
        numbers = [record.sequence for record in _numbers(rig, one)]
        assert not used & set(numbers)
        used.update(numbers)
        if n % 2:
            assert one.hibernate(rig.now)


def _numbers(rig: Rig, one: dtls.Connection) -> list[RecordNumber]:
    peer = rig.other(one)
    numbers = []
    for datagram in one.transmit(rig.now):
        peer.receive(datagram, rig.now)
        numbers.append(peer.newest)
    return numbers


def test_it_does_not_sleep_while_something_waits() -> None:
    rig = joined()
    rig.run()
    one = rig.server
    assert one.hibernate(rig.now)
    rig.client.send(b"unread")
    rig.run()
    assert not one.hibernate(rig.now)
    assert one.messages() == [b"unread"]
    one.send(b"unsent")
    assert not one.hibernate(rig.now)
    rig.run()
    one.update_keys(rig.now)
    rig.take(one)
    assert not one.hibernate(rig.now)  # not acknowledged
    rig.client.close(rig.now)
    rig.run()
    assert not one.hibernate(rig.now)


def test_the_ledger_is_told_and_may_refuse() -> None:
    limits = Limits(
        total_bytes=4 * CONNECTION_BYTES, connection_bytes=2 * CONNECTION_BYTES, rekey_seconds=300.0
    )
    rig = joined(limits=limits)
    rig.run()
    one = rig.server
    rig.echo()
    one.messages()
    one.events()
    before = rig.ledger.held
    one.hibernate(rig.now)
    assert rig.ledger.held == before - CONNECTION_BYTES + ASLEEP_BYTES
    assert one.held_bytes == ASLEEP_BYTES
    from sealwire.limits import Budget

    others = Budget(rig.ledger).reserve(rig.ledger.limit - rig.ledger.held - 100)
    with pytest.raises(LimitReached):
        one.send(b"no room")
    rig.client.send(b"no room")
    rig.run()
    assert sleeps(one)
    assert one.counters.discards == {Discard.OVER_BUDGET: 1}
    # Old keys go without waking it, so that asks for nothing; new ones must wait.
    rig.now = one.deadline() or 0.0
    one.wake(rig.now)
    assert sleeps(one)
    assert openers(one) == 1
    due = one.deadline() or 0.0
    assert due > rig.now
    rig.now = due
    one.wake(due)
    assert sleeps(one)
    assert (one.deadline() or 0.0) > due
    others.release()
    one.send(b"room")
    rig.run()
    assert rig.client.messages() == [b"room"]
    assert one.held_bytes == CONNECTION_BYTES


# --- an endpoint puts them to sleep ---------------------------------------------------------------


def idle_site(**limits: object) -> Site:
    site = Site(limits=Limits(**limits), upkeep=dtls.Upkeep(spare_cids=0))  # type: ignore[arg-type]
    return site


def test_an_endpoint_puts_idle_peers_to_sleep_and_finds_them() -> None:
    site = idle_site(idle_seconds=20.0)
    client, server = site.connect()
    site.skip(18.0)
    assert not sleeps(server)
    site.skip(6.0)
    assert sleeps(server)
    assert site.endpoint.asleep == 1
    assert site.endpoint.counters.connections_hibernated >= 1
    assert site.endpoint.ledger.reached["idle_seconds"] >= 1
    # A stranger's noise does nothing, in its name or not.
    site.endpoint.receive([(b"\x2f" + bytes(40), HERE)], site.now)
    client.send(b"good morning")
    site.run()
    assert server.messages() == [b"good morning"]
    assert not sleeps(server)
    assert site.endpoint.asleep == 0
    assert site.endpoint.counters.connections_woken >= 1
    # And so for ever.
    site.skip(30.0)
    assert sleeps(server)
    server.send(b"from here")
    site.run()
    assert client.messages() == [b"from here"]


def test_who_is_only_sent_to_does_not_sleep() -> None:
    site = idle_site(idle_seconds=5.0)
    _, server = site.connect()
    for _ in range(12):
        site.skip(2.0)
        server.send(b"tick")
        site.run()
        assert not sleeps(server)
    site.skip(10.0)
    assert sleeps(server)


def test_a_peer_at_a_new_address_wakes_its_connection_by_its_id() -> None:
    client_context = configs.client_context()
    site = Site(limits=Limits(idle_seconds=5.0), client=client_context.config())
    site.clients[HERE] = dtls.Connection.client(
        site.client_config, now=0.0, server_name="localhost", connection_id=b""
    )
    site.run()
    client, server = site.clients[HERE], site.served(HERE)
    site.skip(20.0)
    assert sleeps(server)
    there = ("198.51.100.9", 9)
    assert server._asleep is not None
    site.endpoint.receive([(b"\x3f" + server._asleep.cids[0] + bytes(40), there)], site.now)
    assert sleeps(server)
    client.send(b"moved")
    [datagram] = client.transmit(site.now)
    site.endpoint.receive([(datagram, there)], site.now)
    assert server.messages() == [b"moved"]


def test_memory_that_runs_short_puts_peers_to_sleep_before_it_closes_any() -> None:
    site = Site(limits=Limits(total_bytes=10 * CONNECTION_BYTES, connection_bytes=CONNECTION_BYTES * 8))
    peers = [("192.0.2.1", 1000 + n) for n in range(6)]
    for at in peers:
        site.connect(at)
    site.now += 10.0
    for _ in range(70):
        site.clients[peers[0]].send(bytes(1000))
    site.up()
    endpoint = site.endpoint
    assert endpoint.counters.connections_shed == 0
    assert sum(map(sleeps, endpoint)) == 5
    assert endpoint.ledger.level < Pressure.CRITICAL


def test_a_first_hello_is_known_for_as_long_as_its_cookie() -> None:
    site = idle_site(idle_seconds=5.0, cookie_seconds=60.0)
    client = site.add(HERE)
    first = site.up() + site.down()
    hello = site.up()
    site.run()
    assert first
    assert client.state is dtls.State.CONNECTED
    site.skip(20.0)
    server = site.served(HERE)
    assert sleeps(server)
    site.endpoint.receive(hello, site.now)
    assert site.endpoint.connections == 1
    site.skip(300.0)
    assert all(len(known) == 0 or n for known, n in site.endpoint._peers.hellos.items())
    client.send(b"still here")
    site.run()
    assert server.messages() == [b"still here"]


def test_hellos_are_forgotten_once_their_cookies_are_old() -> None:
    site = idle_site(idle_seconds=float("inf"), cookie_seconds=60.0)
    client, server = site.connect()
    peers = site.endpoint._peers
    assert len(peers.hellos) == 1
    site.skip(59.0)
    assert len(peers.hellos) == 1
    site.skip(3.0)
    assert peers.hellos == {}
    assert list(site.endpoint) == [server]
    client.send(b"still here")
    site.run()
    assert server.messages() == [b"still here"]


def test_far_times_are_met_among_near_ones() -> None:
    timers = Timers()
    chance = random.Random(7)
    ones = [cast("dtls.Connection", object()) for _ in range(400)]
    timers.take_due(5.0)
    due: dict[dtls.Connection, float] = {}
    for n in range(4_000):
        one = chance.choice(ones)
        later = chance.choice((0.5, 30.0, 99.0, 101.0, 240.0, 3600.0))
        at = None if chance.random() < 0.1 else timers.now + later
        timers.set(one, at)
        due.pop(one, None)
        if at is not None:
            due[one] = at
        assert timers.next is None or timers.next <= min(due.values(), default=1e9)
        if n % 3 == 0:
            now = timers.now + chance.choice((0.0, 0.1, 7.0))
            expected = sorted(at for at in due.values() if at <= now)
            taken = timers.take_due(now)
            assert [due.pop(one) for one in taken] == expected
    while due:
        following = timers.next
        assert following is not None
        for one in timers.take_due(following):
            assert due.pop(one) == following
    assert (timers.next, len(timers)) == (None, 0)


def test_totals_count_sleepers_without_waking_them() -> None:
    site = idle_site(idle_seconds=5.0)
    client, server = site.connect()
    client.send(b"one")
    site.run()
    server.messages()
    site.skip(20.0)
    assert sleeps(server)
    assert site.endpoint.totals().messages_received == 1
    assert sleeps(server)
    site.endpoint.close(site.now)
    site.run()
    assert site.endpoint.connections == 0
    assert site.endpoint.totals().messages_received == 1


# --- what it is tried with ------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_trying_a_record_changes_nothing(layer, spec) -> None:  # type: ignore[no-untyped-def]
    keys = datagram_keys(spec)
    sealer = layer.sealer(PROVIDER, spec, keys, 3, b"id")
    opener = layer.opener(PROVIDER, spec, keys, 3, b"id")
    records = sealer.seal_run(23, [bytes([n % 256]) * n for n in range(1, 300)])
    for n in (0, 5, 298):
        bad = records[n][:-1] + bytes([records[n][-1] ^ 1])
        for _ in range(2):
            assert opener.would_open(records[n] + b"behind", 0) == (0, len(records[n]))
            assert DISCARDS[opener.would_open(bad, 0)[0]] is Discard.AUTHENTICATION
        opener.open_run([records[n]], 0, 0)
        assert DISCARDS[opener.would_open(records[n], 0)[0]] is Discard.REPLAY
    assert (opener.opened, opener.forged, opener.highest) == (3, 0, 298)
    assert DISCARDS[opener.would_open(records[7], 0)[0]] is Discard.TOO_OLD
    assert DISCARDS[opener.would_open(b"\x2f", 0)[0]] is Discard.UNKNOWN_CID
    assert DISCARDS[opener.would_open(b"\x3fid\0", 0)[0]] is Discard.TRUNCATED_HEADER
    assert DISCARDS[opener.would_open(b"\x3fno\0\0\0\x20" + bytes(32), 0)[0]] is Discard.UNKNOWN_CID
    # An empty record is nobody's noise: it is authentic.
    assert opener.would_open(sealer.seal(23, b"", 16), 0)[0] == 0


@pytest.mark.skipif(len(LAYERS) == 1, reason="the compiled record layer is not in use")
@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=80), at=st.integers(0, 90), flip=st.integers(0, 60), ahead=st.integers(0, 3))
def test_both_layers_try_alike(data: bytes, at: int, flip: int, ahead: int) -> None:
    spec = SPECS[0]
    keys = datagram_keys(spec)
    sealer = LAYERS[0].sealer(PROVIDER, spec, keys, 3, sequence=70)
    record = bytearray(sealer.seal(23, b"content"))
    if flip < len(record):
        record[flip] ^= 0x10
    datagram = data[:at] + bytes(record) + data[at:]
    answers: list[tuple[int, tuple[int, int]]] = []
    for layer in LAYERS:
        opener = layer.opener(PROVIDER, spec, keys, 3)
        opener.ahead = ahead << 16
        answers += [(offset, opener.would_open(datagram, offset)) for offset in range(len(datagram))]
    half = len(answers) // 2
    assert answers[:half] == answers[half:]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="sizes are CPython's")
def test_what_is_left_is_small() -> None:
    _, one = asleep()
    left = one._asleep
    assert left is not None
    size = sys.getsizeof(one) + sys.getsizeof(left) + sys.getsizeof(left.state)
    assert size < ASLEEP_BYTES / 2
