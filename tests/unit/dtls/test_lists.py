"""Lists and quotas of proved addresses: the longest prefix, ends, buckets; forgeries count for nothing."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.dtls.cookie import Address
from sealwire.dtls.lists import Bucket, Listed, Lists
from sealwire.errors import Discard, LimitReached
from sealwire.limits import Ledger, Limits
from tests.unit.dtls.hellos import HERE, THERE, Hello
from tests.unit.dtls.host import Site

SIX: Address = ("2001:db8:1:2::9", 4433, 0, 0)


def lists(most: int = 4_096) -> Lists:
    chosen = Limits(list_entries=most)
    return Lists(chosen, Ledger(chosen))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (HERE, Listed.BLOCKED),
        (("::ffff:192.0.2.1", 1, 0, 0), Listed.BLOCKED),
        (("192.0.2.7", 1), Listed.ALLOWED),
        (("192.0.3.1", 1), Listed.NEITHER),
        (SIX, Listed.BLOCKED),
        (("2001:db8:1:3::9", 1, 0, 0), Listed.ALLOWED),
        (("2001:db8:2::1", 1, 0, 0), Listed.NEITHER),
        (("a name", 1), Listed.NEITHER),
        ((), Listed.NEITHER),
    ],
)
def test_the_longest_prefix_decides(address: Address, said: Listed) -> None:
    one = lists()
    one.block("192.0.2.0/24")
    one.allow("192.0.2.7")
    one.allow("2001:db8:1::/48")
    one.block("2001:db8:1:2::/64")
    assert one.verdict(address, 0.0) is said


@given(st.integers(0, 32), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_prefixes_are_those_of_ipaddress(bits: int, network: int, address: int) -> None:
    prefix = ipaddress.ip_network((network, bits), strict=False)
    one = lists()
    one.block(str(prefix))
    ip = ipaddress.ip_address(address)
    assert (one.verdict((str(ip), 1), 0.0) is Listed.BLOCKED) == (ip in prefix)


def test_entries_end_by_themselves_and_can_be_taken_off() -> None:
    one = lists()
    one.block("192.0.2.0/24", now=10.0, seconds=5.0)
    assert one.verdict(HERE, 14.9) is Listed.BLOCKED
    assert one.verdict(HERE, 15.0) is Listed.NEITHER
    assert one.entries(15.0) == ()
    one.block("192.0.2.0/24", now=20.0)
    assert [str(entry.prefix) for entry in one.entries(1e9)] == ["192.0.2.0/24"]
    assert one.remove("192.0.2.0/24")
    assert not one.remove("192.0.2.0/24")
    assert one.verdict(HERE, 20.0) is Listed.NEITHER


@pytest.mark.parametrize("prefix", ["192.0.2.1/24", "somebody", "", "2001:db8::/200"])
def test_what_is_no_prefix(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        lists().block(prefix)


def test_a_full_list_makes_room_by_what_has_ended() -> None:
    one = lists(2)
    one.block("192.0.2.1", now=0.0, seconds=1.0)
    one.block("192.0.2.2", now=0.0)
    one.block("192.0.2.2", now=0.0, seconds=9.0)  # there already
    with pytest.raises(LimitReached, match="list_entries"):
        one.block("192.0.2.3", now=0.5)
    one.block("192.0.2.3", now=1.0)
    assert one.verdict(("192.0.2.3", 1), 1.0) is Listed.BLOCKED


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 30)), max_size=40))
def test_a_bucket_never_gives_more_than_its_rate(steps: list[tuple[float, int]]) -> None:
    bucket, now, taken = Bucket(10.0), 100.0, 0
    for wait, n in steps:
        now += wait
        for _ in range(n):
            if bucket.has(HERE, now, 1.0):
                bucket.spend(HERE, now, 1.0)
                taken += 1
    assert taken <= 10 + 10 * (now - 100.0) + 1e-6


def test_a_site_has_four_times_the_rate_of_a_subscriber() -> None:
    bucket = Bucket(5.0)

    def takes(host: str) -> bool:
        address = (host, 1, 0, 0)
        if not bucket.has(address, 0.0, 1.0):
            return False
        bucket.spend(address, 0.0, 1.0)
        return True

    subscribers = [sum(takes(f"2001:db8:1:{n}::{m}") for m in range(9)) for n in range(6)]
    assert subscribers == [5, 5, 5, 5, 0, 0]
    assert takes("2001:db8:2::1")


def test_buckets_do_not_grow_without_end() -> None:
    bucket = Bucket(1.0)
    for n in range(70_000):
        bucket.spend((str(ipaddress.IPv4Address(n)), 1), 0.0, 1.0)
    assert len(bucket) == 65_536


# --- endpoints ----------------------------------------------------------------------------------


def test_a_blocked_prefix_opens_no_connection_and_keeps_those_it_has() -> None:
    site = Site()
    client, _ = site.connect()
    site.endpoint.doors.lists.block("192.0.2.0/24", seconds=60.0)
    other = site.add(THERE)
    site.run()
    assert other.state is dtls.State.HANDSHAKING
    assert site.endpoint.counters.discards[Discard.REFUSED] >= 1
    assert client.state is dtls.State.CONNECTED
    assert site.endpoint.connections == 1


@pytest.mark.requirement("9147-11-1")
def test_forged_hellos_use_up_nobodys_share() -> None:
    """Thousands of hellos from an address, without its cookie; then its owner comes."""
    site = Site(limits=Limits(prefix_new_per_second=1))
    one = Hello()
    site.endpoint.receive([(one.first[0], HERE)] * 100, 0.0)
    site.endpoint.transmit(0.0)
    client, _ = site.connect()
    assert client.state is dtls.State.CONNECTED
    assert Discard.OVER_QUOTA not in site.endpoint.counters.discards
