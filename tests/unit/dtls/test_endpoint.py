"""Many peers on one socket: whose datagram it is, who may come in, and what is left of those who went."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest

from sealwire import dtls
from sealwire.dtls.cookie import Address
from sealwire.dtls.header import ContentType, decode_fragments, encode_ack, encode_plaintext
from sealwire.errors import ConnectionClosed, Discard, HandshakeError, PeerAlert
from sealwire.limits import Limits
from tests import certificates, configs
from tests.unit.dtls.hellos import HERE, THERE, alert_of, body, hello, pieces, record
from tests.unit.dtls.host import Site, addresses

ACCESS_DENIED = 49


# --- many peers ---------------------------------------------------------------------------------


@pytest.mark.requirement("9147-4.3-3", "9147-11-4")
def test_many_peers_in_shared_batches() -> None:
    site = Site()
    rest = site.endpoint.ledger.held
    for at in addresses(30):
        site.add(at)
    site.run()
    assert site.endpoint.connections == 30
    assert site.endpoint.handshaking == 0
    assert site.endpoint.counters.handshakes_completed == 30
    assert [event for _, event in site.events] == [
        dtls.Connected(connection.session) for connection, _ in site.events
    ]
    for at, client in site.clients.items():
        client.send_many([f"{at[1]} {n}".encode() for n in range(3)])
    site.run()
    for at in site.clients:
        assert site.served(at).messages() == [f"{at[1]} {n}".encode() for n in range(3)]
    for client in site.clients.values():
        client.close(site.now)
    site.run()
    assert site.endpoint.connections == 30
    site.endpoint.close(site.now)
    site.run()
    assert site.endpoint.connections == 0
    assert site.endpoint.ledger.held == rest
    assert site.endpoint.deadline() is None
    assert site.endpoint.counters.connections_closed == 30


@pytest.mark.requirement("9147-4.3-3")
def test_a_batch_is_cut_by_peer_and_order_is_kept() -> None:
    site = Site()
    for at in (HERE, THERE):
        site.connect(at)
    batch: list[tuple[bytes, Address]] = []
    for n in range(10):
        for at in (HERE, THERE):
            site.clients[at].send(b"%d" % n)
            batch += [(datagram, at) for datagram in site.clients[at].transmit(0.0)]
    site.endpoint.receive(batch, 0.0)
    for at in (HERE, THERE):
        assert site.served(at).messages() == [b"%d" % n for n in range(10)]


@pytest.mark.requirement("9147-11-4")
def test_datagrams_of_another_peer_do_no_harm() -> None:
    site = Site()
    for at in (HERE, THERE):
        site.connect(at)
    site.clients[HERE].send(b"mine")
    [datagram] = site.clients[HERE].transmit(0.0)
    site.endpoint.receive([(datagram, THERE)], 0.0)
    assert site.served(THERE).messages() == []
    site.endpoint.receive([(datagram, HERE)], 0.0)
    assert site.served(HERE).messages() == [b"mine"]


def test_a_connection_aborted_outside_a_turn_is_forgotten_with_it() -> None:
    """An idle one has no timer that would bring its end to light."""
    site = Site()
    _, server = site.connect()
    server.abort()
    site.run()
    assert site.endpoint.connections == 0
    assert [type(event) for one, event in site.events if one is server][-1] is dtls.Closed


def test_what_a_connection_is_given_outside_a_turn_is_sent() -> None:
    site = Site()
    client, served = site.connect()
    served.send(b"pushed")
    served.update_keys(site.now)
    site.run()
    assert client.messages() == [b"pushed"]
    served.close(site.now)
    site.run()
    assert client.events()[-1] == dtls.PeerClosed()
    assert site.endpoint.connections == 0


# --- what is not for us -------------------------------------------------------------------------


@pytest.mark.requirement("7983-1", "9147-4.5.2-4")
@pytest.mark.parametrize("first", [0, 1, 3, 19, 64, 79, 80, 127, 128, 191, 192, 255])
@pytest.mark.parametrize("known", [False, True])
def test_datagrams_of_other_protocols_go_to_their_callback(first: int, known: bool) -> None:
    """RFC 7983: STUN, TURN, QUIC, SRTP, also from the address of a peer of ours."""
    others: list[tuple[bytes, Address]] = []
    site = Site(on_other=lambda datagram, at: others.append((bytes(datagram), at)))
    if known:
        client, served = site.connect()
    datagram = bytes((first,)) + bytes(30)
    site.endpoint.receive([(datagram, HERE)], 0.0)
    assert others == [(datagram, HERE)]
    assert site.inside(Discard.OTHER_PROTOCOL) == 1
    assert site.endpoint.transmit(0.0) == []
    if known:
        assert served.counters.discards == {}
        client.send(b"still here")
        site.run()
        assert served.messages() == [b"still here"]


@pytest.mark.requirement("9147-5.2-7", "7983-1")
def test_a_peer_of_an_older_version_can_be_served_by_another_stack() -> None:
    others: list[bytes] = []
    site = Site(on_other=lambda datagram, at: others.append(bytes(datagram)))
    # supported_versions renamed: a hello of DTLS 1.2.
    content = body(site.add(HERE).transmit(0.0))
    old = hello(content.replace(b"\x00\x2b\x00\x03\x02\xfe\xfc", b"\xff\x2b\x00\x03\x02\xfe\xfc"))
    key_exchange = encode_plaintext(ContentType.HANDSHAKE, 5, b"\x10" + bytes(30))
    change = b"\x14\xfe\xfd" + bytes(8) + b"\0\1\1"
    data = b"\x17\xfe\xfd\0\1" + bytes(6) + b"\0\4data"
    site.endpoint.receive([(one, THERE) for one in (old, key_exchange, change, data)], 0.0)
    assert others == [old, key_exchange, change, data]
    assert site.endpoint.transmit(0.0) == []
    assert site.inside(Discard.OTHER_VERSION) == 1


@pytest.mark.requirement("9147-5.2-7")
def test_without_another_stack_an_older_hello_is_told_so() -> None:
    site = Site()
    content = body(site.add(HERE).transmit(0.0))
    old = hello(content.replace(b"\x00\x2b\x00\x03\x02\xfe\xfc", b"\xff\x2b\x00\x03\x02\xfe\xfc"))
    site.endpoint.receive([(old, THERE)], 0.0)
    [(answer, at)] = site.endpoint.transmit(0.0)
    assert (alert_of(answer), at) == (70, THERE)


@pytest.mark.requirement("9147-4.5.2-4", "9147-6.1-2")
def test_records_from_strangers_are_silence() -> None:
    site = Site()
    site.endpoint.receive(
        [
            (b"", HERE),
            (b"\x2f" + bytes(40), HERE),
            (encode_plaintext(ContentType.ALERT, 0, b"\2\0"), HERE),
            (encode_plaintext(ContentType.ACK, 0, encode_ack([])), HERE),
            (encode_plaintext(ContentType.HANDSHAKE, 0, b"\x02" + bytes(20)), HERE),
            (b"\x14\xfe\xfd" + bytes(11), HERE),
        ],
        0.0,
    )
    assert site.endpoint.transmit(0.0) == []
    assert site.endpoint.connections == 0
    assert site.endpoint.counters.discards == {
        Discard.EMPTY: 1,
        Discard.UNKNOWN_PEER: 3,
        Discard.NOT_DTLS: 2,
    }


# --- admission ----------------------------------------------------------------------------------


def verdicts(verdict: dtls.Admission) -> tuple[list[dtls.Attempt], Callable[[dtls.Attempt], dtls.Admission]]:
    asked: list[dtls.Attempt] = []

    def admission(attempt: dtls.Attempt) -> dtls.Admission:
        asked.append(attempt)
        return verdict

    return asked, admission


@pytest.mark.requirement("9147-11-1")
def test_admission_is_asked_once_for_a_proved_address() -> None:
    asked, admission = verdicts(dtls.Admission.ACCEPT)
    site = Site(admission=admission)
    site.add(HERE)
    site.up()
    assert asked == []
    site.run()
    assert [(attempt.address, attempt.server_name) for attempt in asked] == [(HERE, "localhost")]
    assert site.endpoint.connections == 1


@pytest.mark.requirement("9147-11-1")
@pytest.mark.parametrize("verdict", [dtls.Admission.DROP, dtls.Admission.REFUSE])
def test_who_is_not_admitted_costs_nothing(verdict: dtls.Admission) -> None:
    asked, admission = verdicts(verdict)
    site = Site(admission=admission)
    client = site.add(HERE)
    held = site.endpoint.ledger.held
    site.run()
    assert len(asked) == 1
    assert site.endpoint.connections == 0
    assert site.endpoint.ledger.held == held
    assert site.endpoint.counters.admissions_refused == 1
    if verdict is dtls.Admission.REFUSE:
        assert isinstance(client.error, PeerAlert)
        assert client.error.alert == ACCESS_DENIED
    else:
        assert client.state is dtls.State.HANDSHAKING
        assert site.inside(Discard.REFUSED) == 1


@pytest.mark.requirement("9147-5.8.1-3")
def test_a_second_hello_that_comes_again_is_no_second_attempt() -> None:
    asked, admission = verdicts(dtls.Admission.ACCEPT)
    site = Site(admission=admission)
    site.add(HERE)
    site.up()
    site.down()
    second = site.up()
    # The answer is lost; the same hello again brings it again, with new record numbers.
    first = site.endpoint.transmit(0.0)
    site.now = 0.6
    site.endpoint.receive(second, site.now)
    again = site.endpoint.transmit(site.now)
    assert len(asked) == 1
    assert site.endpoint.connections == 1
    assert [len(datagram) for datagram, _ in again] == [len(datagram) for datagram, _ in first]
    assert decode_fragments(record_of(again)) == decode_fragments(record_of(first))
    assert again[0][0][3:11] > first[0][0][3:11]
    site.run()


def record_of(batch: list[tuple[bytes, Address]]) -> bytes:
    datagram = batch[0][0]
    n = int.from_bytes(datagram[11:13], "big")
    return datagram[13 : 13 + n]


# --- a peer that comes again ----------------------------------------------------------------------


@pytest.mark.requirement("9147-5.11-1", "9147-5.11-2", "9147-5.11-3")
def test_a_peer_that_restarts_replaces_itself_when_it_is_done() -> None:
    """Decision A12."""
    site = Site()
    old_client, old = site.connect()
    new_client = site.add(HERE)
    site.up()
    site.down()
    site.up()
    # The new one is under way, the old one still lives.
    assert site.endpoint.connections == 2
    old_client.send(b"old")
    site.endpoint.receive([(datagram, HERE) for datagram in old_client.transmit(0.0)], 0.0)
    assert old.messages() == [b"old"]
    assert old.error is None
    site.run()
    assert new_client.state is dtls.State.CONNECTED
    assert old.state is dtls.State.CLOSED
    assert site.endpoint.connections == 1
    assert (old, dtls.Closed(None)) in site.events
    served = site.served()
    assert served is not old
    late = old_client._sealing.record(3, ContentType.APPLICATION_DATA, b"late")[1]
    site.endpoint.receive([(late, HERE)], 0.0)
    assert served.messages() == []
    new_client.send(b"new")
    site.run()
    assert served.messages() == [b"new"]


@pytest.mark.requirement("9147-5.11-2")
def test_hellos_forged_from_the_address_of_a_peer_change_nothing() -> None:
    site = Site(limits=Limits(hello_slots=64))
    client, served = site.connect()
    strangers = [site.add(("192.0.2.200", n)) for n in range(5)]
    for stranger in strangers:
        [first] = stranger.transmit(0.0)
        forged = [first, hello(body([first]), seq=1), first[:40], *pieces(body([first]), 100)]
        site.endpoint.receive([(datagram, HERE) for datagram in forged], 0.0)
    answers = site.endpoint.transmit(0.0)
    assert all(at == HERE for _, at in answers)
    for datagram, _ in answers:
        client.receive(datagram, 0.0)
    assert site.endpoint.connections == 1
    site.clients = {HERE: client}
    client.send(b"still here")
    served.send(b"me too")
    site.run()
    assert served.messages() == [b"still here"]
    assert client.messages() == [b"me too"]


@pytest.mark.requirement("9147-5.11-1")
def test_an_unfinished_attempt_makes_room_for_the_next_of_its_address() -> None:
    site = Site()
    for _ in range(5):
        site.add(HERE)
        site.up()
        site.down()
        site.up()
        # The server's flight is lost, and the client with it.
        assert len(site.endpoint.transmit(0.0)) >= 1
        site.endpoint.events()
        assert site.endpoint.connections == 1
        assert site.endpoint.handshaking == 1
    site.add(HERE)
    site.run()
    assert site.endpoint.connections == 1
    assert site.endpoint.handshaking == 0
    assert site.endpoint.counters.handshakes_failed == 5


@pytest.mark.requirement("9147-5.11-2")
def test_replacements_that_never_finish_are_one_at_most_and_end() -> None:
    site = Site()
    client, served = site.connect()
    for _ in range(4):
        site.add(HERE)
        site.up()
        site.down()
        site.up()
        site.endpoint.transmit(0.0)
        assert site.endpoint.connections == 2
        assert site.endpoint.handshaking == 1
    site.clients = {HERE: client}
    site.skip(100.0)
    assert site.endpoint.connections == 1
    assert site.endpoint.handshaking == 0
    client.send(b"alive")
    site.run()
    assert served.messages() == [b"alive"]


@pytest.mark.requirement("9147-5.11-2")
def test_the_old_one_may_end_before_the_new_one_is_done() -> None:
    site = Site()
    old_client, old = site.connect()
    new_client = site.add(HERE)
    site.up()
    site.down()
    site.up()
    old.abort()
    site.endpoint._touch(old)
    site.run()
    assert new_client.state is dtls.State.CONNECTED
    assert site.endpoint.connections == 1
    new_client.send(b"new")
    site.run()
    assert site.served().messages() == [b"new"]
    assert old_client.state is dtls.State.CONNECTED


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.requirement("9147-11-4")
def test_no_more_connections_than_allowed() -> None:
    site = Site(limits=Limits(connections=3, handshakes=3))
    for at in addresses(5):
        site.add(at)
        site.run()
    assert site.endpoint.connections == 3
    assert site.endpoint.counters.admissions_refused == 2
    assert site.inside(Discard.OVER_BUDGET) == 2
    # One leaves, one comes.
    site.served(addresses(5)[0]).close(0.0)
    site.run()
    site.skip(1.5)
    assert site.endpoint.connections == 3


@pytest.mark.requirement("9147-11-4")
def test_no_more_handshakes_than_allowed() -> None:
    site = Site(limits=Limits(handshakes=2))
    for at in addresses(4):
        site.add(at)
    site.up()
    site.down()
    site.up()
    assert site.endpoint.handshaking == 2
    assert site.endpoint.counters.admissions_refused == 2
    site.run()
    assert site.endpoint.handshaking == 0
    site.skip(2.0)
    assert site.endpoint.connections == 4


@pytest.mark.requirement("9147-11-4")
def test_no_connection_without_memory_for_it() -> None:
    site = Site(limits=Limits(total_bytes=32_000, connection_bytes=30_000))
    held = site.endpoint.ledger.held
    for at in addresses(8):
        site.add(at)
    site.up()
    site.down()
    site.up()
    assert site.endpoint.connections == 2
    assert site.endpoint.ledger.held <= 32_000
    assert site.inside(Discard.OVER_BUDGET) == 6
    site.skip(70.0)
    # Finished ones cost less, so more fit than shake hands at once.
    assert site.endpoint.connections > 2
    site.endpoint.close(site.now)
    site.run()
    assert site.endpoint.ledger.held == held


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.requirement("8446-ALERT-2")
def test_close_ends_everybody_and_admits_nobody() -> None:
    site = Site(mtu=1400)  # a hybrid ServerHello fits the first datagram
    for at in addresses(3):
        site.connect(at)
    half = site.add(("192.0.2.3", 1))
    site.up()
    site.down()
    site.up()
    assert site.endpoint.handshaking == 1
    for datagram, _ in site.endpoint.transmit(site.now)[:-1]:
        half.receive(datagram, site.now)
    site.endpoint.close(site.now)
    site.run()
    assert site.endpoint.connections == 0
    assert isinstance(half.error, ConnectionClosed)
    for at in addresses(3):
        assert site.clients[at].events()[-1] == dtls.PeerClosed()
    late = site.add(("192.0.2.3", 2))
    site.run()
    assert late.state is dtls.State.HANDSHAKING
    assert site.endpoint.connections == 0
    assert site.endpoint.deadline() is None


@pytest.mark.requirement("9147-5.10-4", "9147-5.8.1-2")
def test_peers_that_vanish_are_given_up_and_nothing_is_left() -> None:
    site = Site()
    held = site.endpoint.ledger.held
    for at in addresses(20):
        site.add(at)
    site.up()
    site.down()
    site.up()
    assert site.endpoint.connections == 20
    site.clients.clear()
    site.skip(1000.0)
    assert site.endpoint.connections == 0
    assert site.endpoint.ledger.held == held
    assert site.endpoint.counters.handshakes_failed == 20
    assert site.endpoint.deadline() is None
    assert all(isinstance(event, dtls.Closed) for _, event in site.events)
    assert all(isinstance(event.error, TimeoutError) for _, event in site.events if hasattr(event, "error"))


@pytest.mark.requirement("9147-11-4")
def test_timers_of_many_peers_are_met_in_order() -> None:
    site = Site()
    for n, at in enumerate(addresses(10)):
        site.now = n / 10
        site.add(at)
        site.up()
        site.down()
        site.up()
        site.endpoint.transmit(site.now)
    first = site.endpoint.deadline()
    assert first is not None
    seen = []
    while (due := site.endpoint.deadline()) is not None and due < 30.0:
        seen.append(due)
        site.endpoint.wake(due)
        site.endpoint.transmit(due)
    assert seen == sorted(seen)
    assert len(seen) >= 10 * 4


@pytest.mark.requirement("9147-11-4")
def test_a_connection_that_is_always_due_keeps_nobody_from_his_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose deadline passes only with a transmission is woken once a call, not for ever."""
    site = Site()
    for at in (HERE, THERE):
        site.connect(at)
    stuck, other = site.served(HERE), site.served(THERE)
    woken: list[dtls.Connection] = []
    wake = dtls.Connection.wake

    def counted(self: dtls.Connection, now: float) -> None:
        woken.append(self)
        wake(self, now)

    monkeypatch.setattr(dtls.Connection, "wake", counted)
    deadline = dtls.Connection.deadline
    monkeypatch.setattr(
        dtls.Connection, "deadline", lambda self: site.now if self is stuck else deadline(self)
    )
    stuck.send(b"so that its timer is looked at")
    site.endpoint.transmit(site.now)
    site.now += 300.0
    site.endpoint.wake(site.now)
    assert woken.count(stuck) == 1
    assert woken.count(other) == 1


def test_connections_that_are_gone_are_not_kept_by_their_timers() -> None:
    site = Site()
    gone: list[weakref.ref[dtls.Connection]] = []
    for n in range(200):
        _, served = site.connect(("192.0.2.4", n))
        gone.append(weakref.ref(served))
        served.close(site.now)
        site.run()
        del served, site.clients[("192.0.2.4", n)]
        site.events.clear()
    gc.collect()
    assert site.endpoint.connections == 0
    assert sum(one() is not None for one in gone) <= 70
    assert len(site.endpoint._timers) <= 70


@pytest.mark.requirement("9147-4.5.2-6")
def test_a_peer_that_breaks_the_protocol_touches_nobody_else() -> None:
    site = Site()
    bad, _ = site.connect(HERE)
    good, served = site.connect(THERE)
    rogue = bad._sealing.record(3, 99, b"nonsense")[1]
    good.send(b"good")
    batch = [(rogue, HERE), *((datagram, THERE) for datagram in good.transmit(0.0))]
    site.endpoint.receive(batch, 0.0)
    assert served.messages() == [b"good"]
    site.run()
    assert isinstance(bad.error, PeerAlert)
    assert site.endpoint.connections == 1


@pytest.mark.requirement("9147-4.5.2-6")
def test_a_server_name_callback_that_refuses() -> None:
    context = configs.server_context()

    def refuse(name: str | None, current: object) -> None:
        from sealwire.errors import Alert

        raise HandshakeError(Alert.UNRECOGNIZED_NAME, "not here")

    context.sni_callback = refuse
    site = Site(server=context.config())
    client = site.add(HERE)
    site.run()
    assert isinstance(client.error, PeerAlert)
    assert client.error.alert.name == "UNRECOGNIZED_NAME"
    assert site.endpoint.connections == 0
    assert site.endpoint.handshaking == 0


# --- addresses nobody proved ------------------------------------------------------------------------


@pytest.mark.requirement("9147-5.1-8")
def test_an_unproved_address_gets_three_times_its_bytes_retransmissions_included() -> None:
    """Decision A17."""
    identity = certificates.large_server(20_000)
    site = Site(
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        require_cookie=False,
        limits=Limits(handshake_seconds=1e5, retransmissions=100),
    )
    client = site.add(HERE)
    sent = sum(len(datagram) for datagram, _ in site.up())
    got = 0
    while site.now < 3000.0:
        got += sum(len(datagram) for datagram, _ in site.endpoint.transmit(site.now))
        assert got <= 3 * sent
        due = site.endpoint.deadline()
        if due is None:
            break
        site.now = due
        site.endpoint.wake(due)
    assert got > 2 * sent
    # The hello comes again and is worth the same again.
    client.wake(site.now)
    sent += sum(len(datagram) for datagram, _ in site.up())
    for _ in range(20):
        got += sum(len(datagram) for datagram, _ in site.endpoint.transmit(site.now))
        assert got <= 3 * sent
        site.now = site.endpoint.deadline() or site.now
        site.endpoint.wake(site.now)


@pytest.mark.requirement("9147-5.1-8", "9147-5.1-7")
def test_without_a_cookie_and_with_the_limit_a_long_chain_still_comes_across() -> None:
    identity = certificates.large_server(6_000)
    site = Site(
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        require_cookie=False,
    )
    client = site.add(HERE)
    site.skip(50.0)
    assert client.state is dtls.State.CONNECTED
    assert not client.session.retried


@pytest.mark.requirement("9147-5.1-7")
def test_the_limit_can_be_taken_off_where_addresses_cannot_be_forged() -> None:
    identity = certificates.large_server(9_000)
    site = Site(
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        require_cookie=False,
        limit_unproved=False,
    )
    site.add(HERE)
    [(first, _)] = site.up()
    assert sum(len(datagram) for datagram, _ in site.down()) > 3 * len(first)
    site.run()
    assert site.clients[HERE].state is dtls.State.CONNECTED


@pytest.mark.requirement("9147-5.1-8")
def test_an_error_to_an_unproved_address_fits_the_limit_too() -> None:
    site = Site(
        server=configs.server_context(suites=["TLS_AES_256_GCM_SHA384"]).config(),
        client=configs.client_context(suites=["TLS_AES_128_GCM_SHA256"]).config(),
        require_cookie=False,
    )
    site.add(HERE)
    [(first, _)] = site.up()
    [(answer, _)] = site.endpoint.transmit(0.0)
    assert record(answer).content_type == ContentType.ALERT
    assert len(answer) < len(first)
