"""The life of a connection: what it sends and takes in each state, its queues, its end."""

from __future__ import annotations

import pytest

from sealwire import dtls
from sealwire.dtls.header import ContentType
from sealwire.errors import (
    Alert,
    CertificateError,
    ConfigurationError,
    ConnectionClosed,
    Discard,
    Error,
    HandshakeError,
    LimitReached,
    PeerAlert,
    ProtocolError,
)
from sealwire.limits import Ledger, Limits, Purpose
from sealwire.limits.weights import CONNECTION_BYTES, HALF_OPEN_BYTES
from tests import certificates, configs
from tests.unit.dtls.rig import Rig, Tap, joined, plain
from tests.unit.dtls.test_rogue_records import each_side, of

CLOSE_NOTIFY, USER_CANCELED, FATAL = b"\x01\x00", b"\x01\x5a", b"\x02\x28"


# --- making one -------------------------------------------------------------------------------


@pytest.mark.requirement("9147-5.1-13", "9147-5.3-1", "9147-5.3-5", "9147-5.3-6", "9147-5.1-3")
def test_the_first_hello(tap: Tap) -> None:
    rig = joined(handshake=False)
    [hello] = rig.take(rig.client)
    [seen] = tap.read([hello])
    body = seen.content[12:]
    assert body[:2] == b"\xfe\xfd"
    # Empty session id and legacy_cookie.
    assert body[34:36] == b"\0\0"
    # connection_id, empty; no cookie.
    assert b"\x00\x36\x00\x01\x00" in body
    assert b"\x00\x2c\x00" not in body[:60]
    assert rig.take(rig.client) == []


@pytest.mark.requirement("9147-4.3-2")
def test_an_mtu_nothing_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="127"):
        joined(mtu=127, handshake=False)


def test_a_client_needs_a_name_to_check() -> None:
    with pytest.raises(ConfigurationError):
        dtls.Connection.client(configs.client_context().config(), now=0.0)


def _make(side: str, ledger: Ledger) -> dtls.Connection:
    if side == "client":
        config = configs.client_context().config()
        return dtls.Connection.client(config, now=0.0, server_name="localhost", ledger=ledger)
    return dtls.Connection.server(configs.server_context().config(), now=0.0, ledger=ledger)


@each_side
def test_a_ledger_without_room_refuses_a_connection(side: str) -> None:
    ledger = Ledger(2 * HALF_OPEN_BYTES - 1)
    one = _make("server", ledger)
    with pytest.raises(LimitReached) as caught:
        _make(side, ledger)
    assert caught.value.name == "total_bytes"
    assert ledger.held == one.held_bytes == HALF_OPEN_BYTES


# --- before the handshake is done --------------------------------------------------------------


@each_side
def test_the_facts_of_a_session_are_an_error_before_there_is_one(side: str) -> None:
    rig = joined(handshake=False)
    one = of(rig, side)
    for ask in (lambda: one.session, lambda: one.export(b"EXPORTER-x", b"", 16)):
        with pytest.raises(Error, match="not complete"):
            ask()
    with pytest.raises(Error, match="not complete"):
        one.update_keys(0.0)
    assert one.state is dtls.State.HANDSHAKING
    rig.run()
    assert rig.client.export(b"EXPORTER-x", b"c", 16) == rig.server.export(b"EXPORTER-x", b"c", 16)
    assert rig.client.session.version == "DTLS 1.3"


@each_side
@pytest.mark.requirement("9147-5.8.1-5", "9147-4.2.1-3")
def test_what_is_sent_before_the_handshake_is_done_waits_for_it(side: str) -> None:
    rig = joined(handshake=False)
    one = of(rig, side)
    one.send(b"first")
    one.send_many([b"second", b"", bytes(1178)])
    assert one.send_queue_bytes > 1178
    rig.run()
    assert rig.other(one).messages() == [b"first", b"second", b"", bytes(1178)]
    assert one.send_queue_bytes == 0


@each_side
def test_the_send_queue_is_bounded_and_takes_all_or_none(side: str) -> None:
    rig = joined(handshake=False, limits=Limits(send_queue_bytes=4000))
    one = of(rig, side)
    for _ in range(3):
        one.send(bytes(1000))
    held = rig.ledger.held
    with pytest.raises(LimitReached) as caught:
        one.send_many([b"fits", bytes(1000)])
    assert caught.value.name == "send_queue_bytes"
    assert rig.ledger.held == held
    one.send(b"fits")
    rig.run()
    assert rig.other(one).messages() == [bytes(1000)] * 3 + [b"fits"]
    assert one.counters.messages_sent == 4
    one.send(bytes(1000))


@pytest.mark.requirement("9147-4.2.1-3", "9147-5.8.1-5", "9147-4.2.1-4")
def test_data_that_overtakes_the_finished_is_kept_until_it_comes() -> None:
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    rig.deliver(rig.server)
    finished = rig.take(rig.client)
    rig.client.send(b"early")
    early = rig.take(rig.client)
    rig.server.receive_run(early, 0.0)
    assert rig.server.messages() == []
    assert rig.server.counters.records_opened == 0
    rig.server.receive_run(finished, 0.0)
    assert rig.server.messages() == [b"early"]


@pytest.mark.requirement("9147-4.2.1-3", "9147-6.1-2")
def test_early_records_are_bounded_in_number_and_charged() -> None:
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    held = rig.ledger.held
    for n in range(100):
        rig.server.receive(b"\x2f" + bytes((n, 0)) + b"\0\x20" + bytes(32), 0.0)
    assert rig.server.counters.discards == {Discard.UNKNOWN_EPOCH: 90}
    assert 10 * 37 <= rig.ledger.held - held <= 10 * 37 + 10 * 200
    # They turn out to be forged; the handshake does not mind, and nothing stays charged for them.
    rig.run()
    rig.echo()
    assert rig.ledger.held_for(Purpose.REASSEMBLY) == 0
    assert rig.server.counters.discards[Discard.AUTHENTICATION] == 10


@each_side
@pytest.mark.requirement("9147-5.10-4")
def test_a_handshake_has_a_deadline_progress_or_not(side: str) -> None:
    rig = joined(handshake=False, limits=Limits(handshake_seconds=10.0, retransmissions=1000))
    one = of(rig, side)
    rig.deliver(rig.client)
    while one.state is dtls.State.HANDSHAKING:
        rig.take(one)
        due = one.deadline()
        assert due is not None
        assert due <= 10.0
        rig.now = due
        one.wake(due)
    assert rig.now == 10.0
    assert isinstance(one.error, TimeoutError)
    assert rig.take(one) == []
    assert one.deadline() is None
    assert one.held_bytes == 0


@each_side
@pytest.mark.requirement("9147-5.8.1-2", "9147-5.8.2-1", "9147-5.10-4")
def test_a_silent_peer_ends_the_handshake_after_so_many_transmissions(side: str) -> None:
    rig = joined(handshake=False, limits=Limits(retransmissions=3, handshake_seconds=1e6))
    one = of(rig, side)
    rig.deliver(rig.client)
    moments = []
    while one.state is dtls.State.HANDSHAKING:
        if rig.take(one):
            moments.append(rig.now)
        due = one.deadline()
        assert due is not None
        rig.now = due
        one.wake(due)
    if side == "server":
        assert moments == [0.0, 1.0, 3.0, 7.0]
    else:
        # The first one went to the server.
        assert moments == [1.0, 3.0, 7.0]
    assert isinstance(one.error, TimeoutError)


@pytest.mark.parametrize(("mtu", "whole"), [(1200, True), (1199, False)])
def test_a_split_hello_that_met_silence_goes_out_whole_once(mtu: int, whole: bool) -> None:
    """There are servers that read none that is split; who asks for less than usual is not exceeded."""
    context = configs.client_context()
    context.set_key_shares(["X25519MLKEM768"])
    client = dtls.Connection.client(context.config(), now=0.0, server_name="localhost", mtu=mtu)
    sizes, now = [], 0.0
    for _ in range(4):
        sizes.append([len(datagram) for datagram in client.transmit(now)])
        due = client.deadline()
        assert due is not None
        now = due
        client.wake(now)
    first, second, third, fourth = sizes
    assert len(first) == len(third) == 2
    assert max(first) <= mtu
    assert len(second) == (1 if whole else 2)
    assert max(second) <= (1452 if whole else mtu)
    assert third == first
    assert max(fourth) <= 548


@pytest.mark.requirement("9147-5.8.1-3")
def test_a_repeated_hello_brings_the_answer_again(tap: Tap) -> None:
    rig = joined(handshake=False)
    hello = rig.take(rig.client)
    rig.server.receive_run(hello, 0.0)
    first = rig.take(rig.server)
    rig.server.receive_run(hello, 0.5)
    rig.now = 0.5
    again = rig.take(rig.server)
    assert [one.content for one in tap.read(first)] == [one.content for one in tap.read(again)]
    numbers = [one.number for one in tap.read(first + again)]
    assert len(set(numbers)) == len(numbers)
    assert rig.server.counters.discards == {Discard.UNEXPECTED_PLAINTEXT: 1}


@pytest.mark.requirement("9147-5.2-3", "9147-5.2-2")
def test_message_zero_again_after_the_handshake() -> None:
    rig = joined(handshake=False)
    hello = rig.deliver(rig.client)
    flight = rig.deliver(rig.server)
    rig.run()
    rig.now = 90.0
    rig.server.receive_run(hello, rig.now)
    rig.client.receive_run(flight, rig.now)
    assert rig.take(rig.server) == []
    assert rig.client.state is rig.server.state is dtls.State.CONNECTED
    rig.run()
    rig.echo()


# --- messages -----------------------------------------------------------------------------------


@each_side
@pytest.mark.requirement("9147-4.4-4", "9147-4.3-1", "9147-4.3-2", "9147-4.4-7")
@pytest.mark.parametrize("mtu", [128, 300, 576, 1200, 1500, 9000, 60_000])
@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"])
def test_the_longest_message_fills_a_datagram_and_one_byte_more_is_refused(
    side: str, mtu: int, suite: str
) -> None:
    rig = joined(mtu=mtu, server=configs.server_context(suites=[suite]).config())
    one = of(rig, side)
    longest = one.max_message_bytes
    assert longest == min(mtu - 22, 1 << 14)
    one.send(bytes(longest))
    with pytest.raises(ValueError, match=str(longest)):
        one.send(bytes(longest + 1))
    with pytest.raises(ValueError, match=str(longest)):
        one.send_many([b"small", bytes(longest + 1)])
    [datagram] = rig.deliver(one)
    assert len(datagram) == min(mtu, (1 << 14) + 22)
    assert rig.other(one).messages() == [bytes(longest)]


@each_side
@pytest.mark.requirement("9147-4.3-4", "9147-4.3-1", "9147-4-5", "9147-4-11")
def test_each_message_travels_in_a_datagram_of_its_own(tap: Tap, side: str) -> None:
    rig = joined()
    one = of(rig, side)
    messages = [bytes((n,)) * (n * 37 % 1000) for n in range(64)]
    one.send_many(messages)
    sent = rig.deliver(one)
    assert [len(tap.read([datagram])) for datagram in sent] == [1] * 64
    assert [seen.content for seen in tap.read(sent)] == messages
    assert rig.other(one).messages() == messages
    assert rig.other(one).messages() == []


@each_side
def test_what_is_sent_may_be_any_buffer_and_is_copied(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    data = bytearray(b"mine")
    one.send_many([data, memoryview(data)])
    data[:] = b"gone"
    rig.run()
    assert rig.other(one).messages() == [b"mine", b"mine"]


@each_side
@pytest.mark.requirement("9147-4.5.2-2")
def test_an_application_that_does_not_read_loses_the_newest(side: str) -> None:
    rig = joined(limits=Limits(receive_queue_bytes=5000))
    one = of(rig, side)
    other = rig.other(one)
    for n in range(20):
        one.send(bytes((n,)) * 1000)
        rig.run()
    assert [message[0] for message in other.messages()] == [0, 1, 2, 3]
    assert other.counters.discards == {Discard.RECEIVE_QUEUE_FULL: 16}
    assert other.counters.messages_received == 4
    # It reads again, and the connection is as good as new.
    rig.echo()
    assert rig.ledger.held == 2 * CONNECTION_BYTES


@each_side
def test_counters_count(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    before = one.counters.snapshot(), other.counters.snapshot()
    one.send_many([b"a", b"bc"])
    sent = rig.deliver(one)
    after = one.counters.snapshot(), other.counters.snapshot()
    assert [after[0][name] - before[0][name] for name in ("messages_sent", "datagrams_sent")] == [2, 2]
    assert after[0]["bytes_sent"] - before[0]["bytes_sent"] == sum(map(len, sent))
    assert after[0]["records_sealed"] - before[0]["records_sealed"] == 2
    names = ("messages_received", "datagrams_received", "records_opened")
    assert [after[1][name] - before[1][name] for name in names] == [2, 2, 2]


@each_side
def test_output_that_nobody_asked_for_is_announced(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    told: list[dtls.Connection] = []
    one.on_output = told.append
    one.send(b"x")
    one.update_keys(0.0)
    assert told == [one, one]
    rig.run()
    one.close(0.0)
    assert len(told) == 3


# --- closing ------------------------------------------------------------------------------------


@each_side
@pytest.mark.requirement("8446-ALERT-2", "9147-5.10-1", "9147-7.2-3")
def test_close_sends_what_is_queued_and_close_notify_once(tap: Tap, side: str) -> None:
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    one.send(b"last words")
    one.close(0.0)
    one.close(0.0)
    assert one.state.value == "closing"
    with pytest.raises(ConnectionClosed):
        one.send(b"too late")
    sent = tap.read(rig.deliver(one))
    assert [(seen.content_type, seen.content) for seen in sent] == [
        (ContentType.APPLICATION_DATA, b"last words"),
        (ContentType.ALERT, CLOSE_NOTIFY),
    ]
    assert one.state is dtls.State.CLOSED
    assert one.error is None
    assert other.messages() == [b"last words"]
    assert other.events() == [dtls.PeerClosed()]
    # Half-close: the other may go on until it closes too.
    assert other.state is dtls.State.CONNECTED
    other.send(b"unheard")
    rig.deliver(other)
    assert one.messages() == []
    assert one.counters.discards == {Discard.CLOSED: 1}
    other.close(0.0)
    rig.run()
    events = rig.client_events + rig.server_events
    assert events.count(dtls.Closed(None)) == 2
    assert one.deadline() is other.deadline() is None
    assert rig.ledger.held == 0
    one.wake(1e6)
    one.close(1e6)
    assert one.transmit(1e6) == []
    assert one.events() == []


@each_side
@pytest.mark.requirement("9147-5.10-5")
def test_data_older_than_close_notify_is_delivered_and_newer_is_not(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    older = rig.record(one, ContentType.APPLICATION_DATA, b"older")
    notify = rig.record(one, ContentType.ALERT, CLOSE_NOTIFY)
    newer = rig.record(one, ContentType.APPLICATION_DATA, b"newer")
    for datagram in (notify, newer, older, notify, older):
        other.receive(datagram, 0.0)
    assert other.messages() == [b"older"]
    assert other.events() == [dtls.PeerClosed()]
    assert other.counters.discards[Discard.AFTER_CLOSE] == 1


@each_side
@pytest.mark.requirement("9147-5.10-5")
def test_close_notify_counts_by_epoch_first(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    older = [rig.record(one, ContentType.APPLICATION_DATA, b"%d" % n) for n in range(5)]
    one.update_keys(0.0)
    rig.run()
    # Number 0 of epoch 4 comes after number 4 of epoch 3.
    other.receive(rig.record(one, ContentType.ALERT, CLOSE_NOTIFY), 0.0)
    other.receive(rig.record(one, ContentType.ALERT, FATAL), 0.0)
    for datagram in older:
        other.receive(datagram, 0.0)
    assert other.messages() == [b"0", b"1", b"2", b"3", b"4"]
    assert other.state is dtls.State.CONNECTED


@each_side
@pytest.mark.requirement("8446-ALERT-2")
def test_user_canceled_after_the_handshake_means_nothing_by_itself(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    rig.inject(one, ContentType.ALERT, USER_CANCELED)
    rig.echo()
    rig.inject(one, ContentType.ALERT, CLOSE_NOTIFY)
    assert rig.other(one).events() == [dtls.PeerClosed()]


@each_side
@pytest.mark.requirement("8446-ALERT-1")
@pytest.mark.parametrize("alert", [b"\x02\x28", b"\x01\x28", b"\x00\xc8", b"\x02\x32"])
def test_any_other_alert_ends_the_connection_whatever_its_level(side: str, alert: bytes) -> None:
    rig = joined()
    one = of(rig, side)
    other = rig.other(one)
    rig.inject(one, ContentType.ALERT, alert)
    assert isinstance(other.error, PeerAlert)
    assert other.error.alert == alert[1]
    assert other.state is dtls.State.CLOSED
    # No alert answers an alert.
    assert rig.take(other) == []
    with pytest.raises(PeerAlert):
        other.send(b"x")
    with pytest.raises(PeerAlert):
        other.update_keys(0.0)


@each_side
@pytest.mark.requirement("8446-ALERT-2", "9147-5.10-4")
def test_close_in_the_middle_of_the_handshake_tells_the_peer(tap: Tap, side: str) -> None:
    """Decision A18: in the highest epoch the peer can read."""
    identity = certificates.large_server(9_000)
    rig = joined(
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        handshake=False,
        mtu=600,
    )
    rig.deliver(rig.client)
    rig.deliver(rig.server, drop=lambda n: n == 5)
    one = of(rig, side)
    one.close(0.0)
    assert one.state is dtls.State.CLOSED
    assert one.error is None
    sent = rig.deliver(one)
    assert len(sent) == 1
    assert [(seen.epoch, seen.content) for seen in tap.read(sent)] == [(2, USER_CANCELED), (2, CLOSE_NOTIFY)]
    assert isinstance(rig.other(one).error, ConnectionClosed)
    assert rig.take(rig.other(one)) == []
    assert rig.ledger.held == 0


@pytest.mark.requirement("8446-ALERT-2", "9147-5.10-4")
def test_a_client_that_gives_up_before_any_answer(tap: Tap) -> None:
    rig = joined(handshake=False)
    rig.take(rig.client)
    rig.client.close(0.0)
    sent = rig.deliver(rig.client)
    assert [(seen.epoch, seen.content) for seen in tap.read(sent)] == [(0, USER_CANCELED), (0, CLOSE_NOTIFY)]
    assert isinstance(rig.server.error, ConnectionClosed)
    assert rig.ledger.held == 0


@each_side
def test_abort_is_silent_and_keeps_its_reason(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    one.send(b"unsent")
    reason = Error("enough")
    one.abort(reason)
    one.abort(Error("again"))
    assert rig.take(one) == []
    assert one.events() == []
    assert (rig.client_events + rig.server_events).count(dtls.Closed(reason)) == 1
    with pytest.raises(Error, match="enough"):
        one.send(b"x")
    assert one.held_bytes == 0


@each_side
def test_what_came_before_the_end_can_still_be_read(side: str) -> None:
    rig = joined()
    one = of(rig, side)
    rig.other(one).send(b"heard")
    rig.run()
    one.abort()
    # It stays charged until it is read.
    assert len(b"heard") < one.held_bytes == rig.ledger.held - rig.other(one).held_bytes < 100
    assert one.messages() == [b"heard"]
    assert one.held_bytes == rig.ledger.held - rig.other(one).held_bytes == 0
    assert one.messages() == []


# --- alerts -------------------------------------------------------------------------------------


@pytest.mark.requirement("9147-4.5.2-3", "9147-5.10-1")
def test_a_client_that_cannot_verify_says_so_under_handshake_keys(tap: Tap) -> None:
    """Decision A18."""
    strangers = configs.client_context(certificates.server(certificates.Kind.RSA_2048).cafile).config()
    rig = joined(client=strangers, handshake=False)
    rig.deliver(rig.client)
    rig.deliver(rig.server)
    assert isinstance(rig.client.error, CertificateError)
    [alert] = tap.read(rig.deliver(rig.client))
    assert (alert.epoch, alert.content) == (2, bytes((2, Alert.UNKNOWN_CA)))
    assert isinstance(rig.server.error, PeerAlert)
    assert rig.server.error.alert is Alert.UNKNOWN_CA
    assert rig.client_events == [dtls.Closed(rig.client.error)]
    rig.skip(100.0)
    assert rig.take(rig.client) == []
    assert rig.ledger.held == 0


@pytest.mark.requirement("9147-4.5.2-3")
def test_a_server_that_cannot_serve_says_so_in_plaintext(tap: Tap) -> None:
    """Decision A18: before the ServerHello there is only epoch 0."""
    rig = joined(
        server=configs.server_context(suites=["TLS_AES_256_GCM_SHA384"]).config(),
        client=configs.client_context(suites=["TLS_AES_128_GCM_SHA256"]).config(),
        handshake=False,
    )
    rig.deliver(rig.client)
    assert isinstance(rig.server.error, HandshakeError)
    [alert] = tap.read(rig.deliver(rig.server))
    assert (alert.epoch, alert.content) == (0, bytes((2, Alert.HANDSHAKE_FAILURE)))
    assert isinstance(rig.client.error, PeerAlert)


@pytest.mark.requirement("9147-4.5.2-3", "9147-4.5.2-6")
def test_a_server_that_refuses_a_finished_says_so_under_application_keys(tap: Tap) -> None:
    """Decision A18: a client that sends its last flight has got all of ours, and may read no other epoch."""
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    rig.deliver(rig.server)
    seen = tap.read(rig.take(rig.client))
    [finished] = [one.content for one in seen if one.content_type == ContentType.HANDSHAKE]
    wrong = finished[:-1] + bytes((finished[-1] ^ 1,))
    rig.inject(rig.client, ContentType.HANDSHAKE, wrong, epoch=2)
    assert rig.server.state is dtls.State.CLOSED
    sent = rig.take(rig.server)
    [alert] = tap.read(sent)
    assert (alert.epoch, alert.content) == (3, bytes((2, Alert.DECRYPT_ERROR)))
    rig.client.receive_run(sent, 0.0)
    assert isinstance(rig.client.error, PeerAlert)


@pytest.mark.requirement("9147-5.1-12")
def test_a_second_retry_request_is_refused(tap: Tap) -> None:
    """Decision A8: with a message number of its own it is no repetition."""
    rig = _retried()
    rig.deliver(rig.client)
    [request] = tap.read(rig.deliver(rig.server))
    rig.deliver(rig.client)
    second = request.content[:4] + b"\0\1" + request.content[6:]
    rig.client.receive(plain(ContentType.HANDSHAKE, second), 0.0)
    assert isinstance(rig.client.error, HandshakeError)
    assert rig.client.error.alert is Alert.UNEXPECTED_MESSAGE


@pytest.mark.requirement("9147-5.1-12", "9147-5.2-3")
def test_a_repeated_retry_request_is_not_refused(tap: Tap) -> None:
    """Decision A8: the same message number is a repetition, which asks for the second hello again."""
    rig = _retried()
    rig.deliver(rig.client)
    request = rig.deliver(rig.server)
    first = tap.read(rig.take(rig.client))
    rig.client.receive_run(request, 0.0)
    assert rig.take(rig.client) == []
    rig.now = 0.5
    rig.client.receive_run(request, rig.now)
    again = tap.read(rig.take(rig.client))
    assert [one.content for one in again] == [one.content for one in first]
    rig.client.receive_run(request, rig.now)
    assert rig.take(rig.client) == []
    rig.run_until(lambda: rig.client.state is dtls.State.CONNECTED)


def _retried() -> Rig:
    return joined(
        server=configs.server_context(groups=["secp384r1"]).config(),
        client=configs.client_context(key_shares=["X25519"]).config(),
        handshake=False,
    )


@pytest.mark.requirement("9147-5.11-3")
def test_memory_shrinks_with_the_handshake_and_goes_with_the_connection() -> None:
    rig = joined(handshake=False)
    assert rig.ledger.held_for(Purpose.CONNECTION) == 2 * HALF_OPEN_BYTES
    assert rig.ledger.held_for(Purpose.HANDSHAKE) > 100
    rig.run()
    assert rig.ledger.held == 2 * CONNECTION_BYTES
    rig.client.abort()
    rig.server.abort()
    assert rig.ledger.held == 0


@pytest.mark.requirement("8446-ALERT-2")
@pytest.mark.parametrize("how", ["close", "error"])
def test_an_alert_before_the_server_hello_left_is_in_plaintext(how: str) -> None:
    """Decision A18: the peer has no keys, though the server has made some."""
    client = dtls.Connection.client(configs.client_context().config(), now=0.0, server_name="localhost")
    server = dtls.Connection.server(configs.server_context().config(), now=0.0)
    server.receive_run(client.transmit(0.0), 0.0)
    assert 2 in server._sealing
    if how == "close":
        server.close(0.0)
    else:
        server._fail(ProtocolError(Alert.INTERNAL_ERROR, "for a test"))
    client.receive_run(server.transmit(0.0), 0.0)
    assert client.state is dtls.State.CLOSED
    if how == "close":
        assert isinstance(client.error, ConnectionClosed)
    else:
        assert isinstance(client.error, PeerAlert)
        assert client.error.alert is Alert.INTERNAL_ERROR
