"""A peer with one misbehaviour in its record layer, and the one alert each deserves.

The rogue is our own stack; `inject` makes it send a record it never would.  What the handshake
engine must refuse is tested with the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import stcp
from sealwire.errors import Alert, HandshakeError, PeerAlert, ProtocolError
from sealwire.limits import Limits
from sealwire.record import stream_reference
from sealwire.record.stream import StreamSealer
from sealwire.stcp import association as association_module
from sealwire.stcp.deframe import ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE
from sealwire.tls13.contract import InstallKeys
from tests.configs import client_context, server_context
from tests.unit.stcp.pair import Pair, inject, plain

CCS = b"\x01"
KEY_UPDATE = b"\x18\x00\x00\x01\x00"
KEY_UPDATE_ASKING = b"\x18\x00\x00\x01\x01"
TICKET = bytes.fromhex("04 00000e 00000e10 00000000 00 0001 aa 0000")


@dataclass(frozen=True)
class Made:
    """Sending keys one of the two installed, in order of installation."""

    n: int
    provider: Any
    spec: Any
    keys: Any
    epoch: int

    def again(self) -> stream_reference.StreamSealer:
        """A plain sealer with the same keys that begins again at record 0."""
        return stream_reference.StreamSealer(self.provider, self.spec, self.keys, self.epoch)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Made]:
    """Every set of sending keys installed while the test runs."""
    found: list[Made] = []

    def record(provider: Any, spec: Any, keys: Any, epoch: int) -> Any:
        found.append(Made(len(found) + 1, provider, spec, keys, epoch))
        return StreamSealer(provider, spec, keys, epoch)

    monkeypatch.setattr(association_module, "StreamSealer", record)
    return found


def refused(pair: Pair, victim: stcp.Connection, alert: Alert) -> None:
    """The victim failed with `alert`, and its peer heard so under keys it could open."""
    assert isinstance(victim.error, ProtocolError)
    assert victim.error.alert is alert
    other = pair.client if victim is pair.server else pair.server
    data = victim.data_to_send()
    other.receive_data(data)
    assert isinstance(other.error, PeerAlert)
    assert other.error.alert is alert
    other.release()
    victim.release()  # what it had received before
    assert pair.ledger.held == 0


AFTER: dict[str, tuple[int, bytes, Alert]] = {
    "an empty handshake record": (HANDSHAKE, b"", Alert.UNEXPECTED_MESSAGE),
    "an empty alert": (ALERT, b"", Alert.UNEXPECTED_MESSAGE),
    "an alert of one byte": (ALERT, b"\x01", Alert.DECODE_ERROR),
    "two alerts in a record": (ALERT, b"\x01\x00\x01\x00", Alert.DECODE_ERROR),
    "a protected ChangeCipherSpec": (CHANGE_CIPHER_SPEC, CCS, Alert.UNEXPECTED_MESSAGE),
    "an unknown content type": (99, b"x", Alert.UNEXPECTED_MESSAGE),
    "an ACK, which is for datagrams": (26, b"\x00\x00", Alert.UNEXPECTED_MESSAGE),
    "an unknown handshake message": (HANDSHAKE, b"\x63\x00\x00\x00", Alert.UNEXPECTED_MESSAGE),
    "a second Finished": (HANDSHAKE, b"\x14\x00\x00\x20" + bytes(32), Alert.UNEXPECTED_MESSAGE),
    "a KeyUpdate that asks for 2": (HANDSHAKE, b"\x18\x00\x00\x01\x02", Alert.ILLEGAL_PARAMETER),
    "a KeyUpdate that is too short": (HANDSHAKE, b"\x18\x00\x00\x00", Alert.DECODE_ERROR),
    "bytes behind a KeyUpdate": (HANDSHAKE, KEY_UPDATE + b"\x18", Alert.UNEXPECTED_MESSAGE),
    "two KeyUpdates in a record": (HANDSHAKE, KEY_UPDATE * 2, Alert.UNEXPECTED_MESSAGE),
    "a message longer than the limit": (HANDSHAKE, b"\x04\x01\x00\x00", Alert.ILLEGAL_PARAMETER),
}


@pytest.mark.requirement(
    "8446-ALERT-1", "8446-ALERT-3", "8446-ALERT-4", "8446-POST-1", "8446-POST-5", "9147-4.1-4"
)
@pytest.mark.parametrize("victim", ["client", "server"])
@pytest.mark.parametrize("name", AFTER)
def test_after_the_handshake(name: str, victim: str) -> None:
    content_type, content, alert = AFTER[name]
    pair = Pair()
    if victim == "client":
        inject(pair.server, content_type, content)
        pair.to_client()
        refused(pair, pair.client, alert)
    else:
        inject(pair.client, content_type, content)
        pair.to_server()
        refused(pair, pair.server, alert)


UNPROTECTED: dict[str, tuple[bytes, Alert]] = {
    "application data": (plain(APPLICATION_DATA, bytes(40)), Alert.BAD_RECORD_MAC),
    "short application data": (plain(APPLICATION_DATA, b"x"), Alert.BAD_RECORD_MAC),
    "a handshake message": (plain(HANDSHAKE, KEY_UPDATE), Alert.UNEXPECTED_MESSAGE),
    "an alert": (plain(ALERT, b"\x02\x28"), Alert.UNEXPECTED_MESSAGE),
    "close_notify": (plain(ALERT, b"\x01\x00"), Alert.UNEXPECTED_MESSAGE),
    "a late ChangeCipherSpec": (plain(CHANGE_CIPHER_SPEC, CCS), Alert.UNEXPECTED_MESSAGE),
    "something else": (b"GET / HTTP/1.0\r\n", Alert.UNEXPECTED_MESSAGE),
    "a record too long": (b"\x17\x03\x03\x41\x01", Alert.RECORD_OVERFLOW),
}


@pytest.mark.requirement("8446-ALERT-5", "8446-ALERT-6")
@pytest.mark.parametrize("name", UNPROTECTED)
def test_unprotected_bytes_after_the_handshake(name: str) -> None:
    data, alert = UNPROTECTED[name]
    for victim in ("client", "server"):
        pair = Pair()
        side = pair.client if victim == "client" else pair.server
        side.receive_data(data)
        refused(pair, side, alert)


@pytest.mark.requirement("8446-ALERT-5")
def test_content_above_two_to_the_fourteenth(made: list[Made]) -> None:
    pair = Pair()
    sealer = made[-1].again()  # the server's application keys come first, then the client's
    # What no sealer makes willingly: one byte more than allowed, which still fits the outer limit.
    for size, allowed in ((1 << 14, True), ((1 << 14) + 1, False)):
        pair.server.receive_data(sealer._seal(0 if allowed else 1, APPLICATION_DATA, bytes(size), 0))
        assert (pair.server.error is None) is allowed
    refused(pair, pair.server, Alert.RECORD_OVERFLOW)


FIRST: dict[str, tuple[bytes, Alert]] = {
    "application data": (plain(APPLICATION_DATA, b"x"), Alert.UNEXPECTED_MESSAGE),
    "a ChangeCipherSpec": (plain(CHANGE_CIPHER_SPEC, CCS), Alert.UNEXPECTED_MESSAGE),
    "an empty handshake record": (plain(HANDSHAKE, b""), Alert.UNEXPECTED_MESSAGE),
    "a record too long": (b"\x16\x03\x01\x40\x01", Alert.RECORD_OVERFLOW),
    "a Finished": (plain(HANDSHAKE, b"\x14\x00\x00\x20" + bytes(32)), Alert.UNEXPECTED_MESSAGE),
    "a hello that is no hello": (plain(HANDSHAKE, b"\x01\x00\x00\x03abc"), Alert.DECODE_ERROR),
    "a hello too long": (plain(HANDSHAKE, b"\x01\x01\x00\x00"), Alert.ILLEGAL_PARAMETER),
    "SSL 2": (b"\x80\x2e\x01\x00\x02", Alert.UNEXPECTED_MESSAGE),
    "SSH": (b"SSH-2.0-x\r\n", Alert.UNEXPECTED_MESSAGE),
    "an alert of three bytes": (plain(ALERT, b"\x02\x28\x00"), Alert.DECODE_ERROR),
    "a ChangeCipherSpec inside a hello": (
        plain(HANDSHAKE, b"\x01\x00\x00\x80") + plain(CHANGE_CIPHER_SPEC, CCS),
        Alert.UNEXPECTED_MESSAGE,
    ),
    "close_notify inside a hello": (
        plain(HANDSHAKE, b"\x01\x00\x00\x80") + plain(ALERT, b"\x01\x00"),
        Alert.UNEXPECTED_MESSAGE,
    ),
}


@pytest.mark.parametrize("name", FIRST)
def test_as_the_first_bytes_to_a_server(name: str) -> None:
    data, alert = FIRST[name]
    pair = Pair(handshake=False)
    pair.server.receive_data(data)
    assert isinstance(pair.server.error, HandshakeError)
    refused(pair, pair.server, alert)


def test_a_client_that_speaks_only_tls_12() -> None:
    hello = bytes.fromhex("0303") + bytes(32) + bytes.fromhex("00 0002 c02f 01 00")
    pair = Pair(handshake=False)
    pair.server.receive_data(plain(HANDSHAKE, b"\x01" + len(hello).to_bytes(3, "big") + hello))
    assert isinstance(pair.server.error, HandshakeError)
    refused(pair, pair.server, Alert.PROTOCOL_VERSION)


# -- compatibility ChangeCipherSpec (RFC 8446 section 5)


def test_change_cipher_spec_is_dropped_wherever_it_may_be() -> None:
    pair = Pair(client_context(key_shares=["x25519"]), server_context(groups=["P-256"]), handshake=False)
    for _ in range(6):
        # Between any two flights of the handshake, from either side.
        client_may = pair.client.state == "handshaking"
        server_may = pair.server.state == "handshaking" and pair.server._hello_seen
        if client_may:
            pair.client.receive_data(plain(CHANGE_CIPHER_SPEC, CCS) * 2)
        if server_may:
            pair.server.receive_data(plain(CHANGE_CIPHER_SPEC, CCS) * 2)
        if not pair.to_server():
            pair.to_client()
    assert pair.client.state == pair.server.state == "connected"


@pytest.mark.parametrize("content", [b"", b"\x02", b"\x01\x01", b"\x00"])
def test_any_other_change_cipher_spec(content: bytes) -> None:
    pair = Pair(handshake=False)
    pair.to_server()
    pair.to_client()
    pair.server.receive_data(plain(CHANGE_CIPHER_SPEC, content))
    assert isinstance(pair.server.error, HandshakeError)
    assert pair.server.error.alert is Alert.UNEXPECTED_MESSAGE


def test_change_cipher_specs_without_end() -> None:
    pair = Pair(handshake=False)
    pair.to_server()
    pair.to_client()
    pair.server.receive_data(plain(CHANGE_CIPHER_SPEC, CCS) * 32)
    assert pair.server.state == "handshaking"
    pair.server.receive_data(plain(CHANGE_CIPHER_SPEC, CCS))
    error = pair.server.error
    assert isinstance(error, HandshakeError)
    assert error.alert is Alert.UNEXPECTED_MESSAGE


# -- keys and messages


@pytest.mark.requirement("8446-ALERT-3")
def test_handshake_bytes_behind_the_server_hello_in_its_record() -> None:
    pair = Pair(handshake=False)
    pair.to_server()
    flight = pair.server.data_to_send()
    length = int.from_bytes(flight[3:5], "big")
    hello = flight[5 : 5 + length]
    pair.client.receive_data(plain(HANDSHAKE, hello + b"\x08"))
    assert isinstance(pair.client.error, HandshakeError)
    assert pair.client.error.alert is Alert.UNEXPECTED_MESSAGE
    # The client has no keys yet: its alert is readable to a server that has not heard from it.
    pair.to_server()
    assert isinstance(pair.server.error, PeerAlert)
    assert pair.server.error.alert is Alert.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("between", [ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC])
def test_another_record_inside_a_message(between: int) -> None:
    pair = Pair()
    inject(pair.server, HANDSHAKE, TICKET[:5])
    if between == CHANGE_CIPHER_SPEC:
        pair.server._outgoing.send_compatibility_ccs()
    else:
        inject(pair.server, between, b"\x01\x00")
    pair.to_client()
    refused(pair, pair.client, Alert.UNEXPECTED_MESSAGE)


def test_a_message_may_be_split_over_records() -> None:
    pair = Pair()
    for n in TICKET:
        inject(pair.server, HANDSHAKE, bytes((n,)), padding=3)
    inject(pair.server, HANDSHAKE, TICKET * 3)
    inject(pair.server, APPLICATION_DATA, b"")
    inject(pair.server, APPLICATION_DATA, b"after them", padding=1_000)
    pair.to_client()
    assert pair.client.error is None
    assert pair.client.read() == b"after them"


def test_application_data_before_the_handshake_is_finished() -> None:
    pair = Pair(handshake=False)
    pair.to_server()
    pair.to_client()
    inject(pair.server, APPLICATION_DATA, b"half a round trip early")  # a server may do this
    pair.to_client()
    assert pair.client.read() == b"half a round trip early"


def test_a_client_that_sends_data_under_handshake_keys(made: list[Made]) -> None:
    pair = Pair(handshake=False)
    pair.to_server()
    pair.to_client()
    [sealer] = [keys.again() for keys in made if keys.epoch == 2 and keys.n == 3]
    pair.server.receive_data(sealer.seal(APPLICATION_DATA, b"x"))
    assert isinstance(pair.server.error, HandshakeError)
    assert pair.server.error.alert is Alert.UNEXPECTED_MESSAGE


@pytest.mark.requirement("8446-POST-3")
def test_key_updates_in_a_row_are_bounded() -> None:
    pair = Pair(limits=Limits(key_updates_in_a_row=5))
    for n in range(20):
        if n % 5 == 0:
            pair.client.send(b"x")  # data in between makes it well
        pair.client.update_keys()
    pair.to_server()
    assert pair.server.error is None
    pair.client.send(b"x")
    for _ in range(5):
        pair.client.update_keys()
        inject(pair.client, APPLICATION_DATA, b"")  # an empty record is no data
    pair.to_server()
    assert pair.server.error is None
    pair.client.update_keys()
    pair.to_server()
    refused(pair, pair.server, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.requirement("8446-POST-3")
def test_a_peer_that_asks_for_key_updates_and_reads_nothing() -> None:
    pair = Pair(limits=Limits(send_queue_bytes=2_000))
    asked = 0
    while pair.server.want_read:
        asked += 1
        assert asked < 1_000
        pair.client.send(b"x")
        inject(pair.client, HANDSHAKE, KEY_UPDATE_ASKING)
        # The rogue follows with its keys, without sending the message its engine makes.
        pair.client._handshake.update_keys()
        for output in pair.client._handshake.outputs():
            if isinstance(output, InstallKeys):
                pair.client._install(output)
        pair.to_server()
    assert asked > 10
    assert pair.server.error is None
    assert 2_000 <= pair.server.queued < 2_100


# -- alerts


@pytest.mark.requirement("8446-ALERT-1", "8446-ALERT-7")
@pytest.mark.parametrize("level", [1, 2, 0, 255])
@pytest.mark.parametrize("code", [10, 40, 80, 117, 200])
def test_every_other_alert_is_fatal_whatever_its_level(level: int, code: int) -> None:
    pair = Pair()
    inject(pair.server, ALERT, bytes((level, code)))
    pair.to_client()
    assert isinstance(pair.client.error, PeerAlert)
    assert pair.client.error.alert == code
    assert pair.client.data_to_send() == b""  # an alert is not answered


@pytest.mark.requirement("8446-ALERT-2")
@pytest.mark.parametrize("level", [1, 2])
def test_user_canceled_is_followed_by_close_notify(level: int) -> None:
    pair = Pair()
    inject(pair.server, ALERT, bytes((level, Alert.USER_CANCELED)))
    inject(pair.server, APPLICATION_DATA, b"x")
    inject(pair.server, ALERT, bytes((level, Alert.CLOSE_NOTIFY)))
    pair.to_client()
    assert pair.client.error is None
    assert pair.client.peer_closed
    assert pair.client.read() == b"x"


# -- noise


@given(st.binary(max_size=300))
def test_any_first_bytes_to_a_server_have_an_answer(data: bytes) -> None:
    server = stcp.Connection.server(SERVER, now=0.0)
    server.receive_data(data)
    assert server.error is None or isinstance(server.error, (HandshakeError, PeerAlert, OSError))
    if isinstance(server.error, ProtocolError):
        assert server.data_to_send() == plain(ALERT, bytes((2, server.error.alert)))


@given(st.binary(max_size=300), st.sampled_from(["client", "server"]))
def test_any_bytes_to_an_established_connection_have_an_answer(data: bytes, victim: str) -> None:
    pair = Pair()
    side = pair.client if victim == "client" else pair.server
    side.receive_data(data)
    side.receive_eof()
    assert isinstance(side.error, OSError)


CHANGES: list[Callable[[int], int]] = [
    lambda n: n ^ 0x01,
    lambda n: n ^ 0x80,
    lambda _n: 0x00,
    lambda _n: 0xFF,
]
SERVER = server_context().config()
CLIENT = client_context().config()


@pytest.mark.parametrize("change", range(len(CHANGES)))
@pytest.mark.parametrize("victim", ["server", "client"])
def test_every_byte_of_a_flight_replaced(victim: str, change: int) -> None:
    first = Pair(handshake=False)
    flight = bytes(first.client.pending())
    step = 1
    if victim == "client":
        first.to_server()
        flight = bytes(first.server.pending())
        step = 7  # each needs a handshake of its own: a flight belongs to its hello
    for at in range(0, len(flight), step):
        value = CHANGES[change](flight[at])
        if value == flight[at]:
            continue
        pair = Pair(handshake=False)
        side = pair.server
        data = flight
        if victim == "client":
            pair.to_server()
            side, data = pair.client, bytes(pair.server.pending())
            if at >= len(data):
                continue
        side.receive_data(data[:at] + bytes((CHANGES[change](data[at]),)) + data[at + 1 :])
        side.receive_eof()
        assert side.state == "closed"
        assert isinstance(side.error, OSError)


@pytest.mark.parametrize("victim", ["server", "client"])
def test_every_prefix_of_a_flight(victim: str) -> None:
    for step in range(0, 2_000, 13):
        pair = Pair(handshake=False)
        side, data = pair.server, bytes(pair.client.pending())
        if victim == "client":
            pair.to_server()
            side, data = pair.client, bytes(pair.server.pending())
        if step >= len(data):
            break
        side.receive_data(data[:step])
        assert side.error is None
        assert side.state == "handshaking"
        side.receive_eof()
        assert side.state == "closed"
