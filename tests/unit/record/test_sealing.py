"""What a sealer puts on the wire, and where it stops."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sealwire.crypto.suites import SUITES, CipherSuite, SuiteSpec
from sealwire.errors import Alert, ProtocolError
from sealwire.record.bounds import MAX_CONTENT_BYTES
from sealwire.record.header import MAX_SEQUENCE
from sealwire.record.protect import Sealer
from sealwire.record.reference import Opener
from sealwire.record.reference import Sealer as SealerInterface
from tests.record_layers import PROVIDER, SPECS, Layer, datagram_keys, each_layer, each_suite, stream_keys

SPEC = SPECS[0]


def sealer(layer: Layer, epoch: int = 3, cid: bytes = b"", sequence: int = 0) -> SealerInterface:
    return layer.sealer(PROVIDER, SPEC, datagram_keys(SPEC), epoch, cid, sequence=sequence)


@pytest.mark.requirement("9147-4-7", "9147-4-11")
@each_layer
@pytest.mark.parametrize("epoch", [2, 3, 4, 5, (1 << 64) - 1])
@pytest.mark.parametrize("cid", [b"", b"\x00", b"connection", bytes(range(255))])
def test_the_unified_header(layer: Layer, epoch: int, cid: bytes) -> None:
    one = sealer(layer, epoch, cid)
    record = one.seal(23, b"hello")
    bits = 0x2C | (0x10 if cid else 0) | epoch & 3
    assert record[0] == bits
    assert record[1 : 1 + len(cid)] == cid
    assert int.from_bytes(record[3 + len(cid) : 5 + len(cid)], "big") == 5 + 1 + 16
    assert len(record) == 5 + one.overhead
    assert (one.epoch, one.sequence, one.sealed) == (epoch, 1, 1)
    short = one.seal(23, b"hello", short_sequence=True, with_length=False)
    assert short[0] == bits & ~0x0C
    assert len(short) == len(record) - 3


@each_layer
@each_suite
def test_a_run_is_its_records_one_by_one(layer: Layer, spec: SuiteSpec) -> None:
    keys = datagram_keys(spec)
    run = layer.sealer(PROVIDER, spec, keys, 3, b"cid")
    single = layer.sealer(PROVIDER, spec, keys, 3, b"cid")
    # More than the compiled path handles at once, and enough bytes for it to let go of the GIL.
    messages = [bytes([n & 0xFF]) * (n * 7 % 1200) for n in range(200)]
    assert run.seal_run(23, messages) == [single.seal(23, message) for message in messages]
    assert run.seal_run(23, []) == []
    assert run.sequence == single.sequence == run.sealed == 200


@each_layer
def test_any_kind_of_buffer_is_sealed_alike(layer: Layer) -> None:
    words = memoryview(bytearray(range(64))).cast("I")
    kinds: list[Any] = [bytes(range(64)), bytearray(range(64)), memoryview(bytes(range(64))), words]
    records = {sealer(layer).seal(23, kind) for kind in kinds}
    records |= {sealer(layer).seal_run(23, [kind])[0] for kind in kinds}
    assert len(records) == 1


@each_layer
def test_what_a_record_cannot_hold(layer: Layer) -> None:
    one = sealer(layer)
    full = bytes(MAX_CONTENT_BYTES)
    assert len(one.seal(23, full)) == MAX_CONTENT_BYTES + one.overhead
    assert one.sequence == 1
    for refused in (
        lambda: one.seal(23, full + b"\0"),
        lambda: one.seal(23, full, 1),
        lambda: one.seal(23, b"", MAX_CONTENT_BYTES + 1),
        lambda: one.seal(23, b"", -1),
        lambda: one.seal(23, b"", (1 << 63) - 1),
        lambda: one.seal(0, b"x"),
        lambda: one.seal(256, b"x"),
        lambda: one.seal_run(0, []),
        lambda: one.seal_run(23, [b"fits", full + b"\0"]),
        lambda: one.seal_run(23, [b"fits", bytearray(MAX_CONTENT_BYTES + 1)]),
    ):
        with pytest.raises(ValueError, match=r"content|padding"):
            refused()
    with pytest.raises(TypeError):
        one.seal_run(23, [b"fits", "text"])  # type: ignore[list-item]
    # A refusal costs no number; only what is found out later may.
    assert one.sequence == 1


@pytest.mark.requirement("9147-4.2.3-4")
@each_layer
@each_suite
def test_every_record_is_long_enough_to_be_masked(layer: Layer, spec: SuiteSpec) -> None:
    """Only 8-byte tags need padding for it; seal() and seal_run() put in the same."""
    keys = datagram_keys(spec)
    one, run = (layer.sealer(PROVIDER, spec, keys, 3) for _ in range(2))
    opener = layer.opener(PROVIDER, spec, keys, 3)
    contents = [bytes(range(n)) for n in range(12)]
    records = [one.seal(23, content) for content in contents]
    assert run.seal_run(23, contents) == records
    header = one.overhead - 1 - spec.tag_bytes
    assert header == 5
    sizes = [len(record) - header for record in records]
    assert sizes == [max(16, n + 1 + spec.tag_bytes) for n in range(12)]
    assert [int.from_bytes(record[3:5], "big") for record in records] == sizes
    # Padding that was asked for counts: it is not added to.
    assert len(one.seal(23, b"", 7)) == header + max(16, 8 + spec.tag_bytes)
    assert opener.open_run(records, 0, 0)[0] == [(23, n, content) for n, content in enumerate(contents)]


@pytest.mark.requirement("9147-4.2.1-6")
@each_layer
def test_numbers_end_and_never_wrap(layer: Layer) -> None:
    one = sealer(layer, sequence=MAX_SEQUENCE - 1)
    with pytest.raises(ProtocolError) as caught:
        one.seal_run(23, [b"a", b"b", b"c"])
    assert caught.value.alert is Alert.INTERNAL_ERROR
    assert len(one.seal_run(23, [b"a", b"b"])) == 2
    for _ in range(2):
        with pytest.raises(ProtocolError, match="used up"):
            one.seal(23, b"c")
    assert one.sequence == MAX_SEQUENCE + 1


@pytest.mark.requirement("9147-4.5.3-9")
@each_layer
def test_limits_come_from_the_suite(layer: Layer) -> None:
    for spec in SPECS:
        one = layer.sealer(PROVIDER, spec, datagram_keys(spec), 3)
        assert one.seal_limit == spec.seal_limit
        other = layer.opener(PROVIDER, spec, datagram_keys(spec), 3)
        assert other.forgery_limit == spec.forgery_limit


@each_layer
def test_keys_of_the_wrong_length_are_refused(layer: Layer) -> None:
    keys = datagram_keys(SUITES[CipherSuite.TLS_AES_256_GCM_SHA384])
    for kind in (layer.sealer, layer.opener):
        with pytest.raises(ValueError, match="bytes"):
            kind(PROVIDER, SPEC, keys, 3)


@each_layer
def test_what_no_epoch_can_start_with(layer: Layer) -> None:
    keys, flat = datagram_keys(SPEC), stream_keys(SPEC)
    refusals: list[Callable[[], object]] = [
        lambda: layer.sealer(PROVIDER, SPEC, keys, 3, bytes(256)),
        lambda: layer.opener(PROVIDER, SPEC, keys, 3, bytes(256)),
        lambda: layer.sealer(PROVIDER, SPEC, keys, 3, sequence=-1),
        lambda: layer.sealer(PROVIDER, SPEC, keys, 3, sequence=MAX_SEQUENCE + 2),
        lambda: layer.opener(PROVIDER, SPEC, keys, 3, highest=-2),
        lambda: layer.opener(PROVIDER, SPEC, keys, 3, highest=MAX_SEQUENCE + 1),
        lambda: layer.stream_sealer(PROVIDER, SPEC, flat, 3, sequence=-1),
        lambda: layer.stream_opener(PROVIDER, SPEC, flat, 3, sequence=1 << 64),
    ]
    for refused in refusals:
        with pytest.raises(ValueError, match=r"connection id|record number"):
            refused()


@each_layer
def test_a_sealer_is_never_copied(layer: Layer) -> None:
    """Two sealers with the same keys and numbers would use nonces twice."""
    for one in (sealer(layer), layer.stream_sealer(PROVIDER, SPEC, datagram_keys(SPEC), 3)):
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                copied(one)


def test_two_threads_never_share_a_number() -> None:
    """Misuse, but no misuse may repeat a nonce: each record has its own number or is an error."""
    shared = Sealer(PROVIDER, SPEC, datagram_keys(SPEC), 3)
    message = bytes(1200)
    records: list[bytes] = []

    def work() -> None:
        for _ in range(50):
            with contextlib.suppress(RuntimeError):  # another thread has it in work
                records.extend(shared.seal_run(23, [message] * 64))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opener = Opener(PROVIDER, SPEC, datagram_keys(SPEC), 3, window=16384)
    entries = opener.open_run(records, 0, 0)[0]
    assert all(content_type == 23 for content_type, _, _ in entries)
    assert len({sequence for _, sequence, _ in entries}) == len(records) > 0
