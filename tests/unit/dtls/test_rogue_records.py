"""Records nobody should send: silence for what may be forged, an alert for what the peer itself sent."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers import default_provider
from sealwire.dtls.epochs import Sealing
from sealwire.dtls.header import ContentType, RecordNumber, encode_ack, encode_plaintext, fragment_header
from sealwire.errors import Alert, Discard, HandshakeError, PeerAlert, ProtocolError
from sealwire.limits import Limits
from sealwire.record.protect import Sealer
from sealwire.tls13.contract import Direction, InstallKeys
from sealwire.tls13.messages import HandshakeType
from tests.unit.dtls.rig import Rig, Tap, joined, plain

KEY_UPDATE = b"\x00"
each_side = pytest.mark.parametrize("side", ["client", "server"])


def of(rig: Rig, side: str) -> dtls.Connection:
    return rig.client if side == "client" else rig.server


# --- records that anybody can make: silence ---------------------------------------------------


def forge(first: int, n: int = 60) -> bytes:
    return bytes((first,)) + random.Random(first).randbytes(n - 1)


@pytest.mark.requirement("9147-4.1-3", "9147-4.5.2-1", "9147-4.5.2-4", "9147-5-2")
@pytest.mark.parametrize("first", [n for n in range(256) if n not in (21, 22, 26) and n & 0xE0 != 0x20])
def test_first_bytes_of_no_record(first: int) -> None:
    rig = RIG()
    before = rig.server.counters.discards.get(Discard.NOT_DTLS, 0)
    rig.server.receive(forge(first), 0.0)
    rig.unimpressed(rig.server, Discard.NOT_DTLS, before + 1)


def _shared() -> Callable[[], Rig]:
    rigs: list[Rig] = []

    def rig() -> Rig:
        if not rigs:
            rigs.append(joined())
        return rigs[0]

    return rig


#: One pair for all tests that leave it as it was.
RIG = _shared()


@pytest.mark.requirement("9147-4.1-2", "9147-6.1-2", "9147-9.1-1", "9147-4.2.3-3")
@pytest.mark.parametrize("first", range(0x20, 0x40))
def test_all_first_bytes_of_ciphertexts_reach_the_record_layer(first: int) -> None:
    rig = joined()
    header = bytes((first,)) + bytes(2 if first & 8 else 1) + (b"\0\x20" if first & 4 else b"")
    rig.server.receive(header + os.urandom(32), 0.0)
    if first & 0x10:
        # RFC 9147 section 9.1: no connection id was negotiated.
        expected = Discard.UNKNOWN_CID
    elif first & 3 in (2, 3):
        expected = Discard.AUTHENTICATION
    else:
        expected = Discard.UNKNOWN_EPOCH
    rig.unimpressed(rig.server, expected)
    assert rig.server._opening.forged == (1 if expected is Discard.AUTHENTICATION else 0)


@pytest.mark.requirement("9147-9.1-1")
def test_a_record_with_a_connection_id_nobody_asked_for(tap: Tap) -> None:
    rig = joined()
    provider, spec, keys, epoch = tap.made[-1]
    rogue = Sealer(provider, spec, keys, epoch, b"\x01")
    victim = rig.other(rig.client if tap.made[-1][3] == rig.client._sealing.epoch else rig.server)
    victim.receive(rogue.seal(ContentType.APPLICATION_DATA, b"x"), 0.0)
    rig.unimpressed(victim, Discard.UNKNOWN_CID)


@each_side
@pytest.mark.requirement("9147-4.2.3-3")
def test_ciphertexts_below_sixteen_bytes(side: str) -> None:
    rig = joined()
    victim = of(rig, side)
    for n in range(16):
        victim.receive(b"\x2f\0\0" + n.to_bytes(2, "big") + bytes(n), 0.0)
        victim.receive(b"\x2b\0\0" + bytes(n), 0.0)
    rig.unimpressed(victim, Discard.SHORT_CIPHERTEXT, 32)


@each_side
@pytest.mark.requirement("9147-4.3-5", "9147-4.5.2-1")
def test_records_beyond_their_datagram(side: str) -> None:
    rig = joined()
    victim = of(rig, side)
    good = rig.record(rig.other(victim), ContentType.APPLICATION_DATA, b"data")
    for n in range(5, len(good)):
        victim.receive(good[:n], 0.0)
    assert victim.counters.discards == {Discard.TRUNCATED_RECORD: len(good) - 5}
    for n in range(1, 5):
        victim.receive(good[:n], 0.0)
    assert victim.counters.discards[Discard.TRUNCATED_HEADER] == 4
    assert victim.messages() == []
    victim.receive(good, 0.0)
    assert victim.messages() == [b"data"]


@each_side
@pytest.mark.requirement("9147-4.5.2-1", "9147-4.5.2-4", "9147-4.5.3-3", "9147-11-8")
def test_every_flipped_bit_of_a_protected_record_is_silence(side: str) -> None:
    rig = joined()
    victim = of(rig, side)
    good = rig.record(rig.other(victim), ContentType.APPLICATION_DATA, b"some data")
    before = rig.other(victim).deadline(), victim.deadline()
    for bit in range(8 * len(good)):
        forged = bytearray(good)
        forged[bit // 8] ^= 1 << bit % 8
        victim.receive(bytes(forged), 0.0)
        assert victim.messages() == []
        assert rig.take(victim) == []
    # Whatever the length says now, something was dropped each time; with a key it counts as forged.
    assert sum(victim.counters.discards.values()) >= 8 * len(good)
    assert victim._opening.forged == victim.counters.discards[Discard.AUTHENTICATION] > 200
    assert (rig.other(victim).deadline(), victim.deadline()) == before
    victim.receive(good, 0.0)
    assert victim.messages() == [b"some data"]
    rig.echo()


@given(st.lists(st.binary(max_size=80), max_size=6))
@pytest.mark.requirement("9147-4.5.2-1", "9147-4.5.2-4")
def test_any_bytes_are_dropped(datagrams: list[bytes]) -> None:
    rig = RIG()
    for one in (rig.client, rig.server):
        one.receive_run(datagrams, rig.now)
        assert rig.take(one) == []
    rig.echo()


@pytest.mark.requirement("9147-4.5.2-1")
def test_a_bad_record_takes_no_good_one_with_it() -> None:
    rig = joined()
    good = [rig.record(rig.client, ContentType.APPLICATION_DATA, b"%d" % n) for n in range(3)]
    bad = bytearray(good[1])
    bad[-1] ^= 1
    rig.server.receive(good[0] + bytes(bad) + good[2], 0.0)
    assert rig.server.messages() == [b"0", b"2"]
    rig.server.receive_run([b"", b"\x00", good[1]], 0.0)
    assert rig.server.messages() == [b"1"]


@pytest.mark.requirement("9147-4-6")
def test_a_record_without_length_takes_the_rest() -> None:
    rig = joined()
    sealer = rig.client._sealing.sealer(3)
    open_ended = sealer.seal(ContentType.APPLICATION_DATA, b"last", with_length=False)
    behind = sealer.seal(ContentType.APPLICATION_DATA, b"behind")
    rig.server.receive(open_ended + behind, 0.0)
    assert rig.server.messages() == []
    rig.server.receive(behind + open_ended, 0.0)
    assert rig.server.messages() == [b"behind", b"last"]


@pytest.mark.requirement("9147-4-4")
def test_short_and_long_numbers_mix() -> None:
    rig = joined()
    sealer = rig.client._sealing.sealer(3)
    for n in range(600):
        rig.server.receive(
            sealer.seal(ContentType.APPLICATION_DATA, b"%d" % n, short_sequence=bool(n % 3)), 0.0
        )
    assert rig.server.messages() == [b"%d" % n for n in range(600)]


@each_side
@pytest.mark.requirement("9147-4.5.1-1", "9147-4.5.1-3")
def test_every_record_is_delivered_once(side: str) -> None:
    rig = joined(limits=Limits(replay_window=64))
    victim = of(rig, side)
    records = [rig.record(rig.other(victim), ContentType.APPLICATION_DATA, b"%d" % n) for n in range(200)]
    order = list(range(200))
    random.Random(5).shuffle(order)
    for n in [*range(200), *order]:
        victim.receive(records[n], 0.0)
    assert victim.messages() == [b"%d" % n for n in range(200)]
    dropped = victim.counters.discards
    assert dropped[Discard.REPLAY] + dropped[Discard.TOO_OLD] == 200
    assert 0 < dropped[Discard.REPLAY] <= 64


@each_side
@pytest.mark.requirement("9147-4.5.1-6")
def test_a_forged_number_far_ahead_shuts_nobody_out(side: str) -> None:
    rig = joined(limits=Limits(replay_window=64))
    victim = of(rig, side)
    for n in range(1000):
        victim.receive(b"\x2f" + random.Random(n).randbytes(2) + b"\0\x20" + bytes(32), 0.0)
    rig.echo()


@each_side
@pytest.mark.requirement("9147-4.5.2-5")
def test_forged_records_leave_the_timers_alone(side: str) -> None:
    """Neither during the handshake nor after it, whatever the bytes."""
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    flight = rig.take(rig.server)
    if side == "client":
        rig.client.receive(flight[0], 0.0)
        rig.take(rig.client)
    victim = of(rig, side)
    before = victim.deadline()
    assert before is not None
    for first in range(256):
        if first & 0xE0 == 0x20 and victim._opening.opener(first & 3) is None:
            continue
        if first == ContentType.HANDSHAKE:
            continue
        victim.receive(forge(first), 0.1)
    victim.receive(plain(ContentType.HANDSHAKE, b"\x01" + os.urandom(30)), 0.1)
    assert victim.deadline() == before
    assert victim.transmit(0.1) == []


# --- plaintext after keys ---------------------------------------------------------------------


@each_side
@pytest.mark.requirement("9147-4.1-3", "9147-4.5.2-6")
def test_plaintext_application_data(side: str) -> None:
    rig = joined()
    of(rig, side).receive(b"\x17\xfe\xfd" + bytes(8) + b"\0\4data", 0.0)
    assert of(rig, side).messages() == []
    rig.unimpressed(of(rig, side), Discard.NOT_DTLS)


@each_side
@pytest.mark.requirement("9147-4.5.2-1")
@pytest.mark.parametrize(
    "kind", [HandshakeType.FINISHED, HandshakeType.KEY_UPDATE, HandshakeType.CLIENT_HELLO]
)
def test_plaintext_handshake_messages_after_the_handshake(side: str, kind: HandshakeType) -> None:
    rig = joined()
    victim = of(rig, side)
    content = rig.message(rig.other(victim), kind, b"\x00")
    victim.receive(plain(ContentType.HANDSHAKE, content), 0.0)
    rig.unimpressed(victim, Discard.UNEXPECTED_PLAINTEXT)


@pytest.mark.requirement("9147-4.5.2-1")
def test_a_plaintext_finished_instead_of_the_protected_one(tap: Tap) -> None:
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    rig.deliver(rig.server)
    seen = tap.read(rig.take(rig.client))
    [finished] = [one.content for one in seen if one.content_type == ContentType.HANDSHAKE]
    rig.server.receive(plain(ContentType.HANDSHAKE, finished), 0.0)
    assert rig.server.state is dtls.State.HANDSHAKING
    assert rig.server.counters.discards[Discard.UNEXPECTED_PLAINTEXT] == 1
    # The true one, which comes later, is taken.
    rig.run_until(lambda: rig.server.state is dtls.State.CONNECTED)
    rig.echo()


@each_side
@pytest.mark.requirement("9147-5.10-3")
@pytest.mark.parametrize("alert", [b"\x01\x00", b"\x02\x28", b"\x01\x5a", b"\x02"])
def test_plaintext_alerts_after_keys_exist(side: str, alert: bytes) -> None:
    """Decision A19."""
    rig = joined()
    of(rig, side).receive(plain(ContentType.ALERT, alert), 0.0)
    rig.unimpressed(of(rig, side), Discard.PLAINTEXT_ALERT)


@pytest.mark.requirement("9147-5.10-3")
def test_a_plaintext_alert_between_server_hello_and_finished_is_ignored() -> None:
    """Decision A19: from the ServerHello on there are keys."""
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    flight = rig.take(rig.server)
    rig.server.receive(plain(ContentType.ALERT, b"\x02\x28"), 0.0)
    rig.client.receive(flight[0], 0.0)
    rig.client.receive(plain(ContentType.ALERT, b"\x02\x28"), 0.0)
    rig.run_until(lambda: rig.client.state is rig.server.state is dtls.State.CONNECTED)
    for one in (rig.client, rig.server):
        assert one.counters.discards[Discard.PLAINTEXT_ALERT] == 1


@pytest.mark.requirement("9147-5.10-3")
def test_a_plaintext_alert_before_the_server_hello_ends_the_attempt() -> None:
    """Decision A19: it is the only way a server can say no to a hello."""
    rig = joined(handshake=False)
    rig.take(rig.client)
    rig.client.receive(plain(ContentType.ALERT, b"\x02\x28"), 0.0)
    assert isinstance(rig.client.error, PeerAlert)
    assert rig.client.error.alert is Alert.HANDSHAKE_FAILURE
    assert rig.take(rig.client) == []
    assert rig.client_events == [dtls.Closed(rig.client.error)]
    assert rig.client.deadline() is None


@pytest.mark.requirement("8446-ALERT-1")
@pytest.mark.parametrize("content", [b"", b"\x02", b"\x02\x28\x00", b"\x02\x28" * 2])
def test_a_malformed_plaintext_alert_is_dropped(content: bytes) -> None:
    rig = joined(handshake=False)
    rig.client.receive(plain(ContentType.ALERT, content), 0.0)
    assert rig.client.counters.discards == {Discard.UNEXPECTED_PLAINTEXT: 1}
    rig.run_until(lambda: rig.client.state is dtls.State.CONNECTED)


@each_side
@pytest.mark.requirement("9147-7-10", "9147-7.2-6")
def test_plaintext_acks_after_the_handshake(side: str) -> None:
    rig = joined()
    victim = of(rig, side)
    for content in (b"", b"\0", encode_ack([RecordNumber(0, 0)]), encode_ack([RecordNumber(9, 9)])):
        victim.receive(plain(ContentType.ACK, content), 0.0)
    rig.unimpressed(victim, Discard.UNEXPECTED_PLAINTEXT, 4)


# --- what the peer itself sends: alerts -------------------------------------------------------


@each_side
@pytest.mark.requirement("9147-4.1-4")
@pytest.mark.parametrize("content_type", [1, 19, 20, 24, 25, 27, 28, 255])
def test_inner_types_nobody_knows(side: str, content_type: int) -> None:
    rig = joined()
    victim = of(rig, side)
    rig.inject(rig.other(victim), content_type, b"content")
    rig.refuses(victim, Alert.UNEXPECTED_MESSAGE)


@each_side
@pytest.mark.requirement("9147-4.1-4")
def test_an_empty_message_is_one(tap: Tap, side: str) -> None:
    rig = joined()
    victim = of(rig, side)
    record = rig.record(rig.other(victim), ContentType.APPLICATION_DATA, b"")
    victim.receive(record, 0.0)
    assert victim.messages() == [b""]
    rig.echo()


PROTECTED_NONSENSE = {
    "an empty handshake record": (ContentType.HANDSHAKE, b"", Alert.DECODE_ERROR),
    "half a fragment header": (ContentType.HANDSHAKE, bytes(11), Alert.DECODE_ERROR),
    "a fragment cut short": (
        ContentType.HANDSHAKE,
        fragment_header(24, 10, 9, 0, 10) + b"cut",
        Alert.DECODE_ERROR,
    ),
    "an empty alert": (ContentType.ALERT, b"", Alert.DECODE_ERROR),
    "one byte of an alert": (ContentType.ALERT, b"\x01", Alert.DECODE_ERROR),
    "two alerts in one record": (ContentType.ALERT, b"\x01\x00\x01\x00", Alert.DECODE_ERROR),
    "an ACK of an odd length": (ContentType.ACK, b"\0\x08" + bytes(8), Alert.DECODE_ERROR),
    "an ACK longer than it says": (ContentType.ACK, encode_ack([]) + b"\0", Alert.DECODE_ERROR),
}


@each_side
@pytest.mark.requirement("9147-4.5.2-6", "8446-ALERT-1", "8446-ALERT-4", "9147-7-1")
@pytest.mark.parametrize("what", PROTECTED_NONSENSE.values(), ids=PROTECTED_NONSENSE.keys())
def test_authentic_nonsense(side: str, what: tuple[ContentType, bytes, Alert]) -> None:
    rig = joined()
    victim = of(rig, side)
    content_type, content, alert = what
    rig.inject(rig.other(victim), content_type, content)
    rig.refuses(victim, alert)


POST_HANDSHAKE = {
    "KeyUpdate of another value": (HandshakeType.KEY_UPDATE, b"\x02", Alert.ILLEGAL_PARAMETER),
    "an empty KeyUpdate's neighbour": (HandshakeType.KEY_UPDATE, b"\x00\x00", Alert.DECODE_ERROR),
    "a hello": (HandshakeType.CLIENT_HELLO, bytes(50), Alert.UNEXPECTED_MESSAGE),
    "a second Finished": (HandshakeType.FINISHED, bytes(32), Alert.UNEXPECTED_MESSAGE),
    "a certificate nobody asked for": (HandshakeType.CERTIFICATE, b"\0\0\0\0", Alert.UNEXPECTED_MESSAGE),
    "NewConnectionId without negotiation": (
        HandshakeType.NEW_CONNECTION_ID,
        b"\0\2\1\xaa\0",
        Alert.UNEXPECTED_MESSAGE,
    ),
    "RequestConnectionId without negotiation": (
        HandshakeType.REQUEST_CONNECTION_ID,
        b"\1",
        Alert.UNEXPECTED_MESSAGE,
    ),
    "an unknown type": (77, b"x", Alert.UNEXPECTED_MESSAGE),
}


@each_side
@pytest.mark.requirement("8446-POST-1", "8446-POST-5", "9147-9-8", "9147-9-14", "9147-4.5.2-6")
@pytest.mark.parametrize("what", POST_HANDSHAKE.values(), ids=POST_HANDSHAKE.keys())
def test_messages_that_do_not_belong_behind_the_handshake(side: str, what: tuple[int, bytes, Alert]) -> None:
    rig = joined()
    victim = of(rig, side)
    kind, body, alert = what
    rig.inject(rig.other(victim), ContentType.HANDSHAKE, rig.message(rig.other(victim), kind, body))
    rig.refuses(victim, alert)


@pytest.mark.requirement("8446-POST-5")
def test_a_server_takes_no_tickets() -> None:
    rig = joined()
    content = rig.message(
        rig.client, HandshakeType.NEW_SESSION_TICKET, bytes.fromhex("00000e10 00000000 00 0001 aa 0000")
    )
    rig.inject(rig.client, ContentType.HANDSHAKE, content)
    rig.refuses(rig.server, Alert.UNEXPECTED_MESSAGE)


@each_side
@pytest.mark.requirement("9147-5.5-3", "9147-5.5-7")
def test_fragments_that_contradict_each_other(side: str) -> None:
    rig = joined()
    victim = of(rig, side)
    sender = rig.other(victim)
    seq = victim._layer.reassembly.next_seq
    rig.inject(sender, ContentType.HANDSHAKE, fragment_header(4, 40, seq, 0, 20) + bytes(20))
    rig.take(victim)
    rig.inject(sender, ContentType.HANDSHAKE, fragment_header(4, 40, seq, 10, 20) + b"\1" * 20)
    rig.refuses(victim, Alert.ILLEGAL_PARAMETER)


@each_side
@pytest.mark.requirement("9147-4.2.1-3", "9147-5.8.1-5")
def test_application_data_under_handshake_keys(side: str) -> None:
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    if side == "client":
        flight = rig.take(rig.server)
        rig.client.receive(flight[0], 0.0)
        rig.take(rig.client)
    else:
        rig.deliver(rig.server)
        rig.take(rig.client)
    victim = of(rig, side)
    rig.inject(rig.other(victim), ContentType.APPLICATION_DATA, b"early", epoch=2)
    assert victim.messages() == []
    if side == "server":
        rig.refuses(victim, Alert.UNEXPECTED_MESSAGE)
    else:
        # The client opened the whole flight, so it is done before such data comes.
        assert isinstance(victim.error, ProtocolError)
        assert victim.error.alert is Alert.UNEXPECTED_MESSAGE


@each_side
@pytest.mark.requirement("9147-4.5.2-6")
def test_the_error_is_a_handshake_error_before_and_not_after(side: str) -> None:
    rig = joined()
    victim = of(rig, side)
    rig.inject(rig.other(victim), 99, b"")
    assert not isinstance(victim.error, HandshakeError)
    other = joined(handshake=False)
    other.deliver(other.client)
    other.deliver(other.server)
    other.take(other.client)
    other.inject(other.client, 99, b"", epoch=2)
    assert isinstance(other.server.error, HandshakeError)


# --- what this side does not do -----------------------------------------------------------------


@pytest.mark.requirement("9147-5.6-2", "9147-6.1-2", "9147-4.5.3-3")
def test_early_data_that_nobody_accepted_is_dropped_and_counts_as_no_forgery() -> None:
    """Decision A15."""
    rig = joined(handshake=False)
    hello = rig.take(rig.client)
    early = [b"\x2d" + bytes((0, n)) + b"\0\x28" + os.urandom(40) for n in range(30)]
    rig.server.receive_run([*hello, *early], 0.0)
    assert rig.server.messages() == []
    rig.run()
    rig.echo()
    assert rig.server._opening.forged == 0
    assert rig.server.counters.discards == {Discard.UNKNOWN_EPOCH: 30}


@pytest.mark.requirement("9147-4-7", "9147-9.1-1")
def test_a_connection_id_the_peer_asked_for_is_in_every_record_to_it() -> None:
    """Decision A14: one direction may have one while the other has none."""
    provider, spec = default_provider(), RIG().client.session.suite
    for cid in (b"", b"\x01", b"\xaa" * 20):
        sealing = Sealing(provider, 0)
        secret = Secret(bytes(range(spec.hash_bytes)))
        sealing.install(InstallKeys(Direction.SEND, 3, spec, secret), cid)
        for content_type in (ContentType.APPLICATION_DATA, ContentType.ACK, ContentType.ALERT):
            made = sealing.record(3, content_type, b"content")[1]
            assert bool(made[0] & 0x10) == bool(cid)
            assert made[1 : 1 + len(cid)] == cid
            assert len(made) == len(b"content") + sealing.overhead(3)


# --- epoch 0 ------------------------------------------------------------------------------------


@pytest.mark.requirement("9147-4-3")
@pytest.mark.parametrize("version", [0x0000, 0xFEFF, 0xFEFD, 0xFEFC, 0x0303, 0xFFFF])
def test_the_version_of_plaintext_records_means_nothing(version: int) -> None:
    rig = joined(handshake=False)
    for _ in range(4):
        for sender in (rig.client, rig.server):
            for datagram in rig.take(sender):
                changed = bytearray(datagram)
                if changed[0] == ContentType.HANDSHAKE:
                    changed[1:3] = version.to_bytes(2, "big")
                rig.other(sender).receive(bytes(changed), 0.0)
    rig.echo()


@pytest.mark.requirement("9147-4-1", "9147-4.2.1-6")
def test_plaintext_numbers_end_and_do_not_wrap() -> None:
    rig = joined(handshake=False)
    rig.client._sealing.plain_sequence = (1 << 48) - 1
    [hello] = rig.take(rig.client)
    assert hello[5:11] == b"\xff" * 6
    rig.wake()
    assert rig.take(rig.client) == []
    assert isinstance(rig.client.error, ProtocolError)
    assert rig.client.error.alert is Alert.INTERNAL_ERROR


@each_side
@pytest.mark.requirement("9147-4.2.1-6", "9147-4-1")
def test_protected_numbers_end_and_do_not_wrap(tap: Tap, side: str) -> None:
    tap.sequence = (1 << 48) - 40
    rig = joined()
    sender = of(rig, side)
    last = (1 << 48) - sender._sealing.sealer(3).sequence
    for n in range(last):
        sender.send(b"%d" % n)
        rig.deliver(sender)
    assert rig.other(sender).messages() == [b"%d" % n for n in range(last)]
    sender.send(b"one too many")
    assert rig.take(sender) == []
    assert isinstance(sender.error, ProtocolError)
    assert sender.error.alert is Alert.INTERNAL_ERROR
    assert rig.other(sender).messages() == []


@pytest.mark.requirement("9147-4.3-3")
def test_several_records_in_one_datagram() -> None:
    rig = joined()
    datagram = b"".join(rig.record(rig.client, ContentType.APPLICATION_DATA, b"%d" % n) for n in range(20))
    rig.server.receive(datagram + encode_plaintext(ContentType.ACK, 0, encode_ack([])), 0.0)
    assert rig.server.messages() == [b"%d" % n for n in range(20)]
