"""TLS 1.3 records over a byte stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.suites import SuiteSpec
from sealwire.errors import Alert, ProtocolError
from sealwire.record.bounds import MAX_CONTENT_BYTES, MAX_STREAM_SEQUENCE
from sealwire.record.stream_reference import StreamOpener, StreamSealer
from tests.record_layers import LAYERS, PROVIDER, SPECS, Layer, each_layer, each_suite, stream_keys

SPEC = SPECS[0]
KEYS = stream_keys(SPEC)


def pair(layer: Layer, sequence: int = 0, spec: SuiteSpec = SPEC) -> tuple[StreamSealer, StreamOpener]:
    keys = stream_keys(spec)
    return (
        layer.stream_sealer(PROVIDER, spec, keys, 3, sequence=sequence),
        layer.stream_opener(PROVIDER, spec, keys, 3, sequence=sequence),
    )


def protect(inner: bytes, sequence: int = 0, header: bytes = b"\x17\x03\x03") -> bytes:
    """A record made by hand, whatever its inside."""
    header += (len(inner) + 16).to_bytes(2, "big")
    nonce = (int.from_bytes(KEYS.iv, "big") ^ sequence).to_bytes(12, "big")
    return header + PROVIDER.aead(SPEC, KEYS.key).seal(nonce, inner, header)


def refuse(opener: StreamOpener, record: bytes, alert: Alert) -> None:
    """`record` ends `opener` with `alert`, and for good."""
    with pytest.raises(ProtocolError) as caught:
        opener.open(record)
    assert caught.value.alert is alert
    opened = opener.opened
    with pytest.raises(ProtocolError) as caught:
        opener.open(protect(b"good\x17", opener.sequence))
    assert caught.value.alert is Alert.BAD_RECORD_MAC
    assert opener.opened == opened


@each_layer
@each_suite
def test_round_trip(layer: Layer, spec: SuiteSpec) -> None:
    sealer, opener = pair(layer, spec=spec)
    assert sealer.seal_limit == spec.seal_limit
    for content_type, content, padding in (
        (22, b"hello", 0),
        (23, b"", 0),
        (23, b"\0\0", 100),
        (21, b"x", 1),
    ):
        record = sealer.seal(content_type, content, padding)
        assert record[:3] == b"\x17\x03\x03"
        size = len(content) + padding + 1 + spec.tag_bytes
        assert int.from_bytes(record[3:5], "big") == len(record) - 5 == size
        assert opener.open(record) == (content_type, content)
    assert (sealer.sequence, sealer.sealed, opener.sequence, opener.opened) == (4, 4, 4, 4)


@each_layer
@pytest.mark.parametrize("n", [0, 1, 999, 1000, 1001, 50_000])
def test_a_run_is_cut_at_the_limit(layer: Layer, n: int) -> None:
    sealer, opener = pair(layer)
    data = bytes(range(256)) * (n // 256 + 1)
    wire = sealer.seal_run(23, memoryview(data)[:n], 1000)
    assert sealer.sequence == -(-n // 1000)
    sizes, back = [], b""
    while wire:
        end = 5 + int.from_bytes(wire[3:5], "big")
        content_type, content = opener.open(wire[:end])
        assert content_type == 23
        sizes.append(len(content))
        back += content
        wire = wire[end:]
    assert back == data[:n]
    assert all(size == 1000 for size in sizes[:-1])


@each_layer
def test_any_kind_of_buffer(layer: Layer) -> None:
    words: Any = memoryview(bytearray(range(64))).cast("I")
    sealer, opener = pair(layer)
    for data in (bytearray(range(64)), memoryview(bytes(range(64))), words):
        record = sealer.seal_run(23, data)
        for wrap in (bytearray, memoryview):
            assert pair(layer, opener.sequence)[1].open(wrap(record)) == (23, bytes(range(64)))
        opener.open(record)


@each_layer
def test_what_a_sealer_refuses(layer: Layer) -> None:
    sealer, _ = pair(layer)
    full = bytes(MAX_CONTENT_BYTES)
    refusals: list[Callable[[], object]] = [
        lambda: sealer.seal(23, full, 1),
        lambda: sealer.seal(23, full + b"\0"),
        lambda: sealer.seal(0, b""),
        lambda: sealer.seal(256, b""),
        lambda: sealer.seal(23, b"", -1),
        lambda: sealer.seal_run(0, b""),
        lambda: sealer.seal_run(23, full, MAX_CONTENT_BYTES + 1),
        lambda: sealer.seal_run(23, full, 0),
    ]
    for refused in refusals:
        with pytest.raises(ValueError, match=r"content|padding|records of"):
            refused()
    assert sealer.sequence == 0


@each_layer
def test_sizes_at_and_above_the_limit(layer: Layer) -> None:
    full = bytes(MAX_CONTENT_BYTES)
    sealer, opener = pair(layer)
    assert opener.open(sealer.seal(23, full)) == (23, full)
    assert pair(layer)[1].open(protect(b"\x17" + bytes(MAX_CONTENT_BYTES))) == (23, b"")
    refuse(pair(layer)[1], protect(full + b"\0\x17"), Alert.RECORD_OVERFLOW)
    refuse(pair(layer)[1], b"\x17\x03\x03\xff\xff" + bytes(0xFFFF), Alert.RECORD_OVERFLOW)


@each_layer
def test_every_flipped_bit_ends_the_stream(layer: Layer) -> None:
    record = pair(layer)[0].seal(23, b"hello")
    for at in range(len(record)):
        for bit in range(8):
            bad = bytearray(record)
            bad[at] ^= 1 << bit
            alert = Alert.BAD_RECORD_MAC
            if at == 0:
                alert = Alert.UNEXPECTED_MESSAGE
            if at in (3, 4):
                alert = Alert.DECODE_ERROR
            refuse(pair(layer)[1], bytes(bad), alert)


@each_layer
def test_what_else_ends_the_stream(layer: Layer) -> None:
    for n in range(16):
        refuse(pair(layer)[1], b"\x17\x03\x03\x00" + bytes((n,)) + bytes(n), Alert.BAD_RECORD_MAC)
    for n in range(4):
        refuse(pair(layer)[1], protect(bytes(n)), Alert.UNEXPECTED_MESSAGE)
    refuse(pair(layer)[1], b"\x16\x03\x03\x00\x01\x00", Alert.UNEXPECTED_MESSAGE)
    for n in range(5):
        refuse(pair(layer)[1], b"\x17\x03\x03\x00\x00"[:n], Alert.DECODE_ERROR)
    # A record again, or one left out, is a broken stream and not a replay to forgive.
    first, second = (record for record in [protect(b"a\x17"), protect(b"b\x17", 1)])
    opener = pair(layer)[1]
    assert opener.open(first) == (23, b"a")
    refuse(opener, first, Alert.BAD_RECORD_MAC)
    refuse(pair(layer)[1], second, Alert.BAD_RECORD_MAC)


@each_layer
def test_the_version_field_is_authenticated_and_otherwise_ignored(layer: Layer) -> None:
    assert pair(layer)[1].open(protect(b"hi\x17", header=b"\x17\x55\xaa")) == (23, b"hi")


@each_layer
def test_numbers_end_and_never_wrap(layer: Layer) -> None:
    sealer, opener = pair(layer, MAX_STREAM_SEQUENCE)
    with pytest.raises(ProtocolError) as caught:
        sealer.seal_run(23, b"ab", 1)
    assert caught.value.alert is Alert.INTERNAL_ERROR
    record = sealer.seal(23, b"last")
    assert opener.open(record) == (23, b"last")
    with pytest.raises(ProtocolError, match="used up"):
        sealer.seal(23, b"")
    with pytest.raises(ProtocolError, match="used up"):
        opener.open(record)
    assert sealer.sequence == opener.sequence == MAX_STREAM_SEQUENCE + 1


@each_layer
def test_keys_of_the_wrong_length_are_refused(layer: Layer) -> None:
    for kind in (layer.stream_sealer, layer.stream_opener):
        with pytest.raises(ValueError, match="bytes"):
            kind(PROVIDER, SPEC, stream_keys(SPECS[1]), 3)


def outcome(opener: StreamOpener, data: bytes, start: int = 0) -> tuple[object, ...]:
    """All that a run can do, in a form to compare."""
    received = bytearray(b"before")
    try:
        ended: object = opener.open_run(data, start, received)
    except ProtocolError as error:
        ended = error.alert
    return ended, bytes(received), opener.sequence, opener.opened


@each_layer
@each_suite
def test_a_run_of_records_is_opened_into_one_buffer(layer: Layer, spec: SuiteSpec) -> None:
    sealer, opener = pair(layer, spec=spec)
    wire = sealer.seal_run(23, bytes(20_000)) + sealer.seal(23, b"") + sealer.seal(23, b"end", 9)
    behind = sealer.seal(23, b"not whole")
    received = bytearray(b"1")
    skipped = b"\x17" * 3
    at, messages, other = opener.open_run(memoryview(skipped + wire + behind[:-1]), 3, received)
    assert (at, messages, other) == (3 + len(wire), 3, None)
    assert received == b"1" + bytes(20_000) + b"end"
    assert opener.opened == 4
    assert opener.open_run(behind, 0, received)[:2] == (len(behind), 1)
    assert received.endswith(b"endnot whole")


@each_layer
def test_a_run_ends_behind_what_is_no_application_data(layer: Layer) -> None:
    sealer, opener = pair(layer)
    wire = sealer.seal(23, b"a") + sealer.seal(22, b"ticket")
    rest = sealer.seal(23, b"b")
    received = bytearray()
    assert opener.open_run(wire + rest, 0, received) == (len(wire), 1, (22, b"ticket"))
    assert received == b"a"
    # In front of what is not protected nothing happens.
    alert = b"\x15\x03\x03\x00\x02\x02\x28"
    assert opener.open_run(alert, 0, received) == (0, 0, None)
    assert opener.open_run(rest + alert, 0, received) == (len(rest), 1, None)
    for start in (-1, len(rest) + 1):
        with pytest.raises(ValueError, match="offset"):
            opener.open_run(rest, start, received)


@each_layer
def test_a_run_keeps_what_came_before_a_failure_and_nothing_after(layer: Layer) -> None:
    sealer, opener = pair(layer)
    good, bad, after = (sealer.seal(23, content) for content in (b"good", b"bad", b"after"))
    received = bytearray()
    with pytest.raises(ProtocolError) as caught:
        opener.open_run(good + bad[:-1] + b"\0" + after, 0, received)
    assert caught.value.alert is Alert.BAD_RECORD_MAC
    assert received == b"good"
    with pytest.raises(ProtocolError):
        opener.open_run(after, 0, received)
    assert received == b"good"


@each_layer
def test_a_buffer_that_is_in_use_is_not_moved(layer: Layer) -> None:
    sealer, opener = pair(layer)
    received = bytearray(b"held")
    wire = sealer.seal(23, b"x" * 100)
    with memoryview(received), pytest.raises(BufferError):
        opener.open_run(wire, 0, received)
    assert received[:4] == b"held"


RECORDS = st.lists(
    st.tuples(st.sampled_from((21, 22, 23, 23, 23)), st.binary(max_size=40), st.integers(0, 3)), max_size=6
)


@given(RECORDS, st.integers(0, 400), st.none() | st.tuples(st.integers(0, 400), st.integers(1, 255)))
def test_both_layers_make_the_same_of_a_run(
    records: list[tuple[int, bytes, int]], cut: int, damage: tuple[int, int] | None
) -> None:
    sealer = LAYERS[0].stream_sealer(PROVIDER, SPEC, KEYS, 3)
    wire = bytearray(b"".join(sealer.seal(*record) for record in records))
    if damage is not None and damage[0] < len(wire):
        wire[damage[0]] ^= damage[1]
    outcomes = []
    for layer in LAYERS:
        opener = layer.stream_opener(PROVIDER, SPEC, KEYS, 3)
        outcomes.append([outcome(opener, bytes(wire[:cut])), outcome(opener, bytes(wire))])
    assert all(one == outcomes[0] for one in outcomes)
