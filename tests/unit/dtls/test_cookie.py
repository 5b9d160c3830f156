"""Cookies: good for one address, one hello and a short time; for nobody else, ever."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.groups import Group
from sealwire.crypto.providers import default_provider
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.dtls import cookie as cookie_module
from sealwire.dtls.cookie import CookieFacts, CookieJar

HERE = ("192.0.2.1", 4433)
LIFETIME = 60.0
ROTATION_SECONDS = 3600.0
FACTS = CookieFacts(CipherSuite.TLS_AES_128_GCM_SHA256, Group.X25519, bytes(range(32)))


def jar(now: float = 0.0) -> CookieJar:
    return CookieJar(default_provider(), LIFETIME, now)


@given(
    st.sampled_from(list(SUITES.values())),
    st.sampled_from([None, *Group]),
    st.floats(0, 1e6),
    st.floats(0, LIFETIME - 0.01),
    st.data(),
)
@pytest.mark.requirement("9147-5.1-2", "9147-11-4")
def test_a_cookie_brings_the_facts_back(
    spec: object, group: Group | None, now: float, age: float, data: st.DataObject
) -> None:
    assert hasattr(spec, "suite")
    assert hasattr(spec, "hash_bytes")
    digest = data.draw(st.binary(min_size=spec.hash_bytes, max_size=spec.hash_bytes))
    one = jar(now)
    cookie = one.make(CookieFacts(spec.suite, group, digest), HERE, now)
    found = one.check(cookie, HERE, now + age)
    assert found is not None
    assert (found.suite, found.group, found.client_hello_1_hash) == (spec.suite, group, digest)
    assert found.age == pytest.approx(age, abs=0.002)


@pytest.mark.requirement("9147-11-2")
@pytest.mark.parametrize(
    "elsewhere",
    [
        ("192.0.2.1", 4434),
        ("192.0.2.2", 4433),
        ("192.0.2.14433",),
        ("192.0.2.1", 443, 3),
        ("192.0.2.1", 4433, 0, 0),
        (),
    ],
)
def test_a_cookie_is_good_for_its_address_only(elsewhere: tuple[object, ...]) -> None:
    one = jar()
    cookie = one.make(FACTS, HERE, 0.0)
    assert one.check(cookie, elsewhere, 0.0) is None
    assert one.check(cookie, HERE, 0.0) is not None


@pytest.mark.requirement("9147-11-2")
def test_the_parts_of_an_address_cannot_be_shifted() -> None:
    one = jar()
    cookie = one.make(FACTS, ("fe80::1", 1, 23), 0.0)
    assert one.check(cookie, ("fe80::1", 12, 3), 0.0) is None


@pytest.mark.requirement("9147-11-3", "9147-5.1-11")
def test_every_flipped_bit_is_refused() -> None:
    one = jar()
    cookie = one.make(FACTS, HERE, 0.0)
    for bit in range(8 * len(cookie)):
        forged = bytearray(cookie)
        forged[bit // 8] ^= 1 << bit % 8
        assert one.check(bytes(forged), HERE, 0.0) is None, bit


@pytest.mark.requirement("9147-11-3")
def test_every_truncation_and_extension_is_refused() -> None:
    one = jar()
    cookie = one.make(FACTS, HERE, 0.0)
    for n in range(len(cookie)):
        assert one.check(cookie[:n], HERE, 0.0) is None
        assert one.check(cookie[-n:] if n else b"", HERE, 0.0) is None
    for more in (b"\0", bytes(16), bytes(60_000)):
        assert one.check(cookie + more, HERE, 0.0) is None
        assert one.check(more + cookie, HERE, 0.0) is None


@given(st.binary(max_size=200))
@pytest.mark.requirement("9147-11-3")
def test_any_bytes_are_refused(data: bytes) -> None:
    assert jar().check(data, HERE, 0.0) is None


@pytest.mark.requirement("9147-11-3")
def test_another_process_makes_other_cookies() -> None:
    assert jar().check(jar().make(FACTS, HERE, 0.0), HERE, 0.0) is None


@pytest.mark.requirement("9147-5.1-10")
def test_a_cookie_expires() -> None:
    one = jar()
    cookie = one.make(FACTS, HERE, 100.0)
    assert one.check(cookie, HERE, 100.0 + LIFETIME) is not None
    assert one.check(cookie, HERE, 100.0 + LIFETIME + 0.01) is None


@pytest.mark.requirement("9147-5.1-5", "9147-11-6")
def test_the_previous_key_is_good_and_the_one_before_it_is_not() -> None:
    one = jar()
    old = one.make(FACTS, HERE, ROTATION_SECONDS - 1)
    between = one.make(FACTS, HERE, ROTATION_SECONDS + 1)
    assert old[0] != between[0]
    assert one.check(old, HERE, ROTATION_SECONDS + 1) is not None
    late = 2 * ROTATION_SECONDS + 2
    one.make(FACTS, HERE, late)
    # From here on cookies never age, so that what ends one is its key.
    one.lifetime = float("inf")
    assert one.check(old, HERE, late) is None
    assert one.check(between, HERE, late) is not None


@pytest.mark.requirement("9147-5.1-5")
def test_a_key_that_is_gone_does_not_come_back_when_its_generation_byte_does() -> None:
    one = jar()
    first = one.make(FACTS, HERE, 0.0)
    now = 0.0
    for _ in range(256):
        now += ROTATION_SECONDS + 1
        one.make(FACTS, HERE, now)
    again = one.make(FACTS, HERE, now)
    assert again[0] == first[0]
    # Only the time in it could save the old cookie, and its MAC covers that.
    assert one.check(first[:1] + again[1:7] + first[7:], HERE, now) is None
    assert one.check(again, HERE, now) is not None


@pytest.mark.requirement("9147-11-3")
def test_macs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    class Watched:
        @staticmethod
        def compare_digest(a: bytes, b: bytes) -> bool:
            compared.append((a, b))
            return hmac.compare_digest(a, b)

    monkeypatch.setattr(cookie_module, "hmac", Watched)
    one = jar()
    cookie = one.make(FACTS, HERE, 0.0)
    assert one.check(cookie, HERE, 0.0) is not None
    assert one.check(cookie[:-1] + bytes((cookie[-1] ^ 1,)), HERE, 0.0) is None
    assert [len(a) == len(b) == 16 for a, b in compared] == [True, True]
    assert compared[0][0] == compared[0][1] != compared[1][0]


@pytest.mark.requirement("9147-11-5")
def test_a_cookie_holds_nothing_of_the_hello_but_its_hash() -> None:
    cookie = jar().make(FACTS, HERE, 0.0)
    # Generation, milliseconds, suite, group, hash, MAC.
    assert len(cookie) == 1 + 6 + 2 + 2 + 32 + 16
    assert cookie[11:43] == FACTS.client_hello_1_hash
