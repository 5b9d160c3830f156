"""Slots: whose a connection id is, what reaches the wrong process, cookies and tickets of another one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.context import Context
from sealwire.crypto.providers import default_provider
from sealwire.crypto.suites import CipherSuite
from sealwire.dtls import COOKIE_PERIOD_SECONDS, MOST_SLOTS, KeyRatchet, Slot, Train
from sealwire.dtls import cookie as dtls_cookie
from sealwire.errors import ConfigurationError, Discard
from sealwire.limits import Limits
from tests import configs
from tests.unit.dtls.hellos import HERE, THERE
from tests.unit.dtls.host import Site

CID_BYTES = 8


def cookies(now: float = 0.0) -> KeyRatchet:
    return KeyRatchet.begin(now, period=COOKIE_PERIOD_SECONDS, keep=1)


def sites(count: int = 2, limits: Limits | None = None) -> list[Site]:
    shared = cookies()
    secret, number = shared.state(0.0)
    return [
        Site(
            slot=Slot(index, count, KeyRatchet(secret, number=number, period=COOKIE_PERIOD_SECONDS)),
            limits=limits,
        )
        for index in range(count)
    ]


def flow_with_id(site: Site) -> tuple[dtls.Connection, dtls.Connection]:
    client, served = site.connect()
    assert served.cids.ours
    return client, served


@given(st.integers(1, MOST_SLOTS), st.integers(4, 20), st.data())
def test_an_id_says_whose_it_is(count: int, size: int, data: st.DataObject) -> None:
    slot = Slot(data.draw(st.integers(0, count - 1)), count)
    cid = slot.issue(size, default_provider())
    assert len(cid) == size
    assert slot.owner(cid) == slot.index


@given(st.integers(1, MOST_SLOTS), st.binary(min_size=1, max_size=20))
def test_every_id_anybody_makes_up_is_of_some_slot(count: int, cid: bytes) -> None:
    assert 0 <= Slot(0, count).owner(cid) < count


@pytest.mark.parametrize("count", [1, 2, 3, 4, 64])
def test_the_first_byte_is_as_random_as_can_be(count: int) -> None:
    slot = Slot(count - 1, count)
    firsts = {slot.issue(4, default_provider())[0] for _ in range(20_000)}
    assert firsts == set(range(count - 1, 256 - 256 % count, count))


@pytest.mark.parametrize(("index", "count"), [(0, 0), (0, 65), (2, 2), (-1, 2)])
def test_slots_that_cannot_be(index: int, count: int) -> None:
    with pytest.raises(ValueError, match=r"slot|workers"):
        Slot(index, count)
    with pytest.raises(ValueError, match="empty"):
        Slot(0, 2).owner(b"")


def test_ids_given_later_are_of_the_slot_too() -> None:
    for site in sites(3):
        client, served = flow_with_id(site)
        served.offer_connection_ids(3)
        site.run()
        client.send(b"on")
        site.run()
        index = sites_index(site)
        assert len(served.cids.ours) == 4
        assert {cid[0] % 3 for cid in served.cids.ours} == {index}


def sites_index(site: Site) -> int:
    slot = site.endpoint.foreign._slot
    assert slot is not None
    return slot.index


def test_what_belongs_to_another_is_handed_on_once() -> None:
    mine, other = sites()
    client, served = flow_with_id(mine)
    client.send(b"astray")
    [datagram] = client.transmit(mine.now)
    other.endpoint.receive([(datagram, HERE)], other.now)
    assert other.endpoint.foreign.take() == [(0, datagram, HERE)]
    assert other.endpoint.foreign.take() == []
    assert other.inside(Discard.UNKNOWN_CID) == 0
    mine.endpoint.receive([(datagram, HERE)], mine.now)
    assert served.messages() == [b"astray"]
    # Its owner does not know it either: nobody does.
    mine.endpoint.receive([(datagram[:1] + bytes((2,)) + datagram[2:], HERE)], mine.now)
    assert mine.endpoint.foreign.take() == []
    assert mine.inside(Discard.UNKNOWN_CID) == 1
    # It stays another's as often as it comes.
    other.endpoint.receive([(datagram, HERE)], other.now)
    assert len(other.endpoint.foreign.take()) == 1
    assert other.inside(Discard.UNKNOWN_CID) == 0


def test_a_run_of_several_ids_is_taken_apart() -> None:
    first, second = sites()
    one, at_first = first.connect(HERE)
    two, at_second = second.connect(HERE)
    batch: list[bytes] = []
    for n in range(10):
        for client in (one, two):
            client.send(b"%d" % n)
            batch += client.transmit(first.now)
    assert len({len(datagram) for datagram in batch}) == 1
    first.endpoint.receive([(Train(b"".join(batch), len(batch[0])), HERE)], first.now)
    strays = first.endpoint.foreign.take()
    assert [owner for owner, _, _ in strays] == [1] * 10
    second.endpoint.receive([(datagram, at) for _, datagram, at in strays], second.now)
    assert at_first.messages() == at_second.messages() == [b"%d" % n for n in range(10)]


@pytest.mark.parametrize("datagram", [b"\x3c", b"\x30", b"\x3f\x01", b"\x34\x00\x00"])
def test_records_too_short_for_an_id(datagram: bytes) -> None:
    [site] = sites(1)
    site.endpoint.receive([(datagram, HERE)], 0.0)
    assert site.inside(Discard.UNKNOWN_CID) == 1
    assert site.endpoint.foreign.take() == []


def test_a_cookie_of_one_is_good_in_all() -> None:
    first, second = sites()
    client = dtls.Connection.client(configs.client_context().config(), now=0.0, server_name="localhost")
    first.endpoint.receive([(datagram, HERE) for datagram in client.transmit(0.0)], 0.0)
    for datagram, _ in first.endpoint.transmit(0.0):
        client.receive(datagram, 0.0)
    second.clients[HERE] = client
    second.run()
    assert client.state is dtls.State.CONNECTED
    assert second.endpoint.counters.cookies_accepted == 1
    assert second.endpoint.counters.hello_retry_requests == 0
    assert first.endpoint.connections == 0


def test_a_cookie_is_still_for_its_address_alone() -> None:
    first, second = sites()
    client = dtls.Connection.client(configs.client_context().config(), now=0.0, server_name="localhost")
    first.endpoint.receive([(datagram, HERE) for datagram in client.transmit(0.0)], 0.0)
    for datagram, _ in first.endpoint.transmit(0.0):
        client.receive(datagram, 0.0)
    second.endpoint.receive([(datagram, THERE) for datagram in client.transmit(0.0)], 0.0)
    assert second.endpoint.counters.cookies_refused == 1
    assert second.endpoint.connections == 0


def test_cookies_outlive_a_change_of_keys_and_no_more() -> None:
    first, second = sites(limits=Limits(cookie_seconds=60.0))
    jars = first.endpoint.gate.jar, second.endpoint.gate.jar
    facts = dtls_facts()
    late = COOKIE_PERIOD_SECONDS - 1
    cookie = jars[0].make(facts, HERE, late)
    assert jars[1].check(cookie, HERE, late + 30) is not None
    assert jars[1].check(cookie, HERE, late + 61) is None
    assert jars[0].generation + 1 == jars[1].generation
    # A key that is gone opens nothing, whatever its number says.
    for _ in range(256):
        late += COOKIE_PERIOD_SECONDS
        jars[0].rotate(late)
        assert jars[0].check(cookie, HERE, late) is None


def dtls_facts() -> dtls_cookie.CookieFacts:
    return dtls_cookie.CookieFacts(CipherSuite.TLS_AES_128_GCM_SHA256, None, bytes(32))


def test_shared_keys_that_end_before_a_cookie_are_refused() -> None:
    with pytest.raises(ValueError, match="as long as a cookie"):
        dtls_cookie.CookieJar(default_provider(), COOKIE_PERIOD_SECONDS + 1, shared=cookies())


def serving(ratchet: KeyRatchet | None) -> Context:
    context = configs.server_context()
    context.num_tickets = 1
    if ratchet is not None:
        context.share_ticket_keys(ratchet)
    return context


def test_a_ticket_of_one_is_good_in_all_and_each_changes_its_keys_with_the_others() -> None:
    first = KeyRatchet.begin(1e6, period=43_200.0, keep=2)
    secret, number = first.state(1e6)
    second = KeyRatchet(secret, number=number, period=43_200.0, keep=2)
    mine, other = (serving(ratchet).config().ticket_keys for ratchet in (first, second))
    ticket = mine.seal(b"state", 1e6)
    for later in (0.0, 43_200.0, 86_399.0):
        opened = other.open(ticket, 1e6 + later)
        assert opened is not None, later
        assert opened.state == b"state"
    assert other.open(ticket, 1e6 + 86_401.0) is None
    # The other has gone on to newer keys, and what it seals is opened by who has not looked since.
    assert mine.open(other.seal(b"newer", 1e6 + 86_401.0), 1e6 + 86_402.0) is not None
    assert serving(None).config().ticket_keys.open(ticket, 1e6) is None


def test_given_ticket_keys_stay() -> None:
    context = configs.server_context()
    context.set_ticket_keys([bytes(32)])
    other = configs.server_context()
    other.set_ticket_keys([bytes(32)])
    context.share_ticket_keys(KeyRatchet.begin(1e6, period=43_200.0, keep=2))
    ticket = context.config().ticket_keys.seal(b"state", 1e6)
    assert other.config().ticket_keys.open(ticket, 1e6) is not None


def test_ticket_keys_that_would_be_forgotten_too_soon_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="forgotten"):
        serving(KeyRatchet.begin(1e6, period=43_200.0, keep=1))
