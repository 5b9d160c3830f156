"""The slab of split hellos: fixed memory, any order, and floods that reach nobody else's slot."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.providers import default_provider
from sealwire.dtls.cookie import Address
from sealwire.dtls.header import Fragment
from sealwire.dtls.slab import HelloSlab, WholeHello
from sealwire.tls13.messages import HandshakeType

HERE: Address = ("192.0.2.1", 4433)
SECONDS = 3.0


def slab(slots: int = 64, size: int = 4096) -> HelloSlab:
    return HelloSlab(default_provider(), slots, size, SECONDS)


def piece(body: bytes, start: int, end: int, seq: int = 0) -> Fragment:
    return Fragment(HandshakeType.CLIENT_HELLO, len(body), seq, start, body[start:end])


def elsewhere(n: int) -> Address:
    return (f"198.51.{n >> 16}.{n >> 8 & 0xFF}", n & 0xFFFF)


BODY = bytes(n % 251 for n in range(1800))


@st.composite
def cuts(draw: st.DrawFn) -> list[tuple[int, int]]:
    edges = sorted({0, len(BODY), *draw(st.lists(st.integers(1, len(BODY) - 1), max_size=6))})
    return draw(st.permutations(list(pairwise(edges))))


@given(cuts(), st.lists(st.integers(0, 1 << 40), min_size=7, max_size=7))
@pytest.mark.requirement("9147-5.5-4", "9147-5.2-4")
def test_a_hello_split_in_any_order_comes_together(ranges: list[tuple[int, int]], records: list[int]) -> None:
    one = slab()
    for n, (start, end) in enumerate(ranges):
        kept = one.put(piece(BODY, start, end), HERE, records[n], 100 + n, 0.0)
        if n < len(ranges) - 1:
            assert kept is True
    used = len(ranges)
    # All datagrams count as received; the highest record number is the one to go on from.
    assert kept == WholeHello(BODY, sum(100 + n for n in range(used)), max(records[:used]))
    # The slot is free again: the same hello starts over.
    assert one.put(piece(BODY, 0, 900), HERE, 0, 100, 0.0) is True


@pytest.mark.requirement("9147-5.5-5")
def test_overlaps_and_repetitions() -> None:
    one = slab()
    assert one.put(piece(BODY, 0, 1000), HERE, 0, 1, 0.0) is True
    assert one.put(piece(BODY, 0, 1000), HERE, 0, 1, 0.0) is True
    assert one.put(piece(BODY, 500, 1200), HERE, 0, 1, 0.0) is True
    assert isinstance(one.put(piece(BODY, 1100, 1800), HERE, 0, 1, 0.0), WholeHello)


@pytest.mark.requirement("9147-11-4")
def test_memory_stays_what_it_was_under_a_flood() -> None:
    one = slab(slots=256, size=1024)
    chance = random.Random(1)
    body = bytes(1000)
    before = one.memory_bytes
    for n in range(1_000):
        one.put(piece(body, 0, 100), elsewhere(n), 0, 100, n / 1e4)
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    for n in range(100_000):
        low = chance.randrange(1000)
        fragment = piece(body, low, chance.randrange(low, 1000) + 1, chance.randrange(2))
        one.put(fragment, elsewhere(chance.randrange(1 << 24)), n, 100, 0.1 + n / 1e4)
    grown = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert one.memory_bytes == before
    assert grown < 20_000


@pytest.mark.requirement("9147-11-4")
def test_a_young_slot_is_not_taken_and_an_old_one_is() -> None:
    one = slab(slots=4)
    mine = piece(BODY, 0, 900)
    assert one.put(mine, HERE, 0, 100, 0.0) is True
    # Four slots, all of one bucket: three more fit, then none.
    taken = [one.put(mine, elsewhere(n), 0, 100, 0.0) for n in range(10)]
    assert taken == [True] * 3 + [False] * 7
    assert one.put(mine, elsewhere(99), 0, 100, SECONDS) is False
    assert isinstance(one.put(piece(BODY, 900, 1800), HERE, 0, 100, SECONDS), WholeHello)
    # One is free now, and later the old ones give way one after the other.
    assert [one.put(mine, elsewhere(200 + n), 0, 100, SECONDS + 0.1) for n in range(5)] == [True] * 4 + [
        False
    ]


@pytest.mark.requirement("9147-11-4")
def test_the_slot_to_replace_is_chosen_at_random() -> None:
    survivors = set()
    for _ in range(60):
        one = slab(slots=4)
        for n in range(4):
            one.put(piece(BODY, 0, 900), elsewhere(n), 0, 100, 0.0)
        one.put(piece(BODY, 0, 900), HERE, 0, 100, SECONDS + 1)
        survivors.add(tuple(n for n in range(4) if one.holds(piece(BODY, 0, 900), elsewhere(n))))
    assert all(len(one) == 3 for one in survivors)
    assert len(survivors) == 4


@pytest.mark.requirement("9147-5.5-3")
@pytest.mark.parametrize(
    "wrong",
    [
        Fragment(HandshakeType.CLIENT_HELLO, 1800, 0, 500, b"\xff" * 500),
        Fragment(HandshakeType.CLIENT_HELLO, 1801, 0, 900, BODY[900:] + b"x"),
        Fragment(HandshakeType.CLIENT_HELLO, 901, 0, 900, b"x"),
    ],
    ids=["other bytes", "longer", "shorter"],
)
def test_a_contradiction_is_refused_while_the_slot_is_young(wrong: Fragment) -> None:
    one = slab()
    one.put(piece(BODY, 0, 900), HERE, 0, 100, 0.0)
    assert one.put(wrong, HERE, 0, 100, SECONDS) is False
    assert isinstance(one.put(piece(BODY, 900, 1800), HERE, 0, 100, SECONDS), WholeHello)


@pytest.mark.requirement("9147-5.11-1")
def test_a_new_attempt_takes_over_what_an_old_one_left() -> None:
    one = slab()
    one.put(piece(BODY, 0, 900), HERE, 5, 100, 0.0)
    other = bytes(1500)
    assert one.put(piece(other, 0, 800), HERE, 0, 200, SECONDS + 0.1) is True
    assert one.put(piece(other, 800, 1500), HERE, 1, 200, SECONDS + 0.2) == WholeHello(other, 400, 1)


@pytest.mark.requirement("9147-11-4")
def test_more_ranges_than_a_slot_has_are_refused_and_gaps_still_close() -> None:
    one = slab()
    kept = [one.put(piece(BODY, at, at + 1), HERE, 0, 1, 0.0) for at in range(0, 40, 2)]
    assert kept == [True] * 8 + [False] * 12
    assert one.put(piece(BODY, 1, 15), HERE, 0, 1, 0.0) is True
    assert isinstance(one.put(piece(BODY, 15, 1800), HERE, 0, 1, 0.0), WholeHello)


@pytest.mark.requirement("9147-11-4")
def test_a_hello_longer_than_a_slot_is_refused_at_once() -> None:
    one = slab(size=1000)
    assert one.put(Fragment(HandshakeType.CLIENT_HELLO, 1001, 0, 0, b"x"), HERE, 0, 1, 0.0) is False
    assert one.put(Fragment(HandshakeType.CLIENT_HELLO, (1 << 24) - 1, 0, 0, b"x"), HERE, 0, 1, 0.0) is False
    assert not one.holds(piece(BODY, 0, 1), HERE)
    assert one.put(Fragment(HandshakeType.CLIENT_HELLO, 1000, 0, 0, b"x"), HERE, 0, 1, 0.0) is True


@pytest.mark.requirement("9147-5.5-3")
def test_first_and_second_hello_of_one_address_do_not_mix() -> None:
    one = slab()
    second = BODY[::-1]
    one.put(piece(BODY, 0, 900, 0), HERE, 0, 100, 0.0)
    one.put(piece(second, 900, 1800, 1), HERE, 1, 100, 0.0)
    assert one.put(piece(second, 0, 900, 1), HERE, 2, 100, 0.0) == WholeHello(second, 200, 2)
    assert one.put(piece(BODY, 900, 1800, 0), HERE, 3, 100, 0.0) == WholeHello(BODY, 200, 3)


@pytest.mark.requirement("9147-11-4")
def test_what_is_taken_out_is_gone() -> None:
    one = slab()
    for low, high in ((100, 200), (300, 400)):
        one.put(piece(BODY, low, high), HERE, 0, 100, 0.0)
    fragment = piece(BODY, 0, 50)
    assert one.holds(fragment, HERE)
    assert not one.holds(fragment, elsewhere(1))
    assert one.take(fragment, HERE) == [(100, BODY[100:200]), (300, BODY[300:400])]
    assert not one.holds(fragment, HERE)
    assert one.take(fragment, HERE) == []
