"""Keys that several processes change together: the same in all, in step, and gone when they are old."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.ratchet import RATCHET_SECRET_BYTES, KeyRatchet

PERIOD = 100.0
times = st.lists(st.floats(1000.0, 3000.0), max_size=8).map(sorted)


def ratchet(now: float = 1000.0, keep: int = 1) -> KeyRatchet:
    return KeyRatchet.begin(now, period=PERIOD, keep=keep)


def another(one: KeyRatchet, now: float) -> KeyRatchet:
    """What a process that begins at `now` has."""
    secret, number = one.state(now)
    return KeyRatchet(secret, number=number, period=PERIOD, keep=one.keep)


@given(times, times, st.integers(0, 3))
def test_all_have_the_same_keys_whenever_they_look(mine: list[float], others: list[float], keep: int) -> None:
    one = ratchet(keep=keep)
    other = another(one, 1000.0)
    for now in mine:
        one.keys(now)
    for now in others:
        other.keys(now)
    late = another(one, 3000.0)
    assert one.keys(3000.0) == other.keys(3000.0) == late.keys(3000.0)
    assert list(one.keys(3000.0)) == list(range(30 - keep, 31))
    assert len(set(one.keys(3000.0).values())) == keep + 1


def test_a_key_lives_as_long_as_it_is_kept() -> None:
    one = ratchet()
    first = one.keys(1000.0)[10]
    assert one.keys(1199.9)[10] == first
    assert first not in one.keys(1200.0).values()


def test_who_learns_the_state_learns_no_older_key() -> None:
    one = ratchet()
    old = set(one.keys(1000.0).values())
    secret, number = one.state(1500.0)
    assert number == 14
    from_here = KeyRatchet(secret, number=number, period=PERIOD, keep=5).keys(9000.0)
    from_its_step = KeyRatchet(secret, number=0, period=PERIOD, keep=20).keys(1500.0)
    assert not old & {*from_here.values(), *from_its_step.values(), secret}


def test_a_clock_that_goes_back_changes_nothing() -> None:
    one = ratchet()
    keys = dict(one.keys(1500.0))
    assert one.keys(1000.0) == one.keys(-5.0) == keys


def test_it_does_not_show_its_secret() -> None:
    one = ratchet()
    secret, _ = one.state(1000.0)
    assert secret.hex() not in repr(one)
    assert repr(secret) not in repr(one)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: KeyRatchet(bytes(31), number=0, period=1.0),
        lambda: KeyRatchet(bytes(RATCHET_SECRET_BYTES), number=-1, period=1.0),
        lambda: KeyRatchet(bytes(RATCHET_SECRET_BYTES), number=0, period=0.0),
        lambda: KeyRatchet(bytes(RATCHET_SECRET_BYTES), number=0, period=float("nan")),
        lambda: KeyRatchet(bytes(RATCHET_SECRET_BYTES), number=0, period=1.0, keep=-1),
    ],
)
def test_what_cannot_be_is_refused(wrong: Callable[[], KeyRatchet]) -> None:
    with pytest.raises(ValueError, match="ratchet"):
        wrong()
