"""Early data in message mode: whole messages, kept apart, and answered before the handshake is over."""

from __future__ import annotations

import pytest

from sealwire import stcp
from sealwire.context import SessionStore
from sealwire.errors import Alert, ConfigurationError, ProtocolError
from sealwire.limits import Purpose
from sealwire.stcp.frames import Control, control_frame, word_of
from sealwire.tls13.tickets import SessionTicket
from tests.configs import client_context, server_context
from tests.unit.stcp.message_pair import MessagePair


class EarlyPair(MessagePair):
    """A client that comes back to a server that takes early data."""

    def __init__(self, messages: bool | str = True, first: bool | str = True) -> None:
        server, client = server_context(alpn=["http/1.1"]), client_context(alpn=["http/1.1"])
        server.num_tickets, server.max_early_data_size = 1, 1_000
        client.session_store = SessionStore()
        super().__init__(first, True, client=client, server=server, handshake=False)
        self.run()
        tickets = [event.ticket for event in self.client.events() if isinstance(event, stcp.TicketReceived)]
        assert isinstance(tickets[0], SessionTicket)
        self.client = stcp.Connection.client(
            client.config(),
            now=0.0,
            server_name="localhost",
            ledger=self.ledger,
            ticket=tickets[0],
            early_data=True,
            messages=messages,
        )
        self.server = stcp.Connection.server(server.config(), now=0.0, ledger=self.ledger, messages=True)


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_messages_come_apart_from_the_others(step: int) -> None:
    pair = EarlyPair()
    pair.client.send_replayable_message(b"question")
    pair.client.send_replayable_message(b"")
    pair.to_server(step)
    assert pair.server.state == "handshaking"
    held = pair.ledger.held_for(Purpose.EARLY_DATA)
    assert held > 8
    assert pair.server.read_early_messages() == [b"question", b""]
    assert pair.ledger.held_for(Purpose.EARLY_DATA) == 0
    pair.server.write_message_before_finished(b"answer")
    pair.to_client(step)
    assert pair.client.read_message() == b"answer"
    pair.run(step)
    pair.client.write_message(b"later")
    pair.run(step)
    assert pair.server.read_message() == b"later"
    pair.server.write_message_before_finished(b"after all")
    pair.run(step)
    assert pair.client.read_message() == b"after all"
    assert pair.client.early_data is stcp.EarlyData.ACCEPTED


def test_a_message_in_two_records() -> None:
    pair = EarlyPair()
    pair.client._send_replayable(word_of(6) + b"hal")
    pair.client._send_replayable(b"ves")
    pair.run()
    assert pair.server.read_early_messages() == [b"halves"]


@pytest.mark.parametrize(
    ("stream", "alert"),
    [
        (control_frame(Control.GO_AWAY), Alert.UNEXPECTED_MESSAGE),
        (word_of(6) + b"hal", Alert.DECODE_ERROR),
        (word_of(1 << 20), Alert.ILLEGAL_PARAMETER),
        (b"\x7c", Alert.DECODE_ERROR),
    ],
)
def test_frames_that_cannot_be_early(stream: bytes, alert: Alert) -> None:
    pair = EarlyPair()
    pair.client._send_replayable(stream)
    pair.run()
    assert isinstance(pair.server.error, ProtocolError)
    assert pair.server.error.alert is alert
    pair.client.release()
    pair.server.release()
    assert pair.ledger.held_for(Purpose.EARLY_DATA) == 0


def test_bytes_and_messages_are_not_mixed() -> None:
    pair = EarlyPair()
    with pytest.raises(ConfigurationError):
        pair.client.send_replayable(b"x")
    with pytest.raises(ValueError, match="more than"):
        pair.client.send_replayable_message(bytes(997))
    pair.client.send_replayable_message(bytes(996))
    pair.to_server()
    with pytest.raises(ConfigurationError):
        pair.server.read_early()
    with pytest.raises(ConfigurationError):
        pair.server.send_before_finished(b"x")
    plain = EarlyPair(False, False)
    with pytest.raises(ConfigurationError):
        plain.client.send_replayable_message(b"x")
    plain.client.send_replayable(b"bytes")
    plain.to_server()
    assert not plain.server.early_in_messages
    assert plain.server.read_early_messages() == []
    assert plain.server.read_early() == b"bytes"
    with pytest.raises(ConfigurationError):
        plain.server.write_message_before_finished(b"x")


def test_a_ticket_of_another_protocol_sends_nothing_early() -> None:
    """What would go out under it means something else there."""
    pair = EarlyPair(True, False)
    assert pair.client.max_replayable_bytes == 0
    assert pair.client.early_data is stcp.EarlyData.NOT_OFFERED
    pair.run()
    assert pair.client.session.resumed
    assert pair.client.message_mode
