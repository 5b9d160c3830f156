"""Return routability: what an endpoint does when a peer's records come from another address (RFC 9853)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sealwire import dtls
from sealwire.dtls.cookie import Address
from sealwire.dtls.paths import AMPLIFICATION
from sealwire.dtls.routability import PathMessage
from sealwire.errors import Discard, PeerAlert
from sealwire.tls13.extensions import RETURN_ROUTABILITY, Extension, Extensions
from tests.unit.dtls.hellos import HERE, THERE
from tests.unit.dtls.host import Site

ELSEWHERE: Address = ("198.51.100.7", 9)


def connected(**options: Any) -> tuple[Site, dtls.Connection, dtls.Connection]:
    site = Site(**options)
    client, server = site.connect()
    site.skip(2.0)
    return site, client, server


def record(client: dtls.Connection, content: bytes = b"data") -> bytes:
    """A datagram with data of `client`'s, not sent yet."""
    client.send(content)
    [datagram] = client.transmit(0.0)
    return datagram


def path_message(sender: dtls.Connection, kind: int, cookie: bytes) -> bytes:
    return sender.path_record(kind, cookie)


def changes(site: Site) -> list[dtls.AddressChanged]:
    site.events += site.endpoint.events()
    return [event for _, event in site.events if isinstance(event, dtls.AddressChanged)]


def answers(client: dtls.Connection, datagrams: list[bytes]) -> list[bytes]:
    client.receive_run(datagrams, 0.0)
    return client.transmit(0.0)


@pytest.fixture
def no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hellos that offer connection ids without return routability checks."""
    add = Extensions.add

    def but_that(self: Extensions, key: Extension[Any], value: Any) -> None:
        if key is not RETURN_ROUTABILITY:
            add(self, key, value)

    monkeypatch.setattr(Extensions, "add", but_that)


@pytest.mark.requirement("9147-11-7", "9146-3", "9853-2")
def test_nothing_but_a_challenge_goes_to_the_new_address_until_it_answers() -> None:
    site, client, server = connected()
    site.endpoint.receive([(record(client), THERE)], site.now)
    assert server.messages() == [b"data"]
    server.send(b"answer")
    sent = site.endpoint.transmit(site.now)
    assert [to for _, to in sent] == [THERE, HERE]
    challenge, answer = (datagram for datagram, _ in sent)
    assert server.address == HERE
    [response] = answers(client, [challenge])
    client.receive(answer, site.now)
    assert client.messages() == [b"answer"]
    site.endpoint.receive([(response, THERE)], site.now)
    assert server.address == THERE
    assert changes(site) == [dtls.AddressChanged(HERE, THERE)]
    assert site.endpoint.counters.address_changes == 1
    server.send(b"there")
    assert [to for _, to in site.endpoint.transmit(site.now)] == [THERE]
    # And the old address means nothing any more: the check is over, no timer is left.
    assert site.endpoint._paths.deadline is None


@pytest.mark.requirement("9146-3")
def test_a_record_that_is_not_the_newest_starts_nothing() -> None:
    site, client, server = connected()
    early, late = record(client), record(client)
    site.endpoint.receive([(late, HERE)], site.now)
    site.endpoint.receive([(early, THERE)], site.now)
    assert server.messages() == [b"data", b"data"]
    assert site.endpoint.transmit(site.now) == []


def test_a_response_from_another_address_than_the_challenged_moves_nothing() -> None:
    site, client, server = connected()
    site.endpoint.receive([(record(client), THERE)], site.now)
    [(challenge, _)] = site.endpoint.transmit(site.now)
    [response] = answers(client, [challenge])
    site.endpoint.receive([(response, HERE)], site.now)
    assert server.address == HERE
    assert site.inside(Discard.PATH_MESSAGE) == 1
    assert changes(site) == []


@pytest.mark.requirement("9853-4")
@pytest.mark.parametrize("kind", [1, 2, 3, 255])
def test_foreign_cookies_and_unknown_types_are_ignored(kind: int) -> None:
    site, client, server = connected()
    site.endpoint.receive([(record(client), THERE)], site.now)
    site.endpoint.transmit(site.now)
    site.endpoint.receive([(path_message(client, kind, bytes(8)), THERE)], site.now)
    assert site.inside(Discard.PATH_MESSAGE) == 1
    assert server.address == HERE
    assert site.endpoint.transmit(site.now) == []
    # Neither did that end the check.
    [response] = answers(client, [path_message(server, PathMessage.CHALLENGE, bytes(8))])
    site.endpoint.receive([(response, THERE)], site.now)
    assert site.inside(Discard.PATH_MESSAGE) == 2


@pytest.mark.requirement("9853-4")
def test_a_response_that_comes_twice_or_late_is_stale() -> None:
    site, client, server = connected()
    site.endpoint.receive([(record(client), THERE)], site.now)
    [(challenge, _)] = site.endpoint.transmit(site.now)
    cookie_record = answers(client, [challenge])[0]
    site.endpoint.receive([(cookie_record, THERE), (cookie_record, THERE)], site.now)
    assert server.counters.discards[Discard.REPLAY] == 1
    assert len(changes(site)) == 1


@pytest.mark.requirement("9853-4")
def test_after_the_check_its_cookie_is_worth_nothing() -> None:
    site, client, server = connected()
    site.endpoint.receive([(record(client), THERE)], site.now)
    [(challenge, _)] = site.endpoint.transmit(site.now)
    [response] = answers(client, [challenge])
    site.skip(2.0)
    site.endpoint.receive([(response, THERE)], site.now)
    assert server.address == HERE
    assert site.inside(Discard.PATH_MESSAGE) == 1


@pytest.mark.parametrize("size", [0, 7, 9, 100])
def test_malformed_path_messages_are_ignored(size: int) -> None:
    site, client, server = connected()
    site.endpoint.receive([(client.path_record(PathMessage.CHALLENGE, bytes(size)), HERE)], site.now)
    assert server.counters.discards[Discard.PATH_MESSAGE] == 1
    assert site.endpoint.transmit(site.now) == []
    assert server.state is dtls.State.CONNECTED


@pytest.mark.requirement("9853-2")
def test_a_challenge_is_answered_once_at_once_to_where_it_came_from() -> None:
    site, client, server = connected()
    challenge = path_message(client, PathMessage.CHALLENGE, b"12345678")
    site.endpoint.receive([(challenge, ELSEWHERE), (challenge, ELSEWHERE)], site.now)
    sent = site.endpoint.transmit(site.now)
    # The response, and our own challenge: the record was the newest.
    assert [to for _, to in sent] == [ELSEWHERE, ELSEWHERE]
    assert sum(len(datagram) for datagram, _ in sent) <= AMPLIFICATION * 2 * len(challenge)
    assert server.counters.discards[Discard.REPLAY] == 1


@pytest.mark.requirement("9853-4")
@pytest.mark.parametrize("kind", [PathMessage.RESPONSE, PathMessage.DROP, 9])
def test_a_client_ignores_what_answers_nothing(kind: int) -> None:
    site, client, server = connected()
    client.receive(path_message(server, kind, bytes(8)), site.now)
    assert client.transmit(site.now) == []
    assert client.counters.discards[Discard.PATH_MESSAGE] == 1
    assert client.state is dtls.State.CONNECTED


@pytest.mark.requirement("9853-4")
@pytest.mark.usefixtures("no_checks")
def test_a_path_message_without_negotiation_is_an_error() -> None:
    site, client, server = connected()
    site.endpoint.receive([(path_message(client, PathMessage.CHALLENGE, bytes(8)), HERE)], site.now)
    assert server.state is dtls.State.CLOSED
    site.run()
    assert isinstance(client.error, PeerAlert)
    assert client.error.alert.name == "UNEXPECTED_MESSAGE"


@pytest.mark.requirement("9853-2")
def test_a_challenge_is_repeated_twice_and_then_given_up() -> None:
    site, client, server = connected()
    site.endpoint.receive([(record(client, b"x" * 100), THERE)], site.now)
    times = []
    start = site.now
    while True:
        times += [site.now - start for _, to in site.endpoint.transmit(site.now) if to == THERE]
        due = site.endpoint.deadline()
        if due is None or due > start + 5.0:
            break
        site.now = due
        site.endpoint.wake(site.now)
    assert times == pytest.approx([0.0, 1 / 3, 2 / 3])
    assert site.now - start == pytest.approx(1.0)
    assert server.address == HERE
    # A newer record starts the next check.
    site.endpoint.receive([(record(client), THERE)], site.now)
    assert [to for _, to in site.endpoint.transmit(site.now)] == [THERE]


@pytest.mark.requirement("9853-3")
def test_the_enhanced_check_asks_the_old_address_first_and_stays_if_it_answers() -> None:
    site, client, server = connected(enhanced_path_check=True)
    site.endpoint.receive([(record(client), THERE)], site.now)
    [(challenge, to)] = site.endpoint.transmit(site.now)
    assert to == HERE
    [response] = answers(client, [challenge])
    site.endpoint.receive([(response, HERE)], site.now)
    # That is the end of it: no timer is left that would ask the new address.
    assert server not in site.endpoint._paths
    site.skip(3.0)
    assert server.address == HERE
    assert changes(site) == []


@pytest.mark.requirement("9853-3")
def test_the_enhanced_check_takes_a_drop_for_a_reason_to_ask_the_new_address() -> None:
    site, client, server = connected(enhanced_path_check=True)
    site.endpoint.receive([(record(client), THERE)], site.now)
    [(challenge, _)] = site.endpoint.transmit(site.now)
    client.receive(challenge, site.now)
    [(_, cookie)] = client.path_messages.take()
    site.endpoint.receive([(path_message(client, PathMessage.DROP, cookie), HERE)], site.now)
    [(challenge, to)] = site.endpoint.transmit(site.now)
    assert to == THERE
    [response] = answers(client, [challenge])
    site.endpoint.receive([(response, THERE)], site.now)
    assert server.address == THERE


@pytest.mark.requirement("9853-3")
def test_the_enhanced_check_goes_on_after_a_second_of_silence() -> None:
    site, client, server = connected(enhanced_path_check=True)
    del site.clients[HERE]
    start = site.now
    site.endpoint.receive([(record(client, b"x" * 100), THERE)], site.now)
    targets: list[Address] = []
    last = b""
    while THERE not in targets:
        for datagram, to in site.endpoint.transmit(site.now):
            targets.append(to)
            last = datagram
        due = site.endpoint.deadline()
        assert due is not None
        if THERE not in targets:
            site.now = due
            site.endpoint.wake(site.now)
    assert targets == [HERE] * 3 + [THERE]
    assert site.now - start == pytest.approx(1.0)
    [response] = answers(client, [last])
    site.endpoint.receive([(response, THERE)], site.now)
    assert server.address == THERE


@pytest.mark.usefixtures("no_checks")
@pytest.mark.requirement("9147-11-7")
def test_a_peer_that_cannot_be_asked_is_never_moved_by_default() -> None:
    site, client, server = connected()
    assert not server.connection_ids.return_routability
    for _ in range(5):
        site.endpoint.receive([(record(client), THERE)], site.now)
        site.skip(1.0)
    assert len(server.messages()) == 5
    assert server.address == HERE
    assert changes(site) == []


@pytest.mark.usefixtures("no_checks")
@pytest.mark.parametrize("verdict", [False, True])
def test_the_callback_decides_for_such_a_peer(verdict: bool) -> None:
    asked: list[tuple[dtls.Connection, Address]] = []

    def may_move(connection: dtls.Connection, address: Address) -> bool:
        asked.append((connection, address))
        return verdict

    site, client, server = connected(on_address_change=may_move)
    site.endpoint.receive([(record(client), THERE)], site.now)
    assert asked == [(server, THERE)]
    assert server.address == (THERE if verdict else HERE)
    assert len(changes(site)) == verdict


def test_the_callback_is_not_asked_where_the_peer_can_be() -> None:
    def may_move(connection: dtls.Connection, address: Address) -> bool:
        raise AssertionError

    site, client, server = connected(on_address_change=may_move)
    site.endpoint.receive([(record(client), THERE)], site.now)
    assert server.address == HERE


def test_two_moves_in_a_row_end_at_the_last_address() -> None:
    site, client, server = connected()
    site.endpoint.receive([(record(client), THERE)], site.now)
    [(first, _)] = site.endpoint.transmit(site.now)
    site.endpoint.receive([(record(client), ELSEWHERE)], site.now)
    [(second, to)] = site.endpoint.transmit(site.now)
    assert to == ELSEWHERE
    stale, fresh = answers(client, [first, second])
    site.endpoint.receive([(stale, THERE), (fresh, ELSEWHERE)], site.now)
    # The late answer was the newest record for a moment, so the newest address is asked once more.
    challenges = [datagram for datagram, to in site.endpoint.transmit(site.now) if to == ELSEWHERE]
    site.endpoint.receive([(one, ELSEWHERE) for one in answers(client, challenges)], site.now)
    assert server.address == ELSEWHERE
    assert changes(site) == [dtls.AddressChanged(HERE, ELSEWHERE)]


@pytest.mark.requirement("9147-9-9")
def test_a_moved_connection_goes_on_under_a_fresh_id_of_the_peers() -> None:
    site = Site()
    client = dtls.Connection.client(
        site.client_config, now=0.0, server_name="localhost", connection_id=b"first"
    )
    site.clients[HERE] = client
    site.run()
    server = site.served()
    client.offer_connection_ids(2)
    site.run()
    assert (server.cids.current, server.cids.spare) == (b"first", 2)
    site.endpoint.receive([(record(client), THERE)], site.now)
    [(challenge, _)] = site.endpoint.transmit(site.now)
    [response] = answers(client, [challenge])
    site.endpoint.receive([(response, THERE)], site.now)
    assert server.address == THERE
    assert server.cids.current == client.cids.ours[1]
    server.send(b"fresh")
    [(datagram, _)] = site.endpoint.transmit(site.now)
    assert datagram[1:6] == client.cids.ours[1]
    client.receive(datagram, site.now)
    assert client.messages() == [b"fresh"]


# --- attackers -------------------------------------------------------------------------------


def bytes_to(sent: list[tuple[bytes, Address]], address: Address) -> int:
    return sum(len(datagram) for datagram, to in sent if to == address)


@pytest.mark.requirement("9147-11-7", "9853-2")
@pytest.mark.parametrize("own_id", [b"", b"x" * 20, b"x" * 255])
@pytest.mark.parametrize("enhanced", [False, True])
def test_copies_from_elsewhere_move_nothing_and_gain_nothing(own_id: bytes, enhanced: bool) -> None:
    """The attacker is faster than the client and sends on every record from a bystander's address."""
    site = Site(enhanced_path_check=enhanced)
    client = dtls.Connection.client(
        site.client_config, now=0.0, server_name="localhost", connection_id=own_id
    )
    site.clients[HERE] = client
    site.run()
    server = site.served()
    spent = gained = heard = 0
    for _ in range(20):
        datagram = record(client, b"")
        site.endpoint.receive([(datagram, ELSEWHERE), (datagram, HERE)], site.now)
        spent += len(datagram)
        heard += len(server.messages())
        for _ in range(10):
            gained += bytes_to(site.down(), ELSEWHERE)
            site.up()
            site.now += 0.05
            site.endpoint.wake(site.now)
        assert gained <= AMPLIFICATION * spent
    assert heard == 20
    assert server.address == HERE
    assert changes(site) == []
    assert server.counters.discards[Discard.REPLAY] == 20


@pytest.mark.requirement("9853-2")
def test_a_client_with_a_long_id_cannot_have_a_bystander_flooded() -> None:
    """Its own challenges, sent as if from elsewhere, are answered only within three times their size."""
    site = Site()
    client = dtls.Connection.client(
        site.client_config, now=0.0, server_name="localhost", connection_id=b"x" * 255
    )
    site.clients[HERE] = client
    site.run()
    challenge = path_message(client, PathMessage.CHALLENGE, bytes(8))
    site.endpoint.receive([(challenge, ELSEWHERE)], site.now)
    assert bytes_to(site.endpoint.transmit(site.now), ELSEWHERE) <= AMPLIFICATION * len(challenge)


@pytest.mark.requirement("9147-11-7", "9147-11-8")
def test_spoofed_garbage_from_elsewhere_does_nothing() -> None:
    site, client, server = connected()
    genuine = record(client)
    damaged = [genuine[:n] + bytes((genuine[n] ^ 1,)) + genuine[n + 1 :] for n in range(9, len(genuine))]
    site.endpoint.receive([(datagram, THERE) for datagram in damaged], site.now)
    assert site.endpoint.transmit(site.now) == []
    assert server.messages() == []
    assert server.address == HERE
    site.endpoint.receive([(genuine, HERE)], site.now)
    assert server.messages() == [b"data"]


def test_replays_from_elsewhere_do_nothing() -> None:
    site, client, server = connected()
    old = [record(client) for _ in range(5)]
    site.endpoint.receive([(datagram, HERE) for datagram in old], site.now)
    server.messages()
    site.endpoint.receive([(datagram, ELSEWHERE) for datagram in old], site.now)
    assert site.endpoint.transmit(site.now) == []
    assert server.counters.discards[Discard.REPLAY] == 5
    assert server.messages() == []


# --- bookkeeping -----------------------------------------------------------------------------


def test_a_newcomer_at_the_old_address_outlives_the_move() -> None:
    """A client moves away while another, given its old address, shakes hands there."""
    site, client, server = connected()
    newcomer = site.add(HERE)
    for _ in range(3):
        site.up()
        site.down()
        if site.endpoint.connections == 2:
            break
    assert site.endpoint.connections == 2
    site.endpoint.receive([(record(client), THERE)], site.now)
    for datagram, to in site.endpoint.transmit(site.now):
        if to == THERE:
            [response] = answers(client, [datagram])
        else:
            newcomer.receive(datagram, site.now)
    site.endpoint.receive([(response, THERE)], site.now)
    assert server.address == THERE
    site.run()
    site.skip(2.0)
    assert newcomer.state is dtls.State.CONNECTED
    assert server.state is dtls.State.CONNECTED
    newcomer.send(b"new")
    site.run()
    site.endpoint.receive([(record(client, b"old"), THERE)], site.now)
    assert server.messages() == [b"data", b"old"]
    assert site.served(HERE).messages() == [b"new"]


def test_a_connection_that_ends_during_a_check_leaves_nothing_behind() -> None:
    site, client, server = connected()
    site.endpoint.receive([(record(client), THERE)], site.now)
    client.close(site.now)
    site.run()
    server.close(site.now)
    site.endpoint.transmit(site.now)
    site.skip(300.0)
    assert site.endpoint.connections == 0
    assert site.endpoint.deadline() is None
    assert not site.endpoint._peers.by_cid
    assert server not in site.endpoint._paths


def test_many_moves_cost_nothing_that_stays() -> None:
    site, client, server = connected()
    for n, at in enumerate(itertools.islice(itertools.cycle([THERE, ELSEWHERE, HERE]), 30)):
        site.endpoint.receive([(record(client), at)], site.now)
        [(challenge, _)] = site.endpoint.transmit(site.now)
        site.endpoint.receive([(answers(client, [challenge])[0], at)], site.now)
        assert server.address == at
        assert site.endpoint.counters.address_changes == n + 1
    assert len(site.endpoint._peers.by_address) == 1
    # The client keeps one in reserve, and never uses it.
    assert len(site.endpoint._peers.by_cid) == 2
