"""Whatever is done in whatever order: nothing raises, deadlines are met, and nothing stays held."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.dtls.cookie import Address
from sealwire.dtls.header import ContentType, RecordNumber, encode_ack, encode_plaintext, fragment_header
from sealwire.errors import Error, LimitReached
from sealwire.limits import Limits
from tests.unit.dtls.host import Site
from tests.unit.dtls.rig import Rig, joined

LIMITS = Limits(
    connection_bytes=200_000,
    receive_queue_bytes=20_000,
    send_queue_bytes=5_000,
    hello_slots=16,
    replay_window=64,
)


def damaged(datagram: bytes, chance: random.Random) -> bytes:
    """A datagram as a bad network or an enemy would make it of `datagram`."""
    data = bytearray(datagram)
    match chance.randrange(4):
        case 0:
            del data[chance.randrange(len(data) + 1) :]
        case 1:
            data[chance.randrange(len(data))] = chance.randrange(256)
        case 2:
            data += data[: chance.randrange(len(data) + 1)]
        case _:
            at = chance.randrange(len(data))
            data[at : at + 4] = chance.randbytes(4)
    return bytes(data)


def forged(chance: random.Random) -> bytes:
    """A plaintext record that makes some sense."""
    match chance.randrange(5):
        case 0:
            content = fragment_header(
                chance.choice((1, 2, 8, 11, 20, 24)), 40, chance.randrange(4), chance.choice((0, 10)), 20
            ) + bytes(20)
            return encode_plaintext(ContentType.HANDSHAKE, chance.randrange(100), content)
        case 1:
            numbers = [RecordNumber(chance.randrange(4), chance.randrange(5)) for _ in range(3)]
            return encode_plaintext(ContentType.ACK, 7, encode_ack(numbers))
        case 2:
            return encode_plaintext(ContentType.ACK, 7, encode_ack([]))
        case 3:
            return (
                bytes((0x2C | chance.randrange(4),)) + chance.randbytes(2) + b"\0\x20" + chance.randbytes(32)
            )
        case _:
            return chance.randbytes(chance.randrange(60))


def checked(one: dtls.Connection, now: float) -> list[bytes]:
    """What `one` sends now, with what must always hold."""
    datagrams = one.transmit(now)
    assert all(0 < len(datagram) <= one.mtu for datagram in datagrams)
    assert one.transmit(now) == []
    one.events()
    due = one.deadline()
    if one.state is dtls.State.CLOSED:
        assert due is None
        assert one.held_bytes == 0
    else:
        assert one.held_bytes <= one.limits.connection_bytes
        assert one.state is dtls.State.CONNECTED or due is not None
    return datagrams


def storm(rig: Rig, chance: random.Random, turns: int) -> None:
    """`turns` things of every kind happen to both."""
    both = (rig.client, rig.server)
    history: list[bytes] = [b"\x16"]
    in_flight: dict[int, list[bytes]] = {id(one): [] for one in both}
    for _ in range(turns):
        one = chance.choice(both)
        match chance.randrange(14):
            case 0 | 1 | 2 | 3 | 4:
                waiting, in_flight[id(one)] = in_flight[id(one)], []
                one.receive_run(waiting, rig.now)
            case 5:
                waiting = in_flight[id(one)]
                if waiting:
                    one.receive(waiting.pop(chance.randrange(len(waiting))), rig.now)
            case 6:
                one.receive(damaged(chance.choice(history), chance), rig.now)
            case 7:
                # A replay, or a reflection of what it sent itself.
                one.receive(chance.choice(history), rig.now)
            case 8:
                one.receive_run([forged(chance) for _ in range(3)], rig.now)
            case 9 | 10:
                rig.now += chance.choice((0.01, 0.3, 2.0))
                for each in both:
                    due = each.deadline()
                    if due is not None and due <= rig.now:
                        each.wake(rig.now)
            case 11:
                try:
                    one.send_many([chance.randbytes(chance.choice((0, 10, 250))) for _ in range(3)])
                except LimitReached:
                    assert one.send_queue_bytes > 4_000
                except Error:
                    assert one.state in (dtls.State.CLOSED, dtls.State.CLOSING)
            case 12:
                try:
                    one.update_keys(rig.now, request_peer=chance.random() < 0.5)
                except Error:
                    assert one.state is not dtls.State.CONNECTED
            case _:
                one.messages()
        for each in both:
            for datagram in checked(each, rig.now):
                history.append(datagram)
                if chance.random() < 0.9:
                    in_flight[id(rig.other(each))].append(datagram)


@given(st.integers(0, 1 << 32))
@pytest.mark.requirement("9147-4.5.2-1", "9147-4.5.2-5", "9147-11-8")
def test_a_pair_of_connections(seed: int) -> None:
    chance = random.Random(seed)
    rig = joined(handshake=False, mtu=chance.choice((300, 1200)), limits=LIMITS)
    storm(rig, chance, 120)
    for one in (rig.client, rig.server):
        one.messages()
        one.close(rig.now)
        checked(one, rig.now)
        while (due := one.deadline()) is not None:
            assert due <= rig.now + 1000
            rig.now = max(rig.now, due)
            one.wake(rig.now)
            checked(one, rig.now)
        assert one.state is dtls.State.CLOSED
    assert rig.ledger.held == 0


@given(st.integers(0, 1 << 32))
@pytest.mark.requirement("9147-4.5.2-1", "9147-5.11-2", "9147-11-4")
def test_an_endpoint_among_friends_and_enemies(seed: int) -> None:
    chance = random.Random(seed)
    site = Site(limits=LIMITS, require_cookie=chance.random() < 0.8)
    rest = site.endpoint.ledger.held
    places: list[Address] = [("192.0.2.1", n) for n in range(4)]
    history: list[bytes] = [b"\x16"]
    down: list[tuple[bytes, Address]] = []
    for _ in range(120):
        at = chance.choice(places)
        match chance.randrange(10):
            case 0:
                # A new client, maybe in the place of one that is gone without a word.
                site.add(at)
            case 1 | 2 | 3 | 4:
                batch = [
                    (datagram, place)
                    for place, client in site.clients.items()
                    for datagram in client.transmit(site.now)
                ]
                history += [datagram for datagram, _ in batch]
                chance.shuffle(batch)
                site.endpoint.receive([one for one in batch if chance.random() < 0.9], site.now)
            case 5 | 6:
                arriving, down = down, []
                for datagram, place in arriving:
                    if place in site.clients and chance.random() < 0.9:
                        site.clients[place].receive(datagram, site.now)
            case 7:
                enemy = [damaged(chance.choice(history), chance), chance.choice(history), forged(chance)]
                site.endpoint.receive([(datagram, at) for datagram in enemy], site.now)
            case 8:
                site.now += chance.choice((0.01, 0.5, 5.0))
                site.endpoint.wake(site.now)
                for client in site.clients.values():
                    client.wake(site.now)
            case _:
                for connection in list(site.endpoint):
                    match chance.randrange(6):
                        case 0:
                            connection.close(site.now)
                        case 1:
                            if connection.state is dtls.State.CONNECTED:
                                connection.send(b"data")
                        case _:
                            connection.messages()
        sent = site.endpoint.transmit(site.now)
        history += [datagram for datagram, _ in sent]
        down += sent
        site.endpoint.events()
        assert site.endpoint.connections == len(list(site.endpoint))
        assert site.endpoint.handshaking == sum(not one.was_connected for one in site.endpoint)
        due = site.endpoint.deadline()
        assert due is None or due > site.now - 5.1
    site.endpoint.close(site.now)
    while True:
        site.endpoint.transmit(site.now)
        site.endpoint.events()
        if (due := site.endpoint.deadline()) is None:
            break
        site.now = max(site.now, due)
        site.endpoint.wake(site.now)
    counters = site.endpoint.counters
    assert site.endpoint.connections == site.endpoint.handshaking == 0
    assert site.endpoint.ledger.held == rest
    assert counters.connections_opened == counters.connections_closed
    assert counters.connections_opened == counters.handshakes_completed + counters.handshakes_failed
