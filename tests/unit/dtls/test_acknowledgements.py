"""ACKs: what they name, in which epoch, when they are sent, and what a received one may do."""

from __future__ import annotations

import pytest

from sealwire import dtls
from sealwire.dtls.header import ContentType, RecordNumber, encode_ack, fragment_header
from sealwire.errors import Alert, Discard
from sealwire.limits import Limits
from sealwire.tls13.messages import HandshakeType
from tests import certificates, configs
from tests.unit.dtls.rig import Rig, Tap, joined, plain
from tests.unit.dtls.test_rogue_records import each_side, of

TICKET = bytes.fromhex("00000e10 00000000 00 0001 aa 0000")


def numbers(
    tap: Tap, datagrams: list[bytes], content_type: int = ContentType.HANDSHAKE
) -> list[RecordNumber]:
    return [one.number for one in tap.read(datagrams) if one.content_type == content_type]


def large(**options: object) -> Rig:
    """A handshake whose server flight needs many records."""
    identity = certificates.large_server(9_000)
    return joined(
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        handshake=False,
        mtu=600,
    )


@pytest.mark.requirement("9147-7.1-4", "9147-7.1-3", "9147-5.7-1", "9147-7-4", "9147-7-7")
def test_a_clean_handshake_has_one_ack(tap: Tap) -> None:
    rig = joined(handshake=False)
    hello = rig.deliver(rig.client)
    flight = rig.deliver(rig.server)
    finished = rig.deliver(rig.client)
    answer = rig.deliver(rig.server)
    assert tap.acks(hello + flight + finished) == []
    # It names the client's last flight only, under application keys.
    assert tap.acks(answer) == [(3, numbers(tap, finished))]
    assert rig.client.counters.acks_received == 1
    assert rig.take(rig.client) == rig.take(rig.server) == []
    rig.skip(300.0)
    assert rig.client.counters.retransmissions == rig.server.counters.retransmissions == 0


@pytest.mark.requirement("9147-7.1-1", "9147-7.1-2", "9147-7.1-6", "9147-7-6")
def test_a_gap_in_a_flight_is_told_after_a_quarter_of_the_timer(tap: Tap) -> None:
    rig = large()
    rig.deliver(rig.client)
    # The round trip took 0.4 s, so the timer stands at 0.6 s.
    rig.now = 0.4
    flight = rig.deliver(rig.server, drop=lambda n: n == 4)
    # Ten records; the ServerHello shares its datagram.
    assert len(flight) == 9
    there = numbers(tap, flight[:4] + flight[5:])
    assert rig.take(rig.client) == []
    assert rig.client.deadline() == pytest.approx(0.4 + 0.6 / 4)
    rig.wake()
    [(epoch, named)] = tap.acks(rig.deliver(rig.client))
    assert epoch == 2
    assert named == there
    # And the server fills the gap at once.
    again = tap.read(rig.deliver(rig.server))
    lost = tap.read([flight[4]])
    assert again[0].content[:12] == lost[0].content[:12]
    assert again[0].number not in numbers(tap, flight)
    rig.run()
    assert rig.client.state is rig.server.state is dtls.State.CONNECTED


@pytest.mark.requirement("9147-7-4")
def test_the_next_flight_clears_the_list(tap: Tap) -> None:
    rig = large()
    rig.deliver(rig.client)
    sent = rig.deliver(rig.server, drop=lambda n: n == 2)
    rig.run_until(lambda: rig.client.state is dtls.State.CONNECTED)
    # The client's acknowledgements from here on are of what comes now.
    content = rig.message(rig.server, HandshakeType.NEW_SESSION_TICKET, TICKET)
    ticket = rig.record(rig.server, ContentType.HANDSHAKE, content)
    rig.client.receive(ticket, rig.now)
    assert tap.acks(rig.take(rig.client)) == [(3, numbers(tap, [ticket]))]
    assert len(sent) == 9


@pytest.mark.requirement("9147-7-5", "9147-7.1-3", "9147-7-8")
def test_a_ticket_is_acknowledged_each_time_it_comes(tap: Tap) -> None:
    rig = joined()
    content = rig.message(rig.server, HandshakeType.NEW_SESSION_TICKET, TICKET)
    for _ in range(4):
        ticket = rig.record(rig.server, ContentType.HANDSHAKE, content)
        rig.client.receive(ticket, rig.now)
        assert tap.acks(rig.take(rig.client)) == [(3, numbers(tap, [ticket]))]
    # It was handled once.
    assert rig.client.counters.discards == {Discard.STALE_MESSAGE: 3}
    rig.echo()


@pytest.mark.requirement("9147-7.1-8", "9147-7.1-6")
def test_only_handshake_records_that_opened_are_named(tap: Tap) -> None:
    rig = joined()
    content = rig.message(rig.server, HandshakeType.NEW_SESSION_TICKET, TICKET)
    half = len(content) - 12
    first = fragment_header(4, half, int.from_bytes(content[4:6], "big"), 0, 5) + content[12:17]
    rest = fragment_header(4, half, int.from_bytes(content[4:6], "big"), 5, half - 5) + content[17:]
    data = rig.record(rig.server, ContentType.APPLICATION_DATA, b"data")
    one = rig.record(rig.server, ContentType.HANDSHAKE, first)
    empty_ack = rig.record(rig.server, ContentType.ACK, encode_ack([]))
    broken = bytearray(rig.record(rig.server, ContentType.HANDSHAKE, rest))
    broken[-1] ^= 1
    two = rig.record(rig.server, ContentType.HANDSHAKE, rest)
    rig.client.receive_run([data + one + empty_ack, bytes(broken) + two], rig.now)
    [(epoch, named)] = tap.acks(rig.take(rig.client))
    assert epoch == 3
    assert named == numbers(tap, [one, two])
    assert rig.client.messages() == [b"data"]


@pytest.mark.requirement("9147-7-2", "9147-7-3")
def test_what_was_not_kept_is_not_acknowledged(tap: Tap) -> None:
    rig = joined(limits=Limits(future_messages=2))
    for ahead, kept in ((2, False), (1, True)):
        content = rig.message(rig.server, HandshakeType.NEW_SESSION_TICKET, TICKET, ahead=ahead)
        record = rig.record(rig.server, ContentType.HANDSHAKE, content)
        rig.client.receive(record, rig.now)
        expected = [(3, numbers(tap, [record]))] if kept else []
        assert tap.acks(rig.take(rig.client)) == expected
    assert rig.client.counters.discards == {Discard.FUTURE_MESSAGE: 1}


@pytest.mark.requirement("9147-7-2", "9147-5.5-8")
def test_a_record_with_one_fragment_that_was_not_kept_is_not_acknowledged(tap: Tap) -> None:
    rig = joined(limits=Limits(future_messages=2))
    good = rig.message(rig.server, HandshakeType.NEW_SESSION_TICKET, TICKET)
    far = rig.message(rig.server, HandshakeType.NEW_SESSION_TICKET, TICKET, ahead=5)
    rig.inject(rig.server, ContentType.HANDSHAKE, good + far)
    assert tap.acks(rig.take(rig.client)) == []
    # The good part was taken and is acknowledged when it comes again.
    record = rig.record(rig.server, ContentType.HANDSHAKE, good)
    rig.client.receive(record, rig.now)
    assert tap.acks(rig.take(rig.client)) == [(3, numbers(tap, [record]))]


@pytest.mark.requirement("9147-7-1", "9147-7.1-6")
def test_many_records_in_a_batch_have_one_ack_in_order(tap: Tap) -> None:
    rig = joined()
    records = []
    for ahead in range(6):
        content = rig.message(rig.server, HandshakeType.NEW_SESSION_TICKET, TICKET, ahead=ahead)
        records.append(rig.record(rig.server, ContentType.HANDSHAKE, content))
    rig.client.receive_run(records[::-1], rig.now)
    assert tap.acks(rig.take(rig.client)) == [(3, numbers(tap, records))]


@pytest.mark.requirement("9147-5.8.1-4", "9147-7-5", "9147-7-8")
def test_a_repeated_finished_is_acknowledged_for_twice_the_msl(tap: Tap) -> None:
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    rig.deliver(rig.server)
    finished = rig.deliver(rig.client)
    rig.take(rig.server)
    [record] = [one for one in tap.read(finished) if one.content_type == ContentType.HANDSHAKE]
    for moment in (0.0, 1.0, 120.0, 239.9):
        rig.now = moment
        rig.server.wake(moment)
        again = rig.record(rig.client, ContentType.HANDSHAKE, record.content, epoch=2)
        rig.server.receive(again, moment)
        assert tap.acks(rig.take(rig.server)) == [(3, numbers(tap, [again]))], moment
    late = rig.record(rig.client, ContentType.HANDSHAKE, record.content, epoch=2)
    assert rig.server.deadline() == pytest.approx(240.0)
    rig.now = 240.0
    rig.server.wake(240.0)
    rig.server.receive(late, 240.0)
    assert rig.take(rig.server) == []
    assert rig.server.counters.discards[Discard.UNKNOWN_EPOCH] == 1
    assert rig.server.deadline() is None


# --- empty ACKs -------------------------------------------------------------------------------


def retried() -> Rig:
    """A handshake with a HelloRetryRequest: the version is agreed upon before any keys exist."""
    return joined(
        server=configs.server_context(groups=["secp384r1"]).config(),
        client=configs.client_context(key_shares=["X25519"]).config(),
        handshake=False,
    )


@pytest.mark.requirement("9147-7.1-9", "9147-7-10")
def test_records_without_their_server_hello_are_asked_for_with_one_empty_ack(tap: Tap) -> None:
    """Decision A1."""
    rig = retried()
    rig.deliver(rig.client)
    rig.deliver(rig.server)
    rig.deliver(rig.client)
    flight = rig.take(rig.server)
    records = tap.read(flight)
    assert records[0].epoch == 0
    protected = flight[0][13 + len(records[0].content) :]
    assert protected
    for _ in range(5):
        rig.client.receive(protected, rig.now)
    assert rig.take(rig.client) == []
    due = rig.client.deadline()
    assert due is not None
    assert 0 < due < 1.0
    rig.now = due
    rig.client.wake(due)
    sent = rig.deliver(rig.client)
    assert tap.acks(sent) == [(0, [])]
    # Not again until the next period, whatever comes.
    rig.client.receive(protected, rig.now)
    assert rig.take(rig.client) == []
    # The server repeats its flight, and what came early is used.
    rig.run()
    assert rig.client.state is rig.server.state is dtls.State.CONNECTED


@pytest.mark.requirement("9147-7-10")
def test_no_ack_before_a_version_is_selected(tap: Tap) -> None:
    """Decision A2: the same without a HelloRetryRequest, so the client knows no version yet."""
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    [datagram] = rig.take(rig.server)
    first = tap.read([datagram])[0]
    before = rig.client.deadline()
    rig.client.receive(datagram[13 + len(first.content) :], 0.0)
    assert rig.client.deadline() == before
    rig.wake()
    assert tap.acks(rig.take(rig.client)) == []


@each_side
@pytest.mark.requirement("9147-7-10")
@pytest.mark.parametrize(
    "content", [encode_ack([]), encode_ack([RecordNumber(0, 0)]), encode_ack([RecordNumber(2, 0)]), b"\0"]
)
def test_an_ack_before_a_version_is_selected_is_ignored(side: str, content: bytes) -> None:
    """Decision A2."""
    rig = joined(handshake=False)
    victim = of(rig, side)
    rig.take(victim)
    before = victim.deadline()
    victim.receive(plain(ContentType.ACK, content), 0.5)
    assert victim.counters.discards == {Discard.EARLY_ACK: 1}
    assert victim.deadline() == before
    assert victim.transmit(0.5) == []


@pytest.mark.requirement("9147-7.1-9")
def test_an_empty_ack_moves_a_flight_once(tap: Tap) -> None:
    """Decision A1: at most one early retransmission."""
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    first = rig.take(rig.server)
    rig.now = 0.5
    rig.server.receive(plain(ContentType.ACK, encode_ack([])), rig.now)
    again = rig.take(rig.server)
    assert [one.content for one in tap.read(again)] == [one.content for one in tap.read(first)]
    for n in range(20):
        rig.server.receive(plain(ContentType.ACK, encode_ack([]), n), rig.now)
        assert rig.take(rig.server) == []


# --- ACKs that name what cannot be -------------------------------------------------------------


@each_side
@pytest.mark.requirement("9147-7.2-6", "9147-7-1")
@pytest.mark.parametrize(
    "number",
    [
        RecordNumber(4, 0),
        RecordNumber(0xFFFF, 0),
        RecordNumber(1 << 16, 0),
        RecordNumber((1 << 64) - 1, 0),
        RecordNumber(3, 1 << 48),
        RecordNumber(0, (1 << 64) - 1),
    ],
)
def test_an_ack_of_a_record_that_cannot_exist(side: str, number: RecordNumber) -> None:
    """Decisions A3 and A4."""
    rig = joined()
    victim = of(rig, side)
    rig.inject(rig.other(victim), ContentType.ACK, encode_ack([RecordNumber(3, 0), number]))
    rig.refuses(victim, Alert.ILLEGAL_PARAMETER)


@each_side
@pytest.mark.requirement("9147-7-1", "9147-7.2-4")
def test_an_ack_of_a_record_that_was_never_sent_or_is_forgotten(side: str) -> None:
    """Decision A4."""
    rig = joined()
    victim = of(rig, side)
    strange = [RecordNumber(epoch, n) for epoch in range(4) for n in (0, 1, 77, (1 << 48) - 1)]
    rig.inject(rig.other(victim), ContentType.ACK, encode_ack(strange * 3))
    rig.inject(rig.other(victim), ContentType.ACK, encode_ack([]))
    assert victim.counters.acks_received >= 2
    assert rig.take(victim) == []
    rig.echo()


@pytest.mark.requirement("9147-7.2-6")
def test_an_ack_in_epoch_two_of_epoch_three(tap: Tap) -> None:
    """Decision A3: before the handshake is over an ACK names nothing above its own epoch."""
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    rig.deliver(rig.server)
    rig.take(rig.client)
    rig.inject(rig.client, ContentType.ACK, encode_ack([RecordNumber(3, 0)]), epoch=2)
    rig.refuses(rig.server, Alert.ILLEGAL_PARAMETER)


@pytest.mark.requirement("9147-7.2-6", "9147-4.5.2-1")
def test_a_plaintext_ack_of_protected_records_proves_nothing(tap: Tap) -> None:
    """Decision A3: anybody could end the handshake that way, so it counts as an empty one."""
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    rig.take(rig.server)
    rig.now = 0.5
    rig.server.receive(plain(ContentType.ACK, encode_ack([RecordNumber(2, 0)])), rig.now)
    assert rig.server.counters.discards == {Discard.MALFORMED_ACK: 1}
    assert rig.server.state is dtls.State.HANDSHAKING
    assert len(rig.deliver(rig.server)) == 1
    rig.run()
    rig.echo()


@pytest.mark.requirement("9147-7-1")
def test_a_huge_ack_costs_what_its_bytes_cost() -> None:
    rig = joined()
    names = [RecordNumber(3, n % 7) for n in range(1000)]
    for _ in range(20):
        rig.inject(rig.client, ContentType.ACK, encode_ack(names))
    assert rig.take(rig.server) == []
    rig.echo()


@pytest.mark.requirement("9147-7.1-7", "9147-4.3-2")
def test_an_ack_fits_the_smallest_path(tap: Tap) -> None:
    rig = joined(limits=Limits(future_messages=60))
    records = []
    for ahead in range(40):
        content = rig.message(rig.server, HandshakeType.NEW_SESSION_TICKET, TICKET, ahead=ahead)
        records.append(rig.record(rig.server, ContentType.HANDSHAKE, content))
    rig.client.receive_run(records, rig.now)
    sent = rig.take(rig.client)
    assert all(len(datagram) <= 268 for datagram in sent)
    [(_, named)] = tap.acks(sent)
    # The newest, in increasing order.
    assert named == numbers(tap, records)[-len(named) :]
    assert len(named) == 15


@pytest.mark.requirement("9147-5.8.1-3", "9147-7.1-4", "9147-7-4")
def test_a_repeated_flight_of_the_server_brings_our_answer_and_no_ack(tap: Tap) -> None:
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    flight = tap.read(rig.deliver(rig.server))
    finished = tap.read(rig.take(rig.client))
    assert rig.client.state is dtls.State.CONNECTED
    rig.now = 0.5
    for one in flight:
        if one.epoch == 2:
            rig.inject(rig.server, ContentType.HANDSHAKE, one.content, epoch=2)
    again = tap.read(rig.deliver(rig.client))
    assert [one.content for one in again] == [one.content for one in finished]
    # Once it is acknowledged, a repetition that was under way is acknowledged in its turn.
    rig.run()
    late = rig.record(rig.server, ContentType.HANDSHAKE, flight[-1].content, epoch=3)
    rig.client.receive(late, rig.now)
    assert tap.acks(rig.take(rig.client)) == [(3, numbers(tap, [late]))]
