"""Padding of records: to blocks, by a callback, never beyond what there is room for; and records too long."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealwire.crypto.suites import SuiteSpec
from sealwire.errors import Alert, Discard, ProtocolError
from sealwire.record.bounds import MAX_INNER_BYTES, block_padding
from sealwire.record.padding import NO_PADDING, Padding
from sealwire.record.reference import DISCARDS
from tests.record_layers import (
    COMPILED_LAYER,
    PROVIDER,
    REFERENCE,
    SPECS,
    Layer,
    datagram_keys,
    each_layer,
    each_suite,
    needs_compiled,
    stream_keys,
)

SPEC = SPECS[0]
EPOCH = 3
BLOCKS = st.one_of(st.integers(0, 300), st.sampled_from([0, 1, 2, 16384, 20_000, 1 << 40]))


@given(n=st.integers(0, 16384), block=st.integers(0, 20_000), longest=st.integers(0, MAX_INNER_BYTES))
@example(n=15, block=16, longest=MAX_INNER_BYTES)
@example(n=16, block=16, longest=20)
def test_a_block_is_filled_as_far_as_there_is_room(n: int, block: int, longest: int) -> None:
    padding = block_padding(n, block, longest)
    inner = n + 1 + padding
    assert padding >= 0
    if block < 2 or n + 1 >= longest:
        assert padding == 0
    else:
        assert inner % block == 0 or inner == longest
        assert padding < block
        assert inner <= longest


def test_what_a_callback_says_is_cut_to_the_room_there_is() -> None:
    asked: list[tuple[int, int]] = []

    def callback(content_type: int, n: int) -> int:
        asked.append((content_type, n))
        return {1: 5, 2: -7, 3: 10**9}[n]

    padding = Padding(callback=callback)
    assert [padding.of(23, n, 100) for n in (1, 2, 3)] == [5, 0, 96]
    assert padding.of(22, 3, 4) == 0
    assert asked == [(23, 1), (23, 2), (23, 3), (22, 3)]
    assert padding
    assert Padding(16)
    assert not Padding(1)
    assert not NO_PADDING


@pytest.mark.parametrize("answer", [ValueError("no"), None, "many"])
def test_a_callback_that_fails_is_an_internal_error(answer: object) -> None:
    def callback(content_type: int, n: int) -> int:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    with pytest.raises(ProtocolError) as caught:
        Padding(callback=callback).of(23, 1, 100)
    assert caught.value.alert is Alert.INTERNAL_ERROR


@each_layer
@each_suite
@pytest.mark.parametrize(
    ("block", "longest"), [(0, MAX_INNER_BYTES), (64, MAX_INNER_BYTES), (64, 100), (1 << 14, 900)]
)
def test_runs_are_padded_and_open_whole(layer: Layer, spec: SuiteSpec, block: int, longest: int) -> None:
    keys = datagram_keys(spec)
    sealer = layer.sealer(PROVIDER, spec, keys, EPOCH, b"cid")
    messages = [bytes(n) + b"." for n in (0, 1, 5, 62, 63, 64, 98, 99, 500)]
    records = sealer.seal_run(23, messages, block, longest)
    least = 16 - spec.tag_bytes
    for message, record in zip(messages, records, strict=True):
        inner = len(record) - (sealer.overhead - 1)
        assert inner == max(len(message) + 1 + block_padding(len(message), block, longest), least)
    entries, _, _ = layer.opener(PROVIDER, spec, keys, EPOCH, b"cid").open_run(records, 0, 0)
    assert [content for _, _, content in entries] == messages


@each_layer
@pytest.mark.parametrize(("block", "longest"), [(-1, 100), (16, -1), (16, MAX_INNER_BYTES + 1)])
def test_padding_that_cannot_be(layer: Layer, block: int, longest: int) -> None:
    sealer = layer.sealer(PROVIDER, SPEC, datagram_keys(SPEC), EPOCH)
    stream = layer.stream_sealer(PROVIDER, SPEC, stream_keys(SPEC), EPOCH)
    with pytest.raises(ValueError, match="blocks"):
        sealer.seal_run(23, [b"x"], block, longest)
    with pytest.raises(ValueError, match="blocks"):
        stream.seal_run(23, b"x", 100, block, longest)
    assert sealer.sequence == stream.sequence == 0


@needs_compiled
@given(
    spec=st.sampled_from(SPECS),
    messages=st.lists(st.one_of(st.binary(max_size=100), st.integers(0, 16384).map(bytes)), max_size=80),
    block=BLOCKS,
    longest=st.one_of(st.integers(0, MAX_INNER_BYTES), st.just(MAX_INNER_BYTES)),
)
@example(spec=SPECS[0], messages=[b""] * 65, block=256, longest=MAX_INNER_BYTES)
def test_both_pad_runs_alike(spec: SuiteSpec, messages: list[bytes], block: int, longest: int) -> None:
    one, other = (
        layer.sealer(PROVIDER, spec, datagram_keys(spec), EPOCH) for layer in (REFERENCE, COMPILED_LAYER)
    )
    assert one.seal_run(23, messages, block, longest) == other.seal_run(23, messages, block, longest)
    assert one.sequence == other.sequence


@needs_compiled
@given(
    content=st.integers(0, 40_000).map(bytes),
    limit=st.integers(1, 16384),
    block=BLOCKS,
    longest=st.integers(0, MAX_INNER_BYTES),
)
def test_both_pad_streams_alike(content: bytes, limit: int, block: int, longest: int) -> None:
    limit = max(limit, len(content) // 100 + 1)
    one, other = (
        layer.stream_sealer(PROVIDER, SPEC, stream_keys(SPEC), EPOCH) for layer in (REFERENCE, COMPILED_LAYER)
    )
    sealed = one.seal_run(23, content, limit, block, longest)
    assert other.seal_run(23, content, limit, block, longest) == sealed
    opener = COMPILED_LAYER.stream_opener(PROVIDER, SPEC, stream_keys(SPEC), EPOCH)
    opened, at = b"", 0
    while at < len(sealed):
        end = at + 5 + int.from_bytes(sealed[at + 3 : at + 5], "big")
        opened += opener.open(sealed[at:end])[1]
        at = end
    assert opened == content


@each_layer
@pytest.mark.requirement("8449-1")
def test_a_datagram_record_longer_than_agreed_is_dropped_and_counted_if_authentic(layer: Layer) -> None:
    sealer = layer.sealer(PROVIDER, SPEC, datagram_keys(SPEC), EPOCH)
    opener = layer.opener(PROVIDER, SPEC, datagram_keys(SPEC), EPOCH)
    opener.inner_limit = 64
    fits, padded, long = sealer.seal(23, bytes(63)), sealer.seal(23, b"", 64), sealer.seal(23, bytes(64))
    forged = long[:-1] + bytes((long[-1] ^ 1,))
    entries, _, _ = opener.open_run([fits, forged, padded, long], 0, 0)
    assert entries[0] == (23, 0, bytes(63))
    assert [DISCARDS[-entry[0]] for entry in entries[1:]] == [
        Discard.AUTHENTICATION,
        Discard.OVERSIZED_RECORD,
        Discard.OVERSIZED_RECORD,
    ]
    assert opener.overlong == 2


@each_layer
@pytest.mark.requirement("8449-1", "8446-ALERT-5")
def test_a_stream_record_longer_than_agreed_ends_the_stream(layer: Layer) -> None:
    sealer = layer.stream_sealer(PROVIDER, SPEC, stream_keys(SPEC), EPOCH)
    opener = layer.stream_opener(PROVIDER, SPEC, stream_keys(SPEC), EPOCH)
    opener.inner_limit = 64
    assert opener.open(sealer.seal(23, bytes(60), 3)) == (23, bytes(60))
    with pytest.raises(ProtocolError) as caught:
        opener.open(sealer.seal(23, bytes(60), 4))
    assert caught.value.alert is Alert.RECORD_OVERFLOW
