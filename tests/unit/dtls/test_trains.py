"""Bulk through connections and endpoints: trains arrive as single datagrams would, everybody has a turn."""

from __future__ import annotations

import itertools
import random

import pytest

from sealwire import dtls
from sealwire.dtls import Train, bytes_of, count_of
from sealwire.dtls.cookie import Address
from sealwire.errors import Discard
from sealwire.limits import Limits
from sealwire.record.protect import COMPILED
from sealwire.record.train import couple
from tests import configs
from tests.unit.dtls.host import Site, addresses
from tests.unit.dtls.rig import Rig, joined

LARGE = Limits(send_queue_bytes=8 << 20, receive_queue_bytes=8 << 20, connection_bytes=64 << 20)


def numbered(count: int, size: int = 200) -> list[bytes]:
    return [n.to_bytes(4, "big") + bytes(size) for n in range(count)]


def connected(limits: Limits = LARGE) -> Rig:
    rig = joined(limits=limits)
    rig.run()
    return rig


def test_trains_bring_what_single_datagrams_bring() -> None:
    rig = connected()
    messages = [bytes(n % 7) + b"%d" % n for n in range(1_000)] + numbered(1_000)
    rig.client.send_many(messages)
    trains = rig.client.transmit_trains(rig.now)
    assert count_of(trains) == len(messages)
    assert len(trains) < 1_000
    assert rig.server.receive_run(trains, rig.now)
    assert rig.server.messages() == messages
    assert rig.server.counters.messages_received == len(messages)
    assert rig.server.newest.sequence == len(messages) - 1
    # Each again: nothing comes of it.
    assert not rig.server.receive_run(trains, rig.now)
    assert rig.server.messages() == []
    refused = rig.server.counters.discards
    assert refused[Discard.REPLAY] + refused[Discard.TOO_OLD] == len(messages)


def test_keys_change_in_the_middle_of_a_batch() -> None:
    rig = connected()
    rig.client.send_many(numbered(100))
    batch = rig.client.transmit_trains(rig.now)
    rig.client.update_keys(rig.now)
    batch += rig.client.transmit_trains(rig.now)
    rig.client.send_many(numbered(100)[::-1])
    batch += rig.client.transmit_trains(rig.now)
    rig.server.receive_run(batch, rig.now)
    assert rig.server.messages() == numbered(100) + numbered(100)[::-1]
    rig.run()
    assert rig.client.sending_epoch == 4
    rig.client.send_many(numbered(100))
    rig.server.receive_run(rig.client.transmit_trains(rig.now), rig.now)
    assert rig.server.messages() == numbered(100)


def test_a_close_in_the_middle_of_a_batch() -> None:
    rig = connected()
    rig.client.send_many(numbered(10))
    batch = rig.client.transmit_trains(rig.now)
    rig.client.send_many(numbered(10))
    rig.client.close(rig.now)
    batch += rig.client.transmit_trains(rig.now)
    rig.server.receive_run([*batch, *batch], rig.now)
    assert rig.server.messages() == numbered(10) * 2
    assert rig.server.error is None


def test_forged_trains_leave_nothing_and_end_nothing() -> None:
    rig = connected()
    rig.client.send_many(numbered(64))
    (train, *_) = rig.client.transmit_trains(rig.now)
    assert isinstance(train, Train)
    forged = bytearray(train.data)
    for at in range(0, len(forged), train.size):
        forged[at + 10] ^= 1
    held = rig.server.held_bytes
    rig.server.receive_run([Train(bytes(forged), train.size)], rig.now)
    assert rig.server.held_bytes == held
    assert rig.server.messages() == []
    assert rig.server.counters.discards[Discard.AUTHENTICATION] >= train.count
    rig.server.receive_run([train], rig.now)
    assert len(rig.server.messages()) == train.count


def test_what_has_no_room_is_counted() -> None:
    rig = connected(Limits(receive_queue_bytes=10_000))
    rig.client.send_many(numbered(100))
    rig.server.receive_run(rig.client.transmit_trains(rig.now), rig.now)
    received = len(rig.server.messages())
    assert 0 < received < 100
    assert rig.server.counters.discards[Discard.RECEIVE_QUEUE_FULL] == 100 - received
    rig.client.send_many(numbered(10))
    rig.server.receive_run(rig.client.transmit_trains(rig.now), rig.now)
    assert rig.server.messages() == numbered(10)


@pytest.mark.requirement("9147-4.2.2-2")
@pytest.mark.parametrize("lost", [30_000, 40_000, 200_000 if COMPILED else 70_000])
def test_a_receiver_that_slept_finds_the_sender_again(lost: int) -> None:
    """More records in a row are lost than 16 bits can say; forged ones do not lead it astray."""
    rig = connected()
    rig.client.send_many([b"first"])
    rig.server.receive_run(rig.client.transmit_trains(rig.now), rig.now)
    for _ in range(lost // 1_000):
        rig.client.send_many([b"x"] * 1_000)
        rig.client.transmit_trains(rig.now)
    rig.server.messages()
    for runs in itertools.count(1):
        rig.client.send_many(numbered(20))
        rig.server.receive_run(rig.client.transmit_trains(rig.now), rig.now)
        found = rig.server.messages()
        if found == numbered(20):
            break
        assert runs < 60
    assert rig.server.error is None
    assert rig.server.newest.sequence > lost


def test_a_search_has_an_end_and_a_price() -> None:
    rig = connected()
    rig.client.send_many(numbered(64))
    (train, *_) = rig.client.transmit_trains(rig.now)
    assert isinstance(train, Train)
    forged = Train(train.data[: train.size - 1] + b"!" + train.data[train.size :][:-1] + b"!", train.size)
    for _ in range(100):
        rig.server.receive_run([Train(forged.data[: train.size] * 8, train.size)], rig.now)
    assert 800 < rig.server.key_usage.forged <= 800 + 800 // 64
    assert rig.server.messages() == []


# --- many peers -------------------------------------------------------------------------------------


def site(peers: int) -> tuple[Site, list[dtls.Connection], list[dtls.Connection]]:
    made = Site(limits=LARGE)
    pairs = [made.connect(at) for at in addresses(peers)]
    return made, [client for client, _ in pairs], [served for _, served in pairs]


def test_everybody_has_a_turn() -> None:
    made, _, served = site(3)
    greedy, *modest = served
    greedy.send_many(numbered(5_000, 1_000))
    for one in modest:
        one.send(b"hello")
    first = made.endpoint.transmit_trains(made.now)
    assert {address for _, address in first} == {one.address for one in served}
    assert bytes_of(one for one, _ in first) < 1 << 20
    assert made.endpoint.more
    assert greedy.send_queue_bytes > 1_000_000
    sent = count_of(one for one, address in first if address == greedy.address)
    while batch := made.endpoint.transmit_trains(made.now):
        sent += count_of(one for one, _ in batch)
        modest[0].send(b"again")
        following = made.endpoint.transmit_trains(made.now)
        sent += count_of(one for one, address in following if address == greedy.address)
        assert modest[0].address in {address for _, address in [*batch, *following]}
        if sent >= 5_000:
            break
    assert greedy.send_queue_bytes == 0


def test_transmit_gives_everything() -> None:
    made, _, served = site(2)
    for one in served:
        one.send_many(numbered(3_000, 1_000))
    batch = made.endpoint.transmit(made.now)
    assert len(batch) == 6_000
    assert not made.endpoint.more


@pytest.mark.parametrize("cid", [b"", b"client"])
def test_trains_of_peers_and_of_strangers(cid: bytes) -> None:
    made, (one, other), (first, second) = site(2)
    stranger = addresses(3)[-1]
    one.send_many(numbered(100))
    other.send_many(numbered(50))
    of_one, of_other = one.transmit_trains(made.now), other.transmit_trains(made.now)
    assert first.address is not None
    here, there = addresses(2)
    batch = [(train, here) for train in of_one] + [(train, there) for train in of_other]
    batch += [(Train(b"\x2c" + bytes(99) + b"\x2c" + bytes(99), 100), stranger)]
    batch += [(Train(b"G" * 200, 100), stranger), (b"", stranger), (Train(b"\x16" * 40, 20), here)]
    made.endpoint.receive(batch, made.now)
    assert first.messages() == numbered(100)
    assert second.messages() == numbered(50)
    discards = made.endpoint.counters.discards
    assert discards[Discard.OTHER_PROTOCOL] == 2
    assert discards[Discard.EMPTY] == 1
    assert sum(discards.values()) >= 5


def test_a_train_that_mixes_two_peers_is_taken_apart() -> None:
    """Behind a gateway several connections may share an address; their ids tell them apart."""
    made, clients, served = site(2)
    for client in clients:
        client.send_many(numbered(3))
    singles = [client.transmit(made.now) for client in clients]
    mixed = couple([datagram for pair in zip(*singles, strict=True) for datagram in pair])
    assert any(isinstance(one, Train) for one in mixed)
    made.endpoint.receive([(one, addresses(2)[0]) for one in mixed], made.now)
    assert [len(one.messages()) for one in served] == [3, 3]


def test_hellos_beside_trains() -> None:
    made, (one,), (first,) = site(1)
    one.send_many(numbered(64))
    trains = one.transmit_trains(made.now)
    late = made.add(addresses(2)[1])
    hello = late.transmit(made.now)
    batch = [(datagram, addresses(2)[1]) for datagram in hello]
    made.endpoint.receive([*batch, *((train, addresses(1)[0]) for train in trains), *batch], made.now)
    assert first.messages() == numbered(64)
    assert made.endpoint.counters.hello_retry_requests >= 1


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_while_keys_ids_and_addresses_change(seed: int) -> None:
    """A link that loses nothing and reorders what left within a moment of each other, both ways."""
    chance = random.Random(seed)
    client = configs.client_context().config()
    made = Site(limits=LARGE, client=client, upkeep=dtls.Upkeep(spare_cids=2))
    one, served = made.connect(addresses(1)[0])
    here = addresses(1)[0]
    got: list[bytes] = []
    back: list[bytes] = []
    sent: list[bytes] = []
    answered: list[bytes] = []
    late: list[tuple[bytes, Address]] = []
    for step in range(120):
        run = [b"%d/%d" % (step, n) for n in range(40)]
        one.send_many(run)
        served.send_many([b"re " + message for message in run])
        sent += run
        answered += [b"re " + message for message in run]
        if step % 7 == 3 and one.next_sending_epoch == one.sending_epoch:
            one.update_keys(made.now)
        if step % 9 == 4 and served.next_sending_epoch == served.sending_epoch:
            served.update_keys(made.now)
        if step % 11 == 5:
            one.rotate_connection_id()
        if step % 40 == 20:
            here = addresses(5)[1 + step // 40]  # a gateway gave us another
            made.clients = {here: one}
        batch = late + [(datagram, here) for datagram in one.transmit(made.now)]
        chance.shuffle(batch)
        late = batch[: len(batch) // 4]
        made.endpoint.receive(batch[len(late) :], made.now)
        down = [datagram for datagram, _ in made.endpoint.transmit(made.now)]
        made.endpoint.events()
        chance.shuffle(down)
        one.receive_run(couple(down), made.now)
        one.events()
        got += served.messages()
        back += one.messages()
        made.now += 0.001
    made.endpoint.receive(late, made.now)
    for _ in range(10):
        made.run()
    got += served.messages()
    back += one.messages()
    assert sorted(got) == sorted(sent)
    assert sorted(back) == sorted(answered)
    assert one.sending_epoch > 10
    assert served.address == here


@pytest.mark.requirement("9147-4.3-2")
def test_small_records_share_datagrams_where_that_is_wanted() -> None:
    made = Site(limits=LARGE, upkeep=dtls.Upkeep(pack=True))
    one, served = made.connect(addresses(1)[0])
    messages = [b"%d" % n for n in range(300)] + [bytes(1_150), b"small", bytes(1_150)]
    served.send_many(messages)
    trains = [train for train, _ in made.endpoint.transmit_trains(made.now)]
    assert count_of(trains) < 20
    assert all((train.size if isinstance(train, Train) else len(train)) <= served.mtu for train in trains)
    one.receive_run(trains, made.now)
    assert one.messages() == messages
    assert served.counters.records_sealed >= len(messages)


def test_turns_go_round_among_many_who_send_much() -> None:
    """More connections than a turn has quanta: who was not served is first in the next turn."""
    made, _, served = site(48)
    for one in served:
        one.send_many(numbered(100, 1_000))
    turns = [{address for _, address in made.endpoint.transmit_trains(made.now)} for _ in range(2)]
    assert len(turns[0]) < 48
    assert len(turns[0] | turns[1]) == 48
