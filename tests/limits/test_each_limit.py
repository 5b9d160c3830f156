"""Each field of Limits, forced: what happens at the number, and that it is counted.

One test (or more) per field, named by it; the last test of this file says which field has none.
"""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from sealwire import dtls, stcp
from sealwire.context import Config
from sealwire.dtls.cookie import Address
from sealwire.dtls.header import ContentType, decode_fragments, fragment_header
from sealwire.errors import (
    Alert,
    CertificateError,
    Discard,
    HandshakeError,
    KeysExhausted,
    LimitReached,
    ProtocolError,
)
from sealwire.limits import Ledger, Limits
from sealwire.limits.weights import ASLEEP_BYTES, CONNECTION_BYTES, HALF_OPEN_BYTES
from sealwire.tls13.messages import HandshakeType
from tests import certificates, configs
from tests.unit.dtls.hellos import HERE, Hello, body, pieces, record
from tests.unit.dtls.host import Site, addresses
from tests.unit.dtls.rig import Rig, joined
from tests.unit.stcp.pair import Pair as Streams

TICKET = bytes.fromhex("00000e10 00000000 00 0001 aa 0000")


def half_way(site: Site) -> None:
    """All clients of `site` get as far as their second hello."""
    site.up()
    site.down()
    site.up()


def send_many(one: dtls.Connection, n: int, size: int) -> None:
    """`n` messages, one after the other."""
    for _ in range(n):
        one.send(bytes(size))


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.requirement("9147-11-4")
def test_total_bytes() -> None:
    """An endpoint holds no more for all its peers together, and says no to the next."""
    each = HALF_OPEN_BYTES + 4_000
    limits = Limits(total_bytes=3 * each, connection_bytes=each)
    site = Site(limits=limits)
    for at in addresses(6):
        site.add(at)
    half_way(site)
    assert site.endpoint.ledger.peak <= limits.total_bytes
    assert site.endpoint.connections == 3
    assert site.endpoint.counters.discards[Discard.OVER_BUDGET] == 3
    assert site.endpoint.ledger.refusals == 3


def test_total_bytes_of_one_connection() -> None:
    limits = Limits(total_bytes=HALF_OPEN_BYTES - 1, connection_bytes=HALF_OPEN_BYTES - 1)
    with pytest.raises(LimitReached) as caught:
        dtls.Connection.server(configs.server_context().config(), now=0.0, limits=limits)
    assert caught.value.name == "handshake_bytes"
    ledger = Ledger(limits)
    with pytest.raises(LimitReached) as caught:
        dtls.Connection.server(configs.server_context().config(), now=0.0, ledger=ledger)
    assert caught.value.name == "total_bytes"


@pytest.mark.requirement("9147-7-2")
def test_connection_bytes_while_fragments_come() -> None:
    """What a connection may hold is a bound on all its parts together."""
    rig = joined(
        limits=Limits(connection_bytes=CONNECTION_BYTES + 20_000 + 30_000, handshake_message_bytes=1 << 20)
    )
    seq = rig.client._layer.reassembly.next_seq
    for n in range(100):
        content = fragment_header(4, 100_000, seq, n * 1000, 1000) + bytes(1000)
        rig.inject(rig.server, ContentType.HANDSHAKE, content)
        assert rig.client.held_bytes <= CONNECTION_BYTES + 50_000
    dropped = rig.client.counters.discards[Discard.OVER_BUDGET]
    assert 40 < dropped < 60
    rig.take(rig.client)
    rig.echo()


def test_connection_bytes_while_an_application_sends() -> None:
    rig = joined(limits=Limits(connection_bytes=HALF_OPEN_BYTES + 10_000))
    with pytest.raises(LimitReached):
        send_many(rig.client, 100, 1000)
    assert rig.client.held_bytes <= HALF_OPEN_BYTES + 10_000
    rig.run()
    rig.server.messages()
    rig.echo()


def test_connection_bytes_below_what_a_handshake_needs() -> None:
    """It ends with an alert, not with memory that was not granted."""
    identity = certificates.large_server(20_000)
    rig = joined(
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        limits=Limits(connection_bytes=HALF_OPEN_BYTES + 5_000),
        handshake=False,
    )
    rig.deliver(rig.client)
    assert isinstance(rig.server.error, HandshakeError)
    assert rig.server.error.alert is Alert.INTERNAL_ERROR
    assert rig.server.held_bytes == 0


# --- how many -----------------------------------------------------------------------------------


@pytest.mark.requirement("9147-11-4")
def test_connections() -> None:
    site = Site(limits=Limits(connections=4, handshakes=4))
    for at in addresses(7):
        site.add(at)
        site.run()
    assert site.endpoint.connections == 4
    assert site.endpoint.counters.admissions_refused == 3
    # The refused ones hear nothing and try on; a place that becomes free is theirs.
    site.served(addresses(7)[0]).abort()
    site.endpoint._touch(next(iter(site.endpoint)))
    site.skip(20.0)
    assert site.endpoint.connections == 4


@pytest.mark.requirement("9147-11-4")
def test_handshakes() -> None:
    site = Site(limits=Limits(handshakes=3))
    for at in addresses(10):
        site.add(at)
    half_way(site)
    assert site.endpoint.handshaking == 3
    assert site.endpoint.counters.admissions_refused == 7
    site.skip(60.0)
    assert site.endpoint.connections == 10


# --- handshake messages -------------------------------------------------------------------------


def with_chain(size: int) -> tuple[Config, Config]:
    identity = certificates.large_server(size)
    return configs.server_context(identity).config(), configs.client_context(identity.cafile).config()


@pytest.mark.requirement("9147-4.5.2-6")
def test_handshake_message_bytes() -> None:
    server, client = with_chain(9_000)
    rig = joined(server=server, client=client, limits=Limits(handshake_message_bytes=8_000), handshake=False)
    rig.run()
    assert isinstance(rig.client.error, HandshakeError)
    assert rig.client.error.alert is Alert.ILLEGAL_PARAMETER
    assert rig.client.state is rig.server.state is dtls.State.CLOSED


def test_handshake_messages_below_the_limit() -> None:
    server, client = with_chain(9_000)
    rig = joined(server=server, client=client, limits=Limits(handshake_message_bytes=12_000), handshake=False)
    rig.run()
    assert rig.client.state is dtls.State.CONNECTED


@pytest.mark.requirement("8446-AUTH-1")
@pytest.mark.parametrize("transport", ["dtls", "stcp"])
def test_certificate_chain_bytes(transport: str) -> None:
    server, client = with_chain(9_000)
    for size, accepted in ((12_000, True), (8_000, False)):
        error = shake_hands(transport, server, client, Limits(certificate_chain_bytes=size))
        if accepted:
            assert error is None
        else:
            assert isinstance(error, HandshakeError)
            assert "8000 bytes" in str(error)


@pytest.mark.requirement("8446-AUTH-1")
@pytest.mark.parametrize("transport", ["dtls", "stcp"])
def test_certificate_chain_length(transport: str) -> None:
    identity = certificates.server(intermediates=3)
    server, client = (
        configs.server_context(identity).config(),
        configs.client_context(identity.cafile).config(),
    )
    assert shake_hands(transport, server, client, Limits(certificate_chain_length=4)) is None
    error = shake_hands(transport, server, client, Limits(certificate_chain_length=3))
    assert isinstance(error, (HandshakeError, CertificateError))


@pytest.mark.parametrize("transport", ["dtls", "stcp"])
def test_certificate_chain_length_above_the_usual(transport: str) -> None:
    identity = certificates.server(intermediates=12)
    server, client = (
        configs.server_context(identity).config(),
        configs.client_context(identity.cafile).config(),
    )
    assert shake_hands(transport, server, client, Limits(certificate_chain_length=13)) is None
    for fewer in (12, 10):
        error = shake_hands(transport, server, client, Limits(certificate_chain_length=fewer))
        assert isinstance(error, HandshakeError)
        assert f"{fewer} certificates" in str(error)


@pytest.mark.parametrize("transport", ["dtls", "stcp"])
def test_what_a_peer_shows_is_charged_as_long_as_it_is_kept(transport: str) -> None:
    held = []
    for size in (9_000, 30_000):
        server, client = with_chain(size)
        if transport == "dtls":
            rig = joined(server=server, client=client, handshake=False)
            both = (rig.client, rig.server)
            rig.run_until(lambda both=both: all(one.state is dtls.State.CONNECTED for one in both))  # type: ignore[misc]
            ledger = rig.ledger
            held.append(ledger.held)
            for side in both:
                side.abort()
        else:
            ledger = Ledger(Limits())
            one = stcp.Connection.client(client, now=0.0, server_name="localhost", ledger=ledger)
            other = stcp.Connection.server(server, now=0.0)
            for _ in range(10):
                other.receive_data(one.data_to_send())
                one.receive_data(other.data_to_send())
            assert one.state == "connected"
            held.append(ledger.held)
            one.abort(ProtocolError(Alert.USER_CANCELED, "enough"))
            one.data_to_send()
        assert ledger.held == 0
    assert 20_000 <= held[1] - held[0] <= 23_000


def shake_hands(transport: str, server: Config, client: Config, limits: Limits) -> OSError | None:
    """The client's error, None if there was none."""
    if transport == "dtls":
        rig = joined(server=server, client=client, limits=limits, handshake=False)
        rig.run()
        assert (rig.client.error is None) == (rig.client.state is dtls.State.CONNECTED)
        return rig.client.error
    one = stcp.Connection.client(client, now=0.0, server_name="localhost", limits=limits)
    other = stcp.Connection.server(server, now=0.0, limits=limits)
    for _ in range(10):
        for sender, receiver in ((one, other), (other, one)):
            data = sender.data_to_send()
            if data and receiver.error is None:
                receiver.receive_data(data)
    assert (one.error is None) == (one.state == "connected")
    return one.error


def test_certificate_chains_within_limits_for_server_names_too() -> None:
    """A Config chosen by sni_callback is bounded as the one it replaces."""
    context = configs.server_context()
    other = configs.server_context()
    context.sni_callback = lambda name, current: other
    bounded = context.config().within(Limits(certificate_chain_bytes=1234, certificate_chain_length=2))
    chosen = bounded.for_server_name("localhost")
    assert (chosen.max_chain_bytes, chosen.max_chain_length) == (1234, 2)
    assert chosen.credentials == other.config().credentials
    assert context.config().within(Limits()) is context.config()


@pytest.mark.requirement("9147-5.2-4", "9147-7-3")
def test_future_messages() -> None:
    rig = joined(limits=Limits(future_messages=4))
    for ahead in range(1, 20):
        content = rig.message(rig.server, HandshakeType.NEW_SESSION_TICKET, TICKET, ahead=ahead)
        rig.inject(rig.server, ContentType.HANDSHAKE, content)
    assert rig.client.counters.discards == {Discard.FUTURE_MESSAGE: 16}
    # What waits is given out once the one before it comes.
    content = rig.message(rig.server, HandshakeType.NEW_SESSION_TICKET, TICKET)
    rig.inject(rig.server, ContentType.HANDSHAKE, content)
    rig.take(rig.client)
    assert rig.client._layer.reassembly.empty


@pytest.mark.requirement("9147-5.5-4")
def test_reassembly_ranges() -> None:
    rig = joined(limits=Limits(reassembly_ranges=8))
    seq = rig.client._layer.reassembly.next_seq
    for n in range(0, 100, 2):
        rig.inject(rig.server, ContentType.HANDSHAKE, fragment_header(4, 1000, seq, n, 1) + b"\0")
    assert rig.client.counters.discards == {Discard.OVER_BUDGET: 42}
    rig.take(rig.client)
    rig.echo()


# --- queues -------------------------------------------------------------------------------------


def test_receive_queue_bytes() -> None:
    rig = joined(limits=Limits(receive_queue_bytes=10_000))
    for _ in range(50):
        rig.client.send(bytes(936))
        rig.run()
    assert len(rig.server.messages()) == 10
    assert rig.server.counters.discards == {Discard.RECEIVE_QUEUE_FULL: 40}
    rig.echo()


def test_receive_queue_bytes_counts_empty_messages_too() -> None:
    rig = joined(limits=Limits(receive_queue_bytes=1_000))
    for _ in range(100):
        rig.client.send(b"")
    rig.run()
    assert len(rig.server.messages()) < 20


def test_send_queue_bytes() -> None:
    rig = joined(limits=Limits(send_queue_bytes=10_000))
    with pytest.raises(LimitReached) as caught:
        send_many(rig.client, 50, 936)
    assert caught.value.name == "send_queue_bytes"
    assert rig.client.send_queue_bytes == 10_000
    rig.run()
    assert len(rig.server.messages()) == 10
    rig.client.send(bytes(936))


# --- time and repetition ------------------------------------------------------------------------


def silent(limits: Limits, drop: Callable[[int], bool] = lambda n: True) -> Rig:
    """A client whose server never answers, until it gives up."""
    rig = joined(limits=limits, handshake=False)
    while rig.client.state is dtls.State.HANDSHAKING:
        rig.take(rig.client)
        due = rig.client.deadline()
        assert due is not None
        rig.now = due
        rig.client.wake(due)
    return rig


@pytest.mark.requirement("9147-5.10-4")
def test_handshake_seconds() -> None:
    rig = silent(Limits(handshake_seconds=7.5))
    assert rig.now == 7.5
    assert isinstance(rig.client.error, TimeoutError)
    assert "7.5 seconds" in str(rig.client.error)
    assert rig.client.held_bytes == 0


@pytest.mark.requirement("9147-5.10-4")
def test_handshake_seconds_of_a_peer_that_sends_a_fragment_now_and_then() -> None:
    """Progress is no excuse."""
    rig = joined(limits=Limits(handshake_seconds=30.0), handshake=False)
    [hello] = rig.take(rig.client)
    parts = pieces(body([hello]), 2)
    n = 0
    while rig.server.state is dtls.State.HANDSHAKING and n < len(parts) - 1:
        rig.server.receive(parts[n], rig.now)
        rig.now += 0.5
        n += 1
        if (due := rig.server.deadline()) is not None and due <= rig.now:
            rig.server.wake(rig.now)
        rig.take(rig.server)
    assert rig.now == pytest.approx(30.0)
    assert isinstance(rig.server.error, TimeoutError)
    assert rig.server.held_bytes == 0


@pytest.mark.requirement("9147-5.8.1-2", "9147-5.8.2-1")
def test_retransmissions() -> None:
    rig = silent(Limits(retransmissions=4, handshake_seconds=1000.0))
    assert rig.now == 1 + 2 + 4 + 8 + 16
    assert rig.client.counters.datagrams_sent >= 5
    assert rig.client.counters.retransmissions == 4
    assert isinstance(rig.client.error, TimeoutError)


@pytest.mark.requirement("8446-POST-3")
def test_key_updates_in_a_row() -> None:
    rig = joined(limits=Limits(key_updates_in_a_row=3))
    for _ in range(3):
        rig.client.update_keys(rig.now)
        rig.run()
    rig.echo()
    for _ in range(4):
        rig.client.update_keys(rig.now)
        rig.deliver(rig.client)
        if rig.server.error is None:
            rig.run()
    rig.refuses(rig.server, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.parametrize("transport", [dtls, stcp])
def test_rekey_seconds(transport: Any) -> None:
    if transport is dtls:
        rig = joined(limits=Limits(rekey_seconds=10.0))
        rig.client.send(b"data")
        rig.skip(11.0)
        assert rig.client.sending_epoch == 4
        assert rig.client.counters.rekeyed_by_age == 1
    else:
        pair = Streams(limits=Limits(rekey_seconds=10.0))
        pair.client.send(b"data")
        assert pair.client.deadline() == 10.0
        pair.client.wake(10.0)
        pair.run()
        assert pair.client.key_usage.sending_epoch == 4
        assert pair.client.counters.rekeyed_by_age == 1


@pytest.mark.requirement("9147-4.5.3-1", "9147-4.5.3-2", "8446-POST-2")
@pytest.mark.parametrize("transport", [dtls, stcp])
def test_records_per_key(transport: Any) -> None:
    limits = Limits(records_per_key=20)
    if transport is dtls:
        rig = joined(limits=limits)
        for _ in range(50):
            rig.client.send(b"data")
            rig.run()
            assert rig.client.key_usage.sealed <= 20
        assert rig.client.counters.rekeyed_by_use >= 2
    else:
        pair = Streams(limits=limits)
        for _ in range(50):
            pair.client.send(b"data")
            pair.run()
            assert pair.client.key_usage.sealed <= 20
        assert pair.client.counters.rekeyed_by_use >= 2
        assert pair.server.read() == b"data" * 50
    with pytest.raises(ValueError, match="records_per_key"):
        Limits(records_per_key=15)


@pytest.mark.requirement("9147-4.5.3-3", "9147-4.5.3-4", "9147-4.5.3-5")
def test_forgeries_per_key() -> None:
    rig = joined(limits=Limits(forgeries_per_key=3))
    for _ in range(3):
        rig.client.receive(b"\x2f\0\0\0\x20" + bytes(32), rig.now)
        rig.take(rig.client)
    assert isinstance(rig.client.error, ProtocolError)
    assert rig.client.error.alert is Alert.BAD_RECORD_MAC


@pytest.mark.requirement("9147-4.2.1-7", "9147-8-7")
@pytest.mark.parametrize("limit", ["epochs", "handshake_messages"])
def test_numbers_that_run_out(limit: str) -> None:
    rig = joined(limits=Limits(epochs=4) if limit == "epochs" else Limits(handshake_messages=7))
    assert rig.server.sending_epoch == 3
    # The server's handshake was five messages.
    for _ in range(1 if limit == "epochs" else 7 - 5):
        rig.server.update_keys(rig.now)
        rig.run()
    with pytest.raises(KeysExhausted):
        rig.server.update_keys(rig.now)
    assert rig.ledger.reached == {limit: 1}
    rig.echo()
    for value in (0x10000, 1 << 48):
        changed: dict[str, Any] = {limit: value}
        with pytest.raises(ValueError, match=limit):
            replace(Limits(), **changed)


@pytest.mark.requirement("9147-5.1-10", "9147-5.1-11")
@pytest.mark.parametrize("seconds", [2.0, 100.0])
def test_cookie_seconds(seconds: float) -> None:
    site = Site(limits=Limits(cookie_seconds=seconds, handshake_seconds=1000.0))
    client = site.add(HERE)
    site.up()
    site.down()
    second = [(datagram, HERE) for datagram in client.transmit(0.0)]
    site.now = seconds + 0.01
    site.endpoint.receive(second, site.now)
    assert site.endpoint.counters.cookies_refused == 1
    assert site.endpoint.connections == 0
    site.now = seconds - 0.01
    site.endpoint.receive(second, site.now)
    assert site.endpoint.connections == 1


# --- split hellos -------------------------------------------------------------------------------


def flood(site: Site, n: int, since: float, seconds: float) -> None:
    """Fragments from `n` strangers, spread over `seconds`."""
    junk = pieces(bytes(1800), 900)[0]
    for k in range(n):
        stranger: Address = (f"198.51.{k >> 8 & 255}.{k & 255}", k)
        site.endpoint.receive([(junk, stranger)], since + seconds * k / n)


def test_hello_slots() -> None:
    """A fixed number of hellos may be half here; the next ones are counted and dropped."""
    site = Site(limits=Limits(hello_slots=16))
    flood(site, 200, 0.0, 1.0)
    kept = site.endpoint.counters.discards[Discard.INCOMPLETE_HELLO]
    assert 8 < kept <= 16
    assert site.endpoint.counters.discards[Discard.OVER_BUDGET] == 200 - kept
    assert site.endpoint.transmit(1.0) == []


def test_hello_slots_are_all_the_memory_a_flood_gets() -> None:
    site = Site(limits=Limits(hello_slots=64, hello_slot_seconds=0.01))
    flood(site, 500, 0.0, 1.0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    flood(site, 5_000, 10.0, 100.0)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000


@pytest.mark.parametrize("enough", [True, False])
def test_hello_slot_bytes(enough: bool) -> None:
    config = configs.client_context(key_shares=["X25519MLKEM768"]).config()
    site = Site(client=config, limits=Limits(hello_slot_bytes=4_096 if enough else 1_000))
    client = site.add(HERE)
    site.run()
    assert (client.state is dtls.State.CONNECTED) == enough
    if not enough:
        assert site.endpoint.counters.discards[Discard.OVER_BUDGET] == 2


def test_hello_slot_seconds() -> None:
    """A hello may take so long to come together, whatever else comes."""
    one = Hello(configs.client_context(key_shares=["X25519MLKEM768"]).config())
    parts = pieces(body(one.first), 900)
    for seconds in (1.0, 5.0):
        site = Site(limits=Limits(hello_slots=4, hello_slot_seconds=seconds))
        site.endpoint.receive([(parts[0], HERE)], 0.0)
        flood(site, 100, 0.0, seconds)
        site.endpoint.receive([(parts[1], HERE)], seconds)
        assert len(site.endpoint.transmit(seconds)) == 1
        site.endpoint.receive([(parts[0], HERE)], 10.0)
        flood(site, 400, 10.0 + seconds * 1.01, seconds * 20)
        site.endpoint.receive([(parts[1], HERE)], 10.0 + seconds * 22)
        assert site.endpoint.transmit(40.0) == []


# --- answers to strangers -----------------------------------------------------------------------


def strangers(n: int) -> list[tuple[bytes, tuple[object, ...]]]:
    """A whole first hello from each of `n` addresses."""
    [first] = Hello(configs.client_context(groups=["X25519"]).config()).first
    return [(first, (f"198.51.{n >> 8}.{n & 255}", 4433)) for n in range(n)]


@pytest.mark.requirement("9147-5.1-8")
def test_hello_replies_per_second() -> None:
    """Above it a hello is answered when its address has asked before."""
    site = Site(limits=Limits(hello_replies_per_second=50))
    site.endpoint.receive(strangers(200), 1.0)
    assert len(site.endpoint.transmit(1.0)) == 50
    assert site.endpoint.counters.discards[Discard.UNDER_LOAD] == 150
    # In the next second the flood goes on from elsewhere, and somebody from before repeats his hello.
    again = strangers(500)
    site.endpoint.receive([*again[300:], *again[100:120]], 2.0)
    assert [to for _, to in site.endpoint.transmit(2.0)] == [to for _, to in again[100:120]]
    # Nobody for a while: all is as it was.
    site.endpoint.receive(again[:50], 9.0)
    assert len(site.endpoint.transmit(9.0)) == 50


@pytest.mark.requirement("9147-5.1-8")
def test_hello_repeats_per_second() -> None:
    """A flood that repeats its addresses: each is answered once in some seconds, and not too many of them."""
    site = Site(limits=Limits(hello_replies_per_second=50, hello_repeats_per_second=80))
    flood = strangers(200)
    site.endpoint.receive(flood[:100], 1.0)
    assert len(site.endpoint.transmit(1.0)) == 50
    answered = []
    for n in range(20):
        # Only those above the budget of the first second were taken note of.
        site.endpoint.receive(flood[50:100], 1.1 + n / 10)
        answered += [to for _, to in site.endpoint.transmit(1.1 + n / 10)]
    assert answered == [to for _, to in flood[50:100]]
    site.endpoint.receive([*flood[100:], *flood[100:]], 3.2)
    assert len(site.endpoint.transmit(3.2)) == 80


@pytest.mark.requirement("9147-5.1-8")
def test_hello_reply_bytes_per_second() -> None:
    site = Site(limits=Limits(hello_reply_bytes_per_second=10_000))
    site.endpoint.receive(strangers(200), 1.0)
    replies = site.endpoint.transmit(1.0)
    size = len(replies[0][0])
    assert 10_000 <= len(replies) * size < 10_000 + size
    assert site.endpoint.counters.unproved_bytes_sent == len(replies) * size


@pytest.mark.requirement("9147-5.1-8")
@pytest.mark.parametrize("host", ["192.0.2.{}", "2001:db8::{}"])
def test_hello_replies_per_prefix_per_second(host: str) -> None:
    """By address for IPv4, by the first 64 bits for IPv6; others are answered meanwhile."""
    site = Site(limits=Limits(hello_replies_per_prefix_per_second=20))
    [(first, _), *_] = strangers(1)
    rest = () if "." in host else (0, 0)
    one = [(first, (host.format(7), port, *rest)) for port in range(100)]
    other = [(first, (host.format(8), port, *rest)) for port in range(10)]
    site.endpoint.receive([*one, *other], 1.0)
    assert len(site.endpoint.transmit(1.0)) == (30 if "." in host else 20)
    # Half a second into the next one, half of what was before still counts.
    site.endpoint.receive(other[:1], 2.0)
    site.endpoint.transmit(2.0)
    site.endpoint.receive(one, 2.5)
    assert 9 <= len(site.endpoint.transmit(2.5)) <= 11


# --- proved prefixes ----------------------------------------------------------------------------


def test_prefix_new_per_second() -> None:
    site = Site(limits=Limits(prefix_new_per_second=3))
    others = [site.add((HERE[0], port)) for port in range(1, 8)]
    site.run()
    connected = [one for one in others if one.state is dtls.State.CONNECTED]
    # The others come again with their timers, a second later and more.
    assert len(connected) >= 3
    assert site.endpoint.counters.discards[Discard.OVER_QUOTA] >= 1
    allowed = Site(limits=Limits(prefix_new_per_second=3))
    allowed.endpoint.doors.lists.allow(str(HERE[0]))
    for port in range(1, 8):
        allowed.add((HERE[0], port))
    allowed.run()
    assert allowed.endpoint.connections == 7
    assert Discard.OVER_QUOTA not in allowed.endpoint.counters.discards


@pytest.mark.parametrize("forged", [False, True])
def test_prefix_datagrams_per_second(forged: bool) -> None:
    """Datagrams that are not the peer's own use nothing up."""
    assert _taken(Limits(prefix_datagrams_per_second=50), forged=forged) == 50


def test_prefix_received_bytes_per_second() -> None:
    assert _taken(Limits(prefix_received_bytes_per_second=10_000)) < 60


def _taken(limits: Limits, *, forged: bool = False) -> int:
    """Messages that arrive of 60, each in a datagram, after noise from the peer's address if `forged`."""
    site = Site(limits=limits)
    client, server = site.connect()
    now = site.now + 2.0
    if forged:
        site.endpoint.receive([(b"\x2f\0\0\0\x30" + bytes(48), HERE)] * 200, now)
    for _ in range(60):
        client.send(bytes(200))
        site.endpoint.receive([(datagram, HERE) for datagram in client.transmit(now)], now)
    taken = len(server.messages())
    assert (taken < 60) == (site.endpoint.counters.discards.get(Discard.OVER_QUOTA, 0) > 0)
    # A second later there is room again.
    client.send(b"later")
    site.endpoint.receive([(datagram, HERE) for datagram in client.transmit(now + 1)], now + 1)
    assert server.messages() == [b"later"]
    return taken


def test_list_entries() -> None:
    site = Site(limits=Limits(list_entries=2))
    for host in (1, 2):
        site.endpoint.doors.lists.block(f"192.0.2.{host}")
    with pytest.raises(LimitReached, match="list_entries"):
        site.endpoint.doors.lists.block("192.0.2.3")


# --- records ------------------------------------------------------------------------------------


@pytest.mark.requirement("9147-4.2.1-7")
def test_epochs() -> None:
    rig = joined(limits=Limits(epochs=3))
    with pytest.raises(KeysExhausted):
        rig.client.update_keys(rig.now)
    rig.echo()


@pytest.mark.requirement("9147-4.2.1-7")
def test_handshake_messages() -> None:
    rig = joined(limits=Limits(handshake_messages=5))
    with pytest.raises(KeysExhausted):
        rig.server.update_keys(rig.now)
    rig.echo()


@pytest.mark.requirement("9147-4.5.1-5")
@pytest.mark.parametrize("window", [64, 256, 1024])
def test_replay_window(window: int) -> None:
    rig = joined(limits=Limits(replay_window=window))
    records = [rig.record(rig.client, ContentType.APPLICATION_DATA, b"%d" % n) for n in range(window + 1)]
    rig.server.receive(records[window], 0.0)
    # The oldest lies just behind the window, all others are in it.
    for datagram in records[:window]:
        rig.server.receive(datagram, 0.0)
    assert rig.server.messages() == [b"%d" % window, *(b"%d" % n for n in range(1, window))]
    assert rig.server.counters.discards == {Discard.TOO_OLD: 1}


# --- all of them --------------------------------------------------------------------------------


def test_idle_seconds() -> None:
    """Who is silent for so long sleeps, which shows in what it is charged."""
    site = Site(limits=Limits(idle_seconds=30.0), upkeep=dtls.Upkeep(spare_cids=0))
    _, server = site.connect()
    site.skip(29.0)
    assert (server.asleep, server.held_bytes) == (False, CONNECTION_BYTES)
    site.skip(2.0)
    assert (server.asleep, server.held_bytes) == (True, ASLEEP_BYTES)


def test_every_field_has_a_test() -> None:
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    names = re.findall(r"^def test_(\w+)", sources, re.MULTILINE)
    without = [field.name for field in fields(Limits) if not any(n.startswith(field.name) for n in names)]
    assert without == []


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_no_limit_may_be_nothing(name: str) -> None:
    for value in (0, -1):
        changed: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=name):
            replace(Limits(), **changed)


def test_a_ledger_says_no_and_counts_it() -> None:
    ledger = Ledger(HALF_OPEN_BYTES)
    one = dtls.Connection.server(configs.server_context().config(), now=0.0, ledger=ledger)
    client = configs.client_context().config()
    with pytest.raises(LimitReached):
        dtls.Connection.client(client, now=0.0, server_name="localhost", ledger=ledger)
    with pytest.raises(ValueError, match="MTU"):
        dtls.Connection.client(client, now=0.0, server_name="localhost", mtu=1)
    assert ledger.refusals == 1
    assert ledger.held == one.held_bytes == HALF_OPEN_BYTES
    # What is dropped without being closed holds nothing any more.
    del one
    assert ledger.held == 0


def test_a_client_that_cannot_be_made_is_not_charged() -> None:
    ledger = Ledger(10 * HALF_OPEN_BYTES)
    client = configs.client_context().config()
    with pytest.raises(ValueError, match="name"):
        dtls.Connection.client(client, now=0.0, ledger=ledger)
    with pytest.raises(ValueError, match="MTU"):
        dtls.Connection.client(client, now=0.0, server_name="localhost", mtu=1, ledger=ledger)
    assert ledger.held == 0


def test_a_protocol_error_counts_as_the_end_of_what_is_held() -> None:
    rig = joined()
    held = rig.client.held_bytes
    assert held == CONNECTION_BYTES
    rig.inject(rig.server, 99, b"")
    assert isinstance(rig.client.error, ProtocolError)
    assert rig.client.held_bytes == 0
    assert rig.ledger.held == rig.server.held_bytes
    assert decode_fragments(record(Hello().first[0]).content)[0].whole
