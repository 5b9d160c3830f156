"""Letters between workers: what is posted is what is taken, and a full queue costs nothing but its letter."""

from __future__ import annotations

import contextlib
import pickle
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.drive.letters import Item, Letters, decode, encode, post_offices
from sealwire.drive.peers import Reached

addresses = st.one_of(
    st.tuples(st.just("192.0.2.7"), st.integers(0, 65535)),
    st.tuples(st.just("fe80::1%eth0"), st.integers(0, 65535), st.integers(0, 9), st.integers(0, 9)),
).flatmap(
    lambda address: st.sampled_from([address, Reached.at(address, (socket.IPPROTO_IP, 8, bytes(range(12))))])
)
items = st.lists(st.tuples(st.binary(max_size=100), addresses), max_size=5)


@contextlib.contextmanager
def offices(workers: int = 2) -> Iterator[list[Letters]]:
    made = post_offices(workers)
    try:
        yield made
    finally:
        for letters in made:
            letters.close()


def own(address: object) -> object:
    return address.own if isinstance(address, Reached) else None


@given(items)
def test_what_is_written_is_what_is_read(some: list[Item]) -> None:
    read = decode(encode(some))
    assert read == some
    assert [own(address) for _, address in read] == [own(address) for _, address in some]


@given(items, st.integers(0, 300), st.integers(0, 255))
def test_other_bytes_are_refused_or_read(some: list[Item], at: int, byte: int) -> None:
    letter = bytearray(encode(some))
    if at < len(letter):
        letter[at] ^= byte
    for changed in (bytes(letter), bytes(letter[:at])):
        with contextlib.suppress(ValueError):
            decode(changed)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(letter: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(letter)


def test_letters_go_to_whom_they_are_for_however_long() -> None:
    sent = [(bytes(60_000), ("192.0.2.1", 1)), (b"b", ("192.0.2.1", 2)), (bytes(65_507), ("192.0.2.1", 3))]
    with offices(3) as (first, second, third):
        assert first.post(2, sent) == 0
        assert third.take() == sent
        assert first.take() == second.take() == third.take() == []


def test_a_full_queue_is_counted_and_holds_nobody_up() -> None:
    with offices() as (first, second):
        lost = sum(first.post(1, [(bytes(1000), ("192.0.2.1", n))]) for n in range(100_000))
        taken = 0
        while got := second.take():
            taken += len(got)
        assert 0 < taken < 100_000
        assert lost == 100_000 - taken
        # There is room again.
        assert first.post(1, [(b"x", ("192.0.2.1", 1))]) == 0


def test_they_travel_to_no_other_program_by_themselves() -> None:
    with offices() as (first, _), pytest.raises((RuntimeError, TypeError)):
        pickle.dumps(first)
