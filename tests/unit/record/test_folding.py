"""Openers as few bytes: both layers write the same; what is made of it goes on where the other stopped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealwire.crypto.suites import SuiteSpec
from sealwire.record import folding_reference, protect, reference
from tests.record_layers import LAYERS, PROVIDER, SPECS, Layer, datagram_keys

each_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
each_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)

WINDOW = 128


def unfold(
    layer: Layer, spec: SuiteSpec, folded: bytes, cid: bytes = b"id", window: int = WINDOW
) -> reference.Opener:
    if layer.name == "reference":
        return folding_reference.unfold(PROVIDER, spec, folded, cid, window)
    return protect.unfold(PROVIDER, spec, folded, cid, window)


def state(opener: reference.Opener) -> tuple[object, ...]:
    return (
        opener.epoch,
        opener.highest,
        opener.opened,
        opener.forged,
        opener.forgery_limit,
        opener.overlong,
        opener.inner_limit,
        opener.cid,
    )


@each_layer
@each_spec
@pytest.mark.parametrize("order", [[], [0], [3, 1], list(range(200)), [150, 40, 149, 3, 22], [199]])
def test_it_goes_on_where_it_stopped(layer, spec, order) -> None:  # type: ignore[no-untyped-def]
    keys = datagram_keys(spec)
    records = layer.sealer(PROVIDER, spec, keys, 3, b"id").seal_run(23, [bytes([n]) for n in range(200)])
    opener = layer.opener(PROVIDER, spec, keys, 3, b"id", WINDOW)
    opener.inner_limit = 300
    opener.open_run([records[n] for n in order], 0, 0)
    opener.open_run([records[0][:-1] + b"\0"], 0, 0)
    again = unfold(layer, spec, protect.fold(opener))
    assert state(again) == state(opener)
    # Each number is new, was seen, or is too old, as before.
    for n in range(200):
        assert again.would_open(records[n], 0) == opener.would_open(records[n], 0)
    assert again.open_run(records, 0, 0) == opener.open_run(records, 0, 0)
    assert state(again) == state(opener)


def test_who_lost_nothing_is_folded_into_keys_and_counts() -> None:
    spec = SPECS[0]
    keys = datagram_keys(spec)
    sizes = []
    for layer in LAYERS:
        opener = layer.opener(PROVIDER, spec, keys, 3)
        opener.open_run(layer.sealer(PROVIDER, spec, keys, 3).seal_run(23, [b""] * 300), 0, 0)
        sizes.append(len(protect.fold(opener)))
    assert set(sizes) == {44 + 2 * spec.key_bytes + 12}


@each_layer
@each_spec
def test_what_has_another_length_is_refused(layer, spec) -> None:  # type: ignore[no-untyped-def]
    folded = protect.fold(layer.opener(PROVIDER, spec, datagram_keys(spec), 3, b"id", WINDOW))
    for wrong in (b"", folded[:-1], folded + bytes(WINDOW // 8 + 1)):
        with pytest.raises(ValueError, match="no folded opener"):
            unfold(layer, spec, wrong)


@pytest.mark.skipif(len(LAYERS) == 1, reason="the compiled record layer is not in use")
@settings(max_examples=200, deadline=None)
@given(
    which=st.sampled_from(SPECS),
    order=st.lists(st.integers(0, 299), max_size=40),
    highest=st.one_of(st.just(-1), st.integers(0, 200)),
    bad=st.integers(0, 3),
)
def test_both_layers_fold_alike(which, order, highest, bad) -> None:  # type: ignore[no-untyped-def]
    keys = datagram_keys(which)
    records = LAYERS[0].sealer(PROVIDER, which, keys, 5).seal_run(23, [b"x" * (n % 7) for n in range(300)])
    folded = set()
    for layer in LAYERS:
        opener = layer.opener(PROVIDER, which, keys, 5, b"", WINDOW, highest=highest)
        opener.open_run([records[n] for n in order], 0, 0)
        opener.open_run([bytes([records[0][0]]) + bytes(60)] * bad, 0, 0)
        once = protect.fold(opener)
        folded |= {once, protect.fold(unfold(layer, which, once, b""))}
    assert len(folded) == 1
    # And each reads what the other wrote.
    (one,) = folded
    first, second = (unfold(layer, which, one, b"") for layer in LAYERS)
    for record in records:
        assert first.would_open(record, 0) == second.would_open(record, 0)


def test_the_plain_one_is_used_for_plain_openers() -> None:
    spec = SPECS[0]
    opener = reference.Opener(PROVIDER, spec, datagram_keys(spec), 3)
    assert protect.fold(opener) == folding_reference.fold(opener)
