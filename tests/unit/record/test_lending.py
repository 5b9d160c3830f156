"""Contexts are lent for a run: whoever's turn it is, records come out as if each had contexts of its own."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sealwire.crypto.hkdf import TrafficKeys
from sealwire.crypto.suites import SuiteSpec
from sealwire.record.protect import open_data, seal_trains
from sealwire.record.reference import APPLICATION_DATA
from tests.record_layers import (
    COMPILED_LAYER,
    PROVIDER,
    REFERENCE,
    SPECS,
    datagram_keys,
    needs_compiled,
)

pytestmark = needs_compiled

EPOCH = 3
# Of one algorithm and direction; see crypto/_lending.pyx.
PLACES = 64


def keys_of(spec: SuiteSpec, peer: int) -> TrafficKeys:
    return datagram_keys(spec, bytes([peer]))


def held() -> tuple[int, int, int]:
    import sealwire.crypto._lending as lending

    return lending.held()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_more_peers_than_contexts_take_turns(spec: SuiteSpec) -> None:
    peers = [keys_of(spec, seed) for seed in range(2 * PLACES + 7)]
    sealers = [COMPILED_LAYER.sealer(PROVIDER, spec, keys, EPOCH) for keys in peers]
    openers = [COMPILED_LAYER.opener(PROVIDER, spec, keys, EPOCH) for keys in peers]
    twins = [REFERENCE.sealer(PROVIDER, spec, keys, EPOCH) for keys in peers]
    # Everybody in turn, then one and the same among others, then backwards.
    order = [*range(len(peers)), *(n for k in range(40) for n in (0, k)), *reversed(range(len(peers)))]
    for n in order:
        messages = [bytes([n]) * 40, b"", bytes(300)]
        records = sealers[n].seal_run(APPLICATION_DATA, messages)
        assert records == twins[n].seal_run(APPLICATION_DATA, messages)
        entries, _, _ = openers[n].open_run(records, 0, 0)
        assert [content for _, _, content in entries] == messages
        alone = sealers[n].seal(22, b"alone")
        assert alone == twins[n].seal(22, b"alone")
        assert openers[n].open_run([alone], 0, 0)[0][0][2] == b"alone"
    made, _, lent = held()
    assert made <= 10 * PLACES
    assert lent == 0


def test_the_keys_of_others_open_nothing() -> None:
    spec = SPECS[0]
    mine, other = keys_of(spec, 1), keys_of(spec, 2)
    sealer = COMPILED_LAYER.sealer(PROVIDER, spec, mine, EPOCH)
    openers = [COMPILED_LAYER.opener(PROVIDER, spec, keys, EPOCH) for keys in (mine, other)]
    for _ in range(PLACES + 1):
        record = sealer.seal(APPLICATION_DATA, b"for one")
        assert [opener.open_run([record], 0, 0)[0][0][0] for opener in openers] == [APPLICATION_DATA, -7]
    assert openers[1].forged == PLACES + 1


def test_contexts_forget_keys_whose_owner_is_gone() -> None:
    spec = SPECS[0]
    gc.collect()
    before = held()[1]
    sealer = COMPILED_LAYER.sealer(PROVIDER, spec, keys_of(spec, 1), EPOCH)
    assert held()[1] == before
    sealer.seal(APPLICATION_DATA, b"x")
    during = held()
    del sealer
    after = held()
    assert after[1] < during[1] or during[1] == before  # it may have taken somebody else's place
    assert after[0] == after[1]


def test_nothing_stays_lent_after_an_error() -> None:
    spec = SPECS[0]
    sealer = COMPILED_LAYER.sealer(PROVIDER, spec, keys_of(spec, 1), EPOCH)
    opener = COMPILED_LAYER.opener(PROVIDER, spec, keys_of(spec, 1), EPOCH)
    nothing: Any = object()
    for call in (
        lambda: sealer.seal(APPLICATION_DATA, bytes(20_000)),
        lambda: sealer.seal_run(APPLICATION_DATA, [b"a", nothing]),
        lambda: seal_trains(sealer, APPLICATION_DATA, [b"a", nothing], 0, 1000),
        lambda: opener.open_run([b"\x2f\x00", nothing], 0, 0),
        lambda: open_data(opener, [nothing], 0, 0),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
        assert held()[2] == 0
    # And neither is anything shut.
    record = sealer.seal(APPLICATION_DATA, b"after")
    assert opener.open_run([record], 0, 0)[0][0][2] == b"after"


def test_threads_that_run_at_the_same_time_are_lent_different_ones() -> None:
    # Large runs, for which the GIL is given away while contexts are out.
    spec = SPECS[0]
    messages = [bytes([n]) * 1200 for n in range(64)]

    def talk(seed: int) -> int:
        sealer = COMPILED_LAYER.sealer(PROVIDER, spec, keys_of(spec, seed), EPOCH)
        opener = COMPILED_LAYER.opener(PROVIDER, spec, keys_of(spec, seed), EPOCH)
        right = 0
        for _ in range(20):
            trains = seal_trains(sealer, APPLICATION_DATA, messages, 0, 1300)
            got, drops, *_ = open_data(opener, trains, 0, 0)
            right += got == messages and not drops
        return right

    # More threads than places, so that some have to make do with contexts of their own.
    with ThreadPoolExecutor(PLACES + 16) as pool:
        assert list(pool.map(talk, range(PLACES + 16))) == [20] * (PLACES + 16)
    made, _, lent = held()
    assert lent == 0
    assert made <= 10 * PLACES
