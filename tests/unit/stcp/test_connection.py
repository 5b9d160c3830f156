"""One STCP connection from hello to close: what both sides see, what is held, how each end ends."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import stcp
from sealwire.errors import (
    Alert,
    CertificateError,
    CertificateFailure,
    ConfigurationError,
    ConnectionClosed,
    Error,
    HandshakeError,
    LimitReached,
    PeerAlert,
    Truncated,
)
from sealwire.limits import Ledger, Limits, Purpose
from sealwire.record.stream import StreamSealer
from sealwire.stcp import Closed, Connected, PeerClosed
from sealwire.stcp import association as connection_module
from tests import certificates
from tests.certificates import Kind
from tests.configs import client_context, server_context
from tests.unit.stcp.pair import Pair, deliver


def test_handshake_echo_close() -> None:
    pair = Pair(client_context(alpn=["echo/1"]), server_context(alpn=["other", "echo/1"]))
    assert pair.client.events() == pair.server.events() == [Connected()]
    for side in (pair.client, pair.server):
        assert side.session.version == "TLS 1.3"
        assert side.session.alpn == b"echo/1"
        assert side.session.server_name == "localhost"
        assert side.deadline() is None
    assert pair.client.session.peer_certificate is not None
    assert pair.client.session.peer_certificate.chain == certificates.server().chain
    assert pair.server.session.peer is None

    pair.client.send(b"over there")
    pair.to_server()
    pair.server.send(pair.server.read())
    pair.to_client()
    assert pair.client.read(4) == b"over"
    assert pair.client.buffered == 6
    assert pair.client.read() == b" there"
    assert pair.client.read() == b""

    pair.client.close()
    assert pair.client.state == "closing"
    pair.to_server()
    assert pair.server.events() == [PeerClosed()]
    assert pair.server.state == "connected"
    pair.server.send(b"last words")
    pair.server.close()
    assert pair.server.events() == [Closed(None)]
    pair.to_client()
    assert pair.client.read() == b"last words"
    assert pair.client.events() == [PeerClosed(), Closed(None)]
    assert pair.client.state == pair.server.state == "closed"
    assert pair.client.error is None
    assert pair.ledger.held == 0
    with pytest.raises(ConnectionClosed):
        pair.client.send(b"more")


@pytest.mark.parametrize("step", [1, 3, 100, 1_000])
def test_a_stream_cut_anywhere(step: int) -> None:
    pair = Pair(handshake=False)
    pair.run(step)
    pair.client.send(bytes(range(256)) * 10)
    pair.run(step)
    assert pair.server.read() == bytes(range(256)) * 10


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40_000)), max_size=6), st.integers(1, 30_000))
def test_bytes_arrive_in_order(pieces: list[tuple[bool, bytes]], step: int) -> None:
    pair = PAIR
    expected = {True: b"", False: b""}
    for from_client, data in pieces:
        (pair.client if from_client else pair.server).send(data)
        expected[from_client] += data
    pair.run(step)
    assert pair.server.read() == expected[True]
    assert pair.client.read() == expected[False]
    assert pair.ledger.held_for(Purpose.RECEIVE_QUEUE) == pair.ledger.held_for(Purpose.SEND_QUEUE) == 0


PAIR = Pair()


def test_what_is_sent_early_waits_for_the_handshake() -> None:
    pair = Pair(handshake=False)
    pair.client.send(b"from the client")
    pair.server.send(b"from the server")
    assert pair.client.queued > len(b"from the client")  # and the ClientHello
    pair.run()
    assert pair.server.read() == b"from the client"
    assert pair.client.read() == b"from the server"
    with pytest.raises(Error):
        _ = Pair(handshake=False).client.session


def test_the_network_may_take_a_part() -> None:
    pair = Pair()
    pair.client.send(b"a" * 1_000)
    pair.client.send(b"b" * 1_000)
    whole = bytes(pair.client.pending())
    pair.client.sent(700)
    pair.client.send(b"c")
    assert bytes(pair.client.pending()).startswith(whole[700:])
    pair.server.receive_data(whole[:700])
    pair.to_server()
    assert pair.server.read() == b"a" * 1_000 + b"b" * 1_000 + b"c"
    assert bytes(pair.client.pending()) == b""


def test_client_certificate() -> None:
    identity = certificates.client(Kind.ED25519)
    pair = Pair(client_context(identity=identity), server_context(client_roots=identity.cafile))
    assert pair.server.session.peer_certificate is not None
    assert pair.server.session.peer_certificate.names == ("client.example",)


def reads(connection: stcp.Connection) -> bool:
    return connection.want_read


def failing(pair: Pair) -> tuple[Error | TimeoutError | None, Error | TimeoutError | None]:
    pair.run()
    assert pair.client.state == pair.server.state == "closed"
    assert pair.client.events()[-1] == Closed(pair.client.error)
    assert pair.server.events()[-1] == Closed(pair.server.error)
    for side in (pair.client, pair.server):
        assert side.error is not None
        for call in (partial(side.send, b"x"), side.read, partial(side.receive_data, b"x"), side.update_keys):
            with pytest.raises(type(side.error)) as caught:
                call()
            assert caught.value is side.error
    assert pair.ledger.held == 0
    return pair.client.error, pair.server.error


def test_an_unknown_authority() -> None:
    ours, theirs = failing(Pair(client_context(certificates.server(Kind.RSA_2048).cafile), handshake=False))
    assert isinstance(ours, CertificateError)
    assert ours.failure is CertificateFailure.UNKNOWN_ISSUER
    assert isinstance(theirs, PeerAlert)
    assert theirs.alert is Alert.UNKNOWN_CA


def test_a_certificate_for_another_name() -> None:
    ours, theirs = failing(Pair(server_name="elsewhere.example", handshake=False))
    assert isinstance(ours, CertificateError)
    assert ours.failure is CertificateFailure.WRONG_NAME
    assert isinstance(theirs, PeerAlert)
    assert theirs.alert is ours.alert


def test_a_client_without_the_certificate_asked_for() -> None:
    pair = Pair(server=server_context(client_roots=certificates.client().cafile), handshake=False)
    pair.run()
    assert isinstance(pair.server.error, CertificateError)
    assert isinstance(pair.client.error, PeerAlert)
    # The client had finished; the refusal is the first it hears afterwards (RFC 8446 section 4.4.2.4).
    assert pair.client.error.alert is Alert.CERTIFICATE_REQUIRED


def test_nothing_in_common() -> None:
    pair = Pair(
        client_context(suites=["TLS_AES_128_GCM_SHA256"]),
        server_context(suites=["TLS_AES_256_GCM_SHA384"]),
        handshake=False,
    )
    ours, theirs = failing(pair)
    assert isinstance(theirs, HandshakeError)
    assert isinstance(ours, PeerAlert)
    assert ours.alert is theirs.alert is Alert.HANDSHAKE_FAILURE


def test_a_client_needs_a_name_while_names_are_checked() -> None:
    with pytest.raises(ConfigurationError):
        stcp.Connection.client(client_context().config(), now=0.0)


@pytest.mark.requirement("8446-POST-1")
def test_a_key_update_is_answered_once_when_asked_for() -> None:
    pair = Pair()
    pair.client.update_keys(request_peer=True)
    pair.client.send(b"under new keys")
    pair.run()
    assert pair.server.read() == b"under new keys"
    assert pair.client.counters.key_updates == pair.server.counters.key_updates == 2
    pair.server.send(b"and back")
    pair.server.update_keys()
    pair.server.send(b", again")
    pair.run()
    assert pair.client.read() == b"and back, again"
    assert pair.client.counters.key_updates == pair.server.counters.key_updates == 3
    with pytest.raises(Error):
        Pair(handshake=False).client.update_keys()


@pytest.mark.requirement("8446-POST-2")
def test_keys_change_before_the_limit_of_the_aead(monkeypatch: pytest.MonkeyPatch) -> None:
    keys_made: list[Any] = []

    def with_low_limit(provider: Any, spec: Any, keys: Any, epoch: int) -> Any:
        keys_made.append(StreamSealer(provider, dataclasses.replace(spec, seal_limit=4), keys, epoch))
        return keys_made[-1]

    monkeypatch.setattr(connection_module, "StreamSealer", with_low_limit)
    pair = Pair()
    data = bytes(200_000)  # 13 records
    pair.client.send(data)
    for _ in range(10):
        pair.client.send(b"x")
    pair.run()
    assert pair.server.read() == data + b"x" * 10
    assert len(keys_made) > 8
    assert all(sealer.sealed <= 4 for sealer in keys_made)


def test_reading_pauses_while_the_application_reads_nothing() -> None:
    pair = Pair(limits=Limits(receive_queue_bytes=30_000))
    assert reads(pair.server)
    pair.client.send(bytes(40_000))
    pair.run()
    assert not reads(pair.server)
    pair.server.read(20_000)
    assert reads(pair.server)


def test_reading_pauses_while_the_peer_takes_nothing() -> None:
    pair = Pair(limits=Limits(send_queue_bytes=1_000))
    pair.server.send(bytes(900))
    assert reads(pair.server)
    pair.server.send(bytes(200))
    assert not reads(pair.server)
    with pytest.raises(LimitReached) as caught:
        pair.server.send(b"x")
    assert caught.value.name == "send_queue_bytes"
    pair.to_client()
    assert reads(pair.server)
    assert pair.client.read() == bytes(1_100)


def test_reading_pauses_while_the_ledger_is_nearly_full() -> None:
    pair = Pair(limits=Limits(total_bytes=100_000, connection_bytes=100_000))
    pair.client.send(bytes(40_000))
    pair.run()
    assert reads(pair.server)
    pair.ledger.charge(Purpose.TABLES, 90_000 - pair.ledger.held)
    assert not reads(pair.server)


def test_a_ledger_without_room_ends_the_connection_that_needs_it() -> None:
    limits = Limits(connection_bytes=60_000)
    pair = Pair(limits=limits)
    for _ in range(2):
        pair.client.send(bytes(40_000))
        pair.to_server()
    assert isinstance(pair.server.error, LimitReached)
    assert pair.server.error.name == "connection_bytes"
    pair.to_client()
    assert isinstance(pair.client.error, PeerAlert)
    assert pair.client.error.alert is Alert.INTERNAL_ERROR
    assert len(pair.server.read()) >= 40_000  # what fitted is still the application's
    assert pair.ledger.held == 0
    with pytest.raises(LimitReached) as caught:
        stcp.Connection.server(server_context().config(), now=0.0, ledger=Ledger(100))
    assert caught.value.name == "total_bytes"


def test_a_send_without_room_takes_nothing_and_harms_nothing() -> None:
    pair = Pair(limits=Limits(connection_bytes=60_000))
    with pytest.raises(LimitReached) as caught:
        pair.client.send(bytes(60_000))
    assert caught.value.name == "connection_bytes"
    pair.client.send(b"small")
    pair.run()
    assert pair.server.read() == b"small"


def test_the_handshake_has_a_deadline() -> None:
    pair = Pair(limits=Limits(handshake_seconds=5.0), handshake=False)
    assert pair.client.deadline() == pair.server.deadline() == 5.0
    pair.client.wake(4.9)
    assert pair.client.state == "handshaking"
    pair.client.wake(5.0)
    assert isinstance(pair.client.error, TimeoutError)
    assert pair.client.deadline() is None
    with pytest.raises(TimeoutError):
        pair.client.send(b"x")


def test_the_end_of_the_stream_without_close_notify_is_no_end() -> None:
    pair = Pair()
    pair.client.send(b"whole?")
    pair.to_server()
    pair.server.receive_eof()
    assert pair.server.read() == b"whole?"
    with pytest.raises(Truncated):
        pair.server.read()
    pair.client.close()
    pair.client.receive_eof()
    assert isinstance(pair.client.error, Truncated)

    pair = Pair(handshake=False)
    pair.server.receive_eof()
    assert isinstance(pair.server.error, Truncated)


def test_the_end_of_the_stream_after_close_notify() -> None:
    pair = Pair()
    pair.client.close()
    pair.to_server()
    pair.server.receive_eof()
    assert pair.server.error is None
    pair.server.receive_data(b"ignored, whatever it is")
    assert pair.server.state == "connected"


@pytest.mark.requirement("8446-ALERT-2")
@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_handshake_can_be_cancelled(moves: int) -> None:
    pair = Pair(handshake=False)
    for n in range(moves):
        _ = pair.to_server() if n % 2 == 0 else pair.to_client()
    if pair.client.state == "handshaking":
        pair.client.close()
        assert pair.client.state == "closed"
        pair.to_server()
    else:
        pair.server.close()
        assert pair.server.state == "closed"
        pair.to_client()
    other = pair.client if pair.client.state == "connected" else pair.server
    if other is pair.server:
        assert isinstance(other.error, ConnectionClosed)
        pair.run()
        assert pair.ledger.held == 0
    else:
        assert other.peer_closed


def test_no_answer_to_a_key_update_after_close_notify() -> None:
    pair = Pair()
    pair.server.close()
    pair.client.update_keys(request_peer=True)
    pair.client.send(b"still heard")
    pair.to_server()
    assert pair.server.read() == b"still heard"
    pair.to_client()
    assert pair.client.events()[-1] == PeerClosed()
    assert pair.client.error is None


def test_abort_tells_the_peer_why_if_there_is_an_alert() -> None:
    pair = Pair()
    pair.server.abort(HandshakeError(Alert.ACCESS_DENIED, "not you"))
    pair.run()
    assert isinstance(pair.client.error, PeerAlert)
    assert pair.client.error.alert is Alert.ACCESS_DENIED


def test_release_gives_everything_back() -> None:
    pair = Pair()
    pair.client.send(bytes(50_000))
    pair.to_server()
    pair.server.send(bytes(50_000))
    assert pair.ledger.held > 100_000
    pair.server.release()
    pair.client.release()
    assert pair.ledger.held == 0
    assert pair.server.read() == b"" if pair.server.error is None else pair.server.state == "closed"


@pytest.mark.requirement("5705-1", "8446-KS-8")
def test_exported_keys_agree() -> None:
    pair = Pair()
    for label, context, n in [(b"EXPORTER-a", b"", 32), (b"EXPORTER-a", b"c", 32), (b"EXPORTER-b", b"", 100)]:
        assert pair.client.export(label, context, n) == pair.server.export(label, context, n)
    assert pair.client.export(b"EXPORTER-a", b"", 32) != pair.client.export(b"EXPORTER-a", b"c", 32)
    # RFC 9266 section 4.2: this label, no context, 32 bytes.
    assert pair.client.tls_exporter() == pair.server.export(b"EXPORTER-Channel-Binding", b"", 32)
    with pytest.raises(Error):
        Pair(handshake=False).client.tls_exporter()


def test_the_first_hello_says_an_old_version_and_nothing_after_it() -> None:
    pair = Pair(client_context(key_shares=["x25519"]), server_context(groups=["P-256"]), handshake=False)
    assert bytes(pair.client.pending())[:3] == b"\x16\x03\x01"
    pair.to_server()
    assert bytes(pair.server.pending())[:3] == b"\x16\x03\x03"
    pair.to_client()
    second = bytes(pair.client.pending())
    assert b"\x16\x03\x01" not in (second[:3], second[6:9])
    pair.run()
    assert pair.client.session.retried
    assert deliver(pair.client, pair.server) is False
