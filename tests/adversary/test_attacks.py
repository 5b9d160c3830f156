"""Attacks that no other test makes: our own stack with one misbehaviour switched on (attacks.toml)."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from sealwire import dtls, stcp
from sealwire.crypto.hkdf import DTLS13_PREFIX, traffic_keys
from sealwire.crypto.providers import CryptoProvider, default_provider
from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.dtls.header import ContentType, fragment_header
from sealwire.errors import Alert, Discard, HandshakeError
from sealwire.stcp.deframe import HANDSHAKE
from sealwire.tls13.messages import HandshakeType, KeyUpdate, NewSessionTicket
from tests import configs
from tests.unit.dtls.rig import joined
from tests.unit.stcp.pair import Pair, inject

TICKET = bytes.fromhex("04 00000e 00000e10 00000000 00 0001 aa 0000")


# --- messages


def depth() -> int:
    """How deep the stack is here."""
    frame, n = sys._getframe(), 0
    while frame.f_back is not None:
        frame, n = frame.f_back, n + 1
    return n


@pytest.fixture
def depths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How deep the stack was whenever a ticket was read."""
    found: list[int] = []
    decode = NewSessionTicket.decode.__func__  # type: ignore[attr-defined]

    def watched(cls: type[NewSessionTicket], reader: object) -> object:
        found.append(depth())
        return decode(cls, reader)

    monkeypatch.setattr(NewSessionTicket, "decode", classmethod(watched))
    return found


def test_thousands_of_messages_in_one_record_are_handled_one_after_the_other(depths: list[int]) -> None:
    """FRG-6"""
    pair = Pair()
    count = 16_000 // len(TICKET)
    inject(pair.server, HANDSHAKE, TICKET * count)
    pair.to_client()
    assert pair.client.error is None
    assert len(depths) == count > 800
    assert len(set(depths)) == 1


def test_messages_that_waited_are_handled_one_after_the_other(depths: list[int]) -> None:
    """FRG-6: over datagrams they are released together, by the first one, which comes last."""
    rig = joined(client=replace(configs.client_context().config(), num_tickets=2))
    first = rig.client._layer.reassembly.next_seq
    body = TICKET[4:]
    ahead = rig.client.limits.future_messages
    for seq in reversed(range(first, first + ahead)):
        content = fragment_header(HandshakeType.NEW_SESSION_TICKET, len(body), seq, 0, len(body)) + body
        rig.inject(rig.server, ContentType.HANDSHAKE, content)
        assert not depths or seq == first
    assert rig.client.error is None
    assert len(depths) == ahead
    assert len(set(depths)) == 1


def test_data_between_the_parts_of_a_message_is_delivered_at_once() -> None:
    """FRG-7"""
    rig = joined(client=replace(configs.client_context().config(), num_tickets=2))
    seq = rig.client._layer.reassembly.next_seq
    body = TICKET[4:]

    def part(start: int, end: int) -> bytes:
        kind = HandshakeType.NEW_SESSION_TICKET
        return fragment_header(kind, len(body), seq, start, end - start) + body[start:end]

    rig.inject(rig.server, ContentType.HANDSHAKE, part(5, len(body)))
    rig.inject(rig.server, ContentType.APPLICATION_DATA, b"meanwhile")
    assert rig.client.messages() == [b"meanwhile"]
    assert not any(isinstance(one, dtls.TicketReceived) for one in rig.client.events())
    rig.inject(rig.server, ContentType.HANDSHAKE, part(0, 5))
    assert any(isinstance(one, dtls.TicketReceived) for one in rig.client.events())


# --- records


@pytest.mark.parametrize("side", ["client", "server"])
def test_records_of_one_connection_mean_nothing_to_another(side: str) -> None:
    """REC-3: the same two settings, the same name, a moment later."""
    one, other = joined(), joined()
    sender, victim = getattr(one, side), getattr(other, "server" if side == "client" else "client")
    sender.send(b"for this one alone")
    copies = one.take(sender)
    before = victim.counters.discards.get(Discard.AUTHENTICATION, 0)
    victim.receive_run(copies, other.now)
    assert victim.messages() == []
    assert victim.counters.discards[Discard.AUTHENTICATION] == before + 1
    assert victim.transmit(other.now) == []
    other.echo()


def test_new_keys_while_a_ticket_is_repeated() -> None:
    """REL-3: the ticket's ACK is lost, a KeyUpdate goes out, and the ticket comes again in its old epoch."""
    rig = joined(client=replace(configs.client_context().config(), num_tickets=2))
    seq = rig.client._layer.reassembly.next_seq
    body = TICKET[4:]
    content = fragment_header(HandshakeType.NEW_SESSION_TICKET, len(body), seq, 0, len(body)) + body
    rig.inject(rig.server, ContentType.HANDSHAKE, content)
    assert sum(isinstance(one, dtls.TicketReceived) for one in rig.client.events()) == 1
    assert rig.take(rig.client)  # the ACK, which is lost
    update = KeyUpdate(False).encode()[4:]
    again = fragment_header(HandshakeType.KEY_UPDATE, len(update), seq + 1, 0, len(update)) + update
    rig.inject(rig.server, ContentType.HANDSHAKE, again)
    rig.inject(rig.server, ContentType.HANDSHAKE, content)
    assert rig.client.error is None
    # It is acknowledged again and not taken for a second one.
    assert not any(isinstance(one, dtls.TicketReceived) for one in rig.client.events())
    assert rig.take(rig.client)
    rig.client.send(b"still here")
    rig.deliver(rig.client)
    assert rig.server.messages() == [b"still here"]


# --- randomness (HS-16)


class Broken(OpenSslProvider):
    """Its random numbers have run dry."""

    def random(self, n: int) -> bytes:
        raise OSError("no entropy")


def test_without_randomness_there_is_no_connection() -> None:
    """HS-16: nothing is sent that could be guessed."""
    config = replace(configs.client_context().config(), provider=Broken())
    with pytest.raises(OSError, match="no entropy"):
        dtls.Connection.client(config, now=0.0, server_name="localhost")
    with pytest.raises(OSError, match="no entropy"):
        stcp.Connection.client(config, now=0.0, server_name="localhost")


def test_a_server_whose_randomness_fails_says_internal_error() -> None:
    """HS-16: its client hears so, and gets no ServerHello."""
    server = replace(configs.server_context().config(), provider=Broken())
    rig = joined(server=server, handshake=False)
    rig.deliver(rig.client)
    assert isinstance(rig.server.error, HandshakeError)
    assert rig.server.error.alert is Alert.INTERNAL_ERROR
    [alert] = rig.take(rig.server)
    assert alert[0] == ContentType.ALERT
    assert len(alert) == 13 + 2


def test_the_provider_that_fails_is_otherwise_the_usual_one() -> None:
    """The two tests above would prove nothing if this one could not connect at all."""

    class Working(Broken):
        def random(self, n: int) -> bytes:
            return default_provider().random(n)

    provider: CryptoProvider = Working()
    rig = joined(
        client=replace(configs.client_context().config(), provider=provider),
        server=replace(configs.server_context().config(), provider=provider),
    )
    rig.echo()


# --- time (REL-17)


@pytest.mark.parametrize("seconds", [3600.0, 86_400.0 * 30])
def test_a_connection_outlives_a_long_sleep(seconds: float) -> None:
    rig = joined()
    rig.now += seconds
    for one in (rig.client, rig.server):
        one.wake(rig.now)
    rig.run()
    assert rig.client.state is rig.server.state is dtls.State.CONNECTED
    rig.echo()


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_handshake_that_slept_ends_by_its_deadline(side: str) -> None:
    rig = joined(handshake=False)
    rig.deliver(rig.client)
    one: dtls.Connection = getattr(rig, side)
    one.wake(1e6)
    assert one.state is dtls.State.CLOSED
    assert isinstance(one.error, TimeoutError)
    assert one.held_bytes == 0
    assert one.deadline() is None


# --- padding (REC-11)


@pytest.mark.requirement("9147-4.1-4", "8446-ALERT-4")
@pytest.mark.parametrize("zeros", [1, 2, 100, 1000])
def test_a_record_of_padding_alone_ends_the_connection(zeros: int) -> None:
    """It authenticated, so it is no noise of the network: RFC 8446 section 5.4 ends the connection."""
    lines: list[str] = []
    rig = joined(client=replace(configs.client_context().config(), keylog=lines.append))
    provider, spec = default_provider(), rig.client.session.suite
    [secret] = [line.split()[2] for line in lines if line.startswith("CLIENT_TRAFFIC_SECRET_0 ")]
    keys = traffic_keys(provider, spec, bytes.fromhex(secret), DTLS13_PREFIX)
    number = 1000
    header = bytes((0x2F,)) + number.to_bytes(2, "big") + (zeros + 16).to_bytes(2, "big")
    nonce = (int.from_bytes(keys.iv, "big") ^ number).to_bytes(12, "big")
    body = provider.aead(spec, keys.key).seal(nonce, bytes(zeros), header)
    mask = provider.mask(spec, keys.sn_key)(body[:16])
    masked = bytes(a ^ b for a, b in zip(header[1:3], mask, strict=False))
    rig.server.receive(header[:1] + masked + header[3:] + body, 0.0)
    rig.refuses(rig.server, Alert.UNEXPECTED_MESSAGE)
