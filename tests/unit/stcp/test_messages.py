"""Message mode: agreed on or not, messages there and back, pings, going away, bad frames, bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sealwire import stcp
from sealwire.errors import (
    Alert,
    ConfigurationError,
    ConnectionClosed,
    Error,
    HandshakeError,
    LimitReached,
    PeerAlert,
    ProtocolError,
    Truncated,
)
from sealwire.limits import Limits, Purpose
from sealwire.stcp.frames import Control, control_frame, protocol_name, word_of
from tests.configs import client_context, server_context
from tests.unit.stcp.message_pair import MessagePair

PING = control_frame(Control.PING, bytes(8))


def ended_by(connection: stcp.Connection) -> Error:
    assert isinstance(connection.error, Error)
    return connection.error


# -- agreeing


def test_without_an_application() -> None:
    pair = MessagePair()
    for end in (pair.client, pair.server):
        assert end.message_mode
        assert end.application is None
        assert end.session.alpn == b"stcp/1"


def test_with_an_application() -> None:
    pair = MessagePair("telemetry")
    for end in (pair.client, pair.server):
        assert end.application == "telemetry"
        assert end.session.alpn == b"stcp/1:telemetry"


@pytest.mark.parametrize("name", ["", "\N{SNOWMAN}", "x" * 249])
def test_a_name_that_cannot_be(name: str) -> None:
    with pytest.raises(ConfigurationError):
        protocol_name(name)


def test_two_applications_do_not_agree() -> None:
    pair = MessagePair("one", "other", handshake=False)
    pair.run()
    error = pair.server.error
    assert isinstance(error, HandshakeError)
    assert error.alert is Alert.NO_APPLICATION_PROTOCOL
    assert isinstance(pair.client.error, PeerAlert)


@pytest.mark.parametrize(("client", "server"), [(True, False), (False, True)])
def test_a_peer_that_knows_nothing_of_it_fails_the_handshake(client: bool, server: bool) -> None:
    pair = MessagePair(client, server, handshake=False)
    pair.run()
    who, peer = (pair.client, pair.server) if client else (pair.server, pair.client)
    error = who.error
    assert isinstance(error, HandshakeError)
    assert error.alert is Alert.NO_APPLICATION_PROTOCOL
    assert ended_by(peer).args == PeerAlert(Alert.NO_APPLICATION_PROTOCOL).args


def test_a_server_with_other_protocols_serves_plain_clients_too() -> None:
    server = server_context()
    server.set_alpn_protocols(["http/1.1"])
    client = client_context()
    client.set_alpn_protocols(["http/1.1"])
    pair = MessagePair(False, True, client=client, server=server)
    assert not pair.client.message_mode
    assert not pair.server.message_mode
    assert pair.server.application is None
    pair.client.send(b"GET")
    pair.run()
    assert pair.server.read() == b"GET"
    pair = MessagePair(True, True, client=client_context(), server=server)
    assert pair.server.message_mode


def test_the_context_chosen_by_name_speaks_in_messages_too() -> None:
    server, chosen = server_context(), server_context()
    server.sni_callback = lambda name, context: chosen
    assert MessagePair("x", server=server).client.application == "x"


def test_bytes_and_messages_are_not_mixed() -> None:
    pair = MessagePair()
    byte_calls: list[Callable[[], object]] = [
        lambda: pair.client.send(b"x"),
        pair.client.read,
        lambda: pair.client.find(b"x"),
    ]
    for call in byte_calls:
        with pytest.raises(ConfigurationError):
            call()
    plain = MessagePair(False)
    calls: list[Callable[[], object]] = [
        lambda: plain.client.write_message(b"x"),
        plain.client.read_message,
        plain.client.read_messages,
        plain.client.go_away,
        lambda: plain.client.ping(0.0),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError):
            call()


def test_before_the_handshake_is_over_nothing_is_known() -> None:
    pair = MessagePair(handshake=False)
    with pytest.raises(Error, match="not finished"):
        pair.client.write_message(b"x")
    with pytest.raises(Error, match="not finished"):
        _ = pair.client.message_mode


# -- messages


@pytest.mark.parametrize("step", [1, 3, 1_000, 1 << 20])
def test_messages_come_as_they_were_written(step: int) -> None:
    pair = MessagePair()
    sizes = [0, 1, 3, 4, 5, 0, 0, 255, 16_379, 16_380, 16_381, 16_384, 16_385, 40_000]
    written = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
    for message in written:
        pair.client.write_message(message)
    pair.run(step)
    assert pair.server.messages_ready == len(written)
    assert pair.server.buffered == sum(sizes)
    assert [pair.server.read_message() for _ in written] == written
    assert pair.server.read_message() is None
    assert pair.server.counters.messages_received == pair.client.counters.messages_sent == len(written)


def test_small_messages_of_a_turn_share_records() -> None:
    pair = MessagePair()
    sealed = pair.client.counters.records_sealed
    for n in range(100):
        pair.client.write_message(bytes([n]) * 156)
    pair.run()
    assert pair.client.counters.records_sealed - sealed == 1
    assert [message[0] for message in pair.server.read_messages()] == list(range(100))


def test_a_message_longer_than_a_run() -> None:
    pair = MessagePair()
    data = bytes(range(256)) * 512
    pair.client.write_message(data)
    assert len(pair.client.data_to_send()) < 80_000  # as the network takes it
    pair = MessagePair()
    for message in (b"before", data, b"after"):
        pair.client.write_message(message)
    pair.run()
    assert pair.server.read_messages() == [b"before", data, b"after"]


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: memoryview(data + data)[::2]])
def test_any_buffer_is_taken_as_it_is_now(kind: object) -> None:
    pair = MessagePair()
    data = bytearray(b"first")
    given = kind(data)  # type: ignore[operator]
    expected = bytes(given)
    pair.client.write_message(given)
    data[:] = b"wrong"
    pair.run()
    assert pair.server.read_message() == expected


def test_a_number_is_no_message() -> None:
    pair = MessagePair()
    with pytest.raises(TypeError):
        pair.client.write_message(5)  # type: ignore[arg-type]


def test_the_end_between_two_messages() -> None:
    pair = MessagePair()
    pair.client.write_message(b"last")
    pair.client.close()
    pair.run()
    assert pair.server.read_message() == b"last"
    assert pair.server.read_message() is None
    assert pair.server.peer_closed
    pair.server.write_message(b"half-open")
    pair.server.close()
    pair.run()
    assert pair.client.read_message() == b"half-open"
    assert pair.client.state == pair.server.state == "closed"
    assert pair.client.error is None
    with pytest.raises(ConnectionClosed):
        pair.client.write_message(b"x")
    assert pair.ledger.held == 0


def test_new_keys_in_the_middle_of_a_message() -> None:
    limits = Limits(records_per_key=16, message_bytes=1 << 20, connection_bytes=4 << 20)
    pair = MessagePair(limits=limits)
    data = bytes(900_000)
    pair.client.write_message(data)
    pair.run()
    assert pair.client.counters.rekeyed_by_use > 2
    assert pair.server.read_message() == data
    pair.client.write_message(data)
    pair.server.receive_data(pair.client.data_to_send(), 0.0)
    pair.client.update_keys(request_peer=True)
    pair.run()
    assert pair.server.read_message() == data


# -- pings and going away


def test_a_ping_and_its_answer() -> None:
    pair = MessagePair()
    before = pair.client.round_trip
    assert before is None
    pair.client.ping(1.0)
    pair.now = 1.25
    pair.run()
    assert pair.client.round_trip == 0.25
    assert pair.server.messages_ready == 0


def test_going_away() -> None:
    pair = MessagePair()
    pair.server.write_message(b"first")
    pair.server.go_away()
    pair.server.go_away()
    pair.run()
    assert pair.client.peer_going_away
    assert pair.client.events() == [stcp.GoingAway()]
    pair.client.write_message(b"what was under way")
    pair.run()
    assert pair.server.read_message() == b"what was under way"
    assert not pair.server.peer_going_away


def test_a_silent_peer_is_asked_and_given_up() -> None:
    pair = MessagePair(keepalive=stcp.Keepalive(after=30, within=10))
    assert pair.client.deadline() == 30
    pair.client.wake(30)
    assert pair.client.data_to_send()  # to nobody
    assert pair.client.deadline() == 40
    pair.client.wake(40)
    assert isinstance(pair.client.error, TimeoutError)
    with pytest.raises(TimeoutError):
        pair.client.read_message()


def test_a_peer_that_answers_is_asked_again() -> None:
    pair = MessagePair(keepalive=stcp.Keepalive(after=30, within=10))
    for round_ in range(3):
        due = pair.client.deadline()
        assert due is not None
        pair.now = due
        pair.client.wake(due)
        pair.run()
        assert pair.client.error is None
        assert pair.client.deadline() == due + (10 if round_ % 2 == 0 else 20)
    assert pair.server.error is None


def test_whatever_comes_is_an_answer() -> None:
    pair = MessagePair(keepalive=stcp.Keepalive(after=30, within=10))
    pair.client.wake(30)
    pair.client.data_to_send()  # the ping is lost to a peer that is busy
    pair.server.write_message(b"busy")
    pair.now = 39
    pair.run()
    pair.client.wake(40)
    assert pair.client.error is None
    assert pair.client.deadline() == 69


def test_a_busy_connection_sets_no_timer() -> None:
    pair = MessagePair(keepalive=stcp.Keepalive(after=30, within=10))
    before = pair.client.deadline()
    pair.now = 20.0
    pair.server.write_message(b"x")
    pair.run()
    assert pair.client.deadline() == before
    pair.client.wake(30)
    assert pair.client.deadline() == 50
    assert pair.client.queued == 0


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)])
def test_a_keepalive_that_cannot_be(numbers: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        stcp.Keepalive(after=numbers[0], within=numbers[1])


def test_pings_behind_a_long_message_are_answered_once() -> None:
    pair = MessagePair()
    for now in range(3):
        pair.client.ping(float(now))
        pair.to_server()
    data = pair.server.data_to_send()
    pair.client.receive_data(data, 2.5)
    assert pair.client.round_trip == 0.5
    assert len(data) < 50


# -- bad frames


@pytest.mark.parametrize(
    ("stream", "alert"),
    [
        (b"\x40\x00\x00\x01x", Alert.DECODE_ERROR),
        (b"\x04\x00\x00\x00", Alert.DECODE_ERROR),
        (b"\x04", Alert.DECODE_ERROR),
        (b"\x84\x00\x00\x01\x03", Alert.DECODE_ERROR),
        (b"\x80\x00\x00\x00", Alert.DECODE_ERROR),
        (b"\x80\x00\x00\x01\x00", Alert.DECODE_ERROR),
        (b"\x80\x00\x00\x01\x04", Alert.DECODE_ERROR),
        (b"\x80\x00\x00\x01\x01", Alert.DECODE_ERROR),
        (b"\x80\x00\x00\x0a\x01", Alert.DECODE_ERROR),
        (b"\x80\x00\x00\x02\x03x", Alert.DECODE_ERROR),
        (word_of(32 * 1024 * 1024 + 1), Alert.ILLEGAL_PARAMETER),
        (word_of(128 * 1024 + 1), Alert.ILLEGAL_PARAMETER),
        (control_frame(Control.PONG, bytes(8)), Alert.UNEXPECTED_MESSAGE),
        (control_frame(Control.GO_AWAY) * 2, Alert.UNEXPECTED_MESSAGE),
        (PING * 11, Alert.UNEXPECTED_MESSAGE),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_bad_frames_end_the_connection_with_their_alert(stream: bytes, alert: Alert, split: bool) -> None:
    pair = MessagePair()
    for part in [bytes([byte]) for byte in stream] if split else [word_of(2) + b"ok" + stream]:
        if pair.server.error is None:
            pair.send_to_server(part)
    error = pair.server.error
    assert isinstance(error, ProtocolError)
    assert error.alert is alert
    pair.run()
    assert isinstance(pair.client.error, PeerAlert)
    assert pair.client.error.alert is alert
    if not split:
        assert pair.server.read_message() == b"ok"
    with pytest.raises(ProtocolError):
        pair.server.read_message()
    assert pair.ledger.held == 0


def test_a_peer_that_closes_inside_a_message() -> None:
    pair = MessagePair()
    pair.send_to_server(word_of(2) + b"ok" + word_of(3) + b"cu")
    pair.client.close()
    pair.run()
    assert pair.server.read_message() == b"ok"
    with pytest.raises(Truncated):
        pair.server.read_message()
    assert ended_by(pair.client).args == PeerAlert(Alert.DECODE_ERROR).args
    assert pair.ledger.held == 0


def test_a_stream_that_ends_inside_a_message() -> None:
    pair = MessagePair()
    pair.send_to_server(word_of(3) + b"cu")
    pair.server.receive_eof()
    with pytest.raises(Truncated):
        pair.server.read_message()


# -- bounds


def test_a_declared_length_costs_nothing() -> None:
    pair = MessagePair()
    held = pair.server.held_bytes
    pair.send_to_server(word_of(128 * 1024))
    assert pair.server.held_bytes == held
    pair.send_to_server(bytes(1_000))
    assert pair.server.held_bytes == held + 1_000


def test_what_waits_is_charged_until_it_is_taken() -> None:
    pair = MessagePair()
    held = pair.server.held_bytes
    pair.client.write_message(bytes(50_000))
    assert pair.ledger.held_for(Purpose.SEND_QUEUE) >= 50_000
    pair.run()
    assert pair.ledger.held_for(Purpose.SEND_QUEUE) == 0
    assert pair.server.held_bytes >= held + 50_000
    pair.server.read_message()
    assert pair.server.held_bytes == held


def test_a_message_above_the_limit_is_not_taken() -> None:
    pair = MessagePair(limits=Limits(message_bytes=100))
    pair.client.write_message(bytes(100))
    with pytest.raises(LimitReached) as caught:
        pair.client.write_message(bytes(101))
    assert caught.value.name == "message_bytes"
    pair.run()
    assert pair.server.read_messages() == [bytes(100)]


def test_writing_without_draining_is_bounded() -> None:
    pair = MessagePair(limits=Limits(send_queue_bytes=1_000))
    for _ in range(10):
        pair.client.write_message(bytes(100))
    with pytest.raises(LimitReached) as caught:
        pair.client.write_message(bytes(100))
    assert caught.value.name == "send_queue_bytes"
    assert pair.client.queued < 1_200


def test_reading_pauses_at_whole_messages_only() -> None:
    pair = MessagePair(limits=Limits(receive_queue_bytes=1_000))
    pair.client.write_message(bytes(100_000))
    pair.server.receive_data(pair.client.data_to_send(), 0.0)
    wants = [pair.server.want_read]  # it would never be whole
    pair.run()
    wants.append(pair.server.want_read)
    pair.server.read_message()
    wants.append(pair.server.want_read)
    assert wants == [True, False, True]


def test_two_sides_that_write_at_once_do_not_wait_for_each_other() -> None:
    pair = MessagePair()
    for end in (pair.client, pair.server):
        for _ in range(2):
            end.write_message(bytes(128 * 1024))
        assert end.want_read


def test_a_connection_without_room_ends() -> None:
    pair = MessagePair(limits=Limits(connection_bytes=50_000))
    pair.send_to_server(word_of(30_000) + bytes(30_000))
    pair.client.write_message(bytes(30_000))
    pair.run()
    assert isinstance(pair.server.error, LimitReached)
    assert pair.server.read_message() == bytes(30_000)
    pair.server.release()
    pair.client.release()
    assert pair.ledger.held == 0


def test_time_is_needed() -> None:
    pair = MessagePair()
    pair.client.write_message(b"x")
    with pytest.raises(ValueError, match="the time"):
        pair.server.receive_data(pair.client.data_to_send())
