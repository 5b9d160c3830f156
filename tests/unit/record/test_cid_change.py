"""Sealers and openers whose connection id changes while they are in use (RFC 9147 section 9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.errors import Discard
from sealwire.record.protect import DISCARDS
from tests.record_layers import (
    LAYERS,
    PROVIDER,
    SPECS,
    Layer,
    datagram_keys,
    each_layer,
)

SPEC = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]
DATA = 23


def refused(entries: list[tuple[int, int, bytes]]) -> list[Discard]:
    return [DISCARDS[-kind] for kind, _, _ in entries]


@each_layer
@pytest.mark.requirement("9147-9-1", "9147-4-7")
def test_records_carry_the_id_set_last_and_go_on_counting(layer: Layer) -> None:
    keys = datagram_keys(SPEC)
    sealer = layer.sealer(PROVIDER, SPEC, keys, 3, b"old")
    opener = layer.opener(PROVIDER, SPEC, keys, 3, b"old")
    assert sealer.cid == opener.cid == b"old"
    first = sealer.seal(DATA, b"one")
    sealer.cid = b"new"
    second, third = sealer.seal_run(DATA, [b"two", b"three"])
    assert [record[1:4] for record in (first, second, third)] == [b"old", b"new", b"new"]
    assert all(record[0] & 0x10 for record in (first, second, third))
    assert opener.open_run([first], 0, 0)[0] == [(DATA, 0, b"one")]
    assert refused(opener.open_run([second], 0, 0)[0]) == [Discard.UNKNOWN_CID]
    opener.cid = b"new"
    # One numbering and one window for all ids of an epoch.
    assert opener.open_run([second, third], 0, 0)[0] == [(DATA, 1, b"two"), (DATA, 2, b"three")]
    opener.cid = b"old"
    assert refused(opener.open_run([first], 0, 0)[0]) == [Discard.REPLAY]
    assert opener.forged == 0


@each_layer
def test_an_id_of_another_length_changes_the_overhead(layer: Layer) -> None:
    keys = datagram_keys(SPEC)
    sealer = layer.sealer(PROVIDER, SPEC, keys, 3, b"")
    plain = sealer.overhead
    for cid in (b"x", b"y" * 255, b"", b"z" * 8):
        sealer.cid = cid
        assert sealer.overhead == plain + len(cid)
        record = sealer.seal(DATA, b"content")
        assert len(record) == len(b"content") + sealer.overhead
        assert bool(record[0] & 0x10) is bool(cid)
        assert record[1 : 1 + len(cid)] == cid


@each_layer
def test_ids_that_cannot_be_are_refused_and_change_nothing(layer: Layer) -> None:
    keys = datagram_keys(SPEC)
    sealer = layer.sealer(PROVIDER, SPEC, keys, 3, b"four")
    opener = layer.opener(PROVIDER, SPEC, keys, 3, b"four")
    overhead = sealer.overhead
    with pytest.raises(ValueError, match="at most 255 bytes, not 256"):
        sealer.cid = bytes(256)
    assert (sealer.cid, sealer.overhead) == (b"four", overhead)
    for other in (b"", b"three"):
        with pytest.raises(ValueError, match=f"of {len(other)} bytes cannot follow one of 4"):
            opener.cid = other
    assert opener.cid == b"four"
    assert opener.open_run([sealer.seal(DATA, b"x")], 0, 0)[0] == [(DATA, 0, b"x")]


@each_layer
def test_the_id_is_authenticated(layer: Layer) -> None:
    """A record under one id does not open as one under another, though both are ours."""
    keys = datagram_keys(SPEC)
    sealer = layer.sealer(PROVIDER, SPEC, keys, 3, b"one")
    opener = layer.opener(PROVIDER, SPEC, keys, 3, b"two")
    record = sealer.seal(DATA, b"x")
    assert refused(opener.open_run([record[:1] + b"two" + record[4:]], 0, 0)[0]) == [Discard.AUTHENTICATION]
    assert opener.forged == 1


@given(
    st.sampled_from(SPECS),
    st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=40)), min_size=1, max_size=12),
)
def test_all_layers_make_the_same_records_through_all_changes(
    spec: object, steps: list[tuple[bytes, bytes]]
) -> None:
    chosen = next(one for one in SPECS if one is spec)
    keys = datagram_keys(chosen)
    sealers = [layer.sealer(PROVIDER, chosen, keys, 4, b"") for layer in LAYERS]
    for cid, content in steps:
        made = set()
        for sealer in sealers:
            sealer.cid = cid
            made.add((sealer.seal(DATA, content), sealer.overhead, bytes(sealer.cid)))
        assert len(made) == 1
