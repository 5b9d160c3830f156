"""KeyUpdate over a network that loses: who uses which epoch when, and how long old keys stay."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers import default_provider
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.dtls.epochs import LINGER_SECONDS, Opening, Sealing
from sealwire.dtls.header import ContentType, RecordNumber, encode_ack, fragment_header
from sealwire.errors import Alert, ConnectionClosed, Discard, Error, KeysExhausted, ProtocolError
from sealwire.limits import Limits
from sealwire.tls13.contract import Direction, InstallKeys
from sealwire.tls13.messages import HandshakeType
from tests import configs
from tests.unit.dtls.rig import Rig, Tap, joined
from tests.unit.dtls.test_rogue_records import each_side, of

SPEC = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]
GRACE_SECONDS = 20.0


def epochs(rig: Rig, one: dtls.Connection) -> tuple[int, int]:
    """Sending and receiving epoch."""
    return one._sealing.epoch, one._opening.epoch


# --- the keys themselves ----------------------------------------------------------------------


def install(epoch: int, direction: Direction = Direction.RECEIVE) -> InstallKeys:
    return InstallKeys(direction, epoch, SPEC, Secret(bytes((epoch % 256,)) * 32))


@pytest.mark.requirement("9147-4.2.2-3", "9147-4.2.1-2")
def test_at_most_four_receiving_epochs_and_no_two_with_equal_low_bits() -> None:
    opening = Opening(default_provider(), 64)
    for epoch in range(2, 40):
        opening.install(install(epoch))
        live = [opening.opener(low) for low in range(4)]
        found = sorted(one.epoch for one in live if one is not None)
        assert found == list(range(max(epoch - 3, 2), epoch + 1))
        assert opening.opener(epoch & 3) is live[epoch & 3]


@pytest.mark.requirement("9147-8-6")
@pytest.mark.parametrize("epoch", [0xFFFF, 0x10000, 2**32, 2**48 - 1, 2**48])
def test_a_peer_may_go_through_as_many_epochs_as_it_likes(epoch: int) -> None:
    """The limit is a sender's own; a receiver does not enforce it."""
    opening = Opening(default_provider(), 64)
    opening.install(install(epoch))
    found = opening.opener(epoch & 3)
    assert found is not None
    assert found.epoch == epoch == opening.epoch


@pytest.mark.requirement("9147-5.8.1-4", "9147-4.2.1-1")
def test_the_handshake_epoch_lingers() -> None:
    opening = Opening(default_provider(), 64)
    opening.install(install(2))
    opening.install(install(3))
    opening.linger(10.0)
    assert opening.deadline == 10.0 + LINGER_SECONDS == 250.0
    opening.expire(249.9)
    assert opening.opener(2) is not None
    opening.expire(250.0)
    assert [opening.opener(low) is not None for low in range(4)] == [False, False, False, True]
    opening.expire(1e9)
    assert opening.opener(3) is not None


@pytest.mark.requirement("9147-8-4", "9147-4.2.1-2", "9147-4.2.1-1")
def test_an_old_epoch_goes_some_seconds_after_the_first_record_of_the_new_one() -> None:
    """Decision A6."""
    opening = Opening(default_provider(), 64)
    opening.install(install(3))
    opening.install(install(4))
    # However long the peer takes to move on, the old keys stay.
    opening.expire(1e9)
    assert opening.opener(3) is not None
    opening.opened(3, 90.0)
    opening.opened(4, 100.0)
    opening.opened(4, 110.0)
    assert opening.deadline == 100.0 + GRACE_SECONDS
    assert GRACE_SECONDS < 120.0
    opening.expire(120.0)
    assert opening.opener(3) is None
    assert opening.opener(0) is not None


@pytest.mark.requirement("9147-4.2.2-3")
def test_a_replaced_epoch_takes_its_expiry_with_it() -> None:
    opening = Opening(default_provider(), 64)
    for epoch in (2, 3):
        opening.install(install(epoch))
    opening.linger(0.0)
    for epoch in (4, 5, 6):
        opening.install(install(epoch))
    opening.expire(LINGER_SECONDS)
    found = opening.opener(2)
    assert found is not None
    assert found.epoch == 6


@pytest.mark.requirement("9147-4.2.1-7", "9147-6.1-3", "9147-8-5")
def test_sending_epochs_end_and_do_not_wrap() -> None:
    sealing = Sealing(default_provider(), 0)
    sealing.install(install(0xFFFF, Direction.SEND), b"")
    with pytest.raises(ProtocolError) as caught:
        sealing.install(install(0x10000, Direction.SEND), b"")
    assert caught.value.alert is Alert.INTERNAL_ERROR
    assert sealing.epoch == 0xFFFF


@pytest.mark.requirement("9147-4.2.1-5")
def test_sending_keys_stay_as_long_as_something_needs_them() -> None:
    sealing = Sealing(default_provider(), 0)
    for epoch in (2, 3, 4):
        sealing.install(install(epoch, Direction.SEND), b"")
    sealing.forget_before(4, {2})
    assert [epoch in sealing for epoch in (2, 3, 4)] == [True, False, True]
    sealing.forget_before(4, set())
    assert [epoch in sealing for epoch in (2, 3, 4)] == [False, False, True]


# --- updates ------------------------------------------------------------------------------------


@each_side
@pytest.mark.requirement("9147-8-1", "9147-8-2", "9147-5.2-2")
def test_new_keys_wait_for_the_acknowledgement(tap: Tap, side: str) -> None:
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    one.update_keys(0.0)
    update = rig.deliver(one)
    [seen] = tap.read(update)
    assert (seen.epoch, seen.content_type, seen.content[0]) == (3, ContentType.HANDSHAKE, 24)
    assert epochs(rig, other) == (3, 4)
    # The acknowledgement is on its way: data stays in the old epoch, and opens.
    ack = rig.take(other)
    assert tap.acks(ack) == [(3, [seen.number])]
    one.send(b"old keys")
    assert [record.epoch for record in tap.read(rig.deliver(one))] == [3]
    assert other.messages() == [b"old keys"]
    assert epochs(rig, one) == (3, 3)
    one.receive_run(ack, 0.0)
    assert epochs(rig, one) == (4, 3)
    one.send(b"new keys")
    assert [record.epoch for record in tap.read(rig.deliver(one))] == [4]
    assert other.messages() == [b"new keys"]
    rig.echo()


@each_side
@pytest.mark.requirement("9147-8-4", "9147-8-1", "9147-4.2.1-5", "9147-7-5")
def test_a_lost_acknowledgement(tap: Tap, side: str) -> None:
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    one.update_keys(0.0)
    rig.deliver(one)
    for n in range(4):
        rig.take(other)
        rig.wake()
        again = rig.deliver(one)
        assert [(seen.epoch, seen.content[0]) for seen in tap.read(again)] == [(3, 24)], n
    rig.deliver(other)
    assert epochs(rig, one) == (4, 3)
    assert epochs(rig, other) == (3, 4)
    # A repetition that comes after the switch is acknowledged still.
    late = rig.record(one, ContentType.HANDSHAKE, tap.read(again)[0].content, epoch=4)
    other.receive(late, rig.now)
    assert len(tap.acks(rig.take(other))) == 1
    rig.echo()


@each_side
@pytest.mark.requirement("9147-5.8.4-3", "9147-8-2")
def test_one_update_at_a_time(tap: Tap, side: str) -> None:
    rig = joined()
    one = of(rig, side)
    for _ in range(5):
        one.update_keys(0.0)
    sent = tap.read(rig.deliver(one))
    assert [seen.content[0] for seen in sent] == [24]
    rig.run()
    # What was asked meanwhile is one more, under the new keys.
    assert epochs(rig, one) == (5, 3)
    rig.echo()


@pytest.mark.requirement("9147-8-1", "9147-8-2")
def test_a_requested_update_is_answered_by_one_of_its_own(tap: Tap) -> None:
    """Decision A16."""
    rig = joined()
    rig.client.update_keys(0.0, request_peer=True)
    rig.run()
    assert epochs(rig, rig.client) == epochs(rig, rig.server) == (4, 4)
    rig.echo()


@pytest.mark.requirement("9147-8-2", "9147-5.8.4-4")
@pytest.mark.parametrize("request_peer", [False, True])
def test_updates_that_cross(tap: Tap, request_peer: bool) -> None:
    """Decision A16: both at once, each asking the other or not, each ACK in the epoch it was in."""
    rig = joined()
    for one in (rig.client, rig.server):
        one.update_keys(0.0, request_peer=request_peer)
    to_server, to_client = rig.take(rig.client), rig.take(rig.server)
    rig.server.receive_run(to_server, 0.0)
    rig.client.receive_run(to_client, 0.0)
    rig.run()
    expected = 5 if request_peer else 4
    assert epochs(rig, rig.client) == epochs(rig, rig.server) == (expected, expected)
    rig.echo()


@pytest.mark.requirement("9147-7.2-6")
def test_an_ack_may_name_an_epoch_above_its_own_after_the_handshake(tap: Tap) -> None:
    """Decision A3: only one direction moved on, so its ACKs come in a lower epoch than they name."""
    rig = joined()
    for _ in range(3):
        rig.client.update_keys(rig.now)
        rig.run()
    assert epochs(rig, rig.client) == (6, 3)
    rig.client.update_keys(rig.now)
    sent = rig.deliver(rig.client)
    assert tap.acks(rig.deliver(rig.server)) == [(3, [tap.read(sent)[0].number])]
    assert epochs(rig, rig.client) == (7, 3)
    rig.echo()


@pytest.mark.requirement("9147-8-1", "9147-7-5", "9147-5.8.4-4")
def test_updates_that_cross_and_both_acknowledgements_are_lost() -> None:
    rig = joined()
    for one in (rig.client, rig.server):
        one.update_keys(0.0)
    to_server, to_client = rig.take(rig.client), rig.take(rig.server)
    rig.server.receive_run(to_server, 0.0)
    rig.client.receive_run(to_client, 0.0)
    assert [len(rig.take(one)) for one in (rig.client, rig.server)] == [1, 1]
    rig.wake()
    rig.run()
    assert epochs(rig, rig.client) == epochs(rig, rig.server) == (4, 4)
    assert rig.now < 1.1


@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.4]))
@pytest.mark.requirement("9147-8-2", "9147-8-4", "9147-5.8.4-4")
def test_three_updates_in_a_row_on_both_sides_under_loss(seed: int, loss: float) -> None:
    # At such loss a peer can be silent for long, which is not what this is about.
    rig = joined(limits=Limits(retransmissions=60))
    chance = random.Random(seed)
    left = {id(rig.client): 3, id(rig.server): 3}

    def exchange() -> bool:
        moved = False
        for sender in (rig.client, rig.server):
            moved |= bool(rig.deliver(sender, drop=lambda n: chance.random() < loss))
        return moved

    for _ in range(600):
        for one in (rig.client, rig.server):
            if left[id(one)] and not one._layer.engine.updating_keys and chance.random() < 0.7:
                left[id(one)] -= 1
                one.update_keys(rig.now, request_peer=chance.random() < 0.5)
            one.send(b"data")
        while exchange():
            pass
        if not any(left.values()) and not any(
            one._layer._flight.outstanding for one in (rig.client, rig.server)
        ):
            break
        if rig.client.deadline() is rig.server.deadline() is None:
            rig.now += 1
        else:
            rig.wake()
    else:
        raise AssertionError("the two never agree")
    rig.run()
    rig.client.messages(), rig.server.messages()
    assert rig.client._sealing.epoch == rig.server._opening.epoch >= 6
    assert rig.server._sealing.epoch == rig.client._opening.epoch >= 6
    rig.echo()


@pytest.mark.requirement("9147-8-1", "9147-8-2", "9147-8-4")
@pytest.mark.parametrize("seed", range(12))
def test_seven_key_updates_under_ten_percent_loss(seed: int) -> None:
    """Seven on each side, so that epoch bits wrap, with data all the time; what arrives, arrives whole."""
    rig = joined()
    chance = random.Random(seed)
    sent: dict[bytes, None] = {}
    for n in range(4000):
        for one in (rig.client, rig.server):
            if one.next_sending_epoch == one.sending_epoch < 10:
                one.update_keys(rig.now, request_peer=False)
            message = b"%d of the %s" % (n, b"client" if one is rig.client else b"server")
            sent[message] = None
            one.send(message)
        for _ in range(3):
            for one in (rig.client, rig.server):
                rig.deliver(one, drop=lambda n: chance.random() < 0.1)
        if n >= 100 and rig.client.sending_epoch == rig.server.sending_epoch == 10:
            break
        rig.now += 0.05
        for one in (rig.client, rig.server):
            due = one.deadline()
            if due is not None and due <= rig.now:
                one.wake(rig.now)
    rig.run()
    assert rig.client.sending_epoch == rig.server.sending_epoch == 10
    arrived = rig.client.messages() + rig.server.messages()
    assert set(arrived) <= set(sent)
    assert len(arrived) == len(set(arrived)) >= 0.8 * len(sent)
    rig.echo()


@each_side
@pytest.mark.requirement("9147-5.8.1-3", "9147-8-4")
def test_a_lost_final_ack_and_a_lost_key_update_ack_are_no_deadlock(side: str) -> None:
    rig = joined(handshake=False)
    one = of(rig, side)
    other = rig.other(one)
    # The server's ACK of the client's Finished is lost; either side updates its keys at once.
    rig.deliver(rig.client)
    rig.deliver(rig.server)
    rig.deliver(rig.client)
    assert rig.server.state is rig.client.state is dtls.State.CONNECTED
    assert len(rig.take(rig.server)) == 1
    one.update_keys(rig.now)
    rig.deliver(one)
    # And so is the ACK of that KeyUpdate.
    rig.take(other)
    rig.run_until(lambda: one.sending_epoch == 4, until=10.0)
    rig.run_until(lambda: not rig.client._layer._flight.outstanding, until=20.0)
    assert rig.other(one)._opening.epoch == 4
    rig.echo()


@each_side
@pytest.mark.requirement("9147-8-3", "9147-4.2.1-1", "9147-4.2.1-2", "9147-4.2.2-3")
def test_old_records_open_for_a_while_after_an_update(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    late = [rig.record(one, ContentType.APPLICATION_DATA, b"%d" % n) for n in range(3)]
    one.update_keys(0.0)
    rig.run()
    other.receive(late[0], 0.0)
    one.send(b"new")
    rig.run()
    rig.now = GRACE_SECONDS - 1
    other.wake(rig.now)
    other.receive(late[1], rig.now)
    assert other.messages() == [b"0", b"new", b"1"]
    rig.now = GRACE_SECONDS
    other.wake(rig.now)
    other.receive(late[2], rig.now)
    assert other.messages() == []
    assert other.counters.discards == {Discard.UNKNOWN_EPOCH: 1}


@each_side
@pytest.mark.requirement("9147-4.5.1-3", "9147-4.5.1-2")
def test_no_record_is_delivered_again_after_an_update(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    records: list[bytes] = []
    for _ in range(6):
        records.append(rig.record(one, ContentType.APPLICATION_DATA, b"%d" % len(records)))
        other.receive(records[-1], rig.now)
        one.update_keys(rig.now)
        rig.run()
    assert other.messages() == [b"0", b"1", b"2", b"3", b"4", b"5"]
    for record in records * 2:
        other.receive(record, rig.now)
    assert other.messages() == []
    rig.echo()


@each_side
@pytest.mark.requirement("9147-8-8", "8446-ALERT-3")
def test_a_message_behind_a_key_update_in_its_epoch(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    update = rig.message(one, HandshakeType.KEY_UPDATE, b"\0")
    behind = rig.message(one, HandshakeType.KEY_UPDATE, b"\0", ahead=1)
    other.receive_run(
        [
            rig.record(one, ContentType.HANDSHAKE, update),
            rig.record(one, ContentType.HANDSHAKE, behind),
        ],
        0.0,
    )
    assert isinstance(other.error, ProtocolError)
    assert other.error.alert is Alert.UNEXPECTED_MESSAGE


@each_side
@pytest.mark.requirement("9147-8-8", "8446-ALERT-3")
def test_a_message_that_waits_behind_a_key_update_in_its_epoch(side: str) -> None:
    """The same, but the later one came first and is only half there."""
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    seq = other._layer.reassembly.next_seq
    rig.inject(one, ContentType.HANDSHAKE, fragment_header(4, 40, seq + 1, 0, 20) + bytes(20))
    rig.inject(one, ContentType.HANDSHAKE, rig.message(one, HandshakeType.KEY_UPDATE, b"\0"))
    assert isinstance(other.error, ProtocolError)
    assert other.error.alert is Alert.UNEXPECTED_MESSAGE


@each_side
@pytest.mark.requirement("8446-POST-3")
def test_a_flood_of_updates_ends_and_data_between_them_is_no_flood(side: str) -> None:
    rig = joined(limits=Limits(key_updates_in_a_row=5))
    one = of(rig, side)
    for _ in range(12):
        one.update_keys(0.0)
        rig.run()
        one.send(b"data")
        rig.run()
    for _ in range(5):
        one.update_keys(0.0)
        rig.run()
    assert rig.other(one).state is dtls.State.CONNECTED
    one.update_keys(0.0)
    rig.deliver(one)
    rig.refuses(rig.other(one), Alert.UNEXPECTED_MESSAGE)


def at_message(rig: Rig, one: dtls.Connection, seq: int) -> None:
    """`one` has sent so many handshake messages."""
    one._layer._flight.next_seq = one._layer._flight._cursor_seq = seq
    rig.other(one)._layer.reassembly.next_seq = seq


@each_side
@pytest.mark.requirement("9147-5.2-5", "9147-4.2.1-7")
def test_message_numbers_end_long_before_they_wrap(side: str) -> None:
    limits = Limits()
    rig = joined()
    one = of(rig, side)
    at_message(rig, one, limits.handshake_messages - 2)
    for _ in range(2):
        one.update_keys(0.0)
        rig.run()
    assert epochs(rig, one)[0] == 5
    with pytest.raises(KeysExhausted):
        one.update_keys(0.0)
    # Nothing was sent, and the connection goes on under the keys it has.
    assert rig.take(one) == []
    rig.echo()
    assert limits.handshake_messages < limits.epochs + 1 < 0xFFFF


@each_side
@pytest.mark.requirement("9147-5.2-5")
def test_message_numbers_do_not_wrap_if_an_owner_lets_it_come_to_that(side: str) -> None:
    rig = joined(limits=Limits(handshake_messages=0xFFFF))
    one = of(rig, side)
    at_message(rig, one, 0xFFFF)
    with pytest.raises(KeysExhausted):
        one.update_keys(0.0)
    # The one number left is for messages that are no KeyUpdates, and behind it nothing comes.
    one._layer._flight.next_seq = 0x10000
    with pytest.raises(ProtocolError) as caught:
        one._layer._check_message_numbers()
    assert caught.value.alert is Alert.INTERNAL_ERROR


@each_side
@pytest.mark.requirement("9147-8-7")
@pytest.mark.parametrize("limit", ["epochs", "handshake_messages"])
def test_a_request_is_ignored_where_the_answer_would_pass_a_limit(side: str, limit: str) -> None:
    rig = joined(limits=Limits(epochs=4) if limit == "epochs" else Limits())
    one = of(rig, side)
    other = rig.other(one)
    if limit == "epochs":
        one.update_keys(0.0)
        rig.run()
    else:
        at_message(rig, one, Limits().handshake_messages)
    before = epochs(rig, one)[0]
    other.update_keys(0.0, request_peer=True)
    rig.run()
    assert epochs(rig, one) == (before, 4)
    assert one.counters.key_requests_ignored == 1
    assert other.counters.key_requests_ignored == 0
    rig.echo()


@each_side
@pytest.mark.requirement("9147-8-7", "9147-8-2")
def test_an_update_that_would_follow_another_does_not_pass_the_limit(side: str) -> None:
    rig = joined(limits=Limits(epochs=5))
    one = of(rig, side)
    for expected in (4, 5):
        one.update_keys(0.0)
        assert one.next_sending_epoch == expected
    with pytest.raises(KeysExhausted):
        one.update_keys(0.0)
    rig.run()
    assert one.sending_epoch == one.next_sending_epoch == 5
    rig.echo()


@each_side
@pytest.mark.requirement("9147-4.2.1-7")
@pytest.mark.parametrize("why", ["use", "age"])
def test_without_new_keys_a_connection_is_closed_in_order(side: str, why: str) -> None:
    """Not with an alert of error: nobody did anything wrong."""
    limits = Limits(epochs=3, records_per_key=50) if why == "use" else Limits(epochs=3, rekey_seconds=100.0)
    rig = joined(limits=limits)
    one = of(rig, side)
    other = rig.other(one)
    sent = 0
    while one.state is dtls.State.CONNECTED and sent < 100:
        one.send(b"%d" % sent)
        sent += 1
        rig.run()
        if why == "age":
            rig.now += 30.0
            one.wake(rig.now)
    rig.run()
    assert isinstance(one.error, KeysExhausted)
    assert one.state is dtls.State.CLOSED
    assert other.state is dtls.State.CONNECTED
    assert other.messages() == [b"%d" % n for n in range(sent)]
    events = rig.client_events if other is rig.client else rig.server_events
    assert events[-1] == dtls.PeerClosed()
    with pytest.raises(KeysExhausted):
        one.send(b"more")


# --- age --------------------------------------------------------------------------------------


@each_side
@pytest.mark.requirement("9147-4.5.3-2")
def test_keys_that_are_old_are_replaced(side: str) -> None:
    rig = joined(limits=Limits(rekey_seconds=100.0))
    one = of(rig, side)
    assert one.deadline() == LINGER_SECONDS
    one.send(b"data")
    rig.run()
    assert one.deadline() == 100.0
    rig.now = 99.9
    one.wake(rig.now)
    assert rig.take(one) == []
    rig.now = 100.0
    one.wake(rig.now)
    rig.run()
    assert epochs(rig, one) == (4, 3)
    assert one.counters.rekeyed_by_age == 1
    # The new ones count from now on, and only once they are used.
    assert one.deadline() == LINGER_SECONDS
    one.send(b"data")
    rig.run()
    assert one.deadline() == 200.0
    rig.echo()


@each_side
def test_keys_nobody_used_stay(side: str) -> None:
    rig = joined(limits=Limits(rekey_seconds=100.0))
    one = of(rig, side)
    other = rig.other(one)
    # What the peer sends, and what acknowledges it, is no use of ours.
    other.send(b"data")
    other.update_keys(rig.now)
    rig.run()
    rig.skip(1000.0)
    assert one.counters.rekeyed_by_age == 0
    assert other.counters.rekeyed_by_age == 0
    assert epochs(rig, one) == (3, 4)


@each_side
@pytest.mark.requirement("9147-4.5.3-5")
def test_a_peer_that_never_replaces_its_keys_is_asked_to(side: str) -> None:
    rig = joined(limits=Limits(rekey_seconds=100.0))
    one = of(rig, side)
    for _ in range(40):
        one.send(b"data")
        rig.skip(10.0)
    # Its own are as old, but it does not use them.
    assert one.counters.rekeyed_by_age >= 3
    assert rig.other(one).sending_epoch >= 4
    assert rig.other(one).counters.rekeyed_by_age == 0
    rig.echo()


def test_keys_of_both_sides_are_replaced_without_asking_each_other() -> None:
    rig = joined(limits=Limits(rekey_seconds=100.0))
    for _ in range(40):
        rig.client.send(b"data")
        rig.server.send(b"data")
        rig.skip(10.0)
    assert rig.client.counters.rekeyed_by_age == rig.server.counters.rekeyed_by_age == 4
    assert epochs(rig, rig.client) == (7, 7)
    rig.echo()


# --- what can be seen -----------------------------------------------------------------------


@each_side
@pytest.mark.requirement("9147-4.5.3-3")
def test_what_keys_have_done_can_be_seen(side: str) -> None:
    rig = joined(handshake=False)
    one = of(rig, side)
    with pytest.raises(Error, match="not complete"):
        _ = one.key_usage
    rig.run()
    start = one.key_usage
    assert (start.sending_epoch, start.receiving_epoch, start.forged) == (3, 3, 0)
    suite = one.session.suite
    assert (start.seal_limit, start.forgery_limit) == (suite.seal_limit, suite.forgery_limit)
    rig.echo()
    one.receive(b"\x2f\0\0\0\x20" + bytes(32), rig.now)
    now = one.key_usage
    assert (now.sealed, now.opened, now.forged) == (start.sealed + 1, start.opened + 1, 1)
    one.update_keys(rig.now)
    assert (one.sending_epoch, one.next_sending_epoch) == (3, 4)
    rig.run()
    assert one.key_usage.sending_epoch == one.sending_epoch == one.next_sending_epoch == 4
    assert one.key_usage.sealed == 0
    rig.other(one).close(rig.now)
    one.close(rig.now)
    rig.run()
    with pytest.raises(ConnectionClosed):
        _ = one.key_usage


@each_side
@pytest.mark.requirement("9147-5.8.1-2", "9147-5.8.2-1")
def test_a_peer_that_never_acknowledges_an_update(side: str) -> None:
    rig = joined(limits=Limits(retransmissions=4))
    one = of(rig, side)
    one.update_keys(0.0)
    while one.state is dtls.State.CONNECTED:
        rig.take(one)
        due = one.deadline()
        assert due is not None
        rig.now = due
        one.wake(due)
    assert isinstance(one.error, TimeoutError)
    assert rig.take(one) == []


# --- the limits of a key ----------------------------------------------------------------------


@each_side
@pytest.mark.requirement("9147-4.5.3-1", "9147-4.5.3-2")
def test_new_keys_come_before_the_sealing_limit(side: str) -> None:
    rig = joined(limits=Limits(records_per_key=50))
    one = of(rig, side)
    for n in range(200):
        one.send(b"%d" % n)
        rig.run()
        assert one.key_usage.sealed <= one.key_usage.seal_limit == 50
    assert rig.other(one).messages() == [b"%d" % n for n in range(200)]
    assert one.sending_epoch >= 3 + 200 // 50
    assert one.counters.rekeyed_by_use == one.sending_epoch - 3


@each_side
@pytest.mark.requirement("9147-4.5.3-1", "9147-4.5.3-2")
def test_a_run_longer_than_a_key_allows_goes_out_under_several(tap: Tap, side: str) -> None:
    rig = joined(limits=Limits(records_per_key=50))
    one = of(rig, side)
    one.send_many([b"%d" % n for n in range(200)])
    first = rig.take(one)
    sent = [seen.content_type for seen in tap.read(first)]
    assert 40 <= sent.count(23) <= 45
    assert sent.count(22) == 1
    assert one.send_queue_bytes > 0
    rig.other(one).receive_run(first, rig.now)
    rig.run()
    assert rig.other(one).messages() == [b"%d" % n for n in range(200)]
    assert one.send_queue_bytes == 0


@each_side
@pytest.mark.requirement("9147-4.5.3-1")
def test_nothing_is_sealed_beyond_the_limit(tap: Tap, side: str) -> None:
    """The acknowledgement of the KeyUpdate never comes: data waits, and the peer's silence ends it."""
    rig = joined(limits=Limits(records_per_key=50, retransmissions=3))
    one = of(rig, side)
    seen = []
    for n in range(100):
        one.send(b"%d" % n)
        seen += tap.read(rig.take(one))
    assert one.state is dtls.State.CONNECTED
    assert 40 <= len([record for record in seen if record.content_type == 23]) <= 45
    assert one.send_queue_bytes > 0
    while one.error is None:
        seen += tap.read(rig.take(one))
        due = one.deadline()
        assert due is not None
        one.wake(due)
        rig.now = due
    assert isinstance(one.error, TimeoutError)
    assert len([record for record in seen if record.epoch == 3]) <= 50


@each_side
@pytest.mark.requirement("9147-4.5.3-1")
def test_what_is_not_data_cannot_pass_the_limit_either(side: str) -> None:
    rig = joined(limits=Limits(records_per_key=50))
    one = of(rig, side)
    for _ in range(50 - one.key_usage.sealed):
        rig.record(one, ContentType.ACK, b"\0\0")
    one.send(b"data")
    assert rig.take(one) == []
    error = one.error
    assert isinstance(error, ProtocolError)
    assert error.alert is Alert.INTERNAL_ERROR


@each_side
def test_closing_waits_for_what_waits_for_keys(side: str) -> None:
    rig = joined(limits=Limits(records_per_key=50))
    one = of(rig, side)
    one.send_many([b"%d" % n for n in range(100)])
    one.close(rig.now)
    rig.run()
    assert one.state is dtls.State.CLOSED
    assert one.error is None
    assert rig.other(one).messages() == [b"%d" % n for n in range(100)]


@each_side
@pytest.mark.requirement("9147-4.5.3-3", "9147-4.5.3-4")
def test_too_many_forgeries_end_the_connection(side: str) -> None:
    rig = joined(limits=Limits(forgeries_per_key=20))
    victim = of(rig, side)
    for n in range(19):
        victim.receive(b"\x2f" + random.Random(n).randbytes(2) + b"\0\x20" + bytes(32), 0.0)
        # The request for new keys is lost.
        rig.take(victim)
    assert victim.state is dtls.State.CONNECTED
    assert victim._opening.forged == 19
    victim.receive(b"\x2f\0\0\0\x20" + bytes(32), 0.0)
    rig.refuses(victim, Alert.BAD_RECORD_MAC)


@each_side
@pytest.mark.requirement("9147-4.5.3-5")
def test_new_keys_are_asked_for_before_the_forgery_limit(tap: Tap, side: str) -> None:
    rig = joined(limits=Limits(forgeries_per_key=20))
    victim = of(rig, side)
    for n in range(18):
        assert epochs(rig, victim) == (3, 3)
        victim.receive(b"\x2f" + random.Random(n).randbytes(2) + b"\0\x20" + bytes(32), 0.0)
    [asked] = tap.read(rig.deliver(victim))
    assert asked.content[0] == 24
    assert asked.content[-1] == 1
    rig.run()
    assert epochs(rig, victim) == (4, 4)
    # Each key has a count of its own.
    assert victim.key_usage.forged == 0
    assert victim.counters.rekeyed_by_forgeries == 1
    rig.echo()


@pytest.mark.requirement("9147-4.5.3-6", "9147-4.5.3-9", "9147-14-1", "9147-4.5.3-7")
def test_every_suite_states_both_limits() -> None:
    for spec in SUITES.values():
        assert 0 < spec.forgery_limit <= 1 << 36
        assert 1 << 22 < spec.seal_limit < 1 << 48
    for suite in configs.server_context().config().suites:
        assert SUITES[suite].forgery_limit == 1 << 36
        assert "CCM" not in SUITES[suite].name


@each_side
@pytest.mark.requirement("9147-7.2-6")
def test_an_ack_of_an_epoch_we_never_reached(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    one.update_keys(0.0)
    rig.run()
    assert epochs(rig, one)[0] == 4
    rig.inject(rig.other(one), ContentType.ACK, encode_ack([RecordNumber(4, 0)]))
    assert one.state is dtls.State.CONNECTED
    rig.inject(rig.other(one), ContentType.ACK, encode_ack([RecordNumber(5, 0)]))
    rig.refuses(one, Alert.ILLEGAL_PARAMETER)
